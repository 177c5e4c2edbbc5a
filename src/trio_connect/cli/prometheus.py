"""Many targets as metrics for the textfile collector of Prometheus, named as blackbox_exporter names them.

Each address is a series of its own, with its family and address as labels: blackbox_exporter's "preferred" family hides
the broken one behind the working one. A name without an address has a series with both labels empty.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from trio_connect import Attempt

from .outcome import ExitCode, Probe
from .settings import Target

_METRICS: Final = {
    "probe_success": "Whether a connection was made.",
    "probe_duration_seconds": "Seconds from the start of the attempt to its result.",
    "probe_dns_lookup_time_seconds": "Seconds that the slowest lookup of the name took.",
    "probe_ip_protocol": "The version of IP, 4 or 6.",
    "probe_ssl_earliest_cert_expiry": "When the certificate expires, in seconds since 1970.",
}


def exposition(found: Iterable[tuple[Target, Probe]]) -> str:
    """Return what was found in Prometheus' text format.

    Args:
      found: targets, each with its addresses tried by themselves.
    """
    samples: dict[str, list[str]] = {name: [] for name in _METRICS}
    for target, probe in found:
        slowest = max((lookup.ended - lookup.started for lookup in probe.report.lookups), default=0.0)
        samples["probe_dns_lookup_time_seconds"].append(f"{_labels(target=str(target))} {slowest:.6f}")
        if not probe.report.tried:
            labels = _labels(target=str(target), family="", address="")
            samples["probe_success"].append(f"{labels} {int(probe.exit_code is ExitCode.OK)}")
        for index, attempt in enumerate(probe.report.attempts):
            if attempt.started is None or attempt.ended is None:
                continue
            labels = _labels(**_series(target, attempt))
            samples["probe_success"].append(f"{labels} {int(attempt.outcome == 'won')}")
            samples["probe_duration_seconds"].append(f"{labels} {attempt.ended - attempt.started:.6f}")
            samples["probe_ip_protocol"].append(f"{labels} {6 if ':' in attempt.endpoint.host else 4}")
            facts = probe.tls.get(index)
            if facts is not None and facts.expires is not None:
                samples["probe_ssl_earliest_cert_expiry"].append(f"{labels} {facts.expires:.0f}")
    lines: list[str] = []
    for name, text in _METRICS.items():
        if samples[name]:
            lines += [f"# HELP {name} {text}", f"# TYPE {name} gauge"]
            lines += [f"{name}{sample}" for sample in samples[name]]
    return "\n".join(lines)


def _series(target: Target, attempt: Attempt) -> dict[str, str]:
    labels = {
        "target": str(target),
        "family": "ipv6" if ":" in attempt.endpoint.host else "ipv4",
        "address": attempt.endpoint.host,
    }
    return labels if attempt.source is None else {**labels, "source": str(attempt.source)}


def _labels(**labels: str) -> str:
    # Backslash, quote and newline are what the format asks to escape.
    pairs = (f'{name}="{value.translate(_ESCAPES)}"' for name, value in labels.items())
    return f"{{{','.join(pairs)}}}"


_ESCAPES: Final = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})
