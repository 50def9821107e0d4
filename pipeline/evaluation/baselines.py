"""What the network is worth: the same rows with a constant answer, a linear model and boosted trees.

They are scikit-learn's with its own defaults, fitted on the prepared training rows, which weigh as in the network's
loss, and measured on the measured split. Their `label.threshold` is chosen on the validation rows as the network's is.
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
from pipeline.data.specs import Trained, class_weights, net_spec
from pipeline.model.offsets import relative
from pipeline.runtime.console import log
from pipeline.runtime.errors import one_line
from pipeline.runtime.storage import Folder

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from pipeline.evaluation.sums import MetricSums

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
class _Rows:
    """Some rows of a split."""

    features: Matrix
    """(rows, features), as the network takes them, NaN where one is missing."""
    labels: npt.NDArray[Any]
    """(rows,): codes, or numbers counted from the label's offset."""
    weights: npt.NDArray[np.float64] | None
    """(rows,), in the loss; None if all weigh 1."""


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
        train, tested = (_rows(spark, config, data, folder, split) for split in ("train", data.measured_split))
        is_rule = config.label.threshold_rule is not None
        validation = _rows(spark, config, data, folder, "validation") if is_rule else None
        answers = _network(config, data, trained)(tested.features)
        refused = _refused(config, data, tested.features)
        metrics = {MODEL: _metrics(data, answers, tested, trained.threshold, refused)}
    except Exception as error:  # Spark, or no memory in the driver
        log.warning("there are no baselines: %s", one_line(error), exc_info=True)
        return None
    for name in config.evaluation.baselines:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of a solver that has not converged: the result is what it is
                answer = _FITTERS[name](data, train)
                threshold = _threshold(config, data, answer, validation)
                metrics[name] = _metrics(data, answer(tested.features), tested, threshold)
        except Exception as error:  # whatever scikit-learn does not take
            log.warning("the baseline %s is left out: %s", name, one_line(error))
    return Beside(metrics, len(train.labels), len(tested.labels), round(time.perf_counter() - begin, 3))


def _rows(spark: SparkSession, config: Config, data: Manifest, folder: Folder, split: SplitName) -> _Rows:
    """Return the rows of a split, of a large one about :data:`MOST_CELLS` values."""
    places = sorted({(folder / group.path.rpartition("/")[0]).spark for group in data.splits[split].row_groups})
    table = sample_rows(spark, places, [*data.columns], data.splits[split].rows, MOST_CELLS)
    *features, label = (
        relative(table[file].to_numpy(), data.offsets.get(name, 0.0)) for name, file in data.stored.items()
    )
    labels = label.astype(np.int64 if data.label.classes else np.float64)
    weights = None if data.weight_stored is None else table[data.weight_stored].to_numpy(np.float64)
    if (of_classes := class_weights(config, data)) is not None:
        weights = np.array(of_classes)[labels] * (1.0 if weights is None else weights)
    return _Rows(np.stack(features, axis=1).astype(np.float64), labels, weights)


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
    data: Manifest, answers: Matrix, rows: _Rows, threshold: float, refused: npt.NDArray[np.bool_] | None = None
) -> dict[str, float]:
    """Return all metrics of some answers."""
    import torch

    from pipeline.model.choice import chosen_classes

    given, no_answer = torch.from_numpy(answers), None if refused is None else torch.from_numpy(refused)
    chosen = chosen_classes(given, data.label.positive_code, threshold) if data.label.classes else None
    sums = _sums(data)
    sums.add(given, torch.from_numpy(rows.labels), refused=no_answer, predicted=chosen)
    return sums.evaluate().metrics


def _threshold(config: Config, data: Manifest, answer: Answer, validation: _Rows | None) -> float:
    """Return `label.threshold`, chosen on the validation rows if it is a rule."""
    import torch

    if validation is None or config.label.threshold_rule is None:
        return float(config.label.threshold)
    sums = _sums(data)
    sums.add(torch.from_numpy(answer(validation.features)), torch.from_numpy(validation.labels))
    return sums.threshold(config.label.threshold_rule) or 0.5


def _sums(data: Manifest) -> MetricSums:
    from pipeline.evaluation.sums import MetricSums

    return MetricSums(data.label, with_detail=True)


def _constant(data: Manifest, train: _Rows) -> Answer:
    """Answer with the training rows' shares of the classes, or their mean; rows weigh as in the loss."""
    if not data.label.classes:
        mean = np.average(train.labels, weights=train.weights)
        return lambda rows: np.full(len(rows), mean)
    counts = np.bincount(train.labels, train.weights, minlength=len(data.label.classes))
    return lambda rows: np.tile(counts / counts.sum(), (len(rows), 1))


def _linear(data: Manifest, train: _Rows) -> Answer:
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
    weights = {f"{type(model).__name__.lower()}__sample_weight": train.weights}
    return _answer(data, make_pipeline(encode, model).fit(train.features, train.labels, **weights))


def _trees(data: Manifest, train: _Rows) -> Answer:
    """Gradient boosting as it is when nothing is tuned."""
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    _check_classes(data)
    numbers, _ = _places(data)
    few = [len(values) + 1 < _MOST_CATEGORIES for values in data.vocabularies.values()]
    kind = HistGradientBoostingClassifier if data.label.classes else HistGradientBoostingRegressor
    # Copies of a row would be on both sides of the trees' own validation.
    stopping: Any = False if data.oversample > 1 else "auto"
    model = kind(categorical_features=[False] * len(numbers) + few, early_stopping=stopping, random_state=0)
    return _answer(data, model.fit(train.features, train.labels, sample_weight=train.weights))


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


_FITTERS: dict[str, Callable[[Manifest, _Rows], Answer]] = {
    "constant": _constant,
    "linear": _linear,
    "trees": _trees,
}
