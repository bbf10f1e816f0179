"""Supervisor of sources: each trigger that is not a stream has a task that appends to a private stream.

In: functions with such triggers. Out: appended events, which partition workers read. A source that fails is restarted
after a pause; one that can never work is recorded as halted.
"""

from __future__ import annotations

from headrace.delivery.engine import Engine
from headrace.environment.supervised_task import Supervised, TaskFailure
from headrace.model.errors import Misuse
from headrace.model.function import FunctionSpec
from headrace.model.triggers.base import Trigger
from headrace.sources.base import SourceAppender
from headrace.sources.open import SourceContext, open_source
from headrace.sources.trigger_checks import named

Key = tuple[str, tuple[str, ...], int]
"""A function, the streams that it reads together, and a partition."""


class SourceSupervisor:
    """Owned by the partition supervisor, one for the node; its tasks are the partition supervisor's.

    Args:
        halted: Receives the reason why a source can never work.
    """

    def __init__(
        self,
        around: SourceContext,
        *,
        engine: Engine,
        halted: dict[Key, str],
    ) -> None:
        self._around = around
        self._engine = engine
        self._halted = halted
        self._feeds: dict[str, Supervised] = {}

    def check(self, function: FunctionSpec, trigger: Trigger) -> None:
        """Check that the trigger has a source that can be opened here.

        Raises:
            Misuse: It cannot work.
        """
        with named(function):
            open_source(function, trigger, self._around)

    def start(self, function: FunctionSpec, trigger: Trigger, stream: str) -> None:
        """Let the trigger's source append to `stream`, once the former one has ended."""
        # Another key than the partition worker's that reads the stream: each clears only its own
        # entry.
        self._halted.pop((function.name, (stream, "source"), 0), None)
        before = self.end(stream)

        async def feed() -> None:
            appender = SourceAppender(
                self._engine.storage,
                self._engine.log,
                self._engine.committer.commit,
                stream=stream,
                on_success=supervised.recovered,
            )
            await self._feed(function, trigger, appender, before)

        supervised = self._feeds[stream] = self._engine.tasks.supervise(
            feed, name=_name(function, trigger), backoff=self._engine.backoff(), halts=Misuse
        )

    def end(self, stream: str) -> Supervised | None:
        """Remove the source of `stream`; return its task for the caller to stop, None if there is none."""
        return self._feeds.pop(stream, None)

    def trouble(self, stream: str) -> TaskFailure | None:
        """Return the failure of the source of `stream`; None if it works, or there is none."""
        feed = self._feeds.get(stream)
        return None if feed is None else feed.trouble

    async def _feed(
        self,
        function: FunctionSpec,
        trigger: Trigger,
        appender: SourceAppender,
        before: Supervised | None,
    ) -> None:
        if before is not None:
            # Two sources of one trigger at once would append everything twice.
            await before.stop()
        try:
            await open_source(function, trigger, self._around).run(appender)
        except Misuse as error:
            self._halted[function.name, (appender.stream, "source"), 0] = (
                f"its trigger cannot work: {error}"
            )
            raise


def _name(function: FunctionSpec, trigger: Trigger) -> str:
    """Return the task's name, which an operator reads when it fails: the function and the trigger."""
    return f"feed {function.name} ({trigger.__struct_config__.tag})"
