"""A few of the damaged inputs of `make mutants`."""

from __future__ import annotations

from pathlib import Path

import pytest

from .run import KINDS, Outcome, examine, table

PARTS = 10


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_a_damaged_file_is_fused_or_refused(part: int) -> None:
    outcomes = [examine(number) for number in range(part, 100, PARTS)]
    assert not [f"mutant {o.number} ({o.kind} of {o.seed}): {o.trace}" for o in outcomes if o.bad]


def test_what_must_not_be_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A traceback, a hang and a touched file are each reported."""
    import kernel_rewrite.project.build as build

    from . import run

    def broken(entry: object, **options: object) -> None:
        raise IndexError("a bug")

    monkeypatch.setattr(build, "fuse_entry", broken)
    outcome = examine(0)
    assert outcome.bad and outcome.fuse == "traceback" and "IndexError: a bug" in outcome.trace

    def endless(entry: object, **options: object) -> None:
        while True:
            pass

    monkeypatch.setattr(run, "TIME_LIMIT", 1)
    monkeypatch.setattr(build, "fuse_entry", endless)
    assert examine(0).fuse == "hang"

    def careless(entry: object, **options: object) -> None:
        Path(entry.source).write_text("")  # type: ignore[attr-defined]

    monkeypatch.setattr(build, "fuse_entry", careless)
    assert "touched" in examine(0).trace


def test_every_kind_of_damage_is_dealt() -> None:
    outcomes = [Outcome(0, "", kind, "done", "KR101") for kind in KINDS]
    assert table(outcomes).count("| 1 | 1 | 0 | 0 | 1 | 0 |") == len(KINDS)
