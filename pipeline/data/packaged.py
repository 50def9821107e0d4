"""A packaged model's folder as a record: the only place that reads one, whatever its format."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import yaml

from pipeline.config import Config
from pipeline.config.load import validate
from pipeline.model.formats import NewerFormat, upgrade
from pipeline.model.spec import ModelSpec
from pipeline.runtime.errors import UserError, one_line


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
        UserError: the format is newer than this version knows, or a file is missing or damaged.
    """
    file = folder / "pipeline.yaml"
    try:
        model = json.loads((folder / "model.json").read_text(encoding="utf-8"))
        settings = yaml.safe_load(file.read_text(encoding="utf-8"))
        model, settings = upgrade(model, settings)
        spec = ModelSpec.from_tree(model)
    except NewerFormat as error:
        raise UserError(f"{folder}: {error}") from None
    except Exception as error:  # a damaged file can raise anything
        raise UserError(f"{folder}: cannot be read as a packaged model: {one_line(error)}") from None
    return PackagedModel(folder, spec, validate(settings, str(file)))
