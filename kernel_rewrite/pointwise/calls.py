"""`gate(x, bias, 0.5)`: a Triton function of the user's as an epilogue, called at the store."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from kernel_rewrite.diagnostics import Diagnostic, FusionRefused, Label
from kernel_rewrite.model import Operand, OperandKind, Span
from kernel_rewrite.pointwise.element_types import ElementClass, torch_name
from kernel_rewrite.pointwise.graph import Input, X, key_of
from kernel_rewrite.pointwise.ops import ALIASES, OPS
from kernel_rewrite.pointwise.parsing import EPILOGUE_FILE
from kernel_rewrite.pointwise.refused import NOT_POINTWISE


@dataclass(frozen=True, slots=True)
class Literal:
    """A constant among the arguments of a call, which a compile-time parameter may take."""

    value: int | float | bool | str | None


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument of a call, `keyword` "" where it is passed by position."""

    value: Input | Literal
    keyword: str = ""


@dataclass(frozen=True, slots=True)
class Inlined:
    """A function that is no function of the user's yet: what the kernel `kernel` of the file `path` computes of what it
    loads of its parameter `x`. `definition` is its text behind its name, `names` are the names in it."""

    path: str
    kernel: str
    x: str
    definition: str
    names: frozenset[str]


@dataclass(frozen=True, slots=True)
class TritonCall:
    """A call of the Triton function `function` with x and `operands`, in the order of their first use. With `inlined` it is
    to be defined above the kernel, under this name or a free one.

    Its meaning is what the unfused pair computes: the function called on what the buffer holds, its result converted to the
    buffer's type as a store does it.
    """

    function: str
    arguments: tuple[Argument, ...]
    operands: tuple[Operand, ...] = ()
    inlined: Inlined | None = None

    @property
    def name(self) -> str:
        """A short slug for file names: the function's own name."""
        return self.function

    needs_libdevice = False
    commutes_with_rounding = False

    def uses(self, name: str) -> int:
        """How often the call mentions `name` (`x` or an operand, at whatever index)."""
        return sum(isinstance(a.value, Input) and a.value.name == name for a in self.arguments)

    def result_dtype(self, x: str, operands: Mapping[str, str] | None = None) -> str:
        """torch's name of the type that the result is stored in: that of x."""
        return torch_name(x) or x

    def undefined_reason(self, dtype: str, operands: Mapping[str, str] | None = None) -> str:
        """Triton alone can tell for which types the function has a meaning: see `checks.called_function`."""
        return ""

    def unheld_reason(self, dtype: str) -> str:
        """A result of another type is converted, as a store does it."""
        return ""

    def defined_for(self, element: str | ElementClass) -> bool:
        """Not known beyond the types that the kernel is launched with."""
        return False

    def preserves(self, fill: float) -> bool:
        """Never sure: the function is not computed here."""
        return False

    def fill_for(self, fill: float) -> float | None:
        """Never sure, as for `preserves`."""
        return None

    def text(self, inputs: Mapping[str, str]) -> str:
        """The call as source, `inputs` being the texts of x and of every operand by key."""
        parts = []
        for argument in self.arguments:
            value = argument.value
            text = inputs[value.key] if isinstance(value, Input) else repr(value.value)
            parts.append(f"{argument.keyword}={text}" if argument.keyword else text)
        return f"{self.function}({', '.join(parts)})".replace("'", '"')


def called_name(text: str) -> str | None:
    """The name that an epilogue calls, or is, when it is none of the language: `gate` of `gate(x, bias)`."""
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return None
    function = tree.func if isinstance(tree, ast.Call) else tree
    known = not isinstance(function, ast.Name) or function.id == X or function.id in {*OPS, *ALIASES, *NOT_POINTWISE}
    return None if known or not isinstance(function, ast.Name) else function.id


def called_functions(texts: Iterable[str]) -> tuple[str, ...]:
    """The names that these epilogues call and the language does not know."""
    return tuple(name for text in texts if (name := called_name(text)) is not None)


def parse_call(text: str, operands: Mapping[str, Operand]) -> TritonCall:
    """The call that `text` spells, over x, the declared `operands` (by name) and constants; a bare name is called with x.

    Raises FusionRefused with KR108 for an argument that is none of these, KR119 for an operand that is not used.
    """
    tree = ast.parse(text.strip(), mode="eval").body
    if isinstance(tree, ast.Name):
        return TritonCall(tree.id, (Argument(Input()),))
    assert isinstance(tree, ast.Call) and isinstance(tree.func, ast.Name)
    arguments = [Argument(_value(node, operands)) for node in tree.args]
    for keyword in tree.keywords:
        arguments.append(Argument(_value(keyword.value, operands), keyword.arg or ""))
        if keyword.arg is None:
            raise _refusal(
                "KR108", "`**` arguments are not known without running code", keyword.value, "write them out"
            )
    used = [a.value for a in arguments if isinstance(a.value, Input)]
    if sum(value.name == X for value in used) != 1:
        message = f"`{text.strip()}` must pass x, the value that the kernel stores, once"
        raise _refusal("KR108", message, tree, f"write `{tree.func.id}({X}, ...)`")
    unused = [name for name in operands if name not in {value.name for value in used}]
    if unused:
        help = f"leave out `--operand {unused[0]}=...`, or use it"
        raise _refusal("KR119", f"operand `{unused[0]}` is declared and `{text.strip()}` does not use it", tree, help)
    inputs = dict.fromkeys(value for value in used if value.name != X)
    return TritonCall(tree.func.id, tuple(arguments), tuple(_operand(value, operands) for value in inputs))


def _value(tree: ast.expr, operands: Mapping[str, Operand]) -> Input | Literal:
    if isinstance(tree, ast.Name) and (tree.id == X or tree.id in operands):
        return Input(tree.id)
    if isinstance(tree, ast.Subscript) and isinstance(tree.value, ast.Name) and tree.value.id not in operands:
        index = ast.unparse(tree.slice)
        return Input(tree.value.id, index[1:-1] if isinstance(tree.slice, ast.Tuple) else index)
    number = tree.operand if isinstance(tree, ast.UnaryOp) and isinstance(tree.op, ast.USub) else tree
    if isinstance(number, ast.Constant) and isinstance(number.value, int | float):
        return Literal(number.value if number is tree else -number.value)
    if isinstance(tree, ast.Constant) and (
        tree.value is None or (isinstance(tree.value, str) and tree.value.isidentifier())
    ):
        return Literal(tree.value)
    raise _refusal(
        "KR108",
        f"`{ast.unparse(tree)}` is neither x, an operand nor a constant, and a Triton function is called with these alone",
        tree,
        "compute it inside the function, and declare operands with `--operand NAME=KIND`",
    )


def _operand(value: Input, operands: Mapping[str, Operand]) -> Operand:
    return Operand(value.name, OperandKind.INDEXED, "", value.index) if value.index else operands[value.name]


def _refusal(code: str, message: str, tree: ast.expr, help: str) -> FusionRefused:
    return FusionRefused((Diagnostic(code, message, (Label(Span.of(EPILOGUE_FILE, tree)),), help=help),))


def inputs_of(call: TritonCall, x: str, operands: Mapping[str, str]) -> dict[str, str]:
    """The texts of x and of every operand, by the keys that `TritonCall.text` wants; `operands` by key or name."""
    texts = {key: operands.get(key, operands.get(key.partition("[")[0], "")) for key in map(key_of, call.operands)}
    return {X: x, **texts}
