"""The champion gate: a scheduled retrain never replaces a better model with a worse one.

Candidate and champion are packaged models. Both score the raw rows of the same validation split, each with its own
features.sql, so the gate compares their answers, however differently the two are made.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import to_arrow_schema

from pipeline.config import Config, ConfigFiles, load_config
from pipeline.data import features_sql, prepare, score, shards, source_csv
from pipeline.data.manifest import LabelData, Manifest
from pipeline.data.packaged import PackagedModel, read_model
from pipeline.data.source_csv import column, quoted
from pipeline.data.split import SPLIT
from pipeline.evaluation.decision import Decision, Verdict, decide, finite_metric
from pipeline.evaluation.metrics import Evaluation
from pipeline.launch import executor_checks
from pipeline.launch.start import open_job
from pipeline.model.offsets import relative
from pipeline.runtime.console import Stopwatch, log
from pipeline.runtime.errors import UserError, one_line
from pipeline.runtime.session import progress
from pipeline.tracking import registry, runs, store

if TYPE_CHECKING:
    import pandas as pd
    from pyspark import Broadcast
    from pyspark.sql import DataFrame, SparkSession

_LABEL = "_gate_label"
_MODEL = "_gate_model"
_DRIVER_CELLS = 1_000_000  # the driver scores so many values before Spark's Python processes have imported torch
_TOLERANCE = 1e-5  # ranks and Spark add the same floats in another order


def judge(config_files: ConfigFiles, overrides: Sequence[str] = (), run_id: str | None = None) -> dict[str, Any]:
    """Let the gate decide about a training that is in the store; return the summary for the last line of stdout.

    Without ``run_id`` it is the newest finished one of the experiment, under `tracking.run_name` if that is set.

    Raises:
        UserError: there is no such training, or it had another configuration or source.
    """
    watch = Stopwatch()
    config = load_config(config_files, overrides)
    if not config.tracking.registered_model:
        raise config.mistake("tracking.registered_model", "is missing: set the name whose champion the gate decides on")
    uri, spark = open_job(config, "gate")
    with store.delivery_errors(uri):
        executor_checks.check_executors(spark, config)
        run = runs.read_run(config, uri, run_id)
        shards.check_prepared_from(config, run.data)
        decision = judge_candidate(spark, config, uri, run)
    return {
        "status": "ok",
        "run_id": run.run_id,
        "model_uri": run.model_uri,
        "gate": asdict(decision),
        "timing_s": {"total": watch.total()},
    }


def judge_candidate(spark: SparkSession, config: Config, uri: str, run: runs.LoggedRun) -> Decision:
    """Register the run's model, compare it with the champion, move the alias `champion` if it is better.

    The decision and both numbers become tags of the version (`gate_…`) and of the run (`gate.…`).
    """
    name, metric = config.tracking.registered_model, config.gate_metric
    assert name is not None
    version = registry.register(uri, run.run_id, run.model_uri, name)
    champion_version = registry.champion_version(uri, name)
    if champion_version == version:
        log.info("version %s of %s is the champion already", version, name)
        reason = "an earlier attempt has promoted it"
        return Decision("promoted", reason, metric, run.metrics.get(metric), None, name, version, None)

    comparison = compare(spark, config, uri, run, champion_version)
    if comparison.problem:
        verdict = Verdict("blocked", comparison.problem)
    else:
        verdict = decide(config, comparison.candidate, comparison.champion)
    if verdict.decision == "promoted" and (now := registry.champion_version(uri, name)) != champion_version:
        # MLflow has no compare-and-set: a promotion by another job between this line and ours goes unnoticed
        verdict = Verdict("blocked", f"version {now} has become the champion meanwhile; run again to compare with it")

    decision = Decision(
        **asdict(verdict),
        metric=metric,
        candidate=finite_metric(comparison.candidate, metric),
        champion=finite_metric(comparison.champion, metric),
        model=name,
        version=version,
        champion_version=champion_version,
    )
    _log_decision(uri, run.run_id, decision)
    if verdict.decision == "promoted":  # last: the next run judges a candidate again whose job was interrupted
        registry.promote(uri, name, version)
    log.info("version %s of %s: %s: %s", version, name, decision.decision, decision.reason)
    return decision


@dataclass(frozen=True)
class Comparison:
    """Candidate and champion on the same validation rows; None for a model that is missing or cannot be measured."""

    candidate: Evaluation | None
    champion: Evaluation | None
    problem: str | None
    """Why the numbers cannot be compared."""


def compare(
    spark: SparkSession, config: Config, uri: str, run: runs.LoggedRun, champion_version: str | None
) -> Comparison:
    """Evaluate the run's packaged model and the champion, if there is one.

    The candidate must be as good as the ranks have measured it on the same rows (``run.metrics``).
    """
    models = {"candidate": registry.fetch_model(run.model_uri, uri)[0]}
    problem = None
    if champion_version is not None:
        try:
            champion = registry.fetch_model(f"models:/{config.tracking.registered_model}/{champion_version}", uri)[0]
            check_fit(config, run.data, champion)
            models["champion"] = champion
        except UserError as error:
            problem = f"the candidate cannot be compared with the champion, version {champion_version}: {error}"
    evaluations, failure = _try_to_evaluate(spark, config, run.data, models)
    if failure and "champion" in models:
        evaluations, _ = _try_to_evaluate(spark, config, run.data, {"candidate": models["candidate"]})
    problem = problem or failure
    candidate = evaluations.get("candidate")
    if problem is None and candidate is not None:
        problem = _mismatch(config.gate_metric, run.metrics, candidate, run.data)
    return Comparison(candidate, evaluations.get("champion"), problem)


def check_fit(config: Config, data: Manifest, champion: Path) -> None:
    """Raise UserError unless this packaged model can score this configuration's raw rows and has its classes."""
    from pipeline.model.scorer import Scorer

    by_hand = "move the alias by hand if that is meant"
    try:
        spec = Scorer(champion).spec
    except Exception as error:  # a damaged model's files can raise anything
        raise UserError(f"it cannot be loaded: {type(error).__name__}: {one_line(error)}") from None
    if sorted(spec.classes) != sorted(data.label.classes):
        theirs, ours = (", ".join(names) or "a number" for names in (spec.classes, data.label.classes))
        raise UserError(f"it predicts {theirs}, but the data have {ours}; {by_hand}")
    types = {name.lower(): kind for name, kind in features_sql.translate(config).raw_types.items()}
    for raw in spec.raw:
        declared = types.get(raw.name.lower())
        if raw.needed and declared != raw.type:
            problem = f"has it as {declared}" if declared else "has no such column"
            raise UserError(f"it needs the column '{raw.name}' as {raw.type}, but source.schema {problem}; {by_hand}")
    read_model(champion)


def _mismatch(metric: str, trained: Mapping[str, float | None], packaged: Evaluation, data: Manifest) -> str | None:
    """Return how the packaged candidate differs from the network that the ranks have trained, if it does."""
    measured = trained.get(metric)
    pair = math.nan if measured is None else measured, packaged.metrics[metric]
    scale = data.label.stats.std if data.label.stats and metric in ("rmse", "mae") else 1.0
    is_same = all(map(math.isnan, pair)) or math.isclose(*pair, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE * scale)
    return None if is_same else f"{metric} is {pair[1]:.6g} as packaged, but was {pair[0]:.6g} when it was trained"


def _log_decision(uri: str, run_id: str, decision: Decision) -> None:
    tags = {key: str(value) for key, value in asdict(decision).items() if value is not None}
    registry.tag_version(uri, decision.model, decision.version, {f"gate_{key}": text for key, text in tags.items()})
    runs.log_outcome(uri, run_id, {}, {f"gate.{key}": text for key, text in tags.items()})


def _try_to_evaluate(
    spark: SparkSession, config: Config, data: Manifest, models: dict[str, Path]
) -> tuple[dict[str, Evaluation], str | None]:
    """Evaluate, or return in one line why that fails: the failure must not cost a finished training."""
    try:
        return evaluate(spark, config, data, models), None
    except Exception as error:  # Spark, a damaged model or a changed source can raise anything
        cause = source_csv.source_mistake(spark, config, error) or source_csv.sentence(error).split("Traceback")[0]
        log.warning("scoring %s failed", " and ".join(models), exc_info=not isinstance(error, UserError))
        return {}, f"{' and '.join(models)} cannot be measured: {str(cause)[:500]}"


def evaluate(spark: SparkSession, config: Config, data: Manifest, models: dict[str, Path]) -> dict[str, Evaluation]:
    """Score the raw rows of the validation split with each packaged model, in one pass over the source.

    ``models`` are folders by name. Through the driver pass at most 1,000,000 values, or else one line per sum.

    Raises:
        UserError: the source no longer holds the rows of the manifest.
    """
    from pipeline.evaluation.sums import MetricSums

    rows, classes = _validation_inputs(spark, config, data, models)
    count = _counter([score.ship_model(spark, folder) for folder in models.values()], data.label, classes)
    expected = data.rows.validation
    with progress(spark, f"scoring {expected} validation rows with {' and '.join(models)}"):
        if expected * len(rows.columns) <= _DRIVER_CELLS:
            # one row more than expected is enough to notice that the source has grown
            collected = [row.asDict() for row in rows.limit(expected + 1).collect()]
            batch = pa.RecordBatch.from_pylist(collected, to_arrow_schema(rows.schema))
            cells = pa.Table.from_batches(count([batch])).to_pandas()
        else:
            counted = rows.mapInArrow(count, "model int, cell bigint, amount double")
            cells = counted.groupBy("model", "cell").agg(F.sum("amount").alias("amount")).toPandas()
    evaluations = {}
    for i, name in enumerate(models):
        sums = MetricSums(data.label, with_detail=True)
        of_model = cells[cells["model"] == i]
        sums.vector.numpy()[of_model["cell"].to_numpy()] = of_model["amount"].to_numpy()
        evaluations[name] = sums.evaluate()
        if (rows_now := evaluations[name].rows) != expected:
            now = f"at least {rows_now}" if rows_now > expected else f"{rows_now}"
            problem = f"has changed since it was prepared: it held {expected} validation rows, now {now}"
            raise config.mistake("source.path", problem)
    return evaluations


def _validation_inputs(
    spark: SparkSession, config: Config, data: Manifest, models: dict[str, Path]
) -> tuple[DataFrame, list[str]]:
    """Return label and model inputs of each validation row, lazily, and the label's text for each class."""
    packaged = [read_model(folder) for folder in models.values()]
    typed = prepare.typed_rows(spark, config, source_csv.read_records(spark, config), keep_raw=True)
    rows = typed.frame.where(F.col(SPLIT) == "validation")
    rows = rows.select(prepare.RAW, column(config.label.column).alias(_LABEL))
    for i, model in enumerate(packaged):
        rows = _with_inputs(spark, rows, model, f"{_MODEL}{i}_")
    return rows.drop(prepare.RAW), prepare.class_texts(config, typed, data.label.classes)


def _with_inputs(spark: SparkSession, rows: DataFrame, model: PackagedModel, prefix: str) -> DataFrame:
    """Add the features that the model's own features.sql makes of the raw rows, under names with ``prefix``."""
    raw = [field.name for field in rows.schema[prepare.RAW].dataType.fields]  # type: ignore[attr-defined]
    others = [name for name in rows.columns if name != prepare.RAW]
    score.with_declared(spark, rows.select(f"{prepare.RAW}.*", *others), model.config).createOrReplaceTempView("raw")
    struct = f"struct({', '.join(map(quoted, raw))}) AS {prepare.RAW}"
    sql = features_sql.select_more(model.config.features_sql, *map(quoted, others), struct)
    return spark.sql(sql).select(prepare.RAW, *others, *score.model_inputs(model.spec, prefix))


def _counter(
    shipped: list[Broadcast[dict[str, bytes]]], label: LabelData, classes: list[str]
) -> Callable[[Iterable[pa.RecordBatch]], Iterable[pa.RecordBatch]]:
    """Return the function that adds up every model's answers in one Spark task, or in the driver."""

    def count(batches: Iterable[pa.RecordBatch]) -> Iterable[pa.RecordBatch]:
        import pandas as pd
        import torch

        from pipeline.evaluation.sums import MetricSums

        scorers = [score.shipped_model(model) for model in shipped]
        sums = [MetricSums(label, with_detail=True) for _ in shipped]
        code_of = pd.Index(classes, dtype=object)
        offset = label.stats.offset if label.stats else 0.0
        for batch in batches:
            labels = batch.column(_LABEL).to_pandas()
            codes = code_of.get_indexer(labels) if label.classes else relative(labels.to_numpy(np.float64), offset)
            # a class that the manifest lacks means that the source has changed, and the number of rows shows it
            known = codes >= 0 if label.classes else np.full(len(codes), True)
            for i, (scorer, of_model) in enumerate(zip(scorers, sums, strict=True)):
                scored = scorer.score(score.read_inputs(batch, scorer.spec, f"{_MODEL}{i}_"))
                refused = scored["reason"].notna().to_numpy()
                answers, actual, no_answer = (
                    torch.from_numpy(rows[known]) for rows in (_answers(scored, label), codes, refused)
                )
                of_model.add(answers, actual, refused=no_answer)
        for i, of_model in enumerate(sums):
            vector = of_model.vector.numpy()
            cells = np.flatnonzero(vector)
            columns = [np.full(len(cells), i, np.int32), cells, vector[cells]]
            yield pa.RecordBatch.from_arrays([pa.array(c) for c in columns], names=["model", "cell", "amount"])

    return count


def _answers(scored: pd.DataFrame, label: LabelData) -> Any:
    """Return probabilities in the order of the label's classes, or the predicted numbers, counted from its offset."""
    from pipeline.model.spec import PROBABILITY

    if label.stats:
        return scored["prediction"].to_numpy(np.float64) - label.stats.offset
    return scored[[PROBABILITY + name for name in label.classes]].to_numpy(np.float64)
