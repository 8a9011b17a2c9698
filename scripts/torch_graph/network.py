"""Our graph → a PyTorch module that computes it, with PyTorch's own layers under their state-dict names."""

from __future__ import annotations

import torch
from torch import nn
from torchvision import transforms

from . import network_ops
from .errors import ZipitError
from .graph import Json, op_params, param_names
from .model_file import Model
from .preprocess import transform


class Network(nn.Module):
    """A model file as a module: trainable, and its state dict has the file's tensor names. Forward takes images
    [B, C, H, W] and gives {task: output}, logits [B, classes] or whatever it is; a gate's are under `gate`.

    The file's parts are entered where PyTorch keeps parts, whatever they are called: no code is written from their
    names, and what this class defines (`tasks`, `transform`, …) is never looked for among them."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        ranks = _ranks(model.graph)
        self.__dict__["_zipit"] = {
            "graph": model.graph,
            "ranks": ranks,
            "outputs": dict(zip(model.output_names, model.graph["outputs"], strict=True)),
            "released": _released(model.graph),
            "tasks": model.tasks,
            "preprocess": model.preprocess,
        }
        for node in model.graph["nodes"]:
            network_ops.check(node)
        nodes = sorted(model.graph["nodes"], key=lambda node: node.get("module", "").count("."))
        for node in sorted(nodes, key=lambda node: not _is_layer(node)):
            _register(self, node, _rank(ranks, node), model.tensors)

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Every output, [B, …]."""
        graph = self._zipit["graph"]
        values = {graph["input"]["name"]: images}
        for node, released in zip(graph["nodes"], self._zipit["released"], strict=True):
            inputs = [values[name] for name in node["inputs"]]
            if _is_layer(node):
                layer, parameters = _part(self, node["module"]), {}
            else:
                names = param_names(node, op_params(node["op"]))
                layer, parameters = None, {param: _tensor(self, name) for param, name in names.items()}
            rank = _rank(self._zipit["ranks"], node)
            values[node["name"]] = network_ops.apply(node["op"], inputs, rank, layer, parameters, images)
            for name in released:
                del values[name]
        return {task: values[name] for task, name in self._zipit["outputs"].items()}

    @property
    def tasks(self) -> list[Json]:
        """Name and classes of each task."""
        return self._zipit["tasks"]

    @property
    def preprocess(self) -> Json:
        """What the network expects of an image."""
        return self._zipit["preprocess"]

    def transform(self) -> transforms.Compose:
        """The preprocessing as a torchvision transform of a PIL image."""
        return transform(self.preprocess)


def build(model: Model) -> Network:
    """The module, in f32 and evaluation mode."""
    return Network(model).eval()


def _ranks(graph: Json) -> dict[str, int]:
    """Number of axes of every value, the batch left out."""
    ranks = {graph["input"]["name"]: len(graph["input"]["shape"])}
    for node in graph["nodes"]:
        ranks[node["name"]] = network_ops.rank(node["op"], _rank(ranks, node))
    return ranks


def _rank(ranks: dict[str, int], node: Json) -> int:
    """Of what a node reads first; of the images, if it reads nothing."""
    return ranks[node["inputs"][0]] if node["inputs"] else 0


def _released(graph: Json) -> list[list[str]]:
    """After each node, the values that nobody reads any more."""
    seen = set(graph["outputs"])
    released = []
    for node in reversed(graph["nodes"]):
        last = sorted({node["name"], *node["inputs"]} - seen)
        seen.update(last)
        released.append(last)
    return released[::-1]


def _is_layer(node: Json) -> bool:
    """Whether one of PyTorch's layers holds the node's parameters, under its own names for them."""
    return "params" not in node and bool(node.get("module")) and node["op"]["op"] in network_ops.LAYERS


def _register(root: nn.Module, node: Json, rank: int, tensors: dict[str, torch.Tensor]) -> None:
    """A real layer where the parameters have its names, bare parameters elsewhere."""
    names = param_names(node, op_params(node["op"]))
    if not _is_layer(node):
        for param, name in names.items():
            tensor = tensors[name].float().clone()
            owner, leaf = _owner(root, name)
            if param.startswith("running_"):
                owner._buffers[leaf] = tensor
            else:
                owner._parameters[leaf] = nn.Parameter(tensor)
        return
    layer = network_ops.layer(node["op"], rank)
    state = {param: tensors[name].float().clone() for param, name in names.items()}
    if isinstance(layer, nn.modules.batchnorm._BatchNorm):
        state["num_batches_tracked"] = torch.tensor(0)
    try:
        layer.load_state_dict(state, assign=True)
    except RuntimeError as error:
        raise ZipitError(f"{node['name']}: {node['op']['op']}: {str(error).splitlines()[-1].strip()}") from error
    owner, leaf = _owner(root, node["module"])
    owner._modules[leaf] = layer


def _owner(root: nn.Module, name: str) -> tuple[nn.Module, str]:
    """The module in which `name` is, made if need be, and its name there."""
    *path, leaf = name.split(".")
    for part in path:
        root = root._modules.setdefault(part, nn.Module())
    return root, leaf


def _part(root: nn.Module, path: str) -> nn.Module:
    for part in path.split("."):
        root = root._modules[part]
    return root


def _tensor(root: nn.Module, name: str) -> torch.Tensor:
    path, _, leaf = name.rpartition(".")
    owner = _part(root, path) if path else root
    return owner._parameters[leaf] if leaf in owner._parameters else owner._buffers[leaf]
