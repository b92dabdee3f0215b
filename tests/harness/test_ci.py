"""`.ci/run` ends with a report of the failed steps and of the tests that were rerun."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

RUN = Path(__file__).parents[2] / ".ci" / "run"

NOTE = 'printf "tests/test_{0}.py::test_{0}\\n" >>"$FASTSTREAM_ADAPTERS_RERUNS"'


@pytest.fixture
def stubs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a directory that comes first on PATH. Its stubs install nothing, and offer no Python."""
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    stub(tmp_path / "apt-get", "true")
    # pyenv has a command for each version, which fails unless the version is selected.
    for python in ("python3", "python3.11", "python3.12", "python3.13", "python3.14"):
        stub(tmp_path / python, "exit 127")
    return tmp_path


def stub(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(0o755)


def run(stubs: Path, make: str) -> tuple[int, list[str]]:
    """Run all steps with a stub for make, and return the exit code and the lines after the last step."""
    stub(stubs / "make", make)
    before = set(stubs.iterdir())
    done = subprocess.run([RUN], capture_output=True, text=True, check=False, timeout=60)
    assert done.stderr == ""
    assert set(stubs.iterdir()) == before
    return done.returncode, done.stdout.rpartition("=== All steps took ")[2].splitlines()[1:]


def test_success_is_reported(stubs: Path) -> None:
    assert run(stubs, "true") == (0, ["All steps passed.", "No test was rerun."])


def test_rerun_tests_are_listed_once(stubs: Path) -> None:
    make = f"case $1 in test-*) {NOTE.format('b')}; {NOTE.format('a')};; esac"
    assert run(stubs, make) == (
        0,
        [
            "All steps passed.",
            "Tests that were rerun:",
            "  tests/test_a.py::test_a",
            "  tests/test_b.py::test_b",
        ],
    )


def test_a_failed_step_is_listed_and_the_others_run(stubs: Path) -> None:
    make = f"case $1 in lint) exit 1;; test-oldest) {NOTE.format('a')}; exit 2;; esac"
    assert run(stubs, make) == (
        1,
        [
            "Failed steps:",
            "  make lint",
            "  make test-oldest",
            "Tests that were rerun:",
            "  tests/test_a.py::test_a",
        ],
    )


def test_every_other_supported_python_runs_the_unit_tests_and_the_newest_one_other_event_loops(
    stubs: Path,
) -> None:
    versions = {"python3": "3.12", "python3.11": "3.11", "python3.12": "3.12", "python3.13": "3.13"}
    for name, version in versions.items():
        stub(stubs / name, f"echo {version}")
    pyenv = stubs / ".pyenv" / "versions" / "3.14.0" / "bin"
    pyenv.mkdir(parents=True)
    stub(pyenv / "python", "echo 3.14")
    assert run(stubs, "case $1 in test-python | test-loops) exit 1;; esac") == (
        1,
        [
            "Failed steps:",
            "  make test-python PYTHON=python3.11 ARGS=tests/unit",
            "  make test-python PYTHON=python3.13 ARGS=tests/unit",
            f"  make test-python PYTHON={pyenv}/python ARGS=tests/unit",
            f"  make test-loops PYTHON={pyenv}/python",
            "No test was rerun.",
        ],
    )
