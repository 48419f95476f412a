import torch
import triton
import triton.language as tl


@triton.jit
def two_kernel(a_ptr, b_ptr, sums_ptr, halves_ptr, n, m, BLOCK: tl.constexpr):
    for start in range(0, n, BLOCK):
        offsets = start + tl.arange(0, BLOCK)
        total = tl.load(a_ptr + offsets, mask=offsets < n) + 1.0
        tl.store(sums_ptr + offsets, total, mask=offsets < n)
    for start in range(0, m, BLOCK):
        offsets = start + tl.arange(0, BLOCK)
        half = tl.load(b_ptr + offsets, mask=offsets < m) * 0.5
        tl.store(halves_ptr + offsets, half, mask=offsets < m)


def launch(a, b):
    sums, halves = torch.empty_like(a), torch.empty_like(b)
    two_kernel[(1,)](a, b, sums, halves, a.numel(), b.numel(), BLOCK=32)
    return sums, halves
