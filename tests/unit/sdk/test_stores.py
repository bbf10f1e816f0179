"""Stores as authors declare and use them: by hand, on a world, and where two functions meet."""

from __future__ import annotations

from collections.abc import Callable, ItemsView, Mapping
from typing import Any, assert_type

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace import App, Batch, Context, Event, State, Store
from headrace.errors import Invalid, Misuse, Unknown
from headrace.runtime.child import state_session
from headrace.testing import World, batch
from headrace.testing import context as made
from headrace.testing import event as event_of


class Total(msgspec.Struct):
    sold: int = 0


shop = App("shop")
orders = shop.stream("orders", 4)
totals = shop.store("totals", int, default=0)
lists = shop.store("lists", list[int], default=[])
kept = shop.store("kept", Total, ttl="1m")
untyped = shop.store("untyped")


@shop.function(orders)
def add(events: Batch[Any], context: Context) -> None:
    for event in events:
        context.store(totals)[event.key] += event.value
        context.state[event.key] = event.value
        if event.value == 13:
            context.fail(event, "unlucky")


@shop.function(orders)
def double(event: Event[Any], context: Context) -> None:
    context.store(totals).update(event.key, lambda known: known + event.value)
    context.state[event.key] = -event.value


def test_functions_share_a_store_only_by_naming_it() -> None:
    with World(shop) as world:
        world.publish(orders, 1, 2, key="ada")
        world.run_until_idle()
        assert dict(world.store(totals)) == {"ada": 6}
        assert dict(world.state(add)) == {"ada": 2}
        assert dict(world.state("shop.double")) == {"ada": -2}
        world.crash()
        world.publish(orders, 3, key="ada")
        world.run_until_idle()
        assert world.store(totals)["ada"] == 12
        assert "ada" in world.state(double)


def test_two_functions_of_one_store_lose_no_update() -> None:
    with World(shop, seed=5) as world:
        for number in range(40):
            world.publish(orders, 1, key="all")
            if number % 7 == 0:
                world.deliver_twice()
        world.crash()
        world.run_until_idle()
        assert world.store(totals)["all"] == 80


def test_what_a_failed_event_wrote_is_dropped_in_every_store() -> None:
    given = made(stores={totals: {"a": 1}})
    add(batch([1, 13, 2], key="a"), given)
    assert (given.store(totals)["a"], given.state["a"]) == (4, 2)


def test_a_default_is_read_and_not_written() -> None:
    store = made().store(totals)
    assert (store["a"], store.get("a"), store.get("a", 5), store.get("a", None)) == (0, 0, 5, None)
    assert "a" not in store
    assert list(store) == []
    with pytest.raises(KeyError):
        del store["a"]
    with pytest.raises(KeyError):
        store.pop("a")
    assert store.pop("a", None) is None
    assert store.setdefault("a", 7) == 7
    assert store.setdefault("b") == 0
    assert dict(store) == {"a": 7, "b": 0}


def test_each_read_of_a_default_is_a_copy() -> None:
    store = made().store(lists)
    store["a"].append(1)
    assert store["a"] == []
    assert store.update("a", lambda held: [*held, 1]) == [1]


def test_checkers_know_the_types_of_values() -> None:
    """As mypy sees them; running it shows that the values are of these types."""
    key = event_of(1, key="a").key
    given = made(stores={totals: {"a": 1}, kept: {"a": Total(1)}}, state={"a": {"sold": 1}})
    counts, state = given.store(totals), given.state
    assert_type(counts, State[int])
    assert_type(counts[key], int)
    assert_type(counts.get(key), int | None)
    assert_type(counts.get(key, 0), int)
    assert_type(counts.get(key, "none"), int | str)
    assert_type(counts.update(key, lambda known: known + 1), int)
    assert_type(counts.items(), ItemsView[str, int])
    assert_type(counts.get_many([key]), dict[str, int])
    assert_type(counts.pop(key), int)
    assert_type(counts.setdefault(key, 1), int)
    assert_type(given.store(kept)[key], Total)
    assert_type(given.store(untyped).get(key), Any | None)
    assert_type(state.get(key, type=Total), Total | None)
    assert_type(state.get(key, Total(), type=Total), Total)
    assert_type(state.get_many([key], type=Total), dict[str, Total])
    assert_type(state.items(type=Total), ItemsView[str, Total])
    assert_type(state.update(key, lambda known: known, type=Total), Total)


def test_an_absent_key_of_a_store_without_a_default() -> None:
    given = made()
    store = given.store(kept)
    assert store.get("a") is None
    acts: list[Callable[[], object]] = [
        lambda: store["a"],
        lambda: store.update("a", lambda known: known),
    ]
    for act in acts:
        with pytest.raises(KeyError):
            act()
    assert store.update("a", lambda known: known, default=Total(1)) == Total(1)
    assert given.store(untyped).update("a", lambda known: [known]) == [None]
    assert given.state.update("a", lambda known: [known]) == [None]


def test_values_are_of_the_stores_type() -> None:
    given = made(stores={kept: {"a": Total(3)}})
    assert given.store(kept)["a"] == Total(3)
    for write in (
        lambda: given.store(totals).put("a", "x"),  # type: ignore[arg-type]  # that is the test
        lambda: given.store(kept).update("a", lambda _: 1),  # type: ignore[arg-type, return-value]  # as well
        lambda: given.store(lists).setdefault("a", ["x"]),  # type: ignore[list-item]  # as well
    ):
        with pytest.raises(Invalid, match="is not a `"):
            write()
    given.state["a"] = {"sold": 4}
    assert given.state.get("a", type=Total) == Total(4)
    assert given.state.get_many(["a", "b"], type=Total) == {"a": Total(4)}
    assert list(given.state.items(type=Total)) == [("a", Total(4))]


def test_values_expire_as_the_store_says_unless_one_is_put_otherwise() -> None:
    app = App("a")
    asked = app.stream("asked")
    store = app.store("kept", int, ttl="1m")

    @app.function(asked)
    def work(event: Event[Any], context: Context) -> None:
        context.store(store)["a"] = 1
        context.store(store).put("b", 1, ttl="1h")
        context.store(store).put("c", 1, ttl=None)

    with World(app) as world:
        world.publish(asked, 1)
        world.advance(1)
        assert set(world.store(store)) == {"a", "b", "c"}
        world.advance("2m")
        assert set(world.store(store)) == {"b", "c"}
        world.advance("2h")
        assert set(world.store(store)) == {"c"}


@pytest.mark.parametrize("use", ["get", "[]", "[]=", "in", "del", "put", "update", "get_many"])
def test_an_event_without_a_key_is_refused_with_the_cure(use: str) -> None:
    state = made().state
    key = event_of(1).key
    assert key is None
    acts: dict[str, Callable[[], object]] = {
        "get": lambda: state.get(key),
        "[]": lambda: state[key],
        "[]=": lambda: state.__setitem__(key, 1),
        "in": lambda: key in state,
        "del": lambda: state.__delitem__(key),
        "put": lambda: state.put(key, 1),
        "update": lambda: state.update(key, lambda known: known),
        "get_many": lambda: state.get_many([key]),
    }
    with pytest.raises(Misuse, match=r"publish it with one"):
        acts[use]()


@pytest.mark.parametrize(
    ("declare", "says"),
    [
        (lambda app: app.store("a.b"), "cannot be the name of a store"),
        (lambda app: app.store(""), "cannot be the name of a store"),
        (lambda app: app.store("/windows"), "cannot be the name of a store"),
        (lambda app: app.store("n", int, default="x"), r"`default='x'` is not a `int`"),
        (lambda app: app.store("n", ttl="soon"), r"store `n`: `ttl=` is 'soon'"),
        (lambda app: app.store("n", ttl=0), "out of range"),
        (lambda app: (app.store("n"), app.store("n")), "has a store `n` already"),
        (lambda app: app.store("n", lambda: 1), "cannot be the type of a store"),
    ],
)
def test_a_store_that_cannot_be_is_refused_where_it_is_declared(
    declare: Callable[[App], object], says: str
) -> None:
    with pytest.raises(Misuse, match=says) as refused:
        declare(App("a"))
    assert "test_stores.py" in str(refused.value)


def test_only_the_apps_own_stores_are_opened() -> None:
    other = App("other").store("totals", int)
    given = made(app=shop, function="shop.add")
    given.store(totals)["a"] = 1
    with pytest.raises(Misuse, match="of app `other`"):
        given.store(other)
    with pytest.raises(Misuse, match=r"context\.store\(totals\)"):
        given.store("totals")  # type: ignore[arg-type]  # that is the test
    # Without its app any will do: the test says what is there.
    assert made(stores={other: {"a": 3}}).store(other)["a"] == 3


def test_the_apps_spec_has_its_stores() -> None:
    spec = shop.spec()
    assert [(each.name, each.type, each.ttl) for each in spec.stores] == [
        ("totals", "int", None),
        ("lists", "list[int]", None),
        ("kept", "Total", 60.0),
        ("untyped", "Any", None),
    ]
    assert {each.stores for each in spec.functions} == {("totals", "lists", "kept", "untyped")}


def test_more_keys_than_a_page_are_listed() -> None:
    many = {f"k{number:04}": number for number in range(2_500)}
    given = made(stores={totals: {**many, "other": 1}})
    store = given.store(totals)
    store["k0000x"] = -1
    store["k2499x"] = -2
    del store["k1000"]
    expected = dict(sorted({**many, "k0000x": -1, "k2499x": -2}.items()))
    del expected["k1000"]
    assert list(store.items("k")) == list(expected.items())
    assert len(store) == len(expected) + 1
    assert ("k2499", 2499) in store.items("k")
    assert list(store.values())[-1] == 1
    store.clear()
    assert dict(store) == {}


_keys = st.sampled_from([f"{letter}{number}" for letter in "ab" for number in range(5)])
_steps = st.lists(
    st.one_of(
        st.tuples(st.just("set"), _keys, st.integers(0, 9)),
        st.tuples(st.just("pop"), _keys, st.integers(0, 9)),
        st.tuples(st.just("setdefault"), _keys, st.integers(0, 9)),
        st.tuples(st.just("merge"), st.dictionaries(_keys, st.integers(0, 9)), st.none()),
        st.tuples(st.just("look"), st.sampled_from(["", "a", "b", "a1", "c"]), st.none()),
    ),
    max_size=20,
)


@given(first=st.dictionaries(_keys, st.integers(0, 9)), steps=_steps, page=st.integers(1, 4))
def test_it_is_a_mapping_like_a_dict(
    first: dict[str, int], steps: list[tuple[str, Any, Any]], page: int
) -> None:
    model = dict(first)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(state_session, "PAGE", page)
        state = made(state=first).state
        for kind, what, value in steps:
            if kind == "set":
                model[what] = state[what] = value
            elif kind == "pop":
                assert state.pop(what, value) == model.pop(what, value)
            elif kind == "setdefault":
                assert state.setdefault(what, value) == model.setdefault(what, value)
            elif kind == "merge":
                model.update(what)
                state.update(what)
            else:
                found = [(key, held) for key, held in sorted(model.items()) if key.startswith(what)]
                assert list(state.items(what)) == found
        assert state == model
        assert list(state) == sorted(model)
        assert isinstance(state, Mapping)


def test_a_store_that_no_app_of_the_world_declares_is_unknown() -> None:
    stranger: Store[Any] = App("b").store("totals")
    with World(shop) as world, pytest.raises(Unknown, match="is not a store of an app"):
        world.store(stranger)
