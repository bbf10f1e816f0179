"""Redis Streams by a consumer group, with redis-py.

What this consumer took and did not acknowledge comes first, then, now and then, what other
consumers of the group have left lying, then what is new. An entry's id is never used twice.
"""

from __future__ import annotations

import base64
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from headrace.model.errors import Misuse, Unavailable
from headrace.model.event import Event
from headrace.model.triggers.foreign import RedisStream
from headrace.sources.foreign.base import DriverContext, ForeignMessage, address_of, lacking
from headrace.sources.foreign.feed import headers_of

try:
    from redis import asyncio as redis
    from redis import exceptions as problems
except ImportError as error:
    raise lacking("redis", error) from error

# Less than the socket's timeout, which would end a blocking read as a lost connection.
WAIT_MS = 1_000
TIMEOUT_S = 15.0


class RedisSource:
    """One consumer, named after the function, of one group."""

    def __init__(self, trigger: RedisStream, around: DriverContext) -> None:
        self._trigger = trigger
        self._clock = around.clock
        self._group = trigger.group or around.name
        self._consumer = around.name
        self._redis: redis.Redis | None = None
        self._own = "0"
        self._swept = 0.0
        self._cursor = "0-0"

    async def connect(self, places: Mapping[str, str]) -> Mapping[str, str]:
        """Connect, and make the group where there is none."""
        trigger = self._trigger
        self._own = "0"
        self._cursor = "0-0"
        self._redis = redis.Redis.from_url(
            trigger.url,
            socket_connect_timeout=TIMEOUT_S,
            socket_timeout=TIMEOUT_S,
            # Values are bytes, and need not be UTF-8.
            decode_responses=False,
            # One for the read that blocks, one for acknowledgements.
            max_connections=2,
        )
        for command in ("XREADGROUP", "XAUTOCLAIM"):
            # As Redis answers: the library's own reading keeps the last field of each name only.
            self._redis.set_response_callback(command, _as_it_is)
        begin = "0" if trigger.start == "earliest" else "$"
        try:
            await self._redis.xgroup_create(trigger.stream, self._group, id=begin, mkstream=True)
        except problems.AuthenticationError as error:
            raise Misuse(f"{self._where} refuses the user or password: {error}") from error
        except problems.ConnectionError as error:
            raise self._lost(error) from error
        except problems.ResponseError as error:
            if "WRONGTYPE" in str(error):
                raise Misuse(f"{self._where}: the key holds no stream; name another") from error
            if "BUSYGROUP" not in str(error):
                raise self._lost(error) from error
        except (problems.RedisError, OSError) as error:
            raise self._lost(error) from error
        self._swept = self._clock.monotonic() - trigger.claim_after
        return places

    async def receive(self, limit: int) -> Sequence[ForeignMessage[bytes]]:
        """Own entries left from before, then abandoned ones, then new ones."""
        try:
            if self._own and (entries := await self._left(limit, self._own)):
                return await self._opened(entries)
            if entries := await self._abandoned(limit):
                return await self._opened(entries)
            return await self._opened(await self._read(">", limit))
        except (problems.RedisError, OSError) as error:
            raise self._lost(error) from error

    async def acknowledge(self, messages: Sequence[ForeignMessage[bytes]]) -> None:
        """Take the entries off the group's list of pending ones."""
        try:
            await self._open.xack(
                self._trigger.stream, self._group, *(message.receipt for message in messages)
            )
        except (problems.RedisError, OSError) as error:
            raise self._lost(error) from error

    async def close(self) -> None:
        """Hang up; the entries stay pending."""
        opened, self._redis = self._redis, None
        if opened is not None:
            await opened.aclose()

    async def _left(self, limit: int, after: str) -> list[Any]:
        entries = await self._read(after, limit)
        # Own pending entries are read once through: an id after the last one, until none is left.
        self._own = entries[-1][0].decode() if entries else ""
        return entries

    async def _abandoned(self, limit: int) -> list[Any]:
        now, every = self._clock.monotonic(), self._trigger.claim_after
        # A scan through the pending list goes on page by page; only a finished one waits for the
        # next round.
        if self._cursor == "0-0" and now - self._swept < every:
            return []
        self._swept = now
        answer = await self._open.xautoclaim(
            self._trigger.stream,
            self._group,
            self._consumer,
            # A consumer that is only slow must not lose its entries: they are taken after
            # `claim_after` alone.
            min_idle_time=int(every * 1_000),
            start_id=self._cursor,
            count=limit,
        )
        self._cursor = answer[0].decode()
        # Redis 6.2 has nil for an entry that was deleted.
        return [entry for entry in answer[1] if entry is not None]

    async def _read(self, after: str, limit: int) -> list[Any]:
        answer: Any = await self._open.xreadgroup(
            self._group,
            self._consumer,
            {self._trigger.stream: after},
            count=limit,
            # Redis ignores BLOCK for ids other than `>`: pending entries are there or not.
            block=WAIT_MS if after == ">" else None,
        )
        # The newer protocol has a map from streams to entries, the older one pairs, and nil for none.
        streams = (answer if isinstance(answer, dict) else dict(answer or ())).values()
        return [entry for entries in streams for entry in entries]

    async def _opened(self, entries: Sequence[Any]) -> list[ForeignMessage[bytes]]:
        gone = [place for place, fields in entries if not fields]
        if gone:
            # Trimmed away before anyone acknowledged them: there is nothing left to read.
            await self._open.xack(self._trigger.stream, self._group, *gone)
        return [self._message(place, fields) for place, fields in entries if fields]

    def _message(self, place: bytes, fields: Sequence[bytes]) -> ForeignMessage[bytes]:
        name = place.decode()
        mark = f"{self._trigger.stream}/{name}"
        value, headers = opened(fields, self._trigger.field)
        event = Event(
            value,
            time=int(name.partition("-")[0]) * 1_000,
            id=mark,
            headers=headers,
            source=f"redis/{self._trigger.stream}",
        )
        return ForeignMessage(event, place, mark=mark)

    @property
    def _open(self) -> redis.Redis:
        if self._redis is None:
            raise Unavailable(f"{self._where} is not connected")
        return self._redis

    @property
    def _where(self) -> str:
        return f"Redis stream `{self._trigger.stream}` at {address_of(self._trigger.url)}"

    def _lost(self, error: Exception) -> Unavailable:
        return Unavailable(f"{self._where} cannot be reached: {error}")


def opened(fields: Sequence[bytes], field: str) -> tuple[bytes, dict[str, str] | None]:
    """An entry's value and headers, from its fields as Redis lists them: name, value, name, value ...

    A name may come several times, and all its values count: a list of them in the value, a JSON array
    in a header. Fields that are not texts are in no header.
    """
    wanted, pairs = field.encode(), list(zip(fields[::2], fields[1::2], strict=True))
    own = [value for name, value in pairs if name == wanted]
    rest = [(_name(name), _text(value)) for name, value in pairs if name != wanted]
    if not own:
        return msgspec.json.encode(_by_name(rest)), None
    headers = headers_of((name, value) for name, value in rest if isinstance(value, str))
    if len(own) == 1:
        return own[0], headers
    return msgspec.json.encode([_text(each) for each in own]), headers


def _as_it_is(response: Any, **_: Any) -> Any:
    return response


def _by_name(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found: defaultdict[str, list[Any]] = defaultdict(list)
    for name, value in pairs:
        found[name].append(value)
    return {name: values[0] if len(values) == 1 else values for name, values in found.items()}


def _name(raw: bytes) -> str:
    return raw.decode("utf-8", "backslashreplace")


def _text(raw: bytes) -> str | dict[str, str]:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(raw).decode()}
