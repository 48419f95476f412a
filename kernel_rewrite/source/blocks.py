"""Where a block pointer or a tensor descriptor writes, in the source's own words: what its maker says of each dimension.

    c_block = tl.make_block_ptr(c_ptr, (M, N), (stride_cm, stride_cn), (row, col), (BLOCK_M, BLOCK_N), order=(1, 0))
    tl.store(c_block, c, boundary_check=(0, 1))

writes the columns `col + tl.arange(0, BLOCK_N)`, those below N. A descriptor that the launcher makes has `desc.shape`,
`desc.strides` and `desc.block_shape`. What is read here is a proposal: `ttir.blocks` reads the same from the compiled kernel.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from kernel_rewrite.source.addresses import Axis, NotAffine, Reader, StoreAddress
from kernel_rewrite.source.definitions import Definitions
from kernel_rewrite.source.syntax import last_name

_MAKERS: Mapping[str, tuple[str, ...]] = {
    "make_block_ptr": ("base", "shape", "strides", "offsets", "block_shape", "order"),
    "make_tensor_descriptor": ("base", "shape", "strides", "block_shape", "padding_option"),
}

_DEPTH = 24


@dataclass(frozen=True, slots=True)
class Dimension:
    """One dimension of a block: the arguments whose product is its stride (none: 1), where the block starts, how long it is,
    and the size of the buffer that clips it (None: nothing does)."""

    strides: tuple[str, ...]
    offset: ast.expr
    length: ast.expr
    size: ast.expr | None

    def index(self, tl: str) -> ast.expr:
        """`col + tl.arange(0, BLOCK_N)`"""
        lanes = ast.parse(f"{tl}.arange(0, {ast.unparse(self.length)})", mode="eval").body
        if isinstance(self.offset, ast.Constant) and self.offset.value == 0:
            return lanes
        return ast.BinOp(self.offset, ast.Add(), lanes)


@dataclass(frozen=True, slots=True)
class Block:
    """The dimensions of a block, and the axes along which its base was moved before."""

    dimensions: tuple[Dimension, ...]
    moved: tuple[Axis, ...] = ()

    def along(self, strides: tuple[str, ...]) -> int | None:
        """The dimension that has a stride."""
        return next((i for i, dimension in enumerate(self.dimensions) if dimension.strides == strides), None)

    def spread(self, index: ast.expr, dimension: int) -> ast.expr:
        """`index[None, :]`, an index that lies along one dimension of the block."""
        if len(self.dimensions) == 1:
            return index
        parts = ["None"] * len(self.dimensions)
        parts[dimension] = ":"
        return ast.parse(f"({ast.unparse(index)})[{', '.join(parts)}]", mode="eval").body

    def address(self, tl: str) -> StoreAddress:
        """Where the block lies, as the address of raw pointers would say it."""
        rank = len(self.dimensions)
        own = [
            Axis(d.strides, self.spread(d.index(tl), number), number, rank, wide=True)
            for number, d in enumerate(self.dimensions)
        ]
        return StoreAddress((*self.moved, *own))


def block(
    pointer: ast.expr,
    offsets: ast.expr | None,
    checked: Collection[int] | None,
    statement: ast.stmt,
    definitions: Definitions,
    reader: Reader,
    made_outside: Collection[str] = (),
) -> Block:
    """The block that an expression of `statement` points to. `offsets` are those of a descriptor's store; `checked` are the
    dimensions at whose bounds the store stops (None: all); `made_outside` are parameters that are descriptors. Raises
    NotAffine."""
    if isinstance(pointer, ast.Name) and pointer.id in made_outside and not definitions.bindings(pointer.id):
        return _described(pointer.id, parts(offsets, statement, definitions))
    call, moves = maker(pointer, statement, definitions)
    given = given_arguments(call)
    starts = parts(offsets if offsets is not None else given.get("offsets"), statement, definitions)
    sizes, strides, lengths = (parts(given.get(n), statement, definitions) for n in ("shape", "strides", "block_shape"))
    rank = len(lengths)
    if not len(starts) == len(sizes) == len(strides) == rank or "base" not in given:
        raise NotAffine("is that of a block whose dimensions could not be counted")
    for move in moves:
        steps = parts(move, statement, definitions)
        if len(steps) != rank:
            raise NotAffine("is that of a block whose dimensions could not be counted")
        starts = tuple(map(moved_start, starts, steps))
    dimensions = tuple(
        Dimension(
            reader.stride(strides[number], statement),
            starts[number],
            lengths[number],
            sizes[number] if checked is None or number in checked else None,
        )
        for number in range(rank)
    )
    moved = reader.address(given["base"], statement).axes
    own = {dimension.strides for dimension in dimensions}
    for axis in moved:
        if not axis.strides or axis.strides in own:
            raise NotAffine(
                f"moves its base by `{ast.unparse(axis.index)}`, and nothing says along which dimension that is"
            )
    if len(own) != rank:
        raise NotAffine("is that of a block with two dimensions of one stride")
    return Block(dimensions, moved)


def _described(name: str, starts: tuple[ast.expr, ...]) -> Block:
    """The block of a descriptor that is a parameter: one with a last stride of 1, as all are."""

    def part(of: str, number: int) -> ast.expr:
        return ast.parse(f"{name}.{of}[{number}]", mode="eval").body

    last = len(starts) - 1
    return Block(
        tuple(
            Dimension(
                () if number == last else (f"{name}.strides[{number}]",),
                start,
                part("block_shape", number),
                part("shape", number),
            )
            for number, start in enumerate(starts)
        )
    )


def literal_dimensions(boundary_check: ast.expr | None) -> frozenset[int]:
    """The dimensions that `boundary_check=(0, 1)` names. Raises NotAffine for what cannot be read."""
    if boundary_check is None:
        return frozenset()
    try:
        found = ast.literal_eval(boundary_check)
        return frozenset(int(number) for number in found)
    except (ValueError, TypeError):
        raise NotAffine("is checked at bounds that are not written out") from None


def maker(pointer: ast.expr, statement: ast.stmt, definitions: Definitions) -> tuple[ast.Call, list[ast.expr]]:
    """The call that makes what `pointer` is, and the steps it was advanced by."""
    moves: list[ast.expr] = []
    for _ in range(_DEPTH):
        match pointer:
            case ast.Name(id=name):
                value = definitions.value_at(name, statement)
                if value is None:
                    several = bool(definitions.bindings(name))
                    what = "which holds several values" if several else "which is made elsewhere"
                    raise NotAffine(f"goes through `{name}`, {what}")
                pointer = value
            case ast.Call(func=ast.Attribute(attr="advance", value=inner), args=[step], keywords=[]):
                moves.append(step)
                pointer = inner
            case ast.Call(func=function, args=[inner, step], keywords=[]) if last_name(function) == "advance":
                moves.append(step)
                pointer = inner
            case ast.Call(func=function) if last_name(function) in _MAKERS:
                return pointer, moves
            case _:
                break
    raise NotAffine("is that of a block whose maker could not be found")


def given_arguments(call: ast.Call) -> dict[str, ast.expr]:
    names = _MAKERS[last_name(call.func)]
    given = dict(zip(names, call.args, strict=False))
    return given | {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg is not None}


def parts(node: ast.expr | None, statement: ast.stmt, definitions: Definitions) -> tuple[ast.expr, ...]:
    """The items of `(row, col)` or `[row, col]`, also through a name."""
    if isinstance(node, ast.Name):
        node = definitions.value_at(node.id, statement)
    if not isinstance(node, (ast.Tuple, ast.List)) or any(isinstance(item, ast.Starred) for item in node.elts):
        raise NotAffine("is that of a block whose dimensions could not be counted")
    return tuple(node.elts)


def moved_start(start: ast.expr, step: ast.expr) -> ast.expr:
    if is_zero(step):
        return start
    return step if is_zero(start) else ast.BinOp(start, ast.Add(), step)


def is_zero(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value == 0
