"""Makes the auditor importable, and ends whatever a test has left running."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from sites import Site, site


@pytest.fixture
def place() -> Iterator[Site]:
    """A folder for one node, and the promise that nothing of it outlives the test."""
    with site() as opened:
        yield opened
