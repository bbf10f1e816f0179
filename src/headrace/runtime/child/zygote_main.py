"""The zygote's own process: import the app once, stand in the sandbox, fork on demand.

Plain, single-threaded, without a socket or file besides its control socket, and it checks that
before every fork. It takes orders from the host, answers with pids and pidfds, reaps what dies,
and ends everything it started when the host goes away. Author's code runs here only while it is
imported.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import socket
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import NoReturn

import msgspec

from headrace.model.policy import MAX_TRACEBACK
from headrace.runtime import kernel, limits, sandbox
from headrace.runtime.child import loader, main
from headrace.runtime.wire import (
    RECEIVE_BYTES,
    Exited,
    Fork,
    Forked,
    ForkFailed,
    Frames,
    FromZygote,
    Load,
    Loaded,
    LoadFailed,
    ProtocolError,
    ToZygote,
    encode,
    to_zygote,
)
from headrace.sdk.app import App

INSTANCE_FDS = 3
SPARE_AFTER_MS = 5
"""Quiet time after which a spare child is forked ahead of need, out of everybody's way."""
MAX_SPARES_LOST = 3


class Child(msgspec.Struct, frozen=True):
    """An instance that lives."""

    instance: str
    uid: int


class NotForkable(Exception):
    """Importing the app left something behind that a fork would tear in two."""


class Control:
    """The zygote's end of its control socket; blocking writes, reads when there is something."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._frames = Frames()
        self._descriptors: list[int] = []

    def fileno(self) -> int:
        """For polling."""
        return self._link.fileno()

    def receive(self) -> list[ToZygote]:
        """What the host says; ends the process when the host is gone or talks nonsense."""
        try:
            data, descriptors, _, _ = socket.recv_fds(self._link, RECEIVE_BYTES, 64)
        except ConnectionError:
            data, descriptors = b"", []
        if not data:
            raise EOFError
        self._descriptors += descriptors
        frames = self._frames.feed(data)
        if isinstance(frames, ProtocolError):
            raise EOFError(frames.reason)  # noqa: TRY004 - not a type error: the end of the talk
        orders: list[ToZygote] = []
        for _, body in frames:
            order = to_zygote(body)
            if isinstance(order, ProtocolError):
                raise EOFError(order.reason)  # noqa: TRY004 - as above
            orders.append(order)
        return orders

    def take_descriptors(self, count: int) -> list[int]:
        """The oldest descriptors that came along."""
        taken, self._descriptors = self._descriptors[:count], self._descriptors[count:]
        return taken

    def say(self, message: FromZygote, descriptor: int | None = None) -> None:
        """Tell the host."""
        frame = encode(0, message)
        try:
            if descriptor is None:
                self._link.sendall(frame)
            else:
                sent = socket.send_fds(self._link, [frame], [descriptor])
                if sent < len(frame):
                    self._link.sendall(frame[sent:])
        except ConnectionError as error:
            raise EOFError from error


class Zygote:
    """Forks instances of one app and looks after them until they are reaped."""

    def __init__(self, control: Control, app: App, load: Load, loaded: Loaded) -> None:
        self._control = control
        self._app = app
        self._load = load
        self._loaded = loaded
        self._children: dict[int, Child] = {}
        self._spare: tuple[int, socket.socket] | None = None
        self._spares_lost = 0
        self._pid = os.getpid()
        self._wake, self._alarm = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGCHLD, _ignore)
        signal.signal(signal.SIGTERM, self._terminate)
        signal.set_wakeup_fd(self._alarm, warn_on_full_buffer=False)
        self._descriptors = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - names only, hot

    def serve(self) -> None:
        """Until the host goes away."""
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(self._wake, select.POLLIN)
        while True:
            wants_spare = (
                self._spare is None
                and self._spares_lost < MAX_SPARES_LOST
                and bool(self._loaded.spec.functions)
            )
            events = poll.poll(SPARE_AFTER_MS if wants_spare else None)
            if not events:
                self._fork_spare()
            for descriptor, _ in events:
                if descriptor == self._wake:
                    os.read(self._wake, 4096)
                    self._reap()
                else:
                    for order in self._control.receive():
                        if isinstance(order, Fork):
                            self._fork(order)

    def _fork(self, order: Fork) -> None:
        descriptors = self._control.take_descriptors(INSTANCE_FDS)
        try:
            pid = self._hand_to_spare(order, descriptors)
            if pid is None:
                self._check(INSTANCE_FDS)
                pid = os.fork()
        except (OSError, NotForkable) as error:
            self._control.say(ForkFailed(order.instance, str(error)))
        else:
            if pid == 0:
                self._be_born(order, descriptors)
            self._children[pid] = Child(order.instance, order.uid)
            pidfd = os.pidfd_open(pid)
            self._control.say(Forked(order.instance, pid), pidfd)
            os.close(pidfd)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _hand_to_spare(self, order: Fork, descriptors: list[int]) -> int | None:
        """Let the child that waits be this instance; None where there is none."""
        if self._spare is None:
            return None
        (pid, link), self._spare = self._spare, None
        with link:
            try:
                frame = encode(0, order)
                sent = socket.send_fds(link, [frame], descriptors)
            except OSError:
                return None
            # From here on it may have begun to be the instance: nobody else may be.
            if sent < len(frame):
                with contextlib.suppress(OSError):
                    link.sendall(frame[sent:])
        return pid

    def _fork_spare(self) -> None:
        """Fork ahead: most of a cold start is over before anybody asks for one."""
        try:
            self._check(0)
            ours, theirs = socket.socketpair()
            pid = os.fork()
        except (OSError, NotForkable):
            self._spares_lost += 1
            return
        if pid == 0:
            self._wait_as_spare(theirs)
        theirs.close()
        self._spare = pid, ours
        self._children[pid] = Child("", 0)

    def _wait_as_spare(self, link: socket.socket) -> NoReturn:
        try:
            os.dup2(link.fileno(), 3, inheritable=False)
            kernel.close_from(4)
            _reset_signals()
            kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != self._pid:
                os._exit(0)
            function = self._loaded.spec.functions[0]
            order = Fork("", function.name, 0, 0, function.resources, {}, 0.0)
            main.warm_up(self._app, order)
            control = Control(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, fileno=3))
            orders: list[ToZygote] = []
            while not orders:
                orders = control.receive()
            if isinstance(orders[0], Fork):
                self._be_born(orders[0], control.take_descriptors(INSTANCE_FDS))
        except EOFError:
            os._exit(0)
        except BaseException:  # noqa: BLE001 - the zygote's stack must not go on in its child
            traceback.print_exc()
            sys.stderr.flush()
        os._exit(1)

    def _check(self, expected: int) -> None:
        """What was true after the import must still be so; both looks cost microseconds."""
        threads = os.stat("/proc/self/task").st_nlink - 2  # noqa: PTH116 - hot
        if threads != 1:
            raise NotForkable(f"the zygote has {threads} threads")
        descriptors = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - names only, hot
        if descriptors != self._descriptors + expected:
            raise NotForkable(f"the zygote holds {descriptors} descriptors")

    def _be_born(self, order: Fork, descriptors: list[int]) -> NoReturn:
        code = 1
        try:
            zygote = self._pid
            link = _settle_descriptors(descriptors)
            _reset_signals()
            sandbox.enter_instance(
                order.resources,
                uid=order.uid,
                size=self._loaded.size,
                level=min(order.isolation, self._loaded.level),
                common=self._loaded.common,
                scratch=f"{self._load.scratch}/{order.instance}",
                parent=zygote,
            )
            main.live(self._app, self._loaded.spec.version, order, link)
        except BaseException:  # noqa: BLE001 - the zygote's stack must not go on in its child
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(code)

    def _reap(self) -> None:
        """Collect the dead, and kill what the dead left behind."""
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                break
            child = self._children.pop(pid, None)
            if child is not None and not child.instance:
                self._lose_spare(pid)
            elif child is not None:
                self._sweep(child)
                cpu = usage.ru_utime + usage.ru_stime
                code = os.waitstatus_to_exitcode(status)
                self._control.say(Exited(child.instance, code, cpu, usage.ru_maxrss * 1024))
        if strays := self._strays():
            for pid in strays:
                os.kill(pid, signal.SIGKILL)

    def _lose_spare(self, pid: int) -> None:
        self._spares_lost += 1
        if self._spare is not None and self._spare[0] == pid:
            self._spare[1].close()
            self._spare = None

    def _strays(self) -> list[int]:
        """Processes that came to us because their parent died, and belong to no living instance."""
        living = {child.uid for child in self._children.values() if child.uid}
        return [
            pid
            for pid in sandbox.children(self._pid)
            if pid not in self._children and sandbox.owner(pid) not in living
        ]

    def _sweep(self, child: Child) -> None:
        """Nothing that runs under a dead instance's uid outlives it, however it multiplies."""
        if child.uid and self._strays():
            sandbox.kill_all_of(child.uid)

    def end(self) -> None:
        """Kill every instance and its offspring, and reap them."""
        signal.set_wakeup_fd(-1)
        for pid in self._children:
            os.kill(pid, signal.SIGKILL)
        for _ in range(64):
            while True:
                try:
                    pid, _ = os.waitpid(-1, os.WNOHANG if not self._children else 0)
                except ChildProcessError:
                    return
                if pid == 0:
                    break
                child = self._children.pop(pid, None)
                if child is not None:
                    self._sweep(child)
            for pid in self._strays():
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.001)

    def _terminate(self, _signal: int, _frame: object) -> None:
        raise EOFError


def _reset_signals() -> None:
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _ignore(_signal: int, _frame: object) -> None:
    """A handler, so that the wakeup descriptor is written; the loop does the reaping."""


def _settle_descriptors(descriptors: list[int]) -> socket.socket:
    """Only stdin, the log pipes and the channel stay open."""
    link, out, err = descriptors
    os.dup2(out, 1)
    os.dup2(err, 2)
    # The three came in above the control socket, which is 3, so nothing is overwritten early.
    os.dup2(link, 3, inheritable=False)
    kernel.close_from(4)
    return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, fileno=3)


def check_forkable(control: int) -> None:
    """What importing the app must not leave behind.

    Raises:
        NotForkable: A thread, socket or file is still there.
    """
    threads = [thread.name for thread in threading.enumerate()][1:]
    count = len(list(Path("/proc/self/task").iterdir()))
    if count != 1:
        names = f" ({', '.join(threads)})" if threads else ""
        raise NotForkable(
            f"importing it started {count - 1} thread(s){names}; "
            "start them in an `@app.init` function, which runs once in every instance"
        )
    for entry in Path("/proc/self/fd").iterdir():
        if int(entry.name) in {0, 1, 2, control}:
            continue
        try:
            what = str(entry.readlink())
        except FileNotFoundError:
            continue
        if what.startswith(("/proc/", "/dev/urandom", "/dev/random")):
            continue
        raise NotForkable(
            f"importing it left `{what}` open; "
            "open it in an `@app.init` function, which runs once in every instance"
        )


def load(order: Load, control: int) -> tuple[App, Loaded] | LoadFailed:
    """Import the app and make this process fit to be forked."""
    began = time.perf_counter()
    sys.path[:0] = order.paths
    try:
        app = loader.load(order.target)
        spec = app.spec(version=loader.fingerprint(order.target))
        check_forkable(control)
    except BaseException as error:  # noqa: BLE001 - an import may raise anything, SystemExit too
        trace = "".join(traceback.format_exception(error))[-MAX_TRACEBACK:]
        return LoadFailed(type(error).__name__, str(error)[:MAX_TRACEBACK], trace)
    main.prepare(app)
    seconds = time.perf_counter() - began
    gc.collect()
    gc.freeze()
    asked = [min(each.resources.isolation, order.isolation) for each in spec.functions]
    common, most = min(asked, default=0), max(asked, default=0)
    level, notes = sandbox.enter_zygote(common, most=most, scratch=order.scratch, paths=sys.path)
    common = min(common, level)
    return app, Loaded(spec, limits.address_space(), level, common, notes, seconds)


def _first(control: Control) -> Load:
    orders: list[ToZygote] = []
    while not orders:
        orders = control.receive()
    if not isinstance(orders[0], Load):
        raise EOFError("the first order was not to load")  # noqa: TRY004 - not a type error
    return orders[0]


def run(descriptor: int) -> NoReturn:
    """Be a zygote on this control socket; never returns."""
    # A host that is killed cannot say goodbye; our own death then takes the instances along.
    kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGTERM)
    os.dup2(descriptor, 3, inheritable=False)
    if descriptor != 3:
        os.close(descriptor)
    control = Control(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, fileno=3))
    zygote: Zygote | None = None
    try:
        order = _first(control)
        outcome = load(order, 3)
        sys.stdout.flush()
        sys.stderr.flush()
        if isinstance(outcome, LoadFailed):
            control.say(outcome)
        else:
            app, loaded = outcome
            zygote = Zygote(control, app, order, loaded)
            control.say(loaded)
            zygote.serve()
    except EOFError:
        pass
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if zygote is not None:
            zygote.end()
        os._exit(0)
