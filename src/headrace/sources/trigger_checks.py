"""Checks of an app's triggers before anything runs: at a deployment, and by `validate`.

Patterns and timetables are read and drivers of other systems looked for; nothing is connected to.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from headrace.environment.clock import Clock
from headrace.environment.randomness import Entropy
from headrace.model.errors import Misuse
from headrace.model.function import AppSpec, FunctionSpec
from headrace.model.triggers.base import StreamTrigger, Trigger
from headrace.model.triggers.files import Files
from headrace.model.triggers.foreign import ForeignTrigger
from headrace.model.triggers.http import Http
from headrace.model.triggers.schedules import At, Cron, Every
from headrace.patterns.record_filter import Selection
from headrace.patterns.schema_validation import Checker
from headrace.sources.files.folder import shown_path
from headrace.sources.foreign.open import open_foreign
from headrace.sources.schedules.timetable import timetable_of


@contextmanager
def named(function: FunctionSpec) -> Iterator[None]:
    """Let what is refused within say whose it is: an app may have a hundred triggers."""
    try:
        yield
    except Misuse as error:
        # Some checks name the function themselves; naming it twice would read as two.
        if f"`{function.name}`" in str(error):
            raise
        place = f" ({function.source})" if function.source else ""
        raise Misuse(f"`{function.name}`{place}: {error}") from error


def check_patterns(app: AppSpec) -> None:
    """Pass, where every pattern of the app's listeners can be read, and every type of its routes.

    Raises:
        Misuse: One cannot; the message names its function.
    """
    for function in app.functions:
        for trigger in function.triggers:
            if isinstance(trigger, StreamTrigger) and trigger.pattern is not None:
                with named(function):
                    Selection(trigger.pattern)
            elif isinstance(trigger, Http):
                with named(function):
                    _read_types(trigger)


def _read_types(route: Http) -> None:
    for schema in (route.schema, route.query_schema):
        if schema is not None:
            Checker(schema)


def refusals(app: AppSpec, clock: Clock, entropy: Entropy) -> list[str]:
    """A sentence for each trigger that a node would refuse to serve."""
    found = []
    for function in app.functions:
        for trigger in function.triggers:
            try:
                with named(function):
                    _try(function, trigger, clock, entropy)
            except Misuse as error:
                # All of them, not the first: an author corrects them in one round.
                found.append(str(error))
    return found


def missing_folders(app: AppSpec) -> list[str]:
    """A sentence for each watched folder that is not there; its source waits until it is."""
    return [
        f"`{function.name}`{f' ({function.source})' if function.source else ''}: there is no folder "
        f"{shown_path(trigger.path)} to watch; create it, or correct the path"
        for function in app.functions
        for trigger in function.triggers
        if isinstance(trigger, Files) and not Path(trigger.path).is_dir()
    ]


def _try(function: FunctionSpec, trigger: Trigger, clock: Clock, entropy: Entropy) -> None:
    match trigger:
        case StreamTrigger(pattern=dict() as pattern):
            Selection(pattern)
        case Http():
            _read_types(trigger)
        case Cron() | Every() | At():
            timetable_of(trigger)
        case _ if isinstance(trigger, ForeignTrigger):
            open_foreign(function.name, trigger, clock=clock, entropy=entropy)
        case _:
            pass
