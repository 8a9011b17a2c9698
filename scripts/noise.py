"""Images of Gaussian noise as IDX files: for experiments on what the images have to be of."""

import argparse
import gzip
import random
import struct
from pathlib import Path


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--size", type=int, default=28)
    parser.add_argument("--mean", type=float, default=0.5, help="of a pixel, in 0…1")
    parser.add_argument("--std", type=float, default=0.25)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--out", type=Path, required=True)
    args = parser.parse_args()
    draw = random.Random(args.seed).gauss
    mean, std, n = 255 * args.mean, 255 * args.std, args.size**2
    part = args.out.with_name(args.out.name + ".part")
    part.mkdir(parents=True, exist_ok=True)
    for name in ("train", "t10k"):
        pixels = bytearray()
        for _ in range(args.images * n):
            pixels.append(min(255, max(0, round(draw(mean, std)))))
        with gzip.GzipFile(part / f"{name}-images-idx3-ubyte.gz", "wb", mtime=0) as file:
            file.write(struct.pack(">4I", 0x803, args.images, args.size, args.size) + pixels)
        with gzip.GzipFile(part / f"{name}-labels-idx1-ubyte.gz", "wb", mtime=0) as file:
            file.write(struct.pack(">2I", 0x801, args.images) + bytes(args.images))
    (part / "classes.txt").write_text("noise\n")
    part.rename(args.out)


if __name__ == "__main__":
    main()
