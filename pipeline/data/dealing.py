"""Even shares: row groups are dealt to the ranks so that each gets as many rows; a lopsided split is written again."""

from __future__ import annotations

from pyspark.sql import DataFrame, DataFrameWriter, SparkSession
from pyspark.sql import functions as F

from pipeline.data import parquet_summary, source_csv
from pipeline.data.manifest import RowGroup, SplitName
from pipeline.data.parquet_summary import Aggregates, Summary
from pipeline.runtime.errors import StorageError
from pipeline.runtime.session import progress
from pipeline.runtime.storage import Folder

# Small enough that a shard is many row groups (equal shares, rows of several can be mixed), large enough that decoding
# one is worth a task.
_ROW_GROUP_BYTES = 8 * 2**20
_ROW_GROUP_MIN_ROWS = 1_000

# A split is written again when the fullest rank has this much more than the average one.
_MAX_IMBALANCE = 1.05

_MOST_OF_A_TASK = 2**30  # bytes of rows that one task writes again

_DICTIONARY_BYTES = 8 * 1024  # of a column in a file; larger dictionaries are given up, see writer


def group_rows(columns: dict[str, str]) -> int:
    """Return how many rows of these columns, given with their Spark types, make a row group.

    A double counts as a float: it is one in memory, and often float32 turns out to hold all its values.
    """
    return max(_ROW_GROUP_MIN_ROWS, _ROW_GROUP_BYTES // _row_bytes(columns))


def _row_bytes(columns: dict[str, str]) -> int:
    return sum(8 if kind == "bigint" else 4 for kind in columns.values())


def writer(frame: DataFrame, file_rows: int) -> DataFrameWriter:
    """Return a writer of Parquet files of one row group of ``file_rows`` rows each.

    Parquet starts every file with a dictionary of each column's values and gives it up at a limit. Measurements hardly
    repeat, so by default the dictionary would last for 20,000 values, a third of such a file. With this limit it lasts
    for 2,048 floats, and W2 is written in 9.9 s instead of 12.2. Counts and codes keep their dictionary.
    """
    writer = frame.write.mode("overwrite").option("maxRecordsPerFile", file_rows)
    return writer.option("parquet.dictionary.page.size", _DICTIONARY_BYTES)


def deal_evenly(
    spark: SparkSession,
    folder: Folder,
    split: SplitName,
    written: Summary,
    aggregates: Aggregates,
    columns: dict[str, str],
    num_proc: int,
) -> Summary:
    """Return the files of a split, written again to ``folder/split`` if the ranks' shares would be unequal.

    Spark writes many row groups of a large source, which deal out evenly. One task writes a small or lopsided split
    again, in the order of the rows' hash, as files of equal length; of more than 1 GiB several tasks each write the
    rows whose hash is theirs. ``columns`` are the types that it then has.

    Raises:
        StorageError: rows were lost or added meanwhile.
    """
    dealt = deal(written.row_groups, num_proc)
    shares = [sum(group.rows for group in dealt[rank::num_proc]) for rank in range(num_proc)]
    if max(shares) <= max(_MAX_IMBALANCE * written.rows / num_proc, min(shares) + 1):
        return written
    lopsided = folder / written.files[0].path.rpartition("/")[0]
    with progress(spark, f"dealing {written.rows} {split} rows out to {num_proc} ranks evenly"):
        frame = spark.read.parquet(lopsided.spark)
        frame = frame.select([source_csv.column(name).cast(kind).alias(name) for name, kind in columns.items()])
        of_a_row = F.xxhash64(*map(source_csv.column, frame.columns))
        tasks = -(-written.rows * _row_bytes(columns) // _MOST_OF_A_TASK)
        together = frame.coalesce(1) if tasks == 1 else frame.repartition(tasks, of_a_row)
        # the hash leaves NULL out, so rows with holes may share it
        ordered = together.sortWithinPartitions(of_a_row, *map(source_csv.column, frame.columns))
        writer(ordered, _even_file_rows(written.rows, num_proc, group_rows(columns))).parquet((folder / split).spark)
    even = parquet_summary.summarize(spark, folder, split, aggregates)
    if even.rows != written.rows:
        problem = f"{folder / split} holds {even.rows} rows, but {written.rows} were written there"
        raise StorageError(f"{problem}: make sure that nothing else writes there, and run again")
    lopsided.remove()
    return even


def _even_file_rows(rows: int, num_proc: int, most: int) -> int:
    """Return a file length that cuts ``rows`` into at least ``num_proc`` files, the same number for each rank.

    With fewer rows than ranks, every file holds one row and some ranks get none.
    """
    files_per_rank = -(-rows // (num_proc * most))
    length = -(-rows // (num_proc * files_per_rank))
    return length if -(-rows // length) >= num_proc else max(1, rows // num_proc)


def deal(groups: list[RowGroup], num_proc: int) -> list[RowGroup]:
    """Return the row groups in the order in which rank i gets those at i, i + num_proc, …, with even sums of rows.

    In each round the longest remaining row group goes to the rank that has fewest rows yet.
    """
    remaining = sorted(groups, key=lambda group: (-group.rows, group.path, group.index))
    shards: list[list[RowGroup]] = [[] for _ in range(num_proc)]
    rows = [0] * num_proc
    for start in range(0, len(remaining), num_proc):
        smallest_first = sorted(range(num_proc), key=rows.__getitem__)
        for rank, group in zip(smallest_first, remaining[start : start + num_proc], strict=False):
            shards[rank].append(group)
            rows[rank] += group.rows
    shards.sort(key=len, reverse=True)  # the last round may be unfinished: shards with a row group of it come first
    return [shard[i] for i in range(len(shards[0])) for shard in shards if i < len(shard)]
