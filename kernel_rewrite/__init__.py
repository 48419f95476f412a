"""kernel-rewrite: fuse pointwise ops into a hand-written Triton kernel, as a new, proved source file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

__all__ = ["Diagnostic", "Fused", "FusionRefused", "InternalError", "fuse", "inspect", "verify"]

if TYPE_CHECKING:
    from kernel_rewrite.diagnostics import Diagnostic, FusionRefused
    from kernel_rewrite.fuse import fuse
    from kernel_rewrite.fused import Fused
    from kernel_rewrite.inspection import inspect
    from kernel_rewrite.model import InternalError
    from kernel_rewrite.verify import verify

_HOMES = {
    "Diagnostic": "kernel_rewrite.diagnostics",
    "Fused": "kernel_rewrite.fused",
    "FusionRefused": "kernel_rewrite.diagnostics",
    "InternalError": "kernel_rewrite.model",
    "fuse": "kernel_rewrite.fuse",
    "inspect": "kernel_rewrite.inspection",
    "verify": "kernel_rewrite.verify",
}


def __getattr__(name: str) -> Any:
    """Public names are imported on first use: `import kernel_rewrite` stays instant."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
