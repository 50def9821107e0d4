"""Imports go one way, a process loads no more than it needs, and functions and files stay short.

Each check takes a folder that holds `pipeline/` and returns its complaints, so that a test can break a copy. The rule
of imports is a walk over the syntax trees: it also sees imports inside functions and under TYPE_CHECKING.
"""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from conftest import ROOT

ROOMS = ["runtime", "config", "model", "data", "evaluation", "tracking", "training", "launch"]
JOBS = ["pipeline.train", "pipeline.gate", "pipeline.predict", "pipeline.serve"]
HEAVY = ["pyspark", "mlflow", "horovod", "petastorm"]
Check = Callable[[Path], list[str]]


def modules(root: Path) -> dict[str, Path]:
    """Return the file of each module of ``pipeline``, by its dotted name."""
    files = {".".join(file.relative_to(root).with_suffix("").parts): file for file in root.glob("pipeline/**/*.py")}
    return {name.removesuffix(".__init__"): file for name, file in files.items()}


def parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def imports_of(name: str, file: Path, known: dict[str, Path]) -> set[str]:
    """Return what a module imports anywhere in its text, as dotted names; modules of ours by their full name."""
    package = name if file.stem == "__init__" else name.rpartition(".")[0]
    imported: set[str] = set()
    for node in ast.walk(parsed(file)):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            names = {f"{base}.{alias.name}" for alias in node.names}
            imported |= {full if full in known else base for full in names}
    return imported


def imports(root: Path) -> dict[str, set[str]]:
    """Return what each module of ``pipeline`` imports."""
    known = modules(root)
    return {name: imports_of(name, file, known) for name, file in known.items()}


def is_of(module: str, *packages: str) -> bool:
    return any(f"{module}.".startswith(f"{package}.") for package in packages)


def level(module: str) -> int:
    """Return the place of a module's room in the rule: the package itself comes first, the files of the jobs last."""
    _, *parts = module.split(".")
    return -1 if not parts else ROOMS.index(parts[0]) if parts[0] in ROOMS else len(ROOMS)


def imports_against_the_rule(root: Path) -> list[str]:
    edges = {
        name: {other for other in imported if is_of(other, "pipeline")} for name, imported in imports(root).items()
    }
    problems = [f"{n} imports {o}" for n, others in edges.items() for o in others if level(o) > level(n)]
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as error:
        problems.append("a cycle: " + " <- ".join(error.args[1]))
    return problems


def imports_that_a_model_lacks(root: Path) -> list[str]:
    """Return imports of model/ that its packaged copy would not find, or that would make a model heavy."""
    problems = []
    for file in root.glob("pipeline/model/*.py"):
        for node in ast.walk(parsed(file)):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = ["pipeline"] if node.level > 1 else [node.module or ""] if not node.level else []
            problems += [f"{file.stem} imports {name}" for name in names if is_of(name, "pipeline", *HEAVY)]
    return problems


def loaded(root: Path, *stages: Sequence[str]) -> list[set[str]]:
    """Import modules from ``root`` in a fresh process, stage by stage; return what it has loaded after each stage."""
    code = "import importlib, json, sys\n"
    code += f"for stage in {[list(stage) for stage in stages]}:\n"
    code += "    for name in stage: importlib.import_module(name)\n"
    code += "    print(json.dumps([*sys.modules]))\n"
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env={**os.environ, "PYTHONPATH": str(root)},
        cwd=root,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return [set(json.loads(line)) for line in ran.stdout.splitlines()]


def of_room(root: Path, room: str) -> list[str]:
    return [name for name in modules(root) if is_of(name, f"pipeline.{room}")]


def loaded_by_a_rank(root: Path) -> list[str]:
    """Return what a rank must not load: MLflow before it writes metrics, and Spark ever."""
    edges, reached, waiting = imports(root), set[str](), of_room(root, "training")
    while waiting:  # also what a function imports later
        name = waiting.pop()
        if name in edges and name not in reached:
            reached.add(name)
            waiting += edges[name]
    at_start, later = loaded(root, ["pipeline.training.entry", *of_room(root, "training")], sorted(reached))
    return sorted({*(m for m in at_start if is_of(m, "mlflow")), *(m for m in later if is_of(m, "pyspark"))})


def loaded_by_the_driver(root: Path) -> list[str]:
    (start,) = loaded(root, JOBS)
    return sorted(name for name in start if is_of(name, "torch"))


def loaded_by_a_model(root: Path) -> list[str]:
    (everything,) = loaded(root, of_room(root, "model"))
    ours = [name for name in everything if is_of(name, "pipeline") and not is_of(name, "pipeline.model")]
    return sorted(
        [*(name for name in everything if is_of(name, *HEAVY)), *(name for name in ours if name != "pipeline")]
    )


def beyond_the_limits(root: Path) -> list[str]:
    """Return files of more than 300 lines, functions of more than 60, and those with more than 7 parameters."""
    problems = []
    for name, file in modules(root).items():
        if (lines := len(file.read_text(encoding="utf-8").splitlines())) > 300:
            problems.append(f"{name} has {lines} lines")
        for node in ast.walk(parsed(file)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                args, length = node.args, (node.end_lineno or node.lineno) - node.lineno + 1
                every = [*args.posonlyargs, *args.args, *args.kwonlyargs, args.vararg, args.kwarg]
                parameters = [arg for arg in every if arg and arg.arg not in ("self", "cls")]
                if length > 60:
                    problems.append(f"{name}.{node.name} has {length} lines")
                if len(parameters) > 7:
                    problems.append(f"{name}.{node.name} has {len(parameters)} parameters")
    return problems


@pytest.mark.parametrize(
    "check",
    [
        imports_against_the_rule,
        imports_that_a_model_lacks,
        loaded_by_a_rank,
        loaded_by_the_driver,
        loaded_by_a_model,
        beyond_the_limits,
    ],
)
def test_the_package_keeps_the_contract(check: Check) -> None:
    assert check(ROOT) == []


@pytest.mark.parametrize(
    ("check", "file", "line", "complaint"),
    [
        (imports_against_the_rule, "data/manifest.py", "from pipeline.training import task", "data.manifest imports"),
        (
            imports_against_the_rule,
            "data/manifest.py",
            "def f(): import pipeline.launch.ranks",
            "data.manifest imports",
        ),
        (
            imports_against_the_rule,
            "launch/memory.py",
            "if 0: from pipeline.train import train",
            "launch.memory imports",
        ),
        (imports_against_the_rule, "runtime/errors.py", "from . import console", "a cycle: "),
        (imports_that_a_model_lacks, "model/network.py", "def f(): import mlflow", "network imports mlflow"),
        (imports_that_a_model_lacks, "model/network.py", "from ..runtime import errors", "network imports pipeline"),
        (loaded_by_a_rank, "training/loader.py", "import pyspark", "pyspark"),
        (loaded_by_a_rank, "data/manifest.py", "import pyspark", "pyspark"),
        (loaded_by_the_driver, "train.py", "import torch", "torch"),
        (loaded_by_a_model, "model/network.py", "import pipeline.runtime.errors", "pipeline.runtime"),
        (beyond_the_limits, "serve.py", "def f():" + 60 * "\n    pass", "serve.f has 61 lines"),
        (beyond_the_limits, "serve.py", "def f(a, b, /, c, d=1, *e, f, g=2, **h): pass", "serve.f has 8 parameters"),
        (beyond_the_limits, "serve.py", 300 * "#\n", "pipeline.serve has "),
    ],
)
def test_a_change_that_breaks_the_contract_is_reported(
    tmp_path: Path, check: Check, file: str, line: str, complaint: str
) -> None:
    shutil.copytree(ROOT / "pipeline", tmp_path / "pipeline", ignore=shutil.ignore_patterns("__pycache__"))
    changed = tmp_path / "pipeline" / file
    changed.write_text(f"{changed.read_text(encoding='utf-8')}\n{line}\n", encoding="utf-8")
    assert any(complaint in problem for problem in check(tmp_path))


def test_a_job_s_script_only_parses_calls_and_prints() -> None:
    for script in (ROOT / "jobs").glob("*.py"):
        assert len(script.read_text(encoding="utf-8").splitlines()) <= 40, script
