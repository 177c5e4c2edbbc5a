"""Redis and Valkey, by coredis, which is imported here and nowhere else."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final, cast, final

import trio

from .._text import shown
from ._redis_scripts import ALLOWED

__all__ = ["Dropped", "Refused", "Server", "ServerError", "check_url", "hidden"]

_DENIED: Final = "The user executing the script can't"
"""How Redis and Valkey begin when an ACL forbids what a script does."""
_CONNECTED: Final = 2.0
"""Seconds in which a connection has to be up: six round trips, for TCP, TLS and two questions, around the earth."""
_SCHEMES: Final = ("redis://", "rediss://", "unix://")


class ServerError(Exception):
    """The server gave no answer, or an error for one."""


class Refused(ServerError):
    """The server answered with an error."""


class Dropped(ServerError):
    """The connection was lost, or there was not one."""


def hidden(url: str) -> str:
    """Return a URL without user, password and query."""
    scheme, _, rest = url.partition("://")
    place, _, query = rest.partition("?")
    # An "@" behind a "?" is part of a password in the query, or the "?" is part of one before the host.
    return f"{scheme}://{'***' if '@' in query else place.rpartition('@')[2]}"


def check_url(url: object) -> str:
    """Return a URL of a server.

    Raises:
      ImportError: coredis is not installed.
      OSError: a file with certificates that it names cannot be read.
      TypeError: the URL is not a str.
      ValueError: it is not one of a server.
    """
    if not isinstance(url, str):
        raise TypeError(f"url must be a str, got {shown(url)}")
    if not url.startswith(_SCHEMES):
        # It is not quoted: any part of it may be a password.
        raise ValueError("url must begin with redis://, rediss:// or unix://")
    try:
        import coredis
    except ImportError as exc:
        raise ImportError('a store in Redis needs coredis: pip install "trio-connect[redis]"') from exc
    try:
        has_answers = not coredis.Redis.from_url(url).connection_pool.connection_kwargs.get("noreply")
    except (TypeError, ValueError, LookupError):
        raise ValueError("url has a port, a database or a query that is not a possible one") from None
    if not has_answers:
        raise ValueError("url has noreply, with which a server answers nothing")
    return url


@final
class Server:
    """A server that is connected to. Made by `Server.opened`."""

    def __init__(self, client: Any) -> None:
        self._client = client

    @classmethod
    @asynccontextmanager
    async def opened(cls, url: str) -> AsyncGenerator[Server, None]:
        """Connect, and keep a pool of connections for as long as the block lasts.

        Raises:
          Dropped: there is no connection within `_CONNECTED` seconds.
          Refused: the server lets nobody in, or not this user.
        """
        import coredis
        from coredis.retry import NoRetryPolicy

        # Its own retries would ask again with an answer on the way, and take their time. The scripts are sent again by
        # the store, which knows until when.
        client = coredis.Redis.from_url(url, decode_responses=True, retry_policy=NoRetryPolicy(), verify_version=False)
        async with client:
            # A pool connects for whoever asks first, and loses a place when that is cancelled. No call has the time
            # that a handshake may take, so call after call would be cancelled, and no connection ever be there.
            with trio.move_on_after(_CONNECTED) as scope, _answered():
                async with client.connection_pool.acquire():
                    pass
            if scope.cancelled_caught:
                raise Dropped(f"no connection within {_CONNECTED:g} s")
            yield cls(client)

    async def call(self, script: str, keys: Sequence[str], arguments: Sequence[str]) -> list[Any]:
        """Run a script.

        Raises:
          Dropped: the connection was lost before the answer. Whether the script has run is unknown.
          Refused: the server answered with an error.
        """
        from coredis.exceptions import NoScriptError

        digest = hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()
        with _answered():
            try:
                answer = await self._client.evalsha(digest, keys=keys, args=arguments)
            except NoScriptError:
                answer = await self._client.eval(script, keys=keys, args=arguments)
        return cast("list[Any]", answer)


@contextmanager
def _answered() -> Generator[None]:
    """Raise what coredis raises as what it means."""
    from coredis.exceptions import AuthorizationError, RedisError
    from coredis.exceptions import ConnectionError as ConnectionLost

    try:
        yield
    except ConnectionLost as exc:
        raise Dropped(str(exc) or type(exc).__name__) from exc
    except RedisError as exc:
        words = str(exc) or type(exc).__name__
        if isinstance(exc, AuthorizationError) or _DENIED in words:
            # The server does not say which command or key it is.
            words = f"{words.partition(' script: ')[0]}; its ACL has to allow {ALLOWED}"
        raise Refused(words) from exc
    except Exception as exc:  # a pool that is being left has errors of its own, and of what it is built upon
        raise Dropped(str(exc) or type(exc).__name__) from exc
