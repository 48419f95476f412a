"""The element type that a cast epilogue gives an output, and how the one that it has without can be spelled in the kernel.

The kernel's own arithmetic keeps the type that the output had: a stored value is rounded to it before the epilogue, and what
the body does with it (`acc.to(c_ptr.dtype.element_ty)`) goes on meaning it. So it must be known without the output's pointer.
"""

from __future__ import annotations

from dataclasses import dataclass

from kernel_rewrite.analysis import Analysis
from kernel_rewrite.model import Specialization
from kernel_rewrite.pointwise.element_types import torch_name, triton_name
from kernel_rewrite.pointwise.language import Epilogue
from kernel_rewrite.probes import certain_element_type
from kernel_rewrite.request import OutputRequest, element_type_of
from kernel_rewrite.source.freshness import allocated_like
from kernel_rewrite.source.signatures import TRITON_TYPES


def element_types_of(analysis: Analysis, buffer: str) -> frozenset[str]:
    """The element types ("fp32", "i8", ...) that a buffer is lowered with."""
    found = {element_type_of(view.specialization, buffer) for view in analysis.views}
    return frozenset(found - {""})


def new_element_type(analysis: Analysis, output: str, pointwise: Epilogue) -> str:
    """torch's name of the one type that the epilogue gives the output in every specialization; "" when that is the type that
    it has, or no one type (which `checks` refuses)."""
    results, held = set(), set()
    for element in element_types_of(analysis, output):
        if pointwise.undefined_reason(element):
            return ""
        results.add(pointwise.result_dtype(element))
        held.add(torch_name(element) or element)
    return results.pop() if len(results) == 1 and results != held else ""


def changes(analysis: Analysis, request: OutputRequest) -> str:
    """`new_element_type` of what is requested."""
    return new_element_type(analysis, request.output, request.pointwise)


def short_name(dtype: str) -> str:
    """The name of a torch type in a signature: `float8_e4m3fn` -> "fp8e4nv"."""
    return TRITON_TYPES[triton_name(dtype)]


@dataclass(frozen=True, slots=True)
class HeldType:
    """The element type of an output, without its pointer: of `literal` ("float16"), or that of the parameter `like`."""

    literal: str = ""
    like: str = ""
    descriptor: bool = False

    def text(self, tl: str) -> str:
        """The expression for it, where triton.language is called `tl`."""
        if self.literal:
            return f"{tl}.{self.literal}"
        return f"{self.like}.dtype" if self.descriptor else f"{self.like}.dtype.element_ty"

    def holds_in(self, specialization: Specialization, output: str) -> bool:
        """Whether the output has this type in a specialization."""
        element = element_type_of(specialization, output)
        return element == (TRITON_TYPES[self.literal] if self.literal else element_type_of(specialization, self.like))


def held_type(analysis: Analysis, output: str) -> HeldType | None:
    """The element type that the file says `output` has: one for all launches, or that of another parameter, which every
    launch of the file allocates it like; None when it says neither."""
    literal = certain_element_type(analysis, output)
    if literal:
        return HeldType(literal)
    if not analysis.launches:
        return None
    found = [frozenset(allocated_like(launch, output)) for launch in analysis.launches]
    for name in analysis.kernel_parameters:
        kind = next((fact.kind for fact in analysis.facts if fact.name == name), "")
        held = HeldType(like=name, descriptor=kind == "descriptor")
        if kind in ("pointer", "descriptor") and all(name in names for names in found):
            if all(held.holds_in(view.specialization, output) for view in analysis.views):
                return held
    return None
