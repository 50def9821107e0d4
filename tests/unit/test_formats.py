"""Packaged models of older formats mean what they meant then; a newer format is refused by name."""

from __future__ import annotations

import copy
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from conftest import PACKAGED_MODELS, PENGUINS
from pipeline.config import load_config
from pipeline.data.packaged import load_scorer, read_model
from pipeline.model.formats import FORMAT, NewerFormat, upgrade
from pipeline.model.scorer import Scorer
from pipeline.model.spec import ModelSpec
from pipeline.runtime.errors import UserError
from recordmodel import neutral, without_folder

FORMAT_1 = next(folder for folder in PACKAGED_MODELS if folder.name == "format-1-penguins")
by_model = pytest.mark.parametrize("model", PACKAGED_MODELS, ids=lambda folder: folder.name)


def files(model: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    folder = model / "artifacts" / "model"
    return json.loads((folder / "model.json").read_text()), yaml.safe_load((folder / "pipeline.yaml").read_text())


def keys(tree: Any, prefix: str = "") -> set[str]:
    """Return the dotted names of all that a tree holds, sections included."""
    if not isinstance(tree, dict):
        return set()
    return {name for key, value in tree.items() for name in (f"{prefix}{key}", *keys(value, f"{prefix}{key}."))}


def test_every_older_format_has_a_model() -> None:
    written = {files(model)[0].get("format", 1) for model in PACKAGED_MODELS}
    assert written >= set(range(1, FORMAT)), "log a small model with the code of the format that is missing"


@by_model
def test_an_upgraded_model_states_every_setting_of_today(model: Path) -> None:
    """Else a setting that came later would get today's default: add it to the step that leads to its format."""
    today = keys(load_config(PENGUINS).model_dump(by_alias=True))
    free = {name for name in today if name.startswith(("source.options.", "tracking.gate.thresholds."))}
    assert keys(upgrade(*files(model))[1]) >= today - free


def test_an_option_that_is_not_honoured_any_more_is_kept_apart() -> None:
    model, settings = files(FORMAT_1)
    options = {"sep": ";", "nullValue": "NA", "locale": "de-DE", "ignoreLeadingWhiteSpace": True}
    given = {**settings, "source": {**settings["source"], "options": options}}
    upgraded, kept = upgrade(model, given)
    assert upgraded["former_options"] == ["ignoreLeadingWhiteSpace", "locale"]
    assert kept["source"]["options"] == {"sep": ";", "nullValue": "NA"}


@by_model
def test_an_upgraded_model_has_the_settings_it_was_trained_with(model: Path) -> None:
    before = copy.deepcopy(files(model))
    given = copy.deepcopy(before)
    upgraded, _ = upgrade(*given)
    assert given == before
    assert upgraded["format"] == FORMAT
    packaged = read_model(model / "artifacts" / "model")
    config = packaged.config
    validation = 0.3 if model.name < "format-5" else 0.15  # of the penguins when each was packaged
    assert (config.split.oversample, config.split.validation_fraction, config.training.epochs) == (4, validation, 100)
    assert "SELECT" in config.features_sql
    assert packaged.spec == Scorer(packaged.folder).spec == ModelSpec.from_json(packaged.spec.to_json())


def test_format_1_keeps_its_settings_of_recovery_whatever_today_s_defaults_are() -> None:
    model, settings = files(FORMAT_1)
    settings["run"] |= {"stall_timeout": 77, "max_restarts": 1, "elastic": {"min": 1, "max": 3}}
    settings["oversample"] = 9
    _, upgraded = upgrade(model, settings)
    assert upgraded["recovery"] == {"stall_timeout_s": 77, "max_restarts": 1, "elastic": {"min": 1, "max": 3}}
    assert upgraded["split"]["oversample"] == 9


@by_model
def test_a_model_before_format_3_counts_every_number_from_0(model: Path) -> None:
    written, _ = files(model)
    if written.get("format", 1) < 3:
        network = ModelSpec.from_json(json.dumps(written)).network
        assert {number.offset for number in network.numeric} | {network.label_offset} == {0.0}
        assert "offset" not in json.dumps(written)


def without(tree: dict[str, Any], name: str) -> dict[str, Any]:
    """Return a copy of the tree without the setting of this dotted name."""
    section, _, rest = name.partition(".")
    if rest:
        return {**tree, section: without(tree[section], rest)}
    return {key: value for key, value in tree.items() if key != section}


ADDED_WITHIN_FORMAT_1: dict[str, Any] = {
    "tracking.registered_model": None,
    "tracking.gate": {"metric": None, "min_improvement": 0.0, "thresholds": {}},
    "run.ranks_per_executor": 1,
    "run.network_interfaces": None,
    "run.data_dir": None,
    "run.cache": "auto",
    "run.stall_timeout": 600,
    "run.max_restarts": 3,
    "run.elastic": None,
    "training.checkpoint_every": 1,
    "training.checkpoint_keep": 2,
}
"""Settings that the first packaged models lack, and what they meant until format 2."""


def test_a_model_of_format_1_may_lack_the_settings_that_came_later(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(FORMAT_1 / "artifacts" / "model", folder)
    model, settings = files(FORMAT_1)
    early, late = settings, copy.deepcopy(settings)
    for name, meaning in ADDED_WITHIN_FORMAT_1.items():
        early = without(early, name)
        section, _, key = name.partition(".")
        late[section][key] = meaning
    assert upgrade(model, early) == upgrade(model, late)
    (folder / "pipeline.yaml").write_text(yaml.safe_dump(without(early, "oversample")))
    config = read_model(folder).config
    assert (config.recovery.stall_timeout_s, config.recovery.max_restarts, config.recovery.elastic) == (600, 3, None)
    assert (config.split.oversample, config.run.cache, config.training.epochs) == (1, "auto", 100)


@pytest.mark.parametrize("name", ["split.seed", "recovery", "features.categorical.0.unknown"])
def test_a_model_that_does_not_state_a_setting_of_today_is_refused(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(FORMAT_1 / "artifacts" / "model", folder)
    model, settings = upgrade(*files(FORMAT_1))
    if name.startswith("features"):
        del settings["features"]["categorical"][0]["unknown"]
    else:
        settings = without(settings, name)
    (folder / "model.json").write_text(json.dumps(model))
    (folder / "pipeline.yaml").write_text(yaml.safe_dump(settings))
    with pytest.raises(UserError, match=rf"pipeline\.yaml: does not state {re.escape(name)}: train the model again"):
        read_model(folder)


def with_format(written: object, folder: Path) -> Path:
    """Return a copy of a packaged model that states this format."""
    shutil.copytree(PACKAGED_MODELS[0] / "artifacts" / "model", folder)
    spec = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps({**spec, "format": written, "unheard_of": 1}))
    return folder


@pytest.mark.parametrize("read", [read_model, load_scorer])
def test_a_newer_format_is_refused_by_name(read: Callable[[Path], object], tmp_path: Path) -> None:
    folder = with_format(FORMAT + 1, tmp_path / "model")
    newer = f"model.json has format {FORMAT + 1}, but this version of pipeline knows formats 1 to {FORMAT}: "
    with pytest.raises(UserError, match=newer):
        read(folder)
    with pytest.raises(NewerFormat):
        Scorer(folder)


@pytest.mark.parametrize("read", [read_model, load_scorer])
@pytest.mark.parametrize("written", [0, -1, "two", True, 1.0, None])
def test_what_is_no_format_is_damaged(written: object, read: Callable[[Path], object], tmp_path: Path) -> None:
    folder = with_format(written, tmp_path / "model")
    damaged = f"cannot be read as a packaged model: model.json is damaged: its format is {written!r}, but must be"
    with pytest.raises(UserError, match=re.escape(damaged)):
        read(folder)


def test_the_scorer_needs_no_settings(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(PACKAGED_MODELS[0] / "artifacts" / "model", folder)
    (folder / "pipeline.yaml").unlink()
    assert load_scorer(folder).spec == ModelSpec.from_json((folder / "model.json").read_text())


def test_a_damaged_model_is_one_sentence(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(PACKAGED_MODELS[0] / "artifacts" / "model", folder)
    (folder / "model.json").write_text('{"network": 3}')
    with pytest.raises(UserError, match=r"cannot be read as a packaged model: ") as raised:
        read_model(folder)
    assert "\n" not in str(raised.value)


@by_model
def test_a_fixture_names_no_path_of_the_machine_that_made_it(model: Path) -> None:
    assert not re.search(r"(?m)(^|[\s'\"])(file:|/)\S", (model / "MLmodel").read_text())


def test_the_paths_of_a_new_fixture_are_neutral() -> None:
    made = (
        "artifact_path: file:///somewhere/mlartifacts/models/m-1/artifacts\n"
        "flavors:\n  python_function:\n    artifacts:\n      model:\n        path: artifacts/model\n"
        "        uri: /scratch/model\n    model_code_path: /somewhere/pipeline/serving.py\n"
    )
    assert yaml.safe_load(neutral(made)) == {
        "artifact_path": "artifacts",
        "flavors": {
            "python_function": {
                "artifacts": {"model": {"path": "artifacts/model", "uri": "model"}},
                "model_code_path": "serving.py",
            }
        },
    }
    settings = "run:\n  num_proc: auto\n  work_dir: /scratch/work\n  data_dir: null\n"
    assert yaml.safe_load(without_folder(settings))["run"] == {
        "num_proc": "auto",
        "work_dir": ".work",
        "data_dir": None,
    }


@by_model
def test_no_fixture_names_the_folder_that_its_job_has_worked_in(model: Path) -> None:
    assert files(model)[1]["run"]["work_dir"] == ".work"
