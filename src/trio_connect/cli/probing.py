"""Probes a target: once as a client would, in a race, or each of its addresses by itself and to its end."""

from __future__ import annotations

from functools import partial

import trio

from trio_connect import (
    ConnectFailed,
    DeadlineExceeded,
    Endpoint,
    RaceOptions,
    ResolveFailed,
    Source,
    TcpStream,
    TlsStream,
    connect,
    connectx,
    deadline_after,
)

from .outcome import ExitCode, Probe, TlsFacts, exit_code_of, exit_code_of_each
from .recorder import Recorder
from .settings import Settings, Target


async def probe_race(target: Target, settings: Settings, recorder: Recorder) -> Probe:
    """Connect to a target once, as a client would, and hang up.

    Args:
      target: whom.
      settings: how.
      recorder: keeps the report.
    """
    host, port = settings.place(target)
    tls = settings.wants_tls(target)
    options = _options(target, settings)
    options["sources"] = settings.sources
    options["observer"] = recorder.observer()
    facts: dict[int, TlsFacts] = {}
    error: OSError | None = None
    try:
        stream = await connect(
            host, port, deadline_after(settings.deadline), resolver=settings.resolver((host, port)), **options
        )
    except OSError as exc:
        error = exc
    else:
        winner = next(i for i, attempt in enumerate(stream.report.attempts) if attempt.outcome == "won")
        if isinstance(stream, TlsStream):
            facts[winner] = TlsFacts.of(stream)
        await _hang_up(stream)
    return Probe(
        report=recorder.report(),
        exit_code=ExitCode.OK if error is None else exit_code_of(error),
        error=None if error is None else _text(error),
        tls=facts,
        wanted_tls=tls,
    )


async def probe_each(target: Target, settings: Settings, recorder: Recorder) -> Probe:
    """Connect to each address of a target from each source, side by side, none of which hears of the others.

    Args:
      target: whom.
      settings: how; the deadline is that of each address, and of the lookups.
      recorder: keeps the report.
    """
    tls = settings.wants_tls(target)
    endpoints, error = await _addresses(target, settings, recorder)
    if not endpoints:
        code = ExitCode.RESOLVE if error is None else exit_code_of(error)
        return Probe(
            report=recorder.report(),
            exit_code=ExitCode.RESOLVE if code is ExitCode.CONNECT else code,
            error=None if error is None else _text(error),
            wanted_tls=tls,
            each=True,
        )
    sources: tuple[Source | None, ...] = settings.sources or (None,)
    pairs = [
        (endpoint, source)
        for endpoint in endpoints
        for source in sources
        if source is None or source.serves(endpoint.family)
    ]
    facts: dict[int, TlsFacts] = {}
    codes: dict[int, ExitCode] = {}
    async with trio.open_nursery() as nursery:
        for number, (endpoint, source) in enumerate(pairs):
            options = _options(target, settings)
            options["sources"] = () if source is None else (source,)
            options["observer"] = recorder.observer(number)
            nursery.start_soon(partial(_one, number, endpoint, settings.deadline, options, facts, codes))
    report = recorder.report()
    return Probe(
        report=report,
        exit_code=exit_code_of_each({attempt: codes[i] for i, attempt in enumerate(report.attempts)}),
        tls=facts,
        wanted_tls=tls,
        each=True,
    )


async def _one(
    number: int,
    endpoint: Endpoint,
    deadline: float,
    options: RaceOptions,
    facts: dict[int, TlsFacts],
    codes: dict[int, ExitCode],
) -> None:
    try:
        stream = await connectx([endpoint], deadline_after(deadline), **options)
    except OSError as error:
        codes[number] = exit_code_of(error)
    else:
        codes[number] = ExitCode.OK
        if isinstance(stream, TlsStream):
            facts[number] = TlsFacts.of(stream)
        await _hang_up(stream)


async def _addresses(
    target: Target, settings: Settings, recorder: Recorder
) -> tuple[tuple[Endpoint, ...], OSError | None]:
    """Look a target up and connect to nobody: a connect whose filter refuses every address has all of them."""
    host, port = settings.place(target)
    # A proxy of the source is not asked for anything here, so what -4 and -6 mean is all there is to say.
    sources = tuple(source for source in settings.sources if source.proxy is None)
    try:
        stream = await connect(
            host,
            port,
            deadline_after(settings.deadline),
            resolver=settings.resolver((host, port)),
            sources=sources,
            address_filter=_no_address,
            observer=recorder.hear_lookups,
        )
    except (ResolveFailed, DeadlineExceeded, ConnectFailed) as error:
        report = error.report
        found = () if report is None else tuple(dict.fromkeys(attempt.endpoint for attempt in report.attempts))
        return found, error
    except OSError as error:
        return (), error
    stream.abort()
    raise AssertionError("a connect that may go nowhere went somewhere")


def _no_address(_endpoint: Endpoint) -> bool:
    return False


def _options(target: Target, settings: Settings) -> RaceOptions:
    options = RaceOptions(policy=settings.policy)
    if settings.wants_tls(target):
        options["tls"] = settings.context or True
        options["server_hostname"] = target.host
    return options


async def _hang_up(stream: TcpStream | TlsStream) -> None:
    # A TLS stream says that it closes; neither waits for the peer.
    await stream.aclose()


def _text(error: OSError) -> str:
    text = error.strerror or str(error)
    return " ".join(text.split())
