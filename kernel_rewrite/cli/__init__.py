"""The `kernel-rewrite` command: the only place that prints and that chooses exit codes.

0: done, or fresh; 1: refused, stale, or a difference found; 2: wrong usage or configuration, or an error of
kernel-rewrite itself. Results go to stdout, messages to stderr. Everything heavy is imported inside the command that
needs it.
"""

from __future__ import annotations

import gc

import click

from kernel_rewrite import __version__
from kernel_rewrite.cli.benching import bench
from kernel_rewrite.cli.checking import check, init
from kernel_rewrite.cli.fusing import fuse
from kernel_rewrite.cli.reading import completion, explain, inspect, ops
from kernel_rewrite.cli.verifying import verify


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, no_args_is_help=True)
@click.version_option(__version__, "--version", "-V", prog_name="kernel-rewrite")
def cli() -> None:
    """Fuse pointwise ops into a hand-written Triton kernel: a new, readable, proved source file.

    \b
    Examples:
      kernel-rewrite fuse matmul.py --epilogue relu
      kernel-rewrite fuse norm.py --kernel rms_norm --epilogue y_ptr=silu -o norm_silu.py
      kernel-rewrite inspect matmul.py
      kernel-rewrite explain KR201
    \b
    In a repository:
      kernel-rewrite init matmul.py --epilogue relu  lists a fusion in pyproject.toml
      kernel-rewrite fuse                            makes every file that is listed
      kernel-rewrite check --fix                     makes those again whose sources have changed
    """


for _command in (fuse, check, init, inspect, verify, bench, explain, ops, completion):
    cli.add_command(_command)


def main() -> None:
    """Run the command; errors of kernel-rewrite itself end with exit code 2 and a report of what to send."""
    gc.set_threshold(50_000, 20, 100)  # trees and modules are large and stay: going through them finds nothing
    cli(prog_name="kernel-rewrite")
