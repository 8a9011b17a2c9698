"""One op of our graph as calls of PyTorch, in canonical layout: [B, C, H, W], [B, C, T] or [B, C]."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 (everybody's name for it)
from torch import nn

from . import activations, network_calls
from .errors import ZipitError
from .graph import Json

Params = dict[str, torch.Tensor]

LAYERS = {"conv2d", "linear", "batch_norm2d", "layer_norm", "group_norm"}
"""Ops that are a layer of PyTorch's."""
OTHERS = {
    *("relu", "activation", "max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "mean", "flatten", "tokens"),
    *("select_token", "prepend_tokens", "position_embedding", "layer_scale", "affine", "attention", "add", "mul"),
    *("concat", "slice", "channel_shuffle", "pad", "power_mean_norm", "stored", "call", "follow", "positions", "join"),
}


def check(node: Json) -> None:
    """Refuses what a newer version may have written."""
    op = node["op"]
    if op["op"] not in LAYERS | OTHERS:
        raise ZipitError(f"{node['name']}: `{op['op']}` is not an op this version knows")
    function = op.get("function") if op["op"] == "activation" else None
    if function is not None and activations.named(function)[0] not in activations.ACTIVATIONS:
        raise ZipitError(f"{node['name']}: `{activations.named(function)[0]}` is not an activation this version knows")


def layer(op: Json, rank: int) -> nn.Module:
    """PyTorch's layer for one of LAYERS, whose input has `rank` axes and the batch; what it holds comes later."""
    with torch.device("meta"):
        return _layer(op, rank)


def _layer(op: Json, rank: int) -> nn.Module:
    match op["op"]:
        case "conv2d":
            window = op["window"]
            return nn.Conv2d(
                op["in_channels"],
                op["out_channels"],
                window["kernel"],
                window["stride"],
                window["padding"],
                window.get("dilation", [1, 1]),
                op["groups"],
                op["bias"],
            )
        case "linear":
            return nn.Linear(op["in_features"], op["out_features"], op["bias"])
        case "batch_norm2d":
            return (nn.BatchNorm2d if rank == 3 else nn.BatchNorm1d)(op["num_features"], op["eps"])
        case "layer_norm":
            return nn.LayerNorm(op["num_features"], op["eps"], bias=op["bias"])
        case _:
            return nn.GroupNorm(op["num_groups"], op["num_features"], op["eps"])


def rank(op: Json, given: int) -> int:
    """Number of axes of an op's value, the batch left out, from that of its first input."""
    match op["op"]:
        case "mean" | "flatten" | "select_token":
            return 1
        case "tokens" | "prepend_tokens":
            return 2
        case "follow" | "stored" | "call" | "positions":
            return len(op["shape"])
        case _:
            return given


def apply(
    op: Json, inputs: list[torch.Tensor], rank: int, layer: nn.Module | None, p: Params, images: torch.Tensor
) -> torch.Tensor:
    """What an op computes of inputs with `rank` axes and the batch, by the layer that has its parameters or with the
    bare parameters `p`, for these images."""
    if op["op"] == "stored":
        return p["weight"]
    x = inputs[0]
    match op["op"]:
        case "call" | "positions":
            return network_calls.apply(op["call"], inputs, images.shape[0])
        case "follow":
            return x.reshape(images.shape[0], *op["shape"]).movedim(op["axis"] + 1, 1)
        case "conv2d" | "batch_norm2d" | "group_norm":
            return layer(x) if layer is not None else _with_parameters(op, x, p)
        case "linear" | "layer_norm":
            moved = x.movedim(1, -1) if rank > 1 else x
            made = layer(moved) if layer is not None else _with_parameters(op, moved, p)
            return made.movedim(-1, 1) if rank > 1 else made
        case "power_mean_norm":
            if op["power"] == 1:
                return x / (x.mean(1, keepdim=True) + op["eps"])
            mean = x.square().mean(1, keepdim=True) + op["eps"]
            return x / mean.sqrt() * p["weight"].reshape(-1, *[1] * (x.ndim - 2))
        case "relu":
            return F.relu(x)
        case "activation":
            return activations.apply(op["function"], x)
        case "max_pool2d":
            return F.max_pool2d(x, dilation=tuple(op["window"].get("dilation", [1, 1])), **_window(op))
        case "avg_pool2d":
            return F.avg_pool2d(x, count_include_pad=op.get("count_include_pad", True), **_window(op))
        case "adaptive_avg_pool2d":
            return F.adaptive_avg_pool2d(x, tuple(op["output"]))
        case "mean":
            return x.mean(tuple(range(2, rank + 1))) if rank > 1 else x
        case "flatten":
            return x.flatten(1)
        case "tokens":
            return x.flatten(2)
        case "select_token":
            return x.select(2, op["index"])
        case "prepend_tokens":
            once_per_image = torch.zeros_like(x.narrow(2, 0, 1))
            return torch.cat([p["weight"].transpose(1, 2) + once_per_image, x], 2)
        case "position_embedding":
            return x + _broadcast(op, p["weight"], rank)
        case "layer_scale":
            return x * _broadcast(op, p["weight"], rank)
        case "affine":
            scaled = x * op["scale"]
            return scaled + op["shift"] if op["shift"] else scaled
        case "attention":
            return _attention(op, inputs, rank, p.get("bias"))
        case "join":
            return torch.cat(inputs, op["axis"] + 1)
        case "add":
            return _reduce(torch.add, inputs)
        case "mul":
            return _reduce(torch.mul, inputs)
        case "concat":
            return torch.cat(inputs, 1)
        case "slice":
            parts = [x.narrow(1, start, stop - start) for start, stop in op["ranges"]]
            return parts[0] if len(parts) == 1 else torch.cat(parts, 1)
        case "channel_shuffle":
            return x.unflatten(1, (op["groups"], -1)).transpose(1, 2).flatten(1, 2)
        case _:
            return F.pad(x, tuple(op["padding"]), "constant", op["value"])


def _attention(op: Json, inputs: list[torch.Tensor], rank: int, bias: torch.Tensor | None) -> torch.Tensor:
    by_heads = [value.unflatten(1, (op["heads"], -1)) for value in inputs]
    if rank == 2:
        attended = F.scaled_dot_product_attention(
            *(value.transpose(2, 3) for value in by_heads), attn_mask=bias, scale=op.get("scale")
        )
        return attended.transpose(2, 3).flatten(1, 2)
    shape = inputs[0].shape
    # [B·windows, heads, T, h]
    windows = [value.flatten(3, -2).permute(0, 3, 1, 4, 2).flatten(0, 1) for value in by_heads]
    if bias is not None and bias.shape[0] > 1:
        bias = (bias + torch.zeros_like(inputs[0].flatten(1)[:, :1, None, None, None])).flatten(0, 1)
    attended = F.scaled_dot_product_attention(*windows, attn_mask=bias, scale=op.get("scale"))
    apart = attended.unflatten(0, (shape[0], -1)).permute(0, 2, 4, 1, 3)
    return apart.reshape(shape[0], -1, *shape[2:])


def _with_parameters(op: Json, x: torch.Tensor, p: Params) -> torch.Tensor:
    """A layer whose parameters have other names than PyTorch's layer gives them."""
    match op["op"]:
        case "conv2d":
            window = op["window"]
            geometry = (window["stride"], window["padding"], window.get("dilation", [1, 1]))
            return F.conv2d(x, p["weight"], p.get("bias"), *map(tuple, geometry), op["groups"])
        case "linear":
            return F.linear(x, p["weight"], p.get("bias"))
        case "layer_norm":
            return F.layer_norm(x, (op["num_features"],), p["weight"], p.get("bias"), op["eps"])
        case "group_norm":
            return F.group_norm(x, op["num_groups"], p["weight"], p["bias"], op["eps"])
        case _:
            statistics = (p["running_mean"], p["running_var"], p["weight"], p["bias"])
            return F.batch_norm(x, *statistics, False, 0.1, op["eps"])


def _broadcast(op: Json, learned: torch.Tensor, rank: int) -> torch.Tensor:
    """The learned tensor with its features in front and as many positions as the value."""
    shape, axis = op["shape"], op["axis"]
    positions = [n for i, n in enumerate(shape) if i != axis]
    while positions and positions[0] == 1:
        positions.pop(0)
    ones = [1] * (rank - 1 - len(positions))
    return learned.movedim(axis, 0).reshape(shape[axis], *ones, *positions)


def _reduce(function: Callable[..., torch.Tensor], inputs: list[torch.Tensor]) -> torch.Tensor:
    total = inputs[0]
    for other in inputs[1:]:
        total = function(total, other)
    return total


def _window(op: Json) -> dict[str, Any]:
    window = op["window"]
    return {
        "kernel_size": tuple(window["kernel"]),
        "stride": tuple(window["stride"]),
        "padding": tuple(window["padding"]),
        "ceil_mode": window.get("ceil_mode", False),
    }
