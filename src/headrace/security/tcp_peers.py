"""Owners of the other ends of TCP connections on this machine, as the kernel reports them.

Queries the kernel's socket diagnostics (sock_diag(7)), which find one connection in some 20 µs,
however many there are. Used for loopback connections only. A socket that its process has closed has
no known owner, since the kernel then shows root.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
import threading
from functools import cached_property
from typing import Final

_NETLINK_SOCK_DIAG: Final = 4
_SOCK_DIAG_BY_FAMILY: Final = 20
_NLM_F_REQUEST: Final = 1
_ANY_STATE: Final = 0xFFFFFFFF
_ANY_COOKIE: Final = b"\xff" * 8
_LARGEST: Final = 4_096
_HEADER: Final = struct.Struct("=IHHII")
"""`struct nlmsghdr`: length, type, flags, sequence number, port."""
_REQUEST: Final = struct.Struct("=BBBxI")
"""`struct inet_diag_req_v2` without the socket: family, protocol, extensions, states."""
_ENDS: Final = struct.Struct(">HH16s16s4x8s")
"""`struct inet_diag_sockid`: both ports, both addresses, any interface, the cookie."""
_ANSWER: Final = struct.Struct("=4x4s44x12xII")
"""`struct inet_diag_msg`: the ports of the socket, its uid and the inode of its open file."""


class _Kernel(threading.local):
    """Socket to the kernel. Kept open, one per thread: opening it costs more than a query."""

    @cached_property
    def socket(self) -> socket.socket:
        return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG)


_kernel = _Kernel()


def owner(far: tuple[str, int], near: tuple[str, int]) -> int | None:
    """Return the uid of the local process at the far end of a connection, or None.

    Args:
        far: Address and port of the other end.
        near: Address and port of our end.
    """
    try:
        _kernel.socket.send(question(far, near))
        # Netlink answers within `send`, so the answer is there. A late answer to an earlier query
        # has other ports, and is refused below.
        answer = _kernel.socket.recv(_LARGEST, socket.MSG_DONTWAIT)
    except OSError:
        # A kernel or sandbox without socket diagnostics: no peer is known, so all clients need a
        # token.
        return None
    return uid_in(answer, far[1], near[1])


def question(far: tuple[str, int], near: tuple[str, int]) -> bytes:
    """Return the query for the socket with these ends, seen from the far one."""
    one, other = _plain(far[0]), _plain(near[0])
    # The kernel stores IPv6 sockets with mapped addresses among those of IPv4, and finds both
    # there.
    family = socket.AF_INET if one.version == 4 else socket.AF_INET6
    body = _REQUEST.pack(family, socket.IPPROTO_TCP, 0, _ANY_STATE) + _ENDS.pack(
        far[1], near[1], one.packed, other.packed, _ANY_COOKIE
    )
    size = _HEADER.size + len(body)
    return _HEADER.pack(size, _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, 1, 0) + body


def uid_in(answer: bytes, far_port: int, near_port: int) -> int | None:
    """Return the owner in an answer; None for an error, or a socket without an open file.

    If no socket has these ends the kernel returns one that listens at the far port. That one has no
    far end, so the ports are compared.
    """
    if len(answer) < _HEADER.size + _ANSWER.size:
        return None
    if _HEADER.unpack_from(answer)[1] != _SOCK_DIAG_BY_FAMILY:
        return None
    ports, uid, inode = _ANSWER.unpack_from(answer, _HEADER.size)
    if ports != struct.pack(">HH", far_port, near_port) or not inode:
        return None
    return int(uid)


def _plain(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    found = ipaddress.ip_address(address.partition("%")[0])
    return getattr(found, "ipv4_mapped", None) or found
