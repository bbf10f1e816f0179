"""Settings as authors declare and read them: types, defaults, and what is refused."""

from __future__ import annotations

from datetime import timedelta
from enum import Enum
from pathlib import Path
from typing import Any, Literal, assert_type

import pytest

from headrace import App
from headrace.errors import Misuse
from headrace.model.durations import seconds_in
from headrace.model.settings import Provision, SettingValue
from headrace.sdk.provided_values import provided_by
from headrace.testing import World, context
from headrace.topology.map import setting_notes


class Size(Enum):
    SMALL = "small"
    LARGE = "large"


def shop(*given: SettingValue) -> App:
    with provided_by(lambda _app, _env: Provision(list(given))):
        return App("shop")


def test_a_setting_has_its_default_where_nobody_gives_a_value() -> None:
    rate = shop().setting("RATE", float, default=1.0)
    assert rate.value == 1.0
    assert (rate.spec.type, rate.spec.default, rate.spec.where) == ("float", "1.0", "")


@pytest.mark.parametrize(
    ("kind", "value", "from_text", "expected"),
    [
        (float, 2, False, 2.0),
        (float, "2.5", True, 2.5),
        (int, "7", True, 7),
        (bool, "true", True, True),
        (str, "7", True, "7"),
        (list[str], "a, b,", True, ["a", "b"]),
        (tuple[int, ...], "1,2", True, (1, 2)),
        (list[str], ["a"], False, ["a"]),
        (Path, "/data", True, Path("/data")),
        (timedelta, "1h30m", True, timedelta(hours=1.5)),
        (timedelta, 90, False, timedelta(seconds=90)),
        (Size, "large", True, Size.LARGE),
        (Literal["a", "b"], "b", True, "b"),
        (int | None, "3", True, 3),
    ],
)
def test_what_an_operator_gave_comes_as_the_declared_type(
    kind: Any, value: object, from_text: bool, expected: object
) -> None:
    name = "SHOP_IT" if from_text else "shop.IT"
    app = shop(SettingValue(name, value, "there", from_text))
    setting: Any = app.setting("IT", kind)
    assert setting.value == expected
    assert setting.spec.where == "there"


@pytest.mark.parametrize(
    ("kind", "value", "from_text"),
    [(float, "fast", True), (float, "2", False), (int, 2.5, False), (Size, "huge", True)],
)
def test_a_value_of_another_type_is_refused_with_the_place_it_stands(
    kind: Any, value: object, from_text: bool
) -> None:
    app = shop(SettingValue("shop.IT", value, "headrace.toml:3", from_text))
    with pytest.raises(Misuse, match=r"headrace\.toml:3: .*shop\.IT"):
        app.setting("IT", kind)


def test_the_last_value_given_wins() -> None:
    app = shop(
        SettingValue("shop.RATE", 2.0, "headrace.toml:2"),
        SettingValue("SHOP_RATE", "3", "`HEADRACE_APP_SHOP_RATE`", True),
    )
    assert app.setting("RATE", float).value == 3.0


def test_a_setting_without_a_value_says_what_to_write() -> None:
    url = shop().setting("URL", str)
    assert url.spec.is_missing
    with pytest.raises(Misuse, match=r"shop\.URL.*HEADRACE_APP_SHOP_URL=.*--set shop\.URL="):
        _ = url.value


@pytest.mark.parametrize("name", ["rate", "", "RA-TE", "1RATE"])
def test_a_name_that_no_variable_could_have_is_refused(name: str) -> None:
    with pytest.raises(Misuse, match="capital letters"):
        shop().setting(name, float, default=1.0)


def test_a_setting_is_declared_once_and_its_default_is_of_its_type() -> None:
    app = shop()
    app.setting("RATE", float, default=1.0)
    with pytest.raises(Misuse, match="declared before"):
        app.setting("RATE", float, default=1.0)
    with pytest.raises(Misuse, match="the default"):
        app.setting("SIZE", int, default="many")


def test_a_spec_says_where_a_value_comes_from_and_never_the_value() -> None:
    app = shop(SettingValue("shop.URL", "postgres://u:hidden@db", "headrace.toml:3"))
    app.setting("URL", str)
    (spec,) = app.spec().settings
    assert spec.where == "headrace.toml:3"
    assert "hidden" not in repr(app.spec())


def test_variables_are_named_or_set() -> None:
    assert App("shop", env=["AWS_*", "TZ"]).spec().env == ("AWS_*", "TZ")
    assert App("shop", env={"K": "v"}).spec().env == ("K",)
    for wrong in ("TZ", [1], {"K": 1}, [""]):
        with pytest.raises(Misuse, match="env="):
            App("shop", env=wrong)  # type: ignore[arg-type]  # what is tried


def test_the_nodes_own_variables_cannot_be_named() -> None:
    with pytest.raises(Misuse, match="the node's own"):
        App("shop", env=["HEADRACE_SECRET_X"])


def test_a_test_overrides_a_setting_for_a_while() -> None:
    app = App("shop")
    rate = app.setting("RATE", float, default=1.0)

    @app.function()
    def price(event: Any) -> float:
        return rate.value

    with rate.override(3.0):
        assert price(context()) == 3.0
    assert price(context()) == 1.0


def test_a_world_chooses_settings_as_long_as_it_is_open() -> None:
    app = App("shop")
    orders, priced = app.stream("orders"), app.stream("priced")
    rate = app.setting("RATE", float, default=1.0)
    url = app.setting("URL", str)

    @app.function(orders, output=priced)
    def price(event: Any) -> dict[str, Any]:
        return {"total": event.value * rate.value, "url": url.value}

    with World(app, settings={"RATE": 2, "shop.URL": "here"}) as world:
        world.publish(orders, 5)
        world.run_until_idle()
        assert world.values(priced) == [{"total": 10.0, "url": "here"}]
    assert rate.value == 1.0
    with pytest.raises(Misuse, match=r"`shop\.URL` has no value.*World"), World(app):
        pass
    with pytest.raises(Misuse, match="did you mean `RATE`"), World(app, settings={"RAET": 1}):
        pass
    with pytest.raises(Misuse, match="World"), World(app, settings={"RATE": "x", "URL": ""}):
        pass
    assert rate.value == 1.0


def test_an_app_with_other_values_is_another_app() -> None:
    def given(generation: int) -> App:
        with provided_by(lambda _app, _env: Provision(generation=generation)):
            return App("shop")

    assert given(1).spec() == given(1).spec() != given(2).spec()


def test_type_checkers_know_what_a_setting_holds() -> None:
    app = shop()
    rate = app.setting("RATE", float, default=1)
    names = app.setting("NAMES", list[str], default=[])
    mode = app.setting("MODE", Literal["a", "b"], default="a")
    assert_type(rate.value, float)
    assert_type(names.value, list[str])
    assert_type(mode.value, str)


@pytest.mark.parametrize(
    ("default", "shown"),
    [
        (timedelta(days=1), "1d"),
        ("90m", "1h30m"),
        (timedelta(milliseconds=1_500), "1s500ms"),
        (timedelta(), "0s"),
        (timedelta(microseconds=7), "7us"),
    ],
)
def test_the_default_of_a_duration_is_listed_as_authors_write_it(default: Any, shown: str) -> None:
    app = App("shop")
    setting = app.setting("KEEP", timedelta, default=default)
    assert list(setting_notes([app.spec()])) == [
        f"setting `shop.KEEP` (timedelta): default {shown}"
    ]
    assert timedelta(seconds=seconds_in(shown, "it", low=0, high=1e9)) == setting.value
