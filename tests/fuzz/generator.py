"""Random kernel files: `program(chance)` is a whole file, what the tool is told about it, and how to launch it.

Every choice is drawn from one `random.Random`, so a seed names a file for ever and hypothesis can steer the choices.
The files are valid for Triton's front end and for its interpreter. Types are tracked while writing (block or scalar,
element type), because a loop may only carry a name that keeps its type; which buffer a pointer comes from is not: that
is for the judge to observe and for the tool to prove. `may_read` is the one exception, a flow-insensitive bound on what
any load of the text could reach, to tell a refusal that was too careful from a branch that no launch took.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

SIZE = 512
"""Elements of every buffer; offsets stay far below, and the judge turns off the lanes of those that do not."""

TORCH_DTYPE = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16", "i32": "int32"}


@dataclass(frozen=True)
class Buffer:
    """A pointer parameter. `allocation` is the launcher's expression for it, "" when the caller passes it in."""

    name: str
    dtype: str
    role: str  # "in" | "out" | "inout" | "atomic" | "index": what the generator mostly does with it
    allocation: str = ""


@dataclass(frozen=True)
class Launch:
    """One run: values of the scalars and of the constexprs the caller gives, the autotune configuration, input seed."""

    scalars: tuple[tuple[str, object], ...]
    constexprs: tuple[tuple[str, object], ...]
    configuration: int
    seed: int


@dataclass(frozen=True)
class Program:
    """A generated file. With a `launcher` the kernel is only reached through it; else it is launched directly."""

    text: str
    buffers: tuple[Buffer, ...]
    dtypes: tuple[str, ...]  # `--dtype` options
    launcher: bool
    launches: tuple[Launch, ...]
    may_read: frozenset[str]
    features: tuple[str, ...]


@dataclass(frozen=True)
class _Pointer:
    name: str
    dtype: str
    block: bool  # a tensor of BLOCK pointers, or one
    role: str
    mutable: bool = True


@dataclass(frozen=True)
class _Helper:
    """A helper and how it is called: `store(ptr, offs, value, n)`, `load(ptr, offs, n)`, `at(ptr, offs)`, ..."""

    name: str
    kind: str


@dataclass
class _Scope:
    """The names usable at one place of the kernel."""

    pointers: list[_Pointer] = field(default_factory=list)
    values: list[tuple[str, str]] = field(default_factory=list)  # (name, element type or "mixed")
    totals: list[str] = field(default_factory=list)  # float32 blocks that may be reassigned
    offsets: list[str] = field(default_factory=list)
    masks: list[str] = field(default_factory=list)
    integers: list[str] = field(default_factory=list)

    def inner(self) -> _Scope:
        return _Scope(*(list(part) for part in vars(self).values()))


_FLAG_NAMES = ("ACCUMULATE", "HAS_BIAS", "EVEN", "SWAP")


class _Writer:
    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.lines: list[str] = []
        self.indent = 1
        self.numbers = itertools.count()
        self.features: set[str] = set()
        self.helpers: list[_Helper] = []
        self.helper_text: list[str] = []
        self.flows: set[tuple[str, str]] = set()
        self.loaded: set[str] = set()
        self.stored: set[str] = set()
        self.loops = 0

    # ---------------------------------------------------------------------------------------------------- small words

    def maybe(self, probability: float) -> bool:
        return self.chance.randrange(1000) < probability * 1000

    def pick(self, *choices: object) -> str:
        return str(self.chance.choice(choices))

    def new(self, stem: str) -> str:
        return f"{stem}{next(self.numbers)}"

    def line(self, text: str) -> None:
        self.lines.append("    " * self.indent + text)

    @contextlib.contextmanager
    def block(self, head: str) -> Iterator[None]:
        self.line(head)
        self.indent += 1
        before = len(self.lines)
        yield
        if len(self.lines) == before:
            self.line("pass")
        self.indent -= 1

    # ------------------------------------------------------------------------------------------------------ the program

    def program(self) -> Program:
        self.buffers = self.make_buffers()
        self.flags = {name: (False, True) for name in _FLAG_NAMES[: self.chance.randrange(3)]}
        self.modes = (0, 1, 2) if self.maybe(0.3) else ()
        self.make_helpers()
        self.kernel_body()
        return self.file()

    def make_buffers(self) -> list[Buffer]:
        names = ["x_ptr", "y_ptr", "out_ptr", "res_ptr"]
        count = 2 + self.chance.randrange(3)
        kinds = ["fp32", "fp16", "bf16"]
        dtype = self.pick("fp32", *kinds)
        mixed = self.maybe(0.3)
        buffers = []
        for index in range(count):
            name = names[(index * 2 + (0 if index < 2 else 1)) % 4] if count < 4 else names[index]
            written = name in ("out_ptr", "res_ptr")
            usual = ("out", "out", "out", "out", "inout", "atomic") if written else ("in", "in", "in", "out", "inout")
            role = self.pick(*usual)
            own = self.pick(*kinds, "i32") if mixed else dtype
            buffers.append(Buffer(name, "fp32" if role == "atomic" and own != "i32" else own, role))
        if self.maybe(0.4):
            buffers.append(Buffer("idx_ptr", "i32", "index"))
        return buffers

    # ---------------------------------------------------------------------------------------------------------- helpers

    def make_helpers(self) -> None:
        kinds = ["store", "store", "load", "at", "choose", "exchange", "copy", "bump", "atomic"]
        for _ in range(self.chance.randrange(5)):
            kind = self.pick(*kinds)
            if kind in ("bump", "atomic") and self.maybe(0.7):
                kind = "store"
            self.make_helper(kind)

    def make_helper(self, kind: str) -> None:
        name = f"{ {'store': 'put', 'load': 'get'}.get(kind, kind) }_{next(self.numbers)}"
        body = self.helper_body(kind, name)
        parameters = {
            "store": "ptr, offs, value, n",
            "load": "ptr, offs, n",
            "at": "ptr, offs",
            "choose": "left, right, which",
            "exchange": "left, right",
            "copy": "to, source, offs, n",
            "bump": "ptr, offs, n",
            "atomic": "ptr, offs, value, n",
        }[kind]
        self.helper_text += ["@triton.jit", f"def {name}({parameters}):", *(f"    {line}" for line in body), "", ""]
        self.helpers.append(_Helper(name, kind))
        self.features.add(f"helper {kind}")

    def flow(self, source: str, to: str) -> None:
        self.flows.add((source, to))

    def helper_body(self, kind: str, name: str) -> list[str]:
        made: list[str] = getattr(self, f"_{kind}_helper")(name)
        return made

    def earlier(self, kind: str) -> str | None:
        found = [h.name for h in self.helpers if h.kind == kind]
        return self.chance.choice(found) if found and self.maybe(0.6) else None

    def _store_helper(self, name: str) -> list[str]:
        inner = self.earlier("store")
        at = self.earlier("at")
        if inner:
            self.features.add("helper chain")
            self.flow(f"{name}.ptr", f"{inner}.ptr")
            body = [f"{inner}(ptr, offs, value, n)"]
            if self.maybe(0.4):
                body.append(f"{inner}(ptr + {self.pick(1, 'n', 32)}, offs, value * 2, n)")
            return body
        if at and self.maybe(0.7):
            self.flow(f"{name}.ptr", f"{at}.ptr")
            return [f"tl.store({at}(ptr, offs), value, mask=offs < n)"]
        shape = self.chance.randrange(7)
        if shape == 0:
            return ["place = ptr + offs", "tl.store(place, value, mask=offs < n)"]
        if shape == 1:
            test = self.pick("n > 20", "n % 2 == 0")
            other = "tl.store(ptr + offs, value * 2, mask=offs < n)"
            return [f"if {test}:", "    tl.store(ptr + offs, value)", "else:", f"    {other}"]
        if shape == 2:
            step = self.pick("j", "j * 16")
            return ["for j in range(2):", f"    tl.store(ptr + offs + {step}, value * 0.5, mask=offs < n)"]
        if shape == 3:
            return ["if n < 9:", "    return", "tl.store(ptr + offs, value, mask=offs < n)"]
        if shape == 4:
            body = ["place = ptr + offs", "for j in range(n // 16):", "    tl.store(place, value, mask=offs < n)"]
            return [*body, "    place += 16"]
        if shape == 5 and self.maybe(0.3):
            self.loaded.add(f"{name}.ptr")
            return ["old = tl.load(ptr + offs, mask=offs < n)", "tl.store(ptr + offs, value + old, mask=offs < n)"]
        return ["tl.store(ptr + offs, value, mask=offs < n)"]

    def _load_helper(self, name: str) -> list[str]:
        inner = self.earlier("load")
        if inner:
            self.features.add("helper chain")
            self.flow(f"{name}.ptr", f"{inner}.ptr")
            return [f"return {inner}(ptr, offs, n) + 1"]
        self.loaded.add(f"{name}.ptr")
        if self.maybe(0.3):
            return ["place = ptr + offs", "value = tl.load(place, mask=offs < n, other=0)", "return value"]
        return ["return tl.load(ptr + offs, mask=offs < n, other=0)"]

    def _at_helper(self, name: str) -> list[str]:
        self.flow(f"{name}.ptr", f"{name}()")
        if self.maybe(0.2):
            return ["ptr += 0", "return ptr + offs"]
        return ["return ptr + offs"]

    def _choose_helper(self, name: str) -> list[str]:
        self.flow(f"{name}.left", f"{name}()")
        self.flow(f"{name}.right", f"{name}()")
        if self.maybe(0.5):
            return ["if which:", "    chosen = left", "else:", "    chosen = right", "return chosen"]
        return ["chosen = left", "if which:", "    chosen = right", "return chosen"]

    def _exchange_helper(self, name: str) -> list[str]:
        for parameter in ("left", "right"):
            self.flow(f"{name}.{parameter}", f"{name}()")
        return ["return right, left"]

    def _copy_helper(self, name: str) -> list[str]:
        load, store = self.earlier("load"), self.earlier("store")
        value = f"{load}(source, offs, n)" if load else "tl.load(source + offs, mask=offs < n)"
        if load:
            self.flow(f"{name}.source", f"{load}.ptr")
        else:
            self.loaded.add(f"{name}.source")
        if store:
            self.flow(f"{name}.to", f"{store}.ptr")
            return [f"{store}(to, offs, {value}, n)"]
        return [f"value = {value}", "tl.store(to + offs, value, mask=offs < n)"]

    def _bump_helper(self, name: str) -> list[str]:
        self.loaded.add(f"{name}.ptr")
        return ["value = tl.load(ptr + offs, mask=offs < n)", "tl.store(ptr + offs, value + 1, mask=offs < n)"]

    def _atomic_helper(self, name: str) -> list[str]:
        self.loaded.add(f"{name}.ptr")
        return ["tl.atomic_add(ptr + offs, value, mask=offs < n)"]

    # ------------------------------------------------------------------------------------------------------- the kernel

    def kernel_body(self) -> None:
        self.line("pid = tl.program_id(0)")
        self.line("offs = pid * BLOCK + tl.arange(0, BLOCK)")
        self.line("mask = offs < n")
        scope = _Scope(offsets=["offs"], masks=["mask"], integers=["n", "m", "pid"])
        for buffer in self.buffers:
            scope.pointers.append(_Pointer(buffer.name, buffer.dtype, False, buffer.role, self.maybe(0.4)))
        if any(b.name == "idx_ptr" for b in self.buffers):
            self.loaded.add("idx_ptr")
            self.line("where = tl.load(idx_ptr + offs, mask=mask, other=0)")
            scope.offsets.append("where")
        self.load(scope)
        if self.maybe(0.25):
            self.early_return(scope)
        for _ in range(3 + self.chance.randrange(6)):
            self.statement(scope, 0)
        for buffer in self.buffers:
            if buffer.role == "out" and self.maybe(0.9 if buffer.name not in self.stored else 0.2):
                pointer = next(p for p in scope.pointers if p.name == buffer.name)
                self.store(scope, pointer)

    def statement(self, scope: _Scope, depth: int) -> None:
        simple: list[Callable[[_Scope], None]] = [
            *([self.load] * 3 + [self.store] * 7 + [self.local_pointer] * 3 + [self.advance] * 2),
            *([self.swap] * 2 + [self.reassign, self.total, self.add_total, self.offset, self.compute]),
            *([self.call_helper] * 5 if self.helpers else []),
            *([self.atomic, self.read_modify_write, self.select_pointer, self.chosen_pointer, self.scalar_store]),
            self.odd,
        ]
        nested: list[Callable[[_Scope, int], None]] = [
            *(self.branch, self.branch, self.constexpr_branch, self.for_loop, self.for_loop, self.while_loop),
            *([self.ping_pong] if self.maybe(0.4) else []),
        ]
        choices = [functools.partial(made, scope) for made in simple]
        if depth < 3:
            choices += [functools.partial(made, scope, depth) for made in nested * (2 if depth == 0 else 1)]
        self.chance.choice(choices)()

    def body(self, scope: _Scope, depth: int) -> None:
        for _ in range(1 + self.chance.randrange(3)):
            self.statement(scope, depth + 1)

    # -- control flow

    def condition(self, scope: _Scope) -> str:
        tests = ["n > 20", "n % 2 == 0", "pid == 0", "m == 2", "m > 1", "(n > 10) & (pid < 2)", "s > 0.5", "n != m"]
        return self.pick(*tests, *(f"{i} > 0" for i in scope.integers[3:]))

    def branch(self, scope: _Scope, depth: int) -> None:
        self.features.add("branch")
        with self.block(f"if {self.condition(scope)}:"):
            self.body(scope.inner(), depth)
        if self.maybe(0.15):
            with self.block(f"elif {self.condition(scope)}:"):
                self.body(scope.inner(), depth)
        if self.maybe(0.5):
            with self.block("else:"):
                self.body(scope.inner(), depth)

    def constexpr_branch(self, scope: _Scope, depth: int) -> None:
        if not self.flags and not self.modes:
            self.branch(scope, depth)
            return
        self.features.add("constexpr branch")
        if self.modes and (not self.flags or self.maybe(0.4)):
            with self.block("if MODE == 0:"):
                self.body(scope.inner(), depth)
            with self.block("elif MODE == 1:"):
                self.body(scope.inner(), depth)
        else:
            flag = self.pick(*self.flags)
            tests = [flag, flag, f"not {flag}", f"{flag} == True"]
            if self.modes:
                tests.append(f"{flag} and MODE != 1")
            if len(self.flags) > 1:
                tests.append(f"{' and '.join(self.flags)}")
            with self.block(f"if {self.pick(*tests)}:"):
                self.body(scope.inner(), depth)
        if self.maybe(0.5):
            with self.block("else:"):
                self.body(scope.inner(), depth)

    def for_loop(self, scope: _Scope, depth: int) -> None:
        if self.loops >= 2:
            self.store(scope)
            return
        self.features.add("for loop")
        i = self.new("i")
        static = self.maybe(0.35)
        over = (
            self.pick("tl.static_range(2)", "tl.static_range(STEPS)", "tl.static_range(0, STEPS, 1)")
            if static
            else (
                self.pick(
                    "range(m)", "range(0, m)", "range(1, m + 1)", "range(0, n, BLOCK)", "range(2)", "tl.range(0, m)"
                )
            )
        )
        if static:
            self.features.add("static_range")
        self.loops += 1
        with self.block(f"for {i} in {over}:"):
            inner = scope.inner()
            inner.integers.append(i)
            self.body(inner, depth)
        self.loops -= 1

    def while_loop(self, scope: _Scope, depth: int) -> None:
        if self.loops >= 2:
            self.store(scope)
            return
        self.features.add("while loop")
        k = self.new("k")
        self.line(f"{k} = {self.pick('0', 'pid')}")
        self.loops += 1
        with self.block(f"while {k} < {self.pick('m', '2')}:"):
            self.body(scope.inner(), depth)
            self.line(f"{k} += 1")
        self.loops -= 1

    def ping_pong(self, scope: _Scope, depth: int) -> None:
        """Two pointers that change places from one iteration to the next."""
        plain = [p for p in scope.pointers if not p.block and p.role != "index"]
        pairs = [(a, b) for a, b in itertools.permutations(plain, 2) if a.dtype == b.dtype]
        if self.loops >= 2 or not pairs:
            self.store(scope)
            return
        self.features.add("ping-pong")
        usual = [pair for pair in pairs if pair[0].role == "out"]
        bases = self.chance.choice(usual if usual and self.maybe(0.8) else pairs)
        block = self.maybe(0.7)
        to, source = (replace(base, name=self.new("p"), block=block, mutable=True) for base in bases)
        for pointer, base in ((to, bases[0]), (source, bases[1])):
            self.flow(base.name, pointer.name)
            self.line(f"{pointer.name} = {base.name}" + (" + offs" if block else ""))
            self.flows |= {(to.name, source.name), (source.name, to.name)}
        self.features.add("for loop")
        head = self.pick("for _ in range(m):", "for _ in range(0, n, BLOCK):", "for _ in tl.static_range(2):", "while")
        counter = self.new("k")
        if head == "while":
            self.line(f"{counter} = 0")
            head = f"while {counter} < m:"
        self.loops += 1
        swap = f"{to.name}, {source.name} = {source.name}, {to.name}"
        with self.block(head):
            inner = scope.inner()
            at = [pointer.name if block else f"{pointer.name} + offs" for pointer in (to, source)]
            self.stored.add(to.name)
            if self.maybe(0.4):
                value = self.new("v")
                self.loaded.add(source.name)
                self.line(f"{value} = tl.load({at[1]}, mask=mask, other=0).to(tl.float32)")
                inner.values.append((value, "fp32"))
            self.line(f"tl.store({at[0]}, {self.value(inner)}, mask=mask)")
            if self.maybe(0.3):
                self.body(inner, depth)
            exchanges = [h for h in self.helpers if h.kind == "exchange"]
            if self.maybe(0.25):
                with self.block(f"if {self.condition(scope)}:"):
                    self.line(swap)
            elif self.maybe(0.2):
                self.line(f"{to.name} = {source.name}")
            elif exchanges and self.maybe(0.5):
                helper = self.chance.choice(exchanges)
                self.flows |= {(to.name, f"{helper.name}.left"), (source.name, f"{helper.name}.right")}
                self.flows |= {(f"{helper.name}()", to.name), (f"{helper.name}()", source.name)}
                self.line(f"{to.name}, {source.name} = {helper.name}({to.name}, {source.name})")
            else:
                self.line(swap)
            if head.startswith("while"):
                self.line(f"{counter} += 1")
        self.loops -= 1
        if self.maybe(0.4):
            scope.pointers += [to, source]

    def early_return(self, scope: _Scope) -> None:
        self.features.add("early return")
        with self.block(f"if {self.pick('n < 5', 'pid > 1', 'm == 0', 'pid * BLOCK >= n - 3', *self.flags)}:"):
            if self.maybe(0.4):
                self.store(scope.inner())
            self.line("return")

    # -- pieces of expressions

    def pointer(self, scope: _Scope, roles: tuple[str, ...], dtype: str = "") -> _Pointer:
        usable = [p for p in scope.pointers if p.role in roles and (not dtype or p.dtype == dtype)]
        if not usable or self.maybe(0.02):
            usable = [
                p for p in scope.pointers if p.role != "index" and (not dtype or p.dtype == dtype)
            ] or scope.pointers
        return self.chance.choice(usable)

    def offset_expression(self, scope: _Scope) -> str:
        base = self.pick(*scope.offsets, "offs", "offs")
        if self.maybe(0.25):
            i = self.pick(*scope.integers, "m")
            return f"{base} + {i}" if i not in ("pid",) else f"{base} + {i} * 2"
        return base

    def address(self, scope: _Scope, pointer: _Pointer) -> str:
        """A block of pointers into what `pointer` points to."""
        self.stored.add(pointer.name)
        if pointer.block:
            return self.pick(pointer.name, pointer.name, f"{pointer.name} + {self.pick('m', 'n', 1)}")
        at = [h for h in self.helpers if h.kind == "at"]
        if at and self.maybe(0.3):
            helper = self.chance.choice(at)
            self.flow(pointer.name, f"{helper.name}.ptr")
            return f"{helper.name}({pointer.name}, {self.offset_expression(scope)})"
        offset = self.offset_expression(scope)
        return self.pick(f"{pointer.name} + {offset}", f"{pointer.name} + ({offset})", f"{offset} + {pointer.name}")

    def mask(self, scope: _Scope) -> str:
        simple = [*scope.masks, "mask", "offs < n"]
        value = next((name for name, kind in reversed(scope.values) if kind == "fp32"), "")
        return self.pick(
            *(f", mask={m}" for m in simple * 3),
            ", mask=mask & (offs % 3 != 0)",
            "",
            *([f", mask=mask & ({value} > 0)"] if value else []),
        )

    def value(self, scope: _Scope) -> str:
        known = [name for name, _ in scope.values] + scope.totals
        if not known:
            return "offs"
        one, other = self.pick(*known), self.pick(*known)
        return (
            self.pick(
                *(one, one, one, f"{one} + {other}", f"{one} * s", f"{one} - 1.5", f"tl.maximum({one}, {other})"),
                *(
                    f"tl.where(mask, {one}, 0.25)",
                    f"-{one}",
                    "offs",
                    f"{one}.to(tl.float16)",
                    f"{one} if BLOCK > 16 else {other}",
                ),
            )
            if self.maybe(0.9)
            else self.pick("1.0", "0", "s", "n", "-2.5")
        )

    # -- statements

    def load(self, scope: _Scope) -> None:
        pointer = self.pointer(scope, ("in", "inout"))
        name = self.new("v")
        getters = [h for h in self.helpers if h.kind == "load"]
        if getters and not pointer.block and self.maybe(0.4):
            helper = self.chance.choice(getters)
            self.flow(pointer.name, f"{helper.name}.ptr")
            text = f"{helper.name}({pointer.name}, {self.offset_expression(scope)}, n)"
        else:
            self.loaded.add(pointer.name)
            at = self.address(scope, pointer)
            if "(" in at and "+ (" not in at:
                self.loaded.update(f"{h.name}()" for h in self.helpers if h.kind == "at")
            mask = self.mask(scope)
            other = f", other={self.pick('0', '0.0', '-1.0')}" if mask and self.maybe(0.6) else ""
            text = f"tl.load({at}{mask}{other})"
        widened = self.maybe(0.6)
        self.line(f"{name} = {text}" + (".to(tl.float32)" if widened else ""))
        scope.values.append((name, "fp32" if widened else "mixed"))

    def store(self, scope: _Scope, pointer: _Pointer | None = None) -> None:
        pointer = pointer or self.pointer(scope, ("out", "inout", "out"))
        if pointer.role == "index":
            return
        putters = [h for h in self.helpers if h.kind == "store"]
        if putters and not pointer.block and self.maybe(0.3):
            helper = self.chance.choice(putters)
            self.flow(pointer.name, f"{helper.name}.ptr")
            self.stored.add(pointer.name)
            self.line(f"{helper.name}({pointer.name}, {self.offset_expression(scope)}, {self.block_value(scope)}, n)")
            return
        self.line(f"tl.store({self.address(scope, pointer)}, {self.value(scope)}{self.mask(scope)})")

    def block_value(self, scope: _Scope) -> str:
        known = [name for name, _ in scope.values] + scope.totals
        return self.pick(*known, f"{known[0]} + s") if known else "offs"

    def scalar_store(self, scope: _Scope) -> None:
        pointer = self.pointer(scope, ("out", "inout"))
        if pointer.block or pointer.role == "index":
            return
        self.features.add("scalar store")
        self.stored.add(pointer.name)
        offset = self.pick(*scope.integers)
        total = self.pick("s", "n", "1.0", "pid", *(f"tl.sum({name}, 0)" for name in scope.totals))
        self.line(f"tl.store({pointer.name} + {offset}, {total})")

    def local_pointer(self, scope: _Scope) -> None:
        base = self.pointer(scope, ("in", "out", "out", "inout"))
        name = self.new("p")
        self.flow(base.name, name)
        block = base.block or self.maybe(0.7)
        if base.block:
            text = f"{base.name} + {self.pick(0, 'm', 'n')}"
        elif block:
            text = self.address(scope, base)
        else:
            text = self.pick(base.name, f"{base.name} + pid * {self.pick('BLOCK', 8)}", f"{base.name} + m")
        self.line(f"{name} = {text}")
        scope.pointers.append(_Pointer(name, base.dtype, block, base.role))

    def mutable(self, scope: _Scope) -> list[_Pointer]:
        return [p for p in scope.pointers if p.mutable and p.role != "index"]

    def advance(self, scope: _Scope) -> None:
        usable = self.mutable(scope)
        if not usable:
            self.local_pointer(scope)
            return
        pointer = self.chance.choice(usable)
        step = self.pick("BLOCK", "1", "m", "n // 8")
        self.features.add("pointer advanced")
        self.line(self.pick(f"{pointer.name} += {step}", f"{pointer.name} = {pointer.name} + {step}"))

    def pair(self, scope: _Scope) -> tuple[_Pointer, _Pointer] | None:
        usable = self.mutable(scope)
        pairs = [(a, b) for a, b in itertools.combinations(usable, 2) if a.dtype == b.dtype and a.block == b.block]
        same = [(a, b) for a, b in pairs if a.role == b.role]
        if same and self.maybe(0.7):
            return self.chance.choice(same)
        return self.chance.choice(pairs) if pairs else None

    def swap(self, scope: _Scope) -> None:
        pair = self.pair(scope)
        if pair is None:
            self.local_pointer(scope)
            return
        a, b = (p.name for p in pair)
        self.flow(a, b)
        self.flow(b, a)
        self.features.add("pointer swap")
        helpers = [h for h in self.helpers if h.kind == "exchange"]
        if helpers and self.maybe(0.4):
            helper = self.chance.choice(helpers)
            for name in (a, b):
                self.flow(name, f"{helper.name}.left")
                self.flow(f"{helper.name}()", name)
            self.line(f"{a}, {b} = {helper.name}({a}, {b})")
        elif self.maybe(0.3):
            self.line(f"kept = {a}")
            self.line(f"{a} = {b}")
            self.line(f"{b} = kept")
        else:
            self.line(f"{a}, {b} = {b}, {a}")

    def reassign(self, scope: _Scope) -> None:
        pair = self.pair(scope)
        if pair is None:
            self.local_pointer(scope)
            return
        target, source = pair if self.maybe(0.5) else pair[::-1]
        self.flow(source.name, target.name)
        self.features.add("pointer reassigned")
        self.line(f"{target.name} = {source.name}" + self.pick("", " + 1"))

    def chosen_pointer(self, scope: _Scope) -> None:
        helpers = [h for h in self.helpers if h.kind == "choose"]
        pair = self.pair(scope)
        if not helpers or pair is None:
            self.local_pointer(scope)
            return
        helper, name = self.chance.choice(helpers), self.new("p")
        self.flow(pair[0].name, f"{helper.name}.left")
        self.flow(pair[1].name, f"{helper.name}.right")
        self.flow(f"{helper.name}()", name)
        self.line(f"{name} = {helper.name}({pair[0].name}, {pair[1].name}, {self.condition(scope)})")
        scope.pointers.append(replace(pair[0], name=name))

    def select_pointer(self, scope: _Scope) -> None:
        pair = self.pair(scope)
        if pair is None or self.maybe(0.4):
            self.store(scope)
            return
        self.features.add("tl.where on pointers")
        name = self.new("p")
        self.flow(pair[0].name, name)
        self.flow(pair[1].name, name)
        test = self.pick("mask", "offs % 2 == 0") if pair[0].block else self.condition(scope)
        self.line(f"{name} = tl.where({test}, {pair[0].name}, {pair[1].name})")
        scope.pointers.append(replace(pair[0], name=name))

    def total(self, scope: _Scope) -> None:
        name = self.new("acc")
        self.line(f"{name} = tl.zeros((BLOCK,), dtype=tl.float32)")
        scope.totals.append(name)

    def add_total(self, scope: _Scope) -> None:
        if not scope.totals:
            self.total(scope)
            return
        known = [name for name, _ in scope.values]
        name = self.pick(*scope.totals)
        self.line(f"{name} += {self.pick(*known) + '.to(tl.float32)' if known else '1.0'}")

    def offset(self, scope: _Scope) -> None:
        name = self.new("o")
        text = self.pick("n - 1 - offs", "offs // 2", "offs % 7", "offs + BLOCK", "(offs * 3) % n", "offs + m")
        self.line(f"{name} = {text}")
        scope.offsets.append(name)
        if self.maybe(0.5):
            mask = self.new("in_range")
            self.line(f"{mask} = ({name} >= 0) & ({name} < n)")
            scope.masks.append(mask)

    def compute(self, scope: _Scope) -> None:
        known = [name for name, _ in scope.values]
        if not known:
            self.load(scope)
            return
        name = self.new("v")
        x = self.pick(*known)
        texts = [f"{x} * 2.0", f"{x} + s", f"tl.where({x} > 0, {x}, -{x})", f"tl.exp(-tl.abs({x}.to(tl.float32)))"]
        self.line(f"{name} = {self.pick(*texts)}")
        scope.values.append((name, "mixed"))

    def atomic(self, scope: _Scope) -> None:
        usable = [p for p in scope.pointers if p.dtype in ("fp32", "i32") and p.role in ("atomic", "inout")]
        if not usable:
            if not self.maybe(0.1):
                self.store(scope)
                return
            usable = [p for p in scope.pointers if p.dtype in ("fp32", "i32") and p.role != "index"]
        if not usable:
            return
        pointer = self.chance.choice(usable)
        self.loaded.add(pointer.name)
        self.features.add("atomic")
        value = "offs" if pointer.dtype == "i32" else f"({self.block_value(scope)}).to(tl.float32)"
        function = self.pick("atomic_add", "atomic_add", "atomic_max") if pointer.dtype == "i32" else "atomic_add"
        self.line(f"tl.{function}({self.address(scope, pointer)}, {value}, mask=mask)")

    def read_modify_write(self, scope: _Scope) -> None:
        pointer = self.pointer(scope, ("inout",))
        if pointer.role != "inout" and self.maybe(0.85):
            self.store(scope)
            return
        self.features.add("read-modify-write")
        bumps = [h for h in self.helpers if h.kind == "bump"]
        if bumps and not pointer.block and self.maybe(0.5):
            helper = self.chance.choice(bumps)
            self.flow(pointer.name, f"{helper.name}.ptr")
            self.line(f"{helper.name}({pointer.name}, {self.offset_expression(scope)}, n)")
            return
        self.loaded.add(pointer.name)
        at, old = self.address(scope, pointer), self.new("old")
        self.loaded.update(f"{h.name}()" for h in self.helpers if h.kind == "at")
        self.line(f"{old} = tl.load({at}, mask=mask, other=0)")
        self.line(f"tl.store({at}, {old} + {self.block_value(scope)}, mask=mask)")

    def call_helper(self, scope: _Scope) -> None:
        helper = self.chance.choice(self.helpers)
        offset = self.offset_expression(scope)
        scalars = replace(scope, pointers=[p for p in scope.pointers if not p.block])
        if helper.kind == "store":
            target = self.pointer(scalars, ("out", "inout"))
            if target.role != "index":
                self.flow(target.name, f"{helper.name}.ptr")
                self.stored.add(target.name)
                self.line(f"{helper.name}({target.name}, {offset}, {self.block_value(scope)}, n)")
        elif helper.kind == "copy":
            source = self.pointer(scalars, ("in", "inout"))
            target = self.pointer(scalars, ("out", "inout"))
            if target.role != "index":
                self.flow(source.name, f"{helper.name}.source")
                self.flow(target.name, f"{helper.name}.to")
                self.stored.add(target.name)
                self.line(f"{helper.name}({target.name}, {source.name}, {offset}, n)")
        elif helper.kind == "atomic":
            usable = [p for p in scalars.pointers if p.role in ("atomic", "inout") and p.dtype == "fp32"]
            if usable:
                pointer = self.chance.choice(usable)
                self.flow(pointer.name, f"{helper.name}.ptr")
                self.line(f"{helper.name}({pointer.name}, {offset}, ({self.block_value(scope)}).to(tl.float32), n)")
        elif helper.kind == "bump":
            usable = [p for p in scalars.pointers if p.role == "inout"]
            if usable:
                pointer = self.chance.choice(usable)
                self.flow(pointer.name, f"{helper.name}.ptr")
                self.line(f"{helper.name}({pointer.name}, {offset}, n)")
        elif helper.kind == "load":
            self.load(scope)
        elif helper.kind == "exchange":
            self.swap(scope)
        elif helper.kind == "choose":
            self.chosen_pointer(scope)
        else:
            self.local_pointer(scope)

    def odd(self, scope: _Scope) -> None:
        """Rare shapes: block pointers, descriptors, addresses as integers, pointer casts, tuples, dead code."""
        pointer = self.pointer(replace(scope, pointers=[p for p in scope.pointers if not p.block]), ("out", "inout"))
        if pointer.role == "index" or pointer.block:
            return
        shape = self.chance.randrange(9)
        value = self.block_value(scope)
        if shape <= 1:
            self.features.add("block pointer")
            name = self.new("tile")
            self.line(
                f"{name} = tl.make_block_ptr({pointer.name}, shape=(n,), strides=(1,), offsets=(pid * BLOCK,), "
                "block_shape=(BLOCK,), order=(0,))"
            )
            for _ in range(1 + self.chance.randrange(2)):
                self.line(f"tl.store({name}, ({value}).to({pointer.name}.dtype.element_ty), boundary_check=(0,))")
                if self.maybe(0.5):
                    self.line(f"{name} = tl.advance({name}, (BLOCK,))")
        elif shape <= 3:
            self.features.add("descriptor")
            name = self.new("desc")
            self.line(
                f"{name} = tl.make_tensor_descriptor({pointer.name}, shape=[n], strides=[1], block_shape=[BLOCK])"
            )
            self.line(f"{name}.store([pid * BLOCK], ({value}).to({pointer.name}.dtype.element_ty))")
        elif shape == 4:
            self.features.add("address as integer")
            self.line(f"aligned = {pointer.name}.to(tl.int64) % 16 == 0")
            with self.block("if aligned:"):
                self.store(scope.inner())
        elif shape == 5 and pointer.dtype in ("fp32", "i32"):
            self.features.add("pointer cast")
            name = self.new("bits")
            self.line(f"{name} = {pointer.name}.to(tl.pointer_type(tl.int32))")
            self.line(f"tl.store({name} + offs, offs, mask=mask)")
        elif shape == 6:
            self.features.add("tuple of pointers")
            others = [p.name for p in scope.pointers if p.role in ("out", "in") and not p.block]
            other = self.pick(*others, pointer.name)
            name = self.new("pair")
            self.line(f"{name} = ({pointer.name}, {other})")
            self.line(f"tl.store({name}[0] + offs, {value}, mask=mask)")
        elif shape == 7:
            self.features.add("dead code")
            with self.block(f"if {self.pick('False', '0 > 1', 'BLOCK > 4096')}:"):
                self.line(f"tl.load({pointer.name} + offs)")
        else:
            self.store(scope, pointer)

    # --------------------------------------------------------------------------------------------------------- the file

    def file(self) -> Program:
        launcher = self.maybe(0.55)
        tuned = self.maybe(0.25)
        self.features.add("launcher" if launcher else "no launcher")
        in_configs = {}
        configs = []
        if tuned:
            self.features.add("autotune")
            in_configs = {"BLOCK": (16, 32)}
            for flag in self.flags:
                if self.maybe(0.4):
                    in_configs[flag] = (False, True) if self.maybe(0.7) else (True, True)
            for index in range(2):
                settings = ", ".join(f'"{name}": {values[index]}' for name, values in in_configs.items())
                configs.append(f"        triton.Config({{{settings}}}, num_warps={1 << index}),")
        text = ["import torch", "import triton", "import triton.language as tl", "", "", *self.helper_text]
        if tuned:
            text += ["@triton.autotune(", "    configs=[", *configs, "    ],", '    key=["n"],', ")"]
        free = {name: values for name, values in self.flags.items() if name not in in_configs}
        constexprs = ["STEPS", "BLOCK", *(["MODE"] if self.modes else []), *self.flags]
        defaults = {
            name: f" = {self.pick('True', 'False')}" for name in constexprs[-1:] if name in free and self.maybe(0.3)
        }
        if defaults:
            self.features.add("default value")
        parameters = [
            *(b.name for b in self.buffers),
            *("n", "m", "s"),
            *(f"{name}: tl.constexpr{defaults.get(name, '')}" for name in constexprs),
        ]
        text += ["@triton.jit", f"def kernel({', '.join(parameters)}):", *self.lines, ""]
        dtypes: list[str] = []
        given: dict[str, tuple[object, ...]] = {}
        if launcher:
            omitted = {name for name in defaults if self.maybe(0.5)}
            text += ["", *self.launcher({k: v for k, v in free.items() if k not in omitted}, given, tuned)]
            integers = any(b.dtype == "i32" and not b.allocation for b in self.buffers)
            if self.maybe(0.8) or integers:  # untold, elements are assumed to be floating-point
                dtypes = [f"{b.name}={b.dtype}" for b in self.buffers if not b.allocation]
        else:
            given = dict(free)
            if self.modes:
                given["MODE"] = self.modes
            if self.maybe(0.75) or any(b.dtype == "i32" for b in self.buffers):
                dtypes = [f"{b.name}={b.dtype}" for b in self.buffers]
        return Program(
            "\n".join(text) + "\n",
            tuple(self.buffers),
            tuple(dtypes),
            launcher,
            tuple(self.launches(given, launcher, tuned)),
            self.may_read(),
            tuple(sorted(self.features)),
        )

    def launcher(
        self, free: dict[str, tuple[bool, ...]], given: dict[str, tuple[object, ...]], tuned: bool
    ) -> list[str]:
        """def launch(x_ptr, n, m, s, has_bias): allocates what it can, and is the only way to the kernel."""
        first = next(b for b in self.buffers)
        lines = []
        for index, buffer in enumerate(self.buffers):
            if index and buffer.role in ("out", "atomic") and self.maybe(0.7):
                like = buffer.dtype == first.dtype and self.maybe(0.4)
                empty = "zeros" if buffer.role == "atomic" else self.pick("empty", "empty", "empty", "empty", "zeros")
                full = f"torch.{empty}({SIZE}, dtype=torch.{TORCH_DTYPE[buffer.dtype]}, device={first.name}.device)"
                allocation = f"torch.{empty}_like({first.name})" if like else full
                self.buffers[index] = replace(buffer, allocation=allocation)
                lines.append(f"    {buffer.name} = {allocation}")
        flags = []
        for name, values in free.items():
            if self.maybe(0.7):
                flags.append(f"{name}={name.lower()}")
                given[name.lower()] = values
            else:
                flags.append(f"{name}={self.pick(*values)}")
        if self.modes:
            if self.maybe(0.7):
                flags.append("MODE=mode")
                given["mode"] = self.modes
            else:
                flags.append(f"MODE={self.pick(*self.modes)}")
        flags.append("STEPS=2")
        grid = "lambda meta: (triton.cdiv(n, meta['BLOCK']),)"
        if not tuned:
            flags.append("BLOCK=16")
            grid = self.pick("(triton.cdiv(n, 16),)", grid)
        parameters = [*(b.name for b in self.buffers if not b.allocation), "n", "m", "s", *given]
        arguments = ", ".join([*(b.name for b in self.buffers), "n", "m", "s", *flags])
        outputs = [b.name for b in self.buffers if b.allocation]
        return [
            f"def launch({', '.join(parameters)}):",
            *lines,
            f"    grid = {grid}",
            f"    kernel[grid]({arguments})",
            *([f"    return {', '.join(outputs)}"] if outputs else []),
        ]

    def launches(self, given: dict[str, tuple[object, ...]], launcher: bool, tuned: bool) -> Iterator[Launch]:
        combinations = list(itertools.product(*given.values()))
        sizes = [(37, 2, 0.75), (16, 1, -1.5), (3, 0, 0.25)]
        seed = self.chance.randrange(1 << 30)
        for number, combination in enumerate(combinations):
            for configuration in range(2 if tuned else 1):
                # every size when there are few ways to compile the kernel, else in turn
                chosen = sizes if len(combinations) <= 2 and not tuned else [sizes[0], sizes[1 + number % 2]]
                if len(combinations) > 6:
                    chosen = [sizes[0] if number % 3 else sizes[1]]
                for index, (n, m, s) in enumerate(chosen):
                    constexprs = dict(zip(given, combination, strict=True))
                    if not launcher:
                        constexprs["STEPS"] = 2
                        if not tuned:
                            constexprs["BLOCK"] = 16
                    scalars = {"n": n, "m": m, "s": s}
                    yield Launch(tuple(scalars.items()), tuple(constexprs.items()), configuration, seed + index)

    def may_read(self) -> frozenset[str]:
        """Buffers from which a pointer may reach a load or an atomic, whatever the order of the statements."""
        reach = set(self.loaded)
        while True:
            more = {source for source, to in self.flows if to in reach} - reach
            if not more:
                return frozenset(reach & {b.name for b in self.buffers})
            reach |= more


def program(chance: random.Random) -> Program:
    """A random kernel file."""
    return _Writer(chance).program()
