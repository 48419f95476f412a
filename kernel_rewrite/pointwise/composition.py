"""From a graph to one Triton expression that is right for every element type of x at once.

A `Piece` is a part of that expression and knows, for each type that x may have, what torch says its type is and what
Triton makes of the text. Where the two differ before a further step, a cast is written; where no one text can serve
all types of x, those that lose say why (`Composition.failures`). Expressions are built as trees, so that grouping is
right by construction.
"""

from __future__ import annotations

import ast
import functools
import struct
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from kernel_rewrite.model import Operand
from kernel_rewrite.pointwise.casts import CASTS, SAME
from kernel_rewrite.pointwise.element_types import (
    COMPUTABLE,
    PYTHON_FLOAT,
    category,
    integer_range,
    is_float,
    is_number,
    promoted,
    triton_name,
    triton_promoted,
)
from kernel_rewrite.pointwise.graph import Apply, Input, Node, Number, X, applications, inputs, key_of
from kernel_rewrite.pointwise.op import ArgumentKind, Numbers, Result, representable_everywhere
from kernel_rewrite.pointwise.result_types import Undefined, input_kinds, result_type

TL, LIBDEVICE = "__tl__", "__libdevice__"
"""Stand for the modules in a composition; `emission` puts the file's own spellings in their places."""

WIDENED, ROUNDED = "widened", "rounded"
"""Helpers beside those of the ops."""

Kinds = tuple[str, ...]
_SHORT = {"float16", "bfloat16"}
_LONGEST_STEP = 60


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of the expression; `torch` and `triton` are its types by type of x. `product`: a sum that follows could
    swallow its rounding."""

    tree: ast.expr
    torch: Kinds
    triton: Kinds
    product: bool = False
    value: float | None = None  # of a literal

    @property
    def is_literal(self) -> bool:
        return self.value is not None

    @property
    def is_number(self) -> bool:
        return all(map(is_number, self.torch))


@dataclass(frozen=True, slots=True)
class Helper:
    """A helper that the expression calls: an op with the arguments that are written into it, WIDENED or ROUNDED."""

    op: str
    baked: tuple[tuple[str, str], ...] = ()

    @property
    def placeholder(self) -> str:
        return "__".join(["", "helper", self.op, *(value for _, value in self.baked), ""])


@dataclass(frozen=True, slots=True)
class Composition:
    """`tree` over the names `x` and `parameters` (by key), after `statements` that give names to steps. `settled` says
    that the tree has torch's type for every type of x; else a conversion to it is still to follow."""

    tree: ast.expr
    statements: tuple[tuple[str, ast.expr], ...]
    parameters: Mapping[str, str]
    helpers: tuple[Helper, ...]
    settled: bool
    types: Mapping[str, str]  # of the result, by type of x
    failures: Mapping[str, str]  # by type of x
    uses: Counter[str]  # of x and of every parameter

    @property
    def floats_alone(self) -> bool:
        return all(map(is_float, self.types))


@functools.lru_cache(maxsize=512)
def compose(
    result: Node, operands: tuple[Operand, ...], value_may_be_product: bool, whole: bool, apart: bool = False
) -> Composition:
    """The expression of `result`. `whole`: as the body of a function, its value brought to torch's type. `apart`: no sum
    that follows can swallow its rounding."""
    plain = _Composer(result, operands, value_may_be_product, split=False).composition(whole, apart)
    if not whole or len(ast.unparse(plain.tree)) + 4 <= 100:
        return plain
    return _Composer(result, operands, value_may_be_product, split=True).composition(whole, apart)


def parameter_names(result: Node) -> dict[str, str]:
    """An identifier for every operand that is read, by key: its name, or `table_2` for a second index of `table`."""
    names: dict[str, str] = {}
    for used in inputs(result):
        if used.name != X and used.key not in names:
            name, count = used.name, 2
            while name in names.values():
                name, count = f"{used.name}_{count}", count + 1
            names[used.key] = name
    return names


class _Composer:
    def __init__(self, result: Node, operands: tuple[Operand, ...], product: bool, *, split: bool) -> None:
        self._result, self._product, self._split = result, product, split
        self._declared = {key_of(o): o.dtype for o in operands}
        self._numbers = frozenset(key_of(o) for o in operands if o.is_number)
        self._parameters = parameter_names(result)
        self._failures: dict[str, str] = {}
        self._xs = tuple(x for x in COMPUTABLE if self._has_meaning(x))
        self._kinds = [input_kinds(x, self._declared, self._numbers) for x in self._xs]
        self._helpers: dict[Helper, None] = {}
        self._statements: list[tuple[str, ast.expr]] = []
        self._candidates: list[Piece] = []
        self._seen: dict[Node, Piece] = {}
        self._times = Counter(applications(result))

    def _has_meaning(self, x: str) -> bool:
        try:
            result_type(self._result, input_kinds(x, self._declared, self._numbers))
        except Undefined as undefined:
            self._failures[x] = str(undefined)
        return x not in self._failures

    def composition(self, whole: bool, apart: bool) -> Composition:
        piece = self._piece(self._result, outermost=True)
        if whole:
            piece = self._settled(piece)
        if apart:
            piece = self._apart(piece)
        uses = Counter(
            node.id
            for tree in (*(tree for _, tree in self._statements), piece.tree)
            for node in ast.walk(tree)
            if isinstance(node, ast.Name)
        )
        return Composition(
            piece.tree,
            tuple(self._statements),
            self._parameters,
            tuple(self._helpers),
            self._same(piece.torch, piece.triton),
            {x: piece.torch[i] for i, x in enumerate(self._xs) if x not in self._failures},
            self._failures,
            Counter({name: uses[name] for name in (X, *self._parameters.values())}),
        )

    # ---- types of x

    def _alive(self) -> list[int]:
        return [i for i, x in enumerate(self._xs) if x not in self._failures]

    def _lose(self, lost: Iterable[int], reason: str) -> None:
        for i in lost:
            self._failures.setdefault(self._xs[i], reason)

    def _same(self, left: Kinds, right: Kinds) -> bool:
        return all(left[i] == right[i] for i in self._alive())

    def _type(self, wanted: Kinds) -> ast.expr:
        """The text of a type: `tl.float32`, `x.dtype`, `bias.dtype`. Types of x for which it is another one lose; the
        floats count first."""
        alive = self._alive()
        spelled: list[tuple[ast.expr, Kinds]] = [(_dtype_of(_name(X)), self._xs)]
        spelled += [(_dtype_of(p.tree), p.triton) for p in self._candidates]
        for constant in dict.fromkeys(wanted[i] for i in alive):
            spelled.append((_tl(triton_name(constant)), tuple(constant for _ in self._xs)))

        def weight(kinds: Kinds) -> int:
            return sum(10 if is_float(self._xs[i]) else 1 for i in alive if kinds[i] == wanted[i])

        best = max(spelled, key=lambda pair: weight(pair[1]))
        for i in alive:
            if best[1][i] != wanted[i]:
                self._lose([i], f"no one text serves {self._xs[i]} too: cast explicitly, e.g. with `.to({wanted[i]})`")
        return best[0]

    def _cast(self, piece: Piece, wanted: Kinds) -> Piece:
        """`piece` in the type `wanted`."""
        if piece.is_number:
            return self._number_as(piece, wanted)
        if self._same(piece.triton, wanted):
            return piece
        dtype = self._type(wanted)
        if self._same(piece.triton, wanted):  # the types of x that needed the cast have lost by it
            return piece
        tree = _call(ast.Attribute(piece.tree, "to", ast.Load()), dtype)
        return Piece(tree, wanted, wanted, piece.product)

    def _number_as(self, number: Piece, wanted: Kinds) -> Piece:
        dtype = self._type(wanted)
        if number.is_literal:
            self._check_literal(number, wanted)
            return Piece(_call(_tl("full"), ast.Tuple([], ast.Load()), number.tree, dtype), wanted, wanted)
        self._lose_wide(wanted)
        self._lose(
            [i for i in self._alive() if not is_float(wanted[i])],
            "a number at launch is a float, and torch's result then no integer",
        )
        return Piece(_call(_tl("cast"), number.tree, dtype), wanted, wanted)

    def _settled(self, piece: Piece) -> Piece:
        return piece if piece.is_number else self._cast(piece, piece.torch)

    def _lose_wide(self, kinds: Kinds) -> None:
        self._lose(
            [i for i in self._alive() if kinds[i] == "float64"],
            "Triton passes a Python number as a float32, torch computes with it in float64",
        )

    def _check_literal(self, literal: Piece, kinds: Kinds) -> None:
        """Lose the integer types that do not hold the literal."""
        value = literal.value
        assert value is not None
        for i in self._alive():
            if isinstance(value, float) or category(kinds[i]) != 1:
                continue
            least, most = integer_range(kinds[i])
            if not least <= value <= most:
                self._lose([i], f"{value} is not a value of {kinds[i]}")

    # ---- pieces

    def _piece(self, node: Node, *, outermost: bool = False) -> Piece:
        if node in self._seen:
            return self._seen[node]
        piece = self._new_piece(node, outermost)
        if isinstance(node, Apply) and not outermost:
            again = self._times[node] > 1
            if again or (self._split and len(ast.unparse(piece.tree)) > _LONGEST_STEP):
                piece = self._named(self._settled(piece), node)
            if again:
                self._seen[node] = piece
        return piece

    def _new_piece(self, node: Node, outermost: bool) -> Piece:
        if isinstance(node, Number):
            kinds = tuple(node.kind for _ in self._xs)
            return Piece(_literal(node.value), kinds, kinds, value=node.value)
        if isinstance(node, Input):
            return self._input(node)
        if node.op == "to":
            return self._to(node)
        if len(node.operands) == 1:
            return self._unary(node, outermost)
        return self._several(node, outermost)

    def _input(self, node: Input) -> Piece:
        kinds = tuple(kinds[node.key] for kinds in self._kinds)
        if node.name == X:
            return Piece(_name(X), kinds, kinds, self._product)
        tree = _name(self._parameters[node.key])
        if all(map(is_number, kinds)):
            return Piece(tree, kinds, tuple("float32" for _ in kinds))
        piece = Piece(tree, kinds, kinds)
        if piece not in self._candidates:
            self._candidates.append(piece)
        return piece

    def _named(self, piece: Piece, node: Apply) -> Piece:
        wanted = _STEP_NAMES.get(node.op, f"{node.op}_value")
        taken = {X, *self._parameters.values(), *(name for name, _ in self._statements)}
        name, count = wanted, 2
        while name in taken:
            name, count = f"{wanted}_{count}", count + 1
        self._statements.append((name, piece.tree))
        named = Piece(_name(name), piece.torch, piece.triton, piece.product)
        self._candidates.append(named)
        return named

    def _calls(
        self, op: str, *arguments: ast.expr, baked: tuple[tuple[str, str], ...] = (), **passed: object
    ) -> ast.expr:
        helper = Helper(op, baked)
        self._helpers.setdefault(helper)
        return _call(_name(helper.placeholder), *arguments, **passed)

    def _apart(self, piece: Piece) -> Piece:
        """`piece` whose rounding a sum that follows cannot swallow."""
        if not piece.product or not any(is_float(piece.torch[i]) for i in self._alive()):
            return piece
        return Piece(self._calls(ROUNDED, piece.tree), piece.torch, piece.triton)

    # ---- one operand

    def _unary(self, node: Apply, outermost: bool) -> Piece:
        row, arguments = node.row, dict(node.arguments)
        x = self._settled(self._piece(node.operands[0]))
        if row.adds:
            x = self._apart(x)
        kinds = tuple("bool" if row.result is Result.BOOL else kind for kind in x.torch)
        product = row.product or (row.name == "neg" and x.product)
        if row.inline and (outermost or row.keeps_dtype):
            tree = _filled(row.inline, {"x": x.tree}, arguments)
            made = kinds if row.keeps_dtype else self._widened_by_maximum(x.triton, "int32")
            return Piece(tree, kinds, made, product)
        passed, baked = _passed(node)
        return Piece(self._calls(node.op, x.tree, baked=baked, **passed), kinds, kinds, product)

    def _widened_by_maximum(self, left: Kinds, right: Kinds | str) -> Kinds:
        pairs = zip(left, left if isinstance(right, str) else right, strict=True)
        return tuple(
            triton_promoted(_float_of_bfloat(a), right if isinstance(right, str) else _float_of_bfloat(b))
            for a, b in pairs
        )

    def _to(self, node: Apply) -> Piece:
        x = self._settled(self._piece(node.operands[0]))
        target = str(dict(node.arguments)["dtype"])
        if target == SAME:
            return self._cast(x, self._xs)
        kinds = tuple(target for _ in self._xs)
        cast = CASTS[target]
        if self._same(x.triton, kinds):
            return x
        if cast.inline:
            return Piece(_filled(cast.inline, {"x": x.tree}), kinds, kinds, x.product and is_float(target))
        return Piece(self._calls("to", x.tree, baked=(("dtype", target),)), kinds, kinds)

    # ---- several operands

    def _several(self, node: Apply, outermost: bool) -> Piece:
        row = node.row
        pieces = [self._settled(self._piece(operand)) for operand in node.operands]
        result = self._result_kinds(node)
        if row.name in ("add", "sub", "mul"):
            return self._arithmetic(node.op, pieces[0], pieces[1], result)
        if row.name == "div" and pieces[1].is_number:
            return self._arithmetic("mul", pieces[0], self._reciprocal(pieces[1], pieces[0]), result)
        if row.result is Result.SELECTED:
            condition, *pieces = pieces
            pieces = self._in_one_type(pieces)
            made = tuple(map(triton_promoted, *(p.triton for p in pieces)))
            tree = _filled(row.inline, {"condition": condition.tree, "x": pieces[0].tree, "y": pieces[1].tree})
            return Piece(tree, result, made, any(p.product for p in pieces))
        if row.inline:
            return self._infix(node, pieces, result)
        return self._helper_of_several(node, pieces, result)

    def _result_kinds(self, node: Apply) -> Kinds:
        found = []
        for i, kinds in enumerate(self._kinds):
            found.append(result_type(node, kinds) if self._xs[i] not in self._failures else "")
        return tuple(found)

    def _common(self, pieces: list[Piece]) -> Kinds:
        alive = set(self._alive())
        return tuple((promoted(p.torch[i] for p in pieces) or "") if i in alive else "" for i in range(len(self._xs)))

    def _in_one_type(self, pieces: list[Piece]) -> list[Piece]:
        """Two operands of an operator, cast only where Triton's own promotion is not torch's."""
        common = self._common(pieces)
        for p, other in (pieces, pieces[::-1]):
            if p.is_literal:
                self._check_literal(p, common)
                self._check_sign(p, other)
        if any(p.is_number and not p.is_literal for p in pieces):
            self._lose_wide(common)
        if all(triton_promoted(pieces[0].triton[i], pieces[1].triton[i]) == common[i] for i in self._alive()):
            return pieces
        if any(p.is_number for p in pieces):
            return pieces
        return [self._cast(p, common) for p in pieces]

    def _check_sign(self, literal: Piece, tensor: Piece) -> None:
        if literal.value is not None and literal.value < 0:
            lost = [i for i in self._alive() if tensor.torch[i] in ("uint8", "bool")]
            self._lose(lost, "Triton has no operation of an unsigned tensor and a negative number")

    def _arithmetic(self, op: str, left: Piece, right: Piece, result: Kinds) -> Piece:
        """+ - *: a literal that a 16-bit type does not hold is computed with in float32, and rounded once."""
        sides = [left, right]
        for here, there in ((0, 1), (1, 0)):
            literal = sides[there]
            if literal.value is not None and not representable_everywhere(float(literal.value)):
                sides[here] = self._widen(sides[here])
        if op in ("add", "sub"):
            sides = [self._apart(side) for side in sides]
        self._no_arithmetic_of_bools(sides)
        sides = self._in_one_type(sides)
        infix = {"add": "+", "sub": "-", "mul": "*"}[op]
        tree = _filled(f"{{x}} {infix} {{y}}", {"x": sides[0].tree, "y": sides[1].tree})
        made = tuple(map(triton_promoted, sides[0].triton, sides[1].triton))
        floats = any(is_float(result[i]) for i in self._alive())
        return Piece(tree, result, made, op == "mul" and floats)

    def _no_arithmetic_of_bools(self, sides: list[Piece]) -> None:
        common = self._common(sides)
        self._lose([i for i in self._alive() if common[i] == "bool"], "arithmetic on bools: write `&`, `|` or `^`")

    def _widen(self, piece: Piece) -> Piece:
        if not any(piece.torch[i] in _SHORT for i in self._alive()):
            return piece
        made = tuple("float32" if kind in _SHORT else kind for kind in piece.triton)
        return Piece(self._calls(WIDENED, piece.tree), piece.torch, made, piece.product)

    def _reciprocal(self, number: Piece, tensor: Piece) -> Piece:
        """1 / number, as torch's CUDA kernel computes it before it multiplies."""
        if number.value is None:
            return Piece(_call(_tl("div_rn"), _literal(1.0), number.tree), number.torch, number.triton)
        value = float(number.value)
        inverse, short = 1.0 / value, _float32(1.0 / _float32(value))
        if _float32(inverse) != short:
            inverse = short
            wide = [i for i in self._alive() if tensor.torch[i] == "float64"]
            self._lose(wide, f"the reciprocal of {value} is not the same in float32 and in float64")
        kinds = tuple(PYTHON_FLOAT for _ in self._xs)
        return Piece(_literal(inverse), kinds, kinds, value=inverse)

    def _infix(self, node: Apply, pieces: list[Piece], result: Kinds) -> Piece:
        row = node.row
        if row.numbers is Numbers.ROUNDED and not row.name.startswith("bitwise"):
            pieces = self._rounded_numbers(pieces)
        if row.unified:
            pieces = self._in_one_type(pieces)
        tree = _filled(row.inline, dict(zip(row.operands, (p.tree for p in pieces), strict=True)))
        if row.result is Result.BOOL:
            return Piece(tree, result, result)
        if row.name in ("maximum", "minimum"):
            return Piece(tree, result, self._widened_by_maximum(pieces[0].triton, pieces[1].triton))
        # a literal beside a bitwise operator is an int32 to Triton
        kinds = [tuple("int32" if is_number(k) else k for k in p.triton) for p in pieces]
        return Piece(tree, result, tuple(map(triton_promoted, *kinds)))

    def _rounded_numbers(self, pieces: list[Piece]) -> list[Piece]:
        """Numbers that are known at launch, in the tensor's type; a literal takes that type by itself."""
        common = self._common(pieces)
        return [self._cast(p, common) if p.is_number and not p.is_literal else p for p in pieces]

    def _helper_of_several(self, node: Apply, pieces: list[Piece], result: Kinds) -> Piece:
        row = node.row
        common = self._common(pieces)
        if row.result is Result.FLOAT:
            common = result
        if row.adds:
            pieces = [self._apart(p) for p in pieces]
        if row.numbers is Numbers.WIDE:
            pieces = [self._wide_number(p, common) if p.is_number else p for p in pieces]
        trees = [
            p.tree if row.numbers is Numbers.WIDE and p.torch != p.triton else self._cast(p, common).tree
            for p in pieces
        ]
        passed, baked = _passed(node)
        return Piece(self._calls(node.op, *trees, baked=baked, **passed), result, result, row.product)

    def _wide_number(self, number: Piece, common: Kinds) -> Piece:
        if number.value is not None and representable_everywhere(float(number.value)):
            return self._cast(number, common)
        lost = [i for i in self._alive() if common[i] == "float64"]
        self._lose(lost, "a number that is no float32 beside a float64: give it as a tensor")
        wide = tuple("float32" for _ in self._xs)
        piece = self._cast(number, wide)
        return Piece(piece.tree, number.torch, wide)


_STEP_NAMES = {"add": "total", "sub": "difference", "mul": "product", "div": "ratio", "where": "chosen"}


def _float_of_bfloat(kind: str) -> str:
    return "float32" if kind == "bfloat16" else kind


def _float32(value: float) -> float:
    result: float = struct.unpack("<f", struct.pack("<f", value))[0]
    return result


def _passed(node: Apply) -> tuple[dict[str, object], tuple[tuple[str, str], ...]]:
    """The arguments a helper takes at its call, and those that are written into it."""
    kinds = {p.name: p.kind for p in node.row.parameters}
    passed = {name: value for name, value in node.arguments if kinds[name] is ArgumentKind.NUMBER}
    return passed, tuple((name, str(value)) for name, value in node.arguments if name not in passed)


# --------------------------------------------------------------------------------------------------------------- trees


def _name(name: str) -> ast.expr:
    return ast.Name(name, ast.Load())


def _tl(attribute: str) -> ast.expr:
    return ast.Attribute(_name(TL), attribute, ast.Load())


def _dtype_of(tree: ast.expr) -> ast.expr:
    return ast.Attribute(tree, "dtype", ast.Load())


def _literal(value: object) -> ast.expr:
    """A number as source, its sign an operator: `-1`, `float("inf")`."""
    if isinstance(value, float) and value in (float("inf"), float("-inf")):
        return _call(_name("float"), ast.Constant("inf" if value > 0 else "-inf"))
    if isinstance(value, int | float) and not isinstance(value, bool) and value < 0:
        return ast.UnaryOp(ast.USub(), ast.Constant(-value))
    return ast.Constant(value)  # type: ignore[arg-type]


def _call(function: ast.expr, *arguments: ast.expr, **keywords: object) -> ast.expr:
    named = [ast.keyword(name, _literal(value)) for name, value in keywords.items()]
    return ast.Call(function, list(arguments), named)


class _Filling(ast.NodeTransformer):
    def __init__(self, trees: Mapping[str, ast.expr]) -> None:
        self._trees = trees

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return self._trees.get(node.id, node)


def substituted(tree: ast.expr, trees: Mapping[str, ast.expr]) -> ast.expr:
    """A copy of `tree` with other trees for some of its names."""
    copy = ast.parse(ast.unparse(ast.fix_missing_locations(ast.Expression(tree))), mode="eval").body
    result = _Filling(trees).visit(copy)
    assert isinstance(result, ast.expr)
    return result


def _filled(template: str, trees: Mapping[str, ast.expr], arguments: Mapping[str, object] | None = None) -> ast.expr:
    """A template with `trees` in the places of its operands."""
    places = {name: f"__operand_{name}__" for name in trees}
    text = template.format(tl=TL, libdevice=LIBDEVICE, **places, **(arguments or {}))
    tree = ast.parse(text, mode="eval").body
    result = _Filling({places[name]: operand for name, operand in trees.items()}).visit(tree)
    assert isinstance(result, ast.expr)
    return result
