"""A packaged model takes raw rows as they come; a bad row gets a reason, and the other rows keep their answers."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from pipeline.model.dialect.entry import ENTRIES, Function
from pipeline.model.dialect.tree import Node, column, literal
from pipeline.model.network import TabularNet, weight_bytes
from pipeline.model.scorer import Scorer
from pipeline.model.spec import TEXT, CategoricalInput, ModelSpec, NetSpec, NumericInput, RawColumn

NETWORK = NetSpec(
    numeric=(NumericInput("a", 0.0, 1.0), NumericInput("n", 0.0, 1.0)),
    categorical=(CategoricalInput("k", "onehot", values=2, width=2),),
    hidden_sizes=(4,),
    dropout=0.0,
    outputs=2,
    label_mean=0.0,
    label_std=1.0,
)
_TEXT = column(TEXT, "string")
# as data/reading.py reads an INT: a fraction may hold zeros only
_WHOLE = Node(
    "CaseWhen",
    "int",
    (
        Node(
            "And",
            "boolean",
            (
                Node("Contains", "boolean", (_TEXT, literal(".", "string"))),
                Node("Not", "boolean", (Node("RLike", "boolean", (_TEXT, literal("^[^.]*[.]0*[ ]*$", "string"))),)),
            ),
        ),
        literal(None, "int"),
        Node("Cast", "int", (_TEXT,)),
    ),
)
SPEC = ModelSpec(
    network=NETWORK,
    raw=(
        RawColumn("a", "DOUBLE", True, Node("ReadDouble", "double", (_TEXT,))),
        RawColumn("n", "INT", True, _WHOLE),
        RawColumn("k", "STRING", True, _TEXT),
        RawColumn("y", "INT", False, _WHOLE),
    ),
    features={
        "a": Node("Divide", "double", (column("a", "double"), literal("2.0", "double"))),
        "n": Node("Cast", "double", (column("n", "int"),)),
        "k": column("k", "string"),
    },
    vocabularies={"k": ["x", "y"]},
    classes=["no", "yes"],
    encode_unknown=[],
)
GOOD = {"a": 3.0, "n": 4, "k": "x"}


def scorer(folder: Path, spec: ModelSpec = SPEC) -> Scorer:
    torch.manual_seed(0)
    (folder / "weights.safetensors").write_bytes(weight_bytes(TabularNet(spec.network)))
    (folder / "model.json").write_text(spec.to_json())
    return Scorer(folder)


def test_the_description_survives_the_disk() -> None:
    assert ModelSpec.from_json(SPEC.to_json()) == SPEC


def test_an_answer_that_is_not_finite_is_none(tmp_path: Path) -> None:
    model = scorer(tmp_path)
    layer = model.net.layers[0]
    assert isinstance(layer, torch.nn.Linear)
    torch.nn.init.constant_(layer.weight, 100)
    huge, good = model.predict(pd.DataFrame([{**GOOD, "a": 3e38}, GOOD])).to_dict("records")
    assert (huge["prediction"], huge["reason"]) == (None, "the network has no finite answer")
    assert good["reason"] is None


def test_a_prediction_is_the_network_s_on_the_features(tmp_path: Path) -> None:
    model = scorer(tmp_path)
    (row,) = model.predict(pd.DataFrame([GOOD])).to_dict("records")
    with torch.no_grad():
        expected = torch.softmax(model.net(torch.tensor([[1.5, 4.0, 0.0]])), dim=1)[0].tolist()
    assert [row["probability_no"], row["probability_yes"]] == pytest.approx(expected, abs=1e-7)
    assert row["prediction"] == ["no", "yes"][int(np.argmax(expected))]
    assert row["reason"] is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"a": "abc"}, "a: 'abc' is not DOUBLE"),
        ({"n": 3.7}, "n: '3.7' is not INT"),
        ({"n": "99999999999"}, "n: '99999999999' is not INT"),
        ({"a": None}, "a is missing"),
        ({"a": float("nan")}, "a is missing"),
        ({"a": 1e300}, "a is missing"),
        ({"a": float("inf")}, "a is missing"),
        ({"k": None}, "k is missing"),
        ({"k": "z"}, "k: 'z' was never seen in training"),
        ({"k": "Robert'); DROP TABLE raw;--"}, "k: 'Robert'); DROP TABLE raw;--' was never seen in training"),
    ],
)
def test_a_bad_row_gets_a_reason_and_the_other_rows_keep_their_answers(
    tmp_path: Path, change: dict[str, Any], reason: str
) -> None:
    model = scorer(tmp_path)
    alone = model.predict(pd.DataFrame([GOOD])).iloc[0]
    rows = model.predict(pd.DataFrame([GOOD, {**GOOD, **change}, GOOD], index=[7, 5, 3]))
    assert rows.index.tolist() == [7, 5, 3]
    assert rows["reason"].tolist() == [None, reason, None]
    assert rows["prediction"].tolist() == [alone["prediction"], None, alone["prediction"]]
    assert rows["probability_yes"].isna().tolist() == [False, True, False]
    assert rows["probability_yes"].iloc[0] == pytest.approx(alone["probability_yes"], abs=1e-7)


def test_a_row_that_cannot_be_computed_gets_a_reason_and_the_other_rows_keep_their_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = ENTRIES["Divide"]

    def make(node: Node) -> Function:
        divide = right.make(node)
        return lambda a, b: [][1] if a == 7 else divide(a, b)  # no operation should raise; this one does

    monkeypatch.setitem(ENTRIES, "Divide", dataclasses.replace(right, make=make))
    model = scorer(tmp_path)
    rows = model.predict(pd.DataFrame([GOOD, {**GOOD, "a": 7.0}, {**GOOD, "a": None}, GOOD]))
    failed = "features.sql cannot be computed: IndexError: list index out of range"
    assert rows["reason"].tolist() == [None, failed, "a is missing", None]
    assert rows["prediction"].notna().tolist() == [True, False, False, True]


def test_numbers_may_come_as_text_and_whole_ones_as_floats(tmp_path: Path) -> None:
    model = scorer(tmp_path)
    forms = [GOOD, {"a": "3.0", "n": "4", "k": "x"}, {"a": 3, "n": 4.0, "k": "x"}]
    answers = [model.predict(pd.DataFrame([form])).to_dict("records") for form in forms]
    assert answers[0] == answers[1] == answers[2]


def test_unseen_values_are_encoded_where_the_configuration_allows_it(tmp_path: Path) -> None:
    model = scorer(tmp_path, dataclasses.replace(SPEC, encode_unknown=["k"]))
    rows = model.predict(pd.DataFrame([{**GOOD, "k": "z"}, {**GOOD, "k": None}]))
    assert rows["reason"].tolist() == [None, "k is missing"]


def test_regression_answers_with_a_number(tmp_path: Path) -> None:
    network = dataclasses.replace(NETWORK, outputs=1, label_mean=100.0, label_std=5.0)
    model = scorer(tmp_path, dataclasses.replace(SPEC, network=network, classes=[]))
    rows = model.predict(pd.DataFrame([GOOD, {**GOOD, "a": None}]))
    assert list(rows.columns) == ["prediction", "reason"]
    assert 50 < rows["prediction"].iloc[0] < 150
    assert np.isnan(rows["prediction"].iloc[1])


def test_wide_numbers_are_counted_from_their_offset_in_float64(tmp_path: Path) -> None:
    """As float32 all of these rows would be equal: it holds every 128th second of 1.7e9."""
    wide = NumericInput("a", 0.0, 1.0, offset=1.7e9)
    network = dataclasses.replace(
        NETWORK,
        numeric=(wide, NETWORK.numeric[1]),
        hidden_sizes=(),
        outputs=1,
        label_mean=1.0,
        label_std=2.0,
        label_offset=2e9,
    )
    model = scorer(
        tmp_path,
        dataclasses.replace(SPEC, network=network, classes=[], features=SPEC.features | {"a": column("a", "double")}),
    )
    (layer,) = model.net.layers
    assert isinstance(layer, torch.nn.Linear)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 0.0, 0.0, 0.0]]))
        layer.bias.zero_()
    seconds = [1.7e9, 1.7e9 + 1, 1.7e9 + 2.5, 1_699_999_990]
    rows = model.predict(pd.DataFrame([{**GOOD, "a": second} for second in [*seconds, 1e39, None]]))
    assert rows["prediction"].tolist()[:4] == [2e9 + 1 + 2 * (second - 1.7e9) for second in seconds]
    assert rows["reason"].tolist() == [None] * 4 + ["a is missing"] * 2


def test_no_rows_are_no_error(tmp_path: Path) -> None:
    assert len(scorer(tmp_path).predict(pd.DataFrame([GOOD]).iloc[:0])) == 0
