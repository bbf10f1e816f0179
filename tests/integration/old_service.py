"""A service behind proxies and `Legacy` shares: it answers with what it was asked."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Upstream(BaseHTTPRequestHandler):
    """Says what it was asked."""

    protocol_version = "HTTP/1.1"

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        said = {
            "by": "old",
            "method": self.command,
            "path": self.path,
            "body": body.decode(),
            "headers": {name.lower(): text for name, text in self.headers.items()},
        }
        answer = json.dumps(said).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(answer)))
        self.send_header("connection", "x-hop")
        self.send_header("x-hop", "1")
        self.send_header("set-cookie", "a=1")
        self.send_header("set-cookie", "b=2")
        self.end_headers()
        self.wfile.write(answer)

    def _tell_length(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "image/png")
        if "unknown" in self.path:
            self.send_header("transfer-encoding", "chunked")
        else:
            self.send_header("content-length", "12345")
        self.end_headers()

    do_GET = do_POST = do_DELETE = _answer  # noqa: N815 - the names the library calls
    do_HEAD = _tell_length  # noqa: N815

    def log_message(self, *_: object) -> None: ...


@contextlib.contextmanager
def upstream() -> Iterator[str]:
    """Its address, while it is there."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
