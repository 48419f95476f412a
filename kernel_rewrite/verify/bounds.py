"""Keeps the interpreter inside its tensors: a lane that reads or writes outside of every tensor is turned off.

On a GPU such a lane mostly goes unnoticed; in the interpreter it reads another object's memory or corrupts the heap.
The margins of `guards` are outside.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from kernel_rewrite.verify.guards import SEEN, WINDOWS

Array = Any  # numpy.ndarray


@contextlib.contextmanager
def checked_memory(notes: list[str]) -> Iterator[None]:
    """Inside, lanes of loads and stores that point outside of every torch tensor are masked out."""
    from triton.runtime import interpreter

    memory, take_arguments = interpreter._interpreter, interpreter.GridExecutor._init_args_hst
    checked = _Checked(memory, notes)

    def noted_arguments(self: Any, arguments: Any, options: dict[str, Any]) -> Any:
        taken = take_arguments(self, arguments, options)
        checked.expect([*taken[0], *taken[1].values()])
        return taken

    interpreter._interpreter, interpreter.GridExecutor._init_args_hst = checked, noted_arguments
    try:
        yield
    finally:
        interpreter._interpreter, interpreter.GridExecutor._init_args_hst = memory, take_arguments


class _Checked:
    """The interpreter's native memory functions, with lanes outside of every tensor masked out."""

    def __init__(self, memory: Any, notes: list[str]) -> None:
        self._memory = memory
        self._notes = notes
        self._starts: Array = np.zeros(0, dtype=np.uint64)
        self._ends: Array = np.zeros(0, dtype=np.uint64)

    def expect(self, arguments: list[Any]) -> None:
        """Starts a launch with these arguments: their tensors are what it mostly touches."""
        import torch

        self._know(value for value in arguments if isinstance(value, torch.Tensor))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._memory, name)

    def load(self, pointers: Array, mask: Array, other: Array, dtype: Any) -> Array:
        return self._memory.load(
            pointers, self._inside(pointers, mask, np.dtype(dtype).itemsize, "reads"), other, dtype
        )

    def store(self, pointers: Array, value: Array, mask: Array) -> Any:
        return self._memory.store(pointers, value, self._inside(pointers, mask, np.asarray(value).itemsize, "writes"))

    def _inside(self, pointers: Array, mask: Array, size: int, verb: str) -> Array:
        pointers, mask = np.asarray(pointers), np.asarray(mask)  # a descriptor's come as memoryviews
        inside = self._known(pointers, size)
        if bool((inside | ~mask.astype(bool)).all()):
            return mask
        self._refresh()
        inside = self._known(pointers, size)
        if bool((inside | ~mask.astype(bool)).all()):
            return mask
        lanes = int((~inside & mask.astype(bool)).sum())
        SEEN.reads += lanes if verb == "reads" else 0
        SEEN.writes += lanes if verb == "writes" else 0
        note = f"a kernel {verb} outside of its tensors: those lanes were turned off"
        if note not in self._notes:
            self._notes.append(note)
        return mask & inside

    def _known(self, pointers: Array, size: int) -> Array:
        """Which pointers are inside a storage seen at the last refresh."""
        place = np.searchsorted(self._starts, pointers, side="right")
        ends = np.concatenate([np.zeros(1, dtype=np.uint64), self._ends])
        return pointers + np.uint64(size) <= ends[place]

    def _refresh(self) -> None:
        """Knows every live tensor: pointers may come from a table in memory."""
        import torch

        self._know(thing for thing in gc.get_objects() if issubclass(type(thing), torch.Tensor))

    def _know(self, tensors: Iterable[Any]) -> None:
        spans = set()
        for tensor in tensors:
            with contextlib.suppress(Exception):  # a tensor without memory of its own (meta, sparse)
                storage = tensor.untyped_storage()
                whole = (storage.data_ptr(), storage.data_ptr() + storage.nbytes())
                spans.add(WINDOWS.get(whole[0], whole))
        ordered = sorted(spans)
        self._starts = np.array([start for start, _ in ordered], dtype=np.uint64)
        self._ends = np.maximum.accumulate(np.array([end for _, end in ordered], dtype=np.uint64))
