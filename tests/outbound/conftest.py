"""Every test of outbound destinations leaves nothing open on its network."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from trio_connect.testing import VirtualNetwork


@pytest.fixture(autouse=True)
def nothing_stays_open(request: pytest.FixtureRequest) -> Iterator[None]:
    network: VirtualNetwork | None = request.getfixturevalue("vnet") if "vnet" in request.fixturenames else None
    yield
    assert network is None or network.open_sockets == ()
