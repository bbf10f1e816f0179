"""Whole topologies under seeded faults, on virtual time, judged by somebody who is not us.

    python -m headrace.testing.simulation --seeds 5000 --start 0 [--workers 2] [--judge MODULE:NAME]

In: a range of seeds. Each becomes a plan (`plan.py`), is played on the real engine over the
in-memory twins, and leaves an account: what was published, what the handlers saw, every change that
landed, and what is there at the end. The judge gets nothing but the account. A seed it objects to
is printed with its plan and can be run alone; every 50th is run twice and must come out the same.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import importlib
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from random import Random  # noqa: TID251 - the mishaps' own chance, from the seed
from typing import Any

import msgspec

from headrace.delivery.deadletters import DeadLetters
from headrace.delivery.parkinglot import ParkingLot
from headrace.model.effects import Change, Space
from headrace.model.errors import HeadraceError, Unavailable
from headrace.model.event import Event as Fact
from headrace.model.invocation import Invocation
from headrace.model.outcome import Cause, Crashed, Outcome, TimedOut
from headrace.model.record import positions
from headrace.sdk.app import App
from headrace.sdk.batch import Batch
from headrace.sdk.context import Context
from headrace.sdk.event import Event
from headrace.sdk.results import Failures, Permanent
from headrace.sdk.stream import Stream
from headrace.testing.faults import Host, Weather, inhabited
from headrace.testing.lives import Lives, Node
from headrace.testing.plan import TIMEOUT_S, Action, Plan, PlannedFunction, plan_of
from headrace.testing.world import fate_of
from headrace.world.clock import Clock
from headrace.world.entropy import SeededEntropy

Judge = Callable[[dict[str, Any]], Sequence[object]]

APP = "sim"
EVERY = 50
MAX_STEPS = 30_000
LIMIT_S = 86_400.0 * 30
WINDOW_S = 86_400.0 * 365
DEFAULT_JUDGE = "tests.auditor.judge:judge"
WATCHED = frozenset((Space.POSITIONS, Space.DEAD, Space.PARKED))


class Troubled(Exception):
    """What a planned handler raises."""


class Deeds:
    """What the planned handlers do; remembers what it has let pass, as the outside world would."""

    def __init__(self) -> None:
        self.healed = False
        self.clock: Clock
        self._tries: dict[tuple[str, int], int] = {}

    def check(self, function: PlannedFunction, number: int) -> None:
        """Raise, where the plan says so."""
        if number in function.poison and not self.healed:
            if number in function.permanent:
                raise Permanent(f"{number} is poison for good")
            raise Troubled(f"{number} is poison")
        wanted = function.flaky.get(number, 0)
        if wanted and self._count(function.name, number) <= wanted:
            raise Troubled(f"{number} is flaky")

    def dawdles(self, function: PlannedFunction, number: int) -> bool:
        """Whether this event overruns the timeout now."""
        return number in function.slow and self._count(f"slow {function.name}", number) == 1

    def _count(self, what: str, number: int) -> int:
        found = self._tries[what, number] = self._tries.get((what, number), 0) + 1
        return found


def app_of(plan: Plan, deeds: Deeds) -> App:
    """The plan's topology, as an author would have written it."""
    app = App(APP)
    streams = {
        name: app.stream(name, partitions=count, dedupe_window=WINDOW_S)
        for name, count in plan.streams.items()
    }
    for planned in plan.functions:
        app.function(
            *(streams[name] for name in planned.streams),
            name=planned.name,
            batch_size=planned.batch_size,
            batch_bytes=planned.batch_bytes,
            batch_window=planned.batch_window,
            mode=planned.mode,
            parallelism=planned.parallelism,
            commit=planned.commit,
            bisect=planned.bisect,
            retry=planned.retry,
            on_failure=planned.on_failure,
            breaker=planned.breaker,
            timeout=TIMEOUT_S,
            **({"merge": "time", "lateness": 0.3} if len(planned.streams) > 1 else {}),  # type: ignore[arg-type]  # options by name
        )(_handler(planned, streams[planned.output], deeds))
    return app


def _handler(planned: PlannedFunction, output: Stream[Any], deeds: Deeds) -> Callable[..., Any]:
    """A handler of the planned shape: an output and a note in the state for every event."""
    prefix = f"{APP}.{planned.name}"

    def work(event: Event[Any], context: Context) -> None:
        number = event.value["n"]
        deeds.check(planned, number)
        at = event.position
        context.publish(output, {"n": number, "from": f"{prefix}@{at}"}, key=event.key)
        context.state.update(f"{prefix}|{event.key}", lambda seen: [*(seen or ()), at])

    async def slowly(event: Event[Any], context: Context) -> None:
        if deeds.dawdles(planned, event.value["n"]):
            await deeds.clock.sleep(TIMEOUT_S * 2)
        work(event, context)

    def single(event: Event[Any], context: Context) -> None:
        work(event, context)

    async def asynchronous(event: Event[Any], context: Context) -> None:
        await slowly(event, context)

    def batch(events: Batch[Any], context: Context) -> None:
        for event in events:
            work(event, context)

    async def asynchronous_batch(events: Batch[Any], context: Context) -> None:
        for event in events:
            await slowly(event, context)

    def done(events: Batch[Any], context: Context) -> None:
        for event in events:
            work(event, context)
            context.done(event)

    def failures(events: Batch[Any], context: Context) -> Failures:
        bad: list[Event[Any]] = []
        for event in events:
            if event.key is not None and any(event.key == other.key for other in bad):
                bad.append(event)
                continue
            try:
                work(event, context)
            except Exception:  # noqa: BLE001 - whatever it is, it is reported by name
                bad.append(event)
        return Failures(bad)

    shapes: dict[str, Callable[..., Any]] = {
        "single": single, "async": asynchronous, "batch": batch, "done": done,
        "failures": failures, "async batch": asynchronous_batch,
    }  # fmt: skip
    return shapes[planned.shape]


class Run:
    """One plan, played once. `account` is what the judge gets."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.history: list[Any] = []
        self.acknowledged: list[tuple[str, int]] = []
        self.deeds = Deeds()
        self._chance = Random(plan.seed + 1)
        self._runs = 0
        self._running: dict[int, int] = {}
        self._frozen: list[Host] = []
        self._resets: dict[str, int] = {}
        self._discards: set[str] = set()
        self.lives = Lives(
            [app_of(plan, self.deeds)],
            seed=plan.seed,
            weather=Weather(SeededEntropy(plan.seed + 2), plan.odds),
            in_order=plan.in_order,
            shuffle=plan.shuffle,
            stale_reads=plan.stale_reads,
            max_steps=MAX_STEPS,
            before=self._before,
            after=self._after,
            on_landed=self._landed,
        )
        self.deeds.clock = self.lives.clock

    def play(self) -> dict[str, Any]:
        """Carry the plan out to its quiet end, and account for it.

        Raises:
            Livelock: It never came to rest.
            Deadlock: The plan itself waits for what will not come.
        """
        try:
            self.lives.open()
            self.lives.loop.drive(self._perform(), limit=LIMIT_S)
            self._come_to_rest()
            if self.deeds.healed:
                self.lives.loop.drive(self._redrive_all(), limit=LIMIT_S)
                self._come_to_rest()
            return self._account()
        finally:
            self.lives.close()

    def _come_to_rest(self) -> None:
        """The faults end; what is left must then get done."""
        self.lives.calm_down()
        for host in self._frozen:
            host.thaw()
        self._expel()
        for function in self.plan.functions:
            self.lives.node.dispatcher.resume(f"{APP}.{function.name}")
        if not self.lives.loop.run_until_idle(LIMIT_S):
            raise RuntimeError(f"still busy after {LIMIT_S} s:\n{self.lives.loop.dump()}")
        if self.lives.failures:
            name, error = self.lives.failures[0]
            raise RuntimeError(f"`{name}` stopped by its own fault") from error

    def _expel(self) -> None:
        while self._frozen:
            self._frozen.pop().end("expelled by its group")

    # --- the plan's deeds -------------------------------------------------------------------

    async def _perform(self) -> None:
        for action in self.plan.actions:
            wait = action.at - self.lives.clock.monotonic()
            if wait > 0:
                await self.lives.clock.sleep(wait)
            await self._act(action)

    async def _act(self, action: Action) -> None:
        lives = self.lives
        target = f"{APP}.{action.target}"
        match action.deed:
            case "publish":
                await self._publish(action)
            case "crash":
                await lives.standing()
                lives.crash()
            case "crash at":
                lives.crash_at(action.target, int(action.amount))
            case "take over":
                node = await lives.standing()
                node.host.freeze()
                self._frozen.append(node.host)
                await lives.take_over()
            case "thaw":
                for host in self._frozen:
                    host.thaw()
                # It acts on what it still believes; then its group tells it that it is out.
                await lives.clock.sleep(0.2)
                self._expel()
            case "skew":
                lives.clock.set_back(action.amount)
            case "heal":
                self.deeds.healed = True
            case "pause":
                (await lives.standing()).dispatcher.pause(target)
            case "resume":
                (await lives.standing()).dispatcher.resume(target)
            case _:
                await self._operate(action.deed, target)

    async def _publish(self, action: Action) -> None:
        """As a careful producer does: with ids, again until it is answered."""
        facts = [
            Fact(
                b"\xff garbage %d" % event.number if event.garbage else b'{"n":%d}' % event.number,
                event.key, event.time, f"id{event.number}",
            )
            for event in action.events
        ]  # fmt: skip
        while True:
            try:
                await self.lives.publish(action.target, facts)
            except Unavailable:
                await self.lives.clock.sleep(0.1)
                continue
            break
        self.acknowledged += ((action.target, event.number) for event in action.events)

    async def _operate(self, deed: str, target: str) -> None:
        """An operator's wish; where the host dies under it, nobody knows how far it came."""
        node = await self.lives.standing()
        wish = self.lives.loop.create_task(self._wish(node, deed, target), name=deed)
        node.host.adopt(wish)
        await asyncio.wait((wish,))

    async def _wish(self, node: Node, deed: str, target: str) -> None:
        inhabited.set(node.host)
        try:
            match deed:
                case "redrive":
                    await DeadLetters(node.door, node.dispatcher).redrive(target)
                    await ParkingLot(node.door, node.dispatcher).redrive(target)
                case "discard":
                    self._discards.add(target)
                    await ParkingLot(node.door, node.dispatcher).discard(target)
                case "reset":
                    self._resets[target] = self._resets.get(target, 0) + 1
                    await node.dispatcher.reset(target, "earliest")
                case _:
                    raise RuntimeError(f"no deed is called {deed}")
        except HeadraceError:
            return

    async def _redrive_all(self) -> None:
        for function in self.plan.functions:
            await self._operate("redrive", f"{APP}.{function.name}")

    # --- what is seen -----------------------------------------------------------------------

    async def _before(self, host: Host, invocation: Invocation) -> Outcome | None:
        self._runs += 1
        self._running[invocation.token] = self._runs
        self.history.append(
            ["begin", host.number, self._runs, invocation.function,
             [[at.stream, at.partition, at.offset] for at in positions(invocation.chunks)]]
        )  # fmt: skip
        if not self.plan.mishaps or self.lives.is_calm or self._chance.random() > self.plan.mishaps:
            return None
        outcome: Outcome
        match self._chance.choice(("crash", "crash", "taken", "late")):
            case "crash":
                outcome = Crashed(Cause("Crashed", "planned"))
            case "taken":
                outcome = Crashed(Cause("Killed", "planned"), blameless=True)
            case _:
                outcome = TimedOut(Cause("TimedOut", "planned"))
        await self.lives.clock.sleep(self._chance.uniform(0.0, 1.0))
        self._ended(host, invocation, outcome)
        return outcome

    async def _after(self, host: Host, invocation: Invocation, outcome: Outcome) -> Outcome | None:
        self._ended(host, invocation, outcome)
        return None

    def _ended(self, host: Host, invocation: Invocation, outcome: Outcome) -> None:
        run = self._running.pop(invocation.token)
        fates = [fate_of(outcome, index) for index in range(invocation.size)]
        self.history.append(["end", host.number, run, fates])

    def _landed(self, host: Host, change: Change) -> None:
        puts = [(put.space, put.key, put.value) for put in change.puts if put.space in WATCHED]
        deletes = [(gone.space, gone.key) for gone in change.deletes if gone.space in WATCHED]
        if puts or deletes:
            self.history.append(["commit", host.number, puts, deletes])

    def _garbage(self) -> set[int]:
        events = (event for action in self.plan.actions for event in action.events)
        return {event.number for event in events if event.garbage}

    def _account(self) -> dict[str, Any]:
        lives = self.lives
        return {
            "functions": {
                f"{APP}.{each.name}": {
                    "streams": list(each.streams),
                    "output": each.output,
                    "commit": each.commit,
                    # One that reports failures by name goes on to the next event by itself.
                    "mode": "keyed"
                    if each.shape == "failures" and each.mode == "ordered"
                    else each.mode,
                    "on_failure": type(each.on_failure).__struct_config__.tag,
                    "discards": f"{APP}.{each.name}" in self._discards,
                    "attempts": each.retry.attempts,
                    "poison": sorted(each.poison | each.flaky.keys() | each.slow | self._garbage()),
                    "permanent": sorted(each.permanent),
                    "gives_up": ["Permanent"],
                    "resets": self._resets.get(f"{APP}.{each.name}", 0),
                    "calm": self.plan.calm and each.bisect,
                    "healed": self.deeds.healed,
                }
                for each in self.plan.functions
            },
            "acknowledged": self.acknowledged,
            "log": {name: lives.log_of(name) for name in self.plan.streams},
            "history": self.history,
            "rows": {
                str(space): lives.rows_of(space)
                for space in (Space.DEAD, Space.PARKED, Space.STATE, Space.POSITIONS)
            },
        }


def play(seed: int, judge: Judge) -> tuple[list[str], str]:
    """What the judge found in a seed's run, and the run's fingerprint."""
    run = Run(plan_of(seed))
    try:
        account = run.play()
    except (HeadraceError, RuntimeError) as error:
        cause = f" because of {error.__cause__!r}" if error.__cause__ is not None else ""
        return [f"{type(error).__name__}: {error}{cause}"], ""
    mark = hashlib.blake2b(msgspec.msgpack.encode(account), digest_size=8).hexdigest()
    return [str(finding) for finding in judge(account)], mark


def campaign(seeds: Sequence[int], judge_name: str) -> list[tuple[int, list[str]]]:
    """The seeds that do not hold what is promised, with what was found."""
    judge = judge_by(judge_name)
    bad: list[tuple[int, list[str]]] = []
    for seed in seeds:
        findings, mark = play(seed, judge)
        if not findings and seed % EVERY == 0:
            again = play(seed, judge)[1]
            if again != mark:
                findings = [f"not deterministic: {mark} the first time, {again} the second"]
        if findings:
            bad.append((seed, findings))
    return bad


def judge_by(name: str) -> Judge:
    """The judge called `module:name`.

    Raises:
        SystemExit: There is none; the message says how to name one.
    """
    module, _, attribute = name.partition(":")
    try:
        found: Judge = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise SystemExit(
            f"there is no judge `{name}` ({error}); run this in the repository's root, or name "
            "your own with `--judge module:function`"
        ) from error
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 1 where a seed is bad."""
    parser = argparse.ArgumentParser(prog="python -m headrace.testing.simulation")
    parser.add_argument("--seeds", type=int, default=200, help="how many")
    parser.add_argument("--start", type=int, default=0, help="the first seed")
    parser.add_argument("--workers", type=int, default=1, help="how many processes")
    parser.add_argument("--judge", default=DEFAULT_JUDGE, help="module:function")
    parser.add_argument("--plan", action="store_true", help="print the plan of --start and stop")
    asked = parser.parse_args(arguments)
    write = sys.stdout.write
    if asked.plan:
        write(describe(plan_of(asked.start)) + "\n")
        return 0
    sys.path.insert(0, "")
    seeds = range(asked.start, asked.start + asked.seeds)
    began = time.perf_counter()
    shares = [seeds[start : start + EVERY] for start in range(0, len(seeds), EVERY)]
    if asked.workers > 1:
        with ProcessPoolExecutor(asked.workers) as pool:
            found = list(pool.map(campaign, shares, [asked.judge] * len(shares)))
    else:
        found = [campaign(share, asked.judge) for share in shares]
    bad = [each for share in found for each in share]
    for seed, findings in bad[:10]:
        write(f"\nseed {seed} (again: --start {seed} --seeds 1)\n{describe(plan_of(seed))}\n")
        write("".join(f"  ! {finding}\n" for finding in findings[:8]))
    took = time.perf_counter() - began
    write(
        f"{len(seeds)} seeds, {len(bad)} bad{': ' + str([s for s, _ in bad][:50]) if bad else ''}; "
        f"{took:.1f} s, {took / max(len(seeds), 1) * 1000:.1f} ms a seed\n"
    )
    return 1 if bad else 0


def describe(plan: Plan) -> str:
    """The plan, for people."""
    lines = [
        f"  streams {plan.streams}; calm {plan.calm}; odds { {str(k): round(v, 3) for k, v in plan.odds.items()} }"
    ]
    lines[0] += f"; mishaps {plan.mishaps}; shuffle {plan.shuffle}; in order {plan.in_order}"
    for each in plan.functions:
        told = ", ".join(
            f"{name}={value!r}"
            for name, value in msgspec.structs.asdict(each).items()
            if name != "name" and value not in ((), {}, frozenset())
        )
        lines.append(f"  {each.name}: {told}")
    for action in plan.actions:
        events = " ".join(
            f"{event.number}{'!' if event.garbage else ''}@{event.key}" for event in action.events
        )
        lines.append(
            f"  {action.at:7.3f} {action.deed} {action.target} {action.amount or ''} {events}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
