"""The bounds of a block that is loaded, as tests that the source can write: which lanes lie inside the buffer.

    x_desc = tl.make_tensor_descriptor(x_ptr, [M, N], [N, 1], [BLOCK_M, BLOCK_N])
    x = x_desc.load([row, column])

has the lanes `(row + tl.arange(0, BLOCK_M) < M)[:, None] & (column + tl.arange(0, BLOCK_N) < N)[None, :]`. A descriptor that
is made elsewhere says its own shape. What is read here is a proposal: `ttir.blocks` reads the same from the compiled kernel.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from kernel_rewrite.source.addresses import NotAffine
from kernel_rewrite.source.blocks import given_arguments, is_zero, maker, moved_start, parts
from kernel_rewrite.source.definitions import Definitions, counted
from kernel_rewrite.source.syntax import last_name, walk

_PLAIN_CALLS = frozenset({"program_id", "num_programs", "cdiv", "min", "max", "minimum", "maximum", "to", "cast"})
"""Calls that may be written twice: they only compute, and cost little."""


@dataclass(frozen=True, slots=True)
class Bound:
    """One dimension of a block at whose end a load stops: which of how many, where the block starts, how long it is, and the
    size of the buffer."""

    number: int
    rank: int
    offset: ast.expr
    length: ast.expr
    size: ast.expr

    @property
    def is_assumed(self) -> bool:
        """Whether the tests take it for granted that the block starts at no negative index."""
        return not self.may_be_negative and not isinstance(self.offset, ast.Constant)

    @property
    def may_be_negative(self) -> bool:
        """Whether the source subtracts something to get where the block starts: both ends are tested then."""
        return any(isinstance(node, (ast.Sub, ast.USub)) for node in ast.walk(self.offset))

    def mentions(self, name: str) -> bool:
        parts = (self.offset, self.length, self.size)
        return any(isinstance(node, ast.Name) and node.id == name for part in parts for node in walk(part))

    def tests(self, tl: str) -> Iterator[str]:
        """`(column + tl.arange(0, BLOCK_N) < N)[None, :]`"""
        index: ast.expr = ast.parse(f"{tl}.arange(0, {ast.unparse(self.length)})", mode="eval").body
        if not is_zero(self.offset):
            index = ast.BinOp(self.offset, ast.Add(), index)
        tests = [ast.Compare(index, [ast.GtE()], [ast.Constant(0)])] if self.may_be_negative else []
        spread = ", ".join(":" if axis == self.number else "None" for axis in range(self.rank))
        for test in (*tests, ast.Compare(index, [ast.Lt()], [self.size])):
            text = ast.unparse(test)
            yield f"({text})[{spread}]" if self.rank > 1 else text


def bounds_text(bounds: Collection[Bound], tl: str) -> str:
    """The mask of the lanes inside all bounds."""
    tests = [test for bound in bounds for test in bound.tests(tl)]
    if len(tests) == 1:
        return tests[0]
    return " & ".join(test if test.endswith("]") else f"({test})" for test in tests)


def block_bounds(
    pointer: ast.expr,
    offsets: ast.expr | None,
    checked: Collection[int] | None,
    statement: ast.stmt,
    definitions: Definitions,
) -> tuple[Bound, ...]:
    """The bounds of the block that `statement` loads from `pointer`. `offsets` are those of a descriptor's load; `checked`
    are the dimensions at whose bounds the load stops (None: all). Raises NotAffine where they cannot be written there."""
    if offsets is None:
        starts, sizes, lengths = _of_block_pointer(pointer, statement, definitions)
    else:
        starts = parts(offsets, statement, definitions)
        sizes, lengths = _of_descriptor(pointer, len(starts), statement, definitions)
    rank = len(starts)
    if not len(sizes) == len(lengths) == rank:
        raise NotAffine("is that of a block whose dimensions could not be counted")
    bounds = tuple(
        Bound(number, rank, starts[number], lengths[number], sizes[number])
        for number in range(rank)
        if checked is None or number in checked
    )
    for bound in bounds:
        for part in (bound.offset, bound.length, bound.size):
            _can_be_repeated(part)
    return bounds


Parts = tuple[ast.expr, ...]


def _of_block_pointer(pointer: ast.expr, statement: ast.stmt, definitions: Definitions) -> tuple[Parts, Parts, Parts]:
    """Where the block of a block pointer starts, the sizes of its buffer, and its lengths."""
    rounds: list[Parts] = []
    carried = _carried(pointer, statement, definitions)
    if carried is not None:
        pointer, step = carried
        rounds.append(step)
    call, moves = maker(pointer, statement, definitions)
    given = given_arguments(call)
    starts, sizes, lengths = (parts(given.get(n), statement, definitions) for n in ("offsets", "shape", "block_shape"))
    for steps in (*(parts(move, statement, definitions) for move in moves), *rounds):
        if len(steps) != len(starts):
            raise NotAffine("is that of a block whose dimensions could not be counted")
        starts = tuple(map(moved_start, starts, steps))
    return starts, sizes, lengths


def _of_descriptor(pointer: ast.expr, rank: int, statement: ast.stmt, definitions: Definitions) -> tuple[Parts, Parts]:
    """The sizes of a descriptor's buffer, and the lengths of its block: in the words of its maker, or as it says them."""
    try:
        call, _ = maker(pointer, statement, definitions)
    except NotAffine:
        if not isinstance(pointer, ast.Name):
            raise
        own = (
            tuple(ast.parse(f"{pointer.id}.{what}[{number}]", mode="eval").body for number in range(rank))
            for what in ("shape", "block_shape")
        )
        sizes, lengths = own
        return sizes, lengths
    given = given_arguments(call)
    sizes, lengths = (parts(given.get(n), statement, definitions) for n in ("shape", "block_shape"))
    return sizes, lengths


# a = tl.make_block_ptr(...)
# for k in range(0, K, BLOCK_K):
#     tl.load(a, boundary_check=(0, 1))
#     a = tl.advance(a, (0, BLOCK_K))
def _carried(pointer: ast.expr, statement: ast.stmt, definitions: Definitions) -> tuple[ast.expr, Parts] | None:
    """What a block pointer is before the loop that advances it once a round, and how far it has come in this round; None
    where no loop advances it."""
    if not isinstance(pointer, ast.Name):
        return None
    around = definitions.loops_around(statement)
    inside = [b for b in definitions.bindings(pointer.id) if set(definitions.loops_around(b.statement)) & set(around)]
    advances = [b for b in inside if b.value is not None and _step_of(b.value, pointer.id) is not None]
    if not advances:
        return None
    (binding, *others), (*_, loop) = advances, definitions.loops_around(advances[0].statement)
    again = others or any(b is not binding and loop in definitions.loops_around(b.statement) for b in inside)
    if again or loop not in around or not isinstance(loop, ast.For) or not isinstance(loop.target, ast.Name):
        raise NotAffine(f"goes through `{pointer.id}`, which no loop that counts advances once a round")
    if not any(own is binding.statement for own in loop.body) or statement.lineno >= binding.statement.lineno:
        raise NotAffine(f"goes through `{pointer.id}`, which is not advanced behind it in every round")
    before = definitions.value_at(pointer.id, loop)
    step = _step_of(binding.value, pointer.id) if binding.value is not None else None
    if before is None or step is None:
        raise NotAffine(f"goes through `{pointer.id}`, which holds several values")
    count, by = _counted(loop)
    return before, tuple(_come(part, count, by) for part in parts(step, statement, definitions))


def _step_of(value: ast.expr, name: str) -> ast.expr | None:
    """`(0, BLOCK_K)` of `tl.advance(p, (0, BLOCK_K))` and of `p.advance((0, BLOCK_K))`."""
    match value:
        case ast.Call(func=ast.Attribute(attr="advance", value=ast.Name(id=own)), args=[step], keywords=[]):
            return step if own == name else None
        case ast.Call(func=function, args=[ast.Name(id=own), step], keywords=[]) if own == name:
            return step if last_name(function) == "advance" else None
    return None


def _counted(loop: ast.For) -> tuple[ast.expr, ast.expr]:
    """How far the variable of a loop that counts is from its first value, and by how much it steps."""
    found = counted(loop, _RANGES)
    if found is None or not isinstance(loop.target, ast.Name):
        raise NotAffine("moves in a loop that does not count")
    (first, step), count = found, ast.Name(loop.target.id, ast.Load())
    return count if is_zero(first) else ast.BinOp(count, ast.Sub(), first), step or ast.Constant(1)


_RANGES = frozenset({"range", "static_range"})


def _come(step: ast.expr, count: ast.expr, by: ast.expr) -> ast.expr:
    """How far a step a round has come when a loop has counted to `count`, by `by` a round."""
    if is_zero(step):
        return step
    if ast.dump(step) == ast.dump(by):
        return count
    if isinstance(by, ast.Constant) and by.value == 1:
        return ast.BinOp(count, ast.Mult(), step)
    raise NotAffine("moves in a loop by another step than the loop counts by")


def _can_be_repeated(expression: ast.expr) -> None:
    for node in walk(expression):
        if isinstance(node, ast.NamedExpr) or (isinstance(node, ast.Call) and last_name(node.func) not in _PLAIN_CALLS):
            raise NotAffine(f"is made with `{ast.unparse(node)}`, which is not to be written twice")
