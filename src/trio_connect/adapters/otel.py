"""Connects as OpenTelemetry's spans and metrics.

A call is a span, with one span below it for each lookup and each attempt. All of them are made at the end of the call,
from its report and with the report's times: the spans say what the report says, and while a connection is being made
nothing is done. Making each span at its own event was rejected. An event does not say which call it is of, so each call
would need an observer of its own, and an attempt that was put off for want of a descriptor begins twice.

The names are those of OpenTelemetry's semantic conventions. Stable ones are ``server.*``, ``network.*`` and
``error.type``; what begins with ``dns.`` is experimental there and may change. The name of the spans of lookups and
attempts is the one that .NET gave them, also experimental. What begins with ``trio_connect.`` is ours.
"""

from __future__ import annotations

import socket
import time
from errno import errorcode
from typing import Final

from trio_connect import Attempt, ConnectReport, Lookup, Observer, RaceFinished, TraceEvent

try:
    from opentelemetry.metrics import Meter, MeterProvider, get_meter
    from opentelemetry.trace import (
        SpanKind,
        Status,
        StatusCode,
        Tracer,
        TracerProvider,
        get_tracer,
        set_span_in_context,
    )
except ImportError as exc:
    raise ImportError(
        'trio_connect.adapters.otel needs opentelemetry-api 1.30 or later: pip install "trio-connect[otel]"'
    ) from exc

__all__ = ["trace_events"]

_NAME: Final = "trio_connect"

# What the conventions advise for `dns.lookup.duration` and `http.client.request.duration`, in seconds.
_BOUNDARIES: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)

_OTHER: Final = "_OTHER"
"""What the conventions say for an error without a name of few values."""

_EAI: Final = {getattr(socket, name): name for name in dir(socket) if name.startswith("EAI_")}
_FAMILIES: Final = {socket.AF_INET: "ipv4", socket.AF_INET6: "ipv6"}

_Attributes = dict[str, str | int | list[str]]


def trace_events(
    *, tracer_provider: TracerProvider | None = None, meter_provider: MeterProvider | None = None
) -> Observer:
    """Return an observer that makes spans and metrics of each call, to pass as ``observer=``.

    One serves any number of calls, also at once. The span of a call is a child of the one that is current where the
    call is made. Losing a race is no error, and neither is an attempt that was cancelled: both stay unset. A call
    without a connection is an error, also by a deadline or a scope: its report cannot tell these two apart.

    It is for TCP: `trio_connect.sctp.connectx` has observers of another type.

    Args:
      tracer_provider: whose spans; None for the one of the program.
      meter_provider: whose metrics; None for the one of the program.

    Raises:
      ImportError: opentelemetry-api is not installed. Importing this module raises it.
      TypeError: an argument is not a provider.
    """
    # What users pass is checked at run time too.
    if tracer_provider is not None and not isinstance(tracer_provider, TracerProvider):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"tracer_provider must be a TracerProvider or None, got {type(tracer_provider).__name__}")
    if meter_provider is not None and not isinstance(meter_provider, MeterProvider):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"meter_provider must be a MeterProvider or None, got {type(meter_provider).__name__}")
    tracer = get_tracer(_NAME, tracer_provider=tracer_provider)
    metrics = _Metrics(get_meter(_NAME, meter_provider=meter_provider))

    def observe(event: TraceEvent) -> None:
        if isinstance(event, RaceFinished):
            # Trio's clock counts from anywhere, a span's from 1970: they are compared now, when the call ends.
            began = time.time_ns() - _ns(event.at - event.report.started_at)
            _make_spans(tracer, event.report, began)
            metrics.record(event.report)

    return observe


class _Metrics:
    def __init__(self, meter: Meter) -> None:
        self._attempts = meter.create_counter(
            "trio_connect.attempt.count", "{attempt}", "Attempts that were started, by outcome."
        )
        self._wasted = meter.create_counter(
            "trio_connect.attempt.wasted", "{attempt}", "Attempts that were started and did not become the connection."
        )
        self._duration = meter.create_histogram(
            "trio_connect.connect.duration", "s", "What the attempt that won took, from its own start.",
            explicit_bucket_boundaries_advisory=_BOUNDARIES,
        )  # fmt: skip

    def record(self, report: ConnectReport) -> None:
        # Addresses and names are left out: each set of values is a series that is kept for ever.
        for attempt in report.tried:
            family = {"network.type": kind} if (kind := _network_type(attempt)) else {}
            failed = {"error.type": error} if (error := _error_of_attempt(attempt)) else {}
            self._attempts.add(1, {"trio_connect.attempt.outcome": attempt.outcome, **family, **failed})
            if attempt.outcome != "won":
                self._wasted.add(1, family)
            elif attempt.started is not None and attempt.ended is not None:
                self._duration.record(attempt.ended - attempt.started, family)


def _make_spans(tracer: Tracer, report: ConnectReport, began: int) -> None:
    attributes = _of_race(report)
    where = ":".join(str(attributes[key]) for key in ("server.address", "server.port") if key in attributes)
    parent = tracer.start_span(
        f"connect {where}".strip(), kind=SpanKind.CLIENT, attributes=attributes, start_time=began
    )
    # Without an SDK, and for a call that the sampler left out, there is nothing to add.
    if parent.is_recording():
        inside = set_span_in_context(parent)
        for lookup in report.lookups:
            span = tracer.start_span(
                f"DNS lookup {lookup.host}",
                inside,
                attributes=_of_lookup(lookup),
                start_time=began + _ns(lookup.started),
            )
            if lookup.error is not None:
                span.set_status(Status(StatusCode.ERROR, str(lookup.error.strerror or lookup.error)))
            span.end(began + _ns(lookup.ended))
        for attempt in report.tried:
            span = tracer.start_span(
                f"socket connect {attempt.endpoint}", inside, SpanKind.CLIENT, _of_attempt(attempt),
                start_time=began + _ns(attempt.started or 0.0),
            )  # fmt: skip
            if _error_of_attempt(attempt) is not None:
                span.set_status(Status(StatusCode.ERROR, attempt.reason))
            span.end(began + _ns(report.elapsed if attempt.ended is None else attempt.ended))
        if report.winner is None:
            parent.set_status(Status(StatusCode.ERROR, str(report).splitlines()[-1]))
    parent.end(began + _ns(report.elapsed))


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)


def _of_race(report: ConnectReport) -> _Attributes:
    found: _Attributes = {"network.transport": "tcp"}
    hosts = {attempt.host or attempt.endpoint.host for attempt in report.attempts}
    # A service's record is looked up under its own name, which is nobody's address.
    hosts |= {lookup.host for lookup in report.lookups if lookup.kind in ("A", "AAAA")}
    ports = {attempt.endpoint.port for attempt in report.attempts}
    # Several servers, as with several names, are nobody's address together.
    if len(hosts) == 1:
        found["server.address"] = hosts.pop()
        if len(ports) == 1:
            found["server.port"] = ports.pop()
    if report.winner is None:
        found["error.type"] = _error_of_race(report)
    else:
        found |= _peer(report.winner)
    return found


def _of_lookup(lookup: Lookup) -> _Attributes:
    # Experimental: dns.question.name, dns.answers.
    found: _Attributes = {"dns.question.name": lookup.host, "trio_connect.lookup.kind": lookup.kind}
    if lookup.answer is not None:
        found["dns.answers"] = list(lookup.answer.addresses)
    if lookup.error is not None:
        found["error.type"] = _error_of_lookup(lookup.error)
    return found


def _of_attempt(attempt: Attempt) -> _Attributes:
    found: _Attributes = {
        "server.address": attempt.host or attempt.endpoint.host,
        "server.port": attempt.endpoint.port,
        "network.transport": "tcp",
        **_peer(attempt),
        "trio_connect.attempt.outcome": attempt.outcome,
        "trio_connect.attempt.phase": attempt.phase,
    }
    if attempt.cause is not None:
        found["trio_connect.attempt.cause"] = attempt.cause
    if attempt.source is not None:
        found["trio_connect.attempt.source"] = str(attempt.source)
    error = _error_of_attempt(attempt)
    if error is not None:
        found["error.type"] = error
    return found


def _peer(attempt: Attempt) -> _Attributes:
    kind = _network_type(attempt)
    if kind is None:
        return {}
    endpoint = attempt.endpoint
    return {"network.peer.address": endpoint.host, "network.peer.port": endpoint.port, "network.type": kind}


def _network_type(attempt: Attempt) -> str | None:
    # The peer of a connection through a proxy is the proxy, whose address the report does not have.
    if attempt.source is not None and attempt.source.proxy is not None:
        return None
    return _FAMILIES[attempt.endpoint.family]


def _error_of_attempt(attempt: Attempt) -> str | None:
    if attempt.outcome not in ("failed", "timed out"):
        return None
    # Of a certificate, say: the reason has too many values.
    return _OTHER if attempt.errno is None else errorcode.get(attempt.errno, _OTHER)


def _error_of_lookup(error: OSError) -> str:
    # The EAI codes of some systems are numbers of other errors.
    names = _EAI if isinstance(error, socket.gaierror) else errorcode
    return _OTHER if error.errno is None else names.get(error.errno, _OTHER)


def _error_of_race(report: ConnectReport) -> str:
    # A race that fails by itself has tried every candidate, and has waited for all that could bring another.
    if any(attempt.outcome in ("cancelled", "not tried") for attempt in report.attempts) or any(
        lookup.answer is None and lookup.error is None and lookup.kind != "HTTPS" for lookup in report.lookups
    ):
        return "cancelled"
    errors = {_error_of_attempt(attempt) for attempt in report.failed}
    if not report.attempts:
        errors = {_error_of_lookup(lookup.error) for lookup in report.lookups if lookup.error is not None}
    return (errors.pop() if len(errors) == 1 else None) or _OTHER
