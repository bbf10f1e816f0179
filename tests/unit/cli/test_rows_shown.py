"""Lines of files become envelopes."""

from __future__ import annotations

import json

import pytest

from headrace.cli.input_lines import Fields, csv_lines, jsonl_lines, text_lines
from headrace.cli.publish import batches
from headrace.model.errors import Invalid


def test_json_lines_keep_their_bytes_and_take_the_one_key() -> None:
    found = list(jsonl_lines([b'{"a":  1}\n', b"\n", b"[2]"], Fields(key='k"'), "f"))
    assert found == [b'{"value":{"a":  1},"key":"k\\""}', b'{"value":[2],"key":"k\\""}']


def test_fields_become_key_time_and_id() -> None:
    fields = Fields(key_field="k", time_field="t", id_field="i")
    (line,) = jsonl_lines([b'{"k": 7, "t": "1.5", "i": "x"}'], fields, "f")
    assert json.loads(line) == {
        "value": {"k": 7, "t": "1.5", "i": "x"},
        "key": "7",
        "time": 1.5,
        "id": "x",
    }


def test_a_field_that_is_empty_means_no_key_and_no_time() -> None:
    fields = Fields(key_field="k", time_field="t")
    (line,) = jsonl_lines([b'{"k": null, "t": ""}'], fields, "f")
    assert set(json.loads(line)) == {"value"}


def test_csv_rows_become_objects_of_texts() -> None:
    lines = [b"\xef\xbb\xbfname,n\n", b'"a, b",1\n', b'"two\n', b'lines",2\n']
    found = [json.loads(line) for line in csv_lines(lines, Fields(key_field="name"), "f.csv")]
    assert found == [
        {"value": {"name": "a, b", "n": "1"}, "key": "a, b"},
        {"value": {"name": "two\nlines", "n": "2"}, "key": "two\nlines"},
    ]


def test_csv_rows_become_what_a_schema_says_while_keys_stay_texts() -> None:
    schema = {
        "type": "object",
        "properties": {"n": {"type": "integer"}, "name": {"type": "string"}},
    }
    lines = [b"name,n\n", b"7,007\n", b"8,x\n"]
    found = [json.loads(line) for line in csv_lines(lines, Fields(key_field="n"), "f.csv", schema)]
    assert found == [
        {"value": {"name": "7", "n": 7}, "key": "007"},
        {"value": {"name": "8", "n": "x"}, "key": "x"},
    ]


def test_text_lines_are_texts() -> None:
    found = list(text_lines([b"{no json\r\n", "ä".encode()], Fields(key="k"), "f"))
    assert [json.loads(line) for line in found] == [
        {"value_text": "{no json", "key": "k"},
        {"value_text": "ä", "key": "k"},
    ]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b'1,"key":"smuggled"', "f:2: this is not JSON"),
        (b"{", "f:2: this is not JSON"),
        (b"\xff", "f:2: this is not JSON"),
        (b'{"b": 1}', ""),
    ],
)
def test_a_line_that_is_no_json_is_named(line: bytes, says: str) -> None:
    if says:
        with pytest.raises(Invalid, match=says):
            list(jsonl_lines([b"1", line], Fields(), "f"))
    with pytest.raises(Invalid):
        list(jsonl_lines([b'{"a": 1}', line], Fields(key_field="a"), "f"))


def test_a_missing_field_is_named_with_those_there_are() -> None:
    with pytest.raises(Invalid, match=r"f:1: there is no field `k`; this one has `a`, `b`"):
        list(jsonl_lines([b'{"a": 1, "b": 2}'], Fields(key_field="k"), "f"))


def test_an_empty_id_is_refused() -> None:
    with pytest.raises(Invalid, match="f:1: the field `i` is empty"):
        list(jsonl_lines([b'{"i": ""}'], Fields(id_field="i"), "f"))


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ([b"a,b\n", b"1\n"], "f:2: this row has not the 2 fields"),
        ([b"a,b\n", b"1,2,3\n"], "f:2: this row has not the 2 fields"),
        ([b"a,b\n", b'"1,2\n'], "this is not CSV"),
        ([b"a,b\n", b"\xff,2\n"], "f:2: this is not UTF-8"),
    ],
)
def test_a_row_that_is_no_csv_is_named(lines: list[bytes], says: str) -> None:
    with pytest.raises(Invalid, match=says):
        list(csv_lines(lines, Fields(), "f"))


def test_text_has_no_fields() -> None:
    with pytest.raises(Invalid, match="no fields"):
        list(text_lines([b"x"], Fields(key_field="k"), "f"))


def test_batches_are_bounded_in_events_and_bytes() -> None:
    assert [len(batch) for batch in batches([b"x"] * 7, 3)] == [3, 3, 1]
    large = b"x" * (3 << 20)
    assert [len(batch) for batch in batches([large, large, b"x"], 100)] == [1, 2]
    assert list(batches([], 3)) == []


def test_columns_of_one_name_are_refused_by_their_names() -> None:
    lines = [b"a,b,a,c,b\n", b"1,2,3,4,5\n"]
    with pytest.raises(Invalid, match=r"f\.csv:1: several columns are named `a`, `b`"):
        list(csv_lines(lines, Fields(), "f.csv"))


def test_an_empty_text_of_json_is_a_key_and_an_empty_field_of_csv_is_none() -> None:
    fields = Fields(key="else", key_field="k")
    (line,) = jsonl_lines([b'{"k": ""}'], fields, "f")
    assert json.loads(line)["key"] == ""
    (line,) = jsonl_lines([b'{"k": null}'], fields, "f")
    assert json.loads(line)["key"] == "else"
    (line,) = csv_lines([b"k,v\n", b",1\n"], fields, "f")
    assert json.loads(line) == {"value": {"k": "", "v": "1"}, "key": "else"}
