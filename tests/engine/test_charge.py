"""Whom a failure is charged to. Numbers in ids are those of the invariants of outbound destinations."""

from __future__ import annotations

import errno
import itertools
from typing import Any

import pytest

from trio_connect._endpoint import Endpoint, Source
from trio_connect._engine.charge import CHARGES, Trial, charge
from trio_connect._engine.shortage import SHORTAGE

A, B = Endpoint("192.0.2.1", 25), Endpoint("2001:db8::1", 25)
ONE, TWO = Source("192.0.2.8"), Source("192.0.2.9")

TABLE = [
    ("9_no_such_address", "bind", "failed", errno.EADDRNOTAVAIL, "source"),
    ("9_a_port_needs_rights", "bind", "failed", errno.EACCES, "source"),
    ("9_wrong_family", "bind", "failed", errno.EAFNOSUPPORT, "source"),
    ("9_no_such_interface", "socket", "failed", errno.ENODEV, "source"),
    ("12_process_descriptors", "socket", "failed", errno.EMFILE, "process"),
    ("12_machine_descriptors", "socket", "failed", errno.ENFILE, "process"),
    ("12_no_buffers_in_connect", "connect", "failed", errno.ENOBUFS, "process"),
    ("12_no_memory_in_bind", "bind", "failed", errno.ENOMEM, "process"),
    ("12_descriptors_of_an_establish", "establish", "failed", errno.EMFILE, "process"),
    ("10_ports_used_up", "connect", "failed", errno.EADDRNOTAVAIL, "path"),
    ("no_such_family", "socket", "failed", errno.EAFNOSUPPORT, "route"),
    ("net_unreachable", "connect", "failed", errno.ENETUNREACH, "route"),
    ("host_unreachable", "connect", "failed", errno.EHOSTUNREACH, "route"),
    ("net_down", "connect", "failed", errno.ENETDOWN, "route"),
    ("firewall_eacces", "connect", "failed", errno.EACCES, "route"),
    ("firewall_eperm", "connect", "failed", errno.EPERM, "route"),
    ("refused", "connect", "failed", errno.ECONNREFUSED, "address"),
    ("reset", "connect", "failed", errno.ECONNRESET, "address"),
    ("silent", "connect", "timed out", errno.ETIMEDOUT, "address"),
    ("6_not_established", "establish", "failed", None, "address"),
    ("6_reset_in_the_greeting", "establish", "failed", errno.ECONNRESET, "address"),
    ("6_no_greeting", "establish", "timed out", errno.ETIMEDOUT, "address"),
    ("6_unreachable_in_the_greeting", "establish", "failed", errno.EHOSTUNREACH, "address"),
    ("won", "connect", "won", None, "nobody"),
    ("7_cancelled", "connect", "cancelled", None, "nobody"),
    ("lost", "connect", "lost", None, "nobody"),
    ("skipped", "connect", "skipped", None, "nobody"),
    ("not_tried", "connect", "not tried", None, "nobody"),
]


@pytest.mark.parametrize(
    ("phase", "outcome", "code", "charged"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE]
)
def test_charge(phase: Any, outcome: Any, code: int | None, charged: str):
    assert charge(phase, outcome, code) == charged


def test_each_row_of_the_table_is_held_here():
    told = {(row[1], row[3]) for row in TABLE}
    for phase, charges in CHARGES.items():
        for code in charges:
            assert code is None or (phase, code) in told
        assert any(row[1] == phase and row[3] not in charges and row[4] == charges[None] for row in TABLE)
    assert {row[3] for row in TABLE if row[4] == "process"} == SHORTAGE


def trial(*charges: tuple[Source | None, Endpoint, Any]) -> Trial:
    tried = Trial([A, B])
    for each in charges:
        tried.add(*each)
    return tried


def test_3_a_plan_of_which_every_address_failed_is_exhausted():
    assert trial((None, A, "address"), (None, B, "address")).verdict(every_source=True) == "exhausted"
    assert trial((None, A, "address"), (None, B, "address")).verdict(every_source=False) == "exhausted"


@pytest.mark.parametrize("mine", ["source", "process", "path"])
def test_10_trouble_of_this_side_shows_nothing(mine):
    assert trial((None, A, mine)).verdict(every_source=True) == "local"
    assert trial((None, A, mine), (None, B, "address")).verdict(every_source=True) == "local"
    assert trial((None, A, "address"), (None, B, mine)).verdict(every_source=True) == "local"
    assert trial((ONE, A, mine), (TWO, A, "address")).verdict(every_source=True) == "exhausted"
    assert trial((ONE, A, mine), (TWO, A, "route")).verdict(every_source=True) == "local"


def test_no_route_counts_when_every_usable_source_agrees():
    agreed = trial((ONE, A, "route"), (TWO, A, "route"))
    assert agreed.verdict(every_source=True) == "exhausted"
    assert agreed.verdict(every_source=False) == "local"


def test_nothing_tried_shows_nothing():
    assert trial().verdict(every_source=True) == "local"
    assert trial((None, A, "nobody")).verdict(every_source=True) == "local"


def test_what_is_left_for_another_source():
    assert trial().remaining() == [A, B]
    assert trial((ONE, A, "address"), (ONE, B, "route")).remaining() == [B]
    assert trial((ONE, A, "source"), (ONE, B, "nobody")).remaining() == [A, B]
    assert trial((ONE, A, "route"), (TWO, A, "address"), (None, B, "address")).remaining() == []


def test_the_last_attempt_from_a_source_counts():
    assert trial((None, A, "process"), (None, A, "address")).verdict(every_source=True) == "exhausted"
    assert trial((None, A, "address"), (None, A, "nobody")).verdict(every_source=True) == "exhausted"


def test_no_order_of_what_is_told_changes_the_verdict():
    told = [(ONE, A, "route"), (TWO, A, "address"), (ONE, B, "path"), (TWO, B, "address")]
    for order in itertools.permutations(told):
        assert trial(*order).verdict(every_source=True) == "exhausted"
