"""Compaction of a state-like stream: of every key, only the last event stays. Pure.

Comes in: chunks in order, the newest of which is only looked at. Goes out: for each chunk that
changes, what is left of it, with its events' own offsets. An event with an empty value says that
its key is gone: it is kept until it is old enough for every reader to have seen it. Events without
a key are never compacted.
"""

from __future__ import annotations

from collections.abc import Iterable

from headrace.model.record import Chunk, encode_events


class Survivors:
    """Judges chunks from the newest to the oldest; remembers one key per survivor."""

    def __init__(self, *, tombstones_until: int) -> None:
        """Begin behind the newest chunk.

        Args:
            tombstones_until: Events that say a key is gone leave when appended before (µs).
        """
        self._until = tombstones_until
        self._seen: set[str] = set()

    def look(self, chunk: Chunk) -> None:
        """Only remember the chunk's keys: it is too new to be touched."""
        self._seen.update(event.key for event in chunk.events() if event.key is not None)

    def judge(self, chunk: Chunk) -> Chunk | None:
        """The rest of the chunk: itself where nothing changes, None where nothing is left."""
        events = chunk.events()
        kept: list[int] = []
        # Backwards: the last event of a key is the one to keep, within a chunk as well.
        for index in range(len(events) - 1, -1, -1):
            event = events[index]
            if event.key is None:
                kept.append(index)
            elif event.key not in self._seen:
                self._seen.add(event.key)
                # A deletion is kept for a while: a reader that has the key's former value must
                # still see it.
                if event.value or chunk.appended >= self._until:
                    kept.append(index)
        if len(kept) == len(events):
            return chunk
        if not kept:
            return None
        kept.reverse()
        return Chunk(
            chunk.stream,
            chunk.partition,
            chunk.first,
            len(kept),
            encode_events([events[index] for index in kept]),
            chunk.appended,
            0,
            len(kept),
            chunk.hops,
            chunk.origin,
            # Events keep their offsets: committed positions of readers refer to them.
            tuple(chunk.offset_of(index) for index in kept),
        )


def compact(chunks: Iterable[Chunk], *, tombstones_until: int) -> list[Chunk]:
    """The rest of a whole partition after compaction, given and returned in order."""
    ordered = list(chunks)
    if not ordered:
        return []
    survivors = Survivors(tombstones_until=tombstones_until)
    # The newest chunk is left whole, so the partition's end, which recovery reads from its last
    # row, does not move back.
    survivors.look(ordered[-1])
    left = [ordered[-1]]
    for chunk in reversed(ordered[:-1]):
        remainder = survivors.judge(chunk)
        if remainder is not None:
            left.append(remainder)
    left.reverse()
    return left
