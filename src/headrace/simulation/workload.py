"""Handlers of the planned functions: the topology as an author would write it, with its faults.

In: a plan. Out: an app whose handlers leave an output and a note in the state for every event, and
fail, dawdle or refuse where the plan says so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from headrace.environment.clock import Clock
from headrace.sdk.app import App
from headrace.sdk.batch import Batch
from headrace.sdk.context import Context
from headrace.sdk.event import Event
from headrace.sdk.results import Failures, Permanent
from headrace.sdk.stream import Stream
from headrace.simulation.plan_values import TIMEOUT_S, Plan, PlannedFunction
from headrace.simulation.scenes.base import APP, WINDOW_S

FLOW = (
    "concurrency",
    "throttle",
    "sample",
    "debounce",
    "singleton",
    "priority",
    "batch_per_key",
)


class Troubled(Exception):
    """Planned error of a handler."""


class Workload:
    """Behaviour of the planned handlers; remembers the attempts it has seen, as an external system would."""

    def __init__(self) -> None:
        self.healed = False
        self.clock: Clock
        self._tries: dict[tuple[str, int], int] = {}

    def check(self, function: PlannedFunction, number: int) -> None:
        """Raise, where the plan says so."""
        if number in function.poison and not self.healed:
            if number in function.permanent:
                raise Permanent(f"{number} is poison for good")
            raise Troubled(f"{number} is poison")
        wanted = function.flaky.get(number, 0)
        if wanted and self._count(function.name, number) <= wanted:
            raise Troubled(f"{number} is flaky")

    def dawdles(self, function: PlannedFunction, number: int) -> bool:
        """Return whether this event overruns the timeout now."""
        return number in function.slow and self._count(f"slow {function.name}", number) == 1

    def _count(self, what: str, number: int) -> int:
        found = self._tries[what, number] = self._tries.get((what, number), 0) + 1
        return found


def app_of(plan: Plan, deeds: Workload) -> App:
    """The plan's topology, as an author would have written it."""
    app = App(APP)
    streams = {
        name: (app.queue if name in plan.queues else app.stream)(
            name,
            partitions=count,
            dedupe_window=plan.dedupe.get(name, WINDOW_S),
            retention_age=plan.kept.get(name),
            **_cleanup(plan, name),
        )
        for name, count in plan.streams.items()
    }
    for planned in plan.functions:
        app.function(
            *(streams[name].read(pattern=_pattern(planned)) for name in planned.streams),
            name=planned.name,
            batch_size=planned.batch_size,
            batch_bytes=planned.batch_bytes,
            batch_window=planned.batch_window,
            order=planned.order,
            parallelism=1 if planned.is_merged else planned.parallelism,
            commit=planned.commit,
            bisect=planned.bisect,
            retry=planned.retry,
            on_failure=planned.on_failure,
            breaker=planned.breaker,
            timeout=TIMEOUT_S,
            **_options(planned),
        )(_handler(planned, streams[planned.output], deeds, shows_events=plan.shows_events))
    return app


def _cleanup(plan: Plan, name: str) -> dict[str, Any]:
    return {"cleanup": "compact"} if name in plan.compacted else {}


def _options(planned: PlannedFunction) -> dict[str, Any]:
    """The options that only some plans give."""
    found: dict[str, Any] = {
        name: getattr(planned, name) for name in FLOW if getattr(planned, name)
    }
    if planned.is_merged:
        found |= {"merge": "time", "idle_timeout": 0.3}
    return found


def _pattern(planned: PlannedFunction) -> dict[str, Any] | None:
    """Return the pattern of the events that the function gets; None means all."""
    if planned.least is None:
        return None
    return {"value": {"n": [{"numeric": [">=", planned.least]}]}}


def _handler(
    planned: PlannedFunction, output: Stream[Any], deeds: Workload, *, shows_events: bool
) -> Callable[..., Any]:
    """A handler of the planned shape: an output and a note in the state for every event."""
    prefix = f"{APP}.{planned.name}"

    def work(event: Event[Any], context: Context) -> None:
        number = event.value["n"]
        deeds.check(planned, number)
        at = event.position
        value = {"n": number, "from": f"{prefix}@{at}"}
        if shows_events:
            value["saw"] = [
                event.key,
                round(event.timestamp * 1e6),
                event.id,
                dict(event.headers),
                event.type,
                event.source,
            ]
        context.publish(output, value, key=event.key)
        if planned.keeps_state:
            context.state.update(f"{prefix}|{event.key}", lambda seen: [*(seen or ()), at])

    async def slowly(event: Event[Any], context: Context) -> None:
        if deeds.dawdles(planned, event.value["n"]):
            await deeds.clock.sleep(TIMEOUT_S * 2)
        work(event, context)

    def single(event: Event[Any], context: Context) -> None:
        work(event, context)

    async def asynchronous(event: Event[Any], context: Context) -> None:
        await slowly(event, context)

    def batch(events: Batch[Any], context: Context) -> None:
        for event in events:
            work(event, context)

    async def asynchronous_batch(events: Batch[Any], context: Context) -> None:
        for event in events:
            await slowly(event, context)

    def done(events: Batch[Any], context: Context) -> None:
        for event in events:
            work(event, context)
            context.done(event)

    def failures(events: Batch[Any], context: Context) -> Failures:
        bad: list[Event[Any]] = []
        for event in events:
            if event.key is not None and any(event.key == other.key for other in bad):
                bad.append(event)
                continue
            try:
                work(event, context)
            except Exception:  # noqa: BLE001 - whatever it is, it is reported by name
                bad.append(event)
        return Failures(bad)

    shapes: dict[str, Callable[..., Any]] = {
        "single": single,
        "async": asynchronous,
        "batch": batch,
        "done": done,
        "failures": failures,
        "async batch": asynchronous_batch,
    }
    return shapes[planned.shape]
