"""What the machine code of a compiled kernel needs. Runs in the compiler process (`worker`), as it imports Triton.

Registers and spills are what `ptxas -v` says of the PTX, the instructions what `nvdisasm` prints of the cubin; both come with
Triton. For AMD GPUs the assembly says it all.
"""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import tempfile
from collections.abc import Mapping
from typing import Any


def resources(kernel: Any, signature: dict[str, Any], constexprs: Any, target: Any, options: Mapping[str, Any]) -> Any:
    """Compile `kernel` (a JITFunction) down to machine code and say what it needs, as JSON values.

    Pointers and integers are taken for multiples of 16, as the specialization of most launches is. Raises what Triton
    raises.
    """
    import triton
    from triton.compiler import ASTSource

    places = [(i,) for i, kind in enumerate(signature.values()) if isinstance(kind, str) and _is_aligned(kind)]
    source = ASTSource(kernel, signature, constexprs, {place: [["tt.divisibility", 16]] for place in places})
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TRITON_CACHE_DIR"] = folder
        os.environ["TRITON_ALWAYS_COMPILE"] = "1"
        compiled = triton.compile(source, target=target, options=dict(options))
        found = {"shared": int(compiled.metadata.shared), "warps": int(compiled.metadata.num_warps)}
        measured = _of_cuda if target.backend == "cuda" else _of_hip
        return found | measured(compiled.asm, target, folder)


def _is_aligned(kind: str) -> bool:
    return kind.startswith("*") or kind in ("i32", "i64", "u32", "u64")


_REGISTERS = re.compile(r"Used (\d+) registers")
_SPILLS = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
_PTX_TARGET = re.compile(r"^\.target\s+(\w+)", re.MULTILINE)
_SASS = re.compile(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?(\w+)", re.MULTILINE)


def _of_cuda(asm: Mapping[str, Any], target: Any, folder: str) -> dict[str, Any]:
    ptx, cubin = os.path.join(folder, "kernel.ptx"), os.path.join(folder, "kernel.cubin")
    with open(ptx, "w", encoding="utf-8") as stream:
        stream.write(asm["ptx"])
    arch = _PTX_TARGET.search(asm["ptx"])
    assert arch is not None, asm["ptx"][:200]
    command = [_assembler(target), "-v", f"--gpu-name={arch[1]}", ptx, "-o", cubin]
    run = subprocess.run(command, capture_output=True, text=True)
    said = run.stderr
    if run.returncode:
        raise RuntimeError(f"ptxas: {said.strip()}")
    registers, spills = _REGISTERS.search(said), _SPILLS.findall(said)
    assert registers is not None, said
    return {
        "registers": int(registers[1]),
        "spilled": sum(int(stores) for _, stores, _ in spills),
        "reloaded": sum(int(loads) for _, _, loads in spills),
        "instructions": _sass_instructions(cubin),
    }


def _sass_instructions(cubin: str) -> int | None:
    """How many instructions the cubin has, padding left out; None where no disassembler is at hand."""
    try:
        text = subprocess.run([_disassembler(), "-c", cubin], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    return sum(name != "NOP" for name in _SASS.findall(text)) or None


def _assembler(target: Any) -> str:
    """The path of the ptxas that Triton itself takes for the target."""
    from triton.backends.nvidia.compiler import get_ptxas

    asks_for_the_target = inspect.signature(get_ptxas).parameters  # Triton 3.5 has one for all
    return str((get_ptxas(int(target.arch)) if asks_for_the_target else get_ptxas()).path)


def _disassembler() -> str:
    from triton import knobs

    return str(knobs.nvidia.nvdisasm.path)


_AMD = {
    "registers": re.compile(r"^; TotalNumVgprs: (\d+)", re.MULTILINE),
    "spilled": re.compile(r"\.vgpr_spill_count:\s+(\d+)"),
}
_AMD_INSTRUCTION = re.compile(r"^\t[a-z]\w+(?:\s|$)", re.MULTILINE)


def _of_hip(asm: Mapping[str, Any], target: Any, folder: str) -> dict[str, Any]:
    text = asm["amdgcn"]
    found = {name: int(match[1]) if (match := pattern.search(text)) else 0 for name, pattern in _AMD.items()}
    bytes_a_register = 4
    spilled = found["spilled"] * bytes_a_register
    instructions = len(_AMD_INSTRUCTION.findall(text.partition("; -- End function")[0])) or None
    return {"registers": found["registers"], "spilled": spilled, "reloaded": spilled, "instructions": instructions}
