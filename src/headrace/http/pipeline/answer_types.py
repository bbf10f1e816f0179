"""Checks of a function's answers against the types that its route declares. Pure.

In: a route's answers by status, and what the function returned. Out: the mismatch, for the author's log,
or "". The client learns only that the answer was not of its type.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property

import msgspec

from headrace.model.jsonschema import Mismatch
from headrace.model.reply import open_reply
from headrace.model.triggers.http import Answer, Http
from headrace.patterns.schema_validation import Checker

_json = msgspec.json.Decoder()
_parts = msgspec.json.Decoder(list[msgspec.Raw])


class DeclaredAnswer:
    """The declared answers of one route. Created once for each route, shared by all requests."""

    def __init__(self, route: Http) -> None:
        self._path = route.path
        self._is_live = route.mode == "live"
        self._answers = route.answers
        self._any_status = route.any_status

    # At the first answer: most nodes that serve do not check answers (ADR 0040), and compiling
    # schemas for every route would slow down each deployment.
    @cached_property
    def _checkers(self) -> dict[int, Checker]:
        return {
            status: Checker(answer.schema)
            for status, answer in self._answers.items()
            if answer.schema is not None
        }

    def __call__(self, answered: bytes) -> str:
        """Return the mismatch of an answer; "" where there is none."""
        reply = open_reply(answered)
        if reply is None:
            # A handler that returns no `Reply` answers 200.
            return self._wrong(200, answered, whole=True)
        return self._wrong(reply.status, reply.body, whole=True)

    def part(self, status: int, body: bytes | None) -> str:
        """Check one part of a `live` answer; its body is None where only the status is known so far."""
        return self._wrong(status, body, whole=False)

    def _wrong(self, status: int, body: bytes | None, *, whole: bool) -> str:
        answer = self._answers.get(status)
        if answer is None:
            if self._any_status:
                return ""
            known = ", ".join(str(each) for each in sorted(self._answers)) or "none"
            return (
                f"route `{self._path}` answered {status}, and declares {known}; add it to "
                "`responses=`, with the type of its body"
            )
        if body is None:
            return ""
        wrong = ""
        # A repetition of a `live` request is answered as a whole, with the list of all parts; the
        # schema is that of one part.
        for each in self._parts(answer, body) if self._is_live and whole else (body,):
            wrong = wrong or self._mismatch(status, answer, each)
        return wrong and f"route `{self._path}` answered {status} with a body that {wrong}"

    def _parts(self, answer: Answer, body: bytes) -> Iterable[bytes]:
        """Split an answer that was not sent in parts."""
        if answer.schema is None:
            # Without a schema the answer may only be empty, and the empty list is a `live` answer
            # without parts.
            return () if body == b"[]" else (body,)
        try:
            return [bytes(part) for part in _parts.decode(body)]
        except (msgspec.DecodeError, UnicodeDecodeError):
            return (body,)

    def _mismatch(self, status: int, answer: Answer, body: bytes) -> str:
        if not answer.media:
            return "should be empty" if body not in {b"", b"null"} else ""
        checker = self._checkers.get(status)
        if checker is None:
            return ""
        try:
            checker.check(_json.decode(body), body)
        # Not a list: the check of the whole body reports that it is not of its type.
        except (msgspec.DecodeError, UnicodeDecodeError):
            return "is not JSON"
        except Mismatch as error:
            return f"is not of its type: `{error.path or '/'}` {error.reason}"
        return ""
