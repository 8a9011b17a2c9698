"""Sums, products, concatenations and attention: where several tensors meet."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import isclose, prod

import torch

from .axes import BATCH, FEATURES, REPEATED, Atom, AxesError, Axis, Layout, join
from . import lower_norms
from .graph import Json
from .lower import Call, lowers
from .trace import BATCH_SIZE
from .values import Scores, View

Number = int | float


def _scaled(call: Call, x: View, scale: float, shift: float) -> View:
    if (scale, shift) == (1, 0):
        return x
    made = call.emit({"op": "affine", "scale": float(scale), "shift": float(shift)}, [x], x.layout)
    return made.seen(x.layout, x.site)


@lowers("mul", "multiply")
def _mul(call: Call) -> View | Scores:
    if (normed := lower_norms.product(call)) is not None:
        return normed
    a, b = call["self"], call["other"]
    if isinstance(a, Number):
        a, b = b, a
    if isinstance(b, Number):
        if isinstance(a, Scores):
            return _scale_scores(call, a, b)
        return _scaled(call, call.computed(a), b, 0)
    return _combined(call, "mul", "layer_scale", a, b)


@lowers("addcmul")
def _addcmul(call: Call) -> View:
    """input + value · tensor1 · tensor2."""
    product = _combined(call, "mul", "layer_scale", call["tensor1"], call["tensor2"])
    if (value := call.args.get("value", 1)) != 1:
        product = _scaled(call, product, value, 0)
    return _combined(call, "add", "position_embedding", call["self"], product)


@lowers("div", "divide", "true_divide")
def _div(call: Call) -> View | Scores:
    a, b = call["self"], call["other"]
    if isinstance(a, View) and isinstance(b, View) and _is_softsign(call, a, b):
        return call.emit({"op": "activation", "function": "softsign"}, [a], a.layout).seen(a.layout, a.site)
    if not call.args.get("rounding_mode") and (normed := lower_norms.quotient(call)) is not None:
        return normed
    if not isinstance(b, Number) or call.args.get("rounding_mode"):
        raise call.refuse("divides by something that is not a number")
    return _scale_scores(call, a, 1 / b) if isinstance(a, Scores) else _scaled(call, call.computed(a), 1 / b, 0)


def _is_softsign(call: Call, x: View, divisor: View) -> bool:
    """Whether x is divided by |x| + 1, as PyTorch writes softsign."""
    plus = call.lowering.builder.node(divisor.base.name)
    if x.layout != divisor.layout or not plus or plus["op"] != {"op": "affine", "scale": 1.0, "shift": 1.0}:
        return False
    absolute = call.lowering.builder.node(plus["inputs"][0])
    wanted = {"op": "activation", "function": "abs"}
    if not absolute or absolute["op"] != wanted or absolute["inputs"] != [x.base.name]:
        return False
    if call.site.leaf:  # inside nn.Softsign, which nobody else looks into: its name is the whole's
        call.lowering.builder.nodes = [n for n in call.lowering.builder.nodes if n not in (plus, absolute)]
    return True


@lowers("pow", "square", "float_power")
def _power(call: Call) -> View:
    x = call.tensor()
    exponent = 2 if call.site.op == "square" else call["exponent"]
    if exponent not in (1, 2, 3, 4):
        what = exponent if isinstance(exponent, Number) else "one that is computed"
        raise call.refuse(f"only powers 1 to 4 are known, not {what}")
    power = x
    for _ in range(int(exponent) - 1):
        power = call.emit({"op": "mul"}, [power, x], x.layout).seen(x.layout, x.site)
    return power


@lowers("neg")
def _neg(call: Call) -> View:
    return _scaled(call, call.tensor(), -1, 0)


@lowers("add", "sub", "rsub", "subtract")
def _add(call: Call) -> View | Scores:
    a, b = call["self"], call["other"]
    sign = -1 if call.site.op in ("sub", "subtract") else 1
    factor = sign * call.args.get("alpha", 1)
    if call.site.op == "rsub":
        a, b, factor = b, a, -call["alpha"]
    if isinstance(b, Scores):
        a, b = b, a
    if isinstance(a, Scores):
        if a.normalised or factor != 1 or not isinstance(b, View) or not b.is_stored:
            raise call.refuse("attention scores can only be scaled, get a stored bias, be normalised and applied to values")
        return replace(a, biases=(*a.biases, (b, a.shape, a.seen and a.seen[1])))
    if isinstance(b, Number):
        return _scaled(call, call.computed(a), 1, factor * b)
    if isinstance(a, Number):
        return _scaled(call, call.computed(b), factor, a)
    if factor != 1:
        b = _scaled(call, call.computed(b), factor, 0)
    return _combined(call, "add", "position_embedding", a, b)


def _combined(call: Call, op: str, learned: str, a: object, b: object) -> View:
    """Two tensors, one of which may be learned."""
    if isinstance(a, View) and a.is_stored and isinstance(b, View) and not b.is_stored:
        a, b = b, a
    x = call.computed(a)
    if isinstance(b, View) and b.is_stored:
        return _with_parameter(call, learned, x, b)
    return _tied(call, op, [x, call.computed(b)])


def _with_parameter(call: Call, op: str, x: View, parameter: View) -> View:
    """Aligns a learned tensor's dims with the value's, by PyTorch's broadcasting."""
    if parameter.base.folded:
        parameter = call.settled_parameter(parameter, op)
    if prod(parameter.layout.dims) == 1:
        return _with_one_number(call, op, x, parameter)
    stored = parameter.layout.unrepeated()
    missing = x.ndim - len(stored.axes)
    if missing < 0:
        raise call.refuse(f"the parameter `{parameter.base.name}` has more axes than {list(x.layout.shape)}")
    stored = Layout(stored.dims, ((),) * missing + stored.axes)
    if len(stored.used()) > 1 and x.ndim == 3:
        x = call.settled(x)
    meets: dict[int, int] = {}
    for axis, other in zip(stored.axes, x.layout.axes, strict=True):
        if not axis:
            continue
        dim = axis[0].dim
        target = next((d for d, size in enumerate(x.layout.dims) if size > 1 and other == x.layout.whole(d)), None)
        if axis != stored.whole(dim) or target in (None, BATCH):
            break
        meets[target] = dim
    else:
        feature = meets.get(FEATURES, -1)
        if feature >= 0 and _positions_align(x, stored.dims, feature, meets):
            node = {"op": op, "shape": list(stored.dims), "axis": feature}
            made = call.emit(node, [x], x.layout, {"weight": parameter.base.name})
            return made.seen(x.layout, x.site)
    raise call.refuse(
        f"the parameter `{parameter.base.name}` {list(stored.dims)} does not have one number per feature, or does not "
        f"align with {list(x.layout.shape)}"
    )


def _with_one_number(call: Call, op: str, x: View, parameter: View) -> View:
    """One learned number for all features is written down once for each: features that are merged must each have one."""
    n, name = x.layout.dims[FEATURES], parameter.base.name
    if len(parameter.layout.dims) == 1:
        call.lowering.builder.repeated[name] = n
    else:
        name = call.lowering.fold(call.lowering.numbers_of(name).reshape(1).expand(n), name, parameter.node)
    made = call.emit({"op": op, "shape": [n], "axis": 0}, [x], x.layout, {"weight": name})
    return made.seen(x.layout, x.site)


def _positions_align(x: View, stored: tuple[int, ...], feature: int, meets: dict[int, int]) -> bool:
    """Whether the tensor's other dims, leading ones dropped, are the value's positions from the last one backwards."""
    others = [d for d in range(len(stored)) if d != feature]
    while others and stored[others[0]] == 1:
        others.pop(0)
    expected = dict(zip(reversed(others), reversed(x.positions), strict=False))
    return len(others) <= len(x.positions) and all(
        stored[d] == 1 or (d in expected and meets.get(expected[d]) == d) for d in others
    )


def _aligned(a: View, b: View) -> Layout | None:
    """The layout of a sum of two, if the same axes come from the same dims; sizes of 1 are repeated along positions."""
    if len(a.layout.dims) != len(b.layout.dims) or a.layout.dims[FEATURES] != b.layout.dims[FEATURES]:
        return None
    ndim = max(a.ndim, b.ndim)
    padded = [((),) * (ndim - v.ndim) + v.layout.unrepeated().axes for v in (a, b)]
    axes: list[Axis] = []
    for one, other in zip(*padded, strict=True):
        if one and other and one != other:
            return None
        axes.append(one or other)
    dims = tuple(max(pair) for pair in zip(a.layout.dims, b.layout.dims, strict=True))
    for v, own in zip((a, b), padded, strict=True):
        # A dim of size > 1 that one of them lacks must be positions, of which it has one.
        for i, axis in enumerate(own):
            if axes[i] and not axis and {atom.dim for atom in axes[i]} & {BATCH, FEATURES}:
                return None
        if any(1 < size < dims[d] for d, size in enumerate(v.layout.dims)):
            return None
    return Layout(dims, tuple(axes))


def _tied(call: Call, op: str, views: list[View]) -> View:
    a, b = views
    layout = _aligned(a, b)
    if layout is None:
        a, b = call.settled(a), call.settled(b)
        layout = _aligned(a, b)
    if layout is None:
        a, b = call.positioned(a), call.positioned(b)
        layout = _aligned(a, b)
    if layout is None:
        shapes = f"{list(a.layout.shape)} and {list(b.layout.shape)}"
        raise call.refuse(f"the features and positions of {shapes} are not the same, one by one")
    return call.emit({"op": op}, [a, b], layout).seen(layout, a.site)


@lowers("cat", "concat", "concatenate")
def _cat(call: Call) -> View:
    views = call["tensors"]
    if not all(isinstance(v, View) for v in views) or all(v.is_stored for v in views):
        raise call.refuse("concatenates parameters; parameters must be stored as used")
    axis = call["dim"] % views[0].ndim
    if any(v.is_stored for v in views):
        return _prepended(call, views, axis)
    if len(views) == 1:
        return views[0]
    if any(BATCH in v.layout.used([axis]) for v in views):
        raise call.refuse("concatenates images of the batch")
    try:
        views = [call.features(v, axis) for v in views]
    except AxesError as error:
        raise call.refuse(str(error)) from error
    rest = [v.layout.unrepeated().drop([axis]) for v in views]
    if any(r.axes != rest[0].axes or r.dims[FEATURES + 1 :] != rest[0].dims[FEATURES + 1 :] for r in rest):
        raise call.refuse("the positions of what is concatenated are not the same")
    total = sum(v.layout.dims[FEATURES] for v in views)
    dims = (BATCH_SIZE, total, *views[0].layout.dims[FEATURES + 1 :])
    axes = Layout(dims, views[0].layout.axes)
    return call.emit({"op": "concat"}, views, axes.with_axis(axis, axes.whole(FEATURES)))


def _prepended(call: Call, views: list[View], axis: int) -> View:
    """Learned tokens, the last parameter first: each goes before what is already there."""
    *learned, x = views
    if x.is_stored or not all(v.is_stored for v in learned):
        raise call.refuse("learned tokens can only stand before the computed ones")
    x = call.tokens(call.settled(x), axis)
    for parameter in reversed(learned):
        stored = parameter.layout.unrepeated()
        n, features = parameter.layout.shape[axis], x.layout.dims[FEATURES]
        expected = [stored.whole(1) if i == axis else () for i in range(x.ndim)]
        by_features = next((i for i, a in enumerate(x.layout.axes) if a == x.layout.whole(FEATURES)), None)
        if by_features is not None and len(stored.dims) == 3:
            expected[by_features] = stored.whole(2)
        if stored.dims != (1, n, features) or list(stored.axes) != expected:
            name = parameter.base.name
            raise call.refuse(f"the parameter `{name}` {list(stored.dims)} is not learned tokens [1, n, C]")
        grown = Layout((*x.layout.dims[: FEATURES + 1], x.layout.dims[FEATURES + 1] + n), x.layout.axes)
        op: Json = {"op": "prepend_tokens", "num_tokens": n, "num_features": features}
        layout = grown.with_axis(axis, grown.whole(FEATURES + 1))
        x = call.emit(op, [x], layout, {"weight": parameter.base.name})
    return x


@lowers("einsum")
def _einsum(call: Call) -> Scores | View:
    read, _, made = call["equation"].replace(" ", "").partition("->")
    terms = read.split(",")
    if len(terms) == 2 and all(len(term) > 2 for term in terms) and terms[0][:-2] == terms[1][:-2] == made[:-2]:
        a, b = call["tensors"]
        i, d = terms[0][-2:]
        if terms[1][-1] == d and made[-2:] == i + terms[1][-2]:
            return _scored(call, a, b)
        if terms[1][-2] == d and made[-2:] == i + terms[1][-1]:
            return _product(call, a, b)
    raise call.refuse("a product of two tensors is only known as queries · keys and attention · values")


@lowers("matmul", "bmm")
def _matmul(call: Call) -> Scores | View:
    return _product(call, call["self"], call.args.get("other", call.args.get("mat2")))


def _scored(call: Call, queries: object, keys: object) -> Scores:
    """Queries · keys, both with a head's features last."""
    x, y = call.computed(queries), call.computed(keys)
    if x.layout.used([x.ndim - 1]) == {FEATURES} and y.layout.used([y.ndim - 1]) == {FEATURES}:
        return Scores(x, y, 1.0)
    raise call.refuse("a product of two tensors is only known as queries · keys and attention · values")


def _product(call: Call, a: object, b: object) -> Scores | View:
    if isinstance(a, Scores):
        if not a.normalised:
            raise call.refuse("attention without a softmax is not known")
        if a.seen and a.shape != replace(a, seen=None).shape:
            raise call.refuse("attention that is seen in another shape than its queries is not known")
        return _attended(call, a, call.computed(b))
    x, y = call.computed(a), call.computed(b)
    if x.layout.used([x.ndim - 1]) == {FEATURES} and y.layout.used([y.ndim - 2]) == {FEATURES}:
        keys = y.seen(y.layout.transpose(-1, -2), y.site)
        return Scores(x, keys, 1.0)
    raise call.refuse("a product of two tensors is only known as queries · keys and attention · values")


def _scale_scores(call: Call, scores: Scores, factor: float) -> Scores:
    if scores.normalised or scores.biases:
        raise call.refuse("scales attention after its softmax or its bias")
    return replace(scores, scale=scores.scale * factor)


@lowers("softmax", "_softmax")
def _softmax(call: Call) -> Scores:
    scores = call["self"]
    if not isinstance(scores, Scores):
        raise call.refuse("is only known inside attention; the outputs must be logits")
    if scores.normalised or call["dim"] not in (-1, len(scores.shape) - 1):
        raise call.refuse("attention must be normalised once, over the keys")
    return replace(scores, normalised=True)


@lowers("scaled_dot_product_attention")
def _sdpa(call: Call) -> View:
    mask = call["attn_mask"]
    if call["is_causal"] or mask is not None and not (isinstance(mask, View) and mask.is_stored):
        raise call.refuse("attention with a mask that is computed from the image is not known")
    if call["dropout_p"] or call.args.get("enable_gqa"):
        raise call.refuse("attention with dropout or grouped queries is not known")
    queries, keys = call.tensor("query"), call.tensor("key")
    scale = queries.layout.shape[-1] ** -0.5 if call["scale"] is None else call["scale"]
    scores = Scores(queries, keys, scale, normalised=True)
    if mask is not None:
        scores = replace(scores, biases=((mask, scores.shape, None),))
    return _attended(call, scores, call.tensor("value"))


def _attended(call: Call, scores: Scores, values: View) -> View:
    parts = []
    scale = scores.scale
    for scaled in (scores.queries, scores.keys):
        view, factor = _without_scale(call, scaled)
        scale *= factor
        parts.append(view)
    heads = [_by_heads(call, view) for view in (*parts, values)]
    if len({(own.n_heads, own.windows, own.lead) for own in heads}) != 1:
        raise call.refuse("queries, keys and values do not have the same heads")
    queries, keys, values = heads
    op: Json = {"op": "attention", "heads": queries.n_heads}
    if not isclose(scale, queries.inner**-0.5, rel_tol=1e-6):
        op["scale"] = scale
    n_queries, n_keys = queries.view.layout.dims[-1], keys.view.layout.dims[-1]
    params = {}
    if scores.biases:
        bias = _bias(call, scores, queries, n_queries, n_keys)
        op["bias"] = list(bias.shape)
        params["bias"] = call.lowering.fold(bias, call.site.part("bias"), scores.biases[0][0].node)
    windows = [prod(queries.windows)] if queries.windows else []
    dims = (BATCH_SIZE, values.view.layout.dims[FEATURES], *windows, n_queries)
    layout = Layout(dims, values.apart(dims))
    return call.emit(op, [own.view for own in heads], layout, params, name=call.site.part("attention"))


@dataclass(frozen=True, slots=True)
class _Heads:
    """Queries, keys or values: [batch and heads and windows, tokens, features of a head], in any order of the first."""

    view: View
    """[B, C, T], or [B, C, windows, T]."""
    n_heads: int
    inner: int
    """Features of a head."""
    windows: tuple[int, ...]
    """Sizes of what windows are numbered by, outermost first."""
    lead: tuple[tuple[tuple[int, int], ...], ...]
    """The leading axes: what each is of (batch, heads, windows), and the sizes."""

    def apart(self, dims: tuple[int, ...]) -> tuple[Axis, ...]:
        """The axes of attention's result, a value of these dims."""
        base = Layout.of(dims)
        window, left = FEATURES + 1, prod(self.windows)
        axes = []
        for axis in self.lead:
            atoms = []
            for kind, size in axis:
                if kind == BATCH:
                    atoms += base.whole(BATCH)
                elif kind == FEATURES:
                    atoms.append(Atom(FEATURES, self.inner_of(dims), size))
                else:
                    left //= size
                    atoms.append(Atom(window, left, size))
            axes.append(join(atom for atom in atoms if atom.size > 1))
        inner = self.inner_of(dims)
        return (*axes, base.whole(len(dims) - 1), (Atom(FEATURES, 1, inner),) if inner > 1 else ())

    def inner_of(self, dims: tuple[int, ...]) -> int:
        """Features of a head of a value with these dims."""
        return dims[FEATURES] // self.n_heads


def _bias(call: Call, scores: Scores, of: _Heads, n_queries: int, n_keys: int) -> torch.Tensor:
    """What is added to the scores, [windows, heads, T_q, T_k]; 1 where it is the same for all."""
    sizes = [size for axis in of.lead for _, size in axis]
    kinds = [kind for axis in of.lead for kind, _ in axis]
    total = torch.zeros(())
    for view, shape, _ in scores.biases:
        node = view.node
        tensor = node and call.lowering.static.tensor(node)
        if tensor is None:
            once = node and call.lowering.static.once(node)
            if not once or not of.lead or not of.lead[0] or of.lead[0][0][0] != BATCH:
                raise call.refuse("adds a bias to the scores that depends on the number of images")
            tensor = once[0].repeat(BATCH_SIZE, *[1] * (once[0].ndim - 1))
        if tensor.dtype == torch.bool:
            tensor = torch.zeros(tensor.shape).masked_fill(~tensor, torch.finfo(torch.float32).min)
        tensor = tensor.float()
        missing = len(shape) - tensor.ndim
        tensor = tensor.reshape(*[1] * max(0, missing), *tensor.shape)
        # Every axis in its parts; where it has one index for all, so has every part.
        parts: list[int] = []
        for whole, size in zip(shape[:-2], tensor.shape, strict=False):
            left = whole
            while left > 1:
                if len(parts) == len(sizes) or left % sizes[len(parts)]:
                    raise call.refuse(f"adds a bias to scores seen as {list(shape)}, which cuts across windows or heads")
                left //= sizes[len(parts)]
                parts.append(1 if size == 1 else sizes[len(parts)])
        total = total + tensor.reshape(*parts, *tensor.shape[-2:])
    order = sorted(range(len(kinds)), key=lambda i: {BATCH: 0, FEATURES: 2}.get(kinds[i], 1))
    total = total.permute(*order, len(sizes), len(sizes) + 1)
    n_batch = sum(kind == BATCH for kind in kinds)
    for _ in range(n_batch):
        total = total[0]
    own = total.shape[:-2]
    n_window = sum(kind not in (BATCH, FEATURES) for kind in kinds)
    windows, heads = own[:n_window], own[n_window:]
    if any(n != 1 for n in windows):
        total = total.expand(*of.windows, *total.shape[n_window:])
    shape = (prod(total.shape[:n_window]), prod(heads), *total.shape[-2:])
    return total.reshape(shape).expand(*shape[:2], n_queries, n_keys)


def _without_scale(call: Call, view: View) -> tuple[View, float]:
    """Queries before they were multiplied with a constant, and the constant: attention has a scale of its own."""
    node = call.lowering.builder.node(view.base.name)
    if node and node["op"]["op"] == "affine" and node["op"]["shift"] == 0:
        return replace(view, base=type(view.base)(node["inputs"][0])), node["op"]["scale"]
    return view, 1.0


def _by_heads(call: Call, view: View) -> _Heads:
    """Checks that a tensor is [batch and heads, tokens, features of a head], heads outermost among the features; what is
    left of the positions in front are windows."""
    layout = view.layout
    inner = layout.shape[-1]
    n_heads = layout.dims[FEATURES] // inner
    lead = [atom for axis in layout.axes[:-2] for atom in axis]
    heads = [atom for atom in lead if atom.dim == FEATURES]
    within_head = (Atom(FEATURES, 1, inner),) if inner > 1 else ()
    if (
        layout.axes[-1] != within_head
        or any(atom.dim <= FEATURES for atom in layout.axes[-2])
        or [(a.stride, a.size) for a in heads] != ([(inner, n_heads)] if n_heads > 1 else [])
        or [atom for atom in lead if atom.dim == BATCH] != list(layout.whole(BATCH))
        or REPEATED in layout.used()
        or view.is_stored
    ):
        raise call.refuse(
            "attention is only known over tokens of an image or of its windows, with heads side by side: [batch, heads, "
            f"tokens, features]; this is {list(layout.shape)}"
        )
    windows = tuple(atom for atom in lead if atom.dim > FEATURES)
    axes = (layout.whole(BATCH), layout.whole(FEATURES), *((windows,) if windows else ()), layout.axes[-2])
    # Neighbours stay apart: they are put together as they stand.
    apart = call.positioned(View(view.base, Layout(layout.dims, axes), view.site))
    kinds = tuple(
        tuple((min(atom.dim, FEATURES + 1), atom.size) for atom in axis) for axis in layout.axes[:-2]
    )
    return _Heads(apart, n_heads, inner, tuple(atom.size for atom in windows), kinds)
