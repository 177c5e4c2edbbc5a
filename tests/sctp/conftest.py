"""Where tests of SCTP run: what needs a kernel in a guest that has it, everything else anywhere."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import trio
import trio.testing

from tests.sctp.fakenet import FakeNet
from tests.sctp.guestnet import GuestNet, guest_net
from tests.sctp.nets import Net
from trio_connect.testing import SctpNetwork


@pytest.fixture(scope="session")
def guest() -> Iterator[GuestNet]:
    # Once: in a guest a system call takes ten times as long, and two hosts are some thirty commands.
    with guest_net() as made:
        yield made


@pytest.fixture
def kernel(guest: GuestNet) -> Iterator[GuestNet]:
    """The two hosts of the guest, healed; the test's thread stands on the client."""
    with guest.client.inside():
        yield guest
    guest.heal_all()
    assert guest.associations() == []


@pytest.fixture(params=["fake", pytest.param("kernel", marks=pytest.mark.sctp)])
def where(request: pytest.FixtureRequest) -> str:
    """Where a test of behaviour runs."""
    return str(request.param)


@pytest.fixture
def clock(where: str) -> trio.testing.MockClock | None:
    """The clock of the run: virtual time for the fake."""
    return trio.testing.MockClock(autojump_threshold=0) if where == "fake" else None


@pytest.fixture
async def net(request: pytest.FixtureRequest, where: str) -> AsyncIterator[Net]:
    """Two hosts, on the fake or in the guest."""
    if where == "kernel":
        yield request.getfixturevalue("kernel")
    else:
        with SctpNetwork() as network:
            yield FakeNet(network)
