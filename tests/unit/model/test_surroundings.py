"""Settings and variables of the node that an app is given."""

from __future__ import annotations

from headrace.model.settings import (
    MAX_VARIABLES_BYTES,
    ImportEnvironment,
    SettingValue,
    passed_on,
    variable_form,
)


def test_an_app_is_given_its_own_settings_alone() -> None:
    ours, theirs = SettingValue("shop.RATE", 1, "a"), SettingValue("mail.RATE", 2, "b")
    by_variable = SettingValue("SHOP_RATE", "3", "c", True)
    found = ImportEnvironment([ours, theirs, by_variable]).of("shop", [])
    assert found.settings == [ours, by_variable]


def test_variables_are_passed_on_by_name_and_by_pattern() -> None:
    around = ImportEnvironment([], {"AWS_KEY": "1", "AWS_REGION": "2", "TZ": "UTC", "HOME": "/"})
    assert around.of("shop", ["AWS_*", "TZ"]).variables == {
        "AWS_KEY": "1",
        "AWS_REGION": "2",
        "TZ": "UTC",
    }
    assert around.of("shop", []).variables == {}


def test_what_is_passed_on_has_a_bound() -> None:
    around = ImportEnvironment([], {"A": "x" * (MAX_VARIABLES_BYTES - 1), "B": "y"})
    assert list(around.of("shop", ["*"]).variables) == ["A"]


def test_the_nodes_own_variables_and_those_of_secrets_are_never_passed_on() -> None:
    environ = {"HEADRACE_SECRET_A": "1", "HEADRACE_TOKEN": "2", "STRIPE": "3", "TZ": "UTC"}
    assert passed_on(environ, ["STRIPE"]) == {"TZ": "UTC"}


def test_a_name_has_a_form_that_a_variable_can_have() -> None:
    assert variable_form("shop-eu.v2") == "SHOP_EU_V2"
