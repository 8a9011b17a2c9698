"""Two networks of torchvision's that are no ResNets, made for small gray images.

`train_foreign.py` trains them; they are factories for `zipit_torch.py export scripts/foreign_nets.py:mobilenet_v2`.
"""

from __future__ import annotations

from torch import nn
from torchvision import models
from torchvision.models.vision_transformer import VisionTransformer

# torchvision's table (expansion, channels, blocks, stride) with strides for 28×28 images: the first convolution makes
# 14×14 of them, then come 7×7 and 4×4.
MOBILENET_STAGES = [
    [1, 16, 1, 1],
    [6, 24, 2, 1],
    [6, 32, 3, 2],
    [6, 64, 4, 2],
    [6, 96, 3, 1],
    [6, 160, 3, 1],
    [6, 320, 1, 1],
]


def mobilenet_v2(num_classes: int = 5, width_mult: float = 0.5, channels: int = 1) -> nn.Module:
    """MobileNetV2 whose first convolution takes `channels`."""
    net = models.mobilenet_v2(
        num_classes=num_classes, width_mult=width_mult, inverted_residual_setting=MOBILENET_STAGES
    )
    first = net.features[0][0]
    net.features[0][0] = nn.Conv2d(channels, first.out_channels, kernel_size=3, stride=2, padding=1, bias=False)
    nn.init.kaiming_normal_(net.features[0][0].weight, mode="fan_out")
    return net


def vit(num_classes: int = 5, channels: int = 1, image_size: int = 28, patch_size: int = 7) -> nn.Module:
    """A vision transformer of 4 layers of width 64 with 4 heads, on patches of `patch_size`."""
    net = VisionTransformer(
        image_size=image_size,
        patch_size=patch_size,
        num_layers=4,
        num_heads=4,
        hidden_dim=64,
        mlp_dim=128,
        num_classes=num_classes,
    )
    if channels != 3:
        net.conv_proj = nn.Conv2d(channels, 64, kernel_size=patch_size, stride=patch_size)
        nn.init.trunc_normal_(net.conv_proj.weight, std=(channels * patch_size**2) ** -0.5)
        nn.init.zeros_(net.conv_proj.bias)
    nn.init.trunc_normal_(net.heads.head.weight, std=0.02)  # torchvision starts at zero, the same for every seed
    return net


FACTORIES = {"mobilenet_v2": mobilenet_v2, "vit": vit}
