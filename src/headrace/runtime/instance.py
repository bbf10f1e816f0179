"""One forked child as the host sees it: its life, its channel, the runs it has in hand.

    STARTING -> IDLE <-> BUSY        the child is there to work
    IDLE -> HIBERNATING -> BUSY      stopped by signal, memory given back; revived by the next run
    any -> DRAINING -> GONE          asked to stop, or killed; GONE once it is reaped

Runs go in as frames and are answered in order. What the child does wrong costs the child its life
and gives the run an outcome that says so. With several runs in hand nobody knows whose fault a
death was: all of them come back as `Lost`, to be run again one by one. All calls on the loop.
"""

from __future__ import annotations

import asyncio
import enum
import os
import signal
import socket
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, Protocol

import msgspec

from headrace.model.errors import Misuse
from headrace.model.invocation import Invocation
from headrace.model.outcome import Cause, Crashed, Outcome, Returned, TimedOut, Usage
from headrace.model.policy import MAX_VISIBILITY
from headrace.runtime.base import ConsumerServices, HostServices
from headrace.runtime.logs import LogLine, LogReader
from headrace.runtime.wire import (
    EXIT_HOOK,
    EXIT_MEMORY,
    MAX_SCAN_ROWS,
    RECEIVE_BYTES,
    Acted,
    Denied,
    Done,
    Exited,
    Extend,
    Fetch,
    Fetched,
    Frames,
    FromChild,
    Hello,
    Land,
    Landed,
    Message,
    Partitions,
    ProtocolError,
    ReadState,
    Rows,
    Run,
    Scan,
    ScanState,
    Stop,
    Suspend,
    encode,
    from_child,
)
from headrace.world.clock import Clock
from headrace.world.entropy import Entropy

SOCKET_BYTES = 4 << 20
SO_SNDBUFFORCE, SO_RCVBUFFORCE = 32, 33
START_TIMEOUT_S = 30.0
SUSPEND_TIMEOUT_S = 5.0
LEAVE_TIMEOUT_S = 10.0
"""How long stop hooks may take."""
REAP_TIMEOUT_S = 5.0
"""How long after its death was ordered nobody may have reported it; then its zygote hangs."""
GRACE_S = 0.1
"""How long after its channel closed a child may take to be reported dead before it is killed."""
MAX_LOG_BYTES_PER_TURN = 1 << 18


class State(enum.Enum):
    """Where an instance is in its life."""

    STARTING = "starting"
    IDLE = "idle"
    BUSY = "busy"
    HIBERNATING = "hibernating"
    DRAINING = "draining"
    GONE = "gone"


TRANSITIONS: dict[State, frozenset[State]] = {
    State.STARTING: frozenset({State.IDLE, State.BUSY, State.DRAINING, State.GONE}),
    State.IDLE: frozenset({State.BUSY, State.HIBERNATING, State.DRAINING, State.GONE}),
    State.BUSY: frozenset({State.IDLE, State.DRAINING, State.GONE}),
    State.HIBERNATING: frozenset({State.BUSY, State.DRAINING, State.GONE}),
    State.DRAINING: frozenset({State.GONE}),
    State.GONE: frozenset(),
}


class Doom(enum.Enum):
    """Why the host killed it."""

    NONE = "it ended by itself"
    TIMEOUT = "an invocation overran its timeout"
    START = "its start hooks overran their time"
    PROTOCOL = "it broke the protocol"
    CHANNEL = "it closed its channel"
    TAKEN = "the platform took it away"
    ZYGOTE = "its zygote died"
    UNBORN = "it could not be forked"


class Lost(msgspec.Struct, frozen=True):
    """The run did not come back and nothing is proven against it: run it again, alone."""

    reason: str


class Owner(Protocol):
    """The pool, as its instances know it."""

    def freed(self, instance: Instance) -> None:
        """It can take another run."""
        ...

    def took(self, seconds: float) -> None:
        """A run took this long."""
        ...

    def started(self, instance: Instance) -> None:
        """It has come up."""
        ...

    def leaving(self, instance: Instance) -> None:
        """It takes no more runs."""
        ...

    def gone(self, instance: Instance) -> None:
        """It is dead and reaped."""
        ...


class InHand:
    """A run that was sent and not answered."""

    __slots__ = ("future", "invocation")

    def __init__(self, invocation: Invocation, future: asyncio.Future[Outcome | Lost]) -> None:
        self.invocation = invocation
        self.future = future


class Instance:
    """A forked child. Owned by its pool."""

    def __init__(
        self,
        identity: str,
        *,
        function: str,
        app: str,
        owner: Owner,
        link: socket.socket,
        out: int,
        err: int,
        services: HostServices,
        clock: Clock,
        entropy: Entropy,
        start: Callable[[Coroutine[Any, Any, None], str], object],
        on_log: Callable[[LogLine], None],
        greets: bool,
        scratch: Path,
    ) -> None:
        self.identity = identity
        self.function = function
        self.app = app
        self.scratch = scratch
        self.state = State.STARTING
        self.pid = 0
        self.born = self.idle_since = clock.monotonic()
        self.started_after = 0.0
        self.invocations = 0
        self.in_hand = 0
        """How many runs it has not answered; kept beside `_runs`, since it is asked so often."""
        self.exit: Exited | None = None
        self.doom = Doom.NONE
        self.tainted = False
        self._hurt = ""
        self._refusal: Cause | None = None
        self._owner = owner
        self._link = link
        self._pipes = {out: "stdout", err: "stderr"}
        self._readers = {
            pipe: LogReader(
                function=function, instance=identity, stream=name, clock=clock, on_log=on_log
            )
            for pipe, name in self._pipes.items()
        }
        self._services = services
        self._clock = clock
        self._entropy = entropy
        self._start = start
        self._greets = greets
        self._loop = asyncio.get_running_loop()
        self._frames = Frames()
        self._runs: dict[int, InHand] = {}
        self._outbox = bytearray()
        self._flushing = self._writing = False
        self._head_since = 0.0
        self._leaving_since = 0.0
        self._doomed_since = 0.0
        self._pidfd = -1
        self._suspending = 0
        self._paused = False
        self._connected = True
        widen(link)
        link.setblocking(False)
        for pipe in self._pipes:
            os.set_blocking(pipe, False)
            self._loop.add_reader(pipe, self._listen, pipe)

    def __repr__(self) -> str:
        return f"<instance {self.identity} of {self.function}: {self.state.value}>"

    @property
    def _deaf(self) -> bool:
        return not self._connected or self.doom is not Doom.NONE

    def become(self, state: State) -> None:
        """Move along an arrow of `TRANSITIONS`."""
        if state is not self.state:
            if state not in TRANSITIONS[self.state]:
                raise RuntimeError(f"{self!r} cannot become {state.value}")
            self.state = state
            if state is State.DRAINING:
                self._leaving_since = self._clock.monotonic()
                self._owner.leaving(self)

    # -- running ---------------------------------------------------------------------------------

    def run(self, invocation: Invocation) -> asyncio.Future[Outcome | Lost]:
        """Send it; the future tells what came of it. Cancelling the future stops nothing."""
        future: asyncio.Future[Outcome | Lost] = self._loop.create_future()
        nonce = self._entropy.integer(64)
        try:
            frame = encode(nonce, Run(invocation))
        except (ValueError, OverflowError) as error:
            future.set_result(Returned(error=Cause("TooLarge", str(error), retryable=False)))
            self._owner.freed(self)
            return future
        asleep = self.state is State.HIBERNATING
        if not self._runs:
            self._head_since = self._clock.monotonic()
            if self.state is not State.STARTING:
                self.become(State.BUSY)
        self._runs[nonce] = InHand(invocation, future)
        self.in_hand += 1
        self._send(frame)
        if asleep:
            self._revive()
        return future

    def overrun(self, now: float) -> None:
        """Kill it when what it does takes too long."""
        if self.doom is not Doom.NONE:
            return
        if self.state is State.STARTING:
            if now - self.born > START_TIMEOUT_S:
                self.kill(Doom.START)
        elif self._runs:
            head = next(iter(self._runs.values()))
            if now - self._head_since > head.invocation.timeout:
                self.kill(Doom.TIMEOUT)
        elif (self._suspending and now - self.idle_since > SUSPEND_TIMEOUT_S) or (
            self.state is State.DRAINING and now - self._leaving_since > LEAVE_TIMEOUT_S
        ):
            self.kill(Doom.TAKEN)

    def is_unreaped(self, now: float) -> bool:
        """Whether its death was ordered long ago and its zygote has not reported it."""
        dying = self.doom is not Doom.NONE and self.state is not State.GONE
        return dying and now - self._doomed_since > REAP_TIMEOUT_S

    # -- its life --------------------------------------------------------------------------------

    def was_born(self, pid: int, pidfd: int) -> None:
        """The zygote forked it."""
        self.pid = pid
        self._pidfd = pidfd
        if self.doom is not Doom.NONE:
            self._signal(signal.SIGKILL)
            return
        if not self._greets:
            self._come_up()
        # Not before: what it says is heard once everybody can know which process says it.
        if self._connected:
            self._loop.add_reader(self._link, self._receive)

    def _come_up(self) -> None:
        """It takes up runs from now on."""
        if self.state is not State.STARTING:
            return
        now = self._clock.monotonic()
        self.started_after = now - self.born
        self._head_since = now
        self.become(State.BUSY if self._runs else State.IDLE)
        self._owner.started(self)
        self._owner.freed(self)

    def hibernate(self) -> None:
        """Let it close what does not survive a pause, then stop it."""
        self.become(State.HIBERNATING)
        self.idle_since = self._clock.monotonic()
        self._suspending = self._entropy.integer(64)
        self._send(encode(self._suspending, Suspend()))

    def _revive(self) -> None:
        # After the run was sent: the child wakes once, with its work before it. It knows itself
        # that it was suspended, and runs the resume hooks first.
        self._suspending = 0
        if self._paused:
            self._paused = False
            self._signal(signal.SIGCONT)

    def set_partitions(self, counts: Mapping[str, int]) -> None:
        """Tell it how many partitions other apps' streams have."""
        if self._connected:
            self._send(encode(0, Partitions(dict(counts))))

    def stop(self) -> None:
        """Ask it to run its stop hooks and exit; it has no run in hand."""
        if self.state in {State.DRAINING, State.GONE}:
            return
        if self._paused:
            self._paused = False
            self._signal(signal.SIGCONT)
        self.become(State.DRAINING)
        self._send(encode(0, Stop()))

    def kill(self, doom: Doom) -> None:
        """Kill it now; outcomes follow when it is reaped."""
        if self.doom is Doom.NONE:
            self.doom = doom
            self._doomed_since = self._clock.monotonic()
        if self.state is not State.GONE:
            self.become(State.DRAINING)
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        if self._pidfd >= 0:
            try:
                signal.pidfd_send_signal(self._pidfd, number)
            except ProcessLookupError:
                return

    @property
    def pidfd(self) -> int:
        """A descriptor of the process, -1 before it was born and after it was reaped."""
        return self._pidfd

    def exited(self, exit: Exited) -> None:
        """It is dead and reaped: give every run its outcome and let go of every descriptor."""
        if self.state is State.GONE:
            return
        # The last words may still be in the socket: answers that were sent before the end count.
        self._receive()
        self.exit = exit
        self.become(State.GONE)
        self._disconnect()
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1
        runs, self._runs = list(self._runs.values()), {}
        self.in_hand = 0
        for run in runs:
            if not run.future.done():
                run.future.set_result(self._verdict(run.invocation, exit, alone=len(runs) == 1))
        self._owner.gone(self)

    def _verdict(self, invocation: Invocation, exit: Exited, *, alone: bool) -> Outcome | Lost:
        usage = Usage(
            self._clock.monotonic() - self._head_since, exit.cpu, exit.memory,
            self.invocations == 0, self.identity,
        )  # fmt: skip
        match self.doom:
            case Doom.TAKEN:
                return Crashed(Cause("Crashed", self.doom.value), usage, blameless=True)
            case Doom.UNBORN | Doom.ZYGOTE:
                return Lost(self._hurt or self.doom.value)
            case Doom.START if not self.pid:
                return Lost("its zygote did not fork it")
            case _:
                pass
        if self._refusal is not None:
            return Crashed(self._refusal, usage)
        if not alone or (self.doom is Doom.NONE and exit.status == EXIT_HOOK):
            return Lost(self.doom.value)
        if self.doom is Doom.TIMEOUT:
            message = f"`{self.function}` overran its timeout of {invocation.timeout:g} s"
            return TimedOut(Cause("TimedOut", message), usage)
        return Crashed(self._cause(exit), usage)

    def _cause(self, exit: Exited) -> Cause:
        match self.doom:
            case Doom.PROTOCOL | Doom.CHANNEL:
                return Cause("ProtocolError", self._hurt or self.doom.value)
            case Doom.START:
                return Cause("TimedOut", f"its start hooks took over {START_TIMEOUT_S:g} s")
            case _:
                pass
        if exit.status == EXIT_MEMORY:
            return Cause("OutOfMemory", "it ran out of the memory its resources allow")
        if exit.status < 0:
            return Cause("Crashed", f"it died of {_signal_name(-exit.status)}")
        return Cause("Crashed", f"it exited with code {exit.status} in the middle of an invocation")

    def _disconnect(self) -> None:
        if not self._connected:
            return
        self._connected = False
        self._loop.remove_reader(self._link)
        self._loop.remove_writer(self._link)
        self._link.close()
        self._outbox.clear()
        for pipe in list(self._pipes):
            self._listen(pipe)
            self._hang_up(pipe)

    # -- the channel -----------------------------------------------------------------------------

    def _send(self, frame: bytes) -> None:
        # Alone, a frame leaves at once; frames of one turn of the loop share a system call.
        if not self._outbox and not self._flushing and len(self._runs) <= 1:
            self._outbox += frame
            self._flush()
            return
        self._outbox += frame
        if not self._flushing and not self._writing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        if not self._connected or not self._outbox:
            return
        try:
            sent = self._link.send(self._outbox)
        except BlockingIOError:
            sent = 0
        except OSError:
            # It is dying; what comes of it is told by its exit.
            self._outbox.clear()
            return
        if sent == len(self._outbox):
            self._outbox.clear()
            if self._writing:
                self._writing = False
                self._loop.remove_writer(self._link)
            return
        del self._outbox[:sent]
        if not self._writing:
            self._writing = True
            self._loop.add_writer(self._link, self._flush)

    def _receive(self) -> None:
        if not self._connected:
            return
        while True:
            try:
                data = self._link.recv(RECEIVE_BYTES)
            except BlockingIOError:
                return
            except OSError:
                # It died with something of ours unread.
                data = b""
            if not data:
                self._channel_closed()
                return
            frames = self._frames.feed(data)
            if isinstance(frames, ProtocolError):
                self._break(Doom.PROTOCOL, frames.reason)
                return
            for nonce, body in frames:
                message = from_child(body)
                if type(message) is Done:
                    self._done(nonce, message)
                elif isinstance(message, ProtocolError):
                    self._break(Doom.PROTOCOL, message.reason)
                    return
                elif (problem := self._hear(nonce, message)) is not None:
                    self._break(Doom.PROTOCOL, problem)
                    return
                if self._deaf:
                    return
            if len(data) < RECEIVE_BYTES:
                return

    def _done(self, nonce: int, message: Done) -> None:
        run = self._runs.pop(nonce, None)
        if run is None:
            self._break(Doom.PROTOCOL, "it answered a run that nobody gave it")
            return
        returned = message.returned
        self.in_hand -= 1
        self.invocations += 1
        self._owner.took(returned.usage.wall)
        if returned.error is not None and returned.error.kind == "MemoryError":
            self.tainted = True
        if not run.future.done():
            run.future.set_result(returned)
        if self._runs:
            self._head_since = self._clock.monotonic()
        else:
            self.idle_since = self._clock.monotonic()
            if self.state is State.BUSY:
                self.state = State.IDLE
        self._owner.freed(self)

    def _hear(self, nonce: int, message: FromChild) -> str | None:
        match message:
            case Hello():
                if self.state is not State.STARTING:
                    return "it said hello twice"
                self._refusal = message.refusal
                if message.refusal is None:
                    self._come_up()
            case Extend(seconds=seconds):
                if nonce not in self._runs:
                    return "it asked for time for a run that nobody gave it"
                self._extend(nonce, seconds)
            case ReadState() | ScanState() | Fetch() | Land():
                if nonce not in self._runs:
                    return "it asked on behalf of a run that nobody gave it"
                token = self._runs[nonce].invocation.token
                self._start(self._answer(nonce, token, message), f"answer {self.identity}")
            case Acted():
                if nonce and nonce == self._suspending:
                    self._suspending = 0
                    self._paused = True
                    self._signal(signal.SIGSTOP)
            case Done():
                pass
        return None

    def _extend(self, nonce: int, seconds: float) -> None:
        """Its first run may take so long from now; never less than it had."""
        head, run = next(iter(self._runs.items()))
        if nonce == head and 0 < seconds <= MAX_VISIBILITY:
            began = self._clock.monotonic() + seconds - run.invocation.timeout
            self._head_since = max(self._head_since, began)

    async def _answer(
        self, nonce: int, token: int, question: ReadState | ScanState | Fetch | Land
    ) -> None:
        answer: Message
        try:
            match question:
                case ReadState(keys=keys):
                    answer = Rows(await self._services.read_state(self.app, keys))
                case ScanState(prefix=prefix):
                    limit = min(question.limit, MAX_SCAN_ROWS)
                    answer = Scan(await self._services.scan_state(self.app, prefix, limit=limit))
                case Fetch(events=events):
                    answer = Fetched(*await self._streams.fetch(token, events))
                case Land(returned=returned):
                    await self._streams.land(token, returned)
                    answer = Landed()
            frame = encode(nonce, answer)
        except Exception as error:  # noqa: BLE001 - whatever a keeper raises, the child must hear
            frame = encode(nonce, Denied(type(error).__name__, str(error)[:4096]))
        if self._connected:
            self._send(frame)

    @property
    def _streams(self) -> ConsumerServices:
        if not isinstance(self._services, ConsumerServices):
            raise Misuse("this host has no streams to consume")
        return self._services

    def _break(self, doom: Doom, reason: str) -> None:
        self._hurt = reason
        self._mute()
        self.kill(doom)

    def _mute(self) -> None:
        self._loop.remove_reader(self._link)

    def _channel_closed(self) -> None:
        # Death closes the channel a moment before it is reported; a child that lives on without
        # a channel is of no use.
        self._mute()
        if self.state not in {State.DRAINING, State.GONE}:
            self.become(State.DRAINING)
        self._loop.call_later(GRACE_S, self._closed_for_good)

    def _closed_for_good(self) -> None:
        if self.exit is None and self.doom is Doom.NONE:
            self._hurt = Doom.CHANNEL.value
            self.kill(Doom.CHANNEL)

    def cannot_be_born(self, reason: str) -> None:
        """The zygote could not fork it."""
        self._hurt = reason
        self.doom = Doom.UNBORN
        self.exited(Exited(self.identity, 0, 0.0, 0))

    # -- its log pipes ---------------------------------------------------------------------------

    @property
    def running(self) -> str:
        """The key of the invocation it is at."""
        for run in self._runs.values():
            return run.invocation.key
        return ""

    def _listen(self, pipe: int) -> None:
        taken = 0
        while pipe in self._pipes and taken < MAX_LOG_BYTES_PER_TURN:
            try:
                data = os.read(pipe, RECEIVE_BYTES)
            except BlockingIOError:
                return
            if not data:
                self._hang_up(pipe)
                return
            taken += len(data)
            self._readers[pipe].feed(data, running=self.running)
            if len(data) < RECEIVE_BYTES:
                return

    def _hang_up(self, pipe: int) -> None:
        if self._pipes.pop(pipe, None) is not None:
            self._readers[pipe].close(running=self.running)
            self._loop.remove_reader(pipe)
            os.close(pipe)


def widen(link: socket.socket) -> None:
    """Give a channel room for a whole batch, as far as the kernel lets us."""
    for forced, plain in (
        (SO_SNDBUFFORCE, socket.SO_SNDBUF),
        (SO_RCVBUFFORCE, socket.SO_RCVBUF),
    ):
        try:
            link.setsockopt(socket.SOL_SOCKET, forced, SOCKET_BYTES)
        except PermissionError:
            link.setsockopt(socket.SOL_SOCKET, plain, SOCKET_BYTES)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
