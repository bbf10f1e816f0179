"""The auditor sees what is wrong: a right history, spoilt by hand in one place, is always found out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.auditor.outside import (
    Account,
    Finding,
    Listener,
    Record,
    Sent,
    check_file,
    check_trace,
    judge,
)
from tests.integration.faults.load import APP, EVENTS, account, envelope
from tests.integration.faults.sites import Site

Answers = dict[str, Any]


class Told:
    """What a node answered, kept to be spoilt: one page of each list is enough here."""

    def __init__(self, answers: Answers) -> None:
        self.answers = answers

    def __call__(self, path: str) -> bytes:
        if "cursor=" in path:
            return b'{"records": [], "cursor": ""}'
        return json.dumps(self.answers[path]).encode()

    def of(self, part: str) -> Any:
        """The answer to the path that holds this text."""
        return next(answer for path, answer in self.answers.items() if part in path)


@pytest.fixture(scope="module")
def right(tmp_path_factory: pytest.TempPathFactory) -> tuple[Account, Answers]:
    """A small history of a real node, and all that the auditor asked about it."""
    from tests.integration.faults.sites import site

    sent = [
        Sent(
            f"e{n}",
            n,
            f"k{n % 3}",
            json.dumps({"n": n, "poison": n in {7, 11}}).encode(),
            n in {7, 11},
        )
        for n in range(30)
    ]
    asked: Answers = {}
    with site() as opened:
        opened.write(APP)
        opened.start()
        opened.ask("/-/v1/streams/orders", body=b"".join(map(envelope, sent)), media=EVENTS)
        opened.wait_drained()

        def read(path: str) -> bytes:
            answer = opened.ask(path)
            if "cursor=" not in path:
                asked[path] = json.loads(answer)
            return answer

        told = account(opened, sent)
        assert judge(told, read) == []
        trace = tmp_path_factory.mktemp("auditor") / "trace"
        trace.write_text(opened.trace_path.read_text())
        opened.stop()
        assert check_file(opened.data / "headrace.db") == []
    return told._replace(trace=trace), asked


def drop_record(told: Told) -> None:
    told.of("/-/v1/streams/orders/")["records"].pop(4)


def repeat_record(told: Told) -> None:
    records = told.of("/-/v1/streams/orders/")["records"]
    records.append(records[0])


def change_value(told: Told) -> None:
    told.of("/-/v1/streams/orders/")["records"][3]["value"] = {"n": 0, "poison": None}


def drop_output(told: Told) -> None:
    told.of("/-/v1/streams/told/")["records"].pop(2)


def repeat_output(told: Told) -> None:
    records = told.of("/-/v1/streams/seen/")["records"]
    records.append(records[0])


def swap_outputs(told: Told) -> None:
    records = told.of("/-/v1/streams/told/")["records"]
    same = [record for record in records if record["key"] == "k0"]
    same[0]["value"], same[1]["value"] = same[1]["value"], same[0]["value"]


def swap_state(told: Told) -> None:
    told.of("prefix=single")["state"][0]["value"][2] += 1


def double_state(told: Told) -> None:
    told.of("prefix=tally")["state"][0]["value"][0] += 1


def hold_position(told: Told) -> None:
    told.of("/-/v1/lag")["lag"][0]["position"] -= 1


def drop_letter(told: Told) -> None:
    told.of("/-/v1/dead?function=load.tally")["dead"].pop()


def change_letter(told: Told) -> None:
    told.of("/-/v1/dead?function=load.tally")["dead"][0]["event"]["value"]["n"] = 8


def spend_attempts(told: Told) -> None:
    told.of("/-/v1/dead?function=load.single")["dead"][0]["attempts"] += 1


def blame_another(told: Told) -> None:
    letters = told.of("/-/v1/dead?function=load.single")["dead"]
    letters[0]["position"] = letters[1]["position"]


@pytest.mark.parametrize(
    ("invariant", "spoil"),
    [
        ("I1", drop_record),
        ("I2", repeat_record),
        ("I1", change_value),
        ("I1", drop_output),
        ("I2", repeat_output),
        ("I3", swap_outputs),
        ("I3", swap_state),
        ("I2", double_state),
        ("I4", hold_position),
        ("I5", drop_letter),
        ("I5", change_letter),
        ("I5", spend_attempts),
        ("I5", blame_another),
    ],
)
def test_a_history_spoilt_in_one_place_is_found_out(
    right: tuple[Account, Answers], invariant: str, spoil: Callable[[Told], None]
) -> None:
    told = Told(json.loads(json.dumps(right[1])))
    # Given: nothing is found in the right one, read the same way.
    assert judge(right[0], told) == []
    spoil(told)
    found: list[Finding] = judge(right[0], told)
    assert invariant in {finding.invariant for finding in found}, found


def test_events_begun_out_of_order_are_found_out(
    right: tuple[Account, Answers], tmp_path: Path
) -> None:
    assert right[0].trace is not None
    trace = tmp_path / "trace"
    lines = [line for line in right[0].trace.read_text().splitlines() if "single" in line]
    others = [line for line in right[0].trace.read_text().splitlines() if "single" not in line]
    trace.write_text("\n".join([*others, *reversed(lines)]))
    found = judge(right[0]._replace(trace=trace), Told(right[1]))
    assert {finding.invariant for finding in found} == {"I3"}


@pytest.mark.parametrize(
    ("begun", "invariants"),
    [
        (["0 1 2 3"], set()),
        # A try again, a batch that was cut, and a host that died before two commits had landed.
        (["0 1 2", "0", "0", "1 2", "3", "1", "2 3"], set()),
        (["0 1", "3", "2", "3"], {"I3"}),
        # From where it went back to, a retry or the next life skipped an event.
        (["0 1 2 3", "0", "2", "3"], {"I3"}),
        (["0", "1", "2", "3", "0 1 2 3"], {"I3"}),
        (["0 1 3"], {"I1", "I3"}),
        (["0 1 2 3 7"], {"I2"}),
    ],
)
def test_every_time_an_event_is_begun_is_looked_at(
    tmp_path: Path, begun: list[str], invariants: set[str]
) -> None:
    trace = tmp_path / "trace"
    trace.write_text("".join(f"f {numbers}\n" for numbers in begun))
    log = [Record(key="k", offset=n, value=msgspec.Raw(b'{"n": %d}' % n)) for n in range(4)]
    listener = Listener("f", "orders", "", "", 3, (), 3)
    found = check_trace(Account({}, (listener,), "load", trace), {"orders": log})
    assert {finding.invariant for finding in found} == invariants


def test_a_damaged_file_is_found_out(place: Site) -> None:
    place.write(APP)
    place.start()
    for number in range(20):
        body = json.dumps({"n": number, "pad": "x" * 5_000}).encode()
        place.ask("/-/v1/streams/orders", body=body)
    place.wait_drained()
    place.stop()
    file = place.data / "headrace.db"
    spoilt = bytearray(file.read_bytes())
    for page in range(4, len(spoilt) // 4096):
        spoilt[page * 4096 : page * 4096 + 12] = b"\xff" * 12
    file.write_bytes(spoilt)
    assert [finding.invariant for finding in check_file(file)] == ["I8"]
