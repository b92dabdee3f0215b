"""Look up known vulnerabilities of every version in the two constraint files, with pip-audit.

pip-audit also succeeds where it finds no advisories because it cannot ask for any, such as behind a mirror of
the package index. This script does not.

Usage:
    python tools/audit.py [option of pip-audit]...

Exit codes:
    0   there is no known vulnerability
    1   there is one, or several
    2   none was found, but the advisories about some packages could not be had: nothing is known of these
"""

import json
import subprocess
import sys
from itertools import zip_longest
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
FILES = ("constraints.txt", "constraints-oldest.txt")
# pip-audit reads the pins from its input.
OPTIONS = (
    "--requirement=/dev/stdin",
    "--no-deps",
    "--disable-pip",
    "--progress-spinner=off",
    "--format=json",
)


def pins(file: str) -> list[list[str]]:
    """Return the pins in a file, without markers, in lists that contain each package once.

    pip-audit would omit a pin whose marker excludes this machine or this Python. It refuses two versions of
    one package, which pins for different versions of Python can be.
    """
    by_name: dict[str, list[str]] = {}
    for line in (ROOT / file).read_text(encoding="utf-8").splitlines():
        pin = line.partition("#")[0].partition(";")[0].strip()
        if pin:
            by_name.setdefault(pin.partition("==")[0], []).append(pin)
    return [[pin for pin in each if pin] for each in zip_longest(*by_name.values())]


def report(requirements: list[str]) -> list[dict[str, Any]] | None:
    """Return what pip-audit reports on each package; None if it could not ask for advisories."""
    command = [sys.executable, "-m", "pip_audit", *OPTIONS, *sys.argv[1:]]
    text = "\n".join(requirements) + "\n"
    done = subprocess.run(command, cwd=ROOT, input=text, capture_output=True, text=True, check=False)
    try:
        found: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except ValueError:
        print(done.stderr.rstrip(), file=sys.stderr)
        return None
    return found


def audit(file: str) -> int:
    """Print what is known of the packages of a file, and return the exit code."""
    packages = []
    for requirements in pins(file):
        found = report(requirements)
        if found is None:
            print(f"{file}: the advisories could not be had, so nothing is known of these versions.")
            return 2
        packages += found
    vulnerable = [package for package in packages if package.get("vulns")]
    for package in vulnerable:
        for fault in package["vulns"]:
            fixed = ", ".join(fault["fix_versions"]) or "no release"
            print(f"{file}: {package['name']} {package['version']}: {fault['id']}, fixed in {fixed}.")
    unknown = [package["name"] for package in packages if "skip_reason" in package]
    if unknown:
        which = "any package" if len(unknown) == len(packages) else ", ".join(unknown)
        print(
            f"{file}: the advisories about {which} could not be had, so nothing is known of these versions."
        )
    if vulnerable:
        return 1
    if unknown:
        return 2
    print(f"{file}: no known vulnerability in {len(packages)} packages.")
    return 0


if __name__ == "__main__":
    codes = {audit(file) for file in FILES}
    sys.exit(1 if 1 in codes else max(codes))
