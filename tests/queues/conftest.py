"""Every test of queue sets runs over each path: the reactor, tasks on the kernel's sockets, and a socket factory's."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.support.paths import PATHS, over, without_reactor
from tests.support.sockets import Sockets

ONCE = {"test_reactor", "test_states", "test_table"}
"""Modules about one path, and those that open no set."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if metafunc.module.__name__.rpartition(".")[2] in ONCE:
        return
    if "sockets" in metafunc.fixturenames:
        metafunc.parametrize("sockets", PATHS, indirect=True)
    elif "path" in metafunc.fixturenames:
        metafunc.parametrize("path", ["reactor", "tasks"], indirect=True)


@pytest.fixture(autouse=True)
def path(request: pytest.FixtureRequest) -> Iterator[str]:
    """How operations wait: "reactor", or "tasks" as on a system without epoll."""
    name = getattr(request, "param", "reactor")
    with pytest.MonkeyPatch.context() as patch:
        if name == "tasks":
            without_reactor(patch)
        yield name


@pytest.fixture
async def sockets(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Sockets]:
    """Run the test three times: over the reactor, over tasks on kernel sockets, and with a custom socket factory."""
    with over(request.param, monkeypatch) as opened:
        yield opened
