"""Runs the examples of a Markdown document, from top to bottom: a block that starts with `# name.ext` becomes a file, a
console block is commands with their output."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from click.testing import CliRunner

from kernel_rewrite.cli import cli

_FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE_NAME = re.compile(r"# (\S+\.(?:py|toml|yaml))\n")
_COMMAND = re.compile(r"^\$ (.*)\n", re.MULTILINE)


_VERSION = re.compile(r"\b(triton|torch|kernel-rewrite) \d+\.\d+[\w.+]*", re.IGNORECASE)


_OTHER_PROGRAMS = ("cat", "cp", "git", "head", "mkdir", "pre-commit", "sed")

_ROOT = Path(__file__).parent.parent


# How many bits differ depends on the CPU.
_BITS = re.compile(r"(?:[\d,]+ (?:of [\d,]+ elements )?not )?bit-identical(?: \(max difference [^)]*\))?")


@dataclass(frozen=True)
class Command:
    """One `$ kernel-rewrite ...` line, the output that the document shows, and where that stands in the text."""

    line: str
    expected: str
    start: int
    end: int


def blocks_of(text: str, language: str) -> list[str]:
    return [match[2] for match in _FENCE.finditer(text) if match[1] == language]


@dataclass(frozen=True)
class File:
    """A block that becomes a file."""

    path: Path
    content: str


def steps_of(text: str) -> list[Command | File]:
    """The files and the commands of a document, in order."""
    found: list[Command | File] = []
    for block in _FENCE.finditer(text):
        name = _FILE_NAME.match(block[2])
        if name and block[1] in ("python", "toml", "yaml"):
            content = block[2] if block[1] == "python" else block[2][name.end() :]
            found.append(File(Path(name[1]), content))
        if block[1] == "console":
            found += _commands(block)
    return found


def commands_of(text: str) -> list[Command]:
    """The commands of every console block, in order."""
    return [step for step in steps_of(text) if isinstance(step, Command)]


def _commands(block: re.Match[str]) -> list[Command]:
    found = []
    commands = list(_COMMAND.finditer(block[2]))
    assert commands and commands[0].start() == 0, f"a console block starts with a command: {block[2]!r}"
    for command, after in zip(commands, [*commands[1:], None], strict=True):
        start, end = command.end(), after.start() if after else len(block[2])
        found.append(Command(command[1], block[2][start:end], block.start(2) + start, block.start(2) + end))
    return found


def output_of(line: str) -> tuple[int, str]:
    """Exit code of a `kernel-rewrite` command, and what it prints on stdout and stderr, as a terminal shows them."""
    program, *arguments = shlex.split(line)
    if program in _OTHER_PROGRAMS:
        with tempfile.TemporaryDirectory() as programs:
            environment = _environment(Path(programs))
            pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
            ran = subprocess.run(["sh", "-c", line], text=True, check=False, env=environment, **pipes)
        return ran.returncode, _as_on_a_terminal(ran.stdout)
    assert program == "kernel-rewrite", line
    result = CliRunner().invoke(cli, arguments, prog_name=program)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, _as_on_a_terminal(result.output)


def _as_on_a_terminal(output: str) -> str:
    lines = (text.rstrip() for text in output.strip("\n").split("\n"))
    return "".join(f"{text}\n" for text in lines) if output.strip() else ""


def _environment(programs: Path) -> dict[str, str]:
    """An environment in which `python`, `kernel-rewrite` and `pre-commit` are those under test, and git knows an author."""
    for name, module in (("python", ""), ("kernel-rewrite", "-m kernel_rewrite"), ("pre-commit", "-m pre_commit")):
        (programs / name).write_text(f'#!/bin/sh\nexec {sys.executable} {module} "$@"\n')
        (programs / name).chmod(0o755)
    author = {f"GIT_{who}_{what}": "a@b.c" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    return {
        **os.environ,
        **author,
        "GIT_CONFIG_GLOBAL": os.devnull,
        "PATH": os.pathsep.join([str(programs), os.environ["PATH"]]),
        "PYTHONPATH": os.pathsep.join([str(_ROOT), os.environ.get("PYTHONPATH", "")]),
    }


def _comparable(output: str, expected: str) -> tuple[str, str]:
    """Both without versions and, where torch's own rounding on this machine's CPU is at work, without its bits."""
    both = [_VERSION.sub(r"\1", text) for text in (output, expected)]
    if "not bit-identical" in expected:
        both = [_BITS.sub("nearly bit-identical", text) for text in both]
    return both[0], both[1]


def check(
    document: Path,
    folder: Path,
    *,
    accept: bool = False,
    exact: bool = True,
    settled: Callable[[str], str] = str,
) -> list[tuple[Command, int, str]]:
    """Run every command of `document` in `folder` and require its output; `accept` writes it instead.

    Without `exact`, outputs may differ. `settled` puts back what the test itself has changed in an output.
    """
    text = document.read_text(encoding="utf-8")
    before = os.getcwd()
    os.chdir(folder)
    ran = []
    try:
        for step in steps_of(text):
            if isinstance(step, Command):
                ran.append((step, *output_of(step.line)))
            else:
                step.path.parent.mkdir(parents=True, exist_ok=True)
                step.path.write_text(step.content, encoding="utf-8")
    finally:
        os.chdir(before)
    results = [(command, exit_code, settled(output)) for command, exit_code, output in ran]
    for command, exit_code, output in results:
        assert exit_code in (0, 1) or "error[KR603]" in output, f"$ {command.line}\n{output}"
    if accept:
        for command, _, output in reversed(results):
            text = text[: command.start] + output + text[command.end :]
        document.write_text(text, encoding="utf-8")
        return results
    for command, _, output in results if exact else ():
        found, wanted = _comparable(output, command.expected)
        assert found == wanted, f"$ {command.line}"
    return results
