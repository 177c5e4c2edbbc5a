from __future__ import annotations

import socket

from trio_connect import Answer, Attempt, ConnectReport, Endpoint, Lookup
from trio_connect._answer import LookupKind, ServiceRecord, SrvRecord
from trio_connect._lookup_text import beside_attempts, each_lookup

AGAIN = socket.gaierror(socket.EAI_AGAIN, "Temporary failure")
FOUND = Answer(("192.0.2.1",))
NO_NAME = Answer(name_exists=False)


def lookups(host: str, aaaa: Answer | OSError | None, a: Answer | OSError | None) -> tuple[Lookup, ...]:
    kinds: tuple[LookupKind, LookupKind] = ("AAAA", "A")
    return tuple(
        Lookup(
            host=host,
            kind=kind,
            started=0.0,
            ended=1.0,
            answer=said if isinstance(said, Answer) else None,
            error=said if isinstance(said, OSError) else None,
        )
        for kind, said in zip(kinds, (aaaa, a), strict=True)
    )


def report(*of_hosts: tuple[Lookup, ...]) -> ConnectReport:
    return ConnectReport(lookups=sum(of_hosts, ()))


def test_of_one_name_each_lookup_is_told() -> None:
    assert each_lookup(report(lookups("db1.test", NO_NAME, Answer()))) == ["AAAA: no such name", "A: no address"]
    assert each_lookup(report(lookups("db1.test", None, FOUND))) == ["AAAA: cancelled", "A: found"]


def test_of_several_each_name_is_told_and_once_what_its_lookups_agree_on() -> None:
    told = each_lookup(report(lookups("db1.test", NO_NAME, NO_NAME), lookups("db2.test", AGAIN, Answer())))
    assert told == ["db1.test: no such name", f"db2.test: AAAA: {AGAIN}, A: no address"]


def test_beside_attempts_errors_are_told_and_of_several_names_those_that_are_unknown() -> None:
    one = lookups("db1.test", AGAIN, FOUND)
    assert beside_attempts(report(one)) == f"the AAAA lookup of db1.test failed: {AGAIN}"
    assert beside_attempts(report(lookups("db1.test", Answer(), Answer()))) == ""
    assert beside_attempts(report(lookups("a\nb", NO_NAME, NO_NAME), lookups("ok.test", FOUND, None))) == (
        "nothing was found for a\\nb (no such name)"
    )
    assert beside_attempts(report(lookups("slow.test", None, None), lookups("half.test", Answer(), None), one)) == (
        f"the AAAA lookup of db1.test failed: {AGAIN}; the lookup of slow.test did not end"
    )
    assert beside_attempts(ConnectReport()) == ""


def test_a_name_whose_addresses_all_went_to_another_is_told():
    def failed(host: str | None, address: str = "192.0.2.1", port: int = 443) -> Attempt:
        return Attempt(endpoint=Endpoint(address, port), host=host, outcome="failed")

    def told(*attempts: Attempt, second: tuple[Lookup, ...] = lookups("db2.test", Answer(), FOUND)) -> str:
        first = lookups("db1.test", Answer(), FOUND)
        return beside_attempts(ConnectReport(lookups=first + second, attempts=attempts))

    assert told(failed("db1.test")) == "every address of db2.test was taken for one of db1.test"
    assert told(failed("db1.test"), failed("db2.test", port=444)) == ""  # it has been tried there
    assert told(failed("db1.test"), second=lookups("db2.test", None, FOUND)) == ""  # more may have come
    assert told(failed("db1.test"), second=lookups("db2.test", Answer(), Answer(("192.0.2.1", "192.0.2.2")))) == ""
    assert (
        told(failed("db1.test"), failed(None, "192.0.2.2")) == "every address of db2.test was taken for one of db1.test"
    )


def test_service_records_are_found_or_not() -> None:
    def https(services: tuple[ServiceRecord, ...] | None) -> Lookup:
        return Lookup(host="db1.test", kind="HTTPS", started=0.0, ended=0.0, records=services)

    told = each_lookup(report((https((ServiceRecord(),)),), (https(()),), (https(None),)))
    assert told == ["HTTPS: found", "HTTPS: no record", "HTTPS: cancelled"]
    # The addresses of a name are told of; that it has no records is nothing to tell.
    other = lookups("db2.test", FOUND, FOUND)
    assert beside_attempts(report((https(()),), lookups("db1.test", Answer(), Answer()), other)).startswith(
        "nothing was found for db1.test"
    )
    assert beside_attempts(report((https(()),), other)) == ""


def test_a_service_that_is_not_offered_is_told() -> None:
    dot = Lookup(host="_x._tcp.a.test", kind="SRV", started=0.0, ended=0.0, records=(SrvRecord(".", 0),))
    assert each_lookup(report((dot,))) == ["SRV: not offered there (target '.', RFC 2782)"]
