"""pyproject.toml: what an entry says, and what is said about one that is wrong."""

from __future__ import annotations

import inspect as python_inspect
from pathlib import Path

import pytest

from kernel_rewrite.arguments import ARGUMENTS
from kernel_rewrite.diagnostics import FusionRefused
from kernel_rewrite.project.entries import Entry, find_configuration, read_configuration

from .conftest import run

HEAD = '[[tool.kernel-rewrite.fusion]]\nsource = "a.py"\noutput = "b.py"\n'


def entries(folder: Path, text: str) -> tuple[Entry, ...]:
    (folder / "pyproject.toml").write_text(text)
    return read_configuration("pyproject.toml").entries


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_an_entry_is_a_call_of_fuse(repository: Path) -> None:
    double, triple = read_configuration("pyproject.toml").entries
    assert (double.source, double.output) == ("demo/double.py", "demo/fused/double_relu.py")
    assert double.arguments == {"epilogues": ("out_ptr=relu",)}
    assert triple.arguments == {
        "kernel": "triple_kernel",
        "epilogues": ("gelu(approximate='tanh')",),
        "numerics": "fused",
        "constexprs": ("BLOCK=128",),
        "dtypes": ("out_ptr=fp16",),
        "assume": ("fully-written",),
    }
    assert triple.calls == ("triple(randn(100))",)


def test_every_argument_is_one_of_fuse_and_an_option() -> None:
    from kernel_rewrite import fuse
    from kernel_rewrite.cli import cli

    options = {name for parameter in cli.commands["fuse"].params for name in parameter.opts}
    parameters = python_inspect.signature(fuse).parameters
    for argument in ARGUMENTS:
        assert argument.parameter in parameters and argument.option in options, argument


@pytest.mark.parametrize(
    "epilogues", ['"relu"', '["relu"]', '{ out_ptr = "relu" }', '["out_ptr=relu", "b[0] = gelu"]'], ids=str
)
def test_epilogues(folder: Path, epilogues: str) -> None:
    (entry,) = entries(folder, f"{HEAD}epilogues = {epilogues}\n")
    assert entry.arguments["epilogues"][0].endswith("relu")


def test_a_default_for_all(folder: Path) -> None:
    text = f'[tool.kernel-rewrite]\nnumerics = "fused"\n{HEAD}epilogues = "relu"\n{HEAD.replace("b.py", "c.py")}epilogues = "relu"\nnumerics = "eager"\n'
    first, second = entries(folder, text)
    assert first.arguments["numerics"] == "fused" and "numerics" not in second.arguments


WRONG = {
    "unknown key": (HEAD + 'epilogues = "relu"\n\nkernl = "k"\n', 6, "`kernl`", "did you mean `kernel`?"),
    "unknown key of the table": ("[tool.kernel-rewrite]\nnumeric = 1\n", 2, "`numeric`", "did you mean `numerics`?"),
    "key of the second entry": (
        f'{HEAD}epilogues = "relu"\n{HEAD.replace("b.py", "c.py")}epilogues = "relu"\nkernel = 3\n',
        9,
        "`kernel` must be a text",
        "",
    ),
    "no source": ('[[tool.kernel-rewrite.fusion]]\noutput = "b.py"\nepilogues = "relu"\n', 1, "no `source`", ""),
    "no op": (HEAD, 1, "no `epilogues`, no `prologues` and no `drop`", ""),
    "number for a text": (HEAD.replace('"b.py"', "3") + 'epilogues = "relu"\n', 3, "`output` must be a text", ""),
    "epilogues of numbers": (HEAD + "epilogues = [1]\n", 4, "must be a table of texts", ""),
    "assume as a table": (HEAD + 'epilogues = "relu"\nassume = { a = "b" }\n', 5, "must be a list of texts", ""),
    "unknown numerics": (HEAD + 'epilogues = "relu"\nnumerics = "wild"\n', 5, '"eager" or "fused"', ""),
    "partial as a text": (HEAD + 'epilogues = "relu"\npartial = "true"\n', 5, "must be true or false", ""),
    "calls as a text": (HEAD + 'epilogues = "relu"\ncalls = "f()"\n', 5, "`calls` must be a list", ""),
    "not TOML": (HEAD + "epilogues = \n", 4, "not valid TOML", ""),
    "a table for the list": ('[tool.kernel-rewrite.fusion]\nsource = "a.py"\n', 1, "must be a list of tables", ""),
    "one output twice": (f'{HEAD}epilogues = "relu"\n' * 2, 7, "two fusions write b.py", ""),
    "its own source": (HEAD.replace("b.py", "./a.py") + 'epilogues = "relu"\n', 3, "its own source", ""),
    "inline": (
        '[tool.kernel-rewrite]\nfusion = [\n  { source = "a.py", output = "b.py", epilogue = "relu" },\n]\n',
        3,
        "unknown key `epilogue`",
        "did you mean `epilogues`?",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_said_with_its_line(name: str, folder: Path) -> None:
    text, line, words, help_text = WRONG[name]
    with pytest.raises(FusionRefused) as refused:
        entries(folder, text)
    (diagnostic,) = refused.value.diagnostics
    assert diagnostic.code == "KR603" and words in diagnostic.message and help_text in diagnostic.help
    assert diagnostic.labels[0].span.line == line
    for command in ("check", "fuse"):
        result = run(command)
        assert result.exit_code == 2 and f"pyproject.toml:{line}:" in result.stderr


def test_the_nearest_file_with_entries_counts(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = repository / "demo" / "fused"
    (repository / "demo" / "pyproject.toml").write_text("[project]\nname = 'without'\n")
    monkeypatch.chdir(inner)
    found = find_configuration()
    assert found == "../../pyproject.toml"
    assert read_configuration(found).entries[0].output == "double_relu.py"


def test_without_any(folder: Path) -> None:
    for command in ("check", "fuse"):
        result = run(command)
        assert result.exit_code == 2 and "kernel-rewrite init" in result.stderr
    assert run("check", "--config", "absent.toml").exit_code == 2


# ----------------------------------------------------------------------------------------------------------------- init


def test_init_adds_an_entry_that_fuse_can_build(repository: Path) -> None:
    before = (repository / "pyproject.toml").read_text()
    done = run("init", "demo/double.py", "--epilogue", "out_ptr=gelu(approximate='tanh')", "-o", "demo/fused/new.py")
    assert done.exit_code == 0, done.output
    after = (repository / "pyproject.toml").read_text()
    assert after.startswith(before + "\n[[tool.kernel-rewrite.fusion]]\n")
    entry = read_configuration("pyproject.toml").entries[-1]
    assert entry == Entry("demo/double.py", "demo/fused/new.py", (("--epilogue", "out_ptr=gelu(approximate='tanh')"),))
    assert run("fuse").exit_code == 0 and (repository / "demo/fused/new.py").exists()


def test_init_lists_the_operands_of_an_epilogue(repository: Path) -> None:
    given = ["--epilogue", "out_ptr=gelu(x + residual)", "--operand", "residual=tile"]
    assert run("init", "demo/double.py", *given, "-o", "demo/fused/with_residual.py").exit_code == 0
    assert run("fuse").exit_code == 0 and "residual_ptr" in (repository / "demo/fused/with_residual.py").read_text()
    assert run("check").exit_code == 0
    (repository / "pyproject.toml").write_text(
        (repository / "pyproject.toml").read_text().replace('residual = "tile"', 'residual = "tile:fp16"')
    )
    assert run("check").exit_code == 1


def test_a_part_of_an_epilogue(repository: Path) -> None:
    asked = ["--epilogue", "out_ptr=softmax(relu(x), dim=-1)"]
    assert "--partial" in run("init", "demo/double.py", *asked).output
    assert run("init", "demo/double.py", *asked, "--partial").exit_code == 0
    assert "\npartial = true\n" in (repository / "pyproject.toml").read_text()
    entry = read_configuration("pyproject.toml").entries[-1]
    assert entry.output == "demo/double_relu_softmax.py" and entry.arguments["partial"] is True
    assert run("fuse").exit_code == 0 and run("check").exit_code == 0
    fused, source = repository / entry.output, repository / entry.source
    assert " --partial\n" in fused.read_text()
    source.write_text(source.read_text().replace("    return out\n", "    return out, x\n"))
    assert run("check", entry.output).exit_code == 1
    assert run("check", entry.output, "--fix").exit_code == 0
    assert "return torch.softmax(out, dim=-1), x  # kernel-rewrite: not fused" in fused.read_text()
    (repository / "pyproject.toml").write_text((repository / "pyproject.toml").read_text().replace("= true", "= false"))
    assert "KR118" in run("check", entry.output).output


def test_init_lists_what_is_fixed_and_dropped(repository: Path) -> None:
    (repository / "demo" / "pair.py").write_text(PAIR)
    assert run("init", "demo/pair.py", "--drop", "b_ptr", "--dtype", "a_ptr=fp16").exit_code == 0
    asked = ["--epilogue", "a_ptr=silu(b_ptr) * x", "--drop", "b_ptr", "--dtype", "a_ptr=fp16", "--dtype", "b_ptr=fp16"]
    assert run("init", "demo/pair.py", *asked).exit_code == 0
    without, product = read_configuration("pyproject.toml").entries[-2:]
    assert without.given == (("--drop", "b_ptr"), ("--dtype", "a_ptr=fp16"))
    assert ("--drop", "b_ptr") in product.given and not any(option == "--operand" for option, _ in product.given)
    assert without.output == "demo/pair_without_b.py"
    assert run("fuse").exit_code == 0 and run("check", "--full").exit_code == 0
    assert "b_ptr" not in (repository / without.output).read_text().partition("# end of header")[2]


PAIR = """\
import torch
import triton
import triton.language as tl


@triton.jit
def pair_kernel(x_ptr, a_ptr, b_ptr, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + i, mask=i < n)
    tl.store(b_ptr + i, x * 2, mask=i < n)
    tl.store(a_ptr + i, x, mask=i < n)


def pair(x):
    a, b = torch.empty_like(x), torch.empty_like(x)
    pair_kernel[(triton.cdiv(x.numel(), 256),)](x, a, b, x.numel(), BLOCK=256)
    return a
"""


def test_init_names_a_function_from_the_configuration(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (repository / "demo" / "ops.py").write_text("def epilogue(x, s: Scalar):\n    return x * s\n")
    monkeypatch.chdir(repository / "demo")
    result = run("init", "double.py", "--epilogue", "out_ptr=ops.py:epilogue", "--config", "../pyproject.toml")
    assert result.exit_code == 0, result.output
    entry = read_configuration("../pyproject.toml").entries[-1]
    assert (entry.output, dict(entry.given)["--epilogue"]) == ("double_s.py", "out_ptr=ops.py:epilogue")
    assert "demo/ops.py:epilogue" in (repository / "pyproject.toml").read_text()


def test_init_takes_the_name_of_a_triton_function(repository: Path) -> None:
    assert run("init", "demo/double.py", "--epilogue", "out_ptr=double_kernel(x)").exit_code == 0
    assert read_configuration("pyproject.toml").entries[-1].output == "demo/double_double_kernel.py"
    assert "KR107" in run("init", "demo/double.py", "--epilogue", "out_ptr=doubled(x)").output


def test_init_makes_the_file(folder: Path) -> None:
    (folder / "a.py").write_text("")
    for text in ("relu", 'clamp(0, "6\\\\")', "out[0]=silu"):
        (folder / "pyproject.toml").unlink(missing_ok=True)
        result = run("init", "a.py", "--epilogue", text, "-o", "b.py")
        if result.exit_code == 0:
            assert read_configuration("pyproject.toml").entries[0].arguments["epilogues"] == (text,)
        else:
            assert not (folder / "pyproject.toml").exists()


def test_init_leaves_a_wrong_file_as_it_is(folder: Path) -> None:
    (folder / "a.py").write_text("")
    for text, code in (("x = [\n", 2), (HEAD + 'epilogues = "relu"\n', 2)):
        (folder / "pyproject.toml").write_text(text)
        assert run("init", "a.py", "--epilogue", "relu", "-o", "b.py").exit_code == code
        assert (folder / "pyproject.toml").read_text() == text
    assert run("init", "absent.py", "--epilogue", "relu").exit_code == 1
