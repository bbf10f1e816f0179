"""What a request for one of the platform's own paths must be good for. Pure.

An author's routes say for themselves who may come in; everything else (publishing, calling,
looking, operating) is judged here: by the node's `access` setting and by where the client is.
"""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from typing import Literal

from headrace.security.tokens import ADMIN

Access = Literal["open", "local", "token"]
READ = "read"
WORK = (["receive"], ["ack"], ["nack"], ["extend"])


def scope_of(method: str, parts: list[str]) -> str:
    """The scope a token must have for a path of the platform; "" where none is needed.

    `parts` are the path's segments. A run's own address (`/runs/{id}`) cannot be guessed, which is
    all the leave it needs.
    """
    first = parts[0] if parts else ""
    if first in {"healthz", "readyz"} or (first == "runs" and len(parts) == 2 and parts[1]):
        return ""
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


def needs_token(access: Access, scope: str, client: str) -> bool:
    """Whether a client must show a token for `scope`.

    `open`: only to make tokens from elsewhere. `local`: whoever is on another machine. `token`:
    everybody.
    """
    if not scope:
        return False
    if access == "token":
        return True
    if access == "open" and scope != ADMIN:
        return False
    return not is_local(client)


@lru_cache(maxsize=4_096)
def is_local(client: str) -> bool:
    """Whether an address is this machine's own."""
    try:
        found = ipaddress.ip_address(client.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(found, "ipv4_mapped", None)
    return found.is_loopback or (mapped is not None and mapped.is_loopback)
