"""Fuse ops into public kernels and run them in Triton's interpreter: the original kernel + the torch op against the fused.

    python benchmarks/differential.py                 100 kernels; the table goes to benchmarks/results/differential.md
    python benchmarks/differential.py --package fla-core --kernel fwd --count 5 --show

The kernels are drawn from those that `benchmarks/corpus.py` fused into (its corpus.json). No package is imported: the jit
functions of the kernel's closure are compiled one by one from the original text and from the fused one, each with what
its global names mean. The launch is made up: flat buffers of seeded values, sizes and strides by the parameters' names.
It need not make sense, only be the same on both sides: every lane outside of every buffer is turned off, and a gap much
larger than a buffer lies between any two. Each kernel runs in a process of its own, with a time limit.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib.metadata
import itertools
import json
import mmap
import os
import platform
import random
import re
import resource
import signal
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from kernel_rewrite import __version__  # noqa: E402
from kernel_rewrite.model import Evidence  # noqa: E402

Record = dict[str, Any]
"""What happened to one kernel, as it stands in differential.json."""

OPS = ("relu", "sigmoid", "gelu")
GRID = (2, 2, 1)
ELEMENTS = 1 << 16
GAP = 32 << 20
"""Bytes on either side of a buffer that nothing else lies in."""

FUSE_LIMIT = 6.0
"""A kernel that took the corpus run longer than this is not drawn; its time says nothing about the result."""

RUN_LIMIT = 20
MOST_VIEWS = 3
MEMORY_LIMIT = 24 << 30


# -------------------------------------------------------------------------------------------------- a launch, made up


TORCH_TYPES = {
    **{"fp16": "float16", "bf16": "bfloat16", "fp32": "float32", "fp64": "float64", "i1": "bool"},
    **{f"i{size}": f"int{size}" for size in (8, 16, 32, 64)},
    **{f"u{size}": f"uint{size}" for size in (8, 16, 32, 64)},
    **{"fp8e4nv": "float8_e4m3fn", "fp8e5": "float8_e5m2", "fp8e4b8": "float8_e4m3fnuz", "fp8e5b16": "float8_e5m2fnuz"},
}

STRIDES = (1, 256, 4096, 16384)
"""From the innermost dimension out."""

SIZES = (33, 64, 100, 129)
COUNTS = (2, 3, 4)


SHOWN = (Evidence.OVERRIDE, Evidence.AUTOTUNE, Evidence.LAUNCH, Evidence.ALLOCATION)
"""Where a type is read, not inferred."""


class NoLaunch(Exception):
    """A parameter that no argument can be made up for."""


def arguments(signature: Sequence[Any], constexprs: dict[str, Any], seed: int) -> list[tuple[str, Record]]:
    """How to make each argument: {"buffer": dtype, "holds": ...}, {"descriptor": dtype, "block": ...}, {"value": ...} (as
    `ttir.lower` encodes it) or {"tuple": ...}."""
    draw = random.Random(seed)
    strides = _strides([name for name, kind in signature if kind in ("i32", "i64") and "stride" in name.lower()])
    sizes: dict[str, int] = {}
    return [(name, _argument(name, kind, constexprs, strides, sizes, draw)) for name, kind in signature]


def _argument(
    name: str,
    kind: Any,
    constexprs: dict[str, Any],
    strides: dict[str, int],
    sizes: dict[str, int],
    draw: random.Random,
) -> Record:
    if isinstance(kind, (list, tuple)):
        return {"tuple": [_argument(name, k, constexprs, strides, sizes, draw) for k in kind]}
    kind = str(kind)
    if kind == "constexpr":
        return {"value": constexprs.get(name)}
    pointer = re.fullmatch(r"\*k?(\w+)", kind)
    if pointer and pointer[1] in TORCH_TYPES:
        return {"buffer": TORCH_TYPES[pointer[1]], "holds": _contents(name, pointer[1])}
    descriptor = re.match(r"tensordesc<(\w+)\[([\d, ]+)\]", kind)
    if descriptor and descriptor[1] in TORCH_TYPES:
        block = [int(size) for size in descriptor[2].split(",")]
        return {"descriptor": TORCH_TYPES[descriptor[1]], "block": block}
    if kind in ("i1", "u1"):
        return {"value": draw.random() < 0.5}
    if re.fullmatch(r"[iu]\d+", kind):
        return {"value": strides[name] if name in strides else sizes.setdefault(name.lower(), _integer(name, draw))}
    if re.fullmatch(r"fp\d+|bf16", kind):
        return {"scalar": kind, "value": round(draw.uniform(0.5, 1.5), 3)}
    raise NoLaunch(f"a parameter of type {kind}")


def _contents(name: str, element: str) -> str:
    if element.startswith(("fp", "bf")):
        return "numbers"
    if element == "i1":
        return "flags"
    if re.search(r"cu_|cum|indptr|offset|start|seqlens|ptrs", name, re.IGNORECASE):
        return "offsets"
    return "signed" if element == "i8" else "indices"


def _strides(names: Sequence[str]) -> dict[str, int]:
    """As of contiguous tensors: of the names that differ only at their end, the last one is the innermost."""
    groups: dict[str, list[str]] = {}
    for name in names:
        stem = re.sub(r"(?<=stride)_?[a-z0-9]$|(?<=stride_)([a-z0-9]+?)_?[a-z0-9]$", r"\1", name, flags=re.IGNORECASE)
        groups.setdefault(stem, []).append(name)
    found = {}
    for group in groups.values():
        if len(group) == 1 and not group[0].lower().endswith(("_1", "col_stride")):
            found[group[0]] = STRIDES[1]
            continue
        for position, name in enumerate(reversed(group)):
            found[name] = STRIDES[min(position, len(STRIDES) - 1)]
    return found


def _integer(name: str, draw: random.Random) -> int:
    if re.search(r"idx|index|start|offset|seed|layer|pad|begin|zero|label|ignore", name, re.IGNORECASE):
        return draw.randrange(4)
    if re.search(r"head|batch|group|^[hbgz]$|^h[qkv]$|top_?k|width|split|dilation|kernel|repeat", name, re.IGNORECASE):
        return draw.choice(COUNTS)
    return draw.choice(SIZES)


# ------------------------------------------------------------------------------------------ one kernel, fused and encoded


def prepared(task: Record, number: int) -> Iterator[Record]:
    """Cases to run for a kernel of the corpus, one for each of some specializations. Raises what fusing raises."""
    from kernel_rewrite.analysis import analyse
    from kernel_rewrite.diagnostics import FusionRefused
    from kernel_rewrite.fuse import fuse_outputs
    from kernel_rewrite.request import element_type_of
    from kernel_rewrite.rewrite.confirm import read_rewritten
    from kernel_rewrite.source.closure import close, kernels
    from kernel_rewrite.source.files import Project
    from kernel_rewrite.ttir.lower import _encode_closure, compiler, encode

    project = Project()
    file = project.read(os.path.join(task["folder"], task["file"]))
    definition = next(k for k in kernels(file, project) if (k.name, k.node.lineno) == (task["kernel"], task["line"]))
    analysis = analyse(definition, project, compiler())
    names = [output["name"] for output in task["outputs"] if output["status"] == "fused"]
    requests = []
    for position, name in enumerate(names):
        elements = {element_type_of(view.specialization, name) for view in analysis.views} - {""}
        floats = all(element.startswith(("fp", "bf")) for element in elements)
        requests.append((name, OPS[(number + position) % len(OPS)] if floats else "relu"))
    try:
        fused = fuse_outputs(analysis, requests)
    except FusionRefused:  # sigmoid changes zeros, which some buffers are filled with
        requests = [(name, "relu") for name in names]
        fused = fuse_outputs(analysis, requests)
    rewritten = read_rewritten(fused.source, analysis)
    others = (other for other in project.files() if other is not file)
    after = Project((rewritten, *others))
    kernel = next(k for k in kernels(rewritten, after) if k.name == definition.name)
    original = _encode_closure(analysis.closure, project.sources())
    changed = _encode_closure(close(kernel, after), after.sources())
    guessed = {fact.name for fact in analysis.facts if fact.evidence not in SHOWN}
    specializations = [view.specialization for view in analysis.views[:MOST_VIEWS]]
    for specialization in (*_narrowed(specializations[0], guessed, number), *specializations):
        constexprs = {name: encode(value) for name, value in specialization.constexprs}
        yield {
            "original": original,
            "fused": changed,
            "arguments": arguments(specialization.signature, constexprs, number),
            "outputs": requests,
            "stores": {proof.output: [[s.file, s.line, s.end_line] for s in proof.stores] for proof in fused.proofs},
            "seed": number,
            "origin": specialization.origin,
            "fused_text": fused.source,
        }


def _narrowed(specialization: Any, guessed: set[str], number: int) -> Iterator[Any]:
    """For two kernels of three: 16-bit buffers where only a guess says float32. A launch may pass them."""
    narrow = (None, "*fp16", "*bf16")[number % 3]
    types = {name: narrow for name, kind in specialization.signature if kind == "*fp32" and name in guessed}
    if narrow and types:
        yield dataclasses.replace(
            specialization.with_types(**types), origin=f"{specialization.origin}, {narrow[1:]} buffers".lstrip(", ")
        )


# ----------------------------------------------------------------------------------------- the interpreter's process


def serve() -> None:
    """Runs the case of each line of stdin in a fork, answers each with a line of JSON."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.environ["TRITON_INTERPRET"] = "1"
    import torch
    import triton.language.extra.libdevice
    import triton.runtime.interpreter  # noqa: F401

    torch.set_num_threads(1)
    for line in sys.stdin:
        print(json.dumps(_in_fork(json.loads(line))), file=answers, flush=True)


def _in_fork(case: Record) -> Record:
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        with contextlib.suppress(BaseException):
            os.close(reader)
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))
            signal.alarm(RUN_LIMIT)
            with os.fdopen(writer, "w", encoding="utf-8") as stream:
                json.dump(_run(case), stream)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, encoding="utf-8") as stream:
        text = stream.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        late = os.WTERMSIG(status) == signal.SIGALRM
        return {"skipped": f"over {RUN_LIMIT} s" if late else f"the interpreter dies of signal {os.WTERMSIG(status)}"}
    answer: Record = json.loads(text) if text else {"skipped": "the interpreter's process ended without an answer"}
    return answer


def _run(case: Record) -> Record:
    """The comparison of one case, or {"skipped": why}."""
    import numpy as np

    from kernel_rewrite.pointwise.interpreter import stand_ins
    from kernel_rewrite.verify.host import cpu_for_cuda
    from kernel_rewrite.verify.modules import understood_annotations

    np.seterr(all="ignore")
    buffers = _Buffers(case["seed"])
    with contextlib.ExitStack() as stack:
        for manager in (understood_annotations(), stand_ins(), cpu_for_cuda([])):
            stack.enter_context(manager)
        try:
            made = {name: buffers.argument(name, how) for name, how in case["arguments"]}
            storing = stack.enter_context(_within(buffers, set(case["original"]["texts"])))
            regions = {output: buffers.region(output) for output, _ in case["outputs"]}
            first = _launched(case["original"], made, buffers, regions, 0)
            second = _launched(case["original"], made, buffers, regions, 1)
            stored = set(storing)
        except Exception as error:
            return {
                "skipped": f"the original fails in the interpreter: {_cause(error)}",
                "trace": traceback.format_exc(),
            }
        try:
            fused = _launched(case["fused"], made, buffers, regions, 0)
        except Exception as error:
            return {"failure": f"the fused kernel fails: {_cause(error)}", "trace": traceback.format_exc()}
    answer = _verdict(case, first, second, fused)
    for output in answer.get("outputs", ()):
        spans = case["stores"].get(output["name"], ())
        output["stores"] = len(spans)
        output["stores_run"] = sum(any(f == file and a <= line <= b for file, line in stored) for f, a, b in spans)
    return answer


def _cause(error: BaseException) -> str:
    while type(error).__name__ == "InterpreterError" and error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:160]}"


def _kernel(closure: Record) -> Any:
    """The kernel of an encoded closure as the interpreter's function; nothing of its file runs but the jit functions."""
    import triton.language as tl

    from kernel_rewrite.ttir.worker import _build
    from kernel_rewrite.verify.modules import _HIDDEN_NAME, _late_bound, _member

    jitted: dict[tuple[str, str], Any] = {}
    kernel = _build(closure, jitted)
    for function in jitted.values():
        plain = getattr(function, "fn", None)
        if plain is None:
            continue
        names = plain.__globals__
        for name, value in list(names.items()):
            member = _member(value)
            if member is not None:
                names[name] = _late_bound(*member)
        names[_HIDDEN_NAME] = tl
    return kernel


def _float_scalar(kind: str, value: float) -> Any:
    """A float argument as a kernel sees it: the interpreter by itself passes the Python number on."""
    import numpy as np
    import triton.language as tl
    from triton.runtime.interpreter import TensorHandle

    if kind not in ("fp32", "fp64"):
        raise NoLaunch(f"a scalar of type {kind}")
    array = np.array([value], dtype=np.float32 if kind == "fp32" else np.float64)
    return tl.tensor(TensorHandle(array, tl.str_to_ty(kind, None)), tl.str_to_ty(kind, None))


class _Buffers:
    """The memory of one case: each buffer in a mapping of its own, between two gaps, the same for every launch."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.tensors: dict[str, Any] = {}
        self.contents: dict[str, Any] = {}

    def argument(self, name: str, how: Record) -> Any:
        from triton.tools.tensor_descriptor import TensorDescriptor

        from kernel_rewrite.ttir.worker import decode

        if "tuple" in how:
            return tuple(self.argument(f"{name}[{i}]", item) for i, item in enumerate(how["tuple"]))
        if "scalar" in how:
            return _float_scalar(how["scalar"], how["value"])
        if "value" in how:
            return decode(how["value"], {})
        if "buffer" in how:
            return self._buffer(name, how["buffer"], how["holds"])
        flat = self._buffer(name, how["descriptor"], "numbers")
        shape = [size + max(1, size // 2) for size in how["block"]]
        shape[:-1] = [size * 2 for size in how["block"][:-1]]
        shape[-1] = how["block"][-1] * 2  # rows of 16 bytes, as a descriptor wants
        count = 1
        for size in shape:
            count *= size
        if count > flat.numel():
            raise NoLaunch("a descriptor larger than a buffer")
        return TensorDescriptor.from_tensor(flat[:count].reshape(shape), how["block"])

    def _buffer(self, name: str, dtype: str, holds: str) -> Any:
        import torch

        kind = getattr(torch, dtype)
        count = ELEMENTS * kind.itemsize
        place = mmap.mmap(-1, 2 * GAP + count)
        tensor = torch.frombuffer(place, dtype=torch.uint8, count=count, offset=GAP).view(kind)
        torch.manual_seed(self.seed * 100 + len(self.tensors))
        if holds == "numbers":
            values = torch.rand(ELEMENTS) * 4 - 2
        elif holds == "flags":
            values = torch.rand(ELEMENTS) < 0.7
        elif holds == "offsets":
            values = torch.arange(ELEMENTS) * 32
        else:
            values = torch.randint(-8 if holds == "signed" else 0, 8, (ELEMENTS,))
        tensor.copy_(values.to(kind))
        self.tensors[name] = tensor
        self.contents[name] = tensor.clone()
        return tensor

    def region(self, output: str) -> Any:
        from kernel_rewrite.verify.launches import _Region

        if output not in self.tensors:
            return None  # this specialization has no such buffer
        tensor = self.tensors[output]
        return _Region(tensor, [], (0, tensor.untyped_storage().nbytes()))

    def restore(self) -> None:
        for name, content in self.contents.items():
            self.tensors[name].copy_(content)


@contextlib.contextmanager
def _within(buffers: _Buffers, files: set[str]) -> Iterator[set[tuple[str, int]]]:
    """Inside, every access of the interpreter outside of `buffers` is turned off; atomic ones too. Gives the lines of
    `files` that have stored so far."""
    import numpy as np
    from triton.runtime import interpreter

    from kernel_rewrite.verify.bounds import _Checked

    class Fixed(_Checked):
        def expect(self, arguments: list[Any]) -> None:
            pass

        def _refresh(self) -> None:
            pass

        def store(self, pointers: Any, value: Any, mask: Any) -> Any:
            frame: Any = sys._getframe(1)
            while frame is not None and frame.f_code.co_filename not in files:
                frame = frame.f_back
            if frame is not None:
                lines.add((frame.f_code.co_filename, frame.f_lineno))
            return super().store(pointers, value, mask)

        def atomic_rmw(self, operation: Any, pointers: Any, value: Any, mask: Any, order: Any) -> Any:
            inside = self._inside(pointers, mask, np.asarray(value).itemsize, "updates")
            return self._memory.atomic_rmw(operation, pointers, value, inside, order)

        def atomic_cas(self, pointers: Any, compared: Any, value: Any, order: Any) -> Any:
            if not bool(self._known(np.asarray(pointers), np.asarray(value).itemsize).all()):
                raise IndexError("a compare-and-swap outside of the buffers")
            return self._memory.atomic_cas(pointers, compared, value, order)

    lines: set[tuple[str, int]] = set()
    memory = interpreter._interpreter
    checked = Fixed(memory, [])
    checked._know(buffers.tensors.values())
    interpreter._interpreter = checked
    try:
        yield lines
    finally:
        interpreter._interpreter = memory


def _launched(closure: Record, made: Record, buffers: _Buffers, regions: Record, poison: int) -> Record:
    """The bytes of every buffer after a launch with poisoned outputs; which elements of the outputs are poison still."""
    buffers.restore()
    for region in regions.values():
        if region is not None:
            region.poison(poison)
    _kernel(closure)[GRID](**made)
    return {
        "buffers": {name: tensor.clone() for name, tensor in buffers.tensors.items()},
        "left": {name: region.poisoned(poison) for name, region in regions.items() if region is not None},
    }


def _verdict(case: Record, first: Record, second: Record, fused: Record) -> Record:
    """Compares the fused launch with the first of the original and the torch op; the second tells what was written."""
    from kernel_rewrite.pointwise.language import parse_epilogue
    from kernel_rewrite.verify.compare import bits, explained, same_elements, zeros_as_on_cuda

    ops = {name: op for name, op in case["outputs"] if name in first["left"]}
    outputs, failures = [], []
    for name, tensor in first["buffers"].items():
        got = fused["buffers"][name]
        if name not in ops:
            if not bool((bits(second["buffers"][name]) == bits(tensor)).all()):
                return {"skipped": "what the original writes depends on what its outputs held"}
            different = int((bits(got) != bits(tensor)).sum())
            if different:
                failures.append(f"`{name}`, which gets no op, differs in {different} elements")
            continue
        pointwise = parse_epilogue(ops[name])
        left = first["left"][name] & second["left"][name]
        if not bool((bits(tensor)[~left] == bits(second["buffers"][name])[~left]).all()):
            return {"skipped": "what the original writes depends on what its outputs held"}
        outside = int((bits(got) != bits(tensor))[left].sum())
        if outside:
            failures.append(f"`{name}`: {outside} elements are written by the fused kernel alone")
        value, found = tensor[~left], got[~left]
        expected = zeros_as_on_cuda(pointwise, value, pointwise.evaluate(value))
        different = (~same_elements(expected, found)).nonzero().flatten()
        at = (value[different], expected[different], found[different])
        wrong = different[~explained(*at, pointwise, "eager", "interpreter")] if len(different) else different
        if len(wrong):
            some = [(float(value[i]), float(expected[i]), float(found[i])) for i in wrong[:4]]
            failures.append(f"`{name}`: {len(wrong)} of {value.numel()} wrong; (value, expected, found): {some}")
        nan = int((value != value).sum()) if value.dtype.is_floating_point else 0
        changed = int((~same_elements(expected, value)).sum())
        outputs.append(
            {
                "name": name,
                "op": ops[name],
                "dtype": str(value.dtype).removeprefix("torch."),
                "written": int(value.numel()),
                "nan": nan,
                "changed": changed,
                "rounded_otherwise": len(different) - len(wrong),
                "wrong": len(wrong),
            }
        )
    tested = [output for output in outputs if output["changed"]]
    answer: Record = {"outputs": outputs}
    if failures:
        return {**answer, "failure": "; ".join(failures)}
    if not any(output["written"] for output in outputs):
        return {**answer, "skipped": "nothing is written"}
    if all(output["nan"] == output["written"] for output in outputs):
        return {**answer, "skipped": "every value is NaN"}
    if not tested:
        return {**answer, "skipped": "the op changes nothing"}
    return answer


class Runner:
    """The interpreter's process, kept for many cases."""

    def __init__(self) -> None:
        environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--serve"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            text=True,
        )

    def __call__(self, case: Record) -> Record:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps({k: v for k, v in case.items() if k != "fused_text"}) + "\n")
        self.process.stdin.flush()
        answer: Record = json.loads(self.process.stdout.readline())
        return answer

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=30)


# ------------------------------------------------------------------------------------------------------------- the run


def examined(task: Record, number: int, runner: Runner, keep: Path | None, unfused: bool = False) -> Record:
    """What fusing and running one kernel gave."""
    from kernel_rewrite.diagnostics import FusionRefused

    record: Record = {key: task[key] for key in ("group", "file", "kernel", "line")} | {"seed": number}
    started = time.monotonic()
    answer: Record = {"skipped": "no specialization"}
    try:
        for case in prepared(task, number):
            record["attempts"] = record.get("attempts", 0) + 1
            answer = runner(case | ({"fused": case["original"]} if unfused else {}))
            record["origin"] = case["origin"]
            if "failure" in answer and keep:
                keep.mkdir(parents=True, exist_ok=True)
                (keep / f"{number}_{task['kernel']}.json").write_text(json.dumps(case))
                (keep / f"{number}_{task['kernel']}.py").write_text(case["fused_text"])
            if "skipped" not in answer or answer["skipped"].startswith("over "):
                break
    except NoLaunch as reason:
        answer = {"skipped": str(reason)}
    except FusionRefused as refused:
        answer = {"skipped": f"not fused here: {', '.join(sorted({d.code for d in refused.diagnostics}))}"}
    except Exception as error:
        answer = {"failure": f"the tool fails: {type(error).__name__}: {error}", "trace": traceback.format_exc()}
    return record | answer | {"seconds": round(time.monotonic() - started, 2)}


def drawn(kernels: Iterable[Record], seed: int) -> list[Record]:
    """Shuffled, the packages in turn."""
    groups: dict[str, list[Record]] = {}
    for kernel in kernels:
        groups.setdefault(kernel["group"], []).append(kernel)
    draw = random.Random(seed)
    for group in groups.values():
        draw.shuffle(group)
    turns = itertools.zip_longest(*groups.values())
    return [kernel for turn in turns for kernel in turn if kernel is not None]


def compared(record: Record) -> bool:
    return "skipped" not in record and ("failure" not in record or bool(record.get("outputs")))


def report(records: Sequence[Record], titles: Sequence[str], facts: Record) -> str:
    """The Markdown page."""
    head = (
        "package",
        "kernels compared",
        "outputs",
        "elements compared",
        "changed by the op",
        "wrong kernels",
        "not compared",
    )
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for title in (*titles, "all"):
        rows = [r for r in records if title in (r["group"], "all")]
        if not rows:
            continue
        done = [r for r in rows if compared(r)]
        outputs = [o for r in done for o in r["outputs"] if o["written"]]
        cells = (
            *(title, len(done), len(outputs), sum(o["written"] for o in outputs), sum(o["changed"] for o in outputs)),
            *(sum("failure" in r for r in rows), len(rows) - len(done)),
        )
        lines.append(f"| {' | '.join(str(cell) for cell in cells)} |")
    missing = Counter(_reason(r) for r in records if not compared(r))
    outputs = [o for r in records if compared(r) for o in r["outputs"] if o["written"]]
    by_op = Counter(o["op"] for o in outputs)
    by_type = Counter(o["dtype"] for o in outputs)
    rounded = sum(o["rounded_otherwise"] for o in outputs)
    failures = [
        f"- {r['group']} `{r['file']}:{r['line']}` `{r['kernel']}`: {r['failure']}" for r in records if "failure" in r
    ]
    return "\n".join(
        [
            "# Public kernels, run",
            "",
            "relu, sigmoid or gelu (in turn) fused into every output that takes it, of kernels drawn at random from those"
            " of `corpus.json`, the packages in turn. Original kernel + torch op against the fused kernel, both in Triton's"
            " interpreter on the same made-up arguments (16-bit buffers in two of three kernels, where float32 is only"
            " inferred); written elements of the outputs to the bit (for sigmoid and gelu within what float32 arithmetic"
            " allows), every other byte of every buffer identical.",
            "",
            "A kernel counts as compared when the op changes at least one element that it writes. `differential.py"
            " --unfused` runs the original in the place of the fused kernel: every kernel it compares must come out wrong.",
            "",
            *lines,
            "",
            f"Rewritten store calls of these outputs that ran: {sum(o['stores_run'] for o in outputs)} of"
            f" {sum(o['stores'] for o in outputs)}. Outputs by op: {_counts(by_op)}; by type: {_counts(by_type)}. Elements"
            f" of sigmoid and gelu not equal to the bit but within the allowance: {rounded}.",
            "",
            f"kernel-rewrite {facts['version']}, Triton {facts['triton']}, torch {facts['torch']}, Python"
            f" {facts['python']}, {facts['date']}; seed {facts['seed']}, grid {GRID}, {RUN_LIMIT} s for one kernel;"
            f" {facts['wall']} s in all. Kernels that took the corpus run over {FUSE_LIMIT:g} s were not drawn.",
            "",
            *(["## Wrong", "", *failures, ""] if failures else []),
            "## Not compared",
            "",
            *(f"- {reason}: {count}" for reason, count in missing.most_common()),
            "",
        ]
    )


def _reason(record: Record) -> str:
    text: str = record.get("skipped") or record["failure"]
    found = re.match(r"(the original fails in the interpreter: \w+)", text)
    return found[1] if found else text


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counter.most_common())


def main(given: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    results = ROOT / "benchmarks" / "results"
    parser.add_argument("--folder", type=Path, default=Path.home() / ".cache" / "kernel-rewrite-corpus")
    parser.add_argument("--corpus", type=Path, default=results / "corpus.json", help="the outcomes of the corpus run")
    parser.add_argument("--count", type=int, default=100, help="how many kernels to compare")
    parser.add_argument("--most-seconds", type=float, default=3600.0, help="start no kernel after this long")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--package", action="append", help="only these rows of the corpus")
    parser.add_argument("--kernel", help="only kernels whose name matches this regular expression")
    parser.add_argument("--keep", type=Path, help="where to keep the cases that fail")
    parser.add_argument(
        "--unfused", action="store_true", help="run the original twice: every kernel must come out wrong"
    )
    parser.add_argument("--show", action="store_true", help="print every record")
    parser.add_argument("--results", type=Path, help="folder for differential.md and differential.json")
    options = parser.parse_args(given)
    if options.serve:
        serve()
        return 0
    return _differential(options, results)


def _differential(options: argparse.Namespace, results: Path) -> int:
    import corpus

    kernels = json.loads(options.corpus.read_text(encoding="utf-8"))["kernels"]
    packages = {title: p for p in corpus.PACKAGES for title in (p.name, p.apart_title) if title}
    folders: dict[str, str] = {}
    eligible = []
    for kernel in kernels:
        if not any(output["status"] == "fused" for output in kernel["outputs"]) or kernel["seconds"] > FUSE_LIMIT:
            continue
        if options.package and kernel["group"] not in options.package:
            continue
        if options.kernel and not re.search(options.kernel, kernel["kernel"]):
            continue
        package = packages[kernel["group"]]
        if package.name not in folders:
            folders[package.name] = str(_folder(package, options.folder))
        eligible.append(kernel | {"folder": folders[package.name]})
    records: list[Record] = []
    runner, started = Runner(), time.monotonic()
    try:
        for number, task in enumerate(drawn(eligible, options.seed)):
            if sum(map(compared, records)) >= options.count or time.monotonic() - started > options.most_seconds:
                break
            record = examined(task, number, runner, options.keep, options.unfused)
            records.append(record)
            if options.show or "failure" in record:
                print(json.dumps(record), flush=True)
    finally:
        runner.close()
    facts = {
        "version": __version__,
        "triton": importlib.metadata.version("triton"),
        "torch": importlib.metadata.version("torch"),
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d"),
        "seed": options.seed,
        "wall": round(time.monotonic() - started),
    }
    text = report(records, list(packages), facts)
    folder = options.results or (None if options.package or options.kernel else results)
    if folder:
        kept = ({k: v for k, v in record.items() if k != "trace"} for record in records)
        lines = ",\n".join(json.dumps(record) for record in kept)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "differential.json").write_text(f'{{"facts": {json.dumps(facts)},\n"kernels": [\n{lines}\n]}}\n')
        (folder / "differential.md").write_text(text, encoding="utf-8")
    print(text)
    return 1 if any("failure" in record for record in records) else 0


def _folder(package: Any, folder: Path) -> Path:
    """The unpacked package, downloaded when it is not there."""
    import corpus

    unpacked = folder / "unpacked" / f"{package.name}-{package.version}"
    found: Path = unpacked if unpacked.exists() else corpus.unpack(package, corpus.download(package, folder), folder)
    return found


if __name__ == "__main__":
    sys.exit(main())
