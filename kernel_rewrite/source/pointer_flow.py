"""Which kernel parameters each pointer expression of the source may point into, whatever branch is taken.

TTIR shows the branches that one specialization compiles; this walks all of them at once (both sides of every `if`, loops
to a fixed point) and so covers what no specialization reached. It over-approximates: an expression may point into every
parameter that a name in it may.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator

from kernel_rewrite.model import Closure, Function, FunctionRef, MemoryEffect, TritonObject
from kernel_rewrite.source.accesses import POINTER_STYLES, SourceCalls
from kernel_rewrite.source.names import callee

Roots = frozenset[str]
Environment = dict[str, Roots]
_NOTHING: Roots = frozenset()

# `p.dtype`, `p.shape`: a fact about a pointer, not a pointer.
_FACTS = {"dtype", "type", "shape", "numel", "rank", "block_type", "element_ty"}
_READS = {form.callee for form in POINTER_STYLES if form.effect is MemoryEffect.READ and not form.callee.startswith(".")}


class PointerFlow:
    """The parameters that each name, at each call of each function of a closure, may point into."""

    def __init__(self, closure: Closure, calls: SourceCalls) -> None:
        self._closure = closure
        self._helper_targets = {
            id(call.node): call.callee for f in closure.functions for call in calls.helper_calls_of(f.ref)
        }
        self._entry: dict[FunctionRef, Environment] = {function.ref: {} for function in closure.functions}
        self._at_call: dict[int, Environment] = {}
        constexprs = closure.constexpr_parameters(closure.kernel)
        for parameter in closure.kernel.parameters:
            if parameter not in constexprs:
                self._entry[closure.kernel.ref][parameter] = frozenset({parameter})
        self._changed = True
        while self._changed:
            self._changed = False
            for function in closure.functions:
                self._block(function.node.body, dict(self._entry[function.ref]), function)

    def roots(self, expression: ast.expr, call: ast.Call, function: Function) -> Roots:
        """The kernel parameters that `expression`, an argument of `call` in `function`, may point into."""
        return self._roots(expression, self._at_call.get(id(call), {}), function)

    def _roots(self, expression: ast.AST, environment: Environment, function: Function) -> Roots:
        if isinstance(expression, ast.Name):
            return environment.get(expression.id, _NOTHING)
        if isinstance(expression, ast.Attribute) and expression.attr in _FACTS:
            return _NOTHING
        if isinstance(expression, ast.Call):
            bound = callee(expression, function, self._closure)
            if isinstance(bound, TritonObject) and bound.dotted in _READS:
                return _NOTHING  # what tl.load returns is data
        found = _NOTHING
        for child in ast.iter_child_nodes(expression):
            found |= self._roots(child, environment, function)
        return found

    # ------------------------------------------------------------------------------------------ abstract interpretation

    def _block(self, statements: Iterable[ast.stmt], environment: Environment, function: Function) -> Environment:
        for statement in statements:
            environment = self._statement(statement, environment, function)
        return environment

    def _statement(self, statement: ast.stmt, environment: Environment, function: Function) -> Environment:
        match statement:
            case ast.If(test=test, body=body, orelse=orelse):
                self._expression(test, environment, function)
                then = self._block(body, dict(environment), function)
                return _join(then, self._block(orelse, dict(environment), function))
            case ast.For(target=target, iter=iterator, body=body, orelse=orelse):
                self._expression(iterator, environment, function)
                roots = self._roots(iterator, environment, function)
                return self._loop([*body, *orelse], environment, function, [(target, roots)])
            case ast.While(test=test, body=body, orelse=orelse):
                return self._loop([ast.Expr(test), *body, *orelse], environment, function, [])
            case ast.With(items=items, body=body):
                for item in items:
                    self._expression(item.context_expr, environment, function)
                return self._block(body, environment, function)
            case ast.Assign(targets=targets, value=value):
                self._expression(value, environment, function)
                for target in targets:
                    self._assign(target, value, environment, function)
            case ast.AugAssign(target=target, value=value):
                self._expression(value, environment, function)
                roots = self._roots(target, environment, function) | self._roots(value, environment, function)
                _bind(target, roots, environment)
            case ast.AnnAssign(target=target, value=ast.expr() as value):
                self._expression(value, environment, function)
                _bind(target, self._roots(value, environment, function), environment)
            case _:
                for child in ast.iter_child_nodes(statement):
                    if isinstance(child, ast.stmt):
                        environment = _join(environment, self._statement(child, dict(environment), function))
                    else:
                        self._expression(child, environment, function)
        return environment

    def _loop(
        self,
        body: list[ast.stmt],
        environment: Environment,
        function: Function,
        targets: list[tuple[ast.expr, Roots]],
    ) -> Environment:
        while True:
            inside = dict(environment)
            for target, roots in targets:
                _bind(target, roots, inside)
            after = _join(environment, self._block(body, inside, function))
            if after == environment:
                return environment
            environment = after

    # a, b = p, q keeps p and q apart
    def _assign(self, target: ast.expr, value: ast.expr, environment: Environment, function: Function) -> None:
        sequences = (ast.Tuple, ast.List)
        if isinstance(target, sequences) and isinstance(value, sequences) and len(target.elts) == len(value.elts):
            found = [self._roots(part, environment, function) for part in value.elts]
            for part, roots in zip(target.elts, found, strict=True):
                _bind(part, roots, environment)
            return
        _bind(target, self._roots(value, environment, function), environment)

    def _expression(self, expression: ast.AST, environment: Environment, function: Function) -> None:
        """Note the names as they stand at each call inside, and pass arguments on to helpers."""
        for node in ast.walk(expression):
            if isinstance(node, ast.NamedExpr):
                _bind(node.target, self._roots(node.value, environment, function), environment)
            if not isinstance(node, ast.Call):
                continue
            known = self._at_call.get(id(node), {})
            joined = _join(known, environment)
            if joined != known:
                self._at_call[id(node)], self._changed = joined, True
            target = self._closure.function(self._helper_targets[id(node)]) if id(node) in self._helper_targets else None
            if target is None:
                continue
            entry = self._entry[target.ref]
            for parameter, argument in bound_arguments(node, target):
                roots = entry.get(parameter, _NOTHING) | self._roots(argument, environment, function)
                if roots != entry.get(parameter, _NOTHING):
                    entry[parameter], self._changed = roots, True


def _join(one: Environment, other: Environment) -> Environment:
    return {name: one.get(name, _NOTHING) | other.get(name, _NOTHING) for name in one.keys() | other.keys()}


def _bind(target: ast.expr, roots: Roots, environment: Environment) -> None:
    if isinstance(target, ast.Name):
        environment[target.id] = roots
        return
    # a tuple, or an element of one: every name in it may hold any of the value
    for node in ast.walk(target):
        if isinstance(node, ast.Name):
            environment[node.id] = environment.get(node.id, _NOTHING) | roots


def bound_arguments(call: ast.Call, target: Function) -> Iterator[tuple[str, ast.expr]]:
    """(parameter, argument) pairs of a helper call; a starred argument may land in every parameter."""
    parameters = target.parameters
    for index, argument in enumerate(call.args):
        if isinstance(argument, ast.Starred):
            yield from ((parameter, argument.value) for parameter in parameters[index:])
            return
        if index < len(parameters):
            yield parameters[index], argument
    for keyword in call.keywords:
        if keyword.arg is not None:
            yield keyword.arg, keyword.value
        else:
            yield from ((parameter, keyword.value) for parameter in parameters)
