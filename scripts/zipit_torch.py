#!/usr/bin/env python3
"""PyTorch modules in and out of zipit's model files.

    zipit_torch.py export torchvision.models:resnet50 --checkpoint cats.pth --classes-file cats.txt -o cats.safetensors
    zipit_torch.py export my_nets.py:build --checkpoint dogs.pt --arg width=2 --size 64 --mean .5,.5,.5 \\
        --std .25,.25,.25 --classes poodle,beagle -o dogs.safetensors
    zipit_torch.py onnx merged.safetensors -o merged.onnx
    zipit_torch.py check merged.safetensors

From Python: `export(module, ...)`, `load(path)`, `export_onnx(path, out)`; of masked networks `load(path, task)`.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from torch_graph import factory as factories
from torch_graph import model_file, network, onnx_file, pipeline, request
from torch_graph import preprocess as preprocessing
from torch_graph.errors import ZipitError
from torch_graph.compare import Reference, check_images, difference
from torch_graph.exporter import check_round_trip, convert
from torch_graph.graph import Json
from torch_graph.network import Network

PathLike = str | os.PathLike[str]


def export(
    module_or_factory: nn.Module | str,
    checkpoint: PathLike | None = None,
    *,
    out: PathLike,
    classes: Sequence[str] | Sequence[Sequence[str] | None] = (),
    known_classes: Sequence[str] = (),
    tasks: str | Sequence[str] | None = None,
    input_size: int | tuple[int, int] | None = None,
    preprocess: Json | None = None,
    key: str | None = None,
    arch: str | None = None,
    arguments: dict[str, Any] | None = None,
    environment: dict[str, str] | None = None,
    bin_folder: PathLike | None = None,
) -> float:
    """Writes a network as a model file; gives max |Δ| of the file's outputs from the network's, which is below 1e-4.

    `classes` (one list; or one per output, or per output that is a vector; `None` for one without) are in the order of the
    output's features; where none are given, `known_classes` are those of every output with as many features. `preprocess` is {"size": [h, w], "mean": [...],
    "std": [...]} and whatever else `torch_graph.preprocess` knows (resize, interpolation, crop, fill); if it is left
    out, what timm or torchvision say holds. With `bin_folder`, `import` makes the file of the pipeline and `predict` is
    compared with the network; without, the file is a plain one, which `import` takes, and `load` is compared."""
    name, module = _named(module_or_factory, arguments or {})
    if preprocess is not None:
        preprocess = preprocessing.checked(preprocess)
    else:
        size = (input_size, input_size) if isinstance(input_size, int) else input_size
        preprocess = request.choose_preprocess(name, module, said=request.Said(size))
    per_output = [list(classes)] if classes and isinstance(classes[0], str) else [own and list(own) for own in classes]
    model, module = convert(
        module,
        arch=arch or name.rpartition(":")[2],
        preprocess=preprocess,
        classes=per_output,
        known_classes=known_classes,
        tasks=[tasks] if isinstance(tasks, str) else tasks,
        checkpoint=checkpoint,
        key=key,
        environment={"exporter": "zipit_torch.export", "factory": name} | (environment or {}),
    )
    reference = Reference(module, check_images(model))
    delta = check_round_trip(model, reference)
    if bin_folder is None:
        model_file.write(model, out)
        return delta
    return _export_through(Path(bin_folder), model, reference, checkpoint, Path(out))


def load(path: PathLike, task: str | None = None) -> Network:
    """Any model file as a torch.nn.Module: forward gives {task: output}; its state dict has the file's names. Of masked
    networks (`combine --rule emr`) the one of `task`."""
    return network.build(model_file.read(path, task))


def export_onnx(path: PathLike, out: PathLike, task: str | None = None) -> float:
    """Writes a model file as ONNX; gives max |Δ| of ONNX Runtime's outputs from PyTorch's, which is below 1e-4. Of masked
    networks the one of `task`."""
    return onnx_file.write(model_file.read(path, task), out)


def _named(module_or_factory: nn.Module | str, arguments: dict[str, Any]) -> tuple[str, nn.Module]:
    if isinstance(module_or_factory, str):
        return module_or_factory, factories.make(factories.resolve(module_or_factory), arguments)
    return type(module_or_factory).__name__, module_or_factory


def _export_through(
    folder: Path, model: model_file.Model, reference: Reference, checkpoint: PathLike | None, out: Path
) -> float:
    """The file made by `import`, and compared through `predict`; nothing is left that disagrees."""
    for needed in ("import", "predict"):
        pipeline.binary(folder, needed)
    plain = out.with_name(f".{out.name}.exported.safetensors")
    try:
        model_file.write(model, plain)
        pipeline.import_model(folder, plain, [Path(checkpoint)] if checkpoint else [], out)
    finally:
        plain.unlink(missing_ok=True)
    try:
        found = model.ended(pipeline.predict(folder, out, model, reference.images))
        return difference(found, reference, "predict")
    except ZipitError:
        out.unlink(missing_ok=True)
        raise


def main(argv: Sequence[str] | None = None) -> int:
    """The command; gives the exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    args = _parser().parse_args(argv)
    try:
        args.run(args, argv)
    except ZipitError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        if os.environ.get("ZIPIT_TRACEBACK"):
            raise
        text = str(error).splitlines() or [""]
        kind = "" if isinstance(error, OSError) else f"{type(error).__name__}: "
        hint = "" if isinstance(error, OSError) else " (unforeseen; ZIPIT_TRACEBACK=1 shows where)"
        print(f"error: {kind}{text[0]}{hint}", file=sys.stderr)
        return 1
    return 0


def _export(args: argparse.Namespace, argv: list[str]) -> None:
    wanted = request.from_command(args)
    delta = export(
        wanted.module,
        wanted.checkpoint,
        out=args.out,
        classes=wanted.classes,
        known_classes=wanted.known_classes,
        tasks=args.task,
        preprocess=wanted.preprocess,
        key=args.key,
        arch=wanted.arch,
        environment={"exporter": " ".join(["zipit_torch.py", *argv]), "factory": args.factory},
        bin_folder=None if args.no_import else args.bin,
    )
    print(f"max |Δ| {delta:.1e}")


def _onnx(args: argparse.Namespace, _: list[str]) -> None:
    print(f"max |Δ| {export_onnx(args.model, args.out, args.task):.1e}")


def _check(args: argparse.Namespace, _: list[str]) -> None:
    model = model_file.read(args.model, args.task)
    images = check_images(model)
    found = pipeline.predict(args.bin, args.model, model, images, args.task)
    print(f"max |Δ| {difference(found, Reference(network.build(model), images), 'predict'):.1e}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="zipit_torch.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    bin_option = {"type": Path, "default": pipeline.DEFAULT_BIN, "help": "folder of the binaries [target/release]"}

    add = commands.add_parser("export", help="a network of PyTorch's becomes a model file").add_argument
    add(
        "factory",
        metavar="FACTORY",
        help="torchvision.models:NAME, timm:NAME, timm:local-dir:FOLDER, timm:hf-hub:OWNER/NAME, module:function, "
        "file.py:function, or a program that torch.export.save wrote, FILE.pt2",
    )
    add("--checkpoint", type=Path, help=".pt, .pth, .pt2 (no code is run) or .safetensors; or a folder with one")
    add("--key", help="where in the checkpoint the state dict is [found by name]")
    add("--arg", action="append", type=request.parse_argument, metavar="KEY=VALUE", help="argument of the factory")
    add("--weights", help="torchvision's weights: their preprocessing, and the weights where there is no --checkpoint")
    add("--seed", type=int, default=0, help="of random weights, where there is no checkpoint [0]")
    add("--size", type=request.parse_size, help="image size: 32 or 28x32 (height x width)")
    add("--channels", type=int, help="colour channels [as many as means]")
    add("--resize", type=request.parse_resize, metavar="N|HxW", help="image size before the crop [that of --size]")
    add("--crop-pct", type=float, metavar="F", help="what part of each side the crop leaves, in the place of --resize")
    add(
        "--crop",
        choices=preprocessing.CROPS,
        help="how images get the size before the crop: they cover it, are pressed to it, or fit into it [center]",
    )
    add("--interpolation", choices=preprocessing.INTERPOLATIONS, help="filter of resizing, by PIL's name [bilinear]")
    add("--fill", type=request.parse_fill, metavar="B[,B,B]", help="colour of borders, in bytes [the mean]")
    add("--mean", type=request.parse_numbers, help="mean per channel of pixels in 0…1")
    add("--std", type=request.parse_numbers, help="standard deviation per channel")
    add("--task", action="append", help="name of the task, once per output [task; the keys of dicts; task1, …]")
    add("--classes", action="append", type=request.parse_classes, help="class names in the order of the output's features; 5-9 is a range, - says that they are no classes")
    add(
        "--classes-file",
        dest="classes",
        action="append",
        type=request.parse_classes_file,
        help="a text file with one class a line; --classes and --classes-file are given once per output in order, or once per "
        "output that is a vector: maps and tokens need none",
    )
    add("--no-import", action="store_true", help="write the plain file, for `import`, without the binaries")
    add("--bin", **bin_option)
    add("-o", "--out", type=Path, required=True)
    add.__self__.set_defaults(run=_export)

    add = commands.add_parser("onnx", help="a model file becomes ONNX").add_argument
    task_option = {"metavar": "NAME", "help": "of masked networks: the one of this task"}
    add("model", type=Path)
    add("--task", **task_option)
    add("-o", "--out", type=Path, required=True)
    add.__self__.set_defaults(run=_onnx)

    add = commands.add_parser("check", help="compares `load` with `predict` on a model file").add_argument
    add("model", type=Path)
    add("--task", **task_option)
    add("--bin", **bin_option)
    add.__self__.set_defaults(run=_check)
    return parser


if __name__ == "__main__":
    sys.exit(main())
