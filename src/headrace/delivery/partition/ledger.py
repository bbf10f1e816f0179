"""Ledger of an owner's partitions: which offsets are finished, waiting for a retry, or parked.

Pure: values in, values out. A partition worker, or a consumer run, reads, runs and commits; the ledger tracks every
offset and returns the changes as one `Effects`. It starts from the store, and is replaced whenever a commit fails.
"""

from __future__ import annotations

import itertools
from collections import defaultdict, deque
from collections.abc import Callable, Container, Iterable, Mapping, Sequence

import msgspec

from headrace.delivery.parked import decode_event, encode_event, lane_of, tried
from headrace.delivery.partition.settle import GivenUp, Verdict
from headrace.delivery.partition.watermark import Watermark
from headrace.delivery.positions import StoredPosition
from headrace.delivery.unit import FOREVER, Unit, cut, pick, runs
from headrace.model.effects import DeadEvent, Effects, Missed, Progress, Trouble
from headrace.model.function import FunctionSpec
from headrace.model.outcome import BEHIND, Cause, Returned
from headrace.model.policy import DeadLetter, Discard, OnFailure, ParkKey
from headrace.model.record import Append, Chunk, Position, positions

At = tuple[str, int]
Lane = tuple[str, int, bytes]
"""A key of a partition of a stream, as `lane_of` packs it."""

_WAITS = Cause(BEHIND, "an earlier event of its key is parked")


class Ledger:
    """Owned by one partition worker, or one consumer run.

    `pending` are units to run before anything is read; `running` are active. `gathered_units` and
    `gathered_bytes` count the light commits that are not started yet, and the size of their
    outputs. `missed` are deleted ranges that are not reported yet.
    """

    def __init__(
        self,
        spec: FunctionSpec,
        stored_positions: Mapping[At, StoredPosition],
        wants: Callable[[Chunk], set[int]] | None = None,
    ) -> None:
        self._wants = wants
        self._spec = spec
        self._epochs = {at: known.epoch for at, known in stored_positions.items()}
        self._marks = {at: Watermark(known.progress) for at, known in stored_positions.items()}
        self._expected = {at: mark.low for at, mark in self._marks.items()}
        self.missed: list[Missed] = []
        self._trouble = {at: known.trouble for at, known in stored_positions.items()}
        self._trouble_left = {at: ranges for at, ranges in self._trouble.items() if ranges}
        self._diverted: list[DeadEvent] = []
        self._laid: dict[Lane, int] = {}
        self._appends: list[Append] = []
        self.gathered_units = self.gathered_bytes = 0
        self._written = {at: mark.progress() for at, mark in self._marks.items()}
        self._split = False
        # Without an order, a key that is parked for a redrive must not stop later events of it.
        holds = spec.singleton is not None or isinstance(spec.on_failure, ParkKey)
        self._lets_pass = spec.order == "none" and not holds
        self.pending: deque[Unit] = deque()
        self.running: list[Unit] = []
        self.parked: dict[Lane, bool] = {
            (*at, key): draining
            for at, known in stored_positions.items()
            for key, draining in known.parked.items()
        }

    def epoch_of(self, at: At) -> int:
        """Return this owner's epoch of the partition."""
        return self._epochs[at]

    def watermark(self, at: At) -> int:
        """Return the offset below which everything is finished, once the commits in flight succeed."""
        return self._marks[at].low

    def expected(self, at: At) -> int:
        """Return the next offset to read."""
        return self._expected[at]

    @property
    def is_ahead(self) -> bool:
        """Return whether more is finished than the commits started so far contain."""
        return any(mark.progress() != self._written[at] for at, mark in self._marks.items())

    @property
    def is_clear(self) -> bool:
        """Return whether only new events wait: no retry, no parked key, no earlier failure."""
        return not (self.pending or self.parked or self._trouble_left)

    @property
    def is_split(self) -> bool:
        """Return whether waiting units may share a key with others, running or waiting."""
        if self._split and not (self.running or self.pending):
            self._split = False
        return self._split

    def limit_due(self, latest: int) -> None:
        """Move retries that are due after `latest` forward to it."""
        for place, unit in enumerate(self.pending):
            if latest < unit.due < FOREVER:
                self.pending[place] = msgspec.structs.replace(unit, due=latest)

    def postpone(self, unit: Unit, due: int) -> None:
        """Let a unit wait until `due`; other units pass it, except those with one of its keys."""
        self._split = True
        self.pending.appendleft(msgspec.structs.replace(unit, due=due))

    def leave_out(self, chunks: Iterable[Chunk]) -> None:
        """Mark events as done without a run."""
        self._finish(chunks)

    @property
    def lays_aside(self) -> bool:
        """Return whether events were laid behind a parked key and are in no commit yet."""
        return bool(self._diverted)

    def laid_behind(self, lane: Lane) -> int:
        """Return how many events this ledger has laid behind the key."""
        return self._laid.get(lane, 0)

    def redriving(self) -> set[Lane]:
        """Return the parked lanes of which an event runs, or waits to run again."""
        if not self.parked:
            return set()
        return {
            (
                row.position.stream,
                row.position.partition,
                lane_of(decode_event(row.event), row.position.offset),
            )
            for unit in (*self.running, *self.pending)
            for row in unit.parked
        }

    # --- reads ----------------------------------------------------------------------

    def read(self, at: At) -> Progress:
        """Return the progress as if everything that was read were finished."""
        known = self._marks[at].progress()
        low = max(self._expected[at], known.watermark)
        return Progress(low, tuple(offset for offset in known.sparse if offset >= low))

    def skip(self, at: At, offset: int) -> None:
        """Note that the log holds nothing between the last read and `offset`."""
        if (low := self._expected[at]) < offset:
            mark = self._marks[at]
            if count := offset - low - mark.finished_in(low, offset):
                self.missed.append(Missed(at[0], low, offset, count))
            mark.skip(low, offset)
            self._expected[at] = offset

    def admit(self, at: At, chunks: Sequence[Chunk]) -> Sequence[Chunk]:
        """Note deleted offsets; return the events without finished and unselected ones."""
        mark = self._marks[at]
        for chunk in chunks:
            self.skip(at, chunk.start)
            if chunk.offsets is not None:
                known = chunk.offsets[chunk.low : chunk.high]
                for before, after in itertools.pairwise(known):
                    mark.skip(before + 1, after)
            self._expected[at] = chunk.end
        if self._wants is not None:
            chunks = _wanted(self._wants, chunks, mark)
        # The watermark may be past this chunk already: it jumps over finished offsets above it.
        if not mark.has_gaps and all(chunk.start >= mark.low for chunk in chunks):
            return chunks
        return tuple(
            piece
            for chunk in chunks
            for piece in pick(
                (chunk,),
                (
                    i
                    for i in range(chunk.size)
                    if not mark.is_finished(chunk.offset_of(chunk.low + i))
                ),
            )
        )

    def units(self, chunks: tuple[Chunk, ...]) -> list[Unit]:
        """Return a batch as units, cut where a range failed before, so that its attempts are kept."""
        if not self._trouble_left:
            return [Unit(chunks)]
        self._split = True
        found: list[Unit] = []
        start, known, read = 0, None, defaultdict[At, set[int]](set)
        for index, at in enumerate(positions(chunks)):
            ranges = self._trouble_left.get((at.stream, at.partition), ())
            now = next((r for r in ranges if r.low <= at.offset < r.high), None)
            if index and now is not known:
                found.append(_unit(cut(chunks, start, index), known))
                start = index
            known = now
            read[at.stream, at.partition].add(at.offset)
        found.append(_unit(cut(chunks, start, sum(chunk.size for chunk in chunks)), known))
        for where, offsets in read.items():
            # Lanes take events out of order: earlier offsets of the range may come later.
            if left := self._still_open(where, offsets):
                self._trouble_left[where] = left
            else:
                self._trouble_left.pop(where, None)
        return found

    def _still_open(self, at: At, read: Container[int] = ()) -> tuple[Trouble, ...]:
        """Return the ranges that failed under an earlier owner and are neither read nor finished yet."""
        mark = self._marks[at]
        return tuple(
            msgspec.structs.replace(known, low=low, high=high)
            for known in self._trouble_left.get(at, ())
            for low, high in runs(
                offset
                for offset in range(known.low, known.high)
                if offset not in read and not mark.is_finished(offset)
            )
        )

    def divert(self, unit: Unit, now: int) -> tuple[Unit | None, tuple[Chunk, ...]]:
        """Lay events of a parked key behind it, instead of running them.

        Returns:
            The rest of the unit to run, None if nothing, and the events that were laid aside.
        """
        if not self.parked or unit.parked or self._lets_pass:
            return unit, ()
        staying: list[int] = []
        aside: list[Chunk] = []
        index = 0
        for chunk in unit.chunks:
            for place, event in enumerate(chunk.events(), start=chunk.low):
                offset = chunk.offset_of(place)
                lane = (chunk.stream, chunk.partition, lane_of(event, offset))
                if lane in self.parked:
                    self._laid[lane] = self._laid.get(lane, 0) + 1
                    one = chunk.window(place, place + 1)
                    self._diverted.append(self._waiting(one, _WAITS, 0, now))
                    # Finished for the position: from here on the row in the store holds the event.
                    self._marks[chunk.stream, chunk.partition].finish(offset)
                    aside.append(one)
                else:
                    staying.append(index)
                index += 1
        if not aside:
            return unit, ()
        if not staying:
            return None, tuple(aside)
        return msgspec.structs.replace(unit, chunks=pick(unit.chunks, staying)), tuple(aside)

    # --- verdicts -------------------------------------------------------------------

    def is_plain(self, unit: Unit, verdict: Verdict) -> bool:
        """Return whether its commit changes only positions, outputs and state."""
        return not (verdict.again or verdict.given_up or unit.parked or self._diverted)

    def is_light(self, unit: Unit, verdict: Verdict, kept: Returned | None) -> bool:
        """Return whether its commit changes only positions and outputs."""
        return (
            kept is not None
            and not unit.attempts
            and not (kept.reads or kept.writes)
            and self.is_plain(unit, verdict)
        )

    def gather(self, unit: Unit, kept: Returned) -> None:
        """Note a light commit; `gathered` returns all of them as one."""
        self._finish(unit.chunks)
        self._appends.extend(kept.appends)
        self.gathered_units += -(-unit.size // self._spec.batch_size)
        self.gathered_bytes += sum(len(append.body) for append in kept.appends)

    def gathered(self) -> Effects:
        """Return the effects that were gathered since the last call."""
        appends, self._appends = tuple(self._appends), []
        self.gathered_units = self.gathered_bytes = 0
        return self._effects(Returned(appends=appends), 0)

    def take_back(self, unit: Unit) -> bool:
        """Let a unit that counted as finished run again; return False if it is too far back."""
        for at, offsets in _offsets_of(unit.chunks).items():
            if not self._marks[at].take_back(offsets):
                return False
            # Otherwise `is_ahead` would compare with a progress that is not going to be committed.
            self._written[at] = _progress_without(self._written[at], offsets)
        # A copy: the original may still be in `running`, from which it is removed by identity.
        self.pending.appendleft(msgspec.structs.replace(unit))
        return True

    def progressed(self, appends: tuple[Append, ...] = ()) -> Effects:
        """Return positions, events laid behind a parked key, and additional appends."""
        return self._effects(Returned(appends=appends), 0)

    def freed(self, lane: Lane) -> Effects:
        """Return the effects that free a parked key without waiting events."""
        self._laid.pop(lane, None)
        return self._effects(Returned(), 0, free_keys=(lane,))

    def forgotten(self, unit: Unit) -> Effects:
        """Return positions past a unit that has not run yet (`commit="before"`)."""
        self._finish(unit.chunks)
        return self._effects(Returned(), 0)

    def landed(
        self,
        unit: Unit,
        verdict: Verdict,
        *,
        kept: Returned | None,
        token: int,
        on_failure: OnFailure,
        now: int,
    ) -> Effects | None:
        """Return the effects of a verdict; None if nothing changed.

        Units to run again are put in front of `pending`.
        """
        again = verdict.again
        retried: tuple[DeadEvent, ...] = ()
        if unit.parked:
            # A parked event stores its attempts in its own row; trouble rows are for unfinished
            # offsets.
            rows = tuple(tried(more, unit.parked[0]) for more in again)
            retried = tuple(row for row in rows if row is not None)
            again = tuple(
                msgspec.structs.replace(more, parked=unit.parked if row is None else (row,))
                for more, row in zip(again, rows, strict=True)
            )
        else:
            self._finish(verdict.finished)
            self._finish(lost.chunk for lost in verdict.given_up)
        # In front of all others, in order: they are older than what is pending.
        self.pending.extendleft(reversed(again))
        self._split = self._split or bool(again)
        trouble = self._changed_trouble(unit)
        # A crash without blame changes nothing in the store, so it costs no commit.
        if kept is None and not (verdict.given_up or trouble or retried or self._diverted):
            return None
        waiting = tuple(
            self._waiting(lost.chunk, lost.cause, lost.attempts, now, unit.parked)
            for lost in verdict.given_up
        )
        unparked = unit.parked if verdict.finished else ()
        dead: tuple[DeadEvent, ...] = ()
        parked = retried
        park_keys: tuple[Lane, ...] = ()
        match on_failure if waiting else None:
            case None:
                pass
            case Discard():
                unparked = unit.parked
            case DeadLetter():
                dead, unparked = waiting, unit.parked
            case _:
                parked = waiting
                park_keys = tuple(dict.fromkeys(self._key_of(lost) for lost in verdict.given_up))
                # In memory before the commit: later events of the key may be in the intake
                # already, and must go behind it.
                self.parked.update(dict.fromkeys(park_keys, False))
        return self._effects(
            kept if kept is not None else Returned(),
            token,
            trouble=trouble,
            dead=dead,
            parked=parked,
            unparked=unparked,
            park_keys=park_keys,
        )

    def _finish(self, chunks: Iterable[Chunk]) -> None:
        for chunk in chunks:
            self._marks[chunk.stream, chunk.partition].finish_to(chunk)

    def _changed_trouble(self, landing: Unit) -> dict[At, tuple[Trouble, ...]]:
        """Return the trouble rows that differ from the store: units with attempts spent, by partition.

        The unit of this verdict is in none of them: the rest of it is pending by now.
        """
        found: dict[At, list[Trouble]] = {at: [*self._still_open(at)] for at in self._trouble}
        covered: dict[At, set[int]] = {at: set() for at in self._trouble}
        # A failed unit stays in `running`, with its former attempts, until its commit has ended;
        # the same events are then also pending, or running, with one more attempt. The higher
        # count is taken.
        for unit in (*self.pending, *sorted(self.running, key=_attempts, reverse=True)):
            if unit.attempts and not unit.parked and unit is not landing:
                for at, offsets in _offsets_of(unit.chunks).items():
                    fresh = {
                        offset
                        for offset in offsets - covered[at]
                        if not self._marks[at].is_finished(offset)
                    }
                    covered[at] |= fresh
                    # One range per run of offsets: events of other lanes in between have not
                    # failed.
                    found[at].extend(
                        Trouble(low, high, unit.attempts, unit.due, unit.cause)
                        for low, high in runs(sorted(fresh))
                    )
        changed = {
            at: ranges
            for at, unsorted in found.items()
            if (ranges := tuple(sorted(unsorted, key=_first))) != self._trouble[at]
        }
        self._trouble.update(changed)
        return changed

    def _effects(
        self,
        kept: Returned,
        token: int,
        *,
        trouble: dict[At, tuple[Trouble, ...]] | None = None,
        dead: tuple[DeadEvent, ...] = (),
        parked: tuple[DeadEvent, ...] = (),
        unparked: tuple[DeadEvent, ...] = (),
        park_keys: tuple[Lane, ...] = (),
        free_keys: tuple[Lane, ...] = (),
    ) -> Effects:
        # Every commit takes the laid-aside events along, since its position is past them.
        diverted, self._diverted = tuple(self._diverted), []
        self._written = {at: mark.progress() for at, mark in self._marks.items()}
        return Effects(
            function=self._spec.name,
            app=self._spec.app,
            epoch=self._epochs,
            progress=self._written,
            appends=kept.appends,
            reads=kept.reads,
            writes=kept.writes,
            token=token,
            trouble=trouble or {},
            dead=dead,
            parked=parked + diverted,
            unparked=unparked,
            park_keys=park_keys,
            free_keys=free_keys,
        )

    def _key_of(self, lost: GivenUp) -> Lane:
        chunk = lost.chunk
        return chunk.stream, chunk.partition, lane_of(chunk.events()[0], chunk.start)

    def _waiting(
        self,
        chunk: Chunk,
        cause: Cause,
        attempts: int,
        now: int,
        before: tuple[DeadEvent, ...] = (),
    ) -> DeadEvent:
        """Return a chunk of one as a dead or parked event, with the edits of its former row."""
        original, edits = (before[0].original, before[0].edits) if before else (b"", ())
        return DeadEvent(
            self._spec.name,
            Position(chunk.stream, chunk.partition, chunk.start),
            encode_event(chunk.events()[0]),
            cause,
            attempts,
            chunk.appended,
            now,
            chunk.hops,
            chunk.origin,
            original=original,
            edits=edits,
        )


def without(effects: Effects, chunks: Sequence[Chunk]) -> Effects:
    """Return the effects without these events, which are not finished after all."""
    taken = _offsets_of(chunks)
    progress = {
        at: _progress_without(known, taken[at]) if at in taken else known
        for at, known in effects.progress.items()
    }
    return msgspec.structs.replace(effects, progress=progress)


def _progress_without(progress: Progress, offsets: set[int]) -> Progress:
    mark = Watermark(progress)
    mark.take_back(offsets)
    return mark.progress()


def _offsets_of(chunks: Iterable[Chunk]) -> dict[At, set[int]]:
    found: dict[At, set[int]] = {}
    for chunk in chunks:
        offsets = (chunk.offset_of(place) for place in range(chunk.low, chunk.high))
        found.setdefault((chunk.stream, chunk.partition), set()).update(offsets)
    return found


def _attempts(unit: Unit) -> int:
    return unit.attempts


def _first(trouble: Trouble) -> int:
    return trouble.low


def _unit(chunks: tuple[Chunk, ...], known: Trouble | None) -> Unit:
    if known is None:
        return Unit(chunks)
    return Unit(chunks, known.attempts, known.due, known.cause)


def _wanted(
    wants: Callable[[Chunk], set[int]], chunks: Sequence[Chunk], mark: Watermark
) -> Sequence[Chunk]:
    """Return the events that match the trigger's pattern; the others count as done."""
    found: list[Chunk] = []
    for chunk in chunks:
        meant = wants(chunk)
        for place in range(chunk.size):
            if place not in meant:
                mark.finish(chunk.offset_of(chunk.low + place))
        found.extend(pick((chunk,), sorted(meant)))
    return found
