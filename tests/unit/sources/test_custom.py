"""The author's own generators: every event once, from the checkpoint on, whatever dies."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from headrace import App, Event
from headrace.environment.failpoints import LABELS
from headrace.errors import Misuse
from headrace.sources import Emit
from headrace.testing import World


def counting(*, async_: bool = False, fails: int = 0) -> App:
    app = App("count")
    seen = app.stream("seen")
    failures = [fails]

    if async_:

        @app.source(every="1m")
        async def numbers(checkpoint: Any) -> AsyncIterator[Emit]:
            for number in range(checkpoint or 0, (checkpoint or 0) + 3):
                yield Emit(number, key=str(number), checkpoint=number + 1)

        source: Any = numbers
    else:

        @app.source(every="1m")
        def counted(checkpoint: Any) -> Iterator[Emit]:
            for number in range(checkpoint or 0, (checkpoint or 0) + 3):
                yield Emit(number, key=str(number), checkpoint=number + 1)
                if failures[0]:
                    failures[0] -= 1
                    raise OSError("the line is dead")

        source = counted

    @app.function(source, output=seen)  # type: ignore[untyped-decorator]
    def note(event: Event[int]) -> int:
        return event.value

    return app


@pytest.mark.parametrize("async_", [False, True])
def test_a_generator_goes_on_from_its_checkpoint(async_: bool) -> None:
    with World(counting(async_=async_)) as world:
        world.advance("150s")
        assert world.values("seen") == list(range(9))


def test_a_generator_that_fails_is_restarted_and_nothing_of_that_turn_is_kept() -> None:
    with World(counting(fails=3)) as world:
        world._lives.loop.run_for(20)
        assert [name for name, _ in world._lives.failures] == ["feed count.note (custom)"] * 3
        world._lives.failures.clear()
        assert world.values("seen") == [0, 1, 2]
        assert world._lives.node.supervisor.sources.trouble("_count.note.custom.0") is None


@pytest.mark.parametrize("what", ["key", "id"])
def test_a_name_that_is_too_long_is_refused_with_its_trigger(what: str) -> None:
    app = App("count")
    names: Any = {what: "n" * 1_025}

    @app.source(every="1m")
    def numbers(checkpoint: Any) -> Iterator[Emit]:
        yield Emit(1, checkpoint=1, **({} if checkpoint is None else names))

    @app.function(numbers, output=app.stream("seen"))
    def note(event: Event[int]) -> int:
        return event.value

    with World(app) as world:
        world._lives.loop.run_for(70)
        ((_, error),) = set(world._lives.failures[:1])
        assert f"`count.numbers` emits a {what} of 1,025 characters" in str(error)
        world._lives.failures.clear()
        assert world.values("seen") == [1]


@pytest.mark.parametrize(
    "label", [one for one in LABELS if one.startswith(("append", "commit", "pump", "claim"))]
)
def test_a_host_that_dies_between_two_steps_neither_loses_nor_doubles_an_event(label: str) -> None:
    with World(counting()) as world:
        for passes in (1, 2, 3, 4):
            world.crash(label, passes)
            world.advance("2m")
        world.run_until_idle()
        found = world.values("seen")
        assert found == list(range(len(found)))
        assert len(found) >= 9


@pytest.mark.parametrize(
    ("emit", "reported"),
    [
        (lambda: Emit({"a": float("nan")}), "the value at `/a` is nan"),
        (lambda: Emit(2**70), "beyond 64 bits"),
        (lambda: Emit({1: 1, "1": 2}), "the keys 1 and '1'"),
        (lambda: Emit(1, checkpoint={"at": float("inf")}), "the value at `/checkpoint/at` is inf"),
        (lambda: Emit(1, time=float("inf")), "`time=inf`; use an aware datetime"),
        (lambda: Emit(1, time=float("nan")), "`time=nan`; use an aware datetime"),
    ],
)
def test_what_json_cannot_hold_is_refused_with_its_trigger(
    emit: Callable[[], Emit], reported: str
) -> None:
    app = App("count")

    @app.source(every="1m")
    def numbers(checkpoint: Any) -> Iterator[Emit]:
        yield emit()

    @app.function(numbers, output=app.stream("seen"))
    def note(event: Event[int]) -> int:
        return event.value

    with World(app) as world:
        world._lives.loop.run_for(70)
        ((_, error),) = set(world._lives.failures[:1])
        assert reported in str(error)
        world._lives.failures.clear()
        assert world.values("seen") == []


def test_an_asynchronous_generator_that_waits_hands_over_what_it_has() -> None:
    app = App("wait")
    seen = app.stream("seen")

    @app.source(turn_time=5)
    async def slow(checkpoint: Any) -> AsyncIterator[Emit]:
        import asyncio

        yield Emit("first" if checkpoint is None else "later", checkpoint=1)
        await asyncio.Event().wait()

    @app.function(slow, output=seen)
    def note(event: Event[str]) -> str:
        return event.value

    with World(app) as world:
        world.advance("1s")
        assert world.values("seen")[:1] == ["first"]
        assert "later" in world.values("seen")


def test_the_map_shows_which_generator_sets_a_function_off() -> None:
    with World(counting()) as world:
        assert "custom count.counted" in world.map()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"every": 0}, "out of range"),
        ({"turn_events": 0}, "1 to 10,000"),
        ({"turn_time": 90}, "before its timeout"),
    ],
)
def test_a_wrong_setting_is_refused_where_it_is_written(
    settings: dict[str, Any], says: str
) -> None:
    app = App("wrong")

    def stream(checkpoint: Any) -> Iterator[Emit]:
        yield Emit(checkpoint)

    with pytest.raises(Misuse, match=says):
        app.source(**settings)(stream)


def test_what_is_no_generator_of_a_checkpoint_is_refused() -> None:
    app = App("wrong")

    def plain(checkpoint: Any) -> Any:
        return checkpoint

    def bare() -> Iterator[Emit]:
        yield Emit(1)

    for emitter in (plain, bare):
        with pytest.raises(Misuse, match="a source is a generator"):
            app.source(emitter)  # type: ignore[type-var]


def test_yielding_something_else_says_what_to_yield() -> None:
    app = App("wrong")

    @app.source
    def numbers(checkpoint: Any) -> Iterator[Any]:
        yield 7

    @app.function(numbers)
    def note(event: Event[int]) -> None: ...

    with World(app) as world:
        world._lives.loop.run_for(1)
        assert "yield `Emit(value, checkpoint=...)`" in str(world._lives.failures[0][1])
        world._lives.failures.clear()
