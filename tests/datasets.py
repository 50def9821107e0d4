"""Prepared data sets of an exact size, written with pyarrow as the preparation would leave them; epochs' records."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.data.manifest import (
    FORMAT_VERSION,
    LabelData,
    Manifest,
    NumericStats,
    RowGroup,
    Rows,
    SourceData,
    SplitData,
    SplitName,
)
from pipeline.data.specs import Resolved
from pipeline.evaluation.metrics import EpochRecord, SplitMetrics
from pipeline.model.dialect.tree import Node, column
from pipeline.model.spec import TEXT, RawColumn
from pipeline.runtime.storage import Folder


def write_dataset(folder: Path, train: int, validation: int, num_proc: int, test: int = 0) -> Manifest:
    """Write ``a`` (the row's number), ``k`` (a code below 3) and ``y`` (a modulo 2); return the manifest, unwritten."""
    splits: dict[SplitName, SplitData] = {}
    counts: dict[SplitName, int] = {"train": train, "validation": validation, **({"test": test} if test else {})}
    for split, rows in counts.items():
        place = folder / split
        place.mkdir(parents=True)
        length = -(-rows // num_proc)
        groups = []
        for part, start in enumerate(range(0, rows, length)):
            ids = range(start, min(start + length, rows))
            columns = {
                "a": pa.array(map(float, ids), pa.float32()),
                "k": pa.array((i % 3 for i in ids), pa.int64()),
                "y": pa.array((i % 2 for i in ids), pa.int64()),
            }
            pq.write_table(pa.table(columns), place / f"part-{part:05d}.parquet")
            groups.append(RowGroup(path=f"{split}/part-{part:05d}.parquet", index=0, rows=len(ids)))
        splits[split] = SplitData(rows=rows, class_counts=[-(-rows // 2), rows // 2], row_groups=groups)
    ends = {"min": 0.0, "max": float(train)}
    stats = NumericStats(mean=train / 2, std=max(train / 4, 1.0), **ends, quantiles=[0.0, train / 2, float(train)])
    return Manifest(
        format_version=FORMAT_VERSION,
        source=SourceData(paths=["none"], files=0, bytes=0, fingerprint="s"),
        config_fingerprint="c",
        num_proc=num_proc,
        seed=0,
        spark_version="none",
        columns={"a": "float", "k": "bigint", "y": "bigint"},
        rows=Rows(
            read=train + validation + test, quarantined=0, dropped=0, train=train, validation=validation, test=test
        ),
        dropped_by_column={},
        oversample=1,
        numeric={"a": stats},
        vocabularies={"k": ["x", "y", "z"]},
        label=LabelData(column="y", task="classification", classes=["even", "odd"], stats=None),
        splits=splits,
        sha256=checksums(folder, splits),
    )


def resolved() -> Resolved:
    """Return what `SELECT a, k, y FROM raw` is resolved to, for the columns of :func:`write_dataset`."""
    number = Node("ReadDouble", "double", (column(TEXT, "string"),))
    text = column(TEXT, "string")
    raw = (RawColumn("a", "DOUBLE", True, number), RawColumn("k", "STRING", True, text), RawColumn("y", "INT", False))
    return Resolved(raw, {"a": column("a", "double"), "k": column("k", "string")})


SOME_METRICS = SplitMetrics(rows=10, loss=0.5, metrics={"accuracy": 0.75})


def an_epoch(epoch: int, train: SplitMetrics = SOME_METRICS, validation: SplitMetrics = SOME_METRICS) -> EpochRecord:
    """Return the record of an epoch."""
    return EpochRecord(epoch, train, validation, learning_rate=0.1, rows_per_s=100.0, ranks=2, ended_ms=1000 * epoch)


def read_manifest(folder: Path | Folder) -> Manifest:
    """Return the manifest of a prepared data set."""
    data = Manifest.read(folder if isinstance(folder, Folder) else Folder(str(folder)))
    assert data is not None
    return data


def checksums(folder: Path, splits: dict[SplitName, SplitData]) -> dict[str, str]:
    """Return what the manifest must say of files that a test has written itself."""
    paths = [group.path for split in splits.values() for group in split.row_groups]
    return {path: hashlib.sha256((folder / path).read_bytes()).hexdigest() for path in paths}
