"""Where a network comes from: `torchvision.models:resnet50`, `timm:NAME`, `timm:hf-hub:OWNER/NAME`,
`timm:local-dir:PATH`, `my.module:build`, `my_file.py:build`, `program.pt2`."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from . import program
from .errors import ZipitError

Factory = Callable[..., Any]
TIMM = "timm:"
HUB = ("hf-hub:", "hf_hub:")
FOLDER = "local-dir:"
PROGRAM = ".pt2"


def is_hub(name: str) -> bool:
    """Whether timm fetches the network from Hugging Face."""
    return name.startswith(TIMM) and name.removeprefix(TIMM).startswith(HUB)


def folder(name: str) -> Path | None:
    """The folder of a `timm:local-dir:PATH`."""
    local = f"{TIMM}{FOLDER}"
    return Path(name.removeprefix(local)) if name.startswith(local) else None


def resolve(name: str) -> Factory:
    """The function (or class) that makes the network."""
    if name.startswith(TIMM):
        return _timm(name.removeprefix(TIMM))
    if name.endswith(PROGRAM):
        return lambda: program.module(name)
    where, _, what = name.rpartition(":")
    if not where or not what:
        raise ZipitError(f"`{name}` names no factory; write module:function, file.py:function, timm:model or FILE.pt2")
    module = _file(Path(where)) if where.endswith(".py") else _module(where)
    found = getattr(module, what, None)
    if not callable(found):
        raise ZipitError(f"`{where}` has no function `{what}`")
    return found


def make(factory: Factory, arguments: dict[str, Any]) -> nn.Module:
    """The network; what a factory itself complains about is the user's to read."""
    try:
        module = factory(**arguments)
    except ZipitError:
        raise
    except Exception as error:  # the factory is somebody else's code
        given = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
        text = str(error).splitlines() or [""]
        raise ZipitError(f"the factory, called with ({given}), failed: {type(error).__name__}: {text[0]}") from error
    if not isinstance(module, nn.Module):
        raise ZipitError(f"the factory made a {type(module).__name__}, not a torch.nn.Module")
    return module


def takes_num_classes(name: str, factory: Factory) -> bool:
    """Whether the number of classes can be passed on as `num_classes`."""
    if name.startswith(("timm:", "torchvision.models:")):
        return True
    try:
        return "num_classes" in inspect.signature(factory).parameters
    except (TypeError, ValueError):
        return False


def _timm(model: str) -> Factory:
    try:
        timm = importlib.import_module("timm")
    except ImportError as error:
        raise ZipitError("timm is not installed: pip install timm") from error
    return lambda **arguments: timm.create_model(model, **arguments)


def _module(name: str) -> ModuleType:
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ZipitError(f"`{name}` cannot be imported: {error}") from error


def _file(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise ZipitError(f"{path}: no such file")
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # the file is somebody else's code
        raise ZipitError(f"{path}: cannot be imported: {type(error).__name__}: {error}") from error
    return module
