import triton
import triton.language as tl


@triton.jit
def tuple_inputs(ins, o, c, BLOCK: tl.constexpr):
    offs = tl.arange(0, BLOCK)
    tl.store(o + offs, tl.load(ins[0] + offs) + tl.load(ins[1] + offs))


@triton.jit
def nested_tuple(ins, o, BLOCK: tl.constexpr):
    offs = tl.arange(0, BLOCK)
    tl.store(o + offs, tl.load(ins[0] + offs) + tl.load(ins[1][0] + offs) + ins[1][2])


@triton.jit
def tuple_outputs(a, outs, BLOCK: tl.constexpr):
    offs = tl.arange(0, BLOCK)
    x = tl.load(a + offs)
    tl.store(outs[0] + offs, x)
    tl.store(outs[1] + offs, x + tl.load(outs[1] + offs))


@triton.jit
def tuple_loop(a, outs, BLOCK: tl.constexpr):
    offs = tl.arange(0, BLOCK)
    x = tl.load(a + offs)
    for i in tl.static_range(2):
        tl.store(outs[i] + offs, x)
