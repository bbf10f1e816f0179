"""The twin of the fleet: outcomes, injected deaths, timeouts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Any, TypeVar

import pytest

from headrace import App, Context, Event
from headrace.errors import Misuse, Unavailable, Unknown
from headrace.model.codec import encode_state
from headrace.model.event import Event as Fact
from headrace.model.invocation import BatchInvocation, Invocation
from headrace.model.outcome import Crashed, Outcome, Range, Returned, Scanned, TimedOut
from headrace.model.record import Chunk, encode_events
from headrace.model.stores import StoreAddress
from headrace.runtime.base import invoke
from headrace.runtime.host_services import HostServices, state_questions
from headrace.runtime.inline import InlineRuntime, crashed

T = TypeVar("T")


class Services:
    """State that is answered at once, or, where told so, only after a wait."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], tuple[int, bytes]] = {}
        self.slow = False
        self.asked = 0

    async def read_state(
        self, store: StoreAddress, keys: Sequence[str]
    ) -> list[tuple[int, bytes | None]]:
        self.asked += 1
        if self.slow:
            await asyncio.Future()
        return [self.rows.get((store.name, key), (0, None)) for key in keys]

    async def scan_state(self, store: StoreAddress, prefix: str, begin: str, limit: int) -> Scanned:
        return Scanned([], Range("", None, 0, b""))


def services_of(state: Services) -> HostServices:
    return HostServices(state_questions(state.read_state, state.scan_state))


class ImpatientClock:
    """A clock on which every wait that is not over at once is too long."""

    def now(self) -> int:
        return 0

    def monotonic(self) -> float:
        return 0.0

    async def sleep(self, seconds: float) -> None:
        raise AssertionError("nobody sleeps here")

    async def timeout(self, awaitable: Awaitable[T], seconds: float | None) -> T:
        return await asyncio.wait_for(awaitable, 0.001)


shop = App("shop")
numbers = shop.stream("numbers", value=int)
stopped: list[str] = []


@shop.function(numbers)
def plain(event: Event[int], context: Context) -> None:
    context.state.update("n", lambda n: n + event.value, default=0)


@shop.function(numbers)
async def endless(event: Event[int]) -> None:
    await asyncio.Event().wait()


@shop.on_stop
def stop() -> None:
    stopped.append("stop")


def work(function: str = "shop.plain", **fields: Any) -> BatchInvocation:
    chunk = Chunk("numbers", 0, 0, 1, encode_events([Fact(b"2")]), 0, 0, 1)
    return BatchInvocation(function, token=4, chunks=(chunk,), **fields)


def inline(services: Services | None = None, **options: Any) -> InlineRuntime:
    return InlineRuntime(
        {"shop": shop}, services_of(services or Services()), clock=ImpatientClock(), **options
    )


async def test_a_handler_runs_right_here() -> None:
    outcome = await invoke(inline().submit, work())
    assert isinstance(outcome, Returned)
    assert [write.key for write in outcome.writes] == ["n"]


async def test_state_is_the_hosts() -> None:
    services = Services()
    services.rows["shop.plain", "n"] = (3, encode_state(40))
    outcome = await invoke(inline(services).submit, work())
    assert isinstance(outcome, Returned)
    assert outcome.writes[0].value == encode_state(42)
    assert outcome.reads[0].version == 3


async def test_an_overrun_is_a_timeout() -> None:
    outcome = await invoke(inline().submit, work("shop.endless", timeout=0.2))
    assert isinstance(outcome, TimedOut)
    assert "longer than 0.2 s" in outcome.cause.message


async def test_a_death_before_the_run_leaves_nothing_run() -> None:
    services = Services()
    invoker = inline(services, on_invoke=lambda invocation: crashed("pulled the plug"))
    outcome = await invoke(invoker.submit, work())
    assert isinstance(outcome, Crashed)
    assert outcome.cause.message == "pulled the plug"
    assert services.asked == 0


async def test_a_death_after_the_run_takes_the_instances_memory_along() -> None:
    services = Services()
    deaths = [True, False, False]

    async def die(invocation: Invocation, outcome: Outcome) -> Outcome | None:
        assert isinstance(outcome, Returned)
        return crashed() if deaths.pop(0) else None

    invoker = inline(services, on_outcome=die)
    assert isinstance(await invoke(invoker.submit, work()), Crashed)
    assert isinstance(await invoke(invoker.submit, work()), Returned)
    assert services.asked == 2
    assert isinstance(await invoke(invoker.submit, work()), Returned)
    assert services.asked == 2


async def test_services_that_wait_are_refused_with_the_way_out() -> None:
    services = Services()
    services.slow = True
    outcome = await invoke(inline(services).submit, work())
    assert isinstance(outcome, Returned)
    assert outcome.failures[0].cause.kind == Misuse.__name__
    assert "in-memory storage" in outcome.failures[0].cause.message


async def test_cancelling_the_caller_is_not_the_handlers_failure() -> None:
    task = asyncio.ensure_future(invoke(inline().submit, work("shop.endless")))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_unknown_function_lists_near_names() -> None:
    with pytest.raises(Unknown, match=r"did you mean `shop.plain`"):
        await invoke(inline().submit, work("shop.plan"))


async def test_a_closed_invoker_runs_nothing_and_has_stopped_its_instances() -> None:
    invoker = inline()
    await invoke(invoker.submit, work())
    stopped.clear()
    await invoker.close()
    assert stopped == ["stop"]
    with pytest.raises(Unavailable):
        await invoke(invoker.submit, work())


async def test_a_handler_that_cancels_itself_cancels_nobody_else() -> None:
    app = App("shop")

    @app.function(app.stream("numbers"), name="f")
    async def f(event: Event[int], context: Context) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)

    invoker = InlineRuntime({"shop": app}, services_of(Services()), clock=ImpatientClock())
    chunk = Chunk("numbers", 0, 0, 1, encode_events([Fact(b"1")]), 0, 0, 1)
    outcome = await invoke(invoker.submit, BatchInvocation("shop.f", token=7, chunks=(chunk,)))
    assert isinstance(outcome, Returned)
    (failure,) = outcome.failures
    assert failure.cause.kind == "CancelledError"


async def test_a_run_that_is_cancelled_from_outside_is_over_and_has_no_outcome() -> None:
    app = App("shop")
    told: list[str] = []

    @app.function(app.stream("numbers"), name="f")
    async def f(event: Event[int], context: Context) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            told.append("cleaned up")

    invoker = InlineRuntime({"shop": app}, services_of(Services()), clock=ImpatientClock())
    chunk = Chunk("numbers", 0, 0, 1, encode_events([Fact(b"1")]), 0, 0, 1)
    asked = asyncio.ensure_future(
        invoke(invoker.submit, BatchInvocation("shop.f", token=7, chunks=(chunk,)))
    )
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    for _ in range(5):
        await asyncio.sleep(0)
    assert told == ["cleaned up"]


async def test_a_thread_of_a_handler_may_ask_for_more_time() -> None:
    app = App("shop")

    @app.function(app.stream("numbers"), name="f", timeout=5)
    async def f(event: Event[int], context: Context) -> None:
        await asyncio.to_thread(context.extend, 60)

    invoker = InlineRuntime({"shop": app}, services_of(Services()), clock=ImpatientClock())
    chunk = Chunk("numbers", 0, 0, 1, encode_events([Fact(b"1")]), 0, 0, 1)
    outcome = await invoke(
        invoker.submit, BatchInvocation("shop.f", timeout=5, token=7, chunks=(chunk,))
    )
    assert isinstance(outcome, Returned)
    assert outcome.failures == ()
