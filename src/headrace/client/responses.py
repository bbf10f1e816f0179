"""Answers of a node, and the error of our family that a refusal means. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from headrace.model import errors

_FAMILY: dict[str, type[errors.HeadraceError]] = {
    kind.code: kind
    for kind in (
        errors.HeadraceError,
        errors.Misuse,
        errors.Unknown,
        errors.Invalid,
        errors.TooLarge,
        errors.Unavailable,
        errors.DiskFull,
        errors.Overloaded,
        errors.Fenced,
        errors.Conflict,
        errors.Refused,
        errors.Corrupt,
    )
}


class NodeResponse:
    """Response of a node: status, headers and body. Only successful ones reach the caller."""

    __slots__ = ("body", "headers", "status")

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    def json(self) -> Any:
        """The body as data.

        Raises:
            Unavailable: It is not JSON: whatever answered is not a node.
        """
        try:
            return json.loads(self.body)
        except ValueError as error:
            raise not_a_node("its answer is not JSON") from error


def not_a_node(why: str) -> errors.Unavailable:
    """The error of an address where something else answers."""
    return errors.Unavailable(f"what answered is not a Headrace node: {why}; check the address")


def error_of(answer: NodeResponse) -> errors.HeadraceError:
    """The error a refusal means, in the family the node speaks of."""
    try:
        problem = json.loads(answer.body)
        code, detail = str(problem["code"]), str(problem["detail"])
    except (ValueError, KeyError, TypeError):
        text = answer.body[:200].decode(errors="replace").strip()
        return errors.Unavailable(
            f"the node answered {answer.status} without saying why ({text or 'no text'}); "
            "check the address and the node's log"
        )
    kind = _FAMILY.get(code)
    if kind is None:
        kind = errors.Misuse if answer.status < 500 else errors.HeadraceError
    error = kind(detail)
    retry_after = next(
        (value for name, value in answer.headers.items() if name.lower() == "retry-after"), ""
    )
    if retry_after.isdigit():
        error.add_note(f"retry-after: {retry_after}")
    return error


def retry_after_of(error: errors.HeadraceError) -> float | None:
    """Seconds the node asked to wait before trying again; None where it did not."""
    for note in getattr(error, "__notes__", ()):
        name, _, seconds = note.partition(": ")
        if name == "retry-after":
            return float(seconds)
    return None


def unreachable(url: str, error: BaseException) -> errors.Unavailable:
    """The error of a node that does not answer at its address."""
    if isinstance(error, TimeoutError):
        return errors.Unavailable(
            f"the node at `{url}` did not answer in time; it is busy or stuck: try again, "
            "and look at its log"
        )
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return errors.Unavailable(
        f"no node answers at `{url}` ({reason}); start one with `headrace dev app.py`, or "
        "name its address with `--url` or `HEADRACE_URL`"
    )
