from __future__ import annotations

import pytest

from kernel_rewrite.ttir.lower import compiler


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--accept", action="store_true", help="write what the golden cases produce")


@pytest.fixture
def accept(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--accept"))


@pytest.fixture(scope="session")
def installed_triton() -> tuple[int, ...]:
    """The version of the Triton under test, as (3, 7, 1)."""
    return tuple(int(part) for part in compiler().triton_version.split("+")[0].split(".")[:3])
