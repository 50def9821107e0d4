"""One training, however many attempts it takes: who may work on it, and what an earlier attempt has left.

A training is known by what shapes its weights: the prepared data, the settings of model and training, and the number of
ranks. Its folder among the checkpoints is there from its first attempt until it has ended well, so the same command
goes on where the last one stopped, and begins anew once there is nothing left to do.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pipeline.config import Config
from pipeline.data.manifest import Manifest
from pipeline.runtime.console import log
from pipeline.runtime.lock import lock
from pipeline.runtime.storage import Folder

_RUN = "training.json"


@dataclass(frozen=True)
class Training:
    """What this attempt finds."""

    folder: Folder
    """Of its checkpoints."""
    run_id: str | None
    """The MLflow run of the attempts before; None at the first."""

    def remember(self, run_id: str) -> None:
        """Keep the run for the attempts that may follow."""
        self.folder.write(_RUN, json.dumps({"run_id": run_id}).encode())

    def forget(self) -> None:
        """Delete everything: this training has ended well."""
        self.folder.remove()


@contextmanager
def claim(config: Config, data: Manifest, num_proc: int, fresh: bool) -> Iterator[Training]:
    """Take the training for this job as long as the block runs; with ``fresh``, what there is of it is deleted.

    Raises:
        UserError: another job is at it.
    """
    name = _fingerprint(config, data, num_proc)
    folder = config.checkpoint_dir / name
    with lock(config.lock_dir / name) as holder:
        if holder:
            problem = f"the same training is running already ({holder}); wait for it, or give this one a folder of its"
            raise config.mistake("run.work_dir", f"{problem} own")
        if fresh and folder.exists():
            log.info("--fresh: removing the checkpoints in %s", folder)
            folder.remove()
        folder.make()
        for stale in (name for name in folder.names() if name.startswith(".")):  # half-written when a job was killed
            folder.delete(stale)
        yield Training(folder, _run_id(folder))


def _run_id(folder: Folder) -> str | None:
    try:
        return str(json.loads(folder.read(_RUN))["run_id"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def _fingerprint(config: Config, data: Manifest, num_proc: int) -> str:
    """Hash what shapes the weights; where and how the job runs is left out, but for the number of ranks."""
    settings = config.model_dump(exclude={"run", "recovery", "tracking", "source"}, mode="json")
    for how_kept in ("checkpoint_every", "checkpoint_keep"):
        del settings["training"][how_kept]
    ranks = num_proc if config.recovery.elastic is None else "elastic"  # those of an attempt may be more or fewer
    shape = {"data": data.fingerprint, "settings": settings, "num_proc": ranks}
    return hashlib.sha256(json.dumps(shape, sort_keys=True).encode()).hexdigest()[:16]
