"""Write or check the two constraint files, which say exactly which versions are installed.

`constraints.txt` holds the newest versions that fit together, `constraints-oldest.txt` the lower bound of
every dependency in pyproject.toml together with the newest of everything else. Both come from a fresh
environment, and hold nothing but `name==version`: no addresses, no paths, no hashes.

Usage:
    python tools/constraints.py           resolve again and write both files
    python tools/constraints.py --check   exit with 1 unless both files agree with pyproject.toml
"""

import re
import subprocess
import sys
import tempfile
import tomllib
import venv
from itertools import chain
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NEWEST = ROOT / "constraints.txt"
OLDEST = ROOT / "constraints-oldest.txt"
HEADER = "# Written by `make constraints`: edit pyproject.toml instead, then run it again.\n"

# Part of every new environment of Python 3.11, of no later one, and needed by nothing here.
NOT_OURS = {"faststream-adapters", "setuptools"}
PIN = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)==(?P<version>[0-9][A-Za-z0-9.!]*)")
REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^\]]*\])?(?P<versions>.*)")


def normalized(name: str) -> str:
    """Return the one spelling of a package's name, so that `Quart` and `quart` are the same."""
    return re.sub(r"[-_.]+", "-", name).lower()


def lower_bounds() -> dict[str, str]:
    """Read the lowest version of every dependency of the package and of its extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    requirements = chain(project["dependencies"], *project["optional-dependencies"].values())
    bounds: dict[str, str] = {}
    for requirement in requirements:
        parts = REQUIREMENT.fullmatch(requirement)
        if parts is None or normalized(parts["name"]) == normalized(project["name"]):
            continue
        name = normalized(parts["name"])
        lowest = re.search(r">=\s*([^\s,;]+)", parts["versions"])
        if lowest is None:
            sys.exit(f"pyproject.toml: {requirement!r} states no lower bound (>=).")
        if bounds.setdefault(name, lowest[1]) != lowest[1]:
            sys.exit(f"pyproject.toml: {name} has two lower bounds, {bounds[name]} and {lowest[1]}.")
    return bounds


def resolve(constraints: list[str]) -> dict[str, str]:
    """Install everything into a fresh environment and return the versions that it holds."""
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        python = str(Path(folder) / "bin" / "python")
        limits = Path(folder) / "limits.txt"
        limits.write_text("\n".join(constraints), encoding="utf-8")
        pip = [python, "-m", "pip", "--disable-pip-version-check"]
        subprocess.run([*pip, "install", "--quiet", "--upgrade", "pip"], cwd=ROOT, check=True)
        names = ("test", "lint", "bench", "build")
        groups = [word for name in names for word in ("--group", name)]
        install = [*pip, "install", "--quiet", "--constraint", str(limits), "--editable", ".[all]", *groups]
        subprocess.run(install, cwd=ROOT, check=True)
        frozen = subprocess.check_output([*pip, "freeze", "--all", "--exclude-editable"], cwd=ROOT, text=True)
    versions = parse(frozen.splitlines())
    return {name: version for name, version in versions.items() if name not in NOT_OURS}


def parse(lines: list[str]) -> dict[str, str]:
    """Read pins, one on each line, and refuse whatever is not simply a name and a version."""
    versions: dict[str, str] = {}
    for line in lines:
        if not line or line.startswith("#"):
            continue
        pin = PIN.fullmatch(line)
        if pin is None:
            sys.exit(f"{line!r} is not a plain pin (name==version), so it may not work on another machine.")
        versions[normalized(pin["name"])] = pin["version"]
    return versions


def pins(versions: dict[str, str]) -> list[str]:
    """Write versions as sorted pins."""
    return [f"{name}=={version}" for name, version in sorted(versions.items())]


def write() -> None:
    """Resolve again and write both files."""
    if sys.version_info[:2] != (3, 11):
        sys.exit(
            "Write the constraint files with Python 3.11: every Python that we support can then use them."
        )
    newest = resolve([])
    NEWEST.write_text(HEADER + "\n".join(pins(newest)) + "\n", encoding="utf-8")
    bounds = lower_bounds()
    rest = {name: version for name, version in resolve(pins(bounds)).items() if name not in bounds}
    sections = [
        HEADER.rstrip(),
        "",
        "# The lower bounds of pyproject.toml: the oldest versions that we support.",
        *pins(bounds),
        "",
        "# Everything else, as it was installed beside them.",
        *pins(rest),
    ]
    OLDEST.write_text("\n".join(sections) + "\n", encoding="utf-8")
    print(f"Wrote {NEWEST.name} ({len(newest)} versions) and {OLDEST.name} ({len(bounds)} lower bounds).")


def check() -> None:
    """Fail unless both files hold plain pins and agree with the lower bounds of pyproject.toml."""
    newest, oldest = (parse(path.read_text(encoding="utf-8").splitlines()) for path in (NEWEST, OLDEST))
    for name, lowest in lower_bounds().items():
        if name not in newest or oldest.get(name) != lowest:
            sys.exit(f"The constraint files lack {name} {lowest} of pyproject.toml: run `make constraints`.")


if __name__ == "__main__":
    if sys.argv[1:] == ["--check"]:
        check()
    elif not sys.argv[1:]:
        write()
    else:
        sys.exit(__doc__)
