"""What triton's own names are called: its modules, and the one spelling of each object that several modules export."""

from __future__ import annotations

from kernel_rewrite.model import TritonObject

# Modules below `triton` that source code reaches by attribute or imports by name.
_LANGUAGE_MODULES = "core standard math random semantic target_info extra"
_EXTRA_MODULES = "libdevice cuda hip cuda.libdevice hip.libdevice cuda.utils hip.utils"
_EXTRA_PARTS = ("libdevice", "cuda", "hip")
MODULES = frozenset(
    {
        "triton",
        "triton.language",
        *(f"triton.language.{name}" for name in _LANGUAGE_MODULES.split()),
        *(f"triton.language.extra.{name}" for name in _EXTRA_MODULES.split()),
        *(f"triton.{name}" for name in "backends compiler errors knobs runtime testing tools experimental".split()),
        "triton.runtime.jit",
        "triton.runtime.autotuner",
        "triton.runtime.driver",
        "triton.compiler.compiler",
        "triton.tools.tensor_descriptor",
        "triton.experimental.gluon",
        "triton.experimental.gluon.language",
    }
)

# Names of `triton.language` that it takes from its submodules core, standard, math and random (3.5 to 3.9).
_LANGUAGE_NAMES = frozenset(
    """
    PropagateNan TRITON_MAX_TENSOR_NUMEL abs add advance aggregate_replace arange argmax argmin associative_scan assume
    async_task atomic_add atomic_and atomic_cas atomic_load atomic_max atomic_min atomic_or atomic_poll atomic_store
    atomic_xchg atomic_xor bfloat16 bitonic_merge block_type broadcast broadcast_to cast cat cdiv ceil clamp condition
    const constexpr constexpr_type cos cumprod cumsum debug_barrier device_assert device_print div_rn dot dot_scaled
    dtype erf exp exp2 expand_dims expect_zero fdiv flip float16 float32 float64 float8e4b15 float8e4b8 float8e4nv
    float8e5 float8e5b16 floor fma full gather histogram inline_asm_elementwise int1 int16 int32 int64 int8 interleave
    join load load_tensor_descriptor log log2 make_block_ptr make_tensor_descriptor map_elementwise max max_constancy
    max_contiguous maximum min minimum mul multiple_of num_programs pair_uniform_to_normal permute philox philox_impl
    pi32_t pointer_type program_id rand rand4x randint randint4x randn randn4x range ravel reduce reduce_or reshape
    rsqrt sigmoid sin slice softmax sort split sqrt sqrt_rn squeeze static_assert static_print static_range store
    store_tensor_descriptor sub sum swizzle2d tensor tensor_descriptor tensor_descriptor_type to_tensor topk trans tuple
    tuple_type uint16 uint32 uint64 uint8 uint_to_uniform_float umulhi unsqueeze view void where xor_sum zeros
    zeros_like
    """.split()
)
_LANGUAGE_PARTS = frozenset(f"triton.language.{name}" for name in ("core", "standard", "math", "random"))

_RUNTIME_NAMES = frozenset(
    "jit autotune heuristics Config JITFunction constexpr_function reinterpret KernelInterface".split()
)
_RUNTIME_PARTS = frozenset({"triton.runtime", "triton.runtime.jit", "triton.runtime.autotuner"})

JIT = TritonObject("triton", "jit")
CONSTEXPR_FUNCTION = TritonObject("triton", "constexpr_function")
CONSTEXPR = TritonObject("triton.language", "constexpr")
WRAPPERS = frozenset({JIT, TritonObject("triton", "autotune"), TritonObject("triton", "heuristics")})
WRAPPER_NAMES = frozenset({"libentry", "libtuner"})
"""Wrappers that projects define themselves and put around a jit function (FlagGems), known by name."""

CONVENTIONS = {
    "triton": TritonObject("triton"),
    "tl": TritonObject("triton.language"),
    "libdevice": TritonObject("triton.language.extra.libdevice"),
    "tldevice": TritonObject("triton.language.extra.libdevice"),
    "tl_extra_shim": TritonObject("triton.language.extra.libdevice"),
}
"""What these names mean when the project module that re-exports them is absent, or decides when it runs."""


# Names of `triton` itself (3.5 to 3.9).
_TRITON_NAMES = frozenset(
    "CompilationError Config InterpreterError JITFunction KernelInterface MockTensor OutOfResources TensorWrapper"
    " TritonError autotune cdiv compile constexpr_function heuristics jit must_use_result next_power_of_2 reinterpret"
    " set_allocator".split()
)
# Names that some of these versions have and others have not.
_VARYING = frozenset(
    "aggregate_replace advance async_task atomic_load atomic_poll atomic_store expect_zero mul squeeze sub to_tensor"
    " unsqueeze".split()
)


def exists(thing: TritonObject) -> bool | None:
    """Whether current tritons have `thing`; None when it depends on the version, or is not known here."""
    module, name = thing.module, thing.attribute
    if thing.dotted.startswith("triton.language.extra.") and thing.dotted.split(".")[3] not in _EXTRA_PARTS:
        return False  # a backend that comes with another build of triton
    if module not in MODULES:
        return None
    if not name or module.endswith(("extra.libdevice", "extra.cuda.libdevice")):
        return True
    if name.startswith("_experimental_"):
        return False  # 3.4 was the last to have them
    if name.startswith("_") or "." in name or name in _VARYING:
        return None
    if module in ("triton.language", "triton.language.math"):
        return module == "triton.language" and name in _LANGUAGE_NAMES
    if module == "triton":
        return True if name in _TRITON_NAMES else None
    return None


def is_triton(module: str) -> bool:
    return module == "triton" or module.startswith("triton.")


def triton_module(module: str) -> TritonObject:
    """The meaning of an imported module of triton."""
    return TritonObject(module)


def member(owner: TritonObject, attribute: str) -> TritonObject:
    """`owner.attribute`, in the one spelling that names the object: `triton.language.core.load` is
    `triton.language.load`, `triton.runtime.jit.jit` is `triton.jit`."""
    if owner.attribute:
        return TritonObject(owner.module, f"{owner.attribute}.{attribute}")
    module = owner.module
    if module == "triton.runtime" and attribute == "jit":
        return TritonObject("triton.runtime.jit")
    if f"{module}.{attribute}" in MODULES:
        return TritonObject(f"{module}.{attribute}")
    if module in _LANGUAGE_PARTS and attribute in _LANGUAGE_NAMES:
        return TritonObject("triton.language", attribute)
    if module in _RUNTIME_PARTS and attribute in _RUNTIME_NAMES:
        return TritonObject("triton", attribute)
    if attribute == "constexpr_function" and module in ("triton.language", "triton.language.core"):
        return CONSTEXPR_FUNCTION
    return TritonObject(module, attribute)
