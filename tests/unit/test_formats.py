"""Packaged models of older formats mean what they meant then; a newer format is refused by name."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from conftest import PACKAGED_MODELS, PENGUINS
from pipeline.config import load_config
from pipeline.data.packaged import read_model
from pipeline.model.formats import FORMAT, NewerFormat, upgrade
from pipeline.model.scorer import Scorer
from pipeline.model.spec import ModelSpec
from pipeline.runtime.errors import UserError

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


@by_model
def test_an_upgraded_model_has_the_settings_it_was_trained_with(model: Path) -> None:
    before = copy.deepcopy(files(model))
    given = copy.deepcopy(before)
    upgraded, _ = upgrade(*given)
    assert given == before
    assert upgraded["format"] == FORMAT
    packaged = read_model(model / "artifacts" / "model")
    config = packaged.config
    assert (config.split.oversample, config.split.validation_fraction, config.training.epochs) == (4, 0.3, 100)
    assert "SELECT" in config.features_sql
    assert packaged.spec == Scorer(packaged.folder).spec == ModelSpec.from_json(packaged.spec.to_json())


def test_format_1_keeps_its_settings_of_recovery_whatever_today_s_defaults_are() -> None:
    model, settings = files(Path(__file__).parents[1] / "models" / "format-1-penguins")
    settings["run"] |= {"stall_timeout": 77, "max_restarts": 1, "elastic": {"min": 1, "max": 3}}
    settings["oversample"] = 9
    _, upgraded = upgrade(model, settings)
    assert upgraded["recovery"] == {"stall_timeout_s": 77, "max_restarts": 1, "elastic": {"min": 1, "max": 3}}
    assert upgraded["split"]["oversample"] == 9


@pytest.mark.parametrize("written", [FORMAT + 1, 0, "two"])
def test_a_newer_format_is_refused_by_name(written: object, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(PACKAGED_MODELS[0] / "artifacts" / "model", folder)
    spec = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps({**spec, "format": written, "unheard_of": 1}))
    with pytest.raises(UserError, match=f"model.json has format {written}, but this version of pipeline knows formats"):
        read_model(folder)
    with pytest.raises(NewerFormat):
        Scorer(folder)


def test_a_damaged_model_is_one_sentence(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(PACKAGED_MODELS[0] / "artifacts" / "model", folder)
    (folder / "model.json").write_text('{"network": 3}')
    with pytest.raises(UserError, match=r"cannot be read as a packaged model: ") as raised:
        read_model(folder)
    assert "\n" not in str(raised.value)
