"""Annotations of a function's parameters: `def epilogue(x, bias: Row, residual: Tile)`."""

from __future__ import annotations

from collections.abc import Mapping

from kernel_rewrite.model import OperandKind


class Row:
    """One value for each column of the output."""


class Column:
    """One value for each row of the output."""


class Tile:
    """One value for each element of the output."""


class Scalar:
    """A Python number at launch."""


KINDS: Mapping[str, OperandKind] = {
    "Row": OperandKind.ROW,
    "Column": OperandKind.COLUMN,
    "Tile": OperandKind.TILE,
    "Scalar": OperandKind.SCALAR,
}
"""The operand kind of each annotation, by its name."""
