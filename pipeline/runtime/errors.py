"""Errors of a job that have a sentence of their own, and helpers for their messages."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable


class UserError(Exception):
    """The user's configuration or data is wrong; the message is one sentence that says what, where and what to do."""


class RankError(Exception):
    """A rank of the training failed; the message holds the rank's number and traceback."""


class DeliveryError(Exception):
    """The tracking store cannot be reached; after a training the message says where model and metrics are kept."""


class StorageError(Exception):
    """Data cannot be written or read, most often because a disk is full; the message says what, where, what to do."""


class Stopped(Exception):
    """A rank got SIGTERM; a checkpoint keeps its work until then."""


class RankLost(RankError):
    """A rank ended without a report, hung, or got SIGTERM: another attempt can succeed."""


class RowAccountingError(Exception):
    """The ranks have not read the rows that the manifest lists; the message holds both numbers."""


def one_line(error: BaseException | str, limit: int = 200) -> str:
    """Return an error's message, or its type if it has none, in one line of at most ``limit`` characters.

    Passwords in URIs are hidden.
    """
    return hide_password(" ".join(str(error).split()) or type(error).__name__)[:limit]


def reason(error: Exception) -> str:
    """Return the message of an OSError without its number and path, and any other error's as it is."""
    return getattr(error, "strerror", None) or str(error)


def hide_password(text: str) -> str:
    """Return the text with the passwords of the URIs in it replaced by `***`: before the host, and in a query."""
    text = re.sub(r"(://[^/@:\s]*):[^/\s]*@", r"\1:***@", text)
    named = r"(?i)((?:password|passwd|pwd|token|secret|sig|accountkey)(?:=|%3D))"
    return re.sub(named + r"(?:(?!%3B|%7D)[^&;\s'\")])+", r"\1***", text)


def nearest(word: str, valid: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the valid name closest to ``word``, else a list of the valid names."""
    names = sorted(valid)
    by_lower = {name.lower(): name for name in names}
    close = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.5)
    if close:
        return f"; did you mean '{by_lower[close[0]]}'?"
    return f"; valid: {', '.join(names[:20])}{', …' if len(names) > 20 else ''}" if names else ""
