"""The decorators above a kernel: the configurations of `@triton.autotune` and the values of `@triton.heuristics`."""

from __future__ import annotations

import ast
import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from kernel_rewrite.model import Span
from kernel_rewrite.source.symbolic import Config, Evaluator, HostFunction, Unknown, contains_unknown, module_names
from kernel_rewrite.source.syntax import last_name, nodes_in, walk

TUNERS = frozenset(("autotune", "libtuner", "custom_autotune", "autotuner", "fast_autotune", "tl_autotune"))
"""Decorators that choose constexpr values among configurations; also under a project's own name."""


class HeuristicKind(enum.Enum):
    BOOLEAN = "bool"
    PRESENCE = "presence"  # lambda args: args["bias"] is not None
    BLOCK = "block"  # lambda args: triton.next_power_of_2(args["N"])
    VALUES = "values"  # lambda args: 64 if ... else 128
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Heuristic:
    """How `@triton.heuristics` computes one constexpr. For a presence flag, `parameter` is the pointer asked about and
    `present` the flag's value when it is given."""

    name: str
    kind: HeuristicKind
    values: tuple[object, ...] = ()
    parameter: str = ""
    present: bool = True


@dataclass(frozen=True, slots=True)
class Tuning:
    """What the decorators say. `complete` is False when not every configuration could be read."""

    configs: tuple[Config, ...] = ()
    autotuned: bool = False
    complete: bool = True
    heuristics: tuple[Heuristic, ...] = ()
    reset_to_zero: tuple[str, ...] = ()
    restore_value: tuple[str, ...] = ()
    unreadable_resets: bool = False
    hooked: bool = False
    span: Span | None = None

    def heuristic(self, name: str) -> Heuristic | None:
        return next((h for h in self.heuristics if h.name == name), None)


@dataclass(slots=True)
class _Collected:
    configs: list[Config] = field(default_factory=list)
    autotuned: bool = False
    complete: bool = True
    heuristics: list[Heuristic] = field(default_factory=list)
    reset_to_zero: list[str] = field(default_factory=list)
    restore_value: list[str] = field(default_factory=list)
    unreadable_resets: bool = False
    hooked: bool = False
    span: Span | None = None


def tuning(
    kernel: ast.FunctionDef, module: ast.Module, file: str = "", names: Mapping[str, object] | None = None
) -> Tuning:
    """The configurations and heuristics of `kernel`, read from its decorators and from `k = triton.autotune(...)(k)`.

    `names` are the file's module-level meanings; give `ProjectNames` to follow imports within the project.
    """
    names = module_names(module) if names is None else names
    collected = _Collected()
    for decorator in (*kernel.decorator_list, *_applied(kernel.name, module)):
        if not isinstance(decorator, ast.Call):
            continue
        name = last_name(decorator.func)
        if name in TUNERS or (name != "heuristics" and "configs" in {k.arg for k in decorator.keywords}):
            collected.span = Span.of(file, decorator)
            _autotune(decorator, names, collected)
        elif name == "heuristics":
            _heuristics(decorator, names, collected)
    return Tuning(
        tuple(collected.configs),
        collected.autotuned,
        collected.complete,
        tuple(collected.heuristics),
        tuple(collected.reset_to_zero),
        tuple(collected.restore_value),
        collected.unreadable_resets,
        collected.hooked,
        collected.span,
    )


def _applied(kernel: str, module: ast.Module) -> Iterable[ast.expr]:
    """Decorators applied by a call: `k = triton.autotune(configs=...)(triton.heuristics(...)(k))`."""
    for node in nodes_in(module):
        if not isinstance(node, (ast.Assign, ast.Return)) or not isinstance(node.value, ast.Call):
            continue
        found = []
        current: ast.expr = node.value
        while isinstance(current, ast.Call) and isinstance(current.func, ast.Call) and len(current.args) == 1:
            found.append(current.func)
            current = current.args[0]
        if found and isinstance(current, ast.Name) and current.id == kernel:
            yield from found


def _autotune(node: ast.Call, names: Mapping[str, object], into: _Collected) -> None:
    into.autotuned = True
    given = {k.arg: k.value for k in node.keywords if k.arg is not None}
    for keyword in node.keywords:
        if keyword.arg is None and not _is_harmless(keyword.value, names):  # @triton.autotune(configs=..., **options)
            into.complete = into.complete and "configs" in given
            into.unreadable_resets = True
    configs = given.get("configs") or (node.args[0] if node.args else None)
    for option, target in (("reset_to_zero", into.reset_to_zero), ("restore_value", into.restore_value)):
        if option not in given:
            continue
        try:
            found = Evaluator(names).value(given[option])
        except Unknown:
            into.unreadable_resets = True
            continue
        if isinstance(found, (list, tuple)):
            target.extend(str(name) for name in found)
    into.hooked = into.hooked or any(option in given for option in ("pre_hook", "post_hook"))
    if configs is None:
        into.complete = False
        return
    found_configs, complete = read_configs(configs, names)
    into.complete = into.complete and complete
    into.configs += found_configs
    into.hooked = into.hooked or any(config.pre_hook for config in found_configs)


def _is_harmless(options: ast.expr, names: Mapping[str, object]) -> bool:
    """Whether the dict behind `**options` can be read, and says nothing of configurations or resets."""
    for guess in (False, True):  # a condition on the machine may go either way
        try:
            found = Evaluator(names, guess).value(options)
        except Unknown:
            return False
        if not isinstance(found, dict) or found.keys() & {"configs", "reset_to_zero", "restore_value", "pre_hook"}:
            return False
    return True


def read_configs(node: ast.expr, names: Mapping[str, object]) -> tuple[list[Config], bool]:
    """The `triton.Config`s of a list expression, and whether they are all."""
    configs: list[Config] = []
    guessed: set[str] = set()
    for guess in (False, True):  # a condition on the machine (`if is_hip():`) may go either way
        evaluator = Evaluator(names, guess)
        try:
            value = evaluator.value(node)
        except Unknown:
            value = None
        if not isinstance(value, (list, tuple)) or not value or not all(isinstance(v, Config) for v in value):
            return configs + _some_configs(node, names), False
        known = [v for v in value if isinstance(v, Config) and not contains_unknown(v)]
        if len(known) < len(value):
            return configs + known, False
        guessed |= evaluator.guessed
        configs += known
        if not guessed:
            break
    return configs, len(guessed) <= 1


def _some_configs(node: ast.expr, names: Mapping[str, object]) -> list[Config]:
    """The configurations written out in a list of which other parts cannot be read, also through a name, a function of
    this file or the arguments of a call."""
    seen: set[str] = set()
    pending: list[ast.AST] = [node]
    configs: list[Config] = []
    while pending and len(configs) < 64:
        current = pending.pop(0)
        for part in walk(current):
            if isinstance(part, ast.Call) and last_name(part.func) == "Config":
                try:
                    config = Evaluator(names).value(part)
                except Unknown:
                    continue
                if isinstance(config, Config) and not contains_unknown(config):
                    configs.append(config)
            elif isinstance(part, ast.Name) and part.id in names and part.id not in seen:
                seen.add(part.id)
                meaning = names[part.id]
                if isinstance(meaning, ast.AST):
                    pending.append(meaning)
    return configs


def _heuristics(node: ast.Call, names: Mapping[str, object], into: _Collected) -> None:
    values = next((k.value for k in node.keywords if k.arg == "values"), node.args[0] if node.args else None)
    while isinstance(values, ast.Name) and isinstance(names.get(values.id), ast.expr):
        values = names[values.id]  # type: ignore[assignment]
    if isinstance(values, ast.Call) and last_name(values.func) == "dict":
        pairs = [(k.arg, k.value) for k in values.keywords if k.arg is not None]
    elif isinstance(values, ast.Dict):
        pairs = [
            (str(k.value), v) for k, v in zip(values.keys, values.values, strict=False) if isinstance(k, ast.Constant)
        ]
    else:
        return
    into.heuristics += [_heuristic(name, value, names) for name, value in pairs]


def _heuristic(name: str, node: ast.expr, names: Mapping[str, object]) -> Heuristic:
    while isinstance(node, ast.Name) and isinstance(names.get(node.id), (ast.expr, ast.FunctionDef)):
        meaning = names[node.id]
        if isinstance(meaning, ast.FunctionDef):
            returned = [r for r in walk(meaning) if isinstance(r, ast.Return)]
            returned.sort(key=lambda r: (r.lineno, r.col_offset))
            return _classified(name, [r.value for r in returned if r.value is not None], names)
        node = meaning  # type: ignore[assignment]
    return _classified(name, [node.body] if isinstance(node, ast.Lambda) else [], names)


def _classified(name: str, bodies: list[ast.expr], names: Mapping[str, object]) -> Heuristic:
    values: list[object] = []
    kinds = set()
    for body in bodies:
        presence = _presence(body)
        if presence is not None and len(bodies) == 1:
            return Heuristic(name, HeuristicKind.PRESENCE, (True, False), *presence)
        for leaf in _leaves(body):
            if isinstance(leaf, (ast.Compare, ast.BoolOp)) or (
                isinstance(leaf, ast.UnaryOp) and isinstance(leaf.op, ast.Not)
            ):
                kinds.add(HeuristicKind.BOOLEAN)
                continue
            if isinstance(leaf, ast.Call) and last_name(leaf.func) == "bool":
                kinds.add(HeuristicKind.BOOLEAN)
                continue
            try:
                value = Evaluator(names).value(leaf)
            except Unknown:
                blocks = any(
                    isinstance(p, ast.Call) and last_name(p.func) in ("next_power_of_2", "min", "max")
                    for p in walk(leaf)
                )
                kinds.add(HeuristicKind.BLOCK if blocks else HeuristicKind.UNKNOWN)
                continue
            if not isinstance(value, HostFunction):
                kinds.add(HeuristicKind.BOOLEAN if isinstance(value, bool) else HeuristicKind.VALUES)
                values.append(value)
    if kinds == {HeuristicKind.BOOLEAN}:
        return Heuristic(name, HeuristicKind.BOOLEAN, (True, False))
    if kinds == {HeuristicKind.VALUES} or (values and HeuristicKind.BLOCK in kinds):
        return Heuristic(name, HeuristicKind.VALUES, tuple(dict.fromkeys(v for v in values if _hashable(v))))
    if HeuristicKind.BLOCK in kinds:
        return Heuristic(name, HeuristicKind.BLOCK)
    return Heuristic(name, HeuristicKind.UNKNOWN)


def _presence(node: ast.expr) -> tuple[str, bool] | None:
    """`args["bias"] is not None` as ("bias", True)."""
    match node:
        case ast.Compare(left=left, ops=[op], comparators=[ast.Constant(value=None)]):
            parameter = _argument_name(left)
            if parameter and isinstance(op, (ast.Is, ast.IsNot, ast.Eq, ast.NotEq)):
                return parameter, isinstance(op, (ast.IsNot, ast.NotEq))
    return None


def _argument_name(node: ast.expr) -> str:
    """`args["bias"]` and `args.get("bias")` name "bias"."""
    match node:
        case ast.Subscript(slice=ast.Constant(value=str() as name)):
            return name
        case ast.Call(func=ast.Attribute(attr="get"), args=[ast.Constant(value=str() as name), *_]):
            return name
    return ""


def _leaves(node: ast.expr) -> Iterable[ast.expr]:
    if isinstance(node, ast.IfExp):
        yield from _leaves(node.body)
        yield from _leaves(node.orelse)
    else:
        yield node


def _hashable(value: object) -> bool:
    return isinstance(value, (int, float, str, bool, type(None)))
