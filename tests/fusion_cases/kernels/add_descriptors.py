import torch
import triton
import triton.language as tl


@triton.jit
def add_kernel(a_ptr, b_ptr, out_ptr, M, N, stride_m, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    shape = [M, N]
    a = tl.make_tensor_descriptor(a_ptr, shape, [stride_m, 1], [BLOCK_M, BLOCK_N])
    b = tl.make_tensor_descriptor(b_ptr, shape, [stride_m, 1], [BLOCK_M, BLOCK_N])
    out = tl.make_tensor_descriptor(out_ptr, shape, [stride_m, 1], [BLOCK_M, BLOCK_N])
    place = [tl.program_id(0) * BLOCK_M, tl.program_id(1) * BLOCK_N]
    out.store(place, a.load(place) + b.load(place))


def launch(a, b):
    M, N = a.shape
    out = torch.empty((M, N), device=a.device, dtype=a.dtype)
    grid = (triton.cdiv(M, 16), triton.cdiv(N, 32))
    add_kernel[grid](a, b, out, M, N, out.stride(0), BLOCK_M=16, BLOCK_N=32)
    return out
