from __future__ import annotations

import socket
import threading
from ipaddress import ip_address
from socket import AF_INET, AF_INET6, SOCK_STREAM, gaierror

import pytest
import trio
import trio.testing

from trio_connect._answer import Answer
from trio_connect._net.names.resolve import (
    SYSTEM_RESOLVER,
    Resolver,
    StaticResolver,
    SystemResolver,
    check_host,
    cleaned,
    custom_resolver,
    numeric,
)
from trio_connect._text import shown

NODATA = getattr(socket, "EAI_NODATA", socket.EAI_NONAME)
ADDRFAMILY = getattr(socket, "EAI_ADDRFAMILY", socket.EAI_NONAME)


def entry4(host):
    return (AF_INET, SOCK_STREAM, 6, "", (host, 0))


def entry6(host, scope=0):
    return (AF_INET6, SOCK_STREAM, 6, "", (host, 0, 0, scope))


class FakeGetaddrinfo:
    """Stands in for libc: answers at once, or blocks names until they are let go."""

    def __init__(self, monkeypatch):
        self.result = [entry6("2001:db8::1"), entry4("192.0.2.1")]
        self.error = None
        self.calls = []
        self.threads = []
        self.blocked = {}
        self.entered = {}
        monkeypatch.setattr(socket, "getaddrinfo", self)

    def block(self, host):
        self.blocked[host] = threading.Event()
        self.entered[host] = 0

    def release(self):
        for event in self.blocked.values():
            event.set()

    def __call__(self, host, port, family=0, type=0, proto=0, flags=0):
        self.calls.append((host, port, family, type, proto, flags))
        self.threads.append(threading.current_thread())
        name = host.decode() if isinstance(host, bytes) else host
        if name in self.blocked:
            self.entered[name] += 1
            assert self.blocked[name].wait(30)
        if self.error is not None:
            raise self.error
        return [entry for entry in self.result if family in (0, entry[0])]


@pytest.fixture
def libc(monkeypatch):
    fake = FakeGetaddrinfo(monkeypatch)
    yield fake
    fake.release()


async def until(condition):
    """Real threads are involved, so virtual time is of no use."""
    with trio.fail_after(20):
        while not condition():  # noqa: ASYNC110 - threads set no trio.Event
            await trio.sleep(0.001)


# ---------------------------------------------------------------------- hosts at the door


@pytest.mark.parametrize(
    "host",
    [
        "example.org",
        "example.org.",
        "EXAMPLE.org",
        "localhost",
        "a",
        "_sip._tcp.example.org",
        "a-b.example",
        "bücher.example",
        "a" * 63 + ".example",
        ".".join(["a" * 49] * 5) + ".abc",  # 253 bytes
        ".".join(["a" * 49] * 5) + ".abc.",
        "192.0.2.1",
        "2001:db8::1",
        "fe80::1%eth0",
        "127.1",
        "1.2.3.4.",
        "*.example",
        "under_score",
    ],
)
def test_good_hosts_come_back_unchanged(host):
    assert check_host(host) is host


@pytest.mark.parametrize(
    ("host", "rule"),
    [
        (".", "1 to 63"),
        ("..", "1 to 63"),
        ("a..b", "1 to 63"),
        (".example", "1 to 63"),
        ("example..", "1 to 63"),
        ("a" * 64 + ".example", "1 to 63"),
        (".".join(["a" * 49] * 5) + ".abcd", "at most 253 bytes"),
        ("a\0b", "NUL"),
        ("a\x1b[31m", "control"),
        ("a\x7f", "control"),
        ("a" * 1000, "at most 253 bytes"),
        ("[2001:db8::1]", "without brackets"),
        ("example.org:443", "argument of its own"),
        ("2001:db8::zz", "numeric address"),
        ("☃.example", "IDNA"),
        ("\ud800.example", "IDNA"),
        ("ü" * 70, "IDNA"),
    ],
)
def test_bad_hosts_are_refused_naming_value_and_rule(host, rule):
    with pytest.raises(ValueError, match=rule) as caught:
        check_host(host)
    assert shown(host) in str(caught.value)
    assert type(caught.value) is ValueError


@pytest.mark.parametrize("host", [b"example.org", None, 7, ("192.0.2.1", 80)])
def test_a_host_is_a_str(host):
    with pytest.raises(TypeError, match="a host is a str"):
        check_host(host)


@pytest.mark.parametrize(
    ("host", "text"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:DB8:0::1", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1%eth0"),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.1"),
        # inet_aton's other spellings are names here.
        ("127.1", None),
        ("0x7f.1", None),
        ("2130706433", None),
        ("192.0.2.01", None),
        ("example.org", None),
    ],
)
def test_numeric(host, text):
    found = numeric(host)
    assert found == text or (found is not None and ip_address(found) == ip_address(text))


# ---------------------------------------------------------------------- answers of any resolver


@pytest.mark.parametrize(
    ("addresses", "family", "expected"),
    [
        (("2001:db8::1", "192.0.2.1"), AF_INET6, ("2001:db8::1",)),
        (("2001:db8::1", "192.0.2.1"), AF_INET, ("192.0.2.1",)),
        (("2001:db8::2", "2001:DB8:0::2", "2001:db8::1", "2001:db8::2"), AF_INET6, ("2001:db8::2", "2001:db8::1")),
        (("fe80::1%2", "fe80::1%3", "fe80::1", "fe80::1%2"), AF_INET6, ("fe80::1%2", "fe80::1%3", "fe80::1")),
        ((), AF_INET, ()),
    ],
)
def test_answers_are_filtered_by_family_and_each_address_comes_once(addresses, family, expected):
    assert cleaned(Answer(addresses, 30.0), family) == Answer(expected, 30.0)


def test_a_clean_answer_is_not_copied():
    answer = Answer(("192.0.2.1", "192.0.2.2"), 5)
    assert cleaned(answer, AF_INET) is answer
    assert cleaned(Answer(name_exists=False), AF_INET) == Answer(name_exists=False)


def test_a_resolver_that_answers_nonsense_is_told_so():
    with pytest.raises(ValueError, match=r"numeric addresses, got 'cname\.example'"):
        cleaned(Answer(("cname.example",)), AF_INET)
    with pytest.raises(TypeError, match="returns an Answer, got None"):
        cleaned(None, AF_INET)  # type: ignore[arg-type]


# ---------------------------------------------------------------------- the system's resolver


def test_both_are_resolvers():
    assert isinstance(SYSTEM_RESOLVER, Resolver)
    assert isinstance(StaticResolver({}), Resolver)
    assert not isinstance(object(), Resolver)


async def test_one_family_is_asked_for_with_the_system_in_a_thread(libc):
    libc.result = [entry6("2001:db8::2"), entry6("2001:db8::1"), entry6("2001:db8::2"), entry4("192.0.2.1")]
    assert await SystemResolver().addresses("Name.test.", AF_INET6) == Answer(("2001:db8::2", "2001:db8::1"))
    assert await SystemResolver().addresses("Name.test.", AF_INET) == Answer(("192.0.2.1",))
    assert libc.calls == [(b"Name.test.", 0, family, SOCK_STREAM, 0, 0) for family in (AF_INET6, AF_INET)]
    assert threading.current_thread() not in libc.threads


async def test_entries_of_another_family_are_dropped(libc, monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: [entry4("192.0.2.1"), entry6("2001:db8::1")])
    assert await SystemResolver().addresses("name.test", AF_INET6) == Answer(("2001:db8::1",))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: [])
    assert await SystemResolver().addresses("name.test", AF_INET6) == Answer()


async def test_line_41_zones_survive(libc):
    libc.result = [entry6("fe80::1", 2), entry6("fe80::1", 3), entry6("fe80::2%eth0", 2), entry6("2001:db8::1")]
    answer = await SystemResolver().addresses("printer.local", AF_INET6)
    assert answer.addresses == ("fe80::1%2", "fe80::1%3", "fe80::2%eth0", "2001:db8::1")


async def test_names_are_encoded_by_trio_not_by_python(libc):
    # IDNA 2003, which Python's own socket module uses, would ask for "strasse".
    await SystemResolver().addresses("straße.test", AF_INET)
    assert libc.calls[0][0] == b"xn--strae-oqa.test"


@pytest.mark.parametrize("code", sorted({socket.EAI_NONAME, NODATA, ADDRFAMILY}))
async def test_line_19_a_missing_name_or_family_is_a_negative_answer(libc, code):
    libc.error = gaierror(code, "nothing")
    answer = await SystemResolver().addresses("name.test", AF_INET)
    assert answer == Answer(name_exists=code != socket.EAI_NONAME)


@pytest.mark.parametrize("code", [socket.EAI_AGAIN, socket.EAI_FAIL, socket.EAI_MEMORY])
async def test_other_failures_are_errors_with_their_code(libc, code):
    libc.error = gaierror(code, "trouble")
    with pytest.raises(gaierror) as caught:
        await SystemResolver().addresses("name.test", AF_INET)
    assert caught.value.errno == code


@pytest.mark.parametrize("resolver", [SystemResolver(), StaticResolver({})])
async def test_a_numeric_host_is_its_own_answer_and_takes_no_thread(libc, resolver):
    for host, family, addresses in [
        ("192.0.2.1", AF_INET, ("192.0.2.1",)),
        ("192.0.2.1", AF_INET6, ()),
        ("2001:DB8::1", AF_INET6, ("2001:db8::1",)),
        ("fe80::1%eth0", AF_INET6, ("fe80::1%eth0",)),
    ]:
        with trio.testing.assert_checkpoints():
            assert await resolver.addresses(host, family) == Answer(addresses)
    assert libc.calls == []


@pytest.mark.parametrize("resolver", [SystemResolver(), StaticResolver({})])
async def test_bad_hosts_never_reach_the_system(libc, resolver):
    for bad in ("", "a\0b", "a" * 64):
        with pytest.raises(ValueError, match="host"):
            await resolver.addresses(bad, AF_INET)
    with pytest.raises(TypeError):
        await resolver.addresses(b"name.test", AF_INET)
    assert libc.calls == []


async def test_localhost_is_the_systems_business(libc):
    libc.result = [entry4("127.0.0.1")]
    assert await SystemResolver().addresses("localhost", AF_INET) == Answer(("127.0.0.1",))
    assert libc.calls[0][0] == b"localhost"


async def test_other_spellings_of_ipv4_are_left_to_the_system(libc):
    libc.result = [entry4("127.0.0.1")]
    assert await SystemResolver().addresses("127.1", AF_INET) == Answer(("127.0.0.1",))
    assert libc.calls[0][0] == b"127.1"


# ---------------------------------------------------------------------- cancelled lookups and their threads


async def test_line_77_a_cancelled_lookup_leaves_its_thread_and_nothing_else(libc):
    resolver = SystemResolver()
    running, threads = resolver._limits()
    libc.block("stuck.test")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(resolver.addresses, "stuck.test", AF_INET)
        await until(lambda: libc.entered["stuck.test"])
        assert (running.borrowed_tokens, threads.borrowed_tokens) == (1, 1)
        nursery.cancel_scope.cancel()
    assert (running.borrowed_tokens, threads.borrowed_tokens) == (0, 1)
    assert trio.to_thread.current_default_thread_limiter().borrowed_tokens == 0
    libc.release()
    await until(lambda: threads.borrowed_tokens == 0)


async def test_cancelled_lookups_do_not_starve_new_ones(libc):
    # More of them than Trio's own pool has threads, and many more than may run at a time.
    resolver = SystemResolver(concurrency=4, max_threads=64)
    libc.block("stuck.test")
    for round_ in range(1, 13):
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(resolver.addresses, "stuck.test", AF_INET)
            await until(lambda: libc.entered["stuck.test"] == 4 * round_)  # noqa: B023
            nursery.cancel_scope.cancel()
    assert resolver._limits()[1].borrowed_tokens == 48
    with trio.fail_after(20):
        assert await resolver.addresses("good.test", AF_INET) == Answer(("192.0.2.1",))
        assert await trio.to_thread.run_sync(lambda: "the rest of the program") == "the rest of the program"
    libc.release()
    await until(lambda: resolver._limits()[1].borrowed_tokens == 0)


async def test_threads_are_bounded_and_lookups_wait_for_one(libc):
    resolver = SystemResolver(concurrency=1, max_threads=2)
    libc.block("stuck.test")
    for round_ in (1, 2):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(resolver.addresses, "stuck.test", AF_INET)
            await until(lambda: libc.entered["stuck.test"] == round_)  # noqa: B023
            nursery.cancel_scope.cancel()
    answers = []

    async def ask():
        answers.append(await resolver.addresses("good.test", AF_INET))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await until(lambda: resolver._limits()[1].statistics().tasks_waiting == 1)
        assert answers == []
        libc.release()
    assert answers == [Answer(("192.0.2.1",))]


async def test_lookups_at_a_time_are_bounded(libc):
    resolver = SystemResolver(concurrency=2)
    libc.block("slow.test")
    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(resolver.addresses, "slow.test", AF_INET)
        await until(lambda: libc.entered["slow.test"] == 2)
        await until(lambda: resolver._limits()[0].statistics().tasks_waiting == 3)
        assert libc.entered["slow.test"] == 2
        libc.release()
    assert libc.entered["slow.test"] == 5


def test_limits_are_those_of_the_run(libc):
    # A thread that outlives its run never gives its slot back; the next run must not miss it.
    resolver = SystemResolver(concurrency=1, max_threads=1)
    libc.block("stuck.test")

    async def abandon():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(resolver.addresses, "stuck.test", AF_INET)
            await until(lambda: libc.entered["stuck.test"])
            nursery.cancel_scope.cancel()

    async def ask():
        with trio.fail_after(20):
            return await resolver.addresses("good.test", AF_INET)

    trio.run(abandon)
    assert trio.run(ask) == Answer(("192.0.2.1",))


@pytest.mark.parametrize("name", ["concurrency", "max_threads"])
def test_limits_are_checked_at_the_door(name):
    for bad in (True, 1.0, None, "8"):
        with pytest.raises(TypeError, match=name):
            SystemResolver(**{name: bad})  # type: ignore[arg-type]
    for low in (0, -1):
        with pytest.raises(ValueError, match=name):
            SystemResolver(**{name: low})


def test_there_are_as_many_threads_as_lookups():
    SystemResolver(concurrency=3, max_threads=3)
    with pytest.raises(ValueError, match=r"at least concurrency \(3\), got 2"):
        SystemResolver(concurrency=3, max_threads=2)


# ---------------------------------------------------------------------- a resolver of Trio's


class TrioResolver(trio.abc.HostnameResolver):
    def __init__(self):
        self.calls = []
        self.result = [entry6("fe80::1", 4), entry4("192.0.2.1")]
        self.error = None

    async def getaddrinfo(self, host, port, family=0, type=0, proto=0, flags=0):
        self.calls.append((host, port, family, type, proto, flags))
        await trio.sleep(0.25)
        if self.error is not None:
            raise self.error
        return self.result

    async def getnameinfo(self, sockaddr, flags):
        raise NotImplementedError


async def test_a_custom_hostname_resolver_is_asked_instead(autojump_clock):
    custom = TrioResolver()
    assert custom_resolver() is None
    trio.socket.set_custom_hostname_resolver(custom)
    assert await SystemResolver().addresses("name.test", AF_INET6) == Answer(("fe80::1%4",))
    assert await SystemResolver().addresses("name.test", AF_INET) == Answer(("192.0.2.1",))
    assert trio.current_time() == pytest.approx(0.5)
    assert custom.calls == [(b"name.test", 0, family, SOCK_STREAM, 0, 0) for family in (AF_INET6, AF_INET)]
    assert custom_resolver() is custom


async def test_errors_of_a_custom_hostname_resolver_count_likewise(autojump_clock):
    custom = TrioResolver()
    trio.socket.set_custom_hostname_resolver(custom)
    custom.error = gaierror(socket.EAI_NONAME, "no such name")
    assert await SystemResolver().addresses("name.test", AF_INET) == Answer(name_exists=False)
    custom.error = gaierror(socket.EAI_AGAIN, "try again")
    with pytest.raises(gaierror):
        await SystemResolver().addresses("name.test", AF_INET)
    custom.error = ConnectionResetError(104, "name server went away")
    with pytest.raises(ConnectionResetError):
        await SystemResolver().addresses("name.test", AF_INET)


async def test_looking_for_a_custom_resolver_leaves_it_in_place():
    custom = TrioResolver()
    trio.socket.set_custom_hostname_resolver(custom)
    assert custom_resolver() is custom
    assert trio.socket.set_custom_hostname_resolver(None) is custom
    assert custom_resolver() is None


# ---------------------------------------------------------------------- a dict


async def test_static_answers():
    resolver = StaticResolver(
        {
            "Both.test.": ["2001:db8::1", "192.0.2.1", "2001:db8::2", "192.0.2.1"],
            "one.test": "192.0.2.7",
            "empty.test": (),
            "bücher.test": "192.0.2.8",
            "local.test": "fe80::1%eth0",
        }
    )
    for host, family, answer in [
        ("both.test", AF_INET6, Answer(("2001:db8::1", "2001:db8::2"))),
        ("BOTH.TEST", AF_INET, Answer(("192.0.2.1",))),
        ("both.test.", AF_INET, Answer(("192.0.2.1",))),
        ("one.test", AF_INET, Answer(("192.0.2.7",))),
        ("one.test", AF_INET6, Answer()),
        ("empty.test", AF_INET, Answer()),
        ("xn--bcher-kva.test", AF_INET, Answer(("192.0.2.8",))),
        ("BÜCHER.test", AF_INET, Answer(("192.0.2.8",))),
        ("local.test", AF_INET6, Answer(("fe80::1%eth0",))),
        ("other.test", AF_INET, Answer(name_exists=False)),
    ]:
        with trio.testing.assert_checkpoints():
            assert await resolver.addresses(host, family) == answer


@pytest.mark.parametrize(
    ("hosts", "error", "text"),
    [
        ([("a.test", "192.0.2.1")], TypeError, "mapping"),
        ({b"a.test": "192.0.2.1"}, TypeError, "a host is a str"),
        ({"a.test": [7]}, TypeError, "sequence of str"),
        ({"a.test": "b.test"}, ValueError, "numeric addresses, got 'b.test'"),
        ({"a..test": "192.0.2.1"}, ValueError, "1 to 63"),
        ({"192.0.2.9": "192.0.2.1"}, ValueError, "its own answer"),
        ({"a.test": (), "A.test.": ()}, ValueError, r"'A\.test\.' twice"),
    ],
)
def test_a_static_mapping_is_checked_at_the_door(hosts, error, text):
    with pytest.raises(error, match=text):
        StaticResolver(hosts)


async def test_a_static_resolver_keeps_its_own_copy():
    hosts = {"a.test": ["192.0.2.1"]}
    resolver = StaticResolver(hosts)
    hosts["a.test"].append("192.0.2.2")
    hosts["b.test"] = []
    assert await resolver.addresses("a.test", AF_INET) == Answer(("192.0.2.1",))
    assert await resolver.addresses("b.test", AF_INET) == Answer(name_exists=False)
