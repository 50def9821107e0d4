"""From YAML files and ``--set key=value`` to validated settings, or one sentence that says what is wrong with them."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from pipeline.config import mistakes, presets, written
from pipeline.config.base import Key, Origin, depth, origin_of
from pipeline.config.settings import Config
from pipeline.config.written import Tree, Written
from pipeline.runtime.errors import UserError, hide_password, reason

ConfigFiles = str | Path | Sequence[str | Path]
"""One ``--config``, or several that overlay each other from left to right."""

MOVED = {
    "oversample": "split.oversample",
    "run.stall_timeout": "recovery.stall_timeout_s",
    "run.max_restarts": "recovery.max_restarts",
    "run.elastic": "recovery.elastic",
}
"""Settings that have another name today: the old name, the new one."""


def load_config(files: ConfigFiles, overrides: Sequence[str] = ()) -> Config:
    """Read the files, apply ``overrides`` (each ``"a.b=value"``, the value in YAML), and validate.

    A later file overlays the ones before it: mappings merge, lists and plain values replace. An overlay may also be
    given in place, as a YAML mapping in braces: ``{tracking: {uri: databricks}}``. The first one is a file. Its folder
    names the use case, and relative paths in `source` and `features` start there, also when an overlay holds them.

    Raises:
        UserError: a file cannot be read, is not YAML, or does not fit; one sentence with file, key and nearest key.
    """
    origins = [_read(file, number) for number, file in enumerate(_as_list(files), 1)]
    tree: Tree = functools.reduce(_overlay, [origin.tree for origin in origins])
    for override in overrides:
        tree, path = _override(tree, override)
        origins.append(Origin(_short(hide_password(f"--set {override}")), path=path))
        _refuse_old_names(tree, f"--set {override}")
    return _validate(presets.fill(tree), origins)


def validate(tree: Tree, name: str) -> Config:
    """Return the settings that ``tree``, read from the file ``name``, holds.

    Raises:
        UserError: the tree does not fit; one sentence with file, key and nearest key.
    """
    return _validate(tree, [Origin(name, tree)])


def _validate(tree: Tree, origins: Sequence[Origin]) -> Config:
    try:
        config = Config.model_validate(tree)
    except ValidationError as error:
        sentence, key = mistakes.explain(error)
        raise UserError(f"{origin_of(key, origins)}: {sentence}") from None
    except UnicodeEncodeError:
        raise UserError(f"{origins[-1].name}: holds half of a character, which no text can have") from None
    config._origins = tuple(origins)
    return config


def _as_list(files: ConfigFiles) -> Sequence[str | Path]:
    several = [files] if isinstance(files, str | Path) else files
    if not several or _is_in_place(several[0]):
        raise UserError("--config: must begin with a file: its folder names the use case")
    return several


def _is_in_place(file: str | Path) -> bool:
    return isinstance(file, str) and file.lstrip().startswith("{")


def _read(file: str | Path, number: int) -> Origin:
    """Return what one file holds; ``number`` is its position after --config."""
    origin = f"the overlay given as --config number {number}" if _is_in_place(file) else str(file)
    try:
        text = str(file) if _is_in_place(file) else Path(file).read_text(encoding="utf-8")
        tree = written.read(text)
    except (OSError, UnicodeDecodeError) as error:
        # the Java of spark-submit puts a ? in the place of a character that the locale does not have
        lost = "; if its name holds other letters than ASCII, set LC_ALL=C.UTF-8" if "?" in origin else ""
        raise UserError(f"{origin}: cannot be read: {reason(error)}{lost}") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that does not exist
        raise UserError(f"{origin}: is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict):
        raise UserError(f"{origin}: must hold a mapping with the keys {', '.join(mistakes.keys(Config))}")
    _refuse_old_names(tree, origin)
    return Origin(origin, tree)


def _short(text: str) -> str:
    """Return ``text`` on one line, cut to 80 characters."""
    line = " ".join(text.split())
    return line if len(line) <= 80 else f"{line[:79]}…"


def _overlay(below: Tree, above: Tree) -> Tree:
    """Return ``below`` with what ``above`` adds to it or replaces in it; neither is changed."""
    merged = {**below, **above}
    for key in below.keys() & above.keys():
        if isinstance(below[key], dict) and isinstance(above[key], dict):
            merged[key] = _overlay(below[key], above[key])
    return merged


def _override(tree: Tree, override: str) -> tuple[Tree, Key]:
    """Return ``tree`` with one ``--set``, and the key that it sets.

    List items go by their position: `features.numeric.0.scaling=none`.
    This is not OmegaConf's dotlist: it reaches list items, takes a user's `${…}` literally, and names the option.
    """
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise UserError(f"--set {override}: must look like --set training.epochs=5")
    try:
        value = written.read(text)
    except (yaml.YAMLError, ValueError):
        raise UserError(f"--set {override}: '{text}' is not a YAML value") from None

    path: list[int | str] = []

    def replaced(node: Any, parts: list[str]) -> Any:
        if not parts:
            return value
        part, *rest = parts
        if isinstance(node, Written) and node.value is None:  # an empty section
            node = None
        if isinstance(node, list) and part.isdecimal() and int(part) < len(node):
            place = int(part)
            path.append(place)
            return [*node[:place], replaced(node[place], rest), *node[place + 1 :]]
        if node is None or isinstance(node, dict):
            path.append(part)
            return {**(node or {}), part: replaced((node or {}).get(part), rest)}
        raise UserError(f"--set {override}: '{part}' is not inside a mapping or list of the file")

    return dict(replaced(tree, key.split("."))), path


def _refuse_old_names(tree: Tree, origin: str) -> None:
    for old, new in MOVED.items():
        if depth(tree, parts := old.split(".")) == len(parts):
            raise UserError(f"{origin}: {old} is now {new}: write it under its new name")
