#!/usr/bin/env python3
"""The rival of `make bench`: the loop that one writes in PyTorch to do what `adapt` does, and how fast it is.

The same networks, loss, optimiser, augmentation and number of threads; images are noise, which takes as long as any. Prints
images a second: of the weights as they are, and of weights in whitened inputs.

    adapt_loop.py network.safetensors --to a.safetensors b.safetensors --steps 40
"""

from __future__ import annotations

import argparse
import time

import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrize

import zipit_torch


class Whitened(nn.Module):
    """[W | b] = W₀ + D S, with any S of the right size: its numbers do not matter here."""

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        n_inputs = weight[0].numel()
        self.register_buffer("start", weight.detach().clone())
        self.register_buffer("root", torch.eye(n_inputs) + 0.01 * torch.randn(n_inputs, n_inputs))

    def forward(self, change: torch.Tensor) -> torch.Tensor:
        return self.start + (change.flatten(1) @ self.root).reshape(self.start.shape)

    def right_inverse(self, weight: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(weight)


def augmented(images: torch.Tensor, shift: int) -> torch.Tensor:
    """Every second image mirrored, each shifted by up to so many pixels."""
    n, _, height, width = images.shape
    mirrored = torch.rand(n) < 0.5
    images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
    padded = functional.pad(images, [shift] * 4)
    rows = torch.randint(2 * shift + 1, (n, 1, 1)) + torch.arange(height)[None, :, None]
    columns = torch.randint(2 * shift + 1, (n, 1, 1)) + torch.arange(width)[None, None, :]
    return padded.permute(0, 2, 3, 1)[torch.arange(n)[:, None, None], rows, columns].permute(0, 3, 1, 2).contiguous()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network")
    parser.add_argument("--to", nargs="+", required=True)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--shift", type=int, default=4)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--layout", choices=["contiguous", "channels_last"], default="contiguous")
    parser.add_argument("--whitened", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    layout = torch.channels_last if args.layout == "channels_last" else torch.contiguous_format
    network = zipit_torch.load(args.network).to(memory_format=layout)
    sources = [zipit_torch.load(path).to(memory_format=layout) for path in args.to]
    if args.whitened:
        for layer in [layer for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]:
            parametrize.register_parametrization(layer, "weight", Whitened(layer.weight))
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3, betas=(0.9, 0.99), weight_decay=0.0)
    warm_up, n_steps = 10, args.steps + 5
    schedule = torch.optim.lr_scheduler.SequentialLR(
        optimiser,
        [
            torch.optim.lr_scheduler.LinearLR(optimiser, 0.1, total_iters=warm_up),
            torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, n_steps),
        ],
        [warm_up],
    )
    size = network.preprocess["size"]
    images = torch.randn(4 * args.batch_size, len(network.preprocess["mean"]), *size)

    def said(batch: torch.Tensor) -> dict[str, torch.Tensor]:
        return {task: logits for source in sources for task, logits in source(batch).items()}

    with torch.no_grad():
        weights = {task: 1.0 / logits.var(0).mean() for task, logits in said(images[: args.batch_size]).items()}
    begin = 0.0
    for step in range(n_steps):
        if step == n_steps - args.steps:
            begin = time.perf_counter()
        batch = images[torch.randint(len(images), (args.batch_size,))]
        batch = augmented(batch, args.shift).to(memory_format=layout)
        with torch.no_grad():
            targets = said(batch)
        outputs = network(batch)
        loss = sum(weights[task] * (outputs[task] - target).square().mean() for task, target in targets.items())
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimiser.step()
        schedule.step()
        loss.item()
    print(args.steps * args.batch_size / (time.perf_counter() - begin))


if __name__ == "__main__":
    main()
