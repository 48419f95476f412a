"""The fused file against the original and its op on a GPU: asks the runner, and shows its answer."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kernel_rewrite.bench.timing import SECONDS, Timing
from kernel_rewrite.diagnostics import Diagnostic, FusionRefused
from kernel_rewrite.rewrite.header import Header
from kernel_rewrite.verify.equivalence import runner_environment
from kernel_rewrite.verify.rests import fused_parts

TIME_LIMIT = 600.0


@dataclass(frozen=True, slots=True)
class Measured:
    """The times of one call by name ("fused", "kernel": the original alone, "pair": the original and the op in eager torch,
    "compile": torch.compile of the pair). `floor` is the time in microseconds in which a copy moves as many bytes as the
    kernel's tensors have."""

    call: str
    times: Mapping[str, Timing]
    floor: float
    sets: int
    notes: tuple[str, ...] = ()

    @property
    def slower(self) -> bool:
        """Whether the fused kernel is slower than the unfused pair, by more than what their samples vary."""
        fused, pair = self.times.get("fused"), self.times.get("pair")
        return fused is not None and pair is not None and fused.low > pair.high


@dataclass(frozen=True, slots=True)
class SpeedReport:
    """All calls on one device; `bandwidth` is what a copy moves in the same process, in bytes a second."""

    kernel: str
    device: str
    bandwidth: float
    rows: tuple[Measured, ...]


def measured(
    fused: str, original: str, header: Header, calls: Sequence[str], *, seconds: float = SECONDS, judge: str = "auto"
) -> SpeedReport:
    """Time every call. Runs both files, in a process of its own. Raises FusionRefused (KR505)."""
    epilogues, rests = fused_parts(header)
    request = {
        "fused": str(Path(fused).resolve()),
        "original": str(Path(original).resolve()),
        "kernel": header.kernel,
        "epilogues": epilogues,
        "rests": rests,
        "operands": header.operands,
        "kept": header.kept,
        "calls": list(calls),
        "seconds": seconds,
        "judge": judge,
    }
    answer = _asked(request)
    if "failure" in answer:
        help = "`--static` compares the compiled kernels without one" if "CUDA" in answer["failure"] else ""
        raise FusionRefused((Diagnostic("KR505", answer["failure"], help=help),))
    rows = tuple(
        Measured(
            row["call"],
            {name: Timing(**time) for name, time in row["times"].items()},
            row["bytes"] / answer["bandwidth"] * 1e6,
            row["sets"],
            tuple(row["notes"]),
        )
        for row in answer["rows"]
    )
    return SpeedReport(header.kernel, answer["device"], answer["bandwidth"], rows)


def _asked(request: Mapping[str, Any]) -> dict[str, Any]:
    environment = runner_environment(request["judge"])
    command = [sys.executable, "-m", "kernel_rewrite.bench.runner"]
    try:
        run = subprocess.run(
            command, input=json.dumps(request).encode(), capture_output=True, timeout=TIME_LIMIT, env=environment
        )
    except subprocess.TimeoutExpired:
        return {"failure": f"no result after {TIME_LIMIT:g} seconds"}
    if run.returncode or not run.stdout:
        tail = run.stderr.decode(errors="replace").strip().splitlines()[-1:]
        return {"failure": f"the measuring process ended with status {run.returncode}: {''.join(tail)}"}
    answer: dict[str, Any] = json.loads(run.stdout)
    return answer


def speed_json(report: SpeedReport) -> dict[str, Any]:
    """The report as JSON values."""
    rows = [asdict(row) | {"slower": row.slower} for row in report.rows]
    return {"version": 1, "kernel": report.kernel, "device": report.device, "bandwidth": report.bandwidth, "rows": rows}


def speed_text(report: SpeedReport) -> str:
    """The report as text: for each call a line for each way, with its time and the share of it that the fused one takes."""
    lines = [f"{report.kernel} {report.device}, a copy moves {report.bandwidth / 1e12:.2f} TB/s"]
    for row in report.rows:
        lines.append(f"  {row.call}")
        fused = row.times.get("fused")
        for name, time in row.times.items():
            share = f"   fused / {name}: {fused.median / time.median:.3f}" if fused and name != "fused" else ""
            lines.append(
                f"    {name:<16} {time.median:10.1f} us  ({time.low:.1f} to {time.high:.1f}, {time.method}){share}"
            )
        floor = f"   {row.floor / fused.median:.0%} of the fused time" if fused else ""
        lines.append(f"    {'bytes moved':<16} {row.floor:10.1f} us{floor}")
        lines += [f"    note: {note}" for note in row.notes]
        if row.slower:
            lines.append("    SLOWER than the unfused pair: `--static` shows registers, spills and occupancy of both")
    return "\n".join(lines)
