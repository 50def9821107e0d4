"""A job reports a problem of the machine or the store before it does any work."""

from __future__ import annotations

import re

import pytest
from pyspark.sql import SparkSession

from conftest import UseCase
from pipeline.launch import executors
from pipeline.runtime.errors import UserError
from pipeline.tracking.store import open_store


def test_ranks_and_cores_of_local_spark(spark: SparkSession, use_case: UseCase) -> None:
    assert executors.await_ranks(spark, use_case()) == 2
    assert executors.await_ranks(spark, use_case(run={"num_proc": 1})) == 1
    assert executors.cores(spark) == {"driver": 2}


def test_more_ranks_than_slots_are_refused(spark: SparkSession, use_case: UseCase) -> None:
    message = (
        "run.num_proc: 3 ranks cannot run at once on the 2 slot(s) of local[2]; start Spark with --master 'local[3]'"
    )
    with pytest.raises(UserError, match=re.escape(message)):
        executors.await_ranks(spark, use_case(run={"num_proc": 3}))


@pytest.mark.parametrize(
    ("num_proc", "cores", "each", "outcome"),
    [
        ("auto", 4, 2, 2),
        (2, 4, 2, 2),
        (2, 2, 2, "2 ranks cannot run at once on the 1 slot(s) of local[2] with spark.task.cpus 2; start Spark with"
                  " --master 'local[4]', or lower spark.task.cpus"),
        ("auto", 2, 4, "1 rank cannot run at once on the 0 slot(s) of local[2] with spark.task.cpus 4; start Spark with"
                       " --master 'local[4]', or lower spark.task.cpus"),
    ],
)  # fmt: skip
def test_cores_of_a_task_count(use_case: UseCase, num_proc: str, cores: int, each: int, outcome: int | str) -> None:
    config = use_case(run={"num_proc": num_proc})
    if isinstance(outcome, int):
        assert executors._ranks_on_local_master(config, f"local[{cores}]", cores, each) == outcome
    else:
        with pytest.raises(UserError, match=re.escape(outcome)):
            executors._ranks_on_local_master(config, f"local[{cores}]", cores, each)


def test_an_unusable_store_is_reported(use_case: UseCase) -> None:
    with pytest.raises(UserError, match=r"tracking\.uri: cannot use the MLflow store foo://bar: ") as raised:
        open_store(use_case(), "foo://bar")()
    assert "\n" not in str(raised.value)
