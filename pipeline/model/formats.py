"""Packaged models of older formats: what their files meant then, in the words of today.

A packaged model has two files with a format: `model.json`, which states it, and `pipeline.yaml` beside it, which holds
every setting that there was. Whoever adds, moves or drops a field or a setting

1. raises ``FORMAT`` and adds a function to ``_STEPS`` that turns the format before into the new one. A field that the
   format before lacks gets the value that it meant there, which need not be today's default;
2. adds a small model of the format before to `tests/models`, logged by that format's own code
   (`tests/recordmodel.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

FORMAT = 7

Tree = dict[str, Any]


class NewerFormat(ValueError):
    """A model was packaged by a newer version of this project."""


def upgrade(model: Mapping[str, Any], settings: Mapping[str, Any]) -> tuple[Tree, Tree]:
    """Return a packaged model's `model.json` and `pipeline.yaml` in today's format; the arguments stay as they are.

    ``settings`` may be empty where only the model is of interest.

    Raises:
        NewerFormat: the model's format is newer than this version knows.
        ValueError: the model's format is no format.
    """
    written = model.get("format", 1)  # format 1 did not state it
    if type(written) is not int or written < 1:  # true is an int to Python
        raise ValueError(f"model.json is damaged: its format is {written!r}, but must be a whole number of at least 1")
    if written > FORMAT:
        raise NewerFormat(
            f"model.json has format {written}, but this version of pipeline knows formats 1 to {FORMAT}: "
            "install the version that packaged the model, or a newer one"
        )
    upgraded = dict(model), dict(settings)
    for step in _STEPS[written - 1 :]:
        upgraded = step(*upgraded)
    return {**upgraded[0], "format": FORMAT}, upgraded[1]


_FORMAT_1: Tree = {
    "source": {"options": {}, "bad_records": "quarantine"},
    "features": {"sql": "features.sql", "numeric": [], "categorical": []},
    "label": {"task": "classification", "classes": None},
    "split": {"validation_fraction": 0.2, "seed": 0},
    "oversample": 1,
    "model": {"hidden_sizes": [64, 64], "dropout": 0.0},
    "training": {
        "epochs": 20,
        "batch_size": 32,
        "optimizer": "adam",
        "learning_rate": 0.001,
        "lr_scaling": "linear",
        "warmup_epochs": 0,
        "weight_decay": 0.0,
        "early_stopping": {"patience": None, "min_delta": 0.0},
        "checkpoint_every": 1,
        "checkpoint_keep": 2,
        "seed": 0,
    },
    "run": {
        "num_proc": "auto",
        "work_dir": ".work",
        "data_dir": None,
        "ranks_per_executor": 1,
        "network_interfaces": None,
        "start_timeout_s": 600,
        "cache": "auto",
        "stall_timeout": 600,
        "max_restarts": 3,
        "elastic": None,
    },
    "tracking": {
        "uri": None,
        "experiment": None,
        "run_name": None,
        "registered_model": None,
        "gate": {"metric": None, "min_improvement": 0.0, "thresholds": {}},
    },
}
"""What a setting meant in format 1 where a file lacks it: settings were added while the format had no number.

It stays as it is, whatever today's defaults become.
"""


def _overlay(below: Tree, above: Tree) -> Tree:
    """Return ``below`` with what ``above`` adds to it or replaces in it; neither is changed."""
    both = {key for key in below.keys() & above.keys() if isinstance(below[key], dict) and isinstance(above[key], dict)}
    return {**below, **above, **{key: _overlay(below[key], above[key]) for key in both}}


def _from_1_to_2(model: Tree, settings: Tree) -> tuple[Tree, Tree]:
    """Move three settings of `run` to `recovery`, and `oversample` to `split`; the model itself is the same."""
    if not settings:
        return model, settings
    settings = _overlay(_FORMAT_1, settings)
    run, split = dict(settings["run"]), dict(settings["split"])
    split["oversample"] = settings["oversample"]
    recovery = {
        "stall_timeout_s": run.pop("stall_timeout"),
        "max_restarts": run.pop("max_restarts"),
        "elastic": run.pop("elastic"),
    }
    kept = {name: section for name, section in settings.items() if name != "oversample"}
    return model, {**kept, "run": run, "split": split, "recovery": recovery}


_SPARK_TYPES = {
    "VARCHAR": "STRING",
    "INTEGER": "INT",
    "REAL": "FLOAT",
    "TIMESTAMP WITH TIME ZONE": "TIMESTAMP",
    "TIMESTAMP": "TIMESTAMP_NTZ",
}
"""DuckDB's name of a type to Spark's, where the two differ."""


_OPTIONS_OF_3 = frozenset(
    ["header", "sep", "delimiter", "quote", "escape", "chartoescapequoteescaping", "comment", "encoding", "charset",
     "multiline", "linesep", "enforceschema", "maxcolumns", "maxcharspercolumn", "unescapedquotehandling",
     "recursivefilelookup", "pathglobfilter", "modifiedbefore", "modifiedafter", "nullvalue", "dateformat",
     "timestampformat"]
)  # fmt: skip
"""The options of Spark's CSV reader that format 3 honours; formats 1 and 2 took any."""


def _from_2_to_3(model: Tree, settings: Tree) -> tuple[Tree, Tree]:
    """Name types as Spark does, and count every number from 0.

    Formats 1 and 2 hold features.sql in DuckDB's words, and no trees. Their numbers were float32 before anything was
    subtracted. Options of the CSV reader that are not honoured any more become ``former_options``.
    """
    raw = [{**c, "type": _SPARK_TYPES.get(c["type"], c["type"]), "value": None} for c in model["raw"]]
    network = model["network"]
    numeric = [{**number, "offset": 0.0} for number in network["numeric"]]
    network = {**network, "numeric": numeric, "label_offset": 0.0}
    model = {**model, "network": network, "raw": raw, "missing": [""], "features": {}, "former_options": []}
    if not settings:
        return model, settings
    options = settings["source"]["options"]
    honoured = {name: value for name, value in options.items() if name.lower() in _OPTIONS_OF_3}
    settings = {**settings, "source": {**settings["source"], "options": honoured}}
    return {**model, "former_options": sorted(options.keys() - honoured.keys())}, settings


def _from_3_to_4(model: Tree, settings: Tree) -> tuple[Tree, Tree]:
    """Keep all prepared data, as format 3 did; the model itself is the same."""
    if not settings:
        return model, settings
    return model, {**settings, "run": {**settings["run"], "keep_data": None}}


def _from_4_to_5(model: Tree, settings: Tree) -> tuple[Tree, Tree]:
    """Say how formats 1 to 4 split the rows: in two, by a hash of the columns in their order.

    Their gate promoted any model that was better at all; no setting of today means that, and no job reads it.
    """
    model = {**model, "temperature": 1.0, "split": {"version": 1, "validation_from": None, "test_from": None}}
    if not settings:
        return model, settings
    split = {"test_fraction": 0.0, "group": [], "time": None, "column": None, **settings["split"]}
    gate = {"rule": "better", "confidence": 0.95, "margin": None, "min_rows": 1, **settings["tracking"]["gate"]}
    settings = {**settings, "evaluation": {"baselines": [], "importance_repeats": 0, "temperature": False}}
    return model, {**settings, "split": split, "tracking": {**settings["tracking"], "gate": gate}}


def _from_5_to_6(model: Tree, settings: Tree) -> tuple[Tree, Tree]:
    """Say what formats 1 to 5 did with missing and rare values: they dropped and refused the one, and kept the other.

    The limits for a broken source are today's, since no job reads them of a model.
    """
    network = model["network"]
    plain: Tree = {"fill": None, "indicator": False, "is_clipped": False, "knots": [], "levels": []}
    numeric = [{**number, **plain} for number in network["numeric"]]
    categorical = [{**category, "missing": None, "hashed": False} for category in network["categorical"]]
    model = {**model, "network": {**network, "numeric": numeric, "categorical": categorical, "periodic": None}}
    if not settings:
        return model, settings
    limits = {"max_quarantined": 1.0, "max_dropped": 1.0, "min_rows": 1}
    holes = {"missing": "drop", "max_missing": 1.0}
    rare = {"min_count": 1, "max_values": 1_000_000, "hash_buckets": None}
    net = {
        "preset": "none",
        "numeric_embedding": "none",
        "frequencies": 24,
        "frequency_scale": 0.1,
        "embedding_size": 12,
    }
    training = {"schedule": "constant", "gradient_clipping": None, "label_smoothing": 0.0}
    features = settings["features"]
    features = {
        **features,
        "numeric": [{**feature, **holes, "indicator": False} for feature in features["numeric"]],
        "categorical": [
            {**feature, **holes, **rare, **({"unknown": "other"} if feature.get("unknown") == "encode" else {})}
            for feature in features["categorical"]
        ],
    }
    sections: dict[str, Tree] = {"source": limits, "model": net, "training": training}
    return model, {**settings, **{k: {**settings[k], **new} for k, new in sections.items()}, "features": features}


def _from_6_to_7(model: Tree, settings: Tree) -> tuple[Tree, Tree]:
    """Say that the most probable class is predicted, that rows weigh the same, and that a network is a single one."""
    model = {**model, "positive": None, "threshold": 0.5, "network": {**model["network"], "members": 1}}
    if not settings:
        return model, settings
    label = {"positive": None, "threshold": 0.5, "weight": None, **settings["label"]}
    training = {"class_weights": "none", **settings["training"]}
    net = {"members": 1, **settings["model"]}
    return model, {**settings, "label": label, "training": training, "model": net}


_STEPS: tuple[Callable[[Tree, Tree], tuple[Tree, Tree]], ...] = (
    _from_1_to_2,
    _from_2_to_3,
    _from_3_to_4,
    _from_4_to_5,
    _from_5_to_6,
    _from_6_to_7,
)
"""The step at position i turns format i + 1 into format i + 2."""
