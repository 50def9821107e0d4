"""The champion gate: a scheduled retrain never replaces a better model with a worse one.

Candidate and champion are packaged models. Both score the raw rows of the same validation split, each with its own
features.sql, so they are compared by what they would answer, however differently they are made.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import to_arrow_schema

from pipeline.config import Config, ConfigFiles, load_config
from pipeline.data import features_sql, prepare, score, shards, source_csv
from pipeline.data.manifest import LabelData, Manifest
from pipeline.data.packaged import PackagedModel, read_model
from pipeline.data.split import SPLIT
from pipeline.evaluation.decision import Decision, Verdict, decide, finite_metric
from pipeline.evaluation.metrics import Evaluation, Tally
from pipeline.launch import executors
from pipeline.launch.start import open_job
from pipeline.runtime.console import Stopwatch, log
from pipeline.runtime.errors import UserError
from pipeline.runtime.session import progress
from pipeline.tracking import registry, runs, store

if TYPE_CHECKING:
    from pyspark.sql import SparkSession
if TYPE_CHECKING:
    import pandas as pd
    from pyspark import Broadcast


def judge(config_files: ConfigFiles, overrides: Sequence[str] = (), run_id: str | None = None) -> dict[str, Any]:
    """Let the gate decide about a training that is in the store; return the summary for the last line of stdout.

    Without ``run_id`` it is the newest finished one of the experiment, under `tracking.run_name` if that is set.

    Raises:
        UserError: there is no such training, or it was one of another configuration or source.
    """
    watch = Stopwatch()
    config = load_config(config_files, overrides)
    if not config.tracking.registered_model:
        raise config.mistake("tracking.registered_model", "is needed: the name whose champion the gate decides about")
    uri, spark = open_job(config, "gate")
    with store.told_if_down(uri):
        executors.check_executors(spark, config)
        run = runs.read_run(config, uri, run_id)
        shards.check_prepared_from(config, run.data)
        decision = judge_candidate(spark, config, run.data, uri, run.run_id, run.model_uri, run.metrics)
    return {
        "status": "ok",
        "run_id": run.run_id,
        "model_uri": run.model_uri,
        "gate": asdict(decision),
        "timing_s": {"total": watch.total()},
    }


_LABEL = "_gate_label"
_MODEL = "_gate_model"
_FEW_CELLS = 1_000_000  # so many values are scored by the driver, sooner than Spark's Python would have imported torch
_CLOSE = 1e-5  # between the same sums made by ranks and by Spark, in which floats are added in another order


def judge_candidate(
    spark: SparkSession,
    config: Config,
    data: Manifest,
    uri: str,
    run_id: str,
    model_uri: str,
    trained: Mapping[str, float | None],
) -> Decision:
    """Register the model, compare it with the champion, move the alias `champion` if it is better.

    The decision and both numbers become tags of the version (`gate_…`) and of the run (`gate.…`). ``trained`` are the
    metrics that the ranks measured of the same model on the same rows; the packaged model must be as good as that.
    """
    name, metric = config.tracking.registered_model, config.gate_metric
    assert name is not None
    version = registry.register(uri, run_id, model_uri, name)
    current = registry.champion_version(uri, name)
    if current == version:
        log.info("version %s of %s is the champion already", version, name)
        reason = "an earlier attempt has promoted it"
        return Decision("promoted", reason, metric, trained.get(metric), None, name, version, None)
    models = {"candidate": registry.fetch_model(model_uri, uri)[0]}
    problem = None
    if current is not None:
        try:
            models["champion"] = registry.fetch_model(f"models:/{name}/{current}", uri)[0]
            check_fit(config, data, models["champion"])
        except UserError as error:
            problem = f"the champion, version {current}, cannot be compared with: {error}"
            models.pop("champion", None)
    found, failure = _try_to_evaluate(spark, config, data, models)
    if failure and "champion" in models:
        found, _ = _try_to_evaluate(spark, config, data, {"candidate": models["candidate"]})
    problem = problem or failure
    candidate, champion = found.get("candidate"), found.get("champion")
    if problem is None and candidate is not None:
        problem = _mismatch(metric, trained, candidate, data)
    verdict = Verdict("blocked", problem) if problem else decide(config, candidate, champion)
    if verdict.decision == "promoted" and (now := registry.champion_version(uri, name)) != current:
        # (MLflow has no compare-and-set: what happens between this look and the promotion goes unseen)
        verdict = Verdict("blocked", f"version {now} has become the champion meanwhile; run again to compare with it")
    decision = Decision(
        **asdict(verdict),
        metric=metric,
        candidate=finite_metric(candidate, metric),
        champion=finite_metric(champion, metric),
        model=name,
        version=version,
        champion_version=current,
    )
    facts = {key: str(value) for key, value in asdict(decision).items() if value is not None}
    registry.tag_version(uri, name, version, {f"gate_{key}": fact for key, fact in facts.items()})
    runs.log_outcome(uri, run_id, {}, {f"gate.{key}": fact for key, fact in facts.items()})
    if verdict.decision == "promoted":  # last: whoever is interrupted before is judged anew
        registry.promote(uri, name, version)
    log.info("version %s of %s: %s: %s", version, name, decision.decision, decision.reason)
    return decision


def _try_to_evaluate(
    spark: SparkSession, config: Config, data: Manifest, models: dict[str, Path]
) -> tuple[dict[str, Evaluation], str | None]:
    """Evaluate, or say in one line why that cannot be done: a finished training must not be lost over it."""
    try:
        return evaluate(spark, config, data, models), None
    except Exception as error:  # whatever Spark, a damaged model or a changed source raise
        told = source_csv.source_mistake(spark, config, error) or source_csv.sentence(error).split("Traceback")[0]
        log.warning("scoring %s failed", " and ".join(models), exc_info=not isinstance(error, UserError))
        return {}, f"{' and '.join(models)} cannot be measured: {str(told)[:500]}"


def check_fit(config: Config, data: Manifest, champion: Path) -> None:
    """Raise UserError unless this packaged model can score this configuration's raw rows and has its classes."""
    from pipeline.model.scorer import Scorer

    try:
        spec = Scorer(champion).spec
    except Exception as error:  # what is in a damaged model's files can raise anything
        raise UserError(f"it cannot be loaded: {type(error).__name__}: {' '.join(str(error).split())[:200]}") from None
    if sorted(spec.classes) != sorted(data.label.classes):
        theirs, ours = (", ".join(names) or "a number" for names in (spec.classes, data.label.classes))
        raise UserError(f"it predicts {theirs}, but the data have {ours}; move the alias by hand if that is meant")
    types = {name.lower(): kind for name, kind in features_sql.translate(config).raw_types.items()}
    for column in spec.raw:
        if column.needed and types.get(column.name.lower()) != column.type:
            has = types.get(column.name.lower())
            found = f"has it as {has}" if has else "has no such column"
            hint = "move the alias by hand if that is meant"
            raise UserError(f"it needs the column '{column.name}' as {column.type}, but source.schema {found}; {hint}")
    read_model(champion)


def evaluate(spark: SparkSession, config: Config, data: Manifest, models: dict[str, Path]) -> dict[str, Evaluation]:
    """Score the raw rows of the validation split with each packaged model, in one pass over the source.

    Raises:
        UserError: the source no longer holds the rows of the manifest.
    """
    packaged = [read_model(folder) for folder in models.values()]
    typed = prepare.typed_rows(spark, config, source_csv.read_records(spark, config), keep_raw=True)
    rows = typed.frame.where(F.col(SPLIT) == "validation")
    rows = rows.select(prepare.RAW, source_csv.column(config.label.column).alias(_LABEL))
    for i, model in enumerate(packaged):
        rows = _with_inputs(spark, rows, model, f"{_MODEL}{i}_")
    rows = rows.drop(prepare.RAW)
    # an integer label counts from 0, whatever its classes are called
    counts_from_0 = config.label.classes is not None and typed.integer_label
    codes = [str(i) for i in range(len(data.label.classes))] if counts_from_0 else data.label.classes

    shipped = [score.ship_model(spark, folder) for folder in models.values()]
    count = _counter(shipped, data.label, codes)
    with progress(spark, f"scoring {data.rows.validation} validation rows with {' and '.join(models)}"):
        if data.rows.validation * len(rows.columns) <= _FEW_CELLS:
            # of a source that has grown meanwhile no more than shows it
            few = [row.asDict() for row in rows.limit(data.rows.validation + 1).collect()]
            cells = pa.Table.from_batches(count([pa.RecordBatch.from_pylist(few, to_arrow_schema(rows.schema))]))
            cells = cells.to_pandas()
        else:
            counted = rows.mapInArrow(count, "model int, cell bigint, amount double")
            cells = counted.groupBy("model", "cell").agg(F.sum("amount").alias("amount")).toPandas()
    found = {}
    for i, name in enumerate(models):
        tally = Tally(data.label)
        mine = cells[cells["model"] == i]
        tally.vector[mine["cell"].to_numpy()] = mine["amount"].to_numpy()
        found[name] = tally.evaluate()
        if found[name].rows != data.rows.validation:
            rest = "at least " if found[name].rows > data.rows.validation else ""
            problem = f"has changed since it was prepared: it held {data.rows.validation} validation rows, now {rest}"
            raise config.mistake("source.path", f"{problem}{found[name].rows}")
    return found


def _with_inputs(spark: SparkSession, rows: DataFrame, model: PackagedModel, prefix: str) -> DataFrame:
    """Run a model's own features.sql over the raw rows; keep them, and what is there already."""
    raw = [field.name for field in rows.schema[prepare.RAW].dataType.fields]  # type: ignore[attr-defined]
    others = [name for name in rows.columns if name != prepare.RAW]
    score.with_declared(spark, rows.select(f"{prepare.RAW}.*", *others), model.config).createOrReplaceTempView("raw")
    struct = f"struct({', '.join(_quoted(name) for name in raw)}) AS {prepare.RAW}"
    sql = features_sql.select_more(model.config.features_sql, *map(_quoted, others), struct)
    return spark.sql(sql).select(prepare.RAW, *others, *score.model_inputs(model.spec, prefix))


def _counter(
    shipped: list[Broadcast[dict[str, bytes]]], label: LabelData, codes: list[str]
) -> Callable[[Iterable[pa.RecordBatch]], Iterable[pa.RecordBatch]]:
    """Return the function that counts every model's answers in one Spark task, or in the driver."""

    def count(batches: Iterable[pa.RecordBatch]) -> Iterable[pa.RecordBatch]:
        import pandas as pd

        scorers = [score.shipped_model(model) for model in shipped]
        tallies = [Tally(label) for _ in shipped]
        code_of = pd.Index(codes, dtype=object)
        for batch in batches:
            labels = batch.column(_LABEL).to_pandas()
            for i, (scorer, tally) in enumerate(zip(scorers, tallies, strict=True)):
                told = scorer.score(score.read_inputs(batch, scorer.spec, f"{_MODEL}{i}_"))
                right = code_of.get_indexer(labels) if label.classes else labels.to_numpy(np.float64)
                # a class that the manifest does not know: the source has changed, which the number of rows will tell
                known = right >= 0 if label.classes else np.full(len(right), True)
                refused = told["reason"].notna().to_numpy()
                tally.add(_answers(told, label)[known], right[known], refused=refused[known])
        for i, tally in enumerate(tallies):
            cells = np.flatnonzero(tally.vector)
            columns = [np.full(len(cells), i, np.int32), cells, tally.vector[cells]]
            yield pa.RecordBatch.from_arrays([pa.array(c) for c in columns], names=["model", "cell", "amount"])

    return count


def _answers(told: pd.DataFrame, label: LabelData) -> Any:
    """Return probabilities in the order of the label's classes, or the predicted numbers."""
    from pipeline.model.spec import PROBABILITY

    if not label.classes:
        return told["prediction"].to_numpy(np.float64)
    return told[[PROBABILITY + name for name in label.classes]].to_numpy(np.float64)


def _mismatch(metric: str, trained: Mapping[str, float | None], packaged: Evaluation, data: Manifest) -> str | None:
    """Say where the packaged candidate is not what the ranks have trained."""
    measured = trained.get(metric)
    pair = math.nan if measured is None else measured, packaged.metrics[metric]
    scale = data.label.stats.std if data.label.stats and metric in ("rmse", "mae") else 1.0
    is_same = all(map(math.isnan, pair)) or math.isclose(*pair, rel_tol=_CLOSE, abs_tol=_CLOSE * scale)
    return None if is_same else f"{metric} is {pair[1]:.6g} as packaged, but was {pair[0]:.6g} when it was trained"


def _quoted(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"
