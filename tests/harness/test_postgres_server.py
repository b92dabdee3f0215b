"""The PostgreSQL of the tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.harness.servers.postgres import find_postgres

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_the_newest_version_outside_the_path_is_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_postgres(tmp_path) is None
    for version in ("15", "17", "16"):
        program = tmp_path / version / "bin" / "postgres"
        program.parent.mkdir(parents=True)
        program.touch()
    assert find_postgres(tmp_path) == tmp_path / "17" / "bin"
