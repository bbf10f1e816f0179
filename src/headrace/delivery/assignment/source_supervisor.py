"""Sources are kept running: each trigger that is not a stream has a task that feeds a stream of its own.

In come functions with such triggers; what their sources say is appended, and partition workers read it. A source
that fails is started again after a pause; one that can never work is remembered as halted.
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
"""Whose delivery it is: a function, the streams that are read together, a partition."""


class SourceSupervisor:
    """Owned by the partition supervisor, one for the node; its tasks are the partition supervisor's.

    Args:
        halted: Is told why one can never work.
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
        """Pass, where the trigger has a source that can be opened here.

        Raises:
            Misuse: It cannot work.
        """
        with named(function):
            open_source(function, trigger, self._around)

    def start(self, function: FunctionSpec, trigger: Trigger, stream: str) -> None:
        """Let the trigger's source feed `stream` from now on, once the one before it has ended."""
        # Not the key of the partition worker that reads the stream: each clears only what it said itself.
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
        """Let nothing more be said on `stream`; who says it now, to be stopped, where somebody does."""
        return self._feeds.pop(stream, None)

    def trouble(self, stream: str) -> TaskFailure | None:
        """What is wrong with the source of `stream`; None where it is well, or there is none."""
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
            await before.stop()
        try:
            await open_source(function, trigger, self._around).run(appender)
        except Misuse as error:
            self._halted[function.name, (appender.stream, "source"), 0] = (
                f"its trigger cannot work: {error}"
            )
            raise


def _name(function: FunctionSpec, trigger: Trigger) -> str:
    """What an operator reads where it fails: which of whose triggers it is."""
    return f"feed {function.name} ({trigger.__struct_config__.tag})"
