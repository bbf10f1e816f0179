"""An instance's loop: receives runs, executes them in order, and sends the results.

Called by the zygote in the forked child with everything imported; never returns. It keeps no state
that the platform needs, and may be killed at any instruction.
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
from headrace.model.invocation import CallInvocation, Invocation
from headrace.model.outcome import Cause, Range, Returned, Scanned, Usage
from headrace.model.policy import MAX_TRACEBACK
from headrace.model.record import Chunk, encode_events
from headrace.model.reply import WireReply
from headrace.runtime.child.channel import Channel
from headrace.runtime.child.error_cause import describe
from headrace.runtime.child.executor import Executor
from headrace.runtime.child.secrets import InstanceSecrets
from headrace.runtime.child.stdio import OutputCapture, Running, capture_output
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
"""Rounds after which the interpreter no longer specialises our code."""


class HostClient:
    """Questions of the executor to the host, over the channel."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._keys = InstanceSecrets(self._read_secret, time.monotonic)
        self.blot = self._keys.blot

    def secret(self, name: str, function: str) -> str:
        """Return the value of a secret; the host knows the function of each instance."""
        del function
        return self._keys.value(name)

    def _read_secret(self, name: str) -> str:
        answer = self._channel.ask(ReadSecret(name), of_run=False)
        return answer.value if isinstance(answer, SecretRead) else ""

    def read_state(
        self, function: str, store: str, keys: list[str]
    ) -> list[tuple[int, bytes | None]]:
        """Return version and value of each key; the host knows the function of each instance."""
        del function
        answer = self._channel.ask(ReadState(keys, store))
        return answer.rows if isinstance(answer, StateRows) else []

    def scan_state(self, function: str, store: str, prefix: str, begin: str, limit: int) -> Scanned:
        """Return the keys under a prefix."""
        del function
        answer = self._channel.ask(ScanState(prefix, limit, begin, store))
        return answer.scanned if isinstance(answer, Scan) else Scanned([], Range("", None, 0, b""))

    def extend(self, invocation: Invocation, seconds: float) -> None:
        """Let the current run take `seconds` from now."""
        del invocation
        self._channel.send_now(Extend(seconds))

    def fetch(self, invocation: Invocation, events: int) -> tuple[list[Chunk], int]:
        """Return the next events of the current run, and how many are left."""
        del invocation
        answer = self._channel.ask(Fetch(events))
        return (answer.chunks, answer.lag) if isinstance(answer, Fetched) else ([], 0)

    def land(self, invocation: Invocation, returned: Returned) -> None:
        """Commit the fetched events and the effects of the current run."""
        del invocation
        self._channel.ask(Land(returned))

    def send_part(self, invocation: Invocation, body: bytes, head: WireReply | None) -> None:
        """Send a part of the answer of the current run; wait until another part is accepted."""
        del invocation
        # A question rather than a message: its answer is the backpressure of a slow client.
        self._channel.ask(Part(body, head))


class InstanceLoop:
    """One instance. Created by its zygote before the fork, once for all instances.

    Args:
        app: The loaded app.
        version: The hash of the code.
        link: The channel's socket; in the zygote its descriptor may still refer to another file.
        running: The current invocation, for log lines.
        out: The stdout of the author's code.
        err: The stderr of the author's code.
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
        host = HostClient(self._channel)
        running.blot = host.blot
        self._executor = Executor(app, host, partitions=self._partitions, version=version)
        self._running = running
        self._out = out
        self._err = err
        self._executor.on_enter = self._enter
        self._sends_hello = bool(app.hooks["init"])
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
        """Configure the requested instance, as far as possible in the zygote.

        Args:
            order: The request for the instance.
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
        """Return whether the handler is asynchronous."""
        return self._executor.is_async(function)

    def serve(self) -> NoReturn:
        """Handle messages until the host sends `Stop` or closes the channel; in the instance."""
        self._channel.bind_to_process()
        if self._sends_hello:
            self._start()
        while True:
            self.step()

    def step(self) -> None:
        """Handle the next message of the host."""
        nonce, message = self._channel.take()
        if type(message) is RunMessage:
            # The host took this run back and may have given it to another instance.
            if message.ahead and not self._channel.claim():
                self._channel.send(nonce, Skipped())
                return
            if self._suspended:
                self._resume()
            self._run(nonce, message.invocation)
            return
        match message:
            case Suspend():
                cause = self._hook(self._executor.suspend())
                self._suspended = True
                # The process is stopped next and keeps its memory meanwhile: give back what is
                # free.
                gc.collect()
                trim_heap()
                self._channel.send(nonce, Acted(cause))
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
        self._channel.send(0, Hello(time.perf_counter() - began, cause))
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
            # ITIMER_PROF counts the processor time of all threads and ends the process by SIGPROF.
            # RLIMIT_CPU would count over all runs of the instance.
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
            # `getrusage` costs more than a short run. Between runs no time is used, so the
            # difference to the last measurement is an upper bound.
            usage = resource.getrusage(resource.RUSAGE_SELF)
            used = usage.ru_utime + usage.ru_stime
            cpu = min(cpu, used - self._used)
            self._used = used
            self._memory = usage.ru_maxrss * 1024
        self._runs += 1
        cost = Usage(wall, cpu, self._memory, cold, self._executor.instance)
        # Mutating the frozen value is safe: it was created for this message only, and a copy would
        # cost more.
        msgspec.structs.force_setattr(returned, "usage", cost)
        try:
            self._channel.send(nonce, Done(returned))
        # The result does not fit a frame, or holds an integer that msgpack cannot encode: an error
        # of the handler, not of the channel.
        except (ValueError, OverflowError) as error:
            cause = Cause("TooLarge", str(error), retryable=False)
            self._channel.send(nonce, Done(Returned(error=cause, usage=cost)))
        if wall > SHORT_RUN_S or not self._channel.has_pending:
            self._channel.flush()

    def _enter(self, invocation: Invocation) -> None:
        """Attribute output to the next batch of a group of coalesced batches."""
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
        loop = self._event_loop()
        task = loop.create_task(work)
        while True:
            try:
                returned: Returned = loop.run_until_complete(task)
            except (SystemExit, KeyboardInterrupt):
                # A task of the handler raised it. asyncio also raises it out of
                # `run_until_complete` and stops the loop, although the code that awaits the task
                # handles it: so continue.
                if task.done():
                    raise
                continue
            return returned

    def _event_loop(self) -> Any:
        if self._runner is None:
            # The import takes 50 ms; only apps with asynchronous handlers pay for it, in their
            # zygote.
            import asyncio

            self._runner = asyncio.Runner()
        return self._runner.get_loop()

    def _hook(self, work: Coroutine[Any, Any, None]) -> Cause | None:
        try:
            if self._hooks_await:
                self._event_loop().run_until_complete(work)
            else:
                finish(work)
        except MemoryError:
            # No message could be built reliably now; the exit code says it.
            self._end(EXIT_MEMORY)
        except BaseException as error:  # noqa: BLE001 - the author's hooks may raise anything
            trace = "".join(traceback.format_exception(error))[-MAX_TRACEBACK:]
            return Cause(type(error).__name__, describe(error)[:MAX_TRACEBACK], trace)
        return None

    def _end(self, code: int) -> NoReturn:
        self._channel.leave_if_forked()
        self._channel.flush()
        self._out.finish()
        self._err.finish()
        os._exit(code)


def prepare(app: App, version: str, link: socket.socket) -> InstanceLoop:
    """Prepare in the zygote, after the import, the objects that all instances need.

    A child pays for every page it writes to, so objects that it would create are created here.
    """
    running = Running()
    out, err = capture_output(running)
    loop = InstanceLoop(app, version, link, running, out, err)
    if app.awaits or any(loop.awaits(name) for name in app.functions):
        __import__("asyncio")
    return loop


def finish(work: Coroutine[Any, Any, T]) -> T:
    """Return the result of a coroutine that never suspends.

    Raises:
        Misuse: It waited on an event loop, and there is none.
    """
    try:
        work.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    # Otherwise the interpreter reports a coroutine that was never finished, in place of this
    # error.
    work.close()
    raise Misuse("a plain `def` handler waited on an event loop it does not have")


def rehearse() -> None:
    """Execute runs with a sample function, so that instances share more memory.

    The interpreter specialises code and fills its caches while code is new. Code that has run often
    enough here is only read by children, so its pages stay shared.
    """
    app = App("rehearsal")
    app.function()(sample_handler)
    ours, theirs = socket.socketpair()
    running = Running()
    out, err = OutputCapture(1, "stdout", running), OutputCapture(2, "stderr", running)
    event = encode_events([Event(b"{}")])
    nowhere = InstanceFolder("", 0)
    order = Fork("", "rehearsal.sample_handler", nowhere, nowhere, 0, b"", {}, 0.0)
    run = RunMessage(CallInvocation(order.function, event=event))
    with ours, theirs:
        loop = InstanceLoop(app, "", ours, running, out, err)
        for _ in range(REHEARSALS):
            loop.begin(order, None)
            theirs.sendall(encode(1, run))
            loop.step()
            theirs.recv(RECEIVE_BYTES)


def sample_handler(event: Any) -> int:
    """Return a constant: the handler of a rehearsal."""
    return 1
