"""Rotates the spherical-harmonic coefficients (degrees 0 to 2) of both ends of every edge: 18 stores to one output."""

import torch
import triton
import triton.language as tl


@triton.jit
def rotate_kernel(x_ptr, wigner_ptr, out_ptr, edges, CHANNELS: tl.constexpr):
    """x and out are (edges, 18, CHANNELS); wigner holds the 1 + 9 + 25 entries of the three blocks of each edge."""
    channels = tl.arange(0, CHANNELS)
    edge = tl.program_id(0)
    while edge < edges:
        w = wigner_ptr + edge * 35
        x = x_ptr + edge * 18 * CHANNELS + channels
        out = out_ptr + edge * 18 * CHANNELS + channels
        w000 = tl.load(w + 0)
        w100 = tl.load(w + 1)
        w101 = tl.load(w + 2)
        w102 = tl.load(w + 3)
        w110 = tl.load(w + 4)
        w111 = tl.load(w + 5)
        w112 = tl.load(w + 6)
        w120 = tl.load(w + 7)
        w121 = tl.load(w + 8)
        w122 = tl.load(w + 9)
        w200 = tl.load(w + 10)
        w201 = tl.load(w + 11)
        w202 = tl.load(w + 12)
        w203 = tl.load(w + 13)
        w204 = tl.load(w + 14)
        w210 = tl.load(w + 15)
        w211 = tl.load(w + 16)
        w212 = tl.load(w + 17)
        w213 = tl.load(w + 18)
        w214 = tl.load(w + 19)
        w220 = tl.load(w + 20)
        w221 = tl.load(w + 21)
        w222 = tl.load(w + 22)
        w223 = tl.load(w + 23)
        w224 = tl.load(w + 24)
        w230 = tl.load(w + 25)
        w231 = tl.load(w + 26)
        w232 = tl.load(w + 27)
        w233 = tl.load(w + 28)
        w234 = tl.load(w + 29)
        w240 = tl.load(w + 30)
        w241 = tl.load(w + 31)
        w242 = tl.load(w + 32)
        w243 = tl.load(w + 33)
        w244 = tl.load(w + 34)

        # the source of the edge
        x0 = tl.load(x + 0 * CHANNELS)
        x1 = tl.load(x + 1 * CHANNELS)
        x2 = tl.load(x + 2 * CHANNELS)
        x3 = tl.load(x + 3 * CHANNELS)
        x4 = tl.load(x + 4 * CHANNELS)
        x5 = tl.load(x + 5 * CHANNELS)
        x6 = tl.load(x + 6 * CHANNELS)
        x7 = tl.load(x + 7 * CHANNELS)
        x8 = tl.load(x + 8 * CHANNELS)
        tl.store(out + 0 * CHANNELS, w000 * x0)
        tl.store(out + 1 * CHANNELS, w100 * x1 + w101 * x2 + w102 * x3)
        tl.store(out + 2 * CHANNELS, w110 * x1 + w111 * x2 + w112 * x3)
        tl.store(out + 3 * CHANNELS, w120 * x1 + w121 * x2 + w122 * x3)
        tl.store(out + 4 * CHANNELS, w200 * x4 + w201 * x5 + w202 * x6 + w203 * x7 + w204 * x8)
        tl.store(out + 5 * CHANNELS, w210 * x4 + w211 * x5 + w212 * x6 + w213 * x7 + w214 * x8)
        tl.store(out + 6 * CHANNELS, w220 * x4 + w221 * x5 + w222 * x6 + w223 * x7 + w224 * x8)
        tl.store(out + 7 * CHANNELS, w230 * x4 + w231 * x5 + w232 * x6 + w233 * x7 + w234 * x8)
        tl.store(out + 8 * CHANNELS, w240 * x4 + w241 * x5 + w242 * x6 + w243 * x7 + w244 * x8)

        # the target of the edge
        x0 = tl.load(x + 9 * CHANNELS)
        x1 = tl.load(x + 10 * CHANNELS)
        x2 = tl.load(x + 11 * CHANNELS)
        x3 = tl.load(x + 12 * CHANNELS)
        x4 = tl.load(x + 13 * CHANNELS)
        x5 = tl.load(x + 14 * CHANNELS)
        x6 = tl.load(x + 15 * CHANNELS)
        x7 = tl.load(x + 16 * CHANNELS)
        x8 = tl.load(x + 17 * CHANNELS)
        tl.store(out + 9 * CHANNELS, w000 * x0)
        tl.store(out + 10 * CHANNELS, w100 * x1 + w101 * x2 + w102 * x3)
        tl.store(out + 11 * CHANNELS, w110 * x1 + w111 * x2 + w112 * x3)
        tl.store(out + 12 * CHANNELS, w120 * x1 + w121 * x2 + w122 * x3)
        tl.store(out + 13 * CHANNELS, w200 * x4 + w201 * x5 + w202 * x6 + w203 * x7 + w204 * x8)
        tl.store(out + 14 * CHANNELS, w210 * x4 + w211 * x5 + w212 * x6 + w213 * x7 + w214 * x8)
        tl.store(out + 15 * CHANNELS, w220 * x4 + w221 * x5 + w222 * x6 + w223 * x7 + w224 * x8)
        tl.store(out + 16 * CHANNELS, w230 * x4 + w231 * x5 + w232 * x6 + w233 * x7 + w234 * x8)
        tl.store(out + 17 * CHANNELS, w240 * x4 + w241 * x5 + w242 * x6 + w243 * x7 + w244 * x8)

        edge += tl.num_programs(0)


def rotate(x, wigner):
    out = torch.empty_like(x)
    programs = min(x.shape[0], 4096)
    rotate_kernel[(programs,)](x, wigner, out, x.shape[0], CHANNELS=x.shape[2], num_warps=1)
    return out
