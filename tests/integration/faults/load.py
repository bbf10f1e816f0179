"""Load under which a node is put on trial: an app of three functions, and producers that insist.

Every event has a number and an id. A producer sends its batch again until it is acknowledged, through
as many restarts as that takes, so that at its end every event it made was acknowledged.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterable
from random import Random

from tests.auditor.outside import Account, Listener, Sent
from tests.integration.faults.sites import Ended, Site

EVENTS = "application/vnd.headrace.events+x-ndjson"
ATTEMPTS = 4
TIMEOUT_S = 1.5
SLOWER_EVERY = 5_000

APP = f'''
"""The app behind the fault campaign."""

import os

from headrace import App, Batch, Context, DeadLetter, Event, Retry, Scaling

app = App("load", owner="campaign")
orders = app.stream("orders", partitions=4)
told = app.stream("told", partitions=4)
seen = app.stream("seen", partitions=4)
ends = app.stream("ends", partitions=2)

often = Retry(attempts={ATTEMPTS}, initial_delay=0.01, max_delay=0.05)


def begin(function, numbers):
    """Leave a line outside, which no rollback takes back."""
    line = " ".join([function, *map(str, numbers)]) + "\\n"
    handle = os.open("{{trace}}", os.O_WRONLY | os.O_APPEND)
    os.write(handle, line.encode())
    os.close(handle)


def seen_too(kept, number):
    """How many numbers a key has seen, their sum, and a sum that knows their order."""
    count, total, order = kept
    return [count + 1, total + number, (order * 31 + number) % 2**61]


@app.function(orders, batch_size=64, timeout={TIMEOUT_S}, retry=often, on_failure=DeadLetter(), breaker=None)
def tally(events: Batch[dict], context: Context) -> None:
    """Add every number to what its key has seen, and tell."""
    begin("load.tally", [event.value["n"] for event in events])
    for event in events:
        if event.value.get("poison"):
            raise ValueError(f"poison {{event.value['n']}}")
        kept = context.state.get(f"tally|{{event.key}}", [0, 0, 0])
        context.state.put(f"tally|{{event.key}}", seen_too(kept, event.value["n"]))
        context.publish(told, {{"n": event.value["n"], "at": str(event.position)}}, key=event.key)


@app.function(
    orders, order="key", parallelism=4, batch_size=16, timeout={TIMEOUT_S}, retry=often,
    on_failure=DeadLetter(), output=seen, breaker=None,
    scaling=Scaling(max=4, keep_warm=0.05, keep_hibernating=0.3, max_instance_age=2.0, max_invocations=200),
)
def single(event: Event[dict], context: Context):
    """The same for one event at a time, in lanes."""
    begin("load.single", [event.value["n"]])
    if event.value.get("poison"):
        raise ValueError(f"poison {{event.value['n']}}")
    kept = context.state.get(f"single|{{event.key}}", [0, 0, 0])
    context.state.put(f"single|{{event.key}}", seen_too(kept, event.value["n"]))
    return {{"n": event.value["n"], "at": str(event.position)}}


@app.function(told, batch_size=20, batch_window=0.02, timeout={TIMEOUT_S}, retry=often, breaker=None)
def relay(events: Batch[dict], context: Context) -> None:
    """What the first function published, once more."""
    begin("load.relay", [event.value["n"] for event in events])
    for event in events:
        context.publish(ends, {{"n": event.value["n"], "at": str(event.position)}}, key=event.key)
'''

KINDS = "ValueError", "Crashed", "TimedOut"
"""Poison raises; its last attempt may also be the one that is killed or stopped."""

AHEAD, AHEAD_PUBLISHING = 4, 256
"""Commits that an ordered function may be ahead of the disk; more where it only publishes."""

LISTENERS = (
    Listener("load.tally", "orders", "told", "tally", ATTEMPTS, KINDS, 64 * (AHEAD + 1)),
    # In lanes, a key waits for its commit: no more than one batch of it is begun again.
    Listener("load.single", "orders", "seen", "single", ATTEMPTS, KINDS, 16),
    Listener("load.relay", "told", "ends", "", ATTEMPTS, KINDS, 20 * (AHEAD_PUBLISHING + 1)),
)


def envelope(event: Sent) -> bytes:
    """An event as a line of an envelope body."""
    head = json.dumps({"id": event.id, "key": event.key}).encode()
    return head[:-1] + b', "value": ' + event.value + b"}\n"


class Producer(threading.Thread):
    """Publishes to `orders`, batch after batch, until told to stop."""

    def __init__(
        self, site: Site, name: str, seed: int, *, pause: float, poison: float, padding: int
    ) -> None:
        super().__init__(name=name, daemon=True)
        self.acknowledged: list[Sent] = []
        self.duplicates = 0
        self.failure: BaseException | None = None
        self._site = site
        self._random = Random(seed)
        self._pause = pause
        self._poison = poison
        self._padding = padding
        self._over = threading.Event()
        self._base = (seed % 1_000) * 10_000_000

    def run(self) -> None:
        try:
            while not self._over.is_set():
                self._publish(self._batch())
                # Faults may take their time: no round should end in a backlog of hours.
                slower = 1 + len(self.acknowledged) // SLOWER_EVERY
                self._over.wait(self._pause * slower**2)
        except BaseException as error:  # noqa: BLE001 - told by `finish`, in the thread that asks
            self.failure = error
        finally:
            self._site.hang_up()

    def finish(self) -> None:
        """Let the batch under way be acknowledged, and end.

        Raises:
            Ended: It was not acknowledged in time.
        """
        self._over.set()
        self.join(timeout=90)
        if self.failure is not None:
            raise self.failure
        if self.is_alive():
            raise Ended(f"{self.name} was not answered: {self._site.said()}")

    def _publish(self, batch: list[Sent]) -> None:
        body = b"".join(map(envelope, batch))
        answer = json.loads(self._site.ask("/-/v1/streams/orders", body=body, media=EVENTS))
        self.duplicates += answer["duplicates"]
        self.acknowledged.extend(batch)

    def _batch(self) -> list[Sent]:
        batch = []
        start = self._base + len(self.acknowledged)
        for number in range(start, start + self._random.randint(1, 40)):
            value: dict[str, object] = {"n": number}
            poison = self._random.random() < self._poison
            if poison:
                value["poison"] = True
            if self._padding:
                value["pad"] = "x" * self._random.randrange(self._padding)
            key = f"{self.name}-{self._random.randrange(12)}"
            batch.append(Sent(f"e{number}", number, key, json.dumps(value).encode(), poison))
        return batch


class Load:
    """A few producers at work on one site."""

    def __init__(
        self, site: Site, seed: int, *, pause: float = 0.03, poison: float = 0.004, padding: int = 0
    ) -> None:
        self.site = site
        self._began = time.monotonic()
        self._producers = [
            Producer(
                site, f"p{number}", seed * 2 + number, pause=pause, poison=poison, padding=padding
            )
            for number in range(2)
        ]
        for producer in self._producers:
            producer.start()

    def finish(self) -> Account:
        """Stop producing; everything that was acknowledged, and what must have become of it."""
        for producer in self._producers:
            producer.finish()
        return account(self.site, (sent for each in self._producers for sent in each.acknowledged))

    @property
    def acknowledged(self) -> int:
        """How many events were acknowledged so far."""
        return sum(len(producer.acknowledged) for producer in self._producers)

    @property
    def repeated(self) -> int:
        """Events that were sent again although the node had them already."""
        return sum(producer.duplicates for producer in self._producers)


def account(site: Site, acknowledged: Iterable[Sent]) -> Account:
    """What the auditor is told of this app's load."""
    return Account({"orders": list(acknowledged)}, LISTENERS, "load", site.trace_path)
