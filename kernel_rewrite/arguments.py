"""What a fusion is asked for, as plain text: on the command line, in pyproject.toml, in a header, as arguments of `fuse`.

One table, `ARGUMENTS`, holds the four spellings of each argument together; whatever turns one spelling into another
reads it. Nothing here knows what the texts mean.
"""

from __future__ import annotations

import enum
import re
import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

CONFIGURATION = "pyproject.toml"
"""The file that lists fusions."""


class Shape(enum.Enum):
    """What an argument is made of."""

    TEXT = "a text"
    TEXTS = "a list of texts"
    NAMED = "a table of texts, or a list of `NAME=TEXT`"
    FLAG = "true or false"


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument of a fusion: its key in pyproject.toml, its option, and the name of the parameter of `fuse`.

    `choices` are the only texts it takes, where that is so; `default` is what leaving it out means.
    """

    key: str
    option: str
    parameter: str
    shape: Shape
    choices: tuple[str, ...] = ()
    default: str = ""


ARGUMENTS: tuple[Argument, ...] = (
    Argument("kernel", "--kernel", "kernel", Shape.TEXT),
    Argument("epilogues", "--epilogue", "epilogues", Shape.NAMED),
    Argument("epilogue-kernels", "--epilogue-kernel", "epilogue_kernels", Shape.NAMED),
    Argument("prologues", "--prologue", "prologues", Shape.NAMED),
    Argument("operands", "--operand", "operands", Shape.NAMED),
    Argument("keep-original", "--keep-original", "keep_original", Shape.NAMED),
    Argument("drop", "--drop", "drop", Shape.TEXTS),
    Argument("partial", "--partial", "partial", Shape.FLAG),
    Argument("launcher", "--launcher", "launcher", Shape.TEXT, choices=("rewrite", "leave"), default="rewrite"),
    Argument("numerics", "--numerics", "numerics", Shape.TEXT, choices=("eager", "fused"), default="eager"),
    Argument("set", "--set", "constexprs", Shape.NAMED),
    Argument("dtype", "--dtype", "dtypes", Shape.NAMED),
    Argument("assume", "--assume", "assume", Shape.TEXTS),
)
"""In the order of the command line."""

Given = tuple[tuple[str, str], ...]
"""Each (option, text) that is given, in the order of `ARGUMENTS`; a default is not given, and a flag has no text."""

_NAME_AND_TEXT = re.compile(r"\s*([A-Za-z_]\w*(?:\[\d+\])?(?::\w+)?)\s*=(?!=)(.*)", re.DOTALL)
_PATH_AND_NAME = re.compile(r"(.+\.py):([A-Za-z_]\w*)", re.DOTALL)
_PATH_AND_KERNEL = re.compile(r"(.+?\.py):([A-Za-z_]\w*(?:\(.*\))?)", re.DOTALL)
_PROGRAM = "kernel-rewrite fuse"

_WORDS = re.compile(r'''[^\s"'\\$`!]+|"[^"'\\$`!]*"''')
_EASY = re.compile(rf"(?: (?:{_WORDS.pattern}))+")  # which `shlex` would read alike, a hundred times slower


EPILOGUE_KERNEL = "--epilogue-kernel"

OPS = ("--epilogue", EPILOGUE_KERNEL, "--prologue")
"""The options whose texts are ops."""

_FLAGS = frozenset(argument.option for argument in ARGUMENTS if argument.shape is Shape.FLAG)


def name_and_text(text: str) -> tuple[str | None, str]:
    """`c_ptr=relu` as ("c_ptr", "relu"), `relu` as (None, "relu"), `b_ptr:int8=x * 0.5` as ("b_ptr:int8", "x * 0.5")."""
    named = _NAME_AND_TEXT.fullmatch(text)
    return (named[1], named[2].strip()) if named else (None, text.strip())


def path_and_name(epilogue: str) -> tuple[str, str] | None:
    """`ops.py:epilogue`, a function of a file, as ("ops.py", "epilogue"); None for an expression."""
    found = _PATH_AND_NAME.fullmatch(epilogue.strip())
    return (found[1], found[2]) if found else None


def path_and_kernel(text: str) -> tuple[str, str] | None:
    """`other.py:gelu_kernel(x_ptr)` as ("other.py", "gelu_kernel(x_ptr)"), with or without what is in parentheses; None
    for any other text."""
    found = _PATH_AND_KERNEL.fullmatch(text.strip())
    return (found[1], found[2]) if found else None


def names_a_kernel(text: str) -> bool:
    """Whether the text of an op is that of a kernel in a file, with its parameter."""
    return text.rstrip().endswith(")") and path_and_kernel(text) is not None


def with_paths(text: str, change: Callable[[str], str]) -> str:
    """`ops.py:epilogue`, `c_ptr=ops.py:epilogue` or `other.py:kernel(x_ptr)` with another path; an expression stays as it
    is."""
    output, epilogue = name_and_text(text)
    place = path_and_kernel(epilogue)
    if place is None:
        return text
    return f"{output}={change(place[0])}:{place[1]}" if output else f"{change(place[0])}:{place[1]}"


def with_op_paths(given: Given, change: Callable[[str], str]) -> Given:
    """What is given, the files that ops name under other paths."""
    return tuple((option, with_paths(text, change) if option in OPS else text) for option, text in given)


def stored_by_drop(dropped: Iterable[str], declared: Iterable[str], ops: Iterable[str]) -> tuple[str, ...]:
    """The operands that need no declaration, as `--operand` takes them: outputs to drop whose values epilogues name."""
    known = {name_and_text(text)[0] for text in declared}
    texts = [name_and_text(op)[1] for op in ops]
    named = (name for name in dict.fromkeys(dropped) if any(re.search(rf"\b{re.escape(name)}\b", t) for t in texts))
    return tuple(f"{name}=stored" for name in named if name not in known)


def name_without(outputs: Iterable[str]) -> str:
    """A short slug for a file whose kernel does without `outputs` and has no op: `without_mean_rstd`."""
    return "without_" + "_".join(short for output in outputs if (short := output.removesuffix("_ptr")))


def names_a_function(given: Given) -> bool:
    """Whether an op is a function or a kernel of a file."""
    return any(o in OPS and path_and_kernel(name_and_text(text)[1]) is not None for o, text in given)


def given(values: Mapping[str, str | bool | Iterable[str] | None]) -> Given:
    """The arguments of `fuse` by parameter, as options."""
    found = []
    for argument in ARGUMENTS:
        value = values.get(argument.parameter)
        if value is None or isinstance(value, bool):
            found += [(argument.option, "")] if value else []
            continue
        texts = [value] if isinstance(value, str) else list(value)
        found += [(argument.option, _one_line(text)) for text in texts if text != argument.default or not text]
    return tuple(found)


def keywords(given: Given) -> dict[str, Any]:
    """What is given, as keyword arguments of `fuse`: a text, texts, True for a flag."""
    found: dict[str, Any] = {}
    for argument in ARGUMENTS:
        texts = tuple(text for option, text in given if option == argument.option)
        if texts:
            whole = True if argument.shape is Shape.FLAG else texts[0] if argument.shape is Shape.TEXT else texts
            found[argument.parameter] = whole
    return found


def says_the_same(asked: Given, settled: Given) -> bool:
    """Whether `settled`, in which the kernel and each output are named, is what `asked` may have come to."""
    return all(_agree(argument, asked, settled) for argument in ARGUMENTS)


def _agree(argument: Argument, asked: Given, settled: Given) -> bool:
    left, right = (sorted(text for option, text in side if option == argument.option) for side in (asked, settled))
    if argument.option == "--kernel":
        return not left or left == right
    if argument.option in OPS and len(left) == 1 and len(right) == 1:
        (name, text), (settled_name, settled_text) = name_and_text(left[0]), name_and_text(right[0])
        return text == settled_text and name in (None, settled_name)
    if argument.shape is Shape.NAMED:
        return [name_and_text(text) for text in left] == [name_and_text(text) for text in right]
    return left == right


def command(source: str, given: Given, output: str = "") -> str:
    """The `kernel-rewrite fuse` command, for a shell."""
    words = [_PROGRAM, _word(source)]
    words += [_option(option, text) for option, text in given]
    if output:
        words.append(f"-o {_word(output)}")
    return " ".join(words)


def parse_command(text: str) -> tuple[str, Given, str] | None:
    """(source, what is given, output or "") of a command that `command` made; None for any other text."""
    if not text.startswith(f"{_PROGRAM} "):
        return None
    words = text.removeprefix(_PROGRAM)
    try:
        source, *rest = [w.strip('"') for w in _WORDS.findall(words)] if _EASY.fullmatch(words) else shlex.split(words)
    except ValueError:
        return None
    pairs = []
    while rest:
        option, values = rest[0], 0 if rest[0] in _FLAGS else 1
        if not option.startswith("-") or len(rest) <= values:
            return None
        pairs.append((option, rest[1] if values else ""))
        rest = rest[1 + values :]
    output = next((value for option, value in pairs if option == "-o"), "")
    return source, tuple(pair for pair in pairs if pair[0] != "-o"), output


def quoted(text: str) -> str:
    """`text` as one word of a shell command, in quotes."""
    return shlex.quote(text) if re.search(r"""["\\$`!]""", text) else f'"{text}"'


def _word(text: str) -> str:
    return text if re.fullmatch(r"[\w./+-]+", text) else quoted(text)


def _option(option: str, text: str) -> str:
    """An option with its text, in quotes where it is no single word."""
    shape = next((a.shape for a in ARGUMENTS if a.option == option), Shape.TEXT)
    if shape is Shape.FLAG:
        return option
    return f"{option} {quoted(text) if shape is Shape.NAMED else _word(text)}"


def _one_line(text: str) -> str:
    return " ".join(text.split("\n"))
