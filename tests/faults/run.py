"""Spoils many right fusions in many ways and counts what the two judges say.

python tests/faults/run.py                           every fixture, four ops
python tests/faults/run.py --corpus DIR              and kernels of public packages unpacked under DIR
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

from kernel_rewrite.diagnostics import FusionRefused  # noqa: E402
from kernel_rewrite.model import InternalError  # noqa: E402
from kernel_rewrite.ttir.lower import compiler  # noqa: E402
from tests.faults.cases import FIXTURES, Case, fixture_cases, standing_in  # noqa: E402
from tests.faults.generator import FAULTS, Scene, faults  # noqa: E402
from tests.faults.judges import Compiled, Verdict, judged  # noqa: E402
from tests.faults.loads import PROLOGUE_FAULTS  # noqa: E402

OPS = ("relu", "gelu", "sigmoid", "clamp(-1, 1)")


@dataclass
class Tally:
    """What was found in one share of the fusions. `alone`: what validation accepts and only the guard of the syntax tree
    rejects: it has the right bits by a rule of validation (`commutes`), or validation has a hole."""

    table: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    wrong: list[str] = field(default_factory=list)
    alone: list[str] = field(default_factory=list)
    fusions: int = 0
    published: int = 0

    def add(self, other: Tally) -> None:
        for kind, row in other.table.items():
            self.table[kind].update(row)
        self.wrong += other.wrong
        self.alone += other.alone
        self.fusions += other.fusions
        self.published += other.published


def cases(options: argparse.Namespace, part: int) -> Iterator[tuple[int, Case]]:
    """The fusions of one of `options.jobs` shares, numbered as in the whole."""
    requests = (p for p in FIXTURES.glob("*/request.txt") if options.only in p.parent.name)
    folders = sorted(p.parent for p in requests if not options.prologues or "--prologue" in p.read_text())
    for index, folder in enumerate(folders if not options.skip_fixtures else ()):
        if index % options.jobs != part:
            continue
        ops = OPS if options.all_ops else (OPS[index % 4],)
        with standing_in(folder), contextlib.suppress(FusionRefused):
            yield from ((index, case) for case in fixture_cases(folder, ops))
    if options.corpus:
        from tests.faults.corpus import corpus_cases

        share = [index for index in range(options.kernels) if index % options.jobs == part]
        first = sum(1 for index in range(options.kernels) if index % options.jobs < part)
        yield from enumerate(corpus_cases(options.corpus, len(share), options.skip + first), len(folders) + first)


def tally(options: argparse.Namespace, part: int) -> Tally:
    """Spoils each fusion of a share and asks the judges."""
    started = time.monotonic()
    found = Tally()
    for number, case in cases(options, part):
        if time.monotonic() - started > options.seconds:
            break
        found.fusions += 1
        found.published += "::" in case.name
        try:
            case.accept()
        except InternalError as error:
            found.wrong.append(f"{case.name}: the right rewrite is rejected: {error}")
            print(found.wrong[-1], flush=True)
            continue
        scene = Scene.of(case)
        for fault in faults(scene, options.per_kind, options.seed + number, (*FAULTS, *PROLOGUE_FAULTS)):
            text = scene.spoiled(fault)
            verdict = judged(text, case)
            count(found.table[fault.kind], verdict)
            if verdict.is_hole:
                said = f"{case.name}: {fault.kind}: {fault.what}: {verdict}"
                (found.wrong if verdict.is_wrong else found.alone).append(said)
                print("WRONGLY ACCEPTED" if verdict.is_wrong else "ACCEPTED BY VALIDATION ALONE", said, flush=True)
                if options.keep:
                    options.keep.mkdir(parents=True, exist_ok=True)
                    name = f"{part}_{len(found.wrong) + len(found.alone)}"
                    (options.keep / f"{name}_right.py").write_text(ast.unparse(scene.tree))
                    (options.keep / f"{name}_wrong.py").write_text(text)
        done = sum(c["mutants"] for c in found.table.values())
        print(f"{number} {case.name} {time.monotonic() - started:.0f} s {done}", file=sys.stderr, flush=True)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--corpus", type=Path)
    parser.add_argument("--kernels", type=int, default=50, help="how many kernels of the corpus")
    parser.add_argument("--skip", type=int, default=0, help="leave out this many of the corpus")
    parser.add_argument("--only", default="", help="only fixtures whose name holds this")
    parser.add_argument("--prologues", action="store_true", help="only fixtures that ask for a prologue")
    parser.add_argument("--skip-fixtures", action="store_true")
    parser.add_argument("--all-ops", action="store_true", help="every op on every fixture, not one each")
    parser.add_argument("--per-kind", type=int, default=4, help="at most this many faults of a kind a fusion")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=1e9, help="begin no fusion after this long")
    parser.add_argument("--markdown", type=Path, help="where to write the table")
    parser.add_argument("--keep", type=Path, help="where to write what validation wrongly accepted")
    options = parser.parse_args()
    started = time.monotonic()
    found = Tally()
    with ProcessPoolExecutor(options.jobs) as pool:
        for share in pool.map(tally, [options] * options.jobs, range(options.jobs)):
            found.add(share)
    summary = (
        f"{found.fusions} fusions ({found.published} of them of public kernels), {len(found.wrong)} wrongly judged, "
        f"{len(found.alone)} rejected by the guard of the syntax tree alone though they compile to something else"
    )
    print(shown(found.table))
    print(f"{summary}, {time.monotonic() - started:.0f} s")
    if options.markdown:
        options.markdown.write_text(page(found, summary), encoding="utf-8")
    return 1 if found.wrong or found.alone else 0


def count(row: Counter[str], verdict: Verdict) -> None:
    row["mutants"] += 1
    row["differ"] += verdict.differs
    row["rejected"] += verdict.differs and verdict.rejected
    row["source"] += verdict.differs and bool(verdict.source)
    row[verdict.compiled.value] += 1


def page(found: Tally, summary: str) -> str:
    """The results as a Markdown page."""
    lines = [
        "# Wrong rewrites",
        "",
        f"Made by `tests/faults/run.py` with Triton {compiler().triton_version}: small faults put into right fusions, and what",
        "the two judges of `rewrite/confirm.py` say of each (the guard of the syntax tree, and translation validation).",
        "",
        f"{summary}.",
        "",
        shown(found.table),
        "",
        "`differ`: the mutant is another program. It is none when it compiles to the text of the right rewrite, equals it",
        "after Triton's own optimisation (names of values apart), or has the same terms in the same order of effects.",
        "`rejected`: of those that differ, stopped by either judge; `source`: by the guard of the syntax tree. The other",
        "columns say what validation says, asked alone.",
        "",
    ]
    for title, some in (("Wrongly judged", found.wrong), ("Accepted by validation alone", found.alone)):
        if some:
            lines += [f"## {title}", "", *(f"- {line}" for line in some), ""]
    return "\n".join(lines)


COLUMNS = ("mutants", "differ", "rejected", "source", *(c.value for c in Compiled))


def shown(table: dict[str, Counter[str]]) -> str:
    lines = ["| fault | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    total: Counter[str] = Counter()
    for kind, row in sorted(table.items()):
        total.update(row)
        lines.append(f"| {kind} | " + " | ".join(str(row[column]) for column in COLUMNS) + " |")
    lines.append("| all | " + " | ".join(str(total[column]) for column in COLUMNS) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
