"""What the accesses of a buffer look like when the element types that were only inferred are other ones.

A value may have its buffer's type by construction (`acc.to(c_ptr.dtype.element_ty)`) or only for the types that were
inferred. Lowering with other types tells which: a fused kernel must round as the unfused pair does for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import cast

from kernel_rewrite.analysis import Analysis, View, view_of
from kernel_rewrite.model import Evidence, ParameterFact, Span, Specialization
from kernel_rewrite.source.freshness import allocated_dtype
from kernel_rewrite.source.signatures import DTYPE_NAMES, FLOAT_TYPES
from kernel_rewrite.ttir.lower import Lowered

_CERTAIN = (Evidence.OVERRIDE, Evidence.ALLOCATION, Evidence.ANNOTATION, Evidence.LAUNCH)


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


def probe_stores(analysis: Analysis, output: str, alike: tuple[str, ...] = ()) -> tuple[View, ...]:
    """Views with other float types, where types were only inferred, that have every store of `output` between them; the
    parameters `alike` have its type.

    Combinations that Triton rejects cannot be launched and say nothing."""
    key = ("probed", output, alike)
    if key not in analysis.memory:
        types = partial(_other_floats, alike=alike)
        analysis.memory[key] = tuple(_lowered(analysis, output, types))
    return cast(tuple[View, ...], analysis.memory[key])


def probe_loads(analysis: Analysis, input: str) -> tuple[View, ...]:
    """Views with another float type for `input`, where its type was only inferred, that have every load of it between
    them."""
    key = ("probed input", input)
    if key not in analysis.memory:
        analysis.memory[key] = tuple(_lowered(analysis, input, _other_float_alone, analysis.read_only(input).loads))
    return cast(tuple[View, ...], analysis.memory[key])


def may_store_integers(analysis: Analysis, output: str) -> bool:
    """Whether the kernel also compiles with integers where nothing says what the elements are, and then stores some to
    `output`."""
    key = ("integers", output)
    if key not in analysis.memory:
        probed = _lowered(analysis, output, _integers)
        stores = (access for view in probed for access in view.accesses if access.roots == {output})
        analysis.memory[key] = any(access.value_type.startswith("i") for access in stores)
    return bool(analysis.memory[key])


OtherTypes = Callable[[Specialization, dict[str, str], str], Iterator[Specialization]]


def _lowered(
    analysis: Analysis, buffer: str, other_types: OtherTypes, sites: Iterable[Span] | None = None
) -> Iterator[View]:
    """Few views with every store to `buffer` between them, or all of `sites`, under each of their other types."""
    texts = analysis.project.sources()
    for view in _covering(analysis, buffer, analysis.write_only(buffer).stores if sites is None else sites):
        types = other_types(view.specialization, _uncertain(analysis, view), buffer.split("[")[0])
        for result in analysis.compiler.lower(analysis.closure, texts, types, analysis.target):
            if isinstance(result, Lowered):
                yield view_of(result)


def _covering(analysis: Analysis, buffer: str, sites: Iterable[Span]) -> Iterator[View]:
    """Few views that have all of `sites`, calls that access `buffer`, between them."""
    missing = set(sites)
    for view in analysis.views:
        here = {analysis.span_of(a.location, a.operation) for a in view.accesses if a.roots == {buffer}}
        if missing & here:
            missing -= here
            yield view


def _uncertain(analysis: Analysis, view: View) -> dict[str, str]:
    """The parameters of float elements whose type was only inferred, with that type."""
    kinds = {fact.name: view.specialization.type_of(fact.name) for fact in analysis.facts if not is_certain(fact)}
    return {n: k for n, k in kinds.items() if isinstance(k, str) and k.startswith("*") and k[1:] in FLOAT_TYPES}


def _other_floats(
    specialization: Specialization, uncertain: dict[str, str], output: str, alike: tuple[str, ...] = ()
) -> Iterator[Specialization]:
    """Another type for the output and those of its type, then for everything else."""
    together = (output, *alike)
    others = {name: _other_float(kind) for name, kind in uncertain.items() if name not in together}
    if all(name in uncertain for name in together):
        yield specialization.with_types(**dict.fromkeys(together, _other_float(uncertain[output])))
    if others:
        yield specialization.with_types(**others)


def _other_float_alone(
    specialization: Specialization, uncertain: dict[str, str], input: str
) -> Iterator[Specialization]:
    """Another type for the input alone."""
    if input in uncertain:
        yield specialization.with_types(**{input: _other_float(uncertain[input])})


def _integers(specialization: Specialization, uncertain: dict[str, str], output: str) -> Iterator[Specialization]:
    """Integers everywhere but in the output."""
    others = [name for name in uncertain if name != output]
    if others:
        yield specialization.with_types(**dict.fromkeys(others, "*i32"))


def _other_float(kind: str) -> str:
    return "*fp32" if kind in ("*fp16", "*bf16") else "*fp16"
