"""A small synchronous client of a node's HTTP API, on the standard library alone.

Comes in: method, path, body. Goes out: JSON data, or the error of our own family that the node's
problem+json names. One connection is kept open; one client serves one thread. A request that may be
repeated (it only reads, or carries an idempotency key) is, where the connection broke.
"""

from __future__ import annotations

import functools
import http.client
import json
import socket
import ssl
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from headrace.client.final_response import FinalConnection, FinalTlsConnection
from headrace.model import errors
from headrace.model.route import API_PREFIX

ENVELOPES = "application/vnd.headrace.events+x-ndjson"
_FAMILY: dict[str, type[errors.HeadraceError]] = {
    kind.code: kind
    for kind in (
        errors.HeadraceError,
        errors.Misuse,
        errors.Unknown,
        errors.Invalid,
        errors.TooLarge,
        errors.Unavailable,
        errors.DiskFull,
        errors.Overloaded,
        errors.Fenced,
        errors.Conflict,
        errors.Refused,
        errors.Corrupt,
    )
}
_BROKEN = (ConnectionError, http.client.HTTPException, TimeoutError, socket.gaierror, OSError)


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


class NodeResponse:
    """Response of a node: status, headers and body. Only successful ones reach the caller."""

    __slots__ = ("body", "headers", "status")

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    def json(self) -> Any:
        """The body as data.

        Raises:
            Unavailable: It is not JSON: whatever answered is not a node.
        """
        try:
            return json.loads(self.body)
        except ValueError as error:
            raise errors.Unavailable(
                "what answered is not a Headrace node: its answer is not JSON; check the address"
            ) from error


class Client:
    """Talks to one node. Close it, or use it as a context manager.

    Args:
        url: Its address.
        timeout: Seconds until a read is given up.
        token: Sent as a bearer token; "" for none.
        certificate: A PEM file: the one certificate that is trusted, whatever name it is for; ""
            trusts what the system does.
    """

    def __init__(
        self, url: str, *, timeout: float = 60.0, token: str = "", certificate: str = ""
    ) -> None:
        parts = urlsplit(url if "//" in url else f"http://{url}")
        try:
            port = parts.port
        except ValueError:
            port = -1
        if parts.scheme not in {"http", "https"} or not parts.hostname or port == -1:
            raise errors.Misuse(
                f"`{url}` is not an address of a node; write one like `http://127.0.0.1:4280`"
            )
        self.url = f"{parts.scheme}://{parts.netloc}"
        self._base = parts.path.rstrip("/")
        self._connect: Callable[[], http.client.HTTPConnection]
        if parts.scheme == "https":
            trusted = _only(certificate) if certificate else None
            self._connect = functools.partial(
                FinalTlsConnection, parts.hostname, port, timeout=timeout, context=trusted
            )
        else:
            self._connect = functools.partial(
                FinalConnection, parts.hostname, port, timeout=timeout
            )
        self._connection: http.client.HTTPConnection | None = None
        self._token = token

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let the connection go; safe to call twice."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def get(self, *path: str, **query: str | float | bool | None) -> Any:
        """Read something; segments of the path are quoted, None parameters left out."""
        return self.request("GET", path, query=query).json()

    def document(self, path: str) -> Any:
        """Read what stands at the root and not among the platform's own paths, such as `/openapi.json`."""
        return self._send("GET", path).json()

    def post(self, *path: str, data: Any = None) -> Any:
        """Change something by a JSON body."""
        body = json.dumps({} if data is None else data).encode()
        return self.request("POST", path, body=body, media="application/json").json()

    def publish(
        self,
        stream: str,
        body: bytes,
        *,
        media: str = "application/json",
        key: str | None = None,
        idempotency_key: str | None = None,
        id: str | None = None,
        delay: float | None = None,
        at: str | None = None,
    ) -> Any:
        """Publish one value, or with `media=ENVELOPES` one envelope a line; to a queue also later."""
        headers = {} if idempotency_key is None else {"Idempotency-Key": idempotency_key}
        return self.request(
            "POST",
            ("streams", stream),
            query={"key": key, "id": id, "delay": delay, "at": at},
            body=body,
            media=media,
            headers=headers,
            repeatable=idempotency_key is not None,
        ).json()

    def request(
        self,
        method: str,
        path: Iterable[str],
        *,
        query: Mapping[str, str | float | bool | None] | None = None,
        body: bytes | None = None,
        media: str = "",
        headers: Mapping[str, str] | None = None,
        repeatable: bool | None = None,
    ) -> NodeResponse:
        """Ask the node at one of the platform's own paths, whose segments are `path`.

        Raises:
            Unavailable: Nothing answers at the address, or what does is not a node.
            HeadraceError: What the node says is wrong, as the class its `code` names.
        """
        target = API_PREFIX + "".join(f"/{quote(part, safe='')}" for part in path)
        asked = {name: value for name, value in (query or {}).items() if value is not None}
        if asked:
            target += f"?{urlencode(asked)}"
        return self._send(
            method, target, body=body, media=media, headers=headers, repeatable=repeatable
        )

    def _send(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        media: str = "",
        headers: Mapping[str, str] | None = None,
        repeatable: bool | None = None,
    ) -> NodeResponse:
        target = self._base + path
        sent = {"Accept": "application/json", **(headers or {})}
        if media:
            sent["Content-Type"] = media
        if self._token:
            sent["Authorization"] = f"Bearer {self._token}"
        fresh = self._connection is None
        try:
            answer = self._exchange(method, target, body, sent)
        except _BROKEN as error:
            self.close()
            again = method == "GET" if repeatable is None else repeatable
            # A kept connection that the node closed meanwhile is not a failure of the node.
            if fresh or not again:
                raise self._unreachable(error) from error
            try:
                answer = self._exchange(method, target, body, sent)
            except _BROKEN as second:
                self.close()
                raise self._unreachable(second) from second
        if answer.status >= 400:
            raise error_of(answer)
        return answer

    def _exchange(
        self, method: str, target: str, body: bytes | None, headers: Mapping[str, str]
    ) -> NodeResponse:
        if self._connection is None:
            self._connection = self._connect()
        connection = self._connection
        try:
            connection.request(method, target, body=body, headers=dict(headers))
        except (BrokenPipeError, ConnectionResetError):
            # The node may have answered (too large, overloaded) before it read everything.
            if connection.sock is None:
                raise
        response = connection.getresponse()
        found = NodeResponse(response.status, dict(response.getheaders()), response.read())
        if response.will_close:
            self.close()
        return found

    def _unreachable(self, error: BaseException) -> errors.Unavailable:
        if isinstance(error, TimeoutError):
            return errors.Unavailable(
                f"the node at `{self.url}` did not answer in time; it is busy or stuck: try again, "
                "and look at its log"
            )
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return errors.Unavailable(
            f"no node answers at `{self.url}` ({reason}); start one with `headrace dev app.py`, or "
            "name its address with `--url` or `HEADRACE_URL`"
        )


def error_of(answer: NodeResponse) -> errors.HeadraceError:
    """The error a refusal means, in the family the node speaks of."""
    try:
        problem = json.loads(answer.body)
        code, detail = str(problem["code"]), str(problem["detail"])
    except (ValueError, KeyError, TypeError):
        text = answer.body[:200].decode(errors="replace").strip()
        return errors.Unavailable(
            f"the node answered {answer.status} without saying why ({text or 'no text'}); "
            "check the address and the node's log"
        )
    kind = _FAMILY.get(code)
    if kind is None:
        kind = errors.Misuse if answer.status < 500 else errors.HeadraceError
    error = kind(detail)
    retry_after = next(
        (value for name, value in answer.headers.items() if name.lower() == "retry-after"), ""
    )
    if retry_after.isdigit():
        error.add_note(f"retry-after: {retry_after}")
    return error


def retry_after_of(error: errors.HeadraceError) -> float | None:
    """Seconds the node asked to wait before trying again; None where it did not."""
    for note in getattr(error, "__notes__", ()):
        name, _, seconds = note.partition(": ")
        if name == "retry-after":
            return float(seconds)
    return None
