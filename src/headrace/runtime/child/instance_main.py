"""An instance's life, from the fork on: settle in, then take up one run after the other.

Called by the zygote in the forked child with everything imported; never returns. It answers every
run in order, keeps nothing the platform needs, and may be killed at any instruction.
"""

from __future__ import annotations

import gc
import os
import resource
import signal
import socket
import time
import traceback
from collections.abc import Coroutine
from typing import Any, NoReturn, TypeVar

import msgspec

from headrace.model.errors import Misuse
from headrace.model.event import Event
from headrace.model.invocation import Invocation
from headrace.model.outcome import Cause, Range, Returned, Scanned, Usage
from headrace.model.policy import MAX_TRACEBACK
from headrace.model.record import Chunk, encode_events
from headrace.model.reply import WireReply
from headrace.runtime.child.channel import Channel
from headrace.runtime.child.error_cause import told
from headrace.runtime.child.executor import Executor
from headrace.runtime.child.secrets import InstanceSecrets
from headrace.runtime.child.stdio import OutputCapture, Running, speak_up
from headrace.runtime.kernel import trim_heap
from headrace.runtime.protocol.frames import RECEIVE_BYTES
from headrace.runtime.protocol.messages import (
    EXIT_HOOK,
    EXIT_MEMORY,
    Acted,
    Done,
    Extend,
    Fetch,
    Fetched,
    Fork,
    Hello,
    InstanceFolder,
    Land,
    Part,
    Partitions,
    ReadSecret,
    ReadState,
    RunMessage,
    Scan,
    ScanState,
    SecretRead,
    Skipped,
    StateRows,
    Stop,
    Suspend,
    encode,
)
from headrace.sdk.app import App

T = TypeVar("T")

SHORT_RUN_S = 200e-6
MEASURE_EVERY = 64
REHEARSALS = 24
"""Rounds after which the interpreter leaves our code as it is."""


class HostLine:
    """What the executor may ask the host, over the channel."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._keys = InstanceSecrets(self._read_secret, time.monotonic)
        self.blot = self._keys.blot

    def secret(self, name: str, function: str) -> str:
        """The value of a secret; whose instance asks, the host knows by itself."""
        del function
        return self._keys.value(name)

    def _read_secret(self, name: str) -> str:
        answer = self._channel.ask(ReadSecret(name), of_run=False)
        return answer.value if isinstance(answer, SecretRead) else ""

    def read_state(
        self, function: str, store: str, keys: list[str]
    ) -> list[tuple[int, bytes | None]]:
        """Version and value of each key; whose instance asks, the host knows by itself."""
        del function
        answer = self._channel.ask(ReadState(keys, store))
        return answer.rows if isinstance(answer, StateRows) else []

    def scan_state(self, function: str, store: str, prefix: str, begin: str, limit: int) -> Scanned:
        """What there is under a prefix."""
        del function
        answer = self._channel.ask(ScanState(prefix, limit, begin, store))
        return answer.scanned if isinstance(answer, Scan) else Scanned([], Range("", None, 0, b""))

    def extend(self, invocation: Invocation, seconds: float) -> None:
        """Let the run at hand take `seconds` from now."""
        del invocation
        self._channel.tell(Extend(seconds))

    def fetch(self, invocation: Invocation, events: int) -> tuple[list[Chunk], int]:
        """The next events of the run at hand, and how many are left."""
        del invocation
        answer = self._channel.ask(Fetch(events))
        return (answer.chunks, answer.lag) if isinstance(answer, Fetched) else ([], 0)

    def land(self, invocation: Invocation, returned: Returned) -> None:
        """Commit what the run at hand fetched and did."""
        del invocation
        self._channel.ask(Land(returned))

    def send_part(self, invocation: Invocation, body: bytes, head: WireReply | None) -> None:
        """Send on a part of the answer of the run at hand; waits until there is room for another."""
        del invocation
        self._channel.ask(Part(body, head))


class InstanceLoop:
    """One instance. Made by its zygote, which thereby does most of the work for all of them.

    Args:
        app: The loaded app.
        version: The hash of the code.
        link: The channel's socket; in the zygote something else may still stand at its descriptor.
        running: Which invocation runs, for whoever speaks meanwhile.
        out: What the author's code has as stdout.
        err: And as stderr.
    """

    def __init__(
        self,
        app: App,
        version: str,
        link: socket.socket,
        running: Running,
        out: OutputCapture,
        err: OutputCapture,
    ) -> None:
        self._partitions: dict[str, int] = {}
        self._channel = Channel(link)
        host = HostLine(self._channel)
        running.blot = host.blot
        self._executor = Executor(app, host, partitions=self._partitions, version=version)
        self._running = running
        self._out = out
        self._err = err
        self._executor.entering = self._enter
        self._greets = bool(app.hooks["init"])
        self._function = ""
        self._asynchronous = False
        self._hooks_await = False
        self._runner: Any = None
        self._cpu_limit: float | None = None
        self._suspended = False
        self._runs = 0
        self._memory = 0
        self._used = 0.0

    def begin(self, order: Fork, cpu_limit: float | None) -> None:
        """Be the instance that was ordered, as far as that can be told in the zygote.

        Args:
            order: What was ordered.
            cpu_limit: Seconds of processor time that a run of it may take.
        """
        if self._partitions != order.partitions:
            self._partitions.clear()
            self._partitions.update(order.partitions)
        self._channel.spin = order.spin
        self._executor.instance = order.instance
        self._function = order.function
        self._asynchronous = self._executor.is_async(order.function)
        self._hooks_await = self._executor.hooks_await(order.function)
        self._cpu_limit = cpu_limit

    def awaits(self, function: str) -> bool:
        """Whether the handler is asynchronous."""
        return self._executor.is_async(function)

    def live(self) -> NoReturn:
        """Until the host says stop, or goes; in the instance."""
        self._channel.own()
        if self._greets:
            self._start()
        while True:
            self.step()

    def step(self) -> None:
        """Do the next thing the host says."""
        nonce, message = self._channel.take()
        if type(message) is RunMessage:
            if message.ahead and not self._channel.claim():
                self._channel.say(nonce, Skipped())
                return
            if self._suspended:
                self._resume()
            self._run(nonce, message.invocation)
            return
        match message:
            case Suspend():
                cause = self._hook(self._executor.suspend())
                self._suspended = True
                gc.collect()
                trim_heap()
                self._channel.say(nonce, Acted(cause))
            case Partitions():
                self._partitions.clear()
                self._partitions.update(message.counts)
            case Stop():
                self._hook(self._executor.stop())
                self._end(0)
            case _:
                return

    def _start(self) -> None:
        began = time.perf_counter()
        cause = self._hook(self._executor.start(self._function))
        self._channel.say(0, Hello(time.perf_counter() - began, cause))
        self._channel.flush()
        if cause is not None:
            self._end(EXIT_HOOK)

    def _resume(self) -> None:
        self._suspended = False
        if self._hook(self._executor.resume()) is not None:
            self._end(EXIT_HOOK)

    def _run(self, nonce: int, invocation: Invocation) -> None:
        self._channel.begin(nonce)
        self._running.key = invocation.key
        if self._cpu_limit is not None:
            signal.setitimer(signal.ITIMER_PROF, self._cpu_limit)
        wall = time.perf_counter()
        returned = self._drive(invocation)
        wall = time.perf_counter() - wall
        if self._cpu_limit is not None:
            signal.setitimer(signal.ITIMER_PROF, 0)
        self._out.finish()
        self._err.finish()
        self._running.key = ""
        cold = self._runs == 0
        cpu = wall
        if wall > SHORT_RUN_S or self._runs % MEASURE_EVERY == 0:
            # The kernel's figures cost more than a short run does; between runs we use nothing.
            usage = resource.getrusage(resource.RUSAGE_SELF)
            used = usage.ru_utime + usage.ru_stime
            cpu = min(cpu, used - self._used)
            self._used = used
            self._memory = usage.ru_maxrss * 1024
        self._runs += 1
        cost = Usage(wall, cpu, self._memory, cold, self._executor.instance)
        # `Returned` was made a moment ago, here, for this answer only.
        msgspec.structs.force_setattr(returned, "usage", cost)
        try:
            self._channel.say(nonce, Done(returned))
        except (ValueError, OverflowError) as error:
            cause = Cause("TooLarge", str(error), retryable=False)
            self._channel.say(nonce, Done(Returned(error=cause, usage=cost)))
        if wall > SHORT_RUN_S or not self._channel.crowded:
            self._channel.flush()

    def _enter(self, invocation: Invocation) -> None:
        """The next of a group of coalesced batches begins: what is said from now on is said by it."""
        self._out.finish()
        self._err.finish()
        self._running.key = invocation.key

    def _drive(self, invocation: Invocation) -> Returned:
        work: Coroutine[Any, Any, Returned] = self._executor.run(invocation)
        if self._asynchronous:
            return self._drive_on_loop(work)
        try:
            return finish(work)
        except Misuse as error:
            return Returned(error=Cause("Misuse", str(error)))

    def _drive_on_loop(self, work: Coroutine[Any, Any, Returned]) -> Returned:
        loop = self._loop_of_its_own()
        task = loop.create_task(work)
        while True:
            try:
                returned: Returned = loop.run_until_complete(task)
            except (SystemExit, KeyboardInterrupt):
                # A task of the handler's raised it, and asyncio throws that at us too; whoever waits
                # for the task is told, and the run goes on.
                if task.done():
                    raise
                continue
            return returned

    def _loop_of_its_own(self) -> Any:
        if self._runner is None:
            # 50 ms that only apps with asynchronous handlers pay, in their zygote.
            import asyncio

            self._runner = asyncio.Runner()
        return self._runner.get_loop()

    def _hook(self, work: Coroutine[Any, Any, None]) -> Cause | None:
        try:
            if self._hooks_await:
                self._loop_of_its_own().run_until_complete(work)
            else:
                finish(work)
        except MemoryError:
            self._end(EXIT_MEMORY)
        except BaseException as error:  # noqa: BLE001 - the author's hooks may raise anything
            trace = "".join(traceback.format_exception(error))[-MAX_TRACEBACK:]
            return Cause(type(error).__name__, told(error)[:MAX_TRACEBACK], trace)
        return None

    def _end(self, code: int) -> NoReturn:
        self._channel.leave_if_forked()
        self._channel.flush()
        self._out.finish()
        self._err.finish()
        os._exit(code)


def prepare(app: App, version: str, link: socket.socket) -> InstanceLoop:
    """In the zygote, once the app is imported: all that instances need and have in common.

    A child pays for every page it touches, so objects that it would make are made here.
    """
    running = Running()
    out, err = speak_up(running)
    life = InstanceLoop(app, version, link, running, out, err)
    if app.awaits or any(life.awaits(name) for name in app.functions):
        __import__("asyncio")
    return life


def finish(work: Coroutine[Any, Any, T]) -> T:
    """The result of plain code that is a coroutine in form only.

    Raises:
        Misuse: It waited on an event loop, and there is none.
    """
    try:
        work.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    work.close()
    raise Misuse("a plain `def` handler waited on an event loop it does not have")


def rehearse() -> None:
    """Live through an instance's first run, with a function and a host of our own.

    The interpreter rewrites code and fills its tables while code is new; what has run here often
    enough is read by children and not written to, and so stays shared.
    """
    app = App("rehearsal")
    app.function()(first_words)
    ours, theirs = socket.socketpair()
    running = Running()
    out, err = OutputCapture(1, "stdout", running), OutputCapture(2, "stderr", running)
    event = encode_events([Event(b"{}")])
    nowhere = InstanceFolder("", 0)
    order = Fork("", "rehearsal.first_words", nowhere, nowhere, 0, b"", {}, 0.0)
    run = RunMessage(
        Invocation(order.function, (Chunk("_call", 0, 0, 1, event, 0, 0, 1),), mode="call")
    )
    with ours, theirs:
        life = InstanceLoop(app, "", ours, running, out, err)
        for _ in range(REHEARSALS):
            life.begin(order, None)
            theirs.sendall(encode(1, run))
            life.step()
            theirs.recv(RECEIVE_BYTES)


def first_words(event: Any) -> int:
    """What runs in a rehearsal, in the place of an author's function."""
    return 1
