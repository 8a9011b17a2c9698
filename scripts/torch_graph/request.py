"""What an export needs to know, from what the user said and what the network's source already knows."""

from __future__ import annotations

import argparse
import ast
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torchvision import models

from . import card as cards
from . import factory as factories
from . import preprocess as preprocessing
from .errors import ZipitError, note
from .graph import Json

TORCHVISION = "torchvision.models:"
MAX_RANGE = 100_000

Size = tuple[int, int]


@dataclass
class Request:
    """A network with all that its model file says about it."""

    module: nn.Module
    arch: str
    checkpoint: Path | None
    classes: list[list[str]]
    """Named for each output, or for each that is a vector; an empty list says that its numbers are no classes."""
    known_classes: list[str]
    """Those that the network's source names."""
    preprocess: Json


def from_command(args: argparse.Namespace) -> Request:
    """Of the command line."""
    arguments = dict(args.arg or [])
    weights = _weights(args.factory, args.weights) if args.weights else None
    folder, is_program = factories.folder(args.factory), args.factory.endswith(factories.PROGRAM)
    checkpoint = cards.weights_in(folder) if folder and args.checkpoint is None else args.checkpoint
    if checkpoint is not None and checkpoint.is_dir():
        checkpoint = cards.weights_in(checkpoint)
    card = cards.beside(checkpoint) if checkpoint is not None else None
    classes = list(args.classes or [])
    known_classes: list[str] = []
    if not classes and weights is not None:
        known_classes = list(weights.meta["categories"])
    elif not classes and card and card.classes:
        note(f"the classes are those of {card.path}")
        known_classes = card.classes
    n_classes = len(classes[0] if len(classes) == 1 else known_classes)
    factory = factories.resolve(args.factory)
    has_own_head = (folder or factories.is_hub(args.factory)) and args.checkpoint is None
    if weights is not None and checkpoint is None:
        arguments["weights"] = weights
    elif n_classes and "num_classes" not in arguments and not has_own_head:
        if factories.takes_num_classes(args.factory, factory):
            arguments["num_classes"] = n_classes
    if checkpoint is None and factories.is_hub(args.factory):
        arguments.setdefault("pretrained", True)
    known = is_program or "weights" in arguments or arguments.get("pretrained")
    if checkpoint is None and not known:
        note(f"no --checkpoint: the weights are random (torch.manual_seed({args.seed}))")
        torch.manual_seed(args.seed)
    module = factories.make(factory, arguments)
    config = getattr(module, "pretrained_cfg", None) or {}
    if not classes and not known_classes:
        known_classes = [str(name) for name in config.get("label_names") or []]
    arch = Path(args.factory).stem if is_program else args.factory.rpartition(":")[2]
    if folder or factories.is_hub(args.factory):
        arch = config.get("architecture") or Path(arch).name
    said = Said(
        args.size or _size_of(arguments),
        args.channels,
        args.resize,
        args.crop_pct,
        args.crop,
        args.interpolation,
        args.fill,
        args.mean,
        args.std,
    )
    spec = choose_preprocess(args.factory, module, weights, said, card.pretrained_cfg if card else None)
    return Request(module, arch, checkpoint, classes, known_classes, spec)


@dataclass
class Said:
    """What the user says of the preprocessing; None is silence."""

    size: Size | None = None
    channels: int | None = None
    resize: int | Size | None = None
    crop_pct: float | None = None
    crop: str | None = None
    interpolation: str | None = None
    fill: list[int] | None = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None


def choose_preprocess(
    name: str,
    module: nn.Module,
    weights: models.WeightsEnum | None = None,
    said: Said | None = None,
    card: Json | None = None,
) -> Json:
    """What was said first, then what the weights, the checkpoint's card, timm's configuration or torchvision's habit
    say."""
    said = said or Said()
    if (said.mean is None) != (said.std is None):
        raise ZipitError("a mean needs a standard deviation, and the other way round (--mean, --std)")
    if said.resize is not None and said.crop_pct is not None:
        raise ZipitError("--resize and --crop-pct both say how large images are before the crop: give one")
    known = _known(name, module, weights, said, card)
    if said.size is None and known is None:
        raise ZipitError("the image size is not known: name it with --size")
    known = known or {}
    size = said.size or tuple(known["size"])
    resize = said.resize if said.crop_pct is None else preprocessing.of_crop_pct(size, said.crop_pct)
    if resize is None and known and tuple(known["size"]) == size:
        resize = known.get("resize")
    mean, std = (said.mean, said.std) if said.mean is not None else (known.get("mean"), known.get("std"))
    if mean is None or std is None or (said.mean is None and (said.channels or 3) != len(mean)):
        raise ZipitError(
            "the preprocessing is not known: name the mean and standard deviation per channel of pixels in 0…1, "
            "--mean M,M,M --std S,S,S"
        )
    channels = said.channels or len(mean)
    mean, std = (list(values) * channels if len(values) == 1 else list(values) for values in (mean, std))
    if len(mean) != channels:
        raise ZipitError(f"{len(mean)} means for {channels} channels")
    interpolation = said.interpolation or known.get("interpolation", "bilinear")
    crop = said.crop or known.get("crop", "center")
    return preprocessing.preprocess(size, mean, std, resize, interpolation, crop, said.fill)


def _known(
    name: str, module: nn.Module, weights: models.WeightsEnum | None, said: Said, card: Json | None
) -> Json | None:
    if weights is not None:
        return preprocessing.of_torchvision(weights)
    if card and (found := preprocessing.of_timm(card, said.size)):
        return found
    if name.startswith(factories.TIMM) or type(module).__module__.startswith("timm."):
        return preprocessing.of_timm(getattr(module, "pretrained_cfg", None), said.size)
    if name.startswith(TORCHVISION) and said.size in (None, (224, 224)):
        note("preprocessing: ImageNet's, as of torchvision's own weights (resize 256, crop 224), as no --mean is given")
        return preprocessing.imagenet()
    return None


def _weights(name: str, member: str) -> models.WeightsEnum:
    if not name.startswith(TORCHVISION):
        raise ZipitError("--weights names weights of torchvision; this factory is another one's")
    model = name.removeprefix(TORCHVISION)
    try:
        found = models.get_model_weights(model)
        return found[member]
    except (ValueError, KeyError) as error:
        raise ZipitError(f"torchvision has no weights `{member}` for {model}") from error


def _size_of(arguments: dict[str, Any]) -> Size | None:
    size = arguments.get("image_size", arguments.get("img_size"))
    return (size, size) if isinstance(size, int) else tuple(size) if size else None


def parse_size(text: str) -> Size:
    """`32` or `28x32`, height and width."""
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.isdigit() and int(part) > 0 for part in parts):
        raise argparse.ArgumentTypeError(f"`{text}` is no size; write 32 or 28x32 (height x width)")
    return int(parts[0]), int(parts[-1])


def parse_numbers(text: str) -> list[float]:
    """`0.5,0.5,0.5`."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"`{text}` is no list of numbers; write 0.5,0.5,0.5") from error


def parse_classes(text: str) -> list[str]:
    """`cat,dog`; `5-9` stands for 5, 6, 7, 8, 9, and `-` for none."""
    if text == "-":
        return []
    classes = []
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if dash and first.isdigit() and last.isdigit() and 0 <= int(last) - int(first) < MAX_RANGE:
            classes += [str(i) for i in range(int(first), int(last) + 1)]
        else:
            classes.append(part)
    return classes


def parse_classes_file(text: str) -> list[str]:
    """One class a line."""
    try:
        lines = Path(text).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise argparse.ArgumentTypeError(f"cannot read {text}: {error}") from error
    return [line.strip() for line in lines if line.strip()]


def parse_resize(text: str) -> int | Size:
    """`256`, or `256x192`."""
    size = parse_size(text)
    return size if "x" in text.lower() else size[0]


def parse_fill(text: str) -> list[int]:
    """`124,116,104`, bytes."""
    parts = text.split(",")
    if not all(part.strip().isdigit() and int(part) <= 255 for part in parts):
        raise argparse.ArgumentTypeError(f"`{text}` is no colour; write bytes per channel, 124,116,104")
    return [int(part) for part in parts]


def parse_argument(text: str) -> tuple[str, Any]:
    """`width=2`: a Python literal where it is one, else text."""
    key, equals, value = text.partition("=")
    if not equals or not key.isidentifier():
        raise argparse.ArgumentTypeError(f"`{text}` is no argument; write key=value")
    try:
        return key, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return key, value
