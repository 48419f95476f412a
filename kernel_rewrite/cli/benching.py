"""`bench`: is the fused kernel faster, and what does it need."""

from __future__ import annotations

import click

from kernel_rewrite.cli import options
from kernel_rewrite.cli.reporting import Reporter


@click.command()
@click.argument("fused", metavar="FUSED.py")
@click.option(
    "--call", "calls", multiple=True, metavar="EXPR", help="A call of the module's launcher to time, as for verify."
)
@click.option("--seconds", type=float, default=2.0, show_default=True, help="How long each call is measured.")
@click.option("--plot", metavar="FILE", help="Write a bar chart (.svg, .png); needs matplotlib.")
@click.option("--static", is_flag=True, help="Compile both kernels and compare what they need; no GPU is used.")
@click.option("--target", "targets", default="sm_80,sm_90,sm_100", show_default=True, help="For --static.")
@click.option("--original", metavar="SRC.py", help="The unfused file; by default the one the header names.")
@options.constexprs
@options.dtypes
@options.reporting("text", "json")
def bench(
    reporter: Reporter,
    fused: str,
    calls: tuple[str, ...],
    seconds: float,
    plot: str | None,
    static: bool,
    targets: str,
    original: str | None,
    constexprs: tuple[str, ...],
    dtypes: tuple[str, ...],
) -> None:
    """Time FUSED.py against its original and the op, on a GPU; with --static, compare the compiled kernels without one.

    \b
    Examples:
      kernel-rewrite bench add_relu.py --call "add(randn(2**27), randn(2**27))" --plot add.svg
      kernel-rewrite bench add_relu.py --static --target sm_90,gfx942
    """
    with reporter.errors("bench", fused):
        from kernel_rewrite.bench import commands, measured
        from kernel_rewrite.bench import static as compiled

        as_json = reporter.format == "json"
        if static:
            names = [name.strip() for name in targets.split(",")]
            report = commands.static_report(fused, original, names, constexprs, dtypes)
            if as_json:
                reporter.document(compiled.static_json(report))
            else:
                click.echo(compiled.static_text(report))
            return
        speed = commands.speed_report(fused, original, calls, seconds)
        if plot is not None:
            commands.save_plot(speed, plot)
        if as_json:
            reporter.document(measured.speed_json(speed))
        else:
            click.echo(measured.speed_text(speed))
