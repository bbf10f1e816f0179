"""The instance's end of its socketpair: runs come in, answers go out, questions wait for answers.

Between runs one thread owns it; in a run those of the handler take turns to ask, and each gets the
answer to its own question. Replies are gathered while more runs wait, so that short invocations
share their system calls; a question to the host flushes them first. When the host is gone, so is
the instance: no process is left to answer. A process that a handler forked can say nothing here.
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
AT_ONCE, KEPT_TO_ITSELF = int(socket.MSG_DONTWAIT), int(socket.MSG_CMSG_CLOEXEC)
"""Plain, as combining enumerations costs a fresh process more than the reading itself."""


class HostRefused(Exception):
    """The host cannot answer a question; `kind` is its error's class name, `final` as `is_final` of it."""

    def __init__(self, kind: str, message: str, *, final: bool = False) -> None:
        super().__init__(message)
        self.kind = kind
        self.final = final


class Channel:
    """Frames over a blocking socket; `spin` may be set once it is known."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self.spin = 0.0
        self._eager = False
        self._frames = Frames()
        self._inbox: deque[tuple[int, ToChild]] = deque()
        self._outbox = bytearray()
        self._claims = -1
        self._pid = os.getpid()
        self._nonce = 0
        self._lock = RLock()
        self._asked = 0
        self._answers: dict[int, Answer | Denied] = {}

    def own(self) -> None:
        """This process is the instance: no other one may speak here."""
        self._pid = os.getpid()

    def begin(self, nonce: int) -> None:
        """A run begins: what is asked from now on is asked for it."""
        self._nonce = nonce
        # A caller that was interrupted while it waited for these never takes them.
        self._answers.clear()

    @property
    def crowded(self) -> bool:
        """Return whether more work is waiting already."""
        return bool(self._inbox)

    def take(self) -> tuple[int, ToChild]:
        """The next thing the host says; waits for it."""
        while not self._inbox:
            if self._outbox:
                self.flush()
            self._receive(self.spin)
        return self._inbox.popleft()

    def say(self, nonce: int, message: FromChild) -> None:
        """Answer; it leaves at the next flush or wait. A forked process ends here."""
        self.leave_if_forked()
        self._outbox += encode(nonce, message)
        if len(self._outbox) > GATHER_BYTES:
            self.flush()

    def claim(self) -> bool:
        """Return whether a run that was sent ahead is still ours to begin."""
        # First send what came before it: an end after that is a fault of this run.
        self.flush()
        try:
            os.eventfd_read(self._claims)
        except BlockingIOError:
            return False
        return True

    def flush(self) -> None:
        """Send what was gathered."""
        if not self._outbox:
            return
        try:
            self._link.sendall(self._outbox)
        except OSError:
            leave()
        self._outbox.clear()

    def tell(self, message: FromChild) -> None:
        """Say it for the running invocation, at once."""
        with self._lock:
            self.say(self._nonce, message)
            self.flush()

    def ask(self, question: Question, *, of_run: bool = True) -> Answer:
        """Put a question and wait for its answer: for the running invocation, or for the instance itself.

        Raises:
            HostRefused: The host could not answer.
        """
        with self._lock:
            self._asked += 1
            number = self._asked
            self.say(self._nonce if of_run else 0, Ask(number, question))
            self.flush()
            while number not in self._answers:
                self._receive(0.0)
            answer = self._answers.pop(number)
        if isinstance(answer, Denied):
            raise HostRefused(answer.kind, answer.message, final=answer.final)
        return answer

    def leave_if_forked(self) -> None:
        """Go on, unless this is another process than the instance; to be asked after the author's code."""
        if os.getpid() != self._pid:
            # However it was forked, and whatever of ours it came to.
            fork_detection.leave()

    def _receive(self, spin: float) -> None:
        data = b""
        if spin > 0 and self._eager:
            end = time.perf_counter() + spin
            while not data and time.perf_counter() < end:
                try:
                    data = self._hear(AT_ONCE)
                except BlockingIOError:
                    continue
                except OSError:
                    leave()
                if not data:
                    leave()
        if not data:
            began = time.perf_counter()
            try:
                data = self._hear(0)
            except OSError:
                leave()
            # Spin the next time only if it would have paid this time.
            self._eager = time.perf_counter() - began < spin
        if not data:
            leave()
        frames = self._frames.feed(data)
        if isinstance(frames, ProtocolError):
            leave()
        for nonce, body in frames:
            message = to_child(body)
            if isinstance(message, ProtocolError):
                leave()
            if type(message) is Answered:
                if nonce in (self._nonce, 0):
                    self._answers[message.number] = message.answer
            else:
                self._inbox.append((nonce, message))

    def _hear(self, flags: int) -> bytes:
        if self._claims >= 0:
            return self._link.recv(RECEIVE_BYTES, flags)
        # With the first run that is sent ahead comes the descriptor to claim such runs by.
        data, ancillary, _, _ = self._link.recvmsg(
            RECEIVE_BYTES, ANCILLARY_BYTES, flags | KEPT_TO_ITSELF
        )
        if ancillary:
            self._claims = int.from_bytes(ancillary[0][2][:4], sys.byteorder)
        return data


def leave() -> NoReturn:
    """End at once, without cleaning up: the channel is gone and so is the reason to be."""
    os._exit(EXIT_CHANNEL)
