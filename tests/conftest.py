"""Fixtures of the whole suite. The brokers start when the first test asks for them, and end with the session.

Of the processes of `pytest -n 2 --dist loadgroup` one has the node and one the cluster.
"""

import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from streams.embedded.kafka import KafkaCluster

# How fast an example runs says nothing on shared cores. `make test` tries the same examples each time, so that what
# it says is about the change at hand; a search (`make test-search`) tries new ones, and more of them.
settings.register_profile("same", deadline=None, derandomize=True)
settings.register_profile("search", deadline=None, max_examples=500)
settings.load_profile("same")


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist looks for groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by the fixtures that they use, so that `-m "not kafka and not cluster"` cannot miss one."""
    for item in items:
        if item.get_closest_marker("long") and not os.environ.get("POINTSMAN_LONG_TESTS"):
            item.add_marker(pytest.mark.skip(reason="minutes long: `make test-long`"))
        for name in {"kafka", "cluster"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(name)
            item.add_marker(pytest.mark.xdist_group(name))
        if "data_dir" in getattr(item, "fixturenames", ()):
            item.add_marker("data")


@pytest.fixture(scope="session")
def kafka() -> Iterator[KafkaCluster]:
    """One Kafka node, shared: give every topic and group the suffix `run_id`."""
    with KafkaCluster(brief=True) as node:
        yield node


@pytest.fixture(scope="session")
def cluster() -> Iterator[KafkaCluster]:
    """Three Kafka nodes, shared: leave all of them running, and give every topic and group the suffix `run_id`."""
    with KafkaCluster(nodes=3, brief=True) as nodes:
        yield nodes


@pytest.fixture
def run_id() -> str:
    """A suffix of this test's own for topics, groups and transactional ids, such as `.3f9c2a01`."""
    return f".{secrets.token_hex(4)}"


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of test data, $POINTSMAN_DATA or ../shared/data; the test is skipped where there is none."""
    root = Path(__file__).parents[1]
    folder = Path(os.environ.get("POINTSMAN_DATA") or root.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"POINTSMAN_DATA: no test data at {folder}")
    return folder
