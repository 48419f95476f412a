"""Source files as Python reads them: the text untouched, its tree, and where each import of it leads.

Nothing here runs or imports what it reads.
"""

from __future__ import annotations

import ast
import io
import os
import re
import sys
import tokenize
import warnings
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field

from kernel_rewrite.diagnostics import Diagnostic, FusionRefused, Label
from kernel_rewrite.model import Span

# The line ends of Python's tokenizer; `str.splitlines` also splits at form feeds, U+2028 and others.
_LINE_END = re.compile(r"\r\n|\r|\n")

# Folders beside which a repository keeps its packages: repo/src/package, repo/python/package.
_SOURCE_FOLDERS = ("", "src", "python")

# Packages whose names have a meaning of their own here, so that their source is never looked up.
_NEVER_READ = frozenset({"triton", "torch", "numpy"}) | sys.stdlib_module_names


@dataclass(frozen=True, slots=True, eq=False)
class SourceFile:
    """One Python file. `path` is the name shown to the user, `text` the decoded file with its own line ends and without
    a byte order mark, `encoding` what it was decoded with ("utf-8-sig" when it starts with that mark), `location` its
    absolute path ("" for text that is in no file)."""

    path: str
    text: str
    tree: ast.Module
    encoding: str = "utf-8"
    location: str = ""
    line_starts: tuple[int, ...] = field(default=(0,), repr=False)

    def offset(self, line: int, byte_column: int) -> int:
        """The index in `text` of a position as `ast` gives it: `line` from 1, `byte_column` in UTF-8 bytes from 0."""
        start = self.line_starts[line - 1]
        if byte_column == 0:
            return start
        end = self.line_starts[line] if line < len(self.line_starts) else len(self.text)
        content = self.text[start:end]
        if content.isascii():
            return start + byte_column
        return start + len(content.encode()[:byte_column].decode())

    def line(self, number: int) -> str:
        """The text of a line, with its end; "" where there is none. Lines end where `ast` ends them."""
        if not 1 <= number <= len(self.line_starts):
            return ""
        end = self.line_starts[number] if number < len(self.line_starts) else len(self.text)
        return self.text[self.line_starts[number - 1] : end]

    def slice(self, span: Span) -> str:
        """The text of `span`, exactly as it stands in the file."""
        return self.text[self.offset(span.line, span.column) : self.offset(span.end_line, span.end_column)]


def newline_of(text: str) -> str:
    """How the lines of `text` end."""
    return "\r\n" if "\r\n" in text else "\n"


def source_from_text(text: str, path: str = "<string>", *, encoding: str = "utf-8", location: str = "") -> SourceFile:
    """`text` as a `SourceFile`; refuses with KR101 when it is not valid Python."""
    text = text.removeprefix("\ufeff")
    starts = (0, *(match.end() for match in _LINE_END.finditer(text)))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(text)
    except SyntaxError as error:
        raise FusionRefused((_syntax_diagnostic(error, text, path, starts),)) from None
    except (ValueError, RecursionError, MemoryError) as error:
        label = Label(Span(path, 1, 0, 1, 0), str(error))
        raise FusionRefused((Diagnostic("KR101", f"`{path}` is not valid Python", (label,)),)) from None
    return SourceFile(path, text, tree, encoding, location, starts)


def read_file(path: str | os.PathLike[str]) -> SourceFile:
    """The file at `path`; refuses with KR113 when it cannot be read or decoded, KR101 when it is not valid Python."""
    shown = os.fspath(path)
    try:
        with open(shown, "rb") as stream:
            data = stream.read()
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        raise _unreadable(shown, (getattr(error, "strerror", None) or str(error)).lower()) from None
    return source_from_bytes(data, shown)


def source_from_bytes(data: bytes, shown: str) -> SourceFile:
    """`data` as the file at the path `shown`; refuses with KR113 when it cannot be decoded, KR101 when it is not valid
    Python."""
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise _unreadable(shown, f"byte {error.start} is not valid {error.encoding}") from None
    except (SyntaxError, LookupError, UnicodeError) as error:
        raise _unreadable(shown, str(error)) from None
    return source_from_text(text, shown, encoding=encoding, location=os.path.abspath(shown))


def _unreadable(path: str, why: str) -> FusionRefused:
    return FusionRefused((Diagnostic("KR113", f"`{path}` cannot be read: {why}"),))


def require_compiling(file: SourceFile) -> None:
    """Refuse with KR101 a file that parses and that Python would not compile: a `from __future__` import below other
    statements, a `return` outside a function."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(file.text, file.path, "exec", dont_inherit=True)
    except SyntaxError as error:
        raise FusionRefused((_syntax_diagnostic(error, file.text, file.path, file.line_starts),)) from None


def _syntax_diagnostic(error: SyntaxError, text: str, path: str, starts: tuple[int, ...]) -> Diagnostic:
    line = min(max(error.lineno or 1, 1), len(starts))
    start = starts[line - 1]
    characters = max((error.offset or 1) - 1, 0)
    column = len(text[start : start + characters].encode(errors="replace"))
    label = Label(Span(path, line, column, line, column + 1), error.msg)
    return Diagnostic("KR101", f"`{path}` is not valid Python", (label,))


class Project:
    """The files read so far, and the way from an import to the file it names.

    Files are read again when they change on disk. `memory` is where later stages keep what they derived from the files,
    for as long as this project lives.
    """

    def __init__(self, files: tuple[SourceFile, ...] = ()) -> None:
        self.memory: dict[Hashable, object] = {}
        self._files: dict[str, tuple[tuple[int, int] | None, SourceFile]] = {}
        self._tried: set[str] = set()
        self._modules: dict[tuple[str, str], str | None] = {}
        self._relative = not any(os.path.isabs(file.path) for file in files)
        for file in files:
            self.add(file)

    def add(self, file: SourceFile) -> SourceFile:
        """Takes `file` as it is, in place of what its path holds on disk."""
        self._files[file.location or file.path] = (None, file)
        return file

    def add_bytes(self, data: bytes, path: str) -> SourceFile:
        """Takes `data` in place of what the file at `path` holds on disk; refuses as `source_from_bytes` does."""
        self._relative = self._relative and not os.path.isabs(path)
        return self.add(source_from_bytes(data, path))

    def read(self, path: str | os.PathLike[str]) -> SourceFile:
        """The file at `path`, shown by that name; refuses as `read_file` does."""
        shown = os.fspath(path)
        if os.path.isabs(shown):
            self._relative = False
        location = os.path.abspath(shown)
        stamp = _stamp(location)
        known = self._files.get(location)
        if known is not None and (known[0] is None or known[0] == stamp):
            return known[1]
        self._tried.add(location)
        file = read_file(shown)
        self._files[location] = (stamp, file)
        if known is not None:
            self.memory.clear()
        return file

    def files(self) -> tuple[SourceFile, ...]:
        """Every file read so far."""
        return tuple(file for _, file in self._files.values())

    def locations(self) -> frozenset[str]:
        """Where every file is that was read, or could not be: what was found there has decided the answer."""
        return frozenset({*(file.location for file in self.files() if file.location), *self._tried})

    def sources(self) -> dict[str, str]:
        """The text of every file read so far by the name shown to the user, as `diagnostics.render` takes it."""
        return {file.path: file.text for file in self.files()}

    def consulted(self) -> dict[str, bool]:
        """Every place that was looked at to find and read the files so far, and whether a file is there: while neither
        this nor the files' contents change, the project reads as it does now."""
        places = {*self._files, *self._tried}
        for root, name in self._modules:
            base = os.path.join(root, *name.split(".")) if name else root
            places |= {os.path.join(base, "__init__.py"), *([f"{base}.py"] if name else [])}
        folders = {os.path.dirname(location) for location in {*self._files, *self._tried}}
        while folders:
            places |= {os.path.join(folder, marker) for folder in folders for marker in ("__init__.py", ".git")}
            folders = {os.path.dirname(folder) for folder in folders} - folders
        return {place: os.path.exists(place) for place in places}

    def file(self, path: str) -> SourceFile | None:
        """The file shown as `path`, when it was read before."""
        return next((file for file in self.files() if file.path == path), None)

    def module(self, name: str, importer: SourceFile, level: int = 0) -> SourceFile | None:
        """The file of module `name` as `importer` would import it (`level` dots in front), None when it is not part of
        the project. Raises `FusionRefused` when there is such a file but it cannot be read."""
        found = self.place_of(name, importer, level)
        if found is None:
            return None
        return self.read(os.path.relpath(found) if self._relative else found)

    def place_of(self, name: str, importer: SourceFile, level: int = 0) -> str | None:
        """Where the file is that `module` would read; None when there is none."""
        return self._locate(name, importer.location, level) if importer.location else None

    def _locate(self, name: str, importer: str, level: int) -> str | None:
        folder = os.path.dirname(importer)
        if level:
            for _ in range(level - 1):
                folder = os.path.dirname(folder)
            return self._module_file(folder, name)
        if not name or name.partition(".")[0] in _NEVER_READ:
            return None
        return next((found for root in _roots(folder) if (found := self._module_file(root, name))), None)

    def _module_file(self, root: str, name: str) -> str | None:
        key = (root, name)
        if key not in self._modules:
            self._modules[key] = self._find(root, name)
        return self._modules[key]

    def _find(self, root: str, name: str) -> str | None:
        base = os.path.join(root, *name.split(".")) if name else root
        choices = (os.path.join(base, "__init__.py"), f"{base}.py") if name else (os.path.join(base, "__init__.py"),)
        return next((choice for choice in choices if choice in self._files or os.path.isfile(choice)), None)


def _stamp(location: str) -> tuple[int, int] | None:
    try:
        status = os.stat(location)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


def _roots(folder: str) -> Iterator[str]:
    """The folders an absolute import may start from, for a file in `folder`: the one above its outermost package first,
    then those further up, then its own folder, as for a script."""
    top = folder
    while os.path.isfile(os.path.join(top, "__init__.py")) and os.path.dirname(top) != top:
        top = os.path.dirname(top)
    ancestor = top
    while True:
        for part in _SOURCE_FOLDERS:
            yield os.path.join(ancestor, part) if part else ancestor
        parent = os.path.dirname(ancestor)
        if parent == ancestor or os.path.exists(os.path.join(ancestor, ".git")):
            break
        ancestor = parent
    while folder != top:
        yield folder
        folder = os.path.dirname(folder)
