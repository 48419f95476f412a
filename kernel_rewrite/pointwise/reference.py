"""An epilogue on its own, in a kernel that nothing was rewritten in: what translation validation compares with."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from kernel_rewrite.pointwise.calls import TritonCall
from kernel_rewrite.pointwise.composition import parameter_names
from kernel_rewrite.pointwise.element_types import torch_name, triton_name
from kernel_rewrite.pointwise.emission import emit
from kernel_rewrite.pointwise.function import Pointwise

_TEMPLATE = """\
import triton
import triton.language as tl
from triton.language.extra import libdevice

{helpers}
@triton.jit
def epilogue_alone({parameters}):
    return ({expression}).to({result})


@triton.jit
def reference():
    epilogue_alone({arguments})
"""


_CALL_TEMPLATE = """\
{file}

import triton as {triton}
import triton.language as {tl}

{helpers}
@{triton}.jit
def {alone}({parameters}):
    return ({expression}).to(x.dtype)


@{triton}.jit
def {reference}():
    {alone}({arguments})
"""

REFERENCE = "reference"
"""The name of the kernel in a reference to an expression."""

Given = Sequence[tuple[str, tuple[int, ...], str]]
"""The operands of a reference: (key or name, shape, Triton type); a shape broadcasts to that of x, () is a scalar's."""


@dataclass(frozen=True, slots=True)
class CallReference:
    """A file with the user's function, and the name of the kernel in it that calls it last."""

    text: str
    kernel: str


def call_reference(
    call: TritonCall,
    file: str,
    shape: tuple[int, ...],
    dtype: str,
    operands: Given,
    *,
    value_may_be_product: bool = False,
) -> CallReference:
    """The text `file`, in which the function is, with a kernel at its end that calls it as `reference_source` has it. The
    lines of the file stay where they are."""
    taken = set(re.findall(r"\w+", file)) | {"x", *(key for key, _, _ in operands)}
    names = {wanted: _fresh(f"{wanted}_of_reference", taken) for wanted in ("triton", "tl", "alone", "reference")}
    texts = {key: _fresh(f"operand_{number}", taken) for number, (key, _, _) in enumerate(operands)}
    emission = emit(
        call,
        "x",
        texts,
        tl=names["tl"],
        jit=f"{names['triton']}.jit",
        taken_names=taken,
        value_may_be_product=value_may_be_product,
    )
    text = _CALL_TEMPLATE.format(
        file=file,
        helpers="".join(helper.text + "\n\n" for helper in emission.helpers),
        parameters=", ".join(["x", *texts.values()]),
        expression=emission.expression,
        arguments=", ".join(_tensor(s, d, names["tl"]) for s, d in [(shape, dtype), *((s, d) for _, s, d in operands)]),
        **names,
    )
    return CallReference(text, names["reference"])


def _fresh(wanted: str, taken: set[str]) -> str:
    name = wanted
    while name in taken:
        name += "_"
    taken.add(name)
    return name


def reference_source(
    pointwise: Pointwise,
    shape: tuple[int, ...],
    dtype: str,
    operands: Given = (),
    *,
    value_may_be_product: bool = False,
    settled: bool = False,
    apart: bool = False,
    stored: str = "",
) -> str:
    """A file whose kernel `reference` calls last a function of x and of `operands` in that order, which is E, in
    torch's result type; or as it is stored to a buffer of `stored`, torch's name of another type than that of x.

    x has `shape` and the Triton type `dtype` ("float16"); each operand is (key or name, shape, Triton type), its shape
    one that broadcasts to x's, () for a scalar. `value_may_be_product`, `settled` and `apart` as in `emit`.
    """
    names = parameter_names(pointwise.result)
    by_name = {key.partition("[")[0]: name for key, name in names.items()}
    parameters = [names.get(key) or by_name[key] for key, _, _ in operands]
    taken = {"epilogue_alone", "reference", "triton", "tl", "libdevice", "x", *parameters}
    texts = {key: name for (key, _, _), name in zip(operands, parameters, strict=True)}
    emission = emit(
        pointwise,
        "x",
        texts,
        taken_names=taken,
        value_may_be_product=value_may_be_product,
        settled=settled,
        apart=apart,
    )
    return _TEMPLATE.format(
        helpers="".join(helper.text + "\n\n" for helper in emission.helpers),
        parameters=", ".join(["x", *parameters]),
        expression=emission.expression,
        result=_stored_text(stored) or _result_text(pointwise, dtype, {key: kind for key, _, kind in operands}),
        arguments=", ".join(_tensor(s, d) for s, d in [(shape, dtype), *((s, d) for _, s, d in operands)]),
    )


def _result_text(pointwise: Pointwise, dtype: str, operands: dict[str, str]) -> str:
    numbers = {o.name for o in pointwise.operands if o.is_number}
    given = {key: kind for key, kind in operands.items() if key not in numbers}
    result = pointwise.result_dtype(dtype, given)
    return "x.dtype" if result == torch_name(dtype) else f"tl.{triton_name(result)}"


def _stored_text(stored: str) -> str:
    """The type of what Triton writes to memory: a bool is cast to one first, and then to a byte."""
    if not stored:
        return ""
    return "tl.int1).to(tl.int8" if stored == "bool" else f"tl.{triton_name(stored)}"


def _tensor(shape: tuple[int, ...], dtype: str, tl: str = "tl") -> str:
    return f"{tl}.full({list(shape)}, 0, {tl}.{dtype})"
