"""Gives each test a site, and ends whatever the test has left running."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.integration.faults.sites import Site, site


@pytest.fixture
def place() -> Iterator[Site]:
    """A folder for one node, and the promise that nothing of it outlives the test."""
    with site() as opened:
        yield opened
