"""The write-only verdict: the output is only ever stored to, in every specialization, or why that is not proved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kernel_rewrite.diagnostics import Diagnostic, Label
from kernel_rewrite.model import ANYWHERE, MemoryAccess, Span
from kernel_rewrite.ttir.verdicts import (
    Accesses,
    Reason,
    Seen,
    SpanOf,
    all_seen,
    is_atomic,
    is_read,
    is_store,
    is_unknown,
    is_write,
    reaches,
    reasons_found,
    unique,
)


@dataclass(frozen=True, slots=True)
class WriteOnlyVerdict:
    """`ok`: in every specialization given, `output` is only stored to, by the calls in `stores`, none of which may
    store elsewhere instead (reached by another call of the same helper, it may). Otherwise `diagnostics` has every
    reason why that is not proved."""

    output: str
    stores: tuple[Span, ...]
    store_accesses: tuple[MemoryAccess, ...]
    diagnostics: tuple[Diagnostic, ...]

    @property
    def ok(self) -> bool:
        return not self.diagnostics


CHECKS: tuple[Reason, ...] = (
    Reason(
        "KR201",
        lambda seen, output: is_read(seen) and reaches(seen, output),
        "`{o}` is read by this kernel, so the values it stores cannot be changed",
        "`{o}` is read here",
        "store the result to a buffer that the kernel does not read, or apply the op after the kernel",
    ),
    Reason(
        "KR202",
        lambda seen, output: is_atomic(seen) and reaches(seen, output),
        "`{o}` is updated atomically, so no store holds its final value",
        "`{o}` is updated atomically here",
        "apply the op after the kernel, when every update is in, or leave out the configurations that use atomics",
    ),
    Reason(
        "KR203",
        lambda seen, output: is_unknown(seen) and (reaches(seen, output) or reaches(seen, ANYWHERE)),
        "`{o}` reaches an operation whose effect on memory is not known",
        "{reason}",
        "keep the pointer of `{o}` to loads, stores and pointer arithmetic",
    ),
    Reason(
        "KR204",
        lambda seen, output: is_write(seen) and reaches(seen, ANYWHERE),
        "the kernel writes through a pointer that is not an argument and may point into `{o}`",
        "this pointer does not come from an argument",
        "pass the buffer that is written here as an argument of its own",
    ),
    Reason(
        "KR205",
        lambda seen, output: is_store(seen) and reaches(seen, output) and seen.access.bitcast_pointer,
        "`{o}` is written through a pointer cast to another type, so what it stores are not its values",
        "stored through a cast pointer here",
        "store the value itself to `{o}` and let the store convert it",
    ),
    Reason(
        "KR212",
        lambda seen, output: is_store(seen) and reaches(seen, output) and bool(seen.others - {output}),
        "the store call that writes `{o}` also writes {others}, which must stay as it is",
        "this call stores to {others} as well",
        "give each buffer a store call of its own",
        alone=True,
    ),
    Reason(
        "KR214",
        lambda seen, output: is_read(seen) and reaches(seen, ANYWHERE),
        "the kernel reads through a pointer that is not an argument and may point into `{o}`",
        "this pointer does not come from an argument",
        "pass the buffer that is read here as an argument of its own",
    ),
)
"""Every reason to refuse an output that is written; all run, all are reported."""


def write_only(output: str, accesses_by_specialization: Accesses, span_of: SpanOf) -> WriteOnlyVerdict:
    """Judges whether `output` (a root: "out_ptr", or "outs[0]" for an element of a tuple) is only written."""
    seen, count = all_seen(accesses_by_specialization, span_of)
    touching = [s for s in seen if reaches(s, output)]
    stores = [s for s in touching if is_store(s)]
    if not any(not is_read(s) for s in touching):
        return WriteOnlyVerdict(output, (), (), (_never_written(output, touching),))
    diagnostics = list(reasons_found(CHECKS, output, seen, stores, f"`{output}` is stored here", count, span_of))
    if not stores and not diagnostics:
        diagnostics.append(_never_written(output, touching))
    accesses = tuple(s.access for s in stores)
    return WriteOnlyVerdict(output, unique(s.site for s in stores), accesses, tuple(diagnostics))


def _never_written(output: str, touching: Sequence[Seen]) -> Diagnostic:
    labels = tuple(Label(s.site, f"`{output}` is only read here") for s in touching[:1])
    return Diagnostic(
        "KR210",
        f"the kernel does not write `{output}`",
        labels,
        help="name a parameter that the kernel stores to",
    )
