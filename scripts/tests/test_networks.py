"""Whole families: exported, built again, the same logits to 1e-4 of the largest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import timm
from conftest import build, model_of
from torch import nn
from torchvision import models
from torchvision.models.vision_transformer import VisionTransformer

NO_AUX = {"aux_logits": False, "transform_input": False, "init_weights": False}

# Family, image size, arguments, number of nodes.
FAMILIES: list[tuple[Callable[..., nn.Module], int, dict[str, Any], int]] = [
    (models.resnet18, 32, {}, 69),
    (models.resnet34, 32, {}, 125),
    (models.resnet50, 32, {}, 175),
    (models.resnet101, 32, {}, 345),
    (models.wide_resnet50_2, 32, {}, 175),
    (models.resnext50_32x4d, 32, {}, 175),
    (models.vgg11, 32, {}, 28),
    (models.vgg16_bn, 32, {}, 51),
    (models.alexnet, 64, {}, 20),
    (models.densenet121, 32, {}, 427),
    (models.mobilenet_v2, 32, {}, 152),
    (models.mobilenet_v3_large, 32, {}, 186),
    (models.efficientnet_b0, 32, {}, 239),
    (models.shufflenet_v2_x1_0, 32, {}, 225),
    (models.squeezenet1_1, 32, {}, 65),
    (models.mnasnet0_5, 32, {}, 151),
    (models.googlenet, 32, NO_AUX, 196),
    (models.googlenet, 32, NO_AUX | {"transform_input": True}, 206),
    (models.inception_v3, 75, NO_AUX, 313),
    (models.convnext_tiny, 32, {}, 138),
    (models.regnet_y_400mf, 32, {}, 270),
    (models.vit_b_16, 32, {"image_size": 32}, 163),
    (
        VisionTransformer,
        28,
        {"image_size": 28, "patch_size": 7, "num_layers": 2, "num_heads": 4, "hidden_dim": 32, "mlp_dim": 64},
        33,
    ),
]

TIMM: list[tuple[str, int, dict[str, Any], int]] = [
    ("vit_tiny_patch16_224", 32, {"img_size": 32}, 163),
    ("deit_tiny_distilled_patch16_224", 32, {"img_size": 32}, 168),
    ("mobilenetv4_conv_small", 32, {}, 135),
    ("efficientnet_lite0", 32, {}, 143),
    ("convnext_atto", 32, {}, 96),
    ("resnet18d", 32, {}, 78),
    ("seresnet18", 32, {}, 117),
]


@pytest.mark.parametrize(
    ("family", "size", "arguments", "n_nodes"), FAMILIES, ids=lambda v: getattr(v, "__name__", None)
)
def test_torchvision(family: Callable[..., nn.Module], size: int, arguments: dict[str, Any], n_nodes: int) -> None:
    model = model_of(build(family, num_classes=10, **arguments), size, n_logits=10)
    assert len(model.graph["nodes"]) == n_nodes


@pytest.mark.parametrize(
    ("name", "size", "arguments", "n_nodes"), TIMM, ids=lambda v: v if isinstance(v, str) else None
)
def test_timm(name: str, size: int, arguments: dict[str, Any], n_nodes: int) -> None:
    model = model_of(build(lambda: timm.create_model(name, num_classes=10, **arguments)), size, n_logits=10)
    assert len(model.graph["nodes"]) == n_nodes


@pytest.mark.parametrize(
    ("factory", "size", "n_calls"),
    [
        (lambda: models.swin_t(num_classes=10), 64, 0),
        (lambda: models.swin_v2_t(num_classes=10), 64, 375),
        (lambda: timm.create_model("coatnet_nano_rw_224", img_size=64, num_classes=10), 64, 0),
        (lambda: timm.create_model("beit_base_patch16_224", img_size=32, num_classes=10, depth=2), 32, 0),
        (lambda: timm.create_model("nf_resnet26", num_classes=10), 32, 0),
        (lambda: timm.create_model("mixer_s32_224", img_size=64, num_classes=10), 64, 42),
        (lambda: timm.create_model("vit_wee_patch16_reg1_gap_256", img_size=32, num_classes=10), 32, 0),
    ],
    ids=["swin", "swin v2", "coatnet", "beit", "normaliser-free", "mixer", "register tokens"],
)
def test_families_and_what_of_them_is_carried(factory: Callable[[], nn.Module], size: int, n_calls: int) -> None:
    model = model_of(factory(), size, n_logits=10)
    assert sum(node["op"]["op"] == "call" for node in model.graph["nodes"]) == n_calls
