"""Lowers the kernels under `cases/` in this process: small, and independent of the compiler process of the package."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

CASES = Path(__file__).parent / "cases"


@functools.cache
def case_module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"ttir_case_{name}", CASES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def triton_version() -> tuple[int, int]:
    triton = pytest.importorskip("triton")
    major, minor = triton.__version__.split(".")[:2]
    return int(major), int(minor)


def lower(kernel: Any, signature: Mapping[str, Any], constexprs: Mapping[Any, Any] | None = None) -> str:
    """The raw TTIR of a jit function for sm_90, without overflow checks."""
    from triton._C.libtriton import ir
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, make_backend

    target = GPUTarget("cuda", 90, 32)
    backend = make_backend(target)
    context = ir.context()
    ir.load_dialects(context)
    backend.load_dialects(context)
    options = backend.parse_options({"sanitize_overflow": False})
    source = ASTSource(kernel, dict(signature), dict(constexprs or {}))
    generators = backend.get_codegen_implementation(options)
    return str(source.make_ir(target, options, generators, backend.get_module_map(), context))
