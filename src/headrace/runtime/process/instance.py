"""One forked child as the host sees it: its life, its channel, the runs it has in hand.

    STARTING -> IDLE <-> BUSY        the child is there to work
    IDLE -> HIBERNATING -> BUSY      stopped by signal, memory given back; revived by the next run
    any -> DRAINING -> GONE          asked to stop, or killed; GONE once it is reaped

Runs go in as frames and are answered in order. What the child does wrong costs the child its life
and gives the run an outcome that says so. With several runs in hand nobody knows whose fault a
death was: all of them are lost, and run again one by one. A run that was sent ahead of
another's end has to be claimed before it is begun, so of that one it is known. All calls on the loop.
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
"""How long after its death was ordered nobody may have reported it; then its zygote hangs."""
MAX_BEHIND_S = 0.05
"""How long a run that was sent ahead waits for the end of the one before it."""
GRACE_S = 0.1
"""How long after its channel closed a child may take to be reported dead before it is killed."""


class ChildEnds(NamedTuple):
    """The host's ends of a child's channel and of its two log pipes."""

    link: socket.socket
    out: int
    err: int


class Parent(Protocol):
    """The zygote that an instance was forked from; see `Zygote`."""

    @property
    def sends_hello(self) -> bool:
        """Whether its instances say hello before they take up runs."""
        ...

    @property
    def resident(self) -> int:
        """Bytes it had when it was ready to be forked."""
        ...

    @property
    def weight(self) -> int:
        """Bytes of its own, which its instances share until they write to them."""
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
        self.born = self.idle_since = host.clock.monotonic()
        self.started_after = 0.0
        self.invocations = 0
        self.in_hand = 0
        """How many runs it has not answered; kept beside `_runs`, since it is asked so often."""
        self.exit: Exited | None = None
        self.doom = KillReason.NONE
        self.tainted = False
        self._hurt = ""
        self._has_started = False
        self._refusal: Cause | None = None
        self._owner = owner
        self._memory = memory
        self._shared = parent.resident
        self._inherited = parent.weight
        self._line = InstanceChannel(ends.link, self._receive)
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
        self._doomed_since = 0.0
        self._suspending = 0
        self._paused = False

    def __repr__(self) -> str:
        return f"<instance {self.identity} of {self.function}: {self.state.value}>"

    @property
    def _deaf(self) -> bool:
        return not self._line.connected or self.doom is not KillReason.NONE

    def weight(self, offspring: Sequence[int] = ()) -> int:
        """Bytes of memory it has taken beyond what its zygote gave it; a fair guess, and quick.

        Args:
            offspring: The processes that come of it, which count as its own.
        """
        own = max(memory_of(self.pid) - self._inherited, 0)
        if not offspring:
            return own
        whole = own + sum(memory_of(each) for each in offspring)
        if self._memory is None or whole <= self._memory:
            return whole
        # What a fork shares with its parent was counted twice: look closer.
        shares = sum(share_of(each) for each in (self.pid, *offspring))
        whole = min(whole, shares) if shares else whole
        if whole > self._memory:
            self.kill(
                KillReason.MEMORY,
                f"it and its {len(offspring)} child processes used {in_mib(whole)}; its limit is "
                f"{in_mib(self._memory)} (`Resources(memory=...)`)",
            )
        return whole

    def become(self, state: InstanceState) -> None:
        """Move along an arrow of `TRANSITIONS`."""
        if state is not self.state:
            if state not in TRANSITIONS[self.state]:
                raise RuntimeError(f"{self!r} cannot become {state.value}")
            self.state = state
            if state is InstanceState.DRAINING:
                self._leaving_since = self._clock.monotonic()
                self._owner.leaving(self)

    # -- running ---------------------------------------------------------------------------------

    def hand(self, run: FleetRun) -> None:
        """Send it; the run is told what came of it."""
        nonce = self._host.entropy.integer(64)
        try:
            frame = encode(nonce, RunMessage(run.invocation))
        except (ValueError, OverflowError) as error:
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
        self.in_hand += 1
        self._line.send(frame, alone=self.in_hand == 1)
        if asleep:
            self._revive()

    @property
    def takes_another(self) -> bool:
        """Whether a run can be sent ahead, to be begun when the one in hand ends, and is well placed."""
        return (
            self.in_hand == 1
            and self.state is InstanceState.BUSY
            and not (self.tainted or self._skipping or self._deaf)
            and self._line.quiet
            and self._owner.takes_ahead(self)
        )

    def run_ahead(self, run: FleetRun) -> None:
        """As `hand`, where it `takes_another`; the run ends as `RECALLED` where it was never begun."""
        nonce = self._host.entropy.integer(64)
        try:
            frame = encode(nonce, RunMessage(run.invocation, ahead=True))
        except (ValueError, OverflowError) as error:
            self._loop.call_soon(run.ended, _too_large(error))
            return
        if self._claims is None:
            self._claims = self._lend(frame)
            if self._claims is None:
                self._loop.call_soon(run.ended, RECALLED)
                return
        else:
            # Before it is sent: it may be looked for at once.
            self._claims.lend()
            self._line.send(frame, alone=True)
        self._runs[nonce] = run
        run.holder, run.ahead = self, True
        self._behind = nonce
        self.in_hand += 1

    def _lend(self, frame: bytes) -> PrefetchClaims | None:
        """Send the first run ahead, with what such runs are claimed by; None where that cannot be."""
        try:
            claims = PrefetchClaims()
        except OSError:
            # The host has no descriptor left.
            return None
        claims.lend()
        if self._line.lend(claims.descriptor, frame):
            return claims
        claims.close()
        return None

    def _take_back(self, nonce: int) -> bool:
        """Have the run that was sent ahead last back, if it was not begun."""
        if self._claims is None or not self._claims.take_back():
            return False
        run = self._runs.pop(nonce)
        self.in_hand -= 1
        self._behind = 0
        self._skipping = nonce
        run.ended(RECALLED)
        return True

    def overrun(self, now: float) -> None:
        """Kill it when what it does takes too long."""
        if self.doom is not KillReason.NONE:
            return
        if self.state is InstanceState.STARTING:
            if now - self.born > START_TIMEOUT_S:
                self.kill(KillReason.START)
        elif self._runs:
            head = next(iter(self._runs.values()))
            if self._behind and now - self._head_since > MAX_BEHIND_S:
                # Whatever keeps this one busy is to hold up nobody else.
                self._take_back(self._behind)
            if now - self._head_since > head.invocation.timeout:
                self.kill(KillReason.TIMEOUT)
        elif (self._suspending and now - self.idle_since > SUSPEND_TIMEOUT_S) or (
            self.state is InstanceState.DRAINING and now - self._leaving_since > LEAVE_TIMEOUT_S
        ):
            self.kill(KillReason.TAKEN)

    def is_unreaped(self, now: float) -> bool:
        """Whether its death was ordered long ago and its zygote has not reported it."""
        dying = self.doom is not KillReason.NONE and self.state is not InstanceState.GONE
        return dying and now - self._doomed_since > REAP_TIMEOUT_S

    # -- its life --------------------------------------------------------------------------------

    def was_born(self, pidfd: int) -> None:
        """The zygote forked it; the descriptor is its own now."""
        self._process.hold(pidfd)
        if self.doom is not KillReason.NONE:
            self._process.send(signal.SIGKILL)
            return
        if not self._sends_hello:
            self._come_up()
        # Not before: what it says is heard once everybody can know which process says it.
        self._line.listen()

    def _come_up(self) -> None:
        """It takes up runs from now on."""
        if self.state is not InstanceState.STARTING:
            return
        now = self._clock.monotonic()
        self.started_after = now - self.born
        self._has_started = True
        self._head_since = self._head_began = now
        self.become(InstanceState.BUSY if self._runs else InstanceState.IDLE)
        self._owner.started(self)
        self._owner.freed(self)

    def hibernate(self) -> None:
        """Let it close what does not survive a pause, then stop it."""
        self.become(InstanceState.HIBERNATING)
        self.idle_since = self._clock.monotonic()
        self._suspending = self._host.entropy.integer(64)
        self._send(encode(self._suspending, Suspend()))

    def _revive(self) -> None:
        # After the run was sent: the child wakes once, with its work before it. It knows itself
        # that it was suspended, and runs the resume hooks first.
        self._suspending = 0
        if self._paused:
            self._paused = False
            self._process.send(signal.SIGCONT)

    def set_partitions(self, counts: Mapping[str, int]) -> None:
        """Tell it how many partitions other apps' streams have."""
        if self._line.connected:
            self._send(encode(0, Partitions(dict(counts))))

    def stop(self) -> None:
        """Ask it to run its stop hooks and exit; it has no run in hand."""
        if self.state in {InstanceState.DRAINING, InstanceState.GONE}:
            return
        if self._paused:
            self._paused = False
            self._process.send(signal.SIGCONT)
        self.become(InstanceState.DRAINING)
        self._send(encode(0, Stop()))

    def kill(self, doom: KillReason, reason: str = "") -> None:
        """Kill it now; outcomes follow when it is reaped."""
        if self.doom is KillReason.NONE:
            self.doom = doom
            self._hurt = self._hurt or reason
            self._doomed_since = self._clock.monotonic()
        if self.state is not InstanceState.GONE:
            self.become(InstanceState.DRAINING)
        self._process.send(signal.SIGKILL)

    @property
    def pid(self) -> int:
        """The process's number, 0 before it was born."""
        return self._process.pid

    @property
    def pidfd(self) -> int:
        """A descriptor of the process, -1 before it was born and after it was reaped."""
        return self._process.pidfd

    def exited(self, exit: Exited, *, kernel: str = "") -> None:
        """It is dead and reaped: give every run its outcome and let go of every descriptor.

        Args:
            exit: How it ended.
            kernel: What the kernel says of memory that ran out just now, if it did.
        """
        if self.state is InstanceState.GONE:
            return
        # The last words may still be in the socket: answers that were sent before the end count.
        self._receive()
        self.exit = exit
        self.become(InstanceState.GONE)
        self._line.disconnect()
        self._pipes.close()
        self._process.let_go()
        hurried = self._settle_ahead()
        runs, self._runs = list(self._runs.values()), {}
        death = Death(
            exit=exit,
            doom=self.doom,
            hurt=self._hurt,
            born=self.pid != 0,
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
            # Before its owner takes the next step, which may be to fork another one.
            self._owner.start_failed(self._blotted(whole.cause))
        self._owner.gone(self)
        for run in runs:
            outcome = verdict(
                death,
                usage,
                function=self.function,
                timeout=run.invocation.timeout,
                heard=run.heard,
            )
            match outcome:
                case NotStarted(cause=cause):
                    run.refused(not_started(self.function, self._blotted(cause)))
                case Lost(reason=reason):
                    run.lost(reason)
                case _:
                    run.ended(blotted(outcome, self._blot))
        if hurried is not None:
            # Begun after its end had been ordered, for what came before it.
            hurried.lost(self.doom.value)

    def _blotted(self, cause: Cause) -> Cause:
        """The cause without the values of secrets."""
        return msgspec.structs.replace(
            cause, message=self._blot(cause.message), traceback=self._blot(cause.traceback)
        )

    def _settle_ahead(self) -> FleetRun | None:
        """Take back the runs sent ahead that were never begun; the one that nobody can blame."""
        for nonce, run in reversed(list(self._runs.items())):
            if run.ahead:
                self._take_back(nonce)
        hurried = self._runs.pop(self._behind, None)
        if self._claims is not None:
            self._claims.close()
            self._claims = None
        return hurried

    # -- the channel -----------------------------------------------------------------------------

    def _send(self, frame: bytes) -> None:
        self._line.send(frame, alone=len(self._runs) <= 1)

    def _receive(self) -> None:
        more = self._line.connected
        while more:
            received = self._line.receive()
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
                elif (problem := self._hear(nonce, message, len(body))) is not None:
                    self._break(KillReason.PROTOCOL, problem)
                    return
                if self._deaf:
                    return
            # Not another frame before it has taken what it asked for.
            more = more and not self._line.is_full

    def _done(self, nonce: int, message: Done) -> None:
        run = self._runs.pop(nonce, None)
        if run is None:
            self._break(KillReason.PROTOCOL, "it answered a run that nobody gave it")
            return
        returned = blotted_return(message.returned, self._blot)
        self.in_hand -= 1
        self.invocations += run.invocation.batches
        self._owner.took(returned.usage.wall)
        if returned.error is not None and returned.error.kind == "MemoryError":
            self.tainted = True
        if self.doom is KillReason.NONE:
            self._behind = 0
        if self._runs:
            self._head_since = self._head_began = self._clock.monotonic()
        else:
            self.idle_since = self._clock.monotonic()
            if self.state is InstanceState.BUSY:
                self.state = InstanceState.IDLE
        self._owner.freed(self)
        # Last of all: whoever is told may hand over the next run at once.
        run.ended(returned)

    def _hear(self, nonce: int, message: FromChild, size: int) -> str | None:
        match message:
            case Hello():
                if self.state is not InstanceState.STARTING:
                    return "it said hello twice"
                self._refusal = message.refusal
                if message.refusal is None:
                    self._come_up()
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
                    run.heard = run.heard or row.reaches_caller
                    token = run.invocation.token
                self._line.owe(size)
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
        """Its first run may take so long from now; never less than it had, nor without end."""
        head, run = next(iter(self._runs.items()))
        if nonce == head and 0 < seconds <= MAX_VISIBILITY:
            ends = min(self._clock.monotonic() + seconds, self._head_began + MAX_EXTENDED_S)
            self._head_since = max(self._head_since, ends - run.invocation.timeout)

    async def _answer(self, nonce: int, token: int, asked: Ask, size: int) -> None:
        try:
            # Whose answers are large come one after the other: the last must be taken before.
            if self._host.services.row(asked.question).is_large:
                async with self._large:
                    await self._line.room()
                    await self._tell_answer(nonce, token, asked)
            else:
                await self._tell_answer(nonce, token, asked)
        finally:
            self._line.settle(size)

    async def _tell_answer(self, nonce: int, token: int, asked: Ask) -> None:
        if self._line.connected:
            frame = await self._host.services.frame(Asker(self.spec, token), nonce, asked)
            if self._line.connected:
                self._send(frame)

    def _break(self, doom: KillReason, reason: str) -> None:
        self._hurt = reason
        self._line.mute()
        self.kill(doom)

    def _channel_closed(self) -> None:
        # Death closes the channel a moment before it is reported; a child that lives on without
        # a channel is of no use.
        self._line.mute()
        if self.state not in {InstanceState.DRAINING, InstanceState.GONE}:
            self.become(InstanceState.DRAINING)
        self._loop.call_later(GRACE_S, self._closed_for_good)

    def _closed_for_good(self) -> None:
        if self.exit is None and self.doom is KillReason.NONE:
            self.kill(KillReason.UNTOLD if self._process.is_dead else KillReason.CHANNEL)

    def cannot_be_born(self, reason: str) -> None:
        """The zygote could not fork it."""
        self._hurt = reason
        self.doom = KillReason.UNBORN
        self.exited(Exited(self.identity, 0, 0.0, 0))

    @property
    def running(self) -> str:
        """The key of the invocation it is at."""
        for run in self._runs.values():
            return run.invocation.key
        return ""


def not_started(function: str, cause: Cause) -> Unavailable:
    """What whoever waited for an instance is told, and `/readyz`."""
    return Unavailable(
        f"no instance of `{function}` starts: {cause.kind}: {cause.message}; it is tried again"
    )


def _too_large(error: Exception) -> Returned:
    return Returned(error=Cause("TooLarge", str(error), retryable=False))
