"""What one rank does, from `hvd.init` to the last epoch. Horovod starts it once per executor; it knows no Spark."""

from __future__ import annotations

import copy
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from types import ModuleType
from typing import Any

import horovod.torch as hvd
import numpy as np
import torch
from horovod.common.exceptions import HorovodInternalError
from torch import Tensor

from pipeline import checkpoint, elastic, epochs, placement
from pipeline.checkpoint import Checkpoint, Progress
from pipeline.config import Training
from pipeline.delivery import MetricWriter
from pipeline.epochs import Exchange, Sums
from pipeline.errors import RowAccountingError, Stopped, StorageError, UserError
from pipeline.loader import Shard, open_shard, steps_and_rows
from pipeline.manifest import SplitName
from pipeline.model import TabularNet, describe_weights, net_spec, weight_bytes
from pipeline.placement import Place
from pipeline.task import RankReport, Task, TrainingResult


def run_rank(task: Task) -> RankReport:
    """Train as one rank of a Horovod job; a rank that fails tells the driver why, and ends with exit code 1."""
    # one of the ranks that come and go may simply end: the others go on; and what is kept of an epoch's middle needs
    # as many ranks again
    stop_asked = _hear_sigterm() if task.config.run.elastic is None else lambda: False
    ended = _give_signs_of_life(task, every_s=min(10.0, task.config.run.stall_timeout / 5))
    if task.is_elastic:
        elastic.secure_rank()
    _keep_compiler_out()
    hvd.init()
    try:
        result = _train_elastically(task) if task.is_elastic else train(task, stop_asked)
        ended.set()
        report = RankReport(hvd.rank(), result=result)
        RankReport(report.rank).send()
        return report
    except Exception as error:
        report = RankReport(_rank_now(task) or 0, *_told(error))
    finally:
        hvd.shutdown()  # the others' next collective fails at once instead of waiting for this rank
    ended.set()
    report.send()
    sys.exit(1)  # Horovod ends the other ranks, even one that hangs


def _train_elastically(task: Task) -> TrainingResult | None:
    """Train with whatever ranks there are; when one is lost or comes, all go on from the last epoch's end."""
    try:
        committed = elastic.Committed(_checkpoint_of(task))
    except FileNotFoundError:  # this rank has come later: others have gone on since, and will give it what they have
        committed = elastic.Committed(None)

    def train_in_this_world(committed: elastic.Committed) -> TrainingResult | None:
        if hvd.rank() == 0:
            RankReport(0, "world", str(hvd.size())).send()
        return train(task, committed=committed)

    result: TrainingResult | None = hvd.elastic.run(train_in_this_world)(committed)
    return result


def _told(error: Exception) -> tuple[str, str]:
    """Return what kind of failure this is, and what there is to say of it."""
    match error:
        case UserError():
            return "mistake", str(error)
        case StorageError() | RowAccountingError():
            return "storage", str(error)
        case Stopped():
            return "stopped", str(error)
        case HorovodInternalError():
            return "peer", traceback.format_exc()
    return "failure", traceback.format_exc()


def train(
    task: Task, stop_asked: Callable[[], bool] = lambda: False, committed: elastic.Committed | None = None
) -> TrainingResult | None:
    """Train as one of the ranks that `hvd.init` has joined; return the result on rank 0, None on the others.

    It goes on from what is ``committed``, else from the checkpoint that the task names, else from the beginning.

    Raises:
        UserError: the loss is no finite number any more, or ranks are where they should not be.
        Stopped: ``stop_asked`` has become true on some rank; what was done is kept.
    """
    this = _set_up(task, committed.content if committed else _checkpoint_of(task))
    settings, progress = task.config.training, this.progress
    begin = time.perf_counter()
    with ExitStack() as writers:
        metrics = files = None
        if this.rank == 0:
            metrics = writers.enter_context(MetricWriter(task.tracking_uri, task.run_id, progress))
            files = writers.enter_context(checkpoint.Writer(task.checkpoints, settings.checkpoint_keep))
        while not _is_over(progress, settings):
            record = _one_epoch(this, stop_asked)
            _take(this, record)
            this.say(_epoch_line(record, settings.epochs))
            if metrics:
                metrics.write(record, progress.epoch, progress.times_ms[-1])
            is_over = _is_over(progress, settings)
            is_due = files is not None and (progress.epoch % settings.checkpoint_every == 0 or is_over)
            if is_due or committed:
                content = checkpoint.pack(progress, this.net, this.best_weights, this.optimizer)
                if files and is_due:
                    files.put(progress, content)
                if committed and is_over:
                    committed.content = content  # nobody joins any more
                elif committed:
                    committed.commit(content)
        train_s = time.perf_counter() - begin
        if progress.epoch < settings.epochs:
            this.say(f"stopped early: no lower validation loss for {settings.early_stopping.patience} epochs")

        # Before rank 0 waits for its writers: the others must not wait for it.
        assert this.best_weights is not None
        this.net.load_state_dict(this.best_weights)
        best_epoch = int(progress.best["epoch"])
        evaluation = epochs.evaluate_fully(this.net, this.shards["validation"], task, best_epoch)
        peak_mib = hvd.allgather_object(_peak_mib())
    if this.rank != 0:
        return None
    return TrainingResult(
        weights=weight_bytes(this.net),
        weights_text=describe_weights(this.net),
        network=json.dumps(asdict(this.net.spec), indent=1),
        best=progress.best,
        evaluation=evaluation,
        history=progress.history,
        places=this.places,
        pending=metrics.pending if metrics else [],
        train_s=train_s,
        resets=committed.resets if committed else 0,
        peak_mib=peak_mib,
    )


@dataclass
class _Rank:
    """What one rank works with, as long as the ranks are the same."""

    task: Task
    rank: int
    places: list[Place]
    device: torch.device
    net: TabularNet
    optimizer: torch.optim.Optimizer
    exchange: Exchange
    peak: float
    """The learning rate after the warm-up."""
    shards: dict[SplitName, Shard]
    batch_rows: list[int]
    """Of each step of an epoch, over all ranks."""
    progress: Progress
    best_weights: dict[str, Tensor] | None
    saved: Checkpoint | None
    """What it goes on from, until the first epoch has begun."""
    say: Callable[[str], None]


def _checkpoint_of(task: Task) -> bytes | None:
    return checkpoint.read(task.checkpoints, task.checkpoint) if task.checkpoint else None


def _set_up(task: Task, content: bytes | None) -> _Rank:
    """Read this rank's shards and build its network, the same on every rank, from a checkpoint's ``content`` if any."""
    config, data, settings = task.config, task.data, task.config.training
    rank, num_proc = hvd.rank(), hvd.size()
    places: list[Place] = hvd.allgather_object(placement.here())
    if placement.DRIVER not in task.cores and (problem := placement.crowded(places, config.run.ranks_per_executor)):
        raise config.mistake("run.num_proc", problem)
    threads = placement.threads(task.cores, places, rank)
    torch.set_num_threads(threads)
    device = _device(places, rank)

    torch.manual_seed(settings.seed)
    net = TabularNet(net_spec(config, data)).to(device)
    hvd.broadcast_parameters(dict(net.named_parameters()), root_rank=0)
    peak = settings.learning_rate * epochs.lr_factor(settings, num_proc)
    exchange = Exchange(net)
    optimizer = epochs.make_optimizer(settings, exchange.parameter, peak)
    progress, best_weights, saved = Progress(cache=task.cache), None, None
    if content:
        saved = checkpoint.unpack(content)
        progress, best_weights = saved.progress, checkpoint.restore(saved, net, optimizer)
        progress.cache = task.cache

    shards = {split: open_shard(task.folder, data, split, rank, num_proc, task.cache) for split in data.splits}
    batch_rows = steps_and_rows(data.splits["train"].shard_rows(num_proc), settings.batch_size)
    say = _speaker(rank)
    say(
        f"training on {data.splits['train'].rows:,} rows, {len(batch_rows):,} steps an epoch of up to "
        f"{settings.batch_size * num_proc:,} rows, {num_proc} rank(s) with {threads} thread(s), {device}, "
        f"{'in memory' if task.cache == 'memory' else 'streamed'}"
    )
    if content:
        within = f", step {progress.step:,}" if progress.step else ""
        say(f"going on after epoch {progress.epoch}{within}: what was done until then is kept")
    return _Rank(
        task, rank, places, device, net, optimizer, exchange, peak, shards, batch_rows,
        progress, best_weights, saved, say,
    )  # fmt: skip


def _one_epoch(this: _Rank, stop_asked: Callable[[], bool]) -> dict[str, float]:
    """Train and validate for one epoch, or for what is left of it; return its record, the same on all ranks."""
    task, data, epoch, begin = this.task, this.task.data, this.progress.epoch + 1, time.perf_counter()
    _seed_epoch(task.config.training.seed, epoch, this.rank)
    done, before = _rest_of_epoch(this.saved, this.rank, this.device)
    this.saved = None
    lr = epochs.warmed_up(task.config.training, epoch, this.peak, len(this.batch_rows))
    trained, steps = epochs.train_epoch(
        this.net, this.optimizer, this.exchange, this.shards["train"], this.batch_rows, task, epoch, lr, this.say,
        stopping=stop_asked, steps_done=done, before=before,
    )  # fmt: skip
    if steps < len(this.batch_rows):
        _keep_part(this, trained, steps)
        raise Stopped(f"stopped by SIGTERM in epoch {epoch} after step {steps:,} of {len(this.batch_rows):,}")
    validated = epochs.evaluate(this.net, this.shards["validation"], data)
    record = epochs.epoch_record(data, task.folder, epoch, trained, validated, this.net.spec)
    epochs.check_finite(task, epoch, record)
    share = 1 - done / len(this.batch_rows)  # of the epoch that was done now, not before a stop
    record["learning_rate"] = this.optimizer.param_groups[0]["lr"]
    record["rows_per_s"] = share * record["train_rows"] / (time.perf_counter() - begin)
    record["ranks"] = len(this.places)
    return record


def _keep_part(this: _Rank, trained: Sums, steps: int) -> None:
    """Write a checkpoint within an epoch: also what each rank has counted, and where its random numbers are."""
    progress = this.progress
    progress.step = steps
    progress.parts = hvd.allgather_object({**asdict(trained), "detail": trained.detail.tolist()})
    random = hvd.allgather_object(_random_state(this.device))
    if this.rank == 0:
        content = checkpoint.pack(progress, this.net, this.best_weights, this.optimizer, random)
        checkpoint.write_or_tell(this.task.checkpoints, progress, content)
    hvd.barrier()  # no rank ends before it is written


def _take(this: _Rank, record: dict[str, float]) -> None:
    """Enter an epoch in the progress; every rank decides the same, for the sums in the record are shared."""
    progress, loss, epoch = this.progress, record["validation_loss"], this.progress.epoch + 1
    if loss < progress.best["validation_loss"]:
        progress.best, this.best_weights = record, copy.deepcopy(this.net.state_dict())
    if loss < progress.lowest - this.task.config.training.early_stopping.min_delta:
        progress.lowest, progress.lowest_epoch = loss, epoch
    progress.epoch, progress.step, progress.parts = epoch, 0, []
    progress.history.append(record)
    progress.times_ms.append(int(time.time() * 1000))


def _is_over(progress: Progress, settings: Training) -> bool:
    patience = settings.early_stopping.patience
    has_waited = patience is not None and progress.epoch - progress.lowest_epoch >= patience
    return progress.epoch >= settings.epochs or (progress.epoch > 0 and has_waited)


def _peak_mib() -> int:
    """Return the most memory that this process has had, in MiB; 0 where the system does not tell."""
    with suppress(OSError), open("/proc/self/status", encoding="utf-8") as status:
        for line in status:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) // 1024
    return 0


def _keep_compiler_out() -> None:
    """Spare this process torch's compiler: a second, and 65 MiB.

    Optimizers and seeds import it for nothing but to tell it to leave them alone (`torch._disable_dynamo`).
    """
    absent: Any = ModuleType("torch._dynamo")
    absent.disable = lambda function, *_, **__: function
    absent.graph_break = lambda: None
    sys.modules["torch._dynamo"] = absent
    torch._dynamo = absent


def _seed_epoch(seed: int, epoch: int, rank: int) -> None:
    """Seed dropout for this epoch alone, so that a training that goes on draws what an uninterrupted one would."""
    torch.manual_seed(int(np.random.SeedSequence([seed, epoch, rank, 1]).generate_state(1)[0]))


def _random_state(device: torch.device) -> Tensor:
    """Return the state of the generator that dropout draws from on this device."""
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _rest_of_epoch(saved: Checkpoint | None, rank: int, device: torch.device) -> tuple[int, Sums | None]:
    """Return the steps that were done of an epoch when it was stopped, and what this rank had seen by then."""
    if saved is None or not saved.progress.step:
        return 0, None
    random = saved.tensors[f"random.{rank}"]
    torch.cuda.set_rng_state(random, device) if device.type == "cuda" else torch.set_rng_state(random)
    part = saved.progress.parts[rank]
    return saved.progress.step, Sums(part["loss"], part["rows"], np.array(part["detail"]))


def _hear_sigterm() -> Callable[[], bool]:
    """Return a function that says whether this process was asked to end; the next step is then its last."""
    heard: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    return lambda: bool(heard)


def _give_signs_of_life(task: Task, every_s: float) -> threading.Event:
    """Tell the driver every so often that this process runs, until the event that is returned is set."""
    ended = threading.Event()

    def tell() -> None:
        while True:
            if (rank := _rank_now(task)) is not None:
                RankReport(rank, "alive").send()
            if ended.wait(every_s):
                return

    threading.Thread(target=tell, daemon=True).start()
    return ended


def _rank_now(task: Task) -> int | None:
    """Return this process's rank; None while ranks that come and go are being numbered anew."""
    if not task.is_elastic:
        return int(os.environ["HOROVOD_RANK"])
    try:
        return int(hvd.rank())
    except ValueError:
        return None


def _device(places: list[Place], rank: int) -> torch.device:
    """Return the GPU that Spark has assigned to this rank's task, else this host's one for it, or the CPU without any.

    Raises RuntimeError when there are too few GPUs.
    """
    from horovod.spark.task import get_available_devices  # Horovod has it loaded in each rank; it imports pyspark

    if assigned := get_available_devices():  # by spark.task.resource.gpu.amount
        return torch.device(f"cuda:{assigned[0]}")
    if not torch.cuda.is_available():
        return torch.device("cpu")
    # counted here, for to Horovod each rank of those that come and go is a host of its own
    hosts, gpus = [place.host for place in places], torch.cuda.device_count()
    before, on_host = hosts[:rank].count(hosts[rank]), hosts.count(hosts[rank])
    if before >= gpus:
        told = f"{on_host} ranks are on a machine with {gpus} GPU(s)"
        raise RuntimeError(
            f"{told}; lower run.num_proc, or hide the GPUs with CUDA_VISIBLE_DEVICES= to train on the CPU"
        )
    return torch.device(f"cuda:{before}")


def _epoch_line(record: dict[str, float], epochs: int) -> str:
    metric = "accuracy" if "validation_accuracy" in record else "rmse"
    return (
        f"epoch {record['epoch']:>{len(str(epochs))}}/{epochs}  "
        f"loss {record['train_loss']:.4f}  validation loss {record['validation_loss']:.4f}  "
        f"{metric} {record[f'train_{metric}']:.4f}  validation {metric} {record[f'validation_{metric}']:.4f}  "
        f"{record['rows_per_s']:,.0f} rows/s"
    )


def _speaker(rank: int) -> Callable[[str], None]:
    """Return a function that prints a line on rank 0, and nothing elsewhere; Horovod carries it to the driver."""

    def say(line: str) -> None:
        print(time.strftime("%H:%M:%S"), line, file=sys.stderr, flush=True)

    return say if rank == 0 else lambda line: None
