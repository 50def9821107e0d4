"""From trained weights to an MLflow model that takes raw rows; and the proof that it prepares them as Spark does."""

from __future__ import annotations

import inspect
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from pyspark.sql import DataFrame, SparkSession

from pipeline import features, ingest, prepare
from pipeline.config import Config
from pipeline.console import log
from pipeline.raw import RawColumn, RawFeatures

if TYPE_CHECKING:
    from mlflow.models import ModelSignature

    from pipeline.manifest import Manifest
    from pipeline.scorer import ModelSpec

_SAMPLE_ROWS = 2_000
_CODE = ("__init__.py", "model.py", "raw.py", "scorer.py")  # what the model needs of this package, beside serving.py
_NEEDS = ("mlflow", "torch", "duckdb", "numpy", "pandas", "safetensors")


def check_parity(spark: SparkSession, config: Config) -> int:
    """Run features.sql in Spark and in DuckDB over a sample of the source; return the number of rows compared.

    The sample is the first 2,000 rows that fit the schema, or all.

    Raises:
        UserError: a feature differs (as float32, or as text) or is missing in one only; with the row and both values.
    """
    sample = ingest.read_records(spark, config).good().limit(_SAMPLE_ROWS)
    raw = pd.DataFrame([row.asDict() for row in sample.collect()], columns=sample.columns, dtype=object)
    translation = features.translate(config)
    numeric = [f.column for f in config.features.numeric]
    categorical = [f.column for f in config.features.categorical]
    in_process = RawFeatures(raw_columns(translation), translation.select, numeric, categorical)
    ours, _ = in_process.run(raw)
    theirs = _in_spark(spark, config, raw, sample)
    for name in numeric + categorical:
        for row, (spark_value, duckdb_value) in enumerate(zip(theirs[name], ours[name], strict=True)):
            if not _same(spark_value, duckdb_value):
                problem = (
                    f"'{name}' is {spark_value!r} in Spark but {duckdb_value!r} in DuckDB, where a model runs it, "
                )
                problem += f"for the raw row {raw.iloc[row].to_dict()}; write the expression with explicit CASTs"
                raise config.mistake("features.sql", problem)
    return len(raw)


def _in_spark(spark: SparkSession, config: Config, raw: pd.DataFrame, like: DataFrame) -> dict[str, list[Any]]:
    """Return the features that Spark makes of these raw rows, in their order."""
    values = [tuple(None if value is None else value for value in row) for row in raw.itertuples(index=False)]
    typed = prepare.typed_rows(spark, config, ingest.as_records(spark.createDataFrame(values, like.schema)))
    rows = [row.asDict() for row in typed.frame.collect()]
    return {name: [row[name] for row in rows] for name in config.feature_columns}


def _same(spark_value: Any, duckdb_value: Any) -> bool:
    missing = [value is None or (isinstance(value, float | np.floating) and not np.isfinite(value)) for value in
               (spark_value, duckdb_value)]  # fmt: skip
    if any(missing):
        return all(missing)
    return bool(spark_value == duckdb_value)


def raw_columns(translation: features.Translation) -> tuple[RawColumn, ...]:
    """Return the CSV's columns as the packaged model describes them."""
    return tuple(RawColumn(name, kind, name in translation.needed) for name, kind in translation.raw_types.items())


def model_spec(config: Config, data: Manifest) -> ModelSpec:
    """Return the description that is packaged with the weights."""
    from pipeline.model import net_spec
    from pipeline.scorer import ModelSpec

    translation = features.translate(config)
    return ModelSpec(
        network=net_spec(config, data),
        raw=raw_columns(translation),
        select=translation.select,
        vocabularies=data.vocabularies,
        classes=data.label.classes,
        encode_unknown=[f.column for f in config.features.categorical if f.unknown == "encode"],
    )


def log_model(config: Config, data: Manifest, weights: bytes, uri: str, run_id: str) -> str:
    """Package the weights as the run's MLflow model; return the model's URI."""
    import mlflow

    with _packaged(config, data, weights) as model:
        mlflow.set_tracking_uri(uri)
        with mlflow.start_run(run_id=run_id):
            # 2.13, which Databricks 15.4 LTS ML has, calls the name artifact_path
            key = "name" if "name" in inspect.signature(mlflow.pyfunc.log_model).parameters else "artifact_path"
            info = mlflow.pyfunc.log_model(**{key: "model"}, **model)
    log.info("logged the model: %s", info.model_uri)
    return str(info.model_uri)


def save_model(config: Config, data: Manifest, weights: bytes, folder: Path) -> None:
    """Package the weights as an MLflow model in ``folder``, for want of a store that answers."""
    import mlflow

    with _packaged(config, data, weights) as model:
        mlflow.pyfunc.save_model(str(folder), **model)


@contextmanager
def _packaged(config: Config, data: Manifest, weights: bytes) -> Iterator[dict[str, Any]]:
    """Yield what `mlflow.pyfunc.log_model` and `save_model` need; its files are there during the block.

    The model's folder holds weights.safetensors, model.json, pipeline.yaml, features.sql, its DuckDB translation, and
    the code that runs them. What it needs to be loaded is pinned to the versions that are here; Spark is not among it.
    """
    spec = model_spec(config, data)
    with tempfile.TemporaryDirectory() as scratch:
        model, code = Path(scratch) / "model", Path(scratch) / "code" / "pipeline"
        model.mkdir()
        code.mkdir(parents=True)
        (model / "weights.safetensors").write_bytes(weights)
        (model / "model.json").write_text(spec.to_json(), encoding="utf-8")
        here_sql = config.features.model_copy(update={"sql": "features.sql"})
        as_packaged = config.model_copy(update={"features": here_sql})
        (model / "pipeline.yaml").write_text(as_packaged.to_yaml(), encoding="utf-8")
        (model / "features.sql").write_text(config.features_sql, encoding="utf-8")
        (model / "features.duckdb.sql").write_text(spec.select + "\n", encoding="utf-8")
        here = Path(__file__).parent
        for name in _CODE:
            shutil.copy(here / name, code / name)
        yield {
            "python_model": str(here / "serving.py"),
            "artifacts": {"model": str(model)},
            "code_paths": [str(code)],
            "signature": _signature(spec),
            "input_example": _example(spec, data),
            "pip_requirements": [f"{name}=={_version(name)}" for name in _NEEDS],
        }


def _signature(spec: ModelSpec) -> ModelSignature:
    """Name the raw columns and the outputs.

    Every column has the type `any`: a value of another type must not refuse the whole batch, it gets its row a reason.
    MLflow before 2.16 has no such type.
    """
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema, TensorSpec

    from pipeline.scorer import PROBABILITY

    types: dict[str, Any] = {c.name: DataType.string if c.type == "VARCHAR" else DataType.double for c in spec.raw}
    with suppress(ImportError):
        from mlflow.types.schema import AnyType

        types = dict.fromkeys(types, AnyType())  # type: ignore[no-untyped-call]
    inputs: list[ColSpec | TensorSpec] = [ColSpec(types[c.name], c.name, required=c.needed) for c in spec.raw]
    prediction = DataType.string if spec.classes else DataType.double
    outputs: list[ColSpec | TensorSpec] = [
        ColSpec(prediction, "prediction", required=False),
        *(ColSpec(DataType.double, PROBABILITY + name, required=False) for name in spec.classes),
        ColSpec(DataType.string, "reason", required=False),
    ]
    return ModelSignature(inputs=Schema(inputs), outputs=Schema(outputs))


def _example(spec: ModelSpec, data: Manifest) -> pd.DataFrame:
    """Return one made-up row: nobody's data is kept with the model."""
    values = {name: values[0] for name, values in data.vocabularies.items() if values}
    return pd.DataFrame(
        [{c.name: values.get(c.name, "text") if c.type == "VARCHAR" else 1.0 for c in spec.raw if c.needed}]
    )


def _version(package: str) -> str:
    from importlib.metadata import version

    return version(package).partition("+")[0]  # no build tag: an index need not have that very build
