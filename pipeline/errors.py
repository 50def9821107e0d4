"""The ways a job can fail that need a sentence of their own."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """The user's configuration or data is wrong; the message is one sentence that says what, where and what to do."""


class RankError(Exception):
    """A rank of the training failed; the message names the rank and holds its own traceback."""


class DeliveryError(Exception):
    """The tracking store is lost when training has ended; the message says where the model and metrics are kept."""


class RowAccountingError(Exception):
    """The ranks did not see the rows that the manifest promises; the message holds both numbers."""


def nearest(word: str, valid: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the valid name closest to ``word``, else a list of the valid names."""
    names = sorted(valid)
    by_lower = {name.lower(): name for name in names}
    close = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.5)
    if close:
        return f"; did you mean '{by_lower[close[0]]}'?"
    return f"; valid: {', '.join(names[:20])}{', …' if len(names) > 20 else ''}" if names else ""
