"""What is said of a death: whose fault it was, and whether memory had run out."""

from __future__ import annotations

import signal
from typing import Any

import msgspec
import pytest

from headrace.model.outcome import Cause, Crashed, TimedOut, Usage
from headrace.runtime.process.postmortem import Death, verdict
from headrace.runtime.protocol.messages import EXIT_HOOK, EXIT_MEMORY, EXIT_NOT_STARTED, Exited
from headrace.runtime.states import TRANSITIONS, InstanceState, KillReason, Lost, NotStarted

USAGE = Usage(1.0, 0.5, 0, True, "shop.price-1")
MIB = 1 << 20


def death(status: int = 0, **known: object) -> Death:
    plain = Death(
        exit=Exited("shop.price-1", status, 0.5, 80 * MIB),
        kill_reason=KillReason.NONE,
        detail="",
        was_forked=True,
        started=True,
        alone=True,
        refusal=None,
        limit=64 * MIB,
        own=0,
        kernel="",
    )
    return msgspec.structs.replace(plain, **known)


def cause_of(each: Death) -> Cause:
    said = verdict(each, USAGE, function="shop.price", timeout=3.0)
    assert isinstance(said, Crashed)
    return said.cause


@pytest.mark.parametrize("number", [signal.SIGABRT, signal.SIGBUS, signal.SIGSEGV])
def test_a_crash_of_the_allocators_kind_near_the_limit_is_put_down_to_memory(number: int) -> None:
    full = cause_of(death(-number, own=60 * MIB))
    lean = cause_of(death(-number, own=40 * MIB))
    free = cause_of(death(-number, own=60 * MIB, limit=None))
    assert (full.kind, lean.kind, free.kind) == ("OutOfMemory", "Crashed", "Crashed")
    assert "60 MiB in use" in full.message
    assert "64 MiB" in full.message


def test_a_kill_is_put_down_to_memory_only_where_the_kernel_says_so() -> None:
    told = cause_of(death(-9, kernel="its cgroup may use 512 MiB in all"))
    assert told.kind == "OutOfMemory"
    assert told.message.endswith("its cgroup may use 512 MiB in all")
    assert cause_of(death(-9)) == Cause("Crashed", "it died of SIGKILL")
    assert cause_of(death(-9, own=64 * MIB)).kind == "Crashed"
    # Another one's death at the same time is not a reason for an exit.
    assert cause_of(death(3, kernel="the machine had no more")).kind == "Crashed"


def test_a_memory_error_in_our_own_code_names_the_limit() -> None:
    assert "64 MiB" in cause_of(death(EXIT_MEMORY)).message
    assert cause_of(death(EXIT_MEMORY, limit=None)).message == "it ran out of memory"


def test_the_heaviest_of_a_fleet_is_told_why_it_had_to_go() -> None:
    said = cause_of(
        death(-9, kill_reason=KillReason.MEMORY, detail="functions used 9 MiB of the 8 MiB")
    )
    assert said == Cause("OutOfMemory", "functions used 9 MiB of the 8 MiB")


def test_with_several_runs_in_hand_none_is_blamed() -> None:
    for each in (
        death(-9, alone=False),
        death(EXIT_HOOK),
        death(-9, kill_reason=KillReason.ZYGOTE),
    ):
        assert isinstance(verdict(each, USAGE, function="shop.price", timeout=3.0), Lost)


def test_a_run_whose_process_could_not_be_set_up_is_not_blamed() -> None:
    said = verdict(death(EXIT_NOT_STARTED), USAGE, function="shop.price", timeout=3.0)
    assert isinstance(said, Lost)


def test_a_run_that_its_caller_has_heard_of_fails_and_is_not_lost() -> None:
    for each in (
        death(-9, alone=False),
        death(EXIT_HOOK),
        death(-9, kill_reason=KillReason.ZYGOTE),
    ):
        said = verdict(each, USAGE, function="shop.price", timeout=3.0, answer_started=True)
        assert isinstance(said, Crashed)
        assert said.blameless
        assert "part of its answer was sent" in said.cause.message
    # What is proven stays so.
    over = verdict(
        death(-9, kill_reason=KillReason.TIMEOUT),
        USAGE,
        function="shop.price",
        timeout=3.0,
        answer_started=True,
    )
    assert isinstance(over, TimedOut)


@pytest.mark.parametrize(
    ("known", "kind"),
    [
        (
            {"refusal": Cause("ConnectionError", "no database"), "status": EXIT_HOOK},
            "ConnectionError",
        ),
        ({"status": -signal.SIGSEGV}, "Crashed"),
        ({"status": EXIT_MEMORY}, "OutOfMemory"),
        ({"status": -9, "kill_reason": KillReason.START}, "TimedOut"),
    ],
)
def test_an_instance_that_ends_before_it_has_started_fails_no_run(
    known: dict[str, Any], kind: str
) -> None:
    status = known.pop("status")
    said = verdict(death(status, started=False, **known), USAGE, function="shop.price", timeout=3.0)
    assert isinstance(said, NotStarted)
    assert said.cause.kind == kind


def test_a_timeout_is_no_crash() -> None:
    said = verdict(
        death(-9, kill_reason=KillReason.TIMEOUT), USAGE, function="shop.price", timeout=3.0
    )
    assert isinstance(said, TimedOut)
    assert "3 s" in said.cause.message


def test_what_the_platform_took_is_nobodys_fault() -> None:
    said = verdict(
        death(-9, kill_reason=KillReason.TAKEN), USAGE, function="shop.price", timeout=3.0
    )
    assert isinstance(said, Crashed)
    assert said.blameless


def test_every_state_can_end_and_the_end_is_final() -> None:
    assert TRANSITIONS[InstanceState.GONE] == frozenset()
    assert all(
        InstanceState.GONE in to
        for state, to in TRANSITIONS.items()
        if state is not InstanceState.GONE
    )
