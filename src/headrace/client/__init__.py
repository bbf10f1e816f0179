"""For programs outside of a node: publish, call functions, work on queues, look after what failed.

`Client` is for threads, `AsyncClient` for an event loop; both find the node and its token as the command line
does, and raise `HeadraceError`s. Each is loaded when it is first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headrace.client.async_client import AsyncClient
    from headrace.client.calls import PublishOptions, SendOptions
    from headrace.client.http import Client
    from headrace.client.responses import retry_after_of
    from headrace.client.views import (
        DeadLetterPage,
        DeadLetterRecord,
        Invocation,
        Message,
        PublishResult,
        ReceivedMessage,
        Settled,
    )

__all__ = [
    "AsyncClient",
    "Client",
    "DeadLetterPage",
    "DeadLetterRecord",
    "Invocation",
    "Message",
    "PublishOptions",
    "PublishResult",
    "ReceivedMessage",
    "SendOptions",
    "Settled",
    "retry_after_of",
]

_PLACES = {
    "AsyncClient": "headrace.client.async_client",
    "Client": "headrace.client.http",
    "PublishOptions": "headrace.client.calls",
    "SendOptions": "headrace.client.calls",
    "retry_after_of": "headrace.client.responses",
}
_VIEWS = "headrace.client.views"

if not TYPE_CHECKING:  # A checker that sees `__getattr__` would accept every misspelt name.

    def __getattr__(name: str) -> object:
        if name in __all__:
            found = getattr(import_module(_PLACES.get(name, _VIEWS)), name)
            globals()[name] = found
            return found
        raise AttributeError(f"`headrace.client` has no `{name}`")
