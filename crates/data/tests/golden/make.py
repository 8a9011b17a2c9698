"""Golden images for zipit-data: what torchvision's Resize + CenterCrop give on PIL images.

    python3 -m venv venv && venv/bin/pip install pillow==13.0.0 numpy && venv/bin/python make.py

Writes the inputs, the expected outputs and cases.tsv next to this file. Only Pillow and NumPy are needed: the two
torchvision transforms are size arithmetic around `Image.resize(BILINEAR)` and `Image.crop`, repeated here.
"""

from pathlib import Path

import numpy as np
from PIL import Image

HERE = Path(__file__).parent

# name, input, size (height, width), resize (None: cover the size)
CASES = [
    ("same_size", "gray_28x28.png", (28, 28), None),
    ("gray_up", "gray_28x28.png", (32, 32), None),
    ("gray_up_crop", "gray_28x28.png", (32, 32), 36),
    ("gray_down", "gray_28x28.png", (9, 9), None),
    ("rgb_down_wide", "rgb_45x70.png", (32, 32), None),
    ("rgb_down_tall", "rgb_71x40.png", (32, 32), None),
    ("rgb_resize_crop", "rgb_45x70.png", (28, 28), 33),
    ("rgb_resize_odd_crop", "rgb_71x40.png", (24, 24), 31),
    ("rgb_up", "rgb_45x70.png", (64, 64), 72),
    ("rgb_wide_network", "rgb_45x70.png", (20, 50), None),
    ("rgb_tall_network", "rgb_45x70.png", (50, 20), None),
    ("rgb_crop_only", "rgb_45x70.png", (32, 32), 45),
    ("rgb_much_smaller", "rgb_71x40.png", (5, 5), None),
    ("rgba_drops_alpha", "rgba_40x40.png", (32, 32), None),
]


def target_size(w, h, size, resize):
    if resize is not None:  # torchvision.transforms.Resize(resize)
        return (int(resize * w / h), resize) if h <= w else (resize, int(resize * h / w))
    crop_h, crop_w = size
    if crop_h * w >= crop_w * h:
        return w * crop_h // h, crop_h
    return crop_w, h * crop_w // w


def centre_crop(image, size):  # torchvision.transforms.CenterCrop(size)
    crop_h, crop_w = size
    top = int(round((image.height - crop_h) / 2.0))
    left = int(round((image.width - crop_w) / 2.0))
    return image.crop((left, top, left + crop_w, top + crop_h))


def picture(rng, h, w, channels):
    """Smooth shapes, hard edges and noise: what a filter can get wrong."""
    y, x = np.mgrid[0:h, 0:w]
    planes = []
    for c in range(channels):
        plane = 127 + 80 * np.sin(x / (3 + c)) * np.cos(y / (5 - c)) + rng.normal(0, 20, (h, w))
        plane[(x // 7 + y // 9) % 3 == c % 3] = 255 * (c % 2)
        planes.append(plane)
    return np.clip(np.stack(planes, -1), 0, 255).astype(np.uint8)


def main():
    rng = np.random.default_rng(0)
    Image.fromarray(picture(rng, 28, 28, 1)[..., 0]).save(HERE / "gray_28x28.png")
    Image.fromarray(picture(rng, 45, 70, 3)).save(HERE / "rgb_45x70.png")
    Image.fromarray(picture(rng, 71, 40, 3)).save(HERE / "rgb_71x40.png")
    Image.fromarray(picture(rng, 40, 40, 4)).save(HERE / "rgba_40x40.png")

    lines = ["case\tinput\theight\twidth\tresize"]
    for name, source, size, resize in CASES:
        image = Image.open(HERE / source)
        if image.mode == "RGBA":
            image = image.convert("RGB")  # as torchvision's loader does
        target = target_size(image.width, image.height, size, resize)
        if target != image.size:
            image = image.resize(target, Image.Resampling.BILINEAR)
        centre_crop(image, size).save(HERE / f"{name}.expected.png")
        lines.append(f"{name}\t{source}\t{size[0]}\t{size[1]}\t{'' if resize is None else resize}")
    (HERE / "cases.tsv").write_text("\n".join(lines) + "\n")

    # JPEG as cameras write it (chroma at half resolution) and as the smallest files are, with what PIL decodes.
    photo = Image.fromarray(picture(rng, 33, 50, 3)).resize((100, 66), Image.Resampling.BICUBIC)
    photo.save(HERE / "photo_420.jpg", quality=85, subsampling="4:2:0")
    photo.save(HERE / "photo_progressive.jpg", quality=85, subsampling="4:4:4", progressive=True)
    photo.convert("L").save(HERE / "photo_gray.jpg", quality=85)
    for name in ["photo_420", "photo_progressive", "photo_gray"]:
        Image.open(HERE / f"{name}.jpg").save(HERE / f"{name}.expected.png")


if __name__ == "__main__":
    main()
