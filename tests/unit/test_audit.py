"""`make audit` distinguishes no known vulnerability, a known one, and advisories that could not be had."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

AUDIT = Path(__file__).parents[2] / "tools" / "audit.py"
NOT_HAD = "could not be had, so nothing is known of these versions."

# Only `make audit` installs pip-audit. Here the version 0 is vulnerable, and nothing is known of "unknown".
STUB = """
import json, sys
dependencies = []
for line in sys.stdin.read().split("\\n")[:-1]:
    name, _, version = line.partition("==")
    if name in {each["name"] for each in dependencies} or not version.isdigit():
        sys.exit(f"ERROR: {name} is refused")
    fault = {"id": "CVE-1", "fix_versions": ["1"] if name != "unfixed" else []}
    faults = [fault] if version == "0" and f"--ignore-vuln={name}" not in sys.argv else []
    found = {"skip_reason": "not found"} if name == "unknown" else {"version": version, "vulns": faults}
    dependencies.append({"name": name, **found})
print(json.dumps({"dependencies": dependencies, "fixes": []}))
"""


def audit(root: Path, newest: str, oldest: str, *options: str, stub: str = STUB) -> tuple[int, list[str]]:
    """Return the exit code and the lines that the script prints about two constraint files."""
    (root / "tools").mkdir()
    shutil.copy(AUDIT, root / "tools")
    (root / "pip_audit.py").write_text(stub, encoding="utf-8")
    (root / "constraints.txt").write_text(f"# Comment.\n{newest}\n", encoding="utf-8")
    (root / "constraints-oldest.txt").write_text(f"# Comment.\n{oldest}\n", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, root / "tools" / "audit.py", *options],
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return done.returncode, (done.stdout + done.stderr).splitlines()


def test_no_known_vulnerability(tmp_path: Path) -> None:
    assert audit(tmp_path, "quart==2", "quart==1\nstarlette==1") == (
        0,
        [
            "constraints.txt: no known vulnerability in 1 packages.",
            "constraints-oldest.txt: no known vulnerability in 2 packages.",
        ],
    )


def test_a_known_vulnerability(tmp_path: Path) -> None:
    assert audit(tmp_path, "unknown==1", "starlette==0\nunfixed==0\nunknown==1\nquart==1") == (
        1,
        [
            f"constraints.txt: the advisories about any package {NOT_HAD}",
            "constraints-oldest.txt: starlette 0: CVE-1, fixed in 1.",
            "constraints-oldest.txt: unfixed 0: CVE-1, fixed in no release.",
            f"constraints-oldest.txt: the advisories about unknown {NOT_HAD}",
        ],
    )


def test_pins_for_other_machines_and_pythons_are_looked_up_too(tmp_path: Path) -> None:
    newest = (
        "colorama==1 ; sys_platform == 'win32'\n"
        "numpy==1 ; python_full_version < '3.12'\n"
        "numpy==0 ; python_full_version >= '3.12'"
    )
    assert audit(tmp_path, newest, "quart==1") == (
        1,
        [
            "constraints.txt: numpy 0: CVE-1, fixed in 1.",
            "constraints-oldest.txt: no known vulnerability in 1 packages.",
        ],
    )


def test_options_reach_pip_audit(tmp_path: Path) -> None:
    code, _ = audit(tmp_path, "starlette==0", "starlette==0", "--ignore-vuln=starlette")
    assert code == 0


def test_a_package_that_no_advisories_could_be_had_about(tmp_path: Path) -> None:
    assert audit(tmp_path, "quart==1\nunknown==1", "quart==1") == (
        2,
        [
            f"constraints.txt: the advisories about unknown {NOT_HAD}",
            "constraints-oldest.txt: no known vulnerability in 1 packages.",
        ],
    )


def test_a_machine_that_no_advisories_can_be_had_on(tmp_path: Path) -> None:
    assert audit(tmp_path, "unknown==1", "unknown==0") == (
        2,
        [
            f"constraints.txt: the advisories about any package {NOT_HAD}",
            f"constraints-oldest.txt: the advisories about any package {NOT_HAD}",
        ],
    )


def test_an_audit_that_fails(tmp_path: Path) -> None:
    stub = "import sys; sys.exit('ERROR: no route to host')"
    assert audit(tmp_path, "quart==1", "quart==1", stub=stub) == (
        2,
        [
            f"constraints.txt: the advisories {NOT_HAD}",
            f"constraints-oldest.txt: the advisories {NOT_HAD}",
            "ERROR: no route to host",
            "ERROR: no route to host",
        ],
    )
