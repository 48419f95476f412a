"""Answers kept on disk: right for as long as nothing they were computed from changes, a miss in every other case."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from kernel_rewrite.cache import _digest, _prune, cached
from kernel_rewrite.diagnostics import FusionRefused
from kernel_rewrite.results import Fused
from kernel_rewrite.source.files import Project

MAIN = """\
import triton
import triton.language as tl
from helper import FACTOR, put


@triton.jit
def scale(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    put(out_ptr + offsets, tl.load(x_ptr + offsets, mask=offsets < n) * FACTOR, offsets < n)
"""
HELPER = """\
import triton
import triton.language as tl

FACTOR = tl.constexpr(2.0)


@triton.jit
def put(pointer, value, mask):
    tl.store(pointer, value, mask=mask)
"""


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "scale.py").write_text(MAIN)
    (tmp_path / "helper.py").write_text(HELPER)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KERNEL_REWRITE_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path


class Counter:
    """Fuses for real, and counts how often it was asked to."""

    def __init__(self, epilogue: str = "relu") -> None:
        self.epilogue = epilogue
        self.calls = 0

    def __call__(self, project: Project) -> Fused:
        from kernel_rewrite import fuse

        self.calls += 1
        return fuse("scale.py", self.epilogue, project=project)


def ask(counter: Counter, enabled: bool = True) -> Fused:
    answer = cached(("fuse", counter.epilogue), counter, enabled=enabled)
    assert isinstance(answer, Fused)
    return answer


def test_the_second_answer_is_the_first(files: Path) -> None:
    counter = Counter()
    assert ask(counter) == ask(counter)
    assert counter.calls == 1


def test_another_request_is_another_entry(files: Path) -> None:
    relu, sigmoid = Counter(), Counter("sigmoid")
    assert ask(relu) != ask(sigmoid)
    assert (relu.calls, sigmoid.calls) == (1, 1)


@pytest.mark.parametrize("name", ["scale.py", "helper.py"])
def test_a_changed_file_is_read_again(files: Path, name: str) -> None:
    counter = Counter()
    before = ask(counter)
    stamp = os.stat(files / name)
    (files / name).write_text((files / name).read_text().replace("offsets < n", "offsets < m").replace("2.0", "3.0"))
    os.utime(files / name, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))  # the time of change proves nothing
    try:
        after: Fused | None = ask(counter)
    except FusionRefused:
        after = None
    assert counter.calls == 2
    assert after != before or name == "helper.py"


def test_a_file_that_appears_where_one_was_looked_for(files: Path) -> None:
    """helper/__init__.py hides helper.py from the next import."""
    counter = Counter()
    ask(counter)
    (files / "helper").mkdir()
    (files / "helper" / "__init__.py").write_text(HELPER.replace("2.0", "5.0"))
    ask(counter)
    assert counter.calls == 2


def test_a_refusal_is_an_answer_too(files: Path) -> None:
    (files / "scale.py").write_text(MAIN.replace(" * FACTOR", " + tl.load(out_ptr)"))
    counter = Counter()
    for _ in range(2):
        with pytest.raises(FusionRefused) as refused:
            ask(counter)
        assert [d.code for d in refused.value.diagnostics] == ["KR201"]
    assert counter.calls == 1


def test_no_cache(files: Path) -> None:
    counter = Counter()
    ask(counter, enabled=False)
    ask(counter, enabled=False)
    assert counter.calls == 2
    assert not (files / "cache").exists()


def entry(files: Path) -> Path:
    (path,) = (files / "cache").iterdir()
    return path


def test_a_damaged_entry_is_a_miss(files: Path) -> None:
    counter = Counter()
    ask(counter)
    data = bytearray(entry(files).read_bytes())
    data[len(data) // 2] ^= 1
    entry(files).write_bytes(bytes(data))
    ask(counter)
    assert counter.calls == 2


class Payload:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("owned",)


def test_a_foreign_entry_runs_nothing(files: Path) -> None:
    counter = Counter()
    ask(counter)
    data = pickle.dumps(({}, {}, ("value", Payload())))
    entry(files).write_bytes(_digest(data).encode() + data)
    ask(counter)
    assert counter.calls == 2
    assert not (files / "owned").exists()


def test_an_unwritable_folder_is_no_error(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (files / "file").write_text("")
    monkeypatch.setenv("KERNEL_REWRITE_CACHE_DIR", str(files / "file" / "cache"))
    counter = Counter()
    ask(counter)
    ask(counter)
    assert counter.calls == 2


def test_a_setting_of_triton_is_part_of_the_question(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counter = Counter()
    ask(counter)
    monkeypatch.setenv("TRITON_ALLOW_NON_CONSTEXPR_GLOBALS", "1")
    ask(counter)
    assert counter.calls == 2


def test_the_oldest_entries_go_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kernel_rewrite.cache.MAXIMUM_BYTES", 25)
    for age, name in enumerate(("new", "middle", "old")):
        (tmp_path / name).write_bytes(b"x" * 10)
        os.utime(tmp_path / name, (1000 - age, 1000 - age))
    _prune(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["middle", "new"]


def test_a_known_answer_imports_nothing_heavy(files: Path) -> None:
    program = (
        "import sys\n"
        "from kernel_rewrite.cli import cli\n"
        "cli(['fuse', 'scale.py', '--epilogue', 'relu', '-o', '-'], standalone_mode=False)\n"
        "heavy = {'libcst', 'triton', 'torch', 'kernel_rewrite.analysis', 'kernel_rewrite.ttir.lower'} & set(sys.modules)\n"
        "print('heavy:', *sorted(heavy), file=sys.stderr)\n"
    )
    runs = [subprocess.run([sys.executable, "-c", program], capture_output=True, text=True) for _ in range(2)]
    assert runs[0].stdout == runs[1].stdout and "tl.maximum(" in runs[1].stdout
    assert "libcst" in runs[0].stderr.splitlines()[-1]
    assert runs[1].stderr.splitlines()[-1] == "heavy:"


@pytest.mark.parametrize("broken", ["scale.py", "helper.py"])
@pytest.mark.parametrize("text", [None, "def broken(:\n", "# \udcff\n"])
def test_a_refusal_ends_when_the_file_that_could_not_be_read_is_mended(
    files: Path, broken: str, text: str | None
) -> None:
    right = (files / broken).read_text()
    if text is None:
        (files / broken).unlink()
    else:
        (files / broken).write_bytes(text.encode("utf-8", "surrogateescape"))
    counter = Counter()
    for _ in range(2):
        with pytest.raises(FusionRefused):
            ask(counter)
    assert counter.calls == 1, "a refusal is an answer"
    (files / broken).write_text(right)
    assert "tl.maximum" in ask(counter).diff and counter.calls == 2
