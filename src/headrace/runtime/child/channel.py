"""The instance's end of its socketpair: it receives runs and sends results and questions.

Between runs one thread owns it; during a run the handler's threads take turns, and each receives
the answer to its own question. Results are buffered while more runs wait, so that short invocations
share their system calls; a question to the host flushes them first. The instance exits when the
host has closed the channel. A process that a handler forked cannot send.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from _thread import RLock
from collections import deque
from typing import NoReturn

from headrace.runtime.child import fork_detection
from headrace.runtime.protocol.frames import RECEIVE_BYTES, Frames, ProtocolError
from headrace.runtime.protocol.messages import (
    EXIT_CHANNEL,
    Answer,
    Answered,
    Ask,
    Denied,
    FromChild,
    Question,
    ToChild,
    encode,
    to_child,
)

GATHER_BYTES = 1 << 16
ANCILLARY_BYTES = socket.CMSG_SPACE(4)
DONT_WAIT, CLOSE_ON_EXEC = int(socket.MSG_DONTWAIT), int(socket.MSG_CMSG_CLOEXEC)
"""Plain numbers, as combining enumerations costs a fresh process more than the read itself."""


class HostRefused(Exception):
    """The host cannot answer a question; `kind` is its error's class name, `final` as `is_final` of it."""

    def __init__(self, kind: str, message: str, *, final: bool = False) -> None:
        super().__init__(message)
        self.kind = kind
        self.final = final


class Channel:
    """Frames over a blocking socket; `spin` (seconds of polling before a read blocks) may be set later."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self.spin = 0.0
        self._eager = False
        self._frames = Frames()
        self._inbox: deque[tuple[int, ToChild]] = deque()
        self._outbox = bytearray()
        self._claims = -1
        # A pid costs a system call, so it is compared only where something is about to be sent.
        self._pid = os.getpid()
        self._nonce = 0
        self._lock = RLock()
        self._asked = 0
        self._answers: dict[int, Answer | Denied] = {}

    def bind_to_process(self) -> None:
        """Make this process the only one that may send: called after the fork."""
        self._pid = os.getpid()

    def begin(self, nonce: int) -> None:
        """Start a run: questions from now on belong to it."""
        self._nonce = nonce
        # A timeout or signal may have interrupted a thread that waited for one of these.
        self._answers.clear()

    @property
    def has_pending(self) -> bool:
        """Return whether more messages have been received already."""
        return bool(self._inbox)

    def take(self) -> tuple[int, ToChild]:
        """Return the next message of the host; wait for it."""
        while not self._inbox:
            if self._outbox:
                self.flush()
            self._receive(self.spin)
        return self._inbox.popleft()

    def send(self, nonce: int, message: FromChild) -> None:
        """Buffer a message, to be sent by the next flush or wait. A forked process ends here."""
        self.leave_if_forked()
        self._outbox += encode(nonce, message)
        if len(self._outbox) > GATHER_BYTES:
            self.flush()

    def claim(self) -> bool:
        """Return whether a run that was sent ahead may still begin."""
        # Results of earlier runs go first: if the process dies after the claim, the host blames
        # this run alone.
        self.flush()
        try:
            # The host took one off the count to have the run back; the kernel gives each to one of
            # us.
            os.eventfd_read(self._claims)
        except BlockingIOError:
            return False
        return True

    def flush(self) -> None:
        """Send the buffered messages."""
        if not self._outbox:
            return
        try:
            self._link.sendall(self._outbox)
        except OSError:
            end_process()
        self._outbox.clear()

    def send_now(self, message: FromChild) -> None:
        """Send a message for the running invocation immediately."""
        with self._lock:
            self.send(self._nonce, message)
            self.flush()

    def ask(self, question: Question, *, of_run: bool = True) -> Answer:
        """Send a question for the running invocation, or for the instance, and wait for its answer.

        Raises:
            HostRefused: The host could not answer.
        """
        with self._lock:
            self._asked += 1
            number = self._asked
            self.send(self._nonce if of_run else 0, Ask(number, question))
            self.flush()
            while number not in self._answers:
                self._receive(0.0)
            answer = self._answers.pop(number)
        if isinstance(answer, Denied):
            raise HostRefused(answer.kind, answer.message, final=answer.final)
        return answer

    def leave_if_forked(self) -> None:
        """Return, unless this is another process than the instance, which ends here; call it after the author's code."""
        if os.getpid() != self._pid:
            # `os.fork`, `multiprocessing` or C code: whatever way it was forked, it shares our
            # socket.
            fork_detection.leave()

    def _receive(self, spin: float) -> None:
        data = b""
        if spin > 0 and self._eager:
            end = time.perf_counter() + spin
            while not data and time.perf_counter() < end:
                try:
                    data = self._receive_bytes(DONT_WAIT)
                except BlockingIOError:
                    continue
                except OSError:
                    end_process()
                if not data:
                    end_process()
        if not data:
            began = time.perf_counter()
            try:
                data = self._receive_bytes(0)
            except OSError:
                end_process()
            # Poll the next time only if the wait was short enough this time: polling burns a core.
            self._eager = time.perf_counter() - began < spin
        if not data:
            end_process()
        frames = self._frames.feed(data)
        if isinstance(frames, ProtocolError):
            end_process()
        for nonce, body in frames:
            message = to_child(body)
            if isinstance(message, ProtocolError):
                end_process()
            if type(message) is Answered:
                # An answer to an earlier run's question is dropped: its thread was interrupted,
                # and numbers would never be reused to clear it.
                if nonce in (self._nonce, 0):
                    self._answers[message.number] = message.answer
            else:
                self._inbox.append((nonce, message))

    def _receive_bytes(self, flags: int) -> bytes:
        if self._claims >= 0:
            return self._link.recv(RECEIVE_BYTES, flags)
        # The first run that is sent ahead carries the eventfd by which such runs are claimed.
        # `recvmsg` costs more than `recv`, so it is used only until that has arrived.
        data, ancillary, _, _ = self._link.recvmsg(
            RECEIVE_BYTES, ANCILLARY_BYTES, flags | CLOSE_ON_EXEC
        )
        if ancillary:
            self._claims = int.from_bytes(ancillary[0][2][:4], sys.byteorder)
        return data


def end_process() -> NoReturn:
    """Exit immediately, without cleaning up: without a channel no result could be sent."""
    os._exit(EXIT_CHANNEL)
