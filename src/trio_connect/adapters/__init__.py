"""Connections of ours inside of the clients that programs use already: one module for each of these clients.

Each module imports its client, and says what to install where that is missing. All of it is written with public names
of ours alone, so other clients can be served in the same way. `logs` and `otel` have observers instead: these hand on
what happens in a connect.
"""

from .. import ConnectFailed, DeadlineExceeded, Resolver, TcpRaceOptions

__all__ = ["ConnectOptions", "failure_of"]


class ConnectOptions(TcpRaceOptions, total=False):
    """The keyword arguments of `trio_connect.connect` for clients that bring TLS of their own.

    Attributes:
      policy, sources, history, address_filter, observer, options, nat64: see `trio_connect.TcpRaceOptions`.
      resolver: whom to ask for addresses; None for the system.
    """

    resolver: Resolver | None


def failure_of(error: BaseException) -> ConnectFailed | DeadlineExceeded | None:
    """Return the exception of ours behind one of a client; its `report` has every lookup and attempt.

    Args:
      error: what the client has raised.

    Returns:
      What `trio_connect.connect` had raised, or a stream whose deadline came; None if there is no such exception.
    """
    found: BaseException | None = error
    while found is not None and not isinstance(found, ConnectFailed | DeadlineExceeded):
        # The pools of httpcore raise ``from None``. Any other context is what was handled when this was raised.
        found = found.__context__ if found.__cause__ is None and found.__suppress_context__ else found.__cause__
    return found
