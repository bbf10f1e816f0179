"""Orphaned events: those of a trigger that was moved or removed, which no function will receive.

A trigger's stream is named after its function, its kind and its index. In: a deployed app and the
store. Out: streams of its functions' triggers that none of them reads any more, with unfinished
events. Changes nothing.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from headrace.delivery.positions import decode_position, position_key
from headrace.model.effects import Progress, Space
from headrace.model.function import AppSpec
from headrace.model.triggers.base import listeners
from headrace.storage.kv.base import Storage
from headrace.storage.log.base import Broker

# The name of a trigger's private stream: `_<function>.<kind>.<index>`.
_OWN: Final = re.compile(r"_(.+)\.[^.]+\.\d+")


class OrphanedEvents(msgspec.Struct, frozen=True):
    """A trigger's stream that nothing reads any more.

    Attributes:
        function: The function of the former trigger.
        stream: The trigger's stream.
        events: How many of them are not finished.
    """

    function: str
    stream: str
    events: int

    def __str__(self) -> str:
        events = f"{self.events} event{'s' if self.events > 1 else ''}"
        return (
            f"`{self.stream}` holds {events} that `{self.function}` has not finished, and none of "
            "its triggers reads it any more: a trigger is known by its kind and its place. Put it "
            "back where it stood among them, and new ones behind it; or let the events go"
        )


async def leftovers(app: AppSpec, *, storage: Storage, broker: Broker) -> list[OrphanedEvents]:
    """Return the events that the app's functions will not receive, by stream."""
    read = {
        function.name: {
            name
            for _, reads in listeners(function.name, function.triggers)
            for name in reads.streams
        }
        for function in app.functions
    }
    found: list[OrphanedEvents] = []
    for spec in broker.streams():
        own = _OWN.fullmatch(spec.name)
        if own is None or own[1] not in read or spec.name in read[own[1]]:
            continue
        events = 0
        for partition in range(spec.partitions):
            extent = await broker.extent(spec.name, partition)
            row = await storage.get(Space.POSITIONS, position_key(own[1], spec.name, partition))
            progress = Progress(extent.low) if row is None else decode_position(row).progress
            events += progress.unfinished(extent.low, extent.high)
        if events:
            found.append(OrphanedEvents(own[1], spec.name, events))
    return found
