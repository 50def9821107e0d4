"""The champion gate: a scheduled retrain never replaces a better model with a worse one.

Candidate and champion are packaged models. Both score the raw rows of the same validation split, each with its own
features.sql, so the gate compares their answers, however differently the two are made.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config import Config, ConfigFiles, load_config
from pipeline.data import features_sql, shards, source_csv
from pipeline.data.manifest import Manifest
from pipeline.data.packaged import load_scorer, read_model
from pipeline.evaluation import holdout
from pipeline.evaluation.decision import Decision, Verdict, decide, finite_metric
from pipeline.evaluation.metrics import Evaluation
from pipeline.launch import executor_checks
from pipeline.launch.start import open_job
from pipeline.runtime.console import Stopwatch, log
from pipeline.runtime.errors import UserError, one_line
from pipeline.tracking import registry, runs, store

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_TOLERANCE = 1e-5  # ranks and Spark add the same floats in another order


def judge(
    config_files: ConfigFiles, overrides: Sequence[str] = (), run_id: str | None = None, trust_model: bool = False
) -> dict[str, Any]:
    """Let the gate decide about a training that is in the store; return the summary for the last line of stdout.

    Without ``run_id`` it is the newest finished one of the experiment, under `tracking.run_name` if that is set. With
    ``trust_model`` the champion may be of an older format and use functions that are no longer allowed.

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
        decision = judge_candidate(spark, config, uri, run, trust_model)
    return {
        "status": "ok",
        "run_id": run.run_id,
        "model_uri": run.model_uri,
        "gate": asdict(decision),
        "timing_s": {"total": watch.total()},
    }


def judge_candidate(
    spark: SparkSession, config: Config, uri: str, run: runs.LoggedRun, trust_model: bool = False
) -> Decision:
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

    comparison = compare(spark, config, uri, run, champion_version, trust_model)
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
    spark: SparkSession,
    config: Config,
    uri: str,
    run: runs.LoggedRun,
    champion_version: str | None,
    trust_model: bool = False,
) -> Comparison:
    """Evaluate the run's packaged model and the champion, if there is one.

    The candidate must be as good as the ranks have measured it on the same rows (``run.metrics``).
    """
    models, problem = {}, None
    with ExitStack() as copies:
        models["candidate"], _ = copies.enter_context(registry.fetched_model(run.model_uri, uri))
        _check_functions(spark, models["candidate"], trust_model)
        if champion_version is not None:
            try:
                champion = f"models:/{config.tracking.registered_model}/{champion_version}"
                folder, _ = copies.enter_context(registry.fetched_model(champion, uri))
                check_fit(spark, config, run.data, folder)
                _check_functions(spark, folder, trust_model)
                models["champion"] = folder
            except UserError as error:
                problem = f"the candidate cannot be compared with the champion, version {champion_version}: {error}"
        evaluations, failure = _try_to_evaluate(spark, config, run.data, models)
        if not evaluations and "champion" in models:
            evaluations, _ = _try_to_evaluate(spark, config, run.data, {"candidate": models["candidate"]})
    problem = problem or failure
    candidate = evaluations.get("candidate")
    if problem is None and candidate is not None:
        problem = _mismatch(config.gate_metric, run.metrics, candidate, run.data)
    return Comparison(candidate, evaluations.get("champion"), problem)


def check_fit(spark: SparkSession, config: Config, data: Manifest, champion: Path) -> None:
    """Raise UserError unless this packaged model can score this configuration's raw rows and has its classes."""
    by_hand = "move the alias by hand if that is meant"
    try:
        spec = load_scorer(champion).spec
    except Exception as error:  # a damaged model's files can raise anything
        raise UserError(f"it cannot be loaded: {type(error).__name__}: {one_line(error)}") from None
    if sorted(spec.classes) != sorted(data.label.classes):
        theirs, ours = (", ".join(names) or "a number" for names in (spec.classes, data.label.classes))
        raise UserError(f"it predicts {theirs}, but the data have {ours}; {by_hand}")
    schema = source_csv.source_schema(spark, config)
    types = {field.name.lower(): field.dataType.simpleString().upper() for field in schema.fields}
    for raw in spec.raw:
        declared = types.get(raw.name.lower())
        if raw.needed and declared != raw.type:
            problem = f"has it as {declared}" if declared else "has no such column"
            raise UserError(f"it needs the column '{raw.name}' as {raw.type}, but source.schema {problem}; {by_hand}")
    read_model(champion)


def _check_functions(spark: SparkSession, model: Path, trusted: bool) -> None:
    """Raise UserError if a model's features.sql may not run, or Spark and the model may compute it unlike."""
    try:
        features_sql.check_packaged(spark, read_model(model), trusted)
    except UserError as error:
        advice = "" if trusted else "; run jobs/gate.py with --trust-model to compare with it all the same"
        raise UserError(f"{error}{advice}") from None


def _try_to_evaluate(
    spark: SparkSession, config: Config, data: Manifest, models: dict[str, Path]
) -> tuple[dict[str, Evaluation], str | None]:
    """Evaluate, or return in one line why that fails: the failure must not cost a finished training."""
    try:
        return holdout.evaluate(spark, config, data, models)
    except Exception as error:  # Spark, a damaged model or a changed source can raise anything
        cause = source_csv.source_mistake(spark, config, error) or source_csv.sentence(error).split("Traceback")[0]
        log.warning("scoring %s failed", " and ".join(models), exc_info=not isinstance(error, UserError))
        return {}, f"{' and '.join(models)} cannot be measured: {str(cause)[:500]}"


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
