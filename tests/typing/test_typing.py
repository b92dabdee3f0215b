"""mypy --strict agrees with the types that users see."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
EXPECTED = re.compile(r"  # type: ignore\[([\w, -]+)\]")
REPORTED = re.compile(r"errors\.py:(\d+): error: .*\[([\w-]+)\]$", re.MULTILINE)


@pytest.mark.timeout(300)  # mypy without its cache
def test_mypy_accepts_right_use_and_refuses_wrong_use(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    source = (HERE / "public_api_errors.py").read_text(encoding="utf-8")
    wrong = tmp_path / "errors.py"
    wrong.write_text(EXPECTED.sub("", source), encoding="utf-8")
    expected = {
        (number, code)
        for number, line in enumerate(source.splitlines(), 1)
        for codes in EXPECTED.findall(line)
        for code in codes.split(", ")
    }
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
    command += [f"--cache-dir={pytestconfig.cache.mkdir('mypy')}", str(HERE / "public_api.py"), str(wrong)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=280)
    reported = {(int(number), code) for number, code in REPORTED.findall(done.stdout)}
    assert reported == expected, done.stdout + done.stderr
    # … and none in the other file.
    assert done.stdout.endswith("in 1 file (checked 2 source files)\n"), done.stdout
