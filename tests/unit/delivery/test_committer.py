"""What follows a commit, whoever made it."""

from __future__ import annotations

import pytest

from headrace.delivery.commit.committer import Committer
from headrace.delivery.commit.delayed_appends import DelayedAppends
from headrace.environment.clock import SystemClock
from headrace.environment.randomness import SeededEntropy
from headrace.model.effects import Change, Put, Space
from headrace.model.errors import Unavailable
from headrace.model.event import Event
from headrace.model.function import QueueSpec, StreamSpec
from headrace.model.record import Append, encode_events
from headrace.storage.kv.memory import MemoryStorage
from headrace.storage.log.memory import MemoryBroker

JOBS = StreamSpec(name="jobs", partitions=1, queue=QueueSpec())


def append(**headers: str) -> Append:
    """A message for `jobs`, as its queue takes it."""
    appends = DelayedAppends(SystemClock(), SeededEntropy(1))
    body = encode_events([Event(b"1", headers=headers)])
    ((part, _),) = appends.split(JOBS, Append("jobs", 0, 1, body))
    return part


async def committer(*, answers: bool = True) -> Committer:
    """Over a log with `jobs`; where nobody `answers`, what is committed lands all the same."""
    clock = SystemClock()

    def faults(moment: str) -> None:
        if moment == "after" and not answers:
            raise Unavailable("the answer is lost")

    storage = MemoryStorage(clock, faults=faults)
    await MemoryBroker(storage, clock=clock).declare(JOBS)
    return Committer(storage)


async def test_a_message_for_later_is_waited_for_once_it_is_stored() -> None:
    made = await committer()
    applied = await made.commit(Change(appends=(append(**{"headrace-delay": "60"}),)))
    assert applied.later == 1
    assert made.delayed.is_set()


async def test_a_message_that_may_have_been_stored_is_waited_for_too() -> None:
    made = await committer(answers=False)
    with pytest.raises(Unavailable):
        await made.commit(Change(appends=(append(**{"headrace-delay": "60"}),)))
    assert len(await made.storage.scan(Space.TIMERS, b"")) == 1
    assert made.delayed.is_set()


async def test_what_is_due_at_once_disturbs_nobody() -> None:
    made = await committer()
    await made.commit(Change(puts=(Put(Space.STATE, b"a", b"1"),), appends=(append(),)))
    assert not made.delayed.is_set()
