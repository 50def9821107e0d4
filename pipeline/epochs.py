"""What happens within an epoch: the steps that all ranks take together, and the counting that proves them right."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import horovod.torch as hvd
import numpy as np
import torch
from torch import Tensor, nn

from pipeline.config import Training
from pipeline.errors import UserError
from pipeline.evaluation import Counts, Evaluation, Tally, classification_metrics, regression_metrics
from pipeline.loader import Shard, check_rows
from pipeline.manifest import Manifest, SplitName
from pipeline.model import NetSpec, TabularNet, loss_sum
from pipeline.storage import Folder
from pipeline.task import Task

_EVALUATION_BATCH = 4096
_LIFE_SIGN_S = 10


@dataclass
class Sums:
    """What one rank has seen of one split in one epoch; it adds up over the ranks."""

    loss: float = 0.0
    rows: int = 0
    detail: Counts = field(default_factory=lambda: np.zeros(0))
    """Confusion matrix, or the sums of `regression_metrics`."""


class Exchange:
    """One message per step between the ranks: all gradients, and behind them what the ranks must agree on.

    The parameters of the net are views of one vector, and their gradients of another, so nothing is packed or unpacked,
    the optimizer has one parameter to step, and the order of summation cannot change from run to run. (Horovod's
    DistributedOptimizer sends the same sums, but has no place for the rest: one more message a step would be needed
    for the ranks to stop together.)
    """

    def __init__(self, net: nn.Module) -> None:
        parameters = list(net.parameters())
        ends = list(itertools.accumulate(p.numel() for p in parameters))
        self.parameter = nn.Parameter(torch.empty(ends[-1], device=parameters[0].device))
        """All of the net's parameters, and their gradients."""
        self._flat = torch.zeros(ends[-1] + 2, device=parameters[0].device)
        self._handle = 0
        for parameter, end in zip(parameters, ends, strict=True):
            place = slice(end - parameter.numel(), end)
            self.parameter.data[place] = parameter.data.flatten()
            parameter.data = self.parameter.data[place].view_as(parameter)
            parameter.grad = self._flat[place].view_as(parameter)
        self.parameter.grad = self._flat[: ends[-1]]

    def clear(self) -> None:
        """Forget the last step's gradients."""
        self._flat.zero_()

    def start(self, loss: Tensor, wants_to_stop: bool) -> None:
        """Begin to add up over the ranks; there is time for other work until :meth:`finish`."""
        self._flat[-2] = loss
        self._flat[-1] = float(wants_to_stop)
        self._handle = hvd.allreduce_async_(self._flat, op=hvd.Sum, name="step")

    def finish(self) -> tuple[bool, bool]:
        """Wait for the sums; return whether all is finite everywhere, and whether any rank wants to stop."""
        hvd.synchronize(self._handle)
        total, stops = torch.stack([self._flat.sum(), self._flat[-1]]).tolist()
        return math.isfinite(total), stops > 0


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


def check_finite(task: Task, epoch: int, record: dict[str, float]) -> None:
    """Raise UserError unless the epoch's losses are finite numbers; all ranks have the same record."""
    if not math.isfinite(record["train_loss"] + record["validation_loss"]):
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


def epoch_record(
    data: Manifest, folder: Folder, epoch: int, trained: Sums, validated: Sums, spec: NetSpec
) -> dict[str, float]:
    """Add the ranks' sums up, prove that no row is missing, and return the metrics of both splits."""
    sums: dict[SplitName, Sums] = {"train": trained, "validation": validated}
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


def lr_factor(settings: Training, num_proc: int) -> float:
    """Return what the learning rate is multiplied by for this many ranks."""
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


def make_optimizer(settings: Training, parameter: nn.Parameter, learning_rate: float) -> torch.optim.Optimizer:
    """Return the optimizer that the settings name."""
    decay = settings.weight_decay
    if settings.optimizer == "sgd":
        return torch.optim.SGD([parameter], lr=learning_rate, momentum=0.9, weight_decay=decay)
    if settings.optimizer == "adamw":
        return torch.optim.AdamW([parameter], lr=learning_rate, weight_decay=decay)
    return torch.optim.Adam([parameter], lr=learning_rate, weight_decay=decay)
