"""fuse(fuse(k, a), b) is fuse(k, b after a), whatever a and b are and whatever they read.

Two judges: what both store, as terms over what the original computes, is the same but for `rounded`, which changes nothing; and
both run in Triton's interpreter, where every bit must agree.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from kernel_rewrite.analysis import Analysis, analyse
from kernel_rewrite.fuse import fuse, plan_output
from kernel_rewrite.model import MemoryEffect
from kernel_rewrite.pointwise.declarations import declared_operands
from kernel_rewrite.rewrite.confirm import References, lower_rewritten
from kernel_rewrite.rewrite.epilogue import fusion_edits
from kernel_rewrite.selection import choose_kernel, choose_outputs, requested_ops
from kernel_rewrite.source.files import Project, source_from_text
from kernel_rewrite.source.signatures import parse_overrides
from kernel_rewrite.ttir.lower import Lowered, compiler
from kernel_rewrite.ttir.parse import parse
from kernel_rewrite.ttir.validate import COMMUTATIVE, Expression, Store, StoredValue, Terms, validate

KERNELS = Path(__file__).parent / "fusion_cases" / "kernels"

ADDED = "launch(torch.randn(40, 56), torch.randn(40, 56)"
FLOATS = ("a_ptr=fp32", "b_ptr=fp32", "out_ptr=fp32")

# kernel -> (output, call, types)
FILES = {
    "add_pointers": ("out_ptr", ADDED, FLOATS),
    "add_descriptors": ("out_ptr", ADDED, FLOATS),
    "rms_norm": ("sums_ptr", "launch(torch.randn(40, 56), torch.randn(56)", ("sums_ptr=fp32",)),
}
KINDS = {
    "row": "torch.randn(56)",
    "column": "torch.randn(40)",
    "tile": "torch.randn(40, 56)",
    "scalar": "0.75",
    "scalar:fp32": "torch.randn(1)",
    "row:strided": "torch.randn(112)[::2]",
    "tile:strided": "torch.randn(56, 40).T",
}


FORMS = ("relu({x} + {p})", "{x} * {p}", "{p} - abs({x})", "where({x} > {p}, {x}, 0.5)", "{x} * {p} + x")
FORMS_OF_TENSORS = ("maximum(neg({x}), {p})", "lerp({x}, x, {p})")


@dataclass(frozen=True)
class Epilogue:
    """A text over x and operands, each with its kind."""

    text: str
    operands: Mapping[str, str]

    def after(self, first: Epilogue) -> Epilogue:
        """This epilogue of what another gives."""
        names = {"x": f"({first.text})"}
        return Epilogue(
            "".join(names.get(part, part) for part in _parts(self.text)), {**first.operands, **self.operands}
        )


def _parts(text: str) -> list[str]:
    """The names of a text, and what stands between them."""
    parts = [""]
    for before, letter in zip(f" {text}", text, strict=False):
        if (before.isalnum() or before == "_") != (letter.isalnum() or letter == "_"):
            parts.append("")
        parts[-1] += letter
    return parts


@st.composite
def epilogues(draw: st.DrawFn, letter: str) -> Epilogue:
    kinds = draw(st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=2))
    operands = {f"{letter}{number}": kind for number, kind in enumerate(kinds)}
    text = "x"
    for name in draw(st.permutations(sorted(operands))):
        form = draw(st.sampled_from([*FORMS, *(() if operands[name] == "scalar" else FORMS_OF_TENSORS)]))
        text = form.format(x=text if text == "x" else f"({text})", p=name)
    return Epilogue(text, operands)


@functools.cache
def analysis_of(kernel: str) -> Analysis:
    file = source_from_text((KERNELS / f"{kernel}.py").read_text(), "kernel.py")
    project = Project((file,))
    types = FILES[kernel][2]
    return analyse(
        choose_kernel(file, project, None), project, compiler(), lambda function: parse_overrides(function, (), types)
    )


class Normal:
    """Numbers for terms: the same for terms that are equal but for `rounded(v)`, which is v itself."""

    def __init__(self) -> None:
        self._known: dict[tuple[object, ...], int] = {}
        self._shapes: list[tuple[object, ...]] = []

    def of(self, term: Expression) -> int:
        memory: dict[int, int] = {}

        def number(each: Expression) -> int:
            if each.identity not in memory:
                memory[each.identity] = self._number(each, [number(operand) for operand in each.operands])
            return memory[each.identity]

        return number(term)

    def _number(self, term: Expression, operands: list[int]) -> int:
        if term.operation == "arith.select":  # where(v <= 0, minimum(v, 0), maximum(v, 0))
            (below, first, zero), (above, second, other) = (self._shapes[n] for n in operands[1:])
            if (below, above, first, zero) == ("arith.minimumf", "arith.maximumf", second, other):
                return first
        if term.operation in COMMUTATIVE:
            operands = sorted(operands)
        key = (term.operation, term.attributes, term.type, *operands)
        if key not in self._known:
            self._known[key] = len(self._shapes)
            self._shapes.append((term.operation, *operands) if len(operands) == 2 else (term.operation, None, None))
        return self._known[key]


def stored(analysis: Analysis, output: str, epilogue: Epilogue, fused: str, normal: Normal) -> list[int]:
    """What a fused file stores to the output in each specialization, over what the original computes."""
    declared = declared_operands(epilogue.operands)
    requests = choose_outputs(
        analysis, requested_ops(f"{output}={epilogue.text}", (), declared)[0], frozenset(), tuple(declared.values())
    )
    plans = [(plan_output(analysis, request), request.pointwise) for request in requests]
    rewrite = fusion_edits(plans, analysis, "eager")
    lowered = lower_rewritten(source_from_text(fused, "kernel.py"), analysis, analysis.views, rewrite, requests)
    found: list[int] = []

    def anything(terms: Terms, store: Store) -> Iterator[Expression]:
        found.append(normal.of(store.found))
        yield store.found

    added = References(analysis, "eager", rewrite).added
    for view, result in zip(analysis.views, lowered, strict=True):
        assert isinstance(result, Lowered), result
        places = {a.location for a in view.accesses if a.effect is MemoryEffect.WRITE and a.roots == {output}}
        rule = lambda operation, path: StoredValue(anything) if operation.location in places else None  # noqa: B023, E731
        _, differences = validate(view.module, parse(result.text), rule, added)
        assert not differences
    return found


RUNNER = """\
import json, linecache, sys, types

import torch

from kernel_rewrite.pointwise.interpreter import stand_ins


def called(text, path, call):
    open(path, "w").write(text)
    linecache.checkcache(path)
    module = types.ModuleType("case")
    module.__file__ = path
    exec(compile(text, path, "exec"), module.__dict__)
    torch.manual_seed(0)
    found = eval(call, module.__dict__)
    return found if isinstance(found, tuple) else (found,)


different = []
with stand_ins():
    for number, run in enumerate(json.load(open("runs.json"))):
        plain, twice, once = (called(run[k], f"{number}_{k}.py", run["calls"][k]) for k in ("plain", "twice", "once"))
        if not all(torch.equal(a, b) for a, b in zip(twice, once, strict=True)):
            different.append(run["what"] + ": they differ")
        elif all(torch.equal(a, b) for a, b in zip(plain, once, strict=True)):
            different.append(run["what"] + ": nothing was changed")
print(json.dumps(different))
"""


@pytest.mark.long
def test_two_fusions_are_the_fusion_of_both(tmp_path: Path) -> None:
    runs: list[dict[str, Any]] = []

    @settings(
        max_examples=8, deadline=None, phases=(Phase.generate,), database=None, suppress_health_check=list(HealthCheck)
    )
    @given(st.sampled_from(sorted(FILES)), epilogues("p"), epilogues("q"))
    def fused_both_ways(kernel: str, first: Epilogue, second: Epilogue) -> None:
        source, (output, call, types) = (KERNELS / f"{kernel}.py").read_text(), FILES[kernel]
        both = second.after(first)
        inner = fuse(source, f"{output}={first.text}", operands=first.operands, dtypes=types)
        twice = fuse(inner.source, f"{output}={second.text}", operands=second.operands, dtypes=types)
        once = fuse(source, f"{output}={both.text}", operands=both.operands, dtypes=types)
        normal = Normal()
        terms = [stored(analysis_of(kernel), output, both, file.source, normal) for file in (twice, once)]
        assert terms[0] and terms[0] == terms[1]
        operands = "".join(f", {name}={KINDS[kind]}" for name, kind in sorted(both.operands.items()))
        calls = {"plain": f"{call})", "twice": f"{call}{operands})", "once": f"{call}{operands})"}
        texts = {"plain": source, "twice": twice.source, "once": once.source}
        runs.append({**texts, "calls": calls, "what": f"{kernel}: {both.text} with {dict(both.operands)}"})

    fused_both_ways()
    (tmp_path / "runs.json").write_text(json.dumps(runs))
    (tmp_path / "run.py").write_text(RUNNER)
    root = str(Path(__file__).parent.parent)
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
    command = [sys.executable, "run.py"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout) == []
