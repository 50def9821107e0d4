"""What the network is worth: the same rows with a constant answer, a linear model and boosted trees.

They are scikit-learn's with its own defaults, fitted on the prepared training rows and measured on the measured split.
Of a large split the rows are chosen by a hash of their values, and the network is measured on those same rows.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pipeline.config import Config
from pipeline.config.settings import LOWER_IS_BETTER
from pipeline.data.manifest import Manifest, SplitName
from pipeline.data.sample import sample_rows
from pipeline.data.specs import Trained, net_spec
from pipeline.model.offsets import relative
from pipeline.runtime.console import log
from pipeline.runtime.errors import one_line
from pipeline.runtime.storage import Folder

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

MOST_CELLS = 20_000_000
"""So many values of each split pass through the driver at most."""
MODEL = "model"
"""The name of the network beside the baselines."""
_MOST_CLASSES = 50  # a tree grows for each class and round: with 1,000 classes it would take hours
_MOST_CATEGORIES = 255  # of scikit-learn's trees; larger vocabularies are numbers to them
_TOGETHER = 4_096

Matrix = npt.NDArray[np.float64]
Answer = Callable[[Matrix], Matrix]
"""Takes features (rows, features) to probabilities (rows, classes) or numbers (rows,)."""


@dataclass(frozen=True)
class Beside:
    """The network and the baselines on the same rows."""

    metrics: dict[str, dict[str, float]]
    """By name, the network's under :data:`MODEL`."""
    train_rows: int
    """Rows that the baselines were fitted on, copies included."""
    rows: int
    """Rows that all were measured on."""
    seconds: float

    def as_json(self) -> dict[str, dict[str, float | None]]:
        """Return the metrics with None in the place of NaN, which JSON has not."""
        return {
            name: {metric: value if math.isfinite(value) else None for metric, value in metrics.items()}
            for name, metrics in self.metrics.items()
        }

    def as_metrics(self) -> dict[str, float | None]:
        """Return the baselines' metrics by their names in MLflow."""
        return {
            f"baseline_{name}_{metric}": value
            for name, metrics in self.as_json().items()
            for metric, value in metrics.items()
            if name != MODEL
        }

    def line(self, metric: str) -> str:
        """Return one metric of all as a line for people."""
        return ", ".join(f"{name} {metric} {metrics[metric]:.4g}" for name, metrics in self.metrics.items())

    def better(self, metric: str) -> list[str]:
        """Return the baselines that are better than the network, the best first."""
        sign = -1 if metric in LOWER_IS_BETTER else 1
        values = {name: sign * metrics[metric] for name, metrics in self.metrics.items()}
        return sorted((n for n in values if values[n] > values[MODEL]), key=lambda n: (-values[n], n))


def measure(spark: SparkSession, config: Config, data: Manifest, folder: Folder, trained: Trained) -> Beside | None:
    """Return how good the baselines of `evaluation.baselines` are, and the network on the same rows; None without any.

    One that fails is left out with a warning: it must not cost a finished training.
    """
    if not config.evaluation.baselines:
        return None
    try:
        begin = time.perf_counter()
        log.info("fitting baselines: %s", ", ".join(config.evaluation.baselines))
        train, train_labels = _rows(spark, data, folder, "train")
        features, labels = _rows(spark, data, folder, data.measured_split)
        network = _network(config, data, trained)
        metrics = {MODEL: _metrics(data, network(features), labels, _refused(config, data, features))}
    except Exception as error:  # Spark, or no memory in the driver
        log.warning("there are no baselines: %s", one_line(error), exc_info=True)
        return None
    for name in config.evaluation.baselines:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of a solver that has not converged: the result is what it is
                metrics[name] = _metrics(data, _FITTERS[name](data, train, train_labels)(features), labels)
        except Exception as error:  # whatever scikit-learn does not take
            log.warning("the baseline %s is left out: %s", name, one_line(error))
    return Beside(metrics, len(train_labels), len(labels), round(time.perf_counter() - begin, 3))


def _rows(spark: SparkSession, data: Manifest, folder: Folder, split: SplitName) -> tuple[Matrix, npt.NDArray[Any]]:
    """Return features (rows, features) and labels (rows,) of a split, of a large one about :data:`MOST_CELLS` values.

    Features are as the network takes them, NaN where one is missing.
    """
    places = sorted({(folder / group.path.rpartition("/")[0]).spark for group in data.splits[split].row_groups})
    table = sample_rows(spark, places, [*data.columns], data.splits[split].rows, MOST_CELLS)
    offsets = [data.offsets.get(name, 0.0) for name in data.stored]
    values = [table[name].to_numpy() for name in data.columns]
    *features, label = (relative(x, offset) for x, offset in zip(values, offsets, strict=True))
    labels = values[-1].astype(np.int64) if data.label.classes else label.astype(np.float64)
    return np.stack(features, axis=1).astype(np.float64), labels


def _refused(config: Config, data: Manifest, features: Matrix) -> npt.NDArray[np.bool_]:
    """Return which rows (rows,) the packaged network refuses for an unseen value; the baselines answer them."""
    sizes = [len(values) for values in data.vocabularies.values()]
    refusing = [i for i, feature in enumerate(config.features.categorical) if feature.unknown == "refuse"]
    return np.asarray((features[:, len(data.numeric) :] == sizes)[:, refusing].any(axis=1))


def _network(config: Config, data: Manifest, trained: Trained) -> Answer:
    import torch
    from safetensors.torch import load

    from pipeline.model.network import TabularNet

    net = TabularNet(net_spec(config, data))
    net.load_state_dict(load(trained.weights))
    net.eval()

    @torch.no_grad()
    def answer(features: Matrix) -> Matrix:
        parts = torch.split(torch.from_numpy(features.astype(np.float32)), _TOGETHER)  # one-hot inputs are wide
        outputs = torch.cat([net(part) for part in parts]).double()
        result = torch.softmax(outputs / trained.temperature, dim=1) if data.label.classes else outputs.squeeze(1)
        return np.asarray(result.numpy())

    return answer


def _metrics(
    data: Manifest, answers: Matrix, labels: npt.NDArray[Any], refused: npt.NDArray[np.bool_] | None = None
) -> dict[str, float]:
    """Return all metrics of some answers."""
    import torch

    from pipeline.evaluation.sums import MetricSums

    sums = MetricSums(data.label, with_detail=True)
    no_answer = None if refused is None else torch.from_numpy(refused)
    sums.add(torch.from_numpy(answers), torch.from_numpy(labels), refused=no_answer)
    return sums.evaluate().metrics


def _constant(data: Manifest, features: Matrix, labels: npt.NDArray[Any]) -> Answer:
    """Answer with the training rows' shares of the classes, or their mean."""
    if not data.label.classes:
        mean = labels.mean()
        return lambda rows: np.full(len(rows), mean)
    shares = np.bincount(labels, minlength=len(data.label.classes)) / len(labels)
    return lambda rows: np.tile(shares, (len(rows), 1))


def _linear(data: Manifest, features: Matrix, labels: npt.NDArray[Any]) -> Answer:
    """Logistic or ridge regression on scaled numbers and one input for each category."""
    from sklearn.compose import make_column_transformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    _check_classes(data)
    numbers, codes = _places(data)
    scale = make_pipeline(
        SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True), StandardScaler()
    )
    encode = make_column_transformer((scale, numbers), (OneHotEncoder(handle_unknown="ignore"), codes))
    model = LogisticRegression(max_iter=200) if data.label.classes else Ridge()
    return _answer(data, make_pipeline(encode, model).fit(features, labels))


def _trees(data: Manifest, features: Matrix, labels: npt.NDArray[Any]) -> Answer:
    """Gradient boosting as it is when nothing is tuned."""
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    _check_classes(data)
    numbers, _ = _places(data)
    few = [len(values) + 1 < _MOST_CATEGORIES for values in data.vocabularies.values()]
    kind = HistGradientBoostingClassifier if data.label.classes else HistGradientBoostingRegressor
    # Copies of a row would be on both sides of the trees' own validation.
    stopping: Any = False if data.oversample > 1 else "auto"
    model = kind(categorical_features=[False] * len(numbers) + few, early_stopping=stopping, random_state=0)
    return _answer(data, model.fit(features, labels))


def _check_classes(data: Manifest) -> None:
    if len(data.label.classes) > _MOST_CLASSES:
        raise ValueError(f"{len(data.label.classes)} classes take too long; at most {_MOST_CLASSES} are tried")


def _places(data: Manifest) -> tuple[list[int], list[int]]:
    """Return the positions of the numbers and of the category codes in the matrix."""
    numbers = len(data.numeric)
    return list(range(numbers)), list(range(numbers, numbers + len(data.vocabularies)))


def _answer(data: Manifest, model: Any) -> Answer:
    """Return the answers of a fitted model; a class that no training row has gets the probability 0."""
    if not data.label.classes:
        return lambda rows: np.asarray(model.predict(rows), dtype=np.float64)

    def answer(rows: Matrix) -> Matrix:
        probabilities = np.zeros((len(rows), len(data.label.classes)))
        probabilities[:, model.classes_] = model.predict_proba(rows)
        return probabilities

    return answer


_FITTERS: dict[str, Callable[[Manifest, Matrix, npt.NDArray[Any]], Answer]] = {
    "constant": _constant,
    "linear": _linear,
    "trees": _trees,
}
