"""Wrong prologues: faults of the loads that a rewrite changed. PROLOGUE_FAULTS has one generator a kind."""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator
from dataclasses import replace

from kernel_rewrite.diagnostics import FusionRefused
from kernel_rewrite.model import MemoryEffect
from kernel_rewrite.pointwise.language import parse_epilogue
from kernel_rewrite.request import element_type_of
from tests.faults.aligned import LoadedSite
from tests.faults.cases import rewritten
from tests.faults.generator import Change, Fault, Maker, Scene, is_store

_WRONG_OPS = ("-({})", "({}) * 2", "({}) + 1", "tl.abs({})", "({}) * ({})", "({}) * 0")
_OPS = ("relu", "sigmoid", "square", "clamp(0, 5)", "x + 1", "x * 0.5")
_DTYPES = {"tl.float16": "fp16", "tl.bfloat16": "bf16", "tl.int32": "i32", "tl.float64": "fp64", "tl.float32": "fp32"}


def _parsed(text: str) -> ast.expr:
    return ast.parse(text, mode="eval").body


def put(scene: Scene, node: ast.AST, new: ast.AST) -> Change:
    """The change that puts `new` where `node` stands."""
    parent = scene.parents[node]
    for name, value in ast.iter_fields(parent):
        if value is node:
            return parent, name, new
        if isinstance(value, list) and any(item is node for item in value):
            return parent, name, [new if item is node else item for item in value]
    raise AssertionError(ast.unparse(parent))


def _without(scene: Scene, statement: ast.stmt) -> Change:
    parent = scene.parents[statement]
    for name, value in ast.iter_fields(parent):
        if isinstance(value, list) and statement in value:
            return parent, name, [item for item in value if item is not statement]
    raise AssertionError(ast.unparse(statement))


def _where(site: LoadedSite) -> ast.Call:
    """`tl.where(mask, P(a), a)` of a guard."""
    assert site.guard is not None and isinstance(site.guard.value, ast.Call)
    return site.guard.value


def _op(site: LoadedSite) -> tuple[ast.expr, ast.expr]:
    """P of what is loaded, and what it is of."""
    if site.guard is None:
        return site.value, site.call
    assert isinstance(site.guard.targets[0], ast.Name)
    return _where(site).args[1], ast.Name(site.guard.targets[0].id, ast.Load())


def _of(op: ast.expr, loaded: ast.expr, value: ast.expr) -> ast.expr:
    """P of another value."""
    text, inner = ast.unparse(op), ast.unparse(loaded)
    if isinstance(loaded, ast.Name):
        names = [n for n in ast.walk(op) if isinstance(n, ast.Name) and n.id == inner]
        before = [(name, name.id) for name in names]
        for name in names:
            name.id = "__it__"
        text, inner = ast.unparse(op), "__it__"
        for name, was in before:
            name.id = was
    assert inner in text
    return _parsed(text.replace(inner, f"({ast.unparse(value)})"))


def _at(site: LoadedSite) -> str:
    return f"{site.input}, line {site.call.lineno}"


def dropped(scene: Scene) -> Iterator[Fault]:
    for site in scene.loaded:
        change = _without(scene, site.guard) if site.guard is not None else put(scene, site.value, site.call)
        yield Fault("prologue dropped at a load", _at(site), (change,))


def twice(scene: Scene) -> Iterator[Fault]:
    for site in scene.loaded:
        op, loaded = _op(site)
        yield Fault("prologue applied twice", _at(site), (put(scene, op, _of(op, loaded, op)),))
        if site.guard is not None:
            again = put(scene, site.call, _of(op, loaded, site.call))
            yield Fault("prologue applied twice", f"{_at(site)}, at the load too", (again,))


def wrong_op(scene: Scene) -> Iterator[Fault]:
    for site in scene.loaded:
        op, loaded = _op(site)
        for pattern in _WRONG_OPS:
            for inner in (op, loaded):
                text = pattern.replace("{}", ast.unparse(inner))
                yield Fault("wrong op at a load", text, (put(scene, op, _parsed(text)),))


def wrong_op_everywhere(scene: Scene) -> Iterator[Fault]:
    case = scene.case
    for text in _OPS if case.inputs else ():
        wrong = tuple(replace(r, text=text, pointwise=parse_epilogue(text)) for r in case.inputs)
        if all(w.text != r.text for w, r in zip(wrong, case.inputs, strict=True)):
            try:
                _, whole = rewritten(case.analysis, case.requests, case.numerics, inputs=wrong)
            except FusionRefused:
                continue
            yield Fault("another prologue everywhere", text, text=whole)


def wrong_input(scene: Scene) -> Iterator[Fault]:
    """The right op for another parameter: all its loads, or one."""
    case = scene.case
    named = {request.input for request in case.inputs}
    others = set(case.analysis.parameters_with(MemoryEffect.READ)) - named
    others -= set(case.analysis.parameters_with(MemoryEffect.WRITE, MemoryEffect.ACCUMULATE))
    for request in case.inputs:
        for other in sorted(others):
            try:
                wrong = replace(request, input=other)
                rest = tuple(r for r in case.inputs if r is not request)
                _, whole = rewritten(case.analysis, case.requests, case.numerics, inputs=(*rest, wrong))
            except FusionRefused:
                continue
            yield Fault("prologue of another input", f"{request.input} -> {other}", text=whole)
    if not scene.loaded:
        return
    op, loaded = _op(scene.loaded[0])
    changed = {id(site.call) for site in scene.loaded}
    for call in scene.memory_calls():
        if id(call) in changed or is_store(call):
            continue
        change = put(scene, call, _of(op, loaded, call))
        yield Fault("prologue at another load as well", f"line {call.lineno}", (change,))
        for site in scene.loaded:
            back = _without(scene, site.guard) if site.guard is not None else put(scene, site.value, site.call)
            if back[:2] != change[:2]:
                yield Fault("prologue of another input", f"line {call.lineno} for {_at(site)}", (change, back))


_MASKS = ("({}) & (tl.program_id(0) < 7)", "~({})", "({}) | (tl.program_id(0) == 0)", "True", "False", "({}) == False")


def wrong_guard(scene: Scene) -> Iterator[Fault]:
    for site in scene.loaded:
        if site.guard is None:
            continue
        where = _where(site)
        mask, op, kept = where.args
        loaded = _op(site)[1]
        yield Fault("guard", f"lost: {_at(site)}", (put(scene, where, op),))
        yield Fault("guard", f"sides swapped: {_at(site)}", ((where, "args", [mask, kept, op]),))
        yield Fault("guard", f"P on both sides: {_at(site)}", ((where, "args", [mask, op, op]),))
        for fill in ("0.0", "1.0", ast.unparse(loaded)):
            if fill != ast.unparse(kept):
                yield Fault("guard", f"{fill} instead: {_at(site)}", ((where, "args", [mask, op, _parsed(fill)]),))
        yield Fault("guard", f"P of zero: {_at(site)}", ((where, "args", [mask, op, _of(op, loaded, _parsed("0.0"))]),))
        inner = _of(op, loaded, _parsed(f"tl.where({ast.unparse(mask)}, {ast.unparse(loaded)}, 0.0)"))
        yield Fault("guard", f"inside P: {_at(site)}", (put(scene, where, inner),))
        for pattern in _MASKS:
            new = _parsed(pattern.replace("{}", ast.unparse(mask)))
            yield Fault("guard", f"{ast.unparse(new)}: {_at(site)}", ((where, "args", [new, op, kept]),))
        for part in (n for n in ast.walk(mask) if isinstance(n, ast.BinOp)):
            for half in (part.left, part.right):
                yield Fault("guard", f"half of the mask: {_at(site)}", (put(scene, part, half),))
        for other in scene.loaded:
            if other.guard is not None and other is not site:
                args = [_where(other).args[0], op, kept]
                yield Fault("guard", f"mask of {_at(other)}: {_at(site)}", ((where, "args", args),))


def needless_guard(scene: Scene) -> Iterator[Fault]:
    """P(load) only for some programs or lanes."""
    for site in scene.loaded:
        if site.guard is None:
            for test in ("tl.program_id(0) < 7", "tl.program_id(0) >= 0"):
                text = f"tl.where({test}, {ast.unparse(site.value)}, {ast.unparse(site.call)})"
                yield Fault("prologue under a mask", _at(site), (put(scene, site.value, _parsed(text)),))


def moved(scene: Scene) -> Iterator[Fault]:
    """P behind something else: at another assignment, behind the loop, before its load."""
    for site in scene.loaded:
        op, loaded = _op(site)
        back = _without(scene, site.guard) if site.guard is not None else put(scene, site.value, site.call)
        for node in ast.walk(site.function):
            if isinstance(node, (ast.Assign, ast.AugAssign)) and node is not site.guard:
                change: Change = (node, "value", _of(op, loaded, node.value))
                if change[:2] != back[:2] and not any(n is site.call for n in ast.walk(node)):
                    yield Fault("prologue moved", f"{_at(site)} to line {node.lineno}", (back, change))
        yield from _moved_guard(scene, site)


def _moved_guard(scene: Scene, site: LoadedSite) -> Iterator[Fault]:
    if site.guard is None:
        return
    holder = scene.parents[site.guard]
    body = next(b for b in (getattr(holder, n, None) for n in ("body", "orelse")) if b and site.guard in b)
    name = "body" if body is getattr(holder, "body", None) else "orelse"
    rest = [s for s in body if s is not site.guard]
    for index in range(len(rest) + 1):
        if index != body.index(site.guard):
            new = [*rest[:index], site.guard, *rest[index:]]
            yield Fault("guard moved", f"{_at(site)} to place {index}", ((holder, name, new),))
    if isinstance(holder, (ast.For, ast.While, ast.If)):
        outer = scene.parents[holder]
        around = getattr(outer, "body", [])
        if holder in around:
            at = around.index(holder)
            for index in (at, at + 1):
                new = [*around[:index], site.guard, *around[index:]]
                yield Fault(
                    "guard moved", f"{_at(site)} out of the block", ((holder, name, rest), (outer, "body", new))
                )


def wrong_type(scene: Scene) -> Iterator[Fault]:
    views, inputs = scene.case.views, scene.case.inputs
    elements = {element_type_of(view.specialization, request.input) for view in views for request in inputs}
    for site in scene.loaded:
        op, loaded = _op(site)
        for dtype, element in _DTYPES.items():
            if element not in elements:
                after = _parsed(f"({ast.unparse(op)}).to({dtype})")
                yield Fault("type of a prologue", f"{dtype}: {_at(site)}", (put(scene, op, after),))
                before = _of(op, loaded, _parsed(f"({ast.unparse(loaded)}).to({dtype})"))
                yield Fault("type of a prologue", f"{dtype} before P: {_at(site)}", (put(scene, op, before),))


def in_the_shared_helper(scene: Scene) -> Iterator[Fault]:
    """P in the helper that other buffers are read by as well, not in its copy."""
    defined = {f.name: f for f in scene.functions}
    for name, original in scene.copies.items():
        if not any(site.function is defined[name] for site in scene.loaded):
            continue
        uses = [n for n in ast.walk(scene.tree) if isinstance(n, ast.Name) and n.id == name]
        back: tuple[Change, ...] = tuple((use, "id", original) for use in uses)
        body: Change = (defined[original], "body", copy.deepcopy(defined[name].body))
        yield Fault("prologue in the shared helper", f"{original} for {name}", (*back, body))
        yield Fault("prologue in the shared helper", f"{original} and {name}", (body,))
        yield Fault("prologue in the shared helper", f"{name} not called", back)


PROLOGUE_FAULTS: tuple[Maker, ...] = (
    *(dropped, twice, wrong_op, wrong_op_everywhere, wrong_input, wrong_guard, needless_guard, moved, wrong_type),
    in_the_shared_helper,
)
