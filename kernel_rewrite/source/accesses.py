"""The calls of a kernel that touch memory, and the way back from a TTIR location to the call that caused it."""

from __future__ import annotations

import ast
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass

from kernel_rewrite.model import (
    Closure,
    Function,
    FunctionRef,
    Location,
    MemoryAccess,
    MemoryEffect,
    Span,
    TritonObject,
)
from kernel_rewrite.source.names import callee
from kernel_rewrite.source.syntax import nodes_in, walk


@dataclass(frozen=True, slots=True)
class AccessForm:
    """One spelling of a memory access.

    `callee` is the dotted Triton function, or ".name" for a method. `parameters` are its parameters in positional
    order; for a method, the receiver is the parameter "self" and is not listed. `element_type` spells the element type of
    the buffer, given the text of the pointer or descriptor.
    """

    callee: str
    operations: frozenset[str]
    effect: MemoryEffect
    parameters: tuple[str, ...]
    pointer: str
    value: str = ""
    element_type: str = "{}.dtype.element_ty"

    @property
    def through_descriptor(self) -> bool:
        return any(operation.startswith("tt.descriptor_") for operation in self.operations)


_READ, _WRITE, _ATOMIC = MemoryEffect.READ, MemoryEffect.WRITE, MemoryEffect.ACCUMULATE
_LOAD = (
    "pointer",
    "mask",
    "other",
    "boundary_check",
    "padding_option",
    "cache_modifier",
    "eviction_policy",
    "volatile",
)
_STORE = ("pointer", "value", "mask", "boundary_check", "cache_modifier", "eviction_policy")
_ATOMIC_RMW = ("pointer", "val", "mask", "sem", "scope")


def _form(callee: str, operation: str, effect: MemoryEffect, parameters: tuple[str, ...], **more: str) -> AccessForm:
    return AccessForm(callee, frozenset({operation}), effect, parameters, **{"pointer": parameters[0], **more})


def _method(name: str, operation: str, effect: MemoryEffect, parameters: tuple[str, ...], **more: str) -> AccessForm:
    return AccessForm(f".{name}", frozenset({operation}), effect, parameters, **{"pointer": "self", **more})


_ATOMICS = ("add", "max", "min", "and", "or", "xor", "xchg")

POINTER_STYLES: tuple[AccessForm, ...] = (
    # Raw pointers and block pointers: tl.store(pointer, value, mask=...)
    _form("triton.language.load", "tt.load", _READ, _LOAD),
    _form("triton.language.store", "tt.store", _WRITE, _STORE, value="value"),
    _method("load", "tt.load", _READ, _LOAD[1:]),
    _method("store", "tt.store", _WRITE, _STORE[1:], value="value"),
    # Tensor descriptors: desc.store(offsets, value)
    _method("load", "tt.descriptor_load", _READ, ("offsets",)),
    _method("store", "tt.descriptor_store", _WRITE, ("offsets", "value"), value="value", element_type="{}.dtype"),
    _method("gather", "tt.descriptor_gather", _READ, ("x_offsets", "y_offset")),
    _method(
        "scatter",
        "tt.descriptor_scatter",
        _WRITE,
        ("value", "x_offsets", "y_offset"),
        value="value",
        element_type="{}.dtype",
    ),
    _form("triton.language.load_tensor_descriptor", "tt.descriptor_load", _READ, ("desc", "offsets")),
    _form(
        "triton.language.store_tensor_descriptor",
        "tt.descriptor_store",
        _WRITE,
        ("desc", "offsets", "value"),
        value="value",
        element_type="{}.dtype",
    ),
    *(_method(f"atomic_{name}", "tt.descriptor_reduce", _ATOMIC, ("offsets", "value")) for name in _ATOMICS),
    # Atomics
    *(_form(f"triton.language.atomic_{name}", "tt.atomic_rmw", _ATOMIC, _ATOMIC_RMW) for name in _ATOMICS),
    *(_method(f"atomic_{name}", "tt.atomic_rmw", _ATOMIC, _ATOMIC_RMW[1:]) for name in _ATOMICS),
    _form("triton.language.atomic_cas", "tt.atomic_cas", _ATOMIC, ("pointer", "cmp", "val", "sem", "scope")),
    _method("atomic_cas", "tt.atomic_cas", _ATOMIC, ("cmp", "val", "sem", "scope")),
    _form("triton.language.atomic_load", "tt.atomic_load", _READ, _LOAD),
    _form("triton.language.atomic_store", "tt.atomic_store", _ATOMIC, _STORE),
)
"""Every way a kernel's source spells an access. A new pointer style is a new row."""


@dataclass(frozen=True, slots=True)
class MemoryCall:
    """One call in the source that may access memory; `forms` are the rows its spelling fits (a method may fit two)."""

    function: FunctionRef
    node: ast.Call
    forms: tuple[AccessForm, ...]

    @property
    def span(self) -> Span:
        return Span.of(self.function.file, self.node)

    @property
    def effects(self) -> frozenset[MemoryEffect]:
        return frozenset(form.effect for form in self.forms)

    def form_for(self, operation: str) -> AccessForm | None:
        return next((form for form in self.forms if operation in form.operations), None)

    def argument(self, form: AccessForm, parameter: str) -> ast.expr | None:
        """The expression passed for `parameter`, positionally or by keyword; None when it is left out or starred."""
        if parameter == "self":
            return self.node.func.value if isinstance(self.node.func, ast.Attribute) else None
        for keyword in self.node.keywords:
            if keyword.arg == parameter:
                return keyword.value
        index = form.parameters.index(parameter)
        positional = self.node.args[: index + 1]
        if len(positional) <= index or any(isinstance(a, ast.Starred) for a in positional):
            return None
        return positional[index]

    def pointer(self, form: AccessForm) -> ast.expr | None:
        return self.argument(form, form.pointer)

    def value(self, form: AccessForm) -> ast.expr | None:
        return self.argument(form, form.value) if form.value else None


@dataclass(frozen=True, slots=True)
class HelperCall:
    """One call of a jit helper in the source."""

    function: FunctionRef
    node: ast.Call
    callee: FunctionRef

    @property
    def span(self) -> Span:
        return Span.of(self.function.file, self.node)


class SourceCalls:
    """The memory calls and helper calls of a closure, to be found by TTIR location."""

    def __init__(self, closure: Closure) -> None:
        self.closure = closure
        self._memory: dict[FunctionRef, list[MemoryCall]] = {}
        self._helpers: dict[FunctionRef, list[HelperCall]] = {}
        self._found: dict[tuple[Location, str], MemoryCall | None] = {}
        for function in closure.functions:
            self._memory[function.ref] = list(_memory_calls(function, closure))
            self._helpers[function.ref] = list(_helper_calls(function, closure))

    @property
    def memory_calls(self) -> tuple[MemoryCall, ...]:
        return tuple(call for calls in self._memory.values() for call in calls)

    def memory_calls_of(self, ref: FunctionRef) -> tuple[MemoryCall, ...]:
        return tuple(self._memory[ref])

    def helper_calls_of(self, ref: FunctionRef) -> tuple[HelperCall, ...]:
        return tuple(self._helpers[ref])

    def calls_of_names(self, ref: FunctionRef, names: Container[tuple[str, str]]) -> Iterator[ast.Call]:
        """The calls in a function whose callee is spelled by one of `names`, each a (file, name)."""
        function = self.closure.function(ref)
        for node in calls_in(function) if function else ():
            if (ref.file, ast.unparse(node.func).split(".")[0]) in names:
                yield node

    def function_at(self, location: Location) -> Function | None:
        """The closure's function whose body holds `location` (the innermost, where definitions nest)."""
        holding = [
            function
            for function in self.closure.functions
            if function.ref.file == location.file
            and function.node.lineno <= location.line <= (function.node.end_lineno or function.node.lineno)
        ]
        return max(holding, key=lambda function: function.node.lineno, default=None)

    def memory_call(self, location: Location, operation: str) -> MemoryCall | None:
        """The innermost call around `location` that can have become `operation`.

        Triton up to 3.8 locates an operation at the last argument it visited, so the location may lie in a nested call;
        the operation tells which of the calls around it is meant.
        """
        key = location, operation
        if key not in self._found:
            self._found[key] = self._memory_call(location, operation)
        return self._found[key]

    def _memory_call(self, location: Location, operation: str) -> MemoryCall | None:
        function = self.function_at(location)
        if function is None:
            return None
        place = undedented(location, function)
        around = [
            call
            for call in self._memory[function.ref]
            if call.span.contains(place) and call.form_for(operation) is not None
        ]
        return max(around, key=lambda call: call.span, default=None)

    def helper_call(self, location: Location, target: FunctionRef) -> HelperCall | None:
        """The one call of `target` around `location`; None when there is none, or two nested ones."""
        function = self.function_at(location)
        if function is None:
            return None
        place = undedented(location, function)
        around = [c for c in self._helpers[function.ref] if c.callee == target and c.span.contains(place)]
        return around[0] if len(around) == 1 else None

    def surroundings(self, location: Location) -> Span | None:
        """The innermost helper call around `location`, else the head of its innermost statement. Tritons differ in the
        column they give; this does not."""
        function = self.function_at(location)
        if function is None:
            return None
        place = undedented(location, function)
        around = [call.span for call in self._helpers[function.ref] if call.span.contains(place)]
        if around:
            return max(around)
        spans = [
            Span.of(place.file, s)
            for s in nodes_in(function.node)
            if isinstance(s, ast.stmt) and s is not function.node
        ]
        holding = [span for span in spans if span.line <= place.line <= span.end_line]
        return max(holding, default=Span(place.file, place.line, place.column, place.line, place.column + 1))

    def path_of(self, access: MemoryAccess) -> tuple[HelperCall, ...] | None:
        """The helper calls that lead to `access`, outermost first; None when one cannot be found in the source."""
        places = (*access.call_path, access.location)
        path = []
        for location, inner in zip(places, places[1:], strict=False):
            target = self.function_at(inner)
            helper_call = self.helper_call(location, target.ref) if target else None
            if helper_call is None:
                return None
            path.append(helper_call)
        return tuple(path)


def undedented(location: Location, function: Function) -> Location:
    """Triton dedents a nested definition before it reads it; this puts the columns back."""
    return Location(location.file, location.line, location.column + function.nesting)


def calls_in(function: Function) -> Iterator[ast.Call]:
    """Every call in the body of `function`, in source order."""
    found = [node for statement in function.node.body for node in walk(statement) if isinstance(node, ast.Call)]
    yield from sorted(found, key=lambda node: (node.lineno, node.col_offset))


_FUNCTIONS: Mapping[str, tuple[AccessForm, ...]] = {
    form.callee: tuple(f for f in POINTER_STYLES if f.callee == form.callee) for form in POINTER_STYLES
}


def _memory_calls(function: Function, closure: Closure) -> Iterator[MemoryCall]:
    for node in calls_in(function):
        bound = callee(node, function, closure)
        if isinstance(bound, TritonObject):
            forms = _FUNCTIONS.get(bound.dotted, ())
        elif bound is None and isinstance(node.func, ast.Attribute):
            # value.store(...): a tensor of pointers, or a tensor descriptor
            forms = _FUNCTIONS.get(f".{node.func.attr}", ())
        else:
            forms = ()
        if forms:
            yield MemoryCall(function.ref, node, forms)


def _helper_calls(function: Function, closure: Closure) -> Iterator[HelperCall]:
    for node in calls_in(function):
        bound = callee(node, function, closure)
        if isinstance(bound, FunctionRef):
            yield HelperCall(function.ref, node, bound)
