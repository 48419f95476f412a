import triton
import triton.language as tl


@triton.jit
def value_from_if(a, b, o, which):
    if which > 0:
        x = tl.load(a)
    else:
        x = tl.load(b)
    tl.store(o, x)


@triton.jit
def store_under_nested_ifs(a, o, p, q):
    if p > 0:
        if q > 0:
            tl.store(o, tl.load(a))
        else:
            pass
    else:
        pass


@triton.jit
def early_return(a, o, n, BLOCK: tl.constexpr):
    if tl.program_id(0) > n:
        return
    offs = tl.arange(0, BLOCK)
    tl.store(o + offs, tl.load(a + offs))


@triton.jit
def yields_pointer_triple(a, b, o, which):
    if which > 0:
        first = a
        second = b
        out = o
    else:
        first = b
        second = a
        out = o
    tl.store(out, tl.load(first) + tl.load(second))


@triton.jit
def read_via_block_argument(a, o, n):
    p = a
    if n > 3:
        p = o
        if n > 100:
            return
    tl.store(o + 1, tl.load(p))


@triton.jit
def write_via_block_argument(a, o, o2, n):
    p = o
    if n > 3:
        p = o2
        if n > 100:
            return
    tl.store(p, tl.load(a))


@triton.jit
def only_block_argument_write(a, o, n):
    p = o
    if n > 3:
        p = o + 1
        if n > 100:
            return
    tl.store(p, tl.load(a))


@triton.jit
def same_pointer_on_both_sides(a, o, n):
    if n > 3:
        p = o + 1
    else:
        p = o + 2
    tl.store(p, tl.load(a))


@triton.jit
def either_buffer(a, o, o2, n):
    if n > 3:
        p = o
    else:
        p = o2
    tl.store(p, tl.load(a))


@triton.jit
def selected_buffer(a, o, o2, n):
    p = o if n > 3 else o2
    tl.store(p, tl.load(a))


@triton.jit
def where_on_pointers(a, o, o2, n, BLOCK: tl.constexpr):
    offs = tl.arange(0, BLOCK)
    p = tl.where(offs < n, o + offs, o2 + offs)
    tl.store(p, tl.load(a + offs))


@triton.jit
def where_reads_output(a, o, n, BLOCK: tl.constexpr):
    offs = tl.arange(0, BLOCK)
    p = tl.where(offs < n, a + offs, o + offs)
    tl.store(o + offs, tl.load(p))


@triton.jit
def split_k(a, o, SPLIT_K: tl.constexpr):
    x = tl.load(a)
    if SPLIT_K == 1:
        tl.store(o, x)
    else:
        tl.atomic_add(o, x)


@triton.jit
def renamed_parameters(a, o, o2, n):
    if n > 3:
        p = o
        q = a
    else:
        p = o2
        q = o
    a2 = p
    tl.store(a2, tl.load(q))
