"""What cannot be run is refused with KR502, and what the user's code does stays inside the runner."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from kernel_rewrite.cli import cli
from kernel_rewrite.diagnostics import FusionRefused
from kernel_rewrite.fuse import fuse
from kernel_rewrite.verify import equivalence, render, verify

from .conftest import Check
from .forking import ForkingRunner
from .test_equivalence import ADD, ADD_CALL, HEAD


def refused(excinfo: pytest.ExceptionInfo[FusionRefused]) -> str:
    (diagnostic,) = excinfo.value.diagnostics
    assert diagnostic.code == "KR502"
    return " ".join([diagnostic.message, *diagnostic.notes, diagnostic.help])


def write(folder: Path, source: str, name: str = "kernels") -> Path:
    (folder / f"{name}.py").write_text(source)
    fused = folder / f"{name}_relu.py"
    fused.write_text(fuse(folder / f"{name}.py", "relu").source)
    return fused


def test_a_real_process_runs_and_leaves_the_parent_without_torch(tmp_path: Path) -> None:
    fused = write(tmp_path, HEAD + ADD)
    script = f"""
    import sys
    from kernel_rewrite.verify import render, verify
    result = verify({str(fused)!r}, ["{ADD_CALL}"], judge="interpreter", trials=2)
    print(render(result))
    assert result.ok and len(result.trials) == 2
    assert not {{"torch", "triton", "numpy"}} & set(sys.modules)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "equivalent: 2 runs, 200 elements, bit-identical" in done.stdout


def test_a_missing_original_is_named(tmp_path: Path) -> None:
    fused = write(tmp_path, HEAD + ADD)
    (tmp_path / "kernels.py").unlink()
    with pytest.raises(FusionRefused) as excinfo:
        verify(fused, [ADD_CALL])
    assert "kernels.py does not exist" in refused(excinfo)
    assert "--original" in refused(excinfo)


def test_a_file_without_header(tmp_path: Path) -> None:
    (tmp_path / "plain.py").write_text(HEAD + ADD)
    with pytest.raises(FusionRefused) as excinfo:
        verify(tmp_path / "plain.py", [ADD_CALL])
    assert "plain.py" in refused(excinfo)


BROKEN_RUNNER = """\
import sys
from kernel_rewrite.verify import runner

def compared(*arguments):
    raise KeyError("of the runner itself")

runner.{} = compared
runner.main()
"""


@pytest.mark.parametrize("function", ["_compared", "prepare"])
def test_a_bug_of_the_runner_is_not_blamed_on_the_fused_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    fused = write(tmp_path, HEAD + ADD)
    popen = subprocess.Popen

    def broken(command: list[str], **options: Any) -> Any:
        return popen([command[0], "-c", BROKEN_RUNNER.format(function)], **options)

    monkeypatch.setattr(subprocess, "Popen", broken)
    done = CliRunner().invoke(cli, ["verify", str(fused), "--call", ADD_CALL, "--judge", "interpreter"])
    assert done.exit_code == 2, done.output
    assert "KR901" in done.output and "KR501" not in done.output
    assert "KeyError: 'of the runner itself'" in done.output and "in compared" in done.output


def test_a_hang_meets_the_time_limit(tmp_path: Path) -> None:
    fused = write(tmp_path, HEAD + ADD + "\n\nwhile True:\n    pass\n")
    with pytest.raises(FusionRefused) as excinfo:
        verify(fused, [ADD_CALL], judge="interpreter", time_limit=6)
    assert "did not finish within 6 s" in refused(excinfo)


EXIT = "    if x.numel() == 101:\n        import os\n        os.abort()\n"


def test_a_crash_of_the_fused_file_is_a_difference_and_the_other_trials_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forking_runner: ForkingRunner
) -> None:
    monkeypatch.setattr(equivalence, "_attempt", forking_runner.attempt)
    fused = write(tmp_path, HEAD + ADD)
    fused.write_text(
        fused.read_text().replace("    out = torch.empty_like(x)\n", EXIT + "    out = torch.empty_like(x)\n")
    )
    result = verify(fused, [ADD_CALL], judge="interpreter", trials=6)
    assert not result.ok
    assert [trial.ok for trial in result.trials] == [True, True, False, True, True, True], render(result)
    assert "signal 6" in result.trials[2].failure


def test_a_crash_of_the_original_skips_the_trial(check: Check) -> None:
    source = HEAD + ADD.replace("    out = torch.empty_like(x)\n", EXIT + "    out = torch.empty_like(x)\n")
    result = check(source, "relu", ADD_CALL)
    assert result.ok
    assert [bool(trial.skipped) for trial in result.trials] == [False, False, True, False, False, False]


@pytest.mark.parametrize(
    ("source", "call", "words"),
    [
        (HEAD + ADD + "\nimport no_such_package\n", ADD_CALL, "importing kernels.py failed: ModuleNotFoundError"),
        (HEAD + ADD, "add(randn(100)", "is not an expression"),
        (HEAD + ADD, "add(randn(100))", "fails with the original file: TypeError"),
        (HEAD + ADD, "randn(100)", "does not launch `add_kernel`"),
        (HEAD + ADD.replace("    n = ", "    1 / 0\n    n = "), ADD_CALL, "ZeroDivisionError"),
    ],
)
def test_a_run_that_cannot_be_made(source: str, call: str, words: str, check: Check) -> None:
    with pytest.raises(FusionRefused) as excinfo:
        check(source, "relu", call)
    assert words in refused(excinfo)


def test_a_size_that_the_original_rejects_is_skipped(check: Check) -> None:
    checked = ADD.replace("    n = ", '    assert x.numel() % 4 == 0, "a multiple of 4"\n    n = ')
    result = check(HEAD + checked, "relu", ADD_CALL)
    assert result.ok
    skipped = [trial for trial in result.trials if trial.skipped]
    assert [trial.inputs for trial in skipped] == ["sizes + 1", "sizes - 1", "sizes of 1"]
    assert "sizes + 16" in [trial.inputs for trial in result.trials if not trial.skipped]
    assert "a multiple of 4" in render(result)


def test_a_kernel_without_masks_stays_inside_its_tensors(check: Check) -> None:
    unmasked = ADD.replace(", mask=mask", "")
    result = check(HEAD + unmasked, "relu", "add(randn(128), randn(128))")
    assert result.ok, render(result)
    assert any("outside of its tensors" in note for note in result.notes)


def test_files_of_a_package_are_imported_as_its_members(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forking_runner: ForkingRunner
) -> None:
    monkeypatch.setattr(equivalence, "_attempt", forking_runner.attempt)
    package = tmp_path / "shapes" / "inner"
    package.mkdir(parents=True)
    (tmp_path / "shapes" / "__init__.py").write_text("")
    (package / "__init__.py").write_text("from .kernels import add\n")
    (package / "sizes.py").write_text("BLOCK = 64\n")
    source = HEAD.rstrip() + "\n\nfrom .sizes import BLOCK\n\n" + ADD.replace("BLOCK=64", "BLOCK=BLOCK")
    result = verify(write(package, source), [ADD_CALL], judge="interpreter", trials=1)
    assert result.ok, render(result)


def test_an_original_that_changed_is_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forking_runner: ForkingRunner
) -> None:
    monkeypatch.setattr(equivalence, "_attempt", forking_runner.attempt)
    fused = write(tmp_path, HEAD + ADD)
    (tmp_path / "kernels.py").write_text(HEAD + ADD + "# more\n")
    assert "has changed since" in verify(fused, [ADD_CALL], judge="interpreter", trials=1).notes[0]
