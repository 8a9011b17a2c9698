"""What our ops cannot say is carried: run as PyTorch's own functions of tensors, each model's for itself (docs/ops.md).

A carried tensor has PyTorch's shape and is not followed. A layer with a weight matrix follows features again (`follow`).
The single functions are in `carry_shapes` and `carry_numbers`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import fx

from .axes import BATCH, FEATURES, REPEATED, Atom, Layout
from .errors import UNKNOWN
from .graph import Json
from .lower import CARRIER, Call, Lowering
from .trace import BATCH_SIZE
from .values import Carried, Length, Piece, Scores, Value, View

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

    def count(self, name: str) -> Length:
        """A number that may grow with the batch."""
        return self.lowering.static.count(self.call.node, name)

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

    def numbers(self, name: str, n: int, default: int = 0) -> list[int]:
        """An argument that is one number for all of n axes, or one for each."""
        value = default if self[name] is None else self[name]
        values = [int(v) for v in (value if isinstance(value, (list, tuple)) else [value])]
        return values * n if len(values) == 1 else values

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
        raise call.refuse(UNKNOWN)
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


def raw(call: Call, value: Any) -> Carried:
    """A tensor as PyTorch has it."""
    try:
        return Carrying(call).raw(value)
    except ValueError as error:
        raise call.refuse(str(error)) from error


CARRIER.carry, CARRIER.raw, CARRIER.take = carry, raw, take
CARRIER.follow, CARRIER.feature_axis = follow, feature_axis
