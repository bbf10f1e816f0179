"""Start of an instance: preparations of its zygote, and the first steps in the forked child.

A page that a child writes to is copied, which takes longer than most steps here, and taking a
reference to an object writes to it. So the zygote prepares in advance, while no request waits:
folder, environment, randomness and isolation settings. A preparation is used for one child only;
without one a child does everything itself.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import traceback
from _signal import SIG_DFL, set_wakeup_fd  # type: ignore[import-not-found]  # not in typeshed
from _signal import signal as set_signal
from collections.abc import Callable
from os import close, closerange, dup2
from typing import NoReturn

import msgspec

from headrace.runtime.child import instance_main
from headrace.runtime.child.after_fork import renumbering, reseed
from headrace.runtime.child.app_import import CONTROL, RULES
from headrace.runtime.protocol.frames import Frames
from headrace.runtime.protocol.messages import (
    EXIT_MEMORY,
    EXIT_NOT_STARTED,
    Fork,
    InstanceFolder,
    Load,
    Loaded,
    encode,
    pack_resources,
    to_zygote,
    unpack_resources,
)
from headrace.runtime.sandbox import isolation as sandbox

HIGHEST = 0x7FFF_FFFF
MAX_PLANS = 1_024


class StartPlan(msgspec.Struct, frozen=True):
    """Start plan of a kind of instance, computed before one is requested."""

    instance_isolation: sandbox.InstanceIsolation
    cpu: float | None


class InstanceFactory:
    """Prepares and starts the children of a zygote, which owns it."""

    def __init__(
        self,
        loop: instance_main.InstanceLoop,
        load: Load,
        loaded: Loaded,
        shared_isolation: sandbox.SharedIsolation,
        release: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._load = load
        self._size = loaded.size
        self._shared_isolation = shared_isolation
        self._release = release
        self._renumber: sandbox.Step = (renumbering(), ())
        self._plans: dict[tuple[bytes, int, bool], StartPlan] = {}
        self._next: InstanceFolder | None = load.next
        self._ready: InstanceFolder | None = None
        self._parent = os.getpid()
        self._groups = [load.group] if shared_isolation.uids else []
        self.first_free = RULES + 1 if shared_isolation.rules >= 0 else RULES
        """The first descriptor that an instance closes at its start."""
        self._example = b""
        """A request as a frame, for `_go_through`; empty if the app has no function."""
        for function in loaded.spec.functions:
            isolation = min(function.resources.isolation, load.isolation)
            own_uid = shared_isolation.uids and isolation >= 1
            packed = pack_resources(function.resources)
            self._plan(packed, isolation, own_uid=own_uid)
            request = Fork("", function.name, load.next, load.next, isolation, packed, {}, 0.0)
            self._example = encode(0, request)

    # -- in the zygote ---------------------------------------------------------------------------

    def uid_of(self, request: Fork) -> int:
        """Return the separate uid of the instance; 0 if it has none."""
        return request.folder.uid if self._shared_isolation.uids else 0

    def _plan(self, resources: bytes, isolation: int, *, own_uid: bool) -> StartPlan:
        kind = (resources, isolation, own_uid)
        plan = self._plans.get(kind)
        if plan is None:
            may = unpack_resources(resources)
            instance_isolation = sandbox.plan_isolation(
                may,
                own_uid=own_uid,
                size=self._size,
                level=min(isolation, self._shared_isolation.level),
                shared_isolation=self._shared_isolation,
            )
            plan = StartPlan(instance_isolation, may.cpu)
            # Resources come from overrides, too, so their number is not bounded by the app; a plan
            # without a place is built again.
            if len(self._plans) < MAX_PLANS:
                self._plans[kind] = plan
        return plan

    @property
    def is_behind(self) -> bool:
        """Return whether the next instance's folder is known but not yet prepared."""
        return self._next is not None

    def make_ready(self) -> None:
        """Prepare the next child while no request waits."""
        folder, self._next = self._next, None
        if folder is None:
            return
        try:
            sandbox.prepare_scratch(
                self._place(folder), folder.uid if self._shared_isolation.uids else 0
            )
        except OSError:
            # The child will meet the same error, and its exit reports it.
            self._clear(folder)
            return
        # Here, since seeding takes longer than the rest; the seed serves one child, as the next
        # one is prepared again.
        reseed()
        self._ready = folder
        self._go_through()

    def _go_through(self) -> None:
        """Rehearse the steps of the next request, so that their pages are copied before it arrives."""
        frames = Frames().feed(self._example)
        request = to_zygote(frames[0][1]) if isinstance(frames, list) and frames else None
        if isinstance(request, Fork):
            self._steps(request, [0, 0, 0], ready=True)

    def lay_out(self, request: Fork, descriptors: list[int]) -> list[sandbox.Step]:
        """Return the steps of the requested child, from the fork to its exit. Uses the preparation up.

        Raises:
            Unknown: The app has no such function.
        """
        return self._steps(request, descriptors, ready=self._take(request))

    def _steps(self, request: Fork, descriptors: list[int], *, ready: bool) -> list[sandbox.Step]:
        uid = self.uid_of(request)
        plan = self._plan(request.resources, request.isolation, own_uid=uid != 0)
        self._loop.begin(request, plan.cpu)
        steps = arrange_descriptors(descriptors, self.first_free) + RESET_SIGNALS
        scratch = self._place(request.folder)
        if not ready:
            steps += [(sandbox.prepare_scratch, (scratch, uid)), (reseed, ())]
        steps += sandbox.steps(
            plan.instance_isolation,
            uid=uid,
            groups=self._groups,
            scratch=scratch,
            parent=self._parent,
        )
        if self.first_free > RULES:
            steps.append((close, (RULES,)))
        return [*steps, self._renumber, (self._release, ()), (self._loop.serve, ())]

    def _take(self, request: Fork) -> bool:
        """Return whether this child is prepared; the preparation is used up."""
        ready, self._ready = self._ready, None
        self._next = request.next
        # The host decides on the folder: if it is another one than was announced, the prepared one
        # is removed.
        if ready is None or ready == request.folder:
            return ready is not None
        self._clear(ready)
        return False

    def give_away(self) -> InstanceFolder | None:
        """Give the prepared folder to a spare child, which has a copy of this factory."""
        ready, self._ready = self._ready, None
        return ready

    def expect(self, folder: InstanceFolder) -> None:
        """Note the next instance's folder, after a spare became an instance."""
        self._next = folder

    def take_back(self, folder: InstanceFolder | None) -> None:
        """Remove the folder of a spare that never became an instance."""
        if folder is not None:
            self._clear(folder)

    def _place(self, folder: InstanceFolder) -> str:
        return f"{self._load.scratch}/{folder.name}"

    def _clear(self, folder: InstanceFolder) -> None:
        with contextlib.suppress(OSError):
            os.rmdir(self._place(folder))  # noqa: PTH106 - a string is what there is

    # -- in the child ----------------------------------------------------------------------------

    def become_instance(self, steps: list[sandbox.Step]) -> NoReturn:
        """Run the steps of the requested instance; never returns."""
        code = EXIT_NOT_STARTED
        try:
            for act, arguments in steps:
                act(*arguments)
        except MemoryError:
            code = EXIT_MEMORY
        except BaseException:  # noqa: BLE001 - the zygote's stack must not go on in its child
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(code)


def arrange_descriptors(descriptors: list[int], first_free: int) -> list[sandbox.Step]:
    """Return the steps that close all descriptors but stdin, the log pipes and the channel."""
    link, out, err = descriptors
    return [
        (dup2, (out, 1)),
        (dup2, (err, 2)),
        # The three arrived above the control socket, which is 3, so none is overwritten before it
        # is moved.
        (dup2, (link, CONTROL, False)),
        # CLOEXEC would not help: an instance never calls `exec`.
        (closerange, (first_free, HIGHEST)),
    ]


RESET_SIGNALS: list[sandbox.Step] = [
    (set_wakeup_fd, (-1,)),
    (set_signal, (int(signal.SIGCHLD), SIG_DFL)),
    (set_signal, (int(signal.SIGTERM), SIG_DFL)),
]
"""Steps that reset the zygote's signal handling in a child.

With plain numbers: converting them to enumerations and back touches 50 pages.
"""
