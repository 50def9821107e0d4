"""The network scales and encodes its own inputs."""

from __future__ import annotations

import torch
from safetensors.torch import load

from pipeline.model.network import TabularNet, describe_weights, weight_bytes
from pipeline.model.spec import CategoricalInput, NetSpec, NumericInput
from pipeline.training.components import make_loss


def spec(categorical: tuple[CategoricalInput, ...] = (), outputs: int = 3, **more: object) -> NetSpec:
    values = {"label_mean": 0.0, "label_std": 1.0, "hidden_sizes": (10, 10), "dropout": 0.0, **more}
    numeric = (NumericInput("a", shift=10.0, scale=0.5), NumericInput("b", shift=0.0, scale=1.0))
    return NetSpec(numeric=numeric, categorical=categorical, outputs=outputs, **values)  # type: ignore[arg-type]


def test_scaling_is_part_of_the_network() -> None:
    net = TabularNet(spec(hidden_sizes=()))
    weights = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    net.load_state_dict(net.state_dict() | {"layers.0.weight": weights, "layers.0.bias": torch.zeros(3)})
    assert net(torch.tensor([[14.0, 7.0]])).tolist() == [[2.0, 7.0, 0.0]]


def test_layer_shapes_are_the_lab_s() -> None:
    island = CategoricalInput("island", "index", values=3, width=1)
    net = TabularNet(NetSpec((NumericInput("a", 0, 1),) * 4, (island,), (10, 10), 0.0, 3, 0.0, 1.0))
    assert [tuple(p.shape) for name, p in net.named_parameters() if "weight" in name] == [(10, 5), (10, 10), (3, 10)]
    text = describe_weights(net)
    assert "layers.0.weight (10, 5)" in text
    assert "..." not in text


def test_encodings_of_known_and_unknown_values() -> None:
    one_hot = CategoricalInput("k", "onehot", values=3, width=3)
    vector = CategoricalInput("v", "embedding", values=3, width=2)
    net = TabularNet(spec((one_hot, vector)))
    codes = torch.tensor([[0.0, 0.0], [2.0, 2.0], [3.0, 3.0]])  # the last is a value that training never saw
    assert net._encoded(0, one_hot, codes[:, 0]).tolist() == [[1, 0, 0], [0, 0, 1], [0, 0, 0]]
    assert net._encoded(1, vector, codes[:, 1]).shape == (3, 2)
    assert net(torch.cat([torch.zeros(3, 2), codes], dim=1)).shape == (3, 3)


def test_an_embedding_s_column_may_have_any_name_and_its_older_weights_load() -> None:
    names = ("type", "x.y", "", "0_type", "größe")
    categories = tuple(CategoricalInput(name, "embedding", values=2, width=i + 1) for i, name in enumerate(names))
    net = TabularNet(spec(categories))
    saved = load(weight_bytes(net))
    assert [*net.embeddings] == ["0_type", "1_x_y", "2_", "3_0_type", "4_gr__e"]
    again = TabularNet(spec(categories))
    again.load_state_dict(saved)
    assert weight_bytes(again) == weight_bytes(net)
    # until version 0.2.0 the column's name, which was an identifier, was the embedding's
    older = {name.replace("4_gr__e", "größe").replace(".0_type", ".type"): tensor for name, tensor in saved.items()}
    assert "embeddings.größe.weight" in older
    again = TabularNet(spec(categories))
    again.load_state_dict(older)
    assert weight_bytes(again) == weight_bytes(net)


def test_regression_answers_in_the_label_s_unit_and_learns_in_deviations() -> None:
    net = TabularNet(spec(outputs=1, label_mean=4000.0, label_std=800.0, hidden_sizes=()))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
    out = net(torch.zeros(2, 2))
    assert out.tolist() == [[4000.0], [4000.0]]
    assert make_loss("regression", net.spec)(out, torch.tensor([4800.0, 3200.0])).tolist() == [1.0, 1.0]


def test_no_rows_give_a_zero_loss_and_zero_gradients() -> None:
    no_codes, no_numbers = torch.empty(0, dtype=torch.int64), torch.empty(0)
    for outputs, labels, task in ((3, no_codes, "classification"), (1, no_numbers, "regression")):
        net = TabularNet(spec(outputs=outputs))
        loss = make_loss(task, net.spec)(net(torch.empty(0, 2)), labels).sum()
        torch.autograd.backward(loss)
        assert loss.item() == 0
        assert all(p.grad is not None and not p.grad.any() for p in net.parameters())


def test_the_same_weights_are_the_same_bytes() -> None:
    net = TabularNet(spec())
    content = weight_bytes(net)
    assert weight_bytes(net) == content
    loaded = load(content)
    assert set(loaded) == set(net.state_dict())
    assert all(torch.equal(tensor, net.state_dict()[name]) for name, tensor in loaded.items())
