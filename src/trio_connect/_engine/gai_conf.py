"""The policy table of the system, gai.conf(5): ``label`` and ``precedence`` lines.

As in the GNU C library, lines of one kind replace the default table of that kind as a whole, and what no line covers
has label 1 and precedence 40. Unlike there, the default is the table of RFC 6724, not that of RFC 3484. ``scopev4`` and
``reload`` are ignored: IPv4 scopes are those of RFC 6724 section 3.2, and changes are always noticed.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv6Network
from typing import Final

from .policy_table import DEFAULT_POLICY_TABLE, Policy, PolicyTable

__all__ = ["parse_gai_conf"]

_EVERYTHING: Final = IPv6Network("::/0")
_MAX_INT: Final = 0x7FFFFFFF


def _prefix(text: str) -> IPv6Network | None:
    address, slash, bits = text.partition("/")
    if "%" in address or (slash and not (bits.isascii() and bits.isdecimal())):
        return None
    try:
        return IPv6Network(text, strict=False)
    except ValueError:
        return None


def _number(text: str) -> int | None:
    if not (text.isascii() and text.isdecimal()) or len(text) > 10:
        return None
    return number if (number := int(text)) <= _MAX_INT else None


def _longest_match(prefix: IPv6Network, table: Mapping[IPv6Network, int]) -> int:
    return table[max((row for row in table if prefix.subnet_of(row)), key=lambda row: row.prefixlen)]


def parse_gai_conf(text: str) -> PolicyTable:
    """Return the policy table that a gai.conf asks for. A line that makes no sense is skipped, as the C library does.

    Args:
      text: the whole file; "" when there is no such file.
    """
    given: dict[str, dict[IPv6Network, int]] = {"label": {}, "precedence": {}}
    for line in text.split("\n"):
        keyword, *words = line.partition("#")[0].split() or ("",)
        if keyword in given and len(words) >= 2:
            prefix, number = _prefix(words[0]), _number(words[1])
            if prefix is not None and number is not None:
                given[keyword].setdefault(prefix, number)
    labels, precedences = given["label"], given["precedence"]
    if not labels and not precedences:
        return DEFAULT_POLICY_TABLE
    labels = {_EVERYTHING: 1, **labels} if labels else {row.prefix: row.label for row in DEFAULT_POLICY_TABLE.rows}
    precedences = (
        {_EVERYTHING: 40, **precedences}
        if precedences
        else {row.prefix: row.precedence for row in DEFAULT_POLICY_TABLE.rows}
    )
    # Of two tables one is made that has every prefix of either.
    return PolicyTable(
        tuple(
            Policy(prefix, _longest_match(prefix, precedences), _longest_match(prefix, labels))
            for prefix in dict.fromkeys((*labels, *precedences))
        )
    )
