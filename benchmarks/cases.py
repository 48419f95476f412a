"""What `gpu.py` measures: kernels, what is fused into them, the unfused pair in torch, and the same fused by hand."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Shape = tuple[int, ...]
Tensors = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """One fusion.

    `inputs(shape, device)` gives the launcher's arguments and the operands, by name; the launcher is called with those of
    `arguments` by position, and the fused launcher with the others by keyword. `before` is the prologue in torch: from all
    tensors to the arguments of the unfused launcher; `after` the epilogue: from its result and all tensors to the result.
    `by_hand` turns the kernel's text into one fused by hand, with the bits of the pair as far as an author can have them.
    `bytes(shape)` is the least that the fused kernel can move, `flops(shape)` is 0 where memory is the limit. `adds_bytes`:
    whether the fused kernel must move more than the plain one.
    """

    name: str
    kernel: str
    shapes: tuple[Shape, ...]
    tiny: Shape
    inputs: Callable[[Shape, str], Tensors]
    by_hand: Callable[[str], str]
    bytes: Callable[[Shape], int]
    arguments: tuple[str, ...]
    after: Callable[[Any, Tensors], Any] = lambda result, tensors: result
    before: Callable[[Tensors], Tensors] = lambda tensors: {}
    epilogues: Mapping[str, str] = field(default_factory=dict)
    prologues: Mapping[str, str] = field(default_factory=dict)
    operands: Mapping[str, str] = field(default_factory=dict)
    dtypes: tuple[str, ...] = ()
    flops: Callable[[Shape], int] = lambda shape: 0
    adds_bytes: bool = False

    @property
    def launcher(self) -> str:
        return self.kernel


def replaced(*pairs: tuple[str, str]) -> Callable[[str], str]:
    """A function that makes each replacement, everywhere; what it replaces must be there."""

    def replace(text: str) -> str:
        for old, new in pairs:
            assert old in text, old
            text = text.replace(old, new)
        return text

    return replace


LIBDEVICE = (
    "import triton.language as tl\n",
    "import triton.language as tl\nfrom triton.language.extra import libdevice\n",
)
STORE = "    tl.store(c_ptrs, c, mask=c_mask)\n"


def with_operand(name: str, *lines: str) -> Callable[[str], str]:
    """The matrix product with one more tensor and these lines in place of its store."""
    return replaced(
        ("a_ptr, b_ptr, c_ptr,\n", f"a_ptr, b_ptr, c_ptr, {name}_ptr,\n"),
        (STORE, "".join(f"    {line}\n" for line in lines)),
        ("def matmul(a, b):", f"def matmul(a, b, {name}):"),
        ("a, b, c,\n        M", f"a, b, c, {name},\n        M"),
        LIBDEVICE,
    )


# ------------------------------------------------------------------------------------------------------ matrix products

PRODUCTS = ((4096, 4096, 4096), (8192, 8192, 1024), (16384, 4096, 512), (8192, 8192, 256))  # M, N, K
TINY = (40, 36, 24)


def product_inputs(shape: Shape, device: str) -> Tensors:
    import torch

    m, n, k = shape
    a = torch.randn((m, k), device=device, dtype=torch.float32).half()
    b = (torch.randn((k, n), device=device, dtype=torch.float32) / k**0.5).half()
    return {"a": a, "b": b}


def product_bytes(shape: Shape, out: int = 2) -> int:
    m, n, k = shape
    return 2 * (m * k + k * n) + out * m * n


def product_flops(shape: Shape) -> int:
    m, n, k = shape
    return 2 * m * n * k


def _operand(name: str, size: Callable[[Shape], Shape], dtype: str = "float16") -> Callable[[Shape, str], Tensors]:
    def inputs(shape: Shape, device: str) -> Tensors:
        import torch

        drawn = torch.randn(size(shape), device=device, dtype=torch.float32).to(getattr(torch, dtype))
        return product_inputs(shape, device) | {name: drawn}

    return inputs


def _functional(name: str, **options: Any) -> Callable[[Any, Tensors], Any]:
    def apply(result: Any, tensors: Tensors) -> Any:
        import torch

        return getattr(torch.nn.functional, name)(result, **options)

    return apply


def _bias_gelu(c: Any, tensors: Tensors) -> Any:
    import torch

    return torch.nn.functional.gelu(c + tensors["bias"])


def _quantized(c: Any, tensors: Tensors) -> Any:
    import torch

    return (c * tensors["scale"][:, None]).to(torch.float8_e4m3fn)


def _quantized_inputs(shape: Shape, device: str) -> Tensors:
    import torch

    scale = torch.rand(shape[0], device=device, dtype=torch.float32) + 0.5  # products stay below what the type holds
    return product_inputs(shape, device) | {"scale": scale}


def _quantized_by_hand(text: str) -> str:
    fused = with_operand(
        "scale",
        "scale = tl.load(scale_ptr + offs_cm, mask=offs_cm < M, other=0.0)",
        "tl.store(c_ptrs, (c.to(tl.float32) * scale[:, None]).to(tl.float8e4nv), mask=c_mask)",
    )(text)
    return replaced(("device=a.device, dtype=torch.float16", "device=a.device, dtype=torch.float8_e4m3fn"))(fused)


def _dequantized(tensors: Tensors) -> Tensors:
    import torch

    return {"b": tensors["b"].to(torch.float16) * tensors["scale"]}


def _dequantized_inputs(shape: Shape, device: str) -> Tensors:
    import torch

    m, n, k = shape
    return {
        "a": torch.randn((m, k), device=device, dtype=torch.float32).half(),
        "b": torch.randint(-127, 128, (k, n), device=device, dtype=torch.int8),
        "scale": (torch.rand(n, device=device, dtype=torch.float32) / 64).half(),
    }


PRODUCT: dict[str, Any] = {
    "kernel": "matmul",
    "shapes": PRODUCTS,
    "tiny": TINY,
    "arguments": ("a", "b"),
    "flops": product_flops,
}

# ------------------------------------------------------------------------------------------------- limited by memory


def _pair_of_vectors(shape: Shape, device: str) -> Tensors:
    import torch

    return {name: torch.randn(shape, device=device, dtype=torch.float32) for name in ("x", "y")}


def _normed(shape: Shape, device: str) -> Tensors:
    import torch

    drawn = {"x": shape, "weight": shape[1:], "bias": shape[1:]}
    return {n: torch.randn(s, device=device, dtype=torch.float32).half() for n, s in drawn.items()}


def _rows(shape: Shape, device: str) -> Tensors:
    import torch

    return {"x": torch.randn(shape, device=device, dtype=torch.float32).half()}


def _edges(shape: Shape, device: str) -> Tensors:
    import torch

    edges, channels = shape
    return {
        "x": torch.randn((edges, 18, channels), device=device, dtype=torch.float32),
        "wigner": torch.randn((edges, 35), device=device, dtype=torch.float32),
    }


def _edge_bytes(shape: Shape) -> int:
    edges, channels = shape
    return 4 * edges * (2 * 18 * channels + 35)


def _each_rotation(expression: str, *more: tuple[str, str]) -> Callable[[str], str]:
    """The kernel of 18 stores with `expression` of {0} at each of them."""

    def fuse(text: str) -> str:
        fused = replaced(*more)(text) if more else text
        store = re.compile(r"tl\.store\((out \+ \d+ \* CHANNELS), (.*)\)")
        fused, count = store.subn(lambda found: f"tl.store({found[1]}, {expression.format(found[2])})", fused)
        assert count == 18, count
        return fused

    return fuse


SILU = (
    "@triton.jit\ndef rotate_kernel",
    "@triton.jit\ndef silu(x):\n    return tl.div_rn(x, 1.0 + libdevice.exp(-x))\n\n\n@triton.jit\ndef rotate_kernel",
)

LAST_STORE = "    tl.store(y_ptr + row * stride + cols, y, mask=mask)\n"


CASES: tuple[Case, ...] = (
    Case(
        "matmul + relu",
        **PRODUCT,
        epilogues={"c_ptr": "relu"},
        inputs=product_inputs,
        after=_functional("relu"),
        by_hand=replaced((STORE, STORE.replace(" c,", " tl.maximum(c, 0.0, propagate_nan=tl.PropagateNan.ALL),"))),
        bytes=product_bytes,
    ),
    Case(
        "matmul + gelu",
        **(PRODUCT | {"shapes": PRODUCTS[1:2]}),
        epilogues={"c_ptr": "gelu"},
        inputs=product_inputs,
        after=_functional("gelu"),
        by_hand=replaced(
            LIBDEVICE,
            (
                STORE,
                "    x = c.to(tl.float32)\n"
                "    y = x * 0.5 * (1.0 + libdevice.erf(x * 0.7071067811865476))\n"
                "    tl.store(c_ptrs, y, mask=c_mask)\n",
            ),
        ),
        bytes=product_bytes,
    ),
    Case(
        "matmul + bias + gelu",
        **PRODUCT,
        epilogues={"c_ptr": "gelu(x + bias)"},
        operands={"bias": "row"},
        inputs=_operand("bias", lambda shape: shape[1:2]),
        after=_bias_gelu,
        by_hand=with_operand(
            "bias",
            "bias = tl.load(bias_ptr + offs_cn, mask=offs_cn < N, other=0.0)",
            "x = (c + bias[None, :]).to(tl.float32)",
            "y = x * 0.5 * (1.0 + libdevice.erf(x * 0.7071067811865476))",
            "tl.store(c_ptrs, y, mask=c_mask)",
        ),
        bytes=lambda shape: product_bytes(shape) + 2 * shape[1],
    ),
    Case(
        "matmul + residual",
        **PRODUCT,
        epilogues={"c_ptr": "x + residual"},
        operands={"residual": "tile"},
        inputs=_operand("residual", lambda shape: shape[:2]),
        after=lambda c, tensors: c + tensors["residual"],
        by_hand=with_operand(
            "residual",
            "residual_ptrs = residual_ptr + offs_cm[:, None] * stride_cm + offs_cn[None, :] * stride_cn",
            "tl.store(c_ptrs, c + tl.load(residual_ptrs, mask=c_mask), mask=c_mask)",
        ),
        bytes=lambda shape: product_bytes(shape, 4),
        adds_bytes=True,
    ),
    Case(
        "matmul + row scale to fp8",
        **PRODUCT,
        epilogues={"c_ptr": "(x * scale).to(torch.float8_e4m3fn)"},
        operands={"scale": "column:float32"},
        inputs=_quantized_inputs,
        after=_quantized,
        by_hand=_quantized_by_hand,
        bytes=lambda shape: product_bytes(shape, 1) + 4 * shape[0],
    ),
    Case(
        "add + relu",
        kernel="add",
        shapes=((2**27,),),
        tiny=(2000,),
        arguments=("x", "y"),
        epilogues={"out_ptr": "relu"},
        inputs=_pair_of_vectors,
        after=_functional("relu"),
        by_hand=replaced(("x + y, mask", "tl.maximum(x + y, 0.0, propagate_nan=tl.PropagateNan.ALL), mask")),
        bytes=lambda shape: 12 * shape[0],
    ),
    Case(
        "layer norm + silu",
        kernel="layer_norm",
        shapes=((16384, 8192),),
        tiny=(5, 100),
        arguments=("x", "weight", "bias"),
        epilogues={"y_ptr": "silu"},
        inputs=_normed,
        after=_functional("silu"),
        by_hand=replaced(
            (
                LAST_STORE,
                "    y = y.to(y_ptr.dtype.element_ty).to(tl.float32)\n"
                + LAST_STORE.replace(" y, mask", " tl.div_rn(y, 1.0 + libdevice.exp(-y)), mask"),
            ),
            LIBDEVICE,
        ),
        bytes=lambda shape: 4 * shape[0] * shape[1],
    ),
    Case(
        "softmax + scale",
        kernel="softmax",
        shapes=((16384, 8192),),
        tiny=(5, 100),
        arguments=("x",),
        epilogues={"y_ptr": "x * scale"},
        operands={"scale": "scalar"},
        inputs=lambda shape, device: _rows(shape, device) | {"scale": 0.3},
        after=lambda y, tensors: y * tensors["scale"],
        by_hand=replaced(
            ("x_ptr, y_ptr, stride", "x_ptr, y_ptr, scale, stride"),
            ("def softmax(x):", "def softmax(x, scale):"),
            ("(x, y, x.stride(0)", "(x, y, scale, x.stride(0)"),
            (LAST_STORE, LAST_STORE.replace(" y, mask", " y.to(y_ptr.dtype.element_ty).to(tl.float32) * scale, mask")),
        ),
        bytes=lambda shape: 4 * shape[0] * shape[1],
    ),
    Case(
        "18 stores + silu",
        kernel="rotate",
        shapes=((65536, 128),),
        tiny=(3, 16),
        arguments=("x", "wigner"),
        epilogues={"out_ptr": "silu"},
        inputs=_edges,
        after=_functional("silu"),
        by_hand=_each_rotation("silu({0})", SILU, LIBDEVICE),
        bytes=_edge_bytes,
    ),
    Case(
        "18 stores + gain",
        kernel="rotate",
        shapes=((65536, 128),),
        tiny=(3, 16),
        arguments=("x", "wigner"),
        epilogues={"out_ptr": "x * gain[channels]"},
        inputs=lambda shape, device: _edges(shape, device) | {"gain": _edges(shape, device)["x"][0, 0].clone()},
        after=lambda out, tensors: out * tensors["gain"],
        by_hand=_each_rotation(
            "({0}) * gain",
            ("x_ptr, wigner_ptr, out_ptr, edges", "x_ptr, wigner_ptr, out_ptr, gain_ptr, edges"),
            ("    edge = tl.program_id(0)\n", "    gain = tl.load(gain_ptr + channels)\n    edge = tl.program_id(0)\n"),
            ("def rotate(x, wigner):", "def rotate(x, wigner, gain):"),
            ("(x, wigner, out, x.shape[0]", "(x, wigner, out, gain, x.shape[0]"),
        ),
        bytes=_edge_bytes,
    ),
    Case(
        "sigmoid + add",
        kernel="add",
        shapes=((2**27,),),
        tiny=(2000,),
        arguments=("x", "y"),
        prologues={"y_ptr": "sigmoid(x)"},
        inputs=_pair_of_vectors,
        before=lambda tensors: {"y": tensors["y"].sigmoid()},
        by_hand=replaced(
            ("    y = tl.load(y_ptr + offsets, mask=mask)\n",
             "    y = tl.load(y_ptr + offsets, mask=mask)\n    y = tl.div_rn(1.0, 1.0 + libdevice.exp(-y))\n"),
            LIBDEVICE,
        ),
        bytes=lambda shape: 12 * shape[0],
    ),
    Case(
        "dequantise + matmul",
        **PRODUCT,
        prologues={"b_ptr:int8": "x.to(torch.float16) * scale[offs_bn]"},
        operands={"scale": "indexed:float16"},
        dtypes=("a_ptr=fp16", "b_ptr=fp16"),
        inputs=_dequantized_inputs,
        before=_dequantized,
        by_hand=replaced(
            ("a_ptr, b_ptr, c_ptr,\n", "a_ptr, b_ptr, c_ptr, scale_ptr,\n"),
            ("    acc = tl.zeros", "    scale = tl.load(scale_ptr + offs_bn)\n    acc = tl.zeros"),
            ("        acc = tl.dot(a, b, acc)\n", "        acc = tl.dot(a, b.to(tl.float16) * scale[None, :], acc)\n"),
            ("K - k * BLOCK_K, other=0.0)\n        acc", "K - k * BLOCK_K, other=0)\n        acc"),
            ("def matmul(a, b):", "def matmul(a, b, scale):"),
            ("a, b, c,\n        M", "a, b, c, scale,\n        M"),
        ),
        bytes=lambda shape: product_bytes(shape) - shape[1] * shape[2] + 2 * shape[1],
    ),
)  # fmt: skip
