"""A model, a manifest or a checkpoint from a stranger: each field is poisoned in turn, and refused or harmless.

The fields are those of the records themselves, so a field that is new and has no poison makes a test fail.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pytest

from conftest import ROOT
from pipeline import predict
from pipeline.data.manifest import Manifest, RowGroup
from pipeline.data.packaged import load_scorer, read_model
from pipeline.evaluation.metrics import EpochRecord
from pipeline.model.spec import CategoricalInput, ModelSpec, NetSpec, NumericInput, Periodic, RawColumn, SplitRule
from pipeline.runtime.errors import UserError
from pipeline.runtime.storage import Folder
from pipeline.training import checkpoint
from pipeline.training.checkpoint import Progress
from submitting import LAB_PENGUIN

HUGE = 10**400
HTML = "<script>alert(1)</script>\n`; DROP TABLE raw --"
DEEP: Any = {}
for _ in range(300):
    DEEP = {
        "op": "Upper",
        "type": "string",
        "arguments": [DEEP or {"op": "Column", "type": "string", "value": "Island"}],
    }

Tree = dict[str, Any]


def put(value: Any, *path: str | int) -> Callable[[Tree], None]:
    """Return a function that puts a value in the place of the one at this path of a model.json."""

    def change(tree: Tree) -> None:
        node: Any = tree
        for part in path[:-1]:
            if node[part] is None:  # the model has no such record: its poison comes in a good one
                node[part] = {"frequencies": 2, "scale": 0.1, "width": 2}
            node = node[part]
        node[path[-1]] = value

    return change


NETWORK: dict[str, list[Any]] = {
    "numeric": [[], "x", [{"column": "a"}]],
    "categorical": [[], [{"column": "Island", "encoding": "pickle", "values": 3, "width": 3, "offset": 0}]],
    "hidden_sizes": [[HUGE], [-1], [10**9, 10**9], "64", [True], [64] * 10],
    "dropout": [2, "0", -1],
    "members": [0, -1, "2", 10**9, None],
    "outputs": [HUGE, 0, -1, "3"],
    "label_mean": ["x", None],
    "label_std": [[], "inf"],
    "label_offset": [HUGE, {}],
    "periodic": [{}, "x", {"frequencies": 4, "scale": 0.1, "width": 3}],
}
NUMERIC: dict[str, list[Any]] = {
    "column": [HTML, 7, "Island"],
    "shift": ["__import__('os')", HUGE],
    "scale": [None, []],
    "offset": ["1e999", True],
    "fill": ["x", HUGE, [], 1e300],
    "indicator": ["yes", 1, True],
    "is_clipped": ["yes", None],
    "knots": [[float(i) for i in range(5_000)], [1.0, 1.0], [2.0, 1.0], ["x"], [1.0], "1", [HUGE]],
    "levels": [[0.0], [None], "0"],
}
PERIODIC: dict[str, list[Any]] = {
    "frequencies": [HUGE, 0, -3, "4"],
    "scale": ["x", None],
    "width": [HUGE, 0, -3, 2.5],
}
CATEGORICAL: dict[str, list[Any]] = {
    "column": [HTML, "CulmenLength"],
    "encoding": ["../../etc/passwd", 3],
    "values": [HUGE, -5, 2**40 + 1, 4],
    "width": [HUGE, 0, 7],
    "missing": [HUGE, -1, "4", 2],
    "hashed": ["yes", None],
}
RAW: dict[str, list[Any]] = {
    "name": [5, None, ["Island"]],
    "type": [{}, 3],
    "needed": ["yes", 1],
    "value": [DEEP, {"op": "JavaMethod", "type": "string"}, {"op": "Cast"}, "text", None],
}
SPLIT: dict[str, list[Any]] = {
    "version": [0, "2", HUGE, None],
    "validation_from": ["x", [], True],
    "test_from": ["2024-01-01", {}],
}
SPEC: dict[str, list[Any]] = {
    "network": [{}, [], None],
    "raw": [{}, "x", [{}]],
    "vocabularies": [{"Island": ["x"]}, {"Island": [1]}, {}, []],
    "classes": [["a"], [HTML, HTML], "Adelie", [1, 2, 3]],
    "encode_unknown": [["CulmenLength"], [["Island"]], "Island"],
    "missing": [[None], "NA", [5]],
    "features": [{}, {"Island": DEEP}, {"Island": {"op": "Reflect", "type": "string"}}, []],
    "temperature": [0, -1.0, "1", None],
    "positive": ["Adelie", HTML, 1, True],
    "threshold": [0, 1, -0.5, "f1", None],
    "split": [{}, [], {"version": 3, "validation_from": None, "test_from": None}],
    "former_options": [[{}], 3],
    "select": ["SELECT 1", HUGE, "COPY (SELECT 1) TO 'poisoned'", ["x"]],
}
RECORDS: list[tuple[type, dict[str, list[Any]], tuple[str | int, ...]]] = [
    (ModelSpec, SPEC, ()),
    (SplitRule, SPLIT, ("split",)),
    (Periodic, PERIODIC, ("network", "periodic")),
    (NetSpec, NETWORK, ("network",)),
    (NumericInput, NUMERIC, ("network", "numeric", 0)),
    (CategoricalInput, CATEGORICAL, ("network", "categorical", 0)),
    (RawColumn, RAW, ("raw", 0)),
]
POISONS = [
    pytest.param((*path, name), poison, id=f"{record.__name__}.{name} {str(poison)[:20]!r}")
    for record, poisons, path in RECORDS
    for name, values in poisons.items()
    for poison in values
]


@pytest.mark.parametrize(("record", "poisons"), [(r, p) for r, p, _ in RECORDS], ids=lambda value: str(value)[:40])
def test_every_field_of_a_model_has_a_poison(record: type, poisons: dict[str, list[Any]]) -> None:
    assert set(poisons) == {field.name for field in dataclasses.fields(record)}


@pytest.fixture(autouse=True)
def nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run each test in a folder of its own; no poison may have written the file `poisoned` there."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    yield
    assert not (tmp_path / "here" / "poisoned").exists()


@pytest.fixture
def model(model_folder: Path, tmp_path: Path) -> Path:
    """Return a copy of a model of today's format."""
    return Path(shutil.copytree(model_folder / "artifacts" / "model", tmp_path / "model"))


@pytest.mark.parametrize(("path", "poison"), POISONS)
def test_a_poisoned_field_of_a_model_is_refused_by_name(model: Path, path: tuple[str | int, ...], poison: Any) -> None:
    tree = json.loads((model / "model.json").read_text())
    put(poison, *path)(tree)
    (model / "model.json").write_text(json.dumps(tree))
    for read in (load_scorer, read_model):
        with pytest.raises(UserError, match=r"cannot be read as a packaged model: ") as refused:
            read(model)
        assert "\n" not in str(refused.value)
        assert len(str(refused.value)) < 600


_HEADER = '{"a":{"dtype":"F32","shape":[90000000011],"data_offsets":[0,0]}}'
HOLLOW = chr(len(_HEADER)) + "\0" * 7 + _HEADER


@pytest.mark.parametrize(
    ("file", "text", "sentence"),
    [
        ("model.json", '{"format": 3, "network": NaN}', "model.json holds NaN"),
        ("model.json", "[" * 100_000, "nested too deeply"),
        ("model.json", "[]", "holds no object"),
        ("model.json", '{"format": 1e400}', "cannot be read"),
        ("pipeline.yaml", "a: &a [x, x]\nb: *a\n", "references"),
        ("pipeline.yaml", "[" * 100_000, "nested too deeply"),
        ("pipeline.yaml", "!!python/object/apply:os.system ['touch poisoned']", "cannot be read"),
        ("pipeline.yaml", "source: 1\n", "source"),
        ("weights.safetensors", "x" * 100, "safetensors"),
        ("weights.safetensors", "", "safetensors"),
        # a header that states as many values as the network would have, of which the file holds none
        ("weights.safetensors", HOLLOW, "does not hold what its header states"),
        ("features.sql", "x" * (2**20 + 1), "at most"),
    ],
)
def test_a_poisoned_file_of_a_model_is_refused(model: Path, file: str, text: str, sentence: str) -> None:
    (model / file).write_text(text)
    with pytest.raises(UserError, match=sentence):
        read_model(model)


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("sql: features.sql", "sql: ../../../../etc/passwd", "must be features.sql"),
        ("sql: features.sql", "sql: /etc/passwd", "must be features.sql"),
        ("options: {}", "options: {locale: x}", "options.locale"),
        ("seed: 0", "seed: .nan", "seed"),
    ],
)
def test_a_poisoned_setting_of_a_model_is_refused(model: Path, old: str, new: str, sentence: str) -> None:
    text = (model / "pipeline.yaml").read_text()
    assert old in text
    (model / "pipeline.yaml").write_text(text.replace(old, new, 1))
    with pytest.raises(UserError, match=sentence):
        read_model(model)


@pytest.mark.parametrize(
    ("sql", "sentence"),
    [
        ("SELECT reflect('java.lang.System', 'exit', 3) AS Island FROM raw", "reflect"),
        ("SELECT java_method('java.lang.Runtime', 'getRuntime') AS Island FROM raw", "java_method"),
        ("SELECT * FROM csv.`/etc/passwd`", "must read FROM raw and nothing else"),
        ("SELECT * FROM raw; CREATE TABLE t AS SELECT 1", "must be one SELECT"),
        ("INSERT OVERWRITE DIRECTORY 'poisoned' SELECT * FROM raw", "must be one SELECT|not valid"),
        ("SELECT default.evil(Island) AS Island FROM raw", "is a function of a catalog"),
        ("SELECT TRANSFORM(Island) USING 'touch poisoned' AS Island FROM raw", "is a program of its own"),
        ("SELECT (SELECT 1) AS Island FROM raw", "subquery"),
        ("SELECT array_position(array('a'), Island) AS Island FROM raw", "array_position"),
    ],
)
@pytest.mark.usefixtures("spark")
def test_a_poisoned_features_sql_never_reaches_spark(
    model: Path, tmp_path: Path, sql: str, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (model / "features.sql").write_text(sql)
    (tmp_path / "rows.csv").write_text("Island,CulmenLength\n")

    def fetched(*_: Any) -> Any:
        return contextlib.nullcontext((model, "1"))

    monkeypatch.setattr(predict, "fetched_model", fetched)
    with pytest.raises(UserError, match=sentence):
        predict.predict_files("models:/m/1", [str(tmp_path / "rows.csv")], str(tmp_path / "out"), "csv")
    if "array_position" not in sql:  # that one is slow to trust, but harmless
        with pytest.raises(UserError, match=sentence):
            predict.predict_files("m", [str(tmp_path / "rows.csv")], str(tmp_path / "out"), "csv", None, True)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "select",
    [
        "SELECT 1); COPY (SELECT 1) TO 'poisoned'; SELECT * FROM (SELECT 1",
        "COPY (SELECT 1) TO 'poisoned'",
        "SELECT 1; SELECT 2",
        "INSTALL httpfs",
    ],
)
def test_an_older_model_s_translation_is_one_select(tmp_path: Path, select: str) -> None:
    shutil.copytree(ROOT / "tests" / "models" / "format-2-penguins" / "artifacts" / "model", tmp_path / "model")
    file = tmp_path / "model" / "model.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "select": select}))
    with pytest.raises(UserError, match="cannot be read as a packaged model"):
        load_scorer(tmp_path / "model")


@pytest.mark.parametrize("source", ["read_csv('/etc/passwd')", "'/etc/passwd'", "read_text('/etc/passwd')"])
def test_an_older_model_s_translation_reads_no_file(tmp_path: Path, source: str) -> None:
    shutil.copytree(ROOT / "tests" / "models" / "format-2-penguins" / "artifacts" / "model", tmp_path / "model")
    file = tmp_path / "model" / "model.json"
    tree = json.loads(file.read_text())
    network = tree["network"]
    names = ", ".join(f"1 AS {part['column']}" for part in [*network["numeric"], *network["categorical"]])
    file.write_text(json.dumps({**tree, "select": f"SELECT {names} FROM {source}"}))
    with pytest.raises(duckdb.Error, match=r"disabled by configuration|not exist"):
        load_scorer(tmp_path / "model").predict(pd.DataFrame([LAB_PENGUIN]))


def test_names_with_html_and_line_breaks_are_only_names(model: Path) -> None:
    tree = json.loads((model / "model.json").read_text())
    tree["classes"] = [HTML, *tree["classes"][1:]]
    (model / "model.json").write_text(json.dumps(tree))
    (answer,) = load_scorer(model).predict(pd.DataFrame([LAB_PENGUIN])).to_dict("records")
    assert f"probability_{HTML}" in answer


# ---- manifests and checkpoints ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["../x.parquet", "/etc/passwd", "a/../../x", ".hidden", "a//b", "a\nb/../c", ""])
def test_a_manifest_names_no_file_outside_its_folder(path: str) -> None:
    with pytest.raises(ValueError, match="path"):
        RowGroup(path=path, index=0, rows=1)


@pytest.mark.parametrize("name", sorted(Manifest.model_fields))
def test_a_poisoned_field_of_a_manifest_is_not_used(name: str, tmp_path: Path) -> None:
    from datasets import write_dataset

    good = write_dataset(tmp_path, 103, 11, 2)
    tree = json.loads(good.model_dump_json())
    for poison in ({"x": [[HTML]]}, [[HTML]], *([None] if tree[name] is not None else [])):
        (tmp_path / "manifest.json").write_text(json.dumps({**tree, name: poison}))
        # a folder without a valid manifest is no data set: its data are prepared anew
        assert Manifest.read(Folder(str(tmp_path))) is None
    (tmp_path / "manifest.json").write_text(json.dumps(tree))
    assert Manifest.read(Folder(str(tmp_path))) == good


PROGRESS: dict[str, list[Any]] = {
    "epoch": [-1, "1", HUGE, None],
    "step": [-1, "x", 1.5, 10**9],
    "history": [[{}], "x", [[]], []],
    "best": [{}, "x", 5],
    "lowest": ["x", None],
    "lowest_epoch": [-1, "x"],
    "cache": ["../x", 5],
}


RECORD: dict[str, list[Any]] = {
    "epoch": ["1", -3],
    "train": [{}, {"rows": "x", "loss": 1, "metrics": {}}, {"rows": 1, "loss": 1, "metrics": {"a": HTML}}],
    "validation": [None, {"rows": 1, "loss": [], "metrics": {}}],
    "learning_rate": ["0.1", None],
    "rows_per_s": [{}],
    "ranks": [HUGE, 1.5],
    "ended_ms": ["now"],
}


def test_every_field_of_a_progress_has_a_poison() -> None:
    assert set(PROGRESS) == {field.name for field in dataclasses.fields(Progress)}
    assert set(RECORD) == {field.name for field in dataclasses.fields(EpochRecord)}


@pytest.mark.parametrize(
    ("record", "name", "poison"),
    [
        *(pytest.param(None, n, p, id=f"{n} {str(p)[:20]}") for n, poisons in PROGRESS.items() for p in poisons),
        *(pytest.param(0, n, p, id=f"history.{n} {str(p)[:20]}") for n, poisons in RECORD.items() for p in poisons),
    ],
)
def test_a_poisoned_field_of_a_checkpoint_is_not_used(
    tmp_path: Path, record: int | None, name: str, poison: Any
) -> None:
    (file,) = (ROOT / "tests" / "checkpoints" / "format-3").glob("*-step-000000000-*")
    content = file.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    progress = json.loads(header["__metadata__"]["progress"])
    put(poison, *([name] if record is None else ["history", record, name]))(progress)
    header["__metadata__"]["progress"] = json.dumps(progress)
    packed = json.dumps(header).encode()
    folder = Folder(str(tmp_path))
    checkpoint.write(folder, Progress(epoch=1), len(packed).to_bytes(8, "little") + packed + content[8 + length :])
    assert checkpoint.newest(folder) is None


def test_a_checkpoint_nested_deeply_is_not_used(tmp_path: Path) -> None:
    deep = b"[" * 100_000
    checkpoint.write(Folder(str(tmp_path)), Progress(epoch=1), len(deep).to_bytes(8, "little") + deep)
    assert checkpoint.newest(Folder(str(tmp_path))) is None
