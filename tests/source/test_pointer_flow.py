"""Which parameters a pointer expression may point into: what is a number, and what may hold an address after all."""

from __future__ import annotations

import pytest

from kernel_rewrite.model import MemoryEffect
from kernel_rewrite.source.accesses import SourceCalls
from kernel_rewrite.source.closure import close, kernels
from kernel_rewrite.source.files import Project, source_from_text
from kernel_rewrite.source.pointer_flow import PointerFlow

HEAD = "import triton\nimport triton.language as tl\n\n"


def stored_to(body: str, before: str = "") -> set[str]:
    """The parameters that the pointer of the only store may point into."""
    lines = "".join(f"    {line}\n" for line in body.strip().splitlines())
    text = f"{HEAD}{before}\n@triton.jit\ndef kernel(out, other, n, B: tl.constexpr):\n{lines}"
    project = Project((source_from_text(text, "kernel.py"),))
    closure = close(next(k for k in kernels(project.files()[0], project) if k.name == "kernel"), project)
    calls = SourceCalls(closure)
    (store,) = (call for call in calls.memory_calls if MemoryEffect.WRITE in call.effects)
    pointer = store.pointer(store.forms[0])
    assert pointer is not None
    return set(PointerFlow(closure, calls).roots(pointer, store.node, closure.kernel))


NUMBERS = {
    "the test of a conditional expression": "row = n if other is None else tl.load(other)\ntl.store(out + row, 1.0)",
    "a comparison": "tl.store(out + (other == 0), 1.0)",
    "a negation": "flag = not other\ntl.store(out + flag, 1.0)",
    "what an atomic returns": "tl.store(out + tl.atomic_add(other, 1), 1.0)",
    "what a load returns": "tl.store(out + tl.load(other), 1.0)",
    "what a descriptor loads": "tl.store(out + tl.make_tensor_descriptor(other, [n], [1], [4]).load([0]), 1.0)",
    "the variable of a loop that counts": "for i in tl.range(0, tl.cdiv(other, B), 2):\n    tl.store(out + i, 1.0)",
    "the variable of Python's range": "for i in range(tl.cdiv(other, B)):\n    tl.store(out + i, 1.0)",
    "a quotient": "tl.store(out + tl.cdiv(other, B) // B, 1.0)",
    "a remainder": "tl.store(out + tl.cdiv(other, B) % B, 1.0)",
}


@pytest.mark.parametrize("body", NUMBERS.values(), ids=NUMBERS)
def test_a_number_points_nowhere(body: str) -> None:
    assert stored_to(body) - {"n"} == {"out"}  # n is no buffer


ADDRESSES = {
    "either side of a conditional expression": "p = out if n else other\ntl.store(p, 1.0)",
    "a sum": "tl.store(out + other, 1.0)",
    "a difference": "tl.store(other - n, 1.0)",
    "an element of a repeated tuple": "p = ((out, other) * 2)[B]\ntl.store(p, 1.0)",
    "the variable of a loop over pointers": "for p in (out, other):\n    tl.store(p, 1.0)",
    "either operand of or": "p = out or other\ntl.store(p, 1.0)",
    "a cast": "tl.store(other.to(tl.pointer_type(tl.float32)), 1.0)",
    "a descriptor's gather, which may be a tensor's": "tl.store(other.gather(n, 0), 1.0)",
    "what a helper called load returns": "tl.store(load(other), 1.0)",
    "what a helper returns": "tl.store(pick(out, other), 1.0)",
}


HELPERS = "@triton.jit\ndef pick(p, q):\n    return q\n\n@triton.jit\ndef load(p):\n    return p\n"


@pytest.mark.parametrize("body", ADDRESSES.values(), ids=ADDRESSES)
def test_an_address_is_followed(body: str) -> None:
    assert "other" in stored_to(body, HELPERS)


def test_a_range_of_the_users_own_may_give_pointers() -> None:
    before = "@triton.jit\ndef range(p):\n    return (p, p)\n"
    assert stored_to("for p in range(other):\n    tl.store(p, 1.0)", before) == {"other"}
