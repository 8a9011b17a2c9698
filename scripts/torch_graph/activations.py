"""Functions of each number, by the names they have in model files."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812 (everybody's name for it)

from .graph import Json

ACTIVATIONS: dict[str, Callable[..., torch.Tensor]] = {
    "relu6": F.relu6,
    "gelu": F.gelu,
    "silu": F.silu,
    "sigmoid": torch.sigmoid,
    "hardsigmoid": F.hardsigmoid,
    "hardswish": F.hardswish,
    "tanh": torch.tanh,
    "mish": F.mish,
    "softplus": F.softplus,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "leaky_relu": F.leaky_relu,
    "elu": F.elu,
    "selu": F.selu,
    "celu": F.celu,
    "hardtanh": F.hardtanh,
    "threshold": F.threshold,
    "softsign": F.softsign,
    "log_sigmoid": F.logsigmoid,
    "hardshrink": F.hardshrink,
    "softshrink": F.softshrink,
    "tanhshrink": F.tanhshrink,
    "abs": torch.abs,
}
"""By name; what numbers come with the function follow the tensor."""


def named(function: str | Json) -> tuple[str, list[float]]:
    """Name of an activation, and the numbers that come with it."""
    if isinstance(function, str):
        return function, []
    ((name, numbers),) = function.items()
    return name, numbers if isinstance(numbers, list) else [numbers]


def apply(function: str | Json, x: torch.Tensor) -> torch.Tensor:
    """The function of every number."""
    name, numbers = named(function)
    return ACTIVATIONS[name](x, *numbers)
