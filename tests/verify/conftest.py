from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kernel_rewrite.fuse import fuse
from kernel_rewrite.verify import Verification, equivalence, verify

from .forking import ForkingRunner


@pytest.fixture(scope="session")
def forking_runner() -> Iterator[ForkingRunner]:
    runner = ForkingRunner()
    yield runner
    runner.close()


Check = Callable[..., Verification]


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forking_runner: ForkingRunner) -> Check:
    """Fuses `source`, replaces texts of the fused file (each must be there), and verifies it."""
    monkeypatch.setattr(equivalence, "_attempt", forking_runner.attempt)

    def run(
        source: str,
        epilogues: str | list[str],
        call: str,
        *,
        mutate: tuple[str, str] | None = None,
        mutate_header: tuple[str, str] | None = None,
        options: dict[str, Any] | None = None,
        **arguments: Any,
    ) -> Verification:
        (tmp_path / "kernels.py").write_text(source)
        fused = fuse(tmp_path / "kernels.py", epilogues, **(options or {})).source
        if mutate is not None:
            header, end, body = fused.partition("# end of header\n")
            assert mutate[0] in body, body
            fused = header + end + body.replace(*mutate)
        if mutate_header is not None:
            assert mutate_header[0] in fused, fused
            fused = fused.replace(*mutate_header)
        (tmp_path / "kernels_fused.py").write_text(fused)
        arguments.setdefault("trials", 6)  # the whole plan has tests of its own
        return verify(tmp_path / "kernels_fused.py", [call], judge="interpreter", **arguments)

    return run
