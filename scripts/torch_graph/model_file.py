"""Model files: safetensors whose metadata carry graph, tasks and preprocessing (crates/artifact/README.md)."""

from __future__ import annotations

import json
import os
import struct
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from .errors import ZipitError
from .graph import Json, tensor_names

GATE = "gate"
"""What the output that tells the tasks apart is called."""

Tensors = dict[str, torch.Tensor]


@dataclass
class Model:
    """What a model file holds."""

    graph: Json
    tasks: list[Json]
    preprocess: Json
    tensors: Tensors
    environment: dict[str, str] = field(default_factory=dict)
    gate: bool = False
    """Whether the last output tells the tasks apart and is none of theirs."""
    endings: list[str | None] = field(default_factory=list)
    """Of a network that was just exported: what it has behind each output's logits, and the file has not."""

    def ended(self, outputs: list[torch.Tensor]) -> list[torch.Tensor]:
        """What the exported network itself gives, of the file's logits."""
        if not any(self.endings):
            return outputs
        return [x if end is None else getattr(x, end)(1) for x, end in zip(outputs, self.endings, strict=True)]

    @property
    def output_names(self) -> list[str]:
        """What each output is called: its task, or `gate`."""
        return [task["name"] for task in self.tasks] + ([GATE] if self.gate else [])


MASKED = "masked"
"""The kind of a file of masked networks (`combine --rule emr`)."""


def read(path: str | os.PathLike[str], task: str | None = None) -> Model:
    """Any model file: exported, imported or merged; of masked networks the one of this `task`."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dict)
    except FileNotFoundError as error:
        raise ZipitError(f"{path}: no such file") from error
    except (safetensors.SafetensorError, OSError) as error:
        raise ZipitError(f"{path}: not a safetensors file ({error})") from error
    masked = metadata.get("zipit.kind") == MASKED
    if not masked and "zipit.graph" not in metadata:
        raise ZipitError(f"{path}: no model file: its metadata has no `zipit.graph`")

    def parsed(key: str, default: Any = None) -> Any:
        try:
            return json.loads(metadata[key]) if key in metadata else default
        except json.JSONDecodeError as error:
            raise ZipitError(f"{path}: its metadata `{key}` is no JSON ({error})") from error

    if masked:
        chosen = _chosen(path, parsed("zipit.networks", []), task)
        graph, tasks = parsed("zipit.networks")[chosen]["graph"], parsed("zipit.networks")[chosen]["tasks"]
        tensors = _unmasked(path, tensors, tensor_names(graph), chosen)
    elif task is not None:
        raise ZipitError(f"{path}: it is one network, which gives all its outputs: leave the task out")
    else:
        graph, tasks = parsed("zipit.graph"), parsed("zipit.tasks", [])
    joint, preprocess = parsed("zipit.joint", {}), parsed("zipit.preprocess", {})
    missing = sorted(set(tensor_names(graph)) - set(tensors))
    if missing:
        raise ZipitError(f"{path}: the graph needs {missing[0]}, which the file does not have ({len(missing)} missing)")
    model = Model(graph, tasks, preprocess, tensors, parsed("zipit.environment", {}), bool(joint.get("gate")))
    if len(model.output_names) != len(graph["outputs"]):
        raise ZipitError(f"{path}: {len(graph['outputs'])} outputs for {len(model.output_names)} tasks")
    if len(set(model.output_names)) != len(model.output_names):
        raise ZipitError(f"{path}: two outputs have one name: {', '.join(model.output_names)}")
    return model


def _chosen(path: str | os.PathLike[str], networks: list[Json], task: str | None) -> int:
    """The network that has this task."""
    names = [[of["name"] for of in network["tasks"]] for network in networks]
    told = ", ".join(name for own in names for name in own)
    if task is None:
        raise ZipitError(f"{path}: it holds masked networks, one for each task; name a task: {told}")
    for t, own in enumerate(names):
        if task in own:
            return t
    raise ZipitError(f"{path}: there is no task `{task}`; its tasks are: {told}")


def _unmasked(path: str | os.PathLike[str], tensors: Tensors, names: list[str], t: int) -> Tensors:
    """The tensors of network `t`: its own, and base + rescaler · mask · unified vector, in f64 and then f32."""
    found: Tensors = {}
    for name in names:
        if f"{name}/own/{t}" in tensors:
            found[name] = tensors[f"{name}/own/{t}"]
            continue
        parts = [f"{name}/base", f"{name}/unified", f"{name}/mask/{t}", "rescalers"]
        lacking = [part for part in parts if part not in tensors]
        if lacking:
            raise ZipitError(f"{path}: it has no tensor `{lacking[0]}`")
        base, unified, packed, rescalers = (tensors[part] for part in parts)
        if unified.shape != base.shape or packed.numel() != -(-base.numel() // 8) or t >= rescalers.numel():
            raise ZipitError(f"{path}: the base, the unified vector, the mask and the rescalers of `{name}` do not fit")
        # The first of eight entries is the lowest bit.
        bits = (packed.unsqueeze(1) >> torch.arange(8, dtype=torch.uint8)) & 1
        mask = bits.flatten()[: base.numel()].reshape(base.shape).bool()
        moved = base.double() + rescalers[t].double() * unified.double()
        found[name] = torch.where(mask, moved, base.double()).float()
    return found


def write(model: Model, path: str | os.PathLike[str]) -> None:
    """A plain model file, for `import`. The old file or the new one is there, whole."""
    metadata = {
        "format": "pt",
        "zipit.graph": _json(model.graph),
        "zipit.tasks": _json(model.tasks),
        "zipit.preprocess": _json(model.preprocess),
        "zipit.environment": _json(model.environment),
    }
    tensors = {name: model.tensors[name].detach().cpu().contiguous() for name in sorted(tensor_names(model.graph))}
    with replacing(path) as temporary:
        safetensors.torch.save_file(tensors, temporary, metadata=metadata)
        _in_order(temporary)


def _in_order(path: Path) -> None:
    """safetensors writes its metadata in another order in every process: the same network must be the same bytes."""
    with path.open("r+b") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode().ljust(length)
        if len(text) != length:
            raise ZipitError(f"{path}: safetensors escapes its header in a way that is not known here")
        file.seek(8)
        file.write(text)


class replacing:  # noqa: N801 (reads as a verb in `with`)
    """A temporary file beside the target that takes its place if nothing fails."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        self._temporary = Path()

    def __enter__(self) -> Path:
        try:
            handle, name = tempfile.mkstemp(dir=self._path.parent, prefix=f".{self._path.name}.", suffix=".tmp")
        except OSError as error:
            raise ZipitError(f"{self._path}: cannot be written ({error.strerror})") from error
        os.close(handle)
        self._temporary = Path(name)
        return self._temporary

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            umask = os.umask(0)
            os.umask(umask)
            self._temporary.chmod(0o666 & ~umask)
            self._temporary.replace(self._path)
        else:
            self._temporary.unlink(missing_ok=True)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
