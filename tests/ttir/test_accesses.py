"""The accesses of every kernel of the catalogue, and the verdict on each output, on the Triton that is installed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from kernel_rewrite.model import ANYWHERE, MemoryAccess, MemoryEffect, Span, Specialization
from kernel_rewrite.ttir.accesses import memory_accesses, source_name
from kernel_rewrite.ttir.parse import parse
from kernel_rewrite.ttir.write_only import WriteOnlyVerdict, write_only

from .conftest import case_module, lower, triton_version

LETTERS = {
    MemoryEffect.READ: "R",
    MemoryEffect.WRITE: "W",
    MemoryEffect.ACCUMULATE: "A",
    MemoryEffect.UNKNOWN: "U",
}


@dataclass(frozen=True)
class Case:
    """A kernel of the catalogue, lowered once; `accesses` as letters and roots, `verdicts` as codes for each output."""

    id: str
    kernel: str
    signature: Mapping[str, Any]
    accesses: str
    verdicts: Mapping[str, str]
    constexprs: Mapping[Any, Any] = field(default_factory=dict)
    since: tuple[int, int] = (3, 5)
    until: tuple[int, int] = (3, 99)

    def __str__(self) -> str:
        return self.id


def p(names: str, pointer: str = "*fp32", **others: Any) -> dict[str, Any]:
    """A signature: "a o n BLOCK" with lower-case one-letter-number names as pointers unless `others` says otherwise."""
    signature: dict[str, Any] = {}
    for name in names.split():
        if name in others:
            signature[name] = others[name]
        elif (name.isupper() and len(name) > 1) or name in ("X", "Y"):
            signature[name] = "constexpr"
        elif name in ("n", "M", "N", "K", "nx", "ny", "which", "stride", "one"):
            signature[name] = "i32"
        else:
            signature[name] = pointer
    return signature


B = {"BLOCK": 64}
F16 = "*fp16"
DESC = "tensordesc<fp16[64, 64]>"
NO_BLOCK_POINTERS = (3, 8)

CASES = [
    Case("M01", "plain.add_kernel", p("a b o n BLOCK"), "R a, R b, W o", {"o": "", "a": "KR210"}, B),
    Case("M02", "plain.add_2d", p("a b o nx ny X Y"), "R a, W o", {"o": "", "b": "KR210"}, {"X": 16, "Y": 16}),
    Case("M03", "helpers.calls_inplace", p("a o n BLOCK"), "R a, W a, W o", {"o": "", "a": "KR201"}, B),
    Case("M04", "helpers.helper_and_caller_store", p("a o n BLOCK"), "R a, W o", {"o": ""}, B),
    Case("M05", "plain.mul2_inplace", p("x n BLOCK"), "R x, W x", {"x": "KR201"}, B),
    Case("M06", "memory.asm_pure", p("a o BLOCK"), "R a, W o", {"o": ""}, B),
    Case("M07", "memory.asm_impure", p("a o BLOCK"), "R a, U a|o, W o", {"o": "KR203"}, B),
    Case("M08-copy", "block_pointers.copies_block", p("a o M N", F16), "R a, W o", {"o": ""}, until=NO_BLOCK_POINTERS),
    Case(
        "M08-for", "block_pointers.advances_in_for", p("a o M N", F16), "R a, W o", {"o": ""}, until=NO_BLOCK_POINTERS
    ),
    Case(
        "M08-while",
        "block_pointers.advances_in_while",
        p("a o M N", F16),
        "R a, W o",
        {"o": ""},
        until=NO_BLOCK_POINTERS,
    ),
    Case(
        "M08-swap",
        "block_pointers.swaps_blocks",
        p("a o M N", F16),
        "R a|o, W o",
        {"o": "KR201"},
        until=NO_BLOCK_POINTERS,
    ),
    Case("M09", "plain.add_with_import", p("a o n BLOCK"), "R a, W o", {"o": ""}, B),
    Case("M10", "memory.atomic_add_kernel", p("a o BLOCK"), "A o, R a", {"o": "KR202"}, B),
    Case("M11", "loops.add_4_times", p("a o n BLOCK"), "R a, W o", {"o": ""}, B),
    Case("M12", "branches.value_from_if", p("a b o which"), "R a, R b, W o", {"o": ""}),
    Case("M13", "branches.store_under_nested_ifs", p("a o p q", p="i32", q="i32"), "R a, W o", {"o": ""}),
    Case("M14", "helpers.scalar_via_nested_write", p("o n"), "W o", {"o": "", "n": "KR210"}),
    Case(
        "M15-none",
        "plain.optional_bias",
        p("a bias o n BLOCK", bias="constexpr"),
        "R a, W o",
        {"o": ""},
        {**B, "bias": None},
    ),
    Case("M15-tensor", "plain.optional_bias", p("a bias o n BLOCK"), "R a, R bias, W o", {"o": ""}, B),
    Case("M16", "plain.out_of_order", p("a n b o BLOCK"), "R a, R b, W o", {"o": ""}, B),
    Case("M16-call", "plain.calls_out_of_order", p("o a n b BLOCK"), "R a, R b, W o", {"o": ""}, B),
    Case("M17", "plain.reduce_sum", p("a o c BLOCK", c="*i32"), "R a, W c, W o", {"o": "", "c": ""}, B),
    Case("M18", "plain.cumsum_with_assert", p("a o n BLOCK"), "R a, W o", {"o": ""}, B),
    Case("M19", "helpers.returned_pointer", p("a o"), "R a, W o", {"o": ""}),
    Case("M20", "helpers.returned_pair", p("a b o"), "R a, R b, W o", {"o": ""}),
    Case("M20-pick", "helpers.picks_one", p("a o o2"), "R a, W o", {"o": "", "o2": "KR210"}),
    Case("M21", "loops.accumulators", p("a o n BLOCK"), "R a, W o", {"o": ""}, B),
    Case("M21-advance", "loops.advancing_pointers", p("a o n BLOCK"), "R a, W o", {"o": ""}, B),
    Case("M22", "branches.early_return", p("a o n BLOCK"), "R a, W o", {"o": ""}, B),
    Case("M23", "loops.store_in_k_loop", p("a b o K BLOCK"), "R a, R b, W o", {"o": ""}, {"BLOCK": 16}),
    # which load reads which is decided at run time; the output is the same on both sides
    Case("M24", "branches.yields_pointer_triple", p("a b o which"), "R a|b, W o", {"o": ""}),
    Case("M25", "plain.custom_combines", p("a o h BLOCK", h="*i32"), "R a, W h, W o", {"o": "", "h": ""}, B),
    Case("M26", "memory.maps_elementwise", p("a o BLOCK"), "R a, W o", {"o": ""}, B),
    Case(
        "M28",
        "plain.equal_to_one",
        p("a o n one FLAG NAME"),
        "R a, W o",
        {"o": ""},
        {"FLAG": True, "NAME": "kernel"},
    ),
    Case("M29", "descriptors.made_on_device", p("a o M N", F16), "R a, W o", {"o": ""}),
    Case("M29-functions", "descriptors.functional_store", p("a o M N", F16), "R a, W o", {"o": ""}),
    Case("M30", "descriptors.descriptor_arguments", p("d o n", DESC), "R d, W o", {"o": ""}),
    Case(
        "M30-between", "descriptors.descriptor_between", p("a d o n", d=DESC), "R a, R d, W o", {"o": "", "d": "KR210"}
    ),
    Case("M30-read", "descriptors.descriptor_read_and_written", p("d o", DESC), "R d, R o, W o", {"o": "KR201"}),
    Case("M30-helper", "descriptors.passes_descriptors", p("d o n", DESC), "R d, W o", {"o": ""}),
    Case("M31", "memory.atomic_exchange", p("a o"), "A o, R a", {"o": "KR202"}),
    Case("M31-cas", "memory.atomic_compare", p("a o", "*i32"), "A o, R a", {"o": "KR202"}),
    Case("M34", "plain.offset_via_helper", p("idx o BLOCK", idx="*i64"), "R idx, W o", {"o": ""}, B),
    Case(
        "M35-strided",
        "plain.double_strided",
        p("a o stride sx sy X Y", sx="constexpr", sy="constexpr"),
        "R a, W o",
        {"o": ""},
        {"sx": 2, "sy": 2, "X": 16, "Y": 16},
    ),
    Case(
        "M35-bool",
        "plain.bool_buffers",
        p("a m o flags n BIG flag BLOCK", m="*i1", flags="*i1", flag="u1"),
        "R a, R m, W flags, W o",
        {"o": "", "flags": ""},
        {**B, "BIG": True},
    ),
    Case("M36", "loops.static_range_stores", p("a o BLOCK"), "R a, W o", {"o": ""}, B),
    Case("M37", "plain.bitcast_pointer", p("a o BLOCK"), "R a, W o", {"o": "KR205"}, B),
    Case("M37-helper", "helpers.bitcast_in_helper", p("a o"), "R a, W o", {"o": "KR205"}),
    Case("M37-bool", "plain.bitcast_bool_pointer", p("a o BLOCK", o="*i1"), "R a, W o", {"o": "KR205"}, B),
    Case("M37-value", "plain.value_bitcast", p("a o BLOCK", a="*i32"), "R a, W o", {"o": ""}, B),
    Case("M38", "plain.offset_from_memory", p("idx a o BLOCK", idx="*i64"), "R a, R idx, W o", {"o": ""}, B),
    Case("U08", "plain.reads_and_writes", p("a o n BLOCK"), "R a, R o, W o", {"o": "KR201"}, B),
    Case("two-outputs", "plain.other_writer", p("a o o2 BLOCK"), "R a, W o, W o2", {"o": "", "o2": ""}, B),
    Case("A01", "branches.read_via_block_argument", p("a o n"), "R a|o, W o", {"o": "KR201"}),
    Case("A02", "branches.write_via_block_argument", p("a o o2 n"), "R a, W o|o2", {"o": "KR212", "o2": "KR212"}),
    Case("A02-one", "branches.only_block_argument_write", p("a o n"), "R a, W o", {"o": ""}),
    Case("A03", "loops.ping_pong_read", p("a o n"), "R a|o, W o", {"o": "KR201"}),
    Case("A03-three", "loops.three_way_rotation", p("a b o n"), "R a|b|o, W o", {"o": "KR201"}),
    Case("A03-while", "loops.while_read_swap", p("a o n"), "R a|o, W o", {"o": "KR201"}),
    Case("A03-after", "loops.pointer_after_loop", p("a o n"), "R a|o, W o", {"o": "KR201"}),
    Case("A03-if", "loops.late_swap", p("a o n"), "R a|o, W a|o, W o", {"o": "KR201 KR212"}),
    Case("A04-for", "loops.for_store_swap", p("a o o2 n"), "R a, W o|o2", {"o": "KR212", "o2": "KR212"}),
    Case("A04-while", "loops.while_store_swap", p("a o o2 n"), "R a, W o|o2", {"o": "KR212", "o2": "KR212"}),
    Case("A05", "descriptors.read_via_gather", p("idx o M N", F16, idx="*i32"), "R idx, R o, W o", {"o": "KR201"}),
    Case(
        "A05-scatter",
        "descriptors.write_via_scatter",
        p("a idx o M N", F16, idx="*i32"),
        "R a, R idx, W o",
        {"o": ""},
    ),
    Case("A05-reduce", "descriptors.accumulates_via_descriptor", p("a o M N", F16), "A o, R a", {"o": "KR202"}),
    Case("A05-swap", "descriptors.swapped_descriptors", p("a o M N", F16), "R a|o, W o", {"o": "KR201"}),
    Case("A06", "memory.atomic_read", p("a o"), "R a, R o, W o", {"o": "KR201"}, since=(3, 9)),
    Case("A06-store", "memory.atomic_write", p("a o"), "R a, W o", {"o": ""}, since=(3, 9)),
    Case("A07", "memory.asm_pure_load", p("a o BLOCK"), "U a|o, U o, W o", {"o": "KR203"}, B),
    Case(
        "A07-loaded",
        "memory.asm_pure_load_of_loaded_address",
        p("addresses o BLOCK", addresses="*i64"),
        "R addresses, U addresses|o, W o",
        {"o": "KR203"},
        B,
    ),
    Case(
        "A08-live",
        "descriptors.dead_store_live_descriptor",
        p("a o M N TMA", F16),
        "R a, W o",
        {"o": ""},
        {"TMA": True},
    ),
    Case("A09", "helpers.dead_store_live_helper", p("a o HELPER"), "W o", {"o": ""}, {"HELPER": True}),
    Case("A10", "helpers.dead_store_live_atomic", p("a o ATOMIC"), "A o, R a", {"o": "KR202"}, {"ATOMIC": True}),
    Case("A12", "helpers.helper_twice_plus_dead", p("a o DEAD"), "R a, W o", {"o": ""}, {"DEAD": False}),
    Case(
        "A13",
        "memory.pointer_from_memory",
        p("table a o BLOCK", table="*i64"),
        "R a, R table, W *, W o",
        {"o": "KR204"},
        B,
    ),
    Case(
        "A13-read",
        "memory.reads_pointer_from_memory",
        p("table o BLOCK", table="*i64"),
        "R *, R table, W o",
        {"o": "KR214"},
        B,
    ),
    Case(
        "A14",
        "tuples.tuple_inputs",
        p("ins o c BLOCK", ins=("*fp32", "*fp32")),
        "R ins[0], R ins[1], W o",
        {"o": "", "c": "KR210", "ins[1]": "KR210"},
        B,
    ),
    Case(
        "A14-nested",
        "tuples.nested_tuple",
        p("ins o BLOCK", ins=("*fp32", ("*fp32", "constexpr", "i32"))),
        "R ins[0], R ins[1][0], W o",
        {"o": ""},
        {**B, (0, 1, 1): 5},
    ),
    Case(
        "A14-outputs",
        "tuples.tuple_outputs",
        p("a outs BLOCK", outs=("*fp32", "*fp32")),
        "R a, R outs[1], W outs[0], W outs[1]",
        {"outs[0]": "", "outs[1]": "KR201"},
        B,
    ),
    Case(
        "A14-loop",
        "tuples.tuple_loop",
        p("a outs BLOCK", outs=("*fp32", "*fp32")),
        "R a, W outs[0], W outs[1]",
        # one call for both: the plan of the rewrite refuses it (rewrite/stores.py), the proof need not
        {"outs[0]": "", "outs[1]": ""},
        B,
    ),
    Case("A15", "memory.atomic_then_value", p("a o"), "A o, R a, W o", {"o": "KR202"}),
    # one tensor passed as both is the launch site's to see
    Case("A16", "memory.alias_kernel", p("a o BLOCK"), "R a, W o", {"o": ""}, B),
    Case("A17-ifelse", "branches.same_pointer_on_both_sides", p("a o n"), "R a, W o", {"o": ""}),
    Case("A17-constexpr", "plain.two_constexpr_stores", p("a o FLAG"), "R a, W o", {"o": ""}, {"FLAG": True}),
    Case("A17-helper", "helpers.helper_only", p("a o"), "R a, W o", {"o": ""}),
    Case("either", "branches.either_buffer", p("a o o2 n"), "R a, W o|o2", {"o": "KR212", "o2": "KR212"}),
    Case("select", "branches.selected_buffer", p("a o o2 n"), "R a, W o|o2", {"o": "KR212"}),
    Case("where", "branches.where_on_pointers", p("a o o2 n BLOCK"), "R a, W o|o2", {"o": "KR212"}, B),
    Case("where-read", "branches.where_reads_output", p("a o n BLOCK"), "R a|o, W o", {"o": "KR201"}, B),
    Case("renamed", "branches.renamed_parameters", p("a o o2 n"), "R a|o, W o|o2", {"o": "KR201 KR212"}),
    Case("helper-swap", "helpers.reads_swapped", p("a o"), "R o, W o", {"o": "KR201", "a": "KR210"}),
    Case("helper-read", "helpers.helper_reads_output", p("a o"), "R a, R o, W o", {"o": "KR201"}),
    # the rewrite copies the helper
    Case("helper-two", "helpers.helper_used_for_two", p("a o o2"), "R a, W o, W o2", {"o": "", "o2": ""}),
    Case("helper-early", "helpers.reads_early_returned", p("a o n"), "R a|o, W o", {"o": "KR201"}),
    Case("address", "memory.address_as_integer", p("a o"), "R a, U o, W o", {"o": "KR203"}),
    Case("address-back", "memory.integer_address", p("a o"), "R a, U o, W *", {"o": "KR203 KR204"}),
    Case("address-other", "memory.other_address_as_integer", p("a o"), "R a, U a, W o", {"o": ""}),
    Case(
        "address-stored", "memory.stores_its_address", p("o table", table="*i64"), "U o, W o, W table", {"o": "KR203"}
    ),
    Case("printed", "memory.prints_pointer", p("a o"), "R a, W o", {"o": ""}),
    Case("barrier", "memory.barrier_kernel", p("a o"), "R a, W o", {"o": ""}),
]


def specialization(case: Case) -> Specialization:
    constexprs = tuple((str(name), value) for name, value in case.constexprs.items())
    return Specialization(tuple(case.signature.items()), constexprs, case.id)


def accesses_of(case: Case) -> tuple[MemoryAccess, ...]:
    if not case.since <= triton_version() <= case.until:
        pytest.skip(f"Triton {triton_version()} does not have what this kernel uses")
    file, kernel = case.kernel.split(".")
    text = lower(getattr(case_module(file), kernel), case.signature, case.constexprs)
    return memory_accesses(parse(text), specialization(case))


def summary(accesses: tuple[MemoryAccess, ...]) -> str:
    return ", ".join(sorted({f"{LETTERS[a.effect]} {'|'.join(sorted(a.roots))}" for a in accesses}))


def judge(output: str, *pairs: tuple[Specialization, tuple[MemoryAccess, ...]]) -> WriteOnlyVerdict:
    def span_of(location: Any, operation: str) -> Span:
        return Span(location.file, location.line, location.column, location.line, location.column + 1)

    return write_only(output, pairs, span_of)


def codes(verdict: WriteOnlyVerdict) -> str:
    return " ".join(sorted({d.code for d in verdict.diagnostics}))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_catalogue(case: Case) -> None:
    accesses = accesses_of(case)
    assert summary(accesses) == case.accesses
    for output, expected in case.verdicts.items():
        verdict = judge(output, (specialization(case), accesses))
        assert codes(verdict) == expected, output
        assert verdict.ok == (expected == "")


def case(id: str) -> Case:
    return next(c for c in CASES if c.id == id)


def test_every_catalogue_number_is_here() -> None:
    # M27, M32 and M33 are written as TTIR (test_write_only.py): Triton no longer emits them
    expected = {f"M{n:02}" for n in range(1, 39)} - {"M27", "M32", "M33"}
    expected |= {f"A{n:02}" for n in range(1, 18)} - {"A11"}  # A11: test_split_k_refuses_in_every_order
    assert expected <= {c.id.split("-")[0] for c in CASES}


def located(accesses: tuple[MemoryAccess, ...], effect: MemoryEffect) -> list[MemoryAccess]:
    return [a for a in accesses if a.effect is effect]


def line_of(file: str, text: str) -> int:
    lines = (case_module(file).__file__ or "", text)
    with open(lines[0], encoding="utf-8") as source:
        numbers = [number for number, line in enumerate(source, 1) if text in line]
    assert len(numbers) == 1, numbers
    return numbers[0]


def test_locations_are_lines_of_the_source() -> None:
    accesses = accesses_of(case("A01"))
    (read,) = located(accesses, MemoryEffect.READ)
    assert read.location.file.endswith("branches.py")
    lines = open(read.location.file, encoding="utf-8").read().splitlines()
    assert lines[read.location.line - 1] == "    tl.store(o + 1, tl.load(p))"
    assert lines[read.location.line - 1][read.location.column] in "tp"  # the call, or its last argument


def test_static_range_copies_share_one_location() -> None:
    stores = located(accesses_of(case("M36")), MemoryEffect.WRITE)
    assert len(stores) == 4 and len({s.location for s in stores}) == 1
    assert len(judge("o", (specialization(case("M36")), tuple(stores))).stores) == 1


def test_call_path_and_location_of_a_store_in_a_helper() -> None:
    (store,) = located(accesses_of(case("M14")), MemoryEffect.WRITE)
    assert store.location.line == line_of("helpers", "    tl.store(p + n, 1.0)")
    assert [c.line for c in store.call_path] == [
        line_of("helpers", "    nested_puts(o, n)"),
        line_of("helpers", "    puts(p, n)"),
    ]


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        (("*fp32", "*fp32"), ("f32", "f32", None)),
        (("*fp32", "*fp16"), ("f32", "f16", "arith.truncf")),
        (("*fp16", "*fp32"), ("f16", "f32", "arith.extf")),
        (("*bf16", "*fp16"), ("bf16", "f16", ("arith.truncf", "tt.fp_to_fp"))),
        (("*fp32", "*i8"), ("f32", "i8", "arith.fptosi")),
        (("*fp32", "*u8"), ("f32", "i8", "arith.fptoui")),
        (("*i32", "*fp32"), ("i32", "f32", "arith.sitofp")),
        (("*i32", "*i8"), ("i32", "i8", "arith.trunci")),
        (("*i32", "*i64"), ("i32", "i64", "arith.extsi")),
        (("*u32", "*i64"), ("i32", "i64", "arith.extui")),
        (("*fp32", "*fp8e5"), ("f32", "f8E5M2", "tt.fp_to_fp")),
        (("*i1", "*i1"), ("i1", "i1", None)),
        (("*i32", "*i1"), ("i32", "i1", ("arith.trunci", "arith.cmpi"))),
        (("*fp32", "*i1"), ("f32", "i1", ("arith.fptosi", "arith.cmpf"))),
    ],
)
def test_implicit_cast_of_a_store(
    kinds: tuple[str, str], expected: tuple[str, str, str | tuple[str, str] | None]
) -> None:
    *types, cast = expected
    if isinstance(cast, tuple):
        cast = cast[triton_version() >= (3, 9)]
    text = lower(case_module("plain").stores_cast, {"a": kinds[0], "o": kinds[1], "BLOCK": "constexpr"}, B)
    (store,) = located(memory_accesses(parse(text)), MemoryEffect.WRITE)
    assert (store.value_type, store.element_type, store.implicit_cast) == (*types, cast)
    assert not store.bitcast_pointer


def test_bool_buffers_are_i1_and_not_bitcast() -> None:
    flags = next(a for a in accesses_of(case("M35-bool")) if a.roots == {"flags"})
    assert (flags.element_type, flags.value_type, flags.implicit_cast) == ("i1", "i1", None)
    assert not flags.bitcast_pointer


def test_witness_tells_the_way_of_a_swapped_pointer() -> None:
    (read,) = located(accesses_of(case("A03")), MemoryEffect.READ)
    words = [step.words for step in read.way_from("o")]
    assert words == ["is carried by the loop as `q`", "becomes `p` in the next iteration"]
    assert [step.words for step in read.way_from("a")] == ["is carried by the loop as `p`"]
    assert read.flow == tuple(step.location for step in read.way_from("o"))


def test_witness_tells_the_way_through_a_helper() -> None:
    (read,) = located(accesses_of(case("helper-swap")), MemoryEffect.READ)
    assert [step.words for step in read.way_from("o")] == ["is returned by `swapped`"]
    reads = located(accesses_of(case("helper-read")), MemoryEffect.READ)
    assert [s.words for a in reads for s in a.way_from("o")] == ["is passed to `reads`"]


def test_calls_that_double_are_not_followed_path_by_path() -> None:
    text = lower(case_module("helpers").doubling_calls, {"o": "*fp32"})
    accesses = memory_accesses(parse(text))
    assert {a.roots for a in accesses} == {frozenset({"o"})}
    assert len(accesses) <= 4096


def test_the_same_store_call_for_another_buffer_in_another_specialization() -> None:
    # each is proved; that one call would serve two buffers shows in the locations, by which the rewrite is planned
    signature = p("a o o2 FIRST")
    stores = []
    for first in (True, False):
        text = lower(case_module("plain").same_site_two_buffers, signature, {"FIRST": first})
        s = Specialization(tuple(signature.items()), (("FIRST", first),), f"FIRST={first}")
        stores += located(memory_accesses(parse(text), s), MemoryEffect.WRITE)
    assert [store.roots for store in stores] == [{"o"}, {"o2"}]
    assert stores[0].location == stores[1].location and not stores[0].call_path


def test_split_k_refuses_in_every_order() -> None:  # A11
    pairs = []
    for split in (1, 4):
        signature = p("a o SPLIT_K")
        text = lower(case_module("branches").split_k, signature, {"SPLIT_K": split})
        s = Specialization(tuple(signature.items()), (("SPLIT_K", split),), f"SPLIT_K={split}")
        pairs.append((s, memory_accesses(parse(text), s)))
    assert codes(judge("o", pairs[0])) == ""
    for order in (pairs, pairs[::-1]):
        verdict = judge("o", *order)
        assert codes(verdict) == "KR202"
        assert verdict.diagnostics[0].notes == ("with SPLIT_K=4",)


def test_a_signature_that_does_not_fit_is_our_bug() -> None:
    from kernel_rewrite.model import InternalError

    text = lower(case_module("plain").scalar_store, p("a o"))
    for wrong in (p("o a"), p("a"), p("a o c"), {"a": "*fp32", "o": "fp32"}):
        with pytest.raises(InternalError):
            memory_accesses(parse(text), Specialization(tuple(wrong.items()), ()))


def test_anywhere_is_not_a_parameter_name() -> None:
    assert not ANYWHERE.isidentifier()


@pytest.mark.parametrize(
    ("symbol", "name"),
    [
        ("__main__.helper__Pfp16S64S_i32", "helper"),
        ("pkg.mod.deep._private_one__fp32_c1.5", "_private_one"),
        ("triton.language.standard.sum__fp32S64S__(1,)cconstexpr_0__", "sum"),
        ("kernel", "kernel"),
    ],
)
def test_source_name(symbol: str, name: str) -> None:
    assert source_name(symbol) == name
