"""The nouns every stage shares: frozen values, no behaviour beyond small derivations.

Positions follow Python's `ast`: lines from 1, columns from 0 and counted in UTF-8 bytes. Triton reports locations in
the same units (from 3.9 on its columns start at 1; `ttir.parse` undoes that), so a TTIR location and a source span
compare without conversion.
"""

from __future__ import annotations

import ast
import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

# ------------------------------------------------------------------------------------------------ places in source text


@dataclass(frozen=True, slots=True, order=True)
class Location:
    """A point of a source file: `line` from 1, `column` from 0 in UTF-8 bytes."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column + 1}"


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """A stretch of a source file, end exclusive; same units as `Location`."""

    file: str
    line: int
    column: int
    end_line: int
    end_column: int

    @property
    def start(self) -> Location:
        return Location(self.file, self.line, self.column)

    def contains(self, location: Location) -> bool:
        return (
            self.file == location.file
            and (self.line, self.column) <= (location.line, location.column)
            and (location.line, location.column) < (self.end_line, self.end_column)
        )

    def contains_span(self, other: Span) -> bool:
        """Whether `other` lies in this span, ends included."""
        starts_here = self.file == other.file and (self.line, self.column) <= (other.line, other.column)
        return starts_here and (other.end_line, other.end_column) <= (self.end_line, self.end_column)

    @classmethod
    def of(cls, file: str, node: ast.expr | ast.stmt | ast.arg | ast.keyword | ast.alias) -> Span:
        assert node.end_lineno is not None and node.end_col_offset is not None
        return cls(file, node.lineno, node.col_offset, node.end_lineno, node.end_col_offset)


# ------------------------------------------------------------------------------- what a global name of a function means


@dataclass(frozen=True, slots=True)
class TritonObject:
    """A module or an object of the installed triton: `TritonObject("triton.language", "float32")`, or a whole module
    when `attribute` is empty."""

    module: str
    attribute: str = ""

    @property
    def dotted(self) -> str:
        return f"{self.module}.{self.attribute}" if self.attribute else self.module


@dataclass(frozen=True, slots=True)
class FunctionRef:
    """A jit function of the closure: the file that defines it and its (module-level) name there."""

    file: str
    name: str


@dataclass(frozen=True, slots=True)
class Constant:
    """A module-level constant folded without running it. `constexpr` says whether the source wraps it in
    `tl.constexpr(...)`, which is what lets a kernel read it."""

    value: object
    constexpr: bool = False


@dataclass(frozen=True, slots=True)
class Namespace:
    """A module of the user's project, reached by `import` or an attribute: only the members in use are listed."""

    name: str
    members: Mapping[str, Binding] = field(hash=False)


@dataclass(frozen=True, slots=True)
class Unresolved:
    """A name whose meaning could not be found without running code; `reason` completes the sentence
    "`name` cannot be resolved: ..."."""

    reason: str


Binding = TritonObject | FunctionRef | Constant | Namespace | Unresolved


# ------------------------------------------------------------------------------------------------- kernels and closures


@dataclass(frozen=True, slots=True)
class Function:
    """One `@triton.jit` (or `constexpr_function`) definition as it stands in its file.

    `nesting` is the column the `def` starts at: Triton dedents a nested definition, so its locations are `nesting`
    columns short. `jit_options` holds the literal keyword arguments of the jit decorator (`noinline`, ...).
    """

    ref: FunctionRef
    node: ast.FunctionDef
    nesting: int = 0
    constexpr_function: bool = False
    jit_options: Mapping[str, object] = field(default_factory=dict, hash=False)

    @property
    def name(self) -> str:
        return self.ref.name

    @property
    def parameters(self) -> tuple[str, ...]:
        arguments = self.node.args
        return tuple(a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs))


@dataclass(frozen=True, slots=True)
class AssumedName:
    """A name whose meaning was taken from one of several definitions, or from convention: the tool cannot run the code
    that decides. `alternatives` are the other meanings that could be found. `harmless` says that whatever it means, the
    kernel touches the same memory: a module that everyone calls so, or one of several functions of numbers alone."""

    file: str
    name: str
    statement: str
    alternatives: tuple[Binding, ...] = ()
    harmless: bool = False


@dataclass(frozen=True, slots=True)
class Closure:
    """All that is needed to lower one kernel: the kernel first, then every jit function it can reach, with the meaning
    of every global name they use, per file."""

    functions: tuple[Function, ...]
    bindings: Mapping[str, Mapping[str, Binding]] = field(hash=False)
    assumed_names: tuple[AssumedName, ...] = ()

    @property
    def kernel(self) -> Function:
        return self.functions[0]

    def function(self, ref: FunctionRef) -> Function | None:
        return next((f for f in self.functions if f.ref == ref), None)

    def constexpr_parameters(self, function: Function) -> frozenset[str]:
        """The parameters annotated `tl.constexpr`, in whatever spelling (`constexpr`, an alias, a string)."""
        arguments = function.node.args
        names = self.bindings.get(function.ref.file, {})
        found = set()
        for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
            if argument.annotation is None:
                continue
            text = ast.unparse(argument.annotation)
            bound = names.get(text)
            if "constexpr" in text or (isinstance(bound, TritonObject) and bound.attribute == "constexpr"):
                found.add(argument.arg)
        return frozenset(found)


# ------------------------------------------------------------------------------------------------------ specializations


@dataclass(frozen=True, slots=True)
class Dtype:
    """A Triton dtype as a value, e.g. `Dtype("float16")` for `tl.float16`."""

    name: str


@dataclass(frozen=True, slots=True)
class Target:
    """A compilation target, as in `triton.backends.compiler.GPUTarget`."""

    backend: str = "cuda"
    arch: int | str = 90
    warp_size: int = 32

    def __str__(self) -> str:
        return f"sm_{self.arch}" if self.backend == "cuda" else str(self.arch)


# None, bool, int, float, str, Dtype, FunctionRef, or a tuple of these.
ConstexprValue = object


@dataclass(frozen=True, slots=True)
class Specialization:
    """One way the kernel can be compiled.

    `signature` gives each parameter's Triton type in order: "*fp32", "i32", "fp32", "u1", "constexpr",
    "tensordesc<fp16[64, 64]>", or a tuple of those for a tuple parameter. `constexprs` gives the value of each
    "constexpr" parameter. `origin` says in words where it comes from ("autotune config 2, HAS_BIAS=True").
    """

    signature: tuple[tuple[str, object], ...]
    constexprs: tuple[tuple[str, ConstexprValue], ...]
    origin: str = ""

    def with_types(self, **types: object) -> Specialization:
        return Specialization(
            tuple((name, types.get(name, kind)) for name, kind in self.signature), self.constexprs, self.origin
        )

    def type_of(self, parameter: str) -> object:
        return dict(self.signature).get(parameter)


STRIDES_APART = (
    *(509, 521, 523, 541, 547, 557, 563, 569, 571, 577, 587, 593),
    *(599, 601, 607, 613, 617, 619, 631, 641, 643, 647, 653, 659),
)
"""What compile-time strides that nothing gives a value are taken to be: primes, so that each part of a compiled address shows
which of them it is a multiple of."""


class Evidence(enum.Enum):
    """Where a parameter's type or value was read, strongest first."""

    OVERRIDE = "given on the command line"
    AUTOTUNE = "autotune configuration"
    LAUNCH = "launch site"
    ALLOCATION = "the launcher's allocation"
    DEFAULT = "default value"
    ANNOTATION = "annotation"
    BRANCH = "branch of the kernel"
    USE = "inferred from use"
    NAME = "inferred from the name"
    REPAIR = "found by trying"
    GUESS = "guessed"


@dataclass(frozen=True, slots=True)
class ParameterFact:
    """What one parameter was taken for, and why."""

    name: str
    kind: str  # "pointer" | "scalar" | "constexpr" | "descriptor" | "tuple"
    type: object  # the Triton type, or the constexpr's values
    evidence: Evidence
    detail: str = ""


# ------------------------------------------------------------------------------------------------------ memory accesses


class MemoryEffect(enum.Enum):
    READ = "read"
    WRITE = "write"
    ACCUMULATE = "atomic update"
    UNKNOWN = "unknown"


ANYWHERE = "*"
"""The root of a pointer that does not come from a parameter (loaded from memory, cast from an integer)."""


@dataclass(frozen=True, slots=True)
class FlowStep:
    """One place on a pointer's way from a parameter to an access, and what happens to it there: a clause that follows
    "the pointer", such as "is passed to `helper`"."""

    location: Location
    words: str


@dataclass(frozen=True, slots=True)
class MemoryAccess:
    """One operation of one lowered kernel that touches memory, reached by one chain of calls.

    `roots` are the kernel parameters its pointer may come from (`ANYWHERE` where that is unknown). `call_path` holds the
    locations of the calls that lead to it, outermost first; empty for an access in the kernel itself. For a store,
    `value_type` and `element_type` are TTIR element types ("f32", "f16", "i1", ...) before and after the cast that the
    store performs, and `implicit_cast` names that cast's operation ("arith.truncf"), None when it performs none. A store
    through a `block_pointer` never casts: Triton rejects a value of another type.
    `flow` is the way the pointer came, from the parameter to here, for diagnostics; `witness` says it in words, for each
    root. `reason` says why an UNKNOWN effect is unknown.
    """

    effect: MemoryEffect
    operation: str
    roots: frozenset[str]
    location: Location
    call_path: tuple[Location, ...] = ()
    value_type: str = ""
    element_type: str = ""
    implicit_cast: str | None = None
    bitcast_pointer: bool = False
    block_pointer: bool = False
    flow: tuple[Location, ...] = ()
    reason: str = ""
    witness: tuple[tuple[str, tuple[FlowStep, ...]], ...] = ()

    def way_from(self, root: str) -> tuple[FlowStep, ...]:
        """The steps by which the pointer of parameter `root` gets here."""
        return dict(self.witness).get(root, ())


# ------------------------------------------------------------------------------------------------------------- operands


class OperandKind(enum.Enum):
    """How an operand of an epilogue lies over the output."""

    SCALAR = "scalar"
    ROW = "row"
    COLUMN = "column"
    TILE = "tile"
    INDEXED = "indexed"
    STORED = "stored"


@dataclass(frozen=True, slots=True)
class Operand:
    """A value beside the stored one that an epilogue reads.

    SCALAR: a Python number at launch or, with a `dtype`, a tensor of one element. ROW: one value for each column of the
    output. COLUMN: one for each row. TILE: one for each element, in the output's own layout. INDEXED: a tensor read at
    `index`, an expression in the kernel's own names. STORED: the value that the kernel stores at the same place to another
    output, whose name it has.

    `dtype` is torch's name of the element type ("float32"); "" means that of the output. A row, a column or a tile that is
    `strided` comes with its own strides, which a launch passes along.
    """

    name: str
    kind: OperandKind
    dtype: str = ""
    index: str = ""
    strided: bool = False

    @property
    def is_stored(self) -> bool:
        """Whether it is what the kernel stores to another output, so that nothing is read for it."""
        return self.kind is OperandKind.STORED

    @property
    def is_number(self) -> bool:
        """Whether the kernel takes it as a number, not as a pointer."""
        return self.kind is OperandKind.SCALAR and not self.dtype


# ------------------------------------------------------------------------------------------------------------- promises


@dataclass(frozen=True, slots=True)
class Assumption:
    """What the proof takes from the caller: a stable name (for `--assume`) and a sentence."""

    name: str
    statement: str


@dataclass(frozen=True, slots=True)
class WriteOnlyProof:
    """`output` is only ever written, in each of `specializations`; `stores` are its store calls in the source, and
    `unreached` those that no launch can compile, which were left alone. `stored_as` is torch's name of the element type that
    the epilogue gives it, "" where it keeps its own. `dropped`: the fused kernel does without it."""

    output: str
    specializations: tuple[Specialization, ...]
    stores: tuple[Span, ...]
    assumptions: tuple[Assumption, ...] = ()
    unreached: tuple[Span, ...] = ()
    stored_as: str = ""
    dropped: bool = False


@dataclass(frozen=True, slots=True)
class ReadOnlyProof:
    """`input` is only ever read, in each of `specializations`; `loads` are its load calls in the source, and `unreached`
    those that no launch can compile, which were left alone."""

    input: str
    specializations: tuple[Specialization, ...]
    loads: tuple[Span, ...]
    assumptions: tuple[Assumption, ...] = ()
    unreached: tuple[Span, ...] = ()


@dataclass(frozen=True, slots=True)
class Edit:
    """Replace the text of `span` by `replacement`; an empty span inserts."""

    span: Span
    replacement: str
    why: str = ""


class InternalError(Exception):
    """A bug of kernel-rewrite itself; reported with KR9xx, never blamed on the user's file.

    `folder` is where everything that is needed to report it was kept, if anything was."""

    folder: str | None = None
