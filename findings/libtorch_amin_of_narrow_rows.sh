#!/usr/bin/env bash
# The smallest number of every column of a tall matrix, in LibTorch on a CPU.
#
# A good engineer would guess that `x.amin(0)` costs about what `x.sum(0)` does: both read the matrix once. It does where
# the number of columns is a multiple of 32. Where it is 16 (a ResNet-20's first stage) or 48, a reduction over rows is
# vectorised for columns by the 32 only, and the rest is many times slower. Two rows laid side by side, `x.view(-1, 32)`,
# and the smaller of the two halves, give the same numbers in a small part of the time. `torch.aminmax`, one pass
# instead of two, is no faster for any number of columns.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" --quiet --disable-pip-version-check install numpy==2.3.5 torch==2.11.0
"$folder/env/bin/python" - <<'PYTHON'
import time
import torch

torch.set_num_threads(1)
print("torch", torch.__version__, torch.backends.cpu.get_cpu_capability())

def fastest(work, n=30):
    """Microseconds."""
    work()
    times = []
    for _ in range(n):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times) * 1e6

x = torch.rand(50_176, 16)
wide = lambda: x.view(-1, 32).amin(0).view(2, 16).amin(0)
assert torch.equal(wide(), x.amin(0)) and torch.equal(torch.aminmax(x, dim=0).min, x.amin(0))
took = {"sum(0)": fastest(lambda: x.sum(0)), "amin(0)": fastest(lambda: x.amin(0)), "amin(0), rows side by side": fastest(wide)}
took["aminmax(dim=0)"] = fastest(lambda: torch.aminmax(x, dim=0))
for name, microseconds in took.items():
    print(f"{name:28} {microseconds:8.0f} µs")
ratio = took["amin(0)"] / took["amin(0), rows side by side"]
print(f"the same numbers {ratio:.0f} times faster, and amin takes {took['amin(0)'] / took['sum(0)']:.0f} times what sum does")
assert ratio > 8 and took["amin(0)"] > 8 * took["sum(0)"] and took["aminmax(dim=0)"] > took["amin(0)"] / 2
PYTHON
echo "as described"
