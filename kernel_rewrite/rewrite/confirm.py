"""The rewritten file is lowered again and validated: the original kernel, with E(value) at each store to an output and
P(value) at each load of an input."""

from __future__ import annotations

import itertools
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from kernel_rewrite.alone import lower_alone
from kernel_rewrite.analysis import Analysis, View
from kernel_rewrite.called import foreign_in, rejected
from kernel_rewrite.diagnostics import Diagnostic, FusionRefused, Label
from kernel_rewrite.model import (
    STRIDES_APART,
    Evidence,
    InternalError,
    Location,
    MemoryAccess,
    MemoryEffect,
    OperandKind,
    ParameterFact,
    Specialization,
)
from kernel_rewrite.pointwise.calls import TritonCall
from kernel_rewrite.pointwise.element_types import torch_name
from kernel_rewrite.pointwise.graph import key_of
from kernel_rewrite.probes import probe_loads, probe_stores
from kernel_rewrite.request import InputRequest, OutputRequest, Request, element_type_of
from kernel_rewrite.retyped import changes, held_type, short_name
from kernel_rewrite.rewrite.epilogue import Rewrite
from kernel_rewrite.rewrite.loads import LoadPlan, keeps
from kernel_rewrite.rewrite.parameters import passed
from kernel_rewrite.rewrite.products import may_add_loaded, may_store_product
from kernel_rewrite.rewrite.report import keep_evidence
from kernel_rewrite.rewrite.unchanged import check_clone, check_unchanged
from kernel_rewrite.source.closure import close, kernel_named
from kernel_rewrite.source.files import Project, SourceFile, require_compiling, source_from_text
from kernel_rewrite.source.signatures import TRITON_TYPES
from kernel_rewrite.ttir.blocks import guarded, is_block, made_outside
from kernel_rewrite.ttir.lanes import OffLanes, loads_at, off_lanes
from kernel_rewrite.ttir.lower import TIME_LIMIT, Lowered, LoweringFailure
from kernel_rewrite.ttir.operands import Direction, ExpectedOperand, Follows, objection
from kernel_rewrite.ttir.parse import Module, Operation, parse, split_tensor, with_shape_of
from kernel_rewrite.ttir.validate import (
    OPERAND,
    Difference,
    Expression,
    Load,
    LoadedValue,
    NotPlanned,
    Store,
    StoredValue,
    Terms,
    function_terms,
    operand_of,
    operand_terms,
    validate,
)
from kernel_rewrite.ttir.written import Names


def confirm(
    text: str,
    rewrite: Rewrite,
    analysis: Analysis,
    requests: Sequence[OutputRequest],
    numerics: str,
    inputs: Sequence[InputRequest] = (),
) -> tuple[Lowered, ...]:
    """Prove that the kernel of `text` is the analysed one, except that each store to an output stores E(value) and each
    load of an input gives P(value), and that nothing else of the file changed. What Triton makes of it, in each of the
    specializations that this was proved for.

    Raises InternalError (KR902): whatever is wrong here is a bug of the rewriter, and nothing may be written. Its
    `folder` holds all that is needed to report the bug.
    """
    try:
        rewritten = read_rewritten(text, analysis)
        check_source(rewritten, rewrite, analysis)
        views = views_to_confirm(analysis, requests, inputs)
        references = References(analysis, numerics, rewrite)
        lowered = lower_rewritten(rewritten, analysis, views, rewrite, (*requests, *inputs))
        check_compiled(lowered, views, references, requests, inputs)
        return tuple(result for result in lowered if isinstance(result, Lowered))
    except InternalError as error:
        every: tuple[Request, ...] = (*requests, *inputs)
        asked = [f"{request.buffer}={request.text}" for request in every]
        ttir = error.ttir if isinstance(error, CompiledDifference) else ()
        error.folder = keep_evidence(error, text, analysis, [*asked, f"numerics={numerics}"], ttir)
        raise


class CompiledDifference(InternalError):
    """What Triton makes of the rewritten kernel is not what was planned. `ttir`: (file name, text) of each side."""

    def __init__(self, message: str, *ttir: tuple[str, str]) -> None:
        self.ttir = ttir
        super().__init__(message)


def read_rewritten(text: str, analysis: Analysis) -> SourceFile:
    """The rewritten file in the original's place. Raises InternalError when Python would not compile it, and FusionRefused
    (KR101) when that is so of the original too."""
    file = analysis.kernel.file
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(text, file.path, "exec", dont_inherit=True)  # the parser alone allows a misplaced __future__ import
        return source_from_text(text, file.path, encoding=file.encoding, location=file.location)
    except Exception as error:
        require_compiling(file)
        raise InternalError(f"KR902: the rewritten file is not valid Python: {error}") from error


def check_source(rewritten: SourceFile, rewrite: Rewrite, analysis: Analysis) -> None:
    """Raise InternalError unless the syntax tree outside the planned edits is the user's."""
    check_unchanged(analysis.kernel.file.tree, rewritten.tree, rewrite.plans, rewrite.additions)
    for clone in rewrite.clones:
        helper = analysis.closure.function(clone.helper)
        assert helper is not None
        check_clone(clone, helper.node, rewritten.tree)


def views_to_confirm(
    analysis: Analysis, requests: Sequence[OutputRequest], inputs: Sequence[InputRequest] = ()
) -> tuple[View, ...]:
    """The analysed views, and those with other float types where types were only inferred and rounding matters."""
    rounding = (request for request in requests if not request.pointwise.commutes_with_rounding)
    probed = [view for request in rounding for view in probe_stores(analysis, request.output, _stored(request))]
    probed += [view for request in inputs for view in probe_loads(analysis, request.input)]
    every: tuple[Request, ...] = (*requests, *inputs)
    return (*analysis.views, *(view for view in probed if _have_meaning(analysis, view, every)))


def _stored(request: OutputRequest) -> tuple[str, ...]:
    """The other outputs that take part in an epilogue."""
    return tuple(operand.name for operand in request.pointwise.operands if operand.is_stored)


def _have_meaning(analysis: Analysis, view: View, requests: Sequence[Request]) -> bool:
    """Whether each op has one under the types of a view, an operand having one type; `element-type` is assumed where not."""
    elements = [(request.pointwise, element_type_of(view.specialization, request.buffer)) for request in requests]
    beside = {(o.name, element) for p, element in elements for o in p.operands if not o.dtype and not o.is_number}
    if len(beside) != len({name for name, _ in beside}):
        return False
    stored = ((o.name, element) for p, element in elements for o in p.operands if o.is_stored)
    if any(element_type_of(view.specialization, name) != element for name, element in stored):
        return False
    return all(_has_meaning(analysis, view, request) for request in requests)


def _has_meaning(analysis: Analysis, view: View, request: Request) -> bool:
    """Whether an op gives what its buffer holds, or the type it is to get, under the types of a view. An output that gets
    another type has the one that the file says it has."""
    element = element_type_of(view.specialization, request.buffer)
    if isinstance(request.pointwise, TritonCall) or request.pointwise.undefined_reason(
        request.holds if isinstance(request, InputRequest) and request.holds else element
    ):
        return False
    if isinstance(request, InputRequest) and request.holds:
        return request.pointwise.result_dtype(request.holds) == torch_name(element)
    changed = changes(analysis, request) if isinstance(request, OutputRequest) else ""
    if not changed:
        return not request.pointwise.unheld_reason(element)
    held = held_type(analysis, request.buffer)
    same = held is None or held.holds_in(view.specialization, request.buffer)
    return same and request.pointwise.result_dtype(element) == changed


def lower_rewritten(
    rewritten: SourceFile,
    analysis: Analysis,
    views: Iterable[View],
    rewrite: Rewrite | None = None,
    requests: Sequence[Request] = (),
) -> list[Lowered | LoweringFailure]:
    """The rewritten kernel as Triton compiles it, one answer for each of `views`."""
    specializations = [view.specialization for view in views]

    def of_rewritten(order: Sequence[str]) -> list[Specialization]:
        if rewrite is None:
            return specializations
        return [_rewritten(s, order, rewrite, requests) for s in specializations]

    return lower_as(rewritten, analysis, of_rewritten)


def lower_as(
    rewritten: SourceFile, analysis: Analysis, specializations: Callable[[Sequence[str]], list[Specialization]]
) -> list[Lowered | LoweringFailure]:
    """The rewritten kernel as Triton compiles it, one answer for each of the `specializations` that its parameters have."""
    others = (file for file in analysis.project.files() if file is not analysis.kernel.file)
    project = Project((rewritten, *others))  # what it imports is parsed already
    kernel = kernel_named(analysis.kernel.name, rewritten, project)
    if kernel is None:
        raise InternalError(f"KR902: the rewritten file has no kernel `{analysis.kernel.name}`")
    closure = close(kernel, project)
    wanted = specializations(closure.kernel.parameters)
    # what was lowered once in time is no bug when a busy machine takes longer
    limit = 3 * TIME_LIMIT
    return list(analysis.compiler.lower(closure, project.sources(), wanted, analysis.target, limit))


def _rewritten(
    specialization: Specialization, order: Sequence[str], rewrite: Rewrite, requests: Iterable[Request]
) -> Specialization:
    """`specialization` with a type for each new parameter (what the operand declares, else that of the buffer it is for), and
    with the new types of outputs."""
    types = dict(specialization.signature)
    for request in requests:
        element = element_type_of(specialization, request.buffer)
        if element and request.buffer in rewrite.retyped:
            held = short_name(rewrite.retyped[request.buffer].dtype)
            types[request.buffer] = f"*{held}"
            element = held if isinstance(request, InputRequest) else element
        if isinstance(request, OutputRequest) and request.kept:
            own = element_type_of(specialization, request.output)
            types[request.kept] = f"*{own or 'fp32'}"  # a launch may pass None for the output
        for operand in (o for o in request.pointwise.operands if not o.is_stored):
            kind = TRITON_TYPES[operand.dtype] if operand.dtype else element or "fp32"  # beside None: nothing reads it
            parameter = rewrite.parameters[operand.name]
            types.setdefault(parameter.name, "fp32" if operand.is_number else f"*{kind}")
            types |= {name: "i32" for name, _ in parameter.strides}
    signature = tuple((name, types[name]) for name in order)
    return Specialization(signature, specialization.constexprs, specialization.origin)


def check_compiled(
    results: Sequence[Lowered | LoweringFailure],
    views: Sequence[View],
    references: References,
    requests: Sequence[OutputRequest],
    inputs: Sequence[InputRequest] = (),
) -> None:
    """Raise InternalError unless each of `results` is its view, but for E(value) at the stores to the outputs and P(value) at
    the loads of the inputs."""
    for view, result in zip(views, results, strict=True):
        original = ("original.ttir", view.text)
        retyped = references.retyped(view, requests, inputs)
        if isinstance(result, LoweringFailure) and retyped and _SHORT_ROWS in result.message:
            raise FusionRefused((_short_rows(result, references.analysis),))
        if isinstance(result, LoweringFailure):
            calls = [request for request in requests if isinstance(request.pointwise, TritonCall)]
            if calls:  # a function may have no meaning for the tile that is stored here
                raise FusionRefused((rejected(references.analysis, calls[0], result),))
            message = f"KR902: Triton rejects the rewritten kernel: {result.message} at {result.places[:1]}"
            raise CompiledDifference(message, original)
        rules = {key: rule for request in requests for key, rule in references.rules(view, request)}
        loaded = {key: rule for request in inputs for key, rule in references.load_rules(view, request)}
        changed = _Rules(rules), references.added, _LoadRules(loaded), retyped
        kept = [request.kept for request in requests if request.kept]
        _, differences = validate(view.module, parse(result.text), *changed, kept, _beside(view, requests))
        if differences and differences[0].beside:
            raise FusionRefused((_not_beside(differences[0], references.analysis),))
        if differences and differences[0].about_operand:
            raise FusionRefused((_unconfirmed(differences[0], references.analysis),))
        if differences:
            raise CompiledDifference(
                _report(differences[0], view.specialization), original, ("fused.ttir", result.text)
            )


def _beside(view: View, requests: Iterable[OutputRequest]) -> _Besides:
    """Which stores of a view are to the outputs whose values the epilogues take."""
    names = {name for request in requests for name in _stored(request)}
    stores = (a for a in view.accesses if a.effect is MemoryEffect.WRITE)
    return _Besides({(a.location, a.call_path): name for a in stores for name in names & a.roots})


_SHORT_ROWS = "must have at least 16 bytes in the last dimension"


def _short_rows(failure: LoweringFailure, analysis: Analysis) -> Diagnostic:
    """A descriptor's block has too few elements in a row, now that they are smaller."""
    span = analysis.calls.surroundings(failure.places[0]) if failure.places else None
    return Diagnostic(
        "KR410",
        f"a descriptor cannot have the element type that the epilogue gives the output: its block {_SHORT_ROWS}",
        (Label(span or analysis.kernel.definition_line, failure.message),),
        help="compile the kernel with wider blocks, or store through a pointer",
    )


def _not_beside(difference: Difference, analysis: Analysis) -> Diagnostic:
    """The stores to another output do not pair with those to the output."""
    span = analysis.span_of(difference.location, "tt.store") if difference.location is not None else None
    return Diagnostic(
        "KR307",
        f"what is stored to `{difference.beside}` cannot take part in the epilogue",
        (Label(span or analysis.kernel.definition_line, difference.what),),
        help=f"let each store to `{difference.beside}` stand before one to the output, in the same block, with the same "
        "offsets and the same mask",
    )


def _unconfirmed(difference: Difference, analysis: Analysis) -> Diagnostic:
    """The place of an operand, as the source has it, is not what the compiler makes of it."""
    location = difference.location
    span = analysis.span_of(location, "tt.store") if location is not None else None
    return Diagnostic(
        "KR305",
        f"the place of an operand could not be confirmed: {difference.what}",
        (Label(span or analysis.kernel.definition_line, "for this store"),),
        help="write the address and the mask of the store over the indices themselves, or the index of the operand by "
        "hand, for example `bias[offs_n]`",
    )


Key = tuple[Location | None, tuple[Location, ...]]

_FOLLOWS = {
    OperandKind.SCALAR: Follows.NOTHING,
    OperandKind.ROW: Follows.AXIS,
    OperandKind.COLUMN: Follows.AXIS,
    OperandKind.TILE: Follows.TILE,
    OperandKind.INDEXED: Follows.INDEX,
}

_MOST_CHOICES = 64
"""How many ways to match what is read with the operands are tried."""


@dataclass(frozen=True, slots=True)
class _Rules:
    """What may be stored instead, by the place of the store and the calls that lead to it."""

    by_place: Mapping[Key, StoredValue]

    def __call__(self, operation: Operation, path: tuple[Location, ...]) -> StoredValue | None:
        return self.by_place.get((operation.location, path))


@dataclass(frozen=True, slots=True)
class _LoadRules:
    """What is loaded instead, by the place of the load and the calls that lead to it."""

    by_place: Mapping[Key, LoadedValue]

    def __call__(self, operation: Operation, path: tuple[Location, ...]) -> LoadedValue | None:
        return self.by_place.get((operation.location, path))


@dataclass(frozen=True, slots=True)
class _Besides:
    """The output that is stored to, where an epilogue takes what is stored, by the place of the store and the calls that lead
    to it."""

    by_place: Mapping[Key, str]

    def __call__(self, operation: Operation, path: tuple[Location, ...]) -> str:
        return self.by_place.get((operation.location, path), "")


def _report(difference: Difference, specialization: Specialization) -> str:
    where = f" ({specialization.origin})" if specialization.origin else ""
    return (
        f"KR902: the rewritten kernel is not the planned one{where}: {difference.what} at {difference.location}\n"
        f"  expected: {difference.expected}\n  found:    {difference.found}"
    )


# Operations that carry a value to the type and the shape of the pointer, as a store does by itself.
_SHAPES = frozenset({"tt.splat", "tt.broadcast", "tt.expand_dims"})
_FLOAT_CASTS = frozenset({"arith.truncf", "arith.extf"})
_CASTS = _FLOAT_CASTS | {
    *("arith.sitofp", "arith.uitofp", "arith.fptosi", "arith.fptoui", "arith.trunci", "arith.extsi", "arith.extui"),
    *("tt.fp_to_fp",),
}


@dataclass(frozen=True, slots=True)
class References:
    """E on terms, for whatever type a store's value has; each is lowered from a kernel of its own."""

    analysis: Analysis
    numerics: str
    rewrite: Rewrite | None = None
    _lowered: dict[tuple[object, ...], Module] = field(default_factory=dict)

    @property
    def added(self) -> frozenset[str]:
        """The parameters that the rewritten kernel has more."""
        return frozenset(name for name, _ in passed(self.rewrite.parameters.values())) if self.rewrite else frozenset()

    def retyped(
        self, view: View, requests: Iterable[OutputRequest], inputs: Iterable[InputRequest] = ()
    ) -> dict[str, str]:
        """The buffers that must point to elements of another type in the rewritten kernel, and that type, as TTIR has it."""
        found = {request.output: changes(self.analysis, request) for request in requests}
        found |= {request.input: request.holds for request in inputs}
        return {output: _TTIR_TYPES.get(dtype, dtype) for output, dtype in found.items() if dtype}

    def rules(self, view: View, request: OutputRequest) -> Iterator[tuple[Key, StoredValue]]:
        """For each store to the output: what the rewritten kernel may store there."""
        for access in view.accesses:
            if access.effect is MemoryEffect.WRITE and access.roots == {request.output}:
                yield (access.location, access.call_path), self._rule(view, request, access)

    def _rule(self, view: View, request: OutputRequest, access: MemoryAccess) -> StoredValue:
        element = element_type_of(view.specialization, request.output)
        changed = changes(self.analysis, request)

        def candidates(terms: Terms, store: Store) -> Iterator[Expression]:
            """E after the store's own rounding; E before it, where that is the same or was asked for."""
            if changed:
                yield from self._retyped_candidates(terms, store, request, access, changed, element)
                return
            passed: list[Expression] = []
            current, passable = store.value, self._passable_casts(access)
            while True:
                if not _is_bool_in_memory(current, element):
                    for operands in self._operand_terms(store, request):
                        result = self._apply(terms, current, element, request, operands)
                        for link in reversed(passed):
                            result = terms.term(link.operation, link.attributes, link.type, (result,))
                        yield result
                if len(current.operands) != 1 or not self._may_pass(current, element, request, passable):
                    return
                if passable and current.operation == passable[0]:
                    passable = passable[1:]
                passed.append(current)
                current = current.operands[0]

        beside = _stored(request)
        if not self.added:
            return StoredValue(candidates, kept=request.kept, beside=beside)
        expected = self._expected(request, in_helper=bool(access.call_path))

        def what_is_read(terms: Terms, store: Store) -> str:
            return objection(terms, store, expected, _names(terms, view, self.analysis.facts))

        return StoredValue(candidates, what_is_read, request.kept, beside)

    def _retyped_candidates(
        self, terms: Terms, store: Store, request: OutputRequest, access: MemoryAccess, changed: str, element: str
    ) -> Iterator[Expression]:
        """E, in the type `changed`, after the store's own rounding to the type that the output has without it. Where the
        value is spread over the block it may stand before that; with `numerics="fused"` before the rounding, and replace
        it."""
        spread: list[Expression] = []
        current, passable = store.value, self._passable_casts(access)
        while True:
            for operands in self._operand_terms(store, request):
                result = self._apply(terms, current, element, request, operands, changed)
                for link in reversed(spread):
                    type_ = with_shape_of(link.type, split_tensor(result.type)[1])
                    result = terms.term(link.operation, link.attributes, type_, (result,))
                yield result
            rounds = bool(passable) and current.operation == passable[0] and current.operation in _CASTS
            if len(current.operands) != 1 or not (rounds or current.operation in _SHAPES):
                return
            if rounds:
                passable = passable[1:]
            else:
                spread.append(current)
            current = current.operands[0]

    def load_rules(self, view: View, request: InputRequest) -> Iterator[tuple[Key, LoadedValue]]:
        """For each load of the input: what the original's load gives, over what the rewritten kernel loads."""
        places = {(a.operation, a.location): a for a in view.accesses if a.roots == {request.input}}
        lanes: dict[Location, list[OffLanes]] = {}
        for operation in loads_at(view.module, places):
            assert operation.location is not None
            lanes.setdefault(operation.location, []).append(off_lanes(view.module, operation))
        for access in view.accesses:
            if access.effect is MemoryEffect.READ and access.roots == {request.input}:
                kept = all(keeps(request.pointwise, each) for each in lanes[access.location])
                yield (access.location, access.call_path), self._load_rule(view, request, access, kept)

    def _load_rule(self, view: View, request: InputRequest, access: MemoryAccess, kept: bool) -> LoadedValue:
        element = short_name(request.holds) if request.holds else element_type_of(view.specialization, request.input)
        guarded = self._is_guarded(request, access)

        def result(terms: Terms, load: Load) -> Expression:
            whole = self._apply(terms, load.value, element, request, self._operands_beside(terms, load, request))
            if not guarded and not kept:
                raise NotPlanned("lanes that the load leaves off would take part")
            if request.holds and load.off is not None and not _is_zero(load.off):
                raise NotPlanned("lanes that are off do not hold zero")
            if not guarded:
                return whole
            off = _zero_like(terms, whole.type) if request.holds else load.value
            if is_block(load.pointer):
                return self._within_bounds(terms, load, whole, off, request, access)
            if load.mask is None:
                raise NotPlanned("the load has no mask to put its lanes right with")
            return terms.term("arith.select", "%, %, %", whole.type, (load.mask, whole, off))

        expected = self._expected(request, in_helper=bool(access.call_path))

        def what_is_read(terms: Terms, load: Load, found: Expression) -> str:
            place = Store(load.pointer, load.mask, load.value, found, load.others, load.attributes)
            return objection(terms, place, expected, _names(terms, view, self.analysis.facts))

        return LoadedValue(result, what_is_read, _TTIR_TYPES.get(request.holds, request.holds))

    def _within_bounds(
        self, terms: Terms, load: Load, whole: Expression, off: Expression, request: InputRequest, access: MemoryAccess
    ) -> Expression:
        """P of what is loaded within the bounds of a block, `off` beyond them, as the rewritten kernel has it. Raises
        FusionRefused (KR402) where the bounds in the source are not those of the block."""
        found = guarded(terms, load, whole, off)
        if found is None:
            span = self.analysis.span_of(access.location, access.operation) or self.analysis.kernel.definition_line
            label = Label(span, "the bounds of this block could not be confirmed in the compiled kernel")
            raise FusionRefused((_changed_lanes(request, label),))
        return found

    def _operands_beside(self, terms: Terms, load: Load, request: InputRequest) -> tuple[Expression, ...]:
        """The operands of P as the rewritten kernel has them at one load: a number by its parameter, any other as it was
        read last."""
        assert self.rewrite is not None
        found: list[Expression] = []
        for operand in request.pointwise.operands:
            name = self.rewrite.parameters[operand.name].name
            if operand.is_number:
                found.append(terms.term(OPERAND, name, "f32"))
                continue
            reads = (r for r in load.reads if operand_of(r) == name and not any(r is other for other in found))
            read = next(reads, None)
            if read is None:
                raise NotPlanned(f"nothing is read of `{name}` beside the load")
            found.append(read)
        return tuple(found)

    def _is_guarded(self, request: InputRequest, access: MemoryAccess) -> bool:
        """Whether the rewriter puts right the lanes that a load leaves off."""
        assert self.rewrite is not None
        call = self.analysis.calls.memory_call(access.location, access.operation)
        plans = (p for p in self.rewrite.plans if isinstance(p, LoadPlan) and p.input == request.input)
        return any(site.call == call and site.guarded for plan in plans for site in plan.sites)

    def _expected(self, request: Request, *, in_helper: bool) -> dict[str, ExpectedOperand]:
        """What each operand's place follows from, by parameter. An index is written in names of the function it is read in,
        which are known for the kernel alone."""
        assert self.rewrite is not None
        writer = self.rewrite.writers[request.buffer]
        found = {}
        for operand in (o for o in request.pointwise.operands if not o.is_stored):
            parameter = self.rewrite.parameters[operand.name]
            name, own = parameter.name, [stride for stride, _ in parameter.strides]
            follows = Follows.AXES if operand.kind is OperandKind.TILE and operand.strided else _FOLLOWS[operand.kind]
            along = [strides for strides, _ in writer.tile_strides or ()]
            if follows is not Follows.AXES:
                along = [writer.strides.get(operand.kind) or ()] if follows is Follows.AXIS else []
            steps = zip(along, own or [""] * len(along), strict=True)
            directions = tuple(Direction(strides, stride) for strides, stride in steps)
            read_at = [o.index for o in request.pointwise.operands if o.name == operand.name and o.index]
            indices = () if in_helper else tuple(read_at)
            found[name] = ExpectedOperand(name, follows, directions, indices)
        return found

    def _operand_terms(self, store: Store, request: OutputRequest) -> Iterator[tuple[Expression, ...]]:
        """The operands of E as the rewritten kernel has them, in every way that what it stores allows."""
        if not request.pointwise.operands or self.rewrite is None:
            yield ()
            return
        terms = list(operand_terms(store.found))
        parameters = self.rewrite.parameters
        choices = [
            [store.beside[operand.name]]
            if operand.is_stored
            else [term for term in terms if operand_of(term) == parameters[operand.name].name]
            for operand in request.pointwise.operands
        ]
        for choice in itertools.islice(itertools.product(*choices), _MOST_CHOICES):
            read = [term for term, o in zip(choice, request.pointwise.operands, strict=True) if not o.is_stored]
            if len({id(term) for term in read}) == len(read):
                yield choice

    def _passable_casts(self, access: MemoryAccess) -> tuple[str, ...]:
        """The casts that the store makes by itself and that `numerics="fused"` lets E stand before, outermost first.

        Never one that the user wrote: E(x) as an integer is not E of x as an integer. Triton casts a 16-bit float to
        another one, and to an integer, by way of float32.
        """
        if self.numerics != "fused" or access.implicit_cast is None:
            return ()
        by_way_of_float32 = access.implicit_cast in ("arith.truncf", "arith.fptosi", "arith.fptoui")
        return (access.implicit_cast, "arith.extf") if by_way_of_float32 else (access.implicit_cast,)

    def _may_pass(self, link: Expression, element: str, request: OutputRequest, passable: tuple[str, ...]) -> bool:
        if link.operation in _SHAPES or _is_bool_in_memory(link, element):
            return True
        if link.operation in _FLOAT_CASTS and request.pointwise.commutes_with_rounding:
            return True
        return bool(passable) and link.operation == passable[0] and link.operation in _CASTS

    def _apply(
        self,
        terms: Terms,
        value: Expression,
        element: str,
        request: Request,
        operands: tuple[Expression, ...] = (),
        stored: str = "",
    ) -> Expression:
        shape, scalar = split_tensor(value.type)
        dtype = _triton_dtype(scalar, element)
        types = tuple(split_tensor(term.type) for term in operands)
        is_load = isinstance(request, InputRequest)
        behind_prologues = self.rewrite is not None and any(isinstance(p, LoadPlan) for p in self.rewrite.plans)
        may_be_product = not is_load and may_store_product(self.analysis, request.buffer, behind_prologues)
        apart = is_load and may_add_loaded(self.analysis, request.buffer)
        key = request.text, shape, dtype, types, may_be_product, apart, stored
        if key not in self._lowered:
            given = [
                (key_of(operand), _sizes(its_shape), _triton_dtype(scalar, operand.dtype or element))
                for operand, (its_shape, scalar) in zip(request.pointwise.operands, types, strict=True)
            ]
            result = lower_alone(
                self.analysis,
                request.pointwise,
                _sizes(shape),
                dtype,
                given,
                value_may_be_product=may_be_product,
                settled=is_load,
                apart=apart,
                stored=stored,
            )
            if isinstance(result, LoweringFailure):
                raise _rejected_alone(self.analysis, request, result)
            self._lowered[key] = parse(result.text)
            if isinstance(request.pointwise, TritonCall) and foreign_in(self._lowered[key]) is not None:
                raise InternalError(f"KR902: {request.text} is no function of single elements for x of {shape} {dtype}")
        return function_terms(self._lowered[key])(terms, value, *operands)


def _changed_lanes(request: InputRequest, label: Label) -> Diagnostic:
    return Diagnostic(
        "KR402",
        f"{request.pointwise.name} would change the lanes of `{request.input}` that this load leaves off",
        (label,),
        help="make the block from names that do not change, or load through pointers with a mask",
    )


def _rejected_alone(analysis: Analysis, request: Request, failure: LoweringFailure) -> Exception:
    if isinstance(request, OutputRequest) and isinstance(request.pointwise, TritonCall):
        return FusionRefused((rejected(analysis, request, failure),))
    return InternalError(f"KR902: Triton rejects {request.text} alone: {failure.message}")


def _is_zero(term: Expression) -> bool:
    """Whether a term is zero everywhere, in whatever type."""
    while len(term.operands) == 1 and term.operation in _SHAPES | _CASTS:
        term = term.operands[0]
    return term.operation == "arith.constant" and bool(_ZERO.fullmatch(term.attributes))


_ZERO = re.compile(r"(0(\.0+e[+-]?0+)?|false)( : \w+)?")


def _zero_like(terms: Terms, type_: str) -> Expression:
    """The zero of a float type, in a shape."""
    shape, scalar = split_tensor(type_)
    zero = terms.term("arith.constant", "0.000000e+00", scalar)
    return terms.term("tt.splat", "", type_, (zero,)) if shape else zero


def _sizes(shape: str) -> tuple[int, ...]:
    return tuple(int(size) for size in shape.split("x") if size)


_TAKEN = (Evidence.BRANCH, Evidence.USE, Evidence.NAME, Evidence.REPAIR, Evidence.GUESS)
"""Where the value of a compile-time parameter is not given."""


def _names(terms: Terms, view: View, facts: Iterable[ParameterFact]) -> Names:
    """What names of the original kernel stand for, where they stand for numbers."""
    parameters = view.module.kernel.parameters
    found = [(p.name, terms.term("parameter", str(index), p.type)) for index, p in enumerate(parameters)]
    constants = {name: value for name, value in view.specialization.constexprs if type(value) is int}
    taken = {fact.name for fact in facts if fact.evidence in _TAKEN}
    apart = frozenset(
        value
        for name, value in constants.items()
        if value in STRIDES_APART
        and name in taken
        and all(other % value or not other for its, other in constants.items() if its != name)
    )
    numbers = {name: term for name, term in found if not term.type.startswith("!tt.")}
    for name, term in found:
        if is_block(term):  # a descriptor, of which the kernel knows the strides
            described = made_outside(term, terms)
            strides = described[len(described) // 2 :]
            numbers |= {f"{name}.strides[{number}]": stride for number, stride in enumerate(strides)}
    return Names(numbers, constants, apart)


def _is_bool_in_memory(value: Expression, element: str) -> bool:
    """Whether this is the byte that a bool is kept as, on its way into a buffer of bools: E is computed on the bool."""
    return element == "i1" and value.operation == "arith.extui"


_DTYPES = {
    **{"f16": "float16", "bf16": "bfloat16", "f32": "float32", "f64": "float64", "i1": "int1"},
    **{"f8E4M3FN": "float8e4nv", "f8E5M2": "float8e5"},
}
_TTIR_TYPES = {
    **{"float16": "f16", "bfloat16": "bf16", "float32": "f32", "float64": "f64", "bool": "i1"},
    **{"float8_e4m3fn": "f8E4M3FN", "float8_e5m2": "f8E5M2", "uint8": "i8"},
    **{f"int{bits}": f"i{bits}" for bits in (8, 16, 32, 64)},
}
_UNSIGNED = {"u8": "i8", "u16": "i16", "u32": "i32", "u64": "i64"}


def _triton_dtype(scalar: str, element: str) -> str:
    """Triton's name of a TTIR scalar type; integers have no sign there, so the output's own type decides."""
    if scalar in _DTYPES:
        return _DTYPES[scalar]
    if _UNSIGNED.get(element) == scalar:
        return f"uint{scalar[1:]}"
    return f"int{scalar[1:]}"
