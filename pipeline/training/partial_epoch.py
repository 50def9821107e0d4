"""What a checkpoint within an epoch holds more than one at its end."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class Part:
    """What a checkpoint holds of the steps that are done of it."""

    counts: Tensor
    """:attr:`pipeline.evaluation.sums.MetricSums.counts` of all ranks together: many, where there are many classes."""
    others: list[Tensor]
    """:attr:`pipeline.evaluation.sums.MetricSums.others` of each rank, as their sum depends on its order."""
    random: list[Tensor]
    """Each rank's generator of random numbers."""

    def named(self) -> dict[str, Tensor]:
        """Return the tensors by the names that they have in the file."""
        tensors = {"counts": self.counts}
        for rank, (others, random) in enumerate(zip(self.others, self.random, strict=True)):
            tensors |= {f"others.{rank}": others, f"random.{rank}": random}
        return tensors


def are_named(names: Collection[str]) -> bool:
    """Whether these names of tensors are those of a :class:`Part`, whatever else is among them."""
    ranks = sum(name.startswith("others.") for name in names)
    wanted = {"counts", *(f"{kind}.{rank}" for kind in ("others", "random") for rank in range(ranks))}
    return ranks > 0 and wanted <= set(names)


def random_state(device: torch.device) -> Tensor:
    """Return the state of the generator that dropout draws from on ``device``."""
    import torch

    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def restore_random_state(tensors: Mapping[str, Tensor], rank: int, device: torch.device) -> None:
    """Put the generator of ``device`` in the state that ``rank`` had when it stopped within an epoch."""
    import torch

    state = tensors[f"random.{rank}"]
    torch.cuda.set_rng_state(state, device) if device.type == "cuda" else torch.set_rng_state(state)
