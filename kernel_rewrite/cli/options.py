"""The options that several commands share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import click

from kernel_rewrite.cli.completing import complete_op
from kernel_rewrite.cli.reporting import Reporter

FORMATS = ("text", "concise", "json", "sarif", "github")


def require_ops(arguments: Mapping[str, Any]) -> None:
    """Exit with what is wrong where nothing is asked for."""
    if not any(arguments[ops] for ops in ("epilogues", "epilogue_kernels", "prologues", "drop")):
        raise click.UsageError("Missing option '--epilogue', '--epilogue-kernel', '--prologue' or '--drop'.")


no_cache = click.option("--no-cache", is_flag=True, help="Compute the answer even if it is known for these very files.")
kernel = click.option("--kernel", metavar="NAME", help="The kernel to work on; needed when the file has several.")
constexprs = click.option(
    "--set",
    "constexprs",
    multiple=True,
    metavar="NAME=VALUE",
    help="Fix a compile-time parameter instead of inferring it.",
)
dtypes = click.option(
    "--dtype",
    "dtypes",
    multiple=True,
    metavar="PARAM=TYPE",
    help="Fix an element type, e.g. c_ptr=fp16, instead of inferring it.",
)
epilogues = click.option(
    "--epilogue",
    "epilogues",
    multiple=True,
    metavar="OP|OUT=OP",
    shell_complete=complete_op,
    help="The op to apply to what is stored, e.g. relu, 'leaky_relu(0.2)', c_ptr=gelu, or a function FILE.py:NAME, which "
    "is read and not run. Once for each output.",
)
epilogue_kernels = click.option(
    "--epilogue-kernel",
    "epilogue_kernels",
    multiple=True,
    metavar="FILE.py:KERNEL|OUT=FILE.py:KERNEL",
    help="A pointwise kernel of yours that runs behind this one, to be inlined: FILE.py:KERNEL(x_ptr) names the parameter "
    "that takes the output, where it loads several. Once for each output.",
)
prologues = click.option(
    "--prologue",
    "prologues",
    multiple=True,
    metavar="OP|IN=OP",
    shell_complete=complete_op,
    help="The op to apply to what is loaded, e.g. b_ptr=sigmoid. Once for each input.",
)
operands = click.option(
    "--operand",
    "operands",
    multiple=True,
    metavar="NAME=KIND[:TYPE]",
    help="Declare what an epilogue reads beside x: scalar, row (one value a column), column (one value a row) or tile; "
    "row:strided, column:strided and tile:strided have strides of their own; stored is what another output, NAME, gets.",
)
keep_original = click.option(
    "--keep-original",
    "keep_original",
    multiple=True,
    metavar="OUT=NAME",
    help="Store what the kernel stored to OUT before, too: to NAME, a new parameter, at the same places.",
)
drop = click.option(
    "--drop",
    "drop",
    multiple=True,
    metavar="OUT",
    help="Do without an output that nobody needs: its stores, its parameter and its buffer go. An epilogue may take what was "
    "stored there. Once for each output.",
)
partial = click.option(
    "--partial",
    is_flag=True,
    help="Fuse the longest part of an epilogue that can be, and compute the rest in torch where launchers return the output.",
)
stdin_filename = click.option(
    "--stdin-filename",
    metavar="FILE",
    help="The file whose text comes from stdin; its imports are looked up from there.",
)
config = click.option(
    "--config", metavar="FILE", help="The pyproject.toml to use; by default the nearest with entries."
)
jobs = click.option("--jobs", "-j", type=click.IntRange(1), metavar="N", help="How many entries to work on at a time.")


def reporting(*formats: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Adds `--format`, `--color`, `-q` and `-v`, and hands the command a `Reporter` as its first argument."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        def run(output_format: str, color: str, quiet: bool, verbose: bool, **arguments: Any) -> None:
            command(Reporter(output_format, color, -1 if quiet else int(verbose)), **arguments)

        run.__doc__, run.__name__ = command.__doc__, command.__name__
        run.__click_params__ = list(getattr(command, "__click_params__", []))  # type: ignore[attr-defined]
        for option in (
            click.option("--verbose", "-v", is_flag=True, help="Say more."),
            click.option("--quiet", "-q", is_flag=True, help="Say nothing but what is wrong."),
            click.option("--color", type=click.Choice(["auto", "always", "never"]), default="auto", show_default=True),
            click.option(
                "--format", "output_format", type=click.Choice(formats or FORMATS), default="text", show_default=True
            ),
        ):
            run = option(run)
        return run

    return decorate
