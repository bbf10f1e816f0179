"""A smoke share of the power cuts; needs root, a loop device and the tools of the file system."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.integration.faults.disks import KINDS, cuttable, why_no_mounts
from tests.integration.faults.power_cuts import cut_power
from tests.integration.faults.sites import Site


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A file system this machine can cut the power of."""
    found: str = request.param
    if why := why_no_mounts(found, tmp_path):
        pytest.skip(why)
    return found


def test_a_cut_forgets_what_was_not_flushed_and_nothing_else(kind: str, tmp_path: Path) -> None:
    """Else the cuts below would show nothing."""
    where = tmp_path / "disk"
    with cuttable(kind, tmp_path, where) as disk:
        for name, flushed in (("flushed", True), ("forgotten", False)):
            with (where / name).open("wb", buffering=0) as file:
                file.write(b"x" * 4_096)
                if flushed:
                    os.fsync(file.fileno())
        disk.cut()
        disk.unmount()
        disk.mount()
        assert (where / "flushed").read_bytes() == b"x" * 4_096
        lost = where / "forgotten"
        assert not lost.exists() or lost.read_bytes() != b"x" * 4_096


def test_power_cuts_under_load_lose_nothing_that_was_acknowledged(kind: str, place: Site) -> None:
    assert cut_power(place, 3, 1, kind=kind).findings == []
