"""Selection of the scenes of a run, and the classes that play them."""

from __future__ import annotations

from collections.abc import Callable
from random import Random  # noqa: TID251 - the plan's own chance, from the seed

from headrace.simulation.scenes.base import Scene
from headrace.simulation.scenes.buses import BusScene, PlannedBus, draw_bus
from headrace.simulation.scenes.consumers import ConsumerScene, PlannedConsumer, draw_consumer
from headrace.simulation.scenes.http import HttpScene, PlannedHttpClient
from headrace.simulation.scenes.merges import MergeScene, PlannedMerge
from headrace.simulation.scenes.queues import PlannedQueue, QueueScene, draw_queue
from headrace.simulation.scenes.schedules import PlannedSchedules, ScheduleScene, draw_calendar
from headrace.simulation.scenes.windows import PlannedWindows, WindowScene

PlannedScene = (
    PlannedQueue
    | PlannedBus
    | PlannedSchedules
    | PlannedConsumer
    | PlannedMerge
    | PlannedHttpClient
    | PlannedWindows
)

_DRAWS: tuple[Callable[[Random], PlannedScene], ...] = (
    draw_queue,
    draw_bus,
    draw_calendar,
    draw_consumer,
)


def draw_scenes(chance: Random, count: int) -> tuple[PlannedScene, ...]:
    """So many scenes, no two of a kind."""
    return tuple(draw(chance) for draw in chance.sample(_DRAWS, count))


def scene_of(planned: PlannedScene) -> Scene:
    """The scene that plays what is planned."""
    match planned:
        case PlannedQueue():
            return QueueScene(planned)
        case PlannedBus():
            return BusScene(planned)
        case PlannedSchedules():
            return ScheduleScene(planned)
        case PlannedConsumer():
            return ConsumerScene(planned)
        case PlannedMerge():
            return MergeScene(planned)
        case PlannedHttpClient():
            return HttpScene(planned)
        case PlannedWindows():
            return WindowScene(planned)
