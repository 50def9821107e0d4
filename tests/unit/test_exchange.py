"""What one rank exchanges with itself; two ranks exchange in tests/horovod. Horovod starts in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys

ONE_RANK = """
import torch
from torch import nn
from pipeline.training.exchange import Exchange, PeerLost, Ranks, current_rank

assert current_rank(is_elastic=False) == 0  # known before the ranks have met
assert current_rank(is_elastic=True) is None
ranks = Ranks.start()
assert (ranks.rank, ranks.size, current_rank(is_elastic=True)) == (0, 1, 0)
assert ranks.gather({"a": 1}) == [{"a": 1}]
assert ranks.add_up(torch.tensor([1.5, 2.5], dtype=torch.float64), "sum").tolist() == [1.5, 2.5]

torch.manual_seed(0)
net = nn.Linear(2, 1)
before = [p.detach().clone() for p in net.parameters()]
ranks.broadcast(dict(net.named_parameters()))
exchange = Exchange(net, ranks)
assert all(torch.equal(a, b) for a, b in zip(before, net.parameters()))
assert torch.equal(exchange.parameter.data, torch.cat([p.flatten() for p in before]))

def step(loss_factor, stop):
    exchange.clear()
    loss = net(torch.ones(3, 2)).sum() * loss_factor
    loss.backward()
    exchange.start(loss.detach(), stop)
    return exchange.finish()

assert step(1.0, False) == (True, False, True)
assert exchange.parameter.grad.tolist() == [3.0, 3.0, 3.0]
assert step(1.0, True) == (True, True, True)
assert step(float("nan"), False) == (False, False, True)

weighted = Exchange(net, ranks, is_weighted=True)

def weighted_step(weights):
    weighted.clear()
    loss = (net(torch.ones(3, 2)).squeeze(1) * weights).sum()
    loss.backward()
    weighted.start(loss.detach(), False, weights)
    return weighted.finish()

assert weighted_step(torch.tensor([0.0, 1.0, 3.0])) == (True, False, True)
assert weighted.parameter.grad.tolist() == [1.0, 1.0, 1.0]
assert weighted_step(torch.zeros(3)) == (True, False, False)
assert weighted.parameter.grad.tolist() == [0.0, 0.0, 0.0]
assert weighted_step(torch.tensor([0.0, float("nan"), 3.0])) == (False, False, False)
exchange = weighted
exchange.parameter.data.add_(1)  # to step the one parameter is to step the network
assert torch.equal(net.bias.detach(), before[1] + 1)
ranks.barrier()
ranks.shut_down()
try:
    ranks.rank
except ValueError:
    print("all well")
"""


def test_one_rank_adds_up_gathers_and_stops() -> None:
    environment = {**os.environ, "HOROVOD_RANK": "0", "HOROVOD_SIZE": "1", "PYTHONWARNINGS": "ignore"}
    ran = subprocess.run(
        [sys.executable, "-c", ONE_RANK], env=environment, capture_output=True, text=True, timeout=100, check=False
    )
    assert ran.stdout == "all well\n", ran.stderr
