"""The rank's half of elastic training."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from types import SimpleNamespace
from urllib.request import Request, urlopen

from horovod.common.elastic import State

Addresses = dict[str, list[tuple[str, int]]]
"""Of one service, by network interface: host and port."""


# ---- on the ranks --------------------------------------------------------------------------------------------------


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


def secure_rank() -> None:
    """Tell the driver where this rank listens for news of the others in signed JSON, and take news signed by the job.

    Horovod sends a pickle without a signature, and in it a new secret in plain text.
    """
    from horovod.runner.common.util import codec, secret
    from horovod.runner.elastic import worker

    key: bytes = codec.loads_base64(os.environ[secret.HOROVOD_SECRET_KEY])

    def put(host: str, port: int, scope: str, name: str, value: tuple[Addresses, bytes]) -> None:
        url = f"http://{host}:{port}/{scope}/{name}"
        urlopen(Request(url, data=sign(key, name, value[0]), method="PUT"), timeout=60).close()

    worker.secret = SimpleNamespace(make_secret_key=lambda: key)
    worker.put_data_into_kvstore = put


def sign(key: bytes, name: str, addresses: Addresses) -> bytes:
    """Return what a rank tells the driver of itself, signed with the job's key."""
    said = json.dumps(addresses)
    return json.dumps([said, hmac.new(key, f"{name} {said}".encode(), hashlib.sha256).hexdigest()]).encode()


def verify(key: bytes, name: str, content: bytes) -> Addresses:
    """Return what :func:`sign` has signed. Raises ValueError when it was somebody else."""
    try:
        said, signature = json.loads(content)
        mine = hmac.new(key, f"{name} {said}".encode(), hashlib.sha256).hexdigest()
        is_signed = hmac.compare_digest(mine, signature)
    except (ValueError, TypeError) as error:
        raise ValueError(f"the addresses of {name} are not in the form that this job's ranks use") from error
    if not is_signed:
        raise ValueError(f"the addresses of {name} are not signed by this job")
    return {device: [(host, port) for host, port in found] for device, found in json.loads(said).items()}
