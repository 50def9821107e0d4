"""The main job as its users run it: `spark-submit jobs/train.py` on the penguins, and the same through `job.train`."""

from __future__ import annotations

import json
import logging
import math
import os
import re
import shutil
import subprocess
import sys
from datetime import datetime, timedelta
from importlib.metadata import distributions
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from mlflow import MlflowClient
from pyspark.sql import SparkSession
from safetensors.torch import load_file

from conftest import OLD_MLFLOW, PENGUINS, UseCase, csv_rows
from datasets import checksums, read_manifest
from pipeline import gate, train
from pipeline.config import load_config
from pipeline.model.scorer import Scorer
from pipeline.runtime.errors import UserError
from pipeline.runtime.storage import Folder
from submitting import LAB_PENGUIN, Penguins, submit

SCHEMA = load_config(PENGUINS).source.schema_


def test_the_summary_is_the_last_line_and_the_only_one_on_stdout(penguins: Penguins) -> None:
    ran = penguins.ran
    assert ran.code == 0, ran.stderr
    assert len(ran.stdout.splitlines()) == 1
    summary = ran.summary
    assert summary["status"] == "ok"
    rows = summary["rows"]
    assert (rows["read"], rows["quarantined"], rows["dropped"]) == (344, 0, 2)
    assert rows["train"] + rows["validation"] + rows["test"] == 342
    assert summary["num_proc"] == 2
    assert summary["metrics"]["accuracy"] >= 0.95
    assert summary["epochs"] == 100
    assert summary["reused_data"] is False
    assert set(summary["timing_s"]) == {"start", "prepare", "launch", "train", "package", "gate", "baselines", "total"}
    assert 0.3 < summary["temperature"] < 3
    assert summary["baselines"].keys() == {"model", "constant", "linear", "trees"}
    reported = {name: value for name, value in summary["metrics"].items() if name not in ("loss", "epoch")}
    assert summary["baselines"]["model"] == pytest.approx(reported, rel=1e-6)
    assert summary["metrics_of"] == "test"
    assert summary["validation_metrics"].keys() == summary["metrics"].keys()
    assert summary["validation_metrics"] != summary["metrics"]
    decision = summary["gate"]
    assert (decision["decision"], decision["model"], decision["version"]) == ("promoted", "penguins", "1")
    # the packaged model, scored in Spark from raw rows, is exactly as good as the network that the ranks measured
    assert decision["candidate"] == summary["metrics"]["accuracy"]


@pytest.mark.skipif(OLD_MLFLOW, reason="the store of MLflow 2 logs how it makes its tables")
def test_the_console_shows_one_line_per_epoch_and_no_noise(penguins: Penguins) -> None:
    ran = penguins.ran
    epochs = re.findall(
        r"^\d\d:\d\d:\d\d epoch +(\d+)/100  loss [\d.]+  validation loss [\d.]+  accuracy [\d.]+  "
        r"validation accuracy [\d.]+  [\d,]+ rows/s$",
        ran.stderr,
        re.MULTILINE,
    )
    assert epochs == [str(epoch) for epoch in range(1, 101)]
    for noise in ("INFO", "FutureWarning", "DeprecationWarning", "Traceback", "[0]<std"):
        assert noise not in ran.stderr, noise
    assert len(ran.stderr.splitlines()) < 130


def test_the_store_holds_one_finished_run_with_everything(penguins: Penguins) -> None:
    ran, work_dir = penguins.ran, penguins.work_dir
    client = MlflowClient(f"sqlite:///{work_dir / 'mlflow.db'}")
    (run,) = client.search_runs([e.experiment_id for e in client.search_experiments()])
    assert run.info.run_id == ran.summary["run_id"]
    assert run.info.status == "FINISHED"
    for metric in (
        "train_loss",
        "validation_loss",
        "train_accuracy",
        "validation_accuracy",
        "learning_rate",
        "rows_per_s",
    ):
        history = client.get_metric_history(run.info.run_id, metric)
        assert [m.step for m in history] == list(range(1, 101)), metric
        assert all(math.isfinite(m.value) for m in history)
    assert run.data.metrics["best_accuracy"] == ran.summary["metrics"]["accuracy"]
    assert run.data.params["training.batch_size"] == "20"
    assert run.data.params["num_proc"] == "2"
    assert {"version.pyspark", "version.torch", "version.horovod", "version.petastorm"} <= set(run.data.tags)
    assert run.inputs is not None
    (dataset,) = run.inputs.dataset_inputs
    assert dataset.dataset.digest == next((work_dir / "data").iterdir()).name


def test_metrics_are_visible_before_the_job_ends(penguins: Penguins) -> None:
    assert any(0 < step < 100 for step in penguins.steps_while_running)


def test_the_artifacts_are_there_and_readable(penguins: Penguins) -> None:
    ran, work_dir = penguins.ran, penguins.work_dir
    client = MlflowClient(f"sqlite:///{work_dir / 'mlflow.db'}")

    def artifact(path: str) -> Path:
        return Path(client.download_artifacts(ran.summary["run_id"], path))

    copy = artifact("config/pipeline.yaml")
    assert load_config(copy).training.epochs == 100
    assert artifact("config/features.sql").read_text() == (PENGUINS.parent / "features.sql").read_text()
    for figure in ("figures/loss_curves.png", "figures/confusion_matrix.png", "figures/calibration.png"):
        content = artifact(figure).read_bytes()
        assert content.startswith(b"\x89PNG")
    weights = load_file(artifact("weights/weights.safetensors"))
    shapes = [tuple(w.shape) for name, w in weights.items() if name.endswith("weight")]
    assert sorted(shapes) == [(3, 10), (10, 5), (10, 10)]
    text = artifact("weights/weights.txt").read_text()
    assert all(f"{name} {tuple(w.shape)}" in text for name, w in weights.items() if name.startswith("layers"))


def test_the_report_is_complete_and_loads_no_other_file(penguins: Penguins) -> None:
    client = MlflowClient(f"sqlite:///{penguins.work_dir / 'mlflow.db'}")
    summary = penguins.ran.summary

    def artifact(path: str) -> str:
        return Path(client.download_artifacts(summary["run_id"], path)).read_text()

    page = artifact("report.html")
    assert not re.search(r"<script|<link|<iframe|@import|url\((?!#)|(?:src|href)=[\"'](?!#|data:image/png)", page)
    assert page.count("<svg") == 4
    text = re.sub(r"<svg.*?</svg>|<style.*?</style>", "", page, flags=re.DOTALL)
    text = " ".join(re.sub(r"<[^>]+>", " ", text).split())
    rows, evaluation = summary["rows"], json.loads(artifact("evaluation/evaluation.json"))
    for words in (
        f"read {rows['read']} 100.0 % quarantined: do not fit the schema 0 0.0 %",
        "dropped: a required column is missing 2 0.6 %",
        f"to train on {rows['train']}",
        f"to validate on {rows['validation']}",
        f"to test on {rows['test']}",
        f"measured on {rows['test']} test rows",
        "The validation rows chose the epoch, so their numbers flatter the model: accuracy",
        "Species training rows validation rows test rows Adelie",
        "Below each metric: its 95 % interval.",
        "Other models on the same rows",
        "Boosted trees",
        "Missing in dropped rows: CulmenLength 2, CulmenDepth 2",
        "penguins version 1: promoted. there was no champion",
        f"class rows precision recall F1 ROC AUC Adelie {evaluation['classes'][0]['support']}",
        "Island Dream",
        "prepare",
        "gate",
    ):
        assert words in text, words

    assert evaluation["rows"] == rows["test"]
    assert np.trace(evaluation["confusion"]) / evaluation["rows"] == summary["metrics"]["accuracy"]
    assert {s["feature"] for s in evaluation["slices"]} == {"Island"}
    growths = [importance["growth"] for importance in evaluation["importance"]]
    assert len(growths) == 5
    assert growths == sorted(growths, reverse=True)
    assert growths[0] > 0.1  # the bill tells the species
    assert all(s["excess"] > 0 for s in evaluation["slices"])


def test_the_model_holds_no_pickle_and_only_known_kinds_of_files(model_folder: Path) -> None:
    files = [path for path in model_folder.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} <= {"", ".txt", ".py", ".yaml", ".json", ".sql", ".safetensors"}
    for path in files:
        content = path.read_bytes()
        assert not content.startswith(b"\x80"), path  # the first opcode of every pickle since protocol 2
    requirements = (model_folder / "requirements.txt").read_text()
    assert "torch==" in requirements
    assert not re.search("spark|horovod|petastorm|duckdb", requirements)


def test_the_model_is_as_accurate_on_test_rows_as_training_measured(penguins: Penguins, model_folder: Path) -> None:
    import torch

    folder = next((penguins.work_dir / "data").iterdir())
    data = read_manifest(folder)
    scorer = Scorer(model_folder / "artifacts" / "model")
    tested = pd.concat([pq.read_table(folder / g.path).to_pandas() for g in data.splits["test"].row_groups])
    names = [*data.numeric, *data.vocabularies]
    with torch.no_grad():
        matrix = torch.from_numpy(tested[names].to_numpy(np.float32))
        expected = torch.softmax(scorer.net(matrix) / scorer.spec.temperature, dim=1).numpy()

    raw = pd.read_csv(PENGUINS.parent / "penguins.csv")
    features, _ = scorer._features.run(raw)
    islands = features["Island"].map({name: code for code, name in enumerate(data.vocabularies["Island"])})
    keys = [tuple(row) for row in features.assign(Island=islands)[names].to_numpy(np.float32).tolist()]
    by_key = {tuple(row): p for row, p in zip(tested[names].to_numpy(np.float32).tolist(), expected, strict=True)}
    answers = scorer.predict(raw)
    probabilities = answers[[f"probability_{name}" for name in data.label.classes]].to_numpy()
    correct = checked = 0
    for row, key in enumerate(keys):
        if key in by_key:
            checked += 1
            assert probabilities[row] == pytest.approx(by_key[key], abs=1e-6)
            assert probabilities[row].argmax() == by_key[key].argmax()
            correct += answers["prediction"].iloc[row] == data.label.classes[raw["Species"].iloc[row]]
    assert checked == data.rows.test
    assert correct / checked == penguins.ran.summary["metrics"]["accuracy"]


def test_the_model_loads_without_spark_and_predicts_the_lab_s_penguin(model_folder: Path, tmp_path: Path) -> None:
    """In an environment of its own, made only from the model's requirements."""
    python = tmp_path / "env" / "bin" / "python"
    uv = [sys.executable, "-m", "uv"]
    subprocess.run([*uv, "venv", "-q", "--python", sys.executable, tmp_path / "env"], check=True, timeout=60)
    same = tmp_path / "versions.txt"  # what the model leaves open is as it is here
    packages = [d for d in distributions() if d.name not in ("pipeline", "horovod")]
    # the first of a name is the one that is imported; others lie within packages that carry their own
    here = {d.name: d.version.partition("+")[0] for d in reversed(packages)}
    same.write_text("".join(f"{name}=={version}\n" for name, version in here.items()))
    requirements = ["-r", str(model_folder / "requirements.txt"), "-c", str(same)]
    backend = [] if os.environ.get("UV_FIND_LINKS") else ["--torch-backend", "cpu"]
    subprocess.run([*uv, "pip", "install", "-q", "--python", python, *backend, *requirements], check=True, timeout=250)
    # floats, because MLflow 2 does not accept a whole number as one
    penguin = {name: float(value) if isinstance(value, int) else value for name, value in LAB_PENGUIN.items()}
    code = f"""
import importlib.util, mlflow, pandas
for name in ("pyspark", "horovod", "petastorm", "pipeline"):
    assert importlib.util.find_spec(name) is None, name
print(mlflow.pyfunc.load_model({str(model_folder)!r}).predict(pandas.DataFrame([{penguin!r}])).iloc[0].prediction)
"""
    ran = subprocess.run(
        [python, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=100, cwd=tmp_path, check=False
    )
    assert ran.stdout.split() == ["Gentoo"], ran.stderr


def test_a_second_run_gives_the_same_bytes_and_reports_that_it_reuses_the_data(
    spark: SparkSession, penguins: Penguins, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "pipeline")
    # in this process, whose Spark has run other things before
    again = train.train(str(PENGUINS), [f"run.work_dir={penguins.work_dir}"], gated=False)
    assert again["weights_sha256"] == penguins.ran.summary["weights_sha256"]
    assert again["metrics"] == penguins.ran.summary["metrics"]
    assert again["run_id"] != penguins.ran.summary["run_id"]
    assert again["reused_data"] is True
    assert "reusing the data prepared earlier" in caplog.text
    assert again["gate"] is None

    # judged later, as jobs/gate.py does: the newest run of the experiment; once, however often
    judged = gate.judge(str(PENGUINS), [f"run.work_dir={penguins.work_dir}"])
    assert judged["run_id"] == again["run_id"]
    assert judged["model_uri"] == again["model_uri"]
    assert (judged["gate"]["decision"], judged["gate"]["version"]) == ("rejected", "2")
    assert "better by 0" in judged["gate"]["reason"]
    assert gate.judge(str(PENGUINS), [f"run.work_dir={penguins.work_dir}"])["gate"] == judged["gate"]
    champion = gate.judge(str(PENGUINS), [f"run.work_dir={penguins.work_dir}"], penguins.ran.summary["run_id"])
    assert champion["gate"]["decision"] == "promoted"
    assert champion["gate"]["reason"] == "an earlier attempt has promoted it"


@pytest.mark.parametrize(
    ("overrides", "run_id", "sentence"),
    [
        (
            ["split.oversample=3"],
            None,
            "--config: source, features, label or split are not the same as in the training",
        ),
        (
            ["tracking.run_name=nobody's"],
            None,
            "experiment 'penguins' has no finished run named 'nobody's'; train",
        ),
        ([], "0" * 32, "holds no training of this pipeline"),
        (["tracking.registered_model=null"], None, "tracking.registered_model: is missing"),
    ],
)
def test_the_gate_job_explains_why_it_cannot_judge(
    spark: SparkSession, penguins: Penguins, overrides: list[str], run_id: str | None, sentence: str
) -> None:
    with pytest.raises(UserError, match=re.escape(sentence)):
        gate.judge(str(PENGUINS), [f"run.work_dir={penguins.work_dir}", *overrides], run_id)


def test_one_rank_reaches_the_accuracy_too_and_stops_early(spark: SparkSession, tmp_path: Path) -> None:
    overrides = [f"run.work_dir={tmp_path}", "run.num_proc=1", "training.early_stopping.patience=25"]
    overrides += [f"run.data_dir=file://{tmp_path}/elsewhere"]
    summary = train.train(str(PENGUINS), overrides)
    assert summary["num_proc"] == 1
    assert (tmp_path / "elsewhere").is_dir()
    assert not (tmp_path / "data").exists()
    assert summary["metrics"]["accuracy"] >= 0.95
    assert summary["epochs"] == min(100, summary["metrics"]["epoch"] + 25)


def test_regression_learns_a_number_in_its_own_unit(spark: SparkSession, use_case: UseCase) -> None:
    config = use_case(
        csv_rows(500),
        sql="SELECT a, k, 1000 + 3 * a + CASE k WHEN 'x' THEN 100 ELSE 0 END AS y FROM raw",
        label={"column": "y", "task": "regression"},
        training={"epochs": 40, "learning_rate": 0.005, "optimizer": "adamw"},
    )
    summary = train.train(str(config.file))
    assert summary["metrics"]["r2"] > 0.98
    assert 0 < summary["metrics"]["rmse"] < 60
    client = MlflowClient(f"sqlite:///{config.work_dir / 'mlflow.db'}")
    figure = client.download_artifacts(summary["run_id"], "figures/predicted_vs_actual.png")
    assert Path(figure).read_bytes().startswith(b"\x89PNG")
    assert (
        "y of the training rows: mean" in Path(client.download_artifacts(summary["run_id"], "report.html")).read_text()
    )
    assert summary["gate"] is None


def test_a_rank_that_fails_in_the_loop_ends_the_job_and_the_run(penguins: Penguins, tmp_path: Path) -> None:
    work_dir = tmp_path / "work"
    shutil.copytree(penguins.work_dir / "data", work_dir / "data")
    (folder,) = (work_dir / "data").iterdir()
    group = read_manifest(folder).splits["train"].row_groups[1]
    # a class that the network does not have, in rank 1's shard: the loss raises in the middle of the first epoch
    table = pq.read_table(folder / group.path)
    species = [*table["Species"].to_pylist()[:-1], 7]
    pq.write_table(table.set_column(table.column_names.index("Species"), "Species", [species]), folder / group.path)
    data = read_manifest(folder)
    data.model_copy(update={"sha256": checksums(folder, data.splits)}).write(Folder(str(folder)))

    ran = submit(PENGUINS, f"run.work_dir={work_dir}")
    assert ran.code == 1
    assert ran.stdout == ""
    assert ran.stderr.count("error: rank 1 of 2 failed:") == 1
    assert ran.stderr.count("IndexError: Target 7 is out of bounds") == 1
    assert ran.stderr.count("Traceback") == 1
    began = re.search(r"^(\d\d:\d\d:\d\d) training on", ran.stderr, re.MULTILINE)
    assert began is not None
    since = datetime.now() - datetime.combine(datetime.now().date(), datetime.strptime(began[1], "%H:%M:%S").time())
    assert since % timedelta(days=1) < timedelta(seconds=60)
    client = MlflowClient(f"sqlite:///{work_dir / 'mlflow.db'}")
    (run,) = client.search_runs([e.experiment_id for e in client.search_experiments()])
    assert run.info.status == "FAILED"


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["training.epoch=3"], "unknown key 'training.epoch'; did you mean 'epochs'?"),
        ([f"source.schema={SCHEMA}, More INT"], "has a header of 6 columns, but the schema declares 7"),
    ],
)
def test_a_user_s_mistake_is_one_sentence_and_exit_code_2(tmp_path: Path, overrides: list[str], sentence: str) -> None:
    ran = submit(PENGUINS, f"run.work_dir={tmp_path}", *overrides)
    assert ran.code == 2
    assert ran.stdout == ""
    errors = [line for line in ran.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert sentence in errors[0]
    assert errors[0].startswith(f"error: --set {overrides[0]}"[:80])  # a long one is cut
    assert "Traceback" not in ran.stderr
    assert "Exception" not in ran.stderr
