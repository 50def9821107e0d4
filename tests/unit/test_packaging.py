"""The wheel holds what a cluster needs; jobs are short; worker rooms import no Spark."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from conftest import ROOT


def test_the_wheel_holds_the_whole_package(tmp_path: Path) -> None:
    source = tmp_path / "source"  # a copy: building leaves files behind, which a later build would take along
    shutil.copytree(ROOT / "pipeline", source / "pipeline", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source)
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q", "-w", tmp_path, source],
        check=True,
        timeout=100,
    )
    (wheel,) = tmp_path.glob("pipeline-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = archive.read(next(n for n in names if n.endswith("METADATA"))).decode()
    files = {str(p.relative_to(ROOT)) for p in (ROOT / "pipeline").rglob("*") if p.suffix in (".py", ".j2", ".typed")}
    assert files == {n for n in names if n.startswith("pipeline/")}
    for package in ("pyspark", "torch", "horovod[spark]", "petastorm", "mlflow"):
        assert re.search(rf"^Requires-Dist: {re.escape(package)}[<>=]", metadata, re.MULTILINE), package
    assert "Requires-Python: <3.12,>=3.11" in metadata


def test_the_lock_names_versions_and_no_addresses() -> None:
    lines = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9-]+==[0-9a-z.]+", line) for line in lines)


def test_worker_rooms_import_no_spark_and_no_mlflow() -> None:
    code = "import sys, pipeline.training.entry, pipeline.training.worker; "
    code += "sys.exit(str([m for m in ('pyspark', 'mlflow') if m in sys.modules] or ''))"
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=100, check=False
    )
    assert ran.stderr.strip() == ""


def test_the_driver_imports_no_torch() -> None:
    code = "import sys, pipeline.train; sys.exit('torch' in sys.modules)"
    ran = subprocess.run([sys.executable, "-W", "ignore", "-c", code], timeout=100, check=False)
    assert ran.returncode == 0


def test_jobs_only_parse_call_and_print() -> None:
    for job in (ROOT / "jobs").glob("*.py"):
        assert len(job.read_text().splitlines()) <= 40, job
