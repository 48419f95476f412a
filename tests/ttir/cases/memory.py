import triton
import triton.language as tl


@triton.jit
def atomic_add_kernel(a, o, BLOCK: tl.constexpr):
    offs = tl.arange(0, BLOCK)
    tl.atomic_add(o + offs, tl.load(a + offs))


@triton.jit
def atomic_exchange(a, o):
    tl.atomic_xchg(o, tl.load(a))


@triton.jit
def atomic_compare(a, o):
    tl.atomic_cas(o, tl.load(a), 1)


@triton.jit
def atomic_then_value(a, o):
    old = tl.atomic_add(o, 0.0)
    tl.store(o, old * 2 + tl.load(a))


@triton.jit
def atomic_read(a, o):
    tl.store(o + 1, tl.load(a) + tl.atomic_load(o))


@triton.jit
def atomic_write(a, o):
    tl.atomic_store(o, tl.load(a))


@triton.jit
def asm_pure(a, o, BLOCK: tl.constexpr):
    offs = tl.arange(0, BLOCK)
    x = tl.load(a + offs)
    y = tl.inline_asm_elementwise(
        """
        { // a "comment" with % and { braces
          .reg .f32 t;
          mul.f32 t, $1, $1;
          @p add.f32 $0, t, 0f3F800000;
        }
        """,
        "=r,r",
        [x],
        dtype=tl.float32,
        is_pure=True,
        pack=1,
    )
    tl.store(o + offs, y)


@triton.jit
def asm_impure(a, o, BLOCK: tl.constexpr):
    offs = tl.arange(0, BLOCK)
    x = tl.load(a + offs)
    y = tl.inline_asm_elementwise(
        "add.f32 $0, $1, $1; // pure = true", "=r,r", [x], dtype=tl.float32, is_pure=False, pack=1
    )
    tl.store(o + offs, y)


@triton.jit
def asm_pure_load(a, o, BLOCK: tl.constexpr):
    offs = tl.arange(0, BLOCK)
    address = (o + offs).to(tl.int64)
    y = tl.inline_asm_elementwise(
        "ld.global.f32 $0, [$1];", "=r,l", [address], dtype=tl.float32, is_pure=True, pack=1
    )
    tl.store(o + offs, y)


@triton.jit
def asm_pure_load_of_loaded_address(addresses, o, BLOCK: tl.constexpr):
    offs = tl.arange(0, BLOCK)
    address = tl.load(addresses + offs)
    y = tl.inline_asm_elementwise(
        "{ mov.u64 $1, $1; ld.global.f32 $0, [$1]; }", "=r,l", [address], dtype=tl.float32, is_pure=True, pack=1
    )
    tl.store(o + offs, y)


@triton.jit
def add_and_multiply(x, y):
    return x + y, x * y


@triton.jit
def maps_elementwise(a, o, BLOCK: tl.constexpr):
    offs = tl.arange(0, BLOCK)
    x = tl.load(a + offs)
    s, p = tl.map_elementwise(add_and_multiply, x, x)
    tl.store(o + offs, s - p)


@triton.jit
def pointer_from_memory(table, a, o, BLOCK: tl.constexpr):
    offs = tl.arange(0, BLOCK)
    p = tl.load(table).to(tl.pointer_type(tl.float32))
    x = tl.load(a + offs)
    tl.store(p + offs, x)
    tl.store(o + offs, x)


@triton.jit
def reads_pointer_from_memory(table, o, BLOCK: tl.constexpr):
    offs = tl.arange(0, BLOCK)
    p = tl.load(table).to(tl.pointer_type(tl.float32))
    tl.store(o + offs, tl.load(p + offs))


@triton.jit
def address_as_integer(a, o):
    address = o.to(tl.int64)
    tl.store(o, tl.load(a) + address % 16)


@triton.jit
def integer_address(a, o):
    p = o.to(tl.int64).to(tl.pointer_type(tl.float32))
    tl.store(p, tl.load(a))


@triton.jit
def other_address_as_integer(a, o):
    tl.store(o, tl.load(a) + a.to(tl.int64) % 16)


@triton.jit
def stores_its_address(o, table):
    tl.store(table, o.to(tl.int64))
    tl.store(o, 1.0)


@triton.jit
def prints_pointer(a, o):
    tl.device_print("pointer", o)
    tl.store(o, tl.load(a))


@triton.jit
def alias_kernel(a, o, BLOCK: tl.constexpr):
    offs = tl.arange(0, BLOCK)
    tl.store(o + offs, tl.load(a + offs))


@triton.jit
def barrier_kernel(a, o):
    x = tl.load(a)
    tl.debug_barrier()
    tl.store(o, x)
