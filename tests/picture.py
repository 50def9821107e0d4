"""Draw the report of a use case's newest run as a PNG: ``make picture`` writes conf/penguins/report.png.

The run is in the default store: MLFLOW_TRACKING_URI, else .work/mlflow.db.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.exceptions import MlflowException
from PIL import Image, ImageChops

from pipeline.tracking.store import default_uri

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
WIDTH, HEIGHT = 1000, 3600
"""Of the browser's window, in pixels; what is empty below the page is cut off."""


def newest_report(store: str, experiment: str, folder: Path) -> Path:
    """Copy `report.html` of the experiment's newest finished run into ``folder``; return the copy.

    Raises:
        SystemExit: the store has no such run.
    """
    client = MlflowClient(tracking_uri=store)
    stored = client.get_experiment_by_name(experiment)
    runs = client.search_runs([stored.experiment_id], "attributes.status = 'FINISHED'", max_results=1) if stored else []
    if not runs:
        sys.exit(f"error: {store} has no finished run of experiment '{experiment}'; run make train first")
    try:
        uri = f"runs:/{runs[0].info.run_id}/report.html"
        return Path(download_artifacts(artifact_uri=uri, dst_path=str(folder), tracking_uri=store))
    except (MlflowException, OSError) as error:
        sys.exit(f"error: run {runs[0].info.run_id} in {store} has no report.html; run make train again ({error})")


def photograph(page: Path, picture: Path) -> None:
    """Let a headless browser draw ``page``; keep it in 256 colours as ``picture``.

    Raises:
        SystemExit: there is no browser.
    """
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        sys.exit("error: make picture needs Chromium; install it (Debian, Ubuntu: apt-get install chromium)")
    shot = page.with_suffix(".png")
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    command += [f"--window-size={WIDTH},{HEIGHT}", f"--screenshot={shot}", page.as_uri()]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    image = Image.open(shot).convert("RGB")
    _, _, _, bottom = ImageChops.difference(image, Image.new("RGB", image.size, "white")).getbbox() or (0, 0, 0, HEIGHT)
    image = image.crop((0, 0, WIDTH, min(HEIGHT, bottom + 20)))
    image.quantize(256).save(picture, optimize=True)


def main() -> None:
    """Draw the report of the newest run."""
    args = argparse.ArgumentParser(prog="picture.py", description="The report of the newest run as a picture.")
    args.add_argument("--config", required=True, type=Path, metavar="FILE", help="the use case's pipeline.yaml")
    options = args.parse_args()
    folder = options.config.resolve().parent
    with tempfile.TemporaryDirectory() as scratch:
        page = newest_report(default_uri(), folder.name, Path(scratch).resolve())
        photograph(page, folder / "report.png")
    print(folder / "report.png")


if __name__ == "__main__":
    main()
