"""The `bench` command and `fuse --check-resources`: what `cli` hands over to measure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kernel_rewrite.analysis import Analysis
from kernel_rewrite.arguments import name_and_text, names_a_kernel
from kernel_rewrite.bench.measured import SpeedReport, measured
from kernel_rewrite.bench.plot import MissingPlotting, save_bars
from kernel_rewrite.bench.static import StaticReport, analysed, compare, warnings
from kernel_rewrite.diagnostics import Diagnostic, FusionRefused
from kernel_rewrite.pointwise.declarations import declared_operands, used_in
from kernel_rewrite.pointwise.language import called_name, parse_epilogue
from kernel_rewrite.retyped import new_element_type, short_name
from kernel_rewrite.rewrite.header import Header, read_header

if TYPE_CHECKING:
    from kernel_rewrite.results import Fused


def static_report(
    fused: str, original: str | None, targets: Sequence[str], constexprs: Sequence[str], dtypes: Sequence[str]
) -> StaticReport:
    """Compare the fused file with the file its header names, compiled for `targets`.

    `constexprs` and `dtypes` stand over those that the file was fused with. Raises FusionRefused (KR505, or the reasons why
    a kernel cannot be lowered).
    """
    text, header, source = _files(fused, original)
    values, types = (*header.texts("--set"), *constexprs), (*header.texts("--dtype"), *dtypes)
    before = analysed(_read(source), source, header.kernel, values, types)
    types = (*types, *_new_types(before, header))
    after = analysed(text, fused, header.kernel, _of_what_is_left(values, header), _of_what_is_left(types, header))
    outputs = [output for output, _ in header.epilogues]
    try:
        return compare(before, after, outputs, targets)
    except ValueError as error:
        raise _cannot(str(error)) from None


def _new_types(original: Analysis, header: Header) -> Iterator[str]:
    """`--dtype` of each output that its epilogue gives another element type."""
    declared = declared_operands(header.operands)
    for output, text in header.epilogues:
        if names_a_kernel(text) or called_name(text) is not None:
            continue  # what it gives is converted to the type that the output has
        dtype = new_element_type(original, output, parse_epilogue(text, used_in(text, declared)))
        if dtype:
            yield f"{output}={short_name(dtype)}"


def _of_what_is_left(texts: Sequence[str], header: Header) -> tuple[str, ...]:
    """The `NAME=...` texts of parameters that the fused kernel has."""
    return tuple(text for text in texts if name_and_text(text)[0] not in header.dropped)


def speed_report(fused: str, original: str | None, calls: Sequence[str], seconds: float) -> SpeedReport:
    """Time the calls of the fused file and of the one its header names, on a GPU. Raises FusionRefused (KR505)."""
    _, header, source = _files(fused, original)
    if not calls:
        raise _cannot("no call to time", 'give one: `--call "add(randn(2**27), randn(2**27))"`, or `--static`')
    return measured(fused, source, header, calls, seconds=seconds)


def save_plot(report: SpeedReport, path: str) -> None:
    """Write the bar chart. Raises FusionRefused (KR505) without matplotlib."""
    groups = {row.call: {name: time.median for name, time in row.times.items()} for row in report.rows}
    try:
        save_bars(Path(path), groups, title=f"{report.kernel} {report.device}", axis="microseconds")
    except (MissingPlotting, ValueError) as error:
        raise _cannot(str(error)) from None


def _files(fused: str, original: str | None) -> tuple[str, Header, str]:
    """(text of the fused file, its header, path of the original)."""
    text = _read(fused)
    header = read_header(text)
    if header is None:
        raise _cannot(f"{fused} does not say what it was fused from", "give the file that `kernel-rewrite fuse` wrote")
    source = original or str(Path(fused).parent / header.source)
    _read(source)
    return text, header, source


def resource_warnings(
    fused: Fused, target: str, constexprs: Sequence[str], dtypes: Sequence[str]
) -> tuple[Diagnostic, ...]:
    """KR503 and KR504 for a file that was just fused, compiled for `target`. Raises FusionRefused (KR505)."""
    before = analysed(_read(fused.path), fused.path, fused.kernel, constexprs, dtypes)
    header = read_header(fused.source)
    assert header is not None
    types = _of_what_is_left((*dtypes, *_new_types(before, header)), header)
    after = analysed(fused.source, fused.path, fused.kernel, _of_what_is_left(constexprs, header), types)
    try:
        report = compare(before, after, [output for output, _ in fused.epilogues], [target])
    except ValueError as error:
        raise _cannot(str(error)) from None
    return warnings(report, before)


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise _cannot(f"{path} cannot be read: {error.strerror}", "name the original with `--original PATH`") from None


def _cannot(message: str, help: str = "") -> FusionRefused:
    return FusionRefused((Diagnostic("KR505", message, help=help),))
