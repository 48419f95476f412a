"""What an output leaves behind in its kernel when nothing is stored to it any more: which statements go with its stores.

gate_ptrs = gate_ptr + offsets                  # goes: it feeds the store alone
tl.store(gate_ptrs, gate, mask=mask)            # goes
b = gate.to(gate_ptr.dtype.element_ty)          # stays, as gate.to(c_ptr.dtype.element_ty)
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from kernel_rewrite.diagnostics import Diagnostic, FusionRefused, Label
from kernel_rewrite.model import Closure, Function, FunctionRef, Span, TritonObject
from kernel_rewrite.rewrite.additions import Replaced
from kernel_rewrite.rewrite.stores import StorePlan
from kernel_rewrite.source.names import callee
from kernel_rewrite.source.syntax import PURE_NODES, blocks_of, last_name, walk

_EFFECTS = ("store", "atomic_", "debug_", "device_", "static_", "inline_asm", "async_", "descriptor_store", "assume")
"""How the names of functions and methods begin that do more than compute and load."""


@dataclass(frozen=True, slots=True)
class KernelWithout:
    """What goes from a kernel: whole `statements`, and what gives way to another expression. `idle` are the parameters that
    nothing but those statements named."""

    statements: tuple[ast.stmt, ...]
    replaced: tuple[Replaced, ...]
    idle: frozenset[str]


def kernel_without(closure: Closure, plans: Iterable[StorePlan], like: Mapping[str, str]) -> KernelWithout:
    """What goes from the kernel with the outputs of `plans`, none of whose stores is to be left. `like` gives an expression
    for the element type of an output, where other code asks for it.

    Raises FusionRefused (KR320) where a store stands in a helper, or something else depends on the pointer.
    """
    return _Without(closure, tuple(plans), like).found()


class _Without:
    def __init__(self, closure: Closure, plans: tuple[StorePlan, ...], like: Mapping[str, str]) -> None:
        self._closure = closure
        self._function: Function = closure.kernel
        self._plans = plans
        self._like = like
        self._outputs = [plan.output for plan in plans]
        self._constexprs = closure.constexpr_parameters(closure.kernel)
        self._nodes = [node for statement in self._function.node.body for node in walk(statement)]
        self._parents = {child: node for node in walk(self._function.node) for child in ast.iter_child_nodes(node)}
        self._gone: dict[int, ast.stmt] = {}
        self._names: dict[str, str] = {output: output for output in self._outputs}  # a pointer, and its output

    def found(self) -> KernelWithout:
        for plan in self._plans:
            self._stores(plan)
        while self._pointers():
            pass
        while self._empty_tests() or self._left_over():
            pass
        replaced = tuple(self._types())
        named = [n for s in self._gone.values() for n in walk(s) if isinstance(n, ast.Name)]
        alive = {n.id for n in self._nodes if isinstance(n, ast.Name) and not self._is_gone(n)}
        idle = {n.id for n in named if n.id in self._function.parameters and n.id not in alive}
        return KernelWithout(tuple(self._gone.values()), replaced, frozenset(idle - set(self._outputs)))

    # ------------------------------------------------------------------------------------------------------ what goes

    def _stores(self, plan: StorePlan) -> None:
        for site in plan.sites:
            call = site.call.node
            statement = self._parents.get(call)
            if site.call.function != self._function.ref or plan.path:
                why = "a helper stores it, which other stores may go through too"
                raise self._refused(plan.output, site.call.span, why, "write the store in the kernel itself")
            if not isinstance(statement, ast.Expr):
                why = "the store is no statement of its own"
                raise self._refused(plan.output, site.call.span, why, "write it on a line of its own")
            if not all(self._is_pure(value) for value in (*call.args, *(k.value for k in call.keywords))):
                why = "what is computed in this call does more than compute and load"
                raise self._refused(
                    plan.output, site.call.span, why, "compute it on a line of its own, before the store"
                )
            self._gone[id(statement)] = statement

    def _pointers(self) -> bool:
        """Take away the statements that make or move on a pointer of what goes; whether there was one."""
        for node in self._uses():
            statement = self._statement(node)
            name = _only_target(statement)
            if name is None or self._is_gone(statement):
                continue
            output = self._names[node.id]
            if not self._is_pure_statement(statement):
                continue  # what is left of these uses is refused
            self._names.setdefault(name, output)
            self._gone[id(statement)] = statement
            for other in self._bindings(name):
                if not self._feeds_on_gone(other):
                    raise self._refused(output, self._span(other), f"`{name}` is given another value here", _NAMES)
            self._must_be_local(name, statement, output)
            return True
        return False

    def _uses(self) -> Iterator[ast.Name]:
        """The names of pointers that go, where more is asked than the type of their elements."""
        for node in self._nodes:
            if isinstance(node, ast.Name) and node.id in self._names and not self._is_gone(node):
                if self._type_query(node) is None:
                    yield node

    def _feeds_on_gone(self, binding: ast.AST) -> bool:
        """Whether a name is bound to what is computed from a pointer that goes."""
        statement = self._statement(binding)
        if _only_target(statement) is None:
            return False
        named = (n for n in walk(statement) if isinstance(n, ast.Name) and n.id in self._names)
        if isinstance(statement, ast.AugAssign):
            return True
        return any(isinstance(n.ctx, ast.Load) and self._type_query(n) is None for n in named)

    def _must_be_local(self, name: str, statement: ast.stmt, output: str) -> None:
        if not self._is_local(name, statement):
            why = f"a loop or a branch hands `{name}` on, which the kernel would do without it in another way"
            raise self._refused(output, self._span(statement), why, _NAMES)

    def _is_local(self, name: str, statement: ast.stmt) -> bool:
        """Whether no loop and no branch at run time around a binding of `name` hands its value on."""
        occurrences = [n for n in self._nodes if isinstance(n, ast.Name) and n.id == name]
        inner: ast.AST = statement
        while True:
            outer = self._parents[inner]
            block = next((b for b in blocks_of(outer) if inner in b), [])
            if outer is self._function.node:
                return True
            if name not in self._function.parameters:
                within = {id(n) for s in block for n in walk(s)}
                if all(id(n) in within for n in occurrences):
                    return True
            if not (isinstance(outer, ast.If) and self._is_compile_time(outer.test)):
                return False
            inner = outer

    def _empty_tests(self) -> bool:
        """Take away the `if` that has nothing left in it; whether there was one."""
        for node in self._nodes:
            if (
                isinstance(node, ast.If)
                and not self._is_gone(node)
                and not self._is_elif(node)
                and self._is_empty(node)
            ):
                self._gone[id(node)] = node
                return True
        return False

    def _is_empty(self, node: ast.If) -> bool:
        """Whether nothing is left in a test, nor in the `elif` and the `else` behind it, and asking it does nothing."""
        inner = (s for s in (*node.body, *node.orelse) if not self._is_gone(s))
        return self._is_pure(node.test) and all(isinstance(s, ast.If) and self._is_empty(s) for s in inner)

    def _is_elif(self, node: ast.If) -> bool:
        """Whether a test stands alone in the `else` of another one, however it is spelled."""
        outer = self._parents[node]
        return isinstance(outer, ast.If) and outer.orelse == [node]

    def _left_over(self) -> bool:
        """Take away a statement whose value only what has gone asked for; whether there was one."""
        asked = {n.id for s in self._gone.values() for n in walk(s) if isinstance(n, ast.Name)}
        for name in sorted(asked - set(self._function.parameters)):
            bindings = self._bindings(name)
            if not bindings or any(self._is_gone(binding) for binding in bindings):
                continue
            statements = [self._statement(binding) for binding in bindings]
            uses = (n for n in self._nodes if isinstance(n, ast.Name) and n.id == name)
            if any(not self._is_gone(n) and self._statement(n) not in statements for n in uses):
                continue
            if all(isinstance(s, (ast.Assign, ast.AnnAssign)) and self._is_left_over(name, s) for s in statements):
                self._gone |= {id(s): s for s in statements}
                return True
        return False

    def _is_left_over(self, name: str, statement: ast.stmt) -> bool:
        simple = _only_target(statement) == name and self._is_pure_statement(statement)
        return simple and self._is_local(name, statement)

    # -------------------------------------------------------------------------------------------------- what is asked

    def _types(self) -> Iterator[Replaced]:
        """What stands instead of the element type of an output that goes. Refuses every other use that is left."""
        for node in self._nodes:
            if not isinstance(node, ast.Name) or node.id not in self._names or self._is_gone(node):
                continue
            output, query = self._names[node.id], self._type_query(node)
            if query is None:
                how = "store to the output through pointers that nothing else takes"
                raise self._refused(output, self._span(node), f"`{node.id}` is used here too", how)
            if output not in self._like:
                how = "name the type, for example `tl.float16`"
                raise self._refused(output, self._span(query), "the type of its elements is asked for here", how)
            yield Replaced(query, self._like[output])

    def _type_query(self, name: ast.Name) -> ast.expr | None:
        """`c_ptr.dtype.element_ty` around `c_ptr`, `desc.dtype` around a descriptor that the kernel makes; None elsewhere."""
        first = self._parents.get(name)
        if not isinstance(first, ast.Attribute) or first.attr not in ("dtype", "type"):
            return None
        whole: ast.expr = first
        found = False
        while isinstance(outer := self._parents.get(whole), ast.Attribute) and outer.attr in ("element_ty", "scalar"):
            found |= outer.attr == "element_ty"
            whole = outer
        return whole if found or (first.attr == "dtype" and self._is_descriptor(name.id)) else None

    def _is_descriptor(self, name: str) -> bool:
        values = [getattr(self._statement(b), "value", None) for b in self._bindings(name)]
        return bool(values) and all(
            isinstance(v, ast.Call) and ast.unparse(v.func).endswith("make_tensor_descriptor") for v in values
        )

    def _is_gone(self, node: ast.AST) -> bool:
        current: ast.AST | None = node
        while current is not None:
            if id(current) in self._gone:
                return True
            current = self._parents.get(current)
        return False

    def _statement(self, node: ast.AST) -> ast.stmt:
        while not isinstance(node, ast.stmt):
            node = self._parents[node]
        return node

    def _bindings(self, name: str) -> list[ast.Name]:
        return [n for n in self._nodes if isinstance(n, ast.Name) and n.id == name and not isinstance(n.ctx, ast.Load)]

    def _is_pure_statement(self, statement: ast.stmt) -> bool:
        value = getattr(statement, "value", None)
        return isinstance(value, ast.expr) and self._is_pure(value)

    def _is_pure(self, value: ast.expr) -> bool:
        """Whether an expression only computes, of what it loads perhaps."""
        return self._computes(value, self._function, 4)

    def _computes(self, value: ast.AST, function: Function, depth: int) -> bool:
        for node in walk(value):
            if isinstance(node, ast.expr) and not isinstance(node, PURE_NODES):
                return False
            if isinstance(node, ast.Call) and not self._is_computation(node, function, depth):
                return False
        return True

    def _is_computation(self, call: ast.Call, function: Function, depth: int) -> bool:
        if any(keyword.arg == "volatile" for keyword in call.keywords):
            return False
        bound = callee(call, function, self._closure)
        if isinstance(bound, TritonObject):
            return bound.module.startswith("triton") and not bound.attribute.startswith(_EFFECTS)
        if isinstance(bound, FunctionRef):
            helper = self._closure.function(bound)
            # a load in a helper is a call in TTIR, which stays
            if not depth or helper is None or self._loads(helper):
                return False
            return all(self._computes(statement, helper, depth - 1) for statement in helper.node.body)
        return bound is None and isinstance(call.func, ast.Attribute) and not call.func.attr.startswith(_EFFECTS)

    @staticmethod
    def _loads(helper: Function) -> bool:
        calls = (node for node in walk(helper.node) if isinstance(node, ast.Call))
        return any(last_name(call.func) in ("load", "gather", "load_tensor_descriptor") for call in calls)

    def _is_compile_time(self, test: ast.expr) -> bool:
        names = {n.id for n in walk(test) if isinstance(n, ast.Name)}
        bound = {n.id for n in self._nodes if isinstance(n, ast.Name) and not isinstance(n.ctx, ast.Load)}
        return names <= self._constexprs and not names & bound and not any(isinstance(n, ast.Call) for n in walk(test))

    def _span(self, node: ast.AST) -> Span:
        assert isinstance(node, (ast.expr, ast.stmt))
        return Span.of(self._function.ref.file, node)

    def _refused(self, output: str, span: Span, why: str, how: str) -> FusionRefused:
        return cannot_drop(output, self._function.name, (Label(span, why),), how)


_NAMES = "give the pointer of each store a name of its own, bound once, in the block of the store"


def cannot_drop(output: str, kernel: str, labels: tuple[Label, ...], how: str) -> FusionRefused:
    """KR320: the kernel cannot do without an output."""
    message = f"`{output}` cannot be dropped from `{kernel}`"
    return FusionRefused((Diagnostic("KR320", message, labels, help=how),))


def _only_target(statement: ast.stmt) -> str | None:
    """The one name that a plain assignment binds."""
    match statement:
        case (
            ast.Assign(targets=[ast.Name(id=name)])
            | ast.AugAssign(target=ast.Name(id=name))
            | ast.AnnAssign(target=ast.Name(id=name), value=ast.expr())
        ):
            return name
    return None


def names_of_outputs(outputs: Collection[str]) -> str:
    """`gate_ptr` and `up_ptr`"""
    return " and ".join(f"`{output}`" for output in outputs)
