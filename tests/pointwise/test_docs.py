"""`docs/epilogues.md` says what the table says; `--accept` writes it."""

from __future__ import annotations

from pathlib import Path

import pytest

from kernel_rewrite.model import Operand, OperandKind
from kernel_rewrite.pointwise.casts import CASTS
from kernel_rewrite.pointwise.language import emit, parse_epilogue, signature
from kernel_rewrite.pointwise.op import Numbers, Op
from kernel_rewrite.pointwise.ops import OPS
from kernel_rewrite.pointwise.refused import _FAMILIES

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "epilogues.md"
FIRST, LAST = "<!-- generated: {} -->\n", "<!-- end of {} -->\n"

EXAMPLES = {
    "bias and gelu": ("gelu(x + bias)", {"bias": OperandKind.ROW}),
    "residual": ("relu(x) + residual", {"residual": OperandKind.TILE}),
    "fp8 with a static scale": ("clamp(x.float() / scale, -448, 448).to(float8_e4m3fn)", {"scale": OperandKind.SCALAR}),
    "gate": ("silu(x) * gate", {"gate": OperandKind.TILE}),
    "scale, bias, residual": (
        "x * scale + bias + residual",
        {"scale": OperandKind.COLUMN, "bias": OperandKind.ROW, "residual": OperandKind.TILE},
    ),
}


def line(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def rounding(row: Op) -> str:
    if row.exact:
        return "exact"
    if row.stepwise:
        return "after every step"
    if row.numbers is Numbers.WIDE:
        return "once; a number is used in float32"
    return "once; a number is rounded to the type first" if row.numbers is Numbers.ROUNDED else "once"


def spelling(row: Op) -> str:
    if row.inline and row.name != "to":
        names = {name: name for name in row.operands}
        return f"`{row.inline.format(tl='tl', libdevice='libdevice', **names)}`"
    return "see the casts" if row.name == "to" else f"a helper `{row.helper_name}`"


def ops() -> str:
    head = [line("op", "torch", "value", "Triton", "NaN", "rounding"), "|---" * 6 + "|"]
    rows = [
        line(
            f"`{signature(r)}`" + (f", `{r.infix}`" if r.infix else ""),
            f"`{r.torch or 'x.to'}`",
            r.formula,
            spelling(r),
            r.nan,
            rounding(r),
        )
        for r in OPS.values()
    ]
    return "\n".join([*head, *rows, ""])


def casts() -> str:
    head = [line("cast", "value", "Triton", "where devices or versions differ"), "|---" * 4 + "|"]
    rows = []
    for cast in CASTS.values():
        text = f"`{cast.inline.format(x='x', tl='tl')}`" if cast.inline else f"a helper `to_{cast.dtype}`"
        rows.append(line(f"`x.to({cast.dtype})`", cast.formula, text, cast.differs))
    return "\n".join([*head, *rows, ""])


def refused() -> str:
    head = [line("what", "why not", "the way out"), "|---" * 3 + "|"]
    rows = [line(", ".join(f"`{n}`" for n in names.split()), f"it {r.reason}", r.way_out) for r, names in _FAMILIES]
    return "\n".join([*head, *rows, ""])


def examples() -> str:
    parts = []
    for title, (text, kinds) in EXAMPLES.items():
        pointwise = parse_epilogue(text, {n: Operand(n, kind) for n, kind in kinds.items()})
        loads = {n: f"{n}_tile" if kind is not OperandKind.SCALAR else n for n, kind in kinds.items()}
        emission = emit(pointwise, "c", loads)
        declared = "".join(f" --operand {n}={kind.value}" for n, kind in kinds.items())
        parts.append(
            f'### {title}\n\n`--epilogue "{text}"{declared}`, file name `..._{pointwise.name}.py`. In torch:\n'
        )
        parts.append(f"```python\n{pointwise.torch_text()}\n```\n\nThe store, and the helpers above the kernel:\n")
        helpers = "".join(f"{helper.text}\n\n" for helper in emission.helpers)
        parts.append(f"```python\n{helpers}tl.store(c_ptr + offsets, {emission.expression}, mask=mask)\n```\n")
    return "\n".join(parts)


@pytest.mark.parametrize("part", [ops, casts, refused, examples], ids=lambda part: part.__name__)
def test_the_document_is_the_table(part: object, accept: bool) -> None:
    name = part.__name__  # type: ignore[attr-defined]
    wanted = part()  # type: ignore[operator]
    first, last = FIRST.format(name), LAST.format(name)
    text = DOCUMENT.read_text(encoding="utf-8")
    before, _, rest = text.partition(first)
    shown, found, after = rest.partition(last)
    assert found, f"no part `{name}`"
    if accept:
        DOCUMENT.write_text(before + first + wanted + last + after, encoding="utf-8")
        return
    assert shown == wanted
