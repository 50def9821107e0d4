"""Whether the files of a packaged model, which may come from a stranger, hold what such files can hold.

All values are checked before any is used: against the types of their records, against bounds, and against each other.
A model's own code and its pickles are never run here: `jobs/predict.py` and the gate run this project's code.
"""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import yaml

from pipeline.model.dialect.entry import ENTRIES
from pipeline.model.dialect.tree import COLUMN, LITERAL, Node
from pipeline.model.spec import HASH_VERSION, ModelSpec, NetSpec
from pipeline.runtime.records import Unfit, check_bounds, check_class, check_type

_MOST_BYTES = {"model.json": 256 * 2**20, "pipeline.yaml": 2**20, "features.sql": 2**20}
_DEEPEST = 200
_MOST_KNOTS = 4_096  # each column has a row of as many as the one with most
_LARGEST = 3.4e38  # float32


def read_text(file: Path) -> str:
    """Return the text of one of a model's files. Raises OSError, UnicodeDecodeError, and Unfit if it is too long."""
    size, most = file.stat().st_size, _MOST_BYTES[file.name]
    if size > most:
        raise Unfit(f"{file.name} has {size:,} bytes; at most {most:,} are read")
    return file.read_text(encoding="utf-8")


def parse_json(text: str) -> dict[str, Any]:
    """Return the object that a model.json holds. Raises Unfit for NaN and for deep nesting."""

    def refuse(constant: str) -> Any:
        raise Unfit(f"model.json holds {constant}, which is no number")

    try:
        tree = json.loads(text, parse_constant=refuse)
    except RecursionError:
        raise Unfit("model.json is nested too deeply") from None
    if not isinstance(tree, dict):
        raise Unfit("model.json holds no object")
    return tree


def parse_yaml(text: str) -> dict[str, Any]:
    """Return what a pipeline.yaml holds. Raises Unfit for references, of which a few lines make millions."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):  # an event at a time: deep nesting takes PyYAML hours
        if isinstance(event, yaml.AliasEvent):
            raise Unfit("pipeline.yaml holds references (*name)")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEEPEST:
            raise Unfit("pipeline.yaml is nested too deeply")
    tree = yaml.safe_load(text)
    if not isinstance(tree, dict):
        raise Unfit("pipeline.yaml holds no mapping")
    return tree


def check_spec(spec: ModelSpec, weights: Path) -> None:
    """Check a model's description by itself and against the header of its weights, before anything is built from it.

    Raises:
        Unfit: a value is not of its type, beyond all bounds, or does not fit another one.
    """
    check_type("model.json", spec, ModelSpec, {Node: _check_node})
    net = spec.network
    _require(len(spec.classes) == net.outputs if spec.classes else net.outputs == 1, "network.outputs", "classes")
    columns = [n.column for n in net.numeric] + [c.column for c in net.categorical]
    _require(bool(columns) and len(set(columns)) == len(columns), "network", "one name for each column")
    _require(not spec.features or set(spec.features) == set(columns), "features", "the columns of network")
    _require(set(spec.encode_unknown) <= {c.column for c in net.categorical}, "encode_unknown", "categorical columns")
    _require(bool(spec.features) != bool(spec.select), "features", "select, which only older formats have")
    _require(bool(spec.select) or all(raw.value for raw in spec.raw), "raw", "today's format: a value is missing")
    used = {node.value for tree in spec.features.values() for node in tree.walk() if node.op == COLUMN}
    _require(used <= {raw.name for raw in spec.raw if raw.needed}, "features", "raw")
    for category in net.categorical:
        known = len(spec.vocabularies.get(category.column, ()))
        _require(category.values == known, f"network.categorical '{category.column}'.values", "its vocabulary")
        _require(category.values > 0 or not category.hashed, "network.categorical.hashed", "its number of buckets")
        codes = (None, category.values, category.values + 1)
        _require(category.missing in codes, f"network.categorical '{category.column}'.missing", "its vocabulary")
        widths = {"index": 1, "onehot": category.codes - 1, "embedding": category.width}
        _require(category.width == widths[category.encoding], "network.categorical.width", "its encoding")
    for number in net.numeric:
        rising = all(low < high for low, high in itertools.pairwise(number.knots))
        fits = rising and len(number.knots) == len(number.levels) <= _MOST_KNOTS
        _require(fits, "network.numeric.knots", f"at most {_MOST_KNOTS:,} rising knots with levels")
        _require(abs(number.fill or 0.0) <= _LARGEST, "network.numeric.fill", "float32")
    waves = net.periodic
    _require(waves is None or min(waves.frequencies, waves.width) >= 1, "network.periodic", "whole numbers from 1")
    filled = all(number.fill is not None for number in net.numeric if number.indicator)
    _require(filled, "network.numeric.indicator", "fill: it is of a value that may not be missing")
    _require(all(size >= 1 for size in net.hidden_sizes), "network.hidden_sizes", "whole numbers from 1")
    _require(spec.split.version in range(1, HASH_VERSION + 1), "split.version", "a version of the row hash")
    _require(spec.temperature > 0, "temperature", "a number above 0")
    is_of_two = spec.positive in spec.classes and len(spec.classes) == 2
    _require(spec.positive is None or is_of_two, "positive", "two classes")
    _require(0 < spec.threshold < 1, "threshold", "a probability")
    _require(0 <= net.dropout < 1, "network.dropout", "a share")
    _require(net.members >= 1, "network.members", "whole numbers from 1")
    stored = _stored_weights(weights)
    _require(_expected_weights(net) == stored, "network", f"weights.safetensors, which holds {stored:,} values")


def _require(fits: bool, name: str, other: str) -> None:
    if not fits:
        raise Unfit(f"model.json: {name} does not fit {other}")


def _expected_weights(net: NetSpec) -> int:
    """Return how many values the network of this description has: of layers, embeddings, and scaling."""
    numbers, waves = len(net.numeric), net.periodic
    inputs = numbers + sum(n.indicator for n in net.numeric) + sum(c.width for c in net.categorical)
    periodic = 0
    if waves:
        inputs += numbers * waves.width
        periodic = numbers * (waves.frequencies * (1 + 2 * waves.width) + waves.width)
    sizes = [inputs, *net.hidden_sizes]
    hidden = sum(_layer_weights(before, after, net.members) for before, after in itertools.pairwise(sizes))
    layers = hidden + net.members * (sizes[-1] + 1) * net.outputs
    embeddings = sum(c.codes * c.width for c in net.categorical if c.encoding == "embedding")
    return layers + embeddings + periodic + 2 * numbers


def _layer_weights(before: int, after: int, members: int) -> int:
    """Return the values of a hidden layer: of members, shared weights, and factors and a bias of each one's own."""
    return before * after + (members * (before + 2 * after) if members > 1 else after)


def _stored_weights(weights: Path) -> int:
    """Return the number of float32 values in a safetensors file: those that its header states and that it holds."""
    size = weights.stat().st_size
    with weights.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > min(100 * 2**20, size):
            raise Unfit("weights.safetensors is no safetensors file")
        try:
            header = json.loads(file.read(length))
            entries = [entry for name, entry in header.items() if name != "__metadata__"]
            shapes = [entry["shape"] for entry in entries if entry["dtype"] == "F32"]
            are_whole = all(type(side) is int and side >= 0 for shape in shapes for side in shape)
            values = sum(math.prod(shape) for shape in shapes) if are_whole else -1
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            raise Unfit("weights.safetensors is no safetensors file") from None
    if len(shapes) != len(entries) or 8 + length + 4 * values != size:
        raise Unfit("weights.safetensors does not hold what its header states")
    return values


def _check_node(name: str, node: Any, depth: int = 0) -> None:
    """Check a tree; which types and arguments an operation may have, :class:`.dialect.program.Program` checks."""
    if depth > _DEEPEST:
        raise Unfit(f"{name} is nested too deeply")
    check_class(name, node, Node)
    if node.op not in (COLUMN, LITERAL) and node.op not in ENTRIES:
        raise Unfit(f"{name}: {str(node.op)[:60]} is no operation that a model may have")
    check_type(f"{name}: type", node.type, str)
    check_class(f"{name}: arguments", node.arguments, tuple)
    _check_value(f"{name}: value", node.value)
    for key, text in node.settings:
        check_type(f"{name}: settings", key, str)
        check_type(f"{name}: settings", text, str)
    for argument in node.arguments:
        _check_node(name, argument, depth + 1)


def _check_value(name: str, value: Any) -> None:
    if isinstance(value, tuple):
        for item in value:
            _check_value(name, item)
    elif isinstance(value, str):
        check_bounds(name, value)
    elif type(value) is int:
        if abs(value) >= 2**63:
            raise Unfit(f"{name} is {str(value)[:40]}, which no literal is")
    elif value is not None and type(value) is not bool:
        raise Unfit(f"{name} is {type(value).__name__}")
