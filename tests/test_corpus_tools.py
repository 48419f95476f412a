"""The corpus run's own logic, on a package of five lines: what it finds, keeps, resumes, survives and prints."""

from __future__ import annotations

import importlib.util
import json
import sys
import tarfile
import time
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent


def _benchmark(name: str) -> ModuleType:
    specification = importlib.util.spec_from_file_location(f"benchmark_{name}", ROOT / "benchmarks" / f"{name}.py")
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module
    specification.loader.exec_module(module)
    return module


corpus = _benchmark("corpus")
latency = _benchmark("latency")

KERNELS = '''
import triton
import triton.language as tl

@triton.jit
def helper(p, x):
    tl.store(p, x)

@triton.jit
def scale(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    """Doubles."""
    offs = tl.arange(0, BLOCK)
    tl.store(out_ptr + offs, tl.load(x_ptr + offs, mask=offs < n) * 2.0, mask=offs < n)

@triton.autotune(configs=[triton.Config({"BLOCK": 64})], key=["n"])
@triton.jit
def scale_tuned(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    offs = tl.arange(0, BLOCK)
    tl.store(out_ptr + offs, tl.load(x_ptr + offs, mask=offs < n) * 2.0, mask=offs < n)

@triton.jit
def in_place(x_ptr, n, BLOCK: tl.constexpr):
    offs = tl.arange(0, BLOCK)
    tl.store(x_ptr + offs, tl.load(x_ptr + offs, mask=offs < n) * 2.0, mask=offs < n)

@triton.jit
def returns(x_ptr):
    tl.store(x_ptr, 1.0)
    return 1.0
'''

ELSEWHERE = """
import triton
from .kernels import helper, returns

@triton.jit
def outer(p):
    helper(p, 1.0)

def launch(x):
    returns[(1,)](x)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    package = tmp_path / "src" / "fake"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "kernels.py").write_text(KERNELS)
    (package / "elsewhere.py").write_text(ELSEWHERE)
    (package / "python2.py").write_text("print 'jit'\n")
    return tmp_path / "src"


@pytest.fixture
def tasks(folder: Path) -> list[object]:
    found, failures = corpus.tasks_of(corpus.Package("fake", "1"), folder)
    assert not failures
    return found


def test_entry_kernels_are_those_launched_or_left_uncalled_in_the_whole_package(tasks: list) -> None:
    # helper is called from another file; returns has a value but is launched from there
    assert {task.kernel for task in tasks} == {"scale", "scale_tuned", "in_place", "outer", "returns"}


def test_packages_searched_at_once_come_in_their_order(folder: Path, tasks: list) -> None:
    packages = [corpus.Package("one", "1"), corpus.Package("two", "1")]
    found, failures = corpus.all_tasks(packages, [folder, folder], jobs=2)
    assert [(t.group, t.kernel) for t in found] == [(p.name, t.kernel) for p in packages for t in tasks]
    assert not failures


def test_equal_parameters_and_body_count_once_and_the_first_is_kept(tasks: list) -> None:
    assert [t.kernel for t in corpus.deduplicated(tasks) if "scale" in t.kernel] == ["scale"]


def test_rows_counted_apart_give_way_to_the_others(tasks: list) -> None:
    apart = next(p.apart_title for p in corpus.PACKAGES if p.apart_title)
    other = corpus.Task(apart, *[getattr(tasks[0], f) for f in ("folder", "file", "kernel", "line", "digest")])
    assert corpus.deduplicated([other, tasks[0]]) == [tasks[0]]


def test_vendor_backends_are_told_from_nvidia() -> None:
    pattern = next(p.apart for p in corpus.PACKAGES if p.name == "flag-gems")
    assert corpus.re.search(pattern, "flag_gems/runtime/backend/_ascend/ops/add.py")
    assert not corpus.re.search(pattern, "flag_gems/runtime/backend/_nvidia/ops/add.py")


def test_one_kernel_end_to_end(tasks: list) -> None:
    by_name = {task.kernel: corpus.examine(task) for task in tasks}
    fused = by_name["scale"]
    assert (fused["status"], fused["store_sites"], fused["store_sites_seen"]) == ("lowered", 1, 1)
    assert [(o["name"], o["status"]) for o in fused["outputs"]] == [("out_ptr", "fused")]
    refused = by_name["in_place"]
    assert [(o["name"], o["status"], o["codes"]) for o in refused["outputs"]] == [("x_ptr", "refused", ["KR201"])]
    assert json.loads(json.dumps(fused)) == fused


def test_operands_are_tried_one_kind_at_a_time(tasks: list) -> None:
    records = [corpus.examine(task, "operands") for task in tasks if task.kernel in ("scale", "in_place")]
    (output,) = next(r["outputs"] for r in records if r["kernel"] == "scale")
    assert output["operands"]["tile"] == {"status": "fused"}
    assert output["operands"]["row"]["codes"] == ["KR301"]  # a flat output has no columns
    (refused,) = next(r["outputs"] for r in records if r["kernel"] == "in_place")
    assert (refused["codes"], refused["operands"]) == (["KR201"], {})
    all_of_them = corpus.operand_table(records, ["fake"]).splitlines()[-1]
    assert all_of_them.startswith("| all | 2 | 1 | 1 (100 %) | none | 0 (0 %) | KR301 1 | 0 |")


def test_prologues_are_tried_on_every_input(tasks: list) -> None:
    records = [corpus.examine(task, "prologues") for task in tasks if task.kernel in ("scale", "in_place")]
    found = {r["kernel"]: [(i["name"], i["status"], i.get("codes")) for i in r["inputs"]] for r in records}
    assert found == {
        "scale": [("x_ptr", "fused", None)],
        "in_place": [("x_ptr", "refused", ["KR221"])],
    }
    all_of_them = corpus.prologue_table(records, ["fake"]).splitlines()[-1]
    assert all_of_them.startswith("| all | 2 | 2 (100 %) | 2 | 1 (50 %) | 1 (50 %) | KR221 1 | 0 (0 %) | 0 |")


def test_an_exception_of_the_tool_is_an_internal_error(tasks: list, monkeypatch: pytest.MonkeyPatch) -> None:
    task = next(t for t in tasks if t.kernel == "scale")

    def broken(analysis: object, requested: object) -> None:
        raise ValueError(f"no such thing in {task.folder}/fake/kernels.py")

    monkeypatch.setattr(corpus, "fuse_outputs", broken)
    record = corpus.examine(task)
    assert record["outputs"][0]["status"] == "internal"
    assert "no such thing in fake/kernels.py" in record["outputs"][0]["message"]  # not where it lies on this machine


def test_the_work_of_a_kernel_is_measured(tasks: list) -> None:
    record = corpus.examine(next(t for t in tasks if t.kernel == "scale"))
    assert 0 < record["cpu_seconds"] < 60
    assert 20 < record["peak_mib"] < corpus.MEMORY_LIMIT >> 20


def test_outputs_that_cannot_be_fused_together_are_fused_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = KERNELS.replace("def scale(x_ptr, out_ptr, n", "def scale(x_ptr, out_ptr, twin_ptr, n").replace(
        '"""Doubles."""', "tl.store(twin_ptr + tl.arange(0, BLOCK), 1.0)"
    )
    (folder / "fake" / "kernels.py").write_text(text)
    task = next(t for t in corpus.tasks_of(corpus.Package("fake", "1"), folder)[0] if t.kernel == "scale")
    together = corpus.examine(task)["outputs"]
    assert [(o["name"], o["status"], o["together"]) for o in together] == [
        ("out_ptr", "fused", 2),
        ("twin_ptr", "fused", 2),
    ]
    fuse, asked = corpus.fuse_outputs, []

    def only_one(analysis: object, requested: list) -> object:
        asked.append(len(requested))
        if len(requested) > 1:
            raise corpus.InternalError("KR902: not together")
        return fuse(analysis, requested)

    monkeypatch.setattr(corpus, "fuse_outputs", only_one)
    alone = corpus.examine(task)["outputs"]
    assert [(o["status"], o["together"]) for o in alone] == [("fused", 1), ("fused", 1)]
    assert asked == [2, 1, 1]


FAKE_WORKER = """
import json, os, sys, time
for line in sys.stdin:
    task = json.loads(line)
    with open(sys.argv[1], "a") as log:
        print(task["kernel"], file=log)
    if task["kernel"] == "crashes":
        os.abort()
    if task["kernel"] == "hangs":
        time.sleep(60)
    task.pop("folder")
    print(json.dumps({**task, "status": "lowered", "outputs": [], "seconds": 0.5}), flush=True)
"""


def _run(tmp_path: Path, names: list[str], time_limit: float = 30.0) -> list[dict]:
    command = [sys.executable, "-c", FAKE_WORKER, str(tmp_path / "log")]
    tasks = [corpus.Task("fake", "", "a.py", name, line, name) for line, name in enumerate(names)]
    return corpus.run(tasks, tmp_path / "results.jsonl", 2, worker=lambda: corpus.Worker(command, time_limit))


def test_a_crash_and_a_hang_cost_one_kernel_each(tmp_path: Path) -> None:
    started = time.monotonic()
    records = _run(tmp_path, ["first", "crashes", "second", "hangs", "third"], time_limit=2.0)
    assert time.monotonic() - started < 30  # the one that hangs is killed, not waited for
    assert [r["status"] for r in records] == ["lowered", "crash", "lowered", "timeout", "lowered"]


def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    _run(tmp_path, ["first", "second"])
    with (tmp_path / "results.jsonl").open("a") as stream:
        stream.write('{"group": "fake", "file": "a.py", "kern')  # cut short
    (tmp_path / "log").unlink()
    records = _run(tmp_path, ["first", "second", "third", "fourth"])
    assert [r["kernel"] for r in records] == ["first", "second", "third", "fourth"]
    assert sorted((tmp_path / "log").read_text().split()) == ["fourth", "third"]
    assert len(_run(tmp_path, ["first", "second", "third", "fourth"])) == 4
    assert sorted((tmp_path / "log").read_text().split()) == ["fourth", "third"]


RECORDS = [
    {"group": "a", "file": "f.py", "kernel": "k", "line": 1, "status": "lowered", "seconds": 1.5, "cpu_seconds": 1.0,
     "peak_mib": 120, "specializations": 2,
     "store_sites": 3, "store_sites_seen": 2, "outputs": [
         {"name": "x", "status": "fused"},
         {"name": "y", "status": "refused", "codes": ["KR201", "KR202"]},
         {"name": "z", "status": "internal", "message": "KR902: broken"}]},
    {"group": "a", "file": "f.py", "kernel": "l", "line": 9, "status": "refused", "codes": ["KR110"], "seconds": 0.5,
     "cpu_seconds": 0.25, "peak_mib": 90, "outputs": []},
    {"group": "b", "file": "g.py", "kernel": "m", "line": 1, "status": "timeout", "message": "late", "seconds": 2.0,
     "outputs": []},
]  # fmt: skip


def test_the_table_has_a_row_for_each_package_and_their_sum() -> None:
    result = corpus.rows(RECORDS, ["a", "b", "empty"])
    lines = corpus.table(result).splitlines()
    cells = {line.split(" | ")[0].removeprefix("| "): line.removesuffix(" |").split(" | ")[1:] for line in lines}
    assert cells["a"] == [
        "2", "1 (50 %)", "2 of 3", "3", "1 (33 %)", "1 (50 %)", "KR201 1, KR202 1", "KR110 1", "1", "0", "2", "1", "120"
    ]  # fmt: skip
    assert cells["b"] == ["1", "0 (0 %)", "0 of 0", "0", "0", "0 (0 %)", "none", "none", "0", "1", "2", "0", "0"]
    assert cells["all"][:4] == ["3", "1 (33 %)", "2 of 3", "3"]
    assert cells["all"][-5:] == ["1", "1", "4", "1", "120"]
    assert {len(line.split(" | ")) for line in lines if not line.startswith("|---")} == {14}


def test_the_report_lists_every_internal_error_and_explains_the_codes_in_use() -> None:
    facts = {"version": "1", "triton": "3", "python": "3", "cores": 2, "date": "d", "jobs": 2, "wall": 3, "usual": 2}
    text = corpus.report(RECORDS, ["a", "b"], facts)
    assert "- a `f.py` `k`: KR902: broken" in text and "- b `g.py` `m`: late" in text
    assert "- KR201: the output is read by the kernel" in text and "KR205" not in text


def test_the_outcomes_say_what_happened_without_the_words() -> None:
    record = {
        **RECORDS[1],
        "digest": "d",
        "reasons": ["long"],
        "outputs": [{"name": "y", "codes": [], "reasons": ["long"]}],
    }
    assert "long" not in json.dumps(corpus._outcome(record)) and corpus._outcome(record)["codes"] == ["KR110"]


def test_archives_are_unpacked_to_their_python_files(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "wheel_one-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("one/a.py", "x = 1")
        wheel.writestr("one/data.bin", "no")
    (tmp_path / "setup.py").write_text("y = 2")
    with tarfile.open(tmp_path / "sdist_two-1.tar.gz", "w:gz") as source:
        source.add(tmp_path / "setup.py", "sdist_two-1/two/b.py")
    for package in (corpus.Package("wheel-one", "1"), corpus.Package("sdist-two", "1")):
        target = corpus.unpack(package, corpus.download(package, tmp_path), tmp_path)
        assert [p.relative_to(target).as_posix() for p in sorted(target.rglob("*")) if p.is_file()] == [
            "one/a.py" if package.name == "wheel-one" else "two/b.py"
        ]


def test_an_archive_cannot_write_outside_its_folder(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "evil-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("../../outside.py", "x = 1")
    package = corpus.Package("evil", "1")
    with pytest.raises(SystemExit, match="outside its folder"):
        corpus.unpack(package, corpus.download(package, tmp_path), tmp_path)
    assert not list(tmp_path.parent.glob("outside.py"))


# ------------------------------------------------------------------------------------------------------------- latency


def test_latency_judges_the_ratio_of_medians() -> None:
    case = latency.Case("c", "f", (), (), 1.5)
    met = latency.Timing(case, (1.4, 1.5, 9.0), (1.0, 1.0, 1.0))
    missed = latency.Timing(case, (1.6, 1.6, 1.0), (1.0, 1.0, 1.0))
    assert (met.met, missed.met) == (True, False)
    assert "| 1500 (1400 to 9000) |" in latency.table([met]) and "| missed |" in latency.table([missed])


def test_latency_runs_both_in_turn_and_stops_when_one_fails() -> None:
    passing = (sys.executable, "-S", "-c", "pass")
    timing = latency.measure(latency.Case("c", "f", passing, passing, 9.0), 2)
    assert len(timing.command) == len(timing.floor) == 2 and all(t > 0 for t in timing.command + timing.floor)
    with pytest.raises(SystemExit, match="failed"):
        latency.measure(latency.Case("c", "f", (sys.executable, "-S", "-c", "raise ValueError"), passing, 9.0), 1)
