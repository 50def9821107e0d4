"""Weights on disk: safetensors, written whole or not at all."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from safetensors.torch import load_file, save
from torch import Tensor


def weight_bytes(weights: dict[str, Tensor]) -> bytes:
    """Return ``weights`` as safetensors: the same weights are always the same bytes, for no time is stored."""
    return bytes(save({name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}))


def save_weights(weights: dict[str, Tensor], file: Path) -> str:
    """Write ``weights`` to ``file`` atomically; return the SHA-256 of its bytes."""
    content = weight_bytes(weights)
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f".{file.name}.{os.getpid()}")
    with open(part, "wb") as out:
        out.write(content)
        out.flush()
        os.fsync(out.fileno())
    os.replace(part, file)
    return hashlib.sha256(content).hexdigest()


def load_weights(file: Path) -> dict[str, Tensor]:
    """Return the weights in ``file``, on the CPU."""
    return load_file(file)
