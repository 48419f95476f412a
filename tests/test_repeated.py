"""The note on a prologue that is computed again for many tiles: where it is given, and above all where it is not."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from kernel_rewrite.analysis import Analysis, analyse
from kernel_rewrite.diagnostics import Severity
from kernel_rewrite.fuse import fuse
from kernel_rewrite.model import ANYWHERE, MemoryEffect
from kernel_rewrite.source.closure import kernels
from kernel_rewrite.source.files import Project
from kernel_rewrite.ttir.lower import compiler
from kernel_rewrite.ttir.rereads import rereads

ROOT = Path(__file__).resolve().parent.parent

HEAD = """\
import torch
import triton
import triton.language as tl


@triton.jit
def load_tile(p, rows, columns, stride):
    return tl.load(p + rows[:, None] * stride + columns[None, :])


@triton.jit
def halves(pid, n):
    return pid // n, pid % n


@triton.jit
def k(a_ptr, b_ptr, c_ptr, s_ptr, M, N, K):
    steps = tl.arange(0, 32)
    total = tl.zeros((32, 32), dtype=tl.float32)
"""

GRID_OF_TWO = "pid_m = tl.program_id(0)\npid_n = tl.program_id(1)\n"
PLACES = "rows = pid_m * 32 + tl.arange(0, 32)\ncolumns = pid_n * 32 + tl.arange(0, 32)\n"
LOOP = """
for k in range(0, K, 32):
    a = tl.load(a_ptr + rows[:, None] * K + (k + steps)[None, :])
    b = tl.load(b_ptr + (k + steps)[:, None] * N + columns[None, :])
    total = tl.dot(a, b, total)
"""
STORE = "tl.store(c_ptr + rows[:, None] * N + columns[None, :], total)\n"

AXIS_0, AXIS_1 = "by each program along axis 0", "by each program along axis 1"

KERNELS: dict[str, tuple[str, dict[str, str]]] = {
    "a grid of two directions": (GRID_OF_TWO + PLACES + LOOP + STORE, {"a_ptr": AXIS_1, "b_ptr": AXIS_0}),
    "programs in one row, taken apart": (
        "pid = tl.program_id(0)\npid_m = pid // (N // 32)\npid_n = pid % (N // 32)\n" + PLACES + LOOP + STORE,
        {"a_ptr": "for each value of `pid_n`", "b_ptr": "for each value of `pid_m`"},
    ),
    "taken apart by a helper": (
        "pid_m, pid_n = halves(tl.program_id(0), N // 32)\n" + PLACES + LOOP + STORE,
        {"a_ptr": "for each tile", "b_ptr": "for each tile"},
    ),
    "loaded by a helper": (
        GRID_OF_TWO
        + PLACES
        + LOOP.replace("tl.load(a_ptr + rows[:, None] * K + (k + steps)[None, :])", "load_tile(a_ptr, rows, k + steps, K)")
        + STORE,
        {"a_ptr": AXIS_1, "b_ptr": AXIS_0},
    ),
    "pointers that move": (
        GRID_OF_TWO
        + PLACES
        + "a_ptrs = a_ptr + rows[:, None] * K + steps[None, :]\nb_ptrs = b_ptr + steps[:, None] * N + columns[None, :]\n"
        + "for k in range(0, K, 32):\n"
        + "    total = tl.dot(tl.load(a_ptrs), tl.load(b_ptrs), total)\n    a_ptrs += 32\n    b_ptrs += 32 * N\n"
        + STORE,
        {"a_ptr": AXIS_1, "b_ptr": AXIS_0},
    ),
    "block pointers": (
        GRID_OF_TWO
        + "a_block = tl.make_block_ptr(a_ptr, (M, K), (K, 1), (pid_m * 32, 0), (32, 32), (1, 0))\n"
        + "b_block = tl.make_block_ptr(b_ptr, (K, N), (N, 1), (0, pid_n * 32), (32, 32), (1, 0))\n"
        + "for k in range(0, K, 32):\n"
        + "    total = tl.dot(tl.load(a_block), tl.load(b_block), total)\n"
        + "    a_block = tl.advance(a_block, (0, 32))\n    b_block = tl.advance(b_block, (32, 0))\n"
        + PLACES
        + STORE,
        {"a_ptr": AXIS_1, "b_ptr": AXIS_0},
    ),
    "descriptors": (
        GRID_OF_TWO
        + "a_desc = tl.make_tensor_descriptor(a_ptr, [M, K], [K, 1], [32, 32])\n"
        + "b_desc = tl.make_tensor_descriptor(b_ptr, [K, N], [N, 1], [32, 32])\n"
        + "for k in range(0, K, 32):\n"
        + "    total = tl.dot(a_desc.load([pid_m * 32, k]), b_desc.load([k, pid_n * 32]), total)\n"
        + PLACES
        + STORE,
        {"a_ptr": AXIS_1, "b_ptr": AXIS_0},
    ),
    "a stream of tiles for each program": (
        "for tile in range(tl.program_id(0), M * N // 1024, tl.num_programs(0)):\n    pid_m = tile // (N // 32)\n"
        "    pid_n = tile % (N // 32)\n    total = tl.zeros((32, 32), dtype=tl.float32)\n"
        + "".join(f"    {line}\n" for line in (PLACES + LOOP + STORE).splitlines() if line),
        {"a_ptr": "for each value of `pid_n`", "b_ptr": "for each value of `pid_m`"},
    ),
    "the tile of the store is counted for itself": (
        "done = tl.program_id(0)\n"
        "for tile in range(tl.program_id(0), M * N // 1024, tl.num_programs(0)):\n    pid_m = tile // (N // 32)\n"
        "    pid_n = tile % (N // 32)\n    total = tl.zeros((32, 32), dtype=tl.float32)\n"
        + "".join(f"    {line}\n" for line in (PLACES + LOOP).splitlines() if line)
        + "    pid_m = done // (N // 32)\n    pid_n = done % (N // 32)\n    done += tl.num_programs(0)\n"
        + "".join(f"    {line}\n" for line in (PLACES + STORE).splitlines() if line),
        {},
    ),
    "an operand of its own for each program": (
        GRID_OF_TWO + PLACES + LOOP.replace("b_ptr +", "b_ptr + pid_m * K * N +") + STORE,
        {"a_ptr": AXIS_1},
    ),
    "loaded in one program only": (
        GRID_OF_TWO
        + PLACES
        + "a = tl.zeros((32, 32), dtype=tl.float32)\nif pid_n == 0:\n"
        + "    a = tl.load(a_ptr + rows[:, None] * K + steps[None, :])\n"
        + "b = tl.load(b_ptr + steps[:, None] * N + columns[None, :])\ntotal = tl.dot(a, b, total)\n"
        + STORE,
        {"b_ptr": AXIS_0},
    ),
    "the others have left": (
        GRID_OF_TWO
        + "if pid_n > 0:\n    return\n"
        + PLACES
        + LOOP
        + STORE,
        {"b_ptr": AXIS_0},
    ),
    "masked by the program": (
        GRID_OF_TWO
        + PLACES
        + LOOP.replace("(k + steps)[None, :])", "(k + steps)[None, :], mask=rows[:, None] < pid_n, other=0.0)")
        + STORE,
        {"b_ptr": AXIS_0},
    ),
    "a part of K for each program": (
        GRID_OF_TWO + PLACES + LOOP.replace("range(0, K, 32)", "range(pid_n * 64, pid_n * 64 + 64, 32)") + STORE,
        {"b_ptr": AXIS_0},
    ),
    "some programs stop earlier": (
        GRID_OF_TWO + PLACES + LOOP.replace("range(0, K, 32)", "range(0, pid_n * 64, 32)") + STORE,
        {"a_ptr": AXIS_1, "b_ptr": AXIS_0},
    ),
    "where to load was counted in memory": (
        GRID_OF_TWO
        + "ticket = tl.atomic_add(s_ptr, 1.0).to(tl.int32)\n"
        + PLACES.replace("pid_m * 32", "ticket * 32")
        + LOOP
        + STORE.replace("rows[:, None]", "(pid_m * 32 + rows)[:, None]"),
        {"b_ptr": AXIS_0},
    ),
    "where to load is in memory": (
        GRID_OF_TWO + "pid_m = tl.load(s_ptr + pid_m).to(tl.int32)\n" + PLACES + LOOP + STORE,
        {"a_ptr": AXIS_1, "b_ptr": AXIS_0},
    ),
    "no product": (
        GRID_OF_TWO
        + PLACES
        + "a = tl.load(a_ptr + rows[:, None] * K + steps[None, :])\n"
        + "total += a + tl.load(b_ptr + steps[:, None] * N + columns[None, :])\n"
        + STORE,
        {},
    ),
    "a scale for each column": (
        GRID_OF_TWO
        + PLACES
        + LOOP.replace("columns[None, :])", "columns[None, :]) * tl.load(s_ptr + columns)[None, :]")
        + STORE,
        {"a_ptr": AXIS_1, "b_ptr": AXIS_0, "s_ptr": ""},
    ),
}  # fmt: skip
"""The body of `k`, and for each input with a note the words of it; "" asks for an input that is to have none."""


def source_of(body: str) -> str:
    return HEAD + "".join(f"    {line}\n" for line in body.splitlines() if line)


@pytest.mark.parametrize("name", KERNELS)
def test_each_kernel(name: str) -> None:
    body, expected = KERNELS[name]
    for input in dict.fromkeys(("a_ptr", "b_ptr", *expected)):
        found = fuse(source_of(body), prologues={input: "relu"}, kernel="k", dtypes=("M=i32", "N=i32", "K=i32"))
        notes = [d for d in found.warnings if d.code == "KR404"]
        words = [d.message for d in notes]
        assert words == ([f"relu of `{input}` is computed again {expected[input]}"] if expected.get(input) else [])
        assert all(d.severity is Severity.NOTE for d in notes)


def test_the_product_of_the_benchmarks() -> None:
    source = ROOT / "benchmarks" / "kernels" / "matmul.py"
    both = fuse(str(source), prologues={"a_ptr": "relu", "b_ptr": "relu"}).warnings
    assert [d.message for d in both] == [
        "relu of `a_ptr` is computed again for each value of `pid_n`",
        "relu of `b_ptr` is computed again for each value of `pid_m`",
    ]


def test_amounts_and_launches() -> None:
    source = source_of(KERNELS["a grid of two directions"][0]) + (
        "\n\ndef product(a, b, c, s, M, N, K):\n"
        "    grid = lambda meta: (triton.cdiv(M, 32), triton.cdiv(N, 32))\n"
        "    k[grid](a, b, c, s, M, N, K)\n"
    )
    (note,) = fuse(
        source, prologues={"b_ptr:int8": "x.to(float16) * 0.5"}, kernel="k", dtypes=("a_ptr=fp16", "b_ptr=fp16")
    ).warnings
    assert note.notes == (
        "each time 32 x 32 elements (1 KiB) are read and 2 ops are computed of each, in every round of a loop",
        "the launch at line 33 has `triton.cdiv(M, 32)` programs along axis 0",
    )
    assert [label.span.line for label in note.labels] == [26, 28]


# ------------------------------------------------------------------------------------------------- against enumeration

STORES = (
    "pid",
    "pid // 4 * 4 + pid % 4",
    "pid % 4 * 4 + pid // 4",
    "pid % 2 * 8 + pid // 2",
    "pid % 8 // 4 * 8 + pid % 4 * 2 + pid // 8",
    "pid // 4 * 4 + pid % 4 // 2 * 2 + pid % 4 % 2",
)
"""Where the programs store: each to a place of its own."""

LOADS = (
    *STORES,
    "pid // 4",
    "pid % 4",
    "pid // 2",
    "pid // 4 + pid % 4",
    "pid % 8 // 2",
    "pid // 4 * 2 + pid % 4 % 2",
    "(pid + 3) % 16",
    "pid // 8 * 8 + pid % 8 // 4 * 4 + pid % 4",
    "pid * 0",
)
PROGRAMS = range(16)

ENUMERATED = """\
import triton
import triton.language as tl


@triton.jit
def k(a_ptr, b_ptr, c_ptr):
    pid = tl.program_id(0)
    steps = tl.arange(0, 16)
    tile = steps[:, None] * 16 + steps[None, :]
    a = tl.load(a_ptr + ({load}) * 256 + tile)
    tl.store(c_ptr + ({store}) * 256 + tile, tl.dot(a, tl.load(b_ptr + tile)))
"""


def analysis_of(text: str, folder: Path) -> Analysis:
    path = folder / "kernel.py"
    path.write_text(text)
    project = Project()
    (kernel,) = kernels(project.read(path), project)
    return analyse(kernel, project, compiler())


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], bool]:
    """For each index of a load and of a store: whether the load is found to get the same again."""
    found = {}
    folder = tmp_path_factory.mktemp("indices")
    for load, store in itertools.product(LOADS, STORES):
        (view,) = analysis_of(ENUMERATED.format(load=load, store=store), folder).views
        reads = [a for a in view.accesses if a.effect is MemoryEffect.READ and "a_ptr" in a.roots]
        assert all(ANYWHERE not in a.roots for a in reads)
        places = [(a.operation, a.location, a.call_path) for a in reads]
        found[load, store] = bool(rereads(view.module, places, ()))
    return found


def test_what_is_found_is_true(verdicts: dict[tuple[str, str], bool]) -> None:
    """Where a load is said to get the same for several tiles, two programs load the same."""
    for (load, store), again in verdicts.items():
        assert len({eval(store, {"pid": pid}) for pid in PROGRAMS}) == len(PROGRAMS)
        if again:
            assert len({eval(load, {"pid": pid}) for pid in PROGRAMS}) < len(PROGRAMS), f"{load} / {store}"


def test_the_plain_ones_are_found(verdicts: dict[tuple[str, str], bool]) -> None:
    for load in ("pid // 4", "pid % 4", "pid // 4 * 2 + pid % 4 % 2"):
        assert verdicts[load, "pid // 4 * 4 + pid % 4 // 2 * 2 + pid % 4 % 2"], load
