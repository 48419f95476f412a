"""`fuse`: one file, or every entry of pyproject.toml."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from kernel_rewrite.arguments import given
from kernel_rewrite.cli import options
from kernel_rewrite.cli.checking import build_entries, configuration
from kernel_rewrite.cli.completing import complete_kernel
from kernel_rewrite.cli.reporting import Reporter, texts_of

if TYPE_CHECKING:
    from kernel_rewrite.results import Fused


@click.command()
@click.argument("source", metavar="[SRC.py]", required=False, type=click.Path())
@click.option(
    "--kernel",
    metavar="NAME",
    shell_complete=complete_kernel,
    help="The kernel to work on; needed when the file has several.",
)
@options.epilogues
@options.epilogue_kernels
@options.prologues
@options.operands
@options.keep_original
@options.drop
@options.partial
@click.option(
    "--launcher",
    type=click.Choice(["rewrite", "leave"]),
    default="rewrite",
    show_default=True,
    help="Whether the functions that launch the kernel take the operands and pass them on.",
)
@click.option(
    "--allow-in-place",
    is_flag=True,
    help="Short for --assume in-place: fuse into a buffer that the kernel reads too, element by element.",
)
@click.option("--no-launcher", is_flag=True, help="Short for --launcher leave: print what launches must now pass.")
@click.option(
    "--check-resources",
    metavar="TARGET",
    help="Compile both kernels for TARGET (e.g. sm_90) and warn where the fused one spills more or no longer fits.",
)
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=click.Path(),
    help="Where to write; '-' for stdout. Default: <stem>_<op>.py beside the source.",
)
@click.option("--diff", "show_diff", is_flag=True, help="Print the diff and write nothing.")
@click.option(
    "--numerics",
    type=click.Choice(["eager", "fused"]),
    default="eager",
    show_default=True,
    help="eager: round to the output's type between kernel and op, as the unfused pair does; fused: keep the precision.",
)
@options.constexprs
@options.dtypes
@click.option(
    "--assume",
    multiple=True,
    metavar="NAME",
    help="Take a statement from you: no-alias, input-apart, fully-written, float-elements, element-type, in-place.",
)
@options.stdin_filename
@options.config
@options.jobs
@options.no_cache
@click.option("--force", is_flag=True, help="Overwrite a file that kernel-rewrite did not generate.")
@options.reporting()
def fuse(
    reporter: Reporter,
    source: str | None,
    output: str | None,
    show_diff: bool,
    no_launcher: bool,
    allow_in_place: bool,
    check_resources: str | None,
    stdin_filename: str | None,
    config: str | None,
    jobs: int | None,
    no_cache: bool,
    force: bool,
    **arguments: Any,
) -> None:
    """Write a copy of SRC.py in which every store to an output stores OP of the value, or every load of an input gives OP of
    it.

    Without SRC.py: make every file that pyproject.toml lists. SRC.py may be '-', for stdin.

    \b
    Examples:
      kernel-rewrite fuse matmul.py --epilogue relu               writes matmul_relu.py
      kernel-rewrite fuse matmul.py --epilogue c_ptr=gelu --diff  shows the change
      kernel-rewrite fuse matmul.py --epilogue 'clamp(0, 6)' -o -
      kernel-rewrite fuse matmul.py --epilogue 'gelu(x + bias)' --operand bias=row
      kernel-rewrite fuse matmul.py --epilogue ops.py:epilogue    a function of x and operands
      kernel-rewrite fuse matmul.py --epilogue-kernel gelu.py:gelu_kernel   another kernel, inlined
      kernel-rewrite fuse matmul.py --epilogue 'softmax(relu(x), dim=-1)' --partial   relu in the kernel
      kernel-rewrite fuse matmul.py --prologue b_ptr=sigmoid      works on what is loaded
      kernel-rewrite fuse pair.py --epilogue 'c_ptr=silu(gate_ptr) * x' --drop gate_ptr
      kernel-rewrite fuse - --stdin-filename matmul.py --epilogue relu < matmul.py
      kernel-rewrite fuse --jobs 8                                every entry of pyproject.toml
    """
    if source is None:
        alone = {
            "--epilogue": arguments["epilogues"],
            "--epilogue-kernel": arguments["epilogue_kernels"],
            "--prologue": arguments["prologues"],
            "--drop": arguments["drop"],
            "--kernel": arguments["kernel"],
            "-o": output,
            "--diff": show_diff,
        }
        if any(alone.values()):
            raise click.UsageError("Missing argument 'SRC.py'.")
        with reporter.errors("fuse"):
            build_entries(reporter, configuration(config), jobs=jobs, use_cache=not no_cache, force=force)
        return
    options.require_ops(arguments)
    if no_launcher:
        arguments["launcher"] = "leave"
    if allow_in_place:
        arguments["assume"] = (*arguments["assume"], "in-place")
    text = None
    if source == "-":
        text = sys.stdin.buffer.read()
        source, output = stdin_filename or "stdin.py", output or "-"
    with reporter.errors("fuse", source):
        fused = _fuse_one(reporter, source, text, output, given(arguments), show_diff, not no_cache, force)
        if check_resources is not None:
            from kernel_rewrite.bench.commands import resource_warnings

            warnings = resource_warnings(fused, check_resources, arguments["constexprs"], arguments["dtypes"])
            reporter.problems(warnings, source)


def _fuse_one(
    reporter: Reporter,
    source: str,
    text: bytes | None,
    output: str | None,
    arguments: tuple[tuple[str, str], ...],
    show_diff: bool,
    use_cache: bool,
    force: bool,
) -> Fused:
    from kernel_rewrite.project.build import fuse_entry
    from kernel_rewrite.project.entries import Entry
    from kernel_rewrite.project.files import default_output, write_generated

    fused = fuse_entry(Entry(source, output or "", arguments), use_cache=use_cache, text=text)
    written = ""
    if show_diff:
        click.echo(fused.diff, nl=False)
    elif output == "-":
        sys.stdout.buffer.write(fused.source.encode(fused.encoding))
        sys.stdout.buffer.flush()
    else:
        written = write_generated(output or default_output(source, fused.name), fused, force=force)
    _report(reporter, fused, written, source, to_stderr=output == "-" or show_diff)
    return fused


def _report(reporter: Reporter, fused: Fused, written: str, source: str, *, to_stderr: bool) -> None:
    from kernel_rewrite.cli import formats

    if reporter.format == "json":
        reporter.document(formats.fused_document(fused, written), to_stderr=to_stderr)
        return
    if reporter.format == "sarif":
        reporter.document(formats.sarif(fused.warnings, source, texts_of(source, fused.warnings)), to_stderr=to_stderr)
        return
    reporter.problems(fused.warnings, source)
    for statement in fused.statements:
        reporter.say(f"proved: {statement}")
    for assumption in fused.assumptions:
        reporter.say(f"assumed ({assumption.name}): {assumption.statement}")
    for specializations in [p.specializations for p in fused.proofs] + [p.specializations for p in fused.input_proofs]:
        for specialization in specializations:
            reporter.say(f"specialization: {specialization.origin or 'as inferred'}", 1)
    for sentence in fused.contract:
        reporter.say(f"to pass: {sentence}")
    if written:
        reporter.say(f"wrote {written}")
