"""Serve a model over HTTP: ``python jobs/serve.py --model models:/penguins@champion --port 5000``."""

import argparse
import sys

try:
    from pipeline.runtime.console import run_job
except ImportError as error:  # another package of this name is found first, or none
    sys.stderr.write(f"error: {error}: source conf/spark/env.sh, and take other packages 'pipeline' off PYTHONPATH\n")
    sys.exit(2)


def parser() -> argparse.ArgumentParser:
    """Return the parser of this job's command line."""
    args = argparse.ArgumentParser(prog="serve.py", description="Raw rows in over HTTP, predictions out.")
    args.add_argument("--model", required=True, metavar="URI", help="models:/NAME@champion, or a training's model_uri")
    args.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    args.add_argument("--port", type=int, default=5000, help="(default: %(default)s)")
    store = "MLflow store (default: MLFLOW_TRACKING_URI, else .work/mlflow.db)"
    args.add_argument("--tracking-uri", metavar="URI", help=store)
    return args


if __name__ == "__main__":
    options = parser().parse_args()
    from pipeline.serve import serve  # after the command line has been read

    run_job(serve, options.model, options.host, options.port, options.tracking_uri)
