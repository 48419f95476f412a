"""Source to TTIR text, by a compiler process of its own.

`Compiler` keeps one worker (see `worker.py`) alive, restarts it when it crashes, aborts or exceeds its time limit, and
answers each request with `Lowered` or `LoweringFailure`. The main process never imports triton.
"""

from __future__ import annotations

import atexit
import json
import os
import selectors
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from kernel_rewrite.model import (
    Binding,
    Closure,
    Constant,
    Dtype,
    FunctionRef,
    InternalError,
    Location,
    Namespace,
    Specialization,
    Target,
    TritonObject,
    Unresolved,
)

TIME_LIMIT = 20.0
"""Seconds one specialization may take before its compiler is killed."""

COMPILE_LIMIT = 120.0
"""The same for one that is compiled down to machine code."""

_START_LIMIT = 120.0

_MOST_LOADED = 4
"""How many closures a compiler process keeps: a kernel, the rewritten one and the op alone take turns."""


_MOST_KEPT = 64


@dataclass(frozen=True, slots=True)
class Lowered:
    """The raw TTIR of one specialization: calls not inlined, no pass run. `statements` were compiled to make it, those of a
    loop twice, of a static loop or a helper each time."""

    specialization: Specialization
    text: str
    statements: int = 0


@dataclass(frozen=True, slots=True)
class Compiled:
    """What the machine code of one specialization needs: registers a thread, bytes a thread that are `spilled` to memory
    and `reloaded`, bytes of shared memory and warps a program; `instructions` is None where they could not be counted."""

    specialization: Specialization
    registers: int
    spilled: int
    reloaded: int
    shared: int
    warps: int
    instructions: int | None = None


@dataclass(frozen=True, slots=True)
class LoweringFailure:
    """Why one specialization has no TTIR.

    `kind`: "rejected" (Triton raised `error` with `message`), "long" (it has more statements than were to be compiled),
    "crash" or "timeout" (the compiler process died).
    `places` are the user's lines involved, innermost first; `statements` were compiled until then.
    """

    specialization: Specialization
    kind: str
    message: str
    error: str = ""
    places: tuple[Location, ...] = ()
    statements: int = 0

    @property
    def block_pointers_removed(self) -> bool:
        """Whether this Triton refuses the kernel because it has no block pointers any more (3.9 and later)."""
        return self.error == "NotImplementedError" and "block pointers have been removed" in self.message.lower()


class Compiler:
    """A compiler process, started on first use (or early, by `start`, to overlap its imports with other work)."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._errors: Any = None
        self._buffer = b""
        self._version: str | None = None
        self._kept: dict[tuple[str, str, Target], Lowered] = {}  # the one used last at the end
        self._loaded: dict[str, int] = {}  # closures that the process has, the one used last at the end

    def start(self) -> None:
        if self._process is not None and self._process.poll() is None:
            return
        self.close()
        self._errors = tempfile.TemporaryFile()
        environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
        package_root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        environment["PYTHONPATH"] = os.pathsep.join([*filter(None, [environment.get("PYTHONPATH")]), package_root])
        self._process = subprocess.Popen(
            [sys.executable, "-m", "kernel_rewrite.ttir.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=environment,
        )
        self._buffer, self._version, self._loaded = b"", None, {}

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None
        if self._errors is not None:
            self._errors.close()
            self._errors = None

    @property
    def process(self) -> int | None:
        """The id of the running compiler process."""
        return self._process.pid if self._process is not None else None

    @property
    def triton_version(self) -> str:
        self.start()
        if self._version is None:
            greeting = self._read(_START_LIMIT)
            if not isinstance(greeting, dict) or "triton" not in greeting:
                raise InternalError(f"the compiler process did not start:\n{self._error_tail()}")
            self._version = str(greeting["triton"])
        return self._version

    def lower(
        self,
        closure: Closure,
        texts: Mapping[str, str],
        specializations: Iterable[Specialization],
        target: Target = Target(),
        time_limit: float = TIME_LIMIT,
        most: int | None = None,
    ) -> Iterator[Lowered | LoweringFailure]:
        """The TTIR of each specialization, in order; `texts` holds the text of every file of the closure. Of each, at most
        `most` statements are compiled.

        A crash or a time-out costs the specialization that caused it; the next one gets a fresh process.
        """
        payload = json.dumps(_encode_closure(closure, texts))
        for specialization in specializations:
            answer = self._ask(payload, specialization, target, time_limit, {"most": most})
            yield (
                answer
                if isinstance(answer, LoweringFailure)
                else Lowered(specialization, answer["ttir"], answer["statements"])
            )

    def lower_kept(
        self, closure: Closure, texts: Mapping[str, str], specialization: Specialization, target: Target
    ) -> Lowered | LoweringFailure:
        """As `lower`, for one specialization of a small kernel that is asked for again and again: its TTIR is kept."""
        key = (json.dumps(_encode_closure(closure, texts)), repr(specialization), target)
        result: Lowered | LoweringFailure | None = self._kept.pop(key, None)
        if result is None:
            result = next(self.lower(closure, texts, [specialization], target))
        if isinstance(result, Lowered):
            self._kept[key] = result
            if len(self._kept) > _MOST_KEPT:
                del self._kept[next(iter(self._kept))]
        return result

    def compile(
        self,
        closure: Closure,
        texts: Mapping[str, str],
        specialization: Specialization,
        target: Target,
        options: Mapping[str, object],
        time_limit: float = COMPILE_LIMIT,
    ) -> Compiled | LoweringFailure:
        """What the kernel needs once it is compiled to machine code for `target` with `options` (num_warps, ...)."""
        payload = json.dumps(_encode_closure(closure, texts))
        answer = self._ask(payload, specialization, target, time_limit, {"options": dict(options)})
        if isinstance(answer, LoweringFailure):
            return answer
        return Compiled(specialization, **answer["resources"])

    def _ask(
        self,
        payload: str,
        specialization: Specialization,
        target: Target,
        time_limit: float,
        more: Mapping[str, object] | None = None,
    ) -> Any:
        """The worker's answer, or the failure."""
        _ = self.triton_version  # wait for the process
        known = payload in self._loaded
        place = self._place(payload)
        request = {
            "place": place,
            "signature": [[name, _jsonable_type(kind)] for name, kind in specialization.signature],
            "constexprs": [[name, encode(value)] for name, value in specialization.constexprs],
            "target": [target.backend, target.arch, target.warp_size],
            **(more or {}),
        }
        lines = [*([] if known else [f'{{"place": {place}, "closure": {payload}}}']), json.dumps(request)]
        try:
            self._write("".join(line + "\n" for line in lines).encode())
            answer = self._read(time_limit)
        except BrokenPipeError:
            answer = "crash"
        except BaseException:  # Ctrl-C in a notebook: the answer that still comes is not that to the next question
            self.close()
            raise
        if isinstance(answer, str):
            message = self._error_tail()
            self.close()
            if answer == "timeout":
                return LoweringFailure(specialization, "timeout", f"no result after {time_limit:g} seconds")
            return LoweringFailure(specialization, "crash", message)
        if "failure" not in answer:
            return answer
        failure = answer["failure"]
        places = tuple(Location(*place) for place in failure["places"])
        return LoweringFailure(
            specialization, failure["kind"], failure["message"], failure["error"], places, answer["statements"]
        )

    def _place(self, payload: str) -> int:
        """Where the process keeps a closure: few at once, the one that was not used for longest goes."""
        place = self._loaded.pop(payload, len(self._loaded))
        if place == _MOST_LOADED:
            place = self._loaded.pop(next(iter(self._loaded)))
        self._loaded[payload] = place
        return place

    def _write(self, data: bytes) -> None:
        assert self._process is not None and self._process.stdin is not None
        self._process.stdin.write(data)
        self._process.stdin.flush()

    def _read(self, time_limit: float) -> Any:
        """The next answer, or "timeout", or "crash"."""
        assert self._process is not None and self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        deadline = time.monotonic() + time_limit
        with selectors.DefaultSelector() as selector:
            selector.register(descriptor, selectors.EVENT_READ)
            while b"\n" not in self._buffer:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    return "timeout"
                chunk = os.read(descriptor, 1 << 20)
                if not chunk:
                    return "crash"
                self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        return json.loads(line)

    def _error_tail(self) -> str:
        if self._errors is None:
            return ""
        self._errors.flush()
        self._errors.seek(0)
        text = self._errors.read().decode(errors="replace").strip()
        return "\n".join(text.splitlines()[-8:])


_compiler: Compiler | None = None


def compiler() -> Compiler:
    """The process-wide compiler; its worker lives until this process ends."""
    global _compiler
    if _compiler is None:
        _compiler = Compiler()
        atexit.register(_compiler.close)
    return _compiler


# ---------------------------------------------------------------------------------------------- encoding for the worker


def _encode_closure(closure: Closure, texts: Mapping[str, str]) -> dict[str, Any]:
    files = {function.ref.file for function in closure.functions}
    return {
        "texts": {file: texts[file] for file in sorted(files)},
        "functions": [
            {
                "file": function.ref.file,
                "name": function.name,
                "line": function.node.lineno,
                "end_line": function.node.end_lineno,
                "constexpr_function": function.constexpr_function,
                "constexpr_parameters": sorted(closure.constexpr_parameters(function)),
                "options": {k: v for k, v in function.jit_options.items() if k == "noinline"},
            }
            for function in closure.functions
        ],
        "bindings": {
            file: {name: encode(binding) for name, binding in names.items() if not isinstance(binding, Unresolved)}
            for file, names in closure.bindings.items()
        },
    }


def _jsonable_type(kind: object) -> object:
    return [_jsonable_type(k) for k in kind] if isinstance(kind, tuple) else kind


def encode(value: Binding | object) -> Any:
    """A binding or constexpr value as JSON; `worker.decode` is its inverse."""
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return {"$": "float", "repr": repr(value)}
        case Dtype():
            return {"$": "dtype", "name": value.name}
        case TritonObject():
            return {"$": "triton", "module": value.module, "attribute": value.attribute}
        case FunctionRef():
            return {"$": "function", "file": value.file, "name": value.name}
        case Constant():
            inner = encode(value.value)
            return {"$": "constexpr", "value": inner} if value.constexpr else inner
        case Namespace():
            members = {name: encode(member) for name, member in value.members.items()}
            return {"$": "namespace", "name": value.name, "members": members}
        case Unresolved():
            return {"$": "unresolved", "reason": value.reason}
        case tuple():
            return {"$": "tuple", "items": [encode(item) for item in value]}
        case list():
            return {"$": "list", "items": [encode(item) for item in value]}
        case dict():
            return {"$": "dict", "items": [[encode(k), encode(v)] for k, v in value.items()]}
    raise InternalError(f"no encoding for {type(value).__name__}")
