"""The thread on which a commit waits for the disk."""

from __future__ import annotations

from headrace.storage.kv.sqlite.commit_thread import (
    LARGE_BYTES,
    LOOK_AGAIN_AFTER,
    QUICK_SECONDS,
    CommitPace,
)

SLOW = 10 * QUICK_SECONDS


def test_a_quick_disk_is_waited_for_in_place() -> None:
    pace = CommitPace()
    for _ in range(100):
        assert pace.in_place(1_000)
        pace.took(QUICK_SECONDS / 10)


def test_one_slow_commit_changes_nothing() -> None:
    pace = CommitPace()
    pace.took(100.0)
    assert pace.in_place(1_000)


def test_a_slow_disk_does_not_hold_up_the_loop() -> None:
    pace = CommitPace()
    in_place = 0
    for _ in range(1_000):
        if pace.in_place(1_000):
            in_place += 1
            pace.took(SLOW)
    assert in_place < 15


def test_a_disk_that_is_quick_again_is_noticed() -> None:
    pace = CommitPace()
    while pace.in_place(1_000):
        pace.took(SLOW)
    commits = 1
    while not pace.in_place(1_000):
        commits += 1
    assert commits < LOOK_AGAIN_AFTER
    pace.took(QUICK_SECONDS / 10)
    assert pace.in_place(1_000)


def test_much_data_never_holds_up_the_loop() -> None:
    assert not CommitPace().in_place(LARGE_BYTES + 1)
