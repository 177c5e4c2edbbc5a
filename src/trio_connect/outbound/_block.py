"""The `async with` blocks of this package, with Ctrl-C kept from their own lines."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import TypeVar, final

from trio.lowlevel import enable_ki_protection

__all__ = ["Block"]

T = TypeVar("T")


@final
class Block(AbstractAsyncContextManager[T, bool | None]):
    """A block whose beginning and end Ctrl-C does not interrupt, except where they wait.

    Else an interrupt between two lines of the accounting, or in the lines of `contextlib`, would keep the places of a
    call for ever. What is in the block is the caller's and is not protected.

    Args:
      manager: does the work.
    """

    __slots__ = ("_manager",)

    def __init__(self, manager: AbstractAsyncContextManager[T, bool | None]) -> None:
        self._manager = manager

    @enable_ki_protection
    async def __aenter__(self) -> T:
        return await self._manager.__aenter__()

    @enable_ki_protection
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        return await self._manager.__aexit__(kind, error, traceback)
