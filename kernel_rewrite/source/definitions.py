"""What a local name of a function holds at a statement, as an expression of names that mean the same there."""

from __future__ import annotations

import ast
import copy
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from kernel_rewrite.source.syntax import blocks_of, last_name, mentions

_LOOPS = (ast.For, ast.While, ast.AsyncFor)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a statement stands: for each block around it, outermost first, the block and the index in it; the loops among
    the statements that hold those blocks."""

    blocks: tuple[tuple[int, int], ...]
    loops: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Binding:
    """One statement that binds a name. `value` is what it binds it to, None when that has no expression of its own."""

    statement: ast.stmt
    value: ast.expr | None
    operator: ast.operator | None = None  # of `name += value`


@dataclass(frozen=True, slots=True)
class Moved:
    """A pointer that a loop moves on behind each use: it holds `initial`, an expression that holds what it did before the
    loop, plus `count` times the product of `factors` (none: 1)."""

    initial: ast.expr
    count: ast.expr
    factors: tuple[ast.expr, ...]
    step: ast.stmt

    def distance(self, tl: str) -> ast.expr:
        """How far it was moved, 64 bits wide where it is a product, also of a Python number; `tl` spells triton.language."""
        if not self.factors:
            return self.count
        product = ast.parse(f"{tl}.cast({ast.unparse(self.count)}, {tl}.int64)", mode="eval").body
        for factor in self.factors:
            product = ast.BinOp(product, ast.Mult(), factor)
        return ast.parse(ast.unparse(product), mode="eval").body


class Definitions:
    """The bindings of a function's local names. `constexprs` are its compile-time parameters: what stands under one test of
    them always goes with what stands under the same test again."""

    def __init__(self, function: ast.FunctionDef, constexprs: Collection[str] = ()) -> None:
        bound = {n.id for n in ast.walk(function) if isinstance(n, ast.Name) and not isinstance(n.ctx, ast.Load)}
        self._constexprs = frozenset(constexprs) - bound
        self._loops: dict[int, ast.For | ast.While | ast.AsyncFor] = {}
        self._flags: dict[int, str] = {}  # the test that a block stands under, for those of compile-time parameters
        self._places: dict[int, _Place] = {}
        self._order: dict[int, int] = {}
        self._holders: dict[int, ast.stmt] = {}
        self._bindings: dict[str, list[Binding]] = {}
        self._block(function.body, (), ())

    def bindings(self, name: str) -> Sequence[Binding]:
        """Every statement that binds `name`, in source order."""
        return self._bindings.get(name, ())

    @property
    def names(self) -> frozenset[str]:
        return frozenset(self._bindings)

    def statement_of(self, node: ast.AST) -> ast.stmt:
        """The innermost statement that holds `node`."""
        return self._holders[id(node)]

    def loops_around(self, statement: ast.stmt) -> tuple[ast.For | ast.While | ast.AsyncFor, ...]:
        """The loops that hold `statement`, outermost first."""
        return tuple(self._loops[loop] for loop in self._places[id(statement)].loops)

    def value_at(self, name: str, statement: ast.stmt) -> ast.expr | None:
        """What `name` holds at `statement`, in terms of names that hold there what they held when it was bound; None when
        it may hold several things, or something that no such expression says.

        `p = q + a; p += b` gives `q + a + b`, and `p = f(q); p = g(p)` gives `g(f(q))`.
        For a parameter that is only ever added to, the parameter stands in it.
        """
        bindings = self._that_reach(name, statement)
        if not bindings or not all(self.runs_before(binding.statement, statement) for binding in bindings):
            return None
        value: ast.expr | None = None
        loops: tuple[int, ...] = ()
        for binding in bindings:
            place = self._places[id(binding.statement)]
            if binding.value is None or not self.holds_at(binding.value, binding.statement, statement, except_for=name):
                return None
            if mentions(binding.value, name):  # p = tl.advance(p, step)
                value = _replaced(binding.value, name, value) if place.loops == loops else None
                if value is None or binding.operator is not None:
                    return None
            elif binding.operator is None:
                value, loops = binding.value, place.loops
            elif place.loops != loops:  # added to more often than it is set
                return None
            else:
                base = value if value is not None else ast.Name(name, ast.Load())
                value = ast.BinOp(base, binding.operator, binding.value)
        return value

    def is_followed(self, name: str, statement: ast.stmt) -> bool:
        """Whether `name` has one value at `statement`, and every statement that binds it runs before."""
        bindings = self._bindings.get(name, [])
        runs = all(self.runs_before(binding.statement, statement) for binding in bindings)
        return runs and self.value_at(name, statement) is not None

    def moved_at(self, name: str, statement: ast.stmt) -> Moved | None:
        """What `name` holds at `statement` where it is set before a loop, and moved on in it behind `statement`:

        p = q + a
        for i in range(0, n, BLOCK):
            ...                             # statement: q + a + i * stride
            p += BLOCK * stride
        """
        bindings = self._bindings.get(name, [])
        moving = [binding for binding in bindings if self._order[id(binding.statement)] > self._order[id(statement)]]
        around = [
            loop
            for loop in self.loops_around(statement)
            if moving and any(moving[0].statement is inner for inner in loop.body)
        ]
        if len(moving) != 1 or not around or not isinstance(around[0], ast.For):
            return None
        (step,), loop = moving, around[0]
        initial, rounds = self.value_at(name, loop), counted(loop)
        if initial is None or rounds is None or not isinstance(step.operator, ast.Add) or step.value is None:
            return None
        first, length = rounds
        factors = _factors(step.value)
        if length is not None:
            same = next((factor for factor in factors if ast.dump(factor) == ast.dump(length)), None)
            if same is None:
                return None
            factors.remove(same)
        used = [initial, first, step.value, *([length] if length is not None else [])]
        names = {node.id for expression in used for node in ast.walk(expression) if isinstance(node, ast.Name)}
        inside = [b for n in {*names, _target(loop)} - {name} for b in self._bindings.get(n, [])]
        if _target(loop) in names or any(id(loop) in self._places[id(binding.statement)].loops for binding in inside):
            return None
        i: ast.expr = ast.Name(_target(loop), ast.Load())
        count = i if isinstance(first, ast.Constant) and first.value == 0 else ast.BinOp(i, ast.Sub(), first)
        return Moved(initial, count, tuple(f for f in factors if not _is_one(f)), step.statement)

    def _that_reach(self, name: str, statement: ast.stmt) -> list[Binding]:
        """The bindings of `name` that what it holds at `statement` may come from: those from the last on that sets it anew
        and has run when `statement` is reached."""
        bindings = self._bindings.get(name, [])
        for binding in reversed(bindings):
            sets = binding.operator is None and binding.value is not None and not mentions(binding.value, name)
            if sets and self.runs_before(binding.statement, statement):
                first = binding.statement
                return [binding, *(b for b in bindings if self._may_run_between(first, b.statement, statement))]
        return bindings

    def holds_at(self, expression: ast.expr, origin: ast.stmt, statement: ast.stmt, except_for: str = "") -> bool:
        """Whether the names of `expression` hold at `statement` what they held at `origin`, which runs before it."""
        names = {node.id for node in ast.walk(expression) if isinstance(node, ast.Name)} - {except_for}
        return not any(
            self._may_run_between(origin, binding.statement, statement)
            for name in names
            for binding in self._bindings.get(name, [])
        )

    def _may_run_between(self, first: ast.stmt, other: ast.stmt, last: ast.stmt) -> bool:
        """Whether `other` may run after `first` and before the next `last`, without `first` running again."""
        order = self._order[id(other)]
        if order <= self._order[id(first)]:
            return False
        if order < self._order[id(last)]:
            return True
        shared = set(self._places[id(other)].loops) & set(self._places[id(last)].loops)
        return not shared <= set(self._places[id(first)].loops)

    def runs_before(self, earlier: ast.stmt, later: ast.stmt) -> bool:
        """Whether whoever reaches `later` has just run `earlier`: it stands before it in a block around it."""
        *outer, (block, index) = self._places[id(earlier)].blocks
        around = self._places[id(later)].blocks
        blocks = {block for block, _ in around}
        flags = {self._flags[block] for block in blocks if block in self._flags}
        while block not in blocks and self._flags.get(block) in flags:
            *outer, (block, index) = outer  # if FLAG: p += a; ...; if FLAG: tl.store(p, v)
        return (
            len(around) > len(outer)
            and around[: len(outer)] == tuple(outer)
            and around[len(outer)][0] == block
            and index < around[len(outer)][1]
        )

    # ---------------------------------------------------------------------------------------------------------- reading

    def _block(
        self, statements: Sequence[ast.stmt], blocks: tuple[tuple[int, int], ...], loops: tuple[int, ...]
    ) -> None:
        block = id(statements)
        for index, statement in enumerate(statements):
            here = (*blocks, (block, index))
            self._places[id(statement)] = _Place(here, loops)
            self._order[id(statement)] = len(self._order)
            for node in own_nodes(statement):
                self._holders[id(node)] = statement
            for name, binding in _bound(statement):
                self._bindings.setdefault(name, []).append(binding)
            if isinstance(statement, ast.If) and self._is_fixed(statement.test):
                self._flags[id(statement.body)] = ast.dump(statement.test)
            inside = loops
            if isinstance(statement, _LOOPS):
                self._loops[id(statement)] = statement
                inside = (*loops, id(statement))
            for inner in blocks_of(statement):
                self._block(inner, here, inside)

    def _is_fixed(self, test: ast.expr) -> bool:
        """Whether a test is made of compile-time parameters alone."""
        nodes = (
            ast.Name,
            ast.Constant,
            ast.BoolOp,
            ast.UnaryOp,
            ast.Compare,
            ast.boolop,
            ast.unaryop,
            ast.cmpop,
            ast.Load,
        )
        names = {node.id for node in ast.walk(test) if isinstance(node, ast.Name)}
        return names <= self._constexprs and all(isinstance(node, nodes) for node in ast.walk(test))


def counted(loop: ast.For, ranges: Collection[str] = frozenset({"range"})) -> tuple[ast.expr, ast.expr | None] | None:
    """What a loop over a range (a call of one of `ranges`) starts from, and its step (None: 1)."""
    match loop:
        case ast.For(target=ast.Name(), iter=ast.Call(func=function, args=arguments), orelse=[]):
            pass
        case _:
            return None
    if last_name(function) not in ranges or any(isinstance(argument, ast.Starred) for argument in arguments):
        return None
    first = arguments[0] if len(arguments) > 1 else ast.Constant(0)
    step = arguments[2] if len(arguments) > 2 else None
    return first, None if step is not None and _is_one(step) else step


def _target(loop: ast.For) -> str:
    assert isinstance(loop.target, ast.Name)
    return loop.target.id


def _is_one(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value == 1


def _factors(node: ast.expr) -> list[ast.expr]:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
        return [*_factors(node.left), *_factors(node.right)]
    return [node]


def _replaced(expression: ast.expr, name: str, value: ast.expr | None) -> ast.expr | None:
    """`expression` with `value` for the one use of `name`; None where there are more."""
    if value is None or sum(isinstance(n, ast.Name) and n.id == name for n in ast.walk(expression)) != 1:
        return None
    return _Replacing(name, value).visit(copy.deepcopy(expression))  # type: ignore[no-any-return]


class _Replacing(ast.NodeTransformer):
    def __init__(self, name: str, value: ast.expr) -> None:
        self._name = name
        self._value = value

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return self._value if node.id == self._name else node


def own_nodes(statement: ast.stmt) -> Iterator[ast.AST]:
    """The nodes of a statement, without those of the statements inside it."""
    pending: list[ast.AST] = [statement]
    while pending:
        node = pending.pop()
        yield node
        pending += [child for child in ast.iter_child_nodes(node) if not isinstance(child, ast.stmt)]


def _bound(statement: ast.stmt) -> Iterator[tuple[str, Binding]]:
    """The names that a statement itself binds."""
    match statement:
        case ast.Assign(targets=[ast.Name(id=name)], value=value):
            added = _added_to(name, value)
            yield name, Binding(statement, value) if added is None else Binding(statement, added, ast.Add())
        case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
            yield name, Binding(statement, value)
        case ast.AugAssign(target=ast.Name(id=name), op=operator, value=value):
            yield name, Binding(statement, value, operator)
        case _:
            for node in own_nodes(statement):
                if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
                    yield node.id, Binding(statement, None)
            return
    for node in own_nodes(statement):
        if isinstance(node, ast.NamedExpr) and isinstance(node.target, ast.Name):
            yield node.target.id, Binding(statement, None)


def _added_to(name: str, value: ast.expr) -> ast.expr | None:
    """`a + b` of `name = name + a + b`."""
    match value:
        case ast.BinOp(left=ast.Name(id=own), op=ast.Add(), right=right) if own == name:
            return right if not mentions(right, name) else None
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            added = _added_to(name, left)
            return None if added is None or mentions(right, name) else ast.BinOp(added, ast.Add(), right)
    return None
