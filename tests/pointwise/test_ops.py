"""The op table: every row against torch, in the interpreter and through the compiler's front end.

Run as a script under TRITON_INTERPRET=1 (the tests do so), it prints the results of runs that need the interpreter.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import subprocess
import sys
import traceback
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from kernel_rewrite.pointwise.language import Pointwise, emit, parse_epilogue
from kernel_rewrite.pointwise.ops import (
    ALIASES,
    FLOAT_ONLY,
    OPS,
    ElementClass,
    element_class,
    representable_everywhere,
    same_value,
)

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = {
    "clamp": "clamp(-1, 6)",
    "clamp_min": "clamp_min(0)",
    "clamp_max": "clamp_max(3)",
    "to": "to(bf16)",
    "hardtanh": "hardtanh(0, 5)",
}
TEXTS = [EXAMPLES.get(name, name) for name in OPS]
DTYPES = ["fp16", "bf16", "fp32", "fp64", "i8", "i16", "i32", "i64", "u8", "i1"]
HEADER = "import triton\nimport triton.language as tl\nfrom triton.language.extra import libdevice\n\n\n"


def load(source: str, folder: Path, name: str) -> Any:
    path = folder / f"{name}.py"
    path.write_text(source, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def kernel_source(pointwise: Pointwise, value: str = "v") -> str:
    emission = emit(pointwise, value, taken_names={"kernel", "v"})
    helpers = "\n\n".join(helper.text for helper in emission.helpers)
    return (
        HEADER
        + helpers
        + f"""

@triton.jit
def kernel(source, target, N: tl.constexpr):
    index = tl.arange(0, N)
    v = tl.load(source + index)
    tl.store(target + index, {emission.expression})
"""
    )


# ------------------------------------------------------------------------------------------------------ the table


def test_names_and_aliases_are_unique() -> None:
    assert not set(ALIASES) & set(OPS)
    assert len(ALIASES) == sum(len(row.aliases) for row in OPS.values())


@pytest.mark.parametrize("name", sorted(OPS))
def test_row_is_complete(name: str) -> None:
    row = OPS[name]
    assert row.formula and row.source and row.nan
    assert row.inline or row.steps
    assert row.classes <= frozenset(ElementClass) and ElementClass.FLOAT in row.classes
    assert "{x}" in row.inline or not row.inline
    assert row.inline.count("{x}") <= 1


@pytest.mark.parametrize("name", sorted(OPS))
def test_torch_has_the_function(name: str) -> None:
    torch = pytest.importorskip("torch")
    result = parse_epilogue(EXAMPLES.get(name, name)).evaluate(torch.tensor([0.5, 2.0]))
    assert result.dtype == torch.float32 and result.shape == (2,)


@pytest.mark.parametrize("text", TEXTS)
def test_defined_for_says_what_torch_does(text: str) -> None:
    torch = pytest.importorskip("torch")
    pointwise = parse_epilogue(text)
    for dtype in ("float16", "bfloat16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "bool"):
        try:
            keeps_type = pointwise.evaluate(torch.ones(4, dtype=getattr(torch, dtype))).dtype == getattr(torch, dtype)
        except (RuntimeError, TypeError, ValueError):
            keeps_type = False
        if pointwise.defined_for(dtype):
            assert keeps_type, (text, dtype)
        elif keeps_type:  # torch can, the tool cannot: only for a reason it gives
            assert (text, dtype) in {
                ("neg", "uint8"),
                ("clamp(-1, 6)", "uint8"),
                ("sign", "bool"),
                *(("to(bf16)", t) for t in ("float64", "int8", "int16", "int32", "int64", "uint8", "bool")),
            }
            assert pointwise.undefined_reason(dtype)


def test_types_without_arithmetic_are_refused() -> None:
    for dtype in ("fp8e4nv", "float8_e4m3fn", "u32", "uint16"):
        assert element_class(dtype) is None
        assert not parse_epilogue("relu").defined_for(dtype)


# ---------------------------------------------------------------------------------------------------- fill values

FILLS = [0.0, -0.0, 1.0, -1.0, 0.5, 2.0, 3.0, 6.0, 256.0, -4.0, 1e-6, 0.1, math.inf, -math.inf, math.nan]


@pytest.mark.parametrize("text", [*TEXTS, "sigmoid(relu(x))", "log(exp(x))", "neg(neg(x))", "square(sqrt(x))"])
def test_a_preserved_fill_is_preserved_by_torch(text: str) -> None:
    torch = pytest.importorskip("torch")
    pointwise = parse_epilogue(text)
    for fill in FILLS:
        if not pointwise.preserves(fill):
            continue
        for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
            if not pointwise.defined_for(str(dtype).removeprefix("torch.")):
                continue
            # torch's CPU gelu of a short tensor turns infinity into NaN; the GPU's does not.
            if text == "gelu" and math.isinf(fill):
                continue
            result = pointwise.evaluate(torch.full((1,), fill, dtype=dtype)).item()
            assert same_value(result, fill), (text, fill, dtype, result)
        if fill.is_integer() and abs(fill) < 128 and pointwise.defined_for("int8") and same_value(fill, fill + 0.0):
            assert pointwise.evaluate(torch.full((1,), int(fill), dtype=torch.int8)).item() == fill


@pytest.mark.parametrize(
    ("text", "preserved", "changed"),
    [
        ("relu", [0.0, 1.0, math.inf, math.nan, 0.5], [-1.0, -math.inf, -0.0, 1e-6]),
        ("sigmoid", [math.nan], [0.0, 1.0, math.inf, -math.inf]),
        ("gelu", [0.0, -0.0, math.inf], [1.0, -math.inf, 0.5]),
        ("exp", [math.inf], [0.0, 1.0, -math.inf]),
        ("sqrt", [0.0, -0.0, 1.0, math.inf], [-1.0, -math.inf]),
        ("reciprocal", [1.0, -1.0], [0.0, math.inf]),
        ("clamp(0, 6)", [0.0, 6.0, 3.0], [-1.0, 7.0, math.inf]),
        ("floor", [2.0, -0.0, math.inf], [0.5]),
        ("frac", [0.0, 0.5], [math.inf, -math.inf, 1.0, -0.0]),
        ("neg(neg(x))", [0.0, 1.0, -math.inf], []),
        ("log(exp(x))", [0.0], [1.0]),
    ],
)
def test_fills(text: str, preserved: list[float], changed: list[float]) -> None:
    pointwise = parse_epilogue(text)
    assert [f for f in preserved if not pointwise.preserves(f)] == []
    assert [f for f in changed if pointwise.preserves(f)] == []


def test_representable_everywhere() -> None:
    torch = pytest.importorskip("torch")
    for value in (0.0, 1.0, -0.5, 6.0, 256.0, 257.0, 0.1, 65504.0, 65536.0, 1e-5, 2.0**-14, 2.0**-15, 1e39, math.inf):
        exact = all(
            torch.tensor(value, dtype=torch.float64).to(dtype).to(torch.float64).item() == value
            and (math.isinf(value) or value == 0 or abs(value) >= torch.finfo(dtype).tiny)
            for dtype in (torch.float16, torch.bfloat16, torch.float32)
        )
        assert representable_everywhere(value) == exact, value


# ------------------------------------------------------------------------------------------ the compiler's front end


def lower(kernel: Any, source: str, target: str) -> str:
    from triton._C.libtriton import ir
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource
    from triton.compiler.compiler import make_backend

    gpu = GPUTarget("cuda", 90, 32)
    backend = make_backend(gpu)
    options = backend.parse_options({})
    context = ir.context()
    ir.load_dialects(context)
    backend.load_dialects(context)
    signature = {"source": f"*{source}", "target": f"*{target}", "N": "constexpr"}
    job = ASTSource(kernel, signature, constexprs={(2,): 64})
    return str(
        job.make_ir(gpu, options, backend.get_codegen_implementation(options), backend.get_module_map(), context)
    )


needs_compiler = pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="needs the compiler")


@needs_compiler
@pytest.mark.parametrize("text", [*TEXTS, "sigmoid(relu(x))", "abs(neg(square(x)))", "clamp(0.1, 0.7)"])
def test_lowers_for_every_type_it_is_defined_for(text: str, tmp_path: Path) -> None:
    pytest.importorskip("triton")
    pointwise = parse_epilogue(text)
    kernel = load(kernel_source(pointwise), tmp_path, "lowered").kernel
    for dtype in DTYPES:
        if pointwise.defined_for(dtype):
            assert "tt.store" in lower(kernel, dtype, dtype), (text, dtype)


@needs_compiler
@pytest.mark.parametrize("name", sorted(n for n, row in OPS.items() if row.classes == FLOAT_ONLY and row.steps))
def test_a_helper_for_floats_rejects_integers(name: str, tmp_path: Path) -> None:
    """The fused file may be launched with other types than those it was made for."""
    pytest.importorskip("triton")
    kernel = load(kernel_source(parse_epilogue(name)), tmp_path, "rejecting").kernel
    for dtype in ("i8", "i32", "u8"):
        with pytest.raises(Exception) as caught:
            lower(kernel, dtype, dtype)
        assert "is defined for floating-point types" in "".join(traceback.format_exception(caught.value))


# ------------------------------------------------------------------------------------------------- the interpreter


def interpreted(*arguments: str) -> Any:
    """The JSON that a run of Python under the interpreter prints last."""
    environment = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join([str(ROOT), *_outer_path()])}
    run = subprocess.run(
        [sys.executable, "-W", "ignore", *arguments], env=environment, capture_output=True, text=True, timeout=600
    )
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-2000:]
    return json.loads(run.stdout.strip().splitlines()[-1])


def _outer_path() -> list[str]:
    return [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p]


@cache
def table() -> dict[str, dict[str, Any]]:
    """The counts of `tests/gpu/op_table.py --interpret`, by epilogue and element type."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.json"
        interpreted(str(ROOT / "tests/gpu/op_table.py"), "--interpret", "--emitted-only", "--json", str(path))
        rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
    return {row["op"]: row["counts"] for row in rows}


# Where torch's CPU and the correctly rounded stand-ins differ: the largest distance allowed, in units in the last
# place, by element type. An op not named here must be equal to the bit in every type.
CLOSE: dict[str, dict[str, int]] = {
    **{op: {"float32": 2, "float64": 2} for op in ("elu", "celu", "selu", "exp", "exp2", "expm1", "log", "log2")},
    **{op: {"float32": 2, "float64": 2} for op in ("sigmoid", "silu", "softplus", "logsigmoid", "sqrt", "rsqrt")},
    **{op: {"float32": 2, "float64": 2, "float16": 1} for op in ("sin", "cos", "tan", "tanh", "log1p")},
    "elu(1.5)": {"float32": 2, "float64": 2, "bfloat16": 1},
}


def test_the_table_ran_without_errors() -> None:
    pytest.importorskip("triton")
    errors = {(op, t): c["error"] for op, counts in table().items() for t, c in counts.items() if c["error"]}
    assert errors == {}


@pytest.mark.parametrize("name", sorted(OPS))
def test_equals_torch_in_the_interpreter(name: str) -> None:
    """Every bit pattern of the 16-bit types and 8-bit integers, samples and corners of the others."""
    pytest.importorskip("triton")
    mine = {op: counts for op, counts in table().items() if op.partition("(")[0] == name}
    assert mine
    for op, counts in mine.items():
        for dtype, count in counts.items():
            assert count["zero_signs"] == 0 or name in ZERO_SIGNS, (op, dtype, count)
            allowed = CLOSE.get(op, CLOSE.get(name, {})).get(dtype, 0)
            if name in LOOSE:
                assert count["mismatches"] <= LOOSE[name].get(dtype, 0) * count["total"], (op, dtype, count)
            else:
                assert count["max_ulp"] <= allowed, (op, dtype, count)


# torch's CPU kernels for these are themselves far from the true value (an erf with an absolute error of 1e-7, infinity
# to NaN in gelu, a float32 exp that overflows early in mish): the share of elements that may differ, at any distance.
LOOSE: dict[str, dict[str, float]] = {
    "gelu": {"float16": 0.015, "bfloat16": 0.04, "float32": 0.06, "float64": 0.01},
    "gelu_tanh": {"float16": 0.002, "bfloat16": 0.001, "float32": 0.004, "float64": 0.2},
    "erf": {"float16": 0.3, "bfloat16": 0.6, "float32": 0.04, "float64": 0.1},
    "mish": {"float16": 0.001, "bfloat16": 0.001, "float32": 0.03, "float64": 0.06},
    "tanhshrink": {"float64": 0.04},
}

# max(-0.0, 0.0) is +0.0 in the kernels here and -0.0 in torch's CPU kernels; log_sigmoid underflows to either zero.
ZERO_SIGNS = {"relu", "relu6", "hardtanh", "clamp", "logsigmoid"}


def test_chains_round_between_ops() -> None:
    """`relu(square(relu(x)))` on int8 wraps in between; `tanh(to(x, bf16))` rounds in between."""
    pytest.importorskip("triton")
    counts = table()["relu(square(relu(x)))"]
    assert {dtype: count["mismatches"] for dtype, count in counts.items() if count["mismatches"]} == {}
    assert table()["tanh(to(x, bf16))"]["float16"]["mismatches"] <= 2


@cache
def commutations() -> dict[str, dict[str, int]]:
    result: dict[str, dict[str, int]] = interpreted(str(Path(__file__)))
    return result


COMMUTING = ["relu", "relu6", "abs", "neg", "clamp(0, 6)", "clamp(-1.5, inf)", "hardtanh", "abs(neg(relu(x)))"]
NOT_COMMUTING = ["sign", "floor", "square", "sigmoid", "to(fp16)"]


@pytest.mark.parametrize("text", COMMUTING)
def test_commutes_with_rounding(text: str) -> None:
    """store(E(v)) and store(E(v.to(T))) write the same bits, at every rounding boundary of T."""
    pytest.importorskip("triton")
    assert parse_epilogue(text).commutes_with_rounding
    assert set(commutations()[text].values()) == {0}


@pytest.mark.parametrize("text", NOT_COMMUTING)
def test_does_not_commute_with_rounding(text: str) -> None:
    pytest.importorskip("triton")
    assert not parse_epilogue(text).commutes_with_rounding
    assert any(commutations()[text].values())


def test_every_commuting_row_is_tested() -> None:
    tested = {word for text in COMMUTING for word in OPS if text.startswith(word)}
    for name, row in OPS.items():
        claims = row.commutes({p.name: 1.0 for p in row.parameters}) and name not in ("clamp_min", "clamp_max")
        assert not claims or name in tested, name


# ------------------------------------------------------------------------------------- what runs in the interpreter


def boundaries(wide: Any, narrow: Any) -> Any:
    """Values of `wide` on both sides of every place where rounding to `narrow` changes its result."""
    import torch

    bits = torch.int16 if narrow.itemsize == 2 else torch.int32
    if bits is torch.int16:
        patterns = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(bits)
    else:
        generator = torch.Generator().manual_seed(5)
        patterns = torch.randint(-(2**31), 2**31, (60_000,), generator=generator).to(bits)
    values = patterns.view(narrow).to(wide)
    following = (patterns + 1).view(narrow).to(wide)
    middle = values / 2 + following / 2
    words = {4: torch.int32, 8: torch.int64}[wide.itemsize]
    near = [(middle.view(words) + step).view(wide) for step in (-2, -1, 0, 1, 2)]
    corners = torch.tensor(
        [0.0, -0.0, math.inf, -math.inf, math.nan, 1e-45, -1e-45, 65519.9, 65520.0, 3.39e38], dtype=wide
    )
    return torch.cat([values, *near, corners, -corners])


def commutation_failures(text: str, folder: Path, name: str) -> dict[str, int]:
    import torch

    pointwise = parse_epilogue(text)
    direct = load(kernel_source(pointwise), folder, f"direct_{name}").kernel
    rounded = load(kernel_source(pointwise, "v.to(target.dtype.element_ty)"), folder, f"rounded_{name}").kernel
    failures = {}
    for wide, narrow in (
        (torch.float32, torch.float16),
        (torch.float32, torch.bfloat16),
        (torch.float64, torch.float32),
    ):
        values = boundaries(wide, narrow)
        size = 1 << (values.numel() - 1).bit_length()
        source = torch.zeros(size, dtype=wide)
        source[: values.numel()] = values
        left, right = torch.empty(size, dtype=narrow), torch.empty(size, dtype=narrow)
        direct[(1,)](source, left, N=size)
        rounded[(1,)](source, right, N=size)
        words = torch.int16 if narrow.itemsize == 2 else torch.int32
        both_nan = torch.isnan(left) & torch.isnan(right)
        failures[f"{wide} to {narrow}"] = int(((left.view(words) != right.view(words)) & ~both_nan).sum())
    return failures


def main() -> None:
    import tempfile

    from kernel_rewrite.pointwise.interpreter import stand_ins

    with stand_ins(), tempfile.TemporaryDirectory() as folder:
        texts = [*COMMUTING, *NOT_COMMUTING]
        print(json.dumps({t: commutation_failures(t, Path(folder), str(i)) for i, t in enumerate(texts)}))


if __name__ == "__main__":
    main()
