"""What was asked for: which file, which kernel, which outputs, and whether each may be fused."""

from __future__ import annotations

import difflib
import keyword
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from kernel_rewrite.analysis import Analysis
from kernel_rewrite.arguments import name_and_text, names_a_kernel
from kernel_rewrite.checks import ASSUMPTIONS, FULLY_WRITTEN, IN_PLACE, assumptions
from kernel_rewrite.diagnostics import Diagnostic, FusionRefused, Label
from kernel_rewrite.epilogue_kernels import read_epilogue_kernel
from kernel_rewrite.model import MemoryEffect, Operand, Span
from kernel_rewrite.pointwise.declarations import used_in
from kernel_rewrite.pointwise.element_types import torch_name
from kernel_rewrite.pointwise.language import Pointwise, called_name, parse_call, parse_epilogue
from kernel_rewrite.pointwise.remainder import Split, fusable_part, split_epilogue
from kernel_rewrite.request import InputRequest, OutputRequest, Request, element_type_of
from kernel_rewrite.retyped import changes, short_name
from kernel_rewrite.source.closure import KernelDefinition, kernels
from kernel_rewrite.source.comments import NOT_FUSED, controls, is_skipped, wrong_controls
from kernel_rewrite.source.files import Project, SourceFile, source_from_text
from kernel_rewrite.source.names import JitDefinition, locals_of, module_scope
from kernel_rewrite.source.signatures import DTYPE_NAMES
from kernel_rewrite.vouched import AnyRequest, forbidden_ignores, judged

Texts = str | Mapping[str, str] | Iterable[str]
"""Ops as a user gives them: one text, {buffer: text}, or texts that may start with `BUFFER=`."""

Requested = tuple[tuple[str | None, str], ...]
"""(buffer or None, text of the op) of each request."""


def requested_ops(
    epilogues: Texts,
    prologues: Texts,
    operands: Mapping[str, Operand] | None = None,
    project: Project | None = None,
    partial: bool = False,
) -> tuple[Requested, Requested]:
    """The epilogues and the prologues that are asked for; `project` reads the kernels among them. With `partial`, a part of
    an epilogue may be left to torch. Raises FusionRefused (KR107, KR108, KR118, KR119, KR123)."""
    pairs = _pairs(epilogues), _pairs(prologues)
    operands = operands or {}
    used: set[str] = set()
    for number, (_, text) in enumerate((*pairs[0], *pairs[1])):
        if project is not None and names_a_kernel(text):
            used |= {operand.name for operand in read_epilogue_kernel(text, operands, project).operands}
            continue
        named = used_in(text, operands)
        used |= named.keys()
        if called_name(text) is None:  # else it depends on the file
            if number < len(pairs[0]):
                _read(text, named, partial)
            else:
                parse_epilogue(text, named)
    unused = [name for name in operands if name not in used]
    if unused:
        help_text = f"leave out `--operand {unused[0]}=...`, or use it"
        message = f"operand `{unused[0]}` is declared and no epilogue uses it"
        raise FusionRefused((Diagnostic("KR119", message, help=help_text),))
    return pairs


def _read(text: str, operands: Mapping[str, Operand], partial: bool) -> Split:
    """The epilogue `text`, with a rest only if `partial`; the refusal of one that has a rest says so."""
    if partial:
        return split_epilogue(text, operands)
    try:
        return Split(parse_epilogue(text, operands))
    except FusionRefused as refusal:
        part = fusable_part(text, operands) if refusal.diagnostics[0].code == "KR118" else ""
        if not part:
            raise
        (found,) = refusal.diagnostics
        help_text = f"fuse `{part}` alone, and let the launcher do the rest in torch, with `--partial`; or {found.help}"
        raise FusionRefused((replace(found, help=help_text),)) from None


def _pairs(texts: Texts) -> Requested:
    if isinstance(texts, Mapping):
        return tuple(texts.items())
    return tuple(map(name_and_text, [texts] if isinstance(texts, str) else texts))


def epilogue_of(
    text: str,
    operands: Mapping[str, Operand],
    file: SourceFile,
    project: Project,
    kernel: KernelDefinition | None = None,
    partial: bool = False,
) -> Split:
    """The epilogue `text` for the kernels of `file`, over those of `operands` that it names: an expression, the call of a
    Triton function that the file knows by that name, or what a kernel that it names computes. If `partial`, perhaps only a
    part of it, and the rest. Raises FusionRefused (KR107, KR108, KR118, KR119, KR123; KR120 where `kernel` knows something
    else by that name)."""
    if names_a_kernel(text):
        return Split(read_epilogue_kernel(text, operands, project))
    named = used_in(text, operands)
    name = called_name(text)
    function = module_scope(file, project).lookup(name) if name is not None else None
    if not isinstance(function, JitDefinition) or name is None:
        return _read(text, named, partial)
    inside = kernel.scope.lookup(name) if kernel is not None and name not in locals_of(kernel.node) else None
    if kernel is not None and (not isinstance(inside, JitDefinition) or inside.node is not function.node):
        message = f"`{name}` is something else inside of `{kernel.name}`, where it would be called"
        labels = (
            Label(kernel.definition_line),
            Label(Span.of(function.file.path, function.node), f"this `{name}` is meant"),
        )
        raise FusionRefused((Diagnostic("KR120", message, labels, help="give the function another name"),))
    return Split(parse_call(text, named))


def checked_assumptions(names: Iterable[str]) -> frozenset[str]:
    unknown = [name for name in names if name not in ASSUMPTIONS]
    if unknown:
        close = difflib.get_close_matches(unknown[0], ASSUMPTIONS, 1)
        hint = f"did you mean `{close[0]}`? " if close else ""
        raise FusionRefused(
            (Diagnostic("KR115", f"unknown assumption `{unknown[0]}`", help=f"{hint}known: {', '.join(ASSUMPTIONS)}"),)
        )
    return frozenset(names)


def read_source(
    source: Any, path: str | None, kernel: str | None, project: Project | None = None
) -> tuple[Project, SourceFile, str | None]:
    """The file behind a path, a text or a JITFunction, in `project` or one of its own."""
    project = Project() if project is None else project
    if hasattr(source, "fn"):  # a JITFunction, or an Autotuner or Heuristics around one
        function = source
        while not callable(getattr(function, "__code__", None)) and hasattr(function, "fn"):
            function = function.fn
        return project, project.read(function.__code__.co_filename), kernel or function.__name__
    if isinstance(source, Path) or (isinstance(source, str) and "\n" not in source and _is_path(source)):
        return project, project.read(source), kernel
    if isinstance(source, str):
        return project, project.add(source_from_text(source, path or "<string>")), kernel
    raise TypeError(f"source must be a path, a text or a JITFunction, not {type(source).__name__}")


def _is_path(text: str) -> bool:
    return text.endswith(".py") or os.path.exists(text)


def choose_kernel(file: SourceFile, project: Project, name: str | None) -> KernelDefinition:
    """The kernel called `name`, or the file's only one. Raises FusionRefused (KR102, KR103)."""
    defined = kernels(file, project)
    if name is not None:
        found = [k for k in defined if name == k.name or name in k.aliases]
        if not found:
            close = difflib.get_close_matches(name, [k.name for k in defined], 1)
            names = ", ".join(f"`{k.name}`" for k in defined) or "none"
            raise FusionRefused(
                (
                    Diagnostic(
                        "KR102",
                        f"{file.path} has no kernel `{name}`",
                        notes=(f"kernels of this file: {names}",),
                        help=f"did you mean `{close[0]}`?" if close else "",
                    ),
                )
            )
        return _not_skipped(_defined_once(found), project)
    entries = [k for k in defined if k.entry] or list(defined)
    entries = [k for k in entries if not is_skipped(k.node, file, project)] or entries
    if not entries:
        help_text = "kernels are functions decorated with `@triton.jit`, in any spelling"
        raise FusionRefused((Diagnostic("KR102", f"{file.path} defines no Triton kernel", help=help_text),))
    if len({k.name for k in entries}) > 1:
        labels = tuple(Label(k.definition_line, f"`--kernel {k.name}`") for k in entries[:6])
        raise FusionRefused(
            (Diagnostic("KR103", f"{file.path} defines {len(entries)} kernels", labels, help=_NAME_ONE),)
        )
    return _not_skipped(_defined_once([k for k in defined if k.name == entries[0].name]), project)


def _not_skipped(kernel: KernelDefinition, project: Project) -> KernelDefinition:
    if is_skipped(kernel.node, kernel.file, project):
        message = f"`{kernel.name}` is marked to be skipped"
        help_text = "remove the comment `# kernel-rewrite: skip`, or work on another kernel"
        raise FusionRefused((Diagnostic("KR606", message, (Label(kernel.definition_line),), help=help_text),))
    return kernel


def _defined_once(found: list[KernelDefinition]) -> KernelDefinition:
    if len(found) > 1:
        labels = tuple(Label(k.definition_line, "defined here") for k in found)
        message = f"`{found[0].name}` is defined {len(found)} times, and which one is launched is decided at import"
        raise FusionRefused((Diagnostic("KR114", message, labels, help="give each definition a name of its own"),))
    return found[0]


_NAME_ONE = "name the one to rewrite with `--kernel NAME`"


def choose_outputs(
    analysis: Analysis,
    requested: Requested,
    assumed: frozenset[str],
    operands: Iterable[Operand] = (),
    launcher: bool = False,
    partial: bool = False,
) -> tuple[OutputRequest, ...]:
    """One checked request for each (output or None, epilogue). Raises FusionRefused with every reason."""
    declared = {operand.name: operand for operand in operands}
    requests = [
        choose_output(analysis, output, text, assumed, declared, launcher, partial) for output, text in requested
    ]
    _each_once(requests, "epilogues")
    return tuple(requests)


def kept_names(keep_original: Texts) -> tuple[tuple[str, str], ...]:
    """Each (output, new parameter that takes its original value). Raises FusionRefused (KR122)."""
    found: dict[str, str] = {}
    for output, name in _pairs(keep_original):
        if output is None or not name.isidentifier() or keyword.iskeyword(name):
            text = name if output is None else f"{output}={name}"
            raise _kept_wrongly(f"`{text}` does not name an output and a new parameter")
        if output in found or name in found.values():
            again = f"`{output}`" if output in found else f"`{name}`"
            raise _kept_wrongly(f"{again} is named twice among what is to be kept")
        found[output] = name
    return tuple(found.items())


def with_kept(
    analysis: Analysis, requests: Sequence[OutputRequest], kept: Iterable[tuple[str, str]]
) -> tuple[OutputRequest, ...]:
    """The requests of `choose_outputs` with the parameters that take the original values. Raises FusionRefused (KR122)."""
    names = dict(kept)
    for output in names.keys() - {request.output for request in requests}:
        message = f"`{output}` is to be kept, and no epilogue changes what is stored there"
        raise _kept_wrongly(message, analysis.kernel.definition_line)
    return tuple(replace(request, kept=names.get(request.output, "")) for request in requests)


def beside_are_stored(analysis: Analysis, requests: Sequence[OutputRequest], inputs: Sequence[InputRequest]) -> None:
    """Raise FusionRefused (KR307) where an op takes what is stored to another output, and that is not what is left there, or
    has another element type."""
    for request in requests:
        for operand in (o for o in request.pointwise.operands if o.is_stored):
            why = _why_not_beside(analysis, request, operand, requests)
            if why:
                raise _not_beside(request, operand, why, analysis.kernel.definition_line)
    for each in inputs:
        for operand in (o for o in each.pointwise.operands if o.is_stored):
            raise _not_beside(each, operand, "a prologue is computed before anything is stored", None)


def _why_not_beside(
    analysis: Analysis, request: OutputRequest, operand: Operand, requests: Sequence[OutputRequest]
) -> str:
    if operand.name not in analysis.kernel_parameters or operand.name == request.output:
        return f"`{operand.name}` is no other output of the kernel"
    if any(other.output == operand.name for other in requests):
        return "it is changed by an epilogue of its own"
    _, problems = judged(analysis, OutputRequest.without_op(operand.name))
    if problems:
        return f"[{problems[0].code}] {problems[0].message}"
    if changes(analysis, request):
        return f"the epilogue gives `{request.output}` another element type"
    for view in analysis.views:
        own, element = (element_type_of(view.specialization, name) for name in (operand.name, request.output))
        if element and own != element:
            return f"it holds {own or 'nothing'} where `{request.output}` holds {element}"
    return ""


def _not_beside(request: Request, operand: Operand, why: str, place: Span | None) -> FusionRefused:
    message = f"what is stored to `{operand.name}` cannot take part in the op for `{request.buffer}`: {why}"
    help_text = "take the value of an output that the kernel only writes, just before, at the same place"
    labels = (Label(place),) if place is not None else ()
    return FusionRefused((Diagnostic("KR307", message, labels, help=help_text),))


def choose_dropped(
    analysis: Analysis, names: Iterable[str], requests: Sequence[OutputRequest], assumed: frozenset[str]
) -> tuple[OutputRequest, ...]:
    """A checked request, without an op, for each output to drop. Raises FusionRefused with every reason; KR320 for an output
    that an epilogue is for, or without which the kernel would store nothing."""
    chosen = []
    for name in dict.fromkeys(names):
        request = replace(OutputRequest.without_op(name), assumed=assumed - {IN_PLACE})
        chosen.append(_eligible(analysis, [request], True, "output", "--drop"))
        if any(other.output == name for other in requests):
            raise _not_dropped(analysis, name, "it is given an epilogue of its own")
    written = set(analysis.parameters_with(MemoryEffect.WRITE, MemoryEffect.ACCUMULATE))
    if chosen and written <= {request.output for request in chosen}:
        raise _not_dropped(analysis, chosen[-1].output, "the kernel would store nothing")
    return tuple(chosen)


def _not_dropped(analysis: Analysis, name: str, why: str) -> FusionRefused:
    label = Label(analysis.kernel.definition_line, why)
    message = f"`{name}` cannot be dropped from `{analysis.kernel.name}`"
    return FusionRefused((Diagnostic("KR320", message, (label,), help="drop an output that nobody needs any more"),))


def _kept_wrongly(message: str, place: Span | None = None) -> FusionRefused:
    labels = (Label(place),) if place is not None else ()
    help_text = "name an output that has an epilogue, and the parameter to add: `--keep-original c_ptr=pre_ptr`"
    return FusionRefused((Diagnostic("KR122", message, labels, help=help_text),))


def comments_are_right(analysis: Analysis) -> None:
    """Raise FusionRefused where a comment to this tool is wrong, or ignores what nobody can answer for."""
    file, project = analysis.kernel.file, analysis.project
    wrong = (*wrong_controls(file, project), *forbidden_ignores(analysis))
    if wrong:
        raise FusionRefused(wrong)


def no_rest_follows(analysis: Analysis) -> None:
    """Raise FusionRefused (KR322) where a launcher computes the rest of an earlier epilogue: another one would come between
    them."""
    file = analysis.kernel.file
    functions = [launch.function for launch in analysis.launches if launch.function is not None]
    for control in controls(file, analysis.project):
        around = (f for f in functions if f.lineno <= control.line <= (f.end_lineno or f.lineno))
        if control.directive == NOT_FUSED and any(around):
            message = f"the rest of another epilogue follows what `{analysis.kernel.name}` stores"
            help_text = "fuse both into the file that this one was made from, as one epilogue"
            raise FusionRefused((Diagnostic("KR322", message, (Label(control.span, "here"),), help=help_text),))


def rests_see_the_op(analysis: Analysis, requests: Iterable[OutputRequest]) -> None:
    """Raise FusionRefused (KR322) where the rest of an epilogue would use elements that the kernel may leave as they are."""
    for request in requests:
        if request.rest is not None and any(a.name == FULLY_WRITTEN for a in assumptions(analysis, request)):
            message = f"the rest of the epilogue of `{request.output}` uses elements that may have missed the op"
            help_text = (
                "allocate the output with `torch.empty` where it is written as a whole, or leave `--partial` out"
            )
            label = Label(analysis.kernel.definition_line)
            raise FusionRefused((Diagnostic("KR322", message, (label,), help=help_text),))


def choose_inputs(
    analysis: Analysis, requested: Requested, assumed: frozenset[str], operands: Iterable[Operand] = ()
) -> tuple[InputRequest, ...]:
    """One checked request for each (input or None, prologue). Raises FusionRefused with every reason."""
    declared = {operand.name: operand for operand in operands}
    requests = [choose_input(analysis, input, text, assumed, declared) for input, text in requested]
    _each_once(requests, "prologues")
    return tuple(requests)


def choose_output(
    analysis: Analysis,
    output: str | None,
    text: str,
    assumed: frozenset[str],
    operands: Mapping[str, Operand] | None = None,
    launcher: bool = False,
    partial: bool = False,
) -> OutputRequest:
    """The output meant: the one named, or the only eligible one. Raises FusionRefused with every reason."""
    kernel = analysis.kernel
    split = epilogue_of(text, operands or {}, kernel.file, analysis.project, kernel, partial)
    changed = analysis.parameters_with(MemoryEffect.WRITE, MemoryEffect.ACCUMULATE)
    written = changed or analysis.parameters_with(MemoryEffect.UNKNOWN)
    names = [output] if output is not None else written
    asked = [OutputRequest(name, text, split.fused, assumed, launcher=launcher, rest=split.rest) for name in names]
    if not asked:
        raise FusionRefused((_touches_nothing(analysis, "KR210", "stores to"),))
    return _eligible(analysis, asked, output is not None, "output", "--epilogue")


def choose_input(
    analysis: Analysis,
    input: str | None,
    text: str,
    assumed: frozenset[str],
    operands: Mapping[str, Operand] | None = None,
) -> InputRequest:
    """The input meant: the one named, or the only eligible one. Raises FusionRefused with every reason."""
    _in_words(analysis, text)
    pointwise = parse_epilogue(text, used_in(text, operands or {}))
    read = analysis.parameters_with(MemoryEffect.READ)
    input, _, holds = input.partition(":") if input is not None else (None, "", "")
    if holds:
        holds = _element_type(holds)
        _have_types(pointwise)
    asked = [
        InputRequest(name, text, pointwise, assumed, holds=holds) for name in ([input] if input is not None else read)
    ]
    if not asked:
        raise FusionRefused((_touches_nothing(analysis, "KR220", "loads from"),))
    return _eligible(analysis, asked, input is not None, "input", "--prologue")


def _in_words(analysis: Analysis, text: str) -> None:
    """Raise FusionRefused (KR107) where a prologue calls a Triton function of the file."""
    name = called_name(text)
    function = module_scope(analysis.kernel.file, analysis.project).lookup(name) if name is not None else None
    if isinstance(function, JitDefinition):
        raise FusionRefused(
            (
                Diagnostic(
                    "KR107",
                    f"`{name}` is a Triton function, which an epilogue may call and a prologue may not",
                    (Label(Span.of(function.file.path, function.node), "what type it gives is only known to Triton"),),
                    help="write what it does as an expression, or as a Python function of torch's functions: "
                    f"`ops.py:{name}`",
                ),
            )
        )


def _have_types(pointwise: Pointwise) -> None:
    """Raise FusionRefused (KR121) for an operand without a type of its own: that of the input is changed."""
    for operand in pointwise.operands:
        if not operand.dtype and not operand.is_number:
            message = f"`{operand.name}` would have the type that the input gets"
            help_text = f"say which it has: `--operand {operand.name}={operand.kind.value}:float32`"
            raise FusionRefused((Diagnostic("KR121", message, help=help_text),))


def _element_type(name: str) -> str:
    """torch's name of an element type, however it is called. Raises FusionRefused (KR121)."""
    found = torch_name(name)
    if found is None:
        message = f"`{name}` is no element type that an input can get"
        raise FusionRefused(
            (Diagnostic("KR121", message, help="name one as torch does, for example `b_ptr:int8=...`"),)
        )
    return found


def _eligible(analysis: Analysis, asked: Sequence[AnyRequest], named: bool, what: str, option: str) -> AnyRequest:
    """The one request that nothing speaks against. Raises FusionRefused where there is none, or several."""
    if named and asked[0].parameter not in analysis.kernel_parameters:
        raise FusionRefused((_no_such_parameter(analysis, asked[0].buffer, what),))
    verdicts = [judged(analysis, request) for request in asked]
    eligible = [request for request, problems in verdicts if not problems]
    if len(eligible) == 1:
        return eligible[0]
    if eligible:
        choices = " or ".join(f"`{option} {r.buffer}={r.text}`" for r in eligible)
        message = f"`{analysis.kernel.name}` has {len(eligible)} {what}s that can take {eligible[0].text}"
        raise FusionRefused(
            (Diagnostic("KR106", message, (Label(analysis.kernel.definition_line),), help=f"choose {choices}"),)
        )
    raise FusionRefused(tuple(dict.fromkeys(d for _, problems in verdicts for d in problems)))


def operands_have_one_type(analysis: Analysis, requests: Iterable[Request]) -> None:
    """Raise FusionRefused (KR121) where an operand without a type of its own is read beside buffers of different types."""
    requests = tuple(requests)
    for view in analysis.views:
        types: dict[str, str] = {}
        for request in requests:
            element = element_type_of(view.specialization, request.buffer)
            if element and isinstance(request, InputRequest) and request.holds:
                element = short_name(request.holds)
            for operand in request.pointwise.operands if element else ():
                if operand.dtype or operand.is_number or types.setdefault(operand.name, element) == element:
                    continue
                message = (
                    f"`{operand.name}` is read beside {types[operand.name]} and beside {element}, and has one type"
                )
                help_text = f"say which: `--operand {operand.name}={operand.kind.value}:{DTYPE_NAMES[element]}`"
                raise FusionRefused((Diagnostic("KR121", message, help=help_text),))


def _each_once(requests: Sequence[Request], what: str) -> None:
    seen: dict[str, Request] = {}
    for request in requests:
        first = seen.setdefault(request.buffer, request)
        if first is not request:
            inner = first.text if "(" in first.text else f"{first.text}(x)"
            hint = f"to apply one after the other, compose them: `{request.buffer}={request.pointwise.name}({inner})`"
            message = f"`{request.buffer}` is given two {what}, `{first.text}` and `{request.text}`"
            raise FusionRefused((Diagnostic("KR116", message, help=hint),))


def _no_such_parameter(analysis: Analysis, name: str, what: str) -> Diagnostic:
    close = difflib.get_close_matches(name, analysis.kernel_parameters, 1)
    effect = MemoryEffect.WRITE if what == "output" else MemoryEffect.READ
    known = ", ".join(f"`{parameter}`" for parameter in analysis.parameters_with(effect)) or "none"
    return Diagnostic(
        "KR105",
        f"`{analysis.kernel.name}` has no parameter `{name}`",
        (Label(analysis.kernel.definition_line),),
        (f"{what}s of this kernel: {known}",),
        f"did you mean `{close[0]}`?" if close else "",
    )


def _touches_nothing(analysis: Analysis, code: str, does: str) -> Diagnostic:
    message = f"`{analysis.kernel.name}` {does} none of its parameters"
    return Diagnostic(code, message, (Label(analysis.kernel.definition_line),))
