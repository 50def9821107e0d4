"""Keep a logged model as a fixture of its format: ``python tests/recordmodel.py MODEL_FOLDER NAME ACCURACY``.

Run it with the code that has logged the model, before the format changes. MODEL_FOLDER is the MLflow model of the
penguins, ACCURACY the `accuracy` that its training has measured. The folder tests/models/NAME then holds the model, and
beside it in expected.json some raw rows with that code's answers.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

import mlflow
import pandas as pd

from conftest import PENGUINS, ROOT
from pipeline.config.sections import DEFAULT_WORK_DIR

ROWS = [0, 3, 47, 101, 151, 203, 260, 275, 300, 343]
"""Penguins of each species and island; row 3 has no measurements."""


def neutral(mlmodel: str) -> str:
    """Return the text of an `MLmodel` file with each absolute path reduced to its last name: MLflow reads none."""
    return re.sub(r"(?m)^(\s*\w+: )(?:file:/*)?/\S*/(\S+)$", r"\1\2", mlmodel)


def without_folder(settings: str) -> str:
    """Return the text of a `pipeline.yaml` with the default in the place of the folder that the job has worked in."""
    return re.sub(r"(?m)^(  work_dir: ).*$", rf"\g<1>{DEFAULT_WORK_DIR}", settings)


def record(model: Path, name: str, accuracy: float) -> Path:
    """Copy the model to tests/models and record its answers; return the new folder."""
    table = pd.read_csv(PENGUINS.parent / "penguins.csv").astype(object).iloc[ROWS]
    rows = table.where(table.notna(), None).to_dict("records")
    rows.append({**rows[0], "Island": "Atlantis"})
    answers = mlflow.pyfunc.load_model(str(model)).predict(pd.DataFrame(rows, dtype=object)).to_dict("records")
    folder = ROOT / "tests" / "models" / name
    shutil.copytree(model, folder, ignore=shutil.ignore_patterns("__pycache__"))
    mlmodel = folder / "MLmodel"
    mlmodel.write_text(neutral(mlmodel.read_text(encoding="utf-8")), encoding="utf-8")
    settings = folder / "artifacts" / "model" / "pipeline.yaml"
    settings.write_text(without_folder(settings.read_text(encoding="utf-8")), encoding="utf-8")
    recorded = {"validation_accuracy": accuracy, "rows": rows, "answers": answers}
    (folder / "expected.json").write_text(json.dumps(recorded, indent=1) + "\n", encoding="utf-8")
    return folder


if __name__ == "__main__":
    print(record(Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])))
