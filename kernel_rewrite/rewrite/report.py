"""What is kept of an internal error: a folder with everything that is needed to report it."""

from __future__ import annotations

import os
import platform
import tempfile
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version

from kernel_rewrite.analysis import Analysis


def keep_evidence(
    error: Exception, fused: str, analysis: Analysis, request: Iterable[str], ttir: Iterable[tuple[str, str]]
) -> str | None:
    """The path of a new folder under the system's temporary one; None when it cannot be written.

    It holds the original source, the rewritten text that was thrown away, what was asked for, the versions, the message
    and, where TTIR was compared, the `ttir` (file name, text) of both sides.
    """
    facts = [
        f"kernel: {analysis.kernel.name} of {analysis.kernel.file.path}",
        *(f"request: {text}" for text in request),
        f"kernel-rewrite {_version()}, Triton {analysis.compiler.triton_version}, target {analysis.target}",
        f"Python {platform.python_version()}, {platform.platform()}",
        *(f"specialization: {view.specialization}" for view in analysis.views),
        "",
        str(error),
    ]
    files = [
        ("original.py", analysis.kernel.file.text),
        ("fused.py", fused),
        ("error.txt", "\n".join(facts) + "\n"),
        *ttir,
    ]
    try:
        folder = tempfile.mkdtemp(prefix="kernel-rewrite-")
        for name, text in files:
            with open(os.path.join(folder, name), "w", encoding="utf-8", newline="") as stream:
                stream.write(text)
    except OSError:
        return None
    return folder


def _version() -> str:
    try:
        return version("kernel-rewrite")
    except PackageNotFoundError:
        return "(not installed)"
