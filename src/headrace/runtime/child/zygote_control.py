"""The zygote's end of its control socket: receives requests with descriptors, sends reports.

Reads follow a poll, writes block. An invalid frame, an invalid request and a closed socket raise
`EOFError`; requests are not checked further here.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence

from headrace.runtime.protocol.frames import Frames, ProtocolError
from headrace.runtime.protocol.messages import FromZygote, ToZygote, encode, to_zygote

REQUEST_BYTES = 1 << 12
ANCILLARY_BYTES = socket.CMSG_SPACE(64 * 4)
SOL_SOCKET, SCM_RIGHTS = int(socket.SOL_SOCKET), int(socket.SCM_RIGHTS)


class Control:
    """The zygote's end of its control socket."""

    def __init__(self, link: socket.socket) -> None:
        self.link = link
        self._frames = Frames()
        self._descriptors: list[int] = []

    def fileno(self) -> int:
        """Return the socket's descriptor, for polling."""
        return self.link.fileno()

    def receive(self) -> list[ToZygote]:
        """Receive messages of the host.

        Raises:
            EOFError: The host is gone or sent invalid data.
        """
        try:
            data, ancillary, _, _ = self.link.recvmsg(REQUEST_BYTES, ANCILLARY_BYTES)
        except ConnectionError:
            raise EOFError from None
        if not data:
            raise EOFError
        for level, kind, packed in ancillary:
            if level == SOL_SOCKET and kind == SCM_RIGHTS:
                # Descriptors may arrive before the rest of their frame, so they are queued in the
                # order of the requests.
                self._descriptors += memoryview(packed).cast("i")
        frames = self._frames.feed(data)
        if isinstance(frames, ProtocolError):
            raise EOFError(frames.reason)  # noqa: TRY004 - not a type error: the connection ends
        requests: list[ToZygote] = []
        for _, body in frames:
            request = to_zygote(body)
            if isinstance(request, ProtocolError):
                raise EOFError(request.reason)  # noqa: TRY004 - as above
            requests.append(request)
        return requests

    def take_descriptors(self, count: int) -> list[int]:
        """Remove and return the oldest received descriptors."""
        taken, self._descriptors = self._descriptors[:count], self._descriptors[count:]
        return taken

    def send(self, *messages: FromZygote, descriptors: Sequence[int] = ()) -> None:
        """Send messages to the host; descriptors travel with the first byte."""
        frames = b"".join(encode(0, message) for message in messages)
        try:
            if descriptors:
                sent = socket.send_fds(self.link, [frames], descriptors)
                # `sendmsg` may be partial on a stream socket; the descriptors have gone with its
                # first byte.
                frames = frames[sent:]
            if frames:
                self.link.sendall(frames)
        except ConnectionError as error:
            raise EOFError from error
