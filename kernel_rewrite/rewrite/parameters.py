"""New parameters of a kernel: where they stand in its signature, and whether what is around the kernel bears them."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from kernel_rewrite.diagnostics import Diagnostic, Label
from kernel_rewrite.model import Closure, Edit, Span
from kernel_rewrite.rewrite.additions import AddedParameters, Addition, Replaced
from kernel_rewrite.rewrite.brackets import definition_bracket, inserted
from kernel_rewrite.source.closure import KernelDefinition
from kernel_rewrite.source.files import Project, SourceFile
from kernel_rewrite.source.launches import Launch
from kernel_rewrite.source.symbolic import Evaluator, HostFunction, ProjectNames, Unknown
from kernel_rewrite.source.syntax import last_name

_INDEXED = ("do_not_specialize", "do_not_specialize_on_alignment")
"""Options of `@triton.jit` that name parameters, or number them."""

_OPTIONS = frozenset(
    {
        *(
            "grid",
            "warmup",
            "stream",
            "device",
            "device_type",
            "debug",
            "num_warps",
            "num_stages",
            "num_ctas",
            "maxnreg",
        ),
        *(
            "cluster_dims",
            "enable_fp_fusion",
            "launch_cooperative_grid",
            "extern_libs",
            "waves_per_eu",
            "sanitize_overflow",
        ),
    }
)
"""Names that a launch takes for itself, so that no parameter can have them."""


@dataclass(frozen=True, slots=True)
class NewParameter:
    """An operand as the kernel and its launchers know it.

    `name` is the kernel's parameter ("bias_ptr"), free in the kernel; `operand` what a launcher calls it ("bias").
    `strides` are further parameters for its strides, each with the dimension it is of: ("stride_bias_m", 0). `number`
    says that the operand is a Python number; else it is a tensor. `launchers_alone`: the kernel does not have it.
    """

    name: str
    operand: str
    strides: tuple[tuple[str, int], ...] = ()
    number: bool = False
    launchers_alone: bool = False


def passed(parameters: Iterable[NewParameter]) -> tuple[tuple[str, str], ...]:
    """What a launch passes for `parameters`, in the order of the kernel's signature: (parameter, expression)."""
    parameters = tuple(p for p in parameters if not p.launchers_alone)
    strides = ((name, f"{p.operand}.stride({dimension})") for p in parameters for name, dimension in p.strides)
    return (*((p.name, p.operand) for p in parameters), *strides)


@dataclass(frozen=True, slots=True, eq=False)
class LaunchedKernel:
    """A kernel with all that its file says about how it is launched. `constexprs` are its compile-time parameters,
    `decorators` the expressions around it, `names` the meanings of the file's module-level names."""

    file: SourceFile
    node: ast.FunctionDef
    launches: tuple[Launch, ...]
    constexprs: frozenset[str]
    decorators: tuple[ast.expr, ...]
    names: Mapping[str, object]

    @classmethod
    def of(
        cls, kernel: KernelDefinition, closure: Closure, launches: tuple[Launch, ...], project: Project
    ) -> LaunchedKernel:
        constexprs = closure.constexpr_parameters(closure.kernel)
        names = ProjectNames(kernel.file, project)
        return cls(kernel.file, kernel.node, launches, constexprs, kernel.decorators, names)

    @property
    def parameters(self) -> list[str]:
        """The parameters that can be passed by position, in order."""
        return [a.arg for a in (*self.node.args.posonlyargs, *self.node.args.args)]


@dataclass(frozen=True, slots=True)
class ParameterPlan:
    """The edits that give the kernel its new parameters, what they add, and every reason not to make them."""

    edits: tuple[Edit, ...] = ()
    additions: tuple[Addition, ...] = ()
    diagnostics: tuple[Diagnostic, ...] = ()


def parameter_edits(kernel: LaunchedKernel, parameters: Sequence[NewParameter]) -> ParameterPlan:
    """The plan that adds `parameters` to the signature: pointers and numbers first, then strides.

    They go after the last run-time parameter without a default, if no launch of the file passes by position what would
    then stand behind them; else to the end, with `=None` where those before have defaults. Diagnostics: KR310 (the
    signature cannot grow), KR311 (a name is taken), KR316 (a function that prunes configurations cannot take them).
    """
    diagnostics = (*_fixed_signature(kernel), *_taken(kernel, parameters), *_pruning(kernel, parameters))
    if diagnostics or not parameters:
        return ParameterPlan(diagnostics=diagnostics)
    node, names = kernel.node, [name for name, _ in passed(parameters)]
    index = _index(kernel)
    at_end = index == len(kernel.parameters)
    texts = tuple(f"{name}=None" if at_end and node.args.defaults else name for name in names)
    bracket = definition_bracket(kernel.file, node)
    item = len(bracket.items)
    if not at_end:
        behind = [*node.args.posonlyargs, *node.args.args][index]
        item = bracket.index(kernel.file.offset(behind.lineno, behind.col_offset))
    edits = inserted(kernel.file, bracket, item, texts, "an operand of the epilogue")
    additions: list[Addition] = [AddedParameters(node.args, index, texts)]
    for constant in _indices_behind(kernel, index):
        assert isinstance(constant.value, int)
        text = str(constant.value + len(texts))
        edits = (*edits, Edit(Span.of(kernel.file.path, constant), text, "the parameter's new position"))
        additions.append(Replaced(constant, text))
    return ParameterPlan(edits, tuple(additions))


def _index(kernel: LaunchedKernel) -> int:
    """The position of the first new parameter among the positional ones."""
    arguments, count = kernel.node.args, len(kernel.parameters)
    required = kernel.parameters[: count - len(arguments.defaults)]
    index = max((i + 1 for i, name in enumerate(required) if name not in kernel.constexprs), default=0)
    if index < len(arguments.posonlyargs):
        return count
    if any(launch.positional is None or launch.positional > index for launch in kernel.launches):
        return count
    return count if counts_unread(kernel) else index


# ------------------------------------------------------------------------------------------------- reasons not to


def _fixed_signature(kernel: LaunchedKernel) -> Iterator[Diagnostic]:
    arguments, name = kernel.node.args, kernel.node.name
    way_out = f"write the parameters of `{name}` one by one, without `*` and `**`"
    for argument, what in ((arguments.vararg, "a `*` parameter"), (arguments.kwarg, "a `**` parameter")):
        if argument is not None:
            label = Label(Span.of(kernel.file.path, argument), "what it takes cannot be told apart from an operand")
            yield Diagnostic("KR310", f"`{name}` has {what}, so its signature cannot grow", (label,), help=way_out)
    if arguments.kwonlyargs:
        label = Label(Span.of(kernel.file.path, arguments.kwonlyargs[0]), "Triton passes parameters by position")
        yield Diagnostic("KR310", f"`{name}` has keyword-only parameters", (label,), help=way_out)
    for node in ast.walk(kernel.file.tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name:
            label = Label(Span.of(kernel.file.path, node), "this call would lack the operands")
            message = f"`{name}` is also called as a function"
            yield Diagnostic("KR310", message, (label,), help="give the caller a kernel of its own to call")


def _taken(kernel: LaunchedKernel, parameters: Iterable[NewParameter]) -> Iterator[Diagnostic]:
    """New names that a launch, a configuration or a heuristic already uses for something else."""
    used: dict[str, ast.expr | ast.keyword] = {}
    for node in ast.walk(kernel.file.tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            used.setdefault(node.value, node)
    for keyword in _keywords_around(kernel):
        used.setdefault(keyword.arg or "", keyword)
    for name, _ in passed(parameters):
        labels: tuple[Label, ...] = ()
        if name in used:
            labels = (Label(Span.of(kernel.file.path, used[name]), "here"),)
        elif name not in _OPTIONS and name not in kernel.parameters:
            continue
        message = f"`{name}` cannot be the name of a new parameter of `{kernel.node.name}`: it has a meaning already"
        yield Diagnostic("KR311", message, labels, help="give the operand another name in the epilogue")


def _keywords_around(kernel: LaunchedKernel) -> Iterator[ast.keyword]:
    """The keyword arguments of its launches and its decorators, and of every `triton.Config` of the file."""
    calls: list[ast.AST | None] = [launch.call for launch in kernel.launches]
    calls += [node for decorator in kernel.decorators for node in ast.walk(decorator)]
    calls += [n for n in ast.walk(kernel.file.tree) if isinstance(n, ast.Call) and last_name(n.func) == "Config"]
    yield from (keyword for call in calls if isinstance(call, ast.Call) for keyword in call.keywords)


def _pruning(kernel: LaunchedKernel, parameters: Sequence[NewParameter]) -> Iterator[Diagnostic]:
    """Functions that prune configurations: Triton calls them with the keyword arguments of the launch."""
    for decorator in kernel.decorators if parameters else ():
        for keyword in decorator.keywords if isinstance(decorator, ast.Call) else ():
            if keyword.arg != "prune_configs_by":
                continue
            for function in _pruners(keyword.value, kernel.names):
                if _takes_any_keyword(function, kernel.names):
                    continue
                label = Label(Span.of(kernel.file.path, function), "it must accept arguments that it does not name")
                message = f"`{ast.unparse(function)}` is called with every keyword argument of a launch"
                help_text = "let it take `**kwargs`"
                yield Diagnostic("KR316", message, (label,), help=help_text)


def _pruners(node: ast.expr, names: Mapping[str, object]) -> Iterator[ast.expr]:
    """The functions of `prune_configs_by={...}`; the expression itself when they cannot be read."""
    while isinstance(node, ast.Name) and isinstance(names.get(node.id), ast.expr):
        node = names[node.id]  # type: ignore[assignment]
    match node:
        case ast.Dict(keys=keys, values=values) if all(isinstance(key, ast.Constant) for key in keys):
            for key, value in zip(keys, values, strict=True):
                if isinstance(key, ast.Constant) and key.value != "top_k":
                    yield value
        case ast.Call(func=ast.Name(id="dict"), args=[], keywords=keywords) if all(k.arg for k in keywords):
            yield from (k.value for k in keywords if k.arg != "top_k")
        case ast.Constant(value=None):
            return
        case _:
            yield node


def _takes_any_keyword(function: ast.expr, names: Mapping[str, object]) -> bool:
    meaning: object = function
    while isinstance(meaning, ast.Name):
        meaning = names.get(meaning.id)
    if isinstance(meaning, HostFunction):
        meaning = meaning.node
    if isinstance(meaning, ast.Constant) and meaning.value is None:
        return True
    return isinstance(meaning, (ast.FunctionDef, ast.Lambda)) and meaning.args.kwarg is not None


# ------------------------------------------------------------------------------------- parameters named by position


def numbered_parameters(kernel: LaunchedKernel) -> Iterator[ast.expr]:
    """What `do_not_specialize=` and the like are given."""
    for decorator in kernel.decorators:
        for call in (node for node in ast.walk(decorator) if isinstance(node, ast.Call)):
            yield from (keyword.value for keyword in call.keywords if keyword.arg in _INDEXED)


def counts_unread(kernel: LaunchedKernel) -> bool:
    """Whether some of them may be numbers that cannot be changed where they stand."""
    for node in numbered_parameters(kernel):
        if isinstance(node, (ast.List, ast.Tuple)) and all(isinstance(e, ast.Constant) for e in node.elts):
            continue
        try:
            value = Evaluator(kernel.names).value(node)
        except Unknown:
            return True
        if value is not None and not (isinstance(value, (list, tuple)) and all(isinstance(v, str) for v in value)):
            return True
    return False


def _indices_behind(kernel: LaunchedKernel, index: int) -> Iterator[ast.Constant]:
    for node in numbered_parameters(kernel):
        for element in node.elts if isinstance(node, (ast.List, ast.Tuple)) else ():
            if isinstance(element, ast.Constant) and isinstance(element.value, int) and element.value >= index:
                yield element
