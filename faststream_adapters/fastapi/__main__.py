"""`python -m faststream_adapters.fastapi`: commands for FastAPI applications."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ._check import check

_PROGRAM = "python -m faststream_adapters.fastapi"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return the exit code.

    Args:
        arguments: The arguments; None: those of the process.

    Raises:
        SystemExit: A command has ended the process itself.
    """
    words = sys.argv[1:] if arguments is None else [*arguments]
    parser = argparse.ArgumentParser(_PROGRAM)
    commands = parser.add_subparsers(required=True)
    commands.add_parser("run", help="consume messages, without a web server")
    commands.add_parser("info", help="list brokers, subscribers and publishers")
    checking = commands.add_parser(
        "check",
        help="list what to look at when you replace FastStream's FastAPI plugin, or the stand-in for it",
        description="Read Python files, without running them, and list the places that behave differently "
        "with FastStreamRouter. The exit code is 1 if there are any.",
    )
    checking.add_argument("path", type=Path, help="a file, or a directory with everything below it")
    if words[:1] in (["run"], ["info"]):
        # These need click, and the other one does not.
        from ._commands import application_commands

        application_commands()(words, prog_name=_PROGRAM)
    path: Path = parser.parse_args(words).path
    if not path.exists():
        parser.error(f"There is no {path}.")
    found = check(path)
    sys.stdout.writelines(f"{line}\n" for line in found or ["Nothing to look at."])
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
