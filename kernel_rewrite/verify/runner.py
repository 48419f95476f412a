"""The process that executes the user's code: a request as JSON on standard input, events as JSON lines on standard
output. `python -m kernel_rewrite.verify.runner`."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TextIO

from kernel_rewrite.verify.called import CalledOp
from kernel_rewrite.verify.calls import Inputs, applicable, evaluate, sized_call, trial_inputs
from kernel_rewrite.verify.operands import HANDED, Operands, shaped
from kernel_rewrite.verify.results import UNCHANGED

if TYPE_CHECKING:
    from kernel_rewrite.model import Operand
    from kernel_rewrite.pointwise.language import Pointwise
    from kernel_rewrite.verify.guards import Outside
    from kernel_rewrite.verify.host import Configurations
    from kernel_rewrite.verify.launches import Capture, TorchOp, Twin
    from kernel_rewrite.verify.rests import Applied, Rest

MOST_CONFIGURATIONS = 8
"""Of an autotuner, with each set of inputs but the first, which runs all of them."""

FULLY_WRITTEN = "fully-written"  # the assumption's name in a header


class Refused(Exception):
    """The run cannot be made."""

    def __init__(self, message: str, notes: Sequence[str] = (), help: str = "") -> None:
        super().__init__(message)
        self.message, self.notes, self.help = message, list(notes), help


@dataclass
class Session:
    """The request, both modules, and where events go."""

    request: Mapping[str, Any]
    out: TextIO
    judge: str
    started: float
    original: Any = None
    fused: Any = None
    notes: list[str] = field(default_factory=list)
    trace: list[str] = field(default_factory=list)  # where in the user's file the last call failed
    tiles: set[int] = field(default_factory=set)  # integers that the kernel was compiled with
    tried: int = 0  # sets of inputs
    operands: dict[str, Any] = field(default_factory=dict)  # what the call gave for them
    folder: str = ""  # of kernels that are made here
    beside: dict[str, Any] = field(default_factory=dict)  # the modules of kernels that are inlined, by path

    @functools.cached_property
    def launchers(self) -> tuple[str, ...]:
        """The functions of the original that launch the kernel."""
        from kernel_rewrite.verify.rests import launchers_of

        return launchers_of(self.request["original"], self.request["kernel"])

    def say(self, event: str, **fields: Any) -> None:
        self.out.write(json.dumps({"event": event, **fields}) + "\n")
        self.out.flush()

    @property
    def device(self) -> str:
        return "cuda" if self.judge == "cuda" else "cpu"

    @property
    def late(self) -> bool:
        return time.monotonic() - self.started > float(self.request["soft_limit"])


def main() -> None:
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what the user's code prints must not mix with the events
    request = json.loads(sys.stdin.read())
    started = time.monotonic()
    session = Session(request, out, choose_judge(request["judge"]), started)
    try:
        _run(session)
    except Refused as refused:
        session.say("refused", message=refused.message, notes=refused.notes, help=refused.help)
    except Exception as error:  # what the user's code raises was caught where it runs: this is a bug of ours
        session.say("broken", message=words(error), trace=traceback.format_exc())
    for note in dict.fromkeys(session.notes):
        session.say("note", text=note)
    session.say("finished")
    out.flush()
    os._exit(0)  # nothing of the user's may hold the process back


def choose_judge(wanted: str) -> str:
    try:
        import torch
    except ImportError:
        return "none"
    available = torch.cuda.is_available() and torch.version.hip is None
    judge = ("cuda" if available else "interpreter") if wanted == "auto" else wanted
    if judge == "cuda" and not available:
        return "no cuda"
    os.environ["TRITON_INTERPRET"] = "1" if judge == "interpreter" else "0"
    return judge


def _run(session: Session) -> None:
    if session.judge == "none":
        help = "install it, or `pip install 'kernel-rewrite[verify]'`"
        raise Refused("torch is not installed for this Python", [sys.executable], help)
    if session.judge == "no cuda":
        raise Refused("there is no CUDA device", help="leave `--judge` out to run in Triton's interpreter")
    session.say("judge", judge=session.judge, device=device_words(session.judge))
    with contextlib.ExitStack() as stack:
        prepare(session, stack)
        session.original = _load(session, session.request["original"])
        session.fused = _load(session, session.request["fused"])
        if session.judge == "interpreter":
            from kernel_rewrite.verify.modules import make_interpretable

            session.notes += make_interpretable()
        for call in session.request["calls"]:
            _run_call(session, call)


def device_words(judge: str) -> str:
    import torch
    import triton

    versions = f"triton {triton.__version__}, torch {torch.__version__}"
    if judge == "cuda":
        return f"on {torch.cuda.get_device_name()} ({versions})"
    return f"in Triton's interpreter ({versions}, CPU)"


def prepare(session: Session, stack: contextlib.ExitStack) -> None:
    import torch

    from kernel_rewrite.verify.host import cpu_for_cuda, no_benchmarks

    # torch.empty gives NaN (the largest integer) everywhere: both files see the same, and reading it shows.
    torch.set_deterministic_debug_mode("warn")
    stack.enter_context(no_benchmarks())
    session.folder = stack.enter_context(tempfile.TemporaryDirectory())
    if session.judge != "interpreter":
        return
    from kernel_rewrite.pointwise.interpreter import stand_ins
    from kernel_rewrite.verify.bounds import checked_memory
    from kernel_rewrite.verify.modules import understood_annotations

    stack.enter_context(understood_annotations())
    stack.enter_context(stand_ins())
    stack.enter_context(cpu_for_cuda(session.notes))
    stack.enter_context(checked_memory(session.notes))


def _load(session: Session, path: str) -> Any:
    from kernel_rewrite.verify.modules import load

    try:
        return load(path)
    except BaseException as error:
        raise Refused(f"importing {os.path.basename(path)} failed: {words(error)}", _where(error, path)) from None


# ---------------------------------------------------------------------------------------------------------------- calls


def _run_call(session: Session, call: str) -> None:
    try:
        compile(call.strip(), "<call>", "eval")
    except (SyntaxError, ValueError) as error:
        raise Refused(f"`{call}` is not an expression: {error}") from None
    count, seed = int(session.request["trials"]), int(session.request["seed"])
    session.tiles = set()
    for number, inputs in enumerate(trial_inputs(count, seed)):
        session.say("progress", done=session.tried, of=count * len(session.request["calls"]), inputs=inputs.name)
        session.tried += 1
        sized = sized_call(call, inputs, session.tiles) if applicable(call, inputs) else None
        if sized is None or [sized.strip(), inputs.name] in session.request["done"]:
            continue
        if session.late and number:
            session.notes.append(f"{number} of {count} sets of inputs ran before the time limit")
            return
        ran = _run_configurations(session, sized, inputs, seed + number, required=number == 0)
        other = inputs.otherwise
        if not ran and other is not None:
            again = sized_call(call, other, session.tiles) or call
            _run_configurations(session, again, other, seed + number, required=False)


def _run_configurations(session: Session, call: str, inputs: Inputs, seed: int, *, required: bool) -> bool:
    """Whether the call could be compared: with every configuration of the autotuner when `required`, else with up to
    MOST_CONFIGURATIONS."""
    from kernel_rewrite.verify.host import Configurations, fixed_configuration

    choice = Configurations()
    skipped = []
    while choice.index < (choice.most if required else min(choice.most, MOST_CONFIGURATIONS)):
        choice.taken.clear()
        with fixed_configuration(choice):
            trial = _run_trial(session, call, inputs, seed, choice)
        skipped.append(trial.get("skipped", ""))
        choice.index += 1
        if session.late:
            break
    session.notes += choice.notes
    if required and all(skipped):
        raise Refused(f"`{call.strip()}` {skipped[0]}", session.trace)
    if required and choice.index < choice.most:
        session.notes.append(f"{choice.index} of {choice.most} autotune configurations ran before the time limit")
    return not all(skipped)


def _run_trial(session: Session, call: str, inputs: Inputs, seed: int, choice: Configurations) -> dict[str, Any]:
    number = str(choice.index + 1) if choice.index else ""
    base = {"call": call.strip(), "inputs": inputs.name, "seed": seed, "configuration": number}
    session.say("start", **base, side="original")
    expected = _evaluate(session, session.original, session.request["original"], call, inputs, seed)
    session.say("start", **base, side="fused")
    got = _evaluate(session, session.fused, session.request["fused"], call, inputs, seed, expected)

    def again() -> Evaluation:
        return _evaluate(session, session.original, session.request["original"], call, inputs, seed, replayed=got)

    trial = {
        **_judged(session, base, expected, got, choice.most > 1, again),
        "autotune": "; ".join(dict.fromkeys(choice.taken)),
    }
    session.say("trial", **trial)
    return trial


@dataclass
class Evaluation:
    """What one file did with one call."""

    launches: list[Any] = field(default_factory=list)
    value: Any = None
    error: str = ""
    trace: list[str] = field(default_factory=list)
    cannot: bool = False
    outside: Outside | None = None
    left_out: set[int] = field(default_factory=set)  # memory of what the fused file does not have


def _evaluate(
    session: Session,
    module: Any,
    path: str,
    call: str,
    inputs: Inputs,
    seed: int,
    original: Evaluation | None = None,
    replayed: Evaluation | None = None,
) -> Evaluation:
    """What the original does with the op behind its launches; with `original`, what that did, what the fused file does. With
    `replayed`, what the fused file did, its outputs stand in the place of those of the op."""
    from kernel_rewrite.verify.guards import SEEN
    from kernel_rewrite.verify.launches import CannotFollow, Recorder, followed
    from kernel_rewrite.verify.rests import applied_behind

    with_op = original is None
    ops = {output: _op(session, text) for output, text in session.request["epilogues"]} if with_op else {}
    rests = _rests(session, ops) if with_op else {}
    if replayed is not None:
        ops = {output: _replay(output, replayed) for output in ops}
    inputs_ops = {name: _op(session, text) for name, text in session.request["prologues"]} if with_op else {}
    declared = {name: operand for name, operand in declared_in(session).items() if not operand.is_stored}
    given = Operands(declared | kept_in(session), dense=bool(inputs.layout))
    outputs = [output for output, _ in session.request["outputs"]]
    kept = frozenset(output for output, only_written in session.request["outputs"] if not only_written)
    recorder = Recorder(outputs, ops, session.judge == "cuda", inputs_ops, kept, _twins(session, original))
    recorder.dropped = tuple(session.request.get("dropped", ()))
    result = Evaluation()
    SEEN.reads = SEEN.writes = 0
    try:
        with (
            followed(session.request["kernel"], path, recorder),
            applied_behind(module, session.launchers if rests else (), recorder.captures, rests),
        ):
            session.operands = given.values
            hand = given.withhold if with_op else given.hand_on
            result.value = evaluate(given.handed(call), module, session.device, inputs, seed, {HANDED: hand})
        if session.judge == "cuda":
            import torch

            torch.cuda.synchronize()
    except CannotFollow as reason:
        result.error, result.cannot = str(reason), True
    except Exception as error:
        result.error, result.trace = words(error), _where(error, path)
    session.notes += recorder.notes
    session.tiles |= recorder.constants
    recorder.outside.reads += SEEN.reads
    recorder.outside.writes += SEEN.writes
    result.outside = recorder.outside
    result.launches, result.left_out = recorder.captures, recorder.left_out
    return result


def _twins(session: Session, original: Evaluation | None) -> tuple[Twin, ...]:
    """The buffers that the fused file keeps original values in."""
    from kernel_rewrite.verify.launches import Twin

    captures = [capture for launch in original.launches for capture in launch] if original is not None else []
    types = {capture.output: capture.before.dtype for capture in captures}
    return tuple(
        Twin(output, parameter, types.get(output), followed=original is not None)
        for output, parameter in session.request.get("kept", ())
    )


def _op(session: Session, text: str) -> TorchOp:
    """The torch op, in place of the epilogue `text`."""
    from kernel_rewrite.source.launch_options import ARITHMETIC_OPTIONS
    from kernel_rewrite.verify.compare import bits, zeros_as_on_cuda
    from kernel_rewrite.verify.launches import TorchOp

    pointwise = pointwise_of(session, text)
    if pointwise.operands or isinstance(pointwise, CalledOp):
        options: dict[str, Any] = {}  # those of the launch at hand

        def given(tensor: Any, bound: Mapping[str, Any]) -> dict[str, Any]:
            reason = pointwise.undefined_reason(str(tensor.dtype).removeprefix("torch."))
            if reason:  # a type that the fused file is not for
                raise ValueError(reason)
            options.clear()
            options.update((name, bound[name]) for name in ARITHMETIC_OPTIONS if name in bound)
            return shaped(pointwise.operands, session.operands | stored_in(pointwise.operands, bound), tensor)

        if isinstance(pointwise, CalledOp):
            return TorchOp(lambda x, **operands: pointwise.evaluate(x, options, **operands), given)
        return TorchOp(pointwise.evaluate, given)

    def on_cpu(value: Any) -> Any:
        result = pointwise.evaluate(value)
        defined = zeros_as_on_cuda(pointwise, value, result)
        if bool((bits(result) != bits(defined)).any()):
            session.notes.append(
                f"torch's CPU {text} gives the other zero for a zero than a GPU: the GPU's was expected"
            )
        return defined

    return TorchOp(on_cpu if session.judge == "interpreter" else pointwise.evaluate)


def _rests(session: Session, ops: Mapping[str, TorchOp]) -> dict[str, Applied]:
    """What torch makes of each returned output whose epilogue has a rest."""
    from kernel_rewrite.verify.rests import rest_of

    def applied(text: str, op: TorchOp) -> Applied:
        rest = rest_of(text, declared_in(session))
        assert rest is not None

        def behind(capture: Capture, tensor: Any) -> Any:
            if capture.dtype != str(tensor.dtype).removeprefix("torch."):  # the output cannot hold what the op gives
                tensor = op.apply(tensor, **op.given(tensor, {}))
            values = {o.name: session.operands[o.name] for o in rest.remainder.operands if o.name in session.operands}
            missing = [o.name for o in rest.remainder.operands if o.name not in values]
            if missing:
                raise ValueError(f"the call does not pass `{missing[0]}`")
            return rest.remainder.evaluate(tensor, **values)

        return behind

    return {output: applied(text, ops[output]) for output, text in session.request.get("rests", ())}


def _replay(output: str, evaluation: Evaluation) -> TorchOp:
    """In the place of an op, what another evaluation has left in the output, launch by launch."""
    from kernel_rewrite.verify.launches import CannotFollow, TorchOp

    left = iter([capture.after for launch in evaluation.launches for capture in launch if capture.output == output])

    def next_of(data: Any) -> Any:
        found = next(left, None)
        if found is None or found.dtype != data.dtype or found.shape != data.shape:
            raise CannotFollow(f"`{output}` is another tensor in the fused file")
        return found.clone()

    return TorchOp(next_of)


def whole_of(session: Session, output: str, text: str) -> Pointwise | CalledOp | Rest:
    """The op `text` for `output`, with the rest of the epilogue that it is of."""
    from kernel_rewrite.verify.rests import rest_of

    whole = dict(session.request.get("rests", ())).get(output)
    rest = rest_of(whole, declared_in(session)) if whole is not None else None
    return rest if rest is not None else pointwise_of(session, text)


def pointwise_of(session: Session, text: str) -> Pointwise | CalledOp:
    """The op `text`, with the operands that the fused file declares."""
    from kernel_rewrite.arguments import names_a_kernel
    from kernel_rewrite.pointwise.declarations import used_in
    from kernel_rewrite.pointwise.language import Input, Pointwise, called_name, parse_call, parse_epilogue

    if text == UNCHANGED:
        return Pointwise(Input())
    if names_a_kernel(text):
        return _inlined_kernel(session, text)
    operands = used_in(text, declared_in(session))
    if called_name(text) is not None:
        return CalledOp(parse_call(text, operands), session.original, session.folder)
    return parse_epilogue(text, operands)


def _inlined_kernel(session: Session, text: str) -> CalledOp:
    """What the kernel that `text` names computes of single elements, as a function beside that kernel."""
    from kernel_rewrite.arguments import with_paths
    from kernel_rewrite.epilogue_kernels import read_epilogue_kernel
    from kernel_rewrite.source.files import Project
    from kernel_rewrite.verify.called import module_of_inlined

    folder = os.path.dirname(session.request["fused"])
    here = with_paths(text, lambda path: os.path.normpath(os.path.join(folder, path)))
    call = read_epilogue_kernel(here, declared_in(session), Project())
    assert call.inlined is not None
    if call.inlined.path not in session.beside:
        session.beside[call.inlined.path] = _load(session, call.inlined.path)
    return CalledOp(call, module_of_inlined(call, session.beside[call.inlined.path], session.folder), session.folder)


def declared_in(session: Session) -> dict[str, Operand]:
    """The operands that the fused file declares, by name."""
    from kernel_rewrite.pointwise.declarations import declared_operands

    return declared_operands(session.request.get("operands", ()))


def stored_in(operands: Iterable[Operand], bound: Mapping[str, Any]) -> dict[str, Any]:
    """What a launch of the original has left in the outputs that an op takes too."""
    from kernel_rewrite.verify.launches import tensor_of

    return {o.name: tensor_of(bound, o.name).clone() for o in operands if o.is_stored}


def kept_in(session: Session) -> dict[str, Operand]:
    """What a call passes for the buffers that keep original values, by each name it may have there."""
    from kernel_rewrite.model import Operand, OperandKind
    from kernel_rewrite.request import passed_as

    names = [name for _, parameter in session.request.get("kept", ()) for name in (parameter, passed_as(parameter))]
    return {name: Operand(name, OperandKind.TILE) for name in names}


def words(error: BaseException) -> str:
    """The error as one line."""
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__


def _where(error: BaseException, path: str) -> list[str]:
    """The innermost lines of the user's file that the error went through."""
    frames = [
        f"{os.path.basename(frame.filename)}:{frame.lineno}: {frame.line}"
        for frame in traceback.extract_tb(error.__traceback__)
        if os.path.realpath(frame.filename) == os.path.realpath(path)
    ]
    return frames[-2:]


# ------------------------------------------------------------------------------------------------------------- judgment


def _judged(
    session: Session,
    base: dict[str, Any],
    expected: Evaluation,
    got: Evaluation,
    autotuned: bool,
    again: Callable[[], Evaluation],
) -> dict[str, Any]:
    """The trial that the two evaluations make. `again`: the original's with the fused file's outputs, to which the rest of an
    epilogue is applied."""
    session.trace = expected.trace
    if expected.error:
        return {**base, "skipped": f"fails with the original file: {expected.error}"}
    if got.cannot:
        raise Refused(got.error)
    if got.error and autotuned and got.error.startswith("OutOfResources"):
        return {**base, "skipped": f"this configuration does not fit the device with the op: {got.error}"}
    if got.error:
        return {**base, "failure": f"the fused file fails where the original runs: {got.error}"}
    if not expected.launches:
        return {**base, "skipped": f"does not launch `{session.request['kernel']}`"}
    if len(expected.launches) != len(got.launches):
        counts = f"{len(got.launches)} times, the original {len(expected.launches)}"
        return {**base, "failure": f"the fused file launches the kernel {counts}"}
    outputs = _outputs(session, expected, got)
    trial = {**base, "outputs": outputs}
    strayed = _strayed(session, expected, got)
    if strayed:
        return {**trial, "failure": strayed}
    anew = _allocated_anew(expected, got)
    rests = bool(session.request.get("rests"))
    if not all(_is_identical(output) for output in outputs):
        if not rests or any(output["wrong"] or output["unwritten_otherwise"] for output in outputs):
            return trial
        expected = again()
        if expected.error:
            session.notes.append(f"what is returned could not be compared in every run: {expected.error}")
            return trial
        anew = _allocated_anew(expected, got)
    trial["returned_compared"] = True
    if not _same_values(expected.value, got.value, anew, expected.left_out):
        of = (
            "is not what torch makes of the kernel's outputs"
            if rests
            else "differs, though the kernel's outputs do not"
        )
        trial["failure"] = f"what the call returns {of}"
    return trial


def _strayed(session: Session, expected: Evaluation, got: Evaluation) -> str:
    """How the fused kernel leaves its tensors where the original does not; "" when it does not."""
    assert expected.outside is not None and got.outside is not None
    for verb, ours, theirs in (
        ("writes", expected.outside.writes, got.outside.writes),
        ("reads", expected.outside.reads, got.outside.reads),
    ):
        if theirs and not ours:
            return f"the fused kernel {verb} outside of its tensors, the original does not"
        if ours:
            session.notes.append(f"the original kernel {verb} outside of its tensors")
    return ""


def _is_identical(output: dict[str, Any]) -> bool:
    return not output["differing"] and not output["unwritten_otherwise"]


def _outputs(session: Session, expected: Evaluation, got: Evaluation) -> list[dict[str, Any]]:
    kept = {parameter for _, parameter in session.request.get("kept", ())}
    ops = {output: UNCHANGED for output, _ in session.request["outputs"]} | dict(session.request["epilogues"])
    ops |= dict.fromkeys(kept, UNCHANGED)
    launched = [capture.memory for launch in expected.launches for capture in launch]
    found = []
    for number, (left, right) in enumerate(zip(expected.launches, got.launches, strict=True)):
        for ours, theirs in zip(left, right, strict=True):
            output = _compared(session, ours, theirs, number, ops[ours.output])
            # else another launch may write what this one does not
            if ours.output not in kept and launched.count(ours.memory) == 1:
                output["missed"] = _missed(session, ours, theirs, ops[ours.output])
                output["missed_assumed"] = FULLY_WRITTEN in session.request["assumptions"]
            found.append(output)
    return found


def _compared(session: Session, ours: Any, theirs: Any, number: int, op: str) -> dict[str, Any]:
    from kernel_rewrite.verify.compare import explained, largest, nearer, same_elements, units_off

    if ours.dtype != theirs.dtype or ours.after.shape != theirs.after.shape:
        raise Refused(f"`{ours.output}` is {ours.dtype} in the original and {theirs.dtype} in the fused file")
    otherwise = int((ours.written != theirs.written).sum())
    both = (ours.written & theirs.written).nonzero().flatten()
    value, wanted, got = ours.before[both], ours.after[both], theirs.after[both]
    different = (~same_elements(wanted, got)).nonzero().flatten()
    wrong = different
    if len(different):
        at = (value[different], wanted[different], got[different])
        is_twin = any(parameter == ours.output for _, parameter in session.request.get("kept", ()))
        how = "eager" if is_twin else session.request["numerics"], session.judge
        pointwise = pointwise_of(session, op)
        allowed = different < 0  # none
        if not isinstance(pointwise, CalledOp):  # a function of the user's gives its own bits
            allowed |= explained(*at, pointwise, *how, ours.operands(both[different]))
        if session.request["prologues"]:
            allowed |= _allowed_behind_prologues(session, *at[1:], wanted)
        wrong = different[~allowed]
    difference, ulp, relative = largest(wanted[different], got[different])
    truth = _in_float64(session, value, op)
    mismatch = None
    if len(wrong):
        first = int(wrong[0])
        mismatch = {
            "index": ours.index_of(int(both[first])),
            "value": _number(value[first]),
            "expected": _number(wanted[first]),
            "got": _number(got[first]),
        }
    elements = _elements(ours)
    written = int(both.numel())
    return {
        "output": ours.output,
        "op": op,
        "launch": number,
        "dtype": ours.dtype,
        "shape": ours.shape,
        "elements": max(elements, written),
        "written": written,
        "differing": int(different.numel()),
        "wrong": int(wrong.numel()),
        "max_difference": difference,
        "max_ulp": ulp,
        "max_relative": relative,
        "pair_error": units_off(wanted, truth),
        "fused_error": units_off(got, truth),
        **dict(zip(("fused_nearer", "pair_nearer"), nearer(got, wanted, truth), strict=True)),
        "unwritten_otherwise": otherwise,
        "mismatch": mismatch,
    }


def _allowed_behind_prologues(session: Session, expected: Any, got: Any, all_expected: Any) -> Any:
    """Where a difference is no more than a few units of the output's largest value, if an op on the way in rounds
    otherwise in torch than in Triton. Exact ops allow nothing."""
    import torch

    from kernel_rewrite.pointwise.language import applications
    from kernel_rewrite.verify.compare import computable

    pointwises = [pointwise_of(session, text) for _, text in session.request["prologues"]]
    graphs = [p.result for p in pointwises if not isinstance(p, CalledOp)]
    exact = all(node.row.exact for graph in graphs for node in applications(graph))
    if exact or not expected.dtype.is_floating_point:
        return torch.zeros_like(expected, dtype=torch.bool)
    all_expected = computable(all_expected)
    finite = all_expected[torch.isfinite(all_expected)].double().abs()
    scale = float(finite.max()) if finite.numel() else 0.0
    return (expected.double() - got.double()).abs() <= 8 * torch.finfo(expected.dtype).eps * scale


def _in_float64(session: Session, value: Any, op: str) -> Any:
    """The op in float64 on the values that the original kernel stored, taken as exact; None for other types than floats,
    for an op that reads operands or is a function of the user's, and where there is none."""
    pointwise = pointwise_of(session, op)
    if isinstance(pointwise, CalledOp) or pointwise.operands:
        return None
    if op == UNCHANGED or not value.dtype.is_floating_point:
        return None
    return pointwise.evaluate(value.double())


def _allocated_anew(expected: Evaluation, got: Evaluation) -> dict[int, str]:
    """The element types in the fused file of the outputs that it allocates with another type or another fill, by the address
    of the original's memory."""
    from kernel_rewrite.verify.compare import same_elements

    found = {}
    for left, right in zip(expected.launches, got.launches, strict=True):
        for ours, theirs in zip(left, right, strict=True):
            if ours.memory < 0:
                continue
            where = (~ours.written & ours.inside).nonzero().flatten()
            retyped = ours.before.dtype != ours.after.dtype
            if retyped or not bool(same_elements(ours.prior[where], theirs.prior[where]).all()):
                found[ours.memory] = theirs.dtype
    return found


def _missed(session: Session, ours: Any, theirs: Any, op: str) -> int:
    """How many unwritten elements of the output held a value, not an uninitialised one, and hold another one in the fused
    file than the op gives for that. An op that reads operands is taken to change every one."""
    import torch

    from kernel_rewrite.verify.compare import computable, same_elements

    unwritten = (~ours.written & ours.inside).nonzero().flatten()
    prior = ours.prior[unwritten]
    if prior.dtype == torch.bool or not prior.numel():
        return 0
    floating = prior.dtype.is_floating_point
    held = computable(prior)
    uninitialised = held != held if floating else prior == torch.iinfo(prior.dtype).max
    pointwise = pointwise_of(session, op)
    if pointwise.operands:
        return int((~uninitialised).sum())
    after = pointwise.evaluate(prior)
    return int((~same_elements(after, theirs.prior[unwritten]) & ~uninitialised).sum())


def _elements(capture: Any) -> int:
    count = 1
    for size in capture.shape:
        count *= size
    return count


def _number(value: Any) -> str:
    item = value.item()
    return repr(item) if isinstance(item, bool | int) else f"{item:.9g}"


def _same_values(left: Any, right: Any, anew: Mapping[int, str], left_out: Container[int] = ()) -> bool:
    """Whether two returned values hold the same tensors to the bit; values of other types are not compared. Outputs that are
    allocated `anew` have been compared as such: they must be returned with their shape and their new type. What lies in
    memory that is `left_out` must not be returned on the right."""
    import torch

    from kernel_rewrite.verify.compare import same_elements

    ours, theirs = list(_tensors(left)), list(_tensors(right))
    if left_out:  # tensors without elements cannot be told apart
        ours = [a for a in ours if a.numel() and a.untyped_storage().data_ptr() not in left_out]
        theirs = [b for b in theirs if b.numel()]
    if len(ours) != len(theirs):
        return False
    for a, b in zip(ours, theirs, strict=True):
        dtype = anew.get(a.untyped_storage().data_ptr()) if anew else None
        if a.shape != b.shape or (dtype or str(a.dtype).removeprefix("torch.")) != str(b.dtype).removeprefix("torch."):
            return False
        if dtype or a.is_complex() or a.is_sparse:
            continue
        if not bool(torch.all(same_elements(a.detach().contiguous(), b.detach().contiguous()))):
            return False
    return True


def _tensors(value: Any) -> Iterator[Any]:
    import torch

    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)


if __name__ == "__main__":
    main()
