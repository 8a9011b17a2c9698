"""Frozen batch norms, as detection frameworks have them: BatchNorm2d whose numbers are all constants."""

from __future__ import annotations

import copy

import torch
from torch import nn

BUFFERS = ("weight", "bias", "running_mean", "running_var")


def thawed(module: nn.Module) -> nn.Module:
    """The module with BatchNorm2d in the place of every frozen one, which computes the same under the same names."""
    if not any(_is_frozen(child) for child in module.modules()):
        return module
    if _is_frozen(module):
        return _thawed(module)
    module = copy.deepcopy(module)
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if _is_frozen(child):
                parent._modules[name] = _thawed(child)
    return module.eval()


def _is_frozen(module: nn.Module) -> bool:
    """torchvision's, detectron2's, DETR's and timm's, by what they are called and hold: they share no base class."""
    named = type(module).__name__ in ("FrozenBatchNorm2d", "FrozenBatchNormAct2d")
    return named and all(name in module._buffers for name in BUFFERS)


def _thawed(frozen: nn.Module) -> nn.Module:
    norm = _Thawed(frozen.weight.numel(), getattr(frozen, "eps", 1e-5))
    norm.load_state_dict({name: frozen._buffers[name] for name in BUFFERS}, strict=False)
    norm._modules.update(frozen._modules)
    return norm.eval()


class _Thawed(nn.BatchNorm2d):
    """And what timm's has inside: dropout and an activation."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = super().forward(x)
        for step in self._modules.values():
            x = step(x)
        return x
