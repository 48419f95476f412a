"""A Triton function of the user's as an epilogue: what is written, what is refused, and that another program is rejected."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import kernel_rewrite
from kernel_rewrite.analysis import analyse
from kernel_rewrite.diagnostics import FusionRefused
from kernel_rewrite.fuse import plan_output
from kernel_rewrite.model import InternalError
from kernel_rewrite.pointwise.calls import called_name, parse_call
from kernel_rewrite.pointwise.declarations import declared_operands
from kernel_rewrite.rewrite.confirm import References, check_compiled, lower_rewritten, views_to_confirm
from kernel_rewrite.rewrite.edits import apply_edits
from kernel_rewrite.rewrite.epilogue import fusion_edits
from kernel_rewrite.selection import choose_kernel, choose_outputs, requested_ops
from kernel_rewrite.source.files import Project, source_from_text
from kernel_rewrite.source.signatures import parse_overrides
from kernel_rewrite.ttir.lower import compiler

HEAD = """\
import torch
import triton
import triton.language as tl

FACTOR = tl.constexpr(3.0)
"""

KERNEL = """

@triton.jit
def scale_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = offsets < n
    x = tl.load(x_ptr + offsets, mask=mask) + 2.0
    tl.store(out_ptr + offsets, x, mask=mask)
"""

GATE = """

@triton.jit
def inner(x):
    return x * FACTOR


@triton.jit
def gate(x, weight, low=0.5, FLIP: tl.constexpr = False):
    wide = x.to(tl.float32) * 1.5
    if FLIP:
        wide = -wide
    return tl.where(wide > low, inner(wide), tl.zeros(x.shape, tl.float32)) * weight
"""


def fused(source: str, epilogue: str, **options: Any) -> Any:
    return kernel_rewrite.fuse(HEAD + source, epilogue, kernel="scale_kernel", **options)


def function(body: str, parameters: str = "x") -> str:
    return f"\n\n@triton.jit\ndef mine({parameters}):\n    {body}\n"


@pytest.mark.parametrize(
    ("epilogue", "operands", "stored"),
    [
        ("gate(x, 2.0)", {}, "gate(x.to(out_ptr.dtype.element_ty), 2.0)"),
        ("gate(x, weight=w, FLIP=True)", {"w": "tile"}, "gate(x.to(out_ptr.dtype.element_ty), weight=w, FLIP=True)"),
        ("gate(x, s, -1)", {"s": "scalar"}, "gate(x.to(out_ptr.dtype.element_ty), s, -1)"),
        ("gate(weight=2.0, x=x)", {}, "gate(weight=2.0, x=x.to(out_ptr.dtype.element_ty))"),
        ("gate(x, table[offsets % 8])", {}, "gate(x.to(out_ptr.dtype.element_ty), table)"),
        ("inner", {}, "inner(x.to(out_ptr.dtype.element_ty))"),
    ],
)
def test_what_is_written(epilogue: str, operands: dict[str, str], stored: str) -> None:
    result = fused(GATE + KERNEL, epilogue, operands=operands)
    assert f"tl.store(out_ptr + offsets, {stored}, mask=mask)" in result.source
    assert result.epilogues == (("out_ptr", epilogue),)
    assert result.name == called_name(epilogue)


@pytest.mark.parametrize("dtype", ["fp16", "bf16", "fp32", "fp64", "i32", "u8", "fp8e5"])
def test_types_of_the_output(dtype: str) -> None:
    """What the function gives is converted as a store does it, whatever it is."""
    result = fused(GATE + KERNEL, "gate(x, 2.0)", dtypes=[f"out_ptr={dtype}"])
    assert f"({dtype})" in result.statements[0]


def test_a_product_stays_apart_from_a_sum_in_the_function() -> None:
    source = function("return x + 1.0") + KERNEL.replace("+ 2.0", "* 2.0")
    assert "mine(rounded(x.to(out_ptr.dtype.element_ty)))" in fused(source, "mine").source


def test_a_name_of_the_language_is_the_op() -> None:
    source = GATE.replace("gate", "gelu") + KERNEL
    assert fused(source, "gelu").epilogues == (("out_ptr", "gelu"),)
    assert "torch_gelu(" in fused(source, "gelu").source


def test_an_expression_beside_a_call() -> None:
    source = (
        GATE
        + KERNEL.replace("out_ptr, n", "out_ptr, half_ptr, n")
        + "    tl.store(half_ptr + offsets, x / 2, mask=mask)\n"
    )
    result = fused(source, {"out_ptr": "gate(x, 2.0)", "half_ptr": "relu"})
    assert "gate(" in result.diff and "tl.maximum(" in result.diff


def test_a_block_pointer_takes_the_very_type(installed_triton: tuple[int, ...]) -> None:
    if installed_triton >= (3, 9):
        pytest.skip("needs block pointers")
    store = "    block = tl.make_block_ptr(out_ptr, (n,), (1,), (tl.program_id(0) * BLOCK,), (BLOCK,), (0,))\n"
    source = GATE + KERNEL.replace(
        "    tl.store(out_ptr + offsets, x, mask=mask)\n", store + "    tl.store(block, x)\n"
    )
    assert "gate(x.to(block.dtype.element_ty), 2.0).to(" in fused(source, "gate(x, 2.0)").source.replace(
        "out_ptr.dtype", "block.dtype"
    )


def test_the_loops_of_a_function_are_unrolled() -> None:
    fused(function("for i in tl.static_range(3):\n        x = x * 0.5 + i\n    return x") + KERNEL, "mine")


def test_a_branch_on_the_type_is_decided_by_the_output() -> None:
    fused(function("if x.dtype == tl.float32:\n        return x + 1.0\n    return -x") + KERNEL, "mine")


ASSEMBLY = 'return tl.inline_asm_elementwise("{}", "=f,f", [x.to(tl.float32)], dtype=tl.float32, is_pure={}, pack=1)'


def test_pure_assembly_of_single_elements() -> None:
    fused(function(ASSEMBLY.format("tanh.approx.f32 $0, $1;", True)) + KERNEL, "mine")


REFUSED = [
    (
        function("return x + tl.sum(x, 0)"),
        "mine",
        "KR120",
        "not a function of single elements: it makes `tt.reduce`",
        10,
    ),
    (function("return tl.cumsum(x, 0)"), "mine", "KR120", "it makes `tt.scan`", 10),
    (function("return x + tl.program_id(0)"), "mine", "KR120", "it makes `tt.get_program_id`", 10),
    (function("return x + tl.arange(0, 16)[:, None]"), "mine", "KR120", "it makes `tt.make_range`", 10),
    (function("return tl.trans(x)"), "mine", "KR120", "it makes `tt.trans`", 10),
    (function("tl.device_print('x', x)\n    return x"), "mine", "KR120", "it makes `tt.print`", 10),
    (
        function("for i in range(3):\n        x = x * 0.5\n    return x"),
        "mine",
        "KR120",
        "loops or branches at run time (`scf.for`)",
        10,
    ),
    (
        function("return tl.load(p + tl.zeros(x.shape, tl.int32)) + x", "x, p"),
        "mine(x, s)",
        "KR120",
        "Triton rejects",
        10,
    ),
    (function("return x * x.shape[0]"), "mine", "KR120", "asks for the shape of its tile", 10),
    (function("return x if x.type.is_block() else -x"), "mine", "KR120", "asks for the shape", 10),
    (function("return x.to(tl.float32) + x.numel"), "mine", "KR120", "asks for the shape", 10),
    (function(ASSEMBLY.format("shfl.sync.down.b32 $0, $1, 1, 0x1f, -1;", True)), "mine", "KR120", "inline_asm", 10),
    (function(ASSEMBLY.format("tanh.approx.f32 $0, $1;", False)), "mine", "KR120", "inline_asm", 10),
    (function("return x.nothing"), "mine", "KR120", "Triton rejects `mine` for x of fp32", 10),
    (function("tl.static_assert(x.dtype == tl.float16)\n    return x"), "mine", "KR120", "Triton rejects", 10),
    (function("y = x + 1.0"), "mine", "KR120", "Triton rejects", 9),
    (function("return x, x"), "mine", "KR120", "Triton rejects", 9),
    (GATE, "gate(x)", "KR120", "missing a required argument: 'weight'", 14),
    (GATE, "gate(x + 1, 2.0)", "KR108", "neither x, an operand nor a constant", 1),
    (GATE, "gate(x, x)", "KR108", "must pass x, the value that the kernel stores, once", 1),
    (GATE, "gate(2.0)", "KR108", "must pass x", 1),
    (GATE, "gate(x, **{})", "KR108", "is neither x", 1),
    (GATE, "gate(x, relu(x))", "KR108", "is neither x", 1),
    (GATE, "relu(gate(x, 2.0))", "KR107", "unknown op `gate`", 1),
    (GATE, "gat(x, 2.0)", "KR107", "unknown op `gat`", 1),
    ("\n\ndef plain(x):\n    return x\n", "plain", "KR107", "unknown op `plain`", 1),
]


@pytest.mark.parametrize(("source", "epilogue", "code", "message", "line"), REFUSED)
def test_what_is_refused(source: str, epilogue: str, code: str, message: str, line: int) -> None:
    operands = {"s": "scalar"} if "s)" in epilogue and "x, s" in epilogue else {}
    with pytest.raises(FusionRefused) as caught:
        fused(source + KERNEL, epilogue, operands=operands)
    diagnostic = caught.value.diagnostics[0]
    assert (diagnostic.code, message in diagnostic.message) == (code, True), diagnostic.message
    assert diagnostic.labels[0].span.line == line, diagnostic


def test_precision_that_the_output_does_not_hold() -> None:
    with pytest.raises(FusionRefused, match="KR120: `gate` is called with the value as the output holds it"):
        fused(GATE + KERNEL, "gate(x, 2.0)", numerics="fused")


def test_a_name_that_is_something_else_in_the_kernel() -> None:
    with pytest.raises(FusionRefused, match="KR120: `inner` is something else inside of `scale_kernel`"):
        fused(GATE + KERNEL.replace("x = tl.load", "inner = 2.0\n    x = tl.load"), "inner")
    made = "\n\ndef make(inner):\n" + "".join(f"    {line}\n" if line else "\n" for line in KERNEL.strip().split("\n"))
    with pytest.raises(FusionRefused, match="KR120: `inner` is something else inside of `scale_kernel`"):
        fused(GATE + made, "inner")


def test_a_name_that_is_something_else_in_a_helper() -> None:
    put = "\n\n@triton.jit\ndef put(pointer, inner, mask):\n    tl.store(pointer, inner, mask=mask)\n"
    kernel = KERNEL.replace("tl.store(out_ptr + offsets, x, mask=mask)", "put(out_ptr + offsets, x, mask)")
    with pytest.raises(FusionRefused, match="KR120: `inner` is something else inside of `put`"):
        fused(GATE + put + kernel, "inner")
    assert "tl.store(pointer, gate(" in fused(GATE + put + kernel, "gate(x, 2.0)").source


def test_a_function_with_several_definitions() -> None:
    """Either may count where the choice is made at import; of two in a row the second does."""
    slopes = "\n\nif torch.cuda.is_available():\n    SLOPE = tl.constexpr(1.0)\nelse:\n    SLOPE = tl.constexpr(2.0)\n"
    one, other = (function(f"return x * {n}").replace("\n", "\n    ") + "\n" for n in (2.0, 3.0))
    for source in (slopes + function("return x * SLOPE"), f"\n\nif torch.cuda.is_available():\n{one}else:\n{other}"):
        with pytest.raises(FusionRefused, match="KR120: what `mine` is can only be told by running code"):
            fused(source + KERNEL, "mine")
    with pytest.raises(FusionRefused, match="KR107"):
        fused("\n\ntry:\n    from fast import mine\nexcept ImportError:\n    mine = None\n" + KERNEL, "mine")
    fused(function("return x + tl.sum(x, 0)") + function("return x * 2.0") + KERNEL, "mine")
    with pytest.raises(FusionRefused, match=r"it makes `tt\.reduce`"):
        fused(function("return x * 2.0") + function("return x + tl.sum(x, 0)") + KERNEL, "mine")


def test_a_function_that_is_not_inlined() -> None:
    source = function("return x * 2.0").replace("@triton.jit", "@triton.jit(noinline=True)")
    with pytest.raises(FusionRefused, match="KR120"):
        fused(source + KERNEL, "mine")


def test_one_number_is_stored() -> None:
    store = "    tl.store(out_ptr + tl.program_id(0), tl.sum(x, 0))\n"
    source = KERNEL.replace("    tl.store(out_ptr + offsets, x, mask=mask)\n", store)
    assert "inner(rounded(tl.sum(x, 0)" in fused(GATE + source, "inner").source


def test_an_operand_that_is_not_passed() -> None:
    with pytest.raises(FusionRefused, match="KR119"):
        fused(GATE + KERNEL, "gate(x, 2.0)", operands={"bias": "row"})


def test_a_function_of_another_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gates.py").write_text(HEAD + GATE)
    (tmp_path / "scale.py").write_text(HEAD + "from gates import gate as weighted\n" + KERNEL)
    result = kernel_rewrite.fuse("scale.py", "weighted(x, 2.0)")
    assert "weighted(x.to(out_ptr.dtype.element_ty), 2.0)" in result.source
    assert "# reads: gates.py (" in result.source
    (tmp_path / "gates.py").write_text(HEAD + GATE.replace("* weight", "* tl.max(weight, 0)"))
    with pytest.raises(FusionRefused) as caught:
        kernel_rewrite.fuse("scale.py", "weighted(x, w)", operands={"w": "tile"})
    assert caught.value.diagnostics[0].labels[0].span.file == "gates.py"


SPOILED = [
    ("gate(x.to(out_ptr.dtype.element_ty), w)", "x"),
    ("gate(x.to(out_ptr.dtype.element_ty), w)", "gate(x.to(out_ptr.dtype.element_ty), 2.0)"),
    ("gate(x.to(out_ptr.dtype.element_ty), w)", "gate(x.to(out_ptr.dtype.element_ty), w, 0.25)"),
    ("gate(x.to(out_ptr.dtype.element_ty), w)", "gate(x.to(out_ptr.dtype.element_ty), w, FLIP=True)"),
    ("gate(x.to(out_ptr.dtype.element_ty), w)", "gate(w, x.to(out_ptr.dtype.element_ty))"),
    ("gate(x.to(out_ptr.dtype.element_ty), w)", "gate(gate(x.to(out_ptr.dtype.element_ty), w), w)"),
    ("gate(x.to(out_ptr.dtype.element_ty), w)", "inner(x.to(out_ptr.dtype.element_ty)) + w"),
    ("gate(x.to(out_ptr.dtype.element_ty), w)", "gate(x, w)"),
    ("gate(x.to(out_ptr.dtype.element_ty), w)", "gate(x.to(out_ptr.dtype.element_ty), w) + 0.0"),
    ("x * FACTOR", "x + FACTOR"),
    ("tl.constexpr(3.0)", "tl.constexpr(3.5)"),
    ("wide > low", "wide >= low"),
    ("tl.load(w_ptr + offsets, mask=mask)", "tl.load(w_ptr + offsets + 1, mask=mask)"),
]


@pytest.mark.parametrize(("right", "wrong"), [("", ""), *SPOILED])
def test_another_program_is_rejected(right: str, wrong: str) -> None:
    declared = declared_operands({"w": "tile"})
    file = source_from_text(HEAD + GATE + KERNEL, "before.py")
    kernel = choose_kernel(file, project := Project((file,)), "scale_kernel")
    half = lambda function: parse_overrides(function, (), ("out_ptr=fp16", "x_ptr=fp32"))  # noqa: E731
    analysis = analyse(kernel, project, compiler(), half)
    requests = choose_outputs(analysis, requested_ops("gate(x, w)", (), declared)[0], frozenset(), declared.values())
    rewrite = fusion_edits([(plan_output(analysis, r), r.pointwise) for r in requests], analysis, "eager")
    text = apply_edits(file, rewrite.edits)
    assert right in text
    spoiled = text.replace(right, wrong) if right else text
    views = views_to_confirm(analysis, requests)
    lowered = lower_rewritten(source_from_text(spoiled, "before.py"), analysis, views, rewrite, requests)
    if right:
        with pytest.raises((InternalError, FusionRefused)):
            check_compiled(lowered, views, References(analysis, "eager", rewrite), requests)
    else:
        check_compiled(lowered, views, References(analysis, "eager", rewrite), requests)


def test_texts_of_calls() -> None:
    declared = declared_operands({"bias": "row"})
    call = parse_call("gate(x, bias, table[i, j + 1], mode='fast', LOW=-1.5, FLAG=True, none=None)", declared)
    assert call.text({"x": "v", "bias": "b", "table[i, j + 1]": "t"}) == (
        'gate(v, b, t, mode="fast", LOW=-1.5, FLAG=True, none=None)'
    )
    assert [
        called_name(text) for text in ("gate", "gate(x)", "relu", "F.gate(x)", "x", "x + gate", "softmax(x)", "(")
    ] == [
        *("gate", "gate"),
        *(None for _ in range(6)),
    ]
