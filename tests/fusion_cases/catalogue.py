"""The cases of the closest systems that read operands, or that meet what cannot be fused: each with its verdict here.

U.. are PyTorch's tests of epilogue fusion into user kernels, H.. Helion's tests, HB1.. the epilogues of its wider suite. A
case that fuses is run in Triton's interpreter, against the unfused kernel and then `torch_text`, which is written by hand.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

KERNELS = Path(__file__).parent / "kernels"
FIXTURES = Path(__file__).parent.parent.parent / "fixtures" / "rewrites"

FULL = "launch(randn(64, 64), randn(64, 64))"
RAGGED = "launch(randn(40, 56), randn(40, 56))"
FLAT = "launch(randn(100), randn(100))"


@dataclass(frozen=True)
class Case:
    """`kernel` names a file of kernels/, or is a path. `epilogues` are requests (OUT=TEXT or TEXT), `operands` {name: (kind,
    the tensor in torch)}. `call` launches the original; `torch_text` computes what the fused launcher must return from its
    result `out` and the operands. `codes` are those of the refusal (none: it fuses); `exact` whether every bit must agree.
    """

    name: str
    kernel: str
    epilogues: str | tuple[str, ...]
    operands: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    call: str = FULL
    torch_text: str = ""
    codes: tuple[str, ...] = ()
    exact: bool = True
    options: Mapping[str, object] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        return Path(self.kernel) if "/" in self.kernel else KERNELS / f"{self.kernel}.py"

    @property
    def requests(self) -> tuple[str, ...]:
        return (self.epilogues,) if isinstance(self.epilogues, str) else self.epilogues


def fuses(name: str, kernel: str, epilogues: str | tuple[str, ...], torch_text: str, **more: object) -> Case:
    return Case(name, kernel, epilogues, torch_text=torch_text, **more)  # type: ignore[arg-type]


def refused(name: str, kernel: str, epilogues: str | tuple[str, ...], *codes: str, **more: object) -> Case:
    return Case(name, kernel, epilogues, codes=codes, **more)  # type: ignore[arg-type]


TILE = ("tile", "randn(64, 64)")
ROW = ("row", "randn(64)")
COLUMN = ("column", "randn(64)")

# (epilogue, the same in torch, whether every bit agrees)
OPS = {
    "relu": ("relu", "torch.relu(out)", True),
    "sigmoid": ("sigmoid", "torch.sigmoid(out)", False),
    "tanh": ("tanh", "torch.tanh(out)", False),
    "silu": ("silu", "torch.nn.functional.silu(out)", False),
    "times 2": ("x * 2.0", "out * 2.0", True),
    "neg": ("neg", "-out", True),
    "sin": ("sin", "torch.sin(out)", False),
    "cos": ("cos", "torch.cos(out)", False),
    "floor": ("floor", "torch.floor(out)", True),
    "ceil": ("ceil", "torch.ceil(out)", True),
    "erf": ("erf", "torch.erf(out)", False),
    "leaky_relu": ("leaky_relu", "torch.nn.functional.leaky_relu(out)", True),
    "softplus": ("softplus", "torch.nn.functional.softplus(out)", False),
    "reciprocal": ("reciprocal(x + 1)", "torch.reciprocal(out + 1)", True),
    "where": ("where(x > 0, x, 0)", "torch.where(out > 0, out, 0)", True),
    "chain": ("tanh(relu(x) * 2 + 1)", "torch.tanh(torch.relu(out) * 2 + 1)", False),
    "gelu": ("gelu", "torch.nn.functional.gelu(out)", False),
}

NORM = "launch(randn(5, {n}), randn({n}))"

CASES: list[Case] = [
    # ------------------------------------------------------------------------------------------------- user kernels
    fuses(
        "U14-index of the element, by an operand",
        "add",
        "relu(x) + position",
        "torch.relu(out) + position",
        call=FLAT,
        operands={"position": ("tile", "torch.arange(100.0)")},
    ),
    fuses(
        "U14-index of the element, read in a table",
        "add",
        "relu(x) + positions[offsets]",
        "torch.relu(out) + positions",
        call=FLAT,
        operands={"positions": ("", "torch.arange(100.0)")},
    ),
    refused("U14-index of the element, as a function", "add", "relu(x) + arange(100)", "KR107"),
    refused("U14-index of the element, by its name in the kernel", "add", "relu(x) + offsets", "KR107"),
    fuses("U15-another tensor", "add", "x + c", "out + c", call=FLAT, operands={"c": ("tile", "randn(100)")}),
    fuses(
        "U18-two launches in one function",
        "add_twice",
        "relu(x * scale)",
        "tuple(torch.relu(part * scale) for part in out)",
        call=FLAT,
        operands={"scale": ("scalar", "0.3")},
    ),
    fuses(
        "U19-eighteen stores",
        str(FIXTURES / "eighteen_stores" / "before.py"),
        "relu",
        "torch.relu(out)",
        call="node_to_edge(randn(6, 9, 20), torch.randint(0, 6, (5, 2), dtype=torch.int32))",
    ),
    fuses(
        "U19-eighteen stores, each with its row of an operand",
        str(FIXTURES / "eighteen_stores_by_row" / "before.py"),
        "x * radial",
        "out * radial[:, None]",
        call="node_to_edge(randn(6, 9, 20), torch.randint(0, 6, (5, 2), dtype=torch.int32))",
        operands={"radial": ("column", "randn(9)")},
    ),
    fuses(
        "U20-matmul in tiles, another matrix",
        "matmul",
        "relu(x + other)",
        "torch.relu(out + other)",
        call="launch(randn(40, 33), randn(33, 56))",
        operands={"other": ("tile", "randn(40, 56)")},
    ),
    # ------------------------------------------------------------------------------------------------------- Helion
    fuses(
        "H15-bias of two dimensions",
        "add_pointers",
        "relu(x) + bias",
        "torch.relu(out) + bias",
        operands={"bias": TILE},
    ),
    fuses(
        "H15-chain",
        "add_pointers",
        "(tanh(relu(x)) + bias) * scale",
        "(torch.tanh(torch.relu(out)) + bias) * scale",
        operands={"bias": TILE, "scale": ("tile", "randn(64, 64)")},
        exact=False,
    ),
    *(
        fuses(
            f"H16-two outputs of rms_norm, {n} columns",
            "rms_norm",
            ("out_ptr=relu(x) + b1", "sums_ptr=sigmoid(x) + b2"),
            "(torch.relu(out[0]) + b1, torch.sigmoid(out[1]) + b2)",
            call=NORM.format(n=n),
            operands={"b1": ("row", f"randn({n})"), "b2": ("row", f"randn({n})")},
            exact=False,
        )
        for n in (256, 100)
    ),
    refused(
        "H17-transposed and viewed",
        "add_pointers",
        "relu(x.T.reshape(4, 16, 64)) + bias",
        "KR118",
        operands={"bias": TILE},
    ),
    fuses(
        "H18-promoted by an operand",
        "add_pointers",
        "sigmoid(x) + y",
        "torch.sigmoid(out) + y",
        call="launch(randn(64, 64).half(), randn(64, 64).half())",
        operands={"y": ("tile:fp32", "randn(64, 64)")},
        options={"dtypes": ["a_ptr=fp16", "b_ptr=fp16", "out_ptr=fp16"]},
        exact=False,
    ),
    fuses(
        "H18-promoted by an operand, and back",
        "add_pointers",
        "(sigmoid(x) + y).to(float16)",
        "(torch.sigmoid(out) + y).to(torch.float16)",
        call="launch(randn(64, 64).half(), randn(64, 64).half())",
        operands={"y": ("tile:fp32", "randn(64, 64)")},
        options={"dtypes": ["out_ptr=fp16"]},
        exact=False,
    ),
    *(
        fuses(
            f"H19-{what}, {style}",
            f"add_{style}",
            "relu(x + bias)",
            f"torch.relu(out + bias{spread})",
            call=RAGGED,
            operands={"bias": (kind, tensor)},
        )
        for style in ("pointers", "fixed_stride", "block_pointers", "descriptors")
        for what, kind, tensor, spread in (
            ("row", "row", "randn(56)", ""),
            ("column", "column", "randn(40)", "[:, None]"),
            ("tile", "tile", "randn(40, 56)", ""),
            ("every second of a row", "row:strided", "randn(112)[::2]", ""),
            ("a column of a matrix", "column:strided", "randn(40, 3)[:, 1]", "[:, None]"),
            ("transposed tile", "tile:strided", "randn(56, 40).T", ""),
            ("expanded tile", "tile:strided", "randn(56).expand(40, 56)", ""),
        )
    ),
    fuses(
        "H20-bias of one row",
        "add_pointers",
        "x + bias",
        "out + bias",
        call=RAGGED,
        operands={"bias": ("row", "randn(1, 56)")},
    ),
    fuses("H21-the value twice", "add_pointers", "relu(x) + x", "torch.relu(out) + out", call=RAGGED),
    # ------------------------------------------------------------------------------------------ HB1.01: one op each
    *(
        fuses(f"HB1.01-{name}, matmul", "matmul", op, torch_text, exact=exact)
        for name, (op, torch_text, exact) in OPS.items()
    ),
    *(
        fuses(
            f"HB1.01-{name}, rms_norm",
            "rms_norm",
            f"out_ptr={OPS[name][0]}",
            f"({OPS[name][1].replace('out', 'out[0]')}, out[1])",
            call=NORM.format(n=100),
            exact=OPS[name][2],
        )
        for name in ("relu", "sigmoid", "times 2", "where", "chain")
    ),
    fuses(
        "HB1.01-sigmoid of a scaled value",
        "matmul",
        "sigmoid(x * scale)",
        "torch.sigmoid(out * scale)",
        operands={"scale": ("scalar", "0.5")},
        exact=False,
    ),
    # --------------------------------------------------------------------------------------------- HB1.02: operands
    fuses("HB1.02-bias", "matmul", "x + bias", "out + bias", operands={"bias": ROW}),
    fuses("HB1.02-bias of two dimensions", "matmul", "x + bias", "out + bias", operands={"bias": TILE}),
    fuses(
        "HB1.02-bias and scale",
        "matmul",
        "(x + bias) * scale",
        "(out + bias) * scale",
        operands={"bias": ROW, "scale": ("row", "randn(64)")},
    ),
    fuses(
        "HB1.02-bias and scale of two dimensions",
        "matmul",
        "(x + bias) * scale",
        "(out + bias) * scale",
        operands={"bias": ROW, "scale": TILE},
    ),
    fuses(
        "HB1.02-one value a row",
        "matmul",
        "x + bias",
        "out + bias",
        operands={"bias": ("column", "randn(64, 1)")},
    ),
    fuses(
        "HB1.02-rows and columns",
        "matmul",
        "x + down + along",
        "out + down[:, None] + along",
        operands={"down": COLUMN, "along": ROW},
    ),
    fuses(
        "HB1.02-scaled rows and a bias",
        "matmul",
        "x * scale + bias",
        "out * scale[:, None] + bias",
        operands={"scale": COLUMN, "bias": ROW},
    ),
    fuses(
        "HB1.02-four operands",
        "matmul",
        "(x * scale + bias) * gate + residual",
        "(out * scale[:, None] + bias) * gate + residual",
        operands={"scale": COLUMN, "bias": ROW, "gate": TILE, "residual": ("tile", "randn(64, 64)")},
    ),
    fuses(
        "HB1.02-a matrix that is no square",
        "matmul",
        "relu(x + bias)",
        "torch.relu(out + bias)",
        call="launch(randn(32, 128), randn(128, 64))",
        operands={"bias": ROW},
    ),
    fuses(
        "HB1.02-every second of a bias",
        "matmul",
        "x + bias",
        "out + bias",
        operands={"bias": ("row:strided", "randn(128)[::2]")},
    ),
    # ------------------------------------------------------------------------------------------------ HB1.03: types
    fuses(
        "HB1.03-sigmoid of float16",
        "matmul",
        "sigmoid",
        "torch.sigmoid(out)",
        call="launch(randn(64, 64).half(), randn(64, 64).half())",
        options={"dtypes": ["a_ptr=fp16", "b_ptr=fp16", "c_ptr=fp16"]},
        exact=False,
    ),
    fuses(
        "HB1.03-tanh of bfloat16",
        "add_pointers",
        "tanh",
        "torch.tanh(out)",
        call="launch(randn(64, 64).bfloat16(), randn(64, 64).bfloat16())",
        options={"dtypes": ["a_ptr=bf16", "b_ptr=bf16", "out_ptr=bf16"]},
        exact=False,
    ),
    # -------------------------------------------------------------------------------------------- HB1.04: no epilogue
    refused("HB1.04-sum", "matmul", "sum(x)", "KR118"),
    refused("HB1.04-mean", "matmul", "x.mean()", "KR118"),
    refused("HB1.04-transposed view", "matmul", "x.T", "KR118"),
    # --------------------------------------------------------------------------------------------- HB1.05: two outputs
    fuses(
        "HB1.05-an epilogue on the first output",
        "matmul_two_outputs",
        "c_ptr=relu",
        "(torch.relu(out[0]), out[1])",
    ),
    fuses(
        "HB1.05-an epilogue on each output",
        "matmul_two_outputs",
        ("c_ptr=relu", "kept_ptr=sigmoid"),
        "(torch.relu(out[0]), torch.sigmoid(out[1]))",
        exact=False,
    ),
    refused("HB1.05-an epilogue on an output that is not named", "matmul_two_outputs", "relu", "KR106"),
    refused("HB1.05-one of both outputs", "matmul_two_outputs", "c_ptr=relu(x + kept_ptr)", "KR107"),
    # ------------------------------------------------------------------------------------------------- HB1.06: split-K
    refused("HB1.06-split K", "matmul_split_k", "relu", "KR202"),
]
