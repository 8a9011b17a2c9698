"""A network beside PyTorch's own: on which images they are compared, and how far apart they may be."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import cached_property

import torch
from torch import nn

from .errors import ZipitError
from .model_file import Model

TOLERANCE = 1e-4
SPREADS = 4.0
"""How many times PyTorch's own rounding a difference may be."""
MOST = 0.05
"""Of the largest logit: a difference that no rounding excuses."""
CHECK_IMAGES = 5
"""No multiple of the batches that a network is traced with."""
WAVES = 4


def smooth(shape: Sequence[int], seed: int = 0) -> torch.Tensor:
    """[B, C, H, W] of numbers in 0…1, sums of plane waves, the same every time. On white noise deep features of trained
    networks leave their range, and PyTorch's own rounding with them: there f32 and f64 can disagree by whole logits."""
    n, channels, *size = shape
    y, x = torch.meshgrid(*(torch.arange(side) / side for side in size), indexing="ij")
    waves = 2 * torch.rand(WAVES, 4, n, channels, 1, 1, generator=torch.Generator().manual_seed(seed)) - 1
    value = sum(d * torch.sin(3 * (4 * a * y + 4 * b * x + c)) for a, b, c, d in waves)
    return (127 + 60 * value).clamp(0, 255) / 255


def check_images(model: Model, n: int = CHECK_IMAGES) -> torch.Tensor:
    """Images as the network sees them: smooth ones, behind its preprocessing's mean and standard deviation."""
    mean, std = (torch.tensor(model.preprocess[key]).reshape(1, -1, 1, 1) for key in ("mean", "std"))
    return (smooth((n, *model.graph["input"]["shape"])) - mean) / std


@torch.no_grad()
def logits(module: nn.Module, images: torch.Tensor) -> list[torch.Tensor]:
    """Every output of a module, in order, [B, …]. What the module changes in place, images or buffers, is as before."""
    before = [
        (part, name, buffer, None if buffer is None else buffer.clone())
        for part in module.modules()
        for name, buffer in part._buffers.items()
    ]
    leaves = torch.utils._pytree.tree_leaves(module.eval()(images.clone()))
    found = [leaf.float().clone() for leaf in leaves]
    for part, name, buffer, value in before:
        setattr(part, name, buffer)  # the module may have put another tensor, of another size, there
        if buffer is not None and not torch.equal(buffer, value):
            buffer.copy_(value)
    return found


def spread(module: nn.Module, images: torch.Tensor) -> list[float]:
    """max |f32 − f64| of each output: how far PyTorch is from itself. 0 where the module cannot run in f64."""
    reference = logits(module, images)
    try:
        exact = logits(copy.deepcopy(module).double(), images.double())
    except Exception:  # the module's own, of any class: a cast to f32 in its forward, say
        return [0.0] * len(reference)
    return [float((_bounded(a) - _bounded(b)).abs().max()) for a, b in zip(reference, exact, strict=True)]


def _bounded(x: torch.Tensor) -> torch.Tensor:
    """Infinities as the largest numbers, which is what a model file has in their place."""
    limits = torch.finfo(torch.float32)
    return x.float().clamp(limits.min, limits.max)


class Reference:
    """What PyTorch says of images: the network is run once, however many are compared with it."""

    def __init__(self, module: nn.Module, images: torch.Tensor) -> None:
        self._module = module
        self.images = images

    @cached_property
    def logits(self) -> list[torch.Tensor]:
        """Every output, [B, …]."""
        return logits(self._module, self.images)

    @cached_property
    def spread(self) -> list[float]:
        """Of each output, how far PyTorch is from itself."""
        return spread(self._module, self.images)


def difference(found: Sequence[torch.Tensor], reference: Reference, what: str) -> float:
    """max |Δ| from a module's outputs; an error if it is more than 1e-4 of the larger of 1 and the largest logit, and
    than a few times PyTorch's own rounding, and anyway if it is more than a twentieth."""
    worst = 0.0
    for i, (a, b) in enumerate(zip(found, reference.logits, strict=True)):
        if a.shape != b.shape:
            raise ZipitError(f"{what} gives {list(a.shape)} where PyTorch gives {list(b.shape)}")
        a, b = _bounded(a), _bounded(b)
        ordinary = b.abs()[b.abs() < torch.finfo(torch.float32).max]
        size = max(1.0, float(ordinary.max()) if ordinary.numel() else 0.0)
        delta = float((a - b).abs().max()) if b.numel() else 0.0
        worst = max(worst, delta)
        allowed = TOLERANCE * size
        if not delta <= allowed:
            allowed = max(allowed, min(SPREADS * reference.spread[i], MOST * size))
        if not delta <= allowed:
            raise ZipitError(f"{what} differs from PyTorch by max |Δ| {delta:.1e}, more than {allowed:.1e}")
    return worst
