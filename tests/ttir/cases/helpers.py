import triton
import triton.language as tl


@triton.jit
def doubles(x, n, BLOCK: tl.constexpr):
    offs = tl.arange(0, BLOCK)
    tl.store(x + offs, 2 * tl.load(x + offs, mask=offs < n), mask=offs < n)


@triton.jit
def adds(a, o, n, BLOCK: tl.constexpr):
    offs = tl.arange(0, BLOCK)
    tl.store(o + offs, 1.0 + tl.load(a + offs, mask=offs < n), mask=offs < n)


@triton.jit
def calls_inplace(a, o, n, BLOCK: tl.constexpr):
    doubles(a, n, BLOCK)
    offs = tl.arange(0, BLOCK)
    tl.store(o + offs, 3.0)


@triton.jit
def helper_and_caller_store(a, o, n, BLOCK: tl.constexpr):
    adds(a, o, n, BLOCK)
    offs = tl.arange(0, BLOCK)
    tl.store(o + offs, 3.0, mask=offs < n)


@triton.jit
def puts(p, n):
    tl.store(p + n, 1.0)


@triton.jit
def nested_puts(p, n):
    puts(p, n)


@triton.jit
def scalar_via_nested_write(o, n):
    nested_puts(o, n)


@triton.jit
def same(p):
    return p


@triton.jit
def returned_pointer(a, o):
    p = same(o)
    tl.store(p, tl.load(a))


@triton.jit
def value_and_pointer(x, y, p):
    return tl.load(x) + tl.load(y), p


@triton.jit
def returned_pair(a, b, o):
    v, p = value_and_pointer(a, b, o)
    tl.store(p, v)


@triton.jit
def second_of(p, q):
    return q


@triton.jit
def picks_one(a, o, o2):
    p = second_of(o2, o)
    tl.store(p, tl.load(a))


@triton.jit
def swapped(p, q):
    return q, p


@triton.jit
def reads_swapped(a, o):
    p, q = swapped(a, o)
    tl.store(o + 1, tl.load(p))


@triton.jit
def reads(p):
    return tl.load(p)


@triton.jit
def helper_reads_output(a, o):
    tl.store(o, reads(a) + reads(o + 1))


@triton.jit
def helper_used_for_two(a, o, o2):
    puts(o, 1)
    puts(o2, 2)
    tl.store(o + 5, tl.load(a))


@triton.jit
def stores_twice(p, x):
    tl.store(p, x)
    tl.store(p + 1, x)


@triton.jit
def helper_twice_plus_dead(a, o, DEAD: tl.constexpr):
    if DEAD:
        tl.store(o, tl.load(a))
    else:
        stores_twice(o, tl.load(a))


@triton.jit
def helper_only(a, o):
    stores_twice(o, tl.load(a))


@triton.jit
def dead_store_live_helper(a, o, HELPER: tl.constexpr):
    if HELPER:
        puts(o, 0)
    else:
        tl.store(o, tl.load(a))


@triton.jit
def dead_store_live_atomic(a, o, ATOMIC: tl.constexpr):
    if ATOMIC:
        tl.atomic_add(o, tl.load(a))
    else:
        tl.store(o, tl.load(a))


@triton.jit
def returns_early(p, q, n):
    if n > 3:
        return p
    return q


@triton.jit
def reads_early_returned(a, o, n):
    p = returns_early(a, o, n)
    tl.store(o + 1, tl.load(p))


@triton.jit
def casts(p):
    return p.to(tl.pointer_type(tl.int32), bitcast=True)


@triton.jit
def bitcast_in_helper(a, o):
    tl.store(casts(o), tl.load(a).to(tl.int32, bitcast=True))


@triton.jit
def combines_with_load(x, y, p):
    return x + y


@triton.jit
def twice(p, DEPTH: tl.constexpr):
    if DEPTH == 0:
        tl.store(p, 1.0)
    else:
        twice(p, DEPTH - 1)
        twice(p + 1, DEPTH - 1)


@triton.jit
def doubling_calls(o):
    twice(o, 12)
