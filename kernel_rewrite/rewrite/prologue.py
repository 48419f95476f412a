"""From planned loads and a prologue to edits of the source: what is loaded gives way to P of it.

b = tl.load(b_ptrs)                                    ->  b = sigmoid(tl.load(b_ptrs))
a = tl.load(a_ptrs, mask=offs_k < K - k, other=0.0)    ->  the same, and behind it
                                                           a = tl.where(offs_k < K - k, sigmoid(a), a)
acc += tl.load(a_ptrs, mask=m, other=0.0)              ->  acc += sigmoid_where(tl.load(a_ptrs, mask=m, other=0.0), m)
a = a_desc.load([row, k])                              ->  the same, and behind it
    a = tl.where((row + tl.arange(0, BLOCK_M) < M)[:, None] & (k + tl.arange(0, BLOCK_K) < K)[None, :], sigmoid(a), a)
"""

from __future__ import annotations

import ast
import contextlib
from collections.abc import Mapping
from typing import Any

from kernel_rewrite.analysis import Analysis
from kernel_rewrite.model import Edit, Function, FunctionRef, Span
from kernel_rewrite.pointwise.composition import parameter_names
from kernel_rewrite.pointwise.emission import Emission, emit
from kernel_rewrite.pointwise.function import Pointwise
from kernel_rewrite.pointwise.graph import X
from kernel_rewrite.rewrite.additions import AddedStatements, Addition
from kernel_rewrite.rewrite.copies import copied_text
from kernel_rewrite.rewrite.edits import nested
from kernel_rewrite.rewrite.loads import LoadPlan, LoadSite
from kernel_rewrite.rewrite.operands import OperandWriter
from kernel_rewrite.rewrite.placement import indent_of
from kernel_rewrite.rewrite.products import may_add_loaded
from kernel_rewrite.rewrite.retyping import RetypedOutput
from kernel_rewrite.rewrite.spelling import Spelling, free
from kernel_rewrite.source.accesses import HelperCall
from kernel_rewrite.source.bounds import bounds_text
from kernel_rewrite.source.definitions import Definitions
from kernel_rewrite.source.expressions import grouped, parsed, printed, substitute
from kernel_rewrite.source.files import SourceFile, newline_of

# Stands for what is loaded while the expression is built; no identifier of a real program.
_LOADED = "__loaded__"

_ZERO = "0.0"


class LoadRewriter:
    """The edits for one input."""

    def __init__(
        self,
        plan: LoadPlan,
        pointwise: Pointwise,
        operands: OperandWriter,
        retyped: RetypedOutput | None,
        analysis: Analysis,
        spelling: Spelling,
        clone_names: dict[FunctionRef, str],
        taken: frozenset[str],
        known: Mapping[str, str] = {},
    ) -> None:
        self._plan = plan
        self._pointwise = pointwise
        self._operands = operands
        self._retyped = retyped
        self._closure = analysis.closure
        self._file = analysis.kernel.file
        self._project = analysis.project
        self._spelling = spelling
        self._clone_names = clone_names
        self._taken = taken
        self._known = known  # helpers of other rewriters, by name
        self._apart = may_add_loaded(analysis, plan.input)
        self._definitions: dict[FunctionRef, Definitions] = {}
        self.helpers: dict[str, str] = {}

    def in_place(self) -> list[Edit]:
        """Edits of the kernel and of the helpers that need no copy."""
        functions = [f for f in self._closure.functions if f.ref not in self._clone_names]
        return [edit for function in functions for edit in self._edits_of(function)]

    @property
    def additions(self) -> list[Addition | AddedStatements]:
        """What the edits in place add to the user's tree beside the loaded expressions."""
        functions = [f for f in self._closure.functions if f.ref not in self._clone_names]
        return [addition for function in functions for addition in self.clone_additions(function.ref)]

    def clone(self, ref: FunctionRef, jit: str = "") -> str:
        """The text of a copy of the helper under its new name, its loads and calls rewritten."""
        function = self._closure.function(ref)
        assert function is not None
        return copied_text(self._file_of(ref), function, self._clone_names[ref], self._edits_of(function), jit)

    def clone_additions(self, ref: FunctionRef) -> tuple[Addition | AddedStatements, ...]:
        """What the edits of a function add to it."""
        function = self._closure.function(ref)
        assert function is not None
        sites = [site for site in self._plan.sites if site.call.function == ref and site.stays]
        behind = tuple(AddedStatements(s, behind=(text,), rebinds=True) for s, text in map(self._behind, sites))
        types = self._retyped.additions(function) if self._retyped is not None else []
        return (*behind, *types, *self._operands.edits(function).additions)

    def _file_of(self, ref: FunctionRef) -> SourceFile:
        file = self._file if ref.file == self._file.path else self._project.file(ref.file)
        assert file is not None
        return file

    def _edits_of(self, function: Function) -> list[Edit]:
        sites = [self._load(site) for site in self._plan.sites if site.call.function == function.ref]
        calls = [self._redirect(call) for call in self._plan.redirected if call.function == function.ref]
        types = self._retyped.edits(function) if self._retyped is not None else []
        edits = [*sites, *calls, *types, *self._operands.edits(function).edits]
        return nested(self._file_of(function.ref), edits)

    def _load(self, site: LoadSite) -> Edit:
        file = self._file_of(site.call.function)
        why = f"{self._pointwise.name} of what is loaded"
        if site.stays:
            statement, text = self._behind(site)
            line = (statement.end_lineno or statement.lineno) + 1
            return Edit(
                Span(file.path, line, 0, line, 0), indent_of(file, statement) + text + newline_of(file.text), why
            )
        expression = self._guarded(site) if site.guarded else self._emission(_LOADED, site).expression
        result = substitute(expression, _LOADED, parsed(file.slice(site.call.span)))
        alone = self._is_argument_or_value(site)
        return Edit(site.call.span, printed(result if alone else grouped(result)), why)

    # a = tl.load(a_ptrs, mask=m, other=0.0) -> a = tl.where(m, sigmoid(a), a)
    def _behind(self, site: LoadSite) -> tuple[ast.stmt, str]:
        """The statement of a load whose off lanes must stay what they are, and the one that goes behind it."""
        statement = self._definitions_of(site.call.function).statement_of(site.call.node)
        assert isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name)
        name = statement.targets[0].id
        kept = _ZERO if self._plan.holds else name  # what is loaded has another type than P of it
        changed = self._emission(name, site).expression
        return statement, f"{name} = {self._spelling.tl}.where({self._mask_of(site)}, {changed}, {kept})"

    def _mask_of(self, site: LoadSite) -> str:
        """The text of the lanes that a load leaves on."""
        if site.bounds:
            return bounds_text(site.bounds, self._spelling.tl)
        assert site.mask is not None
        return _on_one_line(self._file_of(site.call.function), site.mask)

    # tl.load(a_ptrs, mask=m, other=0.0).to(tl.float32) -> sigmoid_where(tl.load(a_ptrs, mask=m, other=0.0), m).to(tl.float32)
    def _guarded(self, site: LoadSite) -> str:
        """The call of a helper, over what is loaded, that puts P where the mask is on."""
        names = parameter_names(self._pointwise.result)
        given = self._operands.texts(site)
        own = {X, *names.values()}
        mask_name = free("mask", own)
        inside = emit(self._pointwise, X, {key: names.get(key, key) for key in given}, **self._how)
        self.helpers |= {helper.name: helper.text for helper in inside.helpers}
        kept = _ZERO if self._plan.holds else X
        parameters = [X, mask_name, *(names.get(key, key) for key in given)]
        rest = (
            f"({', '.join(parameters)}):\n"
            f'    """{self._pointwise.torch_text()} where the mask is on, {kept} elsewhere."""\n'
            f"    return {self._spelling.tl}.where({mask_name}, {inside.expression}, {kept})\n"
        )
        name = f"{self._pointwise.name}_where"
        text = f"@{self._spelling.jit}\ndef {name}{rest}"
        if self._known.get(name) != text:
            name = free(name, self._taken)
        self.helpers[name] = f"@{self._spelling.jit}\ndef {name}{rest}"
        return f"{name}({', '.join([_LOADED, self._mask_of(site), *given.values()])})"

    def _definitions_of(self, ref: FunctionRef) -> Definitions:
        if ref not in self._definitions:
            function = self._closure.function(ref)
            assert function is not None
            self._definitions[ref] = Definitions(function.node)
        return self._definitions[ref]

    def _is_argument_or_value(self, site: LoadSite) -> bool:
        """Whether any expression can stand where the load stands, without parentheses."""
        node = site.call.node
        for parent in ast.walk(self._definitions_of(site.call.function).statement_of(node)):
            match parent:
                case ast.Call(args=args, keywords=keywords):
                    if any(argument is node for argument in args) or any(k.value is node for k in keywords):
                        return True
                case ast.Assign(value=value) | ast.AnnAssign(value=value) | ast.Return(value=value) if value is node:
                    return True
        return False

    @property
    def _how(self) -> dict[str, Any]:
        """How P is written here."""
        return {
            "tl": self._spelling.tl,
            "libdevice": self._spelling.libdevice or "libdevice",
            "jit": self._spelling.jit,
            "taken_names": self._taken,
            "known": self._known,
            "settled": True,
            "apart": self._apart,
        }

    def _emission(self, value: str, site: LoadSite) -> Emission:
        """P over `value` and what is loaded beside it; the helpers it calls are kept."""
        emission = emit(self._pointwise, value, self._operands.texts(site), **self._how)
        self.helpers |= {helper.name: helper.text for helper in emission.helpers}
        return emission

    def _redirect(self, call: HelperCall) -> Edit:
        span = Span.of(call.function.file, call.node.func)
        return Edit(span, self._clone_names[call.callee], "call the copy made for this input")


def _on_one_line(file: SourceFile, expression: ast.expr) -> str:
    """The user's text of an expression in one line; the text that Python prints where comments or `\\` stand in it."""
    text = " ".join(file.slice(Span.of(file.path, expression)).split())
    with contextlib.suppress(SyntaxError):
        if ast.dump(ast.parse(text, mode="eval").body) == ast.dump(expression):
            return text
    return ast.unparse(expression)
