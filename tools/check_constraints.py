"""Check, without a network, that the two constraint files agree with pyproject.toml.

Each requirement has a pin that satisfies it, on every supported Python. In `constraints-oldest.txt` the pins
of the package's own requirements are their lower bounds. A pin consists of a name, a version and a marker.
"""

import sys
import tomllib
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]
CLASSIFIER = "Programming Language :: Python :: 3."
PYTHONS = [
    f"3.{text.removeprefix(CLASSIFIER)}" for text in PROJECT["classifiers"] if text.startswith(CLASSIFIER)
]


def version_of(pin: Requirement) -> str:
    """Return the version of a pin, or "" of anything else."""
    specifiers = list(pin.specifier)
    return specifiers[0].version if [each.operator for each in specifiers] == ["=="] and not pin.url else ""


def read(path: Path) -> list[Requirement]:
    """Return the pins in a file, and exit if it contains anything else."""
    pins = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line or line.startswith("#"):
            continue
        try:
            pins.append(Requirement(line))
        except InvalidRequirement:
            pins.append(Requirement("unknown"))
        if not version_of(pins[-1]):
            sys.exit(f"{path.name}: {line!r} is not a plain pin (name==version). Run `make constraints`.")
    return pins


def requirements(entries: Iterable[str | dict[str, str]]) -> Iterator[Requirement]:
    """Yield what the entries of a list in pyproject.toml require, without the package itself."""
    for entry in entries:
        if isinstance(entry, dict):
            yield from requirements(PYPROJECT["dependency-groups"][entry["include-group"]])
        elif canonicalize_name((requirement := Requirement(entry)).name) != PROJECT["name"]:
            yield requirement


def check(path: Path, required: Iterable[tuple[Requirement, str | None]]) -> None:
    """Exit with an error unless a file pins what is required.

    Args:
        path: The file.
        required: Requirements, each with the version that it must be pinned to, or None for any that
            satisfies it.
    """
    pins = read(path)
    for requirement, exact in required:
        name = canonicalize_name(requirement.name)
        candidates = [pin for pin in pins if canonicalize_name(pin.name) == name]
        for python in PYTHONS:
            environment = {"python_version": python, "python_full_version": f"{python}.0"}
            if requirement.marker is not None and not requirement.marker.evaluate(environment):
                continue
            versions = [
                version_of(pin) for pin in candidates if not pin.marker or pin.marker.evaluate(environment)
            ]
            if (
                len(versions) != 1
                or exact not in {None, *versions}
                or versions[0] not in requirement.specifier
            ):
                sys.exit(
                    f"{path.name} pins {' and '.join(versions) or 'no version'} for {str(requirement)!r} on "
                    f"Python {python}, instead of {exact or 'one that satisfies it'}. Run `make constraints`."
                )


def lower_bound(requirement: Requirement) -> str:
    """Return the lower bound of a requirement, and exit if it has none."""
    bounds = [specifier.version for specifier in requirement.specifier if specifier.operator == ">="]
    if len(bounds) != 1:
        sys.exit(f"pyproject.toml: {str(requirement)!r} needs one lower bound (>=).")
    return bounds[0]


def main() -> None:
    """Check both files."""
    extras = PROJECT["optional-dependencies"].values()
    package = list(requirements([*PROJECT["dependencies"], *chain(*extras)]))
    groups = [(each, None) for each in requirements(PYPROJECT["dependency-groups"]["pinned"])]
    check(ROOT / "constraints.txt", [*((each, None) for each in package), *groups])
    check(ROOT / "constraints-oldest.txt", [*((each, lower_bound(each)) for each in package), *groups])


if __name__ == "__main__":
    main()
