"""The functions that launch a kernel take the operands of its epilogue as keyword-only parameters, and pass them on.

A launch that cannot be given them would break, so it is a diagnostic; a caller that cannot pass them on fails at once
with a TypeError, so it is a warning and a line of the contract.
"""

from __future__ import annotations

import ast
from bisect import bisect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from kernel_rewrite.diagnostics import Diagnostic, Label, Severity
from kernel_rewrite.model import Edit, Span
from kernel_rewrite.pointwise.remainder import Remainder
from kernel_rewrite.rewrite.additions import AddedKeywords, AddedParameters, Addition
from kernel_rewrite.rewrite.allocations import ChangedBuffer, allocation_edits
from kernel_rewrite.rewrite.brackets import call_bracket, definition_bracket, inserted
from kernel_rewrite.rewrite.parameters import LaunchedKernel, NewParameter, passed
from kernel_rewrite.rewrite.returned import return_edits
from kernel_rewrite.source.callers import Callers, HostDefinition, bound_in
from kernel_rewrite.source.launches import Launch
from kernel_rewrite.source.symbolic import HostFunction
from kernel_rewrite.source.syntax import last_name

WAY_OUT = "rewrite the kernel alone with `--no-launcher`, and pass the operands where you launch it"

SIGNATURE_KEEPERS = frozenset(
    {
        *("staticmethod", "classmethod", "abstractmethod", "override", "final", "typing.override", "typing.final"),
        *("abc.abstractmethod", "torch.no_grad", "torch.inference_mode", "torch.enable_grad", "torch.compile"),
        *("torch.compiler.disable", "torch._dynamo.disable", "torch.jit.ignore", "torch.jit.unused"),
        *("torch.compiler.allow_in_graph", "torch._dynamo.allow_in_graph"),
    }
)
"""Decorators under which a function takes whatever parameters it defines. Those of the file are read."""

OPERATORS = frozenset(("triton_op", "custom_op"))
"""Decorators that make an operator of PyTorch, its schema read from the annotations."""

_FAKES = frozenset(("register_fake", "impl_abstract"))
"""Decorators of the function that tells shapes and types alone, with the operator's own parameters."""

_CONVERTERS = frozenset(("wrap_triton", "capture_triton", "jit"))
"""Functions of one kernel that give the kernel."""

_BENCHES = frozenset(("perf_report", "parametrize", "fixture"))


@dataclass(frozen=True, slots=True)
class LauncherPlan:
    """The edits of the functions that launch the kernel, what they add, what callers must now write (sentences for the
    user), and what is left alone: errors where a launch would break, warnings where a call would."""

    edits: tuple[Edit, ...] = ()
    contract: tuple[str, ...] = ()
    diagnostics: tuple[Diagnostic, ...] = ()
    additions: tuple[Addition, ...] = ()


def launcher_edits(
    kernel: LaunchedKernel,
    parameters: Sequence[NewParameter],
    buffers: Sequence[ChangedBuffer] = (),
    rests: Mapping[str, Remainder] = MappingProxyType({}),
) -> LauncherPlan:
    """The plan by which each launch of the file passes `parameters`, each output of `buffers` is allocated anew, and each
    output of `rests` is returned with the rest of its epilogue.

    Diagnostics: KR311 (a launcher uses the operand's name), KR312 (a launch outside any function), KR313 (in an autograd
    function), KR314 (in a function whose signature is fixed), KR315 (what is launched is uncertain), KR317 (an allocation
    cannot be changed), KR322 (an output is not returned so that the rest can be computed there), and as a warning KR318 (a
    caller that does not pass the operands on).
    """
    planner = _Planner(kernel, tuple(parameters))
    if parameters:
        planner.plan()
    for buffer in buffers:
        if buffer.dtype:
            planner.change(f"the element type that `{buffer.output}` has now")
    for output in rests:
        planner.change(f"what `{output}` is returned as now")
        planner.refuse_backwards_of_callers()
    changed, returned = allocation_edits(kernel, buffers), return_edits(kernel, rests)
    return LauncherPlan(
        (*planner.edits, *changed.edits, *returned.edits),
        (*planner.contract, *changed.contract, *returned.contract),
        tuple(dict.fromkeys((*planner.diagnostics, *changed.diagnostics, *returned.diagnostics))),
        (*planner.additions, *changed.additions, *returned.additions),
    )


def kernel_contract(
    kernel: LaunchedKernel, parameters: Sequence[NewParameter], buffers: Sequence[ChangedBuffer] = ()
) -> tuple[str, ...]:
    """What each launch of the kernel must pass when its launchers are left alone, one sentence a launch."""
    arguments = ", ".join(f"{name}={value}" for name, value in passed(parameters))
    lines = [launch.span.line for launch in kernel.launches]
    places = [f"line {line}: " for line in lines] or [""]
    types = " and ".join(f"`{buffer.output}` of {buffer.dtype}" for buffer in buffers if buffer.dtype)
    launched = f"`{kernel.node.name}[grid](..., {arguments})`" if parameters else f"`{kernel.node.name}` is launched"
    return tuple(f"{place}{launched}{f' with {types}' if types else ''}" for place in places)


@dataclass(slots=True)
class _Planner:
    """Collects the plan; `takers` are the functions that get the operands as parameters."""

    kernel: LaunchedKernel
    parameters: tuple[NewParameter, ...]
    edits: list[Edit] = field(default_factory=list)
    contract: list[str] = field(default_factory=list)
    diagnostics: list[Diagnostic] = field(default_factory=list)
    additions: list[Addition] = field(default_factory=list)
    takers: dict[HostDefinition, Launch | None] = field(default_factory=dict)
    callers: Callers = field(init=False)

    def __post_init__(self) -> None:
        self.callers = Callers(self.kernel.file.tree)

    def plan(self) -> None:
        self.diagnostics += uncertain_uses(self.kernel, self.callers)
        refused: set[HostDefinition] = set()
        for launch in self.kernel.launches:
            self._launch(launch, refused)
        for taker in list(self.takers):
            self._callers_of(taker)

    def change(self, what: str) -> None:
        """Note what stands against a change of `what` a fake implementation tells, whatever launchers pass."""
        self.diagnostics += uncertain_uses(self.kernel, self.callers)
        name, path = self.kernel.node.name, self.kernel.file.path
        for launch in self.kernel.launches:
            if not launch.certain:
                self._refuse("KR315", f"this launch may be of another kernel than `{name}`", Label(launch.span))
            if launch.function is None:
                continue
            taker = _taker(launch.function, self.callers)
            self.diagnostics += self._backward(taker, launch.span)
            for fake in _fakes_of(taker, self.callers):
                label = Label(Span.of(path, fake.args.args[0]) if fake.args.args else launch.span, "in this function")
                message = f"the fake implementation of `{taker.name}` tells {what}"
                self.diagnostics.append(self._fixed(message, label))

    def refuse_backwards_of_callers(self) -> None:
        """Note the autograd functions that call a launcher."""
        takers = {
            _taker(launch.function, self.callers) for launch in self.kernel.launches if launch.function is not None
        }
        for taker in takers:
            for call in self.callers.calls(taker):
                caller = self.callers.function(call)
                if caller is not None:
                    self.diagnostics += self._backward(caller, Span.of(self.kernel.file.path, call))

    # one launch ------------------------------------------------------------------------------------------------------

    def _launch(self, launch: Launch, refused: set[HostDefinition]) -> None:
        name, label = self.kernel.node.name, Label(launch.span)
        if not launch.certain:
            message = f"this launch may be of another kernel than `{name}`"
            self._refuse("KR315", message, label)
            return
        if launch.function is None or launch.call is None:
            message = f"`{name}` is launched outside any function, where there are no operands to pass"
            self._refuse("KR312", message, label)
            return
        taker = _taker(launch.function, self.callers)
        if taker in refused:
            return
        if taker not in self.takers:
            reasons = list(self._why_not(taker, launch.span))
            if reasons:
                refused.add(taker)
                self.diagnostics += reasons
                return
            self._take(taker, launch)
        self._pass(launch.call, passed(self.parameters), self._run_time)
        self._fakes(taker)

    @property
    def _run_time(self) -> frozenset[str]:
        return frozenset(self.kernel.parameters) - self.kernel.constexprs

    def _refuse(self, code: str, message: str, label: Label) -> None:
        self.diagnostics.append(Diagnostic(code, message, (label,), help=WAY_OUT))

    def _take(self, function: HostDefinition, launch: Launch | None = None) -> None:
        """Give `function` the operands as keyword-only parameters."""
        self.takers[function] = launch
        texts = {p.operand: _parameter_text(p, function, self.kernel) for p in self.parameters}
        arguments = function.args
        own = [a.arg for a in arguments.kwonlyargs]
        if len(own) > 2 and own == sorted(own):
            places = {operand: bisect(own, operand) for operand in sorted(texts)}
            for index in dict.fromkeys(places.values()):
                self._add(function, index, [texts[operand] for operand in places if places[operand] == index], own)
        else:
            self._add(function, len(own), list(texts.values()), own)
        names = ", ".join(f"`{operand}`" for operand in texts)
        self.contract.append(f"`{qualified(function, self.callers)}` takes {names} by keyword")

    def _add(self, function: HostDefinition, index: int, texts: list[str], own: Sequence[str]) -> None:
        arguments, file = function.args, self.kernel.file
        bracket = definition_bracket(file, function)
        behind = arguments.kwonlyargs[index] if index < len(own) else arguments.kwarg
        item = bracket.index(file.offset(behind.lineno, behind.col_offset)) if behind else len(bracket.items)
        star = [] if arguments.vararg or own else ["*"]
        self.edits += inserted(file, bracket, item, [*star, *texts], "an operand of the epilogue")
        added = sum(len(a.parameters) for a in self.additions if isinstance(a, AddedParameters) and a.node is arguments)
        self.additions.append(AddedParameters(arguments, index + added, tuple(texts), keyword_only=True))

    def _pass(self, call: ast.Call, keywords: Sequence[tuple[str, str]], before: frozenset[str]) -> None:
        """Pass `keywords` in `call`, behind what is passed by position and behind the keywords in `before`."""
        file = self.kernel.file
        bracket = call_bracket(file, call)
        ahead: list[ast.expr | ast.keyword] = [*call.args, *(k for k in call.keywords if k.arg in before)]
        items = [bracket.index(file.offset(node.lineno, node.col_offset)) for node in ahead]
        index = max(items, default=-1) + 1
        texts = [f"{name}={value}" for name, value in keywords]
        self.edits += inserted(file, bracket, index, texts, "pass the operands of the epilogue on")
        places = [bracket.index(file.offset(k.lineno, k.col_offset)) for k in call.keywords]
        self.additions.append(AddedKeywords(call, sum(place < index for place in places), tuple(keywords)))

    # reasons to leave a function alone -------------------------------------------------------------------------------

    def _why_not(self, function: HostDefinition, place: Span) -> Iterator[Diagnostic]:
        name, path = f"`{qualified(function, self.callers)}`", self.kernel.file.path
        owner = self.callers.owner(function)
        backward = list(self._backward(function, place))
        if owner is not None and is_autograd(owner, self.kernel.file.tree):
            yield from backward
            return
        if owner is not None and function.name.startswith("__") and function.name not in ("__call__", "__init__"):
            yield self._fixed(f"{name} is called by Python itself, without operands", Label(place))
        for decorator in function.decorator_list:
            why = _fixes(decorator, function, self.kernel, self.callers)
            if why:
                yield self._fixed(f"{name} cannot take operands: {why}", Label(Span.of(path, decorator)))
        yield from backward
        taken = bound_in(function) | {n.id for n in ast.walk(function) if isinstance(n, ast.Name)}
        for parameter in self.parameters:
            if parameter.operand in taken:
                label = Label(_first_use(function, parameter.operand, path) or place, "here")
                message = f"{name} uses the name `{parameter.operand}` already"
                yield Diagnostic("KR311", message, (label,), help="give the operand another name in the epilogue")

    def _backward(self, function: HostDefinition, place: Span) -> Iterator[Diagnostic]:
        """KR313 where `function` has a backward, which knows nothing of the epilogue."""
        name, owner = f"`{qualified(function, self.callers)}`", self.callers.owner(function)
        if owner is not None and is_autograd(owner, self.kernel.file.tree):
            label = Label(place, f"`{owner.name}.apply` passes its arguments on by position")
            message = f"{name} is part of an autograd function, whose backward knows nothing of the epilogue"
            yield Diagnostic("KR313", message, (label,), help=WAY_OUT)
            return
        for mention in self.callers.mentions(function):
            registered = _registered_backward(mention, self.callers)
            if registered is not None:
                label = Label(Span.of(self.kernel.file.path, registered), "the backward knows nothing of the epilogue")
                yield Diagnostic("KR313", f"{name} has a backward of its own", (label,), help=WAY_OUT)

    @staticmethod
    def _fixed(message: str, label: Label) -> Diagnostic:
        return Diagnostic("KR314", message, (label,), help=WAY_OUT)

    # those who call a launcher ---------------------------------------------------------------------------------------

    def _callers_of(self, taker: HostDefinition) -> None:
        """Pass the operands on where a function of the file does nothing but call `taker` and return its result."""
        for caller, calls in _grouped(self.callers.calls(taker), self.callers).items():
            if caller is not None and caller is taker:  # it calls itself
                self._pass_on(calls)
                continue
            plain = caller is not None and all(_is_returned(call, self.callers) for call in calls)
            if caller is None or not plain or _is_test(caller):
                self._left_alone(taker, caller, calls)
                continue
            if caller not in self.takers:
                reasons = list(self._why_not(caller, Span.of(self.kernel.file.path, calls[0])))
                if reasons:
                    self._left_alone(taker, caller, calls, reasons[0])
                    continue
                self._take(caller)
                self._pass_on(calls)
                self._fakes(caller)
                self._callers_of(caller)
            else:
                self._pass_on(calls)

    def _pass_on(self, calls: Iterable[ast.Call]) -> None:
        keywords = [(p.operand, p.operand) for p in self.parameters]
        for call in calls:
            self._pass(call, keywords, frozenset(k.arg for k in call.keywords if k.arg is not None))

    def _left_alone(
        self, taker: HostDefinition, caller: HostDefinition | None, calls: list[ast.Call], why: Diagnostic | None = None
    ) -> None:
        name = qualified(taker, self.callers)
        missing = ", ".join(f"`{p.operand}=`" for p in self.parameters)
        where = f" in `{qualified(caller, self.callers)}`" if caller is not None else ""
        notes = (why.message,) if why else ()
        for call in calls:
            self.contract.append(f"line {call.lineno}: the call of `{name}`{where} must pass {missing}")
            label = Label(Span.of(self.kernel.file.path, call), f"it must pass {missing}")
            message = f"the call of `{name}`{where} is left alone"
            help_text = "pass the operands there, or do not use this call with the fused file"
            self.diagnostics.append(Diagnostic("KR318", message, (label,), notes, help_text, Severity.WARNING))

    def _fakes(self, function: HostDefinition) -> None:
        """Give the fake implementation of an operator the parameters that the operator gets."""
        for fake in _fakes_of(function, self.callers):
            if fake not in self.takers and not bound_in(fake) & {p.operand for p in self.parameters}:
                self.takers[fake] = None
                texts = [_parameter_text(p, function, self.kernel) for p in self.parameters]
                self._add(fake, len(fake.args.kwonlyargs), texts, [a.arg for a in fake.args.kwonlyargs])


# --------------------------------------------------------------------------------------------- the function that takes


def _taker(function: HostDefinition, callers: Callers) -> HostDefinition:
    """The function that gets the operands for a launch in `function`: itself, or the one around it when it is only ever
    called there, or called without arguments; then it sees them as it sees the other names around it."""
    around = callers.function(function)
    if around is None:
        return function
    arguments = function.args
    bare = not (arguments.args or arguments.posonlyargs or arguments.kwonlyargs or arguments.vararg or arguments.kwarg)
    called = all(
        isinstance(parent := callers.parents[mention], ast.Call) and parent.func is mention
        for mention in callers.mentions(function)
    )
    return _taker(around, callers) if bare or called else function


def _parameter_text(parameter: NewParameter, function: HostDefinition, kernel: LaunchedKernel) -> str:
    """`bias`, or `bias: torch.Tensor` where the parameters of `function` are annotated."""
    arguments = function.args
    own = [a for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs) if a.arg not in ("self", "cls")]
    if not own or any(a.annotation is None for a in own):
        return parameter.operand
    kind = "float" if parameter.number else _tensor_type(function, kernel.file.tree)
    return f"{parameter.operand}: {kind}" if kind else parameter.operand


def _tensor_type(function: HostDefinition, tree: ast.Module) -> str:
    """How the file spells the type of a tensor; "" when it has no name for it."""
    for argument in ast.walk(function.args):
        if isinstance(argument, ast.arg) and isinstance(argument.annotation, (ast.Name, ast.Attribute)):
            if last_name(argument.annotation) == "Tensor":
                return ast.unparse(argument.annotation)
    for node in tree.body:
        if isinstance(node, ast.Import) and any(a.name == "torch" and a.asname is None for a in node.names):
            return "torch.Tensor"
        if isinstance(node, ast.ImportFrom) and node.module == "torch":
            if any(a.name == "Tensor" and a.asname is None for a in node.names):
                return "Tensor"
    return ""


def qualified(function: HostDefinition, callers: Callers) -> str:
    owner = callers.owner(function)
    return f"{owner.name}.{function.name}" if owner else function.name


# ------------------------------------------------------------------------------------------- what fixes a signature


def is_autograd(owner: ast.ClassDef, tree: ast.Module, depth: int = 4) -> bool:
    """Whether a class is a `torch.autograd.Function`, by itself or through classes of the file."""
    classes = {node.name: node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
    for base in owner.bases:
        if last_name(base) == "Function":
            return True
        if isinstance(base, ast.Name) and base.id in classes and depth:
            if is_autograd(classes[base.id], tree, depth - 1):
                return True
    return False


def _fixes(decorator: ast.expr, function: HostDefinition, kernel: LaunchedKernel, callers: Callers) -> str:
    """Why a function under `decorator` cannot take further parameters; "" when it can."""
    called = decorator.func if isinstance(decorator, ast.Call) else decorator
    text = ast.unparse(called)
    if last_name(called) in OPERATORS:
        return _fixed_schema(decorator, function, kernel)
    if text in SIGNATURE_KEEPERS or text in {keeper.rpartition(".")[2] for keeper in SIGNATURE_KEEPERS}:
        return ""
    if last_name(called) in _FAKES:
        return "it tells the shapes of an operator"
    meaning = kernel.names.get(text) if isinstance(called, ast.Name) else None
    node = meaning.node if isinstance(meaning, HostFunction) else meaning
    if isinstance(node, ast.FunctionDef) and _passes_keywords(node):
        return ""
    return f"what `@{text}` does with them is not known"


def _fixed_schema(decorator: ast.expr, function: HostDefinition, kernel: LaunchedKernel) -> str:
    given = {k.arg for k in decorator.keywords} if isinstance(decorator, ast.Call) else set()
    if "schema" in given:
        return "its schema is written out"
    arguments = function.args
    if any(a.annotation is None for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)):
        return "its schema is read from annotations, and some of its parameters have none"
    return "" if _tensor_type(function, kernel.file.tree) else "its schema needs a name for the type of a tensor"


def _passes_keywords(decorator: ast.FunctionDef) -> bool:
    """Whether a decorator's wrapper takes any keyword argument and gives it to what it wraps."""
    wrapped = {a.arg for a in ast.walk(decorator.args) if isinstance(a, ast.arg)}
    inner = [n for n in ast.walk(decorator) if isinstance(n, ast.FunctionDef) and n is not decorator]
    wrapped |= {a.arg for f in inner for a in f.args.args}
    for wrapper in inner:
        if wrapper.args.kwarg is None:
            continue
        calls = [n for n in ast.walk(wrapper) if isinstance(n, ast.Call)]
        own = [c for c in calls if isinstance(c.func, ast.Name) and c.func.id in wrapped]
        passed_on = _made_of(wrapper.args.kwarg.arg, wrapper)
        if own and all(any(k.arg is None and ast.unparse(k.value) in passed_on for k in c.keywords) for c in own):
            return True
    return False


def _made_of(name: str, function: ast.FunctionDef) -> set[str]:
    """`name`, and the names that `function` fills with its entries: `for k, v in kwargs.items(): new[k] = prepared(v)`."""
    found = {name}
    for node in ast.walk(function):
        match node:
            case ast.Assign(targets=[ast.Name(id=new)], value=value) if f"{name}.items()" in ast.unparse(value):
                found.add(new)
            case ast.For(iter=entries, body=[ast.Assign(targets=[ast.Subscript(value=ast.Name(id=new))])]):
                if ast.unparse(entries) == f"{name}.items()":
                    found.add(new)
    return found


def _registered_backward(mention: ast.expr, callers: Callers) -> ast.expr | None:
    """`op.register_autograd`, where `mention` is `op`."""
    parent = callers.parents.get(mention)
    if isinstance(parent, ast.Attribute) and parent.attr == "register_autograd":
        return parent
    return None


def _fakes_of(function: HostDefinition, callers: Callers) -> Iterator[HostDefinition]:
    """The fake implementations of the operator `function`: `@op.register_fake`, `@torch.library.register_fake("lib::op")`."""
    registered = {
        ast.unparse(d.args[0])
        for d in function.decorator_list
        if isinstance(d, ast.Call) and last_name(d.func) in OPERATORS and d.args
    }
    if not registered:
        return
    for node in ast.walk(callers.tree):
        for decorator in node.decorator_list if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) else ():
            called = decorator.func if isinstance(decorator, ast.Call) else decorator
            if last_name(called) not in _FAKES or not isinstance(called, ast.Attribute):
                continue
            given = ast.unparse(decorator.args[0]) if isinstance(decorator, ast.Call) and decorator.args else ""
            if ast.unparse(called.value) == function.name or given in registered:
                assert isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
                yield node


def _first_use(function: HostDefinition, name: str, path: str) -> Span | None:
    nodes = ast.walk(function)
    found = (
        Span.of(path, n)
        for n in nodes
        if (isinstance(n, ast.Name) and n.id == name) or (isinstance(n, ast.arg) and n.arg == name)
    )
    return min(found, default=None)


# --------------------------------------------------------------------------------------------- callers of a launcher


def _grouped(calls: Iterable[ast.Call], callers: Callers) -> dict[HostDefinition | None, list[ast.Call]]:
    """The calls by the function they stand in; None for what stands in no function."""
    found: dict[HostDefinition | None, list[ast.Call]] = {}
    for call in calls:
        found.setdefault(callers.function(call), []).append(call)
    return found


def _is_returned(call: ast.Call, callers: Callers) -> bool:
    """Whether a call is all that its function returns: `return f(x)`."""
    return isinstance(callers.parents.get(call), ast.Return)


def _is_test(function: HostDefinition) -> bool:
    """Whether others than people call a function: pytest, which takes parameters for fixtures, or a benchmark."""
    names = {last_name(n) for d in function.decorator_list for n in ast.walk(d) if isinstance(n, ast.expr)}
    return function.name.startswith(("test", "bench")) or bool(names & _BENCHES)


# --------------------------------------------------------------------------------------- what may be launched unseen


def uncertain_uses(
    kernel: LaunchedKernel,
    callers: Callers,
    why: str = "a launch through this would lack the operands",
    way_out: str = WAY_OUT,
) -> Iterator[Diagnostic]:
    """Uses of the kernel through which it may be launched as it was before (KR315)."""
    name, path = kernel.node.name, kernel.file.path
    launched = {
        id(node) for launch in kernel.launches if launch.call is not None for node in ast.walk(launch.call.func)
    }
    decorating = {id(node) for decorator in kernel.decorators for node in ast.walk(decorator)}
    nested = callers.function(kernel.node) is not None or callers.owner(kernel.node) is not None
    for node in () if nested else ast.walk(kernel.file.tree):
        if not (isinstance(node, ast.Name) and node.id == name and isinstance(node.ctx, ast.Load)):
            continue
        if id(node) in launched | decorating or _is_named_again(node, callers):
            continue
        parent = callers.parents[node]
        if isinstance(parent, ast.Call) and parent.func is node:
            continue  # called by another kernel, which is a matter of its signature
        if isinstance(parent, ast.Attribute) and parent.attr not in ("run", "warmup"):
            continue
        label = Label(Span.of(path, node), why)
        message = f"`{name}` is used here in a way that is not a launch"
        yield Diagnostic("KR315", message, (label,), help=way_out)
    for launch in kernel.launches:
        kept = _kept_result(launch, callers)
        if kept is not None:
            label = Label(Span.of(path, kept), "the compiled kernel takes its arguments by position")
            yield Diagnostic("KR315", f"the compiled `{name}` is launched by itself", (label,), help=way_out)


def _is_named_again(node: ast.Name, callers: Callers) -> bool:
    """Whether a name of the kernel only gives it another one: `k2 = k`, `k = triton.autotune(...)(k)`."""
    current: ast.AST = node
    parent = callers.parents.get(current)
    while isinstance(parent, (ast.Call, ast.IfExp)):
        if isinstance(parent, ast.Call):
            converts = isinstance(parent.func, ast.Call) or last_name(parent.func) in _CONVERTERS
            if not converts or parent.args[:1] != [current]:
                return False
        current, parent = parent, callers.parents.get(parent)
    named = isinstance(parent, ast.Assign) and all(isinstance(target, ast.Name) for target in parent.targets)
    return named or (isinstance(parent, (ast.Subscript, ast.Attribute)) and current is not node)


def _kept_result(launch: Launch, callers: Callers) -> ast.expr | None:
    """Where the result of a launch is launched again: `k = kernel.warmup(...)`, then `k[grid](x)`."""
    parent = callers.parents.get(launch.call) if launch.call is not None else None
    if not isinstance(parent, ast.Assign):
        return None
    names = {t.id for t in parent.targets if isinstance(t, ast.Name)}
    for statement in launch.body:
        for node in ast.walk(statement):
            match node:
                case ast.Call(func=ast.Subscript(value=ast.Name(id=name)) as func) if name in names:
                    return func
    return None
