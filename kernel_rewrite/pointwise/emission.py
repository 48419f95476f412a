"""From an epilogue to what stands in the user's file: the stored expression, and the helpers it calls."""

from __future__ import annotations

import ast
import itertools
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace

from kernel_rewrite.pointwise.calls import TritonCall, inputs_of
from kernel_rewrite.pointwise.casts import CASTS
from kernel_rewrite.pointwise.composition import (
    LIBDEVICE,
    ROUNDED,
    TL,
    WIDENED,
    Composition,
    Helper,
    compose,
    substituted,
)
from kernel_rewrite.pointwise.element_types import FLOAT_ONLY
from kernel_rewrite.pointwise.function import Pointwise
from kernel_rewrite.pointwise.graph import Apply, Input, X
from kernel_rewrite.pointwise.op import NAN, ArgumentKind, Op
from kernel_rewrite.pointwise.ops import OPS
from kernel_rewrite.pointwise.torch_side import literal_text, torch_text

Epilogue = Pointwise | TritonCall
"""What may stand at a store: an expression of the language, or a call of a Triton function of the user's."""

_LONGEST_INLINE = 72


@dataclass(frozen=True, slots=True)
class HelperSource:
    """A helper function to stand above the kernel: its name and its whole text, decorator first, newline last."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Emission:
    """What to write: the stored expression, and the helpers it calls, in order. `has_result_type`: the expression has
    torch's result type for every type of x; else the store's own conversion to that type is part of the meaning."""

    expression: str
    helpers: tuple[HelperSource, ...]
    needs_libdevice: bool
    has_result_type: bool = True


def emit(
    pointwise: Epilogue,
    value: str,
    operands: Mapping[str, str] | None = None,
    *,
    tl: str = "tl",
    libdevice: str = "libdevice",
    jit: str = "triton.jit",
    taken_names: Collection[str] = (),
    value_may_be_product: bool = False,
    settled: bool = False,
    apart: bool = False,
    known: Mapping[str, str] = {},
) -> Emission:
    """Triton source for E(value).

    `value` is the text of the stored value, any expression, already of the buffer's element type unless
    `pointwise.commutes_with_rounding`; `operands` maps each operand, by key or name, to the text of its loaded value.
    `tl`, `libdevice` and `jit` are the file's own spellings of triton.language, triton.language.extra.libdevice and
    triton.jit. A helper takes a name outside `taken_names`, or is the one of `known` (name: text) that has its very text.
    `value_may_be_product`: the stored value may end in a
    product, which a sum must not swallow. `settled`: what is written has torch's result type by itself, for a place that
    converts nothing; `apart`: it is no product that a sum behind it could swallow.

    A short expression that mentions everything once stands in the store; another one becomes a function of its own.
    """
    writer = _Writer(tl, libdevice, jit, frozenset(taken_names), known)
    texts = operands or {}
    if isinstance(pointwise, TritonCall):
        x = writer.rounded(value) if value_may_be_product else value
        if pointwise.inlined is not None:
            pointwise = replace(pointwise, function=writer.defined(pointwise))
        return writer.emission(pointwise.text(inputs_of(pointwise, x, texts)), False)
    inline = compose(pointwise.result, pointwise.operands, value_may_be_product, False, apart)
    given = {name: _text_of(key, texts) for key, name in inline.parameters.items()}
    if _stands_in_place(pointwise, inline) and (inline.settled or not settled):
        places = {X: _parsed(value), **{name: _parsed(text) for name, text in given.items()}}
        expression = writer.expression(inline.tree, inline, places)
        return writer.emission(expression, inline.settled)
    whole = compose(pointwise.result, pointwise.operands, value_may_be_product, True, apart)
    name = writer.function(pointwise, whole)
    arguments = [_parsed(text) for text in (value, *given.values())]
    call = ast.Call(ast.Name(name, ast.Load()), arguments, [])
    return writer.emission(_printed(call), True)


def _stands_in_place(pointwise: Pointwise, inline: Composition) -> bool:
    """Short, or calls within calls; and nothing is mentioned twice."""
    once = all(count <= 1 for count in inline.uses.values())
    return once and not inline.statements and (pointwise.is_chain or len(_printed(inline.tree)) <= _LONGEST_INLINE)


def _text_of(key: str, texts: Mapping[str, str]) -> str:
    return texts[key] if key in texts else texts[key.partition("[")[0]]


def _parsed(text: str) -> ast.expr:
    return ast.parse(text, mode="eval").body


def _printed(tree: ast.expr) -> str:
    return ast.unparse(ast.fix_missing_locations(ast.Expression(tree))).replace("'", '"')


class _Writer:
    """Collects the helpers of one emission."""

    def __init__(self, tl: str, libdevice: str, jit: str, taken: frozenset[str], known: Mapping[str, str]) -> None:
        self._tl, self._libdevice, self._jit, self._taken, self._known = tl, libdevice, jit, taken, known
        self._helpers: dict[Helper | None, HelperSource] = {}
        self._uses_libdevice = False

    def emission(self, expression: str, settled: bool) -> Emission:
        return Emission(expression, tuple(self._helpers.values()), self._uses_libdevice, settled)

    def expression(self, tree: ast.expr, composition: Composition, places: Mapping[str, ast.expr]) -> str:
        """The text of a tree of the composition, with the file's own names and `places` for the inputs."""
        trees = {TL: _parsed(self._tl)}
        trees |= {LIBDEVICE: _parsed(self._libdevice)} if self._libdevice else {}  # a file without it needs none
        trees |= {helper.placeholder: _parsed(self._helper(helper)) for helper in composition.helpers}
        self._uses_libdevice |= LIBDEVICE in ast.unparse(ast.fix_missing_locations(ast.Expression(tree)))
        return _printed(substituted(tree, trees | dict(places)))

    def function(self, pointwise: Pointwise, whole: Composition) -> str:
        """Write the whole epilogue as one function; its name."""
        lines = [f"{name} = {self.expression(tree, whole, {})}" for name, tree in whole.statements]
        lines.append(f"return {self.expression(whole.tree, whole, {})}")
        parameters = ", ".join([X, *whole.parameters.values()])
        check = _type_check(f"`{pointwise.name}`", self._tl) if whole.floats_alone and whole.types else []
        body = [f'"""{pointwise.torch_text()}."""', *check, *lines]
        self._helpers[None] = self._named(pointwise.name, lambda name: self._text(name, parameters, body))
        return self._helpers[None].name

    def defined(self, call: TritonCall) -> str:
        """Write the function that a kernel of the user's was turned into; its name."""
        assert call.inlined is not None
        taken = self._taken | call.inlined.names | {helper.name for helper in self._helpers.values()}
        choices = itertools.chain([call.function], (f"{call.function}_of_x{'_' * n}" for n in itertools.count()))
        name = next(choice for choice in choices if choice not in taken)
        self._helpers[None] = HelperSource(name, f"@{self._jit}\ndef {name}{call.inlined.definition}")
        return name

    def rounded(self, value: str) -> str:
        """The text of `value`, whose rounding a sum that follows cannot swallow."""
        return f"{self._helper(Helper(ROUNDED))}({value})"

    def _helper(self, helper: Helper) -> str:
        if helper not in self._helpers:
            baked = "_".join(value for _, value in helper.baked)
            plain = helper.op if helper.op in _PLAIN else OPS[helper.op].helper_name
            wanted = f"{plain}_{baked}" if baked else plain
            self._helpers[helper] = self._named(wanted, lambda name: self._helper_text(helper, name))
        return self._helpers[helper].name

    def _named(self, wanted: str, text: Callable[[str], str]) -> HelperSource:
        """The helper under `gelu`, or `torch_gelu`, `torch_gelu_2`, ... when the file has another `gelu`."""
        taken = self._taken | {helper.name for helper in self._helpers.values()}
        more = (f"torch_{wanted}_{count}" for count in itertools.count(2))
        for name in itertools.chain([wanted, f"torch_{wanted}"], more):
            if name not in taken or (name in self._known and self._known[name] == text(name)):
                return HelperSource(name, text(name))
        raise AssertionError("names never end")

    def _helper_text(self, helper: Helper, name: str) -> str:
        if helper.op in _PLAIN:
            return self._text(name, X, [line.format(tl=self._tl) for line in _PLAIN[helper.op]])
        if helper.op == "to":
            return self._text(name, X, _cast_lines(dict(helper.baked)["dtype"], self._tl))
        row = OPS[helper.op]
        self._uses_libdevice |= row.needs_libdevice
        baked = dict(helper.baked)
        passed = [p.name for p in row.parameters if p.kind is ArgumentKind.NUMBER]
        fields = {name: name for name in row.operands} | baked
        lines = (row.steps or row.inline).format(tl=self._tl, libdevice=self._libdevice, **fields).splitlines()
        parameters = ", ".join([*row.operands, *(f"{parameter}: {self._tl}.constexpr" for parameter in passed)])
        check = [] if row.classes != FLOAT_ONLY else _type_check(row.name, self._tl)
        return self._text(name, parameters, [*_docstring(row, passed), *check, *lines[:-1], *_return(lines[-1])])

    def _text(self, name: str, parameters: str, body: list[str]) -> str:
        lines = [f"@{self._jit}", f"def {name}({parameters}):", *(f"    {line}".rstrip() for line in body)]
        return "\n".join(lines) + "\n"


_PLAIN: Mapping[str, tuple[str, ...]] = {
    WIDENED: (
        '"""x in the type torch computes in: float32 for a 16-bit float."""',
        "return x.to({tl}.float32) if x.dtype.is_floating() and x.dtype.primitive_bitwidth < 32 else x",
    ),
    # Shorter spellings (x + 0.0, a select between equal values) are folded away in squares and in products with a bool.
    ROUNDED: (
        '"""x itself. A sum that follows cannot swallow the rounding of the product that x is (as one FMA)."""',
        "result = x",
        "if x.dtype.is_floating():",
        "    below = {tl}.minimum(x, 0.0, " + NAN + ")",
        "    above = {tl}.maximum(x, 0.0, " + NAN + ")",
        "    result = {tl}.where(x <= 0.0, below, above).to(x.dtype)",
        "return result",
    ),
}


def _cast_lines(dtype: str, tl: str) -> list[str]:
    row = CASTS[dtype]
    lines = row.steps.format(tl=tl).splitlines()
    return [f'"""x.to(torch.{dtype}).', "", f"{row.formula}.", '"""', *lines[:-1], f"return {lines[-1]}"]


def _docstring(row: Op, passed: list[str]) -> list[str]:
    keywords = [f"{p.torch_name or p.name}={p.name}" for p in row.parameters if p.name in passed]
    keywords += [f"{name}={literal_text(value)}" for name, value in row.fixed]
    operands = [Input(name) for name in row.operands]
    infix = len(operands) > 1 and row.infix
    call = (
        torch_text(Apply(row.name, tuple(operands)))
        if infix
        else f"{row.torch}({', '.join([*row.operands, *keywords])})"
    )
    notes = [f"{row.formula}."]
    if "wide = " in row.steps:
        notes.append(f"A 16-bit x is computed in float32 and rounded {'after every step' if row.stepwise else 'once'}.")
    return [f'"""{call}.', "", *notes, '"""']


def _type_check(name: str, tl: str) -> list[str]:
    return [f'{tl}.static_assert(x.dtype.is_floating(), "{name} is defined for floating-point types")']


def _return(last: str) -> list[str]:
    """The closing lines of a helper: the value of `last` in the type of x."""
    tree = _parsed(last)
    if isinstance(tree, ast.IfExp):
        return [f"result = {last}", "return result.to(x.dtype)"]
    if last.endswith(".to(x.dtype)") and isinstance(tree, ast.Call):
        return [f"return {last}"]
    closed = isinstance(tree, ast.Call | ast.Name | ast.Attribute)
    return [f"return {last}.to(x.dtype)" if closed else f"return ({last}).to(x.dtype)"]
