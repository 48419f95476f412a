"""What a parameter is taken for: kinds, element types and constexpr values."""

from __future__ import annotations

from textwrap import dedent

import pytest

from kernel_rewrite.diagnostics import FusionRefused
from kernel_rewrite.model import Closure, Dtype, Evidence
from kernel_rewrite.source.autotune import tuning
from kernel_rewrite.source.closure import close, kernels
from kernel_rewrite.source.files import Project, source_from_text
from kernel_rewrite.source.launches import launches
from kernel_rewrite.source.signatures import NO_OVERRIDES, Overrides, Parameter, Signature, infer, parse_overrides

HEAD = "import torch\nimport triton\nimport triton.language as tl\n"


def closed(text: str, name: str = "kernel") -> tuple[Closure, Signature]:
    project = Project()
    file = project.add(source_from_text(HEAD + dedent(text), "f.py"))
    kernel = next(k for k in kernels(file, project) if k.name == name)
    closure = close(kernel, project)
    sites = launches(kernel.node, file.tree, file.path)
    return closure, infer(closure, sites, tuning(kernel.node, file.tree, file.path))


def inferred(parameters: str, body: str, rest: str = "") -> Signature:
    text = f"@triton.jit\ndef kernel({parameters}):\n" + "".join(
        f"    {line}\n" for line in dedent(body).splitlines() if line
    )
    return closed(dedent(rest) + "\n" + text)[1]


def types(signature: Signature) -> dict[str, object]:
    return {p.name: p.type for p in signature.parameters}


def values(signature: Signature, name: str) -> tuple[object, ...]:
    return signature[name].values


ADD = """
i = tl.program_id(0) * B + tl.arange(0, B)
tl.store(z + i, tl.load(x + i, mask=i < n) + tl.load(y + i, mask=i < n) * a, mask=i < n)
"""


def test_a_plain_kernel() -> None:
    found = inferred("x, y, z, n, a, B: tl.constexpr", ADD)
    assert types(found) == {"x": "*fp32", "y": "*fp32", "z": "*fp32", "n": "i32", "a": "i32", "B": "constexpr"}
    assert values(found, "B") == (64,)
    assert found["n"].evidence is Evidence.USE


@pytest.mark.parametrize(
    ("annotation"), ["tl.constexpr", "triton.language.constexpr", "'tl.constexpr'", '"tl.constexpr"']
)
def test_spellings_of_constexpr(annotation: str) -> None:
    assert inferred(f"x, B: {annotation}", "tl.store(x + tl.arange(0, B), 1.0)")["B"].kind == "constexpr"


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ("p = q + off\np += 1\ntl.store(p, 0.0)", {"q"}),
        ("tl.store(n * off + q, 0.0)", {"q"}),
        ("tl.store(q + off * n, 0.0)", {"q"}),
        ("p = q\nfor i in range(0, n):\n    tl.store(p, 0.0)\n    p += off", {"q"}),
        ("save(q, off)", {"q"}),
        ("save(value=off, pointer=q)", {"q"}),
        ("tl.atomic_add(q + off, 1.0)", {"q"}),
        ("b = tl.make_block_ptr(q, (n,), (1,), (off,), (16,), (0,))\ntl.store(b, tl.zeros((16,), tl.float32))", {"q"}),
        ("b = tl.make_block_ptr(base=q, shape=(n,), strides=(1,), offsets=(off,), block_shape=(16,), order=(0,))\n"
         "b = tl.advance(b, (n,))\ntl.store(b, tl.zeros((16,), tl.float32))", {"q"}),
        ("d = tl.make_tensor_descriptor(q, [n], [1], [16])\nd.store([off], tl.zeros((16,), tl.float32))", {"q"}),
        ("p = tl.where(n > 0, q, off)\ntl.store(p + n, 0.0)", {"q", "off"}),
        ("if n > 0:\n    p = q\nelse:\n    p = off\ntl.store(p + n, 0.0)", {"q", "off"}),
        ("p = pick(q, n)\ntl.store(p, 0.0)", {"q"}),
        ("p, r = pair(q, off)\ntl.store(r + n, 0.0)", {"off"}),
        ("x = off.dtype.element_ty\ntl.store(q, 0.0)", {"q", "off"}),
    ],
)  # fmt: skip
def test_what_is_dereferenced_is_a_pointer(body: str, pointers: set[str]) -> None:
    helpers = """
    @triton.jit
    def save(pointer, value):
        tl.store(pointer + value, 0.0)

    @triton.jit
    def pick(pointer, n):
        return pointer + n

    @triton.jit
    def pair(a, b):
        return a, b
    """
    found = inferred("n, off, q", body, helpers)
    assert {p.name for p in found.parameters if p.kind == "pointer"} == pointers


def test_a_helper_that_stores_through_its_first_parameter() -> None:
    """M14, M16: scalars between pointers, and a callee with other parameter order."""
    helpers = """
    @triton.jit
    def inner(n, pointer):
        tl.store(pointer + n, n)

    @triton.jit
    def outer(pointer, n):
        inner(n, pointer)
    """
    found = inferred("n, q, m", "outer(q, n + m)", helpers)
    assert types(found) == {"n": "i32", "q": "*fp32", "m": "i32"}


@pytest.mark.parametrize(
    ("body", "element"),
    [
        ("tl.store(q + tl.load(x + i), 0.0)", "*i32"),
        ("j = tl.load(x + i).to(tl.int64)\ntl.store(q + j * n, 0.0)", "*i32"),
        ("for j in range(0, tl.load(x)):\n    tl.store(q + j, 0.0)", "*i32"),
        ("tl.store(q + i, 0.0, mask=tl.load(x + i))", "*i1"),
        ("tl.store(q + i, tl.load(x + i) >> 4)", "*i32"),
        ("tl.store(q + i, tl.load(x + i) // 4)", "*i32"),
        ("tl.store(q + i, tl.exp(tl.load(x + i)))", "*fp32"),
        ("tl.store(q + i, tl.load(x + i).to(tl.float32) * 2.0)", "*fp32"),
        ("tl.store(q + i, tl.load(x + i, mask=i < n, other=-float('inf')))", "*fp32"),
        ("p = tl.load(x + i).to(tl.pointer_type(tl.float32))\ntl.store(p, 0.0)\ntl.store(q, 0.0)", "*i64"),
        ("p = tl.load(x + i)\ntl.store(p, 0.0)\ntl.store(q, 0.0)", "*i64"),
        ("tl.store(x + i, tl.argmax(tl.load(q + i), axis=0))", "*i64"),
        ("tl.store(x + i, tl.load(q + i) > 0.0)", "*i1"),
        ("tl.store(q + i, tl.load(x + i).to(tl.uint8, bitcast=True))", "*u8"),
        ("tl.store(q, tl.atomic_cas(x, 0, 1))", "*i32"),
    ],
)
def test_element_types_from_use(body: str, element: str) -> None:
    assert types(inferred("x, q, n", f"i = tl.arange(0, 16)\n{body}"))["x"] == element


@pytest.mark.parametrize(
    ("name", "element"),
    [("token_ids", "*i32"), ("cu_seqlens", "*i32"), ("block_table_ptr", "*i32"), ("x_ptr", "*fp32")],
)
def test_element_types_from_names(name: str, element: str) -> None:
    assert types(inferred(f"{name}, q", f"tl.store(q, tl.load({name}))"))[name] == element


@pytest.mark.parametrize(
    ("parameter", "body", "kind"),
    [
        ("s", "tl.store(q + s, 0.0)", "i32"),
        ("s", "tl.store(q + tl.arange(0, 16), 0.0, mask=tl.arange(0, 16) < s)", "i32"),
        ("s", "for i in range(s):\n    tl.store(q + i, 0.0)", "i32"),
        ("s", "tl.store(q, tl.exp(s))", "fp32"),
        ("s", "tl.store(q, tl.load(q) + s)", "i32"),
        ("eps", "tl.store(q, tl.load(q) + eps)", "fp32"),
        ("s", "tl.store(q, s * 0.5)", "fp32"),
        ("s: float", "tl.store(q, s)", "fp32"),
        ("s: 'tl.int64'", "tl.store(q, s)", "i64"),
        ("s: tl.int64", "tl.store(q, s)", "i64"),
    ],
)
def test_scalars(parameter: str, body: str, kind: str) -> None:
    name = parameter.partition(":")[0]
    assert types(inferred(f"q, {parameter}", body))[name] == kind


LAUNCHED = "i = tl.arange(0, 16)\ntl.store(z + i, tl.load(x + i) + tl.load(y + i) * a)"


def launched(launcher: str, parameters: str = "x, y, z, a", body: str = LAUNCHED) -> Signature:
    return inferred(parameters, body, rest="def launch(x, y, out=None, flag=False):\n" + launcher)


def test_element_types_from_the_launcher() -> None:
    found = launched(
        "    z = torch.empty(4, dtype=torch.float16)\n    kernel[(1,)](x.to(torch.bfloat16), y, z, 0.5)\n",
    )
    assert types(found) == {"x": "*bf16", "y": "*fp32", "z": "*fp16", "a": "fp32"}
    assert found["z"].evidence is Evidence.ALLOCATION
    assert found["x"].evidence is Evidence.LAUNCH


def test_element_types_flow_through_empty_like() -> None:
    body = "i = tl.load(x)\ntl.store(y + i, 0.0)\ntl.store(z, i)"
    found = launched("    z = torch.empty_like(x)\n    kernel[(1,)](x, y, z, 1)\n", body=body)
    assert types(found)["z"] == "*i32"


def test_launch_evidence_does_not_outweigh_what_must_be() -> None:
    found = launched("    kernel[(1,)](x.float(), y, out, 1)\n", body="tl.store(z + tl.load(x), tl.load(y) * a)")
    assert types(found)["x"] == "*i32"


def test_none_arguments() -> None:
    """M15: a parameter that is None is a constexpr; one that may be None is optional."""
    found = launched("    kernel[(1,)](x, y, out, None)\n", body="tl.store(z, tl.load(x))")
    assert (found["a"].kind, found["a"].values) == ("constexpr", (None,))
    tested = inferred("x, z", "if x is not None:\n    tl.store(z, tl.load(x))\nelse:\n    tl.store(z, 0.0)")
    assert (tested["x"].kind, tested["x"].optional, tested["z"].optional) == ("pointer", True, False)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("tl.store(q + tl.arange(0, C), 0.0)", (64,)),
        ("tl.store(q + tl.arange(0, C // 2), 0.0)", (64,)),
        ("tl.store(q + tl.arange(0, 16), tl.zeros((C,), tl.float32))", (64,)),
        ("if C:\n    tl.store(q, 0.0)", (False, True)),
        ("if not C and q is not None:\n    tl.store(q, 0.0)", (False, True)),
        ("if C == 'relu':\n    tl.store(q, 0.0)\nelif C == 'gelu':\n    tl.store(q, 1.0)", ("gelu", "relu", "")),
        ("if C in ('relu', 'gelu'):\n    tl.store(q, 0.0)", ("gelu", "relu", "")),
        ("tl.store(q, tl.load(q).to(C))", (Dtype("float32"),)),
        ("tl.store(q, tl.zeros((1,), dtype=C))", (Dtype("float32"),)),
        ("for i in tl.static_range(C):\n    tl.store(q + i, 0.0)", (4,)),
        ("for i in range(C):\n    tl.store(q + i, 0.0)", (64,)),
        ("if C is not None:\n    tl.store(q, C)", (None, 64)),
        ("tl.store(q, 0.0, eviction_policy=C)", ("",)),
        ("i = tl.arange(0, 16)[:, None] + tl.arange(0, 16)[None, :]\na = tl.load(q + i)\n"
         "tl.store(q + i, tl.dot(a, a, input_precision=C))", ("ieee",)),
        ("for i in tl.static_range(len(C)):\n    tl.store(q + C[i], 0.0)", ((1, 1),)),
    ],
)  # fmt: skip
def test_constexpr_values_from_use(body: str, expected: tuple[object, ...]) -> None:
    assert values(inferred("q, C: tl.constexpr", body), "C") == expected


STRIDES = """
i = tl.program_id(0) * 1018
tl.store(z + i * stride_a + stride_b * FACTOR + i * stride_c, i)
"""


def test_compile_time_strides_are_told_apart() -> None:
    """By primes, none of which a number of the kernel or a constant that it uses is a multiple of."""
    found = inferred(
        "z, stride_a: tl.constexpr, stride_b: tl.constexpr, stride_c: tl.constexpr",
        STRIDES,
        "FACTOR = tl.constexpr(521)",
    )
    assert [values(found, f"stride_{name}") for name in "abc"] == [(523,), (541,), (547,)]


def test_constexpr_values_in_order_of_strength() -> None:
    body = "tl.store(x + tl.arange(0, C), 0.0)"
    assert values(inferred("x, C: tl.constexpr = 256", body), "C") == (256,)
    site = "def launch(x):\n    kernel[(1,)](x, C=512)\n"
    assert values(inferred("x, C: tl.constexpr = 256", body, site), "C") == (512,)
    tuned = "@triton.autotune(configs=[triton.Config({'C': 32}), triton.Config({'C': 128})], key=[])\n@triton.jit\n"
    found = closed(f"{site}{tuned}def kernel(x, C: tl.constexpr):\n    {body}\n")[1]
    assert (found["C"].values, found["C"].evidence) == ((32, 128), Evidence.AUTOTUNE)


def test_launch_values_are_widened_by_the_branches() -> None:
    site = "def launch(x):\n    kernel[(1,)](x, MODE='sum', FLAG=True, SPLIT=1)\n"
    body = (
        "if MODE == 'mean':\n    tl.store(x, 0.0)\nif FLAG:\n    tl.store(x, 1.0)\nif SPLIT > 2:\n    tl.store(x, 2.0)"
    )
    found = inferred("x, MODE: tl.constexpr, FLAG: tl.constexpr, SPLIT: tl.constexpr", body, site)
    assert values(found, "MODE") == ("sum", "mean", "")
    assert values(found, "FLAG") == (True, False)
    assert values(found, "SPLIT") == (1, 2, 3)


def test_a_function_given_as_constexpr() -> None:
    rest = """
    @triton.jit
    def act(x):
        return x * 2.0

    def launch(x):
        kernel[(1,)](x, ACT=act)
    """
    found = inferred("x, ACT: tl.constexpr", "tl.store(x, ACT(tl.load(x)))", rest)
    assert next(getattr(v, "name", v) for v in values(found, "ACT")) == "act"


def test_descriptor_parameters() -> None:
    rest = """
    def launch(x, BM=32):
        kernel[(1,)](TensorDescriptor.from_tensor(x, [BM, 16]), x, BM=BM)
    """
    found = inferred("d, q, BM: tl.constexpr", "tl.store(q, tl.sum(tl.sum(d.load([0, 0]), 0), 0))", rest)
    assert (found["d"].kind, found["d"].type, found["d"].block) == ("descriptor", "tensordesc<fp16>", ("BM", 16))
    unlaunched = inferred("d, q, BM: tl.constexpr", "tl.store(q, tl.sum(d.load([tl.program_id(0) * BM]), 0))")
    assert unlaunched["d"].block == ("BM",)


def test_tuple_parameters() -> None:
    """A14: a tuple of pointers is one parameter."""
    found = inferred("ins, q", "tl.store(q, tl.load(ins[0]) + tl.load(ins[1]))")
    assert (found["ins"].kind, found["ins"].type) == ("tuple", ("*fp32", "*fp32"))
    assert found["q"].kind == "pointer"


def overridden(settings: tuple[str, ...] = (), dtypes: tuple[str, ...] = ()) -> Signature:
    text = "@triton.jit\ndef kernel(x, y, z, n, a, B: tl.constexpr):\n" + "".join(
        f"    {line}\n" for line in ADD.splitlines() if line
    )
    closure, _ = closed(text)
    return infer(closure, overrides=parse_overrides(closure.kernel, settings, dtypes))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("B=128", 128),
        ("B = 128", 128),
        ("B=None", None),
        ("B=True", True),
        ("B='relu'", "relu"),
        ("B=relu", "relu"),
        ("B=tl.float16", Dtype("float16")),
        ("B=bf16", Dtype("bfloat16")),
        ("B=(1, 2)", (1, 2)),
        ("B=-0.5", -0.5),
    ],
)
def test_set_gives_a_value(text: str, value: object) -> None:
    found = overridden((text,))["B"]
    assert found.values == (value,) and type(found.values[0]) is type(value)
    assert found.evidence is Evidence.OVERRIDE


def test_set_none_makes_a_pointer_absent() -> None:
    assert overridden(("y=None",))["y"] == Parameter("y", "constexpr", "constexpr", (None,), Evidence.OVERRIDE)


@pytest.mark.parametrize(
    ("text", "kind"), [("x=fp16", "*fp16"), ("x=torch.int8", "*i8"), ("x=fp8e4nv", "*fp8e4nv"), ("a=fp32", "fp32")]
)
def test_dtype_gives_an_element_type(text: str, kind: str) -> None:
    found = overridden(dtypes=(text,))[text[0]]
    assert (found.type, found.evidence) == (kind, Evidence.OVERRIDE)


@pytest.mark.parametrize(
    ("settings", "dtypes", "codes"),
    [
        (("BB=1",), (), ["KR105"]),
        ((), ("w=fp16",), ["KR105"]),
        ((), ("x=half_float",), ["KR109"]),
        (("B=1 +",), (), ["KR109"]),
        (("B={1: 2}",), (), ["KR109"]),
        (("BB=1", "B=("), ("x=q",), ["KR105", "KR109", "KR109"]),
    ],
)
def test_wrong_overrides_are_refused(settings: tuple[str, ...], dtypes: tuple[str, ...], codes: list[str]) -> None:
    with pytest.raises(FusionRefused) as refused:
        overridden(settings, dtypes)
    assert [d.code for d in refused.value.diagnostics] == codes
    assert refused.value.diagnostics[0].labels[0].span.column == len("def ")


def test_no_overrides_is_nothing() -> None:
    assert Overrides() == NO_OVERRIDES


def test_blocks_of_a_descriptor_with_batch_and_head() -> None:
    body = "b = tl.program_id(0)\nm = tl.program_id(1) * BM\nd.store([b, m, 0], tl.load(x + tl.arange(0, BM)))"
    assert inferred("x, d, BM: tl.constexpr", body)["d"].block == (1, "BM", 64)


def test_the_last_stride_of_a_descriptor_is_one() -> None:
    body = "d = tl.make_tensor_descriptor(x, shape=[n, n], strides=[s, t], block_shape=[B, B])\nd.store([0, 0], d.load([0, 0]))"
    found = inferred("x, n, s, t, B: tl.constexpr", body)
    assert (found["t"].kind, found["t"].values) == ("constexpr", (1,))
    assert found["s"].type == "i32"


def test_pointers_that_one_access_chooses_from_share_an_element_type() -> None:
    body = "p = tl.where(c > 0, q, k_idx)\nv = tl.load(p + tl.arange(0, 16))\ntl.store(o + tl.arange(0, 16), tl.exp(v))"
    found = inferred("q, k_idx, o, c", body)
    assert found["q"].type == found["k_idx"].type


def test_a_number_that_is_cast_is_no_pointer() -> None:
    body = "p = tl.load(ptrs + tl.program_id(0)).to(out.dtype)\no = shift.to(tl.int64) + tl.arange(0, 16)\n"
    body += "tl.store(out + tl.arange(0, 16), tl.load(p + o))"
    found = inferred("ptrs, out, shift", body)
    assert types(found) == {"ptrs": "*i64", "out": "*fp32", "shift": "i32"}


def test_a_loaded_number_times_an_index_may_be_a_float() -> None:
    body = "for j in tl.static_range(4):\n    tl.store(z + j, tl.load(x) * j)"
    assert types(inferred("x, z", body)) == {"x": "*fp32", "z": "*fp32"}


def test_a_list_of_block_sizes_is_one_of_them() -> None:
    text = (
        "@triton.autotune([triton.Config({'B': [64, 128]})], key=[])\n@triton.jit\ndef kernel(x, B: tl.constexpr):\n"
        "    tl.store(x + tl.arange(0, B), 0.0)\n"
    )
    found = closed(text)[1]["B"]
    assert found.values[:2] == (64, 128)
    assert found.evidence is not Evidence.AUTOTUNE


def test_a_block_that_is_also_unrolled_is_taken_for_a_short_one() -> None:
    body = "for w in tl.static_range(0, W):\n    tl.store(out + w * W + tl.arange(0, W), 1.0)"
    assert inferred("out, W: tl.constexpr", body)["W"].values[0] == 4


def test_a_constexpr_with_a_second_item_is_a_tuple_whatever_its_items_are_used_for() -> None:
    body = "tl.store(out + tl.arange(0, 4) * STRIDES[0] + 3 // STRIDES[1], 1.0)"
    assert inferred("out, STRIDES: tl.constexpr", body)["STRIDES"].values[0] == (1, 1)
