"""A name where an endpoint is expected."""

from __future__ import annotations

import copy
import pickle
import socket

import attrs

from trio_connect import Attempt, ConnectReport, Endpoint
from trio_connect._unresolved import UnresolvedEndpoint


def test_it_is_a_value_that_shows_its_name() -> None:
    name = UnresolvedEndpoint("example.test", 443)
    assert (name.host, name.port, name.family, name.scope_id) == ("example.test", 443, socket.AF_UNSPEC, 0)
    assert str(name) == "example.test:443"
    assert repr(name) == "UnresolvedEndpoint('example.test', 443)"
    for twin in (UnresolvedEndpoint("example.test", 443), pickle.loads(pickle.dumps(name)), copy.deepcopy(name)):
        assert twin == name
        assert hash(twin) == hash(name)
    assert name not in (UnresolvedEndpoint("example.test", 80), UnresolvedEndpoint("other.test", 443))


def test_nothing_can_connect_to_it() -> None:
    """An address tuple with a name in it would be looked up inside of connect(2)."""
    assert not hasattr(UnresolvedEndpoint("example.test", 443), "sockaddr")


def test_it_stands_for_an_endpoint_and_is_equal_to_none() -> None:
    name = UnresolvedEndpoint("192.0.2.1", 443)
    assert isinstance(name, Endpoint)
    assert name != Endpoint("192.0.2.1", 443)
    assert Attempt(endpoint=name, outcome="won").to_dict()["endpoint"] == "192.0.2.1:443"


def test_a_report_that_has_it_can_be_taken_apart() -> None:
    report = ConnectReport(attempts=(Attempt(endpoint=UnresolvedEndpoint("example.test", 443), outcome="won"),))
    endpoint = attrs.asdict(report)["attempts"][0]["endpoint"]
    assert endpoint == {
        "host": "example.test", "port": 443, "scope_id": 0, "flowinfo": 0, "family": socket.AF_UNSPEC
    }  # fmt: skip
    assert "example.test" in repr(attrs.astuple(report))
