"""Train a model: ``spark-submit jobs/train.py --config conf/penguins/pipeline.yaml [--set key=value ...]``."""

import argparse
import sys

try:
    from pipeline.runtime.console import run_job
except ImportError as error:  # another package of this name is found first, or none
    sys.stderr.write(f"error: {error}: source conf/spark/env.sh, and take other packages 'pipeline' off PYTHONPATH\n")
    sys.exit(2)


def parser() -> argparse.ArgumentParser:
    """Return the parser of this job's command line."""
    args = argparse.ArgumentParser(prog="train.py", description="CSV in, tracked PyTorch model out.")
    several = "the use case's pipeline.yaml, and overlays of it"
    args.add_argument("--config", required=True, nargs="+", action="extend", metavar="FILE", help=several)
    args.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override a setting: training.epochs=5"
    )
    args.add_argument("--no-gate", action="store_true", help="log the model, but let jobs/gate.py judge it later")
    args.add_argument("--fresh", action="store_true", help="begin anew, also if an interrupted training could go on")
    return args


if __name__ == "__main__":
    options = parser().parse_args()
    from pipeline.train import train  # after the command line has been read: --help needs no Spark

    run_job(train, options.config, options.set, not options.no_gate, options.fresh)
