"""Events as log records: the cadence, nothing when nobody listens, and no failure where an attempt only lost."""

from __future__ import annotations

import logging
from typing import Any, cast

import pytest

from trio_connect import ConnectFailed, connect, connectx, now
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
        "race.complete ms=270.0 attempts=2 winner=192.0.2.1:80",
    ]


async def test_a_failure_to_a_logger_of_ones_own(vnet, autojump_clock, caplog):
    caplog.set_level(logging.DEBUG, "mine")
    vnet.host("192.0.2.1", rtt=0.020).refuse()
    with pytest.raises(ConnectFailed):
        await connectx([("192.0.2.1", 80)], observer=log_events(logging.getLogger("mine")))
    assert [record.getMessage() for record in caplog.records if record.name == "mine"] == [
        "attempt.started n=0 endpoint=192.0.2.1:80 cause=first",
        "attempt.failed n=0 endpoint=192.0.2.1:80 outcome=failed phase=connect connection refused",
        "race.failed ms=20.0 attempts=1 winner=None",
    ]


def test_a_logger_that_is_off_has_no_observer(caplog):
    caplog.set_level(logging.INFO, "trio_connect")
    assert log_events() is None
    with pytest.raises(TypeError, match=r"logger must be a logging.Logger or None, got str"):
        log_events(cast("Any", "mine"))
