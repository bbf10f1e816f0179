"""Limits of one read: rows are taken one by one, and only as many as fit. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from headrace.model.errors import TooLarge


def within(rows: Iterable[tuple[bytes, bytes]], most: int) -> Iterator[tuple[bytes, bytes]]:
    """The rows, while their values have at most `most` bytes together.

    Raises:
        TooLarge: They have more; the rows after that are not looked at.
    """
    for row in rows:
        # Checked before the row is yielded: a list of everything would already hold the memory
        # that the limit protects.
        most -= len(row[1])
        if most < 0:
            raise _too_large()
        yield row


def weigh(values: Iterable[bytes | None], most: int) -> None:
    """Refuse values that have more than `most` bytes together, each counted as often as it is there.

    Raises:
        TooLarge: They have.
    """
    # A key requested twice is sent twice, so its value is counted twice.
    if sum(len(value) for value in values if value is not None) > most:
        raise _too_large()


def _too_large() -> TooLarge:
    return TooLarge(
        "the requested values are larger together than one answer may be; request fewer "
        "keys at a time, or with a smaller `limit`"
    )
