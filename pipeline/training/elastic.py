"""The rank's half of elastic training."""

from __future__ import annotations

from horovod.common.elastic import State


class Committed(State):  # type: ignore[misc]
    """A training as it was at the end of its last epoch; the same on all ranks, also on one that has just come."""

    def __init__(self, content: bytes | None) -> None:
        import horovod.torch as hvd

        self.content = content
        """A checkpoint, see :func:`pipeline.training.checkpoint.pack`; None: nothing is done yet."""
        self.resets = 0
        """How often the ranks have changed."""
        self._broadcast = hvd.broadcast_object
        super().__init__(bcast_object=hvd.broadcast_object, get_rank=hvd.rank)

    def commit(self, content: bytes) -> None:
        """Take this as what to go on from. Raises HostsUpdatedInterrupt on all ranks when a new one wants to join."""
        self.content = content
        self.check_host_updates()

    def sync(self) -> None:
        """Give every rank what rank 0 has, which is always one of those that were there before."""
        self.content, self.resets = self._broadcast((self.content, self.resets))

    def reset(self) -> None:
        """Count; Horovod calls this when the ranks have changed."""
        self.resets += 1

    def save(self) -> None:
        """Nothing is half done: the content is only ever replaced as a whole."""

    def restore(self) -> None:
        """Nothing is to be undone either."""
