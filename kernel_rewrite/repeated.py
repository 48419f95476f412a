"""A prologue that computes the same again for many tiles: right, and often slower than the op before the kernel."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from kernel_rewrite.analysis import Analysis, View
from kernel_rewrite.diagnostics import Diagnostic, Label, Severity
from kernel_rewrite.model import ANYWHERE, MemoryAccess, MemoryEffect, Span
from kernel_rewrite.pointwise.element_types import BITS, torch_name
from kernel_rewrite.pointwise.language import applications
from kernel_rewrite.request import InputRequest
from kernel_rewrite.source.grids import programs_along
from kernel_rewrite.ttir.rereads import Coordinate, Place, Reread, rereads


def repeated_work(analysis: Analysis, requests: Iterable[InputRequest]) -> tuple[Diagnostic, ...]:
    """KR404, a note, for each input whose loads feed a matrix product and get the same elements for many tiles."""
    found = ((request, _rereads(analysis, request.input)) for request in requests if _computes(request))
    return tuple(_note(analysis, request, repeated) for request, repeated in found if repeated)


def _computes(request: InputRequest) -> bool:
    return next(applications(request.pointwise.result), None) is not None


def _rereads(analysis: Analysis, input: str) -> dict[Span, Reread]:
    """By the call that loads: how it gets the same elements again, in the first specialization that has it."""
    found: dict[Span, Reread] = {}
    seen: set[Place] = set()
    for view in analysis.views:
        places = {_place(a) for a in view.accesses if a.effect is MemoryEffect.READ and input in a.roots}
        if places <= seen:
            continue
        seen |= places
        for reread in rereads(view.module, places, _changing(view)):
            operation, location, _ = reread.load
            span = analysis.span_of(location, operation) if location is not None else None
            if span is not None:
                found.setdefault(span, reread)
    return dict(sorted(found.items()))


def _place(access: MemoryAccess) -> Place:
    return access.operation, access.location, access.call_path


def _changing(view: View) -> set[Place]:
    """The loads of what the kernel may write as well."""
    written = {root for a in view.accesses if a.effect is not MemoryEffect.READ for root in a.roots}
    return {_place(a) for a in view.accesses if a.effect is MemoryEffect.READ and a.roots & {*written, ANYWHERE}}


def _note(analysis: Analysis, request: InputRequest, repeated: dict[Span, Reread]) -> Diagnostic:
    spans = list(repeated)
    first = repeated[spans[0]]
    labels = [Label(spans[0], f"these elements are loaded again {_again(first.again)}")]
    labels += [Label(span, "and here") for span in spans[1:]]
    stores = (analysis.span_of(place[1], place[0]) for place in first.stores if place[1] is not None)
    label = next((Label(span, "the place of this store depends on it") for span in stores if span is not None), None)
    return Diagnostic(
        "KR404",
        f"{request.pointwise.name} of `{request.input}` is computed again {_again(first.again)}",
        (*labels, *([label] if label is not None else [])),
        (_each_time(first, request), *_counts(analysis, first.again)),
        "keep the prologue where reading the input takes the time; where the product does, apply the op before the kernel, "
        "once for each element",
        Severity.NOTE,
    )


def _again(coordinates: Sequence[Coordinate]) -> str:
    """By each program along axis 1 and for each value of `pid_m`."""
    axes = [c.axis for c in coordinates if c.axis is not None]
    names = dict.fromkeys(c.name for c in coordinates if c.axis is None)
    said = [f"by each program along axis {' and '.join(map(str, axes))}"] if axes else []
    said += [f"for each value of `{name}`" if name else "for each tile" for name in names]
    return " and ".join(said)


def _each_time(reread: Reread, request: InputRequest) -> str:
    """Each time 64 x 256 elements (32 KiB) are read and 2 ops are computed of each, in every round of a loop."""
    ops = sum(1 for _ in applications(request.pointwise.result))
    size = math.prod(reread.shape) * BITS[request.holds or torch_name(reread.element) or reread.element] // 8
    amount = f"{size / 1024:g} KiB" if size >= 1024 else f"{size} bytes"
    computed = "1 op is" if ops == 1 else f"{ops} ops are"
    where = ", in every round of a loop" if reread.in_loop else ""
    shape = " x ".join(map(str, reread.shape))
    return f"each time {shape} elements ({amount}) are read and {computed} computed of each{where}"


def _counts(analysis: Analysis, coordinates: Sequence[Coordinate]) -> list[str]:
    """The launch at line 48 has `triton.cdiv(N, 32)` programs along axis 1."""
    said = []
    for launch in analysis.launches:
        for axis in (c.axis for c in coordinates if c.axis is not None):
            count = programs_along(launch, axis)
            if count:
                said.append(f"the launch at line {launch.span.line} has `{count}` programs along axis {axis}")
    return said[:3]
