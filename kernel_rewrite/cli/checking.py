"""`check` and `init`, and `fuse` for all entries. While nothing has changed, only `project.entries` and `project.state`
are imported."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import click

from kernel_rewrite.arguments import CONFIGURATION, given
from kernel_rewrite.cli import options
from kernel_rewrite.cli.reporting import ERROR, REFUSED, Reporter, internal_error

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kernel_rewrite.project.build import Built, Task
    from kernel_rewrite.project.entries import Configuration, Entry
    from kernel_rewrite.project.state import Look


def configuration(path: str | None) -> Configuration:
    """The entries of the pyproject.toml at `path`, or of the nearest that has some."""
    from kernel_rewrite.project.entries import find_configuration, read_configuration

    found = path or find_configuration()
    if found is None:
        raise click.UsageError(
            f"no {CONFIGURATION} here or above has a [tool.kernel-rewrite] table; `kernel-rewrite init` writes one, and "
            "`kernel-rewrite fuse SRC.py --epilogue OP` needs none"
        )
    return read_configuration(found)


@click.command()
@click.argument("files", metavar="[FUSED.py]...", nargs=-1, type=click.Path())
@click.option("--fix", is_flag=True, help="Write what is stale.")
@click.option("--full", is_flag=True, help="Fuse everything again, even where digests show that nothing has changed.")
@options.config
@options.jobs
@options.no_cache
@options.reporting()
def check(
    reporter: Reporter,
    files: tuple[str, ...],
    fix: bool,
    full: bool,
    config: str | None,
    jobs: int | None,
    no_cache: bool,
) -> None:
    """Are the fused files what their sources give today? All that pyproject.toml lists, or those named.

    Exit code 0: yes. 1: no, and the diff is shown. A file that is in no list is made again from its own header.

    \b
    Examples:
      kernel-rewrite check                 digests first; fuses again only what they do not settle
      kernel-rewrite check --fix           writes what is stale
      kernel-rewrite check --full          fuses everything again
      kernel-rewrite check matmul_relu.py  one file
    """
    with reporter.errors("check"):
        from kernel_rewrite.project.state import Digests, Finding, look

        entries = _named(files, config) if files else configuration(config).entries
        digests = Digests()
        looks = [(entry, look(entry, digests)) for entry in entries]
        fresh = [entry for entry, found in looks if found.finding is Finding.FRESH and not full]
        doubtful = [(entry, found) for entry, found in looks if found.finding is not Finding.FRESH or full]
        for entry, found in doubtful:
            reporter.say(f"{entry.output}: {found.finding.value}", 1)
        _finish(reporter, "check", fresh, doubtful, fix=fix, full=full, jobs=jobs, use_cache=not no_cache)


def build_entries(reporter: Reporter, listed: Configuration, *, jobs: int | None, use_cache: bool, force: bool) -> None:
    """Makes every listed file, whatever digests say."""
    from kernel_rewrite.project.state import Digests, Finding, Look, look

    digests = Digests()
    looks = [(entry, look(entry, digests)) for entry in listed.entries]
    if force:
        looks = [
            (entry, Look(Finding.MISSING, found.text) if found.finding is Finding.FOREIGN else found)
            for entry, found in looks
        ]
    _finish(reporter, "fuse", [], looks, fix=True, full=True, jobs=jobs, use_cache=use_cache, force=force)


def _named(files: tuple[str, ...], config: str | None) -> tuple[Entry, ...]:
    """The entries of the files: as listed, else as their headers say."""
    from kernel_rewrite.project.entries import find_configuration, read_configuration
    from kernel_rewrite.project.state import entry_of_file

    path = config or find_configuration()
    listed = read_configuration(path).entries if path else ()
    known = {os.path.realpath(entry.output): entry for entry in listed}
    found = []
    for file in files:
        entry = known.get(os.path.realpath(file)) or entry_of_file(file)
        if entry is None:
            raise click.UsageError(f"{file} is neither listed in {path or CONFIGURATION} nor does it have a header")
        found.append(entry)
    return tuple(found)


def _finish(
    reporter: Reporter,
    command_name: str,
    fresh: Sequence[Entry],
    doubtful: Sequence[tuple[Entry, Look]],
    *,
    fix: bool,
    full: bool,
    jobs: int | None,
    use_cache: bool,
    force: bool = False,
) -> None:
    """Looks at what digests have not settled, reports and writes, and exits with the worst of it."""
    built: list[Built] = []
    written: set[str] = set()
    if doubtful:
        from kernel_rewrite.project.build import Task

        tasks = [Task(entry, found, full, use_cache) for entry, found in doubtful]
        for result in _with_progress(tasks, jobs or min(len(tasks), os.cpu_count() or 1), reporter):
            result = _settle(reporter, result, fix, force, written)
            built.append(result)
    _documents(reporter, command_name, fresh, built, written)
    outcomes = [result.outcome.value for result in built if result.entry.output not in written]
    counts = {name: outcomes.count(name) for name in ("stale", "refused", "failed")}
    settled = len(fresh) + outcomes.count("fresh")
    told = [f"{len(written)} written"] if written else []
    told += [f"{settled} fresh"] if settled or not (written or any(counts.values())) else []
    reporter.say(", ".join([*told, *(f"{count} {name}" for name, count in counts.items() if count)]))
    if counts["failed"]:
        sys.exit(ERROR)
    if counts["stale"] or counts["refused"]:
        sys.exit(REFUSED)


def _settle(reporter: Reporter, result: Built, fix: bool, force: bool, written: set[str]) -> Built:
    """Writes what is stale, if that is asked for, and reports it."""
    from dataclasses import replace

    from kernel_rewrite.diagnostics import FusionRefused
    from kernel_rewrite.project.build import Outcome
    from kernel_rewrite.project.files import write_generated

    entry = result.entry
    if result.fused is not None:
        reporter.problems(result.fused.warnings, entry.source)
    if result.outcome is Outcome.STALE and fix and result.fused is not None:
        try:
            write_generated(entry.output, result.fused, force=force)
        except FusionRefused as refusal:
            result = replace(result, outcome=Outcome.REFUSED, problems=refusal.diagnostics)
        else:
            written.add(entry.output)
            reporter.say(f"wrote {entry.output}")
            return result
    if result.outcome is Outcome.FAILED:
        internal_error(result.error.rpartition("\n")[2].partition(": ")[2], result.error, result.folder)
    reporter.problems(result.problems, entry.output if result.outcome is Outcome.STALE else entry.source)
    if result.outcome is Outcome.STALE and reporter.format == "text":
        click.echo(result.diff, nl=False)
    return result


def _documents(
    reporter: Reporter, command_name: str, fresh: Sequence[Entry], built: Sequence[Built], written: set[str]
) -> None:
    if reporter.format not in ("json", "sarif"):
        return
    from kernel_rewrite.cli import formats
    from kernel_rewrite.cli.reporting import texts_of

    if reporter.format == "json":
        reporter.document(formats.built_document(command_name, fresh, built, written))
        return
    problems = [(d, r.entry) for r in built if r.entry.output not in written for d in r.problems]
    texts = texts_of("", [d for d, _ in problems])
    reporter.document(formats.sarif_of([(d, entry.output) for d, entry in problems], texts))


def _with_progress(tasks: Sequence[Task], jobs: int, reporter: Reporter) -> Iterator[Built]:
    """The results of the tasks, with a bar on a terminal."""
    from kernel_rewrite.project.build import run_tasks

    results = run_tasks(tasks, jobs)
    if len(tasks) < 2 or not sys.stderr.isatty() or reporter.format != "text" or reporter.verbosity < 0:
        yield from results
        return
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True, no_color=not reporter.colored)
    yield from track(results, "fusing", len(tasks), console=console, transient=True)


# ----------------------------------------------------------------------------------------------------------------- init


@click.command()
@click.argument("source", metavar="SRC.py", type=click.Path())
@click.option("--kernel", metavar="NAME", help="The kernel, when the file has several.")
@options.epilogues
@options.epilogue_kernels
@options.prologues
@options.operands
@options.keep_original
@options.drop
@options.partial
@options.constexprs
@options.dtypes
@click.option("-o", "--output", metavar="FILE", type=click.Path(), help="The file to make. Default: as `fuse` has it.")
@click.option("--config", metavar="FILE", default=CONFIGURATION, show_default=True, help="The file to add to.")
@options.reporting("text")
def init(reporter: Reporter, source: str, output: str | None, config: str, **arguments: Any) -> None:
    """List a fusion in pyproject.toml, for `fuse`, `check` and the pre-commit hook.

    \b
    Example:
      kernel-rewrite init kernels/matmul.py --epilogue c_ptr=relu
    """
    options.require_ops(arguments)
    with reporter.errors("init", source):
        from kernel_rewrite.project.files import default_output
        from kernel_rewrite.project.writing import add_entry

        asked = given(arguments)
        add_entry(config, source, output or default_output(source, _name_of(source, **arguments)), asked)
        reporter.say(f"added to {config}; `kernel-rewrite fuse` makes the file, `kernel-rewrite check` watches over it")


def _name_of(
    source: str,
    epilogues: tuple[str, ...],
    epilogue_kernels: tuple[str, ...],
    prologues: tuple[str, ...],
    operands: tuple[str, ...],
    drop: tuple[str, ...],
    partial: bool,
    **_: Any,
) -> str:
    from kernel_rewrite.arguments import name_and_text, name_without
    from kernel_rewrite.functions import implied_operands, in_words
    from kernel_rewrite.pointwise.declarations import declared_operands, used_in
    from kernel_rewrite.pointwise.language import parse_epilogue
    from kernel_rewrite.selection import epilogue_of
    from kernel_rewrite.source.files import Project

    project = Project()
    written = declared_operands(operands)
    written |= implied_operands(drop, written, epilogues)
    stored, loaded, declared = in_words(epilogues, prologues, written, project, epilogue_kernels)
    before, behind = ([name_and_text(text)[1] for text in ops] for ops in (loaded, stored))
    file = project.read(source)
    names = [parse_epilogue(text, used_in(text, declared)).name for text in before]
    names += [epilogue_of(text, declared, file, project, partial=partial).name for text in behind]
    return "_".join(names) or name_without(drop)
