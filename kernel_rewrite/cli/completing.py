"""What a shell offers for an option: read when a completion is asked for, and never with the user's code run."""

from __future__ import annotations

import re
from typing import Any

import click


def complete_kernel(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """The names of functions of SRC.py that stand under a decorator, as the text shows them."""
    source = context.params.get("source")
    try:
        with open(str(source), encoding="utf-8", errors="replace") as stream:
            text = stream.read()
    except OSError:
        return []
    return [name for name in re.findall(r"(?m)^@.*jit.*\n(?:@.*\n)*def (\w+)", text) if name.startswith(incomplete)]


def complete_op(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """The ops, after `OUT=` too."""
    from kernel_rewrite.pointwise.ops import OPS

    output, equals, op = incomplete.rpartition("=")
    return [f"{output}{equals}{name}" for name in OPS if name.startswith(op)]


def complete_code(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[Any]:
    """The codes with their titles."""
    from click.shell_completion import CompletionItem

    from kernel_rewrite.diagnostics import CODES

    return [CompletionItem(code, help=title) for code, title in CODES.items() if code.startswith(incomplete.upper())]
