"""The standard library's HTTP client, which takes any status but 100 for the answer: here the final one."""

from __future__ import annotations

import http.client
from typing import Final

MAX_INTERIM: Final = 20
MAX_LINES: Final = 200
_MAX_LINE: Final = 65_536


class FinalResponse(http.client.HTTPResponse):
    """An answer; informational ones before it are passed over (RFC 9110, 15.2).

    One that switches to another protocol, which is never asked for, is an answer as it stands.
    """

    def _read_status(self) -> tuple[str, int, str]:
        for _ in range(MAX_INTERIM):
            found: tuple[str, int, str] = super()._read_status()  # type: ignore[misc]  # not in its stub
            if not 100 <= found[1] < 200 or found[1] == http.client.SWITCHING_PROTOCOLS:
                return found
            self._pass_over_headers()
        raise http.client.HTTPException(f"more than {MAX_INTERIM} informational answers")

    def _pass_over_headers(self) -> None:
        for _ in range(MAX_LINES):
            if self.fp.readline(_MAX_LINE + 1) in {b"\r\n", b"\n", b""}:
                return
        raise http.client.HTTPException(f"got more than {MAX_LINES} headers")


class FinalConnection(http.client.HTTPConnection):
    """A connection whose answers are final."""

    response_class = FinalResponse


class FinalTlsConnection(http.client.HTTPSConnection):
    """The same over TLS."""

    response_class = FinalResponse
