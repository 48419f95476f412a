import triton
import triton.language as tl


@triton.jit
def copies_block(a, o, M, N):
    p = tl.make_block_ptr(a, shape=(M, N), strides=(N, 1), offsets=(0, 0), block_shape=(16, 16), order=(1, 0))
    q = tl.make_block_ptr(o, shape=(M, N), strides=(N, 1), offsets=(0, 0), block_shape=(16, 16), order=(1, 0))
    tl.store(q, tl.load(p, boundary_check=(0, 1)), boundary_check=(0, 1))


@triton.jit
def advances_in_for(a, o, M, N):
    p = tl.make_block_ptr(a, shape=(M, N), strides=(N, 1), offsets=(0, 0), block_shape=(16, 16), order=(1, 0))
    q = tl.make_block_ptr(o, shape=(M, N), strides=(N, 1), offsets=(0, 0), block_shape=(16, 16), order=(1, 0))
    for i in range(0, N, 16):
        tl.store(q, tl.load(p))
        p = tl.advance(p, (0, 16))
        q = tl.advance(q, (0, 16))


@triton.jit
def advances_in_while(a, o, M, N):
    p = tl.make_block_ptr(a, shape=(M, N), strides=(N, 1), offsets=(0, 0), block_shape=(16, 16), order=(1, 0))
    q = tl.make_block_ptr(o, shape=(M, N), strides=(N, 1), offsets=(0, 0), block_shape=(16, 16), order=(1, 0))
    i = 0
    while i < N:
        tl.store(q, tl.load(p))
        p = tl.advance(p, (0, 16))
        q = tl.advance(q, (0, 16))
        i += 16


@triton.jit
def swaps_blocks(a, o, M, N):
    p = tl.make_block_ptr(a, shape=(M, N), strides=(N, 1), offsets=(0, 0), block_shape=(16, 16), order=(1, 0))
    q = tl.make_block_ptr(o, shape=(M, N), strides=(N, 1), offsets=(0, 0), block_shape=(16, 16), order=(1, 0))
    for i in range(0, N, 16):
        x = tl.load(p)
        p, q = q, p
        tl.store(o, tl.sum(tl.sum(x, 0), 0))
