"""Configurations and heuristics, read from the decorators without running them."""

from __future__ import annotations

import ast
from pathlib import Path
from textwrap import dedent

import pytest

from kernel_rewrite.source.autotune import Heuristic, HeuristicKind, Tuning, tuning
from kernel_rewrite.source.files import Project
from kernel_rewrite.source.symbolic import ProjectNames

KERNEL = "@triton.jit\ndef kernel(x, B: tl.constexpr, S: tl.constexpr):\n    pass\n"


def read(decorators: str, before: str = "", after: str = "") -> Tuning:
    module = ast.parse(dedent(before) + "\n" + dedent(decorators) + "\n" + KERNEL + dedent(after))
    kernel = next(n for n in module.body if isinstance(n, ast.FunctionDef) and n.name == "kernel")
    return tuning(kernel, module, "f.py")


def values(found: Tuning) -> list[dict[str, object]]:
    return [dict(config.values) for config in found.configs]


TWO = [{"B": 32}, {"B": 64}]


@pytest.mark.parametrize(
    ("configs", "before"),
    [
        ("[triton.Config({'B': 32}), triton.Config({'B': 64}, num_warps=8)]", ""),
        ("[Config(dict(B=32)), Config(kwargs={'B': 64})]", ""),
        ("[triton.Config({'B': b}, num_warps=w) for b in [32, 64] for w in [4]]", ""),
        ("[triton.Config({'B': b}) for b in (16, 32, 64) if b > 16]", ""),
        ("[triton.Config({'B': b}) for b, w in itertools.product([32, 64], [4])]", ""),
        ("[triton.Config({'B': 2 ** i}) for i in range(5, 7)]", ""),
        ("CONFIGS", "CONFIGS = [triton.Config({'B': 32}), triton.Config({'B': 64})]"),
        ("FIRST + [triton.Config({'B': 64})]", "FIRST = [triton.Config({'B': 32})]"),
        ("[*FIRST, triton.Config({'B': 64})]", "FIRST = [triton.Config({'B': 32})]"),
        ("list(map(lambda b: triton.Config({'B': b}), [32, 64]))", ""),
        (
            "get_configs()",
            """
            def get_configs():
                return [triton.Config({"B": b}) for b in (32, 64)]
            """,
        ),
        (
            "get_configs(64)",
            """
            def get_configs(largest, smallest=32):
                configs = []
                for b in (smallest, largest):
                    if b > 1024:
                        continue
                    configs.append(triton.Config({"B": b}))
                return configs
            """,
        ),
        ("MADE", "SIZES = [32]\nSIZES += [64]\nMADE = [triton.Config({'B': b}) for b in SIZES]"),
    ],
)
def test_every_form_of_config_list(configs: str, before: str) -> None:
    found = read(f"@triton.autotune(configs={configs}, key=['n'])", before)
    assert values(found) == TWO
    assert found.complete and found.autotuned


def test_launch_options_are_kept_apart() -> None:
    (config,) = read("@triton.autotune([triton.Config({'B': 32}, num_warps=8, num_stages=STAGES)], key=[])").configs
    assert dict(config.values) == {"B": 32}
    assert dict(config.options) == {"num_warps": 8}


def test_a_condition_on_the_machine_goes_both_ways() -> None:
    found = read(
        "@triton.autotune(configs=[triton.Config({'B': b}) for b in SIZES], key=[])",
        "SIZES = [64] if is_hip() else [32]",
    )
    assert values(found) == TWO
    assert found.complete
    several = read(
        "@triton.autotune(configs=[triton.Config({'B': b, 'S': s}) for b in BS for s in SS], key=[])",
        "BS = [64] if is_hip() else [32]\nSS = [1] if is_new() else [2]",
    )
    assert not several.complete


@pytest.mark.parametrize(
    "configs",
    [
        "runtime.get_tuned_config('mm')",
        "imported_configs",
        "imported()",
        "load_json(open('f'))",
        "[triton.Config({'B': size()})]",
    ],
)
def test_what_cannot_be_read_is_not_complete(configs: str) -> None:
    found = read(f"@triton.autotune(configs={configs}, key=[])")
    assert found.autotuned and not found.complete


def test_readable_configs_of_an_unreadable_list_are_kept() -> None:
    found = read("@triton.autotune(configs=[triton.Config({'B': 32})] + more(), key=[])")
    assert values(found) == [{"B": 32}]
    assert not found.complete


def test_configs_are_read_from_other_files_of_the_project(tmp_path: Path) -> None:
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg/__init__.py").write_text("")
    (tmp_path / "pkg/sizes.py").write_text("SIZES = [32, 64]\n")
    (tmp_path / "pkg/tune.py").write_text(
        "import triton\nfrom .sizes import SIZES\ndef configs():\n    return [triton.Config({'B': b}) for b in SIZES]\n"
    )
    path = tmp_path / "pkg/kernels.py"
    path.write_text("from pkg.tune import configs as made\n@triton.autotune(configs=made(), key=[])\n" + KERNEL)
    project = Project()
    file = project.read(path)
    kernel = next(n for n in file.tree.body if isinstance(n, ast.FunctionDef))
    found = tuning(kernel, file.tree, file.path, ProjectNames(file, project))
    assert values(found) == TWO
    assert found.complete


def test_files_that_import_from_each_other_end(tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text("from two import CONFIGS\n@triton.autotune(configs=CONFIGS, key=[])\n" + KERNEL)
    (tmp_path / "two.py").write_text("from one import CONFIGS\n")
    project = Project()
    file = project.read(tmp_path / "one.py")
    names = ProjectNames(file, project)
    assert names.get("CONFIGS") is None and "CONFIGS" not in names
    kernel = next(n for n in file.tree.body if isinstance(n, ast.FunctionDef))
    assert not tuning(kernel, file.tree, file.path, names).complete


def test_autotune_applied_by_a_call() -> None:
    found = read("", after="tuned = triton.autotune(configs=[triton.Config({'B': 32})], key=[])(kernel)")
    assert values(found) == [{"B": 32}]
    assert not read("", after="tuned = triton.autotune(configs=[triton.Config({'B': 32})], key=[])(other)").autotuned


def test_names_that_the_tuner_resets() -> None:
    configs = "configs=[triton.Config({'B': 32})], key=[]"
    found = read(f"@triton.autotune({configs}, reset_to_zero=['out'], restore_value=RESTORED)", "RESTORED = ['x', 'y']")
    assert (found.reset_to_zero, found.restore_value) == (("out",), ("x", "y"))
    assert not found.unreadable_resets
    assert read(f"@triton.autotune({configs}, reset_to_zero=names())").unreadable_resets
    assert read(f"@triton.autotune({configs}, **options)").unreadable_resets
    assert not read(f"@triton.autotune({configs})").reset_to_zero


def test_hooks_are_noted() -> None:
    assert read("@triton.autotune(configs=[triton.Config({'B': 32}, pre_hook=clear)], key=[])").hooked
    assert read("@triton.autotune(configs=[triton.Config({'B': 32})], key=[], pre_hook=clear)").hooked
    assert not read("@triton.autotune(configs=[triton.Config({'B': 32}, pre_hook=None)], key=[])").hooked


def test_a_project_tuner_counts_by_its_configs() -> None:
    assert values(read("@libtuner(configs=[triton.Config({'B': 32})], key=[])")) == [{"B": 32}]
    assert values(read("@my_tuner(configs=[triton.Config({'B': 32})], key=[])")) == [{"B": 32}]
    assert not read("@libentry()").autotuned


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("lambda args: args['K'] % args['B'] == 0", Heuristic("E", HeuristicKind.BOOLEAN, (True, False))),
        ("lambda args: not args['flag']", Heuristic("E", HeuristicKind.BOOLEAN, (True, False))),
        ("lambda args: args['bias'] is not None", Heuristic("E", HeuristicKind.PRESENCE, (True, False), "bias", True)),
        ("lambda args: args.get('bias') is None", Heuristic("E", HeuristicKind.PRESENCE, (True, False), "bias", False)),
        ("lambda args: triton.next_power_of_2(args['N'])", Heuristic("E", HeuristicKind.BLOCK)),
        ("lambda args: 64 if args['N'] > 3 else 128", Heuristic("E", HeuristicKind.VALUES, (64, 128))),
        ("lambda args: compute(args)", Heuristic("E", HeuristicKind.UNKNOWN)),
        ("heuristic", Heuristic("E", HeuristicKind.VALUES, (1, 2))),
    ],
)
def test_heuristics(body: str, expected: Heuristic) -> None:
    before = "def heuristic(args):\n    if args['N'] > 3:\n        return 1\n    return 2"
    assert read(f"@triton.heuristics({{'E': {body}}})", before).heuristics == (expected,)
    assert read("@triton.heuristics(TABLE)", f"{before}\nTABLE = {{'E': {body}}}").heuristics == (expected,)
    assert read(f"@triton.heuristics(values=dict(E={body}))", before).heuristics == (expected,)


def test_user_code_is_never_run(tmp_path: Path) -> None:
    target = tmp_path / "touched"
    configs = f"[triton.Config({{'B': open({str(target)!r}, 'w').write('x')}})]"
    assert not read(f"@triton.autotune(configs={configs}, key=[])").complete
    assert not target.exists()


def test_endless_code_ends() -> None:
    before = """
    def forever():
        configs = []
        for a in range(100000):
            for b in range(100000):
                configs.append(triton.Config({"B": a}))
        return configs
    def recursive():
        return recursive()
    """
    assert not read("@triton.autotune(configs=forever(), key=[])", before).complete
    assert not read("@triton.autotune(configs=recursive(), key=[])", before).complete
