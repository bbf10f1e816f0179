"""Write the tables of `docs/concepts/isolation.md`: `python scripts/isolation_page.py`, as root.

The hostile app of the tests asks everything of real nodes, which takes half a minute.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.integration.hostile_app.asking import all_answers
from tests.integration.hostile_app.page import PAGE, cells_of, put


def main() -> None:
    """Ask, and write."""
    with tempfile.TemporaryDirectory(prefix="hostile") as made:
        folder = Path(made)
        folder.chmod(0o755)
        PAGE.write_text(put(PAGE.read_text(), cells_of(all_answers(folder))))


if __name__ == "__main__":
    main()
