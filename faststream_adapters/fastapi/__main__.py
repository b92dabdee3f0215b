"""`python -m faststream_adapters.fastapi`: commands for FastAPI applications."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ._check import check


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return the exit code.

    Args:
        arguments: The arguments; None: those of the process.
    """
    parser = argparse.ArgumentParser("python -m faststream_adapters.fastapi")
    commands = parser.add_subparsers(required=True)
    checking = commands.add_parser(
        "check",
        help="list what to look at when you replace FastStream's FastAPI plugin, or the stand-in for it",
        description="Read Python files, without running them, and list the places that behave differently "
        "with FastStreamRouter. The exit code is 1 if there are any.",
    )
    checking.add_argument("path", type=Path, help="a file, or a directory with everything below it")
    path: Path = parser.parse_args(arguments).path
    if not path.exists():
        parser.error(f"There is no {path}.")
    found = check(path)
    sys.stdout.writelines(f"{line}\n" for line in found or ["Nothing to look at."])
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
