import triton
import triton.language as tl


@triton.jit
def add_4_times(a, o, n, BLOCK: tl.constexpr):
    offs = tl.arange(0, BLOCK)
    x = tl.load(a + offs, mask=offs < n)
    for i in range(2):
        tl.store(o + offs, x, mask=offs < n)
    i = 2
    while i > 0:
        i -= 1
        tl.store(o + offs, x, mask=offs < n)


@triton.jit
def accumulators(a, o, n, BLOCK: tl.constexpr):
    offs = tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), tl.float32)
    count = 0
    for i in range(0, n):
        offs = tl.multiple_of(offs, 16)
        for j in range(0, i):
            total += tl.load(a + offs + j)
            count += 1
    tl.store(o + offs, total + count)


@triton.jit
def advancing_pointers(a, o, n, BLOCK: tl.constexpr):
    p = a + tl.arange(0, BLOCK)
    q = o + tl.arange(0, BLOCK)
    for i in range(0, n):
        tl.store(q, tl.load(p))
        p += BLOCK
        q += BLOCK


@triton.jit
def store_in_k_loop(a, b, o, K, BLOCK: tl.constexpr):
    rows = tl.arange(0, BLOCK)
    acc = tl.zeros((BLOCK, BLOCK), tl.float32)
    p = a + rows[:, None] * K + rows[None, :]
    for k in range(0, K, BLOCK):
        acc = tl.dot(tl.load(p), tl.load(b + (k + rows)[:, None] * BLOCK + rows[None, :]), acc)
        tl.store(o + k * BLOCK + rows[:, None] * BLOCK + rows[None, :], acc)
        p += BLOCK


@triton.jit
def static_range_stores(a, o, BLOCK: tl.constexpr):
    offs = tl.arange(0, BLOCK)
    for i in tl.static_range(4):
        tl.store(o + i * BLOCK + offs, tl.load(a + i * BLOCK + offs))


@triton.jit
def ping_pong_read(a, o, n):
    p = a
    q = o
    for i in range(0, n):
        x = tl.load(p)
        tl.store(o + i, x)
        p, q = q, p


@triton.jit
def for_store_swap(a, o, o2, n):
    p = o
    q = o2
    for i in range(0, n):
        tl.store(p + i, tl.load(a + i))
        p, q = q, p


@triton.jit
def while_store_swap(a, o, o2, n):
    p = o
    q = o2
    i = 0
    while i < n:
        tl.store(p + i, tl.load(a + i))
        p, q = q, p
        i += 1


@triton.jit
def while_read_swap(a, o, n):
    p = a
    q = o
    i = 0
    while i < n:
        tl.store(o + i, tl.load(p))
        p, q = q, p
        i += 1


@triton.jit
def three_way_rotation(a, b, o, n):
    p = a
    q = b
    r = o
    for i in range(0, n):
        tl.store(o + i, tl.load(p))
        p, q, r = q, r, p


@triton.jit
def pointer_after_loop(a, o, n):
    p = a
    for i in range(0, n):
        p = o + i
    tl.store(o, tl.load(p))


@triton.jit
def late_swap(a, o, n):
    p = a
    q = o
    for i in range(0, n):
        if i == 3:
            p, q = q, p
    tl.store(q, 1.0)
    tl.store(o, tl.load(p))
