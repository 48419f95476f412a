"""The rewritten file is lowered again and must do to memory what the original does."""

from __future__ import annotations

import ast
from collections.abc import Sequence

from kernel_rewrite.analysis import Analysis
from kernel_rewrite.model import InternalError, MemoryAccess
from kernel_rewrite.source.closure import close, kernels
from kernel_rewrite.source.files import Project, SourceFile, source_from_text
from kernel_rewrite.ttir.accesses import memory_accesses
from kernel_rewrite.ttir.lower import Compiler, LoweringFailure
from kernel_rewrite.ttir.parse import parse


def confirm(file: SourceFile, text: str, analysis: Analysis, compiler: Compiler) -> None:
    """Check that `text` parses and that its kernel makes the same accesses in every specialization of `analysis`.

    Raises InternalError (KR902): whatever is wrong here is a bug of the rewriter, and nothing may be written.
    """
    try:
        rewritten = source_from_text(text, file.path, encoding=file.encoding, location=file.location)
        ast.parse(text)
    except Exception as error:
        raise InternalError(f"KR902: the rewritten file is not valid Python: {error}") from error
    project = Project((rewritten,))
    kernel = next(k for k in kernels(rewritten, project) if k.name == analysis.kernel.name)
    closure = close(kernel, project)
    specializations = [view.specialization for view in analysis.views]
    results = compiler.lower(closure, project.sources(), specializations, analysis.target)
    for view, result in zip(analysis.views, results, strict=True):
        if isinstance(result, LoweringFailure):
            raise InternalError(f"KR902: Triton rejects the rewritten kernel: {result.message} at {result.places[:1]}")
        accesses = memory_accesses(parse(result.text), view.specialization)
        if _shape(accesses) != _shape(view.accesses):
            raise InternalError("KR902: the rewritten kernel accesses memory differently from the original")


def _shape(accesses: Sequence[MemoryAccess]) -> list[tuple[object, ...]]:
    return [(a.effect, a.operation, a.roots, a.element_type, len(a.call_path)) for a in accesses]
