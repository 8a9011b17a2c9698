"""What a network expects of an image: where that is known from, and as a torchvision transform."""

from __future__ import annotations

from torch import nn
from torchvision import transforms
from torchvision.models import WeightsEnum

from .errors import ZipitError
from .graph import Json

IMAGENET_MEAN = [0.485, 0.456, 0.406]
IMAGENET_STD = [0.229, 0.224, 0.225]


def preprocess(size: tuple[int, int], mean: list[float], std: list[float], resize: int | None = None) -> Json:
    """As a model file spells it: resize the shorter side, crop `size` from the centre, scale to 0…1, normalise."""
    if len(mean) != len(std) or min(std, default=0) <= 0:
        raise ZipitError(f"{len(mean)} means and {len(std)} standard deviations: one positive std per mean is needed")
    if resize is not None and resize < max(size):
        raise ZipitError(f"the shorter side cannot be resized to {resize} and then cropped to {size[0]}×{size[1]}")
    found: Json = {"size": list(size)}
    if resize is not None:
        found["resize"] = resize
    return found | {"mean": [float(m) for m in mean], "std": [float(s) for s in std]}


def imagenet() -> Json:
    """What most of torchvision's networks were trained with."""
    return preprocess((224, 224), IMAGENET_MEAN, IMAGENET_STD, 256)


def of_torchvision(weights: WeightsEnum) -> Json:
    """What torchvision's weights were trained with."""
    found = weights.transforms()
    resize, crop = found.resize_size[0], found.crop_size[0]
    return preprocess((crop, crop), list(found.mean), list(found.std), resize)


def of_timm(module: nn.Module) -> Json | None:
    """What timm's pretrained weights were trained with, if the network has any."""
    config = getattr(module, "pretrained_cfg", None)
    if not config or not config.get("mean"):
        return None
    height, width = config["input_size"][1:]
    resize = int(min(height, width) / (config.get("crop_pct") or 1.0)) if height == width else None
    return preprocess((height, width), list(config["mean"]), list(config["std"]), resize)


def transform(spec: Json) -> transforms.Compose:
    """The same, as torchvision does it to a PIL image."""
    height, width = spec["size"]
    resize = spec.get("resize")
    steps = [transforms.Resize(resize if resize is not None else (height, width), antialias=True)]
    if resize is not None:
        steps.append(transforms.CenterCrop((height, width)))
    to_gray = [transforms.Grayscale()] if len(spec["mean"]) == 1 else [_rgb] if len(spec["mean"]) == 3 else []
    return transforms.Compose(
        [*to_gray, *steps, transforms.ToTensor(), transforms.Normalize(spec["mean"], spec["std"])]
    )


def _rgb(image: object) -> object:
    return image.convert("RGB") if hasattr(image, "convert") else image
