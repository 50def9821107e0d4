"""Checkpoints of older formats, in the words of today's."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


def parts(content: bytes) -> dict[str, Tensor]:
    """Return the tensors of a `checkpoint.Part` that formats 2 and 3 kept as text; none of a later format.

    There each rank had a vector of its own: the confusion matrix, and behind it the rest.
    """
    import torch

    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    written = header["__metadata__"]
    if int(written["format"]) > 3:
        return {}
    fields, outputs = json.loads(written["progress"]), _outputs(header)
    if int(written["format"]) == 2:
        fields = from_2_to_3(fields, header)
    if not fields["parts"]:
        return {}
    vectors = torch.tensor(fields["parts"], dtype=torch.float64)
    counted = outputs * (outputs + 1) if outputs > 1 else 0
    others = {f"others.{rank}": vector[counted:] for rank, vector in enumerate(vectors)}
    return {"counts": vectors[:, :counted].sum(dim=0), **others}


def are_parts(parts: Any) -> bool:
    """Whether ``parts`` are those of an epoch that is not done, in format 3: a vector of numbers for each rank."""
    rows = parts if isinstance(parts, list) else []
    vectors = [row for row in rows if isinstance(row, list) and all(isinstance(number, int | float) for number in row)]
    return bool(rows) and len(vectors) == len(rows) and len({len(vector) for vector in vectors}) == 1


def _outputs(tensors: dict[str, Any]) -> int:
    """Return the number of the network's outputs; ``tensors`` are the descriptions in a file's header."""
    layers = [int(match[1]) for name in tensors if (match := re.fullmatch(r"net\.layers\.(\d+)\.bias", name))]
    return int(tensors[f"net.layers.{max(layers)}.bias"]["shape"][0])


def from_2_to_3(fields: dict[str, Any], tensors: dict[str, Any]) -> dict[str, Any]:
    """Return a progress of format 2 in the words of format 3; ``tensors`` are the descriptions in the file's header.

    Format 2 kept an epoch's numbers in one flat dict, and the times of the epochs beside it. Its confusion matrix had
    no column "no answer".
    """
    times = fields.pop("times_ms")
    best = fields["best"]
    return {
        **fields,
        "history": [_record_from_2(record, times) for record in fields["history"]],
        "best": _record_from_2(best, times) if "epoch" in best else None,
        "parts": [_part_from_2(part, _outputs(tensors)) for part in fields["parts"]],
    }


def _record_from_2(record: dict[str, Any], times_ms: list[int]) -> dict[str, Any]:
    upgraded = {name: record[name] for name in ("epoch", "learning_rate", "rows_per_s", "ranks")}
    for split in ("train", "validation"):
        values = {n.removeprefix(f"{split}_"): value for n, value in record.items() if n.startswith(f"{split}_")}
        upgraded[split] = {"rows": values.pop("rows"), "loss": values.pop("loss"), "metrics": values}
    return {**upgraded, "ended_ms": times_ms[int(record["epoch"]) - 1]}


def _part_from_2(part: dict[str, Any], outputs: int) -> list[float]:
    cells = part["detail"]
    if outputs > 1:  # a classifier: each row of the confusion matrix gets its last column, "no answer"
        cells = [cell for i in range(outputs) for cell in [*cells[i * outputs : (i + 1) * outputs], 0.0]]
    return [*cells, part["loss"], float(part["rows"])]
