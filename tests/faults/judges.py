"""What the two judges of a rewrite say about a spoiled one, and whether the fault changes anything at all."""

from __future__ import annotations

import ast
import enum
import os
import re
import tempfile
from dataclasses import dataclass

from kernel_rewrite.diagnostics import FusionRefused
from kernel_rewrite.model import InternalError
from kernel_rewrite.rewrite.confirm import check_source, lower_rewritten, read_rewritten
from kernel_rewrite.source.files import SourceFile
from kernel_rewrite.ttir.lower import Lowered, LoweringFailure
from kernel_rewrite.ttir.parse import parse
from kernel_rewrite.ttir.validate import validate
from tests.faults.cases import Case


class Compiled(enum.Enum):
    """What translation validation, asked alone, says of a spoiled file."""

    SAME = "compiles to the same text"
    INVALID = "no kernel any more"
    FAILS = "rejected by Triton"
    REJECTED = "rejected by validation"
    EQUIVALENT = "accepted, equal after optimisation"
    SAME_TERMS = "accepted, equal to the right one as terms"
    ACCEPTED = "accepted"


@dataclass(frozen=True)
class Verdict:
    """`source` is what the guard of the syntax tree said ("" when it accepts), `compiled` what validation said."""

    source: str
    compiled: Compiled
    message: str
    changes_the_module: bool

    @property
    def differs(self) -> bool:
        """Whether the spoiled file is another program: other code around the kernel, or a kernel that is another one
        even after optimisation."""
        return self.changes_the_module or self.compiled not in (Compiled.SAME, Compiled.EQUIVALENT, Compiled.SAME_TERMS)

    @property
    def rejected(self) -> bool:
        """Whether `confirm`, which asks both, stops it."""
        return bool(self.source) or self.compiled in (Compiled.INVALID, Compiled.FAILS, Compiled.REJECTED)

    @property
    def is_wrong(self) -> bool:
        """Whether another program passes both judges."""
        return self.differs and not self.rejected

    @property
    def is_hole(self) -> bool:
        """Whether another program passes both judges, or another kernel passes validation alone."""
        return self.is_wrong or self.compiled is Compiled.ACCEPTED


def judged(text: str, case: Case) -> Verdict:
    try:
        file = read_rewritten(text, case.analysis)
    except InternalError as error:
        return Verdict(str(error), Compiled.INVALID, str(error), True)
    try:
        check_source(file, case.rewrite, case.analysis)
        source = ""
    except InternalError as error:
        source = str(error)
    compiled, message = _compiled(file, case)
    return Verdict(
        source, compiled, message, _around(file, case) != _around(read_rewritten(case.text, case.analysis), case)
    )


def _compiled(file: SourceFile, case: Case) -> tuple[Compiled, str]:
    try:
        every = (*case.requests, *case.inputs)
        results = lower_rewritten(file, case.analysis, case.views, case.rewrite, every)
    except (InternalError, FusionRefused) as error:
        return Compiled.INVALID, str(error)
    failure = next((r for r in results if isinstance(r, LoweringFailure)), None)
    if failure is not None:
        return Compiled.FAILS, failure.message
    texts = [result.text for result in results if isinstance(result, Lowered)]
    if [without_places(t) for t in texts] == [without_places(t) for t in case.compiled()]:
        return Compiled.SAME, ""
    try:
        case.check(results)
    except (InternalError, FusionRefused) as error:
        return Compiled.REJECTED, str(error)
    right = case.compiled()
    pairs = list(zip(texts, right, strict=True))
    if all(optimised(mine) == optimised(theirs) for mine, theirs in pairs):
        return Compiled.EQUIVALENT, ""
    # against the right rewrite, which has E in it already: no store may hold anything else, so the rules for E, which
    # accepted this one against the original, take no part
    if not any(validate(parse(theirs), parse(mine), lambda operation, path: None)[1] for mine, theirs in pairs):
        return Compiled.SAME_TERMS, ""
    return Compiled.ACCEPTED, ""


def without_places(ttir: str) -> str:
    """TTIR without locations."""
    lines = [line for line in ttir.splitlines() if not line.startswith("#loc")]
    return re.sub(r" loc\((?:[^()]|\([^()]*\))*\)", "", "\n".join(lines))


def optimised(ttir: str) -> str:
    """TTIR after Triton's inliner, canonicalizer, combiner and common subexpressions: equal texts, equal programs.

    Values are named by the variables in their locations, which are left out, so that names take no part.
    """
    from triton._C.libtriton import ir, passes
    from triton.backends.compiler import GPUTarget
    from triton.compiler.compiler import make_backend

    context = ir.context()
    ir.load_dialects(context)
    make_backend(GPUTarget("cuda", 90, 32)).load_dialects(context)
    with tempfile.NamedTemporaryFile("w", suffix=".ttir", delete=False) as stream:
        stream.write(without_places(ttir))
    try:
        module = ir.parse_mlir_module(stream.name, context)
    finally:
        os.unlink(stream.name)
    module.context = context
    manager = ir.pass_manager(context)
    passes.common.add_inliner(manager)
    for _ in range(3):
        passes.common.add_canonicalizer(manager)
        passes.ttir.add_combine(manager)
        passes.ttir.add_reorder_broadcast(manager)
        passes.common.add_cse(manager)
    passes.common.add_symbol_dce(manager)
    manager.run(module, "optimised")
    return without_places(str(module))


def _around(file: SourceFile, case: Case) -> str:
    """The module but for the bodies of its jit functions."""
    names = {f.name for f in case.analysis.closure.functions} | {c.name for c in case.rewrite.clones}
    originals = {n.name for n in ast.walk(case.analysis.kernel.file.tree) if isinstance(n, ast.FunctionDef)}
    tree = ast.parse(file.text)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and (node.name in names or node.name not in originals):
            node.body = []
    return ast.dump(tree)
