"""Jobs in surroundings that others have: each trains, or ends at once with one sentence."""

from __future__ import annotations

import pytest

import surroundings


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(["JAVA_HOME of Java", "without a"], id="refused before Java starts"),
        pytest.param([], id="all", marks=[pytest.mark.more, pytest.mark.timeout(3600)]),
    ],
)
def test_each_trains_or_is_refused(words: list[str]) -> None:
    told: list[str] = []
    assert surroundings.main(words, told.append) == 0, "\n".join(told)
    assert len(told) > len(words)
