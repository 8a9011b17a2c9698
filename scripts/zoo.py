#!/usr/bin/env python3
"""The model zoo: which networks it is, what the survey asks of each in PyTorch, and its table.

    zoo.py names > scripts/zoo_names.json     chooses the networks (minutes: every network of timm's is made without weights)
    zoo.py list                               NAME whole|single, one a line, small networks first
    zoo.py serve                              answers lines of JSON on stdin, one line each:
                                              {"export": NAME, "folder": F, "two": false, "settled": false}: F/one.safetensors
                                              (and two), compared with PyTorch; {"check": FILE}: load and ONNX compared with the file's own logits
    zoo.py table FOLDER                       the rows of the survey as Markdown, docs/zoo.md
    zoo.py rows PAGE FOLDER                   the other way round: what a committed page says, for a survey to go on from

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
import re
import sys
import warnings
from pathlib import Path

import timm
import torch
import torchvision
from architectures import MEAN, STD, centre, compared, randomise
from timm.models import model_entrypoint
from torch import nn
from torch_graph import compare, model_file, network, pipeline
from torch_graph.errors import ZipitError

import zipit_torch

NAMES = Path(__file__).with_name("zoo_names.json")
TORCHVISION = "torchvision:"
N_CLASSES = 10
SAMPLE = 140
SETTLING_IMAGES = 24
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
        "sample": (sample := sorted(random.Random(0).sample(small, SAMPLE))),
        "parameters": {name: sizes[name] for name in sorted({*modules.values(), *sample})},
        "sampled from": len(small),
        "of": len(timm.list_models()),
        "not made without weights": refused,
    }


def listed() -> dict[str, bool]:
    """Every network once, and whether it is merged with another one, loaded and written as ONNX."""
    known = json.loads(NAMES.read_text())
    whole = dict.fromkeys(known["modules"].values(), True)
    builders = {TORCHVISION + name: name in smallest_builders(known["builders"]) for name in known["builders"]}
    found = whole | builders | {name: False for name in known["sample"] if name not in whole}

    def size(name: str) -> int:
        return known["parameters"].get(name) or n_parameters(name.removeprefix(TORCHVISION))

    return {name: found[name] for name in sorted(found, key=size)}


def n_parameters(builder: str) -> int:
    """Of a torchvision network with ImageNet's classes."""
    return next(iter(torchvision.models.get_model_weights(builder))).meta["num_params"]


def smallest_builders(builders: list[str]) -> set[str]:
    """One builder of each of torchvision's families: the one with the fewest parameters."""
    best: dict[str, tuple[int, str]] = {}
    for name in builders:
        size = n_parameters(name)
        family = torchvision.models.get_model_builder(name).__module__
        best[family] = min(best.get(family, (size, name)), (size, name))
    return {name for _, name in best.values()}


def make(name: str, seed: int, settled: bool = False) -> tuple[nn.Module, tuple[int, int]]:
    """A network of random weights, none a constant, and its image size. Settled, it is as training leaves it: BatchNorm's
    statistics those of smooth images, and pooled features lit by about half of them."""
    torch.manual_seed(seed)
    if name.startswith(TORCHVISION):
        builder = name.removeprefix(TORCHVISION)
        slow = {"aux_logits": False, "init_weights": False} if builder in ("googlenet", "inception_v3") else {}
        module = torchvision.models.get_model(builder, weights=None, num_classes=N_CLASSES, **slow)
        weights = next(iter(torchvision.models.get_model_weights(builder)))
        height = width = getattr(module, "image_size", weights.transforms().crop_size[0])
    else:
        module = timm.create_model(name, num_classes=N_CLASSES)
        _, height, width = module.pretrained_cfg["input_size"]
    randomise(module)
    _unsettle(module)
    if settled:
        centre(module, (compare.smooth((SETTLING_IMAGES, 3, height, width), seed) - MEAN) / STD, settle=True)
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


def export(name: str, folder: Path, binaries: Path, two: bool, settled: bool) -> dict[str, object]:
    """Networks of different seeds through `import`, each compared with PyTorch on the way."""
    row: dict[str, object] = {}
    for seed, (file, task) in enumerate([("one", "first"), ("two", "second")][: 1 + two], start=1):
        module, size = make(name, seed, settled)
        out = folder / f"{file}.safetensors"
        delta = zipit_torch.export(
            module,
            out=out,
            known_classes=[str(c) for c in range(N_CLASSES)],
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
                "settled": settled,
                "parameters": sum(parameter.numel() for parameter in module.parameters()),
                "forward": delta / largest,
                "nodes": len(model.graph["nodes"]),
                "carried": collections.Counter(_function(node) for node in model.graph["nodes"] if node["op"]["op"] == "call"),
            }
            if delta > compare.TOLERANCE * largest:
                row["spread"] = max(compare.spread(module, images)) / largest
    return row


def relative_spread(file: Path) -> float:
    """How far PyTorch's f32 is from its f64 on smooth images, in the largest logit of a model file's network."""
    model = model_file.read(file)
    reference = compare.Reference(network.build(model), compare.check_images(model))
    return max(reference.spread) / max(float(logits.abs().max()) for logits in reference.logits)


def serve(binaries: Path) -> None:
    """One answer a request: what was found, or the error."""
    for line in sys.stdin:
        wanted = json.loads(line)
        try:
            with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
                if "check" in wanted:
                    answer = compared(Path(wanted["check"]), binaries)
                elif "spread" in wanted:
                    answer = {"permuted_spread": relative_spread(Path(wanted["spread"]))}
                else:
                    answer = export(wanted["export"], Path(wanted["folder"]), binaries, wanted["two"], wanted["settled"])
        except ZipitError as error:
            answer = {"error": str(error)}
        except Exception as error:  # whatever a network's own code raises is a row of the table
            answer = {"error": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"}
        print(json.dumps(answer), flush=True)


def _function(node: dict) -> str:
    call = node["op"]["call"]
    return call["name"]


COLUMNS = ("network", "image", "parameters", "Δ", "spaces", "carried", "FLOPs", "permuted copy", "load", "ONNX")

EXACT = 1e-3
"""Up to this part of the largest logit, a merge with a permuted copy is the network."""

INTRODUCTION = f"""# The model zoo

Made by `make zoo`, which takes every network below through the binaries, in this order, and can be stopped and started
again: exported from PyTorch (torch {torch.__version__.partition("+")[0]}, torchvision {{torchvision}}, timm {{timm}}) at its \
own image size with {N_CLASSES} classes and random
weights, and compared with PyTorch through `predict`; analysed; merged with a permuted copy of itself, which must give the
network back; and the smallest of every family merged with another one, which must run, load in PyTorch and run as ONNX.
For the merges BatchNorm's statistics are those of the 12 smooth random images that features are matched on.

Networks with a * were settled first: of random weights as they come, PyTorch's own logits in f32 and f64 disagree, or 12
images do not tell pooled features apart (two that only one image lights are in proportion). Settled, they are as training
leaves them: BatchNorm's statistics are those of {SETTLING_IMAGES} smooth images, and pooled features are lit by about half of these.

- **Δ**: the largest difference from PyTorch's logits on smooth images, relative to the larger of 1 and the largest logit.
  More than 1e-4 is refused, unless PyTorch in f32 is as far from PyTorch in f64 (then both are given).
- **spaces**: feature spaces that are merged; in brackets those that every model keeps (features of one layer tied to each
  other, blocks from parts or of two sizes, and spaces beside carried nodes where merging costs more than it saves).
- **carried**: nodes that are run as PyTorch does and whose features are not followed ([ops.md](ops.md)): every model has its own.
- **FLOPs**: of the network merged with its copy, in those of one (an ensemble has 2).
- **permuted copy**: the largest difference of that merge's logits, relative to the largest logit; exact is at most {EXACT:.0e}.
  Beside more, how far PyTorch in f32 is from PyTorch in f64 on that network.
- **load**, **ONNX**: the largest differences of the merge of two networks from the file's own logits.
"""


def table(folder: Path) -> str:
    """The three sets, each with a count and its rows."""
    known = json.loads(NAMES.read_text())
    rows = {row["name"]: row for row in map(json.loads, (path.read_text() for path in sorted(folder.glob("*.json"))))}
    builders = [TORCHVISION + name for name in known["builders"]]
    sampled = f"a random sample of {len(known['sample'])} of timm's {known['of']} names"
    sets = {
        f"timm: the smallest network of each of {len(known['modules'])} modules": list(known["modules"].values()),
        f"torchvision: the {len(builders)} builders of classifiers": builders,
        f"timm: {sampled} (of the {known['sampled from']} of at most {LARGEST // 10**6} million parameters)": known["sample"],
    }
    modules = {name: module for module, name in known["modules"].items()}
    parts = [INTRODUCTION.format_map(known)]
    for title, names in sets.items():
        parts += [f"## {title}\n", _count([rows.get(name, {}) for name in names])]
        parts += [f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
        for name in names:
            label = f"{modules[name]}: {name}" if names is sets[next(iter(sets))] else name.removeprefix(TORCHVISION)
            parts.append(_row(label, rows.get(name)))
        parts.append("")
    return "\n".join(parts)


def _count(rows: list[dict]) -> str:
    n = len(rows)
    exported = sum("forward" in row for row in rows)
    analysed = sum("spaces" in row for row in rows)
    tried = [row for row in rows if "permuted" in row]
    exact = sum(row["permuted"] <= EXACT and row["spaces"] > 0 for row in tried)
    whole = sum("onnx" in row for row in rows)
    merged = sum(row.get("spaces", 0) > 0 for row in rows)
    return (
        f"Of {n}: {exported} exported and within the limit, {analysed} analysed, {merged} with spaces that are merged. Merged with a "
        f"permuted copy so far: {len(tried)}, of which {exact} have merged spaces and are exact. Merged with another network, "
        f"loaded and run as ONNX: {whole}.\n"
    )


def _row(label: str, row: dict | None) -> str:
    if row is None:
        return f"| {label} | not run | | | | | | | | |"
    cells = [label + (" *" if row.get("settled") else ""), "", "", "", "", "", "", "", "", ""]
    if "forward" in row:
        height, width = row["size"]
        spread = f" (PyTorch's own {row['spread']:.1e})" if "spread" in row else ""
        cells[1:4] = [f"{height}×{width}", f"{row['parameters'] / 1e6:.1f} M", f"{row['forward']:.1e}{spread}"]
        cells[5] = f"{sum(row['carried'].values())} of {row['nodes']}"
    if "spaces" in row:
        kept = row["kept"] + row.get("apart", 0)
        cells[4] = str(row["spaces"]) + (f" ({kept})" if kept else "")
    if "permuted" in row:
        own = f" (PyTorch's own {row['permuted_spread']:.1e})" if "permuted_spread" in row else ""
        cells[6:8] = [f"{row['flops']:.2f}", f"{row['permuted']:.1e}{own}"]
    if "onnx" in row:
        cells[8:] = [f"{row['load']:.1e}", f"{row['onnx']:.1e}"]
    if "error" in row:
        first = row["error"].splitlines()[0].replace("|", "\\|")
        empty = next(i for i, cell in enumerate(cells) if not cell)
        cells[empty] = f"**{first}**"
    return "| " + " | ".join(cells) + " |"


def rows_of(page: str) -> list[dict]:
    """What the tables of a page say, as rows of the survey: numbers as they are printed, the last error by its first line."""
    rows: dict[str, dict] = {}
    prefix = ""
    for line in page.splitlines():
        if line.startswith("## "):
            prefix = TORCHVISION if line.startswith("## torchvision") else ""
        cells = [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if len(cells) != len(COLUMNS) or cells[0] in ("network", "---") or cells[1] == "not run":
            continue
        label, settled = cells[0].removesuffix(" *"), cells[0].endswith(" *")
        row: dict = {"name": prefix + label.rpartition(": ")[2], **({"settled": True} if settled else {})}
        for cell in cells[1:]:
            if cell.startswith("**"):
                row["error"] = cell.strip("*")
        found = dict(zip(COLUMNS, cells, strict=True))
        if match := re.fullmatch(r"(\d+)×(\d+)", found["image"]):
            carried, _, nodes = found["carried"].partition(" of ")
            row["size"] = [int(match[1]), int(match[2])]
            row["parameters"] = float(found["parameters"].removesuffix(" M")) * 1e6
            row["forward"], spread = _with_own(found["Δ"])
            row |= {"carried": {"": int(carried)}, "nodes": int(nodes), **({} if spread is None else {"spread": spread})}
        if match := re.fullmatch(r"(\d+)(?: \((\d+)\))?", found["spaces"]):
            row |= {"spaces": int(match[1]), "kept": int(match[2] or 0)}
        if found["FLOPs"] and "**" not in found["FLOPs"]:
            row["flops"] = float(found["FLOPs"])
            row["permuted"], spread = _with_own(found["permuted copy"])
            row |= {} if spread is None else {"permuted_spread": spread}
        if found["ONNX"] and "**" not in found["load"]:
            row |= {"load": float(found["load"]), "onnx": float(found["ONNX"])}
        rows[row["name"]] = row
    return list(rows.values())


def _with_own(cell: str) -> tuple[float, float | None]:
    number, _, own = cell.partition(" (PyTorch's own ")
    return float(number), float(own.removesuffix(")")) if own else None


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("names")
    commands.add_parser("list")
    commands.add_parser("serve").add_argument("--bin", type=Path, default=pipeline.DEFAULT_BIN)
    commands.add_parser("table").add_argument("folder", type=Path)
    rows = commands.add_parser("rows")
    rows.add_argument("page", type=Path)
    rows.add_argument("folder", type=Path)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    match args.command:
        case "names":
            print(json.dumps(names(), indent=1))
        case "list":
            print("\n".join(f"{name} {'whole' if whole else 'single'}" for name, whole in listed().items()))
        case "serve":
            serve(args.bin)
        case "table":
            print(table(args.folder))
        case "rows":
            args.folder.mkdir(parents=True, exist_ok=True)
            for row in rows_of(args.page.read_text()):
                path = args.folder / f"{row['name'].replace(':', '_')}.json"
                if not path.exists():
                    path.write_text(json.dumps(row, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
