"""The URL of a proxy: what is read from it, what is refused, and that no text shows its password."""

from __future__ import annotations

import copy
import pickle
import traceback
from base64 import b64encode
from pprint import pformat
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_connect import (
    NO_DEADLINE,
    Attempt,
    AttemptStarted,
    ConnectFailed,
    ConnectReport,
    Endpoint,
    RaceFinished,
    Source,
)
from trio_connect._engine.circuit import Health
from trio_connect._proxy import Credentials, Proxy, parse_proxy
from trio_connect.outbound import DestinationFailed, OutboundEvent, SourceSuspended, Suspension

SECRET = "hunter2"


@pytest.mark.parametrize(
    ("url", "proxy"),
    [
        ("socks5://proxy.test:1080", Proxy("socks5", "proxy.test", 1080)),
        ("SOCKS5H://proxy.test:1080/", Proxy("socks5h", "proxy.test", 1080)),
        ("http://user:word@192.0.2.1:3128", Proxy("http", "192.0.2.1", 3128, Credentials("user", "word"))),
        ("http://user:@192.0.2.1:3128", Proxy("http", "192.0.2.1", 3128, Credentials("user", ""))),
        ("http://user:a:b@192.0.2.1:3128", Proxy("http", "192.0.2.1", 3128, Credentials("user", "a:b"))),
        ("http://us%C3%A9r:w%C3%B6rd@p:1", Proxy("http", "p", 1, Credentials("usér", "wörd"))),
        ("socks5://u@ser:word@p:65535", Proxy("socks5", "p", 65535, Credentials("u@ser", "word"))),
        ("socks5://u%3Aser:%40%2F%25@p:1", Proxy("socks5", "p", 1, Credentials("u:ser", "@/%"))),
        ("socks5://[2001:DB8::0:8]:1080", Proxy("socks5", "2001:db8::8", 1080)),
        (f"socks5://{'u' * 255}:{'w' * 255}@p:1", Proxy("socks5", "p", 1, Credentials("u" * 255, "w" * 255))),
    ],
)
def test_what_is_read(url: str, proxy: Proxy) -> None:
    assert parse_proxy(url) == proxy
    assert parse_proxy(proxy) is proxy


@pytest.mark.parametrize(
    ("proxy", "text"),
    [
        (Proxy("socks5", "proxy.test", 1080), "socks5://proxy.test:1080"),
        (Proxy("socks5h", "2001:db8::8", 1080, Credentials("user", SECRET)), "socks5h://***@[2001:db8::8]:1080"),
    ],
)
def test_how_it_is_shown(proxy: Proxy, text: str) -> None:
    assert str(proxy) == text
    assert repr(proxy) == repr(text)
    assert parse_proxy(text.replace("***@", "")) == Proxy(proxy.scheme, proxy.host, proxy.port)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("", "socks5, socks5h or http$"),
        (f"user:{SECRET}@proxy.test:1080", "socks5, socks5h or http$"),
        (f"user:{SECRET}://proxy.test:1080", "socks5, socks5h or http$"),
        (f"https://user:{SECRET}@proxy.test:1080", "socks5, socks5h or http, not 'https'"),
        (f"socks5://user:{SECRET}@proxy.test", "port from 1 to 65535, got 'proxy.test'"),
        (f"socks5://user:{SECRET}@proxy.test:0", "port from 1"),
        (f"socks5://user:{SECRET}@proxy.test:65536", "port from 1"),
        (f"socks5://user:{SECRET}@proxy.test:{'9' * 5000}", "port from 1"),
        (f"socks5://user:{SECRET}@proxy.test:²", "port from 1"),
        (f"socks5://user:{SECRET}@:1080", "host of a proxy"),
        (f"socks5://user:{SECRET}@pro xy:1080", "host of a proxy"),
        (f"socks5://user:{SECRET}@2001:db8::8:1080", "host of a proxy"),
        (f"socks5://user:{SECRET}@{'p' * 254}:1080", "host of a proxy"),
        (f"socks5://user:{SECRET}@[192.0.2.1]:1080", "IPv6 address"),
        (f"socks5://user:{SECRET}@proxy.test:1080/x", "without a path"),
        (f"socks5://user:{SECRET}/@proxy.test:1080", "%2F"),
        (f"socks5://user:{SECRET}?@proxy.test:1080", "%3F"),
        (f"socks5://user:#{SECRET}@proxy.test:1080", "%23"),
        (f"socks5://{SECRET}@proxy.test:1080", "or neither"),
        (f"socks5://:{SECRET}@proxy.test:1080", "or neither"),
        ("socks5://user:@proxy.test:1080", "1 to 255"),
        (f"socks5://user:{SECRET}é@proxy.test:1080", "ASCII"),
        (f"socks5://user:{SECRET * 40}@proxy.test:1080", "1 to 255"),
        (f"socks5://{'u' * 256}:{SECRET}@proxy.test:1080", "1 to 255"),
        (f"http://us%3Aer:{SECRET}@proxy.test:1080", "no colon"),
        (f"http://user:{SECRET}%0A@proxy.test:1080", "printable"),
        (f"http://user:{SECRET}€@proxy.test:1080", "Latin-1"),
        (f"http://user:{SECRET}%zz@proxy.test:1080", "%25"),
        (f"http://user:{SECRET}%@proxy.test:1080", "%25"),
        (f"http://user:{SECRET}%FF@proxy.test:1080", "UTF-8"),
    ],
)
def test_what_is_refused_and_that_nothing_of_the_password_is_quoted(url: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        parse_proxy(url)
    shown = "".join(traceback.format_exception(caught.value))
    assert SECRET not in shown
    assert caught.value.__context__ is None or "%" not in url


@pytest.mark.parametrize("value", [None, 1, f"socks5://user:{SECRET}@p:1".encode()])
def test_what_is_no_text(value: Any) -> None:
    with pytest.raises(TypeError, match=r"proxy must be a str such as .*, got \w+$") as caught:
        parse_proxy(value)
    assert SECRET not in str(caught.value)


@given(st.text())
def test_any_text_is_a_proxy_or_a_value_error(text: str) -> None:
    for url in (text, f"socks5://{text}", f"http://{text}@p:1"):
        try:
            proxy = parse_proxy(url)
        except ValueError:
            continue
        assert "***" in str(proxy) or proxy.credentials is None


def test_what_a_proxy_says_is_shown_without_the_password() -> None:
    assert (
        Proxy("http", "p", 1, Credentials("user", SECRET)).censored(f"no such user: user:{SECRET}")
        == "no such user: user:***"
    )
    echo = b64encode(f"user:{SECRET}".encode()).decode()
    assert Proxy("http", "p", 1, Credentials("user", SECRET)).censored(f"not for Basic {echo}") == "not for Basic ***"
    assert Proxy("http", "p", 1, Credentials("user", "")).censored("no such user") == "no such user"
    assert Proxy("http", "p", 1).censored("no such user") == "no such user"


def test_what_takes_a_source_or_a_report_apart_finds_no_password() -> None:
    source = Source(proxy=f"socks5://user:{SECRET}@proxy.test:1080")
    attempt = Attempt(endpoint=Endpoint("192.0.2.1", 80), source=source, outcome="won")
    assert source.proxy is not None
    values: tuple[attrs.AttrsInstance, ...] = (source, source.proxy, attempt, ConnectReport(attempts=(attempt,)))
    for value in values:
        for taken in (attrs.asdict(value), attrs.astuple(value), str(value), repr(value), pformat(value)):
            assert SECRET not in repr(taken)


def test_what_is_pickled_of_a_connect_has_no_password_and_a_source_by_itself_has() -> None:
    source = Source(proxy=f"http://user:{SECRET}@proxy.test:1080")
    attempt = Attempt(endpoint=Endpoint("192.0.2.1", 80), source=source, outcome="failed", errno=13, delay=0.25)
    report = ConnectReport(attempts=(attempt,))
    health = Health()
    suspended = SourceSuspended("a", "because", until=NO_DEADLINE, source=source)
    values: tuple[Any, ...] = (
        attempt, report, ConnectFailed(13, "no", report=report), suspended,
        DestinationFailed(13, "no", decision=suspended, report=report),
        AttemptStarted(0, attempt.endpoint, source, "first", 1.0), RaceFinished(report, 2.0),
        OutboundEvent(
            destination="a", what="suspended", at=1.0, before=health, after=health, cause="because", source=source
        ),
        Suspension(source, NO_DEADLINE, "because"),
    )  # fmt: skip
    for value in values:
        pickled = pickle.dumps(value)
        assert SECRET.encode() not in pickled
        again = pickle.loads(pickled)
        assert (type(again), str(again), repr(again)) == (type(value), str(value), repr(value))
    assert pickle.loads(pickle.dumps(source)) == source
    direct = attrs.evolve(attempt, source=Source(ipv4="192.0.2.9"))
    assert pickle.loads(pickle.dumps(direct)) == direct


def test_credentials_are_a_value() -> None:
    login = Credentials("user", SECRET)
    assert login == Credentials("user", SECRET)
    assert hash(login) == hash(Credentials("user", SECRET))
    assert login not in (Credentials("user", "x"), Credentials("x", SECRET), ("user", SECRET))
    assert copy.deepcopy(login) == pickle.loads(pickle.dumps(login)) == login
