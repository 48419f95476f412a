"""Right fusions of public kernels: those with several stores, helpers, loops, branches, block pointers, descriptors."""

from __future__ import annotations

import ast
import contextlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from kernel_rewrite.diagnostics import FusionRefused
from kernel_rewrite.model import MemoryEffect
from tests.faults.cases import Case, Request, analysed, fused_case

OPS = ("relu", "gelu", "sigmoid", "clamp(-1, 1)")
MOST_SPECIALIZATIONS = 4
MOST_PER_FILE = 1
MOST_LINES = 70


def corpus_cases(folder: Path, count: int, skip: int = 0) -> Iterator[Case]:
    """`count` fusions of kernels under `folder`, the packages in turn, the richest kernels of each first."""
    found = 0
    for path, kernel in _in_turn(folder):
        case = _case(path, kernel, OPS[found % len(OPS)], str(path.relative_to(folder)))
        if case is not None:
            found += 1
            if found > skip:
                yield case
        if found >= count + skip:
            return


def _in_turn(folder: Path) -> Iterator[tuple[Path, str]]:
    queues = [_ranked(package) for package in sorted(folder.iterdir()) if package.is_dir()]
    while queues:
        for queue in list(queues):
            if queue:
                yield queue.pop(0)
            else:
                queues.remove(queue)


def _ranked(package: Path) -> list[tuple[Path, str]]:
    """The kernels of a package by how much there is in them."""
    scored: list[tuple[int, str, str]] = []
    for path in package.rglob("*.py"):
        text = path.read_text(encoding="utf-8", errors="replace")
        if "triton.jit" not in text or "store(" not in text:
            continue
        with contextlib.suppress(SyntaxError):
            scores = [(_score(node), node.name) for node in ast.walk(ast.parse(text)) if _is_kernel(node)]
            best = sorted(scores, reverse=True)[:MOST_PER_FILE]
            scored += [(score, str(path), name) for score, name in best]
    return [(Path(path), name) for _, path, name in sorted(scored, key=lambda s: (-s[0], s[1], s[2]))]


def _is_kernel(node: ast.AST) -> bool:
    if not isinstance(node, ast.FunctionDef) or not any("jit" in ast.unparse(d) for d in node.decorator_list):
        return False
    return (node.end_lineno or 0) - node.lineno <= MOST_LINES and "store(" in ast.unparse(node)


def _score(node: ast.AST) -> int:
    kinds: Counter[str] = Counter()
    for inner in ast.walk(node):
        kinds[type(inner).__name__] += 1
        if isinstance(inner, ast.Call):
            name = ast.unparse(inner.func)
            kinds["store"] += name.endswith("store")
            kinds["block"] += name.endswith(("make_block_ptr", "make_tensor_descriptor"))
            kinds["helper"] += isinstance(inner.func, ast.Name)
    capped = {name: min(kinds[name], 4) for name in ("store", "For", "While", "If", "block", "helper")}
    return 2 * sum(capped.values())


def _case(path: Path, kernel: str, op: str, name: str) -> Case | None:
    """The fusion of `op` into the first output that can take it."""
    request = Request((op,), kernel=kernel)
    try:
        analysis = analysed(path, kernel, request)
    except FusionRefused:
        return None
    if len(analysis.views) > MOST_SPECIALIZATIONS:
        return None
    for output in analysis.parameters_with(MemoryEffect.WRITE):
        with contextlib.suppress(FusionRefused):
            return fused_case(f"{name}::{kernel}/{output}={op}", analysis, [(output, op)], request)
    return None
