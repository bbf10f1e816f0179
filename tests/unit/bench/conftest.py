"""The bench suite is beside the package, not in it; make it importable for these tests."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))
