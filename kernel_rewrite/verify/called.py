"""A Triton function of the user's as the op of the unfused pair: run on tensors, in a kernel of its own."""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from kernel_rewrite.model import Operand
from kernel_rewrite.pointwise.calls import TritonCall, inputs_of
from kernel_rewrite.pointwise.graph import key_of
from kernel_rewrite.verify.modules import load

_BLOCK = 1024
_TEMPLATE = """\
import triton
import triton.language as tl

{function} = None


@triton.jit
def apply_kernel(x_ptr, result_ptr, count, {parameters}BLOCK: tl.constexpr):
    places = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = places < count
    x = tl.load(x_ptr + places, mask=inside)
{loads}    tl.store(result_ptr + places, {call}, mask=inside)
"""


@dataclass(frozen=True)
class CalledOp:
    """`call` as an op on tensors: the function of `module`, in a kernel that loads x, calls it and stores the result."""

    call: TritonCall
    module: ModuleType
    folder: str

    @property
    def operands(self) -> tuple[Operand, ...]:
        return self.call.operands

    def undefined_reason(self, dtype: str) -> str:
        """Triton says so itself when it compiles the function."""
        return ""

    def evaluate(self, x: Any, options: Mapping[str, Any] = {}, /, **operands: Any) -> Any:
        """The function of `x` and of `operands`, by key or name: tensors that broadcast to x, or numbers; its kernel is
        launched with the compiler's `options`."""
        import torch

        given = [operands[key_of(o) if key_of(o) in operands else o.name] for o in self.operands]
        tensors = [hasattr(value, "expand") for value in given]
        flat = x.contiguous().reshape(-1)
        result = torch.empty_like(flat)
        values = [
            value.expand(x.shape).contiguous().reshape(-1) if is_tensor else float(value)
            for value, is_tensor in zip(given, tensors, strict=True)
        ]
        if flat.numel():
            grid = (-(-flat.numel() // _BLOCK),)
            self._kernel(tensors)[grid](flat, result, flat.numel(), *values, BLOCK=_BLOCK, **options)
        return result.reshape(x.shape)

    def _kernel(self, tensors: Iterable[bool]) -> Any:
        """The kernel, its operands being tensors or numbers."""
        names = [f"operand_{number}" for number in range(len(self.operands))]
        texts = {key_of(o): name for o, name in zip(self.operands, names, strict=True)}
        loads = "".join(
            f"    {name} = tl.load({name}_ptr + places, mask=inside)\n"
            for name, is_tensor in zip(names, tensors, strict=True)
            if is_tensor
        )
        parameters = "".join(
            f"{name}_ptr, " if is_tensor else f"{name}, " for name, is_tensor in zip(names, tensors, strict=True)
        )
        text = _TEMPLATE.format(
            function=self.call.function,
            parameters=parameters,
            loads=loads,
            call=self.call.text(inputs_of(self.call, "x", texts)),
        )
        module = _made(text, self.folder)
        setattr(module, self.call.function, getattr(self.module, self.call.function))
        return module.apply_kernel


def module_of_inlined(call: TritonCall, beside: ModuleType, folder: str) -> ModuleType:
    """A module with the function that a kernel was turned into, which knows what the kernel's own module `beside` knows."""
    assert call.inlined is not None
    head = "from __future__ import annotations\n\nimport triton\n\n\n@triton.jit\n"  # no annotation is evaluated
    text = f"{head}def {call.function}{call.inlined.definition}"
    module = _made(text, folder)
    for name, value in vars(beside).items():
        if name != call.function and not name.startswith("__"):
            setattr(module, name, value)
    return module


@functools.cache
def _made(text: str, folder: str) -> ModuleType:
    """The module with this text: Triton reads the source of a kernel in its file."""
    handle, path = tempfile.mkstemp(".py", "apply_", folder)
    with os.fdopen(handle, "w", encoding="utf-8") as stream:
        stream.write(text)
    return load(path)
