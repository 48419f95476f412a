"""Asks the runner for an equivalence run and reads its answer; contains its crashes and hangs."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from kernel_rewrite.diagnostics import Diagnostic, FusionRefused, Label
from kernel_rewrite.model import InternalError, Span
from kernel_rewrite.pointwise.declarations import declared_operands
from kernel_rewrite.rewrite.header import Header, digest, read_header
from kernel_rewrite.verify.calls import TRIALS
from kernel_rewrite.verify.rests import fused_parts
from kernel_rewrite.verify.results import UNCHANGED, Trial, Verification, trial_from_json

JUDGES = ("auto", "interpreter", "cuda")
TIME_LIMIT = 300.0

Progress = Callable[[int, int, str], None]
"""Told (sets of inputs done, of how many, what runs now)."""

IN_PLACE = "in-place"  # the assumption's name in a header
_CRASHES = 3  # how often a crash of the kernels may start the runner anew
_POLL = 0.2  # seconds between looks at the report
_SHARE_FOR_TRIALS = 0.8  # of the time limit: no trial starts after it


def verify(
    fused: str | os.PathLike[str],
    calls: Sequence[str],
    *,
    original: str | os.PathLike[str] | None = None,
    seed: int = 0,
    trials: int | None = None,
    judge: str = "auto",
    time_limit: float = TIME_LIMIT,
    progress: Progress | None = None,
) -> Verification:
    """Whether the file `fused` computes what its original followed by the torch op computes, on drawn inputs.

    Each of `calls` is an expression over the names of the module (its launchers and kernels) and torch's factories,
    "add(randn(1000), randn(1000))"; devices are filled in. It is evaluated `trials` times, by default once for each entry
    of the plan: as given, with NaN, infinities, -0.0 and denormals among the inputs, with other sizes (beside those given,
    beside a tile, 1, 0), layouts and float types; as given in every autotune configuration, else in the first eight. The
    tensors lie between poisoned margins. `seed` repeats a run. `judge`: "cuda", "interpreter", or "auto" for CUDA when
    there is one. `time_limit` is in seconds, for everything; `progress` is told how far it is.

    A difference is a result (`ok` is False, with a KR501 diagnostic); a run that cannot be made raises FusionRefused
    (KR502), and what fails in the run itself InternalError. This executes both files.
    """
    if judge not in JUDGES:
        raise ValueError(f"judge must be one of {', '.join(JUDGES)}, not {judge!r}")
    if not calls:
        raise _cannot("no call to evaluate", help='give one: `--call "add(randn(1000), randn(1000))"`')
    path = Path(fused)
    text = _read(path)
    header = _header(path, text)
    original_path = _original(path, header, original)
    epilogues, rests = fused_parts(header)
    request = {
        "fused": str(path.resolve()),
        "original": str(original_path.resolve()),
        "kernel": header.kernel,
        "epilogues": epilogues,
        "rests": rests,
        "prologues": [(name.partition(":")[0], op) for name, op in header.prologues],
        "outputs": _outputs(original_path, header),
        "operands": header.operands,
        "kept": header.kept,
        "dropped": header.dropped,
        "numerics": header.numerics,
        "assumptions": header.assumptions,
        "calls": list(calls),
        "seed": seed,
        "trials": TRIALS if trials is None else trials,
        "judge": judge,
    }
    session = _run(request, time_limit, progress)
    notes = _stale_note(original_path, header) + tuple(dict.fromkeys(session.notes))
    result = Verification(
        fused=str(fused),
        original=str(original_path),
        kernel=header.kernel,
        epilogues=header.epilogues,
        prologues=header.prologues,
        judge=session.judge,
        device=session.device,
        seed=seed,
        trials=tuple(session.trials),
        notes=notes,
        diagnostics=_differences(session.trials, seed, path, text, header),
    )
    if all(trial.skipped for trial in result.trials):
        reasons = dict.fromkeys(trial.skipped for trial in result.trials)
        raise _cannot("no run of the original could be made", tuple(reasons))
    return result


def _cannot(message: str, notes: tuple[str, ...] = (), help: str = "") -> FusionRefused:
    return FusionRefused((Diagnostic("KR502", message, notes=notes, help=help),))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise _cannot(f"{path} cannot be read: {error.strerror}") from None


def _header(path: Path, text: str) -> Header:
    header = read_header(text)
    if header is None or not (header.epilogues or header.prologues or header.dropped):
        help = "give the file that `kernel-rewrite fuse` wrote, with its header"
        raise _cannot(f"{path} does not say what it was fused from", help=help)
    return header


def _original(fused: Path, header: Header, given: str | os.PathLike[str] | None) -> Path:
    path = Path(given) if given is not None else fused.parent / header.source
    if not path.is_file():
        help = "" if given is not None else "name it with `--original PATH`"
        raise _cannot(f"the original file {path} does not exist", help=help)
    return path


def _outputs(original: Path, header: Header) -> list[tuple[str, bool]]:
    """(output, whether the kernel only writes it) of all that is to be compared: what has an epilogue or takes part in one,
    and with a prologue, or without some of its outputs, whatever the kernel writes. Not what the fused file drops."""
    found = {output: IN_PLACE not in header.assumptions for output, _ in header.epilogues}
    declared = declared_operands(header.operands).values()
    found |= {operand.name: True for operand in declared if operand.is_stored}
    if header.prologues or header.dropped:
        from kernel_rewrite.inspection import inspect

        options = {"constexprs": header.texts("--set"), "dtypes": header.texts("--dtype")}
        report = inspect(original, kernel=header.kernel, **options).kernels[0]  # type: ignore[arg-type]
        if report.problems:
            raise FusionRefused(report.problems)
        for output in report.outputs:
            only_written = not any(reason.code in ("KR201", "KR202") for reason in output.reasons)
            found.setdefault(output.name, only_written)
    return [(output, only_written) for output, only_written in found.items() if output not in header.dropped]


def _stale_note(original: Path, header: Header) -> tuple[str, ...]:
    if digest(_read(original)) == header.source_digest:
        return ()
    return (f"{original.name} has changed since the fused file was written",)


# ----------------------------------------------------------------------------------------------------------- the runner


@dataclass
class _Session:
    judge: str = ""
    device: str = ""
    notes: list[str] = field(default_factory=list)
    trials: list[Trial] = field(default_factory=list)
    current: dict[str, Any] = field(default_factory=dict)
    refusal: dict[str, Any] = field(default_factory=dict)
    broken: dict[str, Any] = field(default_factory=dict)
    finished: bool = False
    progress: Progress | None = None


def _run(request: dict[str, Any], time_limit: float, progress: Progress | None) -> _Session:
    """The runner's report. A crash inside a trial is that trial's own result; the others run in a new process."""
    session = _Session(progress=progress)
    end = time.monotonic() + time_limit
    for _ in range(_CRASHES + 1):
        left = end - time.monotonic()
        if left <= 0:
            raise _too_slow(session, time_limit)
        done = [[trial.call, trial.inputs] for trial in session.trials]
        status, tail = _attempt({**request, "soft_limit": left * _SHARE_FOR_TRIALS, "done": done}, left, session)
        if session.broken:
            text = f"the equivalence run failed in itself: {session.broken['message']}\n{session.broken['trace']}"
            raise InternalError(text.rstrip())
        if session.refusal:
            raise _cannot(session.refusal["message"], tuple(session.refusal["notes"]), session.refusal["help"])
        if session.finished:
            return session
        if status is None:
            if not all(trial.ok for trial in session.trials):
                session.notes.append(f"stopped at the time limit of {time_limit:g} s, in {_doing(session)}")
                return session
            raise _too_slow(session, time_limit)
        if not session.current:
            raise _cannot(f"the runner ended with status {status}", (tail,) if tail else ())
        session.trials.append(_crashed(session.current, status))
        session.current = {}
    session.notes.append("the kernels crashed too often: the remaining trials did not run")
    return session


def runner_environment(judge: str) -> dict[str, str]:
    """The environment of a process that runs the user's code with this package; for the interpreter Triton must be told
    before it is imported."""
    environment = dict(os.environ)
    package_root = str(Path(__file__).resolve().parents[2])
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [environment.get("PYTHONPATH"), package_root]))
    if judge == "interpreter":
        environment["TRITON_INTERPRET"] = "1"
    return environment


def _attempt(request: dict[str, Any], timeout: float, session: _Session) -> tuple[int | None, str]:
    """One runner process: (exit status or None when it was stopped, the end of what it printed)."""
    command = [sys.executable, "-m", "kernel_rewrite.verify.runner"]
    environment = runner_environment(request["judge"])
    with (
        tempfile.NamedTemporaryFile() as written,
        open(written.name, "rb") as report,  # a position of its own: the runner moves the other
        tempfile.TemporaryFile() as printed,
    ):
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=written, stderr=printed, env=environment, start_new_session=True
        )
        status: int | None
        try:
            status = _followed(process, request, time.monotonic() + timeout, report, session)
        finally:
            _stop(process)
        _read_report(_rest(report), session)
        printed.seek(0)
        return status, printed.read().decode(errors="replace").strip()[-1500:]


def _followed(
    process: subprocess.Popen[bytes], request: dict[str, Any], end: float, report: IO[bytes], session: _Session
) -> int | None:
    """The exit status of the runner, whose report is read while it grows; None when it is not over at `end`."""
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(json.dumps(request).encode())
        process.stdin.close()
    while time.monotonic() < end:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(timeout=min(_POLL, max(0.0, end - time.monotonic())))
        _read_report(_rest(report), session)
    return None


def _rest(report: IO[bytes]) -> str:
    """The whole lines of the report that were not read yet."""
    start = report.tell()
    text = report.read()
    whole = text[: text.rfind(b"\n") + 1]
    report.seek(start + len(whole))
    return whole.decode(errors="replace")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ends the runner and whatever it started (it leads a process group of its own)."""
    if process.poll() is None:
        try:
            os.killpg(process.pid, 9)
        except ProcessLookupError:
            process.kill()
    process.wait()


def _read_report(text: str, session: _Session) -> None:
    for line in text.splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            continue  # cut off by the crash
        kind = event.pop("event")
        if kind == "progress" and session.progress is not None:
            session.progress(event["done"], event["of"], event["inputs"])
        if kind == "judge":
            session.judge, session.device = event["judge"], event["device"]
        elif kind == "note":
            session.notes.append(event["text"])
        elif kind == "start":
            session.current = event
        elif kind == "trial":
            session.trials.append(trial_from_json(event))
            session.current = {}
        elif kind == "refused":
            session.refusal = event
        elif kind == "broken":
            session.broken = event
        elif kind == "finished":
            session.finished = True


def _crashed(current: dict[str, Any], status: int) -> Trial:
    how = f"was ended by signal {-status}" if status < 0 else f"ended the process with status {status}"
    side = current.pop("side")
    if side == "original":
        return Trial(**current, skipped=f"the original {how}")
    return Trial(**current, failure=f"the fused file {how}, where the original runs")


def _doing(session: _Session) -> str:
    current = session.current
    return f"`{current['call']}` ({current['inputs']}, {current['side']} file)" if current else "loading the files"


def _too_slow(session: _Session, limit: float) -> FusionRefused:
    message = f"the equivalence run did not finish within {limit:g} s"
    help = "use smaller sizes in the call, or raise `--time-limit`"
    return _cannot(message, (f"it was in {_doing(session)}",), help)


# -------------------------------------------------------------------------------------------------------- differences


def _differences(trials: Sequence[Trial], seed: int, fused: Path, text: str, header: Header) -> tuple[Diagnostic, ...]:
    """One KR501 for each output that differs, with the first example, and one for each other kind of failure."""
    label = _kernel_line(fused, text, header.kernel)
    found: dict[str, Diagnostic] = {}
    for trial in trials:
        where = f"in `{trial.call}` ({trial.inputs}, --seed {seed})"
        if trial.autotune:
            where += f", configuration {trial.autotune}"
        for output in trial.outputs:
            if output.ok:
                continue
            of = "what the original stores" if output.op == UNCHANGED else f"{output.op} of what the original stores"
            message = f"`{output.output}` of `{header.kernel}` is not {of}{_with(header)}"
            notes = [f"{output.wrong:,} of {output.written:,} elements differ {where}"]
            if output.missed and not output.wrong:
                notes = [f"{output.missed:,} elements that the kernel does not write miss the op {where}"]
            if output.unwritten_otherwise:
                notes = [f"{output.unwritten_otherwise:,} elements are written by only one of the two {where}"]
            if output.mismatch is not None:
                m = output.mismatch
                at = ", ".join(map(str, m.index))
                name = f"{output.output}[{at}]"
                wanted = "" if output.op == UNCHANGED else f", {output.op} of it is {m.expected}"
                notes.append(f"{name}: the original stores {m.value}{wanted}, got {m.got}")
            found.setdefault(output.output, Diagnostic("KR501", message, label, tuple(notes), _HELP))
        if trial.failure and trial.ok is False:
            found.setdefault(trial.failure, Diagnostic("KR501", trial.failure, label, (where,), _HELP))
    return tuple(found.values())


def _with(header: Header) -> str:
    """` with sigmoid of b_ptr`: what the original is given."""
    given = " and ".join(f"{op} of `{input}`" for input, op in header.prologues)
    return f" with {given}" if given else ""


_HELP = "write the file anew with `kernel-rewrite fuse`; if it still differs, do not use it and report the kernel"


def _kernel_line(path: Path, text: str, kernel: str) -> tuple[Label, ...]:
    start = f"def {kernel}("
    for number, line in enumerate(text.splitlines(), 1):
        column = line.find(start)
        if column >= 0 and not line[:column].strip():
            return (Label(Span(str(path), number, column, number, len(line.encode()))),)
    return ()
