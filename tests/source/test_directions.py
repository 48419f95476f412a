"""Which direction of an address runs along the columns: what launches show wins, and must fit the number of dimensions."""

from __future__ import annotations

import ast
from dataclasses import replace

import pytest

from kernel_rewrite.source.addresses import Axis, StoreAddress
from kernel_rewrite.source.directions import Directions, output_directions
from kernel_rewrite.source.layouts import Layout

M = Axis(("sm",), ast.Name("m"), 0, 2)
N = Axis(("sn",), ast.Name("n"), 1, 2)
ONE_M = Axis((), ast.Name("m"), 0, 2)
ONE_N = Axis((), ast.Name("n"), 1, 2)
B = Axis(("sb",), ast.Name("b"))
H = Axis(("sh",), ast.Name("h"))

BATCH = ((("sb",), -3),)
HEADS = ((("sb",), -4), (("sh",), -3))


@pytest.mark.parametrize(
    ("axes", "shown", "expected"),
    [
        # out + m * sm + n * sn
        ((M, N), Layout({"sm": 0, "sn": 1}, dimensions=2), Directions(("sn",), ("sm",), True)),
        # launched with the strides of a transposed output
        ((M, N), Layout({"sm": 1, "sn": 0}, dimensions=2), Directions(("sm",), ("sn",), True)),
        ((M, N), Layout({"sm": -2, "sn": -1}), Directions(("sn",), ("sm",), False)),
        ((M, N), Layout(), Directions(("sn",), ("sm",), False)),
        ((M, N), Layout({"sm": 1}), Directions(("sn",), ("sm",), False)),
        # out + m * sm + n: n is what is left
        ((M, ONE_N), Layout({"sm": 0}, dimensions=2), Directions((), ("sm",), True)),
        ((M, ONE_N), Layout({"sm": 0}), Directions((), ("sm",), False)),
        # column-major: out + m + n * out.stride(1)
        ((ONE_M, N), Layout({"sn": 1}, dimensions=2), Directions(("sn",), (), True)),
        ((ONE_M, N), Layout({"sn": 1}), Directions(("sn",), (), False)),
        ((ONE_M, N), Layout({"sn": -1}), Directions(("sn",), (), False)),
        # three dimensions
        ((B, M, N), Layout({"sb": 0, "sm": 1, "sn": 2}, dimensions=3), Directions(("sn",), ("sm",), True, BATCH)),
        ((B, M, ONE_N), Layout({"sb": 0, "sm": 1}, dimensions=3), Directions((), ("sm",), True, BATCH)),
        ((B, M, N), Layout(), Directions(("sn",), ("sm",), False, BATCH)),
        # an index of several dimensions has no stride of one
        ((replace(B, several=True), M, N), Layout(), Directions(("sn",), ("sm",), False, None)),
        # four: launches say which is which
        ((B, H, M, N), Layout({"sh": 1, "sb": 0, "sm": 2, "sn": 3}), Directions(("sn",), ("sm",), False, HEADS)),
        ((B, H, M, N), Layout(), Directions(("sn",), ("sm",), False, None)),
        # out[b, 0, m, n]
        (
            (B, M, N),
            Layout({"sb": 0, "sm": 2, "sn": 3}, dimensions=4),
            Directions(("sn",), ("sm",), True, ((("sb",), -4),)),
        ),
        # a stride of a dimension that two directions cannot have says nothing
        ((M, N), Layout({"sm": 0, "sn": 2}), Directions(("sn",), ("sm",), False)),
    ],
)
def test_directions(axes: tuple[Axis, ...], shown: Layout, expected: Directions) -> None:
    assert output_directions([StoreAddress(axes)], shown) == expected


@pytest.mark.parametrize(
    ("axes", "shown", "why"),
    [
        ((), Layout(), "the same for every element"),
        ((ONE_N,), Layout(), "the output is flat"),
        # out[b] of a 3-D output, the other two dimensions in one
        ((B, ONE_N), Layout({"sb": 0}, dimensions=3), "through several dimensions"),
        # rows of a 3-D output that never moves along its last dimension
        ((B, M), Layout({"sb": 0, "sm": 1}, dimensions=3), "none of its directions"),
        ((B, Axis(("sm", "sn"), ast.Name("i"))), Layout(), "nothing says"),
        # out + b * sb + m * D + n, which is one dimension or two
        ((B, Axis((), ast.Name("i"), several=True)), Layout(), "seems to run through several"),
    ],
)
def test_what_cannot_be_told(axes: tuple[Axis, ...], shown: Layout, why: str) -> None:
    found = output_directions([StoreAddress(axes)], shown)
    assert isinstance(found, str) and why in found
