"""The digest of all that a fusion of one kernel depends on, statement by statement: it stays the same when something else
in the files changes.

A file is taken as its top-level statements. To a kernel belong the statements that define it, those that mention it, in
as many steps as it takes (a launcher, what calls the launcher), and whatever all these mention, in other files too.
Names are compared as they are written, not resolved: too much may belong to a kernel, never too little.
"""

from __future__ import annotations

import ast
import hashlib
import os
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from kernel_rewrite.source.files import Project, SourceFile
from kernel_rewrite.source.syntax import children, walk

_CONTROL = re.compile(r"#\s*kernel-rewrite:.*")
_EVERYTHING = "*"


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """`digest` of what a kernel depends on, and the locations of the files beside its own that hold some of it."""

    digest: str
    files: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Import:
    """One name that an import binds: `member` of the module, or the module itself when that is "" ("*": all of it)."""

    name: str
    module: str
    level: int
    member: str


@dataclass(frozen=True, slots=True, eq=False)
class _Statement:
    """One top-level statement: its text, the names it binds at module level, the names of all functions defined in it,
    those it reads, those used as attributes, and those whose value it may change."""

    text: str
    binds: frozenset[str]
    functions: frozenset[str]
    reads: frozenset[str]
    attributes: frozenset[str]
    changes: frozenset[str]
    is_definition: bool


@dataclass(frozen=True, slots=True, eq=False)
class _Module:
    """One file: its statements, its imports, and for each name the attributes that are read of it anywhere ("" where it
    is used as a whole)."""

    file: SourceFile
    statements: tuple[_Statement, ...]
    imports: tuple[_Import, ...]
    members: dict[str, set[str]]

    def binds(self, name: str) -> bool:
        return any(name in s.binds for s in self.statements)


def fingerprint(
    file: SourceFile,
    kernel: str,
    project: Project,
    allowed: Collection[str] | None = None,
    called: Iterable[str] = (),
    beside: Iterable[tuple[SourceFile, str]] = (),
) -> Fingerprint:
    """What `kernel` of `file`, the functions `called` of the same file and the kernels `beside` it depend on. `allowed` are
    the locations of the other files to follow imports into: those that the fusion has read; None for every file of the
    project. Raises FusionRefused when one of them cannot be read."""
    walk = _Walk(project, allowed)
    home = walk.module(file)
    for statement in _upwards(home.statements, kernel):
        walk.take(home, statement)
    for name in called:
        walk.want(home, name)
    for other, name in beside:
        module = walk.module(other)
        for statement in _upwards(module.statements, name):
            walk.take(module, statement)
    walk.finish()
    others = sorted(key for key, taken in walk.taken.items() if taken and key != _key(file))
    return Fingerprint(_digest(walk, file), tuple(others))


def _upwards(statements: tuple[_Statement, ...], kernel: str) -> list[_Statement]:
    """The statements that define `kernel`, and whatever mentions what they bind, and so on."""
    found = [s for s in statements if kernel in s.functions or kernel in s.binds]
    names = {kernel} | {name for s in found for name in s.binds}
    while True:
        more = [s for s in statements if s not in found and not names.isdisjoint(s.reads | s.attributes)]
        if not more:
            return found
        found += more
        names |= {name for s in more for name in s.binds}


def _digest(walk: _Walk, file: SourceFile) -> str:
    """Of the statements taken, in their order, and of every comment to this tool in the kernel's file."""
    folder = os.path.dirname(_key(file)) or "."
    names = {key: "" if key == _key(file) else os.path.relpath(key, folder) for key in walk.taken}
    state = hashlib.sha256()
    for key in sorted(walk.taken, key=names.__getitem__):
        texts = [s.text for s in walk.modules[key].statements if s in walk.taken[key]]
        for text in (names[key], *texts) if texts else ():
            state.update(_bytes(text))
    for comment in _CONTROL.findall(file.text):
        state.update(_bytes(comment.rstrip()))
    return state.hexdigest()[:16]


def _bytes(text: str) -> bytes:
    return text.replace("\r\n", "\n").encode("utf-8", "surrogatepass") + b"\0"


class _Walk:
    """What belongs to the kernel so far, file by file, and the names whose meaning is still to be taken."""

    def __init__(self, project: Project, allowed: Collection[str] | None) -> None:
        self.modules: dict[str, _Module] = {}
        self.taken: dict[str, set[_Statement]] = {}
        self._project = project
        self._allowed = allowed
        self._wanted: list[tuple[_Module, str]] = []
        self._seen: set[tuple[str, str]] = set()

    def module(self, file: SourceFile) -> _Module:
        key = _key(file)
        if key not in self.modules:
            self.modules[key] = _module(file, self._project)
            self.taken[key] = set()
        return self.modules[key]

    def take(self, module: _Module, statement: _Statement) -> None:
        """Takes one statement, and notes the names it reads."""
        taken = self.taken[_key(module.file)]
        if statement not in taken:
            taken.add(statement)
            for name in statement.reads:
                self.want(module, name)

    def finish(self) -> None:
        """Takes what every noted name means, until there is nothing new."""
        while self._wanted:
            module, name = self._wanted.pop()
            for statement in _meaning(module, name):
                self.take(module, statement)
            for imported in module.imports:
                if imported.name == name or (imported.name == _EVERYTHING and not module.binds(name)):
                    self._follow(module, imported, name)

    def want(self, module: _Module, name: str) -> None:
        """Notes a name that `module` reads."""
        key = (_key(module.file), name)
        if key not in self._seen:
            self._seen.add(key)
            self._wanted.append((module, name))

    def _follow(self, module: _Module, imported: _Import, name: str) -> None:
        member = name if imported.member == _EVERYTHING else imported.member
        if member:  # a name of a module, or a module of a package
            found = self._found(module, imported.module, imported.level)
            if found is not None:
                self.want(found, member)
            inner = f"{imported.module}.{member}" if imported.module else member
            self._want_members(module, self._found(module, inner, imported.level), name)
            return
        parts = imported.module.split(".")
        for count in range(1, len(parts) + 1):
            self._want_members(module, self._found(module, ".".join(parts[:count]), imported.level), name)

    def _want_members(self, module: _Module, found: _Module | None, name: str) -> None:
        """Notes the names of `found` that `module` reads through `name`; all of them if it is used as a whole."""
        if found is None:
            return
        members = module.members.get(name, {""})
        for member in members if "" not in members else {n for s in found.statements for n in s.binds}:
            self.want(found, member)

    def _found(self, importer: _Module, name: str, level: int) -> _Module | None:
        place = self._project.place_of(name, importer.file, level)
        if place is None or (self._allowed is not None and place not in self._allowed):
            return None
        file = self._project.module(name, importer.file, level)
        return None if file is None else self.module(file)


def _meaning(module: _Module, name: str) -> Iterator[_Statement]:
    """The statements that bind `name`, and, where it is no function or class, those that may change its value."""
    binding = [s for s in module.statements if name in s.binds]
    yield from binding
    if any(not s.is_definition for s in binding):
        yield from (s for s in module.statements if name in s.changes)


def _key(file: SourceFile) -> str:
    return file.location or file.path


# ----------------------------------------------------------------------------------------------- reading one module


def _module(file: SourceFile, project: Project) -> _Module:
    key = ("statements", file)
    known = project.memory.get(key)
    if not isinstance(known, _Module):
        known = project.memory[key] = _read(file)
    return known


def _read(file: SourceFile) -> _Module:
    ends = [*file.line_starts[1:], len(file.text)]
    lines = [file.text[start:end] for start, end in zip(file.line_starts, ends, strict=True)]
    members: dict[str, set[str]] = {}
    imports: list[_Import] = []
    statements = []
    for node in file.tree.body:
        statements.append(_statement(node, lines, members))
        imports += _imports(node)
    return _Module(file, tuple(statements), tuple(imports), members)


def _statement(node: ast.stmt, lines: list[str], members: dict[str, set[str]]) -> _Statement:
    first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
    reads, attributes, changes, functions = set(), set(), set(), set()
    whole: dict[int, str] = {}
    for inner in walk(node):  # what is around a node comes before it
        match inner:
            case ast.Name(id=name):
                reads.add(name)
                members.setdefault(name, set()).add(whole.get(id(inner), ""))
            case ast.Attribute(attr=name):
                attributes.add(name)
                whole[id(inner.value)] = name
                base = inner.value
                if isinstance(base, ast.Attribute):  # package.module.name: every part may be the one that counts
                    members.setdefault(_root(base), set()).add(name)
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                functions.add(name)
            case ast.Global(names=names):
                changes.update(names)
        changes.update(_changed(inner))
    return _Statement(
        "".join(lines[first - 1 : node.end_lineno]),
        frozenset(_bound([node])),
        frozenset(functions),
        frozenset(reads),
        frozenset(attributes),
        frozenset(changes),
        isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom)),
    )


def _changed(node: ast.AST) -> Iterator[str]:
    """The names whose value `node` may change in place: `x[i] = ...`, `x.y = ...`, `x.append(...)`."""
    if isinstance(node, (ast.Subscript, ast.Attribute)) and not isinstance(node.ctx, ast.Load):
        yield _root(node)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        yield _root(node.func)


def _root(node: ast.expr) -> str:
    while isinstance(node, (ast.Attribute, ast.Subscript)):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def _bound(body: list[ast.stmt]) -> Iterator[str]:
    """The names that the statements bind in their own scope, whichever way their branches go."""
    for node in body:
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
                continue
            case ast.Import() | ast.ImportFrom():
                yield from (imported.name for imported in _imports(node))
                continue
        for inner in _own_nodes(node):
            if isinstance(inner, ast.Name) and not isinstance(inner.ctx, ast.Load):
                yield inner.id
            elif isinstance(inner, ast.stmt) and inner is not node:
                yield from _bound([inner])
            elif isinstance(inner, (ast.ExceptHandler, ast.MatchAs, ast.MatchStar)) and inner.name:
                yield inner.name


def _own_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """`node` and what is in it, but not what is inside another statement of its blocks."""
    waiting = [node]
    while waiting:
        current = waiting.pop()
        yield current
        if current is node or not isinstance(current, ast.stmt):
            waiting += children(current)


def _imports(node: ast.stmt) -> Iterator[_Import]:
    """What the imports in `node` bind, wherever in it: a function may import what it needs."""
    for inner in walk(node):
        if isinstance(inner, ast.Import):
            for alias in inner.names:
                yield _Import(alias.asname or alias.name.partition(".")[0], alias.name, 0, "")
        elif isinstance(inner, ast.ImportFrom):
            for alias in inner.names:
                yield _Import(alias.asname or alias.name, inner.module or "", inner.level, alias.name)
