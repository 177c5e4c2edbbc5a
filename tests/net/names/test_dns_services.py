"""Service records by `DnsResolver`: which names it asks for, and what it makes of the records."""

from __future__ import annotations

import socket
from typing import Any

import pytest
import trio
import trio.testing

from tests.support.dnsserver import fault, virtual_dns
from tests.support.etc import Etc
from trio_connect import DnsResolver, ServiceRecord

NS = "192.0.2.53"


def resolver(**kwargs: Any) -> DnsResolver:
    return DnsResolver([NS], **{"services": "https", **kwargs})


async def test_the_records_of_port_443_are_at_the_host_itself(autojump_clock):
    with virtual_dns({"web.test HTTPS": ["1 ."]}) as server:
        assert await resolver().services("Web.Test", 443) == (ServiceRecord(alpn=("http/1.1",)),)
        assert server.asked == ["web.test HTTPS"]


async def test_those_of_another_port_are_at_a_name_of_its_own(autojump_clock):
    zone = {"_8443._https.web.test HTTPS": ["1 alt.test.", "2 ."], "alias.test HTTPS": ["1 ."]}
    with virtual_dns(zone) as server:
        found = await resolver().services("web.test", 8443)
        # "." is the owner of the record (RFC 9460 section 2.5.2), which is not the host here.
        assert sorted(record.target for record in found) == ["_8443._https.web.test.", "alt.test."]
        await resolver().services("alias.test.", 0)
        assert server.asked == ["_8443._https.web.test HTTPS", "alias.test HTTPS"]


async def test_another_scheme_has_svcb_records(autojump_clock):
    zone = {"_853._dns.ns.test SVCB": ["1 ns.test. alpn=dot port=853 key667=x"]}
    with virtual_dns(zone) as server:
        found = await resolver(services="dns").services("ns.test", 853)
        assert found == (ServiceRecord(target="ns.test.", port=853, alpn=("dot",)),)
        assert await resolver(services="dns", alpn=["doq"]).services("ns.test", 853) == ()
        assert set(server.asked) == {"_853._dns.ns.test SVCB"}


async def test_every_parameter_is_read(autojump_clock):
    text = (
        "7 alt.test. mandatory=alpn,ipv4hint,key667 alpn=h2,h3 no-default-alpn port=8443 "
        "ipv4hint=192.0.2.1,192.0.2.2 ipv6hint=2001:db8::1 key667=secret"
    )
    with virtual_dns({"web.test HTTPS": [text]}):
        (record,) = await resolver(alpn=("h3", "h2")).services("web.test", 443)
    assert record == ServiceRecord(
        priority=7,
        target="alt.test.",
        port=8443,
        alpn=("h3", "h2"),
        ipv4hint=("192.0.2.1", "192.0.2.2"),
        ipv6hint=("2001:db8::1",),
        mandatory=("alpn", "ipv4hint", "key667"),
    )


@pytest.mark.parametrize(
    ("text", "alpn", "common"),
    [
        ("1 .", None, ("http/1.1",)),
        ("1 . alpn=h2", None, ("http/1.1",)),
        ("1 . alpn=h2", ("h2", "http/1.1"), ("h2", "http/1.1")),
        ("1 . alpn=h2 no-default-alpn", ("h2", "http/1.1"), ("h2",)),
        ("1 . alpn=h2 no-default-alpn", None, None),
        ("1 . alpn=h3 no-default-alpn", ("h2", "http/1.1"), None),
    ],
)
async def test_line_61_protocols_in_common(text, alpn, common, autojump_clock):
    with virtual_dns({"web.test HTTPS": [text]}):
        found = await resolver(alpn=alpn).services("web.test", 443)
    assert [record.alpn for record in found] == ([] if common is None else [common])


async def test_an_alias_has_no_protocols_and_is_left_to_the_caller(autojump_clock):
    with virtual_dns({"web.test HTTPS": ["0 cdn.test."]}):
        assert await resolver().services("web.test", 443) == (ServiceRecord(priority=0, target="cdn.test."),)


async def test_behind_a_cname_the_owner_is_the_target(autojump_clock):
    zone = {"www.test CNAME": "web.test.", "web.test HTTPS": ["1 ."]}
    with virtual_dns(zone):
        (record,) = await resolver().services("www.test", 443)
        assert record.target == "web.test."


async def test_records_whose_target_is_no_name_are_left_out(autojump_clock):
    with virtual_dns({"web.test HTTPS": [r"1 a\032b.test.", "2 alt.test."]}):
        assert [record.target for record in await resolver().services("web.test", 443)] == ["alt.test."]


async def test_a_malformed_record_is_an_error_and_asked_for_once_in_a_minute(autojump_clock):
    with virtual_dns({"web.test HTTPS": fault("1 . alpn=h2", malformed=True)}) as server:
        one = resolver()
        for pause in (0, 59, 2):
            await trio.sleep(pause)
            with pytest.raises(OSError, match=r"HTTPS of web\.test: 192\.0\.2\.53:53 has a malformed HTTPS record"):
                await one.services("web.test", 443)
        assert len(server.asked) == 2


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "a.localhost"])
async def test_nobody_is_asked_for_the_services_of_this_machine(host, autojump_clock):
    with virtual_dns({}) as server:
        assert await resolver().services(host, 443) == ()
        assert server.asked == []


async def test_a_name_of_the_hosts_file_has_no_services(autojump_clock, tmp_path, monkeypatch):
    etc = Etc(tmp_path, monkeypatch)
    etc.write(resolv=f"nameserver {NS}\n", hosts="192.0.2.1 web.test\n")
    with virtual_dns({"web.test HTTPS": ["1 ."]}) as server:
        system = DnsResolver(services="https", optimistic=True)
        assert await system.services("web.test", 443) == ()
        assert server.asked == []


async def test_a_host_that_leaves_no_room_for_port_and_scheme_has_no_services(autojump_clock):
    """Nothing can be called so; a stranger may choose the host, in a redirect say."""
    longest = ".".join(["a" * 63, "b" * 63, "c" * 63, "d" * 61])
    with virtual_dns({f"{longest} HTTPS": ["1 ."]}) as server:
        one = resolver()
        with trio.testing.assert_checkpoints():
            assert await one.services(longest, 8443) == ()
        assert server.asked == []
        assert len(await resolver().services(longest, 443)) == 1


async def test_a_domain_of_the_search_list_that_cannot_be_completes_nothing(autojump_clock, tmp_path, monkeypatch):
    etc = Etc(tmp_path, monkeypatch)
    etc.write(resolv=f"nameserver {NS}\nsearch dev..test {'x' * 64}.test prod.test\n")
    with virtual_dns({"web.prod.test A": ["192.0.2.1"]}) as server:
        assert (await DnsResolver().addresses("web", socket.AF_INET)).addresses == ("192.0.2.1",)
        assert server.asked == ["web.prod.test A"]


async def test_services_are_those_of_the_candidate_that_the_addresses_are_of(autojump_clock, tmp_path, monkeypatch):
    etc = Etc(tmp_path, monkeypatch)
    etc.write(resolv=f"nameserver {NS}\nsearch dev.test prod.test\n")
    zone = {"web.dev.test A": ["192.0.2.1"], "web.prod.test HTTPS": ["1 ."], "db.prod.test HTTPS": ["1 ."]}
    with virtual_dns(zone) as server:
        system = DnsResolver(services="https")
        assert await system.services("web", 443) == ()
        assert server.asked == ["web.dev.test HTTPS", "web.dev.test AAAA", "web.dev.test A"]
        assert len(await system.services("db", 443)) == 1
        assert await system.services("nope", 443) == ()


@pytest.mark.parametrize(
    ("kwargs", "error", "match"),
    [
        ({"services": 3}, TypeError, "services must be the scheme"),
        ({"services": "HTTPS"}, ValueError, "services must be the scheme"),
        ({"services": ""}, ValueError, "services must be the scheme"),
        ({"services": "wss"}, ValueError, 'those of "https"'),
        ({"services": None, "alpn": ("h2",)}, ValueError, "it needs services"),
        ({"alpn": "h2"}, TypeError, "alpn must be a sequence"),
        ({"alpn": 3}, TypeError, "alpn must be a sequence"),
        ({"alpn": ()}, ValueError, "at least one"),
        ({"alpn": [b"h2"]}, ValueError, "names of protocols"),
        ({"optimistic": 1}, TypeError, "optimistic must be"),
    ],
)
def test_bad_arguments(kwargs, error, match):
    with pytest.raises(error, match=match):
        resolver(**kwargs)
