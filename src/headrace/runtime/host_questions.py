"""What a running function asks its host for, answered as a frame.

In comes a question off the channel, out comes the frame to send back; whatever a keeper raises is
an answer too, for the child must hear something.
"""

from __future__ import annotations

from headrace.model.errors import Misuse, Refused, is_final
from headrace.model.function import FunctionSpec
from headrace.model.redaction import Blot, blotted_return
from headrace.runtime.base import (
    AnswerServices,
    ConsumerServices,
    HostServices,
    SecretServices,
)
from headrace.runtime.protocol.messages import (
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
    PartAccepted,
    ReadSecret,
    ReadState,
    Scan,
    ScanState,
    SecretRead,
    StateRows,
    encode,
)
from headrace.sdk.source_location import near


async def answer(
    services: HostServices, spec: FunctionSpec, nonce: int, token: int, asked: Ask
) -> bytes:
    """The frame that answers a question of an instance of this function, of the run with this token.

    Never raises. Whose instance it is, the host knows; what the question says of that would not count.
    """
    said: Answer
    try:
        match asked.question:
            case ReadState(keys=keys):
                said = StateRows(await services.read_state(spec.app, keys))
            case ScanState(prefix=prefix, limit=wanted):
                limit = min(wanted, MAX_SCAN_ROWS)
                said = Scan(await services.scan_state(spec.app, prefix, limit=limit))
            case ReadSecret(name=name):
                said = SecretRead(secret_for(spec, name, services))
            case Fetch(events=events):
                said = Fetched(*await _streams(services).fetch(token, events))
            case Land(returned=returned):
                await _streams(services).land(token, blotted_return(returned, blot_of(services)))
                said = Landed()
            case Part(body=body, head=head):
                await _doors(services).send_part(token, body, head)
                said = PartAccepted()
        return encode(nonce, Answered(asked.number, said))
    except Exception as error:  # noqa: BLE001 - whatever a keeper raises, the child must hear
        denied = Denied(type(error).__name__, str(error)[:4096], is_final(error))
        return encode(nonce, Answered(asked.number, denied))


def secret_for(spec: FunctionSpec, name: str, services: HostServices) -> str:
    """The value of a secret, for an instance of this function.

    Raises:
        Refused: Neither the function nor its app declares it.
        Misuse: It is not set, or cannot be read; or this host keeps none.
    """
    check_granted(spec, name)
    if not isinstance(services, SecretServices):
        raise Misuse("this host keeps no secrets")
    return services.read_secret(name)


def check_granted(spec: FunctionSpec, name: str) -> None:
    """Pass, where the function may have the secret.

    Raises:
        Refused: Neither it nor its app declares it.
    """
    if name not in spec.secrets:
        raise Refused(
            f"`{spec.name}` does not declare the secret `{name:.64}`{near(name, spec.secrets)}; write "
            f'`secrets=["{name:.64}"]` in its decorator or in `App(...)`'
        )


def blot_of(services: HostServices) -> Blot:
    """Takes secrets out of texts, as far as the host knows any."""
    return services.blot if isinstance(services, SecretServices) else str


def _streams(services: HostServices) -> ConsumerServices:
    if not isinstance(services, ConsumerServices):
        raise Misuse("this host has no streams to consume")
    return services


def _doors(services: HostServices) -> AnswerServices:
    if not isinstance(services, AnswerServices):
        raise Misuse("this host sends no answers in parts")
    return services
