"""TTIR text -> values: `parse(text)` gives the module as functions, blocks, operations and SSA values.

The text is the only complete view of TTIR that every supported Triton gives (its Python bindings lack locations and
constants), so it is read as text, line by line: MLIR prints one operation a line and opens a region at a line's end.
Nothing is skipped: a line that fits no rule raises `TtirSyntaxError`, and a type that cannot be derived is
`UNKNOWN_TYPE`, which no analysis takes for harmless.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from kernel_rewrite.model import InternalError, Location

UNKNOWN_TYPE = "?"
"""The type of a result whose operation prints none we know how to read."""


class TtirSyntaxError(InternalError):
    """TTIR text that this parser does not understand; `line` is its 1-based line in the text."""

    def __init__(self, message: str, line: int, text: str) -> None:
        self.line = line
        self.text = text
        super().__init__(f"TTIR line {line}: {message}: {text.strip()[:200]}")


# ------------------------------------------------------------------------------------------------------------ the nouns


@dataclass(frozen=True, slots=True, eq=False)
class Value:
    """One SSA value; compared by identity, because sibling regions reuse names."""

    name: str
    type: str

    def __repr__(self) -> str:
        return f"{self.name}: {self.type}"


@dataclass(frozen=True, slots=True)
class Successor:
    """A branch target and the values handed to its block arguments."""

    label: str
    operands: tuple[Value, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Operation:
    """One operation.

    `attributes` is the printed text between name and types with every operand replaced by `%`, so two operations with
    equal names, attributes and types differ only in operands. `types` is the printed type section. `operands` includes
    those handed to successors, in printed order. `text` is the printed line (its head, for one with regions).
    `location_names` are the names the location carries, outermost first: the source variable the value was last bound
    to comes first.
    """

    name: str
    results: tuple[Value, ...]
    operands: tuple[Value, ...]
    attributes: str
    types: str
    regions: tuple[Region, ...]
    successors: tuple[Successor, ...]
    location: Location | None
    location_names: tuple[str, ...]
    text: str

    @property
    def operand_types(self) -> tuple[str, ...]:
        return tuple(operand.type for operand in self.operands)

    @property
    def result_types(self) -> tuple[str, ...]:
        return tuple(result.type for result in self.results)

    @property
    def callee(self) -> str | None:
        """The symbol that a `tt.call` names."""
        match = _SYMBOL.match(self.attributes)
        return None if match is None else _symbol(match)

    def attribute(self, name: str) -> str | None:
        """The raw text of attribute `name` (`pure = true` gives "true"); None when it is absent."""
        for match in re.finditer(rf"(?<![\w.]){re.escape(name)} = ", _masked(self.attributes)):
            return _until_separator(self.attributes, match.end())
        return None

    def walk(self) -> Iterator[Operation]:
        """This operation and all inside its regions."""
        yield self
        for region in self.regions:
            for block in region.blocks:
                for operation in block.operations:
                    yield from operation.walk()


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    label: str
    arguments: tuple[Value, ...]
    operations: tuple[Operation, ...]

    @property
    def terminator(self) -> Operation | None:
        return self.operations[-1] if self.operations else None


@dataclass(frozen=True, slots=True, eq=False)
class Region:
    blocks: tuple[Block, ...]

    @property
    def arguments(self) -> tuple[Value, ...]:
        return self.blocks[0].arguments if self.blocks else ()

    def reachable(self) -> tuple[Block, ...]:
        """The blocks that control can reach from the first, in printed order."""
        if len(self.blocks) <= 1:
            return self.blocks
        by_label = {block.label: block for block in self.blocks}
        seen = {self.blocks[0].label}
        pending = [self.blocks[0]]
        while pending:
            for operation in pending.pop().operations:
                for successor in operation.successors:
                    if successor.label not in seen:
                        seen.add(successor.label)
                        pending.append(by_label[successor.label])
        return tuple(block for block in self.blocks if block.label in seen)


@dataclass(frozen=True, slots=True, eq=False)
class Parameter:
    """A TTIR function parameter. `name` is the source parameter's: the innermost name of its location, because Triton
    renames the value itself when the source says `q = out_ptr`."""

    name: str
    type: str
    value: Value
    attributes: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Function:
    name: str
    public: bool
    parameters: tuple[Parameter, ...]
    result_types: tuple[str, ...]
    body: Region
    location: Location | None
    attributes: str = ""

    @property
    def blocks(self) -> tuple[Block, ...]:
        return self.body.blocks

    def walk(self) -> Iterator[Operation]:
        for block in self.body.blocks:
            for operation in block.operations:
                yield from operation.walk()


@dataclass(frozen=True, slots=True, eq=False)
class Module:
    """`call_locations`: an operation's location is where its call starts (Triton 3.9), not where the last argument that
    Triton visited stands (up to 3.7)."""

    functions: tuple[Function, ...]
    by_name: dict[str, Function] = field(repr=False)
    call_locations: bool = False

    @property
    def kernel(self) -> Function:
        """The public function: the kernel itself."""
        public = [function for function in self.functions if function.public]
        if len(public) != 1:
            raise TtirSyntaxError(f"expected one public function, found {len(public)}", 1, "")
        return public[0]

    def function(self, name: str) -> Function | None:
        return self.by_name.get(name)


# ---------------------------------------------------------------------------------------------------------------- types

_TENSOR = re.compile(r"tensor<((?:\d+x)*)(.+)>", re.DOTALL)


@functools.lru_cache(maxsize=4096)
def split_tensor(type_: str) -> tuple[str, str]:
    """`tensor<64x32x!tt.ptr<f16>>` -> ("64x32x", "!tt.ptr<f16>"); a scalar type has the shape ""."""
    match = _TENSOR.fullmatch(type_)
    if match is None:
        return "", type_
    shape, element = match.groups()
    # an encoding (`tensor<64xf32, #blocked>`) is not part of the element
    return shape, element.split(", #", 1)[0]


def with_shape_of(type_: str, element: str) -> str:
    """`element` in the shape of `type_`."""
    shape, _ = split_tensor(type_)
    return f"tensor<{shape}{element}>" if shape else element


def element_type(type_: str) -> str:
    """`tensor<64xf16>` -> "f16"; a scalar is its own element type."""
    return split_tensor(type_)[1]


def lengths_of(type_: str) -> tuple[int, ...]:
    """`tensor<64x32xf16>` -> (64, 32); () for a scalar."""
    return tuple(int(length) for length in split_tensor(type_)[0].split("x") if length)


def is_pointer(type_: str) -> bool:
    """Whether a value of this type is, or holds, an address: pointers, tensors of pointers, block pointers,
    descriptors, and types that are not known."""
    return "!tt.ptr" in type_ or "!tt.tensordesc" in type_ or "!tt.nv_tma" in type_ or type_ == UNKNOWN_TYPE


def pointee_type(type_: str) -> str:
    """What a load through this type yields, in the pointer's own shape: `tensor<64x!tt.ptr<f16>>` -> "tensor<64xf16>",
    `!tt.ptr<tensor<64x64xf16>>` -> "tensor<64x64xf16>", `!tt.tensordesc<64x64xf16>` -> "tensor<64x64xf16>"."""
    shape, element = split_tensor(type_)
    if element.startswith("!tt.ptr<") and element.endswith(">"):
        pointee = _top_level(element[len("!tt.ptr<") : -1])[0]  # `!tt.ptr<f16, 1>` names an address space
        return f"tensor<{shape}{pointee}>" if shape else pointee
    if element.startswith("!tt.tensordesc<") and element.endswith(">"):
        block = element[len("!tt.tensordesc<") : -1]
        return block if block.startswith("tensor<") else f"tensor<{block}>"
    return UNKNOWN_TYPE


# ---------------------------------------------------------------------------------------------- text: strings, brackets

_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_BRACKET = re.compile(r"->|=>|[(\[{<]|[)\]}>]|,| : ")
_ESCAPE = re.compile(r'\\([0-9A-Fa-f]{2}|["\\nt])')
_SYMBOL = re.compile(r'@(?:"((?:[^"\\]|\\.)*)"|([\w.$-]+))')
_LETTER_ESCAPES = {'"': '"', "\\": "\\", "n": "\n", "t": "\t"}


def _masked(text: str) -> str:
    """`text` with the contents of its string literals blanked, every other character where it was."""
    if '"' not in text:
        return text
    return _STRING.sub(lambda match: '"' + "_" * (len(match[0]) - 2) + '"', text)


def unescaped(text: str) -> str:
    """The characters an MLIR string literal stands for (its inside; `\\22` is a quote)."""
    if "\\" not in text:
        return text
    raw = _ESCAPE.sub(lambda match: _LETTER_ESCAPES.get(match[1]) or chr(int(match[1], 16)), text)
    try:
        return raw.encode("latin-1").decode("utf-8")
    except (UnicodeDecodeError, UnicodeEncodeError):
        return raw


def _symbol(match: re.Match[str]) -> str:
    return match[2] if match[1] is None else unescaped(match[1])


def _top_level(text: str, separator: str = ",") -> list[str]:
    """The parts of `text` between separators that stand outside all brackets and strings."""
    if separator not in text:
        return [text.strip()] if text.strip() else []
    parts, start, depth = [], 0, 0
    for match in _BRACKET.finditer(_masked(text)):
        token = match[0]
        if token in "([{<":
            depth += 1
        elif token in ")]}>":
            depth -= 1
        elif token == separator and depth == 0:
            parts.append(text[start : match.start()].strip())
            start = match.end()
    return [*parts, text[start:].strip()]


def _until_separator(text: str, start: int) -> str:
    """`text` from `start` to the comma or closing bracket that ends the item there."""
    depth = 0
    for match in _BRACKET.finditer(_masked(text), start):
        token = match[0]
        if token in "([{<":
            depth += 1
        elif token in ")]}>":
            if depth == 0:
                return text[start : match.start()].strip()
            depth -= 1
        elif token == "," and depth == 0:
            return text[start : match.start()].strip()
    return text[start:].strip()


def _split_types(body: str, masked: str) -> tuple[str, str]:
    """A body split at its last ` : ` outside brackets: (`%x, %y `, ` tensor<64xf32>`)."""
    depth, cut = 0, -1
    if " : " not in masked:
        # without operands there is no colon: tt.elementwise_inline_asm "mov.u32 $0, %smid;" {...} -> i32
        before, arrow, _ = masked.partition(" -> ")
        return (body[: len(before)], body[len(before) + 1 :].strip()) if arrow else (body, "")
    for match in _BRACKET.finditer(masked):
        token = match[0]
        if token in "([{<":
            depth += 1
        elif token in ")]}>":
            depth -= 1
        elif token == " : " and depth == 0:
            cut = match.start()
    return (body, "") if cut < 0 else (body[:cut], body[cut + 3 :].strip())


# ------------------------------------------------------------------------------------------------------------ locations


@dataclass(frozen=True, slots=True)
class _Place:
    """A resolved `loc(...)`: where, and the names around it, outermost first."""

    location: Location | None = None
    names: tuple[str, ...] = ()


_NOWHERE = _Place()
_FILE_LOCATION = re.compile(r'"((?:[^"\\]|\\.)*)":(\d+):(\d+)(?: to (?:\d+)?:\d+)?')
_NAME_LOCATION = re.compile(r'"((?:[^"\\]|\\.)*)"(?:\((.*)\))?', re.DOTALL)
_ALIAS = re.compile(r"#loc\d*")
_ALIAS_DEFINITION = re.compile(r"(#loc\d*) = loc\((.*)\)\s*", re.DOTALL)


class _Locations:
    """The `#locN` aliases of one module, resolved once each."""

    def __init__(self, definitions: dict[str, str], column_base: int) -> None:
        self._definitions = definitions
        self._column_base = column_base
        self._resolved: dict[str, _Place] = {}

    def resolve(self, text: str) -> _Place:
        """The place that the inside of a `loc(...)` stands for."""
        place = self._resolved.get(text)
        if place is None:
            place = self._resolved[text] = self._read(text)
        return place

    def _read(self, text: str) -> _Place:
        if _ALIAS.fullmatch(text):
            if text not in self._definitions:
                raise ValueError(f"undefined location {text}")
            return self.resolve(self._definitions[text])
        if text == "unknown":
            return _NOWHERE
        if text.startswith('"'):
            return self._named(text)
        if text.startswith("callsite(") and text.endswith(")"):
            # loc(callsite(#callee at #caller))
            return self.resolve(_top_level_at(text[len("callsite(") : -1]))
        if text.startswith("fused"):
            inside = text[text.index("[") + 1 : text.rindex("]")] if "[" in text else ""
            places = [self.resolve(_without_loc(part)) for part in _top_level(inside)]
            return next((place for place in places if place.location is not None), _NOWHERE)
        raise ValueError(f"unknown form of location {text!r}")

    def _named(self, text: str) -> _Place:
        """`"file.py":3:4`, or `"variable"(#loc7)`."""
        place = _file_location(text, self._column_base)
        if place is not None:
            return place
        match = _NAME_LOCATION.fullmatch(text)
        if match is None:
            raise ValueError(f"unknown form of location {text!r}")
        child = self.resolve(_without_loc(match[2])) if match[2] else _NOWHERE
        return _Place(child.location, (unescaped(match[1]), *child.names))


@functools.lru_cache(maxsize=1 << 13)
def _file_location(text: str, column_base: int) -> _Place | None:
    match = _FILE_LOCATION.fullmatch(text)
    if match is None:
        return None
    return _Place(Location(unescaped(match[1]), int(match[2]), max(int(match[3]) - column_base, 0)))


def _without_loc(text: str) -> str:
    return text[4:-1] if text.startswith("loc(") and text.endswith(")") else text


def _top_level_at(text: str) -> str:
    cut = _masked(text).find(" at ")
    return _without_loc(text[:cut] if cut >= 0 else text)


def _column_base(text: str, definitions: dict[str, str]) -> int:
    """0 or 1: the column of a function's `def`, which Triton counts from 0 up to 3.8 and from 1 later."""
    # } loc(#loc)   ends a function; `module` has the kernel's location too
    aliases = {match[1] for match in re.finditer(r"^  \} loc\((.*)\)$", text, re.MULTILINE)}
    columns = set()
    for alias in aliases:
        match = _FILE_LOCATION.fullmatch(definitions.get(alias, alias))
        if match is not None:
            columns.add(int(match[3]))
    return 1 if columns and min(columns) >= 1 else 0


# --------------------------------------------------------------------------------------------- the first pass: raw tree


@dataclass(slots=True)
class _RawBlock:
    label: str
    arguments: list[tuple[str, str]]
    operations: list[_RawOperation] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Line:
    """What the text of one operation says, apart from its regions and its location: the same wherever it stands."""

    name: str
    results: tuple[tuple[str, str], ...]  # name, type
    operands: tuple[str, ...]
    body: str
    types: str
    successors: tuple[tuple[str, int, int], ...] = ()  # label, first operand, end operand


@dataclass(slots=True)
class _RawOperation:
    said: _Line
    text: str
    line: int
    place: _Place
    regions: Sequence[list[_RawBlock]] = ()


_NAME = r"%[\w.$-]+"
_USE = re.compile(r"%[\w.$-]+(?:#\d+)?")
_OPERATION_HEAD = re.compile(
    rf"(?:(?P<results>{_NAME}(?::\d+)?(?:, {_NAME}(?::\d+)?)*) = )?"
    r'(?:"(?P<generic>[\w.]+)"|(?P<name>[A-Za-z_]\w*(?:\.\w+)+))'
)
_LOCATION_END = re.compile(r" loc\((#loc\d*|unknown)\)$")
_LABEL = re.compile(r"(\^\w+)(?:\((.*)\))?:(?:\s*//.*)?", re.DOTALL)
_TARGET = re.compile(r"(\^\w+)(\()?")
_FUNCTION = re.compile(r'tt\.func (?:(public|private|nested) )?@(?:"((?:[^"\\]|\\.)*)"|([\w.$-]+))\(')
_FOR = re.compile(
    rf"(?P<unsigned>unsigned )?(?P<variable>{_NAME}) = (?P<bounds>\S+ to \S+ step \S+?)\s*"
    r"(?:iter_args\((?P<carried>.*)\) -> \((?P<results>.*)\))?\s*(?:: (?P<type>\S+))?",
    re.DOTALL,
)
_WHILE = re.compile(r"(?:\((?P<carried>.*)\) )?: \((?P<operands>.*?)\) -> (?P<results>.*)", re.DOTALL)
_CARRIED = re.compile(rf"({_NAME}) = (%[\w.$-]+(?:#\d+)?)")
_PARAMETER = re.compile(rf"({_NAME}): (.*?)(?: (\{{.*\}}))?(?: loc\((.*)\))?", re.DOTALL)
_DEFAULT_INDUCTION_TYPE = "index"


class _Reader:
    """One pass over the lines of a module."""

    def __init__(self, text: str) -> None:
        self.definitions: dict[str, str] = {}
        self.lines: list[tuple[int, str]] = []
        for number, raw in enumerate(text.splitlines(), 1):
            line = raw.strip()
            if not line or line.startswith("//"):
                continue
            if line.startswith("#loc"):
                match = _ALIAS_DEFINITION.fullmatch(line)
                if match is None:
                    raise TtirSyntaxError("unreadable location", number, line)
                self.definitions[match[1]] = match[2]
            else:
                self.lines.append((number, line))
        self.column_base = _column_base(text, self.definitions)
        self.locations = _Locations(self.definitions, self.column_base)
        self.position = 0

    # -- lines

    def error(self, message: str) -> TtirSyntaxError:
        number, line = self.lines[min(self.position, len(self.lines) - 1)] if self.lines else (1, "")
        return TtirSyntaxError(message, number, line)

    def peek(self) -> str:
        if self.position >= len(self.lines):
            raise self.error("the text ends inside a region")
        return self.lines[self.position][1]

    def place(self, text: str) -> _Place:
        try:
            return self.locations.resolve(text)
        except ValueError as error:
            raise self.error(str(error)) from None

    def cut_location(self, line: str) -> tuple[str, _Place]:
        """`line` without its trailing `loc(...)`, and where that is."""
        match = _LOCATION_END.search(line)
        if match is not None:
            return line[: match.start()], self.place(match[1])
        masked = _masked(line)
        start = masked.rfind(" loc(")
        if start < 0 or not line.endswith(")"):
            return line, _NOWHERE
        # a location that stands inside an argument list is not the line's own
        if masked.count("(", start) != masked.count(")", start):
            return line, _NOWHERE
        return line[:start], self.place(line[start + 5 : -1])

    # -- module and functions

    def module(self) -> list[Function]:
        if not self.lines or not re.fullmatch(r"module(?: attributes \{.*\})? \{", self.peek()):
            raise self.error("expected a module")
        self.position += 1
        functions = []
        while not self.peek().startswith("}"):
            functions.append(self.function())
        rest, _ = self.cut_location(self.peek())
        if rest != "}":
            raise self.error("expected the end of the module")
        self.position += 1
        if self.position != len(self.lines):
            raise self.error("text after the module")
        return functions

    def function(self) -> Function:
        line = self.peek()
        match = _FUNCTION.match(line)
        if match is None:
            raise self.error("expected a function")
        name = match[3] if match[2] is None else unescaped(match[2])
        end = self.closing(line, match.end() - 1)
        parameters = [self.parameter(part) for part in _top_level(line[match.end() : end])]
        rest = line[end + 1 :].strip()
        has_body = rest.endswith("{")
        place = _NOWHERE
        if has_body:
            rest = rest[:-1].strip()
        else:
            rest, place = self.cut_location(" " + rest)
            rest = rest.strip()
        cut = rest.find("attributes {")
        attributes = rest[cut:] if cut >= 0 else ""
        results = rest[:cut] if cut >= 0 else rest
        result_types = _result_list(results.removeprefix("->").strip()) if results.startswith("->") else []
        if results.strip() and not results.startswith("->"):
            raise self.error("unreadable function head")
        self.position += 1
        body = Region(())
        if has_body:
            raw = self.region([(p.value.name, p.type) for p in parameters])
            rest, place = self.cut_location(self.peek())
            if rest != "}":
                raise self.error("expected the end of the function")
            self.position += 1
            body = _resolve(raw, [p.value for p in parameters])
        return Function(
            name, match[1] != "private", tuple(parameters), tuple(result_types), body, place.location, attributes
        )

    def parameter(self, text: str) -> Parameter:
        """`%o: !tt.ptr<f16> {tt.divisibility = 16 : i32} loc("o"(#loc))`"""
        match = _PARAMETER.fullmatch(text)
        if match is None:
            raise self.error(f"unreadable parameter {text!r}")
        place = self.place(match[4]) if match[4] else _NOWHERE
        name = place.names[-1] if place.names else match[1][1:]
        return Parameter(name, match[2], Value(match[1], match[2]), match[3] or "")

    def closing(self, text: str, start: int) -> int:
        try:
            return _closing(text, start)
        except ValueError as error:
            raise self.error(str(error)) from None

    # -- regions, blocks, operations

    def region(self, arguments: list[tuple[str, str]]) -> list[_RawBlock]:
        """The blocks up to the line that closes the region, which stays unread."""
        blocks = [_RawBlock("^entry", arguments)]
        first = True
        while not (line := self.peek()).startswith("}"):
            if line.startswith("^"):
                label, block_arguments = self.label(line)
                self.position += 1
                if first and not arguments and not blocks[0].operations:
                    blocks = []
                blocks.append(_RawBlock(label, block_arguments))
            else:
                blocks[-1].operations.append(self.operation())
            first = False
        return blocks

    def label(self, line: str) -> tuple[str, list[tuple[str, str]]]:
        match = _LABEL.fullmatch(line)
        if match is None:
            raise self.error("unreadable block label")
        parameters = [self.parameter(part) for part in _top_level(match[2])] if match[2] else []
        return match[1], [(p.value.name, p.type) for p in parameters]

    def operation(self) -> _RawOperation:
        number, text = self.lines[self.position]
        if text.endswith("{"):
            return self.with_regions(number, text)
        line, place = self.cut_location(text)
        said = self.said(line)
        self.position += 1
        return _RawOperation(said, text, number, place)

    def said(self, line: str) -> _Line:
        try:
            return _said(line)
        except ValueError as error:
            raise self.error(str(error)) from None

    def with_regions(self, number: int, text: str) -> _RawOperation:
        head = _OPERATION_HEAD.match(text)
        if head is None:
            raise self.error("expected an operation")
        regions: list[list[_RawBlock]] = []
        if head["generic"] is not None:
            said, place = self.generic(text, regions)
        elif head["name"] in _REGION_OPERATIONS:
            results, name, rest = _results_of(head["results"]), head["name"], text[head.end() :]
            types, operands, unsigned = _REGION_OPERATIONS[name](self, rest, regions)
            attributes, place = self.close(name)
            said = _line(name, results, operands, f"{unsigned} {attributes}".strip(), types)
        else:
            raise self.error(f"a region of {head['name']}, which is not known")
        return _RawOperation(said, text, number, place, regions)

    def generic(self, text: str, regions: list[list[_RawBlock]]) -> tuple[_Line, _Place]:
        """`"tt.reduce"(%x) <{axis = 0 : i32}> ({ ... }) : (T) -> U loc(...)`"""
        if not text.endswith("({"):
            raise self.error("unreadable start of a region")
        self.position += 1
        while True:
            regions.append(self.region([]))
            line = self.peek()
            self.position += 1
            if line != "}, {":
                break
        self.position -= 1
        if not line.startswith("})"):
            raise self.error("unreadable end of a region")
        tail, place = self.cut_location(line)
        said = self.said(f"{text[:-2]} {tail[2:]}")
        self.position += 1
        return said, place

    def close(self, name: str) -> tuple[str, _Place]:
        """`} {tt.num_stages = 3 : i32} loc(#loc1)`: the attributes printed after the regions, and the location."""
        rest, place = self.cut_location(self.peek())
        attributes = rest[1:].strip()
        if attributes and not re.fullmatch(r"(?:attributes )?\{.*\}", attributes):
            raise self.error(f"unreadable end of {name}")
        self.position += 1
        return attributes, place

    def head(self, rest: str) -> str:
        self.position += 1
        return rest[:-1].strip()

    def scf_for(self, rest: str, regions: list[list[_RawBlock]]) -> _RegionHead:
        # scf.for %j = %1 to %2 step %3 iter_args(%x_9 = %x_7, %q_10 = %o) -> (tensor<64xf32>, !tt.ptr<f16>)  : i32 {
        match = _FOR.fullmatch(self.head(rest))
        if match is None:
            self.position -= 1
            raise self.error("unreadable loop head")
        bounds = _USE.findall(match["bounds"])
        induction = match["type"] or _DEFAULT_INDUCTION_TYPE
        carried = self.carried(match["carried"])
        types = _top_level(match["results"] or "")
        if len(bounds) != 3 or len(carried) != len(types):
            self.position -= 1
            raise self.error("unreadable loop head")
        arguments = [(match["variable"], induction), *((name, t) for (name, _), t in zip(carried, types, strict=True))]
        regions.append(self.region(arguments))
        operands = (*bounds, *(init for _, init in carried))
        return f"{induction} -> ({', '.join(types)})", operands, (match["unsigned"] or "").strip()

    def scf_while(self, rest: str, regions: list[list[_RawBlock]]) -> _RegionHead:
        # scf.while (%i_16 = %i) : (i32) -> i32 {   ...   } do {   ^bb0(%i_16: i32 loc("i")):   ...   }
        match = _WHILE.fullmatch(self.head(rest))
        carried = self.carried(match["carried"]) if match else []
        types = _top_level(match["operands"]) if match else []
        if match is None or len(carried) != len(types):
            self.position -= 1
            raise self.error("unreadable loop head")
        regions.append(self.region([(name, t) for (name, _), t in zip(carried, types, strict=True)]))
        if self.peek() != "} do {":
            raise self.error("expected the body of the loop")
        self.position += 1
        regions.append(self.region([]))
        return f"({match['operands']}) -> {match['results']}", tuple(init for _, init in carried), ""

    def scf_if(self, rest: str, regions: list[list[_RawBlock]]) -> _RegionHead:
        # scf.if %0 -> (!tt.ptr<f32>, i32) {   ...   } else {   ...   }
        condition, arrow, types = self.head(rest).partition(" -> ")
        operands = tuple(_USE.findall(condition))
        if len(operands) != 1 or operands[0] != condition.strip():
            self.position -= 1
            raise self.error("unreadable branch head")
        regions.append(self.region([]))
        if self.peek() == "} else {":
            self.position += 1
            regions.append(self.region([]))
        return f"-> {types}" if arrow else "", operands, ""

    def carried(self, text: str | None) -> list[tuple[str, str]]:
        pairs = []
        for part in _top_level(text or ""):
            match = _CARRIED.fullmatch(part)
            if match is None:
                raise self.error(f"unreadable loop value {part!r}")
            pairs.append((match[1], match[2]))
        return pairs


_RegionHead = tuple[str, tuple[str, ...], str]
"""What the head of an operation with regions says: its types, its operands, its flags."""

_REGION_OPERATIONS: dict[str, Callable[[_Reader, str, list[list[_RawBlock]]], _RegionHead]] = {
    "scf.for": _Reader.scf_for,
    "scf.while": _Reader.scf_while,
    "scf.if": _Reader.scf_if,
}


# ------------------------------------------------------------------------------------------- one line, without context


@functools.lru_cache(maxsize=1 << 15)
def _said(line: str) -> _Line:
    """What an operation's line says, location cut off. Kept, because the ways to compile one kernel share most lines.

    Raises ValueError.
    """
    head = _OPERATION_HEAD.match(line)
    if head is None:
        raise ValueError("expected an operation")
    body = line[head.end() :]
    masked = _masked(body)
    if masked.count("{") != masked.count("}") or masked.count("(") != masked.count(")"):
        raise ValueError("unbalanced brackets")
    before, types = _split_types(body, masked)
    masked = masked[: len(before)]
    if "%" in types:
        raise ValueError("operands after the types")
    successors = tuple(_successors(masked)) if "^" in masked else ()
    operands, pieces, last = [], [], 0
    for use in _USE.finditer(masked):
        operands.append(use[0])
        pieces.append(before[last : use.start()])
        last = use.end()
    pieces.append(before[last:])
    name = head["generic"] or head["name"]
    return _line(name, _results_of(head["results"]), operands, "%".join(pieces).strip(), types, successors)


def _line(
    name: str,
    results: Sequence[tuple[str, int]],
    operands: Sequence[str],
    body: str,
    types: str,
    successors: tuple[tuple[str, int, int], ...] = (),
) -> _Line:
    names = [full for result, n in results for full in ([result] if n == 1 else [f"{result}#{k}" for k in range(n)])]
    found = result_types(name, body, types, len(names)) if names else []
    return _Line(name, tuple(zip(names, found, strict=True)), tuple(operands), body, types, successors)


def _results_of(text: str | None) -> list[tuple[str, int]]:
    """`%x, %y:2` -> the names, and how many values each stands for."""
    parts = (part.partition(":") for part in text.split(", ")) if text else ()
    return [(name, int(count or 1)) for name, _, count in parts]


def _successors(masked: str) -> Iterator[tuple[str, int, int]]:
    # cf.cond_br %0, ^bb1(%x, %o : f32, !tt.ptr<f16>), ^bb2
    for target in _TARGET.finditer(masked):
        first = len(_USE.findall(masked, 0, target.start()))
        end = first
        if target[2]:
            end = first + len(_USE.findall(masked, target.end(), _closing(masked, target.end() - 1)))
        yield target[1], first, end


def _closing(text: str, start: int) -> int:
    """The index of the bracket that closes the one at `start`. Raises ValueError."""
    depth = 0
    for match in _BRACKET.finditer(_masked(text), start):
        if match[0] in "([{<":
            depth += 1
        elif match[0] in ")]}>":
            depth -= 1
            if depth == 0:
                return match.start()
    raise ValueError("unbalanced brackets")


# ------------------------------------------------------------------------------------------ the second pass: SSA values


class _Resolver:
    """Turns raw blocks into blocks whose operands are the `Value`s they name.

    MLIR names values uniquely along every chain of enclosing regions and reuses names between siblings, so one table
    serves, emptied of a region's names when it ends; a name met twice is an error.
    """

    def __init__(self) -> None:
        self.scope: dict[str, Value] = {}

    def region(self, raw_blocks: list[_RawBlock], entry_arguments: list[Value] | None = None) -> Region:
        defined: list[str] = []
        arguments: list[tuple[Value, ...]] = []
        for index, block in enumerate(raw_blocks):
            if index == 0 and entry_arguments is not None:
                values = tuple(entry_arguments)
            else:
                values = tuple(Value(name, type_) for name, type_ in block.arguments)
            for value in values:
                self._define(value.name, value, defined, next((raw for b in raw_blocks for raw in b.operations), None))
            arguments.append(values)
        # a block may use what a block printed later defines, so every name of the region comes before its operations
        pending = [raw for block in raw_blocks for raw in block.operations]
        results = iter([self._results(raw, defined) for raw in pending])
        blocks = []
        for block, values in zip(raw_blocks, arguments, strict=True):
            operations = tuple([self._operation(raw, next(results)) for raw in block.operations])
            blocks.append(Block(block.label, values, operations))
        labels = {block.label for block in blocks}
        for raw in pending:
            for label, _, _ in raw.said.successors:
                if label not in labels:
                    raise TtirSyntaxError(f"a branch to {label}, which is not here", raw.line, raw.text)
        for name in defined:
            del self.scope[name]
        return Region(tuple(blocks))

    def _define(self, name: str, value: Value, defined: list[str], at: _RawOperation | None) -> None:
        if name in self.scope:
            raise TtirSyntaxError(f"{name} is defined twice", at.line if at else 0, at.text if at else name)
        self.scope[name] = value
        defined.append(name)

    def _results(self, raw: _RawOperation, defined: list[str]) -> tuple[Value, ...]:
        values = tuple([Value(name, type_) for name, type_ in raw.said.results])
        for value in values:
            self._define(value.name, value, defined, raw)
        return values

    def _operation(self, raw: _RawOperation, results: tuple[Value, ...]) -> Operation:
        said, place = raw.said, raw.place
        try:
            operands = tuple([self.scope[name] for name in said.operands])
        except KeyError as error:
            raise TtirSyntaxError(f"{error.args[0]} is not defined", raw.line, raw.text) from None
        return Operation(
            said.name,
            results,
            operands,
            said.body,
            said.types,
            tuple([self.region(blocks) for blocks in raw.regions]),
            tuple([Successor(label, operands[a:b]) for label, a, b in said.successors]),
            place.location,
            place.names,
            raw.text,
        )


def _resolve(raw: list[_RawBlock], arguments: list[Value]) -> Region:
    return _Resolver().region(raw, arguments)


# --------------------------------------------------------------------------------------------------------- result types

# operations that print no arrow and whose results have the last printed type
_SAME_TYPE_DIALECTS = ("arith.", "math.")
_SAME_TYPE = frozenset(
    {
        "tt.make_range", "tt.get_program_id", "tt.get_num_programs", "tt.mulhiui", "tt.clampf", "tt.precise_sqrt",
        "tt.precise_divf", "tt.approx_divf", "ub.poison", "gpu.thread_id", "gpu.block_id",
    }
)  # fmt: skip


def result_types(name: str, body: str, types: str, count: int) -> list[str]:
    """The types of an operation's `count` results; `UNKNOWN_TYPE` where the printed text does not tell."""
    found = _derived(name, body, types)
    if len(found) == 1 and count > 1:
        found = found * count  # `tt.split %x : A -> B` has two results of type B
    return found if len(found) == count else [UNKNOWN_TYPE] * count


def _derived(name: str, body: str, types: str) -> list[str]:
    arrow = _arrow(types)
    if arrow is not None:
        return _result_list(arrow)
    if name.startswith("arith.") and " to " in types:
        return [types.rsplit(" to ", 1)[1].strip()]
    printed = _top_level(types)
    if (rule := _TYPE_RULES.get(name)) and printed:
        return [rule(printed)]
    if name == "arith.constant" and not types:
        return ["i1"] if body in ("true", "false") else [UNKNOWN_TYPE]
    if name in ("arith.addui_extended", "arith.mulsi_extended", "arith.mului_extended"):
        return [printed[0], printed[1] if len(printed) > 1 else printed[0]]
    if printed and (name in _SAME_TYPE or name.startswith(_SAME_TYPE_DIALECTS)):
        return [printed[-1]]
    return [UNKNOWN_TYPE]


_TYPE_RULES: dict[str, Callable[[list[str]], str]] = {
    # tt.load %p, %m : tensor<64x!tt.ptr<f32>>
    "tt.load": lambda printed: pointee_type(printed[0]),
    # tt.addptr %p, %o : tensor<64x!tt.ptr<f32>>, tensor<64xi32>
    "tt.addptr": lambda printed: printed[0],
    "arith.cmpi": lambda printed: with_shape_of(printed[0], "i1"),
    "arith.cmpf": lambda printed: with_shape_of(printed[0], "i1"),
    # tt.make_tensor_ptr %o, [...], [...], [...] {order = ...} : <tensor<16x16xf16>>
    "tt.make_tensor_ptr": lambda printed: f"!tt.ptr{printed[0]}",
    "tt.advance": lambda printed: f"!tt.ptr{printed[0]}",
    # tt.make_tensor_descriptor %o, [...], [...] : <f16>, <tensor<64x64xf16>>
    "tt.make_tensor_descriptor": lambda printed: f"!tt.tensordesc{printed[-1]}",
    "tt.unsplat": lambda printed: element_type(printed[0]),
}


def _arrow(types: str) -> str | None:
    """What stands right of a `->` outside brackets."""
    if "->" not in types:
        return None
    depth = 0
    for match in _BRACKET.finditer(types):
        token = match[0]
        if token == "->" and depth == 0:
            return types[match.end() :].strip()
        if token in "([{<":
            depth += 1
        elif token in ")]}>":
            depth -= 1
    return None


def _result_list(text: str) -> list[str]:
    """`(f32, i32)` or `f32` -> the types."""
    return _top_level(text[1:-1] if text.startswith("(") and text.endswith(")") else text)


# ------------------------------------------------------------------------------------------------------------- the door


def parse(text: str) -> Module:
    """The module that `text` prints. Raises `TtirSyntaxError` for anything not understood."""
    reader = _Reader(text)
    functions = tuple(reader.module())
    by_name = {function.name: function for function in functions}
    if len(by_name) != len(functions):
        raise TtirSyntaxError("two functions of one name", 1, "")
    return Module(functions, by_name, reader.column_base == 1)
