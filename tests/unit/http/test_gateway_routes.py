"""The route table: which handler answers, and what is said where none does."""

from __future__ import annotations

import pytest

from headrace.http.problem_details import NotAllowed
from headrace.http.server.route_resolver import route_table
from headrace.model.errors import Invalid, Unknown


@pytest.mark.parametrize(
    ("method", "path", "names", "pattern"),
    [
        ("GET", "/", (), "/"),
        ("POST", "/-/v1/streams/orders", ("orders",), "/-/v1/streams/{stream}"),
        ("GET", "/-/v1/streams/orders/", ("orders",), "/-/v1/streams/{stream}"),
        ("HEAD", "/healthz", (), "/healthz"),
        ("GET", "/-/v1/state/shop/totals", ("shop", "totals"), "/-/v1/state/{app}/{store}"),
        (
            "GET",
            "/-/v1/state/shop/totals/a%2Fb",
            ("shop", "totals", "a/b"),
            "/-/v1/state/{app}/{store}/{key}",
        ),
        ("GET", "/-/v1/state/shop/%C3%A4", ("shop", "ä"), "/-/v1/state/{app}/{store}"),
        ("POST", "/-/v1/dead/shop.f/redrive", ("shop.f",), "/-/v1/dead/{function}/redrive"),
        (
            "GET",
            "/-/v1/dead/shop.f/orders/0/7",
            ("shop.f", "orders", "0", "7"),
            "/-/v1/dead/{function}/{stream}/{partition}/{offset}",
        ),
    ],
)
def test_a_path_finds_its_handler_and_names(
    method: str, path: str, names: tuple[str, ...], pattern: str
) -> None:
    _, found, text = route_table().find(method, path)
    assert (found, text) == (names, pattern)


@pytest.mark.parametrize(
    "path", ["/nowhere", "", "/-/v1/streams/a/b/c/d/e/f", "/-/v1/streams//records/x"]
)
def test_a_path_nobody_answers_is_unknown(path: str) -> None:
    with pytest.raises(Unknown, match="there is nothing at"):
        route_table().find("GET", path)


def test_a_known_path_with_another_method_says_which_are_allowed() -> None:
    with pytest.raises(NotAllowed) as error:
        route_table().find("DELETE", "/-/v1/streams/orders")
    assert error.value.allowed == "GET, HEAD, POST"


def test_a_segment_that_is_no_text_is_refused() -> None:
    with pytest.raises(Invalid, match="is not UTF-8"):
        route_table().find("GET", "/-/v1/state/shop/%ff")
