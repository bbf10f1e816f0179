"""Changes between two looks at a folder: each version is reported once, when it is stable."""

from __future__ import annotations

from headrace.sources.files.changes import FileChange, ReportedVersions
from headrace.sources.files.folder import FileVersion

OLD, NEW = FileVersion(1, 100, 7), FileVersion(2, 200, 7)


def test_a_new_file_is_reported_once_when_it_has_stood_still() -> None:
    ledger = ReportedVersions({}, settle=0.5)
    assert ledger.look({"a": OLD}, 10.0) == []
    assert ledger.settles_in(10.2) == 0.3 or abs((ledger.settles_in(10.2) or 0) - 0.3) < 1e-9
    changes = ledger.look({"a": OLD}, 10.5)
    assert changes == [FileChange("created", "a", OLD)]
    ledger.mark_reported(changes)
    assert ledger.look({"a": OLD}, 11.0) == []
    assert ledger.settles_in(11.0) is None


def test_what_was_not_reported_after_all_stays_open() -> None:
    ledger = ReportedVersions({}, settle=0)
    assert ledger.look({"a": OLD}, 1.0) == ledger.look({"a": OLD}, 2.0) != []


def test_a_file_that_goes_on_changing_waits() -> None:
    ledger = ReportedVersions({"a": OLD}, settle=1.0)
    for second in range(5):
        assert ledger.look({"a": FileVersion(second + 2, second, 7)}, second * 0.9) == []
    (change,) = ledger.look({"a": FileVersion(6, 4, 7)}, 5.0)
    assert change.event == "modified"


def test_a_file_that_is_being_written_waits_however_still_it_stands() -> None:
    ledger = ReportedVersions({}, settle=0.1)
    for second in range(5):
        assert ledger.look({"a": OLD}, second, busy={"a"}) == []
    assert ledger.look({"a": OLD}, 4.05) == []
    assert len(ledger.look({"a": OLD}, 4.2)) == 1


def test_a_file_that_came_and_went_before_it_settled_is_not_reported() -> None:
    ledger = ReportedVersions({}, settle=1.0)
    ledger.look({"a": OLD}, 0)
    assert ledger.look({}, 5.0) == []
    assert ledger.settles_in(5.0) is None


def test_a_file_replaced_under_its_name_is_modified_not_deleted() -> None:
    ledger = ReportedVersions({"a": OLD}, settle=0.5)
    assert ledger.look({}, 0) == []
    ledger.look({"a": NEW}, 0.2)
    assert ledger.look({"a": NEW}, 0.8) == [FileChange("modified", "a", NEW)]


def test_a_file_that_is_gone_is_deleted_and_may_come_again() -> None:
    ledger = ReportedVersions({"a": OLD}, settle=0)
    gone = ledger.look({}, 1.0)
    assert gone == [FileChange("deleted", "a", None)]
    ledger.mark_reported(gone)
    assert ledger.look({"a": OLD}, 2.0) == [FileChange("created", "a", OLD)]


def test_what_is_in_a_folder_nobody_is_let_into_is_not_gone() -> None:
    ledger = ReportedVersions({"in/a": OLD, "inner": OLD}, settle=0)
    assert ledger.look({}, 1.0, closed={"in"}) == [FileChange("deleted", "inner", None)]
    assert ledger.look({"in/a": OLD}, 2.0, closed={"other"})[:-1] == []


def test_what_nobody_says_is_whole_stands_still_for_longer() -> None:
    ledger = ReportedVersions({"b": OLD}, settle=0, unsure=1.0)
    assert ledger.look({"a": OLD, "b": NEW}, 10.0, whole={"b"}) == [
        FileChange("modified", "b", NEW)
    ]
    ledger.mark_reported([FileChange("modified", "b", NEW)])
    assert ledger.settles_in(10.25) == 0.75
    assert ledger.look({"b": NEW}, 10.5) == []
    assert ledger.look({"a": NEW, "b": NEW}, 11.0) == []
    assert ledger.look({"a": NEW, "b": NEW}, 12.0) == [FileChange("created", "a", NEW)]
