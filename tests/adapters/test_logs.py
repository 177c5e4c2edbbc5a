"""Events as log records: the cadence, nothing when nobody listens, and no failure where an attempt only lost."""

from __future__ import annotations

import logging
import socket
from typing import Any, cast

import pytest

from trio_connect import ConnectFailed, NetworkFilter, connect, connectx, now
from trio_connect.adapters.logs import log_events
from trio_connect.testing import echo


async def test_the_cadence_of_a_race(vnet, autojump_clock, caplog):
    caplog.set_level(logging.DEBUG, "trio_connect")
    vnet.dns("host.test", ["2001:db8::1", "192.0.2.1"])
    vnet.host("2001:db8::1").blackhole()
    vnet.host("192.0.2.1", rtt=0.020).listen(80, echo)
    async with await connect("host.test", 80, now() + 5_000, observer=log_events()):
        pass
    said = [record.getMessage() for record in caplog.records if record.name == "trio_connect"]
    # The two lookups are asked and answered at one instant, in either order.
    assert sorted(said[:4]) == [
        "lookup.complete host=host.test kind=A ms=0.0 ['192.0.2.1']",
        "lookup.complete host=host.test kind=AAAA ms=0.0 ['2001:db8::1']",
        "lookup.started host=host.test kind=A",
        "lookup.started host=host.test kind=AAAA",
    ]
    assert said[4:] == [
        "attempt.started n=0 endpoint=[2001:db8::1]:80 cause=first",
        "attempt.started n=1 endpoint=192.0.2.1:80 cause=delay",
        "attempt.complete n=0 endpoint=[2001:db8::1]:80 outcome=lost phase=connect",
        "attempt.complete n=1 endpoint=192.0.2.1:80 outcome=won phase=connect",
        "race.complete to=host.test ms=270.0 attempts=2 winner=192.0.2.1:80",
    ]


async def test_a_failure_to_a_logger_of_ones_own(vnet, autojump_clock, caplog):
    caplog.set_level(logging.DEBUG, "mine")
    vnet.host("192.0.2.1", rtt=0.020).refuse()
    with pytest.raises(ConnectFailed):
        await connectx([("192.0.2.1", 80)], observer=log_events(logging.getLogger("mine")))
    assert [record.getMessage() for record in caplog.records if record.name == "mine"] == [
        "attempt.started n=0 endpoint=192.0.2.1:80 cause=first",
        "attempt.failed n=0 endpoint=192.0.2.1:80 outcome=failed phase=connect connection refused",
        "race.failed to=192.0.2.1:80 ms=20.0 attempts=1 winner=None connection refused",
    ]


async def last_record(caplog, hosts, **options):
    """Return what is logged at the end of a call that fails."""
    caplog.set_level(logging.DEBUG, "trio_connect")
    with pytest.raises(OSError):
        await connect(hosts, 80, observer=log_events(), **options)
    return caplog.records[-1].getMessage()


async def test_the_last_record_says_whom_a_call_was_for_and_why_it_failed(vnet, autojump_clock, caplog):
    vnet.dns("inside.test", ["192.0.2.1"])
    guard = NetworkFilter(deny=["192.0.2.0/24"])
    assert await last_record(caplog, "inside.test", address_filter=guard) == (
        "race.failed to=inside.test ms=0.0 attempts=0 winner=None"
        " not allowed by the address filter: in 192.0.2.0/24 (denied)"
    )
    vnet.dns("gone.test", a_error=socket.EAI_AGAIN, aaaa=[])
    assert await last_record(caplog, "gone.test") == (
        "race.failed to=gone.test ms=0.0 attempts=0 winner=None Temporary failure in name resolution"
    )
    vnet.dns("empty.test")
    assert await last_record(caplog, "empty.test") == (
        "race.failed to=empty.test ms=0.0 attempts=0 winner=None no address"
    )
    vnet.host("192.0.2.1").blackhole()
    vnet.host("192.0.2.2").listen(80, echo)
    vnet.dns("inside.test", ["192.0.2.1", "192.0.2.2"])  # the second of which is not due in time
    assert await last_record(caplog, "inside.test", deadline=now() + 100) == (
        "race.failed to=inside.test ms=100.0 attempts=1 winner=None cancelled"
    )


async def test_the_last_record_of_a_call_for_many_names_stays_short(vnet, autojump_clock, caplog):
    for number in range(1, 6):
        vnet.dns(f"host{number}.test", [f"192.0.2.{number}"])
        vnet.host(f"192.0.2.{number}").refuse()
    assert await last_record(caplog, [f"host{number}.test" for number in range(1, 6)]) == (
        "race.failed to=host1.test,host2.test,host3.test,2 more ms=40.0 attempts=5 winner=None connection refused"
    )


def test_a_logger_that_is_off_has_no_observer(caplog):
    caplog.set_level(logging.INFO, "trio_connect")
    assert log_events() is None
    with pytest.raises(TypeError, match=r"logger must be a logging.Logger or None, got str"):
        log_events(cast("Any", "mine"))
