"""Whether a launcher's buffer still holds nothing when the kernel is launched."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from kernel_rewrite.source.launches import Allocation, Launch
from kernel_rewrite.source.syntax import children, nodes_in, walk

# Facts about a tensor, and comparisons with None, leave its elements alone.
_FACTS = frozenset(
    {
        *("shape", "stride", "size", "numel", "dim", "ndim", "dtype", "device", "element_size", "itemsize"),
        *("is_contiguous", "is_cuda", "requires_grad", "layout", "nbytes"),
    }
)


def is_fresh(launch: Launch, parameter: str) -> bool:
    """Whether the buffer passed for `parameter` is uninitialised and nothing else of the launching function touches it
    between its allocation and the launch."""
    fact, argument = launch.facts.get(parameter), launch.arguments.get(parameter)
    if fact is None or argument is None or not fact.allocations or not fact.allocations <= {Allocation.EMPTY}:
        return False
    root = _root(argument)
    if launch.function is None or root is None:
        return False
    bound = [node for node in nodes_in(launch.function) if isinstance(node, ast.Name) and node.id == root]
    if not any(isinstance(node.ctx, ast.Store) for node in bound):
        return isinstance(argument, ast.Call)  # kernel[grid](torch.empty(...))
    return _has_names_of_its_own(launch.function, root) and not any(_uses_before(launch, root))


def allocated_dtype(launch: Launch, parameter: str) -> str:
    """X of `out = torch.empty(..., dtype=torch.X)`, when that is the one thing that the name passed is ever bound to."""
    argument = launch.arguments.get(parameter)
    if launch.function is None or not isinstance(argument, ast.Name):
        return ""
    name = argument.id
    stores = [n for n in nodes_in(launch.function) if isinstance(n, ast.Name) and n.id == name and not _is_load(n)]
    made = [
        node.value
        for node in nodes_in(launch.function)
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and node.targets[0] in stores
    ]
    if len(stores) != 1 or len(made) != 1 or name in _parameters(launch.function) or not isinstance(made[0], ast.Call):
        return ""
    dtype = next((k.value for k in made[0].keywords if k.arg == "dtype"), None)
    makers = {f"torch.{maker}" for maker in ("empty", "zeros", "ones", "full", "empty_like", "zeros_like")}
    if ast.unparse(made[0].func) not in makers or not isinstance(dtype, ast.Attribute):
        return ""
    return dtype.attr if ast.unparse(dtype.value) == "torch" else ""


def _root(expression: ast.expr) -> str | None:
    """`y` of `y`, `y.view(-1)`, `y[0]`; `torch` of `torch.empty(n)`."""
    while isinstance(expression, (ast.Attribute, ast.Subscript, ast.Call)):
        expression = expression.func if isinstance(expression, ast.Call) else expression.value
    return expression.id if isinstance(expression, ast.Name) else None


def _is_load(node: ast.Name) -> bool:
    return isinstance(node.ctx, ast.Load)


def _parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> set[str]:
    return {node.arg for node in walk(function.args) if isinstance(node, ast.arg)}


def _has_names_of_its_own(function: ast.FunctionDef | ast.AsyncFunctionDef, name: str) -> bool:
    """Whether what `name` is bound to gets no second name at once: `y = z = torch.empty(n)`, `f(y := torch.empty(n))`."""
    for node in nodes_in(function):
        if isinstance(node, ast.NamedExpr) and node.target.id == name:
            return False
        if isinstance(node, ast.Assign) and len(node.targets) > 1:
            targets = [inner for target in node.targets for inner in walk(target)]
            if any(isinstance(inner, ast.Name) and inner.id == name for inner in targets):
                return False
    return True


def _uses_before(launch: Launch, name: str) -> Iterator[ast.Name]:
    """The uses of `name` that may read or write the tensor before the launch, or in an earlier round of its loop."""
    assert launch.function is not None
    parents = {child: node for node in nodes_in(launch.function) for child in children(node)}
    here = launch.span
    loops = [
        node
        for node in nodes_in(launch.function)
        if isinstance(node, (ast.For, ast.While)) and node.lineno <= here.line <= (node.end_lineno or node.lineno)
    ]
    last = max([here.end_line, *(loop.end_lineno or loop.lineno for loop in loops)])
    for node in nodes_in(launch.function):
        if not isinstance(node, ast.Name) or node.id != name or not isinstance(node.ctx, ast.Load):
            continue
        in_launch = (here.line, here.column) <= (node.lineno, node.col_offset) < (here.end_line, here.end_column)
        if node.lineno <= last and not in_launch and not _is_harmless(node, parents):
            yield node


def _is_harmless(node: ast.Name, parents: dict[ast.AST, ast.AST]) -> bool:
    parent = parents.get(node)
    if isinstance(parent, ast.Attribute):
        return parent.attr in _FACTS
    if isinstance(parent, ast.Compare):
        return all(isinstance(op, (ast.Is, ast.IsNot)) for op in parent.ops)
    return isinstance(parent, ast.Return)


def allocated_like(launch: Launch, parameter: str) -> Iterator[str]:
    """The other parameters that are passed a tensor whose element type the buffer of `parameter` was allocated with: `a` of
    `out = torch.empty_like(a)`, `out = torch.empty(..., dtype=a.dtype)`."""
    argument = launch.arguments.get(parameter)
    if launch.function is None or not isinstance(argument, ast.Name):
        return
    made = _only_value(launch.function, argument.id)
    source = _typed_like(made) if made is not None else ""
    if not source or not _keeps_its_tensor(launch.function, source):
        return
    for name, other in launch.arguments.items():
        if name != parameter and _same_type(other) == source:
            yield name


def _only_value(function: ast.FunctionDef | ast.AsyncFunctionDef, name: str) -> ast.expr | None:
    """What `name` is assigned, if a plain assignment is the one thing that ever binds it."""
    if name in _parameters(function):
        return None
    stores = [n for n in ast.walk(function) if isinstance(n, ast.Name) and n.id == name and not _is_load(n)]
    plain = (node for node in ast.walk(function) if isinstance(node, ast.Assign) and node.targets == stores)
    return next((node.value for node in plain), None)


def _typed_like(made: ast.expr) -> str:
    """The name of the tensor whose element type an allocation takes; "" for any other."""
    if not (isinstance(made, ast.Call) and isinstance(made.func, ast.Attribute)):
        return ""
    keywords = {keyword.arg: keyword.value for keyword in made.keywords}
    if None in keywords or "out" in keywords:
        return ""
    of_torch = ast.unparse(made.func.value) == "torch"
    dtype = keywords.get("dtype")
    if dtype is not None:
        known = (of_torch and made.func.attr in (*_LIKE, *_NEW)) or made.func.attr in _METHODS
        named = isinstance(dtype, ast.Attribute) and dtype.attr == "dtype" and isinstance(dtype.value, ast.Name)
        return dtype.value.id if known and named else ""  # type: ignore[attr-defined]
    if of_torch and made.func.attr in _LIKE and made.args and isinstance(made.args[0], ast.Name):
        return made.args[0].id
    return made.func.value.id if made.func.attr in _METHODS and isinstance(made.func.value, ast.Name) else ""


_LIKE = ("empty_like", "zeros_like", "ones_like", "full_like")
_NEW = ("empty", "zeros", "ones", "full")
_METHODS = ("new_empty", "new_zeros", "new_ones", "new_full")
_KEEP_TYPE = frozenset(
    ("contiguous", "view", "reshape", "flatten", "t", "transpose", "permute", "squeeze", "unsqueeze")
)


def _keeps_its_tensor(function: ast.FunctionDef | ast.AsyncFunctionDef, name: str) -> bool:
    """Whether `name` means tensors of one element type all through `function`: a parameter that is never bound again, or only
    to itself in another shape."""
    for node in ast.walk(function):
        if isinstance(node, ast.Name) and node.id == name and not _is_load(node):
            bound = [n for n in ast.walk(function) if isinstance(n, ast.Assign) and n.targets == [node]]
            if not bound or _same_type(bound[0].value) != name:
                return False
    return name in _parameters(function)


def _same_type(expression: ast.expr) -> str:
    """`a` of `a`, `a.contiguous()`, `a.view(-1)`, `a.T`: a tensor of its element type; "" for anything else."""
    while not isinstance(expression, ast.Name):
        match expression:
            case ast.Call(func=ast.Attribute(value=inner, attr=name), args=arguments, keywords=[]) if (
                name in _KEEP_TYPE
            ):
                if not all(_is_size(argument) for argument in arguments):
                    return ""
                expression = inner
            case ast.Attribute(value=inner, attr="T" | "mT"):
                expression = inner
            case _:
                return ""
    return expression.id


def _is_size(argument: ast.expr) -> bool:
    """Whether an argument of `view` is surely a size, and not an element type."""
    if isinstance(argument, ast.UnaryOp):
        argument = argument.operand
    if isinstance(argument, ast.Constant):
        return isinstance(argument.value, int)
    return isinstance(argument, ast.BinOp) or "shape" in ast.unparse(argument) or "size" in ast.unparse(argument)
