"""Wrong rewrites are rejected: small faults put into right ones, over every rewrite fixture.

`python tests/faults/run.py` does the same at length, and on public kernels.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kernel_rewrite.model import InternalError
from kernel_rewrite.rewrite.confirm import check_source, confirm, read_rewritten
from tests.faults.cases import FIXTURES, Case, Request, analysed_text, fixture_cases, fused_case, standing_in
from tests.faults.generator import FAULTS, REST_FAULTS, Scene, faults
from tests.faults.judges import Compiled, judged, optimised
from tests.faults.loads import PROLOGUE_FAULTS
from tests.test_fixtures import skip_unless_supported

OPS = ("relu", "gelu", "sigmoid", "clamp(-1, 1)")
FOLDERS = sorted(path.parent for path in FIXTURES.glob("*/request.txt") if "logue" in path.read_text())
MAKERS_A_FUSION = 2


def ops_of(folder: Path) -> tuple[str, ...]:
    """relu, which unsigned integers take too, or one of the others, in turn."""
    turn = FOLDERS.index(folder) if "unsigned" not in folder.name else 0
    return (OPS[turn % len(OPS)],)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_spoiled_rewrite_is_rejected(folder: Path, installed_triton: tuple[int, ...]) -> None:
    """An op on each fixture (`make faults`: all), beside what is asked for there, each with other kinds of fault: all kinds
    come up many times."""
    skip_unless_supported(folder, installed_triton)
    turn = FOLDERS.index(folder)
    with standing_in(folder):
        for number, case in enumerate(fixture_cases(folder, ops_of(folder))):
            case.accept()
            first = (turn * len(OPS) + number) * MAKERS_A_FUSION
            makers = [FAULTS[(first + i) % len(FAULTS)] for i in range(MAKERS_A_FUSION)]
            if case.inputs:
                makers += [PROLOGUE_FAULTS[(first + i) % len(PROLOGUE_FAULTS)] for i in range(MAKERS_A_FUSION)]
            scene = Scene.of(case)
            for fault in faults(scene, per_maker=1, seed=turn, makers=makers):
                verdict = judged(scene.spoiled(fault), case)
                assert not verdict.is_hole, (
                    f"{case.name}: {fault.kind}: {fault.what}: {verdict}\n{scene.spoiled(fault)}"
                )


def test_every_fault_of_a_rest_is_rejected() -> None:
    folder = FIXTURES / "softmax_left_to_torch"
    kinds = set()
    with standing_in(folder):
        (case,) = fixture_cases(folder, ())
        for fault in faults(Scene.of(case), makers=REST_FAULTS):
            with pytest.raises(InternalError, match="not what was planned"):
                check_source(read_rewritten(fault.text, case.analysis), case.rewrite, case.analysis)
            kinds.add(fault.kind)
    assert len(kinds) == 6


KERNEL = """\
import triton
import triton.language as tl


@triton.autotune(configs=[triton.Config({"BLOCK": 64}), triton.Config({"BLOCK": 128})], key=["n"])
@triton.jit
def k(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    offs = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + offs, mask=offs < n)
    if n > 5:
        tl.store(out_ptr + offs, x, mask=offs < n)
    for i in range(3):
        tl.store(out_ptr + offs + i, x * 2, mask=offs < n)
"""


@pytest.fixture(scope="module")
def two_stores() -> Case:
    request = Request(("gelu",), kernel="k")
    return fused_case("two stores", analysed_text(KERNEL, request), [("out_ptr", "gelu")], request)


def test_every_fault_of_a_small_kernel_is_rejected(two_stores: Case) -> None:
    scene = Scene.of(two_stores)
    kinds = set()
    for fault in faults(scene, per_maker=6):
        verdict = judged(scene.spoiled(fault), two_stores)
        assert not verdict.is_hole, f"{fault.kind}: {fault.what}: {verdict}\n{scene.spoiled(fault)}"
        if verdict.compiled is Compiled.REJECTED:
            kinds.add(fault.kind)
    # these change what is compiled, so the guard of the syntax tree is not what stops them here
    expected = {"epilogue dropped at a site", "epilogue applied twice", "mask", "offset", "pointer", "loop bound"}
    assert kinds >= expected | {"store moved out of its block", "wrong op at a site", "cache modifier"}
    assert any(kind.startswith("extra") for kind in kinds)


PROLOGUE = """\
import triton
import triton.language as tl


@triton.jit
def read(p, offs, n):
    v = tl.load(p + offs, mask=offs < n, other=1.0)
    return v


@triton.jit
def k(x_ptr, y_ptr, out_ptr, n, BLOCK: tl.constexpr):
    offs = tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), tl.float32)
    for first in range(0, n, BLOCK):
        x = tl.load(x_ptr + first + offs, mask=first + offs < n, other=0.0)
        y = tl.load(y_ptr + first + offs, mask=(first + offs < n) & (offs > 1))
        total += x * y - read(x_ptr, offs, n) + read(y_ptr, offs, n) * tl.load(x_ptr)
    tl.store(out_ptr + offs, total, mask=offs < n)
"""


def test_every_fault_of_a_prologue_is_rejected() -> None:
    """Loads with and without a guard, in a loop, in the copy of a helper: all that a prologue can be put wrong."""
    request = Request((), kernel="k", prologues=("x_ptr=x * 2 + 1",), dtypes=("x_ptr=fp32", "y_ptr=fp32"))
    case = fused_case("prologue", analysed_text(PROLOGUE, request), [], request, request.before())
    case.accept()
    scene = Scene.of(case)
    assert [site.guard is not None for site in scene.loaded] == [True, False, True]
    kinds = set()
    for maker in PROLOGUE_FAULTS:
        some = faults(scene, per_maker=4, makers=[maker])
        assert some, maker.__name__
        for fault in some:
            verdict = judged(scene.spoiled(fault), case)
            assert not verdict.is_hole, f"{fault.kind}: {fault.what}: {verdict}\n{scene.spoiled(fault)}"
            if verdict.compiled is Compiled.REJECTED:
                kinds.add(fault.kind)
    expected = {"prologue dropped at a load", "prologue applied twice", "wrong op at a load", "guard", "guard moved"}
    expected |= {"another prologue everywhere", "prologue of another input"}
    assert kinds >= expected | {"prologue moved", "type of a prologue", "prologue in the shared helper"}


RENAMED = """\
module {
  tt.func public @k(%%a: !tt.ptr<f32> loc("a"(#loc))) attributes {noinline = false} {
    %%%s = arith.constant %s : f32 loc("%s"(#loc1))
    tt.store %%a, %%%s : !tt.ptr<f32> loc(#loc1)
    tt.return loc(#loc1)
  } loc(#loc)
} loc(#loc)
#loc = loc("k.py":1:0)
#loc1 = loc("k.py":2:4)
"""


def test_names_of_values_take_no_part_in_equality_and_values_do() -> None:
    x, y, other = (RENAMED % (n, v, n, n) for n, v in (("x", "1.0"), ("y", "1.0"), ("x", "2.0")))
    assert optimised(x) == optimised(y) != optimised(other)


def test_confirm_rejects_and_keeps_what_is_needed_to_report_it(
    two_stores: Case, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    case = two_stores
    arguments = (case.rewrite, case.analysis, case.requests, case.numerics)
    confirm(case.text, *arguments)
    assert list(tmp_path.iterdir()) == []
    wrong = re.sub(r"gelu\(x\.to\(.*?\)\)", "x", case.text, count=1)
    assert wrong != case.text
    with pytest.raises(InternalError) as caught:
        confirm(wrong, *arguments)
    assert caught.value.folder is not None
    kept = {path.name: path.read_text() for path in Path(caught.value.folder).iterdir()}
    assert set(kept) == {"original.py", "fused.py", "original.ttir", "fused.ttir", "error.txt"}
    assert kept["original.py"] == KERNEL
    assert kept["fused.py"] == wrong
    assert "tt.store" in kept["original.ttir"] and "erf" not in kept["original.ttir"]
    assert "request: out_ptr=gelu" in kept["error.txt"] and "found:    x" in kept["error.txt"]


ADDITIONS = {
    "a function of the name of a builtin": "@triton.jit\ndef range(x):\n    return x\n\n\n",
    "a function with a decorator of its own": "@triton.jit(noinline=True)\ndef more(x):\n    return x\n\n\n",
    "a decorator that runs code": "@print\ndef more(x):\n    return x\n\n\n",
    "a statement": "print('hello')\n",
    "an import under a name that is taken": "import os as tl\n",
    "all names of a module": "from os import *\n",
    "a class": "class More:\n    pass\n\n\n",
}


@pytest.mark.parametrize("name", ADDITIONS)
def test_the_guard_allows_no_addition_but_functions_and_imports_of_new_names(two_stores: Case, name: str) -> None:
    text = two_stores.text.replace("@triton.autotune", ADDITIONS[name] + "@triton.autotune")
    assert judged(text, two_stores).source
    harmless = two_stores.text.replace(
        "@triton.autotune", "@triton.jit\ndef more(x):\n    return x\n\n\n@triton.autotune"
    )
    assert not judged(harmless, two_stores).source


def test_the_guard_wants_the_users_expression_in_what_is_stored(two_stores: Case) -> None:
    """Even where what is lost changes nothing in the specializations that are compiled."""
    text = two_stores.text.replace("x * 2", "x * (1 + 1)")
    assert text != two_stores.text
    assert judged(text, two_stores).compiled is Compiled.SAME
    assert judged(text, two_stores).source


def test_an_import_above_the_future_is_no_python() -> None:
    request = Request(("gelu",), kernel="k")
    text = '"""Words."""\nfrom __future__ import annotations\n' + KERNEL
    case = fused_case("future", analysed_text(text, request), [("out_ptr", "gelu")], request)
    case.accept()
    moved = case.text.replace(
        "from __future__ import annotations\n", "import triton.language.math\nfrom __future__ import annotations\n"
    )
    assert judged(moved, case).compiled is Compiled.INVALID


def test_a_fixture_without_any_of_the_ops_would_go_unnoticed() -> None:
    """Every fixture is fused with at least one op above."""
    for folder in FOLDERS[::7] + [FIXTURES / "unsigned_output"]:
        with standing_in(folder):
            assert next(fixture_cases(folder, ops_of(folder)), None) is not None, folder.name
