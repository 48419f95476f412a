"""The language of epilogues: text -> expression graph -> Triton source, torch text, torch evaluation.

    relu        gelu(approximate="tanh")        leaky_relu(0.2)        clamp(0, 6)        sigmoid(relu(x))

An op's bare name stands for its application to x. A call's first argument is the operand when it is `x` or another
application; the others are the op's parameters, in torch's order and under torch's names. A module in front of an op's
name (`torch.relu`, `F.gelu`, `torch.nn.functional.gelu`) says nothing more.

The graph knows nodes only; everything about an op is in its OPS row.
"""

from __future__ import annotations

import ast
import difflib
import functools
import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from kernel_rewrite.diagnostics import Diagnostic, FusionRefused, Label
from kernel_rewrite.model import Span
from kernel_rewrite.pointwise.ops import (
    ALIASES,
    OPS,
    REQUIRED,
    ArgumentKind,
    ElementClass,
    Op,
    Parameter,
    Position,
    element_class,
    float_type,
    representable_everywhere,
    same_value,
)

EPILOGUE_FILE = "<epilogue>"
"""The file name of spans inside the text of an epilogue; give `render` its text under this name."""


# --------------------------------------------------------------------------------------------------------------- graph


@dataclass(frozen=True, slots=True)
class Input:
    """A value that comes from outside: `x` is the one being stored."""

    name: str = "x"


@dataclass(frozen=True, slots=True)
class Apply:
    """`op` applied to `operands`; `arguments` holds every parameter's value, in the row's order."""

    op: str
    operands: tuple[Node, ...]
    arguments: tuple[tuple[str, Any], ...] = ()

    @property
    def row(self) -> Op:
        return OPS[self.op]


Node = Input | Apply


def applications(node: Node) -> Iterator[Apply]:
    """Every application below `node`, operands before the applications that use them."""
    if isinstance(node, Apply):
        for operand in node.operands:
            yield from applications(operand)
        yield node


@dataclass(frozen=True, slots=True)
class Pointwise:
    """A function of the stored value, element by element, with eager torch's meaning: every application rounds to the
    element type of its operand."""

    result: Node

    @property
    def name(self) -> str:
        """A short slug for file names: `relu`, `gelu_tanh`, `clamp_0_6`, `sigmoid_relu`."""
        return "_".join(_slug(node) for node in reversed(tuple(applications(self.result))))

    @property
    def needs_libdevice(self) -> bool:
        return any(node.row.needs_libdevice for node in applications(self.result))

    @property
    def commutes_with_rounding(self) -> bool:
        """Whether E(round(v)) == round(E(v)) for every v and every rounding to a narrower float type, to the bit (up
        to NaN payloads): no cast to the buffer's type is then needed before E."""
        return all(node.row.commutes(dict(node.arguments)) for node in applications(self.result))

    @property
    def innermost_position(self) -> Position:
        """Where the stored value lands in the text that `emit` gives: what the caller must parenthesise."""
        chain = tuple(applications(self.result))
        inline = bool(chain) and _is_inline(chain[0], outermost=len(chain) == 1)
        return chain[0].row.position if inline else Position.ARGUMENT

    def undefined_reason(self, dtype: str) -> str:
        """Why E has no meaning in place on a buffer of `dtype` (a Triton, TTIR or torch name): "" when it has one.

        A clause that completes "... cannot be fused: ".
        """
        return next((reason for node in applications(self.result) if (reason := _undefined(node, dtype))), "")

    def defined_for(self, element: str | ElementClass) -> bool:
        """Whether torch's result on a buffer of `element` has the buffer's own type."""
        if isinstance(element, ElementClass):
            return not any(_undefined_class(node, element) for node in applications(self.result))
        return not self.undefined_reason(element)

    def preserves(self, fill: float) -> bool:
        """Whether E(fill) is fill to the bit in every element type E is defined for (a NaN may change payload).

        True only when sure: `fill` must be exact in every float type, and an op that rounds is asked at 0, 1, -1 and
        the infinities alone.
        """
        fill = float(fill)
        if not (math.isnan(fill) or representable_everywhere(fill)):
            return False
        value = fill
        for node in applications(self.result):
            sure = node.row.exact or math.isnan(value) or math.isinf(value) or value in (0.0, 1.0, -1.0)
            if not sure:
                return False
            value = node.row.at(value, **dict(node.arguments))
        return same_value(value, fill)

    def torch_text(self, x: str = "x") -> str:
        """The eager torch expression, over the text of x."""
        return _torch_text(self.result, x)

    def evaluate(self, x: Any) -> Any:
        """E of a torch tensor as eager torch computes it, every step rounded to its element type."""
        return _evaluate(self.result, x)


def _slug(node: Apply) -> str:
    words = [node.op]
    for name, value in node.arguments:
        default = next((p.default for p in node.row.parameters if p.name == name), REQUIRED)
        if value != default:
            words.append(_slug_of_value(value))
    return "_".join(words)


def _slug_of_value(value: Any) -> str:
    return str(value).replace("-", "minus_").replace("+", "").replace(".", "_")


def _undefined_class(node: Apply, kind: ElementClass) -> bool:
    return kind not in node.row.classes


def _undefined(node: Apply, dtype: str) -> str:
    row = node.row
    kind = element_class(dtype)
    call = row.torch or f"x.{row.name}"
    if kind is None:
        return f"{call} has no meaning for {dtype}"
    if kind not in row.classes:
        result = (
            row.integer_result
            if kind is not ElementClass.BOOL or row.classes == frozenset({ElementClass.FLOAT})
            else ""
        )
        if not result:
            return f"{call} rejects a tensor of {dtype}"
        return f"{call} of a {dtype} tensor is {result}, which the buffer cannot hold"
    return row.defined(dict(node.arguments), kind, dtype) if row.defined else ""


def _torch_arguments(node: Apply) -> dict[str, Any]:
    names = {p.name: p.torch_name or p.name for p in node.row.parameters}
    return {names[name]: value for name, value in node.arguments} | dict(node.row.fixed)


def _torch_text(node: Node, x: str) -> str:
    if isinstance(node, Input):
        return x
    operand = _torch_text(node.operands[0], x)
    if not node.row.torch:
        return f"{operand}.to(torch.{dict(node.arguments)['dtype']}).to({operand}.dtype)"
    keywords = "".join(f", {name}={_literal(value)}" for name, value in _torch_arguments(node).items())
    return f"{node.row.torch}({operand}{keywords})"


def _evaluate(node: Node, x: Any) -> Any:
    if isinstance(node, Input):
        return x
    import torch

    operand = _evaluate(node.operands[0], x)
    if not node.row.torch:
        return operand.to(getattr(torch, dict(node.arguments)["dtype"])).to(operand.dtype)
    function = functools.reduce(getattr, node.row.torch.split(".")[1:], torch)
    return function(operand, **_torch_arguments(node))  # type: ignore[operator]


# ------------------------------------------------------------------------------------------------------------- parsing


def parse_epilogue(text: str) -> Pointwise:
    """The pointwise function that `text` spells. Raises FusionRefused with KR107 (unknown op) or KR108 (arguments)."""
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError):
        span = Span(EPILOGUE_FILE, 1, 0, 1, max(1, len(text.encode())))
        raise _refusal("KR107", f"`{text}` is not an op or a call of one", span, _HELP) from None
    node = _parse(tree)
    if isinstance(node, Input):
        raise _refusal("KR107", "the epilogue is x itself, which changes nothing", _span(tree), _HELP)
    return Pointwise(node)


_HELP = 'write an op, e.g. `relu`, `gelu(approximate="tanh")`, `clamp(0, 6)` or `sigmoid(relu(x))`'


def _span(node: ast.expr) -> Span:
    return Span.of(EPILOGUE_FILE, node)


def _refusal(code: str, message: str, span: Span, help: str = "") -> FusionRefused:
    return FusionRefused((Diagnostic(code, message, (Label(span),), help=help),))


def _parse(tree: ast.expr) -> Node:
    if isinstance(tree, ast.Name) and tree.id == "x":
        return Input()
    if isinstance(tree, ast.Name | ast.Attribute):
        return _apply(_row(tree), Input(), [], [], tree)
    if isinstance(tree, ast.Call):
        row = _row(tree.func)
        operand, positional = _split_operand(row, tree.args)
        return _apply(row, operand, positional, tree.keywords, tree)
    raise _refusal("KR107", f"`{ast.unparse(tree)}` is not an op or a call of one", _span(tree), _HELP)


def _split_operand(row: Op, arguments: list[ast.expr]) -> tuple[Node, list[ast.expr]]:
    """The operand of a call and its remaining arguments: `relu(x)`, `sigmoid(relu(x))`, but `leaky_relu(0.2)`."""
    if not arguments or _is_value(arguments[0], row):
        return Input(), arguments
    return _parse(arguments[0]), arguments[1:]


def _is_value(tree: ast.expr, row: Op) -> bool:
    """Whether an argument is a value of a parameter rather than an operand."""
    if isinstance(tree, ast.Name | ast.Attribute) and row.parameters and row.parameters[0].kind is ArgumentKind.DTYPE:
        return ast.unparse(tree).rpartition(".")[2] not in {"x", *OPS, *ALIASES}
    if isinstance(tree, ast.Name) and tree.id in ("inf", "nan"):
        return True
    called = tree.func if isinstance(tree, ast.Call) else None
    return isinstance(tree, ast.Constant | ast.UnaryOp) or (isinstance(called, ast.Name) and called.id == "float")


_MODULES = frozenset(
    {"torch", "F", "nn.functional", "torch.nn.functional", "functional", "torch.special", "torch.Tensor"}
)


def _row(tree: ast.expr) -> Op:
    text = ast.unparse(tree)
    module, _, name = text.rpartition(".")
    name = ALIASES.get(name, name)
    if name in OPS and (not module or module in _MODULES):
        return OPS[name]
    close = difflib.get_close_matches(name.lower(), [*OPS, *ALIASES], n=1, cutoff=0.5)
    help = f"did you mean `{close[0]}`?" if close else f"the ops are: {', '.join(sorted(OPS))}"
    raise _refusal("KR107", f"unknown op `{text}`", _span(tree), help)


def _apply(row: Op, operand: Node, positional: list[ast.expr], keywords: list[ast.keyword], tree: ast.expr) -> Apply:
    given: dict[str, Any] = {}
    if len(positional) > len(row.parameters):
        extra = positional[len(row.parameters)]
        raise _refusal("KR108", f"`{row.name}` takes {_parameters_text(row)}", _span(extra), _usage(row))
    for parameter, argument in zip(row.parameters, positional, strict=False):
        given[parameter.name] = _value(row, parameter, argument)
    for keyword in keywords:
        found = next((p for p in row.parameters if p.name == keyword.arg), None)
        if found is None:
            what = f"no parameter `{keyword.arg}`" if keyword.arg else "no `**` arguments"
            raise _refusal("KR108", f"`{row.name}` has {what}", _span(keyword.value), _usage(row))
        if found.name in given:
            raise _refusal("KR108", f"`{found.name}` of `{row.name}` is given twice", _span(keyword.value), _usage(row))
        given[found.name] = _value(row, found, keyword.value)
    arguments = {p.name: given.get(p.name, p.default) for p in row.parameters}
    for name, value in arguments.items():
        if value is REQUIRED:
            raise _refusal("KR108", f"`{row.name}` needs `{name}`", _span(tree), _usage(row))
    if arguments and all(p.optional for p in row.parameters) and all(v is None for v in arguments.values()):
        wanted = " or ".join(f"`{p.name}`" for p in row.parameters)
        raise _refusal("KR108", f"`{row.name}` needs {wanted}", _span(tree), _usage(row))
    name = row.name
    if row.variant is not None:
        name, arguments = row.variant(arguments)
    return Apply(name, (operand,), tuple(arguments.items()))


def _value(row: Op, parameter: Parameter, tree: ast.expr) -> Any:
    def wrong(expected: str) -> FusionRefused:
        message = f"`{parameter.name}` of `{row.name}` must be {expected}, not `{ast.unparse(tree)}`"
        return _refusal("KR108", message, _span(tree), _usage(row))

    if parameter.optional and isinstance(tree, ast.Constant) and tree.value is None:
        return None
    if parameter.kind is ArgumentKind.DTYPE:
        dtype = float_type(ast.unparse(tree).rpartition(".")[2].strip("'\""))
        if dtype is None:
            raise wrong("one of fp16, bf16, fp32, fp64")
        return dtype
    if parameter.kind is ArgumentKind.CHOICE:
        if not (isinstance(tree, ast.Constant) and tree.value in parameter.choices):
            raise wrong(" or ".join(f'"{choice}"' for choice in parameter.choices))
        return tree.value
    number = _number(tree)
    if number is None:
        raise wrong("a number")
    if same_value(float(number), -0.0):
        raise _refusal("KR108", "Triton writes -0.0 as 0.0, which is another bound", _span(tree), _usage(row))
    if parameter.divides and number == 0:
        raise _refusal("KR108", f"`{parameter.name}` of `{row.name}` must not be zero", _span(tree), _usage(row))
    return number


def _number(tree: ast.expr) -> int | float | None:
    """A literal int or float, `inf`, `float("inf")`, or one of these after a sign; NaN is not a number here."""
    if isinstance(tree, ast.UnaryOp) and isinstance(tree.op, ast.USub | ast.UAdd):
        inner = _number(tree.operand)
        return None if inner is None else -inner if isinstance(tree.op, ast.USub) else inner
    if isinstance(tree, ast.Constant) and type(tree.value) in (int, float):
        value = tree.value
        assert isinstance(value, int | float)
        return value
    if ast.unparse(tree) in ("inf", "math.inf", "float('inf')"):
        return math.inf
    if ast.unparse(tree) == "float('-inf')":
        return -math.inf
    return None


def _parameters_text(row: Op) -> str:
    if not row.parameters:
        return "no arguments beside x"
    count = len(row.parameters)
    return f"at most {count} argument{'s' if count > 1 else ''} beside x"


def signature(row: Op) -> str:
    """`relu`, `leaky_relu(negative_slope=0.01)`, `to(dtype)`: an op as an epilogue writes it."""
    parts = [p.name if p.default is REQUIRED else f"{p.name}={_literal(p.default)}" for p in row.parameters]
    return f"{row.name}({', '.join(parts)})" if parts else row.name


def _usage(row: Op) -> str:
    return f"write it as `{signature(row)}`"


# ------------------------------------------------------------------------------------------------------------ emission


@dataclass(frozen=True, slots=True)
class HelperSource:
    """A helper function to stand above the kernel: its name and its whole text, decorator first, newline last."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Emission:
    """What to write: the stored expression (a call or a product), and the helpers it calls, in order."""

    expression: str
    helpers: tuple[HelperSource, ...]
    needs_libdevice: bool


def emit(
    pointwise: Pointwise,
    value: str,
    *,
    tl: str = "tl",
    libdevice: str = "libdevice",
    jit: str = "triton.jit",
    taken_names: Collection[str] = (),
) -> Emission:
    """Triton source for E(value).

    `value` is the text of the stored value, parenthesised where `pointwise.innermost_position` asks for it, and already
    of the buffer's element type unless `pointwise.commutes_with_rounding`. `tl`, `libdevice` and `jit` are the file's
    own spellings of triton.language, triton.language.extra.libdevice and triton.jit. A helper takes a name outside
    `taken_names`.
    """
    writer = _Writer(tl, libdevice, jit, frozenset(taken_names))
    expression = writer.expression(pointwise.result, value, outermost=True)
    helpers = tuple(writer.helpers.values())
    return Emission(expression, helpers, writer.uses_libdevice)


def _is_inline(node: Apply, *, outermost: bool) -> bool:
    return bool(node.row.inline) and (outermost or node.row.keeps_dtype)


class _Writer:
    """Collects the helpers of one emission."""

    def __init__(self, tl: str, libdevice: str, jit: str, taken: frozenset[str]) -> None:
        self._tl, self._libdevice, self._jit, self._taken = tl, libdevice, jit, taken
        self.helpers: dict[tuple[str, str], HelperSource] = {}
        self.uses_libdevice = False

    def expression(self, node: Node, value: str, *, outermost: bool = False) -> str:
        if isinstance(node, Input):
            return value
        operand = self.expression(node.operands[0], value)
        row, arguments = node.row, dict(node.arguments)
        self.uses_libdevice |= row.needs_libdevice
        if not _is_inline(node, outermost=outermost):
            keywords = "".join(f", {name}={_literal(v)}" for name, v in _passed(node).items())
            return f"{self._helper(node).name}({operand}{keywords})"
        if row.position is Position.POSTFIX and isinstance(node.operands[0], Apply) and not _is_call(operand):
            operand = f"({operand})"
        return row.inline.format(x=operand, tl=self._tl, libdevice=self._libdevice, **arguments)

    def _helper(self, node: Apply) -> HelperSource:
        row = node.row
        baked = "_".join(str(v) for name, v in node.arguments if name not in _passed(node))
        key = (row.name, baked)
        if key not in self.helpers:
            wanted = f"{row.helper_name}_{baked}" if baked else row.helper_name
            taken = self._taken | {helper.name for helper in self.helpers.values()}
            name = _free_name(wanted, taken)
            text = helper_text(node, name, tl=self._tl, libdevice=self._libdevice, jit=self._jit)
            self.helpers[key] = HelperSource(name, text)
        return self.helpers[key]


def _is_call(text: str) -> bool:
    return isinstance(ast.parse(text, mode="eval").body, ast.Call)


def _passed(node: Apply) -> dict[str, Any]:
    """The arguments a helper takes at its call; a type is written into the helper instead."""
    kinds = {p.name: p.kind for p in node.row.parameters}
    return {name: value for name, value in node.arguments if kinds[name] is ArgumentKind.NUMBER}


def _free_name(wanted: str, taken: Collection[str]) -> str:
    """`gelu`, or `torch_gelu`, `torch_gelu_2`, ... when the file has a `gelu` of its own."""
    if wanted not in taken:
        return wanted
    name, count = f"torch_{wanted}", 2
    while name in taken:
        name, count = f"torch_{wanted}_{count}", count + 1
    return name


def helper_text(node: Apply, name: str, *, tl: str, libdevice: str, jit: str) -> str:
    """The source of the helper that computes `node.row`: x of any element type the op is defined for, to the same
    type."""
    row, arguments = node.row, dict(node.arguments)
    passed = _passed(node)
    baked = {k: v for k, v in arguments.items() if k not in passed}
    template = row.steps or row.inline
    lines = template.format(x="x", tl=tl, libdevice=libdevice, **baked).splitlines()
    signature = ", ".join(["x", *(f"{parameter}: {tl}.constexpr" for parameter in passed)])
    body = [*_docstring(node), *_type_check(row, tl), *lines[:-1], *_return(lines[-1])]
    return "\n".join([f"@{jit}", f"def {name}({signature}):", *(f"    {line}".rstrip() for line in body)]) + "\n"


def _docstring(node: Apply) -> list[str]:
    row, passed = node.row, _passed(node)
    if row.torch:
        keywords = [f"{p.torch_name or p.name}={p.name}" for p in row.parameters if p.name in passed]
        keywords += [f"{name}={_literal(value)}" for name, value in row.fixed]
        call = f"{row.torch}({', '.join(['x', *keywords])})"
    else:
        call = _torch_text(Apply(node.op, (Input(),), node.arguments), "x")
    notes = [f"{row.formula}."]
    if "wide = " in row.steps:
        notes.append(f"A 16-bit x is computed in float32 and rounded {'after every step' if row.stepwise else 'once'}.")
    return [f'"""{call}.', "", *notes, '"""']


def _type_check(row: Op, tl: str) -> list[str]:
    if row.classes != frozenset({ElementClass.FLOAT}):
        return []
    return [f'{tl}.static_assert(x.dtype.is_floating(), "{row.name} is defined for floating-point types")']


def _return(last: str) -> list[str]:
    """The closing lines of a helper: the value of `last` in the type of x."""
    tree = ast.parse(last, mode="eval").body
    if isinstance(tree, ast.IfExp):
        return [f"result = {last}", "return result.to(x.dtype)"]
    if last.endswith(".to(x.dtype)") and isinstance(tree, ast.Call):
        return [f"return {last}"]
    closed = isinstance(tree, ast.Call | ast.Name | ast.Attribute)
    return [f"return {last}.to(x.dtype)" if closed else f"return ({last}).to(x.dtype)"]


def _literal(value: Any) -> str:
    if isinstance(value, float) and math.isinf(value):
        return 'float("inf")' if value > 0 else 'float("-inf")'
    return f'"{value}"' if isinstance(value, str) else repr(value)
