"""`verify`: the one command that runs the user's code."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from kernel_rewrite.cli import options
from kernel_rewrite.cli.checking import configuration
from kernel_rewrite.cli.reporting import REFUSED, Reporter


@click.command()
@click.argument("fused", metavar="[FUSED.py]", required=False, type=click.Path())
@click.option(
    "--call",
    "calls",
    multiple=True,
    metavar="EXPR",
    help="A call of the module's launcher, e.g. 'add(randn(1000), randn(1000))'. Default: those that its entry lists.",
)
@click.option("--original", metavar="SRC.py", help="The unfused file; by default the one the header names.")
@click.option("--seed", type=int, default=0, show_default=True, help="Repeats the drawn inputs.")
@click.option("--trials", type=int, help="How many variations of each call to run. Default: the whole plan.")
@click.option("--report", metavar="FILE", help="Write everything that was found as JSON, beside what is printed.")
@click.option("--time-limit", type=float, default=300.0, show_default=True, metavar="SECONDS", help="When to give up.")
@click.option("--judge", type=click.Choice(["auto", "cuda", "interpreter"]), default="auto", show_default=True)
@options.config
@options.reporting("text", "json")
def verify(
    reporter: Reporter,
    fused: str | None,
    calls: tuple[str, ...],
    config: str | None,
    report: str | None,
    **arguments: Any,
) -> None:
    """Run the original kernel and the torch op against the fused file, and compare what they store.

    Runs on CUDA if there is a device, else in Triton's interpreter. This is the one command that runs your code.

    Without FUSED.py: every file of pyproject.toml whose entry has `calls`.

    \b
    Examples:
      kernel-rewrite verify matmul_relu.py --call 'matmul(randn(96, 64), randn(64, 80))'
      kernel-rewrite verify
    """
    with reporter.errors("verify", fused or ""):
        from kernel_rewrite.verify import render, to_json
        from kernel_rewrite.verify import verify as verify_file
        from kernel_rewrite.verify.progress import progress_bar

        ok = True
        for file, expressions in _runs(fused, calls, config):
            with progress_bar(sys.stderr) as progress:
                verification = verify_file(file, expressions, **arguments, progress=progress)
            if report is not None:
                import json

                with click.open_file(report, "w", encoding="utf-8") as stream:
                    stream.write(json.dumps(to_json(verification), indent=2) + "\n")
            ok = ok and verification.ok
            if reporter.format == "json":
                reporter.document(to_json(verification))
            else:
                click.echo(render(verification))
    if not ok:
        sys.exit(REFUSED)


def _runs(fused: str | None, calls: tuple[str, ...], config: str | None) -> list[tuple[str, tuple[str, ...]]]:
    """Each file to verify, with its calls."""
    if fused is not None and calls:
        return [(fused, calls)]
    if calls:
        raise click.UsageError("Missing argument 'FUSED.py'.")
    from kernel_rewrite.project.entries import find_configuration

    if fused is not None and config is None and find_configuration() is None:
        raise click.UsageError("Missing option '--call'.")
    listed = [(entry.output, entry.calls) for entry in configuration(config).entries if entry.calls]
    if fused is not None:
        listed = [(file, own) for file, own in listed if os.path.realpath(file) == os.path.realpath(fused)]
    if not listed:
        raise click.UsageError("Missing option '--call', and no entry lists `calls`.")
    return listed
