"""A kernel without some of its outputs: their stores, their parameters, and what launches pass for them.

This is a step of its own, behind the one that fuses ops: it starts from a text that is proved, and from what Triton makes
of that, and proves that what it leaves is the same kernel without the stores to those buffers.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from kernel_rewrite.analysis import Analysis, View, view_of
from kernel_rewrite.diagnostics import Diagnostic, FusionRefused, Label
from kernel_rewrite.model import ANYWHERE, Assumption, Edit, InternalError, Location, MemoryEffect, Span, Specialization
from kernel_rewrite.retyped import held_type
from kernel_rewrite.rewrite.additions import Addition, RemovedItems, RemovedParameters, RemovedStatement, Replaced
from kernel_rewrite.rewrite.brackets import Bracket, definition_bracket, list_bracket, removed
from kernel_rewrite.rewrite.confirm import CompiledDifference, lower_as, read_rewritten
from kernel_rewrite.rewrite.dropped import cannot_drop, kernel_without
from kernel_rewrite.rewrite.edits import apply_edits
from kernel_rewrite.rewrite.epilogue import references
from kernel_rewrite.rewrite.launched_without import contract_without, launches_without
from kernel_rewrite.rewrite.parameters import LaunchedKernel, counts_unread, numbered_parameters
from kernel_rewrite.rewrite.removal import removed_statements
from kernel_rewrite.rewrite.report import keep_evidence
from kernel_rewrite.rewrite.spelling import Spelling, Surroundings
from kernel_rewrite.rewrite.stores import StorePlan, plan_stores
from kernel_rewrite.rewrite.unchanged import check_unchanged
from kernel_rewrite.source.accesses import SourceCalls
from kernel_rewrite.source.closure import close, kernel_named
from kernel_rewrite.source.files import Project, SourceFile
from kernel_rewrite.source.launches import launches
from kernel_rewrite.source.pointer_flow import PointerFlow
from kernel_rewrite.source.symbolic import HostFunction, ProjectNames
from kernel_rewrite.source.syntax import walk
from kernel_rewrite.ttir.lower import Lowered, LoweringFailure
from kernel_rewrite.ttir.parse import Operation, parse
from kernel_rewrite.ttir.validate import STORED_OPERAND, validate

_LISTS = ("key", "reset_to_zero", "restore_value", "do_not_specialize", "do_not_specialize_on_alignment")
"""Options around a kernel that list parameters."""


@dataclass(frozen=True, slots=True)
class Without:
    """The edits by which the kernel of `file` does without `parameters`: the dropped outputs, and those that were only for
    their places. `contract` is what changes for callers, in sentences; `assumptions` are what is taken
    from them."""

    file: SourceFile
    parameters: tuple[str, ...]
    edits: tuple[Edit, ...]
    additions: tuple[Addition, ...]
    removals: tuple[RemovedStatement, ...]
    contract: tuple[str, ...]
    assumptions: tuple[Assumption, ...] = ()

    @property
    def text(self) -> str:
        return apply_edits(self.file, self.edits)


def analysed_again(text: str, analysis: Analysis, lowered: Sequence[Lowered]) -> Analysis:
    """The analysis of the kernel in `text`, which is that of `analysis` rewritten, over what Triton makes of it."""
    file = read_rewritten(text, analysis)
    project = Project((file, *(other for other in analysis.project.files() if other is not analysis.kernel.file)))
    kernel = kernel_named(analysis.kernel.name, file, project)
    assert kernel is not None
    closure = close(kernel, project)
    calls = SourceCalls(closure)
    found = launches(kernel.node, file.tree, file.path, ProjectNames(file, project))
    plan = replace(analysis.plan, signature=replace(analysis.plan.signature, launches=found))
    return replace(
        analysis,
        kernel=kernel,
        closure=closure,
        project=project,
        calls=calls,
        flow=PointerFlow(closure, calls),
        plan=plan,
        views=tuple(view_of(each) for each in lowered),
        memory={},
    )


def without_outputs(analysis: Analysis, outputs: Sequence[str], like: Mapping[str, str], *, launcher: bool) -> Without:
    """The edits that drop `outputs` from the analysed kernel and, with `launcher`, from what launches it. `like` names for
    an output another one, which holds elements of the same type.

    Raises FusionRefused: KR213 for a store that cannot be edited, KR315 and KR321 for what launches the kernel, KR320 for the
    kernel itself.
    """
    kernel = LaunchedKernel.of(analysis.kernel, analysis.closure, analysis.launches, analysis.project)
    plans = [_stores(analysis, output) for output in outputs]
    types = dict(_types(analysis, outputs, like))
    what = kernel_without(analysis.closure, plans, types)
    parameters, file = tuple(outputs), kernel.file
    host = launches_without(kernel, outputs, what.idle - kernel.constexprs, like) if launcher else None
    if host is not None:
        if host.diagnostics:
            raise FusionRefused(host.diagnostics)
        parameters = host.parameters
    else:
        _no_silent_shift(kernel, outputs)
    around = list(_around(kernel, parameters))
    named = [d for output in parameters for d in _named_around(kernel, output, [a for _, a in around])]
    if named:
        raise FusionRefused(tuple(named))
    arguments = kernel.node.args
    places = [a for a in (*arguments.posonlyargs, *arguments.args) if a.arg in parameters]
    bracket = definition_bracket(file, kernel.node)
    indices = {bracket.index(file.offset(a.lineno, a.col_offset)) for a in places}
    edits = [*removed(file, bracket, indices, "nothing is stored there any more")]
    edits += dict.fromkeys(edit for edit, _ in around)
    edits += [Edit(Span.of(file.path, r.node), r.text, "the same type, of an output that stays") for r in what.replaced]
    taken, removals = removed_statements(file, kernel.node, what.statements)
    additions: tuple[Addition, ...] = (
        RemovedParameters(arguments, frozenset(parameters)),
        *dict.fromkeys(addition for _, addition in around),
        *what.replaced,
    )
    return Without(
        file,
        parameters,
        (*edits, *taken, *(host.edits if host is not None else ())),
        (*additions, *(host.additions if host is not None else ())),
        (*removals, *(host.removals if host is not None else ())),
        host.contract if host is not None and kernel.launches else tuple(contract_without(kernel, outputs)),
        tuple(
            Assumption(
                "dropped-type", f"`{output}` would have elements of the type `{types[output]}`, as this file has it"
            )
            for output in outputs
            if output not in like and any(replaced.text == types.get(output) for replaced in what.replaced)
        ),
    )


def _types(analysis: Analysis, outputs: Sequence[str], like: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """An expression for the element type of each output for which there is one: the type of the output that `like` names, or
    what the file itself says."""
    pointers = {fact.name for fact in analysis.facts if fact.kind == "pointer"}
    around = Surroundings.of(analysis.kernel, analysis.project, [analysis.kernel.node])
    spelling = Spelling.of(around, analysis.kernel.jit_spelling, needs_libdevice=False)
    for output in outputs:
        held = held_type(analysis, output)
        if like.get(output) in pointers:
            yield output, f"{like[output]}.dtype.element_ty"
        elif held is not None and held.like not in outputs and not spelling.imports:
            if all(held.holds_in(view.specialization, output) for view in analysis.views):
                yield output, held.text(spelling.tl)


def _stores(analysis: Analysis, output: str) -> StorePlan:
    name = analysis.kernel.name
    fact = next((f for f in analysis.facts if f.name == output), None)
    if fact is None or fact.kind != "pointer":
        label = Label(analysis.kernel.definition_line, "it is passed as a descriptor, or in a tuple")
        raise cannot_drop(output, name, (label,), "pass a plain pointer for it")
    planned = plan_stores(output, analysis.accesses, analysis.calls, references(analysis))
    if not isinstance(planned, StorePlan):
        raise FusionRefused(planned)
    return planned


def _no_silent_shift(kernel: LaunchedKernel, outputs: Sequence[str]) -> None:
    """Refuse to leave a launch alone that would pass its buffers to other parameters without an error."""
    for launch in kernel.launches if kernel.node.args.defaults else ():
        by_position = launch.positional is None or any(
            kernel.parameters.index(output) < launch.positional for output in outputs
        )
        if by_position:
            label = Label(launch.span, "this launch would pass each buffer behind it to the parameter before")
            how = "pass it by keyword, or let the launches be rewritten too"
            raise cannot_drop(" and ".join(outputs), kernel.node.name, (label,), how)


# --------------------------------------------------------------------------------------------------- around the kernel


def _around(kernel: LaunchedKernel, parameters: Sequence[str]) -> Iterator[tuple[Edit, Addition]]:
    """The edits of the lists of parameters in the decorators. Raises FusionRefused (KR320) for one that cannot be read."""
    positions = [kernel.parameters.index(name) for name in parameters]
    file = kernel.file
    if counts_unread(kernel):
        place = next(numbered_parameters(kernel))
        label = Label(Span.of(file.path, place), "what this counts cannot be read")
        raise cannot_drop(parameters[0], kernel.node.name, (label,), "name the parameters here, each as a text")
    numbers = {id(node) for node in numbered_parameters(kernel)}
    for decorator in kernel.decorators:
        for call in (node for node in ast.walk(decorator) if isinstance(node, ast.Call)):
            for value in [k.value for k in call.keywords if k.arg in _LISTS]:
                bracket = list_bracket(file, value) if isinstance(value, (ast.List, ast.Tuple)) else None
                if bracket is None or not isinstance(value, (ast.List, ast.Tuple)):
                    continue
                yield from _shortened(file, value, bracket, parameters, positions if id(value) in numbers else [])


def _shortened(
    file: SourceFile,
    value: ast.List | ast.Tuple,
    bracket: Bracket,
    parameters: Sequence[str],
    positions: Sequence[int],
) -> Iterator[tuple[Edit, Addition]]:
    """The edits of one list of parameters, by name or, where `positions` are given, by number."""
    gone: list[ast.expr] = []
    moved: dict[int, str] = {}
    for element in value.elts:
        at = _number(element) if positions else None
        if (isinstance(element, ast.Constant) and element.value in parameters) or at in positions:
            gone.append(element)
        elif at is not None and any(position < at for position in positions):
            moved[id(element)] = str(at - sum(position < at for position in positions))
    left = [element for element in value.elts if element not in gone]
    addition = RemovedItems(value, tuple(gone))
    if gone and isinstance(value, ast.Tuple) and len(left) == 1:  # its comma makes it a tuple
        text = moved.get(id(left[0]), file.slice(Span.of(file.path, left[0])))
        whole = Edit(Span.of(file.path, value), f"({text},)", "the kernel has it no more")
        yield whole, addition
        yield from ((whole, Replaced(e, moved[id(e)])) for e in left if id(e) in moved)
        return
    for element in left:
        if id(element) in moved:
            text = moved[id(element)]
            yield Edit(Span.of(file.path, element), text, "the parameter's new position"), Replaced(element, text)
    if gone:
        indices = {bracket.index(file.offset(e.lineno, e.col_offset)) for e in gone}
        yield from ((e, addition) for e in removed(file, bracket, indices, "the kernel has it no more"))


def _number(element: ast.expr) -> int | None:
    value = element.value if isinstance(element, ast.Constant) else None
    return value if type(value) is int else None


def _named_around(kernel: LaunchedKernel, name: str, additions: Sequence[Addition]) -> Iterator[Diagnostic]:
    """KR320 where a heuristic, a hook or another function of the decorators names a parameter that goes."""
    gone = {id(item) for addition in additions if isinstance(addition, RemovedItems) for item in addition.items}
    seen: set[str] = set()
    pending: list[ast.AST] = [*kernel.decorators]
    while pending:
        for node in walk(pending.pop()):
            if isinstance(node, ast.Constant) and node.value == name and id(node) not in gone:
                label = Label(Span.of(kernel.file.path, node), "it is asked for by its name here")
                help_text = "let what stands around the kernel do without it"
                message = f"`{name}` cannot be dropped from `{kernel.node.name}`"
                yield Diagnostic("KR320", message, (label,), help=help_text)
            if isinstance(node, ast.Name) and node.id not in seen:
                seen.add(node.id)
                meaning = kernel.names.get(node.id)
                meaning = meaning.node if isinstance(meaning, HostFunction) else meaning
                if isinstance(meaning, ast.AST) and meaning is not kernel.node:
                    pending.append(meaning)


# ------------------------------------------------------------------------------------------------------------- confirm


def confirm_without(text: str, without: Without, analysis: Analysis, outputs: Sequence[str]) -> None:
    """Prove that the kernel of `text` is the analysed one without its stores to `outputs`, which it only writes, and without
    `without.parameters`, and that nothing else of the file changed but what was planned.

    Raises InternalError (KR902), with a `folder` that holds all that is needed to report the bug.
    """
    try:
        rewritten = read_rewritten(text, analysis)
        check_unchanged(analysis.kernel.file.tree, rewritten.tree, (), without.additions, without.removals)
        for view, result in zip(analysis.views, lowered_without(rewritten, without, analysis), strict=True):
            check_without(view, result, outputs, without.parameters)
    except InternalError as error:
        ttir = error.ttir if isinstance(error, CompiledDifference) else ()
        error.folder = keep_evidence(error, text, analysis, [f"drop {output}" for output in outputs], ttir)
        raise


def lowered_without(rewritten: SourceFile, without: Without, analysis: Analysis) -> Sequence[Lowered | LoweringFailure]:
    """The rewritten kernel as Triton compiles it, one answer for each view."""
    specializations = [_without(view.specialization, without.parameters) for view in analysis.views]
    return lower_as(rewritten, analysis, lambda order: specializations)


def _without(specialization: Specialization, parameters: Sequence[str]) -> Specialization:
    return Specialization(
        tuple((name, kind) for name, kind in specialization.signature if name not in parameters),
        tuple((name, value) for name, value in specialization.constexprs if name not in parameters),
        specialization.origin,
    )


def check_without(
    view: View, result: Lowered | LoweringFailure, outputs: Sequence[str], parameters: Sequence[str]
) -> None:
    """Raise InternalError (KR902) unless `result` is the view without its stores to `outputs` and without `parameters`."""
    original = ("with.ttir", view.text)
    if isinstance(result, LoweringFailure):
        message = f"KR902: Triton rejects the kernel without its output: {result.message} at {result.places[:1]}"
        raise CompiledDifference(message, original)
    places = dropped_places(view, outputs)

    def is_dropped(operation: Operation) -> bool:
        return operation.name in STORED_OPERAND and operation.location in places

    found = parse(result.text)
    _, differences = validate(view.module, found, lambda operation, path: None, gone=parameters, is_dropped=is_dropped)
    if differences:
        d = differences[0]
        message = f"KR902: the kernel is not the one before without its output: {d.what} at {d.location}"
        shown = f"{message}\n  expected: {d.expected}\n  found:    {d.found}"
        raise CompiledDifference(shown, original, ("without.ttir", result.text))


def dropped_places(view: View, outputs: Sequence[str]) -> frozenset[Location]:
    """Where the kernel stores to `outputs`, and to nothing else. Raises InternalError (KR902) where it may do anything else
    with them."""
    places: set[Location] = set()
    others: set[Location] = set()
    for access in view.accesses:
        is_own = access.effect is MemoryEffect.WRITE and not access.call_path and len(access.roots) == 1
        if is_own and access.roots <= set(outputs):
            places.add(access.location)
            continue
        if access.roots & {*outputs, ANYWHERE}:
            raise InternalError(f"KR902: {access.operation} at {access.location} may touch what is dropped")
        if access.operation in STORED_OPERAND:
            others.add(access.location)
    if places & others:
        raise InternalError(f"KR902: another store stands at {min(places & others)}, where what is dropped is stored")
    return frozenset(places)
