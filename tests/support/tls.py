"""Certificates for tests: an authority of our own, and what it has issued."""

from __future__ import annotations

import datetime as dt
import ssl
from functools import cache

import attrs
import trustme

NAME = "service.test"
"""Whom `contexts` is for; its certificate is good for 192.0.2.1 and 127.0.0.1 as well."""


@attrs.frozen
class Contexts:
    """Both ends of one kind of TLS."""

    server: ssl.SSLContext
    client: ssl.SSLContext


@cache
def authority() -> trustme.CA:
    return trustme.CA()


def client_context(version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    """A client that trusts the authority."""
    context = ssl.create_default_context()
    authority().configure_trust(context)
    if version is not None:
        context.minimum_version = context.maximum_version = version
    return context


def server_context(*names: str, expired: bool = False, issuer: trustme.CA | None = None) -> ssl.SSLContext:
    """A server with these names."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    past = dt.datetime(2001, 1, 1, tzinfo=dt.UTC) if expired else None
    certificate = (issuer or authority()).issue_cert(*names, not_after=past, not_before=past)
    certificate.configure_cert(context)
    return context


@cache
def contexts() -> Contexts:
    """A server and a client that trust one another; made once, because keys take time."""
    return Contexts(server_context(NAME, "192.0.2.1", "127.0.0.1"), client_context())
