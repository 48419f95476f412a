"""What each parameter of a kernel is, and the types and constexpr values to compile it with.

Evidence is weighed strongest first: the command line, autotune configurations, launch sites and what they allocate,
defaults, annotations, the use in the body (`usage`), the name. What is left is guessed, and says so.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from kernel_rewrite.diagnostics import Diagnostic, FusionRefused, Label
from kernel_rewrite.model import (
    STRIDES_APART,
    Closure,
    Constant,
    Dtype,
    Evidence,
    Function,
    FunctionRef,
    ParameterFact,
    Span,
)
from kernel_rewrite.source.autotune import HeuristicKind, Tuning
from kernel_rewrite.source.launches import Allocation, Fact, Launch
from kernel_rewrite.source.symbolic import HostFunction
from kernel_rewrite.source.usage import OPTIONS, Usage, Value, Votes, binding_of, looks_like_pointer, usage

# -------------------------------------------------------------------------------------------------------------- tables

TRITON_TYPES: Mapping[str, str] = {
    "float16": "fp16", "bfloat16": "bf16", "float32": "fp32", "float64": "fp64",
    "int1": "i1", "int8": "i8", "int16": "i16", "int32": "i32", "int64": "i64",
    "uint8": "u8", "uint16": "u16", "uint32": "u32", "uint64": "u64",
    "float8e4nv": "fp8e4nv", "float8e5": "fp8e5", "float8e4b8": "fp8e4b8", "float8e5b16": "fp8e5b16",
    "float8e4b15": "fp8e4b15",
}  # fmt: skip
"""Short names of element types, by Triton's dtype names."""

DTYPE_NAMES: Mapping[str, str] = {short: name for name, short in TRITON_TYPES.items()}
FLOAT_TYPES = frozenset(short for short in DTYPE_NAMES if short.startswith(("fp", "bf")))

_ANNOTATED: Mapping[str, str] = {"int": "i32", "float": "fp32", "bool": "i1", **TRITON_TYPES}

_FLOAT_NAME = re.compile(
    r"(^|_)(eps|epsilon|scale|scaling|alpha|beta|gamma|p|prob|dropout_p|momentum|lr|learning_rate|temperature|temp|"
    r"softcap|soft_cap|logit_cap|slope|threshold|weight_decay|rate|factor|sm_scale|ratio|decay|smoothing|limit|lower|upper|"
    r"max_norm|clamp|norm_factor|bias_correction\d?|std|mean|tau|beta\d|delta|margin|cap|value|fill_value)(_|$)",
    re.IGNORECASE,
)
_INT_ELEMENT_NAME = re.compile(
    r"(^|_)(idx|idxs|index|indices|ids|id|offsets?|lens?|lengths?|seqlens?|cu_seqlens|seqlen|block_tables?|table|"
    r"page_table|start|starts|end|ends|loc|locs|counts?|indptr|slot_mapping|mapping|positions?|pos|labels?|target|targets|"
    r"y_true|tokens?|lut|perm|cnt|num|num_[a-z_]+|splits?|steps?|seeds?)(_[a-z0-9]{1,2})?(_?ptrs?|_pointer)?$",
    re.IGNORECASE,
)
_MASK_NAME = re.compile(r"(^|_)(mask|is_[a-z]+)(_|$|ptr)", re.IGNORECASE)
_BOOL_NAME = re.compile(
    r"^(HAS|USE|IS|WITH|ENABLE|DO|RETURN|STORE|SAVE|NEED|EVEN|APPLY|OUTPUT|REVERSE|CAUSAL|TRANS|USING|ALLOW|COMPUTE|DISABLE)"
    r"(_|$)|CAUSAL$|^has_|^use_|^is_|_flag$",
    re.IGNORECASE,
)
_PRESENCE_NAME = re.compile(r"^(HAS|USE|WITH|has|use)_")
_DTYPE_NAME = re.compile(r"(dtype|_type|_ty)$|^(DTYPE|ACC_TYPE)", re.IGNORECASE)
_INT_GUESSES: tuple[tuple[re.Pattern[str], int], ...] = (
    (re.compile(r"num_warps", re.I), 4),
    (re.compile(r"num_stages|stages", re.I), 2),
    (re.compile(r"group_size_m|group_m", re.I), 8),
    (re.compile(r"^(num|n)_", re.I), 4),
)
BLOCK_GUESS = 64
STATIC_RANGE_GUESS = 4
OTHER_STRING = ""
"""Stands for every string that the kernel does not name: the way into `else`."""


# ------------------------------------------------------------------------------------------------------------- values


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter: its kind, its Triton type ("*fp32", "i32", "constexpr", ...) when it is given, and for a constexpr
    its `values`, the one to start with first. An `optional` one may be None."""

    name: str
    kind: str
    type: object
    values: tuple[object, ...] = ()
    evidence: Evidence = Evidence.GUESS
    detail: str = ""
    optional: bool = False
    block: tuple[object, ...] = ()  # of a descriptor: constexpr names and ints

    @property
    def fact(self) -> ParameterFact:
        shown = self.values if self.kind == "constexpr" else self.type
        return ParameterFact(self.name, self.kind, shown, self.evidence, self.detail)


@dataclass(frozen=True, slots=True)
class Overrides:
    """What the command line says: constexpr (or None) values and element types, by parameter."""

    values: Mapping[str, object] = field(default_factory=dict, hash=False)
    dtypes: Mapping[str, str] = field(default_factory=dict, hash=False)


NO_OVERRIDES = Overrides()


@dataclass(frozen=True, slots=True)
class Signature:
    """Every parameter of a kernel in order, and the evidence they were read from."""

    parameters: tuple[Parameter, ...]
    usage: Usage = field(hash=False)
    tuning: Tuning = field(hash=False)
    launches: tuple[Launch, ...] = ()

    def __getitem__(self, name: str) -> Parameter:
        return next(p for p in self.parameters if p.name == name)

    @property
    def facts(self) -> tuple[ParameterFact, ...]:
        return tuple(p.fact for p in self.parameters)


# ---------------------------------------------------------------------------------------------------------- overrides


def parse_overrides(kernel: Function, settings: Iterable[str] = (), dtypes: Iterable[str] = ()) -> Overrides:
    """`NAME=VALUE` and `PARAM=DTYPE` texts as values; refuses with KR105 (no such parameter) or KR109 (no value)."""
    problems: list[Diagnostic] = []
    values: dict[str, object] = {}
    elements: dict[str, str] = {}
    span = _head(kernel)
    for text in settings:
        name, _, value = text.partition("=")
        if _known(name.strip(), kernel, span, problems):
            try:
                values[name.strip()] = parse_value(value.strip())
            except ValueError as error:
                problems.append(Diagnostic("KR109", f"`{text}`: {error}", (Label(span),), help=_VALUE_HELP))
    for text in dtypes:
        name, _, value = text.partition("=")
        if _known(name.strip(), kernel, span, problems):
            short = element_type(value.strip())
            if short is None:
                known = ", ".join(sorted(DTYPE_NAMES))
                message = f"`{text}`: `{value.strip()}` is not an element type"
                problems.append(Diagnostic("KR109", message, (Label(span),), help=f"use one of {known}"))
            else:
                elements[name.strip()] = short
    if problems:
        raise FusionRefused(tuple(problems))
    return Overrides(values, elements)


_VALUE_HELP = (
    "write a Python literal, None, or a dtype such as tl.float16: --set BLOCK_SIZE=1024 --set ACTIVATION='\"relu\"'"
)


def parse_value(text: str) -> object:
    """A constexpr value as written on the command line: a Python literal, a dtype name, or a bare word as a string.
    Raises ValueError."""
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        short = element_type(text)
        if short is not None:
            return Dtype(DTYPE_NAMES[short])
        if text.isidentifier():
            return text
        raise ValueError(f"`{text}` is not a value") from None
    if isinstance(value, list):
        value = tuple(value)
    if not isinstance(value, (type(None), bool, int, float, str, tuple)):
        raise ValueError(f"`{text}` is not a value that a kernel can be compiled with")
    return value


def element_type(text: str) -> str | None:
    """The short name ("fp16") of an element type in any spelling: fp16, float16, tl.float16, torch.half."""
    from kernel_rewrite.source.folding import TORCH_DTYPES

    name = text.removeprefix("*").rsplit(".", 1)[-1]
    if name in DTYPE_NAMES:
        return name
    return TRITON_TYPES.get(name) or TRITON_TYPES.get(TORCH_DTYPES.get(name, ""))


def _known(name: str, kernel: Function, span: Span, problems: list[Diagnostic]) -> bool:
    if name in kernel.parameters:
        return True
    names = ", ".join(kernel.parameters)
    problems.append(
        Diagnostic(
            "KR105", f"`{kernel.name}` has no parameter `{name}`", (Label(span),), help=f"its parameters are {names}"
        )
    )
    return False


def _head(kernel: Function) -> Span:
    node = kernel.node
    column = node.col_offset + len("def ")
    return Span(kernel.ref.file, node.lineno, column, node.lineno, column + len(node.name.encode()))


# ---------------------------------------------------------------------------------------------------------- inference


def infer(
    closure: Closure,
    launches: tuple[Launch, ...] = (),
    tuning: Tuning = Tuning(),
    overrides: Overrides = NO_OVERRIDES,
) -> Signature:
    """The kind, types and values of every parameter of the closure's kernel."""
    return _Inference(closure, launches, tuning, overrides).signature()


class _Inference:
    def __init__(self, closure: Closure, launches: tuple[Launch, ...], tuning: Tuning, overrides: Overrides) -> None:
        self.closure = closure
        self.kernel = closure.kernel
        self.launches = launches
        self.tuning = tuning
        self.overrides = overrides
        self.usage = usage(closure)
        self.constexprs = closure.constexpr_parameters(closure.kernel)
        arguments = self.kernel.node.args
        positional = [*arguments.posonlyargs, *arguments.args]
        self.annotations = {
            a.arg: ast.unparse(a.annotation) for a in (*positional, *arguments.kwonlyargs) if a.annotation is not None
        }
        self.defaults = {a.arg: d for a, d in zip(reversed(positional), reversed(arguments.defaults), strict=False)}
        self.defaults |= {
            a.arg: d for a, d in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=False) if d is not None
        }

    def signature(self) -> Signature:
        parameters = {name: self.parameter(name) for name in self.kernel.parameters}
        self._share_elements(parameters)
        self._tell_apart(parameters)
        return Signature(tuple(parameters.values()), self.usage, self.tuning, self.launches)

    def facts(self, name: str) -> list[Fact]:
        return [launch.facts[name] for launch in self.launches if name in launch.facts]

    # kinds -----------------------------------------------------------------------------------------------------------

    def parameter(self, name: str) -> Parameter:
        votes = self.usage.of(name)
        if name in self.constexprs:
            return self.constexpr(name, votes)
        if "unit stride" in votes.roles and name not in self.overrides.values:
            # Triton makes an argument that equals 1 a constexpr, and takes no other last stride of a descriptor
            return Parameter(name, "constexpr", "constexpr", (1,), Evidence.USE, "the last stride of a descriptor")
        if name in self.overrides.values:
            value = self.overrides.values[name]
            return Parameter(name, "constexpr", "constexpr", (value,), Evidence.OVERRIDE)
        facts = self.facts(name)
        present = [f for f in facts if f.kind != "none"]
        if facts and not present and not votes.pointer:
            return Parameter(name, "constexpr", "constexpr", (None,), Evidence.LAUNCH, "every launch passes None")
        optional = self.optional(name, votes, facts)
        if votes.descriptor_rank or any(f.kind == "descriptor" for f in present):
            return self.descriptor(name, votes, present)
        if "tuple" in votes.roles or any(f.kind == "tuple" for f in present):
            return self.packed(name, votes, present)
        tensor = any(f.kind == "tensor" or f.dtype for f in present)
        if votes.pointer or tensor or (not present and looks_like_pointer(name) and not votes.classes):
            return replace(self.pointer(name, votes, present), optional=optional)
        return replace(self.scalar(name, votes, present), optional=optional)

    def optional(self, name: str, votes: Votes, facts: list[Fact]) -> bool:
        default = self.defaults.get(name)
        none_default = isinstance(default, ast.Constant) and default.value is None
        return "none" in votes.roles or none_default or any(f.kind == "none" for f in facts)

    # pointers --------------------------------------------------------------------------------------------------------

    def pointer(self, name: str, votes: Votes, facts: list[Fact]) -> Parameter:
        def of(element: str, evidence: Evidence, detail: str = "") -> Parameter:
            return Parameter(name, "pointer", f"*{element}", (), evidence, detail)

        if name in self.overrides.dtypes:
            return of(self.overrides.dtypes[name], Evidence.OVERRIDE)
        for fact in facts:
            if fact.dtype in TRITON_TYPES:
                allocated = bool(fact.allocations & {Allocation.EMPTY, Allocation.FILL})
                element = TRITON_TYPES[fact.dtype]
                if _contradicted(element, votes):
                    continue
                return of(element, Evidence.ALLOCATION if allocated else Evidence.LAUNCH)
        element, weight = element_of(votes)
        if element and weight == 2:
            return of(element, Evidence.USE)
        if element:
            return of(element, Evidence.USE, "weak")
        floats = any(kind == "float" for kind, _ in votes.elements)
        if not floats and _MASK_NAME.search(name) and any(kind == "mask" for kind, _ in votes.elements):
            return of("i1", Evidence.NAME)
        if not floats and _INT_ELEMENT_NAME.search(name) and not votes.dot:
            return of("i32", Evidence.NAME)
        if floats:
            return of("fp32", Evidence.USE, "weak")
        return of("fp32", Evidence.GUESS)

    def _tell_apart(self, parameters: dict[str, Parameter]) -> None:
        """Constexprs that the kernel compares with each other (`if D > ROT`) get values on both sides of each other."""
        for pair in sorted(self.usage.pairs):
            chosen = [parameters[name] for name in pair if name in parameters]
            numbers = [p.values[0] for p in chosen if p.values and type(p.values[0]) is int]
            if len(numbers) < 2 or any(p.kind != "constexpr" for p in chosen):
                continue
            for parameter, other in ((chosen[0], numbers[1]), (chosen[1], numbers[0])):
                if parameter.evidence in (Evidence.OVERRIDE, Evidence.AUTOTUNE):
                    continue
                assert isinstance(other, int)
                near = [value for value in (other, other * 2, other // 2) if value > 0]
                if "block" in self.usage.of(parameter.name).roles:
                    near = [value for value in near if value & (value - 1) == 0]
                values = _distinct((*parameters[parameter.name].values, *near))
                parameters[parameter.name] = replace(parameters[parameter.name], values=values)

    def _share_elements(self, parameters: dict[str, Parameter]) -> None:
        """Element types flow between pointers that hold the same numbers: `torch.empty_like(x)`; `x` stored to `y`."""
        groups: dict[str, str] = {}

        def find(name: str) -> str:
            while groups.get(name, name) != name:
                name = groups[name]
            return name

        for launch in self.launches:
            by_name: dict[str, str] = {}
            for name, fact in launch.facts.items():
                if name not in parameters or parameters[name].kind != "pointer":
                    continue
                for shared in fact.like:
                    if shared in by_name:
                        groups[find(name)] = find(by_name[shared])
                    else:
                        by_name[shared] = name
        for names in self.usage.merged:
            pointers = [name for name in names if name in parameters and parameters[name].kind == "pointer"]
            for name in pointers[1:]:
                groups[find(name)] = find(pointers[0])
        members: dict[str, list[str]] = {}
        for name, parameter in parameters.items():
            if parameter.kind == "pointer":
                members.setdefault(find(name), []).append(name)
        for group in members.values():
            self._agree([parameters[name] for name in group], parameters, Evidence.LAUNCH)
        for name, parameter in list(parameters.items()):
            if parameter.kind != "pointer" or parameter.evidence is not Evidence.GUESS:
                continue
            votes = self.usage.of(name)
            sources = [s.parameter for s in votes.partners if s.element and s.parameter in parameters]
            types = {parameters[s].type for s in sources if parameters[s].kind == "pointer" and s != name}
            if votes.written and len(types) == 1:
                parameters[name] = replace(parameter, type=types.pop(), evidence=Evidence.USE, detail="weak")

    def _agree(self, group: list[Parameter], parameters: dict[str, Parameter], evidence: Evidence) -> None:
        strength = {Evidence.OVERRIDE: 0, Evidence.LAUNCH: 1, Evidence.ALLOCATION: 1, Evidence.USE: 2, Evidence.NAME: 3}
        best = min(group, key=lambda p: (strength.get(p.evidence, 9), p.detail == "weak"))
        if best.evidence is Evidence.GUESS:
            return
        for parameter in group:
            if parameter is best:
                continue
            weak = parameter.evidence in (Evidence.GUESS, Evidence.NAME) or parameter.detail == "weak"
            if weak and not _contradicted(str(best.type).removeprefix("*"), self.usage.of(parameter.name)):
                detail = f"same as `{best.name}`"
                parameters[parameter.name] = replace(parameter, type=best.type, evidence=evidence, detail=detail)

    # scalars ---------------------------------------------------------------------------------------------------------

    def scalar(self, name: str, votes: Votes, facts: list[Fact]) -> Parameter:
        def of(kind: str, evidence: Evidence, detail: str = "") -> Parameter:
            return Parameter(name, "scalar", kind, (), evidence, detail)

        if name in self.overrides.dtypes:
            return of(self.overrides.dtypes[name], Evidence.OVERRIDE)
        annotation = self.annotations.get(name, "").strip("'\"").rsplit(".", 1)[-1]
        if annotation in _ANNOTATED:
            return of(_ANNOTATED[annotation], Evidence.ANNOTATION)
        strong = {kind for kind, weight in votes.classes if weight == 2}
        weak = {kind for kind, weight in votes.classes if weight == 1}
        if strong & {"int", "int64"}:
            return of("i32", Evidence.USE)
        if "float" in strong:
            return of("fp32", Evidence.USE)
        kinds = {f.kind for f in facts}
        if "float" in kinds:
            return of("fp32", Evidence.LAUNCH)
        if "int" in kinds:
            return of("i32", Evidence.LAUNCH)
        if kinds == {"bool"}:
            return of("i1", Evidence.LAUNCH)
        if "float" in weak and "int" not in weak:
            return of("fp32", Evidence.USE, "weak")
        if _FLOAT_NAME.search(name) and "int" not in weak:
            return of("fp32", Evidence.NAME)
        if weak:
            return of("i32", Evidence.USE, "weak")
        return of("i32", Evidence.GUESS)

    # descriptors and tuples ------------------------------------------------------------------------------------------

    def descriptor(self, name: str, votes: Votes, facts: list[Fact]) -> Parameter:
        block: list[object] = []
        fact = next((f for f in facts if f.block), None)
        dummy = fact is not None and all(isinstance(n, ast.Constant) and n.value == 1 for n in fact.block)
        if fact is not None and dummy and votes.descriptor_block:  # block_shape=[1, 1]: the autotuner's hook sets it
            block = self.blocks_of(votes.descriptor_block)
        elif fact is not None:
            for node in fact.block:
                if isinstance(node, ast.Constant) and isinstance(node.value, int):
                    block.append(node.value)
                elif isinstance(node, ast.Name) and node.id in self.constexprs:
                    block.append(node.id)
                else:
                    block.append(BLOCK_GUESS)
        elif votes.descriptor_block:
            block = self.blocks_of(votes.descriptor_block)
        else:
            block = [BLOCK_GUESS, BLOCK_GUESS]
        element = self.overrides.dtypes.get(name) or next(
            (TRITON_TYPES[f.dtype] for f in facts if f.dtype in TRITON_TYPES), "fp16"
        )
        evidence = Evidence.OVERRIDE if name in self.overrides.dtypes else Evidence.LAUNCH if fact else Evidence.USE
        return Parameter(name, "descriptor", f"tensordesc<{element}>", (), evidence, block=tuple(block))

    def blocks_of(self, offsets: tuple[Value, ...]) -> list[object]:
        """The block sizes of a descriptor, from offsets such as `[batch, pid_m * BLOCK_M, k]`."""
        rank = len(offsets)
        # what is no multiple of a block size picks one batch or head, but for the rows and columns of the tile
        return [self.block_of(offset, 1 if axis < rank - 2 else BLOCK_GUESS) for axis, offset in enumerate(offsets)]

    def block_of(self, offset: Value, otherwise: int) -> object:
        """The block size along one axis, from an offset such as `pid_m * BLOCK_M`."""
        if offset.step in self.constexprs:
            return offset.step
        names = [s.parameter for s in offset.sources if s.parameter in self.constexprs]
        blocks = [n for n in names if "block" in self.usage.of(n).roles] or [n for n in names if "BLOCK" in n.upper()]
        return [otherwise, *names, *blocks][-1]

    def packed(self, name: str, votes: Votes, facts: list[Fact]) -> Parameter:
        items = next((f.items for f in facts if f.items), ())
        length = len(items) or votes.tuple_length or 2
        default = "*fp32" if votes.pointer else "i32"
        types = tuple(
            f"*{TRITON_TYPES.get(item.dtype, 'fp32')}" if item.kind == "tensor" else default for item in items
        )
        return Parameter(name, "tuple", types or (default,) * length, (), Evidence.LAUNCH if items else Evidence.USE)

    # constexpr values ------------------------------------------------------------------------------------------------

    def constexpr(self, name: str, votes: Votes) -> Parameter:
        values, evidence, detail = self.constexpr_values(name, votes)
        return Parameter(name, "constexpr", "constexpr", values, evidence, detail, optional=None in values)

    def constexpr_values(self, name: str, votes: Votes) -> tuple[tuple[object, ...], Evidence, str]:
        if name in self.overrides.values:
            return (self.overrides.values[name],), Evidence.OVERRIDE, ""
        if name in self.overrides.dtypes:
            return (Dtype(DTYPE_NAMES[self.overrides.dtypes[name]]),), Evidence.OVERRIDE, ""
        tuned = _distinct(c.values[name] for c in self.tuning.configs if name in c.values)
        if votes.roles & {"block", "range", "static range"} and any(isinstance(v, tuple) for v in tuned):
            # BLOCK=[64, 128]: code that makes one configuration of each has not been run
            single = _distinct(e for v in tuned for e in (v if isinstance(v, tuple) else (v,)))
            return self.widened(name, single, votes), Evidence.LAUNCH, "a list of values"
        options = _distinct(c.options[name] for c in self.tuning.configs if name in c.options)
        if tuned or options:
            found = tuned or options
            return found if self.tuning.complete else self.widened(name, found, votes), Evidence.AUTOTUNE, ""
        facts = self.facts(name)
        launched = _distinct(self.launched(value) for f in facts for value in f.values)
        launched = tuple(v for v in launched if v is not _UNUSABLE)
        launched = (*(v for v in launched if v is not None), *(v for v in launched if v is None))
        heuristic = self.tuning.heuristic(name)
        boolean = (
            any(f.kind == "bool" for f in facts)
            or (heuristic is not None and heuristic.kind in (HeuristicKind.BOOLEAN, HeuristicKind.PRESENCE))
            or bool(launched and all(isinstance(v, bool) for v in launched))
        )
        needed = votes.roles & {"block", "range", "static range"} or ("int", 2) in votes.classes
        if launched and set(launched) == {None} and (needed or any(f.kind not in ("", "none") for f in facts)):
            # `W=weight.shape[1] if weight is not None else None`
            guessed, evidence, detail = self.guess(name, votes, facts)
            return _distinct((*guessed, *(() if needed else (None,)))), evidence, detail
        if launched:
            return self.widened(name, launched, votes, boolean), Evidence.LAUNCH, ""
        if heuristic is not None and heuristic.kind is HeuristicKind.VALUES:
            return self.widened(name, heuristic.values, votes, boolean), Evidence.LAUNCH, "heuristic"
        default = self.default(name)
        if default is not _UNUSABLE:
            return self.widened(name, (default,), votes, boolean), Evidence.DEFAULT, ""
        if boolean:
            first = True
            return self.widened(name, (first,), votes, True), Evidence.BRANCH, "a flag"
        return self.guess(name, votes, facts)

    def launched(self, value: object) -> object:
        """A launch value as a constexpr value: a host function becomes the jit function of its name."""
        if isinstance(value, HostFunction):
            if isinstance(value.node, ast.FunctionDef):
                ref = FunctionRef(self.kernel.ref.file, value.node.name)
                return ref if self.closure.function(ref) else _UNUSABLE
            return _UNUSABLE
        return value

    def default(self, name: str) -> object:
        node = self.defaults.get(name)
        if node is None:
            return _UNUSABLE
        names = self.closure.bindings.get(self.kernel.ref.file, {})
        if isinstance(node, ast.Constant):
            return node.value
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and isinstance(node.operand, ast.Constant):
            value = node.operand.value
            return -value if isinstance(value, (int, float)) else _UNUSABLE
        binding = binding_of(node, names)
        if isinstance(binding, Constant):
            return binding.value
        if isinstance(node, ast.Attribute) and node.attr in TRITON_TYPES:
            return Dtype(node.attr)
        return _UNUSABLE

    def widened(self, name: str, values: tuple[object, ...], votes: Votes, boolean: bool = False) -> tuple[object, ...]:
        """`values` with the alternatives that the branches of the kernel distinguish."""
        base = values[0]
        result: list[object] = list(values)
        if (
            boolean
            or isinstance(base, bool)
            or ("bool" in votes.roles and not isinstance(base, (str, Dtype, FunctionRef)))
        ):
            if isinstance(base, bool) or boolean:
                result += [True, False]
            elif base is None or isinstance(base, int):
                result += [0 if base else 1]
        compared = self.compared(votes)
        result += compared
        if "none" in votes.roles:
            result.append(None)
        elif any(isinstance(value, str) for value in compared):
            result.append(OTHER_STRING)
        return _distinct(result)

    def compared(self, votes: Votes) -> list[object]:
        """The values at which the kernel's branches change."""
        found: list[object] = []
        blocks = "block" in votes.roles
        for value in sorted(votes.compared, key=repr):
            if isinstance(value, tuple) and len(value) == 2 and value[0] == "order":
                literal = value[1]
                if isinstance(literal, bool) or not isinstance(literal, int):
                    continue
                near = (literal, literal * 2, literal // 2) if blocks else (literal - 1, literal, literal + 1)
                found += [n for n in near if n > 0 or not blocks or n == literal]
            else:
                found.append(value)
        equal = [v for v in found if isinstance(v, int) and not isinstance(v, bool)]
        if equal and not any(isinstance(v, tuple) for v in votes.compared):  # the way into `else`
            found.append(max(equal) * 2 if blocks and max(equal) > 0 else max(equal) + 1)
        return found

    def guess(self, name: str, votes: Votes, facts: list[Fact]) -> tuple[tuple[object, ...], Evidence, str]:
        roles, compared = votes.roles, self.compared(votes)
        strings = [v for v in compared if isinstance(v, str)]
        dtypes = [v for v in compared if isinstance(v, Dtype)]
        kinds = {f.kind for f in facts}
        if "called" in roles:
            refs = [f.ref for f in self.closure.functions[1:]]
            optional = (None,) if roles & {"none", "bool"} else ()
            named = [r for r in refs if r.name.lower() in name.lower() or name.lower() in r.name.lower()]
            return (*named[:1], *optional), Evidence.GUESS, "a function"
        if strings:
            other = None if "none" in roles or "bool" in roles else OTHER_STRING
            return _distinct((*strings, other)), Evidence.BRANCH, ""
        options = [role.split()[1] for role in sorted(roles) if role.startswith("option ")]
        if options:
            return (OPTIONS[options[0]],), Evidence.USE, f"an {options[0]}"
        number = roles & {"block", "range"} or ("int", 2) in votes.classes
        if "length" in roles or ("tuple" in roles and (votes.tuple_length > 1 or not number)):  # no number has a [1]
            return ((1,) * max(2, votes.tuple_length),), Evidence.USE, "a tuple"
        if dtypes or "dtype" in roles or "dtype" in kinds:
            return _distinct((*dtypes, Dtype("float32"))), Evidence.USE if roles else Evidence.GUESS, ""
        size = roles & {"block", "range", "static range"} or any(kind == "int" for kind, _ in votes.classes)
        if ("bool" in roles or _BOOL_NAME.search(name)) and not size and "int" not in kinds:
            first = bool(_PRESENCE_NAME.match(name))
            ints = [v for v in compared if isinstance(v, int) and not isinstance(v, bool)]
            return _distinct((first, not first, *ints)), Evidence.BRANCH, ""
        if roles & {"none"} and not size and not compared:
            return (None, *self._some(name)), Evidence.BRANCH, ""
        if "block" in roles:
            short = STATIC_RANGE_GUESS if "static range" in roles else BLOCK_GUESS  # a static loop is unrolled
            return _distinct((short, *self._powers(compared))), Evidence.USE, "a block size"
        if "static range" in roles:
            return _distinct((STATIC_RANGE_GUESS, *compared)), Evidence.USE, "the length of a static loop"
        ints = [v for v in compared if isinstance(v, int)]
        if _DTYPE_NAME.search(name) and not ints and not size:
            return (Dtype("float32"),), Evidence.NAME, ""
        floats = any(kind == "float" for kind, _ in votes.classes) and not any(k == "int" for k, _ in votes.classes)
        if (
            (floats and "int" not in kinds)
            or (_FLOAT_NAME.search(name) and not size and "int" not in kinds)
            or "float" in kinds
        ):
            return _distinct((0.5, *compared)), Evidence.USE if floats else Evidence.NAME, ""
        if ints and not roles & {"range"}:
            return _distinct((*ints, *self._some(name))), Evidence.BRANCH, ""
        return _distinct((*self._some(name), *compared)), Evidence.USE if size else Evidence.GUESS, ""

    @staticmethod
    def _powers(values: list[object]) -> list[object]:
        return [v for v in values if v is None or (isinstance(v, int) and v >= 0)]

    def _some(self, name: str) -> tuple[object, ...]:
        for pattern, value in _INT_GUESSES:
            if pattern.search(name):
                return (value,)
        return (self._strides.get(name, 1 if "stride" in name.lower() else BLOCK_GUESS),)

    @cached_property
    def _strides(self) -> Mapping[str, int]:
        """A number of its own for each compile-time stride, which no number that the kernel and its helpers spell is a
        multiple of."""
        nodes = (node for function in self.closure.functions for node in ast.walk(function.node))
        spelled: list[object] = [node.value for node in nodes if isinstance(node, ast.Constant)]
        meanings = (meaning for names in self.closure.bindings.values() for meaning in names.values())
        spelled += [meaning.value for meaning in meanings if isinstance(meaning, Constant)]
        numbers = {number for number in spelled if type(number) is int and number}
        free = [stride for stride in STRIDES_APART if all(number % stride for number in numbers)]
        names = [name for name in self.kernel.parameters if name in self.constexprs and "stride" in name.lower()]
        return dict(zip((n for n in names if "unit stride" not in self.usage.of(n).roles), free, strict=False))


class _Unusable:
    pass


_UNUSABLE = _Unusable()


def _distinct(values: Iterable[object]) -> tuple[object, ...]:
    """`values` without repeats; True and 1 are different values."""
    found: dict[tuple[type, object], object] = {}
    for value in values:
        if isinstance(value, list):
            value = tuple(value)
        try:
            found.setdefault((type(value), value), value)
        except TypeError:
            continue
    return tuple(found.values())


def element_of(votes: Votes) -> tuple[str, int]:
    """The element type that the use of a pointer shows, and how strongly: ("i32", 2); ("", 0) when it shows none."""
    kinds: dict[str, int] = {}
    for kind, weight in votes.elements:
        kinds[kind] = max(weight, kinds.get(kind, 0))
    width = next((kind.split()[1] for kind in kinds if kind.startswith("width ")), "")
    exact = [dtype for dtype in TRITON_TYPES if kinds.get(dtype) == 2 and dtype != "int64"]
    if exact:
        return TRITON_TYPES[exact[0]], 2
    if kinds.get("int64") == 2:
        return "i64", 2
    if kinds.get("int") == 2 and kinds.get("float", 0) < 2:
        return {"8": "u8", "16": "i16", "64": "i64"}.get(width, "i32"), 2
    if width:
        return {"8": "u8", "16": "fp16" if "float" in kinds else "i16", "64": "i64"}.get(
            width, "fp32" if "float" in kinds else "i32"
        ), 2
    if kinds.get("float") == 2:
        return "fp32", 2
    if "mask" in kinds and "int" not in kinds and "float" not in kinds:
        return "i1", 1
    if "integral" in kinds:
        return "i1" if "mask" in kinds else "i32", 2
    if "float" in kinds:
        return "", 0
    if "bool" in kinds:
        return "i1", 1
    for dtype in TRITON_TYPES:
        if dtype in kinds:
            return TRITON_TYPES[dtype], 1
    if "index" in kinds:
        return "i64", 1
    if "int" in kinds:
        return "i32", 1
    return "", 0


def _contradicted(element: str, votes: Votes) -> bool:
    """Whether the kernel cannot be compiled with that element type, whatever a launch seems to say."""
    strong = {kind for kind, weight in votes.elements if weight == 2}
    if element in FLOAT_TYPES:
        return bool(strong & {"int", "int64", "integral"}) and "float" not in strong
    return "float" in strong and not strong & {"int", "int64"}
