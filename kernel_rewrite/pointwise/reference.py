"""An op on its own, in a kernel that nothing was rewritten in: what translation validation compares with."""

from __future__ import annotations

from kernel_rewrite.pointwise.language import Pointwise, emit

_TEMPLATE = """\
import triton
import triton.language as tl
from triton.language.extra import libdevice

{helpers}
@triton.jit
def epilogue_alone(x):
    return ({expression}).to(x.dtype)


@triton.jit
def reference():
    epilogue_alone(tl.full({shape}, 0, tl.{dtype}))
"""


def reference_source(pointwise: Pointwise, shape: tuple[int, ...], dtype: str) -> str:
    """A file whose kernel `reference` calls E(x), rounded to x's type, for x of `shape` and `dtype` ("float16")."""
    emission = emit(pointwise, "x", taken_names={"epilogue_alone", "reference", "triton", "tl", "libdevice", "x"})
    helpers = "".join(helper.text + "\n\n" for helper in emission.helpers)
    return _TEMPLATE.format(helpers=helpers, expression=emission.expression, shape=list(shape), dtype=dtype)
