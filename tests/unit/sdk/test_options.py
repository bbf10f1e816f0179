"""Options of declarations: their types are seen by a type checker, and checked when they are given.

Each `type: ignore` here is a test too: mypy reports it as unused where it sees no error.
"""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from headrace import App, Breaker, Event, Stream
from headrace.errors import Misuse
from headrace.model.function import AppSpec
from headrace.runtime.spec_checks import check_claims
from headrace.windows import TumblingWindow


def handler(event: Event[Any]) -> None: ...


def test_wrong_options_of_a_function_are_seen_by_a_type_checker_and_refused() -> None:
    app = App("a")
    source = app.stream("s")
    with pytest.raises(Misuse, match="`batch_size='5'` is not a whole number; use 1 to 10,000"):
        app.function(source, batch_size="5")(handler)  # type: ignore[call-overload]
    with pytest.raises(Misuse, match=r"is unknown.*use `partition` or `key`"):
        app.function(source, order="keyd")(handler)  # type: ignore[call-overload]
    with pytest.raises(Misuse, match="did you mean `timeout`"):
        app.function(source, time_out=5)  # type: ignore[call-overload]
    with pytest.raises(Misuse, match="it is called `order` now"):
        app.function(source, mode="keyed")  # type: ignore[call-overload]
    with pytest.raises(Misuse, match="it is called `sample` now"):
        app.function(source, rate=None)  # type: ignore[call-overload]
    app.function(source, timeout="5m", name="f")(handler)
    assert app.spec().functions[0].timeout == 300


def test_wrong_options_of_a_window_are_seen_by_a_type_checker_and_refused() -> None:
    app = App("a")
    source, sums = app.stream("s"), app.stream("sums")
    for refused in (
        app.window(source, TumblingWindow("1m"), output=sums, name="w", batch_size=0),
        app.window(source, TumblingWindow("1m"), output=sums, name="w", bisect="no"),  # type: ignore[arg-type]
    ):
        with pytest.raises(Misuse, match=r"`batch_size=0` is out of range|use True or False"):
            refused(lambda so_far, event: 1)


def test_wrong_options_of_streams_and_queues_are_seen_by_a_type_checker_and_refused() -> None:
    app = App("a")
    with pytest.raises(Misuse, match="stream `s`: `private='yes'` is not a yes or no"):
        app.stream("s", private="yes")  # type: ignore[call-overload]
    with pytest.raises(
        Misuse, match="queue `q`: `max_receives=0` is out of range; use 1 to 10,000"
    ):
        app.queue("q", max_receives=0)
    with pytest.raises(Misuse, match="queue `q`: `outside='no'` is not a yes or no"):
        app.queue("q", outside="no")  # type: ignore[call-overload]
    with pytest.raises(Misuse, match=r"`cleanup='compcat'` is unknown .did you mean `compact`"):
        app.stream("s", cleanup="compcat")  # type: ignore[call-overload]
    known: Stream[int] = app.stream("numbers", 4, int, retention_age="30d")
    assert known.spec.retention_age == 30 * 86_400


def test_none_is_the_default_except_for_a_breaker() -> None:
    app = App("a")
    source = app.stream("s")
    app.function(source, name="usual", batch_size=None, breaker=Breaker())(handler)
    app.function(source, name="never", breaker=None)(handler)
    usual, never = app.spec().functions
    assert (usual.batch_size, usual.breaker, never.breaker) == (100, Breaker(), None)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"partitions": 10**9}, "`partitions=1000000000` is out of range; use 1 to 100,000"),
        ({"retention_age": -1.0}, "`retention_age` is -1 s, which is out of range"),
        (
            {"max_event_bytes": 0},
            "`max_event_bytes` is 0 bytes, which is out of range; use 1 to 8,388,608 bytes",
        ),
    ],
)
def test_a_process_that_claims_a_stream_out_of_range_is_not_believed(
    changed: dict[str, Any], said: str
) -> None:
    app = App("a")
    app.stream("s")
    spec = app.spec()
    claimed: AppSpec = replace(spec, streams=(replace(spec.streams[0], **changed),))
    check_claims(spec)
    with pytest.raises(Misuse, match=said):
        check_claims(claimed)
