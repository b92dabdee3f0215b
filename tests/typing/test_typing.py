"""The types of the public API, as `mypy --strict` sees them in an application."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness.plugins import SERVICES, with_stand_in

HERE = Path(__file__).parent
EXPECTED = re.compile(r"  # type: ignore\[([\w, -]+)\]")
REPORTED = re.compile(r"errors\.py:(\d+): error: .*\[([\w-]+)\]$", re.MULTILINE)


# `make typecheck` checks the same files, with the settings of this repository instead of mypy's own.
@pytest.mark.full
@pytest.mark.timeout(300)  # mypy without its cache
def test_mypy_accepts_correct_code_and_rejects_incorrect_code(
    tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    source = (HERE / "public_api_errors.py").read_text(encoding="utf-8")
    incorrect = tmp_path / "errors.py"
    incorrect.write_text(EXPECTED.sub("", source), encoding="utf-8")
    expected = {
        (number, code)
        for number, line in enumerate(source.splitlines(), 1)
        for codes in EXPECTED.findall(line)
        for code in codes.split(", ")
    }
    services: list[Path] = []
    for service in sorted(SERVICES.glob("[a-z]*.py")):
        services.append(tmp_path / service.name)
        services[-1].write_text(with_stand_in(service.read_text(encoding="utf-8")), encoding="utf-8")
    assert pytestconfig.cache is not None
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--hide-error-context",
        "--no-pretty",
        "--config-file=",
    ]
    command += [
        f"--cache-dir={pytestconfig.cache.mkdir('mypy')}",
        str(HERE / "public_api.py"),
        str(incorrect),
        *map(str, services),
    ]
    process = subprocess.run(command, capture_output=True, text=True, check=False, timeout=280)
    reported = {(int(number), code) for number, code in REPORTED.findall(process.stdout)}
    assert reported == expected, process.stdout + process.stderr
    # There are no errors in the other files, six of which use the stand-in for FastStream's plugin.
    assert process.stdout.endswith("in 1 file (checked 8 source files)\n"), process.stdout
