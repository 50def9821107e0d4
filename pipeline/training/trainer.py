"""How one rank trains: the epochs, the steps that all ranks take together, and the counting that proves them right."""

from __future__ import annotations

import copy
import json
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict

import numpy as np
import torch
from torch import Tensor

from pipeline.data.manifest import SplitName
from pipeline.data.specs import net_spec
from pipeline.evaluation.metrics import EpochRecord
from pipeline.evaluation.sums import MetricSums
from pipeline.model.network import TabularNet, describe_weights, weight_bytes
from pipeline.runtime.errors import Stopped
from pipeline.tracking.metric_writer import MetricWriter
from pipeline.training import checkpoint, components, elastic, partial_epoch, placement
from pipeline.training.checkpoint import Progress
from pipeline.training.divergence import check_losses, not_finite
from pipeline.training.exchange import Exchange, Ranks
from pipeline.training.hiding import Hiding
from pipeline.training.length import length_of
from pipeline.training.loader import Shard, open_shard, steps_and_rows
from pipeline.training.measuring import measure
from pipeline.training.task import Task, TrainingResult
from pipeline.training.validation import add_up, validate
from pipeline.training.weighting import Weighting, add_up_losses

_LOG_EVERY_S = 10
_USED_IN_EPOCHS: tuple[SplitName, ...] = ("train", "validation")  # the test rows stay unread until the last epoch ends


class Trainer:
    """One rank of a training, as long as the ranks are the same.

    All ranks construct it and call :meth:`train` together. Each has its own shard; all else is the same on all ranks.
    """

    def __init__(
        self, task: Task, ranks: Ranks, content: bytes | None = None, stop_asked: Callable[[], bool] = lambda: False
    ) -> None:
        """Build what the epochs need, in the state of the checkpoint ``content``, else in that of the seed.

        ``stop_asked`` returns whether this rank should stop after its next step.

        Raises:
            UserError: an executor has more ranks than it should.
            RuntimeError: a host has fewer GPUs than ranks.
            RowAccountingError: the prepared data differ from the manifest.
        """
        self.task, self.ranks, self.stop_asked = task, ranks, stop_asked
        self.data, self.settings = task.data, task.config.training

        # Every rank learns where all ranks run: its threads and its GPU follow from that.
        self.places = ranks.gather(placement.here())
        placement.check_places(self.places, task.config, task.cores)
        threads = placement.threads(task.cores, self.places, ranks.rank)
        torch.set_num_threads(threads)
        self.device = placement.device(self.places, ranks.rank)

        # The same network on every rank: the seed makes the weights, and rank 0's are sent to be sure.
        torch.manual_seed(self.settings.seed)
        self.net = TabularNet(net_spec(task.config, self.data)).to(self.device)
        ranks.broadcast(dict(self.net.named_parameters()))
        self.hiding = Hiding(task.config, self.data)
        self.weighting = Weighting(task.config, self.data, self.device)
        self.exchange = Exchange(self.net, ranks, self.weighting.is_on)
        self.length = length_of(self.settings, self.data, ranks.size)
        self.loss, self.step_loss = components.make_losses(task.config.label.task, self.net.spec, self.settings)
        decays, weights = components.decaying(self.net), self.exchange.parameter
        self.optimizer = components.make_optimizer(self.settings, weights, self.length.peak, decays)

        # Where the training stands: at its beginning, or where the checkpoint was written.
        self.progress = Progress(cache=task.cache)
        self.best_weights: dict[str, Tensor] | None = None
        self.saved = checkpoint.unpack(content) if content else None  # until the first epoch has begun
        if self.saved:
            self.progress = self.saved.progress
            self.progress.cache = task.cache
            self.best_weights = checkpoint.restore(self.saved, self.net, self.optimizer)

        # Every rank works out the same steps from the manifest, so none runs ahead of the others.
        self.shards: dict[SplitName, Shard] = {
            split: open_shard(task.folder, self.data, split, ranks.rank, ranks.size, task.cache)
            for split in _USED_IN_EPOCHS
        }
        self.batch_rows = steps_and_rows(self.data.splits["train"].shard_rows(ranks.size), self.length.batch_size)
        self.schedule = components.make_schedule(self.settings, self.length, len(self.batch_rows))
        self._log_start(threads)

    def train(self, committed: elastic.Committed | None = None) -> TrainingResult | None:
        """Train to the end; return the result on rank 0, None on the others.

        With ``committed``, each epoch's state is committed for the ranks that may come.

        Raises:
            UserError: the loss is not a finite number.
            Stopped: a rank was asked to stop; a checkpoint keeps what was done.
            StorageError: rank 0 cannot write a checkpoint.
            RowAccountingError: an epoch missed rows.
        """
        begin = time.perf_counter()
        with ExitStack() as writers:
            # Rank 0 writes for all: metrics and checkpoints, each in a thread of its own, so that no step waits.
            metrics = files = None
            if self.ranks.rank == 0:
                history = self.progress.history
                metrics = writers.enter_context(MetricWriter(self.task.tracking_uri, self.task.run_id, history))
                files = writers.enter_context(checkpoint.Writer(self.task.checkpoints, self.settings.checkpoint_keep))
            while not self._is_over():
                record = self._run_epoch()
                self._enter(record)
                if metrics:
                    metrics.write(record)
                self._save(files, committed)
            train_s = time.perf_counter() - begin
            if self.progress.epoch < self.length.epochs:
                self._log(f"stopped early: no lower validation loss for {self.settings.early_stopping.patience} epochs")

            # Inside the block: the other ranks must not wait until rank 0's writers are done.
            self.net.load_state_dict(self.best_weights or {})
            measured = measure(self.net, self.loss, self.task, self.ranks, self.shards)
            peak_mib = self.ranks.gather(placement.peak_memory_mib())
        if self.ranks.rank != 0:
            return None
        assert self.progress.best
        return TrainingResult(
            weights_sha256=checkpoint.write_weights(self.task.checkpoints, weight_bytes(self.net)),
            weights_text=describe_weights(self.net),
            network=json.dumps(asdict(self.net.spec), indent=1),
            best=self.progress.best,
            **vars(measured),
            history=self.progress.history,
            places=self.places,
            pending=metrics.pending if metrics else [],
            train_s=train_s,
            resets=committed.resets if committed else 0,
            peak_mib=peak_mib,
        )

    # ---- one epoch ---------------------------------------------------------------------------------------------------

    def _run_epoch(self) -> EpochRecord:
        """Train and validate for one epoch, or for the rest of one; return its record, the same on all ranks."""
        epoch, begin = self.progress.epoch + 1, time.perf_counter()
        # Each epoch seeds dropout anew, so that a resumed training draws the same numbers.
        seeds = np.random.SeedSequence([self.settings.seed, epoch, self.ranks.rank, 1])
        torch.manual_seed(int(seeds.generate_state(1)[0]))
        first_step, trained = self._restore_part()

        steps = self._take_steps(epoch, first_step, trained)
        if steps < len(self.batch_rows):
            self._keep_part(steps, trained)
            raise Stopped(f"stopped by SIGTERM in epoch {epoch} after step {steps:,} of {len(self.batch_rows):,}")
        validated = validate(self.net, self.loss, self.shards["validation"], self.task, self.device)
        train, validation = add_up(self.ranks, self.task, epoch, trained, validated)
        check_losses(self.task, epoch, train.loss, validation.loss)

        taken_now = 1 - first_step / len(self.batch_rows)  # share of the epoch that this process took
        record = EpochRecord(
            epoch=epoch,
            train=train,
            validation=validation,
            learning_rate=self.optimizer.param_groups[0]["lr"],
            rows_per_s=taken_now * train.rows / (time.perf_counter() - begin),
            ranks=self.ranks.size,
            ended_ms=int(time.time() * 1000),
        )
        self._log(record.line(self.length.epochs))
        return record

    def _take_steps(self, epoch: int, first_step: int, sums: MetricSums) -> int:
        """Take the steps of an epoch from ``first_step`` on and count them in ``sums``; return the steps that are done.

        They are fewer than the epoch's if a rank was asked to stop. Raises UserError on all ranks, before the step,
        if the loss or a gradient is not finite.
        """
        self.net.train()
        shard, steps, last_line = self.shards["train"], len(self.batch_rows), time.monotonic()
        batches = shard.epoch(self.length.batch_size, self.settings.seed, epoch, self.ranks.rank, skip=first_step)
        batch = next(batches, shard.no_rows)
        losses = [record.validation.loss for record in self.progress.history]
        for step in range(first_step, steps):
            # A rank without rows takes the step all the same, or the others would wait for it for ever.
            batch = batch.to(self.device)
            for group in self.optimizer.param_groups:
                group["lr"] = self.schedule((epoch - 1) * steps + step, losses)
            self.exchange.clear()
            outputs, weights = self.net.of_members(self.hiding.hide(batch.features)), self.weighting.of(batch)
            loss = add_up_losses(self.step_loss(outputs, batch.labels), weights)
            # A sum, not a mean: each rank divides by the rows of the global batch, or all by the sum of their weights.
            # So every row weighs what it should, however unequal the ranks' last batches are.
            (loss / self.batch_rows[step] if weights is None else loss).backward()  # type: ignore[no-untyped-call]
            self.exchange.start(loss.detach(), self.stop_asked(), weights)

            # While the sums are on their way, count this batch and fetch the next one.
            answers = self.net.combined(outputs.detach())
            sums.add(answers, batch.labels, loss.detach(), weights=weights)
            taken, batch = batch, next(batches, shard.no_rows)

            agreed = self.exchange.finish()
            if not agreed.is_finite:
                raise not_finite(self.task, self.ranks, f"epoch {epoch}, step {step + 1}", taken.features)
            if agreed.weighs:
                components.clip_gradient(self.exchange.parameter, self.settings)
                self.optimizer.step()
            if agreed.is_stopping:
                return step + 1
            if time.monotonic() - last_line > _LOG_EVERY_S:
                last_line = time.monotonic()
                self._log(f"epoch {epoch}/{self.length.epochs}  step {step + 1:,} of {steps:,}")
        return steps

    # ---- between epochs ----------------------------------------------------------------------------------------------

    def _enter(self, record: EpochRecord) -> None:
        """Enter an epoch in the progress. Every rank decides the same, since the sums in the record are shared."""
        progress, loss = self.progress, record.validation.loss
        if progress.best is None or loss < progress.best.validation.loss:
            progress.best, self.best_weights = record, copy.deepcopy(self.net.state_dict())
        if loss < progress.lowest - self.settings.early_stopping.min_delta:
            progress.lowest, progress.lowest_epoch = loss, record.epoch
        progress.epoch, progress.step = record.epoch, 0
        progress.history.append(record)

    def _is_over(self) -> bool:
        """Return whether all epochs are done, or early stopping has waited long enough."""
        progress, patience = self.progress, self.settings.early_stopping.patience
        has_waited = patience is not None and progress.epoch - progress.lowest_epoch >= patience
        return progress.epoch >= self.length.epochs or (progress.epoch > 0 and has_waited)

    def _save(self, files: checkpoint.Writer | None, committed: elastic.Committed | None) -> None:
        """Have rank 0 write a checkpoint if one is due; commit the state for elastic ranks."""
        is_over = self._is_over()
        is_due = files is not None and (self.progress.epoch % self.settings.checkpoint_every == 0 or is_over)
        if not is_due and not committed:
            return
        content = checkpoint.pack(self.progress, self.net, self.best_weights, self.optimizer)
        if files and is_due:
            files.put(self.progress, content)
        if committed and is_over:
            committed.content = content  # no rank may join any more
        elif committed:
            committed.commit(content)

    # ---- stopped and resumed within an epoch -------------------------------------------------------------------------

    def _keep_part(self, steps: int, trained: MetricSums) -> None:
        """Write a checkpoint within an epoch, with the ranks' sums and their generators of random numbers."""
        self.progress.step = steps
        part = partial_epoch.Part(
            counts=self.ranks.add_up(trained.counts.clone(), "part") if len(trained.counts) else trained.counts,
            others=self.ranks.gather(trained.others.cpu().clone()),
            random=self.ranks.gather(partial_epoch.random_state(self.device)),
        )
        if self.ranks.rank == 0:
            content = checkpoint.pack(self.progress, self.net, self.best_weights, self.optimizer, part)
            checkpoint.write_or_explain(self.task.checkpoints, self.progress, content)
        self.ranks.barrier()  # no rank ends before the checkpoint is written

    def _restore_part(self) -> tuple[int, MetricSums]:
        """Return the steps of this epoch that were done before a stop, and this rank's sums of them."""
        saved, self.saved = self.saved, None
        sums = MetricSums(self.data.label, self.device, is_weighted=self.weighting.is_on)
        if saved is None or not saved.progress.step:
            return 0, sums
        partial_epoch.restore_random_state(saved.tensors, self.ranks.rank, self.device)
        sums.others.copy_(saved.tensors[f"others.{self.ranks.rank}"])
        if self.ranks.rank == 0:  # of all ranks
            sums.counts.copy_(saved.tensors["counts"])
        return saved.progress.step, sums

    # ---- lines for people --------------------------------------------------------------------------------------------

    def _log_start(self, threads: int) -> None:
        rows, size = self.data.splits["train"].rows, self.ranks.size
        self._log(
            f"training on {rows:,} rows, {len(self.batch_rows):,} steps per epoch of up to "
            f"{self.length.batch_size * size:,} rows, {size} rank(s) with {threads} thread(s), {self.device}, "
            f"{'in memory' if self.task.cache == 'memory' else 'streamed'}"
        )
        if self.saved:
            self._log(f"resuming after epoch {self.progress.epoch}, step {self.progress.step:,} of the next one")

    def _log(self, line: str) -> None:
        """Print a line on rank 0; Horovod carries it to the driver."""
        if self.ranks.rank == 0:
            print(time.strftime("%H:%M:%S"), line, file=sys.stderr, flush=True)
