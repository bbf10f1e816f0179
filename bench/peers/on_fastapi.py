"""FastAPI on uvicorn with uvloop and httptools: the handler runs in the server's own process."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from bench.peers.uvicorn_server import serve_or_shoot

app = FastAPI()


@app.post("/")
async def echo(event: dict[str, Any]) -> dict[str, Any]:
    """Give back what came."""
    return event


def main() -> None:
    """Serve in a process of its own, and shoot."""
    serve_or_shoot("bench.peers.on_fastapi", __doc__, app)


if __name__ == "__main__":
    main()
