"""ATen calls → our ops: runs through the traced graph once, keeping for every tensor what it is to us.

Views are remembered and not written down (see `axes`); a step is emitted when numbers are computed. The handlers of the
single functions are in `lower_views`, `lower_layers` and `lower_arithmetic`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import count
from math import prod
from typing import Any

import torch
from torch import fx

from .axes import BATCH, FEATURES, REPEATED, AxesError, Axis, Layout, axis_size
from .errors import UNKNOWN, LoweringError, ZipitError
from .graph import GraphBuilder, Json, Site
from .trace import Trace, changes_its_input, function_name
from .static import Static
from .values import Carried, Piece, Scores, Stored, Value, View

Handler = Callable[["Call"], Any]
HANDLERS: dict[str, Handler] = {}


class Carrier:
    """How what no op of ours says is run as PyTorch does; `carry` fills it in."""

    carry: Callable[[Call], Any]
    raw: Callable[[Call, Any], Carried]
    take: Callable[[Call, Piece], Carried]
    follow: Callable[[Call, Carried, int], View]
    feature_axis: Callable[[View], int | None]


CARRIER = Carrier()
POSITIONS: dict[str, Handler] = {}
"""How functions work along positions, where no op of ours is the function itself."""
FOLLOWING = {"conv2d": ("input", 1), "linear": ("input", -1)}
"""Layers whose weight matrix can be merged, whatever made what they read: the argument, and which axis is features."""
MOST_GATHERED = 64
"""Positions that become features, at most: each is a part of its own."""
TYING = ("add", "sub", "subtract", "mul", "multiply")
"""Functions that tie the features of what they read."""


def lowers(*functions: str) -> Callable[[Handler], Handler]:
    """Marks the handler of these ATen functions (`relu` stands for `relu_` too)."""

    def register(handler: Handler) -> Handler:
        HANDLERS.update(dict.fromkeys(functions, handler))
        return handler

    return register


@dataclass
class Call:
    """One call of an ATen function, as its handler sees it."""

    lowering: Lowering
    node: fx.Node
    site: Site
    args: dict[str, Any]
    """By the name in the function's schema, defaults filled in; tensors are Views."""

    def __getitem__(self, name: str) -> Any:
        return self.args[name]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the result in PyTorch."""
        return tuple(self.node.meta["val"].shape)

    @property
    def becomes_image(self) -> bool:
        """See `Trace.becomes_image`."""
        return self.lowering.trace.becomes_image(self.node)

    def refuse(self, reason: str) -> LoweringError:
        """To be raised."""
        return LoweringError(self.site.name, self.site.op, reason)

    def tensor(self, name: str = "self") -> View:
        """An argument that is computed from the image."""
        return self.computed(self.args[name], name)

    def computed(self, value: Any, name: str = "other") -> View:
        """Something given that must be computed from the image."""
        if isinstance(value, Scores):
            raise self.refuse("attention scores can only be scaled, normalised and applied to values")
        if not isinstance(value, View):
            raise self.refuse(f"`{name}` is not a tensor of the network")
        if value.is_stored:
            raise self.refuse(
                f"computes something from the parameter `{value.base.name}` alone; parameters must be stored as used"
            )
        return value

    def parameter(self, name: str) -> str:
        """State-dict name of an argument that is a parameter, as it is stored."""
        value = self.args[name]
        if value is None:
            raise self.refuse(f"has no {name}: it must be affine, with parameters that a merge can change")
        if not (isinstance(value, View) and value.is_stored):
            raise self.refuse(f"its {name} is computed from the image")
        return self.settled_parameter(value, name).base.name

    def settled_parameter(self, value: View, name: str) -> View:
        """A stored tensor as it is used: itself, or what is computed from it, which gets a name of its own."""
        if value.layout.is_identity and not value.base.folded:
            return value
        tensor = value.node and self.lowering.static.tensor(value.node)
        if tensor is None:
            raise self.refuse(f"its {name} is computed in the forward pass, not stored as used")
        made = self.lowering.fold(tensor, f"{self.site.path}.{name}".lstrip("."), value.node)
        return View(Stored(made), Layout.of(tuple(tensor.shape)))

    def filled(self, name: str, n: int, value: float) -> str:
        """State-dict name of an argument with one number per feature; where there is none it is written down."""
        if self.args[name] is not None:
            return self.parameter(name)
        return self.lowering.fold(torch.full((n,), value), f"{self.site.path}.{name}".lstrip("."), None)

    def pair(self, name: str) -> list[int]:
        """An argument that is one number for both spatial axes, or one for each."""
        value = self.args[name]
        values = list(value) if isinstance(value, (list, tuple)) else [value]
        return [int(v) for v in (values * 2 if len(values) == 1 else values)]

    def emit(
        self,
        op: Json,
        inputs: list[View],
        layout: Layout,
        params: dict[str, str] | None = None,
        name: str | None = None,
    ) -> View:
        """Adds a node that reads the inputs' values; the result has `layout`."""
        if params:
            self.lowering.refuse_shared(self, params)
        made = self.lowering.builder.emit(name or self.site.name, op, [view.base.name for view in inputs], params)
        return View(Value(made), layout)

    def derived(self, kind: str, view: View, op: Json, layout: Layout) -> View:
        """Adds a node that a view turned out to be, or that serves another one."""
        site = view.site or self.site
        name = site.path if site.leaf and site.path and view.site else site.part(kind)
        return replace(self.emit(op, [view], layout, name=name), site=view.site)

    def features(self, view: View, index: int) -> View:
        """The view with axis `index` exactly the features of its value, after the flatten or shuffle pending there."""
        layout = view.layout
        index = layout.axis(index)
        axis = layout.axes[index]
        everything = [FEATURES, *view.positions]
        if axis == layout.whole(FEATURES):
            return view
        if len(everything) > 1 and axis == layout.all_of(everything):
            return self._flatten(view, index)
        swapped = len(axis) == 2 and axis[0].dim == axis[1].dim == FEATURES and axis[0].stride == 1
        if swapped and axis[0].size * axis[1].size == layout.dims[FEATURES]:
            op = {"op": "channel_shuffle", "groups": axis[1].size}
            return self.derived("channel_shuffle", view, op, layout.with_axis(index, layout.whole(FEATURES)))
        if (gathered := self._gathered(view, index)) is not None:
            return gathered
        raise self.refuse(self._not_features(view, index))

    def _gathered(self, view: View, index: int) -> View | None:
        """Neighbouring positions as features (patch merging, space to depth): the value at each of them, one after the
        other; where the features come first, shuffled."""
        layout = view.layout
        axis, whole = layout.axes[index], layout.whole(FEATURES)
        inner = [atom for atom in axis if atom.dim != FEATURES]
        first = axis[: len(whole)] == whole
        in_order = first or axis[len(axis) - len(whole) :] == whole
        n = prod(atom.size for atom in inner)
        if not whole or not in_order or len(inner) + 1 != len(axis) or not 1 < n <= MOST_GATHERED:
            return None
        if any(atom.dim <= FEATURES for atom in inner) or view.is_stored:
            return None
        # The features last, and each of the positions that become features an axis.
        axes = (*layout.axes[:index], whole, *layout.axes[index + 1 :], *((atom,) for atom in inner))
        apart = self.positioned(View(view.base, Layout(layout.dims, axes), view.site))
        dims = apart.layout.dims
        kept = dims[: len(dims) - len(inner)]
        parts = []
        for at in range(n):
            value, left, stride = apart.base, list(dims[2:]), n
            for k, atom in enumerate(inner):
                stride //= atom.size
                dim = len(kept) + k
                place = at // stride % atom.size
                call = {"name": "slice", "dim": dim, "start": place, "end": place + 1, "step": 1}
                left[dim - 2] = 1
                value = self._positions(value, call, left, apart, "slice")
            parts.append(View(self._moved(value, "reshape", left, list(kept[2:]), apart), Layout.of(kept)))
        grown = (*kept[:FEATURES], dims[FEATURES] * n, *kept[FEATURES + 1 :])
        made = self.emit({"op": "concat"}, parts, Layout.of(grown), name=self.site.part("concat"))
        if first:
            op = {"op": "channel_shuffle", "groups": n}
            made = self.emit(op, [made], made.layout, name=self.site.part("channel_shuffle"))
        new = Layout.of(grown)
        by_axis = [new.all_of([a.dim for a in axis]) for axis in apart.layout.axes[: view.ndim]]
        return View(made.base, Layout(grown, tuple(by_axis)), view.site)

    def _not_features(self, view: View, index: int) -> str:
        dims = view.layout.used([index])
        shape = list(view.layout.shape)
        if BATCH in dims:
            return f"axis {index} of {shape} mixes images of the batch"
        if dims and FEATURES not in dims:
            return f"axis {index} of {shape} is positions, not features: weights that mix positions cannot be merged"
        if dims - {FEATURES, REPEATED}:
            return f"axis {index} of {shape} interleaves features with positions; flatten has the features first"
        return f"axis {index} of {shape} is not the features of the value in their order"

    def _flatten(self, view: View, index: int) -> View:
        dims = view.layout.dims
        axes = Layout.of((dims[BATCH], prod(dims[FEATURES:])))
        kept = [axes.whole(FEATURES) if i == index else axis for i, axis in enumerate(view.layout.axes)]
        return self.derived("flatten", view, {"op": "flatten"}, Layout(axes.dims, tuple(kept)))

    def vector(self, view: View, index: int) -> View:
        """`features`, and a value [C, 1, 1] seen as [B, C] becomes [C], unless it is given its positions back."""
        view = self.features(view, index)
        if view.ndim == 2 and view.positions and not view.has_positions() and not self.becomes_image:
            return self._flatten(view, view.layout.axis(index))
        return view

    def tokens(self, view: View, index: int) -> View:
        """The view with axis `index` all the positions of its value, as one dim."""
        layout = view.layout
        index = layout.axis(index)
        if not view.positions or layout.axes[index] != layout.all_of(view.positions):
            raise self.refuse(f"axis {index} of {list(layout.shape)} is not all the positions in their order")
        if len(view.positions) == 1:
            return view
        merged = Layout.of((*layout.dims[: FEATURES + 1], prod(layout.dims[FEATURES + 1 :])))
        axes = [merged.whole(FEATURES + 1) if i == index else axis for i, axis in enumerate(layout.axes)]
        return self.derived("tokens", view, {"op": "tokens"}, Layout(merged.dims, tuple(axes)))

    def settled(self, view: View) -> View:
        """The view with pending flattens, shuffles and merges written down, for ops that compare two values."""
        features = [i for i, axis in enumerate(view.layout.axes) if any(a.dim == FEATURES for a in axis)]
        if len(features) == 1:
            view = self.vector(view, features[0])
            others = [i for i in range(view.ndim) if i != features[0] and BATCH not in view.layout.used([i])]
            if view.ndim == 3 and len(others) == 1 and view.positions:
                view = self.tokens(view, others[0])
        return view

    def positioned(self, view: View) -> View:
        """The view with every axis a dim of its value: features, the batch, and each of the others one dim of positions;
        positions in front of which the batch stands are a dim, too."""
        layout = view.layout
        if view.is_stored or REPEATED in layout.used():
            raise self.refuse("is not computed from the image alone")
        features = [i for i, axis in enumerate(layout.axes) if any(a.dim == FEATURES for a in axis)]
        batches = [i for i, axis in enumerate(layout.axes) if any(a.dim == BATCH for a in axis)]
        if len(features) != 1 or len(batches) != 1:
            raise self.refuse(f"the features and the batch of {list(layout.shape)} are not one axis each")
        view = self.features(view, features[0])
        layout, (at,) = view.layout, batches
        if layout.axes[at][0] != layout.whole(BATCH)[0]:
            raise self.refuse(f"axis {at} of {list(layout.shape)} mixes images of the batch")
        wanted: list[tuple[int, Axis]] = []
        for i, axis in enumerate(layout.axes):
            own = axis[1:] if i == at else axis
            if i != features[0] and (own or i != at):
                wanted.append((i, own))
        pieces = [atom for _, axis in wanted for atom in axis]
        dims = (*layout.dims[: FEATURES + 1], *(axis_size(axis) for _, axis in wanted))
        axes: list[Axis] = [()] * view.ndim
        new = Layout.of(dims)
        axes[features[0]], axes[at] = new.whole(FEATURES), new.whole(BATCH)
        for d, (i, _) in enumerate(wanted, FEATURES + 1):
            axes[i] = (*axes[i], *new.whole(d))
        if tuple(axis for _, axis in wanted) == tuple(layout.whole(d) for d in view.positions):
            return view
        by_dim = [a for d in view.positions for a in sorted((a for a in pieces if a.dim == d), key=lambda a: -a.stride)]
        if prod(a.size for a in by_dim) != prod(layout.dims[d] for d in view.positions):
            raise self.refuse(f"{list(layout.shape)} are not all the positions")
        split = [a.size for a in by_dim]
        value = view.base
        value = self._moved(value, "reshape", list(layout.dims[2:]), split, view)
        order = [by_dim.index(a) for a in pieces]
        if order != list(range(len(order))):
            call = {"name": "permute", "dims": [0, 1, *(i + 2 for i in order)]}
            value = self._positions(value, call, [split[i] for i in order], view, "permute")
        value = self._moved(value, "reshape", [a.size for a in pieces], list(dims[2:]), view)
        return View(value, Layout(dims, tuple(axes)), view.site)

    def along(self, value: Value, function: Json, shape: list[int], name: str) -> Value:
        """Adds a function of the positions of a value; what it makes has `shape`, the batch left out."""
        op = {"op": "positions", "call": function, "shape": shape}
        return Value(self.lowering.builder.emit(name, op, [value.name]))

    def _moved(self, value: Value, name: str, before: list[int], after: list[int], view: View) -> Value:
        if before == after:
            return value
        features = view.layout.dims[FEATURES]
        call = {"name": name, "shape": [{"per_image": 1}, features, *after]}
        return self._positions(value, call, after, view, name)

    def _positions(self, value: Value, call: Json, positions: list[int], view: View, part: str) -> Value:
        return self.along(value, call, [view.layout.dims[FEATURES], *positions], (view.site or self.site).part(part))

    def image(self, name: str = "self") -> View:
        """An argument that must be [B, C, H, W], the axes of a value."""
        view = self.tensor(name)
        if view.ndim != 4:
            raise self.refuse(f"needs images [B, C, H, W], is given {list(view.layout.shape)}")
        view = self.features(view, 1)
        if not view.layout.is_identity:
            view = self.positioned(view)
        if not view.layout.is_identity:
            raise self.refuse(f"axes of {list(view.layout.shape)} are not batch, features, height and width")
        return view


class Lowering:
    """The traced graph's tensors, and our graph as it grows."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        shape = tuple(trace.input.meta["val"].shape)
        self.builder = GraphBuilder(trace.input_name, shape[1:])
        self.static = Static(trace)
        self.folded: dict[str, torch.Tensor] = {}
        self.origins: dict[str, list[str]] = {}
        self.folded_nodes: dict[fx.Node, Carried] = {}
        self.stored_nodes: dict[str, Carried] = {}
        self.followed: dict[tuple[str, int], str] = {}
        self.carried: list[tuple[LoweringError, str]] = []
        """Why features stop being followed, and the node that is carried there."""
        self._not_carried: LoweringError | None = None
        self._refused: dict[LoweringError, int] = {}
        self._of_image: set[LoweringError] = set()
        self._env: dict[fx.Node, Any] = {trace.input: View(Value(trace.input_name), Layout.of(shape))}

    def run(self) -> None:
        """Goes through the trace once."""
        position = {node: i for i, node in enumerate(self.trace.graph.nodes)}
        for node in self.trace.graph.nodes:
            if node.op == "placeholder":
                self._placeholder(node)
            elif node.op == "call_function":
                self._env[node] = self._call_or_reason(node, position)
            elif node.op != "output":
                raise ZipitError(f"{node.name}: {node.op} {node.target}: not a plain computation on the image")

    def found(self, node: fx.Node) -> Any:
        """What a call's result is to us."""
        return self._env.get(node)

    def fold(self, tensor: torch.Tensor, wish: str, node: fx.Node | None) -> str:
        """Gives a tensor that is computed now a name of its own in the file, `wish` where that is free."""
        sources = self._sources(node) if node is not None else set()
        # A parameter's own name, only for what is computed from it and while nothing reads the parameter itself.
        others = {name for name in self.trace.stored.values() if name not in sources or self.builder.owner(name)}
        taken = self.folded.keys() | others
        name = next(name for i in count() if (name := f"{wish}_{i}" if i else wish) not in taken)
        tensor = tensor.detach().to(torch.float32).contiguous().clone()
        # A mask's −∞ is a number here.
        limits = torch.finfo(torch.float32)
        self.folded[name] = tensor.clamp(limits.min, limits.max)
        self.origins[name] = sorted(sources)
        return name

    def numbers_of(self, name: str) -> torch.Tensor:
        """A parameter or buffer itself, or what was folded under that name."""
        if name in self.folded:
            return self.folded[name]
        return next(self.trace.tensors[place] for place, own in self.trace.stored.items() if own == name)

    def _sources(self, node: fx.Node) -> set[str]:
        """State-dict names of what a call is computed from."""
        seen, rest = set(), [node]
        while rest:
            if (given := rest.pop()) not in seen:
                seen.add(given)
                rest += given.all_input_nodes
        return {self.trace.stored[node.name] for node in seen if node.name in self.trace.stored}

    def refuse_shared(self, call: Call, params: dict[str, str]) -> None:
        """Tied weights are one tensor under two names."""
        for tensor in params.values():
            if other := self.trace.shared.get(tensor):
                raise call.refuse(f"`{tensor}` and `{other}` are one tensor; shared weights cannot be merged")

    @staticmethod
    def _folded(node: fx.Node) -> View:
        return View(Stored(node.name, folded=True), Layout.of(tuple(node.meta["val"].shape)), node=node)

    def _placeholder(self, node: fx.Node) -> None:
        if node in self.static.changed:
            self._env[node] = self._folded(node)
        elif name := self.trace.stored.get(node.name):
            self._env[node] = View(Stored(name), Layout.of(tuple(node.meta["val"].shape)), node=node)
        elif (constant := self.trace.constants.get(node.name)) is not None and constant.numel() == 1:
            self._env[node] = constant.item()
        elif constant is not None:
            self._env[node] = self._folded(node)

    def _call_or_reason(self, node: fx.Node, position: dict[fx.Node, int]) -> Any:
        """What cannot be lowered matters only if an output is computed from it, unlike weights of attention."""
        if node in self.static.changed:
            return self._folded(node)
        try:
            result = self._call(node, position)
            return replace(result, node=node) if isinstance(result, View) and result.is_stored else result
        except LoweringError as error:
            self._not_carried = None
            if (otherwise := self._folded_or_carried(node, position)) is not None:
                if isinstance(otherwise, Carried) and not any(
                    isinstance(self._env.get(given), Carried) for given in node.all_input_nodes
                ):
                    self.carried.append((error, otherwise.name))
                return otherwise
            if (why := self._not_carried) and self.trace.site(node).op not in HANDLERS:
                error = why
            elif why and why.reason != UNKNOWN:
                error = LoweringError(error.node, error.op, f"{error.reason}; it cannot be carried either: {why.reason}")
            if any(self._is_of_image(given) for given in node.all_input_nodes):
                self._of_image.add(error)
            self._refused.setdefault(error, position[node])
            if changes_its_input(node) and not isinstance(self._env.get(node.args[0]), LoweringError):
                raise
            return error

    def _folded_or_carried(self, node: fx.Node, position: dict[fx.Node, int]) -> Any:
        """What no op of ours says: computed now, if it reads no image, else run as PyTorch does."""
        if node in self.static.known:
            value = self.static.known[node]
            if not isinstance(value, torch.Tensor):
                return None
            return self._folded(node)
        if any(isinstance(self._env.get(given), LoweringError) for given in node.all_input_nodes):
            return None
        call = Call(self, node, self.trace.site(node), {})
        try:
            if function_name(node) == "getitem":
                piece = self._known(call, node.args[0])[node.args[1]]
                call.site = self.trace.site(node.args[0])
                try:
                    return POSITIONS["getitem"](call, piece)
                except (LoweringError, AxesError):
                    return CARRIER.take(call, piece)
            if not isinstance(node.target, torch._ops.OpOverload):
                return None
            call.args = self._arguments(call)
            try:
                result = POSITIONS[call.site.op](call)
            except (LoweringError, AxesError, KeyError):
                result = CARRIER.carry(call)
            return self._overwrite(call, result, position) if changes_its_input(node) else result
        except LoweringError as error:
            self._not_carried = error
            return None

    def refuse_first(self, nodes: list[fx.Node]) -> None:
        """Of what these are computed from, what was refused first is the cause."""
        found = [self._env[node] for node in nodes if isinstance(self._env.get(node), LoweringError)]
        if found:
            raise min(found, key=self._refused.__getitem__)

    def _is_of_image(self, node: fx.Node) -> bool:
        """Whether something is computed from the image, or would be if it could be lowered."""
        found = self._env.get(node)
        return found in self._of_image if isinstance(found, LoweringError) else _is_computed(found)

    def _call(self, node: fx.Node, position: dict[fx.Node, int]) -> Any:
        site = self.trace.site(node)
        call = Call(self, node, site, {})
        if function_name(node) == "getitem":
            self.refuse_first(node.all_input_nodes)
            call.site = self.trace.site(node.args[0])
            call.args = {"piece": self._known(call, node.args[0])[node.args[1]]}
            handler: Handler = HANDLERS["getitem"]
        else:
            found = HANDLERS.get(site.op) if isinstance(node.target, torch._ops.OpOverload) else None
            if found is None:
                self.refuse_first([given for given in node.all_input_nodes if self._is_of_image(given)])
                raise call.refuse(self._unknown(node))
            self.refuse_first(node.all_input_nodes)
            handler = found
            call.args = self._arguments(call)
        self._follow(call)
        try:
            result = handler(call)
        except AxesError as error:
            raise call.refuse(str(error)) from error
        if changes_its_input(node):
            result = self._overwrite(call, result, position)
        return result

    def _unknown(self, node: fx.Node) -> str:
        """Why a function that has no handler cannot be one."""
        inputs = [self._env.get(n) for n in node.all_input_nodes]
        parameter = next((v.base.name for v in inputs if isinstance(v, View) and v.is_stored), None)
        if not inputs:
            return "makes a constant tensor (a mask, a grid), which no op of a model file takes"
        if parameter and not any(isinstance(v, View) and not v.is_stored for v in inputs):
            return f"computes something from the parameter `{parameter}` alone; parameters must be stored as used"
        return UNKNOWN

    def _arguments(self, call: Call) -> dict[str, Any]:
        given = list(call.node.args)
        bound = {}
        for i, argument in enumerate(call.node.target._schema.arguments):
            value = given[i] if i < len(given) else call.node.kwargs.get(argument.name, argument.default_value)
            bound[argument.name] = fx.node.map_arg(value, lambda n: self._known(call, n))
        return bound

    def _known(self, call: Call, node: fx.Node) -> Any:
        if node not in self._env:
            raise call.refuse(
                f"reads `{node.name}`, a constant that is neither a parameter nor computed from the image"
            )
        return self._env[node]

    def _overwrite(self, call: Call, result: View, position: dict[fx.Node, int]) -> View:
        """What an in-place op changed is changed for everybody who reads it later."""
        old = self._env[call.node.args[0]]
        if not isinstance(old, (View, Carried)) or not isinstance(result, (View, Carried)):
            raise call.refuse("changes in place what is not a tensor of the network yet")
        result = replace(result, memory=old.memory)
        for node, view in self._env.items():
            if isinstance(view, (View, Carried)) and view.memory is old.memory:
                read_later = any(position[user] > position[call.node] for user in node.users)
                if _is_same(view, old):
                    self._env[node] = result
                elif read_later:
                    raise call.refuse("changes in place what is read later through another view")
        return result

    def _follow(self, call: Call) -> None:
        """Carried tensors are followed again where an op of ours reads them."""
        name, axis = FOLLOWING.get(call.site.op, (None, None))
        if isinstance(call.args.get(name), Carried):
            call.args[name] = CARRIER.follow(call, call.args[name], axis)
        if call.site.op in TYING and any(isinstance(call.args.get(name), Carried) for name in ("self", "other")):
            pair = [call.args.get("self"), call.args.get("other")]
            beside = next((x for x in pair if isinstance(x, View) and not x.is_stored), None)
            axis = beside and CARRIER.feature_axis(beside)
            if axis is not None:
                for name, x in zip(("self", "other"), pair, strict=True):
                    if isinstance(x, Carried) and len(x.lengths) == beside.ndim:
                        call.args[name] = CARRIER.follow(call, x, axis)


def _is_computed(found: Any) -> bool:
    return isinstance(found, (Carried, Scores, list)) or (isinstance(found, View) and not found.is_stored)


def _is_same(a: View | Carried, b: View | Carried) -> bool:
    if isinstance(a, Carried) or isinstance(b, Carried):
        return isinstance(a, Carried) and isinstance(b, Carried) and a.name == b.name
    return a.base == b.base and a.layout == b.layout
