"""Checkpoints as people save them: nested, prefixed, in half precision, with other things beside the weights.

The rules are those of `import` (crates/import/src/unwrap.rs), in docs/your-networks.md."""

from __future__ import annotations

import os
import traceback
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import safetensors
import torch
from torch import nn

from . import program, unpickle
from .errors import ZipitError, note

USUAL = ("", "state_dict.", "model_state_dict.", "model.", "module.", "net.", "network.", "state_dict.module.")
"""What people put before the weights' names, the likeliest first."""
COUNTER = "num_batches_tracked"
LISTED = 3

Path = str | os.PathLike[str]
Tensors = dict[str, torch.Tensor]


def read(path: Path) -> Tensors:
    """Every tensor in a .pt, .pth, .pt2 or .safetensors file, by its path through the file's dicts
    (`state_dict.conv.weight`) and in the file's dtypes. No code in the file is executed."""
    try:
        if str(path).endswith(".safetensors"):
            return _safetensors(path)
        found = _saved(path)
    except FileNotFoundError as error:
        raise ZipitError(f"{path}: no such file") from error
    except IsADirectoryError as error:
        raise ZipitError(f"{path}: is a folder, not a checkpoint") from error
    except ZipitError:
        raise
    except Exception as error:  # bytes that are no pickle fail in the unpickler, in any way
        reason = traceback.format_exception_only(error)[0].splitlines()[0].partition(". ")[0]
        raise ZipitError(f"{path}: no PyTorch checkpoint, or a damaged one ({reason})") from error
    tensors = dict(_flattened(found, ()))
    if not tensors:
        what = f"it has {', '.join(map(str, found))[:200]}" if isinstance(found, dict) else f"a {type(found).__name__}"
        raise ZipitError(f"{path}: no state dict in it ({what})")
    return tensors


def _safetensors(path: Path) -> Tensors:
    with safetensors.safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dict)
        # `save_model` writes a tensor that has two names once, and the other name here.
        aliases = {name: kept for name, kept in (file.metadata() or {}).items() if kept in tensors}
    return {name: tensors[kept] for name, kept in aliases.items() if name not in tensors} | tensors


def _saved(path: Path) -> Any:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            members = {name.rpartition("/")[2] for name in archive.namelist()}
        if "constants.pkl" in members:
            raise ZipitError(
                f"{path}: is a TorchScript program; save its weights alone: "
                "torch.save(torch.jit.load(FILE).state_dict(), OTHER)"
            )
        if "archive_format" in members:
            return dict(program.load(path).state_dict)
    return unpickle.read(path)


def _flattened(found: Any, path: tuple[str, ...]) -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(found, torch.Tensor):
        yield ".".join(path), found.detach()
        return
    if isinstance(found, unpickle.Opaque):
        found = found.contents()
    if isinstance(found, (list, tuple)):
        found = dict(enumerate(found))
    if isinstance(found, dict):
        for name, value in found.items():
            yield from _flattened(value, (*path, str(name)))


def fill(module: nn.Module, tensors: Tensors, path: Path, key: str | None = None) -> Tensors:
    """Loads the network's tensors into it, which computes in f32; gives them by the network's own names."""
    expected = module.state_dict()
    prefix = find_prefix(path, list(tensors), {name for name in expected if not name.endswith(COUNTER)}, key)
    if prefix:
        note(f"took the tensors under `{prefix.rstrip('.')}`")
    inside = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    found = {name: tensor for name, tensor in inside.items() if name in expected}
    left = [name for name in tensors if name.removeprefix(prefix) not in found or not name.startswith(prefix)]
    left = [name for name in left if not name.endswith(COUNTER)]
    if left:
        note(f"left {len(left)} other tensor{'s' * (len(left) > 1)} in the checkpoint alone ({_some(left)})")
    missing = [name for name in expected if name not in found and not name.endswith(COUNTER)]
    wrong = [
        f"{name} is {list(tensor.shape)}, not {list(expected[name].shape)}"
        for name, tensor in found.items()
        if tensor.shape != expected[name].shape and not name.endswith(COUNTER)
    ]
    problems = [
        f"{what} {_some(names)}"
        for what, names in (
            ("missing:", missing),
            ("not in the network:", [name for name in inside if name not in expected] if missing else []),
            ("of another shape:", wrong),
        )
        if names
    ]
    if problems:
        raise ZipitError(f"{path}: does not fit the network: {'; '.join(problems)}")
    for name, tensor in found.items():
        if "float8" in str(tensor.dtype):
            raise ZipitError(
                f"{path}: {name} is {str(tensor.dtype).removeprefix('torch.')}, whose scale is not in it; save the "
                "weights in float16, bfloat16 or float32"
            )
    found = {name: tensor.reshape(expected[name].shape) for name, tensor in found.items()}
    module.load_state_dict({name: t.to(expected[name].dtype) for name, t in found.items()}, strict=False)
    return found


def find_prefix(path: Path, names: Iterable[str], expected: set[str], key: str | None = None) -> str:
    """The prefix under which most of `expected` is found in `names`; `key` decides if given."""
    hits: Counter[str] = Counter()
    for name in names:
        # Every way to split `a.b.weight` into a prefix and a state-dict name.
        for at in (0, *(i + 1 for i, letter in enumerate(name) if letter == ".")):
            if name[at:] in expected:
                hits[name[:at]] += 1
    if key is not None:
        prefix = f"{key.rstrip('.')}."
        if prefix not in hits:
            raise ZipitError(f"{path}: no tensor of this network is under `{key}`; found some under: {_places(hits)}")
        return prefix
    if not hits:
        raise ZipitError(
            f"{path}: none of the network's tensors is in this file, whose {len(list(names))} tensors begin with "
            f"{_some(sorted(names))}: is it a checkpoint of this network?"
        )

    def rank(prefix: str) -> tuple[int, int, int, str]:
        usual = USUAL.index(prefix) if prefix in USUAL else len(USUAL)
        return -hits[prefix], usual, len(prefix), prefix

    best = min(hits, key=rank)
    equals = sorted(prefix.rstrip(".") for prefix in hits if rank(prefix)[:-1] == rank(best)[:-1])
    if len(equals) > 1:
        raise ZipitError(
            f"{path}: the file holds the network more than once, and nothing tells which is meant: "
            f"--key {equals[0]} or --key {equals[1]}"
        )
    others = Counter({prefix: n for prefix, n in hits.items() if prefix != best and n == hits[best]})
    if others:
        note(f"the file holds the network more than once; took `{best}`, not {_places(others)} (see --key)")
    return best


def _places(hits: Counter[str]) -> str:
    """The prefixes that hold a good part of a network; a block's `conv1` alone is none."""
    most = max(hits.values(), default=0)
    named = [f"`{prefix}`" if prefix else "the top level" for prefix in sorted(hits) if 2 * hits[prefix] >= most]
    return ", ".join(named) or "nowhere"


def _some(names: list[str]) -> str:
    return f"{', '.join(names[:LISTED])}{', …' if len(names) > LISTED else ''}"
