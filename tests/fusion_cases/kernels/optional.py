import torch
import triton
import triton.language as tl


@triton.jit
def k(b_ptr, a_ptr, out_ptr, n, BLOCK: tl.constexpr):
    offs = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = offs < n
    a = tl.load(a_ptr + offs, mask=mask, other=0.0)
    if b_ptr is not None:
        b = tl.load(b_ptr + offs, mask=mask, other=0.0)
        a += tl.sum(b)
    tl.store(out_ptr + offs, a, mask=mask)


def launch(a, b=None):
    out = torch.empty_like(a)
    k[(triton.cdiv(a.numel(), 32),)](b, a, out, a.numel(), BLOCK=32)
    return out
