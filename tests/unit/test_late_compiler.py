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


def check(code: str) -> None:
    """Run ``code`` after BEGIN in a process of its own, and assert that it comes to its end."""
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", f"{BEGIN}{code}\nprint('all well')\n"],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert ran.stdout == "all well\n", ran.stderr


@pytest.mark.parametrize("need", NEEDS)
def test_the_compiler_comes_when_it_is_needed(need: str) -> None:
    check(
        f"""{NEEDS[need]}
assert is_real()
assert torch._dynamo is sys.modules["torch._dynamo"]
assert torch._dynamo.eval_frame is sys.modules["torch._dynamo.eval_frame"]
# what torch itself has kept from the compiler before is kept from it still
kept = type(optimizer).zero_grad.__wrapped__.__dynamo_disable
assert kept.__module__.startswith("torch._dynamo"), kept
optimizer.step()
"""
    )


def test_inspect_does_not_load_the_compiler() -> None:
    check(
        """
import inspect
inspect.getmodule(inspect.currentframe())
inspect.stack()
assert not is_real()
assert not hasattr(torch._dynamo, "__file__")
"""
    )


def test_threads_that_need_the_compiler_in_different_ways_load_it_once() -> None:
    check(
        """
import importlib, threading
stand_in, reals = torch._dynamo, []
by_attribute = lambda: reals.append(stand_in.config)
by_import = lambda: reals.append(importlib.import_module("torch._dynamo.config"))
threads = [threading.Thread(target=way) for way in 4 * (by_attribute, by_import)]
for thread in threads: thread.start()
for thread in threads: thread.join(60)
assert not any(thread.is_alive() for thread in threads), "the threads wait for each other"
assert len(reals) == 8 and len(set(map(id, reals))) == 1 and is_real()
"""
    )
