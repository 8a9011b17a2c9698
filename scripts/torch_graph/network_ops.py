"""One op of our graph as calls of PyTorch, in canonical layout: [B, C, H, W], [B, C, T] or [B, C]."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 (everybody's name for it)
from torch import fx, nn

from .errors import ZipitError
from .graph import Json, op_params, param_names

ACTIVATIONS: dict[str, Callable[..., torch.Tensor]] = {
    "relu6": F.relu6,
    "gelu": F.gelu,
    "silu": F.silu,
    "sigmoid": torch.sigmoid,
    "hardsigmoid": F.hardsigmoid,
    "hardswish": F.hardswish,
    "tanh": torch.tanh,
    "mish": F.mish,
    "softplus": F.softplus,
}


def layer(op: Json) -> nn.Module | None:
    """PyTorch's layer for an op with the usual parameters; what they hold comes later."""
    with torch.device("meta"):
        return _layer(op)


def _layer(op: Json) -> nn.Module | None:
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
            return BatchNorm2d(op["num_features"], op["eps"])
        case "layer_norm":
            return nn.LayerNorm(op["num_features"], op["eps"], bias=op["bias"])
        case "group_norm":
            return nn.GroupNorm(op["num_groups"], op["num_features"], op["eps"])
        case _:
            return None


class BatchNorm2d(nn.BatchNorm2d):
    """Takes tokens [B, C, T] and features [B, C] as well."""

    def _check_input_dim(self, input: torch.Tensor) -> None:  # noqa: A002 (PyTorch's name)
        if input.ndim < 2:
            raise ValueError(f"expected [B, C, ...], got {list(input.shape)}")


@dataclass
class Writer:
    """Writes the calls of one node."""

    graph: fx.Graph
    root: nn.Module
    node: Json
    inputs: list[fx.Node]
    ranks: list[int]
    """Number of axes of each input, the batch left out."""

    def write(self) -> tuple[fx.Node, int]:
        """The result, and its number of axes."""
        op = self.node["op"]
        x, rank = (self.inputs[0], self.ranks[0]) if self.inputs else (None, 0)
        match op["op"]:
            case "conv2d" | "batch_norm2d" | "group_norm":
                return self._layer(x), rank
            case "linear" | "layer_norm":
                return self._on_last(x, rank), rank
            case "relu":
                return self._call(F.relu, x), rank
            case "activation":
                return self._activation(x, op["function"]), rank
            case "max_pool2d":
                return self._call(F.max_pool2d, x, **_window(op, dilation=True)), rank
            case "avg_pool2d":
                return self._call(
                    F.avg_pool2d, x, **_window(op), count_include_pad=op.get("count_include_pad", True)
                ), rank
            case "adaptive_avg_pool2d":
                return self._call(F.adaptive_avg_pool2d, x, tuple(op["output"])), rank
            case "mean":
                return self._call(torch.mean, x, tuple(range(2, rank + 1))) if rank > 1 else x, 1
            case "flatten":
                return self._call(torch.flatten, x, 1), 1
            case "tokens":
                return self._call(torch.flatten, x, 2), 2
            case "select_token":
                return self._call(torch.select, x, 2, op["index"]), 1
            case "prepend_tokens":
                return self._prepend(x), 2
            case "position_embedding":
                return self._call(torch.add, x, self._broadcast(op, rank)), rank
            case "layer_scale":
                return self._call(torch.mul, x, self._broadcast(op, rank)), rank
            case "affine":
                scaled = self._call(torch.mul, x, op["scale"])
                return self._call(torch.add, scaled, op["shift"]) if op["shift"] else scaled, rank
            case "attention":
                return self._attention(op), 2
            case "add" | "mul":
                return self._reduce(torch.add if op["op"] == "add" else torch.mul), rank
            case "concat":
                return self._call(torch.cat, self.inputs, 1), rank
            case "slice":
                return self._slice(x, op["ranges"]), rank
            case "channel_shuffle":
                return self._shuffle(x, op["groups"]), rank
            case "pad":
                return self._call(F.pad, x, tuple(op["padding"]), "constant", op["value"]), rank
            case other:
                raise ZipitError(f"{self.node['name']}: `{other}` is not an op this version knows")

    def _call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> fx.Node:
        return self.graph.call_function(function, args, kwargs)

    def _params(self) -> dict[str, fx.Node]:
        names = param_names(self.node, op_params(self.node["op"]))
        return {param: self.graph.get_attr(name) for param, name in names.items()}

    def _layer(self, x: fx.Node) -> fx.Node:
        """The layer under its name, or the function with bare parameters."""
        op = self.node["op"]
        if "params" not in self.node and self.node["module"]:
            return self.graph.call_module(self.node["module"], (x,))
        p = self._params()
        match op["op"]:
            case "conv2d":
                window = op["window"]
                geometry = [window["stride"], window["padding"], window.get("dilation", [1, 1])]
                shape = [tuple(g) for g in geometry]
                return self._call(F.conv2d, x, p["weight"], p.get("bias"), *shape, op["groups"])
            case "linear":
                return self._call(F.linear, x, p["weight"], p.get("bias"))
            case "layer_norm":
                return self._call(F.layer_norm, x, (op["num_features"],), p["weight"], p.get("bias"), op["eps"])
            case "group_norm":
                return self._call(F.group_norm, x, op["num_groups"], p["weight"], p["bias"], op["eps"])
            case _:
                statistics = (p["running_mean"], p["running_var"], p["weight"], p["bias"])
                return self._call(F.batch_norm, x, *statistics, False, 0.1, op["eps"])

    def _on_last(self, x: fx.Node, rank: int) -> fx.Node:
        if rank == 1:
            return self._layer(x)
        moved = self._call(torch.movedim, x, 1, -1)
        return self._call(torch.movedim, self._layer(moved), -1, 1)

    def _activation(self, x: fx.Node, function: str | Json) -> fx.Node:
        match function:
            case "gelu_tanh":
                return self._call(F.gelu, x, approximate="tanh")
            case {"leaky_relu": slope}:
                return self._call(F.leaky_relu, x, slope)
            case {"elu": alpha}:
                return self._call(F.elu, x, alpha)
            case str() if function in ACTIVATIONS:
                return self._call(ACTIVATIONS[function], x)
            case other:
                raise ZipitError(f"{self.node['name']}: `{other}` is not an activation this version knows")

    def _prepend(self, x: fx.Node) -> fx.Node:
        learned = self._call(torch.transpose, self._params()["weight"], 1, 2)
        batch = self._call(torch.Tensor.size, x, 0)
        return self._call(torch.cat, [self._call(torch.Tensor.expand, learned, batch, -1, -1), x], 2)

    def _broadcast(self, op: Json, rank: int) -> fx.Node:
        """The learned tensor with its features in front and as many positions as the value."""
        shape, axis = op["shape"], op["axis"]
        moved = self._call(torch.movedim, self._params()["weight"], axis, 0)
        positions = [n for i, n in enumerate(shape) if i != axis]
        while positions and positions[0] == 1:
            positions.pop(0)
        ones = [1] * (rank - 1 - len(positions))
        return self._call(torch.reshape, moved, (shape[axis], *ones, *positions))

    def _attention(self, op: Json) -> fx.Node:
        by_heads = [
            self._call(torch.transpose, self._call(torch.unflatten, x, 1, (op["heads"], -1)), 2, 3) for x in self.inputs
        ]
        attended = self._call(F.scaled_dot_product_attention, *by_heads, scale=op.get("scale"))
        return self._call(torch.flatten, self._call(torch.transpose, attended, 2, 3), 1, 2)

    def _reduce(self, function: Callable[..., torch.Tensor]) -> fx.Node:
        total = self.inputs[0]
        for other in self.inputs[1:]:
            total = self._call(function, total, other)
        return total

    def _slice(self, x: fx.Node, ranges: list[list[int]]) -> fx.Node:
        parts = [self._call(torch.narrow, x, 1, start, stop - start) for start, stop in ranges]
        return parts[0] if len(parts) == 1 else self._call(torch.cat, parts, 1)

    def _shuffle(self, x: fx.Node, groups: int) -> fx.Node:
        cut = self._call(torch.unflatten, x, 1, (groups, -1))
        return self._call(torch.flatten, self._call(torch.transpose, cut, 1, 2), 1, 2)


def _window(op: Json, dilation: bool = False) -> dict[str, Any]:
    window = op["window"]
    arguments = {
        "kernel_size": tuple(window["kernel"]),
        "stride": tuple(window["stride"]),
        "padding": tuple(window["padding"]),
        "ceil_mode": window.get("ceil_mode", False),
    }
    return arguments | ({"dilation": tuple(window.get("dilation", [1, 1]))} if dilation else {})
