"""Cause and hops: how far an event has travelled from the fact that began it."""

from __future__ import annotations

from collections.abc import Sequence

from headrace.model.policy import MAX_HOPS
from headrace.model.record import Chunk


def next_hop(chunks: Sequence[Chunk]) -> tuple[int, str]:
    """The hop count and origin that the outputs of these events carry."""
    if not chunks:
        return 1, ""
    farthest = chunks[0] if len(chunks) == 1 else max(chunks, key=lambda chunk: chunk.hops)
    origin = farthest.origin or f"{farthest.stream}/{farthest.partition}/{farthest.start}"
    return farthest.hops + 1, origin


def runs_away(hops: int) -> bool:
    """Return whether a chain is longer than any honest one: its events are parked, never dropped."""
    return hops > MAX_HOPS
