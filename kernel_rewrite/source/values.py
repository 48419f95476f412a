"""What the source itself says about a value that is stored, or a pointer that is stored through."""

from __future__ import annotations

import ast
from collections.abc import Callable

from kernel_rewrite.model import Closure, Dtype, Function, FunctionRef, TritonObject
from kernel_rewrite.source.names import callee, resolve_in_closure, scope_of
from kernel_rewrite.source.syntax import walk


def argument_position(call: ast.Call, value: ast.expr) -> int | str:
    """Where `value` stands among the arguments of `call`: an index, or a keyword's name."""
    for index, argument in enumerate(call.args):
        if argument is value:
            return index
    return next(k.arg for k in call.keywords if k.value is value and k.arg is not None)


def pointer_operand(pointer: ast.expr, is_pointer: Callable[[ast.expr], bool]) -> str:
    """`out` of `out + offsets`, `offsets + out`, `(out + row) + offsets`."""
    if isinstance(pointer, ast.Name):
        return pointer.id if is_pointer(pointer) else ""
    if isinstance(pointer, ast.BinOp) and isinstance(pointer.op, (ast.Add, ast.Sub)):
        return pointer_operand(pointer.left, is_pointer) or pointer_operand(pointer.right, is_pointer)
    return ""


def is_assigned(name: str, function: Function) -> bool:
    return any(node.id == name for node in _stores(function))


def assigned_at_run_time(function: Function, closure: Closure) -> set[str]:
    """The names that the body assigns, without those of `SCALE: tl.constexpr = 0.5`, `SCALE = tl.constexpr(0.5)` and
    `for j in tl.static_range(4)`."""
    constexprs = {
        id(node.target)
        for node in _nodes(function)
        if (isinstance(node, ast.AnnAssign) and "constexpr" in ast.unparse(node.annotation))
        or (isinstance(node, ast.For) and "static_range" in ast.unparse(node.iter))
    }
    constexprs |= {
        id(target)
        for node in _nodes(function)
        if isinstance(node, ast.Assign) and _is_constexpr_call(node.value, function, closure)
        for target in node.targets
    }
    return {node.id for node in _stores(function) if id(node) not in constexprs}


def assigned_values(name: str, function: Function) -> list[ast.expr | None]:
    """What `name = ...` assigns, wherever in the body; None for each way of binding it that has no value of its own."""
    plain = {
        id(node.targets[0]): node.value
        for node in _nodes(function)
        if isinstance(node, ast.Assign) and len(node.targets) == 1
    }
    return [plain.get(id(node)) for node in _stores(function) if node.id == name]


_NUMBERS = frozenset({"triton.language.constexpr", "triton.language.cdiv", "triton.cdiv", "triton.next_power_of_2"})


def is_number_call(call: ast.Call, function: Function, closure: Closure) -> bool:
    """Whether a call of numbers may give a Python number: `float("inf")`, `max(K, M)`, `tl.constexpr(2)`, a
    `constexpr_function`."""
    bound = callee(call, function, closure)
    if isinstance(bound, TritonObject):
        return bound.dotted in _NUMBERS
    if isinstance(bound, FunctionRef):
        target = closure.function(bound)
        return target is None or target.constexpr_function
    return isinstance(call.func, ast.Name)


def _is_constexpr_call(value: ast.expr, function: Function, closure: Closure) -> bool:
    bound = callee(value, function, closure) if isinstance(value, ast.Call) else None
    return isinstance(bound, TritonObject) and bound.dotted == "triton.language.constexpr"


def cast_target(value: ast.expr, function: Function, closure: Closure) -> ast.expr | Dtype | None:
    """What `value` is cast to: P of `x.to(P.dtype.element_ty)`, the type of `x.to(tl.float16)` or `tl.cast(x, tl.float16)`;
    None for anything else, reinterpretations of bits among them."""
    if not isinstance(value, ast.Call):
        return None
    bound = callee(value, function, closure)
    if isinstance(value.func, ast.Attribute) and value.func.attr == "to" and bound is None:
        arguments = value.args
    elif isinstance(bound, TritonObject) and bound.dotted == "triton.language.cast":
        arguments = value.args[1:]
    else:
        return None
    arguments = [*arguments, *(k.value for k in value.keywords if k.arg == "dtype")]
    if len(arguments) != 1 or any(k.arg != "dtype" for k in value.keywords):
        return None
    target = arguments[0]
    if isinstance(target, ast.Attribute) and target.attr == "element_ty" and isinstance(target.value, ast.Attribute):
        return target.value.value if target.value.attr in ("dtype", "type") else None
    named = resolve_in_closure(target, scope_of(function, closure))
    return Dtype(named.attribute) if isinstance(named, TritonObject) and named.module == "triton.language" else None


def _nodes(function: Function) -> list[ast.AST]:
    return [node for statement in function.node.body for node in walk(statement)]


def _stores(function: Function) -> list[ast.Name]:
    return [node for node in _nodes(function) if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)]
