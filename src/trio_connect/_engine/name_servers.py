"""The name servers that resolv.conf(5) names."""

from __future__ import annotations

from ipaddress import ip_address

__all__ = ["parse_name_servers"]


def parse_name_servers(text: str) -> tuple[str, ...]:
    """Return the addresses of the lines ``nameserver``, each once, in their order; 127.0.0.1 when no line names one.

    All of them: that the C library stops after three (MAXNS) is a limit of its data structures.

    Args:
      text: the whole file; "" when there is no such file, and then there is no server either.
    """
    if not text:
        return ()
    found: dict[str, None] = {}
    for line in text.split("\n"):
        words = line.split() if line[:1].strip() else []  # a keyword begins in the first column
        if len(words) < 2 or words[0] != "nameserver":
            continue
        try:
            found[str(ip_address(words[1]))] = None
        except ValueError:
            pass  # as the C library has it, a line that is malformed does not count
    return tuple(found) or ("127.0.0.1",)
