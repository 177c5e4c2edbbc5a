"""What became of a socket for which MPTCP was asked."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from ..._multipath import Multipath

if TYPE_CHECKING:
    from .stream_socket import StreamSocket

# linux/mptcp.h and linux/socket.h.
_SOL_MPTCP: Final = 284
_MPTCP_INFO: Final = 1
_FALLBACK: Final = 1 << 0  # MPTCP_INFO_FLAG_FALLBACK
_REMOTE_KEY_RECEIVED: Final = 1 << 1  # MPTCP_INFO_FLAG_REMOTE_KEY_RECEIVED
# In struct mptcp_info: mptcpi_subflows, which does not count the first one, and mptcpi_flags.
_BEGINNING: Final = struct.Struct("=B7xI")
# mptcpi_subflows_total counts the first one too while it is there. Linux before 6.5 has no such field.
_TOTAL: Final = 80
_SIZE: Final = _TOTAL + 1


def multipath_of(sock: StreamSocket) -> Multipath | None:
    """Return what a connection has of MPTCP now, None on plain TCP.

    One system call for any socket. Rejected: TCP_IS_MPTCP, which Linux answers with 1 for every socket that has not
    fallen back yet, also before the peer has answered, as after a fast open; the key that the peer has sent says more.
    """
    try:
        info = sock.getsockopt(_SOL_MPTCP, _MPTCP_INFO, _SIZE)
    except (OSError, NotImplementedError):  # EOPNOTSUPP or ENOPROTOOPT: plain TCP, or fallen back to it
        return None
    if not isinstance(info, bytes) or len(info) < _BEGINNING.size:
        return None
    further, flags = _BEGINNING.unpack_from(info)
    if flags & _FALLBACK or not flags & _REMOTE_KEY_RECEIVED:
        return None
    return Multipath(subflows=info[_TOTAL] if len(info) > _TOTAL else further + 1)
