"""Imports the two files as their own project would, and makes every spelling of `triton.language` interpretable."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any


def load(path: str) -> ModuleType:
    """The module of the file at `path`: a member of its package when it stands in one, by its own name otherwise."""
    file = Path(path)
    folder, parts = file.parent, [file.stem]
    while (folder / "__init__.py").is_file():
        parts.insert(0, folder.name)
        folder = folder.parent
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    name = ".".join(parts)
    if len(parts) > 1:
        importlib.import_module(name.rpartition(".")[0])
        if _is_loaded_from(name, path):
            return sys.modules[name]
    elif name in sys.modules or name in sys.stdlib_module_names or not name.isidentifier():
        name = "_verified_" + "".join(c if c.isalnum() else "_" for c in name)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _is_loaded_from(name: str, path: str) -> bool:
    loaded = getattr(sys.modules.get(name), "__file__", None)
    return loaded is not None and os.path.realpath(loaded) == os.path.realpath(path)


# The interpreter replaces members of the module `triton.language` while a kernel runs, so it misses what a file binds
# under a name of its own: `from triton.language import load`. Such a name is led back to the module's member.

_REPLACED_MEMBERS = frozenset(
    {
        *("range", "static_range", "static_assert", "static_print"),
        *("multiple_of", "max_contiguous", "max_constancy", "reduce", "associative_scan"),
    }
)
_HIDDEN_NAME = "__triton_language__"


def make_interpretable() -> list[str]:
    """Leads every name of a loaded user's module that the interpreter would miss to it; notes on what was done."""
    import triton.language as tl
    from triton.runtime.interpreter import InterpretedFunction

    notes = []
    for module in list(sys.modules.values()):
        name = getattr(module, "__name__", "")
        if not isinstance(module, ModuleType) or name.split(".")[0] in ("triton", "torch", "kernel_rewrite"):
            continue
        names = vars(module)
        if not any(isinstance(_innermost(value), InterpretedFunction) for value in list(names.values())):
            continue
        renamed = []
        for global_name, value in list(names.items()):
            member = _member(value)
            if member is not None:
                names[global_name] = _late_bound(*member)
                renamed.append(global_name)
        if renamed:
            file = os.path.basename(getattr(module, "__file__", None) or name)
            notes.append(f"{file} names {', '.join(sorted(renamed))} directly: led back to `tl` for the interpreter")
        if not any(value is tl for value in names.values()):
            names[_HIDDEN_NAME] = tl
    return notes


def _innermost(value: Any) -> Any:
    for _ in range(6):
        inner = getattr(value, "__dict__", {}).get("fn")
        if inner is None or not hasattr(inner, "run"):
            return value
        value = inner
    return value


def _member(value: Any) -> tuple[ModuleType, str] | None:
    """(module, name) when `value` is a member of `triton.language` or its `math` that the interpreter replaces."""
    import triton.language as tl

    for module in (tl, tl.math):
        name = getattr(value, "__name__", None)
        if not isinstance(name, str) or vars(module).get(name) is not value:
            continue
        if tl.core.is_builtin(value) or (module is tl and name in _REPLACED_MEMBERS):
            return module, name
    return None


def _late_bound(module: ModuleType, name: str) -> Callable[..., Any]:
    return lambda *arguments, **options: getattr(module, name)(*arguments, **options)


@contextlib.contextmanager
def understood_annotations() -> Iterator[None]:
    """Inside, the interpreter takes `BLOCK: T.constexpr` for what it is; by itself it knows `tl.constexpr` by name."""
    import triton.language as tl
    from triton.runtime.interpreter import InterpretedFunction

    rewrite = InterpretedFunction.rewrite

    def understood(self: Any) -> Any:
        function = rewrite(self)
        for name, annotation in list(getattr(function, "__annotations__", {}).items()):
            if isinstance(annotation, str):
                with contextlib.suppress(Exception):
                    if eval(annotation, function.__globals__) is tl.constexpr:
                        function.__annotations__[name] = "constexpr"
        return function

    InterpretedFunction.rewrite = understood
    try:
        yield
    finally:
        InterpretedFunction.rewrite = rewrite
