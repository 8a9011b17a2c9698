"""What `torch.save` wrote, without running anything that the file names.

A pickle is a program that calls what it imports. Here it gets only what puts tensors together; every other class or
function (training arguments, NumPy's scalars, a whole module) becomes an inert `Opaque`, which keeps what it was given,
so that tensors inside are found."""

from __future__ import annotations

import pickle
import warnings
from collections import OrderedDict
from types import SimpleNamespace
from typing import Any

import torch

MODULE_TABLES = ("_parameters", "_buffers", "_modules")


class Opaque:
    """An object of a class that is not looked up."""

    dump_patches = False  # torch.load asks old containers

    def __new__(cls, *_: Any, **__: Any) -> Opaque:
        made = object.__new__(cls)
        made.items, made.state = {}, None
        return made

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __call__(self, *_: Any, **__: Any) -> Opaque:
        return Opaque()

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        self.items[key] = value

    def append(self, value: Any) -> None:
        """As a list would; what is in it has no name."""
        self.items[len(self.items)] = value

    def extend(self, values: Any) -> None:
        """As a list would."""
        for value in values:
            self.append(value)

    add = append

    def contents(self) -> dict[Any, Any]:
        """What has a name in it; of a module, what its state dict has."""
        state = self.state
        if not (isinstance(state, dict) and all(isinstance(state.get(table), dict) for table in MODULE_TABLES)):
            return self.items
        transient = state.get("_non_persistent_buffers_set") or ()
        buffers = {name: tensor for name, tensor in state["_buffers"].items() if name not in transient}
        return state["_parameters"] | buffers | state["_modules"]


def _parameter(data: Any, *_: Any) -> Any:
    return data


def _of_type(function: Any, _: Any, arguments: Any, __: Any) -> Any:
    return function(*arguments)


KNOWN: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("builtins", "set"): set,
    ("__builtin__", "set"): set,
    ("torch", "UntypedStorage"): torch.UntypedStorage,
    ("torch.storage", "UntypedStorage"): torch.UntypedStorage,
    ("torch._utils", "_rebuild_tensor"): torch._utils._rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
    ("torch._utils", "_rebuild_tensor_v3"): torch._utils._rebuild_tensor_v3,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _parameter,
    ("torch._tensor", "_rebuild_from_type_v2"): _of_type,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and isinstance(found := getattr(torch, name, None), torch.dtype):
            return found
        return KNOWN.get((module, name)) or type(name.rpartition(".")[2], (Opaque,), {})


def _load(file: Any, **arguments: Any) -> Any:
    return _Unpickler(file, **arguments).load()


PICKLE = SimpleNamespace(__name__="unpickle", Unpickler=_Unpickler, load=_load)
"""In the place of Python's `pickle`."""


def read(path: Any) -> Any:
    """The saved object; raises whatever a damaged file makes PyTorch's reader raise."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # What Python 2 wrote may hold any bytes; names are ASCII.
        return torch.load(path, map_location="cpu", weights_only=False, pickle_module=PICKLE, encoding="latin1")
