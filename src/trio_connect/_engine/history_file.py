"""The memory of earlier connects as data: what is written into a file, and read from it.

Times are kept as ages, because no clock of a program goes on in the next one.
"""

from __future__ import annotations

from math import inf, isfinite
from typing import TYPE_CHECKING, Any, Final, cast

from .._endpoint import Endpoint
from .history import Entry

if TYPE_CHECKING:
    from .history import Key, Memory

__all__ = ["VERSION", "dump", "load"]

VERSION: Final = 1

_AGES: Final = ("since", "heard", "tried", "used", "measured", "failed")
_AMOUNTS: Final = ("srtt", "rttvar")


def dump(memory: Memory, now: float, date: float) -> dict[str, Any]:
    """Return a memory as JSON-safe data.

    Args:
      memory: what to write.
      now: the time on its clock.
      date: the same time on the wall clock, in seconds.
    """
    # What only a proxy can look up has no address.
    entries = [_dump_entry(key, entry, now) for key, entry in memory.entries(now) if type(key[3]) is Endpoint]
    return {"version": VERSION, "saved_at": date, "entries": entries}


def load(data: object, memory: Memory, now: float, date: float) -> None:
    """Put what was written into a memory.

    Args:
      data: what `dump` returned.
      memory: an empty one.
      now: the time on its clock.
      date: the same time on the wall clock, in seconds.

    Raises:
      ValueError: it is not such data, or of another version.
    """
    try:
        content = cast("dict[str, Any]", data)
        if content["version"] != VERSION:
            raise ValueError(f"its version is {content['version']!r}, and this one reads {VERSION}")
        # A wall clock that was set back makes nothing younger than it was.
        written = now - max(0.0, date - _number(content["saved_at"]))
        entries = [_load_entry(item, written) for item in content["entries"]]
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise ValueError(f"it is not a history: {error}") from error
    for key, entry in entries:
        memory.restore(key, entry)


def _dump_entry(key: Key, entry: Entry, now: float) -> dict[str, Any]:
    network, partition, source, endpoint = key
    ages = {name: None if (at := getattr(entry, name)) == -inf else round(now - at, 3) for name in _AGES}
    return {
        "network": network,
        "partition": partition,
        "source": source,
        "endpoint": endpoint.sockaddr[:2],
        "scope": endpoint.scope_id,
        "flowinfo": endpoint.flowinfo,
        **ages,
        **{name: round(getattr(entry, name), 9) for name in _AMOUNTS},
        "failures": entry.failures,
        "left": round(entry.until - now, 3) if entry.doubtful else None,
        "slow": entry.slow,
        "reason": entry.reason,
    }


def _load_entry(item: dict[str, Any], written: float) -> tuple[Key, Entry]:
    host, port = item["endpoint"]
    endpoint = Endpoint(host.partition("%")[0], port, item["scope"], item["flowinfo"])
    source = item["source"]
    if source is not None:
        address, interface, proxy = source
        source = _text(address), _text(interface), _text(proxy)
    left = item["left"]
    entry = Entry(
        **{name: -inf if item[name] is None else written - _amount(item[name]) for name in _AGES},
        **{name: _amount(item[name]) for name in _AMOUNTS},
        failures=round(_amount(item["failures"])),
        until=-inf if left is None else written + _number(left),
        doubtful=left is not None,
        slow=item["slow"] is True,
        reason=_text(item["reason"]),
    )
    return (_text(item["network"]), _text(item["partition"]), source, endpoint), entry


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not a text")
    return value


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        raise TypeError(f"{value!r} is not a number")
    return value


def _amount(value: object) -> float:
    number = _number(value)
    if number < 0:
        raise ValueError(f"{value!r} is below 0")
    return number
