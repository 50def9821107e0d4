"""What the pages show is what the jobs print, and their commands answer."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pandas as pd
from PIL import Image

from conftest import PENGUINS, ROOT
from picture import BROWSERS
from submitting import Penguins


def without_numbers(text: str) -> str:
    return re.sub(r"\d[\d:,]*", "0", re.sub(r"\b[0-9a-f]{16,}\b", "0", text))


def test_the_front_page_shows_what_the_job_prints(penguins: Penguins) -> None:
    """Each line of the page is a line of the log, in its order; numbers may differ, and `…` stands for any text."""
    blocks = re.findall(r"```text\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    for block, printed in zip(blocks, (penguins.ran.stderr, penguins.ran.stdout), strict=True):
        lines = iter(without_numbers(printed).splitlines())
        for shown in without_numbers(block).splitlines():
            pattern = ".*".join(map(re.escape, shown.split("…")))
            assert any(re.fullmatch(pattern, line) for line in lines), shown


def test_the_summary_has_the_keys_of_the_page(penguins: Penguins) -> None:
    page = (ROOT / "pipeline" / "README.md").read_text(encoding="utf-8")
    rows = page.split("| key | value |\n|---|---|\n")[1].split("\n\n")[0].splitlines()
    keys = [key for row in rows for key in re.findall(r"`(\w+)`", row.split("|")[1])]
    assert sorted(keys) == sorted(penguins.ran.summary)
    (counts,) = (row for row in rows if row.startswith("| `rows`"))
    assert sorted(re.findall(r"`(\w+)`", counts.split("|")[2])) == sorted(penguins.ran.summary["rows"])


def page_commands(program: str) -> list[str]:
    """Return the commands of the page about models that begin so."""
    page = (ROOT / "pipeline" / "tracking" / "README.md").read_text(encoding="utf-8")
    blocks = "\n".join(re.findall(r"```bash\n(.*?)```", page, flags=re.DOTALL)).replace("\\\n", " ")
    return [line for line in blocks.splitlines() if line.startswith(program)]


def test_predict_commands_answer(penguins: Penguins, tmp_path: Path) -> None:
    (files,), (row,) = page_commands("spark-submit jobs/predict.py"), page_commands("python jobs/predict.py")
    (tmp_path / "jobs").symlink_to(ROOT / "jobs")
    pd.read_csv(PENGUINS.parent / "penguins.csv").head(3).to_csv(tmp_path / "new.csv", index=False)
    environ = {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{penguins.work_dir / 'mlflow.db'}"}

    def answer(command: str) -> dict[str, object]:
        words = ["bash", "-ec", command]
        ran = subprocess.run(words, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=120, check=False)
        assert ran.returncode == 0, ran.stderr
        summary: dict[str, object] = json.loads(ran.stdout.splitlines()[-1])
        return summary

    assert answer(files)["status"] == "ok"
    (scored,) = (tmp_path / "out").glob("*.csv")
    assert pd.read_csv(scored)["prediction"].tolist() == ["Adelie"] * 3
    assert "Gentoo" in json.dumps(answer(row))


def test_the_picture_is_drawn_or_the_missing_browser_named(penguins: Penguins, tmp_path: Path) -> None:
    config = Path(shutil.copytree(PENGUINS.parent, tmp_path / "penguins")) / PENGUINS.name
    picture = config.parent / "report.png"
    picture.unlink()
    store = f"sqlite:///{penguins.work_dir / 'mlflow.db'}"
    words = ["make", "-s", "-o", ".venv/.ready", "picture", f"CONFIG={config}", f"STORE={store}"]
    ran = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    if any(map(shutil.which, BROWSERS)):
        assert ran.returncode == 0, ran.stderr
        with Image.open(picture) as image:
            assert image.width == 1000
            assert image.height > 1000
        assert picture.stat().st_size < 300_000
    else:
        assert "error: make picture needs Chromium; install it" in ran.stderr
        assert not picture.exists()
