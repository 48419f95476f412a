"""Random kernels through the tool and through the judge: `python tests/fuzz/run.py --count 2000 --seed 0`.

A disagreement is a buffer that the tool took for write-only and a launch reads, a fused file that does anything else
than the original with the op at the stores, or an internal error. A buffer that no launch reads and the tool refuses is
counted by the reason: that is a matter of completeness.
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from kernel_rewrite.analysis import Analysis, analyse  # noqa: E402
from kernel_rewrite.diagnostics import FusionRefused  # noqa: E402
from kernel_rewrite.fuse import fuse_outputs  # noqa: E402
from kernel_rewrite.fused import Options  # noqa: E402
from kernel_rewrite.selection import choose_kernel, read_source  # noqa: E402
from kernel_rewrite.source.signatures import parse_overrides  # noqa: E402
from kernel_rewrite.ttir.lower import compiler  # noqa: E402
from tests.fuzz.generator import Program, program  # noqa: E402

FLOAT_OPS = ("relu", "gelu", "sigmoid", "neg", "clamp(-1, 1)", "square")
INTEGER_OPS = ("relu", "neg", "square", "clamp(-1, 1)")


class Judge:
    """The process that runs kernels, started on first use."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._errors: Any = None

    def verdict(self, case: dict[str, Any]) -> dict[str, Any]:
        if self._process is None or self._process.poll() is not None:
            self._start()
        assert self._process is not None and self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(case) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            self._errors.seek(0)
            tail = self._errors.read()[-500:]
            self.close()
            return {"invalid": f"the judge died: {tail}"}
        found: dict[str, Any] = json.loads(answer)
        return found

    def _start(self) -> None:
        environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH", ""), str(ROOT)]))
        self._errors = tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.fuzz.judge"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=environment,
            text=True,
        )

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


_JUDGE = Judge()
atexit.register(_JUDGE.close)


@dataclass
class Outcome:
    """What came of one kernel. `refused` maps a buffer to the codes; `internal` holds the tool's own errors."""

    seed: int
    text: str
    buffers: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    may_read: frozenset[str] = frozenset()
    fused: dict[str, str] = field(default_factory=dict)  # buffer -> op
    refused: dict[str, tuple[str, ...]] = field(default_factory=dict)
    reasons: dict[str, tuple[str, ...]] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    internal: str = ""
    unlowered: str = ""  # the tool could not lower it at all
    invalid: str = ""  # the interpreter cannot run it
    read: frozenset[str] = frozenset()
    written: frozenset[str] = frozenset()
    atomic: frozenset[str] = frozenset()
    wrong: dict[str, str] = field(default_factory=dict)
    launches: int = 0
    seconds: tuple[float, float] = (0.0, 0.0)

    @property
    def disagreements(self) -> list[str]:
        found = [f"internal error: {self.internal}"] if self.internal else []
        for buffer in self.fused:
            if buffer in self.read | self.atomic:
                how = "reads" if buffer in self.read else "atomically updates"
                found.append(f"`{buffer}` was fused, and a launch {how} it")
        return found + [f"fused with {ops}: {difference}" for ops, difference in self.wrong.items()]

    @property
    def only_written(self) -> frozenset[str]:
        """Buffers that some launch writes and none reads or updates atomically."""
        return self.written - self.read - self.atomic


def outcome_of(made: Program, chance: random.Random, seed: int = 0) -> Outcome:
    """The tool's answer for every buffer of `made`, and the judge's."""
    started = time.monotonic()
    found = Outcome(seed, made.text, tuple(b.name for b in made.buffers), made.features, made.may_read)
    launches = [
        {**asdict(launch), "scalars": dict(launch.scalars), "constexprs": dict(launch.constexprs)}
        for launch in made.launches
    ]
    try:
        fused = list(_fused(made, chance, found))
        if fused and launches:
            launches += _launches_with_other_types(made, chance, launches[0])
    except FusionRefused as refusal:
        found.unlowered = f"{refusal.diagnostics[0].code}: {refusal.diagnostics[0].message}"
        fused = []
    except Exception as error:
        found.internal = f"{type(error).__name__}: {str(error)[:600]}"
        fused = []
    middle = time.monotonic()
    verdict = _JUDGE.verdict(
        {
            "id": seed,
            "text": made.text,
            "launcher": made.launcher,
            "buffers": [asdict(b) for b in made.buffers],
            "launches": launches,
            "fused": [{"ops": ops, "text": text} for ops, text in fused],
        }
    )
    found.seconds = (middle - started, time.monotonic() - middle)
    if "invalid" in verdict:
        found.invalid = verdict["invalid"]
        return found
    found.launches = len(launches)
    found.read, found.written, found.atomic = (frozenset(verdict[k]) for k in ("read", "written", "atomic"))
    found.wrong = verdict["wrong"]
    return found


def _fused(made: Program, chance: random.Random, found: Outcome) -> Iterator[tuple[dict[str, str], str]]:
    """Each file the tool writes: one an output it can fuse, and one with all of them."""
    analysis = _analysed(made)
    for buffer in made.buffers:
        op = chance.choice(INTEGER_OPS if buffer.dtype == "i32" else FLOAT_OPS)
        if "zeros" in buffer.allocation:
            op = "relu"  # an op that changes zero is refused where the launcher zeroes the output
        try:
            text = fuse_outputs(analysis, [(buffer.name, op)], Options(dtypes=made.dtypes)).source
        except FusionRefused as refusal:
            found.refused[buffer.name] = tuple(sorted({d.code for d in refusal.diagnostics}))
            found.reasons[buffer.name] = tuple(f"{d.code}: {d.message}" for d in refusal.diagnostics)
            continue
        found.fused[buffer.name] = op
        found.files[f"{buffer.name}={op}"] = text
        yield {buffer.name: op}, text
    if len(found.fused) > 1:
        text = fuse_outputs(analysis, list(found.fused.items()), Options(dtypes=made.dtypes)).source
        found.files[", ".join(f"{output}={op}" for output, op in found.fused.items())] = text
        yield dict(found.fused), text


def _launches_with_other_types(made: Program, chance: random.Random, launch: dict[str, Any]) -> list[dict[str, Any]]:
    """A launch of buffers and a scalar whose types the tool was not told: a fused file must be right for it too."""
    told = {text.partition("=")[0] for text in made.dtypes}
    free = [b for b in made.buffers if not b.allocation and b.name not in told and b.dtype != "i32"]
    types = {b.name: chance.choice(("fp32", "fp16", "bf16")) for b in free}
    scalars = {**launch["scalars"], "s": chance.choice((2, 0.75))}
    first = made.buffers[0]
    every = {b.name: types.get(b.name, b.dtype) for b in made.buffers}
    every |= {b.name: every[first.name] for b in made.buffers if "_like" in b.allocation}
    try:  # Triton must accept them: the interpreter would, whatever they are
        if types:
            _analysed(made, tuple(f"{name}={dtype}" for name, dtype in every.items()), ("STEPS=2",))
    except FusionRefused:
        return []
    return [{**launch, "scalars": scalars, "dtypes": types}]


def _analysed(made: Program, dtypes: tuple[str, ...] | None = None, values: tuple[str, ...] = ()) -> Analysis:
    project, file, _ = read_source(made.text, "kernel.py", "kernel")
    definition = choose_kernel(file, project, "kernel")
    told = made.dtypes if dtypes is None else dtypes
    return analyse(definition, project, compiler(), lambda function: parse_overrides(function, values, told))


def outcome(seed: int) -> Outcome:
    """The outcome of the kernel that `seed` names."""
    chance = random.Random(seed)
    return outcome_of(program(chance), chance, seed)


@dataclass
class Summary:
    """Counts over many outcomes, and the outcomes that matter."""

    kernels: int = 0
    launches: int = 0
    invalid: Counter[str] = field(default_factory=Counter)
    unlowered: Counter[str] = field(default_factory=Counter)
    disagreeing: list[Outcome] = field(default_factory=list)
    fused: int = 0
    fused_files: int = 0
    fused_unwritten: int = 0
    read_refused: int = 0
    only_written: int = 0
    refused_surely: Counter[str] = field(default_factory=Counter)  # no load of the text can reach the buffer
    refused_perhaps: Counter[str] = field(default_factory=Counter)  # one may, but no launch took it there
    examples: dict[str, list[int]] = field(default_factory=dict)
    features: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=lambda: [0.0, 0.0])

    def add(self, one: Outcome) -> None:
        self.kernels += 1
        self.launches += one.launches
        self.features.update(one.features)
        self.seconds = [a + b for a, b in zip(self.seconds, one.seconds, strict=True)]
        if one.disagreements:
            self.disagreeing.append(one)
        if one.invalid:
            self.invalid[one.invalid[:90]] += 1
            return
        if one.unlowered:
            self.unlowered[one.unlowered[:110]] += 1
        self.fused += len(one.fused)
        self.fused_files += len(one.files)
        self.fused_unwritten += len(set(one.fused) - one.written)
        self.read_refused += len((one.read | one.atomic) - set(one.fused))
        self.only_written += len(one.only_written)
        for buffer in one.only_written - set(one.fused):
            codes = "+".join(one.refused.get(buffer, (one.unlowered[:5] or "internal",)))
            (self.refused_perhaps if buffer in one.may_read else self.refused_surely)[codes] += 1
            kind = "perhaps" if buffer in one.may_read else "surely"
            self.examples.setdefault(f"{kind} {codes}", []).append(one.seed)

    def text(self) -> str:
        surely, perhaps = sum(self.refused_surely.values()), sum(self.refused_perhaps.values())
        lines = [
            f"{self.kernels} kernels, {self.launches} launches, {self.fused_files} fused files",
            f"{len(self.disagreeing)} disagreements",
            f"{self.fused} buffers fused, {self.read_refused} buffers read or updated by a launch and refused",
            f"{self.only_written} buffers only written in every launch: {self.only_written - surely - perhaps} fused, "
            f"{perhaps} refused where a load of the text may reach them, {surely} refused though none can",
        ]
        for title, counts, kind in (
            ("refused though no load can reach the buffer", self.refused_surely, "surely"),
            ("refused, and a load may reach the buffer on a path that no launch took", self.refused_perhaps, "perhaps"),
        ):
            if counts:
                lines.append(f"{title}:")
                for code, n in counts.most_common():
                    lines.append(f"  {n:5} {code}  (seeds {', '.join(map(str, self.examples[f'{kind} {code}'][:6]))})")
        for title, counts in (("not lowered", self.unlowered), ("not run by the interpreter", self.invalid)):
            lines.append(f"{sum(counts.values())} kernels {title}")
            lines += [f"  {n:5} {reason}" for reason, n in counts.most_common(12)]
        lines.append("features: " + ", ".join(f"{name} {n}" for name, n in self.features.most_common()))
        lines.append(f"seconds: tool {self.seconds[0]:.0f}, judge {self.seconds[1]:.0f}")
        return "\n".join(lines)


def outcomes(seeds: Iterable[int], jobs: int = 1) -> Iterator[Outcome]:
    if jobs == 1:
        yield from map(outcome, seeds)
        return
    with ProcessPoolExecutor(jobs) as pool:
        yield from pool.map(outcome, seeds, chunksize=5)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0, help="the first kernel's seed")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="a folder for the files of every disagreement")
    parser.add_argument("--minutes", type=float, default=1e9, help="start no kernel after so long")
    parser.add_argument("--show", action="store_true", help="print each kernel and its outcome")
    arguments = parser.parse_args()
    summary, started = Summary(), time.monotonic()
    for one in outcomes(range(arguments.seed, arguments.seed + arguments.count), arguments.jobs):
        summary.add(one)
        if arguments.show:
            print(one.text)
            for name in ("fused", "reasons", "read", "written", "atomic", "may_read", "unlowered", "invalid"):
                print(f"{name}: {getattr(one, name)}")
        for disagreement in one.disagreements:
            print(f"seed {one.seed}: {disagreement}", flush=True)
        if arguments.keep and one.disagreements:
            arguments.keep.mkdir(parents=True, exist_ok=True)
            (arguments.keep / f"{one.seed}.py").write_text(one.text)
            for number, (ops, text) in enumerate(one.files.items()):
                (arguments.keep / f"{one.seed}_fused_{number}.py").write_text(f"# {ops}\n{text}")
        if summary.kernels % 100 == 0:
            with contextlib.suppress(OSError):
                print(
                    f"{summary.kernels} kernels, {len(summary.disagreeing)} disagreements", file=sys.stderr, flush=True
                )
        if time.monotonic() - started > arguments.minutes * 60:
            break
    print(summary.text())
    return 1 if summary.disagreeing else 0


if __name__ == "__main__":
    sys.exit(main())
