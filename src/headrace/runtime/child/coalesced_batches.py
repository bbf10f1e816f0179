"""Coalesced batches, run one after the other: each is a separate invocation.

In: a group of coalesced batches (`CoalescedInvocation`) with decoded events. Out: one `Returned` for all of them. The
group ends with the first batch that does more than succeed and publish; its failures and state are returned under
the indices of the whole group. Batches after it are untouched, and so are those that would have started too late.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from typing import Any

from headrace.model.invocation import BatchInvocation, CoalescedInvocation
from headrace.model.outcome import Failure, Returned
from headrace.model.policy import CONVOY_SPARE_S
from headrace.model.record import Append, Chunk
from headrace.sdk.event import Event, Origin

Run = Callable[[BatchInvocation, list[Event[Any]]], Coroutine[Any, Any, Returned]]


async def run_each(
    invocation: CoalescedInvocation,
    opened: list[list[Event[Any]]],
    run: Run,
    monotonic: Callable[[], float],
) -> Returned:
    """Run the batches in order, while each only succeeds and publishes.

    Args:
        invocation: The group of coalesced batches.
        opened: The events of each of its chunks.
        run: Runs one batch.
        monotonic: Seconds that never go backwards.
    """
    appends: list[Append] = []
    total, base = invocation.size, 0
    # The first batch is committed together with the last one, so a slow batch delays all those
    # before it.
    late = monotonic() + CONVOY_SPARE_S / 2
    for chunks, events in _batches(invocation, opened):
        returned = await run(invocation.batch(chunks, base), events)
        appends += returned.appends
        # A version of state must not cover two batches, and failures need the verdict of a batch
        # that ran alone.
        if not returned.only_published:
            return _ended(returned, appends, base, base + len(events), total)
        base += len(events)
        if base < total and monotonic() > late:
            break
    return Returned(appends=tuple(appends), untouched=base if base < total else -1)


def _ended(returned: Returned, appends: list[Append], low: int, high: int, total: int) -> Returned:
    """Combine the result of the batch `[low, high)` with those of all batches before it."""
    end = high if returned.untouched < 0 else low + returned.untouched
    done: tuple[int, ...] = ()
    if returned.error is not None:
        # An error without `done` would mean that no event of the group is done, so earlier batches
        # are listed.
        done = (*range(low), *(low + index for index in returned.done))
    return Returned(
        failures=tuple(Failure(low + each.index, each.cause) for each in returned.failures),
        untouched=end if end < total else -1,
        error=returned.error,
        done=done,
        appends=tuple(appends),
        reads=returned.reads,
        writes=returned.writes,
    )


def _batches(
    invocation: CoalescedInvocation, opened: list[list[Event[Any]]]
) -> Iterator[tuple[tuple[Chunk, ...], list[Event[Any]]]]:
    """Yield the chunks and the events of every batch."""
    each = invocation.each
    windows: list[Chunk] = []
    held: list[Event[Any]] = []
    for chunk, events in zip(invocation.chunks, opened, strict=True):
        at = 0
        while at < len(events):
            count = min(each - len(held), len(events) - at)
            window = chunk.window(chunk.low + at, chunk.low + at + count)
            # A batch that is one whole chunk keeps the origins that it was decoded with: the usual
            # case.
            if held or window is not chunk:
                for index, event in enumerate(events[at : at + count], start=len(held)):
                    event._origin = Origin(window, len(held), event._origin.decode)
                    event._index = index
            windows.append(window)
            held = held + events[at : at + count] if held or count < len(events) else events
            at += count
            if len(held) == each:
                yield tuple(windows), held
                windows, held = [], []
    if held:
        yield tuple(windows), held
