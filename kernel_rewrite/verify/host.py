"""Stands in for the GPU's host side, so that launchers written for CUDA run in the interpreter on the CPU, and fixes
which configuration an autotuner takes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

MULTIPROCESSORS = 4
"""What a launcher of persistent kernels is told; few, as the interpreter runs programs one by one."""


# ------------------------------------------------------------------------------------------------------ configurations


@dataclass
class Configurations:
    """Which configuration every autotuner takes (`index`, modulo their number), and what was seen."""

    index: int = 0
    most: int = 1
    taken: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@contextlib.contextmanager
def fixed_configuration(choice: Configurations) -> Iterator[None]:
    """Inside, `triton.autotune` does not benchmark: it launches with configuration `choice.index`."""
    from triton.runtime.autotuner import Autotuner

    def run(self: Any, *arguments: Any, **options: Any) -> Any:
        self.nargs = dict(zip(self.arg_names, arguments, strict=False))
        configurations = _pruned(self, options, choice)
        choice.most = max(choice.most, len(configurations))
        config = configurations[choice.index % len(configurations)]
        choice.taken.append(str(config))
        self.best_config = config
        everything = {**self.nargs, **options, **config.all_kwargs()}
        if len(self.configs) > 1:
            self.pre_hook(everything, reset_only=True)
        if config.pre_hook is not None:
            config.pre_hook(everything)
        result = self.fn.run(*arguments, **options, **config.all_kwargs())
        self.nargs = None
        return result

    original = Autotuner.run
    Autotuner.run = run
    try:
        yield
    finally:
        Autotuner.run = original


def _pruned(autotuner: Any, options: dict[str, Any], choice: Configurations) -> list[Any]:
    try:
        return list(autotuner.prune_configs(options)) or autotuner.configs
    except Exception as error:
        choice.notes.append(f"the autotuner's pruning failed ({_words(error)}): every configuration was taken")
        return list(autotuner.configs)


def _words(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__


@contextlib.contextmanager
def no_benchmarks() -> Iterator[None]:
    """Inside, `triton.testing` measures nothing: a module that benchmarks on import still loads."""
    import triton.testing

    places: list[tuple[Any, str, Any]] = [
        (triton.testing.Mark, "run", lambda self, *arguments, **options: None),
        (triton.testing, "do_bench", lambda *arguments, **options: 1.0),
        (triton.testing, "do_bench_cudagraph", lambda *arguments, **options: 1.0),
    ]
    with _replaced(places):
        yield


@contextlib.contextmanager
def _replaced(places: list[tuple[Any, str, Any]]) -> Iterator[None]:
    previous = [(place, name, place.__dict__.get(name, _ABSENT)) for place, name, _ in places]
    for place, name, value in places:
        setattr(place, name, value)
    try:
        yield
    finally:
        for place, name, value in reversed(previous):
            if value is _ABSENT:
                delattr(place, name)
            else:
                setattr(place, name, value)


_ABSENT = object()


# ------------------------------------------------------------------------------------------------------- a CPU for CUDA


@contextlib.contextmanager
def cpu_for_cuda(notes: list[str]) -> Iterator[None]:
    """Inside, `device="cuda"` is the CPU, `.is_cuda` is true, and `torch.cuda` and Triton's driver answer for a
    small GPU of compute capability 9.0."""
    import torch

    cuda: dict[str, Callable[..., Any]] = {
        "current_device": lambda: 0,
        "device_count": lambda: 1,
        "synchronize": lambda *a, **k: None,
        "empty_cache": lambda: None,
        "set_device": lambda *a, **k: None,
        "device": lambda *a, **k: contextlib.nullcontext(),
        "device_of": lambda *a, **k: contextlib.nullcontext(),
        "stream": lambda *a, **k: contextlib.nullcontext(),
        "current_stream": lambda *a, **k: SimpleNamespace(cuda_stream=0, synchronize=lambda: None),
        "get_device_capability": lambda *a, **k: (9, 0),
        "get_device_name": lambda *a, **k: "Triton interpreter",
        "get_device_properties": lambda *a, **k: _PROPERTIES,
        "is_bf16_supported": lambda *a, **k: True,
    }
    places: list[tuple[Any, str, Any]] = [
        (torch.cuda, name, _noted(function, f"torch.cuda.{name} is stood in for", notes))
        for name, function in cuda.items()
        if hasattr(torch.cuda, name)
    ]
    places.append((torch.Tensor, "is_cuda", property(lambda tensor: True)))
    places += _driver()
    with _replaced(places), _device_mode(notes):
        yield


_PROPERTIES = SimpleNamespace(
    name="Triton interpreter",
    major=9,
    minor=0,
    multi_processor_count=MULTIPROCESSORS,
    total_memory=2**34,
    shared_memory_per_block_optin=232448,
    max_threads_per_multi_processor=2048,
    regs_per_multiprocessor=65536,
    warp_size=32,
)


def _noted(function: Callable[..., Any], note: str, notes: list[str]) -> Callable[..., Any]:
    def stand_in(*arguments: Any, **options: Any) -> Any:
        if note not in notes:
            notes.append(note)
        return function(*arguments, **options)

    return stand_in


def _driver() -> list[tuple[Any, str, Any]]:
    import torch
    import triton
    from triton.backends.compiler import GPUTarget

    properties = {
        "multiprocessor_count": MULTIPROCESSORS,
        "max_shared_mem": 232448,
        "max_num_regs": 65536,
        "warpSize": 32,
        "sm_clock_rate": 1_000_000,
        "mem_clock_rate": 1_000_000,
        "mem_bus_width": 1024,
    }
    stand_in = SimpleNamespace(
        get_current_device=lambda: 0,
        get_current_stream=lambda *a: 0,
        set_current_device=lambda *a: None,
        get_active_torch_device=lambda: torch.device("cpu"),
        get_current_target=lambda: GPUTarget("cuda", 90, 32),
        get_device_interface=lambda: torch.cuda,
        get_device_capability=lambda *a: (9, 0),
        get_benchmarker=lambda: lambda *a, **k: [1.0, 1.0, 1.0],
        get_empty_cache_for_benchmark=lambda: torch.empty(1),
        clear_cache=lambda cache: None,
        utils=SimpleNamespace(get_device_properties=lambda *a: properties),
    )
    return [(triton.runtime.driver, "_active", stand_in)]


def _device_mode(notes: list[str]) -> Any:
    """A torch function mode under which every CUDA device is the CPU."""
    import torch
    from torch.overrides import TorchFunctionMode

    def on_cpu(value: Any) -> Any:
        named = isinstance(value, str) and value.split(":")[0] == "cuda"
        if named or (isinstance(value, torch.device) and value.type == "cuda"):
            note = 'device="cuda" is the CPU'
            if note not in notes:
                notes.append(note)
            return torch.device("cpu")
        return value

    class CpuForCuda(TorchFunctionMode):
        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if function is torch.Tensor.cuda:
                return args[0]
            options = {name: on_cpu(value) if name == "device" else value for name, value in (kwargs or {}).items()}
            options.pop("pin_memory", None)
            if function is torch.Tensor.to:
                args = (args[0], *(on_cpu(value) for value in args[1:]))
            return function(*args, **options)

    return CpuForCuda()
