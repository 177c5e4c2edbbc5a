"""Connects as spans and metrics: they say what the report says, a loser is no error, and nobody pays unasked."""

from __future__ import annotations

import errno
import socket
import subprocess
import sys
import time
from typing import Any, cast

import pytest
import trio
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult
from opentelemetry.trace import SpanKind, StatusCode

from tests.support.pace import least
from trio_connect import (
    Attempt,
    ConnectFailed,
    ConnectReport,
    DeadlineExceeded,
    Endpoint,
    Lookup,
    RaceFinished,
    ResolveFailed,
    Source,
    connect,
    connectx,
    now,
)
from trio_connect._net.race import candidates, driver, executor
from trio_connect._net.race.telling import Teller
from trio_connect.adapters.otel import trace_events
from trio_connect.testing import echo

V6, V4 = "2001:db8::1", "192.0.2.1"


class Telemetry:
    """An SDK that keeps what it is given."""

    def __init__(self, **options: Any) -> None:
        self.exporter = InMemorySpanExporter()
        self.tracers = TracerProvider(shutdown_on_exit=False, **options)
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.reader = InMemoryMetricReader()
        self.meters = MeterProvider([self.reader], shutdown_on_exit=False)
        self.observer = trace_events(tracer_provider=self.tracers, meter_provider=self.meters)

    @property
    def spans(self) -> dict[str, ReadableSpan]:
        finished = self.exporter.get_finished_spans()
        named = {span.name: span for span in finished}
        assert len(named) == len(finished)
        return named

    @property
    def metrics(self) -> dict[str, dict[frozenset[Any], Any]]:
        """By name and attributes: the sum of a counter; the count and sum of a histogram."""
        data = self.reader.get_metrics_data()
        if data is None:
            return {}
        found: dict[str, dict[frozenset[Any], Any]] = {}
        for metric in data.resource_metrics[0].scope_metrics[0].metrics:
            for point in metric.data.data_points:
                value = getattr(point, "value", None)
                if value is None:
                    value = (cast("Any", point).count, pytest.approx(cast("Any", point).sum))
                found.setdefault(metric.name, {})[frozenset((point.attributes or {}).items())] = value
        return found


@pytest.fixture
def telemetry() -> Telemetry:
    return Telemetry()


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def times(span: ReadableSpan, origin: ReadableSpan) -> tuple[float, float]:
    """When a span began and ended, in seconds from the start of another."""
    assert span.start_time is not None
    assert span.end_time is not None
    assert origin.start_time is not None
    return (span.start_time - origin.start_time) / 1e9, (span.end_time - origin.start_time) / 1e9


def is_below(span: ReadableSpan, parent: ReadableSpan) -> bool:
    return span.parent is not None and parent.context is not None and span.parent.span_id == parent.context.span_id


def pairs(**values: Any) -> frozenset[Any]:
    return frozenset({key.replace("__", "."): value for key, value in values.items()}.items())


async def test_a_race_is_a_span_and_each_lookup_and_attempt_one_below_it(vnet, autojump_clock, telemetry):
    vnet.dns("host.test", [V6, V4])
    vnet.host(V6).blackhole()
    vnet.host(V4, rtt=0.020).listen(80, echo)
    await trio.sleep(1_000)
    before = time.time_ns()
    async with await connect("host.test", 80, now() + 5_000, observer=telemetry.observer) as stream:
        report = stream.report
    after = time.time_ns()
    # A list: both lookups have one name, the host's.
    spans = telemetry.exporter.get_finished_spans()
    race = spans[-1]
    assert race.name == "connect host.test:80"
    assert race.kind is SpanKind.CLIENT
    assert race.parent is None
    assert race.status.status_code is StatusCode.UNSET
    assert attributes(race) == {
        "network.transport": "tcp",
        "server.address": "host.test",
        "server.port": 80,
        "network.peer.address": V4,
        "network.peer.port": 80,
        "network.type": "ipv4",
    }
    assert times(race, race) == pytest.approx((0.0, 0.270))
    # By the clock on the wall it ended when it did: Trio's clock is 1,000 s further, in no time.
    assert race.end_time is not None
    assert before - 1_000 <= race.end_time <= after + 1_000
    assert all(is_below(span, race) for span in spans[:-1])

    lookups, attempts = spans[: len(report.lookups)], spans[len(report.lookups) : -1]
    assert [span.name for span in lookups] == ["DNS lookup host.test"] * 2
    for span, lookup in zip(lookups, report.lookups, strict=True):
        assert lookup.answer is not None
        assert attributes(span) == {
            "dns.question.name": "host.test",
            "dns.answers": lookup.answer.addresses,
            "trio_connect.lookup.kind": lookup.kind,
        }
        assert times(span, race) == pytest.approx((lookup.started, lookup.ended))
    for span, attempt in zip(attempts, report.tried, strict=True):
        assert span.name == f"socket connect {attempt.endpoint}"
        assert span.kind is SpanKind.CLIENT
        assert times(span, race) == pytest.approx((attempt.started, attempt.ended))
        assert span.status.status_code is StatusCode.UNSET
        assert attributes(span) == {
            "server.address": "host.test",
            "server.port": 80,
            "network.transport": "tcp",
            "network.peer.address": attempt.endpoint.host,
            "network.peer.port": 80,
            "network.type": "ipv6" if attempt.endpoint.host == V6 else "ipv4",
            "trio_connect.attempt.outcome": attempt.outcome,
            "trio_connect.attempt.phase": attempt.phase,
            "trio_connect.attempt.cause": attempt.cause,
        }
    assert [attempt.outcome for attempt in report.tried] == ["lost", "won"]

    assert telemetry.metrics == {
        "trio_connect.attempt.count": {
            pairs(trio_connect__attempt__outcome="lost", network__type="ipv6"): 1,
            pairs(trio_connect__attempt__outcome="won", network__type="ipv4"): 1,
        },
        "trio_connect.attempt.wasted": {pairs(network__type="ipv6"): 1},
        # What IPv4 took, not what the caller waited.
        "trio_connect.connect.duration": {pairs(network__type="ipv4"): (1, 0.020)},
    }


async def test_a_failure_is_an_error_of_the_attempt_but_not_of_a_race_that_was_won(vnet, autojump_clock, telemetry):
    vnet.host(V6, rtt=0.020).refuse()
    vnet.host(V4, rtt=0.020).listen(80, echo)
    async with await connectx([(V6, 80), (V4, 80)], observer=telemetry.observer):
        pass
    spans = telemetry.spans
    # Two hosts without a name are not one server.
    assert spans["connect"].status.status_code is StatusCode.UNSET
    assert "server.address" not in attributes(spans["connect"])
    failed = spans[f"socket connect [{V6}]:80"]
    assert failed.status.status_code is StatusCode.ERROR
    assert failed.status.description == "connection refused"
    assert attributes(failed)["error.type"] == "ECONNREFUSED"
    assert attributes(failed)["server.address"] == V6
    assert times(failed, spans["connect"]) == pytest.approx((0.0, 0.020))
    assert times(spans["connect"], spans["connect"]) == pytest.approx((0.0, 0.040))
    assert telemetry.metrics["trio_connect.attempt.count"] == {
        pairs(trio_connect__attempt__outcome="failed", network__type="ipv6", error__type="ECONNREFUSED"): 1,
        pairs(trio_connect__attempt__outcome="won", network__type="ipv4"): 1,
    }


async def test_a_race_without_a_connection_is_an_error(vnet, autojump_clock, telemetry):
    vnet.host(V4, rtt=0.020).refuse()
    with pytest.raises(ConnectFailed):
        await connectx([(V4, 80)], observer=telemetry.observer)
    race = telemetry.spans[f"connect {V4}:80"]
    assert race.status.status_code is StatusCode.ERROR
    assert race.status.description == "no connection after 20 ms"
    assert attributes(race) == {
        "network.transport": "tcp", "server.address": V4, "server.port": 80, "error.type": "ECONNREFUSED",
    }  # fmt: skip
    assert "trio_connect.connect.duration" not in telemetry.metrics


async def test_a_deadline_is_an_error_of_the_race_and_not_of_what_it_cut_off(vnet, autojump_clock, telemetry):
    vnet.host(V4).blackhole()
    with pytest.raises(DeadlineExceeded):
        await connectx([(V4, 80)], now() + 1_000, observer=telemetry.observer)
    spans = telemetry.spans
    assert spans[f"connect {V4}:80"].status.status_code is StatusCode.ERROR
    assert attributes(spans[f"connect {V4}:80"])["error.type"] == "cancelled"
    assert spans[f"socket connect {V4}:80"].status.status_code is StatusCode.UNSET
    assert telemetry.metrics["trio_connect.attempt.wasted"] == {pairs(network__type="ipv4"): 1}


async def test_a_name_that_nobody_knows(vnet, autojump_clock, telemetry):
    vnet.dns("gone.test", [])
    with pytest.raises(ResolveFailed):
        await connect("gone.test", 80, now() + 5_000, observer=telemetry.observer)
    race = telemetry.exporter.get_finished_spans()[-1]
    assert race.name == "connect gone.test"
    assert attributes(race) == {
        "network.transport": "tcp", "server.address": "gone.test", "error.type": "_OTHER",
    }  # fmt: skip
    assert race.status.status_code is StatusCode.ERROR
    assert telemetry.metrics == {}


def finished(telemetry: Telemetry, *attempts: Attempt, lookups: tuple[Lookup, ...] = ()) -> ReadableSpan:
    """Tell of the end of a race that was not run."""
    telemetry.exporter.clear()
    telemetry.observer(RaceFinished(ConnectReport(attempts=attempts, lookups=lookups, elapsed=1.0), 1.0))
    return telemetry.exporter.get_finished_spans()[-1]


def test_the_kinds_of_errors(telemetry):
    lost = OSError(errno.EIO, "broken")
    unknown, away = socket.gaierror(socket.EAI_NONAME, "no"), socket.gaierror(socket.EAI_AGAIN, "later")

    def lookups(*errors: OSError | None) -> tuple[Lookup, ...]:
        return tuple(
            Lookup(host="a.test", kind="A", started=0.0, ended=1.0, answer=None, error=error) for error in errors
        )

    def failed(code: int | None) -> Attempt:
        return Attempt(endpoint=Endpoint(V4, 80), started=0.0, ended=1.0, outcome="failed", errno=code, reason="why")

    def error(*attempts: Attempt, errors: tuple[OSError | None, ...] = ()) -> object:
        return attributes(finished(telemetry, *attempts, lookups=lookups(*errors)))["error.type"]

    assert error(errors=(unknown,)) == "EAI_NONAME"
    assert error(errors=(unknown, away)) == "_OTHER"
    assert error(errors=(lost,)) == "EIO"
    assert error(errors=(OSError("no number"),)) == "_OTHER"
    assert error(errors=(unknown, None)) == "cancelled"
    # Records of services are not waited for.
    abandoned = Lookup(host="a.test", kind="HTTPS", started=0.0, ended=1.0, answer=None)
    race = finished(telemetry, failed(errno.ECONNREFUSED), lookups=(abandoned,))
    assert attributes(race)["error.type"] == "ECONNREFUSED"
    assert error(failed(errno.ECONNREFUSED), errors=(None,)) == "cancelled"
    assert error(Attempt(endpoint=Endpoint(V4, 80), outcome="not tried")) == "cancelled"
    assert error(Attempt(endpoint=Endpoint(V4, 80), outcome="skipped", reason="not allowed")) == "_OTHER"
    assert error(failed(errno.ECONNREFUSED), failed(errno.ECONNREFUSED), errors=(unknown,)) == "ECONNREFUSED"
    assert error(failed(errno.ECONNREFUSED), failed(errno.EHOSTUNREACH)) == "_OTHER"
    assert error(failed(None)) == "_OTHER"
    assert error(failed(99_999)) == "_OTHER"
    assert error() == "_OTHER"
    finished(telemetry, lookups=lookups(away))
    span = telemetry.spans["DNS lookup a.test"]
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "later")
    assert attributes(span)["error.type"] == "EAI_AGAIN"


def test_what_of_a_race_is_the_server(telemetry):
    first, second = (
        Attempt(
            endpoint=Endpoint(V4, port), host="a.test", started=0.0, ended=1.0, outcome="won" if port == 80 else "lost"
        )
        for port in (80, 81)
    )
    service = Lookup(host="_http._tcp.b.test", kind="SRV", started=0.0, ended=0.0, answer=None)
    address = Lookup(host="a.test", kind="A", started=0.0, ended=0.0, answer=None)
    assert finished(telemetry, first, lookups=(service, address)).name == "connect a.test:80"
    # Two ports are not one.
    race = finished(telemetry, first, second)
    assert race.name == "connect a.test"
    assert "server.port" not in attributes(race)
    # The race is over without them, and no name of it is that of a host.
    assert finished(telemetry, lookups=(service,)).name == "connect"


def test_through_a_proxy_the_peer_is_not_the_target_and_no_password_is_shown(telemetry):
    source = Source(proxy="http://user:word@192.0.2.8:3128")
    finished(
        telemetry,
        Attempt(endpoint=Endpoint(V4, 80), host="a.test", source=source, started=0.0, ended=1.0, outcome="won"),
    )
    found = attributes(telemetry.spans[f"socket connect {V4}:80"])
    assert {key for key in found if key.startswith("network.")} == {"network.transport"}
    assert found["server.address"] == "a.test"
    assert "192.0.2.8" in found["trio_connect.attempt.source"]
    assert "word" not in str([attributes(span) for span in telemetry.spans.values()])
    assert telemetry.metrics["trio_connect.attempt.count"] == {pairs(trio_connect__attempt__outcome="won"): 1}


async def test_one_observer_serves_calls_at_once_and_each_is_below_its_own_request(vnet, autojump_clock, telemetry):
    tracer = telemetry.tracers.get_tracer("test")
    hosts = [f"192.0.2.{number}" for number in range(1, 6)]

    async def request(number: int, host: str) -> None:
        with tracer.start_as_current_span(f"request {number}"):
            async with await connectx([(host, 80)], observer=telemetry.observer):
                pass

    async with trio.open_nursery() as nursery:
        for number, host in enumerate(hosts):
            vnet.host(host, rtt=0.010 * (5 - number)).listen(80, echo)
            nursery.start_soon(request, number, host)
    spans = telemetry.spans
    assert len(spans) == 3 * len(hosts)
    for number, host in enumerate(hosts):
        assert is_below(spans[f"connect {host}:80"], spans[f"request {number}"])
        assert is_below(spans[f"socket connect {host}:80"], spans[f"connect {host}:80"])


class Never(Sampler):
    """Leaves every span out, and keeps the names of those that it was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def should_sample(self, parent_context: Any, trace_id: int, name: str, *_args: Any, **_more: Any) -> SamplingResult:
        self.asked.append(name)
        return SamplingResult(Decision.DROP)

    def get_description(self) -> str:
        return "never"


async def test_a_call_that_is_not_sampled_makes_no_further_spans_but_counts(vnet, autojump_clock):
    sampler = Never()
    telemetry = Telemetry(sampler=sampler)
    vnet.host(V4, rtt=0.020).listen(80, echo)
    async with await connectx([(V4, 80)], observer=telemetry.observer):
        pass
    assert sampler.asked == [f"connect {V4}:80"]
    assert telemetry.spans == {}
    assert telemetry.metrics["trio_connect.connect.duration"] == {pairs(network__type="ipv4"): (1, 0.020)}


async def test_without_an_sdk_it_does_nothing(vnet, autojump_clock):
    vnet.host(V4, rtt=0.020).listen(80, echo)
    async with await connectx([(V4, 80)], observer=trace_events()) as stream:
        assert stream.report.winner is not None


def test_a_provider_is_one():
    with pytest.raises(TypeError, match=r"tracer_provider must be a TracerProvider or None, got str"):
        trace_events(tracer_provider=cast("Any", "mine"))
    with pytest.raises(TypeError, match=r"meter_provider must be a MeterProvider or None, got int"):
        trace_events(meter_provider=cast("Any", 5))


# --- who does not listen pays nothing ---------------------------------------------------------------------------------

UNHEARD = """
import sys, trio
from trio_connect import ConnectFailed, connectx
async def main():
    try:
        await connectx([("127.0.0.1", 1), ("127.0.0.1", 2)])
    except ConnectFailed:
        pass
trio.run(main)
print(sorted(name for name in sys.modules if "opentelemetry" in name or "adapters" in name))
"""


def test_a_connect_without_an_observer_imports_nothing_of_it():
    done = subprocess.run([sys.executable, "-c", UNHEARD], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.strip() == "[]"


async def test_a_connect_without_an_observer_makes_no_event(vnet, autojump_clock, monkeypatch, telemetry):
    made: list[str] = []
    for module in (driver, executor, candidates):
        for name in ("LookupStarted", "LookupFinished", "AttemptStarted", "AttemptFinished", "RaceFinished"):
            if kind := getattr(module, name, None):

                def make(*args: Any, kind: Any = kind, **more: Any) -> Any:
                    made.append(kind.__name__)
                    return kind(*args, **more)

                monkeypatch.setattr(module, name, make)
    vnet.dns("host.test", [V6, V4])
    vnet.host(V6).blackhole()
    vnet.host(V4, rtt=0.020).listen(80, echo)
    async with await connect("host.test", 80, now() + 5_000):
        pass
    assert made == []
    async with await connect("host.test", 80, now() + 5_000, observer=telemetry.observer):
        pass
    assert {*made} >= {"LookupStarted", "LookupFinished", "AttemptStarted", "AttemptFinished", "RaceFinished"}


def hundred_thousand_notes() -> float:
    teller, event = Teller(None, ""), cast("Any", None)
    began = time.process_time()
    for _ in range(100_000):
        teller.note(event, 1, 2)
        teller.tell()
    return time.process_time() - began


@pytest.mark.alone
def test_what_asks_for_an_observer_costs_at_most_half_a_microsecond():
    """A race asks at each event, six times for one attempt; it takes hundreds of microseconds.

    That is what can be bounded: a whole race without an observer has none to be compared with that does not ask.
    """
    bound = 0.05  # seconds for a hundred thousand
    assert least(hundred_thousand_notes, bound=bound, attempts=5) <= bound
