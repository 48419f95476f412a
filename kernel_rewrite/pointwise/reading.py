"""Functions of a Python file -> graph: read, and not run.

What a function's names stand for is looked up in its file: torch and its functions, numbers, and nothing else.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from kernel_rewrite.diagnostics import Diagnostic, FusionRefused, Label
from kernel_rewrite.model import Operand, Span
from kernel_rewrite.pointwise.declarations import check_name
from kernel_rewrite.pointwise.function import Pointwise
from kernel_rewrite.pointwise.graph import LARGEST, Input, Node, size
from kernel_rewrite.pointwise.markers import KINDS
from kernel_rewrite.pointwise.parsing import EPILOGUE_FILE, Parser

_Definition = ast.FunctionDef | ast.Lambda

_HARMLESS_DECORATORS = frozenset({"torch.compile", "torch.jit.script"})
"""Decorators that leave the values of a function as they are."""

_MODULES = frozenset({"torch", "math"})
"""The modules whose names an epilogue may use."""


def parsed_function(
    source_text: str, name: str, operands: Mapping[str, Operand] | None = None, *, file: str = EPILOGUE_FILE
) -> Pointwise:
    """The function `name` of a Python source, read and not run: its first parameter is x, the others are operands, declared
    by their annotations (`Row`, `Column`, `Tile`, `Scalar`) or in `operands`, or numbers, by their defaults.

    Raises FusionRefused with KR120 where the function does more than assign names and return an expression, KR121 for an
    operand whose name is taken, and with the codes of `parse_epilogue` for its expressions.
    """
    try:
        module = ast.parse(source_text)
    except SyntaxError as error:
        line = error.lineno or 1
        raise refusal(f"`{file}` is not valid Python: {error.msg}", Span(file, line, 0, line, 1)) from None
    surroundings = _Surroundings(module, file)
    definition = _definition(module, name, surroundings)
    parameters = _parameters(definition, operands or {}, file)
    local = {parameters.x, *parameters.operands, *_assigned(definition)}
    meanings = _Meanings(surroundings, {n: v for n, v in parameters.numbers.items() if n not in local}, local)
    parser = Parser(source_text, parameters.operands, names={parameters.x: Input()}, file=file)
    if isinstance(definition, ast.Lambda):
        value = meanings.of(definition.body)
        return finished(parser, parser.node(value), value)
    return _body(definition, parser, meanings)


def refusal(message: str, span: Span, help: str = "", *others: Label) -> FusionRefused:
    """KR120 at a place of the function."""
    return FusionRefused((Diagnostic("KR120", message, (Label(span), *others), help=help),))


def triton_function(name: str, span: Span) -> FusionRefused:
    """KR120 for a Triton function that is given as if it were one of torch."""
    help = f"let the kernel's file define or import it, and write the call: `{name}(x)`"
    return refusal(f"`{name}` is a Triton function, which is called at the store", span, help)


def finished(parser: Parser, node: Node, tree: ast.expr) -> Pointwise:
    """The function with result `node`, unless it is too large to be written out as one expression."""
    if size(node) > LARGEST:
        message = (
            f"the function comes to {size(node)} steps as one expression, more than the {LARGEST} that are sensible"
        )
        raise refusal(message, parser.span(tree), "fuse the first part of it, and leave the rest in torch")
    return parser.finished(node, tree)


# ------------------------------------------------------------------------------------------------------- the definition


def _definition(module: ast.Module, name: str, surroundings: _Surroundings) -> _Definition:
    """The one definition of `name`, which must be all that the name is ever given."""
    found: _Definition | None = None
    for node in module.body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            found = node
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Lambda):
            if any(isinstance(target, ast.Name) and target.id == name for target in node.targets):
                found = node.value
    places = surroundings.places(name)
    file = surroundings.file
    if found is None and places:
        raise refusal(f"`{name}` is no function that is written at the top level of the file", places[0], _WRITE_ONE)
    if found is None:
        known = ", ".join(f"`{n.name}`" for n in module.body if isinstance(n, ast.FunctionDef)) or "none"
        raise refusal(f"no function `{name}`", Span(file, 1, 0, 1, 1), f"the functions of the file: {known}")
    if len(places) > 1:
        message = f"`{name}` is bound {len(places)} times, and which one counts is decided at import"
        raise refusal(message, places[0], "give each a name of its own", Label(places[-1]))
    for decorator in found.decorator_list if isinstance(found, ast.FunctionDef) else ():
        spelled = ast.unparse(decorator).partition("(")[0]
        if spelled in ("triton.jit", "jit"):
            raise triton_function(name, Span.of(file, decorator))
        if spelled not in _HARMLESS_DECORATORS:
            message = f"what the decorator `{ast.unparse(decorator)}` makes of `{name}` does not stand in its text"
            raise refusal(message, Span.of(file, decorator), "leave the decorator out")
    return found


_WRITE_ONE = "write `def epilogue(x):` at the top level"


@dataclass(frozen=True, slots=True)
class _Parameters:
    """x, the operands, and numbers with their defaults."""

    x: str
    operands: Mapping[str, Operand]
    numbers: Mapping[str, ast.expr]


def _parameters(definition: _Definition, given: Mapping[str, Operand], file: str) -> _Parameters:
    arguments = definition.args
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    if not every or arguments.vararg or arguments.kwarg:
        raise refusal(
            "the function does not name its parameters",
            Span.of(file, definition),
            "write `def epilogue(x, bias: Row):`",
        )
    operands: dict[str, Operand] = {}
    numbers: dict[str, ast.expr] = {}
    defaults = _defaults(arguments)
    for argument in every[1:]:
        annotation = ast.unparse(argument.annotation) if argument.annotation is not None else ""
        kind = KINDS.get(annotation.strip("'\"").rpartition(".")[2])
        default = defaults.get(argument.arg)
        if argument.arg in given:
            operands[argument.arg] = given[argument.arg]
        elif kind is not None:
            operands[argument.arg] = Operand(argument.arg, kind)
        elif default is not None and _is_number(default):
            numbers[argument.arg] = default
            continue
        else:
            raise refusal(
                f"parameter `{argument.arg}` does not say how it lies over the output",
                Span.of(file, argument),
                f"annotate it with Row, Column, Tile or Scalar: `{argument.arg}: Row`",
            )
        check_name(argument.arg, Span.of(file, argument))
    return _Parameters(every[0].arg, operands, numbers)


def _defaults(arguments: ast.arguments) -> dict[str, ast.expr]:
    positional = [*arguments.posonlyargs, *arguments.args]
    pairs = list(zip(reversed(positional), reversed(arguments.defaults), strict=False))
    named = [(a, d) for a, d in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True) if d is not None]
    return {argument.arg: default for argument, default in [*pairs, *named]}


def _is_number(tree: ast.expr) -> bool:
    if isinstance(tree, ast.UnaryOp) and isinstance(tree.op, ast.USub):
        tree = tree.operand
    return isinstance(tree, ast.Constant) and type(tree.value) in (int, float)


def _assigned(definition: _Definition) -> Iterator[str]:
    for node in ast.walk(definition):
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            yield node.id


def _body(definition: ast.FunctionDef, parser: Parser, meanings: _Meanings) -> Pointwise:
    for position, statement in enumerate(definition.body):
        match statement:
            case ast.Expr(value=ast.Constant(value=str())) if position == 0:
                continue
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                parser.names[name] = parser.node(meanings.of(value))
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                parser.names[name] = parser.node(meanings.of(value))
            case ast.AugAssign(target=ast.Name(id=name) as target, op=operator, value=value):
                load = ast.copy_location(ast.Name(name, ast.Load()), target)
                joined = ast.copy_location(ast.BinOp(load, operator, meanings.of(value)), statement)
                parser.names[name] = parser.node(joined)
            case ast.Return(value=ast.expr() as value):
                value = meanings.of(value)
                return finished(parser, parser.node(value), value)
            case _:
                raise refusal(
                    f"`{definition.name}` does more than assign names and return an expression",
                    parser.span(statement),
                    "choose element by element with `torch.where(condition, a, b)`, and write loops out",
                )
    raise refusal(f"`{definition.name}` returns nothing", parser.span(definition), "return the value to store")


# ----------------------------------------------------------------------------------------------------- names of the file


class _Surroundings:
    """What the file binds at its top level, each name with every place that binds it."""

    def __init__(self, module: ast.Module, file: str) -> None:
        self.file = file
        self.stars: list[Span] = []
        self._bindings: dict[str, list[tuple[Span, ast.expr | None]]] = {}
        for statement in module.body:
            self._statement(statement)
        for node in ast.walk(module):
            if isinstance(node, ast.Global):
                for name in node.names:
                    self._bind(name, node)

    def places(self, name: str) -> list[Span]:
        return [span for span, _ in self._bindings.get(name, ())]

    def meaning(self, name: str) -> ast.expr | None:
        """What `name` stands for: a number, or a dotted name that begins with torch or math; None where that cannot be
        told."""
        found = self._bindings[name]
        texts = {ast.unparse(tree) if tree is not None else "" for _, tree in found}
        (first, *others) = found
        return first[1] if len(texts) == 1 and (not others or not _is_number(first[1] or ast.Constant(""))) else None

    def __contains__(self, name: str) -> bool:
        return name in self._bindings

    def _bind(self, name: str, node: ast.AST, meaning: ast.expr | None = None) -> None:
        assert isinstance(node, ast.expr | ast.stmt | ast.alias | ast.excepthandler | ast.pattern)
        span = Span(self.file, node.lineno, node.col_offset, node.end_lineno or node.lineno, node.end_col_offset or 0)
        self._bindings.setdefault(name, []).append((span, meaning))

    def _statement(self, statement: ast.stmt) -> None:
        match statement:
            case ast.Import(names=names):
                for alias in names:
                    root = alias.name.partition(".")[0]
                    dotted = alias.name if alias.asname else root
                    self._bind(alias.asname or root, alias, _dotted(dotted) if root in _MODULES else None)
            case ast.ImportFrom(module=module, names=names):
                for alias in names:
                    if alias.name == "*":
                        self.stars.append(Span.of(self.file, statement))
                        continue
                    known = statement.level == 0 and (module or "").partition(".")[0] in _MODULES
                    self._bind(alias.asname or alias.name, alias, _dotted(f"{module}.{alias.name}") if known else None)
            case ast.Assign(targets=[ast.Name(id=name) as target], value=value) if _is_number(value):
                self._bind(name, target, value)
            case ast.AnnAssign(target=ast.Name(id=name) as target, value=ast.expr() as value) if _is_number(value):
                self._bind(name, target, value)
            case _:
                self._others(statement)

    def _others(self, node: ast.AST) -> None:
        """Every name that a statement binds in the scope of the module, with an unknown meaning."""
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            self._bind(node.name, node)
            return
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            self._bind(node.id, node)
        if isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and node.name:
            self._bind(node.name, node)
        if isinstance(node, ast.MatchMapping) and node.rest:
            self._bind(node.rest, node)
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import | ast.ImportFrom):
                self._statement(child)
            elif not isinstance(child, ast.Lambda):
                self._others(child)


def _dotted(text: str) -> ast.expr:
    return ast.parse(text, mode="eval").body


class _Meanings(ast.NodeTransformer):
    """Expressions of the function, its file's names replaced by what they stand for."""

    def __init__(self, surroundings: _Surroundings, numbers: Mapping[str, ast.expr], local: set[str]) -> None:
        self._surroundings, self._numbers, self._local = surroundings, numbers, local

    def of(self, tree: ast.expr) -> ast.expr:
        result = self.visit(tree)
        assert isinstance(result, ast.expr)
        return result

    def visit_keyword(self, node: ast.keyword) -> ast.keyword:
        return ast.copy_location(ast.keyword(node.arg, self.of(node.value)), node)

    def visit_Name(self, node: ast.Name) -> ast.expr:
        if node.id in self._local:
            return node
        if node.id in self._numbers:
            return _placed(self._numbers[node.id], node)
        span = Span.of(self._surroundings.file, node)
        if node.id not in self._surroundings:
            if self._surroundings.stars:
                place = Label(self._surroundings.stars[0], "what this binds is not known")
                raise refusal(f"`{node.id}` may be anything", span, "import the names one by one", place)
            return node
        meaning = self._surroundings.meaning(node.id)
        if meaning is None:
            message = f"`{node.id}` is neither torch's nor a number"
            help = "write out what it does, in torch's functions of single elements"
            raise refusal(message, span, help, Label(self._surroundings.places(node.id)[-1], "bound here"))
        return _placed(meaning, node)


def _placed(tree: ast.expr, at: ast.expr) -> ast.expr:
    """A copy of `tree` that stands where `at` does."""
    copy = ast.parse(ast.unparse(tree), mode="eval").body
    for node in ast.walk(copy):
        if isinstance(node, ast.expr):
            ast.copy_location(node, at)
    return copy
