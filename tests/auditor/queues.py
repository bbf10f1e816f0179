"""Judges a queue by what the programs outside were told, and by the log and the dead letters.

In: a scene's account; its journal holds every question with when it was asked and answered, and an
answer of None where nobody knows. Out: findings.

Q1 every message is acknowledged, or dead, and never comes again · Q2 attempts are counted and
bounded · Q3 one holder at a time, whose receipt is good until then · Q4 a group's order · Q5 no delay
is cut short · Q6 a higher priority goes first
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from typing import Any, NamedTuple

import msgspec
from tests.auditor import rows
from tests.auditor.account import Finding, Held, Log

At = tuple[int, int]

VISIBLE_US = 300_000
"""After so long a message that nothing holds back can be received, where nothing goes wrong."""


class Queue(msgspec.Struct):
    """What was asked for and done; see `headrace.simulation.scenes.queues`."""

    group: str
    stream: str
    fifo: bool
    max_receives: int
    delays: dict[int, float]
    priorities: dict[int, int]
    journal: list[Any]
    log: list[tuple[int, int, bytes]]
    appended: list[int]
    positions: list[tuple[bytes, bytes]]
    dead: list[tuple[bytes, bytes]]
    calm: bool
    may_conflict: bool
    deaths: int


class Lease(NamedTuple):
    """What a consumer holds, as far as it knows."""

    receipt: str
    attempt: int
    until: int


def check(scene: dict[str, Any], *, is_skewed: bool) -> list[Finding]:
    """Every broken promise of the queue."""
    books = _Books(msgspec.convert(scene, Queue, strict=False), is_skewed)
    for what, *entry in books.queue.journal:
        getattr(books, what)(*entry)
    books.look_at_the_end()
    return books.findings


class _Books:
    def __init__(self, queue: Queue, is_skewed: bool) -> None:
        self.queue = queue
        self.is_skewed = is_skewed
        self.findings: list[Finding] = []
        log = Log(queue.log, queue.appended)
        self.held: dict[At, Held] = log.held
        self.appended = log.appended
        self.groups: dict[tuple[int, str], list[int]] = defaultdict(list)
        for (partition, offset), held in sorted(self.held.items()):
            if held.key is not None:
                self.groups[partition, held.key].append(offset)
        self.sent: dict[int, int] = {}
        self.leases: dict[At, Lease] = {}
        self.attempts: dict[At, int] = {}
        self.given: Counter[At] = Counter()
        self.done: set[At] = set()
        self.maybe_done: set[At] = set()
        # An answer may be heard late: what was acknowledged is done, and what was refused is free,
        # from some moment after the asking.
        self.asked: dict[At, int] = {}
        self.refused: dict[str, int] = {}
        for what, began, *rest in queue.journal:
            if what == "ack" and rest[-1]:
                partition, offset, *_ = rest[1]
                self.asked.setdefault((partition, offset), began)
            elif what == "nack" and rest[-1]:
                self.refused.setdefault(rest[1][2], began)
        self.dead_now: set[At] = set()
        self.ever_dead: set[At] = set()
        self.not_before: dict[At, int] = {}
        self.touched: set[At] = set()

    def find(self, invariant: str, what: str) -> None:
        self.findings.append(Finding(invariant, what))

    # --- the journal ------------------------------------------------------------------------

    def send(self, began: int, ended: int, numbers: list[int]) -> None:
        for number in numbers:
            self.sent.setdefault(number, began)

    def redrive(self, at: int) -> None:
        """What is dead is tried again from the first attempt; the dead rows say which."""

    def dead(self, at: int, puts: list[tuple[bytes, bytes]], gone: list[bytes]) -> None:
        for key, _ in puts:
            where, offset = rows.dead_place(key)
            if where.function == self.queue.group:
                place = where.partition, offset
                self.dead_now.add(place)
                self.ever_dead.add(place)
                if place in self.done:
                    self.find("Q1", f"{place} was acknowledged, and is a dead letter")
        for key in gone:
            where, offset = rows.dead_place(key)
            if where.function == self.queue.group:
                self.dead_now.discard((where.partition, offset))
                self.attempts.pop((where.partition, offset), None)
                self.given.pop((where.partition, offset), None)
                self.leases.pop((where.partition, offset), None)

    def receive(self, began: int, ended: int, most: int, told: list[list[Any]]) -> None:
        taken = {(partition, offset) for partition, offset, *_ in told}
        if self.queue.calm and not self.queue.fifo and not self.is_skewed:
            self.check_priority(began, taken)
        ranks = [self.rank((partition, offset)) for partition, offset, *_ in told]
        if ranks != sorted(ranks):
            self.find("Q6", f"{sorted(taken)} came together, but not by priority: {ranks}")
        for partition, offset, attempt, until, receipt in told:
            place = partition, offset
            # An answer that is heard only when its lease is over makes nobody a holder: somebody else
            # may hold the message by then, of a later attempt.
            is_held = until > ended or self.is_skewed
            self.check_received(began, ended, place, attempt, is_held=is_held)
            if is_held or attempt > self.attempts.get(place, 0):
                self.leases[place] = Lease(receipt, attempt, until)
                self.attempts[place] = attempt
            self.touched.add(place)

    def check_received(
        self, began: int, ended: int, place: At, attempt: int, *, is_held: bool
    ) -> None:
        held = self.held[place]
        if is_held and place in self.done:
            self.find("Q1", f"{place} was acknowledged, and received again")
        if attempt > self.queue.max_receives:
            self.find("Q2", f"{place} was given out {attempt} times of {self.queue.max_receives}")
        self.given[place] += 1
        if self.given[place] > self.queue.max_receives + self.queue.deaths:
            self.find("Q2", f"{place} was given out {self.given[place]} times")
        # A host that dies may take the last count with it.
        if attempt <= self.attempts.get(place, 0) and not self.queue.deaths:
            self.find("Q2", f"{place} was given out as {attempt} after {self.attempts[place]}")
        if self.is_skewed:
            return
        lease = self.leases.get(place)
        is_free = lease is not None and self.refused.get(lease.receipt, ended) < ended
        if is_held and lease is not None and ended < lease.until and not is_free:
            self.find("Q3", f"{place} has a second holder {lease.until - ended} µs too early")
        if ended < self.not_before.get(place, 0):
            self.find(
                "Q5", f"{place} came {self.not_before[place] - ended} µs before its delay was over"
            )
        sent = self.sent.get(held.number, self.appended[place])
        delay = round(self.queue.delays[held.number] * 1_000_000)
        if ended < sent + delay:
            self.find("Q5", f"{place} came {sent + delay - ended} µs before its delay was over")
        if self.queue.fifo and held.key is not None:
            for before in self.groups[place[0], held.key]:
                if before >= place[1]:
                    break
                earlier = place[0], before
                settled = self.done | self.maybe_done | self.ever_dead
                is_asked = self.asked.get(earlier, ended) < ended
                if not is_asked and earlier not in settled and not self.is_spent(earlier, ended):
                    self.find("Q4", f"{place} came while {before} of its group was not finished")

    def is_spent(self, place: At, now: int) -> bool:
        """Whether its last attempt is over: it is dead, though that may not have landed."""
        lease = self.leases.get(place)
        is_last = self.attempts.get(place, 0) >= self.queue.max_receives
        return is_last and (lease is None or lease.until <= now)

    def rank(self, place: At) -> int:
        return self.appended[place] - self.queue.priorities[self.held[place].number] * 1_000_000

    def check_priority(self, began: int, taken: set[At]) -> None:
        """Of what nothing held back, nothing of a higher rank was left lying."""
        last = max(map(self.rank, taken))
        for place in self.held.keys() - taken - self.touched:
            if self.appended[place] < began - VISIBLE_US and self.rank(place) < last:
                self.find("Q6", f"{place} lay there when {sorted(taken)} went first")

    def ack(self, began: int, ended: int, told: list[Any], _: float, answer: bool | None) -> None:
        place, is_mine = self.answered(began, ended, told, answer)
        if answer:
            self.done.add(place)
            self.leases.pop(place, None)
        elif answer is None:
            self.maybe_done.add(place)
            if is_mine:
                self.leases.pop(place, None)

    def nack(
        self, began: int, ended: int, told: list[Any], delay: float, answer: bool | None
    ) -> None:
        place, is_mine = self.answered(began, ended, told, answer)
        lease = self.leases.get(place)
        if lease is None or not is_mine or answer is False:
            return
        del self.leases[place]
        # After the last attempt there is nothing to be put off.
        if answer and lease.attempt < self.queue.max_receives:
            self.not_before[place] = began + round(delay * 1_000_000)

    def extend(
        self, began: int, ended: int, told: list[Any], more: float, answer: bool | None
    ) -> None:
        place, is_mine = self.answered(began, ended, told, answer)
        lease = self.leases.get(place)
        if lease is not None and is_mine and answer:
            until = began + round(more * 1_000_000)
            self.leases[place] = Lease(lease.receipt, lease.attempt, until)
        elif is_mine and answer is None:
            self.leases.pop(place, None)

    def answered(
        self, began: int, ended: int, told: list[Any], answer: bool | None
    ) -> tuple[At, bool]:
        """The message, and whether the one who spoke holds it as far as anybody knows."""
        place = told[0], told[1]
        lease = self.leases.get(place)
        is_mine = lease is not None and lease.receipt == told[2]
        is_good = lease is not None and is_mine and ended < lease.until
        if is_good and answer is False and not self.is_skewed and not self.queue.may_conflict:
            self.find("Q3", f"the receipt of {place} was refused while it was good")
        return place, is_mine

    # --- the end ----------------------------------------------------------------------------

    def look_at_the_end(self) -> None:
        there = Counter(held.number for held in self.held.values())
        for number in self.sent:
            if there[number] != 1:
                self.find("Q1", f"message {number} is there {there[number]} times")
        for place in sorted(self.dead_now):
            self.find("Q1", f"{place} is dead still, though it was redriven")
        for place in self.held:
            if place not in self.done | self.maybe_done | self.dead_now:
                self.find("Q1", f"{place} was never acknowledged, and is not a dead letter")
        done = {
            where.partition: (watermark, sparse)
            for key, value in self.queue.positions
            if (where := rows.place(key)).function == self.queue.group
            for _, watermark, sparse in [rows.position(value)]
        }
        for partition, offset in itertools.chain(self.held):
            watermark, sparse = done.get(partition, (0, ()))
            if offset >= watermark and offset not in sparse:
                self.find(
                    "Q1", f"{(partition, offset)} is settled, but its position does not say so"
                )
