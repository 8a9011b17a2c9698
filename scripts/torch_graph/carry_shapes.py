"""Carried functions that move numbers, and those of neighbouring positions."""

from __future__ import annotations

from typing import Any

import torch

from .carry import Carrying, carries, size_of
from .lower_layers import finite
from .trace import BATCH_SIZE
from .values import Carried, Length


@carries(
    *("view", "reshape", "_unsafe_view", "flatten", "unflatten", "view_as", "reshape_as"),
    *("unsqueeze", "squeeze"),
)
def _reshape(c: Carrying) -> Carried:
    return c.reshaped(c.raw("self"), c.lengths, c.call.site.op)


@carries("expand", "expand_as", "broadcast_to")
def _expand(c: Carrying) -> Carried:
    x = c.raw("self")
    x = c.reshaped(x, [1] * (len(c.lengths) - len(x.lengths)) + [*x.lengths])
    return c.emit({"name": "expand", "shape": c.lengths}, [x], c.lengths, memory=x.memory)


@carries("repeat", "tile")
def _repeat(c: Carrying) -> Carried:
    x = c.raw("self")
    x = c.reshaped(x, [1] * (len(c.lengths) - len(x.lengths)) + [*x.lengths])
    apart: list[Length] = []
    whole: list[Length] = []
    for own, wanted in zip(x.lengths, c.lengths, strict=True):
        n = size_of(wanted) // size_of(own)
        apart += [1, own]
        whole += [n if isinstance(own, dict) or isinstance(wanted, int) else {"per_image": n // BATCH_SIZE}, own]
    x = c.reshaped(x, apart)
    return c.reshaped(c.emit({"name": "expand", "shape": whole}, [x], whole, "expand"), c.lengths)


@carries("repeat_interleave")
def _repeat_interleave(c: Carrying) -> Carried:
    x, n = c.raw("self"), c["repeats"]
    if not isinstance(n, int) or c["dim"] is None:
        raise c.call.refuse("repeats unequally")
    dim = c.axis(x, c["dim"])
    apart = [*x.lengths[: dim + 1], 1, *x.lengths[dim + 1 :]]
    whole = [*apart]
    whole[dim + 1] = n
    return c.reshaped(c.emit({"name": "expand", "shape": whole}, [c.reshaped(x, apart)], whole, "expand"), c.lengths)


@carries("permute")
def _permute(c: Carrying) -> Carried:
    x = c.raw("self")
    return c.permuted(x, [c.axis(x, d) for d in c["dims"]])


@carries("transpose", "swapaxes", "swapdims")
def _transpose(c: Carrying) -> Carried:
    x = c.raw("self")
    a, b = (c.axis(x, d) for d in list(c.call.args.values())[1:])
    dims = list(range(len(x.lengths)))
    dims[a], dims[b] = b, a
    return c.permuted(x, dims)


@carries("t", "numpy_T", "mT")
def _turn(c: Carrying) -> Carried:
    x = c.raw("self")
    n = len(x.lengths)
    return c.permuted(x, [*range(n - 2), n - 1, n - 2] if n > 1 else [0])


@carries("movedim", "moveaxis")
def _movedim(c: Carrying) -> Carried:
    x = c.raw("self")
    pairs = [v if isinstance(v, (list, tuple)) else [v] for v in (c["source"], c["destination"])]
    source, destination = ([c.axis(x, d) for d in dims] for dims in pairs)
    placed = dict(zip(destination, source, strict=True))
    rest = iter(d for d in range(len(x.lengths)) if d not in source)
    return c.permuted(x, [placed[i] if i in placed else next(rest) for i in range(len(x.lengths))])


@carries(
    *("contiguous", "clone", "detach", "alias", "lift_fresh_copy", "to", "_to_copy", "type_as", "float"),
    *("dropout", "feature_dropout", "alpha_dropout", "native_dropout"),
)
def _same(c: Carrying) -> Carried:
    value = c.call.node.meta["val"]
    value = value[0] if isinstance(value, (list, tuple)) else value
    if not value.dtype.is_floating_point:
        raise c.call.refuse("turns numbers into integers or truths")
    if c["train"]:
        raise c.call.refuse("drops at random even in evaluation mode; give it `training=self.training`")
    return c.raw(next(iter(c.call.args.values())))


@carries("select")
def _select(c: Carrying) -> Carried:
    x = c.raw("self")
    dim = c.axis(x, c["dim"])
    index = c["index"] % size_of(x.lengths[dim])
    return c.reshaped(c.sliced(x, dim, index, index + 1), c.lengths)


@carries("slice", "narrow")
def _slice(c: Carrying) -> Carried:
    x = c.raw("self")
    dim = c.axis(x, c["dim"])
    if c.call.site.op == "narrow":
        start = c["start"] % size_of(x.lengths[dim])
        return c.sliced(x, dim, start, start + c["length"])
    start, stop, step = slice(c["start"], c["end"], c["step"]).indices(size_of(x.lengths[dim]))
    if not isinstance(x.lengths[dim], int):
        if (start, stop, step) != (0, size_of(x.lengths[dim]), 1):
            raise c.call.refuse("takes some images of the batch")
        return x
    return c.sliced(x, dim, start, stop, step)


@carries("unbind", "split", "chunk", "split_with_sizes", "tensor_split", "unsafe_chunk", "unsafe_split")
def _split(c: Carrying) -> list[Carried]:
    x = c.raw("self")
    dim = c.axis(x, c["dim"])
    parts, start = [], 0
    for i, part in enumerate(c.call.node.meta["val"]):
        size = 1 if c.call.site.op == "unbind" else part.shape[dim]
        taken = c.sliced(x, dim, start, start + size)
        parts.append(c.reshaped(taken, c.lowering.static.lengths(c.call.node, i)))
        start += size
    return parts


@carries("cat", "concat", "concatenate")
def _cat(c: Carrying) -> Carried:
    parts = [c.raw(x) for x in c["tensors"]]
    return c.result({"name": "cat", "dim": c.own_axis(parts[0], c["dim"])}, [x for x in parts if 0 not in x.lengths])


@carries("stack")
def _stack(c: Carrying) -> Carried:
    parts = [c.raw(x) for x in c["tensors"]]
    dim = c["dim"] % len(c.lengths)
    apart = [c.reshaped(x, [*x.lengths[:dim], 1, *x.lengths[dim:]]) for x in parts]
    return c.result({"name": "cat", "dim": dim}, apart)


@carries("roll")
def _roll(c: Carrying) -> Carried:
    x = c.raw("self")
    return c.result({"name": "roll", "shifts": list(c["shifts"]), "dims": [c.own_axis(x, d) for d in c["dims"]]}, [x])


@carries("flip")
def _flip(c: Carrying) -> Carried:
    x = c.raw("self")
    return c.result({"name": "flip", "dims": [c.own_axis(x, d) for d in c["dims"]]}, [x])


@carries("index", "index_select")
def _index(c: Carrying) -> Carried:
    x = c.raw("self")
    given = c["indices"]
    if given is None:
        given = [None] * c.axis(x, c["dim"]) + [c["index"]]
    of = [index is not None for index in given]
    for dim, there in enumerate(of):
        if there:
            c.own_axis(x, dim)
    return c.result({"name": "index", "of": of}, [x, *(c.raw(index) for index in given if index is not None)])


@carries("gather")
def _gather(c: Carrying) -> Carried:
    x = c.raw("self")
    return c.result({"name": "gather", "dim": c.own_axis(x, c["dim"])}, [x, c.raw("index")])


@carries("unfold")
def _windows(c: Carrying) -> Carried:
    """Overlapping pieces of an axis, which become the last one."""
    x = c.raw("self")
    dim = c.own_axis(x, c["dimension"])
    n = c.lengths[dim]
    starts = torch.arange(n) * c["step"]
    places = (starts[:, None] + torch.arange(c["size"])).float()
    lengths = [*x.lengths[:dim], n, c["size"], *x.lengths[dim + 1 :]]
    found = c.emit({"name": "index", "of": [False] * dim + [True]}, [x, c.stored(places, "places")], lengths, "index")
    rest = [i for i in range(len(lengths)) if i != dim + 1]
    return c.permuted(found, [*rest, dim + 1])


@carries("slice_scatter", "select_scatter")
def _scattered(c: Carrying) -> Carried:
    x, new = c.raw("self"), c.raw("src")
    dim = c.own_axis(x, c["dim"])
    n = size_of(x.lengths[dim])
    if c.call.site.op == "select_scatter":
        start = c["index"] % n
        stop, step = start + 1, 1
        new = c.reshaped(new, [*new.lengths[:dim], 1, *new.lengths[dim:]])
    else:
        start, stop, step = slice(c["start"], c["end"], c["step"]).indices(n)
    if step != 1:
        raise c.call.refuse("writes every second index or fewer")
    if (start, stop) == (0, n):
        return new
    around = [c.sliced(x, dim, a, b) for a, b in ((0, start), (stop, n)) if b > a]
    parts = [*around[: start > 0], new, *around[start > 0 :]]
    return c.result({"name": "cat", "dim": dim}, parts)


@carries("copy")
def _copy(c: Carrying) -> Carried:
    x = c.raw("src")
    x = c.reshaped(x, [1] * (len(c.lengths) - len(x.lengths)) + [*x.lengths])
    if list(x.lengths) == c.lengths:
        return x
    return c.emit({"name": "expand", "shape": c.lengths}, [x], c.lengths)


@carries("pad", "constant_pad_nd", "reflection_pad1d", "reflection_pad2d", "replication_pad2d")
def _pad(c: Carrying) -> Carried:
    op = c.call.site.op
    mode = {"reflection": "reflect", "replication": "replicate"}.get(op.partition("_")[0], c["mode"] or "constant")
    pads = c["pad"] if c["pad"] is not None else c["padding"]
    call = {"name": "pad", "pad": list(pads), "mode": mode, "value": finite(float(c["value"] or 0.0))}
    return c.result(call, [c.raw("self")])

MODES = {
    "upsample_nearest1d": "nearest",
    "upsample_nearest2d": "nearest",
    "_upsample_nearest_exact1d": "nearest_exact",
    "_upsample_nearest_exact2d": "nearest_exact",
    "upsample_linear1d": "linear",
    "upsample_bilinear2d": "bilinear",
    "upsample_bicubic2d": "bicubic",
}


@carries(*MODES)
def _interpolate(c: Carrying) -> Carried:
    x = c.raw(next(iter(c.call.args.values())))
    scales = c["scale_factors"]
    if scales is None and c["scales_h"] is not None:
        scales = [c["scales_h"], c["scales_w"]]
    call = {
        "name": "interpolate",
        "mode": MODES[c.call.site.op],
        "size": [size_of(n) for n in c.lengths[2:]],
        "align_corners": bool(c["align_corners"]),
        "scales": [float(s) for s in scales] if scales else None,
    }
    return c.result(call, [x])


@carries("pixel_shuffle", "pixel_unshuffle")
def _pixel_shuffle(c: Carrying) -> Carried:
    factor = c["upscale_factor"] if "upscale_factor" in c.call.args else c["downscale_factor"]
    return c.result({"name": c.call.site.op, "factor": factor}, [c.raw("self")])


@carries("im2col", "col2im")
def _patches(c: Carrying) -> Carried:
    names = {"kernel": "kernel_size", "dilation": "dilation", "padding": "padding", "stride": "stride"}
    window = {key: c.numbers(name, 2) for key, name in names.items()}
    if c.call.site.op == "im2col":
        return c.result({"name": "unfold", **window}, [c.raw("self")])
    return c.result({"name": "fold", "size": c.numbers("output_size", 2), **window}, [c.raw("self")])


@carries("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_max_pool1d", "adaptive_max_pool2d")
def _adaptive_pool(c: Carrying) -> Any:
    kind, n = c.call.site.op.split("_")[1], int(c.call.site.op[-2])
    lengths = c.lengths if kind == "avg" else c.lowering.static.lengths(c.call.node, 0)
    call = {"name": f"adaptive_{kind}_pool", "size": [size_of(m) for m in lengths[-n:]]}
    made = c.emit(call, [c.raw("self")], lengths)
    return made if kind == "avg" else [made, None]


@carries("avg_pool1d", "avg_pool2d", "max_pool1d", "max_pool2d", "max_pool2d_with_indices")
def _pool(c: Carrying) -> Any:
    kind, n = c.call.site.op.split("_")[0], int(c.call.site.op.split("pool")[1][0])
    if c["divisor_override"] is not None:
        raise c.call.refuse("divisor_override is not known")

    kernel = c.numbers("kernel_size", n)
    stride = c.numbers("stride", n) if c["stride"] else kernel
    window = {"kernel": kernel, "stride": stride, "padding": c.numbers("padding", n), "ceil_mode": bool(c["ceil_mode"])}
    if kind == "avg":
        window |= {"count_include_pad": bool(c["count_include_pad"])}
    else:
        window |= {"dilation": c.numbers("dilation", n)}
    tupled = c.call.site.op.endswith("with_indices")
    lengths = c.lowering.static.lengths(c.call.node, 0) if tupled else c.lengths
    made = c.emit({"name": f"{kind}_pool", **window}, [c.raw("self")], lengths)
    return [made, None] if tupled else made
