"""Carried functions that compute: products, reductions, norms, and what is done number by number."""

from __future__ import annotations

from typing import Any

from .carry import Carrying, Number, carries, size_of
from .graph import Json
from .lower_layers import border_of, padded
from .values import Carried, View


@carries("matmul", "bmm", "mm")
def _matmul(c: Carrying) -> Carried:
    other = next(c[name] for name in ("other", "mat2") if name in c.call.args)
    a, b = c.raw("self"), c.raw(other)
    c.own_axis(a, -1)
    return c.result({"name": "matmul"}, [a, b])


@carries("addmm", "baddbmm")
def _addmm(c: Carrying) -> Carried:
    a, b = (c.raw(c[names[0]] if names[0] in c.call.args else c[names[1]]) for names in (("mat1", "batch1"), ("mat2", "batch2")))
    x = _times(c, c.emit({"name": "matmul"}, [a, b], c.lengths, "matmul"), c["alpha"])
    if c["beta"] == 0:
        return x
    return c.result({"name": "combine", "function": "add"}, [_times(c, c.raw("self"), c["beta"]), x])


def _times(c: Carrying, x: Carried, factor: Number, shift: Number = 0) -> Carried:
    if (factor, shift) == (1, 0):
        return x
    call = {"name": "affine", "scale": float(factor), "shift": float(shift)}
    return c.emit(call, [x], [*x.lengths], "affine")


@carries("einsum")
def _einsum(c: Carrying) -> Carried:
    parts = [c.raw(x) for x in c["tensors"]]
    read, _, made = c["equation"].replace(" ", "").partition("->")
    for term, x in zip(read.split(","), parts, strict=True):
        for i, letter in enumerate(term):
            if letter not in made and "." not in term:
                c.own_axis(x, i)
    return c.result({"name": "einsum", "equation": c["equation"].replace(" ", "")}, parts)


@carries("linear")
def _linear(c: Carrying) -> Carried:
    bias = c["bias"] is not None
    parts = [c.raw("input"), c.raw("weight"), *([c.raw("bias")] if bias else [])]
    return c.result({"name": "linear", "bias": bias}, parts)


@carries("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "convolution")
def _convolution(c: Carrying) -> Carried:
    x, weight = c.raw("input"), c.raw("weight")
    n = len(weight.lengths) - 2
    padding, dilation = c["padding"], c.numbers("dilation", n)
    if isinstance(padding, str):
        spans = padded(padding, dilation, weight.lengths[2:])
        padding = [0] * n
        if any(spans):
            lengths = [*x.lengths[:2], *(a + span for a, span in zip(x.lengths[2:], spans, strict=True))]
            call = {"name": "pad", "pad": border_of(spans), "mode": "constant", "value": 0.0}
            x = c.emit(call, [x], lengths, "pad")
    else:
        padding = c.numbers("padding", n)
    bias = c["bias"] is not None
    call = {
        "name": "convolution",
        "stride": c.numbers("stride", n),
        "padding": padding,
        "dilation": dilation,
        "transposed": "transpose" in c.call.site.op or bool(c["transposed"]),
        "output_padding": c.numbers("output_padding", n),
        "groups": c.count("groups"),
        "bias": bias,
    }
    return c.result(call, [x, weight, *([c.raw("bias")] if bias else [])])


@carries("scaled_dot_product_attention")
def _attention(c: Carrying) -> Carried:
    if c["dropout_p"]:
        raise c.call.refuse("drops at random even in evaluation mode")
    mask = c["attn_mask"]
    call = {
        "name": "attention",
        "scale": None if c["scale"] is None else float(c["scale"]),
        "causal": bool(c["is_causal"]),
        "mask": mask is not None,
        "grouped": bool(c["enable_gqa"]),
    }
    parts = [c.raw(c[name]) for name in ("query", "key", "value")]
    return c.result(call, [*parts, *([c.raw(mask)] if mask is not None else [])])


@carries("softmax", "_softmax", "log_softmax", "_log_softmax")
def _softmax(c: Carrying) -> Carried:
    x = c.raw("self")
    return c.result({"name": c.call.site.op.lstrip("_"), "dim": c.own_axis(x, c["dim"])}, [x])


@carries("lstm")
def _lstm(c: Carrying) -> list[Carried]:
    if not c["batch_first"] or c["train"] and c["dropout"]:
        raise c.call.refuse("is only known with batch_first")
    params = c["params"]
    per_layer = (4 if c["has_biases"] else 2) * (2 if c["bidirectional"] else 1)
    if len(params) != c["num_layers"] * per_layer:
        raise c.call.refuse("with projections is not known")
    call = {
        "name": "lstm",
        "layers": c["num_layers"],
        "bias": bool(c["has_biases"]),
        "bidirectional": bool(c["bidirectional"]),
    }
    parts = [c.raw("input"), *(c.raw(p) for p in params)]
    return [c.emit(call, parts, c.lowering.static.lengths(c.call.node, 0)), None, None]

def _reduced(c: Carrying, function: str, dims: Any, keepdim: bool | None) -> Carried:
    x = c.raw("self")
    axes = c.axes(x, dims)
    if any(not isinstance(x.lengths[d], int) for d in axes):
        raise c.call.refuse("mixes images of the batch")
    lengths = [1 if i in axes else n for i, n in enumerate(x.lengths) if keepdim or i not in axes]
    return c.emit({"name": "reduce", "function": function, "dims": axes, "keepdim": bool(keepdim)}, [x], lengths)


@carries("mean", "sum", "amax", "amin", "logsumexp", "prod")
def _reduce(c: Carrying) -> Carried:
    return _reduced(c, c.call.site.op, c["dim"], c["keepdim"])


@carries("max", "min")
def _extreme(c: Carrying) -> Any:
    name = f"a{c.call.site.op}"
    if isinstance(c["other"], (View, Carried)):
        return c.result({"name": "combine", "function": f"{c.call.site.op}imum"}, [c.raw("self"), c.raw("other")])
    if c["dim"] is None:
        raise c.call.refuse("mixes images of the batch")
    return [_reduced(c, name, c["dim"], c["keepdim"]), None]


@carries("var", "std")
def _spread(c: Carrying) -> Carried:
    sample = c["unbiased"] if c["unbiased"] is not None else (1 if c["correction"] is None else c["correction"])
    if sample not in (0, 1):
        raise c.call.refuse(f"a correction of {sample} is not known")
    return _reduced(c, f"sample_{c.call.site.op}" if sample else c.call.site.op, c["dim"], c["keepdim"])


@carries("var_mean", "std_mean")
def _spread_and_mean(c: Carrying) -> list[Carried]:
    sample = c["unbiased"] if c["unbiased"] is not None else (1 if c["correction"] is None else c["correction"])
    kind = c.call.site.op.partition("_")[0]
    spread = _reduced(c, f"sample_{kind}" if sample else kind, c["dim"], c["keepdim"])
    return [spread, _reduced(c, "mean", c["dim"], c["keepdim"])]


@carries("linalg_vector_norm", "norm")
def _norm(c: Carrying) -> Carried:
    order = c["ord"] if "ord" in c.call.args else c["p"]
    functions = {None: "norm", 2: "norm", 1: "norm1"}
    if order not in functions:
        raise c.call.refuse(f"a norm of order {order} is not known")
    return _reduced(c, functions[order], c["dim"], c["keepdim"])


@carries("cumsum")
def _cumsum(c: Carrying) -> Carried:
    x = c.raw("self")
    return c.result({"name": "cumsum", "dim": c.own_axis(x, c["dim"])}, [x])

MAPS = ("exp", "expm1", "log", "log1p", "sqrt", "rsqrt", "reciprocal", "sin", "cos", "erf", "sign", "floor", "ceil", "round")
ACTIVATIONS = (
    *("relu6", "silu", "sigmoid", "hardsigmoid", "hardswish", "tanh", "mish", "selu", "log_sigmoid", "abs"),
    *("tanhshrink",),
)


@carries(*MAPS, "logical_not", "bitwise_not")
def _map(c: Carrying) -> Carried:
    function = {"bitwise_not": "logical_not"}.get(c.call.site.op, c.call.site.op)
    return c.result({"name": "map", "function": function}, [c.raw("self")])


@carries("relu")
def _relu(c: Carrying) -> Carried:
    return c.result({"name": "relu"}, [c.raw("self")])


def _activated(c: Carrying, function: str | Json) -> Carried:
    return c.result({"name": "activate", "function": function}, [c.raw(next(iter(c.call.args.values())))])


@carries(*ACTIVATIONS)
def _activation(c: Carrying) -> Carried:
    return _activated(c, c.call.site.op)


@carries("gelu")
def _gelu(c: Carrying) -> Carried:
    return _activated(c, "gelu_tanh" if c["approximate"] == "tanh" else "gelu")


@carries("leaky_relu")
def _leaky_relu(c: Carrying) -> Carried:
    return _activated(c, {"leaky_relu": float(c["negative_slope"])})


@carries("elu")
def _elu(c: Carrying) -> Carried:
    if (c["scale"], c["input_scale"]) != (1, 1):
        raise c.call.refuse("a scaled ELU is only known as SELU or CELU")
    return _activated(c, {"elu": float(c["alpha"])})


@carries("softplus")
def _softplus(c: Carrying) -> Carried:
    if c["beta"] != 1 or c["threshold"] != 20:
        raise c.call.refuse("only a threshold of 20 and a beta of 1 are known")
    return _activated(c, "softplus")


@carries("hardtanh", "clamp", "clamp_min", "clamp_max", "clip")
def _clamp(c: Carrying) -> Carried:
    low = c.call.args.get("min_val", c.call.args.get("min"))
    high = c.call.args.get("max_val", c.call.args.get("max"))
    x = c.raw("self")
    for bound, function in ((low, "maximum"), (high, "minimum")):
        if isinstance(bound, (View, Carried)):
            x = c.emit({"name": "combine", "function": function}, [x, c.raw(bound)], c.lengths, function)
    numbers = [None if isinstance(bound, (View, Carried)) or bound is None else float(bound) for bound in (low, high)]
    if numbers == [None, None]:
        return x
    return c.result({"name": "clamp", "min": numbers[0], "max": numbers[1]}, [x])


@carries("pow", "square", "float_power")
def _power(c: Carrying) -> Carried:
    exponent = 2 if c.call.site.op == "square" else c["exponent"]
    if isinstance(c["self"], Number) or not isinstance(exponent, Number):
        return c.result({"name": "combine", "function": "pow"}, [c.raw("self"), c.raw(exponent)])
    return c.result({"name": "power", "exponent": float(exponent)}, [c.raw("self")])


@carries("neg")
def _neg(c: Carrying) -> Carried:
    return _times(c, c.raw("self"), -1)


def _combine(c: Carrying, function: str, a: Any, b: Any) -> Carried:
    return c.result({"name": "combine", "function": function}, [c.raw(a), c.raw(b)])


@carries("add", "sub", "rsub", "subtract")
def _add(c: Carrying) -> Carried:
    a, b, factor = c["self"], c["other"], c["alpha"] if c["alpha"] is not None else 1
    sign = -1 if c.call.site.op in ("sub", "subtract", "rsub") else 1
    if c.call.site.op == "rsub":
        a, b = b, a
        if factor != 1:
            raise c.call.refuse("with a factor is not known")
    if isinstance(b, Number):
        return _times(c, c.raw(a), 1, sign * factor * b)
    if isinstance(a, Number):
        return _times(c, c.raw(b), sign * factor, a)
    second = c.raw(b) if factor == 1 else _times(c, c.raw(b), factor)
    return c.result({"name": "combine", "function": "sub" if sign < 0 else "add"}, [c.raw(a), second])


@carries("mul", "multiply")
def _mul(c: Carrying) -> Carried:
    a, b = c["self"], c["other"]
    if isinstance(a, Number):
        a, b = b, a
    return _times(c, c.raw(a), b) if isinstance(b, Number) else _combine(c, "mul", a, b)


@carries("div", "divide", "true_divide")
def _div(c: Carrying) -> Carried:
    if c["rounding_mode"]:
        raise c.call.refuse("rounds the quotient")
    a, b = c["self"], c["other"]
    return _times(c, c.raw(a), 1 / b) if isinstance(b, Number) else _combine(c, "div", a, b)


@carries("maximum", "minimum", "eq", "ne", "lt", "le", "gt", "ge")
def _compare(c: Carrying) -> Carried:
    return _combine(c, c.call.site.op, c["self"], c["other"])


@carries("addcmul", "addcdiv")
def _addcmul(c: Carrying) -> Carried:
    function = "mul" if c.call.site.op == "addcmul" else "div"
    product = {"name": "combine", "function": function}
    x = c.emit(product, [c.raw("tensor1"), c.raw("tensor2")], c.lengths, function)
    return c.result({"name": "combine", "function": "add"}, [c.raw("self"), _times(c, x, c["value"])])


@carries("lerp")
def _lerp(c: Carrying) -> Carried:
    a, b = c.raw("self"), c.raw("end")
    way = c.emit({"name": "combine", "function": "sub"}, [b, a], c.lengths, "sub")
    part = c.emit({"name": "combine", "function": "mul"}, [way, c.raw("weight")], c.lengths, "mul")
    return c.result({"name": "combine", "function": "add"}, [a, part])


@carries("where", "masked_fill")
def _where(c: Carrying) -> Carried:
    if c.call.site.op == "masked_fill":
        return c.result({"name": "where"}, [c.raw("mask"), c.raw("value"), c.raw("self")])
    return c.result({"name": "where"}, [c.raw("condition"), c.raw("self"), c.raw("other")])


@carries("prelu")
def _prelu(c: Carrying) -> Carried:
    x, slope = c.raw("self"), c.raw("weight")
    if slope.lengths not in ((), (1,)):
        slope = c.reshaped(slope, [slope.lengths[0], *[1] * (len(x.lengths) - 2)])
    low = c.emit({"name": "clamp", "min": None, "max": 0.0}, [x], c.lengths, "below")
    scaled = c.emit({"name": "combine", "function": "mul"}, [low, slope], c.lengths, "slope")
    high = c.emit({"name": "relu"}, [x], c.lengths, "above")
    return c.result({"name": "combine", "function": "add"}, [high, scaled])


@carries("glu")
def _glu(c: Carrying) -> Carried:
    x = c.raw("self")
    dim = c.axis(x, c["dim"])
    half = size_of(x.lengths[dim]) // 2
    first, gate = (c.sliced(x, dim, start, start + half) for start in (0, half))
    gate = c.emit({"name": "activate", "function": "sigmoid"}, [gate], c.lengths, "sigmoid")
    return c.result({"name": "combine", "function": "mul"}, [first, gate])

def _affine(c: Carrying) -> tuple[dict[str, bool], list[Carried]]:
    given = {name: c[name] is not None for name in ("weight", "bias")}
    return given, [c.raw(name) for name, there in given.items() if there]


@carries("layer_norm", "native_layer_norm")
def _layer_norm(c: Carrying) -> Any:
    given, params = _affine(c)
    x = c.raw("input")
    call = {"name": "layer_norm", "shape": list(c["normalized_shape"]), "eps": c["eps"], **given}
    made = c.emit(call, [x, *params], [*x.lengths])
    return [made, None, None] if c.call.site.op == "native_layer_norm" else made


@carries("rms_norm")
def _rms_norm(c: Carrying) -> Carried:
    given, params = _affine(c)
    call = {"name": "rms_norm", "shape": list(c["normalized_shape"]), "eps": c["eps"], "weight": given["weight"]}
    return c.result(call, [c.raw("input"), *params])


@carries("group_norm")
def _group_norm(c: Carrying) -> Carried:
    given, params = _affine(c)
    call = {"name": "group_norm", "groups": c["num_groups"], "eps": c["eps"], **given}
    return c.result(call, [c.raw("input"), *params])


@carries("instance_norm")
def _instance_norm(c: Carrying) -> Carried:
    if not c["use_input_stats"]:
        return _batch_norm(c)
    given, params = _affine(c)
    x = c.raw("input")
    call = {"name": "group_norm", "groups": size_of(x.lengths[1]), "eps": c["eps"], **given}
    return c.result(call, [x, *params])


@carries("batch_norm", "_native_batch_norm_legit_no_training", "cudnn_batch_norm")
def _batch_norm(c: Carrying) -> Any:
    if c["training"]:
        raise c.call.refuse("takes the batch's statistics even in evaluation mode (track_running_stats=False)")
    given, params = _affine(c)
    x = c.raw("input")
    call = {"name": "batch_norm", "eps": c["eps"], **given}
    made = c.emit(call, [x, c.raw("running_mean"), c.raw("running_var"), *params], [*x.lengths])
    return made if c.call.site.op in ("batch_norm", "instance_norm") else [made, None, None]
