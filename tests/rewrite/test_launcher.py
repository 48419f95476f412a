"""Launchers take the operands and pass them on; what cannot is left alone, and said."""

from __future__ import annotations

import ast
from textwrap import dedent

import pytest
from launched import BIAS, IMPORTS, KERNEL, RESIDUAL, SCALE, host, rewritten

from kernel_rewrite.diagnostics import Severity
from kernel_rewrite.rewrite.launcher import kernel_contract
from kernel_rewrite.rewrite.parameters import NewParameter

CASES = {
    "positional": (
        "def f(x, y):\n    kernel[(1,)](x, y, x.numel(), 64)\n",
        "def f(x, y, *, bias):\n    kernel[(1,)](x, y, x.numel(), 64, bias_ptr=bias)\n",
    ),
    "keywords": (
        "def f(x, y):\n    kernel[(1,)](x_ptr=x, out_ptr=y, n=x.numel(), BLOCK=64, num_warps=4)\n",
        "def f(x, y, *, bias):\n    kernel[(1,)](x_ptr=x, out_ptr=y, n=x.numel(), bias_ptr=bias, BLOCK=64, num_warps=4)\n",
    ),
    "mixed": (
        "def f(x, y):\n    kernel[(1,)](x, y, x.numel(), BLOCK=64)\n",
        "def f(x, y, *, bias):\n    kernel[(1,)](x, y, x.numel(), bias_ptr=bias, BLOCK=64)\n",
    ),
    "arguments in a tuple": (
        "def f(x, y):\n    args = (x, y, 4)\n    kernel[(1,)](*args, BLOCK=64)\n",
        "def f(x, y, *, bias):\n    args = (x, y, 4)\n    kernel[(1,)](*args, bias_ptr=bias, BLOCK=64)\n",
    ),
    "arguments in a dict": (
        "def f(x, y):\n    kernel[(1,)](x, y, 4, **{'BLOCK': 64})\n",
        "def f(x, y, *, bias):\n    kernel[(1,)](x, y, 4, bias_ptr=bias, **{'BLOCK': 64})\n",
    ),
    "nothing but a dict": (
        "def f(**options):\n    kernel[(1,)](**options)\n",
        "def f(*, bias, **options):\n    kernel[(1,)](bias_ptr=bias, **options)\n",
    ),
    "a grid of a lambda": (
        "def f(x, y):\n    kernel[lambda meta: (triton.cdiv(4, meta['BLOCK']),)](x, y, 4, BLOCK=64)\n",
        "def f(x, y, *, bias):\n    kernel[lambda meta: (triton.cdiv(4, meta['BLOCK']),)](x, y, 4, bias_ptr=bias, BLOCK=64)\n",
    ),
    "a grid of a nested function": (
        "def f(x, y):\n    def grid(meta):\n        return (4,)\n    kernel[grid](x, y, 4, BLOCK=64)\n",
        "def f(x, y, *, bias):\n    def grid(meta):\n        return (4,)\n    kernel[grid](x, y, 4, bias_ptr=bias, BLOCK=64)\n",
    ),
    "run": (
        "def f(x, y):\n    kernel.run(x, y, 4, BLOCK=64, grid=(1,), warmup=False)\n",
        "def f(x, y, *, bias):\n    kernel.run(x, y, 4, bias_ptr=bias, BLOCK=64, grid=(1,), warmup=False)\n",
    ),
    "warmup": (
        "def f(x, y):\n    kernel.warmup(x, y, 4, BLOCK=64, grid=(1,))\n",
        "def f(x, y, *, bias):\n    kernel.warmup(x, y, 4, bias_ptr=bias, BLOCK=64, grid=(1,))\n",
    ),
    "wrap_triton": (
        "def f(x, y):\n    wrap_triton(kernel)[(1,)](x, y, 4, BLOCK=64)\n",
        "def f(x, y, *, bias):\n    wrap_triton(kernel)[(1,)](x, y, 4, bias_ptr=bias, BLOCK=64)\n",
    ),
    "another name": (
        "def f(x, y):\n    fn = kernel\n    fn[(1,)](x, y, 4, BLOCK=64)\n",
        "def f(x, y, *, bias):\n    fn = kernel\n    fn[(1,)](x, y, 4, bias_ptr=bias, BLOCK=64)\n",
    ),
    "a tuner put around it": (
        "tuned = triton.autotune(configs=[], key=[])(kernel)\ndef f(x, y):\n    tuned[(1,)](x, y, 4, BLOCK=64)\n",
        "tuned = triton.autotune(configs=[], key=[])(kernel)\ndef f(x, y, *, bias):\n    tuned[(1,)](x, y, 4, bias_ptr=bias, BLOCK=64)\n",
    ),
    "two launches of one function": (
        "def f(x, y):\n    if x is y:\n        kernel[(1,)](x, y, 4, 64)\n    else:\n        kernel[(2,)](x, y, 4, 32)\n",
        "def f(x, y, *, bias):\n    if x is y:\n        kernel[(1,)](x, y, 4, 64, bias_ptr=bias)\n    else:\n        kernel[(2,)](x, y, 4, 32, bias_ptr=bias)\n",
    ),
    "two functions": (
        "def f(x, y):\n    kernel[(1,)](x, y, 4, 64)\ndef g(x, y=None):\n    kernel[(1,)](x, y, 4, 64)\n",
        "def f(x, y, *, bias):\n    kernel[(1,)](x, y, 4, 64, bias_ptr=bias)\ndef g(x, y=None, *, bias):\n    kernel[(1,)](x, y, 4, 64, bias_ptr=bias)\n",
    ),
    "keyword-only parameters of its own": (
        "def f(x, y, *, eps=1e-5):\n    kernel[(1,)](x, y, 4, 64)\n",
        "def f(x, y, *, eps=1e-5, bias):\n    kernel[(1,)](x, y, 4, 64, bias_ptr=bias)\n",
    ),
    "sorted keyword-only parameters": (
        "def f(x, y, *, a, c, d, **rest):\n    kernel[(1,)](x, y, 4, 64)\n",
        "def f(x, y, *, a, bias, c, d, **rest):\n    kernel[(1,)](x, y, 4, 64, bias_ptr=bias)\n",
    ),
    "positional rest": (
        "def f(x, y, *rest):\n    kernel[(1,)](x, y, 4, 64)\n",
        "def f(x, y, *rest, bias):\n    kernel[(1,)](x, y, 4, 64, bias_ptr=bias)\n",
    ),
    "no parameters": (
        "def f():\n    kernel[(1,)](X, Y, 4, 64)\n",
        "def f(*, bias):\n    kernel[(1,)](X, Y, 4, 64, bias_ptr=bias)\n",
    ),
    "annotated": (
        "def f(x: torch.Tensor, y: torch.Tensor) -> None:\n    kernel[(1,)](x, y, 4, 64)\n",
        "def f(x: torch.Tensor, y: torch.Tensor, *, bias: torch.Tensor) -> None:\n    kernel[(1,)](x, y, 4, 64, bias_ptr=bias)\n",
    ),
    "a method": (
        "class M:\n    def forward(self, x: T):\n        kernel[(1,)](x, self.y, 4, 64)\n",
        "class M:\n    def forward(self, x: T, *, bias: torch.Tensor):\n        kernel[(1,)](x, self.y, 4, 64, bias_ptr=bias)\n",
    ),
    "a static method": (
        "class M:\n    @staticmethod\n    @torch.no_grad()\n    def run(x):\n        kernel[(1,)](x, x, 4, 64)\n",
        "class M:\n    @staticmethod\n    @torch.no_grad()\n    def run(x, *, bias):\n        kernel[(1,)](x, x, 4, 64, bias_ptr=bias)\n",
    ),
    "a nested function that is only called": (
        "def f(x, y):\n    def launch(block):\n        kernel[(1,)](x, y, 4, block)\n    launch(64)\n",
        "def f(x, y, *, bias):\n    def launch(block):\n        kernel[(1,)](x, y, 4, block, bias_ptr=bias)\n    launch(64)\n",
    ),
    "a nested function without parameters": (
        "def f(x, y):\n    def launch():\n        kernel[(1,)](x, y, 4, 64)\n    return time(launch)\n",
        "def f(x, y, *, bias):\n    def launch():\n        kernel[(1,)](x, y, 4, 64, bias_ptr=bias)\n    return time(launch)\n",
    ),
    "a nested function that is given away": (
        "def make(block):\n    def launch(x, y):\n        kernel[(1,)](x, y, 4, block)\n    return launch\n",
        "def make(block):\n    def launch(x, y, *, bias):\n        kernel[(1,)](x, y, 4, block, bias_ptr=bias)\n    return launch\n",
    ),
    "an asynchronous one": (
        "async def f(x, y):\n    kernel[(1,)](x, y, 4, 64)\n",
        "async def f(x, y, *, bias):\n    kernel[(1,)](x, y, 4, 64, bias_ptr=bias)\n",
    ),
    "one parameter a line": (
        "def f(\n    x,  # in\n    y,  # out\n):\n    kernel[(1,)](\n        x,\n        y,  # out\n        4,\n        BLOCK=64,\n    )\n",
        "def f(\n    x,  # in\n    y,  # out\n    *,\n    bias,\n):\n    kernel[(1,)](\n        x,\n        y,  # out\n        4,\n        bias_ptr=bias,\n        BLOCK=64,\n    )\n",
    ),
    "no trailing comma": (
        "def f(\n        x,\n        y  # out, (\n):\n    kernel[(1,)](x, y,\n                 4, (64)\n                 )\n",
        "def f(\n        x,\n        y,  # out, (\n        *,\n        bias\n):\n    kernel[(1,)](x, y,\n                 4, (64),\n                 bias_ptr=bias\n                 )\n",
    ),
    "a wrapper": (
        "def f(x, y):\n    kernel[(1,)](x, y, 4, 64)\n    return y\ndef public(x, y):\n    '''Doc.'''\n    return f(x, y)\ndef outer(x):\n    return public(x, y=x)\n",
        "def f(x, y, *, bias):\n    kernel[(1,)](x, y, 4, 64, bias_ptr=bias)\n    return y\ndef public(x, y, *, bias):\n    '''Doc.'''\n    return f(x, y, bias=bias)\ndef outer(x, *, bias):\n    return public(x, y=x, bias=bias)\n",
    ),
    "a method that calls another": (
        "class M:\n    def run(self, x):\n        kernel[(1,)](x, x, 4, 64)\n    def forward(self, x):\n        return self.run(x)\n",
        "class M:\n    def run(self, x, *, bias):\n        kernel[(1,)](x, x, 4, 64, bias_ptr=bias)\n    def forward(self, x, *, bias):\n        return self.run(x, bias=bias)\n",
    ),
    "one that calls itself": (
        "def f(x, y):\n    if x is y:\n        f(x, 1)\n    kernel[(1,)](x, y, 4, 64)\n",
        "def f(x, y, *, bias):\n    if x is y:\n        f(x, 1, bias=bias)\n    kernel[(1,)](x, y, 4, 64, bias_ptr=bias)\n",
    ),
    "an operator": (
        "@torch.library.triton_op('lib::f', mutates_args={})\ndef f(x: torch.Tensor) -> torch.Tensor:\n    y = torch.empty_like(x)\n    wrap_triton(kernel)[(1,)](x, y, 4, 64)\n    return y\n@f.register_fake\ndef _(x):\n    return torch.empty_like(x)\n",
        "@torch.library.triton_op('lib::f', mutates_args={})\ndef f(x: torch.Tensor, *, bias: torch.Tensor) -> torch.Tensor:\n    y = torch.empty_like(x)\n    wrap_triton(kernel)[(1,)](x, y, 4, 64, bias_ptr=bias)\n    return y\n@f.register_fake\ndef _(x, *, bias: torch.Tensor):\n    return torch.empty_like(x)\n",
    ),
    "a decorator of the file": (
        "def guard(fn):\n    def wrapper(*args, **kwargs):\n        return fn(*args, **kwargs)\n    return wrapper\n@guard\ndef f(x, y):\n    kernel[(1,)](x, y, 4, 64)\n",
        "def guard(fn):\n    def wrapper(*args, **kwargs):\n        return fn(*args, **kwargs)\n    return wrapper\n@guard\ndef f(x, y, *, bias):\n    kernel[(1,)](x, y, 4, 64, bias_ptr=bias)\n",
    ),
    "a decorator that prepares the arguments": (
        "def guard(fn):\n    def wrapper(*args, **kwargs):\n        new = {}\n        for k, v in kwargs.items():\n            new[k] = v\n        return fn(*args, **new)\n    return wrapper\n@guard\ndef f(x, y):\n    kernel[(1,)](x, y, 4, 64)\n",
        "def guard(fn):\n    def wrapper(*args, **kwargs):\n        new = {}\n        for k, v in kwargs.items():\n            new[k] = v\n        return fn(*args, **new)\n    return wrapper\n@guard\ndef f(x, y, *, bias):\n    kernel[(1,)](x, y, 4, 64, bias_ptr=bias)\n",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_cases(case: str) -> None:
    before, after = CASES[case]
    text, outcome = host(before)
    assert text == after
    assert outcome.codes == []


@pytest.mark.parametrize("case", CASES)
def test_nothing_changes_without_operands(case: str) -> None:
    text, outcome = host(CASES[case][0], ())
    assert text == CASES[case][0]
    assert outcome.codes == [] and outcome.contract == ()


def test_several_operands() -> None:
    text, outcome = host("def f(x: T, y: T):\n    kernel[(1,)](x, y, 4, BLOCK=64)\n", (RESIDUAL, SCALE))
    assert text == (
        "def f(x: T, y: T, *, residual: torch.Tensor, scale: float):\n"
        "    kernel[(1,)](x, y, 4,\n"
        "                 residual_ptr=residual, scale=scale, stride_rm=residual.stride(0), stride_rn=residual.stride(1), BLOCK=64)\n"
    )
    assert outcome.codes == []
    assert outcome.contract == ("`f` takes `residual`, `scale` by keyword",)


def test_a_long_line_goes_on_below() -> None:
    arguments = ", ".join(f"argument_{n}" for n in range(8))
    text, _ = host(f"def function({arguments}):\n    kernel[(1,)](argument_0, argument_1, 4, BLOCK=64)\n")
    assert text.startswith(f"def function({arguments}, *, bias):\n")
    arguments = ", ".join(f"argument_{n}" for n in range(9))
    text, _ = host(f"def function({arguments}):\n    kernel[(1,)](argument_0, argument_1, 4, BLOCK=64)\n")
    assert text.startswith(f"def function({arguments},\n             *, bias):\n")


# what is left alone -----------------------------------------------------------------------------------------------------

LEFT = {
    "the top level": ("kernel[(1,)](X, Y, 4, 64)\n", "KR312"),
    "a class body": ("class C:\n    done = kernel[(1,)](X, Y, 4, 64)\n", "KR315"),
    "an autograd function": (
        "class F(torch.autograd.Function):\n    @staticmethod\n    def forward(ctx, x):\n        kernel[(1,)](x, x, 4, 64)\n",
        "KR313",
    ),
    "an autograd function of a base of the file": (
        "class Base(Function):\n    pass\nclass F(Base):\n    @staticmethod\n    def forward(ctx, x):\n        kernel[(1,)](x, x, 4, 64)\n",
        "KR313",
    ),
    "an operator with a backward": (
        "@torch.library.triton_op('lib::f', mutates_args={})\ndef f(x: torch.Tensor) -> None:\n    wrap_triton(kernel)[(1,)](x, x, 4, 64)\nf.register_autograd(backward)\n",
        "KR313",
    ),
    "an operator without annotations": (
        "@torch.library.custom_op('lib::f', mutates_args={})\ndef f(x):\n    kernel[(1,)](x, x, 4, 64)\n",
        "KR314",
    ),
    "an operator with a schema": (
        "@torch.library.custom_op('lib::f', mutates_args={}, schema='(Tensor x) -> ()')\ndef f(x: torch.Tensor) -> None:\n    kernel[(1,)](x, x, 4, 64)\n",
        "KR314",
    ),
    "an unknown decorator": ("@register('f')\ndef f(x):\n    kernel[(1,)](x, x, 4, 64)\n", "KR314"),
    "a decorator that drops keywords": (
        "def guard(fn):\n    def wrapper(*args, **kwargs):\n        return fn(*args)\n    return wrapper\n@guard\ndef f(x, y):\n    kernel[(1,)](x, y, 4, 64)\n",
        "KR314",
    ),
    "a property": ("class M:\n    @property\n    def f(self):\n        kernel[(1,)](self.x, self.x, 4, 64)\n", "KR314"),
    "an operator of Python": ("class M:\n    def __matmul__(self, x):\n        kernel[(1,)](x, x, 4, 64)\n", "KR314"),
    "one of two kernels": (
        "def f(x, y, c):\n    fn = kernel if c else other\n    fn[(1,)](x, y, 4, 64)\n",
        "KR315",
    ),
    "one of two kernels, in the launch": ("def f(x, y, c):\n    (kernel if c else other)[(1,)](x, y, 4, 64)\n", "KR315"),
    "given to a function": ("def f(x, y):\n    launch(kernel, (1,), x, y)\n", "KR315"),
    "in a table": ("KERNELS = {'a': kernel}\n", "KR315"),
    "a launcher kept": ("def f(x, y):\n    run = kernel[(1,)]\n    run(x, y, 4, 64)\n", "KR315"),
    "a compiled kernel": (
        "def f(x, y):\n    compiled = kernel.warmup(x, y, 4, 64, grid=(1,))\n    compiled[(1, 1, 1)](x, y, 4)\n",
        "KR315",
    ),
    "a parameter of that name": ("def f(x, y, bias=None):\n    kernel[(1,)](x, y, 4, 64)\n", "KR311"),
    "a name of that name": ("def f(x, y):\n    n = len(bias)\n    kernel[(1,)](x, y, n, 64)\n", "KR311"),
    "a nested name of that name": (
        "def f(x, y):\n    def launch():\n        bias = 1\n        kernel[(1,)](x, y, bias, 64)\n    launch()\n",
        "KR311",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", LEFT)
def test_a_launch_that_is_left_alone_is_an_error(case: str) -> None:
    before, code = LEFT[case]
    text, outcome = host(before)
    assert outcome.codes == [code]
    (diagnostic,) = outcome.diagnostics
    assert diagnostic.severity is Severity.ERROR and diagnostic.labels and diagnostic.help
    assert diagnostic.message[0].islower() or diagnostic.message[0] == "`"
    if code not in ("KR315",):
        assert text == before, "what is left alone is left alone entirely"


NEIGHBOURS = [
    "def f(x, y):\n    other[(1,)](x, y, 4, 64)\n",
    "def f(x, y):\n    print(kernel.cache)\n",
    "def f(x, y):\n    kernel = make()\n    kernel(x, y)\n",
    "__all__ = ['kernel']\n",
    "class F(torch.autograd.Function):\n    @staticmethod\n    def forward(ctx, x):\n        other[(1,)](x)\n",
    "@register\ndef f(x):\n    pass\n",
]


@pytest.mark.parametrize("before", NEIGHBOURS)
def test_functions_that_do_not_launch_the_kernel_are_not_touched(before: str) -> None:
    text, outcome = host(before)
    assert text == before
    assert outcome.contract == ()


CALLERS = {
    "the top level": "f(X, Y)\n",
    "something done to the result": "def g(x):\n    return f(x, x) + 1\n",
    "a result that is kept": "def g(x):\n    y = f(x, x)\n    return y\n",
    "one of two calls": "def g(x):\n    f(x, x)\n    return f(x, x)\n",
    "a test": "def test_f(x):\n    return f(x, x)\n",
    "a benchmark": "@triton.testing.perf_report([])\ndef g(x):\n    return f(x, x)\n",
    "an autograd function": "class F(torch.autograd.Function):\n    @staticmethod\n    def forward(ctx, x):\n        return f(x, x)\n",
    "an unknown decorator": "@register\ndef g(x):\n    return f(x, x)\n",
    "a caller with that name": "def g(x, bias):\n    return f(x, bias)\n",
}


@pytest.mark.parametrize("case", CALLERS)
def test_a_caller_that_is_left_alone_is_a_warning(case: str) -> None:
    launcher = "def f(x, y):\n    kernel[(1,)](x, y, 4, 64)\n    return y\n"
    text, outcome = host(launcher + CALLERS[case])
    assert text.endswith(CALLERS[case])
    assert outcome.codes and set(outcome.codes) == {"KR318"}
    assert all(d.severity is Severity.WARNING for d in outcome.diagnostics)
    assert len(outcome.contract) == 1 + len(outcome.diagnostics)
    assert "must pass `bias=`" in outcome.contract[-1]


@pytest.mark.parametrize(
    "caller",
    [
        "def g(f, x):\n    return f(x, x)\n",
        "def g(x):\n    f = make()\n    return f(x, x)\n",
        "class M:\n    def g(self, x):\n        return self.f(x)\n",
        "def g(other, x):\n    return other.f(x)\n",
    ],
)
def test_calls_of_something_else_are_not_touched(caller: str) -> None:
    launcher = "def f(x, y):\n    kernel[(1,)](x, y, 4, 64)\n    return y\n"
    text, outcome = host(launcher + caller)
    assert text.endswith(caller)
    assert outcome.codes == []


def test_the_contract_of_a_kernel_alone() -> None:
    outcome = rewritten(IMPORTS + KERNEL + "\ndef f(x):\n    kernel[(1,)](x, x, 4, 64)\n")
    line = outcome.file.text[: outcome.file.text.index("kernel[")].count("\n") + 1
    assert kernel_contract(outcome.kernel, (BIAS, RESIDUAL)) == (
        f"line {line}: `kernel[grid](..., bias_ptr=bias, residual_ptr=residual, "
        "stride_rm=residual.stride(0), stride_rn=residual.stride(1))`",
    )


# run --------------------------------------------------------------------------------------------------------------------


class Recorder:
    """Stands for a kernel: takes note of how it is launched."""

    def __init__(self) -> None:
        self.calls: list[tuple[object, tuple[object, ...], dict[str, object]]] = []

    def __getitem__(self, grid: object) -> object:
        grid = "function" if callable(grid) else grid
        return lambda *args, **kwargs: self.calls.append((grid, args, kwargs))

    def run(self, *args: object, grid: object, **kwargs: object) -> None:
        self.calls.append((grid, args, kwargs))

    warmup = run


class Operator:
    """Stands for a decorator of PyTorch's operators."""

    def __init__(self, function: object) -> None:
        self.function = function

    def __call__(self, *args: object, **kwargs: object) -> object:
        return self.function(*args, **kwargs)  # type: ignore[operator]

    def register_fake(self, fake: object) -> object:
        return fake


class Anything:
    """Stands for torch, triton and tensors: has every attribute, and returns the first argument or itself."""

    Tensor = object

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        if name in ("no_grad", "triton_op"):
            return lambda *a, **k: Operator if name == "triton_op" else lambda function: function
        return Anything()

    def __call__(self, *args: object, **kwargs: object) -> object:
        return self


def recorded(text: str, operands: dict[str, object]) -> list[tuple[object, tuple[object, ...], dict[str, object]]]:
    """The launches that calling each function of `text` makes."""
    recorder, x = Recorder(), Anything()
    names: dict[str, object] = dict(kernel=recorder, torch=x, triton=x, tl=x, T=object, X=x, Y=x)
    names |= dict(wrap_triton=lambda k: k, time=lambda f: f(), tuned=recorder)
    body = text.replace("tuned = triton.autotune(configs=[], key=[])(kernel)\n", "")
    exec(compile(body, "f.py", "exec"), names)
    for node in ast.parse(body).body:
        holder: object = names
        functions = [node]
        if isinstance(node, ast.ClassDef):
            holder = names[node.name]() if node.name == "M" else names[node.name]  # type: ignore[operator]
            holder.y = x  # type: ignore[attr-defined]
            functions = [n for n in node.body if isinstance(n, ast.FunctionDef)]
        for function in functions:
            if not isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)) or function.name in ("guard", "_"):
                continue
            call = names[function.name] if holder is names else getattr(holder, function.name)
            taken = [a for a in function.args.args if a.arg != "self"]
            options = {a.arg: x for a in function.args.kwonlyargs if a.arg not in operands}
            given = operands if any(a.arg in operands for a in function.args.kwonlyargs) else {}
            result = call(*[x, *range(len(taken))][: len(taken)], **options, **given)
            if isinstance(function, ast.AsyncFunctionDef):
                with pytest.raises(StopIteration):
                    result.send(None)
            if callable(result) and getattr(result, "__name__", "") == "launch":
                result(x, x, **operands)
    return recorder.calls


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("parameters", [(BIAS,), (RESIDUAL, SCALE)], ids=["row", "tile and number"])
def test_each_launch_passes_what_it_did_and_the_operands(case: str, parameters: tuple[NewParameter, ...]) -> None:
    before = CASES[case][0]
    text, _ = host(before, parameters)

    class Bias:
        def stride(self, dimension: int) -> int:
            return 100 + dimension

    operands: dict[str, object] = {p.operand: Bias() for p in parameters}
    added = {p.name: operands[p.operand] for p in parameters}
    added |= {name: 100 + dimension for p in parameters for name, dimension in p.strides}
    plain, new = recorded(before, {}), recorded(text, operands)
    assert plain, "the case launches nothing"

    def shown(
        calls: list[tuple[object, tuple[object, ...], dict[str, object]]], extra: dict[str, object]
    ) -> list[object]:
        return [
            (
                str(grid),
                [type(a).__name__ for a in args],
                {k: type(v).__name__ for k, v in kwargs.items() if k not in extra},
            )
            for grid, args, kwargs in calls
        ]

    assert shown(new, added) == shown(plain, {})
    assert all({k: kwargs[k] for k in added} == added for _, _, kwargs in new)


def test_the_rest_of_the_file_is_the_users() -> None:
    for before, _ in CASES.values():
        outcome = rewritten(IMPORTS + KERNEL + dedent(before), (RESIDUAL, SCALE))  # raises when something else changed
        compile(outcome.text, "f.py", "exec")
