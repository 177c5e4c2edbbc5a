"""The sending half of a stream.

A send that times out says how much went and poisons nothing; a second sender gets `trio.BusyResourceError` and
changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import TYPE_CHECKING, Final, cast

from trio import ClosedResourceError, current_time
from trio.lowlevel import checkpoint

from ..._deadline import NO_DEADLINE, to_seconds
from ..._text import shown
from ..sockets.waiting import Expired
from .state import A, C, StreamState, turns

if TYPE_CHECKING:
    from typing_extensions import Buffer

_IOV_MAX: Final = 1024  # limits.h; sendmsg(2) answers EMSGSIZE for more


class SendingHalf(StreamState[A, C]):
    """Everything that gives bytes to the peer."""

    __slots__ = ()

    async def send_all(self, data: Buffer | Sequence[Buffer], deadline: int = -1) -> None:
        """Send all bytes, of one buffer or of several one after the other.

        Returns when the kernel has taken them, not when the peer has them. The buffers must not change meanwhile.

        Args:
          data: a bytes-like object, or a list or tuple of them, which are sent together (sendmsg(2)) without joining.
          deadline: milliseconds on the clock of `now()`, for all of it; -1 for none, 0 for what fits now.

        Raises:
          DeadlineExceeded: the kernel did not take all in time; `transferred` says how many it took. The stream stays
            usable: send the rest, or close it.
          TypeError: not bytes.
          trio.BrokenResourceError: the connection broke.
          trio.BusyResourceError: another task is sending.
          trio.ClosedResourceError: this stream was closed, before or meanwhile, or `send_eof` was called.
        """
        # Nearly every call has one bytes object and no deadline, and its layers would cost as much as its system call:
        # it makes no view and asks nobody whom it need not.
        until = inf if deadline.__class__ is int and deadline == NO_DEADLINE else to_seconds(deadline)
        whole = data if type(data) is bytes and data else None
        views = views_of(data) if whole is None else []
        if self._closed or self._sending or self._eof_sent:
            self._check_can_send_bytes()
        started = current_time() if until != inf else 0.0
        if -inf < until <= started:
            release(views)
            await self._refuse_late("send", until)
        sent = 0
        self._sending = True
        try:
            if whole is not None:
                try:
                    sent = await self._sock.send(whole, until)
                except Expired:
                    raise self._exceeded("send", started, 0) from None
                except OSError as exc:
                    self._raise_broken("send", exc)
                except ClosedResourceError:
                    self._raise_closed()
                if sent == len(whole):
                    return
                if self._closed:
                    self._raise_closed()
                views = [memoryview(whole)[sent:]]
            await self._send(views, until, started, sent)
        finally:
            self._sending = False

    async def _send(self, views: list[memoryview], until: float, started: float, sent: int) -> None:
        """Send all of these and release them; `_sending` is the caller's, who may have sent something before."""
        begun = sent > 0
        total = sent + sum(map(len, views))
        try:
            if not total:
                await checkpoint()
                return
            for _ in turns(until, begun=begun):
                count = await (
                    self._sock.send(views[0], until)
                    if len(views) == 1
                    else self._sock.send_buffers(views[:_IOV_MAX], until)
                )
                sent += count
                if sent == total:
                    return
                if self._closed:
                    self._raise_closed()
                _consume(views, count)
            raise Expired
        except Expired:
            raise self._exceeded("send", started, sent) from None
        except OSError as exc:
            self._raise_broken("send", exc)
        except ClosedResourceError:
            self._raise_closed()
        finally:
            release(views)

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until sending might not block, see `trio.abc.SendStream`.

        Raises:
          trio.BrokenResourceError: the connection broke.
          trio.BusyResourceError: another task is sending.
          trio.ClosedResourceError: this stream was closed, before or meanwhile.
        """
        self._check_can_send()
        self._sending = True
        try:
            await self._sock.wait_writable()
        except OSError as exc:
            self._raise_broken("send", exc)
        except ClosedResourceError:
            self._raise_closed()
        finally:
            self._sending = False


def views_of(data: Buffer | Sequence[Buffer]) -> list[memoryview]:
    """Return views of what to send, without the empty ones; `release` has to let go of them.

    Raises:
      TypeError: not bytes.
    """
    try:
        return [memoryview(data).cast("B")]  # type: ignore[arg-type]
    except TypeError:
        if isinstance(data, memoryview):  # which is a sequence too, of numbers
            raise TypeError(
                f"send_all needs bytes that lie side by side, got {shown(cast('object', data))} with gaps"
            ) from None
        if isinstance(data, str) or not isinstance(data, Sequence):
            raise TypeError(f"send_all needs bytes or a sequence of bytes, got {shown(data)}") from None
    try:
        return [view for view in (memoryview(part).cast("B") for part in data) if view]
    except TypeError as exc:
        raise TypeError(f"send_all needs bytes or a sequence of bytes: {exc}") from None


def release(views: list[memoryview]) -> None:
    """Let go of views: a bytearray cannot be resized while a traceback keeps one of it."""
    for view in views:
        view.release()


def _consume(views: list[memoryview], count: int) -> None:
    done = 0
    while count >= len(views[done]):
        count -= len(views[done])
        done += 1
    del views[:done]
    views[0] = views[0][count:]
