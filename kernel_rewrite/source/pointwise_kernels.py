"""A pointwise kernel as a function of what it loads: `gelu_kernel(x_ptr, out_ptr, n)` as `(x): ... return y`.

The lines that compute what is stored are kept as their author wrote them; loads become parameters, the store becomes the
`return`. Whether the function is what the kernel stores is not decided here: that is shown on what the compiler makes of
both.
"""

from __future__ import annotations

import ast
import keyword
import textwrap
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from kernel_rewrite.diagnostics import Diagnostic, FusionRefused, Label
from kernel_rewrite.model import Closure, Evidence, MemoryEffect, ParameterFact, Span, TritonObject
from kernel_rewrite.source.accesses import MemoryCall, SourceCalls
from kernel_rewrite.source.autotune import tuning
from kernel_rewrite.source.closure import KernelDefinition, close
from kernel_rewrite.source.files import Project
from kernel_rewrite.source.launches import launches
from kernel_rewrite.source.names import callee, locals_of
from kernel_rewrite.source.pointer_flow import PointerFlow
from kernel_rewrite.source.signatures import NO_OVERRIDES
from kernel_rewrite.source.specializations import specializations
from kernel_rewrite.source.symbolic import ProjectNames
from kernel_rewrite.source.syntax import walk

_LOAD, _STORE = "triton.language.load", "triton.language.store"
_UNSEEN = (Evidence.NAME, Evidence.REPAIR, Evidence.GUESS)
"""Where the type of a number is not seen."""

_PLACES = frozenset(f"triton.language.{name}" for name in ("program_id", "num_programs", "arange"))
_ARITHMETIC = (ast.Assign, ast.AnnAssign, ast.AugAssign, ast.If, ast.For)
"""The statements that a function may take over."""


@dataclass(frozen=True, slots=True, eq=False)
class PointwiseKernel:
    """A kernel as a function of what it loads of the parameter `x`, then of `operands` (other parameters that it loads),
    `numbers` and `constants` (compile-time ones); it stores to `out`.

    Of `single` it loads the first element alone. `definition` is the function's text behind its name. `loads` are the
    places of the loads, by parameter; `facts` are what the kernel's own file says of each parameter.
    """

    kernel: KernelDefinition
    closure: Closure
    x: str
    out: str
    operands: tuple[str, ...]
    single: frozenset[str]
    numbers: tuple[str, ...]
    constants: tuple[str, ...]
    definition: str
    store: Span
    loads: Mapping[str, Span] = field(hash=False)
    facts: Mapping[str, ParameterFact] = field(hash=False)

    @property
    def names(self) -> frozenset[str]:
        """Every name that the function's text mentions."""
        tree = ast.parse(f"def function{self.definition}")
        mentioned = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        return frozenset(mentioned | {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)})


def read_pointwise_kernel(kernel: KernelDefinition, project: Project, x: str = "") -> PointwiseKernel:
    """`kernel` as a function of what it loads of its parameter `x`; "" for the only one that it loads.

    Raises FusionRefused (KR123) at the line that speaks against it.
    """
    return _Reader(kernel, project).read(x)


class _Reader:
    def __init__(self, kernel: KernelDefinition, project: Project) -> None:
        self._kernel, self._file = kernel, kernel.file
        self._closure = close(kernel, project)
        self._function = self._closure.kernel
        self._calls = SourceCalls(self._closure)
        self._flow = PointerFlow(self._closure, self._calls)
        names, text = ProjectNames(self._file, project), (self._file.tree, self._file.path)
        plan = specializations(
            self._closure,
            launches(kernel.node, *text, names),
            tuning(kernel.node, *text, names),
            NO_OVERRIDES,
        )
        self._facts = {fact.name: fact for fact in plan.facts}
        self._scalars = {fact.name for fact in plan.facts if fact.kind == "scalar"}

    def read(self, x: str) -> PointwiseKernel:
        self._touches_memory_here_alone()
        own = self._calls.memory_calls_of(self._function.ref)
        stores = [call for call in own if call.effects == {MemoryEffect.WRITE}]
        loads = [call for call in own if call.effects == {MemoryEffect.READ}]
        store, at = self._only_store(stores)
        out = self._parameter(store)
        by_parameter: dict[str, list[MemoryCall]] = {}
        for load in loads:
            by_parameter.setdefault(self._parameter(load), []).append(load)
        x = self._chosen(x, by_parameter)
        value = store.value(store.forms[0])
        if value is None:
            raise self._refusal("stores a value that cannot be told from the call", store.span, "name the value")
        return self._as_function(x, out, by_parameter, store, value, self._function.node.body[:at])

    # ---------------------------------------------------------------------------------------------- what it touches

    def _touches_memory_here_alone(self) -> None:
        for call in self._calls.memory_calls:
            name = ast.unparse(call.node.func)
            if call.function != self._function.ref:
                message, help = f"touches memory in its helper `{call.function.name}`", "load and store in the kernel"
                raise self._refusal(message, call.span, help)
            if [form.callee for form in call.forms] not in ([_LOAD], [_STORE]):
                help = "a kernel that is inlined loads with `tl.load` and stores with one `tl.store`"
                raise self._refusal(f"touches memory with `{name}`", call.span, help)

    def _only_store(self, stores: list[MemoryCall]) -> tuple[MemoryCall, int]:
        """The store, and the index of its statement."""
        if not stores:
            raise self._refusal("stores nothing", self._kernel.definition_line, "name a kernel that stores its result")
        if len(stores) > 1:
            message = f"stores {len(stores)} times, and one value takes the place of what the first kernel stores"
            raise self._refusal(message, stores[1].span, "fuse a kernel that has one `tl.store`")
        for index, statement in enumerate(self._function.node.body):
            if isinstance(statement, ast.Expr) and statement.value is stores[0].node:
                return stores[0], index
        help = "store once, at the end, what is computed before (`tl.where` chooses between values)"
        raise self._refusal("stores inside of a loop or a branch", stores[0].span, help)

    def _parameter(self, call: MemoryCall) -> str:
        """The one parameter whose pointer a call is handed."""
        pointer = call.pointer(call.forms[0])
        roots = self._flow.roots(pointer, call.node, self._function) if pointer is not None else frozenset()
        roots -= self._scalars
        if len(roots) != 1 or not roots <= set(self._function.parameters):
            raise self._refusal(
                "touches memory at a pointer that may be one of several", call.span, "use one parameter"
            )
        return next(iter(roots))

    def _chosen(self, x: str, loads: Mapping[str, list[MemoryCall]]) -> str:
        if x in loads:
            return x
        line, choices = self._kernel.definition_line, " or ".join(f"`{self._kernel.name}({name})`" for name in loads)
        if x:
            raise self._refusal(f"loads nothing from `{x}`", line, f"write {choices}" if loads else "")
        if len(loads) == 1:
            return next(iter(loads))
        if not loads:
            raise self._refusal("loads nothing", line, "name a kernel that loads what the first one stores")
        label = "which of them the first kernel stores to must be named"
        raise self._refusal(f"loads from {len(loads)} buffers", line, f"write {choices}", label)

    # ------------------------------------------------------------------------------------------------- the function

    def _as_function(
        self,
        x: str,
        out: str,
        loads: Mapping[str, list[MemoryCall]],
        store: MemoryCall,
        value: ast.expr,
        before: list[ast.stmt],
    ) -> PointwiseKernel:
        by_call = {id(load.node): parameter for parameter, each in loads.items() for load in each}
        kept, needed = _slice(before, value, by_call)
        for statement in kept:
            if not isinstance(statement, _ARITHMETIC):
                message = "computes what it stores with a statement that cannot be taken over"
                help = "assign what is stored to plain names"
                raise self._refusal(message, Span.of(self._file.path, statement), help)
        pieces: list[ast.AST] = [*kept, value]
        self._depends_on_no_place(pieces, by_call)
        nodes = [node for piece in pieces for node in _outside_loads(piece, by_call)]
        types = [node for node in nodes if isinstance(node, ast.Attribute) and _is_element_type(node, loads, out)]
        read = {by_call[id(node)] for piece in pieces for node in ast.walk(piece) if id(node) in by_call}
        if x not in read:
            message = f"stores a value that does not come from `{x}`"
            raise self._refusal(message, store.span, "name the parameter that the first kernel stores to")
        self._uses_no_pointer(pieces, by_call, types, {*loads, out})
        typed = {x if _pointer_of(node) == out else _pointer_of(node) for node in types}
        names, dropped = self._names(read, loads, kept, typed, x)
        replaced = {
            node: names[by_call[id(node)]] for piece in pieces for node in ast.walk(piece) if id(node) in by_call
        }
        for node in types:
            parameter = x if _pointer_of(node) == out else _pointer_of(node)
            if parameter not in names:
                message = f"needs the type of `{parameter}`, which it does not load for what it stores"
                raise self._refusal(message, Span.of(self._file.path, node), "name the type itself")
            replaced[node] = f"{names[parameter]}.dtype"
        lines = [line for statement in kept if statement not in dropped for line in self._lines(statement, replaced)]
        head, *rest = self._text(value, replaced).split("\n")
        behind = (" " * len("return (") + _from_column(line, value.col_offset) for line in rest)
        result = "\n".join([head, *behind])
        lines.append(f"return ({result})" if "\n" in result else f"return {result}")
        compile_time = self._closure.constexpr_parameters(self._function)
        own = [p for p in self._function.parameters if p in needed and p not in loads and p != out]
        operands = tuple(p for p in self._function.parameters if p in read and p != x)
        constants = tuple(p for p in own if p in compile_time)
        numbers = tuple(p for p in own if p not in compile_time)
        annotations = {argument.arg: argument.annotation for argument in _arguments(self._function.node)}
        arguments = {argument.arg: argument for argument in _arguments(self._function.node)}
        for number in numbers:
            self._is_float(arguments[number])
        spelled = [f"{name}: {ast.unparse(annotation)}" for name in constants if (annotation := annotations[name])]
        parameters = ", ".join([names[x], *(names[operand] for operand in operands), *numbers, *spelled])
        head = f'"""What `{self._kernel.name}` stores where it loads `{names[x]}`."""'
        definition = f"({parameters}):\n" + textwrap.indent("\n".join([head, *lines]), "    ") + "\n"
        try:
            ast.parse(f"def function{definition}")
        except SyntaxError:
            help = "write what it computes on lines of their own"
            raise self._refusal("cannot be taken apart by its lines", store.span, help) from None
        single = frozenset(o for o in operands if all(_is_name(c.pointer(c.forms[0]), o) for c in loads[o]))
        return PointwiseKernel(
            kernel=self._kernel,
            closure=self._closure,
            x=x,
            out=out,
            operands=operands,
            single=single,
            numbers=numbers,
            constants=constants,
            definition=definition,
            store=store.span,
            loads={parameter: each[0].span for parameter, each in loads.items()},
            facts=self._facts,
        )

    def _names(
        self,
        read: Collection[str],
        loads: Mapping[str, list[MemoryCall]],
        kept: list[ast.stmt],
        typed: Collection[str],
        x: str,
    ) -> tuple[dict[str, str], list[ast.stmt]]:
        """What the function calls what is loaded of each parameter, and the statements that say no more than that."""
        taken = locals_of(self._function.node) | {n.id for n in walk(self._function.node) if isinstance(n, ast.Name)}
        names: dict[str, str] = {}
        dropped: list[ast.stmt] = []
        for parameter in (p for p in self._function.parameters if p in read):
            assigned = _target_of_load(kept, loads[parameter])
            name = _name_of(assigned)
            once = name is not None and _bindings(kept, name) == 1
            if assigned is not None and name is not None and (once or parameter not in typed):
                names[parameter] = name
                dropped.append(assigned)
                continue
            short = "x" if parameter == x else parameter.removesuffix("_ptr")
            behind = ("stored" if parameter == x else f"{short}_loaded") + "_" * len(taken)
            choices = (short, *(behind[:end] for end in range(len(behind) - len(taken), len(behind))))
            names[parameter] = next(
                choice
                for choice in choices
                if choice not in taken | set(names.values()) and not keyword.iskeyword(choice)
            )
        return names, dropped

    def _depends_on_no_place(self, pieces: Iterable[ast.AST], by_call: Mapping[int, str]) -> None:
        for node in (node for piece in pieces for node in _outside_loads(piece, by_call)):
            if not isinstance(node, ast.Call):
                continue
            bound = callee(node, self._function, self._closure)
            if isinstance(bound, TritonObject) and bound.dotted in _PLACES:
                message = f"stores a value that depends on where it is stored (`{ast.unparse(node)}`)"
                help = "an epilogue computes each element from the same element of what it loads"
                raise self._refusal(message, Span.of(self._file.path, node), help)

    def _uses_no_pointer(
        self,
        pieces: Iterable[ast.AST],
        by_call: Mapping[int, str],
        types: list[ast.Attribute],
        pointers: Collection[str],
    ) -> None:
        known = {id(inner) for node in types for inner in ast.walk(node)}
        for piece in pieces:
            for node in _outside_loads(piece, by_call):
                if isinstance(node, ast.Name) and node.id in pointers and id(node) not in known:
                    message = f"uses the pointer `{node.id}` in what it stores"
                    raise self._refusal(message, Span.of(self._file.path, node), "store what is computed from elements")

    def _is_float(self, number: ast.arg) -> None:
        fact = self._facts[number.arg]
        if str(fact.type) == "fp32" or (fact.evidence in _UNSEEN and number.annotation is None):
            return
        message = f"computes with `{number.arg}`, of type {fact.type}, and a number of an epilogue is a float"
        help = "pass a float, compile it in with `tl.constexpr`, or load it"
        raise self._refusal(message, Span.of(self._file.path, number), help, fact.evidence.value)

    def _lines(self, statement: ast.stmt, replaced: Mapping[ast.AST, str]) -> list[str]:
        """The lines of a statement, from column 0, with the comments above and behind it."""
        texts = self._file.text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
        first = statement.lineno - 1
        while (
            first > 0
            and texts[first - 1].lstrip().startswith("#")
            and not texts[statement.lineno - 1][: statement.col_offset].strip()
        ):
            first -= 1
        comments = [line.strip() for line in texts[first : statement.lineno - 1]]
        assert statement.end_lineno is not None and statement.end_col_offset is not None
        behind = texts[statement.end_lineno - 1].encode()[statement.end_col_offset :].decode()
        text = self._text(statement, replaced)
        if behind.lstrip().startswith("#"):
            text += behind.rstrip()
        head, *rest = text.split("\n")
        column = statement.col_offset
        return [*comments, head, *(_from_column(line, column) for line in rest)]

    def _text(self, node: ast.stmt | ast.expr, replaced: Mapping[ast.AST, str]) -> str:
        """The text of a node, with other texts for some of its parts."""
        offset = self._file.offset
        assert node.end_lineno is not None and node.end_col_offset is not None
        start = offset(node.lineno, node.col_offset)
        text = self._file.text[start : offset(node.end_lineno, node.end_col_offset)]
        parts = [part for part in ast.walk(node) if part in replaced and isinstance(part, ast.expr)]
        for part in sorted(parts, key=lambda part: (part.lineno, part.col_offset), reverse=True):
            span = Span.of(self._file.path, part)
            ends = offset(span.line, span.column) - start, offset(span.end_line, span.end_column) - start
            text = text[: ends[0]] + replaced[part] + text[ends[1] :]
        return text.replace("\r\n", "\n").replace("\r", "\n")

    def _refusal(self, message: str, span: Span, help: str = "", label: str = "") -> FusionRefused:
        return refusal(self._kernel, message, span, help, label)


def refusal(kernel: KernelDefinition, message: str, span: Span, help: str = "", label: str = "") -> FusionRefused:
    """KR123: why `kernel` cannot be inlined; `message` follows its name."""
    return FusionRefused((Diagnostic("KR123", f"`{kernel.name}` {message}", (Label(span, label),), help=help),))


def _slice(
    before: list[ast.stmt], value: ast.expr, by_call: Mapping[int, str]
) -> tuple[list[ast.stmt], frozenset[str]]:
    """The statements that `value` depends on, and the names that it and they read and none of them binds before."""
    needed = _read(value, by_call)
    kept: list[ast.stmt] = []
    for statement in reversed(before):
        bound = _bound(statement)
        if not bound & needed:
            continue
        kept.insert(0, statement)
        if isinstance(statement, ast.Assign | ast.AnnAssign):
            needed -= bound
        needed |= _read(statement, by_call)
    return kept, frozenset(needed)


def _outside_loads(node: ast.AST, by_call: Mapping[int, str]) -> Iterator[ast.AST]:
    """A node and all it is made of, but nothing of a load."""
    if id(node) in by_call:
        return
    yield node
    for child in ast.iter_child_nodes(node):
        yield from _outside_loads(child, by_call)


def _read(node: ast.AST, by_call: Mapping[int, str]) -> set[str]:
    found = set()
    for inner in _outside_loads(node, by_call):
        if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Load):
            found.add(inner.id)
        if isinstance(inner, ast.AugAssign) and isinstance(inner.target, ast.Name):
            found.add(inner.target.id)
    return found


def _bound(node: ast.AST) -> set[str]:
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}


def _bindings(statements: Iterable[ast.stmt], name: str) -> int:
    nodes = (node for statement in statements for node in ast.walk(statement))
    return sum(isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store) and n.id == name for n in nodes)


def _target_of_load(kept: list[ast.stmt], loads: list[MemoryCall]) -> ast.stmt | None:
    """`x = tl.load(...)`: the statement that binds a name first, to what one load gives, where nothing else loads it."""
    if len(loads) != 1:
        return None
    for index, statement in enumerate(kept):
        if isinstance(statement, ast.Assign) and statement.value is loads[0].node:
            name = _name_of(statement)
            return statement if name is not None and not _bindings(kept[:index], name) else None
    return None


def _name_of(statement: ast.stmt | None) -> str | None:
    """`x` of `x = VALUE`."""
    if isinstance(statement, ast.Assign) and len(statement.targets) == 1 and isinstance(statement.targets[0], ast.Name):
        return statement.targets[0].id
    return None


def _from_column(line: str, column: int) -> str:
    """A line without so much white space at its start, as far as it has it."""
    return line[column:] if not line[:column].strip() else line.lstrip()


def _is_name(node: ast.expr | None, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def _is_element_type(node: ast.Attribute, loads: Collection[str], out: str) -> bool:
    """out_ptr.dtype.element_ty"""
    match node:
        case ast.Attribute(attr="element_ty", value=ast.Attribute(attr="dtype" | "type", value=ast.Name(id=name))):
            return name in loads or name == out
    return False


def _pointer_of(node: ast.Attribute) -> str:
    assert isinstance(node.value, ast.Attribute)
    assert isinstance(node.value.value, ast.Name)
    return node.value.value.id


def _arguments(node: ast.FunctionDef) -> list[ast.arg]:
    return [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
