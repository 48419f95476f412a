"""Calls that never run because of what the source itself writes: a branch on a flag that a helper is handed as `False`.

_load(x_ptr, offs, n, False)         def _load(x_ptr, offs, n, MASKED: tl.constexpr):
                                         if MASKED:
                                             return tl.load(x_ptr + offs, mask=offs < n)    <- never runs, that way
"""

from __future__ import annotations

import ast
from collections.abc import Mapping

from kernel_rewrite.model import Closure, Function
from kernel_rewrite.source.pointer_flow import Reached, bound_arguments
from kernel_rewrite.source.syntax import nodes_in

Known = Mapping[str, object]
"""The parameters of a function that have one value, which is written out in the source."""


def is_dead(reached: Reached, closure: Closure) -> bool:
    """Whether a call cannot run when it is reached that way: it, or a helper call on the way, stands in a branch whose test
    is decided by literals that the helpers are handed."""
    known: Known = {}
    for caller, helper_call in zip(reached.callers, reached.path, strict=True):
        if _is_skipped(caller.node, helper_call.node, known):
            return True
        target = closure.function(helper_call.callee)
        known = _handed(helper_call.node, target, known) if target is not None else {}
    return _is_skipped(reached.function.node, reached.call, known)


def _handed(call: ast.Call, target: Function, known: Known) -> Known:
    """The literals that a call hands to the parameters of `target` that are never bound to anything else there."""
    given: dict[str, list[ast.expr]] = {}
    for parameter, argument in bound_arguments(call, target):
        given.setdefault(parameter, []).append(argument)
    values = {name: _value(arguments[0], known) for name, arguments in given.items() if len(arguments) == 1}
    changed = {node.id for node in nodes_in(target.node) if isinstance(node, ast.Name) and _is_bound(node)}
    return {name: value[0] for name, value in values.items() if value is not None and name not in changed}


def _is_bound(name: ast.Name) -> bool:
    return isinstance(name.ctx, (ast.Store, ast.Del))


def _is_skipped(function: ast.FunctionDef, call: ast.Call, known: Known) -> bool:
    """Whether `call` stands on the side of a test of `function` that is not taken."""
    for node in nodes_in(function):
        if isinstance(node, (ast.If, ast.IfExp)) and node.lineno <= call.lineno <= (node.end_lineno or node.lineno):
            value = _value(node.test, known)
            skipped = [] if value is None else node.orelse if value[0] else node.body
            parts = skipped if isinstance(skipped, list) else [skipped]
            if any(inner is call for part in parts for inner in ast.walk(part)):
                return True
    return False


def _value(node: ast.expr, known: Known) -> tuple[object] | None:
    """The value of a literal, a known parameter, or `not`, `and`, `or` of such; None for anything else."""
    match node:
        case ast.Constant(value=value):
            return (value,)
        case ast.Name(id=name):
            return (known[name],) if name in known else None
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            inner = _value(operand, known)
            return None if inner is None else (not inner[0],)
        case ast.BoolOp(op=operator, values=parts):
            stops = isinstance(operator, ast.Or)
            found = [_value(part, known) for part in parts]
            if any(part is not None and bool(part[0]) is stops for part in found):
                return (stops,)
            return None if None in found else (not stops,)
    return None
