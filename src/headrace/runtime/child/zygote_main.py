"""The zygote's own process: stand in the sandbox, import the app once, fork on demand.

Plain, single-threaded, without a socket or file besides its control socket, and it checks that
before every fork. It takes orders from the host, answers with pids and pidfds, reaps what dies,
and ends everything it started when the host goes away. Author's code runs here only while it is
imported, and by then the process is not root any more. Its warden stands above it.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # typeshed leaves it out
import contextlib
import gc
import os
import select
import signal
import socket
import sys
import time
import traceback
from typing import NoReturn

import msgspec

from headrace.model.policy import Resources
from headrace.runtime import kernel, kin, sandbox, warden
from headrace.runtime.child import main
from headrace.runtime.child.control import Control
from headrace.runtime.child.forkable import NotForkable, count_descriptors
from headrace.runtime.child.importing import CONTROL, RULES, load
from headrace.runtime.wire import (
    Exited,
    Fork,
    Forked,
    ForkFailed,
    Load,
    Loaded,
    LoadFailed,
    ToZygote,
    encode,
)

HIGHEST = 0x7FFF_FFFF
INSTANCE_FDS = 3
TELL_AFTER_MS = 1
"""How long after a fork, if no other is ordered, the host is told of it: the child goes first."""
MAX_UNSAID = 48
MAX_PLANS = 1_024
SPARE_AFTER_MS = 5
"""Quiet time after which a spare child is forked ahead of need, out of everybody's way."""
MAX_SPARES_LOST = 3


class Child(msgspec.Struct, frozen=True):
    """An instance that lives."""

    instance: str
    uid: int


class Zygote:
    """Forks instances of one app and looks after them until they are reaped."""

    def __init__(
        self,
        control: Control,
        life: main.Life,
        load: Load,
        loaded: Loaded,
        standing: warden.Standing,
        ground: sandbox.Ground,
    ) -> None:
        self._control = control
        self._life = life
        self._load = load
        self._loaded = loaded
        self._standing = standing
        self._ground = ground
        self._walls: dict[tuple[Resources, int, bool], sandbox.Walls] = {}
        self._unsaid: list[Forked] = []
        self._children: dict[int, Child] = {}
        self._spare: tuple[int, socket.socket] | None = None
        self._spares_lost = 0
        self._pid = os.getpid()
        self._wake, self._alarm = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGCHLD, _ignore)
        signal.signal(signal.SIGTERM, self._terminate)
        signal.set_wakeup_fd(self._alarm, warn_on_full_buffer=False)
        self._descriptors = count_descriptors()
        self._keeps_spare = any(each.scaling.spare for each in loaded.spec.functions)
        for function in loaded.spec.functions:
            # Planned ahead, so that children find the plan among the pages they share.
            isolation = min(function.resources.isolation, load.isolation)
            self._plan(function.resources, isolation, own_uid=ground.uids and isolation >= 1)
        gc.freeze()

    def serve(self) -> None:
        """Until the host goes away."""
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(self._wake, select.POLLIN)
        while True:
            events = poll.poll(self._patience_ms())
            if not events:
                if self._unsaid:
                    self._tell()
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
        if self._unsaid:
            return TELL_AFTER_MS
        wants_spare = (
            self._keeps_spare and self._spare is None and self._spares_lost < MAX_SPARES_LOST
        )
        return SPARE_AFTER_MS if wants_spare else None

    def _plan(self, resources: Resources, isolation: int, *, own_uid: bool) -> sandbox.Walls:
        plan = (resources, isolation, own_uid)
        walls = self._walls.get(plan)
        if walls is None:
            walls = sandbox.plan_walls(
                resources,
                own_uid=own_uid,
                size=self._loaded.size,
                level=min(isolation, self._ground.level),
                ground=self._ground,
            )
            if len(self._walls) < MAX_PLANS:
                self._walls[plan] = walls
        return walls

    def _fork(self, order: Fork) -> None:
        descriptors = self._control.take_descriptors(INSTANCE_FDS)
        try:
            pid = self._hand_to_spare(order, descriptors)
            if pid is None:
                self._check(INSTANCE_FDS)
                pid = os.fork()
                if pid == 0:
                    self._be_born(order, descriptors)
        except (OSError, NotForkable) as error:
            self._tell()
            self._control.say(ForkFailed(order.instance, str(error)))
        else:
            # While orders wait they go first: every page we touch now costs us a copy.
            self._children[pid] = Child(order.instance, self._uid_of(order))
            self._unsaid.append(Forked(order.instance, pid))
            if len(self._unsaid) >= MAX_UNSAID:
                self._tell()
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _uid_of(self, order: Fork) -> int:
        return order.uid if self._ground.uids else 0

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
            os.dup2(link.fileno(), CONTROL, False)
            os.closerange(self._first_free, HIGHEST)
            _reset_signals()
            # Done here once more, so that the pages it touches are this child's own already.
            main.rehearse()
            kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != self._pid:
                os._exit(0)
            control = Control(self._control.link)
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

    @property
    def _first_free(self) -> int:
        """The descriptor from which on nothing is an instance's."""
        return RULES + 1 if self._ground.rules >= 0 else RULES

    def _check(self, expected: int) -> None:
        """What was true after the import must still be so; both looks cost microseconds."""
        threads = os.stat("/proc/self/task").st_nlink - 2  # noqa: PTH116 - hot
        if threads != 1:
            raise NotForkable(f"the zygote has {threads} threads")
        descriptors = count_descriptors()
        if descriptors != self._descriptors + expected:
            raise NotForkable(f"the zygote holds {descriptors} descriptors")

    def _be_born(self, order: Fork, descriptors: list[int]) -> NoReturn:
        code = 1
        try:
            zygote = self._pid
            _settle_descriptors(descriptors, self._first_free)
            _reset_signals()
            uid = self._uid_of(order)
            sandbox.enter_instance(
                self._plan(order.resources, order.isolation, own_uid=uid != 0),
                uid=uid,
                scratch=f"{self._load.scratch}/{order.instance}",
                parent=zygote,
            )
            if self._first_free > RULES:
                os.close(RULES)
            main.live(self._life, order)
        except BaseException:  # noqa: BLE001 - the zygote's stack must not go on in its child
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(code)

    def _reap(self) -> None:
        """Collect the dead, and kill what the dead left behind."""
        self._tell()
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
            self._kill(strays)

    def _kill(self, strays: list[int]) -> None:
        if not self._ground.uids:
            kin.kill_families(strays)
            return
        # Whatever of theirs is left comes to us in its turn, or went with its uid.
        for pid in strays:
            os.kill(pid, signal.SIGKILL)

    def _lose_spare(self, pid: int) -> None:
        self._spares_lost += 1
        if self._spare is not None and self._spare[0] == pid:
            self._spare[1].close()
            self._spare = None

    def _strays(self) -> list[int]:
        """Processes that came to us because their parent died, and belong to no living instance.

        Where instances share a uid, each adopts its own while it lives, and what comes to us is
        a dead one's.
        """
        living = {child.uid for child in self._children.values() if child.uid}
        return [
            pid
            for pid in kin.children(self._pid)
            if pid not in self._children and kin.owner(pid) not in living
        ]

    def _sweep(self, child: Child) -> None:
        """Nothing that runs under a dead instance's uid outlives it, however it multiplies."""
        if child.uid and self._strays():
            kin.kill_all_of(child.uid)

    def end(self) -> None:
        """Kill every instance and its offspring, and reap them."""
        signal.set_wakeup_fd(-1)
        if self._standing.rung.spaces:
            # The kernel does it, at once and whatever they do, when the first process is gone.
            return
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
            kin.kill_families(self._strays())
            time.sleep(0.001)

    def _terminate(self, _signal: int, _frame: object) -> None:
        raise EOFError


def _reset_signals() -> None:
    # The module beneath `signal`: turning numbers into enumerations and back touches 50 pages.
    _signal.set_wakeup_fd(-1)
    _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
    _signal.signal(_signal.SIGTERM, _signal.SIG_DFL)


def _ignore(_signal: int, _frame: object) -> None:
    """A handler, so that the wakeup descriptor is written; the loop does the reaping."""


def _settle_descriptors(descriptors: list[int], first_free: int) -> None:
    """Only stdin, the log pipes and the channel stay open; the channel takes the control's place."""
    link, out, err = descriptors
    os.dup2(out, 1)
    os.dup2(err, 2)
    # The three came in above the control socket, which is 3, so nothing is overwritten early.
    os.dup2(link, CONTROL, False)
    os.closerange(first_free, HIGHEST)


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


def run(descriptor: int) -> NoReturn:
    """Be a zygote on this control socket, and the warden above it; never returns."""
    os.dup2(descriptor, CONTROL, inheritable=False)
    if descriptor != CONTROL:
        os.close(descriptor)
    control = Control(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, fileno=CONTROL))
    # It is tied to the thread of the host that started us, which is the one its loop runs on.
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
        isolation=order.isolation,
        close=CONTROL,
        prepare=lambda rung: sandbox.prepare_zygote(
            rung, uid=order.uid, scratch=order.scratch, paths=sys.path
        ),
    )
    kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
    zygote: Zygote | None = None
    try:
        outcome = load(order, control, standing)
        sys.stdout.flush()
        sys.stderr.flush()
        if isinstance(outcome, LoadFailed):
            control.say(outcome)
        else:
            life, loaded, ground = outcome
            zygote = Zygote(control, life, order, loaded, standing, ground)
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
