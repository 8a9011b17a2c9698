"""torch.export, and what lowering asks of its graph."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import fx, nn
from torch.export.graph_signature import InputKind, OutputKind
from torch.utils import _pytree as pytree

from .collector import paused
from .errors import ZipitError
from .graph import Site
from .program import Program

BATCH_SIZE = 2


@dataclass
class Trace:
    """A network as a graph of ATen calls."""

    graph: fx.Graph
    stored: dict[str, str]
    """Placeholder → state-dict name of the parameter or buffer it stands for."""
    constants: dict[str, torch.Tensor]
    """Placeholder → tensor that is written into the code."""
    tensors: dict[str, torch.Tensor]
    """Placeholder → the parameter, buffer or constant itself."""
    input: fx.Node
    input_name: str
    outputs: list[fx.Node]
    output_names: list[str] | None
    """Of each output the keys on the way to it, where the forward returns a dict, or one in what it returns."""
    shared: dict[str, str]
    """State-dict name → another name of the same tensor (tied weights)."""
    _leaves: set[str]
    _becomes_image: set[fx.Node]
    _again: Callable[[bool, int], Trace]
    functional: bool = False
    """Whether nothing is changed in place."""

    @cached_property
    def twin(self) -> Trace:
        """The same network, traced with another number of images."""
        return self._again(self.functional, BATCH_SIZE + 1)

    @cached_property
    def written_out(self) -> Trace:
        """The same network without changes in place and without regions (autocast, no_grad) of its own."""
        return self._again(True, BATCH_SIZE)


    def site(self, node: fx.Node) -> Site:
        """Where a call stands in the module tree."""
        stack = list((node.meta.get("nn_module_stack") or {}).values())
        path = stack[-1][0] if stack else ""
        return Site(path, path in self._leaves, function_name(node))

    def becomes_image(self, node: fx.Node) -> bool:
        """Whether a [B, C] tensor, or what is computed from it, is given positions again.

        So it is in a squeeze-and-excitation gate, which keeps its 1×1 positions, but not in front of a classifier."""
        return node in self._becomes_image


def function_name(node: fx.Node) -> str:
    """`add` for aten.add_.Tensor."""
    if isinstance(node.target, torch._ops.OpOverload):
        return node.target._schema.name.split("::")[-1].rstrip("_")
    return getattr(node.target, "__name__", str(node.target))


def changes_its_input(node: fx.Node) -> bool:
    """Whether it is an in-place op, `relu_`."""
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


def before_softmax(node: fx.Node) -> tuple[fx.Node, str | None]:
    """The logits [B, classes, …] of an output that is their softmax over classes, or its logarithm."""
    op = function_name(node).lstrip("_") if node.op == "call_function" else ""
    value = node.meta.get("val")
    is_value = isinstance(value, torch.Tensor) and value.ndim >= 2
    if op in ("softmax", "log_softmax") and is_value and node.args[1] % value.ndim == 1:
        logits = node.args[0]
        if not any(changes_its_input(user) for user in logits.users):
            return logits, op
    return node, None


def trace(module: nn.Module, input_shape: tuple[int, ...]) -> Trace:
    """Runs the module once, in evaluation mode, on a random batch, and writes down what it calls."""

    def again(functional: bool, n_images: int) -> Trace:
        exported = _exported(module, (n_images, *input_shape))
        if functional:
            with paused():
                exported = exported.run_decompositions({})
        found = _read(module, exported, again)
        found.functional = functional
        return found

    return again(False, BATCH_SIZE)


def _exported(module: nn.Module, shape: tuple[int, ...]) -> torch.export.ExportedProgram:
    module.eval()
    tensors = [*module.parameters(), *module.buffers()]
    # torch.nn's fused inference kernels are taken only where nothing requires grad.
    for parameter in module.parameters():
        if parameter.is_floating_point():
            parameter.requires_grad_(True)
    example = torch.rand(*shape, device=tensors[0].device if tensors else "cpu")
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with warnings.catch_warnings(), paused():
            warnings.simplefilter("ignore")
            logging.disable(logging.WARNING)  # what it warns of, its error says
            return torch.export.export(module, (example,), strict=False)
    except Exception as error:  # torch.export lets the module's own exceptions through, of any class
        raise ZipitError(f"torch.export cannot trace the module: {_short(error)}") from error
    finally:
        logging.disable(logging.NOTSET)
        torch.backends.mha.set_fastpath_enabled(fast)


def _read(
    module: nn.Module, exported: torch.export.ExportedProgram, again: Callable[[bool, int], Trace]
) -> Trace:
    placeholders = {node.name: node for node in exported.graph.nodes if node.op == "placeholder"}
    stored: dict[str, str] = {}
    constants: dict[str, torch.Tensor] = {}
    tensors: dict[str, torch.Tensor] = {}
    inputs = []
    for spec in exported.graph_signature.input_specs:
        name = spec.arg.name
        if spec.kind in (InputKind.PARAMETER, InputKind.BUFFER):
            stored[name] = spec.target
            tensors[name] = exported.state_dict.get(spec.target, exported.constants.get(spec.target))
        elif spec.kind == InputKind.CONSTANT_TENSOR:
            constants[name] = tensors[name] = exported.constants[spec.target]
        else:
            inputs.append(placeholders[name])
    if len(inputs) != 1:
        raise ZipitError(f"the module's forward takes {len(inputs)} tensors; it must take one, the images")
    (returned,) = next(node for node in exported.graph.nodes if node.op == "output").args
    if any(not isinstance(node, fx.Node) for node in returned):
        raise ZipitError("the module's forward returns something that is not a tensor")
    outputs = [
        node
        for node, spec in zip(returned, exported.graph_signature.output_specs, strict=True)
        if spec.kind == OutputKind.USER_OUTPUT
    ]
    leaves = module.leaves if isinstance(module, Program) else {
        name
        for name, child in module.named_modules()
        if type(child).__module__.startswith("torch.nn.") and not any(True for _ in child.children())
    }
    return Trace(
        exported.graph,
        stored,
        constants,
        tensors,
        inputs[0],
        module.input_name if isinstance(module, Program) else inputs[0].name,
        outputs,
        _names(exported.call_spec.out_spec),
        _shared(module),
        leaves,
        _becoming_images(exported.graph),
        again,
    )


def _names(returned_as: pytree.TreeSpec) -> list[str] | None:
    """Of what is returned; None, where it is a tensor or in lists and tuples."""
    numbers = pytree.tree_unflatten(list(range(returned_as.num_leaves)), returned_as)
    paths = [path for path, _ in pytree.tree_flatten_with_path(numbers)[0]]
    if all(isinstance(key, pytree.SequenceKey) for path in paths for key in path):
        return None
    keys = [[getattr(key, "key", getattr(key, "name", getattr(key, "idx", ""))) for key in path] for path in paths]
    return [".".join(map(str, own)) for own in keys]


def _shared(module: nn.Module) -> dict[str, str]:
    first: dict[tuple[int, torch.Size], str] = {}
    shared = {}
    named = [*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)]
    for name, tensor in named:
        if tensor.numel() and (other := first.setdefault((tensor.data_ptr(), tensor.shape), name)) != name:
            shared[name], shared[other] = other, name
    return shared


def _becoming_images(graph: fx.Graph) -> set[fx.Node]:
    found: set[fx.Node] = set()
    for node in reversed(graph.nodes):
        if any(user in found or _rank(user) > 2 for user in node.users):
            found.add(node)
    return found


def _rank(node: fx.Node) -> int:
    value: Any = node.meta.get("val")
    return value.ndim if isinstance(value, torch.Tensor) else 0


def _short(error: Exception) -> str:
    """The first line that says something; torch.export's own messages run over pages."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else type(error).__name__
    if "data-dependent" in str(error).lower() or "GuardOnDataDependentSymNode" in type(error).__name__:
        return f"its control flow depends on the numbers in the image ({text})"
    return f"{type(error).__name__}: {text}" if text != type(error).__name__ else text
