"""Judges how often an event was tried: never more than was asked for, and no attempt is forgotten.

In: the ends of runs, the trouble rows as they were written, and the changes that did not land. Out:
findings.

I7 no event is tried more often than was asked for, and what it has been tried is not forgotten
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

from tests.auditor.account import Account, Finding, Place
from tests.auditor.rows import Where


class Tries:
    """The books of one history. Only runs of one event are counted: there nobody else is to blame."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self._failed: Counter[tuple[str, Place]] = Counter()
        self._hosts: dict[tuple[str, Place], set[int]] = defaultdict(set)
        self._refused: Counter[int] = Counter()
        self._stored: dict[Where, dict[int, int]] = defaultdict(dict)
        self._together: set[tuple[str, Place]] = set()

    def ended(
        self, host: int, function: str, places: Sequence[Place], fates: Sequence[str]
    ) -> None:
        """A run is over."""
        if len(places) > 1:
            self._together.update((function, place) for place in places)
        elif "failed" in fates:
            self._failed[function, places[0]] += 1
            self._hosts[function, places[0]].add(host)

    def refused(self, host: int) -> None:
        """A change of this host did not land, as far as it knows."""
        self._refused[host] += 1

    def written(
        self, where: Where, ranges: Sequence[tuple[int, int, int]]
    ) -> Iterator[tuple[int, int, int]]:
        """Offset, attempts known and attempts left, where the row that is written says less.

        Events that ran together with others may be judged anew with each of their runs.
        """
        now: dict[int, int] = {}
        for low, high, attempts in ranges:
            now.update((each, max(attempts, now.get(each, 0))) for each in range(low, high))
        for offset, known in self._stored[where].items():
            place = (where.stream, where.partition, offset)
            if now.get(offset, 0) < known and (where.function, place) not in self._together:
                yield offset, known, now.get(offset, 0)
        self._stored[where] = now

    def check(self) -> Iterator[Finding]:
        """No event fails alone more often than asked, beyond what was lost with a host or a change.

        An attempt that was made when its host died, or when a change did not land, may not have been
        counted; a redrive and a reset begin anew.
        """
        for (function, place), failures in self._failed.items():
            asked = self._account.functions[function]
            hosts = self._hosts[function, place]
            uncounted = len(hosts) + sum(self._refused[host] for host in hosts)
            most = asked.attempts * (1 + asked.resets + asked.redrives) + uncounted
            if failures > most:
                yield Finding(
                    "I7", f"{function} tried {place} {failures} times; asked for: {asked.attempts}"
                )
