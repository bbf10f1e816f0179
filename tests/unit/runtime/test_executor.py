"""What the executor says came of a run, for every form of handler and every way to fail."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from typing import Any, Literal

import msgspec
import pytest
from tests.unit.runtime.hosting import Host

from headrace import App, Batch, Context, Event, Failures, Output, Permanent, Reply
from headrace.errors import Misuse, Unknown
from headrace.model.event import Event as Fact
from headrace.model.invocation import BatchInvocation, CallInvocation, Invocation
from headrace.model.outcome import BEHIND, Returned
from headrace.model.policy import MAX_TRACEBACK
from headrace.model.record import Chunk, decode_events, encode_events
from headrace.runtime.child.executor import Executor
from headrace.runtime.child.instance_main import finish
from headrace.sources import Debezium


class Rig:
    """An app with one function on one stream, and the means to run it."""

    def __init__(self, handler: Callable[..., Any], **options: Any) -> None:
        self.app = App("shop")
        self.numbers = self.app.stream("numbers", 4, int)
        self.out = self.app.stream("out", 4)
        if options.pop("output", False):
            options["output"] = self.out
        source = self.numbers.read(changes=options.pop("changes", None))
        self.app.function(source, name="f", **options)(handler)
        self.host = Host()
        self.executor = Executor(self.app, self.host)

    def run(self, *values: Any, keys: str | None = None, **fields: Any) -> Returned:
        facts = [
            Fact(
                value if isinstance(value, bytes) else str(value).encode(),
                keys[i] if keys else None,
            )
            for i, value in enumerate(values)
        ]
        chunk = Chunk("numbers", 1, 100, len(facts), encode_events(facts), 0, 0, len(facts))
        fields = {"token": 7, "key": "root", **fields}
        return drive(self.executor, BatchInvocation("shop.f", chunks=(chunk,), **fields))


def drive(executor: Executor, invocation: Invocation) -> Returned:
    """Run it as an instance does: on a loop only where the handler needs one."""
    work = executor.run(invocation)
    if executor.is_async(invocation.function):
        return asyncio.run(work)
    with pytest.raises(StopIteration) as stopped:
        work.send(None)
    returned: Returned = stopped.value.value
    return returned


def published(returned: Returned) -> list[tuple[Any, str | None]]:
    """Values and keys, sorted by value."""
    return sorted(
        (
            (msgspec.json.decode(fact.value), fact.key)
            for append in returned.appends
            for fact in decode_events(append.body)
        ),
        key=repr,
    )


def failed(returned: Returned) -> list[int]:
    return [failure.index for failure in returned.failures]


def add(more: int, number: int) -> int:
    return number + more


# -- forms -----------------------------------------------------------------------------------


def double_batch(events: Batch[int], context: Context) -> None:
    for event in events:
        context.publish("out", event.value * 2, key=event.key)


def double_list(events: Batch[int]) -> list[Output[int]]:
    return [Output(event.value * 2, key=event.key) for event in events]


def double_yielding(events: Batch[int]) -> Iterator[Output[int]]:
    for event in events:
        yield Output(event.value * 2, key=event.key)


async def double_awaiting(events: Batch[int], context: Context) -> None:
    for event in events:
        await asyncio.sleep(0)
        context.publish("out", event.value * 2, key=event.key)


async def double_yielding_later(events: Batch[int]) -> AsyncIterator[Output[int]]:
    for event in events:
        await asyncio.sleep(0)
        yield Output(event.value * 2, key=event.key)


def double_one(event: Event[int]) -> int:
    return event.value * 2


def double_one_publishing(event: Event[int], context: Context) -> None:
    context.publish("out", event.value * 2, key=event.key)


async def double_one_awaiting(event: Event[int]) -> int:
    await asyncio.sleep(0)
    return event.value * 2


def double_one_yielding(event: Event[int]) -> Iterator[int]:
    yield event.value * 2


async def double_one_yielding_later(
    event: Event[int], context: Context
) -> AsyncIterator[Output[int]]:
    await asyncio.sleep(0)
    yield Output(event.value * 2)


FORMS = [
    double_batch,
    double_list,
    double_yielding,
    double_awaiting,
    double_yielding_later,
    double_one,
    double_one_publishing,
    double_one_awaiting,
    double_one_yielding,
    double_one_yielding_later,
]


@pytest.mark.parametrize("handler", FORMS)
def test_every_form_of_handler_publishes_the_same(handler: Callable[..., Any]) -> None:
    returned = Rig(handler, output=True).run(1, 2, 3, keys="aba")
    assert returned.error is None
    assert returned.failures == ()
    assert returned.untouched == -1
    assert published(returned) == [(2, "a"), (4, "b"), (6, "a")]


@pytest.mark.parametrize("handler", FORMS)
def test_every_form_fails_the_one_event_that_cannot_be_decoded(handler: Callable[..., Any]) -> None:
    returned = Rig(handler, output=True).run(1, b"x", 3, keys="abc")
    assert returned.error is None
    assert failed(returned) == [1]
    assert returned.failures[0].cause.kind == "Undecodable"
    assert returned.untouched == 2
    assert published(returned) == [(2, "a")]


@pytest.mark.parametrize("handler", FORMS)
def test_unordered_functions_go_round_what_cannot_be_decoded(handler: Callable[..., Any]) -> None:
    rig = Rig(handler, output=True, order="none")
    returned = rig.run(1, b"x", 3, b"y", keys="aaaa")
    assert failed(returned) == [1, 3]
    assert returned.untouched == -1
    assert published(returned) == [(2, "a"), (6, "a")]


@pytest.mark.parametrize("handler", FORMS)
def test_keyed_functions_keep_later_events_of_the_key_waiting(handler: Callable[..., Any]) -> None:
    returned = Rig(handler, output=True, order="key").run(1, b"x", 3, 4, keys="abbc")
    assert [(f.index, f.cause.kind) for f in returned.failures] == [
        (1, "Undecodable"),
        (2, BEHIND),
    ]
    assert returned.untouched == -1
    assert published(returned) == [(2, "a"), (8, "c")]


# -- handlers of single events ----------------------------------------------------------------


def picky(event: Event[int], context: Context) -> None:
    context.state.put(f"seen-{event.value}", True)
    context.publish("out", event.value)
    if event.value < 0:
        raise ValueError(f"{event.value} is below zero")


def test_an_ordered_function_stops_at_the_first_failure_and_keeps_what_came_before() -> None:
    returned = Rig(picky).run(1, -2, 3)
    assert failed(returned) == [1]
    assert returned.untouched == 2
    assert published(returned) == [(1, None)]
    assert [write.key for write in returned.writes] == ["seen-1"]


def test_a_failure_at_the_end_leaves_nothing_untouched() -> None:
    returned = Rig(picky).run(1, -2)
    assert (failed(returned), returned.untouched) == ([1], -1)


def test_a_keyed_function_goes_on_with_other_keys() -> None:
    returned = Rig(picky, order="key").run(-1, 2, 3, -4, keys="abac")
    assert [(f.index, f.cause.kind) for f in returned.failures] == [
        (0, "ValueError"),
        (2, BEHIND),
        (3, "ValueError"),
    ]
    assert published(returned) == [(2, "b")]


def test_returned_failures_count_for_a_single_event_too() -> None:
    def refuse(event: Event[int]) -> Failures | None:
        return Failures([event], "too small") if event.value < 3 else None

    returned = Rig(refuse, order="none").run(1, 5, 2)
    assert failed(returned) == [0, 2]
    assert returned.failures[0].cause.message == "too small"


def test_a_list_for_a_stream_of_lists_is_one_value() -> None:
    app = App("shop")
    numbers, lists = app.stream("numbers", value=int), app.stream("lists", value=list[int])

    @app.function(numbers, name="f", output=lists)
    def pair(event: Event[int]) -> list[int]:
        return [event.value, event.value]

    chunk = Chunk("numbers", 0, 0, 1, encode_events([Fact(b"4")]), 0, 0, 1)
    returned = drive(Executor(app, Host()), BatchInvocation("shop.f", chunks=(chunk,)))
    assert published(returned) == [([4, 4], None)]


# -- handlers of batches ------------------------------------------------------------------------


def test_a_batch_handler_that_raises_leaves_no_trace() -> None:
    def bad(events: Batch[int], context: Context) -> None:
        for event in events:
            context.publish("out", event.value)
            context.state.put("n", event.value)
        raise KeyError("gone")

    returned = Rig(bad).run(1, 2)
    assert returned.error is not None
    assert (returned.error.kind, returned.error.message) == ("KeyError", "'gone'")
    assert (returned.done, returned.appends, returned.writes, returned.reads) == ((), (), (), ())


def test_what_was_marked_done_before_the_handler_raised_is_kept() -> None:
    def careful(events: Batch[int], context: Context) -> None:
        for event in events:
            context.publish("out", event.value)
            if event.value == 3:
                raise ValueError("three")
            context.done(event)

    returned = Rig(careful).run(1, 2, 3, 4)
    assert returned.error is not None
    assert returned.done == (0, 1)
    assert published(returned) == [(1, None), (2, None)]


def test_what_came_after_the_last_done_is_dropped_with_the_rest() -> None:
    def careful(events: Batch[int], context: Context) -> None:
        context.done(events[0])
        context.publish("out", "after")
        raise ValueError("late")

    returned = Rig(careful).run(1, 2)
    assert returned.done == (0,)
    assert returned.appends == ()


def test_done_events_that_lean_on_others_state_are_not_kept_alone() -> None:
    def leaning(events: Batch[int], context: Context) -> None:
        for event in events:
            context.state.update("n", partial(add, event.value), default=0)
            if event.value == 2:
                context.done(event)
        raise ValueError("late")

    returned = Rig(leaning).run(1, 2)
    assert returned.error is not None
    assert returned.done == ()
    assert returned.writes == ()


def test_failed_events_lose_their_effects_and_the_others_keep_theirs() -> None:
    def choosy(events: Batch[int], context: Context) -> None:
        for event in events:
            context.publish("out", event.value)
            context.state.update("n", lambda n: n + 1, default=0)
            if event.value < 0:
                context.fail(event, "below zero")

    returned = Rig(choosy).run(1, -2, 3)
    assert failed(returned) == [1]
    assert returned.failures[0].cause.message == "below zero"
    assert published(returned) == [(1, None), (3, None)]
    assert [(w.key, msgspec.msgpack.decode(w.value or b"")) for w in returned.writes] == [("n", 2)]


def test_returned_failures_may_name_events_or_offsets() -> None:
    def by_event(events: Batch[int]) -> Failures:
        return Failures([event for event in events if event.value < 0], "no")

    def by_offset(events: Batch[int]) -> Failures:
        return Failures([101])

    assert failed(Rig(by_event).run(1, -2, 3)) == [1]
    assert failed(Rig(by_offset).run(1, -2, 3)) == [1]


def test_failures_that_name_what_is_not_there_fail_the_batch() -> None:
    def wrong(events: Batch[int]) -> Failures:
        return Failures([5])

    returned = Rig(wrong).run(1, 2)
    assert returned.error is not None
    assert "offset 5, which is in no partition of this batch" in returned.error.message


def test_events_that_were_computed_from_a_failed_one_are_run_again_without_it() -> None:
    runs: list[list[int]] = []

    def counting(events: Batch[int], context: Context) -> Failures:
        runs.append([event.value for event in events])
        for event in events:
            context.state.update("sum", partial(add, event.value), default=0)
        return Failures([event for event in events if event.value == 100])

    returned = Rig(counting).run(1, 100, 2)
    assert runs == [[1, 100, 2], [1, 2]]
    assert failed(returned) == [1]
    assert [msgspec.msgpack.decode(w.value or b"") for w in returned.writes] == [3]


def test_outputs_outside_a_loop_are_made_again_of_the_good_ones_when_an_event_fails() -> None:
    def summing(events: Batch[int], context: Context) -> Failures:
        context.publish("out", sum(event.value for event in events))
        return Failures([event for event in events if event.value < 0])

    returned = Rig(summing).run(1, -2, 3)
    assert failed(returned) == [1]
    assert published(returned) == [(4, None)]


def walk_sorted(events: Batch[int]) -> Iterable[Event[int]]:
    return sorted(events, key=lambda event: -event.value)


def walk_a_list(events: Batch[int]) -> Iterable[Event[int]]:
    return list(events)


def walk_by_index(events: Batch[int]) -> Iterable[Event[int]]:
    return (events[index] for index in range(len(events)))


def walk_a_slice(events: Batch[int]) -> Iterable[Event[int]]:
    return events[::-1]


def walk_reversed(events: Batch[int]) -> Iterable[Event[int]]:
    return reversed(events)


def walk_the_batch(events: Batch[int]) -> Iterable[Event[int]]:
    return events


WALKS = [walk_sorted, walk_a_list, walk_by_index, walk_a_slice, walk_reversed, walk_the_batch]
Walk = Callable[[Batch[int]], Iterable[Event[int]]]


@pytest.mark.parametrize("walk", WALKS)
@pytest.mark.parametrize("says", ["returns", "fails", "yields"])
def test_nothing_of_a_failed_event_is_kept_however_the_batch_is_walked(
    walk: Walk, says: str
) -> None:
    def act(event: Event[int], context: Context) -> None:
        context.publish("out", event.value)
        context.state.put(f"seen-{event.value}", 1)

    def choosy(events: Batch[int], context: Context) -> Failures | None:
        bad = []
        for event in walk(events):
            act(event, context)
            if event.value < 0 and says == "fails":
                context.fail(event)
            elif event.value < 0:
                bad.append(event)
            else:
                context.done(event)
        return Failures(bad) if bad else None

    def yielding(events: Batch[int], context: Context) -> Iterator[Failures]:
        failures = choosy(events, context)
        if failures is not None:
            yield failures

    rig = Rig(yielding, output=True) if says == "yields" else Rig(choosy)
    returned = rig.run(1, -2, 3)
    assert failed(returned) == [1]
    assert published(returned) == [(1, None), (3, None)]
    assert sorted(write.key for write in returned.writes) == ["seen-1", "seen-3"]
    alone = rig.run(-2)
    assert (failed(alone), alone.appends, alone.writes) == ([0], (), ())


@pytest.mark.parametrize("walk", WALKS)
def test_a_batch_that_raises_keeps_of_done_events_what_is_theirs_alone(walk: Walk) -> None:
    def late(events: Batch[int], context: Context) -> None:
        for event in walk(events):
            context.publish("out", event.value)
            if event.value > 0:
                context.done(event)
        raise ValueError("late")

    returned = Rig(late).run(1, -2, 3)
    assert returned.error is not None
    # Either all of the done events' outputs, or nothing, and all of them are run again.
    kept = [(1, None), (3, None)] if returned.done else []
    assert returned.done in ((), (0, 2))
    assert published(returned) == kept
    # A batch of one can be told, or a handler that raises behind `done` would never come to an end.
    assert Rig(late).run(1).done == (0,)


def test_what_other_threads_did_is_not_taken_for_the_work_on_the_event_at_hand() -> None:
    def pooled(events: Batch[int], context: Context) -> Failures:
        with ThreadPoolExecutor(2) as pool:
            waiting = []
            for event in events:
                waiting.append(pool.submit(context.publish, "out", event.value))
                if event.value == 3:
                    wait(waiting)
        return Failures([event for event in events if event.value < 0])

    returned = Rig(pooled).run(1, -2, 3)
    assert failed(returned) == [1]
    assert published(returned) == [(1, None), (3, None)]


def test_what_tasks_did_is_not_taken_for_the_work_on_the_event_at_hand() -> None:
    async def later(event: Event[int], context: Context) -> None:
        await asyncio.sleep(0)
        context.publish("out", event.value)

    async def tasked(events: Batch[int], context: Context) -> Failures:
        tasks = []
        for event in events:
            tasks.append(asyncio.create_task(later(event, context)))
            await asyncio.sleep(0)
        await asyncio.gather(*tasks)
        return Failures([event for event in events if event.value < 0])

    returned = Rig(tasked).run(1, -2, 3)
    assert failed(returned) == [1]
    assert published(returned) == [(1, None), (3, None)]


@pytest.mark.parametrize("order", ["partition", "key", "none"])
def test_a_second_pass_meets_the_values_of_the_log(
    order: Literal["partition", "key", "none"],
) -> None:
    def changing(events: Batch[Any], context: Context) -> Failures:
        for event in events:
            event.value["n"] += 1
            event.key = "changed"
            context.state.update("n", partial(add, event.value["n"]), default=0)
            context.publish("out", event.value["n"])
        return Failures([event for event in events if event.value["n"] > 100])

    app = App("shop")
    rows = app.stream("rows", value=dict[str, int])
    app.stream("out")
    app.function(rows, name="f", order=order)(changing)
    raws = [b'{"n": 0}', b'{"n": 1000}', b'{"n": 20}', b"[1]"]
    facts = [Fact(raw, str(at)) for at, raw in enumerate(raws)]
    chunk = Chunk("rows", 0, 0, 4, encode_events(facts), 0, 0, 4)
    returned = drive(Executor(app, Host()), BatchInvocation("shop.f", token=7, chunks=(chunk,)))
    assert failed(returned) == [1, 3]
    assert published(returned) == [(1, "changed"), (21, "changed")]


# -- threads ------------------------------------------------------------------------------------


def test_threads_lose_and_mix_up_nothing() -> None:
    def busy(event: Event[int], context: Context) -> None:
        def one(number: int) -> bool:
            context.publish("out", number, key=str(number))
            context.state.update("sum", partial(add, number), default=0)
            context.state.put(f"k{number}", number)
            return bool(context.state.get(f"k{number}") == number)

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(one, range(400)))

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        returned = Rig(busy).run(1)
    finally:
        sys.setswitchinterval(before)
    assert failed(returned) == []
    assert sorted(value for value, _ in published(returned)) == list(range(400))
    assert all(value == int(key or "") for value, key in published(returned))
    state = {write.key: msgspec.msgpack.decode(write.value or b"") for write in returned.writes}
    assert state.pop("sum") == sum(range(400))
    assert state == {f"k{number}": number for number in range(400)}


LATE: list[tuple[str, Callable[[Context, Event[int]], Any]]] = [
    ("publishing to `out`", lambda context, event: context.publish("out", 1)),
    ("reading state `k`", lambda context, event: context.state.get("k")),
    ("writing state `k`", lambda context, event: context.state.put("k", 1)),
    ("changing state `k`", lambda context, event: context.state.update("k", str)),
    ("listing state `k`", lambda context, event: list(context.state.items("k"))),
    ("`context.extend`", lambda context, event: context.extend(9_000)),
    ("`context.done(Event(", lambda context, event: context.done(event)),
    ("`context.fail(Event(", lambda context, event: context.fail(event)),
]


@pytest.mark.parametrize(("what", "act"), LATE)
@pytest.mark.parametrize("state_before", [False, True])
def test_what_comes_after_the_runs_end_is_refused_and_told(
    what: str,
    act: Callable[[Context, Event[int]], Any],
    state_before: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    kept: list[tuple[Context, Event[int]]] = []

    def leaving(event: Event[int], context: Context) -> None:
        if state_before:
            context.state.get("other")
        kept.append((context, event))

    Rig(leaving).run(1)
    with pytest.raises(
        Misuse, match=r"came after the run of `shop[.]f` had ended, and is lost"
    ) as told:
        act(*kept[0])
    if what.startswith(("reading", "writing", "changing", "listing")) and not state_before:
        what = "`context.state`"
    assert str(told.value).startswith(what)
    assert str(told.value) in caplog.messages


def test_a_task_that_was_left_behind_is_refused_too() -> None:
    told: list[str] = []

    async def straggle(context: Context) -> None:
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        try:
            context.publish("out", 1)
        except Misuse as error:
            told.append(str(error))

    async def leaving(event: Event[int], context: Context) -> None:
        left.append(asyncio.create_task(straggle(context)))

    async def run(work: Any) -> Returned:
        returned: Returned = await work
        await left[0]
        return returned

    left: list[asyncio.Task[None]] = []
    rig = Rig(leaving)
    chunk = Chunk("numbers", 0, 0, 1, encode_events([Fact(b"1")]), 0, 0, 1)
    returned = asyncio.run(
        run(rig.executor.run(BatchInvocation("shop.f", token=7, chunks=(chunk,))))
    )
    assert returned.appends == ()
    assert len(told) == 1


# -- cancellation ---------------------------------------------------------------------------------


async def cancel_itself(event: Event[int], context: Context) -> None:
    task = asyncio.current_task()
    assert task is not None
    if event.value in (1, 2):
        task.cancel()
    if event.value == 1:
        await asyncio.sleep(0)
    context.publish("out", event.value)


def test_a_handler_that_cancels_itself_has_failed_and_its_neighbours_have_not() -> None:
    returned = Rig(cancel_itself, order="none").run(0, 1, 2, 3)
    assert [(f.index, f.cause.kind) for f in returned.failures] == [
        (1, "CancelledError"),
        (2, "CancelledError"),
    ]
    assert "in cancel_itself" in returned.failures[0].cause.traceback
    assert published(returned) == [(0, None), (3, None)]


def test_a_handler_that_forgives_bad_bytes_is_not_overruled() -> None:
    def forgiving(events: Batch[int]) -> None:
        for event in events:
            with contextlib.suppress(Exception):
                _ = event.value

    returned = Rig(forgiving).run(1, b"x")
    assert returned.failures == ()
    assert returned.error is None


def test_a_batch_of_nothing_but_poison_gives_up_after_a_bounded_number_of_runs() -> None:
    returned = Rig(double_batch, order="none").run(*[b"x"] * 40)
    assert returned.error is not None
    assert returned.error.kind == "Undecodable"


def returns(event: Event[int]) -> Any:
    return [[1, float("nan")]]


def yields(event: Event[int]) -> Iterator[Any]:
    yield [1, float("nan")]


def returns_an_output(event: Event[int]) -> Any:
    return Output([1, float("nan")], key="k")


async def returns_later(event: Event[int]) -> Any:
    return [[1, float("nan")]]


@pytest.mark.parametrize("handler", [returns, yields, returns_an_output, returns_later])
def test_an_output_that_json_cannot_hold_fails_its_event(handler: Callable[..., Any]) -> None:
    (failure,) = Rig(handler, output=True).run(1).failures
    assert failure.cause.kind == "Invalid"
    assert "publishing to `out`: the value at `/1` is nan" in failure.cause.message


@pytest.mark.parametrize(
    "answer",
    [
        {"a": float("nan")},
        {1: 1, "1": 2},
        2**70,
        [float("inf")],
        Reply({"a": float("nan")}),
        Output(2**70),
        [Output(float("nan"))],
    ],
)
def test_an_answer_that_json_cannot_hold_fails_its_call(answer: Any) -> None:
    def work(event: Event[int]) -> Any:
        return answer

    def part(event: Event[int]) -> Iterator[Any]:
        yield answer

    for handler in (work, part):
        rig = Rig(handler, output=handler is part)
        returned = call(rig.executor, b"1")
        assert returned.error is not None
        assert returned.error.kind == "Invalid"


# -- what user code may raise -----------------------------------------------------------------------


class Nasty(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even text")


@pytest.mark.parametrize(
    "error",
    [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), asyncio.CancelledError(), Nasty()],
)
def test_nothing_that_user_code_raises_escapes(error: BaseException) -> None:
    def one(event: Event[int]) -> None:
        raise error

    def many(events: Batch[int]) -> None:
        raise error

    async def later(event: Event[int]) -> None:
        raise error

    for handler in (one, later):
        (failure,) = Rig(handler).run(1).failures
        assert failure.cause.kind == type(error).__name__
    returned = Rig(many).run(1)
    assert returned.error is not None
    assert returned.error.kind == type(error).__name__


def test_a_permanent_failure_is_not_worth_another_attempt() -> None:
    def refuse(event: Event[int]) -> None:
        raise Permanent("never")

    (failure,) = Rig(refuse).run(1).failures
    assert failure.cause.retryable is False


def test_a_traceback_shows_the_authors_frames_and_is_capped() -> None:
    def deep(depth: int) -> None:
        if depth == 0:
            raise ValueError("x" * 100_000)
        deep(depth - 1)

    def one(event: Event[int]) -> None:
        deep(30)

    (failure,) = Rig(one).run(1).failures
    assert len(failure.cause.traceback) <= MAX_TRACEBACK
    assert len(failure.cause.message) <= 4_096
    assert "in deep" in failure.cause.traceback
    assert "child/executor.py" not in failure.cause.traceback


def test_a_message_that_is_not_unicode_can_still_be_sent() -> None:
    def one(event: Event[int]) -> None:
        raise ValueError("\ud800")

    returned = Rig(one).run(1)
    assert msgspec.msgpack.encode(returned)


def test_an_awaitable_hidden_behind_a_plain_function_is_told() -> None:
    def hiding(event: Event[int]) -> Any:
        return double_one_awaiting(event)

    (failure,) = Rig(hiding).run(1).failures
    assert "use `functools.wraps`" in failure.cause.message


# -- calls ------------------------------------------------------------------------------------------


def call(executor: Executor, payload: bytes) -> Returned:
    event = encode_events([Fact(payload)])
    return drive(executor, CallInvocation("shop.f", token=3, key="idem", event=event))


@pytest.mark.parametrize("handler", [double_one, double_one_awaiting])
def test_a_call_is_answered_with_the_return_value(handler: Callable[..., Any]) -> None:
    returned = call(Rig(handler, output=True).executor, b"21")
    assert returned.result == b"42"
    assert published(returned) == [(42, None)]


def test_a_called_generator_answers_with_everything_it_yields() -> None:
    assert call(Rig(double_one_yielding, output=True).executor, b"4").result == b"[8]"


def test_a_call_without_an_answer_is_answered_with_null() -> None:
    assert call(Rig(double_one_publishing).executor, b"4").result == b"null"


def test_who_calls_a_function_of_row_changes_hands_over_the_change_itself() -> None:
    def tell(event: Event[dict[str, Any]]) -> Any:
        return event.value["op"]

    returned = call(Rig(tell, changes=Debezium()).executor, b'{"op":"insert"}')
    assert returned.result == b'"insert"'


def test_a_call_that_fails_says_why() -> None:
    def refuse(event: Event[int]) -> Failures:
        return Failures([event], "not today")

    for handler, text in ((picky, "-1 is below zero"), (refuse, "not today")):
        returned = call(Rig(handler).executor, b"-1")
        assert returned.error is not None
        assert returned.error.message == text
        assert returned.appends == ()


def test_an_answer_that_has_no_json_form_is_a_failure() -> None:
    def odd(event: Event[int]) -> Any:
        return object()

    returned = call(Rig(odd).executor, b"1")
    assert returned.error is not None
    assert "cannot be written as json" in returned.error.message


# -- life -------------------------------------------------------------------------------------------


def test_hooks_are_called_once_each_in_their_order() -> None:
    rig = Rig(double_one, output=True)
    seen: list[str] = []
    rig.app.init(lambda: seen.append("init 1"))
    rig.app.init(lambda: seen.append("init 2"))
    rig.app.on_suspend(lambda: seen.append("suspend"))
    rig.app.on_resume(lambda: seen.append("resume"))
    rig.app.on_stop(lambda: seen.append("stop 1"))
    rig.app.on_stop(lambda: seen.append("stop 2"))
    finish(rig.executor.start("shop.f"))
    rig.run(1)
    finish(rig.executor.suspend())
    finish(rig.executor.resume())
    finish(rig.executor.stop())
    assert seen == ["init 1", "init 2", "suspend", "resume", "stop 2", "stop 1"]


def test_an_init_hook_that_fails_fails_the_invocation_and_is_tried_again() -> None:
    rig = Rig(double_one, output=True)
    attempts: list[int] = []

    @rig.app.init
    def connect() -> None:
        attempts.append(1)
        if len(attempts) == 1:
            raise ConnectionError("database away")

    first = rig.run(1)
    assert first.error is not None
    assert first.error.kind == "ConnectionError"
    assert first.error.message == "database away (in the `init` hook `connect`)"
    assert rig.run(1).error is None
    assert rig.run(1).error is None
    assert len(attempts) == 2


def test_a_hook_for_some_functions_is_not_called_for_others() -> None:
    rig = Rig(double_one, output=True)
    seen: list[str] = []
    rig.app.init(only=["f"])(lambda: seen.append("for f"))
    rig.app.init(only=[double_one])(lambda: seen.append("for the handler"))
    rig.app.function(name="other")(lambda event: None)
    rig.app.init(only=["other"])(lambda: seen.append("for other"))
    finish(rig.executor.start("shop.f"))
    assert seen == ["for f", "for the handler"]
    finish(rig.executor.start("shop.other"))
    assert seen == ["for f", "for the handler", "for other"]


def test_what_was_opened_is_closed_after_the_stop_hooks() -> None:
    rig = Rig(double_one, output=True)
    seen: list[str] = []

    @rig.app.resource
    def database() -> Iterator[str]:
        yield "open"
        seen.append("closed")

    rig.app.lend(str)
    rig.app.on_stop(lambda: seen.append(database.value))
    finish(rig.executor.stop())
    assert seen == ["open", "closed"]


def test_an_unknown_function_is_named_with_its_neighbours() -> None:
    with pytest.raises(Unknown, match=r"no function `shop.g` \(did you mean `shop.f`"):
        Rig(double_one, output=True).executor.is_async("shop.g")
