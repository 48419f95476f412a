"""What is printed, in which format, and the exit code of whatever goes wrong."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

import click

from kernel_rewrite import __version__

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from kernel_rewrite.diagnostics import Diagnostic

REFUSED, ERROR = 1, 2

_WRONG_USAGE = frozenset({"KR603"})
"""Codes of what is not refused but wrong: they end with ERROR."""


class Reporter:
    """Prints in one format. Text goes to stderr, so that stdout holds results alone; every other format is a result."""

    def __init__(self, output_format: str = "text", color: str = "auto", verbosity: int = 0) -> None:
        self.format = output_format
        self.verbosity = verbosity
        self._color = color

    @property
    def colored(self) -> bool:
        """Whether stderr gets colours: as `--color` says, else as NO_COLOR does, else on a terminal."""
        if self._color != "auto":
            return self._color == "always"
        return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb" and sys.stderr.isatty()

    def say(self, text: str, level: int = 0) -> None:
        """A message for the human, unless `--quiet` or another format is asked for; level 1 needs `--verbose`."""
        if self.format == "text" and self.verbosity >= level:
            click.echo(text, err=True)

    def document(self, value: Any, *, to_stderr: bool = False) -> None:
        """A JSON document."""
        import json  # not needed by --help and explain, which are to be instant

        click.echo(json.dumps(value, indent=2), err=to_stderr)

    def problems(self, diagnostics: Iterable[Diagnostic], source: str = "") -> None:
        """Each diagnostic as text, one line or annotation; the formats that are one document are left to `refuse`."""
        diagnostics = tuple(diagnostics)
        from kernel_rewrite.cli import formats

        if self.format == "concise":
            for diagnostic in diagnostics:
                click.echo(formats.concise(diagnostic, source))
        elif self.format == "github":
            for diagnostic in diagnostics:
                click.echo(formats.annotation(diagnostic, source))
        elif self.format == "text":
            from kernel_rewrite.diagnostics import Severity, render

            shown = [d for d in diagnostics if self.verbosity >= 0 or d.severity is Severity.ERROR]
            sources = texts_of(source, shown)
            for diagnostic in shown:
                text = render(diagnostic, sources, color=self.colored)
                click.echo(f"{text}\n", err=True, color=self.colored or None)

    def refuse(self, command: str, diagnostics: tuple[Diagnostic, ...], source: str) -> NoReturn:
        """The reasons why nothing was done, and the exit code."""
        from kernel_rewrite.cli import formats

        if self.format == "json":
            self.document(formats.refusal(command, diagnostics))
        elif self.format == "sarif":
            self.document(formats.sarif(diagnostics, source, texts_of(source, diagnostics)))
        else:
            self.problems(diagnostics, source)
        sys.exit(ERROR if any(d.code in _WRONG_USAGE for d in diagnostics) else REFUSED)

    @contextmanager
    def errors(self, command: str, source: str = "") -> Iterator[None]:
        """Turns refusals and internal errors of the block into messages and exit codes."""
        try:
            yield
        except (SystemExit, click.ClickException, click.Abort, KeyboardInterrupt):
            raise
        except BrokenPipeError:  # the reader of our output has left
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(ERROR)
        except Exception as error:
            from kernel_rewrite.diagnostics import FusionRefused

            if isinstance(error, FusionRefused):
                self.refuse(command, error.diagnostics, source)
            import traceback

            trace = "".join(traceback.format_exception(error)).rstrip()
            internal_error(str(error) or type(error).__name__, trace, getattr(error, "folder", None))
            click.echo("Nothing was written.", err=True)
            sys.exit(ERROR)


def internal_error(message: str, trace: str, folder: str | None) -> None:
    """Says what happened and what to send. KR902 for a rewrite that was not confirmed, KR901 for any other bug."""
    code, _, rest = message.partition(": ") if message.startswith("KR902: ") else ("KR901", "", message)
    click.echo(f"error[{code}]: internal error of kernel-rewrite {__version__}: {rest}\n\n{trace}\n", err=True)
    enclosed = f"the folder {folder}" if folder else "the source file and the lines above"
    click.echo(f"Please report this, with {enclosed}.", err=True)


def texts_of(source: str, diagnostics: Iterable[Diagnostic]) -> dict[str, str]:
    """The texts of the files that labels point into."""
    import tokenize

    texts = {}
    for file in {label.span.file for d in diagnostics for label in d.labels} | {source}:
        try:
            with tokenize.open(file) as stream:
                texts[file] = stream.read()
        except (OSError, SyntaxError, ValueError, LookupError):
            continue
    return texts
