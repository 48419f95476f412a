"""What one kernel does to memory, over every way it can be compiled: the common ground of `fuse` and `inspect`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import cast

from kernel_rewrite.diagnostics import Diagnostic, FusionRefused, Label
from kernel_rewrite.model import (
    ANYWHERE,
    Closure,
    Function,
    Location,
    MemoryAccess,
    MemoryEffect,
    ParameterFact,
    Span,
    Specialization,
    Target,
)
from kernel_rewrite.source.accesses import SourceCalls, undedented
from kernel_rewrite.source.autotune import Tuning, tuning
from kernel_rewrite.source.closure import KernelDefinition, close, unresolved
from kernel_rewrite.source.files import Project
from kernel_rewrite.source.launches import Launch, launches
from kernel_rewrite.source.pointer_flow import PointerFlow
from kernel_rewrite.source.repair import Alternatives, Effort, repaired_plan
from kernel_rewrite.source.signatures import NO_OVERRIDES, TRITON_TYPES, Overrides
from kernel_rewrite.source.specializations import LIMIT, SpecializationPlan, impossible, specializations
from kernel_rewrite.source.symbolic import ProjectNames
from kernel_rewrite.source.unlowered import Uncovered, uncovered
from kernel_rewrite.ttir.accesses import memory_accesses
from kernel_rewrite.ttir.lower import Compiler, Lowered, LoweringFailure
from kernel_rewrite.ttir.parse import Module, Region, parse
from kernel_rewrite.ttir.read_only import ReadOnlyVerdict, read_only
from kernel_rewrite.ttir.write_only import WriteOnlyVerdict, write_only

OPERATIONS = 16_000
"""How many operations the compiler makes for the specializations of one kernel, about: how many the base needs decides how
many there are, at least `FEWEST`. Not seconds: the answer is the same on a slow machine."""

FEWEST = 6

REPAIR_STATEMENTS = 6_000
"""How many statements are compiled again, over all corrected signatures, before a kernel is given up."""

ALTERNATIVES_STATEMENTS = 1_500
"""The same over all corrections of the specializations beside the base."""


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """One specialization as the compiler sees it."""

    specialization: Specialization
    text: str
    module: Module
    accesses: tuple[MemoryAccess, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Analysis:
    """Everything known about one kernel.

    `complete` says that `views` take both sides of every compile-time test, in every combination that its values allow;
    otherwise they cover each branch they can, and the source itself is checked for the rest.
    """

    kernel: KernelDefinition
    closure: Closure
    project: Project
    compiler: Compiler
    target: Target
    calls: SourceCalls
    flow: PointerFlow
    plan: SpecializationPlan
    views: tuple[View, ...]
    failures: tuple[LoweringFailure, ...]
    complete: bool
    memory: dict[object, object] = field(default_factory=dict)

    @property
    def launches(self) -> tuple[Launch, ...]:
        return self.plan.signature.launches

    @property
    def tuning(self) -> Tuning:
        return self.plan.signature.tuning

    @property
    def facts(self) -> tuple[ParameterFact, ...]:
        return self.plan.facts

    @property
    def accesses(self) -> tuple[MemoryAccess, ...]:
        return tuple(access for view in self.views for access in view.accesses)

    def parameters_with(self, *effects: MemoryEffect) -> tuple[str, ...]:
        """The kernel's parameters that some access with one of `effects` may touch, in signature order."""
        touched = {root for access in self.accesses if access.effect in effects for root in access.roots}
        order = {name: index for index, name in enumerate(self.kernel_parameters)}
        return tuple(sorted(touched - {ANYWHERE}, key=lambda root: (order.get(root.split("[")[0], 0), root)))

    @property
    def kernel_parameters(self) -> tuple[str, ...]:
        return self.closure.kernel.parameters

    def write_only(self, output: str, views: Sequence[View] = ()) -> WriteOnlyVerdict:
        """The verdict on `output` over all views, or over those given."""
        if views:
            return write_only(output, [(view.specialization, view.accesses) for view in views], self.span_of)
        key = ("write only", output)
        if key not in self.memory:
            self.memory[key] = self.write_only(output, self.views)
        return cast(WriteOnlyVerdict, self.memory[key])

    def read_only(self, input: str) -> ReadOnlyVerdict:
        """The verdict on `input` over all views."""
        key = ("read only", input)
        if key not in self.memory:
            accesses = [(view.specialization, view.accesses) for view in self.views]
            self.memory[key] = read_only(input, accesses, self.span_of)
        return cast(ReadOnlyVerdict, self.memory[key])

    def uncovered(self, buffer: str, effect: MemoryEffect = MemoryEffect.WRITE) -> Uncovered:
        """What the source may do to `buffer` (a parameter) that no view shows; `effect` is the one it is to have alone."""
        key = ("uncovered", buffer, effect)
        if key not in self.memory:
            buffers = frozenset(fact.name for fact in self.facts if not _is_number(fact)) | {buffer}
            self.memory[key] = uncovered(buffer, effect, self.accesses, self.calls, self.flow, buffers)
        return cast(Uncovered, self.memory[key])

    def accessed_unlowered(self) -> tuple[str, ...]:
        """The parameters that no view accesses, and that code which no view shows may."""
        if self.complete:
            return ()
        known = {root.split("[")[0] for access in self.accesses for root in access.roots}
        others = (fact.name for fact in self.facts if not _is_number(fact) and fact.name not in known)
        return tuple(name for name in others if self.uncovered(name).findings)

    def span_of(self, location: Location, operation: str) -> Span | None:
        """The source call that `location` belongs to; else the call of a helper, or the statement, around it."""
        call = self.calls.memory_call(location, operation) if operation else None
        return call.span if call is not None else self.calls.surroundings(location)


def _is_number(fact: ParameterFact) -> bool:
    """Whether a parameter is a number, also one that is always the same, or a tuple of nothing but numbers."""
    if fact.kind == "constexpr":  # the last stride of a descriptor, which must be 1
        return bool(fact.type) and isinstance(fact.type, tuple) and all(isinstance(v, (int, float)) for v in fact.type)
    return fact.kind == "scalar" or (fact.kind == "tuple" and _are_numbers(fact.type))


def _are_numbers(type_: object) -> bool:
    if isinstance(type_, (tuple, list)):
        return bool(type_) and all(map(_are_numbers, type_))
    return isinstance(type_, str) and _NUMBER.fullmatch(type_) is not None


_NUMBER = re.compile(r"[iu]\d+|(?:fp|bf)\d+\w*")


def analyse(
    kernel: KernelDefinition,
    project: Project,
    compiler: Compiler,
    overrides: Callable[[Function], Overrides] = lambda kernel: NO_OVERRIDES,
    target: Target = Target(),
) -> Analysis:
    """Close `kernel`, find its specializations, lower them and list what each does to memory.

    Raises FusionRefused when not even one specialization can be lowered (KR104, KR109 to KR112), or an override names
    no parameter (KR105).
    """
    closure = close(kernel, project)
    calls = SourceCalls(closure)
    file = kernel.file
    names = ProjectNames(file, project)
    plan = specializations(
        closure,
        launches(kernel.node, file.tree, file.path, names),
        tuning(kernel.node, file.tree, file.path, names),
        overrides(closure.kernel),
    )
    views, failures = _lower(closure, project, compiler, [plan.base], target)
    if failures and (repaired := _repaired(closure, project, compiler, plan, failures[0], target)):
        plan = repaired
        views, failures = _lower(closure, project, compiler, [plan.base], target)
    if views and (limit := _affordable(views[0])) < len(plan.specializations):
        plan = plan.of_at_most(limit)
    others = _lower(closure, project, compiler, plan.specializations[1:], target)
    views, failures = views + others[0], failures + others[1]
    launched = _lower(closure, project, compiler, _as_launched(plan), target)
    views, failures = views + launched[0], failures + launched[1]
    possible = tuple(f for f in failures if not impossible(f, plan, closure))
    if possible:  # a branch that does not compile hides those beside it
        for spare in plan.spare:
            if _all_seen(calls, views):
                break
            views += _lower(closure, project, compiler, [spare], target)[0]
    if not views:
        raise FusionRefused((_cannot_lower(kernel, closure, calls, plan, failures[0], compiler),))
    found, failures = _alternatives(closure, project, compiler, plan, possible, target)
    views += found
    guessed = plan.undecided or plan.unknown or any(not name.harmless for name in closure.assumed_names)
    complete = plan.complete and not failures and not guessed
    flow = PointerFlow(closure, calls)
    return Analysis(kernel, closure, project, compiler, target, calls, flow, plan, views, failures, complete)


def _lower(
    closure: Closure,
    project: Project,
    compiler: Compiler,
    specializations: Iterable[Specialization],
    target: Target,
) -> tuple[tuple[View, ...], tuple[LoweringFailure, ...]]:
    """The views of every specialization that lowers, and the failures of the others."""
    views: list[View] = []
    failures: list[LoweringFailure] = []
    for result in compiler.lower(closure, project.sources(), specializations, target):
        if isinstance(result, Lowered):
            views.append(view_of(result))
        else:
            failures.append(result)
    return tuple(views), tuple(failures)


def _all_seen(calls: SourceCalls, views: Iterable[View]) -> bool:
    """Whether each call of the source that touches memory is in some view."""
    seen = {calls.memory_call(access.location, access.operation) for view in views for access in view.accesses}
    return seen.issuperset(calls.memory_calls)


def _affordable(base: View) -> int:
    """How many specializations of the size of `base` are lowered."""
    return min(LIMIT, max(FEWEST, OPERATIONS // _operations(base)))


def _operations(view: View) -> int:
    """How many operations the compiler made: what stands in a loop twice, the first time to see what the loop changes."""
    return sum(_made(function.body, 1) for function in view.module.functions)


def _made(region: Region, times: int) -> int:
    count = 0
    for block in region.blocks:
        for operation in block.operations:
            inside = 2 * times if operation.name in ("scf.for", "scf.while") else times
            count += times + sum(_made(inner, inside) for inner in operation.regions)
    return count


def _as_launched(plan: SpecializationPlan) -> Iterator[Specialization]:
    """The base with the element types that each launch shows, where those are other ones."""
    seen = {plan.base.signature}
    for launch in plan.signature.launches:
        types = {
            name: f"*{TRITON_TYPES[fact.dtype]}"
            for name, fact in launch.facts.items()
            if fact.dtype in TRITON_TYPES and str(plan.base.type_of(name)).startswith("*")
        }
        specialization = plan.base.with_types(**types)
        if specialization.signature not in seen:
            seen.add(specialization.signature)
            yield replace(specialization, origin=f"the launch at line {launch.span.line}")


def _repaired(
    closure: Closure,
    project: Project,
    compiler: Compiler,
    plan: SpecializationPlan,
    failure: LoweringFailure,
    target: Target,
) -> SpecializationPlan | None:
    """The plan with what was inferred put right by what Triton says about it; None when no near one lowers."""
    if failure.kind != "rejected" or failure.block_pointers_removed:
        return None
    effort = Effort(REPAIR_STATEMENTS)

    def lower(specialization: Specialization) -> LoweringFailure | None:
        tried = _try(closure, project, compiler, specialization, target, effort)
        return None if isinstance(tried, Lowered) else tried or failure

    return repaired_plan(closure, plan, failure, lower)


def _try(
    closure: Closure,
    project: Project,
    compiler: Compiler,
    specialization: Specialization,
    target: Target,
    effort: Effort,
) -> Lowered | LoweringFailure | None:
    """What comes of one more specialization; None when there was enough effort."""
    if effort.left <= 0:
        return None
    result = next(compiler.lower(closure, project.sources(), [specialization], target, most=effort.left))
    effort.note(result.kind if isinstance(result, LoweringFailure) else "", result.statements)
    return result


def _alternatives(
    closure: Closure,
    project: Project,
    compiler: Compiler,
    plan: SpecializationPlan,
    failures: tuple[LoweringFailure, ...],
    target: Target,
) -> tuple[tuple[View, ...], tuple[LoweringFailure, ...]]:
    """The views of those `failures` that other types or values put right, and what is left of them."""
    repairer = Alternatives(closure, plan.signature)
    effort = Effort(ALTERNATIVES_STATEMENTS)
    views: list[View] = []
    left: list[LoweringFailure] = []
    accepted: list[Lowered] = []
    for failure in failures:

        def lower(specialization: Specialization, failure: LoweringFailure = failure) -> LoweringFailure | None:
            tried = _try(closure, project, compiler, specialization, target, effort)
            if not isinstance(tried, Lowered):
                return tried or failure
            accepted.append(tried)
            return None

        hopeful = failure.kind == "rejected" and not failure.block_pointers_removed and effort.left > 0
        if hopeful and repairer.repaired(failure, failure.specialization, lower) is not None:
            views.append(view_of(accepted[-1]))
        else:
            left.append(failure)
    return tuple(views), tuple(left)


def view_of(lowered: Lowered) -> View:
    module = parse(lowered.text)
    return View(lowered.specialization, lowered.text, module, memory_accesses(module, lowered.specialization))


def _cannot_lower(
    kernel: KernelDefinition,
    closure: Closure,
    calls: SourceCalls,
    plan: SpecializationPlan,
    failure: LoweringFailure,
    compiler: Compiler,
) -> Diagnostic:
    """Why no specialization could be lowered: the first one's failure, in the user's terms."""
    labels = tuple(Label(_place(place, calls)) for place in failure.places) or (Label(kernel.definition_line),)
    if failure.kind != "rejected":
        what = "hung" if failure.kind == "timeout" else "crashed"
        notes = tuple(filter(None, [failure.message]))
        return Diagnostic("KR111", f"the Triton compiler {what} on `{kernel.name}`", labels, notes)
    if failure.block_pointers_removed:
        message = f"Triton {compiler.triton_version} has no block pointers"
        return Diagnostic("KR112", message, labels, help="run with Triton 3.5 to 3.8, or use tensor descriptors")
    missing = {name: (span, reason) for span, name, reason in unresolved(closure)}
    name = failure.message.removesuffix(" is not defined") if failure.error == "NameError" else ""
    if name in missing:
        span, reason = missing[name]
        help_text = (
            "make the definition reachable from this file, or fix the compile-time branch with `--set NAME=VALUE`"
        )
        return Diagnostic("KR104", f"`{name}` cannot be resolved: {reason}", (Label(span),), help=help_text)
    if plan.unknown:
        names = ", ".join(f"`{name}`" for name in plan.unknown)
        return Diagnostic(
            "KR109", f"no value was found for {names}", labels, help=f"give one: `--set {plan.unknown[0]}=VALUE`"
        )
    guessed = ", ".join(f"{name}: {kind}" for name, kind in failure.specialization.signature if kind != "constexpr")
    values = ", ".join(f"{name}={value!r}" for name, value in failure.specialization.constexprs)
    return Diagnostic(
        "KR110",
        f"Triton rejects `{kernel.name}`: {failure.message}",
        labels,
        (f"lowered as ({guessed}), {values}",),
        "if a type or a compile-time value is wrong, give it with `--dtype PARAM=fp16` or `--set NAME=VALUE`",
    )


def _place(location: Location, calls: SourceCalls) -> Span:
    function = calls.function_at(location)
    place = undedented(location, function) if function else location
    return Span(place.file, place.line, place.column, place.line, place.column + 1)
