"""`make mutants`: every mutant is code that differs from what it was made of."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from scripts.mutants import ROOMS, ROOT, mutants_of

WATERMARK = Path("src/headrace/delivery/partition/watermark.py")


@pytest.mark.parametrize("room", ROOMS)
def test_every_room_has_mutants(room: str) -> None:
    assert any(mutants_of(file.relative_to(ROOT)) for file in (ROOT / room).rglob("*.py"))


def test_a_mutant_is_code_with_one_change() -> None:
    whole = (ROOT / WATERMARK).read_text()
    plain = ast.unparse(ast.parse(whole)).splitlines()
    mutants = mutants_of(WATERMARK)
    assert len(mutants) > 20
    for mutant in mutants:
        changed = mutant.applied(whole)
        ast.parse(changed)
        assert sum(line not in plain for line in changed.splitlines()) == 1, str(mutant)


def test_a_comparison_that_is_off_by_one_is_among_them() -> None:
    tried = {(mutant.before, mutant.after) for mutant in mutants_of(WATERMARK)}
    assert ("offset < self.low", "offset <= self.low") in tried
