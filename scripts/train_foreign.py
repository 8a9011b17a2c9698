"""Trains a network of `foreign_nets` on some classes of Fashion-MNIST, on the CPU, and saves its state dict.

    .venv-python/bin/python scripts/train_foreign.py --arch vit --classes 0-4 --seed 1 --epochs 12 -o vit_0-4_seed1.pth
    .venv-python/bin/python scripts/zipit_torch.py export scripts/foreign_nets.py:vit --checkpoint vit_0-4_seed1.pth \\
        --size 28 --mean 0.286 --std 0.353 --classes "T-shirt/top,Trouser,Pullover,Dress,Coat" -o vit.safetensors

The split is the pipeline's: every tenth training image is left out, for validation.
"""

from __future__ import annotations

import argparse
import gzip
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 (everybody's name for it)
from torch import nn

from foreign_nets import FACTORIES

DATA = Path(__file__).parent.parent / "data/fashion-mnist"
MEAN, STD = 0.286, 0.353
BATCH = 64
LEARNING_RATE = {"mobilenet_v2": 4e-3, "vit": 1.5e-3}


def read_idx(path: Path) -> np.ndarray:
    """An IDX file of bytes, gzipped."""
    data = gzip.decompress(path.read_bytes())
    shape = np.frombuffer(data, ">u4", count=data[3], offset=4).astype(int)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * len(shape)).reshape(shape)


def load(split: str, classes: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Normalised images [N, 1, 28, 28] of these classes, and their places in `classes`."""
    prefix = "t10k" if split == "test" else "train"
    images = read_idx(DATA / f"{prefix}-images-idx3-ubyte.gz")
    labels = read_idx(DATA / f"{prefix}-labels-idx1-ubyte.gz")
    if split == "train":
        kept = np.arange(len(labels)) % 10 != 9
        images, labels = images[kept], labels[kept]
    ours = np.isin(labels, classes)
    x = (torch.from_numpy(images[ours]).float() / 255 - MEAN) / STD
    y = torch.from_numpy(np.searchsorted(classes, labels[ours]))
    return x.unsqueeze(1), y


def train(net: nn.Module, arch: str, classes: list[int], epochs: int, seed: int) -> None:
    """AdamW under one cycle of learning rates; half of the images are mirrored."""
    x, y = load("train", classes)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(net.parameters(), weight_decay=0.02)
    steps = len(y) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, LEARNING_RATE[arch], total_steps=epochs * steps, pct_start=0.2
    )
    for epoch in range(epochs):
        net.train()
        start, total = time.monotonic(), 0.0
        order = torch.randperm(len(y), generator=generator)
        for batch in order[: steps * BATCH].view(steps, BATCH):
            images = x[batch]
            mirrored = torch.rand(len(batch), generator=generator) < 0.5
            images[mirrored] = images[mirrored].flip(-1)
            loss = F.cross_entropy(net(images), y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        seconds = time.monotonic() - start
        print(f"epoch {epoch + 1}/{epochs}: loss {total / steps:.4f}, {seconds:.0f} s", file=sys.stderr)


@torch.no_grad()
def accuracy(net: nn.Module, classes: list[int]) -> float:
    """On the test images of these classes."""
    net.eval()
    x, y = load("test", classes)
    right = sum(int((net(a).argmax(1) == b).sum()) for a, b in zip(x.split(500), y.split(500), strict=True))
    return right / len(y)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arch", choices=sorted(FACTORIES), required=True)
    parser.add_argument("--classes", default="0-4", help="a range of labels, 0-4")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("-o", "--out", type=Path, required=True)
    args = parser.parse_args()
    first, _, last = args.classes.partition("-")
    classes = list(range(int(first), int(last or first) + 1))
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    net = FACTORIES[args.arch](num_classes=len(classes)).to(memory_format=torch.channels_last)  # twice as fast on CPUs
    train(net, args.arch, classes, args.epochs, args.seed)
    print(f"{args.arch}, classes {args.classes}, seed {args.seed}: test accuracy {100 * accuracy(net, classes):.2f} %")
    torch.save({name: tensor.contiguous() for name, tensor in net.state_dict().items()}, args.out)


if __name__ == "__main__":
    main()
