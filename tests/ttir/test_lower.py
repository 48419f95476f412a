"""The compiler process: what it answers, and what its death costs."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from kernel_rewrite.model import Closure, Specialization, Target
from kernel_rewrite.source.closure import close, kernels
from kernel_rewrite.source.files import Project, source_from_text
from kernel_rewrite.ttir.lower import Compiler, Lowered, LoweringFailure

COPY = """
import triton
import triton.language as tl

@triton.jit
def copy(x, out, B: tl.constexpr):
    i = tl.arange(0, B)
    tl.store(out + i, tl.load(x + i))
"""

# Unrolling this takes the compiler longer than any limit a test could wait for.
ENDLESS = """
import triton
import triton.language as tl

@triton.jit
def copy(x, out, B: tl.constexpr):
    for i in tl.static_range(0, B * 100000):
        tl.store(out + i, tl.load(x + i))
"""


@pytest.fixture
def compiler() -> Iterator[Compiler]:
    one = Compiler()
    yield one
    one.close()


def closed(text: str) -> tuple[Closure, dict[str, str]]:
    project = Project((source_from_text(text, "copy.py"),))
    (kernel,) = kernels(project.files()[0], project)
    return close(kernel, project), project.sources()


def specialization(block: int) -> Specialization:
    return Specialization((("x", "*fp32"), ("out", "*fp32"), ("B", "constexpr")), (("B", block),))


def test_one_process_lowers_many(compiler: Compiler) -> None:
    closure, texts = closed(COPY)
    results = list(compiler.lower(closure, texts, [specialization(16), specialization(32)]))
    assert all(isinstance(result, Lowered) for result in results)
    assert [isinstance(r, Lowered) and f"end = {n} : i32" in r.text for r, n in zip(results, (16, 32))] == [True, True]


def test_a_rejection_names_the_line_and_the_process_lives_on(compiler: Compiler) -> None:
    closure, texts = closed(COPY)
    rejected, lowered = compiler.lower(closure, texts, [specialization(3), specialization(16)])
    assert isinstance(rejected, LoweringFailure) and rejected.kind == "rejected"
    assert "power of 2" in rejected.message
    assert [(place.file, place.line) for place in rejected.places] == [("copy.py", 7)]
    assert isinstance(lowered, Lowered)


def test_a_crash_costs_one_answer(compiler: Compiler) -> None:
    closure, texts = closed(COPY)
    assert isinstance(next(compiler.lower(closure, texts, [specialization(16)])), Lowered)
    process = compiler._process
    assert process is not None
    os.kill(process.pid, signal.SIGSEGV)
    process.wait()
    crashed, lowered = compiler.lower(closure, texts, [specialization(16), specialization(32)])
    # The dead process is noticed when it is next needed: started anew before, or reported as a crash.
    assert isinstance(crashed, Lowered) or crashed.kind == "crash"
    assert isinstance(lowered, Lowered)


def test_a_crash_in_the_middle_is_reported(compiler: Compiler, monkeypatch: pytest.MonkeyPatch) -> None:
    closure, texts = closed(COPY)
    assert isinstance(next(compiler.lower(closure, texts, [specialization(16)])), Lowered)
    send = Compiler._write

    def kill_after_sending(self: Compiler, data: bytes) -> None:
        process = self._process
        assert process is not None
        os.kill(process.pid, signal.SIGSTOP)
        send(self, data)
        os.kill(process.pid, signal.SIGKILL)
        monkeypatch.setattr(Compiler, "_write", send)

    monkeypatch.setattr(Compiler, "_write", kill_after_sending)
    crashed, lowered = compiler.lower(closure, texts, [specialization(16), specialization(32)])
    assert isinstance(crashed, LoweringFailure) and crashed.kind == "crash"
    assert isinstance(lowered, Lowered)


def test_a_hang_costs_its_time_limit(compiler: Compiler) -> None:
    assert compiler.triton_version
    closure, texts = closed(ENDLESS)
    (hung,) = compiler.lower(closure, texts, [specialization(16)], time_limit=1.0)
    assert isinstance(hung, LoweringFailure) and hung.kind == "timeout"
    closure, texts = closed(COPY)
    assert isinstance(next(compiler.lower(closure, texts, [specialization(16)])), Lowered)


def test_what_is_kept_is_lowered_once(compiler: Compiler, monkeypatch: pytest.MonkeyPatch) -> None:
    closure, texts = closed(COPY)
    asked: list[Specialization] = []
    lower = compiler.lower

    def counted(closure: Closure, texts: dict[str, str], some: list[Specialization], target: Target) -> object:
        asked.extend(some)
        return lower(closure, texts, some, target)

    monkeypatch.setattr(compiler, "lower", counted)
    monkeypatch.setattr("kernel_rewrite.ttir.lower._MOST_KEPT", 2)
    blocks = (16, 32, 16, 64, 16, 32)  # 64 takes the place of 32
    results = [compiler.lower_kept(closure, texts, specialization(block), Target()) for block in blocks]
    assert [isinstance(r, Lowered) and f"end = {n} : i32" in r.text for r, n in zip(results, blocks)] == [True] * 6
    assert [dict(some.constexprs)["B"] for some in asked] == [16, 32, 64, 32]


def test_a_failure_is_not_kept(compiler: Compiler) -> None:
    closure, texts = closed(COPY)
    for _ in range(2):
        assert isinstance(compiler.lower_kept(closure, texts, specialization(3), Target()), LoweringFailure)
    assert isinstance(compiler.lower_kept(closure, texts, specialization(4), Target()), Lowered)


def test_an_interrupt_leaves_no_answer_for_the_next_question(
    compiler: Compiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C in a notebook, and then another kernel."""
    closure, texts = closed(COPY)
    _ = compiler.triton_version

    def interrupted(_: float) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(compiler, "_read", interrupted)
        with pytest.raises(KeyboardInterrupt):
            next(compiler.lower(closure, texts, [specialization(16)]))
    result = next(compiler.lower(closure, texts, [specialization(32)]))
    assert isinstance(result, Lowered) and "end = 32 : i32" in result.text


def test_the_interpreter_setting_of_the_caller_does_not_leak_in(
    compiler: Compiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    closure, texts = closed(COPY)
    assert isinstance(next(compiler.lower(closure, texts, [specialization(16)])), Lowered)
