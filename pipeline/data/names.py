"""Names of columns: any name that Spark can hold is allowed, so our own must keep out of the way.

Petastorm makes a namedtuple of a file's columns. So a column is stored under its own name only if that is a plain
identifier, and else under a made-up one. :func:`stored_names` is the only place that decides this.
"""

from __future__ import annotations

import keyword
import unicodedata
from collections.abc import Collection, Sequence

SPLIT = "split"
"""The column of a prepared row that names its split, and a part of the paths of the files."""
CODE = "code"
"""A column that exists while categories are encoded."""
COPIES = "copies"
"""A column that exists while training rows are repeated."""


def stored_names(columns: Sequence[str]) -> dict[str, str]:
    """Return the name in the Parquet files of each of the user's columns: features in their order, then the label.

    The same columns always have the same names, so that nothing else keeps them. No two names are equal when case is
    ignored, none begins with an underscore, and none is one of ours.
    """
    taken = {column.lower() for column in columns}
    stored: dict[str, str] = {}
    for position, column in enumerate(columns):
        name = column if _is_plain(column) else free(f"column_{position}", taken)
        stored[column] = name
        taken.add(name.lower())
    return stored


def free(name: str, taken: Collection[str], text: str = "") -> str:
    """Return ``name``, with a number behind it if a name in ``taken`` equals it, or if ``text`` holds it.

    Case is ignored, as in Spark.
    """
    lower, number, new = {other.lower() for other in taken}, 1, name
    while new.lower() in lower or new.lower() in text.lower():
        number += 1
        new = f"{name}_{number}"
    return new


def _is_plain(name: str) -> bool:
    """Whether Petastorm, namedtuples and the preparation's own columns leave room for this name."""
    return (
        name.isidentifier()
        and name == unicodedata.normalize("NFKC", name)  # Python compares identifiers in this form
        and not keyword.iskeyword(name)
        and not name.startswith("_")
        and name.lower() not in (SPLIT, CODE, COPIES)
    )
