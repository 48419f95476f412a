"""`# kernel-rewrite: skip` and `ignore[CODE] reason`: what they reach, and that neither lets a wrong kernel through."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kernel_rewrite.diagnostics import CODES, FusionRefused, Severity
from kernel_rewrite.fuse import fuse
from kernel_rewrite.inspection import inspect
from kernel_rewrite.results import Fused
from kernel_rewrite.vouched import VOUCHABLE

HEAD = """\
import torch
import triton
import triton.language as tl

"""
KERNEL = """
{above}
@triton.jit{beside}
def {name}(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out_ptr + i, tl.load(x_ptr + i, mask=i < n) + 1, mask=i < n)

"""
LAUNCH = """
def {function}(x):
    out = {out}
    {above}
    {name}[(triton.cdiv(x.numel(), 128),)](x, {buffer}, x.numel(), BLOCK=128){beside}
    return out

"""


def kernel(name: str = "k", above: str = "", beside: str = "") -> str:
    return KERNEL.format(name=name, above=above, beside=beside)


def launch(
    name: str = "k",
    out: str = "torch.ones_like(x)",
    buffer: str = "out",
    above: str = "pass",
    beside: str = "",
    function: str = "launch",
) -> str:
    return LAUNCH.format(name=name, out=out, buffer=buffer, above=above, beside=beside, function=function)


def codes(text: str, op: str = "sigmoid", **options: str) -> list[str]:
    try:
        fuse(text, op, **options)  # type: ignore[arg-type]
    except FusionRefused as refused:
        return [d.code for d in refused.diagnostics]
    return []


def fused(text: str, op: str = "sigmoid") -> Fused:
    return fuse(text, op)


# ----------------------------------------------------------------------------------------------------------------- skip


SKIP = "# kernel-rewrite: skip"


@pytest.mark.parametrize(
    "text",
    [
        HEAD + kernel(above=SKIP),
        HEAD + kernel(beside=f"  {SKIP}"),
        HEAD + kernel(above=f"{SKIP} because it is tuned by hand"),
        f"{SKIP}\n" + HEAD + kernel(),
        f'# a file\n{SKIP}\n"""Docs."""\n' + HEAD + kernel(),
    ],
)
def test_a_skipped_kernel_is_left_alone(text: str) -> None:
    assert codes(text) == ["KR606"] and codes(text, kernel="k") == ["KR606"]
    assert codes(text.replace(SKIP, "# skip")) == []


def test_the_others_of_the_file_remain() -> None:
    text = HEAD + kernel("first", above=SKIP) + kernel("second")
    assert fused(text).kernel == "second"
    assert codes(text, kernel="first") == ["KR606"]
    assert codes(text.replace(SKIP, "")) == ["KR103"]


@pytest.mark.parametrize("place", ["before the store", "in a string", "after the kernel"])
def test_a_comment_elsewhere_skips_nothing(place: str) -> None:
    text = HEAD + kernel()
    text = {
        "before the store": text.replace("    tl.store", f"    {SKIP}\n    tl.store"),
        "in a string": text.replace("import torch", f'import torch\nX = "{SKIP}"'),
        "after the kernel": text + f"\n{SKIP}\n\n\nx = 1\n",
    }[place]
    assert codes(text) == []


# --------------------------------------------------------------------------------------------------------------- ignore


def ignore(code: str, reason: str = "I know") -> str:
    return f"# kernel-rewrite: ignore[{code}] {reason}"


def test_what_is_ignored_becomes_an_assumption_of_the_file() -> None:
    assert codes(HEAD + kernel() + launch()) == ["KR209"]
    for text in (
        launch(above=ignore("KR209")),
        launch(beside=f"  {ignore('KR209')}"),
        launch(above=ignore("kr208, KR209")),
    ):
        result = fused(HEAD + kernel() + text)
        assert {a.name for a in result.assumptions} == {"no-alias", "fully-written"}
        assert "# assumed (fully-written): " in result.source and result.warnings == ()
        assert "--assume" not in result.source.split("# end of header")[0], "the source says it"


def test_an_alias() -> None:
    aliased = launch(buffer="x", out="torch.empty_like(x)")
    assert codes(HEAD + kernel() + aliased) == ["KR208"]
    result = fused(HEAD + kernel() + aliased.replace("pass", ignore("KR208")))
    assert "no-alias" in {a.name for a in result.assumptions}


def test_one_place_only() -> None:
    """An ignore speaks for its own launch, not for another one with the same fault."""
    both = launch(above=ignore("KR209")) + launch(function="other")
    assert codes(HEAD + kernel() + both) == ["KR209"]
    both = launch(above=ignore("KR208"), buffer="x") + launch(function="other", buffer="x")
    assert codes(HEAD + kernel() + both, op="relu") == ["KR208"]


def test_another_code_ignores_nothing() -> None:
    assert codes(HEAD + kernel() + launch(above=ignore("KR208"))) == ["KR209"]


@pytest.mark.parametrize("code", [code for code in CODES if code not in VOUCHABLE])
def test_what_cannot_be_ignored(code: str) -> None:
    """Whether the code would be reported or not: the comment itself is refused, and says why."""
    with pytest.raises(FusionRefused) as refused:
        fuse(HEAD + kernel() + launch(out="torch.empty_like(x)", above=ignore(code)), "relu")
    (diagnostic,) = refused.value.diagnostics
    assert diagnostic.code == "KR607" and f"{code} cannot be ignored" in diagnostic.message
    assert diagnostic.labels[0].text == CODES[code] and "KR208" in diagnostic.help


def test_a_read_of_the_output_stays_refused() -> None:
    text = HEAD + kernel().replace("tl.load(x_ptr", "tl.load(out_ptr").replace(
        "mask=i < n)\n", f"mask=i < n)  {ignore('KR201')}\n"
    )
    assert codes(text, op="relu") == ["KR607"]
    assert codes(re.sub(" # kernel-rewrite.*", "", text), op="relu") == ["KR201"]


@pytest.mark.parametrize(
    ("comment", "words"),
    [
        ("# kernel-rewrite: ignore", "a code is missing"),
        ("# kernel-rewrite: ignore[KR209]", "the reason is missing"),
        ("# kernel-rewrite: ignore[] x", "no diagnostic ``"),
        ("# kernel-rewrite: ignore[KR999] x", "no diagnostic `KR999`"),
        ("# kernel-rewrite: skpi", "did you mean `skip`?"),
        ("# kernel-rewrite: ", "neither `skip` nor"),
        ("#kernel-rewrite:off", "`off` is neither"),
    ],
)
def test_what_cannot_be_understood(comment: str, words: str) -> None:
    with pytest.raises(FusionRefused) as refused:
        fuse(HEAD + kernel() + launch(above=comment), "relu")
    assert refused.value.diagnostics[0].code == "KR607" and words in refused.value.diagnostics[0].message


def test_an_unused_ignore_is_reported() -> None:
    text = HEAD + kernel() + launch(out="torch.empty_like(x)", above=ignore("KR209"))
    (warning,) = fused(text).warnings
    assert warning.code == "KR608" and warning.severity is Severity.WARNING
    assert text.splitlines()[warning.labels[0].span.line - 1].strip() == ignore("KR209")
    assert fused(HEAD + kernel() + ignore("KR209") + "\nx = 1\n").warnings[0].code == "KR608"


def test_what_another_kernel_uses_is_not_unused() -> None:
    text = HEAD + kernel("k") + kernel("other") + launch("other", above=ignore("KR209"))
    assert fuse(text, "sigmoid", kernel="k").warnings == ()
    assert fuse(text, "relu", kernel="other").warnings[0].code == "KR608"
    assert fuse(text, "sigmoid", kernel="other").warnings == ()


def test_other_comments_are_none_of_ours(tmp_path: Path) -> None:
    text = HEAD + "# kernel-rewrites: x\n# about kernel-rewrite: nothing\n" + kernel()
    assert fused(text).warnings == () and inspect(text).kernels


def test_inspect_agrees() -> None:
    aliased = HEAD + kernel() + launch(buffer="x", out="torch.empty_like(x)")
    for text, eligible in ((aliased, False), (aliased.replace("pass", ignore("KR208")), True)):
        (report,) = inspect(text).kernels
        assert report.outputs[0].write_only is eligible
