"""Judges a running node from outside: what was acknowledged against what its door shows.

In: an account of what producers were told, and a way to read the node's HTTP door. Out: findings,
each naming its invariant. It imports nothing of the platform and knows only what any client can see:
records, state, dead letters, lag; and a trace file that handlers wrote beside all transactions.

I1 nothing lost · I2 effects once · I3 order per key · I4 positions at the end of what is finished ·
I5 dead letters are the poison, byte for byte · I8 the file is whole
"""

from __future__ import annotations

import base64
import json
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import msgspec

PAGE = 1_000
SHOWN = 5
Read = Callable[[str], bytes]


class Finding(NamedTuple):
    """A broken promise."""

    invariant: str
    what: str

    def __str__(self) -> str:
        return f"{self.invariant}: {self.what}"


class Sent(NamedTuple):
    """An event whose publish was acknowledged."""

    id: str
    number: int
    key: str
    value: bytes
    poison: bool = False


class Listener(NamedTuple):
    """A function and what it does with each event: one output, one entry in its key's state.

    `output` and `state` may be "": it then keeps none. `kinds` are the causes its poison may be given
    up for: the class it raises, and where instances are killed also that. `repeats` is how many events
    of a key may at most be begun again together: what runs before its commit has landed.
    """

    function: str
    stream: str
    output: str
    state: str
    attempts: int
    kinds: tuple[str, ...]
    repeats: int


class Account(NamedTuple):
    """What was acknowledged, stream by stream, who listens, and where handlers left their trace."""

    acknowledged: Mapping[str, Sequence[Sent]]
    listeners: Sequence[Listener]
    app: str
    trace: Path | None = None


class Record(msgspec.Struct, kw_only=True):
    """An event as the door shows it, its payload left as it is."""

    position: str = ""
    partition: int = 0
    offset: int = 0
    id: str = ""
    key: str = ""
    value: msgspec.Raw = msgspec.Raw()
    value_text: str | None = None
    value_base64: str | None = None

    def raw(self) -> bytes:
        """The payload, byte for byte."""
        if self.value_text is not None:
            return self.value_text.encode()
        if self.value_base64 is not None:
            return base64.b64decode(self.value_base64)
        return bytes(self.value)


class Cause(msgspec.Struct):
    """Why an event was given up."""

    kind: str
    message: str = ""


class DeadLetter(msgspec.Struct):
    """An event that was given up, as the door shows it."""

    function: str
    position: str
    cause: Cause
    attempts: int
    event: Record


class _Output(msgspec.Struct):
    n: int
    at: str


class _Records(msgspec.Struct):
    records: list[Record]
    cursor: str


class _Dead(msgspec.Struct):
    dead: list[DeadLetter]
    after: str


_records = msgspec.json.Decoder(_Records)
_dead = msgspec.json.Decoder(_Dead)
_output = msgspec.json.Decoder(_Output)


def records(read: Read, stream: str) -> Iterator[Record]:
    """Everything a stream holds, in each partition's order."""
    path = f"/-/v1/streams/{quote(stream)}/records?limit={PAGE}"
    page = _records.decode(read(path))
    while page.records:
        yield from page.records
        page = _records.decode(read(f"{path}&cursor={quote(page.cursor)}"))


def dead_letters(read: Read, function: str) -> Iterator[DeadLetter]:
    """Everything a function has given up."""
    path = f"/-/v1/dead?function={quote(function)}&limit={PAGE}"
    page = _dead.decode(read(path))
    while True:
        yield from page.dead
        if not page.after:
            return
        page = _dead.decode(read(f"{path}&after={quote(page.after)}"))


def state(read: Read, app: str, store: str, prefix: str) -> dict[str, object]:
    """What a store of an app holds below a prefix; a function's own store has its name."""
    path = f"/-/v1/state/{quote(app)}/{quote(store)}?limit={PAGE}&prefix={quote(prefix)}"
    found: dict[str, object] = {}
    after = ""
    while True:
        page = json.loads(read(f"{path}&after={quote(after)}" if after else path))
        found |= {entry["key"]: entry["value"] for entry in page["state"]}
        after = page["after"]
        if not after:
            return found


def judge(account: Account, read: Read) -> list[Finding]:
    """Compare an account with a node that has come to rest."""
    findings: list[Finding] = []
    streams = dict.fromkeys(
        [*account.acknowledged, *(listener.stream for listener in account.listeners)]
    )
    logs = {stream: list(records(read, stream)) for stream in streams}
    for stream, sent in account.acknowledged.items():
        findings += check_log(stream, sent, logs[stream])
    for listener in account.listeners:
        # What another function published is judged as that one's output.
        sent = account.acknowledged.get(listener.stream, ())
        poison = {each.id for each in sent if each.poison}
        log = logs[listener.stream]
        findings += check_dead(listener, log, poison, list(dead_letters(read, listener.function)))
        good = [record for record in log if record.id not in poison]
        if listener.output:
            findings += check_output(listener, good, list(records(read, listener.output)))
        if listener.state:
            found = state(read, account.app, listener.function, f"{listener.state}|")
            findings += check_state(listener, good, found)
    findings += check_lag(read)
    if account.trace is not None:
        findings += check_trace(account, logs)
    return findings


def check_log(stream: str, sent: Sequence[Sent], log: Sequence[Record]) -> list[Finding]:
    """Every acknowledged event stands in the log once, as it was sent, and nothing else does."""
    findings: list[Finding] = []
    there = Counter(record.id for record in log)
    by_id = {record.id: record for record in log}
    lost = [each.id for each in sent if each.id not in there]
    if lost:
        findings.append(
            Finding("I1", f"{len(lost)} acknowledged events are not in {stream}: {lost[:SHOWN]}")
        )
    twice = [name for name, times in there.items() if times > 1]
    if twice:
        findings.append(
            Finding("I2", f"{len(twice)} events stand twice in {stream}: {twice[:SHOWN]}")
        )
    for each in sent:
        held = by_id.get(each.id)
        if held is not None and (held.raw(), held.key) != (each.value, each.key):
            findings.append(Finding("I1", f"{each.id} in {stream} is not what was sent"))
    strangers = there.keys() - {each.id for each in sent}
    if strangers:
        findings.append(
            Finding(
                "I2",
                f"{len(strangers)} events in {stream} nobody sent: {sorted(strangers)[:SHOWN]}",
            )
        )
    offsets: dict[int, list[int]] = defaultdict(list)
    for record in log:
        offsets[record.partition].append(record.offset)
    for partition, found in offsets.items():
        if found != list(range(found[0], found[0] + len(found))):
            findings.append(Finding("I1", f"the offsets of {stream}/{partition} have gaps"))
    return findings


def check_dead(
    listener: Listener, log: Sequence[Record], poison: set[str], dead: Sequence[DeadLetter]
) -> list[Finding]:
    """The dead letters are the poison that was planted: bytes, origin, cause and attempts."""
    findings: list[Finding] = []
    by_position = {record.position: record for record in log}
    given = Counter(letter.event.id for letter in dead)
    if given != Counter(poison):
        missing, extra = sorted(poison - given.keys()), sorted(given.keys() - poison)
        why = {letter.event.id: letter.cause for letter in dead}
        findings.append(
            Finding(
                "I5",
                f"{listener.function}: {len(missing)} poisonous events are not dead letters "
                f"{missing[:SHOWN]}, {len(extra)} others are "
                f"{[(name, why[name]) for name in extra[:SHOWN]]}",
            )
        )
    for letter in dead:
        at = f"{listener.function} at {letter.position}"
        held = by_position.get(letter.position)
        if held is None:
            findings.append(Finding("I5", f"{at}: a dead letter from nowhere"))
            continue
        event = letter.event
        if (event.raw(), event.key, event.id) != (held.raw(), held.key, held.id):
            findings.append(Finding("I5", f"{at}: the dead letter is not the event"))
        if letter.event.id in poison and letter.cause.kind not in listener.kinds:
            findings.append(
                Finding("I5", f"{at}: {letter.cause.kind}, not one of {listener.kinds}")
            )
        if letter.attempts != listener.attempts:
            findings.append(
                Finding("I5", f"{at}: {letter.attempts} of {listener.attempts} attempts")
            )
    return findings


def check_output(
    listener: Listener, good: Sequence[Record], output: Sequence[Record]
) -> list[Finding]:
    """Each good event has one output, and a key's outputs stand in the order of its events."""
    findings: list[Finding] = []
    places = [_output.decode(record.raw()).at for record in output]
    times = Counter(places)
    never = [record.position for record in good if not times[record.position]]
    if never:
        findings.append(
            Finding("I1", f"{listener.function} did nothing for {len(never)}: {never[:SHOWN]}")
        )
    twice = [at for at, count in times.items() if count > 1]
    if twice:
        findings.append(
            Finding("I2", f"{listener.function} has {len(twice)} outputs twice: {twice[:SHOWN]}")
        )
    wrong = times.keys() - {record.position for record in good}
    if wrong:
        findings.append(
            Finding(
                "I2",
                f"{listener.function} has outputs of what it failed on: {sorted(wrong)[:SHOWN]}",
            )
        )
    lanes: dict[str, list[str]] = defaultdict(list)
    for record, at in zip(output, places, strict=True):
        lanes[record.key].append(at)
    for key, wanted in _lanes(good).items():
        had = [at for at in dict.fromkeys(lanes[key]) if at not in wrong]
        if had != [record.position for record in wanted if times[record.position]]:
            findings.append(
                Finding("I3", f"the outputs of {listener.function} for {key} are out of order")
            )
    return findings


def check_state(
    listener: Listener, good: Sequence[Record], found: Mapping[str, object]
) -> list[Finding]:
    """Each key's state (count, sum, and a sum that knows the order) has seen its events once."""
    findings: list[Finding] = []
    lanes = _lanes(good)
    for key, wanted in lanes.items():
        count, total, order = 0, 0, 0
        for number in map(_number, wanted):
            count, total, order = count + 1, total + number, (order * 31 + number) % 2**61
        kept = found.get(f"{listener.state}|{key}")
        if kept == [count, total, order]:
            continue
        same = isinstance(kept, list) and kept[:2] == [count, total]
        findings.append(
            Finding(
                "I3" if same else "I2",
                f"{listener.function}'s state of {key} is {kept}, not {[count, total, order]}",
            )
        )
    strange = found.keys() - {f"{listener.state}|{key}" for key in lanes}
    if strange:
        findings.append(Finding("I2", f"state nobody wrote: {sorted(strange)[:SHOWN]}"))
    return findings


def check_lag(read: Read) -> list[Finding]:
    """Every position stands at the end of its partition."""
    return [
        Finding("I4", f"{row['function']} {row['stream']}/{row['partition']}: {row}")
        for row in json.loads(read("/-/v1/lag"))["lag"]
        if row["lag"] or row["position"] != row["high"]
    ]


def check_trace(account: Account, logs: Mapping[str, Sequence[Record]]) -> list[Finding]:
    """Every time that a key's events were begun was in the order they were appended."""
    assert account.trace is not None
    begun: dict[str, list[int]] = defaultdict(list)
    for line in account.trace.read_text().splitlines():
        function, *numbers = line.split()
        begun[function] += map(int, numbers)
    return [
        finding
        for listener in account.listeners
        for finding in _check_begun(listener, begun[listener.function], logs[listener.stream])
    ]


def _check_begun(
    listener: Listener, begun: Sequence[int], log: Sequence[Record]
) -> Iterator[Finding]:
    """A key may go back to what had not landed, whatever the reason, but from there it skips nothing."""
    name = listener.function
    lanes = _lanes(log)
    place = {
        _number(record): (key, at) for key, lane in lanes.items() for at, record in enumerate(lane)
    }
    if never := sorted(place.keys() - set(begun)):
        yield Finding("I1", f"{name} never began {never[:SHOWN]}")
    last: dict[str, int] = {}
    furthest: dict[str, int] = {}
    for number in begun:
        if number not in place:
            yield Finding("I2", f"{name} began {number}, which is not in {listener.stream}")
            continue
        key, at = place[number]
        if at > last.get(key, -1) + 1:
            yield Finding("I3", f"{name} began {key} out of order: {number} was not next")
        if at <= furthest.get(key, -1) - listener.repeats:
            yield Finding("I3", f"{name} began {number} of {key} again after much that follows it")
        last[key] = at
        furthest[key] = max(at, furthest.get(key, -1))


def check_file(path: Path) -> list[Finding]:
    """The data file of a node that has ended passes its own check."""
    connection = sqlite3.connect(path)
    try:
        said = [row[0] for row in connection.execute("PRAGMA integrity_check")]
    except sqlite3.DatabaseError as error:
        said = [str(error)]
    finally:
        connection.close()
    return [] if said == ["ok"] else [Finding("I8", f"{path.name}: {said[:SHOWN]}")]


def _lanes(log: Sequence[Record]) -> dict[str, list[Record]]:
    lanes: dict[str, list[Record]] = defaultdict(list)
    for record in log:
        lanes[record.key].append(record)
    return lanes


def _number(record: Record) -> int:
    return int(json.loads(record.raw())["n"])
