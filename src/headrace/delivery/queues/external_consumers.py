"""Queues for programs outside: a consumer over HTTP is a function whose instances are elsewhere.

The one partition worker delivers to it like to any other, so order per group, attempts, dead letters and redrive
are the same. What differs is who runs it: here a run is *offered* until somebody receives it, then
*leased* until they acknowledge, refuse or let the visibility timeout pass.

    offered --receive--> leased --ack--> done
                         leased --nack, or time is over--> offered again (one attempt spent)

Leases are rows of the store: a node that starts again takes them up where they were.
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
    """A message as it is given out."""

    receipt: str
    position: Position
    attempt: int
    event: Event
    until: int


class _Offer:
    """A run that waits for a consumer, or for what its consumer says.

    `lease` is what counts here; `stored` what the store held when it was last looked at.
    """

    __slots__ = ("at", "attempt", "ends", "event", "lease", "rank", "stored", "told", "until")

    def __init__(self, at: Position, attempt: int, event: Event, rank: int) -> None:
        self.at = at
        self.attempt = attempt
        self.event = event
        self.rank = rank
        self.lease: Lease | None = None
        self.stored: Lease | None = None
        self.told = asyncio.Event()
        self.until = 0
        self.ends = 0.0


class ExternalConsumers:
    """An interceptor: runs of queue consumers stay here until somebody answers."""

    def __init__(self, storage: Storage, clock: Clock, entropy: Entropy, tasks: Tasks) -> None:
        self._clock = clock
        self._tasks = tasks
        self._entropy = entropy
        self._storage = storage
        self._leases = Leases(storage)
        self._queues: dict[str, FunctionSpec] = {}
        self._offers: defaultdict[str, dict[Position, _Offer]] = defaultdict(dict)
        self._askers: defaultdict[str, deque[asyncio.Future[None]]] = defaultdict(deque)
        self._recalls: defaultdict[str, int] = defaultdict(int)
        self._settled: defaultdict[str, int] = defaultdict(int)

    # --- the partition worker's side ----------------------------------------------------------------------

    async def open(self, consumer: FunctionSpec) -> None:
        """Let programs outside receive from the queue `consumer` reads."""
        self._queues[consumer.name] = consumer
        await self._sweep(consumer.name)

    def recall(self, function: str) -> None:
        """End every run that is here, without a trace; leases stay as they are in the store."""
        self._recalls[function] += 1
        for offer in self._offers.get(function, {}).values():
            offer.told.set()

    def intercept(self, below: Submit) -> Submit:
        """A `runtime.base.Interceptor`. Calls are passed on: only messages of a queue are offered."""

        def submit(invocation: Invocation, done: Waiter, after: Run | None = None, /) -> Run:
            if invocation.function not in self._queues or not isinstance(
                invocation, BatchInvocation
            ):
                return below(invocation, done, after)
            # Counted here: what is recalled before its task has begun is recalled as well.
            offer = partial(self._offer, recalls=self._recalls[invocation.function])
            return TaskRun(self._tasks, offer, invocation, done)

        return submit

    async def _offer(self, invocation: BatchInvocation, recalls: int) -> Outcome:
        """Offer the message, and wait for what becomes of it."""
        function = invocation.function
        chunk = invocation.chunks[0]
        at = Position(chunk.stream, chunk.partition, chunk.start)
        event = chunk.events()[0]
        offer = _Offer(
            at, invocation.attempt, event, rank_of(chunk.appended, event, Priority().header)
        )
        await self._look(function, offer)
        if recalls != self._recalls[function]:
            return RECALLED
        self._offers[function][at] = offer
        try:
            self._call_asker(function)
            return await self._answered(function, offer, recalls)
        finally:
            # Not one that was offered anew, while this one was being cancelled.
            if self._offers[function].get(at) is offer:
                del self._offers[function][at]

    async def _answered(self, function: str, offer: _Offer, recalls: int) -> Outcome:
        """What the message's consumer says, or that it said nothing in time."""
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
            offer.told.clear()
            try:
                await self._clock.timeout(offer.told.wait(), left)
            except TimeoutError:
                continue
        return RECALLED

    async def _end(self, function: str, offer: _Offer, lease: Lease) -> bool:
        """Have nothing said of the lease count any more; False where something was said in time.

        Its row stays until the message is given out again, or redriven: if the attempt is not counted
        because we die, or its commit does not land, whoever offers the message again counts it then.
        """
        if lease.stand != "leased":
            return True
        lapsed = msgspec.structs.replace(lease, stand="lapsed")
        is_over = await self._leases.change(function, offer.at, lease, lapsed)
        if not is_over:
            # What its consumer said was on its way to the store when the time was over.
            await self._look_again(function, offer)
        return is_over

    async def _look(self, function: str, offer: _Offer) -> None:
        """What the store holds is what counts; but a lease of an earlier attempt has been counted."""
        offer.stored = known = await self._leases.get(function, offer.at)
        offer.lease = known if known is not None and known.attempt >= offer.attempt else None

    async def _look_again(self, function: str, offer: _Offer) -> None:
        """The store holds something else than was believed."""
        believed = offer.lease
        await self._look(function, offer)
        offer.told.set()
        if offer.lease is None:
            self._call_asker(function)
        elif offer.lease == believed:
            raise Unavailable(f"the lease of {offer.at} could not be changed")

    # --- the consumer's side ------------------------------------------------------------------

    async def receive(
        self,
        function: str,
        *,
        most: int = 1,
        wait: float = 0.0,
        visibility: float | None = None,
        over: asyncio.Future[None] | None = None,
    ) -> list[LeasedMessage]:
        """Up to `most` messages, leased to whoever asks; none where none came within `wait` seconds.

        Args:
            function: The queue's consumers.
            most: Messages at most.
            wait: Seconds to wait for a first one.
            visibility: Seconds the messages are kept from others; the queue's own by default.
            over: Done once nobody waits any more: nothing is leased then.

        Raises:
            Unknown: There is no such queue for programs outside.
        """
        seconds = self._known(function).timeout if visibility is None else visibility
        ends = self._clock.monotonic() + wait
        while True:
            waiting = [o for o in self._offers[function].values() if o.lease is None]
            if over is not None and over.done():
                if waiting:
                    # It may be us who were called for it: somebody else is to have it.
                    self._call_asker(function)
                return []
            if waiting:
                break
            left = ends - self._clock.monotonic()
            if left <= 0 or not await self._asked(function, left, over):
                return []
        waiting.sort(key=lambda offer: offer.rank)
        until = self._clock.now() + int(_bounded(seconds) * MICROS)
        chosen = waiting[:most]
        for offer in chosen:
            token = self._entropy.integer(62)
            offer.lease = Lease(receipt_of(offer.at, offer.attempt, token), offer.attempt, until)
            self._left(offer, offer.lease)
        if len(waiting) > most:
            self._call_asker(function)
        gifts = await asyncio.gather(
            *(self._give(function, offer) for offer in chosen), return_exceptions=True
        )
        failed = [gift for gift in gifts if isinstance(gift, BaseException)]
        given = [gift for gift in gifts if isinstance(gift, LeasedMessage)]
        for error in failed:
            # What was given out is not withheld because the store was away for the others.
            if not given or not isinstance(error, HeadraceError):
                raise error
        return given

    async def _asked(
        self, function: str, seconds: float, over: asyncio.Future[None] | None
    ) -> bool:
        """Wait until a message may be there, or until it is `over`; False where neither came."""
        asker: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def wake(_: object) -> None:
            if not asker.done():
                asker.set_result(None)

        self._askers[function].append(asker)
        if over is not None:
            over.add_done_callback(wake)
        try:
            await self._clock.timeout(asker, seconds)
        except TimeoutError:
            return False
        finally:
            asker.cancel()
            if over is not None:
                over.remove_done_callback(wake)
        return True

    def _left(self, offer: _Offer | None, lease: Lease) -> float:
        """Seconds until the lease is over, however the wall clock is set while it is here."""
        left = (lease.until - self._clock.now()) / MICROS
        if offer is None:
            return left
        if offer.until != lease.until:
            offer.until, offer.ends = lease.until, self._clock.monotonic() + left
        return offer.ends - self._clock.monotonic()

    async def _give(self, function: str, offer: _Offer) -> LeasedMessage | None:
        """The message, once it is durably leased; None where somebody else has it."""
        lease = offer.lease
        if lease is None:
            return None
        try:
            hit("lease:before-write")
            is_given = await self._leases.change(function, offer.at, offer.stored, lease)
            hit("lease:after-write")
        except BaseException:
            # It may have landed: then the next one to be given it finds that out.
            offer.lease = None
            self._call_asker(function)
            raise
        if not is_given:
            await self._look_again(function, offer)
            return None
        offer.stored = lease
        offer.told.set()
        return LeasedMessage(lease.receipt, offer.at, offer.attempt, offer.event, lease.until)

    async def acknowledge(self, function: str, receipt: str) -> bool:
        """The message is done; False where its receipt is no longer good."""
        return await self._say(function, receipt, stand="acknowledged")

    async def refuse(
        self, function: str, receipt: str, *, delay: float = 0.0, reason: str = ""
    ) -> bool:
        """Give the message back, to be given out again after `delay` seconds; False as above."""
        return await self._say(
            function, receipt, stand="refused", delay=_bounded(delay), reason=reason[:4_096]
        )

    async def extend(self, function: str, receipt: str, seconds: float) -> bool:
        """Keep the message for `seconds` from now; False as above."""
        until = self._clock.now() + int(_bounded(seconds) * MICROS)
        return await self._say(function, receipt, until=until)

    async def _say(self, function: str, receipt: str, **change: object) -> bool:
        self._known(function)
        at = place_of(receipt)
        offer = self._offers[function].get(at)
        lease = None if offer is None else offer.lease
        if lease is None or lease.receipt != receipt:
            # Offered anew while it was being given out: what the store holds is what counts.
            lease = await self._leases.get(function, at)
        while True:
            if lease is None or lease.receipt != receipt:
                return False
            if lease.stand == change.get("stand"):
                return True
            if lease.stand != "leased" or self._left(offer, lease) <= 0:
                return False
            said = msgspec.structs.replace(lease, **change)
            if await self._leases.change(function, at, lease, said):
                break
            # An answer that was lost may have landed: what the store holds is what counts.
            believed, lease = lease, await self._leases.get(function, at)
            if lease == believed:
                return False
        # The partition worker may have offered it (again) meanwhile.
        offer = self._offers[function].get(at)
        if offer is not None and (offer.lease is None or offer.lease.receipt == receipt):
            offer.lease = said
            offer.told.set()
        if said.stand != "leased":
            await self._count(function)
        return True

    def counts(self, function: str) -> tuple[int, int]:
        """How many messages are offered, and how many are leased, on this node."""
        offers = self._offers[function].values()
        leased = sum(1 for offer in offers if offer.lease is not None)
        return len(offers) - leased, leased

    def _known(self, function: str) -> FunctionSpec:
        if function not in self._queues:
            names = ", ".join(f"`{name}`" for name in sorted(self._queues)) or "none"
            raise Unknown(f"no queue gives out messages as `{function}`; there are: {names}")
        return self._queues[function]

    def _call_asker(self, function: str) -> None:
        askers = self._askers[function]
        while askers:
            asker = askers.popleft()
            if not asker.done():
                asker.set_result(None)
                return

    # --- housekeeping -------------------------------------------------------------------------

    async def _count(self, function: str) -> None:
        self._settled[function] += 1
        if self._settled[function] >= SWEEP_AFTER:
            self._settled[function] = 0
            await self._sweep(function)

    async def _sweep(self, function: str) -> None:
        """Forget leases of messages that are finished, and are not being redriven."""
        standing: dict[tuple[str, int], tuple[int, frozenset[int]]] = {}
        finished: list[Position] = []
        for at, _ in await self._leases.all(function):
            place = (at.stream, at.partition)
            if place not in standing:
                try:
                    _, found = await stored(self._storage, function, *place)
                except Fenced:
                    standing[place] = (0, frozenset())
                else:
                    standing[place] = (found.progress.watermark, frozenset(found.progress.sparse))
            low, sparse = standing[place]
            if at.offset < low or at.offset in sparse:
                finished.append(at)
        redriven = {
            Position(*place, offset)
            for place in {(at.stream, at.partition) for at in finished}
            for offset in await parked_offsets(self._storage, function, *place)
        }
        await self._leases.forget(function, [at for at in finished if at not in redriven])


def _unfinished(lease: Lease) -> Outcome:
    """What a lease that ended without an acknowledgement means."""
    if lease.stand == "refused":
        reason = lease.reason or "its consumer refused it"
        return Returned(error=Cause("Refused", reason, delay=lease.delay))
    return TimedOut(Cause("VisibilityTimeout", "nobody acknowledged it in time"))


def _bounded(seconds: float) -> float:
    if not 0 <= seconds <= MAX_VISIBILITY:
        raise Invalid(f"{seconds:g} seconds is out of range; use 0 to {MAX_VISIBILITY:,}")
    return float(seconds)
