"""The zygote's end of its control socket: requests with descriptors come in, reports go out.

Reads are made when there is something, writes block. An invalid frame, an invalid request and a
host that has gone end it with an `EOFError`; requests are not checked further here.
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
    """The zygote's end of its control socket; blocking writes, reads when there is something."""

    def __init__(self, link: socket.socket) -> None:
        self.link = link
        self._frames = Frames()
        self._descriptors: list[int] = []

    def fileno(self) -> int:
        """For polling."""
        return self.link.fileno()

    def receive(self) -> list[ToZygote]:
        """Receive messages of the host; ends the process if the host is gone or sends invalid data."""
        try:
            data, ancillary, _, _ = self.link.recvmsg(REQUEST_BYTES, ANCILLARY_BYTES)
        except ConnectionError:
            raise EOFError from None
        if not data:
            raise EOFError
        for level, kind, packed in ancillary:
            if level == SOL_SOCKET and kind == SCM_RIGHTS:
                self._descriptors += memoryview(packed).cast("i")
        frames = self._frames.feed(data)
        if isinstance(frames, ProtocolError):
            raise EOFError(frames.reason)  # noqa: TRY004 - not a type error: the end of the talk
        requests: list[ToZygote] = []
        for _, body in frames:
            request = to_zygote(body)
            if isinstance(request, ProtocolError):
                raise EOFError(request.reason)  # noqa: TRY004 - as above
            requests.append(request)
        return requests

    def take_descriptors(self, count: int) -> list[int]:
        """The oldest descriptors that came along."""
        taken, self._descriptors = self._descriptors[:count], self._descriptors[count:]
        return taken

    def say(self, *messages: FromZygote, descriptors: Sequence[int] = ()) -> None:
        """Send messages to the host; descriptors ride along with the first byte."""
        frames = b"".join(encode(0, message) for message in messages)
        try:
            if descriptors:
                sent = socket.send_fds(self.link, [frames], descriptors)
                frames = frames[sent:]
            if frames:
                self.link.sendall(frames)
        except ConnectionError as error:
            raise EOFError from error
