"""Queues for programs outside: a consumer over HTTP is a function whose instances are elsewhere.

The partition worker delivers to it like to any function, so order per group, attempts, dead letters
and redrive are the same. The execution differs: a run is *offered* until a program receives it,
then *leased* until the program acknowledges or refuses it, or the visibility timeout passes.

    offered --receive--> leased --ack--> done
                         leased --nack, or timeout--> offered again (one attempt spent)

Leases are rows of the store: a restarted node continues them.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from functools import partial

import msgspec

from headrace.delivery.intake.lanes import rank_of
from headrace.delivery.parked import parked_offsets
from headrace.delivery.positions import stored
from headrace.environment.clock import Clock
from headrace.environment.failpoints import hit
from headrace.environment.randomness import Entropy
from headrace.environment.tasks import Tasks
from headrace.model.errors import Fenced, HeadraceError, Invalid, Unavailable, Unknown
from headrace.model.event import Event
from headrace.model.flow_control import Priority
from headrace.model.function import FunctionSpec
from headrace.model.invocation import BatchInvocation, Invocation
from headrace.model.outcome import Cause, Outcome, Returned, TimedOut
from headrace.model.policy import MAX_VISIBILITY
from headrace.model.record import Position
from headrace.runtime.base import RECALLED, Run, Submit, Waiter
from headrace.runtime.task_run import TaskRun
from headrace.storage.kv.base import Storage
from headrace.storage.log.queue_leases import Lease, Leases, place_of, receipt_of

MICROS = 1_000_000
SWEEP_AFTER = 256


class LeasedMessage(msgspec.Struct, frozen=True, gc=False):
    """A message as it is delivered to a consumer."""

    receipt: str
    position: Position
    attempt: int
    event: Event
    until: int


class _Offer:
    """A run that waits for a consumer, or for its consumer's answer.

    `lease` is the current lease; `stored` is the row as last read or written.
    """

    __slots__ = ("at", "attempt", "changed", "ends", "event", "lease", "rank", "stored", "until")

    def __init__(self, at: Position, attempt: int, event: Event, rank: int) -> None:
        self.at = at
        self.attempt = attempt
        self.event = event
        self.rank = rank
        self.lease: Lease | None = None
        self.stored: Lease | None = None
        self.changed = asyncio.Event()
        self.until = 0
        self.ends = 0.0


class ExternalConsumers:
    """An interceptor: runs of queue consumers stay here until a program answers."""

    def __init__(self, storage: Storage, clock: Clock, entropy: Entropy, tasks: Tasks) -> None:
        self._clock = clock
        self._tasks = tasks
        self._entropy = entropy
        self._storage = storage
        self._leases = Leases(storage)
        self._queues: dict[str, FunctionSpec] = {}
        self._offers: defaultdict[str, dict[Position, _Offer]] = defaultdict(dict)
        self._receivers: defaultdict[str, deque[asyncio.Future[None]]] = defaultdict(deque)
        self._recalls: defaultdict[str, int] = defaultdict(int)
        self._settled: defaultdict[str, int] = defaultdict(int)

    # --- for the partition worker ---------------------------------------------------------------

    async def open(self, consumer: FunctionSpec) -> None:
        """Let programs outside receive from the queue that `consumer` reads."""
        self._queues[consumer.name] = consumer
        await self._sweep(consumer.name)

    def recall(self, function: str) -> None:
        """End every run here without an outcome; leases in the store stay."""
        self._recalls[function] += 1
        for offer in self._offers.get(function, {}).values():
            offer.changed.set()

    def intercept(self, below: Submit) -> Submit:
        """A `runtime.base.Interceptor`. Calls are passed on: only messages of a queue are offered."""

        def submit(invocation: Invocation, done: Waiter, after: Run | None = None, /) -> Run:
            if invocation.function not in self._queues or not isinstance(
                invocation, BatchInvocation
            ):
                return below(invocation, done, after)
            # Read here, so that a recall before the task starts counts too.
            offer = partial(self._offer, recalls=self._recalls[invocation.function])
            return TaskRun(self._tasks, offer, invocation, done)

        return submit

    async def _offer(self, invocation: BatchInvocation, recalls: int) -> Outcome:
        """Offer the message, and wait for its outcome."""
        function = invocation.function
        chunk = invocation.chunks[0]
        at = Position(chunk.stream, chunk.partition, chunk.start)
        event = chunk.events()[0]
        offer = _Offer(
            at, invocation.attempt, event, rank_of(chunk.appended, event, Priority().header)
        )
        await self._load(function, offer)
        if recalls != self._recalls[function]:
            return RECALLED
        self._offers[function][at] = offer
        try:
            self._wake_receiver(function)
            return await self._answered(function, offer, recalls)
        finally:
            # The message may have been offered again while this task was being cancelled.
            if self._offers[function].get(at) is offer:
                del self._offers[function][at]

    async def _answered(self, function: str, offer: _Offer, recalls: int) -> Outcome:
        """Return the consumer's answer, or a timeout."""
        while recalls == self._recalls[function]:
            lease, left = offer.lease, None
            if lease is not None and lease.stand == "acknowledged":
                return Returned()
            if lease is not None:
                left = self._left(offer, lease)
                if lease.stand != "leased" or left <= 0:
                    if await self._end(function, offer, lease):
                        return _unfinished(lease)
                    continue
            offer.changed.clear()
            try:
                await self._clock.timeout(offer.changed.wait(), left)
            except TimeoutError:
                continue
        return RECALLED

    async def _end(self, function: str, offer: _Offer, lease: Lease) -> bool:
        """End the lease, so that later answers are refused; return False if an answer came in time.

        Its row stays until the message is received again or redriven: after a crash, or a failed
        commit of the attempt, the next offer of the message still counts that attempt.
        """
        if lease.stand != "leased":
            return True
        lapsed = msgspec.structs.replace(lease, stand="lapsed")
        is_over = await self._leases.change(function, offer.at, lease, lapsed)
        if not is_over:
            # The consumer's answer was being stored when the lease ended.
            await self._reload(function, offer)
        return is_over

    async def _load(self, function: str, offer: _Offer) -> None:
        """Load the lease from the store; a lease of an earlier attempt has been counted already."""
        offer.stored = known = await self._leases.get(function, offer.at)
        offer.lease = known if known is not None and known.attempt >= offer.attempt else None

    async def _reload(self, function: str, offer: _Offer) -> None:
        """Load the lease again, as the store differs from memory."""
        believed = offer.lease
        await self._load(function, offer)
        offer.changed.set()
        if offer.lease is None:
            self._wake_receiver(function)
        elif offer.lease == believed:
            raise Unavailable(f"the lease of {offer.at} could not be changed")

    # --- for consumers ------------------------------------------------------------------------

    async def receive(
        self,
        function: str,
        *,
        most: int = 1,
        wait: float = 0.0,
        visibility: float | None = None,
        over: asyncio.Future[None] | None = None,
    ) -> list[LeasedMessage]:
        """Return up to `most` messages, leased to the caller; none if none came within `wait` seconds.

        Args:
            function: The queue's consumer function.
            most: The maximum number of messages.
            wait: Seconds to wait for a first message.
            visibility: Seconds for which the messages are hidden from others; by default the queue's.
            over: Done once the caller is gone: nothing is leased then.

        Raises:
            Unknown: There is no such queue for programs outside.
        """
        seconds = self._known(function).timeout if visibility is None else visibility
        ends = self._clock.monotonic() + wait
        while True:
            waiting = [o for o in self._offers[function].values() if o.lease is None]
            if over is not None and over.done():
                if waiting:
                    # This receiver may have been woken for it: wake another one.
                    self._wake_receiver(function)
                return []
            if waiting:
                break
            left = ends - self._clock.monotonic()
            if left <= 0 or not await self._wait_for_message(function, left, over):
                return []
        # At every receive rather than at the offer: a higher priority may have arrived meanwhile.
        waiting.sort(key=lambda offer: offer.rank)
        until = self._clock.now() + int(_bounded(seconds) * MICROS)
        chosen = waiting[:most]
        for offer in chosen:
            token = self._entropy.integer(62)
            # In memory before the store is written: between here and the write another receiver
            # must not choose the same message.
            offer.lease = Lease(receipt_of(offer.at, offer.attempt, token), offer.attempt, until)
            self._left(offer, offer.lease)
        # One wake-up at a time: each receiver wakes the next while messages are left.
        if len(waiting) > most:
            self._wake_receiver(function)
        # Together, since each lease waits for a commit of the store, which groups them.
        results = await asyncio.gather(
            *(self._store_lease(function, offer) for offer in chosen), return_exceptions=True
        )
        failed = [result for result in results if isinstance(result, BaseException)]
        given = [result for result in results if isinstance(result, LeasedMessage)]
        for error in failed:
            # Messages that are leased are returned, even if the store failed for others.
            if not given or not isinstance(error, HeadraceError):
                raise error
        return given

    async def _wait_for_message(
        self, function: str, seconds: float, over: asyncio.Future[None] | None
    ) -> bool:
        """Wait until a message may be there, or until `over`; return False after a timeout."""
        receiver: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def wake(_: object) -> None:
            if not receiver.done():
                receiver.set_result(None)

        self._receivers[function].append(receiver)
        if over is not None:
            over.add_done_callback(wake)
        try:
            await self._clock.timeout(receiver, seconds)
        except TimeoutError:
            return False
        finally:
            receiver.cancel()
            if over is not None:
                over.remove_done_callback(wake)
        return True

    def _left(self, offer: _Offer | None, lease: Lease) -> float:
        """Return the seconds until the lease ends, by the monotonic clock while the offer is here."""
        left = (lease.until - self._clock.now()) / MICROS
        if offer is None:
            return left
        # The monotonic end is fixed when the lease changes; only a restarted node converts it
        # again from the wall clock.
        if offer.until != lease.until:
            offer.until, offer.ends = lease.until, self._clock.monotonic() + left
        return offer.ends - self._clock.monotonic()

    async def _store_lease(self, function: str, offer: _Offer) -> LeasedMessage | None:
        """Return the message, once its lease is durable; None if another consumer has it."""
        lease = offer.lease
        if lease is None:
            return None
        try:
            hit("lease:before-write")
            is_given = await self._leases.change(function, offer.at, offer.stored, lease)
            hit("lease:after-write")
        except BaseException:
            # The row may have been written; the next receiver's compare-and-set then fails and
            # reloads it.
            offer.lease = None
            self._wake_receiver(function)
            raise
        if not is_given:
            await self._reload(function, offer)
            return None
        offer.stored = lease
        offer.changed.set()
        return LeasedMessage(lease.receipt, offer.at, offer.attempt, offer.event, lease.until)

    async def acknowledge(self, function: str, receipt: str) -> bool:
        """Mark the message as done; return False if its receipt is not valid any more."""
        return await self._change_lease(function, receipt, stand="acknowledged")

    async def refuse(
        self, function: str, receipt: str, *, delay: float = 0.0, reason: str = ""
    ) -> bool:
        """Return the message to the queue, for delivery after `delay` seconds; return False as above."""
        return await self._change_lease(
            function, receipt, stand="refused", delay=_bounded(delay), reason=reason[:4_096]
        )

    async def extend(self, function: str, receipt: str, seconds: float) -> bool:
        """Keep the message for `seconds` from now; return False as above."""
        until = self._clock.now() + int(_bounded(seconds) * MICROS)
        return await self._change_lease(function, receipt, until=until)

    async def _change_lease(self, function: str, receipt: str, **change: object) -> bool:
        self._known(function)
        at = place_of(receipt)
        offer = self._offers[function].get(at)
        lease = None if offer is None else offer.lease
        if lease is None or lease.receipt != receipt:
            # The message was offered again meanwhile: the store has the current lease.
            lease = await self._leases.get(function, at)
        while True:
            if lease is None or lease.receipt != receipt:
                return False
            # A repeated request after a lost response: the same answer again.
            if lease.stand == change.get("stand"):
                return True
            if lease.stand != "leased" or self._left(offer, lease) <= 0:
                return False
            said = msgspec.structs.replace(lease, **change)
            if await self._leases.change(function, at, lease, said):
                break
            # An earlier answer whose response was lost may have been stored.
            believed, lease = lease, await self._leases.get(function, at)
            if lease == believed:
                return False
        # The partition worker may have offered it (again) during the awaits above.
        offer = self._offers[function].get(at)
        if offer is not None and (offer.lease is None or offer.lease.receipt == receipt):
            offer.lease = said
            offer.changed.set()
        if said.stand != "leased":
            await self._count(function)
        return True

    def counts(self, function: str) -> tuple[int, int]:
        """Return how many messages are offered, and how many are leased, on this node."""
        offers = self._offers[function].values()
        leased = sum(1 for offer in offers if offer.lease is not None)
        return len(offers) - leased, leased

    def _known(self, function: str) -> FunctionSpec:
        if function not in self._queues:
            names = ", ".join(f"`{name}`" for name in sorted(self._queues)) or "none"
            raise Unknown(f"no queue gives out messages as `{function}`; there are: {names}")
        return self._queues[function]

    def _wake_receiver(self, function: str) -> None:
        receivers = self._receivers[function]
        while receivers:
            receiver = receivers.popleft()
            if not receiver.done():
                receiver.set_result(None)
                return

    # --- housekeeping -------------------------------------------------------------------------

    async def _count(self, function: str) -> None:
        # Leases of finished messages are not deleted with each answer, which would double the
        # commits.
        self._settled[function] += 1
        if self._settled[function] >= SWEEP_AFTER:
            self._settled[function] = 0
            await self._sweep(function)

    async def _sweep(self, function: str) -> None:
        """Delete the leases of messages that are finished and not being redriven."""
        progress_of: dict[tuple[str, int], tuple[int, frozenset[int]]] = {}
        finished: list[Position] = []
        for at, _ in await self._leases.all(function):
            place = (at.stream, at.partition)
            if place not in progress_of:
                try:
                    _, found = await stored(self._storage, function, *place)
                except Fenced:
                    progress_of[place] = (0, frozenset())
                else:
                    progress_of[place] = (
                        found.progress.watermark,
                        frozenset(found.progress.sparse),
                    )
            low, sparse = progress_of[place]
            if at.offset < low or at.offset in sparse:
                finished.append(at)
        redriven = {
            Position(*place, offset)
            for place in {(at.stream, at.partition) for at in finished}
            for offset in await parked_offsets(self._storage, function, *place)
        }
        await self._leases.forget(function, [at for at in finished if at not in redriven])


def _unfinished(lease: Lease) -> Outcome:
    """Return the outcome of a lease that ended without an acknowledgement."""
    if lease.stand == "refused":
        reason = lease.reason or "its consumer refused it"
        return Returned(error=Cause("Refused", reason, delay=lease.delay))
    return TimedOut(Cause("VisibilityTimeout", "nobody acknowledged it in time"))


def _bounded(seconds: float) -> float:
    if not 0 <= seconds <= MAX_VISIBILITY:
        raise Invalid(f"{seconds:g} seconds is out of range; use 0 to {MAX_VISIBILITY:,}")
    return float(seconds)
