"""The zygote's own process: stand in the sandbox, import the app once, fork on demand.

Plain, single-threaded, without a socket or file besides its control socket, and it checks that
before every fork. It takes orders from the host, answers with pids and pidfds, reaps what dies,
and ends everything it started when the host goes away. Author's code runs here only while it is
imported, and by then the process is not root any more. Its warden stands above it.
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
from headrace.runtime.child.instance_start import HIGHEST, UNHEARD, InstanceFactory
from headrace.runtime.child.reaper import Child, Living
from headrace.runtime.child.zygote_control import Control
from headrace.runtime.protocol.messages import (
    EXIT_UNBORN,
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
TELL_AFTER_MS = 1
"""How long after a fork, if no other is ordered, the host is told of it: the child goes first."""
MAX_UNSAID = 48
SPARE_AFTER_MS = 5
"""Quiet time after which a spare child is forked ahead of need, out of everybody's way."""
MAX_SPARES_LOST = 3


class ZygoteMain:
    """Forks instances of one app and looks after them until they are reaped."""

    def __init__(
        self,
        control: Control,
        nursery: InstanceFactory,
        loaded: Loaded,
        standing: warden.ZygoteIsolation,
        ground: isolation.SharedIsolation,
    ) -> None:
        self._control = control
        self._nursery = nursery
        self._spaces = standing.rung.spaces
        self._unsaid: list[Forked] = []
        self._living = Living(uids=ground.uids)
        self._spare: tuple[int, socket.socket, InstanceFolder | None] | None = None
        self._spares_lost = 0
        self._pid = os.getpid()
        self._wake, self._alarm = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGCHLD, _ignore)
        signal.signal(signal.SIGTERM, self._terminate)
        signal.set_wakeup_fd(self._alarm, warn_on_full_buffer=False)
        self._descriptors = count_descriptors()
        self._keeps_spare = any(each.scaling.spare for each in loaded.spec.functions)
        gc.freeze()

    def serve(self) -> None:
        """Until the host goes away."""
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(self._wake, select.POLLIN)
        while True:
            events = poll.poll(self._patience_ms())
            if not events:
                if self._unsaid or self._nursery.is_behind:
                    self._tell()
                    self._nursery.make_ready()
                else:
                    self._fork_spare()
            for descriptor, _ in events:
                if descriptor == self._wake:
                    os.read(self._wake, 4096)
                    self._reap()
                else:
                    for order in self._control.receive():
                        if isinstance(order, Fork):
                            self._fork(order)

    def _patience_ms(self) -> int | None:
        """How long nothing must happen until there is something to do."""
        if self._unsaid or self._nursery.is_behind:
            return TELL_AFTER_MS
        wants_spare = (
            self._keeps_spare and self._spare is None and self._spares_lost < MAX_SPARES_LOST
        )
        return SPARE_AFTER_MS if wants_spare else None

    def _fork(self, order: Fork) -> None:
        descriptors = self._control.take_descriptors(INSTANCE_FDS)
        try:
            pid = self._hand_to_spare(order, descriptors)
            if pid is None:
                self._check(INSTANCE_FDS)
                steps = self._nursery.lay_out(order, descriptors)
                pid = os.fork()
                if pid == 0:
                    self._nursery.be_born(steps)
        except (OSError, NotForkable, Unknown) as error:
            self._tell()
            self._control.say(ForkFailed(order.instance, str(error)))
        else:
            # While orders wait they go first: every page we touch now costs us a copy.
            self._living.add(pid, Child(order.instance, self._nursery.uid_of(order)))
            self._unsaid.append(Forked(order.instance, pid))
            if len(self._unsaid) >= MAX_UNSAID:
                self._tell()
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _tell(self) -> None:
        """Let the host know of the forks since the last time, with a pidfd of each."""
        if not self._unsaid:
            return
        unsaid, self._unsaid = self._unsaid, []
        pidfds: list[int] = []
        try:
            for forked in unsaid:
                # None of them is reaped before it was told of, so each pid still means it.
                pidfds.append(os.pidfd_open(forked.pid))
            self._control.say(*unsaid, descriptors=pidfds)
        finally:
            for pidfd in pidfds:
                os.close(pidfd)

    def _hand_to_spare(self, order: Fork, descriptors: list[int]) -> int | None:
        """Let the child that waits be this instance; None where there is none."""
        if self._spare is None:
            return None
        (pid, link, cradle), self._spare = self._spare, None
        with link:
            try:
                frame = encode(0, order)
                sent = socket.send_fds(link, [frame], descriptors)
            except OSError:
                self._nursery.take_back(cradle)
                return None
            # From here on it may have begun to be the instance: nobody else may be.
            if sent < len(frame):
                with contextlib.suppress(OSError):
                    link.sendall(frame[sent:])
        self._nursery.expect(order.next)
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
        self._spare = pid, ours, self._nursery.give_away()
        self._living.add(pid, Child("", 0))

    def _wait_as_spare(self, link: socket.socket) -> NoReturn:
        try:
            os.dup2(link.fileno(), CONTROL, False)
            os.closerange(self._nursery.first_free, HIGHEST)
            for act, arguments in UNHEARD:
                act(*arguments)
            # Done here once more, so that the pages it touches are this child's own already.
            instance_main.rehearse()
            kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != self._pid:
                os._exit(0)
            control = Control(self._control.link)
            orders: list[ToZygote] = []
            while not orders:
                orders = control.receive()
            if isinstance(orders[0], Fork):
                descriptors = control.take_descriptors(INSTANCE_FDS)
                self._nursery.be_born(self._nursery.lay_out(orders[0], descriptors))
        except EOFError:
            os._exit(0)
        except BaseException:  # noqa: BLE001 - the zygote's stack must not go on in its child
            traceback.print_exc()
            sys.stderr.flush()
        os._exit(EXIT_UNBORN)

    def _check(self, expected: int) -> None:
        """What was true after the import must still be so; both looks cost microseconds."""
        threads = os.stat("/proc/self/task").st_nlink - 2  # noqa: PTH116 - hot
        if threads != 1:
            raise NotForkable(f"the zygote has {threads} threads")
        descriptors = count_descriptors()
        if descriptors != self._descriptors + expected:
            raise NotForkable(f"the zygote holds {descriptors} descriptors")

    def _reap(self) -> None:
        """Tell of those that died."""
        self._tell()
        for pid, exited in self._living.reap():
            if exited.instance:
                self._control.say(exited)
            else:
                self._lose_spare(pid)

    def _lose_spare(self, pid: int) -> None:
        self._spares_lost += 1
        if self._spare is not None and self._spare[0] == pid:
            self._spare[1].close()
            self._nursery.take_back(self._spare[2])
            self._spare = None

    def end(self) -> None:
        """Kill every instance and its offspring, and reap them."""
        signal.set_wakeup_fd(-1)
        if not self._spaces:
            # Else the kernel does it, at once and whatever they do, when we are gone.
            self._living.end()

    def _terminate(self, _signal: int, _frame: object) -> None:
        raise EOFError


def _ignore(_signal: int, _frame: object) -> None:
    """A handler, so that the wakeup descriptor is written; the loop does the reaping."""


def _first(control: Control) -> Load:
    orders: list[ToZygote] = []
    while not orders:
        orders = control.receive()
    if not isinstance(orders[0], Load):
        raise EOFError("the first order was not to load")  # noqa: TRY004 - not a type error
    return orders[0]


def _is_left(control: Control) -> bool:
    poll = select.poll()
    poll.register(control, 0)
    return any(event & select.POLLHUP for _, event in poll.poll(0))


def run(descriptor: int, held: Sequence[Hooks]) -> NoReturn:
    """Be a zygote on this control socket, and the warden above it; never returns.

    Args:
        descriptor: The control socket's.
        held: Hooks that wait for forks of the author's own.
    """
    os.environ.pop(BIND_NOW, None)
    os.dup2(descriptor, CONTROL, inheritable=False)
    if descriptor != CONTROL:
        os.close(descriptor)
    control = Control(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, fileno=CONTROL))
    # Once more, for interpreters that were started by a program in between: the host has seen to
    # that one. It is tied to the thread that started us, in the host the one its loop runs on.
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    try:
        order = _first(control)
    except EOFError:
        os._exit(0)
    if _is_left(control):
        # The host died before its death would have been ours.
        os._exit(0)
    sys.path[:0] = order.paths
    gc.freeze()
    standing = warden.divide(
        order.uid,
        group=order.group,
        isolation=order.isolation,
        close=CONTROL,
        prepare=lambda rung: isolation.prepare_zygote(
            rung, uid=order.uid, scratch=order.scratch, files=order.files, paths=sys.path
        ),
    )
    kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
    zygote: ZygoteMain | None = None
    try:
        outcome = load(order, control, standing)
        sys.stdout.flush()
        sys.stderr.flush()
        if isinstance(outcome, LoadFailed):
            control.say(outcome)
        else:
            life, loaded, ground = outcome
            nursery = InstanceFactory(life, order, loaded, ground, hold(held))
            zygote = ZygoteMain(control, nursery, loaded, standing, ground)
            control.say(loaded)
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
