"""Which arguments of a launch can be one tensor, and under which conditions of the launching function.

Assignments are followed the way they run: one that comes later, or that stands in a branch the launch is not in, does
not reach it. What stands under an `if`, or in an arm of `a if c else b`, holds under that condition.
"""

from __future__ import annotations

import ast
import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from kernel_rewrite.source.symbolic import COMPARE

MAXIMUM_PLACES = 24
MAXIMUM_DEPTH = 40

Condition = tuple[str, bool]
"""The text of a test of the launching function, each name marked with the assignments that reach it, and its outcome."""

Conditions = frozenset[Condition]


@dataclass(frozen=True, slots=True)
class Place:
    """Memory that an expression may stand for: `base`, the part of it that `steps` take, and when it is that one."""

    base: str
    steps: tuple[tuple[str, object], ...] = ()
    conditions: Conditions = frozenset()

    def step(self, kind: str, value: object) -> Place:
        return Place(self.base, (*self.steps, (kind, value)), self.conditions)

    def covers(self, other: Place) -> bool:
        """Whether `other` is this, or a part of it, in whatever shape."""
        mine, its = ([step for step in place.steps if step[0] != "view"] for place in (self, other))
        return self.base == other.base and its[: len(mine)] == mine

    def overlaps(self, other: Place) -> bool:
        """Whether the two may share memory, conditions aside. Different items of one container do not, and neither do
        slices of one tensor of which one ends where the other begins."""
        if self.base != other.base:
            return False
        for mine, its in zip(self.steps, other.steps, strict=False):
            if mine != its:
                apart = mine[0] == its[0] == "item" or (
                    isinstance(mine[1], Slice) and isinstance(its[1], Slice) and mine[1].is_apart_from(its[1])
                )
                return not apart
        return True


@dataclass(frozen=True, slots=True)
class Slice:
    """`x[..., low:high]`: `dimension` tells along which one; the bounds are texts, "" where there is none."""

    dimension: str
    low: str
    high: str

    def is_apart_from(self, other: Slice) -> bool:
        return self.dimension == other.dimension and (self._ends_before(other) or other._ends_before(self))

    def _ends_before(self, other: Slice) -> bool:
        # x[:n] and x[n:] share nothing, whatever n is; x[:2] and x[4:] neither
        if not self.high or not other.low:
            return False
        numbers = self.high.isdecimal() and other.low.isdecimal()
        return self.high == other.low or (numbers and int(self.high) <= int(other.low))


class Given(enum.Enum):
    TENSOR = "a tensor or a number"


GIVEN = Given.TENSOR
"""Stands for the value of a parameter that is not None and not known when the kernel is compiled."""


def overlaps(one: Iterable[Place], other: Iterable[Place], here: Conditions = frozenset()) -> tuple[Conditions, ...]:
    """The ways in which two arguments of a launch that runs under the conditions `here` can share memory, each as the
    conditions that it takes; empty when they cannot."""
    ways: dict[Conditions, None] = {}
    others = tuple(other)
    for left in one:
        for right in others:
            way = left.conditions | right.conditions
            if left.overlaps(right) and not any((text, not outcome) in way | here for text, outcome in way | here):
                ways[way - here] = None
    return tuple(ways)


def may_hold(conditions: Conditions, values: Mapping[str, object]) -> bool:
    """False when one of `conditions` does not hold where the expressions with these texts have these values."""
    for text, outcome in conditions:
        found = _truth(ast.parse(text, mode="eval").body, values)
        if found is not None and found is not outcome:
            return False
    return True


def _truth(node: ast.expr, values: Mapping[str, object]) -> bool | None:
    known = values.get(ast.unparse(node), GIVEN)
    if not isinstance(known, Given):
        return bool(known)
    match node:
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            found = _truth(operand, values)
            return None if found is None else not found
        case ast.BoolOp(op=op, values=parts):
            stop = isinstance(op, ast.Or)
            outcomes = [_truth(part, values) for part in parts]
            return stop if stop in outcomes else None if None in outcomes else not stop
    value = _value(node, values)
    return None if isinstance(value, Given) else bool(value)


def _value(node: ast.expr, values: Mapping[str, object]) -> object:
    """The value of an expression; GIVEN when it is not known."""
    text = ast.unparse(node)
    if text in values:
        return values[text]
    match node:
        case ast.Constant(value=value):
            return value
        case ast.Compare(left=left, ops=[ast.Is() | ast.IsNot() as op], comparators=[ast.Constant(value=None)]):
            asked = ast.unparse(left)
            if asked in values:
                return (values[asked] is None) == isinstance(op, ast.Is)
            opposite = ast.IsNot() if isinstance(op, ast.Is) else ast.Is()
            flag = values.get(ast.unparse(ast.Compare(left, [opposite], node.comparators)), GIVEN)
            return GIVEN if isinstance(flag, Given) else not flag
        case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in COMPARE:
            one, other = _value(left, values), _value(right, values)
            numbers = all(isinstance(value, (bool, int, float, str)) for value in (one, other))
            if numbers and (
                isinstance(op, (ast.Eq, ast.NotEq)) or (not isinstance(one, str) and not isinstance(other, str))
            ):
                return COMPARE[type(op)](one, other)
    return GIVEN


# --------------------------------------------------------------------------------------- assignments that reach a name


@dataclass(frozen=True, slots=True, eq=False)
class _Definition:
    """One assignment of a name; `value` is None where nothing is known about it. `mark` tells definitions apart."""

    name: str
    value: ast.expr | None
    mark: str
    conditions: tuple[tuple[ast.expr, bool], ...] = ()
    looped: bool = False  # may be one of an earlier round, in which other conditions held


_Reaching = dict[str, frozenset[_Definition]]

VIEWS = frozenset((
    "view", "view_as", "reshape", "reshape_as", "flatten", "t", "transpose", "permute", "squeeze", "unsqueeze",
    "expand", "expand_as", "narrow", "select", "movedim", "swapaxes", "as_strided", "unflatten", "diagonal", "chunk",
    "split", "unbind", "tensor_split", "unfold", "untyped_storage", "storage", "ravel", "view_as_real",
))  # fmt: skip
"""Methods that give a part of their tensor, or another shape of it."""

SAME = frozenset((
    "contiguous", "detach", "data_ptr", "requires_grad_", "to", "type", "type_as", "float", "half", "bfloat16",
    "double", "int", "long", "short", "char", "byte", "bool", "cuda", "cpu", "get", "values", "pop", "setdefault",
))  # fmt: skip
"""Methods that may give their tensor itself (or, of a dictionary, what it holds)."""

_NO_MEMORY = frozenset(("shape", "dtype", "device", "ndim", "itemsize", "is_cuda", "requires_grad", "layout"))


class Flow:
    """One launching function: which assignments each of its names can have, wherever it is read."""

    def __init__(self, function: ast.FunctionDef | ast.AsyncFunctionDef | None, body: Iterable[ast.stmt]) -> None:
        self._reaching: dict[ast.Name, frozenset[_Definition]] = {}
        self._around: dict[ast.AST, tuple[tuple[ast.expr, bool], ...]] = {}
        self._conditions: tuple[tuple[ast.expr, bool], ...] = ()
        self._loops = 0
        self._made: dict[tuple[int, str], _Definition] = {}
        self._active: set[_Definition] = set()
        self._texts: dict[ast.expr, str] = {}  # asked for when all that reaches each name is known
        entry: _Reaching = {}
        if function is not None:
            given = function.args
            every = (*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg)
            for argument in every:
                if argument is not None:
                    entry[argument.arg] = frozenset((_Definition(argument.arg, None, "argument"),))
        self._late: set[ast.Name] = set()
        self._block(tuple(body), entry)
        made = [definition for found in entry.values() for definition in found] + list(self._made.values())
        for node in self._late:  # read when the lambda is called
            self._reaching[node] = frozenset(definition for definition in made if definition.name == node.id)

    def conditions_of(self, call: ast.Call) -> Conditions:
        """The conditions that `call` stands under."""
        return self._conditions_of(self._around.get(call, ()))

    def _conditions_of(self, tests: Iterable[tuple[ast.expr, bool]]) -> Conditions:
        return frozenset((self._text(test), outcome) for test, outcome in tests if _is_repeatable(test))

    def text(self, node: ast.expr) -> str:
        """The text of `node`, marked like those of `Condition`s."""
        return self._text(node)

    def constants(self, node: ast.expr, way: Conditions) -> frozenset[object] | None:
        """The constants that `node` can be where the conditions `way` hold; None when it can be something else."""
        if isinstance(node, ast.Constant):
            return frozenset((node.value,))
        if isinstance(node, ast.IfExp):
            arms = [
                self.constants(arm, way)
                for arm, outcome in ((node.body, True), (node.orelse, False))
                if not any((text, not held) in way for text, held in self._conditions_of([(node.test, outcome)]))
            ]
        elif isinstance(node, ast.Name) and self._reaching.get(node):
            arms = [
                None if d.value is None or d.looped or d in self._active else self._constants_of(d, way)
                for d in self._reaching[node]
                if not any((text, not held) in way for text, held in self._conditions_of(d.conditions))
            ]
        else:
            return None
        found = [arm for arm in arms if arm is not None]
        return frozenset().union(*found) if arms and len(found) == len(arms) else None

    def _constants_of(self, definition: _Definition, way: Conditions) -> frozenset[object] | None:
        assert definition.value is not None
        self._active.add(definition)
        found = self.constants(definition.value, way)
        self._active.discard(definition)
        return found

    def places(self, node: ast.expr, depth: int = 0) -> frozenset[Place]:
        """The memory that `node` may stand for; nothing for a number."""
        found = self._places(node, depth)
        if len(found) <= MAXIMUM_PLACES:
            return found
        return frozenset(Place(base) for base in sorted({place.base for place in found}))

    # statements ------------------------------------------------------------------------------------------------------

    def _block(self, body: Iterable[ast.stmt], known: _Reaching | None) -> _Reaching | None:
        """What reaches the end of `body`; None when nothing does."""
        for statement in body:
            if known is None:
                return None
            known = self._statement(statement, known)
        return known

    def _statement(self, node: ast.stmt, known: _Reaching) -> _Reaching | None:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                return known
            case ast.Assign(targets=targets, value=value):
                known = self._read(value, known)
                for target in targets:
                    known = self._bind(target, value, known)
            case ast.AnnAssign(target=target, value=ast.expr() as value):
                known = self._bind(target, value, self._read(value, known))
            case ast.AugAssign(target=target, value=value):
                known = self._read(target, self._read(value, known))  # in place, of a tensor
            case ast.If(test=test, body=body, orelse=orelse):
                known = self._read(test, known)
                ends = [self._under(test, True, body, known), self._under(test, False, orelse, known)]
                return _joined(*ends)
            case (
                ast.For(target=target, iter=iterator, body=body, orelse=orelse)
                | ast.AsyncFor(target=target, iter=iterator, body=body, orelse=orelse)
            ):
                known = self._read(iterator, known)
                known = self._loop([*body], known, target)
                return self._after_loop(body, orelse, known)
            case ast.While(test=test, body=body, orelse=orelse):
                known = self._loop([ast.copy_location(ast.Expr(test), test), *body], known, None)
                return self._after_loop(body, orelse, known)
            case ast.With(items=items, body=body) | ast.AsyncWith(items=items, body=body):
                for item in items:
                    known = self._read(item.context_expr, known)
                    if item.optional_vars is not None:
                        known = self._bind(item.optional_vars, item.context_expr, known)
                return self._block(body, known)
            case ast.Try(body=body, handlers=handlers, orelse=orelse, finalbody=finalbody):
                after = self._block(body, dict(known))
                inside = _joined(known, after, self._all_of(body)) or known
                ends = [self._block(orelse, after)] + [self._block(h.body, dict(inside)) for h in handlers]
                end = _joined(*ends)
                return self._block(finalbody, end) if end is not None else None
            case ast.Match(subject=subject, cases=cases):
                known = self._read(subject, known)
                return _joined(known, *(self._block(case.body, dict(known)) for case in cases))
            case ast.Return() | ast.Raise():
                self._read(node, known)
                return None
            case _:
                known = self._read(node, known)
        return known

    def _under(self, test: ast.expr, outcome: bool, body: list[ast.stmt], known: _Reaching) -> _Reaching | None:
        before = self._conditions
        self._conditions = (*before, (test, outcome))
        end = self._block(body, dict(known))
        self._conditions = before
        return end

    def _loop(self, body: list[ast.stmt], known: _Reaching, target: ast.expr | None) -> _Reaching:
        self._loops += 1
        jumps = any(isinstance(n, (ast.Break, ast.Continue)) for s in body for n in ast.walk(s))
        while True:
            inside = self._bind(target, None, known) if target is not None else known
            end = self._block(body, dict(inside))
            joined = _joined(known, end, self._all_of(body) if jumps else None) or known
            if joined == known:
                break
            known = joined
        self._loops -= 1
        return known

    def _after_loop(self, body: list[ast.stmt], orelse: list[ast.stmt], known: _Reaching) -> _Reaching | None:
        breaks = any(isinstance(node, ast.Break) for statement in body for node in ast.walk(statement))
        return _joined(self._block(orelse, dict(known)), known if breaks else None)

    def _all_of(self, body: list[ast.stmt]) -> _Reaching:
        """Every definition that was made inside `body`."""
        inside = {id(node) for statement in body for node in ast.walk(statement)}
        found: _Reaching = {}
        for (node, name), definition in self._made.items():
            if node in inside:
                found[name] = found.get(name, frozenset()) | {definition}
        return found

    def _read(self, node: ast.AST, known: _Reaching) -> _Reaching:
        """Note what the names of `node` stand for; what it assigns itself (`:=`) may or may not be assigned."""
        for part in ast.walk(node):
            if isinstance(part, ast.NamedExpr):
                made = self._definition(part.target, part.target.id, part.value)
                known = {**known, part.target.id: known.get(part.target.id, frozenset()) | {made}}
            elif isinstance(part, (ast.comprehension, ast.Lambda)):
                inner = part.target if isinstance(part, ast.comprehension) else part.args
                for name in ast.walk(inner):
                    text = name.id if isinstance(name, ast.Name) else name.arg if isinstance(name, ast.arg) else ""
                    if text:
                        known = {**known, text: known.get(text, frozenset()) | {self._definition(name, text, None)}}
        for part in ast.walk(node):
            if isinstance(part, ast.Lambda):
                self._late |= {inner for inner in ast.walk(part.body) if isinstance(inner, ast.Name)}
            if isinstance(part, ast.Name):
                self._reaching[part] = known.get(part.id, frozenset())
            elif isinstance(part, ast.Call):
                self._around[part] = self._conditions
        return known

    def _bind(self, target: ast.expr, value: ast.expr | None, known: _Reaching) -> _Reaching:
        match target:
            case ast.Name(id=name):
                return {**known, name: frozenset((self._definition(target, name, value),))}
            case ast.Starred(value=inner):
                return self._bind(inner, None, known)
            case ast.Tuple(elts=elements) | ast.List(elts=elements):
                for index, element in enumerate(elements):
                    known = self._bind(element, _element(value, index, elements, element), known)
                return known
        return self._read(target, known)

    def _definition(self, node: ast.AST, name: str, value: ast.expr | None) -> _Definition:
        key = (id(node), name)
        if key not in self._made:
            mark = f"{getattr(node, 'lineno', 0)}_{getattr(node, 'col_offset', 0)}"
            self._made[key] = _Definition(name, value, mark, self._conditions, self._loops > 0)
        return self._made[key]

    # expressions -----------------------------------------------------------------------------------------------------

    def _text(self, node: ast.expr) -> str:
        if node not in self._texts:
            self._texts[node] = ast.unparse(self._marked(node))
        return self._texts[node]

    def _marked(self, node: ast.expr, depth: int = 0) -> ast.expr:
        flow = self

        class Mark(ast.NodeTransformer):
            def visit_Name(self, name: ast.Name) -> ast.expr:
                reaching = flow._reaching.get(name)
                if reaching is None:
                    return name
                only = next(iter(reaching)) if len(reaching) == 1 else None
                if only is not None and only.value is not None and depth < 4 and _is_test(only.value):
                    return flow._marked(only.value, depth + 1)  # has_bias = bias is not None
                marks = "_".join(sorted(definition.mark for definition in reaching))
                return ast.Name(f"{name.id}__{marks}" if marks != "argument" else name.id)

        copied = Mark().visit(_copy(node))
        assert isinstance(copied, ast.expr)
        return copied

    def _slice(self, index: ast.expr) -> Slice | None:
        """An index that takes a stretch of one dimension and all of the others; None for any other."""
        parts = index.elts if isinstance(index, ast.Tuple) else [index]
        cuts = [part for part in parts if isinstance(part, ast.Slice) and (part.lower or part.upper)]
        whole = [part for part in parts if ast.unparse(part) in (":", "...")]
        if len(cuts) != 1 or len(whole) != len(parts) - 1 or cuts[0].step is not None:
            return None
        bounds = [bound for bound in (cuts[0].lower, cuts[0].upper) if bound is not None]
        if not all(_is_repeatable(bound) for bound in bounds):
            return None
        low, high = (self._text(bound) if bound is not None else "" for bound in (cuts[0].lower, cuts[0].upper))
        dimension = ", ".join("|" if part is cuts[0] else ast.unparse(part) for part in parts)
        return Slice(dimension, low, high)

    def _places(self, node: ast.expr, depth: int) -> frozenset[Place]:
        if depth > MAXIMUM_DEPTH:
            return frozenset((_made_at(node),))
        deeper = depth + 1
        match node:
            case ast.Name():
                return self._named(node, deeper)
            case ast.Attribute(value=value, attr=name):
                if name in _NO_MEMORY:
                    return frozenset()
                if name in ("T", "mT", "H", "mH", "real", "imag"):
                    return _stepped(self.places(value, deeper), "view", _position(node))
                if name in ("data", "grad"):
                    return self.places(value, deeper) if name == "data" else frozenset((Place(self._text(node)),))
                return frozenset((Place(self._text(node)),))
            case ast.Subscript(value=value, slice=index):
                if isinstance(value, (ast.Tuple, ast.List)) and isinstance(index, ast.Constant):
                    if isinstance(index.value, int) and index.value < len(value.elts):
                        return self.places(value.elts[index.value], deeper)
                if isinstance(value, ast.Attribute) and value.attr == "shape":
                    return frozenset()
                key = index.value if isinstance(index, ast.Constant) else None
                fixed = isinstance(key, str) or (type(key) is int and key >= 0)
                inner = self.places(value, deeper)
                if fixed:
                    return _stepped(inner, "item", key)
                return _stepped(inner, "part", self._slice(index) or _position(node))
            case ast.IfExp(test=test, body=body, orelse=orelse):
                then, other = self._conditions_of([(test, True)]), self._conditions_of([(test, False)])
                return frozenset(
                    (
                        *(_under(place, then) for place in self.places(body, deeper)),
                        *(_under(place, other) for place in self.places(orelse, deeper)),
                    )
                )
            case ast.BoolOp(values=values):
                return frozenset().union(*(self.places(value, deeper) for value in values))
            case ast.NamedExpr(value=value) | ast.Starred(value=value) | ast.Await(value=value):
                return self.places(value, deeper)
            case ast.Tuple(elts=elements) | ast.List(elts=elements):
                return frozenset().union(*(self.places(element, deeper) for element in elements))
            case ast.Call():
                return self._called(node, deeper)
            case ast.Constant() | ast.Compare() | ast.Lambda() | ast.JoinedStr():
                return frozenset()
        return frozenset((_made_at(node),))

    def _named(self, node: ast.Name, depth: int) -> frozenset[Place]:
        reaching = self._reaching.get(node)
        if not reaching:
            return frozenset((Place(node.id),))
        found: set[Place] = set()
        for definition in reaching:
            if definition in self._active:
                continue  # what it is made of is found by its other definitions
            conditions = self._conditions_of(definition.conditions)
            if definition.value is None:
                mark = "" if definition.mark == "argument" else f"__{definition.mark}"
                places = frozenset((Place(definition.name + mark),))
            else:
                self._active.add(definition)
                places = self.places(definition.value, depth)
                self._active.discard(definition)
            if definition.looped:
                found |= {Place(p.base, p.steps) for p in places}
            else:
                found |= {Place(p.base, p.steps, p.conditions | conditions) for p in places}
        return frozenset(found)

    def _called(self, node: ast.Call, depth: int) -> frozenset[Place]:
        function = node.func
        name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
        keywords = {keyword.arg: keyword.value for keyword in node.keywords}
        if name in ("from_tensor", "TensorDescriptor"):
            base = node.args[0] if node.args else keywords.get("base", keywords.get("tensor"))
            return self.places(base, depth) if base is not None else frozenset()
        if isinstance(function, ast.Attribute) and not _is_module(function.value):
            if name in VIEWS:
                return _stepped(self.places(function.value, depth), "view", _position(node))
            if name in SAME or (name.endswith("_") and not name.endswith("__")):
                return self.places(function.value, depth)
        elif name in VIEWS and node.args:  # torch.reshape(x, ...)
            return _stepped(self.places(node.args[0], depth), "view", _position(node))
        if "contiguous" in name and node.args:  # ensure_contiguous(x)
            return self.places(node.args[0], depth)
        return frozenset((_made_at(node),))


def _element(value: ast.expr | None, index: int, targets: list[ast.expr], target: ast.expr) -> ast.expr | None:
    """What unpacking `value` gives its part number `index`."""
    starred = any(isinstance(t, ast.Starred) for t in targets)
    if value is None or starred:
        return None
    if isinstance(value, (ast.Tuple, ast.List)) and len(value.elts) == len(targets):
        return value.elts[index]
    return ast.copy_location(ast.Subscript(value, ast.Constant(index), ast.Load()), target)


def _joined(*ends: _Reaching | None) -> _Reaching | None:
    found = [end for end in ends if end is not None]
    if not found:
        return None
    result: _Reaching = {}
    for end in found:
        for name, definitions in end.items():
            result[name] = result.get(name, frozenset()) | definitions
    return result


def _copy(node: ast.expr) -> ast.expr:
    """A copy of the tree that keeps its `ast.Name`s, which are what is looked up."""
    copied = _copied(node)
    assert isinstance(copied, ast.expr)
    return copied


def _copied(value: object) -> object:
    if isinstance(value, list):
        return [_copied(item) for item in value]
    if not isinstance(value, ast.AST) or isinstance(value, ast.Name):
        return value
    copied = type(value)()
    for name, part in ast.iter_fields(value):
        setattr(copied, name, _copied(part))
    return copied


def _is_test(node: ast.expr) -> bool:
    """Whether a name for `node` is a name for a condition or a plain number, not for a tensor."""
    match node:
        case ast.Compare() | ast.UnaryOp(op=ast.Not()) | ast.Constant():
            return _is_repeatable(node)
        case ast.BoolOp(values=values):
            return all(_is_test(value) or isinstance(value, ast.Name) for value in values)
    return False


_REPEATABLE = frozenset((
    "isinstance", "len", "bool", "int", "hasattr", "getattr", "dim", "size", "numel", "stride", "is_contiguous",
    "is_floating_point", "element_size", "max", "min", "get_device_name", "get_device_capability",
))  # fmt: skip


def _is_repeatable(test: ast.expr) -> bool:
    """Whether a test has one outcome, wherever it stands between the same assignments."""
    calls = [node for node in ast.walk(test) if isinstance(node, (ast.Call, ast.Await, ast.NamedExpr))]
    names = [getattr(c.func, "attr", getattr(c.func, "id", "")) if isinstance(c, ast.Call) else "" for c in calls]
    return all(name in _REPEATABLE for name in names)


def _under(place: Place, conditions: Conditions) -> Place:
    return Place(place.base, place.steps, place.conditions | conditions)


def _stepped(places: Iterable[Place], kind: str, value: object) -> frozenset[Place]:
    return frozenset(place.step(kind, value) for place in places)


def _position(node: ast.expr) -> str:
    return f"{node.lineno}:{node.col_offset}:{node.end_col_offset}"


def _made_at(node: ast.expr) -> Place:
    """The memory of a tensor that the expression `node` makes."""
    return Place(f"<made at {_position(node)}>" if hasattr(node, "lineno") else "<made>")


def _is_module(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in ("torch", "F", "np", "math", "triton", "tl")
