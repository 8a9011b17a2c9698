"""Layers: convolutions, Linear, normalisations, activations, pooling, padding."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .axes import FEATURES, Layout
from .graph import Json
from .lower import Call, lowers
from .values import View

PLAIN_ACTIVATIONS = (
    *("relu6", "silu", "sigmoid", "hardsigmoid", "hardswish", "tanh", "mish"),
    *("selu", "log_sigmoid", "abs"),
)


def _layer_name(call: Call, weight: str) -> str:
    """The module that owns the weight, whatever calls the function; `in_proj` for `in_proj_weight`."""
    owner, _, leaf = weight.rpartition(".")
    if leaf == "weight":
        return owner or call.site.name
    part = leaf.removesuffix("_weight")
    return f"{owner}.{part}" if owner else part


def _affine(call: Call, *names: str) -> dict[str, str]:
    return {name: call.parameter(name) for name in names}


def _weights(call: Call) -> dict[str, str]:
    """Weight, and bias where there is one."""
    return _affine(call, "weight", *(["bias"] if call["bias"] is not None else []))


def _scales(call: Call, n: int) -> dict[str, str]:
    """Weight and bias of a norm; where there are none, those that change nothing are written down."""
    return {"weight": call.filled("weight", n, 1.0), "bias": call.filled("bias", n, 0.0)}


def _window(kernel: list[int], stride: list[int], padding: list[int], dilation: list[int], ceil_mode: bool) -> Json:
    return {"kernel": kernel, "stride": stride, "padding": padding, "dilation": dilation, "ceil_mode": ceil_mode}


def padded(padding: str, dilation: Sequence[int], kernel: Sequence[int]) -> list[int]:
    """By how much each axis grows with a padding that has a name."""
    return [d * (k - 1) if padding == "same" else 0 for d, k in zip(dilation, kernel, strict=True)]


def border_of(spans: list[int]) -> list[int]:
    """From the last axis, before and behind: the larger half behind."""
    return [n for span in reversed(spans) for n in (span // 2, span - span // 2)]


@lowers("conv2d")
def _conv2d(call: Call) -> View:
    x = call.image("input")
    params = _weights(call)
    weight = call["weight"].layout.shape
    kernel, dilation = list(weight[2:]), call.pair("dilation")
    name = _layer_name(call, params["weight"])
    if isinstance(call["padding"], str):
        spans = padded(call["padding"], dilation, kernel)
        if any(span % 2 for span in spans):
            x = _bordered(call, x, border_of(spans), 0.0, f"{name}.pad")
            spans = [0, 0]
        padding = [span // 2 for span in spans]
    else:
        padding = call.pair("padding")
    op = {
        "op": "conv2d",
        "in_channels": x.layout.dims[FEATURES],
        "out_channels": weight[0],
        "window": _window(kernel, call.pair("stride"), padding, dilation, False),
        "groups": call["groups"],
        "bias": "bias" in params,
    }
    return call.emit(op, [x], Layout.of(call.shape), params, name)


@lowers("linear")
def _linear(call: Call) -> View:
    x = call.vector(call.tensor("input"), -1)
    params = _weights(call)
    outputs, inputs = call["weight"].layout.shape
    op = {"op": "linear", "in_features": inputs, "out_features": outputs, "bias": "bias" in params}
    dims = tuple(outputs if i == FEATURES else size for i, size in enumerate(x.layout.dims))
    axes = Layout(dims, x.layout.axes)
    layout = axes.with_axis(x.ndim - 1, axes.whole(FEATURES))
    return call.emit(op, [x], layout, params, _layer_name(call, params["weight"]))


@lowers("batch_norm", "_native_batch_norm_legit_no_training", "cudnn_batch_norm")
def _batch_norm(call: Call) -> View:
    if call.args.get("training"):
        raise call.refuse("takes the batch's statistics even in evaluation mode (track_running_stats=False)")
    x = call.vector(call.tensor("input"), 1)
    params = _scales(call, x.layout.dims[FEATURES]) | _affine(call, "running_mean", "running_var")
    op = {"op": "batch_norm2d", "num_features": x.layout.dims[FEATURES], "eps": call["eps"]}
    made = call.emit(op, [x], x.layout, params, _layer_name(call, params["weight"]))
    return made if call.site.op == "batch_norm" else [made, None, None]


@lowers("layer_norm")
def _layer_norm(call: Call) -> View:
    if len(call["normalized_shape"]) != 1:
        raise call.refuse(f"normalises over {call['normalized_shape']}; only one axis, the features, can be merged")
    x = call.vector(call.tensor("input"), -1)
    params = _weights(call) if call["weight"] is not None else _scales(call, x.layout.dims[FEATURES])
    op = {
        "op": "layer_norm",
        "num_features": x.layout.dims[FEATURES],
        "eps": call["eps"],
        "bias": "bias" in params,
    }
    return call.emit(op, [x], x.layout, params, _layer_name(call, params["weight"]))


@lowers("group_norm")
def _group_norm(call: Call) -> View:
    x = call.vector(call.tensor("input"), 1)
    params = _scales(call, x.layout.dims[FEATURES])
    op = {
        "op": "group_norm",
        "num_groups": call["num_groups"],
        "num_features": x.layout.dims[FEATURES],
        "eps": call["eps"],
    }
    return call.emit(op, [x], x.layout, params, _layer_name(call, params["weight"]))


def _pointwise(call: Call, function: str | Json) -> View:
    """A function of each number: whatever the layout, it stays."""
    x = call.tensor(next(iter(call.args)))
    op = {"op": "relu"} if function == "relu" else {"op": "activation", "function": function}
    return call.emit(op, [x], x.layout).seen(x.layout, x.site)


@lowers("relu", *PLAIN_ACTIVATIONS)
def _plain_activation(call: Call) -> View:
    return _pointwise(call, call.site.op)


@lowers("hardtanh", "clamp", "clamp_min", "clamp_max", "clip")
def _clamp(call: Call) -> View:
    low = call.args.get("min_val", call.args.get("min"))
    high = call.args.get("max_val", call.args.get("max"))
    if any(isinstance(bound, View) for bound in (low, high)):
        raise call.refuse("clamps to bounds that are computed")
    match low, high:
        case 0, None:
            return _pointwise(call, "relu")
        case 0, 6:
            return _pointwise(call, "relu6")
        case _, None:
            return _pointwise(call, {"threshold": [float(low), float(low)]})
        case None, _:
            negative = _affine_of(call, call.tensor(), -1.0, "negative")
            return _affine_of(call, _threshold(call, negative, -high, -high, "threshold"), -1.0)
        case _:
            return _pointwise(call, {"hardtanh": [float(low), float(max(low, high))]})


def _step(call: Call, op: Json, x: View, part: str | None, params: dict[str, str] | None = None) -> View:
    """One of several steps; the last one, which is no part, has the name of the whole."""
    return call.emit(op, [x], x.layout, params, part and call.site.part(part)).seen(x.layout, x.site)


def _affine_of(call: Call, x: View, scale: float, part: str | None = None) -> View:
    return _step(call, {"op": "affine", "scale": scale, "shift": 0.0}, x, part)


def _threshold(call: Call, x: View, threshold: float, value: float, part: str | None = None) -> View:
    return _step(call, {"op": "activation", "function": {"threshold": [float(threshold), float(value)]}}, x, part)


@lowers("threshold")
def _threshold_call(call: Call) -> View:
    return _threshold(call, call.tensor(), call["threshold"], call["value"])


@lowers("gelu")
def _gelu(call: Call) -> View:
    return _pointwise(call, "gelu_tanh" if call["approximate"] == "tanh" else "gelu")


@lowers("softplus")
def _softplus(call: Call) -> View:
    x, beta = call.tensor(), float(call["beta"])
    if call["threshold"] != 20 or beta == 0:
        raise call.refuse("only a threshold of 20 is known, and a beta that is not 0")
    if beta == 1:
        return _pointwise(call, "softplus")
    scaled = _affine_of(call, x, beta, "scaled")
    made = _step(call, {"op": "activation", "function": "softplus"}, scaled, "softplus")
    return _affine_of(call, made, 1 / beta)


@lowers("leaky_relu")
def _leaky_relu(call: Call) -> View:
    return _pointwise(call, {"leaky_relu": float(call["negative_slope"])})


@lowers("rrelu")
def _rrelu(call: Call) -> View:
    if call["training"]:
        raise call.refuse("draws its slope at random even in evaluation mode; give it `training=self.training`")
    return _pointwise(call, {"leaky_relu": (call["lower"] + call["upper"]) / 2})


@lowers("elu")
def _elu(call: Call) -> View:
    if (call["scale"], call["input_scale"]) != (1, 1):
        raise call.refuse("a scaled ELU is only known as SELU or CELU")
    return _pointwise(call, {"elu": float(call["alpha"])})


@lowers("celu")
def _celu(call: Call) -> View:
    return _pointwise(call, {"celu": float(call["alpha"])})


@lowers("hardshrink", "softshrink")
def _shrink(call: Call) -> View:
    return _pointwise(call, {call.site.op: float(call["lambd"])})


@lowers("prelu")
def _prelu(call: Call) -> View:
    """max(0, x) − w·max(0, −x). A slope for all features is written down as one for each: features that are merged must
    each have one."""
    x = call.tensor()
    weight = call.parameter("weight")
    if call["weight"].layout.shape != (1,):
        x = call.features(x, 1)
    n = x.layout.dims[FEATURES]
    call.lowering.builder.repeated[weight] = n
    above = _step(call, {"op": "relu"}, x, "above")
    below = _step(call, {"op": "relu"}, _affine_of(call, x, -1.0, "negative"), "below")
    scaled = _step(call, {"op": "layer_scale", "shape": [n], "axis": 0}, below, "slope", {"weight": weight})
    turned = _affine_of(call, scaled, -1.0, "turned")
    return call.emit({"op": "add"}, [above, turned], x.layout).seen(x.layout, x.site)


@lowers("glu")
def _glu(call: Call) -> View:
    """The first half of the features, gated by the second."""
    x = call.tensor()
    axis = call["dim"] % x.ndim
    x = call.features(x, axis)
    half = x.layout.dims[FEATURES] // 2
    parts = []
    for start in (0, half):
        ranges, layout = x.layout.take(axis, start, start + half)
        parts.append(call.emit({"op": "slice", "ranges": ranges}, [x], layout, name=call.site.part("slice")))
    gate = _step(call, {"op": "activation", "function": "sigmoid"}, parts[1], "sigmoid")
    return call.emit({"op": "mul"}, [parts[0], gate], parts[0].layout).seen(parts[0].layout, x.site)


def _pooled(call: Call, x: View, op: Json) -> View:
    return call.emit(op, [x], Layout.of(call.shape))


def _pool_window(call: Call, dilation: list[int]) -> Json:
    kernel = call.pair("kernel_size")
    stride = call.pair("stride") or kernel
    return _window(kernel, stride, call.pair("padding"), dilation, call["ceil_mode"])


@lowers("max_pool2d")
def _max_pool2d(call: Call) -> View:
    return _pooled(call, call.image(), {"op": "max_pool2d", "window": _pool_window(call, call.pair("dilation"))})


@lowers("avg_pool2d")
def _avg_pool2d(call: Call) -> View:
    if call["divisor_override"] is not None:
        raise call.refuse("divisor_override is not known")
    op: Json = {"op": "avg_pool2d", "window": _pool_window(call, [1, 1])}
    if not call["count_include_pad"]:
        op["count_include_pad"] = False
    return _pooled(call, call.image(), op)


@lowers("adaptive_avg_pool2d")
def _adaptive_avg_pool2d(call: Call) -> View:
    return _pooled(call, call.image(), {"op": "adaptive_avg_pool2d", "output": list(call.shape[2:])})


@lowers("adaptive_avg_pool1d")
def _adaptive_avg_pool1d(call: Call) -> View:
    x = call.features(call.tensor(), 1)
    if call.shape[2:] != (1,) or x.ndim != 3:
        raise call.refuse("only the average of all positions is known")
    x = call.tokens(x, 2)
    layout = Layout.of(x.layout.dims[: FEATURES + 1])
    return call.emit({"op": "mean"}, [x], layout).seen(layout.insert(2), call.site)


@lowers("mean")
def _mean(call: Call) -> View:
    x = call.tensor()
    if call.args.get("dim") is None:
        raise call.refuse("averages over the batch too")
    dims = {d % x.ndim for d in call["dim"]}
    if x.layout.used(dims) - set(x.positions):
        raise call.refuse("averages over features or images; only averages over all positions are known")
    if x.layout.used(set(range(x.ndim)) - dims) & set(x.positions):
        raise call.refuse("averages over some positions only; only averages over all positions are known")
    axes = tuple(() if i in dims else axis for i, axis in enumerate(x.layout.axes))
    features = x.layout.dims[: FEATURES + 1]
    if len(x.positions) == 2 and (call["keepdim"] or call.becomes_image):
        made = call.emit({"op": "adaptive_avg_pool2d", "output": [1, 1]}, [x], Layout((*features, 1, 1), axes))
    else:
        made = call.emit({"op": "mean"}, [x], Layout(features, axes))
    return made if call["keepdim"] else made.seen(made.layout.drop(dims), call.site)


@lowers("pad", "constant_pad_nd")
def _pad(call: Call) -> View:
    if call.args.get("mode", "constant") != "constant":
        raise call.refuse(f"padding mode `{call['mode']}` is not known, only constants")
    x = call.tensor()
    pads = list(call["pad"])
    border = [0, 0, 0, 0]
    layout = x.layout
    for i in range(len(pads) // 2):
        before, after = pads[2 * i : 2 * i + 2]
        axis = x.ndim - 1 - i
        if (before, after) == (0, 0):
            continue
        if min(before, after) < 0:
            raise call.refuse("crops; only borders can be added")
        spatial = [d for d in x.positions if len(x.positions) == 2 and layout.axes[axis] == layout.whole(d)]
        used = layout.used([axis]) or set(spatial[:1])
        if not spatial or len(used) != 1:
            raise call.refuse(f"pads axis {axis} of {list(layout.shape)}, which is not height or width")
        dim = used.pop()
        border[2 * (3 - dim) : 2 * (3 - dim) + 2] = before, after
    if not any(border):
        return x
    return _bordered(call, x, border, float(call["value"] or 0.0), call.site.name)


def finite(value: float) -> float:
    """A border of −∞, in front of a maximum, is a number here."""
    limit = float(torch.finfo(torch.float32).max)
    return min(max(value, -limit), limit)


def _bordered(call: Call, x: View, border: list[int], value: float, name: str) -> View:
    left, right, top, bottom = border
    value = finite(value)
    batch, features, height, width = x.layout.dims
    grown = Layout.of((batch, features, height + top + bottom, width + left + right))
    by_axis = {x.layout.whole(d): grown.whole(d) for d in x.positions if x.layout.dims[d] > 1}
    axes = tuple(by_axis.get(axis, axis) for axis in x.layout.axes)
    return call.emit({"op": "pad", "padding": border, "value": value}, [x], Layout(grown.dims, axes), name=name)
