"""One plan, played once on the real engine over the in-memory twins, under its faults.

In: a plan. Out: an account in plain values: what was published, what the handlers saw, every change
that landed, and what is there at the end. It judges nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from random import Random  # noqa: TID251 - the mishaps' own chance, from the seed
from typing import Any

import msgspec
from msgspec.structs import replace

from headrace.admin.dead_letters import DeadLetters
from headrace.admin.parked_keys import ParkedKeys
from headrace.environment.randomness import SeededEntropy
from headrace.model.effects import Change, Space
from headrace.model.errors import Fenced, HeadraceError
from headrace.model.event import Event as Fact
from headrace.model.invocation import BatchInvocation, Invocation
from headrace.model.outcome import Cause, Crashed, Outcome, TimedOut
from headrace.model.record import decode_events, encode_events, positions
from headrace.simulation.plan_values import Action, Plan, PlannedEvent, PlannedFunction
from headrace.simulation.scenes.base import AGAIN_S, APP, Stage
from headrace.simulation.scenes.selection import scene_of
from headrace.simulation.workload import FLOW, Workload, app_of
from headrace.testing.deliveries import fate_of
from headrace.testing.faults import Fault, HostWatcher, SimulatedHost, Weather, inhabited
from headrace.testing.hosts import HostedNode, Hosts

MAX_STEPS = 60_000
LIMIT_S = 86_400.0 * 30
WATCHED = frozenset((Space.POSITIONS, Space.DEAD, Space.PARKED, Space.TROUBLE))


class SimulationRun(HostWatcher):
    """One plan, played once. `account` is what the judge gets."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.history: list[Any] = []
        self.acknowledged: list[tuple[str, int]] = []
        self.deeds = Workload()
        self._chance = Random(plan.seed + 1)
        self._runs = self._version = 0
        self._running: dict[int, int] = {}
        self._frozen: list[SimulatedHost] = []
        self._stops: list[asyncio.Task[None]] = []
        self._resets: dict[str, int] = {}
        self._redrives: dict[str, int] = {}
        self._discards: set[str] = set()
        self._let_go: dict[str, dict[tuple[int, int], tuple[bytes, int]]] = {
            name: {} for name in (*plan.kept, *plan.compacted)
        }
        self._functions = {f"{APP}.{each.name}": each for each in plan.functions}
        self._scenes = [scene_of(each) for each in plan.scenes]
        self._is_skewed = any(action.deed == "skew" for action in plan.actions)
        self._stages = [
            Stage(
                Random(plan.seed + 3 + number),
                calm=plan.calm,
                may_conflict=Fault.CONFLICT in plan.odds,
                is_skewed=self._is_skewed,
            )
            for number in range(len(self._scenes) + 1)
        ]
        app = app_of(plan, self.deeds)
        for scene, stage in zip(self._scenes, self._stages[1:], strict=True):
            scene.build(app, stage)
        self.lives = Hosts(
            [app],
            seed=plan.seed,
            weather=Weather(
                SeededEntropy(plan.seed + 2),
                plan.odds,
                in_order=plan.in_order,
                stale_reads=plan.stale_reads,
                remote=Weather(SeededEntropy(plan.seed + 4), plan.odds)
                if plan.remote_log
                else None,
            ),
            watcher=self,
            shuffle=plan.shuffle,
            max_steps=MAX_STEPS,
        )
        self.deeds.clock = self.lives.clock
        for stage in self._stages:
            stage.enter(self.lives)

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
        self.lives.loop.drive(self._bow(), limit=LIMIT_S)
        self._run_out()
        while dates := self.lives.waiting():
            # What waits for a date is not busy, and its date must come.
            self.lives.loop.run_for((dates[-1][0] - self._now()) / 1_000_000)
            self._run_out()
        if self.lives.failures:
            name, error = self.lives.failures[0]
            raise RuntimeError(f"`{name}` stopped by its own fault") from error

    def _run_out(self) -> None:
        if not self.lives.loop.run_until_idle(LIMIT_S):
            raise RuntimeError(f"still busy after {LIMIT_S} s:\n{self.lives.loop.dump()}")

    async def _bow(self) -> None:
        """Let operators and clients do what must still be done."""
        node = await self.lives.current()
        for name in self._functions:
            node.supervisor.resume(name)
        await asyncio.gather(*(scene.finish() for scene in self._scenes))

    def _expel(self) -> None:
        while self._frozen:
            self._frozen.pop().end("expelled by its group")

    # --- the plan's deeds -------------------------------------------------------------------

    async def _perform(self) -> None:
        await asyncio.gather(self._go_through(), *(scene.perform() for scene in self._scenes))

    async def _go_through(self) -> None:
        for action in self.plan.actions:
            await self._stages[0].wait_until(action.at)
            await self._act(action)
        await asyncio.gather(*self._stops)

    async def _act(self, action: Action) -> None:
        lives = self.lives
        target = f"{APP}.{action.target}"
        match action.deed:
            case "publish":
                await self._publish(action)
            case "crash":
                await lives.current()
                lives.crash()
            case "crash at":
                lives.crash_at(action.target, int(action.amount))
            case "drain":
                # Not waited for: all else goes on meanwhile.
                self._stops.append(lives.loop.create_task(self._stop(action.amount), name="drain"))
            case "take over":
                node = await lives.current()
                node.host.freeze()
                self._frozen.append(node.host)
                await lives.take_over()
            case "thaw":
                for host in self._frozen:
                    host.thaw()
                # It acts on what it still believes; then its group reports that it has left.
                await lives.clock.sleep(0.2)
                self._expel()
            case "skew":
                lives.clock.set_back(action.amount)
            case "sweep":
                await self._sweep()
            case "heal":
                self.deeds.healed = True
            case "pause":
                (await lives.current()).supervisor.pause(target)
            case "resume":
                (await lives.current()).supervisor.resume(target)
            case _:
                await self._operate(action.deed, target)

    async def _stop(self, grace: float) -> None:
        node = await self.lives.current()
        self.history.append(["stop", node.host.number, self._now()])
        if await self.lives.stop(node, grace):
            self.history.append(["stopped", node.host.number, self._now(), round(grace * 1e6)])

    async def _sweep(self) -> None:
        """Every stream lets go of what it need not keep; what that was is written down."""
        await self.lives.current()
        broker, now = self.lives.broker, self._now()
        for name in self._let_go:
            before = _one_by_one(self.lives.held_by(name))
            await (broker.compact(name) if name in self.plan.compacted else broker.sweep())
            gone = before.keys() - _one_by_one(self.lives.held_by(name)).keys()
            self._let_go[name].update((place, before[place]) for place in gone)
            if gone:
                self.history.append(["gone", name, sorted(map(list, gone)), now])

    async def _publish(self, action: Action) -> None:
        """As a careful producer does: with ids, again until it is answered."""
        await self._stages[0].publish(action.target, [_fact(event) for event in action.events])
        self.acknowledged += ((action.target, event.number) for event in action.events)

    async def _operate(self, deed: str, target: str) -> None:
        """Run an operator's request; if the host dies meanwhile, its result is unknown."""
        node = await self.lives.current()
        request = self.lives.loop.create_task(self._request(node, deed, target), name=deed)
        node.host.adopt(request)
        await asyncio.wait((request,))

    async def _request(self, node: HostedNode, deed: str, target: str) -> None:
        inhabited.set(node.host)
        try:
            match deed:
                case "redrive":
                    self._redrives[target] = self._redrives.get(target, 0) + 1
                    letters = DeadLetters(node.host_storage, node.supervisor, self.lives.clock)
                    await self._insist(lambda: letters.redrive(target))
                    parked = ParkedKeys(node.host_storage, node.supervisor, self.lives.clock)
                    await self._insist(lambda: parked.redrive(target))
                case "discard":
                    self._discards.add(target)
                    parked = ParkedKeys(node.host_storage, node.supervisor, self.lives.clock)
                    await self._insist(lambda: parked.discard(target))
                case "reset":
                    self._resets[target] = self._resets.get(target, 0) + 1
                    await self._insist(lambda: node.supervisor.reset(target, "earliest"))
                case "reload" | "reload otherwise" | "reload without":
                    await self._reload(node, deed, target)
                case _:
                    raise RuntimeError(f"no deed is called {deed}")
        except HeadraceError:
            return

    async def _insist(self, request: Callable[[], Awaitable[object]]) -> None:
        """As an operator does who is told to try again, for another owner had claimed a partition."""
        while True:
            try:
                await request()
            except Fenced:
                await self.lives.clock.sleep(AGAIN_S)
            else:
                return

    async def _reload(self, node: HostedNode, deed: str, target: str) -> None:
        """Deploy the app's next version: other code, a function delivered otherwise, or gone for a moment."""
        supervisor, self._version = node.supervisor, self._version + 1
        app = supervisor.apps[APP]
        functions = [replace(each, version=str(self._version)) for each in app.functions]
        if deed == "reload without":
            less = tuple(each for each in functions if each.name != target)
            await supervisor.deploy(replace(app, functions=less))
        elif deed == "reload otherwise":
            functions = [
                replace(each, timeout=each.timeout + 1) if each.name == target else each
                for each in functions
            ]
        await supervisor.deploy(replace(app, functions=tuple(functions)))

    async def _redrive_all(self) -> None:
        for function in self.plan.functions:
            await self._operate("redrive", f"{APP}.{function.name}")

    # --- what is seen -----------------------------------------------------------------------

    async def before(self, host: SimulatedHost, invocation: Invocation) -> Outcome | None:
        """Note that a run begins, and draw its mishap if the plan has any."""
        self._runs += 1
        self._running[invocation.token] = self._runs
        if invocation.function in self._functions:
            chunks = invocation.chunks if isinstance(invocation, BatchInvocation) else ()
            places = [[at.stream, at.partition, at.offset] for at in positions(chunks)]
            self.history.append(
                ["begin", host.number, self._runs, invocation.function, places, self._now()]
            )
        if self.plan.takes:
            await self.lives.clock.sleep(self.plan.takes)
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

    async def after(
        self, host: SimulatedHost, invocation: Invocation, outcome: Outcome
    ) -> Outcome | None:
        """Note how a run ended."""
        self._ended(host, invocation, outcome)
        return None

    def _ended(self, host: SimulatedHost, invocation: Invocation, outcome: Outcome) -> None:
        run = self._running.pop(invocation.token)
        if invocation.function in self._functions:
            # A run that the platform itself ended is not a failure.
            is_taken = isinstance(outcome, Crashed) and outcome.blameless
            fates = [
                "lost" if is_taken else fate_of(outcome, index) for index in range(invocation.size)
            ]
            self.history.append(["end", host.number, run, fates, self._now()])

    def _now(self) -> int:
        return self.lives.clock.now()

    def landed(self, host: SimulatedHost, change: Change) -> None:
        """Note what a commit changed of what is watched."""
        puts = [(put.space, put.key, put.value) for put in change.puts if put.space in WATCHED]
        deletes = [(gone.space, gone.key) for gone in change.deletes if gone.space in WATCHED]
        if puts or deletes:
            self.history.append(["commit", host.number, puts, deletes])
        for scene in self._scenes:
            scene.landed(host, change)

    def refused(self, host: SimulatedHost, change: Change) -> None:
        """Note a commit that was refused, and the positions it checked."""
        moved = [check.key for check in change.checks if check.space is Space.POSITIONS]
        self.history.append(["refused", host.number, moved, self._now()])

    def _garbage(self) -> set[int]:
        events = (event for action in self.plan.actions for event in action.events)
        return {event.number for event in events if event.garbage}

    def _account(self) -> dict[str, Any]:
        lives = self.lives
        logs = {name: [*self._gone(name), *lives.held_by(name)] for name in self.plan.streams}
        return {
            "functions": {name: self._asked(name, each) for name, each in self._functions.items()},
            "is_skewed": self._is_skewed,
            "takes": round(self.plan.takes * 1e6),
            "in_order": self.plan.in_order and not self.plan.shuffle,
            "dedupe": {name: round(span * 1e6) for name, span in self.plan.dedupe.items()},
            "kept": {name: round(age * 1e6) for name, age in self.plan.kept.items()},
            "sent": self._sent(),
            "acknowledged": self.acknowledged,
            "log": {name: [one[:3] for one in held] for name, held in logs.items()},
            "appended": {name: [one[3] for one in held] for name, held in logs.items()},
            "history": self.history,
            "rows": {
                str(space): lives.rows_of(space)
                for space in (Space.DEAD, Space.PARKED, Space.STATE, Space.WINDOWS, Space.POSITIONS)
            },
            "scenes": {scene.kind: scene.account() for scene in self._scenes},
        }

    def _gone(self, stream: str) -> list[tuple[int, int, bytes, int]]:
        """Return the events that retention has removed from a stream."""
        let_go = self._let_go.get(stream, {})
        return [(*place, body, appended) for place, (body, appended) in sorted(let_go.items())]

    def _sent(self) -> dict[int, list[Any]]:
        """Return the key, time, id, headers, type and source of every published event."""
        events = (event for action in self.plan.actions for event in action.events)
        return {
            event.number: [fact.key, fact.time, fact.id, fact.headers or {}, fact.type, fact.source]
            for event in events
            for fact in [_fact(event)]
        }

    def _asked(self, name: str, each: PlannedFunction) -> dict[str, Any]:
        """Return what the judge may expect of one function."""
        # One that reports failures by name goes on to the next event by itself, whatever its order.
        goes_on = each.shape == "failures" and each.order == "partition"
        return {
            "streams": list(each.streams),
            "output": each.output,
            "keeps_state": each.keeps_state,
            "commit": each.commit,
            "order": "key" if goes_on else each.order,
            "waits": each.order == "key" and each.commit == "after",
            "on_failure": type(each.on_failure).__struct_config__.tag,
            "discards": name in self._discards,
            "attempts": each.retry.attempts,
            "poison": sorted(each.poison | each.flaky.keys() | each.slow | self._garbage()),
            "permanent": sorted(each.permanent),
            "gives_up": ["Permanent", "Undecodable", "Refused", "Invalid", "Unknown"],
            "resets": self._resets.get(name, 0),
            "redrives": self._redrives.get(name, 0),
            "calm": self.plan.calm and each.bisect,
            "healed": self.deeds.healed,
            "least": each.least,
            "bisect": each.bisect,
            "window": round(each.batch_window * 1e6),
            "flow": {
                policy: msgspec.to_builtins(getattr(each, policy))
                for policy in FLOW
                if getattr(each, policy)
            },
        }


def _fact(event: PlannedEvent) -> Fact:
    value = b"\xff garbage %d" % event.number if event.garbage else b'{"n":%d}' % event.number
    headers = dict(event.headers)
    if event.priority:
        headers["headrace-priority"] = str(event.priority)
    if event.delay:
        headers["headrace-delay"] = str(event.delay)
    return Fact(
        value, event.key, event.time, f"id{event.number}", headers or None, event.type, event.source
    )


def _one_by_one(
    held: list[tuple[int, int, bytes, int]],
) -> dict[tuple[int, int], tuple[bytes, int]]:
    """Every event by its place, as a blob of its own, and when it was appended."""
    return {
        (partition, first + step): (encode_events([event]), appended)
        for partition, first, body, appended in held
        for step, event in enumerate(decode_events(body))
    }
