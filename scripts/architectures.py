#!/usr/bin/env python3
"""The architectures that are promised to trace, merge and come back, and what the tests ask of each in PyTorch.

    architectures.py list
    architectures.py export NAME FOLDER --bin BIN [--full]    two networks of it, one.safetensors and two.safetensors
    architectures.py check FILE --bin BIN                     load and ONNX compared with the file's own logits
    architectures.py serve --bin BIN                          the two above, one a line of stdin, PyTorch loaded once
    architectures.py table FOLDER                             the rows that the tests left there, as Markdown

Weights are random, with norms' statistics and scales away from their first values so that they matter. At the small size
the widths are the architecture's own; only the hidden layers of VGG's and AlexNet's classifiers are narrowed, and the
largest networks have two of the layers or blocks that are alike: none of their structure is lost.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch_graph import factory, model_file, network, onnx_file, pipeline
from torch_graph.compare import Reference, check_images, difference, smooth

import zipit_torch

N_CLASSES = 10
HIDDEN = 64
MEAN, STD = 0.5, 0.25


@dataclass(frozen=True)
class Architecture:
    """How to make it, and the image size of the small and of the full test."""

    factory: str
    small: int
    full: int = 224
    arguments: tuple[tuple[str, object], ...] = ()
    narrowed: Callable[[nn.Module], None] | None = None


def _narrow_classifier(module: nn.Module) -> None:
    """The hidden layers between the last pooling and the logits, from 4096 features to a few."""
    layers = [layer for layer in module.classifier if isinstance(layer, nn.Linear)]
    widths = [layers[0].in_features, HIDDEN, HIDDEN, layers[-1].out_features]
    narrow = iter(zip(widths, widths[1:], strict=False))
    for i, layer in enumerate(module.classifier):
        if isinstance(layer, nn.Linear):
            module.classifier[i] = nn.Linear(*next(narrow))


def _two_layers(module: nn.Module) -> None:
    """Two of a transformer's layers, which are all alike."""
    module.encoder.layers = module.encoder.layers[:2]


def _two_blocks(module: nn.Module) -> None:
    """The first two blocks of a ResNet's stages: the one with a projection, and one of those without."""
    for name in ("layer1", "layer2", "layer3", "layer4"):
        setattr(module, name, getattr(module, name)[:2])


def _two_of_a_stage(module: nn.Module) -> None:
    """The first two blocks of each of ConvNeXt's stages."""
    for i in (1, 3, 5, 7):
        module.features[i] = module.features[i][:2]


def _torchvision(name: str, small: int, full: int = 224, narrowed: Callable[[nn.Module], None] | None = None, **arguments: object) -> Architecture:
    return Architecture(f"torchvision.models:{name}", small, full, tuple(arguments.items()), narrowed)


ARCHITECTURES: dict[str, Architecture] = {
    "resnet18": _torchvision("resnet18", 32),
    "resnet34": _torchvision("resnet34", 32, narrowed=_two_blocks),
    "resnet50": _torchvision("resnet50", 32, narrowed=_two_blocks),
    "resnet101": _torchvision("resnet101", 32, narrowed=_two_blocks),
    "wide_resnet50_2": _torchvision("wide_resnet50_2", 32, narrowed=_two_blocks),
    "resnext50_32x4d": _torchvision("resnext50_32x4d", 32, narrowed=_two_blocks),
    "vgg11": _torchvision("vgg11", 32, narrowed=_narrow_classifier),
    "vgg11_bn": _torchvision("vgg11_bn", 32, narrowed=_narrow_classifier),
    "vgg16": _torchvision("vgg16", 32, narrowed=_narrow_classifier),
    "vgg16_bn": _torchvision("vgg16_bn", 32, narrowed=_narrow_classifier),
    "alexnet": _torchvision("alexnet", 64, narrowed=_narrow_classifier),
    "densenet121": _torchvision("densenet121", 32),
    "mobilenet_v2": _torchvision("mobilenet_v2", 32),
    "mobilenet_v3_large": _torchvision("mobilenet_v3_large", 32),
    "efficientnet_b0": _torchvision("efficientnet_b0", 32),
    "shufflenet_v2_x1_0": _torchvision("shufflenet_v2_x1_0", 32),
    "googlenet": _torchvision("googlenet", 32, aux_logits=False, init_weights=False),
    "inception_v3": _torchvision("inception_v3", 75, 299, aux_logits=False, init_weights=False),
    "convnext_tiny": _torchvision("convnext_tiny", 32, narrowed=_two_of_a_stage),
    "regnet_y_400mf": _torchvision("regnet_y_400mf", 32),
    "vit_b_16": _torchvision("vit_b_16", 32, narrowed=_two_layers),
    "vit_small": Architecture(
        "torchvision.models:VisionTransformer",
        32,
        32,
        (("patch_size", 8), ("num_layers", 4), ("num_heads", 4), ("hidden_dim", 64), ("mlp_dim", 128)),
    ),
    "timm_vit_tiny_patch16_224": Architecture("timm:vit_tiny_patch16_224", 32),
    "timm_efficientnet_lite0": Architecture("timm:efficientnet_lite0", 32),
    "timm_resnet18d": Architecture("timm:resnet18d", 32),
    "timm_convnext_atto": Architecture("timm:convnext_atto", 32),
    "swin_small": Architecture(
        "torchvision.models.swin_transformer:SwinTransformer",
        32,
        32,
        (
            ("patch_size", [2, 2]),
            ("embed_dim", 24),
            ("depths", [2, 2]),
            ("num_heads", [2, 4]),
            ("window_size", [4, 4]),
            ("stochastic_depth_prob", 0.0),
        ),
    ),
    "timm_convnextv2_atto": Architecture("timm:convnextv2_atto", 32),
    "timm_edgenext_xx_small": Architecture("timm:edgenext_xx_small", 32),
}


def build(name: str, seed: int, full: bool) -> nn.Module:
    """A network of random weights in evaluation mode, every number away from what makes it vanish."""
    wanted = ARCHITECTURES[name]
    size = wanted.full if full else wanted.small
    arguments = dict(wanted.arguments) | {"num_classes": N_CLASSES}
    if wanted.factory.endswith((":vit_b_16", ":VisionTransformer")):
        arguments["image_size"] = size
    if wanted.factory.startswith("timm:vit"):
        arguments["img_size"] = size
    torch.manual_seed(seed)
    module = factory.make(factory.resolve(wanted.factory), arguments)
    if wanted.narrowed and not full:
        wanted.narrowed(module)
    randomise(module)
    if full:
        centre(module, (smooth((64, 3, size, size)) - MEAN) / STD)
    return module.eval()


@torch.no_grad()
def randomise(module: nn.Module) -> None:
    """Norms, scales and biases that matter."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            fan_in = layer.weight[0].numel()
            layer.weight.normal_(0.0, (1.6 / fan_in) ** 0.5)
            if layer.bias is not None:
                layer.bias.normal_(0.0, 0.1)
        elif isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.running_mean.normal_(0.0, 0.1)
            layer.running_var.uniform_(0.8, 1.2)
        if isinstance(layer, nn.modules.batchnorm._BatchNorm | nn.LayerNorm | nn.GroupNorm):
            for parameter, draw in ((layer.weight, lambda p: p.uniform_(0.8, 1.2)), (layer.bias, lambda p: p.normal_(0.0, 0.1))):
                if parameter is not None:
                    draw(parameter)
    for name, parameter in module.named_parameters():
        leaf = name.rpartition(".")[2]
        if leaf in ("layer_scale", "gamma"):
            parameter.uniform_(0.3, 0.7)
        elif leaf in ("class_token", "cls_token", "pos_embedding", "pos_embed"):
            parameter.normal_(0.0, 0.5)
        elif leaf == "in_proj_weight":
            parameter.normal_(0.0, (2.0 / parameter.shape[1]) ** 0.5)
        elif leaf == "in_proj_bias":
            parameter.normal_(0.0, 0.1)


@torch.no_grad()
def centre(module: nn.Module, images: torch.Tensor, settle: bool = False) -> None:
    """Features of which there is one an image (hidden layers of classifiers and of gates), lit by about half of the images, as
    BatchNorm does elsewhere. Two features that only one image lights correlate perfectly, so no twin can be told. Settled,
    BatchNorm's statistics are those of the images, otherwise they stay."""

    def shift(layer: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        if output.ndim != inputs[0].ndim or output[0].numel() != output.shape[1]:
            return output
        mean = output.mean(0, keepdim=True)
        if layer.bias is not None:
            layer.bias -= mean.flatten()
        else:  # what it makes of its inputs' mean
            average = inputs[0].mean(0).flatten()
            layer.weight -= (mean.reshape(-1, 1) * average / average.square().sum()).reshape(layer.weight.shape)
        return output - mean

    layers = [
        layer
        for layer in module.modules()
        if isinstance(layer, nn.Conv2d | nn.Linear) and (layer.bias is not None or getattr(layer, "groups", 1) == 1)
    ]
    # The last one makes the logits.
    hooks = [layer.register_forward_hook(shift) for layer in layers[:-1]]
    # Norms as they will be once their statistics are those of such images.
    norms = [layer for layer in module.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    momenta = [layer.momentum for layer in norms]
    module.eval()
    for layer in norms:
        layer.train()
        layer.momentum = 1.0 if settle else 0.0
    module(images)
    for layer, momentum in zip(norms, momenta, strict=True):
        layer.momentum = momentum
    module.eval()
    for hook in hooks:
        hook.remove()


def export(name: str, folder: Path, binaries: Path, full: bool) -> None:
    """Two networks of different seeds through `import`; each is compared with PyTorch on the way."""
    size = ARCHITECTURES[name].full if full else ARCHITECTURES[name].small
    preprocess = {"size": [size, size], "mean": [MEAN] * 3, "std": [STD] * 3}
    deltas = []
    for seed, (file, task) in enumerate([("one", "first"), ("two", "second")], start=1):
        delta = zipit_torch.export(
            build(name, seed, full),
            out=folder / f"{file}.safetensors",
            classes=[str(c) for c in range(N_CLASSES)],
            tasks=task,
            preprocess=preprocess,
            arch=name,
            bin_folder=binaries,
        )
        deltas.append(delta)
    print(json.dumps({"forward": max(deltas), "size": size}), flush=True)


def compared(file: Path, binaries: Path) -> dict[str, float]:
    """max |Δ| of the loaded module and of the ONNX file, from the pipeline's own logits and from each other."""
    model = model_file.read(file)
    images = check_images(model)
    back = difference(pipeline.predict(binaries, file, model, images), Reference(network.build(model), images), "predict")
    with tempfile.TemporaryDirectory() as folder:
        onnx = onnx_file.write(model, Path(folder) / "network.onnx")
    return {"load": back, "onnx": onnx}


def table(folder: Path) -> None:
    """One row per architecture, in the order of this file."""
    print("| architecture | image | nodes | spaces | max abs. difference from PyTorch | permuted copy, relative | load back | ONNX |")
    print("|---|---|---|---|---|---|---|---|")
    for name in ARCHITECTURES:
        path = folder / f"{name}.json"
        if not path.exists():
            print(f"| {name} | not run | | | | | | |")
            continue
        row = json.loads(path.read_text())
        numbers = " | ".join(f"{row[key]:.1e}" for key in ("forward", "permuted", "load", "onnx"))
        print(f"| {name} | {row['size']} | {row['nodes']} | {row['spaces']} | {numbers} |")


def run(args: argparse.Namespace) -> None:
    """One command, its result on stdout."""
    match args.command:
        case "list":
            print("\n".join(ARCHITECTURES))
        case "export":
            export(args.name, args.folder, args.bin, args.full)
        case "check":
            print(json.dumps(compared(args.file, args.bin)), flush=True)
        case "table":
            table(args.folder)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list")
    one = commands.add_parser("export")
    one.add_argument("name", choices=ARCHITECTURES)
    one.add_argument("folder", type=Path)
    one.add_argument("--full", action="store_true")
    two = commands.add_parser("check")
    two.add_argument("file", type=Path)
    serve = commands.add_parser("serve")
    for sub in (one, two, serve):
        sub.add_argument("--bin", type=Path, default=pipeline.DEFAULT_BIN)
    commands.add_parser("table").add_argument("folder", type=Path)
    args = parser.parse_args()
    if args.command == "serve":
        for line in sys.stdin:
            run(parser.parse_args([*shlex.split(line), "--bin", str(args.bin)]))
    else:
        run(args)
    return 0


if __name__ == "__main__":
    sys.exit(main())
