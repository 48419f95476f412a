"""`other.py:gelu_kernel(x_ptr)`: a pointwise kernel of the user's as an epilogue, read and not run."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import replace

from kernel_rewrite.arguments import path_and_kernel
from kernel_rewrite.diagnostics import Diagnostic, FusionRefused
from kernel_rewrite.model import Evidence, Operand, OperandKind, Span
from kernel_rewrite.pointwise.calls import Argument, Inlined, Literal, TritonCall
from kernel_rewrite.pointwise.declarations import check_name
from kernel_rewrite.pointwise.graph import Input, X
from kernel_rewrite.source.closure import KernelDefinition, kernels
from kernel_rewrite.source.files import Project
from kernel_rewrite.source.pointwise_kernels import PointwiseKernel, read_pointwise_kernel, refusal

_FORM = "write FILE.py:KERNEL, or FILE.py:KERNEL(PARAMETER) with the parameter that the first kernel stores to"
_VALUE = "give it behind the parameter: `{kernel}({x}, {name}=VALUE)`"


def read_epilogue_kernel(text: str, operands: Mapping[str, Operand], project: Project) -> TritonCall:
    """The call of what the kernel that `text` names computes, over those of `operands` that its parameters are; what is not
    declared has the output's type, or is a number.

    Raises FusionRefused: KR123, KR121 for an operand that is declared otherwise, KR113 or KR101 for a file that cannot be
    read.
    """
    path, name, x, given = _parts(text)
    kernel = _kernel(path, name, project)
    known = {argument.arg for argument in _parameters(kernel)}
    for parameter in (*([x] if x else []), *given):
        if parameter not in known:
            help = f"its parameters are {', '.join(known_name for known_name in map(_quoted, _names(kernel)))}"
            raise refusal(kernel, f"has no parameter `{parameter}`", kernel.definition_line, help)
    read = read_pointwise_kernel(kernel, project, x)
    found = [_operand(parameter, given, operands, read) for parameter in (*read.operands, *read.numbers)]
    constants = [(constant, _constant(constant, given, read)) for constant in read.constants]
    for parameter in given:
        if parameter not in (*read.operands, *read.numbers, *read.constants):
            message = f"does not need `{parameter}` for what it stores"
            raise refusal(kernel, message, kernel.definition_line, "leave it out")
    if len({operand.name for operand in found}) < len(found):
        raise refusal(kernel, "has two operands of one name", kernel.definition_line, "rename one: `res_ptr=residual`")
    arguments = (
        Argument(Input()),
        *(Argument(Input(operand.name)) for operand in found),
        *(Argument(value, constant) for constant, value in constants),
    )
    inlined = Inlined(kernel.file.path, kernel.name, read.x, read.definition, read.names)
    return TritonCall(_function_name(read), arguments, tuple(found), inlined)


def canonical_text(text: str, call: TritonCall) -> str:
    """`text` with the parameter that the first kernel stores to."""
    path, name, x, _ = _parts(text)
    assert call.inlined is not None
    if x:
        return text
    tree = _call(text)
    rest = [ast.unparse(keyword) for keyword in tree.keywords]
    arguments = ", ".join([call.inlined.x, *rest]).replace("'", '"')
    return f"{path}:{name}({arguments})"


def reading_of(inlined: Inlined, project: Project) -> PointwiseKernel:
    """What was read of the kernel, with its places."""
    return read_pointwise_kernel(_kernel(inlined.path, inlined.kernel, project), project, inlined.x)


def _kernel(path: str, name: str, project: Project) -> KernelDefinition:
    file = project.read(path)
    found = [kernel for kernel in kernels(file, project) if name == kernel.name or name in kernel.aliases]
    if len(found) != 1:
        names = ", ".join(_quoted(kernel.name) for kernel in kernels(file, project)) or "none"
        message = f"defines `{name}` {len(found)} times" if found else f"has no kernel `{name}`"
        help = f"kernels of this file: {names}"
        raise FusionRefused((Diagnostic("KR123", f"{file.path} {message}", help=help),))
    return found[0]


def _parts(text: str) -> tuple[str, str, str, dict[str, ast.expr]]:
    """`other.py:bias_kernel(x_ptr, b_ptr=bias, FAST=True)` as its path, kernel, parameter and the rest by parameter."""
    place = path_and_kernel(text)
    if place is None:
        raise FusionRefused((Diagnostic("KR123", f"`{text}` names no kernel of a file", help=_FORM),))
    tree = _call(text)
    names = [node.id for node in tree.args if isinstance(node, ast.Name)]
    if len(names) != len(tree.args) or len(names) > 1 or any(keyword.arg is None for keyword in tree.keywords):
        raise FusionRefused((Diagnostic("KR123", f"`{text}` cannot be read", help=_FORM),))
    given = {keyword.arg: keyword.value for keyword in tree.keywords if keyword.arg is not None}
    return place[0], place[1].partition("(")[0], next(iter(names), ""), given


def _call(text: str) -> ast.Call:
    place = path_and_kernel(text)
    assert place is not None
    call = place[1] if "(" in place[1] else f"{place[1]}()"
    try:
        tree = ast.parse(call, mode="eval").body
    except (SyntaxError, ValueError):
        tree = None
    if not isinstance(tree, ast.Call):
        raise FusionRefused((Diagnostic("KR123", f"`{text}` cannot be read", help=_FORM),))
    return tree


def _operand(
    parameter: str, given: Mapping[str, ast.expr], operands: Mapping[str, Operand], read: PointwiseKernel
) -> Operand:
    """The operand that a parameter of the kernel becomes: under the name that is given for it, else its own."""
    wanted = given.get(parameter)
    name = wanted.id if isinstance(wanted, ast.Name) else parameter
    if wanted is not None and not isinstance(wanted, ast.Name):
        help = f"give an operand a name, `{parameter}=slope`; only a compile-time parameter takes a value"
        message = f"takes `{parameter}` at run time, and `{ast.unparse(wanted)}` is no name for an operand"
        raise refusal(read.kernel, message, read.kernel.definition_line, help)
    if wanted is None:
        short = parameter.removesuffix("_ptr")
        name = short if parameter in read.operands and _can_be_called(short) else parameter
    check_name(name, read.kernel.definition_line)
    if parameter in read.numbers:
        expected = Operand(name, OperandKind.SCALAR)
    elif parameter in read.single:
        expected = Operand(name, OperandKind.SCALAR, "float32")
    else:
        expected = Operand(name, OperandKind.TILE)
    declared = operands.get(name, expected)
    if expected.kind is OperandKind.TILE and declared.kind in (OperandKind.ROW, OperandKind.COLUMN):
        expected = replace(expected, kind=declared.kind)  # which has to be shown
    if (declared.kind, declared.is_number, declared.strided) != (expected.kind, expected.is_number, False):
        what = {OperandKind.TILE: "a tile"}.get(
            expected.kind, "a number" if expected.is_number else "a tensor of one value"
        )
        span = read.loads.get(parameter, read.kernel.definition_line)
        raise refusal(read.kernel, f"reads `{name}` as {what}, and it is declared otherwise", span, "declare it so")
    return declared


def _can_be_called(name: str) -> bool:
    try:
        check_name(name)
    except FusionRefused:
        return False
    return True


def _constant(name: str, given: Mapping[str, ast.expr], read: PointwiseKernel) -> Literal:
    """The value of a compile-time parameter: what is given for it, else its default."""
    fact = read.facts[name]
    launched = fact.evidence in (Evidence.AUTOTUNE, Evidence.LAUNCH)  # which may be with any value
    tree = given.get(name, None if launched else _defaults(read.kernel).get(name))
    span = next(Span.of(read.kernel.file.path, a) for a in _parameters(read.kernel) if a.arg == name)
    help = _VALUE.format(kernel=read.kernel.name, x=read.x, name=name)
    if tree is None:
        raise refusal(read.kernel, f"needs a value of `{name}` for what it stores", span, help)
    try:
        value = ast.literal_eval(tree)
    except ValueError:
        value = ...
    if value is not None and not isinstance(value, bool | int | float | str):
        message = f"needs a value of `{name}`, and `{ast.unparse(tree)}` is none"
        raise refusal(read.kernel, message, span, help)
    return Literal(value)


def _function_name(read: PointwiseKernel) -> str:
    """`gelu` for `gelu_kernel`, if the function itself calls nothing by that name."""
    name = read.kernel.name.strip("_").removesuffix("_kernel").removeprefix("kernel_")
    return name if name.isidentifier() and name != X and name not in read.names else f"{read.kernel.name}_value"


def _parameters(kernel: KernelDefinition) -> list[ast.arg]:
    arguments = kernel.node.args
    return [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]


def _names(kernel: KernelDefinition) -> list[str]:
    return [argument.arg for argument in _parameters(kernel)]


def _defaults(kernel: KernelDefinition) -> dict[str, ast.expr]:
    arguments = kernel.node.args
    positional = [*arguments.posonlyargs, *arguments.args]
    found = {a.arg: d for a, d in zip(reversed(positional), reversed(arguments.defaults), strict=False)}
    pairs = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    return found | {argument.arg: default for argument, default in pairs if default is not None}


def _quoted(name: str) -> str:
    return f"`{name}`"
