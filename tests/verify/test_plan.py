"""What a run draws beside the inputs as given, and what it sees around the tensors."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from kernel_rewrite.verify import render, to_json
from kernel_rewrite.verify.calls import PLAN, Inputs, applicable, evaluate, sized_call

from .conftest import Check
from .test_equivalence import ADD, ADD_CALL, AUTOTUNED, HEAD, MATMUL

torch = pytest.importorskip("torch")


def test_the_whole_plan_runs(check: Check) -> None:
    result = check(HEAD + ADD, "relu", "add(randn(100), randn(100))", trials=None)
    assert result.ok, render(result)
    shapes = {trial.inputs: trial.outputs[0].shape for trial in result.trials}
    types = {trial.inputs: trial.outputs[0].dtype for trial in result.trials}
    assert list(shapes) == [inputs.name for inputs in PLAN]
    assert shapes["a tile and 1"] == (65,) and shapes["a tile less 1"] == (63,) and shapes["sizes of 0"] == (0,)
    assert {name: types[name] for name in types if name.startswith("in ")} == {
        f"in {name}": name for name in ("float16", "bfloat16", "float32", "float64")
    }


@pytest.mark.parametrize(
    ("tiles", "delta", "call"),
    [
        ({64, 16}, 1, "f(randn(193, 17), randn(17, 17))"),
        ({64, 16}, -1, "f(randn(191, 15), randn(15, 15))"),
        (set(), 1, None),
        ({1}, 1, None),
    ],
)
def test_sizes_beside_a_tile(tiles: set[int], delta: int, call: str | None) -> None:
    assert sized_call("f(randn(200, 20), randn(20, 5))", Inputs("", beside_tile=delta), tiles) == call


def test_a_launch_of_the_kernel_itself_keeps_its_types() -> None:
    as_half = Inputs("", dtype="float16")
    assert applicable("add(randn(5))", as_half)
    assert not applicable("kernel[(1,)](randn(5), empty(5))", as_half)
    assert applicable("kernel[(1,)](randn(5), empty(5))", Inputs(""))


def drawn(call: str, inputs: Inputs) -> Any:
    return evaluate(call, ModuleType("users"), "cpu", inputs, 0)


def test_layouts_keep_the_values() -> None:
    plain = drawn("randn(4, 6)", Inputs(""))
    rows = drawn("randn(4, 6)", Inputs("", layout="strided"))
    inside = drawn("randn(4, 6)", Inputs("", layout="offset"))
    assert torch.equal(plain, rows) and torch.equal(plain, inside)
    assert rows.stride() == (14, 1) and not rows.is_contiguous()
    assert inside.storage_offset() == 1 and inside.is_contiguous()
    assert drawn("randn(2, 3, 4)", Inputs("", layout="strided")).stride() == (36, 12, 1)


def test_the_first_float_type_is_replaced_alone() -> None:
    call = "(randn(3, dtype=float16), randn(3), ones(3, dtype=float16), arange(3))"
    types = [tensor.dtype for tensor in drawn(call, Inputs("", dtype="bfloat16"))]
    assert types == [torch.bfloat16, torch.float32, torch.bfloat16, torch.int64]


def test_a_file_that_is_right_for_contiguous_tensors_alone_is_found(check: Check) -> None:
    mutation = ("(k + ks)[:, None] * sbk", "(k + ks)[:, None] * N")
    result = check(HEAD + MATMUL, "relu", "matmul(randn(18, 20), randn(20, 17))", mutate=mutation, trials=None)
    assert {trial.inputs for trial in result.trials if not trial.ok} == {"rows apart"}, render(result)


def test_a_file_that_is_right_for_one_type_alone_is_found(check: Check) -> None:
    mutation = ("1e-06", "1e-06 if x.dtype == tl.float32 else 0.5")
    result = check(HEAD + ADD, "clamp(min=1e-6)", ADD_CALL, mutate=mutation, trials=None)
    assert {trial.inputs for trial in result.trials if not trial.ok} == {"in float16", "in bfloat16", "in float64"}


@pytest.mark.parametrize(
    ("mutation", "words"),
    [
        (("tl.PropagateNan.ALL), mask=mask)", "tl.PropagateNan.ALL))"), "writes outside of its tensors"),
        (("tl.load(y_ptr + offs, mask=mask)", "tl.load(y_ptr + offs)"), "reads outside of its tensors"),
    ],
)
def test_a_fused_kernel_that_leaves_its_tensors_is_found(mutation: tuple[str, str], words: str, check: Check) -> None:
    result = check(HEAD + ADD, "relu", ADD_CALL, mutate=mutation)
    assert not result.ok
    assert f"the fused kernel {words}, the original does not" in render(result)


def test_every_configuration_runs_with_the_inputs_as_given(check: Check) -> None:
    configurations = ", ".join(f'triton.Config({{"BLOCK": {2**n}}})' for n in range(4, 15))
    both = 'triton.Config({"BLOCK": 32}), triton.Config({"BLOCK": 128})'
    result = check(HEAD + AUTOTUNED.replace(both, configurations), "relu", ADD_CALL, trials=2)
    assert [sum(trial.inputs == name for trial in result.trials) for name in ("as given", "special values")] == [11, 8]


def test_which_side_is_nearer_to_float64(check: Check) -> None:
    call = "matmul(randn(18, 20, dtype=bfloat16), randn(20, 17, dtype=bfloat16))"
    source = HEAD + MATMUL.replace("acc.to(c_ptr.dtype.element_ty)", "acc")
    result = check(source, "silu", call, options={"numerics": "fused"}, trials=1)
    output = result.trials[0].outputs[0]
    # The reference starts from the rounded values, which the pair has and the fused kernel has not.
    assert output.pair_error is not None and output.fused_error is not None
    assert output.pair_error <= 0.51 < output.fused_error
    assert output.fused_nearer < output.pair_nearer
    assert "nearer to float64" in render(result)
    assert to_json(result)["trials"][0]["outputs"][0]["pair_error"] == output.pair_error


def test_the_report_names_the_flag_that_repeats_it(check: Check) -> None:
    mutation = ("tl.maximum(x + y, 0,", "tl.maximum(x + y, 0.25,")
    result = check(HEAD + ADD, "relu", ADD_CALL, mutate=mutation, seed=41)
    assert "--seed 41" in render(result)
    again = check(HEAD + ADD, "relu", ADD_CALL, mutate=mutation, seed=41)
    assert [t.outputs for t in result.trials] == [t.outputs for t in again.trials]
    other = check(HEAD + ADD, "relu", ADD_CALL, mutate=mutation, seed=42)
    assert [t.outputs for t in result.trials] != [t.outputs for t in other.trials]


def test_progress_and_the_json_report(tmp_path: Path) -> None:
    from click.testing import CliRunner

    from kernel_rewrite.cli import cli
    from kernel_rewrite.verify import verify

    (tmp_path / "kernels.py").write_text(HEAD + ADD)
    runner, told = CliRunner(), []
    fused, report = tmp_path / "kernels_relu.py", tmp_path / "report.json"
    assert runner.invoke(cli, ["fuse", str(tmp_path / "kernels.py"), "--epilogue", "relu"]).exit_code == 0
    calls = [ADD_CALL, "add(randn(7, 9), randn(7, 9))"]
    verify(fused, calls, judge="interpreter", trials=2, progress=lambda *state: told.append(state))
    assert told == [(0, 4, "as given"), (1, 4, "special values"), (2, 4, "as given"), (3, 4, "special values")]
    words = [
        "verify",
        str(fused),
        "--call",
        ADD_CALL,
        "--judge",
        "interpreter",
        "--trials",
        "1",
        "--report",
        str(report),
    ]
    assert runner.invoke(cli, words).exit_code == 0
    assert json.loads(report.read_text())["ok"] is True
