"""Answers of `fuse` and `inspect`, kept on disk for as long as everything they were computed from stays the same.

An entry is found by the request and the versions of Python, Triton and this tool; it counts only if every file that was
read has the same content and every place that was looked at is still there, or still absent. Whatever goes wrong is a
miss. Entries hold plain values of `results`, `diagnostics` and `model`, and nothing else is ever unpickled.
"""

from __future__ import annotations

import hashlib
import importlib
import io
import os
import pickle
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kernel_rewrite import __version__
from kernel_rewrite.diagnostics import FusionRefused

if TYPE_CHECKING:
    from kernel_rewrite.source.files import Project

MAXIMUM_BYTES = 64 << 20
"""How large the cache folder may grow before its oldest entries go."""

_READABLE = ("kernel_rewrite.results", "kernel_rewrite.diagnostics", "kernel_rewrite.model")
_BUILTINS = {"frozenset", "set", "complex"}


def cached(request: tuple[object, ...], compute: Callable[[Project], Any], *, enabled: bool = True) -> Any:
    """`compute(project)`, or what it gave for the same request and files. A refusal is an answer too, raised again."""
    triton = _triton_version()
    path = (
        _folder() / _digest(repr((request, os.getcwd(), triton, _tool(), _settings())).encode())
        if enabled and triton
        else None
    )
    answer = _load(path) if path is not None else None
    if answer is None:
        from kernel_rewrite.source.files import Project

        project = Project()
        try:
            answer = ("value", compute(project))
        except FusionRefused as refusal:
            answer = ("refused", refusal.diagnostics)
        if path is not None and not _depends_on_time(answer):
            _store(path, answer, project)
    kind, value = answer
    if kind == "refused":
        raise FusionRefused(value)
    return value


def _depends_on_time(answer: Any) -> bool:
    """Whether a slower or a luckier run may answer otherwise: what was rejected or hung within a time limit."""
    kind, value = answer
    return kind == "refused" and any(d.code in ("KR110", "KR111") for d in value)


def _folder() -> Path:
    chosen = os.environ.get("KERNEL_REWRITE_CACHE_DIR")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "kernel-rewrite"


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _triton_version() -> str | None:
    """The installed Triton's version and place, found without importing it; None when it cannot be told."""
    for entry in sys.path:
        try:
            names = os.listdir(entry or ".")
        except OSError:
            continue
        if "triton" in names:
            found = [name for name in names if name.startswith("triton-") and name.endswith(".dist-info")]
            return f"{os.path.abspath(entry)}/{found[0]}" if len(found) == 1 else None
    return None


def _tool() -> tuple[object, ...]:
    """This tool's version, and its own files' sizes and times: a development checkout changes without a version."""
    root = Path(__file__).parent
    stamps = []
    for folder, _, names in os.walk(root):
        for name in names:
            if name.endswith(".py"):
                status = os.stat(os.path.join(folder, name))
                stamps.append((folder, name, status.st_size, status.st_mtime_ns))
    return __version__, sys.version_info[:3], tuple(sorted(stamps))


def _settings() -> tuple[tuple[str, str], ...]:
    """The environment variables that change what Triton does."""
    return tuple(sorted((name, value) for name, value in os.environ.items() if name.startswith("TRITON")))


# ------------------------------------------------------------------------------------------------------------- entries


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if module in _READABLE or (module == "builtins" and name in _BUILTINS):
            return getattr(importlib.import_module(module), name)
        raise pickle.UnpicklingError(f"{module}.{name} has no place in the cache")


def _load(path: Path) -> Any:
    try:
        data = path.read_bytes()
        if _digest(data[64:]) != data[:64].decode():
            return None
        contents, places, answer = _Unpickler(io.BytesIO(data[64:])).load()
        if any(_digest(Path(file).read_bytes()) != digest for file, digest in contents.items()):
            return None
        if any(os.path.exists(place) is not present for place, present in places.items()):
            return None
        os.utime(path)
    except Exception:  # a damaged or foreign entry is a miss
        return None
    return answer


def _store(path: Path, answer: Any, project: Project) -> None:
    """Keep an answer; a cache that cannot be written is no cache, and no error."""
    try:
        from kernel_rewrite.source.files import read_file

        if any(read_file(file.path).text != file.text for file in project.files()):
            return  # changed on disk meanwhile
        contents = {place: _digest(Path(place).read_bytes()) for place in project.locations() if os.path.isfile(place)}
        data = pickle.dumps((contents, project.consulted(), answer))
        _Unpickler(io.BytesIO(data)).load()
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".tmp")
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(_digest(data).encode() + data)
        os.replace(temporary, path)
        _prune(path.parent)
    except Exception:
        return


def _prune(folder: Path) -> None:
    entries = [(entry.stat().st_mtime, entry.stat().st_size, entry.path) for entry in os.scandir(folder)]
    total = sum(size for _, size, _ in entries)
    for _, size, path in sorted(entries):
        if total <= MAXIMUM_BYTES:
            return
        os.unlink(path)
        total -= size
