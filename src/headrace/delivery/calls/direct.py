"""Synchronous calls: one payload in, one answer out, its effects committed before it is given.

A caller's idempotency key takes the place of a position: a repeated call gets the stored answer.
There is no hidden queue: where no instance can be had, the call is refused at once. A caller that
listens is given the parts of an answer as they come; the end comes with the commit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
from msgspec.structs import replace

from headrace.delivery.calls.idempotency import KeyTurns, opened, sealed
from headrace.delivery.calls.streaming import Judge, Listener, LiveAnswer, LiveAnswers
from headrace.delivery.commit.changes import change_of
from headrace.delivery.commit.committer import Committer
from headrace.delivery.unknown_function import unknown_function
from headrace.environment.clock import Clock
from headrace.environment.randomness import Entropy
from headrace.model.effects import Check, Effects, Put, Space
from headrace.model.errors import Conflict, HeadraceError
from headrace.model.event import Event
from headrace.model.function import FunctionSpec
from headrace.model.invocation import CallInvocation
from headrace.model.outcome import Cause, Outcome, Returned
from headrace.model.record import encode_events
from headrace.runtime.base import Run, Submit, Waiter, invoke
from headrace.storage.kv.keys import pack
from headrace.storage.state.rows import decode_row, encode_row
from headrace.telemetry.history import RunHistory, run_of

"""Says what is wrong with an answer; "" where nothing is."""
WRONG_ANSWER: Final = "headrace.WrongAnswer"
"""The kind of a cause that says that a function answered something else than it declares."""
TRIES = 5
REMEMBERED = 86_400.0
"""Seconds an answer is kept for a repeated idempotency key."""


class CallFailed(HeadraceError):
    """The function was called and failed; `cause` says how."""

    code = "call-failed"

    def __init__(self, function: str, cause: Cause) -> None:
        super().__init__(f"`{function}` failed: {cause.kind}: {cause.message}")
        self.function = function
        self.cause = cause


class StartedCall(msgspec.Struct):
    """A call that an instance has taken or will take, what it was begun with, and what came of it.

    Made by `DirectCalls.begin`.

    Attributes:
        judge: Holds the answer against what is declared, before anything is committed.
        run: What runs, or waits for an instance.
    """

    spec: FunctionSpec
    payload: bytes
    timeout_s: float | None
    headers: dict[str, str] | None
    invocation: CallInvocation
    started: float
    run: Run
    judge: Judge | None = None
    returned: Returned | None = None


class DirectCalls:
    """Calls functions for the HTTP server."""

    def __init__(
        self,
        functions: Mapping[str, FunctionSpec],
        *,
        committer: Committer,
        submit: Submit,
        clock: Clock,
        entropy: Entropy,
        runs: RunHistory,
        answers: LiveAnswers,
    ) -> None:
        self._functions = functions
        self._answers = answers
        self._turns = KeyTurns()
        self._committer = committer
        self._storage = committer.storage
        self._submit = submit
        self._clock = clock
        self._entropy = entropy
        self._runs = runs

    async def call(
        self,
        function: str,
        payload: bytes,
        *,
        key: str = "",
        digest: bytes = b"",
        timeout_s: float | None = None,
        headers: dict[str, str] | None = None,
        listener: Listener | None = None,
        judge: Judge | None = None,
    ) -> bytes:
        """The function's answer, as JSON.

        Args:
            function: The full name, `app.function`.
            payload: What it is called with, as JSON.
            key: The caller's idempotency key; a second call with it gets the first one's answer.
            digest: Of all that was asked, 16 bytes; another request with the same key is refused.
            timeout_s: Seconds; the function's own timeout is the most.
            headers: Short strings beside the payload.
            listener: Takes what the handler yields as it comes; what is returned is then of use
                only where it was given nothing, for that was the answer to an earlier call.
            judge: Holds the answer against what is declared; a wrong one fails the run.

        Raises:
            Conflict: State the run relied on has changed under it; it was tried again, as long as
                a listener had been given nothing.
            Unknown: There is no such function.
            Overloaded, Unavailable: No instance can be had now.
            KeyReused: The key came before with another request.
            UnderWay: The first call with the key is not answered yet.
            CallFailed: It raised, crashed or overran its time; nothing it did was kept.
        """
        spec = self._spec(function)
        if not key:
            return await self._run(spec, payload, key, digest, timeout_s, headers, listener, judge)
        mark = pack(function, key)
        if (answer := await self._answered(mark, digest)) is not None:
            return answer
        with self._turns.take(mark, digest):
            # It may have been answered between the look and the turn.
            if (answer := await self._answered(mark, digest)) is not None:
                return answer
            return await self._run(spec, payload, key, digest, timeout_s, headers, listener, judge)

    async def _run(
        self,
        spec: FunctionSpec,
        payload: bytes,
        key: str,
        digest: bytes,
        timeout_s: float | None,
        headers: dict[str, str] | None,
        listener: Listener | None,
        judge: Judge | None,
        first: int = 1,
    ) -> bytes:
        """Run the function until what it did has landed; the answer. `first`: the next attempt."""
        function = spec.name
        mark = pack(function, key) if key else b""
        for attempt in range(first, TRIES + 1):
            invocation = self._invocation(spec, payload, key, timeout_s, attempt, headers)
            monotonic = self._clock.monotonic
            started = monotonic()
            live = None
            if listener is None:
                outcome = await invoke(self._submit, invocation)
            else:
                live = LiveAnswer(listener, remembered=bool(key), judge=judge)
                outcome = await self._listened(invocation, live)
            outcome = self._judged(spec, invocation, outcome, judge, live)
            self._runs.record(run_of(invocation, outcome, monotonic() - started))
            returned = _returned(function, outcome)
            answer = (returned.result if live is None else live.whole()) or b"null"
            if not (key or returned.appends or returned.writes or returned.reads):
                # Nothing durable was done, and nothing was relied on.
                return answer
            try:
                await self._commit(spec, invocation, returned, mark, sealed(digest, answer))
            except Conflict:
                if live is not None and live.begun:
                    raise
                # Somebody changed state it had read, or the same key is answered already.
                if key and (stored := await self._answered(mark, digest)) is not None:
                    return stored
                continue
            return answer
        raise Conflict(f"`{function}` read state that changed under it {TRIES} times; try again")

    # -- begun without waiting -----------------------------------------------------------------

    def begin(
        self,
        function: str,
        payload: bytes,
        waiter: Waiter,
        timeout_s: float | None = None,
        headers: dict[str, str] | None = None,
        judge: Judge | None = None,
    ) -> StartedCall:
        """Begin a call without a key, now or when its turn comes.

        The waiter is told its outcome, for which `plain` has the answer, or else `finish` has.

        Raises:
            Unknown: There is no such function.
            Overloaded: Too many wait for an instance already.
            Unavailable: No instance could be had.
        """
        spec = self._functions.get(function) or self._spec(function)
        invocation = self._invocation(spec, payload, "", timeout_s, 1, headers)
        started = self._clock.monotonic()
        run = self._submit(invocation, waiter)
        return StartedCall(spec, payload, timeout_s, headers, invocation, started, run, judge)

    def plain(self, begun: StartedCall, outcome: Outcome) -> bytes | None:
        """The answer of a call that has run; None where `finish` has something left to do for it.

        Raises:
            CallFailed: It raised, crashed or overran its time.
        """
        wall = self._clock.monotonic() - begun.started
        outcome = self._judged(begun.spec, begun.invocation, outcome, begun.judge)
        self._runs.record(run_of(begun.invocation, outcome, wall))
        returned = begun.returned = _returned(begun.spec.name, outcome)
        if returned.appends or returned.writes or returned.reads:
            return None
        # Nothing durable was done, and nothing was relied on.
        return returned.result or b"null"

    async def finish(self, begun: StartedCall) -> bytes:
        """The answer of a call that `plain` had none for, once what it did is committed.

        Raises:
            Conflict: State it had read changed under it, again and again.
            Overloaded, Unavailable: No instance can be had now.
            CallFailed: It raised, crashed or overran its time; nothing it did was kept.
        """
        spec, returned = begun.spec, begun.returned
        assert returned is not None  # noqa: S101 - `plain` has judged it
        answer = returned.result or b"null"
        try:
            await self._commit(spec, begun.invocation, returned, b"", answer)
        except Conflict:
            return await self._run(
                spec,
                begun.payload,
                "",
                b"",
                begun.timeout_s,
                begun.headers,
                None,
                begun.judge,
                first=2,
            )
        return answer

    def _judged(
        self,
        spec: FunctionSpec,
        invocation: CallInvocation,
        outcome: Outcome,
        judge: Judge | None,
        live: LiveAnswer | None = None,
    ) -> Outcome:
        """The outcome as it may land: a failure where its answer is not what the function declares."""
        if judge is None or (returned := outcome.returned) is None:
            return outcome
        if live is not None and (live.begun or live.wrong):
            # Part by part it was held against it already; what the instance made of that does not count.
            wrong = live.wrong
        elif returned.failure is not None:
            return outcome
        else:
            wrong = judge(returned.result or b"null")
        if not wrong:
            return outcome
        self._runs.write(
            time=self._clock.now(),
            function=spec.name,
            instance=outcome.usage.instance,
            key=invocation.key,
            level="error",
            text=wrong,
        )
        return Returned(error=Cause(WRONG_ANSWER, wrong), usage=outcome.usage)

    def _spec(self, function: str) -> FunctionSpec:
        spec = self._functions.get(function)
        if spec is None:
            raise unknown_function(function, self._functions)
        return spec

    async def _listened(self, invocation: CallInvocation, live: LiveAnswer) -> Outcome:
        """Run it, and hand on what it yields meanwhile."""
        self._answers.open(invocation.token, live)
        try:
            # What the instance remembers of state may be older than what others wrote since, and
            # once something is sent there is no second try: only a true race may end it.
            return await invoke(self._submit, replace(invocation, live=True, fresh=True))
        finally:
            self._answers.close(invocation.token)

    async def _answered(self, mark: bytes, digest: bytes) -> bytes | None:
        """The answer an earlier call with this key was given, while it is remembered."""
        row = await self._storage.get(Space.MARKS, mark)
        if row is None:
            return None
        _, expires, answer = decode_row(row)
        return opened(answer, digest) if expires > self._clock.now() else None

    def _invocation(
        self,
        spec: FunctionSpec,
        payload: bytes,
        key: str,
        timeout_s: float | None,
        attempt: int,
        headers: dict[str, str] | None,
    ) -> CallInvocation:
        now = self._clock.now()
        draw = self._entropy.integer
        name = key or f"{draw(64):016x}"
        body = encode_events((Event(payload, None, now, name, headers),))
        return CallInvocation(
            spec.name,
            spec.timeout if timeout_s is None else min(timeout_s, spec.timeout),
            draw(62) + 1,
            f"{spec.name}:call/{name}",
            now=now,
            seed=draw(62),
            event=body,
            attempt=attempt,
            fresh=attempt > 1,
        )

    async def _commit(
        self,
        spec: FunctionSpec,
        invocation: CallInvocation,
        returned: Returned,
        mark: bytes,
        answer: bytes,
    ) -> None:
        hops, origin = invocation.lineage
        effects = Effects(
            function=spec.name,
            app=spec.app,
            # The lineage is the platform's word, never the child's.
            appends=tuple(replace(append, hops=hops, origin=origin) for append in returned.appends),
            reads=returned.reads,
            writes=returned.writes,
            token=invocation.token,
        )
        change, _ = change_of(effects, {})
        if not (mark or returned.appends or returned.writes or change.ranges):
            await self._confirm(change.checks)
            return
        if mark:
            expired = await self._storage.get(Space.MARKS, mark)
            row = encode_row(
                invocation.token, answer, self._clock.now() + int(REMEMBERED * 1_000_000)
            )
            change = replace(
                change,
                checks=(*change.checks, Check(Space.MARKS, mark, expired)),
                puts=(*change.puts, Put(Space.MARKS, mark, row)),
            )
        await self._committer.commit(change)

    async def _confirm(self, checks: Sequence[Check]) -> None:
        """Pass, where what a call only read is still so: its instance may remember older state.

        Raises:
            Conflict: It is not.
        """
        for check in checks:
            row = await self._storage.get(check.space, check.key)
            holds = (
                row is None
                if check.prefix is None
                else row is not None and row.startswith(check.prefix)
            )
            if not holds:
                raise Conflict("what the call read has changed since")


def _returned(function: str, outcome: Outcome) -> Returned:
    whole = outcome.whole
    if type(whole) is Cause:
        raise CallFailed(function, whole)
    return whole
