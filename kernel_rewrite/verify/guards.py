"""Puts the tensors of a launch between poisoned margins, so that what a kernel does outside of them shows.

Each storage is copied into the middle of a larger buffer; the launch gets views of the copy, and what it changed is copied
back. A margin that changed was written to. A result that depends on what the margins hold was read from there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

MARGIN = 1 << 16
"""Bytes before and behind each storage: a multiple of every alignment that Triton specializes on."""

WINDOWS: dict[int, tuple[int, int]] = {}
"""The part of each guarded buffer that is not margin, by the buffer's address: (first address, address behind it)."""


@dataclass
class Outside:
    """What one evaluation did outside of its tensors: `reads` and `writes` are not 0 when it did."""

    reads: int = 0
    writes: int = 0


SEEN = Outside()
"""Counted by the interpreter's memory, which sees each access (see `bounds`)."""


@dataclass
class _Copy:
    storage: Any  # the user's
    buffer: Any  # int8: margin, copy, margin
    before: Any  # the contents at the start
    dtype: Any  # for the margins: that of the first tensor that lies there


@dataclass
class Guards:
    """The guarded copies of the storages of one launch."""

    copies: dict[int, _Copy] = field(default_factory=dict)

    def guarded(self, value: Any) -> Any:
        """`value` (an argument of a launch) with every tensor in it replaced by its guarded view."""
        import torch

        base = getattr(value, "base", None)
        if isinstance(value, torch.Tensor):
            return self._view(value.detach())
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return type(value)(*map(self.guarded, value))
        if isinstance(value, list | tuple):
            return type(value)(map(self.guarded, value))
        if not isinstance(base, torch.Tensor):
            return value
        if dataclasses.is_dataclass(value) and not isinstance(value, type):  # a TensorDescriptor
            return dataclasses.replace(value, base=self.guarded(base))
        if type(value).__name__ == "TensorWrapper":  # triton.reinterpret
            return type(value)(self.guarded(base), value.dtype)
        return value

    def _view(self, tensor: Any) -> Any:
        import torch

        storage = tensor.untyped_storage()
        if not storage.nbytes():
            return tensor
        copy = self.copies.get(storage.data_ptr()) or self._copied(storage, tensor)
        offset = tensor.storage_offset() + MARGIN // tensor.element_size()
        view = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
        return view.set_(copy.buffer.untyped_storage(), offset, tensor.shape, tensor.stride())

    def _copied(self, storage: Any, tensor: Any) -> _Copy:
        import torch

        buffer = torch.empty(storage.nbytes() + 2 * MARGIN, dtype=torch.int8, device=tensor.device)
        copy = _Copy(storage, buffer, _bytes(storage, tensor.device).clone(), tensor.dtype)
        _inner(copy).copy_(copy.before)
        self.copies[storage.data_ptr()] = copy
        start = buffer.data_ptr() + MARGIN
        WINDOWS[buffer.untyped_storage().data_ptr()] = (start, start + storage.nbytes())
        return copy

    def window(self, tensor: Any) -> tuple[int, int]:
        """(first byte, bytes) of the user's storage inside the storage of `tensor`, a guarded view."""
        whole = tensor.untyped_storage()
        for copy in self.copies.values():
            if copy.buffer.untyped_storage().data_ptr() == whole.data_ptr():
                return MARGIN, copy.storage.nbytes()
        return 0, whole.nbytes()

    def origin(self, tensor: Any) -> int:
        """The address of the user's storage behind a guarded view: the same for two views of it, in every launch."""
        address = tensor.untyped_storage().data_ptr()
        found = (a for a, copy in self.copies.items() if copy.buffer.untyped_storage().data_ptr() == address)
        return next(found, int(address))

    def poison(self, which: int) -> None:
        """Fill the margins: 0 is NaN (3 for integers), 1 is another number."""
        for copy in self.copies.values():
            for margin in _margins(copy):
                margin.copy_(_pattern(copy.dtype, which, margin))

    def overwritten(self, which: int) -> int:
        """How many bytes of the margins differ from what `poison(which)` wrote."""
        return sum(
            int((margin != _pattern(copy.dtype, which, margin)).sum())
            for copy in self.copies.values()
            for margin in _margins(copy)
        )

    def copy_back(self) -> None:
        """Give the user's storages what the launch changed."""
        import torch

        for copy in self.copies.values():
            target, now = _bytes(copy.storage, copy.buffer.device), _inner(copy)
            target.copy_(torch.where(now != copy.before, now, target))

    def release(self) -> None:
        for copy in self.copies.values():
            WINDOWS.pop(copy.buffer.untyped_storage().data_ptr(), None)


@contextmanager
def guarded_launch(
    arguments: tuple[Any, ...], options: Mapping[str, Any]
) -> Iterator[tuple[Guards, tuple[Any, ...], dict[str, Any]]]:
    """(guards, arguments, options) of a launch, guarded; what the launch changed is copied back at the end."""
    guards = Guards()
    try:
        guarded = tuple(map(guards.guarded, arguments))
        named = {name: guards.guarded(value) for name, value in options.items()}
        yield guards, guarded, named
        guards.copy_back()
    finally:
        guards.release()


def _bytes(storage: Any, device: Any) -> Any:
    import torch

    return torch.empty(0, dtype=torch.int8, device=device).set_(storage, 0, (storage.nbytes(),), (1,))


def _inner(copy: _Copy) -> Any:
    return copy.buffer[MARGIN : MARGIN + copy.storage.nbytes()]


def _margins(copy: _Copy) -> tuple[Any, Any]:
    return copy.buffer[:MARGIN], copy.buffer[-MARGIN:]


def _pattern(dtype: Any, which: int, margin: Any) -> Any:
    """The bytes of a margin. An integer stays small: it may be used as an index before its mask is."""
    import torch

    floating = dtype.is_floating_point or dtype.is_complex
    value = (float("nan"), 1.25)[which] if floating else (3, 1)[which]
    one = torch.tensor([value]).to(dtype).view(torch.int8)
    return one.to(margin.device).repeat(MARGIN // one.numel())
