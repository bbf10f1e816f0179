"""The account of one simulated history, and what a finding is: plain values, written from the format."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec
from tests.auditor import rows

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
        redrives: How often an operator had what was given up tried again.
        order: `none` promises no order.
        discards: Whether an operator discarded what was parked.
        calm: Whether nothing else went wrong, so that only poison may be given up.
        healed: Whether the poison was cured and redriven, so that nothing may be left over.
        least: The lowest number it means; None means every event, even one that is not JSON.
        flow: Its flow control, by policy.
        keeps_state: Whether every event is noted in the state.
        window: Microseconds that a batch waits for more events.
        waits: Whether the next run of a key begins when what the last one did is kept.
        bisect: Whether a batch that fails is cut; else one permanent failure gives all of it up.
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
    redrives: int = 0
    calm: bool = False
    order: str = "partition"
    discards: bool = False
    healed: bool = False
    least: int | None = None
    flow: dict[str, Any] = {}
    bisect: bool = True
    window: int = 0
    keeps_state: bool = True
    waits: bool = False


class Account(msgspec.Struct):
    """One history.

    Attributes:
        functions: By name.
        acknowledged: (stream, event number) of every publish that was answered.
        log: By stream: (partition, first offset, blob) of every chunk that it held.
        kept: Microseconds that a stream keeps its events, by stream; one that lets events go and is
            not named here keeps the last one of every key.
        sent: By number: key, time, id, headers, type and source of every event that was published.
        appended: By stream: when each of those chunks was appended (µs since the epoch).
        history: In order: ["begin", host, run, function, places, time], ["end", host, run, fates, time],
            ["gone", stream, places, time] (what a stream let go of then),
            ["stop", host, time] (it is asked to end), ["stopped", host, time, grace in µs] (it has),
            ["refused", host, positions, time] (a change that did not land, as far as the host knows,
            and the keys of the positions it stood on) and
            ["commit", host, puts, deletes], with puts (space, key, value) and deletes (space, key).
        rows: By space: (key, value) at the end.
        dedupe: Microseconds in which a repeated event is dropped, by stream, where that is short.
        takes: Microseconds that every run takes.
        is_skewed: Whether the wall clock was set.
        in_order: Whether changes landed in the order in which they were asked for.
        scenes: The accounts of what was played besides.
    """

    functions: dict[str, Function]
    acknowledged: list[tuple[str, int]]
    log: dict[str, list[tuple[int, int, bytes]]]
    history: list[Any]
    rows: dict[str, list[tuple[bytes, bytes]]]
    appended: dict[str, list[int]] = {}
    dedupe: dict[str, int] = {}
    kept: dict[str, int] = {}
    sent: dict[int, list[Any]] = {}
    takes: int = 0
    is_skewed: bool = False
    in_order: bool = True
    scenes: dict[str, Any] = {}


class Held(NamedTuple):
    """An event in the log."""

    key: str | None
    number: int
    source: str
    body: bytes
    is_json: bool = True
    look: tuple[Any, ...] = ()
    saw: list[Any] | None = None


class Log:
    """What a stream holds: every event by partition and offset, and when it was appended."""

    def __init__(self, chunks: list[tuple[int, int, bytes]], appended: list[int]) -> None:
        self.held: dict[tuple[int, int], Held] = {}
        self.appended: dict[tuple[int, int], int] = {}
        for (partition, first, body), at in zip(chunks, appended, strict=True):
            for step, (event, look) in enumerate(
                zip(rows.events(body), rows.looks(body), strict=True)
            ):
                self.held[partition, first + step] = held_of(*event)._replace(look=look)
                self.appended[partition, first + step] = at


def held_of(value: bytes, key: str | None) -> Held:
    try:
        opened = msgspec.json.decode(value)
    except msgspec.DecodeError:
        # A payload that is not JSON: its number stands in the text.
        digits = "".join(map(chr, (byte for byte in value if 48 <= byte <= 57)))
        return Held(key, int(digits or -1), "", value, is_json=False)
    saw = opened.get("saw")
    return Held(key, opened.get("n", -1), opened.get("from", ""), value, saw=saw)
