"""Is the function that stands for a pointwise kernel what the kernel stores: shown on what Triton makes of both."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from kernel_rewrite.alone import lower_alone
from kernel_rewrite.analysis import Analysis, View, analyse
from kernel_rewrite.diagnostics import Diagnostic, FusionRefused, Label
from kernel_rewrite.epilogue_kernels import reading_of
from kernel_rewrite.model import Evidence, Location, Operand, OperandKind, Span
from kernel_rewrite.pointwise.calls import Inlined, Literal, TritonCall
from kernel_rewrite.pointwise.element_types import torch_name, triton_name
from kernel_rewrite.pointwise.graph import key_of
from kernel_rewrite.request import OutputRequest, element_type_of
from kernel_rewrite.source.launch_options import ARITHMETIC_OPTIONS, Settings, arithmetic_settings
from kernel_rewrite.source.pointwise_kernels import PointwiseKernel, refusal
from kernel_rewrite.source.signatures import DTYPE_NAMES, TRITON_TYPES, parse_overrides
from kernel_rewrite.ttir.lower import LoweringFailure
from kernel_rewrite.ttir.parse import lengths_of, parse
from kernel_rewrite.ttir.pointwise_kernel import Objection, stored_elements
from kernel_rewrite.ttir.validate import function_terms

_SEEN = (Evidence.LAUNCH, Evidence.ALLOCATION, Evidence.ANNOTATION)
"""Where the type of the second kernel's output is seen, and not only inferred."""


def inlining_objections(analysis: Analysis, request: OutputRequest, elements: Iterable[str]) -> Iterator[Diagnostic]:
    """KR123 where the kernel that is inlined is not pointwise for an output of one of `elements`, or stores something else
    than the function that stands for it; KR124 where it stores to a buffer of another type, KR125 where it is compiled with
    other options. Nothing for any other op."""
    call = request.pointwise
    if not isinstance(call, TritonCall) or call.inlined is None:
        return
    read = reading_of(call.inlined, analysis.project)
    yield from _other_options(analysis, read)
    for element in sorted(elements):
        try:
            found = tuple(_another_type(analysis, call, read, element))
            second = _analysed(analysis, call, read, _types(call, read, element))
        except FusionRefused as refused:
            yield from refused.diagnostics
            return
        found = found or tuple(_differences(analysis, call, read, second, element))
        if found:
            yield from found
            return


def taken_from_the_launch(analysis: Analysis, call: TritonCall, inlined: Inlined, output: str) -> str:
    """What the kernel that is inlined as `call` takes from its launch, as a sentence."""
    values = [f"{a.keyword}={a.value.value!r}" for a in call.arguments if isinstance(a.value, Literal)]
    given = f" with {', '.join(values)}" if values else ""
    both = _settings(analysis, reading_of(inlined, analysis.project))
    options = ""
    if not all(each.complete for _, pair in both for each in pair):
        shown = {f"{option}={each.text}" for option, pair in both for s in pair for each in s.found if each.span}
        example = ", ".join(f"`{each}`" for each in sorted(shown) or ["enable_fp_fusion"])
        options = f"; it and `{analysis.kernel.name}` are compiled with the same arithmetic options, such as {example}"
    along = [f"`{o.name}`" for o in call.operands if o.kind in (OperandKind.ROW, OperandKind.COLUMN)]
    rows = f"; the rows that it reads {', '.join(along)} along are those of `{output}`" if along else ""
    return (
        f"`{inlined.kernel}`{given} is launched over every element of `{output}`, once, and its result and its operands "
        f"lie in memory as `{output}` does{rows}{options}"
    )


def _settings(analysis: Analysis, read: PointwiseKernel) -> list[tuple[str, tuple[Settings, Settings]]]:
    """By option: what the fused kernel is launched with, and the one that is inlined."""
    first = arithmetic_settings(analysis.kernel, analysis.project)
    second = arithmetic_settings(read.kernel, analysis.project)
    return [(option, (first[option], second[option])) for option in ARITHMETIC_OPTIONS]


def _other_options(analysis: Analysis, read: PointwiseKernel) -> Iterator[Diagnostic]:
    """KR125 for each option that changes what arithmetic gives, and that one of the kernels is launched with and the other
    may not be."""
    names = (analysis.kernel.name, read.kernel.name)
    for option, (first, second) in _settings(analysis, read):
        found = [(*names, each, second) for each in first.found] + [
            (*names[::-1], each, first) for each in second.found
        ]
        odd = next((each for each in found[::-1] if each[2].span is not None), None)
        known = all(setting.known for _, _, setting, _ in found)
        if odd is None or (known and len({repr(setting.value) for _, _, setting, _ in found}) == 1):
            continue
        one, other, setting, its = odd
        differs = known and its.complete and all(repr(each.value) != repr(setting.value) for each in its.found)
        label = "it changes what the kernel's arithmetic gives" if known else "what this gives is not known here"
        yield Diagnostic(
            "KR125",
            f"`{one}` is launched with `{option}={setting.text}`, and `{other}` {'is not' if differs else 'may not be'}",
            (Label(setting.span, label),) if setting.span is not None else (),
            help=f"launch both with the same constant: what is inlined is compiled with the options of `{names[0]}`",
        )


def _analysed(analysis: Analysis, call: TritonCall, read: PointwiseKernel, types: Mapping[str, str]) -> Analysis:
    """The second kernel, its parameters having the element types `types`."""
    values = {a.keyword: a.value.value for a in call.arguments if isinstance(a.value, Literal)}
    settings = [f"{name}={value!r}" for name, value in values.items()]
    dtypes = [f"{name}={kind}" for name, kind in types.items()]
    return analyse(
        read.kernel,
        analysis.project,
        analysis.compiler,
        lambda function: parse_overrides(function, settings, dtypes),
        analysis.target,
    )


def _types(call: TritonCall, read: PointwiseKernel, element: str) -> dict[str, str]:
    """The element types of the second kernel's parameters behind an output of `element`."""
    types = {parameter: "fp32" for parameter in read.numbers}
    for parameter, operand in zip(read.operands, call.operands, strict=False):
        types[parameter] = TRITON_TYPES[triton_name(operand.dtype)] if operand.dtype else element
    return {read.out: element, read.x: element, **types}


def _another_type(analysis: Analysis, call: TritonCall, read: PointwiseKernel, element: str) -> Iterator[Diagnostic]:
    """KR124 where the launches of the second kernel show that it stores to a buffer of another type."""
    if read.out == read.x:
        return
    for types in ({}, {read.x: element}):  # as its own file has it, and as it is to run
        facts = {fact.name: fact for fact in _analysed(analysis, call, read, types).facts}
        given, taken = facts[read.out], facts[read.x]
        settled = types or taken.evidence in _SEEN
        if given.evidence not in _SEEN or (settled and given.type == taken.type):
            return
    names = [DTYPE_NAMES.get(kind.removeprefix("*"), kind) for kind in (f"*{element}", str(given.type))]
    yield Diagnostic(
        "KR124",
        f"`{read.kernel.name}` loads {names[0]} and stores {names[1]}, and its result is to take the place of what it loads",
        (Label(read.store, f"`{read.out}` holds {names[1]}: {given.evidence.value}"),),
        help="keep it a kernel of its own, or let it store the type it loads and write the cast as an expression",
    )


def _differences(
    analysis: Analysis, call: TritonCall, read: PointwiseKernel, second: Analysis, element: str
) -> Iterator[Diagnostic]:
    """KR123 for each view of the second kernel that stores something else than the function gives."""
    wanted = _types(call, read, element)
    views = [v for v in second.views if all(_element(v, name) == kind for name, kind in wanted.items())]
    if not views or second.failures:
        reason = second.failures[0].message if second.failures else f"no launch of it takes {element}"
        message = f"could not be compiled behind an output of {element}: {reason}"
        yield from refusal(read.kernel, message, read.kernel.definition_line).diagnostics
        return
    if not second.complete:
        message = "has compile-time branches, or names, that could not all be followed"
        help = f"give each value: `{read.kernel.name}({read.x}, NAME=VALUE)`"
        yield from refusal(read.kernel, message, read.kernel.definition_line, help).diagnostics
        return
    for view in views:
        stored = stored_elements(view.module, read.x, read.out, read.single, _along(call, read))
        if isinstance(stored, Objection):
            place = _place(second, stored.places) or read.store
            yield from refusal(read.kernel, stored.words, place, _ELEMENT_BY_ELEMENT).diagnostics
            return
        sizes = lengths_of(stored.loaded[read.x].type)
        lying = {o.name: lengths_of(stored.loaded[p].type) for p, o in _loaded(call, read) if p in stored.loaded}
        given = []
        for operand in call.operands:
            kind = "float32" if operand.is_number else triton_name(operand.dtype or torch_name(element) or "")
            given.append((key_of(operand), lying.get(operand.name, ()), kind))
        alone = lower_alone(analysis, call, sizes, triton_name(torch_name(element) or ""), given)
        if isinstance(alone, LoweringFailure):
            message = f"cannot be taken apart: Triton rejects what computes its result, {alone.message}"
            yield from refusal(read.kernel, message, read.store).diagnostics
            return
        unread = [parameter for parameter in read.operands if parameter not in stored.loaded]
        if unread:
            message = f"loads nothing from `{unread[0]}` with these compile-time values, and its text does"
            help = f"leave the branch that loads `{unread[0]}` out, in a kernel of its own"
            yield from refusal(read.kernel, message, read.loads[unread[0]], help).diagnostics
            return
        loaded = [stored.loaded.get(parameter) for parameter in (read.x, *read.operands)]
        terms = [*loaded, *(stored.parameters.get(number) for number in read.numbers)]
        arguments = [term for term in terms if term is not None]
        same = len(arguments) == len(terms)
        if not same or function_terms(parse(alone.text))(stored.terms, *arguments) is not stored.value:
            message = "stores something else than its arithmetic by itself gives"
            help = "compute what is stored from names that are assigned once"
            yield from refusal(read.kernel, message, read.store, help).diagnostics
            return


_ELEMENT_BY_ELEMENT = (
    "load each operand where the result is stored, under the same mask; what is loaded at `offsets % n_cols`, or at `cols` "
    "beside `row * stride + cols`, can be declared: `--operand NAME=row`"
)


def _loaded(call: TritonCall, read: PointwiseKernel) -> Iterator[tuple[str, Operand]]:
    """Each parameter of the kernel that it loads beside x, and its operand."""
    return zip(read.operands, call.operands, strict=False)


def _along(call: TritonCall, read: PointwiseKernel) -> dict[str, bool]:
    """The parameters that are declared as rows (True) or columns."""
    kinds = {OperandKind.ROW: True, OperandKind.COLUMN: False}
    return {parameter: kinds[operand.kind] for parameter, operand in _loaded(call, read) if operand.kind in kinds}


def _element(view: View, parameter: str) -> str:
    kind = str(view.specialization.type_of(parameter))
    return element_type_of(view.specialization, parameter) if kind.startswith("*") else kind


def _place(second: Analysis, places: Iterable[Location]) -> Span | None:
    """The call or the statement at the outermost of `places`."""
    for place in places:
        return second.span_of(place, "tt.load") or second.span_of(place, "")
    return None
