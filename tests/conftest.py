"""How all tests run: how many examples a property is tried on, and a collector that is not in the way.

A property is tried on `PROPERTY_EXAMPLES` random examples: few where somebody waits for the answer,
many in `.ci/run`, before a push. None has a deadline, since on a busy machine that would measure
the neighbours.
"""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import Iterator
from importlib.util import find_spec

import pytest
from hypothesis import settings

EXAMPLES = int(os.environ.get("PROPERTY_EXAMPLES", "50"))

settings.register_profile("headrace", max_examples=EXAMPLES, deadline=None, print_blob=True)
settings.load_profile("headrace")


DRIVERS = (
    "obstore",
    "asyncssh",
    "redis",
    "nats",
    "paho",
    "aio_pika",
    "aiobotocore",
    "confluent_kafka",
    "pulsar",
    "psycopg",
    "moto",
)


def pytest_configure() -> None:
    """Where all must be there, a driver that is absent is a failure; elsewhere its tests are skipped."""
    if os.environ.get("CI") == "true" and (absent := [n for n in DRIVERS if not find_spec(n)]):
        pytest.exit(f"CI=true needs {', '.join(absent)}: run `make setup-all`", returncode=1)


@pytest.fixture(autouse=True)
def _level_of_the_log() -> Iterator[None]:
    """Restore the level of the platform's log: commands that a test runs in this process change it."""
    logger = logging.getLogger("headrace")
    level = logger.level
    yield
    logger.setLevel(level)


@pytest.fixture(scope="session", autouse=True)
def _folders_of_other_runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Give each run of pytest that a test starts a root of its own for temporary folders.

    Whoever starts closes the common root to other users, functions of nodes under test among them,
    which then cannot read their own code any more.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTEST_DEBUG_TEMPROOT", str(tmp_path_factory.mktemp("runs")))
        yield


def pytest_collection_finish() -> None:
    """Set aside what was made before the first test.

    It stays alive to the end, and each full collection would walk over all of it again: a tenth of
    the time that the unit tests take. What tests make is collected as ever.
    """
    gc.collect()
    gc.freeze()
