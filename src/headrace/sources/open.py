"""A trigger -> the source that serves it; drivers are loaded only when one is needed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from headrace.environment.clock import Clock
from headrace.environment.randomness import Entropy
from headrace.model.errors import Misuse
from headrace.model.function import FunctionSpec
from headrace.model.invocation import CallInvocation
from headrace.model.outcome import Outcome
from headrace.model.triggers.base import Trigger
from headrace.model.triggers.bus import Rule
from headrace.model.triggers.files import Custom, Ends, Files, Missing, Objects, Sftp, Silence
from headrace.model.triggers.foreign import ForeignTrigger
from headrace.model.triggers.http import Http, Webhook
from headrace.model.triggers.schedules import At, Cron, Every
from headrace.model.triggers.tables import SqlTable
from headrace.sources.base import Source, SourceAppender
from headrace.sources.schedules.schedule_queue import ScheduleQueue
from headrace.storage.log.base import Broker


@dataclass(frozen=True)
class SourceContext:
    """The parts of the node that every source may use.

    Attributes:
        folder: The node's data folder, where it has one.
        broker: The log, for sources that watch streams.
        invoke: Runs a function, for sources that are the author's own code.
        outside: Whether other systems are there; on virtual time they are not.
        agenda: Keeps the node's appointments with the clock, for schedules.
    """

    clock: Clock
    entropy: Entropy
    folder: Path | None = None
    broker: Broker | None = None
    invoke: Callable[[CallInvocation], Awaitable[Outcome]] | None = None
    outside: bool = True
    agenda: ScheduleQueue | None = None


def open_source(function: FunctionSpec, trigger: Trigger, around: SourceContext) -> Source:
    """The source of `trigger`, not running yet.

    Raises:
        Misuse: The trigger cannot work as configured, or a library it needs is not installed.
    """
    match trigger:
        # Listed although they need no source: an unknown trigger must end in the error below, not
        # pass in silence.
        case Http() | Webhook() | Rule() | Ends():
            return Fed()
        case Cron() | Every() | At() if around.agenda is not None:
            # Imported here, as all drivers are: each pulls in a library, and a node pays only for
            # those it uses.
            from headrace.sources.schedules.source import ScheduleSource

            return ScheduleSource(trigger, around.clock, around.agenda)
        # On virtual time there is no network: a world in a test publishes such events by hand.
        case Objects() | Sftp() if not around.outside:
            from headrace.sources.foreign.open import Unheard

            return Unheard()
        case Files() | Objects() | Sftp():
            from headrace.sources.files.source import FilesSource

            return FilesSource(trigger, around.clock)
        case SqlTable(scheme="sqlite"):
            from headrace.sources.tables.sqlite import OutboxSource

            return OutboxSource(trigger, around.clock, threads=around.outside)
        case SqlTable() if around.outside:
            return _replication(trigger, around)
        case SqlTable():
            from headrace.sources.foreign.open import Unheard

            return Unheard()
        case Silence() | Missing() if around.broker is not None:
            from headrace.sources.silence import FreshnessSource

            return FreshnessSource(function, trigger, around.broker, around.clock)
        case Custom() if around.invoke is not None:
            from headrace.sources.custom import CustomSource

            return CustomSource(trigger, around.invoke, around.clock, around.entropy)
        case _ if isinstance(trigger, ForeignTrigger):
            from headrace.sources.foreign.open import Unheard, open_foreign

            if not around.outside:
                return Unheard()
            return open_foreign(function.name, trigger, clock=around.clock, entropy=around.entropy)
        case _:
            kind = trigger.__struct_config__.tag
            raise Misuse(f"`{function.name}`: no source serves a `{kind}` trigger on this node")


def _replication(trigger: SqlTable, around: SourceContext) -> Source:
    try:
        from headrace.sources.tables.postgres import ReplicationSource
    except ImportError as error:
        # psycopg is an extra: its absence is the user's to mend, so the error names the package.
        from headrace.sources.foreign.base import lacking

        raise lacking("postgres", error) from error
    return ReplicationSource(trigger, around.clock, around.folder)


class Fed:
    """Needs no source: the HTTP server, a router or the function itself appends what comes in."""

    async def run(self, appender: SourceAppender) -> None:
        """Nothing to do."""
