"""Score raw rows: ``spark-submit jobs/predict.py --model URI --input new.csv --output out/``, or one ``--row JSON``."""

import argparse
import sys

try:
    from pipeline.runtime.console import run_job
except ImportError as error:  # another package of this name is found first, or none
    sys.stderr.write(f"error: {error}: source conf/spark/env.sh, and take other packages 'pipeline' off PYTHONPATH\n")
    sys.exit(2)

TRUST = "accept a model of an older version of this project that uses functions which are no longer allowed"


def parser() -> argparse.ArgumentParser:
    """Return the parser of this job's command line."""
    args = argparse.ArgumentParser(prog="predict.py", description="Raw rows in, predictions out.")
    args.add_argument("--model", required=True, metavar="URI", help="model_uri of a training's summary, or models:/…")
    args.add_argument("--input", nargs="+", metavar="CSV", help="files, folders or globs")
    args.add_argument("--output", metavar="FOLDER", help="where the predictions go; an earlier output is replaced")
    args.add_argument("--format", choices=["parquet", "csv"], default="parquet")
    args.add_argument("--row", metavar="JSON", help='one raw row instead of files, without Spark: {"Island": "Biscoe"}')
    store = "MLflow store (default: MLFLOW_TRACKING_URI, else .work/mlflow.db)"
    args.add_argument("--tracking-uri", metavar="URI", help=store)
    args.add_argument("--trust-model", action="store_true", help=TRUST)
    return args


if __name__ == "__main__":
    options = parser().parse_args()
    from pipeline import predict  # after the command line has been read: --help needs no Spark

    if options.row is not None:
        run_job(predict.predict_row, options.model, options.row, options.tracking_uri)
    elif options.input and options.output:
        files = options.model, options.input, options.output, options.format, options.tracking_uri, options.trust_model
        run_job(predict.predict_files, *files)
    else:
        parser().error("give --input and --output, or --row")
