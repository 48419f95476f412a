import torch
import triton
import triton.language as tl


@triton.jit
def add_kernel(a_ptr, b_ptr, out_ptr, M, N, stride_m, stride_n, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    row, col = tl.program_id(0) * BLOCK_M, tl.program_id(1) * BLOCK_N
    a_block = tl.make_block_ptr(a_ptr, (M, N), (stride_m, stride_n), (row, col), (BLOCK_M, BLOCK_N), (1, 0))
    b_block = tl.make_block_ptr(b_ptr, (M, N), (stride_m, stride_n), (row, col), (BLOCK_M, BLOCK_N), (1, 0))
    out_block = tl.make_block_ptr(out_ptr, (M, N), (stride_m, stride_n), (row, 0), (BLOCK_M, BLOCK_N), (1, 0))
    out_block = tl.advance(out_block, (0, col))
    total = tl.load(a_block, boundary_check=(0, 1)) + tl.load(b_block, boundary_check=(0, 1))
    tl.store(out_block, total, boundary_check=(0, 1))


def launch(a, b):
    M, N = a.shape
    out = torch.empty((M, N), device=a.device, dtype=a.dtype)
    grid = (triton.cdiv(M, 16), triton.cdiv(N, 32))
    add_kernel[grid](a, b, out, M, N, out.stride(0), out.stride(1), BLOCK_M=16, BLOCK_N=32)
    return out
