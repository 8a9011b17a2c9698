"""How far images read by zipit-data are from Pillow's, torchvision's and timm's: the tables of docs/images.md.

    cargo build --release -p zipit-data --example pixels
    .venv-python/bin/python crates/data/tests/golden/compare.py target/release/examples/pixels [cjpeg]

Writes some hundred images of every kind into a temporary folder, has them read by both, and prints the largest difference
of any value of 0…255 per kind. With `cjpeg` of libjpeg-turbo (Debian: libjpeg-turbo-progs) also the JPEGs that Pillow
cannot write. Exits with 1 if a kind is further off than it should be.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np
from make import other_files, jpegs, picture, reference
from PIL import Image

SIZES = [(1, 1), (7, 9), (33, 50), (64, 48), (65, 31), (90, 3)]
CHANNELS = 3


def pixels(program: str, asked: list[tuple[Path, dict]]) -> list[bytes]:
    """What zipit-data makes of every data set, or `error: …`."""
    text = "".join(f"{path}\t{json.dumps(spec)}\n" for path, spec in asked)
    out = subprocess.run([program], input=text.encode(), stdout=subprocess.PIPE, check=True).stdout
    found = []
    while out:
        line, _, out = out.partition(b"\n")
        found.append(out[: int(line)])
        out = out[int(line) :]
    return found


def spec(size: tuple[int, int], **more: object) -> dict:
    return {"size": list(size), **more, "mean": [0.0] * CHANNELS, "std": [1.0] * CHANNELS}


def decoding(program: str, folder: Path, cjpeg: str | None) -> tuple[dict, int]:
    rng = np.random.default_rng(0)
    asked, expected = [], []
    for n, (h, w) in enumerate(SIZES):
        files = itertools.chain(jpegs(rng, h, w, cjpeg), other_files(rng, h, w))
        for i, (kind, name, contents, want) in enumerate(files):
            root = folder / f"{n}_{i}"
            (root / "test" / "c").mkdir(parents=True)
            (root / "test" / "c" / name).write_bytes(contents)
            if want is None:
                want = np.asarray(Image.open(root / "test" / "c" / name).convert("RGB"))
            asked.append((root, spec((h, w))))
            expected.append((kind, name, want))
    worst: dict[str, list[int]] = defaultdict(list)
    for (kind, name, want), found in zip(expected, pixels(program, asked), strict=True):
        worst[kind].append(difference(f"{kind}: {name}", want, found))
    return worst, len(asked)


def resizing(program: str, folder: Path) -> tuple[dict, int]:
    rng = np.random.default_rng(1)
    asked, expected = [], []
    images = []
    for n, (h, w) in enumerate([(33, 50), (71, 40), (28, 28), (64, 200), (9, 5)]):
        root = folder / f"resize{n}"
        (root / "test" / "c").mkdir(parents=True)
        array = picture(rng, h, w, 3) if n % 2 else rng.integers(0, 256, (h, w, 3)).astype(np.uint8)
        Image.fromarray(array).save(root / "test" / "c" / "x.png")
        images.append((root, Image.fromarray(array)))
    filters = ["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]
    sizes = [((20, 20), None), ((24, 24), 31), ((64, 64), 72), ((20, 50), None), ((32, 24), (40, 27)), ((97, 97), 97)]
    for (root, image), crop, filter_, (size, resize) in itertools.product(images, ["center", "squash", "border"], filters, sizes):
        more = {"crop": crop, "interpolation": filter_}
        if resize:
            more["resize"] = resize
        if crop == "border":
            more["fill"] = [7, 100, 200]
        asked.append((root, spec(size, **more)))
        want = np.asarray(reference(image, asked[-1][1]))
        expected.append((f"{crop}, {filter_}", f"{image.size} to {more} {size}", want))
    worst: dict[str, list[int]] = defaultdict(list)
    for (kind, name, want), found in zip(expected, pixels(program, asked), strict=True):
        worst[kind].append(difference(f"{kind}: {name}", want, found))
    return worst, len(asked)


def difference(what: str, want: np.ndarray, found: bytes) -> int:
    if found.startswith(b"error: ") and len(found) != want.size:
        print(f"{what}: {found.decode()}", file=sys.stderr)
        return -1
    got = np.frombuffer(found, np.uint8).reshape(CHANNELS, *want.shape[:2]).transpose(1, 2, 0)
    return int(np.abs(got.astype(int) - want).max())


def main() -> int:
    program, cjpeg = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None
    bad = 0
    with tempfile.TemporaryDirectory() as folder:
        for title, (worst, n) in [
            ("kind", decoding(program, Path(folder), cjpeg)),
            ("crop, filter", resizing(program, Path(folder))),
        ]:
            print(f"\n{n} images\n\n| {title} | n | largest difference |\n|---|---|---|")
            for kind, values in worst.items():
                refused = sum(v < 0 for v in values)
                bad += refused + sum(v > 1 for v in values)
                told = str(max(values)) if refused == 0 else f"{refused} refused"
                print(f"| {kind} | {len(values)} | {told} |")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
