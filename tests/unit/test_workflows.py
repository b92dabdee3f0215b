"""The workflows call only make targets, pin every action, and have no more permissions than they need."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
TARGETS = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
WORKFLOWS = sorted((ROOT / ".github" / "workflows").iterdir())
each_workflow = pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)


def jobs_of(path: Path) -> dict[str, Any]:
    jobs: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"]
    return jobs


def test_there_is_a_workflow_for_each_occasion() -> None:
    assert [path.name for path in WORKFLOWS] == [
        "ci.yml",
        "codeql.yml",
        "docs.yml",
        "nightly.yml",
        "release.yml",
    ]


@each_workflow
def test_commands_are_make_targets(path: Path) -> None:
    commands = [step["run"] for job in jobs_of(path).values() for step in job["steps"] if "run" in step]
    assert [command for command in commands if not re.fullmatch(r"make [^\n;&|]+", command)] == []
    assert {command.split()[1] for command in commands} <= TARGETS


@each_workflow
def test_every_action_is_pinned_by_its_commit(path: Path) -> None:
    used = re.findall(r"uses: *(.*)", path.read_text(encoding="utf-8"))
    assert [line for line in used if not re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line)] == []


@each_workflow
def test_permissions_are_those_of_jobs(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert "\npermissions: {}\n" in text
    written = {
        name
        for job in jobs_of(path).values()
        for name in job["permissions"]
        if job["permissions"][name] == "write"
    }
    needed = {
        "codeql.yml": {"security-events"},
        "docs.yml": {"pages", "id-token"},
        "release.yml": {"id-token", "attestations"},
    }
    assert written == needed.get(path.name, set())


def test_every_python_in_the_classifiers_is_tested() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    tested = jobs_of(ROOT / ".github" / "workflows" / "ci.yml")["test"]["strategy"]["matrix"]["python"]
    assert set(re.findall(r'"Programming Language :: Python :: (3\.\d+)"', text)) <= set(tested)


def test_hooks_are_make_targets() -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    entries = [hook["entry"] for repository in config["repos"] for hook in repository["hooks"]]
    assert entries
    assert {entry.removeprefix("make ") for entry in entries} <= TARGETS
