"""Judges one history of the platform: what was promised against what is there.

In: an account, as plain values: what was published, what the handlers saw, every change the store
took, and what log and store hold at the end. Out: findings, each naming its invariant. It walks the
history once and keeps its own books; of the platform it knows only the formats.

I1 nothing lost · I2 effects once · I3 order per key · I4 positions cover only what is finished ·
I5 dead letters are the poison, byte for byte · I6 a stale owner commits nothing · I7 no event is tried
more often than was asked for, and what it has been tried is not forgotten · P1 only what a
pattern means is run · R1 a host that is stopped is gone in time · R2 what ends well before it is gone is
kept, unless a change of its partition was turned down meanwhile: then it is to run again. Flow control is
judged in `flow`, each scene in a module of its own.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter, defaultdict
from typing import Any

import msgspec
from tests.auditor import buses, calendars, consumers, desks, merges, queues, rows, windows
from tests.auditor.account import Account, Finding, Function, Held, Log, Place
from tests.auditor.flow import LeftOut, check_runs
from tests.auditor.rows import Given, Where
from tests.auditor.tries import Tries

WAITING = frozenset(("dead", "parked"))
PATIENCE_US = 5_000
"""How much later than its time a host that is stopped may be gone."""


def judge(account: dict[str, Any]) -> list[Finding]:
    """Every broken promise in the account."""
    books = _Books(msgspec.convert(account, Account))
    books.walk()
    books.look_at_the_end()
    opened = books.account
    found = books.findings + check_runs(opened, books.log, books.means)
    scenes = {
        "queue": queues,
        "bus": buses,
        "calendar": calendars,
        "consumer": consumers,
        "merge": merges,
        "desk": desks,
        "windows": windows,
    }
    for kind, scene in opened.scenes.items():
        found += scenes[kind].check(scene, is_skewed=opened.is_skewed)
    return found


class _Books:
    def __init__(self, account: Account) -> None:
        self.account = account
        self.findings: list[Finding] = []
        self.known = account.functions.keys()
        logs = {name: Log(log, account.appended[name]) for name, log in account.log.items()}
        self.log: dict[str, dict[tuple[int, int], Held]] = {
            stream: log.held for stream, log in logs.items()
        }
        self.appended = {stream: log.appended for stream, log in logs.items()}
        self.left_out = LeftOut(account, logs, self.means)
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
        self.began: dict[int, int] = {}
        # What ended well on a host, and when the run began.
        self.done: dict[tuple[int, str, Place], int] = {}
        # Until when what a host began in a partition may have to run again: a change was turned down,
        # and until all that ran then has ended nobody looks at what the store holds.
        self.turned_down: dict[tuple[int, Where], int] = {}
        self.failed: Counter[tuple[str, Place]] = Counter()
        self.tries = Tries(account)
        self.gone: set[Place] = set()
        self.waiting: dict[Where, list[tuple[int, int, int]]] = {}
        self.given_up_together: set[tuple[str, Place]] = set()
        self.stopping: dict[int, int] = {}
        self.kept_by_stopped: dict[tuple[str, Place], int] = {}

    def find(self, invariant: str, what: str) -> None:
        self.findings.append(Finding(invariant, what))

    # --- the history ------------------------------------------------------------------------

    def walk(self) -> None:
        for entry in self.account.history:
            match entry:
                case ["begin", host, run, function, places, now]:
                    self.began[run] = now
                    self.begin(host, run, function, [tuple(place) for place in places])
                case ["end", host, run, fates, now]:
                    self.end(host, run, fates, now)
                case ["commit", host, puts, deletes]:
                    self.commit(host, puts, deletes)
                case ["gone", stream, places, now]:
                    self.let_go(stream, [(stream, *place) for place in places], now)
                case ["stop", host, now]:
                    self.stopping[host] = now
                case ["stopped", host, now, grace]:
                    self.stop(host, now, grace)
                case ["refused", host, positions, now]:
                    self.tries.refused(host)
                    self.turned_down.update(((host, rows.place(key)), now) for key in positions)
                case _:
                    raise ValueError(f"the history has an entry that is none: {entry!r}")

    def stop(self, host: int, now: int, grace: int) -> None:
        """A host that was stopped is gone."""
        took = now - self.stopping[host]
        if took > grace + PATIENCE_US:
            self.find("R1", f"host {host} was gone after {took} µs of {grace}")
        if grace:
            for (owner, function, place), began in self.done.items():
                down = self.turned_down.get((host, Where(function, *place[:2])), -1)
                if owner == host and began > down:
                    self.kept_by_stopped[function, place] = host

    def begin(self, host: int, run: int, function: str, places: list[Place]) -> None:
        self.running[run] = function, places
        if strangers := [place for place in places if self.held(place) is None]:
            self.find("I1", f"{function} was given {strangers}, which the log never held")
            return
        self.check_kept(host, function, places)
        together = set(places)
        if self.account.functions[function].order == "none":
            return
        for place in places:
            stream, partition, offset = place
            where = Where(function, stream, partition)
            held = self.log[stream][partition, offset]
            if held.key is None or self.owner.get(where) != host:
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
                is_kept = before < self.low.get(where, 0) or before in self.sparse.get(where, ())
                is_done = (host, function, earlier) in self.done
                if not (
                    is_kept
                    or earlier in together
                    or (is_done and not self.account.functions[function].waits)
                    or self.is_spent(function, earlier)
                    or self.needs_no_run(function, earlier)
                ):
                    what = "is done and not kept" if is_done else "is unfinished"
                    self.find("I3", f"{function} began {place} while {before} {what}")
                    break

    def check_kept(self, host: int, function: str, places: list[Place]) -> None:
        """Nothing runs again that ended well on a host which was then stopped in order."""
        asked = self.account.functions[function]
        if not asked.calm or asked.resets:
            return
        for place in places:
            before = self.kept_by_stopped.get((function, place), host)
            if before != host:
                self.find("R2", f"{function} runs {place} again, which host {before} had done")

    def end(self, host: int, run: int, fates: list[str], now: int) -> None:
        function, places = self.running.pop(run)
        began = self.began.pop(run)
        for where in {Where(function, *place[:2]) for place in places}:
            if began <= self.turned_down.get((host, where), -1):
                # What was sent ahead behind it begins as it ends.
                self.turned_down[host, where] = now
        if any(self.held(place) is None for place in places):
            return
        self.tries.ended(host, function, places, fates)
        if "failed" in fates and not self.account.functions[function].bisect:
            permanent = self.account.functions[function].permanent
            if any(self.log[place[0]][place[1], place[2]].number in permanent for place in places):
                self.given_up_together.update((function, place) for place in places)
        for place, fate in zip(places, fates, strict=True):
            if fate == "done":
                self.done[host, function, place] = began
            elif fate == "failed":
                self.failed[function, place] += 1

    def held(self, place: Place) -> Held | None:
        """The event at a place, if the log has one there."""
        stream, *at = place
        return self.log[stream].get((at[0], at[1]))

    def let_go(self, stream: str, places: list[Place], now: int) -> None:
        """A stream has let go of events: they were old enough, or a later one of their key is there."""
        self.gone.update(places)
        kept = self.account.kept.get(stream)
        for place in places:
            _, partition, offset = place
            age = now - self.appended[stream][partition, offset]
            if kept is not None and age <= kept:
                self.find("I1", f"{place} was let go after {age} µs of {kept}")
            lane = self.lanes[stream, partition, str(self.log[stream][partition, offset].key)]
            if kept is None and not any(each > offset for each in lane):
                self.find("I1", f"{place} was let go, the last of its key")
            for where in self.waiting:
                if where[1:] == (stream, partition) and offset >= self.lowest_owed(where):
                    self.find("I1", f"{place} was let go, though {where.function} is owed it")

    def lowest_owed(self, where: Where) -> float:
        """From which offset on the log must be kept: there an event waits for its next attempt."""
        low = self.low.get(where, 0)
        ranges = self.waiting[where]
        return min((max(begin, low) for begin, end, _ in ranges if end > low), default=math.inf)

    def means(self, function: str, held: Held) -> bool:
        """Whether the function's pattern means the event."""
        least = self.account.functions[function].least
        return least is None or (held.is_json and held.number >= least)

    def needs_no_run(self, function: str, place: Place) -> bool:
        """Whether the event counts as done unseen: let go, not meant, or left out by flow control."""
        held = self.held(place)
        if held is None:
            return False
        return (
            place in self.gone
            or not self.means(function, held)
            or self.left_out.may_be(function, place)
        )

    def is_spent(self, function: str, place: Place) -> bool:
        """Whether every attempt has been made: it is given up, though that may not have landed."""
        asked = self.account.functions[function]
        failures = self.failed[function, place]
        number = self.log[place[0]][place[1], place[2]].number
        is_last = number in asked.permanent or (function, place) in self.given_up_together
        return failures >= asked.attempts or (failures > 0 and is_last)

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
            if space not in WAITING:
                continue
            if (row := rows.given(value)).where.function in self.known:
                self.give(self.dead if space == "dead" else self.parked, row)
        for space, key in deletes:
            if space == "dead":
                self.dead.pop(rows.dead_place(key), None)
            elif space == "parked":
                self.parked.pop(rows.parked_place(key), None)
        for space, key, value in puts:
            if space == "positions" and (where := rows.place(key)).function in self.known:
                self.move(host, where, *rows.position(value))
        for space, key, value in puts:
            if space == "trouble" and (where := rows.place(key)).function in self.known:
                self.trouble(where, rows.trouble(value))
        for space, key in deletes:
            if space == "trouble" and (where := rows.place(key)).function in self.known:
                self.trouble(where, [])

    def trouble(self, where: Where, ranges: list[tuple[int, int, int]]) -> None:
        """What the store now says of attempts spent in a partition."""
        asked = self.account.functions[where.function]
        # An operator who lets a stopped partition go on lets its event begin anew.
        begins_anew = asked.on_failure == "park-partition" and (asked.redrives or asked.discards)
        self.waiting[where] = ranges
        low, sparse = self.low.get(where, 0), self.sparse.get(where, frozenset())
        for offset, known, now in self.tries.written(where, ranges):
            is_gone = (where.stream, where.partition, offset) in self.gone
            is_over = (
                is_gone or offset < low or offset in sparse or (where, offset) in self.ever_given
            )
            if self.account.in_order and not (is_over or begins_anew or asked.resets):
                self.find("I7", f"{where} forgot {known - now} of {known} attempts at {offset}")

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
        elif host != self.owner[where] and not (asked.resets or asked.discards):
            self.find("I6", f"{where} was moved by host {host}, though {self.owner[where]} owns it")
        low, covered = self.low.get(where, 0), self.sparse.get(where, frozenset())
        if watermark < low or not covered <= set(sparse) | set(range(low, watermark)):
            if not asked.resets:
                self.find("I4", f"{where} went back from {low} to {watermark}")
            self.done = {
                each: began
                for each, began in self.done.items()
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
                    or self.needs_no_run(where.function, place)
                ):
                    what = "is not finished" if self.held(place) else "the log never held"
                    self.find("I4", f"{where} moved past {offset}, which {what}")
        self.low[where], self.sparse[where] = watermark, frozenset(sparse)

    # --- the end ----------------------------------------------------------------------------

    def look_at_the_end(self) -> None:
        self.findings += self.tries.check()
        self.check_log()
        kept = {
            space: {
                place
                for key, _ in self.account.rows.get(space, ())
                if (place := rows.parked_place(key))[0].function in self.known
            }
            for space in ("dead", "parked")
        }
        for name, books in (("dead", self.dead), ("parked", self.parked)):
            if kept[name] != set(books):
                self.find("I5", f"the {name} rows at the end are not those that were committed")
        seen = self.seen_in_state()
        for name, asked in self.account.functions.items():
            made = [
                held
                for held in self.log.get(asked.output, {}).values()
                if held.source.startswith(f"{name}@")
            ]
            outputs = Counter(held.source for held in made)
            for held in made:
                at = held.source.removeprefix(f"{name}@")
                read, number, offset_of = at.rsplit("/", 2)
                self.check_seen(name, at, (read, int(number), int(offset_of)), held)
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
            self.check_dedupe(stream, there)
            self.check_looks(stream)
        for stream, held in self.log.items():
            by_partition: dict[int, list[int]] = defaultdict(list)
            for partition, offset in sorted(held):
                by_partition[partition].append(offset)
            for partition, offsets in by_partition.items():
                if offsets != list(range(offsets[0], offsets[0] + len(offsets))):
                    self.find("I1", f"the offsets of {stream}/{partition} have gaps")

    def check_looks(self, stream: str) -> None:
        """Every event is in the log as it was sent: its key, time, id, headers, type and source."""
        for place, held in self.log[stream].items():
            look = self.account.sent.get(held.number)
            if not held.source and look is not None and list(held.look) != look:
                self.find("I5", f"{stream} has {list(held.look)} at {place}; sent was {look}")

    def check_seen(self, name: str, at: str, place: Place, output: Held) -> None:
        """What a handler saw of an event is what the log holds; its output has the event's key."""
        stream, partition, offset = place
        held = self.log[stream][partition, offset]
        key, time, id_, headers, type_, source = held.look
        appended = self.appended[stream][partition, offset]
        look = [
            key,
            appended if time is None else time,
            at if id_ is None else id_,
            headers,
            type_,
            source,
        ]
        if output.saw is not None and output.saw != look:
            self.find("I5", f"{name} saw {output.saw} at {at}, which is {look}")
        if output.key != key:
            self.find("I5", f"{name} gave its output for {at} the key {output.key!r}, not {key!r}")

    def check_dedupe(self, stream: str, there: Counter[int]) -> None:
        """No event is there again within the window in which it is recognised."""
        window = self.account.dedupe.get(stream)
        for number in (number for number, times in there.items() if times > 1):
            if window is None:
                self.find("I2", f"event {number} stands {there[number]} times in {stream}")
                continue
            held = self.log[stream].items()
            moments = sorted(
                self.appended[stream][at] for at, event in held if event.number == number
            )
            for before, after in itertools.pairwise(moments):
                if after - before < window and not self.account.is_skewed:
                    self.find(
                        "I2", f"event {number} is in {stream} again after {after - before} µs"
                    )

    def seen_in_state(self) -> dict[str, dict[str, list[str]]]:
        found: dict[str, dict[str, list[str]]] = defaultdict(dict)
        for key, value in self.account.rows.get("state", ()):
            store, name, kept = rows.state(key, value)
            # What a function keeps for itself stands under its full name.
            function, _, lane = name.partition("|")
            if function == store:
                found[function][lane] = list(kept)  # type: ignore[call-overload]  # a list of texts
        for name, asked in self.account.functions.items():
            if not asked.keeps_state:
                # What it published stands in its place, partition by partition.
                found[name] = self.seen_in_outputs(name, asked.output)
        return found

    def seen_in_outputs(self, name: str, output: str) -> dict[str, list[str]]:
        """What a function has published for each key, in the order of the log."""
        found: dict[str, list[str]] = defaultdict(list)
        for _, held in sorted(self.log.get(output, {}).items()):
            if held.source.startswith(f"{name}@"):
                found[str(held.key)].append(held.source.removeprefix(f"{name}@"))
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
        if not self.means(name, held):
            if out or dead or parked:
                self.find("P1", f"{name} ran {at}, which its pattern does not mean")
            return
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
            if self.left_out.must_be(name, place):
                self.find("F3", f"{name} ran {at}, which is more than its rate allows")
            # What a stream lets go of after a reset is passed only with the next event behind it.
            is_open = not finished and place not in self.gone
            if is_open and not (asked.resets and self.is_stopped(where, offset)):
                self.find("I4", f"{name} at {at} is settled, but its position does not say so")
        elif place in self.gone or (asked.discards and (where, offset) in self.ever_given):
            return
        elif finished and not (self.is_discarded(name, place) or self.left_out.may_be(name, place)):
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
        if asked.resets or asked.order == "none":
            return
        for key, places in seen.items():
            if key == "None" and not (asked.order == "partition" and asked.keeps_state):
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
