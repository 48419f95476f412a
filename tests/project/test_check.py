"""`check`: fresh files are called fresh, stale ones stale, whatever it is that has changed; and `--fix` mends them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from kernel_rewrite.project.state import Finding
from kernel_rewrite.rewrite.header import read_header, with_header

from .conftest import run, write_repository

Edit = Callable[[str, str, str], None]
DOUBLE, TRIPLE = "demo/fused/double_relu.py", "demo/fused/triple_gelu.py"
ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def built_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built")
    write_repository(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        result = run("fuse")
    assert result.exit_code == 0, result.output
    return folder


@pytest.fixture
def built(repository: Path, built_once: Path) -> Path:
    for name in (DOUBLE, TRIPLE):
        shutil.copy(built_once / name, repository / name)
    return repository


def states(*arguments: str) -> dict[str, str]:
    told = json.loads(run("check", "--format", "json", *arguments).stdout)
    return {entry["output"]: entry["state"] for entry in told["entries"]}


def test_fuse_builds_every_entry(repository: Path) -> None:
    result = run("fuse")
    assert result.exit_code == 0 and result.stdout == ""
    assert result.stderr == f"wrote {DOUBLE}\nwrote {TRIPLE}\n2 written\n"
    assert "tl.maximum" in (repository / DOUBLE).read_text() and "gelu_tanh" in (repository / TRIPLE).read_text()
    again = run("fuse")
    assert again.exit_code == 0 and again.stderr == "2 fresh\n"


def test_several_at_a_time_give_the_same(repository: Path) -> None:
    assert run("fuse", "--jobs", "2", "--no-cache").exit_code == 0
    together = [(repository / name).read_bytes() for name in (DOUBLE, TRIPLE)]
    for name in (DOUBLE, TRIPLE):
        (repository / name).unlink()
    assert run("fuse", "--jobs", "1", "--no-cache").exit_code == 0
    assert [(repository / name).read_bytes() for name in (DOUBLE, TRIPLE)] == together


def test_the_header_leads_back(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command in it, run in the file's folder, makes the file, without an entry."""
    for name in (DOUBLE, TRIPLE):
        before = (built / name).read_text()
        header = read_header(before)
        assert header is not None and header.source.startswith("../") and str(built) not in before
        assert [path for path, _ in header.reads] == ["../helpers.py"]
        (built / name).unlink()
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        command = header.command.removeprefix("kernel-rewrite")
        subprocess.run(
            ["sh", "-c", f"{sys.executable} -m kernel_rewrite{command}"],
            cwd=(built / name).parent,
            env=environment,
            check=True,
            capture_output=True,
        )
        assert (built / name).read_text() == before


def test_what_is_fresh(built: Path, edit: Edit) -> None:
    for arguments in ([], ["--full"], [DOUBLE], [TRIPLE, DOUBLE]):
        result = run("check", *arguments)
        assert (result.exit_code, result.stdout) == (0, ""), result.output
    edit("demo/double.py", "return x + 1", "return x + 2")
    edit("demo/helpers.py", "return x - 1", "return x - 2")
    before = (built / DOUBLE).read_bytes()
    for arguments in ([], ["--full"], ["--fix"], ["--full", "--fix"], [DOUBLE]):
        assert run("check", *arguments).exit_code == 0
    assert (built / DOUBLE).read_bytes() == before, "what the kernel does not depend on makes nothing stale"
    edit("demo/double.py", "def double(", "def new():\n    pass\n\n\ndef double(")
    assert states() == {DOUBLE: "fresh", TRIPLE: "fresh"}


STALE = [
    ("demo/double.py", "* FACTOR", "* FACTOR + 1", {DOUBLE}),
    ("demo/double.py", "BLOCK=128", "BLOCK=256", {DOUBLE}),
    ("demo/helpers.py", "constexpr(2.0)", "constexpr(3.0)", set()),
    (
        "demo/helpers.py",
        "tl.store(pointer, value, mask=mask)",
        "tl.store(pointer, value * 2, mask=mask)",
        {DOUBLE, TRIPLE},
    ),
    ("pyproject.toml", '{ out_ptr = "relu" }', '{ out_ptr = "silu" }', {DOUBLE}),
    ("pyproject.toml", 'numerics = "fused"', 'numerics = "eager"', {TRIPLE}),
    ("pyproject.toml", "set = { BLOCK = 128 }\n", "", {TRIPLE}),
    ("pyproject.toml", "BLOCK = 128", "BLOCK = 64", {TRIPLE}),
    ("pyproject.toml", "'tanh'", "'none'", {TRIPLE}),
    ("demo/double.py", "empty_like(x)", "zeros_like(x)", {DOUBLE}),
    (DOUBLE, "tl.maximum", "tl.minimum", {DOUBLE}),
    (DOUBLE, "return x + 1", "return x + 2", {DOUBLE}),
    (DOUBLE, "# assumed", "# assumes", {DOUBLE}),
]


@pytest.mark.parametrize(("file", "old", "new", "stale"), STALE)
def test_what_is_stale_and_how_it_is_mended(
    built: Path, edit: Edit, file: str, old: str, new: str, stale: set[str]
) -> None:
    edit(file, old, new)
    found = states()
    assert {name for name, state in found.items() if state == "stale"} == stale
    result = run("check", "--full")
    assert result.exit_code == bool(stale)
    for name in stale:
        assert f"--- a/{name}\n+++ b/{name}\n" in result.stdout and name in result.stderr
    fixed = run("check", "--fix")
    assert fixed.exit_code == 0 and fixed.stderr.count("wrote ") == len(stale)
    assert set(states("--full").values()) == {"fresh"} and run("check").exit_code == 0


def test_a_missing_file(built: Path) -> None:
    (built / DOUBLE).unlink()
    result = run("check")
    assert result.exit_code == 1 and "KR604" in result.stderr and "has not been made yet" in result.stderr
    assert run("check", "--fix").exit_code == 0 and (built / DOUBLE).exists()


def test_a_file_of_the_user_in_its_place(built: Path) -> None:
    (built / DOUBLE).write_text("# mine\n")
    for command in (["check"], ["check", "--fix"], ["fuse"]):
        result = run(*command)
        assert result.exit_code == 1 and "KR601" in result.stderr
        assert (built / DOUBLE).read_text() == "# mine\n"
    assert run("fuse", "--force").exit_code == 0 and run("check").exit_code == 0


def test_a_source_that_can_no_longer_be_fused(built: Path, edit: Edit) -> None:
    edit("demo/double.py", "tl.load(x_ptr + i, mask=i < n)", "tl.load(out_ptr + i, mask=i < n)")
    before = (built / DOUBLE).read_bytes()
    for arguments in (["check"], ["check", "--fix"]):
        result = run(*arguments)
        assert result.exit_code == 1 and "error[KR201]" in result.stderr and "1 fresh, 1 refused" in result.stderr
    assert (built / DOUBLE).read_bytes() == before
    (built / "demo" / "double.py").unlink()
    assert "KR113" in run("check").stderr


def test_another_version_of_the_tool_makes_nothing_stale_by_itself(built: Path) -> None:
    text = (built / DOUBLE).read_text()
    header = read_header(text)
    assert header is not None
    (built / DOUBLE).write_text(with_header(text, replace(header, version="0.0.1")))
    assert Finding.OTHER_VERSION.value in run("check", "-v").stderr
    assert run("check").exit_code == 0


def test_line_ends_of_another_checkout(built: Path) -> None:
    for name in (DOUBLE, "demo/double.py", "demo/helpers.py"):
        (built / name).write_bytes((built / name).read_bytes().replace(b"\n", b"\r\n"))
    assert states() == {DOUBLE: "fresh", TRIPLE: "fresh"}


def test_a_file_that_is_in_no_list(built: Path, edit: Edit) -> None:
    (built / "pyproject.toml").unlink()
    assert run("check", DOUBLE).exit_code == 0
    edit("demo/double.py", "* FACTOR", "* FACTOR + 1")
    result = run("check", DOUBLE)
    assert result.exit_code == 1 and "* FACTOR + 1" in result.stdout
    assert run("check", DOUBLE, "--fix").exit_code == 0 and run("check", DOUBLE).exit_code == 0
    assert run("check", "demo/double.py").exit_code == 2


def test_an_internal_error_ends_with_2_and_stops_nobody_else(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import kernel_rewrite.project.build as build

    real = build.fuse_entry

    def broken(entry: object, **options: object) -> object:
        if "double" in entry.source:  # type: ignore[attr-defined]
            raise ZeroDivisionError("a bug")
        return real(entry, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(build, "fuse_entry", broken)
    result = run("check", "--full")
    assert result.exit_code == 2 and "error[KR901]" in result.stderr and "a bug" in result.stderr
    assert "1 fresh, 1 failed" in result.stderr


def test_the_fast_path_imports_nothing_heavy(built: Path) -> None:
    code = (
        "import sys\nfrom kernel_rewrite.cli import cli\n"
        "try:\n    cli(['check'])\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "print(*sorted(set(sys.modules) & {'libcst', 'triton', 'torch', 'rich', 'numpy', 'ast_', 'kernel_rewrite.model',"
        " 'kernel_rewrite.source.files', 'kernel_rewrite.project.build', 'kernel_rewrite.diagnostics'}))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert ran.returncode == 0 and ran.stdout == "\n", ran.stdout + ran.stderr


OPS = """\
import torch

SLOPE = 1.702


def epilogue(x):
    return x * torch.sigmoid(SLOPE * x)


def other(x):
    return torch.relu(x)
"""


@pytest.fixture
def with_a_function(repository: Path, edit: Edit) -> Path:
    (repository / "demo" / "ops.py").write_text(OPS)
    edit("pyproject.toml", '{ out_ptr = "relu" }', '{ out_ptr = "demo/ops.py:epilogue" }')
    assert run("fuse").exit_code == 0
    return repository


def test_a_function_is_kept_in_words(with_a_function: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    header = read_header((with_a_function / DOUBLE).read_text())
    assert header is not None and header.epilogues == (("out_ptr", "x * sigmoid(1.702 * x)"),)
    assert states() == {DOUBLE: "fresh", TRIPLE: "fresh"}
    monkeypatch.chdir(with_a_function / "demo" / "fused")  # paths are relative to the pyproject.toml
    assert run("check").exit_code == 0 and run("check", "double_relu.py").exit_code == 0
    monkeypatch.chdir(with_a_function)
    (with_a_function / "demo" / "ops.py").unlink()
    (with_a_function / "pyproject.toml").unlink()
    assert run("check", DOUBLE, "--full").exit_code == 0, "the header needs no function"


@pytest.mark.parametrize(
    ("file", "old", "new", "state"),
    [
        ("demo/ops.py", "SLOPE = 1.702", "SLOPE = 1.7", "stale"),
        ("demo/ops.py", "x * torch", "2 * x * torch", "stale"),
        ("demo/ops.py", "import torch\n", "# torch's own\nimport torch\n", "fresh"),
        ("demo/ops.py", "torch.relu(x)", "torch.tanh(x)", "fresh"),
        ("demo/ops.py", "def epilogue(x):\n", "def epilogue(x):\n    if x:\n        return x\n", "refused"),
        ("demo/ops.py", "def epilogue", "def epilog", "refused"),
        ("pyproject.toml", "py:epilogue", "py:other", "stale"),
        ("pyproject.toml", "demo/ops.py:epilogue", "x * sigmoid(1.702 * x)", "fresh"),
        ("demo/double.py", "* FACTOR", "* FACTOR + 1", "stale"),
    ],
)
def test_what_changes_with_a_function(
    with_a_function: Path, edit: Edit, file: str, old: str, new: str, state: str
) -> None:
    edit(file, old, new)
    assert states() == {DOUBLE: state, TRIPLE: "fresh"}
    fixed = run("check", "--fix")
    assert fixed.exit_code == (state == "refused"), fixed.output
    assert states() == {DOUBLE: state if state == "refused" else "fresh", TRIPLE: "fresh"}


@pytest.mark.parametrize(
    ("file", "old", "new", "state"),
    [
        ("demo/double.py", "x * SLOPE", "x * SLOPE * 2", "stale"),
        ("demo/double.py", "constexpr(1.5)", "constexpr(1.25)", "stale"),
        ("demo/double.py", "x + 1", "x + 2", "fresh"),
        ("demo/helpers.py", "x - 1", "x - 2", "fresh"),
        ("demo/double.py", "x * SLOPE", "x * tl.max(x, 0)", "refused"),
    ],
)
def test_what_changes_with_a_triton_function(
    repository: Path, edit: Edit, file: str, old: str, new: str, state: str
) -> None:
    function = "SLOPE = tl.constexpr(1.5)\n\n\n@triton.jit\ndef steep(x):\n    return x * SLOPE\n\n\ndef unrelated"
    edit("demo/double.py", "def unrelated", function)
    edit("pyproject.toml", '{ out_ptr = "relu" }', '{ out_ptr = "steep(x)" }')
    assert run("fuse").exit_code == 0 and states() == {DOUBLE: "fresh", TRIPLE: "fresh"}
    edit(file, old, new)
    assert states() == {DOUBLE: state, TRIPLE: "fresh"}
    assert run("check", "--fix").exit_code == (state == "refused")


def test_functions_are_read_without_anything_heavy(with_a_function: Path) -> None:
    code = (
        "import sys\nfrom kernel_rewrite.cli import cli\n"
        "try:\n    cli(['check'])\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "print(*sorted(set(sys.modules) & {'libcst', 'triton', 'torch', 'rich', 'numpy', 'kernel_rewrite.project.build'}))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert ran.returncode == 0 and ran.stdout == "\n", ran.stdout + ran.stderr


def on_a_terminal(*arguments: str) -> tuple[int, str]:
    """Exit code and stderr of the command, whose stderr is a terminal."""
    import pty

    ours, theirs = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    environment |= {"TERM": "xterm", "COLUMNS": "80"}
    environment.pop("NO_COLOR", None)
    process = subprocess.Popen(
        [sys.executable, "-m", "kernel_rewrite", *arguments], stderr=theirs, stdout=subprocess.DEVNULL, env=environment
    )
    os.close(theirs)
    shown = b""
    try:
        while chunk := os.read(ours, 65536):
            shown += chunk
    except OSError:  # the other end is closed
        pass
    os.close(ours)
    return process.wait(), shown.decode()


def test_progress_and_colour_on_a_terminal(repository: Path) -> None:
    code, shown = on_a_terminal("fuse", "--jobs", "2")
    assert code == 0 and "fusing" in shown and "2 written" in shown
    (repository / "demo" / "double.py").write_text("def broken(:\n")
    code, shown = on_a_terminal("check")
    assert code == 1 and "\033[1;31merror[KR101]\033[0m" in shown and "fusing" not in shown
    code, shown = on_a_terminal("fuse", "--quiet")
    assert code == 1 and "fusing" not in shown


def test_an_interrupt_ends_everything(repository: Path) -> None:
    """Ctrl-C while several processes work: no traceback, no half file, and no process stays behind."""
    for number in range(6):
        text = (repository / "demo" / "double.py").read_text().replace("double", f"other_{number}")
        (repository / "demo" / f"other_{number}.py").write_text(text)
        with (repository / "pyproject.toml").open("a") as stream:
            stream.write(
                f'\n[[tool.kernel-rewrite.fusion]]\nsource = "demo/other_{number}.py"\n'
                f'output = "demo/fused/other_{number}.py"\nepilogues = "relu"\n'
            )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-m", "kernel_rewrite", "fuse", "--jobs", "2", "--no-cache"]
    process = subprocess.Popen(
        command,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background job of a shell ignores it
    )
    assert process.stderr is not None and process.stderr.readline().startswith("wrote ")
    os.killpg(process.pid, signal.SIGINT)
    rest = process.stderr.read()  # ends when every process that holds the pipe has ended
    assert process.wait() == 1 and "Traceback" not in rest and rest.rstrip().endswith("Aborted!"), rest
    written = {path.name for path in (repository / "demo" / "fused").iterdir()} - {"__init__.py"}
    assert written and not [name for name in written if name.startswith(".")]
    assert len(written) < 8, "it was interrupted"
    for name in written:
        compile((repository / "demo" / "fused" / name).read_text(), name, "exec")
    with pytest.raises(ProcessLookupError):
        for _ in range(100):
            os.killpg(process.pid, 0)
            time.sleep(0.1)
