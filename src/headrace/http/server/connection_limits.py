"""Limits of open connections: of all clients together, and of one client.

A client is an address; of IPv6 it is a /64, which providers assign to one customer or machine.
"""

from __future__ import annotations

import ipaddress
from collections import Counter

PREFIX = 64
ALL = "this node holds as many connections as it may; try again"


class ConnectionLimits:
    """Counts the connections of an HTTP server. Owned by `ServerState`.

    Args:
        most: Connections at once.
        most_of_one: Those of one client; 0 for half of all.
    """

    def __init__(self, most: int, most_of_one: int = 0) -> None:
        self._most = most
        self._most_of_one = most_of_one or max(most // 2, 1)
        self._all = 0
        self._of: Counter[str] = Counter()

    def enter(self, address: str) -> str:
        """Count a connection; return why it exceeds a limit, or "".

        The caller must call `leave` in both cases.
        """
        client = client_of(address)
        # Counted before it is judged: the connection that is refused stays open until its answer
        # is sent, and `connection_lost` uncounts every connection alike.
        self._all += 1
        self._of[client] += 1
        if self._all > self._most:
            return ALL
        if self._of[client] > self._most_of_one:
            return (
                f"your address holds {self._most_of_one:,} connections, as many as one client may; "
                "close some, or raise `max_connections_per_client`"
            )
        return ""

    def leave(self, address: str) -> None:
        """Uncount a connection that has closed."""
        client = client_of(address)
        self._all -= 1
        self._of[client] -= 1
        # Entries of clients without connections would accumulate for the whole run of the node.
        if not self._of[client]:
            del self._of[client]


def client_of(address: str) -> str:
    """Return the client that an address belongs to."""
    if ":" not in address:
        return address
    # A link-local address carries its interface after `%`, which `ipaddress` does not accept in a
    # network.
    found = ipaddress.IPv6Address(address.partition("%")[0])
    # On a dual-stack socket the kernel shows IPv4 clients as `::ffff:a.b.c.d`; a /64 of those
    # would be every IPv4 client at once.
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.IPv6Network((found, PREFIX), strict=False))
