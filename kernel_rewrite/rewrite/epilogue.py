"""From planned stores and an epilogue to edits of the source: the stored expressions, helper functions, clones, imports."""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import libcst as cst

from kernel_rewrite.analysis import Analysis
from kernel_rewrite.diagnostics import Diagnostic, FusionRefused, Label
from kernel_rewrite.model import Closure, Edit, Function, FunctionRef, Span, TritonObject
from kernel_rewrite.pointwise.language import Emission, Pointwise, emit
from kernel_rewrite.rewrite.edits import apply_edits, insertion
from kernel_rewrite.rewrite.stores import StorePlan, StoreSite
from kernel_rewrite.rewrite.unchanged import Clone
from kernel_rewrite.source.accesses import HelperCall
from kernel_rewrite.source.expressions import grouped, replace_argument, substitute
from kernel_rewrite.source.files import Project, SourceFile
from kernel_rewrite.source.names import Scope, binding_of, module_scope
from kernel_rewrite.source.pointer_flow import bound_arguments

# Stands for the stored value while the expression is built; no identifier of a real program.
_VALUE = "__stored_value__"

LIBDEVICE_MODULES = (
    "triton.language.extra.libdevice",
    "triton.language.extra.cuda.libdevice",
    "triton.language.math",
)


@dataclass(frozen=True, slots=True)
class Spelling:
    """How the file spells what an epilogue needs, and the import lines it lacks."""

    tl: str
    jit: str
    libdevice: str
    imports: tuple[str, ...]

    @classmethod
    def of(cls, file: SourceFile, project: Project, jit: str, needs_libdevice: bool) -> Spelling:
        names = _module_names(file, module_scope(file, project))
        imports = []
        tl = names.get("triton.language") or (f"{names['triton']}.language" if "triton" in names else "")
        if not tl:
            tl = _free("tl", names_in(file))
            imports.append("import triton.language as tl" if tl == "tl" else f"import triton.language as {tl}")
        libdevice = next((names[m] for m in LIBDEVICE_MODULES[:2] if m in names), "")
        if needs_libdevice and not libdevice:
            libdevice = _free("libdevice", names_in(file))
            suffix = "" if libdevice == "libdevice" else f" as {libdevice}"
            imports.append(f"from triton.language.extra import libdevice{suffix}")
        return cls(tl, jit, libdevice, tuple(imports))


def names_in(file: SourceFile) -> frozenset[str]:
    """Every identifier of the file and every builtin: a fresh name is none of these."""
    found = set(dir(builtins))
    for node in ast.walk(file.tree):
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


@dataclass(frozen=True, slots=True)
class Rewrite:
    """The edits that carry out `plans`, and the copies of helpers among them."""

    plans: tuple[StorePlan, ...]
    edits: tuple[Edit, ...]
    clones: tuple[Clone, ...]


def references(file: SourceFile, closure: Closure) -> frozenset[tuple[FunctionRef, int, int]]:
    """Where the kernel's file names a helper that it defines itself: (helper, line, column of the name)."""
    helpers = {f.name: f.ref for f in closure.functions[1:] if f.ref.file == file.path}
    found = set()
    for node in ast.walk(file.tree):
        match node:
            case ast.Name(id=name) if name in helpers:
                found.add((helpers[name], node.lineno, node.col_offset))
            case ast.Attribute(attr=name) if name in helpers:
                assert node.end_lineno is not None and node.end_col_offset is not None
                found.add((helpers[name], node.end_lineno, node.end_col_offset - len(name.encode())))
            case ast.Constant(value=str(name)) if name in helpers:  # __all__
                found.add((helpers[name], node.lineno, node.col_offset))
    return frozenset(found)


def epilogue_edits(
    plans: Iterable[tuple[StorePlan, Pointwise]], analysis: Analysis, numerics: str
) -> Rewrite:
    """The edits of the kernel's file that make each plan's stores store E(value).

    Raises FusionRefused(KR213) for a store that cannot be edited, or a helper of another file that cannot be copied here.
    """
    closure, project = analysis.closure, analysis.project
    file, jit = analysis.kernel.file, analysis.kernel.jit_spelling
    plans = tuple(plans)
    spelling = Spelling.of(file, project, jit, any(p.needs_libdevice for _, p in plans))
    taken = set(names_in(file))
    edits: list[Edit] = []
    clones: list[Clone] = []
    above_kernel: dict[str, str] = {}
    imports = list(spelling.imports)
    for plan, pointwise in plans:
        emission = emit(
            pointwise, _VALUE, tl=spelling.tl, libdevice=spelling.libdevice, jit=spelling.jit, taken_names=taken
        )
        for helper in emission.helpers:
            above_kernel[helper.name] = helper.text
            taken.add(helper.name)
        names = {}
        for helper_ref in plan.clones:
            names[helper_ref] = _free(f"{helper_ref.name}_{pointwise.name}", taken)
            taken.add(names[helper_ref])
        rewriter = _Rewriter(plan, pointwise, emission, analysis, numerics, names)
        edits += rewriter.in_place()
        for helper_ref, name in names.items():
            clones.append(Clone(plan, helper_ref, name))
            clone = rewriter.clone(helper_ref)
            if helper_ref.file == file.path:
                edits.append(_after(file, closure.function(helper_ref), clone))
            else:
                above_kernel[name] = clone
                imports += rewriter.imports_for(helper_ref)
    edits += _above(file, closure.kernel, above_kernel.values())
    edits += _import_edits(file, dict.fromkeys(imports))
    return Rewrite(tuple(plan for plan, _ in plans), tuple(edits), tuple(clones))


class _Rewriter:
    """The edits for one output."""

    def __init__(
        self,
        plan: StorePlan,
        pointwise: Pointwise,
        emission: Emission,
        analysis: Analysis,
        numerics: str,
        clone_names: dict[FunctionRef, str],
    ) -> None:
        self._plan = plan
        self._pointwise = pointwise
        self._emission = emission
        self._closure = analysis.closure
        self._calls = analysis.calls
        self._flow = analysis.flow
        self._file = analysis.kernel.file
        self._project = analysis.project
        self._numerics = numerics
        self._clone_names = clone_names
        self._tl = Spelling.of(self._file, self._project, "", False).tl
        self._scalars = {fact.name for fact in analysis.facts if fact.kind == "scalar"}

    def in_place(self) -> list[Edit]:
        """Edits of the kernel and of the helpers that need no copy."""
        functions = [f for f in self._closure.functions if f.ref not in self._clone_names]
        return [edit for function in functions for edit in self._edits_of(function)]

    def clone(self, ref: FunctionRef) -> str:
        """The text of a copy of the helper under its new name, its stores and calls rewritten."""
        function = self._closure.function(ref)
        assert function is not None
        file = self._file_of(ref)
        node = function.node
        rename = Edit(_name_span(file, node), self._clone_names[ref], "a copy for this output")
        text = apply_edits(file, [*self._edits_of(function), rename], _definition_span(file, node))
        return _dedented(text.replace("\r\n", "\n"), function.nesting) + "\n"

    def imports_for(self, ref: FunctionRef) -> list[str]:
        """Import lines that give a copy of another file's helper the names it uses there."""
        needed = []
        scope = module_scope(self._file, self._project)
        for name, meaning in self._closure.bindings.get(ref.file, {}).items():
            if not _uses_name(self._closure.function(ref), name):
                continue
            here = scope.resolve(name)
            if here is not None and binding_of(here.meaning, name) == meaning:
                continue
            line = None if here is not None else _import_line(name, meaning, ref, self._closure, self._file)
            if line is None:
                raise FusionRefused((self._cannot_copy(ref, name),))
            needed.append(line)
        return needed

    def _cannot_copy(self, ref: FunctionRef, name: str) -> Diagnostic:
        function = self._closure.function(ref)
        assert function is not None
        span = _name_span(self._file_of(ref), function.node)
        return Diagnostic(
            "KR213",
            f"the store stands in `{ref.name}` of another file, which cannot be copied here",
            (Label(span, f"it uses `{name}`, which means something else, or nothing, in the kernel's file"),),
            help=f"move `{ref.name}` into the kernel's file, or rewrite {ref.file} itself",
        )

    def _file_of(self, ref: FunctionRef) -> SourceFile:
        file = self._file if ref.file == self._file.path else self._project.file(ref.file)
        assert file is not None
        return file

    def _edits_of(self, function: Function) -> list[Edit]:
        sites = [self._store(site, function) for site in self._plan.sites if site.call.function == function.ref]
        calls = [self._redirect(call) for call in self._plan.redirected if call.function == function.ref]
        return [*sites, *calls]

    # tl.store(pointer, VALUE, mask=m) -> tl.store(pointer, E(VALUE), mask=m)
    def _store(self, site: StoreSite, function: Function) -> Edit:
        file = self._file_of(function.ref)
        value = site.call.value(site.form)
        assert value is not None
        cast = self._cast(site, value, function)

        def rebuild(node: cst.BaseExpression) -> cst.BaseExpression:
            return substitute(self._emission.expression, _VALUE, substitute(cast, _VALUE, node) if cast else node)

        text = replace_argument(file.slice(site.call.span), _position(site.call.node, value), rebuild)
        return Edit(site.call.span, text, f"store {self._pointwise.name} of the value")

    def _cast(self, site: StoreSite, value: ast.expr, function: Function) -> str:
        """The expression that brings the stored value to the buffer's type first, as the unfused pair does."""
        commutes = self._pointwise.commutes_with_rounding and site.only_narrows_floats
        literal = self._is_compile_time(value, function)
        if not literal and (commutes or self._numerics == "fused" or not site.rounds):
            return ""
        element_type = site.form.element_type.format(self._pointer_name(site, function))
        if literal:  # a Python number has no .to and no dtype, and Python would compute with it
            return f"{self._tl}.cast({_VALUE}, {element_type})"
        return f"{_VALUE}.to({element_type})"

    def _pointer_name(self, site: StoreSite, function: Function) -> str:
        """An expression without effects, in scope at the store, that has the buffer's element type."""
        output = self._plan.output
        pointer = site.call.pointer(site.form)
        assert pointer is not None
        if site.form.stores_through_descriptor:  # desc.store(offsets, value)
            name = ast.unparse(pointer) if isinstance(pointer, (ast.Name, ast.Attribute, ast.Subscript)) else ""
        elif function.ref == self._closure.kernel.ref and not _is_assigned(output, function):
            name = output
        else:
            name = _pointer_operand(
                pointer, lambda node: output.split("[")[0] in self._flow.roots(node, site.call.node, function)
            )
        if not name:
            label = Label(site.call.span, "its pointer is not a name, or a name plus offsets")
            message = f"the element type of `{output}` cannot be spelled at this store"
            help_text = "give the pointer a name on a line of its own, and store through that name"
            raise FusionRefused((Diagnostic("KR213", message, (label,), help=help_text),))
        return name

    def _is_compile_time(self, value: ast.expr, function: Function) -> bool:
        """Whether the value may be a Python number: computed from literals, constexprs and scalar arguments alone (Triton
        makes a constexpr of an integer argument that is 1)."""
        if any(isinstance(c, ast.Call) and not _is_number_call(c) for c in ast.walk(value)):
            return False
        assigned = {n.id for s in function.node.body for n in ast.walk(s) if isinstance(n, ast.Name) and _stored(n)}
        names = {n.id for n in ast.walk(value) if isinstance(n, ast.Name)} - {"float", "int"}
        return all(name not in assigned and self._may_be_number(name, function) for name in names)

    def _may_be_number(self, name: str, function: Function) -> bool:
        if name not in function.parameters or name in self._closure.constexpr_parameters(function):
            return True
        if function.ref == self._closure.kernel.ref:
            return name in self._scalars
        for caller in self._closure.functions:
            for call in self._calls.helper_calls_of(caller.ref):
                if call.callee == function.ref and caller.ref != function.ref:
                    arguments = dict(bound_arguments(call.node, function))
                    if name not in arguments or self._is_compile_time(arguments[name], caller):
                        return True
        return False

    def _redirect(self, call: HelperCall) -> Edit:
        function = call.node.func
        span = Span.of(call.function.file, function)
        return Edit(span, self._clone_names[call.callee], "call the copy made for this output")


# ------------------------------------------------------------------------------------------------------- small readings


def _position(call: ast.Call, value: ast.expr) -> int | str:
    for index, argument in enumerate(call.args):
        if argument is value:
            return index
    return next(k.arg for k in call.keywords if k.value is value and k.arg is not None)


def _pointer_operand(pointer: ast.expr, is_pointer: object) -> str:
    """`out` of `out + offsets`, `offsets + out`, `(out + row) + offsets`."""
    assert callable(is_pointer)
    if isinstance(pointer, ast.Name):
        return pointer.id if is_pointer(pointer) else ""
    if isinstance(pointer, ast.BinOp) and isinstance(pointer.op, (ast.Add, ast.Sub)):
        return _pointer_operand(pointer.left, is_pointer) or _pointer_operand(pointer.right, is_pointer)
    return ""


def _stored(node: ast.Name) -> bool:
    return not isinstance(node.ctx, ast.Load)


def _is_assigned(name: str, function: Function) -> bool:
    nodes = (n for statement in function.node.body for n in ast.walk(statement))
    return any(isinstance(n, ast.Name) and n.id == name and _stored(n) for n in nodes)


def _is_number_call(call: ast.Call) -> bool:
    """`float("inf")`, `int(x)`."""
    return isinstance(call.func, ast.Name) and call.func.id in ("float", "int") and len(call.args) == 1


def _uses_name(function: Function | None, name: str) -> bool:
    assert function is not None
    nodes = (*ast.walk(function.node.args), *(n for s in function.node.body for n in ast.walk(s)))
    return any(isinstance(n, ast.Name) and n.id == name for n in nodes)


def _free(wanted: str, taken: Iterable[str]) -> str:
    taken = set(taken)
    names = (wanted, *(f"{wanted}_{number}" for number in range(2, len(taken) + 3)))
    return next(name for name in names if name not in taken)


def _module_names(file: SourceFile, scope: Scope) -> dict[str, str]:
    """{module of triton: the name the file's top level gives it}."""
    found: dict[str, str] = {}
    for node in file.tree.body:
        if not isinstance(node, (ast.Import, ast.ImportFrom)):
            continue
        for alias in node.names:
            name = alias.asname or alias.name.split(".")[0]
            resolved = scope.resolve(name) if name != "*" else None
            bound = binding_of(resolved.meaning, name) if resolved else None
            if isinstance(bound, TritonObject):
                found.setdefault(bound.dotted, name)
    return found


def _import_line(
    name: str, meaning: object, ref: FunctionRef, closure: Closure, file: SourceFile
) -> str | None:
    """The import that gives the kernel's file `name` as the helper's own file has it."""
    if isinstance(meaning, TritonObject):
        module, _, last = meaning.dotted.rpartition(".")
        return f"from {module} import {last}" + (f" as {name}" if name != last else "") if module else f"import {name}"
    # The names of the module that the helper itself is imported from.
    for node in ast.walk(file.tree):
        if isinstance(node, ast.ImportFrom) and any(alias.name == ref.name for alias in node.names):
            return f"from {'.' * node.level}{node.module or ''} import {name}"
    return None


# ------------------------------------------------------------------------------------------------ places in the file


def _definition_span(file: SourceFile, node: ast.FunctionDef) -> Span:
    """From the start of the first decorator's line to the end of the body."""
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    assert node.end_lineno is not None and node.end_col_offset is not None
    return Span(file.path, first, 0, node.end_lineno, node.end_col_offset)


def _name_span(file: SourceFile, node: ast.FunctionDef) -> Span:
    line_start = file.offset(node.lineno, 0)
    match = re.compile(r"def\s+").search(file.text, file.offset(node.lineno, node.col_offset))
    assert match is not None
    column = len(file.text[line_start : match.end()].encode())
    return Span(file.path, node.lineno, column, node.lineno, column + len(node.name.encode()))


def _dedented(text: str, columns: int) -> str:
    if not columns:
        return text
    return "\n".join(line[columns:] if not line[:columns].strip() else line for line in text.split("\n"))


def _newline(file: SourceFile) -> str:
    return "\r\n" if "\r\n" in file.text else "\n"


def _after(file: SourceFile, function: Function | None, text: str) -> Edit:
    """Put a definition below another one of the same file, at the same depth."""
    assert function is not None
    node = function.node
    assert node.end_lineno is not None and node.end_col_offset is not None
    blank = "\n" if function.nesting else "\n\n"
    crowded = _line(file, node.end_lineno + 1).strip() != ""  # code follows without an empty line
    edit_text = "\n" + blank + _indented(text.rstrip("\n"), function.nesting) + (blank if crowded else "")
    edit_text = edit_text.replace("\n", _newline(file))
    return insertion(file.path, node.end_lineno, node.end_col_offset, edit_text, "a copy for this output")


def _indented(text: str, columns: int) -> str:
    return "\n".join(" " * columns + line if line else line for line in text.split("\n")) if columns else text


def _above(file: SourceFile, kernel: Function, texts: Iterable[str]) -> Iterator[Edit]:
    """Put helper functions above the top-level statement that holds the kernel."""
    block = "".join(text.rstrip("\n") + "\n\n\n" for text in texts)
    if not block:
        return
    statement = next(s for s in file.tree.body if s.lineno <= kernel.node.lineno <= (s.end_lineno or s.lineno))
    decorators = getattr(statement, "decorator_list", [])
    line = _above_comments(file, min([statement.lineno, *(d.lineno for d in decorators)]))
    if line > 1 and _line(file, line - 1).strip():
        block = "\n\n" + block
    yield insertion(file.path, line, 0, block.replace("\n", _newline(file)), "helpers of the epilogue")


def _above_comments(file: SourceFile, line: int) -> int:
    """The first line of the comment block that stands directly above `line`."""
    while line > 1 and _line(file, line - 1).startswith("#") and "kernel-rewrite" not in _line(file, line - 1):
        line -= 1
    return line


def _line(file: SourceFile, line: int) -> str:
    """A line's text; "" past the end of the file. Lines end where `ast` ends them."""
    if line > len(file.line_starts):
        return ""
    end = file.line_starts[line] if line < len(file.line_starts) else len(file.text)
    return file.text[file.line_starts[line - 1] : end]


def _import_edits(file: SourceFile, imports: Iterable[str]) -> Iterator[Edit]:
    lines = tuple(imports)
    if not lines:
        return
    text = "".join(line + _newline(file) for line in lines)
    yield insertion(file.path, _line_after_imports(file), 0, text, "the epilogue needs it")


def _line_after_imports(file: SourceFile) -> int:
    """The line below the last top-level import of triton, or else of anything, or else the docstring."""
    imports = [node for node in file.tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
    of_triton = [node for node in imports if "triton" in ast.unparse(node)]
    first = file.tree.body[0]
    docstring = [first] if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) else []
    last = (of_triton or imports or docstring or [None])[-1]
    return (last.end_lineno or last.lineno) + 1 if last is not None else 1
