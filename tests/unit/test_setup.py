"""The first steps of `make setup` on machines that lack something: each goes on, or ends with one sentence."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from conftest import ROOT

NO_PYTHON = "error: Python 3.11 was not found; install it, or name it: make PYTHON=/path/to/python3.11"
IS_311 = 'case "$*" in *version_info*|*sysconfig*) exit 0;; *) echo "$0 $*"; exit 1;; esac'  # ends at its first work
IS_OLDER = "exit 1"


def set_up(
    folder: Path, programs: Mapping[str, str], *arguments: str, lacking: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run `make setup` in a copy of the Makefile on a machine that has only these programs beside the usual tools."""
    for name in ("Makefile", "pyproject.toml", "requirements.lock"):
        shutil.copy(ROOT / name, folder)
    tools = folder / "bin"
    tools.mkdir()
    for name in ("sh", "test", "mkdir", "touch", "rm", "mktemp", "grep", "echo", "tr", "sed", "find", "uname", "g++"):
        if name not in (*programs, lacking) and (found := shutil.which(name)):
            (tools / name).symlink_to(found)
    for name, script in programs.items():
        (tools / name).write_text(f"#!{shutil.which('sh')}\n{script}\n")
        (tools / name).chmod(0o755)
    make = str(shutil.which("make"))
    environment = {"PATH": str(tools), "HOME": str(folder), "TMPDIR": str(folder)}
    return subprocess.run(
        [make, "setup", f"PATH={tools}", *arguments],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_python_3_11_of_the_machine_is_used(tmp_path: Path) -> None:
    ran = set_up(tmp_path, {"python3.11": IS_311})
    assert f"{tmp_path}/bin/python3.11 -m venv .venv" in ran.stdout
    assert "tested on" not in ran.stdout


def test_another_platform_is_told_and_goes_on(tmp_path: Path) -> None:
    ran = set_up(tmp_path, {"python3.11": IS_311, "uname": "echo Darwin arm64"})
    assert ran.stdout.startswith("set-up: tested on Linux x86-64 only, not on Darwin arm64; trying it anyway\n")
    assert "python3.11 -m venv .venv" in ran.stdout


def test_uv_of_the_machine_brings_python_3_11(tmp_path: Path) -> None:
    brought = tmp_path / "brought"
    brought.write_text(f"#!/bin/sh\n{IS_311}\n")
    brought.chmod(0o755)
    uv = f'case "$*" in "python install 3.11") exit 0;; "python find 3.11") echo {brought};; *) exit 9;; esac'
    ran = set_up(tmp_path, {"python3": IS_OLDER, "uv": uv})
    assert "set-up: there is no Python 3.11, so uv downloads one" in ran.stderr
    assert f"{brought} -m venv .venv" in ran.stdout


@pytest.mark.parametrize(
    "programs",
    [
        pytest.param({}, id="no Python at all"),
        pytest.param({"python3": IS_OLDER}, id="another Python, which cannot install uv"),
        pytest.param({"python3": IS_OLDER, "uv": "echo 'error: no network' >&2; exit 2"}, id="uv reaches nothing"),
    ],
)
def test_where_none_can_be_had_it_says_what_to_do(tmp_path: Path, programs: dict[str, str]) -> None:
    ran = set_up(tmp_path, programs)
    assert ran.returncode == 2
    assert NO_PYTHON in ran.stderr.splitlines()
    assert not (tmp_path / ".venv").exists()
    assert [name for name in os.listdir(tmp_path) if name.startswith("tmp.")] == []  # what uv was to be installed in


def test_a_python_that_the_user_has_named_is_not_replaced(tmp_path: Path) -> None:
    ran = set_up(tmp_path, {"python3": IS_OLDER, "uv": "exit 0"}, "PYTHON=python3")
    assert NO_PYTHON in ran.stderr.splitlines()
    assert "downloads" not in ran.stderr


def test_a_missing_compiler_is_named(tmp_path: Path) -> None:
    ran = set_up(tmp_path, {"python3.11": IS_311}, lacking="g++")
    assert ran.returncode == 2
    assert "install g++ (Debian, Ubuntu: apt-get install g++)" in ran.stderr
