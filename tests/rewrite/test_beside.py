"""Epilogues that take what the kernel stores to another output: what is written is accepted, every other kernel is rejected,
and stores that do not pair are refused."""

from __future__ import annotations

import pytest
from test_kept import HEAD, Case, judged, planned

from kernel_rewrite import FusionRefused, fuse
from kernel_rewrite.model import InternalError

PAIR = """
@triton.jit
def kernel(a_ptr, b_ptr, out_ptr, n, BLOCK: tl.constexpr):
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = offsets < n
    up = tl.load(a_ptr + offsets, mask=mask).to(tl.float32)
    gate = up * 0.5
    tl.store(b_ptr + offsets, gate, mask=mask)
    tl.store(out_ptr + offsets, up, mask=mask)
"""
STORES = PAIR[PAIR.index("    tl.store(b_ptr") :]
PAIRS = (
    PAIR.replace(
        STORES,
        "    for i in range(n):\n"
        + STORES.replace("    tl", "        tl").replace("+ offsets", "+ i * BLOCK + offsets"),
    )
    + STORES
)
CAST = PAIR.replace("b_ptr + offsets, gate", "b_ptr + offsets, gate.to(b_ptr.dtype.element_ty)")
BLOCKS = """
@triton.jit
def kernel(a_ptr, b_ptr, out_ptr, n, BLOCK: tl.constexpr):
    acc = tl.load(a_ptr + tl.arange(0, BLOCK)[:, None] + tl.arange(0, BLOCK)[None, :])
    first = tl.make_tensor_descriptor(b_ptr, (n, n), (n, 1), (BLOCK, BLOCK))
    second = tl.make_tensor_descriptor(out_ptr, (n, n), (n, 1), (BLOCK, BLOCK))
    first.store((0, BLOCK), acc)
    second.store((0, BLOCK), acc * 2)
"""
SWIGLU, STORED = {"out_ptr": "silu(b_ptr) * x"}, {"b_ptr": "stored"}
BARE = {"out_ptr": "maximum(b_ptr, x)"}
CASES = {
    "pair": Case(PAIR, SWIGLU, {}, STORED),
    "bare": Case(PAIR, BARE, {}, STORED),
    "cast": Case(CAST, SWIGLU, {}, STORED),
    "pairs": Case(PAIRS, BARE, {}, STORED),
    "blocks": Case(BLOCKS, BARE, {}, STORED),
    "kept": Case(PAIR, SWIGLU, {"out_ptr": "up_ptr"}, STORED),
    "fused": Case(PAIR, SWIGLU, {}, STORED, "fused"),
    "and a tile": Case(PAIR, {"out_ptr": "b_ptr * x + residual"}, {}, {**STORED, "residual": "tile"}),
}

# (case, what the rewriter writes, what stands there instead)
SPOILED = [
    ("pair", "gate.to(b_ptr.dtype.element_ty)", "gate"),
    ("pair", "gate.to(b_ptr.dtype.element_ty)", "gate.to(tl.bfloat16).to(tl.float16)"),
    ("pair", "gate.to(b_ptr.dtype.element_ty)", "up.to(b_ptr.dtype.element_ty)"),
    ("pair", "gate.to(b_ptr.dtype.element_ty)", "(gate * 2).to(b_ptr.dtype.element_ty)"),
    ("pair", "gate.to(b_ptr.dtype.element_ty)", "tl.load(b_ptr + offsets, mask=mask)"),
    ("pair", "silu(b)", "b"),
    ("pair", "silu(b) * ", ""),
    ("pair", "silu(b) * up.to(out_ptr.dtype.element_ty)", "silu(up.to(out_ptr.dtype.element_ty)) * b"),
    ("pair", "silu(b) * up.to(out_ptr.dtype.element_ty)", "silu(b) * b"),
    ("pair", "up.to(out_ptr.dtype.element_ty)", "up"),
    ("fused", "silu(b) * ", "silu(gate.to(tl.float32)) * "),
    ("fused", "silu(b) * ", "silu(up.to(b_ptr.dtype.element_ty)) * "),
    ("pair", "tl.store(b_ptr + offsets, gate,", "tl.store(b_ptr + offsets, up,"),
    ("pair", "    tl.store(b_ptr + offsets, gate, mask=mask)\n", ""),
    ("pair", "tl.store(b_ptr + offsets, gate, mask=mask)", "tl.store(b_ptr + offsets + 1, gate, mask=mask)"),
    ("pair", "tl.store(b_ptr + offsets, gate, mask=mask)", "tl.store(b_ptr + offsets, gate)"),
    ("pair", "tl.store(b_ptr", "tl.store(a_ptr"),
    ("pair", "tl.store(out_ptr + offsets", "tl.store(b_ptr + offsets"),
    ("bare", "tl.maximum(", "tl.minimum("),
    ("cast", "b = gate.to(b_ptr.dtype.element_ty)", "b = gate.to(b_ptr.dtype.element_ty) + 1"),
    ("pairs", "b = gate.to(b_ptr.dtype.element_ty)", "b = up.to(b_ptr.dtype.element_ty)"),
    ("pairs", "b_2 = gate.to(b_ptr.dtype.element_ty)", "b_2 = up.to(b_ptr.dtype.element_ty)"),
    ("blocks", "b = acc.to(first.dtype)", "b = (acc * 2).to(first.dtype)"),
    ("kept", "tl.store(up_ptr + offsets, up", "tl.store(up_ptr + offsets, gate"),
    ("kept", "tl.store(b_ptr + offsets, gate", "tl.store(up_ptr + offsets, gate"),
    ("and a tile", "residual = tl.load(residual_ptr", "residual = tl.load(b_ptr"),
]  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_what_is_written_is_accepted(name: str) -> None:
    judged(CASES[name], lambda text: text)


@pytest.mark.parametrize(("name", "right", "wrong"), SPOILED)
def test_another_kernel_is_rejected(name: str, right: str, wrong: str) -> None:
    def spoil(text: str) -> str:
        assert right in text, text
        return text.replace(right, wrong, 1)

    with pytest.raises((FusionRefused, InternalError)) as raised:
        judged(CASES[name], spoil)
    assert "Triton rejects" not in str(raised.value), raised.value


def test_the_value_has_its_name_where_it_has_the_type() -> None:
    *_, text = planned(CASES["pair"])
    assert "    b = gate.to(b_ptr.dtype.element_ty)\n" in text
    same = PAIR.replace("up * 0.5\n", "(up * 0.5).to(b_ptr.dtype.element_ty)\n")
    *_, text = planned(Case(same, SWIGLU, {}, STORED))
    assert "silu(gate) * up" in text


# (what the kernel stores, what is said)
UNPAIRED = {
    "another place": (STORES.replace("b_ptr + offsets", "b_ptr + offsets + 1"), "another place"),
    "another mask": (STORES.replace("gate, mask=mask", "gate, mask=offsets < n - 1"), "another mask"),
    "another way": (STORES.replace("gate, mask=mask", 'gate, mask=mask, cache_modifier=".cg"'), "another kind"),
    "behind it": ("".join(reversed(STORES.splitlines(keepends=True))), "no store just before"),
    "in another block": (STORES.replace("    tl.store(b_ptr", "    if n > 3:\n        tl.store(b_ptr"), "no store just before"),
    "once more": (STORES + STORES.splitlines(keepends=True)[0], "no store to the output takes"),
    "twice before": (STORES.splitlines(keepends=True)[0] + STORES, "no store to the output takes"),
    "once for two": (STORES + STORES.splitlines(keepends=True)[1], "no store just before"),
    "elsewhere, too": (STORES + "    if n > 3:\n        tl.store(b_ptr + offsets, up, mask=mask)\n", "no store to the output takes"),
    "bound anew": (STORES.replace("    tl.store(out", "    gate = up\n    tl.store(out"), "`gate` has another value here"),
    "computed in the call": (STORES.replace("gate,", "tl.exp(gate),"), "give it a name before"),
}  # fmt: skip


@pytest.mark.parametrize("name", UNPAIRED)
def test_stores_that_do_not_pair(name: str) -> None:
    stores, why = UNPAIRED[name]
    with pytest.raises(FusionRefused) as raised:
        fuse(HEAD + PAIR.replace(STORES, stores), SWIGLU, operands=STORED, dtypes=CASES["pair"].dtypes)
    (found,) = raised.value.diagnostics
    assert found.code == "KR307" and why in found.labels[0].text, found


@pytest.mark.parametrize(
    ("text", "epilogues", "options", "why"),
    [
        (PAIR, {"out_ptr": "x * n"}, {"operands": {"n": "stored"}}, "KR210"),
        (PAIR, {"out_ptr": "x * other"}, {"operands": {"other": "stored"}}, "no other output"),
        (PAIR, {"out_ptr": "x * out_ptr"}, {"operands": {"out_ptr": "stored"}}, "no other output"),
        (PAIR, {"out_ptr": "x * a_ptr"}, {"operands": {"a_ptr": "stored"}}, "KR210"),
        (PAIR, {**SWIGLU, "b_ptr": "relu"}, {"operands": STORED}, "an epilogue of its own"),
        (PAIR, SWIGLU, {"operands": STORED, "dtypes": ["out_ptr=fp16", "b_ptr=fp32"]}, "it holds fp32"),
        (PAIR, {"out_ptr": "(x * b_ptr).to(int8)"}, {"operands": STORED, "dtypes": ["out_ptr=fp16", "b_ptr=fp16"]}, "another element type"),
        (PAIR.replace("    mask", "    old = tl.load(b_ptr + offsets)\n    mask"), SWIGLU, {"operands": STORED}, "KR201"),
        (PAIR, {"out_ptr": "relu"}, {"operands": STORED, "prologues": "a_ptr=x * b_ptr"}, "before anything is stored"),
    ],
)  # fmt: skip
def test_what_is_no_such_output(text: str, epilogues: dict[str, str], options: dict[str, object], why: str) -> None:
    with pytest.raises(FusionRefused, match="KR307") as raised:
        fuse(HEAD + text, epilogues, **options)  # type: ignore[arg-type]
    assert why in raised.value.diagnostics[0].message, raised.value


def test_a_stored_value_has_no_type_and_no_strides() -> None:
    for kind in ("stored:fp16", "stored:strided"):
        with pytest.raises(FusionRefused, match="KR121"):
            fuse(HEAD + PAIR, SWIGLU, operands={"b_ptr": kind})
