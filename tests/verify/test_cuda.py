"""The same cases on a GPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from kernel_rewrite.fuse import fuse
from kernel_rewrite.verify import render, verify

from .test_equivalence import RIGHT, WRONG

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def _cuda() -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")


@pytest.mark.parametrize("name", RIGHT)
def test_what_fuse_writes_is_equivalent(name: str, tmp_path: Path) -> None:
    source, epilogues, call = RIGHT[name]
    (tmp_path / "kernels.py").write_text(source)
    (tmp_path / "kernels_fused.py").write_text(fuse(tmp_path / "kernels.py", epilogues).source)
    result = verify(tmp_path / "kernels_fused.py", [call], judge="cuda")
    assert result.ok, render(result)
    assert result.judge == "cuda"


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_file_is_found(name: str, tmp_path: Path) -> None:
    source, epilogues, call, mutation = WRONG[name]
    (tmp_path / "kernels.py").write_text(source)
    header, end, body = fuse(tmp_path / "kernels.py", epilogues).source.partition("# end of header\n")
    assert mutation[0] in body
    (tmp_path / "kernels_fused.py").write_text(header + end + body.replace(*mutation))
    assert not verify(tmp_path / "kernels_fused.py", [call], judge="cuda").ok
