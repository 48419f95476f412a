"""The op table: every row against torch, in the interpreter and through the compiler's front end.

Run as a script under TRITON_INTERPRET=1 (the tests do so), it prints the results of runs that need the interpreter.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import re
import subprocess
import sys
import traceback
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from kernel_rewrite.pointwise.element_types import FLOAT_ONLY, ElementClass, element_class
from kernel_rewrite.pointwise.language import Pointwise, emit, parse_epilogue
from kernel_rewrite.pointwise.op import Result, representable_everywhere, same_value
from kernel_rewrite.pointwise.ops import ALIASES, OPS
from kernel_rewrite.pointwise.reference import reference_source

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = {
    "clamp": "clamp(-1, 6)",
    "clamp_min": "clamp_min(0)",
    "clamp_max": "clamp_max(3)",
}
SINGLE = [
    name
    for name, row in OPS.items()
    if len(row.operands) == 1 and row.classes >= FLOAT_ONLY and row.result is Result.PROMOTED
]
TEXTS = [*(EXAMPLES.get(name, name) for name in SINGLE), "hardtanh(0, 5)", "hardtanh(-1.0, 2.0)", "hardtanh(-inf, 0.5)"]
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


def kernel_source(*functions: Pointwise | tuple[Pointwise, str]) -> str:
    """A file whose kernel writes each function of `source` to a row of `target`; with a function may come the text of
    its operand, in place of `v`."""
    pairs = [(f, "v") if isinstance(f, Pointwise) else f for f in functions]
    emissions = [emit(pointwise, value, taken_names={"kernel", "v"}) for pointwise, value in pairs]
    helpers = {helper.text: helper.name for emission in emissions for helper in emission.helpers}
    assert len(set(helpers.values())) == len(helpers)
    stores = [f"    tl.store(target + {row} * N + index, {e.expression})\n" for row, e in enumerate(emissions)]
    return (
        HEADER
        + "\n\n".join(helpers)
        + """

@triton.jit
def kernel(source, target, N: tl.constexpr):
    index = tl.arange(0, N)
    v = tl.load(source + index)
"""
        + "".join(stores)
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
    assert row.classes <= frozenset(ElementClass) and row.classes
    assert all(row.inline.count(f"{{{operand}}}") == 1 for operand in row.operands) or not row.inline


@pytest.mark.parametrize("name", SINGLE)
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


@cache
def compiler() -> tuple[Any, ...]:
    """What `make_ir` wants behind the job: target, options, code generation, modules, context."""
    from triton._C.libtriton import ir
    from triton.backends.compiler import GPUTarget
    from triton.compiler.compiler import make_backend

    gpu = GPUTarget("cuda", 90, 32)
    backend = make_backend(gpu)
    options = backend.parse_options({})
    context = ir.context()
    ir.load_dialects(context)
    backend.load_dialects(context)
    return gpu, options, backend.get_codegen_implementation(options), backend.get_module_map(), context


def lower(kernel: Any, *pointers: str) -> str:
    """The TTIR, before any pass, of `kernel(source, target, N)` for pointers to two types, or of `kernel()`."""
    from triton.compiler import ASTSource

    signature = {name: f"*{dtype}" for name, dtype in zip(("source", "target"), pointers, strict=False)}
    constants = {(2,): 64} if pointers else {}
    job = ASTSource(kernel, signature | ({"N": "constexpr"} if pointers else {}), constexprs=constants)
    return str(job.make_ir(*compiler()))


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


# The element types of TTIR, as the rewrite names them to `reference_source`, and as TTIR writes them.
REFERENCE_DTYPES = {
    **{"float16": "f16", "bfloat16": "bf16", "float32": "f32", "float64": "f64", "int1": "i1", "uint8": "i8"},
    **{"int8": "i8", "int16": "i16", "int32": "i32", "int64": "i64"},
}


@needs_compiler
@pytest.mark.parametrize("text", [*TEXTS, "sigmoid(relu(x))", "relu(x.to(fp16).to(x.dtype))"])
def test_the_reference_lowers_for_every_type_it_is_defined_for(text: str, tmp_path: Path) -> None:
    """A function from a tensor (or a scalar) to the same type, which calls nothing that needs a device."""
    pytest.importorskip("triton")
    pointwise = parse_epilogue(text)
    lowered = 0
    for dtype, element in REFERENCE_DTYPES.items():
        if not pointwise.defined_for(dtype):
            continue
        shapes = {(32, 4): f"tensor<32x4x{element}>"} | ({(): element} if dtype in ("bfloat16", "int32") else {})
        for shape, kind in shapes.items():
            module = load(reference_source(pointwise, shape, dtype), tmp_path, f"reference_{lowered}")
            functions = re.findall(r"tt.call @\S*epilogue_alone\S* : \((\S+)\) -> (\S+)", lower(module.reference))
            assert functions == [(kind, kind)], (text, dtype, shape)
            lowered += 1
    assert lowered >= 3


@needs_compiler
@pytest.mark.parametrize("name", sorted(n for n in SINGLE if OPS[n].classes == FLOAT_ONLY and OPS[n].steps))
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
    # torch's CPU kernels divide by 6; its CUDA kernels multiply by the float32 nearest to 1 / 6.
    **{op: {"float32": 1, "float64": 2**28} for op in ("hardswish", "hardsigmoid")},
}


# One test for each run of the interpreter: starting it costs more than what it runs.
def test_equals_torch_in_the_interpreter() -> None:
    """Every bit pattern of the 16-bit types and of the small integers, samples and corners of the others."""
    pytest.importorskip("triton")
    counts = table()
    assert {op.partition("(")[0] for op in counts} >= set(SINGLE)
    wrong = [(op, t, c) for op, by_type in counts.items() for t, c in by_type.items() if not _close(op, t, c)]
    assert wrong == []


def _close(op: str, dtype: str, count: dict[str, Any]) -> bool:
    name = op.partition("(")[0]
    if "error" in count or (count.get("zero_signs") and name not in ZERO_SIGNS):
        return False
    if name in LOOSE:
        return bool(count.get("mismatches", 0) <= LOOSE[name].get(dtype, 0) * count["total"])
    return bool(count.get("max_ulp", 0) <= CLOSE.get(op, CLOSE.get(name, {})).get(dtype, 0))


# torch's CPU kernels for these are themselves far from the true value (an erf with an absolute error of 1e-7, infinity
# to NaN in gelu, a float32 exp that overflows early in mish): the share of elements that may differ, at any distance.
LOOSE: dict[str, dict[str, float]] = {
    "gelu": {"float16": 0.015, "bfloat16": 0.04, "float32": 0.06, "float64": 0.01},
    "gelu_tanh": {"float16": 0.002, "bfloat16": 0.001, "float32": 0.001, "float64": 0.01},
    "erf": {"float16": 0.3, "bfloat16": 0.6, "float32": 0.04, "float64": 0.1},
    "mish": {"float16": 0.001, "bfloat16": 0.001, "float32": 0.03, "float64": 0.06},
    "tanhshrink": {"float32": 0.002, "float64": 0.04},
}

# max(-0.0, 0.0) is +0.0 in the kernels here and -0.0 in torch's CPU kernels; log_sigmoid underflows to either zero, and so does
# gelu, as the CPU has it.
ZERO_SIGNS = {"relu", "relu6", "hardtanh", "clamp", "logsigmoid", "gelu"}


COMMUTING = ["relu", "relu6", "abs", "neg", "clamp(0, 6)", "clamp(-1.5, inf)", "hardtanh", "abs(neg(relu(x)))"]
NOT_COMMUTING = ["sign", "floor", "square", "sigmoid", "x + 1"]


def test_rounding_commutes_where_it_is_said_to() -> None:
    """store(E(v)) and store(E(v.to(T))) write the same bits, at the rounding boundaries of T."""
    pytest.importorskip("triton")
    assert [text for text in COMMUTING if not parse_epilogue(text).commutes_with_rounding] == []
    assert [text for text in NOT_COMMUTING if parse_epilogue(text).commutes_with_rounding] == []
    failures: dict[str, dict[str, int]] = interpreted(str(Path(__file__)))
    assert {text: failures[text] for text in COMMUTING if any(failures[text].values())} == {}
    assert [text for text in NOT_COMMUTING if not any(failures[text].values())] == []


def test_every_commuting_row_is_tested() -> None:
    tested = {word for text in COMMUTING for word in OPS if text.startswith(word)}
    for name, row in OPS.items():
        claims = row.commutes({p.name: 1.0 for p in row.parameters}) and name not in ("clamp_min", "clamp_max")
        assert not claims or name in tested, name


# ------------------------------------------------------------------------------------- what runs in the interpreter


def boundaries(wide: Any, narrow: Any) -> Any:
    """Values of `wide` on both sides of places where rounding to `narrow` changes its result: all near the bounds of
    the ops, a fifth of the others."""
    import torch

    bits = torch.int16 if narrow.itemsize == 2 else torch.int32
    bounds = torch.tensor([0.0, 1.0, 1.5, 6.0, 65504.0, torch.finfo(narrow).tiny, math.inf]).to(narrow)
    near_bounds = (torch.cat([bounds, -bounds]).view(bits)[:, None] + torch.arange(-16, 17, dtype=bits)).flatten()
    if bits is torch.int16:
        spread = torch.arange(-(2**15), 2**15, 5, dtype=torch.int32).to(bits)
    else:
        generator = torch.Generator().manual_seed(5)
        spread = torch.randint(-(2**31), 2**31, (10_000,), generator=generator).to(bits)
    patterns = torch.cat([spread, near_bounds])
    values = patterns.view(narrow).to(wide)
    following = (patterns + 1).view(narrow).to(wide)
    middle = values / 2 + following / 2
    words = {4: torch.int32, 8: torch.int64}[wide.itemsize]
    near = [(middle.view(words) + step).view(wide) for step in (-2, -1, 0, 1, 2)]
    corners = torch.tensor(
        [0.0, -0.0, math.inf, -math.inf, math.nan, 1e-45, -1e-45, 65519.9, 65520.0, 3.39e38], dtype=wide
    )
    return torch.cat([values, *near, corners, -corners])


def commutation_failures(texts: list[str], folder: Path) -> dict[str, dict[str, int]]:
    """For each text and pair of types: how many bits of the op after the rounding and before it differ."""
    import torch

    functions = [parse_epilogue(text) for text in texts]
    rounded = [(function, "v.to(target.dtype.element_ty)") for function in functions]
    kernel = load(kernel_source(*functions, *rounded), folder, "commuting").kernel
    failures: dict[str, dict[str, int]] = {text: {} for text in texts}
    for wide, narrow in (
        (torch.float32, torch.float16),
        (torch.float32, torch.bfloat16),
        (torch.float64, torch.float32),
    ):
        values = boundaries(wide, narrow)
        size = 1 << (values.numel() - 1).bit_length()
        source = torch.zeros(size, dtype=wide)
        source[: values.numel()] = values
        results = torch.empty(2, len(texts), size, dtype=narrow)
        kernel[(1,)](source, results, N=size)
        left, right = results
        words = torch.int16 if narrow.itemsize == 2 else torch.int32
        differ = (left.view(words) != right.view(words)) & ~(torch.isnan(left) & torch.isnan(right))
        for text, count in zip(texts, differ.sum(dim=1).tolist(), strict=True):
            failures[text][f"{wide} to {narrow}"] = count
    return failures


def main() -> None:
    import tempfile

    import torch

    from kernel_rewrite.pointwise.interpreter import stand_ins

    torch.set_num_threads(1)
    with stand_ins(), tempfile.TemporaryDirectory() as folder:
        print(json.dumps(commutation_failures([*COMMUTING, *NOT_COMMUTING], Path(folder))))


if __name__ == "__main__":
    main()
