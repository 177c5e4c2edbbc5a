"""What an adapter says where its client is not installed, and what it is without the other of two."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType

import pytest

import trio_connect.adapters


def anew(monkeypatch: pytest.MonkeyPatch, adapter: str, *missing: str) -> ModuleType:
    """Import an adapter once more, as where these packages are not installed."""
    for name in missing:
        # A module that stands as None in sys.modules cannot be imported.
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, f"trio_connect.adapters.{adapter}", raising=False)
    monkeypatch.setattr(trio_connect.adapters, adapter, None, raising=False)
    return import_module(f"trio_connect.adapters.{adapter}")


@pytest.mark.parametrize(
    ("adapter", "missing", "text"),
    [
        ("httpcore", ("httpcore2", "httpcore"), "needs httpcore2, or httpcore 1: pip install httpcore2"),
        ("httpx2", ("httpx2", "httpcore2", "httpcore"), "needs httpx2: pip install httpx2"),
        ("httpx", ("httpx", "httpcore2", "httpcore"), "needs httpx: pip install httpx"),
        ("anyio", ("anyio",), "needs anyio 4.10 or later: pip install anyio"),
        (
            "otel",
            ("opentelemetry.trace", "opentelemetry.metrics"),
            'needs opentelemetry-api 1.30 or later: pip install "trio-connect[otel]"',
        ),
    ],
)
def test_a_missing_client_is_named(
    monkeypatch: pytest.MonkeyPatch, adapter: str, missing: tuple[str, ...], text: str
) -> None:
    with pytest.raises(ImportError) as caught:
        anew(monkeypatch, adapter, *missing)
    assert str(caught.value) == f"trio_connect.adapters.{adapter} {text}"


@pytest.mark.parametrize(("there", "missing"), [("httpcore2", "httpcore"), ("httpcore", "httpcore2")])
def test_with_one_client_its_exceptions_are_raised_themselves(
    monkeypatch: pytest.MonkeyPatch, there: str, missing: str
) -> None:
    client = pytest.importorskip(there, reason=f"NOT RUN: {there} is not installed")
    adapter = anew(monkeypatch, "httpcore", missing)
    assert adapter.ConnectError is client.ConnectError
    assert issubclass(adapter.Backend, client.AsyncNetworkBackend)
