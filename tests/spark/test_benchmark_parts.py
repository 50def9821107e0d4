"""The peers of the benchmark do the work that they are there for, on a table of a few rows."""

from __future__ import annotations

from pathlib import Path

from pyspark.sql import SparkSession

from benchmark import peers, work


def test_peers_do_the_same_work(spark: SparkSession, tmp_path: Path) -> None:
    rows = 9_000
    config = work.write_use_case(tmp_path, work.write_csv(spark, tmp_path, rows), batch_size=500)
    config.data_dir.make()
    seconds, prepared = peers.prepare(spark, config)
    assert seconds > 0
    assert prepared.manifest.rows.read == rows
    assert not prepared.reused
    assert peers.bare_copy(spark, tmp_path / f"{rows}.csv", config.source.schema_, tmp_path / "copy") > 0
    epochs = peers.floor_epochs(config, prepared, 2)
    assert len(epochs) == 2
    assert min(epochs) > 0
    assert 0.5 <= peers.largest_share(config, prepared) <= 1  # of a shard of very few row groups
