"""Draws a plan from a seed: a topology, what its handlers do, and what goes wrong when.

In: a number. Out: a `Plan`. The same number always gives the same plan, and its core is drawn by
itself: what is drawn besides (`widening`) leaves the core of every seed as it was.
"""

from __future__ import annotations

from random import Random  # noqa: TID251 - the plan's own chance, from the seed

from headrace.model.policy import (
    Breaker,
    DeadLetter,
    Discard,
    EventOrder,
    ParkKey,
    ParkPartition,
    Retry,
)
from headrace.simulation.plan_extras import widened
from headrace.simulation.plan_values import (
    HORIZON_S,
    LABELS,
    Action,
    Plan,
    PlannedEvent,
    PlannedFunction,
    Shape,
)
from headrace.testing.faults import Fault


def plan_of(seed: int) -> Plan:
    """The plan of a seed."""
    return widened(core_of(seed))


def core_of(seed: int) -> Plan:
    """Streams and functions alone: no flow control, no patterns, no scenes."""
    chance = Random(seed)
    calm = chance.random() < 0.3
    streams: dict[str, int] = {}
    count = chance.choice((1, 1, 2, 2, 3))
    numbers = range(chance.choice((4, 8, 16, 24, 40)))
    functions = tuple(_function(chance, index, streams, numbers) for index in range(count))
    return Plan(
        seed=seed,
        calm=calm,
        streams=streams,
        functions=functions,
        actions=_actions(chance, streams, functions, numbers, calm=calm),
        odds={} if calm else _odds(chance),
        mishaps=0.0 if calm else chance.choice((0.0, 0.0, 0.05, 0.15)),
        stale_reads=0.0 if calm else chance.choice((0.0, 0.0, 0.05)),
        shuffle=chance.random() < 0.3,
        in_order=chance.random() < 0.7,
    )


def _function(
    chance: Random, index: int, streams: dict[str, int], numbers: range
) -> PlannedFunction:
    inputs = _inputs(chance, index, streams)
    output = f"out{index}"
    streams[output] = chance.choice((1, 1, 2, 3, 4))
    shape: Shape = chance.choice(
        ("single", "single", "async", "batch", "batch", "done", "failures", "async batch")
    )
    share = chance.choice((0.0, 0.0, 0.05, 0.15, 0.4))
    poison = frozenset(n for n in numbers if chance.random() < share)
    permanent = frozenset(n for n in poison if chance.random() < 0.2)
    share = chance.choice((0.0, 0.05, 0.2))
    flaky = {n: chance.randint(1, 3) for n in numbers if chance.random() < share}
    slow = chance.choice((0.0, 0.1)) if shape.startswith("async") else 0.0
    least = 3 if shape == "failures" else 1
    order: EventOrder = chance.choice(("partition", "partition", "partition", "key", "key", "none"))
    return PlannedFunction(
        name=f"f{index}",
        streams=inputs,
        output=output,
        shape=shape,
        batch_size=chance.choice((1, 2, 3, 5, 10, 50)),
        batch_bytes=chance.choice((200, 4 << 20, 4 << 20)),
        batch_window=chance.choice((0.0, 0.0, 0.05, 0.5)),
        drawn_order=order,
        parallelism=1 if order == "partition" else chance.choice((1, 2, 4)),
        commit="before" if chance.random() < 0.08 else "after",
        bisect=chance.random() < 0.8,
        retry=Retry(
            attempts=max(chance.choice((1, 2, 3, 5)), least),
            initial_delay=chance.choice((0.0, 0.1)),
            max_delay=1.0,
            jitter=chance.random() < 0.5,
        ),
        on_failure=chance.choice(
            (DeadLetter(), DeadLetter(), ParkKey(), ParkKey(), Discard(), ParkPartition())
        ),
        breaker=Breaker(failures=3, pause=1.0) if chance.random() < 0.5 else None,
        poison=poison,
        permanent=permanent,
        flaky=flaky,
        slow=frozenset(n for n in numbers if chance.random() < slow),
    )


def _inputs(chance: Random, index: int, streams: dict[str, int]) -> tuple[str, ...]:
    """The first function reads sources; later ones what is there already."""
    if index and chance.random() < 0.8:
        return (f"out{index - 1}",)
    if index:
        return ("in0",)
    streams["in0"] = chance.choice((1, 1, 2, 3, 4, 8))
    if chance.random() < 0.25:
        streams["in1"] = streams["in0"]
        return ("in0", "in1")
    return ("in0",)


def _odds(chance: Random) -> dict[Fault, float]:
    highest = {
        Fault.SLOW: 0.3,
        Fault.LATE: 0.2,
        Fault.REFUSED: 0.1,
        Fault.FULL: 0.05,
        Fault.CONFLICT: 0.1,
        Fault.UNKNOWN: 0.1,
        Fault.DIE_BEFORE: 0.04,
        Fault.DIE_AFTER: 0.04,
    }
    return {
        fault: chance.random() * most for fault, most in highest.items() if chance.random() < 0.4
    }


def _actions(
    chance: Random,
    streams: dict[str, int],
    functions: tuple[PlannedFunction, ...],
    numbers: range,
    *,
    calm: bool,
) -> tuple[Action, ...]:
    sources = sorted(name for name in streams if name.startswith("in"))
    found = _publishes(chance, sources, numbers)
    names = [function.name for function in functions]

    def moment() -> float:
        return chance.uniform(0.0, HORIZON_S)

    if not calm:
        for _ in range(chance.choice((0, 0, 1, 2))):
            found.append(Action(moment(), "crash"))
        for _ in range(chance.choice((0, 1, 1, 3))):
            found.append(Action(moment(), "crash at", chance.choice(LABELS), chance.randint(1, 4)))
        if chance.random() < 0.25:
            found.append(Action(start := moment(), "take over"))
            found.append(Action(start + chance.uniform(0.0, 3.0), "thaw"))
        if chance.random() < 0.2:
            found.append(Action(moment(), "skew", amount=chance.choice((-86_400, -60, 60, 86_400))))
    if chance.random() < 0.3:
        found.append(Action(moment(), "redrive", chance.choice(names)))
    if chance.random() < 0.1:
        found.append(Action(moment(), "discard", chance.choice(names)))
    if chance.random() < 0.15:
        name = chance.choice(names)
        found.append(Action(start := moment(), "pause", name))
        found.append(Action(start + chance.uniform(0.0, 2.0), "resume", name))
    if chance.random() < 0.06:
        found.append(Action(moment(), "reset", chance.choice(names)))
    if chance.random() < 0.4:
        found.append(Action(HORIZON_S * 2, "heal"))
    return tuple(sorted(found, key=lambda action: action.at))


def _publishes(chance: Random, sources: list[str], numbers: range) -> list[Action]:
    keys = [f"k{number}" for number in range(chance.choice((1, 2, 3, 5)))]
    keyless = chance.choice((0.0, 0.0, 0.3))
    garbage = chance.choice((0.0, 0.0, 0.05))
    found: list[Action] = []
    waiting = [
        PlannedEvent(
            number,
            None if chance.random() < keyless else chance.choice(keys),
            chance.choice((None, 1_000_000 * number)),
            chance.random() < garbage,
        )
        for number in numbers
    ]
    at = 0.0
    while waiting:
        size = chance.choice((1, 2, 4, 8, 20))
        group, waiting = tuple(waiting[:size]), waiting[size:]
        stream = chance.choice(sources)
        found.append(Action(at, "publish", stream, events=group))
        if chance.random() < 0.2:
            found.append(Action(at + chance.uniform(0.0, 1.0), "publish", stream, events=group))
        at += chance.choice((0.0, 0.0, chance.uniform(0.0, HORIZON_S / 3)))
    return found
