"""The tool against kernels nobody wrote: what it proves must be what the interpreter sees. The long run is `run.py`."""

from __future__ import annotations

import dataclasses
import random
import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import kernel_rewrite.analysis
import kernel_rewrite.ttir.accesses
from kernel_rewrite.fuse import fuse_outputs
from kernel_rewrite.model import MemoryEffect
from tests.fuzz import run
from tests.fuzz.generator import Buffer, Launch, Program, program
from tests.fuzz.run import Outcome, Summary, outcome, outcome_of

ANALYSIS: Any = kernel_rewrite.analysis
CHECKS: Any = sys.modules["kernel_rewrite.checks"]
FUSE: Any = sys.modules["kernel_rewrite.fuse"]  # the attribute of this name is the function
SEEDS = [range(start, start + 25) for start in (0, 25, 50, 75)]


def report(found: Outcome) -> str:
    return "\n".join([f"seed {found.seed}", *found.disagreements, found.text])


@pytest.mark.parametrize("seeds", SEEDS, ids=lambda seeds: f"{seeds.start}-{seeds.stop - 1}")
def test_the_interpreter_agrees_with_every_proof(seeds: range) -> None:
    summary = Summary()
    for seed in seeds:
        found = outcome(seed)
        assert not found.disagreements, report(found)
        summary.add(found)
    assert sum(summary.invalid.values()) <= 2, summary.text()  # else the run shows nothing
    assert sum(summary.unlowered.values()) <= 3, summary.text()
    assert summary.fused >= 10, summary.text()
    assert summary.read_refused >= 10, summary.text()


@settings(max_examples=10, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.randoms(use_true_random=False))
def test_the_interpreter_agrees_whatever_is_generated(chance: random.Random) -> None:
    found = outcome_of(program(chance), random.Random(0))
    assert not found.disagreements, report(found)


# ------------------------------------------------------------------------------------- the judge sees what it must see


def judged(kernel: str, dtype: str = "fp32", **launch: Any) -> Outcome:
    """The outcome of one kernel of (x_ptr, out_ptr, n, m, s, BLOCK), launched directly."""
    head = "import triton\nimport triton.language as tl\n\n\n"
    head += (
        "@triton.jit\ndef larger(ptr, offs, x, mask):\n    return tl.maximum(tl.load(ptr + offs, mask=mask), x)\n\n\n"
    )
    offsets = "    offs = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)\n    mask = offs < n\n"
    text = f"{head}@triton.jit\ndef kernel(x_ptr, out_ptr, n, m, s, BLOCK: tl.constexpr):\n{offsets}{kernel}\n"
    buffers = (Buffer("x_ptr", dtype, "in"), Buffer("out_ptr", dtype, "out"))
    scalars = {"n": 37, "m": 2, "s": 0.75, **launch}
    launches = (Launch(tuple(scalars.items()), (("BLOCK", 16),), 0, 7),)
    dtypes = tuple(f"{b.name}={b.dtype}" for b in buffers)
    return outcome_of(Program(text, buffers, dtypes, False, launches, frozenset(), ()), random.Random(0))


COPY = "    x = tl.load(x_ptr + offs, mask=mask)\n    tl.store(out_ptr + offs, x, mask=mask)"
SWAP = """\
    x = tl.load(x_ptr + offs, mask=mask)
    p = out_ptr + offs
    q = x_ptr + offs
    for i in range(m):
        v = tl.load(q, mask=mask)
        tl.store(x_ptr + offs, v, mask=mask)
        q = p
    tl.store(p, x, mask=mask)"""


def test_a_copy_is_fused_and_agreed_with() -> None:
    found = judged(COPY)
    assert (set(found.fused), set(found.read), set(found.written)) == ({"out_ptr"}, {"x_ptr"}, {"out_ptr"})
    assert not found.disagreements


def _skip_the_source_check(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(CHECKS, "unlowered_code", lambda *arguments: iter(()))


def _prove_everything(patch: pytest.MonkeyPatch) -> None:
    _skip_the_source_check(patch)
    real = ANALYSIS.write_only

    def proved(*arguments: Any) -> Any:
        return dataclasses.replace(real(*arguments), diagnostics=())

    patch.setattr(ANALYSIS, "write_only", proved)


def _confirm_nothing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(FUSE, "confirm", lambda *arguments, **options: None)


def _lose_an_edit(patch: pytest.MonkeyPatch) -> None:
    _confirm_nothing(patch)
    real = FUSE.apply_edits
    patch.setattr(FUSE, "apply_edits", lambda file, edits: real(file, list(edits)[:-1]))


def _apply_twice(patch: pytest.MonkeyPatch) -> None:
    real = fuse_outputs

    def twice(analysis: Any, requests: Any, options: Any) -> Any:
        text = real(analysis, requests, options).source.replace("# @generated", "#")
        return FUSE.fuse(text, dict(requests), kernel="kernel", dtypes=options.dtypes)

    patch.setattr(run, "fuse_outputs", twice)


def _forget_loops(patch: pytest.MonkeyPatch) -> None:
    _skip_the_source_check(patch)
    frame = kernel_rewrite.ttir.accesses._Frame
    patch.setattr(frame, "_terminator", lambda self, operation, parent: None)


def _overlook_reads_in_helpers(patch: pytest.MonkeyPatch) -> None:
    _skip_the_source_check(patch)
    real = ANALYSIS.memory_accesses

    def partial(*arguments: Any) -> Any:
        return tuple(a for a in real(*arguments) if not (a.effect is MemoryEffect.READ and a.call_path))

    patch.setattr(ANALYSIS, "memory_accesses", partial)


MAXIMUM = """\
    x = tl.load(x_ptr + offs, mask=mask)
    tl.store(out_ptr + offs, x, mask=mask)
    kept = larger(out_ptr, offs, x, mask)
    tl.store(out_ptr + offs, kept, mask=mask)"""
READ = "    x = tl.load(out_ptr + offs, mask=mask)\n    tl.store(out_ptr + offs, x * 2 + 1, mask=mask)"
TWO_STORES = f"{COPY}\n    tl.store(out_ptr + offs, x * 2 - 1, mask=mask)"

BROKEN: dict[str, tuple[str, Callable[[pytest.MonkeyPatch], None]]] = {
    "a proof of anything": (READ, _prove_everything),
    "an edit lost": (TWO_STORES, _lose_an_edit),
    "the op applied twice": (COPY, _apply_twice),
    "loop-carried pointers not followed": (SWAP, _forget_loops),
    "reads in helpers not seen": (MAXIMUM, _overlook_reads_in_helpers),
}


@pytest.mark.parametrize("name", BROKEN)
def test_the_judge_disagrees_with_a_tool_that_is_broken(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel, damage = BROKEN[name]
    assert not judged(kernel).disagreements
    monkeypatch.setattr(run, "FLOAT_OPS", ("square",))
    damage(monkeypatch)
    assert judged(kernel).disagreements
