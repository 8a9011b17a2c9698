"""What parts, parameters and tasks may be called: anything PyTorch takes, or a refusal in one line."""

from __future__ import annotations

import copy
import io
import pickle
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from conftest import randomise
from torch import nn

import zipit_torch
from torch_graph.errors import ZipitError

SPEC = {"size": [8, 8], "mean": [0.5] * 3, "std": [0.25] * 3}
NAMES = [
    *("class", "None", "lambda", "return", 'a"b', "a\nb", "a\\b", "self", "é", "a b", "a'b", "1x1", "a/b", "torch", "inf"),
    *("transform", "recompile", "print_readable", "to_folder", "add_submodule", "delete_submodule", "tasks", "preprocess"),
    *("code", "_wrapped_call", "graph", "meta", "_graph", "_zipit", "models", "gate", "input", "x", "images", "network"),
]


class Bare(nn.Module):
    """A parameter of that name."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.own = name
        self.conv, self.fc = nn.Conv2d(3, 8, 3), nn.Linear(8, 3)
        self.register_parameter(name, nn.Parameter(torch.ones(8, 1, 1)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc((self.conv(x) * self._parameters[self.own]).relu().mean((2, 3)))


class Part(nn.Module):
    """A layer of that name."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.own = name
        self.conv, self.fc = nn.Conv2d(3, 8, 3), nn.Linear(8, 3)
        self.add_module(name, nn.Conv2d(8, 8, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self._modules[self.own](self.conv(x)).relu().mean((2, 3)))


def layers(name: str) -> list[tuple[str, nn.Module]]:
    return [
        ("stem", nn.Conv2d(3, 8, 3)),
        (name, nn.Conv2d(8, 8, 1)),
        ("act", nn.ReLU()),
        ("pool", nn.AdaptiveAvgPool2d(1)),
        ("flat", nn.Flatten()),
        ("fc", nn.Linear(8, 3)),
    ]


PLACES = {
    "in a Sequential": lambda name: nn.Sequential(OrderedDict(layers(name))),
    "as a layer": Part,
    "one level down": lambda name: nn.Sequential(OrderedDict(body=nn.Sequential(OrderedDict(layers(name))))),
    "as a parameter": Bare,
}


@pytest.mark.parametrize("place", PLACES)
def test_every_name_is_exported_and_loaded(tmp_path: Path, place: str) -> None:
    images = torch.rand(2, 3, 8, 8)
    for name in NAMES:
        net = randomise(PLACES[place](name))
        path = tmp_path / "a.safetensors"
        assert zipit_torch.export(net, out=path, classes=["x", "y", "z"], preprocess=SPEC, tasks="t") <= 1e-4, name
        loaded = zipit_torch.load(path)
        assert set(loaded.state_dict()) == set(net.state_dict()), name
        assert loaded.tasks == [{"name": "t", "classes": ["x", "y", "z"]}] and loaded.preprocess == SPEC, name
        assert callable(loaded.transform()), name
        torch.testing.assert_close(loaded(images)["t"], net(images))


@pytest.mark.parametrize("name", ["class", 'a"b\n', "tasks", "graph", "_zipit"])
def test_what_is_loaded_is_a_module_like_any_other(tmp_path: Path, name: str) -> None:
    net, images = randomise(Part(name)), torch.rand(4, 3, 8, 8)
    zipit_torch.export(net, out=tmp_path / "a.safetensors", classes=["x", "y", "z"], preprocess=SPEC, tasks="t")
    loaded = zipit_torch.load(tmp_path / "a.safetensors")
    optimizer = torch.optim.SGD(loaded.train().parameters(), lr=0.1)
    loaded(images)["t"].logsumexp(1).sum().backward()
    optimizer.step()
    assert not torch.equal(loaded.state_dict()[f"{name}.weight"], net.state_dict()[f"{name}.weight"])
    saved = io.BytesIO()
    torch.save(loaded, saved)
    saved.seek(0)
    again = [pickle.loads(pickle.dumps(loaded)), copy.deepcopy(loaded), torch.load(saved, weights_only=False)]
    for other in again:
        torch.testing.assert_close(other(images)["t"], loaded(images)["t"])
    with torch.no_grad():
        loaded.fc.bias.add_(1)
    assert all(not torch.equal(other.fc.bias, loaded.fc.bias) for other in again)
    net.load_state_dict(loaded.state_dict())
    torch.testing.assert_close(net(images), loaded(images)["t"])


@pytest.mark.parametrize("name", ["lambda", 'a"b', "a\nb", "a/b", "transform", "images", "t", "conv2d", "network"])
def test_onnx_has_the_users_names(tmp_path: Path, name: str) -> None:
    import onnx

    zipit_torch.export(
        randomise(Part(name)), out=tmp_path / "a.safetensors", classes=["x", "y", "z"], preprocess=SPEC, tasks="t"
    )
    assert zipit_torch.export_onnx(tmp_path / "a.safetensors", tmp_path / "a.onnx") <= 1e-4
    graph = onnx.load(tmp_path / "a.onnx").graph
    assert {f"{name}.weight", "conv.weight", "fc.bias"} <= {tensor.name for tensor in graph.initializer}
    assert ([i.name for i in graph.input], [o.name for o in graph.output]) == (["images"], ["t"])


@pytest.mark.parametrize("task", ["images", "relu", "val_0", "linear", "fc.weight", "conv2d", "node_conv2d", "a b/é", "file"])
def test_onnx_of_every_task_name(tmp_path: Path, task: str) -> None:
    import onnx

    path = tmp_path / "a.safetensors"
    zipit_torch.export(randomise(Part("p")), out=path, classes=["x", "y", "z"], preprocess=SPEC, tasks=task)
    assert zipit_torch.export_onnx(path, tmp_path / "a.onnx") <= 1e-4
    graph = onnx.load(tmp_path / "a.onnx").graph
    assert [o.name for o in graph.output] == [task] and graph.input[0].name != task


@pytest.mark.parametrize("task", ["", "gate", " "])
def test_task_names_that_are_refused(tmp_path: Path, task: str) -> None:
    with pytest.raises(ZipitError, match="task") as error:
        zipit_torch.export(
            Part("p"), out=tmp_path / "a.safetensors", classes=["x", "y", "z"], preprocess=SPEC, tasks=[task]
        )
    assert "\n" not in str(error.value)
