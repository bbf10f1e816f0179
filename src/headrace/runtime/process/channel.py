"""The host's end of an instance's channel, and of its log pipes: bytes in and out, frames checked.

An instance's line belongs to that instance. What is said on it is for the instance to judge; here
it is only made sure that what comes in are frames, that what goes out goes out in order, and that
frames of one turn of the loop share a system call.
"""

from __future__ import annotations

import array
import asyncio
import os
import socket
from collections.abc import Callable, Mapping

from headrace.environment.clock import Clock
from headrace.model.policy import MAX_UNREAD_BYTES
from headrace.model.redaction import Blot
from headrace.runtime.process.instance_logs import InstanceLine, LogReader
from headrace.runtime.protocol.frames import RECEIVE_BYTES, Frames, ProtocolError

SOCKET_BYTES = 4 << 20
SO_SNDBUFFORCE, SO_RCVBUFFORCE = 32, 33
MAX_LOG_BYTES_PER_TURN = 1 << 18
FLOOD_PAUSE_S = 0.05
"""How long a pipe is not read after lines of it were dropped: a process that writes too much waits meanwhile, and
takes no more than a few thousandths of the host's time however fast it writes."""


class InstanceChannel:
    """Frames over a socket; `on_readable` is called once `listen` has been."""

    def __init__(self, link: socket.socket, on_readable: Callable[[], None]) -> None:
        self.connected = True
        self._link = link
        self._on_readable = on_readable
        self._loop = asyncio.get_running_loop()
        self._frames = Frames()
        self._outbox = bytearray()
        self._flushing = self._writing = False
        self._listening = self._paused = False
        self._owed = 0
        self._writable = asyncio.Event()
        self._writable.set()
        widen(link)
        link.setblocking(False)

    def listen(self) -> None:
        """Hear from now on."""
        if self.connected:
            self._listening = True
            self._loop.add_reader(self._link, self._on_readable)

    def mute(self) -> None:
        """Hear no more."""
        self._listening = False
        self._loop.remove_reader(self._link)

    def disconnect(self) -> None:
        """Let go of the socket."""
        if self.connected:
            self.connected = self._listening = False
            self._loop.remove_reader(self._link)
            self._loop.remove_writer(self._link)
            self._link.close()
            self._outbox.clear()
            self._ease()

    def owe(self, size: int) -> None:
        """A question of so many bytes is to be answered; where too much waits, nothing more is heard.

        What a child does not take is the host's to hold, and so is what it asks.
        """
        self._owed += size
        if self.is_full and self._listening and not self._paused:
            self._paused = True
            self._loop.remove_reader(self._link)

    def settle(self, size: int) -> None:
        """The question of so many bytes was answered."""
        self._owed -= size
        self._ease()

    @property
    def is_full(self) -> bool:
        """Return whether more waits, questions and answers together, than may."""
        return self._owed + len(self._outbox) > MAX_UNREAD_BYTES

    async def room(self) -> None:
        """Return once the other end has taken most of what was sent, or is gone."""
        while self.connected and len(self._outbox) > MAX_UNREAD_BYTES:
            self._writable.clear()
            await self._writable.wait()

    def _ease(self) -> None:
        """Go on with what waited for the other end to take what was sent."""
        self._writable.set()
        if self._paused and not self.is_full:
            self._paused = False
            if self._listening:
                self._loop.add_reader(self._link, self._on_readable)

    def receive(self) -> tuple[list[tuple[int, bytes]], bool] | ProtocolError | None:
        """Frames, and whether there may be more; None once the other end is closed."""
        try:
            data = self._link.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return [], False
        except OSError:
            # It died with something of ours unread.
            return None
        if not data:
            return None
        frames = self._frames.feed(data)
        if isinstance(frames, ProtocolError):
            return frames
        return frames, len(data) == RECEIVE_BYTES

    def send(self, frame: bytes, *, alone: bool) -> None:
        """Send it, at once if it is alone and nothing waits, else with others of this turn."""
        if alone and not self._outbox and not self._flushing:
            self._outbox += frame
            self._flush()
            return
        self._outbox += frame
        if not self._flushing and not self._writing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    @property
    def quiet(self) -> bool:
        """Return whether nothing waits to be sent."""
        return not (self._outbox or self._flushing or self._writing)

    def lend(self, descriptor: int, frame: bytes) -> bool:
        """Send it with a descriptor, while the line is quiet; False if the buffer is full."""
        rights = array.array("i", (descriptor,))
        try:
            sent = self._link.sendmsg((frame,), ((socket.SOL_SOCKET, socket.SCM_RIGHTS, rights),))
        except OSError:
            # Its socket is full, or it is dying.
            return False
        if sent < len(frame):
            self.send(frame[sent:], alone=True)
        return True

    def _flush(self) -> None:
        self._flushing = False
        if not self.connected or not self._outbox:
            return
        try:
            sent = self._link.send(self._outbox)
        except BlockingIOError:
            sent = 0
        except OSError:
            # It is dying; its exit decides the outcome.
            self._outbox.clear()
            return
        if sent == len(self._outbox):
            self._outbox.clear()
            if self._writing:
                self._writing = False
                self._loop.remove_writer(self._link)
                self._ease()
            return
        del self._outbox[:sent]
        if self._writing and len(self._outbox) <= MAX_UNREAD_BYTES:
            self._ease()
        if not self._writing:
            self._writing = True
            self._loop.add_writer(self._link, self._flush)


class LogPipes:
    """Reader of a process's stdout and stderr, which reads more slowly if the process writes too much.

    Args:
        pipes: The ends to read, each with its name; they are closed with this.
        running: Names the run that bare lines belong to.
        blot: Takes secrets out of what is said.
    """

    def __init__(
        self,
        pipes: Mapping[int, str],
        *,
        function: str,
        instance: str,
        clock: Clock,
        on_log: Callable[[InstanceLine], None],
        running: Callable[[], str],
        blot: Blot = str,
    ) -> None:
        self._running = running
        self._loop = asyncio.get_running_loop()
        self._readers = {
            pipe: LogReader(
                function=function,
                instance=instance,
                stream=name,
                clock=clock,
                on_log=on_log,
                blot=blot,
            )
            for pipe, name in pipes.items()
        }
        for pipe in self._readers:
            os.set_blocking(pipe, False)
            self._loop.add_reader(pipe, self._listen, pipe)

    def close(self) -> None:
        """Read what is left and let go."""
        for pipe in list(self._readers):
            self._listen(pipe)
            self._hang_up(pipe)

    def _listen(self, pipe: int) -> None:
        taken = 0
        while pipe in self._readers and taken < MAX_LOG_BYTES_PER_TURN:
            try:
                data = os.read(pipe, RECEIVE_BYTES)
            except BlockingIOError:
                return
            if not data:
                self._hang_up(pipe)
                return
            taken += len(data)
            reader = self._readers[pipe]
            reader.feed(data, running=self._running())
            if reader.is_flooded:
                self._loop.remove_reader(pipe)
                self._loop.call_later(FLOOD_PAUSE_S, self._resume, pipe)
                return
            if len(data) < RECEIVE_BYTES:
                return

    def _resume(self, pipe: int) -> None:
        if pipe in self._readers:
            self._loop.add_reader(pipe, self._listen, pipe)

    def _hang_up(self, pipe: int) -> None:
        reader = self._readers.pop(pipe, None)
        if reader is not None:
            reader.close(running=self._running())
            self._loop.remove_reader(pipe)
            os.close(pipe)


def widen(link: socket.socket) -> None:
    """Make the buffer of a channel large enough for a whole batch, as far as the kernel allows."""
    for forced, plain in (
        (SO_SNDBUFFORCE, socket.SO_SNDBUF),
        (SO_RCVBUFFORCE, socket.SO_RCVBUF),
    ):
        try:
            link.setsockopt(socket.SOL_SOCKET, forced, SOCKET_BYTES)
        except PermissionError:
            link.setsockopt(socket.SOL_SOCKET, plain, SOCKET_BYTES)
