"""A JAX model and a mesh as a sharding problem.

The jaxpr of the model becomes a graph as in Alpa (Zheng et al., OSDI 2022, section 4): a node for
each parameter, each input and each contraction (dot products; embedding lookups and their
transposes, which are products with one-hot matrices). Everything else follows one of its operands.

A strategy of a node puts each mesh axis on one of its letters, the dimensions of an einsum, or on
none. It fixes how the result is split, what its operands must look like, and what has to be
reduced: an axis on a letter that is summed over costs an all-reduce of the result. An edge costs
the collectives between how a value is split where it is made and how it must be where it is used:
nothing, a slice (free), an all-gather or an all-to-all. A matrix of parameters is not sliced for a
contraction, and what is split over a dimension of inputs that a contraction sums over stays so
unless the axis is put to other use: XLA's partitioner splits a product as its operands are split.

Nodes with the same surroundings, as in the layers of a model, are one group and one decision. That
comes from the program, not from names: nodes start with their shapes and operations as labels,
which are refined by those of their neighbours (Weisfeiler & Leman) a few times.

Inputs come with their batch (first dimension) split over the first mesh axis. Over the second,
dimensions of inputs are not split: only what comes from parameters is, as the partitioner of XLA
does with sharded parameters.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import jax
import jax.extend
import numpy as np

from games.tensor_parallel.mesh import Mesh
from games.tensor_parallel.problem import FORBIDDEN, Floats, Ints, ShardingProblem
from hlo_frontend.errors import InputError

PICOSECONDS = 1e12  # the unit of the problem's costs
REFINEMENTS = 2
SHARERS = 2  # of what is gathered once
NONE = -1  # no letter, no dimension

Letters = tuple[int, ...]  # for each mesh axis the letter it is on


@dataclass
class Node:
    """A parameter, an input or a contraction.

    Attributes:
        kind: `param`, `input`, `contract` or `opaque`.
        label: what it is, for grouping.
        sizes: of the letters.
        result: letters of the result's dimensions.
        num_bytes: of the result.
        flops: of a contraction.
        from_input: letters that are dimensions of inputs.
        begin, end: equations between which the result is alive.
        path: of a parameter or an input.
        charges: (letter, bytes, reduce) of values that follow the node and lose the letter: a
            reduction of the bytes, or else a gather.
    """

    kind: str
    label: Any
    sizes: tuple[int, ...]
    result: tuple[int, ...]
    num_bytes: float
    flops: float = 0.0
    from_input: frozenset[int] = frozenset()
    begin: int = 0
    end: int = 0
    path: str = ""
    count: int = 1
    charges: list[tuple[int, float, bool]] = field(default_factory=list)


@dataclass(frozen=True)
class Use:
    """A value made by one node and used by another.

    Attributes:
        source, target: nodes.
        made, wanted: (letter of the node, dimension of the value) pairs.
        shape: of the value.
        num_bytes: of the value.
        count: how often it happens.
        whole: a split that the source does not have is not to be had.
        summed: dimensions of inputs that the target sums over; splits of them stay.
        gradient: the value sums over dimensions of inputs and is split like the target in the end:
            the batch's axis splits it as the target is split, or is summed over.
        sharers: contractions that use the same value: gathered for one, it is there for all.
    """

    source: int
    target: int
    made: tuple[tuple[int, int], ...]
    wanted: tuple[tuple[int, int], ...]
    shape: tuple[int, ...]
    num_bytes: float
    count: int
    whole: bool
    summed: tuple[int, ...]
    gradient: bool
    sharers: int = 1


@dataclass(frozen=True)
class Ref:
    """A value.

    Attributes:
        node: that it follows.
        letters: the node's, of each of its dimensions.
        num_bytes: that have to move for it to be split otherwise: what it is made of, element by
            element, may move in its place.
    """

    node: int
    letters: tuple[int, ...]
    num_bytes: float


@dataclass
class ModelGraph:
    """A model as nodes and uses, and their groups.

    Attributes:
        nodes: all of them.
        uses: between them.
        group: for each node the number of its group.
        members: nodes of each group.
        mesh: of devices.
    """

    nodes: list[Node]
    uses: list[Use]
    group: list[int]
    members: list[list[int]]
    mesh: Mesh

    def strategies(self, group: int) -> list[Letters]:
        """What a group can choose from; the first puts no axis anywhere."""
        return _strategies(self.nodes[self.members[group][0]], self.mesh)

    @cached_property
    def params(self) -> dict[str, int]:
        """Group of each parameter, by path."""
        return {
            node.path: self.group[index]
            for index, node in enumerate(self.nodes)
            if node.kind == "param"
        }

    @cached_property
    def wires(self) -> ShardingProblem:
        """The same choices, their costs the bytes that a device sends: nothing else takes time."""
        axes = len(self.mesh.shape)
        only = replace(
            self.mesh,
            alpha=(0.0,) * axes,
            beta=(1 / PICOSECONDS,) * axes,
            peak_flops=math.inf,
        )
        return _problem(replace(self, mesh=only), "wires")

    def problem(self, name: str) -> ShardingProblem:
        """The groups as a sharding problem, in picoseconds and bytes."""
        return _problem(self, name)


def model_graph(
    function: Callable[..., Any], params: Any, inputs: Sequence[Any], mesh: Mesh
) -> ModelGraph:
    """Reads a model.

    Args:
        function: `function(params, *inputs)`; traced, never run.
        params: pytree of arrays or `jax.ShapeDtypeStruct`.
        inputs: the other arguments, likewise.
        mesh: of devices.

    Raises:
        InputError: the function cannot be traced.
    """
    try:
        closed, outputs = jax.make_jaxpr(function, return_shape=True)(params, *inputs)
    except Exception as error:  # whatever the user's function raises
        text = str(error).split("\n", maxsplit=1)[0]
        raise InputError(f"model: cannot be traced with these shapes ({text})") from error
    reader = _Reader(mesh)
    jaxpr = closed.jaxpr
    paths = [path_of(path) for path, _ in jax.tree_util.tree_flatten_with_path(params)[0]]
    for position, var in enumerate(jaxpr.invars):
        kind = "param" if position < len(paths) else "input"
        path = paths[position] if kind == "param" else f"input {position - len(paths)}"
        reader.leaf(var, kind, path)
    for var in jaxpr.constvars:
        reader.env[var] = None
    reader.read(jaxpr, 1)
    by_path = {node.path: index for index, node in enumerate(reader.nodes)}
    leaves = jax.tree_util.tree_flatten_with_path(outputs)[0]
    for (keys, _), var in zip(leaves, jaxpr.outvars, strict=True):
        # A result in the place and of the shape of a parameter, such as its gradient, is split
        # like it.
        pieces = path_of(keys).split("/")
        for start in range(len(pieces)):
            index = by_path.get("/".join(pieces[start:]))
            if index is not None and reader.nodes[index].sizes == tuple(var.aval.shape):
                wanted = tuple((d, d) for d in range(len(var.aval.shape)))
                reader.use(var, index, wanted, 1)
                break
    reader.share()
    return _grouped(reader, mesh)


def path_of(path: Sequence[Any]) -> str:
    """`a/b/0` of the keys of a pytree."""
    names = []
    for key in path:
        for attribute in ("key", "idx", "name"):
            if hasattr(key, attribute):
                names.append(str(getattr(key, attribute)))
                break
    return "/".join(names)


_ELEMENTWISE_LOSERS: dict[
    str, Callable[[Any], Sequence[int]]
] = {  # the dimensions that they work along
    "sort": lambda p: (p["dimension"],),
    "cumsum": lambda p: (p["axis"],),
    "cumlogsumexp": lambda p: (p["axis"],),
    "cummax": lambda p: (p["axis"],),
    "cumprod": lambda p: (p["axis"],),
    "rev": lambda p: p["dimensions"],
}


class _Reader:
    """Walks a jaxpr."""

    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh
        self.nodes: list[Node] = []
        self.uses: list[Use] = []
        self.used: list[Ref] = []  # by each of the uses
        self.env: dict[Any, Ref | None] = {}
        self.now = 0

    def leaf(self, var: Any, kind: str, path: str) -> None:
        shape = tuple(var.aval.shape)
        dims = tuple(range(len(shape)))
        from_input = frozenset(dims) if kind == "input" else frozenset()
        node = Node(kind, (kind, shape), shape, dims, _bytes(var), path=path, from_input=from_input)
        self.nodes.append(node)
        self.env[var] = Ref(len(self.nodes) - 1, dims, _bytes(var))

    def ref(self, atom: Any) -> Ref | None:
        """None for literals and what is made of nothing: they are wherever they are needed."""
        if isinstance(atom, jax.extend.core.Literal):
            return None
        found = self.env.get(atom)
        if found is not None:
            self.nodes[found.node].end = max(self.nodes[found.node].end, self.now)
        return found

    def use(self, atom: Any, target: int, wanted: tuple[tuple[int, int], ...], count: int) -> None:
        """The node `target` wants the value with its letters on the value's dimensions."""
        ref = self.ref(atom)
        if ref is None:
            return
        made = tuple((letter, d) for d, letter in enumerate(ref.letters) if letter != NONE)
        shape = tuple(atom.aval.shape)
        whole = (
            self.nodes[ref.node].kind == "param"
            and self.nodes[target].kind == "contract"
            and len(shape) > 1
        )
        goal = self.nodes[target]
        summed = tuple(
            d
            for letter, d in wanted
            if goal.kind == "contract" and letter in goal.from_input and letter not in goal.result
        )
        source = self.nodes[ref.node]
        gradient = goal.kind == "param" and any(
            letter not in source.result for letter in source.from_input
        )
        made_of = (shape, ref.num_bytes, count, whole, summed, gradient)
        self.uses.append(Use(ref.node, target, made, wanted, *made_of))
        self.used.append(ref)

    def share(self) -> None:
        """Counts for each use the contractions that use the same value as often, up to two.

        A product and its gradient are sure to have a value split alike; more uses need not.
        """
        keys = [
            (id(ref), use.count) if self.nodes[use.target].kind == "contract" else None
            for use, ref in zip(self.uses, self.used, strict=True)
        ]
        number = Counter(keys)
        self.uses = [
            use if key is None else replace(use, sharers=min(number[key], SHARERS))
            for use, key in zip(self.uses, keys, strict=True)
        ]

    def read(self, jaxpr: Any, count: int) -> None:
        for equation in jaxpr.eqns:
            self.now += 1
            self.equation(equation, count)

    def equation(self, eqn: Any, count: int) -> None:
        name = eqn.primitive.name
        inner = _inner(eqn)
        if name == "scan":
            self.scan(eqn, count)
        elif inner is not None:
            for var, atom in zip(inner.invars, eqn.invars, strict=True):
                self.env[var] = self.ref(atom)
            for var in inner.constvars:
                self.env[var] = None
            self.read(inner, count)
            for var, atom in zip(eqn.outvars, inner.outvars, strict=True):
                self.env[var] = self.ref(atom)
        elif name == "dot_general":
            self.dot(eqn, count)
        elif name == "gather" and _is_lookup(eqn):
            self.lookup(eqn, count)
        elif name == "scatter-add" and _is_lookup(eqn):
            self.scattered(eqn, count)
        elif name in ("while", "cond", "gather", "scatter", "scatter-add", "custom_call") or (
            name.startswith("conv_")
        ):
            self.opaque(eqn, count)
        else:
            self.follow(eqn, count)

    def scan(self, eqn: Any, count: int) -> None:
        """The body once, its costs times the length."""
        params = eqn.params
        body, length = params["jaxpr"].jaxpr, params["length"]
        consts, carries = params["num_consts"], params["num_carry"]
        for position, (var, atom) in enumerate(zip(body.invars, eqn.invars, strict=True)):
            ref = self.ref(atom)
            if ref is not None and position >= consts + carries:
                self.charge(ref, (0,), atom, count, reduce=False)
                ref = Ref(ref.node, ref.letters[1:], _bytes(var))
            self.env[var] = ref
        for var in body.constvars:
            self.env[var] = None
        self.read(body, count * length)
        for position, (var, atom) in enumerate(zip(eqn.outvars, body.outvars, strict=True)):
            ref = self.ref(atom)
            if position < carries:
                before = self.env[body.invars[consts + position]]
                if ref is not None and before is not None:
                    wanted = tuple((x, d) for d, x in enumerate(before.letters) if x != NONE)
                    self.use(atom, before.node, wanted, count * length)
                    ref = before
                self.env[var] = ref
            else:
                if ref is not None:
                    ref = Ref(ref.node, (NONE, *ref.letters), _bytes(var))
                self.env[var] = ref

    def add(self, node: Node, var: Any) -> int:
        node.begin = node.end = self.now
        self.nodes.append(node)
        self.env[var] = Ref(len(self.nodes) - 1, node.result, _bytes(var))
        return len(self.nodes) - 1

    def contraction(
        self,
        eqn: Any,
        operands: Sequence[tuple[Any, tuple[int, ...]]],
        result: tuple[int, ...],
        sizes: dict[int, int],
        flops: float,
        count: int,
    ) -> None:
        """Adds a node of einsum letters 0..n-1: those of each operand and of the result."""
        from_input: set[int] = set()
        for atom, letters in operands:
            ref = self.ref(atom)
            if ref is None:
                continue
            own = self.nodes[ref.node].from_input
            from_input |= {
                letter
                for theirs, letter in zip(ref.letters, letters, strict=True)
                if theirs in own and letter != NONE
            }
        out = eqn.outvars[0]
        shapes = tuple(tuple(atom.aval.shape) for atom, _ in operands)
        label = (eqn.primitive.name, shapes, tuple(x for _, x in operands), result, count)
        node = Node(
            "contract",
            label,
            tuple(sizes[letter] for letter in range(len(sizes))),
            result,
            _bytes(out),
            flops=flops,
            from_input=frozenset(from_input),
            count=count,
        )
        index = self.add(node, out)
        for atom, letters in operands:
            wanted = tuple((letter, d) for d, letter in enumerate(letters) if letter != NONE)
            self.use(atom, index, wanted, count)

    def dot(self, eqn: Any, count: int) -> None:
        left, right = eqn.invars
        (lc, rc), (lb, rb) = eqn.params["dimension_numbers"]
        of_left, of_right = [NONE] * left.aval.ndim, [NONE] * right.aval.ndim
        sizes: dict[int, int] = {}
        result = []

        def letter(size: int) -> int:
            sizes[len(sizes)] = size
            return len(sizes) - 1

        for i, j in zip(lb, rb, strict=True):
            of_left[i] = of_right[j] = letter(left.aval.shape[i])
            result.append(of_left[i])
        for i, j in zip(lc, rc, strict=True):
            of_left[i] = of_right[j] = letter(left.aval.shape[i])
        for dims, shape, batch, contracted in (
            (of_left, left.aval.shape, lb, lc),
            (of_right, right.aval.shape, rb, rc),
        ):
            for d, size in enumerate(shape):
                if d not in batch and d not in contracted:
                    dims[d] = letter(size)
                    result.append(dims[d])
        flops = 2.0 * math.prod(sizes.values())
        pairs = [(left, tuple(of_left)), (right, tuple(of_right))]
        self.contraction(eqn, pairs, tuple(result), sizes, flops, count)

    def lookup(self, eqn: Any, count: int) -> None:
        """Rows of a table: `ids, vh -> ids h`, summed over v."""
        table, ids = eqn.invars[:2]
        outer = ids.aval.shape[:-1]
        sizes = dict(enumerate(outer))
        rows, columns = len(outer), len(outer) + 1
        sizes[rows], sizes[columns] = table.aval.shape
        pairs = [(ids, (*range(len(outer)), NONE)), (table, (rows, columns))]
        self.contraction(eqn, pairs, (*range(len(outer)), columns), sizes, 0.0, count)

    def scattered(self, eqn: Any, count: int) -> None:
        """The gradient of a lookup: `ids, ids h -> vh`, summed over the ids."""
        table, ids, updates = eqn.invars[:3]
        outer = ids.aval.shape[:-1]
        sizes = dict(enumerate(outer))
        rows, columns = len(outer), len(outer) + 1
        sizes[rows], sizes[columns] = table.aval.shape
        pairs = [
            (ids, (*range(len(outer)), NONE)),
            (updates, (*range(len(outer)), columns)),
        ]
        self.contraction(eqn, pairs, (rows, columns), sizes, 0.0, count)

    def opaque(self, eqn: Any, count: int) -> None:
        """What is not understood: everything whole, on every device."""
        label = (eqn.primitive.name, tuple(tuple(v.aval.shape) for v in eqn.outvars))
        for var in eqn.outvars:
            rank = len(var.aval.shape)
            node = Node("opaque", label, (), (NONE,) * rank, _bytes(var), count=count)
            index = self.add(node, var)
            for atom in eqn.invars:
                if not isinstance(atom, jax.extend.core.Literal):
                    self.use(atom, index, (), count)

    def charge(
        self, ref: Ref, dims: Sequence[int], value: Any, count: int, *, reduce: bool
    ) -> None:
        """The value loses these dimensions of what it follows."""
        for d in dims:
            if ref.letters[d] != NONE:
                num_bytes = _bytes(value) * count
                self.nodes[ref.node].charges.append((ref.letters[d], num_bytes, reduce))

    def follow(self, eqn: Any, count: int) -> None:
        """A result that is split as one of the operands is."""
        out = eqn.outvars[0]
        arrays = [a for a in eqn.invars if not isinstance(a, jax.extend.core.Literal)]
        known = [atom for atom in arrays if self.ref(atom) is not None]
        if not known:
            for var in eqn.outvars:
                self.env[var] = None
            return
        size = {var: self._weight(var) for var in known}
        main = max(known, key=lambda var: size[var])
        ref = self.ref(main)
        assert ref is not None  # `known` has only such
        places, lost, reduce = _places(eqn, main)
        for var in eqn.outvars:
            if len(var.aval.shape) != len(out.aval.shape):
                self.opaque(eqn, count)
                return
        self.charge(ref, lost, out if reduce else main, count, reduce=reduce)
        letters = tuple(NONE if d is None else ref.letters[d] for d in places)
        for var in eqn.outvars:
            moved = _bytes(var)
            if len(known) == 1:
                moved = min(moved, ref.num_bytes)
            self.env[var] = Ref(ref.node, letters, moved)
        for atom in known:
            if atom is main:
                continue
            theirs, _, _ = _places(eqn, atom)
            wanted = tuple(
                (letters[d], place)
                for d, place in enumerate(theirs)
                if place is not None and letters[d] != NONE
            )
            own = self.ref(atom)
            if own is not None and own.node == ref.node:
                same = all(own.letters[place] == letter for letter, place in wanted)
                if same and len(wanted) == sum(x != NONE for x in own.letters):
                    continue
            self.use(atom, ref.node, wanted, count)

    def _weight(self, var: Any) -> tuple[int, int, int]:
        """Large values lead, and among equals what is computed before what is given."""
        ref = self.env[var]
        assert ref is not None  # of `known`
        node = self.nodes[ref.node]
        computed = int(node.kind not in ("param", "input"))
        return (math.prod(var.aval.shape), computed, sum(x != NONE for x in ref.letters))


def _inner(eqn: Any) -> Any:
    """The jaxpr that the equation calls once with its operands, None if it does not."""
    if eqn.primitive.name in ("while", "cond", "scan"):
        return None
    for key in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
        found = eqn.params.get(key)
        if found is not None:
            inner = getattr(found, "jaxpr", found)
            if len(inner.invars) == len(eqn.invars):
                return inner
    return None


def _is_lookup(eqn: Any) -> bool:
    """Whole rows of a matrix by one index each."""
    numbers = eqn.params["dimension_numbers"]
    table = eqn.invars[0].aval.shape
    if len(table) != 2 or eqn.invars[1].aval.shape[-1] != 1:
        return False
    if eqn.primitive.name == "gather":
        return tuple(eqn.params["slice_sizes"]) == (1, table[1]) and (
            tuple(numbers.collapsed_slice_dims) == (0,)
        )
    return tuple(numbers.inserted_window_dims) == (0,) and (
        tuple(numbers.scatter_dims_to_operand_dims) == (0,)
    )


def _places(eqn: Any, operand: Any) -> tuple[list[int | None], list[int], bool]:
    """(for each dimension of the result that of the operand, dimensions lost, by a reduction)."""
    name, params = eqn.primitive.name, eqn.params
    shape, out = operand.aval.shape, eqn.outvars[0].aval.shape
    places: list[int | None]
    if name.startswith(("reduce_", "arg")) and "axes" in params:
        axes = set(params["axes"])
        return [d for d in range(len(shape)) if d not in axes], sorted(axes), True
    if name == "broadcast_in_dim":
        places = [None] * len(out)
        for d, place in enumerate(params["broadcast_dimensions"]):
            places[place] = d if shape[d] == out[place] else None
        return places, [], False
    if name == "transpose":
        return list(params["permutation"]), [], False
    if name == "squeeze":
        gone = {d % len(shape) for d in params["dimensions"]}
        return [d for d in range(len(shape)) if d not in gone], [], False
    if name in ("reshape", "expand_dims"):
        places = _reshaped(shape, out)
    elif len(shape) == len(out):
        places = [d if shape[d] == out[d] else None for d in range(len(out))]
        if name in _ELEMENTWISE_LOSERS:
            for d in _ELEMENTWISE_LOSERS[name](params):
                places[d] = None
        if name == "top_k":
            places[-1] = None
    else:
        places = [None] * len(out)
    kept = {place for place in places if place is not None}
    lost = [d for d in range(len(shape)) if d not in kept and shape[d] > 1]
    return places, lost, False


def _reshaped(shape: Sequence[int], out: Sequence[int]) -> list[int | None]:
    """Dimensions of a reshape: the major one of those that are split or merged carries on."""
    places: list[int | None] = [None] * len(out)
    i = j = 0
    while i < len(shape) and j < len(out):
        first, place = i, j
        have, want = shape[i], out[j]
        while have != want:
            if have < want:
                i += 1
                have *= shape[i]
            else:
                j += 1
                want *= out[j]
        # Sizes of one are no dimension to carry anything.
        while first < i and shape[first] == 1:
            first += 1
        while place < j and out[place] == 1:
            place += 1
        places[place] = first
        i, j = i + 1, j + 1
    return places


def _bytes(var: Any) -> float:
    return float(math.prod(var.aval.shape) * var.aval.dtype.itemsize)


def _strategies(node: Node, mesh: Mesh) -> list[Letters]:
    choices = []
    for axis, size in enumerate(mesh.shape):
        if node.kind == "input":
            first = node.sizes and axis == 0 and size > 1 and node.sizes[0] % size == 0
            choices.append([0 if first else NONE])
            continue
        allowed = [NONE]
        for letter, length in enumerate(node.sizes):
            inputs_own = letter in node.from_input and axis > 0
            if size > 1 and length % size == 0 and not inputs_own:
                allowed.append(letter)
        choices.append(allowed)
    found = []
    for letters in itertools.product(*choices):
        split: dict[int, int] = {}
        for axis, letter in enumerate(letters):
            if letter != NONE:
                split[letter] = split.get(letter, 1) * mesh.shape[axis]
        if all(node.sizes[letter] % parts == 0 for letter, parts in split.items()):
            found.append(letters)
    return found


def _node_cost(node: Node, letters: Letters, mesh: Mesh) -> float:
    """Seconds of one occurrence: arithmetic, reductions, and what followers lose."""
    shards = math.prod(mesh.shape[a] for a, letter in enumerate(letters) if letter != NONE)
    total = node.flops / shards / mesh.peak_flops * node.count
    summed = []
    for axis, letter in enumerate(letters):
        if letter == NONE:
            continue
        others = math.prod(
            mesh.shape[a]
            for a, other in enumerate(letters)
            if a != axis and other in node.result and other != NONE
        )
        if node.kind == "contract" and letter not in node.result:
            summed.append(axis)
        for lost, num_bytes, reduce in node.charges:
            if lost == letter:
                cost = mesh.all_reduce if reduce else mesh.all_gather
                total += cost(axis, num_bytes / others)
    split = math.prod(mesh.shape[a] for a, letter in enumerate(letters) if letter in node.result)
    total += _reduced(mesh, summed, node.num_bytes / split) * node.count
    return total


def _reduced(mesh: Mesh, axes: Sequence[int], num_bytes: float) -> float:
    """Seconds of an all-reduce along the axes: of what the first one scatters, the next reduces."""

    def seconds(order: Sequence[int]) -> float:
        total, left = 0.0, num_bytes
        for axis in order:
            total += mesh.all_reduce(axis, left)
            left /= mesh.shape[axis]
        return total

    return min(seconds(order) for order in itertools.permutations(axes))


def _gathered(mesh: Mesh, axes: Sequence[int], num_bytes: float) -> float:
    """Seconds of an all-gather along the axes, one after the other, of so many bytes after it."""

    def seconds(order: Sequence[int]) -> float:
        total, whole = 0.0, num_bytes
        for axis in order:
            total += mesh.all_gather(axis, whole)
            whole /= mesh.shape[axis]
        return total

    return min(seconds(order) for order in itertools.permutations(axes))


def _use_cost(use: Use, made: Letters, wanted: Letters, mesh: Mesh) -> float:
    """Seconds of the collectives from how a value is split to how it must be."""

    def dims(letters: Letters, pairs: tuple[tuple[int, int], ...]) -> list[int]:
        place = dict(pairs)
        parts: dict[int, int] = {}
        found = []
        for axis, letter in enumerate(letters):
            d = place.get(letter, NONE) if letter != NONE else NONE
            if d != NONE:
                parts[d] = parts.get(d, 1) * mesh.shape[axis]
                if use.shape[d] % parts[d]:
                    d = NONE
            found.append(d)
        return found

    have, need = dims(made, use.made), dims(wanted, use.wanted)
    total = 0.0
    gathered = []
    for axis, (before, after) in enumerate(zip(have, need, strict=True)):
        if use.whole and before == NONE and after != NONE:
            return math.inf
        if wanted[axis] == NONE and before in use.summed:
            return math.inf
        if before in (after, NONE):
            continue
        if use.gradient and axis == 0:
            return math.inf
        if after == NONE:
            gathered.append(axis)
        else:
            others = math.prod(mesh.shape[a] for a, d in enumerate(need) if a != axis and d != NONE)
            total += mesh.all_to_all(axis, use.num_bytes / others / mesh.shape[axis])
    kept = math.prod(mesh.shape[a] for a, d in enumerate(need) if d != NONE and a not in gathered)
    total += _gathered(mesh, gathered, use.num_bytes / kept) / use.sharers
    return total * use.count


def _grouped(reader: _Reader, mesh: Mesh) -> ModelGraph:
    labels: list[Any] = [node.label for node in reader.nodes]
    around: list[list[tuple[Any, int]]] = [[] for _ in reader.nodes]
    for use in reader.uses:
        role = (use.made, use.wanted, use.shape, use.count)
        around[use.source].append((("to", role), use.target))
        around[use.target].append((("from", role), use.source))
    numbers: dict[Any, int] = {}
    codes = [numbers.setdefault(label, len(numbers)) for label in labels]
    for _ in range(REFINEMENTS):
        seen: dict[Any, int] = {}
        codes = [
            seen.setdefault(
                (
                    codes[index],
                    tuple(sorted({(repr(role), codes[o]) for role, o in around[index]})),
                ),
                len(seen),
            )
            for index in range(len(reader.nodes))
        ]
    members: list[list[int]] = [[] for _ in range(max(codes, default=-1) + 1)]
    for index, code in enumerate(codes):
        members[code].append(index)
    return ModelGraph(reader.nodes, reader.uses, codes, members, mesh)


def _problem(graph: ModelGraph, name: str) -> ShardingProblem:
    mesh = graph.mesh
    options = [graph.strategies(group) for group in range(len(graph.members))]
    costs: list[list[int]] = []
    usages: list[list[int]] = []
    intervals = []
    last = max((node.end for node in graph.nodes), default=0) + 1
    for group, members in enumerate(graph.members):
        nodes = [graph.nodes[index] for index in members]
        if nodes[0].kind in ("param", "input"):
            begin, end = 0, last
            weight = sum(node.num_bytes for node in nodes)
        else:
            begin, end = min(node.begin for node in nodes), max(node.end for node in nodes) + 1
            weight = _most_alive(nodes)
        intervals.append((begin, end))
        result = nodes[0].result
        seconds = [sum(_node_cost(node, s, mesh) for node in nodes) for s in options[group]]
        costs.append([round(second * PICOSECONDS) for second in seconds])
        usages.append(
            [
                math.ceil(
                    weight
                    / math.prod(
                        mesh.shape[axis]
                        for axis, letter in enumerate(s)
                        if letter != NONE and letter in result
                    )
                )
                for s in options[group]
            ]
        )
    tables: dict[tuple[int, int], np.ndarray] = {}
    known: dict[Any, np.ndarray] = {}
    for use in graph.uses:
        a, b = graph.group[use.source], graph.group[use.target]
        key = (
            a,
            b,
            use.made,
            use.wanted,
            use.shape,
            use.num_bytes,
            use.count,
            use.whole,
            use.summed,
            use.gradient,
            use.sharers,
        )
        if key not in known:
            known[key] = np.array(
                [[_use_cost(use, s, t, mesh) for t in options[b]] for s in options[a]]
            )
        seconds_table = known[key]
        if a == b:
            extra = _whole(np.diagonal(seconds_table))
            costs[a] = [x + int(y) for x, y in zip(costs[a], extra, strict=True)]
        elif (b, a) in tables:
            tables[b, a] = tables[b, a] + seconds_table.T
        else:
            tables[a, b] = tables.get((a, b), 0.0) + seconds_table
    entries = [_whole(table.ravel()) for table in tables.values()]
    return ShardingProblem(
        name=name,
        node_start=np.concatenate([[0], np.cumsum([len(row) for row in costs])]).astype(np.int64),
        node_cost=np.array(list(itertools.chain(*costs)), dtype=np.int64),
        node_usage=np.array(list(itertools.chain(*usages)), dtype=np.int64),
        interval=np.array(intervals, dtype=np.int64),
        edge_nodes=np.array(list(tables), dtype=np.int64).reshape(-1, 2),
        edge_start=np.concatenate([[0], np.cumsum([len(e) for e in entries])]).astype(np.int64),
        edge_cost=np.concatenate(entries) if entries else np.empty(0, np.int64),
        usage_limit=mesh.memory,
    )


def _whole(seconds: Floats) -> Ints:
    """Whole picoseconds; inf is what the problem says for not allowed."""
    finite = np.where(np.isinf(seconds), 0.0, seconds)
    return np.where(np.isinf(seconds), FORBIDDEN, np.round(finite * PICOSECONDS).astype(np.int64))


def _most_alive(nodes: list[Node]) -> float:
    """Most bytes of the nodes' results that are alive at one time."""
    changes = sorted(
        [(node.begin, node.num_bytes) for node in nodes]
        + [(node.end + 1, -node.num_bytes) for node in nodes]
    )
    most = load = 0.0
    for _, change in changes:
        load += change
        most = max(most, load)
    return most
