"""Times several ways to do one thing on the device, in turns, so that clocks and heat treat them alike.

A variant is a function of the number of an input set. All its calls over the sets are captured into one CUDA graph, whose
replays are timed with device events: nothing of the host is in the number. The sets together are larger than the L2
cache, so a call finds nothing of the one before. What cannot be captured is timed call by call, the cache overwritten
before each.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

SECONDS = 2.0
"""How long the rounds over all variants take."""

LEAST_ROUNDS, MOST_ROUNDS = 10, 300
_WARM_SECONDS = 0.3
_MOST_SETS = 32
_TIMES_CACHE = 3  # how often the sets fill the L2 cache

Variant = Callable[[int], Any]


@dataclass(frozen=True, slots=True)
class Timing:
    """The time of one call in microseconds: the median over `rounds`, and the 20th and 80th percentiles.

    `method`: "graph" (device events around a CUDA graph of all input sets), "events" (device events around each call) or
    "wall" (the host's clock, in the interpreter: no measure of speed).
    """

    median: float
    low: float
    high: float
    rounds: int
    method: str


def input_sets(bytes_a_set: int) -> int:
    """How many sets of inputs and outputs of `bytes_a_set` bytes are larger than the L2 cache together; 1 without CUDA."""
    import torch

    if not torch.cuda.is_available():
        return 1
    cache = torch.cuda.get_device_properties(torch.cuda.current_device()).L2_cache_size
    return max(2, min(_MOST_SETS, -(-_TIMES_CACHE * cache // max(1, bytes_a_set))))


def measure(variants: Mapping[str, Variant], sets: int, *, seconds: float = SECONDS) -> dict[str, Timing | str]:
    """The time of each variant, or in one line why it has none. Rounds over all variants run for about `seconds`."""
    import torch

    found: dict[str, Timing | str] = {}
    prepared: dict[str, tuple[str, Callable[[], float]]] = {}
    for name, variant in variants.items():
        try:
            prepared[name] = _prepared(variant, sets) if torch.cuda.is_available() else ("wall", _wall(variant, sets))
        except Exception as error:
            found[name] = one_line(error)
    samples: dict[str, list[float]] = {name: [] for name in prepared}
    end = time.monotonic() + _WARM_SECONDS
    while torch.cuda.is_available() and prepared and time.monotonic() < end:
        for _, sample in prepared.values():
            sample()
    names, rounds, end = list(prepared), 0, time.monotonic() + seconds
    least = LEAST_ROUNDS if torch.cuda.is_available() else 1
    while names and (rounds < least or (time.monotonic() < end and rounds < MOST_ROUNDS)):
        for turn in range(len(names)):  # another one goes first in each round
            name = names[(turn + rounds) % len(names)]
            samples[name].append(prepared[name][1]())
        rounds += 1
    for name, (method, _) in prepared.items():
        ordered = sorted(samples[name])
        low, median, high = (ordered[int(part * (len(ordered) - 1))] for part in (0.2, 0.5, 0.8))
        found[name] = Timing(median, low, high, rounds, method)
    return {name: found[name] for name in variants}


def _prepared(variant: Variant, sets: int) -> tuple[str, Callable[[], float]]:
    """(method, one sample in microseconds a call) of a variant, which has then run at least twice."""
    import torch

    for _ in range(2):  # compiles, tunes, allocates
        for number in range(sets):
            variant(number)
    torch.cuda.synchronize()
    try:
        return "graph", _graph(variant, sets)
    except Exception:  # it waits for the device, or allocates outside of torch
        torch.cuda.synchronize()
        return "events", _events(variant, sets)


def _graph(variant: Variant, sets: int) -> Callable[[], float]:
    import torch

    graph, kept = torch.cuda.CUDAGraph(), []
    with torch.cuda.graph(graph):
        for number in range(sets):
            kept.append(variant(number))  # so that each set has outputs of its own
    event: Any = torch.cuda.Event
    start, end = event(enable_timing=True), event(enable_timing=True)

    def sample() -> float:
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end)) * 1000 / len(kept)

    return sample


def _events(variant: Variant, sets: int) -> Callable[[], float]:
    import torch

    size = torch.cuda.get_device_properties(torch.cuda.current_device()).L2_cache_size
    flushed = torch.empty(_TIMES_CACHE * size, dtype=torch.int8, device="cuda")
    event: Any = torch.cuda.Event
    start, end = event(enable_timing=True), event(enable_timing=True)

    def sample() -> float:
        total = 0.0
        for number in range(sets):
            flushed.zero_()
            start.record()
            variant(number)
            end.record()
            end.synchronize()
            total += start.elapsed_time(end)
        return total * 1000 / sets

    return sample


def _wall(variant: Variant, sets: int) -> Callable[[], float]:
    variant(0)

    def sample() -> float:
        started = time.perf_counter()
        for number in range(sets):
            variant(number)
        return (time.perf_counter() - started) * 1e6 / sets

    return sample


def copy_bandwidth(gigabytes: float = 2.0) -> float:
    """Bytes a second that a device-to-device copy of that size moves, counting reads and writes."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    count = int(gigabytes * 1e9) // 8 if device == "cuda" else 1 << 20
    source = torch.empty(count, dtype=torch.int32, device=device).random_()
    target = torch.empty_like(source)

    def copy(number: int) -> Any:
        target.copy_(source)

    copied = measure({"copy": copy}, 1, seconds=0.5)["copy"]
    assert isinstance(copied, Timing), copied
    return 2 * source.numel() * source.element_size() / (copied.median * 1e-6)


def one_line(error: BaseException) -> str:
    """The error's type and its first line."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
