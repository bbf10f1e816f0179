"""Which secrets an instance is answered with, and how long it keeps them."""

from __future__ import annotations

from typing import Any

import pytest

from headrace.model.errors import Misuse
from headrace.model.function import FunctionSpec
from headrace.runtime.child.secrets import FRESH_S, InstanceSecrets
from headrace.runtime.host_services import Asker, HostServices, secret_questions
from headrace.runtime.protocol.frames import Frames
from headrace.runtime.protocol.messages import (
    Answered,
    Ask,
    Denied,
    ReadSecret,
    SecretRead,
    to_child,
)

SPEC = FunctionSpec(name="shop.charge", app="shop", secrets=("STRIPE", "GONE"))


def value_of(name: str) -> str:
    """All secrets are kept but one."""
    if name == "GONE":
        raise Misuse("the secret `GONE` is not set")
    return f"value of {name}"


KEEPER = HostServices(secret_questions(value_of))


async def asked(name: str, services: HostServices = KEEPER) -> Any:
    frame = await services.frame(Asker(SPEC), 0, Ask(1, ReadSecret(name)))
    frames = Frames().feed(frame)
    assert isinstance(frames, list)
    answered = to_child(frames[0][1])
    assert isinstance(answered, Answered)
    return answered.answer


async def test_a_declared_secret_is_answered() -> None:
    assert await asked("STRIPE") == SecretRead("value of STRIPE")


async def test_a_secret_that_is_not_declared_is_refused() -> None:
    denied = await asked("STRIPES")
    assert isinstance(denied, Denied)
    assert (denied.kind, denied.final) == ("Refused", True)
    assert "did you mean `STRIPE`" in denied.message


async def test_a_secret_that_cannot_be_had_is_told() -> None:
    assert await asked("GONE") == Denied("Misuse", "the secret `GONE` is not set")
    assert await asked("STRIPE", HostServices()) == Denied(
        "Misuse", "this host does not answer `ReadSecret`"
    )


def test_an_answer_does_not_show_its_value() -> None:
    assert "hidden" not in repr(Answered(1, SecretRead("hidden")))


def test_an_instance_asks_again_after_a_moment_and_blots_out_old_and_new() -> None:
    now, values, questions = 0.0, ["first", "second"], []

    def ask(name: str) -> str:
        questions.append(name)
        return values[len(questions) - 1]

    keys = InstanceSecrets(ask, lambda: now)
    assert [keys.value("KEY"), keys.value("KEY")] == ["first", "first"]
    now = FRESH_S
    assert keys.value("KEY") == "second"
    assert questions == ["KEY", "KEY"]
    assert keys.blot("first second") == "[secret KEY] [secret KEY]"


def test_a_secret_that_is_refused_is_not_kept() -> None:
    def ask(name: str) -> str:
        raise Misuse(name)

    keys = InstanceSecrets(ask, lambda: 0.0)
    with pytest.raises(Misuse):
        keys.value("KEY")
    assert keys.blot("KEY") == "KEY"
