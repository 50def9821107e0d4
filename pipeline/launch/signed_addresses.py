"""Where an elastic rank can be reached, as JSON that is signed with the job's key: ranks sign, the driver verifies."""

from __future__ import annotations

import hashlib
import hmac
import json

Addresses = dict[str, list[tuple[str, int]]]
"""Host and port of one service, by network interface."""


def sign(key: bytes, rank: str, addresses: Addresses) -> bytes:
    """Return the addresses of ``rank`` (`host:local_rank`) as JSON, with their HMAC-SHA256 under ``key``."""
    text = json.dumps(addresses)
    return json.dumps([text, _signature(key, rank, text)]).encode()


def verify(key: bytes, rank: str, message: bytes) -> Addresses:
    """Return the addresses in a message of :func:`sign`.

    Raises:
        ValueError: the message has another form, or another key or rank has signed it.
    """
    try:
        text, signature = json.loads(message)
        is_signed = hmac.compare_digest(_signature(key, rank, text), signature)
    except (ValueError, TypeError) as error:
        raise ValueError(f"the addresses of {rank} are not in the form that the ranks of this job use") from error
    if not is_signed:
        raise ValueError(f"the addresses of {rank} are not signed with the key of this job")
    return {device: [(host, port) for host, port in pairs] for device, pairs in json.loads(text).items()}


def _signature(key: bytes, rank: str, text: str) -> str:
    return hmac.new(key, f"{rank} {text}".encode(), hashlib.sha256).hexdigest()
