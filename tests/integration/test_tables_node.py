"""Tables on a real node that is killed again and again while others write: every row once."""

from __future__ import annotations

import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tests.integration.gateway_nodes import operator, records, start, wait_for
from tests.services.servers import Server, absent, missing

psycopg = pytest.importorskip("psycopg")

APP = '''
"""Rows of two databases."""

from headrace import App, Event
from headrace.sources import SqlTable

app = App("rows")
seen = app.stream("seen")


@app.function(SqlTable("postgresql://postgres@127.0.0.1:{port}/postgres", "orders"), output=seen)
def remote(event: Event) -> str:
    return "postgres " + event.key


@app.function(SqlTable("sqlite:///shop.db", "orders"), output=seen)
def local(event: Event) -> str:
    return "sqlite " + event.key
'''


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    if reason := missing("postgres"):
        absent(reason)
    server = Server("postgres", tmp_path / "postgres")
    server.start()
    yield server
    server.kill()


def write(databases: list[Any], first: int, count: int) -> None:
    for number in range(first, first + count):
        for database in databases:
            database.execute(f"INSERT INTO orders VALUES ({number})")
        time.sleep(0.02)


def test_a_node_killed_again_and_again_tells_every_row_once(server: Server, tmp_path: Path) -> None:
    place = tmp_path / "node"
    place.mkdir()
    place.chmod(place.stat().st_mode | 0o755)
    (place / "app.py").write_text(APP.format(port=server.port))
    url = f"postgresql://postgres@127.0.0.1:{server.port}/postgres"
    with (
        psycopg.connect(url, autocommit=True) as remote,
        closing(sqlite3.connect(place / "shop.db", isolation_level=None)) as local,
    ):
        databases = [remote, local]
        for database in databases:
            database.execute("CREATE TABLE orders (id integer PRIMARY KEY)")
        write(databases, 0, 20)
        number = 20
        for life in range(4):
            process, _ = start(place)
            try:
                write(databases, number, 12 + 5 * life)
            finally:
                process.send_signal(signal.SIGKILL)
                process.wait()
            number += 12 + 5 * life
            write(databases, number, 2)
            number += 2
        process, node = start(place)
        try:
            with operator(node) as client:
                wait_for(lambda: len(records(client, "seen")) >= 2 * number, 30)
                time.sleep(0.5)
                assert Counter(records(client, "seen")) == Counter(
                    f"{name} {each}" for name in ("postgres", "sqlite") for each in range(number)
                )
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(20)
