"""Functions that move numbers without computing any: most leave nothing in the graph."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from .axes import BATCH, FEATURES, REPEATED, Atom, AxesError, Axis, Layout
from .lower import Call, lowers
from .values import Carried, Piece, Scores, View


def _view(call: Call) -> View:
    value = call["self"]
    if not isinstance(value, View):
        raise call.refuse("attention scores can only be scaled, normalised and applied to values")
    return value


@lowers("view", "reshape", "_unsafe_view", "flatten", "unflatten", "view_as", "reshape_as")
def _reshape(call: Call) -> View | Scores:
    if isinstance(scores := call["self"], Scores):
        if call.shape[-2:] != scores.shape[-2:]:
            raise call.refuse("attention scores keep their queries and keys")
        return replace(scores, seen=(call.shape, call.node))
    view = _view(call)
    try:
        layout = view.layout.reshape(call.shape)
    except AxesError:
        if view.is_stored:
            raise
        view = call.positioned(view)
        layout = view.layout.reshape(call.shape)
    return view.seen(layout, call.site)


@lowers("permute")
def _permute(call: Call) -> View:
    view = _view(call)
    return view.seen(view.layout.permute([d % view.ndim for d in call["dims"]]), call.site)


@lowers("transpose", "swapaxes", "swapdims")
def _transpose(call: Call) -> View:
    view = _view(call)
    a, b = list(call.args.values())[1:]
    return view.seen(view.layout.transpose(a, b), call.site)


@lowers("t", "numpy_T", "mT")
def _t(call: Call) -> View:
    view = _view(call)
    return view.seen(view.layout.transpose(-1, -2) if view.ndim > 1 else view.layout, call.site)


@lowers("movedim", "moveaxis")
def _movedim(call: Call) -> View:
    view = _view(call)
    pairs = [v if isinstance(v, (list, tuple)) else [v] for v in (call["source"], call["destination"])]
    source, destination = ([d % view.ndim for d in dims] for dims in pairs)
    placed = dict(zip(destination, source, strict=True))
    rest = iter(d for d in range(view.ndim) if d not in source)
    order = [placed[i] if i in placed else next(rest) for i in range(view.ndim)]
    return view.seen(view.layout.permute(order), call.site)


@lowers("unsqueeze")
def _unsqueeze(call: Call) -> View:
    view = _view(call)
    return view.seen(view.layout.insert(call["dim"] % (view.ndim + 1)), call.site)


@lowers("squeeze")
def _squeeze(call: Call) -> View:
    view = _view(call)
    dims = call.args.get("dim", list(range(view.ndim)))
    dims = [d % view.ndim for d in (dims if isinstance(dims, (list, tuple)) else [dims])]
    return view.seen(view.layout.drop(d for d in dims if view.layout.shape[d] == 1), call.site)


@lowers("expand", "expand_as", "broadcast_to")
def _expand(call: Call) -> View:
    view = _view(call)
    return view.seen(view.layout.expand(call.shape), call.site)


@lowers("contiguous", "detach", "alias", "lift_fresh_copy", "to", "type_as", "float")
def _same(call: Call) -> Any:
    value = call["self"]
    of_image = not isinstance(value, View) or not value.is_stored
    if of_image and not call.node.meta["val"].dtype.is_floating_point:
        raise call.refuse("turns numbers into integers or truths")
    return value


@lowers("clone", "_to_copy")
def _copy(call: Call) -> Any:
    """What is changed in place later is not changed in a copy."""
    value = _same(call)
    return replace(value, memory=object()) if isinstance(value, (View, Carried)) else value


@lowers("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout", "native_dropout")
def _dropout(call: Call) -> Any:
    if call["train"]:
        raise call.refuse("drops at random even in evaluation mode; give it `training=self.training`")
    return call.args.get("input", call.args.get("self"))


@lowers("_assert_tensor_metadata", "_assert_async", "_assert_scalar")
def _nothing(_: Call) -> None:
    return None


@lowers("channel_shuffle", "native_channel_shuffle")
def _channel_shuffle(call: Call) -> View:
    view = _view(call)
    shape = view.layout.shape
    groups = call["groups"]
    cut = view.layout.reshape((shape[0], groups, shape[1] // groups, *shape[2:]))
    return view.seen(cut.transpose(1, 2).reshape(shape), call.site)


@lowers("getitem")
def _getitem(call: Call) -> View:
    piece = call["piece"]
    if isinstance(piece, View):
        return piece
    if not isinstance(piece, Piece):
        raise call.refuse("takes one of several results")
    return _narrow(call, piece.view, piece.axis, piece.start, piece.stop, piece.drop)


@lowers("select")
def _select(call: Call) -> View:
    view = _view(call)
    axis = call["dim"] % view.ndim
    index = call["index"] % view.layout.shape[axis]
    return _narrow(call, view, axis, index, index + 1, drop=True)


@lowers("slice")
def _slice(call: Call) -> View:
    view = _view(call)
    axis = call["dim"] % view.ndim
    if call["step"] != 1:
        raise call.refuse(f"takes every {_ordinal(call['step'])} index; only whole ranges can be taken")
    start, stop, _ = slice(call["start"], call["end"]).indices(view.layout.shape[axis])
    return _narrow(call, view, axis, start, stop, drop=False)


def _ordinal(n: int) -> str:
    teens = n % 100 in (11, 12, 13)
    return f"{n}{'th' if teens else {1: 'st', 2: 'nd', 3: 'rd'}.get(n % 10, 'th')}"


@lowers("narrow")
def _narrow_call(call: Call) -> View:
    view = _view(call)
    axis = call["dim"] % view.ndim
    start = call["start"] % view.layout.shape[axis]
    return _narrow(call, view, axis, start, start + call["length"], drop=False)


@lowers("unbind")
def _unbind(call: Call) -> list[Piece]:
    view = _view(call)
    axis = call["dim"] % view.ndim
    return [Piece(view, axis, i, i + 1, drop=True) for i in range(view.layout.shape[axis])]


@lowers("split", "chunk", "split_with_sizes", "tensor_split", "unsafe_chunk", "unsafe_split")
def _split(call: Call) -> list[Piece]:
    view = _view(call)
    axis = call["dim"] % view.ndim
    stops, stop = [], 0
    for part in call.node.meta["val"]:
        stop += part.shape[axis]
        stops.append(stop)
    return [Piece(view, axis, start, stop, drop=False) for start, stop in zip([0, *stops], stops, strict=False)]


def _narrow(call: Call, view: View, axis: int, start: int, stop: int, drop: bool) -> View:
    layout = view.layout
    if stop <= start:
        raise call.refuse(f"takes nothing of axis {axis} of {list(layout.shape)}")
    if (start, stop) == (0, layout.shape[axis]):
        return view.seen(layout.drop([axis]), call.site) if drop else view
    dims = layout.used([axis])
    if dims == {REPEATED}:
        kept: Axis = (Atom(REPEATED, 0, stop - start),) if stop - start > 1 else ()
        repeated = layout.with_axis(axis, kept)
        return view.seen(repeated.drop([axis]) if drop else repeated, call.site)
    if view.is_stored:
        raise call.refuse(f"takes a part of the parameter `{view.base.name}`; parameters must be stored as used")
    if dims == {FEATURES}:
        if len(layout.axes[axis]) > 1:
            view = call.features(view, axis)
        return _features(call, view, axis, start, stop, drop)
    if BATCH in dims:
        raise call.refuse("takes some images of the batch")
    if FEATURES in dims:
        raise call.refuse(f"takes a part of axis {axis} of {list(layout.shape)}, which joins features and positions")
    if stop - start > 1:
        raise call.refuse(f"takes positions {start} to {stop} of {layout.shape[axis]}; only one token can be selected")
    return _token(call, view, axis, start, drop)


def _features(call: Call, view: View, axis: int, start: int, stop: int, drop: bool) -> View:
    ranges, layout = view.layout.take(axis, start, stop)
    taken = call.emit({"op": "slice", "ranges": ranges}, [view], layout, name=call.site.part("slice"))
    return _part_of(view, taken, layout.drop([axis]) if drop else layout)


def _token(call: Call, view: View, axis: int, index: int, drop: bool) -> View:
    view = call.tokens(view, axis)
    if view.ndim != 3:
        raise call.refuse(f"selects a position of {list(view.layout.shape)}; only [B, T, C] and [B, C, T] have tokens")
    axes = list(view.layout.axes)
    axes[axis] = ()
    layout = Layout(view.layout.dims[: FEATURES + 1], tuple(axes))
    op = {"op": "select_token", "index": index}
    taken = call.emit(op, [view], layout, name=call.site.part("select_token"))
    return _part_of(view, taken, layout.drop([axis]) if drop else layout)


def _part_of(view: View, taken: View, layout: Layout) -> View:
    """PyTorch's parts share memory with the whole."""
    return replace(taken, layout=layout, memory=view.memory)
