"""Errors of the client for a node's refusals."""

from __future__ import annotations

import json

import pytest

from headrace.client.http import Client
from headrace.client.responses import NodeResponse, error_of, retry_after_of
from headrace.model import errors


def problem(code: str, status: int, headers: dict[str, str] | None = None) -> NodeResponse:
    body = {"code": code, "detail": f"about {code}", "status": status}
    return NodeResponse(status, headers or {}, json.dumps(body).encode())


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("unknown", 404, errors.Unknown),
        ("invalid", 400, errors.Invalid),
        ("too-large", 413, errors.TooLarge),
        ("overloaded", 429, errors.Overloaded),
        ("disk-full", 507, errors.DiskFull),
        ("refused", 403, errors.Refused),
        ("conflict", 409, errors.Conflict),
        ("method-not-allowed", 405, errors.Misuse),
        ("call-failed", 500, errors.HeadraceError),
    ],
)
def test_a_problem_becomes_the_error_its_code_names(
    code: str, status: int, kind: type[errors.HeadraceError]
) -> None:
    error = error_of(problem(code, status))
    assert type(error) is kind
    assert str(error) == f"about {code}"


def test_what_the_node_asks_to_wait_is_kept() -> None:
    assert retry_after_of(error_of(problem("overloaded", 429, {"Retry-After": "3"}))) == 3.0
    assert retry_after_of(error_of(problem("overloaded", 429))) is None


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"title": 1}', b"\xff"])
def test_an_answer_that_is_no_problem_is_no_nodes(body: bytes) -> None:
    error = error_of(NodeResponse(502, {}, body))
    assert type(error) is errors.Unavailable
    assert "502" in str(error)


def test_an_answer_that_is_no_json_is_no_nodes() -> None:
    with pytest.raises(errors.Unavailable, match="not a Headrace node"):
        NodeResponse(200, {}, b"<html>").json()


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://127.0.0.1:4280/", "http://127.0.0.1:4280"),
        ("node.test:80", "http://node.test:80"),
        ("https://node.test/base/", "https://node.test"),
    ],
)
def test_an_address_is_read_as_it_is_meant(url: str, shown: str) -> None:
    assert Client(url).url == shown
