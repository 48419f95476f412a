"""What a launch says about the layout of a buffer."""

from __future__ import annotations

import ast
from textwrap import dedent

import pytest

from kernel_rewrite.source.launches import launches
from kernel_rewrite.source.layouts import Layout, layout

KERNEL = "@triton.jit\ndef kernel(x, out, s0, s1, m, n, B: tl.constexpr):\n    pass\n"


def of(launch: str, before: str = "", head: str = "def f(x, w, y=None):") -> Layout:
    body = "".join(f"    {line}\n" for line in dedent(before).splitlines())
    module = ast.parse(f"{KERNEL}{head}\n{body}    kernel[(1,)]({launch})\n")
    kernel = module.body[0]
    assert isinstance(kernel, ast.FunctionDef)
    (found,) = launches(kernel, module, "f.py")
    return layout(found, "out")


MATMUL = "M, K = x.shape\nK, N = w.shape\nc = torch.empty((M, N), device=x.device)"


@pytest.mark.parametrize(
    ("launch", "before"),
    [
        ("x, c, c.stride(0), c.stride(1), M, N, B=4", MATMUL),
        ("x, c, s0=c.stride(0), s1=c.stride(1), m=M, n=N, B=4", MATMUL),
        ("x, c, c.stride(-2), c.stride(-1), c.shape[0], c.shape[-1], B=4", MATMUL),
        ("x, c, c.stride()[0], c.stride()[1], c.size(0), c.size(-1), B=4", MATMUL),
        ("x, c, *c.stride(), *c.shape, B=4", MATMUL),
        ("x, c, *c.stride(), M, N, B=4", MATMUL),
        ("x, c, a, b, M, N, B=4", MATMUL + "\na, b = c.stride()"),
        ("x, c, a, b, M, N, B=4", MATMUL + "\na = c.stride(0)\nb = c.stride(1)"),
        ("x, c, a, b, M, N, B=4", MATMUL + "\na, b = c.stride(0), c.stride(1)"),
        ("x, c, c.stride(0), c.stride(1), x.shape[0], w.shape[1], B=4", MATMUL),
        ("x, c, c.stride(0), c.stride(1), M, N, B=4", MATMUL.replace("(M, N),", "M, N,")),
        ("x, c, c.stride(0), c.stride(1), M, N, B=4", MATMUL.replace("torch.empty((M, N),", "x.new_empty([M, N],")),
        ("x, c, c.stride(0), c.stride(1), M, N, B=4", MATMUL.replace("(M, N)", "size") + "\nsize = (M, N)"),
        ("x, c, c.stride(0), c.stride(1), M, N, B=4", "M, N = x.shape\nx = x.contiguous()\nc = torch.empty_like(x)"),
        ("x, c, c.stride(0), c.stride(1), M, N, B=4", "x = x.view(-1, 8)\nM, N = x.shape\nc = torch.empty((M, N))"),
        ("x, c, c.stride(0), c.stride(1), m, n, B=4", "m, n = x.size()\nc = torch.zeros(x.shape)"),
    ],
)
def test_strides_and_sizes(launch: str, before: str) -> None:
    assert of(launch, before) == Layout({"s0": 0, "s1": 1}, {"m": (0,), "n": (1,)}, frozenset(), 2, True)


@pytest.mark.parametrize(
    ("launch", "before", "strides"),
    [
        ("x, c, x.stride(0), x.stride(1), 1, 1, B=4", MATMUL, {}),
        ("x, c, c.stride(1), c.stride(0), 1, 1, B=4", MATMUL, {"s0": 1, "s1": 0}),
        ("x, c, c.stride(k), 1, 1, 1, B=4", MATMUL, {}),
        ("x, c.t(), c.stride(0), c.stride(1), 1, 1, B=4", MATMUL, {}),
        ("x, c, a, b, 1, 1, B=4", MATMUL + "\na, b = c.stride()\nc = c.t()", {}),  # the strides of another tensor
        ("x, c, a, 1, 1, 1, B=4", MATMUL + "\na = c.stride(0)\na = a + 1", {}),
        ("x, c, a, 1, 1, 1, B=4", MATMUL + "\na = w.stride(0)", {}),
        ("x, y, y.stride(0), y.stride(-1), 1, 1, B=4", "if y is None:\n    y = torch.empty(M, N)", {"s0": 0, "s1": -1}),
        ("x, y, y.stride(0), 1, 1, 1, B=4", "", {"s0": 0}),
    ],
)  # fmt: skip
def test_strides_of_this_buffer_alone(launch: str, before: str, strides: dict[str, int]) -> None:
    assert of(launch, before).strides == strides


@pytest.mark.parametrize(
    ("launch", "before", "sizes", "totals"),
    [
        ("x, y, 1, 1, M, N, B=4", "M, N = x.shape\ny = torch.empty_like(x)", {"m": (0,), "n": (1,)}, set()),
        ("x, y, 1, 1, x.shape[0], x.shape[-1], B=4", "y = torch.empty_like(x)", {"m": (0,), "n": (-1,)}, set()),
        ("x, y, 1, 1, x.numel(), 1, B=4", "y = torch.empty_like(x)", {}, {"m"}),
        ("x, y, 1, 1, n, 1, B=4", "y = torch.empty_like(x)\nn = y.numel()", {}, {"m"}),
        ("x, y, 1, 1, M * N, N * M, B=4", "M, N = x.shape\ny = torch.empty((M, N))", {}, {"m", "n"}),
        ("x, y, 1, 1, N, N, B=4", "N = x.shape[0]\ny = torch.empty((N, N))", {"m": (0, 1), "n": (0, 1)}, set()),
        ("x, y, 1, 1, M, N, B=4", "M, N = x.shape\ny = torch.empty((N, M))", {"m": (1,), "n": (0,)}, set()),
        ("x, y, 1, 1, M, N, B=4", "M, N = w.shape\ny = torch.empty_like(x)", {}, set()),
        ("x, y, 1, 1, M, N, B=4", "M, N = x.shape\nM = M + 1\ny = torch.empty_like(x)", {"n": (1,)}, set()),
        ("x, y, 1, 1, 8, 1, B=4", "y = torch.empty((8, 1))", {}, set()),  # numbers prove nothing
        ("x, y, 1, 1, M, N, B=4", "for M in x:\n    N = M\ny = torch.empty((M, N))", {}, set()),  # other ones each time
        ("x, y, 1, 1, M, N, B=4", "if w:\n    M, N = x.shape\nelse:\n    N, M = x.shape\ny = torch.empty((M, N))", {}, set()),
    ],
)  # fmt: skip
def test_sizes(launch: str, before: str, sizes: dict[str, tuple[int, ...]], totals: set[str]) -> None:
    found = of(launch, before, "def f(x, w):")
    assert (found.sizes, found.totals) == (sizes, totals)


@pytest.mark.parametrize(
    ("before", "dimensions", "contiguous"),
    [
        ("y = torch.empty(M, N)", 2, True),
        ("y = torch.empty((M,))", 1, True),
        ("y = torch.empty(M)", None, True),  # M may be a shape
        ("y = torch.empty(x.shape[0])", 1, True),
        ("y = torch.empty(x.shape)", None, True),
        ("y = torch.empty(self.size)", None, True),
        ("y = torch.empty(M + w)", None, True),
        ("y = pool.empty(M, N)", None, None),
        ("y = torch.empty(M, N).view(torch.uint8)", None, True),
        ("y = torch.empty((B, *x.shape))", None, True),
        ("y = torch.zeros(4, 4, dtype=x.dtype)", 2, True),
        ("y = torch.full((4, 4, 4), 0.5)", 3, True),
        ("y = torch.empty_like(x)", None, None),
        ("y = torch.empty_like(x, memory_format=torch.contiguous_format)", None, True),
        ("x = x.contiguous()\ny = torch.empty_like(x)", None, True),
        ("if not x.is_contiguous():\n    x = x.contiguous()\ny = torch.empty_like(x)", None, True),
        ("if w:\n    x = x.contiguous()\ny = torch.empty_like(x)", None, None),
        ("y = torch.empty_like(x)\nx = x.contiguous()", None, None),
        ("if not w.is_contiguous():\n    x = x.contiguous()\ny = torch.empty_like(x)", None, None),
        ("x = x.contiguous()\nx = x.t()\ny = torch.empty_like(x)", None, None),
        ("y = torch.empty(4, 4, memory_format=torch.channels_last)", 2, None),
        ("y = torch.empty_strided((4, 4), (1, 4))", None, None),
        ("y = torch.empty(4, 4).t()", 2, None),
        ("y = torch.empty(4, 4).view(2, 8)", 2, True),
        ("y = torch.empty(4, 4)\ny = w", None, None),
        ("y = torch.empty(4, 4)[1:]", None, None),
        ("assert y.dim() == 3", 3, None),
        ("assert y.dim() == 3 and w", 3, None),
        ("if y.dim() != 3:\n    raise ValueError(y)", 3, None),
        ("if y.dim() == 3:\n    pass", None, None),
        ("if w:\n    A, B = y.shape", None, None),
        ("with w:\n    A, B = y.shape", 2, None),
        ("assert y.ndim == 3 or y.ndim == 2", None, None),
    ],
)
def test_dimensions_and_contiguity(before: str, dimensions: int | None, contiguous: bool | None) -> None:
    head = "def f(x, w, y):" if "y =" not in before else "def f(x, w):"
    found = of("x, y, 1, 1, 1, 1, B=4", before, head)
    assert (found.dimensions, found.contiguous) == (dimensions, contiguous)


def test_a_launch_that_hides_the_buffer_says_nothing() -> None:
    assert of("*x") == Layout()


def test_a_product_of_sizes_is_no_dimension() -> None:
    """What is passed is the launcher's own parameter, of which no shape is known."""
    found = of("x, w, w.stride(0), w.stride(1), w.shape[2] * w.shape[3], w.shape[1], B=4")
    assert found.sizes == {"n": (1,)} and found.strides == {"s0": 0, "s1": 1}
