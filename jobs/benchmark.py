"""Measure scoring against bare Spark, in turns: ``spark-submit jobs/benchmark.py --rows 2000000 --repeats 5``."""

import argparse

from pipeline.console import run_job


def parser() -> argparse.ArgumentParser:
    """Return the parser of this job's command line."""
    args = argparse.ArgumentParser(prog="benchmark.py", description="Our scoring against Spark's bare copy of a CSV.")
    args.add_argument("--rows", type=int, default=2_000_000, help="of the generated CSV (default: %(default)s)")
    args.add_argument("--repeats", type=int, default=5, help="measured turns (default: %(default)s)")
    args.add_argument("--work-dir", default=".work", metavar="FOLDER", help="(default: %(default)s)")
    return args


if __name__ == "__main__":
    options = parser().parse_args()
    from pipeline.benchmark import scoring_benchmark  # after the command line has been read

    run_job(scoring_benchmark, options.work_dir, options.rows, options.repeats)
