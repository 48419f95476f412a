"""Python functions -> graph: by reading their text (`parsed_function`, which runs nothing) or by calling them with
stand-ins for tensors (`traced`).

Both hand each step to the parser as the expression it is, so that one epilogue has one graph, however it is given.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from kernel_rewrite.diagnostics import Diagnostic, FusionRefused, Label
from kernel_rewrite.model import Operand, Span
from kernel_rewrite.pointwise import building
from kernel_rewrite.pointwise.function import Pointwise
from kernel_rewrite.pointwise.graph import Input, Node
from kernel_rewrite.pointwise.markers import KINDS
from kernel_rewrite.pointwise.parsing import EPILOGUE_FILE, Parser
from kernel_rewrite.pointwise.torch_side import INFIX


def _refusal(message: str, span: Span, help: str) -> FusionRefused:
    return FusionRefused((Diagnostic("KR120", message, (Label(span),), help=help),))


# ------------------------------------------------------------------------------------------------------------- reading


def parsed_function(
    source_text: str, name: str, operands: Mapping[str, Operand] | None = None, *, file: str = EPILOGUE_FILE
) -> Pointwise:
    """The function `name` of a Python source, read and not run: its first parameter is x, the others are operands, declared
    by their annotations (`Row`, `Column`, `Tile`, `Scalar`) or in `operands`.

    Raises FusionRefused with KR120 where the function does more than assign names and return an expression, and with the
    codes of `parse_epilogue` for its expressions.
    """
    try:
        module = ast.parse(source_text)
    except SyntaxError as error:
        line = error.lineno or 1
        raise _refusal(f"`{file}` is not valid Python: {error.msg}", Span(file, line, 0, line, 1), "") from None
    definition = _definition(module, name)
    if definition is None:
        known = ", ".join(f"`{n.name}`" for n in module.body if isinstance(n, ast.FunctionDef)) or "none"
        raise _refusal(f"no function `{name}`", Span(file, 1, 0, 1, 1), f"the functions of the file: {known}")
    first, declared = _parameters(definition, operands or {}, file)
    parser = Parser(source_text, declared, names={first: Input()}, file=file, modules=_torch_modules(module))
    if isinstance(definition, ast.Lambda):
        return parser.pointwise(definition.body)
    return _body(definition, parser)


def _definition(module: ast.Module, name: str) -> ast.FunctionDef | ast.Lambda | None:
    found: ast.FunctionDef | ast.Lambda | None = None
    for node in module.body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            found = node
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Lambda):
            if any(isinstance(target, ast.Name) and target.id == name for target in node.targets):
                found = node.value
    return found


def _parameters(
    definition: ast.FunctionDef | ast.Lambda, given: Mapping[str, Operand], file: str
) -> tuple[str, dict[str, Operand]]:
    arguments = definition.args
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    if not every or arguments.vararg or arguments.kwarg:
        raise _refusal(
            "the function does not name its parameters",
            Span.of(file, definition),
            "write `def epilogue(x, bias: Row):`",
        )
    declared = {}
    for argument in every[1:]:
        annotation = ast.unparse(argument.annotation) if argument.annotation is not None else ""
        kind = KINDS.get(annotation.strip("'\"").rpartition(".")[2])
        if argument.arg in given:
            declared[argument.arg] = given[argument.arg]
        elif kind is not None:
            declared[argument.arg] = Operand(argument.arg, kind)
        else:
            raise _refusal(
                f"parameter `{argument.arg}` does not say how it lies over the output",
                Span.of(file, argument),
                f"annotate it with Row, Column, Tile or Scalar: `{argument.arg}: Row`",
            )
    return every[0].arg, declared


def _torch_modules(module: ast.Module) -> frozenset[str]:
    """The names under which the file knows modules of torch."""
    found = set()
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            found |= {a.asname for a in node.names if a.asname and a.name.partition(".")[0] == "torch"}
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "torch":
            found |= {a.asname or a.name for a in node.names if a.name in ("functional", "special")}
    return frozenset(found)


def _body(definition: ast.FunctionDef, parser: Parser) -> Pointwise:
    for position, statement in enumerate(definition.body):
        match statement:
            case ast.Expr(value=ast.Constant(value=str())) if position == 0:
                continue
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                parser.names[name] = parser.node(value)
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                parser.names[name] = parser.node(value)
            case ast.AugAssign(target=ast.Name(id=name) as target, op=operator, value=value):
                load = ast.copy_location(ast.Name(name, ast.Load()), target)
                parser.names[name] = parser.node(ast.copy_location(ast.BinOp(load, operator, value), statement))
            case ast.Return(value=ast.expr() as value):
                return parser.pointwise(value)
            case _:
                raise _refusal(
                    f"`{definition.name}` does more than assign names and return an expression",
                    parser.span(statement),
                    "choose element by element with `torch.where(condition, a, b)`, and write loops out",
                )
    raise _refusal(f"`{definition.name}` returns nothing", parser.span(definition), "return the value to store")


# ------------------------------------------------------------------------------------------------------------- calling


def traced(function: Callable[..., Any], operands: Mapping[str, Operand] | None = None) -> Pointwise:
    """What `function` computes, found by calling it with stand-ins for x and the operands: it may be made of torch's
    functions of single elements, Tensor methods and operators, or be one of torch's functions itself.

    Raises FusionRefused with KR120 where the function looks at a value, and with the codes of `parse_epilogue`.
    """
    declared = _declared(function, operands or {})
    trace = _Trace(Parser("\n", declared))
    x = trace.value(Input(), "x")
    result = function(x, *(trace.operand(name) for name in declared))
    if not isinstance(result, _Value):
        message = f"{_name_of(function)} returns {type(result).__name__}, not a function of x"
        raise _refusal(message, Span(EPILOGUE_FILE, 1, 0, 1, 1), "return one tensor computed from x")
    return trace.parser.finished(trace.parser.names[result._name], _located(ast.Name(result._name, ast.Load())))


def _name_of(function: Callable[..., Any]) -> str:
    return f"`{getattr(function, '__name__', type(function).__name__)}`"


def _declared(function: Callable[..., Any], given: Mapping[str, Operand]) -> dict[str, Operand]:
    own = inspect.isfunction(function) and str(function.__module__).partition(".")[0] != "torch"
    if not own:  # a function of torch, or a module: x alone, whatever else it could take
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
            raise _refusal(
                f"parameter `{name}` of {_name_of(function)} does not say how it lies over the output",
                Span(EPILOGUE_FILE, 1, 0, 1, 1),
                f"annotate it with Row, Column, Tile or Scalar: `{name}: Row`",
            )
    return declared


def _located(tree: ast.expr) -> ast.expr:
    """`tree` with places, which a diagnostic wants."""
    for node in ast.walk(tree):
        if isinstance(node, ast.expr | ast.keyword):
            node.lineno = node.end_lineno = 1
            node.col_offset = node.end_col_offset = 0
    return tree


class _Trace:
    """The steps of one call."""

    def __init__(self, parser: Parser) -> None:
        self.parser = parser
        self._steps = 0

    def value(self, node: Node, name: str = "") -> _Value:
        if not name:
            self._steps += 1
            name = f"step_{self._steps}"
        self.parser.names[name] = node
        return _Value(self, name)

    def operand(self, name: str) -> _Value:
        return self.value(Input(name), name)

    def step(self, tree: ast.expr) -> _Value:
        return self.value(self.parser.node(_located(tree)))

    def tree(self, value: Any) -> ast.expr:
        """A value of the running function as an expression."""
        if isinstance(value, _Value):
            return ast.Name(value._name, ast.Load())
        if isinstance(value, _Dtype):
            return ast.Attribute(ast.Name(value.of, ast.Load()), "dtype", ast.Load())
        if value is None or isinstance(value, bool | str):
            return ast.Constant(value)
        if isinstance(value, int | float):
            return ast.parse(
                f"float('{value}')" if value in (float("inf"), -float("inf")) else repr(value), mode="eval"
            ).body
        if type(value).__name__ == "dtype":
            return ast.parse(str(value), mode="eval").body
        raise _refusal(
            f"the function uses a {type(value).__name__} of its surroundings",
            Span(EPILOGUE_FILE, 1, 0, 1, 1),
            "make it a parameter: `def epilogue(x, bias: Row):`",
        )

    def call(self, function: ast.expr, arguments: tuple[Any, ...], keywords: Mapping[str, Any]) -> _Value:
        named = [ast.keyword(name, self.tree(value)) for name, value in keywords.items() if value is not None]
        return self.step(ast.Call(function, [self.tree(value) for value in arguments], named))


class _Dtype:
    """`x.dtype` while a function is traced."""

    def __init__(self, of: str) -> None:
        self.of = of


class _Value:
    """Stands for a tensor while a function is traced; every operation on it is a step."""

    def __init__(self, trace: _Trace, name: str) -> None:
        self._trace, self._name = trace, name

    @classmethod
    def __torch_function__(
        cls, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> _Value:
        keywords = dict(kwargs or {})
        trace = next(v._trace for v in (*args, *keywords.values()) if isinstance(v, _Value))
        return trace.call(ast.Name(function.__name__, ast.Load()), args, keywords)

    def __getattr__(self, name: str) -> Any:
        if name == "dtype":
            return _Dtype(self._name)
        tree = ast.Attribute(ast.Name(self._name, ast.Load()), name, ast.Load())
        if name in ("T", "mT", "shape", "size", "item", "device"):
            return self._trace.step(tree)

        def method(*arguments: Any, **keywords: Any) -> _Value:
            return self._trace.call(tree, arguments, keywords)

        return method

    def __getitem__(self, index: Any) -> _Value:
        return self._trace.step(ast.Subscript(ast.Name(self._name, ast.Load()), ast.Constant(str(index)), ast.Load()))

    def __matmul__(self, other: Any) -> _Value:
        return self._trace.step(ast.BinOp(self._trace.tree(self), ast.MatMult(), self._trace.tree(other)))

    def __bool__(self) -> bool:
        raise self._looked_at("asks whether a tensor is true")

    def __float__(self) -> float:
        raise self._looked_at("makes a Python number of a tensor")

    def __iter__(self) -> Any:
        raise self._looked_at("goes through a tensor")

    def _looked_at(self, what: str) -> FusionRefused:
        help = "choose element by element with `torch.where(condition, a, b)`, and use torch's own functions"
        return _refusal(f"the function {what}", Span(EPILOGUE_FILE, 1, 0, 1, 1), help)

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
