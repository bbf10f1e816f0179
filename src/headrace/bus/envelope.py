"""An event as a bus shows it to rules: EventBridge's envelope, whoever published it. Pure.

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
    """What the rules see of `event`, which stands at `position`."""
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
    if type(value) is dict and "detail-type" in value and "source" in value and "detail" in value:
        envelope.update(value)
    else:
        envelope["detail"] = value
    return envelope


def _value(raw: bytes) -> Any:
    """JSON; else text, where it is UTF-8; else null."""
    try:
        return _decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return None


def _iso(micros: int) -> str:
    moment = _EPOCH + timedelta(microseconds=micros)
    return moment.isoformat(timespec="milliseconds" if micros % 1_000_000 else "seconds").replace(
        "+00:00", "Z"
    )
