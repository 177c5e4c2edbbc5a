"""A proxy as a `Source` names it: what it speaks, where it is, and what it asks for. No text shows its password."""

from __future__ import annotations

import ipaddress
from base64 import b64encode
from typing import Final, Literal, TypeAlias, cast, final, get_args

import attrs

from ._text import shown

__all__ = ["Credentials", "Proxy", "parse_proxy"]

Scheme: TypeAlias = Literal["socks5", "socks5h", "http"]

_EXAMPLE: Final = "'socks5://user:word@proxy.example:1080'"
_MAX_HOST: Final = 253  # RFC 1035 section 3.1
_MAX_FIELD: Final = 255  # RFC 1929 section 2: one octet has the length of a name or password
_BAD_IN_HOST: Final = frozenset("[]:/?#@%\\")


@final
class Credentials:
    """A name and a password, which no text shows.

    Not a value of attrs, a dataclass or a tuple: `attrs.asdict` of a source or of a report takes what is of attrs, and
    tuples, apart, and some encoders of JSON do the same with dataclasses. This they leave whole.
    """

    __slots__ = ("password", "user")

    def __init__(self, user: str, password: str) -> None:
        self.user: Final = user
        self.password: Final = password

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Credentials):
            return NotImplemented
        return (self.user, self.password) == (other.user, other.password)

    def __hash__(self) -> int:
        return hash((self.user, self.password))

    def __repr__(self) -> str:
        return "***"


@attrs.frozen(repr=False)
class Proxy:
    """A proxy. Its text is its URL, with ``***`` in place of the name and the password."""

    scheme: Scheme
    """What it speaks: SOCKS5 (RFC 1928), or CONNECT of HTTP (RFC 9110 section 9.3.6). By convention ``socks5h`` is
    SOCKS5 where the proxy looks the name of the target up."""
    host: str
    """Its numeric address, or its name."""
    port: int
    credentials: Credentials | None = None
    """None when it asks for neither a name nor a password."""

    def __str__(self) -> str:
        secret = "" if self.credentials is None else f"{self.credentials}@"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{secret}{host}:{self.port}"

    def __repr__(self) -> str:
        return repr(str(self))

    def without_password(self) -> Proxy:
        """Return a proxy of the same text that has ``***`` for its name and its password."""
        return self if self.credentials is None else attrs.evolve(self, credentials=Credentials("***", "***"))

    def censored(self, text: str) -> str:
        """Return what the proxy has said without the password, as it is or in base64, if that is in it.

        Args:
          text: its words.
        """
        if self.credentials is None:
            return text
        user, password = self.credentials.user, self.credentials.password
        # What an HTTP proxy was sent can be read by anybody (RFC 7617 section 2).
        encoded = b64encode(f"{user}:{password}".encode("latin-1")).decode()
        for secret in filter(None, (encoded, password)):
            text = text.replace(secret, "***")
        return text


def parse_proxy(value: object) -> Proxy:
    """Return the proxy of a URL.

    The URL is taken apart here, because the errors of `urllib.parse` quote it, with the password.

    Raises:
      TypeError: it is not a str.
      ValueError: it is not the URL of a proxy. The text quotes nothing that may belong to the password.
    """
    if isinstance(value, Proxy):
        return value
    if not isinstance(value, str):
        raise TypeError(f"proxy must be a str such as {_EXAMPLE}, got {type(value).__name__}")
    scheme, slashes, rest = value.partition("://")
    scheme = scheme.lower()
    if not slashes or scheme not in get_args(Scheme):
        told = f", not {shown(scheme)}" if slashes and scheme.isalnum() else ""
        raise ValueError(f"a proxy is written {_EXAMPLE}: its scheme is socks5, socks5h or http{told}")
    user_info, at, place = rest.removesuffix("/").rpartition("@")
    if any(char in "/?#" for char in user_info + place):
        raise ValueError(
            f"a proxy is written {_EXAMPLE}, without a path; in a name or password write '/' as %2F, "
            "'?' as %3F and '#' as %23"
        )
    host, port = _place(place)
    return Proxy(cast("Scheme", scheme), host, port, _credentials(scheme, user_info) if at else None)


def _place(text: str) -> tuple[str, int]:
    host, colon, digits = text.rpartition(":")
    if not colon or not (digits.isascii() and digits.isdigit()) or not 1 <= int(digits[:6]) <= 0xFFFF:
        raise ValueError(f"a proxy is written {_EXAMPLE}, with a port from 1 to 65535, got {shown(text)} for its place")
    if host.startswith("[") and host.endswith("]"):
        try:
            return str(ipaddress.IPv6Address(host[1:-1])), int(digits)
        except ValueError:
            raise ValueError(f"what stands in brackets must be an IPv6 address, got {shown(host)}") from None
    # What else makes a name impossible is found when it is used, before anything is sent.
    if not 0 < len(host) <= _MAX_HOST or any(char in _BAD_IN_HOST or char.isspace() for char in host):
        raise ValueError(f"the host of a proxy is a name, an IPv4 address or [an IPv6 address], got {shown(host)}")
    return host, int(digits)


def _decoded(text: str) -> str:
    """Undo percent-encoding, RFC 3986 section 2.1."""
    first, *others = text.encode(errors="surrogatepass").split(b"%")
    try:
        return (first + b"".join(bytes([int(each[:2], 16)]) + each[2:] for each in others)).decode()
    except ValueError:
        pass
    # Out of the except clause: that error quotes what it could not read.
    raise ValueError("a '%' in the name or password of a proxy must be written %25; what is encoded is UTF-8")


def _credentials(scheme: str, user_info: str) -> Credentials:
    user, colon, password = user_info.partition(":")
    user, password = _decoded(user), _decoded(password)
    if not colon or not user:
        raise ValueError(f"a proxy has a name and a password, as in {_EXAMPLE}, or neither")
    if scheme == "http":
        # RFC 7617 section 2.
        if ":" in user or not (user + password).isprintable() or any(ord(char) > 0xFF for char in user + password):
            raise ValueError(
                "the name and the password for an HTTP proxy are printable Latin-1, and the name has no colon"
            )
    elif not (user + password).isascii() or not password or max(len(user), len(password)) > _MAX_FIELD:
        raise ValueError("the name and the password for a SOCKS5 proxy are ASCII, of 1 to 255 characters each")
    return Credentials(user, password)
