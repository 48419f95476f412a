"""What makes a fused file stale: a change in anything its kernel depends on, and in nothing else."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from kernel_rewrite.fuse import fuse
from kernel_rewrite.source.files import Project
from kernel_rewrite.source.fingerprint import fingerprint

KERNELS = '''\
"""A module."""
import math
import torch
import triton
import triton.language as tl
from .helpers import put, SCALE as FACTOR
from . import more
from package.deep import module
from .stars import *

BLOCKS = [64, 128]
WARPS: int = 4
OTHER = 3
LIMIT = 10
if torch.cuda.is_available():
    DEVICE = "cuda"
else:
    DEVICE = "cpu"


def configs():
    return [triton.Config({"BLOCK": b}, num_warps=WARPS) for b in BLOCKS]


# kernel-rewrite: something
@triton.autotune(configs=configs(), key=["n"])  # tuned
@triton.jit
def kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    value = starred(more.twice(tl.load(x_ptr + i)) * FACTOR)
    put(out_ptr + i, value + package_value(), i < n)


def package_value():
    return module.value()


def allocate(x):
    return torch.empty_like(x, device=DEVICE)


def launch(x):
    out = allocate(x)
    kernel[(1,)](x, out, limited(x.numel()))
    return out


def limited(n):
    return min(n, LIMIT)


class Caller:
    def forward(self, x):
        return launch(x)


def unrelated(x):
    return x.sum() + OTHER


@triton.jit
def other_kernel(out_ptr):
    tl.store(out_ptr, 1)


def set_limit(n):
    global LIMIT
    LIMIT = n


def extend(n):
    BLOCKS.append(n)


if __name__ == "__main__":
    print(unrelated(torch.ones(3)))
'''
HELPERS = """\
import triton
import triton.language as tl

SCALE = tl.constexpr(2.0)
UNUSED = 1


@triton.jit
def put(pointer, value, mask):
    tl.store(pointer, checked(value), mask=mask)


@triton.jit
def checked(value):
    return value


@triton.jit
def never_called(value):
    return value
"""
FILES = {
    "kernels.py": KERNELS,
    "helpers.py": HELPERS,
    "more.py": "def twice(x):\n    return x + x\n\n\ndef thrice(x):\n    return x + x + x\n",
    "stars.py": "def starred(x):\n    return x\n\n\ndef unstarred(x):\n    return x\n",
    "deep/__init__.py": "",
    "deep/module.py": "def value():\n    return one()\n\n\ndef one():\n    return 1\n\n\ndef two():\n    return 2\n",
    "__init__.py": "",
}


@pytest.fixture
def package(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / "package" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "package" / name).write_text(text)
    return tmp_path / "package"


def taken(package: Path) -> tuple[str, set[str]]:
    project = Project()
    found = fingerprint(project.read(package / "kernels.py"), "kernel", project)
    return found.digest, {str(Path(file).relative_to(package)) for file in found.files}


RELATED = [
    ("kernels.py", "tl.arange(0, BLOCK)\n", "tl.arange(0, BLOCK) + 0\n"),
    ("kernels.py", "  # tuned", "  # tuned again"),
    ("kernels.py", 'key=["n"]', "key=[]"),
    ("kernels.py", "[64, 128]", "[64]"),
    ("kernels.py", "WARPS: int = 4", "WARPS: int = 8"),
    ("kernels.py", "for b in BLOCKS", "for b in BLOCKS if b > 1"),
    ("kernels.py", "torch.empty_like", "torch.zeros_like"),
    ("kernels.py", 'DEVICE = "cpu"', 'DEVICE = "meta"'),
    ("kernels.py", "LIMIT = 10", "LIMIT = 11"),
    ("kernels.py", "LIMIT = n", "LIMIT = n + 1"),
    ("kernels.py", "BLOCKS.append(n)", "BLOCKS.append(n + 1)"),
    ("kernels.py", "return min(n, LIMIT)", "return max(n, LIMIT)"),
    ("kernels.py", "return launch(x)", "return launch(x + 1)"),
    ("kernels.py", "import put,", "import checked as put,"),
    ("kernels.py", "return module.value()", "return module.two()"),
    ("kernels.py", "import triton.language as tl", "import triton.language as tl; import sys"),
    ("kernels.py", "# kernel-rewrite: something", "# kernel-rewrite: something else"),
    ("helpers.py", "constexpr(2.0)", "constexpr(3.0)"),
    ("helpers.py", "checked(value), mask", "checked(-value), mask"),
    ("helpers.py", "def checked(value):\n    return value", "def checked(value):\n    return -value"),
    ("more.py", "return x + x\n", "return 2 * x\n"),
    ("stars.py", "def starred(x):\n    return x", "def starred(x):\n    return -x"),
    ("deep/module.py", "return one()", "return one() + one()"),
    ("deep/module.py", "return 1", "return 11"),
]
UNRELATED = [
    ("kernels.py", "return x.sum() + OTHER", "return x.sum() * OTHER"),
    ("kernels.py", "OTHER = 3", "OTHER = 4"),
    ("kernels.py", "tl.store(out_ptr, 1)", "tl.store(out_ptr, 2)"),
    ("kernels.py", '"""A module."""', '"""The module."""\n\n\n# A comment.'),
    ("kernels.py", "torch.ones(3)", "torch.ones(4)"),
    ("kernels.py", "import math", "import cmath"),
    ("kernels.py", "def unrelated", "def new():\n    return 1\n\n\ndef unrelated"),
    ("helpers.py", "UNUSED = 1", "UNUSED = 2"),
    ("helpers.py", "def never_called(value):\n    return value", "def never_called(value):\n    return -value"),
    ("more.py", "return x + x + x", "return 3 * x"),
    ("stars.py", "def unstarred(x):\n    return x", "def unstarred(x):\n    return -x"),
    ("deep/module.py", "return 2", "return 22"),
]


def changed(package: Path, file: str, old: str, new: str) -> bool:
    text = (package / file).read_text()
    assert text.count(old) == 1, (file, old)
    before, _ = taken(package)
    (package / file).write_text(text.replace(old, new))
    return taken(package)[0] != before


@pytest.mark.parametrize(("file", "old", "new"), RELATED)
def test_what_the_kernel_depends_on(package: Path, file: str, old: str, new: str) -> None:
    assert changed(package, file, old, new)


@pytest.mark.parametrize(("file", "old", "new"), UNRELATED)
def test_what_it_does_not_depend_on(package: Path, file: str, old: str, new: str) -> None:
    assert not changed(package, file, old, new)


def test_files(package: Path) -> None:
    assert taken(package)[1] == {"helpers.py", "more.py", "stars.py", "deep/module.py"}


def test_line_ends_and_place_do_not_count(package: Path, tmp_path: Path) -> None:
    before = taken(package)
    for path in package.rglob("*.py"):
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert taken(package) == before
    (tmp_path / "elsewhere").mkdir()
    package.rename(tmp_path / "elsewhere" / "package")
    assert taken(tmp_path / "elsewhere" / "package") == before


def test_only_allowed_files_are_followed(package: Path) -> None:
    project = Project()
    file = project.read(package / "kernels.py")
    only = fingerprint(file, "kernel", project, {str(package / "more.py")})
    assert only.files == (str(package / "more.py"),)
    assert fingerprint(file, "kernel", project, only.files) == only
    assert fingerprint(file, "kernel", project, ()).files == ()


def test_a_kernel_in_a_class_or_a_factory_counts_whole(tmp_path: Path) -> None:
    text = "import triton\n\n\ndef make(n):\n    m = n + 1\n\n    @triton.jit\n    def kernel(x):\n        pass\n\n    return kernel\n"
    path = tmp_path / "factory.py"
    digests = set()
    for version in (text, text.replace("n + 1", "n + 2"), text + "\n\ndef unrelated():\n    pass\n"):
        path.write_text(version)
        project = Project()
        digests.add(fingerprint(project.read(path), "kernel", project).digest)
    assert len(digests) == 2


FIXTURES = Path(__file__).parent.parent.parent / "fixtures" / "rewrites"
SEVERAL_FILES = sorted(path for path in FIXTURES.iterdir() if len(list(path.glob("*.py"))) > 2)


@pytest.mark.parametrize("case", SEVERAL_FILES, ids=lambda case: case.name)
def test_every_file_that_a_fusion_read_is_named(case: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the analysis read but the fingerprint leaves out could change without being noticed. A function given as the
    epilogue stands in the request, in words."""
    monkeypatch.chdir(case)
    request = shlex.split((case / "request.txt").read_text())
    options = dict(zip(request[::2], request[1::2], strict=True))
    project = Project()
    epilogue, kernels = options.get("--epilogue", ()), options.get("--epilogue-kernel", ())
    asked = {"operands": [options[name] for name in options if name == "--operand"], "epilogue_kernels": kernels}
    fused = fuse(case / "before.py", epilogue, kernel=options.get("--kernel"), project=project, **asked)
    named = set(re.findall(r"^# reads: (\S+) ", fused.source, re.MULTILINE))
    read = {str(Path(file.location).relative_to(case)) for file in project.files()} - {"before.py"}
    read -= {str(epilogue).partition(":")[0]}
    assert SEVERAL_FILES and named == read
