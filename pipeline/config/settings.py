"""All settings of one use case: the sections together, what they must agree on, and the paths that follow from them."""

from __future__ import annotations

from pathlib import Path

import yaml
from pydantic import model_validator

from pipeline.config.base import Origin, Settings, origin_of
from pipeline.config.features import Features
from pipeline.config.label import Label
from pipeline.config.sections import Evaluation, Model, Recovery, Run, Source, Split, Training
from pipeline.config.tracking import Tracking
from pipeline.runtime import storage
from pipeline.runtime.errors import UserError, nearest, reason

CLASSIFICATION_METRICS = ("accuracy", "precision", "recall", "f1", "roc_auc", "pr_auc", "log_loss", "calibration_error")
REGRESSION_METRICS = ("rmse", "mae", "r2")
LOWER_IS_BETTER = ("log_loss", "calibration_error", "rmse", "mae")


class Config(Settings):
    """One use case: a folder with `pipeline.yaml`, `features.sql` and often the data."""

    source: Source
    """Where the rows come from and what they look like."""
    features: Features
    """What the network takes of a row."""
    label: Label
    """What the network learns to predict."""
    split: Split = Split()
    """Which rows are kept from training to measure it."""
    model: Model = Model()
    """The network."""
    training: Training = Training()
    """How the network learns."""
    evaluation: Evaluation = Evaluation()
    """How the kept weights are measured."""
    run: Run = Run()
    """Where and how wide the job runs."""
    recovery: Recovery = Recovery()
    """What happens when a rank is lost while a training runs."""
    tracking: Tracking = Tracking()
    """Where MLflow keeps what happened."""

    _origins: tuple[Origin, ...] = (Origin("pipeline.yaml"),)

    @model_validator(mode="after")
    def _columns_are_used_once(self) -> Config:
        names = self.feature_columns
        if not names:
            raise ValueError("features lists no column: name at least one under features.numeric or .categorical")
        lower = [name.lower() for name in names]  # to Spark, `a` and `A` are the same
        for name in names:
            if lower.count(name.lower()) > 1:
                raise ValueError(f"features lists column '{name}' twice")
            if name.lower() == self.label.column.lower():
                raise ValueError(f"label.column '{name}' is also listed in features: the answer would be an input")
        weight = self.label.weight
        if weight is not None and weight.lower() in (*lower, self.label.column.lower()):
            raise ValueError(f"label.weight '{weight}' is also a feature or the label; a weight is neither")
        return self

    @model_validator(mode="after")
    def _gate_metrics_are_of_the_task(self) -> Config:
        known = CLASSIFICATION_METRICS if self.label.task == "classification" else REGRESSION_METRICS
        gate = self.tracking.gate
        named = [("metric", name) for name in (gate.metric,) if name] + [("thresholds", n) for n in gate.thresholds]
        for key, name in named:
            if name not in known:
                task = f"of a {self.label.task}{nearest(name, known)}"
                raise ValueError(f"tracking.gate.{key} '{name}' is not a metric {task}")
            if name == "pr_auc" and self.label.positive is None:
                raise ValueError(f"tracking.gate.{key} 'pr_auc' is of one class: set label.positive")
        return self

    @model_validator(mode="after")
    def _classes_are_of_classification(self) -> Config:
        weights = self.training.class_weights
        for key in ("label_smoothing", "class_weights"):
            if getattr(self.training, key) not in (0, "none") and self.label.task == "regression":
                raise ValueError(f"training.{key} is for classes, but label.task is regression")
        for name in weights if isinstance(weights, dict) else ():
            if self.label.classes is not None and name not in self.label.classes:
                known = f"{', '.join(self.label.classes)}{nearest(name, self.label.classes)}"
                raise ValueError(f"training.class_weights '{name}' is not one of {known}")
        return self

    @model_validator(mode="after")
    def _num_proc_is_within_elastic(self) -> Config:
        ranks, elastic = self.run.num_proc, self.recovery.elastic
        if elastic and ranks != "auto" and not elastic.min <= ranks <= elastic.max:
            raise ValueError(f"run.num_proc {ranks} is not between the min and max of recovery.elastic")
        return self

    @property
    def gate_metric(self) -> str:
        """The metric that decides about the champion."""
        return self.tracking.gate.metric or ("accuracy" if self.label.task == "classification" else "rmse")

    @property
    def file(self) -> Path:
        """The first YAML file of these settings, as the caller names it."""
        return Path(self._origins[0].name)

    @property
    def folder(self) -> Path:
        """The absolute folder of the first file: it names the use case, and relative paths in the settings start here.

        (Except `run.work_dir`: it starts where the job is started.) It is the folder that the user names: links are not
        followed, because Kubernetes mounts a ConfigMap as links to a folder whose name is a time.
        """
        folder = self.file.parent.absolute()
        return folder.resolve() if ".." in folder.parts else folder

    @property
    def work_dir(self) -> Path:
        """`run.work_dir`, absolute."""
        return storage.local_path(self.run.work_dir) or Path()

    @property
    def data_dir(self) -> storage.Folder:
        """Where prepared data go: `run.data_dir`, or `data` in the work directory."""
        return storage.Folder.at(self.run.data_dir or str(self.work_dir / "data"))

    @property
    def checkpoint_dir(self) -> storage.Folder:
        """Where checkpoints go: beside the prepared data, because the ranks need both."""
        return storage.Folder.at(f"{self.run.data_dir or self.work_dir}/checkpoints")

    @property
    def lock_dir(self) -> Path:
        """Where locks lie: beside the checkpoints if these are on a disk, else in the work directory."""
        checkpoints = self.checkpoint_dir
        return (Path(checkpoints.path).parent if checkpoints.is_local else self.work_dir) / ".locks"

    @property
    def source_paths(self) -> list[str]:
        """`source.path`, absolute: URIs and absolute paths as they are, others below the config's folder."""
        return [p if storage.scheme(p) or p.startswith("/") else str(self.folder / p) for p in self.source.path]

    @property
    def features_sql(self) -> str:
        """The text of `features.sql`. Raises UserError when the file cannot be read."""
        path = self.folder / self.features.sql
        try:
            return path.read_text(encoding="utf-8-sig")  # an editor may put a byte order mark in front
        except (OSError, UnicodeDecodeError) as error:
            raise self.mistake("features.sql", f"cannot read {path}: {reason(error)}") from None

    @property
    def feature_columns(self) -> list[str]:
        """Every input of the network in its order: numeric, then categorical."""
        return [f.column for f in self.features.numeric] + [f.column for f in self.features.categorical]

    def mistake(self, key: str, problem: str) -> UserError:
        """Return the error that says what is wrong with the setting ``key``, and where it was read from."""
        origin = origin_of([int(part) if part.isdecimal() else part for part in key.split(".")], self._origins)
        return UserError(f"{origin}: {key}: {problem}")

    def to_yaml(self) -> str:
        """Return the whole configuration, defaults and overrides included, as YAML."""
        return yaml.safe_dump(self.model_dump(by_alias=True), sort_keys=False, allow_unicode=True)
