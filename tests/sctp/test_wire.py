"""The kernel's structures of SCTP: written and read back, cut off anywhere, and made of hostile bytes."""

from __future__ import annotations

import socket
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_connect import Endpoint
from trio_connect.sctp import _wire as wire
from trio_connect.sctp._values import AssociationEvent, Path, PathEvent

ports = st.integers(0, 0xFFFF)
ipv4 = st.builds(lambda host, port: Endpoint(str(host), port), st.ip_addresses(v=4), ports)
ipv6 = st.builds(
    lambda host, port, scope, flow: Endpoint(str(host), port, scope, flow),
    st.ip_addresses(v=6), ports,
    st.integers(0, 0xFFFFFFFF), st.integers(0, 0xFFFFF),
)  # fmt: skip
endpoints = ipv4 | ipv6

A, B, C = Endpoint("192.0.2.1", 3868), Endpoint("192.0.2.2", 3868), Endpoint("2001:db8::1", 3868)
U32 = st.integers(0, 0xFFFFFFFF)
U16 = st.integers(0, 0xFFFF)


# --- addresses --------------------------------------------------------------------------------------------------------


@given(endpoints)
def test_an_address_is_read_back(endpoint: Endpoint) -> None:
    packed = wire.pack_address(endpoint)
    assert len(packed) == (16 if endpoint.family == socket.AF_INET else 28)
    assert wire.unpack_address(packed) == (endpoint, len(packed))
    assert wire.unpack_address(wire.pack_storage(endpoint))[0] == endpoint


def test_addresses_have_the_layout_of_the_kernel() -> None:
    inet = struct.pack("=H", socket.AF_INET)
    assert wire.pack_address(A) == inet + b"\x0f\x1c" + b"\xc0\x00\x02\x01" + bytes(8)
    inet6 = struct.pack("=H", socket.AF_INET6)
    assert wire.pack_address(Endpoint("2001:db8::1", 3868, 7, 0xABCDE)) == (
        inet6 + b"\x0f\x1c" + b"\x00\x0a\xbc\xde" + bytes.fromhex("20010db8000000000000000000000001")
        + struct.pack("=I", 7)
    )  # fmt: skip
    assert wire.pack_addresses([A, C]) == wire.pack_address(A) + wire.pack_address(C)
    assert wire.pack_storage(None) == bytes(128)
    assert len(wire.pack_storage(C)) == 128


def test_the_traffic_class_beside_a_flow_label_is_left_out() -> None:
    packed = bytearray(wire.pack_address(Endpoint("2001:db8::1", 1, 0, 5)))
    packed[4] = 0xFF
    assert wire.unpack_address(bytes(packed))[0].flowinfo == 5


def test_a_zone_that_is_a_name_is_refused() -> None:
    with pytest.raises(ValueError, match=r"the zone of \[fe80::1%eth0\]:1 is a name: the kernel takes its index"):
        wire.pack_address(Endpoint("fe80::1", 1, "eth0"))


@given(st.lists(endpoints, max_size=6))
def test_a_list_of_addresses_is_read_back(those: list[Endpoint]) -> None:
    answer = struct.pack("=iI", 7, len(those)) + wire.pack_addresses(those)
    assert wire.unpack_getaddrs(answer + bytes(100)) == tuple(those)
    for cut in range(len(answer)):
        with pytest.raises(wire.WireError):
            wire.unpack_getaddrs(answer[:cut])


def test_the_buffer_for_a_list_has_its_header() -> None:
    assert wire.pack_getaddrs(100) == bytes(108)


def test_an_address_of_another_family_is_refused() -> None:
    with pytest.raises(wire.WireError, match="family 1, which is neither IPv4 nor IPv6"):
        wire.unpack_address(struct.pack("=H", socket.AF_UNIX).ljust(128, b"\0"))


# --- options ----------------------------------------------------------------------------------------------------------


@given(U32, U32, U32)
def test_time_outs_are_read_back(initial: int, minimum: int, maximum: int) -> None:
    packed = wire.pack_rtoinfo(initial=initial, minimum=minimum, maximum=maximum)
    assert wire.unpack_rtoinfo(packed) == (initial, minimum, maximum)
    assert struct.unpack("=iIII", packed) == (0, initial, maximum, minimum)


def test_options_have_the_layout_of_the_kernel() -> None:
    assert wire.pack_rtoinfo(initial=250) == struct.pack("=iIII", 0, 250, 0, 0)
    assert wire.pack_initmsg(streams=10, attempts=3) == struct.pack("=HHHH", 10, 0, 3, 0)
    assert [wire.unpack_initmsg(wire.pack_initmsg(streams=10, attempts=each)) for each in (0, 3)] == [0, 3]
    assert wire.pack_event(wire.ASSOC_CHANGE) == struct.pack("=iHBB", 0, 0x8001, 1, 0)
    assert wire.pack_event(wire.SHUTDOWN_EVENT) == struct.pack("=iHBB", 0, 0x8005, 1, 0)
    assert wire.pack_primary(A) == bytes(4) + wire.pack_storage(A)
    assert wire.pack_paddrinfo(C) == (bytes(4) + wire.pack_storage(C)).ljust(152, b"\0")


def test_path_parameters_are_for_every_path() -> None:
    packed = wire.pack_path_parameters(heartbeat=700, retransmissions=2)
    assert len(packed) == 156
    assert packed[:132] == bytes(132)
    # Packed: the word after the 16 bits of spp_pathmaxrxt follows at once.
    assert struct.unpack_from("=IHIII", packed, 132) == (700, 2, 0, 0, wire.HEARTBEAT_ENABLE)
    assert struct.unpack_from("=IHIII", wire.pack_path_parameters(heartbeat=0, retransmissions=0), 132) == (0,) * 5


def paddrinfo(endpoint: Endpoint, state: int, *numbers: int) -> bytes:
    return bytes(4) + wire.pack_storage(endpoint) + struct.pack("=iIIII", state, *numbers)


@pytest.mark.parametrize(
    ("number", "state"),
    [
        (0, "inactive"),
        (1, "potentially failed"),
        (2, "active"),
        (3, "unconfirmed"),
        (0xFFFF, "unknown"),
        (77, "unknown"),
    ],
)
def test_a_path_has_its_state(number: int, state: str) -> None:
    info = wire.unpack_paddrinfo(paddrinfo(C, number, 1, 20, 300, 1500))
    assert info == Path(C, state, srtt=0.02, rto=0.3, mtu=1500)  # type: ignore[arg-type]


@given(st.integers(-(2**31), 2**31 - 1), U16, U16, U16)
def test_the_status_is_read_back(association: int, unacknowledged: int, inbound: int, outbound: int) -> None:
    head = struct.pack("=iiIHHHHI", association, 4, 99, unacknowledged, 98, inbound, outbound, 97)
    status = wire.unpack_status(head + paddrinfo(A, 2, 1, 2, 3, 4))
    primary = Path(A, "active", 0.002, 0.003, 4)
    assert status == wire.Status(association, wire.ESTABLISHED, unacknowledged, inbound, outbound, primary)
    assert len(head + paddrinfo(A, 2, 1, 2, 3, 4)) == wire.STATUS_SIZE


# --- control messages -------------------------------------------------------------------------------------------------


def test_a_payload_protocol_is_big_endian_in_the_packet_whatever_the_machine() -> None:
    # NGAP is 60: SCTP-PPID registry. The kernel passes the 32 bits through untouched.
    ((level, kind, data),) = wire.pack_send(stream=3, ppid=60, unordered=False, ttl=None)
    assert (level, kind) == (132, 2)
    assert data == struct.pack("=HH", 3, 0) + b"\x00\x00\x00\x3c" + bytes(8)


def test_a_message_may_overtake_and_may_expire() -> None:
    information, expiry = wire.pack_send(stream=0, ppid=0, unordered=True, ttl=1500)
    assert information[2][:4] == struct.pack("=HH", 0, 1)
    assert expiry == (132, 5, struct.pack("=HHI", 0x0010, 0, 1500))


@given(U16, U32, st.booleans(), U32)
def test_what_a_message_is_is_read_back(stream: int, ppid: int, unordered: bool, tsn: int) -> None:
    data = struct.pack("=HHHxx4sIIIi", stream, 9, int(unordered) | 0x100, ppid.to_bytes(4, "big"), tsn, 1, 2, 3)
    found = wire.unpack_receive([(41, 3, b"other"), (132, 1, b"old"), (132, wire.RCVINFO, data)])
    assert found == wire.ReceiveInfo(stream, ppid, unordered, tsn)
    assert wire.unpack_receive([]) is None
    for cut in range(len(data)):
        with pytest.raises(wire.WireError):
            wire.unpack_receive([(132, wire.RCVINFO, data[:cut])])


# --- notifications ----------------------------------------------------------------------------------------------------


def notification(kind: int, body: bytes) -> bytes:
    return struct.pack("=HHI", kind, 0, 8 + len(body)) + body


@pytest.mark.parametrize(("number", "state"), list(enumerate(["up", "lost", "restarted", "shut down", "cannot start"])))
def test_a_change_of_the_association(number: int, state: Any) -> None:
    data = notification(wire.ASSOC_CHANGE, struct.pack("=H2sHHi", number, b"\x00\x0c", 10, 5, 1) + b"cause")
    assert wire.unpack_notification(data) == AssociationEvent(state, error=12, outbound=10, inbound=5)


@pytest.mark.parametrize(
    ("number", "state"),
    list(enumerate(["available", "unreachable", "removed", "added", "primary", "confirmed", "potentially failed"])),
)
def test_a_change_of_a_path(number: int, state: Any) -> None:
    data = notification(wire.PEER_ADDR_CHANGE, wire.pack_storage(C) + struct.pack("=iii", number, 0, 1))
    assert wire.unpack_notification(data) == PathEvent(C, state)


def test_the_other_notifications() -> None:
    assert wire.unpack_notification(notification(wire.SHUTDOWN_EVENT, bytes(4))) == wire.PeerShutdown()
    aborted = notification(wire.PARTIAL_DELIVERY_EVENT, struct.pack("=IiII", 0, 1, 2, 3))
    assert wire.unpack_notification(aborted) == wire.PartialDeliveryAborted()
    assert wire.unpack_notification(notification(0x8009, b"")) == wire.Ignored(0x8009)
    for kind, body in (
        (wire.ASSOC_CHANGE, struct.pack("=HHHHi", 9, 0, 0, 0, 0)),
        (wire.PEER_ADDR_CHANGE, wire.pack_storage(A) + struct.pack("=iii", 9, 0, 0)),
        (wire.PEER_ADDR_CHANGE, wire.pack_storage(A) + struct.pack("=iii", -1, 0, 0)),
    ):
        assert wire.unpack_notification(notification(kind, body)) == wire.Ignored(kind)


@given(
    st.sampled_from(
        [wire.ASSOC_CHANGE, wire.PEER_ADDR_CHANGE, wire.SHUTDOWN_EVENT, wire.PARTIAL_DELIVERY_EVENT, 0x8003]
    ),
    st.binary(max_size=200),
)
def test_hostile_notifications_are_parsed_or_refused(kind: int, body: bytes) -> None:
    try:
        wire.unpack_notification(notification(kind, body))
    except wire.WireError:
        pass


@given(st.binary(max_size=300))
def test_hostile_bytes_are_parsed_or_refused(data: bytes) -> None:
    for parse in (
        wire.unpack_notification, wire.unpack_status, wire.unpack_paddrinfo, wire.unpack_getaddrs,
        wire.unpack_rtoinfo, wire.unpack_initmsg, wire.unpack_address,
        lambda control: wire.unpack_receive([(132, wire.RCVINFO, control)]),
    ):  # fmt: skip
        try:
            parse(data)
        except wire.WireError:
            pass


def test_a_list_that_announces_more_than_it_has_is_refused_at_its_end() -> None:
    with pytest.raises(wire.WireError):
        wire.unpack_getaddrs(struct.pack("=iI", 0, 0xFFFFFFFF) + wire.pack_address(A) * 3)
