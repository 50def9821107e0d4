"""What happens within an epoch: the steps that all ranks take together, and the counting that proves them right."""

from __future__ import annotations

import copy
import json
import math
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field

import horovod.torch as hvd
import numpy as np
import torch
from torch import Tensor

from pipeline.config import Training
from pipeline.data.manifest import Manifest, SplitName
from pipeline.data.specs import net_spec
from pipeline.evaluation.metrics import (
    Counts,
    EpochRecord,
    Evaluation,
    SplitMetrics,
    Tally,
    classification_metrics,
    regression_metrics,
)
from pipeline.model.network import TabularNet, describe_weights, weight_bytes
from pipeline.model.spec import NetSpec
from pipeline.runtime.errors import Stopped, UserError
from pipeline.runtime.storage import Folder
from pipeline.tracking.metric_writer import MetricWriter
from pipeline.training import checkpoint, components, elastic, place
from pipeline.training.checkpoint import Checkpoint, Progress
from pipeline.training.components import loss_sum
from pipeline.training.exchange import Exchange
from pipeline.training.loader import Shard, check_rows, open_shard, steps_and_rows
from pipeline.training.place import Place
from pipeline.training.task import Task, TrainingResult


def train(
    task: Task, stop_asked: Callable[[], bool] = lambda: False, committed: elastic.Committed | None = None
) -> TrainingResult | None:
    """Train as one of the ranks that `hvd.init` has joined; return the result on rank 0, None on the others.

    It goes on from what is ``committed``, else from the checkpoint that the task names, else from the beginning.

    Raises:
        UserError: the loss is no finite number any more, or ranks are where they should not be.
        Stopped: ``stop_asked`` has become true on some rank; what was done is kept.
    """
    this = _set_up(task, committed.content if committed else checkpoint_of(task))
    settings, progress = task.config.training, this.progress
    begin = time.perf_counter()
    with ExitStack() as writers:
        metrics = files = None
        if this.rank == 0:
            metrics = writers.enter_context(MetricWriter(task.tracking_uri, task.run_id, progress.history))
            files = writers.enter_context(checkpoint.Writer(task.checkpoints, settings.checkpoint_keep))
        while not _is_over(progress, settings):
            record = _one_epoch(this, stop_asked)
            _take(this, record)
            this.say(_epoch_line(record, settings.epochs))
            if metrics:
                metrics.write(record)
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
        assert progress.best is not None
        this.net.load_state_dict(this.best_weights)
        best_epoch = progress.best.epoch
        evaluation = evaluate_fully(this.net, this.shards["validation"], task, best_epoch)
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


def checkpoint_of(task: Task) -> bytes | None:
    """Return the checkpoint that the task goes on from; None when it begins."""
    return checkpoint.read(task.checkpoints, task.checkpoint) if task.checkpoint else None


def _set_up(task: Task, content: bytes | None) -> _Rank:
    """Read this rank's shards and build its network, the same on every rank, from a checkpoint's ``content`` if any."""
    config, data, settings = task.config, task.data, task.config.training
    rank, num_proc = hvd.rank(), hvd.size()
    places: list[Place] = hvd.allgather_object(place.here())
    if place.DRIVER not in task.cores and (problem := place.crowded(places, config.run.ranks_per_executor)):
        raise config.mistake("run.num_proc", problem)
    threads = place.threads(task.cores, places, rank)
    torch.set_num_threads(threads)
    device = _device(places, rank)

    torch.manual_seed(settings.seed)
    net = TabularNet(net_spec(config, data)).to(device)
    hvd.broadcast_parameters(dict(net.named_parameters()), root_rank=0)
    peak = settings.learning_rate * components.lr_factor(settings, num_proc)
    exchange = Exchange(net)
    optimizer = components.make_optimizer(settings, exchange.parameter, peak)
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


def _one_epoch(this: _Rank, stop_asked: Callable[[], bool]) -> EpochRecord:
    """Train and validate for one epoch, or for what is left of it; return its record, the same on all ranks."""
    task, data, epoch, begin = this.task, this.task.data, this.progress.epoch + 1, time.perf_counter()
    _seed_epoch(task.config.training.seed, epoch, this.rank)
    done, before = _rest_of_epoch(this.saved, this.rank, this.device)
    this.saved = None
    lr = components.warmed_up(task.config.training, epoch, this.peak, len(this.batch_rows))
    trained, steps = train_epoch(
        this.net, this.optimizer, this.exchange, this.shards["train"], this.batch_rows, task, epoch, lr, this.say,
        stopping=stop_asked, steps_done=done, before=before,
    )  # fmt: skip
    if steps < len(this.batch_rows):
        _keep_part(this, trained, steps)
        raise Stopped(f"stopped by SIGTERM in epoch {epoch} after step {steps:,} of {len(this.batch_rows):,}")
    validated = evaluate(this.net, this.shards["validation"], data)
    train, validation = epoch_metrics(data, task.folder, epoch, trained, validated, this.net.spec)
    check_finite(task, epoch, train.loss + validation.loss)
    share = 1 - done / len(this.batch_rows)  # of the epoch that was done now, not before a stop
    return EpochRecord(
        epoch=epoch,
        train=train,
        validation=validation,
        learning_rate=this.optimizer.param_groups[0]["lr"],
        rows_per_s=share * train.rows / (time.perf_counter() - begin),
        ranks=len(this.places),
        ended_ms=int(time.time() * 1000),
    )


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


def _take(this: _Rank, record: EpochRecord) -> None:
    """Enter an epoch in the progress; every rank decides the same, for the sums in the record are shared."""
    progress, loss, epoch = this.progress, record.validation.loss, record.epoch
    if loss < (progress.best.validation.loss if progress.best else math.inf):
        progress.best, this.best_weights = record, copy.deepcopy(this.net.state_dict())
    if loss < progress.lowest - this.task.config.training.early_stopping.min_delta:
        progress.lowest, progress.lowest_epoch = loss, epoch
    progress.epoch, progress.step, progress.parts = epoch, 0, []
    progress.history.append(record)


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


def _epoch_line(record: EpochRecord, epochs: int) -> str:
    metric = "accuracy" if "accuracy" in record.validation.metrics else "rmse"
    train, validation = record.train, record.validation
    return (
        f"epoch {record.epoch:>{len(str(epochs))}}/{epochs}  "
        f"loss {train.loss:.4f}  validation loss {validation.loss:.4f}  "
        f"{metric} {train.metrics[metric]:.4f}  validation {metric} {validation.metrics[metric]:.4f}  "
        f"{record.rows_per_s:,.0f} rows/s"
    )


def _speaker(rank: int) -> Callable[[str], None]:
    """Return a function that prints a line on rank 0, and nothing elsewhere; Horovod carries it to the driver."""

    def say(line: str) -> None:
        print(time.strftime("%H:%M:%S"), line, file=sys.stderr, flush=True)

    return say if rank == 0 else lambda line: None


_EVALUATION_BATCH = 4096
_LIFE_SIGN_S = 10


@dataclass
class Sums:
    """What one rank has seen of one split in one epoch; it adds up over the ranks."""

    loss: float = 0.0
    rows: int = 0
    detail: Counts = field(default_factory=lambda: np.zeros(0))
    """Confusion matrix, or the sums of `regression_metrics`."""


def train_epoch(
    net: TabularNet,
    optimizer: torch.optim.Optimizer,
    exchange: Exchange,
    shard: Shard,
    batch_rows: list[int],
    task: Task,
    epoch: int,
    lr: Callable[[int], float],
    say: Callable[[str], None],
    *,
    stopping: Callable[[], bool] = lambda: False,
    steps_done: int = 0,
    before: Sums | None = None,
) -> tuple[Sums, int]:
    """Take the steps of one epoch from ``steps_done`` on; return the sums so far and the steps done.

    The sums are of the weights as they were at each step. Fewer steps than ``batch_rows`` has are done where
    ``stopping`` has become true on any rank.

    Raises:
        UserError: the loss or a gradient is no finite number any more; all ranks stop before they take that step.
    """
    settings, device = task.config.training, next(net.parameters()).device
    net.train()
    sums = Running(net.spec, task.data, device, before)
    batches = shard.epoch(settings.batch_size, settings.seed, epoch, hvd.rank(), skip=steps_done)
    upcoming = next(batches, shard.nothing)
    last_word = time.monotonic()
    for step in range(steps_done, len(batch_rows)):
        # A rank without rows takes the step all the same, or the others would wait for it for ever.
        features, labels = upcoming[0].to(device), upcoming[1].to(device)
        for group in optimizer.param_groups:
            group["lr"] = lr(step)
        exchange.clear()
        outputs = net(features)
        loss = loss_sum(net, outputs, labels)
        # Sum, not average: each rank divides by the rows of the global batch, so that every row weighs the same however
        # unequal the ranks' last batches are.
        (loss / batch_rows[step]).backward()  # type: ignore[no-untyped-call]
        exchange.start(loss.detach(), stopping())
        sums.add(loss.detach(), outputs.detach(), labels)
        upcoming = next(batches, shard.nothing)
        is_finite, is_stopping = exchange.finish()
        if not is_finite:
            raise _not_finite(task, f"epoch {epoch}, step {step + 1}", features)
        optimizer.step()
        if is_stopping:
            return sums.total(), step + 1
        if time.monotonic() - last_word > _LIFE_SIGN_S:
            last_word = time.monotonic()
            say(f"epoch {epoch}/{settings.epochs}  step {step + 1:,} of {len(batch_rows):,}")
    return sums.total(), len(batch_rows)


def _not_finite(task: Task, where: str, features: Tensor) -> UserError:
    """Return the error that says why the loss is not finite; all ranks call this together."""
    names = [*task.data.numeric, *task.data.vocabularies]
    bad = (~torch.isfinite(features)).any(dim=0).nonzero().flatten().tolist()
    first = min((rank[0] for rank in hvd.allgather_object(bad, name="bad") if rank), default=None)
    told = f"{where}: the loss is no longer a finite number; "
    if first is not None:
        return task.config.mistake("features", f"{told}{names[first]} holds a value that is none: see features.sql")
    hint = "lower it, or set a scaling for the numeric features; the checkpoints before are kept"
    return task.config.mistake("training.learning_rate", f"{told}{hint}")


def check_finite(task: Task, epoch: int, loss: float) -> None:
    """Raise UserError unless the epoch's ``loss`` is a finite number; all ranks have the same."""
    if not math.isfinite(loss):
        told = f"epoch {epoch}: the validation loss is no finite number"
        raise task.config.mistake("training.learning_rate", f"{told}; lower it, or set a scaling for the features")


@torch.no_grad()
def evaluate(net: TabularNet, shard: Shard, data: Manifest) -> Sums:
    """Measure the net on this rank's part of the validation rows; nothing is exchanged until the epoch's end."""
    net.eval()
    device = next(net.parameters()).device
    sums = Running(net.spec, data, device)
    for features, labels in shard.batches(_EVALUATION_BATCH):
        features, labels = features.to(device), labels.to(device)
        outputs = net(features)
        sums.add(loss_sum(net, outputs, labels), outputs, labels)
    return sums.total()


@torch.no_grad()
def evaluate_fully(net: TabularNet, shard: Shard, task: Task, epoch: int) -> Evaluation:
    """Return all there is to say about the kept weights, those of ``epoch``, on the validation rows of all ranks."""
    net.eval()
    device = next(net.parameters()).device
    data, numeric = task.data, len(task.data.numeric)
    # what the packaged model will refuse: categories that training never saw, unless their feature encodes them
    refusing = [i for i, f in enumerate(task.config.features.categorical) if f.unknown == "refuse"]
    unseen = np.array([len(values) for values in data.vocabularies.values()], np.int64)
    tally = Tally(data.label, [len(values) + 1 for values in data.vocabularies.values()])
    for features, labels in shard.batches(_EVALUATION_BATCH):
        outputs = net(features.to(device)).double()
        answers = torch.softmax(outputs, dim=1) if data.label.classes else outputs.squeeze(1)
        codes = features[:, numeric:].long().numpy()
        refused = (codes == unseen)[:, refusing].any(axis=1)
        tally.add(answers.cpu().numpy(), labels.numpy(), codes, refused)
    tally.vector[:] = hvd.allreduce(torch.from_numpy(tally.vector), op=hvd.Sum, name="evaluation").numpy()
    evaluation = tally.evaluate(data.vocabularies)
    check_rows(data, task.folder, "validation", epoch, evaluation.rows)
    return evaluation


class Running:
    """Adds up loss, rows and the detail of the metrics on the device, without waiting for it at each batch."""

    def __init__(self, spec: NetSpec, data: Manifest, device: torch.device, before: Sums | None = None) -> None:
        self._classes = spec.outputs
        self._stats = data.label.stats
        size = spec.outputs**2 if spec.outputs > 1 else 4
        begin = before or Sums(detail=np.zeros(size))
        self._rows = begin.rows
        self._loss = torch.tensor(begin.loss, dtype=torch.float64, device=device)
        self._detail = torch.tensor(begin.detail, dtype=torch.float64, device=device)

    def add(self, loss: Tensor, outputs: Tensor, labels: Tensor) -> None:
        """Count one batch: its summed loss, outputs (rows, outputs) and labels (rows,)."""
        self._rows += len(labels)
        self._loss += loss
        if self._classes > 1:
            cells = labels * self._classes + outputs.argmax(dim=1)
            self._detail += torch.bincount(cells, minlength=self._classes**2)
            return
        assert self._stats is not None
        predicted, actual = outputs.squeeze(1).double(), labels.double()
        error, deviation = predicted - actual, actual - self._stats.mean
        sums = [error.square().sum(), error.abs().sum(), deviation.sum(), deviation.square().sum()]
        self._detail += torch.stack(sums)

    def total(self) -> Sums:
        """Return what was counted."""
        return Sums(loss=self._loss.item(), rows=self._rows, detail=self._detail.cpu().numpy())


def epoch_metrics(
    data: Manifest, folder: Folder, epoch: int, trained: Sums, validated: Sums, spec: NetSpec
) -> list[SplitMetrics]:
    """Add the ranks' sums up, prove that no row is missing, and return the metrics of both splits."""
    sums: dict[SplitName, Sums] = {"train": trained, "validation": validated}
    mine = np.concatenate([np.append(s.detail, [s.loss, s.rows]) for s in sums.values()])
    everyone = hvd.allreduce(torch.from_numpy(mine), op=hvd.Sum, name="epoch").numpy()
    found = []
    for split, part in zip(sums, np.split(everyone, 2), strict=True):
        loss, rows, detail = float(part[-2]), round(part[-1]), part[:-2]
        check_rows(data, folder, split, epoch, rows)
        metrics = (
            classification_metrics(detail.reshape(spec.outputs, spec.outputs))
            if spec.outputs > 1
            else regression_metrics([rows, *detail])
        )
        found.append(SplitMetrics(rows, loss / rows, metrics))
    return found
