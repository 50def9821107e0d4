"""Delivers each epoch's metrics to the MLflow store while training runs: no step waits, no epoch is logged twice."""

from __future__ import annotations

import itertools
import math
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline.evaluation.metrics import EpochRecord
from pipeline.runtime.errors import one_line
from pipeline.tracking import store
from pipeline.tracking.store import is_down

if TYPE_CHECKING:
    from mlflow import MlflowClient

_RECORDS_PER_BATCH = 50  # MLflow takes 1,000 metrics at once
_GATHERING_S = 1  # short epochs share a transaction
_PATIENCE_S = 20  # with a store that does not answer, when training has ended


class MetricWriter:
    """Delivers the metrics of every epoch in a thread of its own.

    While the store does not answer, epochs wait, and are delivered in their order when it answers again. They take no
    more memory: each is in the training's history anyway. An epoch that the store refuses stays pending; the driver
    reports it. A resumed training passes its ``history``: the writer delivers the epochs that the store does not have.
    """

    def __init__(self, uri: str, run_id: str, history: Sequence[EpochRecord] = ()) -> None:
        store.configure_mlflow()
        self._uri = uri
        self._run_id = run_id
        self._records = deque(history)
        self._logged: set[int] | None = None  # the store may have more than this attempt knows
        self._wake = threading.Event()
        self._give_up_at = math.inf
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def pending(self) -> list[EpochRecord]:
        """Return the epochs that the store has not confirmed."""
        return [record for record in self._records if record.epoch not in (self._logged or ())]

    def write(self, record: EpochRecord) -> None:
        """Hand over one epoch's metrics; returns at once."""
        self._records.append(record)
        self._wake.set()

    def __enter__(self) -> MetricWriter:
        return self

    def __exit__(self, *raised: object) -> None:
        """Wait until everything is in the store, but no longer than 20 s."""
        self._give_up_at = time.monotonic() + _PATIENCE_S
        self._closing.set()
        self._wake.set()
        self._thread.join(_PATIENCE_S)

    def _run(self) -> None:
        client = store.connect(self._uri)
        is_away, wait_s = False, 0.5
        while self._records or self._give_up_at == math.inf:
            self._wake.wait()
            self._wake.clear()
            while self._records and time.monotonic() < self._give_up_at:
                try:
                    self._deliver_batch(client)
                except Exception as error:
                    if not is_down(error):
                        _print_line(f"the MLflow store refuses the metrics; training goes on ({one_line(error)})")
                        return
                    if not is_away:
                        _print_line(f"the MLflow store does not answer; training goes on ({one_line(error)})")
                    is_away, wait_s = True, min(10.0, wait_s * 2)
                    time.sleep(max(0.1, min(wait_s, self._give_up_at - time.monotonic())))
                    continue
                if is_away:
                    _print_line("the MLflow store answers again")
                is_away, wait_s = False, 0.5
            if time.monotonic() >= self._give_up_at:
                return
            self._closing.wait(_GATHERING_S)

    def _deliver_batch(self, client: MlflowClient) -> None:
        """Log the oldest epochs in one transaction. They stay pending until the store has confirmed them."""
        batch = list(itertools.islice(self._records, _RECORDS_PER_BATCH))
        if self._logged is None:
            self._logged = logged_epochs(client, self._run_id)
        log_records(self._uri, self._run_id, [r for r in batch if r.epoch not in self._logged], client)
        for _ in batch:
            self._records.popleft()


def logged_epochs(client: MlflowClient, run_id: str) -> set[int]:
    """Return the epochs whose metrics the store has."""
    return {metric.step for metric in client.get_metric_history(run_id, "train_loss")}


def finite(values: dict[str, float]) -> dict[str, float]:
    """Return ``values`` without NaN and infinite ones, which no store takes."""
    return {name: value for name, value in values.items() if math.isfinite(value)}


def log_records(uri: str, run_id: str, records: Sequence[EpochRecord], client: MlflowClient | None = None) -> None:
    """Log the metrics of some epochs, with the time at which each ended. Raises what MLflow's client raises."""
    from mlflow.entities import Metric

    for start in range(0, len(records), _RECORDS_PER_BATCH):
        batch = records[start : start + _RECORDS_PER_BATCH]
        metrics = [Metric(n, value, r.ended_ms, r.epoch) for r in batch for n, value in finite(r.values).items()]
        (client or store.connect(uri)).log_batch(run_id, metrics)


def _print_line(line: str) -> None:
    print(time.strftime("%H:%M:%S"), line, file=sys.stderr, flush=True)
