import triton
import triton.language as tl
from triton.language import load, store


@triton.jit
def add_kernel(a, b, o, n, BLOCK: tl.constexpr):
    offs = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = offs < n
    tl.store(o + offs, tl.load(a + offs, mask=mask) + tl.load(b + offs, mask=mask), mask=mask)


@triton.jit
def add_2d(a, b, o, nx, ny, X: tl.constexpr, Y: tl.constexpr):
    xs = tl.program_id(0) * X + tl.arange(0, X)[:, None]
    ys = tl.program_id(1) * Y + tl.arange(0, Y)[None, :]
    mask = (xs < nx) & (ys < ny)
    first = tl.load(a + xs * ny + ys, mask)
    second = tl.load(a + xs * ny + ys, mask)
    tl.store(o + xs * ny + ys, first + second, mask)


@triton.jit
def mul2_inplace(x, n, BLOCK: tl.constexpr):
    offs = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(x + offs, mask=offs < n)
    tl.store(x + offs, 2 * value, mask=offs < n)


@triton.jit
def add_with_import(a, o, n, BLOCK: tl.constexpr):
    offs = tl.arange(0, BLOCK)
    store(o + offs, load(a + offs, mask=offs < n) + 1.0, mask=offs < n)


@triton.jit
def optional_bias(a, bias, o, n, BLOCK: tl.constexpr):
    offs = tl.arange(0, BLOCK)
    x = tl.load(a + offs, mask=offs < n)
    if bias is not None:
        x += tl.load(bias + offs, mask=offs < n)
    tl.store(o + offs, x, mask=offs < n)


@triton.jit
def out_of_order(a, n, b, o, BLOCK: tl.constexpr):
    offs = tl.arange(0, BLOCK)
    tl.store(o + offs, tl.load(a + offs, mask=offs < n) + tl.load(b + offs, mask=offs < n), mask=offs < n)


@triton.jit
def calls_out_of_order(o, a, n, b, BLOCK: tl.constexpr):
    out_of_order(a, n, b, o, BLOCK)


@triton.jit
def reduce_sum(a, o, c, BLOCK: tl.constexpr):
    offs = tl.arange(0, BLOCK)
    x = tl.load(a + offs)
    value, index = tl.max(x, 0, return_indices=True)
    tl.store(o, tl.sum(x, 0) + value)
    tl.store(c, tl.argmax(x, 0) + index)


@triton.jit
def cumsum_with_assert(a, o, n, BLOCK: tl.constexpr):
    offs = tl.arange(0, BLOCK)
    x = tl.load(a + offs)
    tl.device_assert(x > 0, 'a "quoted" {brace} % // assertion')
    tl.device_print('value "x" // {', x)
    tl.store(o + offs, tl.cumsum(x, 0))


@triton.jit
def multiply(a, b):
    return a * b


@triton.jit
def pair(a, ia, b, ib):
    keep = a > b
    return tl.where(keep, a, b), tl.where(keep, ia, ib)


@triton.jit
def custom_combines(a, o, h, BLOCK: tl.constexpr):
    offs = tl.arange(0, BLOCK)
    x = tl.load(a + offs)
    scanned = tl.associative_scan(x, 0, multiply)
    best, index = tl.reduce((x, offs), 0, pair)
    tl.store(o + offs, scanned + tl.sort(x) + best)
    tl.store(h + offs, tl.histogram(offs, BLOCK) + index)


@triton.jit
def equal_to_one(a, o, n, one, FLAG: tl.constexpr, NAME: tl.constexpr):
    if FLAG and NAME == "kernel":
        tl.store(o + n * one, tl.load(a + n))
    else:
        tl.store(o, 0.0)


@triton.jit
def two_constexpr_stores(a, o, FLAG: tl.constexpr):
    if FLAG:
        tl.store(o, tl.load(a))
    else:
        tl.store(o, tl.load(a + 1))


@triton.jit
def offset_from_memory(idx, a, o, BLOCK: tl.constexpr):
    offs = tl.arange(0, BLOCK)
    where = tl.load(idx + offs)
    tl.store(o + where, tl.load(a + offs))


@triton.jit
def loaded_offset(p, offs):
    return tl.load(p + offs)


@triton.jit
def offset_via_helper(idx, o, BLOCK: tl.constexpr):
    offs = tl.arange(0, BLOCK)
    tl.store(o + loaded_offset(idx, offs), 1.0)


@triton.jit
def bool_buffers(a, m, o, flags, n, BIG: tl.constexpr, flag, BLOCK: tl.constexpr):
    offs = tl.arange(0, BLOCK)
    keep = tl.load(m + offs, mask=offs < n)
    x = tl.load(a + offs, mask=keep, other=0.0)
    if flag:
        x += 1.0
    tl.store(o + offs, x, mask=keep)
    tl.store(flags + offs, x > 0, mask=offs < n)


@triton.jit
def int_to_bool_buffer(a, o, BLOCK: tl.constexpr):
    offs = tl.arange(0, BLOCK)
    tl.store(o + offs, tl.load(a + offs))


@triton.jit
def double_strided(a, o, stride, sx: tl.constexpr, sy: tl.constexpr, X: tl.constexpr, Y: tl.constexpr):
    xs = tl.program_id(0) * X + tl.arange(0, X)
    ys = tl.program_id(1) * Y + tl.arange(0, Y)
    src = tl.load(a + sx * xs[:, None] * stride + sy * ys[None, :])
    tl.store(o + sx * xs[:, None] * stride + sy * ys[None, :], src * 2.0)


@triton.jit
def stores_cast(a, o, BLOCK: tl.constexpr):
    offs = tl.arange(0, BLOCK)
    tl.store(o + offs, tl.load(a + offs))


@triton.jit
def bitcast_pointer(a, o, BLOCK: tl.constexpr):
    offs = tl.arange(0, BLOCK)
    bits = tl.load(a + offs).to(tl.int32, bitcast=True)
    as_int = o.to(tl.pointer_type(tl.int32), bitcast=True)
    tl.store(as_int + offs, bits)


@triton.jit
def bitcast_bool_pointer(a, o, BLOCK: tl.constexpr):
    offs = tl.arange(0, BLOCK)
    as_bytes = o.to(tl.pointer_type(tl.int8), bitcast=True)
    tl.store(as_bytes + offs, tl.load(a + offs).to(tl.int8))


@triton.jit
def value_bitcast(a, o, BLOCK: tl.constexpr):
    offs = tl.arange(0, BLOCK)
    tl.store(o + offs, tl.load(a + offs).to(tl.float32, bitcast=True))


@triton.jit
def reads_and_writes(a, o, n, BLOCK: tl.constexpr):
    offs = tl.arange(0, BLOCK)
    old = tl.load(o + offs, mask=offs < n)
    tl.store(o + offs, tl.load(a + offs, mask=offs < n) + old, mask=offs < n)


@triton.jit
def scalar_store(a, o):
    tl.store(o, tl.load(a))


@triton.jit
def other_writer(a, o, o2, BLOCK: tl.constexpr):
    offs = tl.arange(0, BLOCK)
    x = tl.load(a + offs)
    tl.store(o + offs, x)
    tl.store(o2 + offs, x + 1.0)


@triton.jit
def same_site_two_buffers(a, o, o2, FIRST: tl.constexpr):
    target = o if FIRST else o2
    tl.store(target, tl.load(a))
