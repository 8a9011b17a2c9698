"""What our ops cannot say is carried: run as PyTorch's own functions of tensors, each model's for itself (docs/ops.md).

A carried tensor has PyTorch's shape and is not followed. A layer with a weight matrix follows features again (`follow`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import fx

from .axes import BATCH, FEATURES, REPEATED, Atom, Layout
from .graph import Json
from .lower import CARRIER, Call, Lowering
from .lower_layers import finite
from .trace import BATCH_SIZE
from .values import Carried, Length, Piece, Scores, Stored, Value, View

Number = int | float
Carrier = Callable[["Carrying"], Any]
CARRIERS: dict[str, Carrier] = {}


def carries(*functions: str) -> Callable[[Carrier], Carrier]:
    """Marks how these ATen functions are carried."""

    def register(carrier: Carrier) -> Carrier:
        CARRIERS.update(dict.fromkeys(functions, carrier))
        return carrier

    return register


def size_of(length: Length) -> int:
    """In the trace."""
    return length if isinstance(length, int) else length["per_image"] * BATCH_SIZE


def _per_image(length: Length) -> int:
    return length if isinstance(length, int) else length["per_image"]


@dataclass
class Carrying:
    """One call of an ATen function that is carried."""

    call: Call

    @property
    def lowering(self) -> Lowering:
        """The graph as it grows."""
        return self.call.lowering

    def __getitem__(self, name: str) -> Any:
        return self.call.args.get(name)

    @property
    def lengths(self) -> list[Length]:
        """Of the result."""
        return self.lowering.static.lengths(self.call.node)

    def raw(self, value: Any) -> Carried:
        """A tensor as PyTorch has it."""
        if isinstance(value, str):
            value = self.call.args[value]
        if isinstance(value, Carried):
            return value
        if isinstance(value, Number) and not isinstance(value, bool):
            return self.stored(torch.tensor(float(value)), "number")
        if isinstance(value, Scores):
            return self._scores(value)
        if isinstance(value, View) and value.is_stored:
            return self._parameter(value)
        if isinstance(value, View):
            return self._viewed(value)
        raise self.call.refuse("reads something that is not a tensor")

    def emit(
        self, call: Json, inputs: list[Carried], lengths: list[Length], part: str | None = None, memory: object = None
    ) -> Carried:
        """Adds a call."""
        if any(0 in x.lengths for x in inputs):
            raise self.call.refuse("computes something from an empty tensor")
        op = {"op": "call", "call": call, "shape": [_per_image(n) for n in lengths]}
        site = self.call.site
        name = self.lowering.builder.emit(site.part(part or site.op), op, [x.name for x in inputs])
        return Carried(name, tuple(lengths), memory if memory is not None else object())

    def result(self, call: Json, inputs: list[Carried]) -> Carried:
        """Adds the call that gives the result."""
        return self.emit(call, inputs, self.lengths)

    def reshaped(self, x: Carried, lengths: list[Length], part: str = "reshape") -> Carried:
        """The same numbers in another shape."""
        if list(x.lengths) == list(lengths):
            return x
        return self.emit({"name": "reshape", "shape": lengths}, [x], lengths, part, x.memory)

    def permuted(self, x: Carried, dims: list[int]) -> Carried:
        """Its axes in another order."""
        if dims == list(range(len(dims))):
            return x
        return self.emit({"name": "permute", "dims": dims}, [x], [x.lengths[d] for d in dims], "permute", x.memory)

    def sliced(self, x: Carried, dim: int, start: int, end: int, step: int = 1) -> Carried:
        """Some indices of an axis."""
        length = x.lengths[dim]
        if not isinstance(length, int):
            raise self.call.refuse("takes some images of the batch")
        if (start, end, step) == (0, length, 1):
            return x
        lengths = [*x.lengths]
        lengths[dim] = len(range(start, end, step))
        if not lengths[dim]:
            return Carried("", tuple(lengths))
        call = {"name": "slice", "dim": dim, "start": start, "end": end, "step": step}
        return self.emit(call, [x], lengths, "slice", x.memory)

    def stored(self, tensor: torch.Tensor, leaf: str, name: str | None = None) -> Carried:
        """A tensor that does not depend on the images."""
        builder = self.lowering.builder
        if known := self.lowering.stored_nodes.get(name):
            return known
        if name is None or builder.owner(name):
            # What a layer has as its own is merged with it; here it stays as it is.
            key, name = name, self.lowering.fold(tensor, name or self.call.site.part(leaf), self.call.node)
            made = self.stored(tensor, leaf, name)
            if key:
                self.lowering.stored_nodes[key] = made
            return made
        op = {"op": "stored", "shape": list(tensor.shape)}
        made = builder.emit(name, op, [], {"weight": name})
        self.lowering.stored_nodes[name] = Carried(made, tuple(tensor.shape))
        return self.lowering.stored_nodes[name]

    def _parameter(self, view: View) -> Carried:
        node = view.node
        if not view.base.folded and view.layout.is_identity:
            tensor = self.lowering.numbers_of(view.base.name)
            if tensor.is_floating_point() and tensor.isfinite().all():
                return self.stored(tensor, "", view.base.name)
        if node is not None and (tensor := self.lowering.static.tensor(node)) is not None:
            return self.folded(tensor, node)
        if node is not None and (once := self.lowering.static.once(node)) is not None:
            tensor, n = once
            x = self.folded(tensor, node)
            one = self.reshaped(x, [1, *x.lengths])
            many = self.emit(
                {"name": "expand", "shape": [{"per_image": 1}, *x.lengths]}, [one], [{"per_image": 1}, *x.lengths]
            )
            return self.reshaped(many, [{"per_image": n}, *x.lengths[1:]])
        raise self.call.refuse(f"uses `{view.base.name}` otherwise for another number of images")

    def folded(self, tensor: torch.Tensor, node: fx.Node) -> Carried:
        """The result of a call, computed now."""
        known = self.lowering.folded_nodes.get(node)
        if known is None:
            site = self.lowering.trace.site(node)
            name = self.lowering.fold(tensor, site.part(site.op), node)
            known = self.lowering.folded_nodes[node] = self.stored(tensor, "", name)
        return known

    def _scores(self, scores: Scores) -> Carried:
        queries, keys = self.raw(scores.queries), self.raw(scores.keys)
        n = len(keys.lengths)
        turned = self.permuted(keys, [*range(n - 2), n - 1, n - 2])
        lengths = [*queries.lengths[:-1], turned.lengths[-1]]
        x = self.emit({"name": "matmul"}, [queries, turned], lengths, "matmul")
        if scores.scale != 1:
            x = self.emit({"name": "affine", "scale": float(scores.scale), "shift": 0.0}, [x], lengths, "scaled")
        def seen(x: Carried, node: fx.Node | None) -> Carried:
            return self.reshaped(x, lengths if node is None else self.lowering.static.lengths(node))

        for bias, _, node in scores.biases:
            x = seen(x, node)
            x = self.emit({"name": "combine", "function": "add"}, [x, self.raw(bias)], [*x.lengths], "bias")
        x = seen(x, scores.seen and scores.seen[1])
        if scores.normalised:
            x = self.emit({"name": "softmax", "dim": len(x.lengths) - 1}, [x], [*x.lengths], "softmax")
        return x

    def _viewed(self, view: View) -> Carried:
        """A value of ours, [B, C, positions…], through its layout."""
        layout = view.layout
        x = Carried(view.base.name, tuple(_length(BATCH if d == BATCH else 1, n) for d, n in enumerate(layout.dims)))
        if layout.is_identity:
            return x
        by_dim = [
            sorted((a for axis in layout.axes for a in axis if a.dim == d), key=lambda a: -a.stride)
            for d in range(len(layout.dims))
        ]
        pieces = [atom for atoms in by_dim for atom in atoms]
        x = self.reshaped(x, [_length(a.dim, a.size) for a in pieces])
        own = [atom for axis in layout.axes for atom in axis if atom.dim != REPEATED]
        x = self.permuted(x, [pieces.index(atom) for atom in own])
        if REPEATED in layout.used():
            every = [atom for axis in layout.axes for atom in axis]
            x = self.reshaped(x, [1 if a.dim == REPEATED else _length(a.dim, a.size) for a in every])
            lengths = [_length(a.dim, a.size) for a in every]
            x = self.emit({"name": "expand", "shape": lengths}, [x], lengths, "expand")
        return self.reshaped(x, [_axis_length(axis) for axis in layout.axes])

    def own_axis(self, x: Carried, dim: int) -> int:
        """An axis along which no two images meet."""
        dim = self.axis(x, dim)
        if x.lengths and not isinstance(x.lengths[dim], int):
            raise self.call.refuse("mixes images of the batch")
        return dim

    def axis(self, x: Carried, dim: int) -> int:
        """A possibly negative axis number, as a number from 0."""
        return dim % max(1, len(x.lengths))

    def axes(self, x: Carried, dims: Any) -> list[int]:
        """Some or, where none are given, all."""
        if dims is None or dims == []:
            return list(range(len(x.lengths)))
        return sorted(d % len(x.lengths) for d in (dims if isinstance(dims, (list, tuple)) else [dims]))


def _length(dim: int, size: int) -> Length:
    return {"per_image": size // BATCH_SIZE} if dim == BATCH else size


def _axis_length(axis: tuple[Atom, ...]) -> Length:
    size = prod(atom.size for atom in axis)
    return {"per_image": size // BATCH_SIZE} if any(atom.dim == BATCH for atom in axis) else size


def carry(call: Call) -> Any:
    """The call as it stands, of tensors as PyTorch has them."""
    carrier = CARRIERS.get(call.site.op)
    if carrier is None:
        raise call.refuse("no op of a model file does this")
    try:
        return carrier(Carrying(call))
    except ValueError as error:
        raise call.refuse(str(error)) from error


def follow(call: Call, x: Carried, axis: int) -> View:
    """A carried tensor as a value [C, positions…] of new features: those along `axis`."""
    axis %= len(x.lengths)
    batch = [i for i, n in enumerate(x.lengths) if not isinstance(n, int)]
    if batch != [0] or axis == 0:
        raise call.refuse(f"a batch that is not the first axis of {[size_of(n) for n in x.lengths]} cannot be followed")
    n = x.lengths[0]["per_image"]
    shape = [*([n] if n > 1 else []), *x.lengths[1:]]
    at = axis - 1 + (n > 1)
    key = (x.name, at)
    if key not in call.lowering.followed:
        op = {"op": "follow", "shape": shape, "axis": at}
        call.lowering.followed[key] = call.lowering.builder.emit(call.site.part("follow"), op, [x.name])
    features = shape[at]
    dims = (BATCH_SIZE, features, *shape[:at], *shape[at + 1 :])
    order = [0, *range(2, at + 2), 1, *range(at + 2, len(dims))]
    layout = Layout.of(dims).permute(order).reshape([size_of(n) for n in x.lengths])
    return View(Value(call.lowering.followed[key]), layout)


def take(call: Call, piece: Any) -> Carried:
    """One of several results."""
    if isinstance(piece, (Carried, View)):
        return piece
    if not isinstance(piece, Piece) or piece.view.is_stored:
        raise call.refuse("takes a result that is not known")
    c = Carrying(call)
    return c.reshaped(c.sliced(c.raw(piece.view), piece.axis, piece.start, piece.stop), c.lengths)


def feature_axis(view: View) -> int | None:
    """Which axis of a tensor its features are, if one is."""
    layout = view.layout
    found = [i for i, axis in enumerate(layout.axes) if axis and axis == layout.whole(FEATURES)]
    return found[0] if len(found) == 1 else None


CARRIER.carry, CARRIER.take, CARRIER.follow, CARRIER.feature_axis = carry, take, follow, feature_axis


# ---- shapes ---------------------------------------------------------------------------------------------------------


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
    [c.own_axis(x, dim) for dim, there in enumerate(of) if there]
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


# ---- products -------------------------------------------------------------------------------------------------------


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
        gone = [i for i, letter in enumerate(term) if letter not in made]
        if "." not in term:
            [c.own_axis(x, i) for i in gone]
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
    many = lambda v: [int(i) for i in (v if isinstance(v, (list, tuple)) else [v])] * (1 if isinstance(v, (list, tuple)) and len(v) == n else n)  # noqa: E731
    padding, dilation = c["padding"], many(c["dilation"])
    if isinstance(padding, str):
        spans = [d * (k - 1) if padding == "same" else 0 for d, k in zip(dilation, weight.lengths[2:], strict=True)]
        border = [m for span in reversed(spans) for m in (span // 2, span - span // 2)]
        if any(spans):
            lengths = [*x.lengths[:2], *(a + span for a, span in zip(x.lengths[2:], spans, strict=True))]
            x = c.emit({"name": "pad", "pad": border, "mode": "constant", "value": 0.0}, [x], lengths, "pad")
        padding = [0] * n
    bias = c["bias"] is not None
    call = {
        "name": "convolution",
        "stride": many(c["stride"]),
        "padding": many(padding),
        "dilation": dilation,
        "transposed": "transpose" in c.call.site.op or bool(c["transposed"]),
        "output_padding": many(c["output_padding"] if c["output_padding"] is not None else 0),
        "groups": int(c["groups"]),
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


# ---- many numbers become one ----------------------------------------------------------------------------------------


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


# ---- number by number -----------------------------------------------------------------------------------------------

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


# ---- norms ----------------------------------------------------------------------------------------------------------


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


# ---- positions ------------------------------------------------------------------------------------------------------

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
    pair = lambda v: [int(i) for i in v] if isinstance(v, (list, tuple)) else [v, v]  # noqa: E731
    window = {key: pair(c[name]) for key, name in (("kernel", "kernel_size"), ("dilation", "dilation"), ("padding", "padding"), ("stride", "stride"))}
    if c.call.site.op == "im2col":
        return c.result({"name": "unfold", **window}, [c.raw("self")])
    return c.result({"name": "fold", "size": pair(c["output_size"]), **window}, [c.raw("self")])


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

    def many(value: Any) -> list[int]:
        values = list(value) if isinstance(value, (list, tuple)) else [value]
        return [int(v) for v in (values * n if len(values) == 1 else values)]

    kernel = many(c["kernel_size"])
    window = {"kernel": kernel, "stride": many(c["stride"]) if c["stride"] else kernel, "padding": many(c["padding"])}
    window |= {"ceil_mode": bool(c["ceil_mode"])}
    if kind == "avg":
        window |= {"count_include_pad": bool(c["count_include_pad"])}
    else:
        window |= {"dilation": many(c["dilation"])}
    tupled = c.call.site.op.endswith("with_indices")
    lengths = c.lowering.static.lengths(c.call.node, 0) if tupled else c.lengths
    made = c.emit({"name": f"{kind}_pool", **window}, [c.raw("self")], lengths)
    return [made, None] if tupled else made
