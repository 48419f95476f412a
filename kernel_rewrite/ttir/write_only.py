"""The write-only verdict: the output is only ever stored to, in every specialization, or why that is not proved.

Pure: it judges the accesses that `ttir.accesses` found. A caller supplies `span_of`, because only the source knows
which call a location belongs to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from kernel_rewrite.diagnostics import Diagnostic, Label
from kernel_rewrite.model import ANYWHERE, Location, MemoryAccess, MemoryEffect, Span, Specialization

SpanOf = Callable[[Location, str], "Span | None"]
"""The span of the source call that a location belongs to. The second argument is the TTIR operation there ("tt.store",
"tt.load", ...), or "" for a step of a pointer's way. None: the location is not in the user's source."""


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


@dataclass(frozen=True, slots=True)
class _Seen:
    """One access in one specialization, and the place of the source to show for it."""

    access: MemoryAccess
    specialization: Specialization
    site: Span

    @property
    def others(self) -> frozenset[str]:
        return self.access.roots - {ANYWHERE}


@dataclass(frozen=True, slots=True)
class _Check:
    """One reason to refuse: which accesses give it, and its words (`{o}` is the output, `{others}` other buffers,
    `{reason}` the access's own reason)."""

    code: str
    applies: Callable[[_Seen, str], bool]
    message: str
    label: str
    help: str


def _effect(*effects: MemoryEffect) -> Callable[[_Seen], bool]:
    return lambda seen: seen.access.effect in effects


_is_read = _effect(MemoryEffect.READ)
_is_store = _effect(MemoryEffect.WRITE)
_is_atomic = _effect(MemoryEffect.ACCUMULATE)
_is_unknown = _effect(MemoryEffect.UNKNOWN)
_is_write = _effect(MemoryEffect.WRITE, MemoryEffect.ACCUMULATE)


def _reaches(seen: _Seen, root: str) -> bool:
    return root in seen.access.roots


CHECKS: tuple[_Check, ...] = (
    _Check(
        "KR201",
        lambda seen, output: _is_read(seen) and _reaches(seen, output),
        "`{o}` is read by this kernel, so the values it stores cannot be changed",
        "`{o}` is read here",
        "store the result to a buffer that the kernel does not read, or apply the op after the kernel",
    ),
    _Check(
        "KR202",
        lambda seen, output: _is_atomic(seen) and _reaches(seen, output),
        "`{o}` is updated atomically, so no store holds its final value",
        "`{o}` is updated atomically here",
        "apply the op after the kernel, when every update is in, or leave out the configurations that use atomics",
    ),
    _Check(
        "KR203",
        lambda seen, output: _is_unknown(seen) and (_reaches(seen, output) or _reaches(seen, ANYWHERE)),
        "`{o}` reaches an operation whose effect on memory is not known",
        "{reason}",
        "keep the pointer of `{o}` to loads, stores and pointer arithmetic",
    ),
    _Check(
        "KR204",
        lambda seen, output: _is_write(seen) and _reaches(seen, ANYWHERE),
        "the kernel writes through a pointer that is not an argument and may point into `{o}`",
        "this pointer does not come from an argument",
        "pass the buffer that is written here as an argument of its own",
    ),
    _Check(
        "KR205",
        lambda seen, output: _is_store(seen) and _reaches(seen, output) and seen.access.bitcast_pointer,
        "`{o}` is written through a pointer cast to another type, so what it stores are not its values",
        "stored through a cast pointer here",
        "store the value itself to `{o}` and let the store convert it",
    ),
    _Check(
        "KR212",
        lambda seen, output: _is_store(seen) and _reaches(seen, output) and bool(seen.others - {output}),
        "the store call that writes `{o}` also writes {others}, which must stay as it is",
        "this call stores to {others} as well",
        "give each buffer a store call of its own",
    ),
    _Check(
        "KR214",
        lambda seen, output: _is_read(seen) and _reaches(seen, ANYWHERE),
        "the kernel reads through a pointer that is not an argument and may point into `{o}`",
        "this pointer does not come from an argument",
        "pass the buffer that is read here as an argument of its own",
    ),
)
"""Every reason to refuse an output that is written; all run, all are reported."""

_MAX_SITES = 4  # labels for one reason; the note counts the rest


def write_only(
    output: str,
    accesses_by_specialization: Iterable[tuple[Specialization, Sequence[MemoryAccess]]],
    span_of: SpanOf,
) -> WriteOnlyVerdict:
    """Judges whether `output` (a root: "out_ptr", or "outs[0]" for an element of a tuple) is only written."""
    specializations: list[Specialization] = []
    seen: list[_Seen] = []
    for specialization, accesses in accesses_by_specialization:
        specializations.append(specialization)
        seen += [_Seen(access, specialization, _site(access, span_of)) for access in accesses]
    touching = [s for s in seen if _reaches(s, output)]
    stores = [s for s in touching if _is_store(s)]
    sites = _unique(s.site for s in stores)
    accesses = tuple(s.access for s in stores)
    if not any(not _is_read(s) for s in touching):
        return WriteOnlyVerdict(output, (), (), (_never_written(output, touching),))
    diagnostics = []
    for check in CHECKS:
        found = [s for s in seen if check.applies(s, output)]
        if found:
            diagnostics.append(_diagnostic(check, output, found, stores, len(specializations), span_of))
    if not stores and not diagnostics:
        diagnostics.append(_never_written(output, touching))
    return WriteOnlyVerdict(output, sites, accesses, tuple(diagnostics))


def _site(access: MemoryAccess, span_of: SpanOf) -> Span:
    """The call of the access, or the nearest call that leads to it where the access is not in the user's source."""
    span = span_of(access.location, access.operation)
    for call in reversed(access.call_path):
        if span is not None:
            break
        span = span_of(call, "tt.call")
    return span if span is not None else _point(access.location)


def _point(location: Location) -> Span:
    return Span(location.file, location.line, location.column, location.line, location.column + 1)


def _unique(spans: Iterable[Span]) -> tuple[Span, ...]:
    return tuple(dict.fromkeys(spans))


def _diagnostic(
    check: _Check, output: str, found: Sequence[_Seen], stores: Sequence[_Seen], count: int, span_of: SpanOf
) -> Diagnostic:
    first = found[0]
    labels = [Label(first.site, _words(check.label, output, first))]
    labels += _way(output, first, span_of)
    by_site = {s.site: s for s in reversed(found)}
    more = [by_site[site] for site in _unique(s.site for s in found) if site != first.site]
    labels += [Label(s.site, _words(check.label, output, s)) for s in more[: _MAX_SITES - 1]]
    shown = {label.span for label in labels}
    store = next((s for s in stores if s.site not in shown), None)
    if store is not None and check.code != "KR212":
        labels.append(Label(store.site, f"`{output}` is stored here"))
    notes = []
    if len(more) >= _MAX_SITES:
        notes.append(f"and in {len(more) - _MAX_SITES + 1} more places")
    notes += _where(found, count)
    return Diagnostic(
        check.code,
        _words(check.message, output, first),
        tuple(labels),
        tuple(notes),
        check.help.format(o=output),
    )


def _words(template: str, output: str, seen: _Seen) -> str:
    others = " and ".join(f"`{name}`" for name in sorted(seen.others - {output})) or "another buffer"
    return template.format(o=output, others=others, reason=seen.access.reason or "its effect is not known")


def _way(output: str, seen: _Seen, span_of: SpanOf) -> list[Label]:
    """How the output's pointer, or the one that is not an argument, got to the access."""
    root = output if _reaches(seen, output) else ANYWHERE
    pointer = f"the pointer `{output}`" if root == output else "the pointer"
    labels = []
    for step in seen.access.way_from(root):
        span = span_of(step.location, "")
        labels.append(Label(span if span is not None else _point(step.location), f"{pointer} {step.words}"))
        pointer = "it"
    return labels


def _where(found: Sequence[_Seen], count: int) -> list[str]:
    """In which specializations, unless it is all of them."""
    origins = list(dict.fromkeys(s.specialization.origin for s in found))
    if count <= 1 or not any(origins) or len(origins) == count:
        return []
    shown = [origin for origin in origins if origin][:3]
    rest = len(origins) - len(shown)
    return [f"with {'; '.join(shown)}{f' and {rest} more' if rest > 0 else ''}"]


def _never_written(output: str, touching: Sequence[_Seen]) -> Diagnostic:
    labels = tuple(Label(s.site, f"`{output}` is only read here") for s in touching[:1])
    return Diagnostic(
        "KR210",
        f"the kernel does not write `{output}`",
        labels,
        help="name a parameter that the kernel stores to",
    )
