"""Put Trio's own cancel scopes around a connect: ours and theirs compose.

Prints:
  trio.move_on_after: gave up after 0.1 s, nothing left behind
  trio.fail_after: TooSlowError
  a deadline of ours inside a longer scope: DeadlineExceeded
  another task cancelled the connect: no exception, just the end of the scope
"""

import contextlib

import trio

from trio_connect import DeadlineExceeded, Endpoint, now, tcp_connect, tcp_listen


async def cancel_soon(scope: trio.CancelScope) -> None:
    """Cancel a connect that somebody else waits for."""
    await trio.sleep(0.05)
    scope.cancel()


async def show(silent: Endpoint) -> None:
    """Give up on an endpoint that never answers, in four ways."""
    with trio.move_on_after(0.1) as scope:
        await tcp_connect(silent)
    assert scope.cancelled_caught
    print("trio.move_on_after: gave up after 0.1 s, nothing left behind")

    try:
        with trio.fail_after(0.1):
            await tcp_connect(silent)
    except trio.TooSlowError as exc:
        print(f"trio.fail_after: {type(exc).__name__}")

    try:
        with trio.fail_after(10):
            await tcp_connect(silent, now() + 100)
    except trio.TooSlowError as exc:
        print(f"a deadline of ours inside a longer scope: {type(exc).__name__}")

    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cancel_soon, scope)
            await tcp_connect(silent)
    print("another task cancelled the connect: no exception, just the end of the scope")


async def main() -> None:
    """Make a listener that never answers: its backlog is full."""
    async with contextlib.AsyncExitStack() as stack:
        silent = await stack.enter_async_context(await tcp_listen(("127.0.0.1", 0), backlog=0))
        with contextlib.suppress(DeadlineExceeded):
            while True:
                await stack.enter_async_context(await tcp_connect(silent.endpoint, now() + 50))
        await show(silent.endpoint)


trio.run(main)
