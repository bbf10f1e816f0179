"""The host's side of a zygote: start it in the app's interpreter, request forks, receive reports.

In: a target to import. Out: its `AppSpec`, the instances' pids and pidfds, and exits. A zygote serves one version of
one app. It has no policy: the pool decides which instances are forked, and the fleet what happens after the zygote's
death.
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
"""Apps that one import may create."""
DEATH_TIMEOUT_S = 0.5
"""How long a warden gets to kill the processes of its zygote, while the event loop waits."""
SCRATCH_MODE = 0o711
"""Instances pass through it to their folders, and cannot list it."""

_HOME = str(Path(__file__).parents[3])
_PROGRAM = """
import os, sys
register, held = os.register_at_fork, []
def hold(**hooks):
    is_stdlib = sys._getframe(1).f_globals.get("__name__") in ("threading", "logging", "random")
    held.append(hooks) if is_stdlib else register(**hooks)
os.register_at_fork = hold
try:
    import headrace
except ImportError:
    sys.path.append(sys.argv[2])
from headrace.runtime.child.zygote_main import run
os.register_at_fork = register
run(int(sys.argv[1]), held)
"""
"""The program of a zygote: it suspends the standard library's fork hooks, see `child/after_fork.py`."""


class ZygoteOwner(Protocol):
    """Receiver of the events of a zygote and of its instances."""

    def forked(self, forked: Forked, pidfd: int) -> None:
        """Take note of a fork; the receiver owns the descriptor."""
        ...

    def fork_failed(self, failed: ForkFailed) -> None:
        """Take note of a failed fork."""
        ...

    def exited(self, exited: Exited) -> None:
        """Take note of a reaped instance."""
        ...

    def zygote_died(self, dead: Zygote) -> None:
        """Take note of the death of the zygote and of all its instances."""
        ...


class Zygote:
    """One template process. Owned by the fleet, which receives its events as `ZygoteOwner`."""

    def __init__(
        self,
        target: str,
        *,
        owner: ZygoteOwner,
        host: FleetHost,
        interpreter: str | None,
        confinement: Confinement,
        import_environment: Callable[[], ImportEnvironment],
    ) -> None:
        self.target = target
        self._interpreter = interpreter or sys.executable
        self.scratch = confinement.scratch
        self._confinement = confinement
        self._owner = owner
        self._host = host
        self._import_environment = import_environment
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
        self.exit_reason = ""
        self.loaded: Loaded | None = None

    @property
    def spec(self) -> AppSpec:
        """Return the declarations of the app."""
        if self.loaded is None:
            raise RuntimeError("the zygote has not been started")
        return self.loaded.spec

    @property
    def code(self) -> str:
        """Return a hash of the imported code; "" before the import."""
        return "" if self.loaded is None else self.loaded.code

    @property
    def sends_hello(self) -> bool:
        """Return whether its instances send `Hello` before they accept runs."""
        return self.loaded is None or self.loaded.sends_hello

    @property
    def resident(self) -> int:
        """Return its resident bytes when it was ready for forks, shared file pages included."""
        return 0 if self.loaded is None else self.loaded.resident

    @property
    def weight(self) -> int:
        """Return its private bytes, which its instances share until they write to them."""
        return 0 if self.loaded is None else self.loaded.weight

    async def start(self) -> Loaded:
        """Start the process and import the app.

        Raises:
            Misuse: The app cannot be imported, or its import leaves a thread or descriptor.
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
            # No caller remains that could close it.
            self._closing = True
            self._died("its start was given up")
            shutil.rmtree(self.scratch, ignore_errors=True)
            raise
        if isinstance(answer, LoadFailed):
            await self.close()
            raise Misuse(_explain(self.target, answer))
        try:
            # The author's code ran in the process that sent this, and may have sent anything.
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
        # Not guessable: instances may share a uid, and then only the name keeps others out.
        return InstanceFolder(f"{self._folders:x}-{self._host.entropy.token(3)}", uid)

    async def close(self) -> None:
        """Stop the process, and with it its instances."""
        self._closing = True
        if self._process is not None:
            self._disconnect()
            await self._wait(self._process)
        await self.clear()

    async def clear(self) -> None:
        """Remove its scratch folder, once it and its instances have exited."""
        try:
            with contextlib.suppress(FileNotFoundError):
                # The folder that was prepared for the next instance.
                (self.scratch / self._next.name).rmdir()
            self.scratch.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            await asyncio.to_thread(shutil.rmtree, self.scratch, ignore_errors=True)

    def kill(self) -> None:
        """Kill the process and all its descendants; `on_end` follows."""
        if self._process is not None:
            _end(self._process)

    # -- the process -----------------------------------------------------------------------------

    def _spawn(self) -> None:
        host, zygote = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        log_read, log_write = os.pipe2(os.O_CLOEXEC)
        try:
            self._process = subprocess.Popen(
                # `-I`, so that neither PYTHON* variables nor the current folder decide what is
                # imported.
                [self._interpreter, "-I", "-c", _PROGRAM, str(zygote.fileno()), _HOME],
                stdin=subprocess.DEVNULL,
                stdout=log_write,
                stderr=log_write,
                pass_fds=(zygote.fileno(),),
                # A session of its own: Ctrl-C in the node's terminal must not reach the zygote.
                start_new_session=True,
                # Between fork and exec, as the host may be killed before the new interpreter runs
                # its first line.
                preexec_fn=partial(kernel.die_with, os.getpid()),
                # Not the node's environment, which holds its secrets.
                env=environment_for_import(),
            )
        except OSError as error:
            host.close()
            os.close(log_read)
            raise Misuse(
                f"the interpreter `{self._interpreter}` cannot be started: {error.strerror}; "
                "name a Python 3.11 or later that has the app's packages"
            ) from error
        finally:
            zygote.close()
            os.close(log_write)
        self.pid = self._process.pid
        self.alive = True
        self._requests = ZygoteChannel(host, on_message=self._handle, on_end=self._died)
        self._log_pipe = LogPipes(
            {log_read: "stderr"},
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
        self._log_pipe.close()

    def _died(self, why: str) -> None:
        if not self.alive:
            return
        self._disconnect()
        if self._process is not None and self._process.poll() is None:
            _end(self._process)
            try:
                # Blocks the loop for a bounded time: lost runs are repeated after this, and must
                # not overlap with processes that still run.
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
            self.exit_reason = f"{why}, {_ending(code)}"
            self._owner.zygote_died(self)

    # -- messages ----------------------------------------------------------------------------

    def _handle(self, message: FromZygote) -> None:
        match message:
            case Loaded() | LoadFailed():
                if self._loaded is not None and not self._loaded.done():
                    self._loaded.set_result(message)
            case Needs():
                self._provide(message)
            case Forked():
                pidfd = self._requests.take_descriptor()
                if pidfd is None:
                    self._died("it reported a fork without a pidfd")
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
        """Send the settings and variables that the app requests during its import, and only then."""
        self._questions += 1
        if self.loaded is not None or self._questions > MAX_QUESTIONS:
            self._died("it requested settings after its import")
            return
        provision = self._import_environment().of(needs.app, needs.variables)
        self._requests.send(Provided(provision), [])

    def _is_ours(self, identity: str) -> bool:
        """Return whether this zygote was requested to fork the instance: it must not report others."""
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
        # The platform's own error names the place and the fix already.
        return failure.message
    return f"`{target}` cannot be imported: {failure.kind}: {failure.message}{trace}"


def _end(process: subprocess.Popen[bytes]) -> None:
    """Let the warden kill its zygote and all its descendants, even if the warden is stopped."""
    process.send_signal(signal.SIGTERM)
    # A stopped process handles SIGTERM only once it continues.
    process.send_signal(signal.SIGCONT)


def _ending(code: int | None) -> str:
    if code is None:
        return "still running"
    if code > SIGNALLED:
        # The warden's exit code encodes the zygote's signal.
        code = SIGNALLED - code
    return f"signal {signal_name(-code)}" if code < 0 else f"exit code {code}"
