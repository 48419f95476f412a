"""Bad weather: odd files, full disks, two writers, `kill -9`. A clear error or the right result, never half a file."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from kernel_rewrite.project import files
from kernel_rewrite.project.files import replace_file

from .conftest import run

ROOT = Path(__file__).parent.parent.parent
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# ------------------------------------------------------------------------------------------------------------ odd files


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1", "cp1252", "utf-16"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_encodings_and_line_ends(repository: Path, encoding: str, newline: str) -> None:
    """The fused file has those of its source, checks as fresh, and compiles."""
    text = (repository / "demo" / "double.py").read_text().replace("    ", "\t")
    declared = f"# -*- coding: {encoding} -*-\n# é\n" if encoding in ("latin-1", "cp1252") else "# é\n"
    data = (declared + text).replace("\n", newline).encode(encoding)
    (repository / "demo" / "double.py").write_bytes(data)
    result = run("fuse", "demo/double.py", "--epilogue", "relu")
    if encoding == "utf-16":
        assert result.exit_code == 1 and "KR113" in result.stderr
        return
    assert result.exit_code == 0, result.output
    fused = (repository / "demo" / "double_relu.py").read_bytes()
    assert (b"\r\n" in fused) == (newline == "\r\n") and fused.count(b"\n") == fused.decode(encoding).count(newline)
    assert "# é" in fused.decode(encoding) and b"\tput" in fused
    compile(fused, "double_relu.py", "exec")
    assert run("check", "demo/double_relu.py").exit_code == 0
    assert (repository / "demo" / "double.py").read_bytes() == data


@pytest.mark.parametrize("name", ["utf-7", "rot13", "undefined", "idna", "punycode", "unicode_escape", "base64"])
def test_strange_encodings(repository: Path, name: str) -> None:
    (repository / "odd.py").write_bytes(f"# coding: {name}\n".encode() + (repository / "demo/double.py").read_bytes())
    result = run("fuse", "odd.py", "--epilogue", "relu")
    assert result.exit_code in (0, 1) and (result.exit_code == 0 or "error[KR" in result.stderr)


def test_a_large_file(repository: Path) -> None:
    path = repository / "demo" / "double.py"
    filler = "".join(f"# {'-' * 300}\ndef unrelated_{i}(x):\n    return x + {i}\n\n\n" for i in range(3_000))
    path.write_text(path.read_text() + "\n\n" + filler)
    assert path.stat().st_size > 1_000_000
    started = time.monotonic()
    assert run("fuse", "demo/double.py", "--epilogue", "relu").exit_code == 0
    assert run("check", "demo/double_relu.py").exit_code == 0
    assert time.monotonic() - started < 120


@pytest.mark.parametrize(
    "text",
    [
        "x = " + "(" * 150 + "1" + ")" * 150,
        "x = " + "-" * 3000 + "1",
        "x = [" * 90 + "]" * 90,
        "x = " + "1+" * 20000 + "1",
    ],
)
def test_deep_nesting(repository: Path, text: str) -> None:
    path = repository / "demo" / "double.py"
    path.write_text(path.read_text() + f"\n\n{text}\n")
    result = run("fuse", "demo/double.py", "--epilogue", "relu")
    assert result.exit_code in (0, 1) and (result.exit_code == 0 or "error[KR" in result.stderr), result.output[-500:]


def test_links(repository: Path) -> None:
    (repository / "link.py").symlink_to("demo/double.py")
    (repository / "loop.py").symlink_to("loop.py")
    (repository / "nowhere.py").symlink_to("absent.py")
    assert run("fuse", "demo/double.py", "--epilogue", "relu", "-o", "loop.py").exit_code == 1
    assert run("fuse", "demo/double.py", "--epilogue", "relu", "-o", "nowhere.py").exit_code == 0
    assert (repository / "nowhere.py").is_symlink() and "tl.maximum" in (repository / "absent.py").read_text()
    assert run("fuse", "loop.py", "--epilogue", "relu").exit_code == 1
    assert run("check", "loop.py").exit_code == 2


# ------------------------------------------------------------------------------------------------------ all or nothing


def test_a_full_disk(repository: Path) -> None:
    """The kernel itself refuses to write more than 100 bytes."""
    assert run("fuse", "demo/double.py", "--epilogue", "relu").exit_code == 0
    before, there = (repository / "demo" / "double_relu.py").read_bytes(), names(repository / "demo")
    code = textwrap.dedent("""
        import resource, signal
        from kernel_rewrite.cli import cli
        from kernel_rewrite.project import files
        right = files.replace_file
        def limited(path, data):
            resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
            right(path, data)
        files.replace_file = limited
        cli(["fuse", "demo/double.py", "--epilogue", "sigmoid", "-o", "demo/double_relu.py"])
    """)
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT)
    assert ran.returncode == 1 and "error[KR602]" in ran.stderr, ran.stderr
    assert (repository / "demo" / "double_relu.py").read_bytes() == before
    assert names(repository / "demo") - {"__pycache__"} == there


@pytest.mark.parametrize("nameless", [True, False])
def test_an_interrupt_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nameless: bool) -> None:
    (tmp_path / "a.py").write_text("old")
    if not nameless:
        monkeypatch.setattr(files, "_put_nameless", lambda path, data, mode: False)
    for step in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, step, _interrupted)
            with pytest.raises(KeyboardInterrupt):
                replace_file(tmp_path / "a.py", b"new")
        assert names(tmp_path) == {"a.py"} and (tmp_path / "a.py").read_text() == "old"
    replace_file(tmp_path / "a.py", b"new")
    assert names(tmp_path) == {"a.py"} and (tmp_path / "a.py").read_text() == "new"


def _interrupted(*arguments: object, **options: object) -> None:
    raise KeyboardInterrupt


WRITER = """
import sys
from pathlib import Path
from kernel_rewrite.project.files import replace_file
letter = sys.argv[2]
print("ready", flush=True)
while True:
    replace_file(Path(sys.argv[1]), letter.encode() * 3_000_000)
"""


@pytest.mark.parametrize("nameless", [True, False])
def test_kill_9_in_the_middle_of_a_write(tmp_path: Path, nameless: bool) -> None:
    """Old or new, whole; and what a killed process may leave is gone after the next write."""
    target = tmp_path / "a.py"
    replace_file(target, b"o" * 3_000_000)
    chance = random.Random(7)
    writer = (
        WRITER
        if nameless
        else WRITER.replace(
            "letter =", "import kernel_rewrite.project.files as f\nf._put_nameless = lambda *a: False\nletter ="
        )
    )
    left = 0
    for letter in "abcdefgh":
        process = subprocess.Popen(
            [sys.executable, "-c", writer, str(target), letter], stdout=subprocess.PIPE, env=ENVIRONMENT
        )
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        time.sleep(chance.random() * 0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        data = target.read_bytes()
        assert len(data) == 3_000_000 and len(set(data)) == 1
        left += len(names(tmp_path)) - 1
        replace_file(target, b"o" * 3_000_000)
        assert names(tmp_path) == {"a.py"}
    assert nameless is False or left <= 1, "files without a name are gone with their process"


def test_two_writers_and_a_reader(tmp_path: Path) -> None:
    target = tmp_path / "a.py"
    target.write_bytes(b"o" * 3_000_000)
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(target), letter], stdout=subprocess.PIPE, env=ENVIRONMENT)
        for letter in "ab"
    ]
    seen = set()
    try:
        for writer in writers:
            assert writer.stdout is not None and writer.stdout.readline() == b"ready\n"
        end = time.monotonic() + 2
        while time.monotonic() < end:
            data = target.read_bytes()
            assert len(data) == 3_000_000 and len(set(data)) == 1
            seen.add(data[:1])
    finally:
        for writer in writers:
            writer.kill()
            writer.wait()
            assert writer.stdout is not None
            writer.stdout.close()
    assert {b"a", b"b"} <= seen
    replace_file(target, b"last")
    assert names(tmp_path) == {"a.py"}


def test_two_whole_commands_at_once(repository: Path) -> None:
    command = [sys.executable, "-m", "kernel_rewrite", "fuse", "--jobs", "1", "-q"]
    both = [subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate()[1] for process in both] == ["", ""] and [p.returncode for p in both] == [0, 0]
    assert run("check", "--full").exit_code == 0
    assert names(repository / "demo" / "fused") == {"__init__.py", "double_relu.py", "triple_gelu.py"}
