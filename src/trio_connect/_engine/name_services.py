"""The line ``hosts:`` of nsswitch.conf(5): which services are asked for a host, and in which order.

The C library asks for both families in one call. We ask for each by itself, so that a slow family does not delay the
other. The answers have to be those of the C library. This module says for which names asking for each family gives the
same answers, and for which both families must be asked for in one call.
"""

from __future__ import annotations

import re
from typing import Final

import attrs

__all__ = ["DEFAULT_NAME_SERVICES", "NameServices", "parse_name_services"]

# They answer for containers of this machine (nss-mymachines(8)), or read the hosts file themselves (nss-resolve(8)).
_MAY_COME_FIRST: Final = frozenset({"mymachines", "resolve"})
# Asked for one family, each of these gives that family's part of its answer for both.
_PER_FAMILY: Final = frozenset({"dns", "files", "mymachines", "myhostname", "resolve"})
_MULTICAST: Final = frozenset({"mdns_minimal", "mdns4_minimal", "mdns6_minimal"})  # they answer for *.local only
_WALKS_THE_SEARCH_LIST: Final = frozenset({"dns", "resolve"})


@attrs.frozen(kw_only=True)
class NameServices:
    """What the order of the name services means for a lookup."""

    hosts_file: bool
    """Whether a name in the hosts file is answered from it alone."""
    per_family: bool
    """Whether other names can be asked for one family at a time."""
    multicast: bool
    """Whether names in ``.local`` go to multicast DNS; they are asked for both families at once."""
    searches: bool
    """Whether a relative name is completed by the search list of resolv.conf(5)."""


def _final_answers(words: list[str]) -> bool:
    # After [SUCCESS=continue] or [SUCCESS=merge] later services replace, or add to, what was found.
    actions = " ".join(word for word in words if word.startswith("[")).lower()
    return re.search(r"success\s*=\s*(continue|merge)", actions) is None


def parse_name_services(text: str) -> NameServices:
    """Return what an nsswitch.conf says of hosts.

    Args:
      text: the whole file; "" when there is no such file, which means ``files dns``.
    """
    line = "files dns"
    for row in text.split("\n"):
        database, colon, rest = row.partition("#")[0].partition(":")
        if colon and database.strip() == "hosts":
            line = rest
    words: list[str] = re.findall(r"\[[^\]]*\]|[^\s\[\]]+", line)
    services = [word for word in words if not word.startswith("[")]
    final = _final_answers(words)
    before = services[: services.index("files")] if "files" in services else services
    in_order = "files" not in services or _MAY_COME_FIRST.issuperset(before)
    return NameServices(
        hosts_file=final and in_order and "files" in services,
        per_family=final and in_order and (_PER_FAMILY | _MULTICAST).issuperset(services),
        multicast=not _MULTICAST.isdisjoint(services),
        searches=not _WALKS_THE_SEARCH_LIST.isdisjoint(services),
    )


DEFAULT_NAME_SERVICES: Final = parse_name_services("")
