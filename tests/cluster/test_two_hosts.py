"""Ranks on hosts of their own: network namespaces, joined by one interface while others lead nowhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from clusters import can_make_hosts, cluster_settings, hosts, lead_nowhere, running_cluster
from conftest import PENGUINS
from submitting import submit


@pytest.mark.skipif(not can_make_hosts(), reason="this machine does not let a test make network namespaces")
def test_ranks_on_two_hosts_find_the_interface_that_joins_them_or_are_told(
    unpacked: Path, penguins, tmp_path: Path
) -> None:
    with hosts(3) as (driver, one, two), running_cluster(tmp_path, driver, [one, two]) as cluster:
        csv = cluster.shared / "penguins.csv"
        csv.write_bytes((PENGUINS.parent / "penguins.csv").read_bytes())
        overrides = [f"source.path={csv}", f"run.work_dir={cluster.shared / 'work'}"]
        conf = cluster_settings(cluster, unpacked) | {
            "spark.driver.host": driver.address,
            "spark.executor.cores": "1",
            "spark.cores.max": "2",
        }
        found = submit(PENGUINS, *overrides, conf=conf, enter=driver.enter)
        # Horovod tries every interface for minutes, so it has to be told
        lead_nowhere([driver, one, two], "eth1")
        overrides += ["run.network_interfaces=[eth0]", "training.epochs=1", "tracking.gate.thresholds.accuracy=0"]
        told = submit(PENGUINS, *overrides, conf=conf, enter=driver.enter)
    assert found.code == 0, found.stderr
    assert f"on {one.address}" in found.stderr
    assert f"on {two.address}" in found.stderr
    assert found.summary["weights_sha256"] == penguins.ran.summary["weights_sha256"]
    assert found.summary["rows"] == penguins.ran.summary["rows"]
    assert told.code == 0, told.stderr
    assert told.summary["reused_data"]
    assert told.summary["gate"]["decision"] == "rejected"  # one epoch is not better than a hundred
