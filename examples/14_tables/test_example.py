"""Orders are paid in an ordinary SQLite database; the node dies in between."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from function import app

from headrace.testing import World


def test_an_order_that_becomes_paid_is_invoiced_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with closing(sqlite3.connect("shop.db", isolation_level=None)) as shop:
        shop.execute("CREATE TABLE orders (id TEXT PRIMARY KEY, state TEXT, total REAL)")
        shop.execute("INSERT INTO orders VALUES ('A1', 'paid', 5.0), ('A2', 'new', 7.5)")
        with World(app) as world:
            world.advance("1s")
            shop.execute("UPDATE orders SET state = 'paid' WHERE id = 'A2'")
            world.crash()
            shop.execute("UPDATE orders SET total = 8.0 WHERE id = 'A2'")
            world.advance("1s")
            assert sorted(world.values("invoices"), key=str) == [
                {"order": "A1", "total": 5.0},
                {"order": "A2", "total": 7.5},
            ]
