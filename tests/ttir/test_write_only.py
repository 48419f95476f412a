"""The verdict and its words; TTIR written by hand for what Triton does not emit; and random modules, run and judged."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kernel_rewrite.diagnostics import Diagnostic, render
from kernel_rewrite.model import ANYWHERE, Location, MemoryAccess, MemoryEffect, Span, Specialization
from kernel_rewrite.ttir.accesses import memory_accesses
from kernel_rewrite.ttir.effects import CODE, CONTROL, EFFECTS, NO_MEMORY, POINTER_FLOW, is_known
from kernel_rewrite.ttir.parse import parse
from kernel_rewrite.ttir.write_only import CHECKS, WriteOnlyVerdict, write_only

from .test_accesses import case, case_module, codes, judge, specialization, summary

ANY = Specialization((), ())


def module_text(body: str, functions: str = "", parameters: str = "a o") -> str:
    pointers = ", ".join(f'%{name}: !tt.ptr<f32> loc("{name}"(#loc))' for name in parameters.split())
    return (
        '#loc = loc("kernel.py":1:0)\nmodule {\n'
        f'  tt.func public @kernel({pointers}, %n: i32 loc("n"(#loc)), %c: i1 loc("c"(#loc)), %f: f32 loc("f"(#loc))) '
        f"attributes {{noinline = false}} {{\n{body}\n  }} loc(#loc)\n{functions}}} loc(#loc)\n"
    )


def at(line: int) -> str:
    return f'loc("kernel.py":{line}:4)'


def verdict(body: str, functions: str = "", output: str = "o") -> WriteOnlyVerdict:
    return judge(output, (ANY, memory_accesses(parse(module_text(body, functions)))))


STORE = f"    tt.store %o, %f : !tt.ptr<f32> {at(90)}\n    tt.return {at(91)}"


# -------------------------------------------------------------------------------- what Triton does not emit, or not yet


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("", ""),
        # M27: a call cycle; M32, M33: an operation that no table has
        (f"    tt.call @loop(%o, %n) : (!tt.ptr<f32>, i32) -> () {at(2)}", "KR203"),
        (f"    tt.call @loop(%a, %n) : (!tt.ptr<f32>, i32) -> () {at(2)}", ""),
        (f"    tt.call @missing(%a) : (!tt.ptr<f32>) -> () {at(2)}", "KR203"),
        (f"    tt.call @declared(%a) : (!tt.ptr<f32>) -> () {at(2)}", "KR203"),
        (f"    tt.call @declared_empty() : () -> () {at(2)}", "KR203"),
        (f"    tt.experimental_tensormap_create %a, %o : !tt.ptr<f32>, !tt.ptr<f32> {at(2)}", "KR203"),
        (f"    vendor.touches_everything {at(2)}", "KR203"),
        (f"    %x = vendor.reads %n : i32 -> f32 {at(2)}", "KR203"),
        (f"    %x = arith.addi %o, %n : !tt.ptr<f32> {at(2)}", "KR203"),
        (f'    %x = "tt.reduce"(%o) <{{axis = 0 : i32}}> ({{\n    ^bb0(%y: !tt.ptr<f32> loc(unknown), %z: !tt.ptr<f32> '
         f"loc(unknown)):\n      tt.reduce.return %y : !tt.ptr<f32> {at(3)}\n"
         f"    }}) : (!tt.ptr<f32>) -> !tt.ptr<f32> {at(2)}",
         "KR203"),
        # a memory operation inside a region that computes
        (f'    %x = "tt.reduce"(%f) <{{axis = 0 : i32}}> ({{\n    ^bb0(%y: f32 loc(unknown), %z: f32 loc(unknown)):\n'
         f"      %w = tt.load %o : !tt.ptr<f32> {at(3)}\n      tt.reduce.return %w : f32 {at(3)}\n"
         f"    }}) : (f32) -> f32 {at(2)}", "KR201"),
        # pointers from nowhere
        (f"    %p = ub.poison : !tt.ptr<f32> {at(2)}\n    tt.store %p, %f : !tt.ptr<f32> {at(3)}", "KR204"),
        (f"    %p = ub.poison : !tt.ptr<f32> {at(2)}\n    %x = tt.load %p : !tt.ptr<f32> {at(3)}", "KR214"),
        (f"    %p = ub.poison : !tt.ptr<f32> {at(2)}\n    %x = tt.atomic_rmw fadd, acq_rel, gpu, %p, %f, %c : "
         f"(!tt.ptr<f32>, f32, i1) -> f32 {at(3)}", "KR204"),
        (f"    %p = ub.poison : !tt.ptr<f32> {at(2)}\n    %q = arith.select %c, %p, %a : !tt.ptr<f32> {at(3)}\n"
         f"    %x = tt.load %q : !tt.ptr<f32> {at(4)}", "KR214"),
        (f"    %t = tt.bitcast %a : !tt.ptr<f32> -> !tt.ptr<!tt.ptr<f32>> {at(2)}\n"
         f"    %p = tt.load %t : !tt.ptr<!tt.ptr<f32>> {at(3)}\n    tt.store %p, %f : !tt.ptr<f32> {at(4)}", "KR204"),
        (f"    %p = vendor.makes %n : i32 -> !tt.ptr<f32> {at(2)}\n    tt.store %p, %f : !tt.ptr<f32> {at(4)}",
         "KR203 KR204"),
        # an address inside a region that no rule hands one to: it may be any
        (f'    %x = "tt.map_elementwise"(%a) <{{pack = 1 : i32}}> ({{\n    ^bb0(%p: !tt.ptr<f32> loc(unknown)):\n'
         f"      %w = tt.load %p : !tt.ptr<f32> {at(3)}\n      tt.map_elementwise.return %w : f32 {at(3)}\n"
         f"    }}) : (!tt.ptr<f32>) -> f32 {at(2)}", "KR214"),
        # the output's address stored as a value
        (f"    %t = tt.bitcast %a : !tt.ptr<f32> -> !tt.ptr<!tt.ptr<f32>> {at(2)}\n"
         f"    tt.store %t, %o : !tt.ptr<!tt.ptr<f32>> {at(3)}", "KR203"),
        # an external function is trusted when it is pure and is given no address
        (f'    %x = tt.extern_elementwise %f {{libname = "", libpath = "", pure = true, symbol = "f"}} : (f32) -> f32 '
         f"{at(2)}", ""),
        (f'    %x = tt.extern_elementwise %f {{libname = "", libpath = "", pure = false, symbol = "f"}} : (f32) -> f32 '
         f"{at(2)}", "KR203"),
        (f'    %x = tt.extern_elementwise %o {{libname = "", libpath = "", pure = true, symbol = "f"}} : '
         f"(!tt.ptr<f32>) -> f32 {at(2)}", "KR203"),
        # tt.atomic_poll (3.9) waits on a value
        (f"    tt.atomic_poll acquire, gpu, %o, %n : !tt.ptr<f32>, i32 {at(2)}", "KR201"),
        (f"    %x = tt.load %a : !tt.ptr<f32> {at(2)}\n    %y = tt.load %o : !tt.ptr<f32> {at(3)}\n"
         f"    %z = tt.ptr_to_int %o : !tt.ptr<f32> -> i64 {at(4)}\n    tt.print {at(5)} : %z : i64", "KR201 KR203"),
        # `if out:` and `out % 16 == 0` ask about an address, and nothing else is made of it
        (f"    %z = tt.ptr_to_int %o : !tt.ptr<f32> -> i64 {at(2)}\n    %y = arith.remsi %z, %z : i64 {at(3)}\n"
         f"    %w = arith.cmpi eq, %y, %z : i64 {at(4)}", ""),
        # ... but a number that becomes an address again, leaves the function or is kept is one that something is made of
        (f"    %z = tt.ptr_to_int %o : !tt.ptr<f32> -> i64 {at(2)}\n    %y = arith.addi %z, %z : i64 {at(3)}\n"
         f"    %p = tt.int_to_ptr %y : i64 -> !tt.ptr<f32> {at(4)}\n    %x = tt.load %p : !tt.ptr<f32> {at(5)}",
         "KR203 KR214"),
        (f"    %z = tt.ptr_to_int %o : !tt.ptr<f32> -> i64 {at(2)}\n    tt.call @taking(%z) : (i64) -> () {at(3)}",
         "KR203"),
        (f"    %z = tt.ptr_to_int %o : !tt.ptr<f32> -> i64 {at(2)}\n    %r = scf.if %c -> (i64) {{\n"
         f"      scf.yield %z : i64 {at(3)}\n    }} else {{\n      scf.yield %z : i64 {at(3)}\n    }} {at(2)}",
         "KR203"),
    ],
)  # fmt: skip
def test_hand_written(body: str, expected: str) -> None:
    functions = (
        f'  tt.func private @loop(%p: !tt.ptr<f32> loc("p"(#loc)), %m: i32 loc("m"(#loc))) {{\n'
        f"    tt.call @loop(%p, %m) : (!tt.ptr<f32>, i32) -> () {at(40)}\n    tt.return {at(41)}\n  }} {at(39)}\n"
        f'  tt.func private @declared(%p: !tt.ptr<f32> loc("p"(#loc))) {at(50)}\n'
        f"  tt.func private @declared_empty() {at(51)}\n"
        f'  tt.func private @taking(%i: i64 loc("i"(#loc))) {{\n    tt.return {at(53)}\n  }} {at(52)}\n'
    )
    assert codes(verdict(f"{body}\n{STORE}" if body else STORE, functions)) == expected


def test_code_that_control_never_reaches_does_not_count() -> None:
    # every jit function that returns a value ends in such a block, with a poison to return
    body = (
        f"    %p = tt.call @pick(%o) : (!tt.ptr<f32>) -> !tt.ptr<f32> {at(2)}\n"
        f"    tt.store %p, %f : !tt.ptr<f32> {at(3)}\n"
        f"    tt.return {at(4)}\n  ^bb1:  // no predecessors\n    %x = tt.load %o : !tt.ptr<f32> {at(5)}\n"
        f"    tt.return {at(6)}"
    )
    functions = (
        f'  tt.func private @pick(%q: !tt.ptr<f32> loc("q"(#loc))) -> !tt.ptr<f32> {{\n    tt.return %q : !tt.ptr<f32> '
        f"{at(11)}\n  ^bb1:  // no predecessors\n    %0 = ub.poison : !tt.ptr<f32> {at(12)}\n    tt.return %0 : "
        f"!tt.ptr<f32> {at(12)}\n  }} {at(10)}\n"
    )
    assert codes(verdict(body, functions)) == ""


def test_pure_assembly_is_read_for_memory_instructions() -> None:
    def asm(code: str) -> str:
        line = (
            f'    %x = tt.elementwise_inline_asm "{code}" {{constraints = "=r,r", packed_element = 1 : i32, '
            f"pure = true}} %f : f32 -> f32 {at(2)}"
        )
        return codes(verdict(f"{line}\n{STORE}"))

    for code in (
        "cvt.rn.bf16x2.f32 $0, $1, $2;",
        "{ .reg .b32 t<4>; mov.b32 t0, {$1, $2}; @!p prmt.b32 $0, t0, t1, 0x5410; }",
        "// ld.global\\0A add.f32 $0, $1, $1; /* st.global; */",
        "tanh.approx.f32 $0, $1;",
        "v_exp_f32 $0, $1\\0A v_mul_f32 $0, $0, $1",
        "",
    ):
        assert asm(code) == "", code
    for code in (
        "ld.global.f32 $0, [$1];",
        "mov.u64 $0, $1; st.global.f32 [$0], $1;",
        "{ .reg .pred p; @p red.global.add.f32 [$1], $0; }",
        "@p atom.add.f32 $0, [$1], $2;",
        "{add.f32 $0, $1, $1; {ld.global.f32 $0, [$1];}}",
        "v_exp_f32 $0, $1\\0A global_load_dword $0, $1, off",
        "multimem.red.add.f32 [$1], $0;",
        "call (retval0), malloc, (param0);",
        "somethingnew $0, $1;",
    ):
        assert asm(code) == "KR203", code


def test_diamonds_are_judged_in_no_time() -> None:
    # B13: 2^60 paths lead from the parameter to the store
    lines = []
    for i in range(60):
        lines.append(f"    %q{i} = arith.select %c, {_pointer(i)}, {_pointer(i)} : !tt.ptr<f32> {at(i + 2)}")
    body = "\n".join(lines) + f"\n    tt.store %q59, %f : !tt.ptr<f32> {at(90)}\n    tt.return {at(91)}"
    assert codes(verdict(body)) == ""


def _pointer(i: int) -> str:
    return "%o" if i == 0 else f"%q{i - 1}"


# --------------------------------------------------------------------------------------------------------------- tables


def test_tables_do_not_contradict_each_other() -> None:
    tables = (set(EFFECTS), set(POINTER_FLOW), set(CONTROL), set(NO_MEMORY), set(CODE))
    assert sum(len(t) for t in tables) == len(set().union(*tables)) + len({"arith.select"} & set(NO_MEMORY))


@pytest.mark.parametrize("name", sorted(EFFECTS))
def test_every_effect_refuses_or_is_a_store(name: str) -> None:
    access = MemoryAccess(EFFECTS[name].effect, name, frozenset({"o"}), Location("k.py", 3, 4))
    store = MemoryAccess(MemoryEffect.WRITE, "tt.store", frozenset({"o"}), Location("k.py", 9, 4))
    expected = {"READ": "KR201", "WRITE": "", "ACCUMULATE": "KR202"}[EFFECTS[name].effect.name]
    assert codes(judge("o", (ANY, (access, store)))) == expected
    assert is_known(name)


def test_every_check_has_been_seen() -> None:
    assert {check.code for check in CHECKS} == {"KR201", "KR202", "KR203", "KR204", "KR205", "KR212", "KR214"}


# ----------------------------------------------------------------------------------------------- the words of a verdict


def test_all_reasons_are_reported_at_once_with_the_way_in_words() -> None:
    from .test_accesses import accesses_of

    renamed = case("renamed")
    accesses = accesses_of(renamed)

    def span_of(location: Location, operation: str) -> Span:
        return Span("kernel.py", location.line, location.column, location.line, location.column + 3)

    result = write_only("o", [(specialization(renamed), accesses)], span_of)
    read, shared = result.diagnostics
    assert (read.code, shared.code) == ("KR201", "KR212")
    assert read.message == "`o` is read by this kernel, so the values it stores cannot be changed"
    assert [label.text for label in read.labels][0] == "`o` is read here"
    assert "the pointer `o` becomes" in read.labels[1].text
    assert shared.message == "the store call that writes `o` also writes `o2`, which must stay as it is"
    text = render(read, {"kernel.py": open(case_module("branches").__file__ or "", encoding="utf-8").read()})
    assert "tl.store(a2, tl.load(q))" in text and "^^^" in text


def _access(effect: MemoryEffect, line: int, *roots: str, **others: object) -> MemoryAccess:
    return MemoryAccess(effect, "tt.x", frozenset(roots), Location("k.py", line, 4), **others)  # type: ignore[arg-type]


def test_a_reason_names_its_specializations_and_its_places() -> None:
    store = _access(MemoryEffect.WRITE, 9, "o")
    reads = tuple(_access(MemoryEffect.READ, line, "o") for line in range(20, 27))
    first, second = Specialization((), (), "BLOCK=1"), Specialization((), (), "BLOCK=2")
    result = judge("o", (first, (store,)), (second, (store, *reads)))
    (diagnostic,) = result.diagnostics
    assert [label.span.line for label in diagnostic.labels] == [20, 21, 22, 23, 9]
    assert diagnostic.notes == ("and in 3 more places", "with BLOCK=2")
    assert judge("o", (first, (store, *reads)), (second, (store, *reads))).diagnostics[0].notes == (
        "and in 3 more places",
    )


def test_an_access_in_the_library_is_shown_at_the_users_call() -> None:
    calls = (Location("k.py", 5, 0), Location("library.py", 70, 0))
    read = MemoryAccess(MemoryEffect.READ, "tt.load", frozenset({"o"}), Location("library.py", 80, 0), calls)
    store = _access(MemoryEffect.WRITE, 9, "o")

    def span_of(location: Location, operation: str) -> Span | None:
        return Span("k.py", location.line, 0, location.line, 9) if location.file == "k.py" else None

    result = write_only("o", [(ANY, (read, store))], span_of)
    assert result.diagnostics[0].labels[0].span.line == 5


def test_never_written() -> None:
    assert codes(judge("o", (ANY, ()))) == "KR210"
    only_read: Diagnostic = judge("o", (ANY, (_access(MemoryEffect.READ, 3, "o"),))).diagnostics[0]
    assert only_read.code == "KR210" and only_read.labels[0].text == "`o` is only read here"
    elsewhere = _access(MemoryEffect.WRITE, 3, ANYWHERE)
    assert codes(judge("o", (ANY, (elsewhere,)))) == "KR210"
    in_one = judge("o", (ANY, ()), (ANY, (_access(MemoryEffect.WRITE, 3, "o"),)))
    assert in_one.ok and len(in_one.stores) == 1


def test_escape_of_an_unknown_pointer_refuses() -> None:
    store = _access(MemoryEffect.WRITE, 9, "o")
    escape = _access(MemoryEffect.UNKNOWN, 3, ANYWHERE, reason="its address is turned into an integer")
    result = judge("o", (ANY, (store, escape)))
    assert codes(result) == "KR203"
    assert result.diagnostics[0].labels[0].text == "its address is turned into an integer"
    assert codes(judge("o", (ANY, (store, _access(MemoryEffect.UNKNOWN, 3, "a"))))) == ""


# --------------------------------------------------------------------------------------- random modules, run and judged


@dataclass(slots=True)
class Printer:
    """Writes statements as TTIR, one source line for each, and names values."""

    lines: list[str] = field(default_factory=list)
    functions: list[str] = field(default_factory=list)
    count: int = 0

    def fresh(self) -> str:
        self.count += 1
        return f"%v{self.count}"

    def add(self, text: str, line: int | None = None) -> None:
        self.lines.append(f"    {text} {at(line) if line is not None else 'loc(unknown)'}")


P = "!tt.ptr<f32>"

# what a run does: (effect, parameter, line, whether the pointer was cast on its way)
Touched = tuple[str, str, int, bool]


@dataclass(slots=True)
class Machine:
    """Runs statements: coins decide branches, `touched` records what loads and stores reach."""

    coins: random.Random
    touched: set[Touched] = field(default_factory=set)

    def flip(self) -> bool:
        return self.coins.random() < 0.5

    def rounds(self) -> int:
        return self.coins.randrange(5)


Pointer = tuple[str, bool]  # the parameter, and whether it was cast
Values = dict[str, Pointer]
Step = Callable[[Machine, Values], None]


class Program:
    """Builds a random module: `text()` for the analysis, `run()` as the judge."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.depth = rng.randint(0, 3)
        self.line = 10
        self.printer = Printer()
        self.parameters = [f"p{i}" for i in range(rng.randint(2, 4))]
        self.helpers: list[tuple[str, int, int, Callable[[Machine, list[Pointer]], list[Pointer]]]] = []
        for _ in range(rng.randrange(3)):
            self.helper()
        self.printer.lines = []
        names = [f"%{name}" for name in self.parameters]
        self.steps = self.function_body(names, returns=0)[0]
        self.body = "\n".join(self.printer.lines)

    def text(self) -> str:
        return module_text(self.body, "".join(self.printer.functions), " ".join(self.parameters))

    def run(self, seed: int) -> set[Touched]:
        machine = Machine(random.Random(seed))
        self.steps(machine, {f"%{name}": (name, False) for name in self.parameters})
        return machine.touched

    def next_line(self) -> int:
        self.line += 1
        return self.line

    def some(self, names: list[str], count: int) -> list[str]:
        return [self.rng.choice(names) for _ in range(count)]

    # -- functions: straight code, then perhaps a loop or a diamond of blocks

    def function_body(self, names: list[str], returns: int) -> tuple[Step, list[str]]:
        before = self.statements(names, depth=0)
        shape = self.rng.randrange(3)
        if shape == 0:
            after: Step = before
            current = names
        elif shape == 1:
            after, current = self.diamond(before, names)
        else:
            after, current = self.block_loop(before, names)
        returned = self.some(current, returns)
        types = ", ".join([P] * returns)
        self.printer.add(f"tt.return {', '.join(returned)} : {types}" if returns else "tt.return")
        return after, returned

    def diamond(self, before: Step, names: list[str]) -> tuple[Step, list[str]]:
        # an early branch of blocks whose ends hand pointers to a common block
        width = self.rng.randint(1, 3)
        self.printer.add("cf.cond_br %c, ^bb1, ^bb2")
        self.printer.lines.append("  ^bb1:")
        left_names = list(names)
        left = self.statements(left_names, depth=1)
        left_values = self.some(left_names, width)
        self.jump(3, left_values)
        self.printer.lines.append("  ^bb2:")
        right_names = list(names)
        right = self.statements(right_names, depth=1)
        right_values = self.some(right_names, width)
        self.jump(3, right_values)
        arguments = [self.printer.fresh() for _ in range(width)]
        self.label(3, arguments)
        joined = [*names, *arguments]
        rest = self.statements(joined, depth=1)

        def step(machine: Machine, values: Values) -> None:
            before(machine, values)
            if machine.flip():
                left(machine, values)
                handed = [values[v] for v in left_values]
            else:
                right(machine, values)
                handed = [values[v] for v in right_values]
            values.update(zip(arguments, handed, strict=True))
            rest(machine, values)

        return step, joined

    def block_loop(self, before: Step, names: list[str]) -> tuple[Step, list[str]]:
        # ^bb1(args): ...; cf.cond_br %c, ^bb1(next), ^bb2
        width = self.rng.randint(1, 3)
        inits = self.some(names, width)
        self.jump(1, inits)
        arguments = [self.printer.fresh() for _ in range(width)]
        self.label(1, arguments)
        inside = [*names, *arguments]
        body = self.statements(inside, depth=1)
        following = self.some(inside, width)
        handed = f"({', '.join(following)} : {', '.join([P] * width)})"
        self.printer.add(f"cf.cond_br %c, ^bb1{handed}, ^bb2")
        self.printer.lines.append("  ^bb2:")
        rest = self.statements(inside, depth=1)

        def step(machine: Machine, values: Values) -> None:
            before(machine, values)
            values.update(zip(arguments, [values[v] for v in inits], strict=True))
            for _ in range(machine.rounds()):
                body(machine, values)
                values.update(zip(arguments, [values[v] for v in following], strict=True))
            body(machine, values)
            rest(machine, values)

        return step, inside

    def jump(self, label: int, values: list[str]) -> None:
        self.printer.add(f"cf.br ^bb{label}({', '.join(values)} : {', '.join([P] * len(values))})")

    def label(self, label: int, arguments: list[str]) -> None:
        listed = ", ".join(f"{a}: {P} loc(unknown)" for a in arguments)
        self.printer.lines.append(f"  ^bb{label}({listed}):")

    def helper(self) -> None:
        self.printer.lines = []
        name = f"m.helper{len(self.helpers)}__P"
        width, returns = self.rng.randint(1, 3), self.rng.randint(0, 2)
        arguments = [self.printer.fresh() for _ in range(width)]
        steps, returned = self.function_body(list(arguments), returns)
        listed = ", ".join(f'{a}: {P} loc("q"(#loc))' for a in arguments)
        extra = '%n: i32 loc("n"(#loc)), %c: i1 loc("c"(#loc)), %f: f32 loc("f"(#loc))'
        result = f" -> ({', '.join([P] * returns)})" if returns else ""
        body = "\n".join(self.printer.lines)
        head = f"  tt.func private @{name}({listed}, {extra}){result}"
        self.printer.functions.append(f"{head} {{\n{body}\n  }} {at(5)}\n")

        def run(machine: Machine, given: list[Pointer]) -> list[Pointer]:
            values = dict(zip(arguments, given, strict=True))
            steps(machine, values)
            return [values[v] for v in returned]

        self.helpers.append((name, width, returns, run))

    # -- statements

    def statements(self, names: list[str], depth: int) -> Step:
        steps = [self.statement(names, depth) for _ in range(self.rng.randint(1, 3 if depth < 1 else 2))]

        def run(machine: Machine, values: Values) -> None:
            for step in steps:
                step(machine, values)

        return run

    def statement(self, names: list[str], depth: int) -> Step:
        kinds = [self.load, self.store, self.move, self.select, self.cast]
        weights = [4, 4, 3, 1, 1]
        if self.helpers:
            kinds.append(self.call)
            weights.append(3)
        if depth < self.depth:
            nested: list[Callable[[list[str]], Step]] = [
                lambda n: self.for_loop(n, depth),
                lambda n: self.while_loop(n, depth),
                lambda n: self.branch(n, depth),
            ]
            kinds += nested
            weights += [2, 2, 2]
        return self.rng.choices(kinds, weights)[0](names)

    def load(self, names: list[str]) -> Step:
        pointer, line = self.rng.choice(names), self.next_line()
        self.printer.add(f"{self.printer.fresh()} = tt.load {pointer} : {P}", line)
        return lambda machine, values: machine.touched.add(("READ", values[pointer][0], line, values[pointer][1]))

    def store(self, names: list[str]) -> Step:
        pointer, line = self.rng.choice(names), self.next_line()
        self.printer.add(f"tt.store {pointer}, %f : {P}", line)
        return lambda machine, values: machine.touched.add(("WRITE", values[pointer][0], line, values[pointer][1]))

    def move(self, names: list[str]) -> Step:
        source, target = self.rng.choice(names), self.printer.fresh()
        self.printer.add(f"{target} = tt.addptr {source}, %n : {P}, i32", self.next_line())
        names.append(target)

        def step(machine: Machine, values: Values) -> None:
            values[target] = values[source]

        return step

    def cast(self, names: list[str]) -> Step:
        source, other, target = self.rng.choice(names), self.printer.fresh(), self.printer.fresh()
        self.printer.add(f"{other} = tt.bitcast {source} : {P} -> !tt.ptr<i32>", self.next_line())
        self.printer.add(f"{target} = tt.bitcast {other} : !tt.ptr<i32> -> {P}", self.next_line())
        names.append(target)

        def step(machine: Machine, values: Values) -> None:
            values[target] = (values[source][0], True)

        return step

    def select(self, names: list[str]) -> Step:
        first, second = self.some(names, 2)
        target = self.printer.fresh()
        self.printer.add(f"{target} = arith.select %c, {first}, {second} : {P}", self.next_line())
        names.append(target)

        def step(machine: Machine, values: Values) -> None:
            values[target] = values[first] if machine.flip() else values[second]

        return step

    def call(self, names: list[str]) -> Step:
        name, width, returns, run = self.rng.choice(self.helpers)
        handed = self.some(names, width)
        result = self.printer.fresh()
        results = [result] if returns == 1 else [f"{result}#{k}" for k in range(returns)]
        head = "" if not returns else f"{result} = " if returns == 1 else f"{result}:{returns} = "
        types = ", ".join([P] * width)
        self.printer.add(
            f"{head}tt.call @{name}({', '.join(handed)}, %n, %c, %f) : ({types}, i32, i1, f32) -> "
            f"{'(' + ', '.join([P] * returns) + ')' if returns != 1 else P}",
            self.next_line(),
        )
        names += results

        def step(machine: Machine, values: Values) -> None:
            values.update(zip(results, run(machine, [values[v] for v in handed]), strict=True))

        return step

    def results(self, width: int) -> tuple[str, list[str]]:
        result = self.printer.fresh()
        return (
            (f"{result} = ", [result])
            if width == 1
            else (
                f"{result}:{width} = ",
                [f"{result}#{k}" for k in range(width)],
            )
        )

    def for_loop(self, names: list[str], depth: int) -> Step:
        width = self.rng.randint(1, 3)
        inits = self.some(names, width)
        arguments = [self.printer.fresh() for _ in range(width)]
        head, results = self.results(width)
        carried = ", ".join(f"{a} = {i}" for a, i in zip(arguments, inits, strict=True))
        self.printer.lines.append(
            f"    {head}scf.for {self.printer.fresh()} = %n to %n step %n iter_args({carried}) -> "
            f"({', '.join([P] * width)})  : i32 {{"
        )
        inside = [*names, *arguments]
        body = self.statements(inside, depth + 1)
        yields = self.some(inside, width)
        self.printer.add(f"scf.yield {', '.join(yields)} : {', '.join([P] * width)}")
        self.printer.lines.append(f"    }} {at(self.next_line())}")
        names += results

        def step(machine: Machine, values: Values) -> None:
            current = [values[v] for v in inits]
            for _ in range(machine.rounds()):
                values.update(zip(arguments, current, strict=True))
                body(machine, values)
                current = [values[v] for v in yields]
            values.update(zip(results, current, strict=True))

        return step

    def while_loop(self, names: list[str], depth: int) -> Step:
        # the values before and after the condition need not be the same in number
        width, passed = self.rng.randint(1, 3), self.rng.randint(1, 3)
        inits = self.some(names, width)
        before_arguments = [self.printer.fresh() for _ in range(width)]
        after_arguments = [self.printer.fresh() for _ in range(passed)]
        head, results = self.results(passed)
        carried = ", ".join(f"{a} = {i}" for a, i in zip(before_arguments, inits, strict=True))
        outs = P if passed == 1 else f"({', '.join([P] * passed)})"
        self.printer.lines.append(f"    {head}scf.while ({carried}) : ({', '.join([P] * width)}) -> {outs} {{")
        inside = [*names, *before_arguments]
        before = self.statements(inside, depth + 1)
        handed = self.some(inside, passed)
        self.printer.add(f"scf.condition(%c) {', '.join(handed)} : {', '.join([P] * passed)}")
        self.printer.lines.append("    } do {")
        self.label(0, after_arguments)
        within = [*names, *after_arguments]
        body = self.statements(within, depth + 1)
        yields = self.some(within, width)
        self.printer.add(f"scf.yield {', '.join(yields)} : {', '.join([P] * width)}")
        self.printer.lines.append(f"    }} {at(self.next_line())}")
        names += results

        def step(machine: Machine, values: Values) -> None:
            current = [values[v] for v in inits]
            rounds = machine.rounds()
            while True:
                values.update(zip(before_arguments, current, strict=True))
                before(machine, values)
                out = [values[v] for v in handed]
                if rounds == 0:
                    break
                rounds -= 1
                values.update(zip(after_arguments, out, strict=True))
                body(machine, values)
                current = [values[v] for v in yields]
            values.update(zip(results, out, strict=True))

        return step

    def branch(self, names: list[str], depth: int) -> Step:
        width = self.rng.randint(1, 3)
        head, results = self.results(width)
        self.printer.lines.append(f"    {head}scf.if %c -> ({', '.join([P] * width)}) {{")
        sides: list[tuple[Step, list[str]]] = []
        for side in range(2):
            inside = list(names)
            body = self.statements(inside, depth + 1)
            yields = self.some(inside, width)
            self.printer.add(f"scf.yield {', '.join(yields)} : {', '.join([P] * width)}")
            self.printer.lines.append("    } else {" if side == 0 else f"    }} {at(self.next_line())}")
            sides.append((body, yields))
        names += results

        def step(machine: Machine, values: Values) -> None:
            body, yields = sides[0] if machine.flip() else sides[1]
            body(machine, values)
            values.update(zip(results, [values[v] for v in yields], strict=True))

        return step


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 2**40))
def test_what_a_run_touches_is_always_reported(seed: int) -> None:
    program = Program(random.Random(seed))
    text = program.text()
    accesses = memory_accesses(parse(text))
    reported = {(a.effect.name, root, a.location.line) for a in accesses for root in a.roots}
    assert not any(ANYWHERE in a.roots for a in accesses), text
    assert not any(a.effect is MemoryEffect.UNKNOWN for a in accesses), text
    read: set[str] = set()
    for run in range(12):
        for effect, parameter, line, was_cast in program.run(run):
            assert (effect, parameter, line) in reported, f"{effect} {parameter} line {line}\n{text}"
            cast_reported = any(
                a.bitcast_pointer
                for a in accesses
                if (a.effect.name, a.location.line) == (effect, line) and parameter in a.roots
            )
            assert cast_reported or not was_cast, text
            if effect == "READ":
                read.add(parameter)
    for parameter in program.parameters:
        result = judge(parameter, (ANY, accesses))
        assert not (result.ok and parameter in read), text


def test_the_random_modules_are_not_trivial() -> None:
    verdicts = {True: 0, False: 0}
    swapped = 0
    for seed in range(150):
        program = Program(random.Random(seed))
        accesses = memory_accesses(parse(program.text()))
        swapped += any(len(a.roots) > 1 for a in accesses)
        for parameter in program.parameters:
            verdicts[judge(parameter, (ANY, accesses)).ok] += 1
    assert verdicts[True] > 30 and verdicts[False] > 150 and swapped > 50, (verdicts, swapped)


def test_witness_steps_are_lines_of_the_module() -> None:
    for seed in range(60):
        program = Program(random.Random(seed))
        for access in memory_accesses(parse(program.text())):
            for root, steps in access.witness:
                assert root in program.parameters
                assert all(step.location.line > 1 and step.words for step in steps)
    assert summary(()) == ""
