"""Another spelling of the same kernel is the same kernel: it fuses, and validation sees no difference."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kernel_rewrite.analysis import Analysis
from kernel_rewrite.diagnostics import FusionRefused
from kernel_rewrite.rewrite.confirm import confirm, lower_rewritten, read_rewritten
from kernel_rewrite.ttir.lower import Lowered
from kernel_rewrite.ttir.parse import parse
from kernel_rewrite.ttir.validate import validate
from tests.faults.cases import FIXTURES, Case, Request, analysed, analysed_text, fused_case, standing_in
from tests.faults.generator import Scene, faults
from tests.faults.judges import judged
from tests.faults.kernels import kernels
from tests.faults.variants import VARIANTS
from tests.test_fixtures import skip_unless_supported

SAME_TTIR = frozenset(VARIANTS) - {"reordered"}
"""The order in which variables are first assigned is the order in which a loop carries them."""

FOLDERS = sorted(path.parent for path in FIXTURES.glob("*/request.txt"))


def assert_same(analysis: Analysis, text: str) -> None:
    """Validation finds no difference between the analysed kernel and that of `text`."""
    results = lower_rewritten(read_rewritten(text, analysis), analysis, analysis.views)
    for view, result in zip(analysis.views, results, strict=True):
        assert isinstance(result, Lowered), result
        _, differences = validate(view.module, parse(result.text), lambda operation, path: None)
        assert not differences, differences


def assert_fused(case: Case) -> None:
    confirm(case.text, case.rewrite, case.analysis, case.requests, case.numerics)


def functions_of(analysis: Analysis) -> frozenset[str]:
    return frozenset(f.name for f in analysis.closure.functions if f.ref.file == analysis.kernel.file.path)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_another_spelling_of_a_fixture_is_the_same_kernel_and_fuses(
    folder: Path, installed_triton: tuple[int, ...]
) -> None:
    skip_unless_supported(folder, installed_triton)
    request = Request.read((folder / "request.txt").read_text())
    turn = FOLDERS.index(folder) % len(VARIANTS)
    if any("[" in text for text in request.epilogues):  # in names that a variant may replace
        turn = list(VARIANTS).index("reprinted")
    with standing_in(folder):
        analysis = analysed(Path("before.py"), request.kernel, request)
        functions = functions_of(analysis)
        for index, (name, variant) in enumerate(VARIANTS.items()):
            text = variant(analysis.kernel.file.text, functions)
            if name in SAME_TTIR:
                assert_same(analysis, text)
            if index == turn:
                again = analysed_text(text, request, "before.py")
                assert_fused(fused_case(name, again, request.requested(), request))


@pytest.mark.long
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(kernels(), st.sampled_from(["relu", "gelu", "square"]), st.sampled_from(sorted(VARIANTS)), st.integers(0, 99))
def test_random_kernels(text: str, op: str, variant: str, seed: int) -> None:
    """A random kernel fuses, so does another spelling of it, and faults in either are rejected."""
    request = Request((op,), kernel="k")
    analysis = analysed_text(text, request)
    try:
        case = fused_case("random", analysis, [("out_ptr", op)], request)
    except FusionRefused as refused:
        raise AssertionError(text) from refused
    assert_fused(case)
    other = VARIANTS[variant](text, functions_of(analysis))
    if variant in SAME_TTIR:
        assert_same(analysis, other)
    assert_fused(fused_case("variant", analysed_text(other, request), [("out_ptr", op)], request))
    scene = Scene.of(case)
    found = faults(scene, 1, seed)
    for fault in [found[(seed * 7 + 11 * i) % len(found)] for i in range(3)]:
        spoiled = scene.spoiled(fault)
        verdict = judged(spoiled, case)
        assert not verdict.is_hole, f"{fault.kind}: {fault.what}: {verdict}\n{spoiled}"
