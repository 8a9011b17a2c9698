"""Our graph while it is being written: nodes, their names, their parameters."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .errors import LoweringError

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Site:
    """Where in the module tree something is computed."""

    path: str
    """The innermost module, `layer1.0`."""
    leaf: bool
    """Whether that module is one of torch.nn's own, without modules inside: it is one step, with the module's name."""
    op: str
    """The function, `add`."""

    @property
    def name(self) -> str:
        """torchvision's feature-extraction name."""
        return self.path if self.leaf and self.path else self.part(self.op)

    def part(self, kind: str) -> str:
        """Name of a step that serves this one."""
        return f"{self.path}.{kind}" if self.path else kind


@dataclass
class GraphBuilder:
    """Collects nodes in topological order; every value is named after the node that makes it."""

    input_name: str
    input_shape: tuple[int, ...]
    nodes: list[Json] = field(default_factory=list)
    repeated: dict[str, int] = field(default_factory=dict)
    """State-dict name of one number that stands for all features → how many they are."""
    _owners: dict[str, str] = field(default_factory=dict)

    def emit(self, name: str, op: Json, inputs: list[str], params: dict[str, str] | None = None) -> str:
        """Adds a node and gives its name: `name`, or `name_1`, `name_2` where it is taken.

        `params` are the state-dict names of the op's parameters."""
        name = self._unique(name)
        node: Json = {"name": name, "op": op, "inputs": inputs}
        if params:
            for tensor in params.values():
                if tensor in self._owners:
                    raise LoweringError(
                        name,
                        op["op"],
                        f"shares `{tensor}` with {self._owners[tensor]}; shared weights cannot be merged",
                    )
                self._owners[tensor] = name
            node["module"] = _common_module(list(params.values()))
            leaves = {p: tensor.removeprefix(f"{node['module']}.") for p, tensor in params.items()}
            renamed = {p: leaf for p, leaf in leaves.items() if p != leaf}
            if renamed:
                node["params"] = renamed
        self.nodes.append(node)
        return name

    def owner(self, tensor: str) -> str | None:
        """The node that has this parameter, if one has."""
        return self._owners.get(tensor)

    def node(self, name: str) -> Json | None:
        """The node that makes value `name`, if one does."""
        return next((node for node in self.nodes if node["name"] == name), None)

    def finish(self, arch: str, outputs: list[str]) -> Json:
        """The graph, without nodes that no output needs."""
        needed = set(outputs)
        kept = []
        for node in reversed(self.nodes):
            if node["name"] in needed:
                needed.update(node["inputs"])
                kept.append(node)
        return {
            "arch": arch,
            "input": {"name": self.input_name, "shape": list(self.input_shape)},
            "nodes": kept[::-1],
            "outputs": outputs,
        }

    def _unique(self, name: str) -> str:
        taken = {node["name"] for node in self.nodes} | {self.input_name}
        names = (name if i == 0 else f"{name}_{i}" for i in range(len(taken) + 1))
        return next(candidate for candidate in names if candidate not in taken)


def param_names(node: Json, params: list[str]) -> dict[str, str]:
    """State-dict name of each of an op's parameters."""
    if "module" not in node:
        return {}
    prefix = f"{node['module']}." if node["module"] else ""
    renamed = node.get("params", {})
    return {p: prefix + renamed.get(p, p) for p in params}


def op_params(op: Json) -> list[str]:
    """Parameters and buffers of an op, in PyTorch's order."""
    match op["op"]:
        case "conv2d" | "linear" | "layer_norm":
            return ["weight", "bias"] if op["bias"] else ["weight"]
        case "batch_norm2d":
            return ["weight", "bias", "running_mean", "running_var"]
        case "group_norm":
            return ["weight", "bias"]
        case "prepend_tokens" | "position_embedding" | "layer_scale" | "stored":
            return ["weight"]
        case "power_mean_norm":
            return ["weight"] if op["power"] == 2 else []
        case "attention":
            return ["bias"] if "bias" in op else []
        case _:
            return []


def tensor_names(graph: Json) -> list[str]:
    """State-dict names of all the tensors a graph needs."""
    return [name for node in graph["nodes"] for name in param_names(node, op_params(node["op"])).values()]


def _common_module(tensors: list[str]) -> str:
    """The innermost module that all of these tensors are in."""
    common = []
    for parts in zip(*(tensor.split(".")[:-1] for tensor in tensors), strict=False):
        if len(set(parts)) > 1:
            break
        common.append(parts[0])
    return ".".join(common)
