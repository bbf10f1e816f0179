"""What is said of a function that nobody has deployed."""

from __future__ import annotations

from headrace.delivery.unknown_function import unknown_function


def test_a_near_name_is_offered() -> None:
    assert str(unknown_function("shop.cuont", ["shop.count", "mail.send"])) == (
        "there is no function `shop.cuont` (did you mean `shop.count`?)"
    )


def test_a_name_without_its_app_is_completed() -> None:
    assert str(unknown_function("count", ["shop.count", "bank.count", "mail.send"])) == (
        "there is no function `count`; write the app's name too: `bank.count` or `shop.count`"
    )


def test_where_nothing_is_near_the_deployed_ones_are_listed_up_to_a_bound() -> None:
    assert str(unknown_function("zzz", [])) == "there is no function `zzz`; deployed are: none"
    many = str(unknown_function("zzz", [f"app.f{number}" for number in range(1_000)]))
    assert many.endswith(" and 980 more")


def test_what_only_begins_alike_is_not_near() -> None:
    known = ["shop.count", "shop.tidy", "shop.send", "_bus.rules.default"]
    assert str(unknown_function("shop.cont", known)).endswith("(did you mean `shop.count`?)")
    assert str(unknown_function("shop.zzz", known)).endswith(
        "deployed are: `shop.count`, `shop.send`, `shop.tidy`"
    )
    assert str(unknown_function("shpo.count", known)).startswith(
        "there is no function `shpo.count` (did you mean `shop.count`"
    )
