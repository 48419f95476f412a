"""What each TTIR operation does to memory and to pointers: tables, and the few rules that tables cannot hold.

The world is closed: an operation in none of the tables has an unknown effect. The tables cover what Triton 3.5 to 3.9
emits for kernels written in `triton.language`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from kernel_rewrite.model import MemoryEffect
from kernel_rewrite.ttir.parse import Operation, element_type, is_pointer, pointee_type, unescaped


@dataclass(frozen=True, slots=True)
class Touch:
    """An operation touches memory at its operand `address`; a store's stored operand is `value` (-1: the last)."""

    effect: MemoryEffect
    address: int = 0
    value: int | None = None


_READ, _WRITE, _ACCUMULATE = MemoryEffect.READ, MemoryEffect.WRITE, MemoryEffect.ACCUMULATE

EFFECTS: Mapping[str, Touch] = {
    "tt.load": Touch(_READ),
    "tt.store": Touch(_WRITE, value=1),
    "tt.atomic_rmw": Touch(_ACCUMULATE),
    "tt.atomic_cas": Touch(_ACCUMULATE),
    "tt.atomic_load": Touch(_READ),
    "tt.atomic_store": Touch(_WRITE, value=1),
    "tt.atomic_poll": Touch(_READ),
    "tt.descriptor_load": Touch(_READ),
    "tt.descriptor_gather": Touch(_READ),
    "tt.descriptor_store": Touch(_WRITE, value=-1),
    "tt.descriptor_scatter": Touch(_WRITE, value=-1),
    "tt.descriptor_reduce": Touch(_ACCUMULATE),
}
"""Operation -> how it touches memory, and through which operand."""

POINTER_FLOW: Mapping[str, tuple[int, ...]] = {
    # the offset of an address does not change whose buffer it points into
    "tt.addptr": (0,),
    "tt.advance": (0,),
    "tt.make_tensor_ptr": (0,),
    "tt.make_tensor_descriptor": (0,),
    "tt.bitcast": (0,),
    "tt.splat": (0,),
    "tt.unsplat": (0,),
    "tt.broadcast": (0,),
    "tt.expand_dims": (0,),
    "tt.reshape": (0,),
    "tt.trans": (0,),
    "tt.gather": (0,),
    "tt.split": (0,),
    "tt.join": (0, 1),
    "tt.cat": (0, 1),
    "arith.select": (1, 2),
}
"""Operation -> the operands whose pointers its results may be."""

CONTROL = frozenset(
    {
        "scf.for", "scf.while", "scf.if", "scf.yield", "scf.condition", "cf.br", "cf.cond_br", "tt.call", "tt.return",
    }
)  # fmt: skip
"""Operations whose values travel along control flow; `accesses` follows each of them by its own rule."""

NO_MEMORY_DIALECTS = ("arith.", "math.", "ub.")

NO_MEMORY = frozenset(
    {
        "tt.get_program_id", "tt.get_num_programs", "tt.make_range", "tt.dot", "tt.dot_scaled", "tt.fp_to_fp",
        "tt.clampf", "tt.mulhiui", "tt.precise_sqrt", "tt.precise_divf", "tt.approx_divf", "tt.histogram", "tt.reduce",
        "tt.reduce.return", "tt.scan", "tt.scan.return", "tt.map_elementwise", "tt.map_elementwise.return",
        # checks and barriers order or stop the program, and touch no buffer
        "tt.assert", "tt.print", "cf.assert", "gpu.barrier", "ttg.barrier", "gpu.thread_id",
        "llvm.intr.assume",
        "tt.grid_dependency_wait", "tt.grid_dependency_launch_dependents",
    }
)  # fmt: skip
"""Operations that touch no memory as long as no operand is an address."""

SHOWS_POINTERS = frozenset({"tt.print"})
"""Operations that may be given an address and only show it."""

CODE = frozenset({"tt.elementwise_inline_asm", "tt.extern_elementwise"})
"""Operations that run code this tool does not read in full."""

CASTS = frozenset(
    {
        "arith.truncf", "arith.extf", "arith.trunci", "arith.extsi", "arith.extui", "arith.sitofp", "arith.uitofp",
        "arith.fptosi", "arith.fptoui", "tt.fp_to_fp",
    }
)  # fmt: skip
"""Operations a store may put before itself to bring its value to the buffer's element type."""

ESCAPES: Mapping[str, str] = {
    "tt.ptr_to_int": "its address is turned into an integer",
    "tt.elementwise_inline_asm": "its address is handed to inline assembly",
    "tt.extern_elementwise": "its address is handed to an external function",
    "tt.store": "its address is itself stored to memory",
    "tt.atomic_store": "its address is itself stored to memory",
    "arith.cmpi": "its address is compared",
}
"""Why an address that reaches this operation is lost; other operations are named as they are."""


def is_known(name: str) -> bool:
    """Whether some table says what this operation does."""
    return (
        name in EFFECTS
        or name in POINTER_FLOW
        or name in CONTROL
        or name in NO_MEMORY
        or name in CODE
        or name in ("tt.ptr_to_int", "tt.int_to_ptr")
        or name.startswith(NO_MEMORY_DIALECTS)
    )


def escape_reason(operation: Operation) -> str:
    """In words, what happens to an address at an operation that the tables do not follow it through."""
    return ESCAPES.get(operation.name, f"its address reaches `{operation.name}`, whose effect is not known")


def is_pointer_bitcast(operation: Operation) -> bool:
    """Whether this operation makes a pointer to one type a pointer to another."""
    if operation.name != "tt.bitcast" or not is_pointer(operation.result_types[0]):
        return False
    return pointee_type(operation.operand_types[0]) != pointee_type(operation.result_types[0])


def is_bool_representation(operation: Operation) -> bool:
    """Whether this is the cast from `*i1` to `*i8` that Triton puts before each access to a buffer of bools."""
    return (
        operation.name == "tt.bitcast"
        and element_type(pointee_type(operation.operand_types[0])) == "i1"
        and element_type(pointee_type(operation.result_types[0])) == "i8"
    )


# ---------------------------------------------------------------------------------------- code that is not read in full

_REGISTER_INSTRUCTIONS = frozenset(
    {
        # PTX that computes on registers: integer, floating point, logic, conversion, selection, lanes
        "add", "addc", "sub", "subc", "mul", "mad", "madc", "mul24", "mad24", "fma", "div", "rem", "abs", "neg", "min",
        "max", "rcp", "sqrt", "rsqrt", "sin", "cos", "tanh", "ex2", "lg2", "copysign", "testp", "sad", "popc", "clz",
        "bfind", "bfe", "bfi", "bmsk", "szext", "brev", "fns", "dp4a", "dp2a", "and", "or", "xor", "not", "cnot",
        "lop3", "shl", "shr", "shf", "mov", "cvt", "prmt", "selp", "slct", "set", "setp", "shfl", "activemask", "vote",
        "nop", "vadd", "vsub", "vabsdiff", "vmin", "vmax", "vshl", "vshr", "vadd4", "vsub4", "vabsdiff4", "vmin4",
        "vmax4",
    }
)  # fmt: skip
_ORDERING_INSTRUCTIONS = frozenset({"griddepcontrol", "bar", "barrier", "fence", "membar", "nanosleep"})
"""PTX that waits, or orders the accesses of others, and has none of its own."""

_REGISTER_PREFIXES = ("v_",)  # AMD vector ALU instructions
_DIRECTIVES = frozenset({".reg"})
_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
_PREDICATE = re.compile(r"^@!?[\w$%]+\s+")
_ASM_STRING = re.compile(r'"((?:[^"\\]|\\.)*)"')


def opaque_code(operation: Operation) -> str | None:
    """Why inline assembly or an external function may touch any memory; None when it cannot.

    Pure code that is handed no address can still hold one it got as a number from memory, so assembly must also consist
    of instructions that only compute on registers.
    """
    pure = operation.attribute("pure") == "true"
    if operation.name == "tt.extern_elementwise":
        return None if pure else "an external function that is not declared pure may touch any memory"
    # tl.extra.cuda.gdc_wait() is assembly that only waits, and is declared impure so that it is not deleted
    unknown = _unknown_instruction(operation, _REGISTER_INSTRUCTIONS if pure else _ORDERING_INSTRUCTIONS)
    if unknown is None:
        return None
    if pure:
        return f"the inline assembly instruction `{unknown}` may touch memory"
    return "inline assembly that is not declared pure may touch any memory"


def _unknown_instruction(operation: Operation, known: frozenset[str]) -> str | None:
    """The first instruction of the assembly that is not one of `known`."""
    match = _ASM_STRING.match(operation.attributes)
    if match is None:
        return "?"
    for statement in _COMMENT.sub(" ", unescaped(match[1])).split(";"):
        # { .reg .b32 t; @p add.f32 t, $1, $2; }
        text = _PREDICATE.sub("", statement.strip().lstrip("{} \t\r\n"))
        if not text:
            continue
        first = text.split()[0].rstrip("{}")
        if first.startswith(_REGISTER_PREFIXES):
            # AMD assembly ends an instruction with its line
            others = [line.split()[0] for line in text.splitlines() if line.strip()]
            unknown = next((word for word in others if not word.startswith(_REGISTER_PREFIXES)), None)
            if unknown is not None:
                return unknown
        elif first not in _DIRECTIVES and first.split(".")[0] not in known:
            return first
    return None
