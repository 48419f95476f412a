"""The read-only verdict: the input is only ever loaded from, in every specialization, or why that is not proved."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from kernel_rewrite.diagnostics import Diagnostic, Label
from kernel_rewrite.model import ANYWHERE, Span
from kernel_rewrite.ttir.verdicts import (
    Accesses,
    Reason,
    Seen,
    SpanOf,
    all_seen,
    is_read,
    is_unknown,
    is_write,
    reaches,
    reasons_found,
    unique,
)


@dataclass(frozen=True, slots=True)
class ReadOnlyVerdict:
    """`ok`: in every specialization given, `input` is only loaded from, by the calls in `loads`, none of which may load
    from another buffer instead. Otherwise `diagnostics` has every reason why that is not proved."""

    input: str
    loads: tuple[Span, ...]
    diagnostics: tuple[Diagnostic, ...]

    @property
    def ok(self) -> bool:
        return not self.diagnostics


LOADS = frozenset({"tt.load", "tt.descriptor_load"})
"""The reads whose value can be rewritten where it is loaded, element by element, in the order of memory."""


REASONS: tuple[Reason, ...] = (
    Reason(
        "KR221",
        lambda seen, name: is_write(seen) and reaches(seen, name),
        "`{o}` is written by this kernel, so what it loads are not only its input's values",
        "`{o}` is written here",
        "apply the op before the kernel, or store to a buffer of its own",
    ),
    Reason(
        "KR222",
        lambda seen, name: is_unknown(seen) and (reaches(seen, name) or reaches(seen, ANYWHERE)),
        "`{o}` reaches an operation whose effect on memory is not known",
        "{reason}",
        "keep the pointer of `{o}` to loads and pointer arithmetic",
    ),
    Reason(
        "KR223",
        lambda seen, name: not is_unknown(seen) and reaches(seen, ANYWHERE),
        "the kernel accesses memory through a pointer that is not an argument and may point into `{o}`",
        "this pointer does not come from an argument",
        "pass the buffer that is accessed here as an argument of its own",
    ),
    Reason(
        "KR224",
        lambda seen, name: is_read(seen) and reaches(seen, name) and bool(seen.others - {name}),
        "the load call that reads `{o}` also reads {others}, which must stay as it is",
        "this call loads from {others} as well",
        "give each buffer a load call of its own",
        alone=True,
    ),
    Reason(
        "KR225",
        lambda seen, name: (
            is_read(seen)
            and reaches(seen, name)
            and (seen.access.operation not in LOADS or seen.access.bitcast_pointer)
        ),
        "`{o}` is read in a way that does not give its values one by one",
        "read here by {operation}",
        "load it with `tl.load` through a pointer to its own element type, or apply the op before the kernel",
    ),
)
"""Every reason to refuse an input that is read; all run, all are reported."""


def read_only(input: str, accesses: Accesses, span_of: SpanOf) -> ReadOnlyVerdict:
    """Judges whether `input` (a root: "b_ptr", or "ins[0]" for an element of a tuple) is only loaded from."""
    seen, count = all_seen(accesses, span_of)
    touching = [s for s in seen if reaches(s, input)]
    loads = [s for s in touching if is_read(s)]
    if not loads:
        elements = {root for s in seen if is_read(s) for root in s.access.roots if root.startswith(f"{input}[")}
        return ReadOnlyVerdict(input, (), (_never_read(input, touching, elements),))
    diagnostics = reasons_found(REASONS, input, seen, loads, f"`{input}` is loaded here", count, span_of)
    return ReadOnlyVerdict(input, unique(s.site for s in loads), tuple(diagnostics))


def _never_read(input: str, touching: Sequence[Seen], elements: Collection[str]) -> Diagnostic:
    if elements:
        names = " or ".join(f"`{name}`" for name in sorted(elements))
        message = f"`{input}` is a tuple, of which the kernel reads elements"
        return Diagnostic("KR220", message, help=f"name one of them: {names}")
    labels = tuple(Label(s.site, f"`{input}` is only written here") for s in touching[:1])
    return Diagnostic(
        "KR220", f"the kernel does not read `{input}`", labels, help="name a parameter that the kernel loads from"
    )
