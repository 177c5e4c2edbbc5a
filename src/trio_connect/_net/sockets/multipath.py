"""What the kernel says of an MPTCP connection, put into words."""

from __future__ import annotations

import struct
from typing import Final

from ..._multipath import Multipath
from .stream_socket import MPTCP_INFO_SIZE

# linux/mptcp.h: MPTCP_INFO_FLAG_FALLBACK and MPTCP_INFO_FLAG_REMOTE_KEY_RECEIVED.
_FALLBACK: Final = 1 << 0
_REMOTE_KEY_RECEIVED: Final = 1 << 1
# In struct mptcp_info: mptcpi_subflows, which does not count the first one, and mptcpi_flags.
_BEGINNING: Final = struct.Struct("=B7xI")


def read_multipath(info: bytes | None) -> Multipath | None:
    """Return what a connection has of MPTCP, None on plain TCP.

    Rejected: TCP_IS_MPTCP, which Linux answers with 1 for every socket that has not fallen back yet, also before the
    peer has answered, as after a fast open. Here the flags say whether the peer has sent its key.

    Args:
      info: what `StreamSocket.multipath_info` has returned.
    """
    if info is None or len(info) < _BEGINNING.size:
        return None
    further, flags = _BEGINNING.unpack_from(info)
    if flags & _FALLBACK or not flags & _REMOTE_KEY_RECEIVED:
        return None
    # mptcpi_subflows_total counts the first one too, while it is there. Linux before 6.5 has no such field.
    return Multipath(subflows=info[-1] if len(info) == MPTCP_INFO_SIZE else further + 1)
