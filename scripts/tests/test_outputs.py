"""Outputs of any shape: as PyTorch has them, with classes or without."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F  # noqa: N812 (everybody's name for it)
from conftest import build, outputs_of
from torch import nn
from torchvision.models import segmentation

import zipit_torch
from torch_graph import network
from torch_graph.compare import check_images, logits
from torch_graph.errors import ZipitError
from torch_graph.exporter import convert


class Maps(nn.Module):
    """What is computed of a map of 8 features, a Linear layer and the image."""

    def __init__(self, function: Callable[[torch.Tensor, nn.Module, torch.Tensor], Any]) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.fc = nn.Linear(8, 5)
        self.function = function

    def forward(self, x: torch.Tensor) -> Any:
        return self.function(self.stem(x), self.fc, x)


# The op that makes the output in the file: one that is followed where features come first, a carried one elsewhere.
SHAPES: dict[str, tuple[Callable[[torch.Tensor, nn.Module, torch.Tensor], Any], str]] = {
    "a map": (lambda y, fc, x: y, "conv2d"),
    "channels last": (lambda y, fc, x: y.permute(0, 2, 3, 1), "call"),
    "tokens": (lambda y, fc, x: fc(y.flatten(2).transpose(1, 2)), "call"),
    "features first": (lambda y, fc, x: y.flatten(2), "positions"),
    "positions of more axes": (lambda y, fc, x: y.reshape(y.shape[0], 8, 2, 8, 16), "positions"),
    "features of two axes": (lambda y, fc, x: y.reshape(y.shape[0], 2, 4, 16, 16), "call"),
    "shuffled": (lambda y, fc, x: F.channel_shuffle(y, 2), "channel_shuffle"),
    "1x1": (lambda y, fc, x: F.adaptive_avg_pool2d(y, 1), "adaptive_avg_pool2d"),
    "of unit length at every position": (lambda y, fc, x: F.normalize(y), "call"),
    "one number": (lambda y, fc, x: fc(y.mean((2, 3)))[:, 0], "call"),
    "something added to the image": (lambda y, fc, x: x + y[:, :3], "add"),
    "the image alone": (lambda y, fc, x: F.avg_pool2d(x, 2), "avg_pool2d"),
    "probabilities": (lambda y, fc, x: y.sigmoid(), "activation"),
}


@pytest.mark.parametrize("what", SHAPES)
def test_a_tensor_is_given_as_it_is(what: str) -> None:
    function, op = SHAPES[what]
    model = outputs_of(Maps(function))
    (name,) = model.graph["outputs"]
    (made,) = (node for node in model.graph["nodes"] if node["name"] == name)
    assert (made["op"]["op"], model.tasks) == (op, [{"name": "task", "classes": []}])


def test_a_softmax_over_the_classes_of_a_map_is_left_out() -> None:
    model = outputs_of(Maps(lambda y, fc, x: y.softmax(1)), [list("abcdefgh")])
    assert (model.endings, model.graph["outputs"]) == (["softmax"], ["stem"])
    # Over anything else it belongs to the network.
    assert outputs_of(Maps(lambda y, fc, x: y.softmax(3))).endings == [None]
    assert outputs_of(Maps(lambda y, fc, x: fc(y.flatten(2).transpose(1, 2)).softmax(1))).endings == [None]


def test_a_forward_that_returns_nothing() -> None:
    with pytest.raises(ZipitError, match="returns nothing"):
        outputs_of(Maps(lambda y, fc, x: {}))


@pytest.mark.parametrize(("function", "classes"), [(lambda y: y, list("abcdefgh")), (lambda y: y.permute(0, 3, 2, 1)[:, :8], [])])
def test_known_classes_are_those_of_features(function: Callable[[torch.Tensor], torch.Tensor], classes: list[str]) -> None:
    preprocess = {"size": [16, 16], "mean": [0.5] * 3, "std": [0.25] * 3}
    model, _ = convert(Maps(lambda y, fc, x: function(y)), arch="test", preprocess=preprocess, known_classes="abcdefgh")
    assert model.tasks == [{"name": "task", "classes": classes}]


def test_embeddings_are_vectors_without_classes() -> None:
    for function in (lambda y, fc, x: fc(y.mean((2, 3))), lambda y, fc, x: F.normalize(fc(y.mean((2, 3))))):
        model = outputs_of(Maps(function), [None])
        assert model.tasks == [{"name": "task", "classes": []}]
        # Followed, however it was made.
        (made,) = (node for node in model.graph["nodes"] if node["name"] == model.graph["outputs"][0])
        assert made["op"]["op"] in ("linear", "follow")


def test_outputs_in_lists_and_dicts_are_called_after_their_keys() -> None:
    def function(y: torch.Tensor, fc: nn.Module, x: torch.Tensor) -> Any:
        return OrderedDict(out=y, stages=[y.relu(), y], logits=fc(y.mean((2, 3))))

    model = outputs_of(Maps(function), [list("abcde")])
    assert [task["name"] for task in model.tasks] == ["out", "stages.0", "stages.1", "logits"]
    assert [len(task["classes"]) for task in model.tasks] == [0, 0, 0, 5]
    # The same value twice is two outputs.
    assert model.graph["outputs"].count("stem") == 2
    found = network.build(model)(check_images(model, 3))
    assert [list(t.shape) for t in found.values()] == [[3, 8, 16, 16], [3, 8, 16, 16], [3, 8, 16, 16], [3, 5]]
    model = outputs_of(Maps(lambda y, fc, x: [y, (y.relu(),)]))
    assert [task["name"] for task in model.tasks] == ["task1", "task2"]


def both(y: torch.Tensor, fc: nn.Module, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """A map and logits."""
    return {"map": y, "logits": fc(y.mean((2, 3)))}


@pytest.mark.parametrize(
    ("classes", "counts"),
    [([list("abcde")], [0, 5]), ([[]], [0, 0]), ([list("abcdefgh"), list("abcde")], [8, 5]), ([None, list("abcde")], [0, 5])],
)
def test_classes_are_named_for_all_outputs_or_for_all_vectors(classes: list, counts: list[int]) -> None:
    assert [len(task["classes"]) for task in outputs_of(Maps(both), classes).tasks] == counts


@pytest.mark.parametrize(
    ("classes", "reason"),
    [
        ([], r"outputs are map \[8, 16, 16\], logits \[5\], and classes are named for 0: .* or of the vectors, 1, in order; --classes -"),
        ([["a", "b"], ["c"] * 5], r"task `map` has 8 features: it is \[8, 16, 16\], but 2 classes"),
        ([["a", "b"]], "task `logits` has 5 logits, but 2 classes"),
        ([None] * 3, "classes are named for 3"),
    ],
)
def test_classes_that_do_not_fit(classes: list, reason: str) -> None:
    with pytest.raises(ZipitError, match=reason) as error:
        outputs_of(Maps(both), classes)
    assert "\n" not in str(error.value)
    with pytest.raises(ZipitError, match=r"task `task` has 0 features: it is \[\], but 1 classes"):
        outputs_of(Maps(SHAPES["one number"][0]), [["a"]])


def small(factory: Callable[..., nn.Module], **arguments: Any) -> nn.Module:
    """Of torchvision's segmentation networks."""
    return build(lambda: factory(weights=None, weights_backbone=None, num_classes=4, **arguments))


def features(name: str, **arguments: Any) -> nn.Module:
    """Of timm's networks."""
    return build(lambda: timm.create_model(name, **arguments))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], int, list[str]]] = {
    "lraspp_mobilenet_v3_large": (lambda: small(segmentation.lraspp_mobilenet_v3_large), 32, ["out"]),
    "pyramid of resnet10t": (lambda: features("resnet10t", features_only=True), 32, [f"task{i}" for i in range(1, 6)]),
    "pyramid of convnext_atto": (
        lambda: features("convnext_atto", features_only=True, depths=(1, 1, 1, 1)), 32, [f"task{i}" for i in range(1, 5)]
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_networks(name: str) -> None:
    factory, size, tasks = NETWORKS[name]
    model = outputs_of(factory(), size=size)
    assert [task["name"] for task in model.tasks] == tasks


def test_a_command_names_no_classes_of_a_map(tmp_path: Path) -> None:
    (tmp_path / "nets.py").write_text(
        "import torch\n"
        "class Net(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.conv = torch.nn.Conv2d(3, 4, 3)\n"
        "    def forward(self, x):\n"
        "        y = self.conv(x)\n"
        "        return {'map': y, 'embedding': y.mean((2, 3)), 'number': y.mean((1, 2, 3))}\n"
    )
    out = tmp_path / "a.safetensors"
    command = ["export", f"{tmp_path / 'nets.py'}:Net", "--size", "8", "--mean", "0.5,0.5,0.5", "--std", "0.5,0.5,0.5"]
    assert zipit_torch.main([*command, "--no-import", "-o", str(out)]) == 1
    assert zipit_torch.main([*command, "--classes", "-", "--no-import", "-o", str(out)]) == 0
    net = zipit_torch.load(out)
    assert {name: list(t.shape) for name, t in net(torch.rand(3, 3, 8, 8)).items()} == {
        "map": [3, 4, 6, 6], "embedding": [3, 4], "number": [3]
    }
    # ONNX has them under their names, for any batch.
    assert zipit_torch.export_onnx(out, tmp_path / "a.onnx") <= 1e-5


def test_onnx_of_carried_outputs_and_of_one_twice(tmp_path: Path) -> None:
    def function(y: torch.Tensor, fc: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
        return [y, fc(y.flatten(2).transpose(1, 2)), y, F.avg_pool2d(x, 2)]

    out = tmp_path / "a.safetensors"
    zipit_torch.export(Maps(function), out=out, preprocess={"size": [8, 8], "mean": [0.5] * 3, "std": [0.5] * 3})
    assert zipit_torch.export_onnx(out, tmp_path / "a.onnx") <= 1e-5
    import onnx

    outputs = onnx.load(tmp_path / "a.onnx").graph.output
    shapes = {o.name: [d.dim_param or d.dim_value for d in o.type.tensor_type.shape.dim] for o in outputs}
    assert {name: shape[1:] for name, shape in shapes.items()} == {
        "task1": [8, 8, 8], "task2": [64, 5], "task3": [8, 8, 8], "task4": [3, 4, 4]
    }
    assert all(isinstance(shape[0], str) for shape in shapes.values())


def test_loaded_outputs_are_the_modules(tmp_path: Path) -> None:
    module = Maps(both).eval()
    out = tmp_path / "a.safetensors"
    spec = {"size": [8, 8], "mean": [0.5] * 3, "std": [0.5] * 3}
    zipit_torch.export(module, out=out, classes=[list("abcdefgh"), None], preprocess=spec)
    images = torch.rand(5, 3, 8, 8)
    for a, b in zip(logits(zipit_torch.load(out), images), logits(module, images), strict=True):
        assert torch.allclose(a, b, atol=1e-6) and a.shape == b.shape
