"""Whatever fails, what is kept is exactly what the good events alone would have done."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace import App, Batch, Context, Event, Failures
from headrace.model.codec import decode_state, encode_state
from headrace.model.event import Event as Fact
from headrace.model.invocation import BatchInvocation, Invocation
from headrace.model.outcome import Returned, Scanned
from headrace.model.record import Chunk, decode_events, encode_events
from headrace.runtime.child.executor import Executor


class Step(msgspec.Struct, array_like=True):
    """One thing an event's handling does: publish, put, add to what is there, or delete."""

    kind: str
    key: str


class Script(msgspec.Struct):
    """All that is done for one event, and how that ends."""

    steps: list[Step]
    fate: str


class World(NamedTuple):
    """What an observer sees: outputs in order, and state."""

    outputs: list[tuple[int, str]]
    state: dict[str, Any]


def act(index: int, script: Script, context: Context) -> None:
    for step in script.steps:
        match step.kind:
            case "publish":
                context.publish("out", [index, step.key])
            case "put":
                context.state.put(step.key, index)
            case "add":
                context.state.update(step.key, lambda n: n + index + 1, default=0)
            case "tell":
                context.publish("out", [index, str(context.state.get(step.key, default=0))])
            case _:
                context.state.delete(step.key)


def ordered(event: Event[Script], context: Context) -> Failures | None:
    return one(event, context)


def keyed(event: Event[Script], context: Context) -> Failures | None:
    return one(event, context)


def unordered(event: Event[Script], context: Context) -> Failures | None:
    return one(event, context)


def one(event: Event[Script], context: Context) -> Failures | None:
    act(event.offset, event.value, context)
    if event.value.fate == "raises":
        raise ValueError("as planned")
    if event.value.fate == "fails":
        context.fail(event, "as planned")
    return Failures([event]) if event.value.fate == "returned" else None


def whole(events: Batch[Script], context: Context) -> Failures:
    later: list[Event[Script]] = []
    for event in events:
        act(event.offset, event.value, context)
        if event.value.fate == "fails":
            context.fail(event, "as planned")
        elif event.value.fate in {"raises", "returned"}:
            later.append(event)
    return Failures(later)


def sealing(events: Batch[Script], context: Context) -> None:
    for event in events:
        act(event.offset, event.value, context)
        if event.value.fate != "good":
            raise ValueError("as planned")
        context.done(event)


def deployed(handler: Callable[..., Any], **options: Any) -> App:
    """An app with this function alone: an executor makes ready all that its app has."""
    app = App("p")
    scripts = app.stream("scripts", 4, Script)
    app.stream("out", 1)
    app.function(scripts, **options)(handler)
    return app


APPS = {
    "ordered": deployed(ordered),
    "keyed": deployed(keyed, order="key"),
    "unordered": deployed(unordered, order="none"),
    "whole": deployed(whole),
    "sealing": deployed(sealing),
}


class Host:
    """State as a host keeps it."""

    rows: ClassVar = {"a": (1, encode_state(100)), "b": (1, encode_state(200))}

    def read_state(
        self, function: str, store: str, keys: list[str]
    ) -> list[tuple[int, bytes | None]]:
        return [self.rows.get(key, (0, None)) for key in keys]

    def scan_state(self, function: str, store: str, prefix: str, begin: str, limit: int) -> Scanned:
        raise NotImplementedError

    def extend(self, invocation: Invocation, seconds: float) -> None:
        raise NotImplementedError


def alone(batch: list[Script], indices: list[int]) -> World:
    """What these events do if nothing else is there."""
    outputs: list[tuple[int, str]] = []
    state: dict[str, Any] = {key: decode_state(raw) for key, (_, raw) in Host.rows.items()}
    for index in indices:
        for step in batch[index].steps:
            match step.kind:
                case "publish":
                    outputs.append((index, step.key))
                case "put":
                    state[step.key] = index
                case "add":
                    state[step.key] = state.get(step.key, 0) + index + 1
                case "tell":
                    outputs.append((index, str(state.get(step.key, 0))))
                case _:
                    state.pop(step.key, None)
    return World(outputs, state)


def run(function: str, batch: list[Script], keys: list[str | None]) -> tuple[Returned, World]:
    facts = [
        Fact(msgspec.json.encode(script), key) for script, key in zip(batch, keys, strict=True)
    ]
    chunk = Chunk("scripts", 0, 0, len(facts), encode_events(facts), 0, 0, len(facts))
    work = Executor(APPS[function], Host()).run(
        BatchInvocation(f"p.{function}", token=2, chunks=(chunk,))
    )
    with pytest.raises(StopIteration) as stopped:
        work.send(None)
    returned: Returned = stopped.value.value
    state: dict[str, Any] = {key: decode_state(raw) for key, (_, raw) in Host.rows.items()}
    for write in returned.writes:
        if write.value is None:
            state.pop(write.key, None)
        else:
            state[write.key] = decode_state(write.value)
    outputs = [
        tuple(msgspec.json.decode(fact.value))
        for append in returned.appends
        for fact in decode_events(append.body)
    ]
    return returned, World(outputs, state)


steps = st.builds(
    Step, st.sampled_from(["publish", "put", "add", "tell", "delete"]), st.sampled_from("abc")
)
fates = st.sampled_from(["good", "good", "good", "raises", "fails", "returned"])
batches = st.lists(st.builds(Script, st.lists(steps, max_size=4), fates), min_size=1, max_size=7)


@given(batches)
def test_an_ordered_function_keeps_the_events_before_the_first_failure(batch: list[Script]) -> None:
    returned, world = run("ordered", batch, [None] * len(batch))
    bad = next((i for i, script in enumerate(batch) if script.fate != "good"), len(batch))
    assert [failure.index for failure in returned.failures] == ([bad] if bad < len(batch) else [])
    assert returned.untouched == (bad + 1 if bad + 1 < len(batch) else -1)
    assert world == alone(batch, list(range(bad)))


@given(batches)
def test_an_unordered_function_keeps_every_good_event(batch: list[Script]) -> None:
    returned, world = run("unordered", batch, ["k"] * len(batch))
    good = [i for i, script in enumerate(batch) if script.fate == "good"]
    assert [failure.index for failure in returned.failures] == [
        i for i in range(len(batch)) if i not in good
    ]
    assert world == alone(batch, good)


@given(batches, st.data())
def test_a_keyed_function_never_runs_an_event_past_a_failed_one_of_its_key(
    batch: list[Script], data: st.DataObject
) -> None:
    some_key: st.SearchStrategy[str | None] = st.sampled_from(["x", "y", None])
    keys = data.draw(st.lists(some_key, min_size=len(batch), max_size=len(batch)))
    returned, world = run("keyed", batch, keys)
    closed: set[str] = set()
    good: list[int] = []
    for index, (script, key) in enumerate(zip(batch, keys, strict=True)):
        if key in closed:
            continue
        if script.fate == "good":
            good.append(index)
        elif key is not None:
            closed.add(key)
    assert [failure.index for failure in returned.failures] == [
        i for i in range(len(batch)) if i not in good
    ]
    assert world == alone(batch, good)


@given(batches)
def test_a_batch_function_keeps_what_the_good_events_alone_would_do(batch: list[Script]) -> None:
    returned, world = run("whole", batch, [None] * len(batch))
    good = [i for i, script in enumerate(batch) if script.fate == "good"]
    assert returned.error is None
    assert [failure.index for failure in returned.failures] == [
        i for i in range(len(batch)) if i not in good
    ]
    assert world == alone(batch, good)


@given(batches)
def test_what_was_sealed_by_done_stands_when_the_handler_raises(batch: list[Script]) -> None:
    returned, world = run("sealing", batch, [None] * len(batch))
    bad = next((i for i, script in enumerate(batch) if script.fate != "good"), None)
    if bad is None:
        assert returned.error is None
        assert world == alone(batch, list(range(len(batch))))
    else:
        assert returned.error is not None
        assert returned.done == tuple(range(bad))
        assert world == alone(batch, list(range(bad)))
