"""Damaged kernel files: each is fused or refused, in time, without a traceback, and stays as it is.

    python tests/mutants/run.py --count 2000 --jobs 2      prints the counts, writes benchmarks/results/mutants.md

A mutant is a `before.py` of fixtures/rewrites with a few flipped bytes, a cut, swapped tokens or lines that moved; it goes
through `fuse`, with the request of its fixture, and through `inspect`.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import multiprocessing
import random
import shutil
import signal
import sys
import tempfile
import time
import tokenize
import traceback
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
SEEDS = sorted(path.parent for path in (ROOT / "fixtures" / "rewrites").glob("*/before.py"))
TIME_LIMIT = 120
"""Seconds for one mutant, on a busy machine."""


@dataclass(frozen=True)
class Outcome:
    """How one mutant ended: `fuse` and `inspect` each "done", a code, or what must not be. `trace` tells of the latter."""

    number: int
    seed: str
    kind: str
    fuse: str
    inspect: str
    trace: str = ""

    @property
    def bad(self) -> bool:
        return bool(self.trace)


# -------------------------------------------------------------------------------------------------------------- damage


def flip(data: bytes, chance: random.Random) -> bytes:
    damaged = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 5))):
        damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
    return bytes(damaged)


def truncate(data: bytes, chance: random.Random) -> bytes:
    start = chance.randrange(len(data)) if chance.random() < 0.2 else 0
    return data[start : chance.randrange(start, len(data))]


def swap_tokens(data: bytes, chance: random.Random) -> bytes:
    """Two tokens of the same type change places, so that the file is often still Python."""
    tokens = [
        t
        for t in tokenize.tokenize(io.BytesIO(data).readline)
        if t.type in (tokenize.NAME, tokenize.OP, tokenize.NUMBER, tokenize.STRING) and t.start[0] == t.end[0]
    ]
    first = chance.choice(tokens)
    second = chance.choice([t for t in tokens if t.type == first.type])
    lines = data.decode().split("\n")
    for token, text in sorted(
        [(first, second.string), (second, first.string)], key=lambda pair: pair[0].start, reverse=True
    ):
        line = lines[token.start[0] - 1]
        lines[token.start[0] - 1] = line[: token.start[1]] + text + line[token.end[1] :]
    return "\n".join(lines).encode()


def move_lines(data: bytes, chance: random.Random) -> bytes:
    lines = data.split(b"\n")
    taken = lines.pop(chance.randrange(len(lines)))
    if chance.random() < 0.7:
        lines.insert(chance.randrange(len(lines) + 1), taken)
    return b"\n".join(lines)


def respell(data: bytes, chance: random.Random) -> bytes:
    """Line ends, tabs, a byte order mark, an encoding line: some of these leave a good file."""
    changes = (
        lambda d: d.replace(b"\n", b"\r\n"),
        lambda d: d.replace(b"\n", b"\r"),
        lambda d: d.replace(b"    ", b"\t"),
        lambda d: b"\xef\xbb\xbf" + d,
        lambda d: (
            b"# -*- coding: " + chance.choice((b"latin-1", b"utf-7", b"rot13", b"utf-16", b"klingon")) + b" -*-\n" + d
        ),
        lambda d: d.decode().encode("utf-16"),
        lambda d: d.replace(b"\n", b"\x0c\n", 3),
        lambda d: d.replace(b" ", b"\xc2\xa0", 1),
        lambda d: d.rstrip(b"\n"),
    )
    return chance.choice(changes)(data)


KINDS = {"flip": flip, "truncate": truncate, "swap tokens": swap_tokens, "move lines": move_lines, "respell": respell}


# --------------------------------------------------------------------------------------------------------- one mutant


class Hang(Exception):
    pass


def _alarm(number: int, frame: Any) -> None:
    raise Hang


def examine(number: int) -> Outcome:
    """Makes mutant `number` and puts it through both commands."""
    chance = random.Random(number)
    seed = chance.choice(SEEDS)
    kind = chance.choice(list(KINDS))
    data = (seed / "before.py").read_bytes()
    for _ in range(chance.choice((1, 1, 1, 2))):
        with contextlib.suppress(SyntaxError, tokenize.TokenError, UnicodeDecodeError, IndexError):
            data = KINDS[kind](data, chance) or data
    with tempfile.TemporaryDirectory() as folder:
        for other in seed.glob("*.py"):
            shutil.copy(other, folder)
        path = Path(folder) / "before.py"
        path.write_bytes(data)
        before = {p.name: p.read_bytes() for p in Path(folder).iterdir()}
        traces: list[str] = []
        results = [_ended(command, str(path), seed, traces) for command in ("fuse", "inspect")]
        if {p.name: p.read_bytes() for p in Path(folder).iterdir()} != before:
            traces.append("a file of the user was touched")
    return Outcome(number, seed.name, kind, results[0], results[1], "\n".join(traces))


def _ended(command: str, path: str, seed: Path, traces: list[str]) -> str:
    from kernel_rewrite import FusionRefused, InternalError
    from kernel_rewrite.arguments import parse_command
    from kernel_rewrite.inspection import inspect
    from kernel_rewrite.project.build import fuse_entry
    from kernel_rewrite.project.entries import Entry

    request = (seed / "request.txt").read_text()
    for short, long in (("--no-launcher", "--launcher leave"), ("--allow-in-place", "--assume in-place")):
        request = request.replace(short, long)  # which it is short for
    command_given = parse_command(f"kernel-rewrite fuse - {request.strip()}")
    assert command_given is not None, request
    usual = signal.signal(signal.SIGALRM, _alarm)
    signal.alarm(TIME_LIMIT)
    try:
        if command == "fuse":
            fuse_entry(Entry(path, "", command_given[1]), use_cache=False)
        else:
            inspect(Path(path))
        return "done"
    except FusionRefused as refused:
        return refused.diagnostics[0].code
    except Hang:
        traces.append(f"{command}: no end after {TIME_LIMIT} s")
        return "hang"
    except InternalError as error:
        traces.append(f"{command}: {error}")
        return "internal error"
    except Exception:
        traces.append(f"{command}: {traceback.format_exc()}")
        return "traceback"
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, usual)


def examine_all(numbers: range, jobs: int) -> Iterator[Outcome]:
    if jobs == 1:
        yield from map(examine, numbers)
        return
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(examine, numbers, chunksize=8)


def table(outcomes: list[Outcome]) -> str:
    """The counts as a Markdown table: a row for each kind of damage."""
    lines = [
        "| damage | mutants | fused | refused | inspected | not read | traceback, hang, internal error |",
        "|---|---|---|---|---|---|---|",
    ]
    for kind in (*KINDS, "all"):
        of_kind = [o for o in outcomes if kind in (o.kind, "all")]
        fused, inspected = (Counter(getattr(o, n) for o in of_kind)["done"] for n in ("fuse", "inspect"))
        bad = sum(o.bad for o in of_kind)
        good = len(of_kind)
        lines.append(
            f"| {kind} | {good} | {fused} | {good - fused - bad} | {inspected} | {good - inspected - bad} | {bad} |"
        )
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--markdown", type=Path, default=ROOT / "benchmarks" / "results" / "mutants.md")
    options = parser.parse_args()
    started = time.monotonic()
    outcomes = []
    for outcome in examine_all(range(options.first, options.first + options.count), options.jobs):
        outcomes.append(outcome)
        if outcome.bad:
            print(f"mutant {outcome.number} ({outcome.kind} of {outcome.seed}):\n{outcome.trace}\n", flush=True)
    codes = Counter(o.fuse for o in outcomes if o.fuse.startswith("KR"))
    refused = ", ".join(f"{code} {count}" for code, count in sorted(codes.items()))
    text = (
        f"# Damaged inputs\n\n{table(outcomes)}\nRefused by `fuse` with (first code): {refused}.\n"
        f"{options.count} mutants, numbers {options.first} to {options.first + options.count - 1}, in "
        f"{time.monotonic() - started:.0f} s; {time.strftime('%Y-%m-%d')}.\n"
    )
    options.markdown.write_text(text, encoding="utf-8")
    print(text)
    return 1 if any(outcome.bad for outcome in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
