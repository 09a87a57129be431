"""Which recordings are read when others than the repository's are named."""

from __future__ import annotations

import pytest

from tests.parity.conftest import SHIPPED, fixture_folders, recorded


def test_what_a_folder_lacks_is_read_from_the_repository(tmp_path, monkeypatch):
    given = tmp_path / "groma" / "fixture_b"
    given.mkdir(parents=True)
    monkeypatch.setenv("PARFOCAL_FIXTURES", str(tmp_path))
    assert fixture_folders("groma") == [given]
    assert recorded("groma/fixture_b") == given
    assert recorded("groma/prompts") == SHIPPED / "groma" / "prompts"
    assert {path.parents[1] for path in fixture_folders("mg_llava")} == {SHIPPED}


def test_a_folder_without_recordings_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("PARFOCAL_FIXTURES", str(tmp_path))
    for read in (lambda: recorded("groma/prompts"), lambda: fixture_folders("groma")):
        with pytest.raises(FileNotFoundError, match="unset it, or name the folder that holds"):
            read()
