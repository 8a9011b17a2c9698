"""Pixels: what `transform` gives is what timm and torchvision give."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import create_transform, resolve_data_config
from timm.models import get_pretrained_cfg
from torch import nn
from torchvision import models

from torch_graph import preprocess as preprocessing
from torch_graph import request
from torch_graph.errors import ZipitError

MEAN, STD = [0.5, 0.4, 0.3], [0.25] * 3


def images() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    blocks = np.kron(rng.integers(0, 256, (9, 9, 3)), np.ones((43, 43, 1))).astype(np.uint8)
    sizes = ((333, 380), (97, 301), (380, 111), (33, 47))
    return [Image.fromarray(blocks[:h, :w]) for h, w in sizes]


@pytest.mark.parametrize("crop", preprocessing.CROPS)
@pytest.mark.parametrize("size", [(64, 64), (48, 80)])
def test_every_combination_is_timms(crop: str, size: tuple[int, int]) -> None:
    for interpolation in preprocessing.INTERPOLATIONS:
        for crop_pct in (1.0, 0.95, 0.875):
            theirs = create_transform(
                (3, *size),
                crop_pct=crop_pct,
                crop_mode=crop,
                interpolation=interpolation,
                mean=MEAN,
                std=STD,
            )
            resize = preprocessing.of_crop_pct(size, crop_pct)
            spec = preprocessing.preprocess(size, MEAN, STD, resize, interpolation, crop)
            assert preprocessing.checked(spec) == spec
            for image in images():
                torch.testing.assert_close(preprocessing.transform(spec)(image), theirs(image), rtol=0, atol=0.01)


CONFIGURATIONS = [
    "resnet50.a1_in1k",
    "vit_tiny_patch16_224.augreg_in21k_ft_in1k",
    "convnext_tiny.fb_in1k",
    "vit_base_patch16_siglip_224.webli",
    "caformer_s18.sail_in1k_384",
    "eva02_tiny_patch14_336.mim_in22k_ft_in1k",
]


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_timms_configurations(name: str) -> None:
    config = get_pretrained_cfg(name).to_dict()
    theirs = create_transform(**resolve_data_config({}, pretrained_cfg=config))
    ours = preprocessing.transform(preprocessing.of_timm(config))
    for image in images():
        torch.testing.assert_close(ours(image), theirs(image), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["resnet50", "vit_b_16", "efficientnet_b1", "efficientnet_v2_s", "inception_v3", "swin_t"])
def test_torchvisions_weights(name: str) -> None:
    for weights in models.get_model_weights(name):
        ours = preprocessing.transform(preprocessing.of_torchvision(weights))
        for image in images()[:2]:
            torch.testing.assert_close(ours(image), weights.transforms()(image), rtol=0, atol=1e-5)


def test_defaults_are_not_written() -> None:
    assert preprocessing.preprocess((8, 8), [0.5], [1], 8, "bilinear", "center") == {"size": [8, 8], "mean": [0.5], "std": [1]}
    bordered = preprocessing.preprocess((8, 8), [0.5], [1], (6, 9), "box", "border", [3])
    assert bordered == {
        "size": [8, 8],
        "resize": [6, 9],
        "interpolation": "box",
        "crop": "border",
        "fill": [3],
        "mean": [0.5],
        "std": [1],
    }
    assert "fill" not in preprocessing.preprocess((8, 8), [0.5], [1], None, crop="border", fill=[128])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"resize": 7}, "resized to 7×7 and then cropped to 8×8"),
        ({"resize": [16, 4], "crop": "squash"}, "resized to 16×4"),
        ({"interpolation": "cubic"}, "`cubic` is no interpolation"),
        ({"crop": "middle"}, "`middle` is no way to crop"),
        ({"fill": [0]}, "only `crop` border makes"),
        ({"fill": [0, 256, 0], "crop": "border"}, "one byte, 0 to 255, per channel"),
        ({"std": [1.0]}, "3 means and 1 standard"),
        ({"size": [0, 8]}, "whole numbers from 1"),
        ({"crop_pct": 0.9}, "`crop_pct` is none of its fields"),
    ],
)
def test_specifications_that_are_refused(change: dict, reason: str) -> None:
    with pytest.raises(ZipitError, match=reason):
        preprocessing.checked({"size": [8, 8], "mean": MEAN, "std": STD} | change)


def test_what_is_said_wins(capsys: pytest.CaptureFixture[str]) -> None:
    net = nn.Identity()
    net.pretrained_cfg = get_pretrained_cfg("convnext_tiny.fb_in1k").to_dict()

    def chosen(**said: object) -> dict:
        return request.choose_preprocess("timm:convnext_tiny", net, said=request.Said(**said))

    assert chosen() == {"size": [224, 224], "resize": 256, "interpolation": "bicubic"} | _imagenet()
    assert chosen(size=(64, 64))["resize"] == 73  # timm's crop_pct holds at any size
    assert chosen(size=(64, 96), crop_pct=0.5)["resize"] == [128, 192]
    assert chosen(crop="squash", interpolation="lanczos", resize=(230, 240)) == {
        "size": [224, 224],
        "resize": [230, 240],
        "interpolation": "lanczos",
        "crop": "squash",
    } | _imagenet()
    assert "resize" not in chosen(crop_pct=1.0)
    with pytest.raises(ZipitError, match="give one"):
        chosen(resize=256, crop_pct=0.9)
    net.pretrained_cfg |= {"interpolation": "random", "crop_pct": 1.15}
    assert chosen() == {"size": [224, 224]} | _imagenet()
    told = capsys.readouterr().err
    assert "interpolation `random` cannot be expressed" in told and "crop_pct 1.15 cannot be expressed" in told


def _imagenet() -> dict:
    return {"mean": preprocessing.IMAGENET_MEAN, "std": preprocessing.IMAGENET_STD}
