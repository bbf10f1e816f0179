"""A problem as HTTP APIs answer it (RFC 9457): the node's own errors, and what an author's route declares."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final

import msgspec

MEDIA: Final = "application/problem+json"
SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["type", "title", "status", "code", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "code": {"type": "string"},
        "detail": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["path", "message"],
                "properties": {"path": {"type": "string"}, "message": {"type": "string"}},
            },
        },
    },
}


class Problem(msgspec.Struct, frozen=True):
    """The body of an answer that says what went wrong, in the same form as the node's own errors.

    `Reply(Problem("there is no order 7"), status=404)` fills in what is left empty from the status.

    Attributes:
        detail: What is wrong with which thing, for people.
        code: A stable word for programs; without one the status's, such as `not-found`.
        title: Without one the status's, such as `Not Found`.
        type: A URI that identifies the kind of problem.
        status: Filled in by `Reply`.
    """

    detail: str
    code: str = ""
    title: str = ""
    type: str = "about:blank"
    status: int = 0


def filled_in(problem: Problem, status: int) -> Problem:
    """The problem as an answer of this status says it."""
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = f"Status {status}"
    return msgspec.structs.replace(
        problem,
        status=status,
        title=problem.title or phrase,
        code=problem.code or phrase.lower().replace(" ", "-").replace("'", ""),
    )
