"""Packaged models of older formats: what their files meant then, in the words of today.

A packaged model has two files with a format: `model.json`, which states it, and `pipeline.yaml` beside it, which holds
every setting that there was. Whoever adds, moves or drops a field or a setting

1. raises ``FORMAT`` and adds a function to ``_STEPS`` that turns the format before into the new one. A field that the
   format before lacks gets the value that it meant there, which need not be today's default;
2. adds a small model of the format before to `tests/models`, logged by that format's own code
   (`tests/recordmodel.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

FORMAT = 2

Tree = dict[str, Any]


class NewerFormat(ValueError):
    """A model was packaged by a newer version of this project."""


def upgrade(model: Mapping[str, Any], settings: Mapping[str, Any]) -> tuple[Tree, Tree]:
    """Return a packaged model's `model.json` and `pipeline.yaml` in today's format; the arguments stay as they are.

    ``settings`` may be empty where only the model is of interest.

    Raises:
        NewerFormat: the model's format is newer than this version knows.
    """
    written = model.get("format", 1)  # format 1 did not state it
    if not isinstance(written, int) or not 1 <= written <= FORMAT:
        raise NewerFormat(
            f"model.json has format {written}, but this version of pipeline knows formats 1 to {FORMAT}: "
            "install the version that packaged the model, or a newer one"
        )
    upgraded = dict(model), dict(settings)
    for step in _STEPS[written - 1 :]:
        upgraded = step(*upgraded)
    return {**upgraded[0], "format": FORMAT}, upgraded[1]


def _from_1_to_2(model: Tree, settings: Tree) -> tuple[Tree, Tree]:
    """Move three settings of `run` to `recovery`, and `oversample` to `split`; the model itself is the same."""
    if not settings:
        return model, settings
    run, split = dict(settings["run"]), dict(settings["split"])
    split["oversample"] = settings["oversample"]
    recovery = {
        "stall_timeout_s": run.pop("stall_timeout"),
        "max_restarts": run.pop("max_restarts"),
        "elastic": run.pop("elastic"),
    }
    kept = {name: section for name, section in settings.items() if name != "oversample"}
    return model, {**kept, "run": run, "split": split, "recovery": recovery}


_STEPS: tuple[Callable[[Tree, Tree], tuple[Tree, Tree]], ...] = (_from_1_to_2,)
"""The step at position i turns format i + 1 into format i + 2."""
