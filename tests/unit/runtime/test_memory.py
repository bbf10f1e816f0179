"""What is read of memory: limits and kills, of both versions of cgroups and of the machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from headrace.model.errors import Misuse
from headrace.model.policy import FleetLimits
from headrace.runtime.process.memory_use import (
    UNLIMITED,
    Cgroup,
    KernelKills,
    limit_of,
    machine_memory,
    memory_of,
    own_memory_of,
)


@pytest.fixture(params=["v1", "v2"])
def group(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Cgroup, Path, Path]:
    """A cgroup, the file that counts its kills, and the one with its limit."""
    if request.param == "v1":
        folder, line = tmp_path / "memory" / "ours", "4:memory:/ours\n0::/\n"
        files = ("memory.oom_control", "memory.limit_in_bytes")
    else:
        folder, line = tmp_path / "ours", "0::/ours\n"
        files = ("memory.events", "memory.max")
    folder.mkdir(parents=True)
    (tmp_path / "membership").write_text(line)
    kills, limit = (folder / name for name in files)
    kills.write_text("low 0\noom_kill 2\nunder_oom 0\n")
    limit.write_text("536870912\n")
    return Cgroup(str(tmp_path), str(tmp_path / "membership")), kills, limit


def test_limits_and_kills_are_read_of_either_version(group: tuple[Cgroup, Path, Path]) -> None:
    cgroup, _, limit = group
    assert (cgroup.limit, cgroup.kills) == (512 << 20, 2)
    limit.write_text("max\n")
    assert cgroup.limit == UNLIMITED
    limit.write_text("9223372036854771712\n")
    assert cgroup.limit == UNLIMITED


def test_a_kill_explains_one_death_and_only_while_it_is_fresh(
    group: tuple[Cgroup, Path, Path], tmp_path: Path
) -> None:
    cgroup, kills, _ = group
    vmstat = tmp_path / "vmstat"
    vmstat.write_text("nr_free_pages 1\noom_kill 7\n")
    watch = KernelKills(cgroup, str(vmstat))
    assert watch.explain(1.0) == ""
    kills.write_text("oom_kill 3\n")
    vmstat.write_text("oom_kill 8\n")
    # Given: somebody looked before the death was told of.
    watch.look(2.0)
    assert watch.explain(3.0) == "its cgroup may use 512 MiB in all"
    assert watch.explain(3.0) == ""
    vmstat.write_text("oom_kill 9\n")
    assert watch.explain(5.0) == "the machine had no more"
    vmstat.write_text("oom_kill 10\n")
    watch.look(6.0)
    assert watch.explain(9.0) == ""


def test_a_machine_that_tells_nothing_has_no_limits_and_no_kills(tmp_path: Path) -> None:
    cgroup = Cgroup(str(tmp_path), str(tmp_path / "nothing"))
    assert (cgroup.limit, cgroup.kills) == (UNLIMITED, 0)
    assert KernelKills(cgroup, str(tmp_path / "nothing")).explain(1.0) == ""


def test_without_a_word_functions_may_use_a_share_of_what_there_is() -> None:
    assert limit_of(64 << 20) == 64 << 20
    assert 0 < limit_of(0) < machine_memory()


def test_a_process_that_is_gone_weighs_nothing() -> None:
    assert (memory_of(0), own_memory_of(0)) == (0, 0)
    assert memory_of(os.getpid()) > 1 << 20


@pytest.mark.parametrize(
    ("field", "value"),
    [("instances", 0), ("memory", 1 << 20), ("zygote_forks", 16_001), ("zygote_age", 0.5)],
)
def test_a_limit_that_cannot_hold_is_refused(field: str, value: float) -> None:
    with pytest.raises(Misuse, match=r"`(max_)?\w+` is .*; use|`(max_)?\w+ = .*; use"):
        FleetLimits(**{field: value})  # type: ignore[arg-type]  # one of them is not a whole number
