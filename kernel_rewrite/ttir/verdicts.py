"""What the verdicts on a buffer have in common: tables of reasons with their words, judged over all accesses.

Pure: they judge the accesses that `ttir.accesses` found. A caller supplies `span_of`, because only the source knows
which call a location belongs to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from kernel_rewrite.diagnostics import Diagnostic, Label
from kernel_rewrite.model import ANYWHERE, Location, MemoryAccess, MemoryEffect, Span, Specialization

SpanOf = Callable[[Location, str], "Span | None"]
"""The span of the source call that a location belongs to. The second argument is the TTIR operation there ("tt.store",
"tt.load", ...), or "" for a step of a pointer's way. None: the location is not in the user's source."""

Accesses = Iterable[tuple[Specialization, Sequence[MemoryAccess]]]
"""What each specialization does to memory."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One access in one specialization, and the place of the source to show for it."""

    access: MemoryAccess
    specialization: Specialization
    site: Span

    @property
    def others(self) -> frozenset[str]:
        return self.access.roots - {ANYWHERE}


@dataclass(frozen=True, slots=True)
class Reason:
    """One reason to refuse a buffer: which accesses give it, and its words (`{o}` is the buffer, `{others}` other ones,
    `{reason}` the access's own reason, `{operation}` how it reads). `alone`: the words show the buffer's own accesses."""

    code: str
    applies: Callable[[Seen, str], bool]
    message: str
    label: str
    help: str
    alone: bool = False


def _effect(*effects: MemoryEffect) -> Callable[[Seen], bool]:
    return lambda seen: seen.access.effect in effects


is_read = _effect(MemoryEffect.READ)
is_store = _effect(MemoryEffect.WRITE)
is_atomic = _effect(MemoryEffect.ACCUMULATE)
is_unknown = _effect(MemoryEffect.UNKNOWN)
is_write = _effect(MemoryEffect.WRITE, MemoryEffect.ACCUMULATE)


def reaches(seen: Seen, root: str) -> bool:
    return root in seen.access.roots


_MAX_SITES = 4  # labels for one reason; the note counts the rest


def all_seen(accesses: Accesses, span_of: SpanOf) -> tuple[list[Seen], int]:
    """Every access of every specialization, and how many specializations there are."""
    seen: list[Seen] = []
    count = 0
    for specialization, found in accesses:
        count += 1
        seen += [Seen(access, specialization, _site(access, span_of)) for access in found]
    return seen, count


def reasons_found(
    reasons: Iterable[Reason],
    buffer: str,
    seen: Sequence[Seen],
    own: Sequence[Seen],
    words: str,
    count: int,
    span_of: SpanOf,
) -> Iterator[Diagnostic]:
    """A diagnostic for each of `reasons` that some access gives. `own` are the accesses that were asked for, shown with
    `words` where the reason is another access; `count` is the number of specializations."""
    for reason in reasons:
        found = [s for s in seen if reason.applies(s, buffer)]
        if found:
            yield _diagnostic(reason, buffer, found, () if reason.alone else own, words, count, span_of)


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


def unique(spans: Iterable[Span]) -> tuple[Span, ...]:
    return tuple(dict.fromkeys(spans))


def _diagnostic(
    check: Reason,
    buffer: str,
    found: Sequence[Seen],
    own: Sequence[Seen],
    words: str,
    count: int,
    span_of: SpanOf,
) -> Diagnostic:
    first = found[0]
    labels = [Label(first.site, _words(check.label, buffer, first))]
    labels += _way(buffer, first, span_of)
    by_site = {s.site: s for s in reversed(found)}
    more = [by_site[site] for site in unique(s.site for s in found) if site != first.site]
    labels += [Label(s.site, _words(check.label, buffer, s)) for s in more[: _MAX_SITES - 1]]
    shown = {label.span for label in labels}
    other = next((s for s in own if s.site not in shown), None)
    if other is not None:
        labels.append(Label(other.site, words))
    notes = []
    if len(more) >= _MAX_SITES:
        notes.append(f"and in {len(more) - _MAX_SITES + 1} more places")
    notes += _where(found, count)
    return Diagnostic(
        check.code,
        _words(check.message, buffer, first),
        tuple(labels),
        tuple(notes),
        check.help.format(o=buffer),
    )


_HOW = {
    "tt.descriptor_gather": "a gather",
    "tt.atomic_load": "an atomic load",
    "tt.atomic_poll": "an atomic load",
}
"""How some operations are called; what else is asked about here reads through a pointer cast to another type."""


def _words(template: str, buffer: str, seen: Seen) -> str:
    others = " and ".join(f"`{name}`" for name in sorted(seen.others - {buffer})) or "another buffer"
    reason = seen.access.reason or "its effect is not known"
    return template.format(o=buffer, others=others, reason=reason, operation=_HOW.get(seen.access.operation, "a cast"))


def _way(buffer: str, seen: Seen, span_of: SpanOf) -> list[Label]:
    """How the buffer's pointer, or the one that is not an argument, got to the access."""
    root = buffer if reaches(seen, buffer) else ANYWHERE
    pointer = f"the pointer `{buffer}`" if root == buffer else "the pointer"
    labels = []
    for step in seen.access.way_from(root):
        span = span_of(step.location, "")
        labels.append(Label(span if span is not None else _point(step.location), f"{pointer} {step.words}"))
        pointer = "it"
    return labels


def _where(found: Sequence[Seen], count: int) -> list[str]:
    """In which specializations, unless it is all of them."""
    origins = list(dict.fromkeys(s.specialization.origin for s in found))
    if count <= 1 or not any(origins) or len(origins) == count:
        return []
    shown = [origin for origin in origins if origin][:3]
    rest = len(origins) - len(shown)
    return [f"with {'; '.join(shown)}{f' and {rest} more' if rest > 0 else ''}"]
