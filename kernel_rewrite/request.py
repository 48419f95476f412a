"""One epilogue for one output, or one prologue for one input: what every later stage is asked about."""

from __future__ import annotations

import keyword
import re
from dataclasses import dataclass
from typing import Protocol

from kernel_rewrite.model import Span, Specialization
from kernel_rewrite.pointwise.language import Epilogue, Input, Pointwise
from kernel_rewrite.pointwise.remainder import Remainder, Split


class Request(Protocol):
    """One op for one buffer of the kernel."""

    @property
    def buffer(self) -> str:
        """The root: `c_ptr`, or `outs[0]` for an element of a tuple."""

    @property
    def parameter(self) -> str:
        """The source parameter: `outs` for the root `outs[0]`."""

    @property
    def text(self) -> str: ...
    @property
    def name(self) -> str:
        """A short slug of the op, for file names."""

    @property
    def pointwise(self) -> Epilogue: ...
    @property
    def assumed(self) -> frozenset[str]: ...
    @property
    def ignoring(self) -> frozenset[Span]: ...


@dataclass(frozen=True, slots=True)
class OutputRequest:
    """One epilogue for one output, as text and parsed; `assumed` are the names of what is taken from the user, with
    `--assume` or by the comments at `ignoring`. `launcher`: what launches the kernel may be rewritten too. `kept` is the
    new parameter that gets what the kernel stored to the output before, "" where that is not kept. With `rest`, `pointwise`
    is only the part of the text that is fused, and launchers do the rest in torch."""

    output: str
    text: str
    pointwise: Epilogue
    assumed: frozenset[str] = frozenset()
    ignoring: frozenset[Span] = frozenset()
    launcher: bool = False
    kept: str = ""
    rest: Remainder | None = None

    @classmethod
    def without_op(cls, output: str) -> OutputRequest:
        """A request that only asks whether any op could be fused."""
        return cls(output, "x", Pointwise(Input()))

    @property
    def buffer(self) -> str:
        return self.output

    @property
    def parameter(self) -> str:
        return self.output.split("[")[0]

    @property
    def name(self) -> str:
        return Split(self.pointwise, self.rest).name


@dataclass(frozen=True, slots=True)
class InputRequest:
    """One prologue for one input, as text and parsed; `assumed` and `ignoring` as for an output. `holds` is torch's name of
    the element type that the input gets, where it is another one than the kernel has it."""

    input: str
    text: str
    pointwise: Pointwise
    assumed: frozenset[str] = frozenset()
    ignoring: frozenset[Span] = frozenset()
    holds: str = ""

    @classmethod
    def without_op(cls, input: str) -> InputRequest:
        """A request that only asks whether any op could be fused."""
        return cls(input, "x", Pointwise(Input()))

    @property
    def buffer(self) -> str:
        return self.input

    @property
    def parameter(self) -> str:
        return self.input.split("[")[0]

    @property
    def name(self) -> str:
        return self.pointwise.name

    @property
    def named(self) -> str:
        """The input as `--prologue` has it: `b_ptr`, `b_ptr:int8`."""
        return f"{self.input}:{self.holds}" if self.holds else self.input


def passed_as(kept: str) -> str:
    """What launchers call the tensor for the kernel's new parameter `kept`: `pre` for `pre_ptr`."""
    name = kept.removesuffix("_ptr")
    return name if name.isidentifier() and not keyword.iskeyword(name) else kept


def element_type_of(specialization: Specialization, buffer: str) -> str:
    """The element type of `buffer` ("outs[0]" for an element of a tuple) in one specialization, "" when it is absent."""
    name, _, index = buffer.partition("[")
    kind = specialization.type_of(name)
    if isinstance(kind, (tuple, list)) and index:
        number = index.rstrip("]")
        kind = kind[int(number)] if number.isdigit() and int(number) < len(kind) else ""
    match = re.match(r"\*(?:k?)(\w+)|tensordesc<(\w+)", str(kind))
    return (match[1] or match[2]) if match else ""
