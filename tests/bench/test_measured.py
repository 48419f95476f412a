"""The whole way of a measurement, in the interpreter (whose times say nothing), and what is made of times."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from kernel_rewrite.bench.measured import Measured, SpeedReport, measured, speed_json, speed_text
from kernel_rewrite.bench.timing import Timing, measure
from kernel_rewrite.cli import cli
from kernel_rewrite.diagnostics import FusionRefused
from kernel_rewrite.rewrite.header import read_header

KERNELS = Path(__file__).parents[2] / "benchmarks" / "kernels"


@pytest.fixture(scope="module")
def fused(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("measured")
    (folder / "add.py").write_text((KERNELS / "add.py").read_text())
    run = CliRunner().invoke(cli, ["fuse", str(folder / "add.py"), "--epilogue", "relu"])
    assert run.exit_code == 0, run.output
    return folder / "add_relu.py"


def asked(fused: Path, *calls: str) -> SpeedReport:
    header = read_header(fused.read_text())
    assert header is not None
    return measured(str(fused), str(fused.parent / "add.py"), header, calls, seconds=0, judge="interpreter")


def test_every_variant_is_timed(fused: Path) -> None:
    report = asked(fused, "add(randn(3000), randn(3000))", "add(*[randn(10)] * 2)")
    assert [set(row.times) for row in report.rows] == [{"fused", "kernel", "pair"}] * 2
    for row, tensors in zip(report.rows, (3 * 3000, 2 * 10), strict=True):  # the second call adds a tensor to itself
        assert row.floor == pytest.approx(4 * tensors / report.bandwidth * 1e6)
        assert all(time.method == "wall" and time.median > 0 for time in row.times.values())
    assert "not" not in speed_text(report)


@pytest.mark.parametrize("epilogue", ["x * s + r", "softmax(x * s, dim=0) * r"])
def test_an_op_with_operands_is_timed(tmp_path: Path, epilogue: str) -> None:
    (tmp_path / "add.py").write_text((KERNELS / "add.py").read_text())
    operands = ["--operand", "r=tile", "--operand", "s=scalar"]
    run = CliRunner().invoke(cli, ["fuse", str(tmp_path / "add.py"), "--epilogue", epilogue, "--partial", *operands])
    assert run.exit_code == 0, run.output
    (fused,) = tmp_path.glob("add_*.py")
    (row,) = asked(fused, "add(randn(300), randn(300), r=randn(300), s=0.5)").rows
    assert set(row.times) == {"fused", "kernel", "pair"}


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ("add(randn(3))", "TypeError"),
        ("3", "is not a call of a launcher"),
        ("randn(3)", "does not launch `add_kernel`"),
    ],
)
def test_what_cannot_be_timed(call: str, words: str, fused: Path) -> None:
    with pytest.raises(FusionRefused, match=words):
        asked(fused, call)


def test_without_a_device_and_without_a_call(fused: Path) -> None:
    torch = pytest.importorskip("torch")
    run = CliRunner().invoke(cli, ["bench", str(fused)])
    assert run.exit_code == 1 and "error[KR505]: no call to time" in run.output
    if not torch.cuda.is_available():
        run = CliRunner().invoke(cli, ["bench", str(fused), "--call", "add(randn(9), randn(9))"])
        assert run.exit_code == 1 and "error[KR505]: there is no CUDA device" in run.output
        assert "--static" in run.output


def timing(median: float, spread: float = 1.0) -> Timing:
    return Timing(median, median - spread, median + spread, 30, "graph")


def test_what_is_said_of_times() -> None:
    fast = Measured("f(randn(9))", {"fused": timing(100), "pair": timing(150)}, 95.0, 2)
    noise = Measured("f(randn(9))", {"fused": timing(101), "pair": timing(100)}, 95.0, 2)
    slow = Measured("f(randn(9))", {"fused": timing(110), "pair": timing(100)}, 95.0, 2)
    assert [row.slower for row in (fast, noise, slow)] == [False, False, True]
    text = speed_text(SpeedReport("k", "on a GPU", 3e12, (fast, slow)))
    assert "fused / pair: 0.667" in text and "95% of the fused time" in text
    assert text.count("SLOWER") == 1
    assert speed_json(SpeedReport("k", "on a GPU", 3e12, (slow,)))["rows"][0]["slower"] is True


def test_a_variant_that_fails_has_a_reason_and_the_others_a_time() -> None:
    def fails(number: int) -> None:
        raise KeyError("no such tensor")

    found = measure({"works": lambda number: number, "fails": fails}, 1, seconds=0)
    assert isinstance(found["works"], Timing)
    assert found["fails"] == "KeyError: 'no such tensor'"


def test_a_chart(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from kernel_rewrite.bench.plot import save_bars

    groups = {"one": {"fused": 1.0, "pair": 2.0}, "two": {"fused": 3.0}}
    save_bars(tmp_path / "chart.svg", groups, title="times", axis="microseconds")
    assert "<svg" in (tmp_path / "chart.svg").read_text()
    save_bars(tmp_path / "chart.png", groups, title="times", axis="microseconds")
    assert (tmp_path / "chart.png").read_bytes().startswith(b"\x89PNG")
