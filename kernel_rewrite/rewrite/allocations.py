"""The allocation of an output, with the element type or the fill that an epilogue gives it."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from kernel_rewrite.diagnostics import Diagnostic, Label
from kernel_rewrite.model import Edit, Span
from kernel_rewrite.rewrite.additions import AddedKeywords, Addition, Replaced
from kernel_rewrite.rewrite.brackets import call_bracket, inserted
from kernel_rewrite.rewrite.parameters import LaunchedKernel
from kernel_rewrite.source.callers import Callers, HostDefinition
from kernel_rewrite.source.launches import EMPTY, FILLED, FULL, LIKE, NEW, Launch
from kernel_rewrite.source.symbolic import HostFunction
from kernel_rewrite.source.syntax import last_name

VIEWS = frozenset(("view", "reshape", "flatten", "t", "transpose", "permute", "squeeze", "unsqueeze", "T", "mT"))
FACTS = frozenset(("shape", "stride", "size", "numel", "dim", "ndim", "device", "is_contiguous", "is_cuda", "layout"))
"""What may be asked of a buffer whatever its element type, and whatever it holds."""

_FILL_NAMES = {"zeros": "full", "ones": "full", "zeros_like": "full_like", "ones_like": "full_like",
               "new_zeros": "new_full", "new_ones": "new_full"}  # fmt: skip


Fills = tuple[tuple[float, float], ...]
"""(what a buffer is filled with, what it must be filled with instead)."""


@dataclass(frozen=True, slots=True)
class ChangedBuffer:
    """An output (a parameter of the kernel) that the epilogue needs allocated otherwise: with the element type `dtype`
    (torch's name of it, "float16"; "" leaves it), and filled with other numbers where `fills` names what it is filled
    with."""

    output: str
    dtype: str = ""
    fills: Fills = ()


@dataclass(frozen=True, slots=True)
class AllocationPlan:
    """The edits of the allocations, what they add, what changes for callers, and what cannot be changed (KR317)."""

    edits: tuple[Edit, ...] = ()
    contract: tuple[str, ...] = ()
    diagnostics: tuple[Diagnostic, ...] = ()
    additions: tuple[Addition, ...] = ()


def allocation_edits(kernel: LaunchedKernel, buffers: Sequence[ChangedBuffer]) -> AllocationPlan:
    """The plan that allocates each of `buffers` anew in every launcher of the file.

    KR317 where a launcher does not allocate the output itself, uses it for something else too, asks for its element type,
    or fills it in a way that cannot be changed.
    """
    edits: dict[Edit, None] = {}
    additions: list[Addition] = []
    contract: list[str] = []
    diagnostics: list[Diagnostic] = []
    changed: set[tuple[int, str]] = set()
    diagnostics += (d for buffer in buffers if buffer.dtype for d in _asked_around(kernel, buffer.output))
    for buffer in buffers:
        for launch in kernel.launches:
            found = _allocation(kernel, launch, buffer.output)
            if isinstance(found, Diagnostic):
                diagnostics.append(found)
            elif isinstance(found, _Given):
                contract.append(f"`{launch.launcher}` takes `{found.name}` as {buffer.dtype}")
            elif (id(found), buffer.output) not in changed:
                changed.add((id(found), buffer.output))
                change = _changed(kernel, found, buffer, launch)
                edits |= dict.fromkeys(change.edits)
                additions += change.additions
                contract += change.contract
                diagnostics += change.diagnostics
    return AllocationPlan(tuple(edits), tuple(dict.fromkeys(contract)), tuple(diagnostics), tuple(additions))


# ------------------------------------------------------------------------------------------------------------- finding


@dataclass(frozen=True, slots=True)
class _Given:
    """A buffer that the launcher is given, as the parameter `name`."""

    name: str


def _allocation(kernel: LaunchedKernel, launch: Launch, output: str) -> ast.Call | _Given | Diagnostic:
    """The call that allocates what `launch` passes for `output`, if nothing else depends on its element type."""
    argument = launch.arguments.get(output)
    if argument is None:
        return _refused(launch.span, output, "this launch does not show what it passes for it")
    argument = behind_views(argument)
    path = kernel.file.path
    if isinstance(argument, ast.Call) and allocates(argument):
        return argument
    if not isinstance(argument, ast.Name):
        return _refused(Span.of(path, argument), output, "it is not allocated in the launcher")
    if launch.function is None:
        return _refused(launch.span, output, "it is launched outside any function")
    return _named_allocation(kernel, launch, launch.function, argument.id, output)


def _named_allocation(
    kernel: LaunchedKernel, launch: Launch, function: HostDefinition, name: str, output: str
) -> ast.Call | _Given | Diagnostic:
    path = kernel.file.path
    uses = [node for node in ast.walk(function) if isinstance(node, ast.Name) and node.id == name]
    stores = [node for node in uses if not isinstance(node.ctx, ast.Load)]
    callers = Callers(kernel.file.tree)
    if name in {node.arg for node in ast.walk(function.args) if isinstance(node, ast.arg)}:
        return _given_buffer(kernel, launch, function, name, output, callers)
    made = callers.parents.get(stores[0]) if len(stores) == 1 else None
    if not (isinstance(made, ast.Assign) and made.targets == stores):
        where = Span.of(path, stores[-1]) if stores else launch.span
        return _refused(where, output, f"`{name}` is not bound by one plain assignment of the launcher")
    if not (isinstance(made.value, ast.Call) and allocates(made.value)):
        return _refused(Span.of(path, made.value), output, "this is not an allocation")
    for use in uses:
        if use in stores or _bears_any_type(use, kernel, callers, output):
            continue
        return _refused(Span.of(path, use), output, f"`{name}` is used here too, with the element type it has now")
    return made.value


def _given_buffer(
    kernel: LaunchedKernel, launch: Launch, function: HostDefinition, name: str, output: str, callers: Callers
) -> _Given | Diagnostic:
    """The buffer that a launcher's callers give it, if it does nothing but pass it on, and no caller stands in the file."""
    path = kernel.file.path
    called = next(iter(callers.calls(function)), None)
    if called is not None:
        return _refused(Span.of(path, called), output, f"this call gives `{name}`, with the element type it has now")
    for use in ast.walk(function):
        if not (isinstance(use, ast.Name) and use.id == name) or _bears_any_type(use, kernel, callers, output):
            continue
        stored = not isinstance(use.ctx, ast.Load)
        why = (
            f"the caller may give `{name}`"
            if stored
            else f"`{name}` is used here too, with the element type it has now"
        )
        return _refused(launch.span if stored else Span.of(path, use), output, why)
    return _Given(name)


def _asked_around(kernel: LaunchedKernel, output: str) -> Iterator[Diagnostic]:
    """KR317 where a heuristic or another function of the decorators looks at the output: `lambda args: args["out"].dtype`."""
    named = (kernel.names.get(n.id) for d in kernel.decorators for n in ast.walk(d) if isinstance(n, ast.Name))
    functions = (meaning.node for meaning in named if isinstance(meaning, HostFunction))
    for root in (*kernel.decorators, *functions):
        nodes = list(ast.walk(root))
        parents = {child: node for node in nodes for child in ast.iter_child_nodes(node)}
        for node in nodes:
            asked = (
                isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant) and node.slice.value == output
            )
            parent = parents.get(node)
            if asked and not (isinstance(parent, ast.Attribute) and parent.attr in FACTS):
                assert isinstance(node, ast.Subscript)
                yield _refused(Span.of(kernel.file.path, node), output, "a function around the kernel looks at it here")


def _bears_any_type(use: ast.Name, kernel: LaunchedKernel, callers: Callers, output: str) -> bool:
    """Whether a use of the buffer means the same whatever its element type is: a launch of the kernel that passes it as
    the output, a question about its shape, or what the launcher returns."""
    current: ast.AST = use
    parent = callers.parents[current]
    if isinstance(parent, ast.Attribute) and parent.attr in FACTS:
        return True
    while isinstance(parent, ast.expr) and (is_view(parent) or isinstance(parent, (ast.Attribute, ast.Tuple))):
        if isinstance(parent, ast.Attribute) and parent.attr not in VIEWS:
            return False
        current, parent = parent, callers.parents[parent]
    if isinstance(parent, ast.Return):
        return True
    return any(launch.arguments.get(output) is current for launch in kernel.launches)


def is_view(node: ast.expr) -> bool:
    """`x.view(...)`, `x.T`: the same elements, of the same type."""
    if isinstance(node, ast.Call):
        named = isinstance(node.func, ast.Attribute) and node.func.attr in VIEWS
        given = map(ast.unparse, (*node.args, *node.keywords))
        return named and not any("dtype" in text or "torch." in text for text in given)
    return isinstance(node, ast.Attribute) and node.attr in ("T", "mT")


def viewed(node: ast.expr) -> ast.expr | None:
    """`x` of `x.view(...)`; None for what is no view."""
    if not is_view(node):
        return None
    attribute = node.func if isinstance(node, ast.Call) else node
    assert isinstance(attribute, ast.Attribute)
    return attribute.value


def behind_views(node: ast.expr) -> ast.expr:
    """`x` of `x.view(...).T`, and of `x`."""
    while (inner := viewed(node)) is not None:
        node = inner
    return node


def allocates(node: ast.Call) -> bool:
    """`torch.empty(...)`, `x.new_zeros(...)`: a tensor that nothing else has."""
    name = last_name(node.func)
    return isinstance(node.func, ast.Attribute) and (name in EMPTY or name in FILLED or name in FULL)


_HELP = "allocate it in the launcher, for this launch alone, or use `--no-launcher` and allocate it yourself"
_FILL_HELP = "write `torch.zeros((n,), ...)` or `torch.full` with a number; or `--assume fully-written`, if that holds"


def _refused(span: Span, output: str, why: str, help_text: str = _HELP) -> Diagnostic:
    message = f"the allocation of `{output}` cannot be changed to what the epilogue needs"
    return Diagnostic("KR317", message, (Label(span, why),), help=help_text)


# ------------------------------------------------------------------------------------------------------------ changing


def _changed(kernel: LaunchedKernel, call: ast.Call, buffer: ChangedBuffer, launch: Launch) -> AllocationPlan:
    keywords = {k.arg: k.value for k in call.keywords}
    place = Span.of(kernel.file.path, call)
    if "out" in keywords or None in keywords:
        return AllocationPlan(diagnostics=(_refused(place, buffer.output, "not all of its options can be read"),))
    edits: list[Edit] = []
    additions: list[Addition] = []
    new: dict[str, str] = {}
    torch = torch_name_in(kernel.file.tree)
    if buffer.dtype and not torch:
        return AllocationPlan(diagnostics=(_refused(place, buffer.output, "the file has no name for torch"),))
    dtype = f"{torch}.{buffer.dtype}"
    given = keywords.get("dtype")
    if buffer.dtype and given is not None:
        edits.append(Edit(Span.of(kernel.file.path, given), dtype, "the element type that the epilogue gives"))
        additions.append(Replaced(given, dtype))
    elif buffer.dtype:
        new["dtype"] = dtype
    held = _fill_of(call) if buffer.fills else None
    fill = dict(buffer.fills).get(held) if held is not None else None
    if buffer.fills and held is None and last_name(call.func) not in EMPTY:
        why = "what it is filled with cannot be read"
        return AllocationPlan(diagnostics=(_refused(place, buffer.output, why, _FILL_HELP),))
    if fill is not None:
        replaced = _filled(call, _number(fill, buffer.dtype), typed=bool(buffer.dtype or given))
        if replaced is None:
            why = f"it must be filled with {fill!r}, and its size is no tuple"
            return AllocationPlan(diagnostics=(_refused(place, buffer.output, why, _FILL_HELP),))
        node, text, value = replaced
        edits.append(Edit(Span.of(kernel.file.path, node), text, "the fill that the epilogue needs"))
        additions.append(Replaced(node, text))
        new |= {"fill_value": value} if value else {}
    if new:
        texts = [f"{name}={value}" for name, value in new.items()]
        edits += inserted(
            kernel.file, call_bracket(kernel.file, call), len(call.args), texts, "what the epilogue needs"
        )
        additions.append(AddedKeywords(call, 0, tuple(new.items())))
    said = [f"`{launch.launcher}` allocates `{buffer.output}` as {buffer.dtype}"] if buffer.dtype else []
    if fill is not None:
        said.append(f"`{launch.launcher}` fills `{buffer.output}` with {_number(fill, buffer.dtype)!r}")
    return AllocationPlan(tuple(edits), tuple(said), (), tuple(additions))


def _fill_of(call: ast.Call) -> float | None:
    """The number that an allocation fills its buffer with; None for what is no literal."""
    name = last_name(call.func)
    if name in FILLED:
        return 0.0 if "zeros" in name else 1.0
    return _literal(_fill_argument(call)) if name in FULL else None


def _literal(node: ast.expr | None) -> float | None:
    """The value of `0.5`, `-1`, `True`, `float("-inf")`."""
    match node:
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            value = _literal(operand)
            return -value if value is not None else None
        case ast.Call(func=ast.Name(id="float"), args=[ast.Constant(value=str(text))], keywords=[]):
            return float(text) if text.strip("+-") in ("inf", "infinity", "nan") else None
        case ast.Constant(value=(bool() | int() | float()) as number):
            return float(number)
    return None


def _fill_argument(call: ast.Call) -> ast.expr | None:
    """`value` of `torch.full(size, value)`, `x.new_full(size, fill_value=value)`."""
    given = next((k.value for k in call.keywords if k.arg == "fill_value"), None)
    return call.args[1] if len(call.args) == 2 else given


def _number(fill: float, dtype: str) -> float | int:
    """`fill` as one writes it for elements of `dtype`."""
    return fill if not dtype or dtype.startswith(("float", "bfloat")) else int(fill)


def _filled(call: ast.Call, fill: float | int, typed: bool) -> tuple[ast.expr, str, str] | None:
    """What to replace, by what, and the `fill_value` to add: the value of `torch.full(size, value)`, or the function of
    `torch.zeros(size)`, which becomes `torch.full(size, fill_value=value)`. None where neither can be done."""
    name = last_name(call.func)
    value = repr(fill) if typed or name in LIKE or name in NEW else repr(float(fill))  # full reads a type from it
    value = f"float({value!r})" if value in ("inf", "-inf", "nan") else value
    if name in FULL:
        given = _fill_argument(call)
        return (given, value, "") if given is not None else None
    whole = len(call.args) == 1 and (name in LIKE or isinstance(call.args[0], (ast.Tuple, ast.List)))
    if name not in _FILL_NAMES or not whole or not isinstance(call.func, ast.Attribute):
        return None
    return call.func, f"{ast.unparse(call.func.value)}.{_FILL_NAMES[name]}", value


def torch_name_in(tree: ast.Module) -> str:
    """What the file calls torch."""
    for node in tree.body:
        for alias in node.names if isinstance(node, ast.Import) else ():
            if alias.name == "torch" or (alias.name.startswith("torch.") and alias.asname is None):
                return alias.asname or "torch"
    return ""
