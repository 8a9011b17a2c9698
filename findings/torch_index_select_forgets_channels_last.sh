#!/usr/bin/env bash
# Which LibTorch ops keep `channels_last`, the memory format in which convolutions on a CPU are fast.
#
# A good engineer would guess that a format which "propagates through operators" survives choosing some images of a batch,
# and that two spellings of one thing leave the same. They do not: `x[rows]` and `torch.cat` keep it, `x.index_select(0,
# rows)`, `torch.stack`, `x.repeat` and `x.repeat_interleave` give an NCHW tensor with the same numbers; `torch.where`
# keeps it, `x.masked_fill` with the same condition does not. Nothing says so: shapes, numbers and later results are equal,
# and what follows transposes every image, here in a copy into rows of channels, which takes several times as long.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" --quiet --disable-pip-version-check install numpy==2.3.5 torch==2.11.0
"$folder/env/bin/python" - <<'PYTHON'
import time
import torch

torch.set_num_threads(1)
print("torch", torch.__version__)
x = torch.randn(32, 16, 32, 32).contiguous(memory_format=torch.channels_last)
rows = torch.arange(0, 32, 2)
positive = x > 0
pairs = {
    "some images": [("x[rows]", x[rows]), ("x.index_select(0, rows)", x.index_select(0, rows))],
    "two images": [("torch.cat([x[:1], x[2:3]])", torch.cat([x[:1], x[2:3]])), ("torch.stack([x[0], x[2]])", torch.stack([x[0], x[2]]))],
    "some numbers": [("torch.where(positive, 0, x)", torch.where(positive, 0.0, x)), ("x.masked_fill(positive, 0)", x.masked_fill(positive, 0.0))],
    "images twice": [("torch.cat([x, x])", torch.cat([x, x])), ("x.repeat(2, 1, 1, 1)", x.repeat(2, 1, 1, 1))],
}
for what, ((keeps, one), (loses, other)) in pairs.items():
    assert torch.equal(one, other)
    kept = [y.is_contiguous(memory_format=torch.channels_last) for y in (one, other)]
    print(f"{what}: {keeps}: {'channels_last' if kept[0] else 'NCHW'}; {loses}: {'channels_last' if kept[1] else 'NCHW'}; equal numbers")
    assert kept == [True, False], kept

def fastest(y, n=50):
    """Microseconds of a copy with the channels of a position side by side."""
    to = torch.empty(y.shape[0], 34, 34, 16)
    times = []
    for _ in range(n):
        start = time.perf_counter()
        to[:, 1:33, 1:33].copy_(y.permute(0, 2, 3, 1))
        times.append(time.perf_counter() - start)
    return min(times) * 1e6

kept, lost = fastest(x[rows]), fastest(x.index_select(0, rows))
print(f"channels side by side, a copy of x[rows]: {kept:.0f} µs; of x.index_select(0, rows): {lost:.0f} µs, {lost / kept:.1f} times")
assert lost > 1.5 * kept
PYTHON
echo "as described"
