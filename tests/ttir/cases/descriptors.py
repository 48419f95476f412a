import triton
import triton.language as tl


@triton.jit
def descriptor_arguments(d, o, n):
    o.store([n, 0], d.load([n, 0]).to(tl.float16))


@triton.jit
def descriptor_between(a, d, o, n):
    tl.store(o + n, tl.load(a + n) + d.load([n, 0]).sum().to(tl.float32))


@triton.jit
def descriptor_read_and_written(d, o):
    o.store([0, 0], d.load([0, 0]) + o.load([64, 0]))


@triton.jit
def made_on_device(a, o, M, N):
    d = tl.make_tensor_descriptor(a, shape=[M, N], strides=[N, 1], block_shape=[64, 64])
    e = tl.make_tensor_descriptor(o, shape=[M, N], strides=[N, 1], block_shape=[64, 64])
    for i in range(0, M, 64):
        e.store([i, 0], d.load([i, 0]))


@triton.jit
def functional_store(a, o, M, N):
    d = tl.make_tensor_descriptor(a, shape=[M, N], strides=[N, 1], block_shape=[64, 64])
    e = tl.make_tensor_descriptor(o, shape=[M, N], strides=[N, 1], block_shape=[64, 64])
    tl.store_tensor_descriptor(e, [0, 0], tl.load_tensor_descriptor(d, [0, 0]))


@triton.jit
def read_via_gather(idx, o, M, N):
    rows = tl.load(idx + tl.arange(0, 64))
    e = tl.make_tensor_descriptor(o, shape=[M, N], strides=[N, 1], block_shape=[1, 64])
    x = e.gather(rows, 0)
    cols = tl.arange(0, 64)
    tl.store(o + rows[:, None] * N + cols[None, :], x)


@triton.jit
def write_via_scatter(a, idx, o, M, N):
    rows = tl.load(idx + tl.arange(0, 64))
    cols = tl.arange(0, 64)
    e = tl.make_tensor_descriptor(o, shape=[M, N], strides=[N, 1], block_shape=[1, 64])
    e.scatter(tl.load(a + rows[:, None] * N + cols[None, :]), rows, 0)


@triton.jit
def accumulates_via_descriptor(a, o, M, N):
    rows = tl.arange(0, 64)
    e = tl.make_tensor_descriptor(o, shape=[M, N], strides=[N, 1], block_shape=[64, 64])
    e.atomic_add([0, 0], tl.load(a + rows[:, None] * N + rows[None, :]))


@triton.jit
def dead_store_live_descriptor(a, o, M, N, TMA: tl.constexpr):
    rows = tl.arange(0, 64)
    offs = rows[:, None] * N + rows[None, :]
    x = tl.load(a + offs)
    if TMA:
        e = tl.make_tensor_descriptor(o, shape=[M, N], strides=[N, 1], block_shape=[64, 64])
        e.store([0, 0], x)
    else:
        tl.store(o + offs, x)


@triton.jit
def descriptor_through_helper(d, i):
    return d.load([i, 0])


@triton.jit
def passes_descriptors(d, o, n):
    o.store([n, 0], descriptor_through_helper(d, n))


@triton.jit
def swapped_descriptors(a, o, M, N):
    d = tl.make_tensor_descriptor(a, shape=[M, N], strides=[N, 1], block_shape=[64, 64])
    e = tl.make_tensor_descriptor(o, shape=[M, N], strides=[N, 1], block_shape=[64, 64])
    for i in range(0, M, 64):
        x = d.load([i, 0])
        d, e = e, d
        tl.store(o, x.sum())
