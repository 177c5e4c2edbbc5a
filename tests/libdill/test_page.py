"""The page about libdill maps every name."""

from __future__ import annotations

import re
from pathlib import Path

from trio_connect import libdill as dill

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "how-to" / "libdill.md").read_text(encoding="utf-8")

# libdill.h, without the storage types and the `_mem` variants, which one row of the page covers.
LIBDILL = re.findall(
    r"\w+",
    """
    bundle bundle_go bundle_wait chdone chmake choose chrecv chsend fdclean fdin fdout go
    happyeyeballs_connect hclose hmake hown hquery msleep now yield
    brecv brecvl bsend bsendl mrecv mrecvl msend msendl
    ipaddr_equal ipaddr_family ipaddr_len ipaddr_local ipaddr_port ipaddr_remote ipaddr_remotes ipaddr_setport
    ipaddr_sockaddr ipaddr_str
    ipc_accept ipc_close ipc_connect ipc_done ipc_fromfd ipc_listen ipc_listener_fromfd ipc_pair ipc_recvfd ipc_sendfd
    tcp_accept tcp_close tcp_connect tcp_done tcp_fromfd tcp_listen tcp_listener_fromfd
    udp_open udp_recv udp_recvl udp_send udp_sendl
    prefix_attach prefix_detach suffix_attach suffix_detach term_attach term_detach term_done
    http_attach tls_attach_client tls_attach_server tls_detach tls_done ws_attach_client ws_attach_server
    socks5_client_connect
""",
)


def test_every_name_of_libdill_has_a_place_in_a_table():
    rows = [line for line in PAGE.splitlines() if line.startswith("|")]
    first_cells = " ".join(row.split("|")[1] for row in rows)
    assert [name for name in LIBDILL if not re.search(rf"\b{name}\b", first_cells)] == []


def test_every_name_of_ours_is_on_the_page():
    ours = set(vars(dill)["__all__"]) - {"IPADDR_IPV6", "IPADDR_PREF_IPV4"}  # "IPADDR_IPV4 ... IPADDR_PREF_IPV6"
    assert [name for name in sorted(ours) if not re.search(rf"\b{name}\b", PAGE)] == []
