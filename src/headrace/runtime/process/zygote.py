"""The host's side of a zygote: start it in the app's own interpreter, request forks, receive reports of ends.

In comes a target to import; out come its `AppSpec`, instances' pids and pidfds, and exits. A zygote
serves one version of one app. It holds no policy: who is forked when is the pool's choice, and
what to do when the zygote itself dies is the fleet's.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Protocol

from headrace.model.errors import Misuse, Unavailable, denied
from headrace.model.function import AppSpec
from headrace.model.settings import ImportEnvironment
from headrace.runtime import kernel
from headrace.runtime.import_environment import environment_for_import, search_paths
from headrace.runtime.process.channel import LogPipes
from headrace.runtime.process.fleet_host import Confinement, FleetHost
from headrace.runtime.process.instance import Instance
from headrace.runtime.process.postmortem import signal_name
from headrace.runtime.process.zygote_channel import ZygoteChannel
from headrace.runtime.protocol.messages import (
    Exited,
    Fork,
    Forked,
    ForkFailed,
    FromZygote,
    InstanceFolder,
    Load,
    Loaded,
    LoadFailed,
    Needs,
    Provided,
)
from headrace.runtime.sandbox.warden import IDS_PER_ZYGOTE, SIGNALLED
from headrace.runtime.spec_checks import check_claims

LOAD_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 2.0
MAX_QUESTIONS = 64
"""Apps that one import may make."""
DEATH_TIMEOUT_S = 0.5
"""How long a warden gets to end what its zygote left behind, while everything else waits."""
SCRATCH_MODE = 0o711
"""Instances pass through it to the folders they have in there, and see no others."""

_HOME = str(Path(__file__).parents[3])
_PROGRAM = """
import os, sys
register, held = os.register_at_fork, []
def hold(**hooks):
    mends_itself = sys._getframe(1).f_globals.get("__name__") in ("threading", "logging", "random")
    held.append(hooks) if mends_itself else register(**hooks)
os.register_at_fork = hold
try:
    import headrace
except ImportError:
    sys.path.append(sys.argv[2])
from headrace.runtime.child.zygote_main import run
os.register_at_fork = register
run(int(sys.argv[1]), held)
"""
"""What a zygote runs: it holds the hooks at forks of the standard library, see `child/afresh.py`."""


class ZygoteOwner(Protocol):
    """Receiver of what happens to a zygote and to those it forks."""

    def forked(self, forked: Forked, pidfd: int) -> None:
        """It forked; the descriptor is yours."""
        ...

    def fork_failed(self, failed: ForkFailed) -> None:
        """It could not fork."""
        ...

    def exited(self, exited: Exited) -> None:
        """It reaped an instance."""
        ...

    def zygote_died(self, dead: Zygote) -> None:
        """It is dead, and all that was below it."""
        ...


class Zygote:
    """One template process. Owned by the fleet, which hears of it as its `ZygoteOwner`."""

    def __init__(
        self,
        target: str,
        *,
        owner: ZygoteOwner,
        host: FleetHost,
        interpreter: str | None,
        confinement: Confinement,
        surroundings: Callable[[], ImportEnvironment],
    ) -> None:
        self.target = target
        self._interpreter = interpreter or sys.executable
        self.scratch = confinement.scratch
        self._confinement = confinement
        self._owner = owner
        self._host = host
        self._surroundings = surroundings
        self._questions = 0
        self._clock = host.clock
        self._loaded: asyncio.Future[Loaded | LoadFailed] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._closing = False
        self.forks = self._folders = 0
        self._next = self._new_folder()
        self.instances: set[Instance] = set()
        self.alive = False
        self.pid = 0
        self.epitaph = ""
        self.loaded: Loaded | None = None

    @property
    def spec(self) -> AppSpec:
        """Return the declarations of the app."""
        if self.loaded is None:
            raise RuntimeError("the zygote has not been started")
        return self.loaded.spec

    @property
    def code(self) -> str:
        """A hash of what it imported; "" before it has."""
        return "" if self.loaded is None else self.loaded.code

    @property
    def sends_hello(self) -> bool:
        """Return whether its instances say hello before they take up runs."""
        return self.loaded is None or self.loaded.sends_hello

    @property
    def resident(self) -> int:
        """Bytes it had when it was ready to be forked, those it shares with files included."""
        return 0 if self.loaded is None else self.loaded.resident

    @property
    def weight(self) -> int:
        """Those of its own, which its instances share until they write to them."""
        return 0 if self.loaded is None else self.loaded.weight

    async def start(self) -> Loaded:
        """Start the process and import the app.

        Raises:
            Misuse: The app cannot be imported, or its import leaves something unforkable behind.
            DiskFull: The disk has no space for its folder.
            Unavailable: The process did not come up.
        """
        self._loop = asyncio.get_running_loop()
        self._loaded = self._loop.create_future()
        try:
            self.scratch.mkdir(mode=SCRATCH_MODE)
            self._spawn()
        except Misuse:
            self.scratch.rmdir()
            raise
        except OSError as error:
            shutil.rmtree(self.scratch, ignore_errors=True)
            raise denied(
                f"the process that imports `{self.target}` cannot be started", error
            ) from error
        paths = [str(path) for path in search_paths(self.target)]
        request = Load(
            self.target,
            paths,
            str(self.scratch),
            self._confinement.isolation,
            self._confinement.uid,
            self._next,
            self._confinement.files.root,
            self._confinement.files.group,
        )
        self._requests.send(request, [])
        try:
            answer = await self._clock.timeout(self._loaded, LOAD_TIMEOUT_S)
        except TimeoutError:
            await self.close()
            raise Unavailable(
                f"importing `{self.target}` took longer than {LOAD_TIMEOUT_S:.0f} s; "
                "move slow work into an `@app.init` function"
            ) from None
        except Unavailable:
            await self.close()
            raise
        except asyncio.CancelledError:
            # No caller waits for it any more, so none would end it.
            self._closing = True
            self._died("its start was given up")
            shutil.rmtree(self.scratch, ignore_errors=True)
            raise
        if isinstance(answer, LoadFailed):
            await self.close()
            raise Misuse(_explain(self.target, answer))
        try:
            check_claims(answer.spec)
        except Misuse:
            await self.close()
            raise
        if not self.alive:
            raise Unavailable(f"the process that imported `{self.target}` died right afterwards")
        self.loaded = answer
        return answer

    def fork(self, request: Fork, descriptors: list[int]) -> None:
        """Request an instance; its owner is called when it is forked, or cannot be. The caller keeps the descriptors.

        Raises:
            Unavailable: The zygote is dead.
        """
        if not self.alive:
            raise Unavailable(f"the zygote of `{self.target}` is down; it is being restarted")
        self.forks += 1
        self._requests.send(request, descriptors)

    def take_folder(self, isolation: int) -> tuple[InstanceFolder, InstanceFolder]:
        """Return the folder of the next instance of this level of isolation, and of the one after it."""
        folder, self._next = self._next, self._new_folder()
        return folder if isolation >= 1 else InstanceFolder(folder.name, 0), self._next

    def _new_folder(self) -> InstanceFolder:
        self._folders += 1
        first = self._confinement.uid
        uid = first and first + 1 + self._folders % (IDS_PER_ZYGOTE - 1)
        # It must not be guessable, since instances may share a uid.
        return InstanceFolder(f"{self._folders:x}-{self._host.entropy.token(3)}", uid)

    async def close(self) -> None:
        """End the process, and with it whatever instances it still has."""
        self._closing = True
        if self._process is not None:
            self._disconnect()
            await self._wait(self._process)
        await self.clear()

    async def clear(self) -> None:
        """Take its scratch folder away, once it and its instances are dead."""
        try:
            with contextlib.suppress(FileNotFoundError):
                # It was prepared for an instance that was never requested.
                (self.scratch / self._next.name).rmdir()
            self.scratch.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            await asyncio.to_thread(shutil.rmtree, self.scratch, ignore_errors=True)

    def kill(self) -> None:
        """Kill it at once, with all that descends from it; `on_death` follows."""
        if self._process is not None:
            _end(self._process)

    # -- the process -----------------------------------------------------------------------------

    def _spawn(self) -> None:
        host, zygote = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        voice, mouth = os.pipe2(os.O_CLOEXEC)
        try:
            self._process = subprocess.Popen(
                [self._interpreter, "-I", "-c", _PROGRAM, str(zygote.fileno()), _HOME],
                stdin=subprocess.DEVNULL,
                stdout=mouth,
                stderr=mouth,
                pass_fds=(zygote.fileno(),),
                start_new_session=True,
                preexec_fn=partial(kernel.die_with, os.getpid()),
                env=environment_for_import(),
            )
        except OSError as error:
            host.close()
            os.close(voice)
            raise Misuse(
                f"the interpreter `{self._interpreter}` cannot be started: {error.strerror}; "
                "name a Python 3.11 or later that has the app's packages"
            ) from error
        finally:
            zygote.close()
            os.close(mouth)
        self.pid = self._process.pid
        self.alive = True
        self._requests = ZygoteChannel(host, on_message=self._hear, on_end=self._died)
        self._voice = LogPipes(
            {voice: "stderr"},
            function=self.target,
            instance="",
            clock=self._clock,
            on_log=self._host.on_log,
            running=lambda: "",
        )

    async def _wait(self, process: subprocess.Popen[bytes]) -> None:
        for attempt in range(2):
            deadline = self._clock.monotonic() + STOP_TIMEOUT_S
            pause = 0.0005
            while self._clock.monotonic() < deadline:
                if process.poll() is not None:
                    return
                await self._clock.sleep(pause)
                pause = min(pause * 2, 0.02)
            if attempt == 0:
                _end(process)
        process.kill()
        process.wait()

    def _disconnect(self) -> None:
        if not self.alive:
            return
        self.alive = False
        self._requests.close()
        self._voice.close()

    def _died(self, why: str) -> None:
        if not self.alive:
            return
        self._disconnect()
        if self._process is not None and self._process.poll() is None:
            _end(self._process)
            try:
                self._process.wait(DEATH_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._loaded is not None and not self._loaded.done():
            code = None if self._process is None else self._process.returncode
            self._loaded.set_exception(
                Unavailable(
                    f"the process that imports `{self.target}` ended ({why}, {_ending(code)}); "
                    "see its output in the logs"
                )
            )
        elif not self._closing and self.loaded is not None:
            code = None if self._process is None else self._process.returncode
            self.epitaph = f"{why}, {_ending(code)}"
            self._owner.zygote_died(self)

    # -- what it says ----------------------------------------------------------------------------

    def _hear(self, message: FromZygote) -> None:
        match message:
            case Loaded() | LoadFailed():
                if self._loaded is not None and not self._loaded.done():
                    self._loaded.set_result(message)
            case Needs():
                self._provide(message)
            case Forked():
                pidfd = self._requests.take_descriptor()
                if pidfd is None:
                    self._died("it announced a process without a descriptor of it")
                elif self._is_ours(message.instance):
                    self._owner.forked(message, pidfd)
                else:
                    os.close(pidfd)
            case ForkFailed():
                if self._is_ours(message.instance):
                    self._owner.fork_failed(message)
            case Exited():
                if self._is_ours(message.instance):
                    self._owner.exited(message)

    def _provide(self, needs: Needs) -> None:
        """Hand over what an app that is being imported names; afterwards it is asked for no more."""
        self._questions += 1
        if self.loaded is not None or self._questions > MAX_QUESTIONS:
            self._died("it asked for settings out of its turn")
            return
        provision = self._surroundings().of(needs.app, needs.variables)
        self._requests.send(Provided(provision), [])

    def _is_ours(self, identity: str) -> bool:
        """Return whether this zygote was asked for the instance: it must not report others."""
        return any(instance.identity == identity for instance in self.instances)


def _explain(target: str, failure: LoadFailed) -> str:
    trace = f"\n{failure.traceback.rstrip()}" if failure.traceback else ""
    if failure.kind == "PermissionError":
        return (
            f"`{target}` cannot be imported: {failure.message}; apps never run as root: let every "
            f"user read what it needs (`chmod -R a+rX`){trace}"
        )
    if failure.kind == "NotForkable":
        return f"`{target}` cannot be forked: {failure.message}"
    if failure.kind == "Misuse":
        # Ours, and whole: it says the place and the fix.
        return failure.message
    return f"`{target}` cannot be imported: {failure.kind}: {failure.message}{trace}"


def _end(process: subprocess.Popen[bytes]) -> None:
    """Let the warden kill its zygote and all that descends from it, though it may be stopped."""
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGCONT)


def _ending(code: int | None) -> str:
    if code is None:
        return "still running"
    if code > SIGNALLED:
        # Its warden passes on how it ended.
        code = SIGNALLED - code
    return f"signal {signal_name(-code)}" if code < 0 else f"exit code {code}"
