#!/usr/bin/env bash
# A 16-bit gray PNG through torchvision's usual pipeline.
#
# A good engineer would guess that `ToTensor()` gives 0…1 for it, as for every 8-bit image ("Converts a PIL Image to a
# tensor and scales the values"), or refuses it. It does neither: Pillow opens the file as mode `I;16`, torchvision
# reads those pixels as *signed* 16-bit numbers, so that the brighter half of the image turns negative, and scales
# nothing. `convert("RGB")`, which ImageFolder's loader does first, clips instead: every pixel above 255 is white.
# torchvision's own decoder, on the same bytes, gives unsigned 16-bit numbers. Three ways in, three images.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" --quiet --disable-pip-version-check install numpy==2.3.5 pillow==12.0.0 torch==2.11.0 torchvision==0.26.0
"$folder/env/bin/python" - "$folder/gray16.png" <<'PYTHON'
import sys
import numpy as np, PIL, torch, torchvision
from PIL import Image
from torchvision import transforms
from torchvision.datasets.folder import default_loader
from torchvision.io import ImageReadMode, decode_image, read_file

path = sys.argv[1]
stored = np.array([[0, 255, 256, 20_000, 32_767, 32_768, 50_000, 65_535]], dtype=np.uint16)
Image.fromarray(stored).save(path)
print("Pillow", PIL.__version__, "torchvision", torchvision.__version__, "torch", torch.__version__)
opened = Image.open(path)
tensor = transforms.ToTensor()(opened)
loader = np.asarray(default_loader(path))[0, :, 0]
decoded = decode_image(read_file(path), ImageReadMode.UNCHANGED)
print("stored             ", stored[0].tolist())
print("Image.open         ", opened.mode)
print("ToTensor           ", tensor.dtype, tensor[0, 0].tolist())
print("ImageFolder, red   ", loader.dtype, loader.tolist())
print("decode_image       ", decoded.dtype, decoded[0, 0].tolist())
assert opened.mode == "I;16"
assert tensor.dtype == torch.int16 and tensor[0, 0].tolist() == stored[0].view(np.int16).tolist()
assert loader.tolist() == [0, 255, 255, 255, 255, 255, 255, 255]
assert decoded.dtype == torch.uint16 and decoded[0, 0].tolist() == stored[0].tolist()
PYTHON
echo "as described: signed and unscaled, clipped, unsigned"
