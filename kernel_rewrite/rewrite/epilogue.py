"""From planned stores and an epilogue to edits of the source: the stored expressions, helper functions, clones, imports."""

from __future__ import annotations

import ast
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import libcst as cst

from kernel_rewrite.analysis import Analysis
from kernel_rewrite.diagnostics import Diagnostic, FusionRefused, Label, Severity
from kernel_rewrite.epilogue_kernels import reading_of
from kernel_rewrite.model import Assumption, Dtype, Edit, Function, FunctionRef, Operand, OperandKind, Span
from kernel_rewrite.pointwise.calls import TritonCall
from kernel_rewrite.pointwise.emission import Emission, Epilogue, emit
from kernel_rewrite.pointwise.function import Pointwise
from kernel_rewrite.pointwise.graph import Input
from kernel_rewrite.pointwise.remainder import Remainder
from kernel_rewrite.probes import certain_element_type
from kernel_rewrite.retyped import new_element_type
from kernel_rewrite.rewrite.additions import AddedStatements, Replaced
from kernel_rewrite.rewrite.additions import Addition as TreeAddition
from kernel_rewrite.rewrite.allocations import ChangedBuffer, Fills
from kernel_rewrite.rewrite.beside import store_beside
from kernel_rewrite.rewrite.copies import copied_text, imports_for_copy, imports_of
from kernel_rewrite.rewrite.edits import apply_edits, nested
from kernel_rewrite.rewrite.kept import kept_assumptions, kept_contract, kept_parameters, overwritten
from kernel_rewrite.rewrite.launcher import kernel_contract, launcher_edits
from kernel_rewrite.rewrite.loads import LoadPlan
from kernel_rewrite.rewrite.operands import KeptAt, OperandWriter
from kernel_rewrite.rewrite.parameters import LaunchedKernel, NewParameter, parameter_edits
from kernel_rewrite.rewrite.placement import (
    Addition,
    added_above,
    added_below,
    added_imports,
    addition_edits,
    anchor_line,
    indent_of,
    stands_alone,
)
from kernel_rewrite.rewrite.products import may_store_product
from kernel_rewrite.rewrite.prologue import LoadRewriter
from kernel_rewrite.rewrite.retyping import RetypedOutput
from kernel_rewrite.rewrite.spelling import Spelling, Surroundings, free, names_in
from kernel_rewrite.rewrite.stores import StorePlan, StoreSite, plan_stores
from kernel_rewrite.rewrite.unchanged import Clone, Plan
from kernel_rewrite.source.accesses import HelperCall
from kernel_rewrite.source.expressions import grouped, parsed, printed, replace_argument, replace_pointer, substitute
from kernel_rewrite.source.files import SourceFile, newline_of
from kernel_rewrite.source.names import locals_of
from kernel_rewrite.source.pointer_flow import bound_arguments
from kernel_rewrite.source.pointwise_kernels import refusal
from kernel_rewrite.source.syntax import nodes_in
from kernel_rewrite.source.values import (
    argument_position,
    assigned_at_run_time,
    assigned_values,
    cast_target,
    is_assigned,
    is_number_call,
    pointer_operand,
)

# Stands for the stored value while the expression is built; no identifier of a real program.
_VALUE = "__stored_value__"


@dataclass(frozen=True, slots=True)
class Rewrite:
    """The edits that carry out `plans`, and the copies of helpers among them. `additions` are what they add to the user's
    functions and calls, `parameters` those of the kernel, by operand. `writers` say, for each buffer, what its operands
    follow. `retyped` are the buffers that get another element type. `contract` is what callers must now pass, in
    sentences. `kept` are the parameters for the original values of outputs."""

    plans: tuple[Plan, ...]
    edits: tuple[Edit, ...]
    clones: tuple[Clone, ...]
    additions: tuple[TreeAddition | AddedStatements, ...] = ()
    parameters: Mapping[str, NewParameter] = field(default_factory=dict)
    writers: Mapping[str, OperandWriter] = field(default_factory=dict)
    retyped: Mapping[str, RetypedOutput] = field(default_factory=dict)
    contract: tuple[str, ...] = ()
    kept: Mapping[str, NewParameter] = field(default_factory=dict)

    @property
    def assumptions(self) -> tuple[Assumption, ...]:
        """What operands, new element types of outputs, the buffers that keep original values and the bounds of blocks take
        from the caller."""
        found = [assumption for writer in self.writers.values() for assumption in writer.assumptions]
        if any(not parameter.number for parameter in self.parameters.values()):
            names = "`, `".join(name for name, parameter in self.parameters.items() if not parameter.number)
            found.append(Assumption("operands-apart", f"the kernel writes to nothing that overlaps `{names}`"))
        for plan in self.plans:
            held = self.retyped.get(plan.output) if isinstance(plan, StorePlan) else None
            if held is not None and held.shrinks and any(site.form.through_descriptor for site in plan.sites):
                what = f"the strides of `{held.output}` but for the last are multiples of 16 bytes in its new type"
                found.append(Assumption("descriptor-strides", what))
            if isinstance(plan, LoadPlan) and any(bound.is_assumed for site in plan.sites for bound in site.bounds):
                what = f"no block of `{plan.input}` starts before the first element of a dimension"
                found.append(Assumption("input-blocks", what))
        return tuple(dict.fromkeys((*found, *kept_assumptions(self.kept, self.retyped))))


def references(analysis: Analysis) -> frozenset[tuple[FunctionRef, int, int]]:
    """Where a helper of the kernel's file is used: (helper, line, column of the name); (helper, 0, 0) when a launch or a
    configuration passes it as a value."""
    file, closure = analysis.kernel.file, analysis.closure
    helpers = {f.name: f.ref for f in closure.functions[1:] if f.ref.file == file.path}
    values = (value for view in analysis.views for _, value in view.specialization.constexprs)
    found = {(value, 0, 0) for value in values if isinstance(value, FunctionRef)}
    for node in nodes_in(file.tree) if helpers else ():
        match node:
            case ast.Name(id=name) if name in helpers:
                found.add((helpers[name], node.lineno, node.col_offset))
            case ast.Attribute(attr=name) if name in helpers:
                assert node.end_lineno is not None and node.end_col_offset is not None
                found.add((helpers[name], node.end_lineno, node.end_col_offset - len(name.encode())))
            case ast.Constant(value=str(name)) if name in helpers:  # __all__
                found.add((helpers[name], node.lineno, node.col_offset))
    return frozenset(found)


def fusion_edits(
    stores: Iterable[tuple[StorePlan, Epilogue]],
    analysis: Analysis,
    numerics: str,
    *,
    loads: Iterable[tuple[LoadPlan, Pointwise]] = (),
    launcher: bool = True,
    fills: Mapping[str, Fills] = {},
    kept: Mapping[str, str] = {},
    rests: Mapping[str, Remainder] = {},
) -> Rewrite:
    """The edits of the kernel's file that make each plan's stores store E(value) and each plan's loads give P(value), and
    with `launcher` those of the functions that launch the kernel, so that they take and pass on what E reads, allocate an
    output with the element type that E gives it, and fill it with what `fills` says instead of what they fill it with. `kept`
    names the new parameter for each output whose original value is stored too. Launchers return an output of `rests` with the
    rest of its epilogue, in torch.

    Raises FusionRefused: KR213 for a store that cannot be edited or a helper of another file that cannot be copied here,
    KR301 to KR304 and KR306 for an operand or a kept value whose place cannot be derived, KR310 to KR322 for a parameter
    that cannot be added or a launcher that cannot be changed, KR410 where an output's old element type is needed and
    cannot be spelled.
    """
    closure, project = analysis.closure, analysis.project
    file, jit = analysis.kernel.file, analysis.kernel.jit_spelling
    stores, loads = tuple(stores), tuple(loads)
    plans: tuple[tuple[Plan, Epilogue], ...] = (*stores, *loads)
    _no_call_twice(plan for plan, _ in plans)
    touched = _touched(analysis, [plan for plan, _ in plans])
    around = Surroundings.of(analysis.kernel, project, touched)
    spelling = Spelling.of(around, jit, any(p.needs_libdevice for _, p in plans))
    taken = set(names_in(file))
    retyped = {
        store.output: RetypedOutput(analysis, store.output, dtype, store.clones, spelling.tl)
        for store, pointwise in stores
        if (dtype := new_element_type(analysis, store.output, pointwise))
    }
    retyped_inputs = {
        plan.input: RetypedOutput(analysis, plan.input, plan.holds, plan.clones, spelling.tl)
        for plan, _ in loads
        if plan.holds
    }
    buffers = [
        ChangedBuffer(store.output, held.dtype if held is not None else "", fills.get(store.output, ()))
        for store, _ in stores
        if (held := retyped.get(store.output)) is not None or fills.get(store.output)
    ]
    sites = frozenset(site.call.span for store, _ in stores for site in store.sites)
    _can_be_left(analysis, rests, retyped, launcher)
    grown = _grown_signature(analysis, plans, spelling.tl, buffers, launcher, taken, kept, rests)
    taken |= {parameter.name for parameter in (*grown.parameters.values(), *grown.kept.values())}
    edits: list[Edit] = list(grown.edits)
    added: list[TreeAddition | AddedStatements] = list(grown.additions)
    clones: list[Clone] = []
    above: dict[str, str] = {}
    additions: list[Addition] = []
    imports = list(spelling.imports)
    writers: dict[str, OperandWriter] = {}
    rewriters: list[tuple[Plan, dict[FunctionRef, str], _Rewriter | LoadRewriter]] = []
    loaded: list[Edit] = []
    helpers: dict[str, str] = {}
    for load, pointwise in loads:
        names = _copy_names(load, pointwise, taken)
        writer = OperandWriter(analysis, load, pointwise.operands, grown.parameters, spelling.tl, taken)
        writers[load.input] = writer
        held = retyped_inputs.get(load.input)
        loader = LoadRewriter(load, pointwise, writer, held, analysis, spelling, names, frozenset(taken), dict(helpers))
        loaded += loader.in_place()
        helpers |= loader.helpers
        taken |= loader.helpers.keys() | writer.names
        rewriters.append((load, names, loader))
    loaded = nested(file, loaded)
    for store, epilogue in stores:
        if isinstance(epilogue, TritonCall):
            _can_be_called(epilogue, store, analysis, numerics)
            imports += _imports_of_inlined(epilogue, analysis)
        names = _copy_names(store, epilogue, taken)
        beside = {
            (id(site.call.node), operand.name): _beside(store, site, operand, analysis, spelling, frozenset(taken))
            for operand in epilogue.operands
            if operand.is_stored
            for site in store.sites
        }
        writer = OperandWriter(
            analysis,
            store,
            epilogue.operands,
            grown.parameters,
            spelling.tl,
            taken,
            grown.kept.get(store.output),
            beside,
        )
        writers[store.output] = writer
        rewriter = _Rewriter(
            store,
            epilogue,
            writer,
            analysis,
            spelling,
            numerics,
            names,
            frozenset(taken),
            retyped,
            sites,
            tuple(loaded),
            bool(loads),
            dict(helpers),
        )
        edits += rewriter.in_place()
        helpers |= rewriter.helpers
        taken |= rewriter.helpers.keys() | writer.names
        rewriters.append((store, names, rewriter))
    edits += [edit for edit in loaded if not any(_holds(outer, edit) for outer in edits)]
    for plan, names, each in rewriters:
        added += each.additions
        for ref, name in names.items():
            text = each.clone(ref, jit="" if ref.file == file.path else spelling.jit)
            clones.append(Clone(plan, ref, name, each.clone_additions(ref)))
            function = closure.function(ref)
            assert function is not None
            if ref.file == file.path:
                additions.append(added_below(file, function.node, text))
            else:
                access = "store" if isinstance(plan, StorePlan) else "load"
                imports += imports_for_copy(ref, closure, file, project, access)
                above[name] = text
        above = each.helpers | above
    additions += added_above(file, around, touched[0], above.values())
    additions += added_imports(file, around, imports, anchor_line(file, around, touched[0]))
    edits += addition_edits(file, additions)
    return Rewrite(
        tuple(plan for plan, _ in plans),
        tuple(edits),
        tuple(clones),
        tuple(added),
        grown.parameters,
        writers,
        retyped | retyped_inputs,
        (*grown.contract, *(f"`{load.input}` takes a tensor of torch.{load.holds}" for load, _ in loads if load.holds)),
        grown.kept,
    )


def _beside(
    store: StorePlan, site: StoreSite, operand: Operand, analysis: Analysis, spelling: Spelling, taken: frozenset[str]
) -> str:
    """The text of what is stored to another output, in that one's element type. Raises FusionRefused (KR307)."""
    other = plan_stores(operand.name, analysis.accesses, analysis.calls, references(analysis))
    if not isinstance(other, StorePlan):
        raise FusionRefused(other)
    its_site, value = store_beside(store, other, site, analysis.closure)
    nothing = Pointwise(Input())
    writer = OperandWriter(analysis, other, (), {}, spelling.tl, taken)
    rewriter = _Rewriter(other, nothing, writer, analysis, spelling, "eager", {}, taken, {}, frozenset())
    function = analysis.closure.function(its_site.call.function)
    assert function is not None
    return rewriter.rounded(its_site, value, function)


def _copy_names(plan: Plan, pointwise: Epilogue, taken: set[str]) -> dict[FunctionRef, str]:
    """A free name for each helper that the plan copies; they are taken then."""
    names: dict[FunctionRef, str] = {}
    for ref in plan.clones:
        names[ref] = free(f"{ref.name}_{pointwise.name}", taken)
        taken.add(names[ref])
    return names


def _holds(outer: Edit, inner: Edit) -> bool:
    """Whether one edit was made with another inside it."""
    return outer is not inner and outer.span.contains_span(inner.span) and outer.span != inner.span


def _can_be_called(call: TritonCall, plan: StorePlan, analysis: Analysis, numerics: str) -> None:
    """Raise FusionRefused (KR120) unless the call means at every store what it is to mean."""
    if numerics == "fused":
        message = f"`{call.function}` is called with the value as the output holds it, not with the precision before"
        help_text = "leave `--numerics fused` out, or write what the function does as an expression"
        raise FusionRefused((Diagnostic("KR120", message, (Label(analysis.kernel.definition_line),), help=help_text),))
    for site in plan.sites:
        function = analysis.closure.function(site.call.function)
        assert function is not None
        if call.inlined is None and call.function in locals_of(function.node):
            message = f"`{call.function}` is something else inside of `{function.name}`, where it would be called"
            label = Label(site.call.span, "for this store")
            raise FusionRefused((Diagnostic("KR120", message, (label,), help="give the function another name"),))


def _imports_of_inlined(call: TritonCall, analysis: Analysis) -> list[str]:
    """Imports of what the function that a kernel was turned into mentions. Raises FusionRefused (KR123)."""
    if call.inlined is None:
        return []
    read, here = reading_of(call.inlined, analysis.project), analysis.kernel.file
    there = read.kernel.file
    if there is here:
        return []
    bindings = read.closure.bindings.get(there.path, {})
    used = {name: meaning for name, meaning in bindings.items() if name in call.inlined.names}
    lines, missing = imports_of(used, there, here, analysis.project)
    if missing:
        message = f"uses `{missing}`, which means something else, or nothing, in {here.path}"
        help_text = "give it a name of its own, in a file that can be imported from there"
        raise refusal(read.kernel, message, read.kernel.definition_line, help_text)
    return lines


_STRIDES: Mapping[OperandKind, tuple[tuple[str, int], ...]] = {
    OperandKind.ROW: (("stride_{}", -1),),
    OperandKind.COLUMN: (("stride_{}", 0),),
}
"""The parameter for the stride that an operand of a kind has of its own, with its dimension."""

_TILE_STRIDES = {-1: "stride_{}_n", -2: "stride_{}_m", -3: "stride_{}_b"}
"""The parameters for the strides of a tile, by dimension."""


def _strides_of(
    operand: Operand, analysis: Analysis, plans: Iterable[tuple[Plan, Epilogue]], tl: str
) -> tuple[tuple[str, int], ...]:
    """The parameters for the strides that an operand has of its own, outermost first, each with its dimension."""
    if not operand.strided or operand.kind is not OperandKind.TILE:
        return _STRIDES[operand.kind] if operand.strided else ()
    plan = next(plan for plan, pointwise in plans if operand in pointwise.operands)
    known = OperandWriter(analysis, plan, (), {}, tl, ()).tile_strides
    dimensions = [dimension for _, dimension in known] if known is not None else [-2, -1]
    return tuple((_TILE_STRIDES.get(d, f"stride_{{}}_b{-2 - d}"), d) for d in dimensions)


@dataclass(frozen=True, slots=True)
class _Grown:
    """The kernel's new parameters, by operand and (`kept`) by output, and the edits of its signature and its launchers."""

    parameters: Mapping[str, NewParameter] = field(default_factory=dict)
    kept: Mapping[str, NewParameter] = field(default_factory=dict)
    edits: tuple[Edit, ...] = ()
    additions: tuple[TreeAddition, ...] = ()
    contract: tuple[str, ...] = ()


def _grown_signature(
    analysis: Analysis,
    plans: Sequence[tuple[Plan, Epilogue]],
    tl: str,
    buffers: Sequence[ChangedBuffer],
    launcher: bool,
    taken: Iterable[str],
    kept: Mapping[str, str],
    rests: Mapping[str, Remainder],
) -> _Grown:
    """The parameters that the operands and what is kept need, and the allocations and the returns of the outputs that change.
    Raises FusionRefused (KR310 to KR317, KR319, KR322)."""
    every: dict[str, Operand] = {o.name: o for _, pointwise in plans for o in pointwise.operands}
    operands = {name: operand for name, operand in every.items() if not operand.is_stored}
    if not operands and not buffers and not kept and not rests:
        return _Grown()
    keeping = kept_parameters(analysis.kernel, kept, operands)
    retyped = {buffer.output for buffer in buffers if buffer.dtype}
    taken = set(taken) | set(kept.values())
    parameters: dict[str, NewParameter] = {}
    for operand in operands.values():
        name = free(operand.name if operand.is_number else f"{operand.name}_ptr", taken)
        taken.add(name)
        strides = []
        for wanted, dimension in _strides_of(operand, analysis, plans, tl):
            strides.append((free(wanted.format(operand.name), taken), dimension))
            taken.add(strides[-1][0])
        parameters[operand.name] = NewParameter(name, operand.name, tuple(strides), number=operand.is_number)
    kernel = LaunchedKernel.of(analysis.kernel, analysis.closure, analysis.launches, analysis.project)
    added = (*parameters.values(), *keeping.values())
    signature = parameter_edits(kernel, added)
    if signature.diagnostics:
        raise FusionRefused(signature.diagnostics)
    if not launcher:
        contract = (*kernel_contract(kernel, added, buffers), *kept_contract(keeping, retyped))
        return _Grown(parameters, keeping, signature.edits, signature.additions, contract)
    behind = {o.name: o for rest in rests.values() for o in rest.operands if o.name not in operands}
    alone = [NewParameter(name, name, number=o.is_number, launchers_alone=True) for name, o in behind.items()]
    plan = launcher_edits(kernel, (*added, *alone), buffers, rests)
    errors = tuple(d for d in plan.diagnostics if d.severity is Severity.ERROR)
    errors += tuple(overwritten(kernel, keeping)) if keeping else ()
    if errors:
        raise FusionRefused(errors)
    edits, additions = (*signature.edits, *plan.edits), (*signature.additions, *plan.additions)
    return _Grown(parameters, keeping, edits, additions, (*plan.contract, *kept_contract(keeping, retyped)))


def _can_be_left(analysis: Analysis, rests: Mapping[str, Remainder], retyped: Container[str], launcher: bool) -> None:
    """Raise FusionRefused (KR322) where launchers cannot do the rest of an epilogue, whatever they look like."""
    for output, rest in rests.items():
        why, help_text = "", "leave `--partial` out, and write the rest in torch where the output is used"
        if not launcher:
            why = "launchers are to be left alone"
        elif rest.casts_to_the_type_of_x and output in retyped:
            why = "it asks for the element type of x, which the fused part changes"
            help_text = "name the element type: `.to(float16)`"
        if why:
            message = f"the rest of the epilogue of `{output}` cannot be computed where a launcher returns it: {why}"
            label = Label(analysis.kernel.definition_line)
            raise FusionRefused((Diagnostic("KR322", message, (label,), help=help_text),))


def _no_call_twice(plans: Iterable[Plan]) -> None:
    """Refuse two buffers that one helper call leads to when the helper must be copied: one copy cannot be two."""
    seen: set[HelperCall] = set()
    for plan in plans:
        for call in plan.redirected:
            if call in seen:
                message = f"`{plan.buffer}` and another buffer are reached by one call of a helper that must be copied"
                label = Label(call.span, "this call would have to call two copies")
                raise FusionRefused((Diagnostic("KR213", message, (label,), help="fuse one op at a time"),))
            seen.add(call)


def _touched(analysis: Analysis, plans: Iterable[Plan]) -> list[ast.FunctionDef]:
    """The functions of the kernel's file that are edited or copied, in order: what they call is to stand above the
    first."""
    touched = {analysis.closure.kernel.ref}
    for plan in plans:
        touched |= {call.function for call, _ in plan.changes} | set(plan.clones)
    nodes = [f.node for f in analysis.closure.functions if f.ref in touched and f.ref.file == analysis.kernel.file.path]
    return sorted(nodes, key=lambda node: node.lineno)


class _Rewriter:
    """The edits for one output."""

    def __init__(
        self,
        plan: StorePlan,
        pointwise: Epilogue,
        operands: OperandWriter,
        analysis: Analysis,
        spelling: Spelling,
        numerics: str,
        clone_names: dict[FunctionRef, str],
        taken: frozenset[str],
        retyped: Mapping[str, RetypedOutput],
        sites: frozenset[Span],
        loaded: tuple[Edit, ...] = (),
        behind_prologues: bool = False,
        known: Mapping[str, str] = {},
    ) -> None:
        self._plan = plan
        self._known = known  # helpers of other rewriters, by name
        self._pointwise = pointwise
        self._loaded = loaded
        self._operands = operands
        self._closure = analysis.closure
        self._calls = analysis.calls
        self._flow = analysis.flow
        self._file = analysis.kernel.file
        self._project = analysis.project
        self._numerics = numerics
        self._clone_names = clone_names
        self._spelling = spelling
        self._tl = spelling.tl
        self._taken = taken
        self._product = may_store_product(analysis, plan.output, behind_prologues)
        self._element_type = certain_element_type(analysis, plan.output)
        self._retyped = retyped.get(plan.output)
        self._all_retyped = tuple(retyped.values())
        self._all_sites = sites
        self._scalars = {fact.name for fact in analysis.facts if fact.kind == "scalar"}
        self.helpers: dict[str, str] = {}
        self._kept: dict[int, tuple[TreeAddition | AddedStatements, ...]] = {}  # what keeping adds, by store

    def in_place(self) -> list[Edit]:
        """Edits of the kernel and of the helpers that need no copy."""
        functions = [f for f in self._closure.functions if f.ref not in self._clone_names]
        return [edit for function in functions for edit in self._edits_of(function)]

    @property
    def additions(self) -> list[TreeAddition | AddedStatements]:
        """What the edits in place add to the user's tree beside the stored expressions."""
        functions = [f for f in self._closure.functions if f.ref not in self._clone_names]
        return [addition for function in functions for addition in self._additions_to(function)]

    def clone(self, ref: FunctionRef, jit: str = "") -> str:
        """The text of a copy of the helper under its new name, its stores and calls rewritten."""
        function = self._closure.function(ref)
        assert function is not None
        return copied_text(self._file_of(ref), function, self._clone_names[ref], self._edits_of(function), jit)

    def clone_additions(self, ref: FunctionRef) -> tuple[TreeAddition | AddedStatements, ...]:
        """What the edits of a copy add to it."""
        function = self._closure.function(ref)
        assert function is not None
        return tuple(self._additions_to(function))

    def _additions_to(self, function: Function) -> list[TreeAddition | AddedStatements]:
        replaced = self._retyped.additions(function) if self._retyped is not None else []
        sites = [site for site in self._plan.sites if site.call.function == function.ref]
        kept = [addition for site in sites for addition in self._kept.get(id(site.call.node), ())]
        return [*kept, *self._operands.edits(function).additions, *replaced]

    def _file_of(self, ref: FunctionRef) -> SourceFile:
        file = self._file if ref.file == self._file.path else self._project.file(ref.file)
        assert file is not None
        return file

    def _edits_of(self, function: Function) -> list[Edit]:
        sites = [self._store(site, function) for site in self._plan.sites if site.call.function == function.ref]
        calls = [self._redirect(call) for call in self._plan.redirected if call.function == function.ref]
        types = self._retyped.edits(function) if self._retyped is not None else []
        types = [edit for edit in types if not any(site.contains(edit.span.start) for site in self._all_sites)]
        return [*sites, *calls, *types, *self._operands.edits(function).edits]

    # tl.store(pointer, VALUE, mask=m) -> tl.store(pointer, E(VALUE), mask=m)
    def _store(self, site: StoreSite, function: Function) -> Edit:
        file = self._file_of(function.ref)
        value = site.call.value(site.form)
        assert value is not None
        cast = self._cast(site, value, function)
        emission = self._emission(site)
        back = self._cast_back(site, function, emission)

        def rebuild(node: cst.BaseExpression) -> cst.BaseExpression:
            result = substitute(emission.expression, _VALUE, substitute(cast, _VALUE, node) if cast else node)
            return substitute(back, _VALUE, result) if back else result

        span = site.call.span
        types = (edit for retyped in self._all_retyped for edit in retyped.edits(function))
        inside = [
            edit for edit in (*self._loaded, *types) if edit.span.file == file.path and span.contains_span(edit.span)
        ]
        text = apply_edits(file, inside, span)
        kept = self._operands.kept_at(site)
        if kept is None:
            text = replace_argument(text, argument_position(site.call.node, value), rebuild)
        else:
            text = self._with_kept(site, value, function, text, rebuild, kept)
        return Edit(site.call.span, text, f"store {self._pointwise.name} of the value")

    # tl.store(c_ptrs, VALUE, mask=m) -> pre = VALUE; tl.store(pre_ptrs, pre, mask=m); tl.store(c_ptrs, E(pre), mask=m)
    def _with_kept(
        self,
        site: StoreSite,
        value: ast.expr,
        function: Function,
        call: str,
        rebuild: Callable[[cst.BaseExpression], cst.BaseExpression],
        kept: KeptAt,
    ) -> str:
        """The text of the store behind the one that keeps its value, which is computed once; what that adds is noted."""
        file, position = self._file_of(function.ref), argument_position(site.call.node, value)
        lines: list[str] = []
        additions: list[TreeAddition | AddedStatements] = []
        again, stored = call, replace_argument(call, position, rebuild)
        if not self._may_be_repeated(value, function):
            name = cst.Name(kept.name)
            values: list[str] = []

            def named(node: cst.BaseExpression) -> cst.BaseExpression:
                values.append(printed(grouped(node) if "\n" in printed(node) else node))
                return name

            again = replace_argument(call, position, named)
            stored = replace_argument(call, position, lambda _: rebuild(name))
            lines.append(f"{kept.name} = {values[0]}")
            additions.append(Replaced(value, _argument_text(stored, position)))
        lines.append(replace_pointer(again, kept.position, kept.pointer))
        if "\n" in lines[-1]:
            lines[-1] = ast.unparse(ast.parse(lines[-1]))
        additions.append(AddedStatements(kept.statement, before=tuple(lines), repeats=True))
        self._kept[id(site.call.node)] = tuple(additions)
        alone = stands_alone(file, kept.statement)
        separator = newline_of(file.text) + indent_of(file, kept.statement) if alone else "; "
        return separator.join((*lines, stored))

    def _may_be_repeated(self, value: ast.expr, function: Function) -> bool:
        """Whether a value is a name or a number, so that it can stand in two stores."""
        if isinstance(value, (ast.Name, ast.Constant)):
            return True
        return not isinstance(value, ast.IfExp) and self._is_compile_time(value, function)

    def _emission(self, site: StoreSite) -> Emission:
        """E over `_VALUE` and what is loaded at the store; the helpers it calls are kept."""
        emission = emit(
            self._pointwise,
            _VALUE,
            self._operands.texts(site),
            tl=self._spelling.tl,
            libdevice=self._spelling.libdevice or "libdevice",
            jit=self._spelling.jit,
            taken_names=self._taken,
            value_may_be_product=self._product,
            known=self._known,
        )
        self.helpers |= {helper.name: helper.text for helper in emission.helpers}
        return emission

    def _cast(self, site: StoreSite, value: ast.expr, function: Function) -> str:
        """The expression that brings the stored value to the buffer's type first, as the unfused pair does: left out only
        where it changes nothing for any types the kernel may be launched with."""
        literal = self._is_compile_time(value, function)
        commutes = self._pointwise.commutes_with_rounding and site.only_narrows_floats and self._retyped is None
        kept = self._numerics == "fused" and site.only_narrows_floats
        if not literal and (commutes or kept or self._has_buffer_type(value, site, function)):
            return ""
        if self._retyped is not None:
            element_type = self._retyped.text(function, site.call.span)
        else:
            element_type = site.form.element_type.format(self._pointer_name(site, function))
        if literal:  # a Python number has no .to and no dtype, and Python would compute with it
            return f"{self._tl}.cast({_VALUE}, {element_type})"
        return f"{_VALUE}.to({element_type})"

    def rounded(self, site: StoreSite, value: ast.expr, function: Function) -> str:
        """The text of a stored value in the buffer's element type, as the store leaves it there."""
        text = self._file_of(function.ref).slice(Span.of(function.ref.file, value))
        literal = self._is_compile_time(value, function)
        if not literal and self._has_buffer_type(value, site, function):
            return text
        element_type = site.form.element_type.format(self._pointer_name(site, function))
        cast = f"{self._tl}.cast({_VALUE}, {element_type})" if literal else f"{_VALUE}.to({element_type})"
        return printed(substitute(cast, _VALUE, parsed(text)))

    def _has_buffer_type(self, value: ast.expr, site: StoreSite, function: Function, depth: int = 3) -> bool:
        """Whether the source itself gives the value the buffer's element type: `acc.to(out_ptr.dtype.element_ty)`, a name
        that is only ever assigned such a value, or a cast to the one type that the file allocates the buffer with."""
        if isinstance(value, ast.Name) and depth and value.id not in function.parameters:
            assigned = assigned_values(value.id, function)
            return bool(assigned) and all(
                v is not None and self._has_buffer_type(v, site, function, depth - 1) for v in assigned
            )
        if self._retyped is not None and self._retyped.is_cast_to_it(value, function):
            return True
        target = cast_target(value, function, self._closure)
        if target is None:
            return False
        if isinstance(target, Dtype):
            return target.name == self._element_type
        assert isinstance(value, ast.Call)
        like = self._retyped.held.like if self._retyped is not None and self._retyped.held is not None else ""
        return self._flow.roots(target, value, function) - self._scalars in ({self._plan.output}, {like})

    def _cast_back(self, site: StoreSite, function: Function, emission: Emission) -> str:
        """What brings the result to the buffer's type where the store itself does not: `tl.maximum` of bfloat16 is
        float32, and a store through a block pointer takes the very type."""
        if not site.block_pointer or emission.has_result_type:
            return ""
        return f"{_VALUE}.to({site.form.element_type.format(self._pointer_name(site, function))})"

    def _pointer_name(self, site: StoreSite, function: Function) -> str:
        """An expression without effects, in scope at the store, that has the buffer's element type."""
        output = self._plan.output
        pointer = site.call.pointer(site.form)
        assert pointer is not None
        if site.form.through_descriptor:  # desc.store(offsets, value)
            name = ast.unparse(pointer) if isinstance(pointer, (ast.Name, ast.Attribute, ast.Subscript)) else ""
        elif function.ref == self._closure.kernel.ref and not is_assigned(output, function):
            name = output
        else:
            name = pointer_operand(
                pointer, lambda node: output.split("[")[0] in self._flow.roots(node, site.call.node, function)
            )
        if not name:
            label = Label(site.call.span, "its pointer is not a name, or a name plus offsets")
            message = f"the element type of `{output}` cannot be spelled at this store"
            help_text = "give the pointer a name on a line of its own, and store through that name"
            raise FusionRefused((Diagnostic("KR213", message, (label,), help=help_text),))
        return name

    def _is_compile_time(self, value: ast.expr, function: Function) -> bool:
        """Whether the value may be a Python number: computed from literals, constexprs and scalar arguments alone (Triton
        makes a constexpr of an integer argument that is 1), or so in one branch of a conditional expression."""
        if isinstance(value, ast.IfExp):
            return self._is_compile_time(value.body, function) or self._is_compile_time(value.orelse, function)
        calls = [node for node in ast.walk(value) if isinstance(node, ast.Call)]
        if any(not is_number_call(call, function, self._closure) for call in calls):
            return False
        called = {id(node) for call in calls for node in ast.walk(call.func)}
        assigned = assigned_at_run_time(function, self._closure)
        names = {n.id for n in ast.walk(value) if isinstance(n, ast.Name) and id(n) not in called}
        return all(name not in assigned and self._may_be_number(name, function) for name in names)

    def _may_be_number(self, name: str, function: Function) -> bool:
        if name not in function.parameters or name in self._closure.constexpr_parameters(function):
            return True
        if function.ref == self._closure.kernel.ref:
            return name in self._scalars
        for caller in self._closure.functions:
            for call in self._calls.helper_calls_of(caller.ref):
                if call.callee == function.ref and caller.ref != function.ref:
                    arguments = dict(bound_arguments(call.node, function))
                    if name not in arguments or self._is_compile_time(arguments[name], caller):
                        return True
        return False

    def _redirect(self, call: HelperCall) -> Edit:
        function = call.node.func
        span = Span.of(call.function.file, function)
        return Edit(span, self._clone_names[call.callee], "call the copy made for this output")


def _argument_text(call: str, position: int | str) -> str:
    """The argument of a call at a position, as text."""
    node = ast.parse(call, mode="eval").body
    assert isinstance(node, ast.Call)
    if isinstance(position, int):
        return ast.unparse(node.args[position])
    return next(ast.unparse(k.value) for k in node.keywords if k.arg == position)
