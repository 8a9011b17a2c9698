"""Golden images for zipit-data: what torchvision's and timm's transforms give on PIL images.

    .venv-python/bin/python crates/data/tests/golden/make.py [cjpeg]

Writes the inputs, the expected outputs, cases.tsv and files.tsv next to this file. `cjpeg` is libjpeg-turbo's (Debian:
libjpeg-turbo-progs): it writes the JPEGs that Pillow does not; without it theirs are left as they are. compare.py takes
many more of each through the same.
"""

from __future__ import annotations

import io
import pickle
import struct
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from timm.data.transforms import CenterCropOrPad, ResizeKeepRatio, str_to_interp_mode
from torchvision import transforms

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


# name, input, size, resize, crop, interpolation: as a model file spells them
MORE = [
    ("nearest_down", "rgb_71x40.png", (17, 17), None, "center", "nearest"),
    ("nearest_up", "rgb_45x70.png", (47, 47), 53, "squash", "nearest"),
    ("box_down", "rgb_45x70.png", (20, 20), None, "center", "box"),
    ("box_up", "gray_28x28.png", (31, 31), None, "center", "box"),
    ("hamming_down", "rgb_71x40.png", (20, 20), 23, "center", "hamming"),
    ("hamming_up", "gray_28x28.png", (41, 41), None, "center", "hamming"),
    ("bicubic_down", "rgb_45x70.png", (28, 28), 32, "center", "bicubic"),
    ("bicubic_up", "rgb_71x40.png", (48, 48), 50, "center", "bicubic"),
    ("bicubic_gray_up", "gray_28x28.png", (64, 64), None, "center", "bicubic"),
    ("lanczos_down", "rgb_45x70.png", (16, 16), None, "squash", "lanczos"),
    ("lanczos_up", "gray_28x28.png", (61, 61), None, "center", "lanczos"),
    ("squash_wide", "rgb_45x70.png", (20, 30), (24, 33), "squash", "bilinear"),
    ("center_two_sides", "rgb_71x40.png", (20, 30), (23, 33), "center", "bicubic"),
    ("border_wide", "rgb_45x70.png", (32, 32), None, "border", "bicubic"),
    ("border_tall", "rgb_71x40.png", (31, 31), (27, 27), "border", "bilinear"),
    ("border_cut", "rgb_71x40.png", (24, 24), 33, "border", "bicubic"),
    ("border_gray", "gray_28x28.png", (20, 31), None, "border", "bilinear"),
]
FILL = [7, 100, 200]


def reference(image: Image.Image, spec: dict) -> Image.Image:
    """`timm.data.transforms_factory.transforms_imagenet_eval` with a fill of one's own, without its last two steps."""
    size, resize = tuple(spec["size"]), spec.get("resize", spec["size"])
    scale = (resize, resize) if isinstance(resize, int) else tuple(resize)
    filter_ = spec.get("interpolation", "bilinear")
    interpolation = str_to_interp_mode(filter_)
    match spec.get("crop", "center"):
        case "squash":
            steps = [transforms.Resize(scale, interpolation), transforms.CenterCrop(size)]
        case "border":
            fill = spec["fill"] if image.mode == "RGB" else spec["fill"][0]
            steps = [ResizeKeepRatio(scale, longest=1.0, interpolation=filter_), CenterCropOrPad(size, fill=fill)]
        case _ if scale[0] == scale[1]:
            steps = [transforms.Resize(scale[0], interpolation), transforms.CenterCrop(size)]
        case _:
            steps = [ResizeKeepRatio(scale, interpolation=filter_), transforms.CenterCrop(size)]
    return transforms.Compose(steps)(image)


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

    lines = ["case\tinput\theight\twidth\tresize\tcrop\tinterpolation"]
    for name, source, size, resize, *how in [(*case, "center", "bilinear") for case in CASES] + MORE:
        image = Image.open(HERE / source)
        if image.mode == "RGBA":
            image = image.convert("RGB")  # as torchvision's loader does
        crop, interpolation = how
        spec = {"size": size, "crop": crop, "interpolation": interpolation, "fill": FILL}
        told = ""
        if resize is not None:
            spec["resize"] = resize
            told = resize if isinstance(resize, int) else "x".join(map(str, resize))
        reference(image, spec).save(HERE / f"{name}.expected.png")
        lines.append(f"{name}\t{source}\t{size[0]}\t{size[1]}\t{told}\t{crop}\t{interpolation}")
    (HERE / "cases.tsv").write_text("\n".join(lines) + "\n")

    # One file of every kind, with what PIL makes of it.
    cjpeg = sys.argv[1] if len(sys.argv) > 1 else None
    left = set(COMMITTED)
    for kind, name, contents, want in [*jpegs(rng, 33, 50, cjpeg), *other_files(rng, 13, 21)]:
        if kind in left:
            left.remove(kind)
            stem = kind.replace(" ", "_").replace(":", "")
            path = HERE / f"file_{stem}{Path(name).suffix}"
            path.write_bytes(contents)
            image = Image.open(path).convert("RGB") if want is None else Image.fromarray(want)
            image.save(HERE / f"file_{stem}.expected.png")

    # CIFAR's batches as today's Python writes them again, and HDF5 as h5py's users do.
    array = (np.arange(2 * 3072) % 251).astype(np.uint8).reshape(2, 3072)
    for protocol in range(2, 6):
        batch = {"data": array, "labels": [1, 0], "batch_label": "one", "filenames": ["a.png", "b.png"]}
        (HERE / f"cifar_protocol{protocol}.pickle").write_bytes(pickle.dumps(batch, protocol))
    try:
        import h5py
    except ImportError:
        sys.exit("h5py is not installed (nothing else needs it): gzip.h5 is left as it is")
    with h5py.File(HERE / "gzip.h5", "w") as file:
        file["classes"] = np.array([b"cat", b"dog"])
        images = array.reshape(2, 3, 32, 32)
        file.create_dataset("train/images", data=images, chunks=(1, 3, 16, 32), compression="gzip", shuffle=True, fletcher32=True)
        file["train/labels"] = np.array([1, 0])


# Kinds of `jpegs` and `other_files` of which one is kept.
COMMITTED = [
    "JPEG 4:2:0", "JPEG progressive", "JPEG gray", "JPEG CMYK", "JPEG restarts", "JPEG 4:1:1", "JPEG one scan a component 4:4:0",
    "JPEG arithmetic", "PNG gray 1", "PNG gray 16", "PNG RGB 16", "PNG palette transparent", "BMP palette", "BMP RLE",
    "PPM text", "PGM of 100 levels", "PBM", "TIFF LZW", "WebP lossy", "WebP lossless alpha",
]


def saved(image: Image.Image, format_: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, format_, **options)
    return out.getvalue()


def jpegs(rng, h: int, w: int, cjpeg: str | None) -> Iterator[tuple[str, str, bytes, np.ndarray | None]]:
    """Kind, file name, contents, and the expected pixels where they are not those of `convert("RGB")`."""
    rgb = Image.fromarray(picture(rng, h, w, 3))
    gray, ink = rgb.convert("L"), Image.fromarray(picture(rng, h, w, 4), "CMYK")
    for name in ["4:4:4", "4:2:2", "4:2:0"]:
        yield f"JPEG {name}", "a.jpg", saved(rgb, "JPEG", quality=85, subsampling=name), None
        yield "JPEG progressive", "a.jpeg", saved(rgb, "JPEG", quality=85, subsampling=name, progressive=True), None
        yield "JPEG restarts", "a.jpg", saved(rgb, "JPEG", quality=85, subsampling=name, restart_marker_blocks=1), None
    yield "JPEG quality 10", "a.jpg", saved(rgb, "JPEG", quality=10), None
    yield "JPEG RGB", "a.jpg", saved(rgb, "JPEG", quality=85, keep_rgb=True), None
    for progressive in [False, True]:
        yield "JPEG gray", "a.jpg", saved(gray, "JPEG", quality=85, progressive=progressive), None
        yield "JPEG CMYK", "a.jpg", saved(ink, "JPEG", quality=85, progressive=progressive), None
    if cjpeg is None:
        return
    kinds = [("4:4:0", "1x2"), ("4:1:1", "4x1"), ("4:4:1", "1x4"), ("4:1:0", "4x2"), ("mixed", "2x1,1x2,1x1"), ("4:2:0", "2x2")]
    with tempfile.TemporaryDirectory() as folder:
        image, scans, out = Path(folder, "in.ppm"), Path(folder, "scans"), Path(folder, "out.jpg")
        rgb.save(image)
        scans.write_text("0;\n1;\n2;\n")
        for (name, sample), (how, options) in ((k, o) for k in kinds for o in [
            ("", []), ("one scan a component ", ["-scans", str(scans)]), ("arithmetic", ["-arithmetic"]),
            ("arithmetic", ["-arithmetic", "-progressive"]), ("progressive", ["-progressive"]), ("restarts", ["-restart", "1B"]),
        ]):
            command = [cjpeg, "-quality", "85", "-sample", sample, *options, "-outfile", str(out), str(image)]
            subprocess.run(command, check=True)
            kind = f"JPEG {how}{name}" if how == "" or how.endswith(" ") else f"JPEG {how}"
            yield kind, "a.jpg", out.read_bytes(), None


def other_files(rng, h: int, w: int) -> Iterator[tuple[str, str, bytes, np.ndarray | None]]:
    rgb, rgba = Image.fromarray(picture(rng, h, w, 3)), Image.fromarray(picture(rng, h, w, 4))
    gray, two = rgb.convert("L"), Image.fromarray(picture(rng, h, w, 2), "LA")
    palette = rgb.quantize(17)
    bits = gray.point(lambda v: 255 * (v > 127)).convert("1")
    deep = picture(rng, h, w, 1)[..., 0].astype(np.uint16) * 257 - 100
    deep_rgb = (deep >> 8).astype(np.uint8)
    as_rgb = np.repeat(deep_rgb[..., None], 3, -1)
    for name, image in [("RGB", rgb), ("RGBA", rgba), ("gray", gray), ("gray and alpha", two)]:
        yield f"PNG {name}", "a.png", saved(image, "PNG"), None
    yield "PNG gray 1", "a.png", saved(bits, "PNG"), None
    for n in [2, 4]:
        yield f"PNG gray {n}", "a.png", gray_png(np.asarray(gray) >> (8 - n), n), None
    yield "PNG gray 16", "a.png", saved(Image.fromarray(deep), "PNG"), as_rgb
    for kind, n in [("gray and alpha", 2), ("RGB", 3), ("RGBA", 4)]:
        values = np.stack([np.roll(deep, i, 0) for i in range(n)], -1)
        yield f"PNG {kind} 16", "a.png", raw_png(values, {2: 4, 3: 2, 4: 6}[n], 16), None
    for n in [1, 2, 4, 8]:
        few = rgb.quantize(1 << n)
        yield "PNG palette", "a.png", saved(few, "PNG", bits=n), None
        yield "PNG palette transparent", "a.png", saved(few, "PNG", bits=n, transparency=bytes([0, 90, 255][: 1 << n])), None
    yield "PNG interlaced", "a.png", interlaced_png(np.asarray(rgb)), None
    yield "BMP 24", "a.bmp", saved(rgb, "BMP"), None
    yield "BMP 32", "a.bmp", saved(rgba, "BMP"), None
    yield "BMP palette", "a.bmp", saved(palette, "BMP"), None
    yield "BMP gray", "a.bmp", saved(gray, "BMP"), None
    yield "BMP 1", "a.bmp", saved(bits, "BMP"), None
    yield "BMP RLE", "a.bmp", rle_bmp(palette), None
    yield "PPM", "a.ppm", saved(rgb, "PPM"), None
    yield "PGM", "a.pgm", saved(gray, "PPM"), None
    yield "PBM", "a.pbm", saved(bits, "PPM"), None
    text = f"P3\n# a comment\n{w} {h}\n255\n" + " ".join(map(str, np.asarray(rgb).ravel())) + "\n"
    yield "PPM text", "a.ppm", text.encode(), None
    for largest in [100, 7, 1]:
        levels = (np.asarray(gray).astype(int) * largest // 255).astype(np.uint8)
        yield "PGM of 100 levels", "a.pgm", f"P5 {w} {h} {largest}\n".encode() + levels.tobytes(), None
    yield "PPM 16", "a.ppm", f"P6 {w} {h} 65535\n".encode() + np.stack([deep] * 3, -1).astype(">u2").tobytes(), None
    for name, compression in [("", "raw"), (" LZW", "tiff_lzw"), (" Deflate", "tiff_adobe_deflate"), (" PackBits", "packbits")]:
        for image in [rgb, gray, rgba]:
            yield f"TIFF{name}", "a.tif", saved(image, "TIFF", compression=compression), None
    yield "TIFF 1", "a.tif", saved(bits, "TIFF"), None
    yield "TIFF CMYK", "a.tif", saved(Image.fromarray(picture(rng, h, w, 4), "CMYK"), "TIFF"), None
    yield "TIFF gray 16", "a.tif", saved(Image.fromarray(deep), "TIFF"), as_rgb
    for quality in [30, 80, 95]:
        yield "WebP lossy", "a.webp", saved(rgb, "WEBP", quality=quality), None
        yield "WebP lossy alpha", "a.webp", saved(rgba, "WEBP", quality=quality), None
    yield "WebP lossless", "a.webp", saved(rgb, "WEBP", lossless=True), None
    yield "WebP lossless alpha", "a.webp", saved(rgba, "WEBP", lossless=True, exact=True), None


def chunk(name: bytes, data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + name + data + zlib.crc32(name + data).to_bytes(4, "big")


def png_of(h: int, w: int, bits: int, color: int, rows: bytes, interlaced: bool = False) -> bytes:
    header = w.to_bytes(4, "big") + h.to_bytes(4, "big") + bytes([bits, color, 0, 0, int(interlaced)])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def raw_png(values: np.ndarray, color: int, bits: int) -> bytes:
    """The PNGs that Pillow does not write."""
    stored = values.astype(">u2" if bits == 16 else np.uint8)
    return png_of(*values.shape[:2], bits, color, b"".join(b"\0" + row.tobytes() for row in stored))


def gray_png(values: np.ndarray, bits: int) -> bytes:
    h, w = values.shape
    deep = np.unpackbits(values[..., None].astype(np.uint8), axis=-1)[..., 8 - bits :].reshape(h, -1)
    return png_of(h, w, bits, 0, b"".join(b"\0" + row.tobytes() for row in np.packbits(deep, axis=-1)))


def interlaced_png(values: np.ndarray) -> bytes:
    passes = [(0, 8, 0, 8), (0, 8, 4, 8), (4, 8, 0, 4), (0, 4, 2, 4), (2, 4, 0, 2), (0, 2, 1, 2), (1, 2, 0, 1)]
    rows = b""
    for y, dy, x, dx in passes:
        part = values[y::dy, x::dx]
        rows += b"".join(b"\0" + row.tobytes() for row in part if part.size)
    return png_of(*values.shape[:2], 8, 2, rows, interlaced=True)


def rle_bmp(palette: Image.Image) -> bytes:
    """A BMP of run-length encoded palette indices, which Pillow only reads."""
    indices = np.asarray(palette)[::-1]
    data = b""
    for row in indices:
        at = 0
        while at < len(row):
            run = 1
            while at + run < len(row) and run < 255 and row[at + run] == row[at]:
                run += 1
            data += bytes([run, row[at]])
            at += run
        data += b"\0\0"
    data += b"\0\1"
    colours = palette.getpalette()
    n = len(colours) // 3
    table = b"".join(bytes([*colours[3 * i : 3 * i + 3][::-1], 0]) for i in range(n))
    h, w = indices.shape
    start = 14 + 40 + len(table)
    info = struct.pack("<IiiHHIIiiII", 40, w, h, 1, 8, 1, len(data), 2835, 2835, n, n)
    return b"BM" + struct.pack("<IHHI", start + len(data), 0, 0, start) + info + table + data


if __name__ == "__main__":
    main()
