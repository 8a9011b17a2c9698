"""Nodes are called what torchvision's feature extraction calls them."""

from __future__ import annotations

import pytest
import torch
from conftest import build, graph_of, names
from torch import nn
from torchvision import models
from torchvision.models.feature_extraction import get_graph_node_names


@pytest.mark.parametrize("factory", [models.resnet18, models.resnet50, models.vgg16_bn])
def test_names_are_torchvisions(factory: object) -> None:
    net = build(factory, num_classes=3)
    dropouts = {name for name, module in net.named_modules() if isinstance(module, nn.Dropout)}
    expected = [name for name in get_graph_node_names(net)[1] if name != "x" and name not in dropouts]
    assert names(graph_of(net, 32)) == expected


def test_resnet18s_first_and_last_nodes() -> None:
    ours = names(graph_of(build(models.resnet18), 32))
    assert ours[:10] == [
        "conv1",
        "bn1",
        "relu",
        "maxpool",
        "layer1.0.conv1",
        "layer1.0.bn1",
        "layer1.0.relu",
        "layer1.0.conv2",
        "layer1.0.bn2",
        "layer1.0.add",
    ]
    assert ours[10] == "layer1.0.relu_1"
    assert ours[-3:] == ["avgpool", "flatten", "fc"]


class Inner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
        self.act = nn.ReLU()

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        y = self.act(self.conv(image)) + image
        return torch.relu(self.act(y) + image)


class Outer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.Sequential(Inner(), Inner(), nn.Flatten())
        self.fc = nn.Linear(3 * 16, 2)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.fc(self.stages(image))


def test_modules_called_again_and_functions() -> None:
    graph = graph_of(Outer(), 4)
    assert graph["input"] == {"name": "image", "shape": [3, 4, 4]}
    assert names(graph)[:6] == [
        "stages.0.conv",
        "stages.0.act",
        "stages.0.add",
        "stages.0.act_1",
        "stages.0.add_1",
        "stages.0.relu",
    ]
    assert names(graph)[-2:] == ["stages.2", "fc"]


def test_parameters_of_an_attention_keep_their_names() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 8, 4, 4)
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
            self.fc = nn.Linear(8, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.stem(x).flatten(2).transpose(1, 2)
            return self.fc(self.attention(x, x, x)[0].mean(1))

    nodes = {node["name"]: node for node in graph_of(Net())["nodes"]}
    projection = nodes["attention.in_proj"]
    assert projection["module"] == "attention"
    assert projection["params"] == {"weight": "in_proj_weight", "bias": "in_proj_bias"}
    assert nodes["attention.out_proj"]["module"] == "attention.out_proj"
    assert "params" not in nodes["attention.out_proj"]
    assert nodes["attention.attention"]["op"] == {"op": "attention", "heads": 2}
    assert [nodes[f"attention.slice{n}"]["op"]["ranges"] for n in ("", "_1", "_2")] == [[[0, 8]], [[8, 16]], [[16, 24]]]


def test_a_parameter_of_the_root() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 8, 4, 4)
            self.cls = nn.Parameter(torch.randn(1, 1, 8))
            self.fc = nn.Linear(8, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.stem(x).flatten(2).transpose(1, 2)
            x = torch.cat([self.cls.expand(len(x), -1, -1), x], 1)
            return self.fc(x[:, 0])

    nodes = {node["name"]: node for node in graph_of(Net())["nodes"]}
    assert nodes["cat"]["op"] == {"op": "prepend_tokens", "num_tokens": 1, "num_features": 8}
    assert (nodes["cat"]["module"], nodes["cat"]["params"]) == ("", {"weight": "cls"})


def test_activations_of_several_steps_end_in_the_modules_name() -> None:
    layers = [nn.Conv2d(3, 8, 3), nn.PReLU(), nn.Softsign(), nn.Softplus(2), nn.GLU(1), nn.Flatten(), nn.Linear(144, 2)]
    found = names(graph_of(nn.Sequential(*layers), 8))
    assert [name for name in found if "." not in name] == [str(i) for i in range(7)]
    assert found[1:6] == ["1.above", "1.negative", "1.below", "1.slope", "1.turned"]
