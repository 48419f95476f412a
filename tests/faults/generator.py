"""Wrong rewrites: small faults put into a right fused file, each with its kind.

A fault is a set of changes to nodes of the syntax tree of the fused text; `spoiled` prints the tree with them made. The
table FAULTS holds one generator a kind, so adding a fault is adding a row.
"""

from __future__ import annotations

import ast
import copy
import random
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace

from kernel_rewrite.diagnostics import FusionRefused
from kernel_rewrite.pointwise.language import parse_epilogue
from kernel_rewrite.request import element_type_of
from kernel_rewrite.rewrite.additions import Replaced
from tests.faults.aligned import LoadedSite, loaded_sites
from tests.faults.cases import Case, rewritten

Change = tuple[ast.AST, str, object]


@dataclass(frozen=True)
class Fault:
    """`changes` give fields of nodes new values; `text` is a whole file instead."""

    kind: str
    what: str
    changes: tuple[Change, ...] = ()
    text: str = ""


@dataclass(frozen=True)
class Site:
    """A call whose argument the rewrite changed: `put` makes the change that gives that argument another expression."""

    call: ast.Call
    function: ast.FunctionDef
    original: ast.expr
    fused: ast.expr

    def put(self, value: ast.expr) -> Change:
        for keyword in self.call.keywords:
            if keyword.value is self.fused:
                return keyword, "value", value
        return self.call, "args", [value if argument is self.fused else argument for argument in self.call.args]


@dataclass
class Scene:
    """The fused file as a tree, and what matters in it."""

    case: Case
    tree: ast.Module
    functions: list[ast.FunctionDef]
    """The kernel and the helpers it reaches, as they stand in the fused file, copies too."""
    helpers: list[ast.FunctionDef]
    """The functions of the epilogue."""
    sites: list[Site]
    operand_loads: list[ast.expr]
    """What the epilogue loads beside the stored value."""
    copies: dict[str, str]
    """Copy of a helper -> the helper."""
    loaded: list[LoadedSite] = field(default_factory=list)
    kept: list[ast.expr] = field(default_factory=list)
    """The expressions that are computed once, for a store that keeps the original value and one of E."""
    parents: dict[ast.AST, ast.AST] = field(default_factory=dict)

    @classmethod
    def of(cls, case: Case) -> Scene:
        tree = ast.parse(case.text)
        analysis = case.analysis
        defined = {n.name: n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)}
        names = {n.name for n in ast.walk(analysis.kernel.file.tree) if isinstance(n, ast.FunctionDef)}
        copies = {clone.name: clone.helper.name for clone in case.rewrite.clones}
        here = [f for f in analysis.closure.functions if f.ref.file == analysis.kernel.file.path]
        originals = {f.name: f.node for f in analysis.closure.functions}
        functions = [defined[f.name] for f in here] + [defined[name] for name in copies]
        helpers = [f for name, f in defined.items() if name not in names and name not in copies]
        made_for = {clone.name: clone.plan for clone in case.rewrite.clones}
        sites, loads, loaded, kept = [], [], [], []
        for function in functions:
            original = originals[copies.get(function.name, function.name)]
            loads += _loads_of_operands(function, original)
            sites += _sites(function, original)
            kept += _kept_values(function, original)
            loaded += loaded_sites(case.rewrite, function, original, made_for.get(function.name))
        scene = cls(case, tree, functions, helpers, sites, loads, copies, loaded, kept)
        for node in ast.walk(tree):
            for child in ast.iter_child_nodes(node):
                scene.parents[child] = node
        return scene

    def spoiled(self, fault: Fault) -> str:
        """The text of the file with the fault in it."""
        if fault.text:
            return fault.text
        before = [(node, name, getattr(node, name)) for node, name, _ in fault.changes]
        try:
            for node, name, value in fault.changes:
                setattr(node, name, value)
            return ast.unparse(ast.fix_missing_locations(self.tree)) + "\n"
        finally:
            for node, name, value in before:
                setattr(node, name, value)

    def nodes(self, *kinds: type[ast.AST]) -> Iterator[ast.AST]:
        """The nodes of these kinds in the bodies of the kernel, its helpers and the epilogue."""
        for function in (*self.functions, *self.helpers):
            for statement in function.body:
                yield from (n for n in ast.walk(statement) if isinstance(n, kinds))

    def memory_calls(self) -> Iterator[ast.Call]:
        for function in self.functions:
            yield from _memory_calls(function)


def _memory_calls(function: ast.FunctionDef) -> list[ast.Call]:
    calls = [n for n in ast.walk(function) if isinstance(n, ast.Call) and isinstance(n.func, (ast.Attribute, ast.Name))]
    return sorted((c for c in calls if is_memory(c)), key=lambda c: (c.lineno, c.col_offset))


def is_memory(call: ast.Call) -> bool:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    return name in ("load", "store") or name.startswith(("atomic_", "load_tensor", "store_tensor"))


def is_store(call: ast.Call) -> bool:
    return is_memory(call) and "store" in ast.unparse(call.func).rsplit(".", 1)[-1]


def _loads_of_operands(function: ast.FunctionDef, original: ast.FunctionDef) -> list[ast.expr]:
    """What is assigned to names that the original does not have: `bias = tl.load(...)`."""
    names = {node.id for node in ast.walk(original) if isinstance(node, ast.Name)}
    assigned = [node for node in ast.walk(function) if isinstance(node, ast.Assign)]
    new = [node.value for node in assigned if isinstance(t := node.targets[0], ast.Name) and t.id not in names]
    return [value for value in new if isinstance(value, ast.Call) and is_memory(value)]


def _stores_that_keep(function: ast.FunctionDef, original: ast.FunctionDef) -> list[ast.expr]:
    """The stores through pointers that the original does not have."""
    names = {node.id for node in ast.walk(original) if isinstance(node, ast.Name)}
    names |= {argument.arg for argument in original.args.args}
    stores = [call for call in _memory_calls(function) if is_store(call)]
    pointers = [ast.walk(_pointer_of(call)) for call in stores]
    new = [any(isinstance(node, ast.Name) and node.id not in names for node in nodes) for nodes in pointers]
    return [call for call, is_new in zip(stores, new, strict=True) if is_new]


def _kept_values(function: ast.FunctionDef, original: ast.FunctionDef) -> Iterator[ast.expr]:
    """What is assigned to a new name that a store of `_stores_that_keep` stores."""
    names = {node.id for node in ast.walk(original) if isinstance(node, ast.Name)}
    stores = _stores_that_keep(function, original)
    stored = {n.id for call in stores for n in ast.walk(call) if isinstance(n, ast.Name)} - names
    for node in ast.walk(function):
        if isinstance(node, ast.Assign) and isinstance(t := node.targets[0], ast.Name) and t.id in stored:
            yield node.value


def _pointer_of(call: ast.Call) -> ast.expr:
    named = [keyword.value for keyword in call.keywords if keyword.arg == "pointer"]
    return call.func if _is_method(call) else (named or call.args)[0]


def _is_method(call: ast.Call) -> bool:
    """`desc.store(offsets, value)`, not `tl.store(pointer, value)`."""
    return isinstance(call.func, ast.Attribute) and ast.unparse(call.func.value) != "tl"


def _sites(function: ast.FunctionDef, original: ast.FunctionDef) -> Iterator[Site]:
    added = [*_loads_of_operands(function, original), *_stores_that_keep(function, original)]
    fused, before = [c for c in _memory_calls(function) if c not in added], _memory_calls(original)
    fused.sort(key=is_store)  # what a store holds may be loaded in a line before it
    before.sort(key=is_store)
    assert len(fused) == len(before), function.name
    for call, its in zip(fused, before, strict=True):
        now = [*call.args, *(k.value for k in call.keywords)]
        then = [*its.args, *(k.value for k in its.keywords)]
        for argument, old in zip(now, then, strict=True):
            if ast.dump(argument) != ast.dump(old):
                yield Site(call, function, old, argument)


class _Replace(ast.NodeTransformer):
    def __init__(self, dump: str, new: ast.expr) -> None:
        self.dump, self.new = dump, new

    def visit(self, node: ast.AST) -> ast.AST:
        if isinstance(node, ast.expr) and ast.dump(node) == self.dump:
            return copy.deepcopy(self.new)
        return super().generic_visit(node)


def _substituted(expression: ast.expr, old: ast.expr, new: ast.expr) -> ast.expr:
    """`expression` with every copy of `old` replaced."""
    found = _Replace(ast.dump(old), new).visit(copy.deepcopy(expression))
    assert isinstance(found, ast.expr)
    return found


def _expression(text: str) -> ast.expr:
    return ast.parse(text, mode="eval").body


def _statements(text: str) -> list[ast.stmt]:
    return ast.parse(text).body


def _line(node: ast.AST) -> str:
    return f"line {getattr(node, 'lineno', '?')}"


def _body_of(scene: Scene, statement: ast.stmt) -> tuple[ast.AST, str, list[ast.stmt]] | None:
    """The list that holds a statement."""
    parent = scene.parents[statement]
    for name in ("body", "orelse"):
        body = getattr(parent, name, None)
        if isinstance(body, list) and statement in body:
            return parent, name, body
    return None


def _statement_of(scene: Scene, node: ast.AST) -> ast.stmt:
    while not isinstance(node, ast.stmt):
        node = scene.parents[node]
    return node


# -------------------------------------------------------------------------------------------------- faults of the value


def dropped_epilogue(scene: Scene) -> Iterator[Fault]:
    for site in scene.sites:
        yield Fault("epilogue dropped at a site", _line(site.call), (site.put(site.original),))


def applied_twice(scene: Scene) -> Iterator[Fault]:
    for site in scene.sites:
        twice = _substituted(site.fused, site.original, site.fused)
        yield Fault("epilogue applied twice", _line(site.call), (site.put(twice),))


_WRONG_OPS = ("-({})", "({}) * 2", "({}) + 1", "tl.abs({})", "tl.exp(({}).to(tl.float32))", "({}) * ({})")


def wrong_op(scene: Scene) -> Iterator[Fault]:
    for site in scene.sites:
        for pattern in _WRONG_OPS:
            for inner in (site.original, site.fused):
                text = pattern.replace("{}", ast.unparse(inner))
                yield Fault("wrong op at a site", text, (site.put(_expression(text)),))


def wrong_op_everywhere(scene: Scene) -> Iterator[Fault]:

    case = scene.case
    if not case.requests:
        return
    for op in (
        "relu",
        "gelu",
        "sigmoid",
        "tanh",
        "square",
        "gelu(approximate='tanh')",
        "leaky_relu(0.01)",
        "clamp(0, 5)",
    ):
        wrong = tuple(replace(r, text=op, pointwise=parse_epilogue(op)) for r in case.requests)
        if any(w.text == r.text for w, r in zip(wrong, case.requests, strict=True)):
            continue
        try:
            _, text = rewritten(case.analysis, wrong, case.numerics, inputs=case.inputs)
        except FusionRefused:
            continue
        yield Fault("another op everywhere", op, text=text)


def wrong_value(scene: Scene) -> Iterator[Fault]:
    for site in scene.sites:
        names = {n.id for n in ast.walk(site.function) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
        inside = {n.id for n in ast.walk(site.original) if isinstance(n, ast.Name)}
        for name in sorted(names - inside):
            other = _substituted(site.fused, site.original, ast.Name(name, ast.Load()))
            yield Fault("another value stored", name, (site.put(other),))


_ROUNDINGS = {"tl.float16": "fp16", "tl.bfloat16": "bf16", "tl.int32": "i32", "tl.float64": "fp64"}


def wrong_rounding(scene: Scene) -> Iterator[Fault]:
    views, requests = scene.case.views, scene.case.requests
    elements = {element_type_of(view.specialization, request.output) for view in views for request in requests}
    for site in scene.sites:
        value = ast.unparse(site.original)
        for dtype, element in _ROUNDINGS.items():
            if element in elements:
                continue  # what the store does anyway, or E has been told to do
            cast = _expression(f"({value}).to({dtype})")
            yield Fault("dtype", f"{dtype} before E", (site.put(_substituted(site.fused, site.original, cast)),))
            after = _expression(f"({ast.unparse(site.fused)}).to({dtype})")
            yield Fault("dtype", f"{dtype} after E", (site.put(after),))


def wrong_constant(scene: Scene) -> Iterator[Fault]:
    for node in scene.nodes(ast.Constant):
        assert isinstance(node, ast.Constant)
        if type(node.value) not in (int, float):
            continue
        number = node.value
        for new in (number + 1, number * 2 if number else -1, -number):
            if new != number:
                yield Fault("constant", f"{number} -> {new} at {_line(node)}", ((node, "value", new),))


# ------------------------------------------------------------------------------------------------- faults of the kernel


_ORDERED = (ast.Sub, ast.Div, ast.FloorDiv, ast.Mod, ast.LShift, ast.RShift, ast.Pow)


def swapped_operands(scene: Scene) -> Iterator[Fault]:
    for node in scene.nodes(ast.BinOp, ast.Compare, ast.Call):
        if isinstance(node, ast.BinOp) and isinstance(node.op, _ORDERED):
            yield Fault("operands swapped", _line(node), ((node, "left", node.right), (node, "right", node.left)))
        if isinstance(node, ast.Compare) and len(node.ops) == 1 and not isinstance(node.ops[0], (ast.Is, ast.IsNot)):
            changes = (node, "left", node.comparators[0]), (node, "comparators", [node.left])
            yield Fault("operands swapped", _line(node), changes)
        if isinstance(node, ast.Call) and not is_memory(node) and len(node.args) > 1:
            args = [*node.args[:-2], node.args[-1], node.args[-2]]
            yield Fault("operands swapped", _line(node), ((node, "args", args),))


_OPERATORS: dict[type[ast.AST], tuple[type[ast.AST], ...]] = {
    ast.Add: (ast.Sub, ast.Mult),
    ast.Sub: (ast.Add,),
    ast.Mult: (ast.Add,),
    ast.Div: (ast.Mult,),
    ast.FloorDiv: (ast.Mod,),
    ast.Mod: (ast.FloorDiv,),
    ast.BitAnd: (ast.BitOr,),
    ast.BitOr: (ast.BitAnd,),
    ast.Lt: (ast.LtE, ast.Gt),
    ast.LtE: (ast.Lt,),
    ast.Gt: (ast.GtE,),
    ast.GtE: (ast.Gt,),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
}


def wrong_operator(scene: Scene) -> Iterator[Fault]:
    for node in scene.nodes(ast.BinOp, ast.AugAssign, ast.Compare):
        old = node.ops[0] if isinstance(node, ast.Compare) else node.op  # type: ignore[attr-defined]
        for new in _OPERATORS.get(type(old), ()):
            change = (node, "ops", [new()]) if isinstance(node, ast.Compare) else (node, "op", new())
            yield Fault("operator", f"{type(old).__name__} -> {new.__name__} at {_line(node)}", (change,))


_FUNCTIONS = (
    ("exp", "exp2", "log", "sqrt", "rsqrt", "abs", "sin", "cos", "erf", "tanh", "sigmoid"),
    ("max", "min", "sum"),
    ("maximum", "minimum"),
    ("zeros_like", "ones_like"),
    ("argmax", "argmin"),
    ("cdiv", "multiple_of"),
    ("range", "static_range"),
    ("cumsum", "cumprod"),
)


def wrong_function(scene: Scene) -> Iterator[Fault]:
    for node in scene.nodes(ast.Call):
        assert isinstance(node, ast.Call)
        if not isinstance(node.func, ast.Attribute):
            continue
        group = next((g for g in _FUNCTIONS if node.func.attr in g), ())
        for name in group:
            if name != node.func.attr:
                yield Fault("function", f"{node.func.attr} -> {name}", ((node.func, "attr", name),))


def lost_keyword(scene: Scene) -> Iterator[Fault]:
    """propagate_nan=, axis=, input_precision=, num_stages=..."""
    for node in scene.nodes(ast.Call):
        assert isinstance(node, ast.Call)
        for keyword in node.keywords:
            rest = [k for k in node.keywords if k is not keyword]
            yield Fault("keyword lost", f"{keyword.arg} at {_line(node)}", ((node, "keywords", rest),))


def wrong_mask(scene: Scene) -> Iterator[Fault]:
    for call in scene.memory_calls():
        position = 2 if is_store(call) else 1
        keyword = next((k for k in call.keywords if k.arg == "mask"), None)
        mask = keyword.value if keyword else call.args[position] if len(call.args) > position else None
        others = [k for k in call.keywords if k is not keyword]
        if mask is None:
            if isinstance(call.func, ast.Attribute) and ast.unparse(call.func).startswith("tl."):
                for text in ("tl.program_id(0) < 7", "False"):
                    more = [*call.keywords, ast.keyword("mask", _expression(text))]
                    yield Fault("mask", f"added at {_line(call)}", ((call, "keywords", more),))
            continue
        text = ast.unparse(mask)
        for new in (f"({text}) & (tl.program_id(0) < 7)", f"~({text})", f"({text}) | (tl.program_id(1) == 0)", "True"):
            if keyword:
                change: Change = (keyword, "value", _expression(new))
            else:
                args = [*call.args[:position], _expression(new), *call.args[position + 1 :]]
                change = (call, "args", args)
            yield Fault("mask", f"{new} at {_line(call)}", (change,))
        if keyword:
            yield Fault("mask", f"lost at {_line(call)}", ((call, "keywords", others),))


def wrong_pointer(scene: Scene) -> Iterator[Fault]:
    for call in scene.memory_calls():
        pointer = call.args[0] if call.args else None
        if pointer is None or not isinstance(call.func, ast.Attribute):
            continue
        text = ast.unparse(pointer)
        for new in (f"({text}) + 1", f"({text}) + tl.program_id(0)"):
            yield Fault("offset", f"{new} at {_line(call)}", ((call, "args", [_expression(new), *call.args[1:]]),))
    for function in scene.functions:
        pointers = [a.arg for a in function.args.args if "ptr" in a.arg.lower() or a.arg[:1].isupper()]
        names = [n for s in function.body for n in ast.walk(s) if isinstance(n, ast.Name) and n.id in pointers]
        for node in names:
            for other in pointers:
                if other != node.id:
                    yield Fault("pointer", f"{node.id} -> {other} at {_line(node)}", ((node, "id", other),))


def wrong_variable(scene: Scene) -> Iterator[Fault]:
    for function in scene.functions:
        names = sorted({n.id for s in function.body for n in ast.walk(s) if isinstance(n, ast.Name)} - {"tl", "triton"})
        names += [a.arg for a in function.args.args if a.arg not in names]
        loads = [n for s in function.body for n in ast.walk(s) if isinstance(n, ast.Name) and n.id in names]
        for index, node in enumerate(loads):
            other = names[(names.index(node.id) + 1 + index) % len(names)]
            if isinstance(node.ctx, ast.Load) and other != node.id:
                yield Fault("variable", f"{node.id} -> {other} at {_line(node)}", ((node, "id", other),))


def wrong_program(scene: Scene) -> Iterator[Fault]:
    for node in scene.nodes(ast.Call):
        assert isinstance(node, ast.Call)
        if isinstance(node.func, ast.Attribute) and node.func.attr in ("program_id", "arange"):
            shifted = _expression(f"({ast.unparse(node)} + 1)")
            parent = scene.parents[node]
            for name, value in ast.iter_fields(parent):
                if value is node:
                    yield Fault("offset", f"{ast.unparse(node)} + 1", ((parent, name, shifted),))
            if node.func.attr == "program_id" and node.args:
                axis = ast.Constant(1 if ast.unparse(node.args[0]) == "0" else 0)
                yield Fault("offset", f"another axis at {_line(node)}", ((node, "args", [axis]),))


_DTYPES = ("float32", "float16", "bfloat16", "int32", "int64", "int8", "float64")


def wrong_dtype(scene: Scene) -> Iterator[Fault]:
    commutes = all(request.pointwise.commutes_with_rounding for request in scene.case.requests)
    kept = {node for value in scene.kept if commutes for node in ast.walk(value)}
    for node in scene.nodes(ast.Attribute):
        assert isinstance(node, ast.Attribute)
        if node.attr in _DTYPES and node not in kept:
            for name in _DTYPES[:5]:
                if name != node.attr:
                    yield Fault("dtype", f"{node.attr} -> {name} at {_line(node)}", ((node, "attr", name),))
    stored = kept | {node for site in scene.sites if commutes for node in ast.walk(site.fused)}
    for node in scene.nodes(ast.Call):
        assert isinstance(node, ast.Call)
        if node in stored:
            continue  # an op that commutes with rounding makes up for a cast to the buffer's type that is lost
        if isinstance(node.func, ast.Attribute) and node.func.attr == "to":
            parent = scene.parents[node]
            for field_name, value in ast.iter_fields(parent):
                if value is node:
                    yield Fault("dtype", f"cast lost at {_line(node)}", ((parent, field_name, node.func.value),))
                elif isinstance(value, list) and node in value:
                    new = [node.func.value if item is node else item for item in value]
                    yield Fault("dtype", f"cast lost at {_line(node)}", ((parent, field_name, new),))


_MODIFIERS = (
    ("cache_modifier", "'.cg'"),
    ("cache_modifier", "'.wt'"),
    ("eviction_policy", "'evict_first'"),
    ("eviction_policy", "'evict_last'"),
    ("volatile", "True"),
    ("other", "1.0"),
    ("other", "-1"),
)


def wrong_modifier(scene: Scene) -> Iterator[Fault]:
    for call in scene.memory_calls():
        for name, value in _MODIFIERS:
            old = next((k for k in call.keywords if k.arg == name), None)
            if old is not None and ast.unparse(old.value) == value:
                continue
            kept = [k for k in call.keywords if k is not old]
            keyword = ast.keyword(name, _expression(value))
            yield Fault("cache modifier", f"{name}={value} at {_line(call)}", ((call, "keywords", [*kept, keyword]),))


# --------------------------------------------------------------------------------------------------- faults of control


def moved_store(scene: Scene) -> Iterator[Fault]:
    """if c: tl.store(...)  ->  if c: pass; tl.store(...), and the other way round"""
    for call in scene.memory_calls():
        statement = _statement_of(scene, call)
        place = _body_of(scene, statement)
        if place is None or not isinstance(statement, ast.Expr):
            continue
        parent, name, body = place
        if isinstance(parent, (ast.If, ast.For, ast.While)):
            outer = _body_of(scene, parent)
            if outer is None:
                continue
            inside = [s for s in body if s is not statement] or [ast.Pass()]
            holder, field_name, statements = outer
            at = statements.index(parent)
            for offset in (0, 1):
                moved = [*statements[: at + offset], statement, *statements[at + offset :]]
                changes = ((parent, name, inside), (holder, field_name, moved))
                yield Fault("store moved out of its block", _line(call), changes)
        under = ast.If(_expression("tl.program_id(0) < 3"), [statement], [])
        guarded = [under if s is statement else s for s in body]
        yield Fault("store moved into a branch", _line(call), ((parent, name, guarded),))
        repeated = ast.For(ast.Name("_again", ast.Store()), _expression("range(2)"), [statement], [])
        looped = [repeated if s is statement else s for s in body]
        yield Fault("store moved into a loop", _line(call), ((parent, name, looped),))


def wrong_bound(scene: Scene) -> Iterator[Fault]:
    for node in scene.nodes(ast.For, ast.While):
        if isinstance(node, ast.For) and isinstance(node.iter, ast.Call):
            for index, argument in enumerate(node.iter.args):
                for delta in ("+ 1", "- 1"):
                    args = list(node.iter.args)
                    args[index] = _expression(f"({ast.unparse(argument)}) {delta}")
                    yield Fault("loop bound", f"{delta} at {_line(node)}", ((node.iter, "args", args),))
        elif isinstance(node, ast.While):
            test = _expression(f"({ast.unparse(node.test)}) & (tl.program_id(0) < 3)")
            yield Fault("loop bound", f"while at {_line(node)}", ((node, "test", test),))


def wrong_branch(scene: Scene) -> Iterator[Fault]:
    for node in scene.nodes(ast.If):
        assert isinstance(node, ast.If)
        negated = _expression(f"not ({ast.unparse(node.test)})")
        yield Fault("branch", f"negated at {_line(node)}", ((node, "test", negated),))
        if node.orelse:
            yield Fault("branch", f"else lost at {_line(node)}", ((node, "orelse", []),))
            yield Fault("branch", f"sides at {_line(node)}", ((node, "body", node.orelse), (node, "orelse", node.body)))


def early_return(scene: Scene) -> Iterator[Fault]:
    for function in scene.functions:
        if any(isinstance(n, ast.Return) and n.value is not None for n in ast.walk(function)):
            continue
        for index in range(len(function.body)):
            guard = _statements("if tl.program_id(0) > 5:\n    return")
            body = [*function.body[:index], *guard, *function.body[index:]]
            yield Fault("early return", f"{function.name}, statement {index}", ((function, "body", body),))


def deleted_statement(scene: Scene) -> Iterator[Fault]:
    for function in (*scene.functions, *scene.helpers):
        for node in ast.walk(function):
            for name in ("body", "orelse"):
                body = getattr(node, name, None)
                if not isinstance(body, list):
                    continue
                for index, statement in enumerate(body):
                    rest = [*body[:index], *body[index + 1 :]] or ([ast.Pass()] if name == "body" else [])
                    yield Fault("statement lost", _line(statement), ((node, name, rest),))


def swapped_statements(scene: Scene) -> Iterator[Fault]:
    for function in scene.functions:
        for node in ast.walk(function):
            body = getattr(node, "body", None)
            if not isinstance(body, list):
                continue
            for index in range(len(body) - 1):
                if independent(body[index], body[index + 1], scene.tree, scene.operand_loads):
                    continue  # the same program
                swapped = [*body[:index], body[index + 1], body[index], *body[index + 2 :]]
                yield Fault("statements swapped", _line(body[index]), ((node, "body", swapped),))


def independent(one: ast.stmt, other: ast.stmt, tree: ast.Module, reads: Collection[ast.expr] = ()) -> bool:
    """Whether two statements may change places: neither reads what the other writes, and one has no effects. `reads` are
    loads from where nothing writes."""
    leaves = (ast.Return, ast.Break, ast.Continue)
    if any(isinstance(node, leaves) for s in (one, other) for node in ast.walk(s)):
        return False
    defined = {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)}
    calls = [[n for n in ast.walk(s) if isinstance(n, ast.Call)] for s in (one, other)]
    effects = [
        any(
            (is_memory(c) and c not in reads)
            or _called(c) in defined | {"device_print", "device_assert", "debug_barrier"}
            for c in cs
        )
        for cs in calls
    ]
    names = [{n.id for n in ast.walk(s) if isinstance(n, ast.Name)} for s in (one, other)]
    written = [
        {n.id for n in ast.walk(s) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)} for s in (one, other)
    ]
    return not all(effects) and not (written[0] & names[1] or written[1] & names[0])


def _called(call: ast.Call) -> str:
    return ast.unparse(call.func).rsplit(".", 1)[-1]


def extra_access(scene: Scene) -> Iterator[Fault]:
    for call in scene.memory_calls():
        statement = _statement_of(scene, call)
        place = _body_of(scene, statement)
        if place is None:
            continue
        parent, name, body = place
        at = body.index(statement)
        additions = [("tl.debug_barrier()", "barrier"), ("tl.device_assert(tl.program_id(0) < 9)", "assert")]
        if isinstance(call.func, ast.Attribute) and call.args and isinstance(statement, (ast.Expr, ast.Assign)):
            rest = ", ".join(
                f"{k.arg}={ast.unparse(k.value)}" for k in call.keywords if k.arg in ("mask", "boundary_check")
            )
            arguments = ast.unparse(call.args[0]) + (f", {rest}" if rest else "")
            owner = ast.unparse(call.func.value)
            additions.append((f"{owner}.load({arguments})", "load"))
            additions.append((f"tl.atomic_add({ast.unparse(call.args[0])}, 0)", "atomic"))
            if isinstance(statement, ast.Expr):
                additions.append((ast.unparse(call), "the same access again"))
        for text, what in additions:
            for offset in (0, 1):
                more = [*body[: at + offset], *_statements(text), *body[at + offset :]]
                yield Fault(f"extra {what}", _line(call), ((parent, name, more),))


def wrong_copy(scene: Scene) -> Iterator[Fault]:
    """A helper's copy used for another buffer, or the helper itself for the output."""
    others = {original: name for name, original in scene.copies.items()}
    for function in scene.functions:
        for node in (n for s in function.body for n in ast.walk(s) if isinstance(n, ast.Name)):
            wrong = scene.copies.get(node.id) or others.get(node.id)
            if wrong:
                yield Fault("helper copy for the wrong buffer", f"{node.id} -> {wrong}", ((node, "id", wrong),))


# ------------------------------------------------------------------------------------------- faults around the kernel


def lost_decorator(scene: Scene) -> Iterator[Fault]:
    for node in ast.walk(scene.tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            for index, decorator in enumerate(node.decorator_list):
                rest = [*node.decorator_list[:index], *node.decorator_list[index + 1 :]]
                yield Fault(
                    "decorator lost", f"{ast.unparse(decorator)[:40]} of {node.name}", ((node, "decorator_list", rest),)
                )
                if ast.unparse(decorator).endswith("jit"):
                    options = _expression(f"{ast.unparse(decorator)}(noinline=True)")
                    new = [options if d is decorator else d for d in node.decorator_list]
                    yield Fault("decorator changed", node.name, ((node, "decorator_list", new),))


def wrong_config(scene: Scene) -> Iterator[Fault]:
    for node in ast.walk(scene.tree):
        if not isinstance(node, ast.FunctionDef):
            continue
        for decorator in node.decorator_list:
            for constant in (n for n in ast.walk(decorator) if isinstance(n, ast.Constant)):
                new = constant.value + 1 if type(constant.value) is int else f"{constant.value}_"
                yield Fault("configuration", f"{constant.value} -> {new}", ((constant, "value", new),))
            for part in (n for n in ast.walk(decorator) if isinstance(n, (ast.List, ast.Dict))):
                if isinstance(part, ast.List) and part.elts:
                    yield Fault("configuration", "one lost", ((part, "elts", part.elts[1:]),))
                if isinstance(part, ast.Dict) and part.keys:
                    yield Fault(
                        "configuration", "one lost", ((part, "keys", part.keys[1:]), (part, "values", part.values[1:]))
                    )


def wrong_signature(scene: Scene) -> Iterator[Fault]:
    for function in scene.functions:
        arguments = function.args
        for index, default in enumerate(arguments.defaults):
            if isinstance(default, ast.Constant):
                new = ast.Constant(default.value + 1 if type(default.value) is int else 7)
                yield Fault(
                    "default value",
                    function.name,
                    ((arguments, "defaults", [*arguments.defaults[:index], new, *arguments.defaults[index + 1 :]]),),
                )
        if len(arguments.args) > 1:
            swapped = [arguments.args[1], arguments.args[0], *arguments.args[2:]]
            yield Fault("parameter order", function.name, ((arguments, "args", swapped),))
        for argument in arguments.args:
            if argument.annotation is not None:
                yield Fault("annotation lost", argument.arg, ((argument, "annotation", None),))


def wrong_launcher(scene: Scene) -> Iterator[Fault]:
    inside = {id(n) for f in (*scene.functions, *scene.helpers) for n in ast.walk(f)}
    for node in ast.walk(scene.tree):
        if id(node) in inside:
            continue
        if isinstance(node, ast.Constant) and type(node.value) in (int, float):
            yield Fault("launcher or module", f"{node.value} at {_line(node)}", ((node, "value", node.value + 1),))
        if isinstance(node, (ast.Module, ast.FunctionDef)) and len(node.body) > 1:
            for index, statement in enumerate(node.body):
                if id(statement) not in inside:
                    rest = [*node.body[:index], *node.body[index + 1 :]]
                    yield Fault("launcher or module", f"lost {_line(statement)}", ((node, "body", rest),))


Maker = Callable[[Scene], Iterator[Fault]]

FAULTS: tuple[Maker, ...] = (
    *(dropped_epilogue, applied_twice, wrong_op, wrong_op_everywhere, wrong_value, wrong_rounding, wrong_constant),
    *(swapped_operands, wrong_operator, wrong_function, lost_keyword, wrong_mask, wrong_pointer, wrong_variable),
    *(wrong_program, wrong_dtype, wrong_modifier, moved_store, wrong_bound, wrong_branch, early_return),
    *(deleted_statement, swapped_statements, extra_access, wrong_copy, lost_decorator, wrong_config, wrong_signature),
    wrong_launcher,
)


def wrong_rest(scene: Scene) -> Iterator[Fault]:
    """What launchers return where that is the rest of an epilogue: not the rest, another one, or more."""
    case = scene.case
    rests = [request.rest for request in case.requests if request.rest is not None]
    for addition in case.rewrite.additions:
        if not isinstance(addition, Replaced):
            continue
        output, text = ast.unparse(addition.node), addition.text
        if text not in [rest.torch_text(output) for rest in rests]:
            continue
        others = {
            "rest dropped": output,
            "rest twice": re.sub(rf"\b{re.escape(output)}\b", f"({text})", text),
            "more than the rest": f"torch.relu({text})",
            "output changed before the rest": re.sub(rf"\b{re.escape(output)}\b", f"{output}.mul_(2)", text, count=1),
            "dim of the rest": text.replace("dim=-1", "dim=0"),
            "function of the rest": text.replace("softmax", "log_softmax"),
        }
        for match in re.finditer(re.escape(text), case.text):
            for kind, other in others.items():
                if other != text:
                    spoiled = case.text[: match.start()] + other + case.text[match.end() :]
                    yield Fault(kind, f"offset {match.start()}", text=spoiled)


REST_FAULTS: tuple[Maker, ...] = (wrong_rest,)
"""For a fusion of a part of an epilogue."""


def faults(scene: Scene, per_maker: int | None = None, seed: int = 0, makers: Iterable[Maker] = FAULTS) -> list[Fault]:
    """The faults of a scene; at most `per_maker` of each kind of generator, chosen by `seed`."""
    chosen: list[Fault] = []
    chance = random.Random(seed)
    for maker in makers:
        found = list(maker(scene))
        chosen += found if per_maker is None or len(found) <= per_maker else chance.sample(found, per_maker)
    return chosen
