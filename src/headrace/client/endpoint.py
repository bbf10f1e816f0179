"""The node that a client talks to: its address as given or found, and what is shown to be let in."""

from __future__ import annotations

import ssl
from pathlib import Path
from urllib.parse import urlsplit

from headrace.client.address import client_address, read_note
from headrace.client.calls import Call
from headrace.model import errors


class Endpoint:
    """Address of a node, taken apart.

    Args:
        url: As given; None finds the node as commands do.
        token: As given; None takes `HEADRACE_TOKEN`, else the key of a node on this machine.
        data: The node's data folder.
        certificate: A PEM file, the only certificate that is trusted; None takes that of a node on this machine.

    Attributes:
        url: Scheme, host and port.
        base: The path below which the node is, for a node behind a proxy.
        host: The name or address alone.
        port: None is the scheme's own.
        is_tls: Whether it speaks https.

    Raises:
        Misuse: The address cannot be one, or no node runs on the data folder that was named.
    """

    def __init__(
        self, url: str | None, token: str | None, data: Path | None, certificate: str | None
    ) -> None:
        note = None
        if url is None and data is not None and (note := read_note(data)) is None:
            # The user did not mean another node, perhaps to delete there.
            raise errors.Misuse(
                f"no node runs on the data folder `{data}`: it holds no `node.json`; start one with "
                f"`headrace serve app.py --data {data}`, or name another folder"
            )
        # What is given wins: the environment names no node where a folder was named.
        found = client_address(url if note is None else note.api, data=data)
        given = found.url if url is None else url
        parts = urlsplit(given if "//" in given else f"http://{given}")
        try:
            self.port = parts.port
        except ValueError:
            self.port = -1
        if parts.scheme not in {"http", "https"} or not parts.hostname or self.port == -1:
            raise errors.Misuse(
                f"`{given}` is not an address of a node; write one like `http://127.0.0.1:4280`"
            )
        self.url = f"{parts.scheme}://{parts.netloc}"
        self.base = parts.path.rstrip("/")
        self.host = parts.hostname
        self.is_tls = parts.scheme == "https"
        self._token = found.token if token is None else token
        self._certificate = found.certificate if certificate is None else certificate

    def headers(self, call: Call[object]) -> dict[str, str]:
        """Those of a request."""
        sent = {"Accept": "application/json", **call.headers}
        if call.media:
            sent["Content-Type"] = call.media
        if self._token:
            sent["Authorization"] = f"Bearer {self._token}"
        return sent

    def tls(self) -> ssl.SSLContext | None:
        """A context that trusts the one certificate; None trusts what the system does.

        Raises:
            Unavailable: It cannot be read.
        """
        return _only(self._certificate) if self.is_tls and self._certificate else None


def _only(certificate: str) -> ssl.SSLContext:
    """A context that trusts this certificate itself and no authority."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        context.load_verify_locations(certificate)
    except OSError as error:
        raise errors.Unavailable(
            f"the node's certificate `{certificate}` cannot be read: {error.strerror or error}"
        ) from error
    return context
