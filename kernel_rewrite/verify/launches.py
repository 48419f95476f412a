"""Follows every launch of one kernel: poisons its outputs, tells which elements it wrote, captures them.

A buffer is poisoned over its whole storage, with a bit pattern that no computation yields; what the kernel leaves
unwritten gets back what it held before. Where the pattern survives, the launch is repeated with a second pattern, so
that a kernel that happens to store the first one is not misread. Every tensor lies between margins (see `guards`).
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from kernel_rewrite.verify.compare import bits, same_elements
from kernel_rewrite.verify.guards import Guards, Outside, guarded_launch

# By element size; quiet NaNs with a payload for the float types. For 2 bytes by dtype, as float16 and bfloat16 differ.
_POISONS = {1: (0x5A, 0x25), 4: (0x7FC5A5A5, 0x7FD33333), 8: (0x7FF85A5A5A5A5A5A, 0x7FF9333333333333)}
_TWO_BYTE_POISONS = {"torch.bfloat16": (0x7FDA, 0x7FD3)}
_TWO_BYTES = (0x7E5A, 0x7F33)


class CannotFollow(Exception):
    """A launch whose output cannot be found or compared; the message says why."""


@dataclass
class Capture:
    """One output of one launch, or the buffer that keeps its original value, all its elements in a row.

    `prior`: what the buffer held before the launch; `before`: the kernel's own values; `after`: with the op, for the
    original, in the type that the op gives, which is `dtype`. `inside` tells the tensor's elements from others of its
    storage; `memory` is the storage's address, -1 for a buffer that keeps.
    """

    output: str
    dtype: str
    shape: tuple[int, ...]
    before: Any
    after: Any
    written: Any
    prior: Any
    inside: Any
    memory: int
    operands: Callable[[Any], dict[str, Any]]  # what the op reads at positions of the data, by key
    index_of: Callable[[int], tuple[int, ...]]


@dataclass(frozen=True)
class TorchOp:
    """The torch op in the place of an epilogue: of any elements of the output or, when it reads `operands` (by key, for an
    output as its launcher has it, and the arguments of the launch), of the output in its shape."""

    apply: Callable[..., Any]
    operands: Callable[[Any, Mapping[str, Any]], Mapping[str, Any]] | None = None

    def given(self, tensor: Any, bound: Mapping[str, Any]) -> Mapping[str, Any]:
        """What it reads beside the output `tensor`, in a launch with the arguments `bound`."""
        return self.operands(tensor, bound) if self.operands is not None else {}


@dataclass(frozen=True)
class Twin:
    """The buffer that a fused kernel stores the original value of `output` to: its `parameter` of the fused kernel, and the
    output's type in the original. `followed`: it is the fused kernel that is followed; the original has no such buffer."""

    output: str
    parameter: str
    dtype: Any
    followed: bool


@dataclass
class Recorder:
    """The captures of one evaluation, in the order of the launches; what it did `outside` of its tensors; the integers
    that its compile-time parameters had. `repeats`: launch once more with other margins, to see whether they are read.
    `inputs` are the ops in the place of prologues; what the outputs `kept` hold is read by the kernel. The buffers `twins`
    are captured behind the outputs: what the fused kernel stores there, or what the original does to their outputs. `dropped`
    are outputs that the fused kernel does not have; where the original's lie in memory is noted as `left_out`."""

    outputs: Sequence[str]
    ops: dict[str, TorchOp]  # empty for the fused file
    repeats: bool = False
    inputs: dict[str, TorchOp] = field(default_factory=dict)  # empty for the fused file
    kept: frozenset[str] = frozenset()
    twins: tuple[Twin, ...] = ()
    dropped: tuple[str, ...] = ()
    captures: list[list[Capture]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    outside: Outside = field(default_factory=Outside)
    constants: set[int] = field(default_factory=set)
    left_out: set[int] = field(default_factory=set)


@contextmanager
def followed(kernel: str, path: str, recorder: Recorder) -> Iterator[None]:
    """Inside, every launch of the jit function `kernel` that `path` defines goes through `recorder`."""
    from triton.runtime.interpreter import GridExecutor
    from triton.runtime.jit import JITFunction

    def follow(launch: Callable[..., Any]) -> Callable[..., Any]:
        def followed_launch(self: Any, *arguments: Any, **options: Any) -> Any:
            if options.get("warmup") or not is_kernel(self.fn, kernel, path):
                return launch(self, *arguments, **options)
            recorder.constants |= _constants(self, arguments, options)
            arguments, options = _with_twins(self.arg_names, arguments, options, recorder)
            with guarded_launch(arguments, options) as (guards, guarded, named):
                guarded, named = _with_inputs(self.arg_names, guarded, named, guards, recorder.inputs)
                again = lambda: launch(self, *guarded, **named)  # noqa: E731
                return _follow(self.arg_names, guarded, named, again, guards, recorder)

        return followed_launch

    places = [(GridExecutor, "__call__"), (JITFunction, "run")]  # the interpreter's, the compiler's
    previous = [getattr(cls, name) for cls, name in places]
    for (cls, name), launch in zip(places, previous, strict=True):
        setattr(cls, name, follow(launch))
    try:
        yield
    finally:
        for (cls, name), launch in zip(places, previous, strict=True):
            setattr(cls, name, launch)


def is_kernel(function: Any, kernel: str, path: str) -> bool:
    code = getattr(function, "__code__", None)
    return code is not None and function.__name__ == kernel and _same_path(code.co_filename, path)


def _constants(function: Any, arguments: tuple[Any, ...], options: dict[str, Any]) -> set[int]:
    """The integers that are passed for compile-time parameters: the sizes of tiles are among them."""
    names = getattr(function, "constexprs", None)  # the interpreter's: names
    if not names or not isinstance(names[0], str):
        names = [parameter.name for parameter in getattr(function, "params", ()) if parameter.is_constexpr]
    bound = {**dict(zip(function.arg_names, arguments, strict=False)), **options}
    return {value for name, value in bound.items() if name in names and type(value) is int}


def _same_path(left: str, right: str) -> bool:
    return os.path.realpath(left) == os.path.realpath(right)


# ------------------------------------------------------------------------------------------------------------ a launch


def _with_inputs(
    names: Sequence[str], arguments: tuple[Any, ...], options: dict[str, Any], guards: Guards, ops: dict[str, TorchOp]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a launch with the op of each input in the input's place."""
    bound = {**dict(zip(names, arguments, strict=False)), **options}
    for name, op in ops.items():
        tensor = tensor_of(bound, name)
        if tensor is None:
            continue
        region = _Region(tensor, [], guards.window(tensor))
        changed = _with_op(op, op.given(tensor, bound), tensor, region)
        parameter, _, index = name.partition("[")
        value = _in_its_layout(changed, region)
        bound[parameter] = _replaced(bound[parameter], value, int(index.rstrip("]")) if index else None)
    positional = tuple(bound.pop(name) for name in list(names)[: len(arguments)])
    return positional, bound


def _with_twins(
    names: Sequence[str], arguments: tuple[Any, ...], options: dict[str, Any], recorder: Recorder
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a launch of the fused kernel, with each twin laid out as its output is: the kernel takes it to be. A
    twin of an output that is not poisoned holds what that does."""
    import torch

    bound = {**dict(zip(names, arguments, strict=False)), **options}
    for twin in recorder.twins:
        tensor = tensor_of(bound, twin.output) if twin.followed else None
        if tensor is None:
            continue
        given = tensor_of(bound, twin.parameter)
        if given is None or given.numel() != tensor.numel():
            raise CannotFollow(f"`{twin.parameter}` is not passed a tensor like the one for `{twin.output}`")
        dtype = twin.dtype or given.dtype
        if (given.shape, given.stride(), given.dtype) != (tensor.shape, tensor.stride(), dtype):
            given = torch.empty_strided(tensor.shape, tensor.stride(), dtype=dtype, device=tensor.device)
        if twin.output in recorder.kept and dtype == tensor.dtype:
            given = given.copy_(tensor)
        bound[twin.parameter] = given
    positional = tuple(bound.pop(name) for name in list(names)[: len(arguments)])
    return positional, bound


def _in_its_layout(data: Any, region: _Region) -> Any:
    """A tensor with the region's elements changed to `data`, laid out as its own tensor is."""
    tensor = region.tensor
    if region.whole:
        return data.as_strided(tensor.shape, tensor.stride(), region.offset)
    import torch

    same = torch.empty_strided(tensor.shape, tensor.stride(), dtype=data.dtype, device=data.device)
    return same.copy_(data.reshape(tensor.shape))


def _replaced(value: Any, tensor: Any, index: int | None) -> Any:
    """`value`, an argument of a launch, with `tensor` for the tensor in it."""
    if index is not None:
        return type(value)(tensor if i == index else item for i, item in enumerate(value))
    if hasattr(value, "base"):  # a TensorDescriptor, a TensorWrapper
        value = copy.copy(value)
        value.base = tensor
        return value
    return tensor


def _follow(
    names: Sequence[str],
    arguments: tuple[Any, ...],
    options: dict[str, Any],
    launch: Callable[[], Any],
    guards: Guards,
    recorder: Recorder,
) -> Any:
    bound = {**dict(zip(names, arguments, strict=False)), **options}
    outputs = {output: tensor_of(bound, output) for output in recorder.outputs}
    outputs = {name: tensor for name, tensor in outputs.items() if tensor is not None}
    twins = [twin for twin in recorder.twins if twin.output in outputs]
    outputs |= {twin.parameter: tensor_of(bound, twin.parameter) for twin in twins if twin.followed}
    others = _other_tensors(bound, outputs)
    everything = [*outputs.values(), *others]
    saved = _Snapshot(everything)
    regions, shared = {}, False
    for name, tensor in outputs.items():
        rest = [t for t in everything if t is not tensor]
        regions[name] = _Region(tensor, rest, guards.window(tensor))
        if regions[name].overlaps:
            shared = True
            recorder.notes.append(f"`{name}` shares memory with another argument: it was not poisoned")
    left_out = (tensor_of(bound, name) for name in recorder.dropped)
    recorder.left_out |= {guards.origin(tensor) for tensor in left_out if tensor is not None}
    prior = {name: region.data.clone() for name, region in regions.items()}
    if shared or recorder.kept & outputs.keys():
        read_too = {name: region for name, region in regions.items() if name in recorder.kept}
        left = _unchanged_from_other_values(read_too, saved, launch) if read_too else {}
        guards.poison(0)
        result = launch()
        recorder.outside.writes += guards.overwritten(0)
        written = {name: _ones(region.data) for name, region in regions.items()}
        written |= {name: ~(left[name] & (bits(read_too[name].data) == bits(prior[name]))) for name in left}
    else:
        result, written = _poisoned_launch(regions, saved, prior, launch, guards, recorder)
    captures = []
    kept = [
        _twin_capture(twin, outputs[name], regions[name], written[name], prior[name])
        for twin in twins
        for name in [twin.parameter if twin.followed else twin.output]
    ]
    followed_twins = {twin.parameter for twin in twins if twin.followed}
    for name, region in regions.items():
        if name in followed_twins:
            continue
        before = region.data.clone()
        given: Mapping[str, Any] = {}
        after = None
        if name in recorder.ops:
            given = recorder.ops[name].given(outputs[name], bound)
            after = _with_op(recorder.ops[name], given, outputs[name], region)
            if after.dtype == before.dtype:  # else the buffer cannot hold it
                region.write(written[name], after)
        if after is None or after.dtype == before.dtype:
            after = region.data.clone()
        captures.append(
            Capture(
                output=name,
                dtype=str(after.dtype).removeprefix("torch."),
                shape=tuple(outputs[name].shape),
                before=before,
                after=after,
                written=written[name],
                prior=prior[name],
                inside=region.inside(),
                memory=guards.origin(outputs[name]),
                operands=partial(_operands_at, given, region),
                index_of=region.index_of,
            )
        )
    recorder.captures.append([*captures, *kept])
    return result


def _twin_capture(twin: Twin, tensor: Any, region: _Region, written: Any, prior: Any) -> Capture:
    """What the kernel has stored as it was before the op: the tensor's own elements, in its order."""
    import torch

    own = region.places().reshape(-1).to(written.device)
    data = region.data[own].clone()
    return Capture(
        output=twin.parameter,
        dtype=str(data.dtype).removeprefix("torch."),
        shape=tuple(tensor.shape),
        before=data,
        after=data,
        written=written[own],
        prior=prior[own],
        inside=_ones(data),
        memory=-1,
        operands=lambda positions: {},
        index_of=lambda position: tuple(int(i) for i in torch.unravel_index(torch.tensor(position), tensor.shape)),
    )


def _with_op(op: TorchOp, given: Mapping[str, Any], tensor: Any, region: _Region) -> Any:
    """What the region would hold with `op` of the output in the output's place."""
    after = op.apply(tensor.clone() if op.operands is not None else region.data, **given)
    if op.operands is None:
        return after
    if after.dtype != tensor.dtype:
        return region.placed(after)
    held = tensor.clone()
    tensor.copy_(after)
    changed = region.data.clone()
    tensor.copy_(held)
    return changed


def _operands_at(given: Mapping[str, Any], region: _Region, positions: Any) -> dict[str, Any]:
    """The values of operands at positions of the region's data; Python numbers as they are."""
    import torch

    where = region.own(positions)
    return {
        key: value.expand(region.tensor.shape).reshape(-1)[where] if isinstance(value, torch.Tensor) else value
        for key, value in given.items()
    }


def _unchanged_from_other_values(
    regions: dict[str, _Region], saved: _Snapshot, launch: Callable[[], Any]
) -> dict[str, Any]:
    """Which elements of buffers that a kernel changes in place it leaves what they are, when they hold other values. All is
    restored."""
    import torch

    drawn = {}
    for name, region in regions.items():
        random = torch.rand(region.data.shape, device=region.data.device)
        drawn[name] = (random + 0.25 if region.data.dtype.is_floating_point else random * 100).to(region.data.dtype)
        region.write(_ones(region.data), drawn[name])
    launch()
    left = {name: bits(region.data) == bits(drawn[name]) for name, region in regions.items()}
    saved.restore()
    return left


def _ones(tensor: Any) -> Any:
    import torch

    return torch.ones_like(tensor, dtype=torch.bool)


def _poisoned_launch(
    regions: dict[str, _Region],
    saved: _Snapshot,
    prior: dict[str, Any],
    launch: Callable[[], Any],
    guards: Guards,
    recorder: Recorder,
) -> tuple[Any, dict[str, Any]]:
    """Launches with poisoned outputs, gives unwritten elements back their prior value; (result, written masks)."""

    def attempt(which: int) -> tuple[Any, dict[str, Any]]:
        guards.poison(which)
        for region in regions.values():
            region.poison(which)
        result = launch()
        recorder.outside.writes += guards.overwritten(which)
        return result, {name: region.poisoned(which) for name, region in regions.items()}

    result, left = attempt(0)
    if recorder.repeats or any(bool(mask.any()) for mask in left.values()):
        first = {name: region.data.clone() for name, region in regions.items()}
        saved.restore()
        result, left_again = attempt(1)
        left = {name: mask & left_again[name] for name, mask in left.items()}
        if recorder.repeats and not _same_values(regions, first, left):
            saved.restore()
            result, _ = attempt(0)
            recorder.outside.reads += _same_values(regions, first, left)  # else no two runs are alike
    for name, region in regions.items():
        region.write(left[name], prior[name])
    return result, {name: ~mask for name, mask in left.items()}


def _same_values(regions: dict[str, _Region], others: dict[str, Any], left: dict[str, Any]) -> bool:
    """Whether the regions hold what `others` do, wherever something was written."""
    return all(bool((same_elements(region.data, others[name]) | left[name]).all()) for name, region in regions.items())


def tensor_of(bound: Mapping[str, Any], output: str) -> Any:
    """The tensor behind `out`, `outs[1]`, a descriptor or a reinterpreted tensor; None when the launch passes None."""
    parameter, _, index = output.partition("[")
    value = bound.get(parameter)
    if index:
        value = value[int(index.rstrip("]"))]  # type: ignore[index]
    found = _plain_tensor(value)
    if found is None and value is not None:
        raise CannotFollow(f"`{output}` is passed a {type(value).__name__}, not a tensor")
    return found


def _plain_tensor(value: Any) -> Any:
    import torch

    for _ in range(4):
        if isinstance(value, torch.Tensor):
            return value.detach()
        value = getattr(value, "base", None)  # a TensorDescriptor, a TensorWrapper
    return None


def _other_tensors(bound: dict[str, Any], outputs: dict[str, Any]) -> list[Any]:
    found = []
    for name, value in bound.items():
        values = value if isinstance(value, list | tuple) else [value]
        for position, item in enumerate(values):
            tensor = _plain_tensor(item)
            if tensor is None:
                continue
            if name in outputs or f"{name}[{position}]" in outputs:
                continue
            found.append(tensor)
    return found


def _address(tensor: Any) -> tuple[int, int]:
    start = tensor.data_ptr()
    if not tensor.numel():
        return start, start
    span = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True)) + 1
    return start, start + span * tensor.element_size()


class _Snapshot:
    """The contents of every storage that the tensors use."""

    def __init__(self, tensors: Sequence[Any]) -> None:
        storages = {t.untyped_storage().data_ptr(): t.untyped_storage() for t in tensors}
        self.saved = [(storage, storage.clone()) for storage in storages.values()]

    def restore(self) -> None:
        for storage, content in self.saved:
            storage.copy_(content)


class _Region:
    """The memory of an output: its whole storage when no other argument lives there, else the tensor itself."""

    def __init__(self, tensor: Any, others: Sequence[Any], window: tuple[int, int]) -> None:
        import torch

        first, size = window  # bytes of the storage that are the user's
        storage = tensor.untyped_storage()
        sharing = [t for t in others if t.untyped_storage().data_ptr() == storage.data_ptr() and storage.nbytes()]
        start, end = _address(tensor)
        self.overlaps = any(max(start, s) < min(end, e) for s, e in map(_address, sharing))
        self.tensor = tensor
        self.whole = not sharing and size % tensor.element_size() == 0
        if self.whole:
            start, count = first // tensor.element_size(), size // tensor.element_size()
            self.offset = tensor.storage_offset() - start
            self.memory = torch.empty(0, dtype=tensor.dtype, device=tensor.device).set_(storage, start, (count,), (1,))
        else:
            self.memory = tensor

    @property
    def data(self) -> Any:
        """The region's elements in a row (a copy when it is not the whole storage)."""
        return self.memory if self.whole else self.memory.reshape(-1)

    def inside(self) -> Any:
        """Which elements of `data` are the tensor's own."""
        import torch

        if not self.whole:
            return _ones(self.data)
        mask = torch.zeros_like(self.memory, dtype=torch.bool)
        mask.as_strided(self.tensor.shape, self.tensor.stride(), self.offset).fill_(True)
        return mask

    def write(self, where: Any, values: Any) -> None:
        import torch

        target = bits(self.memory)
        chosen = torch.where(where.reshape(target.shape), bits(values).reshape(target.shape), target)
        target.copy_(chosen)

    def _pattern(self, which: int) -> int:
        size = self.tensor.element_size()
        if size == 2:
            return _TWO_BYTE_POISONS.get(str(self.tensor.dtype), _TWO_BYTES)[which]
        return _POISONS[size][which]

    def poison(self, which: int) -> None:
        bits(self.memory).fill_(self._pattern(which))

    def poisoned(self, which: int) -> Any:
        return (bits(self.memory) == self._pattern(which)).reshape(-1)

    def placed(self, values: Any) -> Any:
        """`values`, which have the shape of the tensor and a type of their own, in a row as `data` is; 0 outside of it."""
        found = values.new_zeros(self.data.numel())
        bits(found)[self.places().reshape(-1).to(values.device)] = bits(values.contiguous()).reshape(-1)
        return found

    def own(self, positions: Any) -> Any:
        """The places in the output tensor, its elements in a row, of positions of `data`; 0 for one outside of it."""
        import torch

        places = self.places().reshape(-1)
        found = torch.zeros(self.data.numel(), dtype=torch.int64, device=positions.device)
        found[places.to(positions.device)] = torch.arange(len(places), device=positions.device)
        return found[positions]

    def index_of(self, position: int) -> tuple[int, ...]:
        """The index into the output tensor of the element at `position` of `data`; (position,) outside of it."""
        found = (self.places() == position).nonzero()
        return tuple(found[0].tolist()) if len(found) else (position,)

    def places(self) -> Any:
        """The position in `data` of each element of the output tensor, in its shape."""
        import torch

        if not self.whole:
            return torch.arange(self.tensor.numel()).reshape(self.tensor.shape)
        return torch.arange(self.memory.numel()).as_strided(self.tensor.shape, self.tensor.stride(), self.offset)
