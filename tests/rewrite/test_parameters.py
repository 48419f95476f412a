"""Where new parameters of a kernel go, and what must bear them."""

from __future__ import annotations

import ast
from textwrap import dedent

import pytest
from launched import BIAS, IMPORTS, RESIDUAL, SCALE, Outcome, rewritten

from kernel_rewrite.rewrite.parameters import NewParameter

BODY = "    tl.store(out, tl.load(x))\n"


def signed(signature: str, launch: str = "", above: str = "@triton.jit", parameters=(BIAS,), head: str = "") -> Outcome:  # type: ignore[no-untyped-def]
    launcher = f"\n\ndef f(x, out, n, *args):\n    kernel[(1,)]({launch})\n" if launch else ""
    text = f"{IMPORTS}{dedent(head)}\n{dedent(above)}\ndef kernel({signature}):\n{BODY}{launcher}"
    return rewritten(text, parameters)


def signature(outcome: Outcome) -> str:
    start = outcome.text.index("def kernel(")
    return outcome.text[start + len("def kernel(") : outcome.text.index("):\n", start)]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("x, out", "x, out, bias_ptr"),
        ("x, out,", "x, out, bias_ptr,"),
        ("x, out, n, B: tl.constexpr", "x, out, n, bias_ptr, B: tl.constexpr"),
        ("x, out, B: tl.constexpr, n", "x, out, B: tl.constexpr, n, bias_ptr"),
        ("x, out, n=1", "x, out, bias_ptr, n=1"),
        ("x, out, B: tl.constexpr = 4, n=1", "x, out, bias_ptr, B: tl.constexpr = 4, n=1"),
        ("B: tl.constexpr, C: tl.constexpr", "bias_ptr, B: tl.constexpr, C: tl.constexpr"),
        ("x, out, /, n", "x, out, /, n, bias_ptr"),
        ("x, out, /", "x, out, /, bias_ptr"),
        ("\n    x, out,\n    n,\n    B: tl.constexpr,\n", "\n    x, out,\n    n,\n    bias_ptr,\n    B: tl.constexpr,\n"),
        ("\n    x,  # in\n    out  # a (comment\n", "\n    x,  # in\n    out,  # a (comment\n    bias_ptr\n"),
        ("\n    x,\n    out,  # out\n    B: tl.constexpr,  # meta\n", "\n    x,\n    out,  # out\n    bias_ptr,\n    B: tl.constexpr,  # meta\n"),
        ("\n        # Pointers\n        x, out,\n        # Meta\n        B: tl.constexpr  #\n", "\n        # Pointers\n        x, out,\n        bias_ptr,\n        # Meta\n        B: tl.constexpr  #\n"),
        ("x, out,\n           n, B: tl.constexpr", "x, out,\n           n, bias_ptr, B: tl.constexpr"),
        ("x, out: 'a, (b' = (1), n=((2))", "x, bias_ptr, out: 'a, (b' = (1), n=((2))"),
        ("x,\r\n    out,\r\n", "x,\r\n    out,\r\n    bias_ptr,\r\n"),
        ("x, größe, out", "x, größe, out, bias_ptr"),
    ],
)  # fmt: skip
def test_place_and_layout(before: str, after: str) -> None:
    outcome = signed(before)
    assert outcome.codes == []
    assert signature(outcome) == after


def test_parameters_that_can_only_be_passed_by_position_are_not_parted() -> None:
    assert signature(signed("x, out: 'a, (b' = (1), /")) == "x, out: 'a, (b' = (1), /, bias_ptr=None"


@pytest.mark.parametrize(
    ("launch", "inside"),
    [
        ("x, out, n, B=64", True),
        ("x, out, n, **{'B': 64}", True),
        ("*(x, out, n), B=64", True),
        ("x=x, out=out, n=n, B=64", True),
        ("x, out, n, 64", False),  # 64 would become the operand
        ("*(x, out, n, 64)", False),
        ("*args", False),
        ("x, out, *args, B=64", False),
    ],
)
def test_nothing_passed_by_position_moves(launch: str, inside: bool) -> None:
    outcome = signed("x, out, n, B: tl.constexpr", launch)
    expected = "x, out, n, bias_ptr, B: tl.constexpr" if inside else "x, out, n, B: tl.constexpr, bias_ptr"
    assert signature(outcome) == expected


def test_one_launch_decides_for_all() -> None:
    text = f"{IMPORTS}\n@triton.jit\ndef kernel(x, out, B: tl.constexpr):\n{BODY}\n\ndef f(x):\n    kernel[(1,)](x, x, B=4)\n"
    assert "out, bias_ptr, B" in rewritten(text).text
    assert "B: tl.constexpr, bias_ptr)" in rewritten(text + "\n\ndef g(x):\n    kernel[(1,)](x, x, 4)\n").text


def test_behind_defaults_a_parameter_needs_one() -> None:
    outcome = signed("x, out, B: tl.constexpr = 4", "x, out, 4", parameters=(BIAS, SCALE))
    assert signature(outcome) == "x, out, B: tl.constexpr = 4, bias_ptr=None, scale=None"


def test_pointers_come_before_strides() -> None:
    outcome = signed("x, out, B: tl.constexpr", parameters=(RESIDUAL, BIAS))
    assert signature(outcome) == "x, out, residual_ptr, bias_ptr, stride_rm, stride_rn, B: tl.constexpr"


# what stands around the kernel ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("above", "after"),
    [
        ("@triton.jit(do_not_specialize=[2, 3])", "@triton.jit(do_not_specialize=[2, 4])"),
        ("@triton.jit(do_not_specialize=(3,), noinline=True)", "@triton.jit(do_not_specialize=(4,), noinline=True)"),
        ("@triton.jit(do_not_specialize_on_alignment=[0, 4])", "@triton.jit(do_not_specialize_on_alignment=[0, 5])"),
        ("@triton.jit(do_not_specialize=['n', 'm'])", "@triton.jit(do_not_specialize=['n', 'm'])"),
    ],
)
def test_parameters_named_by_position_keep_their_names(above: str, after: str) -> None:
    outcome = signed("x, out, n, B: tl.constexpr, m=1", above=above)
    assert signature(outcome) == "x, out, n, bias_ptr, B: tl.constexpr, m=1"
    assert f"\n{after}\ndef kernel" in outcome.text


def test_numbers_out_of_reach_are_not_moved() -> None:
    head = "LATE = [3]\nEARLY = ['n']\n"
    outcome = signed("x, out, n, B: tl.constexpr", above="@triton.jit(do_not_specialize=LATE)", head=head)
    assert signature(outcome) == "x, out, n, B: tl.constexpr, bias_ptr"
    outcome = signed("x, out, n, B: tl.constexpr", above="@triton.jit(do_not_specialize=EARLY)", head=head)
    assert signature(outcome) == "x, out, n, bias_ptr, B: tl.constexpr"
    outcome = signed("x, out, n, B: tl.constexpr", above="@triton.jit(do_not_specialize=numbers())", head=head)
    assert signature(outcome) == "x, out, n, B: tl.constexpr, bias_ptr"


TUNED = """\
def prune(configs, named, **kwargs):
    return configs
def strict(configs, named, B=1):
    return configs
@triton.autotune(
    configs=[triton.Config({{"B": 64}}, pre_hook=lambda args: args["out"].zero_())],
    key=["n"], restore_value=["out"], {options}
)
@triton.heuristics({{"EVEN": lambda args: args["n"] % args["B"] == 0}})
@triton.jit"""


@pytest.mark.parametrize(
    ("options", "refused"),
    [
        ("", False),
        ("prune_configs_by={'early_config_prune': prune}", False),
        ("prune_configs_by={'early_config_prune': prune, 'perf_model': None, 'top_k': 4}", False),
        ("prune_configs_by={'perf_model': lambda **args: 1, 'top_k': 4}", False),
        ("prune_configs_by=dict(early_config_prune=prune)", False),
        ("prune_configs_by={'early_config_prune': strict}", True),
        ("prune_configs_by={'perf_model': lambda n, B: 1}", True),
        ("prune_configs_by={'early_config_prune': elsewhere}", True),
        ("prune_configs_by=elsewhere()", True),
        ("pre_hook=lambda args, reset_only=False: None, post_hook=lambda args, exception: None", False),
    ],
)
def test_the_tuner_bears_a_new_argument(options: str, refused: bool) -> None:
    outcome = signed("x, out, n, B: tl.constexpr, EVEN: tl.constexpr", above=TUNED.format(options=options))
    assert outcome.codes == (["KR316"] if refused else [])
    added = "x, out, n, B: tl.constexpr" if refused else "x, out, n, bias_ptr, B: tl.constexpr"
    assert signature(outcome).startswith(added)


@pytest.mark.parametrize(
    ("before", "code"),
    [
        ("x, out, *, n", "KR310"),
        ("x, out, *rest", "KR310"),
        ("x, out, **rest", "KR310"),
    ],
)
def test_signatures_that_cannot_grow(before: str, code: str) -> None:
    outcome = signed(before)
    assert set(outcome.codes) == {code}
    assert signature(outcome) == before


def test_a_kernel_that_another_kernel_calls() -> None:
    text = (
        f"{IMPORTS}\n@triton.jit\ndef kernel(x, out):\n{BODY}\n\n@triton.jit\ndef outer(x, out):\n    kernel(x, out)\n"
    )
    assert rewritten(text).codes == ["KR310"]
    assert rewritten(text.replace("kernel(x, out)\n", "tl.store(out, 1.0)\n")).codes == []


@pytest.mark.parametrize("name", ["num_warps", "grid", "x", "B", "EVEN"])
def test_names_with_a_meaning_of_their_own(name: str) -> None:
    above = TUNED.format(options="")
    new = (NewParameter(name, "bias"),)
    outcome = signed("x, out, n", above=above, parameters=new)  # B and EVEN come from the tuner alone
    assert outcome.codes == ["KR311"]
    assert signed("x, out, n", above=above, parameters=(NewParameter("bias_ptr", "bias"),)).codes == []


def test_the_text_parses_and_says_what_was_planned() -> None:
    outcome = signed("x, out, n, B: tl.constexpr", "x, out, n, B=4", parameters=(RESIDUAL, SCALE))
    tree = ast.parse(outcome.text)
    node = next(n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "kernel")
    assert [a.arg for a in node.args.args] == ["x", "out", "n", "residual_ptr", "scale", "stride_rm", "stride_rn", "B"]
