"""Launch sites, and what their arguments say."""

from __future__ import annotations

import ast
from textwrap import dedent

import pytest

from kernel_rewrite.model import Dtype
from kernel_rewrite.source.launches import Allocation, Fact, Launch, aliases, launches

KERNEL = """
@triton.jit
def kernel(x, out, n, BLOCK: tl.constexpr):
    pass

@triton.jit
def other(x, out, n, BLOCK: tl.constexpr):
    pass
"""


def launched(body: str, head: str = KERNEL) -> tuple[Launch, ...]:
    module = ast.parse(head + dedent(body))
    kernel = next(n for n in module.body if isinstance(n, ast.FunctionDef) and n.name == "kernel")
    return launches(kernel, module, "f.py")


def arguments(launch: Launch) -> dict[str, str]:
    return {name: ast.unparse(node) for name, node in launch.arguments.items()}


ALL = {"x": "x", "out": "y", "n": "x.numel()", "BLOCK": "64"}


@pytest.mark.parametrize(
    "body",
    [
        "def f(x, y):\n    kernel[(1,)](x, y, x.numel(), 64)",
        "def f(x, y):\n    kernel[(1,)](x, y, n=x.numel(), BLOCK=64)",
        "def f(x, y):\n    kernel[lambda meta: (1,)](x=x, out=y, n=x.numel(), BLOCK=64, num_warps=4)",
        "def f(x, y):\n    kernel.run(x, y, x.numel(), BLOCK=64, grid=(1,), warmup=False)",
        "def f(x, y):\n    kernel.warmup(x, y, x.numel(), BLOCK=64, grid=(1,))",
        "def f(x, y):\n    wrap_triton(kernel)[(1,)](x, y, x.numel(), BLOCK=64)",
        "def f(x, y):\n    torch.library.wrap_triton(kernel)[(1,)](x, y, x.numel(), BLOCK=64)",
        "def f(x, y):\n    capture_triton(kernel)[(1,)](x, y, x.numel(), BLOCK=64)",
        "def f(x, y):\n    launch = kernel\n    launch[(1,)](x, y, x.numel(), BLOCK=64)",
        "def f(x, y):\n    launch = kernel if x.is_cuda else other\n    launch[(1,)](x, y, x.numel(), BLOCK=64)",
        "def f(x, y):\n    args = (x, y, x.numel())\n    kernel[(1,)](*args, BLOCK=64)",
        "def f(x, y):\n    options = dict(BLOCK=64)\n    kernel[(1,)](x, y, x.numel(), **options)",
        "def f(x, y):\n    options = {'BLOCK': 64}\n    kernel[(1,)](x, y, x.numel(), **options)",
        "tuned = triton.autotune(configs=[])(kernel)\ndef f(x, y):\n    tuned[(1,)](x, y, x.numel(), BLOCK=64)",
        "class F:\n    def f(self, x, y):\n        kernel[(1,)](x, y, x.numel(), BLOCK=64)",
    ],
)
def test_every_form_of_launch_is_found(body: str) -> None:
    (launch,) = launched(body)
    assert arguments(launch) == ALL
    assert launch.complete


@pytest.mark.parametrize(
    "body",
    [
        "def f(x, y):\n    other[(1,)](x, y, 1, 64)",
        "def f(kernels, x):\n    kernels[0](x)",
        "def f(x, y):\n    kernel.run(x, y)",
        "@triton.jit\ndef g(x, y):\n    kernel(x, y, 1, 64)",
        "def f(x, y):\n    other[(1,)](x, y, 1, kernel)",
    ],
)
def test_other_calls_are_not_launches(body: str) -> None:
    assert launched(body) == ()


@pytest.mark.parametrize("owner", ["cls", "self", "Holder"])
def test_a_kernel_that_a_class_holds(owner: str) -> None:
    module = ast.parse(
        "class Holder:\n    @staticmethod\n    @triton.jit\n    def kernel(x, out):\n        pass\n"
        f"    def run(self, cls, x):\n        {owner}.kernel[(1,)](x, x)\n"
    )
    kernel = next(n for n in ast.walk(module) if isinstance(n, ast.FunctionDef))
    (launch,) = launches(kernel, module, "f.py")
    assert [(a.left, a.right) for a in aliases(launch, ("x", "out"))] == [("x", "out")]
    free = ast.parse("@triton.jit\ndef kernel(x, out):\n    pass\ndef run(other, x):\n    other.kernel[(1,)](x, x)\n")
    assert launches(free.body[0], free, "f.py") == ()  # type: ignore[arg-type]


def test_hidden_arguments_make_a_launch_incomplete() -> None:
    (launch,) = launched("def f(x, *args, **options):\n    kernel[(1,)](x, *args, BLOCK=64, **options)")
    assert not launch.complete
    assert arguments(launch) == {"x": "x", "BLOCK": "64"}


def test_a_launch_knows_where_it_stands() -> None:
    first, second = launched(
        "class F:\n    def f(self, x, y):\n        kernel[(1,)](x, y, 1, 64)\n"
        "def g(x, y):\n    kernel[(2,)](x, y, 1, 64)"
    )
    assert (first.launcher, second.launcher) == ("F.f", "g")
    assert first.span.line < second.span.line


def fact(expression: str, before: str = "", head: str = "def f(x, w, y=None, flag=False, size=32):") -> Fact:
    body = "".join(f"    {line}\n" for line in dedent(before).splitlines())
    (launch,) = launched(f"LIMIT = 128\n{head}\n{body}    kernel[(1,)]({expression}, w, 1, 64)\n")
    return launch.facts["x"]


@pytest.mark.parametrize(
    ("expression", "allocation", "dtype"),
    [
        ("torch.empty(4, dtype=torch.float16)", Allocation.EMPTY, "float16"),
        ("torch.empty((4, 4), device='cuda')", Allocation.EMPTY, "float32"),
        ("torch.empty_like(x)", Allocation.EMPTY, ""),
        ("torch.empty_like(x, dtype=torch.int8)", Allocation.EMPTY, "int8"),
        ("x.new_empty(3)", Allocation.EMPTY, ""),
        ("torch.empty_strided((4,), (1,), dtype=torch.bool)", Allocation.EMPTY, "int1"),
        ("torch.zeros(4, dtype=torch.long)", Allocation.FILL, "int64"),
        ("torch.zeros_like(x, dtype=torch.float8_e4m3fn)", Allocation.FILL, "float8e4nv"),
        ("torch.ones(4)", Allocation.FILL, "float32"),
        ("torch.full((4,), 3, dtype=torch.bfloat16)", Allocation.FILL, "bfloat16"),
        ("x", Allocation.ARGUMENT, ""),
        ("x.view(-1)", Allocation.ARGUMENT, ""),
        ("x.half()", Allocation.ARGUMENT, "float16"),
        ("x.to(torch.int32)", Allocation.ARGUMENT, "int32"),
        ("x.to(device='cuda', dtype=torch.int32)", Allocation.ARGUMENT, "int32"),
        ("x.view(torch.uint8)", Allocation.ARGUMENT, "uint8"),
        ("make(x)", Allocation.OTHER, ""),
        ("None", Allocation.NONE, ""),
    ],
)
def test_allocations_and_element_types(expression: str, allocation: Allocation, dtype: str) -> None:
    found = fact(expression)
    assert found.allocations == {allocation}
    assert found.dtype == dtype


def test_the_fill_value_is_read() -> None:
    assert fact("torch.zeros(4)").fills == (0,)
    assert fact("torch.full((4,), -1.5)").fills == (-1.5,)
    assert fact("torch.full((4,), size)").fills == (None,)


def test_element_types_are_shared_by_name() -> None:
    assert fact("torch.empty_like(x)").like == ("x",)
    assert fact("torch.empty(4, dtype=x.dtype)").like == ("x",)
    assert fact("out", "out = x.new_empty(3)").like == ("x",)
    assert fact("out", "z = x.to(torch.int32)\nout = torch.empty_like(z)").dtype == "int32"


def test_every_assignment_to_a_name_counts() -> None:
    found = fact("y", "if y is None:\n    y = torch.empty_like(x)")
    assert found.allocations == {Allocation.ARGUMENT, Allocation.EMPTY}
    assert found.optional
    chosen = fact("z", "if flag:\n    z = torch.zeros(4)\nelse:\n    z = torch.empty(4)")
    assert chosen.allocations == {Allocation.FILL, Allocation.EMPTY}
    assert fact("y", "y = y or torch.empty_like(x)").allocations == {Allocation.ARGUMENT, Allocation.EMPTY}
    assert fact("z", "z = torch.empty(4)\nz += 1").allocations == {Allocation.EMPTY, Allocation.OTHER}


@pytest.mark.parametrize(
    ("expression", "kind", "values"),
    [
        ("7", "int", (7,)),
        ("-0.5", "float", (-0.5,)),
        ("True", "bool", (True,)),
        ("'relu'", "string", ("relu",)),
        ("torch.float16", "dtype", (Dtype("float16"),)),
        ("LIMIT", "int", (128,)),
        ("LIMIT // 2", "int", (64,)),
        ("x.stride(0)", "int", ()),
        ("x.shape[1]", "int", ()),
        ("x.numel()", "int", ()),
        ("triton.cdiv(x.numel(), 4)", "int", ()),
        ("1.0 / x.shape[0]", "float", ()),
        ("x.shape[-1] ** -0.5", "float", ()),
        ("x.shape[0] * 2", "int", ()),
        ("y is not None", "bool", ()),
        ("flag", "bool", (False,)),
        ("size", "int", (32,)),
        ("lambda a: a", "function", ()),
    ],
)
def test_scalars_and_constants(expression: str, kind: str, values: tuple[object, ...]) -> None:
    found = fact(expression)
    assert (found.kind, found.values) == (kind, values)


def test_names_of_the_launcher_are_followed() -> None:
    assert fact("b", "b = 64 if flag else 128").values == (64, 128)
    assert fact("N", "M, N = x.shape").kind == "int"
    assert fact("b", "a = 16\nb = a * 4").values == (64,)


def test_a_flag_for_presence_names_what_it_asks_about() -> None:
    assert fact("y is not None").presence == ("y", True)
    assert fact("has", "has = y is None").presence == ("y", False)
    assert fact("True if y is not None else False").presence == ("y", True)
    assert fact("y is not None and flag").presence is None


def test_annotations_of_the_launcher_count() -> None:
    head = "def f(x: torch.Tensor, w: Optional[torch.Tensor], scale: float, k: int):"
    assert fact("x", head=head).kind == "tensor"
    assert fact("scale", head=head).kind == "float"
    assert fact("k", head=head).kind == "int"
    assert fact("w", head=head).optional


def test_descriptors_keep_their_block() -> None:
    found = fact("TensorDescriptor.from_tensor(x, [BM, 32])")
    assert found.kind == "descriptor"
    assert [ast.unparse(node) for node in found.block] == ["BM", "32"]
    assert [ast.unparse(n) for n in fact("d", "d = TensorDescriptor(x, x.shape, x.stride(), [8, 4])").block] == [
        "8",
        "4",
    ]


def shared(x: str, out: str, before: str = "") -> list[tuple[str, bool]]:
    body = "".join(f"    {line}\n" for line in dedent(before).splitlines())
    (launch,) = launched(f"def f(self, x, w, inplace):\n{body}    kernel[(1,)]({x}, {out}, 1, 64)\n")
    return [(alias.text, alias.certain) for alias in aliases(launch, ("x", "out"))]


@pytest.mark.parametrize(
    ("x", "out", "before"),
    [
        ("x", "x", ""),
        ("x", "x.view(-1)", ""),
        ("x[1:]", "x", ""),
        ("x.t()", "x.reshape(4)", ""),
        ("y", "x", "y = x"),
        ("y", "x", "y = x.contiguous()"),
        ("x", "z", "y = x.view(-1)\nz = y[0]"),
        ("self.buffer", "self.buffer", ""),
        ("b", "b", "b = torch.empty(4)"),
        ("a", "b", "a = b = torch.empty(4)"),
        ("b", "b", "b = make(x)"),
        ("b", "b.view(-1)", "b = x.clone()"),
        ("ensure_contiguous(x)", "x", ""),
    ],
)
def test_one_tensor_given_twice(x: str, out: str, before: str) -> None:
    assert [certain for _, certain in shared(x, out, before)] == [True]


def test_one_tensor_given_twice_on_some_paths() -> None:
    assert shared("x", "y", "y = x if inplace else torch.empty_like(x)") == [("x", False)]


@pytest.mark.parametrize(
    ("x", "out", "before"),
    [
        ("x", "w", ""),
        ("x[0]", "x[1]", ""),
        ("x", "y", "y = torch.empty_like(x)"),
        ("a", "b", "a = torch.empty(4)\nb = torch.empty(4)"),
        ("torch.empty(4)", "torch.empty(4)", ""),
        ("x", "y", "y = x.clone()"),
        ("x.shape[0]", "x", ""),
    ],
)
def test_different_tensors_are_no_alias(x: str, out: str, before: str) -> None:
    assert shared(x, out, before) == []
