"""How the user's file spells what an epilogue needs, and which names are free in it."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from kernel_rewrite.model import InternalError, TritonObject
from kernel_rewrite.source.closure import KernelDefinition
from kernel_rewrite.source.files import Project, SourceFile
from kernel_rewrite.source.names import Scope, binding_of, enclosing_functions
from kernel_rewrite.source.syntax import nodes_in

LIBDEVICE = "triton.language.extra.libdevice"
LIBDEVICE_MODULES = (LIBDEVICE, "triton.language.extra.cuda.libdevice")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The block that additions go into: the file's top level, or the body of a function that imports triton for itself.

    `imports` are the import statements visible there, `names` what they call the objects of triton, `bound` every name
    that is bound there.
    """

    body: list[ast.stmt]
    imports: tuple[ast.Import | ast.ImportFrom, ...]
    names: dict[str, str]
    bound: frozenset[str]

    @classmethod
    def of(cls, kernel: KernelDefinition, project: Project, touched: Iterable[ast.FunctionDef]) -> Surroundings:
        """The top level, unless all that is `touched` stands in one function that has its own import of triton."""
        file = kernel.file
        blocks = [f.body for f in reversed(enclosing_functions(kernel.node, file, project))] + [file.tree.body]
        for index, body in enumerate(blocks):
            visible = [statement for block in blocks[index:] for statement in import_statements(block)]
            own = _named(import_statements(body), kernel.scope)
            holds = all(any(node is inner for s in body for inner in ast.walk(s)) for node in touched)
            if body is file.tree.body or (holds and own.keys() & {"triton", "triton.language", "triton.jit"}):
                bound = frozenset(name for block in blocks[index:] for name in bound_names(block))
                return cls(body, tuple(visible), _named(visible, kernel.scope), bound)
        raise InternalError("a kernel stands in no block")


@dataclass(frozen=True, slots=True)
class Spelling:
    """The file's names for triton.language, its jit decorator and libdevice, and the import lines it lacks for them."""

    tl: str
    jit: str
    libdevice: str
    imports: tuple[str, ...]

    @classmethod
    def of(cls, around: Surroundings, jit: str, needs_libdevice: bool) -> Spelling:
        names, bound = around.names, around.bound
        imports: list[str] = []
        if jit.split(".")[0] not in bound:
            jit = "triton.jit"
            if "triton" not in names:
                imports.append("import triton")
        tl = names.get("triton.language") or (f"{names['triton']}.language" if "triton" in names else "")
        if not tl:
            tl = free("tl", bound)
            imports.append(f"import triton.language as {tl}")
        libdevice = next((names[module] for module in LIBDEVICE_MODULES if module in names), "")
        if needs_libdevice and not libdevice:
            libdevice = free("libdevice", bound)
            suffix = "" if libdevice == "libdevice" else f" as {libdevice}"
            imports.append(f"from triton.language.extra import libdevice{suffix}")
        return cls(tl, jit, libdevice, tuple(imports))


def free(wanted: str, taken: Iterable[str]) -> str:
    """`wanted`, or `wanted_2`, ... : the first that is not taken."""
    taken = set(taken)
    names = (wanted, *(f"{wanted}_{number}" for number in range(2, len(taken) + 3)))
    return next(name for name in names if name not in taken)


def names_in(file: SourceFile) -> frozenset[str]:
    """Every identifier of the file and every builtin: a name that is none of these shadows nothing anywhere."""
    found = set(dir(builtins))
    for node in nodes_in(file.tree):
        match node:
            case ast.Name(id=name) | ast.arg(arg=name) | ast.Attribute(attr=name):
                found.add(name)
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                found.add(name)
            case ast.alias(name=name, asname=asname):
                found.update({name.split(".")[0], asname or name})
            case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
                found.add(name)
    return frozenset(found)


def module_level(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements that run at import: those of `body` and, in it, of if, try and with blocks."""
    for statement in body:
        yield statement
        if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            continue
        for block in ("body", "orelse", "finalbody"):
            yield from module_level(getattr(statement, block, ()))
        for handler in getattr(statement, "handlers", ()):
            yield from module_level(handler.body)


def bound_names(body: Iterable[ast.stmt]) -> Iterator[str]:
    """The names that running `body` binds, without what its functions and classes bind for themselves."""
    for statement in module_level(body):
        match statement:
            case ast.Import(names=names) | ast.ImportFrom(names=names):
                yield from ((alias.asname or alias.name).split(".")[0] for alias in names)
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case _:
                found = (node for node in ast.walk(statement) if isinstance(node, ast.Name))
                yield from (node.id for node in found if not isinstance(node.ctx, ast.Load))


def import_statements(body: Iterable[ast.stmt]) -> list[ast.Import | ast.ImportFrom]:
    """The import statements that running `body` reaches, guarded ones among them, in order."""
    return [node for node in module_level(body) if isinstance(node, (ast.Import, ast.ImportFrom))]


def _named(statements: Iterable[ast.Import | ast.ImportFrom], scope: Scope) -> dict[str, str]:
    """{object of triton: the name that one of `statements` imports it under}."""
    found: dict[str, str] = {}
    for statement in statements:
        for alias in statement.names:
            name = alias.asname or alias.name.split(".")[0]
            resolved = scope.resolve(name) if name != "*" else None
            bound = binding_of(resolved.meaning, name) if resolved else None
            if isinstance(bound, TritonObject):
                found.setdefault(bound.dotted, name)
    return found
