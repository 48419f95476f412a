"""The differential run's own logic: the launches it makes up, the mistakes it must see, what it leaves out, its table."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent


def _benchmark(name: str) -> ModuleType:
    specification = importlib.util.spec_from_file_location(f"benchmark_{name}", ROOT / "benchmarks" / f"{name}.py")
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module
    specification.loader.exec_module(module)
    return module


differential = _benchmark("differential")

KERNELS = """
import triton
from triton import language as T
from triton.language import load

SCALE = T.constexpr(3)

@triton.jit
def put(p, i, x):
    T.store(p + i, x)

@triton.jit
def both(x_ptr, out_ptr, copy_ptr, n, BLOCK: T.constexpr):
    i = T.program_id(0) * BLOCK + T.arange(0, BLOCK)
    x = load(x_ptr + i) * SCALE
    if T.program_id(0) == 0:
        put(out_ptr, i, x)
    else:
        T.store(out_ptr + i, x - 1, mask=i < 100)
    T.store(copy_ptr + i, x)

@triton.jit
def wild(x_ptr, out_ptr, factor, BLOCK: T.constexpr):
    i = T.program_id(0) * BLOCK + T.arange(0, BLOCK)
    x = load(x_ptr + i * 1000003 - 999999937)
    T.store(out_ptr + i * 7777, load(x_ptr + i) * factor.to(T.float32) + x)

@triton.jit
def nothing(x_ptr, out_ptr, n, BLOCK: T.constexpr):
    i = T.arange(0, BLOCK)
    T.store(out_ptr + i, load(x_ptr + i), mask=i < 0)

@triton.jit
def squares(x_ptr, out_ptr, n, BLOCK: T.constexpr):
    i = T.arange(0, BLOCK)
    x = load(x_ptr + i)
    T.store(out_ptr + i, x * x)
"""

# Fused files with a mistake: what the right one says, and what stands there instead.
MISTAKES = {
    "a store with another op": ("T.store(out_ptr + i, T.maximum(", "T.store(out_ptr + i, T.minimum("),
    "another value": ("x - 1", "x - 2"),
    "another buffer changed": ("T.store(copy_ptr + i, x)", "T.store(copy_ptr + i, x + 1)"),
    "a store too many": ("T.store(copy_ptr + i, x)", "T.store(copy_ptr + i, x); T.store(out_ptr + 5000 + i, x)"),
    "a mask left out": (", mask=i < 100", ""),
    "a store that is gone": ("    T.store(copy_ptr + i, x)", "    pass"),
}


@pytest.fixture(scope="module")
def runner() -> Iterator[Any]:
    process = differential.Runner()
    yield process
    process.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("package")
    (found / "ops.py").write_text(KERNELS)
    return found


def _task(folder: Path, kernel: str, *outputs: str) -> dict[str, Any]:
    line = next(n for n, text in enumerate(KERNELS.splitlines(), 1) if text.startswith(f"def {kernel}("))
    fused = [{"name": name, "status": "fused"} for name in outputs]
    return {"group": "g", "folder": str(folder), "file": "ops.py", "kernel": kernel, "line": line, "outputs": fused}


@pytest.mark.parametrize("number", range(6))
def test_a_right_fusion_is_compared_and_found_right(runner: Any, folder: Path, number: int) -> None:
    record = differential.examined(_task(folder, "both", "out_ptr"), number, runner, None)
    assert "failure" not in record and "skipped" not in record, record
    (output,) = record["outputs"]
    assert output["written"] > 64 and output["changed"] and not output["wrong"]
    assert output["dtype"] == ("float32", "float16", "bfloat16")[number % 3]
    assert (output["stores"], output["stores_run"]) == (2, 2)
    assert output["op"] == ("relu", "sigmoid", "gelu")[number % 3]


@pytest.mark.parametrize("number", range(3))
def test_the_original_in_place_of_the_fused_kernel_is_wrong(runner: Any, folder: Path, number: int) -> None:
    record = differential.examined(_task(folder, "both", "out_ptr"), number, runner, None, unfused=True)
    assert "`out_ptr`" in record["failure"]


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_the_fused_file_is_seen(runner: Any, folder: Path, mistake: str) -> None:
    case = next(differential.prepared(_task(folder, "both", "out_ptr"), 0))
    (path,) = case["fused"]["texts"]
    right, wrong = MISTAKES[mistake]
    text = case["fused"]["texts"][path]
    assert text.count(right) == 1, text
    assert "failure" not in runner(case)
    case["fused"]["texts"][path] = text.replace(right, wrong)
    answer = runner(case)
    assert "fails" not in answer["failure"], answer


def test_addresses_outside_of_the_buffers_are_turned_off(runner: Any, folder: Path) -> None:
    record = differential.examined(_task(folder, "wild", "out_ptr"), 0, runner, None)
    (output,) = record["outputs"]
    assert 2 < output["written"] <= differential.ELEMENTS // 7777 + 1 and not output["wrong"]


@pytest.mark.parametrize(("kernel", "why"), [("nothing", "nothing is written"), ("squares", "the op changes nothing")])
def test_what_tests_nothing_does_not_count(runner: Any, folder: Path, kernel: str, why: str) -> None:
    record = differential.examined(_task(folder, kernel, "out_ptr"), 0, runner, None)
    assert record["skipped"] == why and not differential.compared(record)


def test_arguments_by_type_and_name() -> None:
    signature = [
        *(("x", "*fp16"), ("indptr", "*i32"), ("table", "*i64"), ("stride_xb", "i32"), ("stride_xm", "i32")),
        *(
            ("stride_xk", "i64"),
            ("stride_row", "i32"),
            ("eps", "fp32"),
            ("flag", "i1"),
            ("N", "i32"),
            ("B", "constexpr"),
        ),
        ("d", "tensordesc<fp16[64, 32]>"),
    ]
    made = dict(differential.arguments(signature, {"B": 16}, 3))
    assert made == dict(differential.arguments(signature, {"B": 16}, 3))
    assert made["x"] == {"buffer": "float16", "holds": "numbers"}
    assert (made["indptr"]["holds"], made["table"]["holds"]) == ("offsets", "indices")
    assert [made[f"stride_{n}"]["value"] for n in ("xb", "xm", "xk", "row")] == [4096, 256, 1, 256]
    assert 0.5 <= made["eps"]["value"] <= 1.5 and type(made["flag"]["value"]) is bool
    assert made["N"]["value"] in differential.SIZES and made["B"] == {"value": 16}
    assert made["d"] == {"descriptor": "float16", "block": [64, 32]}
    with pytest.raises(differential.NoLaunch):
        differential.arguments([("f", "*unheard_of")], {}, 0)


def test_packages_take_turns() -> None:
    kernels = [{"group": group, "kernel": f"{group}{n}"} for group, count in (("a", 3), ("b", 1)) for n in range(count)]
    order = [kernel["group"] for kernel in differential.drawn(kernels, 5)]
    assert order == ["a", "b", "a", "a"]


def test_the_table_counts_what_was_compared() -> None:
    output = {
        "op": "relu",
        "dtype": "float16",
        "written": 10,
        "nan": 0,
        "changed": 4,
        "rounded_otherwise": 0,
        "wrong": 0,
    }
    output |= {"stores": 3, "stores_run": 2}
    base = {"group": "a", "file": "f.py", "kernel": "k", "line": 1}
    records = [
        base | {"outputs": [output]},
        base | {"outputs": [output | {"wrong": 2}], "failure": "`o`: 2 of 10 wrong"},
        base | {"skipped": "the original fails in the interpreter: KeyError: 'x'"},
        base | {"failure": "the fused kernel fails: NameError: y"},
    ]
    facts = dict.fromkeys(("version", "triton", "torch", "python", "date", "seed", "wall"), "1")
    text = differential.report(records, ["a", "unseen"], facts)
    assert "| a | 2 | 2 | 20 | 8 | 2 | 2 |" in text and "unseen" not in text
    assert "ran: 4 of 6" in text
    assert "- the original fails in the interpreter: KeyError: 1" in text and "`o`: 2 of 10 wrong" in text
    assert json.dumps(records)
