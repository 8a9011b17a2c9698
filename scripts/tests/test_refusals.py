"""What has no exact counterpart is refused: the node, the op and the reason in one line."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 (everybody's name for it)
from conftest import Net, graph_of, model_of
from torch import nn

from torch_graph.errors import LoweringError, ZipitError


REFUSED: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor] | nn.Module, str]] = {
    "norm of the batch": (nn.BatchNorm2d(8, track_running_stats=False), "batch's statistics"),
    "mean over everything": (lambda x: x - x.mean(), "averages over the batch too"),
    "random in evaluation": (lambda x: F.dropout(x, 0.5), "drops at random"),
    "steep softplus": (nn.Softplus(threshold=2), "middle: softplus: only a threshold of 20"),
    "the first of several": (nn.Sequential(nn.InstanceNorm2d(8), nn.LocalResponseNorm(3)), "middle.1: avg_pool3d: no op"),
    "the first of two inputs": (lambda x: x.sin() + x.cos() * x.tan().sqrt(), "tan: tan: no op"),
    "one image of the batch": (lambda x: x[0:1].expand(x.shape), "takes some images of the batch"),
    "batch mixed": (lambda x: x.flip(0), "flip: flip: mixes images of the batch"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refused(what: str) -> None:
    middle, reason = REFUSED[what]
    with pytest.raises(LoweringError, match=reason) as error:
        graph_of(Net(middle))
    assert "\n" not in str(error.value)


def test_control_flow_that_depends_on_the_image() -> None:
    class Branch(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(3, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = x.mean((2, 3))
            return self.fc(x) if x.sum() > 0 else -self.fc(x)

    with pytest.raises(ZipitError, match="torch.export cannot trace the module: its control flow depends") as error:
        graph_of(Branch())
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (nn.Conv2d(3, 4, 3), r"\[2, 4, 14, 14\]"),
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1)), r"\[2, 4, 1, 1\]"),
    ],
)
def test_outputs_that_are_no_logits(module: nn.Module, shape: str) -> None:
    with pytest.raises(ZipitError, match=rf"an output is {shape}; each must be logits \[B, classes\]"):
        model_of(module, n_logits=4)


def test_an_output_returned_twice() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(3, 2)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            y = self.fc(x.mean((2, 3)))
            return y, y

    with pytest.raises(ZipitError, match="returns `fc` more than once"):
        model_of(Twice(), n_logits=2)


def test_two_images_go_in() -> None:
    class Two(nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return x + y

    with pytest.raises(ZipitError, match="cannot trace the module"):
        model_of(Two(), n_logits=2)
