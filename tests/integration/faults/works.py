"""A second load: queues, tables, schedules, parked keys, requests, a bus, windows and flow control.

Each has a user in a thread of its own, who insists through every restart and writes down what was
asked and answered, and when. What the node is killed amid, they do not know.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import sqlite3
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from random import Random
from typing import Any

from tests.auditor.works import Given, Notes, Told, judge_works
from tests.integration.faults.load import EVENTS
from tests.integration.faults.processes import wait_until
from tests.integration.faults.results import Result, figures_of, leave
from tests.integration.faults.sites import Site

VISIBILITY_S = 2.0
PERIOD_S = 0.25
KEYS = 6
DONE_S = 20.0
PLACES = 2
"""Partitions of the bus."""
WINDOW_S = 1
NEWS_PER_WINDOW = 10
GAP_S = 0.5
"""How far apart a key's throttled runs are."""
QUIET_S, LONGEST_S = 0.3, 1.0

APP = f'''
"""The app behind the second load."""

import os
import threading
import time
from collections import Counter

from headrace import (
    App,
    Concurrency,
    Context,
    Debounce,
    Event,
    Every,
    Http,
    ParkKey,
    Retry,
    Throttle,
)
from headrace.bus import Rule
from headrace.sources import SqlTable
from headrace.windows import ClosedWindow, TumblingWindow

app = App("works", owner="campaign")
news = app.bus("news", partitions={PLACES})
ruled = app.stream("ruled", partitions=2)
sums = app.stream("sums")
throttled = app.stream("throttled")
alone = app.stream("alone")
settled = app.stream("settled")
jobs = app.queue("jobs", visibility={VISIBILITY_S}, max_receives=1000)
changes = app.stream("changes")
ticks = app.stream("ticks")
parts = app.stream("parts", partitions=2)
made = app.stream("made", partitions=2)
orders = app.stream("orders")
counts = app.store("counts", int, default=0)


@app.function(SqlTable("sqlite:///{{folder}}/shop.db", "items", poll=0.1), output=changes)
def note(event: Event[dict]):
    """Every row of the shop, once."""
    return {{"n": event.value["after"]["n"]}}


@app.function(Every({PERIOD_S}, misfire="all"), output=ticks)
def tick(event: Event[dict]):
    """Every time of the schedule, once."""
    return {{"time": event.value["time"], "told": time.time()}}


@app.function(
    parts, order="key", parallelism=3, on_failure=ParkKey(), output=made, breaker=None,
    retry=Retry(attempts=5, initial_delay=0.01, max_delay=0.02),
)
def make(event: Event[dict], context: Context):
    """Fails on some until they are cured, and on some for a while; some fork, some use threads."""
    if event.value.get("forks"):
        child = os.fork()
        if child == 0:
            if event.value["forks"] == "exits":
                raise SystemExit(3)
            return {{"n": -1}}
        # Whoever forks collects; the judge asks the same of the platform.
        os.waitpid(child, 0)
    if event.value.get("threads"):
        outcome = []
        thread = threading.Thread(
            target=lambda: outcome.append(context.state.get("nobody's", 0)), daemon=True
        )
        thread.start()
        thread.join()
        assert outcome == [0], outcome
    if context.attempt <= event.value.get("fails", 0):
        raise ValueError("not yet")
    if event.value.get("bad") and not os.path.exists("{{folder}}/cured"):
        raise ValueError("bad")
    return {{"n": event.value["n"]}}


def serve(event: Event[dict], context: Context) -> int:
    context.publish(orders, {{"n": event.value["n"]}})
    return context.store(counts).update("served", lambda count: count + 1)


@app.function(Http("POST", "/orders/now"), publishes=[orders])
def now(event: Event[dict], context: Context):
    """Answers when it is done."""
    return serve(event, context)


@app.function(Http("POST", "/orders/live", mode="live"), publishes=[orders])
def live(event: Event[dict], context: Context):
    """Answers on the way."""
    yield "begun"
    time.sleep(0.01)
    yield serve(event, context)


@app.function(Http("POST", "/orders/later", mode="async"), publishes=[orders])
def later(event: Event[dict], context: Context):
    """Answers before it is done."""
    serve(event, context)


@app.function(Rule({{"detail": {{"n": [{{"numeric": [">=", 3]}}], "even": [True]}}}}, bus=news), output=ruled)
def even(event: Event[dict]):
    """What a rule of the bus chooses."""
    return {{"n": event.value["n"]}}


closing = Counter()


def told(window: ClosedWindow) -> ClosedWindow:
    """Some windows cannot be told twice in each process, and some until they are cured."""
    second = int(window.start.timestamp())
    closing[window.key, second] += 1
    if second % 4 == 0 and closing[window.key, second] <= 2:
        raise ValueError("not yet")
    if second % 4 == 1 and not os.path.exists("{{folder}}/cured"):
        raise ValueError("bad")
    return window


@app.window(
    news, TumblingWindow({WINDOW_S}), output=sums, close=told, on_failure=ParkKey(), breaker=None,
    retry=Retry(attempts=5, initial_delay=0.01, max_delay=0.02),
)
def numbers(held: list[int] | None, event: Event[dict]) -> list[int]:
    """The numbers of every key and window, in order."""
    return [*(held or ()), event.value["n"]]


def timed(event):
    began = time.monotonic()
    time.sleep(0.005)
    return {{"n": event.value["n"], "began": began, "ended": time.monotonic()}}


@app.function(news, throttle=Throttle(1, per={GAP_S}, per_key=True), batch_size=1, output=throttled)
def slow(event: Event[dict]):
    return timed(event)


@app.function(
    news, order="none", parallelism=4, concurrency=Concurrency(4, key_limit=1), batch_size=1,
    output=alone,
)
def one(event: Event[dict]):
    return timed(event)


@app.function(news, debounce=Debounce({QUIET_S}, longest={LONGEST_S}), output=settled)
def last(event: Event[dict]):
    return timed(event)
'''


class Works:
    """The users of one node, at work until told to stop."""

    def __init__(self, site: Site, seed: int, *, forgets: float = 0.03) -> None:
        self.site = site
        self._forgets = forgets
        self.messages: dict[int, tuple[float, float]] = {}
        self.given: list[Given] = []
        self.told: list[Told] = []
        self.rows = 0
        self.made: defaultdict[str, list[int]] = defaultdict(list)
        self.clock: list[tuple[float, float]] = [(0.0, 0.0)]
        self.redrives = 0
        self.orders = 0
        self.news: defaultdict[str, list[int]] = defaultdict(list)
        self.differing: list[int] = []
        self._random = Random(seed)
        self._failure: BaseException | None = None
        self._over = threading.Event()
        self._idle = threading.Event()
        self._done: set[int] = set()
        self._users = [
            threading.Thread(target=self._user, args=(work, pause, over), daemon=True)
            for work, pause, over in (
                (self._send, 0.03, self._over),
                (self._insert, 0.02, self._over),
                (self._publish, 0.04, self._over),
                (self._redrive, 0.2, self._over),
                (self._order, 0.02, self._over),
                (self._tell, 0.15, self._over),
                (self._work, 0.0, self._idle),
                (self._work, 0.0, self._idle),
            )
        ]

    def start(self) -> None:
        """Make the shop, start the node, set everybody to work."""
        site = self.site
        with contextlib.closing(sqlite3.connect(site.folder / "shop.db")) as shop:
            shop.execute("CREATE TABLE items (n INTEGER PRIMARY KEY)")
        site.write(APP.replace("{folder}", str(site.folder)))
        site.start()
        for user in self._users:
            user.start()

    def finish(self, fault: str, times: int, **figures: Any) -> Result:
        """Stop giving, cure what is parked, let everything be finished, and judge it."""
        self._over.set()
        (self.site.folder / "cured").touch()
        try:
            self._wait(
                lambda: self._done >= self.messages.keys(),
                lambda: (
                    f"messages {sorted(self.messages.keys() - self._done)[:5]} are done, the "
                    f"queue has {self.site.get('/-/v1/queues/jobs')}"
                ),
            )
            self._wait(self._empty, lambda: "nothing is parked or left over")
            self._close_windows()
            # What was said while the node died may not have been heard: then it comes again.
            self.site.wait_drained()
        finally:
            self._idle.set()
            for user in self._users:
                user.join(timeout=60)
        if self._failure is not None:
            raise self._failure
        site = self.site
        notes = Notes(
            self.messages,
            self.given,
            self.told,
            VISIBILITY_S,
            self.rows,
            self.made,
            PERIOD_S,
            self.clock,
            self.orders,
            self.differing,
            self.news,
            NEWS_PER_WINDOW,
            GAP_S,
        )
        findings = [*judge_works(notes, site.ask), *leave(site)]
        return Result(
            fault=fault,
            times=times,
            findings=[str(finding) for finding in findings],
            events=len(self.messages)
            + self.rows
            + sum(map(len, self.made.values()))
            + self.orders
            + sum(map(len, self.news.values())),
            figures=figures | figures_of(site),
        )

    def _wait(self, holds: Callable[[], bool], what: Callable[[], str]) -> None:
        wait_until(
            lambda: self._failure is not None or holds(),
            seconds=DONE_S,
            every=0.05,
            what=lambda: f"{what()} {self.site.said()}",
        )

    def _empty(self) -> bool:
        self._redrive_all()
        parked = self.site.get("/-/v1/parked")["parked"]
        told = self.site.get("/-/v1/streams/changes")
        return not parked and sum(each["high"] for each in told["extents"]) >= self.rows

    # Users -----------------------------------------------------------------------------------

    def _user(self, work: Callable[[Random], None], pause: float, over: threading.Event) -> None:
        random = Random(self._random.random())
        try:
            while not over.is_set():
                work(random)
                over.wait(pause)
        except BaseException as error:  # noqa: BLE001 - told by `finish`, in the thread that asks
            self._failure = self._failure or error
        finally:
            self.site.hang_up()

    def _send(self, random: Random) -> None:
        number = len(self.messages)
        delay = random.choice((0.0, 0.0, 0.4, 0.9))
        began = time.monotonic()
        body = b'{"id": "m%d", "value": {"n": %d}}\n' % (number, number)
        # Noted before it is sent: a worker may have it before the sender is answered.
        self.messages[number] = began, delay
        self.site.ask(f"/-/v1/queues/jobs?delay={delay}", body=body, media=EVENTS)

    def _insert(self, _: Random) -> None:
        with contextlib.closing(sqlite3.connect(self.site.folder / "shop.db", timeout=30)) as shop:
            shop.execute("INSERT INTO items VALUES (?)", (self.rows,))
            shop.commit()
        self.rows += 1

    def _publish(self, random: Random) -> None:
        key = f"k{random.randrange(KEYS)}"
        number = sum(map(len, self.made.values()))
        kind = random.random()
        value: dict[str, Any] = {"n": number}
        if kind < 0.05:
            value["bad"] = True
        elif kind < 0.15:
            value["fails"] = random.choice((1, 2, 3, 4))
        elif kind < 0.2:
            value["forks"] = random.choice(("returns", "exits"))
        elif kind < 0.25:
            value["threads"] = True
        line = json.dumps({"id": f"p{number}", "key": key, "value": value}).encode() + b"\n"
        self.site.ask("/-/v1/streams/parts", body=line, media=EVENTS)
        self.made[key].append(number)

    def _tell(self, random: Random) -> None:
        """The news, whose times are their numbers: so it is known which window each is in."""
        key = f"k{random.randrange(KEYS)}"
        number = sum(map(len, self.news.values()))
        self._bring(f"n{number}", key, number, number / NEWS_PER_WINDOW)
        self.news[key].append(number)

    def _close_windows(self) -> None:
        """In every partition something comes that is much later."""
        for place in range(KEYS):
            self._bring(f"end{place}", f"k{place}", -1, 1e9)

    def _bring(self, name: str, key: str, number: int, at: float) -> None:
        value = {"n": number, "even": number % 2 == 0}
        line = json.dumps({"id": name, "key": key, "time": at, "value": value}).encode() + b"\n"
        self.site.ask("/-/v1/streams/news", body=line, media=EVENTS)

    def _order(self, random: Random) -> None:
        """Ask under a key until there is a whole answer; now and then once more, in vain."""
        place = random.choice(("now", "live", "later"))
        first = self._answered(place, self.orders)
        if random.random() < 0.2:
            again = self._answered(place, self.orders)
            if place != "later" and again != first:
                self.differing.append(self.orders)
        self.orders += 1

    def _answered(self, place: str, number: int) -> bytes:
        body = b'{"n": %d}' % number
        return self.site.ask(f"/orders/{place}", body=body, key=f"o{number}", seconds=DONE_S)

    def _redrive(self, _: Random) -> None:
        """Parked keys are given another try that they may not pass."""
        self.redrives += self._redrive_all()

    def _redrive_all(self) -> int:
        answers = [
            self.site.ask(
                f"/-/v1/parked/works.{name}/redrive", body=b'{"all": true}', operates=True
            )
            for name in ("make", "numbers")
        ]
        return sum(json.loads(answer)["redriven"] for answer in answers)

    def _work(self, random: Random) -> None:
        asked = time.monotonic()
        with contextlib.suppress(OSError, http.client.HTTPException):
            status, answer = self.site.once(
                "POST", "/-/v1/queues/jobs/receive", b'{"max": 5, "wait": 0.3}'
            )
            if status != 200:
                time.sleep(0.05)
                return
            came = time.monotonic()
            messages = json.loads(answer)["messages"]
            self.given += [Given(each["value"]["n"], asked, came) for each in messages]
            for message in messages:
                self._say(message["value"]["n"], message["receipt"], random.random())
            return
        time.sleep(0.05)

    def _say(self, number: int, receipt: str, chance: float) -> None:
        if chance < self._forgets:
            return  # forgotten: it comes again when its time is over
        what: str = "ack"
        body: dict[str, Any] = {"receipts": [receipt]}
        if chance < self._forgets + 0.03:
            what, body["delay"] = "nack", 0.3
        began = time.monotonic()
        sure = tried = False
        while not tried:
            try:
                status, answer = self.site.once(
                    "POST", f"/-/v1/queues/jobs/{what}", json.dumps(body).encode()
                )
            except (OSError, http.client.HTTPException):
                # Nobody knows whether it was heard: said once, and not believed.
                break
            if status in {429, 503, 507}:
                time.sleep(0.05)
                continue
            tried, sure = True, status == 200 and json.loads(answer)["settled"] == 1
        ended = time.monotonic()
        self.told.append(Told(number, what, began, ended, sure, 0.3 if what == "nack" else 0.0))
        if what == "ack" and (sure or not tried):
            self._done.add(number)
