"""Every run of a node passes the interceptors, on every path and from every caller."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import pytest

from headrace import App, Batch, Consumer, Context, Event, Every, Http
from headrace.bus import Rule
from headrace.environment.tasks import Tasks
from headrace.http.admission import Admission
from headrace.http.context import ApiContext
from headrace.http.cors import Headers
from headrace.http.metrics import Metrics
from headrace.http.pipeline.head_cache import RequestHead
from headrace.http.response import Response
from headrace.http.server.application import Application
from headrace.model.invocation import (
    BatchInvocation,
    CallInvocation,
    ConsumerInvocation,
    Invocation,
)
from headrace.model.outcome import Outcome
from headrace.runtime.base import Interceptor, Run, Submit, Waiter, intercepted
from headrace.security.access import Peer
from headrace.sources import Emit, Lag
from headrace.testing import World


class Seen(NamedTuple):
    """A run that was submitted, and the outcome that its waiter got."""

    invocation: Invocation
    is_ahead: bool
    outcomes: list[Outcome]


class Telling:
    """A waiter in front of another."""

    def __init__(self, done: Waiter, seen: Seen) -> None:
        self._seen = seen
        self._done = done
        self.done = done.done
        self.set_exception = done.set_exception

    def set_result(self, outcome: Outcome, /) -> None:
        self._seen.outcomes.append(outcome)
        self._done.set_result(outcome)


class Runs:
    """An interceptor that notes every run."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []

    def intercept(self, below: Submit) -> Submit:
        def submit(invocation: Invocation, done: Waiter, after: Run | None = None, /) -> Run:
            seen = Seen(invocation, after is not None, [])
            self.seen.append(seen)
            return below(invocation, Telling(done, seen), after)

        return submit

    def of(self, function: str) -> list[Seen]:
        """The runs of one function that have ended."""
        return [
            each for each in self.seen if each.invocation.function == function and each.outcomes
        ]


def shop() -> App:
    app = App("shop")
    orders = app.stream("orders", partitions=1)
    done = app.stream("done", partitions=1)
    app.queue("jobs")

    @app.function(orders)
    def ordered(events: Batch[Any]) -> None:
        pass

    @app.function(orders, order="key", batch_size=1, parallelism=2)
    async def keyed(event: Event[Any]) -> None:
        for _ in range(20):
            await asyncio.sleep(0)

    @app.function(Http("POST", "/price"))
    def price(event: Event[int]) -> int:
        return event.value * 2

    @app.function(Http("GET", "/counted", mode="live"))
    def counted(event: Event[Any]) -> Iterator[int]:
        yield from range(3)

    @app.function(Lag("orders"))
    def drain(consumer: Consumer[Any], context: Context) -> None:
        while consumer.fetch(10):
            consumer.commit()

    @app.function(Every("1h"))
    def hourly(event: Event[Any]) -> None:
        pass

    @app.source(every="1h")
    def readings(last: int | None) -> Iterator[Emit]:
        if last is None:
            yield Emit("first", checkpoint=1)

    @app.function(readings)
    def noted(event: Event[str]) -> None:
        pass

    app.forward(Rule({"source": [{"exists": True}]}, streams=(orders,)), to=done, name="all")
    return app


class Client:
    """A connection that waits for its answer."""

    def __init__(self) -> None:
        self.answered: asyncio.Future[Response] = asyncio.get_running_loop().create_future()

    def reply(self, response: Response, extra: Headers) -> None:
        self.answered.set_result(response)


async def called_fast(world: World) -> bytes:
    """The answer to a plain call, by the way that needs no task."""
    services = (await world._lives.current()).services
    admission = Admission(allowed_hosts=(), max_body_bytes=1_000, max_requests=10)
    tasks = Tasks(lambda _, error: pytest.fail(str(error)))
    context = ApiContext(services=services, admission=admission, metrics=Metrics(), tasks=tasks)
    fields = [(b"host", b"localhost"), (b"content-type", b"application/json")]
    head = RequestHead("POST", "/price", b"", fields, dict(fields))
    client = Client()
    assert (
        Application(context).begin(head, b"21", Peer("127.0.0.1", neighbour=True), client)
        is not None
    )
    return (await client.answered).body


def all_kinds_of_runs() -> tuple[Runs, set[str]]:
    """Start each kind of run; the runs that an interceptor saw, and functions with runs that it missed."""
    found = Runs()
    world = World(shop(), seed=3)
    world._lives.interceptors = (found.intercept,)
    with world:
        for number in range(40):
            world.publish("orders", {"n": number}, key=f"k{number}")
        world.publish("jobs", {"n": 1})
        consumer = world.consumer("jobs")
        (message,) = consumer.receive()
        assert consumer.acknowledge(message)
        world.advance("2h")
        assert world.ask("POST", "/price", 21).body == 42
        assert world._drive(called_fast(world)) == b"42"
        assert world.ask("GET", "/counted").status == 200
        ended = world._lives.node.services.runs.recent(limit=1_000)
    assert len(ended) < 1_000
    # A run is recorded by the code that wanted it, in whatever way that started it.
    seen = {(each.invocation.function, each.invocation.key) for each in found.seen}
    return found, {run.function for run in ended if (run.function, run.key) not in seen}


@pytest.fixture(scope="module")
def runs() -> Runs:
    found, missed = all_kinds_of_runs()
    assert missed == set()
    return found


@pytest.mark.parametrize(
    ("function", "kind"),
    [
        ("shop.ordered", BatchInvocation),
        ("shop.keyed", BatchInvocation),
        ("shop.hourly", BatchInvocation),
        ("shop.drain", ConsumerInvocation),
        ("shop.price", CallInvocation),
        ("shop.counted", CallInvocation),
        ("shop.readings", CallInvocation),
        ("shop.noted", BatchInvocation),
        ("_bus.rules.orders", BatchInvocation),
        ("shop.jobs.outside", BatchInvocation),
    ],
)
def test_an_interceptor_sees_each_kind_of_run_and_what_came_of_it(
    runs: Runs, function: str, kind: type[Invocation]
) -> None:
    assert runs.of(function)
    assert all(isinstance(each.invocation, kind) for each in runs.of(function))
    assert all(len(each.outcomes) == 1 for each in runs.of(function))


def test_it_sees_runs_that_are_sent_ahead(runs: Runs) -> None:
    assert {each.is_ahead for each in runs.of("shop.keyed")} == {True, False}


def test_it_sees_calls_with_a_task_and_without(runs: Runs) -> None:
    assert len(runs.of("shop.price")) == 2


def test_it_sees_that_an_answer_is_sent_as_it_comes(runs: Runs) -> None:
    (counted,) = runs.of("shop.counted")
    assert isinstance(counted.invocation, CallInvocation)
    assert counted.invocation.live


@pytest.mark.parametrize(
    ("past", "missed"),
    [
        (lambda _, after: after is not None, {"shop.keyed"}),
        (lambda invocation, _: invocation.function == "shop.price", {"shop.price"}),
        (lambda invocation, _: invocation.function[:5] == "_bus.", {"_bus.rules.orders"}),
    ],
    ids=["sent ahead", "direct call", "internal function"],
)
def test_a_run_that_goes_past_the_chain_is_found(
    monkeypatch: pytest.MonkeyPatch,
    past: Callable[[Invocation, Run | None], bool],
    missed: set[str],
) -> None:
    def leaky(runtime: Submit, interceptors: Sequence[Interceptor]) -> Submit:
        # The last one runs internal functions: without it there would be nobody who can.
        whole, rest = intercepted(runtime, interceptors), intercepted(runtime, interceptors[-1:])

        def submit(invocation: Invocation, done: Waiter, after: Run | None = None, /) -> Run:
            return (rest if past(invocation, after) else whole)(invocation, done, after)

        return submit

    monkeypatch.setattr("headrace.node.run_chain.intercepted", leaky)
    assert all_kinds_of_runs()[1] == missed
