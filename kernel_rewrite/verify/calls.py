"""The call expression: its evaluation over a module's names, its sizes, and how inputs are drawn.

add(randn(1000), randn(1000))        matmul(randn(96, 64, dtype=float16), randn(64, 80, dtype=float16))
"""

from __future__ import annotations

import ast
import random
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

FACTORIES = (
    "randn",
    "rand",
    "randint",
    "randperm",
    "empty",
    "zeros",
    "ones",
    "full",
    "arange",
    "linspace",
    "eye",
    "tensor",
)
"""torch's factories as a call expression may use them: `device` is filled in."""

DTYPES = (
    *("float16", "bfloat16", "float32", "float64", "half", "float", "double"),
    *("int8", "int16", "int32", "int64", "uint8", "bool"),
    *("float8_e4m3fn", "float8_e5m2"),
)

_SIZED_FROM: Mapping[str, int] = {"randn": 0, "rand": 0, "empty": 0, "zeros": 0, "ones": 0, "arange": 0, "randint": 1}
_RANDOM = ("randn", "rand")


# --------------------------------------------------------------------------------------------------------------- trials


@dataclass(frozen=True, slots=True)
class Inputs:
    """How one trial draws its inputs: a name for reports, the change of every size, and the special values.

    `special` is "" for none, "aligned" for the same special values at the same places of equally shaped tensors
    (so that -0.0 + -0.0 and inf + inf occur), "scattered" for independent ones. `beside_tile` puts every size that many
    elements beside a multiple of a tile. `layout`: "strided" gives the rows of every tensor a gap behind them, "offset"
    starts it one element into its storage. `dtype` (torch's name) takes the place of the first float type drawn.
    """

    name: str
    resize: Callable[[int], int] | None = None
    special: str = ""
    otherwise: Inputs | None = None  # what to try when the original rejects these
    beside_tile: int = 0
    layout: str = ""
    dtype: str = ""


def _one(size: int) -> int:
    return 1


PLAN: tuple[Inputs, ...] = (
    Inputs("as given"),
    Inputs("special values", special="aligned"),
    Inputs("sizes + 1", lambda size: size + 1, "scattered", Inputs("sizes + 16", lambda size: size + 16, "scattered")),
    Inputs("sizes - 1", lambda size: max(1, size - 1)),
    Inputs("sizes of 1", _one),
    Inputs("other special values", special="scattered"),
    Inputs("a tile and 1", beside_tile=1),
    Inputs("a tile less 1", beside_tile=-1),
    Inputs("sizes of 0", lambda size: 0),
    Inputs("rows apart", layout="strided"),
    Inputs("one element in", layout="offset"),
    *(Inputs(f"in {name}", special="scattered", dtype=name) for name in ("float16", "bfloat16", "float32", "float64")),
)
TRIALS = len(PLAN)


def trial_inputs(count: int, seed: int) -> Iterator[Inputs]:
    """The first `count` ways to draw inputs: the fixed plan, then sizes drawn at random up to those given."""
    yield from PLAN[:count]
    for number in range(len(PLAN), count):
        yield Inputs(f"random sizes {number - len(PLAN) + 1}", _drawn(seed * 1009 + number), "scattered")


def _drawn(seed: int) -> Callable[[int], int]:
    # The same size gives the same new size, so shapes that must agree still do.
    return lambda size: random.Random(seed * 1_000_003 + size).randint(1, max(1, size))


def applicable(call: str, inputs: Inputs) -> bool:
    """Whether the call can be drawn so. A call that launches the kernel itself names the output's type: it is kept."""
    if not inputs.dtype:
        return True
    calls = (node for node in ast.walk(ast.parse(call.strip(), mode="eval")) if isinstance(node, ast.Call))
    return not any(isinstance(node.func, ast.Subscript) for node in calls)


def sized_call(call: str, inputs: Inputs, tiles: Collection[int]) -> str | None:
    """`call` in the sizes of `inputs`; None when they change nothing. `tiles` are integers the kernel is compiled with."""
    if not inputs.beside_tile:
        return resized(call, inputs.resize)
    usable = sorted(tile for tile in tiles if tile > 1)
    if not usable:
        return None

    def beside(size: int) -> int:
        tile = max((t for t in usable if t <= size), default=usable[0])
        return max(1, size // tile * tile or tile) + inputs.beside_tile

    return resized(call, beside)


def resized(call: str, resize: Callable[[int], int] | None) -> str | None:
    """`call` with every literal size replaced, there and wherever else the same number stands (but for a grid and for
    keyword arguments in capitals, which are compile-time values). None when it has no literal size."""
    if resize is None:
        return call
    tree = ast.parse(call.strip(), mode="eval")
    sizes = {literal.value for literal in _size_literals(tree)}
    mapping = {size: resize(size) for size in sizes}
    if all(size == new for size, new in mapping.items()):
        return None
    return ast.unparse(_Resizer(mapping).visit(tree))


class _Resizer(ast.NodeTransformer):
    def __init__(self, mapping: Mapping[int, int]) -> None:
        self.mapping = mapping

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        if type(node.value) is int and node.value in self.mapping:
            return ast.copy_location(ast.Constant(self.mapping[node.value]), node)
        return node

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        return node  # kernel[(16,)]: the grid stays

    def visit_keyword(self, node: ast.keyword) -> ast.AST:
        if node.arg is not None and node.arg.isupper():  # BLOCK=128
            return node
        return self.generic_visit(node)


def _size_literals(tree: ast.AST) -> Iterator[Any]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
        for argument in _size_arguments(name, node):
            for literal in ast.walk(argument):
                if isinstance(literal, ast.Constant) and type(literal.value) is int and literal.value > 0:
                    yield literal


def _size_arguments(name: str, node: ast.Call) -> list[ast.expr]:
    named = [k.value for k in node.keywords if k.arg == "size"]
    if name == "randint":  # randint(high, size) or randint(low, high, size)
        return named or node.args[-1:]
    if name == "full":
        return named or node.args[:1]
    return named + node.args if name in _SIZED_FROM else []


# ----------------------------------------------------------------------------------------------------------- evaluation


def evaluate(
    call: str, module: Any, device: str, inputs: Inputs, seed: int, more: Mapping[str, Any] | None = None
) -> Any:
    """The value of `call`, with torch seeded first, and `more` names. Raises whatever the call raises."""
    import torch

    torch.manual_seed(seed)
    names = {**names_of(module, device, inputs, seed), **(more or {})}
    return eval(compile(call.strip(), "<call>", "eval"), names)


def names_of(module: Any, device: str, inputs: Inputs, seed: int) -> dict[str, Any]:
    """The module's own names over the factories and dtypes; what the module merely imports from torch gives way."""
    import torch

    offered: dict[str, Any] = {"torch": torch}
    offered |= {name: getattr(torch, name) for name in DTYPES if hasattr(torch, name)}
    draws = _Draws(inputs, seed)
    for name in FACTORIES:
        offered[name] = _on_device(getattr(torch, name), device, draws, sprinkled=name in _RANDOM)
    own = {name: value for name, value in vars(module).items() if name not in offered or not _is_torch(name, value)}
    return {**offered, **own}


def _is_torch(name: str, value: Any) -> bool:
    import torch

    return value is getattr(torch, name, None) or value is torch


def _on_device(factory: Callable[..., Any], device: str, draws: _Draws, *, sprinkled: bool) -> Callable[..., Any]:
    def drawn(*arguments: Any, **options: Any) -> Any:
        options.setdefault("device", device)
        value = draws.typed(factory(*arguments, **options))
        return draws.laid_out(draws.sprinkled(value) if sprinkled else value)

    return drawn


class _Draws:
    """What becomes of the tensors of one evaluation: their type, special values among them, their layout."""

    def __init__(self, inputs: Inputs, seed: int) -> None:
        self.inputs = inputs
        self.seed = seed
        self.count = 0
        self.first: Any = None  # the first float type drawn

    def typed(self, value: Any) -> Any:
        import torch

        if not self.inputs.dtype or not value.is_floating_point():
            return value
        self.first = self.first or value.dtype
        return value.to(getattr(torch, self.inputs.dtype)) if value.dtype == self.first else value

    def laid_out(self, value: Any) -> Any:
        """The same values in another layout, with other ones around them."""
        import torch

        if not self.inputs.layout or not value.dim() or not value.numel():
            return value
        gap = 8 if self.inputs.layout == "strided" and value.dim() > 1 else 0  # rows stay aligned to 8 elements
        rows = value.numel() // value.shape[-1]
        first = 0 if self.inputs.layout == "strided" else 1
        around = torch.ones(first + rows * (value.shape[-1] + gap), dtype=value.dtype, device=value.device)
        strides = list(value.stride()) if not gap else _strides(value.shape, value.shape[-1] + gap)
        view = around.as_strided(value.shape, strides, first)
        view.copy_(value)
        return view

    def sprinkled(self, value: Any) -> Any:
        import torch

        self.count += 1
        if not self.inputs.special or not value.is_floating_point() or not value.numel():
            return value
        aligned = self.inputs.special == "aligned"
        draw = random.Random(f"{self.seed} {value.numel()} {0 if aligned else self.count}")
        # Few enough that a product over a row or a column leaves most results ordinary.
        specials = special_values(value.dtype)
        wanted = max(len(specials), value.numel() // 256)
        places = draw.sample(range(value.numel()), min(wanted, max(1, value.numel() // 2)))
        values = [specials[i % len(specials)] for i in range(len(places))]
        draw.shuffle(values)
        flat = value.reshape(-1)
        flat[torch.tensor(places, device=value.device)] = (
            torch.tensor(values, dtype=torch.float64).to(value.dtype).to(value.device)
        )
        return flat.reshape(value.shape)


def _strides(shape: Sequence[int], row: int) -> list[int]:
    """The strides of a tensor of `shape` whose rows are `row` elements apart."""
    strides = [1]
    for position in range(len(shape) - 1, 0, -1):
        strides.insert(0, row if len(strides) == 1 else strides[0] * shape[position])
    return strides


def special_values(dtype: Any) -> list[float]:
    """Values that ops treat apart, all representable in `dtype` (a torch dtype)."""
    import torch

    info = torch.finfo(dtype)
    denormal = float(info.tiny) / 4
    return [
        *(float("nan"), float("inf"), float("-inf"), -0.0, 0.0),
        *(denormal, -denormal, float(info.tiny), float(info.max), float(info.min)),
        *(1.0, -1.0, 6.0, -6.0, 88.0, -88.0, -20.0),
    ]
