import errno
import json
import pickle
from math import inf, nan
from socket import AF_INET, AF_INET6, EAI_AGAIN, gaierror

import attrs
import pytest

from trio_connect._answer import KIND_OF_FAMILY, Answer, Lookup, MailRecord, ServiceRecord, SrvRecord


def test_an_answer_takes_any_sequence_of_addresses():
    assert Answer() == Answer((), None, True)
    assert Answer(["192.0.2.1"]).addresses == ("192.0.2.1",)
    assert Answer(iter(["192.0.2.1"])).addresses == ("192.0.2.1",)
    assert Answer(("192.0.2.1",), 300).ttl == 300
    assert hash(Answer(("192.0.2.1",))) == hash(Answer(("192.0.2.1",)))
    assert pickle.loads(pickle.dumps(Answer(("192.0.2.1",), 1.5))) == Answer(("192.0.2.1",), 1.5)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        Answer().ttl = 3.0  # type: ignore[misc]


@pytest.mark.parametrize("bad", ["192.0.2.1", 7, None, [b"192.0.2.1"], ["192.0.2.1", None]])
def test_addresses_are_a_sequence_of_str(bad):
    with pytest.raises(TypeError, match="sequence of str"):
        Answer(bad)


def test_a_ttl_is_a_duration():
    for wrong in ("1", True):
        with pytest.raises(TypeError, match="ttl"):
            Answer((), wrong)  # type: ignore[arg-type]
    for bad in (-1, nan, inf):
        with pytest.raises(ValueError, match="ttl"):
            Answer((), bad)


def test_a_name_that_does_not_exist_has_no_addresses():
    assert not Answer(name_exists=False).name_exists
    with pytest.raises(ValueError, match=r"192\.0\.2\.1"):
        Answer(("192.0.2.1",), name_exists=False)


def test_each_family_has_a_kind_of_its_own():
    assert KIND_OF_FAMILY == {AF_INET6: "AAAA", AF_INET: "A"}


@pytest.mark.parametrize(
    ("lookup", "expected"),
    [
        (
            Lookup(host="h.test", kind="A", started=0.0, ended=0.0101, answer=Answer(("192.0.2.1",), 60)),
            {"addresses": ["192.0.2.1"], "ttl_us": 60_000_000, "name_exists": True, "errno": None, "error": None},
        ),
        (
            Lookup(host="h.test", kind="A", started=0.0, ended=0.0101, error=gaierror(EAI_AGAIN, "try again")),
            {
                "addresses": None,
                "ttl_us": None,
                "name_exists": None,
                "errno": EAI_AGAIN,
                "error": f"[Errno {EAI_AGAIN}] try again",
            },
        ),
        (
            Lookup(host="h.test", kind="A", started=0.0, ended=0.0101, error=TimeoutError(errno.ETIMEDOUT, "late")),
            {
                "addresses": None,
                "ttl_us": None,
                "name_exists": None,
                "errno": errno.ETIMEDOUT,
                "error": "[Errno 110] late",
            },
        ),
        (
            Lookup(host="h.test", kind="A", started=0.0, ended=0.0101),
            {"addresses": None, "ttl_us": None, "name_exists": None, "errno": None, "error": None},
        ),
    ],
    ids=["answered", "failed", "timed out", "cancelled"],
)
def test_a_lookup_is_json_safe(lookup, expected):
    data = lookup.to_dict()
    assert json.loads(json.dumps(data)) == data
    assert data == {"host": "h.test", "kind": "A", "started_us": 0, "ended_us": 10_100, "records": None, **expected}


RECORDS = [
    (lambda: MailRecord(3), TypeError, "host must be a str, got 3"),  # type: ignore[arg-type]
    (lambda: MailRecord(""), ValueError, "host must not be empty; the name of nothing is '.'"),
    (lambda: MailRecord("mx.test", -1), ValueError, "preference"),
    (lambda: MailRecord("mx.test", True), TypeError, "preference"),
    (lambda: MailRecord("mx.test", 10, -1.0), ValueError, "ttl must be at least 0 seconds"),
    (lambda: SrvRecord("", 25), ValueError, "target must not be empty"),
    (lambda: SrvRecord("x.test", 65_536), ValueError, "port"),
    (lambda: SrvRecord("x.test", 25, 65_536), ValueError, "priority"),
    (lambda: SrvRecord("x.test", 25, 0, -1), ValueError, "weight"),
    (lambda: SrvRecord("x.test", 25, 0, 0, "1"), TypeError, "ttl must be a number"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("make", "error", "text"), RECORDS, ids=range(len(RECORDS)))
def test_records_of_mail_hosts_and_services_refuse(make, error, text):
    with pytest.raises(error, match=text):
        make()


def test_records_of_mail_hosts_and_services():
    assert repr(MailRecord("mx.test")) == "MailRecord(host='mx.test')"
    assert MailRecord("mx.test", 10, 60.0) == MailRecord("mx.test", preference=10, ttl=60.0)
    assert SrvRecord("x.test", 5269, 10, 5, 60.0) == SrvRecord("x.test", 5269, priority=10, weight=5, ttl=60.0)
    assert SrvRecord(".", 0).target == "."


def test_a_record_of_a_service_is_json_safe():
    data = SrvRecord("x.test", 5269, 10, 5, 60.0).to_dict()
    assert data == {"target": "x.test", "port": 5269, "priority": 10, "weight": 5, "ttl": 60.0}
    assert json.loads(json.dumps(data)) == data


# --- service records --------------------------------------------------------------------------------------------------


def test_a_service_record_has_tuples_and_is_json_safe():
    record = ServiceRecord(priority=2, target="alt.test", port=8443, alpn=["h2"], ipv4hint=["192.0.2.1"])
    assert record.alpn == ("h2",)
    assert record.to_dict() == {
        "priority": 2, "target": "alt.test", "port": 8443, "alpn": ["h2"], "ipv4hint": ["192.0.2.1"], "ipv6hint": [],
        "mandatory": [],
    }  # fmt: skip
    assert repr(ServiceRecord(priority=0, target="alias.test")) == "ServiceRecord(priority=0, target='alias.test')"
    lookup = Lookup(host="h.test", kind="HTTPS", started=0.0, ended=0.1, records=(record,))
    assert lookup.to_dict()["records"] == [record.to_dict()]
    assert SrvRecord("a.test", 1, 2, 3, 4.0).to_dict() == {
        "target": "a.test", "port": 1, "priority": 2, "weight": 3, "ttl": 4.0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("kwargs", "error", "match"),
    [
        ({"priority": -1}, ValueError, "priority must be between 0 and 65535"),
        ({"priority": "1"}, TypeError, "priority"),
        ({"port": 70_000}, ValueError, "port must be between"),
        ({"target": ""}, ValueError, "target must not be empty"),
        ({"target": b"x"}, TypeError, "target must be a str"),
        ({"alpn": "h2"}, TypeError, "must be a sequence of str, got 'h2'"),
        ({"ipv4hint": [1]}, TypeError, "must be a sequence of str, got 1 in it"),
        ({"mandatory": 3}, TypeError, "must be a sequence of str"),
    ],
)
def test_a_service_record_that_cannot_be(kwargs, error, match):
    with pytest.raises(error, match=match):
        ServiceRecord(**kwargs)
