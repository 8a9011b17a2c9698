"""Networks for the tests: built without their slow initialisation, with numbers that matter everywhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parent.parent))

from torch_graph.compare import Reference, check_images
from torch_graph.exporter import check_round_trip, convert
from torch_graph.graph import Json
from torch_graph.model_file import Model

torch.set_num_threads(1)  # most of the time is tracing; threads that wait for each other only slow it down


def randomise(module: nn.Module) -> nn.Module:
    """Weights of about unit gain; normalisations, statistics and layer scales that are not the identity."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, tensor in module.named_parameters():
            if tensor.ndim == 1:
                low, high = (-0.1, 0.1) if name.endswith("bias") else (0.5, 1.5)
                tensor.uniform_(low, high, generator=generator)
            else:
                fan_in = tensor[0].numel() if tensor.ndim in (2, 4) else tensor.shape[-1]
                tensor.normal_(0, (2 / max(fan_in, 2)) ** 0.5, generator=generator)
        for name, tensor in module.named_buffers():
            if name.endswith("running_mean"):
                tensor.uniform_(-0.1, 0.1, generator=generator)
            elif name.endswith("running_var"):
                tensor.uniform_(0.5, 1.5, generator=generator)
    return module.eval()


def build(factory: Callable[..., nn.Module], **arguments: Any) -> nn.Module:
    """The network, its parameters filled once."""
    try:
        with torch.device("meta"):
            module = factory(**arguments).to_empty(device="cpu")
    except NotImplementedError:  # regnets compute their widths with tensors
        module = factory(**arguments)
    return randomise(module)


def model_of(
    module: nn.Module, size: int | tuple[int, int] = 16, channels: int = 3, n_logits: int | None = None
) -> Model:
    """The module's model, whose logits are the module's."""
    height, width = (size, size) if isinstance(size, int) else size
    if n_logits is None:
        with torch.no_grad():
            n_logits = module.eval()(torch.zeros(2, channels, height, width)).shape[1]
    preprocess = {"size": [height, width], "mean": [0.5] * channels, "std": [0.25] * channels}
    classes = [[str(i) for i in range(n_logits)]]
    model, reference = convert(module, arch="test", preprocess=preprocess, classes=classes)
    assert check_round_trip(model, Reference(reference, check_images(model))) <= 1e-4 * 1e3
    return model


def outputs_of(
    module: nn.Module, classes: Sequence[Sequence[str] | None] = (), size: int = 16, tasks: Sequence[str] | None = None
) -> Model:
    """The module's model, of whatever outputs, which are the module's."""
    preprocess = {"size": [size, size], "mean": [0.5] * 3, "std": [0.25] * 3}
    model, reference = convert(module, arch="test", preprocess=preprocess, classes=classes, tasks=tasks)
    assert check_round_trip(model, Reference(reference, check_images(model))) <= 1e-4
    return model


def graph_of(module: nn.Module, size: int | tuple[int, int] = 16, channels: int = 3) -> Json:
    """Its graph."""
    return model_of(module, size, channels).graph


def kinds(graph: Json) -> list[str]:
    """The ops, in order."""
    return [node["op"]["op"] for node in graph["nodes"]]


def names(graph: Json) -> list[str]:
    """The node names, in order."""
    return [node["name"] for node in graph["nodes"]]


class Net(nn.Module):
    """A convolution, what the test is about, and a head."""

    def __init__(
        self, middle: Callable[[torch.Tensor], torch.Tensor] | nn.Module, features: int = 8, head: int = 8
    ) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, features, 3, stride=2)
        self.middle = middle
        self.head = nn.Linear(head, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.middle(self.stem(x))
        return self.head(x.mean((2, 3)) if x.ndim == 4 else x)


class Learned(nn.Module):
    """What is computed of the image and one parameter of this shape."""

    def __init__(self, function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], *shape: int) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.randn(*shape))
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x, self.p)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
