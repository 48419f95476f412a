"""What the stores of an output look like when the element types that were only inferred are other ones.

A value may have its buffer's type by construction (`acc.to(c_ptr.dtype.element_ty)`) or only for the types that were
inferred. Lowering with other types tells which: a fused kernel must round as the unfused pair does for all of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from kernel_rewrite.analysis import Analysis, View, view_of
from kernel_rewrite.model import Evidence, MemoryAccess, ParameterFact, Specialization
from kernel_rewrite.source.freshness import allocated_dtype
from kernel_rewrite.source.signatures import DTYPE_NAMES, FLOAT_TYPES
from kernel_rewrite.ttir.lower import Lowered

_CERTAIN = (Evidence.OVERRIDE, Evidence.ALLOCATION, Evidence.ANNOTATION, Evidence.LAUNCH)


@dataclass(frozen=True, slots=True)
class Probed:
    """The stores to one output under other types, whether an integer may be stored to it, and the views under other
    float types."""

    accesses: tuple[MemoryAccess, ...] = ()
    may_store_integers: bool = False
    views: tuple[View, ...] = ()


def is_certain(fact: ParameterFact) -> bool:
    """Whether the file says what the elements are, rather than the body suggesting it."""
    return fact.evidence in _CERTAIN and fact.detail != "weak" and not fact.detail.startswith("same as")


def certain_element_type(analysis: Analysis, output: str) -> str:
    """The one element type ("float16") that the file says `output` has; "" when it says none, or several."""
    fact = next((f for f in analysis.facts if f.name == output), None)
    kinds = {str(view.specialization.type_of(output)) for view in analysis.views}
    if fact is None or not is_certain(fact) or len(kinds) != 1:
        return ""
    element = DTYPE_NAMES.get(kinds.pop().removeprefix("*"), "")
    made = {allocated_dtype(launch, output) for launch in analysis.launches}
    return element if fact.evidence is Evidence.OVERRIDE or made == {element} else ""


def probe_stores(analysis: Analysis, output: str) -> Probed:
    """Lower one view for each store of `output` under other types. Combinations that Triton rejects cannot be launched
    and say nothing; one that crashes it counts as a conversion."""
    key = ("probed", output)
    if key not in analysis.memory:
        analysis.memory[key] = _probe(analysis, output)
    found = analysis.memory[key]
    assert isinstance(found, Probed)
    return found


def _probe(analysis: Analysis, output: str) -> Probed:
    found: list[MemoryAccess] = []
    views: list[View] = []
    integers = False
    for view in _covering(analysis, output):
        for specialization, is_integer in _other_types(analysis, view, output.split("[")[0]):
            texts = analysis.project.sources()
            result = next(analysis.compiler.lower(analysis.closure, texts, [specialization], analysis.target))
            if isinstance(result, Lowered):
                probed = view_of(result)
                stores = [a for a in probed.accesses if a.roots == {output}]
                found += stores
                views += [] if is_integer else [probed]
                integers |= is_integer and any(a.value_type.startswith("i") for a in stores)
            elif result.kind != "rejected":
                found += [replace(a, implicit_cast="unknown") for a in view.accesses if a.roots == {output}]
    return Probed(tuple(found), integers, tuple(views))


def _covering(analysis: Analysis, output: str) -> Iterator[View]:
    """Few views that have every store to `output` between them."""
    missing = set(analysis.write_only(output).stores)
    for view in analysis.views:
        here = {analysis.span_of(a.location, a.operation) for a in view.accesses if a.roots == {output}}
        if missing & here:
            missing -= here
            yield view


def _other_types(analysis: Analysis, view: View, output: str) -> Iterator[tuple[Specialization, bool]]:
    """Specializations with other types where they were inferred: of the output, of everything else, and integers."""
    uncertain = {}
    for fact in analysis.facts:
        kind = view.specialization.type_of(fact.name)
        if isinstance(kind, str) and kind.startswith("*") and kind[1:] in FLOAT_TYPES and not is_certain(fact):
            uncertain[fact.name] = kind
    others = {name: _other_float(kind) for name, kind in uncertain.items() if name != output}
    if output in uncertain:
        yield view.specialization.with_types(**{output: _other_float(uncertain[output])}), False
    if others:
        yield view.specialization.with_types(**others), False
        yield view.specialization.with_types(**dict.fromkeys(others, "*i32")), True


def _other_float(kind: str) -> str:
    return "*fp32" if kind in ("*fp16", "*bf16") else "*fp16"
