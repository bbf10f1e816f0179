"""One call of a function: the batch, the attempt, the deadline, and where it comes from."""

from __future__ import annotations

import msgspec

from headrace.model.record import Chunk, Position


class Invocation(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Request that the host sends to an instance.

    Attributes:
        function: The full name, `app.function`.
        chunks: The events, in the order they are to be seen.
        attempt: From 1.
        timeout: Seconds it may take, counted from when the instance takes it up.
        token: A number no other invocation of this app has; the version of state it writes.
        key: The root of its idempotency keys: the same for every attempt at the same events.
        hops: The length its outputs' lineage will have.
        origin: The root of its lineage.
        affinity: Invocations that share it are best run by the same instance.
        trace: A W3C `traceparent`, or "".
        now: The wall clock when it was dispatched, in microseconds since the epoch.
        seed: What the instance's randomness is seeded with, so that a run can be repeated.
        mode: `stream` for a batch from a log, `call` for one payload that wants an answer,
            `consume` for a run that fetches events itself.
        order: The function's order as deployed, `partition`, `key` or `none`; "" means as
            its author declared.
        fresh: Forget cached state first: an earlier invocation's changes did not land.
        held: In a `consume` run, the partitions it is given, each with the next offset.
        live: In a `call` run, what the handler yields is to be sent on as it comes.
        each: Above 0, a convoy: every so many events are an invocation of their own, run one after
            the other until one of them does more than succeed and publish; what is behind that
            one comes back untouched.
    """

    function: str
    chunks: tuple[Chunk, ...]
    attempt: int = 1
    timeout: float = 30.0
    token: int = 0
    key: str = ""
    hops: int = 0
    origin: str = ""
    affinity: str = ""
    trace: str = ""
    now: int = 0
    seed: int = 0
    mode: str = "stream"
    fresh: bool = False
    order: str = ""
    held: tuple[Position, ...] = ()
    live: bool = False
    each: int = 0

    @property
    def size(self) -> int:
        """Number of events it carries."""
        return sum(chunk.size for chunk in self.chunks)

    @property
    def batches(self) -> int:
        """Number of invocations its author sees."""
        return -(-self.size // self.each) if self.each else 1


def key_of(function: str, head: Chunk) -> str:
    """The root of the idempotency keys of an invocation whose events begin with this chunk's."""
    return f"{function}:{head.stream}/{head.partition}/{head.start}"
