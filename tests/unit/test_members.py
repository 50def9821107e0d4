"""Several networks in one: each is what its factors make of the shared weights, and the answer is their mean."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from conftest import UseCase
from datasets import write_dataset
from pipeline.config import Training
from pipeline.data.specs import net_spec
from pipeline.model.members import OwnLinear, SharedLinear
from pipeline.model.network import TabularNet
from pipeline.model.spec import CategoricalInput, NetSpec, NumericInput, Periodic
from pipeline.training.components import decaying, make_losses

MEMBERS = 3
NUMBERS = (NumericInput("a", 0.5, 2.0, fill=0.5, indicator=True), NumericInput("b", 0.0, 1.0))


def network(outputs: int, members: int = MEMBERS) -> TabularNet:
    torch.manual_seed(0)
    waves = Periodic(4, 0.5, 2)
    category = CategoricalInput("k", "embedding", 3, 2)
    spec = NetSpec(NUMBERS, (category,), (8, 6), 0.0, outputs, 10.0, 4.0, waves, members=members)
    net = TabularNet(spec)
    with torch.no_grad():  # as after some training: no factor is 1
        for layer in net.layers:
            if isinstance(layer, SharedLinear):
                layer.before.copy_(torch.randn_like(layer.before))
                layer.after.copy_(torch.randn_like(layer.after))
    return net


def rows() -> torch.Tensor:
    return torch.tensor([[1.0, -2.0, 0.0], [float("nan"), 0.3, 2.0], [-4.0, 5.0, 3.0], [0.0, 0.0, 1.0]])


def member(net: TabularNet, number: int) -> nn.Sequential:
    """Return one member as layers of torch's own, by the paper's formula: W scaled by its factors."""
    layers: list[nn.Module] = []
    for layer in net.layers:
        if isinstance(layer, SharedLinear):
            weight = layer.after[number].unsqueeze(1) * layer.weight * layer.before[number]
        elif isinstance(layer, OwnLinear):
            weight = layer.weight[number].T
        else:
            layers.append(layer)
            continue
        plain = nn.Linear(weight.shape[1], weight.shape[0])
        with torch.no_grad():
            plain.weight.copy_(weight)
            plain.bias.copy_(layer.bias[number])
        layers.append(plain)
    return nn.Sequential(*layers)


@pytest.mark.parametrize("outputs", [1, 3])
def test_a_member_is_the_network_that_its_factors_make(outputs: int) -> None:
    net = network(outputs)
    with torch.no_grad():
        together, inputs = net.of_members(rows()), net._inputs(rows())
        apart = torch.stack([member(net, number)(inputs) for number in range(MEMBERS)], dim=1)
        apart = apart * 4.0 + 10.0 if outputs == 1 else apart
        assert torch.allclose(together, apart, rtol=1e-5, atol=1e-5)
        assert not torch.allclose(together[:, 0], together[:, 1])
        if outputs == 1:
            assert torch.allclose(net(rows()), apart.mean(dim=1), rtol=1e-5, atol=1e-5)
        else:
            probabilities = torch.softmax(apart, dim=2).mean(dim=1)
            assert torch.allclose(torch.softmax(net(rows()), dim=1), probabilities, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("outputs", [1, 3])
def test_each_member_learns_by_itself(outputs: int) -> None:
    net = network(outputs)
    labels = torch.tensor([12.0, 3.0, 9.0, 10.0]) if outputs == 1 else torch.tensor([0, 2, 1, 2])
    task = "regression" if outputs == 1 else "classification"
    measuring, learning = make_losses(task, net.spec, Training())
    with torch.no_grad():
        together = net.of_members(rows())
        each = torch.stack([measuring(together[:, number], labels) for number in range(MEMBERS)])
        assert torch.allclose(learning(together, labels), each.mean(dim=0))
        assert measuring(net(rows()), labels).shape == (4,)
        assert learning(together[:0], labels[:0]).tolist() == []


def test_a_network_without_members_is_as_it_was() -> None:
    net = network(3, members=1)
    assert [type(layer) for layer in net.layers] == [nn.Linear, nn.ReLU, nn.Linear, nn.ReLU, nn.Linear]
    assert torch.equal(net(rows()), net.of_members(rows()))
    measuring, learning = make_losses("classification", net.spec, Training())
    labels = torch.tensor([0, 2, 1, 2])
    assert torch.equal(measuring(net(rows()), labels), learning(net(rows()), labels))


def test_a_missing_value_that_training_never_had_changes_nothing_but_its_fill() -> None:
    torch.manual_seed(0)
    net = TabularNet(NetSpec(NUMBERS, (), (8,), 0.0, 2, 0.0, 1.0, members=MEMBERS))
    there, gone = torch.tensor([[0.5, 1.0]]), torch.tensor([[float("nan"), 1.0]])
    assert torch.equal(net(there), net(gone))


def test_only_shared_and_last_weights_decay() -> None:
    net = network(3)
    flat = decaying(net)
    decays = {
        name: bool(part.all())
        for (name, p), part in zip(
            net.named_parameters(), torch.split(flat, [p.numel() for p in net.parameters()]), strict=True
        )
    }
    expected = {"periodic.weight", "layers.0.weight", "layers.2.weight", "layers.4.weight"}
    assert {name for name, does in decays.items() if does} == expected


def test_members_come_from_the_settings(use_case: UseCase, tmp_path: Path) -> None:
    features = {"numeric": ["a"], "categorical": ["k"]}
    data = write_dataset(tmp_path / "data", 20, 10, 1)
    assert net_spec(use_case(features=features), data).members == 1
    assert net_spec(use_case(features=features, model={"preset": "none", "members": 4}), data).members == 4
