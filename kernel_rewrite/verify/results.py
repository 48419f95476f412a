"""What an equivalence run found, as values, and as text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kernel_rewrite.diagnostics import Diagnostic
from kernel_rewrite.diagnostics import render as render_diagnostic

UNCHANGED = "x"
"""The op of an output that has no epilogue, as a text."""


@dataclass(frozen=True, slots=True)
class Mismatch:
    """One element outside what the op allows: `value` is what the original kernel stored before the op."""

    index: tuple[int, ...]
    value: str
    expected: str
    got: str


@dataclass(frozen=True, slots=True)
class OutputComparison:
    """One output of one launch: the original's buffer after the op against the fused kernel's.

    `differing` counts written elements that are not the same bits (two NaNs are the same), `wrong` those of them that
    float arithmetic does not explain. `max_*` are over the elements where both are finite. `pair_error` and `fused_error`
    say how far the unfused pair and the fused kernel are from the op in float64 on the very values that the original kernel
    stored, at most, in units in the last place; None for integers. `fused_nearer` and `pair_nearer` count the elements where
    that one is nearer to it. `unwritten` elements kept
    what the buffer held before the launch; `unwritten_otherwise` counts those that only one of the two kernels wrote;
    `missed` counts unwritten elements that held a value which the op changes: wrong unless `missed_assumed`, when the
    fused file says that such elements are not used.
    """

    output: str
    op: str
    launch: int
    dtype: str
    shape: tuple[int, ...]
    elements: int
    written: int
    differing: int
    wrong: int
    max_difference: float
    max_ulp: int
    max_relative: float
    unwritten_otherwise: int = 0
    missed: int = 0
    missed_assumed: bool = False
    mismatch: Mismatch | None = None
    pair_error: float | None = None
    fused_error: float | None = None
    fused_nearer: int = 0
    pair_nearer: int = 0

    @property
    def unwritten(self) -> int:
        return self.elements - self.written

    @property
    def bit_equal(self) -> bool:
        return not self.differing and not self.unwritten_otherwise

    @property
    def ok(self) -> bool:
        return not self.wrong and not self.unwritten_otherwise and (not self.missed or self.missed_assumed)


@dataclass(frozen=True, slots=True)
class Trial:
    """One evaluation of the call by both files with one autotune configuration.

    `call` has the sizes that ran, `inputs` says how they were drawn ("as given", "special values", "sizes + 1"),
    `seed` is what torch was seeded with. `configuration` numbers the autotune configurations from the second on,
    `autotune` spells the one taken. `skipped` gives the reason when nothing was compared, `failure` says in words
    what differs beyond the outputs.
    """

    call: str
    inputs: str
    seed: int
    configuration: str = ""
    autotune: str = ""
    outputs: tuple[OutputComparison, ...] = ()
    skipped: str = ""
    failure: str = ""
    returned_compared: bool = False

    @property
    def ok(self) -> bool:
        return not self.failure and all(output.ok for output in self.outputs)


@dataclass(frozen=True, slots=True)
class Verification:
    """The outcome of an equivalence run. `ok` means that every trial that ran agrees, and that some did.

    `judge` is "interpreter" or "cuda"; `device` says it in words. `diagnostics` holds one KR501 for each kind of
    difference.
    """

    fused: str
    original: str
    kernel: str
    epilogues: tuple[tuple[str, str], ...]
    judge: str
    device: str
    seed: int
    trials: tuple[Trial, ...]
    notes: tuple[str, ...] = ()
    diagnostics: tuple[Diagnostic, ...] = ()
    prologues: tuple[tuple[str, str], ...] = ()

    @property
    def ok(self) -> bool:
        return all(trial.ok for trial in self.trials) and any(not trial.skipped for trial in self.trials)

    @property
    def bit_equal(self) -> bool:
        return self.ok and all(output.bit_equal for trial in self.trials for output in trial.outputs)

    @property
    def elements(self) -> int:
        return sum(output.written for trial in self.trials for output in trial.outputs)

    @property
    def max_difference(self) -> float:
        return max((output.max_difference for trial in self.trials for output in trial.outputs), default=0.0)

    @property
    def max_ulp(self) -> int:
        return max((output.max_ulp for trial in self.trials for output in trial.outputs), default=0)


def to_json(verification: Verification) -> dict[str, Any]:
    """The run as JSON values: every field, and what follows from them."""
    v = verification
    derived = ("ok", "bit_equal", "elements", "max_difference", "max_ulp")
    data = {name: getattr(v, name) for name in derived} | asdict(v)
    data["diagnostics"] = [{"code": d.code, "message": d.message, "notes": list(d.notes)} for d in v.diagnostics]
    for trial, fields in zip(v.trials, data["trials"], strict=True):
        fields["ok"] = trial.ok
        for output, inner in zip(trial.outputs, fields["outputs"], strict=True):
            inner |= {"ok": output.ok, "bit_equal": output.bit_equal, "unwritten": output.unwritten}
    return data


def trial_from_json(data: Mapping[str, Any]) -> Trial:
    """The trial that the runner reported."""
    fields = dict(data)
    fields["outputs"] = tuple(_output_from_json(output) for output in fields.get("outputs", ()))
    return Trial(**fields)


def _output_from_json(data: Mapping[str, Any]) -> OutputComparison:
    fields = dict(data)
    fields["shape"] = tuple(fields["shape"])
    mismatch = fields.get("mismatch")
    if mismatch is not None:
        fields["mismatch"] = Mismatch(**{**mismatch, "index": tuple(mismatch["index"])})
    return OutputComparison(**fields)


# ---------------------------------------------------------------------------------------------------------------- text


def render(verification: Verification) -> str:
    """The run as text: a line for each output and set of inputs, every difference as a diagnostic, the verdict last."""
    v = verification
    ops = ", ".join(f"{op} on `{buffer}`" for buffer, op in (*v.prologues, *v.epilogues))
    lines = [f"{v.fused} against {v.original}::{v.kernel} + {ops}", f"  {v.device}, seed {v.seed}"]
    call = ""
    for trials in _grouped(v.trials):
        if trials[0].call != call:
            call = trials[0].call
            lines.append(f"  {call}")
        lines += _trial_lines(trials)
    lines += [f"  note: {note}" for note in v.notes]
    if v.diagnostics:
        sources = {v.fused: Path(v.fused).read_text(encoding="utf-8", errors="replace")}
        lines += ["", *(render_diagnostic(diagnostic, sources) + "\n" for diagnostic in v.diagnostics)]
    return "\n".join([*lines, verdict(v)])


def verdict(v: Verification) -> str:
    """One sentence: what was compared and what came out."""
    ran = [trial for trial in v.trials if not trial.skipped]
    runs = f"{len(ran)} run{'s' if len(ran) != 1 else ''}"
    if not ran:
        return "NOT verified: no run could be compared"
    if not v.ok:
        bad = sum(not trial.ok for trial in ran)
        return f"NOT equivalent: {bad} of {runs} differ"
    compared = f"equivalent: {runs}, {v.elements:,} elements"
    if v.bit_equal:
        return f"{compared}, bit-identical"
    differing = sum(output.differing for trial in v.trials for output in trial.outputs)
    return f"{compared}, {differing:,} not bit-identical ({_size(v.max_difference, v.max_ulp)})"


def _size(difference: float, ulp: int) -> str:
    # Next to zero a distance in ulp says nothing.
    return f"max difference {difference:.3g}" + (f", {ulp:,} ulp" if ulp < 100_000 else "")


def _grouped(trials: tuple[Trial, ...]) -> list[list[Trial]]:
    """Consecutive trials that differ in the configuration alone."""
    groups: list[list[Trial]] = []
    for trial in trials:
        if groups and (groups[-1][0].call, groups[-1][0].inputs) == (trial.call, trial.inputs):
            groups[-1].append(trial)
        else:
            groups.append([trial])
    return groups


def _trial_lines(trials: list[Trial]) -> list[str]:
    ran = [trial for trial in trials if not trial.skipped]
    if not ran:
        return [f"    {trials[0].inputs:<28} skipped: {trials[0].skipped}"]
    configurations = f", {len(ran)} configurations" if len(ran) > 1 else ""
    lines = []
    names = dict.fromkeys(output.output for trial in ran for output in trial.outputs)
    for name in names:
        outputs = [output for trial in ran for output in trial.outputs if output.output == name]
        first = outputs[0]
        shape = f"{first.dtype} [{', '.join(map(str, first.shape))}]"
        lines.append(f"    {trials[0].inputs:<28} {name} {shape}{configurations}: {_outcome(outputs)}")
    lines += [f"    {trials[0].inputs:<28} {trial.failure}" for trial in ran if trial.failure]
    return lines


def _outcome(outputs: list[OutputComparison]) -> str:
    total = sum(output.written for output in outputs)
    unwritten = sum(output.unwritten for output in outputs)
    tail = f", {unwritten:,} elements left unwritten by both" if unwritten else ""
    otherwise, missed = sum(o.unwritten_otherwise for o in outputs), sum(o.missed for o in outputs)
    if otherwise:
        tail = f", {otherwise:,} elements WRITTEN BY ONLY ONE of the two"
    elif missed:
        tail += f", {missed:,} of which the op changes"
    wrong = sum(output.wrong for output in outputs)
    differing = sum(output.differing for output in outputs)
    if not differing:
        return f"bit-identical{tail}"
    size = _size(max(o.max_difference for o in outputs), max(o.max_ulp for o in outputs))
    if wrong:
        return f"DIFFERS in {wrong:,} of {total:,} elements ({size}){tail}"
    return f"{differing:,} of {total:,} elements not bit-identical ({size}{_nearer(outputs)}){tail}"


def _nearer(outputs: list[OutputComparison]) -> str:
    """Which of the two is nearer to the float64 reference, and where each is at its worst."""
    pair = max((o.pair_error for o in outputs if o.pair_error is not None), default=None)
    fused = max((o.fused_error for o in outputs if o.fused_error is not None), default=None)
    if pair is None or fused is None:
        return ""
    ours, theirs = sum(o.fused_nearer for o in outputs), sum(o.pair_nearer for o in outputs)
    return f"; nearer to float64 in {ours:,}, the unfused pair in {theirs:,}; off by {fused:.3g} and {pair:.3g} ulp"
