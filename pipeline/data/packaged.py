"""A packaged model's folder as a record or as a scorer: the only place that reads one, whatever its format."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config import Config
from pipeline.config.load import validate
from pipeline.data import model_checks
from pipeline.model.formats import NewerFormat, upgrade
from pipeline.model.spec import ModelSpec
from pipeline.runtime.errors import UserError, one_line

if TYPE_CHECKING:
    from pipeline.model.scorer import Scorer


@dataclass(frozen=True)
class PackagedModel:
    """What the driver needs of a packaged model; its weights stay on disk."""

    folder: Path
    """Holds model.json, pipeline.yaml, features.sql and weights.safetensors."""
    spec: ModelSpec
    config: Config
    """The settings of its training; ``config.features_sql`` is the model's own features.sql."""


def read_model(folder: Path) -> PackagedModel:
    """Read a packaged model's folder, of today's format or an older one.

    Raises:
        UserError: the format is newer than this version knows, a file is missing or damaged, or a setting is missing.
    """
    file = folder / "pipeline.yaml"
    with _one_sentence(folder):
        model = model_checks.parse_json(model_checks.read_text(folder / "model.json"))
        settings = model_checks.parse_yaml(model_checks.read_text(file))
        model_checks.read_text(folder / "features.sql")
        model, settings = upgrade(model, settings)
        spec = _checked(model, folder)
    config = validate(settings, str(file))
    if config.features.sql != "features.sql":  # no other file of this machine is read for a model
        raise UserError(f"{file}: features.sql: must be features.sql, not {config.features.sql}")
    if unstated := list(_unstated(config.model_dump(by_alias=True), settings)):
        # today's default need not be what the model was trained with
        raise UserError(f"{file}: does not state {', '.join(unstated)}: train the model again")
    return PackagedModel(folder, spec, config)


def load_scorer(folder: Path) -> Scorer:
    """Load a packaged model, of today's format or an older one, with its weights; its pipeline.yaml is not needed.

    Raises:
        UserError: the format is newer than this version knows, or a file is missing or damaged.
    """
    from pipeline.model.scorer import Scorer  # it imports torch

    with _one_sentence(folder):
        model = model_checks.parse_json(model_checks.read_text(folder / "model.json"))
        _checked(upgrade(model, {})[0], folder)
        return Scorer(folder)


def _checked(model: Mapping[str, Any], folder: Path) -> ModelSpec:
    """Return the description in a model.json of today's format, once all of it has been checked."""
    spec = ModelSpec.from_tree(model)
    if json.loads(spec.to_json()) != model:
        raise ValueError("model.json holds something else than it is read as, such as a mapping in a list's place")
    model_checks.check_spec(spec, folder / "weights.safetensors")
    return spec


@contextmanager
def _one_sentence(folder: Path) -> Iterator[None]:
    try:
        yield
    except NewerFormat as error:
        raise UserError(f"{folder}: {error}") from None
    except Exception as error:  # a damaged file can raise anything
        raise UserError(f"{folder}: cannot be read as a packaged model: {one_line(error)}") from None


def _unstated(whole: Any, stated: Any, prefix: str = "") -> Iterator[str]:
    """Yield the names of the settings in ``whole`` that ``stated`` lacks."""
    if isinstance(whole, dict):
        for key, value in whole.items():
            if isinstance(stated, dict) and key in stated:
                yield from _unstated(value, stated[key], f"{prefix}{key}.")
            else:
                yield f"{prefix}{key}"
    elif isinstance(whole, list) and isinstance(stated, list):
        for position, (value, beside) in enumerate(zip(whole, stated, strict=True)):
            yield from _unstated(value, beside, f"{prefix}{position}.")
