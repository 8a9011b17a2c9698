"""What a network expects of an image: where that is known from, and as a torchvision transform.

A specification says `size` [h, w], `mean` and `std` per channel of values in 0…1, and where they are not the default:
`resize`, N or [h, w], the size before the crop [`size`]; `interpolation`, PIL's name of it [bilinear]; `crop`, timm's
crop_mode [center]; `fill`, the border's bytes per channel [the mean]. Images are made to cover `resize` (center),
pressed to it (squash) or made to fit into it (border); then `size` is cropped from the centre."""

from __future__ import annotations

from collections.abc import Sequence
from math import floor
from typing import Any

from PIL import Image
from torch import nn
from torchvision import transforms
from torchvision.models import WeightsEnum
from torchvision.transforms import functional as F  # noqa: N812 (everybody's name for it)

from .errors import ZipitError, note
from .graph import Json

IMAGENET_MEAN = [0.485, 0.456, 0.406]
IMAGENET_STD = [0.229, 0.224, 0.225]
INTERPOLATIONS = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")
CROPS = ("center", "squash", "border")
MAX_SIDE = 16_384
FIELDS = ("size", "resize", "interpolation", "crop", "fill", "mean", "std")

Size = tuple[int, int]


def preprocess(
    size: Size,
    mean: Sequence[float],
    std: Sequence[float],
    resize: int | Sequence[int] | None = None,
    interpolation: str = "bilinear",
    crop: str = "center",
    fill: Sequence[int] | None = None,
) -> Json:
    """As a model file spells it; what is the default is left out."""
    if len(mean) != len(std) or min(std, default=0) <= 0:
        raise ZipitError(f"{len(mean)} means and {len(std)} standard deviations: one positive std per mean is needed")
    if interpolation not in INTERPOLATIONS:
        raise ZipitError(f"`{interpolation}` is no interpolation; it is one of {', '.join(INTERPOLATIONS)}")
    if crop not in CROPS:
        raise ZipitError(f"`{crop}` is no way to crop; it is one of {', '.join(CROPS)}")
    before = size if resize is None else _both(resize)
    sides = [*size, *before]
    if not all(isinstance(side, int) and 1 <= side <= MAX_SIDE for side in sides):
        raise ZipitError(f"image sizes {sides} must be whole numbers from 1 to {MAX_SIDE}")
    if crop != "border" and (before[0] < size[0] or before[1] < size[1]):
        raise ZipitError(
            f"images cannot be resized to {_words(before)} and then cropped to {_words(size)}, which is larger"
        )
    found: Json = {"size": list(size)}
    if tuple(before) != tuple(size):
        found["resize"] = before[0] if before[0] == before[1] else list(before)
    if interpolation != "bilinear":
        found["interpolation"] = interpolation
    if crop != "center":
        found["crop"] = crop
    if fill is not None:
        if crop != "border":
            raise ZipitError("a fill is the colour of borders, which only `crop` border makes")
        if len(fill) == 1:
            fill = list(fill) * len(mean)
        if len(fill) != len(mean) or not all(isinstance(byte, int) and 0 <= byte <= 255 for byte in fill):
            raise ZipitError(f"the fill {list(fill)} must be one byte, 0 to 255, per channel ({len(mean)})")
        if list(fill) != _fill(mean):
            found["fill"] = list(fill)
    return found | {"mean": [float(m) for m in mean], "std": [float(s) for s in std]}


def checked(spec: Json) -> Json:
    """A specification that somebody wrote."""
    unknown = [name for name in spec if name not in FIELDS]
    missing = [name for name in ("size", "mean", "std") if name not in spec]
    if unknown or missing:
        what = f"`{unknown[0]}` is none of its fields" if unknown else f"`{missing[0]}` is missing"
        raise ZipitError(f"the preprocessing: {what} ({', '.join(FIELDS)})")
    return preprocess(**spec | {"size": _both(spec["size"])})


def _both(side: int | Sequence[int]) -> Size:
    if isinstance(side, int):
        return side, side
    if len(side) not in (1, 2):
        raise ZipitError(f"{list(side)} is no size of an image: one number, or height and width")
    return int(side[0]), int(side[-1])


def _words(size: Sequence[int]) -> str:
    return "×".join(map(str, size))


def _fill(mean: Sequence[float]) -> list[int]:
    return [round(255 * m) for m in mean]


def of_crop_pct(size: Size, crop_pct: float) -> Size:
    """The size before the crop: timm's rule."""
    if not 0 < crop_pct <= 1:
        raise ZipitError(f"a crop of {crop_pct} is no part of an image: it lies above 0 and at most at 1")
    return floor(size[0] / crop_pct), floor(size[1] / crop_pct)


def imagenet() -> Json:
    """What most of torchvision's networks were trained with."""
    return preprocess((224, 224), IMAGENET_MEAN, IMAGENET_STD, 256)


def of_torchvision(weights: WeightsEnum) -> Json:
    """What torchvision's weights were trained with."""
    found = weights.transforms()
    size, resize = _both(found.crop_size), _both(found.resize_size)
    known = {"size": size, "mean": list(found.mean), "std": list(found.std), "resize": resize}
    return _expressed("torchvision's weights", known, interpolation=found.interpolation.value)


def of_timm(config: Any, size: Size | None = None) -> Json | None:
    """What timm's `pretrained_cfg` says, for images of another size if one is given; None if it says nothing."""
    if not config or not config.get("mean"):
        return None
    from timm.data import resolve_data_config

    found = resolve_data_config({}, pretrained_cfg=dict(config))
    size = size or _both(found["input_size"][1:])
    resize = of_crop_pct(size, min(found["crop_pct"], 1.0))
    known = {"size": size, "mean": list(found["mean"]), "std": list(found["std"]), "resize": resize}
    if found["crop_pct"] > 1 and found["crop_mode"] == "border":
        known["resize"] = tuple(floor(side / found["crop_pct"]) for side in size)
    elif found["crop_pct"] > 1:
        note(f"timm's configuration: crop_pct {found['crop_pct']} cannot be expressed; 1 is taken (--crop-pct)")
    return _expressed("timm's configuration", known, interpolation=found["interpolation"], crop=found["crop_mode"])


def _expressed(whose: str, known: Json, **choices: str) -> Json:
    """What can be said of it; what cannot is told."""
    allowed = {"interpolation": INTERPOLATIONS, "crop": CROPS}
    for field, value in choices.items():
        if value in allowed[field]:
            known[field] = value
        else:
            default = {"interpolation": "bilinear", "crop": "center"}[field]
            note(f"{whose}: {field} `{value}` cannot be expressed; {default} is taken (--{field})")
    return preprocess(**known)


def transform(spec: Json) -> transforms.Compose:
    """The same, as torchvision does it to a PIL image."""
    size = tuple(spec["size"])
    before = _both(spec.get("resize", size))
    interpolation = transforms.InterpolationMode(spec.get("interpolation", "bilinear"))
    crop = spec.get("crop", "center")
    if crop == "squash":
        steps = [transforms.Resize(before, interpolation), transforms.CenterCrop(size)]
    elif crop == "border":
        fill = spec.get("fill", _fill(spec["mean"]))
        steps = [_KeepRatio(before, max, interpolation), _CenterCropOrPad(size, fill)]
    elif before[0] == before[1]:
        steps = [transforms.Resize(before[0], interpolation), transforms.CenterCrop(size)]
    else:
        steps = [_KeepRatio(before, min, interpolation), transforms.CenterCrop(size)]
    to_channels = [transforms.Grayscale()] if len(spec["mean"]) == 1 else [_rgb] if len(spec["mean"]) == 3 else []
    return transforms.Compose(
        [*to_channels, *steps, transforms.ToTensor(), transforms.Normalize(spec["mean"], spec["std"])]
    )


class _KeepRatio:
    """timm's ResizeKeepRatio: an image that covers a size (the smaller ratio) or fits into it (the larger one)."""

    def __init__(self, size: Size, chosen: Any, interpolation: transforms.InterpolationMode) -> None:
        self.size, self.chosen, self.interpolation = size, chosen, interpolation

    def __call__(self, image: Any) -> Any:
        sides = F.get_dimensions(image)[1:]
        ratio = self.chosen(side / wanted for side, wanted in zip(sides, self.size, strict=True))
        return F.resize(image, [round(side / ratio) for side in sides], self.interpolation)


class _CenterCropOrPad:
    """timm's: a border where the image is too small, then the centre."""

    def __init__(self, size: Size, fill: Sequence[int]) -> None:
        self.size, self.fill = size, fill

    def __call__(self, image: Any) -> Any:
        height, width = F.get_dimensions(image)[1:]
        down, right = max(self.size[0] - height, 0), max(self.size[1] - width, 0)
        if down or right:
            fill = tuple(self.fill) if len(self.fill) > 1 else self.fill[0]
            image = F.pad(image, [right // 2, down // 2, (right + 1) // 2, (down + 1) // 2], fill=fill)
        top, left = (
            round((side - wanted) / 2)
            for side, wanted in zip(F.get_dimensions(image)[1:], self.size, strict=True)
        )
        return F.crop(image, top, left, *self.size)


def _rgb(image: Any) -> Any:
    return image.convert("RGB") if isinstance(image, Image.Image) else image
