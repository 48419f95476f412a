"""One epilogue for one output: what every later stage is asked about."""

from __future__ import annotations

import re
from dataclasses import dataclass

from kernel_rewrite.model import Span, Specialization
from kernel_rewrite.pointwise.language import Input, Pointwise


@dataclass(frozen=True, slots=True)
class OutputRequest:
    """One epilogue for one output, as text and parsed; `assumed` are the names of what is taken from the user, with
    `--assume` or by the comments at `ignoring`. `launcher`: what launches the kernel may be rewritten too."""

    output: str
    text: str
    pointwise: Pointwise
    assumed: frozenset[str] = frozenset()
    ignoring: frozenset[Span] = frozenset()
    launcher: bool = False

    @classmethod
    def without_op(cls, output: str) -> OutputRequest:
        """A request that only asks whether any op could be fused."""
        return cls(output, "x", Pointwise(Input()))

    @property
    def parameter(self) -> str:
        """The source parameter: `outs` for the root `outs[0]`."""
        return self.output.split("[")[0]


def element_type_of(specialization: Specialization, output: str) -> str:
    """The element type of `output` ("outs[0]" for an element of a tuple) in one specialization, "" when it is absent."""
    name, _, index = output.partition("[")
    kind = specialization.type_of(name)
    if isinstance(kind, (tuple, list)) and index:
        kind = kind[int(index.rstrip("]"))]
    match = re.match(r"\*(?:k?)(\w+)|tensordesc<(\w+)", str(kind))
    return (match[1] or match[2]) if match else ""
