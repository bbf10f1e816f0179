"""The SQL of the embedded log stands in one page: every statement is valid, named and used."""

from __future__ import annotations

import re
from pathlib import Path

import apsw

from headrace.storage.kv.sqlite.data_folder import MIGRATIONS
from headrace.storage.log.embedded import statements
from headrace.storage.log.embedded.statements import SQL, read_statements

FOLDER = Path(statements.__file__).parent
CODE = {file.name: file.read_text() for file in FOLDER.glob("*.py")}


def test_every_statement_fits_the_tables() -> None:
    connection = apsw.Connection(":memory:")
    for script in sorted(MIGRATIONS.glob("*.sql")):
        for _ in connection.execute(script.read_text()):
            pass
    for name, sql in SQL.items():
        values = tuple(
            apsw.carray((b"",)) if "carray" in sql else 0 for _ in re.findall(r"\?", sql)
        )
        assert list(connection.execute(f"EXPLAIN {sql}", values)), name


def test_every_statement_is_used_and_every_one_used_is_there() -> None:
    used = {name for text in CODE.values() for name in re.findall(r'SQL\["(\w+)"\]', text)}
    assert used == set(SQL)


def test_no_statement_stands_in_the_code() -> None:
    sql = re.compile(r'"(SELECT|INSERT|UPDATE|DELETE) ')
    assert [name for name, text in CODE.items() if sql.search(text)] == []


def test_a_page_is_split_at_its_names_and_loses_its_comments() -> None:
    page = "-- About the page.\n-- name: one\nSELECT 1,\n  2\n\n-- why\n-- name: two\nSELECT 3\n"
    assert read_statements(page) == {"one": "SELECT 1, 2", "two": "SELECT 3"}
