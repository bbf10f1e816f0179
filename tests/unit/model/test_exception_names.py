"""Exceptions in a policy: how they are given, and which failures they mean."""

from __future__ import annotations

import json
import socket
from typing import Any

import pytest

from headrace import Concurrency, Files, Retry, Scaling
from headrace.errors import Misuse
from headrace.model.exception_names import MAX_LEAVES, classes_of, means
from headrace.sources import KafkaTopic


class OwnError(ConnectionError):
    """An author's."""


@pytest.mark.parametrize(
    ("given", "held"),
    [
        (ValueError, ("ValueError",)),
        ((ValueError, "requests.Timeout"), ("ValueError", "requests.Timeout")),
        ([OwnError], (f"{__name__}.OwnError",)),
        (("TimedOut", "ConnectionError"), ("TimedOut", "ConnectionError")),
        ((), ()),
    ],
)
def test_exceptions_are_given_by_class_or_name(given: Any, held: tuple[str, ...]) -> None:
    assert Retry(retry_on=given).retry_on == held
    assert Retry(give_up_on=given).give_up_on == held


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("ValueError", r"is the text 'ValueError'; write the class, or a tuple"),
        (("ValuError",), r"called `ValuError` \(did you mean `ValueError`\?\)"),
        (("OwnError",), r'its dotted name such as "shop.OwnError"'),
        ((int,), r"<class 'int'> is not an exception"),
        ((5,), r"5 is not an exception"),
        (("a b",), r"'a b' is not an exception"),
    ],
)
def test_what_names_no_exception_is_refused(given: Any, said: str) -> None:
    with pytest.raises(Misuse, match=said):
        Retry(retry_on=given)


def test_a_base_class_means_its_subclasses_and_a_package_its_own_names() -> None:
    refused = classes_of(ConnectionRefusedError())
    assert means(["ConnectionError"], refused[0])
    assert means(["OSError"], refused[0])
    assert not means(["TimeoutError"], refused[0])
    assert means([f"{__name__}.OwnError"], classes_of(OwnError())[0])
    assert means(["json.JSONDecodeError"], classes_of(json.JSONDecodeError("", "", 0))[0])
    assert means(["socket.gaierror"], classes_of(socket.gaierror())[0])
    assert not means(["other.JSONDecodeError"], classes_of(json.JSONDecodeError("", "", 0))[0])


def test_of_a_group_each_member_counts_up_to_a_bound() -> None:
    inner = ExceptionGroup("inner", [KeyError("x")])
    found = classes_of(ExceptionGroup("outer", [ValueError(), inner]))
    assert [names[0] for names in found] == ["ValueError", "KeyError"]
    many = ExceptionGroup("many", [ValueError()] * 1_000)
    assert len(classes_of(many)) == MAX_LEAVES


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Retry(max_attempts=3), r"no argument `max_attempts` \(did you mean `attempts`"),  # type: ignore[call-arg]
        (lambda: Retry(only_on=()), r"`only_on` \(it is called `retry_on` now\)"),  # type: ignore[call-arg]
        (lambda: Retry(base=1), r"`base` \(it is called `initial_delay` now\)"),  # type: ignore[call-arg]
        (lambda: Retry(3), r"takes no argument by place"),  # type: ignore[call-arg]
        (lambda: Concurrency(per_key=1), r"\(it is called `key_limit` now\)"),  # type: ignore[call-arg]
        (lambda: Scaling(maximum=1), r"`Scaling` has no argument `maximum`.*it takes"),  # type: ignore[call-arg]
        (lambda: Files("in", pattern="*"), r"`Files` has no argument `pattern`"),  # type: ignore[call-arg]
        (lambda: KafkaTopic(), r"`KafkaTopic` needs `topic`; write `KafkaTopic\(topic=...\)`"),  # type: ignore[call-arg]
    ],
)
def test_a_wrong_argument_is_named_with_those_there_are(make: Any, said: str) -> None:
    with pytest.raises(Misuse, match=said):
        make()
