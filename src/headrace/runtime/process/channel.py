"""The host's end of an instance's channel, and of its log pipes: bytes in and out, frames checked.

A channel belongs to one instance, which interprets the messages. This module ensures that received
bytes are frames, that frames are sent in order, and that frames of one iteration of the loop share
a system call.
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
"""How long a pipe is not read after its lines were dropped: a process that writes too much blocks meanwhile, and
costs the host at most a few thousandths of its time."""


class InstanceChannel:
    """Frames over a socket; `on_readable` is called after `listen`."""

    def __init__(self, link: socket.socket, on_readable: Callable[[], None]) -> None:
        self.connected = True
        self._link = link
        self._on_readable = on_readable
        self._loop = asyncio.get_running_loop()
        self._frames = Frames()
        self._outbox = bytearray()
        self._flushing = self._writing = False
        self._listening = self._paused = False
        self._pending_bytes = 0
        self._writable = asyncio.Event()
        self._writable.set()
        widen(link)
        link.setblocking(False)

    def listen(self) -> None:
        """Start to receive."""
        if self.connected:
            self._listening = True
            self._loop.add_reader(self._link, self._on_readable)

    def stop_listening(self) -> None:
        """Stop receiving."""
        self._listening = False
        self._loop.remove_reader(self._link)

    def disconnect(self) -> None:
        """Close the socket."""
        if self.connected:
            self.connected = self._listening = False
            self._loop.remove_reader(self._link)
            self._loop.remove_writer(self._link)
            self._link.close()
            self._outbox.clear()
            self._resume_reading()

    def add_pending(self, size: int) -> None:
        """Count a question of so many bytes; stop reading while too much is pending.

        The host holds the questions of a child, and the answers that the child has not read.
        """
        self._pending_bytes += size
        if self.is_full and self._listening and not self._paused:
            self._paused = True
            self._loop.remove_reader(self._link)

    def remove_pending(self, size: int) -> None:
        """Count a question of so many bytes as answered."""
        self._pending_bytes -= size
        self._resume_reading()

    @property
    def is_full(self) -> bool:
        """Return whether questions and unsent answers together exceed the limit."""
        return self._pending_bytes + len(self._outbox) > MAX_UNREAD_BYTES

    async def wait_writable(self) -> None:
        """Wait until the other end has read most of the sent bytes, or is gone."""
        while self.connected and len(self._outbox) > MAX_UNREAD_BYTES:
            self._writable.clear()
            await self._writable.wait()

    def _resume_reading(self) -> None:
        """Wake senders, and read again, after the other end has read."""
        self._writable.set()
        if self._paused and not self.is_full:
            self._paused = False
            if self._listening:
                self._loop.add_reader(self._link, self._on_readable)

    def receive(self) -> tuple[list[tuple[int, bytes]], bool] | ProtocolError | None:
        """Return frames, and whether there may be more; None once the other end is closed."""
        try:
            data = self._link.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return [], False
        except OSError:
            # ECONNRESET: it died with bytes of ours unread.
            return None
        if not data:
            return None
        frames = self._frames.feed(data)
        if isinstance(frames, ProtocolError):
            return frames
        return frames, len(data) == RECEIVE_BYTES

    def send(self, frame: bytes, *, alone: bool) -> None:
        """Send a frame: immediately if it is `alone` and nothing is buffered, else with others of this iteration."""
        if alone and not self._outbox and not self._flushing:
            self._outbox += frame
            self._flush()
            return
        self._outbox += frame
        if not self._flushing and not self._writing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    @property
    def is_idle(self) -> bool:
        """Return whether nothing is buffered."""
        return not (self._outbox or self._flushing or self._writing)

    def send_with_descriptor(self, descriptor: int, frame: bytes) -> bool:
        """Send a frame with a descriptor, while nothing is buffered; False if the socket is full."""
        rights = array.array("i", (descriptor,))
        try:
            sent = self._link.sendmsg((frame,), ((socket.SOL_SOCKET, socket.SCM_RIGHTS, rights),))
        except OSError:
            # The socket is full, or the process is dying.
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
            # The process is dying; its exit status decides the outcome.
            self._outbox.clear()
            return
        if sent == len(self._outbox):
            self._outbox.clear()
            if self._writing:
                self._writing = False
                self._loop.remove_writer(self._link)
                self._resume_reading()
            return
        # A stream socket may take a part; the rest follows when it is writable.
        del self._outbox[:sent]
        if self._writing and len(self._outbox) <= MAX_UNREAD_BYTES:
            self._resume_reading()
        if not self._writing:
            self._writing = True
            self._loop.add_writer(self._link, self._flush)


class LogPipes:
    """Reader of a process's stdout and stderr, which pauses if the process writes too much.

    Args:
        pipes: The ends to read, each with its name; they are closed with this.
        running: Returns the run that plain lines belong to.
        blot: Removes secrets from text.
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
            self._loop.add_reader(pipe, self._read, pipe)

    def close(self) -> None:
        """Read the rest and close the pipes."""
        for pipe in list(self._readers):
            self._read(pipe)
            self._close_pipe(pipe)

    def _read(self, pipe: int) -> None:
        taken = 0
        # Bounded, since a process that writes without end would keep the loop here.
        while pipe in self._readers and taken < MAX_LOG_BYTES_PER_TURN:
            try:
                data = os.read(pipe, RECEIVE_BYTES)
            except BlockingIOError:
                return
            if not data:
                self._close_pipe(pipe)
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
            self._loop.add_reader(pipe, self._read, pipe)

    def _close_pipe(self, pipe: int) -> None:
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
            # The forced options pass `net.core.rmem_max`, and need CAP_NET_ADMIN; the plain ones
            # are cut to it silently.
            link.setsockopt(socket.SOL_SOCKET, forced, SOCKET_BYTES)
        except PermissionError:
            link.setsockopt(socket.SOL_SOCKET, plain, SOCKET_BYTES)
