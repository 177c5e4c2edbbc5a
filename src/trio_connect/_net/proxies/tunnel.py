"""The conversation with a proxy that opens a tunnel. python-socks says what is sent and reads what is answered.

It is given a stream of ours by its own way for chains of proxies: `forward` is whatever has a `connect` that returns a
stream. So it opens no socket, looks up no name and measures no time here.

Every answer is read up to its last byte and no further. A server that speaks first (SMTP, SSH) has its greeting glued
to the answer of an HTTP proxy, and python-socks would read both as one, and drop the greeting. Rejected: to read on
into the buffer of the stream. `TcpStream.start_tls` refuses a stream whose buffer is not empty, so that a proxy which
says too much would read as a mistake of the program's; left in the kernel, its words fail the handshake.
"""

from __future__ import annotations

import errno
import re
from importlib import import_module
from math import inf
from typing import TYPE_CHECKING, Any, Final, cast, final

import attrs
import trio

from ..._messages import strerror
from ..._text import one_line
from ..names.resolve import encoded
from ..streams.receiving import receive_without_reading_ahead

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..._endpoint import Endpoint
    from ..._proxy import Proxy
    from ..._report import Phase
    from ..streams.tcp_stream import TcpStream

_END_OF_HEAD: Final = b"\r\n\r\n"
_STATUS: Final = re.compile(rb"(HTTP/1\.[0-9] )([1-5][0-9]{2})(?=[ \r])")
"""The beginning of a response, RFC 9112 section 4."""
_SWITCHING_PROTOCOLS: Final = b"101"
"""No interim response: after it the connection speaks something else (RFC 9110 section 15.2.2)."""
_LONGEST_HEAD: Final = 1 << 14
"""Bytes, of all responses together: twice what nginx and Apache allow by default for one line of a head."""
_NONE_ACCEPTABLE: Final = b"\x05\xff"
"""RFC 1928 section 3: none of the methods of authentication will do."""
_SOCKS_ERRNOS: Final = {
    # RFC 1928 section 6.
    2: errno.EACCES,
    3: errno.ENETUNREACH,
    4: errno.EHOSTUNREACH,
    5: errno.ECONNREFUSED,
    6: errno.EHOSTUNREACH,
    7: errno.EOPNOTSUPP,
    8: errno.EAFNOSUPPORT,
}
_HTTP_ERRNOS: Final = {
    # RFC 9110 section 15.
    401: errno.EACCES,
    403: errno.EACCES,
    407: errno.EACCES,
    504: errno.ETIMEDOUT,
}
_SERVER_ERRORS: Final = 500
_WANTS_CREDENTIALS: Final = (401, 407)


@attrs.frozen
class NoTunnel:
    """Why there is no tunnel."""

    phase: Phase
    """Whom to charge: "bind" when the proxy itself is to blame, "connect" when it could not reach the target."""
    code: int
    words: str
    """For messages, which also name the proxy."""


def check_installed() -> None:
    """Have python-socks loaded, or say how to get it.

    Raises:
      ImportError: it is not installed.
    """
    try:
        import_module("python_socks.async_.trio.v2")
    except ImportError as exc:
        raise ImportError("a proxy needs python-socks: pip install 'trio-connect[socks]'", name=exc.name) from exc


async def open_tunnel(
    stream: TcpStream, proxy: Proxy, target: Endpoint, on_asked: Callable[[], None]
) -> NoTunnel | None:
    """Ask a proxy for a tunnel, and wait for its answer.

    A failure is returned and not raised, because the frames of the exception behind it hold the password.

    Args:
      stream: the connection to it; afterwards the one through it. The caller closes it.
      proxy: the proxy.
      target: where the tunnel is to lead, a name or an address.
      on_asked: called when the proxy has been asked, and the rest is up to the target.

    Returns:
      None when the tunnel is open; else why the proxy refuses, speaks something else, or ends the connection.
    """
    from python_socks import ProxyError, ProxyType
    from python_socks.async_.trio.v2 import Proxy as Client

    is_http = proxy.scheme == "http"
    login = proxy.credentials
    user, password = (None, None) if login is None else (login.user, login.password)
    talk = _Talk(stream, on_asked, is_http=is_http)
    client = Client(
        ProxyType.HTTP if is_http else ProxyType.SOCKS5, proxy.host, proxy.port, user, password, True,
        forward=cast("Any", talk),
    )  # fmt: skip
    # A name goes out as all others do, by IDNA 2008; numeric addresses are ASCII.
    host = encoded(target.host).decode("ascii")
    try:
        await client.connect(host, target.port, timeout=inf)
    except ProxyError as exc:
        return _refused(talk, exc.error_code, proxy.censored(str(exc)), is_http=is_http)
    except UnicodeDecodeError:
        # Of the address that a SOCKS5 proxy has bound, which may be a name (RFC 1928 section 6).
        return NoTunnel("bind", errno.EPROTO, "the proxy does not speak its protocol: it bound a name that is no text")
    except trio.BrokenResourceError as exc:
        code = getattr(exc.__cause__, "errno", None) or errno.ECONNRESET
        words = "ended the connection" if exc.__cause__ is None else f"broke the connection ({strerror(code)})"
        return NoTunnel("connect" if talk.has_asked else "bind", code, f"the proxy {words} before its answer")
    except _TooLong:
        return NoTunnel("bind", errno.EMSGSIZE, f"the answer of the proxy is longer than {_LONGEST_HEAD} bytes")
    return None


def _refused(talk: _Talk, code: int | None, words: str, *, is_http: bool) -> NoTunnel:
    said = f"the proxy said: {one_line(words)}"
    if code is not None:
        code = int(code)
        # Of a target that cannot be reached proxies say 500, 502 or 503.
        other = errno.EHOSTUNREACH if is_http and code >= _SERVER_ERRORS else errno.ECONNABORTED
        found = (_HTTP_ERRNOS if is_http else _SOCKS_ERRNOS).get(code, other)
        return NoTunnel("bind" if is_http and code in _WANTS_CREDENTIALS else "connect", found, said)
    # Not an answer to the question: it wants another name or password, or speaks another protocol.
    if talk.wants_credentials:
        return NoTunnel("bind", errno.EACCES, said)
    return NoTunnel("bind", errno.EPROTO, f"the proxy does not speak its protocol: {one_line(words)}")


class _TooLong(Exception):
    pass


@final
class _Talk:
    """The connection to a proxy as python-socks sees it; as its `forward`, also what gives that connection."""

    def __init__(self, stream: TcpStream, on_asked: Callable[[], None], *, is_http: bool) -> None:
        self._stream = stream
        self._on_asked = on_asked
        self._is_http = is_http
        self._last_sent = b""
        self.has_asked = False
        """Whether the proxy has been asked for the tunnel."""
        self.wants_credentials = False
        """Whether it has refused the name and the password, or their absence."""

    async def connect(self, *_args: Any, **_kwargs: Any) -> _Talk:
        return self

    async def write(self, data: bytes) -> None:
        self._last_sent = data
        # RFC 1928 section 3: five octets are more than the methods that are offered. RFC 1929 begins with a 1.
        if self._is_http or (data[:1] == b"\x05" and len(data) > 4):
            self.has_asked = True
            self._on_asked()
        await self._stream.send_all(data)

    async def read(self, _max_bytes: int = 0) -> bytes:
        """Return the head of the final HTTP response; one of success has the status 200, which python-socks looks for.

        RFC 9110 section 9.3.6: "Any 2xx (Successful) response indicates" that what follows its head is the tunnel's.
        Section 15.2: a client reads interim responses even if it expects none.
        """
        left = _LONGEST_HEAD
        while True:
            head = await self._head(left)
            left -= len(head)
            status = _STATUS.match(head)
            if status is None or not status[2].startswith(b"1") or status[2] == _SWITCHING_PROTOCOLS:
                break
        return _STATUS.sub(rb"\g<1>200", head, 1) if status is not None and status[2].startswith(b"2") else head

    async def _head(self, left: int) -> bytes:
        """Return the head of an HTTP response (RFC 9112 section 2.1), and leave in the kernel what follows it."""
        head = bytearray()
        while not head.endswith(_END_OF_HEAD):
            if len(head) > left:
                raise _TooLong
            # So many bytes of the end are there already; no fewer than the others are missing.
            there = next(count for count in (3, 2, 1, 0) if head.endswith(_END_OF_HEAD[:count]))
            head += await receive_without_reading_ahead(self._stream, len(_END_OF_HEAD) - there, inf)
        return bytes(head)

    async def read_exactly(self, n: int) -> bytes:
        data = await receive_without_reading_ahead(self._stream, n, inf)
        # RFC 1929 section 2: after a name and password anything but 0 is a refusal.
        self.wants_credentials = data == _NONE_ACCEPTABLE or (self._last_sent[:1] == b"\x01" and data[1:2] != b"\x00")
        return data

    async def close(self) -> None:
        """Do nothing: the attempt closes the connection."""
