"""A task that is restarted after each failure, with a pause, and that reports its failures.

It is healthy again when its work calls `recovered`, or has run for a while since its last failure.
Nothing here survives the process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final

import msgspec

from headrace.environment.restart_backoff import Backoff
from headrace.model.errors import HeadraceError

WELL_AFTER_S: Final = 30.0
"""Time without a failure after which it is healthy again."""
MAX_ERROR: Final = 2_000

Work = Callable[[], Coroutine[Any, Any, None]]


class TaskFailure(msgspec.Struct, frozen=True):
    """Failures of a supervised task.

    Attributes:
        error: The text of its last failure.
        failures: How often it has failed in a row.
        since: When the first of these failures was, in microseconds since the epoch.
        halted: Whether it is not restarted.
    """

    error: str
    failures: int
    since: int
    halted: bool


class Supervised:
    """Created by `Tasks.supervise`, and owned by that group.

    Attributes:
        name: Its name in error reports.
        task: The task, which ends when the work returns, halts or is stopped.
    """

    task: asyncio.Task[None]

    def __init__(
        self,
        name: str,
        work: Work,
        *,
        backoff: Backoff,
        halts: type[Exception] | tuple[type[Exception], ...],
        on_failure: Callable[[str, BaseException], None],
        on_trouble: Callable[[Supervised], None],
        on_stop: Callable[[Supervised], None],
    ) -> None:
        self.name = name
        self._work = work
        self._backoff = backoff
        self._halts = halts
        self._on_failure = on_failure
        self._on_trouble = on_trouble
        self._on_stop = on_stop
        self._started: float | None = None
        self._trouble: TaskFailure | None = None

    async def run(self) -> None:
        """Run the work until it returns; restart it after each failure.

        Raises:
            Exception: One of those that it halts for.
        """
        while True:
            self._backoff.begin()
            self._started = self._backoff.clock.monotonic()
            try:
                await self._work()
            # Errors that a restart cannot fix, such as a wrong setting: retrying would only fill
            # the log.
            except self._halts as error:
                self._failed(error, halted=True)
                raise
            # Not `BaseException`: a cancellation must end the task.
            except Exception as error:  # noqa: BLE001 - reported, and restarted
                self._failed(error, halted=False)
                self._on_failure(self.name, error)
            else:
                self._trouble = None
                return
            await self._backoff.wait()

    def recovered(self) -> None:
        """Mark the work as healthy: earlier failures are over, and a later one counts as the first."""
        self._trouble = None

    async def stop(self) -> None:
        """Cancel it, and wait for its end."""
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        self._trouble = None
        self._on_stop(self)

    @property
    def halted(self) -> bool:
        """Return whether it has ended for good by an error."""
        return self._trouble is not None and self._trouble.halted

    @property
    def trouble(self) -> TaskFailure | None:
        """Return its failure; None if it is healthy or has ended."""
        return None if self._is_well() else self._trouble

    def _failed(self, error: Exception, *, halted: bool) -> None:
        # After a healthy time the count starts again.
        known = None if self._is_well() else self._trouble
        self._started = None
        self._trouble = TaskFailure(
            _text_of(error),
            1 if known is None else known.failures + 1,
            self._backoff.clock.now() if known is None else known.since,
            halted,
        )
        self._on_trouble(self)

    def _is_well(self) -> bool:
        if self._trouble is None:
            return True
        now = self._backoff.clock.monotonic()
        return self._started is not None and now - self._started > WELL_AFTER_S


def _text_of(error: BaseException) -> str:
    """Return the text of an error; foreign errors are preceded by their class."""
    text = str(error) if isinstance(error, HeadraceError) else f"{type(error).__name__}: {error}"
    return text if len(text) <= MAX_ERROR else f"{text[:MAX_ERROR]}…"
