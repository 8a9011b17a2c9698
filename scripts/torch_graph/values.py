"""What a PyTorch tensor is to us while a network is being lowered."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from torch import fx

from .axes import BATCH, FEATURES, REPEATED, Layout
from .graph import Site


@dataclass(frozen=True, slots=True)
class Value:
    """A value of our graph, of shape [C, positions...]; its layout's dims are [B, C, positions...]."""

    name: str


@dataclass(frozen=True, slots=True)
class Stored:
    """A parameter or buffer, or what was computed from such alone; its layout's dims are its own."""

    name: str
    folded: bool = False
    """Whether it was computed, and has no place in the network yet."""


@dataclass(frozen=True, slots=True)
class View:
    """A tensor: a base, seen through views."""

    base: Value | Stored
    layout: Layout
    site: Site | None = None
    """Where the last view was made: what it may turn out to be is named after that."""
    memory: object = field(default_factory=object)
    """Shared by the views of one tensor, which an in-place op changes together."""
    node: fx.Node | None = None
    """The call that gave a stored one."""

    @property
    def positions(self) -> range:
        """Dims that are positions."""
        return range(FEATURES + 1, len(self.layout.dims))

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.layout.axes)

    @property
    def is_stored(self) -> bool:
        """Whether it is a parameter rather than computed from the image."""
        return isinstance(self.base, Stored)

    def has_positions(self) -> bool:
        """Whether an axis runs through positions."""
        return bool(self.layout.used() - {BATCH, FEATURES, REPEATED})

    def seen(self, layout: Layout, site: Site | None) -> View:
        """The same numbers through another layout."""
        return replace(self, layout=layout, site=site)


Length = int | dict[str, int]
"""Of an axis: a number, or {"per_image": so many for each image}."""


@dataclass(frozen=True, slots=True)
class Carried:
    """A tensor as PyTorch has it, whose features are not followed."""

    name: str
    lengths: tuple[Length, ...]
    memory: object = field(default_factory=object)


@dataclass(frozen=True, slots=True)
class Piece:
    """One part of a `split`, `chunk` or `unbind`, before anybody takes it."""

    view: View
    axis: int
    start: int
    stop: int
    drop: bool


@dataclass(frozen=True, slots=True)
class Scores:
    """Products of queries and keys on their way to a softmax."""

    queries: View
    keys: View
    scale: float
    normalised: bool = False
    biases: tuple[tuple[View, tuple[int, ...], fx.Node | None], ...] = ()
    """Stored tensors that are added to the scaled products; in what shape those were, and the call that gave it."""
    seen: tuple[tuple[int, ...], fx.Node | None] | None = None
    """In what shape they are now, where that is not the products' own."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the products, as they are seen."""
        if self.seen:
            return self.seen[0]
        return (*self.queries.layout.shape[:-1], self.keys.layout.shape[-2])
