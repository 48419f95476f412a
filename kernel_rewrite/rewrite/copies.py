"""Copies of helpers: their text under a new name, and the imports that a copy from another file needs."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterable, Iterator, Mapping

from kernel_rewrite.diagnostics import Diagnostic, FusionRefused, Label
from kernel_rewrite.model import Binding, Closure, Edit, Function, FunctionRef, Span, TritonObject
from kernel_rewrite.rewrite.edits import apply_edits
from kernel_rewrite.source.files import Project, SourceFile
from kernel_rewrite.source.names import binding_of, module_scope


def copied_text(file: SourceFile, function: Function, name: str, edits: Iterable[Edit], jit: str = "") -> str:
    """The definition of `function` as `name`, with `edits` made; decorated with `jit` when that is given."""
    node = function.node
    changes = [*edits, Edit(name_span(file, node), name, "a copy for this output")]
    for decorator in node.decorator_list if jit else ():
        spelled = decorator.func if isinstance(decorator, ast.Call) else decorator
        changes.append(Edit(Span.of(file.path, spelled), jit, "as this file spells it"))
    text = apply_edits(file, changes, _definition_span(file, node))
    return _dedented(text.replace("\r\n", "\n").replace("\r", "\n"), function.nesting) + "\n"


def imports_for_copy(
    ref: FunctionRef, closure: Closure, here: SourceFile, project: Project, access: str = "store"
) -> list[str]:
    """Import lines that give a copy of another file's helper the names it uses there.

    Raises FusionRefused (KR213, for a "load" KR228) when a name means something else in the kernel's file, or cannot be
    imported into it.
    """
    function, there = closure.function(ref), project.file(ref.file)
    assert function is not None and there is not None
    if len(function.node.decorator_list) > 1:
        raise FusionRefused((_cannot_copy(function, there, "its decorators", access),))
    bindings = closure.bindings.get(ref.file, {}).items()
    used = {name: meaning for name, meaning in bindings if _uses_name(function, name)}
    lines, missing = imports_of(used, there, here, project)
    if missing:
        raise FusionRefused((_cannot_copy(function, there, f"`{missing}`", access),))
    return lines


def imports_of(
    used: Mapping[str, Binding], there: SourceFile, here: SourceFile, project: Project
) -> tuple[list[str], str]:
    """Import lines that give the names `used` the meanings in `here` that they have in `there`; and the first name for which
    there is none, because it means something else in `here` or cannot be imported, "" for none."""
    scope = module_scope(here, project)
    lines: list[str] = []
    by_module: dict[str, list[str]] = {}
    for name, meaning in used.items():
        found = scope.resolve(name)
        if found is not None and binding_of(found.meaning, name) == meaning:
            continue
        if found is not None:
            return [], name
        if isinstance(meaning, TritonObject):
            lines.append(_triton_import(name, meaning))
            continue
        module = _module_of(meaning, there, here, project)
        if not module:
            return [], name
        by_module.setdefault(module, []).append(name)
    return [*lines, *(f"from {m} import {', '.join(sorted(names))}" for m, names in by_module.items())], ""


def _triton_import(name: str, meaning: TritonObject) -> str:
    module, _, last = meaning.dotted.rpartition(".")
    if not module:
        return f"import {last}" + (f" as {name}" if name != last else "")
    return f"from {module} import {last}" + (f" as {name}" if name != last else "")


def _module_of(meaning: Binding, there: SourceFile, here: SourceFile, project: Project) -> str:
    """The module that `here` imports names of `there` from: relative when it imports from that package so itself."""
    if not there.location or not here.location:
        return ""
    root, target = _dotted(there.location)
    own_root, own = _dotted(here.location)
    relative = any(isinstance(node, ast.ImportFrom) and node.level for node in ast.walk(here.tree))
    if relative and root == own_root and len(own) > 1:
        package = own[:-1]
        common = next((i for i, (a, b) in enumerate(zip(package, target, strict=False)) if a != b), len(package))
        return "." * (len(package) - common + 1) + ".".join(target[common:])
    reachable = project.module(".".join(target), here)
    return ".".join(target) if reachable is not None and reachable.location == there.location else ""


def _dotted(location: str) -> tuple[str, list[str]]:
    """(folder that holds the top package, dotted parts) of a module file."""
    folder, file = os.path.split(location)
    parts = [] if file == "__init__.py" else [os.path.splitext(file)[0]]
    while os.path.isfile(os.path.join(folder, "__init__.py")):
        folder, package = os.path.split(folder)
        parts.insert(0, package)
    return folder, parts


def _cannot_copy(function: Function, file: SourceFile, what: str, access: str) -> Diagnostic:
    return Diagnostic(
        "KR213" if access == "store" else "KR228",
        f"the {access} stands in `{function.name}` of another file, which cannot be copied here",
        (Label(name_span(file, function.node), f"{what} means something else, or nothing, in the kernel's file"),),
        help=f"move `{function.name}` into the kernel's file, or rewrite {function.ref.file} itself",
    )


def _uses_name(function: Function, name: str) -> bool:
    nodes: Iterator[ast.AST] = (node for part in (function.node.args, *function.node.body) for node in ast.walk(part))
    return any(isinstance(node, ast.Name) and node.id == name for node in nodes)


def _definition_span(file: SourceFile, node: ast.FunctionDef) -> Span:
    """From the start of the first decorator's line to the end of the body."""
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    assert node.end_lineno is not None and node.end_col_offset is not None
    return Span(file.path, first, 0, node.end_lineno, node.end_col_offset)


def name_span(file: SourceFile, node: ast.FunctionDef) -> Span:
    """The name in `def name(...)`."""
    line_start = file.offset(node.lineno, 0)
    match = re.compile(r"def\s+").search(file.text, file.offset(node.lineno, node.col_offset))
    assert match is not None
    column = len(file.text[line_start : match.end()].encode())
    return Span(file.path, node.lineno, column, node.lineno, column + len(node.name.encode()))


def _dedented(text: str, columns: int) -> str:
    if not columns:
        return text
    return "\n".join(line[columns:] if not line[:columns].strip() else line for line in text.split("\n"))
