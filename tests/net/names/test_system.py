from __future__ import annotations

import errno
import resource
import socket
import threading
from socket import AF_INET, AF_INET6, AF_UNSPEC, SOCK_STREAM, AddressFamily, gaierror

import pytest
import trio
import trio.testing

from tests.support.etc import Etc
from tests.support.sweep import sweep
from trio_connect import ResolveFailed, resolve
from trio_connect._answer import Answer
from trio_connect._net.names.resolve import Resolver, StaticResolver, encoded
from trio_connect._net.names.system import SYSTEM_RESOLVER, SystemLookup, SystemResolver, custom_resolver

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
def etc(monkeypatch, tmp_path):
    return Etc(tmp_path, monkeypatch)


@pytest.fixture
def libc(monkeypatch, etc):
    fake = FakeGetaddrinfo(monkeypatch)
    yield fake
    fake.release()


async def until(condition):
    """Real threads are involved, so virtual time is of no use."""
    with trio.fail_after(20):
        while not condition():  # noqa: ASYNC110 - threads set no trio.Event
            await trio.sleep(0.001)


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


async def test_other_spellings_of_ipv4_are_left_to_the_system(libc):
    libc.result = [entry4("127.0.0.1")]
    assert await SystemResolver().addresses("127.1", AF_INET) == Answer(("127.0.0.1",))
    assert libc.calls[0][0] == b"127.1"


# ---------------------------------------------------------------------- cancelled lookups and their threads


async def test_line_77_a_cancelled_lookup_leaves_its_thread_and_nothing_else(libc):
    resolver = SystemResolver()
    running, threads = resolver.limits()
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
    assert resolver.limits()[1].borrowed_tokens == 48
    with trio.fail_after(20):
        assert await resolver.addresses("good.test", AF_INET) == Answer(("192.0.2.1",))
        assert await trio.to_thread.run_sync(lambda: "the rest of the program") == "the rest of the program"
    libc.release()
    await until(lambda: resolver.limits()[1].borrowed_tokens == 0)


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
        await until(lambda: resolver.limits()[1].statistics().tasks_waiting == 1)
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
        await until(lambda: resolver.limits()[0].statistics().tasks_waiting == 3)
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
def test_limits_are_checked_at_once(name):
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


# ---------------------------------------------------------------------- the hosts file and localhost


@pytest.mark.parametrize("family", [AF_INET, AF_INET6])
async def test_a_name_of_the_hosts_file_is_asked_of_nobody(libc, etc, family):
    etc.write(hosts="127.0.0.1 localhost\n192.0.2.7 api.test api\n2001:db8::7 both.test\n192.0.2.8 both.test\n")
    with trio.testing.assert_checkpoints():
        assert await SystemResolver().addresses("API.test", family) == Answer(
            ("192.0.2.7",) if family == AF_INET else ()
        )
    assert (await SystemResolver().addresses("both.test", family)).addresses == (
        ("192.0.2.8",) if family == AF_INET else ("2001:db8::7",)
    )
    assert libc.calls == []
    await SystemResolver().addresses("api.test.", family)
    assert [call[0] for call in libc.calls] == [b"api.test."]


async def test_a_hosts_file_that_changes_is_read_again(libc, etc):
    resolver = SystemResolver()
    for last in (7, 8, 9):
        etc.write(hosts=f"192.0.2.{last} api.test\n")
        assert (await resolver.addresses("api.test", AF_INET)).addresses == (f"192.0.2.{last}",)
    (etc.folder / "hosts").unlink()
    assert (await resolver.addresses("api.test", AF_INET)).addresses == ("192.0.2.1",)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST.", "api.localhost", "a.b.localhost."])
async def test_localhost_asks_nobody(libc, etc, host):
    for nsswitch in ("hosts: files dns\n", "hosts: dns files\n"):
        etc.write(nsswitch=nsswitch)
        assert await SystemResolver().addresses(host, AF_INET) == Answer(("127.0.0.1",))
        assert await SystemResolver().addresses(host, AF_INET6) == Answer(("::1",))
    assert libc.calls == []


async def test_the_hosts_file_may_say_what_localhost_is(libc, etc):
    etc.write(hosts="127.0.0.9 localhost\n")
    assert await SystemResolver().addresses("localhost", AF_INET) == Answer(("127.0.0.9",))
    assert await SystemResolver().addresses("localhost", AF_INET6) == Answer()
    assert await SystemResolver().addresses("other.localhost", AF_INET6) == Answer(("::1",))
    await SystemResolver().addresses("notlocalhost", AF_INET)
    assert [call[0] for call in libc.calls] == [b"notlocalhost"]


async def test_where_dns_comes_before_the_hosts_file_one_call_asks_for_both(libc, etc):
    etc.write(nsswitch="hosts: dns files\n", hosts="192.0.2.7 api.test\n", resolv="search dev.example\n")
    lookup = SystemLookup(SystemResolver(), "api.test")
    answers = {}

    async def ask(family):
        answers[family] = await lookup.addresses(family)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask, AF_INET)
        nursery.start_soon(ask, AF_INET6)
    assert answers == {AF_INET: Answer(("192.0.2.1",)), AF_INET6: Answer(("2001:db8::1",))}
    assert libc.calls == [(b"api.test", 0, AF_UNSPEC, SOCK_STREAM, 0, 0)]


# ---------------------------------------------------------------------- the search list


class Zone:
    """Stands in for libc and DNS: what each complete name has in each family; errors are raised."""

    def __init__(self, monkeypatch, **names):
        self.names = {name.replace("_", ".").encode() + b".": has for name, has in names.items()}
        self.calls = []
        monkeypatch.setattr(socket, "getaddrinfo", self)

    def __call__(self, host, port, family=0, type=0):
        self.calls.append((host.decode(), family))
        found = []
        for address in self.names.get(host, ()):
            if isinstance(address, gaierror):
                raise address
            if isinstance(address, tuple):
                if family in (address[0], AF_UNSPEC):
                    raise address[1]
            elif family in (0, AF_INET6 if ":" in address else AF_INET):
                found.append(entry6(address) if ":" in address else entry4(address))
        if not found:
            raise gaierror(socket.EAI_NONAME if host not in self.names else NODATA, "nothing")
        return found


async def both(host):
    lookup = SystemLookup(SystemResolver(), host)
    answers: dict[AddressFamily, tuple[str, ...] | OSError] = {}

    async def ask(family):
        try:
            answers[family] = (await lookup.addresses(family)).addresses
        except OSError as exc:
            answers[family] = exc

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask, AF_INET6)
        nursery.start_soon(ask, AF_INET)
    return answers[AF_INET6], answers[AF_INET]


async def test_both_families_come_from_one_candidate(monkeypatch, etc):
    etc.write(resolv="search dev.example prod.example\n")
    zone = Zone(monkeypatch, db_dev_example=["192.0.2.1"], db_prod_example=["2001:db8::9", "192.0.2.9"])
    assert await both("db") == ((), ("192.0.2.1",))
    assert sorted(zone.calls) == [("db.dev.example.", AF_INET), ("db.dev.example.", AF_INET6)]


@pytest.mark.parametrize("host", ["127.1", "0x7f.1", "127。0。0。1", "\uff11\uff12\uff17.0.0.1", "①②⑦.1"])
async def test_no_spelling_of_an_address_is_completed_or_asked_of_a_server(libc, etc, host):
    etc.write(resolv="search dev.example prod.example\n", hosts="192.0.2.7 127.1 127.0.0.1\n")
    libc.result = [entry4("127.0.0.1")]
    assert await SystemResolver().addresses(host, AF_INET) == Answer(("127.0.0.1",))
    assert [call[0] for call in libc.calls] == [encoded(host)]


@pytest.mark.parametrize("family", [AF_INET, AF_INET6])
async def test_also_when_only_one_family_is_asked_for(monkeypatch, etc, family):
    etc.write(resolv="search dev.example prod.example\n")
    Zone(monkeypatch, db_dev_example=["192.0.2.1"], db_prod_example=["2001:db8::9", "192.0.2.9"])
    found = (await SystemResolver().addresses("db", family)).addresses
    assert found == (("192.0.2.1",) if family == AF_INET else ())


async def test_the_next_candidate_is_tried_when_one_has_neither_family(monkeypatch, etc):
    etc.write(resolv="search dev.example prod.example\noptions ndots:3\n")
    zone = Zone(monkeypatch, api_x=["2001:db8::9"], api_x_dev_example=[])
    assert await both("api.x") == (("2001:db8::9",), ())
    names = ["api.x.dev.example.", "api.x.prod.example.", "api.x."]
    assert sorted(zone.calls) == sorted((name, family) for name in names for family in (AF_INET, AF_INET6))
    assert await both("other") == ((), ())


async def test_a_lookup_that_failed_leaves_the_rest_of_the_list_to_the_c_library(monkeypatch, etc):
    etc.write(resolv="search dev.example prod.example\n")
    again = gaierror(socket.EAI_AGAIN, "Temporary failure")
    zone = Zone(monkeypatch, db_dev_example=[(AF_INET6, again)], db_prod_example=["192.0.2.9"])
    zone.names[b"db"] = ["192.0.2.9", "2001:db8::9"]
    assert await both("db") == (("2001:db8::9",), ("192.0.2.9",))
    assert zone.calls[-1] == ("db", AF_UNSPEC)
    assert len(zone.calls) == 3
    zone.names[b"db"] = [again]
    assert await both("db") == (again, again)


async def test_a_failed_family_beside_an_address_is_that_familys_own_affair(monkeypatch, etc):
    etc.write(resolv="search dev.example prod.example\n")
    again = gaierror(socket.EAI_AGAIN, "Temporary failure")
    zone = Zone(monkeypatch, db_dev_example=[(AF_INET6, again), "192.0.2.1"], db_prod_example=["2001:db8::9"])
    assert await both("db") == (again, ("192.0.2.1",))
    assert len(zone.calls) == 2


@pytest.mark.parametrize("host", ["db.", "127.1", "0x7f.1", "2130706433"])
async def test_what_is_complete_or_numeric_is_not_looked_for_in_the_list(monkeypatch, etc, host):
    etc.write(resolv="search dev.example\n")
    zone = Zone(monkeypatch)
    zone.names[host.encode()] = ["127.0.0.1"]
    assert await both(host) == ((), ("127.0.0.1",))
    assert sorted(zone.calls) == [(host, AF_INET), (host, AF_INET6)]


async def test_other_c_libraries_walk_the_list_themselves(monkeypatch, etc):
    monkeypatch.setattr("trio_connect._net.names.system_files._GNU", False)
    etc.write(resolv="search dev.example\n")
    zone = Zone(monkeypatch)
    zone.names[b"db"] = ["192.0.2.1"]
    assert await both("db") == ((), ("192.0.2.1",))


async def test_a_cancel_of_one_family_leaves_the_other_going(libc, etc):
    etc.write(resolv="search dev.example prod.example\n")
    libc.error = gaierror(socket.EAI_NONAME, "nothing")
    libc.block("db.dev.example.")
    lookup = SystemLookup(SystemResolver(), "db")
    done = []

    async def ask(family, scope):
        with scope:
            done.append(await lookup.addresses(family))

    async with trio.open_nursery() as nursery:
        first, second = trio.CancelScope(), trio.CancelScope()
        nursery.start_soon(ask, AF_INET, first)
        nursery.start_soon(ask, AF_INET6, second)
        await until(lambda: libc.entered["db.dev.example."] == 2)
        first.cancel()
        await until(lambda: first.cancelled_caught)
        libc.release()
    assert done == [Answer(name_exists=False)]


@pytest.mark.parametrize("last", ["found", "nowhere", "fails"])
async def test_line_77_a_cancel_at_any_step_of_a_walk_leaves_nothing(monkeypatch, etc, autojump_clock, last, modes):
    etc.write(resolv="search dev.example prod.example\n")
    again = gaierror(socket.EAI_AGAIN, "Temporary failure")
    prod = {"found": ["192.0.2.9"], "nowhere": [], "fails": [(AF_INET, again)]}[last]
    Zone(monkeypatch, db_dev_example=[], db_prod_example=prod)
    limiters = []

    async def run_sync(function, *arguments, abandon_on_cancel, limiter):
        limiters.append(limiter)
        async with limiter:
            for _ in range(3):
                await trio.lowlevel.checkpoint()
            return function(*arguments)

    monkeypatch.setattr(trio.to_thread, "run_sync", run_sync)
    resolver = SystemResolver()

    async def operation():
        return await resolve("db", 1, resolver=resolver)

    async def check(_environment, _step):
        assert {limiter.borrowed_tokens for limiter in (*resolver.limits(), *limiters)} == {0}

    await sweep(operation, modes=modes, raises=ResolveFailed, check=check)


# ---------------------------------------------------------------------- what this process is short of


async def test_no_thread_to_be_had_is_a_local_error(libc, monkeypatch):
    def start(_self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    libc.block("cold.test")
    errors = []

    async def ask():
        try:
            await SystemResolver().addresses("cold.test", AF_INET)
        except OSError as exc:
            errors.append(exc)

    async with trio.open_nursery() as nursery:
        for _ in range(1000):
            # The first ones find threads that idle, of which each is blocked then.
            nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked()
            if errors:
                break
        libc.release()
    assert {error.errno for error in errors} == {errno.EAGAIN}
    text = "local: lookup of cold.test: no thread can be started (can't start new thread)"
    assert {error.strerror for error in errors} == {text}
    assert "ulimit -u" in errors[0].__notes__[0]


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
async def test_a_shortage_in_a_lookup_is_local(libc, code):
    libc.error = OSError(code, "no more")
    with pytest.raises(OSError, match=r"local: lookup of name\.test: ") as caught:
        await SystemResolver().addresses("name.test", AF_INET)
    assert caught.value.errno == code


async def test_a_hosts_file_that_cannot_be_read_for_want_of_descriptors_fails_the_lookup(libc, etc):
    etc.write(hosts="192.0.2.7 blocked.test\n")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))
    try:
        with pytest.raises(OSError, match=r"local: lookup of blocked\.test: too many open files") as caught:
            await SystemResolver().addresses("blocked.test", AF_INET)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert caught.value.errno == errno.EMFILE
    assert libc.calls == []


async def test_other_errors_pass_as_they_are(libc):
    libc.error = ConnectionResetError(errno.ECONNRESET, "went away")
    with pytest.raises(ConnectionResetError, match="went away"):
        await SystemResolver().addresses("name.test", AF_INET)


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


async def test_it_is_asked_for_the_name_that_trio_would_ask_for(autojump_clock):
    custom = TrioResolver()
    trio.socket.set_custom_hostname_resolver(custom)
    for host in ("Name.test", "1und1.test", "b\u00fccher.test", "127.1", "\uff11\uff12\uff17.1"):
        custom.calls.clear()
        await trio.socket.getaddrinfo(host, 0, AF_INET, SOCK_STREAM)
        asked = [*custom.calls]
        custom.calls.clear()
        await SystemResolver().addresses(host, AF_INET)
        assert custom.calls == asked


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
