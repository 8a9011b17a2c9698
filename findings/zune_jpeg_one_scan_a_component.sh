#!/usr/bin/env bash
# A baseline JPEG that has one component in each scan ("not interleaved", as `jpegtran -scans` and some cameras write
# it; ITU-T T.81 allows it) and chroma that is halved vertically.
#
# Pillow (libjpeg-turbo) reads it right: the picture is four flat fields of known colours. The crate `image`, whose
# decoder is zune-jpeg, returns no error, in its strict mode neither, but other colours in most of the picture.
# An image pipeline in Rust therefore trains or evaluates on garbage without a word.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" --quiet --disable-pip-version-check install numpy==2.3.5 pillow==12.0.0
cat > "$folder/make.py" <<'PYTHON'
"""Writes 64×64 pixels of four flat fields, every block its DC coefficient alone, Y of 1×2 blocks a unit, Cb and Cr of 1×1."""
import struct, sys

FIELDS = [[(200, 100, 90), (60, 160, 200)], [(120, 90, 170), (230, 128, 128)]]  # Y, Cb, Cr by quadrant

def segment(marker, body):
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body

# Twelve categories of equally long codes for DC; for AC only "end of block", one bit.
DC = [0, 0, 0, 12] + [0] * 12
AC = [1] + [0] * 15
out = b"\xff\xd8" + segment(0xDB, b"\0" + bytes([8] + [1] * 63))
out += segment(0xC0, struct.pack(">BHHB", 8, 64, 64, 3) + bytes([1, 0x12, 0, 2, 0x11, 0, 3, 0x11, 0]))
out += segment(0xC4, b"\0" + bytes(DC) + bytes(range(12))) + segment(0xC4, b"\x10" + bytes(AC) + b"\0")
for component, rows in enumerate((8, 4, 4)):
    bits, before = "", 0
    for y in range(rows):
        for x in range(8):
            dc = FIELDS[y * 2 // rows][x // 4][component] - 128  # DC = 8 · mean, quantised by 8
            step, before = dc - before, dc
            n = abs(step).bit_length()
            bits += f"{n:04b}" + (f"{step if step > 0 else step + (1 << n) - 1:0{n}b}" if n else "") + "0"
    bits += "1" * (-len(bits) % 8)
    scan = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")
    out += segment(0xDA, bytes([1, component + 1, 0, 0, 63, 0])) + scan
open(sys.argv[1], "wb").write(out + b"\xff\xd9")
PYTHON
mkdir -p "$folder/src"
cat > "$folder/Cargo.toml" <<'TOML'
[package]
name = "decode"
version = "0.0.0"
edition = "2021"
[dependencies]
image = { version = "=0.25.10", default-features = false, features = ["jpeg"] }
zune-jpeg = "=0.5.15"
TOML
cat > "$folder/src/main.rs" <<'RUST'
use zune_jpeg::{zune_core::{bytestream::ZCursor, options::DecoderOptions}, JpegDecoder};
fn main() {
    let path = std::env::args().nth(1).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let strict = JpegDecoder::new_with_options(ZCursor::new(&bytes), DecoderOptions::default().set_strict_mode(true)).decode();
    assert_eq!(strict.expect("zune-jpeg, strict, now refuses the file").len(), 64 * 64 * 3);
    let pixels = image::open(&path).expect("image now refuses the file").into_rgb8();
    std::fs::write(format!("{path}.rgb"), pixels.into_raw()).unwrap();
}
RUST
"$folder/env/bin/python" "$folder/make.py" "$folder/fields.jpg"
CARGO_TARGET_DIR="$folder/target" cargo run --quiet --release --manifest-path "$folder/Cargo.toml" -- "$folder/fields.jpg"
"$folder/env/bin/python" - "$folder/fields.jpg" <<'PYTHON'
import sys
import numpy as np, PIL
from PIL import Image, features

path = sys.argv[1]
right = np.asarray(Image.open(path).convert("RGB")).astype(int)
rust = np.fromfile(path + ".rgb", dtype=np.uint8).reshape(64, 64, 3).astype(int)
off = abs(right - rust).max(axis=2)
print("Pillow", PIL.__version__, "libjpeg-turbo", features.version("libjpeg_turbo"), "; image 0.25.10, zune-jpeg 0.5.15")
for name, pixels in (("Pillow", right), ("image ", rust)):
    print(name, "centres of the four fields:", [pixels[y, x].tolist() for y in (16, 48) for x in (16, 48)])
print(f"largest difference {off.max()}, pixels off by more than 20: {(off > 20).mean():.0%}")
fields = [[(200, 100, 90), (60, 160, 200)], [(120, 90, 170), (230, 128, 128)]]
for i, y in enumerate((16, 48)):
    for j, x in enumerate((16, 48)):
        luma, cb, cr = fields[i][j]
        rgb = luma + 1.402 * (cr - 128), luma - 0.344136 * (cb - 128) - 0.714136 * (cr - 128), luma + 1.772 * (cb - 128)
        assert np.abs(right[y, x] - np.clip(np.round(rgb), 0, 255)).max() <= 2, "Pillow is not right any more"
assert off.max() > 100 and (off > 20).mean() > 0.25, "the crate reads the file right, or nearly"
PYTHON
echo "as described: no error, other colours"
