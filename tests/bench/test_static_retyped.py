"""The compiled kernels side by side where the fused one stores another element type: each has the types that it is for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from kernel_rewrite.analysis import Analysis
from kernel_rewrite.bench import commands
from kernel_rewrite.fuse import fuse

SOURCE = """\
import triton
import triton.language as tl


@triton.jit
def scale_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = offsets < n
    tl.store(out_ptr + offsets, tl.load(x_ptr + offsets, mask=mask) * 2.0, mask=mask)
"""


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """The types of the output in the original and in the fused kernel, of each comparison."""
    seen: list[tuple[str, str]] = []
    compare: Callable[..., commands.StaticReport] = commands.compare

    def noted(original: Analysis, fused: Analysis, *rest: object) -> commands.StaticReport:
        kinds = [str(side.plan.base.type_of("out_ptr")) for side in (original, fused)]
        seen.append((kinds[0], kinds[1]))
        return compare(original, fused, *rest)

    monkeypatch.setattr(commands, "compare", noted)
    return seen


def test_the_fused_kernel_is_compiled_with_the_new_type(tmp_path: Path, compared: list[tuple[str, str]]) -> None:
    (tmp_path / "scale.py").write_text(SOURCE)
    dtypes = ("x_ptr=fp16", "out_ptr=fp16")
    fused = fuse(tmp_path / "scale.py", "x.to(float8_e5m2)", dtypes=dtypes)
    (tmp_path / "fused.py").write_text(fused.source)
    (comparison,) = commands.static_report(str(tmp_path / "fused.py"), None, ["sm_90"], (), ()).comparisons
    assert comparison.original.compiled is not None and comparison.fused.compiled is not None
    assert commands.resource_warnings(fused, "sm_90", (), dtypes) == ()
    assert compared == [("*fp16", "*fp8e5")] * 2
