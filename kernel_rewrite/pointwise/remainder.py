"""An epilogue of which a part is fused: the longest part in which all that is done with x begins, and the rest in torch.

softmax(relu(x) * scale, dim=-1)     relu(x) * scale      torch.softmax(c, dim=-1)
relu(x) / sum(relu(x), dim=1)        relu(x)              c / torch.sum(c, dim=1)
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from kernel_rewrite.diagnostics import Diagnostic, FusionRefused, Label
from kernel_rewrite.model import InternalError, Operand, OperandKind, Span
from kernel_rewrite.pointwise import torch_side
from kernel_rewrite.pointwise.casts import SAME
from kernel_rewrite.pointwise.emission import Epilogue
from kernel_rewrite.pointwise.function import Pointwise
from kernel_rewrite.pointwise.graph import Apply, Input, Node, applications, inputs, key_of, nodes, size
from kernel_rewrite.pointwise.parsing import MODULES, Parser, expression_of, parse_epilogue
from kernel_rewrite.pointwise.printing import epilogue_text
from kernel_rewrite.pointwise.whole import WHOLE, WholeFunction

_SYMBOL = "__whole_{}__"  # stands in a graph for what a function of a whole tensor gives


@dataclass(frozen=True, slots=True)
class ElementType:
    """An element type among the arguments of a call, by torch's name."""

    name: str


@dataclass(frozen=True, slots=True)
class WholeCall:
    """`function` of the tensor `operand`, with literals as `arguments` and `keywords`; written as a `method` or not."""

    function: WholeFunction
    operand: Node
    arguments: tuple[Any, ...] = ()
    keywords: tuple[tuple[str, Any], ...] = ()
    method: bool = False


@dataclass(frozen=True, slots=True)
class Remainder:
    """What is left of an epilogue behind its fused part, which is x here. `calls` are the functions of whole tensors in
    `result`, by the name of the value that stands for each there; one may use those before it. `operands` are what it
    reads beside x."""

    result: Node
    calls: tuple[tuple[str, WholeCall], ...]
    operands: tuple[Operand, ...] = ()

    @property
    def name(self) -> str:
        """A short slug for file names: `softmax`."""
        return "_".join(dict.fromkeys(call.function.name for _, call in self.calls))

    @property
    def casts_to_the_type_of_x(self) -> bool:
        """Whether it asks for the element type of x as it was: `.to(x.dtype)`."""
        graphs = (self.result, *(call.operand for _, call in self.calls))
        every = (node for graph in graphs for node in applications(graph) if node.op == "to")
        return any(dict(node.arguments)["dtype"] == SAME for node in every)

    @property
    def needs_torch(self) -> bool:
        """Whether its text names torch."""
        return any(isinstance(node, ast.Name) and node.id == "torch" for node in ast.walk(self._tree()))

    @property
    def uses_of_x(self) -> int:
        """How often its text names x."""
        return sum(isinstance(node, ast.Name) and node.id == "x" for node in ast.walk(self._tree()))

    def torch_text(self, x: str, torch: str = "torch") -> str:
        """The torch expression, over the text of the fused part and the file's name for torch."""
        names = {"x": ast.parse(x, mode="eval").body, "torch": ast.parse(torch, mode="eval").body}
        tree = _Replacing(names).visit(self._tree())
        return ast.unparse(ast.fix_missing_locations(ast.Expression(tree))).replace("'", '"')

    def _tree(self) -> ast.expr:
        """The torch expression over x and torch."""
        known: dict[str, ast.expr] = {}
        for symbol, call in self.calls:
            known[symbol] = _call_tree(call, _graph_tree(call.operand, known))
        return _graph_tree(self.result, known)

    def evaluate(self, x: Any, **operands: Any) -> Any:
        """The torch tensor behind the fused part `x`; `operands` by name."""
        values = dict(operands)
        kinds = {key_of(operand): operand.kind for operand in self.operands}
        for symbol, call in self.calls:
            values[symbol] = _value(call, torch_side.evaluate(call.operand, x, values, kinds))
        return torch_side.evaluate(self.result, x, values, kinds)


@dataclass(frozen=True, slots=True)
class Split:
    """The two parts of an epilogue; no `rest` where all of it can be fused."""

    fused: Epilogue
    rest: Remainder | None = None

    @property
    def name(self) -> str:
        """A short slug of both, for file names."""
        return f"{self.fused.name}_{self.rest.name}" if self.rest is not None else self.fused.name


def split_epilogue(text: str, operands: Mapping[str, Operand] | None = None) -> Split:
    """The longest part of the epilogue `text` through which all that is done with x goes and that is a function of single
    elements, and the rest.

    Raises FusionRefused as `parse_epilogue` does, with KR108 for arguments that a rest cannot have and KR118 where there is
    no such part, or where the rest has more than functions that `WHOLE` knows.
    """
    declared = dict(operands or {})
    tree = expression_of(text)
    parser = _SplittingParser(text.strip(), declared)
    root = parser.node(tree)
    if not parser.calls:
        return Split(parse_epilogue(text, operands))
    calls = _used(root, parser.calls)
    unused = [name for name in declared if name not in {i.name for i in _inputs(root, calls)}]
    if unused:
        message = f"operand `{unused[0]}` is declared and `{text.strip()}` does not use it"
        raise _refusal("KR119", message, parser.span(tree), f"leave out `--operand {unused[0]}=...`, or use it")
    fused = _fused_part(root, calls)
    if fused is None:
        raise _nothing_to_fuse(text, parser, tree, calls)
    result = _without(root, fused)
    rest = {symbol: replace(call, operand=_without(call.operand, fused)) for symbol, call in calls.items()}
    used = [i for i in dict.fromkeys(_inputs(result, rest)) if i != Input() and i.name not in rest]
    remainder = Remainder(result, tuple(rest.items()), tuple(map(parser.operand, used)))
    _reads_back(remainder)
    own = dict.fromkeys(i for i in inputs(fused) if i != Input())
    return Split(Pointwise(fused, tuple(map(parser.operand, own))), remainder)


def _reads_back(rest: Remainder) -> None:
    """Raise InternalError unless the torch expression, read as an epilogue, is the very rest that it is written for."""
    text = rest.torch_text("x")
    parser = _SplittingParser(text, {operand.name: operand for operand in rest.operands})
    result = parser.node(expression_of(text))
    if result != rest.result or tuple(_used(result, parser.calls).items()) != rest.calls:
        raise InternalError(f"KR902: `{text}` is not the rest of the epilogue")


def _nothing_to_fuse(text: str, parser: Parser, tree: ast.expr, calls: Mapping[str, WholeCall]) -> FusionRefused:
    names = "`, `".join(dict.fromkeys(call.function.name for call in calls.values()))
    message = (
        f"nothing of `{text.strip()}` can be fused: x does not go into `{names}` through one function of its elements"
    )
    return _refusal("KR118", message, parser.span(tree), "leave it in torch, after the kernel")


def _refusal(code: str, message: str, span: Span, help: str) -> FusionRefused:
    return FusionRefused((Diagnostic(code, message, (Label(span),), help=help),))


def fusable_part(text: str, operands: Mapping[str, Operand]) -> str:
    """The part of an epilogue that can be fused where the rest is left to torch; "" when there is none."""
    try:
        split = split_epilogue(text, operands)
    except FusionRefused:
        return ""
    return epilogue_text(split.fused.result) if split.rest is not None and isinstance(split.fused, Pointwise) else ""


# ------------------------------------------------------------------------------------------------------------- the parts


def _fused_part(root: Node, calls: Mapping[str, WholeCall]) -> Node | None:
    """The largest function of single elements such that x is used nowhere but in it; None where that is x alone."""
    graphs = (root, *(call.operand for call in calls.values()))
    candidates = {node for graph in graphs for node in nodes(graph) if isinstance(node, Apply)}
    pure = (node for node in candidates if not any(i.name in calls for i in inputs(node)))
    holding = (node for node in pure if Input() in set(inputs(node)))
    return next((n for n in sorted(holding, key=size, reverse=True) if not _reaches_x(root, calls, n)), None)


def _reaches_x(node: Node, calls: Mapping[str, WholeCall], through: Node) -> bool:
    """Whether `node` uses x other than in `through`."""
    if node == through:
        return False
    if isinstance(node, Input):
        return node == Input() or (node.name in calls and _reaches_x(calls[node.name].operand, calls, through))
    return isinstance(node, Apply) and any(_reaches_x(operand, calls, through) for operand in node.operands)


def _without(node: Node, fused: Node) -> Node:
    """`node` with x in the place of `fused`."""
    if node == fused:
        return Input()
    if isinstance(node, Apply):
        return replace(node, operands=tuple(_without(operand, fused) for operand in node.operands))
    return node


def _used(root: Node, calls: Mapping[str, WholeCall]) -> dict[str, WholeCall]:
    """Those of `calls` that `root` is made of, each behind those that it uses."""
    found: dict[str, WholeCall] = {}

    def take(node: Node) -> None:
        for used in inputs(node):
            if used.name in calls and used.name not in found:
                take(calls[used.name].operand)
                found[used.name] = calls[used.name]

    take(root)
    return found


def _inputs(root: Node, calls: Mapping[str, WholeCall]) -> Iterator[Input]:
    for graph in (*(call.operand for call in calls.values()), root):
        yield from inputs(graph)


# --------------------------------------------------------------------------------------------------------------- reading


class _SplittingParser(Parser):
    """Reads the functions of whole tensors too. `calls` holds each, by the name that stands for its value in the graph."""

    def __init__(self, text: str, declared: Mapping[str, Operand]) -> None:
        super().__init__(text, declared)
        self.calls: dict[str, WholeCall] = {}

    def _symbol(self, call: WholeCall) -> Node:
        known = next((symbol for symbol, other in self.calls.items() if other == call), None)
        symbol = known or _SYMBOL.format(len(self.calls))
        self.calls[symbol] = call
        return Input(symbol)

    def _attribute(self, tree: ast.Attribute) -> Node:
        row = WHOLE.get(tree.attr)
        if row is None or not row.attribute or not self._is_value(tree.value):
            return super()._attribute(tree)
        return self._symbol(WholeCall(row, self.node(tree.value), method=True))

    def _call(self, tree: ast.Call) -> Node:
        function = tree.func
        method = isinstance(function, ast.Attribute) and self._is_value(function.value)
        row = self._whole(function, method)
        if row is None:
            return super()._call(tree)
        given = list(tree.args)
        keywords = list(tree.keywords)
        if isinstance(function, ast.Attribute) and method:
            tensor: ast.expr | None = function.value
        else:
            named = next((k for k in keywords if k.arg == "input"), None)
            tensor = given.pop(0) if given else named.value if named is not None else None
            keywords = [k for k in keywords if k is not named]
        if tensor is None:
            raise _refusal("KR108", f"`{row.name}` of what?", self.span(tree), f"write `{row.name}(x, ...)`")
        operand = self.node(tensor)
        if Input() not in _inputs_through(operand, self.calls):
            message = f"`{self._source(tree)}` does not use x, the stored value"
            raise _refusal("KR118", message, self.span(tree), "work it out before, and pass it as an operand")
        arguments = tuple(self._literal(row, argument) for argument in given)
        named_arguments = tuple((k.arg or "**", self._literal(row, k.value)) for k in keywords)
        call = WholeCall(row, operand, arguments, named_arguments, method)
        why = _wrong_arguments(call)
        if why:
            raise _refusal("KR108", f"`{self._source(tree)}`: {why}", self.span(tree), "call it as torch has it")
        return self._symbol(call)

    def _whole(self, function: ast.expr, method: bool) -> WholeFunction | None:
        text = ast.unparse(function)
        module, _, name = text.rpartition(".")
        row = WHOLE.get(name)
        if row is None or row.attribute or name in self._declared:
            return None
        if method:
            return row if row.method else None
        return row if row.torch and (not module or module in MODULES) else None

    def _literal(self, row: WholeFunction, tree: ast.expr) -> Any:
        dtype = self._dtype(tree)
        if dtype is not None and dtype != SAME and not isinstance(tree, ast.Constant):
            return ElementType(dtype)
        try:
            value = ast.literal_eval(tree)
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            value = {}
        if not _is_plain(value):
            message = f"`{self._source(tree)}` is no literal, and behind a fused part `{row.name}` takes nothing else"
            raise _refusal("KR108", message, self.span(tree), "write numbers, or call it in torch after the launcher")
        return value


def _inputs_through(node: Node, calls: Mapping[str, WholeCall]) -> Iterator[Input]:
    for used in inputs(node):
        yield used
        if used.name in calls:
            yield from _inputs_through(calls[used.name].operand, calls)


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return all(type(item) is int for item in value)
    return value is None or isinstance(value, bool | int | float | str)


def _wrong_arguments(call: WholeCall) -> str:
    """Why torch would not take the arguments; "" when it may."""
    row, given = call.function, len(call.arguments)
    if row.spread and call.method and given and all(type(argument) is int for argument in call.arguments):
        given = 1
    by_position = [parameter for parameter in row.parameters if parameter != "dtype"]
    if given > len(by_position):
        return f"`{row.name}` takes {', '.join(f'`{p}`' for p in by_position) or 'nothing'} behind its tensor"
    texts = [*call.arguments, *(value for name, value in call.keywords if name != "dtype")]
    if any(isinstance(v, ElementType) or (isinstance(v, str) and row.name != "norm") for v in texts):
        return "that is no number"
    if any(name == "dtype" and not isinstance(value, ElementType | None) for name, value in call.keywords):
        return "`dtype` is an element type"
    named = [name for name, _ in call.keywords]
    unknown = [name for name in named if name not in row.parameters[given:]]
    if unknown:
        return f"`{row.name}` has no other parameter `{unknown[0]}`"
    missing = [name for name in row.parameters[given : row.required] if name not in named]
    return f"`{row.name}` needs `{missing[0]}`" if missing else ""


# --------------------------------------------------------------------------------------------------------------- writing


class _Replacing(ast.NodeTransformer):
    """Puts expressions in the places of names."""

    def __init__(self, names: Mapping[str, ast.expr]) -> None:
        self._names = names

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return self._names.get(node.id, node)


def _graph_tree(node: Node, known: Mapping[str, ast.expr]) -> ast.expr:
    tree: ast.expr = _Replacing(known).visit(ast.parse(torch_side.torch_text(node), mode="eval").body)
    return tree


def _call_tree(call: WholeCall, operand: ast.expr) -> ast.expr:
    row = call.function
    if row.attribute:
        return ast.Attribute(operand, row.name, ast.Load())
    arguments = [_literal_tree(value) for value in call.arguments]
    keywords = [ast.keyword(name, _literal_tree(value)) for name, value in call.keywords]
    if call.method:
        return ast.Call(ast.Attribute(operand, row.name, ast.Load()), arguments, keywords)
    return ast.Call(ast.parse(row.torch, mode="eval").body, [operand, *arguments], keywords)


def _literal_tree(value: Any) -> ast.expr:
    text = f"torch.{value.name}" if isinstance(value, ElementType) else torch_side.literal_text(value)
    return ast.parse(text, mode="eval").body


def _value(call: WholeCall, tensor: Any) -> Any:
    def plain(value: Any) -> Any:
        return torch_side.torch_attribute(f"torch.{value.name}") if isinstance(value, ElementType) else value

    row = call.function
    if row.attribute:
        return getattr(tensor, row.name)
    arguments = [plain(value) for value in call.arguments]
    keywords = {name: plain(value) for name, value in call.keywords}
    if call.method:
        return getattr(tensor, row.name)(*arguments, **keywords)
    return torch_side.torch_attribute(row.torch)(tensor, *arguments, **keywords)


# ------------------------------------------------------------------------------------------------- operands behind it


def unreadable_operand(rest: Remainder) -> Operand | None:
    """An operand that a launcher cannot read as the rest does: one value a row, one read at an index of the kernel, a
    tensor of one element, what another output gets. None when there is none: torch broadcasts a row and a tile itself."""
    for operand in rest.operands:
        if not (operand.is_number or operand.kind in (OperandKind.ROW, OperandKind.TILE)):
            return operand
    return None
