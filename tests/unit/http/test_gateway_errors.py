"""The one table from errors to answers."""

from __future__ import annotations

import json

import pytest

from headrace.delivery.calls.direct import CallFailed
from headrace.environment.clock import SystemClock
from headrace.http import problem_details
from headrace.model import errors
from headrace.model.outcome import Cause


@pytest.mark.parametrize(
    ("error", "status", "retry_after"),
    [
        (errors.HeadraceError("x"), 500, None),
        (errors.Misuse("x"), 400, None),
        (errors.Unknown("x"), 404, None),
        (errors.Invalid("x"), 400, None),
        (errors.TooLarge("x"), 413, None),
        (errors.Unavailable("x"), 503, b"1"),
        (errors.DiskFull("x"), 507, b"5"),
        (errors.Overloaded("x"), 429, b"1"),
        (errors.Fenced("x"), 503, b"1"),
        (errors.Conflict("x"), 409, None),
        (errors.Refused("x"), 403, None),
        (errors.Locked("x"), 403, None),
        (errors.Corrupt("x"), 500, None),
        (problem_details.NotAllowed("x", "GET"), 405, None),
        (problem_details.Unsupported("x"), 415, None),
        (problem_details.TooSlow("x"), 408, None),
        (CallFailed("f", Cause("ValueError", "x")), 500, None),
        (CallFailed("f", Cause("Crashed", "x")), 502, None),
        (CallFailed("f", Cause("OutOfMemory", "x")), 502, None),
        (CallFailed("f", Cause("TimedOut", "x")), 504, None),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_an_error_has_its_status_its_code_and_when_to_try_again(
    error: errors.HeadraceError, status: int, retry_after: bytes | None
) -> None:
    answer = problem_details.answer_error(error)
    problem = json.loads(answer.body)
    assert answer.media == b"application/problem+json"
    assert (answer.status, problem["status"]) == (status, status)
    assert problem["code"] == error.code
    assert problem["type"] == f"urn:headrace:error:{error.code}"
    assert problem["detail"] == str(error)
    assert dict(answer.headers).get(b"retry-after") == retry_after


def test_every_error_of_the_family_is_in_the_table() -> None:
    family = [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.HeadraceError)
    ]
    for kind in family:
        assert problem_details.answer_error(kind("x")).status >= 400


def test_what_nobody_foresaw_keeps_its_text_to_itself() -> None:
    answer = problem_details.answer_failure(ValueError("private"), "GET /", SystemClock())
    assert answer.status == 500
    assert b"private" not in answer.body
    assert b"under `" in answer.body
