"""Is a fused kernel bit-identical to the unfused pair, and how fast is it? Every case of `cases.py`, on this machine's GPU.

    python benchmarks/gpu.py --out DIR [--only TEXT ...] [--budget SECONDS] [--without compile] [--bits]
    python benchmarks/gpu.py --smoke --out DIR       # tiny sizes in Triton's interpreter: is this script right?
    python benchmarks/gpu.py --render DIR            # no run: the table and the charts of DIR/gpu.json

Needs torch, triton and libcst. Each case is fused here, with the package of this checkout. The results stand in DIR/gpu.json
after every case, the fused files and those fused by hand in DIR/fused; what is in gpu.json already, of the same commit and
device, is not run again. What this package cannot fuse yet is listed with the reason. `--bits` compares and times nothing.

fused, by hand: the kernel with the op in it. kernel: the original kernel alone. pair: the original kernel and torch's eager
ops. compile: torch.compile of the pair. All in turns, in one process; see kernel_rewrite/bench/timing.py.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
sys.path[:0] = [str(FOLDER.parent), str(FOLDER)]

from cases import CASES, Case, Shape, Tensors  # noqa: E402

VARIANTS = ("fused", "by hand", "kernel", "pair", "compile", "compile, fusing")
MOST_CONFIGURATIONS = 8


# ------------------------------------------------------------------------------------------------- the files of a case


class Skipped(Exception):
    """Why a case cannot be run."""


def fused_text(case: Case) -> str:
    """The fused file. Raises Skipped with the reason when this package cannot write it."""
    from kernel_rewrite import FusionRefused, fuse

    source = FOLDER / "kernels" / f"{case.kernel}.py"
    options: dict[str, Any] = {"operands": dict(case.operands), "dtypes": case.dtypes}
    try:
        return fuse(source, dict(case.epilogues), prologues=dict(case.prologues), **options).source
    except FusionRefused as error:
        raise Skipped(f"refused: {str(error).splitlines()[0]}") from None


def load(path: Path, name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def written(folder: Path, case: Case, kind: str, text: str) -> Any:
    """The module of `text`, kept as a file in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = "".join(c if c.isalnum() else "_" for c in f"{case.name} {kind}")
    path = folder / f"{stem}.py"
    path.write_text(text, encoding="utf-8")
    return load(path, f"benchmarked_{stem}")


# ------------------------------------------------------------------------------------------------- the variants of a case


class Ways:
    """The ways to compute one case: functions of all its tensors."""

    def __init__(self, case: Case, folder: Path) -> None:
        text = (FOLDER / "kernels" / f"{case.kernel}.py").read_text(encoding="utf-8")
        self.case = case
        self.plain = load(FOLDER / "kernels" / f"{case.kernel}.py", f"benchmarked_{case.kernel}")
        self.hand = written(folder, case, "by hand", case.by_hand(text))
        self.rewritten: Any = None
        self.skipped = ""
        try:
            self.rewritten = written(folder, case, "fused", fused_text(case))
        except Skipped as reason:
            self.skipped = str(reason)

    def fused(self, tensors: Tensors) -> Any:
        return self._launch(self.rewritten, tensors, self._operands(tensors))

    def by_hand(self, tensors: Tensors) -> Any:
        return self._launch(self.hand, tensors, self._operands(tensors))

    def kernel(self, prepared: Tensors) -> Any:
        """The original kernel alone, on tensors to which the prologue was applied before."""
        return self._launch(self.plain, prepared, {})

    def pair(self, tensors: Tensors) -> Any:
        return self.case.after(self.kernel({**tensors, **self.case.before(tensors)}), tensors)

    def _operands(self, tensors: Tensors) -> Tensors:
        return {name: value for name, value in tensors.items() if name not in self.case.arguments}

    def _launch(self, module: Any, tensors: Tensors, operands: Tensors) -> Any:
        launcher = getattr(module, self.case.launcher)
        return launcher(*(tensors[name] for name in self.case.arguments), **operands)


def compiled(ways: Ways, *, fusing: bool) -> Callable[[Tensors], Any]:
    """torch.compile of the pair for static shapes; with `fusing`, with Inductor's own fusion into a user's kernel."""
    import torch
    import torch._inductor.config as config

    option = "epilogue_fusion_user_defined_triton_kernel"
    if fusing and not hasattr(config, option):
        raise Skipped(f"torch {torch.__version__} has no {option}")
    options = {option: True} if fusing else None
    return torch.compile(ways.pair, dynamic=False, fullgraph=True, options=options)


# ------------------------------------------------------------------------------------------------------------- the bits


def compare(left: Any, right: Any) -> dict[str, Any]:
    """How far `left` is from `right`, two tensors."""
    import torch

    from kernel_rewrite.verify.compare import bits, same_elements, ulps

    if left.dtype != right.dtype or left.shape != right.shape:
        return {"elements": right.numel(), "differing": right.numel(), "why": f"{left.dtype} for {right.dtype}"}
    left, right = left.contiguous().view(-1), right.contiguous().view(-1)
    different = (~same_elements(left, right)).nonzero().flatten()
    found = {"elements": left.numel(), "differing": int(different.numel()), "max_ulp": 0, "max_difference": 0.0}
    if different.numel():
        a, b = left[different], right[different]
        finite = torch.isfinite(a.float()) & torch.isfinite(b.float())
        found["not_finite"] = int((~finite).sum())
        if bool(finite.any()):
            found["max_ulp"] = int(ulps(a, b)[finite].max())
            found["max_difference"] = float((a.double() - b.double()).abs()[finite].max())
        at = int(different[0])
        found["first"] = [at, hex(int(bits(left)[at])), hex(int(bits(right)[at]))]
    return found


def compared(ways: Ways, shape: Shape, device: str) -> dict[str, Any]:
    """The fused file and the one fused by hand against the unfused pair, in every autotune configuration."""
    from kernel_rewrite.verify.host import Configurations, fixed_configuration

    found: dict[str, Any] = {}
    import torch

    choice = Configurations()
    torch.manual_seed(0)
    tensors = ways.case.inputs(shape, device)
    while choice.index < min(choice.most, MOST_CONFIGURATIONS):
        choice.taken.clear()
        with fixed_configuration(choice):
            expected = ways.pair(tensors)
            for name, way in (("fused", ways.fused), ("by hand", ways.by_hand)):
                if name == "fused" and ways.rewritten is None:
                    continue
                result = compare(way(tensors), expected)
                if not found.get(name) or result["differing"] > found[name]["differing"]:
                    found[name] = result | {"configuration": choice.taken[0] if choice.taken else ""}
        choice.index += 1
    found["configurations"] = choice.index
    return found


# ----------------------------------------------------------------------------------------------------------- the timing


def timed(ways: Ways, shape: Shape, device: str, without: list[str], seconds: float) -> dict[str, Any]:
    """The time of every variant, its best configuration, and what was left out and why."""
    from kernel_rewrite.bench.timing import Timing, input_sets, measure
    from kernel_rewrite.verify.host import Configurations, fixed_configuration

    case, notes = ways.case, {}
    sets = input_sets(case.bytes(shape))
    data = [case.inputs(shape, device) for _ in range(sets)]
    prepared = [{**tensors, **case.before(tensors)} for tensors in data]
    ways_to_time: dict[str, Callable[[int], Any]] = {}
    if ways.rewritten is not None:
        ways_to_time["fused"] = lambda number: ways.fused(data[number])
    ways_to_time["by hand"] = lambda number: ways.by_hand(data[number])
    ways_to_time["kernel"] = lambda number: ways.kernel(prepared[number])
    ways_to_time["pair"] = lambda number: ways.pair(data[number])
    for name, fusing in (("compile", False), ("compile, fusing", True)):
        if device == "cpu" or any(name.startswith(word) for word in without):
            continue
        try:
            function = compiled(ways, fusing=fusing)
        except Skipped as reason:
            notes[name] = str(reason)
            continue
        ways_to_time[name] = lambda number, function=function: function(data[number])
    # There is no device to tune on in the interpreter.
    with fixed_configuration(Configurations()) if device == "cpu" else contextlib.nullcontext():
        found = measure(ways_to_time, sets, seconds=seconds)
    tuners = {
        name: tuner
        for name, module in (("fused", ways.rewritten), ("by hand", ways.hand), ("kernel", ways.plain))
        if getattr(tuner := getattr(module, f"{case.kernel}_kernel", None), "best_config", None) is not None
    }
    chosen = {name: tuner.configs.index(tuner.best_config) for name, tuner in tuners.items()}
    if len(set(chosen.values())) > 1:
        notes["configurations"] = (
            "where the autotuner chose other ones for fused, by hand and kernel, all were timed in each"
        )
        for index in sorted(set(chosen.values())):
            for tuner in tuners.values():
                tuner.cache = dict.fromkeys(tuner.cache, tuner.configs[index])
            again = measure({name: ways_to_time[name] for name in tuners}, sets, seconds=seconds / 2)
            for name, time in again.items():
                if isinstance(time, Timing) and time.median < found[name].median:
                    found[name], chosen[name] = time, index
    notes |= {name: time for name, time in found.items() if isinstance(time, str)}
    return {
        "sets": sets,
        "times": {name: asdict(time) for name, time in found.items() if isinstance(time, Timing)},
        "configurations": {name: str(tuner.configs[chosen[name]]) for name, tuner in tuners.items()},
        "notes": notes,
    }


# -------------------------------------------------------------------------------------------------------------- the run


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=FOLDER / "results" / "gpu", help="the folder of the results")
    parser.add_argument("--only", nargs="*", default=[], help="cases whose name contains one of these")
    parser.add_argument("--shapes", type=int, default=0, help="only the first so many shapes of each case")
    parser.add_argument("--budget", type=float, default=420.0, help="start no case after so many seconds")
    parser.add_argument("--seconds", type=float, default=1.5, help="of measuring for each case and shape")
    parser.add_argument("--without", nargs="*", default=[], help="variants to leave out, e.g. compile")
    parser.add_argument("--bits", action="store_true", help="compare, and time nothing")
    parser.add_argument("--again", action="store_true", help="run what has a result already too")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes in Triton's interpreter")
    parser.add_argument("--commit", default="", help="the git commit that is measured, where git cannot say")
    parser.add_argument("--render", type=Path, metavar="DIR", help="run nothing; write DIR/gpu.md and the charts")
    options = parser.parse_args()
    if options.render:
        render(options.render)
        return 0
    started = time.monotonic()
    if options.smoke:
        os.environ["TRITON_INTERPRET"] = "1"
    options.out.mkdir(parents=True, exist_ok=True)
    with _device(options.smoke) as device:
        run = _earlier(options.out / "gpu.json", facts(options.commit, device))
        for case in CASES:
            if options.only and not any(word in case.name for word in options.only):
                continue
            _run_case(case, run, options, device, started)
    (options.out / "gpu.json").write_text(json.dumps(run, indent=1) + "\n", encoding="utf-8")
    render(options.out)
    print(table(run))
    wrong = [row for row in run["rows"] if row.get("error")]
    return 1 if wrong else 0


def _run_case(case: Case, run: dict[str, Any], options: argparse.Namespace, device: str, started: float) -> None:
    ways: Ways | None = None
    shapes = [case.tiny] if options.smoke else case.shapes[: options.shapes or None]
    for shape in shapes:
        row = next((r for r in run["rows"] if (r["case"], tuple(r["shape"])) == (case.name, shape)), None)
        done = row is not None and not row.get("error") and not row.get("skipped")
        if done and not options.again and (options.bits or "times" in row):
            continue
        if time.monotonic() - started > options.budget:
            print(f"{case.name} {shape}: not started, {options.budget:g} s are over", flush=True)
            return
        begun = time.monotonic()
        new: dict[str, Any] = {"case": case.name, "shape": list(shape)}
        try:
            ways = ways or Ways(case, options.out / "fused")
            new["skipped"] = ways.skipped
            new["bits"] = compared(ways, shape, device)
            if not options.bits:
                new |= timed(ways, shape, device, options.without, options.seconds)
            new |= {"bytes": case.bytes(shape), "flops": case.flops(shape), "adds_bytes": case.adds_bytes}
        except Exception as error:
            import traceback

            traceback.print_exc()
            new["error"] = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        new["seconds"] = round(time.monotonic() - begun, 1)
        run["rows"] = [r for r in run["rows"] if r is not row] + [new]
        (options.out / "gpu.json").write_text(json.dumps(run, indent=1) + "\n", encoding="utf-8")
        print(_progress(new), flush=True)
        _free()


def _progress(row: dict[str, Any]) -> str:
    times = ", ".join(f"{name} {time['median']:.1f}" for name, time in row.get("times", {}).items())
    differing = row.get("bits", {}).get("fused", {}).get("differing", "-")
    problem = row.get("error") or row.get("skipped", "")
    return f"{row['case']} {row['shape']}: {differing} differ; {times} us; {row['seconds']} s {problem}"


def _free() -> None:
    import torch

    torch._dynamo.reset()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@contextlib.contextmanager
def _device(smoke: bool) -> Iterator[str]:
    import torch

    if not smoke:
        assert torch.cuda.is_available(), "no CUDA device: try --smoke"
        yield "cuda"
        return
    from kernel_rewrite.pointwise.interpreter import stand_ins

    torch.set_num_threads(1)
    with stand_ins():
        yield "cpu"


def facts(commit: str, device: str) -> dict[str, Any]:
    import torch
    import triton

    from kernel_rewrite.bench.timing import copy_bandwidth

    return {
        "device": torch.cuda.get_device_name(0) if device == "cuda" else "Triton interpreter",
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "triton": triton.__version__,
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        "commit": commit or _commit(),
        "bandwidth": copy_bandwidth(),
    }


def _commit() -> str:
    describe = ["git", "describe", "--always", "--abbrev=10", "--exclude=*", "--dirty=-changed"]
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        return subprocess.run(describe, cwd=FOLDER, capture_output=True, text=True, check=True).stdout.strip()
    return ""


def _earlier(path: Path, now: dict[str, Any]) -> dict[str, Any]:
    """The run in `path` when it is of the same commit, device and versions, with the bandwidth of now; else an empty one."""
    same = ("device", "torch", "triton", "commit")
    if path.is_file():
        run: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if all(run["facts"][name] == now[name] for name in same):
            run["facts"]["bandwidth"] = now["bandwidth"]
            return run
    return {"facts": now, "rows": []}


# ------------------------------------------------------------------------------------------------ the table and the charts


def ratio(row: dict[str, Any], other: str) -> float | None:
    times = row.get("times", {})
    return times["fused"]["median"] / times[other]["median"] if {"fused", other} <= set(times) else None


def floor_share(row: dict[str, Any], bandwidth: float) -> float | None:
    """The time that the bytes alone take, as a share of the fused kernel's; None where arithmetic may be the limit."""
    if row.get("flops", 1) or "fused" not in row.get("times", {}):
        return None
    return float(row["bytes"] / bandwidth * 1e6 / row["times"]["fused"]["median"])


def misses(row: dict[str, Any], bandwidth: float) -> list[str]:
    """The targets that this row misses."""
    targets = [
        ("by hand", ratio(row, "by hand"), 1.02),
        ("kernel", None if row.get("adds_bytes", True) else ratio(row, "kernel"), 1.05),
        ("pair", ratio(row, "pair"), 1.0),
    ]
    found = [f"{value:.3f} x {name}" for name, value, most in targets if value is not None and value > most]
    share = floor_share(row, bandwidth)
    return found + ([f"{share:.0%} of the floor"] if share is not None and share < 0.95 else [])


def table(run: dict[str, Any]) -> str:
    """The run as Markdown."""
    at, bandwidth = run["facts"], run["facts"]["bandwidth"]
    commit = f" at {at['commit']}" if at["commit"] else ""
    head = [
        "case",
        "shape",
        "bits",
        *(v for v in VARIANTS),
        "/ by hand",
        "/ kernel",
        "/ pair",
        "of the floor",
        "misses",
    ]
    lines = [
        f"Measured {at['date']} on one {at['device']}{commit}: torch {at['torch']} (CUDA {at['cuda']}), "
        f"Triton {at['triton']}; a copy moves {bandwidth / 1e12:.2f} TB/s.",
        "Times in microseconds, medians. `bits`: elements of the fused result that differ from the unfused pair's.",
        "",
        "| " + " | ".join(head) + " |",
        "|---" * len(head) + "|",
    ]
    order = [case.name for case in CASES]
    rows = sorted(run["rows"], key=lambda row: order.index(row["case"]) if row["case"] in order else len(order))
    left_out = []
    for row in rows:
        if row.get("error") or row.get("skipped"):
            left_out.append(f"- {row['case']} {shape_words(row)}: {row.get('error') or row['skipped']}")
        if "bits" not in row:
            continue
        times = row.get("times", {})
        ratios = [ratio(row, other) for other in ("by hand", "kernel", "pair")]
        share = floor_share(row, bandwidth)
        cells = [
            row["case"], shape_words(row), bits_words(row["bits"].get("fused")),
            *(f"{times[v]['median']:.1f}" if v in times else "" for v in VARIANTS),
            *(f"{value:.3f}" if value is not None else "" for value in ratios),
            f"{share:.0%}" if share is not None else "",
            ", ".join(misses(row, bandwidth)) if times.get("fused", {}).get("method") in ("graph", "events") else "",
        ]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    notes = {f"- {name}: {why}" for row in rows for name, why in row.get("notes", {}).items()}
    return "\n".join([*lines, *(["", "Not run:", *left_out] if left_out else []), "", *sorted(notes)]).rstrip() + "\n"


def shape_words(row: dict[str, Any]) -> str:
    return "x".join(map(str, row["shape"]))


def bits_words(bits: dict[str, Any] | None) -> str:
    if bits is None:
        return ""
    if not bits["differing"]:
        return "identical"
    return f"{bits['differing']:,} of {bits['elements']:,}, {bits.get('max_ulp', '?')} ulp"


def render(folder: Path) -> None:
    """Write gpu.md, and the charts where matplotlib is installed, beside gpu.json."""
    run = json.loads((folder / "gpu.json").read_text(encoding="utf-8"))
    (folder / "gpu.md").write_text(table(run), encoding="utf-8")
    from kernel_rewrite.bench.plot import MissingPlotting, save_bars

    groups = {
        f"{row['case']}\n{shape_words(row)}": {v: row["times"][v]["median"] for v in VARIANTS if v in row["times"]}
        for row in run["rows"]
        if "times" in row
    }
    relative = {
        label: {name: value / times["pair"] for name, value in times.items()}
        for label, times in groups.items()
        if "pair" in times
    }
    if not relative:
        return
    with contextlib.suppress(MissingPlotting):
        save_bars(folder / "gpu.svg", relative, title=run["facts"]["device"], axis="time relative to the unfused pair")


if __name__ == "__main__":
    sys.exit(main())
