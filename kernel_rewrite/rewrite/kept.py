"""What the kernel stored before, kept in a buffer of its own: the parameter for it, and what its launches must be.

tl.store(pre_ptrs, c, mask=c_mask)      # new: as the kernel stored it
tl.store(c_ptrs, gelu(c), mask=c_mask)
"""

from __future__ import annotations

import ast
from collections.abc import Container, Iterator, Mapping
from itertools import combinations

from kernel_rewrite.diagnostics import Diagnostic, FusionRefused, Label
from kernel_rewrite.model import Assumption, Span
from kernel_rewrite.request import passed_as
from kernel_rewrite.rewrite.parameters import LaunchedKernel, NewParameter
from kernel_rewrite.source.callers import Callers
from kernel_rewrite.source.closure import KernelDefinition
from kernel_rewrite.source.syntax import nodes_in

_REPEATS = (ast.For, ast.AsyncFor, ast.While, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def kept_parameters(
    kernel: KernelDefinition, kept: Mapping[str, str], operands: Container[str]
) -> dict[str, NewParameter]:
    """The new parameter for each output whose original value is kept; what launchers call it is its name without `_ptr`.

    Raises FusionRefused (KR311) where the kernel knows the name already, or an operand has it.
    """
    used: dict[str, ast.Name | ast.arg] = {}
    for node in nodes_in(kernel.node):
        if isinstance(node, (ast.Name, ast.arg)):
            used.setdefault(node.id if isinstance(node, ast.Name) else node.arg, node)
    found: dict[str, NewParameter] = {}
    for output, name in kept.items():
        tensor = passed_as(name)
        labels = (Label(Span.of(kernel.file.path, used[name]), "here"),) if name in used else ()
        if labels or tensor in operands or name in operands or tensor in {p.operand for p in found.values()}:
            message = f"`{name}` cannot be the name of a new parameter of `{kernel.name}`: it has a meaning already"
            help_text = f"keep `{output}` under another name, for example `--keep-original {output}={name}_kept`"
            raise FusionRefused((Diagnostic("KR311", message, labels, help=help_text),))
        found[output] = NewParameter(name, tensor)
    return found


def kept_contract(kept: Mapping[str, NewParameter], retyped: Container[str]) -> tuple[str, ...]:
    """What the tensors must be that launches pass for `kept`, in sentences; the outputs `retyped` get another element
    type."""
    return tuple(
        f"`{parameter.operand}` is a tensor like the one for `{output}`"
        + (
            ", with the element type that it has without the epilogue"
            if output in retyped
            else ": `torch.empty_like` of that makes it"
        )
        for output, parameter in kept.items()
    )


def kept_assumptions(kept: Mapping[str, NewParameter], retyped: Container[str]) -> Iterator[Assumption]:
    """What is taken from the caller about the tensors that launches pass for `kept`."""
    for output, parameter in kept.items():
        of = f"that `{output}` has without the epilogue" if output in retyped else f"of `{output}`"
        same = f"`{parameter.name}` has the element type {of} and lies in memory as it does"
        yield Assumption("kept-layout", f"{same}, with its shape and strides")
    if kept:
        names = "`, `".join(parameter.name for parameter in kept.values())
        yield Assumption("kept-apart", f"nothing else that the kernel reads or writes overlaps `{names}`")


def overwritten(kernel: LaunchedKernel, kept: Mapping[str, NewParameter]) -> Iterator[Diagnostic]:
    """KR319 for each launch that may write over what another one, or the same one before, has kept."""
    callers = Callers(kernel.file.tree)
    names = "`, `".join(parameter.operand for parameter in kept.values())
    help_text = (
        "keep the value of one launch at a time: rewrite the kernel alone with `--no-launcher`, and pass a buffer "
        "of its own where you launch it"
    )
    calls = [launch.call for launch in kernel.launches if launch.call is not None and not _only_compiles(launch.call)]
    for call in calls:
        if any(isinstance(node, _REPEATS) for node in _around(call, callers)):
            label = Label(Span.of(kernel.file.path, call), "this launch is repeated")
            message = f"each run of this launch would write over what the one before has left in `{names}`"
            yield Diagnostic("KR319", message, (label,), help=help_text)
    for one, other in combinations(calls, 2):
        if callers.function(one) is callers.function(other) and not _exclude(one, other, callers):
            labels = (
                Label(Span.of(kernel.file.path, other), "this launch may follow"),
                Label(Span.of(kernel.file.path, one), "this one"),
            )
            message = f"two launches would write to the same `{names}`"
            yield Diagnostic("KR319", message, labels, help=help_text)


def _only_compiles(call: ast.Call) -> bool:
    """`kernel.warmup(...)`"""
    return isinstance(call.func, ast.Attribute) and call.func.attr == "warmup"


def _around(node: ast.AST, callers: Callers) -> Iterator[ast.AST]:
    """What a node stands in, inside out, up to its function."""
    outer = callers.parents.get(node)
    while outer is not None and not isinstance(outer, (ast.FunctionDef, ast.AsyncFunctionDef)):
        yield outer
        outer = callers.parents.get(outer)


def _exclude(one: ast.AST, other: ast.AST, callers: Callers) -> bool:
    """Whether a function that runs `one`, which stands first, can be told never to run `other` after it."""
    around = [other, *_around(other, callers)]
    inner = one
    for outer in _around(one, callers):
        branches = [branch for branch in (getattr(outer, "body", []), getattr(outer, "orelse", [])) if branch]
        if isinstance(outer, ast.If):
            branch = next((b for b in branches if inner in b), [])
            elsewhere = outer in around and not any(statement in around for statement in branch)
            leaves = bool(branch) and isinstance(branch[-1], (ast.Return, ast.Raise)) and outer not in around
            if branch and (elsewhere or leaves):
                return True
        inner = outer
    return False
