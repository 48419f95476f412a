"""What a name of the user's source means, found by following imports and assignments, never by running them."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Protocol

from kernel_rewrite.diagnostics import FusionRefused
from kernel_rewrite.model import (
    AssumedName,
    Binding,
    Closure,
    Constant,
    Function,
    FunctionRef,
    Namespace,
    TritonObject,
    Unresolved,
)
from kernel_rewrite.source.files import Project, SourceFile
from kernel_rewrite.source.folding import (
    EXTERNAL_CONSTANTS,
    MACHINE_FACTS,
    Assumed,
    External,
    HostCode,
    NotFoldable,
    fold,
    fold_constant,
)
from kernel_rewrite.source.scopes import (
    Assigned,
    Candidates,
    Defined,
    Definition,
    Imported,
    Opaque,
    Table,
    Verdict,
    decide,
    fill,
    with_environment_defaults,
)
from kernel_rewrite.source.syntax import children, last_name, nodes_in, walk
from kernel_rewrite.source.triton_names import (
    CONSTEXPR,
    CONSTEXPR_FUNCTION,
    CONVENTIONS,
    JIT,
    WRAPPER_NAMES,
    WRAPPERS,
    exists,
    is_triton,
    member,
    triton_module,
)

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


# ------------------------------------------------------------------------------------------------------------- meanings


@dataclass(frozen=True, slots=True, eq=False)
class JitDefinition:
    """A `def` that becomes a Triton function, by decorator or by a call of `triton.jit`. `scope` is where its free
    names are looked up; `decorators` are the expressions around it, outermost first."""

    file: SourceFile
    node: ast.FunctionDef
    scope: Scope
    decorators: tuple[ast.expr, ...]
    options: Mapping[str, object]
    constexpr_function: bool = False

    @property
    def ref(self) -> FunctionRef:
        return FunctionRef(self.file.path, self.node.name)


@dataclass(frozen=True, slots=True, eq=False)
class PlainFunction:
    """A `def` that Triton does not compile, unless a call of `triton.jit` makes it so."""

    file: SourceFile
    node: ast.FunctionDef
    scope: Scope


@dataclass(frozen=True, slots=True, eq=False)
class ProjectModule:
    """A module of the project: a file, or a folder without one (`file` None)."""

    name: str
    scope: Scope


Meaning = TritonObject | Constant | Unresolved | External | JitDefinition | PlainFunction | ProjectModule
MISSING = object()


@dataclass(frozen=True, slots=True)
class Resolved:
    """A meaning, and what was taken for granted on the way to it."""

    meaning: Meaning
    assumed: tuple[AssumedName, ...] = ()


def binding_of(meaning: Meaning, name: str = "") -> Binding:
    """The shared noun for `meaning`; a module of the project has none without its members and becomes `Unresolved`."""
    match meaning:
        case JitDefinition():
            return meaning.ref
        case External(dotted):
            if dotted in EXTERNAL_CONSTANTS:
                return Constant(EXTERNAL_CONSTANTS[dotted])
            return Unresolved(f"it comes from `{dotted.partition('.')[0]}`, which is not part of this repository")
        case PlainFunction():
            return Unresolved(f"`{meaning.node.name}` is a plain Python function, not a Triton one")
        case ProjectModule():
            return Unresolved("a module is used as a value")
    return meaning


# --------------------------------------------------------------------------------------------------------------- scopes


class Lookup(Protocol):
    """Where names are looked up: None for a name that nothing binds there."""

    def lookup(self, name: str) -> Meaning | None: ...


@dataclass(slots=True, eq=False)
class Scope:
    """The names of a module, or of a function body inside one (`parent` is what encloses it)."""

    file: SourceFile
    project: Project
    parent: Scope | None = None
    owner: str = ""
    table: Table = field(default_factory=Table)
    rebound: frozenset[str] = frozenset()
    _known: dict[int, Resolved] = field(default_factory=dict)
    _open: set[int] = field(default_factory=set)

    def lookup(self, name: str) -> Meaning | None:
        found = self.resolve(name)
        return found.meaning if found is not None else None

    def resolve(self, name: str) -> Resolved | None:
        """The meaning of `name` to code that runs after this scope's body has; None when nothing binds it."""
        candidates = self.table.names.get(name)
        if candidates:
            if name in self.rebound:
                return Resolved(Unresolved("a function assigns it through `global`"))
            return self.choose(name, candidates)
        if self.parent is not None:
            return self.parent.resolve(name)
        if self.table.stars:
            return self._from_stars(name)
        return None

    def choose(self, name: str, candidates: Candidates) -> Resolved:
        """The first of `candidates` that resolves; the others that mean something else are noted."""
        found = [self.define(name, candidate) for candidate in candidates]
        first = found[0]
        good = [one for one in found if _resolves(one.meaning)]
        there = [one for one in good if not isinstance(one.meaning, TritonObject) or exists(one.meaning) is not False]
        good = there or good
        if not good:
            return first
        best = good[0]
        if best is not first and isinstance(best.meaning, Constant) and not isinstance(first.meaning, TritonObject):
            # try: from fast import helper / except ImportError: helper = None -- the constant only stands in
            return first
        others = _alternatives(best.meaning, [one.meaning for one in good[1:]])
        if not others and best is first:
            return best
        text = f"`{name}` has several definitions, and which of them counts is decided when the code runs"
        harmless = all(_is_arithmetic(one.meaning) for one in good)
        note = AssumedName(self.file.path, name, text, others, harmless)
        return Resolved(best.meaning, (*best.assumed, note))

    def define(self, name: str, definition: Definition) -> Resolved:
        key = id(definition)
        if key not in self._known:
            if key in self._open:
                return Resolved(Unresolved("it is defined in terms of itself"))
            self._open.add(key)
            try:
                self._known[key] = _meaning_of(name, definition, self)
            finally:
                self._open.discard(key)
        return self._known[key]

    def _from_stars(self, name: str) -> Resolved | None:
        if name in _PYTHON_BUILTINS:
            return None
        star = self.table.stars[0]
        if is_triton(star.module) and not star.level:
            return Resolved(member(triton_module(star.module), name))
        return Resolved(Unresolved(f"it may come from `from {'.' * star.level}{star.module} import *`"))


@dataclass(slots=True, eq=False)
class _Snapshot:
    """A scope as it was when one statement ran: `seen` are the names that were bound then."""

    scope: Scope
    seen: Mapping[str, Candidates]
    assumed: list[AssumedName] = field(default_factory=list)

    def lookup(self, name: str) -> Meaning | None:
        if name in self.seen:
            found: Resolved | None = self.scope.choose(name, self.seen[name])
        elif self.scope.parent is not None:
            found = self.scope.parent.resolve(name)
        elif name in self.scope.table.names:
            return None
        else:
            found = self.scope.resolve(name)
        if found is None:
            return None
        self.assumed += found.assumed
        return found.meaning


_PYTHON_BUILTINS = frozenset(
    "print len list int float bool str tuple dict set isinstance getattr hasattr type object super None True False"
    " ValueError TypeError ImportError Exception zip enumerate open any all sorted map filter".split()
)


def module_scope(file: SourceFile, project: Project) -> Scope:
    """The names of `file` as a module."""
    key = ("module scope", file)
    scope = project.memory.get(key)
    if not isinstance(scope, Scope):
        scope = project.memory[key] = Scope(file, project)  # set before it is filled: imports may lead back here
        scope.rebound = frozenset(
            name for node in nodes_of(file, project) if isinstance(node, ast.Global) for name in node.names
        )
        fill(scope.table, file.tree.body, _Knowledge(scope))
    return scope


def function_scope(node: FunctionNode, file: SourceFile, project: Project, parent: Scope | None = None) -> Scope:
    """The names of the body of `node`, as they stand when that body has run."""
    key = ("function scope", node)
    scope = project.memory.get(key)
    if not isinstance(scope, Scope):
        parent = parent or enclosing_scope(node, file, project)
        scope = project.memory[key] = Scope(file, project, parent, node.name)
        scope.rebound = frozenset(
            name for inner in walk(node) if isinstance(inner, ast.Nonlocal) for name in inner.names
        )
        fill(scope.table, node.body, _Knowledge(scope), parameters_of(node.args), node.name)
        declared = {name for inner in node.body if isinstance(inner, ast.Global) for name in inner.names}
        for name in declared:
            scope.table.names.pop(name, None)
    return scope


def enclosing_scope(node: ast.AST, file: SourceFile, project: Project) -> Scope:
    """The scope that the free names of the function `node` are looked up in; class bodies are skipped, as in Python."""
    scope = module_scope(file, project)
    for function in enclosing_functions(node, file, project):
        scope = function_scope(function, file, project, scope)
    return scope


def enclosing_functions(node: ast.AST, file: SourceFile, project: Project) -> tuple[FunctionNode, ...]:
    """The functions around `node`, outermost first, without itself."""
    parents = _parents(file, project)
    chain: list[FunctionNode] = []
    current = parents.get(node)
    while current is not None:
        if isinstance(current, (ast.FunctionDef, ast.AsyncFunctionDef)):
            chain.append(current)
        current = parents.get(current)
    return tuple(reversed(chain))


def nodes_of(file: SourceFile, project: Project) -> Iterable[ast.AST]:
    """Every node of the tree of `file` but its root; walked once, and kept."""
    return _parents(file, project)


def _parents(file: SourceFile, project: Project) -> dict[ast.AST, ast.AST]:
    key = ("parents", file)
    known = project.memory.get(key)
    if not isinstance(known, dict):
        known = {child: node for node in nodes_in(file.tree) for child in children(node)}
        project.memory[key] = known
    return known


def parameters_of(arguments: ast.arguments) -> tuple[str, ...]:
    """Every name that a function's parameter list binds."""
    star = [a for a in (arguments.vararg, arguments.kwarg) if a is not None]
    return tuple(a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, *star))


def _star_names(star: Imported, importer: SourceFile, project: Project) -> Iterable[str] | None:
    if is_triton(star.module) and not star.level:
        return None
    try:
        file = project.module(star.module, importer, star.level)
    except FusionRefused:
        return None
    if file is None:
        return None
    table = module_scope(file, project).table
    if table.exports is not None:
        return table.exports
    return None if table.stars else [name for name in table.names if not name.startswith("_")]


@dataclass(frozen=True, slots=True)
class _Knowledge:
    """What a scope under construction knows about the expressions in it."""

    scope: Scope

    def star_names(self, star: Imported) -> Iterable[str] | None:
        return _star_names(star, self.scope.file, self.scope.project)

    def truth(self, test: ast.expr, seen: Mapping[str, Candidates]) -> Verdict | None:
        spelled = decide(test)
        if spelled is not None and spelled.certain:
            return spelled
        snapshot = _Snapshot(self.scope, seen)
        found = _folded(test, snapshot)
        if not isinstance(found, Constant):
            return spelled
        return Verdict(bool(found.value), certain=not snapshot.assumed)

    def works(self, statement: ast.stmt, seen: Mapping[str, Candidates]) -> bool | None:
        match statement:
            case ast.Import(names=names):
                return _all(exists(triton_module(alias.name)) if is_triton(alias.name) else None for alias in names)
            case ast.ImportFrom(module=str(module), level=0, names=names) if is_triton(module):
                owner = triton_module(module)
                return _all(exists(member(owner, alias.name)) for alias in names)
            case ast.Assign(value=ast.Constant()) | ast.Expr(value=ast.Constant()) | ast.Pass():
                return True
            case ast.Assign(value=value) | ast.Expr(value=value) if isinstance(value, (ast.Name, ast.Attribute)):
                meaning = meaning_of(value, _Snapshot(self.scope, seen))
                return exists(meaning) if isinstance(meaning, TritonObject) else None
        return None


def _all(answers: Iterable[bool | None]) -> bool | None:
    """True when all are, False when one is and none is unknown before it."""
    for answer in answers:
        if answer is not True:
            return answer
    return True


# ---------------------------------------------------------------------------------------------------------- definitions


def _meaning_of(name: str, definition: Definition, scope: Scope) -> Resolved:
    match definition:
        case Opaque(reason):
            return Resolved(Unresolved(reason))
        case Imported():
            found = _imported(definition, scope)
            return _by_convention(definition.name, found, scope)
        case Assigned(value, seen, path):
            snapshot = _Snapshot(scope, seen)
            return Resolved(_assigned(value, path, snapshot), tuple(snapshot.assumed))
        case Defined(node, seen):
            snapshot = _Snapshot(scope, {k: v for k, v in seen.items() if k == node.name})
            return Resolved(_defined(node, _DecoratorScope(scope, snapshot)))
    raise AssertionError(definition)


@dataclass(slots=True, eq=False)
class _DecoratorScope:
    """A scope in which the decorated name still means what it did before."""

    scope: Scope
    before: _Snapshot

    def lookup(self, name: str) -> Meaning | None:
        return self.before.lookup(name) if name in self.before.seen else self.scope.lookup(name)


def _by_convention(name: str, found: Resolved, scope: Scope) -> Resolved:
    """Takes an unresolvable import of `tl` and its like for what everyone calls so."""
    usual = CONVENTIONS.get(name)
    if usual is None or _resolves(found.meaning):
        return found
    note = AssumedName(scope.file.path, name, f"`{name}` is taken to be `{usual.dotted}`", harmless=True)
    return Resolved(usual, (note,))


def _imported(definition: Imported, scope: Scope) -> Resolved:
    module, level, name = definition.module, definition.level, definition.name
    if not level and is_triton(module):
        owner = triton_module(module)
        return Resolved(member(owner, name) if name else owner)
    try:
        file = scope.project.module(module, scope.file, level)
        if name:
            return _from_module(file, module, level, name, scope)
    except FusionRefused as refused:
        return Resolved(Unresolved(refused.diagnostics[0].message))
    if file is not None:
        return Resolved(ProjectModule(module, module_scope(file, scope.project)))
    return Resolved(External(module))


def _from_module(file: SourceFile | None, module: str, level: int, name: str, scope: Scope) -> Resolved:
    # from module import name: an attribute of the module, or else a submodule
    if file is not None and file is not scope.file:
        found = module_scope(file, scope.project).resolve(name)
        if found is not None:
            return found
    submodule = f"{module}.{name}" if module else name
    below = scope.project.module(submodule, scope.file, level)
    if below is not None:
        return Resolved(ProjectModule(submodule, module_scope(below, scope.project)))
    if file is not None:
        return Resolved(Unresolved(f"`{file.path}` does not define `{name}`"))
    if level:
        return Resolved(Unresolved(f"there is no module `{'.' * level}{module}` beside `{scope.file.path}`"))
    return Resolved(External(f"{module}.{name}"))


def _defined(node: FunctionNode | ast.ClassDef, scope: _DecoratorScope) -> Meaning:
    if isinstance(node, ast.ClassDef):
        return Unresolved(f"`{node.name}` is a class")
    if isinstance(node, ast.AsyncFunctionDef):
        return Unresolved(f"`{node.name}` is a coroutine")
    for decorator in node.decorator_list:
        kind = _jit_kind(decorator, scope)
        if kind is not None:
            options = _jit_options(decorator, scope)
            where = scope.scope
            return JitDefinition(where.file, node, where, tuple(node.decorator_list), options, kind != JIT)
    if node.decorator_list:
        last = _brief(node.decorator_list[-1])
        return Unresolved(f"`{node.name}` is decorated with `{last}`, which is not `triton.jit`")
    return PlainFunction(scope.scope.file, node, scope.scope)


def jit_definition(node: ast.FunctionDef, file: SourceFile, project: Project) -> JitDefinition | None:
    """`node` as a jit function, when one of its decorators makes it so."""
    if not node.decorator_list:
        return None
    scope = enclosing_scope(node, file, project)
    meaning = _defined(node, _DecoratorScope(scope, _Snapshot(scope, {})))
    return meaning if isinstance(meaning, JitDefinition) else None


def _jit_kind(decorator: ast.expr, scope: Lookup) -> TritonObject | None:
    # @triton.jit, @triton.jit(do_not_specialize=["n"]), @functools.partial(triton.jit, noinline=True)
    target = decorator.func if isinstance(decorator, ast.Call) else decorator
    meaning = meaning_of(target, scope)
    if meaning == External("functools.partial") and isinstance(decorator, ast.Call) and decorator.args:
        meaning = meaning_of(decorator.args[0], scope)
    return meaning if isinstance(meaning, TritonObject) and meaning in (JIT, CONSTEXPR_FUNCTION, CONSTEXPR) else None


def _jit_options(decorator: ast.expr, scope: Lookup) -> dict[str, object]:
    options: dict[str, object] = {}
    for keyword in decorator.keywords if isinstance(decorator, ast.Call) else ():
        if keyword.arg is not None:
            try:
                options[keyword.arg] = fold(keyword.value, lambda node: folding_meaning(node, scope))
            except NotFoldable:
                continue
    return options


def _assigned(value: ast.expr, path: tuple[int, ...], scope: _Snapshot) -> Meaning:
    if path:
        return _unpacked(value, path, scope)
    if isinstance(value, ast.IfExp):
        return _either(value, scope)
    if isinstance(value, (ast.Name, ast.Attribute)):
        meaning = meaning_of(value, scope)
        if meaning is None:
            return Unresolved(f"`{ast.unparse(value)}` is not defined")
        return meaning
    if isinstance(value, ast.Call):
        made = _made_by_call(value, scope)
        if made is not None:
            return made
    return _folded(value, scope)


def _folded(value: ast.expr, scope: _Snapshot) -> Meaning:
    try:
        return fold_constant(value, lambda node: folding_meaning(node, scope))
    except NotFoldable as reason:
        why = str(reason)
    expected = with_environment_defaults(value) or value
    try:
        constant = fold_constant(expected, lambda node: _on_a_cuda_machine(node, scope))
    except NotFoldable:
        return Unresolved(why)
    text = f"`{_brief(value)}` is decided when the code runs; taken is `{constant.value!r}`"
    text += ", as with a current triton on CUDA"
    if expected is not value:
        text += " and no environment variable set"
    scope.assumed.append(AssumedName(scope.scope.file.path, _brief(value), text))
    return constant


def _on_a_cuda_machine(node: ast.expr, scope: _Snapshot) -> object:
    """As `folding_meaning`, with the usual answer to what only the machine can tell."""
    if isinstance(node, (ast.Name, ast.Attribute)):
        meaning = meaning_of(node, scope)
        if isinstance(meaning, External) and meaning.dotted in MACHINE_FACTS:
            return Assumed(MACHINE_FACTS[meaning.dotted])
        if meaning is not None and not isinstance(meaning, (External, PlainFunction, Unresolved)):
            return folding_meaning(node, scope)
    if isinstance(node, ast.Call):
        return _has_attribute(node, scope)
    verdict = decide(node)
    return Assumed(verdict.value) if verdict is not None else folding_meaning(node, scope)


def _has_attribute(node: ast.Call, scope: Lookup) -> Assumed | None:
    # hasattr(tl, "gather")
    match node.args:
        case [owner, ast.Constant(value=str(name))]:
            meaning = meaning_of(owner, scope)
            answer = exists(member(meaning, name)) if isinstance(meaning, TritonObject) else None
            return Assumed(answer) if answer is not None else None
    return None


def _brief(node: ast.expr) -> str:
    text = ast.unparse(node)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _unpacked(value: ast.expr, path: tuple[int, ...], scope: _Snapshot) -> Meaning:
    for depth, index in enumerate(path):
        if not isinstance(value, (ast.Tuple, ast.List)):
            whole = _folded(value, scope)
            return _element(whole, path[depth:])
        if any(isinstance(item, ast.Starred) for item in value.elts) or index >= len(value.elts):
            return Unresolved("it is unpacked from a value that is not a plain tuple")
        value = value.elts[index]
    return _assigned(value, (), scope)


def _element(whole: Meaning, path: tuple[int, ...]) -> Meaning:
    if not isinstance(whole, Constant):
        return whole
    element = whole.value
    for index in path:
        if not isinstance(element, (tuple, list)) or index >= len(element):
            return Unresolved("it is unpacked from a value that is not a plain tuple")
        element = element[index]
    return Constant(element)


def _either(value: ast.IfExp, scope: _Snapshot) -> Meaning:
    try:
        known = fold(value.test, lambda node: folding_meaning(node, scope))
    except NotFoldable:
        before = len(scope.assumed)
        tested = _folded(value.test, scope)
        verdict = Verdict(bool(tested.value), False) if isinstance(tested, Constant) else decide(value.test)
        first, second = (value.orelse, value.body) if verdict and not verdict.value else (value.body, value.orelse)
        meaning, other = _assigned(first, (), scope), _assigned(second, (), scope)
        if isinstance(binding_of(meaning), Unresolved):
            return other if not isinstance(binding_of(other), Unresolved) else meaning
        alternatives = _alternatives(meaning, [other])
        if alternatives:
            text = f"`{ast.unparse(value.test)}` is not known; `{ast.unparse(first)}` is taken"
            harmless = _is_arithmetic(meaning) and _is_arithmetic(other)
            if harmless:  # then so is what was assumed for the test
                del scope.assumed[before:]
            scope.assumed.append(AssumedName(scope.scope.file.path, ast.unparse(value), text, alternatives, harmless))
        return meaning
    return _assigned(value.body if known else value.orelse, (), scope)


def _made_by_call(value: ast.Call, scope: _Snapshot) -> Meaning | None:
    """The jit function that a call makes or wraps, or the module that it imports; None for any other call."""
    callee = meaning_of(value.func, scope)
    if callee == External("importlib.import_module"):
        return _import_call(value, scope)
    if callee is None and isinstance(value.func, ast.Name) and value.func.id == "getattr":
        return _getattr_call(value, scope)
    if isinstance(callee, PlainFunction) and not value.args and not value.keywords:
        return _chosen_by(callee, scope)
    if len(value.args) != 1 or value.keywords:
        return None
    outer = value.func.func if isinstance(value.func, ast.Call) else value.func
    wrapper = meaning_of(outer, scope)
    known = isinstance(wrapper, TritonObject) and wrapper in WRAPPERS | {CONSTEXPR_FUNCTION}
    if not known and last_name(outer) not in WRAPPER_NAMES:
        return None
    inner = _assigned(value.args[0], (), scope)
    if isinstance(inner, JitDefinition):
        return replace(inner, decorators=(value.func, *inner.decorators))
    if isinstance(inner, PlainFunction) and wrapper in (JIT, CONSTEXPR_FUNCTION):
        return JitDefinition(
            inner.file,
            inner.node,
            inner.scope,
            (value.func, *inner.node.decorator_list),
            _jit_options(value.func, scope),
            wrapper == CONSTEXPR_FUNCTION,
        )
    return inner if isinstance(inner, Unresolved) else None


def _chosen_by(function: PlainFunction, scope: _Snapshot) -> Meaning | None:
    # def get_exp(): return fast_expf if FAST else tl.exp
    docstring = [s for s in function.node.body if isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant)]
    rest = [statement for statement in function.node.body if statement not in docstring]
    if parameters_of(function.node.args) or len(rest) != 1 or not isinstance(rest[0], ast.Return):
        return None
    if not isinstance(rest[0].value, ast.IfExp):
        return None
    inside = _Snapshot(function.scope, function.scope.table.names)
    meaning = _either(rest[0].value, inside)
    if not isinstance(meaning, (TritonObject, JitDefinition)):
        return None
    scope.assumed += inside.assumed
    return meaning


def _import_call(value: ast.Call, scope: _Snapshot) -> Meaning | None:
    # importlib.import_module("triton.language")
    if len(value.args) != 1 or not isinstance(value.args[0], ast.Constant) or not isinstance(value.args[0].value, str):
        return None
    return _imported(Imported(value.args[0].value), scope.scope).meaning


def _getattr_call(value: ast.Call, scope: _Snapshot) -> Meaning | None:
    # getattr(tl, "exp2")
    if len(value.args) not in (2, 3) or not isinstance(value.args[1], ast.Constant):
        return None
    name = value.args[1].value
    if not isinstance(name, str):
        return None
    owner = meaning_of(value.args[0], scope)
    return attribute(owner, name) if owner is not None else None


def _resolves(meaning: Meaning) -> bool:
    return isinstance(meaning, ProjectModule) or not isinstance(binding_of(meaning), Unresolved)


def _alternatives(best: Meaning, others: list[Meaning]) -> tuple[Binding, ...]:
    """The bindings among `others` that differ from `best` in a way that could matter."""
    chosen = binding_of(best)
    different: list[Binding] = []
    for other in others:
        binding = binding_of(other)
        stand_in = isinstance(binding, Unresolved) or (
            not isinstance(chosen, Constant) and isinstance(binding, Constant)  # tl = None where triton is missing
        )
        if not stand_in and _distinct(other, best) and binding not in different:
            different.append(binding)
    return tuple(different)


ARITHMETIC = frozenset(
    "abs acos asin atan atan2 ceil cos cosh cdiv clamp div_rn div_rz dot erf exp exp2 exp10 expm1 fast_dividef fast_expf"
    " fast_log2f fast_logf fast_powf fast_tanhf fdiv float_as_int floor fma log log10 log1p log2 maximum minimum pow"
    " rsqrt sigmoid sin sinh softmax sqrt sqrt_rn tan tanh trunc where".split()
)
"""Functions of Triton that compute a number from numbers, and take and give nothing else."""


def _is_arithmetic(meaning: Meaning) -> bool:
    """Whether calling `meaning` can do no more than compute a number: one of Triton's own functions, or a jit function
    that returns one expression of those."""
    if isinstance(meaning, TritonObject):
        return meaning.attribute.rpartition(".")[2] in ARITHMETIC
    if not isinstance(meaning, JitDefinition):
        return False
    docstring = [s for s in meaning.node.body if isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant)]
    rest = [statement for statement in meaning.node.body if statement not in docstring]
    if len(rest) != 1 or not isinstance(rest[0], ast.Return) or rest[0].value is None:
        return False
    hidden = locals_of(meaning.node)
    for node in walk(rest[0].value):
        if isinstance(node, (ast.IfExp, ast.BoolOp, ast.NamedExpr, ast.Lambda)):
            return False
        if not isinstance(node, ast.Call):
            continue
        if isinstance(node.func, ast.Attribute) and node.func.attr == "to":
            continue
        called = meaning_of(node.func, meaning.scope)
        root = node.func
        while isinstance(root, ast.Attribute):
            root = root.value
        if not isinstance(root, ast.Name) or root.id in hidden:
            return False
        if not isinstance(called, TritonObject) or not _is_arithmetic(called):
            return False
    return True


def _distinct(one: Meaning, other: Meaning) -> bool:
    if isinstance(one, JitDefinition) and isinstance(other, JitDefinition):
        return one.node is not other.node
    if isinstance(one, Constant) and isinstance(other, Constant):
        return type(one.value) is not type(other.value) or one != other
    return one != other


# ---------------------------------------------------------------------------------------------------------- expressions


def meaning_of(expression: ast.expr, scope: Lookup) -> Meaning | None:
    """The meaning of a name or dotted name; None when it is neither, or nothing binds it."""
    if isinstance(expression, ast.Name):
        return scope.lookup(expression.id)
    if isinstance(expression, ast.Attribute):
        owner = meaning_of(expression.value, scope)
        return attribute(owner, expression.attr) if owner is not None else None
    return None


def attribute(owner: Meaning, name: str) -> Meaning | None:
    """The meaning of `owner.name`."""
    match owner:
        case TritonObject():
            return member(owner, name)
        case External(dotted):
            return External(f"{dotted}.{name}")
        case ProjectModule():
            return _module_attribute(owner, name)
        case JitDefinition() if name == "fn":
            return owner
        case Namespace(members=members):
            return members.get(name)
        case Unresolved():
            return owner
    return None


def _module_attribute(owner: ProjectModule, name: str) -> Meaning | None:
    found = owner.scope.resolve(name)
    if found is not None:
        return found.meaning
    file = owner.scope.file
    if not file.location.endswith("__init__.py"):
        return Unresolved(f"`{file.path}` does not define `{name}`")
    try:
        below = owner.scope.project.module(name, file, 1)
    except FusionRefused as refused:
        return Unresolved(refused.diagnostics[0].message)
    if below is None:
        return Unresolved(f"`{file.path}` does not define `{name}`")
    return ProjectModule(f"{owner.name}.{name}", module_scope(below, owner.scope.project))


def folding_meaning(node: ast.expr, scope: Lookup) -> object:
    """What `folding` is told about a name: a jit function as its `FunctionRef`, the rest as it is."""
    meaning = meaning_of(node, scope)
    if isinstance(meaning, PlainFunction) and not any(meaning.scope.lookup(name) for name in ("range", "str", "len")):
        binding = binding_of(meaning)
        return HostCode(meaning.node, binding.reason if isinstance(binding, Unresolved) else "")
    return binding_of(meaning) if isinstance(meaning, (JitDefinition, PlainFunction, ProjectModule)) else meaning


def resolve(expression: ast.expr, scope: Lookup) -> Binding | None:
    """The binding of a name or dotted name in `scope`; None when nothing there binds it, as for a builtin."""
    meaning = meaning_of(expression, scope)
    return binding_of(meaning) if meaning is not None else None


# ------------------------------------------------------------------------------------------------- inside jit functions


@dataclass(frozen=True, slots=True)
class ClosureScope:
    """The global names of one function of a closure, without those that a local variable hides."""

    bindings: Mapping[str, Binding]
    hidden: frozenset[str]

    def lookup(self, name: str) -> Binding | None:
        return None if name in self.hidden else self.bindings.get(name)


def scope_of(function: Function, closure: Closure) -> ClosureScope:
    """The scope to resolve expressions of `function`'s body in."""
    return ClosureScope(closure.bindings.get(function.ref.file, {}), locals_of(function.node))


def callee(call: ast.Call, function: Function, closure: Closure) -> Binding | None:
    """What `call`, which stands in `function`, calls; None for a builtin, a method, or a value only the call's
    surroundings know (a parameter, a local variable)."""
    return resolve_in_closure(call.func, scope_of(function, closure))


def resolve_in_closure(expression: ast.expr, scope: ClosureScope) -> Binding | None:
    """As `resolve`, over the bindings of a closure."""
    if isinstance(expression, ast.Name):
        return scope.lookup(expression.id)
    if not isinstance(expression, ast.Attribute):
        return None
    owner = resolve_in_closure(expression.value, scope)
    match owner:
        case TritonObject():
            return member(owner, expression.attr)
        case Namespace(members=members):
            return members.get(expression.attr)
        case FunctionRef() if expression.attr == "fn":
            return owner
        case Unresolved():
            return owner
    return None


@lru_cache(maxsize=1024)  # asked for at every call of a function
def locals_of(node: ast.FunctionDef) -> frozenset[str]:
    """The names that are local to `node`, or to a function or comprehension inside it: parameters and all that is
    assigned."""
    names = set(parameters_of(node.args))
    shared: set[str] = set()
    for inner in (inner for statement in node.body for inner in walk(statement)):
        match inner:
            case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
                names.add(name)
            case ast.arg(arg=name):
                names.add(name)
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                names.add(name)
            case ast.Import() | ast.ImportFrom():
                names.update(alias.asname or alias.name.partition(".")[0] for alias in inner.names)
            case ast.ExceptHandler(name=str(name)):
                names.add(name)
            case ast.Global() | ast.Nonlocal():
                shared.update(inner.names)
    return frozenset(names - shared)
