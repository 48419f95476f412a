"""The rest of an epilogue of which a part is fused: what torch computes of the output, where the original's launchers return
it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any

from kernel_rewrite.model import Operand
from kernel_rewrite.pointwise.declarations import declared_operands, used_in
from kernel_rewrite.pointwise.language import Pointwise
from kernel_rewrite.pointwise.printing import epilogue_text
from kernel_rewrite.pointwise.remainder import Remainder, split_epilogue
from kernel_rewrite.rewrite.header import Header

if TYPE_CHECKING:
    from kernel_rewrite.verify.launches import Capture

Texts = tuple[tuple[str, str], ...]
"""Each (output, epilogue)."""


def fused_parts(header: Header) -> tuple[Texts, Texts]:
    """The epilogues that are in the fused kernel, and the whole ones that have a rest."""
    if "--partial" not in dict(header.given):
        return header.epilogues, ()
    declared = declared_operands(header.texts("--operand"))
    fused, whole = [], []
    for output, text in header.epilogues:
        rest = rest_of(text, declared)
        fused.append((output, epilogue_text(rest.fused.result) if rest is not None else text))
        whole += [(output, text)] if rest is not None else []
    return tuple(fused), tuple(whole)


@dataclass(frozen=True)
class Rest:
    """An epilogue as both of its parts."""

    fused: Pointwise
    remainder: Remainder

    @property
    def operands(self) -> tuple[Operand, ...]:
        return tuple(dict.fromkeys((*self.fused.operands, *self.remainder.operands)))

    def evaluate(self, x: Any, **operands: Any) -> Any:
        """All of it, of torch tensors."""
        return self.remainder.evaluate(self.fused.evaluate(x, **operands), **operands)


def rest_of(text: str, declared: Mapping[str, Operand]) -> Rest | None:
    """The parts of an epilogue; None for one without a rest."""
    from kernel_rewrite.arguments import names_a_kernel
    from kernel_rewrite.pointwise.language import called_name

    if names_a_kernel(text) or called_name(text) is not None:
        return None
    split = split_epilogue(text, used_in(text, declared))
    if split.rest is None:
        return None
    assert isinstance(split.fused, Pointwise)
    return Rest(split.fused, split.rest)


def launchers_of(path: str, kernel: str) -> tuple[str, ...]:
    """The functions of the file that launch the kernel, by their names: `matmul`, `Linear.forward`."""
    from kernel_rewrite.source.callers import Callers
    from kernel_rewrite.source.closure import kernels
    from kernel_rewrite.source.files import Project
    from kernel_rewrite.source.launches import launches
    from kernel_rewrite.source.symbolic import ProjectNames

    project = Project()
    file = project.read(path)
    callers = Callers(file.tree)
    found: dict[str, None] = {}
    for definition in kernels(file, project):
        if definition.name != kernel:
            continue
        for launch in launches(definition.node, file.tree, file.path, ProjectNames(file, project)):
            if launch.function is not None:
                owner = callers.owner(launch.function)
                found[f"{owner.name}.{launch.function.name}" if owner else launch.function.name] = None
    return tuple(found)


Applied = Callable[["Capture", Any], Any]
"""What becomes of a returned tensor that is the output of a launch."""


@contextmanager
def applied_behind(
    module: ModuleType, launchers: Sequence[str], captures: Sequence[Sequence[Capture]], rests: Mapping[str, Applied]
) -> Iterator[None]:
    """Inside, the `launchers` of `module` return what `rests` make of an output, by its name, in the output's place.
    `captures` are those of the launches so far."""

    def around(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def launcher(*arguments: Any, **named: Any) -> Any:
            before = len(captures)
            value = function(*arguments, **named)
            made = {c.memory: c for launch in captures[before:] for c in launch if c.output in rests and c.memory >= 0}
            if 0 in made and sum(not tensor.untyped_storage().data_ptr() for tensor in _tensors(value)) > 1:
                raise ValueError("which of the empty tensors that are returned is the output cannot be told")
            return _replaced(value, made, rests)

        return launcher

    previous: list[tuple[Any, str, Any]] = []
    for holder, name, value in _places(module, launchers):
        previous.append((holder, name, value))
        wraps = isinstance(value, (staticmethod, classmethod))
        setattr(holder, name, type(value)(around(value.__func__)) if wraps else around(value))
    try:
        yield
    finally:
        for holder, name, value in previous:
            setattr(holder, name, value)


def _places(module: ModuleType, launchers: Sequence[str]) -> Iterator[tuple[Any, str, Any]]:
    """Each (holder, name, value) through which a launcher is called: a function under all of its names."""
    for launcher in launchers:
        owner, _, name = launcher.rpartition(".")
        holder = getattr(module, owner, None) if owner else module
        value = vars(holder).get(name) if holder is not None else None
        if value is None:
            continue
        names = [name] if owner else [key for key, other in vars(module).items() if other is value]
        yield from ((holder, key, value) for key in names)


def _tensors(value: Any) -> Iterator[Any]:
    import torch

    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _tensors(item)


def _replaced(value: Any, made: Mapping[int, Capture], rests: Mapping[str, Applied]) -> Any:
    import torch

    if isinstance(value, torch.Tensor):
        capture = made.get(value.untyped_storage().data_ptr())
        return value if capture is None else rests[capture.output](capture, value)
    if isinstance(value, (tuple, list)):
        items = [_replaced(item, made, rests) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    return value
