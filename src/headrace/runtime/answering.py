"""What a running function asks its host for, answered as a frame.

In comes a question off the channel, out comes the frame to send back; whatever a keeper raises is
an answer too, for the child must hear something.
"""

from __future__ import annotations

from headrace.model.errors import Misuse
from headrace.runtime.base import AnswerServices, ConsumerServices, HostServices
from headrace.runtime.wire import (
    MAX_SCAN_ROWS,
    Answer,
    Answered,
    Ask,
    Denied,
    Fetch,
    Fetched,
    Land,
    Landed,
    Part,
    ReadState,
    Rows,
    Scan,
    ScanState,
    Sent,
    encode,
)


async def answer(services: HostServices, app: str, nonce: int, token: int, asked: Ask) -> bytes:
    """The frame that answers a question of the run with this token; never raises."""
    said: Answer
    try:
        match asked.question:
            case ReadState(keys=keys):
                said = Rows(await services.read_state(app, keys))
            case ScanState(prefix=prefix, limit=wanted):
                limit = min(wanted, MAX_SCAN_ROWS)
                said = Scan(await services.scan_state(app, prefix, limit=limit))
            case Fetch(events=events):
                said = Fetched(*await _streams(services).fetch(token, events))
            case Land(returned=returned):
                await _streams(services).land(token, returned)
                said = Landed()
            case Part(body=body, head=head):
                await _doors(services).send_part(token, body, head)
                said = Sent()
        return encode(nonce, Answered(asked.number, said))
    except Exception as error:  # noqa: BLE001 - whatever a keeper raises, the child must hear
        denied = Denied(type(error).__name__, str(error)[:4096])
        return encode(nonce, Answered(asked.number, denied))


def _streams(services: HostServices) -> ConsumerServices:
    if not isinstance(services, ConsumerServices):
        raise Misuse("this host has no streams to consume")
    return services


def _doors(services: HostServices) -> AnswerServices:
    if not isinstance(services, AnswerServices):
        raise Misuse("this host sends no answers in parts")
    return services
