"""The hosts file, hosts(5): which addresses it has for a name.

It is searched as text, not parsed into a dict: block lists of 100,000 lines are common, a dict of one costs 30 MB, and
one pass over the bytes shows that a name is not in it.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import final

__all__ = ["HostsFile"]


def _numeric(text: str) -> str | None:
    # The C library reads addresses with inet_pton(3), which knows no zones.
    try:
        return None if "%" in text else str(ip_address(text))
    except ValueError:
        return None


@final
class HostsFile:
    """What a hosts file says.

    Args:
      text: the whole file.
    """

    __slots__ = ("_text",)

    def __init__(self, text: bytes) -> None:
        self._text = text.lower()

    def addresses(self, name: bytes) -> tuple[str, ...]:
        """Return the addresses of a name, of both families, each once, in the order of the file.

        A name is compared without case and, as the C library does it, with its trailing dot.

        Args:
          name: encoded, and not empty.
        """
        name = name.lower()
        found: dict[str, None] = {}
        end = 0
        while (at := self._text.find(name, end)) >= 0:
            begin = self._text.rfind(b"\n", 0, at) + 1
            end = self._text.find(b"\n", at)
            if end < 0:
                end = len(self._text)
            address, *names = self._text[begin:end].partition(b"#")[0].split() or (b"",)
            if name in names and (text := _numeric(address.decode("latin-1"))) is not None:
                found[text] = None
        return tuple(found)
