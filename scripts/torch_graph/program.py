"""Programs of torch.export (`.pt2`): weights, and the traced network itself."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import fx, nn
from torch.export.graph_signature import InputKind
from torch.utils import _pytree as pytree

from .errors import ZipitError


def is_program(path: Any) -> bool:
    """Whether it is an archive of torch.export's."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("archive_format") for name in archive.namelist())


def load(path: Any) -> torch.export.ExportedProgram:
    """The program. PyTorch unpickles what an archive marks as pickled: such a one is refused."""
    if not Path(path).exists():
        raise ZipitError(f"{path}: no such file")
    if not is_program(path):
        raise ZipitError(f"{path}: not a program that torch.export.save wrote")
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if name.endswith("_config.json"):
                _refuse_pickled(path, json.loads(archive.read(name)))
    try:
        return torch.export.load(path)
    except Exception as error:  # the reader's own, of any class
        raise ZipitError(f"{path}: torch.export cannot read it: {str(error).splitlines()[0]}") from error


def _refuse_pickled(path: Any, config: Any) -> None:
    parts = config.get("config", {}) if isinstance(config, dict) else {}
    pickled = [name for name, part in parts.items() if isinstance(part, dict) and part.get("use_pickle")]
    if pickled:
        raise ZipitError(f"{path}: `{pickled[0]}` is pickled, which may run code; save the network's state_dict()")


class Program(nn.Module):
    """A program as a module with its state-dict names, whose forward is the program's calls."""

    def __init__(self, program: torch.export.ExportedProgram) -> None:
        super().__init__()
        tensors = program.state_dict | program.constants
        named = {InputKind.PARAMETER, InputKind.BUFFER}
        specs = program.graph_signature.input_specs
        self.__dict__["_program"] = program.graph_module
        self.__dict__["_given"] = [
            (s.kind in named, s.target) if s.kind != InputKind.USER_INPUT else None for s in specs
        ]
        constants = [s.target for s in specs if s.kind == InputKind.CONSTANT_TENSOR]
        self.__dict__["_constants"] = {name: tensors[name] for name in constants}
        self.__dict__["_mutated"] = len(program.graph_signature.buffers_to_mutate)
        self.__dict__["_out"] = program.call_spec.out_spec
        for spec in specs:
            if spec.kind in named:
                owner, leaf = self, spec.target
                while "." in leaf:
                    part, _, leaf = leaf.partition(".")
                    owner = owner._modules.setdefault(part, nn.Module())
                kind = owner._parameters if spec.kind == InputKind.PARAMETER else owner._buffers
                kind[leaf] = tensors[spec.target]
        self.__dict__["input_name"] = next(s.arg.name for s in specs if s.kind == InputKind.USER_INPUT)
        self.__dict__["leaves"] = self._leaves()

    def _leaves(self) -> set[str]:
        """Paths of PyTorch's own layers, from what the trace wrote beside each call."""
        stacks = [node.meta.get("nn_module_stack") or {} for node in self._program.graph.nodes]
        types = {path: kind for stack in stacks for path, kind in stack.values()}
        modules = {*types, *(name.rpartition(".")[0] for name in self.state_dict())}
        own = {path for path, kind in types.items() if str(getattr(kind, "__module__", kind)).startswith("torch.nn.")}
        return {path for path in own if not any(other.startswith(f"{path}.") for other in modules)}

    def forward(self, images: torch.Tensor) -> Any:
        """What the program gives."""
        state = {**dict(self.named_parameters()), **dict(self.named_buffers())}
        given = [images if of is None else (state if of[0] else self._constants)[of[1]] for of in self._given]
        with fx.traceback.preserve_node_meta():  # which module each call is in, for who traces this
            made = fx.Interpreter(self._program).run(*given, enable_io_processing=False)
        return pytree.tree_unflatten(made[self._mutated :], self._out)


def module(path: Any) -> Program:
    """The network in a program, for images in batches of any size."""
    program = load(path)
    inputs = [s.arg.name for s in program.graph_signature.input_specs if s.kind == InputKind.USER_INPUT]
    shape = next(node.meta["val"].shape for node in program.graph.nodes if node.name == inputs[0])
    if isinstance(shape[0], int):
        raise ZipitError(
            f"{path}: was exported for batches of {shape[0]} alone; export it with a dynamic first dimension: "
            "dynamic_shapes=({0: torch.export.Dim.AUTO},)"
        )
    return Program(program)
