"""What is published and stored: checks at once, partitions, versions, the instance's memory of state."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from threading import Thread
from typing import Any

import msgspec
import pytest
from tests.unit.runtime.hosting import Host

from headrace import App, Batch, Context, Event
from headrace.errors import Invalid, Misuse, Refused, TooLarge, Unknown
from headrace.model.codec import decode_state, encode_state
from headrace.model.event import Event as Fact
from headrace.model.invocation import BatchInvocation
from headrace.model.outcome import Range, Returned, StateRead
from headrace.model.partitioner import partition_of
from headrace.model.record import Chunk, decode_events, encode_events
from headrace.runtime.child.executor import Executor
from headrace.runtime.child.state_cache import StateCache


class Order(msgspec.Struct):
    id: int


class Rig:
    """An app whose one function does what each test says."""

    def __init__(self) -> None:
        self.app = App("shop")
        self.orders = self.app.stream("orders", 8, Order)
        self.out = self.app.stream("out", 8)
        self.small = self.app.stream("small", 3, str, max_event_bytes=20)
        self.typed = self.app.stream("typed", value=Order)
        self.audit = self.app.external("audit")
        self.closed = self.app.external("closed", partitions=2)
        self.work: Callable[[Batch[Order], Context], None] = lambda events, context: None

        @self.app.function(self.orders, name="f", publishes=[self.audit])
        def f(events: Batch[Order], context: Context) -> None:
            self.work(events, context)

        self.host = Host()
        self.partitions: dict[str, int] = {}
        self.executor = Executor(self.app, self.host, partitions=self.partitions)

    def run(self, work: Callable[[Batch[Order], Context], None], **fields: Any) -> Returned:
        self.work = work
        facts = [Fact(b'{"id":%d}' % number, f"k{number}") for number in range(3)]
        chunk = Chunk("orders", 5, 40, 3, encode_events(facts), 0, 0, 3, 2, "o")
        fields = {"token": 9, "key": "root", "now": 1_000_000, **fields}
        with pytest.raises(StopIteration) as stopped:
            self.executor.run(BatchInvocation("shop.f", chunks=(chunk,), **fields)).send(None)
        returned: Returned = stopped.value.value
        return returned

    def refused(self, work: Callable[[Context], Any], error: type[Exception]) -> str:
        """The message of what `work` raises when it is done."""
        told: list[str] = []

        def check(events: Batch[Order], context: Context) -> None:
            with pytest.raises(error) as caught:
                work(context)
            told.append(str(caught.value))

        assert self.run(check).error is None
        return told[0]


# -- publishing --------------------------------------------------------------------------------


def test_outputs_of_a_partition_are_one_blob_in_the_order_published() -> None:
    def work(events: Batch[Order], context: Context) -> None:
        for number in range(50):
            context.publish("out", number, key=f"k{number % 5}")

    appends = Rig().run(work).appends
    assert len({append.partition for append in appends}) == len(appends)
    for append in appends:
        facts = decode_events(append.body)
        assert append.count == len(facts)
        assert (append.hops, append.origin, append.ids) == (3, "o", None)
        values = [int(fact.value) for fact in facts]
        assert values == sorted(values)
        assert all(partition_of(fact.key or "", 8) == append.partition for fact in facts)
    assert sum(append.count for append in appends) == 50


def test_ids_headers_and_times_go_along() -> None:
    def work(events: Batch[Order], context: Context) -> None:
        context.publish("typed", Order(1), id="a", headers={"x": "y"}, time=1.5)
        context.publish("typed", Order(2), time=datetime(1970, 1, 1, 0, 0, 2, tzinfo=UTC))

    (append,) = Rig().run(work).appends
    assert append.ids == ("a", "")
    first, second = decode_events(append.body)
    assert (first.id, first.headers, first.time) == ("a", {"x": "y"}, 1_500_000)
    assert (second.id, second.headers, second.time) == (None, None, 2_000_000)


def test_keyless_outputs_stay_beside_their_input_where_partitions_match() -> None:
    rig = Rig()
    (append,) = rig.run(lambda events, context: context.publish("out", 1)).appends
    assert append.partition == 5
    appends = [
        rig.run(lambda events, context: context.publish("small", "x"), token=token).appends[0]
        for token in (9, 10, 11, 9)
    ]
    assert [append.partition for append in appends] == [0, 1, 2, 0]


def test_a_stream_may_be_given_by_its_handle_or_its_name() -> None:
    rig = Rig()

    def work(events: Batch[Order], context: Context) -> None:
        context.publish(rig.typed, Order(1))
        context.publish("typed", {"id": 2})

    (append,) = rig.run(work).appends
    assert [fact.value for fact in decode_events(append.body)] == [b'{"id":1}', b'{"id":2}']


def test_another_apps_stream_needs_to_exist_and_to_be_declared() -> None:
    rig = Rig()
    assert "does not exist here" in rig.refused(lambda c: c.publish("audit", 1), Unknown)
    rig.partitions["audit"] = 6
    (append,) = rig.run(lambda events, context: context.publish("audit", 1, key="a")).appends
    assert append.partition == partition_of("a", 6)
    assert "add `publishes=[...]`" in rig.refused(lambda c: c.publish(rig.closed, 1), Refused)


@pytest.mark.parametrize(
    ("work", "error", "message"),
    [
        (lambda c: c.publish("ot", 1), Unknown, "knows no stream `ot` (did you mean `out`?)"),
        (lambda c: c.publish(None, 1), Unknown, "knows no stream `None`"),
        (lambda c: c.publish("small", "x" * 21), TooLarge, "21 bytes and the stream allows 20"),
        (lambda c: c.publish("typed", {"id": "x"}), Invalid, "publishing to `typed`: a value of"),
        (lambda c: c.publish("out", object()), Invalid, "`object` cannot be written as json"),
        (lambda c: c.publish("out", 1, key=5), Invalid, "key `5` is not a text"),
        (lambda c: c.publish("out", 1, key="\ud800"), Invalid, "is not a text"),
        (lambda c: c.publish("out", 1, key="k" * 1_025), Invalid, "the limit is 1,024"),
        (lambda c: c.publish("out", 1, id=""), Invalid, "`id=''` is not a text"),
        (lambda c: c.publish("out", 1, headers={"a": 1}), Invalid, "header `'a'` is not text"),
        (lambda c: c.publish("out", 1, headers={str(i): "" for i in range(65)}), Invalid, "65"),
        (
            lambda c: c.publish("out", 1, headers={"a": "b" * 20_000}),
            Invalid,
            "the limit is 16,384",
        ),
        (lambda c: c.publish("out", 1, time=datetime(2026, 1, 1)), Invalid, "no time zone"),  # noqa: DTZ001  # that is the test
        (lambda c: c.publish("out", 1, time="now"), Invalid, "neither an aware datetime"),
        (lambda c: c.done("x"), Misuse, "is not an event of this batch"),
        (lambda c: c.state.get(""), Misuse, "cannot be a state key"),
        (lambda c: c.state.get("k" * 1_025), Misuse, "1 to 1,024 bytes"),
        (lambda c: c.state.put("k", object()), Invalid, "cannot be kept as state"),
        (lambda c: c.state.put("k", b"x" * (4 << 20)), Invalid, "the limit is 4,194,304"),
        (lambda c: c.state.put("k", 1, ttl=0), Misuse, "`ttl=` is 0 s, which is out of range"),
        (lambda c: c.state.put("k", 1, ttl=float("inf")), Misuse, "`ttl=` is inf s"),
        (lambda c: c.state.put("k", 1, ttl=float("nan")), Misuse, "`ttl=` is nan s"),
        (lambda c: c.state.put("k", 1, ttl=1e300), Misuse, "out of range"),
        (lambda c: c.state.put("k", 1, ttl="soon"), Misuse, "`ttl=` is 'soon'; write seconds"),
        (lambda c: c.state.update("k", str, ttl=float("inf")), Misuse, "`ttl=` is inf s"),
        (lambda c: c.state.get(None), Misuse, "publish it with one"),
        (lambda c: c.state.put(None, 1), Misuse, "publish it with one"),
        (lambda c: c.state.get("k", int), Misuse, "write `get(key, type=int)`"),
        (lambda c: c.state.get("k", int, 0), Misuse, "write `get(key, 0, type=int)`"),
        (lambda c: c.state.get("k", list[str], []), Misuse, "get(key, [], type=list[str])"),
        (
            lambda c: c.state.update("k", str, int, 0),
            Misuse,
            "write `update(key, change, type=int, default=0)`",
        ),
        (lambda c: c.state.items("k", int), Misuse, "write `items(prefix, type=int)`"),
        (lambda c: c.state.get_many(["k"], int), Misuse, "write `get_many(keys, type=int)`"),
        (lambda c: c.state.put("k", 2**70), Invalid, "cannot be kept as state"),
        (lambda c: c.extend(float("inf")), Misuse, "out of range"),
        (lambda c: c.publish("out", 1, time=float("inf")), Invalid, "neither an aware datetime"),
        (
            lambda c: c.publish("out", {"a": [float("nan")]}),
            Invalid,
            "`out`: the value at `/a/0` is nan",
        ),
        (lambda c: c.publish("out", 2**70), Invalid, "beyond 64 bits"),
        (lambda c: c.publish("out", {1: 1, "1": 2}), Invalid, "the keys 1 and '1'"),
    ],
)
def test_what_cannot_be_kept_is_refused_at_once(
    work: Callable[[Context], Any], error: type[Exception], message: str
) -> None:
    assert message in Rig().refused(work, error)


def test_not_a_number_is_kept_as_state_which_has_a_word_for_it() -> None:
    def work(events: Batch[Order], context: Context) -> None:
        context.state.put("k", [float("inf"), {1: "a", "1": "b"}])
        assert context.state.get("k") == [float("inf"), {1: "a", "1": "b"}]

    assert Rig().run(work).error is None


def test_none_is_written_as_null() -> None:
    (append,) = Rig().run(lambda events, context: context.publish("out", [None])).appends
    assert decode_events(append.body)[0].value == b"[null]"


def test_a_refused_publish_leaves_nothing_behind() -> None:
    def work(events: Batch[Order], context: Context) -> None:
        context.publish("out", 1, key="a")
        with pytest.raises(Invalid):
            context.publish("out", 2, key="a", headers={"a": 1})  # type: ignore[dict-item]
        with pytest.raises(Invalid):
            context.publish("out", 3, key="a", id="")

    (append,) = Rig().run(work).appends
    assert append.count == 1
    assert append.ids is None


# -- state -------------------------------------------------------------------------------------


def test_a_function_reads_its_own_writes() -> None:
    def work(events: Batch[Order], context: Context) -> None:
        context.state.put("a", {"n": 1})
        assert context.state.get("a") == {"n": 1}
        context.state.delete("a")
        assert context.state.get("a", default="gone") == "gone"
        context.state.put("a", Order(3))
        assert context.state.get("a", type=Order) == Order(3)

    returned = Rig().run(work)
    assert returned.error is None
    assert returned.reads == ()
    (write,) = returned.writes
    assert decode_state(write.value or b"") == {"id": 3}


def test_versions_are_recorded_once_a_key() -> None:
    rig = Rig()
    rig.host.rows["a"] = (4, encode_state(1))

    def work(events: Batch[Order], context: Context) -> None:
        assert context.state.get("a") == 1
        assert context.state.get("a") == 1
        assert context.state.get("b") is None

    returned = rig.run(work)
    assert returned.reads == (StateRead("a", 4), StateRead("b", 0))
    assert rig.host.asked == [["a"], ["b"]]


def test_several_keys_are_asked_for_in_one_question() -> None:
    rig = Rig()
    rig.host.rows["b"] = (2, encode_state("x"))

    def work(events: Batch[Order], context: Context) -> None:
        context.state.put("own", 1)
        assert context.state.get_many(["a", "b", "own", "b"]) == {"b": "x", "own": 1}

    assert set(rig.run(work).reads) == {StateRead("a", 0), StateRead("b", 2)}
    assert rig.host.asked == [["a", "b"]]


def test_an_instance_remembers_what_it_read_and_wrote() -> None:
    rig = Rig()

    def count(events: Batch[Order], context: Context) -> None:
        context.state.update("n", lambda n: n + 1, default=0)

    for token in (11, 12, 13):
        rig.host.commit(rig.run(count, token=token), token)
    assert decode_state(rig.host.rows["n"][1]) == 3
    assert rig.host.asked == [["n"]]
    rig.host.commit(rig.run(count, token=14, fresh=True), 14)
    assert rig.host.asked == [["n"], ["n"]]
    assert decode_state(rig.host.rows["n"][1]) == 4


def test_what_was_not_kept_is_not_remembered() -> None:
    rig = Rig()

    def bad(events: Batch[Order], context: Context) -> None:
        context.state.update("n", lambda n: n + 1, default=0)
        raise ValueError("late")

    def look(events: Batch[Order], context: Context) -> None:
        assert context.state.get("n") is None

    rig.run(bad)
    assert rig.run(look).error is None


def test_an_expired_value_is_absent_and_its_version_still_counts() -> None:
    rig = Rig()

    def put(events: Batch[Order], context: Context) -> None:
        context.state.put("a", 1, ttl=10)
        assert context.state.get("a") == 1

    returned = rig.run(put, token=5, now=1_000_000)
    assert returned.writes[0].expires == 11_000_000
    rig.host.commit(returned, 5)

    def look(wanted: int | None) -> Callable[[Batch[Order], Context], None]:
        def work(events: Batch[Order], context: Context) -> None:
            assert context.state.get("a") == wanted

        return work

    for fresh in (False, True):
        assert rig.run(look(1), now=10_999_999, fresh=fresh).error is None
        late = rig.run(look(None), now=11_000_000, fresh=fresh)
        assert late.error is None
        assert late.reads == (StateRead("a", 5),)


def test_items_merge_what_is_stored_with_what_was_changed() -> None:
    rig = Rig()
    for name in ("p/a", "p/b", "p/c", "q"):
        rig.host.rows[name] = (1, encode_state(name))

    def work(events: Batch[Order], context: Context) -> None:
        context.state.delete("p/a")
        context.state.put("p/bb", "new")
        context.state.put("p/c", "changed")
        assert list(context.state.items("p/")) == [
            ("p/b", "p/b"),
            ("p/bb", "new"),
            ("p/c", "changed"),
        ]

    returned = rig.run(work)
    assert returned.error is None
    all_there_are = StateRead("p/", 0, Range("", None, 3, b"all"))
    assert returned.reads == (StateRead("p/b", 1), all_there_are)


def test_stores_of_one_run_are_kept_apart_and_say_whose_each_row_is() -> None:
    rig = Rig()
    totals, other = rig.app.store("totals", int, default=0), rig.app.store("other", int)

    def work(events: Batch[Order], context: Context) -> None:
        context.store(totals)["k"] += 1
        context.store(other)["k"] = 2
        context.state["k"] = 3
        assert (context.store(totals)["k"], context.store(other)["k"]) == (1, 2)
        assert list(context.state.items()) == [("k", 3)]
        assert context.store(totals) is context.store(totals)

    returned = rig.run(work)
    assert returned.error is None
    assert {(each.store, each.key) for each in returned.writes} == {
        ("totals", "k"),
        ("other", "k"),
        ("", "k"),
    }
    assert {(each.store, each.key, each.seen is None) for each in returned.reads} == {
        ("totals", "k", True),
        ("", "", False),
    }


def test_what_one_store_has_of_a_failed_event_in_another_is_run_again() -> None:
    rig = Rig()
    one, two = rig.app.store("one", int, default=0), rig.app.store("two", int, default=0)

    def work(events: Batch[Order], context: Context) -> None:
        for event in events:
            if event.value.id == 0:
                context.store(one)["k"] = 5
            if event.value.id == 1:
                context.store(two)["k"] = context.store(one)["k"]
                context.fail(events[0], "too late")

    returned = rig.run(work)
    assert returned.writes == ()


def test_state_of_another_type_is_told() -> None:
    rig = Rig()
    rig.host.rows["a"] = (1, encode_state({"id": "x"}))
    message = rig.refused(lambda context: context.state.get("a", type=Order), Invalid)
    assert "state `a` is not a `Order`" in message


def test_the_memory_of_state_is_bounded_by_count_and_bytes() -> None:
    cache = StateCache(entries=3, size=1_000)
    for number in range(5):
        cache.put(("shop", f"k{number}"), 1, b"x")
    assert [cache.get(("shop", f"k{number}")) is not None for number in range(5)] == [0, 0, 1, 1, 1]
    cache.get(("shop", "k2"))
    cache.put(("shop", "k9"), 1, b"x")
    assert cache.get(("shop", "k2")) is not None
    assert cache.get(("shop", "k3")) is None
    cache.put(("shop", "big"), 1, b"x" * 700)
    assert len(cache) == 2
    assert cache.size <= 1_000
    cache.put(("shop", "huge"), 1, b"x" * 2_000)
    assert cache.get(("shop", "huge")) is None
    cache.put(("shop", "big"), 2, None)
    assert cache.get(("shop", "big")) == (2, None)
    cache.clear()
    assert (len(cache), cache.size) == (0, 0)


# -- the context ---------------------------------------------------------------------------------


def test_the_context_says_who_and_when_and_how_long() -> None:
    seen: dict[str, Any] = {}
    rig = Rig()

    def work(events: Batch[Order], context: Context) -> None:
        seen.update(
            function=context.function,
            app=context.app,
            attempt=context.attempt,
            trace_id=context.trace_id,
            parent_id=context.parent_id,
            now=context.now(),
            remaining=context.remaining(),
            draw=context.random.random(),
            keys=[context.idempotency_key for _ in events],
            whole=context.idempotency_key,
        )

    trace = f"00-{'a' * 32}-{'b' * 16}-01"
    rig.run(work, attempt=2, trace=trace, seed=4, timeout=5.0)
    first = dict(seen)
    rig.run(work, attempt=2, trace=trace, seed=4, timeout=5.0)
    assert first["draw"] == seen["draw"]
    assert 4.0 < first.pop("remaining") <= 5.0
    assert first.pop("draw") < 1
    assert first == {
        "function": "shop.f",
        "app": "shop",
        "attempt": 2,
        "trace_id": "a" * 32,
        "parent_id": "b" * 16,
        "now": datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC),
        "keys": ["shop.f/orders/5/40", "shop.f/orders/5/41", "shop.f/orders/5/42"],
        "whole": "root",
    }


def test_idempotency_keys_do_not_change_when_a_batch_is_halved() -> None:
    rig = Rig()
    keys: list[list[str]] = []

    def work(events: Batch[Order], context: Context) -> None:
        keys.append([context.idempotency_key for _ in events])

    facts = [Fact(b'{"id":1}') for _ in range(4)]
    whole = Chunk("orders", 0, 0, 4, encode_events(facts), 0, 0, 4)
    rig.work = work
    for chunk in (whole, whole.window(0, 2), whole.window(2, 4)):
        with pytest.raises(StopIteration):
            rig.executor.run(BatchInvocation("shop.f", key="x", chunks=(chunk,))).send(None)
    assert keys[1] + keys[2] == keys[0]


def test_log_lines_are_tied_to_the_invocation(caplog: pytest.LogCaptureFixture) -> None:
    def work(events: Batch[Order], context: Context) -> None:
        context.logger.warning("odd order %s", 5)

    Rig().run(work, attempt=3)
    (line,) = caplog.records
    assert line.getMessage() == "odd order 5"
    assert line.__dict__["function"] == "shop.f"
    assert line.__dict__["invocation"] == "root"
    assert line.__dict__["attempt"] == 3


def test_events_of_several_chunks_are_seen_in_order_and_typed_by_their_stream() -> None:
    app = App("shop")
    a, b = app.stream("a", 2, int), app.stream("b", 2, str)
    seen: list[Any] = []

    @app.function(a, b, name="f", merge="time")
    def f(events: Batch[Any], context: Context) -> None:
        seen.extend((event.value, event.stream, event.offset) for event in events)
        context.fail(events[2], "no")

    chunks = (
        Chunk("a", 0, 3, 1, encode_events([Fact(b"1")]), 0, 0, 1),
        Chunk("b", 0, 7, 2, encode_events([Fact(b"x"), Fact(b"y")]), 0, 0, 2),
        Chunk("a", 0, 4, 1, encode_events([Fact(b"2")]), 0, 0, 1),
    )
    with pytest.raises(StopIteration) as stopped:
        Executor(app, Host()).run(BatchInvocation("shop.f", chunks=chunks)).send(None)
    assert seen == [(1, "a", 3), ("x", "b", 7), ("y", "b", 8), (2, "a", 4)]
    assert [failure.index for failure in stopped.value.value.failures] == [2]


def test_an_annotation_types_the_values_of_a_stream_that_says_nothing() -> None:
    app = App("shop")
    seen: list[Any] = []

    @app.function(app.external("elsewhere"), name="f")
    def f(event: Event[Order]) -> None:
        seen.append(event.value)

    facts = [Fact(b'{"id":3}'), Fact(b'{"id":"x"}')]
    chunk = Chunk("elsewhere", 0, 0, 2, encode_events(facts), 0, 0, 2)
    with pytest.raises(StopIteration) as stopped:
        Executor(app, Host()).run(BatchInvocation("shop.f", chunks=(chunk,))).send(None)
    assert seen == [Order(3)]
    assert stopped.value.value.failures[0].cause.kind == "Undecodable"


def test_a_corrupt_blob_is_a_failure_not_a_crash() -> None:
    rig = Rig()
    chunk = Chunk("orders", 0, 0, 1, b"\x00garbage", 0, 0, 1)
    with pytest.raises(StopIteration) as stopped:
        rig.executor.run(BatchInvocation("shop.f", chunks=(chunk,))).send(None)
    assert stopped.value.value.error is not None


def test_an_event_of_another_batch_cannot_be_failed() -> None:
    rig = Rig()
    kept: list[Event[Any]] = []
    rig.run(lambda events, context: kept.append(events[0]))
    assert "not an event of this batch" in rig.refused(lambda c: c.fail(kept[0], ""), Misuse)


# -- outputs that readers of JSON would misread ------------------------------------------------


MISREAD = [{"n": 2**64}, {"n": -(2**63) - 1}, {1: "a", "1": "b"}]


@pytest.mark.parametrize("value", MISREAD)
def test_what_would_be_misread_fails_the_event_it_was_published_for_alone(value: Any) -> None:
    rig = Rig()

    def work(events: Batch[Order], context: Context) -> None:
        for event in events:
            try:
                context.publish("out", value if event.key == "k1" else {"n": 2**63}, key="k")
            except Invalid as error:
                context.fail(event, str(error))

    returned = rig.run(work)
    (failure,) = returned.failures
    assert (returned.error, failure.index) == (None, 1)
    assert "publishing to `out`: the value at `/" in failure.cause.message
    (append,) = returned.appends
    assert append.count == 2


@pytest.mark.parametrize("value", MISREAD)
def test_what_would_be_misread_is_told_whatever_the_handler_raises_behind_it(value: Any) -> None:
    def work(events: Batch[Order], context: Context) -> None:
        context.publish("out", value, key="k")
        raise LookupError("too late")

    cause = Rig().run(work).error
    assert cause is not None
    assert (cause.kind, "publishing to `out`" in cause.message) == ("Invalid", True)


def test_what_only_looks_as_if_it_were_misread_is_published_by_one_call_of_the_handler() -> None:
    calls: list[int] = []

    def work(events: Batch[Order], context: Context) -> None:
        calls.append(len(events))
        context.publish("out", {"n": 10**19, "t": "1" * 40, "a1": {1: None, "2": -(10**18)}})

    assert Rig().run(work).error is None
    assert calls == [3]


def test_outputs_of_many_threads_are_all_kept_in_one_blob_for_each_partition() -> None:
    def work(events: Batch[Order], context: Context) -> None:
        def publish(number: int) -> None:
            for each in range(50):
                context.publish("out" if each % 2 else rig.out, [number, each], key=str(each))

        threads = [Thread(target=publish, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    rig = Rig()
    returned = rig.run(work)
    assert returned.error is None
    assert len({append.partition for append in returned.appends}) == len(returned.appends)
    found = [
        tuple(msgspec.json.decode(fact.value))
        for append in returned.appends
        for fact in decode_events(append.body)
    ]
    assert sorted(found) == [(number, each) for number in range(8) for each in range(50)]


def test_an_output_has_the_key_of_the_event_at_hand_unless_another_is_given() -> None:
    def work(events: Batch[Order], context: Context) -> None:
        context.publish("typed", Order(0))
        for _first in events[:1]:
            context.publish("typed", Order(1))
        for event in events:
            context.publish("typed", Order(2))
            context.publish("typed", Order(3), key=None)
            context.publish("typed", Order(4), key=f"{event.key}!")

    found = [
        (msgspec.json.decode(fact.value)["id"], fact.key)
        for append in Rig().run(work).appends
        for fact in decode_events(append.body)
    ]
    assert sorted(found, key=repr) == sorted(
        [
            (0, None),
            (1, None),
            *((2, key) for key in ("k0", "k1", "k2")),
            *[(3, None)] * 3,
            *((4, key) for key in ("k0!", "k1!", "k2!")),
        ],
        key=repr,
    )


def test_an_output_has_a_type_and_a_queues_message_a_priority() -> None:
    rig = Rig()
    rig.app.queue("jobs")

    def work(events: Batch[Order], context: Context) -> None:
        context.publish("typed", Order(1), type="shop.order.paid")
        context.publish("jobs", 2, priority=60)
        with pytest.raises(Misuse, match="`priority=` are for messages"):
            context.publish("typed", Order(3), priority=60)
        with pytest.raises(Misuse, match="`priority=True` is not a priority"):
            context.publish("jobs", 4, priority=True)

    facts = {
        fact.value: fact for append in rig.run(work).appends for fact in decode_events(append.body)
    }
    assert set(facts) == {b'{"id":1}', b"2"}
    assert facts[b'{"id":1}'].type == "shop.order.paid"
    assert facts[b"2"].headers == {"headrace-priority": "60"}
