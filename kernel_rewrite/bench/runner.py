"""The process that times the user's code: a request as JSON on standard input, the answer as JSON on standard output.
`python -m kernel_rewrite.bench.runner`."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from kernel_rewrite.bench.timing import Timing, copy_bandwidth, input_sets, measure, one_line
from kernel_rewrite.pointwise.language import Pointwise
from kernel_rewrite.verify.called import CalledOp
from kernel_rewrite.verify.calls import Inputs, names_of
from kernel_rewrite.verify.launches import is_kernel, tensor_of
from kernel_rewrite.verify.modules import load, make_interpretable
from kernel_rewrite.verify.operands import shaped
from kernel_rewrite.verify.rests import Rest
from kernel_rewrite.verify.runner import (
    Session,
    choose_judge,
    declared_in,
    device_words,
    kept_in,
    prepare,
    stored_in,
    whole_of,
)


def main() -> None:
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what the user's code prints must not mix with the answer
    request = json.loads(sys.stdin.read())
    try:
        answer = _answer(request)
    except Exception as error:
        answer = {"failure": one_line(error)}
    out.write(json.dumps(answer))
    out.flush()
    os._exit(0)


def _answer(request: Mapping[str, Any]) -> dict[str, Any]:
    judge = choose_judge(request["judge"])
    if judge == "none":
        return {"failure": "torch is not installed for this Python"}
    if judge == "no cuda" or (judge == "interpreter" and request["judge"] == "auto"):
        return {"failure": "there is no CUDA device"}
    session = Session(request, sys.stderr, judge, 0.0)
    with contextlib.ExitStack() as stack:
        session.folder = stack.enter_context(tempfile.TemporaryDirectory())
        if judge == "interpreter":
            from kernel_rewrite.verify.host import Configurations, fixed_configuration

            prepare(session, stack)
            stack.enter_context(fixed_configuration(Configurations()))
        original, fused = load(request["original"]), load(request["fused"])
        session.original = original
        if judge == "interpreter":
            make_interpretable()
        bandwidth = copy_bandwidth()
        rows = [_row(session, call, original, fused, request["seconds"]) for call in request["calls"]]
    return {"device": device_words(judge), "bandwidth": bandwidth, "rows": rows}


@dataclass(frozen=True)
class Call:
    """A call expression, taken apart: the launcher and its arguments, drawn anew for each set."""

    function: Callable[..., Any]
    arguments: list[Any]
    options: dict[str, Any]

    def __call__(self) -> Any:
        return self.function(*self.arguments, **self.options)

    def without(self, names: Container[str]) -> tuple[Call, dict[str, Any]]:
        """The call without the options `names`, and these."""
        kept = {name: value for name, value in self.options.items() if name not in names}
        taken = {name: value for name, value in self.options.items() if name in names}
        return Call(self.function, self.arguments, kept), taken


def drawn(text: str, module: Any, device: str, seed: int) -> Call:
    """The launcher that `text` calls and arguments drawn with `seed`. Raises ValueError when it is no call."""
    import torch

    tree = ast.parse(text.strip(), mode="eval").body
    if not isinstance(tree, ast.Call):
        raise ValueError(f"`{text.strip()}` is not a call of a launcher")
    torch.manual_seed(seed)
    names = names_of(module, device, Inputs(""), seed)

    def value(node: ast.expr) -> Any:
        return eval(compile(ast.Expression(node), "<call>", "eval"), names)

    arguments: list[Any] = []
    for argument in tree.args:
        if isinstance(argument, ast.Starred):
            arguments += value(argument.value)
        else:
            arguments.append(value(argument))
    options: dict[str, Any] = {}
    for keyword in tree.keywords:
        options |= {keyword.arg: value(keyword.value)} if keyword.arg else value(keyword.value)
    return Call(value(tree.func), arguments, options)


def _row(session: Session, text: str, original: Any, fused: Any, seconds: float) -> dict[str, Any]:
    request = session.request
    kernel, epilogues = request["kernel"], request["epilogues"]
    ops = {output: whole_of(session, output, op) for output, op in epilogues}
    operands = {name for name, operand in declared_in(session).items() if not operand.is_stored} | kept_in(
        session
    ).keys()
    seen: list[dict[str, Any]] = []
    with _after_each_launch(kernel, request["fused"], seen.append):
        drawn(text, fused, session.device, 0)()
    if not seen:
        raise ValueError(f"`{text.strip()}` does not launch `{kernel}`")
    moved = _bytes(seen)
    sets = input_sets(moved)
    ours = [drawn(text, fused, session.device, seed) for seed in range(sets)]
    taken = [drawn(text, original, session.device, seed).without(operands) for seed in range(sets)]
    plain, values = [call for call, _ in taken], [value for _, value in taken]

    def pair(number: int) -> Any:
        results: list[Any] = []

        def apply(bound: dict[str, Any]) -> None:
            found = ((op, tensor_of(bound, output)) for output, op in ops.items())
            results.extend(
                op.evaluate(tensor, **shaped(op.operands, values[number] | stored_in(op.operands, bound), tensor))
                for op, tensor in found
                if tensor is not None
            )

        with _after_each_launch(kernel, request["original"], apply):
            return plain[number](), results

    variants: dict[str, Callable[[int], Any]] = {
        "fused": lambda number: ours[number](),
        "kernel": lambda number: plain[number](),
        "pair": pair,
    }
    notes: list[str] = []
    if session.judge == "cuda":
        variants |= _compiled(plain, values, ops, kernel, request["original"], notes)
    found = measure(variants, sets, seconds=seconds)
    notes += [f"{name}: {time}" for name, time in found.items() if isinstance(time, str)]
    times = {name: asdict(time) for name, time in found.items() if isinstance(time, Timing)}
    return {"call": text.strip(), "bytes": moved, "sets": sets, "times": times, "notes": notes}


def _compiled(
    plain: list[Call],
    values: list[dict[str, Any]],
    ops: Mapping[str, Pointwise | CalledOp | Rest],
    kernel: str,
    path: str,
    notes: list[str],
) -> dict[str, Callable[[int], Any]]:
    """torch.compile of the pair; nothing, with a note, where what the launcher returns is not the one output."""
    import torch

    seen: list[dict[str, Any]] = []
    with _after_each_launch(kernel, path, seen.append):
        value = plain[0]()
    outputs = [tensor_of(bound, output) for bound in seen for output in ops]
    if len(outputs) != 1 or not isinstance(value, torch.Tensor) or value.data_ptr() != outputs[0].data_ptr():
        notes.append("compile: the launcher returns something else than the output")
        return {}
    launcher, (op,) = plain[0].function, ops.values()
    if isinstance(op, CalledOp):
        notes.append(f"compile: `{op.call.function}` is a Triton function, and no torch op")
        return {}

    if any(operand.is_stored for operand in op.operands):
        notes.append("compile: the op takes what the kernel stores to another output")
        return {}

    given = [shaped(op.operands, value, outputs[0]) for value in values]

    def whole(arguments: Any, options: Any, operands: Any) -> Any:
        return op.evaluate(launcher(*arguments, **options), **operands)

    found: dict[str, Callable[[int], Any]] = {}
    option = "epilogue_fusion_user_defined_triton_kernel"
    ways: list[tuple[str, Any]] = [("compile", None), ("compile, fusing", {option: True})]
    for name, options in ways:
        if options and not hasattr(torch._inductor.config, option):
            continue
        function = torch.compile(whole, dynamic=False, fullgraph=True, options=options)
        found[name] = _with_arguments(function, plain, given)
    return found


def _with_arguments(
    function: Callable[..., Any], calls: list[Call], given: list[dict[str, Any]]
) -> Callable[[int], Any]:
    return lambda number: function(calls[number].arguments, calls[number].options, given[number])


def _bytes(launches: list[dict[str, Any]]) -> int:
    """What the launches must move at least: each tensor once, read or written."""
    tensors = {}
    for bound in launches:
        for value in bound.values():
            with contextlib.suppress(Exception):
                tensor = tensor_of({"value": value}, "value")
                if tensor is not None:
                    tensors[tensor.data_ptr(), tensor.numel()] = tensor.numel() * tensor.element_size()
    return sum(tensors.values())


@contextlib.contextmanager
def _after_each_launch(kernel: str, path: str, tell: Callable[[dict[str, Any]], Any]) -> Iterator[None]:
    """Inside, `tell` gets the arguments by name after each launch of the jit function `kernel` that `path` defines."""
    from triton.runtime.interpreter import GridExecutor
    from triton.runtime.jit import JITFunction

    def told(launch: Callable[..., Any]) -> Callable[..., Any]:
        def launch_and_tell(self: Any, *arguments: Any, **options: Any) -> Any:
            result = launch(self, *arguments, **options)
            if not options.get("warmup") and is_kernel(self.fn, kernel, path):
                tell({**dict(zip(self.arg_names, arguments, strict=False)), **options})
            return result

        return launch_and_tell

    previous = GridExecutor.__call__, JITFunction.run
    GridExecutor.__call__, JITFunction.run = map(told, previous)
    try:
        yield
    finally:
        GridExecutor.__call__, JITFunction.run = previous


if __name__ == "__main__":
    main()
