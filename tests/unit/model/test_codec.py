"""Values to bytes and back, and the JSON that is refused at the edge."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from typing import Any, TypedDict

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.model.codec import (
    MAX_INTEGER,
    MIN_INTEGER,
    Coder,
    codec_for,
    decode_state,
    encode_json,
    encode_state,
    may_be_misread,
    open_state,
    plain,
    state_decoder,
    validate_json,
)
from headrace.model.errors import Invalid, Misuse
from headrace.model.event import Event as Fact
from headrace.model.record import Chunk, encode_events
from headrace.sdk.event import Undecodable, open_chunk


class Order(msgspec.Struct):
    id: int
    price: float = 0.0


@dataclasses.dataclass
class Plain:
    id: int


class Typed(TypedDict):
    id: int


class Model(pydantic.BaseModel):
    id: int


@pytest.mark.parametrize(
    ("of", "value"),
    [
        (Order, Order(1, 2.5)),
        (Plain, Plain(1)),
        (Typed, {"id": 1}),
        (Model, Model(id=1)),
        (list[int], [1, 2]),
        (int | None, None),
        (str, "grüezi"),
        (bytes, b"\x00\xff"),
        (Any, {"a": [1, None, "x"]}),
    ],
)
def test_a_value_comes_back_as_it_went(of: Any, value: Any) -> None:
    coder = Coder(codec_for(of), of)
    assert coder.decode(coder.encode(value)) == value


@pytest.mark.parametrize("of", [Order, Plain, Typed, Model, dict[str, int], Any])
def test_msgpack_streams_hold_the_same_types(of: Any) -> None:
    value = {"id": 1} if of in (Typed, Any, dict[str, int]) else of(id=1)
    coder = Coder("msgpack", of)
    assert coder.decode(coder.encode(value)) == value


def test_a_dict_is_taken_where_it_fits_the_type_and_refused_where_it_does_not() -> None:
    coder = Coder("json", Order)
    assert coder.decode(coder.encode({"id": 3})) == Order(3)
    with pytest.raises(Invalid, match=r"not what the stream holds \(`Order`\).*Expected `int`"):
        coder.encode({"id": "three"})


def test_bytes_are_refused_by_a_json_stream_with_the_fix() -> None:
    with pytest.raises(Invalid, match="value=bytes"):
        Coder("json").encode(b"{}")
    assert Coder("json").encode(msgspec.Raw(b'{"a":1}')) == b'{"a":1}'


@pytest.mark.parametrize(("codec", "value"), [("bytes", "text"), ("text", b"bytes"), ("text", 1)])
def test_raw_streams_refuse_other_kinds(codec: str, value: Any) -> None:
    with pytest.raises(Invalid, match=f"stream of {codec}"):
        Coder(codec).encode(value)


def test_a_lone_surrogate_cannot_be_written_as_text() -> None:
    with pytest.raises(Invalid, match="not Unicode"):
        Coder("text").encode("\ud800")


def test_what_has_no_json_form_is_named() -> None:
    with pytest.raises(Invalid, match="`object` cannot be written as json"):
        Coder("json").encode(object())


class Measured(msgspec.Struct):
    at: float
    by: dict[str, float] = {}
    more: list[Any] = []


class Numbered(pydantic.BaseModel):
    by: dict[int | str, float]


NAN, INFINITY = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (NAN, "the value at `/` is nan"),
        (INFINITY, "the value at `/` is inf"),
        ([None, {"a": -INFINITY}], "the value at `/1/a` is -inf"),
        ({"a/b": {"c~d": (1, NAN)}}, "the value at `/a~1b/c~0d/1` is nan"),
        (2**64, "the value at `/` is the integer 1.84467e+19"),
        ({"n": -(2**63) - 1}, "the value at `/n` is the integer -9.22337e+18"),
        ({1: "a", "1": "b"}, "the value at `/` has the keys 1 and '1'"),
        ([{"deep": {2.5: 1, "2.5": 2}}], "the value at `/0/deep` has the keys 2.5 and '2.5'"),
        (Measured(NAN), "the value at `/at` is nan"),
        (Measured(1.0, {"x": INFINITY}), "the value at `/by/x` is inf"),
        (Measured(1.0, {}, [{1: 1, "1": 2}]), "the value at `/more/0` has the keys 1 and '1'"),
        (Numbered(by={1: NAN}), "the value at `/by/1` is nan"),
    ],
)
def test_what_json_cannot_hold_is_refused_with_its_place(value: Any, said: str) -> None:
    of = type(value) if isinstance(value, (msgspec.Struct, pydantic.BaseModel)) else Any
    for encode in (Coder("json", of).encode, Coder("json").encode, encode_json):
        with pytest.raises(Invalid) as refused:
            encode(value)
        assert said in str(refused.value)


@pytest.mark.parametrize(
    "value",
    [
        {"a": None, "b": 1.5, "c": "null", "d": "1" * 40},
        {"n": MAX_INTEGER, "m": MIN_INTEGER, "none": None},
        {1: "a", "2": {3.5: "b", "4": None}},
        [{"a": {"b": [{"c": None}]}}, None],
        Measured(1e308, {"x": -0.0}, [None, {1: 2}]),
        Numbered(by={1: 1.0, "2": 2.0}),
        # Bytes of these look like an infinity in msgpack.
        {"a": None, "t": "\u02df\x7f\uffff", "i": 0xCB7FF0000000},
    ],
)
def test_what_json_can_hold_is_written_as_ever(value: Any) -> None:
    assert encode_json(value) == msgspec.json.encode(plain(value))


class Line(msgspec.Struct):
    price: float
    parts: list[Line] = []


class Extended(Line):
    more: dict[Any, int] = {}


@pytest.mark.parametrize(
    ("of", "names_keys"),
    [(Any, True), (dict[str, int], True), (Measured, True), (Numbered, True), (Line, False)],
)
def test_only_types_that_name_all_their_keys_are_written_without_a_look_at_keys(
    of: Any, names_keys: bool
) -> None:
    assert Coder("json", of).names_keys is names_keys


def test_a_subclass_that_brings_keys_of_its_own_is_looked_at_where_it_is_written() -> None:
    write = Coder("json", Line).write
    fine = write(Extended(1.0, [], {1: 1, "2": 2}))
    assert may_be_misread(fine)
    with pytest.raises(Invalid, match="has the keys 1 and '1'"):
        write(Extended(1.0, [], {1: 1, "1": 2}))
    with pytest.raises(Invalid, match="the value at `/parts/0/price` is nan"):
        write(Line(1.0, [Line(NAN)]))


json_like: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**66), 2**66) | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=2) | st.integers(0, 3), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(json_like)
def test_whatever_is_written_passes_the_server_and_comes_back(value: Any) -> None:
    try:
        raw = encode_json(value)
    except Invalid:
        with pytest.raises(Invalid):
            validate_json(json.dumps(value).encode())
        return
    validate_json(raw)
    assert json.loads(raw) == json.loads(json.dumps(value))


def test_an_unknown_codec_lists_the_known_ones() -> None:
    with pytest.raises(Misuse, match="json, msgpack, bytes, text"):
        Coder("yaml")


@pytest.mark.parametrize("of", [Order, Plain, Typed, Model])
def test_types_have_a_schema(of: Any) -> None:
    schema = Coder("json", of).schema()
    assert schema is not None
    assert "id" in json.dumps(schema)


def test_what_says_nothing_has_no_schema() -> None:
    assert Coder("json").schema() is None
    assert Coder("bytes", bytes).schema() is None


def test_state_carries_its_own_expiry() -> None:
    kept = encode_state({"n": 1}, expires=123_456)
    assert open_state(kept)[1] == 123_456
    assert decode_state(kept) == {"n": 1}
    assert open_state(encode_state([1])) == (msgspec.msgpack.encode([1]), 0)


@given(st.binary(max_size=40))
def test_an_authors_bytes_are_never_taken_for_an_expiry(raw: bytes) -> None:
    kept = encode_state(raw)
    assert open_state(kept)[1] == 0
    assert decode_state(kept) == raw


def test_state_is_opened_as_the_type_asked_for() -> None:
    assert state_decoder(Order)(encode_state(Order(1))) == Order(1)
    assert state_decoder(Model)(encode_state(Model(id=2))) == Model(id=2)
    assert plain(Model(id=2)) == {"id": 2}


# The permanent corpus: what readers of JSON disagree about must not get in.
REFUSED = {
    "nothing": b"",
    "spaces only": b"  \n",
    "not UTF-8": b'"\xff"',
    "a surrogate as raw bytes": b'"\xed\xa0\x80"',
    "a lone high surrogate": b'"\\ud800"',
    "a lone low surrogate": b'"\\udc00"',
    "a high surrogate before a letter": b'"\\ud800abc"',
    "a high surrogate before another escape": b'"\\ud800\\u0041"',
    "two high surrogates": b'"\\ud800\\ud800"',
    "a lone surrogate in a key": b'{"\\ud800":1}',
    "NaN": b"NaN",
    "NaN inside": b'{"a":NaN}',
    "Infinity": b"[Infinity]",
    "minus Infinity": b"-Infinity",
    "a number beyond a double": b"1e400",
    "a negative number beyond a double": b'{"a":-1e400}',
    "an integer beyond 64 bits": b"18446744073709551616",
    "an integer below 64 bits": b"[-9223372036854775809]",
    "a very long integer": b'{"a":{"b":[' + b"9" * 5_000 + b"]}}",
    "an integer beyond 64 bits in what is otherwise plainly written": b'{"a":18446744073709551616}',
    "a key twice": b'{"a":1,"a":2}',
    "a key twice with one value, far inside": b'{"b":[{"a":1,"c":2,"a":1}]}',
    "a key twice, far inside": b'[{"a":{"b":1,"c":2,"b":3}}]',
    "a key twice, written differently": b'{"a":1,"\\u0061":2}',
    "a key twice, with spaces before the colon": b'{"a":1,"a" :2}',
    "a key twice, next to a text with a colon": b'{"a":"\\":","a":2}',
    "201 arrays": b"[" * 201 + b"]" * 201,
    "100,000 arrays": b"[" * 100_000 + b"]" * 100_000,
    "100,000 objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "100,000 arrays left open": b"[" * 100_000,
    "a raw NUL": b'"\x00"',
    "a raw control character": b'"\x1f"',
    "a byte order mark": b"\xef\xbb\xbf{}",
    "a comment": b"{}/* */",
    "a trailing comma": b"[1,]",
    "two values": b"1 2",
    "single quotes": b"{'a':1}",
    "a leading zero": b"01",
    "a plus sign": b"+1",
    "UTF-16": '{"a":1}'.encode("utf-16"),
    "a bare word": b"undefined",
}

ACCEPTED = {
    "null": b"null",
    "spaces around": b" \r\n\t{ } ",
    "the largest integer": str(MAX_INTEGER).encode(),
    "the smallest integer": str(MIN_INTEGER).encode(),
    "many digits after the point": b"0.1234567890123456789012345",
    "many digits as text": b'"12345678901234567890123"',
    "the smallest double": b"5e-324",
    "an escaped NUL": b'"\\u0000"',
    "a pair of surrogates": b'"\\ud83d\\ude00"',
    "an escaped backslash before a u": b'"\\\\ud800"',
    "the same key in two objects": b'[{"a":1},{"a":2}]',
    "a nested object with its parent's key": b'{"a":{"a":1}}',
    "colons in texts": b'{"at":"05:00:00","b":"\\":"}',
    "brackets in texts": b'{"a":"' + b"[{" * 500 + b'"}',
    "200 arrays": b"[" * 200 + b"]" * 200,
    "many arrays side by side": b"[" + b",".join([b"[]"] * 1_000) + b"]",
    "a key with a colon": b'{":":1,"\\":":2}',
    "delete": b'"\x7f"',
}


@pytest.mark.parametrize("raw", REFUSED.values(), ids=REFUSED.keys())
def test_json_that_readers_disagree_about_is_refused(raw: bytes) -> None:
    with pytest.raises(Invalid):
        validate_json(raw)


@pytest.mark.parametrize("raw", ACCEPTED.values(), ids=ACCEPTED.keys())
def test_json_that_all_readers_understand_passes(raw: bytes) -> None:
    validate_json(raw)


def test_a_repeated_key_is_named() -> None:
    with pytest.raises(Invalid, match="key `price` twice"):
        validate_json(b'{"price":1,"price":2}')


_json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(MIN_INTEGER, MAX_INTEGER)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(_json_values, st.sampled_from([None, 1]), st.booleans())
def test_whatever_python_writes_passes(value: Any, indent: int | None, ascii_only: bool) -> None:
    try:
        raw = json.dumps(value, indent=indent, ensure_ascii=ascii_only).encode()
    except UnicodeEncodeError:
        return
    validate_json(raw)


@given(
    st.dictionaries(st.text(max_size=5), st.text(max_size=8) | st.integers(0, 9), min_size=1),
    st.data(),
)
def test_a_doubled_member_is_always_found(members: dict[str, Any], data: st.DataObject) -> None:
    pairs = list(members.items())
    pairs.insert(data.draw(st.integers(0, len(pairs))), data.draw(st.sampled_from(pairs)))
    colon = data.draw(st.sampled_from([":", " :", ": ", "\n:"]))
    text = ",".join(f"{json.dumps(key)}{colon}{json.dumps(value)}" for key, value in pairs)
    with pytest.raises(Invalid, match="twice"):
        validate_json(f"{{{text}}}".encode())


@pytest.mark.parametrize("of", [Any, Order, Typed, Model, str, bytes, dict[str, int]])
def test_no_payload_harms_its_reader(of: Any) -> None:
    decode = Coder(codec_for(of), of).decode
    for raw in (*REFUSED.values(), *ACCEPTED.values()):
        chunk = Chunk("s", 0, 0, 1, encode_events([Fact(raw)]), 0, 0, 1)
        (event,) = open_chunk(chunk, 0, decode)
        with contextlib.suppress(Undecodable):
            _ = event.value
        assert event.raw == raw
