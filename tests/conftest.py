from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Iterator

import pytest

from kernel_rewrite.ttir.lower import compiler


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--accept", action="store_true", help="write what the golden cases produce")


EVERY_SECOND = frozenset(
    {
        "test_another_place_is_rejected",
        "test_another_kernel_is_rejected",
        "test_another_spelling_of_a_fixture_is_the_same_kernel_and_fuses",
        "test_a_spoiled_rewrite_is_rejected",
        "test_fused_and_run",
        "test_what_fuse_writes_is_equivalent",
        "test_a_wrong_file_is_found",
        "test_another_value_is_seen",
    }
)
"""Long tables of one check, each row a kernel compiled or run anew: `make test` has time for every second, `make test-long`
for the others."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    seen: Counter[str] = Counter()
    for item in items:
        if getattr(item, "originalname", "") in EVERY_SECOND:
            test = item.nodeid.partition("[")[0]
            if seen[test] % 2:
                item.add_marker(pytest.mark.long)
            seen[test] += 1


@pytest.fixture(scope="session", autouse=True)
def _cache_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test reads an answer that another run kept, or leaves one behind."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERNEL_REWRITE_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def accept(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--accept"))


@pytest.fixture(scope="session")
def installed_triton() -> tuple[int, ...]:
    """The version of the Triton under test, as (3, 7, 1)."""
    return tuple(int(part) for part in compiler().triton_version.split("+")[0].split(".")[:3])


def pytest_collection_finish() -> None:
    """What was imported and collected stays: looking for garbage among it is a tenth of the time of all tests."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
