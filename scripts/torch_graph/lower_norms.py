"""Norms by power means, which PyTorch networks write out: x / (mean_c xᵖ + ε)^(1/p) over the features, found in the trace.

p = 1, of norms over positions, is what global response normalisation (ConvNeXt V2, arXiv 2301.00808, equation 2) multiplies
with; p = 2 is RMSNorm (arXiv 1910.07467), of weight 1 where it is written out: what scales it then is a layer of its own.
"""

from __future__ import annotations

from numbers import Number
from typing import Any

import torch
from torch import fx

from .axes import FEATURES
from .lower import CARRIER, Call, lowers
from .trace import changes_its_input, function_name
from .values import View

CASTS = ("to", "_to_copy", "type_as", "float")
VIEWS = (*CASTS, "reshape", "flatten", "contiguous", "view_as", "reshape_as", "expand_as", "chunk", "split", "tensor_split")
"""What may give its input, or a part of it, and does not say so."""


def quotient(call: Call) -> View | None:
    """`x / (mean(x) + ε)` and `x / sqrt(mean(x²) + ε)`, where a division is that."""
    x, divisor = call.node.args[:2]
    root = _argument(divisor, "sqrt")
    return _found(call, x, divisor if root is None else root, 1 if root is None else 2)


def product(call: Call) -> View | None:
    """`x · rsqrt(mean(x²) + ε)`, where a product is that."""
    for x, factor in (call.node.args[:2], call.node.args[1::-1]):
        root = _argument(factor, "rsqrt")
        if root is not None and (made := _found(call, x, root, 2)) is not None:
            return made
    return None


@lowers("rms_norm")
def _rms_norm(call: Call) -> View:
    if len(call["normalized_shape"]) != 1:
        raise call.refuse(f"normalises over {call['normalized_shape']}; only one axis, the features, can be merged")
    x = call.tensor("input")
    eps = torch.finfo(torch.float32).eps if call["eps"] is None else call["eps"]
    if eps < 0:
        raise call.refuse(f"adds {eps}, which may leave the root of a negative number")
    weight = call.filled("weight", x.layout.shape[-1], 1.0)
    return _normed(call, x, x.ndim - 1, 2, eps, weight)


def _normed(call: Call, x: View, axis: int, power: int, eps: float, weight: str | None = None) -> View:
    x = call.vector(x, axis)
    n = x.layout.dims[FEATURES]
    if power == 2 and weight is None:
        weight = call.lowering.fold(torch.ones(n), f"{call.site.path}.weight".lstrip("."), None)
    op = {"op": "power_mean_norm", "num_features": n, "power": power, "eps": float(eps)}
    return call.emit(op, [x], x.layout, {"weight": weight} if weight else None)


def _found(call: Call, x: Any, mean: Any, power: int) -> View | None:
    x, view = _cast(x), call.lowering.found(x) if isinstance(x, fx.Node) else None
    if not isinstance(view, View) or view.is_stored:
        return None
    eps = 0.0
    if (added := _arguments(mean, "add")) and isinstance(added[1], Number):
        mean, eps = added[:2]
    given = _arguments(mean, "mean")
    axis = CARRIER.feature_axis(view)
    if not given or len(given) < 3 or given[2] is not True or axis is None or eps < 0:
        return None
    if [d % view.ndim for d in given[1]] != [axis] or _cast(_base(given[0], power)) is not x:
        return None
    if any(_changes(node) for node in (x, *_between(call.node, x))):
        return None
    return _normed(call, view, axis, power, eps)


def _between(node: fx.Node, x: fx.Node) -> set[fx.Node]:
    """What a quotient or product is computed from, up to x."""
    found: set[fx.Node] = set()
    rest = [given for given in node.all_input_nodes if given is not x]
    while rest:
        if (given := rest.pop()) not in found:
            found.add(given)
            rest += [further for further in given.all_input_nodes if further is not x]
    return found


def _changes(node: fx.Node) -> bool:
    """Whether a tensor is changed in place, itself or through a view: then it was another one before."""
    seen, rest = set(), [node]
    while rest:
        if (given := rest.pop()) in seen:
            continue
        seen.add(given)
        for user in given.users:
            if user.op == "call_function" and changes_its_input(user) and user.args and user.args[0] is given:
                return True
            if user.op == "call_function" and _may_be_a_view(user):
                rest.append(user)
    return False


def _may_be_a_view(node: fx.Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    return function_name(node) in VIEWS or schema is None or any(made.alias_info is not None for made in schema.returns)


def _base(powers: Any, power: int) -> Any:
    """x, of x to that power."""
    if power == 1:
        return powers
    if squared := _arguments(powers, "pow"):
        return squared[0] if squared[1] == 2 else None
    if (square := _argument(powers, "square")) is not None:
        return square
    factors = _arguments(powers, "mul")
    return factors[0] if factors and factors[0] is factors[1] else None


def _arguments(node: Any, function: str) -> tuple[Any, ...]:
    node = _cast(node)
    known = isinstance(node, fx.Node) and function_name(node) == function and not node.kwargs
    return node.args if known else ()


def _argument(node: Any, function: str) -> Any:
    return next(iter(_arguments(node, function)), None)


def _cast(node: Any) -> Any:
    """What a cast to f32 is of: numbers are f32 here anyway."""
    def casts(node: Any) -> bool:
        is_cast = isinstance(node, fx.Node) and node.op == "call_function" and function_name(node) in CASTS
        return is_cast and node.meta["val"].dtype.is_floating_point and node.args[0].meta["val"].dtype.is_floating_point

    while casts(node):
        node = node.args[0]
    return node
