"""Row groups dealt out evenly to the ranks; a lopsided split is written again."""

from __future__ import annotations

from pyspark.sql import DataFrame, DataFrameWriter, SparkSession
from pyspark.sql import functions as F

from pipeline.data import parquet_summary, source_csv
from pipeline.data.manifest import RowGroup, SplitName
from pipeline.data.parquet_summary import Contents, Question
from pipeline.data.split import SPLIT
from pipeline.runtime.session import progress
from pipeline.runtime.storage import Folder

# Small enough that a shard is many row groups (ranks get equal shares, rows of several can be mixed), large enough
# that decoding one is worth a task.
_ROW_GROUP_BYTES = 8 * 2**20
_ROW_GROUP_MIN_ROWS = 1_000

# A split is dealt out again when the fullest rank has this much more than the average one.
_MAX_IMBALANCE = 1.05

_DICTIONARY_BYTES = 8 * 1024  # of a column in a file, after which it goes on without: see writer

PARTS = "parts"  # below the data set's folder: what the one pass over the source wrote, by split


def group_rows(columns: dict[str, str]) -> int:
    """Return how many rows of these columns make a row group."""
    return max(_ROW_GROUP_MIN_ROWS, _ROW_GROUP_BYTES // sum(8 if kind == "bigint" else 4 for kind in columns.values()))


def writer(frame: DataFrame, file_rows: int) -> DataFrameWriter:
    """Return a writer of files of ``file_rows`` rows.

    Parquet starts every file with a dictionary of each column's values. Of measurements hardly two are the same, and
    it would be given up after 20,000 values, a third of such a file; so it is when it has 2,048 floats. (W2 is
    written in 9.9 s instead of 12.2.) What has fewer values, counts and codes, keeps its dictionary.
    """
    writer = frame.write.mode("overwrite").option("maxRecordsPerFile", file_rows)
    return writer.option("parquet.dictionary.page.size", _DICTIONARY_BYTES)


def balanced(
    spark: SparkSession,
    folder: Folder,
    split: SplitName,
    written: Contents,
    question: Question,
    columns: dict[str, str],
    num_proc: int,
) -> Contents:
    """Return the files of a split; written again if the ranks' shares of their row groups would be unequal.

    Spark writes many row groups of a large source, which deal out evenly. A small or lopsided split is rewritten by
    one task, in the order of the rows' hash, as files of equal length.
    """
    hands = dealt(written.row_groups, num_proc)
    shares = [sum(group.rows for group in hands[rank::num_proc]) for rank in range(num_proc)]
    if max(shares) <= max(_MAX_IMBALANCE * written.rows / num_proc, min(shares) + 1):
        return written
    place = written.files[0].path.rpartition("/")[0]
    with progress(spark, f"dealing {written.rows} {split} rows out to {num_proc} ranks evenly"):
        frame = spark.read.parquet((folder / place).spark)
        ordered = frame.coalesce(1).sortWithinPartitions(F.xxhash64(*map(source_csv.column, frame.columns)))
        length = _group_length(written.rows, num_proc, group_rows(columns))
        writer(ordered, length).parquet((folder / split).spark)
    even = parquet_summary.look_into(spark, folder, split, question)
    if even.rows != written.rows:
        raise RuntimeError(f"{folder / split} holds {even.rows} rows, but {written.rows} were written")
    (folder / place).remove()
    if not any(name.startswith(SPLIT) for name in (folder / PARTS).names()):
        (folder / PARTS).remove()
    return even


def _group_length(rows: int, num_proc: int, most: int) -> int:
    """Return a file length that cuts ``rows`` into at least ``num_proc`` files, the same number for each rank.

    With fewer rows than ranks, every file holds one row and some ranks get none.
    """
    per_rank = -(-rows // (num_proc * most))
    length = -(-rows // (num_proc * per_rank))
    return length if -(-rows // length) >= num_proc else max(1, rows // num_proc)


def dealt(groups: list[RowGroup], num_proc: int) -> list[RowGroup]:
    """Return the row groups in an order in which rank i's, those at i, i + num_proc, …, are as many rows as others'.

    In each round the longest of those left goes to the rank that has fewest rows yet.
    """
    left = sorted(groups, key=lambda group: (-group.rows, group.path, group.index))
    hands: list[list[RowGroup]] = [[] for _ in range(num_proc)]
    rows = [0] * num_proc
    for start in range(0, len(left), num_proc):
        poorest_first = sorted(range(num_proc), key=rows.__getitem__)
        for rank, group in zip(poorest_first, left[start : start + num_proc], strict=False):
            hands[rank].append(group)
            rows[rank] += group.rows
    hands.sort(key=len, reverse=True)  # those who had a part in an unfinished last round come first
    return [hand[i] for i in range(len(hands[0])) for hand in hands if i < len(hand)]
