"""A progress bar while kernels run, on a terminal alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from kernel_rewrite.verify.equivalence import Progress


@contextmanager
def progress_bar(stream: TextIO) -> Iterator[Progress | None]:
    """What to tell how far a run is; None where `stream` is no terminal. The bar is gone afterwards."""
    if not stream.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(file=stream), transient=True) as bar:
        task = bar.add_task("starting", total=None)

        def tell(done: int, of: int, inputs: str) -> None:
            bar.update(task, completed=done, total=of, description=inputs)

        yield tell
