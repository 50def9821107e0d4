"""What is wrong with the machine or the store is told before any work is done."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.session import check_slots, cores_per_rank, slots
from pipeline.tracking import open_store


def test_ranks_and_cores_of_local_spark(spark) -> None:
    assert slots(spark) == 2
    assert [cores_per_rank(spark, ranks) for ranks in (1, 2)] == [2, 1]


def test_more_ranks_than_slots_are_refused(spark, use_case: Callable[..., Config]) -> None:
    check_slots(spark, use_case(), 2)
    with pytest.raises(
        UserError, match=re.escape("run.num_proc: 3 ranks cannot run at once on the 2 slot(s) of local[2]")
    ):
        check_slots(spark, use_case(), 3)


def test_a_store_that_cannot_be_used_is_told(use_case: Callable[..., Config]) -> None:
    with pytest.raises(UserError, match=r"tracking\.uri: cannot use the MLflow store foo://bar: ") as raised:
        open_store(use_case(), "foo://bar")()
    assert "\n" not in str(raised.value)
