"""A packaged model runs its own code, whatever else is called `pipeline` and whatever other models are loaded."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import OLD_MLFLOW, PACKAGED_MODELS, UseCase
from datasets import resolved, write_dataset
from pipeline.data.specs import Trained, net_spec
from pipeline.model.network import TabularNet, weight_bytes
from pipeline.tracking import package

ROW = {"a": 3.0, "k": "x"}
UNSEEN = {"a": 3.0, "k": "nowhere"}
LOAD = """
import json, sys
import mlflow, pandas as pd
asked = json.loads(sys.stdin.read())
models = [mlflow.pyfunc.load_model(folder) for folder, _ in asked]  # all are loaded before the first one answers
answers = [model.predict(pd.DataFrame(rows)).to_dict("records") for model, (_, rows) in zip(models, asked)]
print(json.dumps(answers))
"""


@pytest.fixture
def model(use_case: UseCase, tmp_path: Path) -> Path:
    """Return the folder of a model that answers 'odd' from a = 0 on, packaged by today's code."""
    features = {"numeric": ["a"], "categorical": [{"column": "k", "unknown": "refuse"}]}
    config = use_case(model={"hidden_sizes": []}, features=features)
    data = write_dataset(tmp_path / "data", 20, 10, 1)
    net = TabularNet(net_spec(config, data))
    with torch.no_grad():
        weights, biases = net.layers[0].parameters()
        weights.zero_()
        biases.copy_(torch.tensor([-1.0, 1.0]))
    package.save_model(config, data, resolved(), Trained(weight_bytes(net)), tmp_path / "today")
    return tmp_path / "today"


def answers(asked: list[tuple[Path, list[dict[str, Any]]]], folder: Path, code: str = LOAD) -> list[Any]:
    """Load the models in one new process that is at home in ``folder``, and return what each answers."""
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    question = json.dumps([[str(model), rows] for model, rows in asked])
    command = [sys.executable, "-W", "ignore", "-c", code]
    ran = subprocess.run(command, input=question, env=environment, cwd=folder, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    answers: list[Any] = json.loads(ran.stdout.splitlines()[-1])
    return answers


def changed(model: Path, folder: Path) -> Path:
    """Return a copy of a model as another version of the code would have packaged it: another name, another text."""
    shutil.copytree(model, folder)
    (code,) = (folder / "code").iterdir()
    other = code.rename(code.with_name(f"{code.name}_other"))
    shutil.rmtree(other / "__pycache__", ignore_errors=True)
    scorer = other / "scorer.py"
    scorer.write_text(scorer.read_text().replace("was never seen in training", "is news to another version"))
    (entry,) = folder.glob("*.py")
    entry.write_text(entry.read_text().replace(code.name, other.name))
    return folder


def test_an_application_may_have_a_package_of_the_same_name(model: Path, tmp_path: Path) -> None:
    application = tmp_path / "application"
    (application / "pipeline").mkdir(parents=True)
    (application / "pipeline" / "__init__.py").write_text("OWNER = 'the application'\n")
    check = """
import pipeline
assert pipeline.OWNER == 'the application'
assert not [name for name in sys.modules if name.startswith('pipeline.')]
"""
    ((answer, refused),) = answers([(model, [ROW, UNSEEN])], application, f"import pipeline\n{LOAD}\n{check}")
    assert answer["prediction"] == "odd"
    assert answer["probability_odd"] == pytest.approx(1 / (1 + 2.718281828459045**-2), abs=1e-6)
    assert refused["reason"] == "k: 'nowhere' was never seen in training"


def test_two_models_in_one_process_run_each_their_own_code(model: Path, tmp_path: Path) -> None:
    other = changed(model, tmp_path / "other")
    first, second = answers([(model, [ROW, UNSEEN]), (other, [ROW, UNSEEN])], tmp_path)
    assert first[0] == second[0]
    assert first[1]["reason"] == "k: 'nowhere' was never seen in training"
    assert second[1]["reason"] == "k: 'nowhere' is news to another version"


@pytest.mark.skipif(OLD_MLFLOW, reason="MLflow 2 cannot read the type `any` of the older models' signature")
@pytest.mark.parametrize("older", PACKAGED_MODELS, ids=lambda folder: folder.name)
def test_an_older_model_runs_beside_one_of_today(older: Path, model: Path, tmp_path: Path) -> None:
    expected = json.loads((older / "expected.json").read_text())
    today, before = answers([(model, [ROW]), (older, expected["rows"])], tmp_path)
    assert today[0]["prediction"] == "odd"
    assert before == expected["answers"]
