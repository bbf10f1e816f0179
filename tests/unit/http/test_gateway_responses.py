"""What the server shows of payloads is JSON, whatever bytes they are."""

from __future__ import annotations

import msgspec
import pytest

from headrace.http.response import payload


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (b'{"a": 1}', "value"),
        (b"plain", "value_text"),
        (b"\xff\xfe", "value_base64"),
        (b'{"name": "\xdc"}', "value_base64"),
    ],
)
def test_a_payload_is_shown_under_the_name_that_says_how_it_is_written(
    value: bytes, name: str
) -> None:
    shown = payload(value)
    assert list(shown) == [name]
    msgspec.json.encode(shown).decode()
