"""`make release` refuses what cannot be released, and gives the unreleased changes a version."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINKS = ("Repository", "Documentation", "Changelog", "Issues", "Security")
CHANGES = "# Changelog\n\n## [Unreleased]\n\n### Added\n\n- Something.\n"

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed.")


class Checkout:
    """A repository with the script, one commit, and what the script reads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        (path / "tools").mkdir()
        shutil.copy(ROOT / "tools" / "release.py", path / "tools")
        self.write(
            "pyproject.toml", "[project.urls]\n" + "".join(f'{name} = "somewhere"\n' for name in LINKS)
        )
        self.write("CHANGELOG.md", CHANGES)
        (path / "docs").mkdir()
        self.write("docs/benchmarks.json", "{}")
        self.git("init", "--quiet", "--initial-branch", "main")
        self.commit()

    def write(self, name: str, text: str) -> None:
        (self.path / name).write_text(text, encoding="utf-8")

    def git(self, *arguments: str) -> str:
        return subprocess.check_output(["git", *arguments], cwd=self.path, text=True)

    def commit(self) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "change")

    def run(self, *arguments: str) -> str:
        """Run the script, and return what it prints, whether it succeeds or not."""
        command = [sys.executable, "tools/release.py", *arguments]
        done = subprocess.run(command, cwd=self.path, capture_output=True, text=True, check=False, timeout=60)
        return done.stdout + done.stderr


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Checkout:
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "someone")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "someone@example.com")
    return Checkout(tmp_path)


def test_a_checkout_with_everything_is_accepted(checkout: Checkout) -> None:
    assert checkout.run("check", "0.1.0") == ""


def test_every_reason_is_named(checkout: Checkout) -> None:
    checkout.write("pyproject.toml", '[project.urls]\nRepository = "somewhere"\nSecurity = ""\n')
    checkout.write("CHANGELOG.md", CHANGES.replace("- Something.", ""))
    checkout.git("checkout", "--quiet", "-b", "branch")
    checkout.git("tag", "v1.0")
    unset = "Documentation, Changelog, Issues, Security"
    assert checkout.run("check", "1.0").splitlines() == [
        "This version cannot be released:",
        "'1.0' is not a version like 0.1.0 or 0.1.0rc1: make release VERSION=0.1.0",
        f"pyproject.toml does not set these links in [project.urls]: {unset}.",
        "There is a tag v1.0.",
        "The checkout has changes that are not committed.",
        "The branch is not main.",
        "CHANGELOG.md lists no unreleased change.",
    ]


def test_the_unreleased_changes_get_the_version(checkout: Checkout) -> None:
    checkout.run("commit", "0.1.0")
    text = (checkout.path / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(
        r"\n## \[Unreleased\]\n\n## \[0\.1\.0\] - \d{4}-\d\d-\d\d\n\n### Added\n\n- Something\.", text
    )
    assert checkout.git("log", "--format=%s", "-1") == "release: 0.1.0\n"
    assert checkout.git("status", "--porcelain") == ""
    assert "lists no unreleased change" in checkout.run("check", "0.2.0")


def test_the_benchmarks_of_the_release_are_kept(checkout: Checkout) -> None:
    checkout.write("docs/benchmarks.json", '{"sections": {}}')
    checkout.commit()
    checkout.run("commit", "0.1.0")
    kept = checkout.path / "docs" / "benchmarks-released.json"
    assert kept.read_text(encoding="utf-8") == '{"sections": {}}'
    assert checkout.git("status", "--porcelain") == ""


def test_what_remains_is_named(checkout: Checkout) -> None:
    assert "git push origin main v0.1.0" in checkout.run("remaining", "0.1.0")


def test_wrong_arguments_are_answered_with_the_usage(checkout: Checkout) -> None:
    assert "Usage:" in checkout.run("publish", "0.1.0")
