"""What the kernel stores to another output at the same place, as an operand: the text of that value at the later store.

tl.store(gate_ptrs, gate, mask=mask)
tl.store(c_ptrs, silu(gate.to(gate_ptr.dtype.element_ty)) * up, mask=mask)      # c_ptr=silu(gate_ptr) * x
"""

from __future__ import annotations

import ast

from kernel_rewrite.diagnostics import Diagnostic, FusionRefused, Label
from kernel_rewrite.model import Closure, Span
from kernel_rewrite.rewrite.stores import StorePlan, StoreSite
from kernel_rewrite.source.syntax import blocks_of


def store_beside(output: StorePlan, other: StorePlan, site: StoreSite, closure: Closure) -> tuple[StoreSite, ast.expr]:
    """The store of `other` whose value is at hand at `site`, a store of `output`, and that value: the last one before it in
    the same block, if nothing binds anew what it is computed of, and no second store of `output` would take it.

    Raises FusionRefused (KR307). Whether both are at the same place, TTIR must tell.
    """
    function = closure.function(site.call.function)
    assert function is not None
    own = {id(s.call.node): s for s in output.sites}
    others = {id(s.call.node): s for s in other.sites if s.call.function == site.call.function}
    found: tuple[int, StoreSite] | None = None
    blocks = (block for node in ast.walk(function.node) for block in blocks_of(node))
    block = next((b for b in blocks if any(_call(s) is site.call.node for s in b)), [])
    here = next((i for i, s in enumerate(block) if _call(s) is site.call.node), 0)
    for index, statement in enumerate(block[:here]):
        if id(_call(statement)) in others:
            found = index, others[id(_call(statement))]
        elif id(_call(statement)) in own:
            found = None
    if found is None:
        raise _refused(output, other, site, "no store just before this one, in the same block, writes it")
    index, its_site = found
    value = its_site.call.value(its_site.form)
    assert value is not None
    if not _is_plain(value):
        raise _refused(output, other, its_site, "its value is computed in the call: give it a name before")
    names = {node.id for node in ast.walk(value) if isinstance(node, ast.Name)}
    bound = {n.id for s in block[index:here] for n in ast.walk(s) if isinstance(n, ast.Name) and _binds(n)}
    if names & bound:
        raise _refused(output, other, site, f"`{min(names & bound)}` has another value here")
    return its_site, value


def _call(statement: ast.stmt) -> ast.expr | None:
    return statement.value if isinstance(statement, ast.Expr) else None


def _binds(name: ast.Name) -> bool:
    return not isinstance(name.ctx, ast.Load)


def _is_plain(value: ast.expr) -> bool:
    """Whether a value may be written twice: names and arithmetic, and `.to(TYPE)` of such."""
    for node in ast.walk(value):
        if isinstance(node, ast.Call) and not (isinstance(node.func, ast.Attribute) and node.func.attr == "to"):
            return False
    return True


def _refused(output: StorePlan, other: StorePlan, site: StoreSite, why: str) -> FusionRefused:
    message = f"what is stored to `{other.output}` is not at hand where `{output.output}` is stored"
    label = Label(Span.of(site.call.function.file, site.call.node), why)
    help_text = (
        f"store `{other.output}` first and `{output.output}` after it, to the same place, each value under a name"
    )
    return FusionRefused((Diagnostic("KR307", message, (label,), help=help_text),))
