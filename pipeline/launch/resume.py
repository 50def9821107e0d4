"""One training over several jobs: which training a job continues, and what earlier jobs have left of it.

Two jobs do the same training if they agree in all that shapes the weights: the prepared data, the settings of model and
training, the number of ranks, and the versions of torch and of this project.

The training has a folder among the checkpoints from its first job until it has ended well. So the same command
continues where the last one stopped, and begins a new training when nothing is left to do.
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
from pipeline.runtime.versions import package_version

_RUN = "training.json"


@dataclass(frozen=True)
class Training:
    """A training that this job has claimed."""

    folder: Folder
    """The folder of its checkpoints."""
    run_id: str | None
    """The MLflow run of the earlier jobs; None if this job is the first."""

    def remember(self, run_id: str) -> None:
        """Write down the MLflow run for the jobs that may continue this training."""
        self.folder.write(_RUN, json.dumps({"run_id": run_id}).encode())

    def forget(self) -> None:
        """Delete the checkpoints and the record of the run, because the training has ended well."""
        self.folder.remove()


@contextmanager
def claim(config: Config, data: Manifest, num_proc: int, fresh: bool) -> Iterator[Training]:
    """Claim the training for this job while the block runs; with ``fresh``, first delete what earlier jobs have left.

    Raises:
        UserError: another job has claimed it.
    """
    name = _fingerprint(config, data, num_proc)
    folder = config.checkpoint_dir / name
    with lock(config.lock_dir / name) as holder:
        if holder:
            problem = f"another job does the same training ({holder})"
            raise config.mistake("run.work_dir", f"{problem}; wait for it, or give this job a folder of its own")
        _tell_of_other_versions(config, name)
        if fresh and folder.exists():
            log.info("--fresh: removing the checkpoints in %s", folder)
            folder.remove()
        folder.make()
        for partial in (name for name in folder.names() if name.startswith(".")):  # a job was killed while it wrote
            folder.delete(partial)
        yield Training(folder, _run_id(folder))


def _run_id(folder: Folder) -> str | None:
    try:
        return str(json.loads(folder.read(_RUN))["run_id"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def _fingerprint(config: Config, data: Manifest, num_proc: int) -> str:
    """Return a hash of all that shapes the weights; of where and how the job runs only the number of ranks does."""
    settings = config.model_dump(exclude={"run", "recovery", "tracking", "source"}, mode="json")
    for about_checkpoints in ("checkpoint_every", "checkpoint_keep"):
        del settings["training"][about_checkpoints]
    # hashed where it was before it moved, so that an older training goes on
    settings["oversample"] = settings["split"].pop("oversample")
    ranks = num_proc if config.recovery.elastic is None else "elastic"  # the number of elastic ranks may change
    shape = {"data": [data.source.fingerprint, data.config_fingerprint], "settings": settings, "num_proc": ranks}
    versions = {name: package_version(name) for name in ("torch", "pipeline")}
    versions |= {"data": f"{data.format_version} {data.spark_version} {data.pipeline_version}"}
    digests = (hashlib.sha256(json.dumps(part, sort_keys=True).encode()).hexdigest() for part in (shape, versions))
    return f"{next(digests)[:16]}-{next(digests)[:8]}"


def _tell_of_other_versions(config: Config, name: str) -> None:
    """Log that the same training was begun with other versions: a mixture of both would have no bytes of its own."""
    shape = name.partition("-")[0]
    for other in config.checkpoint_dir.names():
        if other != name and other.partition("-")[0] == shape:
            where = config.checkpoint_dir / other
            log.warning("beginning anew: %s holds checkpoints of another version of torch or of this project", where)
