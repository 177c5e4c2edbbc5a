"""The laboratory is what it says: empty, private, writable, and gone afterwards."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.lab]
LABRUN = Path(__file__).with_name("labrun.py")


def labrun(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(LABRUN), *command],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_only_loopback_is_here_and_it_is_up():
    assert [name for _, name in socket.if_nameindex()] == ["lo"]
    for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        with socket.create_server((host, 0), family=family) as server, socket.socket(family) as client:
            client.connect(server.getsockname())


def test_no_way_leads_out():
    with socket.socket() as sock, pytest.raises(OSError, match="Network is unreachable"):
        sock.connect(("192.0.2.1", 443))


def test_names_are_ours_to_decide():
    hosts = Path("/etc/hosts")
    before = hosts.read_text()
    assert before == "127.0.0.1 localhost\n::1 localhost\n"
    try:
        hosts.write_text(before + "192.0.2.7 lab.test\n")
        assert {info[4][0] for info in socket.getaddrinfo("lab.test", 443)} == {"192.0.2.7"}
    finally:
        hosts.write_text(before)


def test_what_a_lab_writes_stays_in_it():
    inner = labrun("sh", "-c", "echo '192.0.2.8 inner.test' >> /etc/hosts; cat /etc/hosts")
    assert "inner.test" in inner.stdout, inner.stderr
    assert "inner.test" not in Path("/etc/hosts").read_text()


def test_no_folder_stays_behind(tmp_path):
    assert labrun("true", TMPDIR=str(tmp_path)).returncode == 0
    assert list(tmp_path.iterdir()) == []


def test_status_is_the_commands():
    assert labrun("sh", "-c", "exit 5").returncode == 5


def test_refusal_is_77_and_one_line():
    # The limit belongs to the user namespace, so it is set in one that is thrown away.
    forbid = 'echo 0 > /proc/sys/user/max_net_namespaces && exec "$@"'
    refused = subprocess.run(
        ["unshare", "--user", "--map-root-user", "sh", "-c", forbid, "sh", sys.executable, str(LABRUN), "true"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    if refused.stderr.startswith("unshare:"):
        pytest.skip(f"no user namespace inside the lab: {refused.stderr}")
    assert refused.returncode == 77
    assert refused.stderr.startswith("labrun: no network laboratory here: unshare: ")
    assert refused.stderr.count("\n") == 1
