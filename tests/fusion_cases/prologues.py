"""The cases of the closest systems that put an op in front of a kernel: each with its verdict here.

P.. are PyTorch's tests of prologue fusion, X01 that of external templates, H.. Helion's tests, HB2 and HB3 the prologues and
views of its wider suites. A case that fuses is run in Triton's interpreter, against the unfused kernel on inputs that torch
computes. More of P.., and B.., what went wrong elsewhere, are in tests/verify/test_prologues.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

KERNELS = Path(__file__).parent / "kernels"


@dataclass(frozen=True)
class Case:
    """`kernel` names a file of kernels/, `prologues` and `epilogues` are requests. `inputs` are the tensors a, b, ... in
    torch, `operands` {name: (kind, the tensor in torch)}. `unfused` is the call of the original whose result the fused
    `launch(a, b)` must give. `where`: how many lines hold a `tl.where` (None: any). `codes` are those of the refusal (none: it
    fuses); `exact` whether every bit must agree."""

    name: str
    kernel: str
    prologues: tuple[str, ...]
    unfused: str = ""
    inputs: tuple[str, str] = ("randn(40, 64)", "randn(64, 56)")
    operands: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    epilogues: tuple[str, ...] = ()
    where: int | None = None
    exact: bool = True
    dtypes: tuple[str, ...] = ()
    codes: tuple[str, ...] = ()

    @property
    def path(self) -> Path:
        return KERNELS / f"{self.kernel}.py"


def fuses(name: str, kernel: str, prologues: str | tuple[str, ...], unfused: str, **more: object) -> Case:
    requests = (prologues,) if isinstance(prologues, str) else prologues
    return Case(name, kernel, requests, unfused, **more)  # type: ignore[arg-type]


def refused(name: str, kernel: str, prologues: str, *codes: str, **more: object) -> Case:
    return Case(name, kernel, (prologues,), codes=codes, **more)  # type: ignore[arg-type]


SIZES = ((64, 128, 256), (63, 120, 250))
ADDED = ("randn(40, 56)", "randn(40, 56)")
HALVES = ("a_ptr=fp16", "b_ptr=fp16", "out_ptr=fp16")


def product(m: int, k: int, n: int, *, a: str = "", b: str = "") -> tuple[str, str]:
    return f"randn({m}, {k}){a}", f"randn({k}, {n}){b}"


CASES: list[Case] = [
    # ------------------------------------------------------------------------------------- PyTorch: casts and operands
    *(
        fuses(
            f"P01-upcast, {m} x {k} x {n}",
            "matmul",
            "b_ptr:float16=x.to(float32)",
            "launch(a, b.float())",
            inputs=product(m, k, n, b=".half()"),
            where=0,
        )
        for m, k, n in SIZES
    ),
    refused("P01-upcast of what the result is allocated like", "matmul", "a_ptr:float16=x.to(float32)", "KR403"),
    fuses(
        "P02-8-bit floats to bfloat16",
        "matmul",
        "b_ptr:float8_e4m3fn=x.to(bfloat16)",
        "launch(a, b.bfloat16())",
        inputs=product(63, 120, 50, a=".bfloat16()", b=".to(torch.float8_e4m3fn)"),
        dtypes=("a_ptr=bf16", "b_ptr=bf16", "c_ptr=bf16"),
        where=0,
    ),
    fuses(
        "P02-8-bit floats to bfloat16, and more",
        "matmul",
        "b_ptr:float8_e4m3fn=x.to(bfloat16) + 1",
        "launch(a, b.bfloat16() + 1)",
        inputs=product(63, 120, 50, a=".bfloat16()", b=".to(torch.float8_e4m3fn)"),
        dtypes=("a_ptr=bf16", "b_ptr=bf16", "c_ptr=bf16"),
        where=1,
    ),
    fuses(
        "P03-downcast",
        "matmul",
        "b_ptr:float32=x.to(float16)",
        "launch(a, b.half())",
        inputs=product(63, 120, 50, a=".half()"),
        dtypes=("a_ptr=fp16", "b_ptr=fp16", "c_ptr=fp16"),
        where=0,
    ),
    *(
        fuses(
            f"P05-sum of two inputs, upcast, {m} x {k} x {n}",
            "matmul",
            "b_ptr:float16=(x + y).to(float32)",
            "launch(a, (b + y).float())",
            inputs=product(m, k, n, b=".half()"),
            operands={"y": ("tile:fp16", f"randn({k}, {n}).half()")},
        )
        for m, k, n in SIZES
    ),
    fuses(
        "X01-sigmoid of one addend, relu, times a bias",
        "add",
        "b_ptr=sigmoid",
        "torch.relu(launch(a, torch.sigmoid(b))) * bias",
        inputs=("randn(32)", "randn(32)"),
        epilogues=("out_ptr=relu(x) * bias",),
        operands={"bias": ("tile", "randn(32)")},
        where=0,
        exact=False,
    ),
    # ------------------------------------------------------------------------------------------------------- Helion
    fuses(
        "H01-ops on both sides",
        "add_pointers",
        ("a_ptr=x * 2", "b_ptr=x * 2"),
        "torch.relu(launch(a * 2, b * 2)) + 1",
        inputs=ADDED,
        epilogues=("out_ptr=relu(x) + 1",),
    ),
    fuses(
        "H02-one input of two",
        "add_pointers",
        ("a_ptr=x * 4", "b_ptr=2 * x + 2 * z"),
        "launch(a * 4, 2 * b + 2 * z)",
        inputs=ADDED,
        operands={"z": ("tile", "randn(40, 56)")},
    ),
    fuses(
        "H05-two outputs of different shapes",
        "two_shapes",
        (),
        "tuple(torch.relu(part) + 1 for part in launch(a, b))",
        inputs=("randn(100)", "randn(7, 9)"),
        epilogues=("sums_ptr=relu(x) + 1", "halves_ptr=relu(x) + 1"),
    ),
    fuses(
        "H05-two inputs of different shapes",
        "two_shapes",
        ("a_ptr=relu", "b_ptr=x + 1"),
        "launch(torch.relu(a), b + 1)",
        inputs=("randn(100)", "randn(7, 9)"),
    ),
    fuses(
        "H15-prologue, and an epilogue with a bias of two dimensions",
        "add_pointers",
        "a_ptr=sigmoid(x) * 1.5",
        "torch.relu(launch(torch.sigmoid(a) * 1.5, b)) + bias",
        inputs=("randn(64, 128)", "randn(64, 128)"),
        epilogues=("out_ptr=relu(x) + bias",),
        operands={"bias": ("tile", "randn(64, 128)")},
        exact=False,
    ),
    *(
        fuses(
            f"H16-rms_norm, op not zero at zero, {n} columns",
            "rms_norm",
            "x_ptr=relu(x) + 0.5",
            "(lambda out: (torch.relu(out[0]) + b1, torch.sigmoid(out[1]) + b2))(launch(torch.relu(a) + 0.5, b))",
            inputs=(f"randn(5, {n})", f"randn({n})"),
            epilogues=("out_ptr=relu(x) + b1", "sums_ptr=sigmoid(x) + b2"),
            operands={"b1": ("row", f"randn({n})"), "b2": ("row", f"randn({n})")},
            exact=False,
        )
        for n in (256, 100)
    ),
    fuses(
        "H18-halves, promoted behind the kernel",
        "add_pointers",
        "a_ptr=sigmoid",
        "torch.sigmoid(launch(torch.sigmoid(a), b)) + y",
        inputs=("randn(40, 56).half()", "randn(40, 56).half()"),
        epilogues=("out_ptr=sigmoid(x) + y",),
        operands={"y": ("tile:fp32", "randn(40, 56)")},
        dtypes=HALVES,
        exact=False,
    ),
    fuses(
        "H18-halves, promoted before the kernel and rounded",
        "add_pointers",
        "a_ptr=(sigmoid(x) + y).to(float16)",
        "launch((torch.sigmoid(a) + y).half(), b)",
        inputs=("randn(40, 56).half()", "randn(40, 56).half()"),
        operands={"y": ("tile:fp32", "randn(40, 56)")},
        dtypes=HALVES,
        exact=False,
    ),
    refused(
        "H18-halves, promoted before the kernel",
        "add_pointers",
        "a_ptr=sigmoid(x) + y",
        "KR401",
        operands={"y": ("tile:fp32", "randn(40, 56)")},
        dtypes=HALVES,
    ),
    *(
        fuses(
            f"H19-{what}, {style}",
            f"add_{style}",
            f"a_ptr=sigmoid(x) * 1.5 + {kind}",
            f"torch.relu(launch(torch.sigmoid(a) * 1.5 + {kind}{spread}, b) + bias)",
            inputs=ADDED,
            epilogues=("out_ptr=relu(x + bias)",),
            operands={kind: (kind, tensor), "bias": ("tile", "randn(40, 56)")},
            exact=False,
        )
        for style in ("pointers", "block_pointers", "descriptors")
        for what, kind, tensor, spread in (
            ("row", "row", "randn(56)", ""),
            ("column", "column", "randn(40)", "[:, None]"),
            ("tile", "tile", "randn(40, 56)", ""),
        )
    ),
    fuses(
        "A14-an element of a tuple of inputs and outputs",
        "tuple_of_all",
        "args[1]=x + 1",
        "launch(a, b + 1)",
        inputs=("randn(100)", "randn(100)"),
    ),
    fuses(
        "H36-an input that may be None",
        "optional",
        "b_ptr=x + 1",
        "launch(a, b + 1)",
        inputs=("randn(100)", "randn(100)"),
    ),
    fuses("H36-an input that is None", "optional", "b_ptr=x + 1", "launch(a, b)", inputs=("randn(100)", "None")),
    fuses(
        "M15-an input behind one that is None",
        "optional",
        "a_ptr=x * 2",
        "launch(a * 2, b)",
        inputs=("randn(100)", "None"),
    ),
    # ---------------------------------------------------------------------------------- HB2: prologues of a product
    *(
        fuses(
            f"HB2-{op}, K of {k}",
            "matmul",
            request,
            unfused,
            inputs=product(40, k, 56),
            operands={name: (kind, tensor.format(k=k)) for name, (kind, tensor) in operands.items()},
            epilogues=epilogues,
            exact=exact,
        )
        for op, request, unfused, operands, epilogues, exact in (
            ("relu", "a_ptr=relu", "launch(torch.relu(a), b)", {}, (), True),
            ("sigmoid", "a_ptr=sigmoid", "launch(torch.sigmoid(a), b)", {}, (), False),
            ("tanh", "a_ptr=tanh", "launch(torch.tanh(a), b)", {}, (), False),
            ("scale", "a_ptr=x * 2", "launch(a * 2, b)", {}, (), True),
            ("bias of K", "a_ptr=x + bias", "launch(a + bias, b)", {"bias": ("row", "randn({k})")}, (), True),
            ("scale of K", "a_ptr=x * scale", "launch(a * scale, b)", {"scale": ("row", "randn({k})")}, (), True),
            (
                *("scale of M", "a_ptr=x * scale", "launch(a * scale[:, None], b)"),
                *({"scale": ("column", "randn(40)")}, (), True),
            ),
            (
                *("scale of K on the other side", "b_ptr=x * scale", "launch(a, b * scale[:, None])"),
                *({"scale": ("column", "randn({k})")}, (), True),
            ),
            (
                *("scale of N on the other side", "b_ptr=x * scale", "launch(a, b * scale)"),
                *({"scale": ("row", "randn(56)")}, (), True),
            ),
            (
                *("a scale on each side", ("a_ptr=x * s", "b_ptr=x * t"), "launch(a * s[:, None], b * t)"),
                *({"s": ("column", "randn(40)"), "t": ("row", "randn(56)")}, (), True),
            ),
            ("relu on both", ("a_ptr=relu", "b_ptr=relu"), "launch(torch.relu(a), torch.relu(b))", {}, (), True),
            (
                *("relu, then sigmoid", "a_ptr=relu", "torch.sigmoid(launch(torch.relu(a), b))"),
                *({}, ("c_ptr=sigmoid",), False),
            ),
            (
                *("scale, then a bias", "a_ptr=x * 0.5", "launch(a * 0.5, b) + bias"),
                *({"bias": ("row", "randn(56)")}, ("c_ptr=x + bias",), True),
            ),
        )
        for k in (64, 63)
    ),
    fuses(
        "HB2-dequantisation by one zero point and one scale",
        "matmul",
        "b_ptr:int8=(x.to(float32) - zero) * scale",
        "launch(a, (b.float() - zero) * scale)",
        inputs=("randn(40, 63)", "torch.randint(-9, 9, (63, 56), dtype=torch.int8)"),
        operands={"zero": ("scalar:fp32", "torch.tensor(3.0)"), "scale": ("scalar:fp32", "torch.tensor(0.3)")},
    ),
    # --------------------------------------------------------------------------------- HB3: views, before the kernel
    *(
        fuses(f"HB3-{what}", "matmul", "a_ptr=x + 1", "launch(a + 1, b)", inputs=(view, "randn(63, 56)"))
        for what, view in (
            ("columns of a matrix", "randn(40, 100)[:, 20:83]"),
            ("rows of a matrix", "randn(90, 63)[20:60]"),
            ("every second row", "randn(80, 63)[::2]"),
            ("transposed", "randn(63, 40).t()"),
            ("narrowed", "randn(40, 100).narrow(1, 5, 63)"),
            ("expanded", "randn(1, 63).expand(40, 63)"),
            ("a matrix of a batch", "randn(3, 40, 63)[1]"),
            ("permuted", "randn(63, 3, 40).permute(1, 2, 0)[2]"),
            ("overlapping rows", "randn(200).as_strided((40, 63), (3, 1))"),
        )
    ),
    *(
        fuses(f"HB3-{what}", "add", "a_ptr=x + 1", "launch(a + 1, b)", inputs=(view, other))
        for what, view, other in (
            ("flattened", "randn(10, 10).flatten()", "randn(100)"),
            ("unflattened", "randn(100).unflatten(0, (4, 25))", "randn(4, 25)"),
            ("viewed as more dimensions", "randn(20, 6).view(4, 5, 6)", "randn(4, 5, 6)"),
        )
    ),
    *(
        refused(f"HB3-{what} in the op", "matmul", f"a_ptr={op}", "KR118")
        for what, op in (
            ("transposed", "x.T + 1"),
            ("expanded", "x.expand(4, 40, 64)"),
            ("viewed", "x.view(-1)"),
            ("permuted", "x.permute(1, 0)"),
            ("flattened", "relu(x.flatten())"),
        )
    ),
    refused("H28-reversed", "add", "a_ptr=x.flip(0)", "KR118"),
    refused("H26-summed up", "add", "a_ptr=x.sum()", "KR118"),
]
