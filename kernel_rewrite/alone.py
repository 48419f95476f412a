"""An epilogue on its own, as Triton compiles it: in a kernel that nothing was rewritten in."""

from __future__ import annotations

import functools

from kernel_rewrite.analysis import Analysis
from kernel_rewrite.model import Closure, Specialization
from kernel_rewrite.pointwise.language import Epilogue, TritonCall
from kernel_rewrite.pointwise.reference import REFERENCE, Given, call_reference, reference_source
from kernel_rewrite.source.closure import close, kernel_named
from kernel_rewrite.source.files import Project, SourceFile, source_from_text
from kernel_rewrite.ttir.lower import Lowered, LoweringFailure


def closed_alone(
    analysis: Analysis,
    epilogue: Epilogue,
    shape: tuple[int, ...],
    dtype: str,
    operands: Given = (),
    *,
    value_may_be_product: bool = False,
    settled: bool = False,
    apart: bool = False,
    stored: str = "",
) -> tuple[Closure, Project]:
    """A kernel that calls last the function of x and of `operands` that `epilogue` is, with all that it needs; what these
    are is said in `reference_source`. A Triton function of the user's stays where it is in the user's file; what a kernel
    was turned into stands below that kernel."""
    if isinstance(epilogue, TritonCall):
        file = analysis.kernel.file
        if epilogue.inlined is not None:
            file = analysis.project.file(epilogue.inlined.path) or file
        reference = call_reference(
            epilogue, file.text, shape, dtype, operands, value_may_be_product=value_may_be_product
        )
        own = source_from_text(reference.text, file.path, encoding=file.encoding, location=file.location)
        project = Project((own, *(other for other in analysis.project.files() if other is not file)))
        return _closed_kernel(reference.kernel, own, project)
    return _closed_text(
        reference_source(
            epilogue,
            shape,
            dtype,
            operands,
            value_may_be_product=value_may_be_product,
            settled=settled,
            apart=apart,
            stored=stored,
        )
    )


@functools.lru_cache(maxsize=64)
def _closed_text(text: str) -> tuple[Closure, Project]:
    """An op of the table on its own, which one kernel after another asks for."""
    own = source_from_text(text, "<reference>")
    return _closed_kernel(REFERENCE, own, Project((own,)))


def _closed_kernel(name: str, file: SourceFile, project: Project) -> tuple[Closure, Project]:
    kernel = kernel_named(name, file, project)
    assert kernel is not None
    return close(kernel, project), project


def lower_alone(
    analysis: Analysis,
    epilogue: Epilogue,
    shape: tuple[int, ...],
    dtype: str,
    operands: Given = (),
    *,
    value_may_be_product: bool = False,
    settled: bool = False,
    apart: bool = False,
    stored: str = "",
) -> Lowered | LoweringFailure:
    """The kernel of `closed_alone`, as Triton compiles it."""
    closure, project = closed_alone(
        analysis,
        epilogue,
        shape,
        dtype,
        operands,
        value_may_be_product=value_may_be_product,
        settled=settled,
        apart=apart,
        stored=stored,
    )
    return analysis.compiler.lower_kept(closure, project.sources(), Specialization((), ()), analysis.target)
