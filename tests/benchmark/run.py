"""Measure ours against peers, in turns: ``make bench ARGS="--rows 2000000 --repeats 3"``."""

import argparse

from pipeline.runtime.console import run_job


def parser() -> argparse.ArgumentParser:
    """Return the parser of this job's command line."""
    args = argparse.ArgumentParser(prog="make bench", description="This pipeline against other ways to do the same.")
    args.add_argument("--rows", type=int, default=2_000_000, help="of the generated CSV (default: %(default)s)")
    args.add_argument("--repeats", type=int, default=3, help="measured turns (default: %(default)s)")
    args.add_argument("--only", metavar="PARTS", help="of jobs,preparation,epochs,ranks,scoring,memory (default: all)")
    args.add_argument("--scale", action="store_true", help="growth with rows and ranks, instead of the peers")
    args.add_argument("--work-dir", default=".work", metavar="FOLDER", help="(default: %(default)s)")
    return args


if __name__ == "__main__":
    options = parser().parse_args()
    of_the_suite = ("rows", "repeats", "only")
    given = [f"--{name}" for name in of_the_suite if getattr(options, name) != parser().get_default(name)]
    if options.scale and given:
        parser().error(f"--scale has sizes of its own: leave out {', '.join(given)}")
    if options.scale:
        from benchmark import scale  # after the command line has been read

        run_job(scale.run, options.work_dir)
    else:
        from benchmark import suite

        run_job(suite.run, options.work_dir, options.rows, options.repeats, options.only)
