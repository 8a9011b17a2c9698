"""Export: a module of PyTorch's becomes a plain model file."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

from torch import nn

from . import checkpoint as checkpoints
from . import (  # noqa: F401 (they register their handlers)
    carry_numbers,
    carry_shapes,
    lower_arithmetic,
    lower_layers,
    lower_positions,
    lower_views,
    network,
)
from .compare import Reference, difference, logits
from .errors import ZipitError, note
from .graph import Json, tensor_names
from .model_file import GATE, Model
from .frozen import thawed
from .outputs import Lowered, lower
from .trace import trace

MOST_TOLD = 5
"""Reasons for carrying that are told, at most."""


def convert(
    module: nn.Module,
    *,
    arch: str,
    preprocess: Json,
    classes: Sequence[Sequence[str] | None] = (),
    known_classes: Sequence[str] = (),
    tasks: Sequence[str] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    key: str | None = None,
    environment: dict[str, str] | None = None,
) -> tuple[Model, nn.Module]:
    """A module (with a checkpoint's weights, if one is given) as a model, and the f32 module in evaluation mode that it
    was made from.

    `classes` are those of each output, or of each that is a vector; none are `None`. `known_classes` go, where none are
    given, with every output that has as many features."""
    original = {name: tensor.detach().cpu() for name, tensor in module.state_dict().items()}
    module = copy.deepcopy(module).cpu().float()
    if checkpoint is not None:
        original = checkpoints.fill(module, checkpoints.read(checkpoint), checkpoint, key)
    channels = len(preprocess["mean"])
    traced = trace(thawed(module), (channels, *preprocess["size"]))
    lowered = lower(traced, arch)
    graph = lowered.graph
    known = original | lowered.folded
    tensors = {name: known[name] if name in known else module.get_buffer(name) for name in tensor_names(graph)}
    tensors |= {name: tensors[name].expand(n) for name, n in lowered.repeated.items() if name in tensors}
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise ZipitError(f"{name}: its numbers are {tensor.dtype}; weights are floating point")
        if not tensor.isfinite().all():
            raise ZipitError(f"{name}: has numbers that are not finite")
    model = Model(
        graph,
        _tasks(lowered, classes, known_classes, tasks or traced.output_names),
        preprocess,
        tensors,
        versions() | _notes(lowered) | (environment or {}),
        endings=lowered.endings,
    )
    return model, module


def _notes(lowered: Lowered) -> dict[str, str]:
    """What is in the file and not in the network, or the other way round."""
    notes = {}
    if lowered.origins:
        sources = (f"{name} = f({', '.join(own)})" for name, own in sorted(lowered.origins.items()) if own)
        notes["folded"] = "; ".join(sources)
    if carried := _carried(lowered):
        note(carried)
        notes["carried"] = carried
    if any(lowered.endings):
        ends = sorted({end for end in lowered.endings if end})
        note(f"the network ends in {' and '.join(ends)}: the file has the logits before that")
        notes["endings"] = ", ".join(end or "none" for end in lowered.endings)
    return notes


def _carried(lowered: Lowered) -> str | None:
    """Which parts every model keeps, and why: functions alike are told once."""
    n = sum(node["op"]["op"] == "call" for node in lowered.graph["nodes"])
    if n == 0:
        return None
    kinds: dict[tuple[str, str], list[str]] = {}
    for error in lowered.carried:
        kinds.setdefault((error.op, error.reason), []).append(error.node)
    told = [
        f"{nodes[0]}{f' and {len(nodes) - 1} more' if nodes[1:] else ''}: {op}: {reason}"
        for (op, reason), nodes in list(kinds.items())[:MOST_TOLD]
    ]
    rest = [f"{len(kinds) - MOST_TOLD} more kinds"] if len(kinds) > MOST_TOLD else []
    begins = f". It begins at {'; '.join(told + rest)}" if told else ""
    return (
        f"{n} of {len(lowered.graph['nodes'])} nodes are carried: their features are not followed, and every model keeps its own "
        f"(docs/ops.md){begins}"
    )


def _tasks(
    lowered: Lowered,
    classes: Sequence[Sequence[str] | None],
    known_classes: Sequence[str],
    tasks: Sequence[str] | None,
) -> list[Json]:
    shapes = lowered.shapes
    n = len(shapes)
    names = list(tasks) if tasks else ["task"] if n == 1 else [f"task{i + 1}" for i in range(n)]
    if len(names) != n or len(set(names)) != n:
        raise ZipitError(f"{n} different task names are needed, one per output in order; given: {', '.join(names)}")
    for name in names:
        if not name.strip():
            raise ZipitError("a task has no name: outputs are called after their tasks")
        if name == GATE:
            raise ZipitError(f"a task is called `{GATE}`, as the output of a gate is: give it another name (--task)")
    own_classes = _classes(lowered, classes, known_classes, names)
    for name, shape, own in zip(names, shapes, own_classes, strict=True):
        n = shape[0] if shape else 0
        if own and len(own) != n:
            what = f"{n} logits" if len(shape) == 1 else f"{n} features: it is {shape}"
            raise ZipitError(f"task `{name}` has {what}, but {len(own)} classes are named: one for each, in order")
        if twice := next((c for i, c in enumerate(own) if c in own[:i]), None):
            raise ZipitError(f"task `{name}` lists class `{twice}` twice")
        if not all(own):
            raise ZipitError(f"task `{name}`: class {own.index('')} has no name")
    return [{"name": name, "classes": own} for name, own in zip(names, own_classes, strict=True)]


def _classes(
    lowered: Lowered,
    classes: Sequence[Sequence[str] | None],
    known_classes: Sequence[str],
    names: list[str],
) -> list[list[str]]:
    """Of every output: named for each, or for those that are vectors, which alone must be."""
    shapes = lowered.shapes
    vectors = [i for i, shape in enumerate(shapes) if len(shape) == 1]
    if not classes and known_classes:
        n_known = [len(known_classes)]
        fits = [shape[:1] == n_known and ours for shape, ours in zip(shapes, lowered.followed, strict=True)]
        found = [list(known_classes) if fit else [] for fit in fits]
        if all(found[i] for i in vectors):
            return found
    if len(classes) == len(shapes):
        return [list(own or ()) for own in classes]
    if len(classes) == len(vectors):
        own = dict(zip(vectors, classes, strict=True))
        return [list(own.get(i) or ()) for i in range(len(shapes))]
    told = ", ".join(f"{name} {shape}" for name, shape in zip(names, shapes, strict=True))
    once = f"for each of them{f' or of the vectors, {len(vectors)}' if 0 < len(vectors) < len(shapes) else ''}"
    raise ZipitError(
        f"the outputs are {told}, and classes are named for {len(classes)}: give --classes a,b,c or --classes-file FILE once "
        f"{once}, in order; --classes - where the numbers are no classes"
    )


def versions() -> dict[str, str]:
    """Of what computed this."""
    found = {}
    for package in ("torch", "torchvision", "timm"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def check_round_trip(model: Model, reference: Reference) -> float:
    """max |Δ| between a module, run on the model's `check_images`, and what is built from its model."""
    found = model.ended(logits(network.build(model), reference.images))
    return difference(found, reference, "the exported graph")
