"""What no op of ours says is computed at export, works along positions, or is carried: the logits are the network's."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 (everybody's name for it)
from conftest import Learned, Net, kinds, model_of
from torch import nn

from torch_graph import compare
from torch_graph.errors import ZipitError
from torch_graph.network import build
from torch_graph.static import Static
from torch_graph.trace import trace

Middle = Callable[[torch.Tensor], torch.Tensor] | nn.Module


class Mixer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(49, 49)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.mix(x.flatten(2)).view(x.shape)


class PositionNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(49)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(x.flatten(2).transpose(1, 2)).transpose(1, 2).reshape(x.shape)


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


class Response(nn.Module):
    """ConvNeXt V2's global response normalisation, as timm and as its authors write it."""

    def __init__(self, authors: bool) -> None:
        super().__init__()
        self.authors = authors
        self.weight, self.bias = nn.Parameter(torch.rand(8)), nn.Parameter(torch.rand(8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.permute(0, 2, 3, 1)
        response = x.norm(p=2, dim=(1, 2), keepdim=True)
        relative = response / (response.mean(dim=-1, keepdim=True) + 1e-6)
        if self.authors:
            return (self.weight * (x * relative) + self.bias + x).permute(0, 3, 1, 2)
        return (x + torch.addcmul(self.bias, self.weight, x * relative)).permute(0, 3, 1, 2)


class TokenRms(nn.Module):
    def __init__(self, affine: bool) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(8, elementwise_affine=affine)
        if affine:
            nn.init.uniform_(self.norm.weight, 0.5, 1.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(x.flatten(2).transpose(1, 2)).transpose(1, 2).reshape(x.shape)


def in_place_through_a_view(x: torch.Tensor) -> torch.Tensor:
    flat = x.flatten(2)
    x.relu_()
    return x + flat.view(x.shape)


class WrittenOut(nn.Module):
    """RMSNorm as language models write it, with a weight of its own."""

    def __init__(self, *shape: int, function: bool = False) -> None:
        super().__init__()
        self.function = function
        self.weight = nn.Parameter(torch.rand(*shape) + 0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.function:
            return (F.rms_norm(x.permute(0, 2, 3, 1), (8,)) * self.weight).permute(0, 3, 1, 2)
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(1, keepdim=True) + 1e-5))


class NormsFirst(nn.Conv2d):
    """Normalises what it convolves: its weight is no norm's."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x * torch.rsqrt(x.pow(2).mean(1, keepdim=True) + 1e-5))


def _changed_after_its_mean(x: torch.Tensor) -> torch.Tensor:
    x = x + 0
    mean = x.pow(2).mean(1, keepdim=True) + 1e-3
    x.add_(1)
    return x * torch.rsqrt(mean)


def _mean_changed_through_a_view(x: torch.Tensor) -> torch.Tensor:
    mean = x.pow(2).mean(1, keepdim=True)
    mean.detach().clamp_(min=0.5)
    return x * torch.rsqrt(mean)


def _changed_through_a_view(x: torch.Tensor) -> torch.Tensor:
    x = x + 0
    mean = x.pow(2).mean(1, keepdim=True) + 1e-3
    x.view(x.shape).clamp_(max=0.1)
    return x * torch.rsqrt(mean)


FOLLOWED: dict[str, Middle] = {
    "upsampling": nn.Upsample(scale_factor=2),
    "maximum over positions": lambda x: x.amax((2, 3)),
    "computed weight": Standardised(8, 8, 1),
    "norm without affine": nn.BatchNorm2d(8, affine=False),
    "layer norm without affine": nn.GroupNorm(2, 8, affine=False),
    "mean over height": lambda x: x.mean(2, keepdim=True) + x,
    "reflection": nn.ReflectionPad2d(1),
    "crop": lambda x: F.pad(x, (-1, 0)),
    "some positions": lambda x: x[:, :, 1:],
    "positions concatenated": lambda x: torch.cat([x, x], 2),
    "transposed image": lambda x: F.max_pool2d(x.transpose(2, 3), 2),
    "one gate for all features": Learned(lambda x, p: x * p, 1),
    "part of a parameter": Learned(lambda x, p: x + p[:8], 9, 1, 1),
    "function of a parameter": Learned(lambda x, p: x * p.exp(), 8, 1, 1),
    "sigmoid of a parameter": Learned(lambda x, p: x * p.sigmoid(), 8, 1, 1),
    "masked attention": CrossAttention(masked=True),
    "attention within windows": CrossAttention(windows=True),
    "global response normalisation": Response(authors=False),
    "global response normalisation, as its authors write it": Response(authors=True),
    "RMSNorm": TokenRms(affine=True),
    "RMSNorm without weight": TokenRms(affine=False),
    "RMSNorm written out": lambda x: x * torch.rsqrt(x.pow(2).mean(1, keepdim=True) + 1e-3),
    "RMSNorm of casts, a quotient": lambda x: x / torch.sqrt((x.float() * x.float()).mean(1, keepdim=True) + 1e-3),
    "RMSNorm written out, with a weight": WrittenOut(8, 1, 1),
    "RMSNorm's function and a weight behind it": WrittenOut(8, function=True),
    "RMSNorm inside a convolution": NormsFirst(8, 8, 1),
    "in-place op seen through a view": in_place_through_a_view,
}
"""Nothing is carried."""
CARRIED: dict[str, Middle] = {
    "root": lambda x: x.abs() ** 0.5,
    "linear over positions": Mixer(),
    "recurrence": Recurrent(),
    "batch norm over positions": PositionNorm(),
    "unknown op": lambda x: x.cumsum(1),
    "transposed convolution": nn.ConvTranspose2d(8, 8, 2),
    "shared layer": Reused(),
    "instance norm": nn.InstanceNorm2d(8),
    "layer norm over positions": nn.LayerNorm([8, 7, 7]),
    "mean over features": lambda x: x.mean(1, keepdim=True) * x,
    "padded features": lambda x: F.pad(x, (0, 0, 0, 0, 1, 0))[:, :8],
    "clamp": lambda x: x.clamp(max=x * 2),
    "the first before a parameter": nn.Sequential(nn.InstanceNorm2d(8), nn.BatchNorm2d(8)),
    "softmax": lambda x: x.softmax(1),
    "every other feature": lambda x: torch.cat([x[:, ::2], x[:, 1::2]], 1),
    "mean of the features of something else": lambda x: x * torch.rsqrt(x.abs().pow(2).mean(1, keepdim=True) + 1e-3),
    "mean from before a change in place": _changed_after_its_mean,
    "mean changed through a view": _mean_changed_through_a_view,
    "mean from before a change through a view": _changed_through_a_view,
    "division by a parameter": Learned(lambda x, p: x / p, 8, 1, 1),
    "spatial gate": lambda x: x * x[:, :1].sigmoid(),
    "constant tensor": lambda x: x + torch.arange(7.0),
    "product of values": lambda x: x @ x.transpose(2, 3),
}
"""Something is, and followed again behind it."""


def ops(module: nn.Module, size: int = 16, n_logits: int = 4) -> list[str]:
    """The ops of a network's graph, which gives the network's logits."""
    return [node["op"]["op"] for node in model_of(module, size, n_logits=n_logits).graph["nodes"]]


@pytest.mark.parametrize("what", FOLLOWED)
def test_followed(what: str) -> None:
    assert not {"call", "stored", "follow"} & set(ops(Net(FOLLOWED[what])))


@pytest.mark.parametrize("what", CARRIED)
def test_carried(what: str) -> None:
    assert {"call", "follow"} <= set(ops(Net(CARRIED[what])))


def test_what_is_carried_can_be_trained_further() -> None:
    network = build(model_of(Net(nn.Sequential(PositionNorm(), Mixer())))).train()
    sum(output.sum() for output in network(torch.randn(2, 3, 16, 16)).values()).backward()
    assert all(parameter.grad is not None for name, parameter in network.named_parameters() if "mix" in name)


def test_casts_to_integers_and_truths_are_refused() -> None:
    for middle in (lambda x: x / (x.bool().float().mean(1, keepdim=True) + 1), lambda x: (8 * x).int().float()):
        with pytest.raises(ZipitError, match="turns numbers into integers or truths"):
            model_of(Net(middle))


def test_tied_weights() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.fc = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), nn.Linear(3, 4)
            self.b.weight = self.a.weight

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(self.b(self.a(x)).mean((2, 3)))

    assert "call" in ops(Tied())


def test_flatten_with_the_features_last() -> None:
    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4 * 36, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(self.conv(x).permute(0, 2, 3, 1).flatten(1))

    assert "call" not in ops(Last(), 8)


@pytest.mark.parametrize("end", [torch.softmax, torch.log_softmax])
def test_an_end_in_softmax_is_left_to_the_reader(end: Callable[..., torch.Tensor], capsys: pytest.CaptureFixture[str]) -> None:
    class Ends(Net):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return end(super().forward(x), 1)

    model = model_of(Ends(nn.ReLU()))
    assert model.graph["outputs"] == ["head"]
    assert "the file has the logits before that" in capsys.readouterr().err
    assert model.environment["endings"] in ("softmax", "log_softmax")


def test_what_is_folded_says_from_what() -> None:
    model = model_of(Net(Standardised(8, 8, 1)))
    assert model.environment["folded"] == "middle.weight = f(middle.weight)"


def test_what_is_carried_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    module = Net(nn.Sequential(nn.Conv2d(8, 8, 1), Learned(lambda x, p: x.flip(1) * p, 8, 1, 1), nn.Conv2d(8, 8, 1)))
    module.middle.append(Learned(lambda x, p: x.flip(1) * p, 8, 1, 1))
    model = model_of(module)
    told = model.environment["carried"]
    assert told in capsys.readouterr().err
    n_calls = sum(node["op"]["op"] == "call" for node in model.graph["nodes"])
    assert told.startswith(f"{n_calls} of {len(model.graph['nodes'])} nodes are carried")
    assert "middle.1.flip and 1 more: flip: " in told
    assert "carried" not in model_of(Net(nn.ReLU())).environment


class WithoutKeyBias(nn.Module):
    """As torchvision's Swin V2: the keys' part of a bias is set to zero in a copy."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv2d(8, 8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        bias = self.mix.bias.clone()
        bias[2:5].zero_()
        return F.conv2d(x, self.mix.weight, bias)


def test_a_copy_of_a_parameter_that_is_changed_in_place() -> None:
    module = Net(WithoutKeyBias())
    nn.init.uniform_(module.middle.mix.bias, 1, 2)
    before = module.middle.mix.bias.detach().clone()
    model = model_of(module)
    assert torch.equal(module.middle.mix.bias, before)
    stored = next(tensor for name, tensor in model.tensors.items() if name.startswith("middle") and tensor.shape == (8,))
    assert stored[2:5].tolist() == [0, 0, 0] and torch.equal(stored[5:], before[5:])


def test_what_is_read_before_it_is_changed_in_place_is_as_it_was_then() -> None:
    def twice(x: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
        scale = p.clone()
        x = x * scale
        scale.zero_()
        return x + scale

    network = Net(Learned(twice, 8, 1, 1))
    with pytest.raises(ZipitError, match="which is changed in place later"):
        Static(trace(network, (3, 16, 16))).changed  # noqa: B018 (computed when asked for)
    assert kinds(model_of(network).graph).count("layer_scale") == 1


class OwnWeights(nn.Module):
    """As timm's CondConv2d: every image has a kernel of its own, one group for each."""

    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.Parameter(torch.randn(3, 8 * 8 * 9))
        self.route = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, c, h, w = x.shape
        weight = (torch.sigmoid(self.route(x.mean((2, 3)))) @ self.experts).view(b * 8, 8, 3, 3)
        return F.conv2d(x.reshape(1, b * c, h, w), weight, padding=1, groups=b).view(b, 8, h, w)


def test_a_kernel_of_its_own_for_every_image() -> None:
    model = model_of(Net(OwnWeights()))
    groups = [node["op"]["call"]["groups"] for node in model.graph["nodes"] if node["op"].get("call", {}).get("name") == "convolution"]
    assert groups == [{"per_image": 1}]


def clamped_copy(x: torch.Tensor) -> torch.Tensor:
    copy = x.clone()
    copy.clamp_(-0.1, 0.1)
    return x + copy


def written_into_zeros(x: torch.Tensor) -> torch.Tensor:
    zeros = torch.zeros_like(x)
    zeros[:, :, 1:-1, 1:-1] = (x[:, :, 1:-1, 1:-1].abs() > 0.1).float()
    return x * (1 - zeros)


@pytest.mark.parametrize("change", [clamped_copy, written_into_zeros])
def test_changes_in_place_of_copies_and_of_parts(change: Middle) -> None:
    class Middle(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return change(x)

    network = Net(Middle())
    images = 3 * torch.randn(3, 3, 16, 16)
    (found,) = compare.logits(build(model_of(network)), images)
    (truth,) = compare.logits(network, images)
    assert (found - truth).abs().max() < 1e-5


def test_the_image_changed_in_place() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = Net(nn.ReLU())

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x[:, 0].mul_(2.0)
            return self.net(x)

    model_of(Scaled(), n_logits=4)
