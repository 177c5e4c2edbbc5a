"""What needs both directions of a stream: a request and its response in one call."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from trio import ClosedResourceError, current_time

from ..._check import SIZE_LIMIT, check_size
from ..._deadline import NO_DEADLINE, to_seconds
from ..sockets.waiting import Expired
from .receiving import RECEIVE_SIZE, ReceivingHalf
from .sending import SendingHalf, release, views_of
from .state import A, C

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Buffer


class BothHalves(ReceivingHalf[A, C], SendingHalf[A, C]):
    """Everything that gives bytes to the peer and takes the answer."""

    __slots__ = ()

    async def exchange(self, data: Buffer | Sequence[Buffer], n: int, deadline: int = -1) -> bytes:
        """Send all bytes, then receive exactly `n`: a request and its response.

        All that `send_all` and `receive_exactly` promise holds. A request that is one bytes object has one checkpoint
        for both, which comes between the two, when the peer may answer. Both directions belong to this call until it
        returns.

        Args:
          data: as for `send_all`.
          n: how many bytes the response has; bytes that are buffered come first. 0 gives b"".
          deadline: milliseconds on the clock of `now()`, for all of it; -1 for none, 0 for one try of each.

        Returns:
          The `n` bytes, never fewer.

        Raises:
          DeadlineExceeded: the request was not sent in time, and `transferred` says how much of it was; or, as the text
            says, the response did not come, and `transferred` says how much of it is buffered. The stream stays usable.
          IncompleteRead: the peer ended the stream before; what came stays buffered.
          TypeError: not bytes, or `n` is not an int.
          ValueError: `n` is negative, or so large that it was meant as a deadline.
          trio.BrokenResourceError: the connection broke; what came stays buffered.
          trio.BusyResourceError: another task is sending or receiving; nothing was sent.
          trio.ClosedResourceError: this stream was closed, before or meanwhile, or `send_eof` was called.
        """
        until = inf if deadline.__class__ is int and deadline == NO_DEADLINE else to_seconds(deadline)
        if n.__class__ is not int or not 0 <= n < SIZE_LIMIT:
            check_size(n, "n", 0)
        whole = data if type(data) is bytes and data and 0 < n <= RECEIVE_SIZE and not self._buffer else None
        views = views_of(data) if whole is None else []
        if self._closed or self._sending or self._eof_sent or self._receiving:
            self._check_can_send_bytes()
            self._check_can_receive()
        started = current_time() if until != inf else 0.0
        if -inf < until <= started:
            release(views)
            await self._refuse_late("exchange", until)
        sent = 0
        self._sending = self._receiving = True
        try:
            if whole is not None:
                # Nearly every call comes here, and mostly goes no further.
                try:
                    sent, response = await self._sock.exchange(whole, RECEIVE_SIZE, until)
                except Expired:
                    raise self._exceeded("send", started, 0) from None
                except OSError as exc:
                    self._raise_broken("exchange", exc)
                except ClosedResourceError:
                    self._raise_closed()
                if self._closed:
                    self._raise_closed()
                if sent == len(whole):
                    if response is None:
                        raise self._exceeded("receive", started, 0)
                    if len(response) == n:
                        return response
                    if not response:
                        self._check_end("exchange")
                    return await self._complete(n, response, until, started)
                views = [memoryview(whole)[sent:]]
            await self._send(views, until, started, sent)
            if self._closed:
                self._raise_closed()
            if len(self._buffer) >= n:
                return self._buffer.take_up_to(n)
            return await self._receive_exactly(n, until)
        finally:
            self._sending = self._receiving = False
