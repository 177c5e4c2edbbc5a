"""The search list, resolv.conf(5): which complete names a relative name stands for.

The C library walks the list once per call. Two calls, one for each family, can therefore end at two different hosts:
with ``search dev.example prod.example``, an A record for db.dev.example and an AAAA record for db.prod.example, "db" is
dev in IPv4 and prod in IPv6. A program that asks for each family by itself has to walk the list itself.

The rules are those of the GNU C library (``resolv/res_query.c``). Others differ: musl stops where a name exists without
addresses of the family, so it does not mix hosts, and is asked as it is.
"""

from __future__ import annotations

from typing import Final

import attrs

from .name_services import NameServices

__all__ = ["NO_SEARCH", "SearchList", "parse_resolv_conf", "questions"]

_MAX_NDOTS: Final = 15  # RES_MAXNDOTS, resolv.h
_MAX_NAME: Final = 254  # RFC 1035 section 3.1, with the closing dot
_MAX_LABEL: Final = 63  # RFC 1035 section 2.3.4


def _is_possible(name: bytes) -> bool:
    """Say whether there can be such a complete name: an operator may have written a domain that cannot be."""
    return len(name) <= _MAX_NAME and all(0 < len(label) <= _MAX_LABEL for label in name[:-1].split(b"."))


@attrs.frozen
class SearchList:
    """How relative names are completed.

    Args:
      domains: in the order they are tried; b"" is the root.
      ndots: a name with so many dots is first tried as it is.
      tld_query: a name without a dot is tried as it is, too; last.
    """

    domains: tuple[bytes, ...] = ()
    ndots: int = 1
    tld_query: bool = True

    def candidates(self, name: bytes) -> tuple[bytes, ...]:
        """Return the names to ask for, one after the other; only one without a trailing dot may be completed further.

        Args:
          name: encoded.
        """
        if not self.domains or name.endswith(b"."):
            return (name,)
        as_it_is = name + b"."
        dots = name.count(b".")
        completed = [as_it_is + domain + b"." if domain else as_it_is for domain in self.domains]
        if dots >= self.ndots:
            completed.insert(0, as_it_is)
        elif dots or self.tld_query:
            completed.append(as_it_is)
        return tuple(dict.fromkeys(filter(_is_possible, completed))) or (as_it_is,)


NO_SEARCH: Final = SearchList()


def parse_resolv_conf(text: str, *, hostname: str, localdomain: str | None, res_options: str | None) -> SearchList:
    """Return the search list that the C library would use.

    Args:
      text: the whole resolv.conf; "" when there is no such file.
      hostname: of this machine: without a list in the file, its domain is the list.
      localdomain: the environment variable LOCALDOMAIN, which stands for the list in the file.
      res_options: the environment variable RES_OPTIONS, which amends the options in the file.
    """
    domains: list[str] | None = None
    options: list[str] = []
    for line in text.split("\n"):
        # A keyword begins in the first column, so "#search" and ";search" are comments.
        keyword, *words = line.split() if line[:1].strip() else [""]
        if keyword == "search" and words:
            domains = words
        elif keyword == "domain" and words:
            domains = words[:1]
        elif keyword == "options":
            options += words
    if localdomain is not None:
        domains = localdomain.split()
    if domains is None:
        _, dot, domain = hostname.partition(".")
        domains = [domain] if dot else []
    ndots, tld_query = 1, True
    for option in (*options, *(res_options or "").split()):
        if option.startswith("ndots:"):
            digits = option.removeprefix("ndots:")
            ndots = min(int(digits[:9]), _MAX_NDOTS) if digits.isascii() and digits.isdecimal() else 0
        elif option == "no-tld-query":
            tld_query = False
    encoded = tuple(domain.strip(".").encode("utf-8", "surrogateescape") for domain in domains)
    return SearchList(encoded, ndots, tld_query)


def questions(name: bytes, services: NameServices, search: SearchList) -> tuple[bytes, ...]:
    """Return the names to ask for one family at a time; empty when one call has to ask for both families.

    Args:
      name: encoded; neither numeric nor answered by the hosts file.
      services: see `name_services`.
      search: how the name is completed.
    """
    if not services.per_family:
        return ()
    if services.multicast and name.lower().removesuffix(b".").endswith(b".local"):
        return ()
    return search.candidates(name) if services.searches else (name,)
