"""What each name of a module or a function body is bound to, as definitions in the order Python would try them.

A scope is a table from name to candidate definitions. Straight-line code leaves one candidate, the last; a branch that
cannot be decided without running it leaves one for each way through.
"""

from __future__ import annotations

import ast
import copy
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from kernel_rewrite.source.syntax import walk

# A CUDA machine with a current triton is the one whose branch is tried first.
_TRUE_THERE = re.compile(
    r"_*(has|have|is|use|with)?_*(triton|cuda|nvidia|libdevice)(_*(available|installed|importable|backend|gpu))?",
    re.IGNORECASE,
)
_FALSE_THERE = re.compile(
    r"_*(is|use|has|on|in|with)?_*(hip|rocm|amd|amdgpu|cdna\d?|gfx\d\w*|npu|ascend|xpu|intel|cpu|mps|musa|mlu"
    r"|nvidia_blackwell|interpret(er)?|triton_interpret)(_*(available|installed|backend|gpu|mode|supported))?",
    re.IGNORECASE,
)
_OTHER_DEVICES = frozenset({"hip", "rocm", "amd", "xpu", "npu", "mps", "cpu", "musa", "mlu", "hpu", "ascend", "intel"})
CURRENT_TRITON = (3, 5)
CURRENT_PYTHON = (3, 10)


@dataclass(frozen=True, slots=True, eq=False)
class Defined:
    """`def name(...)` or `class name`; `seen` holds what its decorators' names meant there."""

    node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    seen: Mapping[str, Candidates]


@dataclass(frozen=True, slots=True, eq=False)
class Imported:
    """`import module` (`name` empty: the module itself) or `from module import name`."""

    module: str
    level: int = 0
    name: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Assigned:
    """`name = value`, or the part of `value` that `path` leads to when it is unpacked; `seen` holds what the names in
    `value` meant at that point."""

    value: ast.expr
    seen: Mapping[str, Candidates]
    path: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Opaque:
    """Bound by something whose value only a run can tell."""

    reason: str


Definition = Defined | Imported | Assigned | Opaque
Candidates = tuple[Definition, ...]


@dataclass(slots=True)
class Table:
    """The names of one scope. `stars` are the star imports whose names could not be listed, last first."""

    names: dict[str, Candidates] = field(default_factory=dict)
    stars: list[Imported] = field(default_factory=list)
    exports: list[str] | None = None


class Knowledge(Protocol):
    """What the reader of a scope asks about the expressions it meets; `seen` are the names bound at that point."""

    def star_names(self, star: Imported) -> Iterable[str] | None:
        """What a star import brings; None when that is unknown."""

    def truth(self, test: ast.expr, seen: Mapping[str, Candidates]) -> Verdict | None:
        """Which way a condition goes."""

    def works(self, statement: ast.stmt, seen: Mapping[str, Candidates]) -> bool | None:
        """Whether an import or assignment succeeds with any current triton; None when that is unknown."""


def fill(
    table: Table, body: list[ast.stmt], knowledge: Knowledge, parameters: Iterable[str] = (), owner: str = ""
) -> None:
    """Puts the names that `body` binds into `table`."""
    for parameter in parameters:
        table.names[parameter] = (Opaque(f"it is a parameter of `{owner}`"),)
    reader = _Reader(table, knowledge)
    if owner:
        reader.block(body)
        return
    for statement in body:  # a module whose top level raises is still read to its end
        reader.statement(statement)


class _Reader:
    def __init__(self, table: Table, knowledge: Knowledge) -> None:
        self.table = table
        self.knowledge = knowledge

    @property
    def names(self) -> dict[str, Candidates]:
        return self.table.names

    def block(self, body: list[ast.stmt]) -> bool:
        """Reads `body`; True when it always leaves (by raise, return, continue or break)."""
        for statement in body:
            if self.statement(statement):
                return True
        return False

    def statement(self, node: ast.stmt) -> bool:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                seen = self.seen(*node.decorator_list)
                self.names[node.name] = (Defined(node, seen),)
            case ast.Import():
                for alias in node.names:
                    whole = alias.asname is not None
                    module = alias.name if whole else alias.name.partition(".")[0]
                    self.names[alias.asname or module] = (Imported(module),)
            case ast.ImportFrom():
                self.import_from(node)
            case ast.Assign():
                for target in node.targets:
                    self.assign(target, node.value, self.seen(node.value))
            case ast.AnnAssign() if node.value is not None:
                self.assign(node.target, node.value, self.seen(node.value))
            case ast.AugAssign():
                self.augment(node)
            case ast.Delete():
                for target in node.targets:
                    if isinstance(target, ast.Name):
                        self.names.pop(target.id, None)
            case ast.If():
                return self.branch(node)
            case ast.Try():
                return self.attempt(node)
            case _ if type(node).__name__ == "TryStar":  # try: ... except* E: ..., from Python 3.11 on
                handlers: list[ast.ExceptHandler] = getattr(node, "handlers", [])
                body = [*getattr(node, "body", []), *(inner for handler in handlers for inner in handler.body)]
                self.loop(body, getattr(node, "finalbody", []))
            case ast.With() | ast.AsyncWith():
                for item in node.items:
                    if item.optional_vars is not None:
                        self.opaque(item.optional_vars, "it is bound by a `with` statement")
                return self.block(node.body)
            case ast.For() | ast.AsyncFor():
                self.opaque(node.target, "it is bound by a loop")
                self.loop(node.body, node.orelse)
            case ast.While():
                self.loop(node.body, node.orelse)
            case ast.Match():
                self.alternatives([case.body for case in node.cases], also_none=True)
            case ast.Raise() | ast.Return() | ast.Continue() | ast.Break():
                return True
        for walrus in _walruses(node):
            self.opaque(walrus.target, "it is bound inside an expression")
        return False

    # ---------------------------------------------------------------------------------------------------- assignments

    def import_from(self, node: ast.ImportFrom) -> None:
        module = node.module or ""
        for alias in node.names:
            if alias.name != "*":
                self.names[alias.asname or alias.name] = (Imported(module, node.level, alias.name),)
                continue
            star = Imported(module, node.level)
            names = self.knowledge.star_names(star)
            if names is None:
                self.table.stars.insert(0, star)
                continue
            for name in names:
                self.names[name] = (Imported(module, node.level, name),)

    def assign(
        self, target: ast.expr, value: ast.expr, seen: Mapping[str, Candidates], path: tuple[int, ...] = ()
    ) -> None:
        if isinstance(target, ast.Name):
            if target.id == "__all__":
                self.table.exports = _strings(value)
            self.names[target.id] = (Assigned(value, seen, path),)
        elif isinstance(target, (ast.Tuple, ast.List)):
            if any(isinstance(item, ast.Starred) for item in target.elts):
                self.opaque(target, "it is unpacked from a starred assignment")
                return
            for index, item in enumerate(target.elts):
                self.assign(item, value, seen, (*path, index))

    def augment(self, node: ast.AugAssign) -> None:
        if not isinstance(node.target, ast.Name):
            return
        name = node.target.id
        if name == "__all__":
            added = _strings(node.value)
            both = self.table.exports is not None and added is not None
            self.table.exports = [*(self.table.exports or ()), *(added or ())] if both else None
        # X += 1 has the value of X + 1
        value = ast.copy_location(ast.BinOp(ast.copy_location(ast.Name(name), node.target), node.op, node.value), node)
        self.names[name] = (Assigned(value, self.seen(value)),)

    def opaque(self, target: ast.expr, reason: str) -> None:
        for node in walk(target):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                self.names[node.id] = (Opaque(reason),)

    def seen(self, *nodes: ast.expr) -> dict[str, Candidates]:
        loaded = {n.id for node in nodes for n in walk(node) if isinstance(n, ast.Name)}
        return {name: self.names[name] for name in loaded if name in self.names}

    # --------------------------------------------------------------------------------------------------------- branches

    def branch(self, node: ast.If) -> bool:
        verdict = self.knowledge.truth(node.test, self.seen(node.test))
        if verdict is not None and verdict.certain:
            return self.block(node.body if verdict.value else node.orelse)
        bodies = [node.body, node.orelse]
        if verdict is not None and not verdict.value:
            bodies.reverse()
        return self.alternatives(bodies)

    def attempt(self, node: ast.Try) -> bool:
        outcome = self.first_failure(node.body)
        if outcome is True:  # nothing in it can fail, so no handler runs
            leaves = self.block([*node.body, *node.orelse])
        else:
            bodies = [[*node.body, *node.orelse], *(handler.body for handler in node.handlers)]
            if outcome is False:
                bodies = [*bodies[1:], bodies[0]]
            leaves = self.alternatives(bodies)
        return self.block(node.finalbody) or leaves

    def first_failure(self, body: list[ast.stmt]) -> bool | None:
        """True when every statement of `body` works, False when one is known to fail before any that is unknown."""
        seen = dict(self.names)
        for statement in body:
            loaded = {n.id for n in walk(statement) if isinstance(n, ast.Name)}
            works = self.knowledge.works(statement, {name: seen[name] for name in loaded if name in seen})
            if works is not True:
                return works
            if isinstance(statement, ast.Import):
                for alias in statement.names:
                    seen[alias.asname or alias.name.partition(".")[0]] = (
                        Imported(alias.name if alias.asname else alias.name.partition(".")[0]),
                    )
        return True

    def loop(self, body: list[ast.stmt], orelse: list[ast.stmt]) -> None:
        changed = _assigned(body)
        before = dict(self.names)
        self.block(body)
        for name in changed:  # a later round may see what an earlier one left
            if any(isinstance(definition, Assigned) for definition in self.names.get(name, ())):
                self.names[name] = (Opaque("it is assigned in a loop"), *before.get(name, ()))
        self.block(orelse)

    def alternatives(self, bodies: list[list[ast.stmt]], also_none: bool = False) -> bool:
        before = dict(self.names)
        outcomes: list[dict[str, Candidates]] = []
        for body in bodies:
            self.table.names = dict(before)
            if not self.block(body):
                outcomes.append(self.table.names)
        if also_none:
            outcomes.append(before)
        self.table.names = {}
        for outcome in outcomes:
            for name in outcome:
                if name not in self.names:
                    self.names[name] = _merged(*(other.get(name, ()) for other in outcomes))
        if not outcomes:
            self.table.names = before
        return not outcomes


def _merged(*several: Candidates) -> Candidates:
    return tuple(dict.fromkeys(definition for candidates in several for definition in candidates))


def _walruses(node: ast.stmt) -> Iterable[ast.NamedExpr]:
    blocks = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.If, ast.For, ast.While, ast.Try, ast.With)
    if isinstance(node, blocks):
        return ()
    return (inner for inner in walk(node) if isinstance(inner, ast.NamedExpr))


def _assigned(body: list[ast.stmt]) -> set[str]:
    return {
        node.id
        for statement in body
        for node in walk(statement)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }


def _strings(value: ast.expr) -> list[str] | None:
    """The strings of a literal list or tuple, of a sum of such, else None."""
    if isinstance(value, ast.BinOp) and isinstance(value.op, ast.Add):
        left, right = _strings(value.left), _strings(value.right)
        return [*left, *right] if left is not None and right is not None else None
    if not isinstance(value, (ast.List, ast.Tuple, ast.Set)):
        return None
    texts = [item.value for item in value.elts if isinstance(item, ast.Constant) and isinstance(item.value, str)]
    return texts if len(texts) == len(value.elts) else None


# ----------------------------------------------------------------------------------------------------------- conditions


@dataclass(frozen=True, slots=True)
class Verdict:
    """Which way a condition goes: `certain` on any machine, otherwise on a CUDA machine with a current triton."""

    value: bool
    certain: bool


def decide(test: ast.expr) -> Verdict | None:
    """Which way `test` goes, when its spelling alone tells."""
    match test:
        case ast.Constant():
            return Verdict(bool(test.value), certain=True)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            inner = decide(operand)
            return Verdict(not inner.value, inner.certain) if inner else None
        case ast.BoolOp(op=op, values=values):
            return _decide_several(isinstance(op, ast.Or), [decide(value) for value in values])
        case ast.Compare(left=left, ops=[op], comparators=[right]):
            return _decide_comparison(left, op, right)
        case ast.Call(func=func, args=[]) if not test.keywords:
            return _decide_name(func)
        case ast.Name() | ast.Attribute():
            return _decide_name(test)
    return None


def _decide_several(is_or: bool, verdicts: list[Verdict | None]) -> Verdict | None:
    settling = next((v for v in verdicts if v is not None and v.value is is_or), None)
    if settling is not None:
        return settling
    known = [v for v in verdicts if v is not None]
    if len(known) < len(verdicts):
        return None
    return Verdict(not is_or, all(v.certain for v in known))


def _decide_name(node: ast.expr) -> Verdict | None:
    name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
    if name == "TYPE_CHECKING":
        return Verdict(False, certain=True)
    if _FALSE_THERE.fullmatch(name):
        return Verdict(False, certain=False)
    if name == "is_available" and isinstance(node, ast.Attribute):  # torch.cuda.is_available()
        return Verdict(isinstance(node.value, ast.Attribute) and node.value.attr == "cuda", certain=False)
    if _TRUE_THERE.fullmatch(name):
        return Verdict(True, certain=False)
    return None


def _decide_comparison(left: ast.expr, op: ast.cmpop, right: ast.expr) -> Verdict | None:
    text = ast.unparse(left)
    if text == "__name__":
        return Verdict(isinstance(op, ast.NotEq), certain=True)
    if text.endswith("version.hip"):
        return Verdict(isinstance(op, (ast.Is, ast.Eq)), certain=False)
    if text.endswith("version.cuda"):
        return Verdict(isinstance(op, (ast.IsNot, ast.NotEq)), certain=False)
    if isinstance(op, (ast.Eq, ast.NotEq)) and isinstance(right, ast.Constant) and right.value in _OTHER_DEVICES:
        return Verdict(isinstance(op, ast.NotEq), certain=False)  # DEVICE_TYPE == "xpu"
    if isinstance(op, (ast.Eq, ast.NotEq)) and isinstance(right, ast.Constant) and right.value in ("cuda", "nvidia"):
        return Verdict(isinstance(op, ast.Eq), certain=False)
    ours = CURRENT_TRITON if "triton" in text.lower() else CURRENT_PYTHON if "sys.version_info" in text else None
    theirs = _version(right)
    if ours is None or theirs is None:
        return None
    if isinstance(op, (ast.GtE, ast.Gt)) and theirs <= ours:
        return Verdict(True, certain=False)
    if isinstance(op, (ast.Lt, ast.LtE)) and theirs <= ours:
        return Verdict(False, certain=False)
    return None


def _version(node: ast.expr) -> tuple[int, ...] | None:
    numbers = re.findall(r"\d+", ast.unparse(node))
    return tuple(int(number) for number in numbers[:2]) if numbers else None


# ------------------------------------------------------------------------------------------- the environment's defaults


_ENVIRONMENT_READERS = frozenset({"os.environ.get", "os.getenv", "environ.get", "getenv"})


class _EnvironmentDefaults(ast.NodeTransformer):
    """os.environ.get("NAME", DEFAULT) -> DEFAULT, and str methods on what then is a literal."""

    def __init__(self) -> None:
        self.changed = False

    def visit_Call(self, node: ast.Call) -> ast.expr:
        self.generic_visit(node)
        if ast.unparse(node.func) in _ENVIRONMENT_READERS and 1 <= len(node.args) <= 2:
            self.changed = True
            return node.args[1] if len(node.args) == 2 else ast.copy_location(ast.Constant(None), node)
        match node.func:
            case ast.Attribute(value=ast.Constant(value=str(text)), attr="lower" | "upper" | "strip") if not node.args:
                return ast.copy_location(ast.Constant(getattr(text, node.func.attr)()), node)
        return node


def with_environment_defaults(node: ast.expr) -> ast.expr | None:
    """`node` as it is when no environment variable is set; None when it reads none."""
    if not any(getattr(inner, "attr", getattr(inner, "id", "")) in ("environ", "getenv") for inner in walk(node)):
        return None
    transformer = _EnvironmentDefaults()
    result = transformer.visit(copy.deepcopy(node))
    return result if transformer.changed else None
