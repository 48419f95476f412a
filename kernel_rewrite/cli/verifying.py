"""`verify`: the one command that runs the user's code."""

from __future__ import annotations

import sys

import click

from kernel_rewrite.cli import options
from kernel_rewrite.cli.reporting import REFUSED, Reporter


@click.command()
@click.argument("fused", metavar="FUSED.py", type=click.Path())
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
@click.option("--trials", type=int, default=6, show_default=True, help="How many variations of each call to run.")
@click.option("--time-limit", type=float, default=300.0, show_default=True, metavar="SECONDS", help="When to give up.")
@click.option("--judge", type=click.Choice(["auto", "cuda", "interpreter"]), default="auto", show_default=True)
@options.reporting("text", "json")
def verify(
    reporter: Reporter,
    fused: str,
    calls: tuple[str, ...],
    original: str | None,
    seed: int,
    trials: int,
    time_limit: float,
    judge: str,
) -> None:
    """Run the original kernel and the torch op against the fused file, and compare what they store.

    Runs on CUDA if there is a device, else in Triton's interpreter. This is the one command that runs your code.

    \b
    Example:
      kernel-rewrite verify matmul_relu.py --call 'matmul(randn(96, 64), randn(64, 80))'
    """
    with reporter.errors("verify", fused):
        from kernel_rewrite.verify import render, to_json
        from kernel_rewrite.verify import verify as verify_file

        verification = verify_file(
            fused, calls, original=original, seed=seed, trials=trials, judge=judge, time_limit=time_limit
        )
        if reporter.format == "json":
            reporter.document(to_json(verification))
        else:
            click.echo(render(verification))
    if not verification.ok:
        sys.exit(REFUSED)
