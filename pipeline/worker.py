"""What one rank does, from `hvd.init` to the last epoch. Read it top to bottom: it is the whole training loop."""

from __future__ import annotations

import copy
import json
import math
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field

import horovod.torch as hvd
import numpy as np
import torch
from horovod.common.exceptions import HorovodInternalError
from torch import Tensor

from pipeline import placement
from pipeline.config import Training
from pipeline.errors import UserError
from pipeline.evaluation import Counts, Evaluation, Tally, classification_metrics, regression_metrics
from pipeline.loader import Shard, check_rows, epoch_order, read_shard, steps_and_rows
from pipeline.manifest import Manifest, SplitName
from pipeline.model import NetSpec, TabularNet, describe_weights, loss_sum, net_spec, weight_bytes
from pipeline.placement import Place
from pipeline.storage import Folder
from pipeline.task import RankReport, Task, TrainingResult
from pipeline.tracking import MetricWriter

_EVALUATION_BATCH = 4096
_LIFE_SIGN_S = 10


@dataclass
class _Sums:
    """What one rank has seen of one split in one epoch; it adds up over the ranks."""

    loss: float = 0.0
    rows: int = 0
    detail: Counts = field(default_factory=lambda: np.zeros(0))
    """Confusion matrix, or the sums of `regression_metrics`."""


def run_rank(task: Task) -> RankReport:
    """Train as one rank of a Horovod job. Whatever goes wrong is in the report, so that the driver can tell it once."""
    hvd.init()
    report = RankReport(rank=hvd.rank())
    try:
        report.result = train(task)
    except UserError as error:
        report.mistake = str(error)
    except HorovodInternalError:
        report.stopped_by_peer = True
        report.error = traceback.format_exc()
    except Exception:
        report.error = traceback.format_exc()
    finally:
        hvd.shutdown()  # the others' next collective fails at once instead of waiting for this rank
    return report


def train(task: Task) -> TrainingResult | None:
    """Train as one of the ranks that `hvd.init` has joined; return the result on rank 0, None on the others."""
    config, data, settings = task.config, task.data, task.config.training
    rank, num_proc = hvd.rank(), hvd.size()
    places: list[Place] = hvd.allgather_object(placement.here())
    if placement.DRIVER not in task.cores and (problem := placement.crowded(places, config.run.ranks_per_executor)):
        raise UserError(problem)
    threads = placement.threads(task.cores, places, rank)
    torch.set_num_threads(threads)
    device = _device()

    # Every rank starts from the same weights and draws its own dropout.
    torch.manual_seed(settings.seed)
    net = TabularNet(net_spec(config, data)).to(device)
    hvd.broadcast_parameters(dict(net.named_parameters()), root_rank=0)
    torch.manual_seed(settings.seed + 1 + rank)

    # Sum, not average: each rank divides by the rows of the global batch, so that every row weighs the same however
    # unequal the ranks' last batches are. One group: all gradients travel in one message, whose order of summation
    # cannot change from run to run.
    peak = settings.learning_rate * _lr_factor(settings, num_proc)
    optimizer = _optimizer(settings, net, peak)
    # (A new optimizer has no state to broadcast. hvd.broadcast_optimizer_state would make some by taking a step with
    # zero gradients, which weight decay turns into a change of the weights.)
    optimizer = hvd.DistributedOptimizer(optimizer, net.named_parameters(), op=hvd.Sum, groups=1)

    shards = {split: read_shard(task.folder, data, split, rank, num_proc) for split in data.splits}
    batch_rows = steps_and_rows(data.splits["train"].shard_rows(num_proc), settings.batch_size)
    say = _speaker(rank)
    say(
        f"training on {data.splits['train'].rows:,} rows, {len(batch_rows):,} steps an epoch of up to "
        f"{settings.batch_size * num_proc:,} rows, {num_proc} rank(s) with {threads} thread(s), {device}"
    )

    # The epoch with the lowest validation loss is kept. `lowest` is the loss that early stopping compares with.
    best, best_weights = {"validation_loss": math.inf}, net.state_dict()
    lowest, lowest_epoch = math.inf, 0
    history: list[dict[str, float]] = []
    begin = time.perf_counter()
    with MetricWriter(task.tracking_uri, task.run_id) if rank == 0 else nullcontext() as metric_writer:
        for epoch in range(1, settings.epochs + 1):
            epoch_begin = time.perf_counter()
            lr = warmed_up(settings, epoch, peak, len(batch_rows))
            trained = _train_epoch(net, optimizer, shards["train"], batch_rows, task, epoch, lr, device, say)
            validated = _evaluate(net, shards["validation"], data, device)
            record = _epoch_record(data, task.folder, epoch, trained, validated, net.spec)
            record["learning_rate"] = optimizer.param_groups[0]["lr"]
            record["rows_per_s"] = record["train_rows"] / (time.perf_counter() - epoch_begin)
            history.append(record)
            if metric_writer:
                metric_writer.write(record, epoch)
            say(_epoch_line(record, settings.epochs))

            # From here on, too, every rank decides the same: the sums in the record are shared.
            loss = record["validation_loss"]
            if not math.isfinite(record["train_loss"] + loss):
                hint = "lower training.learning_rate, or set a scaling for the numeric features"
                raise FloatingPointError(f"epoch {epoch}: the loss is no longer a finite number; {hint}")
            if loss < best["validation_loss"]:
                best, best_weights = record, copy.deepcopy(net.state_dict())
            if loss < lowest - settings.early_stopping.min_delta:
                lowest, lowest_epoch = loss, epoch
            patience = settings.early_stopping.patience
            if patience is not None and epoch - lowest_epoch >= patience:
                say(f"stopping: no lower validation loss for {patience} epochs")
                break
    train_s = time.perf_counter() - begin

    net.load_state_dict(best_weights)
    evaluation = _evaluate_fully(net, shards["validation"], task, int(best["epoch"]), device)
    if rank != 0:
        return None
    return TrainingResult(
        weights=weight_bytes(net),
        weights_text=describe_weights(net),
        network=json.dumps(asdict(net.spec), indent=1),
        best=best,
        evaluation=evaluation,
        history=history,
        places=places,
        pending=metric_writer.pending if metric_writer else [],
        train_s=train_s,
    )


def _device() -> torch.device:
    """Return the GPU that Spark has assigned to this rank's task, else this host's one for it, or the CPU without any.

    Raises RuntimeError when there are too few GPUs.
    """
    from horovod.spark.task import get_available_devices  # Horovod has it loaded in each rank; it imports pyspark

    if assigned := get_available_devices():  # by spark.task.resource.gpu.amount
        return torch.device(f"cuda:{assigned[0]}")
    if not torch.cuda.is_available():
        return torch.device("cpu")
    rank, gpus = hvd.local_rank(), torch.cuda.device_count()
    if rank >= gpus:
        told = f"{hvd.local_size()} ranks are on a machine with {gpus} GPU(s)"
        raise RuntimeError(
            f"{told}; lower run.num_proc, or hide the GPUs with CUDA_VISIBLE_DEVICES= to train on the CPU"
        )
    return torch.device(f"cuda:{rank}")


def _train_epoch(
    net: TabularNet,
    optimizer: torch.optim.Optimizer,
    shard: Shard,
    batch_rows: list[int],
    task: Task,
    epoch: int,
    lr: Callable[[int], float],
    device: torch.device,
    say: Callable[[str], None],
) -> _Sums:
    """Take every step of one epoch; the sums are of the weights as they were at each step."""
    settings = task.config.training
    net.train()
    sums = _Running(net.spec, task.data, device)
    batches = shard.batches(settings.batch_size, epoch_order(shard.rows, settings.seed, epoch, hvd.rank()))
    none_left = shard.features[:0], shard.labels[:0]
    last_word = time.monotonic()
    for step, rows in enumerate(batch_rows):
        # A rank without rows takes the step all the same, or the others would wait for it for ever.
        features, labels = next(batches, none_left)
        features, labels = features.to(device), labels.to(device)
        for group in optimizer.param_groups:
            group["lr"] = lr(step)
        optimizer.zero_grad()
        outputs = net(features)
        loss = loss_sum(net, outputs, labels)
        (loss / rows).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        sums.add(loss.detach(), outputs.detach(), labels)
        if time.monotonic() - last_word > _LIFE_SIGN_S:
            last_word = time.monotonic()
            say(f"epoch {epoch}/{settings.epochs}  step {step + 1:,} of {len(batch_rows):,}")
    return sums.total()


@torch.no_grad()
def _evaluate(net: TabularNet, shard: Shard, data: Manifest, device: torch.device) -> _Sums:
    """Measure the net on this rank's part of the validation rows; nothing is exchanged until the epoch's end."""
    net.eval()
    sums = _Running(net.spec, data, device)
    for features, labels in shard.batches(_EVALUATION_BATCH):
        features, labels = features.to(device), labels.to(device)
        outputs = net(features)
        sums.add(loss_sum(net, outputs, labels), outputs, labels)
    return sums.total()


@torch.no_grad()
def _evaluate_fully(net: TabularNet, shard: Shard, task: Task, epoch: int, device: torch.device) -> Evaluation:
    """Return all there is to say about the kept weights, those of ``epoch``, on the validation rows of all ranks."""
    net.eval()
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


class _Running:
    """Adds up loss, rows and the detail of the metrics on the device, without waiting for it at each batch."""

    def __init__(self, spec: NetSpec, data: Manifest, device: torch.device) -> None:
        self._classes = spec.outputs
        self._stats = data.label.stats
        self._rows = 0
        self._loss = torch.zeros((), dtype=torch.float64, device=device)
        size = spec.outputs**2 if spec.outputs > 1 else 4
        self._detail = torch.zeros(size, dtype=torch.float64, device=device)

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

    def total(self) -> _Sums:
        """Return what was counted."""
        return _Sums(loss=self._loss.item(), rows=self._rows, detail=self._detail.cpu().numpy())


def _epoch_record(
    data: Manifest, folder: Folder, epoch: int, trained: _Sums, validated: _Sums, spec: NetSpec
) -> dict[str, float]:
    """Add the ranks' sums up, prove that no row is missing, and return the metrics of both splits."""
    sums: dict[SplitName, _Sums] = {"train": trained, "validation": validated}
    mine = np.concatenate([np.append(s.detail, [s.loss, s.rows]) for s in sums.values()])
    everyone = hvd.allreduce(torch.from_numpy(mine), op=hvd.Sum, name="epoch").numpy()
    record: dict[str, float] = {"epoch": epoch}
    for split, part in zip(sums, np.split(everyone, 2), strict=True):
        loss, rows, detail = float(part[-2]), round(part[-1]), part[:-2]
        check_rows(data, folder, split, epoch, rows)
        metrics = (
            classification_metrics(detail.reshape(spec.outputs, spec.outputs))
            if spec.outputs > 1
            else regression_metrics([rows, *detail])
        )
        record |= {f"{split}_rows": rows, f"{split}_loss": loss / rows}
        record |= {f"{split}_{name}": value for name, value in metrics.items()}
    return record


def _lr_factor(settings: Training, num_proc: int) -> float:
    return {"none": 1.0, "linear": float(num_proc), "sqrt": math.sqrt(num_proc)}[settings.lr_scaling]


def warmed_up(settings: Training, epoch: int, peak: float, steps: int) -> Callable[[int], float]:
    """Return the learning rate of each step of this epoch: a linear rise to ``peak`` over the warm-up, then flat.

    The rise starts at the unscaled rate (Goyal et al. 2017, "gradual warmup"), or at 0 where nothing is scaled.
    """
    start = settings.learning_rate if peak > settings.learning_rate else 0.0
    warmup_steps = settings.warmup_epochs * steps

    def at(step: int) -> float:
        done = (epoch - 1) * steps + step + 1
        return peak if done >= warmup_steps else start + (peak - start) * done / warmup_steps

    return at


def _optimizer(settings: Training, net: TabularNet, learning_rate: float) -> torch.optim.Optimizer:
    parameters, decay = net.parameters(), settings.weight_decay
    if settings.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=learning_rate, momentum=0.9, weight_decay=decay)
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=decay)
    return torch.optim.Adam(parameters, lr=learning_rate, weight_decay=decay)


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
