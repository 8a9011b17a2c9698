"""Functions of tensors that are run and not followed, as calls of PyTorch."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 (everybody's name for it)

from . import activations
from .graph import Json

REDUCTIONS = {
    "mean": torch.mean,
    "sum": torch.sum,
    "amax": torch.amax,
    "amin": torch.amin,
    "logsumexp": torch.logsumexp,
}


def apply(call: Json, inputs: list[torch.Tensor], n_images: Any) -> torch.Tensor:
    """What a call computes for so many images."""
    x, *rest = inputs

    def length(n: Any) -> Any:
        return n if isinstance(n, int) else n["per_image"] * n_images

    def shape() -> list[Any]:
        return [length(n) for n in call["shape"]]

    def given(*names: str) -> list[torch.Tensor | None]:
        """The optional tensors, in their order."""
        left = iter(rest)
        return [next(left) if call[name] else None for name in names]

    match call["name"]:
        case "reshape":
            return x.reshape(shape())
        case "expand":
            return x.expand(shape())
        case "permute":
            return x.permute(call["dims"])
        case "slice":
            whole = [slice(None)] * call["dim"]
            return x[(*whole, slice(call["start"], call["end"], call["step"]))]
        case "cat":
            return torch.cat(inputs, call["dim"])
        case "roll":
            return x.roll(call["shifts"], call["dims"])
        case "flip":
            return x.flip(call["dims"])
        case "index":
            left = iter(rest)
            return x[tuple(next(left).long() if there else slice(None) for there in call["of"])]
        case "gather":
            return x.gather(call["dim"], rest[0].long())
        case "pad":
            value = {"value": call["value"]} if call["mode"] == "constant" else {}
            return F.pad(x, call["pad"], call["mode"], **value)
        case "matmul":
            return x @ rest[0]
        case "einsum":
            return torch.einsum(call["equation"], inputs)
        case "linear":
            return F.linear(x, rest[0], rest[1] if call["bias"] else None)
        case "convolution":
            return _convolution(call, x, rest[0], rest[1] if call["bias"] else None, length(call["groups"]))
        case "attention":
            mask = rest[2] if call["mask"] else None
            options = {"is_causal": call["causal"], "scale": call["scale"], "enable_gqa": call["grouped"]}
            return F.scaled_dot_product_attention(x, *rest[:2], attn_mask=mask, **options)
        case "softmax":
            return x.softmax(call["dim"])
        case "log_softmax":
            return x.log_softmax(call["dim"])
        case "reduce":
            return _reduced(x, call["function"], call["dims"], call["keepdim"])
        case "cumsum":
            return x.cumsum(call["dim"])
        case "map":
            return (x == 0).float() if call["function"] == "logical_not" else getattr(torch, call["function"])(x)
        case "relu":
            return F.relu(x)
        case "activate":
            return activations.apply(call["function"], x)
        case "affine":
            return x * call["scale"] + call["shift"]
        case "power":
            return x ** call["exponent"]
        case "clamp":
            return x.clamp(call["min"], call["max"])
        case "combine":
            made = getattr(torch, call["function"])(x, rest[0])
            return made if made.is_floating_point() else made.float()
        case "where":
            return torch.where(x != 0, *rest)
        case "layer_norm":
            return F.layer_norm(x, call["shape"], *given("weight", "bias"), call["eps"])
        case "rms_norm":
            axes = [-1 - i for i in range(len(call["shape"]))]
            eps = torch.finfo(torch.float32).eps if call["eps"] is None else call["eps"]
            normed = x * (x.square().mean(axes, keepdim=True) + eps).rsqrt()
            return normed * rest[0] if call["weight"] else normed
        case "group_norm":
            return F.group_norm(x, call["groups"], *given("weight", "bias"), call["eps"])
        case "batch_norm":
            mean, var, *rest = rest  # numbers of the file, which PyTorch takes for parameters
            return F.batch_norm(x, mean.detach(), var.detach(), *given("weight", "bias"), False, 0.0, call["eps"])
        case "interpolate":
            return _interpolated(x, call)
        case "pixel_shuffle":
            return F.pixel_shuffle(x, call["factor"])
        case "pixel_unshuffle":
            return F.pixel_unshuffle(x, call["factor"])
        case "unfold":
            return F.unfold(x, *(call[name] for name in ("kernel", "dilation", "padding", "stride")))
        case "fold":
            return F.fold(x, call["size"], *(call[name] for name in ("kernel", "dilation", "padding", "stride")))
        case "adaptive_avg_pool":
            return (F.adaptive_avg_pool1d if len(call["size"]) == 1 else F.adaptive_avg_pool2d)(x, call["size"])
        case "adaptive_max_pool":
            return (F.adaptive_max_pool1d if len(call["size"]) == 1 else F.adaptive_max_pool2d)(x, call["size"])
        case "avg_pool":
            pool = F.avg_pool1d if len(call["kernel"]) == 1 else F.avg_pool2d
            return pool(x, *(call[n] for n in ("kernel", "stride", "padding", "ceil_mode", "count_include_pad")))
        case "max_pool":
            pool = F.max_pool1d if len(call["kernel"]) == 1 else F.max_pool2d
            return pool(x, *(call[n] for n in ("kernel", "stride", "padding", "dilation", "ceil_mode")))
        case _:
            n_states = call["layers"] * (2 if call["bidirectional"] else 1)
            state = x.new_zeros(n_states, x.shape[0], rest[1].shape[1])
            return torch.lstm(
                x, (state, state), rest, call["bias"], call["layers"], 0.0, False, call["bidirectional"], True
            )[0]


def _convolution(
    call: Json, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, groups: Any
) -> torch.Tensor:
    shape = (call["stride"], call["padding"], call["dilation"])
    return torch.ops.aten.convolution(
        x, weight, bias, *shape, call["transposed"], call["output_padding"], groups
    )


def _reduced(x: torch.Tensor, function: str, dims: list[int], keepdim: bool) -> torch.Tensor:
    if function in REDUCTIONS:
        return REDUCTIONS[function](x, dims, keepdim=keepdim)
    if function in ("norm", "norm1"):
        return torch.linalg.vector_norm(x, 2 if function == "norm" else 1, dims, keepdim)
    if function == "prod":
        for dim in sorted(dims, reverse=True):
            x = x.prod(dim, keepdim)
        return x
    sample, _, kind = function.rpartition("_")
    return getattr(torch, kind)(x, dims, correction=1 if sample else 0, keepdim=keepdim)


def _interpolated(x: torch.Tensor, call: Json) -> torch.Tensor:
    size, scales = call["size"], call["scales"] or [None, None]
    aten = torch.ops.aten
    n = len(size)
    scales = list(scales)[:n]
    match call["mode"]:
        case "nearest":
            return (aten.upsample_nearest1d if n == 1 else aten.upsample_nearest2d)(x, size, *scales)
        case "nearest_exact":
            return (aten._upsample_nearest_exact1d if n == 1 else aten._upsample_nearest_exact2d)(x, size, *scales)
        case mode:
            names = {"linear": "upsample_linear1d", "bilinear": "upsample_bilinear2d", "bicubic": "upsample_bicubic2d"}
            return getattr(aten, names[mode])(x, size, call["align_corners"], *scales)
