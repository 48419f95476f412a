"""The ways to compile a kernel, and the repair of wrong guesses."""

from __future__ import annotations

from collections.abc import Callable
from textwrap import dedent

import pytest

from kernel_rewrite.inspection import inspect
from kernel_rewrite.model import Closure, Dtype, Evidence, Specialization
from kernel_rewrite.source.autotune import tuning
from kernel_rewrite.source.branches import _DTYPE_QUESTIONS
from kernel_rewrite.source.closure import close, kernels
from kernel_rewrite.source.files import Project, source_from_text
from kernel_rewrite.source.launches import launches
from kernel_rewrite.source.repair import Alternatives, adopt, repaired_plan, search
from kernel_rewrite.source.signatures import DTYPE_NAMES, Overrides
from kernel_rewrite.source.specializations import (
    LIMIT,
    SpecializationPlan,
    impossible,
    plan,
    specializations,
)
from kernel_rewrite.ttir.lower import Lowered, LoweringFailure, compiler

HEAD = "import torch\nimport triton\nimport triton.language as tl\n"


def planned(
    text: str, limit: int = 32, overrides: Overrides = Overrides()
) -> tuple[Closure, SpecializationPlan, Project]:
    project = Project()
    file = project.add(source_from_text(HEAD + dedent(text), "f.py"))
    kernel = next(k for k in kernels(file, project) if k.name == "kernel")
    closure = close(kernel, project)
    sites = launches(kernel.node, file.tree, file.path)
    tuned = tuning(kernel.node, file.tree, file.path)
    return closure, specializations(closure, sites, tuned, overrides, limit), project


def choices(found: SpecializationPlan, *names: str) -> set[tuple[object, ...]]:
    """The values that the constexprs `names` take together."""
    return {tuple(dict(s.constexprs).get(name, "given") for name in names) for s in found.specializations}


def kernel(parameters: str, body: str, decorators: str = "") -> str:
    lines = "".join(f"    {line}\n" for line in dedent(body).splitlines() if line.strip())
    return f"{decorators}@triton.jit\ndef kernel({parameters}):\n{lines}"


def test_one_way_to_compile() -> None:
    _, found, _ = planned(kernel("x, n, B: tl.constexpr", "tl.store(x + tl.arange(0, B), 0.0)"))
    assert found.complete
    assert found.specializations == (Specialization((("x", "*fp32"), ("n", "i32"), ("B", "constexpr")), (("B", 64),)),)


def test_both_sides_of_every_flag() -> None:
    body = "if A:\n    tl.store(x, 0.0)\nif B:\n    tl.store(x, 1.0)"
    _, found, _ = planned(kernel("x, A: tl.constexpr, B: tl.constexpr", body))
    assert found.complete
    assert choices(found, "A", "B") == {(a, b) for a in (True, False) for b in (True, False)}


def test_a_nested_flag_only_matters_under_its_outer_one() -> None:
    body = "if A:\n    if B:\n        tl.store(x, 0.0)\n    else:\n        tl.store(x, 1.0)"
    _, found, _ = planned(kernel("x, A: tl.constexpr, B: tl.constexpr", body))
    assert found.complete
    assert len(found.specializations) == 3
    assert {(True, True), (True, False)} <= choices(found, "A", "B")


def test_flags_in_helpers_and_locals_count() -> None:
    text = """
    @triton.jit
    def act(x, MODE: tl.constexpr):
        if MODE == "relu":
            return tl.maximum(x, 0.0)
        elif MODE == "double":
            return x * 2.0
        return x

    @triton.jit
    def kernel(x, MODE: tl.constexpr, N: tl.constexpr, B: tl.constexpr):
        even: tl.constexpr = N % B == 0
        y = act(tl.load(x), MODE)
        if even:
            tl.store(x, y)
    """
    _, found, _ = planned(text)
    assert {("relu",), ("double",), ("",)} <= choices(found, "MODE")


def test_joint_conditions_are_solved() -> None:
    body = (
        "if A and not B:\n    if MODE == 'sum' or N > 4:\n        tl.store(x, 0.0)\n    else:\n        tl.store(x, 1.0)"
    )
    _, found, _ = planned(kernel("x, A: tl.constexpr, B: tl.constexpr, MODE: tl.constexpr, N: tl.constexpr", body))
    seen = choices(found, "A", "B", "MODE", "N")
    assert found.complete and not found.undecided
    assert any(a and not b and mode != "sum" and n <= 4 for a, b, mode, n in seen if isinstance(n, int))


CONFIGS = """
@triton.autotune(configs=[
    triton.Config({'B': 32, 'SPLIT': 1}, num_warps=4),
    triton.Config({'B': 32, 'SPLIT': 1}, num_warps=8),
    triton.Config({'B': 64, 'SPLIT': 1}),
    triton.Config({'B': 64, 'SPLIT': 4}),
], key=[])
"""


def test_every_autotune_config_is_there() -> None:
    """A11: one config stores, another adds."""
    body = """
    p = x + tl.arange(0, B)
    if SPLIT == 1:
        tl.store(p, 0.0)
    else:
        tl.atomic_add(p, 1.0)
    """
    _, found, _ = planned(kernel("x, B: tl.constexpr, SPLIT: tl.constexpr", body, CONFIGS))
    assert choices(found, "B", "SPLIT") == {(32, 1), (64, 1), (64, 4)}
    assert len(found.specializations) == 3
    assert found.base.origin == "autotune config 1"
    assert found.complete


def test_configs_and_flags_combine() -> None:
    body = """
    if FLAG:
        if SPLIT == 1:
            tl.store(x + tl.arange(0, B), 0.0)
        else:
            tl.atomic_add(x, 1.0)
    """
    _, found, _ = planned(kernel("x, FLAG: tl.constexpr, B: tl.constexpr, SPLIT: tl.constexpr", body, CONFIGS))
    assert {(True, 1), (True, 4), (False, 1)} <= choices(found, "FLAG", "SPLIT")


def test_unreadable_configs_do_not_bound_the_values() -> None:
    body = "if SPLIT == 1:\n    tl.store(x, 0.0)\nelse:\n    tl.atomic_add(x, 1.0)"
    decorator = "@triton.autotune(configs=[triton.Config({'SPLIT': 1})] + more(), key=[])\n"
    _, found, _ = planned(kernel("x, SPLIT: tl.constexpr", body, decorator))
    assert not found.signature.tuning.complete
    assert (1,) in choices(found, "SPLIT")
    assert any(split != (1,) for split in choices(found, "SPLIT"))


def test_optional_pointers_are_present_and_absent() -> None:
    body = "y = tl.load(x)\nif bias is not None:\n    y += tl.load(bias)\ntl.store(out, y)"
    _, found, _ = planned(kernel("x, bias, out", body))
    assert [s.type_of("bias") for s in found.specializations] == ["*fp32", "constexpr"]
    assert dict(found.specializations[1].constexprs) == {"bias": None}


def test_a_flag_follows_the_pointer_that_it_is_about() -> None:
    text = kernel(
        "bias, out, HAS_BIAS: tl.constexpr",
        "if bias is not None:\n    tl.store(out, 1.0)\nif HAS_BIAS:\n    tl.store(out, tl.load(bias))",
    )
    site = "def launch(b, out):\n    kernel[(1,)](b, out, HAS_BIAS=b is not None)\n"
    _, found, _ = planned(site + text)
    combined = {(s.type_of("bias"), dict(s.constexprs)["HAS_BIAS"]) for s in found.specializations}
    assert ("*fp32", True) in combined and ("constexpr", False) in combined


def test_a_large_product_is_covered_side_by_side() -> None:
    flags = [f"F{i}" for i in range(9)]
    body = "\n".join(
        f"if {f}:\n    tl.store(x + {i}, 0.0)\nelse:\n    tl.store(x + {i}, 1.0)" for i, f in enumerate(flags)
    )
    text = kernel("x, " + ", ".join(f"{f}: tl.constexpr" for f in flags), body)
    _, found, _ = planned(text, limit=12)
    assert not found.complete
    assert len(found.specializations) == 12
    assert len(found.spare) == LIMIT - 12  # for those of them that do not compile
    assert not {*map(repr, found.spare)} & {*map(repr, found.specializations)}
    for flag in flags:
        assert choices(found, flag) == {(True,), (False,)}
    _, found, _ = planned(text, limit=3)  # so few do not take each side
    assert 3 < len(found.specializations) < 12
    for flag in flags:
        assert choices(found, flag) == {(True,), (False,)}
    assert not found.undecided


def test_a_static_assertion_rules_out_flags_but_not_sizes() -> None:
    body = """
    if MODE == "sum":
        tl.store(x, 0.0)
    else:
        tl.static_assert(MODE == "mean")
        if WIDE:
            tl.static_assert(B == 128)
        tl.store(x, 1.0)
    """
    _, found, _ = planned(kernel("x, B: tl.constexpr, MODE: tl.constexpr, WIDE: tl.constexpr", body))
    assert {mode for mode, _ in choices(found, "MODE", "WIDE")} == {"sum", "mean"}
    assert {("mean", True), ("mean", False)} <= choices(found, "MODE", "WIDE")
    assert found.complete


def test_what_cannot_be_decided_is_listed() -> None:
    body = "if B > 4096 * 4096 and False:\n    tl.store(x, 0.0)\nif MODE == 'a':\n    tl.store(x, 1.0)"
    _, found, _ = planned(kernel("x, B: tl.constexpr, MODE: tl.constexpr", body), overrides=Overrides({"MODE": "a"}))
    undecided = {(site[3], outcome) for site, outcome in found.undecided}
    assert ("B > 4096 * 4096", True) in undecided
    assert ("MODE == 'a'", False) not in undecided  # the user has said that MODE is 'a'


@pytest.mark.parametrize(
    "body",
    [
        "if tl.load(x) > 0:\n    tl.store(x, 0.0)",
        "m = tl.load(x).to(tl.int32)\nif m == n and n > 3:\n    tl.store(x, 0.0)",
        "k = 0\nfor i in range(n):\n    if k == 3 or i == 2:\n        tl.store(x, 0.0)\n    k += 1",
        "for j in tl.static_range(3):\n    if j == 2:\n        tl.store(x, 0.0)",
        "while n > 0:\n    n -= 1\n    tl.store(x, 0.0)",
    ],
)
def test_tests_at_run_time_need_no_alternatives(body: str) -> None:
    _, found, _ = planned(kernel("x, n", body))
    assert found.complete and not found.opaque
    assert len(found.specializations) == 1


@pytest.mark.parametrize(
    ("body", "test"),
    [
        ("a = tl.load(x)\nif a.dtype.is_floating():\n    tl.store(x, 0.0)", "a.dtype.is_floating()"),
        ("a = tl.load(x)\nif a.dtype == tl.float16:\n    tl.store(x, 0.0)", "a.dtype == tl.float16"),
        ("for j in tl.static_range(99):\n    if j == 2:\n        tl.store(x, 0.0)", "j == 2"),
        ("if unknown():\n    tl.store(x, 0.0)", "unknown()"),
        ("y = tl.load(x) if hasattr(x, 'numel') else 0.0\ntl.store(x, y)", "hasattr(x, 'numel')"),
    ],
)
def test_tests_that_cannot_be_followed_make_a_plan_incomplete(body: str, test: str) -> None:
    _, found, _ = planned(kernel("x, n", body))
    assert not found.complete
    assert [site[3] for site in found.opaque] == [test]


def test_branches_on_element_types_are_followed() -> None:
    body = "if x.dtype.element_ty == tl.float16:\n    tl.store(x, 0.0)\nelse:\n    tl.store(x, 1.0)"
    _, found, _ = planned(kernel("x", body))
    assert found.complete and not found.undecided
    assert [s.type_of("x") for s in found.specializations] == ["*fp32", "*fp16"]


def test_overrides_are_kept_in_every_specialization() -> None:
    body = "if A:\n    tl.store(x, 0.0)\nif B:\n    tl.store(x, 1.0)"
    _, found, _ = planned(kernel("x, A: tl.constexpr, B: tl.constexpr", body), overrides=Overrides({"A": True}))
    assert choices(found, "A", "B") == {(True, True), (True, False)}


def test_descriptor_shapes_follow_the_constexprs() -> None:
    text = kernel(
        "d, out, BM: tl.constexpr",
        "v = d.load([tl.program_id(0) * BM, 0])\ntl.store(out, tl.sum(tl.sum(v, 0), 0))",
    )
    site = "def launch(x, out):\n    kernel[(1,)](TensorDescriptor.from_tensor(x, [BM, 16]), out, BM=32)\n"
    _, found, _ = planned(site + text)
    assert found.base.type_of("d") == "tensordesc<fp16[32, 16]>"


def lowering(closure: Closure, project: Project) -> Callable[[Specialization], LoweringFailure | None]:
    def lower(specialization: Specialization) -> LoweringFailure | None:
        result = next(compiler().lower(closure, project.sources(), [specialization]))
        return None if isinstance(result, Lowered) else result

    return lower


def test_every_specialization_of_a_matmul_lowers() -> None:
    text = """
    @triton.autotune(configs=[triton.Config({'BM': m, 'BN': 32, 'BK': 16}) for m in (16, 32)], key=[])
    @triton.heuristics({'EVEN': lambda args: args['K'] % args['BK'] == 0})
    @triton.jit
    def kernel(a, b, c, bias, M, N, K, sa, sb, sc, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
               EVEN: tl.constexpr, ACT: tl.constexpr):
        om = tl.program_id(0) * BM + tl.arange(0, BM)
        on = tl.program_id(1) * BN + tl.arange(0, BN)
        ok = tl.arange(0, BK)
        acc = tl.zeros((BM, BN), dtype=tl.float32)
        for k in range(0, K, BK):
            if EVEN:
                x = tl.load(a + om[:, None] * sa + (k + ok)[None, :])
            else:
                x = tl.load(a + om[:, None] * sa + (k + ok)[None, :], mask=(k + ok)[None, :] < K, other=0.0)
            acc += tl.dot(x, tl.load(b + (k + ok)[:, None] * sb + on[None, :]))
        if bias is not None:
            acc += tl.load(bias + on)[None, :]
        if ACT == "relu":
            acc = tl.maximum(acc, 0.0)
        tl.store(c + om[:, None] * sc + on[None, :], acc, mask=(om < M)[:, None] & (on < N)[None, :])

    def launch(a, b, bias=None):
        c = torch.empty((a.shape[0], b.shape[1]), dtype=torch.float16)
        kernel[(1, 1)](a, b, c, bias, *c.shape, a.shape[1], a.stride(0), b.stride(0), c.stride(0), ACT="relu")
    """
    closure, found, project = planned(text)
    assert found.complete
    assert choices(found, "BM", "EVEN", "ACT", "bias") == {
        (16, e, a, b) for e in (True, False) for a in ("relu", "") for b in ("given", None)
    } | {(32, True, "relu", "given")}
    assert [lowering(closure, project)(s) for s in found.specializations] == [None] * len(found.specializations)


REPAIRS = [
    # parameters, body, what must come out
    ("x, y, M: tl.constexpr", "tl.static_assert(M * 2 == 32)\ntl.store(x, M)", ("M", 16)),
    ("x, y, M: tl.constexpr", "tl.static_assert(M % 48 == 0 and M > 64)\ntl.store(x, M)", ("M", None)),
    ("x, y, n", "a = tl.load(y)\na = a & 0xFFFFFFFF0\ntl.store(x, a)", ("y", "*i64")),
    ("x, y, n", "for i in range(4):\n    n = n * tl.load(y).to(tl.int64)\ntl.store(x, n)", ("n", "i64")),
    ("x, y, A: tl.constexpr, B: tl.constexpr", "tl.store(x + tl.arange(A, B), 0.0)", ("B", None)),
    ("x, y, n", "m = tl.load(y) & (n > 2)\nfor i in range(4):\n    n += m\n    tl.store(x + n, 1.0, mask=m)", ("y", "*i1")),
    ("x, y, DT: tl.constexpr = tl.float8e4b8", "tl.store(x, tl.load(y).to(DT).to(tl.float32))", ("DT", Dtype("float8e4nv"))),
]  # fmt: skip


@pytest.mark.parametrize(("parameters", "body", "expected"), REPAIRS)
def test_wrong_guesses_are_repaired(parameters: str, body: str, expected: tuple[str, object]) -> None:
    closure, found, project = planned(kernel(parameters, body))
    lower = lowering(closure, project)
    failure = lower(found.base)
    assert failure is not None, "nothing to repair"
    repaired = search(closure, found.signature, found.base, failure, lower)
    assert repaired is not None
    assert lower(repaired) is None
    name, value = expected
    got = dict(repaired.constexprs).get(name, repaired.type_of(name))
    assert value is None or got == value
    adopted = plan(closure, adopt(found.signature, found.base, repaired))
    assert adopted.base.signature == repaired.signature and adopted.base.constexprs == repaired.constexprs
    assert adopted.signature[name].evidence is Evidence.REPAIR


def test_a_repaired_plan_keeps_the_alternatives() -> None:
    body = "tl.static_assert(M * 2 == 32)\nif FLAG:\n    tl.store(x, M)\nelse:\n    tl.store(x, 0.0)"
    closure, found, project = planned(kernel("x, M: tl.constexpr, FLAG: tl.constexpr", body))
    lower = lowering(closure, project)
    failure = lower(found.base)
    assert failure is not None
    repaired = repaired_plan(closure, found, failure, lower)
    assert repaired is not None
    assert choices(repaired, "M", "FLAG") == {(16, True), (16, False)}
    assert [lower(s) for s in repaired.specializations] == [None, None]


def test_given_values_are_never_repaired() -> None:
    closure, found, project = planned(
        kernel("x, M: tl.constexpr", "tl.static_assert(M == 16)\ntl.store(x, M)"), overrides=Overrides({"M": 8})
    )
    lower = lowering(closure, project)
    failure = lower(found.base)
    assert failure is not None
    assert search(closure, found.signature, found.base, failure, lower) is None


def test_repair_gives_up_in_time() -> None:
    closure, found, project = planned(kernel("x, a, b, c", "tl.store(x, tl.no_such_thing(a, b, c))"))
    lower = lowering(closure, project)
    calls = []

    def counted(specialization: Specialization) -> LoweringFailure | None:
        calls.append(specialization)
        return lower(specialization)

    failure = lower(found.base)
    assert failure is not None
    assert search(closure, found.signature, found.base, failure, counted, tries=9) is None
    assert len(calls) <= 9
    assert len({repr((s.signature, s.constexprs)) for s in calls}) == len(calls)


@pytest.mark.parametrize("test", ["D > R", "D == R", "D != R", "R < D"])
def test_two_constexprs_that_are_compared_take_values_on_both_sides(test: str) -> None:
    body = f"E: tl.constexpr = {test}\nif E:\n    tl.store(x, 0.0)\nelse:\n    tl.store(x, 1.0)"
    _, found, _ = planned(kernel("x, D: tl.constexpr, R: tl.constexpr", body))
    assert found.complete and not found.undecided
    assert len(found.specializations) == 2


def test_block_sizes_that_are_compared_stay_powers_of_two() -> None:
    body = "i = tl.arange(0, B)\nif B > N:\n    tl.store(x + i, 0.0)"
    launcher = "\ndef f(x):\n    kernel[(1,)](x, N=1000, B=64)\n"
    _, found, _ = planned(kernel("x, N: tl.constexpr, B: tl.constexpr", body) + launcher)
    sizes = {dict(s.constexprs)["B"] for s in found.specializations}
    assert all(isinstance(size, int) and size & (size - 1) == 0 for size in sizes)
    assert len(found.specializations) == 2


def failed(text: str) -> tuple[list[LoweringFailure], SpecializationPlan, Closure, Project]:
    closure, found, project = planned(text)
    results = compiler().lower(closure, project.sources(), found.specializations)
    return [r for r in results if isinstance(r, LoweringFailure)], found, closure, project


def test_no_launch_reads_a_variable_that_was_never_assigned() -> None:
    body = "if A:\n    v = 0.0\nif B:\n    tl.store(x, v)"
    failures, found, closure, _ = failed(kernel("x, A: tl.constexpr, B: tl.constexpr", body))
    assert [dict(f.specialization.constexprs) for f in failures] == [{"A": False, "B": True}]
    assert impossible(failures[0], found, closure)


@pytest.mark.parametrize(
    "body",
    [
        "if A:\n    tl.store(x, NOWHERE)",  # a global that was not found
        "if x.dtype.element_ty == tl.float16:\n    v = 0.0\nif A:\n    tl.store(x, v)",  # assigned for another type
        "if A:\n    tl.store(x, tl.load(x) & 1)",  # a type
    ],
)
def test_what_another_type_or_file_could_change_is_not_impossible(body: str) -> None:
    failures, found, closure, _ = failed(
        kernel("x, A: tl.constexpr", "v0 = 1.0\nx1 = tl.load(x) + tl.exp(tl.load(x))\n" + body)
    )
    assert failures
    assert not any(impossible(failure, found, closure) for failure in failures)


def test_a_type_that_only_one_branch_needs_is_found_for_it() -> None:
    body = "if HAS:\n    c = tl.load(counts)\nelse:\n    c = counts\ntl.store(out, c & 7)"
    text = kernel("counts, out, HAS: tl.constexpr", body)
    failures, found, closure, project = failed(text)
    assert len(failures) == 1
    lower = lowering(closure, project)
    repaired = Alternatives(closure, found.signature).repaired(failures[0], failures[0].specialization, lower)
    assert repaired is not None and lower(repaired) is None
    assert repaired.type_of("counts") == "i32"
    assert repaired.constexprs == failures[0].specialization.constexprs


def test_a_repaired_alternative_keeps_its_decisions() -> None:
    body = "if HAS:\n    tl.static_assert(x.dtype.element_ty == tl.int64)\ntl.store(x, 0)"
    failures, found, closure, project = failed(kernel("x, HAS: tl.constexpr", body))
    (failure,) = [f for f in failures if dict(f.specialization.constexprs)["HAS"]]
    repaired = Alternatives(closure, found.signature).repaired(
        failure, failure.specialization, lowering(closure, project)
    )
    assert repaired is None or dict(repaired.constexprs)["HAS"] is True


@pytest.mark.parametrize("question", sorted(_DTYPE_QUESTIONS))
def test_what_a_dtype_answers_is_what_triton_answers(question: str) -> None:
    language = pytest.importorskip("triton.language")
    for name in DTYPE_NAMES.values():
        assert _DTYPE_QUESTIONS[question](name) is bool(getattr(getattr(language, name), question)()), name


def test_questions_to_a_dtype_are_followed() -> None:
    body = "if D.is_bf16() or D.is_fp16():\n    tl.store(x, 0.0)\nelse:\n    tl.store(x, 1.0)"
    _, found, _ = planned(kernel("x, D: tl.constexpr", body) + "\ndef f(x):\n    kernel[(1,)](x, D=tl.float16)\n")
    assert not found.opaque


def test_no_launch_compiles_a_branch_that_raises() -> None:
    body = "if A:\n    raise ValueError('no')\ntl.store(x, 0.0)"
    failures, found, closure, _ = failed(kernel("x, A: tl.constexpr", body))
    assert failures and all(impossible(failure, found, closure) for failure in failures)


def test_written_elements_stay_floats_when_types_are_varied() -> None:
    body = "v = tl.load(x)\nif x.dtype.element_ty.is_int():\n    v += 1\nif o.dtype.element_ty.is_int():\n    v += 2\ntl.store(o, v)"
    _, found, _ = planned(kernel("x, o", body))
    assert {s.type_of("o") for s in found.specializations} == {"*fp32"}
    assert {str(s.type_of("x")).strip("*")[0] for s in found.specializations} == {"f", "i"}
    assert [site[3] for site, _ in found.undecided] == ["o.dtype.element_ty.is_int()"]


def test_element_types_that_were_all_tried_leave_nothing_open() -> None:
    body = "e = x.dtype.element_ty\nif e.is_floating():\n    v = 0\nelif e.is_int_signed():\n    v = 1\n"
    body += "elif e.is_int_unsigned():\n    v = 2\nelse:\n    v = tl.load(o)\ntl.store(o, v + tl.load(x))"
    _, found, _ = planned(kernel("x, o", body))
    assert found.complete and not found.undecided
    assert {str(s.type_of("x"))[1] for s in found.specializations} == {"f", "i", "u"} or len(found.specializations) == 3


def test_a_branch_that_does_not_compile_does_not_hide_those_beside_it() -> None:
    flags = [f"USE_{i}" for i in range(6)]
    sides = "".join(
        f"    if {f}:\n        tl.store(out + {i}, v)\n    else:\n        tl.store(out + {i}, -v)\n"
        for i, f in enumerate(flags)
    )
    numbers = [f"n{i}" for i in range(12)]  # so many that HAS_BROKEN is not among what is tried to repair the base
    parameters = ", ".join([*numbers, *(f"{flag}: tl.constexpr" for flag in (*flags, "HAS_BROKEN"))])
    text = (
        "import triton\nimport triton.language as tl\n\n@triton.jit\n"
        f"def kernel(x, out, {parameters}):\n    v = tl.load(x)\n    if HAS_BROKEN:\n        v = missing(v)\n{sides}"
    )
    found = inspect(text, path="f.py").kernels[0]
    (output,) = found.outputs
    assert len(output.stores) == 2 * len(flags)
    assert not found.complete and found.rejected
