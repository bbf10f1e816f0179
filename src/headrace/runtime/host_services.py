"""Questions that a running function may send to its host: a table, which the node's assembly fills in.

In: a question from the channel. Out: the frame to send back. An exception of a handler is an answer too, since the
child waits for one. A new question is a row, with its message in `protocol`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeAlias

import msgspec

from headrace.model.errors import Misuse, Refused, is_final
from headrace.model.function import FunctionSpec
from headrace.model.near_names import near
from headrace.model.outcome import Returned, Scanned
from headrace.model.record import Chunk
from headrace.model.redaction import Blot, blotted_return
from headrace.model.reply import WireReply
from headrace.model.stores import StoreAddress, check_store
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
    Question,
    ReadSecret,
    ReadState,
    Scan,
    ScanState,
    SecretRead,
    StateRows,
    encode,
)


class Asker(msgspec.Struct, frozen=True, gc=False):
    """The sender of a question, as the host knows it: a question's own claims would not count.

    Attributes:
        spec: The function of the instance.
        token: The token of its current run; 0 if the question needs none.
    """

    spec: FunctionSpec
    token: int = 0


class HostQuestion(msgspec.Struct, frozen=True):
    """A question that a host answers: a row of the table.

    Attributes:
        answer: Returns the answer; the instance receives the text of an exception.
        needs_run: Whether the question must belong to a run in flight.
        is_large: Whether answers may be large: an instance receives the next once it has read the last.
        reaches_caller: Whether it forwards a part of the run's answer, after which the run is not
            repeated.
    """

    answer: Callable[[Asker, Any], Awaitable[Answer]]
    needs_run: bool = True
    is_large: bool = False
    reaches_caller: bool = False


Questions: TypeAlias = Mapping[type[Question], HostQuestion]


class HostServices:
    """The questions that one host answers, by their messages.

    Attributes:
        blot: Removes the secrets that the host knows from text.
    """

    def __init__(self, *questions: Questions, blot: Blot = str) -> None:
        self.blot = blot
        self._questions = {kind: row for rows in questions for kind, row in rows.items()}

    def row(self, question: Question) -> HostQuestion:
        """Return the row of a question; a row that refuses it if the host has none."""
        return self._questions.get(type(question), _UNANSWERED)

    async def answer(self, asker: Asker, question: Question) -> Answer:
        """Return the answer.

        Raises:
            Misuse: This host does not answer such questions.
            HeadraceError: The handler refuses it.
        """
        return await self.row(question).answer(asker, question)

    async def frame(self, asker: Asker, nonce: int, asked: Ask) -> bytes:
        """Return the frame that answers a question. Never raises."""
        said: Answer
        try:
            said = await self.answer(asker, asked.question)
            return encode(nonce, Answered(asked.number, said))
        except Exception as error:  # noqa: BLE001 - the child blocks until it has an answer
            denied = Denied(type(error).__name__, str(error)[:4096], is_final(error))
            return encode(nonce, Answered(asked.number, denied))


async def _refused(_: Asker, question: Question) -> Answer:
    raise Misuse(f"this host does not answer `{type(question).__name__}`")


_UNANSWERED = HostQuestion(_refused, needs_run=False)


def state_questions(
    read: Callable[[StoreAddress, Sequence[str]], Awaitable[list[tuple[int, bytes | None]]]],
    scan: Callable[[StoreAddress, str, str, int], Awaitable[Scanned]],
) -> Questions:
    """Return the questions about stores: the function's own, and those that its app declares.

    Args:
        read: Returns version (0: absent) and value of each key of a store.
        scan: Returns a store's keys that start with a prefix and come after another, ascending, up to a limit, and the
                    range that was read.
    """

    async def read_state(asker: Asker, question: ReadState) -> Answer:
        return StateRows(await read(_address(asker.spec, question.store), question.keys))

    async def scan_state(asker: Asker, question: ScanState) -> Answer:
        store, limit = _address(asker.spec, question.store), min(question.limit, MAX_SCAN_ROWS)
        return Scan(await scan(store, question.prefix, question.begin, limit))

    return {
        ReadState: HostQuestion(read_state, is_large=True),
        ScanState: HostQuestion(scan_state, is_large=True),
    }


def _address(spec: FunctionSpec, store: str) -> StoreAddress:
    check_store(spec, store)
    return StoreAddress(spec.app, spec.name, store)


def secret_questions(read: Callable[[str], str]) -> Questions:
    """Return the question about secrets: those that the function, or its app, declares."""

    async def read_secret(asker: Asker, question: ReadSecret) -> Answer:
        check_granted(asker.spec, question.name)
        return SecretRead(read(question.name))

    return {ReadSecret: HostQuestion(read_secret, needs_run=False)}


def consumer_questions(
    fetch: Callable[[int, int], Awaitable[tuple[list[Chunk], int]]],
    land: Callable[[int, Returned], Awaitable[None]],
    *,
    blot: Blot = str,
) -> Questions:
    """Return the questions of a run that fetches its events, by the run's token.

    Args:
        fetch: Returns the next events, up to so many (none: the run should end), and how many were
            not fetched.
        land: Commits the events fetched, and their effects, since the last commit, atomically.
        blot: Removes secrets from committed values.
    """

    async def fetched(asker: Asker, question: Fetch) -> Answer:
        return Fetched(*await fetch(asker.token, question.events))

    async def landed(asker: Asker, question: Land) -> Answer:
        await land(asker.token, blotted_return(question.returned, blot))
        return Landed()

    return {Fetch: HostQuestion(fetched, is_large=True), Land: HostQuestion(landed)}


def answer_questions(
    send: Callable[[int, bytes, WireReply | None], Awaitable[None]],
) -> Questions:
    """Return the question about parts of a call's answer, by the call's token; `send` waits for the client."""

    async def accepted(asker: Asker, question: Part) -> Answer:
        await send(asker.token, question.body, question.head)
        return PartAccepted()

    return {Part: HostQuestion(accepted, reaches_caller=True)}


def check_granted(spec: FunctionSpec, name: str) -> None:
    """Check that the function may have the secret.

    Raises:
        Refused: Neither the function nor its app declares it.
    """
    if name not in spec.secrets:
        raise Refused(
            f"`{spec.name}` does not declare the secret `{name:.64}`{near(name, spec.secrets)}; write "
            f'`secrets=["{name:.64}"]` in its decorator or in `App(...)`'
        )
