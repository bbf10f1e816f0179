"""Inline runtime: runs handlers in this process, on the event loop, for tests and simulation.

In: invocations. Out: the outcomes that a real instance would give, crashes and timeouts included if a test requests
them. Without isolation: a handler that loops for ever blocks the test.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, TypeVar

from headrace.environment.clock import Clock
from headrace.model.errors import Misuse, Unavailable, Unknown
from headrace.model.function import FunctionSpec
from headrace.model.invocation import Invocation
from headrace.model.near_names import near
from headrace.model.outcome import Cause, Crashed, Outcome, Returned, Scanned, TimedOut
from headrace.model.record import Chunk
from headrace.model.reply import WireReply
from headrace.runtime.base import Run, Waiter
from headrace.runtime.child.executor import Executor
from headrace.runtime.host_services import Asker, HostServices
from headrace.runtime.inline_run import InlineRun
from headrace.runtime.instance_views import FailedStart
from headrace.runtime.protocol.messages import (
    Fetch,
    Fetched,
    Land,
    Landed,
    Part,
    PartAccepted,
    Question,
    ReadSecret,
    ReadState,
    Scan,
    ScanState,
    SecretRead,
    StateRows,
)
from headrace.sdk.app import App

T = TypeVar("T")

Before = Callable[[Invocation], Outcome | Awaitable[Outcome | None] | None]
After = Callable[[Invocation, Outcome], Outcome | Awaitable[Outcome | None] | None]


class _Host:
    """Questions of one app to the host's services, answered synchronously."""

    def __init__(self, app: App, services: HostServices) -> None:
        self._declared = app
        # Questions of the app itself, outside any function: it may have the secrets that it
        # declares.
        self._own = FunctionSpec(name=app.name, app=app.name, secrets=app.secrets)
        self._specs: dict[str, FunctionSpec] = {}
        self._services = services
        self.blot = services.blot
        self.deadlines: dict[int, tuple[asyncio.AbstractEventLoop, asyncio.Timeout]] = {}

    def secret(self, name: str, function: str) -> str:
        return self._answer(self._asker(function), ReadSecret(name), SecretRead).value

    def read_state(
        self, function: str, store: str, keys: list[str]
    ) -> list[tuple[int, bytes | None]]:
        return self._answer(self._asker(function), ReadState(keys, store), StateRows).rows

    def scan_state(self, function: str, store: str, prefix: str, begin: str, limit: int) -> Scanned:
        question = ScanState(prefix, limit, begin, store)
        return self._answer(self._asker(function), question, Scan).scanned

    def extend(self, invocation: Invocation, seconds: float) -> None:
        found = self.deadlines.get(invocation.token)
        if found is None:
            return
        loop, deadline = found
        when = loop.time() + seconds
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            # Called from a thread of the handler, where the timeout's loop may not be touched.
            loop.call_soon_threadsafe(deadline.reschedule, when)
        else:
            deadline.reschedule(when)

    def fetch(self, invocation: Invocation, events: int) -> tuple[list[Chunk], int]:
        fetched = self._answer(Asker(self._own, invocation.token), Fetch(events), Fetched)
        return fetched.chunks, fetched.lag

    def land(self, invocation: Invocation, returned: Returned) -> None:
        self._answer(Asker(self._own, invocation.token), Land(returned), Landed)

    def send_part(self, invocation: Invocation, body: bytes, head: WireReply | None) -> None:
        self._answer(Asker(self._own, invocation.token), Part(body, head), PartAccepted)

    def _asker(self, function: str) -> Asker:
        """Return the function as the host knows it; the app if no function asks."""
        if function not in self._specs:
            self._specs = {spec.name: spec for spec in self._declared.spec().functions}
        return Asker(self._specs.get(function, self._own))

    def _answer(self, asker: Asker, question: Question, answer: type[T]) -> T:
        found = _synchronously(self._services.answer(asker, question))
        assert isinstance(found, answer)  # noqa: S101 - so says the protocol
        return found


class InlineRuntime:
    """Runs functions on the caller's loop. One "instance" per app, replaced when it dies.

    Args:
        apps: The apps, by name.
        services: Answers running functions; must not suspend (in-memory storage).
        clock: Times out `async def` handlers; a plain handler cannot be interrupted.
        partitions: How many partitions each stream has.
        on_invoke: Called before each run. None lets it run; an outcome is returned in its place
            (the instance died before it did anything); an awaitable is awaited first.
        on_outcome: Called after each run, alike: an outcome takes the place of the real one, whose
            effects are lost (the instance died after the handler had returned).
    """

    def __init__(
        self,
        apps: Mapping[str, App],
        services: HostServices,
        *,
        clock: Clock,
        partitions: Mapping[str, int] | None = None,
        on_invoke: Before | None = None,
        on_outcome: After | None = None,
    ) -> None:
        self._apps = dict(apps)
        self._clock = clock
        self._partitions: Mapping[str, int] = {} if partitions is None else partitions
        self.on_invoke = on_invoke
        self.on_outcome = on_outcome
        self._executors: dict[str, Executor] = {}
        self._hosts: dict[str, _Host] = {name: _Host(app, services) for name, app in apps.items()}
        self._instances = 0
        self._ending: set[asyncio.Task[Returned] | None] = set()
        self._running: set[asyncio.Task[None]] = set()
        self._closed = False

    def failed_start(self, function: str) -> FailedStart | None:
        """Return None: an exception of a hook fails the run that called it."""
        del function
        return None

    def submit(
        self, invocation: Invocation, done: Waiter, after: Run | None = None, /
    ) -> InlineRun:
        """As `runtime.base.Submit`; here no run waits for an instance.

        Raises:
            Unknown: No such function is deployed here.
            Unavailable: The runtime is closed.
        """
        if self._closed:
            raise Unavailable("the runtime is closed")
        app = self._apps.get(invocation.function.partition(".")[0])
        if app is None or invocation.function not in app.functions:
            names = [name for each in self._apps.values() for name in each.functions]
            raise Unknown(
                f"no function `{invocation.function}` is deployed here{near(invocation.function, names)}"
            )
        before = after if isinstance(after, InlineRun) else None
        run = InlineRun(functools.partial(self._serve, app), invocation, done, before)
        self._running.add(run.task)
        run.task.add_done_callback(self._running.discard)
        return run

    async def _serve(self, app: App, invocation: Invocation) -> Outcome:
        """Run an invocation, with the test's outcomes in place of the real ones."""
        if self.on_invoke is not None:
            instead = await _answer(self.on_invoke(invocation))
            if instead is not None:
                return self._ended(app, instead)
        outcome = await self._run(app, invocation)
        if self.on_outcome is not None:
            instead = await _answer(self.on_outcome(invocation, outcome))
            if instead is not None:
                outcome = instead
        return self._ended(app, outcome)

    async def _run(self, app: App, invocation: Invocation) -> Outcome:
        executor = self._executor(app)
        if not executor.is_async(invocation.function):
            return await executor.run(invocation)
        deadlines = self._hosts[app.name].deadlines
        # A separate task, as in an instance: a handler that cancels its task must not cancel the
        # platform's.
        loop = asyncio.get_running_loop()
        task = loop.create_task(executor.run(invocation))
        try:
            # asyncio's timeout rather than the clock's, because a run may extend it.
            async with asyncio.timeout(invocation.timeout) as deadline:
                deadlines[invocation.token] = loop, deadline
                await asyncio.wait((task,))
                return task.result()
        except TimeoutError:
            return TimedOut(
                Cause("TimedOut", f"the invocation took longer than {invocation.timeout:g} s")
            )
        finally:
            deadlines.pop(invocation.token, None)
            if not task.done():
                await self._end(task)

    async def _end(self, task: asyncio.Task[Returned]) -> None:
        """Cancel a run; ignore how its handler ends."""
        self._ending.add(task)
        try:
            task.cancel()
            await asyncio.wait((task,))
        finally:
            self._ending.discard(task)
        if not task.cancelled():
            # Retrieved, or asyncio logs an exception that was never read.
            task.exception()

    def _is_ended(self) -> bool:
        return asyncio.current_task() in self._ending

    def _executor(self, app: App) -> Executor:
        found = self._executors.get(app.name)
        if found is None:
            self._instances += 1
            found = self._executors[app.name] = Executor(
                app,
                self._hosts[app.name],
                partitions=self._partitions,
                instance=f"inline-{self._instances}",
                monotonic=self._clock.monotonic,
                is_ended=self._is_ended,
            )
        return found

    def _ended(self, app: App, outcome: Outcome) -> Outcome:
        """Drop the executor of a dead instance, and with it its state cache."""
        if outcome.returned is None:
            self._executors.pop(app.name, None)
        return outcome

    async def close(self) -> None:
        """Stop every instance: its `on_stop` hooks are called."""
        self._closed = True
        executors, self._executors = self._executors, {}
        for executor in executors.values():
            await executor.stop()


def crashed(message: str = "the instance was killed") -> Crashed:
    """Return the outcome of an instance that died; for `on_invoke` and `on_outcome`."""
    return Crashed(Cause("Crashed", message))


def _synchronously(work: Coroutine[Any, Any, T] | Awaitable[T]) -> T:
    """Return the result of an awaitable that never suspends."""
    steps = work.__await__()
    try:
        next(steps)
    except StopIteration as finished:
        result: T = finished.value
        return result
    steps.close()
    raise Misuse(
        "running functions inline needs services that answer at once; use the in-memory storage, "
        "or run the functions in a fleet"
    )


async def _answer(found: Outcome | Awaitable[Outcome | None] | None) -> Outcome | None:
    if isinstance(found, Awaitable):
        return await found
    return found
