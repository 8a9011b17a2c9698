"""What a PyTorch tensor is to us while a network is being lowered."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from .axes import BATCH, FEATURES, REPEATED, Layout
from .graph import Site


@dataclass(frozen=True, slots=True)
class Value:
    """A value of our graph, of shape [C, positions...]; its layout's dims are [B, C, positions...]."""

    name: str


@dataclass(frozen=True, slots=True)
class Stored:
    """A parameter or buffer; its layout's dims are its own."""

    name: str


@dataclass(frozen=True, slots=True)
class View:
    """A tensor: a base, seen through views."""

    base: Value | Stored
    layout: Layout
    site: Site | None = None
    """Where the last view was made: what it may turn out to be is named after that."""
    memory: object = field(default_factory=object)
    """Shared by the views of one tensor, which an in-place op changes together."""

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
