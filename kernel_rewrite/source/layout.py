"""Which direction of a store's address runs along the columns of the output, and which along its rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kernel_rewrite.source.addresses import Axis, StoreAddress

Strides = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Layout:
    """The strides of the output's last dimension (`columns`) and of the one before it (`rows`, None when the address has no
    such direction). `certain` says that a launch of the file shows it."""

    columns: Strides
    rows: Strides | None
    certain: bool = False


def output_layout(addresses: Sequence[StoreAddress], dimensions: Mapping[str, int]) -> Layout | str:
    """The layout that all stores of one output share, or why it cannot be told: a clause after "because".

    `dimensions` gives the dimension of the output that each stride argument is of, where launches show it.
    """
    axes: dict[Strides, Axis] = {axis.strides: axis for address in addresses for axis in address.axes}
    if not axes:
        return "its address is the same for every element"
    shown = _by_dimension(axes, dimensions)
    if shown is not None:
        return shown
    columns = () if () in axes else _along_last_tile_axis(axes)
    if columns is None:
        return "nothing says which of its directions runs along the columns"
    if len(axes) == 1:
        return "its address has one direction only: the output is flat here"
    rows = [strides for strides in axes if strides != columns]
    if len(rows) > 1:
        rank = axes[columns].tile_rank
        along = [s for s in rows if axes[s].tile_axis == rank - 2 and rank > 1]
        return Layout(columns, along[0] if len(along) == 1 else None)
    return Layout(columns, rows[0])


def _by_dimension(axes: Mapping[Strides, Axis], dimensions: Mapping[str, int]) -> Layout | None:
    """The layout that the launches show: the strides of all directions are arguments `out.stride(k)`, but that of the last
    dimension may be 1."""
    numbers = {strides: dimensions.get(strides[0]) for strides in axes if len(strides) == 1}
    known = {number: strides for strides, number in numbers.items() if number is not None}
    if not known or len(known) != len([s for s in axes if s]):
        return None
    last = max(known)
    if () in axes:
        return Layout((), known[last], True)
    if last == 0:
        return None
    return Layout(known[last], known.get(last - 1), True)


def _along_last_tile_axis(axes: Mapping[Strides, Axis]) -> Strides | None:
    found = [s for s, axis in axes.items() if axis.tile_rank > 1 and axis.tile_axis == axis.tile_rank - 1]
    return found[0] if len(found) == 1 else None
