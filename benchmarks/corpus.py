"""Fuse a relu into every output of every Triton kernel of nine public packages, and say what happened to each.

    python benchmarks/corpus.py                      all packages; the table goes to benchmarks/results/corpus.md
    python benchmarks/corpus.py --package liger-kernel --kernel _rms_norm   some kernels, shown one by one
    python benchmarks/corpus.py --operands --package liger-kernel --markdown FILE   which outputs can take an operand
    python benchmarks/corpus.py --prologues --package liger-kernel --markdown FILE   which inputs can take a prologue

The packages are downloaded at pinned versions with `pip download --no-deps`, unpacked, never installed and never
imported. Each kernel runs in a worker process with a time and a memory limit. Every outcome is appended to a JSON-lines
file at once, so that an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import gc
import hashlib
import json
import os
import platform
import queue
import re
import resource
import selectors
import signal
import subprocess
import sys
import tarfile
import threading
import time
import traceback
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from kernel_rewrite import __version__  # noqa: E402
from kernel_rewrite.analysis import Analysis, analyse  # noqa: E402
from kernel_rewrite.diagnostics import CODES, FusionRefused  # noqa: E402
from kernel_rewrite.fuse import fuse_outputs, plan_input, plan_output  # noqa: E402
from kernel_rewrite.fused import Options  # noqa: E402
from kernel_rewrite.model import InternalError, MemoryEffect  # noqa: E402
from kernel_rewrite.pointwise.declarations import declared_operands  # noqa: E402
from kernel_rewrite.results import Fused  # noqa: E402
from kernel_rewrite.selection import choose_inputs, choose_outputs, requested_ops  # noqa: E402
from kernel_rewrite.source.closure import KernelDefinition, kernels, scope_at  # noqa: E402
from kernel_rewrite.source.files import Project  # noqa: E402
from kernel_rewrite.source.names import JitDefinition, meaning_of, nodes_of  # noqa: E402
from kernel_rewrite.ttir.lower import compiler  # noqa: E402

EPILOGUE = "relu"

OPERANDS = {
    "tile": ("relu(x + added_tile)", {"added_tile": "tile"}),
    "row": ("relu(x + added_row)", {"added_row": "row"}),
}
"""What `--operands` fuses, by the kind of the operand: one in the output's layout, one value a column without an index."""

PROLOGUE = "sigmoid"
"""What `--prologues` fuses: not zero at zero, so that lanes which a load leaves off have to be put right."""


@dataclass(frozen=True, slots=True)
class Package:
    """One package at one version. Kernels in files that match `apart` are counted in a row of their own."""

    name: str
    version: str
    apart: str = ""
    apart_title: str = ""


PACKAGES = (
    Package("liger-kernel", "0.8.5"),
    Package("fla-core", "0.6.0"),
    Package("flag-gems", "5.0.2", r"runtime/backend/_(?!nvidia\b)", "flag-gems, backends of other vendors"),
    Package("xformers", "0.0.35"),
    Package("torchao", "0.18.0"),
    Package("bitsandbytes", "0.50.2"),
    Package("mamba-ssm", "2.3.2.post1"),
    Package("unsloth", "2026.10.9"),
    Package("sglang", "0.5.23"),
)

TIME_LIMIT = 300.0
"""Seconds one kernel may take, all its outputs included."""

MEMORY_LIMIT = 8 << 30
"""Bytes of address space a worker and its compiler process may each take."""


# ------------------------------------------------------------------------------------------------------- the packages


def download(package: Package, folder: Path) -> Path:
    """The archive of `package` in `folder`, downloaded when it is not there yet."""
    found = _archive(package, folder)
    if found is not None:
        return found
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--dest", str(folder)]
    requirement = f"{package.name}=={package.version}"
    wheel = subprocess.run(
        [*command, "--only-binary", ":all:", requirement], capture_output=True, text=True, check=False
    )
    if wheel.returncode:
        # A source archive only. pip asks its setup.py for the name and version, which needs what it imports.
        tools = folder / "build-tools"
        if not tools.exists():
            pip = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(tools)]
            subprocess.run([*pip, "setuptools", "wheel", "packaging", "ninja"], check=True)
        environment = {**os.environ, "PYTHONPATH": str(tools), "MAMBA_SKIP_CUDA_BUILD": "TRUE"}
        source = [*command, "--no-binary", package.name, "--no-build-isolation", requirement]
        subprocess.run(source, check=True, env=environment)
    found = _archive(package, folder)
    if found is None:
        raise SystemExit(f"{requirement} could not be downloaded:\n{wheel.stderr}")
    return found


def _archive(package: Package, folder: Path) -> Path | None:
    stem = f"{package.name.replace('-', '_')}-{package.version}"
    found = sorted([*folder.glob(f"{stem}-*.whl"), *folder.glob(f"{stem}.tar.gz")])
    return found[0] if found else None


def unpack(package: Package, archive: Path, folder: Path) -> Path:
    """The folder with the Python files of `archive`."""
    target = folder / "unpacked" / f"{package.name}-{package.version}"
    if target.exists():
        return target
    partial = target.with_name(target.name + ".partial")
    for name, content in _python_files(archive):
        path = (partial / name).resolve()
        if partial.resolve() not in path.parents:
            raise SystemExit(f"{archive.name} holds a file outside its folder: {name}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    partial.rename(target)
    return target


def _python_files(archive: Path) -> Iterator[tuple[str, bytes]]:
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            for name in wheel.namelist():
                if name.endswith(".py"):
                    yield name, wheel.read(name)
        return
    with tarfile.open(archive) as source:
        for member in source:
            if member.isfile() and member.name.endswith(".py"):
                stream = source.extractfile(member)
                assert stream is not None
                # NAME-VERSION/package/module.py
                yield member.name.partition("/")[2], stream.read()


# -------------------------------------------------------------------------------------------------------- the kernels


@dataclass(frozen=True, slots=True)
class Task:
    """One kernel to fuse into: `group` is its row of the table, `file` is relative to the package's folder."""

    group: str
    folder: str
    file: str
    kernel: str
    line: int
    digest: str

    @property
    def key(self) -> tuple[str, str, str, int]:
        return self.group, self.file, self.kernel, self.line

    @property
    def name(self) -> str:
        return f"{self.group} {self.file}:{self.line} {self.kernel}"


@dataclass(frozen=True, slots=True)
class Found:
    """The kernels of one package, and the files that could not be searched."""

    kernels: tuple[tuple[KernelDefinition, str], ...]
    failures: tuple[dict[str, Any], ...]


def find_kernels(folder: Path) -> Found:
    """The entry kernels under `folder` with their files: launched anywhere in the package, or stores and is called by
    no other jit function."""
    project = Project()
    failures: list[dict[str, Any]] = []
    defined: list[tuple[KernelDefinition, str]] = []
    texts = {path: path.read_text(encoding="utf-8", errors="replace") for path in sorted(folder.rglob("*.py"))}
    for path, text in texts.items():
        if "jit" not in text:
            continue
        relative = path.relative_to(folder).as_posix()
        try:
            defined += [(kernel, relative) for kernel in kernels(project.read(path), project)]
        except FusionRefused:
            continue  # not a Python file of this version: no kernel either
        except Exception:
            failures.append({"file": relative, "message": traceback.format_exc()})
    names = {name for kernel, _ in defined for name in (kernel.name, *kernel.aliases)}
    launched, called = _uses_elsewhere(texts, names, project)
    entries = [
        (kernel, file)
        for kernel, file in defined
        if not kernel.definition.constexpr_function
        and (kernel.launches or kernel.node in launched or (kernel.entry and kernel.node not in called))
    ]
    return Found(tuple(entries), tuple(failures))


def _uses_elsewhere(
    texts: dict[Path, str], names: set[str], project: Project
) -> tuple[set[ast.FunctionDef], set[ast.FunctionDef]]:
    """The jit functions that any file of the package launches, and those that it calls."""
    launched: set[ast.FunctionDef] = set()
    called: set[ast.FunctionDef] = set()
    for path, text in texts.items():
        if not names & set(re.findall(r"\b(\w+)\s*[\[(]", text)):
            continue
        with contextlib.suppress(Exception):
            file = project.read(path)
            for node in nodes_of(file, project):
                if not isinstance(node, ast.Call):
                    continue
                target = node.func.value if isinstance(node.func, ast.Subscript) else node.func
                last = target.attr if isinstance(target, ast.Attribute) else getattr(target, "id", None)
                if last not in names:
                    continue
                meaning = meaning_of(target, scope_at(node, file, project))
                if isinstance(meaning, JitDefinition):
                    (launched if target is not node.func else called).add(meaning.node)
    return launched, called


def digest(node: ast.FunctionDef) -> str:
    """The same for two kernels with the same parameters and body, whatever their names, decorators and docstrings."""
    body = node.body
    first = body[0].value if body and isinstance(body[0], ast.Expr) else None
    if isinstance(first, ast.Constant) and isinstance(first.value, str):
        body = body[1:]
    text = ast.dump(node.args) + "".join(ast.dump(statement) for statement in body)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def tasks_of(package: Package, folder: Path) -> tuple[list[Task], list[dict[str, Any]]]:
    """One task for each entry kernel of `package`, and a record for each file that could not be searched."""
    found = find_kernels(folder)
    tasks = []
    for kernel, file in found.kernels:
        apart = package.apart and re.search(package.apart, file)
        group = package.apart_title if apart else package.name
        tasks.append(Task(group, str(folder), file, kernel.name, kernel.node.lineno, digest(kernel.node)))
    failures = [
        {"group": package.name, "kernel": "", "line": 0, "status": "internal", "seconds": 0.0, "outputs": [], **failure}
        for failure in found.failures
    ]
    return tasks, failures


def all_tasks(
    packages: Sequence[Package], folders: Sequence[Path], jobs: int
) -> tuple[list[Task], list[dict[str, Any]]]:
    """What `tasks_of` finds in each package, in their order; `jobs` of them are searched at once."""
    # without collecting: among the syntax trees of a whole package it only costs time
    with ProcessPoolExecutor(jobs, initializer=gc.disable) as pool:
        searches = [pool.submit(tasks_of, *both) for both in reversed([*zip(packages, folders, strict=True)])]
        found = [search.result() for search in reversed(searches)]  # the last package is the largest: it goes first
    return [task for tasks, _ in found for task in tasks], [failure for _, failed in found for failure in failed]


def deduplicated(tasks: Iterable[Task]) -> list[Task]:
    """The first task of every digest; rows counted apart come last, so that they keep only what is theirs alone."""
    titles = {package.apart_title for package in PACKAGES if package.apart_title}
    ordered = sorted(tasks, key=lambda task: task.group in titles)
    first: dict[str, Task] = {}
    for task in ordered:
        first.setdefault(task.digest, task)
    return list(first.values())


# ------------------------------------------------------------------------------------------------------- one kernel

Record = dict[str, Any]
"""What happened to one kernel, as it stands in the JSON-lines file."""


def examine(task: Task, mode: str = "") -> Record:
    """Analyse the kernel of `task` once, then fuse the epilogue into each of its outputs; with "operands", those of
    `OPERANDS` into each that can take the epilogue; with "prologues", the prologue into each of its inputs. Never raises."""
    started = time.perf_counter()
    reset_peaks()
    busy = busy_seconds()
    record: Record = {
        "group": task.group,
        "file": task.file,
        "kernel": task.kernel,
        "line": task.line,
        "digest": task.digest,
        "status": "lowered",
        "outputs": [],
    }
    try:
        analysis = _analysis(task)
        record |= _facts(analysis)
        record |= MODES[mode](analysis)
    except FusionRefused as refused:
        record |= {"status": "refused", **_reasons(refused, task.folder)}
    except Exception as error:  # a bug of the tool is an outcome, and the run goes on
        record |= {"status": "internal", "message": _trace(error)}
    record["seconds"] = round(time.perf_counter() - started, 3)
    record["cpu_seconds"] = round(busy_seconds() - busy, 3)
    record["peak_mib"] = peak_of_one_process()
    # messages name files; the folder they lie in here says nothing
    shown: Record = json.loads(json.dumps(record).replace(json.dumps(task.folder + os.sep)[1:-1], ""))
    return shown


_projects: dict[str, Project] = {}
"""The files of the package in hand, so that what its kernels share is parsed once."""


def _project(folder: str) -> Project:
    project = _projects.get(folder)
    if project is None or len(project.files()) > _MOST_FILES:
        _projects.clear()
        project = _projects[folder] = Project()
    return project


_MOST_FILES = 300


def _analysis(task: Task) -> Analysis:
    project = _project(task.folder)
    file = project.read(os.path.join(task.folder, task.file))
    definition = next(k for k in kernels(file, project) if (k.name, k.node.lineno) == (task.kernel, task.line))
    return analyse(definition, project, compiler())


def outputs(analysis: Analysis) -> tuple[str, ...]:
    """The parameters that the kernel stores to or updates atomically.

    An operation of unknown effect might write every buffer; it is a reason to refuse these, not an output more.
    """
    return analysis.parameters_with(MemoryEffect.WRITE, MemoryEffect.ACCUMULATE)


def _fused_outputs(analysis: Analysis) -> Record:
    """One record an output."""
    each = _each_buffer(outputs(analysis), lambda o: _refused(analysis, o), lambda some: _fused(analysis, some))
    return {"outputs": [{"name": o, "effects": _effects(analysis, o), **found} for o, found in each.items()]}


def _fused_inputs(analysis: Analysis) -> Record:
    """One record an input, in the order of the signature."""
    read = analysis.parameters_with(MemoryEffect.READ)
    each = _each_buffer(read, lambda i: _refused_input(analysis, i), lambda some: _with_prologues(analysis, some))
    return {"inputs": [{"name": i, "effects": _effects(analysis, i), **found} for i, found in each.items()]}


def _each_buffer(
    names: Sequence[str], refused: Callable[[str], Record | None], fused: Callable[[Sequence[str]], Record]
) -> dict[str, Record]:
    """What becomes of each buffer. Those that can take the op take it in one file, which is validated once; each in a file
    of its own when that fails."""
    reasons = {name: record for name in names if (record := refused(name))}
    eligible = [name for name in names if name not in reasons]
    together = fused(eligible) if eligible else {}
    if together.get("status") != "fused" and len(eligible) > 1:
        each = {name: fused([name]) for name in eligible}
    else:
        each = dict.fromkeys(eligible, together)
    return {name: reasons.get(name) or each[name] for name in names}


def _outputs_with_operands(analysis: Analysis) -> Record:
    """One record an output, with what comes of each of `OPERANDS` for those that can take the epilogue itself."""
    found = []
    for output in outputs(analysis):
        refused = _refused(analysis, output)
        kinds = {} if refused else {kind: _with_operand(analysis, output, kind) for kind in OPERANDS}
        found.append({"name": output, **(refused or {"status": "eligible"}), "operands": kinds})
    return {"outputs": found}


MODES: dict[str, Callable[[Analysis], Record]] = {
    "": _fused_outputs,
    "operands": _outputs_with_operands,
    "prologues": _fused_inputs,
}


def _with_operand(analysis: Analysis, output: str, kind: str) -> Record:
    """What comes of fusing an epilogue that reads an operand of a kind, the launchers left alone."""
    text, kinds = OPERANDS[kind]
    declared = declared_operands(kinds)

    def fused() -> Record:
        requested, _ = requested_ops(f"{output}={text}", (), declared)
        fuse_outputs(analysis, requested, Options(operands=tuple(declared.values()), launcher=False))
        return {"status": "fused"}

    return _outcome_of(analysis, fused)


def _refused(analysis: Analysis, output: str) -> Record | None:
    """Why `output` cannot take the epilogue; None when it can."""

    def planned() -> None:
        for request in choose_outputs(analysis, [(output, EPILOGUE)], frozenset()):
            plan_output(analysis, request)

    return _outcome_of(analysis, planned)


def _refused_input(analysis: Analysis, input: str) -> Record | None:
    """Why `input` cannot take the prologue; None when it can."""

    def planned() -> None:
        for request in choose_inputs(analysis, [(input, PROLOGUE)], frozenset()):
            plan_input(analysis, request)

    return _outcome_of(analysis, planned)


def _fused(analysis: Analysis, outputs: Sequence[str]) -> Record:
    """What comes of fusing into all of `outputs` in one file: its changed lines, and how many outputs shared it."""
    requested = [(output, EPILOGUE) for output in outputs]
    return _outcome_of(analysis, lambda: _changed(fuse_outputs(analysis, requested), len(outputs)))


def _with_prologues(analysis: Analysis, inputs: Sequence[str]) -> Record:
    """What comes of fusing into all of `inputs` in one file, likewise, and those with a note that the prologue is computed
    again for many tiles."""

    def fused() -> Record:
        result = fuse_outputs(analysis, (), prologues=[(input, PROLOGUE) for input in inputs])
        notes = [d.message for d in result.warnings if d.code == "KR404"]
        return _changed(result, len(inputs)) | {"again": [i for i in inputs if any(f"`{i}`" in note for note in notes)]}

    return _outcome_of(analysis, fused)


def _changed(result: Fused, together: int) -> Record:
    changed = [line for line in result.diff.splitlines() if line[:1] in "+-" and line[:3] not in ("+++", "---")]
    return {"status": "fused", "changed_lines": len(changed), "together": together}


AnyOutcome = TypeVar("AnyOutcome", Record, None)


def _outcome_of(analysis: Analysis, attempt: Callable[[], AnyOutcome]) -> Record | AnyOutcome:
    """What `attempt` gives, or the record of what it raises."""
    try:
        return attempt()
    except FusionRefused as refused:
        return {"status": "refused", **_reasons(refused, _folder(analysis))}
    except Exception as error:
        return {"status": "internal", "message": _trace(error)}


def _effects(analysis: Analysis, output: str) -> list[str]:
    return sorted({access.effect.value for access in analysis.accesses if output in access.roots})


def _facts(analysis: Analysis) -> Record:
    """How much of the kernel the lowered specializations show."""
    stores = [c for c in analysis.calls.memory_calls if MemoryEffect.WRITE in c.effects]
    seen = {
        call.span
        for access in analysis.accesses
        if access.effect is MemoryEffect.WRITE
        and (call := analysis.calls.memory_call(access.location, access.operation)) is not None
    }
    return {
        "specializations": len(analysis.views),
        "failed_specializations": len(analysis.failures),
        "complete": analysis.complete,
        "store_sites": len(stores),
        "store_sites_seen": sum(call.span in seen for call in stores),
    }


def reset_peaks() -> None:
    """Forget the peak memory of this process and its compiler, where the system can (Linux)."""
    for process in _processes():
        with contextlib.suppress(OSError):
            Path(f"/proc/{process}/clear_refs").write_text("5")


def peak_of_one_process() -> int:
    """MiB that the larger of this process and its compiler has held in memory since `reset_peaks`."""
    peaks = [resource.getrusage(resource.RUSAGE_SELF).ru_maxrss]  # KiB; of all kernels so far, where /proc cannot tell
    for process in _processes():
        with contextlib.suppress(OSError):
            status = Path(f"/proc/{process}/status").read_text()
            peaks.append(int(status.partition("VmHWM:")[2].split()[0]))
    return max(peaks[1:] or peaks) // 1024


def busy_seconds() -> float:
    """Seconds that processors have worked for this process and its compilers, those that ended included."""
    own, ended = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = own.ru_utime + own.ru_stime + ended.ru_utime + ended.ru_stime
    for process in _processes()[1:]:
        with contextlib.suppress(OSError):
            # after the name in brackets, which may hold anything: state, parent, ..., 12th and 13th: user, system
            fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
            seconds += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return seconds


def _processes() -> list[int]:
    own = compiler().process
    return [os.getpid(), *([own] if own is not None else [])]


def _folder(analysis: Analysis) -> str:
    return os.path.dirname(analysis.kernel.file.path)


def _reasons(refused: FusionRefused, folder: str) -> Record:
    return {
        "codes": sorted({d.code for d in refused.diagnostics}),
        "reasons": [_reason(d, folder) for d in refused.diagnostics[:8]],
    }


def _reason(diagnostic: Any, folder: str) -> str:
    span = diagnostic.labels[0].span if diagnostic.labels else None
    place = f" at {os.path.relpath(span.file, folder)}:{span.line}" if span else ""
    notes = "; ".join(note for note in diagnostic.notes if len(note) < 400)
    return f"{diagnostic.code}: {diagnostic.message}{place}" + (f" ({notes})" if notes else "")


def _trace(error: BaseException) -> str:
    """The exception and the last frames of the tool, without the folders of this machine."""
    if isinstance(error, InternalError):
        return str(error)
    frames = traceback.extract_tb(error.__traceback__)[-4:]
    where = " < ".join(f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in reversed(frames))
    return f"{type(error).__name__}: {error} ({where})"


# ------------------------------------------------------------------------------------------------------- the workers


def serve(mode: str = "") -> None:
    """A worker: one task a line on stdin, one record a line on stdout."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))
    sys.setrecursionlimit(max(sys.getrecursionlimit(), 5000))
    gc.disable()  # syntax trees of many files stay: only what a kernel leaves is gone through, between two kernels
    for line in sys.stdin:
        print(json.dumps(examine(Task(**json.loads(line)), mode)), file=answers, flush=True)
        gc.collect(0)


class Worker:
    """A process that examines kernels; started again when it crashes or exceeds the time limit."""

    def __init__(self, command: Sequence[str] = (), time_limit: float = TIME_LIMIT) -> None:
        self.command = list(command) or [sys.executable, os.path.abspath(__file__), "--worker"]
        self.time_limit = time_limit
        self._process: subprocess.Popen[bytes] | None = None

    def examine(self, task: Task) -> Record:
        """The record of `task`, with status "crash" or "timeout" when the worker did not answer."""
        if self._process is None or self._process.poll() is not None:
            self._process = subprocess.Popen(
                self.command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        assert self._process.stdin is not None
        started = time.monotonic()
        try:
            self._process.stdin.write(json.dumps(asdict(task)).encode() + b"\n")
            self._process.stdin.flush()
            answer = self._read(started + self.time_limit)
        except BrokenPipeError:
            answer = None
        if isinstance(answer, dict):
            return answer
        code = self._process.poll()
        self.close()
        status = "timeout" if answer == "timeout" else "crash"
        message = f"no answer after {self.time_limit:g} s" if status == "timeout" else f"the worker ended with {code}"
        fields = {k: v for k, v in asdict(task).items() if k != "folder"}
        seconds = round(time.monotonic() - started, 3)
        return {**fields, "status": status, "message": message, "outputs": [], "seconds": seconds}

    def _read(self, deadline: float) -> Record | str | None:
        assert self._process is not None and self._process.stdout is not None
        data = b""
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while not data.endswith(b"\n"):
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    return "timeout"
                chunk = os.read(self._process.stdout.fileno(), 1 << 20)
                if not chunk:
                    self._process.wait()
                    return None
                data += chunk
        record: Record = json.loads(data)
        return record

    def close(self) -> None:
        """Ends the worker and the compiler process it started."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.communicate()
        self._process = None


def run(
    tasks: Sequence[Task],
    results: Path,
    jobs: int,
    show: Callable[[Record], None] = lambda record: None,
    worker: Callable[[], Worker] = Worker,
) -> list[Record]:
    """The record of every task, those already in `results` first; new ones are appended there as they come."""
    known = {tuple(r[k] for k in ("group", "file", "kernel", "line")): r for r in read_records(results)}
    wanted = {task.key: task for task in tasks}
    records = [known[key] for key in wanted if key in known]
    waiting: queue.SimpleQueue[Task] = queue.SimpleQueue()
    for key, task in wanted.items():
        if key not in known:
            waiting.put(task)
    lock = threading.Lock()
    results.parent.mkdir(parents=True, exist_ok=True)
    if results.exists() and not results.read_bytes().endswith(b"\n"):
        with results.open("a", encoding="utf-8") as stream:
            stream.write("\n")  # ends the line that an interruption cut short

    def work() -> None:
        process = worker()
        try:
            while True:
                try:
                    task = waiting.get_nowait()
                except queue.Empty:
                    return
                record = process.examine(task)
                with lock:
                    records.append(record)
                    with results.open("a", encoding="utf-8") as stream:
                        stream.write(json.dumps(record) + "\n")
                    show(record)
        finally:
            process.close()

    threads = [threading.Thread(target=work) for _ in range(jobs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    order = {key: index for index, key in enumerate(wanted)}
    return sorted(records, key=lambda r: order[(r["group"], r["file"], r["kernel"], r["line"])])


def read_records(results: Path) -> list[Record]:
    """The whole records of `results`; the last line may be cut short by an interruption."""
    records = []
    if results.exists():
        for line in results.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(json.JSONDecodeError):
                records.append(json.loads(line))
    return [record for record in records if "status" in record]


def fingerprint() -> str:
    """Changes with the tool, this script and triton, so that a run never mixes the results of two of them."""
    state = hashlib.sha256(compiler().triton_version.encode())
    for path in sorted([*(ROOT / "kernel_rewrite").rglob("*.py"), Path(__file__)]):
        state.update(path.read_bytes())
    return state.hexdigest()[:16]


# -------------------------------------------------------------------------------------------------------- the results


@dataclass(slots=True)
class Row:
    """The counts of one row of the table."""

    title: str
    kernels: int = 0
    lowered: int = 0
    sites: int = 0
    sites_seen: int = 0
    outputs: int = 0
    fused: int = 0
    kernels_fused: int = 0
    internal: int = 0
    timeouts: int = 0
    seconds: float = 0.0
    busy: float = 0.0
    peak: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    not_lowered: Counter[str] = field(default_factory=Counter)

    def add(self, record: Record) -> None:
        if record["kernel"]:
            self.kernels += 1
        self.seconds += record["seconds"]
        self.busy += record.get("cpu_seconds", 0.0)
        self.peak = max(self.peak, record.get("peak_mib", 0))
        self.internal += record["status"] in ("internal", "crash")
        self.timeouts += record["status"] == "timeout"
        if record["status"] == "refused":
            self.not_lowered.update(record["codes"])
        if "specializations" not in record:
            return
        self.lowered += 1
        self.sites += record["store_sites"]
        self.sites_seen += record["store_sites_seen"]
        self.outputs += len(record["outputs"])
        statuses = [output["status"] for output in record["outputs"]]
        self.fused += statuses.count("fused")
        self.kernels_fused += "fused" in statuses
        self.internal += statuses.count("internal")
        for output in record["outputs"]:
            self.refused.update(output.get("codes", ()))

    def merge(self, other: Row) -> None:
        for name in ("kernels", "lowered", "sites", "sites_seen", "outputs", "fused", "kernels_fused", "internal"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.timeouts += other.timeouts
        self.seconds += other.seconds
        self.busy += other.busy
        self.peak = max(self.peak, other.peak)
        self.refused.update(other.refused)
        self.not_lowered.update(other.not_lowered)


def rows(records: Iterable[Record], titles: Sequence[str]) -> list[Row]:
    """One row a title, in that order, then the sum of them all."""
    table = {title: Row(title) for title in titles}
    for record in records:
        table.setdefault(record["group"], Row(record["group"])).add(record)
    total = Row("all")
    for row in table.values():
        total.merge(row)
    return [*table.values(), total]


def _share(part: int, whole: int) -> str:
    return f"{part} ({100 * part / whole:.0f} %)" if whole else "0"


def _exactly(part: int, whole: int) -> str:
    return f"{part:,} of {whole:,} ({100 * part / max(whole, 1):.1f} %)"


def _by_code(counts: Counter[str]) -> str:
    return ", ".join(f"{code} {count}" for code, count in sorted(counts.items())) or "none"


_COLUMNS = (
    "package",
    "kernels",
    "lowered",
    "store sites seen",
    "outputs",
    "fused",
    "kernels with a fused output",
    "outputs refused, by code",
    "kernels refused, by code",
    "internal errors",
    "time-outs",
    "seconds",
    "CPU seconds",
    "MiB at most",
)


def table(rows: Iterable[Row]) -> str:
    """The rows as a Markdown table."""
    lines = ["| " + " | ".join(_COLUMNS) + " |", "|---" * len(_COLUMNS) + "|"]
    for row in rows:
        cells = (
            row.title,
            str(row.kernels),
            _share(row.lowered, row.kernels),
            f"{row.sites_seen} of {row.sites}",
            str(row.outputs),
            _share(row.fused, row.outputs),
            _share(row.kernels_fused, row.kernels),
            _by_code(row.refused),
            _by_code(row.not_lowered),
            str(row.internal),
            str(row.timeouts),
            f"{row.seconds:.0f}",
            f"{row.busy:.0f}",
            str(row.peak),
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def report(records: Sequence[Record], titles: Sequence[str], facts: dict[str, Any]) -> str:
    """The page with the table, what the run was made with, the meaning of the codes and the internal errors."""
    result = rows(records, titles)
    used = sorted({code for row in result for code in (*row.refused, *row.not_lowered)})
    slowest = sorted((r["seconds"] for r in records), reverse=True) or [0.0]
    middle = slowest[len(slowest) // 2]
    busiest = sorted((r.get("cpu_seconds", 0.0) for r in records), reverse=True) or [0.0]
    usual = [row for row in result[:-1] if row.title not in {package.apart_title for package in PACKAGES}]
    with_output, lowered = sum(row.kernels_fused for row in usual), sum(row.lowered for row in usual)
    lines = [
        "# Public kernels",
        "",
        f"`relu` fused into every output of every Triton kernel of {len(titles)} groups of public kernels, each kernel "
        "once (the first of those with the same parameters and body). The outputs of a kernel that can take it take it in "
        "one file, which is validated; in a file each where that fails.",
        "",
        table(result),
        f"kernel-rewrite {facts['version']}, Triton {facts['triton']}, Python {facts['python']}, {facts['cores']} "
        f"cores, {facts['date']}; {facts['wall']} s in all with {facts['jobs']} jobs (finding the kernels included), "
        f"{facts['usual']} s without the backends of other vendors; "
        f"{middle:.2f} s for the middle kernel, {slowest[0]:.1f} s for the slowest. {sum(busiest):.0f} CPU seconds of the "
        f"workers and their compilers: {busiest[len(busiest) // 2]:.2f} for the middle kernel, {busiest[0]:.1f} for the "
        f"slowest, more than 10 for {sum(seconds > 10 for seconds in busiest)} kernels. The largest process held "
        f"{result[-1].peak} MiB.",
        "",
        "Kernels with a fused output, of those lowered, without the backends of other vendors: "
        f"{_exactly(with_output, lowered)}.",
        "",
        "Packages: " + ", ".join(f"{p.name} {p.version}" for p in PACKAGES if p.name in titles) + ".",
        "",
        "An output refused for several reasons counts under each of their codes.",
        "",
        *(f"- {code}: {CODES[code]}" for code in used),
        "",
    ]
    bugs = [(r, r.get("message")) for r in records if r["status"] in ("internal", "crash", "timeout")]
    bugs += [(r, o["message"]) for r in records for o in r["outputs"] if o["status"] == "internal"]
    if bugs:
        lines += ["## Internal errors and time-outs", ""]
        lines += [f"- {r['group']} `{r['file']}` `{r['kernel']}`: {message}" for r, message in bugs] + [""]
    return "\n".join(lines)


# --------------------------------------------------------------------------------------------- outputs with operands


@dataclass(slots=True)
class OperandRow:
    """The counts of one row of the table of `--operands`: of the outputs that can take the epilogue itself, those that take
    each kind of operand, and the codes of the others."""

    title: str
    kernels: int = 0
    eligible: int = 0
    failed: int = 0
    busy: float = 0.0
    fused: Counter[str] = field(default_factory=Counter)
    refused: dict[str, Counter[str]] = field(default_factory=lambda: {kind: Counter() for kind in OPERANDS})

    def add(self, record: Record) -> None:
        self.kernels += 1
        self.failed += record["status"] in ("internal", "crash", "timeout")
        self.busy += record.get("cpu_seconds", 0.0)
        for output in record["outputs"]:
            self.eligible += output["status"] == "eligible"
            self.failed += output["status"] == "internal"
            for kind, found in output["operands"].items():
                self.fused[kind] += found["status"] == "fused"
                self.failed += found["status"] == "internal"
                self.refused[kind].update(found.get("codes", ()))


def operand_table(records: Iterable[Record], titles: Sequence[str]) -> str:
    """The counts of each title, and of all, as a Markdown table."""
    rows = {title: OperandRow(title) for title in (*titles, "all")}
    for record in records:
        for title in (record["group"], "all"):
            rows[title].add(record)
    head = ["package", "kernels", "outputs that take relu"]
    head += [cell for kind in OPERANDS for cell in (f"a {kind} too", f"no {kind}, by code")]
    head += ["failures", "CPU seconds"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for row in rows.values():
        cells = [row.title, str(row.kernels), str(row.eligible)]
        for kind in OPERANDS:
            cells += [_share(row.fused[kind], row.eligible), _by_code(row.refused[kind])]
        lines.append("| " + " | ".join([*cells, str(row.failed), f"{row.busy:.0f}"]) + " |")
    return "\n".join(lines) + "\n"


def operand_report(records: Sequence[Record], titles: Sequence[str], facts: dict[str, Any]) -> str:
    """The page with that table, and what the codes mean."""
    kinds = [found for r in records for o in r["outputs"] for found in o["operands"].values()]
    used = sorted({code for found in kinds for code in found.get("codes", ())})
    texts = " and ".join(f"`{text}` with a {kind}" for kind, (text, _) in OPERANDS.items())
    return "\n".join(
        [
            "# Public kernels, with operands",
            "",
            f"{texts}, each fused into every output that can take `relu`, of the kernels of {', '.join(titles)}; launchers "
            "are left alone. A row is read without an index written by hand. Every fused file is validated.",
            "",
            operand_table(records, titles),
            f"kernel-rewrite {facts['version']}, Triton {facts['triton']}, Python {facts['python']}, {facts['date']}. "
            f"Made by `python benchmarks/corpus.py {facts['arguments']}`, {facts['jobs']} job(s), {facts['wall']} s.",
            "",
            *(f"- {code}: {CODES[code]}" for code in used),
            "",
        ]
    )


# --------------------------------------------------------------------------------------------- inputs with prologues


@dataclass(slots=True)
class PrologueRow:
    """The counts of one row of the table of `--prologues`. `again`: prologues that are computed again for
    many tiles."""

    title: str
    kernels: int = 0
    lowered: int = 0
    inputs: int = 0
    fused: int = 0
    kernels_fused: int = 0
    again: int = 0
    failed: int = 0
    busy: float = 0.0
    refused: Counter[str] = field(default_factory=Counter)

    def add(self, record: Record) -> None:
        inputs = record.get("inputs", ())
        statuses = [input["status"] for input in inputs]
        self.kernels += 1
        self.lowered += "specializations" in record
        self.inputs += len(inputs)
        self.fused += statuses.count("fused")
        self.kernels_fused += "fused" in statuses
        self.failed += (record["status"] in ("internal", "crash", "timeout")) + statuses.count("internal")
        self.busy += record.get("cpu_seconds", 0.0)
        self.again += sum(input["name"] in input.get("again", ()) for input in inputs)
        for input in inputs:
            self.refused.update(input.get("codes", ()))


def prologue_table(records: Iterable[Record], titles: Sequence[str]) -> str:
    """The counts of each title, and of all, as a Markdown table."""
    rows = {title: PrologueRow(title) for title in (*titles, "all")}
    for record in records:
        for title in (record["group"], "all"):
            rows[title].add(record)
    head = ("package", "kernels", "lowered", "inputs", f"take {PROLOGUE}", "kernels with one that does")
    head += ("inputs refused, by code", "computed again for many tiles (KR404)", "failures", "CPU seconds")
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for row in rows.values():
        cells = (
            row.title,
            str(row.kernels),
            _share(row.lowered, row.kernels),
            str(row.inputs),
            _share(row.fused, row.inputs),
            _share(row.kernels_fused, row.kernels),
            _by_code(row.refused),
            _share(row.again, row.fused),
            str(row.failed),
            f"{row.busy:.0f}",
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def prologue_report(records: Sequence[Record], titles: Sequence[str], facts: dict[str, Any]) -> str:
    """The page with that table, and what the codes mean."""
    used = sorted({code for r in records for i in r.get("inputs", ()) for code in i.get("codes", ())})
    failures = [(r, i) for r in records for i in r.get("inputs", ()) if i["status"] == "internal"]
    return "\n".join(
        [
            "# Public kernels, with prologues",
            "",
            f"`{PROLOGUE}` fused into every input of the kernels of {', '.join(titles)}. The inputs of a kernel that can "
            "take it take it in one file, which is validated; in a file each where that fails.",
            "",
            prologue_table(records, titles),
            f"kernel-rewrite {facts['version']}, Triton {facts['triton']}, Python {facts['python']}, {facts['date']}. "
            f"Made by `python benchmarks/corpus.py {facts['arguments']}`, {facts['jobs']} job(s), {facts['wall']} s.",
            "",
            "An input refused for several reasons counts under each of their codes.",
            "",
            *(f"- {code}: {CODES[code]}" for code in used),
            "",
            *(
                f"- failure: {r['group']} `{r['file']}` `{r['kernel']}` `{i['name']}`: {i['message']}"
                for r, i in failures
            ),
            *([""] if failures else []),
        ]
    )


# ------------------------------------------------------------------------------------------------------ command line


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--package", action="append", choices=[p.name for p in PACKAGES], help="only this one (repeat)")
    parser.add_argument("--kernel", help="only kernels whose name holds this")
    parser.add_argument("--file", help="only kernels of files whose path holds this")
    parser.add_argument("--limit", type=int, help="at most so many kernels")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--time-limit", type=float, default=TIME_LIMIT, help="seconds a kernel may take")
    parser.add_argument("--downloads", type=Path, default=Path(os.environ.get("CORPUS_DOWNLOADS", ROOT / ".corpus")))
    parser.add_argument("--stream", type=Path, help="the JSON-lines file of outcomes, and of what to resume")
    parser.add_argument("--fresh", action="store_true", help="do not resume")
    parser.add_argument("--json", type=Path, help="where to write every outcome")
    parser.add_argument("--markdown", type=Path, help="where to write the table")
    other = parser.add_mutually_exclusive_group()
    for mode, words in (("operands", "epilogues that read an operand"), ("prologues", "a prologue into each input")):
        other.add_argument(
            f"--{mode}", action="store_const", const=mode, dest="mode", help=f"fuse {words}, and count those"
        )
    parser.set_defaults(mode="")
    parser.add_argument("--verbose", action="store_true", help="show each kernel")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


REPORTS = {"operands": (operand_report, operand_table), "prologues": (prologue_report, prologue_table)}
"""The page and the table of each mode."""


def main() -> int:
    options = arguments()
    if options.worker:
        serve(options.mode)
        return 0
    started = time.monotonic()
    chosen = [p for p in PACKAGES if not options.package or p.name in options.package]
    folders = [unpack(p, download(p, options.downloads), options.downloads) for p in chosen]
    tasks, failures = all_tasks(chosen, folders, options.jobs)
    tasks = deduplicated(tasks)
    tasks = [t for t in tasks if (options.kernel or "") in t.kernel and (options.file or "") in t.file]
    tasks = tasks[: options.limit]
    print(f"{len(tasks)} kernels found in {time.monotonic() - started:.0f} s", file=sys.stderr)

    mode = [f"--{options.mode}"] if options.mode else []
    stream = options.stream or options.downloads / f"outcomes-{fingerprint()}{''.join(mode)}.jsonl"
    if options.fresh and stream.exists():
        stream.unlink()
    done = 0
    others = {p.apart_title for p in PACKAGES}
    waiting = sum(task.group not in others for task in tasks)
    usual = 0.0

    def show(record: Record) -> None:
        nonlocal done, waiting, usual
        done += 1
        waiting -= record["group"] not in others
        usual = usual if waiting else usual or time.monotonic() - started
        if options.verbose or options.kernel:
            print(_line(record), flush=True)
        elif done % 100 == 0:
            print(f"{done} kernels, {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)

    command = [sys.executable, os.path.abspath(__file__), "--worker", *mode]
    records = failures + run(tasks, stream, options.jobs, show, lambda: Worker(command, options.time_limit))
    titles = [title for p in chosen for title in (p.name, p.apart_title) if title]
    facts = {
        "version": __version__,
        "triton": compiler().triton_version,
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "date": time.strftime("%Y-%m-%d"),
        "jobs": options.jobs,
        "wall": round(time.monotonic() - started),
        "usual": round(usual),  # until the last kernel that is not of another vendor's backend; those come last
        "arguments": " ".join([*mode, *(f"--package {package.name}" for package in chosen)]),
    }
    if options.mode:
        page, counts = REPORTS[options.mode]
        titles = [title for title in titles if any(record["group"] == title for record in records)]
        if options.markdown:
            options.markdown.write_text(page(records, titles, facts), encoding="utf-8")
        print(counts(records, titles))
        return 0
    whole = not (options.package or options.kernel or options.file or options.limit)
    results = ROOT / "benchmarks" / "results"
    markdown = options.markdown or (results / "corpus.md" if whole else None)
    outcomes = options.json or (results / "corpus.json" if whole else None)
    if outcomes:
        outcomes.parent.mkdir(parents=True, exist_ok=True)
        lines = ",\n".join(json.dumps(_outcome(record)) for record in records)
        outcomes.write_text(f'{{"facts": {json.dumps(facts)},\n"kernels": [\n{lines}\n]}}\n', encoding="utf-8")
    if markdown:
        markdown.parent.mkdir(parents=True, exist_ok=True)
        markdown.write_text(report(records, titles, facts), encoding="utf-8")
    result = rows(records, titles)
    print(table(result))
    return 1 if result[-1].internal else 0


def _outcome(record: Record) -> Record:
    """`record` without the words of the diagnostics: which kernel, which outputs, what happened, how long it took."""
    outcome = {k: v for k, v in record.items() if k not in ("reasons", "digest")}
    return outcome | {"outputs": [{k: v for k, v in o.items() if k != "reasons"} for o in record["outputs"]]}


def _line(record: Record) -> str:
    head = f"{record['group']} {record['file']}:{record['line']} {record['kernel']} {record['seconds']:.2f}s"
    if record["status"] != "lowered":
        return f"{head}\n    {record['status']}: {record.get('message') or record['reasons']}"
    lines = [head]
    for output in (*record["outputs"], *record.get("inputs", ())):
        for what, found in [("", output), *output.get("operands", {}).items()]:
            why = found.get("message") or "; ".join(found.get("reasons", ()))
            lines.append(f"    {output['name']} {what}: {found['status']} {why}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
