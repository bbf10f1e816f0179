"""Outcome of a run whose instance died: a result, or that it has to run again.

In: how the process exited, and why the host killed it, if it did. Out: the verdict. Pure. No run is blamed for what
another did, and out-of-memory is distinguished from other causes where possible.
"""

from __future__ import annotations

import signal

import msgspec

from headrace.model.outcome import Cause, Crashed, Outcome, TimedOut, Usage
from headrace.runtime.protocol.messages import EXIT_HOOK, EXIT_MEMORY, EXIT_NOT_STARTED, Exited
from headrace.runtime.states import KillReason, Lost, NotStarted

START_TIMEOUT_S = 30.0
NEARLY = 0.85
"""The share of its memory limit in use from which an allocator's crash counts as out of memory."""
_ALLOCATORS = (signal.SIGABRT, signal.SIGBUS, signal.SIGSEGV)


class Death(msgspec.Struct, frozen=True, kw_only=True):
    """Known facts about the end of an instance.

    Attributes:
        exit: How the process ended.
        kill_reason: Why the host killed it, if it did.
        detail: The error of the instance or of its start; "" if nothing is known.
        was_forked: Whether its process existed.
        started: Whether its start hooks had completed.
        alone: Whether it had exactly one run.
        refusal: The error of its start hooks.
        limit: Bytes of memory its resources allow, None without a limit.
        own: Its peak memory beyond its zygote's, in bytes.
        kernel: The kernel's recent kill for memory, "" if there was none.
    """

    exit: Exited
    kill_reason: KillReason
    detail: str
    was_forked: bool
    started: bool
    alone: bool
    refusal: Cause | None
    limit: int | None
    own: int
    kernel: str


def verdict(
    death: Death, usage: Usage, *, function: str, timeout: float, answer_started: bool = False
) -> Outcome | Lost | NotStarted:
    """Return the outcome of a run that was not answered.

    A run whose caller has received a part of the answer is not run again, whatever the cause: the
    caller would receive that part twice.
    """
    found = _found(death, usage, function, timeout)
    if answer_started and isinstance(found, Lost):
        message = f"{found.reason}; part of its answer was sent, so it is not run again"
        return Crashed(Cause("Crashed", message), usage, blameless=True)
    return found


def _found(
    death: Death, usage: Usage, function: str, timeout: float
) -> Outcome | Lost | NotStarted:
    match death.kill_reason:
        case KillReason.TAKEN:
            return Crashed(Cause("Crashed", death.kill_reason.value), usage, blameless=True)
        case KillReason.NOT_FORKED | KillReason.ZYGOTE | KillReason.DRAINED:
            return Lost(death.detail or death.kill_reason.value)
        case KillReason.START if not death.was_forked:
            return Lost("its zygote did not fork it")
        case _:
            pass
    if death.kill_reason is KillReason.NONE and death.exit.status == EXIT_NOT_STARTED:
        return Lost("its process could not be set up; see the reason in its log")
    if not death.started:
        return NotStarted(death.refusal or _cause(death))
    # With several runs nobody knows which one caused the end. A failed resume hook is not the
    # run's fault either.
    if not death.alone or (death.kill_reason is KillReason.NONE and death.exit.status == EXIT_HOOK):
        return Lost(death.kill_reason.value)
    if death.kill_reason is KillReason.TIMEOUT:
        message = f"`{function}` overran its timeout of {timeout:g} s"
        return TimedOut(Cause("TimedOut", message), usage)
    return Crashed(_cause(death), usage)


def _cause(death: Death) -> Cause:
    status = death.exit.status
    match death.kill_reason:
        case KillReason.PROTOCOL | KillReason.CHANNEL:
            return Cause("ProtocolError", death.detail or death.kill_reason.value)
        case KillReason.START:
            return Cause("TimedOut", f"its start hooks took over {START_TIMEOUT_S:g} s")
        case KillReason.UNREPORTED:
            return Cause("Crashed", death.kill_reason.value)
        case KillReason.MEMORY:
            return Cause("OutOfMemory", death.detail or death.kill_reason.value)
        case _:
            pass
    if status == EXIT_MEMORY:
        return Cause("OutOfMemory", f"it ran out of memory{_allowed(death.limit)}")
    if status == -signal.SIGKILL and death.kernel:
        return Cause("OutOfMemory", f"the kernel killed it for memory: {death.kernel}")
    if status < 0:
        name = signal_name(-status)
        # A C library whose allocation fails often crashes instead of raising MemoryError; its
        # signal alone would blame the code.
        if -status in _ALLOCATORS and death.limit and death.own >= NEARLY * death.limit:
            used = f"with {in_mib(death.own)} in use{_allowed(death.limit)}"
            return Cause("OutOfMemory", f"it died of {name} {used}")
        return Cause("Crashed", f"it died of {name}")
    during = "in the middle of an invocation" if death.started else "in its start hooks"
    return Cause("Crashed", f"it exited with code {status} {during}")


def _allowed(limit: int | None) -> str:
    return "" if limit is None else f"; its limit is {in_mib(limit)} (`Resources(memory=...)`)"


def in_mib(size: int) -> str:
    """Return bytes as text in MiB."""
    return f"{size / (1 << 20):,.0f} MiB"


def signal_name(number: int) -> str:
    """Return the signal's name, or its number if it has none."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
