"""How many ranks a master runs, and where."""

from __future__ import annotations

import os

import pytest
from pyspark import SparkConf

from conftest import UseCase
from pipeline.launch.executor_checks import Answer, unreachable
from pipeline.launch.executors import Demand, Executor, demanded_executors, local_slots, requested_executors
from pipeline.runtime.errors import UserError
from pipeline.training.placement import Place, crowded, threads


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


@pytest.mark.parametrize(
    ("master", "conf", "executors"),
    [
        ("local-cluster[3,1,1024]", {}, 3),
        ("yarn", {"spark.executor.instances": "4"}, 4),
        ("spark://host:7077", {"spark.cores.max": "8", "spark.executor.cores": "3"}, 2),
        ("spark://host:7077", {}, None),
        ("yarn", {}, 2),
        ("yarn", {"spark.dynamicAllocation.enabled": "true", "spark.dynamicAllocation.minExecutors": "2"}, 2),
        ("yarn", {"spark.dynamicAllocation.enabled": "true", "spark.executor.instances": "2"}, None),
    ],
)
def test_the_executors_that_an_application_asked_for(master: str, conf: dict[str, str], executors: int | None) -> None:
    settings = SparkConf(loadDefaults=False).setAll([*conf.items()])
    assert requested_executors(master, settings) == executors


@pytest.mark.parametrize(
    ("run", "elastic", "requested", "dynamic_allocation", "demand"),
    [
        ({"num_proc": 4}, None, 2, False, Demand(4, 4)),
        ({"num_proc": 5, "ranks_per_executor": 2}, None, None, False, Demand(3, 3)),
        ({}, None, 3, False, Demand(3, 3)),
        ({}, None, None, False, Demand(None, 1)),
        ({}, {"min": 2, "max": 4}, 8, False, Demand(4, 2)),
        ({}, {"min": 2, "max": 4}, 1, False, Demand(2, 2)),
        ({}, {"min": 2, "max": 4}, None, False, Demand(None, 2)),
        ({}, {"min": 3, "max": 8}, None, True, Demand(3, 3)),
        ({"num_proc": 3}, {"min": 2, "max": 4}, None, True, Demand(3, 2)),
    ],
)
def test_the_executors_that_the_ranks_wait_for(
    use_case: UseCase,
    run: dict[str, int],
    elastic: dict[str, int] | None,
    requested: int | None,
    dynamic_allocation: bool,
    demand: Demand,
) -> None:
    config = use_case(run=run, recovery={"elastic": elastic})
    assert demanded_executors(config, requested, dynamic_allocation) == demand


def test_automatic_ranks_need_a_number_of_executors_under_dynamic_allocation(use_case: UseCase) -> None:
    with pytest.raises(UserError, match=r"run\.num_proc: auto has no meaning .* set spark\.dynamicAllocation\.minExec"):
        demanded_executors(use_case(), None, dynamic_allocation=True)


def test_two_ranks_on_one_executor_are_refused_unless_the_settings_ask_for_them() -> None:
    places = [Place("0", "a"), Place("1", "b"), Place("1", "b")]
    problem = crowded(places, 1)
    assert problem is not None
    assert problem.startswith(
        "2 ranks are on executor 1, where at most 1 should be (rank 0 on 0 (a), rank 1 on 1 (b), "
    )
    assert "spark.task.cpus" in problem
    assert "spark.executor.cores" in problem
    assert crowded(places, 2) is None
    assert crowded([Place("driver", "a")] * 4, 1) is None


def test_a_rank_s_threads_are_its_executor_s_cores() -> None:
    places = [Place("0", "a"), Place("1", "b"), Place("1", "b")]
    assert [threads({"0": 4, "1": 5}, places, rank) for rank in range(3)] == [4, 2, 2]
    assert [threads({"driver": 2}, [Place("driver", "a")] * 3, rank) for rank in range(3)] == [1, 1, 1]


@pytest.mark.parametrize("address", ["127.0.1.1", ""])
def test_a_host_whose_name_leads_other_hosts_nowhere_is_an_error(address: str) -> None:
    answers = [Answer(Place("0", "one"), [], "10.0.0.1"), Answer(Place("1", "two"), [], address)]
    known = [Executor("0", "10.0.0.1", 4), Executor("1", "10.0.0.2", 4)]
    problem = unreachable(answers, known)
    assert problem is not None
    resolves = f"resolves to {address}" if address else "has no address"
    assert f"executor 1: the host's own name, two, {resolves}, so ranks on other hosts" in problem
    # all on one host: its own name is good enough there
    assert unreachable(answers, [known[0], Executor("1", "10.0.0.1", 4)]) is None
    assert unreachable([answers[0]], known) is None
