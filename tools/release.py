"""Prepare a release. `make release VERSION=…` runs the three steps in this order.

Usage:
    python tools/release.py check VERSION       exit with 1 and the reasons if the version cannot be released
    python tools/release.py commit VERSION      give the unreleased changes their version, and commit that
    python tools/release.py remaining VERSION   print what a maintainer has to do
"""

import re
import shutil
import subprocess
import sys
import tomllib
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CHANGELOG = ROOT / "CHANGELOG.md"
MEASURED = ROOT / "docs" / "benchmarks.json"
RELEASED = ROOT / "docs" / "benchmarks-released.json"
UNRELEASED = "## [Unreleased]\n"
LINKS = ("Repository", "Documentation", "Changelog", "Issues", "Security")


def git(*arguments: str) -> str:
    """Run git in the repository, and return its output."""
    return subprocess.check_output(["git", *arguments], cwd=ROOT, text=True).strip()  # noqa: S607 (as users do)


def check(version: str) -> None:
    """Exit with an error that lists each reason why the version cannot be released."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    links = project.get("urls", {})
    changes = CHANGELOG.read_text(encoding="utf-8").partition(UNRELEASED)[2].partition("\n## ")[0]
    missing = [name for name in LINKS if not links.get(name)]
    reasons = {
        f"{version!r} is not a version like 0.1.0 or 0.1.0rc1: make release VERSION=0.1.0": not re.fullmatch(
            r"\d+\.\d+\.\d+(?:(?:a|b|rc)\d+)?", version
        ),
        f"pyproject.toml does not set these links in [project.urls]: {', '.join(missing)}.": missing,
        f"There is a tag v{version}.": git("tag", "--list", f"v{version}"),
        "The checkout has changes that are not committed.": git("status", "--porcelain"),
        "The branch is not main.": git("branch", "--show-current") != "main",
        "CHANGELOG.md lists no unreleased change.": "\n- " not in changes,
    }
    if found := [reason for reason, holds in reasons.items() if holds]:
        sys.exit("\n".join(["This version cannot be released:", *found]))


def commit(version: str) -> None:
    """Move the unreleased changes below a heading with the version and today's date, and commit that.

    The benchmarks of this release are kept, so that later ones are compared with them.
    """
    text = CHANGELOG.read_text(encoding="utf-8")
    heading = f"## [{version}] - {datetime.now(UTC):%Y-%m-%d}\n"
    CHANGELOG.write_text(text.replace(UNRELEASED, f"{UNRELEASED}\n{heading}", 1), encoding="utf-8")
    shutil.copy(MEASURED, RELEASED)
    git("add", "--", CHANGELOG.name, str(RELEASED))
    git("commit", "--quiet", "--message", f"release: {version}")


def remaining(version: str) -> None:
    """Print the steps that are left to a maintainer."""
    print(
        f"""
Version {version} is committed, and dist/ has what it will contain. What remains:

  1. Run .ci/run, and read the changes: git show
  2. Tag the commit:                    git tag --sign v{version} --message {version}
  3. Publish both:                      git push origin main v{version}

The push of the tag starts the workflow "Release". It builds the package from the tag, attests it, and waits
for a maintainer who approves the environment "pypi". The package index must trust both of them."""
    )


if __name__ == "__main__":
    steps = {"check": check, "commit": commit, "remaining": remaining}
    if len(sys.argv) != 3 or sys.argv[1] not in steps:  # noqa: PLR2004 (a step and a version)
        sys.exit(__doc__)
    steps[sys.argv[1]](sys.argv[2])
