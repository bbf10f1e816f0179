"""Whether an answer is what its route says it answers. Pure.

In: a route's answers by status, and what the function returned. Out: what is wrong with it, for the
author's log, or "". The client learns only that the answer was not of its type.
"""

from __future__ import annotations

from functools import cached_property

import msgspec

from headrace.model.jsonschema import Mismatch
from headrace.model.reply import open_reply
from headrace.model.triggers.http import Answer, Http
from headrace.patterns.schema_validation import Checker

_json = msgspec.json.Decoder()


class DeclaredAnswer:
    """The answers of one route. Made once for each, shared by all requests."""

    def __init__(self, route: Http) -> None:
        self._path = route.path
        self._answers = route.answers
        self._any_status = route.any_status

    @cached_property
    def _checkers(self) -> dict[int, Checker]:
        return {
            status: Checker(answer.schema)
            for status, answer in self._answers.items()
            if answer.schema is not None
        }

    def __call__(self, answered: bytes) -> str:
        """What is wrong with the answer; "" where nothing is."""
        reply = open_reply(answered)
        status, body = (200, answered) if reply is None else (reply.status, reply.body)
        answer = self._answers.get(status)
        if answer is None:
            if self._any_status:
                return ""
            known = ", ".join(str(each) for each in sorted(self._answers)) or "none"
            return (
                f"route `{self._path}` answered {status}, and declares {known}; add it to "
                "`responses=`, with the type of its body"
            )
        wrong = self._mismatch(status, answer, body)
        return wrong and f"route `{self._path}` answered {status} with a body that {wrong}"

    def _mismatch(self, status: int, answer: Answer, body: bytes) -> str:
        if not answer.media:
            return "should be empty" if body not in {b"", b"null"} else ""
        checker = self._checkers.get(status)
        if checker is None:
            return ""
        try:
            checker.check(_json.decode(body), body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return "is not JSON"
        except Mismatch as error:
            return f"is not of its type: `{error.path or '/'}` {error.reason}"
        return ""
