"""OPS: one row per op. All that the tool knows about an op stands in its row."""

from __future__ import annotations

from collections.abc import Mapping

from kernel_rewrite.pointwise.element_types import ANY
from kernel_rewrite.pointwise.op import ArgumentKind, Op, Parameter, Result
from kernel_rewrite.pointwise.several import SEVERAL
from kernel_rewrite.pointwise.unary import UNARY

_CAST = Op(
    "to",
    "",
    "x as another type: see the casts",
    inline="{x}.to({dtype})",
    result=Result.ARGUMENT,
    parameters=(Parameter("dtype", kind=ArgumentKind.DTYPE),),
    classes=ANY,
    nan="stays NaN in a float type",
    source="c10/util/Float8_e4m3fn.h, Float8_e5m2.h, TypeCast.h",
)

_ROWS = (*UNARY, _CAST, *SEVERAL)

OPS: Mapping[str, Op] = {row.name: row for row in _ROWS}
ALIASES: Mapping[str, str] = {alias: row.name for row in _ROWS for alias in row.aliases}
