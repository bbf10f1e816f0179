"""Outcome of a run whose instance died: a result, or that it has to run again.

In: how the process ended, and why the host ended it, if it did. Out: the verdict. Pure. It blames
no run for what another did, and distinguishes out-of-memory from other ends where it can.
"""

from __future__ import annotations

import signal

import msgspec

from headrace.model.outcome import Cause, Crashed, Outcome, TimedOut, Usage
from headrace.runtime.protocol.messages import EXIT_HOOK, EXIT_MEMORY, EXIT_NOT_STARTED, Exited
from headrace.runtime.states import KillReason, Lost, NotStarted

START_TIMEOUT_S = 30.0
NEARLY = 0.85
"""The share of its memory in use at which a crash of the allocator's kind is put down to memory."""
_ALLOCATORS = (signal.SIGABRT, signal.SIGBUS, signal.SIGSEGV)


class Death(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known of an end.

    Attributes:
        exit: How the process ended.
        doom: Why the host ended it, if it did.
        hurt: What it did wrong, or what could not be done for it; "" where nothing is known.
        born: Whether it ever was a process.
        started: Whether it had come up, its start hooks done.
        alone: Whether one run only was at hand.
        refusal: What its start hooks failed with.
        limit: Bytes of memory its resources allow, None without a limit.
        own: Bytes it had beyond its zygote's when most.
        kernel: What the kernel says of memory that ran out just now, "" where nothing did.
    """

    exit: Exited
    doom: KillReason
    hurt: str
    born: bool
    started: bool
    alone: bool
    refusal: Cause | None
    limit: int | None
    own: int
    kernel: str


def verdict(
    death: Death, usage: Usage, *, function: str, timeout: float, heard: bool = False
) -> Outcome | Lost | NotStarted:
    """Return the outcome of a run that was not answered.

    A run whose caller has received a part of the answer is not run again, whatever the cause: the caller
    would receive that part twice.
    """
    found = _found(death, usage, function, timeout)
    if heard and isinstance(found, Lost):
        message = f"{found.reason}; part of its answer was sent, so it is not run again"
        return Crashed(Cause("Crashed", message), usage, blameless=True)
    return found


def _found(
    death: Death, usage: Usage, function: str, timeout: float
) -> Outcome | Lost | NotStarted:
    match death.doom:
        case KillReason.TAKEN:
            return Crashed(Cause("Crashed", death.doom.value), usage, blameless=True)
        case KillReason.UNBORN | KillReason.ZYGOTE | KillReason.DRAINED:
            return Lost(death.hurt or death.doom.value)
        case KillReason.START if not death.born:
            return Lost("its zygote did not fork it")
        case _:
            pass
    if death.doom is KillReason.NONE and death.exit.status == EXIT_NOT_STARTED:
        return Lost("its process could not be set up; the reason stands in its log")
    if not death.started:
        return NotStarted(death.refusal or _cause(death))
    if not death.alone or (death.doom is KillReason.NONE and death.exit.status == EXIT_HOOK):
        return Lost(death.doom.value)
    if death.doom is KillReason.TIMEOUT:
        message = f"`{function}` overran its timeout of {timeout:g} s"
        return TimedOut(Cause("TimedOut", message), usage)
    return Crashed(_cause(death), usage)


def _cause(death: Death) -> Cause:
    status = death.exit.status
    match death.doom:
        case KillReason.PROTOCOL | KillReason.CHANNEL:
            return Cause("ProtocolError", death.hurt or death.doom.value)
        case KillReason.START:
            return Cause("TimedOut", f"its start hooks took over {START_TIMEOUT_S:g} s")
        case KillReason.UNTOLD:
            return Cause("Crashed", death.doom.value)
        case KillReason.MEMORY:
            return Cause("OutOfMemory", death.hurt or death.doom.value)
        case _:
            pass
    if status == EXIT_MEMORY:
        return Cause("OutOfMemory", f"it ran out of memory{_allowed(death.limit)}")
    if status == -signal.SIGKILL and death.kernel:
        return Cause("OutOfMemory", f"the kernel killed it for memory: {death.kernel}")
    if status < 0:
        name = signal_name(-status)
        if -status in _ALLOCATORS and death.limit and death.own >= NEARLY * death.limit:
            used = f"with {in_mib(death.own)} in use{_allowed(death.limit)}"
            return Cause("OutOfMemory", f"it died of {name} {used}")
        return Cause("Crashed", f"it died of {name}")
    during = "in the middle of an invocation" if death.started else "in its start hooks"
    return Cause("Crashed", f"it exited with code {status} {during}")


def _allowed(limit: int | None) -> str:
    return "" if limit is None else f"; its limit is {in_mib(limit)} (`Resources(memory=...)`)"


def in_mib(size: int) -> str:
    """Bytes for people."""
    return f"{size / (1 << 20):,.0f} MiB"


def signal_name(number: int) -> str:
    """Its name where it has one."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
