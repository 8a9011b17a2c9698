"""Where every axis of a PyTorch tensor comes from.

A *base* is something with numbered dims: a value of our graph ([B, C, positions...]) or a stored parameter. A tensor
that PyTorch computes from it by views alone has axes made of *atoms*, pieces of those dims. Views only split, reorder
and join atoms, so a chain of them that ends where it began is recognised as doing nothing, whoever wrote it:

    timm's attention: [B, T, 3·H·h] → reshape(B, T, 3, H, h) → permute(2, 0, 3, 1, 4)
    atoms:            b | t | c      → b | t | c/(H·h) | c/h of H | c of h → …
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import prod

BATCH = 0
FEATURES = 1
REPEATED = -1
"""The dim of an atom that repeats one number (`expand`): no dim of the base."""


class AxesError(Exception):
    """A view that mixes axes beyond what atoms can tell; the text is the reason."""


@dataclass(frozen=True, slots=True)
class Atom:
    """Index `(i // stride) % size` of dim `dim`; size is never 1."""

    dim: int
    stride: int
    size: int

    def split(self, size: int) -> tuple[Atom, Atom]:
        """The outer `size` steps, and what one of them contains."""
        inner = self.size // size
        return Atom(self.dim, self.stride * inner if self.dim != REPEATED else 0, size), replace(self, size=inner)


Axis = tuple[Atom, ...]


def join(atoms: Iterable[Atom]) -> Axis:
    """Neighbours that together run through a dim in order become one."""
    joined: list[Atom] = []
    for atom in atoms:
        last = joined[-1] if joined else None
        if last and last.dim == atom.dim and last.stride == atom.stride * atom.size:
            joined[-1] = Atom(atom.dim, atom.stride, last.size * atom.size)
        else:
            joined.append(atom)
    return tuple(joined)


def axis_size(axis: Axis) -> int:
    """Number of indices; an axis without atoms has one."""
    return prod(atom.size for atom in axis)


@dataclass(frozen=True, slots=True)
class Layout:
    """The axes of a tensor, in terms of the dims of its base."""

    dims: tuple[int, ...]
    axes: tuple[Axis, ...]

    @staticmethod
    def of(dims: Sequence[int]) -> Layout:
        """The base itself: axis i is dim i."""
        return Layout(tuple(dims), tuple(_whole(i, size) for i, size in enumerate(dims)))

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the axes."""
        return tuple(axis_size(axis) for axis in self.axes)

    @property
    def is_identity(self) -> bool:
        """Whether the tensor is its base."""
        return self == Layout.of(self.dims)

    def axis(self, index: int) -> int:
        """A possibly negative axis number, as a number from 0."""
        return index % len(self.axes)

    def whole(self, dim: int) -> Axis:
        """The axis that is dim `dim`, and nothing else."""
        return _whole(dim, self.dims[dim])

    def all_of(self, dims: Iterable[int]) -> Axis:
        """The axis that runs through these dims, the first slowest."""
        return join(atom for dim in dims for atom in self.whole(dim))

    def used(self, axes: Iterable[int] | None = None) -> set[int]:
        """Dims that have an atom in these axes (default: all)."""
        chosen = self.axes if axes is None else [self.axes[i] for i in axes]
        return {atom.dim for axis in chosen for atom in axis}

    def reshape(self, shape: Sequence[int]) -> Layout:
        """`view`, `reshape`, `flatten`, `unflatten`: the same numbers in the same order, cut into other axes."""
        left = [atom for axis in self.axes for atom in axis][::-1]
        axes = []
        for size in shape:
            taken, missing = [], size
            while missing > 1:
                atom = left.pop()
                if missing % atom.size == 0:
                    missing //= atom.size
                elif atom.size % missing == 0:
                    atom, inner = atom.split(missing)
                    left.append(inner)
                    missing = 1
                else:
                    raise AxesError(f"{list(self.shape)} viewed as {list(shape)} cuts across the axes")
                taken.append(atom)
            axes.append(join(taken))
        return Layout(self.dims, tuple(axes))

    def permute(self, order: Sequence[int]) -> Layout:
        """Axis i of the result is axis `order[i]`."""
        return Layout(self.dims, tuple(self.axes[i] for i in order))

    def transpose(self, a: int, b: int) -> Layout:
        """Two axes change places."""
        order = list(range(len(self.axes)))
        a, b = self.axis(a), self.axis(b)
        order[a], order[b] = b, a
        return self.permute(order)

    def insert(self, index: int, axis: Axis = ()) -> Layout:
        """A new axis before axis `index`."""
        return Layout(self.dims, (*self.axes[:index], axis, *self.axes[index:]))

    def drop(self, indices: Iterable[int]) -> Layout:
        """Without these axes, which must have one index each."""
        gone = set(indices)
        return Layout(self.dims, tuple(axis for i, axis in enumerate(self.axes) if i not in gone))

    def with_axis(self, index: int, axis: Axis) -> Layout:
        """Another axis in the place of axis `index`."""
        return Layout(self.dims, (*self.axes[:index], axis, *self.axes[index + 1 :]))

    def expand(self, shape: Sequence[int]) -> Layout:
        """Axes of size 1 are repeated; new ones come in front."""
        axes = [()] * (len(shape) - len(self.axes)) + list(self.axes)
        for i, size in enumerate(shape):
            if size not in (-1, axis_size(axes[i])):
                axes[i] = (Atom(REPEATED, 0, size),)
        return Layout(self.dims, tuple(axes))

    def unrepeated(self) -> Layout:
        """Repeated axes back at size 1, as broadcasting sees them."""
        return Layout(self.dims, tuple(tuple(a for a in axis if a.dim != REPEATED) for axis in self.axes))

    def take(self, index: int, start: int, stop: int) -> tuple[list[list[int]], Layout]:
        """Some indices of an axis that is one atom.

        Gives the ranges of the atom's dim that they are, and the layout of a base that has only those."""
        (atom,) = self.axes[index]
        block = atom.stride * atom.size
        ranges = [
            [outer + start * atom.stride, outer + stop * atom.stride] for outer in range(0, self.dims[atom.dim], block)
        ]
        inner = {a.stride: a.size for axis in self.axes for a in axis if a.dim == atom.dim}
        inner[atom.stride] = stop - start
        strides, stride = {}, 1
        for old in sorted(inner):
            strides[old] = stride
            stride *= inner[old]

        def moved(a: Atom) -> Axis:
            if a.dim != atom.dim:
                return (a,)
            return (Atom(a.dim, strides[a.stride], inner[a.stride]),) if inner[a.stride] > 1 else ()

        dims = tuple(stride if i == atom.dim else size for i, size in enumerate(self.dims))
        return ranges, Layout(dims, tuple(join(m for a in axis for m in moved(a)) for axis in self.axes))


def _whole(dim: int, size: int) -> Axis:
    return (Atom(dim, 1, size),) if size > 1 else ()
