#!/usr/bin/env bash
# What a process holds after it freed its activations.
#
# A good engineer would guess that tensors of tens of megabytes go back to the system when they are freed, for PyTorch has no
# cache of its own on the CPU, and malloc maps what is larger than 128 KiB. But the first such tensor that is freed teaches
# glibc to keep all up to its size in the heap (at most 32 MiB), and a heap gives back no more than its end: one small result
# that is kept for every batch, the mean of each channel, pins all of it. Eight images' first features in a ResNet-50 at 224
# pixels are 24.5 MiB: of 1.5 GiB of them, all of 1.5 GiB is still held when the last is freed. Eleven images' (33.7 MiB) leave
# nothing behind, and so do eight's under MALLOC_MMAP_THRESHOLD_, which costs a page fault for every page of every tensor.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" --quiet --disable-pip-version-check install numpy==2.3.5 torch==2.11.0
cat > "$folder/held.py" <<'PYTHON'
import os
import platform
import sys

import torch

TOTAL = 1536 * 2**20


def held():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


n_images, name = int(sys.argv[1]), sys.argv[2]
torch.set_num_threads(1)
shape = (n_images, 256, 56, 56)
torch.zeros(shape)  # as large as the rest, and freed
before = held()
values, kept = [], []
for _ in range(TOTAL // (torch.Size(shape).numel() * 4)):
    values.append(torch.ones(shape))
    kept.append(values[-1].mean((0, 2, 3)).clone())
most = held() - before
values.clear()
left = held() - before
print(f"torch {torch.__version__}, glibc {platform.libc_ver()[1]}, {name}: {len(kept)} tensors of "
      f"{torch.Size(shape).numel() * 4 / 2**20:.1f} MiB: {most:.0f} MiB held, {left:.0f} MiB after all are freed")
assert most > 1400
stays = name == "8 images"
assert (left > 1400) if stays else (left < 100)
PYTHON
"$folder/env/bin/python" "$folder/held.py" 8 "8 images"
"$folder/env/bin/python" "$folder/held.py" 11 "11 images"
MALLOC_MMAP_THRESHOLD_=16777216 "$folder/env/bin/python" "$folder/held.py" 8 "8 images, mapped from 16 MiB on"
echo "as described"
