"""How all tests run: how many examples a property is tried on, and a collector that is not in the way.

A property is tried on `PROPERTY_EXAMPLES` random examples: few where somebody waits for the answer,
many in `.ci/run`, before a push. None has a deadline, since on a busy machine that would measure
the neighbours.
"""

from __future__ import annotations

import gc
import os

from hypothesis import settings

EXAMPLES = int(os.environ.get("PROPERTY_EXAMPLES", "50"))

settings.register_profile("headrace", max_examples=EXAMPLES, deadline=None, print_blob=True)
settings.load_profile("headrace")


def pytest_collection_finish() -> None:
    """Set aside what was made before the first test.

    It stays alive to the end, and each full collection would walk over all of it again: a tenth of
    the time that the unit tests take. What tests make is collected as ever.
    """
    gc.collect()
    gc.freeze()
