"""Judges what came of queues, tables, schedules, requests, a bus, windows and flow control, from outside.

In: what their users did and were told, moment by moment on one clock, and the records that came of it.
Out: findings. As everywhere in the auditor, nothing of the platform is imported.

I1 nothing lost · I2 once · I3 in order · I5 nothing is left parked · I6 never early, and one holder
at a time · F1 no more runs begin than a throttle allows · F2 no more run at once than is allowed
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from itertools import combinations, pairwise
from typing import Any, NamedTuple

from tests.auditor.outside import PAGE, SHOWN, Finding, Read

SLACK_S = 0.02
LATE_S = 2.0
"""How much later than it was let go a run may begin, on a busy machine."""
TELLING_S = 5.0
"""How long an event of the schedule may be on its way to whoever writes it down."""


class Given(NamedTuple):
    """A message was asked for at `asked`, and came at `came`."""

    number: int
    asked: float
    came: float


class Told(NamedTuple):
    """Something was said of a message; `sure` where the node said that it had heard.

    `what` is `ack`, `nack` or `nothing`; after a `nack` it may come again `delay` seconds later.
    """

    number: int
    what: str
    began: float
    ended: float
    sure: bool
    delay: float = 0.0


class Notes(NamedTuple):
    """What the users of one node did.

    Attributes:
        messages: By number: when sending began, and the delay that was asked for.
        given: Every message as it came, in order.
        told: What was said of messages, in order.
        visibility: Seconds a message is its receiver's.
        rows: How many rows were inserted, numbered from 0.
        made: By key, the numbers that were published, in order.
        period: Seconds between two times of the schedule.
        clock: When (by the true wall clock) the node's was set, and how wrong it was from then on.
        orders: How many requests were answered, numbered from 0.
        differing: Those that were answered otherwise when they were repeated.
        news: By key, the numbers that were told on the bus, in order; the time of each is its number.
        per_window: How many numbers a window holds.
        gap: Seconds between two runs of a key that is throttled.
    """

    messages: Mapping[int, tuple[float, float]]
    given: Sequence[Given]
    told: Sequence[Told]
    visibility: float
    rows: int
    made: Mapping[str, Sequence[int]]
    period: float
    clock: Sequence[tuple[float, float]] = ((0.0, 0.0),)
    orders: int = 0
    differing: Sequence[int] = ()
    news: Mapping[str, Sequence[int]] = {}
    per_window: int = 10
    gap: float = 0.0

    @property
    def shifted(self) -> bool:
        """Whether the node's wall clock was ever wrong."""
        return any(wrong for _, wrong in self.clock)

    def latest(self, told: float) -> float:
        """The latest the node's clock can have shown when it said what was written at `told`."""
        times = [since for since, _ in self.clock if since <= told - TELLING_S]
        since = max(times, default=0.0)
        return told + max(wrong for begin, wrong in self.clock if since <= begin <= told)


def judge_works(notes: Notes, read: Read) -> list[Finding]:
    """Every broken promise."""
    return [
        *check_queue(notes),
        *check_rows(notes, read),
        *check_ticks(notes, read),
        *check_made(notes, read),
        *check_orders(notes, read),
        *check_bus(notes, read),
        *check_windows(notes, read),
        *check_flow(notes, read),
    ]


def check_queue(notes: Notes) -> list[Finding]:
    """Each message is done once, comes never early, and has one holder at a time."""
    findings: list[Finding] = []
    coming: dict[int, list[Given]] = defaultdict(list)
    for given in notes.given:
        coming[given.number].append(given)
    said: dict[int, list[Told]] = defaultdict(list)
    for told in notes.told:
        said[told.number].append(told)
    for number, (sent, delay) in notes.messages.items():
        acks = [told for told in said[number] if told.what == "ack"]
        sure = [told for told in acks if told.sure]
        if not acks:
            findings.append(Finding("I1", f"message {number} was never acknowledged"))
        if len(sure) > 1:
            findings.append(Finding("I2", f"message {number} was acknowledged {len(sure)} times"))
        if sure and any(each.asked > sure[0].ended for each in coming[number]):
            findings.append(Finding("I2", f"message {number} came again after it was done"))
        if not notes.shifted and any(each.came < sent + delay - SLACK_S for each in coming[number]):
            findings.append(Finding("I6", f"message {number} came before its delay was over"))
        findings += _holders(number, coming[number], said[number], notes.visibility)
    strangers = coming.keys() - notes.messages.keys()
    if strangers:
        findings.append(Finding("I2", f"messages nobody sent: {sorted(strangers)[:SHOWN]}"))
    return findings


def _holders(
    number: int, coming: Sequence[Given], said: Sequence[Told], visibility: float
) -> Iterator[Finding]:
    for before, after in pairwise(coming):
        back = [
            told.began + told.delay
            for told in said
            if told.what == "nack" and before.asked <= told.began <= after.came
        ]
        free = min([*back, before.asked + visibility])
        if after.came < free - SLACK_S:
            yield Finding(
                "I6", f"message {number} had two holders, {after.came - before.asked:.3f} s apart"
            )


def check_rows(notes: Notes, read: Read) -> list[Finding]:
    """Every row that was inserted was told once, in order."""
    found = [record["value"]["n"] for record in everything(read, "changes")]
    return _same("rows", list(range(notes.rows)), found)


def check_made(notes: Notes, read: Read) -> list[Finding]:
    """What had been parked was done after all, each once and in order of its key."""
    findings: list[Finding] = []
    lanes: dict[str, list[int]] = defaultdict(list)
    for record in everything(read, "made"):
        lanes[record["key"]].append(record["value"]["n"])
    for key, wanted in notes.made.items():
        findings += _same(f"events of {key}", list(wanted), lanes[key])
    if parked := json.loads(read("/-/v1/parked"))["parked"]:
        findings.append(Finding("I5", f"still parked: {parked[:SHOWN]}"))
    return findings


def check_orders(notes: Notes, read: Read) -> list[Finding]:
    """Every request that was answered is done, once, however often it was sent and with one answer."""
    found = sorted(record["value"]["n"] for record in everything(read, "orders"))
    if notes.shifted:
        # A key is remembered for a day of the node's clock, and that may have been skipped.
        found = sorted(set(found))
    elif notes.differing:
        return [Finding("I2", f"orders had two answers: {list(notes.differing)[:SHOWN]}")]
    return _same("orders", list(range(notes.orders)), found)


def check_ticks(notes: Notes, read: Read) -> list[Finding]:
    """The schedule's times came once, none early, and (where no clock was set) none is missing."""
    findings: list[Finding] = []
    times: list[float] = []
    for record in everything(read, "ticks"):
        due = _moment(record["value"]["time"])
        times.append(due)
        if due > notes.latest(record["value"]["told"]):
            findings.append(Finding("I6", f"{record['value']['time']} was told before it came"))
    if [each for each, count in Counter(times).items() if count > 1]:
        findings.append(Finding("I2", "a time of the schedule came twice"))
    steps = [after - before for before, after in pairwise(times)]
    if any(step <= 0 for step in steps):
        findings.append(Finding("I3", "the schedule's times went back"))
    elif not notes.shifted and any(abs(step - notes.period) > 0.001 for step in steps):
        findings.append(Finding("I1", f"the schedule left times out: {max(steps):.3f} s apart"))
    return findings


def check_bus(notes: Notes, read: Read) -> list[Finding]:
    """What the rule means was handed over, each once and in order of its key."""
    lanes = _by_key(read, "ruled")
    wanted = {key: [n for n in news if n >= 3 and n % 2 == 0] for key, news in notes.news.items()}
    return [
        finding
        for key in wanted.keys() | lanes.keys()
        for finding in _same(
            f"news of {key}", wanted.get(key, []), [each["n"] for each in lanes.get(key, ())]
        )
    ]


def check_windows(notes: Notes, read: Read) -> list[Finding]:
    """Every window of every key was told once, with its numbers in order."""
    wanted: dict[tuple[str, int], list[int]] = defaultdict(list)
    for key, news in notes.news.items():
        for number in news:
            wanted[key, number // notes.per_window].append(number)
    found: dict[tuple[str, int], list[int]] = defaultdict(list)
    for record in everything(read, "sums"):
        window = record["value"]
        found[window["key"], round(_moment(window["start"]))] += window["value"]
    return [
        finding
        for at in wanted.keys() | found.keys()
        for finding in _same(f"window {at}", wanted.get(at, []), found.get(at, []))
    ]


def check_flow(notes: Notes, read: Read) -> list[Finding]:
    """A throttle spaces, a limit keeps runs apart, and what is debounced tells the last; none loses any."""
    findings: list[Finding] = []
    told = {name: _by_key(read, name) for name in ("throttled", "alone", "settled")}
    for key, news in notes.news.items():
        runs = {name: [each for each in told[name][key] if each["n"] >= 0] for name in told}
        findings += _same(f"throttled {key}", list(news), [each["n"] for each in runs["throttled"]])
        findings += _same(
            f"one at a time {key}", list(news), sorted(each["n"] for each in runs["alone"])
        )
        # How much sooner than the throttle has it each run began: none much more than one before.
        late = [each["began"] - at * notes.gap for at, each in enumerate(runs["throttled"])]
        ahead = max((before - after for before, after in combinations(late, 2)), default=0.0)
        if ahead > LATE_S and not notes.shifted:
            findings.append(Finding("F1", f"throttled runs of {key} are {ahead:.2f} s too close"))
        for before, after in pairwise(sorted(runs["alone"], key=lambda each: float(each["began"]))):
            if after["began"] < before["ended"]:
                findings.append(Finding("F2", f"{key}: {before} and {after} ran at once"))
        last = [each["n"] for each in told["settled"][key]]
        if last[-1:] != [-1]:
            findings.append(
                Finding("I1", f"the last news of {key} did not settle: {last[-SHOWN:]}")
            )
        ranks = {number: at for at, number in enumerate([*news, -1])}
        order = [ranks.get(number, -1) for number in last]
        if any(after <= before for before, after in pairwise(order)) or -1 in order:
            findings.append(Finding("I3", f"what settled of {key} came twice or out of order"))
    return findings


def _by_key(read: Read, stream: str) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = defaultdict(list)
    for record in everything(read, stream):
        found[record["key"]].append(record["value"])
    return found


def everything(read: Read, stream: str) -> Iterator[dict[str, Any]]:
    """Every record of a stream, as the door shows it."""
    cursor = ""
    while True:
        path = f"/-/v1/streams/{stream}/records?limit={PAGE}" + (
            f"&cursor={cursor}" if cursor else ""
        )
        page = json.loads(read(path))
        yield from page["records"]
        if not page["records"]:
            return
        cursor = page["cursor"]


def _same(what: str, wanted: list[int], found: list[int]) -> list[Finding]:
    if found == wanted:
        return []
    times = Counter(found)
    if lost := [number for number in wanted if not times[number]]:
        return [Finding("I1", f"{what}: {len(lost)} are lost: {lost[:SHOWN]}")]
    if twice := [number for number, count in times.items() if count > 1]:
        return [Finding("I2", f"{what}: {len(twice)} came twice: {twice[:SHOWN]}")]
    return [Finding("I3", f"{what}: not in order, or not ours: {found[:SHOWN]}...")]


def _moment(text: str) -> float:
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
