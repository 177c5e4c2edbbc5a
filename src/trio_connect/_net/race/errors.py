"""What exceptions mean in a race: the failure of one attempt, the end of all, or Trio's own cancellation."""

from __future__ import annotations

import socket
import ssl
from typing import Final, TypeGuard, cast

import trio

from ..._errors import EstablishFailed, ResolveFailed
from ..._messages import first_leaf

# What an establish may raise to fail its attempt alone; ssl.SSLError is an OSError.
ATTEMPT_ERRORS: Final = (OSError, trio.BrokenResourceError, trio.TooSlowError, EstablishFailed)


def fails_an_attempt(exc: BaseException) -> TypeGuard[Exception]:
    """Say whether what an establish raised fails its attempt alone; anything else ends the race.

    A nursery in an establish wraps what its tasks raise: a group of nothing but such errors, nested ones too, counts
    like one of them.
    """
    if isinstance(exc, ExceptionGroup):
        return all(map(fails_an_attempt, cast("ExceptionGroup[Exception]", exc).exceptions))
    return isinstance(exc, ATTEMPT_ERRORS)


def without_cancellation(exc: BaseException) -> BaseException:
    """Return an exception without Trio's own Cancelled. An exception of Cancelled alone is raised.

    A nursery in the caller's establish raises a group when several of its tasks are cancelled.
    """
    rest = _rest_of(exc)
    if rest is not None:
        return rest
    try:
        raise exc
    finally:
        del exc  # its traceback holds this frame, and those of the whole race


def _rest_of(exc: BaseException) -> BaseException | None:
    if not isinstance(exc, BaseExceptionGroup):
        return None if isinstance(exc, trio.Cancelled) else exc
    group = cast("BaseExceptionGroup[BaseException]", exc)
    cancelled, rest = group.split(trio.Cancelled)
    return group if cancelled is None else rest


def _is_cancellation(exc: BaseException) -> bool:
    if isinstance(exc, BaseExceptionGroup):
        return all(map(_is_cancellation, cast("BaseExceptionGroup[BaseException]", exc).exceptions))
    return isinstance(exc, trio.Cancelled)


def out_of_the_group(exc: BaseException) -> BaseException:
    """Return the exception that a nursery of ours has wrapped: the one error, or else a cancellation."""
    if not isinstance(exc, BaseExceptionGroup):
        return exc
    group = cast("BaseExceptionGroup[BaseException]", exc)
    errors = [member for member in group.exceptions if not _is_cancellation(member)]
    if errors:
        return errors[0] if len(errors) == 1 else group
    return out_of_the_group(group.exceptions[0])


def out_of_a_block(body: BaseException | None, tasks: BaseException) -> BaseException:
    """Return what a block raises whose nursery has raised after its body had ended: an error, or else a cancellation.

    Args:
      body: what the body raised.
      tasks: what the nursery raised of its tasks.
    """
    if body is None or _is_cancellation(body):
        return tasks
    if _is_cancellation(tasks):
        # A cancel from outside reaches the tasks too. What the body says of it would be lost.
        return body
    return BaseExceptionGroup("the body of a block has failed, and one of its tasks", [body, out_of_the_group(tasks)])


def comes_of_closing(exc: BaseException | None) -> bool:
    """Say whether an exception comes from the closing of the connection that a caller's establish was using.

    It is a `trio.ClosedResourceError`, bare, in the group of a nursery, or behind the exception of a library.
    """
    while exc is not None:
        if isinstance(exc, (trio.ClosedResourceError, *ATTEMPT_ERRORS)):
            return True
        if isinstance(exc, BaseExceptionGroup):
            group = cast("BaseExceptionGroup[BaseException]", exc)
            return all(map(comes_of_closing, group.exceptions))
        if not isinstance(exc, Exception):
            return False
        exc = exc.__cause__ or exc.__context__
    return False


def errno_of_establish(exc: Exception) -> int | None:
    """Return the errno of what an establish raised; None where it is a number of OpenSSL's or of the resolver's.

    A group counts by its first leaf.
    """
    leaf = first_leaf(exc)
    if isinstance(leaf, OSError) and not isinstance(leaf, ssl.SSLError | socket.gaierror | ResolveFailed):
        return leaf.errno
    return None
