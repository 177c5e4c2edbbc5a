"""`tcp_connect`: one endpoint, one socket."""

from __future__ import annotations

from contextlib import nullcontext
from math import inf
from typing import TYPE_CHECKING, Final

from trio import CancelScope, current_time
from trio.lowlevel import (
    cancel_shielded_checkpoint,
    checkpoint,
    checkpoint_if_cancelled,
    enable_ki_protection,
    wait_writable,
)

from .._deadline import to_seconds
from .._endpoint import Endpoint, EndpointLike, Source, as_endpoint, check_connectable
from .._options import DEFAULT_OPTIONS, SocketOptions, check_options
from .._text import shown
from .attempt import PENDING, Attempt, load_reports
from .sockets.open import factory_installed
from .sockets.waiting import Expired
from .streams.tcp_stream import TcpStream

if TYPE_CHECKING:
    from .attempt import OpenAttempt

_FOREVER: Final = nullcontext()


@enable_ki_protection  # free, and Ctrl-C cannot come between making a socket and the code that closes it
async def tcp_connect(
    endpoint: EndpointLike,
    deadline: int = -1,
    *,
    source: Source | None = None,
    options: SocketOptions = DEFAULT_OPTIONS,
) -> TcpStream:
    """Connect to one numeric address.

    Args:
      endpoint: where to, an `Endpoint` or an address tuple of the `socket` module.
      deadline: milliseconds on the clock of `now()`; -1 for none. With 0 connect(2) is tried, other tasks get
        one turn, and it is looked at once more. With one that has passed nothing is tried.
      source: the address, interface or port to connect from, or the proxy to connect through, see `Source`.
      options: what to set on the socket before it connects.

    Returns:
      The connected stream.

    Raises:
      OSError: the kernel's own subclass, such as `ConnectionRefusedError`, with errno, endpoint, source and elapsed
        time in its text, which begins with "local:" for trouble on this machine. The kernel's own giving up is a
        plain `TimeoutError`.
      DeadlineExceeded: the deadline came first; `report` has the attempt.
      ImportError: the source has a proxy, and python-socks is not installed.
      TypeError: an argument has the wrong type.
      ValueError: the endpoint is a name or malformed, its port is 0, the source has no address of its family, or the
        deadline is below -1. Nothing was opened.

    See connect(2) and RFC 9293 section 3.9.1.
    """
    if not isinstance(endpoint, Endpoint):
        endpoint = as_endpoint(endpoint)
    if not endpoint.port:
        check_connectable(endpoint)
    until = to_seconds(deadline)
    open_attempt: OpenAttempt = Attempt
    if source is not None:
        _check_source(source, endpoint)
        if source.proxy is not None:
            from .proxies.attempt import proxied_attempts

            open_attempt = proxied_attempts((source,))
    if options is not DEFAULT_OPTIONS:
        check_options(options)
    load_reports()
    # Before the socket exists: a cancelled caller must not send a SYN.
    await checkpoint_if_cancelled()
    started = current_time()
    if until <= started and until != -inf:
        await checkpoint()
        from .reports import late_connect

        raise late_connect(endpoint, source, until)
    attempt = open_attempt(endpoint, source, started)
    try:
        factory = factory_installed()
        code = attempt.begin(options, factory=factory)
        if code == PENDING and not factory:  # whose connects are coroutines and take their own passes
            code = await attempt.first_poll(may_spin=until > started)
        if code == PENDING:
            fd = -1 if until == -inf else attempt.descriptor()
            if fd < 0:
                code = await attempt.finish(until)
            else:
                # `finish` written out: each frame between this one and Trio's takes a quarter of a KiB of every pending
                # connect, and time whenever one is resumed.
                with _FOREVER if until == inf else CancelScope(deadline=until):
                    while code == PENDING:
                        await wait_writable(fd)
                        code = attempt.poll()
                if code == PENDING:
                    code = attempt.poll()
                if code == PENDING:
                    raise Expired
        elif not attempt.yielded:  # otherwise a loop of retries would starve every other task
            await cancel_shielded_checkpoint()
        if code:
            raise attempt.error(code)
        assert attempt.sock is not None
        multipath = None if options is DEFAULT_OPTIONS else attempt.multipath_info(options)
        return TcpStream(attempt.sock, endpoint, (((source, endpoint),), {}, started, current_time(), multipath))
    except Expired:
        origin = attempt.origin()
        attempt.close()
        from .reports import deadline_exceeded

        raise deadline_exceeded(endpoint, source, origin, started) from None
    except BaseException:  # written out, for a context manager costs a twentieth of a connect
        attempt.close()
        raise


def _check_source(source: object, endpoint: Endpoint) -> None:
    if not isinstance(source, Source):
        raise TypeError(f"source must be a Source, got {shown(source)}")
    source.check(endpoint)
