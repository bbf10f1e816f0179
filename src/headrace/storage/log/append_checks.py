"""Checks of appends: sizes and forms, before anything is stored. Pure.

A large body's head is checked, not every event in it, because that would cost more than storing
it; a small one is opened, because small bodies of one group are joined into one blob, where a
broken one would take its neighbours with it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from headrace.model.errors import Corrupt, Invalid, TooLarge
from headrace.model.event import Event
from headrace.model.function import StreamSpec
from headrace.model.policy import MAX_BATCH, MAX_BATCH_BYTES, MAX_KEY_BYTES
from headrace.model.record import Append, decode_events, encode_events

# Below these decoding every event costs little compared with the commit (see the module's docstring).
SMALL_EVENTS = 16
SMALL_BYTES = 8 << 10


def mergeable(append: Append) -> bool:
    """Return True where the append may share a blob: it is small, and `check_append` has decoded it."""
    return append.count <= SMALL_EVENTS and len(append.body) <= SMALL_BYTES


def without_known(append: Append, known: Collection[str]) -> tuple[Append, Sequence[str]]:
    """The append without the events whose id is known, or comes a second time; and the ids left."""
    fresh: dict[str, None] = {}
    kept: list[int] = []
    ids = append.ids or ()
    for index, each in enumerate(ids):
        if each:
            # The first of two equal ids within one append counts, as it would in two appends.
            if each in fresh or each in known:
                continue
            fresh[each] = None
        kept.append(index)
    if len(kept) == append.count:
        return append, tuple(fresh)
    events = decode_events(append.body)
    left = Append(
        append.stream,
        append.partition,
        len(kept),
        encode_events([events[index] for index in kept]),
        append.hops,
        append.origin,
        tuple(ids[index] for index in kept),
    )
    return left, tuple(fresh)


def check_append(append: Append, spec: StreamSpec) -> None:
    """Let an append pass.

    Raises:
        TooLarge: It, or one of its events, is larger than allowed.
        Invalid: Its body is not an array of `count` events, its ids are not one per event, or it
            takes back what no id can name.
    """
    where = f"`{append.stream}/{append.partition}`"
    if append.kind == "cancel":
        _check_cancel(append, where)
        return
    size = len(append.body)
    if size > MAX_BATCH_BYTES:
        raise TooLarge(
            f"an append of {size} bytes to {where} is larger than {MAX_BATCH_BYTES}; "
            "send it in smaller batches (a function that reads a large file is better given it in "
            '`Files(..., slices="lines")`)'
        )
    if append.count < 1 or array_length(append.body) != append.count:
        raise Invalid(
            f"a body for {where} is not an array of {append.count} events; encode it with "
            "`headrace.model.record.encode_events`"
        )
    if append.ids is not None and len(append.ids) != append.count:
        raise Invalid(
            f"an append to {where} has {append.count} events and {len(append.ids)} ids; "
            'give one id per event, "" for none'
        )
    # Only a body larger than one event may be can hold an event that is too large.
    large = size > spec.max_event_bytes
    # Ids are also a reason to decode: duplicates are taken out of the body by their index.
    if not (large or mergeable(append) or append.ids is not None):
        return
    try:
        events = decode_events(append.body)
    except Corrupt as error:
        raise Invalid(f"a body for {where} cannot be opened: {error}") from error
    for index, event in enumerate(events if large else ()):
        check_event(event, spec, f"event {index} of an append to {where}")


def check_event(event: Event, spec: StreamSpec, what: str = "") -> None:
    """Let a single event pass; `what` names it.

    Raises:
        TooLarge: It is larger than the stream takes.
    """
    if len(event.value) > spec.max_event_bytes:
        raise TooLarge(
            f"{what or f'an event for `{spec.name}`'} has {len(event.value)} bytes; the stream "
            f"takes {spec.max_event_bytes} (`max_event_bytes`)"
        )


def _check_cancel(append: Append, where: str) -> None:
    ids = append.ids or ()
    if append.count or not 0 < len(ids) <= MAX_BATCH:
        raise Invalid(f"{len(ids)} ids are taken back from {where}; name 1 to {MAX_BATCH:,}")
    # The same bound as for ids that are appended: a longer one can name no message.
    if not all(0 < len(id) <= MAX_KEY_BYTES for id in ids):
        raise Invalid(f"an id taken back from {where} is not of 1 to {MAX_KEY_BYTES:,} characters")


def array_length(body: bytes) -> int:
    """Number of items that the msgpack array declares; -1 where the body is not an array."""
    head = body[0] if body else 0
    # msgpack: `fixarray` holds up to 15 items, 0xDC has a length of 16 bits, 0xDD one of 32.
    if head & 0xF0 == 0x90:
        return head & 0x0F
    if head == 0xDC:
        return int.from_bytes(body[1:3], "big")
    if head == 0xDD:
        return int.from_bytes(body[1:5], "big")
    return -1


def join_bodies(bodies: Sequence[bytes], count: int) -> bytes:
    """One array of the items of all, which are `count`."""
    if count < 16:
        head = bytes((0x90 | count,))
    elif count < 1 << 16:
        head = b"\xdc" + count.to_bytes(2, "big")
    else:
        head = b"\xdd" + count.to_bytes(4, "big")
    # Items of a msgpack array follow one another without separators, so bodies are joined without
    # decoding an event.
    return head + b"".join(body[_head_size(body) :] for body in bodies)


def _head_size(body: bytes) -> int:
    return {0xDC: 3, 0xDD: 5}.get(body[0], 1)
