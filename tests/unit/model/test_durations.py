"""Durations as people write them."""

from __future__ import annotations

from datetime import timedelta
from typing import get_args

import msgspec
import pytest

from headrace import App, Context
from headrace.model import flow_control, policy, webhook_signature
from headrace.model.durations import seconds_in
from headrace.model.errors import Misuse
from headrace.model.triggers import bus, files, foreign, http, lag, schedules, tables
from headrace.sdk import windows
from headrace.sdk.event import Event
from headrace.testing import context, event


@pytest.mark.parametrize(
    ("span", "seconds"),
    [
        ("90s", 90),
        ("5m", 300),
        ("1h30m", 5_400),
        ("1 h 30 m", 5_400),
        ("500ms", 0.5),
        ("1w", 604_800),
        ("1.5h", 5_400),
        (7, 7),
        (0.25, 0.25),
        ("5", 5),
        ("0.5", 0.5),
        ("250us", 0.000_25),
        (timedelta(days=1), 86_400),
    ],
)
def test_a_duration_is_read(span: object, seconds: float) -> None:
    assert seconds_in(span, "it", low=0, high=1e9) == seconds


@pytest.mark.parametrize("span", ["", "five", "5 minutes", "m5", "-5m", "5m!", True, None, [5]])
def test_what_is_not_a_duration_is_refused(span: object) -> None:
    with pytest.raises(Misuse, match="`it`"):
        seconds_in(span, "`it`", low=0, high=1e9)


@pytest.mark.parametrize("span", [-1, "1ms", "2h", float("nan"), float("inf"), timedelta(hours=-1)])
def test_a_duration_out_of_range_is_refused(span: object) -> None:
    with pytest.raises(Misuse, match="out of range"):
        seconds_in(span, "`it`", low=0.1, high=3_600)


STRUCTS = [
    found
    for module in (
        bus,
        flow_control,
        foreign,
        http,
        lag,
        policy,
        schedules,
        webhook_signature,
        tables,
        files,
        windows,
    )
    for found in vars(module).values()
    if isinstance(found, type)
    and issubclass(found, msgspec.Struct)
    and found.__module__ == module.__name__
]
# A share, a count, a name for what is not a time; and what the sdk makes, out of durations it has read.
NOT_DURATIONS = {("PerClient", "requests"), ("Legacy", "share"), ("Lag", "slack")}
MADE = {"Custom", "Forward"}


def test_no_setting_that_an_author_writes_is_a_bare_number_of_seconds() -> None:
    bare = [
        (struct.__name__, field.name)
        for struct in STRUCTS
        for field in msgspec.structs.fields(struct)
        if float in {field.type, *get_args(field.type)} and str not in get_args(field.type)
    ]
    assert [each for each in bare if each not in NOT_DURATIONS and each[0] not in MADE] == []


@pytest.mark.parametrize("span", [90, 90.0, "90", "90s", "1m30s", timedelta(seconds=90)])
def test_a_policy_keeps_any_duration_as_seconds(span: float | str | timedelta) -> None:
    made = (
        policy.Retry(initial_delay=span, max_delay="2m", max_event_age=span),
        policy.Breaker(pause=span),
        policy.Scaling(keep_warm=span, keep_hibernating=span, max_instance_age=span),
        policy.Resources(cpu=span),
        flow_control.Throttle(1, span),
        flow_control.Debounce(span, longest=span),
        http.Http("GET", "/x", timeout=span, legacy=http.Legacy("http://old", timeout=span)),
        bus.HttpTarget("http://x", timeout=span),
        files.Files("x", settle=span, poll=span),
        foreign.SqsQueue("q", visibility=span),
    )
    assert made[0].initial_delay == made[1].pause == made[4].per == made[6].timeout == 90
    for each in made:
        # What is sent from process to process holds no text.
        raw = msgspec.msgpack.encode(each)
        assert msgspec.msgpack.decode(raw, type=type(each)) == each
        assert b"1m30s" not in raw


def test_an_error_names_the_setting_the_cause_and_the_fix() -> None:
    with pytest.raises(
        Misuse, match=r"`max_delay=` of `Retry` is '5 minutes'; write seconds, a text"
    ):
        policy.Retry(max_delay="5 minutes")
    with pytest.raises(Misuse, match=r"`per=` of `Throttle` is \[5\]; write seconds, a text"):
        flow_control.Throttle(3, [5])  # type: ignore[arg-type]  # that is the mistake


def test_streams_queues_functions_and_state_take_durations() -> None:
    shop = App("shop")
    orders = shop.stream("orders", retention_age=timedelta(days=7), dedupe_window="1h")
    jobs = shop.queue("jobs", visibility="1m", delay="2m")

    @shop.function(orders, timeout="1m", batch_window=timedelta(milliseconds=200))
    def price(event: Event[int], context: Context) -> None:
        context.extend("5m")
        context.state.put("seen", 1, ttl="30d")

    assert (orders.spec.retention_age, orders.spec.dedupe_window) == (604_800, 3_600)
    assert (jobs.settings.visibility, jobs.settings.delay) == (60, 120)
    (spec,) = shop.spec().functions
    assert (spec.timeout, spec.batch_window) == (60, 0.2)
    by_hand = context(timeout="1m")
    price(event(1), by_hand)
    assert by_hand.remaining() == 300
