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
import sys
import time
import traceback
from collections.abc import Coroutine
from typing import Any, NoReturn

import msgspec

from headrace.model.invocation import Invocation
from headrace.model.outcome import Cause, Returned, Usage
from headrace.model.policy import MAX_TRACEBACK
from headrace.runtime import sandbox
from headrace.runtime.child.channel import Channel
from headrace.runtime.child.executor import Executor
from headrace.runtime.child.speech import Running, speak_up
from headrace.runtime.kernel import trim_heap
from headrace.runtime.wire import (
    EXIT_HOOK,
    EXIT_MEMORY,
    Acted,
    Done,
    Fork,
    Hello,
    Partitions,
    ReadState,
    Rows,
    Run,
    Scan,
    ScanState,
    Stop,
    Suspend,
    encode,
)
from headrace.sdk.app import App

SHORT_RUN_S = 200e-6
MEASURE_EVERY = 64


class HostLine:
    """What the executor may ask the host, over the channel."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def read_state(self, keys: list[str]) -> list[tuple[int, bytes | None]]:
        """Version and value of each key."""
        answer = self._channel.ask(ReadState(keys))
        return answer.rows if isinstance(answer, Rows) else []

    def scan_state(self, prefix: str, limit: int) -> list[tuple[str, int, bytes]]:
        """Key, version and value under a prefix."""
        answer = self._channel.ask(ScanState(prefix, limit))
        return answer.rows if isinstance(answer, Scan) else []


class Life:
    """One instance, in its own process."""

    def __init__(self, app: App, version: str, order: Fork, link: socket.socket) -> None:
        self._order = order
        self._partitions = dict(order.partitions)
        self.channel = Channel(link, spin=order.spin)
        self._executor = Executor(
            app,
            HostLine(self.channel),
            partitions=self._partitions,
            instance=order.instance,
            version=version,
        )
        self._running = Running()
        self._out, self._err = speak_up(self._running)
        self._asynchronous = self._executor.is_async(order.function)
        self._runner: Any = None
        self._cpu_limit = order.resources.cpu
        self._suspended = False
        self._runs = 0
        self._memory = 0
        self._used = 0.0

    def live(self) -> NoReturn:
        """Until the host says stop, or goes."""
        self._start()
        channel = self.channel
        while True:
            nonce, message = channel.take()
            match message:
                case Run():
                    if self._suspended:
                        self._resume()
                    self._run(nonce, message.invocation)
                case Suspend():
                    cause = self._hook("suspend")
                    self._suspended = True
                    gc.collect()
                    trim_heap()
                    channel.say(nonce, Acted(cause))
                case Partitions():
                    self._partitions.clear()
                    self._partitions.update(message.counts)
                case Stop():
                    self._hook("stop")
                    self._end(0)
                case _:
                    continue

    def _start(self) -> None:
        began = time.perf_counter()
        cause = self._hook("start")
        self.channel.say(0, Hello(time.perf_counter() - began, cause))
        self.channel.flush()
        if cause is not None:
            self._end(EXIT_HOOK)

    def _resume(self) -> None:
        self._suspended = False
        if self._hook("resume") is not None:
            self._end(EXIT_HOOK)

    def _run(self, nonce: int, invocation: Invocation) -> None:
        self.channel.nonce = nonce
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
        cost = Usage(wall, cpu, self._memory, cold, self._order.instance)
        # `Returned` was made a moment ago, here, for this answer only.
        msgspec.structs.force_setattr(returned, "usage", cost)
        try:
            self.channel.say(nonce, Done(returned))
        except (ValueError, OverflowError) as error:
            cause = Cause("TooLarge", str(error), retryable=False)
            self.channel.say(nonce, Done(Returned(error=cause, usage=cost)))
        if wall > SHORT_RUN_S or not self.channel.crowded:
            self.channel.flush()

    def _drive(self, invocation: Invocation) -> Returned:
        work: Coroutine[Any, Any, Returned] = self._executor.run(invocation)
        if self._asynchronous:
            answer: Returned = self._loop_runner().run(work)
            return answer
        try:
            work.send(None)
        except StopIteration as stop:
            returned: Returned = stop.value
            return returned
        work.close()
        cause = Cause("Misuse", "a plain `def` handler waited on an event loop it does not have")
        return Returned(error=cause)

    def _loop_runner(self) -> Any:
        if self._runner is None:
            # 50 ms that only apps with asynchronous handlers pay, in their zygote.
            import asyncio

            self._runner = asyncio.Runner()
        return self._runner

    def _hook(self, name: str) -> Cause | None:
        try:
            getattr(self._executor, name)()
        except MemoryError:
            self._end(EXIT_MEMORY)
        except BaseException as error:  # noqa: BLE001 - the author's hooks may raise anything
            trace = "".join(traceback.format_exception(error))[-MAX_TRACEBACK:]
            return Cause(type(error).__name__, str(error)[:MAX_TRACEBACK], trace)
        return None

    def _end(self, code: int) -> NoReturn:
        self.channel.flush()
        self._out.finish()
        self._err.finish()
        os._exit(code)


def prepare(app: App) -> None:
    """In the zygote: import what instances of this app will need beyond this module."""
    executor = Executor(app, _NoHost())
    if any(executor.is_async(function.name) for function in app.spec().functions):
        __import__("asyncio")


def warm_up(app: App, order: Fork) -> None:
    """In a spare child: do once what its birth will do, so that the pages are its own already."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        life = Life(app, "", order, ours)
        theirs.sendall(encode(1, Run(Invocation("", ()))))
        nonce, _ = life.channel.take()
        life.channel.say(nonce, Done(Returned()))
        life.channel.flush()
    sandbox.warm_up(order.resources)
    reseed()
    resource.getrusage(resource.RUSAGE_SELF)


class _NoHost:
    """The zygote has nobody to ask."""

    def read_state(self, keys: list[str]) -> list[tuple[int, bytes | None]]:
        raise NotImplementedError

    def scan_state(self, prefix: str, limit: int) -> list[tuple[str, int, bytes]]:
        raise NotImplementedError


def reseed() -> None:
    """Generators seeded before the fork would repeat in every child.

    `random` reseeds itself at a fork; numpy's global generator has to be told.
    """
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed(list(os.urandom(32)))


def live(app: App, version: str, order: Fork, link: socket.socket) -> NoReturn:
    """Be an instance; the process is settled in its sandbox already."""
    try:
        reseed()
        Life(app, version, order, link).live()
    except MemoryError:
        os._exit(EXIT_MEMORY)
