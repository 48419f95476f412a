"""The story of a fusion: read, choose the kernel, analyse, check, plan, rewrite, confirm."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from kernel_rewrite.analysis import Analysis, analyse
from kernel_rewrite.checks import new_fills
from kernel_rewrite.diagnostics import FusionRefused
from kernel_rewrite.functions import Kernels, Ops, implied_operands, in_words, listed
from kernel_rewrite.fused import EAGER, Options, fused_file
from kernel_rewrite.model import Operand
from kernel_rewrite.pointwise.declarations import declared_operands
from kernel_rewrite.repeated import repeated_work
from kernel_rewrite.request import InputRequest, OutputRequest
from kernel_rewrite.results import Fused
from kernel_rewrite.rewrite.confirm import confirm
from kernel_rewrite.rewrite.drop import Without, analysed_again, confirm_without, without_outputs
from kernel_rewrite.rewrite.edits import apply_edits
from kernel_rewrite.rewrite.epilogue import fusion_edits, references
from kernel_rewrite.rewrite.loads import LoadPlan, plan_loads
from kernel_rewrite.rewrite.stores import StorePlan, plan_stores
from kernel_rewrite.selection import (
    Requested,
    beside_are_stored,
    checked_assumptions,
    choose_dropped,
    choose_inputs,
    choose_kernel,
    choose_outputs,
    comments_are_right,
    kept_names,
    no_rest_follows,
    operands_have_one_type,
    read_source,
    requested_ops,
    rests_see_the_op,
    with_kept,
)
from kernel_rewrite.source.files import Project
from kernel_rewrite.source.signatures import parse_overrides
from kernel_rewrite.ttir.lower import compiler
from kernel_rewrite.vouched import unused_ignores


def fuse(
    source: Any,
    epilogues: Ops = (),
    *,
    epilogue_kernels: Kernels = (),
    prologues: Ops = (),
    operands: Mapping[str, str | Operand] | Iterable[str] = (),
    keep_original: Mapping[str, str] | Iterable[str] = (),
    drop: Iterable[str] = (),
    kernel: str | None = None,
    numerics: str = EAGER,
    constexprs: Iterable[str] = (),
    dtypes: Iterable[str] = (),
    assume: Iterable[str] = (),
    partial: bool = False,
    launcher: str = "rewrite",
    path: str | None = None,
    project: Project | None = None,
) -> Fused:
    """The file of `source` with each epilogue inlined into every store of its output, and each prologue into every load of
    its input, proved.

    `source` is a path, the text of a file, or a `triton.JITFunction`. `epilogues` is an expression ("relu",
    "gelu(x + bias)", when the kernel has one eligible output), "OUT=EXPRESSION" texts, or {output: expression}; `prologues`
    likewise, of inputs. In the place of an expression, a function of x and operands may stand: a callable made of torch's
    functions of single elements, which is called with stand-ins for tensors, or "FILE.py:NAME", which is read and not
    run; its parameters are operands by their annotations (`Row`, `Column`, `Tile`, `Scalar`).
    `epilogue_kernels` are kernels of the user's that run behind this one, "FILE.py:KERNEL" or "FILE.py:KERNEL(x_ptr)" with
    the parameter that takes the output: each is read, and what it computes of a single element is inlined.
    `operands` declares what it reads beside x: "NAME=KIND[:TYPE]" texts or {name: "KIND[:TYPE]"}, with a KIND of scalar (a
    number; with a TYPE a tensor of one element), row (one value a column), column (one value a row) or tile (one value an
    element, in the output's layout); "row:strided", "column:strided" and "tile:strided" come with strides of their own;
    and stored (what the kernel stores to the output NAME at the same place).
    `keep_original` ("OUT=NAME" texts or {output: name}) names the new parameter of the kernel that takes what is stored to
    an output without its epilogue, at the same places.
    `drop` names outputs that the fused kernel does without: their stores, their parameters, the arguments of launches and the
    buffers that nothing else takes go. Where an epilogue names one, it is what the kernel stored there ("stored").
    `partial`: of an epilogue that is no function of single elements ("softmax(relu(x), dim=-1)"), the longest part that is
    one is fused, and the launchers of the file compute the rest in torch where they return the output.
    `launcher`: "rewrite" makes the functions of the file that launch the kernel take the
    operands and pass them on; "leave" leaves them alone. `numerics`: "eager" rounds to the output's type between kernel
    and op, as the unfused pair does; "fused" keeps the precision of the stored value. `constexprs` ("NAME=VALUE") and
    `dtypes` ("PARAM=fp16") fix what is otherwise inferred; `project` takes note of the files that are read. Raises
    FusionRefused with every reason, or InternalError.
    """
    compiler().start()  # its imports overlap with the reading
    project = Project() if project is None else project
    epilogues, dropped = listed(epilogues), (drop,) if isinstance(drop, str) else tuple(drop)
    declared = declared_operands(operands)
    implied = implied_operands(dropped, declared, epilogues)
    stored, loaded, declared = in_words(epilogues, prologues, declared | implied, project, epilogue_kernels)
    requested, before = requested_ops(stored, loaded, declared, project, partial)
    options = Options(
        numerics,
        tuple(constexprs),
        tuple(dtypes),
        checked_assumptions(assume),
        tuple(declared.values()),
        launcher != "leave",
        kept_names(keep_original),
        dropped,
        frozenset(implied),
        partial,
    )
    project, file, name = read_source(source, path, kernel, project)
    definition = choose_kernel(file, project, name)
    analysis = analyse(
        definition, project, compiler(), lambda function: parse_overrides(function, options.constexprs, options.dtypes)
    )
    return fuse_outputs(analysis, requested, options, before)


def fuse_outputs(
    analysis: Analysis, requested: Requested, options: Options = Options(), prologues: Requested = ()
) -> Fused:
    """What `fuse` does once the kernel is analysed: check, plan, rewrite and confirm each (output, op) of `requested` and
    each (input, op) of `prologues`; then do without the outputs to drop, and confirm that."""
    comments_are_right(analysis)
    if requested:
        no_rest_follows(analysis)
    chosen = choose_outputs(analysis, requested, options.assumed, options.operands, options.launcher, options.partial)
    outputs = with_kept(analysis, chosen, options.kept)
    inputs = choose_inputs(analysis, prologues, options.assumed, options.operands)
    operands_have_one_type(analysis, (*outputs, *inputs))
    beside_are_stored(analysis, outputs, inputs)
    dropped = choose_dropped(analysis, options.dropped, outputs, options.assumed)
    names, like = [request.output for request in dropped], same_elements(outputs)
    # every reason not to, at the user's own lines
    without = without_outputs(analysis, names, like, launcher=options.launcher) if names else None
    stores = [(plan_output(analysis, request), request.pointwise) for request in outputs]
    kept = {request.output: request.kept for request in outputs if request.kept}
    loads = [(plan_input(analysis, request), request.pointwise) for request in inputs]
    fills = {request.output: new_fills(analysis, request) for request in outputs}
    rests = {request.output: request.rest for request in outputs if request.rest is not None}
    rewrite = fusion_edits(
        stores, analysis, options.numerics, loads=loads, launcher=options.launcher, fills=fills, kept=kept, rests=rests
    )
    rests_see_the_op(analysis, outputs)
    text = apply_edits(analysis.kernel.file, rewrite.edits)
    lowered = confirm(text, rewrite, analysis, outputs, options.numerics, inputs) if outputs or inputs else None
    if without is not None:
        fused = analysed_again(text, analysis, lowered) if lowered is not None else analysis
        without = done_without(fused, without, names, like, options.launcher)
        text = without.text
    warnings = (*unused_ignores(analysis, (*outputs, *inputs, *dropped)), *repeated_work(analysis, inputs))
    return fused_file(analysis, outputs, inputs, options, rewrite, text, warnings, dropped, without)


def done_without(
    fused: Analysis, planned: Without, names: Sequence[str], like: Mapping[str, str], launcher: bool
) -> Without:
    """The outputs `names` dropped from a kernel that was confirmed, and the result confirmed too; `planned` was asked of the
    user's own text, whose callers it speaks to."""
    without = replace(without_outputs(fused, names, like, launcher=launcher), contract=planned.contract)
    confirm_without(without.text, without, fused, names)
    return without


def same_elements(outputs: Iterable[OutputRequest]) -> dict[str, str]:
    """For each output whose values take part in the epilogue of another one, that one: their elements have one type."""
    return {o.name: request.output for request in outputs for o in request.pointwise.operands if o.is_stored}


def plan_output(analysis: Analysis, request: OutputRequest) -> StorePlan:
    """The calls to rewrite for one output. Raises FusionRefused (KR212, KR213)."""
    planned = plan_stores(request.output, analysis.accesses, analysis.calls, references(analysis))
    if not isinstance(planned, StorePlan):
        raise FusionRefused(planned)
    return planned


def plan_input(analysis: Analysis, request: InputRequest) -> LoadPlan:
    """The calls to rewrite for one input. Raises FusionRefused (KR224, KR228, KR402)."""
    planned = plan_loads(request.input, request.pointwise, analysis, references(analysis), request.holds)
    if not isinstance(planned, LoadPlan):
        raise FusionRefused(planned)
    return planned
