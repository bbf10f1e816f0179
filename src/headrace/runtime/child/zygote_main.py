"""Main loop of a zygote: enters the sandbox, imports the app once, and forks on request.

The process has one thread and no open file but its control socket, and checks that before every
fork. It answers requests of the host with pids and pidfds, reaps dead children, and kills all its
descendants when the host closes the socket. The author's code runs here only during its import, and
without root. The warden is its parent.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import socket
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

from headrace.model.errors import Unknown
from headrace.runtime import kernel
from headrace.runtime.child import instance_main
from headrace.runtime.child.after_fork import Hooks, hold
from headrace.runtime.child.app_import import CONTROL, load
from headrace.runtime.child.fork_checks import NotForkable, count_descriptors
from headrace.runtime.child.instance_start import HIGHEST, RESET_SIGNALS, InstanceFactory
from headrace.runtime.child.reaper import Child, Children
from headrace.runtime.child.zygote_control import Control
from headrace.runtime.protocol.messages import (
    EXIT_NOT_STARTED,
    Fork,
    Forked,
    ForkFailed,
    InstanceFolder,
    Load,
    Loaded,
    LoadFailed,
    ToZygote,
    encode,
)
from headrace.runtime.sandbox import isolation, warden

INSTANCE_FDS = 3
BIND_NOW = "LD_BIND_NOW"
REPORT_AFTER_MS = 1
"""How long after a fork, without another request, the host gets the report: the child starts first."""
MAX_UNREPORTED = 48
SPARE_AFTER_MS = 5
"""Quiet time after which a spare child is forked ahead of need, when nothing else runs."""
MAX_SPARES_LOST = 3


class ZygoteMain:
    """Forks instances of one app and looks after them until they are reaped."""

    def __init__(
        self,
        control: Control,
        factory: InstanceFactory,
        loaded: Loaded,
        zygote_isolation: warden.ZygoteIsolation,
        shared_isolation: isolation.SharedIsolation,
    ) -> None:
        self._control = control
        self._factory = factory
        self._spaces = zygote_isolation.step.namespaces
        self._unreported: list[Forked] = []
        self._alive = Children(uids=shared_isolation.uids)
        self._spare: tuple[int, socket.socket, InstanceFolder | None] | None = None
        self._spares_lost = 0
        self._pid = os.getpid()
        # SIGCHLD becomes a readable descriptor, so that one `poll` waits for both without a race.
        self._wake, self._alarm = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGCHLD, _ignore)
        signal.signal(signal.SIGTERM, self._terminate)
        signal.set_wakeup_fd(self._alarm, warn_on_full_buffer=False)
        # Counted last, with the pipe and socket above included: the number that every fork
        # expects.
        self._descriptors = count_descriptors()
        self._keeps_spare = any(each.scaling.spare for each in loaded.spec.functions)
        gc.freeze()

    def serve(self) -> None:
        """Handle requests until the host closes the socket."""
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(self._wake, select.POLLIN)
        while True:
            events = poll.poll(self._timeout_ms())
            if not events:
                if self._unreported or self._factory.is_behind:
                    self._report()
                    self._factory.make_ready()
                else:
                    self._fork_spare()
            for descriptor, _ in events:
                if descriptor == self._wake:
                    os.read(self._wake, 4096)
                    self._reap()
                else:
                    for request in self._control.receive():
                        if isinstance(request, Fork):
                            self._fork(request)

    def _timeout_ms(self) -> int | None:
        """Return the idle time until the next work, in milliseconds; None if there is none."""
        if self._unreported or self._factory.is_behind:
            return REPORT_AFTER_MS
        wants_spare = (
            self._keeps_spare and self._spare is None and self._spares_lost < MAX_SPARES_LOST
        )
        return SPARE_AFTER_MS if wants_spare else None

    def _fork(self, request: Fork) -> None:
        descriptors = self._control.take_descriptors(INSTANCE_FDS)
        try:
            pid = self._hand_to_spare(request, descriptors)
            if pid is None:
                self._check(INSTANCE_FDS)
                # Before the fork: an unknown function is an error of the request, not of a child.
                steps = self._factory.lay_out(request, descriptors)
                pid = os.fork()
                if pid == 0:
                    self._factory.become_instance(steps)
        except (OSError, NotForkable, Unknown) as error:
            self._report()
            self._control.send(ForkFailed(request.instance, str(error)))
        else:
            # Report later: until the child has started, every page written here costs a copy, and
            # other requests may wait.
            self._alive.add(pid, Child(request.instance, self._factory.uid_of(request)))
            self._unreported.append(Forked(request.instance, pid))
            if len(self._unreported) >= MAX_UNREPORTED:
                self._report()
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _report(self) -> None:
        """Report the forks since the last report to the host, with a pidfd of each."""
        if not self._unreported:
            return
        unreported, self._unreported = self._unreported, []
        pidfds: list[int] = []
        try:
            for forked in unreported:
                # `_reap` reports first, so none of these pids can have been reused.
                pidfds.append(os.pidfd_open(forked.pid))
            self._control.send(*unreported, descriptors=pidfds)
        finally:
            for pidfd in pidfds:
                os.close(pidfd)

    def _hand_to_spare(self, request: Fork, descriptors: list[int]) -> int | None:
        """Start the instance in the spare child and return its pid; None if there is no spare."""
        if self._spare is None:
            return None
        (pid, link, folder), self._spare = self._spare, None
        with link:
            try:
                frame = encode(0, request)
                sent = socket.send_fds(link, [frame], descriptors)
            except OSError:
                self._factory.take_back(folder)
                return None
            # The spare has the request's first bytes and descriptors: a second process must not
            # become this instance, so errors are ignored and its exit is reported.
            if sent < len(frame):
                with contextlib.suppress(OSError):
                    link.sendall(frame[sent:])
        self._factory.expect(request.next)
        return pid

    def _fork_spare(self) -> None:
        """Fork a spare ahead of demand: most of a cold start is then done before the request."""
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
        self._spare = pid, ours, self._factory.give_away()
        self._alive.add(pid, Child("", 0))

    def _wait_as_spare(self, link: socket.socket) -> NoReturn:
        try:
            os.dup2(link.fileno(), CONTROL, False)
            os.closerange(self._factory.first_free, HIGHEST)
            for act, arguments in RESET_SIGNALS:
                act(*arguments)
            # Repeated in the child, so that the pages it writes to are copied before the request.
            instance_main.rehearse()
            kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
            # The parent may have died before the signal above was set.
            if os.getppid() != self._pid:
                os._exit(0)
            # The same descriptor number: it now refers to the link with the zygote.
            control = Control(self._control.link)
            requests: list[ToZygote] = []
            while not requests:
                requests = control.receive()
            if isinstance(requests[0], Fork):
                descriptors = control.take_descriptors(INSTANCE_FDS)
                self._factory.become_instance(self._factory.lay_out(requests[0], descriptors))
        except EOFError:
            os._exit(0)
        except BaseException:  # noqa: BLE001 - the zygote's stack must not go on in its child
            traceback.print_exc()
            sys.stderr.flush()
        os._exit(EXIT_NOT_STARTED)

    def _check(self, expected: int) -> None:
        """Check again that the process can be forked, as after the import; both checks take microseconds."""
        # One `stat` in place of listing the folder: the link count is two plus the number of
        # threads.
        threads = os.stat("/proc/self/task").st_nlink - 2  # noqa: PTH116 - hot
        if threads != 1:
            raise NotForkable(f"the zygote has {threads} threads")
        descriptors = count_descriptors()
        if descriptors != self._descriptors + expected:
            raise NotForkable(f"the zygote holds {descriptors} descriptors")

    def _reap(self) -> None:
        """Report the processes that ended."""
        self._report()
        for pid, exited in self._alive.reap():
            if exited.instance:
                self._control.send(exited)
            else:
                self._lose_spare(pid)

    def _lose_spare(self, pid: int) -> None:
        self._spares_lost += 1
        if self._spare is not None and self._spare[0] == pid:
            self._spare[1].close()
            self._factory.take_back(self._spare[2])
            self._spare = None

    def end(self) -> None:
        """Kill every instance and its descendants, and reap them."""
        signal.set_wakeup_fd(-1)
        if not self._spaces:
            # Otherwise the kernel kills the whole PID namespace when this process exits.
            self._alive.end()

    def _terminate(self, _signal: int, _frame: object) -> None:
        raise EOFError


def _ignore(_signal: int, _frame: object) -> None:
    """A handler, so that the wakeup descriptor is written; the loop does the reaping."""


def _first(control: Control) -> Load:
    requests: list[ToZygote] = []
    while not requests:
        requests = control.receive()
    if not isinstance(requests[0], Load):
        raise EOFError("the first request was not to load")  # noqa: TRY004 - not a type error
    return requests[0]


def _is_left(control: Control) -> bool:
    poll = select.poll()
    poll.register(control, 0)
    return any(event & select.POLLHUP for _, event in poll.poll(0))


def run(descriptor: int, held: Sequence[Hooks]) -> NoReturn:
    """Run a zygote on this control socket, and its warden; never returns.

    Args:
        descriptor: The control socket.
        held: Fork hooks that run only for forks by the author's code.
    """
    # Set by the host for this interpreter only; programs that the app starts should load lazily as
    # usual.
    os.environ.pop(BIND_NOW, None)
    os.dup2(descriptor, CONTROL, inheritable=False)
    if descriptor != CONTROL:
        os.close(descriptor)
    control = Control(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, fileno=CONTROL))
    # Set again for interpreters that were started through another program, where the host's
    # setting applies to that one. The signal fires when the parent's starting thread ends: in the
    # host its loop's thread.
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    try:
        request = _first(control)
    except EOFError:
        os._exit(0)
    if _is_left(control):
        # The host died before the parent-death signal was set.
        os._exit(0)
    sys.path[:0] = request.paths
    gc.freeze()
    zygote_isolation = warden.fork_zygote(
        request.uid,
        group=request.group,
        isolation=request.isolation,
        close=CONTROL,
        prepare=lambda step: isolation.prepare_zygote(
            step, uid=request.uid, scratch=request.scratch, files=request.files, paths=sys.path
        ),
    )
    kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
    zygote: ZygoteMain | None = None
    try:
        outcome = load(request, control, zygote_isolation)
        sys.stdout.flush()
        sys.stderr.flush()
        if isinstance(outcome, LoadFailed):
            control.send(outcome)
        else:
            loop, loaded, shared_isolation = outcome
            factory = InstanceFactory(loop, request, loaded, shared_isolation, hold(held))
            zygote = ZygoteMain(control, factory, loaded, zygote_isolation, shared_isolation)
            control.send(loaded)
            zygote.serve()
    except EOFError:
        pass
    except BaseException:  # noqa: BLE001 - the warden's stack must not go on in its child
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if zygote is not None:
            zygote.end()
        os._exit(0)
