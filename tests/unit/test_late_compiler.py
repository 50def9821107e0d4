"""torch's compiler stays out of a process that does not need it, and comes when something does."""

from __future__ import annotations

import subprocess
import sys

import pytest

BEGIN = """
import sys
import torch
from pipeline.training import late_compiler

late_compiler.install()
parameter = torch.nn.Parameter(torch.ones(3))
optimizer = torch.optim.Adam([parameter])
parameter.grad = torch.ones(3)
optimizer.step()
optimizer.zero_grad()
is_real = lambda: "torch._dynamo.eval_frame" in sys.modules
assert not is_real()
"""
NEEDS = {
    "torch.compile": "assert torch.compile(lambda x: x + 1, backend='eager')(torch.ones(2)).tolist() == [2.0, 2.0]",
    "a submodule": "import torch._dynamo.eval_frame as a\nassert sys.modules['torch._dynamo'].eval_frame is a",
    "a name of it": "from torch._dynamo import config\nconfig.verbose = False",
    "a user's function that it must leave alone": "f = torch._dynamo.disable(lambda x: x)\n"
    "assert torch.compile(lambda x: f(x) + 1, backend='eager')(torch.ones(2)).tolist() == [2.0, 2.0]",
}


@pytest.mark.parametrize("need", NEEDS)
def test_the_compiler_comes_when_it_is_needed(need: str) -> None:
    end = "assert is_real()\nassert torch._dynamo is sys.modules['torch._dynamo']\n"
    end += "assert torch._dynamo.eval_frame is sys.modules['torch._dynamo.eval_frame']\n"
    # what torch itself has kept from the compiler before is kept from it still
    end += "kept = type(optimizer).zero_grad.__wrapped__.__dynamo_disable\n"
    end += "assert kept.__module__.startswith('torch._dynamo'), kept\noptimizer.step()\n"
    end += "print('all well')\n"
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", f"{BEGIN}{NEEDS[need]}\n{end}"],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert ran.stdout == "all well\n", ran.stderr


def test_inspect_does_not_load_the_compiler() -> None:
    look = "import inspect\ninspect.getmodule(inspect.currentframe())\ninspect.stack()\nassert not is_real()\n"
    look += "assert not hasattr(torch._dynamo, '__file__')\nprint('all well')\n"
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", f"{BEGIN}{look}"],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert ran.stdout == "all well\n", ran.stderr


def test_two_threads_load_the_compiler_once() -> None:
    race = "import threading\nreals = []\nstand_in = torch._dynamo\n"
    race += "threads = [threading.Thread(target=lambda: reals.append(stand_in.config)) for _ in range(8)]\n"
    race += "[t.start() for t in threads]\n[t.join() for t in threads]\n"
    race += "assert len(reals) == 8 and len(set(map(id, reals))) == 1 and is_real()\nprint('all well')\n"
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", f"{BEGIN}{race}"],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert ran.stdout == "all well\n", ran.stderr
