"""Ranks on hosts of their own: network namespaces, joined by one interface while another leads nowhere."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from clusters import can_make_hosts, cluster_settings, hosts, leading_nowhere, running_cluster
from conftest import PENGUINS
from submitting import Penguins, submit

# Both jobs in one Spark application: to start one takes longer than to train for a few epochs.
TWO_JOBS = """
import json, subprocess, sys
from pipeline.runtime import console
from pipeline.train import train
console.show_logs()
config, overrides, commands = sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3])
first = train(config, overrides)
for command in commands:
    subprocess.run(command, check=True)
overrides += ["run.network_interfaces=[eth0]", "training.epochs=1", "tracking.gate.thresholds.accuracy=0"]
print(json.dumps([first, train(config, overrides)]))
"""


@pytest.mark.more
@pytest.mark.skipif(not can_make_hosts(), reason="this machine does not let a test make network namespaces")
def test_ranks_on_two_hosts_find_the_interface_that_joins_them_or_take_a_named_one(
    unpacked: Path, penguins: Penguins, tmp_path: Path
) -> None:
    script = tmp_path / "two_jobs.py"
    script.write_text(TWO_JOBS)
    with hosts(3) as (driver, one, two), running_cluster(tmp_path, driver, [one, two]) as cluster:
        csv = cluster.shared / "penguins.csv"
        csv.write_bytes((PENGUINS.parent / "penguins.csv").read_bytes())
        overrides = [f"source.path={csv}", f"run.work_dir={cluster.shared / 'work'}"]
        conf = cluster_settings(cluster, unpacked) | {
            "spark.driver.host": driver.address,
            "spark.executor.cores": "1",
            "spark.cores.max": "2",
        }
        # Horovod tries each interface for minutes, so a setting names the right one where another leads nowhere
        between = leading_nowhere([driver, one, two], "eth1")
        ran = submit(PENGUINS, json.dumps(overrides), json.dumps(between), conf=conf, enter=driver.enter, script=script)
    assert ran.code == 0, ran.stderr
    output = ran.stdout + ran.stderr  # spark-submit merges the two for a script that does not separate them
    assert f"on {one.address}" in output
    assert f"on {two.address}" in output
    first, second = json.loads(ran.stdout.splitlines()[-1])
    assert first["weights_sha256"] == penguins.ran.summary["weights_sha256"]
    assert first["rows"] == penguins.ran.summary["rows"]
    assert (first["num_proc"], second["num_proc"]) == (2, 2)
    assert second["reused_data"]
    assert second["gate"]["decision"] == "rejected"  # one epoch is not better than a hundred
