"""The pages of what concerns parameters and launchers show what is really said about their examples.

`pytest tests/rewrite/test_pages.py --accept` writes it into the pages.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from launched import BIAS

import kernel_rewrite
from kernel_rewrite.diagnostics import render
from kernel_rewrite.rewrite.allocations import ChangedBuffer
from kernel_rewrite.rewrite.launcher import launcher_edits
from kernel_rewrite.rewrite.parameters import LaunchedKernel, parameter_edits
from kernel_rewrite.source.closure import close, kernels
from kernel_rewrite.source.files import Project, source_from_text
from kernel_rewrite.source.launches import launches
from kernel_rewrite.source.symbolic import ProjectNames

PAGES = Path(kernel_rewrite.__file__).parent / "explanations"
SHOWN = re.compile(r"```text\n(.*?)```", re.DOTALL)


@pytest.mark.parametrize("code", [f"KR31{n}" for n in range(9)])
def test_example(code: str, accept: bool) -> None:
    page = PAGES / f"{code}.md"
    text = page.read_text(encoding="utf-8")
    block = re.search(r"```python\n(# (\S+\.py)\n.*?)```", text, re.DOTALL)
    shown = SHOWN.search(text)
    assert block is not None and shown is not None
    file = source_from_text(block[1], block[2])
    project = Project((file,))
    definition = next(k for k in kernels(file, project) if k.name == "copy_kernel")
    found = launches(definition.node, file.tree, file.path, ProjectNames(file, project))
    kernel = LaunchedKernel.of(definition, close(definition, project), found, project)
    buffers = [ChangedBuffer("out_ptr", "float16")] if code == "KR317" else []
    diagnostics = parameter_edits(kernel, [BIAS]).diagnostics + launcher_edits(kernel, [BIAS], buffers).diagnostics
    said = "".join(f"{render(diagnostic, {file.path: file.text})}\n" for diagnostic in diagnostics)
    if accept:
        page.write_text(text[: shown.start(1)] + said + text[shown.end(1) :], encoding="utf-8")
        return
    assert f"[{code}]" in said
    assert said == shown[1]
