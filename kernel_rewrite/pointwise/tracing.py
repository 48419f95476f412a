"""Python functions -> graph, by calling them with stand-ins for tensors.

Each step is handed to the parser as the expression it is, so that one epilogue has one graph, however it is given.
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from kernel_rewrite.diagnostics import FusionRefused
from kernel_rewrite.model import Operand, Span
from kernel_rewrite.pointwise import building
from kernel_rewrite.pointwise.declarations import check_name
from kernel_rewrite.pointwise.function import Pointwise
from kernel_rewrite.pointwise.graph import Input, Node
from kernel_rewrite.pointwise.markers import KINDS
from kernel_rewrite.pointwise.parsing import EPILOGUE_FILE, Parser
from kernel_rewrite.pointwise.reading import finished, refusal, triton_function
from kernel_rewrite.pointwise.torch_side import INFIX

_PLACE = Span(EPILOGUE_FILE, 1, 0, 1, 1)


def traced(function: Callable[..., Any], operands: Mapping[str, Operand] | None = None) -> Pointwise:
    """What `function` computes, found by calling it with stand-ins for x and the operands: it may be made of torch's
    functions of single elements, Tensor methods and operators, or be one of torch's functions itself.

    Raises FusionRefused with KR120 where the function looks at a value or fails, KR121 for an operand whose name is
    taken, and with the codes of `parse_epilogue`.
    """
    if hasattr(function, "fn") and hasattr(function, "run"):  # triton.JITFunction, or an autotuner around one
        raise triton_function(getattr(function, "__name__", "function"), _PLACE)
    declared = _declared(function, operands or {})
    trace = _Trace(Parser("\n", declared))
    x = trace.value(Input(), "x")
    given = {name: trace.value(Input(name), name) for name in declared}
    result = _called(function, x, given, trace)
    if not isinstance(result, _Value):
        message = f"{_name_of(function)} returns {type(result).__name__}, not a function of x"
        raise refusal(message, _PLACE, "return one tensor computed from x")
    return finished(trace.parser, trace.parser.names[result._name], _located(ast.Name(result._name, ast.Load())))


def _called(function: Callable[..., Any], x: _Value, operands: Mapping[str, _Value], trace: _Trace) -> Any:
    """What `function` returns. What it was refused counts even if it caught that."""
    positional = [value for name, value in operands.items() if not _takes_by_name(function, name)]
    named = {name: value for name, value in operands.items() if _takes_by_name(function, name)}
    try:
        result = function(x, *positional, **named)
    except FusionRefused:
        raise
    except Exception as error:
        if trace.refused is None:
            message = f"{_name_of(function)} cannot be followed: {type(error).__name__}: {error}"
            raise refusal(message, _PLACE, _OWN_FUNCTIONS) from error
    if trace.refused is not None:
        raise trace.refused
    return result


_OWN_FUNCTIONS = "choose element by element with `torch.where(condition, a, b)`, and use torch's own functions"


def _is_own(function: Callable[..., Any]) -> bool:
    """Whether it is a Python function whose parameters say what its operands are; else it is called with x and with all
    that is declared."""
    root = str(getattr(function, "__module__", "")).partition(".")[0]
    return (inspect.isfunction(function) or inspect.ismethod(function)) and root != "torch"


def _takes_by_name(function: Callable[..., Any], name: str) -> bool:
    if not _is_own(function):
        return False
    return inspect.signature(function).parameters[name].kind is not inspect.Parameter.POSITIONAL_ONLY


def _name_of(function: Callable[..., Any]) -> str:
    return f"`{getattr(function, '__name__', type(function).__name__)}`"


def _declared(function: Callable[..., Any], given: Mapping[str, Operand]) -> dict[str, Operand]:
    if not _is_own(function):
        return dict(given)
    declared = {}
    for name, parameter in list(inspect.signature(function).parameters.items())[1:]:
        annotation = parameter.annotation
        kind = KINDS.get(str(getattr(annotation, "__name__", annotation)).strip("'\"").rpartition(".")[2])
        if name in given:
            declared[name] = given[name]
        elif kind is not None:
            declared[name] = Operand(name, kind)
        elif parameter.default is inspect.Parameter.empty:
            raise refusal(
                f"parameter `{name}` of {_name_of(function)} does not say how it lies over the output",
                _PLACE,
                f"annotate it with Row, Column, Tile or Scalar: `{name}: Row`",
            )
        if name in declared:
            check_name(name)
    return declared


def _located(tree: ast.expr) -> ast.expr:
    """`tree` with places, which a diagnostic wants."""
    for node in ast.walk(tree):
        if isinstance(node, ast.expr | ast.keyword):
            node.lineno = node.end_lineno = 1
            node.col_offset = node.end_col_offset = 0
    return tree


class _Trace:
    """The steps of one call, and the first reason why it cannot be followed."""

    def __init__(self, parser: Parser) -> None:
        self.parser = parser
        self.refused: FusionRefused | None = None
        self._steps = 0

    def value(self, node: Node, name: str = "") -> _Value:
        while not name or (name in self.parser.names and not isinstance(node, Input)):
            self._steps += 1
            name = f"step_{self._steps}"
        self.parser.names[name] = node
        return _Value(self, name)

    def step(self, tree: ast.expr) -> _Value:
        try:
            return self.value(self.parser.node(_located(tree)))
        except FusionRefused as refused:
            raise self.refuse(refused) from None

    def refuse(self, refused: FusionRefused) -> FusionRefused:
        """`refused`, which is kept: the function may catch it."""
        self.refused = self.refused or refused
        return refused

    def looked_at(self, what: str) -> FusionRefused:
        return self.refuse(refusal(f"the function {what}", _PLACE, _OWN_FUNCTIONS))

    def tree(self, value: Any) -> ast.expr:
        """A value of the running function as an expression."""
        if isinstance(value, _Value):
            return ast.Name(value._name, ast.Load())
        if isinstance(value, _Dtype):
            return ast.Attribute(ast.Name(value.of, ast.Load()), "dtype", ast.Load())
        if value is None or isinstance(value, bool | str):
            return ast.Constant(value)
        if isinstance(value, int | float):
            plain = int(value) if isinstance(value, int) else float(value)  # of a subclass, such as numpy's float64
            text = f"float('{plain}')" if plain in (float("inf"), -float("inf")) else repr(plain)
            return ast.parse(text, mode="eval").body
        if type(value).__name__ == "dtype" and str(value).startswith("torch."):
            return ast.parse(str(value), mode="eval").body
        message = f"the function uses a {type(value).__name__} of its surroundings"
        raise self.refuse(refusal(message, _PLACE, "make it a parameter: `def epilogue(x, bias: Row):`"))

    def call(self, function: ast.expr, arguments: tuple[Any, ...], keywords: Mapping[str, Any]) -> _Value:
        named = [ast.keyword(name, self.tree(value)) for name, value in keywords.items() if value is not None]
        return self.step(ast.Call(function, [self.tree(value) for value in arguments], named))


class _Unseen:
    """What no function that is traced may look at: it would decide by it."""

    def __init__(self, trace: _Trace, what: str) -> None:
        self._trace, self._what = trace, what

    def _look(self, *_: Any) -> NoReturn:
        raise self._trace.looked_at(f"looks at {self._what}")

    __bool__ = __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = __getattr__ = __iter__ = __len__ = _look
    __hash__ = _look


class _Dtype(_Unseen):
    """`x.dtype` while a function is traced: a type to cast to, and nothing to compare."""

    def __init__(self, trace: _Trace, of: str) -> None:
        super().__init__(trace, "the type of a tensor")
        self.of = of


class _Method(_Unseen):
    """`x.relu` while a function is traced: to be called, if that is a method."""

    def __init__(self, trace: _Trace, tree: ast.Attribute) -> None:
        super().__init__(trace, f"`{tree.attr}` of a tensor")
        self._tree = tree

    def __call__(self, *arguments: Any, **keywords: Any) -> _Value:
        return self._trace.call(self._tree, arguments, keywords)


class _Value:
    """Stands for a tensor while a function is traced; every operation on it is a step."""

    __array_ufunc__ = None  # numpy leaves the operators to this class

    def __init__(self, trace: _Trace, name: str) -> None:
        self._trace, self._name = trace, name

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        """torch's tensor, for who asks whether it is one."""
        torch = sys.modules.get("torch")
        return torch.Tensor if torch is not None else _Value

    @classmethod
    def __torch_function__(
        cls, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> _Value:
        keywords = dict(kwargs or {})
        trace: _Trace = next(v._trace for v in (*args, *keywords.values()) if type(v) is cls)
        return trace.call(ast.Name(function.__name__, ast.Load()), args, keywords)

    def __getattr__(self, name: str) -> Any:
        if name == "dtype":
            return _Dtype(self._trace, self._name)
        tree = ast.Attribute(ast.Name(self._name, ast.Load()), name, ast.Load())
        if name in ("T", "mT", "shape"):
            return self._trace.step(tree)
        return _Method(self._trace, tree)

    def __getitem__(self, index: Any) -> _Value:
        return self._trace.step(ast.Subscript(ast.Name(self._name, ast.Load()), ast.Constant(str(index)), ast.Load()))

    def __matmul__(self, other: Any) -> _Value:
        return self._trace.step(ast.BinOp(self._trace.tree(self), ast.MatMult(), self._trace.tree(other)))

    def __bool__(self) -> bool:
        raise self._trace.looked_at("asks whether a tensor is true")

    def __float__(self) -> float:
        raise self._trace.looked_at("makes a Python number of a tensor")

    __int__ = __index__ = __complex__ = __float__

    def __iter__(self) -> Any:
        raise self._trace.looked_at("goes through a tensor")

    __len__ = __contains__ = __iter__

    def __neg__(self) -> _Value:
        return self._trace.step(ast.UnaryOp(ast.USub(), self._trace.tree(self)))

    def __invert__(self) -> _Value:
        return self._trace.step(ast.UnaryOp(ast.Invert(), self._trace.tree(self)))

    def __abs__(self) -> _Value:
        return self._trace.call(ast.Name("abs", ast.Load()), (self,), {})

    __hash__ = None  # type: ignore[assignment]


def _operator(symbol: type[ast.AST], reflected: bool) -> Callable[[_Value, Any], _Value]:
    def apply(self: _Value, other: Any) -> _Value:
        trace = self._trace
        left, right = (other, self) if reflected else (self, other)
        sides = trace.tree(left), trace.tree(right)
        if issubclass(symbol, ast.cmpop):
            return trace.step(ast.Compare(sides[0], [symbol()], [sides[1]]))
        assert issubclass(symbol, ast.operator)
        return trace.step(ast.BinOp(sides[0], symbol(), sides[1]))

    return apply


for _infix in building.BINARY:
    _symbol, _function = INFIX[_infix]
    _method = _function.__name__.strip("_")
    setattr(_Value, f"__{_method}__", _operator(_symbol, False))
    if issubclass(_symbol, ast.operator):
        setattr(_Value, f"__r{_method}__", _operator(_symbol, True))
