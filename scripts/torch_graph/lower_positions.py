"""Functions along positions: what moves, cuts, pools or fills up every feature alike leaves the features what they are."""

from __future__ import annotations

from typing import Any

from .axes import FEATURES, Layout
from .carry import CARRIERS, Carrying, size_of
from .carry_shapes import MODES
from .graph import Json
from .lower import POSITIONS, Call
from .lower_layers import finite
from .trace import BATCH_SIZE
from .values import Carried, Length, Piece, Value, View


def along(*functions: str) -> Any:
    """Marks how these ATen functions work along positions."""

    def register(handler: Any) -> Any:
        POSITIONS.update(dict.fromkeys(functions, handler))
        return handler

    return register


def emit(call: Call, view: View, function: Json, dims: tuple[int, ...], part: str | None = None) -> Value:
    """Adds a function of the positions of a view's value; `dims` are those of what it makes."""
    return call.along(view.base, function, list(dims[1:]), call.site.part(part or call.site.op))


def placed(call: Call, view: View, axes: list[int]) -> tuple[View, list[int]]:
    """The view with every axis a dim of its value, and the dims that these axes are."""
    view = call.positioned(view)
    dims = []
    for axis in axes:
        found = {atom.dim for atom in view.layout.axes[axis]}
        if not found and view.layout.shape[axis] == 1:
            raise call.refuse("works along an axis of one position")
        if len(found) != 1 or min(found) <= FEATURES:
            raise call.refuse(f"axis {axis} of {list(view.layout.shape)} is not positions alone")
        dims.append(found.pop())
    return view, dims


def resized(layout: Layout, dims: tuple[int, ...]) -> Layout:
    """The same axes of a value with other lengths: every axis is whole dims."""
    new = Layout.of(dims)
    return Layout(dims, tuple(new.all_of([a.dim for a in axis]) for axis in layout.axes))


def cut(call: Call, view: View, axis: int, start: int, stop: int, step: int = 1, drop: bool = False) -> View:
    """Some indices of an axis of positions."""
    if stop <= start:
        raise call.refuse("takes nothing")
    view, (dim,) = placed(call, view, [axis])
    dims = list(view.layout.dims)
    dims[dim] = len(range(start, stop, step))
    function = {"name": "slice", "dim": dim, "start": start, "end": stop, "step": step}
    layout = resized(view.layout, tuple(dims))
    made = View(emit(call, view, function, tuple(dims), "slice"), layout)
    return made.seen(layout.drop([axis]), call.site) if drop else made


def take(call: Call, piece: Any) -> View:
    """One of several parts."""
    if not isinstance(piece, Piece) or piece.view.is_stored:
        raise call.refuse("takes a result that is not known")
    return cut(call, piece.view, piece.axis, piece.start, piece.stop, drop=piece.drop)


POSITIONS["getitem"] = take


@along("slice", "narrow", "select")
def _slice(call: Call) -> View:
    view = call.tensor()
    axis = call["dim"] % view.ndim
    size = view.layout.shape[axis]
    if call.site.op == "select":
        index = call["index"] % size
        return cut(call, view, axis, index, index + 1, drop=True)
    if call.site.op == "narrow":
        start = call["start"] % size
        return cut(call, view, axis, start, start + call["length"])
    return cut(call, view, axis, *slice(call["start"], call["end"], call["step"]).indices(size))


@along("roll", "flip")
def _roll(call: Call) -> View:
    view = call.tensor()
    axes = [d % view.ndim for d in call["dims"]]
    view, dims = placed(call, view, axes)
    function: Json = {"name": call.site.op, "dims": dims}
    if call.site.op == "roll":
        function["shifts"] = list(call["shifts"])
    return View(emit(call, view, function, view.layout.dims), view.layout)


@along("cat", "concat", "concatenate")
def _join(call: Call) -> View:
    views = [call.computed(v) for v in call["tensors"]]
    axis = call["dim"] % views[0].ndim
    views = [call.positioned(v) for v in views]
    first = views[0].layout
    found = {a.dim for v in views for a in v.layout.axes[axis]}
    whole = [resized(v.layout, first.dims) for v in views]
    if len(found) != 1 or min(found) <= FEATURES or any(w.axes != whole[0].axes for w in whole):
        raise call.refuse("joins what is not positions alone, or not the same")
    dim = found.pop()
    dims = list(first.dims)
    dims[dim] = sum(v.layout.dims[dim] for v in views)
    if any(v.layout.dims[:dim] + v.layout.dims[dim + 1 :] != first.dims[:dim] + first.dims[dim + 1 :] for v in views):
        raise call.refuse("joins values of different sizes")
    layout = Layout.of(tuple(dims))
    by_axis = tuple(layout.all_of([a.dim for a in ax]) if i != axis else layout.whole(dim) for i, ax in enumerate(first.axes))
    return call.emit({"op": "join", "axis": dim - 1}, views, Layout(tuple(dims), by_axis))


_REDUCTIONS = {"linalg_vector_norm": "norm"}


@along("mean", "sum", "amax", "amin", "linalg_vector_norm")
def _reduce(call: Call) -> View:
    view = call.tensor()
    if call.args.get("ord", 2) != 2 or call.args.get("dim") is None:
        raise call.refuse("a norm of another order than 2, or over everything")
    given = call["dim"] if isinstance(call["dim"], (list, tuple)) else [call["dim"]]
    axes = sorted(d % view.ndim for d in given)
    if not axes:
        raise call.refuse("mixes images of the batch")
    view, dims = placed(call, view, axes)
    sizes = tuple(1 if d in dims else n for d, n in enumerate(view.layout.dims))
    function = {"name": "reduce", "function": _REDUCTIONS.get(call.site.op, call.site.op), "dims": sorted(dims), "keepdim": True}
    layout = resized(view.layout, sizes)
    made = View(emit(call, view, function, sizes), layout)
    return made if call.args.get("keepdim") else made.seen(layout.drop(axes), call.site)


@along("pad", "constant_pad_nd", "reflection_pad2d", "replication_pad2d")
def _pad(call: Call) -> View:
    view = call.tensor()
    pads = list(call["pad"] if "pad" in call.args else call["padding"])
    by_axis = {view.ndim - 1 - i: pads[2 * i : 2 * i + 2] for i in range(len(pads) // 2) if any(pads[2 * i : 2 * i + 2])}
    axes = sorted(by_axis)
    view, dims = placed(call, view, axes)
    border = {d: by_axis[a] for a, d in zip(axes, dims, strict=True)}
    sizes = tuple(n + sum(border.get(d, [0])) for d, n in enumerate(view.layout.dims))
    last = len(sizes) - 1
    flat = [n for d in range(last, min(dims) - 1, -1) for n in border.get(d, [0, 0])]
    kind = {"reflection": "reflect", "replication": "replicate"}.get(call.site.op.partition("_")[0])
    mode = kind or call.args.get("mode", "constant")
    value = finite(float(call.args.get("value") or 0.0))
    function = {"name": "pad", "pad": flat, "mode": mode, "value": value}
    return View(emit(call, view, function, sizes), resized(view.layout, sizes))


class _OfImage(Carrying):
    """A carried function that turns out to be one of the positions of an image."""

    def raw(self, value: Any) -> Carried:
        view = self.call.computed(self.call.args[value] if isinstance(value, str) else value)
        view = self.call.positioned(view)
        if not view.layout.is_identity:
            raise self.call.refuse(f"axes of {list(view.layout.shape)} are not batch, features and positions")
        return Carried(view.base.name, ({"per_image": 1}, *view.layout.dims[1:]))

    def emit(
        self, call: Json, inputs: list[Carried], lengths: list[Length], part: str | None = None, memory: object = None
    ) -> Carried:
        del part, memory
        shape = [size_of(n) for n in lengths[1:]]
        made = self.call.along(Value(inputs[0].name), call, shape, self.call.site.part(self.call.site.op))
        return Carried(made.name, tuple(lengths))


def _of_image(call: Call) -> Any:
    made = CARRIERS[call.site.op](_OfImage(call))
    first = made[0] if isinstance(made, list) else made
    view = View(Value(first.name), Layout.of((BATCH_SIZE, *(size_of(n) for n in first.lengths[1:]))))
    return [view, *made[1:]] if isinstance(made, list) else view


along(
    *MODES,
    *("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_max_pool1d", "adaptive_max_pool2d"),
    *("avg_pool1d", "avg_pool2d", "max_pool1d", "max_pool2d", "max_pool2d_with_indices"),
)(_of_image)
