"""The compiled kernels side by side, with no GPU: registers, spills, shared memory, occupancy, instructions."""

from __future__ import annotations

import ast
import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import Any

from kernel_rewrite.analysis import Analysis, analyse
from kernel_rewrite.bench.occupancy import fits, occupancy, target_named
from kernel_rewrite.diagnostics import Diagnostic, Label, Severity
from kernel_rewrite.model import Specialization, Target
from kernel_rewrite.request import element_type_of
from kernel_rewrite.selection import choose_kernel
from kernel_rewrite.source.files import Project, SourceFile, source_from_text
from kernel_rewrite.source.signatures import parse_overrides
from kernel_rewrite.ttir.lower import Compiled, Compiler, LoweringFailure

TARGETS = ("sm_80", "sm_90", "sm_100")
LAUNCH_OPTIONS = ("num_warps", "num_stages", "num_ctas", "maxnreg", "waves_per_eu", "matrix_instr_nonkdim", "kpack")


@dataclass(frozen=True, slots=True)
class Side:
    """One kernel in one configuration: what it needs, or why it does not compile."""

    compiled: Compiled | None
    occupancy: float = 0.0
    fits: bool = False
    failure: str = ""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Both kernels in one configuration on one target."""

    target: str
    configuration: str
    original: Side
    fused: Side

    @property
    def spills_more(self) -> bool:
        both = self.original.compiled, self.fused.compiled
        return both[0] is not None and both[1] is not None and both[1].spilled > both[0].spilled

    @property
    def no_longer_fits(self) -> bool:
        return self.original.fits and not self.fused.fits


@dataclass(frozen=True, slots=True)
class Saving:
    """The bytes of memory traffic for each element of `output` that the fused kernel leaves out: the unfused pair stores
    the element and the op loads it again."""

    output: str
    element: str
    bytes: float


@dataclass(frozen=True, slots=True)
class StaticReport:
    """The comparisons, target by target; `types` are those that the parameters were compiled with."""

    kernel: str
    comparisons: tuple[Comparison, ...]
    savings: tuple[Saving, ...]
    types: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()


def analysed(
    text: str, path: str, kernel: str, constexprs: Iterable[str] = (), dtypes: Iterable[str] = (), location: str = ""
) -> Analysis:
    """`kernel` of the file `text`, as if it stood at `path` (for what it imports). Raises FusionRefused."""
    compiler = Compiler()
    file: SourceFile = source_from_text(text, path, location=location or path)
    project = Project((file,))
    definition = choose_kernel(file, project, kernel)
    return analyse(definition, project, compiler, lambda function: parse_overrides(function, constexprs, dtypes))


def compare(
    original: Analysis, fused: Analysis, outputs: Sequence[str], targets: Sequence[str] = TARGETS
) -> StaticReport:
    """Both kernels, compiled for every target in every configuration of the autotuner (or as they are launched).

    Pointers and integer arguments are taken for multiples of 16, and tensors for contiguous. Raises ValueError for an
    unknown target.
    """
    pairs = list(zip(_configurations(original), _configurations(fused), strict=False))
    found = []
    with ThreadPoolExecutor(2) as pool:  # each analysis has a compiler process of its own
        for target in map(target_named, targets):
            for (words, before, options), (_, after, _) in pairs:
                sides = pool.map(_side, (original, fused), (before, after), (options, options), (target, target))
                found.append(Comparison(str(target), words, *sides))
    notes = [] if original.tuning.complete else ["some autotune configurations could not be read: they are not here"]
    savings = tuple(filter(None, (_saving(original, output) for output in outputs)))
    units = _unit_strides(original)
    types = tuple(
        (name, "1" if name in units else str(kind))
        for name, kind in original.plan.base.signature
        if kind != "constexpr"
    )
    return StaticReport(original.kernel.name, tuple(found), savings, types, tuple(notes))


def _unit_strides(analysis: Analysis) -> tuple[str, ...]:
    """The parameters that are 1 where tensors are contiguous: the launch passes `a.stride(k)`, k the last it asks for.

    Triton compiles an argument of 1 into the kernel, and what is contiguous is loaded and pipelined otherwise.
    """
    found: set[str] = set()
    for launch in analysis.launches:
        last: dict[str, tuple[float, str]] = {}
        for parameter, expression in launch.arguments.items():
            match expression:
                case ast.Call(func=ast.Attribute(attr="stride", value=tensor), args=[dimension]):
                    with contextlib.suppress(ValueError):
                        number = ast.literal_eval(dimension)
                        key = ast.unparse(tensor)
                        rank = float("inf") if number == -1 else number
                        last[key] = max(last.get(key, (-1, "")), (rank, parameter))
        found |= {parameter for rank, parameter in last.values() if rank > 0}
    kinds = dict(analysis.plan.base.signature)
    return tuple(name for name in kinds if name in found and str(kinds[name]) in ("i32", "i64"))


def _contiguous(specialization: Specialization, units: Sequence[str]) -> Specialization:
    known = tuple((name, 1) for name in units)
    changed = specialization.with_types(**dict.fromkeys(units, "constexpr"))
    return replace(changed, constexprs=changed.constexprs + known)


def _side(analysis: Analysis, specialization: Specialization, options: Mapping[str, object], target: Target) -> Side:
    texts = analysis.project.sources()
    answer = analysis.compiler.compile(analysis.closure, texts, specialization, target, options)
    if isinstance(answer, LoweringFailure):
        return Side(None, failure=answer.message.splitlines()[0] if answer.message else answer.kind)
    return Side(answer, occupancy(answer, target), fits(answer, target))


def _configurations(analysis: Analysis) -> Iterator[tuple[str, Specialization, dict[str, object]]]:
    """(words, specialization, launch options) of each configuration."""
    launched, units = _launch_options(analysis), _unit_strides(analysis)
    for config in analysis.tuning.configs:
        values = dict(config.values)
        options = launched | {k: v for k, v in config.options.items() if k in LAUNCH_OPTIONS and v is not None}
        words = ", ".join(f"{name}={value}" for name, value in {**values, **options}.items())
        yield words, _contiguous(_specialized(analysis, values), units), options
    if not analysis.tuning.configs:
        base = analysis.plan.base
        words = ", ".join(f"{name}={value}" for name, value in {**dict(base.constexprs), **launched}.items())
        yield words, _contiguous(base, units), launched


def _specialized(analysis: Analysis, values: Mapping[str, Any]) -> Specialization:
    """The specialization of the plan with these compile-time values, or the base changed to have them."""
    for specialization in analysis.plan.specializations:
        if values.items() <= dict(specialization.constexprs).items():
            return specialization
    base = analysis.plan.base
    constexprs = tuple((name, values.get(name, value)) for name, value in base.constexprs)
    return replace(base, constexprs=constexprs)


def _launch_options(analysis: Analysis) -> dict[str, object]:
    """What the first launch of the file that names them says: num_warps=8."""
    for launch in analysis.launches:
        keywords = launch.call.keywords if launch.call is not None else []
        found = {
            keyword.arg: keyword.value.value
            for keyword in keywords
            if keyword.arg in LAUNCH_OPTIONS and isinstance(keyword.value, ast.Constant)
        }
        if found:
            return dict(found)
    return {}


def _saving(analysis: Analysis, output: str) -> Saving | None:
    element = element_type_of(analysis.plan.base, output)
    bits = re.search(r"\d+", element)
    return Saving(output, element, 2 * int(bits[0]) / 8) if bits and element != "i1" else None


# ------------------------------------------------------------------------------------------------------------ warnings


def warnings(report: StaticReport, analysis: Analysis) -> tuple[Diagnostic, ...]:
    """KR503 and KR504, one each for all the configurations concerned."""
    label = (Label(analysis.kernel.definition_line),)
    spilling = [c for c in report.comparisons if c.spills_more]
    outgrown = [c for c in report.comparisons if c.no_longer_fits]
    found = []
    if spilling:
        notes = tuple(
            f"{_where(c)}: {_spilled(c.original)} bytes before, {_spilled(c.fused)} with it" for c in spilling
        )
        message = f"`{report.kernel}` spills more registers to memory with the op"
        help = "measure it with `kernel-rewrite bench`, or add a configuration with more warps or smaller tiles"
        found.append(Diagnostic("KR503", message, label, notes, help, Severity.WARNING))
    if outgrown:
        notes = tuple(f"{_where(c)}: {c.fused.failure or _shared(c)}" for c in outgrown)
        message = f"`{report.kernel}` no longer fits the device with the op, in {len(outgrown)} of its configurations"
        help = "add a configuration with smaller tiles or fewer stages; an autotuner leaves this one out"
        found.append(Diagnostic("KR504", message, label, notes, help, Severity.WARNING))
    return tuple(found)


def _where(comparison: Comparison) -> str:
    return f"{comparison.target}, {comparison.configuration}" if comparison.configuration else comparison.target


def _spilled(side: Side) -> int:
    return side.compiled.spilled if side.compiled is not None else 0


def _shared(comparison: Comparison) -> str:
    assert comparison.original.compiled is not None and comparison.fused.compiled is not None
    before, after = comparison.original.compiled.shared, comparison.fused.compiled.shared
    return f"{before:,} bytes of shared memory before, {after:,} with it"


# ---------------------------------------------------------------------------------------------------------------- text


def static_json(report: StaticReport) -> dict[str, Any]:
    """The report as JSON values."""
    return {"version": 1, "kernel": report.kernel, "notes": list(report.notes)} | {
        "types": dict(report.types),
        "savings": [asdict(saving) for saving in report.savings],
        "comparisons": [
            {
                "target": c.target,
                "configuration": c.configuration,
                "spills_more": c.spills_more,
                "no_longer_fits": c.no_longer_fits,
                **{name: _side_json(side) for name, side in (("original", c.original), ("fused", c.fused))},
            }
            for c in report.comparisons
        ],
    }


def _side_json(side: Side) -> dict[str, Any]:
    if side.compiled is None:
        return {"failure": side.failure}
    numbers = {name: value for name, value in asdict(side.compiled).items() if name != "specialization"}
    return numbers | {"occupancy": side.occupancy, "fits": side.fits}


_COLUMNS = ("registers", "spilled", "shared", "instructions")


def static_text(report: StaticReport) -> str:
    """The report as text: a block for each configuration, a line for each target; `a -> b` is original -> fused."""
    lines = [f"{report.kernel}({', '.join(f'{name}: {kind}' for name, kind in report.types)}): the original -> fused"]
    for configuration in dict.fromkeys(c.configuration for c in report.comparisons):
        lines.append(f"  {configuration or 'as it is launched'}")
        for c in report.comparisons:
            if c.configuration == configuration:
                lines.append(f"    {c.target:<7} {_changes(c)}")
    for saving in report.savings:
        lines.append(
            f"  saves {saving.bytes:g} bytes of memory traffic for each element of `{saving.output}` ({saving.element}): "
            "one store and one load"
        )
    return "\n".join([*lines, *(f"  note: {note}" for note in report.notes)])


def _changes(comparison: Comparison) -> str:
    ours, theirs = comparison.original, comparison.fused
    if ours.compiled is None or theirs.compiled is None:
        return f"the original: {ours.failure or 'compiles'}; fused: {theirs.failure or 'compiles'}"
    numbers = [
        f"{name} {_arrow(getattr(ours.compiled, name), getattr(theirs.compiled, name))}"
        for name in _COLUMNS
        if getattr(ours.compiled, name) is not None
    ]
    numbers.append(f"occupancy {_arrow(f'{ours.occupancy:.0%}', f'{theirs.occupancy:.0%}')}")
    unfit = "" if theirs.fits else ("; does not fit" if not ours.fits else "; NO LONGER FITS")
    return ", ".join(numbers) + unfit


def _arrow(before: object, after: object) -> str:
    return f"{before}" if before == after else f"{before} -> {after}"
