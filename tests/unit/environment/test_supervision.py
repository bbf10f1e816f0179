"""Supervised tasks: healthy, failing or halted; only their work ends them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from headrace.environment.restart_backoff import PAUSE_MAX_S, PAUSE_MIN_S, Backoff
from headrace.environment.supervised_task import MAX_ERROR, WELL_AFTER_S, Supervised, TaskFailure
from headrace.environment.tasks import Tasks
from headrace.model.errors import Misuse, Unavailable
from headrace.testing.virtual_time import VirtualClock, VirtualLoop


class Work:
    """Raises the given errors, one for each start, after it ran so long; then runs on."""

    def __init__(self, loop: VirtualLoop, *errors: Exception, lasts: float = 0.0) -> None:
        self.loop = loop
        self.clock = VirtualClock(loop)
        self.errors = list(errors)
        self.lasts = lasts
        self.reported: list[tuple[str, BaseException]] = []
        self.tasks = Tasks(lambda name, error: self.reported.append((name, error)))
        self.starts: list[float] = []

    async def __call__(self) -> None:
        self.starts.append(self.loop.time())
        if self.errors:
            await self.clock.sleep(self.lasts)
            raise self.errors.pop(0)
        await asyncio.Event().wait()

    def start(self) -> Supervised:
        backoff = Backoff(self.clock)
        return self.tasks.supervise(self, name="work", backoff=backoff, halts=Misuse)


def lived(
    errors: list[Exception], *seconds: float, lasts: float = 0.0
) -> tuple[Work, list[TaskFailure | None]]:
    """The trouble of a task that raises these, after each of those pauses."""
    loop = VirtualLoop()
    work = Work(loop, *errors, lasts=lasts)
    seen: list[TaskFailure | None] = []

    async def live() -> None:
        kept = work.start()
        for pause in seconds:
            await work.clock.sleep(pause)
            seen.append(kept.trouble)
            assert work.tasks.troubles() == ({} if kept.trouble is None else {"work": kept.trouble})
        await kept.stop()
        assert kept.trouble is None
        assert work.tasks.troubles() == {}
        await work.tasks.close()

    loop.drive(live())
    loop.close()
    return work, seen


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), KeyError("x"), Unavailable("away")]
)
def test_it_is_restarted_whatever_it_raises_and_well_once_it_has_run_for_a_while(
    error: Exception,
) -> None:
    work, (failing, well) = lived([error], 1.0, WELL_AFTER_S + 1)
    assert len(work.starts) == 2
    assert work.reported == [("work", error)]
    assert failing is not None
    assert (failing.failures, failing.halted) == (1, False)
    assert well is None


def test_pauses_grow_to_a_bound_and_failures_are_counted_from_the_first() -> None:
    work, (trouble,) = lived([ValueError(str(n)) for n in range(12)], 200.0)
    pauses = [later - earlier for earlier, later in zip(work.starts, work.starts[1:], strict=False)]
    assert pauses[0] == pytest.approx(PAUSE_MIN_S)
    assert pauses == sorted(pauses)
    assert max(pauses) == pytest.approx(PAUSE_MAX_S)
    assert trouble is not None
    assert trouble.failures > 9
    assert trouble.error.startswith("ValueError: ")


def test_one_that_ran_well_starts_to_count_again() -> None:
    work, seen = lived([ValueError("a"), ValueError("b")], 41.0, 41.0, lasts=40.0)
    assert [each and (each.failures, each.error) for each in seen] == [
        (1, "ValueError: a"),
        (1, "ValueError: b"),
    ]
    assert work.starts[1] - work.starts[0] == pytest.approx(40.0 + PAUSE_MIN_S)


def test_one_that_says_that_it_works_is_well_at_once_and_starts_to_count_again() -> None:
    loop = VirtualLoop()
    work = Work(loop, *(ValueError(str(n)) for n in range(2)))

    async def live() -> None:
        kept = work.start()
        await work.clock.sleep(10.0)
        assert [each.failures for each in work.tasks.troubles().values()] == [2]
        kept.recovered()
        assert work.tasks.troubles() == {}
        assert kept.trouble is None
        await work.tasks.close()

    loop.drive(live())
    loop.close()


def test_what_no_repetition_mends_halts_it_until_it_is_stopped() -> None:
    work, (trouble,) = lived([Misuse("the slot is gone")], 10_000.0)
    assert len(work.starts) == 1
    assert trouble is not None
    assert (trouble.error, trouble.halted) == ("the slot is gone", True)
    assert [name for name, _ in work.reported] == ["work"]


def test_a_long_error_is_cut() -> None:
    _, (trouble,) = lived([ValueError("x" * 10_000)], 0.1)
    assert trouble is not None
    assert len(trouble.error) == MAX_ERROR + 1


def test_one_that_returns_is_over() -> None:
    async def live(loop: VirtualLoop, ended: Callable[[Supervised], None]) -> None:
        async def once() -> None:
            await asyncio.sleep(0)

        tasks = Tasks(lambda name, error: pytest.fail(f"{name}: {error!r}"))
        kept = tasks.supervise(once, name="once", backoff=Backoff(VirtualClock(loop)))
        await kept.task
        ended(kept)
        await tasks.close()

    loop = VirtualLoop()
    found: list[Supervised] = []
    loop.drive(live(loop, found.append))
    loop.close()
    assert [kept.task.done() for kept in found] == [True]
