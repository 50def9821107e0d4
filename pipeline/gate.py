"""The champion gate: a scheduled retrain never replaces a better model with a worse one.

Candidate and champion are packaged models. Both score the raw rows of the same test split, each with its own
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
from pipeline.evaluation.decision import Decision, Verdict, decide
from pipeline.evaluation.holdout import Measured
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
    _registered_model(config)
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


def overrule(
    config_files: ConfigFiles, overrides: Sequence[str] = (), version: str | None = None, reason: str = ""
) -> dict[str, Any]:
    """Make a version the champion because a person says so; without ``version`` the champion before today's.

    The reason becomes a tag of the version. Return the summary for the last line of stdout.

    Raises:
        UserError: there is no such version, or no champion before, or a version has no reason.
    """
    if version is not None and not reason.strip():
        raise UserError("--promote needs --reason TEXT: it becomes a tag of the version, for whoever asks later")
    config = load_config(config_files, overrides)
    name = _registered_model(config)
    store.configure_mlflow()
    uri = store.tracking_uri(config)
    store.open_store(config, uri)()
    with store.delivery_errors(uri):
        if version is not None:
            before = registry.overrule(uri, name, version, reason)
        else:
            version, before = registry.roll_back(uri, name, reason := reason or "rolled back")
    log.info("version %s of %s is the champion now, after version %s: %s", version, name, before or "–", reason)
    return {"status": "ok", "model": name, "version": version, "champion_version": before, "reason": reason}


def _registered_model(config: Config) -> str:
    if not config.tracking.registered_model:
        raise config.mistake("tracking.registered_model", "is missing: set the name whose champion the gate decides on")
    return config.tracking.registered_model


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

    attempt = 1
    comparison = compare(spark, config, uri, run, champion_version, trust_model)
    measured = comparison.measured
    if comparison.problem:
        verdict = Verdict("blocked", comparison.problem)
    else:
        assert measured
        if champion_version is not None and measured.paired.rows >= config.tracking.gate.min_rows:
            attempt = registry.count_attempt(uri, name, version, champion_version, measured.sketch)
        verdict = decide(config, measured.candidate, measured.paired, champion_version, attempt)
    if verdict.decision == "promoted" and (now := registry.champion_version(uri, name)) != champion_version:
        # MLflow has no compare-and-set: a promotion by another job between this line and ours goes unnoticed
        verdict = Verdict("blocked", f"version {now} has become the champion meanwhile; run again to compare with it")

    candidate, champion = comparison.metrics(metric)
    decision = Decision(
        **asdict(verdict),
        metric=metric,
        candidate=candidate,
        champion=champion,
        model=name,
        version=version,
        champion_version=champion_version,
        rows=measured.paired.rows if measured and (comparison.is_beside_champion or not champion_version) else 0,
        attempt=attempt,
    )
    _log_decision(uri, run.run_id, decision)
    if decision.decision == "promoted":
        registry.promote(uri, name, version)
    log.info("%s version %s is %s: %s", name, version, decision.decision, decision.reason)
    return decision


@dataclass(frozen=True)
class Comparison:
    """Candidate and champion on the same test rows."""

    measured: Measured | None
    """None if not even the candidate can be measured."""
    is_beside_champion: bool
    """Whether the champion is what the candidate is measured beside."""
    problem: str | None
    """Why the numbers cannot be compared."""

    def metrics(self, name: str) -> tuple[float | None, float | None]:
        """Return a metric of both on the compared rows; of the candidate on all test rows if no champion is beside."""
        if self.measured is None:
            return None, None
        if not self.is_beside_champion or self.measured.paired.rows == self.measured.candidate.rows:
            reference = self.measured.paired.reference if self.is_beside_champion else None
            return _finite(self.measured.candidate.metrics[name]), _finite(reference)
        return _finite(self.measured.paired.candidate), _finite(self.measured.paired.reference)


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
    if run.data.measured_split != "test":
        unmeasured = "there is no test row, so nothing measures the model: set split.test_fraction, or mark test rows "
        return Comparison(None, False, f"{unmeasured}in split.column; jobs/gate.py --promote overrules")
    problem: str | None = None
    champion: Path | None = None
    with ExitStack() as copies:
        candidate, _ = copies.enter_context(registry.fetched_model(run.model_uri, uri))
        _check_functions(spark, candidate, trust_model)
        if champion_version is not None:
            try:
                name = f"models:/{config.tracking.registered_model}/{champion_version}"
                folder, _ = copies.enter_context(registry.fetched_model(name, uri))
                check_fit(spark, config, run.data, folder)
                _check_functions(spark, folder, trust_model)
                champion = folder
            except UserError as error:
                problem = f"the candidate cannot be compared with the champion, version {champion_version}: {error}"
        measured, failure = _try_to_evaluate(spark, config, run.data, candidate, champion)
        if measured is None and champion is not None:
            champion = None
            measured, _ = _try_to_evaluate(spark, config, run.data, candidate, None)
    problem = problem or failure
    if problem is None and measured is not None:
        problem = measured.differences or _mismatch(config.gate_metric, run.metrics, measured.candidate, run.data)
    if problem is None and measured is not None and measured.other_labels:
        problem = f"the champion, version {champion_version}, predicts another label: its features.sql makes another "
        problem += f"value, or none, of {measured.other_labels} test row(s); jobs/gate.py --promote overrules"
    return Comparison(measured, champion is not None, problem)


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
    trained = read_model(champion).config
    theirs_by_name = {field.name.lower(): field.dataType for field in source_csv.source_schema(spark, trained).fields}
    for name in _split_columns(trained):
        kind = theirs_by_name[name.lower()].simpleString().upper() if name.lower() in theirs_by_name else None
        if kind is None or types.get(name.lower()) != kind:
            problem = f"its training split the rows by '{name}' as {kind}, but source.schema has no such column"
            raise UserError(f"{problem}: nothing tells which rows it knows; {by_hand}")


def _split_columns(config: Config) -> list[str]:
    """Return the columns of the CSV that decide about a row's split."""
    return [*config.split.needed_columns, *([config.split.column] if config.split.column else [])]


def _check_functions(spark: SparkSession, model: Path, trusted: bool) -> None:
    """Raise UserError if a model's features.sql may not run, or Spark and the model may compute it unlike."""
    try:
        features_sql.check_packaged(spark, read_model(model), trusted)
    except UserError as error:
        advice = "" if trusted else "; run jobs/gate.py with --trust-model to compare with it all the same"
        raise UserError(f"{error}{advice}") from None


def _try_to_evaluate(
    spark: SparkSession, config: Config, data: Manifest, candidate: Path, champion: Path | None
) -> tuple[Measured | None, str | None]:
    """Evaluate, or return in one line why that fails: the failure must not cost a finished training."""
    try:
        return holdout.evaluate(spark, config, data, candidate, champion), None
    except Exception as error:  # Spark, a damaged model or a changed source can raise anything
        who = "candidate and champion" if champion else "candidate"
        cause = source_csv.source_mistake(spark, config, error) or source_csv.sentence(error).split("Traceback")[0]
        log.warning("scoring %s failed", who, exc_info=not isinstance(error, UserError))
        return None, f"{who} cannot be measured: {str(cause)[:500]}"


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


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
