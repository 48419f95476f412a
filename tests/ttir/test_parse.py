"""Reading TTIR text: full fidelity on what Triton prints, an error on anything else."""

from __future__ import annotations

import re
import time

import pytest

from kernel_rewrite.model import Location
from kernel_rewrite.ttir.parse import (
    UNKNOWN_TYPE,
    Module,
    Operation,
    TtirSyntaxError,
    Value,
    element_type,
    is_pointer,
    parse,
    pointee_type,
    split_tensor,
    unescaped,
    with_shape_of,
)

from .conftest import lower, triton_version
from .test_accesses import CASES, Case, case_module


def wrapped(
    body: str,
    parameters: str = '%a: !tt.ptr<f32> loc("a"(#loc)), %o: !tt.ptr<f32> loc("o"(#loc)), %c: i1 loc("c"(#loc)), '
    '%n: i32 loc("n"(#loc))',
    column: int = 0,
) -> str:
    return (
        f'#loc = loc("kernel.py":1:{column})\nmodule {{\n  tt.func public @kernel({parameters}) '
        f"attributes {{noinline = false}} {{\n{body}\n  }} loc(#loc)\n}} loc(#loc)\n"
        f'#loc1 = loc("kernel.py":2:{column + 4})\n#loc2 = loc("x"(#loc1))\n#loc3 = loc("y"(#loc2))\n'
    )


def operations(body: str) -> list[Operation]:
    return list(parse(wrapped(body)).kernel.walk())


# ------------------------------------------------------------------------------- what Triton prints, read and rewritten


def text_of(case: Case) -> str:
    if not case.since <= triton_version() <= case.until:
        pytest.skip(f"Triton {triton_version()} does not have what this kernel uses")
    file, kernel = case.kernel.split(".")
    return lower(getattr(case_module(file), kernel), case.signature, case.constexprs)


def printed(operation: Operation) -> str:
    """An operation without regions as MLIR prints it, from its parts alone."""
    groups: dict[str, int] = {}
    for result in operation.results:
        groups[result.name.split("#")[0]] = groups.get(result.name.split("#")[0], 0) + 1
    results = ", ".join(name if count == 1 else f"{name}:{count}" for name, count in groups.items())
    names = iter(operation.operands)
    masked = re.sub(r'"(?:[^"\\]|\\.)*"', lambda m: "_" * len(m[0]), operation.attributes)
    pieces, last = [], 0
    for mark in re.finditer("%", masked):
        pieces += [operation.attributes[last : mark.start()], next(names).name]
        last = mark.end()
    body = "".join(pieces) + operation.attributes[last:]
    assert next(names, None) is None
    colon = "" if operation.types.startswith("->") and not operation.operands else " : "
    types = f"{colon}{operation.types}" if operation.types else ""
    return re.sub(r"\s+", "", f"{results + ' = ' if results else ''}{operation.name}{body}{types}")


@pytest.mark.parametrize("case", CASES, ids=str)
def test_parts_hold_the_whole_text(case: Case) -> None:
    module = parse(text_of(case))
    count = 0
    for function in module.functions:
        for operation in function.walk():
            if operation.regions:
                continue
            original = re.sub(r" loc\((?:#loc\d*|unknown)\)$", "", operation.text)
            assert printed(operation) == re.sub(r"\s+", "", original)
            count += 1
    assert count >= 3


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_type_is_derived_and_agrees_with_its_uses(case: Case) -> None:
    module = parse(text_of(case))
    for function in module.functions:
        for operation in function.walk():
            assert UNKNOWN_TYPE not in operation.result_types, operation.text
            for value, type_ in printed_operand_types(operation):
                assert value.type == type_, operation.text


LISTS_EVERY_OPERAND = ("tt.call", "scf.yield", "tt.return", "tt.addptr", "tt.splat", "tt.broadcast", "tt.atomic_rmw")


def printed_operand_types(operation: Operation) -> list[tuple[Value, str]]:
    """The operands whose types the text repeats: those left of an arrow, or of a same-type operation."""
    if operation.regions or operation.successors:
        return []
    left = re.split(r" -> | to ", operation.types)[0].strip()
    left = left[1:-1] if left.startswith("(") else left
    types = re.findall(r"(?:[^,<]|<(?:[^<>]|<(?:[^<>]|<[^<>]*>)*>)*>)+", left)
    types = [type_.strip() for type_ in types]
    if operation.name in LISTS_EVERY_OPERAND:
        assert len(types) == len(operation.operands), operation.text
        return list(zip(operation.operands, types, strict=True))
    if operation.name in ("tt.load", "tt.store"):
        return [(operation.operands[0], types[0])]
    if operation.name in ("arith.addi", "arith.addf", "arith.mulf", "arith.cmpi", "arith.cmpf"):
        return [(operand, types[0]) for operand in operation.operands]
    return []


def test_every_line_is_an_operation() -> None:
    text = text_of(next(c for c in CASES if c.id == "M25"))
    module = parse(text)
    found = sum(1 for function in module.functions for _ in function.walk())
    lines = [line.strip() for line in text.splitlines()]
    structure = ("#loc", "module", "tt.func", "}", "^", "")
    expected = [line for line in lines if line and not line.startswith(structure[:-1])]
    assert found == len(expected) > 100


def test_parsing_is_fast() -> None:
    text = text_of(next(c for c in CASES if c.id == "M25"))
    size = len(text.splitlines())
    best = min(_seconds(text) for _ in range(5))
    assert best / size < 200e-6, f"{best * 1e3:.1f} ms for {size} lines"  # 20 to 30 us a line on an idle core


def _seconds(text: str) -> float:
    start = time.perf_counter()
    parse(text)
    return time.perf_counter() - start


# ------------------------------------------------------------------------------------------------------------ structure


def test_loop_values() -> None:
    (loop, add, yield_) = operations(
        """    %q:2 = scf.for %j = %n to %n step %n iter_args(%x = %n, %p = %o) -> (i32, !tt.ptr<f32>)  : i32 {
      %y = tt.addptr %p, %j : !tt.ptr<f32>, i32 loc(#loc1)
      scf.yield %x, %y : i32, !tt.ptr<f32> loc(#loc1)
    } {tt.num_stages = 3 : i32} loc(#loc1)"""
    )
    assert [v.name for v in loop.operands] == ["%n", "%n", "%n", "%n", "%o"]
    assert [v.name for v in loop.results] == ["%q#0", "%q#1"]
    assert [v.name for v in loop.regions[0].arguments] == ["%j", "%x", "%p"]
    assert [v.type for v in loop.regions[0].arguments] == ["i32", "i32", "!tt.ptr<f32>"]
    assert loop.attribute("tt.num_stages") == "3 : i32"
    assert add.operands[0] is loop.regions[0].arguments[2]
    assert yield_.operands[1] is add.results[0]


def test_loop_without_values_and_unsigned() -> None:
    (loop,) = operations("    scf.for unsigned %j = %n to %n step %n  : i32 {\n    } loc(#loc1)")
    assert loop.results == () and loop.attributes == "unsigned" and len(loop.operands) == 3


def test_while_regions_and_condition() -> None:
    loop, condition, yield_ = operations(
        """    %r:2 = scf.while (%p = %a, %q = %o) : (!tt.ptr<f32>, !tt.ptr<f32>) -> (!tt.ptr<f32>, !tt.ptr<f32>) {
      scf.condition(%c) %q, %p : !tt.ptr<f32>, !tt.ptr<f32> loc(#loc1)
    } do {
    ^bb0(%p: !tt.ptr<f32> loc("p"), %q: !tt.ptr<f32> loc("q"(#loc1))):
      scf.yield %q, %p : !tt.ptr<f32>, !tt.ptr<f32> loc(#loc1)
    } loc(#loc1)"""
    )
    before, after = loop.regions
    assert condition.operands[1] is before.arguments[1] and condition.operands[2] is before.arguments[0]
    assert yield_.operands[0] is after.arguments[1]
    assert before.arguments[0] is not after.arguments[0]
    assert loop.result_types == ("!tt.ptr<f32>", "!tt.ptr<f32>")


def test_branches_hand_values_to_blocks() -> None:
    module = parse(
        wrapped(
            """    cf.cond_br %c, ^bb1(%a, %n : !tt.ptr<f32>, i32), ^bb2 loc(#loc1)
  ^bb1(%p: !tt.ptr<f32> loc("p"), %m: i32 loc(unknown)):  // 2 preds: ^bb0, ^bb2
    tt.return loc(#loc1)
  ^bb2:  // pred: ^bb0
    cf.br ^bb1(%o, %n : !tt.ptr<f32>, i32) loc(#loc1)
  ^bb3:  // no predecessors
    tt.return loc(#loc1)"""
        )
    )
    entry, first, second, dead = module.kernel.blocks
    branch = entry.operations[0]
    assert [s.label for s in branch.successors] == ["^bb1", "^bb2"]
    assert [v.name for v in branch.successors[0].operands] == ["%a", "%n"]
    assert branch.successors[1].operands == ()
    assert branch.operands[0].name == "%c" and len(branch.operands) == 3
    assert [v.type for v in first.arguments] == ["!tt.ptr<f32>", "i32"]
    assert second.operations[0].successors[0].operands[0].name == "%o"
    assert module.kernel.body.reachable() == (entry, first, second)
    assert dead.arguments == ()


def test_a_block_may_use_what_a_later_block_defines() -> None:
    module = parse(
        wrapped(
            """    cf.br ^bb2 loc(#loc1)
  ^bb1:
    %y = arith.addi %x, %n : i32 loc(#loc1)
    tt.return loc(#loc1)
  ^bb2:
    %x = arith.addi %n, %n : i32 loc(#loc1)
    cf.br ^bb1 loc(#loc1)"""
        )
    )
    blocks = module.kernel.blocks
    assert blocks[1].operations[0].operands[0] is blocks[2].operations[0].results[0]


def test_generic_operations_with_regions() -> None:
    reduce, _ = operations(
        """    %0:2 = "tt.reduce"(%n, %n) <{axis = 0 : i32}> ({
    ^bb0(%x: i32 loc(unknown), %y: i32 loc("k.py":3:9), %z: i32 loc(unknown), %w: i32 loc(unknown)):
      tt.reduce.return %x, %y : i32, i32 loc(#loc1)
    }) {tag = "}) : ("} : (i32, i32) -> (i32, tensor<4xi32>) loc(#loc1)"""
    )
    assert reduce.name == "tt.reduce" and reduce.result_types == ("i32", "tensor<4xi32>")
    assert reduce.attribute("axis") == "0 : i32"
    assert [v.name for v in reduce.regions[0].arguments] == ["%x", "%y", "%z", "%w"]
    assert reduce.regions[0].blocks[0].terminator is not None


def test_calls() -> None:
    plain, quoted = operations(
        "    tt.call @__main__.helper__Pfp16(%a) : (!tt.ptr<f32>) -> () loc(#loc1)\n"
        '    %0:2 = tt.call @"lib.f__(1,)cconstexpr_\\22x\\22_"(%a, %n) : (!tt.ptr<f32>, i32) -> (f32, i32) loc(#loc1)'
    )
    assert plain.callee == "__main__.helper__Pfp16" and plain.results == ()
    assert quoted.callee == 'lib.f__(1,)cconstexpr_"x"_' and quoted.result_types == ("f32", "i32")


def test_strings_hide_nothing() -> None:
    (asm,) = operations(
        '    %r = tt.elementwise_inline_asm "\\0A { // a \\22quote\\22 %n, pure = true : -> ^bb1 }"'
        ' {constraints = "=r,r", packed_element = 1 : i32, pure = false} %n : i32 -> i32 loc(#loc1)'
    )
    assert asm.attribute("pure") == "false"
    assert asm.attribute("constraints") == '"=r,r"'
    assert [v.name for v in asm.operands] == ["%n"] and asm.result_types == ("i32",) and not asm.successors


def test_print_has_operands_after_its_first_colon() -> None:
    (show,) = operations(
        '    tt.print " x \\22 : %n: " {hex = false, isSigned = array<i32: 0>} : %n, %a : i32, !tt.ptr<f32> loc(#loc1)'
    )
    assert [v.name for v in show.operands] == ["%n", "%a"] and show.types == "i32, !tt.ptr<f32>"


@pytest.mark.parametrize(
    ("line", "type_"),
    [
        ("%r = arith.constant true", "i1"),
        ("%r = arith.constant -1 : i32", "i32"),
        ("%r = arith.constant 0x7F800000 : f32", "f32"),
        ("%r = arith.constant dense<0.000000e+00> : tensor<64x32xf32>", "tensor<64x32xf32>"),
        ('%r = arith.constant dense<"0x00FF"> : tensor<2xi8>', "tensor<2xi8>"),
        ("%r = arith.cmpi slt, %n, %n : i32", "i1"),
        ("%r = arith.select %c, %a, %o : !tt.ptr<f32>", "!tt.ptr<f32>"),
        ("%r = tt.load %a : !tt.ptr<f32>", "f32"),
        ("%r = tt.load %a cacheModifier = cg evictionPolicy = evict_last : !tt.ptr<f32>", "f32"),
        ("%r = tt.load %a {cachePolicy = #tt.cache_policy<cache_modifier = cg>} : !tt.ptr<f32>", "f32"),
        ("%r = tt.load %a {boundaryCheck = array<i32: 0>} : !tt.ptr<tensor<16x16xf16>>", "tensor<16x16xf16>"),
        ("%r = tt.splat %a : !tt.ptr<f32> -> tensor<4x!tt.ptr<f32>>", "tensor<4x!tt.ptr<f32>>"),
        ("%r = tt.make_tensor_ptr %a, [%n], [%n], [%n] {order = array<i32: 0>} : <tensor<16xf16>>",
         "!tt.ptr<tensor<16xf16>>"),
        ("%r = tt.make_tensor_descriptor %a, [%n], [%n] : <f16>, <tensor<8x8xf16>>", "!tt.tensordesc<tensor<8x8xf16>>"),
        ("%r = tt.make_tensor_descriptor %a, [%n], [%n] : <f16>, <8x8xf16>", "!tt.tensordesc<8x8xf16>"),
        ("%r = tt.dot %n, %n, %n, inputPrecision = tf32 : tensor<16x16xf16> * tensor<16x16xf16> -> tensor<16x16xf32>",
         "tensor<16x16xf32>"),
        ("%r = tt.atomic_rmw fadd, acq_rel, gpu, %a, %n, %c : (!tt.ptr<f32>, f32, i1) -> f32", "f32"),
        ("%r = tt.unsplat %n : tensor<1xi32>", "i32"),
        ("%r = math.exp %n : tensor<4xf32>", "tensor<4xf32>"),
        ("%r = arith.sitofp %n : i32 to f32", "f32"),
        ('%r = tt.elementwise_inline_asm "mov.u32 $0, %smid; // -> x" {pure = false} -> i32', "i32"),
        ("%r = some.new_operation %n : i32", UNKNOWN_TYPE),
    ],
)  # fmt: skip
def test_result_types(line: str, type_: str) -> None:
    (operation,) = operations(f"    {line} loc(#loc1)")
    assert operation.result_types == (type_,)


def test_split_has_two_results_of_one_type() -> None:
    (split,) = operations("    %l, %r = tt.split %n : tensor<4x2xf32> -> tensor<4xf32> loc(#loc1)")
    assert split.result_types == ("tensor<4xf32>", "tensor<4xf32>")


# ------------------------------------------------------------------------------------------------------------ locations


@pytest.mark.parametrize(
    ("location", "expected", "names"),
    [
        ("#loc1", (2, 4), ()),
        ("#loc3", (2, 4), ("y", "x")),
        ("unknown", None, ()),
        ('"kernel.py":7:9', (7, 9), ()),
        ('"kernel.py":7:9 to :12', (7, 9), ()),
        ('"kernel.py":7:9 to 8:3', (7, 9), ()),
        ('"n"(#loc1)', (2, 4), ("n",)),
        ('"n"("m"("kernel.py":7:9))', (7, 9), ("n", "m")),
        ('"n"', None, ("n",)),
        ("callsite(#loc1 at #loc)", (2, 4), ()),
        ('callsite("a at b"(#loc1) at "kernel.py":9:9)', (2, 4), ("a at b",)),
        ("fused[unknown, #loc2]", (2, 4), ("x",)),
        ('fused<"meta">[#loc1, #loc]', (2, 4), ()),
    ],
)
def test_location_forms(location: str, expected: tuple[int, int] | None, names: tuple[str, ...]) -> None:
    (operation,) = operations(f"    tt.return loc({location})")
    assert operation.location == (None if expected is None else Location("kernel.py", *expected))
    assert operation.location_names == names


def test_columns_count_from_zero_in_every_version() -> None:
    for column in (0, 1):
        module = parse(wrapped("    tt.return loc(#loc1)", column=column))
        assert module.kernel.location == Location("kernel.py", 1, 0)
        assert next(module.kernel.walk()).location == Location("kernel.py", 2, 4)
        assert module.call_locations == (column == 1)


def test_file_names_are_unescaped() -> None:
    (operation,) = operations('    tt.return loc("a \\22b\\22\\\\c \\C3\\A9.py":3:4)')
    assert operation.location == Location('a "b"\\c é.py', 3, 4)
    assert unescaped("\\0A") == "\n"


def test_parameters_keep_their_source_names() -> None:
    module = parse(
        wrapped(
            "    tt.return loc(#loc1)",
            '%q: !tt.ptr<f32> {tt.divisibility = 16 : i32} loc("q"("p"("out_ptr"(#loc)))), %x-1.0: i32 loc(unknown)',
        )
    )
    first, second = module.kernel.parameters
    assert (first.name, first.type, first.attributes) == ("out_ptr", "!tt.ptr<f32>", "{tt.divisibility = 16 : i32}")
    assert first.value.name == "%q" and second.name == "x-1.0"


# --------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    "body",
    [
        "    what is this",
        "    %x = arith.addi %n, %missing : i32 loc(#loc1)",
        "    %n = arith.addi %n, %n : i32 loc(#loc1)",
        "    tt.return loc(#loc99)",
        "    tt.return loc(strange)",
        "    cf.br ^bb7 loc(#loc1)",
        "    some.region_operation %n {\n    } loc(#loc1)",
        "    scf.for %j = %n to %n {\n    } loc(#loc1)",
        "    scf.if %c -> (i32 {\n    } otherwise {\n    } loc(#loc1)",
        "    scf.while (%p = %a) : () -> () {\n    } do {\n    } loc(#loc1)",
        "    tt.call @f(%n : (i32) -> () loc(#loc1)",
        "  ^bb1(: i32):",
        "    scf.if %c {",
        "    cf.switch %n : i32, [\n      default: ^bb1\n    ] loc(#loc1)",
    ],
)
def test_what_is_not_understood_is_an_error(body: str) -> None:
    with pytest.raises(TtirSyntaxError):
        parse(wrapped(body))


@pytest.mark.parametrize(
    "text",
    ["", "module {", "module {\n}\nmore", "func {\n}", '#loc = "x"\nmodule {\n}', "!t = f32\nmodule {\n}"],
)
def test_what_is_not_a_module_is_an_error(text: str) -> None:
    with pytest.raises(TtirSyntaxError):
        parse(text)


def test_the_error_names_its_line() -> None:
    with pytest.raises(TtirSyntaxError, match=r"TTIR line 4: .*: what is this") as error:
        parse(wrapped("    what is this"))
    assert error.value.line == 4


def test_a_module_has_one_kernel() -> None:
    module = parse("module {\n}")
    assert isinstance(module, Module)
    with pytest.raises(TtirSyntaxError):
        module.kernel


# ---------------------------------------------------------------------------------------------------------------- types


@pytest.mark.parametrize(
    ("type_", "pointer", "pointee", "element"),
    [
        ("f32", False, UNKNOWN_TYPE, "f32"),
        ("tensor<64x32xf16>", False, UNKNOWN_TYPE, "f16"),
        ("!tt.ptr<f16>", True, "f16", "!tt.ptr<f16>"),
        ("!tt.ptr<f16, 3>", True, "f16", "!tt.ptr<f16, 3>"),
        ("tensor<64x!tt.ptr<f16>>", True, "tensor<64xf16>", "!tt.ptr<f16>"),
        ("tensor<64x32x!tt.ptr<f8E4M3FN>>", True, "tensor<64x32xf8E4M3FN>", "!tt.ptr<f8E4M3FN>"),
        ("!tt.ptr<tensor<64x64xf16>>", True, "tensor<64x64xf16>", "!tt.ptr<tensor<64x64xf16>>"),
        ("!tt.ptr<!tt.ptr<f16>>", True, "!tt.ptr<f16>", "!tt.ptr<!tt.ptr<f16>>"),
        ("!tt.tensordesc<tensor<8x8xf16>>", True, "tensor<8x8xf16>", "!tt.tensordesc<tensor<8x8xf16>>"),
        ("!tt.tensordesc<8x8xf16>", True, "tensor<8x8xf16>", "!tt.tensordesc<8x8xf16>"),
        (UNKNOWN_TYPE, True, UNKNOWN_TYPE, UNKNOWN_TYPE),
    ],
)
def test_type_helpers(type_: str, pointer: bool, pointee: str, element: str) -> None:
    assert is_pointer(type_) == pointer
    assert pointee_type(type_) == pointee
    assert element_type(type_) == element


def test_shapes() -> None:
    assert split_tensor("tensor<64x32xf16>") == ("64x32x", "f16")
    assert with_shape_of("tensor<64x32xf16>", "i1") == "tensor<64x32xi1>"
    assert with_shape_of("f16", "i1") == "i1"
