"""ONNX: a model file for whatever runs ONNX."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import warnings
from pathlib import Path

import torch
from torch import nn

from .errors import ZipitError
from .exporter import difference, logits, random_images
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
    """One file: input `images` [B, C, H, W] of any B, one output per task.

    Gives max |Δ| from PyTorch; nothing is written if it is too large."""
    size = sum(model.tensors[name].numel() for name in model.tensors) * 4
    if size > MAX_BYTES:
        raise ZipitError(f"{path}: {size / 2**30:.1f} GiB of weights do not fit one ONNX file (2 GiB)")
    network = build(model)
    with replacing(path) as temporary:
        _export(_Outputs(network), model, temporary)
        return max(_check(temporary, model, network, n) for n in CHECKED_BATCHES)


def _export(module: nn.Module, model: Model, path: Path) -> None:
    images = random_images(model, 2)
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            torch.onnx.export(
                module.eval(),
                (images,),
                path,
                dynamo=True,
                external_data=False,
                input_names=["images"],
                output_names=model.output_names,
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                verbose=False,
            )
    except ImportError as error:
        raise ZipitError(f"ONNX needs more packages: pip install onnx onnxscript onnxruntime ({error})") from error
    except Exception as error:  # the exporter's own, of any class
        raise ZipitError(f"torch.onnx cannot export this network: {str(error).splitlines()[0]}") from error
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _check(path: Path, model: Model, network: nn.Module, n: int) -> float:
    try:
        import onnxruntime
    except ImportError as error:
        raise ZipitError("the check needs ONNX Runtime: pip install onnxruntime") from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    images = random_images(model, n)
    found = session.run(model.output_names, {"images": images.numpy()})
    return difference([torch.from_numpy(array) for array in found], logits(network, images), "the ONNX file")
