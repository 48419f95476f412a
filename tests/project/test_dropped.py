"""An entry with `drop`: its file is made, called fresh, found stale, and made again from its header alone."""

from __future__ import annotations

import json
from pathlib import Path

from kernel_rewrite.rewrite.header import read_header

from .conftest import run

FIXTURE = Path(__file__).parent.parent.parent / "fixtures" / "rewrites" / "swiglu_without_the_gate" / "before.py"
ENTRY = """\
[[tool.kernel-rewrite.fusion]]
source = "gated.py"
output = "swiglu.py"
epilogues = { up_ptr = "silu(gate_ptr) * x" }
drop = ["gate_ptr"]
"""


def test_an_entry_with_drop(tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.chdir(tmp_path)
    Path("gated.py").write_text(FIXTURE.read_text())
    Path("pyproject.toml").write_text(ENTRY)
    assert run("fuse").exit_code == 0
    text = Path("swiglu.py").read_text()
    header = read_header(text)
    assert header is not None and header.dropped == ("gate_ptr",) and header.texts("--operand") == ()
    assert header.operands == ("gate_ptr=stored",)
    assert run("check").exit_code == 0 and run("check", "--full").exit_code == 0
    assert run("check", "--full", "swiglu.py").exit_code == 0, "what the header says makes the same file"
    Path("gated.py").write_text(FIXTURE.read_text().replace("mask=inside).to(gate", "mask=inside, other=0).to(gate"))
    assert run("check").exit_code == 1
    assert run("check", "--fix").exit_code == 0 and "other=0" in Path("swiglu.py").read_text()
    Path("pyproject.toml").write_text(ENTRY.replace('drop = ["gate_ptr"]', 'operands = { gate_ptr = "stored" }'))
    assert run("check").exit_code == 1, "another request"


def test_drop_alone_on_the_command_line(tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.chdir(tmp_path)
    Path("gated.py").write_text(FIXTURE.read_text())
    told = json.loads(run("fuse", "gated.py", "--drop", "gate_ptr", "--format", "json").stdout)
    assert told["dropped"] == ["gate_ptr"] and told["written"] == "gated_without_gate.py" and not told["epilogues"]
    assert [proof["output"] for proof in told["proofs"]] == ["gate_ptr"]
    assert run("check", "gated_without_gate.py").exit_code == 0
    assert run("fuse", "--drop", "gate_ptr").exit_code == 2
