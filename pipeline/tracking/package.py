"""From trained weights to an MLflow model that takes raw rows."""

from __future__ import annotations

import hashlib
import inspect
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

import pipeline.model
from pipeline.config import Config
from pipeline.data.specs import Trained, model_spec
from pipeline.runtime.console import log
from pipeline.tracking import store

if TYPE_CHECKING:
    from mlflow.models import ModelSignature

    from pipeline.data.manifest import Manifest
    from pipeline.data.specs import Resolved
    from pipeline.model.spec import ModelSpec, RawColumn

_ENTRY = '''"""Raw rows in, predictions out. MLflow runs this file ("models from code"), so nothing is pickled."""

import mlflow

from {code}.pyfunc import RawRows


class RawRowModel(RawRows, mlflow.pyfunc.PythonModel):
    """The model, as a class of MLflow's."""


mlflow.models.set_model(RawRowModel())
'''
_AS_TEXT = ("STRING", "DATE", "TIMESTAMP", "BOOLEAN")
_NEEDS = ("mlflow", "torch", "numpy", "pandas", "safetensors")


def log_model(config: Config, data: Manifest, resolved: Resolved, trained: Trained, uri: str, run_id: str) -> str:
    """Package what was trained as the run's MLflow model; return the model's URI."""
    import mlflow

    with _packaged(config, data, resolved, trained) as model, store.active(uri), _active_run(run_id):
        # 2.13, which Databricks 15.4 LTS ML has, calls the name artifact_path
        key = "name" if "name" in inspect.signature(mlflow.pyfunc.log_model).parameters else "artifact_path"
        info = mlflow.pyfunc.log_model(**{key: "model"}, **model)
    log.info("logged the model: %s", info.model_uri)
    return str(info.model_uri)


@contextmanager
def _active_run(run_id: str) -> Iterator[None]:
    """Let MLflow log to this run during the block, and leave it RUNNING.

    The context manager of MLflow's own `start_run` would say FINISHED, before the gate and the report have come.
    """
    import mlflow

    mlflow.start_run(run_id=run_id)
    try:
        yield
    finally:
        mlflow.end_run("RUNNING")


def save_model(config: Config, data: Manifest, resolved: Resolved, trained: Trained, folder: Path) -> None:
    """Package what was trained as an MLflow model in ``folder``, when no store takes it."""
    import mlflow

    with _packaged(config, data, resolved, trained) as model:
        mlflow.pyfunc.save_model(str(folder), **model)


@contextmanager
def _packaged(config: Config, data: Manifest, resolved: Resolved, trained: Trained) -> Iterator[dict[str, Any]]:
    """Yield what `mlflow.pyfunc.log_model` and `save_model` need; its files are there during the block.

    The packages that a model needs are pinned to the versions of this environment; Spark is not among them.
    """
    spec = model_spec(config, data, resolved, trained.temperature, trained.threshold)
    with tempfile.TemporaryDirectory() as scratch:
        model, entry = Path(scratch) / "model", Path(scratch) / "raw_row_model.py"
        _write_model(model, config, spec, trained.weights)
        code = _copy_code(Path(scratch) / "code")
        entry.write_text(_ENTRY.format(code=code.name), encoding="utf-8")
        with _importable(code):  # MLflow runs the file once before it keeps it
            yield {
                "python_model": str(entry),
                "artifacts": {"model": str(model)},
                "code_paths": [str(code)],
                "signature": _signature(spec),
                "input_example": _example(spec, data),
                "pip_requirements": [f"{name}=={_version(name)}" for name in _NEEDS],
            }


def _write_model(folder: Path, config: Config, spec: ModelSpec, weights: bytes) -> None:
    """Write the files that :func:`pipeline.data.packaged.read_model` and the packaged code read."""
    folder.mkdir()
    (folder / "weights.safetensors").write_bytes(weights)
    (folder / "model.json").write_text(spec.to_json(), encoding="utf-8")
    features = config.features.model_copy(update={"sql": "features.sql"})
    packaged = config.model_copy(update={"features": features})
    (folder / "pipeline.yaml").write_text(packaged.to_yaml(), encoding="utf-8")
    (folder / "features.sql").write_text(config.features_sql, encoding="utf-8")


def _copy_code(folder: Path) -> Path:
    """Copy `pipeline/model` into ``folder`` as a package that is named after a hash of its files; return the package.

    So models of different versions of this project run each their own code in one process, and an application that
    loads a model may have a package `pipeline` of its own.
    """
    package = Path(pipeline.model.__file__).parent
    files = sorted(file.relative_to(package) for file in package.rglob("*.py"))
    digest = hashlib.sha256(b"".join(str(file).encode() + (package / file).read_bytes() for file in files)).hexdigest()
    code = folder / f"raw_row_model_{digest[:12]}"
    for file in files:
        (code / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(package / file, code / file)
    return code


@contextmanager
def _importable(package: Path) -> Iterator[None]:
    """Let ``package`` be imported during the block."""
    sys.path.insert(0, str(package.parent))
    try:
        yield
    finally:
        sys.path.remove(str(package.parent))
        for name in [name for name in sys.modules if name.partition(".")[0] == package.name]:
            del sys.modules[name]


def _signature(spec: ModelSpec) -> ModelSignature:
    """Name the raw columns and the outputs.

    Every column has the type `any`: a value of another type must not refuse the whole batch; its row gets a reason.
    MLflow before 2.16 has no such type.
    """
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema, TensorSpec

    from pipeline.model.spec import PROBABILITY

    types: dict[str, Any] = {c.name: DataType.string if c.type in _AS_TEXT else DataType.double for c in spec.raw}
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
    return pd.DataFrame([{c.name: _example_value(c, values) for c in spec.raw if c.needed}])


def _example_value(column: RawColumn, values: dict[str, str]) -> str | float | None:
    """Return a value that a column of this type can hold."""
    if column.type == "STRING":
        return values.get(column.name, "text")
    return None if column.type in _AS_TEXT else 1.0


def _version(package: str) -> str:
    from importlib.metadata import version

    return version(package).partition("+")[0]  # no build tag: an index need not have that very build
