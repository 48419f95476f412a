"""Where a kernel and its helpers ask for the element type of an output that gets another one, and what stands there instead.

acc.to(c_ptr.dtype.element_ty)      ->      acc.to(tl.float16)
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from kernel_rewrite.analysis import Analysis
from kernel_rewrite.diagnostics import Diagnostic, FusionRefused, Label
from kernel_rewrite.model import Edit, Function, FunctionRef, Span
from kernel_rewrite.pointwise.element_types import BITS, torch_name
from kernel_rewrite.retyped import HeldType, element_types_of, held_type
from kernel_rewrite.rewrite.additions import Replaced
from kernel_rewrite.source.values import assigned_values, is_assigned

_TYPE = frozenset(("dtype", "type"))
_DESCRIPTOR_MAKERS = ("make_tensor_descriptor", "_experimental_make_tensor_descriptor")


@dataclass(frozen=True, slots=True)
class Use:
    """An expression of `function` that gives the element type of the output: `c_ptr.dtype.element_ty`."""

    function: Function
    node: ast.expr


class RetypedOutput:
    """An output (of the kernel that `analysis` is of) that the fused kernel stores as `dtype` (torch's name). `shrinks`: its
    elements get smaller."""

    def __init__(self, analysis: Analysis, output: str, dtype: str, clones: tuple[FunctionRef, ...], tl: str) -> None:
        self.output, self.dtype = output, dtype
        self._analysis = analysis
        self._tl = tl
        self._numbers = frozenset(fact.name for fact in analysis.facts if fact.kind == "scalar")
        self._held = held_type(analysis, output)
        held = (torch_name(element) for element in element_types_of(analysis, output))
        self.shrinks = any(BITS[dtype] < BITS[name or dtype] for name in held)
        self._uses: dict[FunctionRef, tuple[Use, ...]] = {}
        for function in analysis.closure.functions:
            self._uses[function.ref] = tuple(self._uses_in(function, function.ref in clones))

    def edits(self, function: Function) -> list[Edit]:
        """The edits that keep the meaning of every use of the element type in `function`."""
        return [
            Edit(Span.of(function.ref.file, a.node), a.text, "the type it has without the epilogue")
            for a in self.additions(function)
        ]

    def additions(self, function: Function) -> list[Replaced]:
        """What must stand in the tree after these edits."""
        return [
            Replaced(use.node, self.text(function, Span.of(function.ref.file, use.node)))
            for use in self._uses[function.ref]
        ]

    def text(self, function: Function, place: Span) -> str:
        """The element type that the output has without the epilogue, spelled for `function`.

        Raises FusionRefused (KR410) where it cannot be spelled."""
        held, kernel = self._held, self._analysis.closure.kernel
        if held is None:
            raise self._refused(place, "nothing in this file says which type that is", f"say so: `{self._way_out}`")
        if held.like and (function.ref != kernel.ref or is_assigned(held.like, function)):
            why = f"it is the type of `{held.like}`, which cannot be asked for here"
            raise self._refused(place, why, f"say which it is: `{self._way_out}`")
        return held.text(self._tl)

    def is_cast_to_it(self, value: ast.expr, function: Function) -> bool:
        """Whether `value` is cast to what the output holds without the epilogue, by asking for that: `acc.to(desc.dtype)`."""
        if not (isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute) and value.func.attr == "to"):
            return False
        return not value.keywords and [id(a) for a in value.args] in [[id(u.node)] for u in self._uses[function.ref]]

    @property
    def held(self) -> HeldType | None:
        return self._held

    @property
    def _way_out(self) -> str:
        return f"--dtype {self.output}=fp32"

    def _refused(self, place: Span, why: str, help: str) -> FusionRefused:
        message = (
            f"the element type that `{self.output}` has without the epilogue is needed here, and cannot be spelled"
        )
        return FusionRefused((Diagnostic("KR410", message, (Label(place, why),), help=help),))

    # c_ptr.dtype.element_ty, c_ptrs.type.element_ty.element_ty, desc.dtype
    def _uses_in(self, function: Function, cloned: bool) -> Iterator[Use]:
        parents = {child: node for node in ast.walk(function.node) for child in ast.iter_child_nodes(node)}
        for node in ast.walk(function.node):
            if not (isinstance(node, ast.Attribute) and node.attr in _TYPE):
                continue
            if not self._is_output(node.value, function, cloned, Span.of(function.ref.file, node)):
                continue
            whole: ast.expr = node
            while isinstance(parent := parents.get(whole), ast.Attribute) and parent.attr in ("element_ty", "scalar"):
                whole = parent
            if whole is node and not _is_descriptor(node.value, function):
                message = f"the type of the pointer `{self.output}` is asked for, which the epilogue changes"
                label = Label(Span.of(function.ref.file, node), "here")
                help = "ask for the type of its elements, `.dtype.element_ty`"
                raise FusionRefused((Diagnostic("KR410", message, (label,), help=help),))
            self._must_be_editable(function, cloned, whole)
            yield Use(function, whole)

    def _must_be_editable(self, function: Function, cloned: bool, node: ast.expr) -> None:
        if cloned or function.ref.file == self._analysis.kernel.file.path:
            return
        message = f"`{function.name}` of another file asks for the element type of `{self.output}`, which changes"
        label = Label(Span.of(function.ref.file, node), "here")
        raise FusionRefused(
            (Diagnostic("KR410", message, (label,), help=f"move `{function.name}` into the kernel's file"),)
        )

    def _is_output(self, expression: ast.expr, function: Function, cloned: bool, place: Span) -> bool:
        """Whether an expression points to the output. Raises FusionRefused (KR410) where it may, and may point elsewhere.

        A copy made for the output is only reached with it, so that other ways to reach the original do not count."""
        flow = self._analysis.flow
        found = []
        for entry, names in flow.environments(function):
            if cloned and not any(self.output in roots for roots in entry.values()):
                continue
            found.append(flow.roots_in(expression, names, function) - self._numbers)
        if not any(self.output in roots for roots in found):
            return False
        if all(roots == {self.output} for roots in found):
            return True
        message = (
            f"the element type of `{self.output}`, which the epilogue changes, is asked for together with another one"
        )
        others = ", ".join(sorted({f"`{root}`" for roots in found for root in roots} - {f"`{self.output}`"}))
        label = Label(place, f"this is the type of `{self.output}`, and of {others or 'something else'}")
        raise FusionRefused((Diagnostic("KR410", message, (label,), help="ask for each of them in its own place"),))


def _is_descriptor(expression: ast.expr, function: Function) -> bool:
    """Whether an expression is a name that only ever stands for a descriptor which the kernel makes."""
    values = assigned_values(expression.id, function) if isinstance(expression, ast.Name) else []
    makers = [value.func for value in values if isinstance(value, ast.Call)]
    names = {node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "") for node in makers}
    return bool(values) and len(makers) == len(values) and names <= set(_DESCRIPTOR_MAKERS)
