"""An event as a bus shows it to rules: EventBridge's envelope, for events of any publisher. Pure.

A JSON object that has `source`, `detail-type` and `detail` is an envelope already; what it lacks
(`id`, `time`, ...) is filled in. Anything else is the `detail` of one made for it: `source` is the
CloudEvents source or the stream, `detail-type` the CloudEvents type or "". Both also show `stream`,
`key` and `headers`.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

from headrace.model.event import Event

_decode: Final = msgspec.json.Decoder().decode
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def shown(event: Event, *, stream: str, position: str, appended: int) -> dict[str, Any]:
    """The envelope of `event`, which is at `position`, for rules."""
    value = _value(event.value)
    envelope: dict[str, Any] = {
        "version": "0",
        "id": event.id_or(position),
        "detail-type": event.type or "",
        "source": event.source or stream,
        "account": "",
        "time": _iso(event.time_or(appended)),
        "region": "",
        "resources": [],
        "stream": stream,
        "key": event.key,
        "headers": event.headers or {},
    }
    # All three: an object that has a `source` by chance is plain data.
    if type(value) is dict and "detail-type" in value and "source" in value and "detail" in value:
        # Its own members win: an event that comes from another bus keeps its id and time.
        envelope.update(value)
    else:
        envelope["detail"] = value
    return envelope


def _value(raw: bytes) -> Any:
    """JSON; else text, where it is UTF-8; else null."""
    try:
        return _decode(raw)
    # RecursionError: nesting of thousands of levels is valid JSON, and must not stop the router.
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return None


def _iso(micros: int) -> str:
    # `fromtimestamp` rounds through a float, and refuses times before 1970 on some platforms.
    moment = _EPOCH + timedelta(microseconds=micros)
    # As EventBridge writes times: `Z`, and a fraction only where there is one.
    return moment.isoformat(timespec="milliseconds" if micros % 1_000_000 else "seconds").replace(
        "+00:00", "Z"
    )
