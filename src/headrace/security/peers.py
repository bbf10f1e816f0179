"""Who of this machine holds the other end of a TCP connection, as the kernel says.

Asked of `/proc/net/tcp`, and only for loopback connections. Refuses to guess: a socket that its
process has closed already belongs to nobody, since the kernel then shows it as root's.
"""

from __future__ import annotations

import ipaddress
import struct
from pathlib import Path

TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
_MAPPED = "0000000000000000FFFF0000"
_LOCAL, _REMOTE, _UID, _INODE = 1, 2, 7, 9


def owner(far: tuple[str, int], near: tuple[str, int]) -> int | None:
    """The uid of the process of this machine at the far end of a connection, or None.

    Args:
        far: Address and port of the other end.
        near: Address and port of our end.
    """
    wanted = ends(far, near)
    for table in TABLES:
        try:
            rows = table.read_text().splitlines()[1:]
        except OSError:
            continue
        if (found := owner_in(rows, wanted)) is not None:
            return found
    return None


def ends(far: tuple[str, int], near: tuple[str, int]) -> dict[str, str]:
    """The pairs of ends by which the kernel may know the connection, seen from its far end."""
    return dict(zip(_forms(*far), _forms(*near), strict=True))


def owner_in(rows: list[str], wanted: dict[str, str]) -> int | None:
    """The owner of the socket with one of these pairs of ends, in rows of the kernel's table."""
    for row in rows:
        fields = row.split()
        if wanted.get(fields[_LOCAL]) == fields[_REMOTE]:
            return int(fields[_UID]) if fields[_INODE] != "0" else None
    return None


def _forms(address: str, port: int) -> tuple[str, str]:
    """An end as the kernel prints it: of an IPv4 socket, and of an IPv6 socket."""
    found = ipaddress.ip_address(address.partition("%")[0])
    mapped = getattr(found, "ipv4_mapped", None)
    if (ip := mapped or found).version == 4:
        word = f"{struct.unpack('=I', ip.packed)[0]:08X}"
        return f"{word}:{port:04X}", f"{_MAPPED}{word}:{port:04X}"
    words = "".join(f"{word:08X}" for word in struct.unpack("=4I", ip.packed))
    return f"{words}:{port:04X}", f"{words}:{port:04X}"
