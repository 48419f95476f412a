"""The fusions of a repository, as `[tool.kernel-rewrite]` of its pyproject.toml lists them.

This and `state` are all that `check` needs while nothing has changed: they import nothing heavy.
"""

from __future__ import annotations

import difflib
import os
import re
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kernel_rewrite.arguments import ARGUMENTS, CONFIGURATION, Argument, Given, Shape, given, keywords, with_paths

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from kernel_rewrite.diagnostics import FusionRefused

_TABLE = "tool.kernel-rewrite"
_HEAD = re.compile(r"""^\s*\[\[\s*tool\s*\.\s*["']?kernel-rewrite["']?\s*\.\s*fusion\s*\]\]""")


@dataclass(frozen=True, slots=True)
class Entry:
    """One fusion: from `source`, to `output` (paths as shown to the user), with the arguments `given`. `calls` are the
    launcher calls that `verify` runs."""

    source: str
    output: str
    given: Given
    calls: tuple[str, ...] = ()

    @property
    def arguments(self) -> dict[str, Any]:
        """As keyword arguments of `fuse`."""
        return keywords(self.given)


@dataclass(frozen=True, slots=True)
class Configuration:
    """The entries of the pyproject.toml at `path`, in their order."""

    path: str
    entries: tuple[Entry, ...]


def find_configuration(start: str = ".") -> str | None:
    """The nearest pyproject.toml in `start` or above that has a `[tool.kernel-rewrite]` table; None without one."""
    folder = os.path.abspath(start)
    while True:
        path = os.path.join(folder, CONFIGURATION)
        if _mentions_the_table(path):
            return _shown(path)
        parent = os.path.dirname(folder)
        if parent == folder:
            return None
        folder = parent


def _mentions_the_table(path: str) -> bool:
    try:
        with open(path, "rb") as stream:
            return re.search(rb"(?m)^\s*\[.*kernel-rewrite", stream.read()) is not None
    except OSError:
        return False


def read_configuration(path: str) -> Configuration:
    """The configuration at `path`. Raises FusionRefused (KR603) with the line of the first thing that is wrong."""
    try:
        with open(path, "rb") as stream:
            text = stream.read().decode()
        table = tomllib.loads(text)
    except OSError as error:
        raise _wrong(_Place(path, ""), f"{path} cannot be read: {(error.strerror or str(error)).lower()}") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        line = re.search(r"line (\d+)", str(error))
        raise _wrong(
            _Place(path, "", known_line=int(line[1]) if line else 1), f"{path} is not valid TOML: {error}"
        ) from None
    place = _Place(path, text)
    tool = table.get("tool", {}).get("kernel-rewrite", {}) if isinstance(table.get("tool", {}), dict) else {}
    if not isinstance(tool, dict):
        raise _wrong(place.at_key("kernel-rewrite"), f"`{_TABLE}` must be a table")
    _known(place, tool, ("fusion", "numerics"))
    fusions = tool.get("fusion", [])
    if not isinstance(fusions, list) or not all(isinstance(fusion, dict) for fusion in fusions):
        raise _wrong(place.at_key("fusion"), f"`fusion` must be a list of tables, `[[{_TABLE}.fusion]]`")
    defaults = {"numerics": tool["numerics"]} if "numerics" in tool else {}
    entries = []
    for index, fusion in enumerate(fusions):
        at = place.of_entry(index)
        entries.append(_entry(at, {**defaults, **fusion}, os.path.dirname(os.path.abspath(path))))
    _each_output_once(place, entries)
    return Configuration(path, tuple(entries))


def _entry(place: _Place, fusion: dict[str, Any], root: str) -> Entry:
    _known(place, fusion, ("source", "output", "calls", *(argument.key for argument in ARGUMENTS)))
    for key in ("source", "output"):
        if key not in fusion:
            raise _wrong(place, f"this fusion has no `{key}`")
    if not {"epilogues", "epilogue-kernels", "prologues", "drop"} & fusion.keys():
        raise _wrong(place, "this fusion has no `epilogues`, no `prologues` and no `drop`")
    values: dict[str, str | bool | list[str] | None] = {}
    for argument in ARGUMENTS:
        if argument.key in fusion:
            values[argument.parameter] = _value(place.at_key(argument.key), argument, fusion[argument.key])
    for key in ("epilogues", "epilogue_kernels", "prologues"):
        texts = values.get(key) or []
        assert isinstance(texts, list)
        values[key] = [with_paths(text, lambda path: _shown(os.path.join(root, path))) for text in texts]
    paths = {key: _text(place.at_key(key), key, fusion[key]) for key in ("source", "output")}
    source, output = (_shown(os.path.join(root, path)) for path in (paths["source"], paths["output"]))
    if os.path.realpath(source) == os.path.realpath(output):
        raise _wrong(place.at_key("output"), "a fusion does not write its own source")
    return Entry(source, output, given(values), tuple(_texts(place.at_key("calls"), "calls", fusion)))


def _value(place: _Place, argument: Argument, value: object) -> str | bool | list[str]:
    if argument.shape is Shape.FLAG:
        if not isinstance(value, bool):
            raise _wrong(place, f"`{argument.key}` must be {argument.shape.value}")
        return value
    if argument.shape is Shape.TEXT:
        text = _text(place, argument.key, value)
        if argument.choices and text not in argument.choices:
            choices = " or ".join(f'"{choice}"' for choice in argument.choices)
            raise _wrong(place, f'`{argument.key}` is {choices}, not "{text}"')
        return text
    if isinstance(value, str):
        return [value]
    if argument.shape is Shape.NAMED and isinstance(value, dict):
        if all(isinstance(text, (str, int, float)) for text in value.values()):
            return [f"{name}={text}" for name, text in value.items()]
    if isinstance(value, list) and all(isinstance(text, str) for text in value):
        return value
    raise _wrong(place, f"`{argument.key}` must be {argument.shape.value}")


def _text(place: _Place, key: str, value: object) -> str:
    if not isinstance(value, str) or not value:
        raise _wrong(place, f"`{key}` must be a text")
    return value


def _texts(place: _Place, key: str, table: dict[str, Any]) -> list[str]:
    value = table.get(key, [])
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise _wrong(place, f"`{key}` must be a list of texts")
    return value


def _known(place: _Place, table: dict[str, Any], keys: tuple[str, ...]) -> None:
    for key in table:
        if key not in keys:
            close = difflib.get_close_matches(key, keys, 1)
            hint = f"did you mean `{close[0]}`?" if close else f"known: {', '.join(f'`{name}`' for name in keys)}"
            raise _wrong(place.at_key(key), f"unknown key `{key}`", hint)


def _each_output_once(place: _Place, entries: list[Entry]) -> None:
    seen: dict[str, int] = {}
    for index, entry in enumerate(entries):
        first = seen.setdefault(os.path.realpath(entry.output), index)
        if first != index:
            at = place.of_entry(index).at_key("output")
            raise _wrong(at, f"two fusions write {entry.output}; the other is in line {place.of_entry(first).line}")


def _shown(path: str) -> str:
    """`path` relative to the working directory, if that is not the longer way."""
    relative = os.path.relpath(path)
    return path if relative.startswith(os.path.join(*[".."] * 3)) else relative


# ------------------------------------------------------------------------------------------------------ where it stands


@dataclass(frozen=True, slots=True)
class _Place:
    """Something in the file: an entry, a key of it, or a key of the table itself. Its line is looked for only when there
    is something to say about it."""

    path: str
    text: str
    entry: int | None = None
    key: str = ""
    known_line: int = 0

    def of_entry(self, index: int) -> _Place:
        return _Place(self.path, self.text, index)

    def at_key(self, key: str) -> _Place:
        return _Place(self.path, self.text, self.entry, key)

    @property
    def line(self) -> int:
        """As far as a look at each line can tell."""
        if self.known_line:
            return self.known_line
        lines = self.text.split("\n")
        heads = [number for number, line in enumerate(lines, 1) if _HEAD.match(line)]
        first, last, key = 1, len(lines), self.key
        if self.entry is not None and self.entry < len(heads):
            first, last = [*heads, len(lines) + 1][self.entry : self.entry + 2]
            last -= 1
        elif self.entry is not None:  # fusion = [{...}, ...]
            key = key or "fusion"
        name = re.escape(key)
        setting = re.compile(
            rf"""^\s*["']?{name}["']?\s*[=.]|^\s*\[+[^\]]*\b{name}["']?\s*\]|[{{,]\s*["']?{name}["']?\s*="""
        )
        places = (number for number in range(first, last + 1) if key and setting.search(lines[number - 1]))
        return next(places, first)


def _wrong(place: _Place, message: str, help: str = "") -> FusionRefused:
    from kernel_rewrite.diagnostics import Diagnostic, FusionRefused, Label
    from kernel_rewrite.model import Span

    lines, number = place.text.split("\n"), place.line
    line = lines[number - 1].rstrip() if number <= len(lines) else ""
    start = len(line) - len(line.lstrip())
    span = Span(place.path, number, start, number, max(len(line.encode()), start + 1))
    return FusionRefused((Diagnostic("KR603", message, (Label(span),), help=help),))
