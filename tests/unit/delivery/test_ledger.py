"""The ledger: what a partition's books say, and what they ask to be made durable."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.delivery.making import TROUBLE, chunk, offsets_of

from headrace.delivery.parked import lane_of
from headrace.delivery.partition.key_order import turn
from headrace.delivery.partition.ledger import Ledger, without
from headrace.delivery.partition.settle import GivenUp, Verdict
from headrace.delivery.positions import StoredPosition
from headrace.delivery.unit import FOREVER, Unit
from headrace.model.effects import Effects, Progress, Trouble
from headrace.model.event import Event
from headrace.model.flow_control import Singleton
from headrace.model.function import FunctionSpec
from headrace.model.outcome import Returned
from headrace.model.policy import DeadLetter, Discard, OnFailure, ParkKey
from headrace.model.record import Append

SPEC = FunctionSpec(name="a.f", app="a")
LANE = lane_of(Event(b"", "k"), 0)


def ledger(
    low: int = 0,
    sparse: tuple[int, ...] = (),
    *,
    trouble: tuple[Trouble, ...] = (),
    parked: dict[bytes, bool] | None = None,
    **options: Any,
) -> Ledger:
    spec = msgspec.structs.replace(SPEC, **options)
    return Ledger(spec, {("s", 0): StoredPosition(7, Progress(low, sparse), trouble, parked or {})})


def landed(
    books: Ledger, running: Unit, verdict: Verdict, on_failure: OnFailure | None = None
) -> Effects:
    effects = books.landed(
        running,
        verdict,
        kept=Returned() if verdict.kept else None,
        token=1,
        on_failure=on_failure if on_failure is not None else DeadLetter(),
        now=5,
    )
    assert effects is not None
    return effects


@given(st.integers(0, 9), st.sets(st.integers(0, 19)), st.lists(st.integers(1, 6), min_size=4))
def test_only_what_is_not_finished_is_let_in(
    low: int, finished: set[int], sizes: list[int]
) -> None:
    sparse = tuple(sorted(each for each in finished if each > low))
    books, first, found = ledger(low, sparse), low, list[int]()
    for size in sizes:
        found += offsets_of(books.admit(("s", 0), (chunk(size, first),)))
        first += size

    assert found == [offset for offset in range(low, first) if offset not in sparse]


def test_what_the_watermark_has_leapt_over_is_not_let_in_again() -> None:
    books = ledger(2, (3, 4, 5))
    (open_one,) = books.admit(("s", 0), (chunk(1, 2),))
    landed(books, Unit((open_one,)), Verdict(finished=(open_one,), kept=True))

    assert books.watermark(("s", 0)) == 6
    assert offsets_of(books.admit(("s", 0), (chunk(4, 3),))) == [6]


def test_offsets_that_retention_took_hold_nothing_up() -> None:
    books = ledger(2)
    books.admit(("s", 0), (chunk(2, 10),))
    effects = landed(books, Unit((chunk(2, 10),)), Verdict(finished=(chunk(2, 10),), kept=True))

    assert effects.progress == {("s", 0): Progress(12)}


def test_ranges_that_failed_before_come_back_with_their_attempts() -> None:
    books = ledger(trouble=(Trouble(2, 4, 3, 99, TROUBLE), Trouble(6, 7, 1)))

    units = books.units((chunk(8),))

    assert [(offsets_of(unit.chunks), unit.attempts, unit.due) for unit in units] == [
        ([0, 1], 0, 0),
        ([2, 3], 3, 99),
        ([4, 5], 0, 0),
        ([6], 1, 0),
        ([7], 0, 0),
    ]


def test_attempts_of_what_has_not_been_read_yet_are_not_forgotten() -> None:
    books = ledger(trouble=(Trouble(0, 1, 2, 0, TROUBLE), Trouble(5, 6, 3, 0, TROUBLE)))
    (unit,) = books.units((chunk(1),))
    effects = landed(books, unit, Verdict(finished=unit.chunks, kept=True))

    assert effects.trouble == {("s", 0): (Trouble(5, 6, 3, 0, TROUBLE),)}


def test_attempts_of_what_lanes_read_later_are_not_forgotten() -> None:
    books = ledger(trouble=(Trouble(0, 2, 2, 0, TROUBLE), Trouble(3, 4, 3, 0, TROUBLE)))
    (unit, other) = books.units((chunk(2, 1, offsets=(1, 4)),))

    assert (offsets_of(unit.chunks), unit.attempts) == ([1], 2)
    effects = landed(books, other, Verdict(finished=other.chunks, kept=True))
    # What was read counts as a unit that waits, and the rest as it was found.
    assert effects.trouble == {
        ("s", 0): (Trouble(0, 1, 2, 0, TROUBLE), Trouble(3, 4, 3, 0, TROUBLE))
    }
    (unit,) = books.units((chunk(1),))
    assert unit.attempts == 2
    (unit,) = books.units((chunk(1, 3),))
    assert unit.attempts == 3
    assert books.is_clear


def test_what_was_left_out_is_in_no_trouble_any_more() -> None:
    books = ledger(trouble=(Trouble(1, 3, 2, 0, TROUBLE),))
    books.leave_out((chunk(1, 1),))
    (unit,) = books.units((chunk(1),))
    effects = landed(books, unit, Verdict(finished=unit.chunks, kept=True))

    assert effects.trouble == {("s", 0): (Trouble(2, 3, 2, 0, TROUBLE),)}


def test_a_unit_to_be_tried_again_goes_before_what_waits_and_its_attempts_are_kept() -> None:
    books = ledger()
    books.pending.append(Unit((chunk(1, 9),)))
    failed = Unit((chunk(1),), 1, 50, TROUBLE)
    effects = landed(books, Unit((chunk(1),)), Verdict(again=(failed,)))

    assert [unit.chunks[0].start for unit in books.pending] == [0, 9]
    assert effects.trouble == {("s", 0): (Trouble(0, 1, 1, 50, TROUBLE),)}
    assert effects.progress == {("s", 0): Progress(0)}


def test_a_unit_that_runs_until_its_commit_has_landed_is_in_trouble_once_and_as_it_is_now() -> None:
    books = ledger()
    first, other = Unit((chunk(1),), 1, 0, TROUBLE), Unit((chunk(1, 1),), 1, 0, TROUBLE)
    books.running += [first, other]
    landed(books, first, Verdict(again=(Unit(first.chunks, 2, 50, TROUBLE),)))

    # Another one ends while the commit of the first is on its way: it counts as running still.
    effects = landed(books, other, Verdict(finished=other.chunks, kept=True))
    assert effects.trouble == {("s", 0): (Trouble(0, 1, 2, 50, TROUBLE),)}
    # So it does where it runs again already.
    books.running.append(books.pending.popleft())
    failed = Unit((chunk(1, 2),))
    effects = landed(books, failed, Verdict(again=(Unit(failed.chunks, 1, 9),)))
    assert effects.trouble == {("s", 0): (Trouble(0, 1, 2, 50, TROUBLE), Trouble(2, 3, 1, 9))}


def test_what_lies_between_the_events_of_a_lane_is_in_no_trouble_with_them() -> None:
    books = ledger()
    lane = chunk(3, 2, offsets=(2, 5, 6))
    effects = landed(books, Unit((lane,)), Verdict(again=(Unit((lane,), 1, 9),)))

    assert effects.trouble == {("s", 0): (Trouble(2, 3, 1, 9), Trouble(5, 7, 1, 9))}


def test_a_dead_letter_keeps_bytes_origin_cause_and_attempts_and_moves_the_position() -> None:
    books, one = ledger(), chunk(1, keys=["k"], hops=3)
    effects = landed(
        books, Unit((one,)), Verdict(given_up=(GivenUp(one, TROUBLE, 4),), healthy=False)
    )

    (dead,) = effects.dead
    assert (str(dead.position), dead.event, dead.cause) == ("s/0/0", one.body, TROUBLE)
    assert (dead.attempts, dead.hops, dead.failed) == (4, 3, 5)
    assert effects.progress == {("s", 0): Progress(1)}
    assert effects.epoch == {("s", 0): 7}


def test_a_parked_key_takes_its_followers_with_it_and_nobody_else() -> None:
    books, one = ledger(), chunk(1, keys=["k"])
    effects = landed(books, Unit((one,)), Verdict(given_up=(GivenUp(one, TROUBLE, 1),)), ParkKey())
    assert effects.park_keys == (("s", 0, LANE),)

    left, aside = books.divert(Unit((chunk(4, 1, keys=["k", "x", None, "k"]),)), 6)

    assert left is not None
    assert offsets_of(left.chunks) == [2, 3]
    assert offsets_of(aside) == [1, 4]
    later = books.progressed()
    assert [row.position.offset for row in later.parked] == [1, 4]
    assert later.progress == {("s", 0): Progress(2, (4,))}


def test_a_redriven_event_is_not_diverted_behind_itself() -> None:
    books = ledger(5, parked={LANE: True})
    one = chunk(1, 2, keys=["k"])
    effects = landed(
        ledger(), Unit((one,)), Verdict(given_up=(GivenUp(one, TROUBLE, 1),)), ParkKey()
    )
    again = Unit((one,), parked=effects.parked)

    assert books.divert(again, 0) == (again, ())
    books.running.append(again)
    assert books.redriving() == {("s", 0, LANE)}
    done = landed(books, again, Verdict(finished=again.chunks, kept=True))
    assert done.unparked == effects.parked
    assert done.progress == {("s", 0): Progress(5)}


def test_a_discarded_event_leaves_only_its_position() -> None:
    books, one = ledger(), chunk(1)
    effects = landed(books, Unit((one,)), Verdict(given_up=(GivenUp(one, TROUBLE, 1),)), Discard())

    assert (effects.dead, effects.parked) == ((), ())
    assert effects.progress == {("s", 0): Progress(1)}


def test_retries_planned_by_a_clock_that_was_set_back_are_brought_forward() -> None:
    books = ledger()
    books.pending.extend([Unit((chunk(1),), due=500), Unit((chunk(1, 1),), due=FOREVER)])
    books.limit_due(100)

    assert [unit.due for unit in books.pending] == [100, FOREVER]


def test_a_unit_that_is_postponed_stays_ahead_of_what_shares_a_key_with_it() -> None:
    books = ledger()
    first, second = Unit((chunk(2, keys=["a", "b"]),)), Unit((chunk(1, 2, keys=["b"]),))
    books.pending.append(second)

    books.postpone(first, 50)

    assert turn(books.pending, (), 10, by_key=True) == (None, 50)
    assert turn(books.pending, (), 50, by_key=True) == (0, 50)
    assert turn(books.pending, (), 10, by_key=False) == (1, 10)


@given(st.sampled_from([DeadLetter(), ParkKey()]), st.sampled_from([None, Singleton("wait")]))
def test_where_nothing_has_an_order_only_who_parks_keys_lays_followers_behind(
    on_failure: OnFailure, singleton: Singleton | None
) -> None:
    books = ledger(parked={LANE: True}, order="none", on_failure=on_failure, singleton=singleton)

    left, aside = books.divert(Unit((chunk(1, keys=["k"]),)), 0)

    lays_behind = isinstance(on_failure, ParkKey) or singleton is not None
    assert (left is None, bool(aside)) == (lays_behind, lays_behind)


def test_the_event_behind_a_compaction_gap_is_not_finished() -> None:
    books = ledger()
    within = chunk(3, 0, offsets=(0, 4, 5))
    behind = chunk(2, 9)
    assert offsets_of(books.admit(("s", 0), (within, behind))) == [0, 4, 5, 9, 10]

    for first, mark in ((0, 4), (4, 5), (5, 9), (9, 10)):
        one = next(
            one.window(one.low + n, one.low + n + 1)
            for one in (within, behind)
            for n in range(one.size)
            if one.offset_of(one.low + n) == first
        )
        effects = landed(books, Unit((one,)), Verdict(finished=(one,), kept=True))
        assert effects.progress["s", 0] == Progress(mark)


def test_attempts_of_a_range_that_is_read_in_part_are_not_forgotten() -> None:
    books = ledger(trouble=(Trouble(0, 10, 2, cause=TROUBLE),))
    (first,) = books.units(tuple(books.admit(("s", 0), (chunk(4),))))
    assert first.attempts == 2

    # The part that was read fails again, then it is done with; of the rest nobody has heard.
    again = msgspec.structs.replace(first, attempts=3)
    effects = landed(books, first, Verdict(again=(again,)))
    assert effects.trouble["s", 0] == (
        Trouble(0, 4, 3, cause=TROUBLE),
        Trouble(4, 10, 2, cause=TROUBLE),
    )
    books.pending.clear()
    effects = landed(books, again, Verdict(finished=again.chunks, kept=True))
    assert effects.trouble["s", 0] == (Trouble(4, 10, 2, cause=TROUBLE),)

    (rest,) = books.units(tuple(books.admit(("s", 0), (chunk(6, 4),))))
    assert rest.attempts == 2


def test_what_was_taken_back_runs_again_and_no_change_says_it_is_done() -> None:
    books = ledger()
    (read,) = books.admit(("s", 0), (chunk(6),))
    mine, others = Unit((read.window(0, 2),)), Unit((read.window(2, 6),))
    first = landed(books, mine, Verdict(finished=mine.chunks, kept=True))
    second = landed(books, others, Verdict(finished=others.chunks, kept=True))
    assert second.progress["s", 0] == Progress(6)

    assert books.take_back(mine)
    assert list(books.pending) == [mine]
    assert without(first, mine.chunks).progress["s", 0] == Progress(0)
    assert without(second, mine.chunks).progress["s", 0] == Progress(0, (2, 3, 4, 5))
    assert not books.is_ahead
    books.pending.clear()
    third = landed(books, mine, Verdict(finished=mine.chunks, kept=True))
    assert third.progress["s", 0] == Progress(6)


def test_what_was_gathered_is_counted_until_it_is_written_up() -> None:
    books = ledger(batch_size=2)
    output = Append("out", 0, 1, b"12345")
    for first in (0, 3):
        (read,) = books.admit(("s", 0), (chunk(3, first),))
        books.gather(Unit((read,)), Returned(appends=(output,)))
    assert (books.gathered_units, books.gathered_bytes) == (4, 10)

    effects = books.gathered()

    assert effects.progress["s", 0] == Progress(6)
    assert len(effects.appends) == 2
    assert (books.gathered_units, books.gathered_bytes) == (0, 0)
    assert books.gathered().appends == ()
