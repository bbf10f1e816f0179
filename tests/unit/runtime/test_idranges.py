"""Nodes of one machine that run as root have ranges of ids that do not meet."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.environment.randomness import SeededEntropy
from headrace.model.errors import Unavailable
from headrace.runtime.id_ranges import INSTANCE_UIDS, MAX_BLOCKS, MAX_NODES, IdRange
from headrace.runtime.sandbox.warden import IDS_PER_ZYGOTE


def test_nodes_that_draw_the_same_number_get_ranges_that_do_not_meet(tmp_path: Path) -> None:
    ranges = [IdRange(SeededEntropy(7), tmp_path) for _ in range(MAX_NODES)]
    blocks = {each.block(number) for each in ranges for number in range(MAX_BLOCKS)}
    assert len(blocks) == MAX_NODES * MAX_BLOCKS
    assert all(
        first in INSTANCE_UIDS and first + IDS_PER_ZYGOTE - 1 in INSTANCE_UIDS for first in blocks
    )
    assert all(first % IDS_PER_ZYGOTE == 0 for first in blocks)
    with pytest.raises(Unavailable, match="32 nodes run as root"):
        IdRange(SeededEntropy(7), tmp_path)
    ranges[3].give_back()
    assert IdRange(SeededEntropy(7), tmp_path).first == ranges[3].first


def test_blocks_are_used_again_within_the_own_range(tmp_path: Path) -> None:
    mine = IdRange(SeededEntropy(7), tmp_path)
    assert mine.block(MAX_BLOCKS + 5) == mine.block(5)


def test_without_a_folder_to_lock_in_a_range_is_drawn(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    assert IdRange(SeededEntropy(7), tmp_path / "file").first in INSTANCE_UIDS
    assert "may be those of another node" in caplog.text
