"""Judge a logged training: ``spark-submit jobs/gate.py --config conf/penguins/pipeline.yaml [--run-id ID]``."""

import argparse
import sys

try:
    from pipeline.runtime.console import run_job
except ImportError as error:  # another package of this name is found first, or none
    sys.stderr.write(f"error: {error}: source conf/spark/env.sh, and take other packages 'pipeline' off PYTHONPATH\n")
    sys.exit(2)

TRUST = "accept a champion of an older version of this project that uses functions which are no longer allowed"


def parser() -> argparse.ArgumentParser:
    """Return the parser of this job's command line."""
    args = argparse.ArgumentParser(prog="gate.py", description="The alias champion goes to the better model.")
    several = "the use case's pipeline.yaml, and overlays of it"
    args.add_argument("--config", required=True, nargs="+", action="extend", metavar="FILE", help=several)
    args.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override a setting, as the training did"
    )
    overruled = args.add_mutually_exclusive_group()
    overruled.add_argument("--run-id", metavar="ID", help="the training (default: the newest with tracking.run_name)")
    overruled.add_argument("--promote", metavar="VERSION", help="make this version the champion; needs --reason")
    overruled.add_argument("--rollback", action="store_true", help="make the champion before today's the champion")
    args.add_argument("--reason", metavar="TEXT", default="", help="why, for the version's tags")
    args.add_argument("--trust-model", action="store_true", help=TRUST)
    return args


if __name__ == "__main__":
    options = parser().parse_args()
    from pipeline.gate import judge, overrule  # after the command line has been read

    if options.promote is not None or options.rollback:
        run_job(overrule, options.config, options.set, options.promote, options.reason)
    else:
        run_job(judge, options.config, options.set, options.run_id, options.trust_model)
