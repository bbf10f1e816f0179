"""Programs outside that receive from a queue, seen as a function: a group with an order and a retry.

In: a queue's description. Out: the function that stands for its consumers. Pure; `delivery/outside`
serves it, `map` shows it.
"""

from __future__ import annotations

from headrace.model.flow_control import Priority
from headrace.model.function import FunctionSpec, StreamSpec
from headrace.model.policy import MAX_OFFERED, MAX_VISIBILITY, Retry
from headrace.model.triggers.base import StreamTrigger


def consumer_of(stream: StreamSpec, app: str) -> FunctionSpec | None:
    """The function that stands for programs outside; None where the queue has none."""
    queue = stream.queue
    if queue is None or not queue.outside:
        return None
    return FunctionSpec(
        name=consumer_name(app, stream.name),
        app=app,
        triggers=(StreamTrigger(streams=(stream.name,)),),
        order="key" if queue.fifo else "none",
        # How many messages are out at once is the consumers' choice; this only bounds it.
        parallelism=MAX_OFFERED,
        batch_size=1,
        timeout=queue.visibility,
        bisect=False,
        # A breaker stops a function that fails; a program outside that fails just takes no
        # messages.
        breaker=None,
        priority=Priority(),
        # No backoff here: the consumer gives the delay with its refusal, up to MAX_VISIBILITY.
        retry=Retry(
            attempts=queue.max_receives, initial_delay=0.0, max_delay=MAX_VISIBILITY, jitter=False
        ),
        summary=f"Programs outside that receive from `{stream.name}`.",
    )


def consumer_name(app: str, queue: str) -> str:
    """The name of a queue's consumers outside, which is their group."""
    return f"{app}.{queue}.outside"
