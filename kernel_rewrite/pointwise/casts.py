"""`to(dtype)`: one row for each element type that an epilogue can cast to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kernel_rewrite.pointwise.element_types import FLOAT8, is_float

SAME = "x.dtype"
"""The argument of `to` that means the type of x."""


@dataclass(frozen=True, slots=True)
class Cast:
    """A cast to `dtype`, spelled `inline` or by a helper with the body `steps`. `refused` maps a source type to why
    Triton would give other bits than torch. `differs`: inputs for which CUDA's result is not the CPU's."""

    dtype: str
    formula: str
    inline: str = ""
    steps: str = ""
    refused: Mapping[str, str] | None = None
    differs: str = ""


_TWO_STEPS = "torch rounds a {0} to {1} in two steps, Triton in one: write `.to(float32).to({1})`"


def _narrow(dtype: str, *sources: str) -> Cast:
    refused = {source: _TWO_STEPS.format(source, dtype) for source in sources}
    return Cast(dtype, "rounded to nearest, ties to even", f"{{x}}.to({{tl}}.{dtype})", refused=refused)


def _integer(dtype: str) -> Cast:
    """A small integer goes through int32, so that what does not fit wraps instead of being undefined."""
    through = f"{{x}}.to({{tl}}.int32).to({{tl}}.{dtype})" if dtype in ("int8", "uint8", "int16") else ""
    return Cast(
        dtype,
        "cut towards zero",
        through or f"{{x}}.to({{tl}}.{dtype})",
        differs="NaN, infinities and floats outside the type: C++ leaves them undefined, and the CPU's answer is another",
    )


CASTS: Mapping[str, Cast] = {
    row.dtype: row
    for row in (
        Cast("float64", "exact from any float", "{x}.to({tl}.float64)"),
        Cast("float32", "rounded to nearest, ties to even", "{x}.to({tl}.float32)"),
        _narrow("float16", "float64"),
        _narrow("bfloat16", "float64", "int32", "int64"),
        Cast(
            "float8_e4m3fn",
            "rounded to nearest, ties to even; 448 for what is above it",
            "{x}.to({tl}.float32).to({tl}.float8e4nv)",
            refused={"float64": _TWO_STEPS.format("float64", "float8_e4m3fn")},
            differs="values above 464 and infinities: NaN in torch before 2.13, 448 since; clamp to it for both",
        ),
        Cast(
            "float8_e5m2",
            "rounded to nearest, ties to even; infinity from 61440 on, where the GPU's instruction would give 57344",
            steps="wide = x.to({tl}.float32)\n"
            "bits = wide.to({tl}.float8e5).to({tl}.uint8, bitcast=True)\n"
            "infinity = {tl}.where(wide < 0.0, 252, 124).to({tl}.uint8)\n"
            "{tl}.where({tl}.abs(wide) >= 61440.0, infinity, bits).to({tl}.float8e5, bitcast=True)",
            refused={"float64": _TWO_STEPS.format("float64", "float8_e5m2")},
        ),
        *(_integer(name) for name in ("int8", "uint8", "int16", "int32", "int64")),
        Cast("bool", "x != 0", "{x} != 0"),
    )
}


def refusal(source: str, target: str) -> str:
    """Why a cast from one torch type to another is not spelled, "" when it is."""
    if source == target:
        return ""
    if source in FLOAT8 and not (is_float(target) and target not in FLOAT8):
        return f"write `.to(float32)` first: Triton casts {source} to the wider floats alone"
    return (CASTS[target].refused or {}).get(source, "")
