"""How many ranks a master runs."""

from __future__ import annotations

import os

import pytest

from pipeline.session import local_slots


@pytest.mark.parametrize(
    ("master", "slots"),
    [
        ("local", 1),
        ("local[3]", 3),
        ("local[2, 4]", 2),
        ("local[*]", os.cpu_count()),
        ("local-cluster[2,1,1024]", None),
        ("spark://host:7077", None),
        ("yarn", None),
    ],
)
def test_slots_of_a_local_master(master: str, slots: int | None) -> None:
    assert local_slots(master) == slots
