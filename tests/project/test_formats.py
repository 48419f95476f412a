"""The formats for machines: JSON against its schema, SARIF against published models of it, annotations, one line a finding."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

import kernel_rewrite
from kernel_rewrite.rewrite.header import without_header

from .conftest import run

SCHEMA = json.loads((Path(kernel_rewrite.__file__).parent / "schemas" / "output-1.json").read_text())
BAD = """\
import triton
import triton.language as tl


@triton.jit
def bad_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    "äöü"; before = tl.load(out_ptr + tl.arange(0, BLOCK))
    tl.store(out_ptr + tl.arange(0, BLOCK), before)
"""


@pytest.fixture
def folder(repository: Path) -> Path:
    (repository / "bad.py").write_text(BAD)
    return repository


def document(*arguments: str, code: int = 0) -> Any:
    result = run(*arguments, "--format", "json")
    assert result.exit_code == code, result.output
    told = json.loads(result.stdout)
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.Draft202012Validator(SCHEMA).validate(told)
    assert told["ok"] is (code == 0)
    return told


def test_every_document_follows_the_schema(folder: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert document("fuse", "demo/double.py", "--epilogue", "gelu")["written"] == "demo/double_gelu.py"
    prologue = document("fuse", "demo/double.py", "--prologue", "x_ptr=relu")
    assert prologue["prologues"] == {"x_ptr": "relu"} and not prologue["epilogues"]
    assert [proof["input"] for proof in prologue["input_proofs"]] == ["x_ptr"] and not prologue["proofs"]
    assert document("fuse", "bad.py", "--epilogue", "relu", code=1)["diagnostics"][0]["code"] == "KR201"
    assert document("fuse", "absent.py", "--epilogue", "relu", code=1)["diagnostics"][0]["labels"] == []
    assert document("inspect", "demo/double.py")["kernels"][0]["outputs"][0]["write_only"] is True
    assert document("inspect", "demo/double.py")["kernels"][0]["prologue_inputs"][0]["read_only"] is True
    assert document("inspect", "bad.py")["kernels"][0]["outputs"][0]["reasons"]
    assert [e["state"] for e in document("check", code=1)["entries"]] == ["stale", "stale"]
    assert [e["written"] for e in document("fuse")["entries"]] == [True, True]
    assert [e["state"] for e in document("check")["entries"]] == ["fresh", "fresh"]
    (folder / "pyproject.toml").write_text("[tool.kernel-rewrite]\nnumber = 1\n")
    assert document("check", code=2)["diagnostics"][0]["code"] == "KR603"


def test_the_schema_refuses(folder: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    good = json.loads(run("fuse", "demo/double.py", "--epilogue", "gelu", "--format", "json").stdout)
    for key in ("version", "edits", "proofs", "input_proofs"):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.Draft202012Validator(SCHEMA).validate({k: v for k, v in good.items() if k != key})
    good["edits"][0]["start"] = -1
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(SCHEMA).validate(good)


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_an_editor_can_apply_the_edits(folder: Path, newline: str) -> None:
    text = ("# ä 𝄞\n" + (folder / "demo/double.py").read_text()).replace("\n", newline)
    (folder / "demo/double.py").write_bytes(text.encode())
    told = document("fuse", "demo/double.py", "--epilogue", "gelu")
    for edit in reversed(told["edits"]):
        text = text[: edit["start"]] + edit["replacement"] + text[edit["end"] :]
    assert text == without_header((folder / "demo/double_gelu.py").read_bytes().decode())


def test_sarif(folder: Path) -> None:
    models = pytest.importorskip("sarif_pydantic")

    def log(*arguments: str, code: int) -> Any:
        result = run(*arguments, "--format", "sarif")
        assert result.exit_code == code, result.output
        parsed = models.Sarif.model_validate_json(result.stdout)
        assert parsed.version == "2.1.0" and parsed.runs[0].tool.driver.name == "kernel-rewrite"
        return parsed.runs[0]

    refused = log("fuse", "bad.py", "--epilogue", "relu", code=1)
    (result,) = refused.results
    assert result.rule_id == "KR201" and str(result.level.value) == "error"
    assert [rule.id for rule in refused.tool.driver.rules] == ["KR201"]
    place = result.locations[0].physical_location
    assert place.artifact_location.uri == "bad.py"
    line = BAD.splitlines()[place.region.start_line - 1]
    assert line[place.region.start_column - 1 : place.region.end_column - 1] == "tl.load(out_ptr + tl.arange(0, BLOCK))"
    assert log("fuse", "demo/double.py", "--epilogue", "relu", code=0).results == []
    assert [r.rule_id for r in log("check", code=1).results] == ["KR604", "KR604"]
    assert [r.rule_id for r in log("inspect", "bad.py", code=0).results] == ["KR201"]
    assert [r.rule_id for r in log("fuse", "absent.py", "--epilogue", "relu", code=1).results] == ["KR113"]
    with pytest.raises(ValueError):
        models.Sarif.model_validate_json('{"version": "2.1.0", "runs": [{"results": [{}]}]}')


def lines(result: Result, code: int) -> list[str]:
    assert result.exit_code == code, result.output
    assert result.stderr == ""
    return result.stdout.splitlines()


def test_concise(folder: Path) -> None:
    (line,) = lines(run("fuse", "bad.py", "--epilogue", "relu", "--format", "concise"), 1)
    assert re.match(r"bad\.py:7:\d+: error\[KR201\] `out_ptr` is read", line)
    assert lines(run("check", "--format", "concise"), 1)[0].startswith("demo/fused/double_relu.py: error[KR604] ")
    assert lines(run("fuse", "demo/double.py", "--epilogue", "relu", "--format", "concise"), 0) == []
    found = lines(run("inspect", "bad.py", "--format", "concise"), 0)
    assert found[0].startswith("bad.py:6:1: bad_kernel: `out_ptr` (fp32) cannot take") and "KR201" in found[1]


def test_annotations_for_github(folder: Path) -> None:
    (line,) = lines(run("fuse", "bad.py", "--epilogue", "relu", "--format", "github"), 1)
    found = re.fullmatch(
        r"::error file=bad\.py,title=kernel-rewrite KR201,line=7,col=\d+,endLine=7,endColumn=\d+::(.*)", line
    )
    assert found and "%0Ahelp: " in found[1] and "`out_ptr`" in found[1]
    assert lines(run("check", "--format", "github"), 1)[0].startswith("::error file=demo/fused/double_relu.py,title=")


def test_colour(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    plain = run("fuse", "bad.py", "--epilogue", "relu")
    assert "\033[" not in plain.stderr, "no terminal, no colour"
    colored = run("fuse", "bad.py", "--epilogue", "relu", "--color", "always")
    assert "\033[1;31merror[KR201]\033[0m" in colored.stderr
    assert re.sub(r"\033\[[\d;]*m", "", colored.stderr) == plain.stderr
    assert "\033[" not in run("fuse", "bad.py", "--epilogue", "relu", "--color", "never").stderr


def test_no_color_counts_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from kernel_rewrite.cli.reporting import Reporter

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert Reporter().colored
    monkeypatch.setenv("NO_COLOR", "1")
    assert not Reporter().colored and Reporter(color="always").colored


def test_quiet_and_verbose(folder: Path) -> None:
    arguments = ("fuse", "demo/double.py", "--epilogue", "relu")
    assert run(*arguments, "-q").stderr == ""
    assert "KR201" in run("fuse", "bad.py", "--epilogue", "relu", "-q").stderr
    usual, verbose = run(*arguments).stderr, run(*arguments, "-v").stderr
    assert "specialization" not in usual.replace("in 1 specialization", "") and "\nspecialization: " in verbose


def test_stdin(folder: Path) -> None:
    text = (folder / "demo/double.py").read_bytes()
    (folder / "demo/double.py").write_text("what is on disk does not count\n")
    piped = run("fuse", "-", "--stdin-filename", "demo/double.py", "--epilogue", "relu", stdin=text)
    assert piped.exit_code == 0 and "put_relu(out_ptr + i, tl.load" in piped.stdout, piped.output
    assert "from double.py::double_kernel" in piped.stdout and "# reads: helpers.py" in piped.stdout
    shown = run("inspect", "-", "--stdin-filename", "demo/double.py", stdin=text)
    assert shown.exit_code == 0 and "write-only" in shown.stdout
    refused = run("fuse", "-", "--epilogue", "relu", stdin=BAD.encode())
    assert refused.exit_code == 1 and "stdin.py:7:" in refused.stderr
    assert run("fuse", "-", "--epilogue", "relu", stdin=b"\xff").exit_code == 1


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str) -> None:
    result = run("completion", shell)
    assert result.exit_code == 0 and "_KERNEL_REWRITE_COMPLETE" in result.stdout


def test_what_a_shell_is_offered(folder: Path) -> None:
    import click

    from kernel_rewrite.cli import cli
    from kernel_rewrite.cli.completing import complete_code, complete_kernel, complete_op

    command = cli.commands["fuse"]
    context = click.Context(command)
    context.params["source"] = "demo/double.py"
    parameter = command.params[0]
    assert complete_kernel(context, parameter, "dou") == ["double_kernel"]
    assert "out_ptr=relu" in complete_op(context, parameter, "out_ptr=re")
    assert complete_code(context, parameter, "kr20")[0].value == "KR201"


def test_every_help_has_an_example() -> None:
    from kernel_rewrite.cli import cli

    for name in cli.commands:
        text = run(name, "--help").stdout
        assert "Example" in text and f"kernel-rewrite {name}" in text, name
