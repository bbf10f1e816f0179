"""Result of a run, as one `Returned`: the effects that are kept, the failures, the answer.

In: a recorder's notes and an exception. Pure; it calls no code of the author.
"""

from __future__ import annotations

from typing import Any

from headrace.model.codec import encode_json
from headrace.model.outcome import BEHIND, Cause, Failure, Returned
from headrace.runtime.child.recorder import Recorder
from headrace.runtime.child.results import bare
from headrace.sdk.event import Event, Undecodable
from headrace.sdk.request import Reply


def answer_of(result: Any) -> bytes:
    """Convert the return value of a handler of one payload to the answer to its caller."""
    if isinstance(result, Reply):
        return result.pack()
    if isinstance(result, list):
        return encode_json([bare(item) for item in result])
    return encode_json(bare(result))


def collect(recorder: Recorder, untouched: int) -> Returned:
    """Return the outcome of a run that completed, or of an ordered run up to its first failure."""
    dropped = recorder.dropped
    if not dropped:
        if recorder.blank:
            return Returned(untouched=untouched)
        return Returned(
            appends=recorder.appends(None),
            reads=recorder.reads(),
            writes=recorder.writes(None),
            untouched=untouched,
        )

    def kept(tag: int) -> bool:
        return tag not in dropped

    return Returned(
        failures=tuple(Failure(index, dropped[index]) for index in sorted(dropped)),
        untouched=untouched,
        appends=recorder.appends(kept),
        reads=recorder.reads(),
        writes=recorder.writes(kept),
    )


def collect_error(recorder: Recorder, cause: Cause) -> Returned:
    """Return the outcome of a batch handler that raised: only effects of events marked done are kept."""
    done = recorder.finished - recorder.dropped.keys()

    def kept(tag: int) -> bool:
        return tag in done or recorder.sealed(tag)

    # With a single event all effects before `done` belong to it. With several an effect outside
    # the iteration cannot be attributed, and a kept effect must not depend on a dropped one.
    if not done or not (len(recorder.events) == 1 or recorder.divides(kept)):
        return Returned(error=cause)
    return Returned(
        error=cause,
        done=tuple(sorted(done)),
        appends=recorder.appends(kept),
        reads=recorder.reads(),
        writes=recorder.writes(kept),
    )


def poison_in(error: BaseException, events: list[Event[Any]]) -> int | None:
    """Return the index of the event that could not be decoded, or None."""
    seen: BaseException | None = error
    if not isinstance(seen, Undecodable):
        return None
    index = seen.event._index
    # By identity: the handler may have raised the error of an event of another batch that it kept.
    return index if index < len(events) and events[index] is seen.event else None


def close_key(events: list[Event[Any]], failed: int, aside: dict[int, Cause]) -> None:
    """Set aside later events with the key of a failed event, to keep the order of the key."""
    key = events[failed].key
    if key is not None:
        for event in events[failed + 1 :]:
            if event.key == key:
                aside.setdefault(event._index, behind(event))


def behind(event: Event[Any]) -> Cause:
    """Return the cause for an event that waits because its key has failed."""
    return Cause(BEHIND, f"an earlier event of key `{event.key}` failed in this batch")
