"""Random small kernels: nested loops, branches, helpers, early returns and stores among them."""

from __future__ import annotations

from hypothesis import strategies as st

HEAD = """\
import triton
import triton.language as tl


@triton.jit
def twice(a, n):
    for j in range(n):
        a = a * 2.0 + j
    return a


@triton.jit
def chosen(a, b, n):
    if n > 2:
        return a - b
    return b


@triton.jit
def put(p, offsets, v, n):
    tl.store(p + offsets, v, mask=offsets < n)


@triton.jit
def k(x_ptr, out_ptr, other_ptr, n, m, BLOCK: tl.constexpr):
    offs = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    a = tl.load(x_ptr + offs, mask=offs < n, other=0.0)
    b = a * 0.5
    c = tl.zeros((BLOCK,), tl.float32)
"""

NAMES = ("a", "b", "c")


def expressions(depth: int = 2) -> st.SearchStrategy[str]:
    leaf = st.sampled_from([*NAMES, *NAMES, "1.5", "m"])
    if depth == 0:
        return leaf
    inner = expressions(depth - 1)
    tensor = st.sampled_from(NAMES)
    return st.one_of(
        leaf,
        st.builds("({} {} {})".format, tensor, st.sampled_from(["+", "-", "*"]), inner),
        st.builds("({} {} {})".format, inner, st.sampled_from(["+", "-", "*"]), tensor),
        st.builds("tl.where({} > 0, {}, {})".format, tensor, tensor, inner),
        st.builds("tl.exp({})".format, tensor),
        st.builds("({} - tl.max({}))".format, tensor, tensor),
        st.builds("twice({}, {})".format, tensor, st.sampled_from(["n", "m", "3"])),
        st.builds("chosen({}, {}, {})".format, tensor, tensor, st.sampled_from(["n", "m"])),
    )


def _joined(blocks: list[list[str]]) -> list[str]:
    return [line for block in blocks for line in block]


def _indented(lines: list[str]) -> list[str]:
    return [f"    {line}" for line in lines]


def _if(test: str, body: list[str], other: list[str] | None) -> list[str]:
    return [f"if {test}:", *_indented(body), *(["else:", *_indented(other)] if other else [])]


def _stores(value: str, shift: int) -> st.SearchStrategy[list[str]]:
    return st.sampled_from(
        [
            [f"tl.store(out_ptr + offs + {shift}, {value}, mask=offs < n)"],
            [f"put(out_ptr, offs + {shift}, {value}, n)"],
            [f"put(other_ptr, offs + {shift}, {value}, n)"],
            [f"tl.store(other_ptr + offs, {value})"],
        ]
    )


def statements(depth: int = 2) -> st.SearchStrategy[list[str]]:
    """A block of statements."""
    tensor = st.sampled_from(NAMES)
    simple = st.one_of(
        st.builds(lambda name, value: [f"{name} = {value} + {name}"], tensor, expressions()),
        st.builds(lambda name, value: [f"{name} += {value}"], tensor, expressions()),
        st.builds(lambda name: [f"{name} += tl.load(x_ptr + offs, mask=offs < m, other=0.0)"], tensor),
        st.tuples(st.sampled_from(NAMES), st.integers(0, 3)).flatmap(lambda pair: _stores(*pair)),
    )
    if depth == 0:
        return st.lists(simple, min_size=1, max_size=3).map(_joined)
    inner = statements(depth - 1)
    compound = st.one_of(
        st.builds(
            lambda v, end, body: [f"for {v} in range({end}):", *_indented(body)],
            st.sampled_from(["i", "j"]),
            st.sampled_from(["n", "m", "4"]),
            inner,
        ),
        st.builds(lambda end, body: [f"for s in tl.static_range({end}):", *_indented(body)], st.integers(1, 2), inner),
        st.builds(
            _if, st.sampled_from(["n > 4", "m == 1", "tl.program_id(0) == 0"]), inner, st.one_of(st.none(), inner)
        ),
    )
    return st.lists(st.one_of(simple, simple, compound), min_size=1, max_size=4).map(_joined)


def kernels() -> st.SearchStrategy[str]:
    """The text of a file with one kernel `k` that stores to `out_ptr`."""
    early = st.sampled_from([[], [], ["if n > 100:", "    return"]])
    last = st.sampled_from(["tl.store(out_ptr + offs, c, mask=offs < n)", "put(out_ptr, offs, c + a, n)"])
    return st.builds(
        lambda guard, body, end: HEAD + "\n".join(_indented([*guard, *body, end])) + "\n", early, statements(), last
    )
