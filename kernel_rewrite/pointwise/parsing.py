"""Text -> graph.

    relu      gelu(approximate="tanh")      clamp(0, 6)      gelu(x * scale + bias) + residual      x.to(torch.float16)

An epilogue is a Python expression over `x`, the names of operands, numbers, operators and ops. An op's bare name stands
for its application to x. A call's first argument is the operand when it is `x`, an operand or an expression of these;
the others are the op's parameters, in torch's order and under torch's names. A module in front of an op's name
(`torch.relu`, `F.gelu`) says nothing more; anything else in front of it is its first operand (`x.relu()`).
"""

from __future__ import annotations

import ast
import difflib
import math
from collections.abc import Mapping
from typing import Any

from kernel_rewrite.diagnostics import Diagnostic, FusionRefused, Label
from kernel_rewrite.model import Operand, OperandKind, Span
from kernel_rewrite.pointwise import building
from kernel_rewrite.pointwise.casts import CASTS, SAME
from kernel_rewrite.pointwise.element_types import torch_name
from kernel_rewrite.pointwise.function import Pointwise
from kernel_rewrite.pointwise.graph import Apply, Input, Node, Number, X, inputs
from kernel_rewrite.pointwise.op import REQUIRED, ArgumentKind, Op, Parameter, same_value
from kernel_rewrite.pointwise.ops import ALIASES, OPS
from kernel_rewrite.pointwise.refused import NOT_POINTWISE
from kernel_rewrite.pointwise.torch_side import INFIX, literal_text

EPILOGUE_FILE = "<epilogue>"
"""The file name of spans inside the text of an epilogue; give `render` its text under this name."""


def parse_epilogue(text: str, operands: Mapping[str, Operand] | None = None) -> Pointwise:
    """The pointwise function that `text` spells, over x and the declared `operands` (by name).

    Raises FusionRefused with KR107 (a name that is neither an op nor an operand, or no expression at all), KR108 (wrong
    arguments), KR118 (not a function of single elements) or KR119 (an operand that is declared and not used).
    """
    return Parser(text.strip(), dict(operands or {})).pointwise(expression_of(text))


def expression_of(text: str) -> ast.expr:
    """The syntax tree of an epilogue. Raises FusionRefused (KR107)."""
    try:
        return ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        span = Span(EPILOGUE_FILE, 1, 0, 1, max(1, len(text.encode())))
        raise _refusal("KR107", f"`{text}` is not an expression of ops", span, _HELP) from None


_HELP = 'write an op or an expression, e.g. `relu`, `gelu(approximate="tanh")`, `sigmoid(relu(x))` or `x * 2 + 1`'


def _refusal(code: str, message: str, span: Span, help: str = "") -> FusionRefused:
    return FusionRefused((Diagnostic(code, message, (Label(span),), help=help),))


class Parser:
    """Turns expressions of one text into graphs. `names` are values that stand for whole graphs (local variables of a
    function); `shift` is the place of the text in its file."""

    def __init__(
        self,
        text: str,
        declared: Mapping[str, Operand],
        *,
        names: dict[str, Node] | None = None,
        file: str = EPILOGUE_FILE,
    ) -> None:
        self._text, self._declared, self._file = text, dict(declared), file
        self.names: dict[str, Node] = {X: Input()} if names is None else names

    def pointwise(self, tree: ast.expr) -> Pointwise:
        """The function of the expression `tree`."""
        return self.finished(self.node(tree), tree)

    def finished(self, node: Node, tree: ast.AST) -> Pointwise:
        """The function with result `node`; refuses one that changes nothing or leaves an operand out."""
        span = self.span(tree)
        if node == Input():
            raise _refusal("KR107", "the epilogue is x itself, which changes nothing", span, _HELP)
        used = list(dict.fromkeys(i for i in inputs(node) if i.name != X))
        if not any(i.name == X for i in inputs(node)):
            help = f"write {X} where the value that the kernel stores belongs"
            raise _refusal("KR107", f"`{self._source(tree)}` does not use x, the stored value", span, help)
        unused = [name for name in self._declared if name not in {i.name for i in used}]
        if unused:
            raise _refusal(
                "KR119",
                f"operand `{unused[0]}` is declared and `{self._source(tree)}` does not use it",
                span,
                f"leave out `--operand {unused[0]}=...`, or use it",
            )
        return Pointwise(node, tuple(self.operand(i) for i in used))

    def operand(self, used: Input) -> Operand:
        """What a value beside x is declared as."""
        if not used.index:
            return self._declared[used.name]
        dtype = self._declared[used.name].dtype if used.name in self._declared else ""
        return Operand(used.name, OperandKind.INDEXED, dtype, used.index)

    def span(self, tree: ast.AST) -> Span:
        assert isinstance(tree, ast.expr | ast.stmt | ast.keyword)
        return Span.of(self._file, tree)

    def _source(self, tree: ast.AST) -> str:
        return " ".join((ast.get_source_segment(self._text, tree) or ast.unparse(tree)).split())

    # ---- expressions

    def node(self, tree: ast.expr) -> Node:
        """The graph of an expression. Raises FusionRefused."""
        match tree:
            case ast.Constant(value=bool() | int() | float() as value):
                return Number.of(value)
            case ast.Name():
                return self._named(tree)
            case ast.Attribute():
                return self._attribute(tree)
            case ast.Subscript():
                return self._subscript(tree)
            case ast.Call():
                return self._call(tree)
            case ast.BinOp(left, operator, right):
                return self._binary(type(operator), left, right, tree)
            case ast.UnaryOp(operator, operand):
                return self._prefixed(operator, operand, tree)
            case ast.Compare(left, [operator], [right]):
                return self._binary(type(operator), left, right, tree)
        code, message, help = "KR107", f"`{self._source(tree)}` is not an expression of ops", _HELP
        if isinstance(tree, ast.Compare):
            help = "compare two values at a time: `(0 < x) & (x < 6)`"
        elif isinstance(tree, ast.BoolOp):
            help = "Python's `and` and `or` want one truth value: write `&` and `|`, or `logical_and(...)`"
        elif isinstance(tree, ast.IfExp):
            help = "choose element by element: `where(condition, x, y)`"
        raise _refusal(code, message, self.span(tree), help)

    def _named(self, tree: ast.Name) -> Node:
        if tree.id in self.names:
            return self.names[tree.id]
        if tree.id in self._declared:
            if self._declared[tree.id].kind is OperandKind.INDEXED and not self._declared[tree.id].index:
                help = f"write its index in the kernel's own names: `{tree.id}[...]`"
                raise _refusal("KR108", f"operand `{tree.id}` is read without an index", self.span(tree), help)
            return Input(tree.id, self._declared[tree.id].index)
        if tree.id in ("inf", "nan"):
            return self._constant(float(tree.id), tree)
        return self._bare(self._row(tree), tree)

    def _constant(self, value: float, tree: ast.expr) -> Number:
        if math.isnan(value):
            raise _refusal("KR108", "NaN is no number of an epilogue", self.span(tree), "leave it out")
        return Number.of(value)

    def _bare(self, row: Op, tree: ast.expr) -> Node:
        if len(row.operands) > 1:
            raise _refusal("KR108", f"`{row.name}` needs {_wanted(row)}", self.span(tree), _usage(row))
        return self._applied(row, (Input(),), {}, tree)

    def _attribute(self, tree: ast.Attribute) -> Node:
        text = ast.unparse(tree)
        if text in ("math.inf", "torch.inf", "torch.nan", "math.nan"):
            return self._constant(float(tree.attr), tree)
        if text in ("math.pi", "torch.pi", "math.e", "torch.e"):
            return Number.of(getattr(math, tree.attr))
        if self._is_value(tree.value):
            self._refuse_not_pointwise(tree.attr, tree)
            help = f"an op is called: `{ast.unparse(tree.value)}.relu()`"
            raise _refusal("KR107", f"`{text}` is not a value of an epilogue", self.span(tree), help)
        return self._bare(self._row(tree), tree)

    def _is_value(self, tree: ast.expr) -> bool:
        """Whether what stands before a dot is a value, so that what follows is a method, and not a module."""
        while isinstance(tree, ast.Attribute):
            if ast.unparse(tree) in MODULES:
                return False
            tree = tree.value
        if isinstance(tree, ast.Name):
            return tree.id in self.names or tree.id in self._declared
        return True

    def _subscript(self, tree: ast.Subscript) -> Node:
        base = tree.value
        if not isinstance(base, ast.Name) or base.id in self.names:
            self._refuse_not_pointwise("__getitem__", tree)
        assert isinstance(base, ast.Name)
        if base.id in self._declared and self._declared[base.id].kind is not OperandKind.INDEXED:
            kind = self._declared[base.id].kind.value
            help = f"leave the index out, or `--operand {base.id}={kind}`"
            raise _refusal("KR108", f"`{base.id}` is a {kind} operand and takes no index", self.span(tree), help)
        if base.id not in self._declared and ALIASES.get(base.id, base.id) in OPS:
            help = "call an op with parentheses, or give the operand another name"
            raise _refusal("KR107", f"`{base.id}` is an op, and `[...]` reads an operand", self.span(tree), help)
        index = self._source(tree.slice)
        return Input(base.id, index[1:-1] if index.startswith("(") and isinstance(tree.slice, ast.Tuple) else index)

    def _binary(self, operator: type[ast.AST], left: ast.expr, right: ast.expr, tree: ast.expr) -> Node:
        infix = next((text for text, (kind, _) in INFIX.items() if kind is operator), "")
        if not infix:
            name = "matmul" if operator is ast.MatMult else ""
            if name:
                self._refuse_not_pointwise(name, tree)
            raise _refusal("KR107", f"`{self._source(tree)}` is not an expression of ops", self.span(tree), _HELP)
        return self._joined(infix, self.node(left), self.node(right), tree)

    def _joined(self, infix: str, left: Node, right: Node, tree: ast.expr) -> Node:
        if infix in ("/", "//", "%") and isinstance(right, Number) and right.value == 0:
            raise _refusal("KR108", f"`{self._source(tree)}` divides by zero", self.span(tree))
        try:
            result = building.binary(infix, left, right)
        except (ArithmeticError, TypeError, ValueError) as error:
            raise _refusal("KR108", f"`{self._source(tree)}`: {str(error).lower()}", self.span(tree)) from None
        return self._sound(result, tree)

    def _sound(self, node: Node, tree: ast.expr) -> Node:
        """Refuse numbers that Triton cannot write."""
        if isinstance(node, Number):
            if isinstance(node.value, complex) or (isinstance(node.value, float) and math.isnan(node.value)):
                raise _refusal("KR108", f"`{self._source(tree)}` is no real number", self.span(tree))
            return node
        numbers = [n for n in node.operands if isinstance(n, Number)] if isinstance(node, Apply) else []
        if any(isinstance(n.value, float) and same_value(n.value, -0.0) for n in numbers):
            raise _refusal("KR108", "Triton writes -0.0 as 0.0, which is another number", self.span(tree))
        if any(abs(n.value) >= 2**63 for n in numbers if isinstance(n.value, int)):
            raise _refusal("KR108", f"`{self._source(tree)}` has a number that no integer type holds", self.span(tree))
        if isinstance(node, Apply) and numbers and len(numbers) == len(node.operands):
            raise _refusal(
                "KR108",
                f"`{self._source(tree)}` is a number: torch has no {node.op} of numbers alone",
                self.span(tree),
                "work it out, and write the number",
            )
        return node

    def _prefixed(self, operator: ast.unaryop, operand: ast.expr, tree: ast.expr) -> Node:
        node = self.node(operand)
        if isinstance(operator, ast.UAdd):
            return node
        if isinstance(operator, ast.USub):
            return building.negated(node)
        if isinstance(operator, ast.Invert):
            if isinstance(node, Number) and isinstance(node.value, int):
                return Number.of(~int(node.value))
            return self._sound(Apply("bitwise_not", (node,)), tree)
        help = "Python's `not` wants one truth value: write `~` or `logical_not(...)`"
        raise _refusal("KR107", f"`{self._source(tree)}` is not an expression of ops", self.span(tree), help)

    # ---- calls

    def _call(self, tree: ast.Call) -> Node:
        number = _number(tree)
        if number is not None:
            return Number.of(number)
        function = tree.func
        if isinstance(function, ast.Attribute) and self._is_value(function.value):
            return self._method(tree, function)
        row = self._row(function)
        if len(row.operands) == 1 and (not tree.args or self._is_parameter(tree.args[0], row)):
            if row.name == "logical_not" or not any(k.arg in _FIRST for k in tree.keywords):
                return self._with_arguments(row, [Input()], tree.args, tree.keywords, tree)
        return self._with_arguments(row, [], tree.args, tree.keywords, tree)

    def _method(self, tree: ast.Call, function: ast.Attribute) -> Node:
        base = self.node(function.value)
        if function.attr in _CAST_METHODS and not tree.args and not tree.keywords:
            return self._applied(OPS["to"], (base,), {"dtype": _CAST_METHODS[function.attr]}, tree)
        row = self._row(function, method=True)
        return self._with_arguments(row, [base], tree.args, tree.keywords, tree)

    def _is_parameter(self, tree: ast.expr, row: Op) -> bool:
        """Whether the first argument of a call of an op of one operand is a parameter: `leaky_relu(0.2)`, `to(fp16)`."""
        if row.parameters and row.parameters[0].kind is ArgumentKind.DTYPE:
            return self._dtype(tree) is not None or isinstance(tree, ast.Constant)
        if isinstance(tree, ast.Name) and tree.id in ("inf", "nan"):
            return tree.id not in self.names and tree.id not in self._declared
        if isinstance(tree, ast.Constant):
            return True
        return _number(tree) is not None or (isinstance(tree, ast.UnaryOp) and isinstance(tree.operand, ast.Constant))

    def _with_arguments(
        self, row: Op, given: list[Node], positional: list[ast.expr], keywords: list[ast.keyword], tree: ast.Call
    ) -> Node:
        """The op with the arguments of a call: operands first, then parameters, as torch orders them."""
        operands: list[Node | None] = list(given)
        rest = list(positional)
        if any(isinstance(argument, ast.Starred) for argument in rest):
            raise _refusal("KR108", f"`{row.name}` takes no `*` arguments", self.span(tree), _usage(row))
        bounds = self._operand_bounds(row, len(operands), rest, keywords)
        if bounds is not None:
            row = OPS["clamp_between"] if len(bounds) == 2 else OPS["maximum" if "min" in bounds else "minimum"]
            base = operands[0] if operands else self.node(rest[0])
            if base is None:
                base = Input()
            return self._applied(row, (base, *(self._bound(b) for b in bounds.values())), {}, tree)
        while len(operands) < len(row.operands) and rest:
            operands.append(self.node(rest.pop(0)))
        named = {k.arg: k for k in keywords}
        operands += [None] * (len(row.operands) - len(operands))
        for position, slot in enumerate(row.operands):
            spelled = [name for name in (slot, *_OTHER_NAMES.get(slot, ())) if name in named]
            if operands[position] is None and spelled and not any(p.name == spelled[0] for p in row.parameters):
                operands[position] = self.node(named.pop(spelled[0]).value)
        if len(row.operands) == 1 and operands[0] is None:
            operands[0] = Input()
        present = [operand for operand in operands if operand is not None]
        if len(present) < len(row.operands):
            raise _refusal("KR108", f"`{row.name}` needs {_wanted(row)}", self.span(tree), _usage(row))
        given_arguments = self._arguments(row, rest, list(named.values()))
        return self._applied(row, tuple(present), given_arguments, tree)

    def _operand_bounds(
        self, row: Op, have: int, rest: list[ast.expr], keywords: list[ast.keyword]
    ) -> dict[str, ast.expr] | None:
        """The bounds of a clamp when one of them is no literal."""
        if row.name not in ("clamp", "clamp_min", "clamp_max"):
            return None
        names = {"clamp": ("min", "max"), "clamp_min": ("min",), "clamp_max": ("max",)}[row.name]
        found = dict(zip(names, rest if have else rest[1:], strict=False))
        found |= {k.arg: k.value for k in keywords if k.arg in names}
        found = {n: v for n, v in found.items() if not (isinstance(v, ast.Constant) and v.value is None)}
        values = [v for v in found.values() if not isinstance(v, ast.Constant) and _number(v) is None]
        known = [v for v in values if not isinstance(v, ast.Name) or v.id in self._declared or v.id in self.names]
        return {name: found[name] for name in ("min", "max") if name in found} if known else None

    def _bound(self, tree: ast.expr) -> Node:
        return self.node(tree)

    def _arguments(self, row: Op, positional: list[ast.expr], keywords: list[ast.keyword]) -> dict[str, Any]:
        given: dict[str, Any] = {}
        if len(positional) > len(row.parameters):
            extra = positional[len(row.parameters)]
            raise _refusal("KR108", f"`{row.name}` takes {_parameters_text(row)}", self.span(extra), _usage(row))
        for parameter, argument in zip(row.parameters, positional, strict=False):
            given[parameter.name] = self._value(row, parameter, argument)
        for keyword in keywords:
            found = next((p for p in row.parameters if keyword.arg and keyword.arg in (p.name, p.torch_name)), None)
            if found is None:
                if keyword.arg == "inplace" and isinstance(keyword.value, ast.Constant) and not keyword.value.value:
                    continue
                what = f"no parameter `{keyword.arg}`" if keyword.arg else "no `**` arguments"
                raise _refusal("KR108", f"`{row.name}` has {what}", self.span(keyword.value), _usage(row))
            if found.name in given:
                message = f"`{found.name}` of `{row.name}` is given twice"
                raise _refusal("KR108", message, self.span(keyword.value), _usage(row))
            given[found.name] = self._value(row, found, keyword.value)
        return given

    def _applied(self, row: Op, operands: tuple[Node, ...], given: Mapping[str, Any], tree: ast.expr) -> Node:
        arguments = {p.name: given.get(p.name, p.default) for p in row.parameters}
        for name, value in arguments.items():
            if value is REQUIRED:
                raise _refusal("KR108", f"`{row.name}` needs `{name}`", self.span(tree), _usage(row))
        if arguments and all(p.optional for p in row.parameters) and all(v is None for v in arguments.values()):
            wanted = " or ".join(f"`{p.name}`" for p in row.parameters)
            raise _refusal("KR108", f"`{row.name}` needs {wanted}", self.span(tree), _usage(row))
        name = row.name
        if row.variant is not None:
            name, arguments = row.variant(arguments)
        return self._sound(building.applied(OPS[name], operands, arguments), tree)

    def _value(self, row: Op, parameter: Parameter, tree: ast.expr) -> Any:
        def wrong(expected: str) -> FusionRefused:
            message = f"`{parameter.name}` of `{row.name}` must be {expected}, not `{ast.unparse(tree)}`"
            return _refusal("KR108", message, self.span(tree), _usage(row))

        if parameter.optional and isinstance(tree, ast.Constant) and tree.value is None:
            return None
        if parameter.kind is ArgumentKind.DTYPE:
            dtype = self._dtype(tree)
            if dtype is None:
                raise wrong(f"one of {', '.join(CASTS)}")
            return dtype
        if parameter.kind is ArgumentKind.CHOICE:
            if not (isinstance(tree, ast.Constant) and tree.value in parameter.choices):
                raise wrong(" or ".join(f'"{choice}"' for choice in parameter.choices))
            return tree.value
        number = _number(tree)
        if number is None:
            raise wrong("a number")
        if same_value(float(number), -0.0):
            raise _refusal("KR108", "Triton writes -0.0 as 0.0, which is another bound", self.span(tree), _usage(row))
        if parameter.divides and number == 0:
            message = f"`{parameter.name}` of `{row.name}` must not be zero"
            raise _refusal("KR108", message, self.span(tree), _usage(row))
        return number

    def _dtype(self, tree: ast.expr) -> str | None:
        """The type that an argument of `to` names: `fp16`, `torch.float16`, `"float16"`, `x.dtype`."""
        text = ast.unparse(tree)
        if (
            isinstance(tree, ast.Attribute)
            and tree.attr == "dtype"
            and self.names.get(ast.unparse(tree.value)) == Input()
        ):
            return SAME
        if not isinstance(tree, ast.Name | ast.Attribute | ast.Constant):
            return None
        name = text.rpartition(".")[2].strip("'\"")
        if isinstance(tree, ast.Name) and (name in self.names or name in self._declared):
            return None
        found = torch_name(name)
        return found if found in CASTS else None

    # ---- names

    def _row(self, tree: ast.expr, *, method: bool = False) -> Op:
        text = ast.unparse(tree)
        module, _, name = text.rpartition(".")
        name = ALIASES.get(name, name)
        if name in OPS and (method or not module or module in MODULES):
            return OPS[name]
        self._refuse_not_pointwise(name, tree)
        close = difflib.get_close_matches(name, [*self._declared, *self.names], n=1, cutoff=0.6)
        close = close or difflib.get_close_matches(name.lower(), [*OPS, *ALIASES], n=1, cutoff=0.6)
        help = "`kernel-rewrite ops` lists the ops"
        if close:
            help = f"did you mean `{close[0]}`?"
        elif isinstance(tree, ast.Name):
            help = f"declare a tensor or a number with `--operand {name}=row` (column, tile, scalar); {help}"
        raise _refusal("KR107", f"unknown op `{text}`", self.span(tree), help)

    def _refuse_not_pointwise(self, name: str, tree: ast.expr) -> None:
        found = NOT_POINTWISE.get(name)
        if found is not None:
            message = f"`{self._source(tree)}` {found.reason}"
            raise _refusal("KR118", message, self.span(tree), found.way_out)


MODULES = frozenset(
    {"torch", "F", "nn.functional", "torch.nn.functional", "functional", "torch.special", "torch.Tensor"}
)

_FIRST = ("input", "self")
_OTHER_NAMES = {
    "x": ("input", "self"),
    "y": ("other", "exponent"),
    "first": ("tensor1",),
    "second": ("tensor2",),
}
"""torch's keywords for operands."""

_CAST_METHODS = {
    **{"float": "float32", "half": "float16", "double": "float64", "bfloat16": "bfloat16", "bool": "bool"},
    **{"int": "int32", "long": "int64", "short": "int16", "char": "int8", "byte": "uint8"},
}
"""The methods of a tensor that cast, and the type each casts to."""


def _number(tree: ast.expr) -> int | float | None:
    """A literal int or float, `inf`, `float("inf")`, or one of these after a sign; NaN is not a number here."""
    if isinstance(tree, ast.UnaryOp) and isinstance(tree.op, ast.USub | ast.UAdd):
        inner = _number(tree.operand)
        return None if inner is None else -inner if isinstance(tree.op, ast.USub) else inner
    if isinstance(tree, ast.Constant) and type(tree.value) in (int, float):
        value = tree.value
        assert isinstance(value, int | float)
        return value
    if ast.unparse(tree) in ("inf", "math.inf", "torch.inf", "float('inf')"):
        return math.inf
    if ast.unparse(tree) == "float('-inf')":
        return -math.inf
    return None


def _wanted(row: Op) -> str:
    *most, last = (f"`{name}`" for name in row.operands)
    return f"{', '.join(most)} and {last}"


def _parameters_text(row: Op) -> str:
    beside = "x" if len(row.operands) == 1 else f"its {len(row.operands)} operands"
    if not row.parameters:
        return f"no arguments beside {beside}"
    count = len(row.parameters)
    return f"at most {count} argument{'s' if count > 1 else ''} beside {beside}"


def signature(row: Op) -> str:
    """`relu`, `leaky_relu(negative_slope=0.01)`, `where(condition, x, y)`: an op as an epilogue writes it."""
    parts = list(row.operands) if len(row.operands) > 1 else []
    parts += [p.name if p.default is REQUIRED else f"{p.name}={literal_text(p.default)}" for p in row.parameters]
    return f"{row.name}({', '.join(parts)})" if parts else row.name


def _usage(row: Op) -> str:
    return f"write it as `{signature(row)}`"
