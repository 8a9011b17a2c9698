#!/usr/bin/env bash
# timm's CSATv2: the "spatial" attention compares images of the batch with each other, not positions of an image.
#
# A good engineer would guess from the name, and from the shape (B, N, N) noted beside it, that every image attends over its own
# 49 positions. Queries and keys are [B, N] there, so q·kᵀ is [B, B]: a softmax over the images of the batch, and each image
# gets a mixture of the values of all. No prediction shows it: the tokens have one feature, LayerNorm over one feature gives
# its bias whatever it reads, so all images have the same values and the mixture of equals is no mixture. Who traces the
# network sees a function that mixes the batch (and cannot say with one image that it does not); who fine-tunes it trains
# weights that never see the image.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" --quiet --disable-pip-version-check install \
    numpy==2.3.5 torch==2.11.0 torchvision==0.26.0 timm==1.0.31
"$folder/env/bin/python" -W ignore - <<'PYTHON'
import timm
import torch
from timm.models.csatv2 import SpatialTransformerBlock

print("timm", timm.__version__, "torch", torch.__version__)
torch.manual_seed(0)
block = SpatialTransformerBlock().eval()
for parameter in block.parameters():
    torch.nn.init.normal_(parameter)
images = torch.randn(5, 1, 7, 7)

traced = torch.export.export(block, (images,))
shapes = [list(node.meta["val"].shape) for node in traced.graph.nodes if "softmax" in node.name]
print("softmax over", shapes, "for 5 images of 49 positions")

tokens = []
block.qkv.register_forward_pre_hook(lambda _, given: tokens.append(given[0].squeeze(-1)))
with torch.no_grad():
    block(images)
    alike = bool((tokens[0] == tokens[0][:1]).all())
    block(10 * images)
same = torch.equal(tokens[0], tokens[1])
print("all images have the same tokens:", alike, "- and other images have them, too:", same)
assert shapes == [[5, 5]] and alike and same
PYTHON
echo "as described"
