"""Ops given as functions, in the words that say the same: a text and declared operands.

What is said in words needs no function any more: it stands in the header of the fused file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from kernel_rewrite.arguments import (
    EPILOGUE_KERNEL,
    OPS,
    Given,
    keywords,
    name_and_text,
    names_a_kernel,
    path_and_name,
    stored_by_drop,
)
from kernel_rewrite.diagnostics import Diagnostic, FusionRefused
from kernel_rewrite.epilogue_kernels import canonical_text, read_epilogue_kernel
from kernel_rewrite.model import Operand
from kernel_rewrite.pointwise.declarations import declaration, declared_operands
from kernel_rewrite.pointwise.language import Pointwise, parse_epilogue
from kernel_rewrite.pointwise.printing import epilogue_text
from kernel_rewrite.pointwise.reading import parsed_function
from kernel_rewrite.pointwise.tracing import traced
from kernel_rewrite.source.files import Project

AnyOp = str | Callable[..., Any]
"""An op as a user gives it: a text, or a function."""

Ops = AnyOp | Mapping[str, AnyOp] | Iterable[AnyOp]
"""One op, {buffer: op}, or several."""


Texts = Mapping[str, str] | tuple[str, ...]
"""Ops in words."""


Kernels = Mapping[str, str] | Iterable[str]
"""Kernels of the user's as epilogues: one text, {output: text}, or texts that may start with `OUTPUT=`."""


def in_words(
    epilogues: Ops, prologues: Ops, operands: Mapping[str, Operand], project: Project, kernels: Kernels = ()
) -> tuple[Texts, Texts, dict[str, Operand]]:
    """`epilogues`, those that `kernels` name behind them, and `prologues` with a text for every function, and `operands`
    with those that the functions and kernels declare.

    A function is a callable, which is called with stand-ins for tensors, or "FILE.py:NAME", which is read and not run.
    Raises FusionRefused: KR120 and the codes of `parse_epilogue`, KR113 or KR101 for a file that cannot be read, KR121
    where two functions declare an operand differently, KR123 for a kernel.
    """
    sides = listed(epilogues), listed(prologues)
    inner = listed(kernels)
    words = _Words(operands, project, alone=len(sides[0]) + len(sides[1]) + len(inner) == 1)
    stored, loaded = words.of_all(sides[0]), words.of_all(sides[1])
    if inner:
        pairs = inner.items() if isinstance(inner, Mapping) else map(name_and_text, map(str, inner))
        inlined = [words.of_kernel(output, str(text)) for output, text in pairs]
        stored = (*(_named(stored) if isinstance(stored, Mapping) else stored), *inlined)
    return stored, loaded, words.declared


def implied_operands(dropped: Iterable[str], declared: Mapping[str, Operand], epilogues: Ops) -> dict[str, Operand]:
    """The operands that need no declaration: outputs to drop, where an epilogue names them."""
    texts = epilogues.values() if isinstance(epilogues, Mapping) else listed(epilogues)
    words = [text for text in texts if isinstance(text, str)]
    return declared_operands(stored_by_drop(dropped, (f"{name}=" for name in declared), words))


def _named(texts: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(f"{buffer}={text}" for buffer, text in texts.items())


def listed(ops: Ops) -> Mapping[str, AnyOp] | tuple[AnyOp, ...]:
    """Ops as they can be read twice."""
    if isinstance(ops, Mapping):
        return ops
    return (ops,) if isinstance(ops, str) or callable(ops) else tuple(ops)


def given_in_words(given: Given, project: Project) -> Given:
    """The arguments of a fusion, in words. Raises FusionRefused as `in_words` does."""
    asked = keywords(given)
    operands = declared_operands(asked.get("operands", ()))
    epilogues, prologues, declared = in_words(
        asked.get("epilogues", ()), asked.get("prologues", ()), operands, project, asked.get("epilogue_kernels", ())
    )
    stored = [(EPILOGUE_KERNEL if names_a_kernel(name_and_text(text)[1]) else "--epilogue", text) for text in epilogues]
    return (
        *((option, text) for option, text in given if option not in (*OPS, "--operand")),
        *stored,
        *(("--prologue", text) for text in prologues),
        *(("--operand", declaration(operand)) for operand in declared.values()),
    )


class _Words:
    """The words for the ops of one fusion. `alone`: there is one, to which all operands belong."""

    def __init__(self, operands: Mapping[str, Operand], project: Project, *, alone: bool) -> None:
        self._operands, self._project, self._alone = operands, project, alone
        self.declared = dict(operands)

    def of_all(self, ops: Mapping[str, AnyOp] | tuple[AnyOp, ...]) -> Texts:
        """A text for each of `ops`."""
        if isinstance(ops, Mapping):
            return {buffer: self.of(op) for buffer, op in ops.items()}
        return tuple(map(self.of_element, ops))

    def of_element(self, epilogue: AnyOp) -> str:
        """`OUT=EPILOGUE` or `EPILOGUE`, with a text for a function."""
        if not isinstance(epilogue, str):
            return self.of(epilogue)
        output, text = name_and_text(epilogue)
        words = self.of(text)
        return epilogue if words == text else f"{output}={words}" if output else words

    def of(self, epilogue: AnyOp) -> str:
        """The text of one epilogue."""
        if not isinstance(epilogue, str):
            return self._printed(traced(epilogue, self._operands_of(epilogue)))
        if names_a_kernel(epilogue):
            raise _refusal("KR123", f"`{epilogue}` names a kernel", f"give it as `{EPILOGUE_KERNEL} {epilogue}`")
        place = path_and_name(epilogue)
        if place is None:
            return epilogue
        file = self._project.read(place[0])
        return self._printed(parsed_function(file.text, place[1], self._operands, file=file.path))

    def of_kernel(self, output: str | None, text: str) -> str:
        """The text that names a kernel and its parameter; the operands that it declares join `declared`."""
        call = read_epilogue_kernel(text, self.declared, self._project)
        self.declared |= {operand.name: operand for operand in call.operands}
        words = canonical_text(text, call)
        return f"{output}={words}" if output else words

    def _operands_of(self, function: Callable[..., Any]) -> Mapping[str, Operand]:
        """What is declared and concerns the function: of several, torch's own name no operands."""
        if self._alone:
            return self._operands
        names = getattr(getattr(function, "__code__", None), "co_varnames", ())
        return {name: operand for name, operand in self._operands.items() if name in names}

    def _printed(self, pointwise: Pointwise) -> str:
        """The text of `pointwise`; what it declares joins `declared`."""
        own = {operand.name: operand for operand in pointwise.operands if not operand.index}
        text = epilogue_text(pointwise.result)
        for name, operand in own.items():
            if self.declared.setdefault(name, operand) != operand:
                raise _refusal("KR121", f"operand `{name}` is declared twice", "give one of them another name")
        if parse_epilogue(text, own) != pointwise:
            message = f"the function is `{text}`, which reads differently with operands of these names"
            raise _refusal("KR120", message, "give its operands other names")
        return text


def _refusal(code: str, message: str, help: str) -> FusionRefused:
    return FusionRefused((Diagnostic(code, message, help=help),))
