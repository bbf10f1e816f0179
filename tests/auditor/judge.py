"""Judges one history of the platform: what was promised against what is there.

In: an account, as plain values: what was published, what the handlers saw, every change the store
took, and what log and store hold at the end. Out: findings, each naming its invariant. It walks the
history once and keeps its own books; of the platform it knows only the formats.

I1 nothing lost · I2 effects once · I3 order per key · I4 positions cover only what is finished ·
I5 dead letters are the poison, byte for byte · I6 a stale owner commits nothing
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any, NamedTuple

import msgspec
from tests.auditor import rows
from tests.auditor.rows import Given, Where

Place = tuple[str, int, int]


class Finding(NamedTuple):
    """A broken promise."""

    invariant: str
    what: str

    def __str__(self) -> str:
        return f"{self.invariant}: {self.what}"


class Function(msgspec.Struct):
    """What was asked for one function.

    Attributes:
        on_failure: `dead-letter`, `park-key`, `park-partition` or `discard`.
        poison: The numbers of the events that it may fail on by itself.
        permanent: Those among them of which one failure is enough.
        gives_up: Kinds of causes that are never tried again.
        resets: How often it was sent back to the beginning.
        mode: `unordered` promises no order.
        discards: Whether an operator discarded what was parked.
        calm: Whether nothing else went wrong, so that only poison may be given up.
        healed: Whether the poison was cured and redriven, so that nothing may be left over.
    """

    streams: list[str]
    output: str
    commit: str
    on_failure: str
    attempts: int
    poison: list[int]
    gives_up: list[str] = []
    permanent: list[int] = []
    resets: int = 0
    calm: bool = False
    mode: str = "ordered"
    discards: bool = False
    healed: bool = False


class Account(msgspec.Struct):
    """One history.

    Attributes:
        functions: By name.
        acknowledged: (stream, event number) of every publish that was answered.
        log: By stream: (partition, first offset, blob) of every chunk at the end.
        history: In order: ["begin", host, run, function, places], ["end", host, run, fates] and
            ["commit", host, puts, deletes], with puts (space, key, value) and deletes (space, key).
        rows: By space: (key, value) at the end.
    """

    functions: dict[str, Function]
    acknowledged: list[tuple[str, int]]
    log: dict[str, list[tuple[int, int, bytes]]]
    history: list[Any]
    rows: dict[str, list[tuple[bytes, bytes]]]


class Held(NamedTuple):
    """An event in the log."""

    key: str | None
    number: int
    source: str
    body: bytes


def judge(account: dict[str, Any]) -> list[Finding]:
    """Every broken promise in the account."""
    books = _Books(msgspec.convert(account, Account))
    books.walk()
    books.look_at_the_end()
    return books.findings


class _Books:
    def __init__(self, account: Account) -> None:
        self.account = account
        self.findings: list[Finding] = []
        self.log: dict[str, dict[tuple[int, int], Held]] = {
            stream: {
                (partition, first + step): _held(value, key)
                for partition, first, body in chunks
                for step, (value, key) in enumerate(rows.events(body))
            }
            for stream, chunks in account.log.items()
        }
        self.lanes: dict[tuple[str, int, str], list[int]] = defaultdict(list)
        for stream, held in self.log.items():
            for (partition, offset), event in sorted(held.items()):
                if event.key is not None:
                    self.lanes[stream, partition, event.key].append(offset)
        self.epoch: dict[Where, int] = {}
        self.owner: dict[Where, int] = {}
        self.low: dict[Where, int] = {}
        self.sparse: dict[Where, frozenset[int]] = {}
        self.dead: dict[tuple[Where, int], Given] = {}
        self.parked: dict[tuple[Where, int], Given] = {}
        self.ever_given: set[tuple[Where, int]] = set()
        self.running: dict[int, tuple[str, list[Place]]] = {}
        self.done: set[tuple[int, str, Place]] = set()
        self.failed: Counter[tuple[str, Place]] = Counter()

    def find(self, invariant: str, what: str) -> None:
        self.findings.append(Finding(invariant, what))

    # --- the history ------------------------------------------------------------------------

    def walk(self) -> None:
        for entry in self.account.history:
            match entry:
                case ["begin", host, run, function, places]:
                    self.begin(host, run, function, [tuple(place) for place in places])
                case ["end", host, run, fates]:
                    self.end(host, run, fates)
                case ["commit", host, puts, deletes]:
                    self.commit(host, puts, deletes)
                case _:
                    raise ValueError(f"the history has an entry that is none: {entry!r}")

    def begin(self, host: int, run: int, function: str, places: list[Place]) -> None:
        self.running[run] = function, places
        together = set(places)
        if self.account.functions[function].mode == "unordered":
            return
        for place in places:
            stream, partition, offset = place
            where = Where(function, stream, partition)
            held = self.log[stream].get((partition, offset))
            if held is None or held.key is None or self.owner.get(where) != host:
                continue
            lane = self.lanes[stream, partition, held.key]
            waiting = [each for each in lane if (where, each) in self.parked]
            if (where, offset) in self.parked:
                if waiting[0] != offset and not self.account.functions[function].resets:
                    self.find("I3", f"{function} redrove {place} before {waiting[0]} of its key")
                continue
            if waiting and not self.account.functions[function].resets:
                self.find("I3", f"{function} began {place} while {waiting[0]} of its key is parked")
            for before in lane:
                if before >= offset:
                    break
                earlier = (stream, partition, before)
                if not (
                    before < self.low.get(where, 0)
                    or before in self.sparse.get(where, ())
                    or earlier in together
                    or (host, function, earlier) in self.done
                    or self.is_spent(function, earlier)
                ):
                    self.find("I3", f"{function} began {place} while {before} is unfinished")
                    break

    def end(self, host: int, run: int, fates: list[str]) -> None:
        function, places = self.running.pop(run)
        for place, fate in zip(places, fates, strict=True):
            if fate == "done":
                self.done.add((host, function, place))
            elif fate == "failed":
                self.failed[function, place] += 1

    def is_spent(self, function: str, place: Place) -> bool:
        """Whether every attempt has been made: it is given up, though that may not have landed."""
        asked = self.account.functions[function]
        failures = self.failed[function, place]
        number = self.log[place[0]][place[1], place[2]].number
        return failures >= asked.attempts or (failures > 0 and number in asked.permanent)

    def is_discarded(self, function: str, place: Place) -> bool:
        asked = self.account.functions[function]
        may_be = asked.on_failure == "discard" or (
            asked.discards and asked.on_failure == "park-partition"
        )
        return may_be and self.failed[function, place] > 0

    def commit(
        self, host: int, puts: list[tuple[str, bytes, bytes]], deletes: list[tuple[str, bytes]]
    ) -> None:
        for space, _, value in puts:
            if space == "dead":
                self.give(self.dead, rows.given(value))
            elif space == "parked":
                self.give(self.parked, rows.given(value))
        for space, key in deletes:
            if space == "dead":
                self.dead.pop(rows.dead_place(key), None)
            elif space == "parked":
                self.parked.pop(rows.parked_place(key), None)
        for space, key, value in puts:
            if space == "positions":
                self.move(host, rows.place(key), *rows.position(value))

    def give(self, among: dict[tuple[Where, int], Given], row: Given) -> None:
        among[row.where, row.offset] = row
        self.ever_given.add((row.where, row.offset))

    def move(
        self, host: int, where: Where, epoch: int, watermark: int, sparse: tuple[int, ...]
    ) -> None:
        asked = self.account.functions[where.function]
        known = self.epoch.get(where, 0)
        if epoch < known:
            self.find("I6", f"{where} was moved under epoch {epoch} after {known}")
        if epoch > known:
            self.epoch[where], self.owner[where] = epoch, host
        low, covered = self.low.get(where, 0), self.sparse.get(where, frozenset())
        if watermark < low or not covered <= set(sparse) | set(range(low, watermark)):
            if not asked.resets:
                self.find("I4", f"{where} went back from {low} to {watermark}")
            self.done = {
                each
                for each in self.done
                if (each[1], *each[2][:2]) != (where.function, where.stream, where.partition)
            }
        elif asked.commit == "after":
            new = [*range(low, watermark), *(each for each in sparse if each not in covered)]
            for offset in new:
                place = (where.stream, where.partition, offset)
                if not (
                    offset in covered
                    or (host, where.function, place) in self.done
                    or (where, offset) in self.ever_given
                    or self.is_discarded(where.function, place)
                ):
                    self.find("I4", f"{where} moved past {offset}, which is not finished")
        self.low[where], self.sparse[where] = watermark, frozenset(sparse)

    # --- the end ----------------------------------------------------------------------------

    def look_at_the_end(self) -> None:
        self.check_log()
        kept = {
            space: {rows.parked_place(key) for key, _ in self.account.rows.get(space, ())}
            for space in ("dead", "parked")
        }
        for name, books in (("dead", self.dead), ("parked", self.parked)):
            if kept[name] != set(books):
                self.find("I5", f"the {name} rows at the end are not those that were committed")
        seen = self.seen_in_state()
        for name, asked in self.account.functions.items():
            outputs = Counter(
                held.source
                for held in self.log.get(asked.output, {}).values()
                if held.source.startswith(f"{name}@")
            )
            for stream in asked.streams:
                for (partition, offset), held in self.log[stream].items():
                    self.check_event(
                        name, asked, (stream, partition, offset), held, outputs, seen[name]
                    )
            self.check_state_order(name, seen[name])

    def check_log(self) -> None:
        """Every acknowledged event is in the log, and none is there twice."""
        for stream in {stream for stream, _ in self.account.acknowledged}:
            there = Counter(held.number for held in self.log[stream].values() if not held.source)
            for number in (n for name, n in self.account.acknowledged if name == stream):
                if not there[number]:
                    self.find("I1", f"event {number} was acknowledged but is not in {stream}")
            for number, times in there.items():
                if times > 1:
                    self.find("I2", f"event {number} stands {times} times in {stream}")
        for stream, held in self.log.items():
            by_partition: dict[int, list[int]] = defaultdict(list)
            for partition, offset in sorted(held):
                by_partition[partition].append(offset)
            for partition, offsets in by_partition.items():
                if offsets != list(range(offsets[0], offsets[0] + len(offsets))):
                    self.find("I1", f"the offsets of {stream}/{partition} have gaps")

    def seen_in_state(self) -> dict[str, dict[str, list[str]]]:
        found: dict[str, dict[str, list[str]]] = defaultdict(dict)
        for key, value in self.account.rows.get("state", ()):
            _, name, kept = rows.state(key, value)
            function, _, lane = name.partition("|")
            found[function][lane] = list(kept)  # type: ignore[call-overload]  # a list of texts
        return found

    def check_event(
        self,
        name: str,
        asked: Function,
        place: Place,
        held: Held,
        outputs: Counter[str],
        seen: dict[str, list[str]],
    ) -> None:
        stream, partition, offset = place
        where = Where(name, stream, partition)
        at = f"{stream}/{partition}/{offset}"
        out = outputs[f"{name}@{at}"]
        kept = seen.get(str(held.key), []).count(at)
        dead, parked = self.dead.get((where, offset)), self.parked.get((where, offset))
        if out != kept:
            self.find("I2", f"{name} at {at}: {out} outputs, but {kept} times in the state")
        if out > 1 + asked.resets:
            self.find("I2", f"{name} at {at} has {out} outputs")
        if asked.commit == "before":
            return
        if (dead or parked) and out and not asked.resets:
            self.find("I2", f"{name} at {at} is given up and done")
        if dead and parked and not asked.resets:
            self.find("I2", f"{name} at {at} is dead and parked")
        for row in (dead, parked):
            if row is not None:
                self.check_given(name, asked, place, held, row)
        finished = offset < self.low.get(where, 0) or offset in self.sparse.get(where, ())
        if out or dead or parked:
            if not finished and not (asked.resets and self.is_stopped(where, offset)):
                self.find("I4", f"{name} at {at} is settled, but its position does not say so")
        elif asked.discards and (where, offset) in self.ever_given:
            return
        elif finished and not self.is_discarded(name, place):
            self.find("I1", f"{name} has lost {at}: finished without any effect")
        elif not finished and not self.is_stopped(where, offset):
            self.find("I1", f"{name} never came to {at}")

    def is_stopped(self, where: Where, offset: int) -> bool:
        """Whether its partition stands still at an event that was given up before it."""
        if self.account.functions[where.function].on_failure != "park-partition":
            return False
        # Merged streams stop together, so a failure in any of them holds up all.
        return any(
            function == where.function and partition == where.partition
            for function, (_, partition, _) in self.failed
        )

    def check_given(self, name: str, asked: Function, place: Place, held: Held, row: Given) -> None:
        at = "/".join(map(str, place))
        if rows.events(row.event)[0] != (held.body, held.key):
            self.find("I5", f"the bytes of {name} at {at} have changed")
        failures = self.failed[name, place]
        if row.attempts == 0:
            return
        if asked.calm and held.number not in asked.poison:
            self.find("I5", f"{name} gave {at} up, though nothing is wrong with it")
        if failures < row.attempts:
            self.find(
                "I5", f"{name} at {at}: {row.attempts} attempts, but it failed {failures} times"
            )
        if row.attempts < asked.attempts and row.kind not in asked.gives_up:
            self.find(
                "I5", f"{name} gave {at} up after {row.attempts} of {asked.attempts} attempts"
            )
        if row.attempts > asked.attempts:
            self.find("I5", f"{name} at {at}: {row.attempts} of {asked.attempts} attempts")

    def check_state_order(self, name: str, seen: dict[str, list[str]]) -> None:
        """What a key's state has seen stands in the log's order, but for what came back later."""
        asked = self.account.functions[name]
        if asked.resets or asked.mode == "unordered":
            return
        for key, places in seen.items():
            if key == "None" and asked.mode != "ordered":
                continue
            last: dict[str, int] = {}
            for at in places:
                lane, _, offset = at.rpartition("/")
                stream, _, partition = lane.rpartition("/")
                if (Where(name, stream, int(partition)), int(offset)) in self.ever_given:
                    continue
                if int(offset) <= last.get(lane, -1):
                    self.find("I3", f"the state of {name} for {key} has {at} after {last[lane]}")
                last[lane] = int(offset)


def _held(value: bytes, key: str | None) -> Held:
    try:
        opened = msgspec.json.decode(value)
    except msgspec.DecodeError:
        # A payload that is not JSON: its number stands in the text.
        digits = "".join(map(chr, (byte for byte in value if 48 <= byte <= 57)))
        return Held(key, int(digits or -1), "", value)
    return Held(key, opened["n"], opened.get("from", ""), value)
