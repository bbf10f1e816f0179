"""A queue as an author holds it: a stream whose messages are acknowledged one by one.

Functions listen to it like to any stream, with other defaults; programs outside receive from it
over HTTP. Every function is a consumer of its own: each gets every message.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any, Generic

from msgspec.structs import replace

from headrace.model.errors import Misuse
from headrace.model.flow_control import Priority
from headrace.model.function import QueueSpec, StreamSpec
from headrace.model.policy import Retry
from headrace.sdk.stream import Stream
from headrace.sdk.type_variables import T

PARALLELISM = 8


class Queue(Stream[T], Generic[T]):
    """Made by `App.queue`, never by hand."""

    __slots__ = ()

    @property
    def settings(self) -> QueueSpec:
        """Options that make it a queue."""
        found = self.spec.queue
        if found is None:
            raise Misuse(f"`{self.name}` is a stream, not a queue; declare it with `app.queue`")
        return found

    def __repr__(self) -> str:
        return f"Queue({self.spec.name!r})"


def queue_options(sources: tuple[object, ...], given: Mapping[str, Any]) -> Mapping[str, Any]:
    """The options a function has because it listens to a queue, where it gave none itself."""
    queues = [source for source in sources if isinstance(source, Queue)]
    if not queues or len(queues) < len(sources):
        return given
    settings = queues[0].settings
    order = "key" if any(queue.settings.fifo for queue in queues) else "none"
    usual = {
        "order": order,
        "parallelism": PARALLELISM,
        "batch_size": 1,
        "timeout": settings.visibility,
        "retry": Retry(attempts=settings.max_receives),
        "priority": Priority(),
    }
    chosen = {name: usual[name] if given.get(name) is None else given[name] for name in usual}
    if chosen["order"] == "partition":
        # Asked for by name: then nothing overtakes, and what needs that is left out.
        chosen |= {"parallelism": given.get("parallelism"), "priority": given.get("priority")}
    return {**given, **chosen}


def resolved(spec: StreamSpec, heard: Set[str]) -> StreamSpec:
    """With whether programs outside receive from it, now that `heard` says what functions listen to."""
    if spec.queue is None or spec.queue.outside is not None:
        return spec
    return replace(spec, queue=replace(spec.queue, outside=spec.name not in heard))
