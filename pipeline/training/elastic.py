"""The rank's half of elastic training: ranks come and go, which is a mode of Horovod's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from horovod.common.elastic import State

from pipeline.training.exchange import Ranks

Result = TypeVar("Result")


class Committed(State):  # type: ignore[misc]
    """A training's state at the end of its last epoch; the same on all ranks, also on one that has just come."""

    def __init__(self, content: bytes | None, ranks: Ranks) -> None:
        self.content = content
        """A checkpoint, see :func:`pipeline.training.checkpoint.pack`; None before the first epoch has ended."""
        self.resets = 0
        """How often the ranks have changed."""
        self._ranks = ranks
        super().__init__(bcast_object=ranks.broadcast_object, get_rank=lambda: ranks.rank)

    def commit(self, content: bytes) -> None:
        """Keep ``content`` as the state to resume from. Raises HostsUpdatedInterrupt if another rank wants to join."""
        self.content = content
        self.check_host_updates()

    def sync(self) -> None:
        """Give every rank the state of rank 0, which is always a rank that was there before."""
        self.content, self.resets = self._ranks.broadcast_object((self.content, self.resets))

    def reset(self) -> None:
        """Count a change of the ranks; Horovod calls this."""
        self.resets += 1

    def save(self) -> None:
        """Do nothing: :meth:`commit` replaces the content as a whole."""

    def restore(self) -> None:
        """Do nothing: the content is never half replaced."""


def run(train: Callable[[Committed], Result], committed: Committed) -> Result:
    """Return what ``train`` returns; call it again, from what is committed, whenever the ranks have changed."""
    import horovod.torch as hvd

    result: Result = hvd.elastic.run(train)(committed)
    return result
