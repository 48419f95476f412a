"""Margins around the tensors of a launch: what is written there and what is read from there shows."""

from __future__ import annotations

from typing import Any

import pytest

from kernel_rewrite.verify.guards import MARGIN, WINDOWS, guarded_launch
from kernel_rewrite.verify.launches import Recorder, _follow

torch = pytest.importorskip("torch")


def beside(tensor: Any, place: int) -> Any:
    """The element at `place`, counted from the tensor's first one, wherever that is."""
    return tensor.as_strided((1,), (1,), tensor.storage_offset() + place)


def test_views_of_one_storage_stay_views_of_one_storage() -> None:
    memory = torch.arange(12.0)
    left, right = memory[:6], memory[4:].view(2, 4)
    with guarded_launch((left, [right, 3]), {"x": (left, None)}) as (guards, arguments, options):
        first, (second, three) = arguments
        assert three == 3 and options["x"][1] is None and type(options["x"]) is tuple
        assert torch.equal(first, left) and torch.equal(second, right)
        assert first.data_ptr() % 64 == left.data_ptr() % 64
        first[5] = -1.0
        assert second[0, 1] == -1.0
        assert memory[5] == 5.0
        assert guards.window(second) == (MARGIN, 48)
        assert guards.origin(second) == memory.untyped_storage().data_ptr()
        assert len(WINDOWS) == 1
    assert memory[5] == -1.0
    assert not WINDOWS


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.bool, torch.uint8])
@pytest.mark.parametrize("place", [-1, 5])
def test_a_write_beside_a_tensor_is_counted(dtype: Any, place: int) -> None:
    tensor = torch.zeros(5, dtype=dtype)
    with guarded_launch((tensor,), {}) as (guards, (guarded,), _):
        guards.poison(0)
        guarded.fill_(1)
        assert guards.overwritten(0) == 0
        beside(guarded, place).fill_(0)
        assert 0 < guards.overwritten(0) <= tensor.element_size()


def followed(launch: Any, *, ops: bool = False) -> Recorder:
    x, out = torch.arange(8.0), torch.zeros(8)
    recorder = Recorder(["out"], {"out": torch.relu} if ops else {}, repeats=True)
    with guarded_launch((x, out), {}) as (guards, arguments, options):
        _follow(["x", "out"], arguments, options, lambda: launch(*arguments), guards, recorder)
    return recorder


def test_a_result_that_hangs_on_what_lies_beside_a_tensor() -> None:
    def right(x: Any, out: Any) -> None:
        out.copy_(x)

    def wrong(x: Any, out: Any) -> None:
        out.copy_(x)
        out[3] = beside(x, 8)[0]

    def unused(x: Any, out: Any) -> None:
        out.copy_(x + 0 * torch.nan_to_num(beside(x, 8)))

    def writes(x: Any, out: Any) -> None:
        out.copy_(x)
        beside(out, 8).fill_(2.5)

    assert (followed(right).outside.reads, followed(right).outside.writes) == (0, 0)
    assert (followed(wrong).outside.reads, followed(wrong).outside.writes) == (1, 0)
    assert (followed(unused).outside.reads, followed(unused).outside.writes) == (0, 0)
    assert followed(writes).outside.writes > 0


def test_a_kernel_whose_runs_differ_is_not_blamed() -> None:
    def random(x: Any, out: Any) -> None:
        out.copy_(torch.rand(8))

    assert followed(random).outside.reads == 0
