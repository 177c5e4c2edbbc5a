"""A strict store takes places away, at whatever step of a call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self

import attrs
import pytest
import trio

from tests.outbound.kit import at, opened, rules
from trio_connect import now
from trio_connect._engine.limits import Cap, Pace
from trio_connect.outbound import FileStore, LeaseLost
from trio_connect.testing import echo


@attrs.define(eq=False)
class Place:
    is_lost: bool = False

    def release(self) -> None:
        pass


class Losing(FileStore):  # type: ignore[misc]  # final, so that users make no others
    """A store that loses each place so many turns of the event loop after it has given it."""

    may_lose = True

    def __init__(self, turns: int) -> None:
        super().__init__("no file")
        self._turns = turns

    async def __aenter__(self) -> Self:
        return self

    def bind(self, changed: Callable[..., None], lost: Callable[[], None]) -> None:
        self._lost = lost

    def register(self, caps: Sequence[Cap], paces: Sequence[Pace]) -> None:
        pass

    def acquire(self, caps: Sequence[Cap], paces: Sequence[Pace]) -> Any:
        places = {cap: Place() for cap in caps}
        trio.lowlevel.spawn_system_task(self._lose, list(places.values()))
        return places

    async def _lose(self, places: list[Place]) -> None:
        for _ in range(self._turns):
            await trio.lowlevel.checkpoint()
        for place in places:
            place.is_lost = True
        self._lost()


@pytest.mark.parametrize("turns", range(6))
@pytest.mark.parametrize("waits", [False, True])
async def test_a_permit_ends_when_its_place_is_lost(turns, waits, vnet, autojump_clock):
    async with opened(rules(max_connections=1), store=Losing(turns)) as out, trio.open_nursery() as nursery:
        dest = out.destination("a")

        async def hold() -> None:
            with pytest.raises(LeaseLost):
                async with dest.permit():
                    await trio.sleep(60)

        for _ in range(1 + waits):
            nursery.start_soon(hold)


@pytest.mark.parametrize("turns", range(6))
@pytest.mark.parametrize("waits", [False, True])
async def test_a_connection_ends_when_its_place_is_lost(turns, waits, vnet, autojump_clock):
    vnet.host("192.0.2.1").listen(25, echo)
    async with opened(rules(max_connections=1), store=Losing(turns)) as out, trio.open_nursery() as nursery:
        dest = out.destination("a", candidates=at("192.0.2.1"))

        async def hold() -> None:
            with pytest.raises((LeaseLost, trio.ClosedResourceError)):
                async with dest.connect(now() + 60_000) as connection:
                    await connection.stream.receive_some(deadline=now() + 60_000)

        for _ in range(1 + waits):
            nursery.start_soon(hold)
