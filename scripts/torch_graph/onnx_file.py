"""ONNX: a model file for whatever runs ONNX."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import warnings
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from .collector import paused
from .errors import ZipitError
from .compare import Reference, check_images, difference
from .graph import op_params, param_names
from .model_file import Model, replacing
from .network import build

CHECKED_BATCHES = (1, 3)
MAX_BYTES = 2**31 - 1
"""A protobuf cannot be larger."""


class _Outputs(nn.Module):
    """Outputs as a tuple: ONNX names them itself."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(self.network(images).values())


def write(model: Model, path: str | os.PathLike[str]) -> float:
    """One file: input `images` [B, C, H, W] of any B, one output per task, weights under their state-dict names.
    Where a task is called `images`, the input is `images_1`.

    Gives max |Δ| from PyTorch; nothing is written if it is too large."""
    size = sum(model.tensors[name].numel() for name in model.tensors) * 4
    if size > MAX_BYTES:
        raise ZipitError(f"{path}: {size / 2**30:.1f} GiB of weights do not fit one ONNX file (2 GiB)")
    network = build(model)
    plain, names = _plainly_named(model)
    with replacing(path) as temporary:
        _export(_Outputs(build(plain)), model, temporary)
        images = _rename(temporary, names, model.output_names)
        return max(_check(temporary, images, model, network, n) for n in CHECKED_BATCHES)


def _plainly_named(model: Model) -> tuple[Model, dict[str, str]]:
    """The model with parts called n0, n1, …: torch.onnx writes code from their names. And the tensors' own names."""
    nodes, names = [], {}
    for i, node in enumerate(model.graph["nodes"]):
        own = param_names(node, op_params(node["op"]))
        names |= {f"n{i}.{param}": name for param, name in own.items()}
        nodes.append({key: node[key] for key in ("name", "op", "inputs")} | ({"module": f"n{i}"} if own else {}))
    tensors = {plain: model.tensors[name] for plain, name in names.items()}
    return replace(model, graph=model.graph | {"nodes": nodes}, tensors=tensors), names


def _export(module: nn.Module, model: Model, path: Path) -> None:
    images = check_images(model, 2)
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), paused():
            warnings.simplefilter("ignore")
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            torch.onnx.export(
                module.eval().requires_grad_(False),  # a graph of gradients is traced otherwise, and thrown away
                (images,),
                path,
                dynamo=True,
                external_data=False,
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                verbose=False,
            )
    except ImportError as error:
        raise ZipitError(f"ONNX needs more packages: pip install onnx onnxscript onnxruntime ({error})") from error
    except Exception as error:  # the exporter's own, of any class
        first: BaseException = error  # the others say that there was one, and what to ask PyTorch's authors
        while first.__cause__:
            first = first.__cause__
        raise ZipitError(f"torch.onnx cannot export this network: {str(first).splitlines()[0]}") from error
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _rename(path: Path, names: dict[str, str], outputs: list[str]) -> str:
    """Gives every value its final name, the tasks first, then the input, weights and what lies between; the input's."""
    import onnx

    model = onnx.load(path)
    graph = model.graph
    wanted = dict(zip((output.name for output in graph.output), outputs, strict=True))
    wanted[graph.input[0].name] = "images"
    for tensor in graph.initializer:
        wanted[tensor.name] = names.get(tensor.name.removeprefix("network."), tensor.name)
    for node in graph.node:
        wanted |= {name: name for name in node.output if name and name not in wanted}
    taken: set[str] = set()
    final = {"": ""}
    for name, wish in wanted.items():
        candidates = (wish if i == 0 else f"{wish}_{i}" for i in range(len(wanted) + 1))
        final[name] = next(candidate for candidate in candidates if candidate not in taken)
        taken.add(final[name])
    for value in (*graph.input, *graph.output, *graph.initializer, *graph.value_info):
        value.name = final.get(value.name, value.name)
    for node in graph.node:
        node.input[:] = [final[name] for name in node.input]
        node.output[:] = [final[name] for name in node.output]
    onnx.save(model, path)
    return graph.input[0].name


def _check(path: Path, images_name: str, model: Model, network: nn.Module, n: int) -> float:
    try:
        import onnxruntime
    except ImportError as error:
        raise ZipitError("the check needs ONNX Runtime: pip install onnxruntime") from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    images = check_images(model, n)
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        found = session.run(model.output_names, {images_name: images.numpy()})
    except Exception as error:  # ONNX Runtime's own, of any class
        raise ZipitError(f"ONNX Runtime cannot run what torch.onnx wrote: {str(error).splitlines()[0]}") from error
    return difference([torch.from_numpy(array) for array in found], Reference(network, images), "the ONNX file")
