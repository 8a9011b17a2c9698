"""What has no exact counterpart is refused: the node, the op and the reason in one line."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 (everybody's name for it)
from conftest import Net, graph_of, model_of
from torch import nn

from torch_graph.errors import LoweringError, ZipitError


class Learned(nn.Module):
    def __init__(self, function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], *shape: int) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.randn(*shape))
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x, self.p)


class Mixer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(49, 49)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.mix(x.flatten(2)).view(x.shape)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, 8, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.lstm(x.flatten(2).transpose(1, 2))[0].mean(1)


class CrossAttention(nn.Module):
    def __init__(self, masked: bool = False, windows: bool = False) -> None:
        super().__init__()
        self.masked, self.windows = masked, windows

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        t = x.flatten(2).transpose(1, 2)
        if self.windows:
            t = t.reshape(-1, 7, 8)
        mask = torch.ones(49, 49, dtype=torch.bool) if self.masked else None
        t = t.unsqueeze(1)
        return F.scaled_dot_product_attention(t, t, t, attn_mask=mask).reshape(x.shape[0], 49, 8).mean(1)


class Reused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(self.conv(x))


class Standardised(nn.Conv2d):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.conv2d(x, self.weight - self.weight.mean(), self.bias)


def in_place_through_a_view(x: torch.Tensor) -> torch.Tensor:
    flat = x.flatten(2)
    x.relu_()
    return x + flat.view(x.shape)


REFUSED: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor] | nn.Module, str]] = {
    "linear over positions": (Mixer(), "middle.mix: linear: .* is positions, not features"),
    "recurrence": (Recurrent(), "middle.lstm: lstm: no op"),
    "unknown op": (lambda x: x.cumsum(1), "cumsum: cumsum: no op of a model file does this"),
    "upsampling": (nn.Upsample(scale_factor=2), "middle: upsample_nearest2d: no op"),
    "transposed convolution": (nn.ConvTranspose2d(8, 8, 2), "middle: conv_transpose2d: no op"),
    "maximum over positions": (lambda x: x.amax((2, 3)), "amax: amax: no op"),
    "shared layer": (Reused(), "middle.conv_1: conv2d: shares `middle.conv.weight` with middle.conv"),
    "computed weight": (
        Standardised(8, 8, 1),
        "middle.mean: mean: computes something from the parameter `middle.weight` alone",
    ),
    "norm without affine": (nn.BatchNorm2d(8, affine=False), "middle: batch_norm: has no weight"),
    "layer norm without affine": (nn.GroupNorm(2, 8, affine=False), "middle: group_norm: has no weight"),
    "norm of the batch": (nn.BatchNorm2d(8, track_running_stats=False), "batch's statistics"),
    "instance norm": (nn.InstanceNorm2d(8), "middle: instance_norm: no op"),
    "layer norm over positions": (nn.LayerNorm([8, 7, 7]), r"normalises over \[8, 7, 7\]"),
    "mean over features": (lambda x: x.mean(1, keepdim=True) * x, "averages over features"),
    "mean over height": (lambda x: x.mean(2, keepdim=True) + x, "averages over some positions only"),
    "mean over everything": (lambda x: x - x.mean(), "averages over the batch too"),
    "random in evaluation": (lambda x: F.dropout(x, 0.5), "drops at random"),
    "reflection": (nn.ReflectionPad2d(1), "middle: (reflection_pad2d: no op|pad: padding mode `reflect`)"),
    "crop": (lambda x: F.pad(x, (-1, 0)), "crops"),
    "padded features": (lambda x: F.pad(x, (0, 0, 0, 0, 1, 0))[:, :8], "not height or width"),
    "clamp": (lambda x: x.clamp(max=x * 2), "clamps to bounds that are computed"),
    "steep softplus": (nn.Softplus(threshold=2), "middle: softplus: only a threshold of 20"),
    "root": (lambda x: x**0.5, "only powers 1 to 4 are known, not 0.5"),
    "the first of several": (nn.Sequential(nn.InstanceNorm2d(8), nn.LocalResponseNorm(3)), "middle.0: instance_norm: no"),
    "the first of two inputs": (lambda x: x.sin() + x.cos() * x.tan().sqrt(), "sin: sin: no op"),
    "the first before a parameter": (nn.Sequential(nn.InstanceNorm2d(8), nn.BatchNorm2d(8)), "middle.0: instance_norm"),
    "softmax": (lambda x: x.softmax(1), "only known inside attention"),
    "one image of the batch": (lambda x: x[0:1].expand(x.shape), "takes some images of the batch"),
    "every other feature": (lambda x: torch.cat([x[:, ::2], x[:, 1::2]], 1), "takes every 2nd index"),
    "some positions": (lambda x: x[:, :, 1:], "takes positions 1 to 7 of 7"),
    "positions concatenated": (lambda x: torch.cat([x, x], 2), "is positions, not features"),
    "batch mixed": (lambda x: x.flip(0), "flip: flip: no op"),
    "transposed image": (lambda x: F.max_pool2d(x.transpose(2, 3), 2), "not batch, features, height and width"),
    "one gate for all features": (Learned(lambda x, p: x * p, 1), "does not have one number per feature"),
    "part of a parameter": (Learned(lambda x, p: x + p[:8], 9, 1, 1), "takes a part of the parameter `middle.p`"),
    "function of a parameter": (
        Learned(lambda x, p: x * p.exp(), 8, 1, 1),
        "exp: exp: computes something from the parameter `middle.p` alone",
    ),
    "sigmoid of a parameter": (Learned(lambda x, p: x * p.sigmoid(), 8, 1, 1), "`middle.p` alone"),
    "division by a parameter": (Learned(lambda x, p: x / p, 8, 1, 1), "divides by something that is not a number"),
    "spatial gate": (lambda x: x * x[:, :1].sigmoid(), "are not the same, one by one"),
    "constant tensor": (lambda x: x + torch.arange(7.0), "arange: makes a constant tensor"),
    "masked attention": (CrossAttention(masked=True), "ones: makes a constant tensor"),
    "attention within windows": (CrossAttention(windows=True), "not all the positions|all tokens of an image"),
    "product of values": (lambda x: x @ x.transpose(2, 3), "queries · keys"),
    "in-place op seen through a view": (in_place_through_a_view, "changes in place what is read later"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refused(what: str) -> None:
    middle, reason = REFUSED[what]
    with pytest.raises(LoweringError, match=reason) as error:
        graph_of(Net(middle))
    assert "\n" not in str(error.value)


def test_tied_weights() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.fc = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), nn.Linear(3, 2)
            self.b.weight = self.a.weight

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(self.b(self.a(x)).mean((2, 3)))

    with pytest.raises(LoweringError, match="`[ab].weight` and `[ab].weight` are one tensor"):
        graph_of(Tied())


def test_flatten_with_the_features_last() -> None:
    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4 * 36, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(self.conv(x).permute(0, 2, 3, 1).flatten(1))

    with pytest.raises(LoweringError, match="fc: linear: .* interleaves features with positions"):
        graph_of(Last(), 8)


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
