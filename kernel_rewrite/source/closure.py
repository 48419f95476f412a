"""The jit functions of a file, and all that one of them needs: helpers, constants and what every global name means."""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from kernel_rewrite.diagnostics import Diagnostic, FusionRefused, Label
from kernel_rewrite.model import (
    AssumedName,
    Binding,
    Closure,
    Constant,
    Function,
    FunctionRef,
    Namespace,
    Span,
    TritonObject,
    Unresolved,
)
from kernel_rewrite.source.files import Project, SourceFile
from kernel_rewrite.source.folding import EXTERNAL_CONSTANTS, MACHINE_FACTS, External
from kernel_rewrite.source.names import (
    JitDefinition,
    Meaning,
    PlainFunction,
    ProjectModule,
    Resolved,
    Scope,
    attribute,
    binding_of,
    enclosing_functions,
    function_scope,
    jit_definition,
    locals_of,
    meaning_of,
    module_scope,
    nodes_of,
    parameters_of,
)
from kernel_rewrite.source.names import enclosing_scope as scope_around
from kernel_rewrite.source.scopes import Assigned
from kernel_rewrite.source.syntax import children, last_name, nodes_in, walk

# ------------------------------------------------------------------------------------------------ the kernels of a file


@dataclass(frozen=True, slots=True, eq=False)
class KernelDefinition:
    """A jit function as its file defines it.

    `decorators` are the expressions around it, outermost first, the jit one included; `aliases` the other names that
    the file gives it (`kernel = triton.jit(function)`); `launches` the calls in this file that launch it; `entry` says
    whether it is a kernel to launch rather than a helper.
    """

    definition: JitDefinition
    aliases: tuple[str, ...] = ()
    launches: tuple[ast.Call, ...] = ()
    entry: bool = False

    @property
    def name(self) -> str:
        return self.definition.node.name

    @property
    def node(self) -> ast.FunctionDef:
        return self.definition.node

    @property
    def file(self) -> SourceFile:
        return self.definition.file

    @property
    def decorators(self) -> tuple[ast.expr, ...]:
        return self.definition.decorators

    @property
    def scope(self) -> Scope:
        return self.definition.scope

    @property
    def span(self) -> Span:
        return Span.of(self.file.path, self.node)

    @property
    def definition_line(self) -> Span:
        """`def name`, the place to show for the kernel as a whole."""
        node = self.node
        end = node.col_offset + len(f"def {node.name}".encode())
        return Span(self.file.path, node.lineno, node.col_offset, node.lineno, end)

    @property
    def calls_as_helper(self) -> tuple[Span, ...]:
        """Where the file calls this kernel as a function: `kernel(x, y)` inside another one, which is no launch."""
        names = {self.name, *self.aliases}
        calls = [
            node
            for node in nodes_in(self.file.tree)
            if isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in names
            and not (self.node.lineno <= node.lineno <= (self.node.end_lineno or node.lineno))
        ]
        if not calls:
            return ()
        visible = {id(node) for node in nodes_in(self._visible_in)}
        return tuple(
            Span.of(self.file.path, node)
            for node in calls
            if id(node) in visible or last_name(node.func) in self.aliases
        )

    @property
    def _visible_in(self) -> ast.AST:
        """Where the kernel's own name may be the kernel: in the function that defines it, when another function has that
        name elsewhere and nothing else is ever bound to it (`kernel = make_kernel()`)."""
        around = [
            function
            for function in nodes_in(self.file.tree)  # outer functions come first
            if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef))
            and function is not self.node
            and any(node is self.node for node in nodes_in(function))
        ]
        if not around:
            return self.file.tree
        inside = {id(node) for node in nodes_in(around[-1])}
        names = {self.name, "*"}  # `from module import *` binds what it likes
        elsewhere = [node for node in nodes_in(self.file.tree) if id(node) not in inside and names & {*_bound(node)}]
        named_by_def = bool(elsewhere) and all(isinstance(node, ast.FunctionDef) for node in elsewhere)
        exported = any(isinstance(node, ast.Global) and self.name in node.names for node in nodes_in(around[-1]))
        return around[-1] if named_by_def and not exported else self.file.tree

    @property
    def jit_spelling(self) -> str:
        """How the file spells the jit decorator: `triton.jit`, `jit`."""
        functions = [d.func if isinstance(d, ast.Call) else d for d in self.decorators]
        jits = [ast.unparse(f) for f in functions if ast.unparse(f).split(".")[-1] == "jit"]
        return jits[-1] if jits else "triton.jit"


def _bound(node: ast.AST) -> tuple[str, ...]:
    """The names that a node itself binds."""
    match node:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return (name,)
        case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
            return (name,)
        case ast.alias(name=name, asname=asname):
            return (asname or name.partition(".")[0],)
        case ast.arg(arg=name) | ast.ExceptHandler(name=str() as name) | ast.MatchAs(name=str() as name):
            return (name,)
        case ast.Global(names=names):
            return tuple(names)
    return ()


def kernels(file: SourceFile, project: Project) -> tuple[KernelDefinition, ...]:
    """Every jit function that `file` defines, in the order they stand there."""
    key = ("kernels", file)
    known = project.memory.get(key)
    if not isinstance(known, tuple):
        known = project.memory[key] = _kernels(file, project)
    return known


def kernel_named(name: str, file: SourceFile, project: Project) -> KernelDefinition | None:
    """The first jit function called `name` that `file` defines. What the file's other functions are is not asked: it counts
    as an entry only where the file launches it."""
    if "jit" not in file.text:
        return None
    definitions, aliases = _definitions(file, project, name)
    if not definitions:
        return None
    sites = _launches(file, project)
    node, definition = _in_order(definitions)[0]
    launches = tuple(sites.get(node, ()))
    return KernelDefinition(definition, tuple(aliases.get(node, ())), launches, bool(launches))


def _kernels(file: SourceFile, project: Project) -> tuple[KernelDefinition, ...]:
    if "jit" not in file.text:
        return ()
    definitions, aliases = _definitions(file, project)
    if not definitions:
        return ()
    launches = _launches(file, project)
    called = {node for definition in definitions.values() for node in _jit_callees(definition, skip_self=True)}
    # of several definitions of one helper, the calls mean one
    called |= {node for node in definitions if node.name in {c.name for c in called} and node not in launches}
    result = []
    for node, definition in _in_order(definitions):
        sites = tuple(launches.get(node, ()))
        entry = bool(sites) or (node not in called and not _returns(node) and _stores(definition, set()))
        entry = entry and not definition.constexpr_function
        result.append(KernelDefinition(definition, tuple(aliases.get(node, ())), sites, entry))
    return tuple(result)


_Definitions = dict[ast.FunctionDef, JitDefinition]


def _definitions(
    file: SourceFile, project: Project, name: str | None = None
) -> tuple[_Definitions, dict[ast.FunctionDef, list[str]]]:
    """The jit functions of `file`, those called `name` alone where it is given, and the other names that each has."""
    definitions: _Definitions = {}
    aliases: dict[ast.FunctionDef, list[str]] = {}
    functions = [node for node in nodes_of(file, project) if isinstance(node, ast.FunctionDef)]
    for node in functions:
        definition = jit_definition(node, file, project) if name in (None, node.name) else None
        if definition is not None:
            definitions[node] = definition
    for alias, definition in _made_by_calls(file, project, functions):
        if definition.file is not file or name not in (None, definition.node.name):
            continue
        # the wrapped form has the whole stack of decorators
        definitions[definition.node] = definition
        if alias != definition.node.name:
            aliases.setdefault(definition.node, []).append(alias)
    return definitions, aliases


def _in_order(definitions: _Definitions) -> list[tuple[ast.FunctionDef, JitDefinition]]:
    return sorted(definitions.items(), key=lambda item: (item[0].lineno, item[0].col_offset))


def _made_by_calls(
    file: SourceFile, project: Project, functions: list[ast.FunctionDef]
) -> Iterator[tuple[str, JitDefinition]]:
    # kernel = triton.jit(function); kernel = triton.autotune(...)(kernel)
    scopes = [module_scope(file, project)]
    scopes += [function_scope(node, file, project) for node in functions if _assigns_a_call_of_jit(node)]
    for scope in scopes:
        for name, candidates in scope.table.names.items():
            for candidate in candidates:
                if isinstance(candidate, Assigned) and isinstance(candidate.value, ast.Call):
                    meaning = scope.define(name, candidate).meaning
                    if isinstance(meaning, JitDefinition):
                        yield name, meaning


def _assigns_a_call_of_jit(function: ast.FunctionDef) -> bool:
    # only the outermost call is looked into, so that a body is walked once: jit(f), triton.jit(f), triton.jit(...)(f)
    return any(isinstance(node, ast.Assign) and _calls_jit(node.value) for node in _statements(function.body))


def _calls_jit(value: ast.expr) -> bool:
    while isinstance(value, ast.Call):
        if any(isinstance(a, ast.Call) and _calls_jit(a) for a in value.args):
            return True
        value = value.func
    return "jit" in getattr(value, "attr", getattr(value, "id", ""))


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements of `body` and of the blocks in it, but not those of functions and classes defined there."""
    for statement in body:
        yield statement
        if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            continue
        for part in ("body", "orelse", "finalbody"):
            yield from _statements(getattr(statement, part, []))
        for handler in getattr(statement, "handlers", []):
            yield from _statements(handler.body)


# --------------------------------------------------------------------------------------------------------- launch sites


_LAUNCH_METHODS = frozenset({"run", "warmup"})
_LAUNCH_WRAPPERS = frozenset({"wrap_triton", "capture_triton"})


def _launches(file: SourceFile, project: Project) -> dict[ast.FunctionDef, list[ast.Call]]:
    found: dict[ast.FunctionDef, list[ast.Call]] = {}
    for node in nodes_of(file, project):
        target = _launch_target(node)
        if target is None:
            continue
        assert isinstance(node, ast.Call)
        meaning = meaning_of(target, scope_at(node, file, project))
        if isinstance(meaning, JitDefinition):
            found.setdefault(meaning.node, []).append(node)
    return found


def _launch_target(node: ast.AST) -> ast.expr | None:
    """What `node` would launch: KERNEL[grid](...), KERNEL.run(...), wrap_triton(KERNEL)[grid](...)."""
    if not isinstance(node, ast.Call):
        return None
    target: ast.expr
    if isinstance(node.func, ast.Subscript) or (
        isinstance(node.func, ast.Attribute) and node.func.attr in _LAUNCH_METHODS
    ):
        target = node.func.value
    else:
        return None
    if isinstance(target, ast.Call) and len(target.args) == 1 and isinstance(target.func, (ast.Name, ast.Attribute)):
        name = target.func.attr if isinstance(target.func, ast.Attribute) else target.func.id
        return target.args[0] if name in _LAUNCH_WRAPPERS else None
    return target


def scope_at(node: ast.AST, file: SourceFile, project: Project) -> Scope:
    """The scope that a name written at `node` is looked up in."""
    around = enclosing_functions(node, file, project)
    if not around:
        return module_scope(file, project)
    return function_scope(around[-1], file, project)


# -------------------------------------------------------------------------------------------------- entries and helpers


_STORE_METHODS = frozenset(
    "store scatter atomic_add atomic_cas atomic_xchg atomic_max atomic_min atomic_and atomic_or atomic_xor".split()
)


def _is_store(meaning: Meaning | None) -> bool:
    if not isinstance(meaning, TritonObject) or meaning.module != "triton.language":
        return False
    name = meaning.attribute
    return name in ("store", "store_tensor_descriptor") or name.startswith("atomic_")


def _calls(definition: JitDefinition) -> Iterator[tuple[ast.Call, Meaning | None]]:
    hidden = locals_of(definition.node)
    for node in (inner for statement in definition.node.body for inner in walk(statement)):
        if isinstance(node, ast.Call):
            root = _root(node.func)
            known = root is not None and root.id not in hidden
            yield node, meaning_of(node.func, definition.scope) if known else None


def _jit_callees(definition: JitDefinition, *, skip_self: bool) -> set[ast.FunctionDef]:
    """The jit functions that `definition` calls or hands on (`tl.reduce(x, 0, combine)`)."""
    found = set()
    hidden = locals_of(definition.node)
    for node in (inner for statement in definition.node.body for inner in walk(statement)):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id not in hidden:
            meaning = definition.scope.lookup(node.id)
            if isinstance(meaning, JitDefinition):
                found.add(meaning.node)
    return found - {definition.node} if skip_self else found


def _stores(definition: JitDefinition, visited: set[ast.FunctionDef]) -> bool:
    visited.add(definition.node)
    callees: list[JitDefinition] = []
    for call, meaning in _calls(definition):
        if _is_store(meaning):
            return True
        if meaning is None and isinstance(call.func, ast.Attribute) and call.func.attr in _STORE_METHODS:
            return True
        if isinstance(meaning, JitDefinition) and meaning.node not in visited:
            callees.append(meaning)
    return any(_stores(callee, visited) for callee in callees if callee.node not in visited)


def _returns(node: ast.FunctionDef) -> bool:
    return any(
        isinstance(inner, ast.Return)
        and inner.value is not None
        and not (isinstance(inner.value, ast.Constant) and inner.value.value is None)
        for statement in node.body
        for inner in walk(statement)
    )


# --------------------------------------------------------------------------------------------------------- names in use


@dataclass(frozen=True, slots=True)
class Use:
    """One reading of a global name: `root.attributes...`.

    `annotation` marks a place where only its being a type matters; `evaluated` is False for the annotations that Triton
    never looks at.
    """

    node: ast.Name | ast.Attribute
    root: str
    attributes: tuple[str, ...]
    annotation: bool = False
    evaluated: bool = True

    @property
    def dotted(self) -> str:
        return ".".join((self.root, *self.attributes))


def uses(node: ast.FunctionDef) -> tuple[Use, ...]:
    """Every global name that Triton may read when it compiles `node`, and those in annotations that it does not."""
    found: list[Use] = []
    for statement in node.body:
        _collect(statement, found)
    arguments = node.args
    for default in (*arguments.defaults, *arguments.kw_defaults):
        if default is not None:
            _collect(default, found)
    positional = [*arguments.posonlyargs, *arguments.args]
    with_default = set(positional[len(positional) - len(arguments.defaults) :])
    with_default |= {a for a, d in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True) if d is not None}
    stars = [a for a in (arguments.vararg, arguments.kwarg) if a is not None]
    for argument in (*positional, *arguments.kwonlyargs, *stars):
        if argument.annotation is not None:
            # Triton evaluates the annotation of a parameter that has a default
            _collect(argument.annotation, found, annotation=True, evaluated=argument in with_default)
    if node.returns is not None:
        _collect(node.returns, found, annotation=True, evaluated=False)
    return _without_locals(node, found)


def _collect(node: ast.AST, found: list[Use], annotation: bool = False, evaluated: bool = True) -> None:
    if isinstance(node, (ast.Name, ast.Attribute)):
        root = _root(node)
        if root is not None:
            if isinstance(root.ctx, ast.Load):
                found.append(Use(node, root.id, _attributes(node), annotation, evaluated))
            return
    if isinstance(node, ast.AnnAssign):
        _collect(node.annotation, found, True, evaluated)
        for part in (node.target, node.value):
            if part is not None:
                _collect(part, found, annotation, evaluated)
        return
    for child in children(node):
        _collect(child, found, annotation, evaluated)


def _root(node: ast.expr) -> ast.Name | None:
    while isinstance(node, ast.Attribute):
        node = node.value
    return node if isinstance(node, ast.Name) else None


def _attributes(node: ast.expr) -> tuple[str, ...]:
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    return tuple(reversed(names))


def _without_locals(node: ast.FunctionDef, found: list[Use]) -> tuple[Use, ...]:
    """Drops the readings of local variables. Triton looks a name up among the locals assigned so far, then among the
    globals: a reading that comes before the first assignment is one of a global."""
    hidden = locals_of(node)
    parameters = frozenset(parameters_of(node.args))
    outside = _outside(node)
    first = _first_assignments(node)
    kept = []
    for use in found:
        if (
            use.node in outside
            or use.root not in hidden
            or (use.root not in parameters and (use.node.lineno, use.node.col_offset) < first.get(use.root, (0, 0)))
        ):
            kept.append(use)
    return tuple(kept)


def _outside(node: ast.FunctionDef) -> set[ast.AST]:
    """The expressions of a definition that are read outside of its body: defaults and annotations."""
    return {inner for part in (node.args, node.returns) if part is not None for inner in walk(part)}


def _first_assignments(node: ast.FunctionDef) -> dict[str, tuple[int, int]]:
    """Where each local variable is first known: the end of the statement that assigns it first."""
    first: dict[str, tuple[int, int]] = {}

    def note(name: str, position: tuple[int, int]) -> None:
        first[name] = min(first.get(name, position), position)

    for statement in (inner for part in node.body for inner in walk(part)):
        if isinstance(statement, (ast.Assign, ast.AugAssign, ast.AnnAssign)):
            for inner in walk(statement):
                if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store):
                    note(inner.id, (statement.end_lineno or 0, statement.end_col_offset or 0))
        elif isinstance(statement, ast.For):
            for inner in walk(statement.target):
                if isinstance(inner, ast.Name):
                    note(inner.id, (statement.iter.end_lineno or 0, statement.iter.end_col_offset or 0))
    return first


# -------------------------------------------------------------------------------------------------------------- closing


@dataclass(slots=True)
class _Name:
    """A global name of one file, with the ways it is used."""

    resolved: Resolved
    uses: list[Use] = field(default_factory=list)
    at_compile_time: bool = True  # read by constexpr functions only


@dataclass(slots=True)
class _Builder:
    project: Project
    functions: dict[FunctionRef, JitDefinition] = field(default_factory=dict)
    names: dict[str, dict[str, _Name]] = field(default_factory=dict)
    assumed: dict[AssumedName, None] = field(default_factory=dict)
    pending: list[JitDefinition] = field(default_factory=list)
    file: str = ""  # whose names are being bound

    def reach(self, definition: JitDefinition) -> None:
        known = self.functions.get(definition.ref)
        if known is None:
            self.functions[definition.ref] = definition
            self.pending.append(definition)
        elif known.node is not definition.node:
            raise _two_meanings(definition.node.name, definition, known)

    def read(self, definition: JitDefinition) -> None:
        table = self.names.setdefault(definition.file.path, {})
        for use in uses(definition.node):
            resolved = definition.scope.resolve(use.root)
            if resolved is None:
                if hasattr(builtins, use.root):
                    continue
                resolved = Resolved(Unresolved("nothing defines it"))
            entry = table.setdefault(use.root, _Name(resolved))
            if _differ(entry.resolved.meaning, resolved.meaning):
                raise _name_clash(use, definition)
            entry.uses.append(use)
            entry.at_compile_time = entry.at_compile_time and definition.constexpr_function
            if use.evaluated:
                self.assumed.update(dict.fromkeys(resolved.assumed))

    def bindings(self) -> dict[str, dict[str, Binding]]:
        result = {}
        for self.file, table in self.names.items():  # noqa: B020
            result[self.file] = {name: self.binding(entry) for name, entry in table.items()}
        return result

    def binding(self, entry: _Name) -> Binding:
        meaning = entry.resolved.meaning
        if isinstance(meaning, (ProjectModule, External)) and not _is_constant(meaning):
            return self.namespace(meaning, [(use.attributes, use.annotation) for use in entry.uses])
        if isinstance(meaning, PlainFunction) and entry.at_compile_time:
            return self.bind(_at_compile_time(meaning))
        return self.bind(meaning)

    def bind(self, meaning: Meaning) -> Binding:
        if not isinstance(meaning, JitDefinition):
            return binding_of(meaning)
        reason = impurity(meaning) if meaning.constexpr_function else ""
        if reason:
            return Unresolved(reason)
        self.reach(meaning)
        return meaning.ref

    def namespace(self, owner: ProjectModule | External, chains: list[tuple[tuple[str, ...], bool]]) -> Binding:
        if all(annotation and not chain for chain, annotation in chains) and isinstance(owner, External):
            return Constant(owner.dotted)  # x: Tensor = None
        if not all(chain for chain, _ in chains):
            return binding_of(owner)
        below: dict[str, list[tuple[tuple[str, ...], bool]]] = {}
        for chain, annotation in chains:
            below.setdefault(chain[0], []).append((chain[1:], annotation))
        name = owner.name if isinstance(owner, ProjectModule) else owner.dotted
        return Namespace(name, {member: self.member(owner, member, rest) for member, rest in below.items()})

    def member(self, owner: Meaning, name: str, chains: list[tuple[tuple[str, ...], bool]]) -> Binding:
        meaning = attribute(owner, name)
        if isinstance(meaning, External) and meaning.dotted in MACHINE_FACTS:
            value = MACHINE_FACTS[meaning.dotted]
            text = f"`{meaning.dotted}` is taken to be `{value!r}`, as with a current triton on CUDA"
            self.assumed[AssumedName(self.file, meaning.dotted, text)] = None
            return Constant(value)
        if meaning is None:
            return Unresolved(f"it has no attribute `{name}`")
        if isinstance(meaning, ProjectModule) or (isinstance(meaning, External) and not _is_constant(meaning)):
            return self.namespace(meaning, chains)
        return self.bind(meaning)


def close(kernel: KernelDefinition, project: Project) -> Closure:
    """All that lowering `kernel` needs. Names that cannot be resolved are bound to `Unresolved`; refuses with KR104
    when one name of a file would need two meanings."""
    builder = _Builder(project)
    builder.reach(kernel.definition)
    for definition in _handed_over(kernel, project):
        builder.reach(definition)
    bindings: dict[str, dict[str, Binding]] = {}
    while builder.pending:
        builder.read(builder.pending.pop(0))
        if not builder.pending:  # binding the names reaches the helpers
            bindings = builder.bindings()
    functions = tuple(_function(definition) for definition in builder.functions.values())
    return Closure(functions, bindings, tuple(builder.assumed))


def _function(definition: JitDefinition) -> Function:
    return Function(
        definition.ref, definition.node, definition.node.col_offset, definition.constexpr_function, definition.options
    )


def _handed_over(kernel: KernelDefinition, project: Project) -> Iterator[JitDefinition]:
    """The jit functions that a launch or an autotune configuration passes: kernel[grid](x, ACTIVATION=relu)."""
    for launch in kernel.launches:
        scope = scope_at(launch, kernel.file, project)
        for argument in (*launch.args, *(keyword.value for keyword in launch.keywords)):
            yield from _jit_functions_in(argument, scope, kernel)
    for decorator in (d for d in kernel.decorators if isinstance(d, ast.Call)):
        for argument in (*decorator.args, *(keyword.value for keyword in decorator.keywords)):
            yield from _jit_functions_in(argument, kernel.scope, kernel)


def _jit_functions_in(argument: ast.expr, scope: Scope, kernel: KernelDefinition) -> Iterator[JitDefinition]:
    for node in walk(argument):
        if isinstance(node, (ast.Name, ast.Attribute)):
            meaning = meaning_of(node, scope)
            if isinstance(meaning, JitDefinition) and meaning.node is not kernel.node:
                yield meaning


def _is_constant(meaning: Meaning) -> bool:
    return isinstance(meaning, External) and meaning.dotted in EXTERNAL_CONSTANTS


def _differ(one: Meaning, other: Meaning) -> bool:
    if isinstance(one, JitDefinition) and isinstance(other, JitDefinition):
        return one.node is not other.node
    if isinstance(one, ProjectModule) and isinstance(other, ProjectModule):
        return one.scope is not other.scope
    return one is not other and one != other


def _name_clash(use: Use, definition: JitDefinition) -> FusionRefused:
    label = Label(Span.of(definition.file.path, use.node), "means something else in another function that is needed")
    message = f"`{use.root}` means two things in the functions that this kernel needs"
    return FusionRefused((Diagnostic("KR104", message, (label,), help="give one of them a name of its own"),))


def _two_meanings(name: str, one: JitDefinition, other: JitDefinition) -> FusionRefused:
    labels = (Label(_head(one), "one"), Label(_head(other), "the other"))
    message = f"this kernel needs two functions that are both called `{name}`"
    return FusionRefused((Diagnostic("KR104", message, labels, help="give one of them a name of its own"),))


def _head(definition: JitDefinition) -> Span:
    node = definition.node
    end = node.col_offset + len(f"def {node.name}".encode())
    return Span(definition.file.path, node.lineno, node.col_offset, node.lineno, end)


def unresolved(closure: Closure) -> tuple[tuple[Span, str, str], ...]:
    """Where the functions of `closure` read a name that could not be resolved: the place, the name and the reason."""
    found = []
    for function in closure.functions:
        bindings = closure.bindings.get(function.ref.file, {})
        for use in uses(function.node):
            binding = _follow(bindings.get(use.root), use.attributes)
            if isinstance(binding, Unresolved) and use.evaluated:
                found.append((Span.of(function.ref.file, use.node), use.dotted, binding.reason))
    return tuple(found)


def _follow(binding: Binding | None, attributes: Iterable[str]) -> Binding | None:
    for name in attributes:
        if not isinstance(binding, Namespace):
            break
        binding = binding.members.get(name)
    return binding


# -------------------------------------------------------------------------------------------------- constexpr functions


_PLAIN_NODES = (
    ast.Return,
    ast.If,
    ast.Assign,
    ast.Assert,
    ast.Pass,
    ast.Expr,
    ast.Constant,
    ast.Name,
    ast.BinOp,
    ast.UnaryOp,
    ast.BoolOp,
    ast.Compare,
    ast.IfExp,
    ast.Tuple,
    ast.Subscript,
    ast.Attribute,
    ast.Call,
    ast.keyword,
    ast.operator,
    ast.unaryop,
    ast.boolop,
    ast.cmpop,
    ast.expr_context,
    ast.JoinedStr,
    ast.FormattedValue,
)
_PLAIN_FUNCTIONS = frozenset("min max abs len int float bool isinstance".split())
_PLAIN_METHOD = re.compile(r"is_\w+|bit_length|startswith|endswith|lower|upper")  # of a dtype, an int, a str


def impurity(definition: JitDefinition) -> str:
    """Why evaluating this constexpr function would be running the user's code; empty when it is plain arithmetic."""
    node = definition.node
    for inner in (inner for statement in node.body for inner in walk(statement)):
        if not isinstance(inner, _PLAIN_NODES):
            line = getattr(inner, "lineno", node.lineno)
            return f"`{node.name}` is a constexpr function that does more than arithmetic, in line {line}"
        if isinstance(inner, ast.Attribute) and inner.attr.startswith("_"):
            return f"`{node.name}` is a constexpr function that reads `{inner.attr}`"
        if isinstance(inner, ast.Call) and not _is_plain_call(inner, definition):
            return f"`{node.name}` is a constexpr function that calls `{ast.unparse(inner.func)}`"
    return ""


def _at_compile_time(function: PlainFunction) -> JitDefinition:
    """A plain function that constexpr functions call, as one of them."""
    return JitDefinition(function.file, function.node, function.scope, (), {}, constexpr_function=True)


def _is_plain_call(call: ast.Call, definition: JitDefinition) -> bool:
    root = _root(call.func)
    if isinstance(call.func, ast.Attribute) and (root is None or root.id in locals_of(definition.node)):
        return _PLAIN_METHOD.fullmatch(call.func.attr) is not None
    if root is None or root.id in locals_of(definition.node):
        return False
    meaning = meaning_of(call.func, definition.scope)
    if meaning is None:
        return isinstance(call.func, ast.Name) and call.func.id in _PLAIN_FUNCTIONS
    if isinstance(meaning, PlainFunction):
        meaning = _at_compile_time(meaning)
    if isinstance(meaning, JitDefinition):
        return meaning.constexpr_function and (meaning.node is definition.node or not impurity(meaning))
    return isinstance(meaning, TritonObject)


__all__ = [
    "KernelDefinition",
    "Use",
    "close",
    "impurity",
    "kernels",
    "scope_around",
    "scope_at",
    "unresolved",
    "uses",
]
