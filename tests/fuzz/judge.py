"""What kernels really do to memory: runs them in Triton's interpreter with every access recorded.

This module is also the process that does it (`python -m tests.fuzz.judge`): one case as a JSON line in, one verdict as
a JSON line out. It shares nothing with the proof: buffers are told apart by address while the kernel runs, and the op's
meaning is eager torch's.
"""

from __future__ import annotations

import contextlib
import json
import linecache
import os
import sys
import tempfile
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

SIZE = 512
Array = Any  # numpy.ndarray


@dataclass
class Event:
    """One load, store or atomic of one program, its active lanes in order: which buffer (-1: none), which element, and
    the bits read or written."""

    kind: str
    owners: Array
    places: Array
    bits: Array


@dataclass
class Tracer:
    """The interpreter's native memory functions, recording. Lanes outside of every buffer are noted and turned off."""

    native: Any
    names: list[str] = field(default_factory=list)
    tensors: list[Any] = field(default_factory=list)
    initial: list[Any] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    where_from: list[tuple[int, int]] = field(default_factory=list)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.native, name)

    def begin(self, tensors: dict[str, Any]) -> None:
        """A launch with these arguments starts."""
        self.names, self.tensors = list(tensors), list(tensors.values())
        self.initial = [t.clone() for t in self.tensors]
        self.where_from = [(t.data_ptr(), t.data_ptr() + t.numel() * t.element_size()) for t in self.tensors]

    def _record(self, kind: str, pointers: Array, values: Array, mask: Array) -> Array:
        """Notes the access and gives the mask of the lanes that may be performed."""
        import numpy as np

        pointers = np.asarray(pointers)
        mask = np.broadcast_to(np.asarray(mask).astype(bool), pointers.shape)
        values = np.broadcast_to(np.asarray(values), pointers.shape)
        owners = np.full(pointers.shape, -1, dtype=np.int8)
        places = np.zeros(pointers.shape, dtype=np.int64)
        addresses = pointers.astype(np.int64)
        for number, (start, end) in enumerate(self.where_from):
            inside = (addresses >= start) & (addresses + values.itemsize <= end)
            owners[inside] = number
            places[inside] = addresses[inside] - start
        bits = np.ascontiguousarray(values).view(f"u{values.itemsize}")
        self.events.append(Event(kind, owners[mask], places[mask], bits[mask]))
        return np.ascontiguousarray(mask & (owners >= 0))

    def load(self, pointers: Array, mask: Array, other: Array, dtype: Any) -> Array:
        import numpy as np

        kept = self._record("load", pointers, np.zeros(1, dtype=dtype), mask)
        result = self.native.load(pointers, kept, other, dtype)
        self.events[-1].bits = np.ascontiguousarray(result).view(f"u{result.itemsize}")[np.asarray(mask).astype(bool)]
        return result

    def store(self, pointers: Array, value: Array, mask: Array) -> Any:
        return self.native.store(pointers, value, self._record("store", pointers, value, mask))

    def atomic_rmw(self, operation: Any, pointers: Array, value: Array, mask: Array, order: Any) -> Any:
        kept = self._record(f"atomic {operation}", pointers, value, mask)
        return self.native.atomic_rmw(operation, pointers, value, kept, order)

    def atomic_cas(self, pointers: Array, compare: Array, value: Array, order: Any) -> Any:
        import numpy as np

        self._record("atomic cas", pointers, value, np.ones(1, dtype=bool))
        return self.native.atomic_cas(pointers, compare, value, order)


@dataclass
class Recorded:
    """One launch: what was accessed, and the buffers before and after."""

    names: list[str]
    events: list[Event]
    initial: list[Any]
    final: list[Any]

    def touched(self, kind: str) -> set[str]:
        owners = {int(o) for e in self.events if e.kind.startswith(kind) for o in set(e.owners.tolist())}
        return {self.names[o] for o in owners if o >= 0}


@contextlib.contextmanager
def traced() -> Iterator[tuple[Tracer, dict[str, int]]]:
    """Inside, launches are recorded; the mutable {"index": i} chooses the autotune configuration."""
    from triton.runtime import interpreter
    from triton.runtime.autotuner import Autotuner

    tracer = Tracer(interpreter._interpreter)
    choice = {"index": 0}
    places = (
        (interpreter, "_interpreter"),
        (interpreter, "_patch_lang"),
        (interpreter, "_implicit_cvt"),
        (interpreter.GridExecutor, "_init_args_hst"),
        (Autotuner, "run"),
    )
    previous = tuple(getattr(place, name) for place, name in places)
    _, patch_language, convert, take_arguments, _ = previous
    patched: dict[frozenset[str], Any] = {}

    def taken(self: Any, arguments: Any, options: dict[str, Any]) -> Any:
        import torch

        host, named = take_arguments(self, arguments, options)
        every = {**dict(zip(self.arg_names, host, strict=False)), **named}
        tracer.begin({name: value for name, value in every.items() if isinstance(value, torch.Tensor)})
        return host, named

    def patched_once(function: Any) -> Any:  # it replaces members of the modules that a file imports: once is enough
        seen = frozenset(n for n in ("triton.language", "triton.language.core") if _imports(function, n))
        if seen not in patched:
            patched[seen] = patch_language(function)
        return types.SimpleNamespace(restore=lambda: None)

    def converted(argument: Any) -> Any:  # a float argument is a float32 tensor; left a number, it would not widen
        import numpy as np
        import triton.language as tl

        if not isinstance(argument, float):
            return convert(argument)
        return tl.tensor(interpreter.TensorHandle(np.array([argument], dtype=np.float32), tl.float32), tl.float32)

    def run(self: Any, *arguments: Any, **options: Any) -> Any:
        return self.fn.run(*arguments, **{**options, **self.configs[choice["index"]].all_kwargs()})

    for (place, name), stand_in in zip(places, (tracer, patched_once, converted, taken, run), strict=True):
        setattr(place, name, stand_in)
    try:
        yield tracer, choice
    finally:
        for (place, name), value in zip(places, previous, strict=True):
            setattr(place, name, value)
        for scope in reversed(patched.values()):
            scope.restore()


def _imports(function: Any, module: str) -> bool:
    return any(value is sys.modules.get(module) for value in function.__globals__.values())


def meaning(op: str) -> Callable[[Any], Any]:
    """The op in eager torch."""
    import torch

    return {
        "relu": torch.relu,
        "gelu": torch.nn.functional.gelu,
        "sigmoid": torch.sigmoid,
        "neg": torch.neg,
        "square": torch.square,
        "clamp(-1, 1)": lambda x: torch.clamp(x, -1, 1),
    }[op]


EXACT = {"neg", "square", "relu", "clamp(-1, 1)"}
EITHER_ZERO = {"relu", "clamp(-1, 1)"}  # torch's CPU and GPU kernels differ in the sign of a zero


def _tensor(bits: Array, dtype: Any) -> Any:
    import torch

    return torch.from_numpy(bits.view(f"i{bits.itemsize}").copy()).view(dtype)


def _wrong_values(op: str, stored: Array, found: Array, dtype: Any) -> str:
    """Why `found` is not the op of `stored`, "" when it is."""
    import torch

    original, got = _tensor(stored, dtype), _tensor(found, dtype)
    expected = meaning(op)(original)
    if op == "gelu":  # of infinity torch's CPU kernels give infinity or NaN, by the length of the tensor
        expected = torch.where(original == float("inf"), original, expected)
    if op in EXACT:
        same = (expected == got) | ((expected != expected) & (got != got))
        if op not in EITHER_ZERO and dtype.is_floating_point:
            same &= (torch.signbit(expected) == torch.signbit(got)) | (expected != expected)
    else:
        # one unit in the last place; 1 + erf(x / sqrt(2)) of gelu cancels to a few units of float32
        relative = {torch.float16: 2**-10, torch.bfloat16: 2**-7}.get(dtype, 1e-6)
        allowed = relative * expected.double().abs() + 3e-7 * original.double().abs() + 1e-7
        same = ((expected.double() - got.double()).abs() <= allowed) | (expected == got)
        same |= (expected != expected) & (got != got)
    if bool(same.all()):
        return ""
    at = int((~same).nonzero()[0])
    return f"{op}({original[at].item()}) should be {expected[at].item()}, stored {got[at].item()}"


def differences(before: Recorded, after: Recorded, ops: dict[str, str]) -> str:
    """Why the fused launch `after` is not the original `before` with `ops` at their buffers; "" when it is."""
    import numpy as np
    import torch

    if len(before.events) != len(after.events):
        return f"{len(after.events)} accesses instead of {len(before.events)}"
    for number, (old, new) in enumerate(zip(before.events, after.events, strict=True)):
        if old.kind != new.kind:
            return f"access {number} is a {new.kind}, was a {old.kind}"
        if not (np.array_equal(old.owners, new.owners) and np.array_equal(old.places, new.places)):
            return f"access {number} ({old.kind}) touches other elements"
        if old.bits.dtype != new.bits.dtype:
            return f"access {number} ({old.kind}) has another width"
        for owner in sorted({int(o) for o in old.owners}):
            lanes = old.owners == owner
            op = ops.get(before.names[owner]) if owner >= 0 else None
            if op is None:
                if not np.array_equal(old.bits[lanes], new.bits[lanes]):
                    if owner < 0:
                        continue  # stored outside of every buffer, through a pointer of a fused one
                    return f"access {number} ({old.kind}) to {before.names[owner]} has other values"
            elif old.kind != "store":
                return f"access {number} is a {old.kind} of {before.names[owner]}, proved write-only"
            else:
                wrong = _wrong_values(op, old.bits[lanes], new.bits[lanes], before.initial[owner].dtype)
                if wrong:
                    return f"access {number}, store to {before.names[owner]}: {wrong}"
    for owner, name in enumerate(before.names):
        ours, theirs, start = (_bits(r) for r in (before.final[owner], after.final[owner], before.initial[owner]))
        if name not in ops:
            if not torch.equal(ours, theirs):
                return f"{name} differs in the end"
            continue
        written = torch.zeros(ours.numel(), dtype=torch.bool)
        for event in before.events:
            places = event.places[event.owners == owner] // before.initial[owner].element_size()
            written[torch.from_numpy(places)] = True
        if not torch.equal(theirs[~written], start[~written]):
            return f"{name} changed where the original does not write"
    return ""


def _bits(tensor: Any) -> Any:
    import torch

    return tensor.view({2: torch.int16, 4: torch.int32}[tensor.element_size()])


# --------------------------------------------------------------------------------------------------------- the process


def _load(text: str, path: str) -> types.ModuleType:
    with open(path, "w", encoding="utf-8") as stream:
        stream.write(text)
    linecache.checkcache(path)
    module = types.ModuleType("case")
    module.__file__ = path
    sys.modules["case"] = module
    exec(compile(text, path, "exec"), module.__dict__)
    return module


def _inputs(case: dict[str, Any], launch: dict[str, Any]) -> dict[str, Any]:
    import torch

    generator = torch.Generator().manual_seed(launch["seed"])
    found = {}
    for buffer in case["buffers"]:
        dtype = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16, "i32": torch.int32}[
            launch.get("dtypes", {}).get(buffer["name"], buffer["dtype"])
        ]
        if buffer["role"] == "index":
            value = torch.randint(0, max(1, launch["scalars"]["n"]), (SIZE,), generator=generator).to(dtype)
        elif buffer["dtype"] == "i32":
            value = torch.randint(-9, 10, (SIZE,), generator=generator).to(dtype)
        else:
            value = (torch.randn(SIZE, generator=generator) * 3).to(dtype)
            value[1], value[5] = -0.0, 0.0
        found[buffer["name"]] = value
    return found


def _run(module: types.ModuleType, case: dict[str, Any], launch: dict[str, Any], tracer: Tracer) -> Recorded:
    tensors = _inputs(case, launch)
    tracer.events, tracer.names = [], []
    tracer.names, tracer.tensors, tracer.initial = [], [], []
    if case["launcher"]:
        given = [tensors[b["name"]] for b in case["buffers"] if not b["allocation"]]
        module.launch(*given, *launch["scalars"].values(), *launch["constexprs"].values())
    else:
        n = launch["scalars"]["n"]
        grid = lambda meta: (-(-n // int(meta["BLOCK"])),)  # noqa: E731
        module.kernel[grid](*tensors.values(), *launch["scalars"].values(), **launch["constexprs"])
    return Recorded(tracer.names, tracer.events, tracer.initial, [t.clone() for t in tracer.tensors])


def judge_case(case: dict[str, Any], folder: str, tracer: Tracer, choice: dict[str, int]) -> dict[str, Any]:
    """Which buffers the original reads, writes and updates atomically, and how each fused file differs from it."""
    from triton.runtime.interpreter import InterpretedFunction

    read: set[str] = set()
    written: set[str] = set()
    atomic: set[str] = set()
    wrong: dict[str, str] = {}
    InterpretedFunction.rewritten_fn.clear()
    original = _load(case["text"], os.path.join(folder, f"original_{case['id']}.py"))
    originals = []
    launches = []
    for launch in case["launches"]:
        choice["index"] = launch["configuration"]
        try:
            recorded = _run(original, case, launch, tracer)
        except Exception:
            if "dtypes" not in launch:
                raise
            continue  # types that the original does not take
        originals.append(recorded)
        launches.append(launch)
        read |= recorded.touched("load")
        written |= recorded.touched("store")
        atomic |= recorded.touched("atomic")
    for number, fused in enumerate(case["fused"]):
        key = ", ".join(f"{output}={op}" for output, op in fused["ops"].items())
        try:
            module = _load(fused["text"], os.path.join(folder, f"fused_{case['id']}_{number}.py"))
            for launch, before in zip(launches, originals, strict=True):
                choice["index"] = launch["configuration"]
                after = _run(module, case, launch, tracer)
                difference = differences(before, after, fused["ops"])
                if difference:
                    wrong[key] = f"{difference} (launch {launch})"
                    break
        except Exception as error:
            wrong[key] = f"the fused file fails where the original runs: {type(error).__name__}: {str(error)[:300]}"
    return {"read": sorted(read), "written": sorted(written), "atomic": sorted(atomic), "wrong": wrong}


def main() -> None:
    import warnings

    import numpy as np
    import torch

    from kernel_rewrite.pointwise.interpreter import stand_ins

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True, warn_only=True)  # torch.empty gives NaN, or the largest integer
    warnings.simplefilter("ignore")
    np.seterr(all="ignore")
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    with tempfile.TemporaryDirectory() as folder, stand_ins(), traced() as (tracer, choice):
        for line in sys.stdin:
            case = json.loads(line)
            try:
                verdict = judge_case(case, folder, tracer, choice)
            except Exception as error:
                verdict = {"invalid": f"{type(error).__name__}: {str(error)[:500]}"}
            for name in os.listdir(folder):
                os.unlink(os.path.join(folder, name))
            out.write(json.dumps(verdict) + "\n")
            out.flush()


if __name__ == "__main__":
    main()
