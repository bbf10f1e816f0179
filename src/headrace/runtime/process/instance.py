"""One forked child as the host sees it: its states, its channel, its runs in flight.

    STARTING -> IDLE <-> BUSY        the child accepts runs
    IDLE -> HIBERNATING -> BUSY      stopped by signal, memory given back; revived by the next run
    any -> DRAINING -> GONE          stopping or killed; GONE once it is reaped

Runs are sent as frames and answered in order. A protocol error kills the child and gives the run an
outcome that says so. With several runs in flight the run that caused a death is unknown: all of
them are lost, and run again one by one. A run that was sent ahead must be claimed before it starts,
so it is known whether it had started. All calls are made on the loop.
"""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import msgspec

from headrace.model.errors import Unavailable
from headrace.model.function import FunctionSpec
from headrace.model.outcome import Cause, Returned, Usage
from headrace.model.policy import MAX_EXTENDED_S, MAX_VISIBILITY
from headrace.model.redaction import blotted, blotted_return
from headrace.runtime.base import RECALLED
from headrace.runtime.fleet_run import FleetRun
from headrace.runtime.host_services import Asker
from headrace.runtime.prefetch import PrefetchClaims
from headrace.runtime.process.channel import InstanceChannel, LogPipes
from headrace.runtime.process.fleet_host import FleetHost
from headrace.runtime.process.memory_use import memory_of, share_of
from headrace.runtime.process.postmortem import START_TIMEOUT_S, Death, in_mib, verdict
from headrace.runtime.process.process_handle import Process
from headrace.runtime.protocol.frames import ProtocolError
from headrace.runtime.protocol.messages import (
    Acted,
    Ask,
    Done,
    Exited,
    Extend,
    FromChild,
    Hello,
    Partitions,
    RunMessage,
    Skipped,
    Stop,
    Suspend,
    encode,
    from_child,
)
from headrace.runtime.states import (
    TRANSITIONS,
    InstanceState,
    KillReason,
    Lost,
    NotStarted,
    Owner,
)

SUSPEND_TIMEOUT_S = 5.0
LEAVE_TIMEOUT_S = 10.0
"""How long stop hooks may take."""
REAP_TIMEOUT_S = 5.0
"""How long after a kill the zygote may take to report the exit; after that it counts as hung."""
MAX_BEHIND_S = 0.05
"""How long a run that was sent ahead waits for the run before it."""
GRACE_S = 0.1
"""How long after its channel closed a child may take to be reported as exited before it is killed."""


class ChildEnds(NamedTuple):
    """The host's ends of a child's channel and of its two log pipes."""

    link: socket.socket
    out: int
    err: int


class Parent(Protocol):
    """The zygote that an instance was forked from; see `Zygote`."""

    @property
    def sends_hello(self) -> bool:
        """Return whether its instances send `Hello` before they accept runs."""
        ...

    @property
    def resident(self) -> int:
        """Return its resident bytes when it was ready for forks."""
        ...

    @property
    def weight(self) -> int:
        """Return its private bytes, which its instances share until they write to them."""
        ...


class Instance:
    """A forked child. Owned by its pool."""

    def __init__(
        self,
        identity: str,
        *,
        spec: FunctionSpec,
        owner: Owner[Instance],
        host: FleetHost,
        ends: ChildEnds,
        parent: Parent,
        scratch: Path,
        memory: int | None,
    ) -> None:
        self.identity = identity
        self.spec = spec
        self.function = spec.name
        self._blot = host.services.blot
        self.scratch = scratch
        self.state = InstanceState.STARTING
        self._process = Process()
        self.created_at = self.idle_since = host.clock.monotonic()
        self.started_after = 0.0
        self.invocations = 0
        self.in_flight = 0
        """How many runs it has not answered. A field of its own, since the pool reads it for every run."""
        self.exit: Exited | None = None
        self.kill_reason = KillReason.NONE
        self.tainted = False
        self._detail = ""
        self._has_started = False
        self._refusal: Cause | None = None
        self._owner = owner
        self._memory = memory
        self._shared = parent.resident
        self._inherited = parent.weight
        self._channel = InstanceChannel(ends.link, self._receive)
        self._pipes = LogPipes(
            {ends.out: "stdout", ends.err: "stderr"},
            function=spec.name,
            instance=identity,
            clock=host.clock,
            on_log=host.on_log,
            running=lambda: self.running,
            blot=self._blot,
        )
        self._host = host
        self._clock = host.clock
        self._sends_hello = parent.sends_hello
        self._loop = asyncio.get_running_loop()
        self._runs: dict[int, FleetRun] = {}
        self._claims: PrefetchClaims | None = None
        self._large = asyncio.Lock()
        self._behind = self._skipping = 0
        self._head_since = self._head_began = 0.0
        self._leaving_since = 0.0
        self._killed_since = 0.0
        self._suspending = 0
        self._paused = False

    def __repr__(self) -> str:
        return f"<instance {self.identity} of {self.function}: {self.state.value}>"

    @property
    def _ignores_channel(self) -> bool:
        return not self._channel.connected or self.kill_reason is not KillReason.NONE

    def weight(self, descendants: Sequence[int] = ()) -> int:
        """Return its memory in bytes beyond its zygote's: a fast estimate.

        Args:
            descendants: Its descendant processes, which count as its own.
        """
        own = max(memory_of(self.pid) - self._inherited, 0)
        if not descendants:
            return own
        whole = own + sum(memory_of(each) for each in descendants)
        if self._memory is None or whole <= self._memory:
            return whole
        # Pages that a fork shares with its parent were counted twice. The exact figure is slow, so
        # it is read only when the estimate exceeds the limit.
        shares = sum(share_of(each) for each in (self.pid, *descendants))
        whole = min(whole, shares) if shares else whole
        if whole > self._memory:
            self.kill(
                KillReason.MEMORY,
                f"it and its {len(descendants)} child processes used {in_mib(whole)}; its limit is "
                f"{in_mib(self._memory)} (`Resources(memory=...)`)",
            )
        return whole

    def become(self, state: InstanceState) -> None:
        """Change the state, as `TRANSITIONS` allows."""
        if state is not self.state:
            if state not in TRANSITIONS[self.state]:
                raise RuntimeError(f"{self!r} cannot become {state.value}")
            self.state = state
            if state is InstanceState.DRAINING:
                self._leaving_since = self._clock.monotonic()
                self._owner.leaving(self)

    # -- running ---------------------------------------------------------------------------------

    def run(self, run: FleetRun) -> None:
        """Send a run to the child; `run.ended` is called with its outcome."""
        nonce = self._host.entropy.integer(64)
        try:
            frame = encode(nonce, RunMessage(run.invocation))
        except (ValueError, OverflowError) as error:
            # Not at once: the caller has not returned from `submit` yet.
            self._loop.call_soon(run.ended, _too_large(error))
            self._owner.freed(self)
            return
        asleep = self.state is InstanceState.HIBERNATING
        if not self._runs:
            self._head_since = self._head_began = self._clock.monotonic()
            if self.state is not InstanceState.STARTING:
                self.become(InstanceState.BUSY)
        self._runs[nonce] = run
        run.holder = self
        self.in_flight += 1
        self._channel.send(frame, alone=self.in_flight == 1)
        # After the frame was sent, see `_revive`.
        if asleep:
            self._revive()

    @property
    def takes_another(self) -> bool:
        """Return whether a run can be sent ahead, to start when the current one ends, and should be."""
        return (
            self.in_flight == 1
            and self.state is InstanceState.BUSY
            and not (self.tainted or self._skipping or self._ignores_channel)
            and self._channel.is_idle
            and self._owner.takes_ahead(self)
        )

    def run_ahead(self, run: FleetRun) -> None:
        """Send a run ahead, if `takes_another`; the run ends as `RECALLED` if it was never started."""
        nonce = self._host.entropy.integer(64)
        try:
            frame = encode(nonce, RunMessage(run.invocation, ahead=True))
        except (ValueError, OverflowError) as error:
            self._loop.call_soon(run.ended, _too_large(error))
            return
        if self._claims is None:
            self._claims = self._send_first_ahead(frame)
            if self._claims is None:
                self._loop.call_soon(run.ended, RECALLED)
                return
        else:
            # Before the frame: the child may read the frame and claim the run immediately.
            self._claims.add()
            self._channel.send(frame, alone=True)
        self._runs[nonce] = run
        run.holder, run.ahead = self, True
        self._behind = nonce
        self.in_flight += 1

    def _send_first_ahead(self, frame: bytes) -> PrefetchClaims | None:
        """Send the first run ahead, with the eventfd that claims such runs; None if that fails."""
        try:
            claims = PrefetchClaims()
        except OSError:
            # The host has reached its limit of descriptors.
            return None
        claims.add()
        if self._channel.send_with_descriptor(claims.descriptor, frame):
            return claims
        claims.close()
        return None

    def _take_back(self, nonce: int) -> bool:
        """Take the last run that was sent ahead back, if it has not started."""
        if self._claims is None or not self._claims.take_back():
            return False
        run = self._runs.pop(nonce)
        self.in_flight -= 1
        self._behind = 0
        self._skipping = nonce
        run.ended(RECALLED)
        return True

    def overrun(self, now: float) -> None:
        """Kill the child if its start, its run or its end takes too long."""
        if self.kill_reason is not KillReason.NONE:
            return
        if self.state is InstanceState.STARTING:
            if now - self.created_at > START_TIMEOUT_S:
                self.kill(KillReason.START)
        elif self._runs:
            head = next(iter(self._runs.values()))
            if self._behind and now - self._head_since > MAX_BEHIND_S:
                # A slow run must not delay the one behind it: another instance may be idle.
                self._take_back(self._behind)
            if now - self._head_since > head.invocation.timeout:
                self.kill(KillReason.TIMEOUT)
        elif (self._suspending and now - self.idle_since > SUSPEND_TIMEOUT_S) or (
            self.state is InstanceState.DRAINING and now - self._leaving_since > LEAVE_TIMEOUT_S
        ):
            self.kill(KillReason.TAKEN)

    def is_unreaped(self, now: float) -> bool:
        """Return whether it was killed long ago and its zygote has not reported the exit."""
        dying = self.kill_reason is not KillReason.NONE and self.state is not InstanceState.GONE
        return dying and now - self._killed_since > REAP_TIMEOUT_S

    # -- start, pause and end --------------------------------------------------------------------------------

    def on_forked(self, pidfd: int) -> None:
        """Take over the pidfd, after the zygote forked the child."""
        self._process.hold(pidfd)
        if self.kill_reason is not KillReason.NONE:
            self._process.send(signal.SIGKILL)
            return
        if not self._sends_hello:
            self._mark_ready()
        # Not before: its messages are read only once its pid is known, for logs and memory.
        self._channel.listen()

    def _mark_ready(self) -> None:
        """Accept runs from now on."""
        if self.state is not InstanceState.STARTING:
            return
        now = self._clock.monotonic()
        self.started_after = now - self.created_at
        self._has_started = True
        self._head_since = self._head_began = now
        self.become(InstanceState.BUSY if self._runs else InstanceState.IDLE)
        self._owner.started(self)
        self._owner.freed(self)

    def hibernate(self) -> None:
        """Run its suspend hooks, then stop the process by signal."""
        self.become(InstanceState.HIBERNATING)
        self.idle_since = self._clock.monotonic()
        self._suspending = self._host.entropy.integer(64)
        self._send(encode(self._suspending, Suspend()))

    def _revive(self) -> None:
        # After the run was sent, so that the child wakes once and finds it. The child knows that
        # it was suspended, and runs the resume hooks first.
        self._suspending = 0
        if self._paused:
            self._paused = False
            self._process.send(signal.SIGCONT)

    def set_partitions(self, counts: Mapping[str, int]) -> None:
        """Send the partition counts of other apps' streams."""
        if self._channel.connected:
            self._send(encode(0, Partitions(dict(counts))))

    def stop(self) -> None:
        """Make it run its stop hooks and exit; only without a run in flight."""
        if self.state in {InstanceState.DRAINING, InstanceState.GONE}:
            return
        if self._paused:
            self._paused = False
            self._process.send(signal.SIGCONT)
        self.become(InstanceState.DRAINING)
        self._send(encode(0, Stop()))

    def kill(self, kill_reason: KillReason, reason: str = "") -> None:
        """Kill the process; outcomes follow when it is reaped."""
        if self.kill_reason is KillReason.NONE:
            self.kill_reason = kill_reason
            self._detail = self._detail or reason
            self._killed_since = self._clock.monotonic()
        if self.state is not InstanceState.GONE:
            self.become(InstanceState.DRAINING)
        self._process.send(signal.SIGKILL)

    @property
    def pid(self) -> int:
        """Return the process's pid, 0 before the fork."""
        return self._process.pid

    @property
    def pidfd(self) -> int:
        """Return the process's pidfd, -1 before the fork and after it was reaped."""
        return self._process.pidfd

    def exited(self, exit: Exited, *, kernel: str = "") -> None:
        """Finish after the process was reaped: end every run and close every descriptor.

        Args:
            exit: How it exited.
            kernel: The kernel's recent kill for memory, "" if there was none.
        """
        if self.state is InstanceState.GONE:
            return
        # Results that were sent before the exit may still be in the socket, and count.
        self._receive()
        self.exit = exit
        self.become(InstanceState.GONE)
        self._channel.disconnect()
        self._pipes.close()
        self._process.let_go()
        claimed_late = self._settle_ahead()
        runs, self._runs = list(self._runs.values()), {}
        death = Death(
            exit=exit,
            kill_reason=self.kill_reason,
            detail=self._detail,
            was_forked=self.pid != 0,
            started=self._has_started,
            alone=len(runs) == 1,
            refusal=self._refusal,
            limit=self._memory,
            own=max(exit.memory - self._shared, 0),
            kernel=kernel,
        )
        usage = Usage(
            self._clock.monotonic() - self._head_since,
            exit.cpu,
            exit.memory,
            self.invocations == 0,
            self.identity,
        )
        whole = verdict(death, usage, function=self.function, timeout=0.0)
        if isinstance(whole, NotStarted):
            # Before `gone`, after which the pool may fork another one and has to know the
            # back-off.
            self._owner.start_failed(self._blotted(whole.cause))
        self._owner.gone(self)
        for run in runs:
            outcome = verdict(
                death,
                usage,
                function=self.function,
                timeout=run.invocation.timeout,
                answer_started=run.answer_started,
            )
            match outcome:
                case NotStarted(cause=cause):
                    run.refused(not_started(self.function, self._blotted(cause)))
                case Lost(reason=reason):
                    run.lost(reason)
                case _:
                    run.ended(blotted(outcome, self._blot))
        if claimed_late is not None:
            # It was claimed after the kill, which was for the run before it: it is not to blame.
            claimed_late.lost(self.kill_reason.value)

    def _blotted(self, cause: Cause) -> Cause:
        """Return the cause without the values of secrets."""
        return msgspec.structs.replace(
            cause, message=self._blot(cause.message), traceback=self._blot(cause.traceback)
        )

    def _settle_ahead(self) -> FleetRun | None:
        """Take back the runs that were never started; return the one that was claimed after the kill."""
        for nonce, run in reversed(list(self._runs.items())):
            if run.ahead:
                self._take_back(nonce)
        claimed_late = self._runs.pop(self._behind, None)
        if self._claims is not None:
            self._claims.close()
            self._claims = None
        return claimed_late

    # -- the channel -----------------------------------------------------------------------------

    def _send(self, frame: bytes) -> None:
        self._channel.send(frame, alone=len(self._runs) <= 1)

    def _receive(self) -> None:
        more = self._channel.connected
        while more:
            received = self._channel.receive()
            if received is None:
                self._channel_closed()
                return
            if isinstance(received, ProtocolError):
                self._break(KillReason.PROTOCOL, received.reason)
                return
            frames, more = received
            for nonce, body in frames:
                message = from_child(body)
                if type(message) is Done:
                    self._done(nonce, message)
                elif isinstance(message, ProtocolError):
                    self._break(KillReason.PROTOCOL, message.reason)
                    return
                elif (problem := self._handle(nonce, message, len(body))) is not None:
                    self._break(KillReason.PROTOCOL, problem)
                    return
                if self._ignores_channel:
                    return
            # No further frame until the child has read its answers.
            more = more and not self._channel.is_full

    def _done(self, nonce: int, message: Done) -> None:
        run = self._runs.pop(nonce, None)
        if run is None:
            self._break(KillReason.PROTOCOL, "it answered a run that nobody gave it")
            return
        returned = blotted_return(message.returned, self._blot)
        self.in_flight -= 1
        self.invocations += run.invocation.batches
        self._owner.ran(returned.usage.wall)
        # It has reached its memory limit, and the next run would likely fail too: it is replaced
        # after this run.
        if returned.error is not None and returned.error.kind == "MemoryError":
            self.tainted = True
        if self.kill_reason is KillReason.NONE:
            self._behind = 0
        if self._runs:
            self._head_since = self._head_began = self._clock.monotonic()
        else:
            self.idle_since = self._clock.monotonic()
            if self.state is InstanceState.BUSY:
                self.state = InstanceState.IDLE
        self._owner.freed(self)
        # Last, as the waiter may submit the next run immediately.
        run.ended(returned)

    def _handle(self, nonce: int, message: FromChild, size: int) -> str | None:
        match message:
            case Hello():
                if self.state is not InstanceState.STARTING:
                    return "it said hello twice"
                self._refusal = message.refusal
                if message.refusal is None:
                    self._mark_ready()
            case Extend(seconds=seconds):
                if nonce not in self._runs:
                    return "it asked for time for a run that nobody gave it"
                self._extend(nonce, seconds)
            case Ask():
                row, token = self._host.services.row(message.question), 0
                if nonce or row.needs_run:
                    if nonce not in self._runs:
                        return "it asked on behalf of a run that nobody gave it"
                    run = self._runs[nonce]
                    run.answer_started = run.answer_started or row.reaches_caller
                    token = run.invocation.token
                self._channel.add_pending(size)
                answering = self._answer(nonce, token, message, size)
                self._host.tasks.start(answering, name=f"answer {self.identity}")
            case Acted():
                if nonce and nonce == self._suspending:
                    self._suspending = 0
                    self._paused = True
                    self._process.send(signal.SIGSTOP)
            case Skipped():
                if nonce != self._skipping:
                    return "it skipped a run that nobody took back"
                self._skipping = 0
            case Done():
                pass
        return None

    def _extend(self, nonce: int, seconds: float) -> None:
        """Extend the first run's timeout from now; never below its former end, and bounded."""
        head, run = next(iter(self._runs.items()))
        if nonce == head and 0 < seconds <= MAX_VISIBILITY:
            ends = min(self._clock.monotonic() + seconds, self._head_began + MAX_EXTENDED_S)
            self._head_since = max(self._head_since, ends - run.invocation.timeout)

    async def _answer(self, nonce: int, token: int, asked: Ask, size: int) -> None:
        try:
            # Large answers one after the other, each once the last was read: else a child that
            # asks and never reads fills the host's memory.
            if self._host.services.row(asked.question).is_large:
                async with self._large:
                    await self._channel.wait_writable()
                    await self._send_answer(nonce, token, asked)
            else:
                await self._send_answer(nonce, token, asked)
        finally:
            self._channel.remove_pending(size)

    async def _send_answer(self, nonce: int, token: int, asked: Ask) -> None:
        if self._channel.connected:
            frame = await self._host.services.frame(Asker(self.spec, token), nonce, asked)
            if self._channel.connected:
                self._send(frame)

    def _break(self, kill_reason: KillReason, reason: str) -> None:
        self._detail = reason
        self._channel.stop_listening()
        self.kill(kill_reason)

    def _channel_closed(self) -> None:
        # An exit closes the channel a moment before it is reported. A child that runs on without a
        # channel is killed after the grace time.
        self._channel.stop_listening()
        if self.state not in {InstanceState.DRAINING, InstanceState.GONE}:
            self.become(InstanceState.DRAINING)
        self._loop.call_later(GRACE_S, self._closed_for_good)

    def _closed_for_good(self) -> None:
        if self.exit is None and self.kill_reason is KillReason.NONE:
            self.kill(KillReason.UNREPORTED if self._process.is_dead else KillReason.CHANNEL)

    def on_fork_failed(self, reason: str) -> None:
        """Finish after the zygote could not fork the child."""
        self._detail = reason
        self.kill_reason = KillReason.NOT_FORKED
        self.exited(Exited(self.identity, 0, 0.0, 0))

    @property
    def running(self) -> str:
        """Return the key of the current invocation."""
        for run in self._runs.values():
            return run.invocation.key
        return ""


def not_started(function: str, cause: Cause) -> Unavailable:
    """Return the error for runs that wait for an instance, and for `/readyz`."""
    return Unavailable(
        f"no instance of `{function}` starts: {cause.kind}: {cause.message}; it is tried again"
    )


def _too_large(error: Exception) -> Returned:
    return Returned(error=Cause("TooLarge", str(error), retryable=False))
