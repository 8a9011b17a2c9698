"""Checkpoints as people save them: nested, prefixed, in half precision."""

from __future__ import annotations

import os
import pickle
import traceback
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import nn

from .errors import ZipitError

NESTS = ("state_dict", "model_state_dict", "model", "net", "network", "module")
PREFIXES = ("module.", "_orig_mod.", "model.", "net.")
LISTED = 3

Tensors = dict[str, torch.Tensor]


def read(path: str | os.PathLike[str], key: str | None = None) -> Tensors:
    """The state dict in a .pt, .pth or .safetensors file, in the file's dtypes. No code in the file is executed."""
    try:
        if str(path).endswith(".safetensors"):
            found: Any = safetensors.torch.load_file(path)
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ZipitError(f"{path}: no such file") from error
    except pickle.UnpicklingError as error:
        raise ZipitError(f"{path}: holds more than tensors; save the network's state_dict() alone") from error
    except Exception as error:  # bytes that are no pickle fail in the unpickler, in any way
        reason = traceback.format_exception_only(error)[0].splitlines()[0].partition(". ")[0]
        raise ZipitError(f"{path}: no PyTorch checkpoint, or a damaged one ({reason})") from error
    return _tensors(path, _nested(path, found, key))


def fill(module: nn.Module, tensors: Tensors, path: str | os.PathLike[str]) -> Tensors:
    """Loads the state dict into the network, which computes in f32; gives the tensors by the network's own names."""
    expected = module.state_dict()
    tensors = _unprefixed(tensors, set(expected))
    missing = [n for n in expected if n not in tensors and not n.endswith("num_batches_tracked")]
    unexpected = [n for n in tensors if n not in expected]
    wrong = [
        f"{n} is {list(tensors[n].shape)}, not {list(expected[n].shape)}"
        for n in expected
        if n in tensors and tensors[n].shape != expected[n].shape
    ]
    problems = [
        f"{what} {', '.join(names[:LISTED])}{', …' if len(names) > LISTED else ''}"
        for what, names in (("missing:", missing), ("not in the network:", unexpected), ("of another shape:", wrong))
        if names
    ]
    if problems:
        raise ZipitError(f"{path}: does not fit the network: {'; '.join(problems)}")
    module.load_state_dict({n: t.to(expected[n].dtype) for n, t in tensors.items()}, strict=False)
    return tensors


def _nested(path: str | os.PathLike[str], found: Any, key: str | None) -> Any:
    if key is not None:
        for part in key.split("."):
            if not isinstance(found, dict) or part not in found:
                raise ZipitError(f"{path}: has no `{key}`; it has {', '.join(map(str, found))[:200]}")
            found = found[part]
        return found
    while isinstance(found, dict) and not any(isinstance(v, torch.Tensor) for v in found.values()):
        inside = next((found[nest] for nest in NESTS if isinstance(found.get(nest), dict)), None)
        if inside is None:
            break
        found = inside
    return found


def _tensors(path: str | os.PathLike[str], found: Any) -> Tensors:
    if not isinstance(found, dict):
        raise ZipitError(f"{path}: holds a {type(found).__name__}, not a state dict")
    tensors = {str(n): t for n, t in found.items() if isinstance(t, torch.Tensor)}
    if not tensors:
        raise ZipitError(
            f"{path}: no state dict in it; name its place with --key (it has {', '.join(map(str, found))[:200]})"
        )
    return tensors


def _unprefixed(tensors: Tensors, expected: set[str]) -> Tensors:
    """Without what DataParallel, torch.compile and training frameworks put before every name."""
    while not expected & set(tensors):
        prefix = next((p for p in PREFIXES if all(name.startswith(p) for name in tensors)), None)
        if prefix is None:
            break
        tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors
