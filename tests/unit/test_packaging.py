"""The wheel holds the files that a cluster needs, and no others."""

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
    assert files == {n for n in names if ".dist-info/" not in n}
    for package in ("pyspark", "torch", "horovod[spark]", "petastorm", "mlflow"):
        assert re.search(rf"^Requires-Dist: {re.escape(package)}[<>=]", metadata, re.MULTILINE), package
    assert "Requires-Python: <3.12,>=3.11" in metadata


def test_the_lock_names_versions_and_no_addresses() -> None:
    lines = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9-]+==[0-9a-z.]+", line) for line in lines)
