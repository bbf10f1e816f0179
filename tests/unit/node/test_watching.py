"""Which folder is watched for edits, by how the app was named."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.node.lifecycle import folder_of


def test_a_target_leads_to_the_folder_its_code_is_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = tmp_path / "away"
    (away / "shop").mkdir(parents=True)
    (away / "shop" / "app.py").write_text("")
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    for target in ("../away/shop", "../away/shop/app.py", "../away/shop/app.py:app"):
        assert folder_of(target) == away / "shop"
    assert folder_of("company.shop:app").resolve() == here
