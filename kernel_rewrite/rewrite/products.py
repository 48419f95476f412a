"""Where a product and a sum may meet, which the compiler would contract into one rounding: at a stored value, for an
epilogue, and at a loaded one, for a prologue."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from kernel_rewrite.analysis import Analysis, View
from kernel_rewrite.model import MemoryEffect
from kernel_rewrite.ttir.lanes import loads_at
from kernel_rewrite.ttir.parse import Function, Operation, Value, element_type
from kernel_rewrite.ttir.validate import STORED_OPERAND

_CARRYING = frozenset(
    {
        *("arith.truncf", "arith.extf", "tt.fp_to_fp", "arith.bitcast", "arith.select"),
        *("tt.splat", "tt.broadcast", "tt.expand_dims", "tt.reshape", "tt.trans", "tt.join", "tt.cat"),
    }
)
"""Operations through which the compiler may still see a product. Casts are among them: it narrows what it can."""

_SETTLED = frozenset(
    {
        *("tt.load", "tt.descriptor_load", "tt.dot", "tt.dot_scaled", "tt.reduce", "tt.scan", "scf.for", "scf.while"),
        *("arith.addf", "arith.subf", "arith.divf", "arith.constant", "arith.maximumf", "arith.minimumf", "math.fma"),
        *("arith.maxnumf", "arith.minnumf", "tt.precise_divf", "tt.precise_sqrt", "arith.sitofp", "arith.uitofp"),
        *("math.exp", "math.exp2", "math.log", "math.log2", "math.sqrt", "math.rsqrt", "math.sin", "math.cos"),
        *("math.erf", "math.absf", "math.floor", "math.ceil", "tt.clampf", "tt.extern_elementwise"),
    }
)
"""Operations whose result is no product of floats."""

_LOADS = frozenset({"tt.load", "tt.descriptor_load"})


def may_store_product(analysis: Analysis, output: str, behind_prologues: bool = False) -> bool:
    """Whether some store to `output` may store a product of floats, as far as TTIR shows. With prologues what is loaded may
    be one."""
    key = f"product {behind_prologues}", output
    if key not in analysis.memory:
        settled = _SETTLED - _LOADS if behind_prologues else _SETTLED
        analysis.memory[key] = any(_stores_product(view, output, settled) for view in analysis.views)
    return bool(analysis.memory[key])


def _stores_product(view: View, output: str, settled: frozenset[str]) -> bool:
    places = {
        (access.operation, access.location)
        for access in view.accesses
        if access.effect is MemoryEffect.WRITE and access.roots == {output}
    }
    for function in view.module.functions:
        makers = {result: op for op in _operations(function) for result in op.results}
        for operation in _operations(function):
            if (operation.name, operation.location) in places and operation.name in STORED_OPERAND:
                stored = operation.operands[STORED_OPERAND[operation.name]]
                if _may_be_product(stored, makers, settled, set()):
                    return True
    return False


def _operations(function: Function) -> Iterator[Operation]:
    for block in function.body.blocks:
        for operation in block.operations:
            yield from operation.walk()


def _may_be_product(value: Value, makers: Mapping[Value, Operation], settled: frozenset[str], seen: set[Value]) -> bool:
    if value in seen:
        return False
    seen.add(value)
    operation = makers.get(value)
    if operation is None:  # an argument: of a loop's region it comes from another block, of a helper from anywhere
        return True
    if operation.name in _CARRYING:
        return any(_may_be_product(operand, makers, settled, seen) for operand in operation.operands)
    if operation.name == "scf.if":
        return True
    return operation.name not in settled and not operation.name.startswith(("arith.cmp", "arith.trunci", "arith.ext"))


_NO_SUMS = frozenset(
    {
        *("tt.store", "tt.descriptor_store", "tt.atomic_rmw", "tt.dot", "tt.dot_scaled", "tt.print"),
        *("arith.mulf", "arith.divf", "arith.cmpf", "arith.fptosi", "arith.fptoui", "tt.precise_divf"),
        *("arith.maximumf", "arith.minimumf", "arith.maxnumf", "arith.minnumf", "tt.clampf", "tt.precise_sqrt"),
        *("math.exp", "math.exp2", "math.log", "math.log2", "math.sqrt", "math.rsqrt", "math.sin", "math.cos"),
        *("math.erf", "math.absf", "math.floor", "math.ceil"),
    }
)
"""Where a loaded value is no summand, as PTX shows. Everything else may add it to something: reductions and scans do, and
`libdevice.acosh` and `fdim` begin with a sum."""


def may_add_loaded(analysis: Analysis, input: str) -> bool:
    """Whether some value loaded from `input` may be a summand, as far as TTIR shows."""
    key = "summand", input
    if key not in analysis.memory:
        analysis.memory[key] = any(_adds_loaded(view, input) for view in analysis.views)
    return bool(analysis.memory[key])


def _adds_loaded(view: View, input: str) -> bool:
    places = {(access.operation, access.location) for access in view.accesses if access.roots == {input}}
    pending = [result for load in loads_at(view.module, places) for result in load.results]
    users: dict[Value, list[Operation]] = {}
    for function in view.module.functions:
        for operation in _operations(function):
            for operand in operation.operands:
                users.setdefault(operand, []).append(operation)
    seen: set[Value] = set()
    while pending:
        value = pending.pop()
        if value in seen or not _is_float(value):
            continue
        seen.add(value)
        for user in users.get(value, ()):
            if user.name in _CARRYING or user.name == "arith.negf":
                pending += user.results
            elif user.name not in _NO_SUMS:
                return True
    return False


def _is_float(value: Value) -> bool:
    return element_type(value.type) in ("f16", "bf16", "f32", "f64")
