"""Answers to the questions of running functions (`runtime.host_services`)."""

from __future__ import annotations

from collections.abc import Sequence

from headrace.delivery.assignment.consumer_run import ConsumerRuns
from headrace.delivery.calls.streaming import LiveAnswers
from headrace.environment.clock import Clock
from headrace.model.effects import digest_of
from headrace.model.errors import TooLarge
from headrace.model.outcome import Range, Scanned
from headrace.model.policy import MAX_ANSWER_BYTES, MAX_ASKED_KEYS
from headrace.model.stores import StoreAddress
from headrace.model.webhook_signature import Secret
from headrace.runtime.host_services import (
    HostServices,
    answer_questions,
    consumer_questions,
    secret_questions,
    state_questions,
)
from headrace.security.secrets import Secrets
from headrace.storage.kv.base import Storage
from headrace.storage.state.rows import decode_row, rows_of

MAX_SCAN = 10_000


def host_services(
    storage: Storage,
    clock: Clock,
    consumer_runs: ConsumerRuns,
    answers: LiveAnswers,
    secrets: Secrets,
) -> HostServices:
    """Return the questions that a node answers.

    An app's name and a run's token come from the host, never from the child: `consumer_runs` and
    `answers` know what the run with that token may do.
    """
    state = StateReader(storage, clock)
    blot = secrets.blots.blot
    return HostServices(
        state_questions(state.read_state, state.scan_state),
        secret_questions(lambda name: secrets.text(Secret(name))),
        consumer_questions(consumer_runs.fetch, consumer_runs.land, blot=blot),
        answer_questions(answers.take),
        blot=blot,
    )


class StateReader:
    """Reads stores."""

    def __init__(self, storage: Storage, clock: Clock) -> None:
        self._storage = storage
        self._clock = clock

    async def read_state(
        self, store: StoreAddress, keys: Sequence[str]
    ) -> list[tuple[int, bytes | None]]:
        """Return version (0: never written) and value of each key; expired ones have no value.

        Raises:
            TooLarge: They are more, or their values larger together, than one answer may have.
        """
        # The child is untrusted: a bound on what one question may read.
        if len(keys) > MAX_ASKED_KEYS:
            raise TooLarge(
                f"{len(keys):,} keys of state were asked for at once; ask for at most "
                f"{MAX_ASKED_KEYS:,} at a time"
            )
        rows = rows_of(store)
        found = await self._storage.get_many(
            rows.space, [rows.key(key) for key in keys], most=MAX_ANSWER_BYTES
        )
        return [(0, None) if row is None else self._open(row) for row in found]

    async def scan_state(self, store: StoreAddress, prefix: str, begin: str, limit: int) -> Scanned:
        """Return the first `limit` keys after `begin` that start with `prefix`, or as many as fit into an answer.

        At most `MAX_SCAN` rows are read.
        """
        # A run may start before its partition's last commit is applied. The instance caches the
        # keys that were read or written by name; unknown keys of a range are only in the store.
        await self._storage.settled()
        store_rows = rows_of(store)
        low, high = store_rows.range(prefix, begin)
        rows: list[tuple[str, int, bytes]] = []
        seen: list[tuple[bytes, bytes]] = []
        last: str | None = None
        most = MAX_ANSWER_BYTES
        asked = limit
        while (asked := min(asked, limit - len(rows), MAX_SCAN - len(seen))) > 0:
            try:
                page = await self._storage.scan(store_rows.space, low, high, limit=asked, most=most)
            except TooLarge:
                if asked == 1 and not seen:
                    raise
                # The rows are too large for one answer: a shorter page.
                asked //= 2
                continue
            seen += page
            most -= sum(len(row) for _, row in page)
            for packed, row in page:
                version, value = self._open(row)
                if value is not None:
                    rows.append((store_rows.name(packed), version, value))
            if len(page) < asked:
                last = None
                break
            # Expired rows are skipped, so a full page may yield too few keys: read on.
            last = store_rows.name(page[-1][0])
            low = page[-1][0] + b"\x00"
        return Scanned(rows, Range(begin, last, len(seen), digest_of(seen)))

    def _open(self, row: bytes) -> tuple[int, bytes | None]:
        version, expires, value = decode_row(row)
        return version, None if expires and expires <= self._clock.now() else value
