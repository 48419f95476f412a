"""What launches and configurations give for the compiler's options that change what arithmetic gives, not how fast it is."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from kernel_rewrite.model import Span
from kernel_rewrite.source.autotune import Tuning, tuning
from kernel_rewrite.source.closure import KernelDefinition
from kernel_rewrite.source.files import Project
from kernel_rewrite.source.launches import Launch, launches
from kernel_rewrite.source.names import locals_of
from kernel_rewrite.source.symbolic import Evaluator, ProjectNames, Unknown

ARITHMETIC_OPTIONS: Mapping[str, object] = {
    "enable_fp_fusion": True,  # a product and a sum become one fused multiply-add
    "enable_reflect_ftz": True,  # libdevice flushes float32 denormals
    "allow_flush_denorm": False,
    "ptx_options": None,
    "extern_libs": None,
}
"""By name, what Triton takes where a launch does not give them."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What an option has in one launch or configuration: `text` as the source spells it, `value` where that is a constant
    (`known`), `span` where it is given. A launch that does not give it has the default, and no span."""

    text: str
    value: object = None
    known: bool = True
    span: Span | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """Every setting of an option that a file shows for a kernel; `complete` says that there are no others in it."""

    found: tuple[Setting, ...]
    complete: bool


def arithmetic_settings(kernel: KernelDefinition, project: Project) -> Mapping[str, Settings]:
    """By name, the settings of each of `ARITHMETIC_OPTIONS` in the launches of a kernel and its configurations. None is
    complete where no launch is seen, or `**arguments` hide what one gives."""
    names, file = ProjectNames(kernel.file, project), kernel.file
    seen = launches(kernel.node, file.tree, file.path, names)
    tuned = tuning(kernel.node, file.tree, file.path, names)
    return {option: _settings(option, seen, tuned, names, file.path) for option in ARITHMETIC_OPTIONS}


def _settings(
    option: str, launches: Iterable[Launch], tuning: Tuning, names: Mapping[str, object], file: str
) -> Settings:
    default = ARITHMETIC_OPTIONS[option]
    configurations = [{**config.values, **config.options} for config in tuning.configs]
    readable = tuning.complete or not tuning.autotuned
    if any(option in each for each in configurations):
        values = (each.get(option, default) for each in configurations)
        return Settings(tuple(Setting(repr(value), value, span=tuning.span) for value in values), readable)
    found: list[Setting] = []
    seen = [launch for launch in launches if launch.call is not None]
    complete = readable and bool(seen) and tuning.heuristic(option) is None
    for launch in seen:
        given, hidden = _given(launch)
        if option in given:
            found.append(_setting(given[option], launch, names, file))
        elif hidden:
            complete = False
        else:
            found.append(Setting(repr(default), default))
    return Settings(tuple(found), complete)


def _given(launch: Launch) -> tuple[dict[str, ast.expr], bool]:
    """What a launch passes by keyword, `**{...}` that is written out included; whether there may be more."""
    assert launch.call is not None
    found: dict[str, ast.expr] = {}
    hidden = False
    for keyword in launch.call.keywords:
        if keyword.arg is not None:
            found[keyword.arg] = keyword.value
        elif isinstance(keyword.value, ast.Dict):
            for key, value in zip(keyword.value.keys, keyword.value.values, strict=True):
                if isinstance(key, ast.Constant):
                    found[str(key.value)] = value
                else:
                    hidden = True
        else:
            hidden = True
    return found, hidden


def _setting(node: ast.expr, launch: Launch, names: Mapping[str, object], file: str) -> Setting:
    span = Span.of(file, node)
    mentioned = {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
    try:
        if launch.function is not None and mentioned & locals_of(launch.function):
            raise Unknown("a name of the launching function")
        return Setting(ast.unparse(node), Evaluator(names).value(node), span=span)
    except Unknown:
        return Setting(ast.unparse(node), known=False, span=span)
