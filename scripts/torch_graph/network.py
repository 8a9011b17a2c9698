"""Our graph → a PyTorch module that computes it, with PyTorch's own layers under their state-dict names."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx, nn
from torchvision import transforms

from . import network_ops
from .errors import ZipitError
from .graph import Json, op_params, param_names
from .model_file import Model
from .preprocess import transform


class Network(fx.GraphModule):
    """A model file as a module: trainable, and its state dict has the file's tensor names. Forward takes images
    [B, C, H, W] and gives {task: logits}; a gate's are under `gate`."""

    @property
    def tasks(self) -> list[Json]:
        """Name and classes of each task."""
        return self.meta["zipit_tasks"]

    @property
    def preprocess(self) -> Json:
        """What the network expects of an image."""
        return self.meta["zipit_preprocess"]

    def transform(self) -> transforms.Compose:
        """The preprocessing as a torchvision transform of a PIL image."""
        return transform(self.preprocess)


def build(model: Model) -> Network:
    """The module, in f32 and evaluation mode."""
    root = nn.Module()
    nodes = sorted(model.graph["nodes"], key=lambda node: node.get("module", "").count("."))
    for node in nodes:
        _register(root, node, model.tensors)
    graph = fx.Graph()
    values = {model.graph["input"]["name"]: graph.placeholder(_identifier(model.graph["input"]["name"]))}
    shapes = {model.graph["input"]["name"]: len(model.graph["input"]["shape"])}
    for node in model.graph["nodes"]:
        inputs = [values[name] for name in node["inputs"]]
        ranks = [shapes[name] for name in node["inputs"]]
        writer = network_ops.Writer(graph, root, node, inputs, ranks)
        values[node["name"]], shapes[node["name"]] = writer.write()
        values[node["name"]].meta["zipit_name"] = node["name"]
    graph.output(dict(zip(model.output_names, (values[name] for name in model.graph["outputs"]), strict=True)))
    network = Network(root, graph, class_name="Network")
    network.meta.update(zipit_tasks=model.tasks, zipit_preprocess=model.preprocess)
    return network.eval()


def _register(root: nn.Module, node: Json, tensors: dict[str, torch.Tensor]) -> None:
    """A real layer where the parameters have its names, bare parameters elsewhere."""
    names = param_names(node, op_params(node["op"]))
    layer = None if "params" in node or not node.get("module") else network_ops.layer(node["op"])
    if layer is None:
        for param, name in names.items():
            _set(root, name, _parameter(param, tensors[name]))
        return
    state = {param: tensors[name].float().clone() for param, name in names.items()}
    if isinstance(layer, nn.BatchNorm2d):
        state["num_batches_tracked"] = torch.tensor(0)
    try:
        layer.load_state_dict(state, assign=True)
    except RuntimeError as error:
        raise ZipitError(f"{node['name']}: {node['op']['op']}: {str(error).splitlines()[-1].strip()}") from error
    _set(root, node["module"], layer)


def _parameter(param: str, tensor: torch.Tensor) -> torch.Tensor:
    tensor = tensor.float().clone()
    return tensor if param.startswith("running_") else nn.Parameter(tensor)


def _set(root: nn.Module, name: str, what: Any) -> None:
    *path, leaf = name.split(".")
    owner = root
    for part in path:
        if not hasattr(owner, part):
            owner.add_module(part, nn.Module())
        owner = getattr(owner, part)
    if isinstance(what, nn.Module):
        owner.add_module(leaf, what)
    elif isinstance(what, nn.Parameter):
        owner.register_parameter(leaf, what)
    else:
        owner.register_buffer(leaf, what)


def _identifier(name: str) -> str:
    return name if name.isidentifier() else "x"
