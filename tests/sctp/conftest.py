"""Where tests of SCTP run: what needs a kernel in a guest that has it, everything else anywhere."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.sctp.guestnet import GuestNet, guest_net
from tests.sctp.nets import Net


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


@pytest.fixture(params=[pytest.param("kernel", marks=pytest.mark.sctp)])
def net(request: pytest.FixtureRequest) -> Net:
    """Two hosts, on the fake or in the guest."""
    made: Any = request.getfixturevalue(request.param)
    assert isinstance(made, Net)
    return made


@pytest.fixture
def clock(request: pytest.FixtureRequest, net: Net) -> object:
    """The clock of the fake's run."""
    return None
