"""Draws what comes on top of a plan's core: flow control, patterns, dedupe windows, scenes.

In: a plan. Out: the plan, or a wider one. Each kind of thing has a chance of its own, so that the core
of a seed, and with it every seed that once found a fault, stays what it was.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random  # noqa: TID251 - the plan's own chance, from the seed
from typing import Any

import msgspec

from headrace.model.flow_control import Concurrency, Debounce, Priority, Sample, Singleton, Throttle
from headrace.simulation.plan_values import (
    HORIZON_S,
    LABELS,
    Action,
    Deed,
    Plan,
    PlannedEvent,
    PlannedFunction,
)
from headrace.simulation.scenes.http import draw_desk
from headrace.simulation.scenes.merges import draw_merge
from headrace.simulation.scenes.queues import PlannedQueue, crowded
from headrace.simulation.scenes.selection import PlannedScene, draw_scenes
from headrace.simulation.scenes.windows import closed_early, draw_windows

replace = msgspec.structs.replace
REMOTE = 0.12
"""The share of seeds whose log keeps its own disk."""
OUTBOX_LABELS = ("outbox:before-publish", "outbox:after-publish")
SCENE_LABELS = (
    "lease:before-write",
    "lease:after-write",
    "delay:before-append",
    "feed:before-append",
    "feed:after-append",
    "append:before-commit",
    "append:after-commit",
)


def widened(plan: Plan) -> Plan:
    """The plan with what its seed adds to it; some of the seeds add nothing."""
    plan = _stopped(_windowed(_patient(_crowded(_forgetting(_dressed(_beyond(plan)))))))
    return _remote(_reloaded(plan))


def _remote(plan: Plan) -> Plan:
    """Some seeds have a log that shares no transaction with the store."""
    chance = Random(f"the log of {plan.seed}")
    # One node owns an outbox (ADR 0044): two at a time are not promised anything yet.
    has_two_hosts = any(action.deed == "take over" for action in plan.actions)
    if chance.random() > REMOTE or has_two_hosts:
        return plan
    plan = replace(plan, remote_log=True)
    if plan.calm:
        return plan
    added = [
        Action(chance.uniform(0.0, HORIZON_S), "crash at", label, chance.randint(1, 6))
        for label in OUTBOX_LABELS
        if chance.random() < 0.4
    ]
    return replace(plan, actions=tuple(sorted((*plan.actions, *added), key=lambda each: each.at)))


def _reloaded(plan: Plan) -> Plan:
    """Now and then another version of the app is deployed while it works."""
    chance = Random(f"the reloads of {plan.seed}")
    if not plan.functions or chance.random() > 0.25:
        return plan
    names = [function.name for function in plan.functions]
    deeds: tuple[Deed, ...] = ("reload", "reload otherwise", "reload otherwise", "reload without")
    added = [
        Action(chance.uniform(0.0, HORIZON_S), chance.choice(deeds), chance.choice(names))
        for _ in range(chance.choice((1, 2, 5)))
    ]
    return replace(plan, actions=tuple(sorted((*plan.actions, *added), key=lambda each: each.at)))


def _beyond(plan: Plan) -> Plan:
    chance = Random(f"beyond the core of {plan.seed}")
    kind = chance.random()
    if kind < 0.06:
        # An answer is remembered for a day of the wall clock, which is not set here.
        return _unskewed(_add_scenes(plan, chance, (draw_desk(chance),)))
    if kind < 0.28:
        return _coalesced(plan)
    if kind < 0.35:
        return _add_scenes(plan, chance, (draw_merge(chance),))
    if kind < 0.65:
        return _with_flow(plan, chance)
    return _with_scenes(plan, chance)


def _coalesced(plan: Plan) -> Plan:
    """Some functions keep no state and take small batches, which are then coalesced."""
    chance = Random(f"the convoys of {plan.seed}")
    if chance.random() < 0.3:
        return plan
    functions = tuple(
        replace(each, keeps_state=False, batch_size=chance.choice((1, 1, 2, 3)))
        if chance.random() < 0.7
        else each
        for each in plan.functions
    )
    return replace(plan, functions=functions)


# --- events and streams ---------------------------------------------------------------------------


def _dressed(plan: Plan) -> Plan:
    """Events with headers, types and sources, and a key that is empty; outputs include those fields."""
    chance = Random(f"the keys and headers of the events of {plan.seed}")
    if not plan.functions or chance.random() > 0.2:
        return plan
    empty = chance.choice((None, "k0", "k1"))
    looks: dict[int, dict[str, Any]] = {}

    def dressed(event: PlannedEvent) -> PlannedEvent:
        # A repeated publish repeats it.
        if event.number not in looks:
            looks[event.number] = {
                "headers": chance.choice(({}, {}, {"a": ""}, {"a": "1", "ü": "€ 2"})),
                "type": chance.choice((None, None, "", "made.here")),
                "source": chance.choice((None, None, "", "/there#1")),
            }
        key = "" if event.key is not None and event.key == empty else event.key
        return replace(event, key=key, **looks[event.number])

    return replace(plan, actions=_each(plan.actions, dressed), shows_events=True)


def _forgetting(plan: Plan) -> Plan:
    """The first stream keeps its events for a while only, or the last one of every key."""
    chance = Random(f"the sweeps of {plan.seed}")
    # Whether a rate has counted an event that retention removed is not known.
    counts = any(each.sample is not None for each in plan.functions)
    if not plan.functions or counts or plan.queues or chance.random() > 0.25:
        return plan
    sweeps = tuple(
        Action(chance.uniform(0.0, HORIZON_S), "sweep") for _ in range(chance.choice((1, 2, 4)))
    )
    actions = tuple(sorted((*plan.actions, *sweeps), key=lambda action: action.at))
    if chance.random() < 0.5:
        return replace(plan, actions=actions, kept={"in0": chance.choice((0.3, 1.0, 3.0))})
    keyed = _each(
        actions, lambda event: event if event.key is not None else replace(event, key="k0")
    )
    return replace(plan, actions=keyed, compacted=frozenset({"in0"}))


def _crowded(plan: Plan) -> Plan:
    """A queue in which more messages die than are listed at once."""
    chance = Random(f"the crowd in {plan.seed}")
    if chance.random() > 0.1:
        return plan
    scenes = tuple(
        crowded(each, chance) if isinstance(each, PlannedQueue) else each for each in plan.scenes
    )
    return replace(plan, scenes=scenes)


def _patient(plan: Plan) -> Plan:
    """Nothing but a function whose keys wait: for their window, or until they are quiet."""
    chance = Random(f"the patience of {plan.seed}")
    lanes = [each for each in plan.functions if each.streams == ("in0",) and each.commit == "after"]
    if not lanes or plan.queues or chance.random() > 0.06:
        return plan
    quiet = chance.choice((0.2, 0.4))
    waits: dict[str, Any] = chance.choice(
        (
            {"batch_per_key": True, "batch_window": chance.choice((0.2, 0.5))},
            {
                "debounce": Debounce(quiet, longest=quiet * chance.choice((2, 3))),
                "batch_window": 0.0,
            },
        )
    )
    function = replace(
        lanes[0],
        drawn_order="key",
        parallelism=chance.choice((1, 2, 4)),
        batch_size=50,
        batch_bytes=4 << 20,
        poison=frozenset(),
        permanent=frozenset(),
        flaky={},
        slow=frozenset(),
        concurrency=None,
        throttle=None,
        sample=None,
        debounce=None,
        singleton=None,
        priority=None,
        least=None,
        batch_per_key=False,
    )
    function = replace(function, **waits)
    at, actions = 0.0, []
    for number in range(chance.choice((10, 20, 40))):
        event = PlannedEvent(number, f"k{chance.choice((0, 0, 1))}", 0, garbage=False)
        actions.append(Action(at, "publish", "in0", events=(event,)))
        at += chance.choice((0.05, 0.1, 0.1, 1.0))
    if chance.random() < 0.5:
        # However often hosts come and go: a key waits from its first event on, over all of them.
        every = chance.choice((0.15, 0.3))
        actions += [Action(every * (number + 1), "crash") for number in range(int(at / every))]
        actions.sort(key=lambda action: action.at)
    streams = {name: plan.streams[name] for name in ("in0", function.output)}
    return replace(
        plan,
        calm=True,
        odds={},
        mishaps=0.0,
        stale_reads=0.0,
        actions=tuple(actions),
        functions=(function,),
        streams=streams,
        scenes=(),
        dedupe={},
        kept={},
        compacted=frozenset(),
        shows_events=False,
    )


def _windowed(plan: Plan) -> Plan:
    """Windows in addition to the functions and scenes, or instead of them."""
    chance = Random(f"the windows of {plan.seed}")
    if plan.scenes or chance.random() > 0.08:
        return plan
    planned = draw_windows(chance)
    otherwise = Random(f"how else the windows of {plan.seed} are closed")
    if otherwise.random() < 0.6:
        planned = closed_early(planned, otherwise)
    return _add_scenes(plan, chance, (planned,))


def _stopped(plan: Plan) -> Plan:
    """Hosts are stopped in order, some while they are about to die anyhow, and others take their place."""
    chance = Random(f"who is asked to stop in what is drawn of {plan.seed}")
    if chance.random() > 0.09:
        return plan
    found: list[Action] = []
    for _ in range(chance.choice((1, 2, 4))):
        at = chance.uniform(0.0, HORIZON_S)
        found.append(Action(at, "drain", amount=chance.choice((0.0, 0.31, 1.7, 5.3))))
        if not plan.calm and chance.random() < 0.5:
            label = chance.choice(LABELS)
            found.append(Action(at, "crash at", label, chance.randint(1, 3)))
    actions = tuple(sorted((*plan.actions, *found), key=lambda action: action.at))
    return replace(plan, actions=actions, takes=chance.choice((0.0, 0.05, 0.2, 0.2)))


def _each(
    actions: tuple[Action, ...], change: Callable[[PlannedEvent], PlannedEvent]
) -> tuple[Action, ...]:
    """The actions, with every event changed."""
    return tuple(replace(action, events=tuple(map(change, action.events))) for action in actions)


# --- functions -----------------------------------------------------------------------------------


def _with_flow(plan: Plan, chance: Random) -> Plan:
    """Flow control, patterns, everything poisoned, streams read side by side, short windows."""
    functions = tuple(_controlled(each, chance) for each in plan.functions)
    if chance.random() < 0.1:
        numbers = {event.number for act in plan.actions for event in act.events}
        functions = tuple(replace(each, poison=frozenset(numbers)) for each in functions)
    if chance.random() < 0.5:
        functions = tuple(
            replace(each, merge=False) if len(each.streams) > 1 else each for each in functions
        )
    if len(functions) > 1 and chance.random() < 0.3:
        last = functions[-1]
        both = tuple(dict.fromkeys((*last.streams, "in0")))
        functions = (*functions[:-1], replace(last, streams=both, merge=False))
    plan = replace(plan, functions=functions)
    if any(each.priority is not None for each in functions):
        plan = replace(plan, actions=_ranked(plan.actions, chance))
    if chance.random() < 0.2:
        plan = replace(plan, dedupe={"in0": chance.choice((0.4, 1.5))})
    elif chance.random() < 0.3 and all(each.commit == "after" for each in plan.functions):
        plan = replace(plan, queues=frozenset({"in0"}), actions=_delayed(plan.actions, chance))
    return plan


def _controlled(function: PlannedFunction, chance: Random) -> PlannedFunction:
    found: dict[str, Any] = {}
    if chance.random() < 0.3:
        found["least"] = chance.choice((2, 5, 1_000))
    policy = chance.choice(
        (
            "none",
            "throttle",
            "throttle",
            "concurrency",
            "sample",
            "sample",
            "debounce",
            "debounce",
            "singleton",
            "singleton",
            "priority",
            "batch",
        ),
    )
    lanes = len(function.streams) == 1 and function.commit == "after"
    per_key = lanes and chance.random() < 0.5
    match policy:
        case "throttle":
            limit, burst = chance.choice((1, 2, 5)), chance.choice((1, 1, 3))
            found["throttle"] = Throttle(limit, per=1.0, burst=burst, per_key=per_key)
        case "concurrency":
            limit = chance.choice((1, 2, 3))
            found["concurrency"] = Concurrency(limit, key_limit=1 if per_key else None)
        case "sample":
            sample = Sample(
                chance.choice((1, 2, 5)), per=chance.choice((0.5, 2.0)), per_key=per_key
            )
            found["sample"] = sample
        case "debounce" if lanes:
            quiet = chance.choice((0.2, 1.0))
            longest = chance.choice((None, quiet * 2))
            found |= {"debounce": Debounce(quiet, longest=longest), "batch_window": 0.0}
            per_key = True
        case "singleton" if lanes:
            found["singleton"] = Singleton(chance.choice(("skip", "skip", "wait")))
            per_key = True
        case "priority" if lanes:
            found["priority"] = Priority()
            per_key = True
        case "batch" if lanes:
            found |= {"batch_per_key": True, "batch_window": chance.choice((0.0, 0.3))}
            per_key = True
        case _:
            pass
    if per_key and lanes and function.order == "partition" and policy not in {"sample", "none"}:
        found |= {"drawn_order": "key", "parallelism": chance.choice((1, 2, 4))}
    return replace(function, **found)


def _ranked(actions: tuple[Action, ...], chance: Random) -> tuple[Action, ...]:
    """With a priority for every event; a repeated publish repeats it."""
    ahead: dict[int, int] = {}
    return tuple(
        replace(
            action,
            events=tuple(
                replace(
                    event,
                    priority=ahead.setdefault(event.number, chance.choice((0, 0, 60, -60))),
                )
                for event in action.events
            ),
        )
        for action in actions
    )


def _delayed(actions: tuple[Action, ...], chance: Random) -> tuple[Action, ...]:
    """With a delay for some events on the queue; a repeated publish repeats it."""
    delays: dict[int, float] = {}
    return tuple(
        replace(
            action,
            events=tuple(
                replace(
                    event,
                    delay=delays.setdefault(event.number, chance.choice((0.0, 0.0, 0.3, 2.0))),
                )
                for event in action.events
            ),
        )
        if action.target == "in0"
        else action
        for action in actions
    )


# --- scenes --------------------------------------------------------------------------------------


def _with_scenes(plan: Plan, chance: Random) -> Plan:
    """One scene, now and then two; mostly without the functions of the core."""
    return _add_scenes(plan, chance, draw_scenes(chance, chance.choice((1, 1, 1, 2))))


def _add_scenes(plan: Plan, chance: Random, scenes: tuple[PlannedScene, ...]) -> Plan:
    actions, functions, streams = plan.actions, plan.functions, plan.streams
    if chance.random() < 0.7:
        functions, streams = (), {}
        alone = {"crash", "crash at", "take over", "thaw", "skew", "drain"}
        actions = tuple(action for action in actions if action.deed in alone)
    if not plan.calm and chance.random() < 0.6:
        struck = Action(
            chance.uniform(0.0, HORIZON_S),
            "crash at",
            chance.choice(SCENE_LABELS),
            chance.randint(1, 4),
        )
        actions = tuple(sorted((*actions, struck), key=lambda action: action.at))
    if len(scenes) > 1:
        # A lease that the clock prolongs by a day is waited for; no other scene could bear that.
        plan = _unskewed(replace(plan, actions=actions))
        actions = plan.actions
    return replace(plan, scenes=scenes, actions=actions, functions=functions, streams=streams)


def _unskewed(plan: Plan) -> Plan:
    """The plan without changes of the clock."""
    return replace(plan, actions=tuple(each for each in plan.actions if each.deed != "skew"))
