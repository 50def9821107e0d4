"""Rows with holes: what a missing, a rare and an unseen value become, the same for Spark, ranks and a single row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from pyspark.sql import SparkSession

from conftest import UseCase, read_split, to_pandas
from pipeline import predict
from pipeline.config import Config
from pipeline.data import quantiles, shards, vocabularies
from pipeline.data.manifest import SPLITS
from pipeline.data.packaged import load_scorer
from pipeline.data.parity import check_parity
from pipeline.data.shards import Prepared
from pipeline.data.specs import Trained, model_spec, net_spec
from pipeline.model.network import TabularNet, weight_bytes
from pipeline.runtime.errors import UserError
from pipeline.tracking import package
from pipeline.training.loader import read_shard

ROWS = 3_000
SCHEMA = "id STRING, hole DOUBLE, whole DOUBLE, at BIGINT, kind STRING, rare STRING, y STRING"
SQL = "SELECT id, hole, whole, at, kind, rare, y FROM raw"


def table() -> pd.DataFrame:
    """Return rows of which a third lack `hole`, and a tenth `at` and `kind`; `rare` has values of one to many rows."""
    random = np.random.default_rng(0)
    numbers = random.normal(10, 3, ROWS)
    frame = pd.DataFrame(
        {
            "id": [f"id-{i}" for i in range(ROWS)],
            "hole": pd.Series(np.round(numbers, 3)).mask(random.random(ROWS) < 1 / 3),
            "whole": random.permutation(ROWS) + 0.25,  # no two rows share it
            "at": pd.Series(random.integers(1_700_000_000, 1_700_600_000, ROWS), dtype="Int64").mask(
                random.random(ROWS) < 0.1
            ),
            "kind": pd.Series(random.choice(["a", "b", "ü"], ROWS)).mask(random.random(ROWS) < 0.1),
            "rare": [f"v{min(int(v), 400)}" for v in random.pareto(0.6, ROWS) * 5],
            "y": np.where(random.random(ROWS) < 1 / (1 + np.exp(numbers - 10)), "yes", "no"),
        }
    )
    frame.loc[::50, "y"] = None  # only a missing label drops a row
    return frame


FEATURES: dict[str, Any] = {
    "numeric": ["hole", {"column": "whole", "missing": "mean"}, {"column": "at", "missing": 1_700_000_000}],
    "categorical": ["kind", "rare", {"column": "id", "hash_buckets": 50, "encoding": "embedding"}],
}


@pytest.fixture
def messy(use_case: UseCase) -> UseCase:
    def make(frame: pd.DataFrame | None = None, written: bool = False, **sections: Any) -> Config:
        given = {
            "source": {"path": "data.csv", "schema": SCHEMA},
            "features": FEATURES,
            "label": {"column": "y", "classes": ["no", "yes"]},
            "split": {"validation_fraction": 0.15},
        }
        csv = (table() if frame is None else frame).to_csv(index=False)
        return use_case(None if written else csv, sql=SQL, **{**given, **sections})

    return make


def rows_of(spark: SparkSession, prepared: Prepared) -> pd.DataFrame:
    return pd.concat([to_pandas(read_split(spark, prepared, split)).assign(split=split) for split in SPLITS])


def test_no_row_is_lost_and_every_number_is_of_the_training_rows(spark: SparkSession, messy: UseCase) -> None:
    source, config = table(), messy()
    prepared = shards.prepare_data(spark, config, 2)
    data, usable = prepared.manifest, source.dropna(subset="y")
    assert (data.rows.read, data.rows.dropped) == (ROWS, ROWS // 50)
    assert data.dropped_by_column == {"y": ROWS // 50}
    assert data.missing == {name: usable[name].isna().sum() for name in ("hole", "at", "kind")}

    files = rows_of(spark, prepared)
    train = files[files["split"] == "train"]
    assert len(files) == len(usable)
    for name in ("hole", "whole", "at"):
        assert sorted(files[name].dropna()) == pytest.approx(sorted(usable[name].dropna().astype(float)), rel=1e-6)
        stats, values = data.numeric[name], train[name].dropna().to_numpy(np.float64)
        assert data.missing_in_training.get(name, 0) == train[name].isna().sum()
        assert [stats.mean, stats.std] == pytest.approx([values.mean(), values.std()], rel=1e-6)
        assert (stats.min, stats.max) == (values.min(), values.max())
        assert stats.quantiles == pytest.approx(np.quantile(values, np.linspace(0, 1, 513)).tolist(), rel=1e-6)
        assert stats.median == pytest.approx(np.median(values), rel=1e-6)
    network = net_spec(config, data)
    hole, whole, at = network.numeric
    assert hole.fill == pytest.approx(train["hole"].median(), rel=1e-6)
    assert whole.fill == pytest.approx(train["whole"].mean(), rel=1e-6)
    assert at.offset
    assert at.fill == 1_700_000_000 - at.offset
    assert all(number.indicator for number in network.numeric)


@pytest.mark.parametrize("ranked_by", ["driver", "spark"])
def test_rare_values_are_other_and_a_missing_one_is_a_value(
    spark: SparkSession, messy: UseCase, monkeypatch: pytest.MonkeyPatch, ranked_by: str
) -> None:
    if ranked_by == "spark":
        monkeypatch.setattr(vocabularies, "_FEW_VALUES", 10)
    config = messy()
    prepared = shards.prepare_data(spark, config, 2)
    data, files = prepared.manifest, rows_of(spark, prepared)
    train = files[files["split"] == "train"]
    assert data.vocabularies["kind"] == ["a", "b", "ü"]
    vocabulary, others = data.vocabularies["rare"], len(data.vocabularies["rare"])
    counts = train["rare"].value_counts()
    assert counts.drop(others).min() >= 5
    assert counts[others] == data.other_in_training["rare"] > 0
    # each value of the vocabulary has at least five training rows in the source, and no other value has
    usable = table().dropna(subset="y")["rare"].value_counts()
    assert {f"v{i}" for i in range(3)} <= set(vocabulary) < set(usable.index)
    kind, rare, hashed = net_spec(config, data).categorical
    assert (kind.encoding, kind.width, kind.missing) == ("onehot", 4, 4)
    assert (rare.encoding, rare.missing) == ("embedding", others)  # no training row lacks it
    assert (hashed.hashed, hashed.values, hashed.codes) == (True, 50, 51)
    assert sorted(train["id"].unique()) == [*range(50)]

    few = messy(features={**FEATURES, "categorical": [{"column": "rare", "max_values": 2, "min_count": 1}]})
    kept = shards.prepare_data(spark, few, 2).manifest
    most = [value for value in usable.index if value in kept.vocabularies["rare"]]
    assert len(most) == 2
    assert usable[most].min() >= usable.iloc[2] - 30  # of the training rows, about


def test_spark_files_and_a_single_row_have_the_same_answers(
    spark: SparkSession, messy: UseCase, tmp_path: Path
) -> None:
    config = messy()
    prepared = shards.prepare_data(spark, config, 2)
    data = prepared.manifest
    assert check_parity(config, prepared.resolved, prepared.folder, data.offsets) >= ROWS - ROWS // 50
    torch.manual_seed(0)
    net = TabularNet(net_spec(config, data)).eval()
    with torch.no_grad():
        for weights in net.parameters():  # so that every input speaks
            weights.normal_(0, 0.3)
    package.save_model(config, data, prepared.resolved, Trained(weight_bytes(net)), tmp_path / "model")
    scorer = load_scorer(tmp_path / "model" / "artifacts" / "model")

    asked = table().drop(columns="y")
    asked.loc[7, ["hole", "whole", "at", "kind", "rare", "id"]] = None
    asked.loc[8, ["kind", "rare", "id"]] = ["unseen", "unseen", "unseen"]
    asked.to_csv(tmp_path / "asked.csv", index=False)
    predict.predict_files(str(tmp_path / "model"), [str(tmp_path / "asked.csv")], str(tmp_path / "scored"), "parquet")
    by_spark = pd.DataFrame(spark.read.parquet(str(tmp_path / "scored")).toPandas())
    one_by_one = scorer.predict(asked)
    assert by_spark["reason"].isna().all()
    assert one_by_one["reason"].isna().all()
    names = ["probability_no", "probability_yes"]
    both = by_spark.set_index(by_spark["id"].fillna("none")).loc[asked["id"].fillna("none"), names]
    np.testing.assert_allclose(both.to_numpy(), one_by_one[names].to_numpy(), rtol=1e-5)

    # the ranks' own matrix, and the network on it
    shard = read_shard(prepared.folder, data, "train", 0, 1)
    assert shard.features.isnan().any(dim=0).tolist() == [True, False, True, True, False, False]
    with torch.no_grad():
        by_rank = torch.softmax(net(shard.features).double(), dim=1)[:, 0].numpy()
    place = pd.Series(range(ROWS), index=table()["whole"])[shard.features[:, 1].double().numpy()]
    untouched = ~place.isin([7, 8]).to_numpy()
    expected = one_by_one["probability_no"].to_numpy()[place.to_numpy()]
    np.testing.assert_allclose(by_rank[untouched], expected[untouched], rtol=1e-4)


def test_a_hole_where_training_had_none_is_answered_like_the_value_that_stands_for_it(
    spark: SparkSession, messy: UseCase, tmp_path: Path
) -> None:
    frame = table().assign(hole=1.5).dropna()
    features = {"numeric": ["hole", "whole"], "categorical": ["kind"]}
    config = messy(frame, features=features)
    prepared = shards.prepare_data(spark, config, 1)
    assert prepared.manifest.missing == {}
    for seed in range(4):
        torch.manual_seed(seed)
        net = TabularNet(net_spec(config, prepared.manifest))
        spec = model_spec(config, prepared.manifest, prepared.resolved)
        folder = tmp_path / str(seed)
        folder.mkdir()
        (folder / "model.json").write_text(spec.to_json(), encoding="utf-8")
        (folder / "weights.safetensors").write_bytes(weight_bytes(net))
        median = prepared.manifest.numeric["whole"].median
        asked = pd.DataFrame({"hole": [1.5, 1.5], "whole": [median, None], "kind": ["a", "a"]}, dtype=object)
        given, missing = load_scorer(folder).predict(asked)["probability_yes"]
        assert missing == pytest.approx(given, rel=1e-6)


def broken(column: str, value: object, share: float = 1.0) -> pd.DataFrame:
    """Return the table with a share of a column replaced."""
    frame = table()
    frame[column] = frame[column].astype(object)
    frame.loc[: int(share * ROWS), column] = value
    return frame


@pytest.mark.parametrize(
    ("frame", "sections", "sentence"),
    [
        (broken("hole", None), {}, r"features\.numeric\.0: 'hole' has no value in any of 2,0\d\d training rows: leave"),
        (broken("kind", None), {}, r"features\.categorical\.0: 'kind' has no value in any of .* training rows: leave"),
        (
            broken("at", "soon", 0.2),
            {},
            r"source\.max_quarantined: 6\d\d of 3,000 \(20\..*\) records .* at most 5\.00% may",
        ),
        (
            broken("y", None, 0.5),
            {},
            r"source\.max_dropped: .* of 3,000 \(5.*%\) rows were dropped .*lack y.* 5\.00% may",
        ),
        (
            table(),
            {"source": {"path": "data.csv", "schema": SCHEMA, "min_rows": 5_000}},
            r"3,000 rows, but must hold 5,000",
        ),
        (
            table(),
            {"features": {"numeric": [{"column": "hole", "max_missing": 0.1}], "categorical": []}},
            r"features\.numeric\.0\.max_missing: .* of 2,940 \(3.*%\) usable rows lack 'hole', but at most 10\.00% may",
        ),
        (
            table(),
            {"features": {"numeric": ["whole", {"column": "hole", "missing": "refuse"}], "categorical": []}},
            r"features\.numeric\.1\.missing: \d+ rows lack 'hole', but missing: refuse allows none",
        ),
    ],
    ids=["no number", "no category", "quarantined", "dropped", "few rows", "one feature", "refuse"],
)
def test_a_broken_feed_is_one_sentence(
    spark: SparkSession, messy: UseCase, frame: pd.DataFrame, sections: dict[str, Any], sentence: str
) -> None:
    config = messy(frame, **sections)
    with pytest.raises(UserError, match=sentence):
        shards.prepare_data(spark, config, 1)
    with pytest.raises(UserError, match=sentence):  # data that are prepared already are no better
        shards.prepare_data(spark, config, 1)


def test_a_category_that_is_an_id_is_named(
    spark: SparkSession, messy: UseCase, caplog: pytest.LogCaptureFixture
) -> None:
    config = messy(features={"numeric": ["whole"], "categorical": ["id"]})
    with caplog.at_level("WARNING"):
        prepared = shards.prepare_data(spark, config, 1)
    assert prepared.manifest.vocabularies == {"id": []}
    assert "no value of 'id' is in 5 or more training rows, so it tells the model nothing: leave it out" in caplog.text
    net = TabularNet(net_spec(config, prepared.manifest))
    assert torch.isfinite(net(torch.tensor([[1.0, 0.0], [float("nan"), float("nan")]]))).all()


def test_a_limit_that_is_raised_needs_no_new_preparation(spark: SparkSession, messy: UseCase) -> None:
    features: list[Any] = ["hole", "whole"]
    with pytest.raises(UserError, match="has no value"):
        shards.prepare_data(spark, messy(broken("hole", None), features={"numeric": features, "categorical": []}), 1)
    features[0] = {"column": "hole", "missing": -1.0}
    config = messy(written=True, features={"numeric": features, "categorical": []})
    prepared = shards.prepare_data(spark, config, 1)
    assert prepared.reused
    assert net_spec(config, prepared.manifest).numeric[0].fill == -1


@pytest.mark.parametrize("parts", [1, 5])
def test_quantiles_of_a_large_split_are_those_of_a_sample_by_hash(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parts: int
) -> None:
    values = pd.DataFrame({"a": np.arange(20_000) / 20_000, "b": np.sin(np.arange(20_000))})
    values.loc[::3, "b"] = np.nan
    rows = spark.createDataFrame(values.sample(frac=1, random_state=parts)).selectExpr("a", "nanvl(b, NULL) AS b")
    rows.repartition(parts).write.parquet(str(tmp_path / "train"))
    from pipeline.runtime.storage import Folder

    monkeypatch.setattr(quantiles, "MOST_CELLS", 8_000)
    monkeypatch.setattr(quantiles, "_FEW_CELLS", 0)
    found = quantiles.fit_quantiles(spark, Folder.at(str(tmp_path)), "train", ["a", "b"], 20_000)
    steps = np.linspace(0, 1, 513)
    assert np.abs(np.array(found["a"]) - steps).max() < 0.03  # of 4,000 rows; four standard errors of the median
    assert len(found["b"]) == 513
    KNOWN.setdefault("a", found["a"])
    assert found["a"] == KNOWN["a"]  # however Spark has cut the rows


KNOWN: dict[str, list[float]] = {}
