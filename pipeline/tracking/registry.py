"""MLflow's model registry: versions of a name, and the alias of the version in use."""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pipeline.runtime.console import log
from pipeline.runtime.errors import UserError, hide_password, one_line
from pipeline.tracking import runs, store
from pipeline.tracking.store import connect

CHAMPION = "champion"


def _download_model(uri: str, model: str, scratch: str) -> tuple[Path, str]:
    """Copy a logged model (`models:/…`, `runs:/…`) to ``scratch``; return its folder, and its version or its id."""
    import mlflow

    if alias := re.fullmatch(r"models:/([^/@]+)@([^/@]+)", model):
        # resolved once: an alias may move between two calls
        model = f"models:/{alias[1]}/{connect(uri).get_model_version_by_alias(alias[1], alias[2]).version}"
    with store.active(uri):
        folder = Path(mlflow.artifacts.download_artifacts(model, dst_path=scratch))
        if registered := re.fullmatch(r"models:/[^/@]+/(\d+)", model):
            return folder, registered[1]
        info = mlflow.models.get_model_info(str(folder))
    return folder, str(getattr(info, "model_id", None) or info.model_uuid)


def register(uri: str, run_id: str, model_uri: str, name: str) -> str:
    """Register a run's model as the next version of ``name``; return the version. A new name is created.

    A run is registered once, however often the gate judges it: a tag of the run holds its version. (If somebody has
    deleted that version, the run is registered again.)
    """
    import mlflow

    tags = connect(uri).get_run(run_id).data.tags
    if tags.get("gate.model") == name and _exists(uri, name, tags.get("gate.version")):
        return str(tags["gate.version"])
    with store.active(uri):
        version = str(mlflow.register_model(model_uri, name).version)
    runs.log_outcome(uri, run_id, {}, {"gate.model": name, "gate.version": version})
    return version


def champion_version(uri: str, name: str) -> str | None:
    """Return the version that the alias `champion` of a registered model names, if there is one."""
    version = connect(uri).get_registered_model(name).aliases.get(CHAMPION)
    if version is None:
        return None
    if not _exists(uri, name, version):
        log.warning(
            "version %s of %s was deleted, and the alias %s still names it: no champion", version, name, CHAMPION
        )
        return None
    return str(version)


def _exists(uri: str, name: str, version: str | int | None) -> bool:
    """Return whether a registered model has this version."""
    from mlflow.exceptions import MlflowException

    if version is None:
        return False
    try:
        connect(uri).get_model_version(name, str(version))
    except MlflowException as error:
        # the second one: what is no number
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise  # the store is away, or refuses
        return False
    return True


def count_attempt(uri: str, name: str, version: str, champion: str, sketch: Sequence[int]) -> int:
    """Return how many versions were compared with champions on about these test rows, this one included.

    ``sketch`` holds the smallest hashes of the test rows. The count begins anew when less than half of them are those
    of the rows with which it began: a source that grows has most rows of yesterday. The champion's tags `gate_tries`
    and `gate_rows` keep count and hashes, and so do those of each version that may become the champion. A version that
    is compared again counts once.
    """
    client = connect(uri)
    own, kept = (client.get_model_version(name, v).tags or {} for v in (version, champion))
    if own.get("gate_attempt"):
        return int(own["gate_attempt"])
    rows = [f"{value & (2**64 - 1):x}" for value in sketch]
    known = set(kept.get("gate_rows", "").split())
    if len(known & set(rows)) >= len(rows) / 2:
        number, rows = int(kept["gate_tries"]) + 1, kept["gate_rows"].split()
    else:
        number = 1
    tags = {"gate_tries": str(number), "gate_rows": " ".join(rows)}
    tag_version(uri, name, champion, tags)
    tag_version(uri, name, version, {**tags, "gate_attempt": str(number)})
    return number


def overrule(uri: str, name: str, version: str, reason: str) -> str | None:
    """Let the alias `champion` name a version because a person says so; return the champion before.

    Raises:
        UserError: there is no such model or version.
    """
    _check_registered(uri, name)
    if not _exists(uri, name, version):
        raise UserError(f"model {name}: has no version {version}; MLflow's page of the model lists them")
    before = champion_version(uri, name)
    follows = {"gate_champion_version": before} if before not in (None, version) else {}
    _move_by_hand(uri, name, version, before, {"gate_overruled": reason, **follows})
    return before


def roll_back(uri: str, name: str, reason: str) -> tuple[str, str]:
    """Let the alias `champion` name the champion before today's; return both versions, the new one first.

    Raises:
        UserError: none is known.
    """
    _check_registered(uri, name)
    version = champion_version(uri, name)
    if version is None:
        raise UserError(f"model {name}: has no champion, so there is nothing to roll back")
    before = (connect(uri).get_model_version(name, version).tags or {}).get("gate_champion_version")
    if before is None or not _exists(uri, name, before):
        gone = f"version {before}, the champion before, was deleted" if before else "no champion before it is known"
        raise UserError(f"model {name}: {gone}; name a version with --promote")
    _move_by_hand(uri, name, before, version, {"gate_overruled": reason})
    return before, version


def _move_by_hand(uri: str, name: str, version: str, before: str | None, tags: dict[str, str]) -> None:
    """Move the alias; say when in the tags. How often models were compared on the test rows is not forgotten."""
    tags["gate_overruled_at"] = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
    if before is not None:
        kept = connect(uri).get_model_version(name, before).tags or {}
        tags |= {key: kept[key] for key in ("gate_tries", "gate_rows") if key in kept}
    tag_version(uri, name, version, tags)
    promote(uri, name, version)


def _check_registered(uri: str, name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        connect(uri).get_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        where = hide_password(uri)
        raise UserError(f"model {name}: is not registered in {where}; train first, or check tracking.uri") from None


def promote(uri: str, name: str, version: str) -> None:
    """Let the alias `champion` name this version."""
    connect(uri).set_registered_model_alias(name, CHAMPION, version)


def tag_version(uri: str, name: str, version: str, tags: dict[str, str]) -> None:
    """Put tags on a version of a registered model.

    Unity Catalog takes none of `. , - = / :` in a key and no more than 1,000 characters in a value.
    """
    client = connect(uri)
    for key, text in tags.items():
        client.set_model_version_tag(name, version, key, text[:1000])


@contextmanager
def fetched_model(model: str, tracking_uri: str) -> Iterator[tuple[Path, str]]:
    """Yield the folder with the packaged model's files, and its version (or id, if it is not registered).

    The folder is a copy, and goes with the block.

    Raises:
        UserError: the store has no such model, or it is not one of this pipeline.
    """
    store.configure_mlflow()
    from mlflow.exceptions import MlflowException

    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        try:
            folder, version = _download_model(tracking_uri, model, scratch)
        except (MlflowException, OSError) as error:
            if store.is_down(error) and tracking_uri.startswith("http"):
                raise
            where = hide_password(tracking_uri)
            advice = "check the name and --tracking-uri"
            raise UserError(f"model {model}: cannot be loaded from {where}: {one_line(error)}; {advice}") from None
        packaged = folder / "artifacts" / "model"
        if not (packaged / "model.json").exists():
            raise UserError(f"model {model}: is not a model of this pipeline: it holds no artifacts/model/model.json")
        log.info("model %s, version %s (%.1f s)", model, version, time.perf_counter() - begin)
        yield packaged, version
