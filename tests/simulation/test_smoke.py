"""A share of the simulated seeds with every test run; `make sim` plays thousands."""

from __future__ import annotations

import subprocess
import sys

import pytest
from tests.auditor.judge import judge

from headrace.simulation.campaign import campaign, describe, main, play, play_plan
from headrace.simulation.plan import core_of, plan_of
from headrace.simulation.run import SimulationRun
from headrace.simulation.scenes.windows import PlannedWindows
from headrace.simulation.workload import FLOW

SHARE = 8
PER_SHARE = 25


@pytest.mark.parametrize("share", range(SHARE))
def test_every_promise_holds_under_a_share_of_the_seeds(share: int) -> None:
    seeds = range(share * PER_SHARE, (share + 1) * PER_SHARE)

    bad = campaign(seeds, "tests.auditor.judge:judge")

    assert not bad, "\n".join(
        f"seed {seed}: {findings}\n{describe(plan_of(seed))}" for seed, findings in bad
    )


# Seeds whose core once found a fault of the platform; what it was.
NAMED_CORES = {
    12: "a worker that lost its partition was reported as a broken worker",
    79: "another worker's end let a redriven event run a second time",
    89: "halves of a failed batch of lanes ran side by side",
    1362: "a partition that was claimed late by a zombie stayed without an owner",
    3207: "an at-most-once commit without a position let a parked row land without its key",
    3347: "events that the watermark had leapt over were delivered again",
    5020: "a dead letter that was redriven as its partition was claimed did not hold back its key",
}


# The same for whole seeds, with flow control and scenes.
NAMED = {
    820161: "a unit that ran again before its last commit had landed was written down with its old attempts",
    530299: "a unit whose retry was on its way to the disk was written down with its old attempts as well",
    706: "a reset while a partition was being claimed was noticed only at the next event",
    202: "a receipt was refused after an answer about it had been lost",
    236: "a clock that was set back held a throttled function up for as long",
    313: "a host that slept wrote its lease over that of the next one",
    381: "an acknowledgement that landed as the time was over was answered, and forgotten",
    444: "a host that starts forgot the leases of messages that were being redriven",
    445: "a host that died with a refusal forgot for how long it had put the message off",
    483: "a refusal whose commit did not land was not counted: a message came too often",
    2528: "a message that was redriven held back its whole key in a queue without order",
    2627: "a replay whose beginning landed unheard stood still until the next start",
    1643: "what was laid behind a parked key kept the room that its key had for others",
    7965: "what was laid behind a parked key was passed by the positions of outputs gathered before",
    33765: "a moment that passed before its schedule was first written down never fired",
    22528: "what was laid behind a key as it was freed stayed parked, and nothing waited for it",
    24042: "a throttle with `commit=before` was forgotten with its host",
    10005: "a throttled key's retry was put behind what came after it in another of its keys",
    32068: "a redrive whose asker had gone broke the worker that carried it out",
    151: "a redrive of a stopped partition began it anew once for every event that stopped it",
    480: "the attempts of an event that lanes read after later ones were forgotten by the next host",
    2674: "a partition that was stopped for good ran on after a crash, as lanes read it out of order",
    1714: "a unit that was taken back lost the attempts that had been spent on it",
    1811: "a unit that was taken back ran behind a later event of its key, cut from the same batch",
    11864: "a host that slept while it claimed a partition passed for the next owner",
    12104: "as 1811, where a batch had been halved",
    41592: "a receipt was refused because the message was offered anew while it was being given out",
    12108: "what had ended while the log was away was thrown away, and its attempt forgotten",
    14777: "a full bucket's row was deleted by one partition after another one had taken a token and said so",
    # The judge, or who plays the operator, was wrong here:
    6989: "an event that a pattern leaves out was expected to go when its window was over",
    17855: "as 6989, with a debounced key",
    3635: "a host died amid a commit that had to be handed over again: its waiter was already cancelled",
    4558: "as 3635, while another host took over",
    1547: "an operator redrove through a host that was fenced: it wrote rows that have another writer",
    17061: "a message that was told of when its lease was over already passed for a second holder",
    501514: "as 17061",
    12721: "a run whose commit was turned down while its host was stopped was expected not to run again",
    15169: "as 12721, with runs that had begun as the change was turned down",
    6351: "a merge was sent back through a host that another one had taken over from meanwhile",
}


@pytest.mark.parametrize("seed", NAMED_CORES, ids=[f"seed {seed}" for seed in NAMED_CORES])
def test_a_core_that_once_found_a_fault_finds_none_now(seed: int) -> None:
    assert play_plan(core_of(seed), judge)[0] == []


@pytest.mark.parametrize("seed", NAMED, ids=[f"seed {seed}" for seed in NAMED])
def test_a_seed_that_once_found_a_fault_finds_none_now(seed: int) -> None:
    assert play(seed, judge)[0] == []


def test_the_seeds_reach_every_kind_of_trouble() -> None:
    plans = [plan_of(seed) for seed in range(400)]
    functions = [function for plan in plans for function in plan.functions]

    assert {type(each.on_failure).__name__ for each in functions} == {
        "DeadLetter",
        "ParkKey",
        "ParkPartition",
        "Discard",
    }
    assert {each.order for each in functions} == {"partition", "key", "none"}
    assert {each.commit for each in functions} == {"after", "before"}
    assert {each.shape for each in functions} == {
        "single",
        "async",
        "batch",
        "done",
        "failures",
        "async batch",
    }
    assert {len(each.streams) for each in functions} == {1, 2}
    assert {action.deed for plan in plans for action in plan.actions} == {
        "publish",
        "crash",
        "crash at",
        "take over",
        "thaw",
        "skew",
        "redrive",
        "heal",
        "pause",
        "resume",
        "reset",
        "discard",
        "sweep",
        "drain",
        "reload",
        "reload otherwise",
        "reload without",
    }
    assert {len(plan.scenes) for plan in plans} == {0, 1, 2}
    assert {scene.__struct_config__.tag for plan in plans for scene in plan.scenes} == {
        "queue",
        "bus",
        "calendar",
        "consumer",
        "merge",
        "desk",
        "windows",
    }
    windows = [
        scene for plan in plans for scene in plan.scenes if isinstance(scene, PlannedWindows)
    ]
    assert {bool(each.idle) for each in windows} == {bool(each.flushes) for each in windows}
    assert any(each.idle and each.flushes for each in windows)
    assert not all(each.closes_early for each in windows)
    for policy in (*FLOW, "least"):
        assert any(getattr(each, policy) for each in functions), f"no function has {policy}"
    assert any(not each.merge for each in functions)
    assert any(plan.dedupe for plan in plans)
    assert any(plan.queues for plan in plans)
    assert any(plan.kept for plan in plans)
    assert any(plan.compacted for plan in plans)
    assert any(event.key == "" for plan in plans for act in plan.actions for event in act.events)
    assert any(event.garbage for plan in plans for act in plan.actions for event in act.events)


def test_a_run_comes_out_the_same_in_another_process() -> None:
    script = (
        "from headrace.simulation.campaign import play\n"
        "print([play(seed, lambda _: [])[1] for seed in (4, 36, 42, 115, 196, 381, 444, 1293, 2250, 2300)])"
    )
    marks = {
        subprocess.run(
            [sys.executable, "-c", script],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": hash_seed, "PYTHONPATH": "src"},
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert len(marks) == 1


def test_an_account_is_plain_values() -> None:
    account = SimulationRun(plan_of(41)).play()

    assert set(account) == {
        "functions",
        "acknowledged",
        "log",
        "appended",
        "history",
        "rows",
        "dedupe",
        "is_skewed",
        "in_order",
        "kept",
        "scenes",
        "sent",
        "takes",
    }
    assert any(entry[0] == "commit" for entry in account["history"])


def test_the_command_prints_a_bad_seed_with_its_plan(capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["--seeds", "1", "--start", "41", "--judge", "tests.simulation.test_smoke:harsh"])

    said = capsys.readouterr().out
    assert code == 1
    assert "seed 41 (again: --start 41 --seeds 1)" in said
    assert "f0: streams=" in said
    assert "PlannedSchedules(" in said
    assert "! nothing is ever good enough" in said


def test_a_judge_that_stops_counts_against_its_seed(capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["--seeds", "1", "--start", "41", "--judge", "tests.simulation.test_smoke:lost"])

    said = capsys.readouterr().out
    assert code == 1
    assert "seed 41 (again: --start 41 --seeds 1)" in said
    assert "! the judge stopped: KeyError: 'nothing' (test_smoke.py:" in said


def test_a_run_that_stops_counts_against_its_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(self: SimulationRun) -> dict[str, object]:
        raise KeyError("nothing")

    monkeypatch.setattr(SimulationRun, "play", stop)

    (finding,) = play(41, judge)[0]
    assert finding.startswith("the run stopped: KeyError: 'nothing' (test_smoke.py:")


def test_the_command_says_which_judge_is_missing() -> None:
    with pytest.raises(SystemExit, match=r"there is no judge `tests\.nobody:judge`"):
        main(["--seeds", "1", "--judge", "tests.nobody:judge"])


def harsh(account: dict[str, object]) -> list[str]:
    return ["nothing is ever good enough"]


def lost(account: dict[str, object]) -> list[str]:
    return [str(account["nothing"])]
