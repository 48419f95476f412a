"""May the Triton function that an epilogue calls stand at a store: it must be a function of single elements."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator

from kernel_rewrite.alone import closed_alone, lower_alone
from kernel_rewrite.analysis import Analysis
from kernel_rewrite.diagnostics import Diagnostic, Label
from kernel_rewrite.epilogue_kernels import reading_of
from kernel_rewrite.model import Function, Location, OperandKind, Span
from kernel_rewrite.pointwise.element_types import torch_name, triton_name
from kernel_rewrite.pointwise.language import TritonCall, key_of
from kernel_rewrite.pointwise.reference import Given
from kernel_rewrite.request import OutputRequest
from kernel_rewrite.source.names import JitDefinition, module_scope
from kernel_rewrite.ttir.elementwise import Foreign, foreign_operation
from kernel_rewrite.ttir.lower import LoweringFailure
from kernel_rewrite.ttir.parse import Module, parse

_TILE = (16, 32)
_SHAPES = {OperandKind.SCALAR: (), OperandKind.ROW: (1, 32), OperandKind.COLUMN: (16, 1)}

_ABOUT_THE_TILE = frozenset({"shape", "numel", "rank", "is_block", "get_block_shapes", "block_type"})
"""What a function reads of the tile that it is given, and of no element."""

_ELEMENT_BY_ELEMENT = "a store has one tile: compute each element from the same element of x and of the operands"


def objections(analysis: Analysis, request: OutputRequest, elements: Iterable[str]) -> Iterator[Diagnostic]:
    """KR120 where Triton rejects the function for an output of one of `elements`, where it is none of single elements, or
    where its text does not tell what it is. Nothing for an expression."""
    call = request.pointwise
    if not isinstance(call, TritonCall):
        return
    for element in sorted(elements):
        typed = _as_triton(call, element)
        result = lower_alone(analysis, call, _TILE, *typed)
        if isinstance(result, LoweringFailure):
            yield rejected(analysis, request, result, element)
            return
        foreign = foreign_in(parse(result.text))
        if foreign is not None:
            yield _none_of_single_elements(analysis, call, foreign)
            return
        closure = closed_alone(analysis, call, _TILE, *typed)[0]
        unsure = [assumed for assumed in closure.assumed_names if assumed.alternatives or not assumed.harmless]
        if unsure:
            message = f"what `{call.function}` is can only be told by running code: {unsure[0].statement}"
            yield Diagnostic("KR120", message, (Label(_definition(analysis, call)),), help="define each name once")
            return
        yield from (d for function in closure.functions for d in _asks_for_the_tile(call, function))


def foreign_in(module: Module) -> Foreign | None:
    """The first operation of the function alone that is not one of single elements."""
    return foreign_operation(module, module.kernel)


def rejected(analysis: Analysis, request: OutputRequest, failure: LoweringFailure, element: str = "") -> Diagnostic:
    """KR120: Triton does not compile the call."""
    assert isinstance(request.pointwise, TritonCall)
    of = f" for x of {element}" if element else ""
    return Diagnostic(
        "KR120",
        f"Triton rejects `{request.text}`{of}: {failure.message}",
        (Label(_place_in(analysis, request.pointwise, failure.places)),),
        help="the function is called with the value as the output holds it, one tile of it",
    )


def _none_of_single_elements(analysis: Analysis, call: TritonCall, foreign: Foreign) -> Diagnostic:
    label = Label(_place_in(analysis, call, reversed(foreign.places)))
    if foreign.operation.startswith(("scf.", "cf.")):
        message = f"`{call.function}` loops or branches at run time (`{foreign.operation}`)"
        return Diagnostic("KR120", message, (label,), help="use `tl.static_range`, and `tl.where` for a choice")
    message = f"`{call.function}` is not a function of single elements: it makes `{foreign.operation}`"
    return Diagnostic("KR120", message, (label,), help=_ELEMENT_BY_ELEMENT)


def _as_triton(call: TritonCall, element: str) -> tuple[str, Given]:
    """Triton's names of the types of x and of what is read beside it, for an output of `element`."""
    x = triton_name(torch_name(element) or "float32")
    given = []
    for operand in call.operands:
        kind = "float32" if operand.is_number else triton_name(operand.dtype) if operand.dtype else x
        given.append((key_of(operand), _SHAPES.get(operand.kind, _TILE), kind))
    return x, given


def _place_in(analysis: Analysis, call: TritonCall, places: Iterable[Location]) -> Span:
    """The first of `places` that is in the user's files: the innermost call there, else its line; else the function."""
    for place in places:
        file = analysis.project.file(place.file)
        if file is None or place.line > len(file.line_starts):
            continue
        around = [
            Span.of(file.path, node)
            for node in ast.walk(file.tree)
            if isinstance(node, ast.Call)
            and (node.lineno, node.col_offset) <= (place.line, place.column)
            and (place.line, place.column) < (node.end_lineno or 0, node.end_col_offset or 0)
        ]
        line = Span(file.path, place.line, place.column, place.line, place.column + 1)
        return around[-1] if around else line  # inner calls are walked later
    return _definition(analysis, call)


def _definition(analysis: Analysis, call: TritonCall) -> Span:
    if call.inlined is not None:
        return reading_of(call.inlined, analysis.project).kernel.definition_line
    function = module_scope(analysis.kernel.file, analysis.project).lookup(call.function)
    if not isinstance(function, JitDefinition):
        return analysis.kernel.definition_line
    return Span.of(function.file.path, function.node)


def _asks_for_the_tile(call: TritonCall, function: Function) -> Iterator[Diagnostic]:
    """KR120 where the function, or a helper of it, reads the shape of its tile for more than to make another one: every
    kernel has tiles of its own."""
    node = function.node
    made = {id(n.args[0]) for n in ast.walk(node) if isinstance(n, ast.Call) and n.args and _makes_a_tile(n)}
    for inner in ast.walk(node):
        if isinstance(inner, ast.Attribute) and inner.attr in _ABOUT_THE_TILE and id(inner) not in made:
            message = f"`{call.function}` asks for the shape of its tile, which is another one in every kernel"
            yield Diagnostic("KR120", message, (Label(Span.of(function.ref.file, inner)),), help=_ELEMENT_BY_ELEMENT)


def _makes_a_tile(node: ast.Call) -> bool:
    """tl.full(x.shape, 0.0, x.dtype): one value for all elements."""
    return ast.unparse(node.func).rpartition(".")[2] in ("full", "zeros")
