"""A packaged model's folder as a record or as a scorer: the only place that reads one, whatever its format."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from pipeline.config import Config
from pipeline.config.load import validate
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
        model = json.loads((folder / "model.json").read_text(encoding="utf-8"))
        settings = yaml.safe_load(file.read_text(encoding="utf-8"))
        model, settings = upgrade(model, settings)
        spec = ModelSpec.from_tree(model)
    config = validate(settings, str(file))
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
        return Scorer(folder)


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
