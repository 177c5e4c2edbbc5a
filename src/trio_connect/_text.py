"""How a text that came from outside is shown: on one line, harmless to a terminal, and never a megabyte of it.

Hosts, paths, zones and what resolvers say reach error texts, and error texts reach terminals and logs, where a control
character forges a line or moves the cursor, and a right-to-left override hides what stands after it.
"""

from __future__ import annotations

from typing import Final

__all__ = ["one_line", "printable", "shown"]

LONGEST_SHOWN: Final = 300
"""How many characters of one text are shown. A host has at most 254 (RFC 1035 section 3.1), a path in a sockaddr_un 107
(unix(7)), so these two are whole where they are possible at all."""
_LONGEST_REASON: Final = 200
"""How many characters of what a peer or a library said are passed on."""


def _cut(text: str) -> str:
    # Both ends are kept: names differ at the front, paths and domains at the back.
    half = LONGEST_SHOWN // 2
    return f"{text[:half]}...{text[-half:]}"


def printable(text: str) -> str:
    r"""Return a text for the middle of a message: unprintable characters escaped as in a literal, too much cut out.

    Args:
      text: a host, a path, an error's own words.
    """
    cut = _cut(text) if len(text) > LONGEST_SHOWN else text
    if not cut.isprintable():
        cut = "".join(character if character.isprintable() else repr(character)[1:-1] for character in cut)
    return cut if len(text) <= LONGEST_SHOWN else f"{cut} ({len(text)} characters)"


def one_line(text: str) -> str:
    """Return text that came from elsewhere as one line that prints: white space joined, the end cut.

    Args:
      text: what a peer, a caller or a library said.
    """
    # Cut first as well: the text may be a megabyte.
    joined = " ".join(text[: _LONGEST_REASON * 4].split())
    is_whole = len(joined) <= _LONGEST_REASON and len(text) <= _LONGEST_REASON * 4
    return printable(joined if is_whole else f"{joined[: _LONGEST_REASON - 3]}...")


def shown(value: object) -> str:
    """Return the repr of an argument for a message: cut when it is long, and never an error of its own.

    Args:
      value: what a caller gave; a long `str` or `bytes` is cut before it is quoted.
    """
    if isinstance(value, str | bytes) and len(value) > LONGEST_SHOWN:
        half = LONGEST_SHOWN // 2
        unit = "characters" if isinstance(value, str) else "bytes"
        return f"{value[:half]!r}...{value[-half:]!r} ({len(value)} {unit})"
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - the repr of a stranger; int's own raises above 4,300 digits
        return f"an object of {type(value).__name__} without a repr"
    # The repr of a str is up to ten times as long as the str: it was measured above.
    return text if len(text) <= LONGEST_SHOWN or isinstance(value, str | bytes) else f"{text[:LONGEST_SHOWN]}..."
