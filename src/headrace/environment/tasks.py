"""Groups of tasks: every task has an owner and an end. When the group closes, its tasks have ended.

Unlike `asyncio.TaskGroup`, a group may outlive the scope in which it was created, and a member's
failure is reported to the group's `on_failure` instead of cancelling the others: one function's bug
must not stop another's partition worker. A task that must keep running is supervised: it is
restarted after any error.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from headrace.environment.restart_backoff import Backoff
from headrace.environment.supervised_task import Supervised, TaskFailure, Work

AGAIN_S = 0.5


class Tasks:
    """A set of owned tasks. `close` cancels them and waits for their end."""

    def __init__(self, on_failure: Callable[[str, BaseException], None]) -> None:
        self._on_failure = on_failure
        self._tasks: set[asyncio.Task[Any]] = set()
        self._supervised: dict[asyncio.Task[Any], Supervised] = {}
        """Supervised members that run, or have halted and were not stopped since."""
        # Of thousands of members few fail: `troubles` reads only these, in one step of the loop.
        self._troubled: dict[Supervised, None] = {}
        self._closed = False

    def __len__(self) -> int:
        return len(self._tasks)

    @property
    def closed(self) -> bool:
        """Return whether it takes no more members."""
        return self._closed

    def start(self, work: Coroutine[Any, Any, Any], *, name: str) -> asyncio.Task[Any]:
        """Run `work` as a member."""
        if self._closed:
            # Otherwise the interpreter warns of a coroutine that was never awaited.
            work.close()
            raise RuntimeError(f"task `{name}` was started in a group that is closed")
        task = asyncio.get_running_loop().create_task(work, name=name)
        # The loop keeps only a weak reference: a task without an owner may be collected while it
        # runs.
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def supervise(
        self,
        work: Work,
        *,
        name: str,
        backoff: Backoff,
        halts: type[Exception] | tuple[type[Exception], ...] = (),
    ) -> Supervised:
        """Run `work` as a member until it returns; restart it after any failure.

        Args:
            work: Creates the coroutine, once for every start.
            name: Its name in error reports.
            backoff: The pauses after failures; used by this task only.
            halts: Errors that a restart cannot fix: the task ends with them, and stays listed as halted.
        """
        kept = Supervised(
            name,
            work,
            backoff=backoff,
            halts=halts,
            on_failure=self._on_failure,
            on_trouble=self._note_trouble,
            on_stop=self._forget,
        )
        kept.task = self.start(kept.run(), name=name)
        self._supervised[kept.task] = kept
        return kept

    def troubles(self) -> dict[str, TaskFailure]:
        """Return the failures of supervised members that are not healthy, by name."""
        found = {kept: kept.trouble for kept in self._troubled}
        # A member that fails again is added again.
        self._troubled = {kept: None for kept, trouble in found.items() if trouble is not None}
        return {kept.name: trouble for kept, trouble in found.items() if trouble is not None}

    def _note_trouble(self, kept: Supervised) -> None:
        self._troubled[kept] = None

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if (kept := self._supervised.get(task)) is not None and not kept.halted:
            self._forget(kept)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._on_failure(task.get_name(), error)

    def _forget(self, kept: Supervised) -> None:
        self._supervised.pop(kept.task, None)
        self._troubled.pop(kept, None)

    async def close(self) -> None:
        """Cancel the members and wait for their end."""
        self._closed = True
        # `close` may be called by a member, which must not wait for itself.
        members = [task for task in self._tasks if task is not asyncio.current_task()]
        while members:
            for task in members:
                task.cancel()
            # Repeatedly: a member may swallow a cancellation that arrives while it handles its own
            # end.
            _, pending = await asyncio.wait(members, timeout=AGAIN_S)
            members = list(pending)
