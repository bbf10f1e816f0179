"""Every contract test runs once per driver."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.contract.contract_drivers import (
    BROKERS,
    STORAGES,
    AnyStorage,
    ManualClock,
    OpenBroker,
    Place,
)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "data", ManualClock())


@pytest.fixture(params=sorted(STORAGES))
def storage_driver(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def storage(storage_driver: str, place: Place) -> AsyncIterator[AnyStorage]:
    opened = await STORAGES[storage_driver](place)
    yield opened
    await opened.close()


@pytest.fixture(params=BROKERS)
async def log(request: pytest.FixtureRequest, place: Place) -> AsyncIterator[OpenBroker]:
    opened = OpenBroker(str(request.param), place)
    await opened.open()
    yield opened
    await opened.close()
