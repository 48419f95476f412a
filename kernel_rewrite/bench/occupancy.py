"""How much of a multiprocessor a kernel can fill, from what it needs; a table of what the targets have."""

from __future__ import annotations

import re
from dataclasses import dataclass

from kernel_rewrite.model import Target
from kernel_rewrite.ttir.lower import Compiled

REGISTERS_A_LANE = 512
"""In each of the four partitions of a multiprocessor (a SIMD of a compute unit), on every target of the table."""

PARTITIONS = 4
_GRANULARITY = 8  # registers a thread are allocated in


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one multiprocessor: warps a partition, programs, bytes of shared memory in all, for one program, and taken by the
    system from each program."""

    warps: int
    programs: int
    shared: int
    shared_by_one: int
    reserved: int = 1024


LIMITS: dict[str, Limits] = {
    "sm_80": Limits(16, 32, 167936, 166912),
    "sm_86": Limits(12, 16, 102400, 101376),
    "sm_89": Limits(12, 24, 102400, 101376),
    "sm_90": Limits(16, 32, 233472, 232448),
    "sm_100": Limits(16, 32, 233472, 232448),
    "sm_120": Limits(12, 24, 102400, 101376),
    "gfx942": Limits(8, 32, 65536, 65536, reserved=0),
}
"""Compute capabilities from the CUDA programming guide's table of technical specifications, gfx942 from the CDNA 3 ISA."""


def target_named(name: str) -> Target:
    """The target that `sm_90` or `gfx942` names. Raises ValueError for one that is not in the table."""
    if name not in LIMITS:
        raise ValueError(f"unknown target `{name}`; known: {', '.join(LIMITS)}")
    capability = re.fullmatch(r"sm_(\d+)", name)
    return Target("cuda", int(capability[1]), 32) if capability else Target("hip", name, 64)


def fits(compiled: Compiled, target: Target) -> bool:
    """Whether one program has room in the target's shared memory."""
    return compiled.shared <= LIMITS[str(target)].shared_by_one


def occupancy(compiled: Compiled, target: Target) -> float:
    """The share of a multiprocessor's warps that can be resident, from 0 (does not fit) to 1."""
    limits = LIMITS[str(target)]
    if not fits(compiled, target):
        return 0.0
    registers = max(_GRANULARITY, -(-compiled.registers // _GRANULARITY) * _GRANULARITY)
    warps = min(limits.warps, REGISTERS_A_LANE // registers) * PARTITIONS
    by_memory = limits.shared // (compiled.shared + limits.reserved) if compiled.shared + limits.reserved else warps
    programs = min(warps // compiled.warps, limits.programs, by_memory)
    return programs * compiled.warps / (limits.warps * PARTITIONS)
