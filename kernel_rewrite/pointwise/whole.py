"""Functions of whole tensors that may follow a fused epilogue: what a launcher computes in torch behind the kernel.

Each gives one tensor, is the same every time it is called, and takes beside its tensor nothing but literals.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WholeFunction:
    """A function of torch. `parameters` are those behind its tensor, in torch's order, `required` of which must be given.
    `method`: a tensor has it as a method too, whose integers may stand one by one where it is `spread`; `attribute`: it is
    an attribute of a tensor and nothing else."""

    name: str
    torch: str
    parameters: tuple[str, ...] = ()
    required: int = 0
    method: bool = True
    spread: bool = False
    attribute: bool = False


def _rows(names: str, parameters: str = "", required: int = 0) -> tuple[WholeFunction, ...]:
    return tuple(WholeFunction(name, f"torch.{name}", tuple(parameters.split()), required) for name in names.split())


def _functional(name: str, parameters: str = "", required: int = 0) -> WholeFunction:
    return WholeFunction(name, f"torch.nn.functional.{name}", tuple(parameters.split()), required, method=False)


def _shape(name: str, parameter: str, *, method_alone: bool = False) -> WholeFunction:
    torch = "" if method_alone else f"torch.{name}"
    return WholeFunction(name, torch, (parameter,), 1, spread=True)


WHOLE: Mapping[str, WholeFunction] = {
    row.name: row
    for row in (
        *_rows("softmax log_softmax", "dim dtype", 1),
        _functional("softmin", "dim", 1),
        *_rows("sum mean nansum prod", "dim keepdim dtype"),
        *_rows("any all", "dim keepdim"),
        *_rows("amax amin", "dim keepdim"),
        *_rows("argmax argmin", "dim keepdim"),
        *_rows("logsumexp", "dim keepdim", 1),
        *_rows("count_nonzero", "dim"),
        *_rows("cumsum cumprod", "dim dtype", 1),
        *_rows("logcumsumexp", "dim", 1),
        *_rows("norm", "p dim keepdim"),
        _functional("normalize", "p dim eps"),
        WholeFunction("T", "", attribute=True),
        WholeFunction("mT", "", attribute=True),
        *_rows("t"),
        *_rows("transpose", "dim0 dim1", 2),
        *_rows("swapaxes", "axis0 axis1", 2),
        *_rows("movedim", "source destination", 2),
        _shape("permute", "dims"),
        _shape("reshape", "shape"),
        _shape("view", "size", method_alone=True),
        _shape("flip", "dims"),
        *_rows("flatten", "start_dim end_dim"),
        *_rows("unflatten", "dim sizes", 2),
        *_rows("squeeze", "dim"),
        *_rows("unsqueeze", "dim", 1),
        WholeFunction("contiguous", ""),
    )
}
"""By the name that torch gives it. Random functions are left out, and those that give several tensors."""
