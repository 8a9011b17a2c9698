"""What has no exact counterpart is refused: the node, the op and the reason in one line."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 (everybody's name for it)
from conftest import Learned, Net, graph_of, model_of, outputs_of
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


NO_OUTPUTS: dict[str, tuple[Callable[[torch.Tensor, torch.Tensor], object], str]] = {
    "batch last": (lambda x, p: x.transpose(0, 1), r"an output is \[3, 2, 16, 16\] for 2 images; its first axis must be"),
    "batch mixed with positions": (lambda x, p: x.reshape(-1, 3), r"an output is \[512, 3\] for 2 images"),
    "a parameter": (lambda x, p: (x.relu(), p), "an output is not computed from the images"),
    "the image": (lambda x, p: (x.relu(), x), "the network returns its input"),
    "nothing": (lambda x, p: (x.relu(), None), "returns something that is not a tensor"),
    "a number": (lambda x, p: {"map": x.relu(), "n": 3}, "returns something that is not a tensor"),
}


@pytest.mark.parametrize("what", NO_OUTPUTS)
def test_what_is_no_output(what: str) -> None:
    function, reason = NO_OUTPUTS[what]
    with pytest.raises(ZipitError, match=reason) as error:
        outputs_of(Learned(function, 3))
    assert "\n" not in str(error.value)


def test_two_images_go_in() -> None:
    class Two(nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return x + y

    with pytest.raises(ZipitError, match="cannot trace the module"):
        model_of(Two(), n_logits=2)
