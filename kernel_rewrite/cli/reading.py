"""`inspect`, `explain`, `ops` and `completion`: they only show."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from kernel_rewrite.cli import options
from kernel_rewrite.cli.completing import complete_code, complete_kernel
from kernel_rewrite.cli.reporting import Reporter

if TYPE_CHECKING:
    from kernel_rewrite.results import Inspection
    from kernel_rewrite.source.files import Project


@click.command()
@click.argument("source", metavar="SRC.py", type=click.Path())
@click.option(
    "--kernel", metavar="NAME", shell_complete=complete_kernel, help="One kernel; by default all of the file."
)
@options.constexprs
@options.dtypes
@options.stdin_filename
@options.no_cache
@options.reporting()
def inspect(
    reporter: Reporter,
    source: str,
    kernel: str | None,
    constexprs: tuple[str, ...],
    dtypes: tuple[str, ...],
    stdin_filename: str | None,
    no_cache: bool,
) -> None:
    """Show the inputs, outputs, loads and stores of each kernel, which outputs can take an epilogue, and which inputs a
    prologue.

    \b
    Examples:
      kernel-rewrite inspect matmul.py
      kernel-rewrite inspect norms.py --kernel rms_norm --dtype y_ptr=fp16
    """
    text = None
    if source == "-":
        text, source = sys.stdin.buffer.read(), stdin_filename or "stdin.py"
    with reporter.errors("inspect", source):
        from pathlib import Path

        from kernel_rewrite.cache import cached

        def compute(project: Project) -> Inspection:
            from kernel_rewrite.ttir.lower import compiler

            compiler().start()  # it imports triton while this process imports libcst
            from kernel_rewrite.inspection import inspect as inspect_source

            if text is not None:
                project.add_bytes(text, source)
            path = Path(source)
            return inspect_source(path, kernel=kernel, constexprs=constexprs, dtypes=dtypes, project=project)

        request = ("inspect", source, kernel, constexprs, dtypes)
        inspection = cached(request, compute, enabled=not no_cache and text is None)
        _show(reporter, inspection)


def _show(reporter: Reporter, inspection: Inspection) -> None:
    if reporter.format == "text":
        color = reporter.colored and sys.stdout.isatty()
        click.echo(_inspection_text(inspection, color), color=color or None)
        return
    from kernel_rewrite.cli import formats

    reasons = [d for k in inspection.kernels for d in (*k.problems, *(r for o in k.outputs for r in o.reasons))]
    if reporter.format == "json":
        reporter.document(formats.inspection_document(inspection))
    elif reporter.format == "sarif":
        reporter.document(formats.sarif(reasons, inspection.path, inspection.sources))
    else:
        if reporter.format == "concise":
            click.echo("\n".join(_one_line_each(inspection)))
        reporter.problems(reasons, inspection.path)


def _one_line_each(inspection: Inspection) -> list[str]:
    return [
        f"{inspection.path}:{kernel.span.line}:{kernel.span.column + 1}: {kernel.name}: `{output.name}` "
        f"({'/'.join(output.element_types)}) {'can' if output.write_only else 'cannot'} take an epilogue"
        for kernel in inspection.kernels
        for output in kernel.outputs
    ]


@click.command()
@click.argument("code", metavar="CODE", shell_complete=complete_code)
def explain(code: str) -> None:
    """Print the page of a diagnostic: what it means, an example, the way out.

    \b
    Example:
      kernel-rewrite explain KR201
    """
    from kernel_rewrite.diagnostics import CODES, explanation

    try:
        click.echo(explanation(code.upper()), nl=False)
    except KeyError:
        import difflib

        close = difflib.get_close_matches(code.upper(), CODES, 3) or list(CODES)
        raise click.UsageError(f"no diagnostic `{code}`; known: {', '.join(close)}") from None


@click.command()
@options.reporting("text", "json")
def ops(reporter: Reporter) -> None:
    """List the ops an epilogue can use.

    \b
    Example:
      kernel-rewrite ops
    """
    from kernel_rewrite.pointwise.language import signature
    from kernel_rewrite.pointwise.ops import OPS

    rows = [
        {
            "name": op.name,
            "aliases": list(op.aliases),
            "parameters": [p.name for p in op.parameters],
            "torch": op.torch,
            "formula": op.formula,
            "nan": op.nan,
            "differs": op.differs,
        }
        for op in OPS.values()
    ]
    if reporter.format == "json":
        reporter.document(rows)
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("op", "meaning", "torch", box=None, pad_edge=False)
    for op in OPS.values():
        table.add_row(signature(op), op.formula, op.torch or "x.to(dtype).to(x.dtype)")
    Console(width=None if sys.stdout.isatty() else 200).print(table)
    click.echo("\nWhere bits differ from torch's: docs/numerics.md")


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of a shell.

    \b
    Example:
      eval "$(kernel-rewrite completion bash)"    in ~/.bashrc
    """
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    assert found is not None
    if shell == "bash":  # click asks the installed bash for its version, on stderr if there is none
        found._check_version = staticmethod(lambda: None)  # type: ignore[attr-defined]
    root = click.get_current_context().find_root().command
    click.echo(found(root, {}, "kernel-rewrite", "_KERNEL_REWRITE_COMPLETE").source())


# --------------------------------------------------------------------------------------------------- inspect, in text


def _inspection_text(inspection: Inspection, color: bool) -> str:
    from kernel_rewrite.diagnostics import render

    lines = []
    for kernel in inspection.kernels:
        lines.append(f"{inspection.path}:{kernel.span.line}: {kernel.name}")
        if kernel.problems:
            lines += [_indented(render(problem, inspection.sources, color=color)) for problem in kernel.problems]
            lines.append("")
            continue
        lines.append("  parameters")
        width = max((len(fact.name) for fact in kernel.parameters), default=0)
        for fact in kernel.parameters:
            detail = f": {fact.detail}" if fact.detail else ""
            lines.append(f"    {fact.name:<{width}}  {_shown(fact)}  ({fact.evidence.value}{detail})")
        lines.append(f"  specializations ({'all' if kernel.complete else 'a covering set'})")
        lines += [f"    {origin}" for origin in kernel.specializations]
        lines += [f"    {origin or 'as inferred'}: rejected by Triton: {why}" for origin, why in kernel.rejected]
        lines.append("  accesses")
        for access in kernel.accesses:
            target = ", ".join(access.parameters) or "-"
            unseen = "" if access.lowered else "  [in no specialization]"
            lines.append(
                f"    {access.span.line}:{access.span.column + 1}  {access.effect:<13} {target:<14} {access.text}{unseen}"
            )
        for given in kernel.prologue_inputs:
            codes = ", ".join(dict.fromkeys(reason.code for reason in given.reasons))
            verdict = "read-only" if given.read_only else f"cannot take a prologue ({codes})"
            lines.append(f"  input    {given.name}  {'/'.join(given.element_types)}  {verdict}")
        for output in kernel.outputs:
            verdict = "write-only" if output.write_only else "cannot take an epilogue"
            if output.reasons and output.write_only_in:
                verdict += f" (only written in {len(output.write_only_in)} of {len(output.written_in)} specializations)"
            lines.append(f"  output   {output.name}  {'/'.join(output.element_types)}  {verdict}")
            lines += [_indented(render(reason, inspection.sources, color=color)) for reason in output.reasons]
        lines += [f"  note     {statement}" for statement in kernel.assumed_names]
        lines.append("")
    return "\n".join(lines).rstrip()


def _shown(fact: Any) -> str:
    if fact.kind == "constexpr":
        values = ", ".join(str(getattr(value, "name", value)) for value in fact.type)
        return f"constexpr {values}"
    return f"{fact.kind} {fact.type}"


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())
