"""The formats for machines: JSON, SARIF 2.1.0, GitHub's annotations, one line a finding. docs/formats.md describes them."""

from __future__ import annotations

import dataclasses
import enum
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kernel_rewrite import __version__
from kernel_rewrite.diagnostics import CODES, Diagnostic, Severity
from kernel_rewrite.model import Span

if TYPE_CHECKING:
    from kernel_rewrite.project.build import Built
    from kernel_rewrite.project.entries import Entry
    from kernel_rewrite.results import Fused, Inspection

VERSION = 1
"""Of the JSON documents. Keys may be added to a version; none is renamed, removed or given another meaning."""

# ----------------------------------------------------------------------------------------------------------- one a line


def concise(diagnostic: Diagnostic, source: str = "") -> str:
    """`file:line:column: error[KR201] message`."""
    place = _place(diagnostic, source)
    where = f"{place.file}:{place.line}:{place.column + 1}: " if place else f"{source}: " if source else ""
    return f"{where}{diagnostic.severity.value}[{diagnostic.code}] {diagnostic.message}"


def annotation(diagnostic: Diagnostic, source: str = "") -> str:
    """A workflow command that GitHub shows at the line."""
    kind = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.NOTE: "notice"}[diagnostic.severity]
    place = _place(diagnostic, source)
    properties = {"title": f"kernel-rewrite {diagnostic.code}"}
    if place or source:
        properties = {"file": _from_root(place.file if place else source), **properties}
    if place:
        properties |= {"line": str(place.line), "col": str(place.column + 1)}
        properties |= {"endLine": str(place.end_line), "endColumn": str(place.end_column)}
    text = "\n".join([diagnostic.message, *_hints(diagnostic)])
    listed = ",".join(f"{key}={_escaped(value, property=True)}" for key, value in properties.items())
    return f"::{kind} {listed}::{_escaped(text)}"


def _escaped(text: str, *, property: bool = False) -> str:
    text = text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    return text.replace(":", "%3A").replace(",", "%2C") if property else text


def _hints(diagnostic: Diagnostic) -> list[str]:
    return [*diagnostic.notes, *([f"help: {diagnostic.help}"] if diagnostic.help else [])]


def _place(diagnostic: Diagnostic, source: str) -> Span | None:
    return diagnostic.labels[0].span if diagnostic.labels else None


def _from_root(path: str) -> str:
    return path.removeprefix("./").replace(os.sep, "/")


# ----------------------------------------------------------------------------------------------------------------- JSON


def plain(value: Any) -> Any:
    """Dataclasses, enums and tuples as JSON has them."""
    if isinstance(value, enum.Enum):
        return value.value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, (tuple, list, frozenset, set)):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    return value if isinstance(value, (str, int, float, bool)) or value is None else str(value)


def refusal(command: str, diagnostics: Iterable[Diagnostic]) -> dict[str, Any]:
    return {"version": VERSION, "command": command, "ok": False, "diagnostics": plain(tuple(diagnostics))}


def fused_document(fused: Fused, written: str) -> dict[str, Any]:
    return {"version": VERSION, "command": "fuse", "ok": True, **_fused(fused), "written": written or None}


def _fused(fused: Fused) -> dict[str, Any]:
    return {
        "source": fused.path,
        "kernel": fused.kernel,
        "epilogues": dict(fused.epilogues),
        "prologues": dict(fused.prologues),
        "dropped": list(fused.dropped),
        "diff": fused.diff,
        "edits": plain(fused.edits),
        "proofs": [
            {
                "output": proof.output,
                "stores": plain(proof.stores),
                "specializations": plain(proof.specializations),
                "assumptions": plain(proof.assumptions),
            }
            for proof in fused.proofs
        ],
        "input_proofs": [
            {
                "input": proof.input,
                "loads": plain(proof.loads),
                "specializations": plain(proof.specializations),
                "assumptions": plain(proof.assumptions),
            }
            for proof in fused.input_proofs
        ],
        "statements": list(fused.statements),
        "assumptions": plain(fused.assumptions),
        "diagnostics": plain(fused.warnings),
    }


def inspection_document(inspection: Inspection) -> dict[str, Any]:
    kernels = plain(inspection.kernels)
    return {"version": VERSION, "command": "inspect", "ok": True, "path": inspection.path, "kernels": kernels}


def built_document(command: str, fresh: Sequence[Entry], built: Sequence[Built], written: set[str]) -> dict[str, Any]:
    """The result of `check`, and of `fuse` for all entries. `written` are the outputs that were written."""
    entries = [_entry(entry, "fresh", False) for entry in fresh]
    for result in built:
        entry = _entry(result.entry, result.outcome.value, result.entry.output in written)
        entry |= {"diff": result.diff, "diagnostics": plain(result.problems), "error": result.error or None}
        entries.append(entry)
    ok = all(e["state"] == "fresh" or e["written"] for e in entries)
    return {"version": VERSION, "command": command, "ok": ok, "entries": entries}


def _entry(entry: Entry, state: str, written: bool) -> dict[str, Any]:
    return {"source": entry.source, "output": entry.output, "state": state, "written": written}


# ---------------------------------------------------------------------------------------------------------------- SARIF


def sarif(diagnostics: Iterable[Diagnostic], source: str, sources: Mapping[str, str]) -> dict[str, Any]:
    """One run of SARIF 2.1.0: a rule for each code that is reported, a result for each diagnostic. `sources` are the
    texts of the files, in which columns are counted."""
    return sarif_of([(diagnostic, source) for diagnostic in diagnostics], sources)


def sarif_of(found: Sequence[tuple[Diagnostic, str]], sources: Mapping[str, str]) -> dict[str, Any]:
    """The same for diagnostics that each have a file of their own, for where they have no place."""
    codes = sorted({d.code for d, _ in found})
    rules = [{"id": code, "name": code, "shortDescription": {"text": CODES[code]}} for code in codes]
    driver = {"name": "kernel-rewrite", "version": __version__, "semanticVersion": __version__, "rules": rules}
    results = [_result(d, codes.index(d.code), source, sources) for d, source in found]
    run = {"tool": {"driver": driver}, "columnKind": "unicodeCodePoints", "results": results}
    return {"$schema": "https://json.schemastore.org/sarif-2.1.0.json", "version": "2.1.0", "runs": [run]}


def _result(diagnostic: Diagnostic, rule: int, source: str, sources: Mapping[str, str]) -> dict[str, Any]:
    levels = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.NOTE: "note"}
    result: dict[str, Any] = {
        "ruleId": diagnostic.code,
        "ruleIndex": rule,
        "level": levels[diagnostic.severity],
        "message": {"text": "\n".join([diagnostic.message, *_hints(diagnostic)])},
    }
    first, *rest = diagnostic.labels or [None]
    if first is not None:
        result["locations"] = [_location(first.span, first.text, sources)]
    elif source and source != "-":
        result["locations"] = [{"physicalLocation": {"artifactLocation": {"uri": _uri(source)}}}]
    if rest:
        related = [_location(label.span, label.text, sources) for label in rest if label is not None]
        result["relatedLocations"] = [{"id": index, **location} for index, location in enumerate(related)]
    return result


def _location(span: Span, text: str, sources: Mapping[str, str]) -> dict[str, Any]:
    region = {
        "startLine": span.line,
        "startColumn": _column(span.file, span.line, span.column, sources),
        "endLine": span.end_line,
        "endColumn": _column(span.file, span.end_line, span.end_column, sources),
    }
    location: dict[str, Any] = {"physicalLocation": {"artifactLocation": {"uri": _uri(span.file)}, "region": region}}
    return {**location, "message": {"text": text}} if text else location


def _column(file: str, line: int, column: int, sources: Mapping[str, str]) -> int:
    """From bytes, counted from 0, to characters, counted from 1."""
    lines = sources.get(file, "").split("\n", line)
    if line > len(lines):
        return column + 1
    return len(lines[line - 1].encode()[:column].decode(errors="replace")) + 1


def _uri(path: str) -> str:
    from urllib.parse import quote

    return quote(_from_root(path))
