#!/usr/bin/env python3
"""The model zoo: which networks it is, what the survey asks of each in PyTorch, and its table.

    zoo.py names > scripts/zoo_names.json     chooses the networks (minutes: every network of timm's is made without weights)
    zoo.py list                               NAME whole|single, one a line
    zoo.py export NAME FOLDER [--two]         one.safetensors (and two.safetensors), compared with PyTorch
    zoo.py check FILE                         load and ONNX compared with the file's own logits
    zoo.py table FOLDER                       the rows of the survey as Markdown

`make zoo` runs the survey (tests/zoo) and writes docs/zoo.md. Weights are random, with all that starts as a constant moved
away from it. Every network is at its own image size, with ten classes.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import io
import json
import random
import sys
import warnings
from pathlib import Path

import timm
import torch
import torchvision
from architectures import MEAN, STD, check, randomise
from timm.models import model_entrypoint
from torch import nn
from torch_graph import compare, model_file, pipeline
from torch_graph.errors import ZipitError

import zipit_torch

NAMES = Path(__file__).with_name("zoo_names.json")
TORCHVISION = "torchvision:"
N_CLASSES = 10
SAMPLE = 140
LARGEST = 200_000_000
"""Parameters of the largest network in the sample."""


def names() -> dict[str, object]:
    """The smallest network of every timm module (its test networks left out), torchvision's builders, a random sample."""
    sizes: dict[str, int] = {}
    refused: dict[str, str] = {}
    modules: dict[str, str] = {}
    for name in sorted(timm.list_models()):
        try:
            with torch.device("meta"):
                module = timm.create_model(name, num_classes=N_CLASSES)
        except (RuntimeError, NotImplementedError, ValueError, AssertionError) as error:
            refused[name] = str(error).splitlines()[0]
            continue
        sizes[name] = sum(parameter.numel() for parameter in module.parameters())
        family = model_entrypoint(name).__module__.rpartition(".")[2]
        best = modules.get(family)
        if not name.startswith("test_") and (best is None or sizes[name] < sizes[best]):
            modules[family] = name
    small = [name for name, size in sizes.items() if size <= LARGEST]
    return {
        "timm": timm.__version__,
        "torchvision": torchvision.__version__.partition("+")[0],
        "modules": modules,
        "builders": torchvision.models.list_models(module=torchvision.models),
        "sample": sorted(random.Random(0).sample(small, SAMPLE)),
        "sampled from": len(small),
        "of": len(timm.list_models()),
        "not made without weights": refused,
    }


def listed() -> dict[str, bool]:
    """Every network once, and whether it is merged with another one, loaded and written as ONNX."""
    known = json.loads(NAMES.read_text())
    whole = dict.fromkeys(known["modules"].values(), True)
    builders = {TORCHVISION + name: name in smallest_builders(known["builders"]) for name in known["builders"]}
    return whole | builders | {name: False for name in known["sample"] if name not in whole}


def smallest_builders(builders: list[str]) -> set[str]:
    """One builder of each of torchvision's families: the one with the fewest parameters."""
    best: dict[str, tuple[int, str]] = {}
    for name in builders:
        weights = torchvision.models.get_model_weights(name)
        size = next(iter(weights)).meta["num_params"]
        family = torchvision.models.get_model_builder(name).__module__
        best[family] = min(best.get(family, (size, name)), (size, name))
    return {name for _, name in best.values()}


def make(name: str, seed: int) -> tuple[nn.Module, tuple[int, int]]:
    """A network of random weights, none a constant, and its image size."""
    torch.manual_seed(seed)
    if name.startswith(TORCHVISION):
        builder = name.removeprefix(TORCHVISION)
        slow = {"aux_logits": False, "init_weights": False} if builder in ("googlenet", "inception_v3") else {}
        module = torchvision.models.get_model(builder, weights=None, num_classes=N_CLASSES, **slow)
        weights = next(iter(torchvision.models.get_model_weights(builder)))
        size = weights.transforms().crop_size[0]
        height, width = size, size
    else:
        module = timm.create_model(name, num_classes=N_CLASSES)
        _, height, width = module.pretrained_cfg["input_size"]
    randomise(module)
    _unsettle(module)
    return module.eval(), (height, width)


@torch.no_grad()
def _unsettle(module: nn.Module) -> None:
    """Gates, scales, tables and tokens that start as a constant."""
    for parameter in module.parameters():
        low, high = float(parameter.min()), float(parameter.max())
        if low != high or parameter.numel() == 1:
            continue
        if 0 < abs(low) < 0.1:  # a residual branch's scale, which would hide the branch
            parameter.uniform_(0.3, 0.7)
        else:
            parameter += 0.1 * torch.randn_like(parameter)


def export(name: str, folder: Path, binaries: Path, two: bool) -> None:
    """Networks of different seeds through `import`, each compared with PyTorch on the way."""
    row: dict[str, object] = {}
    for seed, (file, task) in enumerate([("one", "first"), ("two", "second")][: 1 + two], start=1):
        module, size = make(name, seed)
        out = folder / f"{file}.safetensors"
        with contextlib.redirect_stderr(io.StringIO()):
            delta = zipit_torch.export(
                module,
                out=out,
                classes=[str(c) for c in range(N_CLASSES)],
                tasks=task,
                preprocess={"size": list(size), "mean": [MEAN] * 3, "std": [STD] * 3},
                arch=name.rpartition(":")[2],
                bin_folder=binaries,
            )
        if seed == 1:
            model = model_file.read(out)
            images = compare.check_images(model)
            largest = max(1.0, *(float(logits.abs().max()) for logits in compare.logits(module, images)))
            row = {
                "size": size,
                "parameters": sum(parameter.numel() for parameter in module.parameters()),
                "forward": delta / largest,
                "nodes": len(model.graph["nodes"]),
                "carried": collections.Counter(_function(node) for node in model.graph["nodes"] if node["op"]["op"] == "call"),
            }
            if delta > compare.TOLERANCE * largest:
                row["spread"] = max(compare.spread(module, images)) / largest
    print(json.dumps(row))


def _function(node: dict) -> str:
    call = node["op"]["call"]
    return call if isinstance(call, str) else call.get("function") or next(iter(call))


def table(folder: Path) -> None:
    """The three sets, each with a count and its rows."""
    raise NotImplementedError


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("names")
    add = {name: commands.add_parser(name) for name in ("list", "export", "check", "table")}
    for sub in add.values():
        sub.add_argument("--bin", type=Path, default=pipeline.DEFAULT_BIN)
    add["export"].add_argument("name")
    add["export"].add_argument("folder", type=Path)
    add["export"].add_argument("--two", action="store_true")
    add["check"].add_argument("file", type=Path)
    add["table"].add_argument("folder", type=Path)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    try:
        match args.command:
            case "names":
                print(json.dumps(names(), indent=1))
            case "list":
                print("\n".join(f"{name} {'whole' if whole else 'single'}" for name, whole in listed().items()))
            case "export":
                export(args.name, args.folder, args.bin, args.two)
            case "check":
                check(args.file, args.bin)
            case "table":
                table(args.folder)
    except ZipitError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
