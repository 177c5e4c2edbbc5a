from __future__ import annotations

import pytest

from trio_connect._engine.name_servers import parse_name_servers


@pytest.mark.parametrize(
    ("text", "servers"),
    [
        ("", ()),
        ("search example.org\n", ("127.0.0.1",)),
        ("nameserver 192.0.2.1\nnameserver 2001:DB8::1 # why\n", ("192.0.2.1", "2001:db8::1")),
        ("nameserver fe80::1%eth0", ("fe80::1%eth0",)),
        ("nameserver 192.0.2.1\nnameserver 192.0.2.1\n", ("192.0.2.1",)),
        ("#nameserver 192.0.2.1\n nameserver 192.0.2.2\nnameserver\nnameserver ns.test\n", ("127.0.0.1",)),
        ("".join(f"nameserver 192.0.2.{i}\n" for i in range(1, 9)), tuple(f"192.0.2.{i}" for i in range(1, 9))),
    ],
)
def test_name_servers(text, servers):
    assert parse_name_servers(text) == servers
