"""What every runtime promises, over the one that runs handlers here and the one that isolates them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from headrace.environment.clock import SystemClock
from headrace.environment.randomness import SystemEntropy
from headrace.environment.tasks import Tasks
from headrace.model.codec import decode_state
from headrace.model.errors import Fenced, Unknown
from headrace.model.event import Event as Fact
from headrace.model.invocation import BatchInvocation, CallInvocation, Invocation
from headrace.model.outcome import Outcome, Range, Returned, Scanned, TimedOut
from headrace.model.record import Chunk, decode_events, encode_events
from headrace.model.reply import WireReply
from headrace.model.stores import StoreAddress
from headrace.runtime.base import Interceptor, Run, Runtime, Submit, Waiter, intercepted, invoke
from headrace.runtime.child.loader import load
from headrace.runtime.fleet import Fleet
from headrace.runtime.host_services import HostServices, answer_questions, state_questions
from headrace.runtime.inline import InlineRuntime
from headrace.runtime.process.fleet_host import FleetHost
from headrace.storage.state.rows import decode_row, encode_row

APP = """
import asyncio
import msgspec
from headrace import App, Batch, Context, Event, Failures, Http, Output, Permanent

class Order(msgspec.Struct):
    id: int
    price: float = 1.0

app = App("contract")
orders = app.stream("orders", 4, Order)
priced = app.stream("priced", 4)

@app.function(orders)
def price(events: Batch[Order], context: Context) -> None:
    for event in events:
        context.publish(priced, {"id": event.value.id}, key=event.key)
        context.state.update("count", lambda n: n + 1, default=0)

@app.function(orders, output=priced)
def one(event: Event[Order]) -> Output:
    if event.value.id == 13:
        raise ValueError("thirteen")
    return Output({"id": event.value.id}, id=f"p{event.value.id}")

@app.function()
async def waiting(event: Event[Order], context: Context) -> float:
    await asyncio.sleep(0)
    return event.value.price * 2

@app.function(orders, timeout=0.2)
async def endless(event: Event[Order]) -> None:
    await asyncio.Event().wait()

@app.function(orders)
def picking(events: Batch[Order]) -> Failures:
    return Failures([event for event in events if event.value.id % 2], "odd")

@app.function(orders)
def listing(events: Batch[Order], context: Context) -> None:
    for key, value in context.state.items("p/"):
        context.publish(priced, {key: value})

@app.function(Http("GET", "/counted", mode="live"))
def counted(event):
    for number in range(3):
        yield number

@app.function(orders)
def never(event: Event[Order]) -> None:
    raise Permanent("no use")
"""


class StateOfATest:
    """The host's side of state: rows in memory."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], bytes] = {}
        self.parts: list[tuple[int, bytes, WireReply | None]] = []

    async def send_part(self, token: int, body: bytes, head: WireReply | None) -> None:
        if len(self.parts) == 2:
            raise Fenced("nobody listens any more")
        self.parts.append((token, body, head))

    async def read_state(
        self, store: StoreAddress, keys: Sequence[str]
    ) -> list[tuple[int, bytes | None]]:
        found: list[tuple[int, bytes | None]] = []
        for key in keys:
            row = self.rows.get((store.name, key))
            if row is None:
                found.append((0, None))
            else:
                version, _, value = decode_row(row)
                found.append((version, value))
        return found

    async def scan_state(self, store: StoreAddress, prefix: str, begin: str, limit: int) -> Scanned:
        found = []
        for (owner, key), row in sorted(self.rows.items()):
            if owner == store.name and key.startswith(prefix):
                version, _, value = decode_row(row)
                found.append((key, version, value))
        return Scanned(found[:limit], Range("", None, len(found), b"all"))

    def keep(self, store: str, outcome: Returned, token: int) -> None:
        """Commit the writes."""
        for write in outcome.writes:
            if write.value is None:
                self.rows.pop((store, write.key), None)
            else:
                self.rows[store, write.key] = encode_row(token, write.value, write.expires)


def services_of(state: StateOfATest) -> HostServices:
    return HostServices(
        state_questions(state.read_state, state.scan_state), answer_questions(state.send_part)
    )


class Rig:
    """A runtime over the app above."""

    def __init__(self, runtime: Runtime, state: StateOfATest) -> None:
        self.runtime = runtime
        self.state = state

    def invocation(self, function: str, *payloads: bytes, **fields: Any) -> Invocation:
        facts = [Fact(payload, f"k{number}") for number, payload in enumerate(payloads)]
        chunk = Chunk("orders", 2, 10, len(facts), encode_events(facts), 0, 0, len(facts))
        values: dict[str, Any] = {"token": 5, "key": "root", "timeout": 10.0} | fields
        return BatchInvocation(f"contract.{function}", chunks=(chunk,), **values)

    async def call(self, function: str, payload: bytes, *, live: bool = False) -> Outcome:
        event = encode_events([Fact(payload)])
        asked = CallInvocation(f"contract.{function}", 10.0, 5, "root", event=event, live=live)
        return await invoke(self.runtime.submit, asked)

    async def run(self, function: str, *payloads: bytes, **fields: Any) -> Outcome:
        return await invoke(self.runtime.submit, self.invocation(function, *payloads, **fields))


@asynccontextmanager
async def inline(target: str, folder: Path, state: StateOfATest) -> AsyncIterator[Runtime]:
    app = load(target)
    yield InlineRuntime({app.name: app}, services_of(state), clock=SystemClock())


@asynccontextmanager
async def fleet(target: str, folder: Path, state: StateOfATest) -> AsyncIterator[Runtime]:
    failures: list[BaseException] = []
    tasks = Tasks(lambda _, error: failures.append(error))
    made = Fleet(
        FleetHost(SystemClock(), SystemEntropy(), tasks, services_of(state)), scratch=folder
    )
    await made.deploy(target)
    yield made
    await tasks.close()
    assert failures == []


@pytest.fixture(params=[inline, fleet], ids=["inline", "fleet"])
async def rig(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Rig]:
    monkeypatch.setattr("sys.path", list(__import__("sys").path))
    file = tmp_path / "app" / f"contract_app_{request.param.__name__}.py"
    file.parent.mkdir()
    file.write_text(APP)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    state = StateOfATest()
    async with request.param(str(file), scratch, state) as runtime:
        yield Rig(runtime, state)
        await runtime.close()


def returned(outcome: Outcome) -> Returned:
    assert isinstance(outcome, Returned), outcome
    return outcome


async def test_effects_come_back_as_a_value(rig: Rig) -> None:
    outcome = returned(await rig.run("price", b'{"id":1}', b'{"id":2}'))
    assert (outcome.failures, outcome.untouched, outcome.error) == ((), -1, None)
    values = [fact.value for append in outcome.appends for fact in decode_events(append.body)]
    assert sorted(values) == [b'{"id":1}', b'{"id":2}']
    (write,) = outcome.writes
    assert decode_state(write.value or b"") == 2


async def test_state_is_read_from_the_host_and_remembered(rig: Rig) -> None:
    for token in (6, 7, 8):
        outcome = returned(await rig.run("price", b'{"id":1}', token=token))
        rig.state.keep("contract.price", outcome, token)
    assert decode_state(decode_row(rig.state.rows["contract.price", "count"])[2]) == 3


async def test_fresh_forgets_what_did_not_land(rig: Rig) -> None:
    returned(await rig.run("price", b'{"id":1}', token=6))
    outcome = returned(await rig.run("price", b'{"id":1}', token=7, fresh=True))
    assert outcome.reads[0].version == 0
    assert decode_state(outcome.writes[0].value or b"") == 1


async def test_stored_keys_can_be_listed(rig: Rig) -> None:
    rig.state.rows["contract.listing", "p/a"] = encode_row(3, msgspec.msgpack.encode(1), 0)
    rig.state.rows["contract.listing", "q"] = encode_row(3, msgspec.msgpack.encode(2), 0)
    outcome = returned(await rig.run("listing", b'{"id":1}'))
    (append,) = outcome.appends
    assert [fact.value for fact in decode_events(append.body)] == [b'{"p/a":1}']


async def test_an_ordered_function_stops_at_a_failure(rig: Rig) -> None:
    outcome = returned(await rig.run("one", b'{"id":1}', b'{"id":13}', b'{"id":2}'))
    (failure,) = outcome.failures
    assert (failure.index, failure.cause.kind, failure.cause.message) == (
        1,
        "ValueError",
        "thirteen",
    )
    assert 'raise ValueError("thirteen")' in failure.cause.traceback
    assert outcome.untouched == 2
    (append,) = outcome.appends
    assert append.ids == ("p1",)


async def test_bytes_that_cannot_be_decoded_fail_their_own_event(rig: Rig) -> None:
    outcome = returned(await rig.run("price", b'{"id":1}', b'{"id":"x"}', b'{"id":2}'))
    (failure,) = outcome.failures
    assert (failure.index, failure.cause.kind) == (1, "Undecodable")
    assert decode_state(outcome.writes[0].value or b"") == 1


async def test_failures_can_be_named(rig: Rig) -> None:
    outcome = returned(await rig.run("picking", *(b'{"id":%d}' % number for number in range(4))))
    assert [failure.index for failure in outcome.failures] == [1, 3]
    assert outcome.failures[0].cause.message == "odd"


async def test_a_permanent_failure_is_marked(rig: Rig) -> None:
    outcome = returned(await rig.run("never", b'{"id":1}'))
    assert outcome.failures[0].cause.retryable is False


async def test_a_call_is_answered(rig: Rig) -> None:
    outcome = returned(await rig.call("waiting", b'{"id":1,"price":4.5}'))
    assert outcome.result == b"9.0"


async def test_a_live_call_hands_over_its_parts_and_hears_when_nobody_listens(rig: Rig) -> None:
    outcome = returned(await rig.call("counted", b"null", live=True))
    assert rig.state.parts == [(5, b"0", None), (5, b"1", None)]
    assert outcome.error is not None
    assert "nobody listens" in outcome.error.message
    outcome = returned(await rig.call("counted", b"null"))
    assert outcome.result == b"[0,1,2]"


async def test_an_overrun_is_a_timeout_and_the_next_invocation_runs(rig: Rig) -> None:
    outcome = await rig.run("endless", b'{"id":1}', timeout=0.2)
    assert isinstance(outcome, TimedOut)
    assert returned(await rig.run("one", b'{"id":1}')).failures == ()


async def test_many_invocations_at_once_all_come_back(rig: Rig) -> None:
    outcomes = await asyncio.gather(
        *(rig.run("one", b'{"id":%d}' % (100 + number), token=number) for number in range(20))
    )
    found = {
        decode_events(append.body)[0].id for each in outcomes for append in returned(each).appends
    }
    assert found == {f"p{100 + number}" for number in range(20)}


async def test_an_unknown_function_is_refused(rig: Rig) -> None:
    with pytest.raises(Unknown):
        await rig.run("nothing", b"1")


class Told:
    """A waiter that is not a task, and when it was told."""

    def __init__(self) -> None:
        self.heard: list[Outcome | BaseException] = []
        self.event = asyncio.Event()

    def done(self) -> bool:
        return False

    def set_result(self, outcome: Outcome, /) -> None:
        self.heard.append(outcome)
        self.event.set()

    def set_exception(self, exception: BaseException, /) -> None:
        self.heard.append(exception)
        self.event.set()


async def test_a_waiter_is_told_once_and_after_the_run_was_submitted(rig: Rig) -> None:
    told = Told()
    rig.runtime.submit(rig.invocation("one", b'{"id":1}'), told)
    assert told.heard == []
    await told.event.wait()
    await asyncio.sleep(0.01)
    (outcome,) = told.heard
    assert isinstance(outcome, Returned)


async def test_whoever_went_away_is_not_told(rig: Rig) -> None:
    done: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
    rig.runtime.submit(rig.invocation("one", b'{"id":1}'), done)
    done.cancel()
    assert returned(await rig.run("one", b'{"id":2}')).failures == ()


async def test_an_interceptor_sees_every_run_and_what_came_of_it(rig: Rig) -> None:
    seen: list[str] = []

    def noting(submit: Submit) -> Submit:
        def noted(invocation: Invocation, done: Waiter, after: Run | None = None, /) -> Run:
            seen.append(invocation.key)
            return submit(invocation, Noted(done, seen), after)

        return noted

    submit = intercepted(rig.runtime.submit, (noting,))
    outcome = returned(await invoke(submit, rig.invocation("one", b'{"id":1}', key="first")))
    assert outcome.failures == ()
    with pytest.raises(Unknown):
        await invoke(submit, rig.invocation("nothing", b"1", key="second"))
    assert seen == ["first", "Returned", "second"]


async def test_the_first_interceptor_sees_a_run_first_and_its_outcome_last(rig: Rig) -> None:
    seen: list[str] = []

    def named(name: str) -> Interceptor:
        def noting(submit: Submit) -> Submit:
            def noted(invocation: Invocation, done: Waiter, after: Run | None = None, /) -> Run:
                seen.append(name)
                return submit(invocation, Noted(done, seen, name), after)

            return noted

        return noting

    submit = intercepted(rig.runtime.submit, (named("outer"), named("inner")))
    await invoke(submit, rig.invocation("one", b'{"id":1}'))
    assert seen == ["outer", "inner", "inner", "outer"]


class Noted:
    """A waiter in front of another."""

    def __init__(self, done: Waiter, seen: list[str], name: str = "") -> None:
        self._done = done
        self._seen = seen
        self._name = name
        self.done = done.done
        self.set_exception = done.set_exception

    def set_result(self, outcome: Outcome, /) -> None:
        self._seen.append(self._name or type(outcome).__name__)
        self._done.set_result(outcome)
