"""The compiler process: reads lowering requests as JSON lines on stdin, answers each with one JSON line.

Run as `python -m kernel_rewrite.ttir.worker`. It alone imports triton, so a crash or a hang of the compiler costs one
answer, not the tool. It never executes the user's module: each jit function's definition is compiled on its own, its
body is only read by Triton's front end, and the names it uses are those the static closure resolved.

All code that depends on the Triton version lives here and in `lower.py`.
"""

from __future__ import annotations
import __future__ as future

import ast
import functools
import gc
import importlib
import inspect
import itertools
import json
import linecache
import os
import re
import sys
import types
import warnings
from typing import Any

_KEPT_FOR = 32
"""How many closures share MLIR's tables, which grow, and are kept before those that were dropped are looked for."""


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    # tl.static_print and the compiler's own chatter must not reach the answers.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.environ.pop("TRITON_INTERPRET", None)
    warnings.simplefilter("ignore")
    import triton

    _know_functions_by_identity()
    _keep_signatures()
    _count_statements()
    gc.freeze()  # what the imports made stays
    gc.disable()  # while a kernel is lowered all is in use
    print(json.dumps({"triton": triton.__version__}), file=answers, flush=True)
    loaded: dict[int, _Loaded] = {}
    closures = itertools.count(1)
    for line in sys.stdin:
        request = json.loads(line)
        if "closure" in request:
            loaded[request["place"]] = _Loaded(request["closure"])
            if next(closures) % _KEPT_FOR == 0:
                _contexts.clear()
                gc.collect()
            else:
                gc.collect(0)
            continue
        closure = loaded[request["place"]]
        _Statements.start(request.get("most"))
        try:
            answer = closure.failure or (_compile_whole if "options" in request else _lower)(closure, request)
        except Exception as error:  # whatever Triton's front end raises is the answer
            _contexts.clear()
            answer = {"failure": _describe(error, closure.jitted)}
        answer["statements"] = _Statements.count
        print(json.dumps(answer), file=answers, flush=True)


def _know_functions_by_identity() -> None:
    """Triton hashes a jit function by its source and all it uses, to name compiled files, and parses it at each call;
    here it is only looked up, and its source never changes."""
    import triton.runtime.jit as jit

    for name in ("JITCallable", "JITFunction", "ConstexprFunction"):
        kind = getattr(jit, name, None)
        if kind is None:
            continue
        if "__hash__" in vars(kind):
            kind.__hash__ = object.__hash__
        if "parse" in vars(kind):
            kind.parse = functools.lru_cache(maxsize=256)(kind.parse)


def _keep_signatures() -> None:
    """Triton asks for the signature of each builtin at each call of it, a tenth of the time it takes; they do not change."""
    fresh = inspect.signature
    kept = functools.lru_cache(maxsize=1024)(fresh)

    def signature(function: Any, **options: Any) -> inspect.Signature:
        plain = isinstance(function, types.FunctionType) and not options
        return kept(function) if plain else fresh(function, **options)

    inspect.signature = signature  # type: ignore[assignment]


class TooMany(Exception):
    """A kernel has more statements than were to be compiled."""


class _Statements:
    """How many statements Triton's front end went into since the last request, those of a loop once more to see what it
    changes, those of a static loop or a helper each time; and how many it may."""

    count = 0
    most: int | None = None

    @classmethod
    def start(cls, most: int | None) -> None:
        cls.count, cls.most = 0, most

    @classmethod
    def enter(cls, count: int) -> None:
        cls.count += count
        if cls.most is not None and cls.count > cls.most:
            raise TooMany(f"more than {cls.most} statements")


def _count_statements() -> None:
    from triton.compiler.code_generator import CodeGenerator

    visit = CodeGenerator.visit_compound_statement

    def visit_counted(generator: Any, statements: Any) -> Any:
        _Statements.enter(len(statements) if isinstance(statements, list) else 1)
        return visit(generator, statements)

    CodeGenerator.visit_compound_statement = visit_counted


class _Loaded:
    """A closure, as Triton's objects."""

    def __init__(self, closure: dict[str, Any]) -> None:
        self.jitted: Jitted = {}
        self.kernel: Any = None
        self.failure: dict[str, Any] | None = None
        try:
            self.kernel = _build(closure, self.jitted)
        except Exception as error:  # answered to each request for this closure
            self.failure = {"failure": _describe(error, self.jitted)}


# ------------------------------------------------------------------------------------- the closure, as Triton objects


Jitted = dict[tuple[str, str], Any]
"""The jit functions of a closure by (file, name)."""


def _build(closure: dict[str, Any], jitted: Jitted) -> Any:
    """Fill `jitted` with the closure's functions; the kernel among them."""
    import triton

    namespaces: dict[str, dict[str, Any]] = {}
    lines: dict[str, list[str]] = {}
    for file, text in closure["texts"].items():
        text = _newlines_as_read(text)
        _show_to_inspect(file, text)
        # Triton mangles a helper's name from its module's: two files must not share one.
        stem = os.path.splitext(os.path.basename(file))[0]
        namespaces[file] = {"__name__": f"{stem}_{len(namespaces)}", "__builtins__": __builtins__}
        lines[file] = text.split("\n")
    # Constants first: defaults are evaluated from them.
    for file, bindings in closure["bindings"].items():
        for name, value in bindings.items():
            if not _mentions_function(value):
                _bind(namespaces.setdefault(file, {}), name, value, {})
    kernel = closure["functions"][0]
    nodes = [_definition(lines[f["file"]], f["line"], f["end_line"]) for f in closure["functions"]]
    text = _without_unknown_defaults(lines[kernel["file"]], nodes[0], namespaces[kernel["file"]])
    _show_to_inspect(kernel["file"], text)
    for function, node in zip(closure["functions"], nodes, strict=True):
        file, name = function["file"], function["name"]
        plain = _compile(node, file, namespaces[file], set(function["constexpr_parameters"]))
        if function["constexpr_function"]:
            jitted[file, name] = triton.constexpr_function(plain)
        else:
            jitted[file, name] = triton.jit(**function["options"])(plain) if function["options"] else triton.jit(plain)
    for file, bindings in closure["bindings"].items():
        for name, value in bindings.items():
            if _mentions_function(value):
                _bind(namespaces[file], name, value, jitted)
    return jitted[kernel["file"], kernel["name"]]


def _newlines_as_read(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _show_to_inspect(file: str, text: str) -> None:
    """Let `inspect.getsource`, which Triton reads functions with, find this text."""
    lines = [line + "\n" for line in text.split("\n")]
    linecache.cache[file] = (len(text), None, lines, file)  # mtime None: never checked against the disk


def _definition(lines: list[str], first: int, last: int) -> ast.FunctionDef:
    """The function defined in the lines from `first` to `last`, counted from 1, with the positions it has there."""
    nested = lines[first - 1][:1].isspace()
    above = ["", *[""] * (first - 2)][: first - 1]
    if nested:
        above[-1] = "if True:"
    module = ast.parse("\n".join([*above, *lines[first - 1 : last]]))
    node = module.body[0].body[0] if isinstance(module.body[0], ast.If) else module.body[0]
    assert isinstance(node, ast.FunctionDef)
    return node


def _without_unknown_defaults(lines: list[str], kernel: ast.FunctionDef, namespace: dict[str, Any]) -> str:
    """The text of `lines` with `None` for what only running code could give in the kernel's head: every argument is passed,
    but Triton evaluates defaults and annotations all the same."""
    lines = [*lines]
    for group in (kernel.args.defaults, kernel.args.kw_defaults):
        for index, default in enumerate(group):
            if default is not None and not _is_known(default, namespace) and _blank(lines, default):
                group[index] = ast.copy_location(ast.Constant(None), default)
    arguments = (*kernel.args.posonlyargs, *kernel.args.args, *kernel.args.kwonlyargs)
    for annotation in (*(argument.annotation for argument in arguments), kernel.returns):
        if annotation is not None and any(isinstance(part, ast.Call) for part in ast.walk(annotation)):
            _blank(lines, annotation)
    return "\n".join(lines)


def _is_known(node: ast.expr, namespace: dict[str, Any]) -> bool:
    try:
        _default(node, namespace)
    except (NameError, AttributeError):
        return False
    return True


def _blank(lines: list[str], node: ast.expr) -> bool:
    """Put `None` where `node` stands, columns kept; False when it does not fit."""
    width = (node.end_col_offset or 0) - node.col_offset
    if node.lineno != node.end_lineno or width < len("None"):
        return False
    line = lines[node.lineno - 1].encode()
    lines[node.lineno - 1] = (line[: node.col_offset] + b"None".ljust(width) + line[node.end_col_offset :]).decode()
    return True


def _mentions_function(value: Any) -> bool:
    if isinstance(value, dict):
        return value.get("$") == "function" or any(_mentions_function(v) for v in value.values())
    return isinstance(value, list) and any(_mentions_function(v) for v in value)


class _Absent(Exception):
    """The installed Triton has no such object."""


def _bind(namespace: dict[str, Any], name: str, value: Any, jitted: Jitted) -> None:
    try:
        namespace[name] = decode(value, jitted)
    except _Absent:
        namespace.pop(name, None)


def decode(value: Any, jitted: Jitted) -> Any:
    """The Python object for an encoded binding or constexpr value (see `lower.encode`)."""
    if not isinstance(value, dict):
        return value
    kind = value["$"]
    if kind == "tuple":
        return tuple(decode(item, jitted) for item in value["items"])
    if kind == "list":
        return [decode(item, jitted) for item in value["items"]]
    if kind == "dict":
        return {decode(k, jitted): decode(v, jitted) for k, v in value["items"]}
    if kind == "float":
        return float(value["repr"])
    if kind == "dtype":
        return _triton_object("triton.language", value["name"])
    if kind == "triton":
        return _triton_object(value["module"], value["attribute"])
    if kind == "function":
        if (value["file"], value["name"]) not in jitted:
            raise _Absent(value["name"])
        return jitted[value["file"], value["name"]]
    if kind == "constexpr":
        return _triton_object("triton.language", "constexpr")(decode(value["value"], jitted))
    if kind == "namespace":
        module = types.ModuleType(value["name"])
        for name, member in value["members"].items():
            _bind(module.__dict__, name, member, jitted)
        return module
    if kind == "unresolved":
        raise _Absent(value["reason"])
    raise ValueError(f"unknown encoding {kind!r}")


def _triton_object(module: str, attribute: str) -> Any:
    assert module.split(".")[0] == "triton", module
    try:
        found: Any = importlib.import_module(module)
        for part in attribute.split(".") if attribute else ():
            found = getattr(found, part)
        return found
    except (ImportError, AttributeError) as error:
        raise _Absent(str(error)) from error


def _bind_annotations(node: ast.FunctionDef, namespace: dict[str, Any]) -> None:
    """Let Triton evaluate the annotations of defaulted parameters (`x: torch.Tensor = None`) without importing torch."""
    arguments = node.args
    for parameter in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
        for part in ast.walk(parameter.annotation) if parameter.annotation else ():
            if isinstance(part, ast.Attribute) and isinstance(part.value, ast.Name):
                module = namespace.setdefault(part.value.id, types.ModuleType(part.value.id))
                if type(module) is types.ModuleType and not module.__name__.startswith("triton"):
                    module.__dict__.setdefault(part.attr, int)
        for part in ast.walk(parameter.annotation) if parameter.annotation else ():
            if isinstance(part, ast.Name) and not hasattr(_builtins(), part.id):
                namespace.setdefault(part.id, types.ModuleType(part.id))


def _compile(node: ast.FunctionDef, file: str, namespace: dict[str, Any], constexpr_parameters: set[str]) -> Any:
    """The plain function of one definition: annotations reduced to what Triton reads, defaults folded."""
    arguments = node.args
    _bind_annotations(node, namespace)
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults = [_default(value, namespace) for value in arguments.defaults]
    keyword_defaults = {
        parameter.arg: _default(value, namespace)
        for parameter, value in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
        if value is not None
    }
    stripped = ast.FunctionDef(
        name=node.name,
        args=ast.arguments(
            posonlyargs=[_argument(a, constexpr_parameters) for a in arguments.posonlyargs],
            args=[_argument(a, constexpr_parameters) for a in arguments.args],
            vararg=_argument(arguments.vararg, set()) if arguments.vararg else None,
            kwonlyargs=[_argument(a, constexpr_parameters) for a in arguments.kwonlyargs],
            kw_defaults=[None if v is None else _none(v) for v in arguments.kw_defaults],
            kwarg=_argument(arguments.kwarg, set()) if arguments.kwarg else None,
            defaults=[_none(v) for v in arguments.defaults],
        ),
        body=node.body,
        decorator_list=[],
        returns=None,
        type_comment=None,
    )
    if sys.version_info >= (3, 12):
        stripped.type_params = []
    ast.copy_location(stripped, node)
    module = ast.Module([stripped], type_ignores=[])
    code = compile(module, file, "exec", flags=future.annotations.compiler_flag, dont_inherit=True)
    scope = dict(namespace)
    exec(code, scope)  # defines the function; nothing of the user's file is evaluated
    function = types.FunctionType(scope[node.name].__code__, namespace, node.name, tuple(defaults) or None)
    function.__kwdefaults__ = keyword_defaults or None
    function.__annotations__ = scope[node.name].__annotations__
    function.__module__ = namespace["__name__"]
    function.__qualname__ = node.name
    assert len(positional) >= len(defaults)
    return function


def _argument(argument: ast.arg, constexpr_parameters: set[str]) -> ast.arg:
    annotation = ast.Constant("tl.constexpr") if argument.arg in constexpr_parameters else None
    fresh = ast.arg(arg=argument.arg, annotation=annotation, type_comment=None)
    if annotation is not None:
        ast.copy_location(annotation, argument)
    return ast.copy_location(fresh, argument)


def _none(node: ast.expr) -> ast.Constant:
    return ast.copy_location(ast.Constant(None), node)


def _builtins() -> Any:
    return importlib.import_module("builtins")


def _default(node: ast.expr, namespace: dict[str, Any]) -> Any:
    """The value of a parameter's default: literals, names and attributes of what is bound, float("inf"), -x."""
    try:
        return ast.literal_eval(node)
    except ValueError:
        pass
    if isinstance(node, ast.Name) and node.id in namespace:
        return namespace[node.id]
    if isinstance(node, ast.Attribute):
        return getattr(_default(node.value, namespace), node.attr)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_default(node.operand, namespace)
    if isinstance(node, ast.Tuple):
        return tuple(_default(item, namespace) for item in node.elts)
    if isinstance(node, ast.Call) and len(node.args) == 1 and not node.keywords:
        argument = _default(node.args[0], namespace)
        if isinstance(node.func, ast.Name) and node.func.id in ("float", "int", "bool"):
            return getattr(_builtins(), node.func.id)(argument)
        constexpr = _triton_object("triton.language", "constexpr")
        if _default(node.func, namespace) is constexpr:
            return constexpr(argument)
    if isinstance(node, ast.Name) and node.id in ("float", "int", "bool"):
        return getattr(_builtins(), node.id)
    raise NameError(f"the default value {ast.unparse(node)!r} cannot be evaluated without running code")


# --------------------------------------------------------------------------------------------------------- lowering


_backends: dict[tuple[Any, ...], tuple[Any, Any, Any]] = {}


def _backend(target: list[Any]) -> tuple[Any, Any, Any]:
    from triton.backends.compiler import GPUTarget
    from triton.compiler import make_backend

    key = tuple(target)
    if key not in _backends:
        gpu = GPUTarget(*target)
        backend = make_backend(gpu)
        # Overflow checks add a quarter of dead arithmetic to the IR.
        _backends[key] = gpu, backend, backend.parse_options({"sanitize_overflow": False})
    return _backends[key]


def _lower(closure: _Loaded, request: dict[str, Any]) -> dict[str, Any]:
    from triton.compiler import ASTSource

    kernel, jitted = closure.kernel, closure.jitted
    target, backend, options = _backend(request["target"])
    _set_target(target)
    signature = {name: _signature_type(kind) for name, kind in request["signature"]}
    constexprs = {(kernel.arg_names.index(name),): decode(value, jitted) for name, value in request["constexprs"]}
    source = ASTSource(kernel, signature, constexprs)
    context = _context(backend, request["target"])
    functions = backend.get_codegen_implementation(options)
    return {"ttir": str(source.make_ir(target, options, functions, backend.get_module_map(), context))}


_contexts: dict[tuple[Any, ...], Any] = {}
"""MLIR's own tables (of types, attributes, places), by target."""


def _context(backend: Any, target: list[Any]) -> Any:
    from triton._C.libtriton import ir

    key = tuple(target)
    if key not in _contexts:
        _contexts[key] = ir.context()
        ir.load_dialects(_contexts[key])
        backend.load_dialects(_contexts[key])
    return _contexts[key]


def _compile_whole(closure: _Loaded, request: dict[str, Any]) -> dict[str, Any]:
    from triton.backends.compiler import GPUTarget

    from kernel_rewrite.ttir.machine_code import resources

    kernel, jitted = closure.kernel, closure.jitted
    target = GPUTarget(*request["target"])
    _set_target(target)
    signature = {name: _signature_type(kind) for name, kind in request["signature"]}
    constexprs = {(kernel.arg_names.index(name),): decode(value, jitted) for name, value in request["constexprs"]}
    return {"resources": resources(kernel, signature, constexprs, target, request["options"])}


def _set_target(target: Any) -> None:
    """What `tl.target_info.is_cuda()` and its kind ask: the target named, not the device that is (not) there."""
    try:
        from triton.language import target_info
    except ImportError:
        return
    target_info.current_target = lambda: target


def _signature_type(kind: Any) -> Any:
    return tuple(_signature_type(k) for k in kind) if isinstance(kind, list) else kind


# --------------------------------------------------------------------------------------------------------- failures


def _describe(error: BaseException, jitted: Jitted) -> dict[str, Any]:
    """What went wrong, where in the user's file, and the chain of calls that led there (innermost first)."""
    chain = []
    current: BaseException | None = error
    while current is not None:
        chain.append(current)
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
    places = []
    for link in reversed(chain):
        node, source = getattr(link, "node", None), getattr(link, "src", None)
        line = getattr(node, "lineno", None)
        if line is None or source is None:
            continue
        for (file, _), function in jitted.items():
            if getattr(function, "src", None) == source:
                start = getattr(function, "starting_line_number", None) or function.fn.__code__.co_firstlineno
                places.append([file, start + line - 1, getattr(node, "col_offset", 0)])
                break
    innermost = chain[-1]
    name = type(innermost).__name__
    message = str(getattr(innermost, "error_message", None) or str(innermost) or name)
    wrapped = _WRAPPED.fullmatch(message)
    if wrapped:
        name, message = wrapped[1], str(ast.literal_eval(wrapped[2]))
    kind = "long" if name == TooMany.__name__ else "rejected"
    return {"kind": kind, "error": name, "message": message, "places": places}


# Triton re-raises what a builtin raised as CompilationError(repr(error)).
_WRAPPED = re.compile(r"(\w+)\(((['\"]).*\3)\)", re.DOTALL)


if __name__ == "__main__":
    main()
