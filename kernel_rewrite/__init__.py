"""kernel-rewrite: fuse pointwise ops into a hand-written Triton kernel, as a new, proved source file."""

from __future__ import annotations

import importlib
import sys
import types
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

__all__ = [
    "Column",
    "Diagnostic",
    "Fused",
    "FusionRefused",
    "InternalError",
    "Row",
    "Scalar",
    "Tile",
    "fuse",
    "inspect",
    "verify",
]

if TYPE_CHECKING:
    from kernel_rewrite.diagnostics import Diagnostic, FusionRefused
    from kernel_rewrite.fuse import fuse
    from kernel_rewrite.inspection import inspect
    from kernel_rewrite.model import InternalError
    from kernel_rewrite.pointwise.markers import Column, Row, Scalar, Tile
    from kernel_rewrite.results import Fused
    from kernel_rewrite.verify import verify

_HOMES = {
    **dict.fromkeys(("Column", "Row", "Scalar", "Tile"), "kernel_rewrite.pointwise.markers"),
    "Diagnostic": "kernel_rewrite.diagnostics",
    "Fused": "kernel_rewrite.results",
    "FusionRefused": "kernel_rewrite.diagnostics",
    "InternalError": "kernel_rewrite.model",
    "fuse": "kernel_rewrite.fuse",
    "inspect": "kernel_rewrite.inspection",
    "verify": "kernel_rewrite.verify",
}


class _Package(types.ModuleType):
    """The package: public names are imported on first use, so that `import kernel_rewrite` stays instant.

    `fuse` and `verify` are also the names of the modules that define them: as attributes, the functions win.
    """

    def __getattr__(self, name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return _public(name)


def _public(name: str) -> Any:
    return getattr(importlib.import_module(_HOMES[name]), name)


def _function(name: str) -> property:
    # The import system binds the module of this name to the package; the setter lets it, without effect.
    return property(lambda self: _public(name), lambda self, module: None)


for _name in ("fuse", "verify"):
    setattr(_Package, _name, _function(_name))

sys.modules[__name__].__class__ = _Package
