"""What of a traced network does not depend on the images: computed once, from parameters and constants alone.

And which lengths grow with the batch: a trace has numbers, so the network is traced with two sizes of it.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
from torch import fx

from .errors import ZipitError
from .trace import BATCH_SIZE, Trace, changes_its_input, function_name

OTHER_BATCH_SIZE = 3


class Static:
    """Of one traced network. Nothing is computed before it is asked for."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace

    @cached_property
    def known(self) -> dict[fx.Node, Any]:
        """What every call gives that reads no image."""
        return _evaluated(self.trace)

    @cached_property
    def _twins(self) -> dict[fx.Node, fx.Node]:
        """Every call in the trace with another batch size."""
        own, other = list(self.trace.graph.nodes), list(self.trace.twin.graph.nodes)
        if [str(node.target) for node in own] != [str(node.target) for node in other]:
            raise ZipitError("the network computes something else for another number of images")
        return dict(zip(own, other, strict=True))

    @cached_property
    def _known_to_twin(self) -> dict[fx.Node, Any]:
        return _evaluated(self.trace.twin)

    def tensor(self, node: fx.Node) -> torch.Tensor | None:
        """What a call gives, if that is a tensor that depends neither on the images nor on how many they are."""
        found = self.known.get(node)
        if not isinstance(found, torch.Tensor):
            return None
        other = self._known_to_twin.get(self._twins[node])
        same = isinstance(other, torch.Tensor) and other.shape == found.shape and torch.equal(other, found)
        return found if same else None

    def once(self, node: fx.Node) -> tuple[torch.Tensor, int] | None:
        """A tensor that repeats itself along axis 0 for every image: one of its copies."""
        found, other = self.known.get(node), self._known_to_twin.get(self._twins[node])
        if not isinstance(found, torch.Tensor) or not isinstance(other, torch.Tensor) or found.ndim == 0:
            return None
        n, n_other = found.shape[0] // BATCH_SIZE, other.shape[0] // OTHER_BATCH_SIZE
        first = found[:n]
        whole = (n * BATCH_SIZE, n * OTHER_BATCH_SIZE) == (found.shape[0], other.shape[0]) and n > 0
        if not whole or found.shape[1:] != other.shape[1:]:
            return None
        copies = [*found.split(n), *other.split(n)]
        return (first, n) if all(torch.equal(first, copy) for copy in copies) else None

    def lengths(self, node: fx.Node, value: Any = None) -> list[int | dict[str, int]]:
        """The shape of what a call gives, or of one of its results; lengths that grow with the batch as such."""
        own = (node.meta["val"] if value is None else node.meta["val"][value]).shape
        other = self._twins[node].meta["val"]
        other = (other if value is None else other[value]).shape
        return [self.length(a, b) for a, b in zip(own, other, strict=True)]

    def count(self, node: fx.Node, name: str) -> int | dict[str, int]:
        """An integer among a call's arguments."""
        at, argument = next((i, a) for i, a in enumerate(node.target._schema.arguments) if a.name == name)
        own, other = (
            call.args[at] if at < len(call.args) else call.kwargs.get(name, argument.default_value)
            for call in (node, self._twins[node])
        )
        return self.length(int(own), int(other))

    @cached_property
    def changed(self) -> set[fx.Node]:
        """What is known and changed in place after it was made, with all that shares its memory: in `known` it is as it is
        in the end.

        An error where the image meets it before, or is written into a part of it."""
        changes, written = _changes(self.trace)
        for node in written:
            into = node.args[0]
            tensors = [self.known[into]] if isinstance(self.known.get(into), torch.Tensor) else []
            if any(_is_view(self.known, into, tensor) for tensor in tensors):
                raise ZipitError(f"{self.trace.site(node).name}: writes the image into a part of `{into.name}`")
        if not changes:
            return set()
        position = {node: i for i, node in enumerate(self.trace.graph.nodes)}
        last: dict[int, int] = {}
        for node in changes:
            if isinstance(self.known.get(node), torch.Tensor):
                last[_memory(self.known[node])] = position[node]
        tensors = {node: value for node, value in self.known.items() if isinstance(value, torch.Tensor)}
        found = {node for node, value in tensors.items() if _memory(value) in last}
        for node in found:
            for user in node.users:
                if user not in self.known and position[user] < last[_memory(tensors[node])]:
                    raise ZipitError(f"{self.trace.site(user).name}: reads `{node.name}`, which is changed in place later")
        return found

    @staticmethod
    def length(own: int, other: int) -> int | dict[str, int]:
        """One that grows with the batch, or does not."""
        if own == other:
            return own
        per_image = other - own
        if own != per_image * BATCH_SIZE:
            raise ValueError(f"a length of {own} for {BATCH_SIZE} images is {other} for {OTHER_BATCH_SIZE}")
        return {"per_image": per_image}


def _memory(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _is_view(known: dict[fx.Node, Any], node: fx.Node, tensor: torch.Tensor) -> bool:
    """Whether a tensor has its memory of another one."""
    others = (value for other, value in known.items() if other is not node and isinstance(value, torch.Tensor))
    return any(_memory(other) == _memory(tensor) for other in others)


def _changes(trace: Trace) -> tuple[list[fx.Node], list[fx.Node]]:
    """The calls that change in place what no image has part in: of no image, and of one."""
    of_image = {trace.input}
    for node in trace.graph.nodes:
        if function_name(node) not in FILLED and any(given in of_image for given in node.all_input_nodes):
            of_image.add(node)
    mutating = [node for node in trace.graph.nodes if changes_its_input(node)]
    own = [node for node in mutating if node not in of_image]
    return own, [node for node in mutating if node in of_image and node.args[0] not in of_image]


def _evaluated(trace: Trace) -> dict[fx.Node, Any]:
    known: dict[fx.Node, Any] = {}
    changes = bool(_changes(trace)[0])
    with torch.no_grad():
        for node in trace.graph.nodes:
            if node.op == "placeholder" and node.name in trace.tensors:
                tensor = trace.tensors[node.name].detach()
                # The network's own parameters stay what they are.
                known[node] = tensor.clone() if changes else tensor
            elif node.op == "call_function" and function_name(node) in FILLED:
                known[node] = _filled(node)
            elif node.op == "call_function" and all(given in known for given in node.all_input_nodes):
                if not _is_random(node):
                    known[node] = _evaluate(node, known)
    return known


def _evaluate(node: fx.Node, known: dict[fx.Node, Any]) -> Any:
    args, kwargs = fx.node.map_arg((node.args, dict(node.kwargs)), lambda n: known[n])
    return node.target(*args, **kwargs)


FILLED = {"zeros_like": 0, "new_zeros": 0, "ones_like": 1, "new_ones": 1, "full_like": None, "new_full": None}
"""Functions that ask of a tensor only its shape or its type, and what they fill theirs with."""


def _filled(node: fx.Node) -> torch.Tensor:
    like = node.meta["val"]
    value = FILLED[function_name(node)]
    if value is None:
        value = node.kwargs.get("fill_value", node.args[-1])
    return torch.full(like.shape, value, dtype=like.dtype)


def _is_random(node: fx.Node) -> bool:
    tags = getattr(node.target, "tags", ())
    return torch.Tag.nondeterministic_seeded in tags
