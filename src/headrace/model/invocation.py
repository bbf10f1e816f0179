"""Invocations: what the host sends to an instance, one type for each way a function is run."""

from __future__ import annotations

from typing import ClassVar, TypeAlias, final

import msgspec

from headrace.model.hop_limit import next_hop
from headrace.model.policy import CONVOY_SPARE_S
from headrace.model.record import Chunk, Position


class InvocationBase(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Part that every invocation has. An instance is sent one of its subclasses.

    Attributes:
        function: The full name, `app.function`.
        timeout: Seconds it may take, counted from when the instance takes it up.
        token: A number no other invocation of this app has; the version of state it writes.
        key: The root of its idempotency keys: the same for every attempt at the same events.
        trace: A W3C `traceparent`, or "".
        now: The wall clock when it was dispatched, in microseconds since the epoch.
        seed: What the instance's randomness is seeded with, so that a run can be repeated.
    """

    function: str
    timeout: float = 30.0
    token: int = 0
    key: str = ""
    trace: str = ""
    now: int = 0
    seed: int = 0

    @property
    def batches(self) -> int:
        """Number of invocations its author sees."""
        return 1


class BatchInvocation(InvocationBase, frozen=True, kw_only=True, tag=1):
    """A batch of events from streams.

    Attributes:
        chunks: The events, in the order they are to be seen.
        attempt: From 1.
        order: The function's order as deployed, `partition`, `key` or `none`; "" means as
            its author declared.
        fresh: Forget cached state first: an earlier invocation's changes did not land.
        affinity: Invocations that share it are best run by the same instance.
    """

    chunks: tuple[Chunk, ...]
    attempt: int = 1
    order: str = ""
    fresh: bool = False
    affinity: str = ""

    @property
    def size(self) -> int:
        """Number of events it carries."""
        return sum(chunk.size for chunk in self.chunks)

    @property
    def lineage(self) -> tuple[int, str]:
        """The length and the root of the lineage that its outputs will have."""
        return next_hop(self.chunks)


@final
class CoalescedInvocation(BatchInvocation, frozen=True, kw_only=True, tag=2):
    """A group of coalesced batches.

    Each is an invocation of its own. They run one after the other, until one of them does more than
    succeed and publish; what is behind that one comes back untouched.

    Attributes:
        each: Events of one batch; the last may have fewer.
    """

    each: int

    @property
    def batches(self) -> int:
        """Number of invocations its author sees."""
        return -(-self.size // self.each)

    def batch(self, chunks: tuple[Chunk, ...], base: int) -> BatchInvocation:
        """Make the invocation of one of its batches; `base` is the index of its first event."""
        return BatchInvocation(
            self.function,
            self.timeout - CONVOY_SPARE_S,
            self.token,
            key_of(self.function, chunks[0]),
            self.trace,
            self.now,
            # With one seed for all of them, every batch would draw the same random numbers.
            self.seed + base,
            chunks=chunks,
            attempt=self.attempt,
            order=self.order,
            fresh=self.fresh,
            affinity=self.affinity,
        )


@final
class CallInvocation(InvocationBase, frozen=True, kw_only=True, tag=3):
    """One payload that wants an answer.

    Attributes:
        event: The payload and its headers, as `model.record.encode_events` packs one event.
        attempt: From 1.
        fresh: Forget cached state first: an earlier invocation's changes did not land.
        live: What the handler yields is to be sent on as it comes.
    """

    event: bytes
    attempt: int = 1
    fresh: bool = False
    live: bool = False

    affinity: ClassVar[str] = ""
    size: ClassVar[int] = 1

    @property
    def chunk(self) -> Chunk:
        """The event as a chunk; there is no stream `_call`."""
        return Chunk("_call", 0, 0, 1, self.event, self.now, 0, 1)

    @property
    def lineage(self) -> tuple[int, str]:
        """The length and the root of the lineage that its outputs will have: the call itself."""
        return 1, self.key[len(self.function) + 1 :]


@final
class ConsumerInvocation(InvocationBase, frozen=True, kw_only=True, tag=4):
    """A run that fetches events itself; another owner may have changed its state before it.

    Attributes:
        held: The partitions it is given, each with the next offset.
    """

    held: tuple[Position, ...]

    affinity: ClassVar[str] = ""
    attempt: ClassVar[int] = 1
    fresh: ClassVar[bool] = True
    size: ClassVar[int] = 0

    @property
    def lineage(self) -> tuple[int, str]:
        """As of no event: the host, which knows what it fetched, replaces it at each commit."""
        return 1, ""


Invocation: TypeAlias = BatchInvocation | CoalescedInvocation | CallInvocation | ConsumerInvocation
"""What an instance runs. Another way to run a function is another member, with a tag of its own.

Where each run passes, ask `type(invocation) is`: an `isinstance` that says no takes 0.2 us on a msgspec
struct, as long as the rest of the line."""


def key_of(function: str, head: Chunk) -> str:
    """The root of the idempotency keys of an invocation whose events begin with this chunk's."""
    return f"{function}:{head.stream}/{head.partition}/{head.start}"
