"""Scopes that requests for the platform's own paths need. Pure.

Authors' routes declare their own access; everything else (publishing, calling, reading, operating)
is decided here, by the node's `access` setting and the process at the other end of the connection.
A local address alone proves nothing, since the functions of this node have it as well.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from functools import lru_cache
from typing import Final, Literal

import msgspec

from headrace.model.route import API_PREFIX
from headrace.security.tokens import ADMIN

Access = Literal["open", "local", "token"]
READ = "read"
FOR_OTHERS: Final = (b"x-forwarded-for", b"forwarded", b"x-real-ip", b"via")
"""Headers by which a proxy names its clients."""
NO_HEADERS: Final[Mapping[bytes, bytes]] = {}
_API: Final = API_PREFIX.split("/")[1:]
WORK = (["receive"], ["ack"], ["nack"], ["extend"], ["cancel"])


class Peer(msgspec.Struct, frozen=True):
    """Peer of a connection.

    Attributes:
        address: Its IP address, from the socket; "" if it has none.
        neighbour: Whether it is a process of this machine that is known not to be an instance of a function; looked up
            only if `access` is `local`.
    """

    address: str
    neighbour: bool = False


def scope_of(method: str, parts: list[str]) -> str:
    """Return the scope that a client must prove for a path of the platform; "" if none is needed.

    `parts` are the path's segments. The address of a kept request (`/-/v1/requests/{id}`) cannot be
    guessed, which is the proof.
    """
    # Load balancers and orchestrators probe without credentials; the answers hold no data.
    if parts[:1] in (["healthz"], ["readyz"]):
        return ""
    if parts[:2] == ["console", "enter"] and len(parts) == 3:
        # The code in the path is valid once, and is the proof.
        return ""
    if parts[: len(_API)] != _API:
        return READ if method in {"GET", "HEAD"} else ADMIN
    parts = parts[len(_API) :]
    first = parts[0] if parts else ""
    if first == "requests" and len(parts) == 2 and parts[1]:
        return ""
    # Also for reading: the list shows names and scopes, which help an attacker.
    if first == "tokens":
        return ADMIN
    if method in {"GET", "HEAD"}:
        return READ
    if len(parts) == 2 and first == "streams":
        return f"publish:{parts[1]}"
    if len(parts) == 2 and first == "functions":
        return f"call:{parts[1]}"
    if first == "queues" and (len(parts) == 2 or parts[2:] in WORK):
        return f"queue:{parts[1]}"
    return ADMIN


def needs_proof(
    access: Access, scope: str, peer: Peer, headers: Mapping[bytes, bytes] = NO_HEADERS
) -> bool:
    """Return whether a client must show a token, or be the operator, for `scope`.

    `open`: only to operate the node. `local`: also for all the rest, where it is not a neighbour, or is a
    proxy that says by its `headers` that it asks for another client. `token`: for everything.
    """
    if not scope:
        return False
    if access == "token" or scope == ADMIN:
        return True
    if access != "local":
        return False
    return not peer.neighbour or any(name in headers for name in FOR_OTHERS)


@lru_cache(maxsize=4_096)
def is_local(client: str) -> bool:
    """Return whether an address is this machine's own."""
    try:
        found = ipaddress.ip_address(client.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(found, "ipv4_mapped", None)
    return found.is_loopback or (mapped is not None and mapped.is_loopback)
