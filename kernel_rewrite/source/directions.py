"""Which direction of a store's address runs along the columns of the output, which along its rows, which along what is
outside of these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kernel_rewrite.source.addresses import Axis, StoreAddress
from kernel_rewrite.source.layouts import Layout

Strides = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Directions:
    """The strides of the output's last dimension (`columns`) and of the one before it (`rows`, None when the address has no
    such direction). `outer` are the strides of the dimensions before these two, outermost first, each with its dimension,
    -3 or less; None when they cannot be told. `certain` says that the launches of the file show it."""

    columns: Strides
    rows: Strides | None
    certain: bool = False
    outer: tuple[tuple[Strides, int], ...] | None = ()


def output_directions(addresses: Sequence[StoreAddress], shown: Layout) -> Directions | str:
    """The directions that all stores of one output share, or why they cannot be told: a clause after "because".

    `shown` is what the launches say about the output.
    """
    axes: dict[Strides, Axis] = {axis.strides: axis for address in addresses for axis in address.axes}
    if not axes:
        return "its address is the same for every element"
    return _by_dimension(axes, shown) or _by_spelling(axes)


def _by_dimension(axes: Mapping[Strides, Axis], shown: Layout) -> Directions | str | None:
    """What the launches show: which dimension of the output each stride is of. The stride 1 is that of the one dimension
    whose stride is not passed. Where they do not show how many dimensions there are, there is one for each direction.

    None when some direction has a stride that they do not show.
    """
    certain = shown.dimensions is not None
    count = len(axes) if shown.dimensions is None else shown.dimensions
    strided = [strides for strides in axes if strides]
    numbers: dict[Strides, int] = {s: shown.strides[s[0]] for s in strided if len(s) == 1 and s[0] in shown.strides}
    known: dict[int, Strides] = {
        number % count: strides for strides, number in numbers.items() if -count <= number < count
    }
    if not strided or len(known) != len(strided):
        return None
    if () in axes:
        left = [dimension for dimension in range(count) if dimension not in known]
        if len(left) != 1:
            return "one of its directions runs through several dimensions" if certain else None
        known[left[0]] = ()
    if count - 1 not in known:
        return "none of its directions runs along the columns" if certain else None
    outer = tuple((known[dimension], dimension - count) for dimension in range(count - 2) if dimension in known)
    return Directions(known[count - 1], known.get(count - 2), certain, outer)


def _by_spelling(axes: Mapping[Strides, Axis]) -> Directions | str:
    """What the address suggests: the stride 1, or the last axis of the tile, is that of the columns."""
    columns = () if () in axes else _along_last_tile_axis(axes)
    if columns is None:
        return "nothing says which of its directions runs along the columns"
    if len(axes) == 1:
        return "its address has one direction only: the output is flat here"
    if axes[columns].several:
        return "one of its directions seems to run through several dimensions, and no launch shows how many there are"
    rows = [strides for strides in axes if strides != columns]
    if len(rows) > 1:
        rank = axes[columns].tile_rank
        rows = [s for s in rows if axes[s].tile_axis == rank - 2 and rank > 1]
    if len(rows) != 1 or axes[rows[0]].several:
        return Directions(columns, None)
    others = [strides for strides in axes if strides not in (columns, rows[0])]
    told = len(others) < 2 and not any(axes[strides].several for strides in others)
    return Directions(columns, rows[0], outer=tuple((strides, -3) for strides in others) if told else None)


def _along_last_tile_axis(axes: Mapping[Strides, Axis]) -> Strides | None:
    found = [s for s, axis in axes.items() if axis.tile_rank > 1 and axis.tile_axis == axis.tile_rank - 1]
    return found[0] if len(found) == 1 else None
