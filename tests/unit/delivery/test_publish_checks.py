"""What an instance may not publish fails its events; it never halts the partition."""

from __future__ import annotations

from msgspec.structs import replace
from tests.unit.delivery.making import TROUBLE, publish_checks_of

from headrace import App, Context, Event, Retry
from headrace.delivery.commit.publish_checks import CheckedWaiter
from headrace.model.event import Event as Fact
from headrace.model.function import FunctionSpec, StreamSpec
from headrace.model.outcome import Crashed, Outcome, Returned, StateRead, StateWrite
from headrace.model.record import Append, encode_events
from headrace.model.stores import WINDOWS
from headrace.model.triggers.files import Ends
from headrace.testing import World


class Streams:
    """The part of a log that is asked for."""

    def stream(self, name: str) -> StreamSpec:
        owner = "a" if name.startswith("own") else "b"
        return StreamSpec(name=name, owner=owner, partitions=2, private=name.endswith("inner"))


SPEC = FunctionSpec(name="a.f", app="a", publishes=("said", "their-inner"))


def kind(outcome: Returned, spec: FunctionSpec = SPEC) -> str:
    streams = Streams()
    publish_checks = publish_checks_of(streams)  # type: ignore[arg-type] # all it asks for
    vetted = publish_checks(spec, outcome)
    if vetted.error is not None:
        return vetted.error.kind
    assert vetted is outcome
    return "passed"


def output(stream: str, partition: int = 0, count: int = 1, body: bytes | None = None) -> Returned:
    blob = encode_events([Fact(b"1")]) if body is None else body
    return Returned(appends=(Append(stream, partition, count, blob),))


def test_its_own_streams_and_those_it_named_are_open_to_it() -> None:
    assert kind(output("own")) == kind(output("said")) == "passed"


def test_a_stream_of_another_app_is_refused() -> None:
    assert kind(output("theirs")) == "Refused"


def test_another_apps_private_stream_is_refused_even_where_it_was_declared() -> None:
    assert kind(output("their-inner")) == "Refused"
    assert kind(output("own-inner")) == "passed"


def test_the_platforms_own_apps_route_into_private_streams() -> None:
    router = FunctionSpec(name="_bus.rules", app="_bus", publishes=("their-inner",))
    assert kind(output("their-inner"), router) == "passed"
    assert kind(output("theirs"), router) == "Refused"


def kept(*stores: str) -> Returned:
    return Returned(
        reads=tuple(StateRead("k", 0, None, store) for store in stores),
        writes=tuple(StateWrite("k", b"1", 0, store) for store in stores),
    )


def test_only_its_own_store_and_those_of_its_app_are_open_to_it() -> None:
    spec = replace(SPEC, stores=("totals",))
    assert kind(kept("", "totals"), spec) == "passed"
    for store in ("others", "a.g", "a.f", WINDOWS, "\0", "totals/"):
        assert kind(kept("totals", store), spec) == "Refused", store
        assert kind(Returned(reads=kept(store).reads), spec) == "Refused", store
        assert kind(Returned(writes=kept(store).writes), spec) == "Refused", store


def test_windows_are_kept_by_window_functions_alone() -> None:
    windows = replace(SPEC, triggers=(Ends(1, None, 10.0, ""),))
    assert kind(kept(WINDOWS), windows) == "passed"


def test_what_the_log_would_refuse_is_a_failure() -> None:
    assert kind(output("own", partition=2)) == "Unknown"
    assert kind(output("own", partition=-1)) == "Unknown"
    assert kind(output("own", count=3)) == "Invalid"
    assert kind(output("own", body=b"garbage")) == "Invalid"
    assert kind(output("own", body=b"\x91" + b"x" * (9 << 20))) == "TooLarge"


def test_an_instance_that_died_published_nothing() -> None:
    passed: list[Outcome] = []

    class Noting:
        def done(self) -> bool:
            return False

        def set_result(self, outcome: Outcome, /) -> None:
            passed.append(outcome)

        def set_exception(self, exception: BaseException, /) -> None:
            raise exception

    died = Crashed(TROUBLE)
    publish_checks = publish_checks_of(Streams())  # type: ignore[arg-type] # all it asks for
    CheckedWaiter(Noting(), publish_checks, SPEC).set_result(died)
    assert passed == [died]


def test_one_event_that_publishes_too_much_does_not_halt_its_neighbours() -> None:
    app = App("app")
    source, sink = app.stream("in"), app.stream("out", value=str)

    @app.function(source, retry=Retry(attempts=2))
    def swell(event: Event[int], context: Context) -> None:
        for _ in range(10 if event.value == 1 else 1):
            context.publish(sink, "x" * 1_000_000)

    with World(app) as world:
        world.publish(source, 0, 1, 2)
        world.run_until_idle()

        assert len(world.values(sink)) == 2
        assert [dead.cause.kind for dead in world.dead_letters()] == ["TooLarge"]
        world.assert_nothing_lost()
