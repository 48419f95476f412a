"""Declarations of operands: `bias=row`, `residual=tile:fp32`, `scale=scalar`, `gate=tile:strided`; `bias` in
`bias[offs_n]` is declared by itself, or as `bias=indexed:fp32`."""

from __future__ import annotations

import ast
import difflib
import keyword
from collections.abc import Iterable, Iterator, Mapping

from kernel_rewrite.diagnostics import Diagnostic, FusionRefused, Label
from kernel_rewrite.model import Operand, OperandKind, Span
from kernel_rewrite.pointwise.element_types import torch_name
from kernel_rewrite.pointwise.graph import X
from kernel_rewrite.pointwise.ops import ALIASES, OPS

_KINDS = tuple(kind.value for kind in OperandKind)
_FORM = "write NAME=KIND or NAME=KIND:TYPE, with a KIND of scalar, row, column, tile, indexed or stored"

_WITHOUT_STRIDES = {
    OperandKind.SCALAR.value: "is one value",
    OperandKind.INDEXED.value: "is read at an index",
    OperandKind.STORED.value: "is what the kernel stores",
}

STRIDED = "strided"
"""Stands before the type of a row, a column or a tile that comes with its own strides: `gate=tile:strided:fp32`."""


def declared_operands(operands: Mapping[str, str | Operand] | Iterable[str]) -> dict[str, Operand]:
    """The operands that "NAME=KIND[:strided][:TYPE]" texts, or {name: "KIND[:strided][:TYPE]"}, declare, by name.

    Raises FusionRefused (KR121)."""
    found: dict[str, Operand] = {}
    for name, kind in _pairs(operands):
        operand = kind if isinstance(kind, Operand) else _operand(name, kind)
        if name in found and found[name] != operand:
            raise _refusal(f"operand `{name}` is declared twice", _FORM)
        found[name] = operand
    return found


def used_in(text: str, operands: Mapping[str, Operand]) -> dict[str, Operand]:
    """Those of `operands` that an epilogue's text names."""
    try:
        names = {node.id for node in ast.walk(ast.parse(text.strip(), mode="eval")) if isinstance(node, ast.Name)}
    except (SyntaxError, ValueError):
        return {}
    return {name: operand for name, operand in operands.items() if name in names}


def _pairs(operands: Mapping[str, str | Operand] | Iterable[str]) -> Iterator[tuple[str, str | Operand]]:
    if isinstance(operands, Mapping):
        yield from operands.items()
        return
    for text in [operands] if isinstance(operands, str) else operands:
        name, equals, kind = text.partition("=")
        if not equals:
            raise _refusal(f"`{text}` declares no operand", _FORM)
        yield name.strip(), kind.strip()


def _operand(name: str, text: str) -> Operand:
    check_name(name)
    kind, _, rest = text.partition(":")
    first, _, behind = rest.partition(":")
    strided = first.strip() == STRIDED
    type_text = behind if strided else rest
    if kind.strip() not in _KINDS:
        close = difflib.get_close_matches(kind.strip(), _KINDS, 1)
        hint = f"did you mean `{close[0]}`? " if close else ""
        raise _refusal(f"`{kind.strip()}` is no kind of operand", f"{hint}{_FORM}")
    dtype = torch_name(type_text.strip()) if type_text.strip() else ""
    if dtype is None:
        raise _refusal(f"`{type_text.strip()}` is no element type", "write fp16, bf16, fp32, fp64, int8, int32, ...")
    if dtype and kind.strip() == OperandKind.STORED.value:
        raise _refusal(f"`{name}` is what the kernel stores and has the type of that output", "leave the type out")
    if strided and kind.strip() in _WITHOUT_STRIDES:
        raise _refusal(f"`{name}` {_WITHOUT_STRIDES[kind.strip()]} and has no strides", _FORM)
    return Operand(name, OperandKind(kind.strip()), dtype, strided=strided)


def check_name(name: str, span: Span | None = None) -> None:
    """Raise FusionRefused (KR121), at `span` if given, unless an operand can have this name."""
    if not name.isidentifier() or keyword.iskeyword(name):
        raise _refusal(f"`{name}` cannot be the name of an operand", "use a Python identifier", span)
    another = "give the operand another name"
    if name == X:
        raise _refusal(f"`{X}` is the stored value and cannot be the name of an operand", another, span)
    if name in OPS or name in ALIASES:
        raise _refusal(f"`{name}` is an op and cannot be the name of an operand", another, span)


def declaration(operand: Operand) -> str:
    """`bias=row`, `residual=tile:strided:float32`: an operand as `--operand` takes it."""
    parts = (operand.kind.value, STRIDED if operand.strided else "", operand.dtype)
    return f"{operand.name}={':'.join(filter(None, parts))}"


def _refusal(message: str, help: str, span: Span | None = None) -> FusionRefused:
    return FusionRefused((Diagnostic("KR121", message, (Label(span),) if span else (), help=help),))
