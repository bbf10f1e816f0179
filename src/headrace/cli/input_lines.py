"""The lines of a file -> envelopes as the HTTP server reads them. Pure.

JSON lines keep their bytes as the value; CSV rows become JSON objects, of texts or of what a schema
says; text lines become texts. Key, time and id are taken from the named fields. A line that cannot be is named by its number.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from headrace.model.errors import Invalid
from headrace.model.jsonschema import coerce_row

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode
_look = msgspec.json.Decoder(msgspec.Raw).decode


class Fields(msgspec.Struct, frozen=True, kw_only=True):
    """Fields that an event's key, time and id come from."""

    key: str | None = None
    key_field: str | None = None
    time_field: str | None = None
    id_field: str | None = None

    @property
    def any(self) -> bool:
        """Return whether a value has to be opened at all."""
        return bool(self.key_field or self.time_field or self.id_field)


def jsonl_lines(lines: Iterable[bytes], fields: Fields, source: str) -> Iterator[bytes]:
    """One envelope per line of JSON; empty lines are passed over.

    Raises:
        Invalid: A line is not JSON, or lacks a field.
    """
    tail = b',"key":' + _encode(fields.key) + b"}" if fields.key is not None else b"}"
    for number, line in enumerate(lines, start=1):
        value = line.strip()
        if not value:
            continue
        try:
            if not fields.any:
                # Looked through, not opened: half a value must not become part of the envelope.
                _look(value)
                yield b'{"value":' + value + tail
                continue
            row = _decode(value)
        except (msgspec.DecodeError, RecursionError) as error:
            raise Invalid(f"{source}:{number}: this is not JSON: {error}") from error
        if not isinstance(row, dict):
            raise Invalid(
                f"{source}:{number}: fields were named, and this is not a JSON object but a "
                f"{type(row).__name__}"
            )
        yield _envelope(b'{"value":' + value, row, fields, f"{source}:{number}")


def csv_lines(
    lines: Iterable[bytes], fields: Fields, source: str, schema: Mapping[str, Any] | None = None
) -> Iterator[bytes]:
    """One envelope per row of a CSV file with a header line; fields are texts, or as `schema` says.

    Raises:
        Invalid: A row has more or fewer fields than the header, two fields have one name, or it is
            not UTF-8.
    """
    reader = csv.DictReader(_texts(lines, source), strict=True)
    try:
        names = Counter(reader.fieldnames or ())
        if twice := [name for name, count in names.items() if count > 1]:
            raise Invalid(
                f"{source}:1: several columns are named {', '.join(f'`{name}`' for name in twice)}; "
                "give each a name of its own in the header line"
            )
        for row in reader:
            where = f"{source}:{reader.line_num}"
            if None in row or None in row.values():
                raise Invalid(
                    f"{where}: this row has not the {len(reader.fieldnames or ())} fields of the "
                    "header line; quote fields that hold commas"
                )
            value = row if schema is None else coerce_row(schema, row)
            # An empty field of CSV says nothing; an empty text of JSON is one.
            said = {name: text or None for name, text in row.items()}
            yield _envelope(b'{"value":' + _encode(value), said, fields, where)
    except csv.Error as error:
        raise Invalid(f"{source}:{reader.line_num}: this is not CSV: {error}") from error


def text_lines(lines: Iterable[bytes], fields: Fields, source: str) -> Iterator[bytes]:
    """One envelope per line, whose value is the line's text.

    Raises:
        Invalid: Fields were named, which text has not, or a line is not UTF-8.
    """
    if fields.any:
        raise Invalid("lines of text have no fields; use `--key`, or `--format jsonl`")
    for line in _texts(lines, source):
        yield _envelope(b'{"value_text":' + _encode(line.rstrip("\r\n")), {}, fields, source)


def _texts(lines: Iterable[bytes], source: str) -> Iterator[str]:
    for number, line in enumerate(lines, start=1):
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise Invalid(f"{source}:{number}: this is not UTF-8 text: {error.reason}") from error


def _envelope(head: bytes, row: dict[str, Any], fields: Fields, where: str) -> bytes:
    parts = [head]
    key = fields.key
    if fields.key_field and (found := _field(row, fields.key_field, where)) is not None:
        key = _text(found)
    if key is not None:
        parts.append(b'"key":' + _encode(key))
    if fields.time_field and (found := _field(row, fields.time_field, where)) not in (None, ""):
        parts.append(b'"time":' + _encode(_number_or_text(found)))
    if fields.id_field:
        found = _field(row, fields.id_field, where)
        if found in (None, ""):
            raise Invalid(f"{where}: the field `{fields.id_field}` is empty, and an id cannot be")
        parts.append(b'"id":' + _encode(_text(found)))
    return b",".join(parts) + b"}"


def _field(row: dict[str, Any], name: str, where: str) -> Any:
    if name not in row:
        known = ", ".join(f"`{field}`" for field in list(row)[:12])
        raise Invalid(f"{where}: there is no field `{name}`; this one has {known}")
    return row[name]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else _encode(value).decode()


def _number_or_text(value: Any) -> Any:
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value
