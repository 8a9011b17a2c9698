"""A traced network → our graph: what lowering made, and what of it the network gives."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import fx

from .axes import FEATURES, AxesError
from .errors import LoweringError, ZipitError
from .graph import GraphBuilder, Json
from .lower import CARRIER, Call, Lowering
from .trace import BATCH_SIZE, Trace, before_softmax
from .values import Carried, Scores, View


@dataclass(frozen=True, slots=True)
class Lowered:
    """A traced network as a graph of ours."""

    graph: Json
    shapes: list[list[int]]
    """Of each output, the batch left out."""
    followed: list[bool]
    """Whether each output's first axis behind the batch is features."""
    repeated: dict[str, int]
    """State-dict name of one number that stands for all features → how many they are."""
    folded: dict[str, torch.Tensor]
    """Tensors that are computed from parameters and constants alone, by the name they have in the file."""
    origins: dict[str, list[str]]
    """The parameters that each of those is computed from."""
    endings: list[str | None]
    """Of each output, `softmax` or `log_softmax` where the network has that behind its logits."""
    carried: list[LoweringError]
    """Where features stop being followed, and why."""


def lower(trace: Trace, arch: str) -> Lowered:
    """Our graph of a traced network."""
    try:
        return _lowered(trace, arch)
    except ZipitError as error:
        try:
            return _lowered(trace.written_out, arch)
        except ZipitError:
            raise error from None


def _lowered(trace: Trace, arch: str) -> Lowered:
    lowering = Lowering(trace)
    lowering.run()
    ends = [before_softmax(node) for node in trace.outputs]
    lowering.refuse_first([node for node, _ in ends])
    if not ends:
        raise ZipitError("the module's forward returns nothing")
    names = []
    for i, (node, ending) in enumerate(ends):
        names.append(_output(lowering, node))
        if ending and not is_followed(lowering.builder, names[i]):
            # Along positions it is no softmax over classes.
            ends[i] = (trace.outputs[i], None)
            names[i] = _output(lowering, trace.outputs[i])
    shapes = [list(node.meta["val"].shape[1:]) for node, _ in ends]
    if not all(lowering.builder.node(name) for name in names):
        raise ZipitError("the network returns its input")
    graph = lowering.builder.finish(arch, names)
    endings = [ending for _, ending in ends]
    followed = [is_followed(lowering.builder, name) for name in names]
    left = {node["name"] for node in graph["nodes"]}
    carried = [error for error, name in lowering.carried if name in left]
    return Lowered(graph, shapes, followed, lowering.builder.repeated, lowering.folded, lowering.origins, endings, carried)


def is_followed(builder: GraphBuilder, name: str) -> bool:
    """Whether a value is one of ours, features first."""
    node = builder.node(name)
    return bool(node) and node["op"]["op"] not in ("call", "stored")


def _output(lowering: Lowering, node: fx.Node) -> str:
    """The value of ours that is an output: one of our own with its axes as PyTorch has them, else a carried tensor."""
    call = Call(lowering, node, lowering.trace.site(node), {})
    found = lowering.found(node)
    if not isinstance(found, (View, Carried, Scores)) or (isinstance(found, View) and found.is_stored):
        raise ZipitError(f"{call.site.name}: an output is not computed from the images")
    if isinstance(found, View) and (name := _followed(call, found)):
        return name
    carried = CARRIER.raw(call, found)
    shape = list(node.meta["val"].shape)
    if carried.lengths[:1] != ({"per_image": 1},) or not all(isinstance(n, int) for n in carried.lengths[1:]):
        raise ZipitError(
            f"{call.site.name}: an output is {shape} for {BATCH_SIZE} images; its first axis must be the batch, with one "
            "tensor for each image"
        )
    # A vector is one of our values, so that it can have class names and a gate.
    return CARRIER.follow(call, carried, FEATURES).base.name if len(shape) == 2 else carried.name


def _followed(call: Call, view: View) -> str | None:
    """The value of ours that is this tensor, what is pending written down, if its features are the first axis behind the
    batch."""
    try:
        if view.ndim < 2:
            return None
        view = call.vector(view, FEATURES) if view.ndim == 2 else call.features(view, FEATURES)
        view = view if view.layout.is_identity else call.positioned(view)
    except (LoweringError, AxesError):
        return None
    return view.base.name if view.layout.is_identity else None
