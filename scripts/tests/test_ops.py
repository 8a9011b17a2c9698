"""One small network per op and way to write it: the op that is emitted; `graph_of` checks that the logits are the same."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 (everybody's name for it)
from conftest import Learned, Net, graph_of, kinds, model_of, randomise
from torch import nn

Function = Callable[[torch.Tensor], torch.Tensor]


def middle(what: Function | nn.Module, features: int = 8, head: int = 8) -> list[dict]:
    """The ops between a stem and the head's `mean` (if any) and `linear`."""
    net = Net(what, features, head)
    if isinstance(what, nn.Module):
        randomise(what)
    ops = [node["op"] for node in graph_of(net)["nodes"]]
    assert (ops[0]["op"], ops[-1]["op"]) == ("conv2d", "linear")
    return [op for op in ops[1:-1] if op["op"] != "mean"]


ACTIVATIONS: list[tuple[nn.Module, object]] = [
    (nn.ReLU6(), "relu6"),
    (nn.Hardtanh(0, 6), "relu6"),
    (nn.GELU(), "gelu"),
    (nn.GELU("tanh"), "gelu_tanh"),
    (nn.SiLU(inplace=True), "silu"),
    (nn.Sigmoid(), "sigmoid"),
    (nn.Hardsigmoid(), "hardsigmoid"),
    (nn.Hardswish(inplace=True), "hardswish"),
    (nn.Tanh(), "tanh"),
    (nn.Mish(), "mish"),
    (nn.Softplus(), "softplus"),
    (nn.LeakyReLU(0.2), {"leaky_relu": 0.2}),
    (nn.ELU(0.5), {"elu": 0.5}),
    (nn.SELU(), "selu"),
    (nn.CELU(0.7), {"celu": 0.7}),
    (nn.RReLU(0.1, 0.3), {"leaky_relu": 0.2}),
    (nn.Hardtanh(), {"hardtanh": [-1.0, 1.0]}),
    (lambda x: x.clamp(-1, 0.5), {"hardtanh": [-1.0, 0.5]}),
    (lambda x: x.clamp(min=0.25), {"threshold": [0.25, 0.25]}),
    (nn.Threshold(0.1, -0.3), {"threshold": [0.1, -0.3]}),
    (nn.Softsign(), "softsign"),
    (nn.LogSigmoid(), "log_sigmoid"),
    (nn.Hardshrink(0.2), {"hardshrink": 0.2}),
    (nn.Softshrink(0.2), {"softshrink": 0.2}),
    (torch.abs, "abs"),
]
COMPOSED = [
    (nn.Tanhshrink(), ["activation", "affine", "add"]),
    (nn.Softplus(beta=3), ["affine", "activation", "affine"]),
    (lambda x: x.clamp(max=0.3), ["affine", "activation", "affine"]),
    (lambda x: x**2, ["mul"]),
    (torch.square, ["mul"]),
    (nn.PReLU(), ["relu", "affine", "relu", "layer_scale", "affine", "add"]),
    (nn.PReLU(8), ["relu", "affine", "relu", "layer_scale", "affine", "add"]),
    (lambda x: F.glu(torch.cat([x, x * 2], 1), 1), ["affine", "concat", "slice", "slice", "activation", "mul"]),
]


@pytest.mark.parametrize(("module", "function"), ACTIVATIONS, ids=str)
def test_activations(module: nn.Module, function: object) -> None:
    assert middle(module) == [{"op": "activation", "function": function}]


@pytest.mark.parametrize(("function", "ops"), COMPOSED, ids=str)
def test_activations_of_several_steps(function: Function, ops: list[str]) -> None:
    assert [op["op"] for op in middle(function)] == ops


@pytest.mark.parametrize("n", [1, 8])
def test_a_prelus_slopes_are_one_per_feature(n: int) -> None:
    class Sloped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.act, self.head = nn.Linear(3, 8), nn.PReLU(n), nn.Linear(8, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.act(self.fc(x.mean((2, 3)))))

    assert model_of(Sloped()).tensors["act.weight"].shape == (8,)


class Frozen(nn.Module):
    """As torchvision's, detectron2's and DETR's, which share no code."""

    def __init__(self, n: int) -> None:
        super().__init__()
        for name in ("weight", "bias", "running_mean", "running_var"):
            self.register_buffer(name, torch.rand(n) + 0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scale = self.weight * (self.running_var + 1e-5).rsqrt()
        return x * scale.view(1, -1, 1, 1) + (self.bias - self.running_mean * scale).view(1, -1, 1, 1)


def test_frozen_batch_norms_are_batch_norms() -> None:
    from timm.layers import FrozenBatchNormAct2d
    from torchvision.ops import FrozenBatchNorm2d

    own = type("FrozenBatchNorm2d", (Frozen,), {})(8)
    net = Net(nn.Sequential(FrozenBatchNorm2d(8, eps=1e-3), own, FrozenBatchNormAct2d(8)))
    for module in net.modules():
        if isinstance(module, FrozenBatchNorm2d | FrozenBatchNormAct2d):
            module.running_mean.uniform_(-1, 1)
            module.running_var.uniform_(0.5, 2)
    model = model_of(net)
    assert kinds(model.graph)[1:5] == ["batch_norm2d", "batch_norm2d", "batch_norm2d", "relu"]
    assert {"middle.1.running_var", "middle.2.weight"} <= set(model.tensors)
    assert [type(m).__name__ for m in net.middle] == ["FrozenBatchNorm2d", "FrozenBatchNorm2d", "FrozenBatchNormAct2d"]


@pytest.mark.parametrize("function", [nn.ReLU(), nn.ReLU(inplace=True), F.relu, torch.relu, lambda x: x.clamp(min=0)])
def test_relu(function: Function) -> None:
    assert middle(function) == [{"op": "relu"}]


def window(kernel: int, stride: int, padding: int, dilation: int = 1, ceil: bool = False) -> dict:
    return {
        "kernel": [kernel] * 2,
        "stride": [stride] * 2,
        "padding": [padding] * 2,
        "dilation": [dilation] * 2,
        "ceil_mode": ceil,
    }


POOLS: list[tuple[nn.Module, dict]] = [
    (nn.MaxPool2d(3, 2, 1), {"op": "max_pool2d", "window": window(3, 2, 1)}),
    (nn.MaxPool2d(2, ceil_mode=True), {"op": "max_pool2d", "window": window(2, 2, 0, ceil=True)}),
    (nn.MaxPool2d(2, 1, dilation=2), {"op": "max_pool2d", "window": window(2, 1, 0, 2)}),
    (nn.AvgPool2d(2), {"op": "avg_pool2d", "window": window(2, 2, 0)}),
    (
        nn.AvgPool2d(3, 1, 1, count_include_pad=False),
        {"op": "avg_pool2d", "window": window(3, 1, 1), "count_include_pad": False},
    ),
    (nn.AdaptiveAvgPool2d((3, 2)), {"op": "adaptive_avg_pool2d", "output": [3, 2]}),
    (nn.AdaptiveAvgPool2d((None, 2)), {"op": "adaptive_avg_pool2d", "output": [7, 2]}),
]


@pytest.mark.parametrize(("module", "op"), POOLS, ids=str)
def test_pools(module: nn.Module, op: dict) -> None:
    assert middle(module) == [op]


def test_convolutions() -> None:
    ops = middle(
        nn.Sequential(
            nn.Conv2d(8, 12, (3, 1), (2, 1), (1, 0), bias=False),
            nn.Conv2d(12, 12, 3, padding=2, dilation=2, groups=12),
            nn.Conv2d(12, 8, 5, padding="same"),
            nn.Conv2d(8, 8, 3, padding="valid", groups=2),
        )
    )
    assert [op["groups"] for op in ops] == [1, 12, 1, 2]
    assert ops[0]["window"] == window(3, 2, 1) | {"kernel": [3, 1], "stride": [2, 1], "padding": [1, 0]}
    assert ops[0]["bias"] is False
    assert ops[1]["window"]["dilation"] == [2, 2]
    assert [op["window"]["padding"] for op in ops[2:]] == [[2, 2], [0, 0]]


def test_same_padding_of_an_even_kernel_is_a_border() -> None:
    ops = middle(nn.Conv2d(8, 8, (2, 3), padding="same"))
    assert ops[0] == {"op": "pad", "padding": [1, 1, 0, 1], "value": 0.0}


@pytest.mark.parametrize(
    ("function", "op"),
    [
        (nn.ZeroPad2d((1, 2, 0, 3)), {"op": "pad", "padding": [1, 2, 0, 3], "value": 0.0}),
        (lambda x: F.pad(x, (0, 1), value=-1.5), {"op": "pad", "padding": [0, 1, 0, 0], "value": -1.5}),
        (
            lambda x: F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, 0, 0, 2)).permute(0, 3, 1, 2),
            {"op": "pad", "padding": [1, 0, 0, 2], "value": 0.0},
        ),
    ],
)
def test_borders(function: Function, op: dict) -> None:
    assert middle(function) == [op]


def test_normalisations() -> None:
    class LastNorm(nn.LayerNorm):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    ops = middle(nn.Sequential(nn.BatchNorm2d(8, eps=1e-3), nn.GroupNorm(2, 8), LastNorm(8), LastNorm(8, bias=False)))
    assert ops[0] == {"op": "batch_norm2d", "num_features": 8, "eps": 1e-3}
    assert ops[1] == {"op": "group_norm", "num_groups": 2, "num_features": 8, "eps": 1e-5}
    assert ops[2:] == [{"op": "layer_norm", "num_features": 8, "eps": 1e-5, "bias": bias} for bias in (True, False)]


def test_batch_norm_of_tokens_and_of_features() -> None:
    class Net1d(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 8, 3)
            self.a, self.b = nn.BatchNorm1d(8), nn.BatchNorm1d(8)
            self.fc = nn.Linear(8, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.a(self.stem(x).flatten(2))
            return self.fc(self.b(x.mean(2)))

    assert kinds(graph_of(randomise(Net1d()))) == ["conv2d", "batch_norm2d", "mean", "batch_norm2d", "linear"]


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.mean((2, 3)),
        lambda x: x.flatten(2).mean(-1),
        lambda x: x.flatten(2).transpose(1, 2).mean(1),
        lambda x: x.permute(0, 2, 3, 1).mean((1, 2)),
        lambda x: F.adaptive_avg_pool1d(x.flatten(2), 1).squeeze(-1),
    ],
)
def test_means(function: Function) -> None:
    found = [op["op"] for op in middle(function)]
    assert found in ([], ["tokens"])


@pytest.mark.parametrize(
    "function",
    [
        lambda x: F.adaptive_avg_pool2d(x, 1).flatten(1),
        lambda x: F.adaptive_avg_pool2d(x, 1)[:, :, 0, 0],
        lambda x: F.adaptive_avg_pool2d(x, 1).view(x.shape[0], -1),
        lambda x: F.adaptive_avg_pool2d(x, 1).squeeze(3).squeeze(2),
        lambda x: x.mean((2, 3), keepdim=True).reshape(-1, 8),
    ],
)
def test_pool_and_flatten(function: Function) -> None:
    assert [op["op"] for op in middle(function)] == ["adaptive_avg_pool2d", "flatten"]


def test_flatten_of_positions() -> None:
    assert [op["op"] for op in middle(lambda x: x.flatten(1), head=8 * 49)] == ["flatten"]


def test_a_multilayer_perceptron_on_gray_pixels() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 3))
    assert kinds(graph_of(net, 8, channels=1)) == ["flatten", "linear", "relu", "linear"]


@pytest.mark.parametrize(
    "function",
    [
        nn.Identity(),
        nn.Dropout(),
        lambda x: x.contiguous().clone(),
        lambda x: x.permute(0, 2, 3, 1).transpose(1, 3).transpose(2, 3),
        lambda x: x.unflatten(1, (2, 4)).flatten(1, 2),
        lambda x: x.movedim(1, -1).movedim(-1, 1),
        lambda x: x.view(x.shape[0], 2, 4, -1).transpose(1, 2).transpose(1, 2).reshape(x.shape),
        lambda x: x[:, :, :, :],
        lambda x: torch.cat([x], 1),
        lambda x: x * 1 + 0,
        lambda x: nn.functional.channel_shuffle(nn.functional.channel_shuffle(x, 2), 4),
    ],
)
def test_what_does_nothing_leaves_nothing(function: Function) -> None:
    assert middle(function) == []


@pytest.mark.parametrize(
    ("function", "scale", "shift"),
    [
        (lambda x: x * 0.5, 0.5, 0.0),
        (lambda x: 3 * x, 3.0, 0.0),
        (lambda x: x / 4, 0.25, 0.0),
        (lambda x: x + 2, 1.0, 2.0),
        (lambda x: x - 2, 1.0, -2.0),
        (lambda x: 1 - x, -1.0, 1.0),
        (lambda x: -x, -1.0, 0.0),
    ],
)
def test_constants(function: Function, scale: float, shift: float) -> None:
    assert middle(function) == [{"op": "affine", "scale": scale, "shift": shift}]


def test_sums_and_products() -> None:
    assert [op["op"] for op in middle(lambda x: x + x.relu())] == ["relu", "add"]
    assert [op["op"] for op in middle(lambda x: x * x.sigmoid())] == ["activation", "mul"]
    assert [op["op"] for op in middle(lambda x: x - x.relu())] == ["relu", "affine", "add"]
    assert [op["op"] for op in middle(lambda x: torch.add(x, x.relu(), alpha=2))] == ["relu", "affine", "add"]


def test_in_place_ops_change_what_is_read_later() -> None:
    def skip(x: torch.Tensor) -> torch.Tensor:
        y = x.relu_()
        return x + y * 2

    assert [op["op"] for op in middle(skip)] == ["relu", "affine", "add"]


class Gate(nn.Module):
    """Squeeze and excitation with Linear layers, as most people write it."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 8), nn.Sigmoid())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, c = x.shape[:2]
        return x * self.fc(x.mean((2, 3)).view(b, c)).view(b, c, 1, 1).expand_as(x)


def test_a_gate_keeps_its_positions() -> None:
    found = [op["op"] for op in middle(Gate())]
    assert found == ["adaptive_avg_pool2d", "linear", "relu", "linear", "activation", "mul"]


def test_slices_and_concatenations() -> None:
    def swap(x: torch.Tensor) -> torch.Tensor:
        a, b = x.chunk(2, 1)
        return torch.cat([b, a, x[:, 2:5]], 1)

    ops = middle(swap, head=11)
    assert [op.get("ranges") for op in ops] == [[[0, 4]], [[4, 8]], [[2, 5]], None]
    assert ops[-1] == {"op": "concat"}


def test_slices_of_a_cut_axis() -> None:
    ops = middle(lambda x: x.unflatten(1, (2, 4))[:, :, 1:3].flatten(1, 2), head=4)
    assert ops == [{"op": "slice", "ranges": [[1, 3], [5, 7]]}]


@pytest.mark.parametrize(
    "function",
    [
        lambda x: F.channel_shuffle(x, 4),
        lambda x: x.view(x.shape[0], 4, 2, 7, 7).transpose(1, 2).contiguous().view(x.shape),
        lambda x: x.permute(0, 2, 3, 1).unflatten(-1, (4, 2)).transpose(-1, -2).flatten(-2).permute(0, 3, 1, 2),
    ],
)
def test_channel_shuffle(function: Function) -> None:
    ops = middle(lambda x: function(x) + x)
    assert ops == [{"op": "channel_shuffle", "groups": 4}, {"op": "add"}]


@pytest.mark.parametrize(
    ("module", "kind", "shape", "axis"),
    [
        (Learned(lambda x, p: x * p, 8, 1, 1), "layer_scale", [8, 1, 1], 0),
        (Learned(lambda x, p: p.view(1, -1, 1, 1) * x, 8), "layer_scale", [8], 0),
        (Learned(lambda x, p: (x.permute(0, 2, 3, 1) * p).permute(0, 3, 1, 2), 8), "layer_scale", [8], 0),
        (Learned(lambda x, p: x + p, 1, 8, 7, 7), "position_embedding", [1, 8, 7, 7], 1),
        (Learned(lambda x, p: x + p, 1, 8, 1, 7), "position_embedding", [1, 8, 1, 7], 1),
        (Learned(lambda x, p: x + p.permute(0, 3, 1, 2), 1, 7, 7, 8), "position_embedding", [1, 7, 7, 8], 3),
    ],
)
def test_learned_tensors(module: nn.Module, kind: str, shape: list[int], axis: int) -> None:
    assert middle(module) == [{"op": kind, "shape": shape, "axis": axis}]


class Tokens(nn.Module):
    """Patches, a class token, positions; one attention; the class token's features."""

    def __init__(self, attend: Callable[[torch.Tensor, int], torch.Tensor], read: Function) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 4, 4)
        self.tokens = nn.Parameter(torch.randn(1, 2, 12))
        self.positions = nn.Parameter(torch.randn(1, 18, 12))
        self.qkv = nn.Linear(12, 36)
        self.head = nn.Linear(12, 3)
        self.attend, self.read = attend, read

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.tokens.expand(x.shape[0], -1, -1), x], dim=1) + self.positions
        return self.head(self.read(x + self.attend(self.qkv(x), 4)))


def fused(qkv: torch.Tensor, heads: int) -> torch.Tensor:
    b, t, c = qkv.shape
    q, k, v = qkv.reshape(b, t, 3, heads, c // 3 // heads).permute(2, 0, 3, 1, 4).unbind(0)
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, t, c // 3)


def scaled(qkv: torch.Tensor, heads: int) -> torch.Tensor:
    b, t, _ = qkv.shape
    q, k, v = (part.view(b, t, heads, -1).transpose(1, 2) for part in qkv.chunk(3, dim=-1))
    return F.scaled_dot_product_attention(q, k, v, scale=0.3).transpose(1, 2).flatten(2)


def explicit(qkv: torch.Tensor, heads: int) -> torch.Tensor:
    b, t, c = qkv.shape
    q, k, v = (part.reshape(b, t, heads, -1).transpose(1, 2) for part in qkv.split(c // 3, dim=2))
    weights = ((q @ k.transpose(-2, -1)) * (c // 3 // heads) ** -0.5).softmax(dim=-1)
    return (weights @ v).transpose(1, 2).reshape(b, t, -1)


def batched(qkv: torch.Tensor, heads: int) -> torch.Tensor:
    """Heads and batch in one axis, queries scaled before."""
    b, t, c = qkv.shape
    h = c // 3 // heads
    q, k, v = (part.transpose(0, 1).reshape(t, b * heads, h).transpose(0, 1) for part in qkv.chunk(3, dim=-1))
    weights = torch.softmax(torch.bmm(q * h**-0.5, k.transpose(1, 2)), -1)
    return torch.bmm(weights, v).transpose(0, 1).reshape(t, b, c // 3).transpose(0, 1)


@pytest.mark.parametrize("attend", [fused, scaled, explicit, batched])
@pytest.mark.parametrize("read", [lambda x: x[:, 0], lambda x: x.mean(1)], ids=["class token", "mean"])
def test_attention(attend: Callable, read: Function) -> None:
    nodes = graph_of(Tokens(attend, read))["nodes"]
    found = [node["op"]["op"] for node in nodes]
    assert found[:5] == ["conv2d", "tokens", "prepend_tokens", "position_embedding", "linear"]
    assert found[5:10] == ["slice", "slice", "slice", "attention", "add"]
    assert found[10] in ("select_token", "mean")
    attention = next(node["op"] for node in nodes if node["op"]["op"] == "attention")
    assert attention == {"op": "attention", "heads": 4} | ({"scale": 0.3} if attend is scaled else {})
    assert nodes[3]["op"] == {"op": "position_embedding", "shape": [1, 18, 12], "axis": 2}


def test_encoder_layers_of_torch() -> None:
    class Encoder(nn.Module):
        def __init__(self, batch_first: bool) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 12, 4, 4)
            self.layer = nn.TransformerEncoderLayer(
                12, 3, 24, activation="gelu", batch_first=batch_first, norm_first=True
            )
            self.head = nn.Linear(12, 3)
            self.order = (0, 2, 1) if batch_first else (2, 0, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.layer(self.stem(x).flatten(2).permute(self.order))
            return self.head(x.mean(self.order.index(2)))

    for batch_first in (True, False):
        assert "attention" in kinds(graph_of(randomise(Encoder(batch_first))))
