"""The `kernel-rewrite` command: the only place that prints and that chooses exit codes.

0: done; 1: refused, or a difference found; 2: wrong usage, or an error of kernel-rewrite itself. Results go to stdout,
messages to stderr. Everything heavy is imported inside the command that needs it.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, NoReturn

import click

from kernel_rewrite import __version__

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kernel_rewrite.diagnostics import Diagnostic
    from kernel_rewrite.results import Fused, Inspection
    from kernel_rewrite.source.files import Project

REFUSED, ERROR = 1, 2

_FORMAT = click.option(
    "--format", "output_format", type=click.Choice(["text", "json"]), default="text", show_default=True
)
_NO_CACHE = click.option(
    "--no-cache", is_flag=True, help="Compute the answer even if it is known for these very files."
)
_KERNEL = click.option("--kernel", metavar="NAME", help="The kernel to work on; needed when the file has several.")
_SET = click.option(
    "--set",
    "constexprs",
    multiple=True,
    metavar="NAME=VALUE",
    help="Fix a compile-time parameter instead of inferring it.",
)
_DTYPE = click.option(
    "--dtype",
    "dtypes",
    multiple=True,
    metavar="PARAM=TYPE",
    help="Fix an element type, e.g. c_ptr=fp16, instead of inferring it.",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, no_args_is_help=True)
@click.version_option(__version__, prog_name="kernel-rewrite")
def cli() -> None:
    """Fuse pointwise ops into a hand-written Triton kernel: a new, readable, proved source file.

    \b
    Examples:
      kernel-rewrite fuse matmul.py --epilogue relu
      kernel-rewrite fuse norm.py --kernel rms_norm --epilogue y_ptr=silu -o norm_silu.py
      kernel-rewrite inspect matmul.py
      kernel-rewrite explain KR201
    """


def main() -> None:
    """Run the command; errors of kernel-rewrite itself end with exit code 2 and a report of what to send."""
    cli(prog_name="kernel-rewrite")


@cli.command()
@click.argument("source", metavar="SRC.py")
@_KERNEL
@click.option(
    "--epilogue",
    "epilogues",
    multiple=True,
    required=True,
    metavar="OP|OUT=OP",
    help="The op to apply to what is stored, e.g. relu, 'leaky_relu(0.2)' or c_ptr=gelu. Once for each output.",
)
@click.option(
    "--operand",
    "operands",
    multiple=True,
    metavar="NAME=KIND[:TYPE]",
    help="Declare what an epilogue reads beside x: scalar, row (one value a column), column (one value a row) or tile.",
)
@click.option("--no-launcher", is_flag=True, help="Rewrite the kernel alone and print what its launches must now pass.")
@click.option(
    "-o", "--output", metavar="FILE", help="Where to write; '-' for stdout. Default: <stem>_<op>.py beside the source."
)
@click.option("--diff", "show_diff", is_flag=True, help="Print the diff and write nothing.")
@click.option(
    "--numerics",
    type=click.Choice(["eager", "fused"]),
    default="eager",
    show_default=True,
    help="eager: round to the output's type between kernel and op, as the unfused pair does; fused: keep the precision.",
)
@_SET
@_DTYPE
@click.option(
    "--assume",
    multiple=True,
    metavar="NAME",
    help="Take a statement from you: no-alias, fully-written, float-elements.",
)
@_FORMAT
@_NO_CACHE
@click.option("--force", is_flag=True, help="Overwrite a file that kernel-rewrite did not generate.")
@click.option(
    "--check-resources",
    metavar="TARGET",
    help="Compile both kernels for TARGET (e.g. sm_90) and warn where the fused one spills more or no longer fits.",
)
def fuse(
    source: str,
    kernel: str | None,
    epilogues: tuple[str, ...],
    operands: tuple[str, ...],
    no_launcher: bool,
    output: str | None,
    show_diff: bool,
    numerics: str,
    constexprs: tuple[str, ...],
    dtypes: tuple[str, ...],
    assume: tuple[str, ...],
    output_format: str,
    no_cache: bool,
    force: bool,
    check_resources: str | None,
) -> None:
    """Write a copy of SRC.py in which every store to an output stores OP of the value.

    \b
    Examples:
      kernel-rewrite fuse matmul.py --epilogue relu              writes matmul_relu.py
      kernel-rewrite fuse matmul.py --epilogue c_ptr=gelu --diff shows the change
      kernel-rewrite fuse matmul.py --epilogue 'clamp(0, 6)' -o -
    """
    with _reporting(source, output_format):
        from kernel_rewrite.cache import cached
        from kernel_rewrite.project.files import default_output, write_generated

        options: dict[str, Any] = {
            "kernel": kernel, "operands": operands, "launcher": not no_launcher, "numerics": numerics, "constexprs": constexprs, "dtypes": dtypes, "assume": assume
        }  # fmt: skip

        def compute(project: Project) -> Fused:
            _start_compiler()
            from kernel_rewrite.fuse import fuse as fuse_source

            return fuse_source(source, epilogues, **options, project=project)

        request = ("fuse", source, epilogues, tuple(options.items()))
        fused = cached(request, compute, enabled=not no_cache)
        written = ""
        if show_diff:
            click.echo(fused.diff, nl=False)
        elif output == "-":
            click.echo(fused.source, nl=False)
        else:
            written = write_generated(output or default_output(source, fused.name), fused, force=force)
        if output_format == "json":
            click.echo(_as_json(_fused_json(fused, written)), err=output == "-" or show_diff)
            return
        for statement in fused.statements:
            click.echo(f"proved: {statement}", err=True)
        for assumption in fused.assumptions:
            click.echo(f"assumed ({assumption.name}): {assumption.statement}", err=True)
        for sentence in fused.contract:
            click.echo(f"to pass: {sentence}", err=True)
        if written:
            click.echo(f"wrote {written}", err=True)
        if check_resources is not None:
            from kernel_rewrite.bench.commands import resource_warnings
            from kernel_rewrite.diagnostics import render

            for warning in resource_warnings(fused, check_resources, constexprs, dtypes):
                click.echo(render(warning, _texts(source, [warning])), err=True)


@cli.command()
@click.argument("source", metavar="SRC.py")
@_KERNEL
@_SET
@_DTYPE
@_FORMAT
@_NO_CACHE
def inspect(
    source: str,
    kernel: str | None,
    constexprs: tuple[str, ...],
    dtypes: tuple[str, ...],
    output_format: str,
    no_cache: bool,
) -> None:
    """Show the inputs, outputs, loads and stores of each kernel, and which outputs can take an epilogue."""
    with _reporting(source, output_format):
        from kernel_rewrite.cache import cached

        def compute(project: Project) -> Inspection:
            _start_compiler()
            from kernel_rewrite.inspection import inspect as inspect_source

            return inspect_source(source, kernel=kernel, constexprs=constexprs, dtypes=dtypes, project=project)

        request = ("inspect", source, kernel, constexprs, dtypes)
        inspection = cached(request, compute, enabled=not no_cache)
        if output_format == "json":
            click.echo(_as_json(_inspection_json(inspection)))
        else:
            click.echo(_inspection_text(inspection))


@cli.command()
@click.argument("fused", metavar="FUSED.py")
@click.option(
    "--call",
    "calls",
    multiple=True,
    required=True,
    metavar="EXPR",
    help="A call of the module's launcher, e.g. 'add(randn(1000), randn(1000))'.",
)
@click.option("--original", metavar="SRC.py", help="The unfused file; by default the one the header names.")
@click.option("--seed", type=int, default=0, show_default=True, help="Repeats the drawn inputs.")
@click.option("--trials", type=int, help="How many variations of each call to run. Default: the whole plan.")
@click.option("--time-limit", type=float, default=300.0, show_default=True, metavar="SECONDS", help="When to give up.")
@click.option("--judge", type=click.Choice(["auto", "cuda", "interpreter"]), default="auto", show_default=True)
@click.option("--report", metavar="FILE", help="Write everything that was found as JSON, beside what is printed.")
@_FORMAT
def verify(
    fused: str,
    calls: tuple[str, ...],
    original: str | None,
    seed: int,
    trials: int | None,
    time_limit: float,
    judge: str,
    report: str | None,
    output_format: str,
) -> None:
    """Run the original kernel and the torch op against the fused file, and compare what they store.

    Runs on CUDA if there is a device, else in Triton's interpreter. This is the one command that runs your code.
    """
    with _reporting(fused, output_format):
        from kernel_rewrite.verify import render, to_json
        from kernel_rewrite.verify import verify as verify_file
        from kernel_rewrite.verify.progress import progress_bar

        with progress_bar(sys.stderr) as progress:
            verification = verify_file(
                fused,
                calls,
                original=original,
                seed=seed,
                trials=trials,
                judge=judge,
                time_limit=time_limit,
                progress=progress,
            )
        if report is not None:
            with click.open_file(report, "w", encoding="utf-8") as stream:
                stream.write(_as_json(to_json(verification)) + "\n")
        click.echo(_as_json(to_json(verification)) if output_format == "json" else render(verification))
    if not verification.ok:
        sys.exit(REFUSED)


@cli.command()
@click.argument("fused", metavar="FUSED.py")
@click.option(
    "--call", "calls", multiple=True, metavar="EXPR", help="A call of the module's launcher to time, as for verify."
)
@click.option("--seconds", type=float, default=2.0, show_default=True, help="How long each call is measured.")
@click.option("--plot", metavar="FILE", help="Write a bar chart (.svg, .png); needs matplotlib.")
@click.option("--static", is_flag=True, help="Compile both kernels and compare what they need; no GPU is used.")
@click.option("--target", "targets", default="sm_80,sm_90,sm_100", show_default=True, help="For --static.")
@click.option("--original", metavar="SRC.py", help="The unfused file; by default the one the header names.")
@_SET
@_DTYPE
@_FORMAT
def bench(
    fused: str,
    calls: tuple[str, ...],
    seconds: float,
    plot: str | None,
    static: bool,
    targets: str,
    original: str | None,
    constexprs: tuple[str, ...],
    dtypes: tuple[str, ...],
    output_format: str,
) -> None:
    """Time FUSED.py against its original and the op, on a GPU; with --static, compare the compiled kernels without one.

    \b
    Examples:
      kernel-rewrite bench add_relu.py --call "add(randn(2**27), randn(2**27))" --plot add.svg
      kernel-rewrite bench add_relu.py --static --target sm_90,gfx942
    """
    with _reporting(fused, output_format):
        from kernel_rewrite.bench import commands, measured
        from kernel_rewrite.bench import static as compiled

        if static:
            names = [name.strip() for name in targets.split(",")]
            report = commands.static_report(fused, original, names, constexprs, dtypes)
            as_json = output_format == "json"
            click.echo(_as_json(compiled.static_json(report)) if as_json else compiled.static_text(report))
            return
        speed = commands.speed_report(fused, original, calls, seconds)
        if plot is not None:
            commands.save_plot(speed, plot)
        as_json = output_format == "json"
        click.echo(_as_json(measured.speed_json(speed)) if as_json else measured.speed_text(speed))


@cli.command()
@click.argument("code", metavar="CODE")
def explain(code: str) -> None:
    """Print the page of a diagnostic: what it means, an example, the way out."""
    from kernel_rewrite.diagnostics import CODES, explanation

    try:
        click.echo(explanation(code.upper()), nl=False)
    except KeyError:
        import difflib

        close = difflib.get_close_matches(code.upper(), CODES, 3) or list(CODES)
        raise click.UsageError(f"no diagnostic `{code}`; known: {', '.join(close)}") from None


@cli.command()
@_FORMAT
def ops(output_format: str) -> None:
    """List the ops an epilogue can use."""
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
    if output_format == "json":
        click.echo(_as_json(rows))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("op", "meaning", "torch", box=None, pad_edge=False)
    for op in OPS.values():
        table.add_row(signature(op), op.formula, op.torch or "x.to(dtype).to(x.dtype)")
    Console(width=None if sys.stdout.isatty() else 200).print(table)
    click.echo("\nWhere bits differ from torch's: docs/numerics.md")


# ------------------------------------------------------------------------------------------------------------ reporting


def _as_json(value: object) -> str:
    import json  # not needed by --help and explain, which are to be instant

    return json.dumps(value, indent=2)


def _start_compiler() -> None:
    """Let the compiler process import triton while this one imports libcst."""
    from kernel_rewrite.ttir.lower import compiler

    compiler().start()


class _reporting:
    """Turns refusals and internal errors into messages and exit codes."""

    def __init__(self, source: str, output_format: str) -> None:
        self._source = source
        self._format = output_format

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        if error is None or isinstance(error, (SystemExit, click.ClickException, KeyboardInterrupt)):
            return
        from kernel_rewrite.diagnostics import FusionRefused

        if isinstance(error, BrokenPipeError):  # the reader of our output has left
            import os

            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(ERROR)
        if isinstance(error, FusionRefused):
            self._refuse(error.diagnostics)
        if isinstance(error, Exception):
            self._internal(error)

    def _refuse(self, diagnostics: tuple[Diagnostic, ...]) -> NoReturn:
        if self._format == "json":
            click.echo(_as_json({"version": 1, "ok": False, "diagnostics": [_json_of(d) for d in diagnostics]}))
        else:
            from kernel_rewrite.diagnostics import render

            sources = _texts(self._source, diagnostics)
            for diagnostic in diagnostics:
                click.echo(render(diagnostic, sources) + "\n", err=True)
        sys.exit(REFUSED)

    def _internal(self, error: Exception) -> NoReturn:
        import traceback

        lines = "".join(traceback.format_exception(error)).rstrip()
        code, message = _code_and_message(error)
        click.echo(f"error[{code}]: internal error of kernel-rewrite {__version__}: {message}\n\n{lines}\n", err=True)
        folder = getattr(error, "folder", None)
        enclosed = f"the folder {folder}" if folder else "the source file and the lines above"
        click.echo(f"Nothing was written. Please report this, with {enclosed}.", err=True)
        sys.exit(ERROR)


def _code_and_message(error: Exception) -> tuple[str, str]:
    """KR902 for a rewrite that was not confirmed, KR901 for any other bug."""
    text = str(error) or type(error).__name__
    return ("KR902", text.removeprefix("KR902: ")) if text.startswith("KR902: ") else ("KR901", text)


def _texts(source: str, diagnostics: Iterable[Diagnostic]) -> dict[str, str]:
    """The texts of the files that labels point into."""
    import tokenize

    texts = {}
    for file in {label.span.file for d in diagnostics for label in d.labels} | {source}:
        try:
            with tokenize.open(file) as stream:
                texts[file] = stream.read()
        except (OSError, SyntaxError, UnicodeDecodeError):
            continue
    return texts


def _json_of(value: Any) -> Any:
    """Dataclasses, enums and tuples as JSON."""
    import dataclasses
    import enum

    if isinstance(value, enum.Enum):
        return value.value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _json_of(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, (tuple, list, frozenset, set)):
        return [_json_of(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _json_of(item) for key, item in value.items()}
    return value if isinstance(value, (str, int, float, bool)) or value is None else str(value)


def _fused_json(fused: Any, written: str) -> dict[str, Any]:
    return {
        "version": 1,
        "ok": True,
        "kernel": fused.kernel,
        "epilogues": dict(fused.epilogues),
        "written": written or None,
        "diff": fused.diff,
        "proofs": [
            {
                "output": proof.output,
                "stores": [_json_of(span) for span in proof.stores],
                "specializations": [_json_of(s) for s in proof.specializations],
                "assumptions": [_json_of(a) for a in proof.assumptions],
            }
            for proof in fused.proofs
        ],
    }


def _inspection_json(inspection: Inspection) -> dict[str, Any]:
    kernels = [_json_of(kernel) for kernel in inspection.kernels]
    return {"version": 1, "path": inspection.path, "kernels": kernels}


def _inspection_text(inspection: Inspection) -> str:
    from kernel_rewrite.diagnostics import render

    lines = []
    for kernel in inspection.kernels:
        lines.append(f"{inspection.path}:{kernel.span.line}: {kernel.name}")
        if kernel.problems:
            lines += [_indented(render(problem, inspection.sources)) for problem in kernel.problems]
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
        lines.append(f"  inputs   {', '.join(kernel.inputs) or '-'}")
        for output in kernel.outputs:
            verdict = "write-only" if output.write_only else "cannot take an epilogue"
            if output.reasons and output.write_only_in:
                verdict += f" (only written in {len(output.write_only_in)} of {len(output.written_in)} specializations)"
            lines.append(f"  output   {output.name}  {'/'.join(output.element_types)}  {verdict}")
            lines += [_indented(render(reason, inspection.sources)) for reason in output.reasons]
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
