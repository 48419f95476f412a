"""Adding an entry to a pyproject.toml: the one place where a file of the user is changed, at its end."""

from __future__ import annotations

import os
from pathlib import Path

from kernel_rewrite.arguments import ARGUMENTS, OPS, Given, Shape, name_and_text, with_paths
from kernel_rewrite.diagnostics import Diagnostic, FusionRefused
from kernel_rewrite.project.entries import read_configuration
from kernel_rewrite.project.files import replace_file


def add_entry(config: str, source: str, output: str, given: Given) -> None:
    """Append a fusion to the file at `config`, which is made if there is none.

    Raises FusionRefused: KR113 when there is no `source`, KR602 when the file cannot be written, KR603 when it is wrong,
    before or with the new entry; then it stays as it was.
    """
    if not os.path.isfile(source):
        raise FusionRefused((Diagnostic("KR113", f"`{source}` cannot be read: no such file"),))
    path = Path(config)
    try:
        before = path.read_bytes() if path.exists() else b""
    except OSError as error:
        raise _unwritable(config, error) from error
    if before:
        read_configuration(config)
    root = os.path.dirname(os.path.abspath(config))
    given = tuple((option, _placed(option, text, root)) for option, text in given)
    newline = b"\r\n" if b"\r\n" in before else b"\n"
    text = entry_text(_relative(source, root), _relative(output, root), given).encode().replace(b"\n", newline)
    gap = b"" if not before else newline if before.endswith(b"\n") else newline * 2
    try:
        replace_file(path, before + gap + text)
        try:
            read_configuration(config)
        except FusionRefused:
            replace_file(path, before) if before else path.unlink()
            raise
    except OSError as error:
        raise _unwritable(config, error) from error


def entry_text(source: str, output: str, given: Given) -> str:
    """The entry as TOML."""
    lines = ["[[tool.kernel-rewrite.fusion]]", f"source = {_quoted(source)}", f"output = {_quoted(output)}"]
    for argument in ARGUMENTS:
        texts = [text for option, text in given if option == argument.option]
        if texts:
            lines.append(f"{argument.key} = {_value(argument.shape, texts)}")
    return "\n".join(lines) + "\n"


def _value(shape: Shape, texts: list[str]) -> str:
    if shape is Shape.FLAG:
        return "true"
    if shape is Shape.TEXT:
        return _quoted(texts[0])
    pairs = [name_and_text(text) for text in texts]
    if shape is Shape.NAMED and all(name and name.isidentifier() and name.isascii() for name, _ in pairs):
        return "{ " + ", ".join(f"{name} = {_quoted(text)}" for name, text in pairs) + " }"
    return "[" + ", ".join(map(_quoted, texts)) + "]"


def _quoted(text: str) -> str:
    if "'" not in text and text.isprintable() and ('"' in text or "\\" in text):
        return f"'{text}'"
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in escaped) + '"'


def _placed(option: str, text: str, root: str) -> str:
    """A function of a file as it is named in `root`."""
    return with_paths(text, lambda path: _relative(path, root)) if option in OPS else text


def _relative(path: str, root: str) -> str:
    return os.path.relpath(path, root).replace(os.sep, "/")


def _unwritable(config: str, error: OSError) -> FusionRefused:
    return FusionRefused((Diagnostic("KR602", f"{config} cannot be written: {(error.strerror or '').lower()}"),))
