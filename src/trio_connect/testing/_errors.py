"""The exceptions for a program that leaves its virtual network, or a test that installs it wrongly.

They are not `OSError`, so that a program which retries on `OSError` does not hide them from its tests. The network also
remembers each of them and raises it again when the test ends, so that `except Exception` does not hide it either.
"""

from __future__ import annotations


class VirtualNetworkError(Exception):
    """A test and its virtual network disagree; never something that a real network could say."""


class UnknownHost(VirtualNetworkError):
    """The program touched an address or looked up a name that the test does not mention.

    Attributes:
      name: the address or name, in its canonical spelling.
    """

    def __init__(self, name: str, remedy: str) -> None:
        super().__init__(f"unknown host {name}: {remedy}")
        self.name = name

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.args, self.__dict__))


class RealSocketUsed(VirtualNetworkError):
    """A standard library socket was about to connect for real while a virtual network was active in its thread."""


class NotVirtualTime(VirtualNetworkError):
    """The run has a real clock; a virtual network needs `trio.testing.MockClock`."""


class NotOnVirtualNetwork(VirtualNetworkError, NotImplementedError):
    """The program asked for what a virtual network does not have: datagrams, unix sockets, file descriptors."""


def _rebuild(cls: type[VirtualNetworkError], args: tuple[object, ...], state: dict[str, object]) -> VirtualNetworkError:
    # xdist sends exceptions between processes; BaseException's own pickling would call __init__ with the message only.
    error = cls.__new__(cls)
    error.args = args
    error.__dict__.update(state)
    return error
